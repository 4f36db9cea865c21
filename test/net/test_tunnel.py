"""The real daemon between two hosts: every suite, both input/output engines, IPv4 and IPv6 inside and outside."""

import signal
import time

import pytest
from capture import Capture
from netlab import Adit, wait_for
from traffic import Stream, Transfer, iperf, tcp_transfer

PSK = 'correct horse battery staple'
OUTER = {4: ('192.0.2.1', '192.0.2.2'), 6: ('2001:db8::1', '2001:db8::2')}


def ini(number, outer=4, host='', peer='', psk=PSK):
    """The configuration of host 1 or 2: 10.1.0.0/24 and fd01::/64 behind host 1, 10.2 and fd02 behind host 2."""
    other = 3 - number
    return (f'[host]\n{host}\n[peer other]\nendpoint = {OUTER[outer][other - 1]}\npsk = "{psk}"\n'
            f'local = 10.{number}.0.0/24, fd0{number}::/64\nremote = 10.{other}.0.0/24, fd0{other}::/64\n{peer}\n')


def hosts(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32', 'fd01::1/128')
    right.address('lo', '10.2.0.1/32', 'fd02::1/128')
    return left, right


def tunnel(lab, outer=4, host='', peer='', up=True):
    left, right = hosts(lab)
    a = Adit(left, ini(1, outer, host, peer)).start()
    b = Adit(right, ini(2, outer, host, peer)).start()
    if up:
        a.up('other')
        # Both have started: of two IKE SAs one goes, a little after its traffic has.
        wait_for('one IKE SA', lambda: all(len(x.status()['peers'][0]['ike_sas']) == 1 for x in (a, b)))
    return a, b


@pytest.mark.parametrize('io', ['uring', 'epoll'])
@pytest.mark.parametrize('outer', [4, 6])
def test_traffic_of_every_kind(lab, io, outer):
    a, b = tunnel(lab, outer, f'io = {io}')
    left, right = a.host, b.host
    assert {'uring': 'io_uring', 'epoll': 'epoll'}[io] in a.log()
    for target, source in (('10.2.0.1', '10.1.0.1'), ('fd02::1', 'fd01::1')):
        for size in (1, 2, 15, 56, 1200, 1372, 1373, 1399, 1400, 1401, 1472, 2000, 8192, 40000, 65507):
            left.ping(target, 2, size, source=source)
        right.ping(source, 2, source=target)
        tcp_transfer(left, right, target, 50, port=7001)
        tcp_transfer(right, left, source, 50, port=7002)
        iperf(left, right, target, source)
        iperf(left, right, target, source, '-R')
        iperf(left, right, target, source, '-u', '-b', '50M')
    a.stop()
    b.stop()


@pytest.mark.parametrize('esp', ['aes128gcm16', 'aes256gcm16', 'chacha20poly1305', 'aes128-sha256', 'aes256-sha256',
                                 'aes256-sha384', 'aes256-sha512', 'null-sha256', 'aes128gcm16-noesn', 'aes128-sha256-noesn',
                                 'aes192gcm8', 'aes128ctr-aesxcbc', 'aes256gmac',
                                 'aes128gcm16iiv-aes128gcm16'])
def test_each_esp_suite(lab, esp):
    a, b = tunnel(lab, peer=f'esp = {esp}')
    a.host.ping('10.2.0.1', 3, 1399, source='10.1.0.1')
    tcp_transfer(a.host, b.host, '10.2.0.1', 20)
    a.host.ping('fd02::1', 3, source='fd01::1')
    assert b.stop() == 0 and a.stop() == 0


@pytest.mark.parametrize('ike', ['aes256gcm16-prfsha384-x25519', 'aes128gcm16-prfsha256-ecp256', 'aes256-sha512-ecp384',
                                 'aes128-sha256-modp2048', 'aes256-sha384-ecp521', 'chacha20poly1305-prfsha512-modp3072',
                                 'aes256gcm16-prfsha256-modp4096', 'aes128ccm8-prfaesxcbc-x25519',
                                 'aes192ctr-aescmac-ecp256', 'aes192-sha1-x25519'])
def test_each_ike_suite(lab, ike):
    a, b = tunnel(lab, peer=f'ike = {ike}')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    a.command('rekey', 'other')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    b.stop()


def test_different_first_group_ends_in_the_common_one(lab):
    """The initiator guesses x25519; the responder only has ecp256 and says INVALID_KE_PAYLOAD."""
    left, right = hosts(lab)
    Adit(right, ini(2, peer='ike = aes256gcm16-prfsha256-ecp256\nstart = no')).start()
    Adit(left, ini(1, peer='ike = aes256gcm16-prfsha256-x25519-ecp256')).start().up('other')
    left.ping('10.2.0.1', 2, source='10.1.0.1')


def drops(daemon):
    return {k: v for k, v in daemon.status()['counters'].items() if k.startswith('drop_') and v}


def rekey_everything(a, b):
    """Child and IKE SA, by each side, twice."""
    for _ in range(2):
        for end in (a, b):
            end.command('rekey', 'other/other')
            end.command('rekey', 'other')
            time.sleep(0.3)


@pytest.mark.parametrize('io', ['uring', 'epoll'])
def test_rekey_of_child_and_ike_loses_no_packet(lab, udp_rate, io):
    a, b = tunnel(lab, host=f'io = {io}')
    a.host.ping('10.2.0.1', 1, source='10.1.0.1')
    before, dropped = spis(a.status()), (drops(a), drops(b))
    flows = [Stream(udp_rate, a.host, b.host, '10.2.0.1', seconds=4), Stream(udp_rate, b.host, a.host, '10.1.0.1', seconds=4)]
    rekey_everything(a, b)
    for flow in flows:
        sent, got = flow.done()
        assert sent > 5000 and got == sent, f'{got} of {sent} datagrams arrived'
    # At full speed queues of the kernel may overflow, as on any link; but the tunnel itself drops nothing.
    transfer = Transfer(a.host, b.host, '10.2.0.1', 300)
    rekey_everything(a, b)
    transfer.done()
    assert (drops(a), drops(b)) == dropped
    assert spis(a.status()).isdisjoint(before)


def test_two_workers_share_the_traffic(lab):
    a, b = tunnel(lab, host='workers = 2')
    for i in range(4):
        tcp_transfer(a.host, b.host, '10.2.0.1', 20, port=7001 + i)
        tcp_transfer(b.host, a.host, '10.1.0.1', 20, port=7011 + i)
    rekey_everything(a, b)
    a.host.ping('10.2.0.1', 5, source='10.1.0.1')
    assert (a.stop(), b.stop()) == (0, 0)


def spis(status):
    """All the SPIs that a status names, each with the name of its direction: by chance both ends may choose the same."""
    found = set()

    def walk(x):
        if isinstance(x, dict):
            for k, v in x.items():
                if k.startswith('spi') and isinstance(v, str):
                    found.add((k, v))
                walk(v)
        elif isinstance(x, list):
            for v in x:
                walk(v)
    walk(status)
    assert found
    return found


@pytest.mark.parametrize('who', ['initiator', 'responder'])
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_restart_of_either_side(lab, who, how):
    a, b = tunnel(lab, peer='dpd = 2s')
    a.host.ping('10.2.0.1', 1, source='10.1.0.1')
    victim = a if who == 'initiator' else b
    victim.stop(how)
    victim.start()
    wait_for('traffic after the restart',
             lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') and
             b.host.ping('10.1.0.1', 1, check=False, timeout=1, source='10.2.0.1'), 60)


def test_peer_unreachable_then_back(lab):
    a, b = tunnel(lab, peer='dpd = 1s')
    a.host.ping('10.2.0.1', 1, source='10.1.0.1')
    b.host.run('ip link set eth0 down')
    assert a.host.ping('10.2.0.1', 5, check=False, timeout=1, interval=0.5, source='10.1.0.1') == 0
    time.sleep(3)
    b.host.run('ip link set eth0 up')
    wait_for('traffic after the outage', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), 60)


