"""What an operator sees of the traffic: captures, audit lines, counters; and what an observer of the wire doesn't see."""

import json
import os
import re
import signal
import time

from capture import Capture
from netlab import ADIT, Adit, wait_for
from test_tunnel import hosts, ini, tunnel
from traffic import iperf

SEND = '/usr/bin/python3'


def capture(adit, *options, log='capture'):
    """adit capture in the background, at work when this returns; and the file it writes."""
    path = os.path.join(adit.host.folder, f'{log}.pcapng')
    if os.path.exists(path):
        os.remove(path)  # its size would tell nothing
    before = adit.log().count('capture of the')
    process = adit.host.spawn(ADIT, 'capture', 'other', '-w', path, *options, log=f'{log}.log')
    wait_for('the capture', lambda: adit.log().count('capture of the') > before and os.path.exists(path) and os.path.getsize(path))
    return process, path


def tshark(host, path, *fields, display=''):
    argv = ['tshark', '-r', path, '-T', 'fields', *(x for f in fields for x in ('-e', f))]
    done = host.run(*argv, *(['-Y', display] if display else []), env={**os.environ, 'HOME': host.folder})
    return [line.split('\t') for line in done.stdout.splitlines()]


def test_capture_of_both_sides(lab):
    a, b = tunnel(lab)
    (plain, inner), (wire, outer) = capture(a, '--plain', log='plain'), capture(a, '--wire', log='wire')
    a.host.ping('10.2.0.1', 5, 200, source='10.1.0.1')
    a.host.ping('fd02::1', 3, 300, source='fd01::1')
    time.sleep(0.3)
    for process in (plain, wire):
        assert process.stop(signal.SIGINT) == 0, process.text()
    echoes = tshark(a.host, inner, 'ip.src', 'icmp.type', 'frame.packet_flags_direction', 'frame.comment', display='icmp')
    assert sorted((e[0], e[1], int(e[2], 0) & 3) for e in echoes) == [('10.1.0.1', '8', 2)] * 5 + [('10.2.0.1', '0', 1)] * 5
    assert re.match(r'policy other, SPI 0x[0-9a-f]{8}', echoes[0][3])
    assert len(tshark(a.host, inner, 'frame.number', display='icmpv6.type in {128, 129}')) == 6
    packets = tshark(a.host, outer, 'ip.src', 'udp.port', 'esp.spi', 'esp.sequence', display='esp')
    assert len(packets) >= 16 and {p[0] for p in packets} == {'192.0.2.1', '192.0.2.2'}
    assert {p[1] for p in packets} == {'4500,4500'}
    child = a.status()['peers'][0]['ike_sas'][0]['children'][0]
    assert {p[2] for p in packets} == {child['spi_in'], child['spi_out']}
    assert not tshark(a.host, outer, 'frame.number', display='ip.checksum.status == 0 || icmp')
    info = a.host.run('capinfos', '-M', inner, outer, env={**os.environ, 'HOME': a.host.folder}).stdout
    assert 'nanoseconds' in info and os.stat(inner).st_mode & 0o777 == 0o600
    a.stop()
    b.stop()


def test_capture_over_ipv6_ends_by_count_and_with_its_client(lab):
    a, _ = tunnel(lab, outer=6)
    process, path = capture(a, '--wire', '-c', '4')
    a.host.ping('10.2.0.1', 5, source='10.1.0.1')
    process.popen.wait(10)
    assert process.popen.returncode == 0
    packets = tshark(a.host, path, 'ipv6.src', 'udp.checksum.status', display='esp')
    assert len(packets) == 4 and packets[0][0] == '2001:db8::1'
    for _ in range(6): # no more than four at a time, and none is left behind by a client that is killed
        process, path = capture(a, log='killed')
        process.stop(signal.SIGKILL)
    wait_for('their ends', lambda: a.log().count('capture ends') == 7)
    before = os.path.getsize(path)
    assert 'no peer is called' in a.command('capture', 'nobody', '-w', path, check=False).stderr
    assert os.path.getsize(path) == before > 0
    piped = a.host.run('sh', '-c', f'{ADIT} capture other --plain -c 2 | tshark -r - -T fields -e ip.src & sleep 1; '
                       'ping -c 2 -i 0.2 -I 10.1.0.1 10.2.0.1 >/dev/null; wait', env={**os.environ, 'HOME': a.host.folder})
    assert piped.stdout.split() == ['10.1.0.1', '10.2.0.1']


def test_capture_under_load_loses_and_counts_but_traffic_goes_on(lab):
    a, b = tunnel(lab)
    process, path = capture(a)
    iperf(a.host, b.host, '10.2.0.1', '10.1.0.1', seconds=2)
    assert process.stop(signal.SIGINT) == 0
    info = a.host.run('capinfos', '-c', '-M', path, env={**os.environ, 'HOME': a.host.folder}).stdout
    assert int(re.search(r'Number of packets:\s+(\d+)', info).group(1)) > 1000, info
    assert a.stop() == 0 and b.stop() == 0


