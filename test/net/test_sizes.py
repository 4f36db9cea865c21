"""Sizes: links from 1280 to 9000 bytes, a path that shrinks under traffic, fragments, ICMP errors to the inside."""

import json
import os
import re

import pytest
from netlab import Adit, wait_for
from traffic import PYTHON, tcp_transfer

FLOW = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'flow.py')
ENDS = {4: ('192.0.2.1', '203.0.113.1'), 6: ('2001:db8:1::1', '2001:db8:2::1')}
INNER = {4: ('10.1.0.1', '10.2.0.1'), 6: ('fd01::1', 'fd02::1')}


def ini(number, outer, peer=''):
    other = 3 - number
    return (f'[peer other]\nendpoint = {ENDS[outer][other - 1]}\npsk = "correct horse battery staple"\n'
            f'local = 10.{number}.0.0/24, fd0{number}::/64\nremote = 10.{other}.0.0/24, fd0{other}::/64\n{peer}\n')


def road(lab):
    """left, a router, right; links of 1500 bytes."""
    left, middle, right = lab.host('left'), lab.host('middle'), lab.host('right')
    middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
    for number, host in ((1, left), (2, right)):
        lab.wire(host, 'eth0', middle, f'm{number}')
        for family, ends in ENDS.items():
            gateway = ends[number - 1][:-1] + ('254' if family == 4 else 'fe')
            host.address('eth0', ends[number - 1] + ('/24' if family == 4 else '/64'))
            middle.address(f'm{number}', gateway + ('/24' if family == 4 else '/64'))
            host.run('ip', f'-{family}', 'route', 'add', 'default', 'via', gateway)
            host.address('lo', INNER[family][number - 1] + ('/32' if family == 4 else '/128'))
    return left, middle, right


def tunnel(lab, outer=4, peer='', host=''):
    left, middle, right = road(lab)
    a, b = Adit(left, host + ini(1, outer, peer)).start(), Adit(right, host + ini(2, outer, peer)).start()
    a.up('other')
    wait_for('one IKE SA', lambda: all(len(x.status()['peers'][0]['ike_sas']) == 1 for x in (a, b)))
    return a, middle, b


def silence(middle):
    """The router tells nobody what it drops."""
    middle.run('nft', '-f', '-', input='table inet quiet { chain out { type filter hook output priority 0;\n'
               'icmp type destination-unreachable drop\nicmpv6 type packet-too-big drop\n}\n}')


def child(adit):
    return next(c for sa in adit.status()['peers'][0]['ike_sas'] for c in sa['children'] if c['sending'])


def counter(adit, name):
    return adit.status()['counters'][name]


class Flow:
    def __init__(self, source, sink, address, seconds, mbit=40, port=7100):
        self.server = sink.spawn(PYTHON, FLOW, 'recv', address, str(port), log=f'flow-recv-{port}.log')
        self.server.wait_text('ready')
        self.seconds = seconds
        self.client = source.spawn(PYTHON, FLOW, 'send', address, str(port), str(seconds), str(mbit),
                                   log=f'flow-send-{port}.log')

    def done(self):
        sent = int(self.client.wait_text(r'^\d+\n', self.seconds + 60).group(0))
        got = json.loads(self.server.wait_text(r'\{.*\}', 30).group(0))
        assert got['bytes'] == sent
        return got


@pytest.mark.parametrize('mtu, peer', [(1280, ''), (1400, ''), (1500, ''), (9000, ''), (1280, 'encap = raw'), (9000, 'encap = raw'),
                                       (1280, 'ah = sha256')])