def refused(a, command='up'):
    """The one line of a command that fails."""
    done = a.command(command, 'other', check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    text = (done.stderr + done.stdout).strip()
    assert len(text.splitlines()) == 1, text
    return text


def failing_pair(lab, one, two):
    left, right = hosts(lab)
    b = Adit(right, two).start()
    a = Adit(left, one).start()
    return a, b, refused(a)


def test_wrong_psk_is_named_at_both_ends(lab):
    a, b, text = failing_pair(lab, ini(1, peer='start = no'), ini(2, psk='another secret', peer='start = no'))
    assert 'pre-shared key' in text or 'AUTHENTICATION_FAILED' in text
    assert 'pre-shared key' in b.log()
    assert a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') == 0
    for log in (a.log(), b.log()):
        assert PSK not in log and 'another secret' not in log


def test_identity_mismatch_names_both_values(lab):
    a, b, text = failing_pair(lab, ini(1, peer='start = no\nlocal-id = east.example\nid = west.example'),
                              ini(2, peer='start = no\nlocal-id = west.example\nid = north.example'))
    assert 'AUTHENTICATION_FAILED' in text or 'identit' in text
    assert 'east.example' in b.log() and 'north.example' in b.log()


def test_no_common_proposal_names_both_values(lab):
    a, b, text = failing_pair(lab, ini(1, peer='start = no\nike = aes128-sha256-ecp256'),
                              ini(2, peer='start = no\nike = aes256gcm16-prfsha384-x25519'))
    assert 'NO_PROPOSAL_CHOSEN' in text
    assert 'aes128' in b.log() and 'aes256gcm16' in b.log()


def test_no_common_esp_proposal_names_both_values(lab):
    a, b, text = failing_pair(lab, ini(1, peer='start = no\nesp = aes128-sha256'),
                              ini(2, peer='start = no\nesp = chacha20poly1305'))
    assert 'NO_PROPOSAL_CHOSEN' in text
    assert 'aes128' in b.log() and 'chacha20poly1305' in b.log()


def test_selectors_without_overlap_name_both_values(lab):
    a, b, text = failing_pair(lab, ini(1, peer='start = no').replace('remote = 10.2.0.0/24, fd02::/64', 'remote = 10.9.0.0/24'),
                              ini(2, peer='start = no'))
    assert 'TS_UNACCEPTABLE' in text and '10.9.0.0/24' in text
    assert '10.9.0.0/24' in b.log() and '10.2.0.0/24' in b.log()


def test_narrowing_to_what_both_allow(lab):
    left, right = hosts(lab)
    Adit(right, ini(2, peer='start = no')).start()
    a = Adit(left, ini(1, peer='start = no').replace('remote = 10.2.0.0/24, fd02::/64', 'remote = 10.2.0.0/16')
             .replace('local = 10.1.0.0/24, fd01::/64', 'local = 10.1.0.0/24')).start()
    a.up('other')
    left.ping('10.2.0.1', 2, source='10.1.0.1')


def test_silent_peer_is_said_so(lab):
    left, right = hosts(lab)
    a = Adit(left, ini(1, peer='start = no')).start()
    text = refused(a)
    assert 'no answer' in text or 'not answer' in text or 'silent' in text
    assert '192.0.2.2' in text


def traces(host):
    return {what: host.run(*command.split()).stdout for what, command in (
        ('links', 'ip -o link show type tun'), ('routes', 'ip -4 route show table all'), ('routes6', 'ip -6 route show table all'),
        ('rules', 'ip -4 rule'), ('rules6', 'ip -6 rule'), ('firewall', 'nft list ruleset'), ('files', 'find /run/adit'), ('sockets', 'ss -lunH'))}


@pytest.mark.parametrize('io', ['uring', 'epoll'])
def test_clean_exit_leaves_nothing(lab, io):
    left, right = hosts(lab)
    wait_for('addresses', lambda: 'tentative' not in left.run('ip addr').stdout)
    before = traces(left)
    a = Adit(left, ini(1, host=f'io = {io}\naddress = 10.1.0.7/24')).start()
    b = Adit(right, ini(2, host=f'io = {io}')).start()
    a.up('other')
    assert traces(left) != before
    assert a.stop() == 0
    wait_for('nothing to be left', lambda: traces(left) == before, 60)
    wait_for('the peer to see the delete', lambda: 'other' in b.log() and 'down' in b.log().lower())


def test_stays_closed_after_kill(lab):
    """After kill -9 the protected prefixes are unreachable, not in the clear."""
    a, b = tunnel(lab)
    a.host.run('ip', 'route', 'add', 'default', 'via', '192.0.2.2')
    a.stop(signal.SIGKILL)
    wait_for('the TUN to be gone', lambda: not a.host.run('ip -o link show type tun').stdout)
    sniffer = b.host.spawn('tcpdump', '-n', '-i', 'eth0', 'dst net 10.2.0.0/24')
    sniffer.wait_text('listening')
    assert a.host.ping('10.2.0.1', 2, check=False, timeout=1, source='10.1.0.1') == 0
    sniffer.stop(signal.SIGINT)
    assert '0 packets captured' in sniffer.text()
    a.start()
    wait_for('traffic again', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), 60)
    a.stop()
    assert 'unreachable' not in a.host.run('ip -4 route show table all').stdout


