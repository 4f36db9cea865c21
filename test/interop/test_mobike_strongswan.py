"""MOBIKE (RFC 4555) with strongSwan in both roles, and a NAT that maps anew under traffic."""

import re
import time

import pytest
from netlab import LEFT, RIGHT, Adit, StrongSwan, wait_for
from traffic import Transfer, tcp_transfer

PSK = 'correct horse battery staple'


def swanctl(remote, mobike='yes'):
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = %any
            remote_addrs = {remote}
            mobike = {mobike}
            local {{ auth = psk
                id = right.example }}
            remote {{ auth = psk
                id = left.example }}
            children {{ net {{
                local_ts = 10.2.0.0/24
                remote_ts = 10.1.0.0/24
            }} }}
        }} }}
        secrets {{ ike-1 {{ secret = "{PSK}" }} }}
        '''


def pair(lab, role, mobike='yes'):
    """Both up; role is adit's. Who initiates knows the other's address, who responds takes the other from anywhere."""
    left, middle, right = lab.crossing()
    # An exchange that is under way when the address goes has to find another path by its retransmissions.
    s = StrongSwan(right, swanctl('%any' if role == 'initiator' else LEFT[0], mobike),
                   'retransmit_timeout = 1\nretransmit_tries = 6').start()
    a = Adit(left, f'[host]\nid = left.example\n[peer strong]\nid = right.example\npsk = "{PSK}"\nlocal = 10.1.0.0/24\n'
                   f'remote = 10.2.0.0/24\nendpoint = {RIGHT[0] if role == "initiator" else "%any"}\n'
                   f'start = {"yes" if role == "initiator" else "no"}\n').start()
    if role == 'initiator':
        a.up('strong')
    else:
        s.initiate('net')
    left.ping('10.2.0.1', 2, source='10.1.0.1')
    return a, middle, s


def ike(a):
    found = a.status()['peers'][0]['ike_sas']
    assert len(found) == 1
    return found[0]


def where(a):
    sa = ike(a)
    return sa['local'].rsplit(':', 1)[0], sa['remote'].rsplit(':', 1)[0]


def answers(a, seconds=60):
    wait_for('traffic', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), seconds)


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_adit_loses_its_address(lab, role):
    a, _, s = pair(lab, role)
    before = ike(a)
    assert before['mobike']
    transfer = Transfer(a.host, s.host, '10.2.0.1', 60)
    time.sleep(0.3)
    a.host.run('ip', 'addr', 'del', f'{LEFT[0]}/24', 'dev', 'eth0')
    wait_for('the move', lambda: where(a) == (LEFT[1], RIGHT[0]), 60)
    answers(a, 60)
    transfer.done()
    after = ike(a)
    assert (after['spi_i'], after['spi_r']) == (before['spi_i'], before['spi_r'])
    assert LEFT[1] in s.swanctl('--list-sas').stdout
    tcp_transfer(s.host, a.host, '10.1.0.1', 5)


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_strongswan_loses_its_address(lab, role):
    """Its data plane is libipsec: a change of address may make it rekey the Child SA, which is its own affair."""
    a, _, s = pair(lab, role)
    before = ike(a)
    s.host.run('ip', 'addr', 'del', f'{RIGHT[0]}/24', 'dev', 'eth0')
    wait_for('the move', lambda: where(a) == (LEFT[0], RIGHT[1]), 120)
    answers(a, 60)
    after = ike(a)
    assert (after['spi_i'], after['spi_r']) == (before['spi_i'], before['spi_r'])
    tcp_transfer(a.host, s.host, '10.2.0.1', 5)
    tcp_transfer(s.host, a.host, '10.1.0.1', 5)


def test_strongswan_without_mobike(lab):
    a, _, s = pair(lab, 'initiator', 'no')
    before = ike(a)
    assert not before['mobike']
    a.host.run('ip', 'addr', 'del', f'{LEFT[0]}/24', 'dev', 'eth0')
    wait_for('the new SA', lambda: where(a) == (LEFT[1], RIGHT[0]) and ike(a)['state'] == 'established', 60)
    answers(a)
    assert ike(a)['spi_i'] != before['spi_i']
    assert "can't move" in a.log()


MAPPINGS = '''table ip nat {
 chain post {
  type nat hook postrouting priority 100
  ip saddr %s oifname "m20" udp sport 4500 masquerade to :%d
  ip saddr %s oifname "m20" masquerade
 }
}
'''


def map_anew(middle, inside, port):
    """Another port from now on, once the kernel has forgotten the flow."""
    middle.run('nft', '-f', middle.write('nat.nft', 'flush ruleset\n' + MAPPINGS % (inside, port, inside)))


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_nat_maps_anew_under_traffic(lab, role):
    """The initiator is behind a NAT that forgets its mapping; the responder sees another port from then on."""
    left, middle, right = lab.crossing()
    outside = '203.0.113.254'
    inside = LEFT[0]
    map_anew(middle, inside, 20001)
    middle.run('sysctl', '-qw', 'net.netfilter.nf_conntrack_udp_timeout=1', 'net.netfilter.nf_conntrack_udp_timeout_stream=1')
    if role == 'initiator':
        peer = StrongSwan(right, swanctl('%any')).start()
    else:
        peer = Adit(right, f'[host]\nid = right.example\n[peer left]\nid = left.example\npsk = "{PSK}"\n'
                           f'endpoint = %any\nlocal = 10.2.0.0/24\nremote = 10.1.0.0/24\nstart = no\n').start()
    a = Adit(left, f'[host]\nid = left.example\n[peer strong]\nid = right.example\npsk = "{PSK}"\nlocal = 10.1.0.0/24\n'
                   f'remote = 10.2.0.0/24\nendpoint = {RIGHT[0]}\ndpd = 3s\n').start()
    a.up('strong')
    left.ping('10.2.0.1', 2, source='10.1.0.1')
    before = ike(a)
    assert before['nat_local']
    for port in (20002, 20003):
        time.sleep(2.5)
        map_anew(middle, inside, port)
        answers(a, 20)
        left.ping('10.2.0.1', 5, source='10.1.0.1')
        listed = peer.swanctl('--list-sas').stdout if role == 'initiator' else str(peer.status())
        assert re.search(rf'{re.escape(outside)}[\[:]{port}', listed), listed
    after = ike(a)
    assert (after['spi_i'], after['spi_r']) == (before['spi_i'], before['spi_r'])
