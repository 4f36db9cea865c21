"""What IKE does beyond the plain, with strongSwan in both roles: cookies, post-quantum preshared keys, childless IKE
SAs, reauthentication, several Child SAs, narrowing, transport mode."""

import time

import pytest
from netlab import Adit, StrongSwan, wait_for

PSK = 'correct horse battery staple'
PPK = '0x' + '5a' * 32


def swanctl(ike='', child='', children=(('10.2.0.0/24', '10.1.0.0/24'),), ppk=''):
    nets = ''.join(f'''
                net{i} {{
                    local_ts = {local}
                    remote_ts = {remote}
                    {child}
                }}''' for i, (local, remote) in enumerate(children))
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = 192.0.2.2
            remote_addrs = 192.0.2.1
            {ike}
            local {{ auth = psk
                id = right.example }}
            remote {{ auth = psk
                id = left.example }}
            children {{ {nets}
            }} }}
        }}
        secrets {{
            ike-1 {{ secret = "{PSK}" }}
            {ppk}
        }}
        '''


def ini(peer='', remote='10.2.0.0/24'):
    return (f'[host]\nid = left.example\n[peer strong]\nendpoint = 192.0.2.2\nid = right.example\npsk = "{PSK}"\nstart = no\n'
            f'local = 10.1.0.0/24\nremote = {remote}\n{peer}\n')


def hosts(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    return left, right


def up(a, s, role, check=True, child='net0'):
    """Started by adit (initiator) or by strongSwan; whether it came up."""
    if role == 'initiator':
        return a.command('up', 'strong', check=check).returncode == 0
    return s.initiate(child, check=check).returncode == 0


def ping(a, s):
    a.host.ping('10.2.0.1', 3, source='10.1.0.1')
    s.host.ping('10.1.0.1', 3, source='10.2.0.1')


def sas(a):
    return [sa for sa in a.status()['peers'][0]['ike_sas'] if sa['state'] == 'established']


def ppk_secret(name, key=PPK):
    return f'ppk-1 {{ id-1 = {name}\n secret = {key} }}'


# -- cookies --

def test_cookies_asked_of_strongswan(lab):
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl()).start()
    a = Adit(left, ini().replace('[host]', '[host]\ncookies = always')).start()
    assert up(a, s, 'responder')
    assert 'N(COOKIE)' in s.log()
    ping(a, s)


@pytest.mark.parametrize('proposal', ['x25519', 'modp2048'])
def test_cookies_asked_by_strongswan(lab, proposal):
    """It asks for them from the second half-open IKE SA on; also when it wants another group, for which all is sent anew."""
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl(f'proposals = aes128-sha256-{proposal}'), 'cookie_threshold = 1').start()
    a = Adit(left, ini()).start()
    stranger = left.run('/usr/bin/python3', '-c', HALF_OPEN.format(proposal=31 if proposal == 'x25519' else 14)).stdout
    assert stranger == 'answered\n'
    assert up(a, s, 'initiator')
    assert 'N(COOKIE)' in s.log()
    ping(a, s)


# A first message of somebody who never comes back: SA (AES-CBC-128, PRF and HMAC-SHA2-256, one group), KE, Nonce.
HALF_OPEN = '''
import os, socket, struct
def payload(next_type, body):
    return struct.pack('>BBH', next_type, 0, 4 + len(body)) + body
def transform(last, kind, number, attribute=b''):
    return struct.pack('>BBHBBH', 0 if last else 3, 0, 8 + len(attribute), kind, 0, number) + attribute
group = {proposal}
transforms = (transform(0, 1, 12, struct.pack('>HH', 0x800e, 128)) + transform(0, 2, 5) + transform(0, 3, 12)
              + transform(1, 4, group))
