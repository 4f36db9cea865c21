"""strongSwan (charon with kernel-libipsec) as the peer, in both roles."""

import re
import time

import pytest
from netlab import Adit, StrongSwan, wait_for
from traffic import Stream, Transfer, nothing_lost, tcp_transfer

PSK = 'correct horse battery staple'


def swanctl(local='192.0.2.2', remote='192.0.2.1', ike='', child='', ids=('right.example', 'left.example')):
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = {local}
            remote_addrs = {remote}
            {ike}
            local {{ auth = psk
                id = {ids[0]} }}
            remote {{ auth = psk
                id = {ids[1]} }}
            children {{ net {{
                local_ts = 10.2.0.0/24
                remote_ts = 10.1.0.0/24
                {child}
            }} }}
        }} }}
        secrets {{ ike-1 {{ secret = "{PSK}" }} }}
        '''


def ini(peer='', endpoint='192.0.2.2', host=''):
    return (f'[host]\nid = left.example\n{host}\n[peer strong]\nendpoint = {endpoint}\nid = right.example\npsk = "{PSK}"\n'
            f'local = 10.1.0.0/24\nremote = 10.2.0.0/24\n{peer}\n')


def pair(lab, ours='', ike='', child='', role='initiator'):
    """Both ends up, the tunnel started by adit (role initiator) or by strongSwan."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    s = StrongSwan(right, swanctl(ike=ike, child=child)).start()
    a = Adit(left, ini('start = no\n' + ours)).start()
    if role == 'initiator':
        a.up('strong')
    else:
        s.initiate('net')
    return a, s


def traffic(a, s, megabytes=5):
    left, right = a.host, s.host
    left.ping('10.2.0.1', 3, source='10.1.0.1')
    right.ping('10.1.0.1', 3, source='10.2.0.1')
    for size in (1, 1300, 1400, 4000, 20000):
        left.ping('10.2.0.1', 1, size, source='10.1.0.1')
    tcp_transfer(left, right, '10.2.0.1', megabytes, port=7001)
    tcp_transfer(right, left, '10.1.0.1', megabytes, port=7002)


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_default_proposals(lab, role):
    a, s = pair(lab, role=role)
    traffic(a, s, 20)
    assert a.stop() == 0
    wait_for('the delete at strongSwan', lambda: 'ESTABLISHED' not in s.swanctl('--list-sas').stdout)


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_raw_esp_gives_way_to_udp(lab, role):
    """kernel-libipsec has ESP in UDP alone, and claims a NAT to get it: we go along, whatever is configured."""
    a, s = pair(lab, 'encap = raw', role=role)
    traffic(a, s, 2)
    assert a.status()['peers'][0]['ike_sas'][0]['children'][0]['encap'] == 'udp'


ESP = ['aes128gcm16', 'aes256gcm16', 'chacha20poly1305', 'aes128-sha256', 'aes256-sha384', 'aes256-sha512']


@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('esp', ESP)
def test_each_esp_suite(lab, esp, role):
    a, s = pair(lab, child=f'esp_proposals = {esp}', role=role)
    traffic(a, s, 2)


# Each of what kernel-libipsec knows besides: by one role each, as the packets are the same in both.
MORE_ESP = [('aes128gcm8', 'initiator'), ('aes192gcm12', 'responder'), ('aes128ccm8', 'initiator'), ('aes256ccm16', 'responder'),
            ('aes128ctr-sha256', 'initiator'), ('aes192-aesxcbc', 'responder'), ('aes128-aescmac', 'initiator'),
            ('aes192-sha1', 'responder'), ('null-aesxcbc', 'initiator')]


@pytest.mark.parametrize('esp,role', MORE_ESP)
def test_more_esp_suites(lab, esp, role):
    a, s = pair(lab, ours=f'esp = {esp}', child=f'esp_proposals = {esp}', role=role)
    left, right = a.host, s.host
    for size in (1, 60, 1300):
        left.ping('10.2.0.1', 1, size, source='10.1.0.1')
    tcp_transfer(left, right, '10.2.0.1', 1, port=7001)
    tcp_transfer(right, left, '10.1.0.1', 1, port=7002)


# The same for IKE itself; with two PRFs whose keys RFC 7296 section 2.14 makes otherwise.
MORE_IKE = [('aes128gcm8-prfsha256-x25519', 'initiator'), ('aes192gcm12-prfaesxcbc-x25519', 'responder'),
            ('aes128ccm8-prfaescmac-ecp256', 'initiator'), ('aes256ccm16-prfsha384-x25519', 'responder'),
            ('aes128ctr-sha256-x25519', 'initiator'), ('aes192-aesxcbc-x25519', 'responder'),
            ('aes128-aescmac-x25519', 'initiator'), ('aes128-sha1-modp2048', 'responder')]


@pytest.mark.parametrize('ike,role', MORE_IKE)
def test_more_ike_suites(lab, ike, role):
    a, s = pair(lab, ours=f'ike = {ike}', ike=f'proposals = {ike}', role=role)
    a.command('rekey', 'strong')
    s.swanctl('--rekey', '--ike', 'peer')
    time.sleep(0.3)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


IKE = ['aes256gcm16-prfsha384-ecp384', 'aes128gcm16-prfsha256-x25519', 'chacha20poly1305-prfsha512-ecp521',
       'aes128-sha256-modp2048', 'aes256-sha512-modp4096', 'aes256-sha384-ecp256', 'aes128-sha256-modp3072']


@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('ike', IKE)
def test_each_ike_suite(lab, ike, role):
    a, s = pair(lab, ike=f'proposals = {ike}', role=role)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    a.command('rekey', 'strong')
    s.swanctl('--rekey', '--ike', 'peer')
    time.sleep(0.5)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


def inbound_spis(s):
    return set(re.findall(r'^\s+in\s+([0-9a-f]+)', s.swanctl('--list-sas').stdout, re.M))


def rekey_everything(a, s):
    """Child and IKE SA, by each side."""
    a.command('rekey', 'strong/strong')
    time.sleep(0.5)
    s.swanctl('--rekey', '--child', 'net')
    time.sleep(0.5)
    a.command('rekey', 'strong')
    time.sleep(0.5)
    s.swanctl('--rekey', '--ike', 'peer')
    time.sleep(0.5)
    a.command('rekey', 'strong/strong')


@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('child', ['', 'esp_proposals = aes128gcm16-ecp256,aes128gcm16'])
def test_rekeys_by_each_side_under_traffic(lab, udp_rate, role, child):
    a, s = pair(lab, child=child, role=role)
    a.host.ping('10.2.0.1', 1, source='10.1.0.1')
    first = inbound_spis(s)
    flows = [Stream(udp_rate, a.host, s.host, '10.2.0.1', rate=500, seconds=6),
             Stream(udp_rate, s.host, a.host, '10.1.0.1', rate=500, seconds=6)]
    rekey_everything(a, s)
    for flow in flows:
        assert nothing_lost([flow], s) > 2000
    transfer = Transfer(a.host, s.host, '10.2.0.1', 50)
    rekey_everything(a, s)
    transfer.done()
    assert inbound_spis(s).isdisjoint(first)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


@pytest.mark.parametrize('who', ['adit', 'strongswan'])
def test_delete_by_each_side(lab, who):
    a, s = pair(lab)
    a.host.ping('10.2.0.1', 1, source='10.1.0.1')
    if who == 'adit':
        a.command('down', 'strong')
    else:
        s.swanctl('--terminate', '--ike', 'peer')
    wait_for('both to have forgotten it', lambda: 'ESTABLISHED' not in s.swanctl('--list-sas').stdout)
    assert a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') == 0
    a.command('up', 'strong')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


def test_child_deleted_by_strongswan_alone(lab):
    a, s = pair(lab)
    s.swanctl('--terminate', '--child', 'net')
    assert 'ESTABLISHED' in s.swanctl('--list-sas').stdout
    a.command('up', 'strong')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_announced_window_disturbs_nothing(lab, role):
    a, s = pair(lab, ours='window = 8\ndpd = 1s', ike='dpd_delay = 1s', role=role)
    rekey_everything(a, s)
    time.sleep(2)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    assert 'N(SET_WINSIZE)' in s.log()


def test_liveness_answers_each_other(lab):
    a, s = pair(lab, ours='dpd = 1s', ike='dpd_delay = 1s')
    time.sleep(4)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    assert s.log().count('established between') == 1


def natted(lab, inside_is_adit):
    """A NAT (masquerade) between the inner host 10.0.0.2 and the outer one 192.0.2.2."""
    inside, gateway, outside = lab.host('inside'), lab.host('gateway'), lab.host('outside')
    lab.wire(inside, 'eth0', gateway, 'lan')
    lab.wire(gateway, 'wan', outside, 'eth0')
    inside.address('eth0', '10.0.0.2/24')
    gateway.address('lan', '10.0.0.1/24')
    gateway.address('wan', '192.0.2.1/24')
    outside.address('eth0', '192.0.2.2/24')
    inside.run('ip', 'route', 'add', 'default', 'via', '10.0.0.1')
    gateway.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    gateway.run('nft', '-f', gateway.write('nat.nft', 'table ip nat {\n chain post {\n type nat hook postrouting priority 100\n'
                                           'oifname "wan" masquerade random\n }\n}\n'))
    left, right = (inside, outside) if inside_is_adit else (outside, inside)
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    return left, right


def test_adit_behind_nat(lab, udp_rate):
    left, right = natted(lab, True)
    s = StrongSwan(right, swanctl(remote='%any')).start()
    a = Adit(left, ini('start = no')).start()
    a.up('strong')
    traffic(a, s)
    s.swanctl('--rekey', '--child', 'net')
    a.command('rekey', 'strong')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    assert re.search(r'remote.*192\.0\.2\.1\[(?!4500\b)\d+\]', s.swanctl('--list-sas').stdout), 'seen through the NAT'


def test_strongswan_behind_nat(lab, udp_rate):
    left, right = natted(lab, False)
    s = StrongSwan(right, swanctl(local='%any', remote='192.0.2.2')).start()
    a = Adit(left, ini('start = no', endpoint='%any')).start()
    s.initiate('net')
    traffic(a, s)
    a.command('rekey', 'strong/strong')
    s.swanctl('--rekey', '--ike', 'peer')
    time.sleep(0.5)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


def test_wrong_psk(lab):
    left, right = lab.pair()
    StrongSwan(right, swanctl().replace(PSK, 'another')).start()
    a = Adit(left, ini('start = no')).start()
    done = a.command('up', 'strong', check=False)
    assert done.returncode == 1 and 'AUTHENTICATION_FAILED' in done.stderr + done.stdout


def test_wrong_psk_with_strongswan_as_initiator(lab):
    left, right = lab.pair()
    s = StrongSwan(right, swanctl().replace(PSK, 'another')).start()
    a = Adit(left, ini('start = no')).start()
    assert s.initiate('net', check=False).returncode != 0
    assert 'pre-shared key' in a.log()


def test_no_common_proposal(lab):
    left, right = lab.pair()
    s = StrongSwan(right, swanctl(ike='proposals = aes128-sha256-ecp256')).start()
    a = Adit(left, ini('start = no\nike = aes256gcm16-prfsha384-x25519')).start()
    done = a.command('up', 'strong', check=False)
    assert done.returncode == 1 and 'NO_PROPOSAL_CHOSEN' in done.stderr + done.stdout
    assert s.initiate('net', check=False).returncode != 0
    assert 'aes256gcm16' in a.log() and 'aes128' in a.log()


def test_selectors_without_overlap(lab):
    left, right = lab.pair()
    StrongSwan(right, swanctl().replace('10.2.0.0/24', '10.9.0.0/24')).start()
    a = Adit(left, ini('start = no')).start()
    done = a.command('up', 'strong', check=False)
    assert done.returncode == 1 and 'TS_UNACCEPTABLE' in done.stderr + done.stdout


def test_narrowing_by_strongswan(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    StrongSwan(right, swanctl().replace('10.2.0.0/24', '10.2.0.0/28')).start()
    a = Adit(left, ini('start = no')).start()
    a.up('strong')
    assert '10.2.0.0/28' in a.command('status').stdout
    left.ping('10.2.0.1', 2, source='10.1.0.1')


def test_ipv6_outside_and_inside(lab):
    left, right = lab.pair()
    left.address('lo', 'fd01::1/128')
    right.address('lo', 'fd02::1/128')
    conf = swanctl(local='2001:db8::2', remote='2001:db8::1').replace('10.2.0.0/24', 'fd02::/64').replace('10.1.0.0/24', 'fd01::/64')
    s = StrongSwan(right, conf).start()
    a = Adit(left, ini('start = no', endpoint='2001:db8::2').replace('10.2.0.0/24', 'fd02::/64').replace('10.1.0.0/24', 'fd01::/64'))
    a.start().up('strong')
    left.ping('fd02::1', 3, source='fd01::1')
    tcp_transfer(left, right, 'fd02::1', 5)
    assert 'INSTALLED' in s.swanctl('--list-sas').stdout
