"""What administrators and other programs do to a host that has a link: nothing gets into the clear, and it goes on by itself."""

import signal
import time

import pytest
from exposed import Exposed, marked, passes
from netlab import Adit, wait_for

MAIN = ('ip rule add pref 32766 lookup main', 'ip rule add pref 32767 lookup default',
        'ip -6 rule add pref 32766 lookup main')


def again(host):
    """What a network manager sets up when it starts."""
    host.address('eth0', *[a for a in ('192.0.2.1/24', '2001:db8::1/64')
                           if a not in host.run('ip address show dev eth0').stdout])
    Exposed.route(host, 1)


def cable(link, _):
    link.right.run('ip link set eth0 down')
    time.sleep(1)
    link.right.run('ip link set eth0 up')
    link.right.address('eth0', '2001:db8::2/64')
    Exposed.route(link.right, 2)


def outer_link(link, _):
    link.left.run('ip link set eth0 down')
    time.sleep(1)
    link.left.run('ip link set eth0 up')
    again(link.left)


def outer_addresses(link, _):
    link.left.run('ip address flush dev eth0')
    time.sleep(0.5)
    again(link.left)


def inner_addresses(link, _):
    """Gone and back before anybody has looked: the routes that have them for a source lost it."""
    for _ in range(3):
        link.left.run('sh', '-c', 'ip address del 10.1.0.1/32 dev lo; ip address add 10.1.0.1/32 dev lo; '
                                  'ip address del fd01::1/128 dev lo; ip address add fd01::1/128 dev lo')
    for family, source in ('-4', '10.1.0.1'), ('-6', 'fd01::1'):
        wait_for('the source', lambda f=family, s=source: f'src {s}' in link.left.run(f'ip {f} route show table 5190').stdout, 10)


def tun_down(link, a):
    link.left.run('ip link set adit0 down')
    wait_for('the log', lambda: 'another program has set adit0 down' in a.log(), 10)


def tun_addresses(link, _):
    link.left.run('ip address flush dev adit0')


def routes(link, a):
    for family in '-4', '-6':
        link.left.run(f'ip {family} route flush table 5190')
    wait_for('the log', lambda: 'routes into the tunnel were removed' in a.log(), 10)


def rules(link, a):
    """All but what leads to the local addresses; then the usual ones again."""
    for family in '-4', '-6':
        link.left.run(f'ip {family} rule flush')
    for rule in MAIN:
        link.left.run(rule)
    wait_for('the log', lambda: 'of the routing rules that lead into the tunnel' in a.log(), 10)


def filters(link, a):
    link.left.run('nft flush ruleset')
    wait_for('the log', lambda: 'is there again' in a.log(), 10)


def manager(link, a):
    """All that a network manager's restart does."""
    for disturb in rules, outer_addresses, routes:
        disturb(link, a)


def asleep(link, a):
    """Longer than the peer has patience."""
    a.process.popen.send_signal(signal.SIGSTOP)
    time.sleep(8)
    a.process.popen.send_signal(signal.SIGCONT)


def killed(link, a):
    for _ in range(3):
        a.stop(signal.SIGKILL)
        time.sleep(0.3)
        a.start()


DISTURBANCES = [cable, outer_link, outer_addresses, inner_addresses, tun_down, tun_addresses, routes, rules, filters, manager, asleep,
                killed]


@pytest.mark.parametrize('disturb', DISTURBANCES)
def test_nothing_in_the_clear_and_it_recovers(lab, disturb):
    link = Exposed(lab)
    tun = disturb is tun_addresses  # else routes have the host's own for a source
    a, b = (Adit(host, marked(number, 'yes', host=f'address = 10.{number}.0.9/32, fd0{number}::9/128' if tun else ''))
            for host, number in link.hosts)
    a.start()
    b.start()
    for side in link.sides:
        side.send()
    passes(*link.sides)
    disturb(link, a)
    began = time.monotonic()
    passes(*link.sides)
    print(f'{disturb.__name__}: traffic of every kind {time.monotonic() - began:.1f} s later')
    if tun:
        link.left.ping('10.2.0.9', 2, source='10.1.0.9')
        link.left.ping('fd02::9', 2, source='fd01::9')
    assert link.seen() == []
    assert (a.stop(), b.stop()) == (0, 0)


def test_a_program_that_goes_on_and_on_is_not_fought(lab):
    """What comes back is taken away at once, again and again: it is put back more and more slowly, and stays in the end."""
    link = Exposed(lab)
    a, _ = (Adit(host, marked(number, 'yes')).start() for host, number in link.hosts)
    for side in link.sides:
        side.send()
    passes(*link.sides)
    used = a.process.cpu()
    other = link.left.spawn('sh', '-c', 'while :; do ip route flush table 5190; ip rule del pref 5192; nft flush table inet '
                                        'adit-adit0; nft delete table inet adit-adit0; sleep 0.02; done 2>/dev/null')
    time.sleep(12)
    assert 2 < a.log().count('routes into the tunnel were removed') < 8
    assert a.process.cpu() - used < 6, 'half of it at most, with all the traffic'
    other.stop(signal.SIGKILL)
    passes(*link.sides)
    assert a.stop() == 0


