"""Authentication by keys and certificates with strongSwan, each end as initiator."""

import os
import re

import pytest
from authority import Authority
from netlab import Adit, StrongSwan, wait_for

PSK = 'correct horse battery staple'
ROLES = pytest.mark.parametrize('role', ['initiator', 'responder'])


@pytest.fixture
def pki(tmp_path):
    made = Authority(tmp_path)
    made.ca()
    return made


def swanctl(local, remote, ids=('right.example', 'left.example')):
    def end(content, name):
        return content + (f'\nid = {name}' if name else '')
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = 192.0.2.2
            remote_addrs = 192.0.2.1
            local {{ {end(local, ids[0])}
            }}
            remote {{ {end(remote, ids[1])}
            }}
            children {{ net {{
                local_ts = 10.2.0.0/24
                remote_ts = 10.1.0.0/24
            }} }}
        }} }}
        secrets {{ ike-1 {{ secret = "{PSK}" }} }}
        '''


def ini(peer, host='', ids=('left.example', 'right.example')):
    own = f'id = {ids[0]}\n' if ids[0] else ''
    theirs = f'id = {ids[1]}\n' if ids[1] else ''
    return (f'[host]\n{own}{host}\n[peer strong]\nendpoint = 192.0.2.2\n{theirs}start = no\n'
            f'local = 10.1.0.0/24\nremote = 10.2.0.0/24\n{peer}\n')


def link(lab, ours, theirs, files, settings=''):
    """adit on the left and strongSwan on the right, both running."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    s = StrongSwan(right, theirs, settings, files).start()
    return Adit(left, ours).start(), s


def up(a, s, role):
    if role == 'initiator':
        a.up('strong')
    else:
        s.initiate('net')
    a.host.ping('10.2.0.1', 3, source='10.1.0.1')
    return wait_for('the IKE SA', lambda: a.status()['peers'][0]['ike_sas'])[0]


def refused(a, s, role, reason):
    """Neither end gets anywhere; adit's log says why."""
    if role == 'initiator':
        assert a.command('up', 'strong', check=False).returncode == 1
    else:
        assert s.initiate('net', check=False).returncode != 0
    assert reason in a.log(), a.log()
    wait_for('strongSwan to forget it', lambda: 'ESTABLISHED' not in s.swanctl('--list-sas').stdout)
    assert a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') == 0


def by_cert(pki, name='left', more=''):
    return f'key = file:{pki.path(name)}.key\ncert = {pki.path(name)}.crt{more}\nca = {pki.path("root")}.crt'


def strong_files(pki, *extra):
    return {'x509/right.crt': pki.read('right.crt'), 'private/right.key': pki.read('right.key'),
            'x509ca/root.crt': pki.read('root.crt'), **dict(extra)}


@ROLES
@pytest.mark.parametrize('ours, theirs', [('rsa', 'p256'), ('p256', 'rsa3072'), ('p384', 'p521'), ('p521', 'p384')])
def test_certificates(lab, pki, ours, theirs, role):
    pki.cert('left', ours)
    pki.cert('right', theirs)
    a, s = link(lab, ini('', by_cert(pki)), swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey'), strong_files(pki))
    sa = up(a, s, role)
    assert sa['auth_local'].endswith('certificate of C=CH, O=adit test, CN=left'), sa
    assert sa['auth_remote'].endswith('certificate of C=CH, O=adit test, CN=right'), sa
    a.command('rekey', 'strong')
    assert a.status()['peers'][0]['ike_sas'][-1]['auth_remote'] == sa['auth_remote']
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


@ROLES
@pytest.mark.parametrize('ours, theirs', [('p256', 'p384'), ('p384', 'p521'), ('p521', 'p256')])
def test_older_methods(lab, pki, ours, theirs, role):
    """Where the peer announces no RFC 7427: those of RFC 4754, each way. Its RSA would be with SHA-1 then."""
    pki.cert('left', ours)
    pki.cert('right', theirs)
    a, s = link(lab, ini('', by_cert(pki)), swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey'), strong_files(pki),
                'signature_authentication = no')
    up(a, s, role)
    methods = {'p256': 'ECDSA-256 signature', 'p384': 'ECDSA-384 signature', 'p521': 'ECDSA-521 signature'}
    log = s.log()
    assert f"authentication of 'left.example' with {methods[ours]} successful" in log
    assert f"authentication of 'right.example' (myself) with {methods[theirs]} successful" in log


@ROLES
def test_large_chains_go_in_fragments(lab, pki, role):
    """Two intermediate authorities with RSA keys on each side: IKE_AUTH is longer than any datagram, both ways."""
    for side in ('ours', 'theirs'):
        pki.ca(side, 'root', 'rsa3072')
        pki.ca(f'{side}2', side, 'rsa3072')
    pki.cert('left', 'rsa3072', 'ours2')
    pki.cert('right', 'rsa3072', 'theirs2')
    above = [f'x509ca/{name}.crt' for name in ('theirs', 'theirs2')]
    files = strong_files(pki, *((name, pki.read(os.path.basename(name))) for name in above))
    a, s = link(lab, ini('', by_cert(pki, more=f',\n {pki.path("ours2.crt")},\n {pki.path("ours.crt")}')),
                swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey'), files)
    assert up(a, s, role)['fragmentation']
    log = s.log()
    for fragments in (r'received fragment #(\d+) of \d+', r'splitting IKE message .* into (\d+) fragments'):
        assert max(map(int, re.findall(fragments, log))) >= 3, fragments
    assert a.status()['counters']['drop_ike_fragment'] == 0


@ROLES
def test_subjects_are_the_identities_when_none_is_configured(lab, pki, role):
    pki.cert('left')
    pki.cert('right')
    ours = ini('', by_cert(pki), ids=('', '"C=CH, O=adit test, CN=right"'))
    a, s = link(lab, ours, swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey', ids=('', '"C=CH, O=adit test, CN=left"')),
                strong_files(pki))
    assert up(a, s, role)['remote_id'] == 'C=CH, O=adit test, CN=right'


@ROLES
@pytest.mark.parametrize('kind', ['ed25519', 'rsa', 'p256'])
def test_raw_keys(lab, pki, kind, role):
    left, right = pki.key('left', kind), pki.key('right', kind)
    pki.write('right.pub', right)
    a, s = link(lab, ini(f'key = file:{pki.path("left.key")}\npublic-key = file:{pki.path("right.pub")}'),
                swanctl('auth = pubkey\npubkeys = right.pub', 'auth = pubkey\npubkeys = left.pub'),
                {'pubkey/left.pub': left, 'pubkey/right.pub': right, 'private/right.key': pki.read('right.key')})
    assert 'raw key' in up(a, s, role)['auth_remote']


@ROLES
def test_raw_keys_without_identities(lab, pki, role):
    left, right = pki.key('left', 'ed25519'), pki.key('right', 'ed25519')
    pki.write('right.pub', right)
    ours = pki.fingerprint('left')
    a, s = link(lab, ini(f'key = file:{pki.path("left.key")}\npublic-key = file:{pki.path("right.pub")}', ids=('', '')),
                swanctl('auth = pubkey\npubkeys = right.pub', 'auth = pubkey\npubkeys = left.pub', ids=('', f'"@#{ours}"')),
                {'pubkey/left.pub': left, 'pubkey/right.pub': right, 'private/right.key': pki.read('right.key')})
    assert up(a, s, role)['local_id'] == f'keyid:0x{ours}'


@ROLES
@pytest.mark.parametrize('auth', ['psk, pubkey', 'pubkey, psk'])
def test_psk_one_way_and_a_certificate_the_other(lab, pki, auth, role):
    pki.cert('left')
    pki.cert('right')
    conf = {'psk, pubkey': swanctl('auth = pubkey\ncerts = right.crt', 'auth = psk'),
            'pubkey, psk': swanctl('auth = psk', 'auth = pubkey')}[auth]
    a, s = link(lab, ini(f'psk = "{PSK}"\nauth = {auth}', by_cert(pki)), conf, strong_files(pki))
    sa = up(a, s, role)
    assert (sa['auth_local'] == 'psk') == (auth == 'psk, pubkey')
    assert (sa['auth_remote'] == 'psk') == (auth == 'pubkey, psk')


@ROLES
def test_intermediate_authorities(lab, pki, role):
    pki.ca('ours', 'root', 'p384')
    pki.ca('theirs', 'root', 'rsa')
    pki.cert('left', issuer='ours')
    pki.cert('right', issuer='theirs')
    files = strong_files(pki, ('x509ca/theirs.crt', pki.read('theirs.crt')))
    a, s = link(lab, ini('', by_cert(pki, more=f', {pki.path("ours.crt")}')),
                swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey'), files)
    up(a, s, role)


@ROLES
def test_a_revoked_certificate_is_refused(lab, pki, role):
    pki.cert('left')
    pki.cert('right')
    pki.crl('right')
    a, s = link(lab, ini('', by_cert(pki) + f'\ncrl = {pki.path("root.crl")}'),
                swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey'), strong_files(pki))
    refused(a, s, role, 'revoked')


@ROLES
def test_a_certificate_of_another_authority_is_refused(lab, pki, role):
    pki.ca('other')
    pki.cert('left')
    pki.cert('right', issuer='other')
    a, s = link(lab, ini('', by_cert(pki)), swanctl('auth = pubkey\ncerts = right.crt', 'auth = pubkey'),
                strong_files(pki, ('x509ca/other.crt', pki.read('other.crt'))))
    refused(a, s, role, 'CN=other')


def test_a_certificate_of_somebody_else_is_refused(lab, pki):
    pki.cert('left')
    pki.cert('right')
    pki.cert('carol')
    files = {**strong_files(pki), 'x509/carol.crt': pki.read('carol.crt'), 'private/carol.key': pki.read('carol.key')}
    a, s = link(lab, ini('', by_cert(pki)),
                swanctl('auth = pubkey\ncerts = carol.crt', 'auth = pubkey', ids=('carol.example', 'left.example')), files)
    refused(a, s, 'responder', 'carol.example at 192.0.2.2:4500 fits no peer: strong has the id right.example')
    a.stop()
    a = Adit(a.host, ini('', by_cert(pki), ids=('left.example', '%any')), 'open').start()
    assert up(a, s, 'responder')['remote_id'] == 'carol.example'


@ROLES
def test_another_raw_key_is_refused(lab, pki, role):
    left, right = pki.key('left', 'ed25519'), pki.key('right', 'ed25519')
    pki.write('wrong.pub', pki.key('wrong', 'ed25519'))
    a, s = link(lab, ini(f'key = file:{pki.path("left.key")}\npublic-key = file:{pki.path("wrong.pub")}'),
                swanctl('auth = pubkey\npubkeys = right.pub', 'auth = pubkey\npubkeys = left.pub'),
                {'pubkey/left.pub': left, 'pubkey/right.pub': right, 'private/right.key': pki.read('right.key')})
    refused(a, s, role, 'is not by the configured public-key (Ed25519)')


@ROLES
def test_the_method_must_be_the_configured_one(lab, pki, role):
    pki.cert('left')
    pki.cert('right')
    a, s = link(lab, ini('', by_cert(pki)), swanctl('auth = psk', 'auth = pubkey'), strong_files(pki))
    refused(a, s, role, 'uses a pre-shared key, a signature by a certificate is configured')
