"""The outer IP header on a real wire: DSCP, ECN with a router that marks, DF, TTL, options, flow label."""

import os
import re
import signal

import pytest
from capture import Capture
from netlab import Adit, wait_for
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap
from traffic import PYTHON, tcp_transfer

LINE = r'^(\d+) (\d+) (\d+) (\w+)$'  # of what marked.py prints
MARKED = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'marked.py')
OUTER = {4: ('192.0.2.1', '198.51.100.1'), 6: ('2001:db8:1::1', '2001:db8:2::1')}
INNER = {4: ('10.1.0.1', '10.2.0.1'), 6: ('fd01::1', 'fd02::1')}
NOT_ECT, ECT1, ECT0, CE = range(4)
ESP = 50


def ini(number, outer, policy, host=''):
    other = 3 - number
    if 'mode = transport' in policy:
        local, remote = OUTER[outer][number - 1], OUTER[outer][other - 1]
    else:
        local, remote = f'10.{number}.0.0/24, fd0{number}::/64', f'10.{other}.0.0/24, fd0{other}::/64'
    return (f'[host]\n{host}\n[peer other]\nendpoint = {OUTER[outer][other - 1]}\npsk = "correct horse battery staple"\n'
            f'local = {local}\nremote = {remote}\n{policy}\n')


class Road:
    """Two hosts with a tunnel, and a router between them; 10.1.0.1 and fd01::1 are left's, 10.2.0.1 and fd02::1 right's."""

    def __init__(self, lab, outer=4, policy='', host='', raw=False):
        self.outer = outer
        self.what = 'meta l4proto esp' if raw else 'udp dport 4500'
        policy = 'encap = raw\n' + policy if raw else policy
        self.left, self.middle, self.right = (lab.host(name) for name in ('left', 'middle', 'right'))
        self.middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
        for i, end in enumerate((self.left, self.right)):
            net4, net6 = OUTER[4][i].rsplit('.', 1)[0], OUTER[6][i].rsplit('::', 1)[0]
            lab.wire(end, 'eth0', self.middle, f'm{i}')
            end.address('eth0', f'{OUTER[4][i]}/24', f'{OUTER[6][i]}/64')
            end.run('ip', 'link', 'set', 'eth0', 'gso_max_segs', '1')  # single packets on the wire, as on a real one
            self.middle.address(f'm{i}', f'{net4}.254/24', f'{net6}::fe/64')
            end.run('ip', 'route', 'add', 'default', 'via', f'{net4}.254')
            end.run('ip', 'route', 'add', 'default', 'via', f'{net6}::fe')
            end.address('lo', f'{INNER[4][i]}/32', f'{INNER[6][i]}/128')
        self.a = Adit(self.left, ini(1, outer, policy, host)).start()
        self.b = Adit(self.right, ini(2, outer, policy + '\nstart = no', host)).start()
        self.a.up('other')

    def mark(self, ecn, when=''):
        """The router writes that ECN field into what passes to right, if the rule's condition holds."""
        field = 'ip ecn' if self.outer == 4 else 'ip6 ecn'
        self.middle.run('nft', '-f', self.middle.write('mark.nft', 'flush ruleset\ntable inet marks {\n chain passing {\n'
                        f'type filter hook forward priority 0\n oifname m1 {self.what} {when} {field} set {ecn}\n }}\n}}\n'))

    def send(self, marks, inner=4, df=False, options='none', source=None, ends=INNER, lost=0):
        """
        Sends datagrams with these tos bytes from left to right: what comes out, as {place: (tos, ttl, options)}. That many
        of the first may not come.
        """
        address = ends[inner][1]
        sink = self.right.spawn(PYTHON, MARKED, 'recv', address, '7000', log=f'recv-{len(self.right.processes)}.log')
        sink.wait_text('ready')
        (source or self.left).run(PYTHON, MARKED, 'send', source.at if source else ends[inner][0], address, '7000',
                                  str(int(df)), options, *(str(m) for m in marks))
        wait_for('the datagrams', lambda: len(re.findall(LINE, sink.text(), re.M)) >= len(marks) - lost, 20)
        sink.stop(signal.SIGKILL)
        return {int(place): (int(tos), int(ttl), options) for place, tos, ttl, options in re.findall(LINE, sink.text(), re.M)}


class Sent:
    """What a host's eth0 sends meanwhile: .packets are the ESP packets, outermost header first."""

    def __init__(self, host):
        self.capture = Capture(host, 'eth0', '-Q', 'out', '-s', '200')
        self.packets = []

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for frame in rdpcap(self.capture.end()):
            packet = frame[IPv6] if IPv6 in frame else frame[IP] if IP in frame else None
            if packet is not None and (next_header(packet) == ESP or (
                    UDP in packet and bytes(packet[UDP].payload)[:4] not in (b'', b'\xff', bytes(4)))):
                self.packets.append(packet)