def test_policy_may_cover_the_peer_itself(lab):
    """0.0.0.0/0 covers the peer's own address: the daemon's own packets stay out of the tunnel."""
    left, right = lab.pair()
    right.address('lo', '198.51.100.1/32')
    Adit(right, f'[peer other]\nendpoint = 192.0.2.1\npsk = "{PSK}"\nlocal = 0.0.0.0/0\nremote = 10.1.0.1\nstart = no\n').start()
    a = Adit(left, f'[host]\naddress = 10.1.0.1/32\n[peer other]\nendpoint = 192.0.2.2\npsk = "{PSK}"\nlocal = 10.1.0.1\n'
             'remote = 0.0.0.0/0\n').start()
    a.up('other')
    left.ping('198.51.100.1', 3)
    left.ping('192.0.2.2', 3, source='10.1.0.1')
    a.command('rekey', 'other')
    left.ping('198.51.100.1', 3)


BYPASS = '[policy printer]\naction = bypass\nlocal = 10.1.0.0/24\nremote = 10.2.9.0/24\n'


def bypass_hosts(lab):
    """Both ends with 10.2.0.0/16 protected; 10.2.9.1 is behind host 2 on the wire."""
    left, right = hosts(lab)
    right.address('lo', '10.2.9.1/32')
    left.run('ip', 'route', 'add', '10.2.9.0/24', 'via', '192.0.2.2')
    wide = {n: ini(n, peer='start = no').replace('10.2.0.0/24', '10.2.0.0/16').replace('[peer', '%s[peer') for n in (1, 2)}
    return left, right, wide