def test_a_daemon_that_ends_leaves_a_readable_file(lab):
    a, _ = tunnel(lab)
    process, path = capture(a)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    time.sleep(0.3)
    assert a.stop() == 0
    process.popen.wait(10)
    assert len(tshark(a.host, path, 'frame.number', display='icmp')) == 4



# What somebody on the path does: the same again, with another number, with another SPI.
FORGE = '''
import socket, sys
esp = bytes.fromhex(sys.argv[1])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for data in (esp, esp[:7] + bytes([esp[7] ^ 64]) + esp[8:], bytes([esp[0], esp[1] ^ 255]) + esp[2:]):
    udp = (4500).to_bytes(2, "big") * 2 + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data
    s.sendto(udp, ("192.0.2.2", 0))
'''


def test_audit_lines(lab):
    a, b = tunnel(lab)
    process, path = capture(a, '--wire', '-c', '1')
    a.host.ping('10.2.0.1', 1, source='10.1.0.1')
    process.popen.wait(10)
    esp = tshark(a.host, path, 'udp.payload')[0][0]
    a.host.run(SEND, '-c', FORGE, esp)
    spi = f'0x{esp[:8]}'
    number = int(esp[8:16], 16)
    addresses = r'192\.0\.2\.1:4500 -> 192\.0\.2\.2:4500'
    when = r'at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z'
    end = rf'policy other, selectors 10\.2\.0\.0/24, fd02::/64 === 10\.1\.0\.0/24, fd01::/64, {when}'
    b.process.wait_text(rf'audit: drop_in_replay: [^\n]*SPI {spi}, sequence number {number}, {addresses}, {end}')
    b.process.wait_text(rf'audit: drop_in_auth: [^\n]*SPI {spi}, sequence number {number ^ 64}, {addresses}, {end}')
    b.process.wait_text(rf'audit: drop_in_spi: [^\n]*SPI 0x{esp[:2]}{int(esp[2:4], 16) ^ 255:02x}{esp[4:8]}, '
                        rf'sequence number {number}, {addresses}, {when}')
    # A packet that routing brings to the tunnel, and no policy covers.
    a.host.run('ip', 'route', 'add', '10.99.0.0/24', 'dev', 'adit0')
    a.host.run('ping', '-c', '1', '-W', '1', '-I', '10.1.0.1', '10.99.0.1', check=False)
    a.process.wait_text(rf'audit: drop_out_no_policy: [^\n]*inside 10\.1\.0\.1 -> 10\.99\.0\.1 protocol 1 type 8 code 0, {when}')
    status = b.status()
    child = status['peers'][0]['ike_sas'][0]['children'][0]
    policy = next(p for p in status['policies'] if p['name'] == 'other')
    for drops in (child['drops'], policy['drops']):
        assert drops == {'drop_in_replay': 1, 'drop_in_auth': 1}
    assert 'dropped  drop_in_replay 1  drop_in_auth 1' in b.command('status').stdout


def test_counters_of_each_policy(lab):
    left, right = hosts(lab)
    more = '[policy no]\naction = discard\nlocal = 10.{}.0.0/24\nremote = 10.77.0.0/24\n'
    a, b = (Adit(h, ini(n) + more.format(n)).start() for n, h in ((1, left), (2, right)))
    a.up('other')
    left.ping('10.2.0.1', 4, 72, source='10.1.0.1')
    left.run('ip', 'route', 'add', '10.77.0.0/24', 'dev', 'adit0')
    left.run('ping', '-c', '2', '-i', '0.2', '-W', '1', '-I', '10.1.0.1', '10.77.0.1', check=False)
    mine, no = a.status()['policies']
    assert (mine['out_packets'], mine['out_bytes'], mine['in_packets'], mine['in_bytes']) == (4, 400, 4, 400)
    assert mine['drops'] == {} and no['drops'] == {'drop_out_discard': 2} and no['out_packets'] == 0
    assert b.status()['policies'][0]['in_bytes'] == 400


def lengths(host, seconds, work):
    """The lengths of ESP in UDP on the wire while something happens, and how many seconds lie between the first and the last."""
    wire = Capture(host)
    work()
    time.sleep(seconds)
    wire.end()
    seen = [(int(n), float(when)) for n, when in wire.fields('esp', 'udp.length', 'frame.time_epoch')]
    return [n for n, _ in seen], seen[-1][1] - seen[0][1]


def test_padding_makes_all_lengths_equal(lab):
    a, b = tunnel(lab, peer='tfc = mtu')

    def work():
        for size in (1, 60, 500, 1200):
            a.host.ping('10.2.0.1', 3, size, source='10.1.0.1')
        iperf(a.host, b.host, '10.2.0.1', '10.1.0.1', seconds=1)
    seen, _ = lengths(a.host, 0.5, work)
    # Where the dump sees what is segmented later, it is a multiple: a run without a shorter end.
    one = min(seen) - 8
    assert 1400 < one <= 1472 and len(seen) > 1000 and all((x - 8) % one == 0 for x in seen), sorted(set(seen))
    counters = a.status()['counters']
    assert counters['out_tfc_bytes'] > 0 and not counters['drop_out_send']