def next_header(packet):
    return packet.nh if IPv6 in packet else packet.proto


def tos_of(packet):
    return packet.tc if IPv6 in packet else packet.tos


EVERY = list(range(256))


EVERYWHERE = pytest.mark.parametrize('outer,raw', [(4, False), (6, False), (4, True), (6, True)],
                                     ids=['udp4', 'udp6', 'raw4', 'raw6'])


@EVERYWHERE
@pytest.mark.parametrize('policy,expected', [
    ('', lambda tos: tos),
    ('dscp = 46:10, 0:8', lambda tos: {46: 10, 0: 8}.get(tos >> 2, tos >> 2) << 2 | tos & 3),
    ('dscp = 12\necn = no', lambda tos: 12 << 2),
], ids=['copied', 'mapped', 'fixed'])
def test_dscp_and_ecn_go_outward_as_the_policy_says(lab, outer, raw, policy, expected):
    road = Road(lab, outer, policy, raw=raw)
    for inner in (4, 6):
        with Sent(road.left) as wire:
            got = road.send(EVERY, inner)
        assert [tos_of(p) for p in wire.packets] == [expected(tos) for tos in EVERY]
        assert got == {tos: (tos, 64, 'none') for tos in EVERY}  # inside nothing has changed


@pytest.mark.parametrize('io,raw', [('uring', False), ('epoll', False), ('uring', True)])
@pytest.mark.parametrize('policy,bits', [('', (0, 0)), ('df = copy', (0, 1)), ('df = set', (1, 1))],
                         ids=['clear', 'copy', 'set'])
def test_df_on_the_wire(lab, policy, bits, io, raw):
    """bits: outer DF without and with the inner one; IPv6 inside counts as with it."""
    road = Road(lab, 4, policy, f'io = {io}', raw)
    for inner, df, expected in ((4, False, bits[0]), (4, True, bits[1]), (6, False, bits[1])):
        with Sent(road.left) as wire:
            assert len(road.send([0] * 20, inner, df)) == 20
        assert len(wire.packets) == 20
        for packet in wire.packets:
            assert (packet.flags.DF, packet.ihl, packet.ttl, packet.src) == (expected, 5, 64, OUTER[4][0])
            assert next_header(packet) == ESP if raw else packet[UDP].sport == packet[UDP].dport == 4500
    tcp_transfer(road.left, road.right, INNER[4][1], 20)
    tcp_transfer(road.right, road.left, INNER[4][0], 20)


def test_df_with_several_workers(lab):
    """What comes in goes to its worker all the same: the sockets that send with DF take nothing."""
    road = Road(lab, 4, 'df = set', 'workers = 3')
    for end, other, to in ((road.left, road.right, 1), (road.right, road.left, 0)):
        for port in range(7001, 7004):
            tcp_transfer(end, other, INNER[4][to], 10, port)
    for daemon in (road.a, road.b):
        counters = daemon.status()['counters']
        assert counters['in_packets'] > 1000
        assert counters['drop_in_spi'] == counters['drop_out_send'] == 0


def test_another_daemon_does_not_share_the_ports(lab):
    road = Road(lab)
    second = Adit(road.left, ini(1, 4, '', 'tun = adit1'), 'second').start(wait=False)
    second.process.popen.wait(40)
    assert 'is in use by another program' in second.log()


@EVERYWHERE
def test_marks_of_a_router_get_inside(lab, outer, raw):
    """RFC 6040 figure 4: the router may make any field of any other; ECT(0) over ECT(1) is the path's mistake."""
    road = Road(lab, outer, raw=raw)
    sent = [46 << 2 | NOT_ECT, 46 << 2 | ECT0, 46 << 2 | ECT1, 46 << 2 | CE]
    delivered = {  # by what the router makes of all of them
        'not-ect': [NOT_ECT, ECT0, ECT1, CE],
        'ect0': [NOT_ECT, ECT0, ECT1, CE],
        'ect1': [NOT_ECT, ECT1, ECT1, CE],
        'ce': [None, CE, CE, CE],
    }
    for made, fields in delivered.items():
        road.mark(made)
        for inner in (4, 6):
            got = road.send(sent, inner, lost=fields.count(None))
            assert got == {i: (46 << 2 | f, 64, 'none') for i, f in enumerate(fields) if f is not None}, made
    counters = road.b.status()['counters']
    assert counters['drop_in_ecn'] == 2
    # Both IP versions: Not-ECT under ECT(0) and under ECT(1), ECT(1) under ECT(0), CE under ECT(1).
    assert counters['in_ecn_odd'] == 8


def nstat(host, name):
    return int(host.run('nstat', '-asz', name).stdout.split('\n')[1].split()[1])


