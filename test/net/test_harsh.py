"""Two daemons over wires that lose, double, reorder and fragment, and across NATs on either side and on both."""

import os
import re
import signal
import subprocess
import time

import pytest
from netlab import Adit, wait_for
from traffic import PYTHON, Transfer, tcp_transfer

HERE = os.path.dirname(os.path.abspath(__file__))
PSK = 'correct horse battery staple'
DATAGRAMS = 6000


def ini(number, endpoint, host='', peer=''):
    """Host 1 or 2, each known to the other by its name: addresses change on the way."""
    other = 3 - number
    return (f'[host]\nid = host{number}.example\n{host}\n[peer other]\nendpoint = {endpoint}\nid = host{other}.example\n'
            f'psk = "{PSK}"\nlocal = 10.{number}.0.0/24\nremote = 10.{other}.0.0/24\n{peer}\n')


def counter(a, name):
    return a.status()['counters'][name]


class Numbered:
    """Numbered datagrams from one inner address to another, in the background."""

    def __init__(self, source, sink, address, bind, size=300, rate=3000, port=7100):
        tool = os.path.join(HERE, 'numbered.py')
        self.receiver = subprocess.Popen(sink.enter + [PYTHON, tool, 'recv', address, str(port)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        assert self.receiver.stdout.readline() == 'ready\n'
        self.sender = source.spawn(PYTHON, tool, 'send', address, str(port), str(DATAGRAMS), str(size), str(rate), bind)

    def done(self):
        """(arrived, twice, altered)"""
        self.sender.popen.wait(120)
        time.sleep(0.5)
        return tuple(map(int, re.findall(r'\d+', self.receiver.communicate('\n', 60)[0])))


def relayed(lab, loss, duplication, reordering, seed, host='', peer=''):
    """Two daemons, each of which takes the relay between them for its peer."""
    left, middle, right = lab.host('left'), lab.host('middle'), lab.host('right')
    lab.wire(left, 'eth0', middle, 'near')
    lab.wire(middle, 'far', right, 'eth0')
    left.address('eth0', '192.0.2.1/24')
    middle.address('near', '192.0.2.254/24')
    middle.address('far', '198.51.100.254/24')
    right.address('eth0', '198.51.100.1/24')
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    relay = middle.spawn(PYTHON, os.path.join(HERE, 'relay.py'), '192.0.2.254=192.0.2.1', '198.51.100.254=198.51.100.1',
                         str(loss), str(duplication), str(reordering), str(seed))
    relay.wait_text('ready')
    a = Adit(left, ini(1, '192.0.2.254', host, peer + '\nstart = no')).start()
    b = Adit(right, ini(2, '198.51.100.254', host, peer + '\nstart = no')).start()
    a.up('other')
    return a, b, relay


@pytest.mark.parametrize('io,esp', [('uring', 'aes128gcm16'), ('epoll', 'chacha20poly1305-esn'), ('uring', 'aes256-sha256')])
def test_loss_duplication_and_reordering(lab, io, esp):
    """1 % lost, 2 % doubled, 3 % late: nothing arrives twice or altered, TCP gets through, and every packet is accounted for."""
    a, b, relay = relayed(lab, 10, 20, 30, 4711, f'io = {io}', f'esp = {esp}\nreplay-window = 128')
    there = Numbered(a.host, b.host, '10.2.0.1', '10.1.0.1')
    back = Numbered(b.host, a.host, '10.1.0.1', '10.2.0.1')
    a.command('rekey', 'other/other')
    b.command('rekey', 'other/other')
    a.command('rekey', 'other')
    for arrived, twice, altered in (there.done(), back.done()):
        assert (twice, altered) == (0, 0)
        assert DATAGRAMS * 0.95 < arrived < DATAGRAMS, 'some are lost, and not many'
    transfers = [Transfer(a.host, b.host, '10.2.0.1', 10, 7001), Transfer(b.host, a.host, '10.1.0.1', 10, 7002)]
    for t in transfers:
        t.done()
    wait_for('the wire to be still', lambda: counter(a, 'rx_datagrams') == (time.sleep(0.3), counter(a, 'rx_datagrams'))[1])
    ends = {x: x.status()['counters'] for x in (a, b)}
    relay.stop(signal.SIGTERM)
    passed = {way: list(map(int, n)) for way, *n in re.findall(r'(\S+) ESP: (\d+) (\d+)', relay.text())}
    for source, sink, way in ((a, b, 'near-to-far'), (b, a, 'far-to-near')):
        sent, got, (came, went) = ends[source], ends[sink], passed[way]
        assert sent['out_packets'] == came, 'what was sealed was sent'
        assert got['in_packets'] + got['drop_in_replay'] == went, 'what arrived was delivered or a replay'
        assert got['drop_in_replay'] > went * 0.01
        assert not any(n for name, n in got.items() if name in ('drop_in_auth', 'drop_in_spi', 'drop_in_padding'))


def test_small_byte_limits_lose_nothing_at_full_speed(lab):
    """50 MB a Child SA at whatever rate this machine has: many rekeys, and no packet meets a hard limit."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    a = Adit(left, ini(1, '192.0.2.2', peer='bytes = 50M\nstart = no')).start()
    b = Adit(right, ini(2, '192.0.2.1', peer='bytes = 50M\nstart = no')).start()
    a.up('other')
    transfers = [Transfer(left, right, '10.2.0.1', 400, 7001), Transfer(right, left, '10.1.0.1', 400, 7002)]
    for t in transfers:
        t.done()
    for x in (a, b):
        counters = x.status()['counters']
        assert counters['drop_out_expired'] == counters['drop_in_expired'] == 0
        assert counters['drop_out_no_sa'] == 0
    assert a.log().count('rekeyed') + b.log().count('rekeyed') >= 12


def test_reload_resizes_replay_windows_of_running_sas(lab):
    """Another replay-window by reload, several times under traffic: the same SAs go on, and nothing is lost or let in twice."""
    a, b, _ = relayed(lab, 0, 20, 20, 4712, peer='replay-window = 128')
    before = [c['spi_in'] for x in (a, b) for c in x.status()['peers'][0]['ike_sas'][0]['children']]
    there, back = Numbered(a.host, b.host, '10.2.0.1', '10.1.0.1'), Numbered(b.host, a.host, '10.1.0.1', '10.2.0.1')
    for size in (65536, 64, 1024):
        for x in (a, b):
            text = open(x.ini).read()
            x.host.write(os.path.basename(x.ini), re.sub(r'replay-window = \d+', f'replay-window = {size}', text))
            x.command('reload')
        time.sleep(0.3)
    assert there.done() == back.done() == (DATAGRAMS, 0, 0)
    assert before == [c['spi_in'] for x in (a, b) for c in x.status()['peers'][0]['ike_sas'][0]['children']]
    assert all(counter(x, 'drop_in_replay') > 0 for x in (a, b))


NAT = '''table ip nat {
 chain pre {
  type nat hook prerouting priority -100
  iifname "wan" udp dport { 500, 4500 } dnat to %s
 }
 chain post {
  type nat hook postrouting priority 100
  oifname "wan" masquerade%s
 }
}
'''


def gateway(lab, inside, number, nat, wan_mtu=1500):
    """A router between a host in 10.0.N.0/24 and the world; with nat the host is seen as the router."""
    router = lab.host(f'router{number}')
    lab.wire(inside, 'eth0', router, 'lan')
    inside.address('eth0', f'10.0.{number}.2/24')
    router.address('lan', f'10.0.{number}.1/24')
    inside.run('ip', 'route', 'add', 'default', 'via', f'10.0.{number}.1')
    router.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    if nat:
        router.run('nft', '-f', router.write('nat.nft', NAT % (f'10.0.{number}.2', ' random' if number == 1 else '')))
    return router


def across(lab, nats, mtu=1500):
    """Two hosts behind routers; nats: which of 1 and 2 translate. (left, right, routers, where left calls right)"""
    left, right = lab.host('left'), lab.host('right')
    routers = [gateway(lab, h, n, n in nats) for n, h in ((1, left), (2, right))]
    lab.wire(routers[0], 'wan', routers[1], 'wan', mtu)
    for n, r in enumerate(routers, 1):
        r.address('wan', f'192.0.2.{n}/24')
        if 3 - n not in nats:
            r.run('ip', 'route', 'add', f'10.0.{3 - n}.0/24', 'via', f'192.0.2.{3 - n}')
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    return left, right, routers, '192.0.2.2' if 2 in nats else '10.0.2.2'


@pytest.mark.parametrize('nats', [(1,), (2,), (1, 2)], ids=['initiator', 'responder', 'both'])
def test_nat(lab, nats):
    left, right, _, endpoint = across(lab, nats)
    a = Adit(left, ini(1, endpoint, peer='start = no')).start()
    b = Adit(right, ini(2, '%any', peer='start = no')).start()
    a.up('other')
    left.ping('10.2.0.1', 3, source='10.1.0.1')
    tcp_transfer(left, right, '10.2.0.1', 20, port=7001)
    tcp_transfer(right, left, '10.1.0.1', 20, port=7002)
    # Each sees its own NAT; that of the other it claims in any case, so that there is UDP around ESP.
    assert [x.status()['peers'][0]['ike_sas'][0]['nat_local'] for x in (a, b)] == [1 in nats, 2 in nats]
    there, back = Numbered(left, right, '10.2.0.1', '10.1.0.1'), Numbered(right, left, '10.1.0.1', '10.2.0.1')
    for x in (a, b):
        for what in ('other/other', 'other'):
            x.command('rekey', what)
    for got in (there.done(), back.done()):
        assert got == (DATAGRAMS, 0, 0), 'nothing is lost, also while keys change'
    for x in (a, b):
        assert counter(x, 'drop_in_replay') == counter(x, 'drop_in_auth') == 0


def test_outer_fragments_are_reassembled(lab):
    """A link of 700 bytes in between cuts what carries large packets: ESP gets it whole, or not at all."""
    left, right, routers, endpoint = across(lab, (), 700)
    for h in (left, right):  # no DF inside: what is too big is fragmented outside, not refused
        h.run('sysctl', '-qw', 'net.ipv4.ip_no_pmtu_disc=1')
    a = Adit(left, ini(1, endpoint, peer='start = no')).start()
    b = Adit(right, ini(2, '%any', peer='start = no')).start()
    a.up('other')
    sniffer = routers[1].spawn('tcpdump', '-i', 'wan', '-n', '-l', 'ip[6:2] & 0x3fff != 0')
    sniffer.wait_text('listening')
    for size in (56, 600, 700, 1000, 1300):
        left.ping('10.2.0.1', 3, size, source='10.1.0.1')
        right.ping('10.1.0.1', 3, size, source='10.2.0.1')
    sniffer.wait_text('ip-proto-17|UDP')
    for x in (a, b):
        assert counter(x, 'in_packets') == 30
        assert counter(x, 'drop_in_runt') == counter(x, 'drop_in_auth') == 0
    # With every other fragment missing nothing arrives, and nothing else happens.
    routers[1].run('nft', '-f', routers[1].write('drop.nft', 'table ip t {\n chain c {\n type filter hook prerouting priority '
                                                 '-450\n ip frag-off & 0x1fff != 0 drop\n }\n}\n'))
    assert left.ping('10.2.0.1', 3, 1300, check=False, timeout=2, source='10.1.0.1') == 0
    left.ping('10.2.0.1', 3, source='10.1.0.1')
    assert counter(b, 'drop_in_runt') == counter(b, 'drop_in_auth') == 0