def test_dummies_at_their_rate(lab):
    a, b = tunnel(lab, peer='tfc = 512\ndummies = 40')
    seen, elapsed = lengths(b.host, 5, lambda: None)
    one = min(seen) - 8 # two that are due at once are one segmented send
    assert all((x - 8) % one == 0 for x in seen), seen
    # Both ends send; what a pause of the machine makes them miss, they don't make up for.
    assert 200 < sum((x - 8) // one for x in seen) <= 80 * elapsed + 16, (elapsed, seen)
    counters = b.status()['counters']
    assert counters['drop_in_dummy'] > 100 and counters['in_packets'] == 0
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


def flows(path):
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def total(lines, key):
    return sum(line[key] for line in lines)


def test_flow_log_sums_up(lab):
    """What both ends wrote at their end: the same sums as the counters, and the ports of what was sent."""
    left, right = hosts(lab)
    more = ('flow-log = yes\n[policy no]\naction = discard\nflow-log = yes\n'
            'local = 10.{}.0.0/24\nremote = 10.77.0.0/24\n')
    a, b = (Adit(h, ini(n, host='flow-log-file = flows.json', peer=more.format(n))).start() for n, h in ((1, left), (2, right)))
    a.up('other')
    left.ping('10.2.0.1', 4, 72, source='10.1.0.1')
    iperf(left, right, '10.2.0.1', '10.1.0.1')
    iperf(left, right, 'fd02::1', 'fd01::1', '-u', '-b', '20M')
    left.run('ip', 'route', 'add', '10.77.0.0/24', 'dev', 'adit0')
    left.run('ping', '-c', '3', '-i', '0.2', '-W', '1', '-I', '10.1.0.1', '10.77.0.1', check=False)
    path = os.path.join(left.folder, 'flows.json')
    assert not flows(path) and os.stat(path).st_mode & 0o777 == 0o600
    os.rename(path, path + '.1') # as a log rotation does
    a.command('reload')
    counters = [x.status()['counters'] for x in (a, b)]
    child = a.status()['peers'][0]['ike_sas'][0]['children'][0]
    assert a.stop() == 0 and b.stop() == 0
    mine, theirs = flows(path), flows(os.path.join(right.folder, 'flows.json'))
    for lines, counted in zip((mine, theirs), counters):
        for key in ('out_packets', 'out_bytes', 'in_packets', 'in_bytes'):
            assert total(lines, key) == counted[key], key
    no = [x for x in mine if x['verdict'] == 'discard']
    assert [(x['policy'], x['peer'], x['remote'], x['protocol'], x['dropped_packets']) for x in no] == [
        ('no', None, '10.77.0.1', 1, 3)]
    tcp = [x for x in mine if x['protocol'] == 6 and x['remote'] == '10.2.0.1']
    assert len(tcp) == 2 and {x['remote_port'] for x in tcp} == {5201}
    assert {x['spi_out'] for x in tcp} == {child['spi_out']} and {x['spi_in'] for x in tcp} == {child['spi_in']}
    udp = next(x for x in mine if x['protocol'] == 17)
    back = next(x for x in theirs if x['protocol'] == 17)
    assert (udp['local'], udp['local_port']) == (back['remote'], back['remote_port'])
    assert udp['out_bytes'] == back['in_bytes'] > 1000000
    assert {x['why'] for x in mine} == {'stopped'} and all(x['start'] <= x['end'] for x in mine)


def test_flow_log_in_the_log(lab):
    a, _ = tunnel(lab, host='log-format = json', peer='flow-log = yes')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    lines = wait_for('the flow to end', lambda: [x for x in map(json.loads, a.log().splitlines()) if x['room'] == 'flow'], 60)
    flow = json.loads(lines[0]['text'])
    assert (flow['out_packets'], flow['in_packets'], flow['why']) == (2, 2, 'quiet')


def test_flows_that_fail_open_say_so(lab):
    left, right = hosts(lab)
    for host, net, via in ((left, '10.2.0.0/24', '192.0.2.2'), (right, '10.1.0.0/24', '192.0.2.1')):
        host.run('ip', 'route', 'add', net, 'via', via)
    a = Adit(left, ini(1, host='flow-log-file = flows.json', peer='fail-open = yes\nstart = on-demand\nflow-log = yes')).start()
    left.ping('10.2.0.1', 3, 72, source='10.1.0.1')
    passed = a.status()['policies'][0]
    assert (passed['out_packets'], passed['out_bytes'], passed['in_packets']) == (3, 300, 0)
    assert a.stop() == 0
    clear, = flows(os.path.join(left.folder, 'flows.json'))
    assert (clear['policy'], clear['verdict'], clear['spi_out'], clear['out_packets']) == ('other', 'bypass', None, 3)
