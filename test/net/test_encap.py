"""ESP as IP protocol 50 or in UDP, and transport mode, between two real daemons."""

import pytest
from capture import Capture
from netlab import ADIT, Adit, wait_for
from traffic import iperf, tcp_transfer

PSK = 'correct horse battery staple'
OUTER = {4: ('192.0.2.1', '192.0.2.2'), 6: ('2001:db8::1', '2001:db8::2')}
LAST = b'the last ping'
PROTOCOL_50 = '(ip.proto == 50 && !udp) || ipv6.nxt == 50'


def up(lab, left_ini, right_ini):
    left, right = lab.hosts[0], lab.hosts[-1]
    b = Adit(right, right_ini).start()
    a = Adit(left, left_ini).start()
    a.up('other')
    wait_for('one IKE SA', lambda: all(len(x.status()['peers'][0]['ike_sas']) == 1 for x in (a, b)))
    return a, b


def child(adit):
    return adit.status()['peers'][0]['ike_sas'][0]['children'][0]


def exercise(left, right, target, source, sizes=(1, 56, 1372, 1400, 1472, 4000, 20000)):
    for size in sizes:
        left.ping(target, 2, size, source=source)
    right.ping(source, 2, source=target)
    tcp_transfer(left, right, target, 20, port=7001)
    tcp_transfer(right, left, source, 20, port=7002)
    iperf(left, right, target, source, '-u', '-b', '30M')


def site(number, outer, host='', peer=''):
    other = 3 - number
    return (f'[host]\n{host}\n[peer other]\nendpoint = {OUTER[outer][other - 1]}\npsk = "{PSK}"\n'
            f'local = 10.{number}.0.0/24, fd0{number}::/64\nremote = 10.{other}.0.0/24, fd0{other}::/64\n{peer}\n')


@pytest.mark.parametrize('encap, outer, io', [('raw', 4, 'uring'), ('raw', 4, 'epoll'), ('raw', 6, 'uring'), ('raw', 6, 'epoll'),
                                              ('udp', 4, 'uring'), ('udp', 6, 'uring')])
def test_tunnels_of_each_ip_version(lab, encap, outer, io):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32', 'fd01::1/128')
    right.address('lo', '10.2.0.1/32', 'fd02::1/128')
    a, b = up(lab, *(site(n, outer, f'io = {io}', f'encap = {encap}') for n in (1, 2)))
    assert child(a)['encap'] == child(b)['encap'] == encap
    assert a.status()['host']['raw_esp'] is True
    capture = Capture(left)
    for target, source in (('10.2.0.1', '10.1.0.1'), ('fd02::1', 'fd01::1')):
        exercise(left, right, target, source)
    a.command('rekey', 'other/other')
    left.ping('10.2.0.1', 3, source='10.1.0.1')
    capture.end()
    raw, udp = capture.count(PROTOCOL_50), capture.count('udpencap && esp')
    assert (raw > 1000 and udp == 0) if encap == 'raw' else (udp > 1000 and raw == 0)
    assert b'PLAINTEXT-MARKER' not in capture.bytes()
    assert capture.count('icmp.type == 3') == 0  # nobody says "protocol unreachable"
    assert child(a)['encap'] == encap
    a.stop()
    b.stop()