@pytest.mark.parametrize('outer', [4, 6])
def test_links_of_every_size_work_out_of_the_box(lab, mtu, peer, outer):
    left, right = lab.pair(mtu)
    ends = {4: ('192.0.2.1', '192.0.2.2'), 6: ('2001:db8::1', '2001:db8::2')}[outer]
    daemons = []
    for number, host in ((1, left), (2, right)):
        for family in INNER:
            host.address('lo', INNER[family][number - 1] + ('/32' if family == 4 else '/128'))
        daemons.append(Adit(host, ini(number, outer, peer).replace(ENDS[outer][2 - number], ends[2 - number])).start())
    a, b = daemons
    a.up('other')
    for family in (4, 6):
        source, target = INNER[family]
        # Where the TUN device has 1280 bytes for IPv6, and the path less, the first long one tells its sender.
        left.ping(target, 1, 1240, source=source, check=mtu > 1280, timeout=1)
        for size in (56, 1200, 1300, 1400, 1500, 3000, 9000, 30000):
            left.ping(target, 2, size, source=source)
        tcp_transfer(left, right, target, 20, port=7001)
        tcp_transfer(right, left, source, 20, port=7002)
    wait_for('the size of the path', lambda: child(a)['path_mtu_probed'], 10)
    assert child(a)['path_mtu'] == mtu
    assert counter(a, 'drop_out_send') == 0


@pytest.mark.parametrize('icmp', ['allowed', 'blocked'])
@pytest.mark.parametrize('outer, peer', [(4, ''), (4, 'df = set'), (6, '')])
def test_a_path_that_shrinks_in_mid_transfer(lab, outer, peer, icmp):
    a, middle, b = tunnel(lab, outer, peer)
    if icmp == 'blocked':
        silence(middle)
    flow = Flow(a.host, b.host, INNER[4][1], 20)
    wait_for('the path to be known', lambda: child(a)['path_mtu_probed'], 10)
    assert child(a)['path_mtu'] == 1500
    middle.run('ip', 'link', 'set', 'm2', 'mtu', '1280')
    got = flow.done()
    print(f'IPv{outer} {peer}, ICMP {icmp}: the longest stall was {got["longest"]} s, '
          f'the path MTU is {child(a)["path_mtu"]} now')
    assert got['longest'] < 15  # between two steps of TCP's back-off, 13 s and 26 s
    if outer == 6 or peer:
        assert child(a)['path_mtu'] == 1280
    assert child(b)['path_mtu'] == 1500  # the other direction is another path


# Jumbo frames at home, and on the way Ethernet, PPPoE, GRE, and the least that IPv6 has.
@pytest.mark.parametrize('first, second', [(9000, 1500), (1500, 9000), (9000, 1280), (1500, 1492), (1500, 1476)])
@pytest.mark.parametrize('outer', [4, 6])
def test_a_path_smaller_than_its_first_link(lab, outer, first, second):
    left, middle, right = road(lab)
    for host, device, mtu in ((left, 'eth0', first), (middle, 'm1', first), (middle, 'm2', second), (right, 'eth0', second)):
        host.run('ip', 'link', 'set', device, 'mtu', str(mtu))
    a, b = Adit(left, ini(1, outer)).start(), Adit(right, ini(2, outer)).start()
    a.up('other')
    for family, (source, target) in INNER.items():
        for size in (56, 1200, 1400, 1472, 3000, 8000):
            left.ping(target, 1, size, source=source, check=False, timeout=1)  # the first long ones may find it out
        tcp_transfer(left, right, target, 10, port=7001)
        tcp_transfer(right, left, source, 10, port=7002)
    for adit in (a, b):
        wait_for('the size of the path', lambda: child(adit)['path_mtu_probed'] and child(adit)['path_mtu'] == min(first, second), 40)
    for source, target in INNER.values():
        for size in (56, 1200, 1400, 1472, 3000, 8000):  # the first that is too long for the path alone tells its sender
            wait_for('its sender to be told', lambda n=size, s=source, t=target: left.ping(t, 1, n, source=s, check=False, timeout=1), 10)
            left.ping(target, 2, size, source=source)


