"""Path MTU probes with strongSwan as the peer: padded IKE requests, answered, or sent again as the path has it."""

import re

import pytest
from netlab import Adit, StrongSwan, wait_for
from test_strongswan import ini, pair, swanctl
from traffic import tcp_transfer


def child(adit):
    return next(c for sa in adit.status()['peers'][0]['ike_sas'] for c in sa['children'] if c['sending'])


@pytest.mark.parametrize('ike', ['aes128gcm16-prfsha256-x25519', 'aes256-sha256-x25519'])
@pytest.mark.parametrize('path', [1500, 1400])
def test_strongswan_answers_probes(lab, path, ike):
    a, s = pair(lab, ours=f'ike = {ike}', ike=f'proposals = {ike}')
    # A cable loses without a word what is longer than its other end takes, fragments of that length too; but for segmented
    # sends, which stay whole.
    s.host.run('ip', 'link', 'set', 'eth0', 'mtu', str(path))
    tcp_transfer(a.host, s.host, '10.2.0.1', 2, port=7001)
    tcp_transfer(s.host, a.host, '10.1.0.1', 2, port=7002)
    wait_for('the size of the path', lambda: child(a)['path_mtu_probed'], 30)
    assert path - 16 < child(a)['path_mtu'] <= path  # CBC has blocks of 16 bytes
    assert len(a.status()['peers'][0]['ike_sas']) == 1
    a.command('rekey', 'strong')  # its message IDs are where they should be
    a.host.ping('10.2.0.1', 2, 1200, source='10.1.0.1')


def test_strongswan_answers_what_routers_have_fragmented(lab):
    left, middle, right = lab.host('left'), lab.host('middle'), lab.host('right')
    lab.wire(left, 'eth0', middle, 'm1')
    lab.wire(right, 'eth0', middle, 'm2', 1400)
    middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    for host, number in ((left, 1), (right, 2)):
        # Proxies make one network of two: the addresses are those of all other tests.
        middle.run('sysctl', '-qw', f'net.ipv4.conf.m{number}.proxy_arp=1')
        host.address('eth0', f'192.0.2.{number}/24')
        host.address('lo', f'10.{number}.0.1/32')
        middle.run('ip', 'route', 'add', f'192.0.2.{number}', 'dev', f'm{number}')
    s = StrongSwan(right, swanctl()).start()
    a = Adit(left, ini('start = no')).start()
    a.up('strong')
    tcp_transfer(left, right, '10.2.0.1', 2, port=7001)
    wait_for('the size of the path', lambda: child(a)['path_mtu_probed'], 30)
    assert 1384 < child(a)['path_mtu'] <= 1400
    assert len(a.status()['peers'][0]['ike_sas']) == 1
    sizes = [int(n) for n in re.findall(r'received packet: from 192\.0\.2\.1\[4500\] .* \((\d+) bytes\)', s.log())]
    assert max(sizes) > 1400, sizes
    a.command('rekey', 'strong')
    left.ping('10.2.0.1', 2, 1200, source='10.1.0.1')
    s.stop()
