"""IKE fragmentation (RFC 7383) with strongSwan: an IKE_AUTH of many traffic selectors goes in SKF messages both ways."""

import re

import pytest
from capture import Capture
from netlab import Adit, StrongSwan
from traffic import tcp_transfer

PSK = 'correct horse battery staple'
LONG = 'a-name-that-is-as-long-as-names-get.' * 4 + 'example'
LEFT = ', '.join(f'10.1.{2 * n}.0/24' for n in range(32))
RIGHT = ', '.join(f'10.2.{2 * n}.0/24' for n in range(32))


def swanctl(ike):
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = 192.0.2.2
            remote_addrs = 192.0.2.1
            {ike}
            local {{ auth = psk
                id = right.{LONG} }}
            remote {{ auth = psk
                id = left.{LONG} }}
            children {{ net {{
                local_ts = {RIGHT}
                remote_ts = {LEFT}
            }} }}
        }} }}
        secrets {{ ike-1 {{ secret = "{PSK}" }} }}
        '''


def ini(more=''):
    return (f'[host]\nid = left.{LONG}\n[peer strong]\nendpoint = 192.0.2.2\nid = right.{LONG}\npsk = "{PSK}"\nstart = no\n'
            f'local = {LEFT}\nremote = {RIGHT}\n{more}\n'.replace(', ', ',\n '))


def pair(lab, ours='', ike='', settings='fragment_size = 500'):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    for n in range(32):  # strongSwan wants an address of its own in each
        right.address('lo', f'10.2.{2 * n}.1/32')
    capture = Capture(left)
    s = StrongSwan(right, swanctl(ike), settings).start()
    a = Adit(left, ini(ours)).start()
    return a, s, capture


def messages(capture):
    """(source, exchange, number of the SKF fragment or '', IP length, IP fragment) of every IKE message on the wire."""
    capture.end()
    return capture.fields('isakmp', 'ip.src', 'isakmp.exchangetype', 'isakmp.frag.number', 'ip.len', 'ip.flags.mf')


def fragments(seen, source):
    return [m for m in seen if m[0] == source and m[2]]


@pytest.mark.parametrize('suite', ['aes256gcm16-prfsha384-x25519', 'aes128-sha256-modp2048'])
@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_fragments_pass_both_ways(lab, role, suite):
    a, s, capture = pair(lab, ike=f'proposals = {suite}', ours=f'ike = {suite}')
    if role == 'initiator':
        a.up('strong')
    else:
        s.initiate('net')
    a.host.ping('10.2.0.1', 3, source='10.1.0.1')
    tcp_transfer(a.host, s.host, '10.2.0.1', 2, port=7001)
    sa = a.status()['peers'][0]['ike_sas'][0]
    assert sa['fragmentation'] is True
    assert ', fragmentation, MOBIKE' in a.command('status').stdout
    a.command('rekey', 'strong/strong')
    s.swanctl('--rekey', '--child', 'net')
    a.command('rekey', 'strong')
    assert a.status()['peers'][0]['ike_sas'][-1]['fragmentation'] is True
    s.host.ping('10.1.0.1', 3, source='10.2.0.1')
    seen = messages(capture)
    ours, theirs = fragments(seen, '192.0.2.1'), fragments(seen, '192.0.2.2')
    assert len(ours) >= 2 and len(theirs) >= 8, seen
    assert {'35', '36'} == {m[1] for m in theirs} and '35' in {m[1] for m in ours}, 'IKE_AUTH and CREATE_CHILD_SA'
    assert max(int(m[3]) for m in ours) <= 1280 and max(int(m[3]) for m in ours) > 1200
    assert max(int(m[3]) for m in theirs) <= 500
    assert not any(m[4] in ('1', 'True') for m in seen), 'no IP fragments'
    counters = a.status()['counters']
    assert counters['drop_ike_auth'] == 0 and counters['drop_ike_syntax'] == 0


@pytest.mark.parametrize('who', ['adit', 'strongswan'])
def test_without_it_at_one_end_nothing_is_fragmented(lab, who):
    a, s, capture = pair(lab, ours='fragmentation = no' if who == 'adit' else '',
                                  ike='fragmentation = no' if who == 'strongswan' else '')
    a.up('strong')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    assert a.status()['peers'][0]['ike_sas'][0]['fragmentation'] is False
    seen = messages(capture)
    assert not fragments(seen, '192.0.2.1') + fragments(seen, '192.0.2.2')


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_fragments_lost_on_the_way_are_sent_again(lab, role):
    """Every third datagram of IKE from each end is lost at first: what has come is kept, what is missing comes again."""
    a, s, capture = pair(lab)
    rules = ('table inet lossy {{\n chain in {{\n type filter hook input priority 0\n udp dport 4500 meta length > 300 '
             'numgen inc mod 3 == {} limit rate 1/minute burst 3 packets drop\n }}\n}}\n')
    for host, phase in ((a.host, 1), (s.host, 0)):
        host.run('nft', '-f', host.write('lossy.nft', rules.format(phase)))
    if role == 'initiator':
        a.up('strong')
    else:
        s.initiate('net')
    a.host.ping('10.2.0.1', 3, source='10.1.0.1')
    assert re.search('packet|drop', a.host.run('nft', 'list', 'ruleset').stdout)