@pytest.mark.parametrize('encap', ['raw', 'udp'])
def test_outer_fragments_are_put_together(lab, encap):
    """A router on the way cuts what is too long for its next link (D10 of test/conformance)."""
    left, middle, right = lab.host('left'), lab.host('middle'), lab.host('right')
    middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    lab.wire(left, 'eth0', middle, 'in0')
    lab.wire(middle, 'out0', right, 'eth0', mtu=900)
    left.address('eth0', '192.0.2.1/24')
    middle.address('in0', '192.0.2.254/24')
    middle.address('out0', '198.51.100.254/24')
    right.address('eth0', '198.51.100.1/24')
    left.run('ip', 'route', 'add', 'default', 'via', '192.0.2.254')
    right.run('ip', 'route', 'add', 'default', 'via', '198.51.100.254')
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    more = f'psk = "{PSK}"\nencap = {encap}\npmtu = no\n'
    a, _ = up(lab, f'[host]\nmtu = 1400\n[peer other]\nendpoint = 198.51.100.1\nlocal = 10.1.0.1\nremote = 10.2.0.1\n{more}',
              f'[host]\nmtu = 1400\n[peer other]\nendpoint = 192.0.2.1\nlocal = 10.2.0.1\nremote = 10.1.0.1\n{more}')
    assert child(a)['encap'] == encap
    capture = Capture(right)
    sink = right.spawn('/usr/bin/python3', '-c', 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); '
                       's.bind(("10.2.0.1", 7000)); print("ready", flush=True); '
                       '[print(len(s.recv(2000)), flush=True) for _ in range(10)]', log='sink.log')
    sink.wait_text('ready')
    left.run('/usr/bin/python3', '-c', 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); '
             's.bind(("10.1.0.1", 0)); [s.sendto(bytes(1300), ("10.2.0.1", 7000)) for _ in range(10)]')
    sink.wait_text('(1300\n){10}')
    capture.end()
    assert capture.count('ip.flags.mf == 1 && ip.src == 192.0.2.1') >= 10


def hosts_ini(number, outer, more=''):
    other = 3 - number
    return (f'[peer other]\nendpoint = {OUTER[outer][other - 1]}\npsk = "{PSK}"\nlocal = {OUTER[outer][number - 1]}\n'
            f'remote = {OUTER[outer][other - 1]}\n{more}\n')


@pytest.mark.parametrize('outer', [4, 6])
@pytest.mark.parametrize('encap', ['raw', 'udp'])
def test_transport_mode_between_two_hosts(lab, encap, outer):
    """The traffic of the hosts themselves: it finds the tunnel, IKE and ESP find their way past it."""
    left, right = lab.pair()
    a, b = up(lab, *(hosts_ini(n, outer, f'mode = transport-only\nencap = {encap}') for n in (1, 2)))
    source, target = OUTER[outer]
    assert (child(a)['mode'], child(a)['encap']) == ('transport', encap)
    capture = Capture(left)
    exercise(left, right, target, source)
    left.ping(target, 3)  # the source address is the route's choice
    a.command('rekey', 'other')
    a.command('rekey', 'other/other')
    left.ping(target, 3)
    capture.end()
    clear = 'icmp || tcp || icmpv6.type in {128,129} || (udp && !udp.port in {500,4500})'
    assert capture.count(clear) == 0
    assert b'PLAINTEXT-MARKER' not in capture.bytes()
    assert capture.count(PROTOCOL_50 if encap == 'raw' else 'udpencap && esp') > 1000
    assert a.status()['counters']['drop_in_auth'] == 0
    a.stop()
    b.stop()
    left.ping(target, 3)  # and nothing is left behind


UDP_SINK = ('import socket, sys; s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); '
            's.setsockopt(socket.SOL_SOCKET, 33, 8 << 20); '  # SO_RCVBUFFORCE
            's.bind((sys.argv[1], 7000)); print("ready", flush=True); '
            '[print(len(d), d == bytes(i % 251 for i in range(len(d))), flush=True) for d in iter(lambda: s.recv(65536), b"")]')
UDP_SOURCE = ('import socket, sys; s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); '
              '[s.sendto(bytes(i % 251 for i in range(20000)), (sys.argv[1], 7000)) for _ in range(10)]')