def test_reload_exchanges_protect_and_bypass(lab):
    """What bypassed and is protected now is never in the clear again from the moment that the reload is over."""
    link = Exposed(lab)
    keys = '[host]\n[peer other]\nendpoint = 192.0.2.2\npsk = "correct horse battery staple"\nstart = yes\n'
    texts = [keys + f'[policy one]\naction = bypass\nlocal = 10.1.0.0/24, fd01::/64\nremote = {bypass}\n'
                    f'[policy two]\npeer = other\nlocal = 10.1.0.0/24, fd01::/64\nremote = {protect}\n'
             for bypass, protect in (('10.2.0.0/24, fd02::/64', '10.6.0.0/24, fd06::/64'),
                                     ('10.6.0.0/24, fd06::/64', '10.2.0.0/24, fd02::/64'))]
    a = Adit(link.left, texts[0]).start()
    link.sides[0].send()
    for _ in range(3):
        wait_for('what bypasses, of both IP versions', lambda before=len(link.seen()): {
            line.split()[1] for line in link.seen()[before:]} >= {'10.1.0.1', 'fd01::1'}, 10)
        link.left.write('adit.ini', texts[1])
        a.command('reload')
        before = link.seen_so_far()
        time.sleep(0.5)
        assert link.seen()[before:] == []
        link.left.write('adit.ini', texts[0])
        a.command('reload')


def ended(a):
    wait_for('its end', lambda: not a.process.running(), 20)
    return a.process.popen.returncode


@pytest.mark.parametrize('firewall', ['auto', 'no'])
def test_an_end_that_nobody_wanted_leaves_it_closed(lab, firewall):
    """Without its device a daemon can't go on, and one that can't start after a crash must not open what that left closed."""
    link = Exposed(lab)
    a, b = (Adit(host, marked(number, 'yes', host=f'firewall = {firewall}')).start() for host, number in link.hosts)
    for side in link.sides:
        side.send()
    passes(*link.sides)
    link.left.run('ip link del adit0')
    assert ended(a) == 1
    link.left.write('adit.ini', marked(1, 'yes', host=f'firewall = {firewall}\naddress = fd01::9/128'))
    link.left.run('sysctl -q net.ipv6.conf.default.disable_ipv6=1')
    a.start(wait=False)
    assert ended(a) == 1 and 'could not start: address fd01::9/128' in a.log()
    link.left.run('sysctl -q net.ipv6.conf.default.disable_ipv6=0')
    time.sleep(0.5)
    assert link.seen() == []
    a.start()
    passes(*link.sides)
    assert link.seen() == []
    assert (a.stop(), b.stop()) == (0, 0)
    wait_for('the hosts as they were before', lambda: len({line.split()[1] for line in link.seen()}) == 4, 10)
    link.left.run('sysctl -q net.ipv6.conf.default.disable_ipv6=1')
    a.start(wait=False)
    assert ended(a) == 1, 'where nothing was closed, nothing is'
    wait_for('traffic in the clear', lambda before=len(link.seen()): len(link.seen()) > before + 9, 10)


def test_a_strict_reverse_path_filter_does_not_last(lab):
    """It drops all that a tunnel to the peer's own address brings. Daemons, administrators and new links make it strict."""
    left, right = lab.pair()
    policy = 'psk = "correct horse battery staple"\nlocal = 192.0.2.{}\nremote = 192.0.2.{}\n'
    left.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1')
    another = Adit(left, '[host]\ntun = other0\nport = 0\nnat-port = 4501\n[peer third]\nendpoint = 192.0.2.9\nstart = no\n'
                         f'{policy.format(1, 9)}', 'other').start()
    a, b = (Adit(h, f'[peer other]\nendpoint = 192.0.2.{3 - n}\n{policy.format(n, 3 - n)}').start()
            for h, n in ((left, 1), (right, 2)))
    wait_for('the tunnel', lambda: 'child-up' in a.log(), 10)
    left.ping('192.0.2.2')
    filters = 'sysctl', '-n', 'net.ipv4.conf.all.rp_filter', 'net.ipv4.conf.eth0.rp_filter', 'net.ipv4.conf.all.src_valid_mark'
    assert left.run(*filters).stdout.split() == ['2', '0', '1'] and 'filter' not in a.log()
    assert another.stop() == 0
    wait_for('the log', lambda: 'strict reverse-path filter' in a.log(), 10)
    assert left.run(*filters).stdout.split() == ['2', '0', '1']
    left.ping('192.0.2.2')
    left.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=0')
    left.run('sysctl', '-qw', 'net.ipv4.conf.eth0.rp_filter=1')
    wait_for('the log', lambda: a.log().count('strict reverse-path filter') == 2, 10)
    left.ping('192.0.2.2')
    left.run('sysctl', '-qw', 'net.ipv4.conf.default.rp_filter=1')
    left.run('ip', 'link', 'add', 'later', 'type', 'veth', 'peer', 'later-peer')
    wait_for('the new link', lambda: left.run('sysctl', '-n', 'net.ipv4.conf.later.rp_filter').stdout == '2\n', 10)
    assert (a.stop(), b.stop()) == (0, 0)
    assert left.run(*filters).stdout.split() == ['1', '1', '0']