@EVERYWHERE
def test_tcp_with_ecn_survives_a_router_that_marks(lab, outer, raw):
    """
    Every 50th packet with data is marked. Right's kernel merges what comes, but only what has the same mark, so that
    none is lost or spreads: as many marked packets get inside as the router has marked, but for what queues drop.
    """
    road = Road(lab, outer, raw=raw)
    for end in (road.left, road.right):
        end.run('sysctl', '-qw', 'net.ipv4.tcp_ecn=1')
    road.right.run('ethtool', '-K', 'eth0', 'gro', 'on')
    road.middle.run('ethtool', '-K', 'm1', 'tso', 'off')  # or veth thinks that merging has been done already
    road.mark('ce', 'meta length > 1000 numgen inc mod 50 == 0 counter')
    marked = 0
    for inner in (4, 6):
        counter = 'IpExtInCEPkts' if inner == 4 else 'Ip6InCEPkts'
        before, answered = nstat(road.right, counter), nstat(road.left, 'TcpExtTCPDeliveredCE')
        tcp_transfer(road.left, road.right, INNER[inner][1], 15)
        count = int(re.search(r'packets (\d+)', road.middle.run('nft list ruleset').stdout).group(1)) - marked
        marked += count
        assert count > 200
        # Where both are of one IP version, right's kernel sees the mark outside and inside; a busy one loses some packet.
        seen = (nstat(road.right, counter) - before) / (2 if inner == outer else 1)
        assert count * 0.95 < seen <= count
        assert nstat(road.left, 'TcpExtTCPDeliveredCE') > answered
    counters = road.b.status()['counters']
    assert counters['drop_in_ecn'] == counters['in_ecn_odd'] == 0
    assert raw or counters['rx_calls'] < counters['rx_datagrams'] / 5


def test_options_stay_inside(lab):
    road = Road(lab)
    alert = '94040000'  # RFC 2113
    with Sent(road.left) as wire:
        got = road.send([0] * 3, options=alert)
    assert {p.ihl for p in wire.packets} == {5} and len(wire.packets) == 3
    assert {options for _, _, options in got.values()} == {alert}


def test_only_the_kernels_forwarding_takes_from_the_ttl(lab):
    road = Road(lab)
    client = lab.host('client')
    lab.wire(client, 'eth0', road.left, 'eth1')
    client.address('eth0', '10.1.0.9/24')
    client.at = '10.1.0.9'
    road.left.address('eth1', '10.1.0.254/24')
    road.left.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    client.run('ip', 'route', 'add', 'default', 'via', '10.1.0.254')
    client.run('sysctl', '-qw', 'net.ipv4.ip_default_ttl=20')
    with Sent(road.left) as wire:
        got = road.send([0], source=client)
    assert got == {0: (0, 19, 'none')}  # left forwards into the tunnel; right is where it ends
    assert [p.ttl for p in wire.packets] == [64]


@pytest.mark.parametrize('raw', [False, True])
def test_flow_label_tells_nothing_of_the_flows_inside(lab, raw):
    """One label for all of an SA: without UDP it is the SA's own, with UDP the kernel makes it of the outer ports."""
    road = Road(lab, 6, raw=raw)
    labels = []
    for _ in range(2):
        with Sent(road.left) as wire:
            for inner in (4, 6):
                road.send([0] * 50, inner)  # each from a port of its own
        assert len(wire.packets) == 100
        labels.append({p.fl for p in wire.packets})
        assert len(labels[-1]) == 1
        road.a.command('rekey', 'other/other')
    assert not raw or labels[0] != labels[1] and 0 not in labels[0] | labels[1]


@EVERYWHERE
def test_transport_mode_has_the_packets_own_header(lab, outer, raw):
    """No rule for outer headers is asked; what a router marks is marked, as without IPsec."""
    road = Road(lab, outer, 'mode = transport-only\ndscp = 12\necn = no\ndf = clear', raw=raw)
    marks = list(range(0, 256, 5))
    for df in (False, True):
        with Sent(road.left) as wire:
            got = road.send(marks, outer, df, ends=OUTER)
        assert [tos_of(p) for p in wire.packets] == marks
        assert [got[i][0] for i in range(len(marks))] == marks
        assert outer == 6 or {int(p.flags.DF) for p in wire.packets} == {int(df)}
        if outer == 6 and raw:
            assert len({p.fl for p in wire.packets}) > 1  # the label of each flow
    road.mark('ce')
    got = road.send([46 << 2 | ECT0] * 3, outer, ends=OUTER)
    assert [tos for tos, _, _ in got.values()] == [46 << 2 | CE] * 3


def test_changed_rules_hold_after_a_reload(lab):
    road = Road(lab)
    road.left.write('adit.ini', ini(1, 4, 'dscp = 46'))
    road.a.command('reload')
    road.a.up('other')
    road.left.ping(INNER[4][1], 2, source=INNER[4][0])
    with Sent(road.left) as wire:
        assert len(road.send([0, 8])) == 2
    assert [p.tos for p in wire.packets] == [46 << 2] * 2