# What anybody can send: errors that quote what is known of us, and an echo, which the kernel believes every time.
FORGE = '''
from scapy.all import ICMP, ICMPv6EchoRequest, ICMPv6PacketTooBig, IP, IPv6, UDP, Raw, send
ours, theirs = '{ours}', '{theirs}'
six = ':' in ours
for proto, begin in ((17, UDP(sport=4500, dport=4500, len=1400)), (17, UDP(sport=500, dport=500, len=1400)),
                     (50, Raw(bytes(8))), (51, Raw(bytes(16))), (58, ICMPv6EchoRequest())):
    if six:
        quoted = IPv6(src=ours, dst=theirs, nh=proto, plen=1400) / begin / Raw(bytes(1000))
        send(IPv6(dst=ours) / ICMPv6PacketTooBig(mtu=1280) / quoted, verbose=0)
    else:
        quoted = IP(src=ours, dst=theirs, proto=proto, len=1420, flags='DF') / begin / Raw(bytes(500))
        send(IP(dst=ours) / ICMP(type=3, code=4, nexthopmtu=600) / quoted, verbose=0)
'''


def forge(b, outer):
    ours, theirs = ENDS[outer]
    b.host.run(PYTHON, '-c', FORGE.format(ours=ours, theirs=theirs))


def count_fragments(middle):
    middle.run('nft', '-f', '-', input='table ip seen { chain pre { type filter hook prerouting priority -500;\n'
               'iif m1 ip frag-off & 0x3fff != 0 counter\n}\n}\n'
               'table ip6 seen { chain pre { type filter hook prerouting priority -500;\n'
               'iif m1 frag more-fragments 0-1 counter\n}\n}')


def fragments(middle, outer):
    table = middle.run(f'nft list table {"ip" if outer == 4 else "ip6"} seen').stdout
    return int(re.search(r'packets (\d+)', table).group(1))


@pytest.mark.parametrize('peer', ['', 'df = set', 'encap = raw', 'encap = raw\ndf = set', 'ah = sha256\ndf = set'])
@pytest.mark.parametrize('outer', [4, 6])
def test_what_forged_icmp_says_of_the_path_changes_nothing(lab, outer, peer):
    a, middle, b = tunnel(lab, outer, peer, '[host]\nlog = debug\n')
    count_fragments(middle)
    forge(b, outer)
    a.process.wait_text(r'debug core: ICMP from \S+ about what went to \S+: too big \(MTU \d+\); ')
    if outer == 6:
        assert 'mtu 1280' in a.host.run(f'ip -6 route get {ENDS[6][1]}').stdout  # the kernel believes it
    flow = Flow(a.host, b.host, INNER[4][1], 6)
    wait_for('the path to be known', lambda: child(a)['path_mtu_probed'], 10)
    forge(b, outer)
    got = flow.done()
    assert got['longest'] < 1
    assert child(a)['path_mtu'] == 1500
    assert fragments(middle, outer) == 0
    assert counter(a, 'drop_out_send') == 0


@pytest.mark.parametrize('outer', [4, 6])
def test_each_direction_has_a_size_of_its_own(lab, outer):
    a, middle, b = tunnel(lab, outer, 'df = set')
    for family, net in ((4, '203.0.113.0/24'), (6, '2001:db8:2::/64')):  # a link would be as small for the way back
        middle.run('ip', f'-{family}', 'route', 'replace', net, 'dev', 'm2', 'proto', 'kernel', 'mtu', 'lock', '1300',
                   *(['metric', '256'] if family == 6 else []))
    tcp_transfer(a.host, b.host, INNER[4][1], 5, port=7001)
    tcp_transfer(b.host, a.host, INNER[4][0], 5, port=7002)
    tcp_transfer(a.host, b.host, INNER[6][1], 5, port=7003)
    wait_for('both sizes', lambda: child(a)['path_mtu'] == 1300 and child(b)['path_mtu_probed'], 40)
    assert child(b)['path_mtu'] == 1500