@pytest.mark.parametrize('io', ['uring', 'epoll'])
@pytest.mark.parametrize('outer', [4, 6])
@pytest.mark.parametrize('encap', ['raw', 'udp'])
def test_transport_mode_carries_what_the_host_fragments(lab, encap, outer, io):
    """Datagrams of up to 64 KiB: the host cuts them up, they are sealed whole, and ESP leaves in fragments."""
    left, right = lab.pair()
    a, b = up(lab, *(f'[host]\nio = {io}\n' + hosts_ini(n, outer, f'mode = transport-only\nencap = {encap}') for n in (1, 2)))
    source, target = OUTER[outer]
    before = child(a)['out_packets']
    capture = Capture(left)
    left.ping(target, 3, 65000)
    right.ping(source, 3, 30000)
    assert child(a)['out_packets'] == before + 6  # whole
    sink = right.spawn('/usr/bin/python3', '-c', UDP_SINK, target, log='sink.log')
    sink.wait_text('ready')
    left.run('/usr/bin/python3', '-c', UDP_SOURCE, target)
    sink.wait_text('(20000 True\n){10}')
    capture.end()
    mine = f'ip.src == {source}' if outer == 4 else f'ipv6.src == {source}'
    more = 'ip.flags.mf == 1' if outer == 4 else 'ipv6.fraghdr.more == 1'
    assert capture.count(f'{mine} && {more}') > 3 * 40
    if outer == 4 and encap == 'raw':
        assert capture.count(f'{mine} && ip.proto != 50 && !udp') == 0
    for x in (a, b):
        counters = x.status()['counters']
        assert [k for k, v in counters.items() if k.startswith('drop_out') and v] == []
        assert counters['drop_in_auth'] == 0
    # An IP packet has no room for so much, and what belongs to it.
    assert left.ping(target, 1, 65507, check=False, timeout=1) == 0
    assert a.status()['counters']['drop_out_too_big'] == 1


def test_transport_mode_keeps_the_ttl(lab):
    """In UDP as well, where the kernels make the header and take it off."""
    left, right = lab.pair()
    for outer in (4, 6):
        a, b = up(lab, *(hosts_ini(n, outer, 'mode = transport-only\nencap = udp') for n in (1, 2)))
        capture, arrived = Capture(left), Capture(right, 'adit0')
        left.run('ping', '-c', '1', '-W', '3', '-t', '7', OUTER[outer][1])
        left.run('ping', '-c', '1', '-W', '3', '-p', LAST.hex(), OUTER[outer][1])
        capture.end()
        arrived.end(LAST)
        mine, ttl = (f'ip.src == {OUTER[4][0]}', 'ip.ttl') if outer == 4 else (f'ipv6.src == {OUTER[6][0]}', 'ipv6.hlim')
        assert capture.count(f'{mine} && udpencap && esp && {ttl} == 7') == 1
        assert capture.count(f'{mine} && udpencap && esp && {ttl} == 64') >= 1
        assert arrived.count(f'{mine} && (icmp || icmpv6) && {ttl} == 7') == 1
        assert arrived.count(f'{mine} && (icmp || icmpv6) && {ttl} == 64') == 1
        a.stop()
        b.stop()


def test_transport_mode_saves_a_header(lab):
    """The same ping in a tunnel and without: 20 bytes less on the wire, by the same suite."""
    sizes = {}
    for mode in ('tunnel', 'transport-only'):
        left, _ = lab.pair() if not lab.hosts else lab.hosts
        a, b = up(lab, *(hosts_ini(n, 4, f'mode = {mode}\nencap = raw') for n in (1, 2)))
        capture = Capture(left)
        left.ping('192.0.2.2', 1, 100)
        capture.end()
        sizes[mode] = int(capture.fields('ip.proto == 50 && ip.src == 192.0.2.1', 'ip.len')[0][0])
        a.stop()
        b.stop()
    assert sizes['tunnel'] - sizes['transport-only'] == 20


def natted(lab):
    """left 10.9.0.1 behind a NAT that seems to be 192.0.2.254, right 192.0.2.2."""
    left, middle, right = lab.host('left'), lab.host('middle'), lab.host('right')
    middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
    lab.wire(left, 'eth0', middle, 'in0')
    lab.wire(middle, 'out0', right, 'eth0')
    left.address('eth0', '10.9.0.1/24')
    middle.address('in0', '10.9.0.254/24')
    middle.address('out0', '192.0.2.254/24')
    right.address('eth0', '192.0.2.2/24')
    left.run('ip', 'route', 'add', 'default', 'via', '10.9.0.254')
    middle.run('nft', 'add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; '
               'add rule ip nat post oifname out0 masquerade')
    return left, right