offer = struct.pack('>BBHBBBB', 0, 0, 8 + len(transforms), 1, 1, 0, 4) + transforms
public = os.urandom(32) if group == 31 else bytes([1]) + os.urandom(255)
text = payload(34, offer) + payload(40, struct.pack('>HH', group, 0) + public) + payload(0, os.urandom(32))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(os.urandom(8) + bytes(8) + struct.pack('>BBBBII', 33, 0x20, 34, 8, 0, 28 + len(text)) + text, ('192.0.2.2', 500))
print('answered' if s.recv(4096)[18] == 34 else 'no')
'''


# -- post-quantum preshared keys --

@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('required', ['yes', 'no'])
def test_ppk(lab, role, required):
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl(f'ppk_id = link.ppk\nppk_required = {required}', ppk=ppk_secret('link.ppk'))).start()
    a = Adit(left, ini(f'ppk = {PPK}\nppk-id = link.ppk\nppk-required = {required}')).start()
    assert up(a, s, role)
    ping(a, s)
    assert sas(a)[0]['ppk'] is True
    for what in ('strong', 'strong/strong'):  # a rekey goes on from there
        a.command('rekey', what)
        ping(a, s)
    assert 'ppk' in s.swanctl('--list-sas').stdout.lower() or 'PPK' in s.log()


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_ppk_optional_and_unknown_to_the_other(lab, role):
    """The initiator sends NO_PPK_AUTH, and the responder falls back to it."""
    left, right = hosts(lab)
    own = '' if role == 'initiator' else 'ppk_id = theirs.ppk'  # with it, strongSwan as responder insists on that one
    s = StrongSwan(right, swanctl(f'{own}\nppk_required = no', ppk=ppk_secret('theirs.ppk'))).start()
    a = Adit(left, ini(f'ppk = {PPK}\nppk-id = ours.ppk')).start()
    assert up(a, s, role)
    ping(a, s)
    assert sas(a)[0]['ppk'] is False
    assert 'without the post-quantum preshared key' in a.log()


@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('fault', ['other id', 'other key', 'none'])
def test_ppk_required_and_missing(lab, role, fault):
    left, right = hosts(lab)
    name, key = ('other.ppk', PPK) if fault == 'other id' else ('link.ppk', '0x' + '11' * 32)
    s = StrongSwan(right, swanctl() if fault == 'none' else swanctl(f'ppk_id = {name}', ppk=ppk_secret(name, key))).start()
    a = Adit(left, ini(f'ppk = {PPK}\nppk-id = link.ppk\nppk-required = yes')).start()
    assert not up(a, s, role, check=False)
    assert not sas(a)
    assert 'ppk' in a.log().lower() or 'pre-shared keys differ' in a.log() or 'AUTHENTICATION_FAILED' in a.log()


# -- childless --

@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_childless(lab, role):
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl('childless = force')).start()
    a = Adit(left, ini('childless = force')).start()
    assert up(a, s, role)
    wait_for('the Child SA', lambda: len(sas(a)) == 1 and sas(a)[0]['children'])
    assert sas(a)[0]['childless'] is True
    ping(a, s)


def test_childless_where_strongswan_does_not(lab):
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl('childless = never')).start()
    a = Adit(left, ini('childless = force')).start()
    assert not up(a, s, 'initiator', check=False)
    assert 'childless = force' in a.log()


def test_childless_never(lab):
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl('childless = force')).start()
    a = Adit(left, ini('childless = never')).start()
    assert not up(a, s, 'responder', check=False)
    assert not sas(a)


# -- reauthentication --

def test_reauthentication_by_adit(lab):
    """reauth = 10s: new IKE SAs again and again under traffic, and not one ping is lost."""
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl()).start()
    a = Adit(left, ini('reauth = 10s')).start()
    assert up(a, s, 'initiator')
    seen = {sas(a)[0]['spi_i']}
    end = time.monotonic() + 25
    while time.monotonic() < end:
        left.ping('10.2.0.1', 20, interval=0.05, source='10.1.0.1')
        right.ping('10.1.0.1', 5, interval=0.05, source='10.2.0.1')
        seen |= {sa['spi_i'] for sa in sas(a)}
    assert len(seen) >= 3
    wait_for('one IKE SA', lambda: len(sas(a)) == 1 and s.swanctl('--list-sas').stdout.count('ESTABLISHED') == 1)
    assert 'authenticated anew' in a.log()


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_reauthentication_by_strongswan(lab, role):
    """Make before break on its side: a second IKE SA from the same peer replaces nothing until that says so."""
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl('reauth_time = 8s\nover_time = 60s\nrand_time = 0s'), 'make_before_break = yes').start()
    a = Adit(left, ini()).start()
    assert up(a, s, role)
    first = sas(a)[0]['spi_i']
    end = time.monotonic() + 14
    while time.monotonic() < end:
        left.ping('10.2.0.1', 20, interval=0.05, source='10.1.0.1')
    wait_for('one IKE SA', lambda: len(sas(a)) == 1 and s.swanctl('--list-sas').stdout.count('ESTABLISHED') == 1)
    assert sas(a)[0]['spi_i'] != first
    assert sas(a)[0]['children']
    right.ping('10.1.0.1', 3, source='10.2.0.1')


def test_authentication_lifetime_is_sent(lab):
    """As responder we ask for it; strongSwan does as it is told, before that time by its over_time."""
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl('over_time = 4s\nrand_time = 0s'), 'make_before_break = yes').start()
    a = Adit(left, ini('reauth = 15s')).start()
    assert up(a, s, 'responder')
    assert 'AUTH_LIFETIME of 15s, scheduling reauthentication' in s.log()
    first = sas(a)[0]['spi_i']
    wait_for('the new IKE SA', lambda: any(sa['spi_i'] != first for sa in sas(a)), 60, 0.5)
    ping(a, s)


# -- Child SAs --

CHILDREN = (('10.2.0.0/24', '10.1.0.0/24'), ('10.4.0.0/24', '10.3.0.0/24'), ('10.6.0.0/24', '10.5.0.0/24'))


def several(lab, ours=''):
    """Hosts with an address in each network, and our configuration of all of them."""
    left, right = hosts(lab)
    for host, ts in ((left, 1), (right, 0)):
        for c in CHILDREN[1:]:
            host.address('lo', c[ts].replace('.0/24', '.1/32'))
    more = ''.join(f'[policy more{i}]\npeer = strong\nlocal = {ts[1]}\nremote = {ts[0]}\n'
                   for i, ts in enumerate(CHILDREN[1:]))
    return left, right, ini(ours) + more


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_several_children_on_one_ike_sa(lab, role):
    left, right, conf = several(lab)
    s = StrongSwan(right, swanctl(children=CHILDREN)).start()
    a = Adit(left, conf).start()
    if role == 'initiator':
        a.up('strong')
    else:
        for i in range(3):
            s.initiate(f'net{i}')
    assert len(sas(a)) == 1 and len(sas(a)[0]['children']) == 3
    pairs = [(c[1].replace('.0/24', '.1'), c[0].replace('.0/24', '.1')) for c in CHILDREN]
    for here, there in pairs:
        left.ping(there, 2, source=here)
    s.swanctl('--terminate', '--child', 'net1')  # one goes, the others stay
    wait_for('two Child SAs', lambda: len(sas(a)[0]['children']) == 2)
    for here, there in pairs[::2]:
        left.ping(there, 2, source=here)


def test_several_children_come_over_at_reauthentication(lab):
    left, right, conf = several(lab, 'reauth = 10s')
    s = StrongSwan(right, swanctl(children=CHILDREN)).start()
    a = Adit(left, conf).start()
    a.up('strong')
    first = sas(a)[0]['spi_i']
    wait_for('the new IKE SA alone', lambda: len(sas(a)) == 1 and sas(a)[0]['spi_i'] != first, 60, 0.3)
    assert len(sas(a)[0]['children']) == 3
    ping(a, s)


def test_narrowing_of_strongswans_offer(lab):
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl(children=(('10.0.0.0/8', '10.0.0.0/8'),))).start()
    a = Adit(left, ini()).start()
    assert up(a, s, 'responder')
    child = sas(a)[0]['children'][0]
    assert child['local'] == ['10.1.0.0/24'] and child['remote'] == ['10.2.0.0/24']
    ping(a, s)


def test_packet_leads_the_offer(lab):
    """On demand: the packet's selectors come first, and strongSwan keeps them in its answer."""
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl()).start()
    a = Adit(left, ini().replace('start = no', 'start = on-demand')).start()
    left.ping('10.2.0.1', 10, interval=0.2, source='10.1.0.1', check=False)
    wait_for('the Child SA', lambda: sas(a) and sas(a)[0]['children'])
    assert '10.1.0.1/32' in s.log()
    ping(a, s)


@pytest.mark.parametrize('mode', ['tunnel', 'transport'])
def test_transport_mode_is_answered_as_configured(lab, mode):
    """strongSwan asks for transport mode, and is answered in tunnel mode where the policy says so (RFC 7296 section 1.3.1).
    Its own data plane takes no selectors that IKE runs between: the negotiation is what counts."""
    left, right = hosts(lab)
    s = StrongSwan(right, swanctl(child='mode = transport', children=(('192.0.2.2/32', '192.0.2.1/32'),))).start()
    conf = ini(f'mode = {mode}').replace('10.1.0.0/24', '192.0.2.1/32').replace('10.2.0.0/24', '192.0.2.2/32')
    a = Adit(left, conf.replace('[host]', '[host]\nroutes = no')).start()
    up(a, s, 'responder', check=False)
    log = s.log().split('generating IKE_AUTH request 1')[1]
    request, answer = log.split('parsed IKE_AUTH response 1')
    assert 'N(USE_TRANSP)' in request and ('N(USE_TRANSP)' in answer) == (mode == 'transport')
    assert 'SA TSi TSr' in answer.split('\n')[0]
    assert 'child-up' in a.log() and (', transport' in a.log()) == (mode == 'transport')