def reaches_both(left, right, thrown):
    """10.2.0.1 through the tunnel, 10.2.9.1 in the clear if thrown, through the tunnel otherwise."""
    sniffer = right.spawn('tcpdump', '-n', '-l', '-i', 'eth0', 'icmp')
    sniffer.wait_text('listening')
    left.ping('10.2.0.1', 2, source='10.1.0.1')
    left.ping('10.2.9.1', 2)
    if thrown:
        sniffer.wait_text('> 10.2.9.1')
    sniffer.stop(signal.SIGINT)
    assert '10.2.0.1' not in sniffer.text()
    assert ('> 10.2.9.1' in sniffer.text()) == thrown


def test_bypass_within_a_protected_prefix(lab):
    left, right, wide = bypass_hosts(lab)
    wait_for('addresses', lambda: 'tentative' not in left.run('ip addr').stdout)
    before = traces(left)
    Adit(right, wide[2] % '').start()
    a = Adit(left, wide[1] % BYPASS).start()
    a.up('other')
    reaches_both(left, right, True)
    assert 'printer' not in a.log()
    assert a.stop() == 0
    wait_for('nothing to be left', lambda: traces(left) == before, 60)


def test_bypass_comes_and_goes_by_reload_and_is_swept_after_a_crash(lab):
    left, right, wide = bypass_hosts(lab)
    Adit(right, wide[2] % '').start()
    a = Adit(left, wide[1] % '').start()
    a.up('other')
    reaches_both(left, right, False)
    for bypass in (BYPASS, '', BYPASS):
        left.write('adit.ini', wide[1] % bypass)
        a.command('reload')
        reaches_both(left, right, bool(bypass))
    a.stop(signal.SIGKILL)
    assert left.ping('10.2.9.1', 1) and 'throw 10.2.9.0/24' in left.run('ip route show table 5190').stdout
    left.write('adit.ini', wide[1] % '')
    a.start()
    assert 'throw' not in left.run('ip route show table 5190').stdout
    assert a.stop() == 0


