"""Every configuration in examples/, between hosts as its comments describe them."""

import os

from capture import Capture
from netlab import ROOT, Adit, StrongSwan, copy_example, wait_for
from traffic import tcp_transfer

EXAMPLES = os.path.join(ROOT, 'examples')


def start(host, name):
    return Adit(host, os.path.join(EXAMPLES, name)).start()


def test_point_to_point(lab):
    left, right = lab.pair()
    a = start(left, 'point-to-point/left.ini')
    b = start(right, 'point-to-point/right.ini')
    a.up('right')
    wait_for('both ends', lambda: b.status()['peers'][0]['state'] == 'up')
    left.ping('10.77.0.2')
    right.ping('10.77.0.1', size=1378)


def test_site_to_site(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/24', '2001:db8:1::1/64')
    right.address('lo', '10.2.0.1/24', '2001:db8:2::1/64')
    b = start(right, 'site-to-site/west.ini')
    a = start(left, 'site-to-site/east.ini')
    a.up('west')
    left.ping('10.2.0.1')
    left.ping('2001:db8:2::1')
    right.ping('10.1.0.1')
    right.ping('2001:db8:1::1')
    before = b.status()['counters']['drop_out_discard']
    right.run('python3', '-c', 'import socket; s = socket.socket(); s.settimeout(0.5); s.connect_ex(("10.1.0.1", 23))')
    wait_for('telnet to be discarded', lambda: b.status()['counters']['drop_out_discard'] > before)


def test_host_to_gateway(lab):
    left, right = lab.pair()
    right.address('lo', '198.51.100.1/32')
    start(right, 'host-to-gateway/gateway.ini')
    a = start(left, 'host-to-gateway/host.ini')
    a.up('gateway')
    left.ping('198.51.100.1')
    left.ping('192.0.2.2', source='10.9.0.1')
    right.ping('10.9.0.1')
    assert a.status()['host']['routes'] == ['0.0.0.0/0']


def test_raw_keys(lab):
    left, right = lab.pair()
    b = start(right, 'raw-keys/right.ini')
    a = start(left, 'raw-keys/left.ini')
    a.up('right')
    left.ping('10.77.0.2')
    right.ping('10.77.0.1')
    assert {sa['auth_remote'] for sa in b.status()['peers'][0]['ike_sas']} == {'Ed25519 raw key'}
    assert 'peer by Ed25519 raw key' in a.command('status').stdout


def test_certificates(lab, tmp_path):
    left, right = lab.pair()
    folder = copy_example('certificates', tmp_path)
    b = Adit(right, os.path.join(folder, 'right.ini')).start()
    a = Adit(left, os.path.join(folder, 'left.ini')).start()
    a.up('right')
    left.ping('10.77.0.2')
    right.ping('10.77.0.1')
    assert b.status()['peers'][0]['ike_sas'][0]['remote_id'] == 'left.example'


def test_transport(lab):
    """Whoever mistypes the secret still gets in by ssh; with the right one all but that is encrypted."""
    left, right = lab.pair()
    with open(os.path.join(EXAMPLES, 'transport/right.ini')) as f:
        ini = f.read()
    b = Adit(right, ini.replace('an example', 'an exmaple')).start()
    a = start(left, 'transport/left.ini')
    assert a.command('up', 'right', check=False).returncode == 1
    for source, sink, address in ((left, right, '192.0.2.2'), (left, right, '2001:db8::2'), (right, left, '192.0.2.1')):
        tcp_transfer(source, sink, address, 1, port=22)
    assert left.ping('192.0.2.2', 1, check=False, timeout=3) == 0
    right.write('adit.ini', ini)
    b.command('reload')
    capture = Capture(left)
    for peer in ('right', 'right6'):
        a.up(peer)
    wait_for('one IKE SA each', lambda: all(len(p['ike_sas']) == 1 for x in (a, b) for p in x.status()['peers']))
    assert [sa['children'][0]['mode'] for peer in a.status()['peers'] for sa in peer['ike_sas']] == ['transport'] * 2
    for address, port in (('192.0.2.2', 22), ('2001:db8::2', 22), ('192.0.2.2', 80), ('2001:db8::2', 80)):
        left.ping(address)
        tcp_transfer(left, right, address, 1, port)
    capture.end()
    assert capture.count('tcp.port == 22 && ip') > 10 and capture.count('tcp.port == 22 && ipv6') > 10
    assert capture.count('tcp.port == 80 || icmp.type == 8 || icmpv6.type == 128') == 0


def test_strongswan(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/24')
    right.address('lo', '10.2.0.1/24')
    s = StrongSwan(right, os.path.join(EXAMPLES, 'strongswan/swanctl.conf')).start()
    a = start(left, 'strongswan/adit.ini')
    a.up('swan')
    left.ping('10.2.0.1', source='10.1.0.1')
    right.ping('10.1.0.1', source='10.2.0.1')
    assert s.swanctl('--list-sas').stdout.count('INSTALLED') == 1
