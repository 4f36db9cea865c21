"""Every configuration in examples/, between hosts as its comments describe them."""

import os

from netlab import ROOT, Adit, StrongSwan, copy_example, wait_for

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