@pytest.mark.parametrize('encap', ['auto', 'raw'])
def test_transport_mode_through_a_nat(lab, encap):
    """Each end knows the other by the address that it sees; checksums are right, or the kernel would drop it all."""
    left, right = natted(lab)
    ends = f'psk = "{PSK}"\nmode = transport-only\nencap = {encap}\n'
    a, b = up(lab, f'[peer other]\nendpoint = 192.0.2.2\nid = right\nlocal-id = left\nlocal = 10.9.0.1\nremote = 192.0.2.2\n{ends}',
              f'[peer other]\nendpoint = %any\nid = left\nlocal-id = right\nlocal = 192.0.2.2\nremote = 192.0.2.254\n{ends}')
    assert (child(a)['mode'], child(a)['encap']) == ('transport', 'udp')
    assert child(b)['remote'] == ['192.0.2.254/32']
    left.ping('192.0.2.2', 5)
    tcp_transfer(left, right, '192.0.2.2', 20, port=7001)
    iperf(left, right, '192.0.2.2', '10.9.0.1', '-u', '-b', '30M')
    iperf(left, right, '192.0.2.2', '10.9.0.1', '-R')
    right.ping('192.0.2.254', 3)  # back to who called
    assert b.status()['counters']['drop_in_selector'] == 0


def test_raw_esp_meets_a_nat(lab):
    """encap = raw at both ends: the NAT is found, and ESP goes in UDP."""
    left, right = natted(lab)
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    more = f'psk = "{PSK}"\nencap = raw\n'
    a, b = up(lab, f'[peer other]\nendpoint = 192.0.2.2\nid = right\nlocal-id = left\nlocal = 10.1.0.1\nremote = 10.2.0.1\n{more}',
              f'[peer other]\nendpoint = %any\nid = left\nlocal-id = right\nlocal = 10.2.0.1\nremote = 10.1.0.1\n{more}')
    assert child(a)['encap'] == child(b)['encap'] == 'udp'
    tcp_transfer(left, right, '10.2.0.1', 20)


def test_workers_share_raw_esp(lab):
    """Each packet reaches one worker's socket, once."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    policies = ''.join(f'[policy p{i}]\npeer = other\nlocal = {{0}}[tcp/{7000 + i}]\nremote = {{1}}[tcp]\n'
                       f'[policy q{i}]\npeer = other\nlocal = {{0}}[tcp]\nremote = {{1}}[tcp/{7000 + i}]\n' for i in range(4))
    head = '[host]\nworkers = 3\n[peer other]\nendpoint = 192.0.2.{}\npsk = "' + PSK + '"\nencap = raw\n'
    a, b = up(lab, head.format(2) + policies.format('10.1.0.1', '10.2.0.1'),
              head.format(1) + policies.format('10.2.0.1', '10.1.0.1'))
    wait_for('all policies', lambda: len(a.status()['peers'][0]['ike_sas'][0]['children']) == 8)
    for i in range(4):
        tcp_transfer(left, right, '10.2.0.1', 10, port=7000 + i)
    for x in (a, b):
        counters = x.status()['counters']
        assert counters['drop_in_replay'] == 0 and counters['drop_in_spi'] == 0
        assert all(c['encap'] == 'raw' for c in x.status()['peers'][0]['ike_sas'][0]['children'])


def test_without_the_capability_it_is_said_and_udp_is_used(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32', 'fd01::1/128')
    right.address('lo', '10.2.0.1/32', 'fd02::1/128')
    b = Adit(right, site(2, 4, peer='encap = raw')).start()
    a = Adit(left, site(1, 4, peer='encap = raw'))
    a.process = left.spawn('setpriv', '--bounding-set=-net_raw', '--inh-caps=-all', ADIT, 'run', a.ini, log='adit.log')
    a.process.wait_text('ready')
    assert 'can neither be received nor sent: CAP_NET_RAW is needed' in a.log()
    a.up('other')
    host = a.status()['host']
    assert host['raw_esp'] is False and host['raw_esp_why'] == 'CAP_NET_RAW is needed'
    assert 'no raw ESP: CAP_NET_RAW is needed' in a.command('status').stdout
    assert child(a)['encap'] == child(b)['encap'] == 'udp'
    left.ping('10.2.0.1', 3, source='10.1.0.1')
