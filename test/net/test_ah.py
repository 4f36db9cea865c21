"""AH (RFC 4302) between two real daemons, with a router between them that decrements TTLs and rewrites DSCPs."""

import pytest
from capture import Capture
from netlab import Adit, wait_for
from traffic import tcp_transfer

OUTER = {4: ('192.0.2.1', '198.51.100.1'), 6: ('2001:db8:1::1', '2001:db8:2::1')}
INNER = {4: ('10.1.0.1', '10.2.0.1'), 6: ('fd01::1', 'fd02::1')}


def ini(number, family, mode, more='', host=''):
    own, other = OUTER[family][number - 1], OUTER[family][2 - number]
    far = 3 - number
    nets = (f'local = 10.{number}.0.0/24, fd0{number}::/64\nremote = 10.{far}.0.0/24, fd0{far}::/64\n' if mode == 'tunnel' else
            f'local = {own}\nremote = {other}\nmode = transport-only\n')
    return (f'[host]\n{host}\n[peer other]\nendpoint = {other}\npsk = "correct horse battery staple"\n'
            f'start = {"no" if number == 2 else "on-demand"}\n{nets}{more}\n')


class Road:
    def __init__(self, lab, family, mode, more='ah = sha256', host='', start=True):
        self.left, self.middle, self.right = (lab.host(name) for name in ('left', 'middle', 'right'))
        self.middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
        for i, end in enumerate((self.left, self.right)):
            net4, net6 = OUTER[4][i].rsplit('.', 1)[0], OUTER[6][i].rsplit('::', 1)[0]
            lab.wire(end, 'eth0', self.middle, f'm{i}')
            end.address('eth0', f'{OUTER[4][i]}/24', f'{OUTER[6][i]}/64')
            end.address('lo', f'{INNER[4][i]}/32', f'{INNER[6][i]}/128')
            self.middle.address(f'm{i}', f'{net4}.254/24', f'{net6}::fe/64')
            end.run('ip', 'route', 'add', 'default', 'via', f'{net4}.254')
            end.run('ip', 'route', 'add', 'default', 'via', f'{net6}::fe')
        self.middle.run('nft', '-f', self.middle.write('mark.nft', 'table inet marks {\n chain passing {\n'
                        'type filter hook forward priority 0\n meta l4proto ah ip dscp set 10\n'
                        'meta l4proto ah ip6 dscp set 10\n }\n}\n'))
        self.a = Adit(self.left, ini(1, family, mode, more, host))
        self.b = Adit(self.right, ini(2, family, mode, more, host))
        if start:
            self.b.start()
            self.a.start()

    def children(self, end):
        return [c for sa in end.status()['peers'][0]['ike_sas'] for c in sa['children']]


@pytest.mark.parametrize('mode,family,suite,io', [
    ('tunnel', 4, 'sha256', 'uring'), ('tunnel', 6, 'sha512', 'epoll'), ('tunnel', 4, 'aes128gmac', 'epoll'),
    ('transport', 4, 'sha256', 'uring'), ('transport', 6, 'sha384', 'uring'), ('transport', 4, 'aesxcbc', 'epoll')])
def test_traffic_is_authenticated_and_passes_a_router(lab, mode, family, suite, io):
    road = Road(lab, family, mode, f'ah = {suite}', f'io = {io}')
    capture = Capture(road.middle, 'm1', '-s', '200')
    road.a.up('other')
    child, = road.children(road.a)
    assert (child['protocol'], child['suite'], child['mode'], child['encap']) == ('ah', suite, mode, 'raw')
    if mode == 'tunnel':
        for inner in (4, 6):
            road.left.ping(INNER[inner][1], source=INNER[inner][0])
            tcp_transfer(road.left, road.right, INNER[inner][1], 4, port=7000 + inner)
            tcp_transfer(road.right, road.left, INNER[inner][0], 4, port=7100 + inner)
    else:
        road.left.ping(OUTER[family][1])
        road.right.ping(OUTER[family][0], size=1200)
        tcp_transfer(road.left, road.right, OUTER[family][1], 4)
        tcp_transfer(road.right, road.left, OUTER[family][0], 4)
    capture.end()

    # What passed is AH in order, but for IKE and what makes a link work; none of it with the marks or hops of its sender.
    wire = capture.fields('ah', 'ah.spi', 'ah.sequence', 'ip.ttl', 'ip.dsfield.dscp', 'ipv6.hlim', 'ipv6.tclass.dscp')
    assert len(wire) > 1000
    spis = {int(packet[0], 16) for packet in wire}
    assert spis == {int(child['spi_in'], 16), int(child['spi_out'], 16)}
    crossed = {(packet[2 if family == 4 else 4], packet[3 if family == 4 else 5]) for packet in wire}
    assert {dscp for ttl, dscp in crossed} <= {'10', '0'} and '10' in {dscp for ttl, dscp in crossed}
    assert capture.count('(tcp or icmp.type == 8 or icmpv6.type == 128) and not ah') == 0
    for end in (road.a, road.b):
        dropped = {k: v for k, v in end.status()['counters'].items() if k.startswith('drop_in') and v}
        assert not dropped, dropped
    assert 'AH ' + suite in road.a.command('status').stdout
    assert f'AH {suite}' in road.a.log()


def test_a_packet_that_was_changed_on_the_way_does_not_arrive(lab):
    road = Road(lab, 4, 'tunnel')
    road.a.up('other')
    road.left.ping(INNER[4][1], source=INNER[4][0])
    # A router that rewrites the identification, which is no business of routers (section 3.3.3.1.1.1).
    road.middle.run('nft', 'add rule inet marks passing meta l4proto ah ip id set 16962')
    assert road.left.ping(INNER[4][1], count=3, check=False, timeout=1, source=INNER[4][0]) == 0
    assert road.b.status()['counters']['drop_in_auth'] >= 3
    road.middle.run('nft', 'flush chain inet marks passing')
    road.left.ping(INNER[4][1], source=INNER[4][0])


def test_rekeys_and_fragments(lab):
    road = Road(lab, 4, 'tunnel', 'ah = sha256-x25519')
    road.a.up('other')
    for end in (road.a, road.b):
        end.command('rekey', 'other/other')
        road.left.ping(INNER[4][1], source=INNER[4][0], count=10)
    # The datagrams of AH come in pieces, which right puts together.
    road.middle.run('ip', 'route', 'replace', '198.51.100.1/32', 'dev', 'm1', 'mtu', 'lock', '800')
    road.left.ping(INNER[4][1], source=INNER[4][0], size=1200)
    assert wait_for('one child', lambda: len(road.children(road.a)) == 1 or None)


def test_a_nat_is_told_as_the_reason(lab):
    road = Road(lab, 4, 'tunnel', start=False)
    road.middle.run('nft', '-f', road.middle.write('nat.nft', 'table ip nat {\n chain out {\n'
                    'type nat hook postrouting priority 100\n oifname m1 masquerade\n }\n}\n'))
    text = ini(2, 4, 'tunnel', 'ah = sha256').replace('endpoint = 192.0.2.1', 'endpoint = %any\nid = 192.0.2.1')
    road.b = Adit(road.right, text, name='behind').start()
    road.a.start()
    failed = road.a.command('up', 'other', check=False)
    assert failed.returncode == 1
    assert 'is for AH, which can\'t pass a NAT, and there is one before us' in failed.stdout + failed.stderr