@pytest.mark.parametrize('fragment', ['before', 'after'])
@pytest.mark.parametrize('outer, peer', [(4, ''), (6, ''), (4, 'encap = raw'), (4, 'ah = sha256'), (6, 'encap = raw'), (6, 'ah = sha256')])
def test_without_df_it_is_fragmented_as_configured(lab, outer, peer, fragment):
    a, middle, b = tunnel(lab, outer, f'{peer}\nfragment = {fragment}')
    count_fragments(middle)
    a.host.run('ip', 'link', 'set', 'adit0', 'mtu', '3000')  # else the host fragments by itself
    source, target = INNER[4]
    a.host.run(PYTHON, '-c', UDP.format(source=source, target=target, length=2500, pmtu=0))
    receiver = b.host.spawn(PYTHON, '-c', UDP_SINK.format(target=target), log='sink.log')
    receiver.wait_text('ready')
    a.host.run(PYTHON, '-c', UDP.format(source=source, target=target, length=2500, pmtu=0))
    receiver.wait_text('2500')
    assert counter(a, 'drop_out_send') == 0
    assert (fragments(middle, outer) == 0) == (fragment == 'before')
    assert counter(a, 'drop_out_too_big') == 0


@pytest.mark.parametrize('peer', ['', 'encap = raw'])
def test_fragments_fit_a_path_of_which_no_icmp_tells(lab, peer):
    """Over IPv6, where routers don't fragment, and the kernel would by what it was told."""
    a, middle, b = tunnel(lab, 6, f'{peer}\nfragment = after')
    silence(middle)
    flow = Flow(a.host, b.host, INNER[6][1], 12)  # so that the host learns nothing of the other target
    wait_for('the path to be known', lambda: child(a)['path_mtu_probed'], 10)
    middle.run('ip', 'link', 'set', 'm2', 'mtu', '1280')
    flow.done()
    assert child(a)['path_mtu'] == 1280
    a.host.run('ip', 'link', 'set', 'adit0', 'mtu', '3000')  # else the host fragments by itself
    source, target = INNER[4]
    receiver = b.host.spawn(PYTHON, '-c', UDP_SINK.format(target=target), log='sink.log')
    receiver.wait_text('ready')
    a.host.run(PYTHON, '-c', UDP.format(source=source, target=target, length=2500, pmtu=0))
    receiver.wait_text('2500', 5)
    assert counter(a, 'drop_out_send') == 0


UDP = '''
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, {pmtu})  # IP_MTU_DISCOVER
s.bind(('{source}', 0))
s.sendto(bytes({length}), ('{target}', 7200))
'''
UDP_SINK = '''
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('{target}', 7200))
print('ready', flush=True)
print(len(s.recv(65536)), flush=True)
'''
PROBE = '''
import socket, time
family = socket.{family}
s = socket.socket(family, socket.SOCK_DGRAM)
level, discover, mtu = (socket.IPPROTO_IP, 10, 14) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 23, 24)
s.setsockopt(level, discover, 2)  # what an application with path MTU discovery does
s.bind(('{source}', 0))
s.connect(('{target}', 7201))
for i in range(50):
    try:
        s.send(bytes(1300))
    except OSError:
        pass
    time.sleep(0.1)
    if s.getsockopt(level, mtu) < 1328:
        break
print(s.getsockopt(level, mtu))
'''


@pytest.mark.parametrize('family', [4, 6])
def test_who_sends_too_much_with_df_is_told_the_size(lab, family):
    a, middle, b = tunnel(lab, 4, host='[host]\nmtu = 1400\n')
    middle.run('ip', 'link', 'set', 'm2', 'mtu', '1350')
    source, target = INNER[family]
    told = int(a.host.run(PYTHON, '-c', PROBE.format(family='AF_INET' if family == 4 else 'AF_INET6', source=source,
                                                     target=target), timeout=60).stdout)
    wait_for('the size of the path', lambda: child(a)['path_mtu'] <= 1350, 20)
    assert 1280 <= told < 1328
    assert counter(a, 'drop_out_too_big') > 0 and counter(a, 'icmp_told') > 0