def test_reload_is_atomic(lab):
    a, b = tunnel(lab)
    before = spis(a.status())
    good = open(a.ini).read()
    a.host.write('adit.ini', good + '\nnonsense = 1\n')
    done = a.command('reload', check=False)
    assert done.returncode == 1 and 'nonsense' in done.stderr + done.stdout
    assert spis(a.status()) == before
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    a.host.write('adit.ini', good)
    a.command('reload')
    assert spis(a.status()) == before, 'an unchanged configuration keeps its SAs'
    a.host.write('adit.ini', good + '[policy more]\naction = discard\nlocal = 10.1.0.0/24\nremote = 10.3.0.0/24\n')
    a.process.popen.send_signal(signal.SIGHUP)
    wait_for('the reload', lambda: 'more' in a.command('status').stdout)
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')


def test_up_down_and_rekey_by_command(lab):
    a, b = tunnel(lab, peer='start = no', up=False)
    assert a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') == 0
    a.command('up', 'other')
    a.host.ping('10.2.0.1', 2, source='10.1.0.1')
    a.command('up', 'other')
    first = spis(a.status())
    a.command('rekey', 'other/other')
    assert spis(a.status()) != first
    b.command('down', 'other')
    assert a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') == 0
    assert a.command('up', 'nobody', check=False).returncode in (1, 2)


def test_start_on_traffic(lab):
    a, b = tunnel(lab, peer='start = on-demand', up=False)
    wait_for('the tunnel to come with traffic', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), 60)


def test_short_lifetimes_rekey_by_themselves(lab, udp_rate):
    # From when it is due, a tenth of a lifetime and more is left for a rekey: a stall of the machine must fit into it.
    a, b = tunnel(lab, peer='lifetime = 10s\nrekey = 16s')
    flow = Stream(udp_rate, a.host, b.host, '10.2.0.1', seconds=35)
    first = spis(a.status())
    sent, got = flow.done()
    assert got == sent > 10000
    assert spis(a.status()).isdisjoint(first)


def test_plaintext_never_leaves(lab):
    """A marker in the payload is searched for on the wire, from before the start until after the end."""
    left, right = hosts(lab)
    left.run('ip', 'route', 'add', 'default', 'via', '192.0.2.2')
    a = Adit(left, ini(1, peer='start = no')).start()
    capture = Capture(right)
    marker = b'plaintext marker!'
    pinger = left.spawn('ping', '-i', '0.02', '-p', marker[:16].hex(), '-I', '10.1.0.1', '10.2.0.1')
    b = Adit(right, ini(2)).start()
    a.up('other')
    time.sleep(0.5)
    a.command('rekey', 'other/other')
    a.command('reload')
    a.command('down', 'other')
    time.sleep(0.2)
    a.stop(signal.SIGKILL)
    time.sleep(0.5)
    pinger.stop(signal.SIGINT)
    capture.end()
    wire = capture.bytes()
    assert len(wire) > 5000 and marker[:16] not in wire
    assert ' 0 received' not in pinger.text(), 'some pings went through the tunnel'
    b.stop()


def test_control_socket_is_private(lab):
    a, _ = tunnel(lab)
    assert a.host.run('stat', '-c', '%a', '/run/adit/adit0.sock').stdout.strip() == '600'
