"""Nothing in the clear: what policies say of packets that never see the tunnel, and of the time without one."""

import json
import os
import re
import signal
import time

import pytest
from exposed import MARKER, Exposed, marked, passes
from netlab import ADIT, Adit, wait_for
from traffic import tcp_transfer

PYTHON = '/usr/bin/python3'
PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'probe.py')
# Rules and tables of ours; a link-local address may hold any digits.
TRACES = r'(?m)^51\d\d:|(table|lookup) 51\d\d|adit'
PEER = 'psk = "correct horse battery staple"\nstart = no\n'


class Witness:
    """Which probes a host takes."""

    def __init__(self, host):
        self.process = host.spawn(PYTHON, PROBE, 'watch')
        self.process.wait_text('watching')

    def takes(self, sender, probes, route=None):
        """The names of those of the probes that come through; a last one tells when all have come."""
        last = f'last{time.monotonic()}'
        probes = [*probes, [last, '192.0.2.2', '192.0.2.1', 'udp', 7, 7]]
        before = len(self.process.text())
        sender.run(PYTHON, PROBE, 'send', input=json.dumps(probes))
        self.process.wait_text(last)
        return set(re.findall(r'"([^"]*)"', self.process.text()[before:])) - {last}


def names(probes):
    return {p[0] for p in probes}


def victim(lab, ini, host=''):
    """Left, with a daemon without SAs; right, who is on its wire and means no good."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32', '10.1.0.2/32', 'fd01::1/128')
    right.run('ip', 'route', 'add', '10.1.0.0/24', 'via', '192.0.2.1')
    right.run('ip', 'route', 'add', 'fd01::/64', 'via', '2001:db8::1')
    return left, right, Adit(left, f'[host]\n{host}\n{ini}').start()


SITE = f'[peer other]\nendpoint = 192.0.2.2\n{PEER}local = 10.1.0.0/24, fd01::/64\nremote = 10.2.0.0/24, fd02::/64\n'
FORGED = [
    ['udp', '10.2.0.1', '10.1.0.1', 'udp', 53, 53],
    ['tcp', '10.2.0.255', '10.1.0.2', 'tcp', 80, 4000],
    ['icmp', '10.2.0.0', '10.1.0.1', 'icmp', 8, 0],
    ['gre', '10.2.0.9', '10.1.0.1', '47'],
    ['udp6', 'fd02::1', 'fd01::1', 'udp', 53, 53],
    ['icmp6', 'fd02::ffff', 'fd01::1', 'icmpv6', 128, 0],
]
HONEST = [
    ['other source', '10.3.0.1', '10.1.0.1', 'udp', 53, 53],
    ['just below', '10.1.255.255', '10.1.0.1', 'udp', 53, 53],
    ['just above', '10.2.1.0', '10.1.0.1', 'udp', 53, 53],
    ['other destination', '10.2.0.1', '192.0.2.1', 'udp', 53, 53],
    ['other source 6', 'fd02:0:0:1::1', 'fd01::1', 'udp', 53, 53],
]


def test_forged_cleartext_is_dropped(lab):
    left, right, a = victim(lab, SITE)
    witness = Witness(left)
    assert 'firewall: nftables (table inet adit-adit0)' in a.log() and a.status()['host']['firewall'] == 'nftables'
    assert witness.takes(right, FORGED + HONEST) == names(HONEST)
    assert not a.status()['peers'][0]['ike_sas']
    assert a.stop() == 0
    assert witness.takes(right, FORGED + HONEST) == names(FORGED + HONEST)


def test_what_is_dropped_is_counted_and_audited(lab):
    """Beside our own drops, in both directions; a reload's new rules go on counting (RFC 4301 5.1, 5.2)."""
    left, right, a = victim(lab, SITE)
    left.run('ip rule add pref 100 lookup main')
    left.run('ip route add default via 192.0.2.2')
    witness = Witness(left)

    def dropped(way):
        return {d['name']: d['count'] for d in a.status()['drops']}.get(f'drop_{way}_clear', 0)

    for turn in 1, 2:
        assert witness.takes(right, FORGED + HONEST) == names(HONEST)
        left.run(PYTHON, PROBE, 'send', input=json.dumps([['leaves', '10.1.0.1', '10.2.0.1', 'udp', 5, 5]]))
        if turn == 1:
            more = '[policy more]\npeer = other\nlocal = 10.1.0.0/24\nremote = 10.9.0.0/24\n'
            left.write('adit.ini', f'[host]\n{SITE}{more}')
            a.command('reload')
        assert (dropped('in'), dropped('out')) == (len(FORGED) * turn, turn)
    assert a.status()['counters']['drop_in_clear'] == 2 * len(FORGED)
    assert re.search(r'12 +drop_in_clear', a.command('status').stdout)
    lines = re.findall(r'audit: drop_in_clear: packet that arrived in the clear, against a policy, inside (.*), at', a.log())
    assert 10 <= len(lines) <= 12 and {'10.2.0.1 port 53 -> 10.1.0.1 port 53 protocol 17', '10.2.0.9 -> 10.1.0.1 protocol 47',
                                       'fd02::ffff -> fd01::1 protocol 58 type 128 code 0'} < set(lines)

    def others(way):
        return sum(map(int, re.findall(f'audit: drop_{way}_clear: (\\d+) more', a.log())))

    wait_for('the rest in the audit log', lambda: (others('in'), others('out')) == (12 - len(lines), 2), 15)


def test_without_firewall_it_is_let_in(lab):
    left, right, a = victim(lab, SITE, 'firewall = no')
    assert a.status()['host']['firewall'] == 'no' and 'adit' not in left.run('nft list ruleset').stdout
    assert Witness(left).takes(right, FORGED + HONEST) == names(FORGED + HONEST)


def test_it_stands_after_a_crash_and_is_taken_over(lab):
    left, right, a = victim(lab, SITE)
    witness = Witness(left)
    a.stop(signal.SIGKILL)
    assert witness.takes(right, FORGED + HONEST) == names(HONEST)
    a.start()
    assert witness.takes(right, FORGED + HONEST) == names(HONEST)
    assert left.run('nft list tables').stdout == 'table inet adit-adit0\n'
    a.stop(signal.SIGKILL)
    left.write('adit.ini', f'[host]\nfirewall = no\n{SITE}')
    a.start()
    assert witness.takes(right, FORGED) == names(FORGED)


def another(lab, left, host=''):
    """A second daemon on left, with a TUN of its own, for what is reached in the clear without it."""
    lab.hosts[1].address('lo', '10.8.0.1/32', 'fd08::1/128')
    left.run('ip route add 10.8.0.0/24 via 192.0.2.2')
    left.run('ip -6 route add fd08::/64 via 2001:db8::2')
    return Adit(left, f'[host]\ntun = other0\nport = 0\nnat-port = 4501\n{host}\n[peer third]\nendpoint = 192.0.2.9\n{PEER}'
                      'local = 10.1.0.0/24, fd01::/64\nremote = 10.8.0.0/24, fd08::/64\n', 'other')


@pytest.mark.parametrize('firewall', ['auto', 'no'])
def test_what_another_daemon_protected_stays_closed_after_its_crash(lab, firewall):
    """One that ends or starts meanwhile leaves it, its routes and the rules to them, to who is restarted some day."""
    left, right, a = victim(lab, SITE, f'firewall = {firewall}')
    b = another(lab, left, f'firewall = {firewall}').start()
    sniffer = right.spawn(PYTHON, PROBE, 'sniff', 'eth0', 'probe:')
    sniffer.wait_text('sniffing')

    def leaves():
        left.run(PYTHON, PROBE, 'send', input=json.dumps([
            ['third', '10.1.0.1', '10.8.0.1', 'udp', 5, 5], ['third6', 'fd01::1', 'fd08::1', 'udp', 5, 5]]), check=False)
        time.sleep(0.3)
        return 'clear' in sniffer.text()

    b.stop(signal.SIGKILL)
    assert not leaves()
    a.stop(signal.SIGKILL)
    a.start()
    assert not leaves()
    assert ('table inet adit-other0 is that of a daemon that has crashed' in a.log()) == (firewall == 'auto')
    assert a.stop() == 0
    assert not leaves()
    b.start()
    assert b.stop() == 0
    assert leaves() or wait_for('what nothing protects any more', lambda: 'clear' in sniffer.text(), 10)
    for command in ('ip rule', 'ip -6 rule', 'ip route show table all', 'ip -6 route show table all', 'nft list tables'):
        assert not re.search(TRACES, left.run(command).stdout), command


@pytest.mark.parametrize('first', ['its own', 'the other'])
def test_two_daemons_end_in_either_order(lab, first):
    """What the one that goes on protects never leaves in the clear, by routes alone, and none leaves anything behind."""
    left, right, a = victim(lab, SITE, 'firewall = no')
    b = another(lab, left, 'firewall = no').start()
    right.address('lo', '10.2.0.1/32', 'fd02::1/128')
    left.run('ip route add 10.2.0.0/24 via 192.0.2.2')
    left.run('ip -6 route add fd02::/64 via 2001:db8::2')
    goes, stays, net = (a, b, 8) if first == 'its own' else (b, a, 2)
    sniffer = right.spawn(PYTHON, PROBE, 'sniff', 'eth0', 'plaintext-marker')
    sniffer.wait_text('sniffing')
    for source, to in ('10.1.0.1', f'10.{net}.0.1'), ('fd01::1', f'fd0{net}::1'):
        left.spawn(PYTHON, MARKER, source, to)
    time.sleep(0.5)
    assert goes.stop() == 0
    time.sleep(1)
    assert 'clear' not in sniffer.text()
    assert stays.stop() == 0
    wait_for('the host as it was before', lambda: 'clear' in sniffer.text(), 10)
    for command in ('ip rule', 'ip -6 rule', 'ip route show table all', 'ip -6 route show table all'):
        assert not re.search(TRACES, left.run(command).stdout), command


def test_peer_within_its_own_policy(lab):
    """IKE, ESP, AH, ICMP errors about them and neighbour discovery pass (conformance 5); all else of it is dropped."""
    left, right, _ = victim(lab, f'[peer other]\nendpoint = 192.0.2.2\n{PEER}local = 192.0.2.1, 2001:db8::1\n'
                                 'remote = 192.0.2.2, 2001:db8::2\n')
    passes = [
        ['ike', '192.0.2.2', '192.0.2.1', 'udp', 500, 500],
        ['nat', '192.0.2.2', '192.0.2.1', 'udp', 7777, 4500],
        ['esp', '192.0.2.2', '192.0.2.1', '50'],
        ['ah', '192.0.2.2', '192.0.2.1', '51'],
        ['error', '192.0.2.2', '192.0.2.1', 'quote', 4500, 4500],
        ['error 6', '2001:db8::2', '2001:db8::1', 'quote6', 500, 500],
        ['fragments', '2001:db8::2', '2001:db8::1', 'fragments', 500, 500],
        ['too big', '2001:db8::2', '2001:db8::1', 'too-big', 17, 0, 4500, 4500],
        ['too big later', '2001:db8::2', '2001:db8::1', 'too-big', 17, 9, 0x4711, 0],
        ['too big ESP', '2001:db8::2', '2001:db8::1', 'too-big', 50, 0, 1, 2],
        ['too big AH later', '2001:db8::2', '2001:db8::1', 'too-big', 51, 1, 1, 2],
        ['neighbour', '2001:db8::2', '2001:db8::1', 'icmpv6', 136, 0],
    ]
    stays = [
        ['udp', '192.0.2.2', '192.0.2.1', 'udp', 4500, 5000],
        ['udp', '2001:db8::2', '2001:db8::1', 'udp', 500, 5000],
        ['other fragments', '2001:db8::2', '2001:db8::1', 'fragments', 500, 5000],
        ['ping', '2001:db8::2', '2001:db8::1', 'icmpv6', 128, 0],
        ['other error', '192.0.2.2', '192.0.2.1', 'quote', 5000, 4500],
        ['other error 6', '2001:db8::2', '2001:db8::1', 'quote6', 5000, 4500],
        ['other too big', '2001:db8::2', '2001:db8::1', 'too-big', 17, 0, 5000, 4500],
        ['other too big later', '2001:db8::2', '2001:db8::1', 'too-big', 6, 9, 5000, 4500],
    ]
    witness = Witness(left)
    # What tells that all have come is from the peer, too: a port of IKE lets it pass.
    right.run(PYTHON, PROBE, 'send', input=json.dumps(passes + stays + [['end', '192.0.2.2', '192.0.2.1', 'udp', 7, 500]]))
    witness.process.wait_text('"end"')
    assert set(re.findall(r'"([^"]*)"', witness.process.text())) == names(passes) | {'end'}


def test_a_tunnel_between_the_hosts_own_addresses(lab):
    """What leaves the tunnel's outer end has the addresses that the policy protects: the mark tells it apart."""
    left, right = lab.pair()
    a, b = (Adit(host, f'[peer other]\nendpoint = 192.0.2.{other}\npsk = "correct horse battery staple"\nstart = no\n'
                       f'local = 192.0.2.{3 - other}\nremote = 192.0.2.{other}\n').start() for host, other in ((left, 2), (right, 1)))
    a.up('other')
    sniffer = right.spawn('tcpdump', '-n', '-l', '-i', 'eth0', 'icmp')
    sniffer.wait_text('listening')
    left.ping('192.0.2.2', 3)
    right.ping('192.0.2.1', 3)
    sniffer.stop(signal.SIGINT)
    assert 'ICMP' not in sniffer.text()
    assert b.stop() == 0


@pytest.mark.parametrize('way', ['ah = default', 'encap = raw', 'encap = udp'])
def test_fragments_over_ipv6_from_a_peer_within_its_own_policy(lab, way):
    """What is too long for the path comes in fragments, which the firewall sees before the kernel puts them together."""
    hosts = lab.pair()
    for host, own, other in zip(hosts, (1, 2), (2, 1)):
        host.address('lo', f'10.{own}.0.1/32')
        Adit(host, f'[host]\nmtu = 1500\n[peer other]\nendpoint = 2001:db8::{other}\n{PEER}{way}\n'
                   f'local = 2001:db8::{own}, 10.{own}.0.1\nremote = 2001:db8::{other}, 10.{other}.0.1\n').start()
    hosts[0].run(ADIT, 'up', 'other')
    sniffer = hosts[1].spawn('tcpdump', '-n', '-l', '-i', 'eth0', 'ip6[6] == 44')
    sniffer.wait_text('listening')
    ping = hosts[0].run(*'ping -M dont -c 3 -i 0.2 -s 1440 -I 10.1.0.1 10.2.0.1'.split())
    assert '3 received' in ping.stdout
    sniffer.wait_text('frag')


ORDERED = '''[peer other]
endpoint = 192.0.2.2
psk      = "correct horse battery staple"
start    = no
[policy dns]
action = bypass
local  = 10.1.0.0/24
remote = 10.2.0.0/24[udp/53]
[policy range]
action = bypass
local  = 10.1.0.0/24[tcp/8000-8999]
remote = 10.2.0.0/24[tcp]
[policy ping]
action = bypass
local  = 10.1.0.1
remote = 10.2.0.7[icmp/8]
[policy lan]
peer   = other
local  = 10.1.0.0/24
remote = 10.2.0.0/24
[policy late]
action = bypass
local  = 10.1.0.0/24
remote = 10.2.0.0/24[udp/7]
[policy no-telnet]
action = discard
local  = 10.1.0.0/24[tcp/23]
remote = 10.5.0.0-10.5.0.9
[policy narrow]
peer   = other
local  = 10.1.0.2[tcp/443]
remote = 10.6.0.1
[policy open]
peer   = other
local  = 10.1.0.0/24
remote = 10.7.0.0/24
fail-open = yes
'''
ORDERED_PROBES = [  # and whether it passes
    (['dns', '10.2.0.9', '10.1.0.1', 'udp', 53, 999], True),
    (['not dns', '10.2.0.9', '10.1.0.1', 'udp', 54, 53], False),
    (['range first', '10.2.0.9', '10.1.0.1', 'tcp', 5, 8000], True),
    (['range last', '10.2.0.9', '10.1.0.1', 'tcp', 5, 8999], True),
    (['range before', '10.2.0.9', '10.1.0.1', 'tcp', 5, 7999], False),
    (['range behind', '10.2.0.9', '10.1.0.1', 'tcp', 5, 9000], False),
    (['range udp', '10.2.0.9', '10.1.0.1', 'udp', 5, 8000], False),
    (['ping', '10.2.0.7', '10.1.0.1', 'icmp', 8, 0], True),
    (['pong', '10.2.0.7', '10.1.0.1', 'icmp', 0, 0], False),
    (['other ping', '10.2.0.8', '10.1.0.1', 'icmp', 8, 0], False),
    (['late', '10.2.0.9', '10.1.0.1', 'udp', 7, 7], False),
    (['telnet', '10.5.0.9', '10.1.0.1', 'tcp', 5, 23], False),
    (['ssh', '10.5.0.9', '10.1.0.1', 'tcp', 5, 22], True),
    (['behind', '10.5.0.10', '10.1.0.1', 'tcp', 5, 23], True),
    (['narrow', '10.6.0.1', '10.1.0.2', 'tcp', 5, 443], False),
    (['narrow udp', '10.6.0.1', '10.1.0.2', 'udp', 5, 443], True),
    (['narrow other', '10.6.0.1', '10.1.0.1', 'tcp', 5, 443], True),
    (['open', '10.7.0.1', '10.1.0.1', 'tcp', 5, 443], True),
]


def test_order_and_selectors_are_those_of_the_spd(lab):
    left, right, a = victim(lab, ORDERED)
    passing = {p[0] for p, passes in ORDERED_PROBES if passes}
    witness = Witness(left)
    assert witness.takes(right, [p for p, _ in ORDERED_PROBES]) == passing
    warning = "policy 'open' has fail-open"
    assert warning in a.log() and warning in a.command('check', a.ini).stderr


def many(kind, n):
    """That many policies; those of "pairs" and "crossed" have as many local addresses."""
    for i in range(n):
        local = f'10.1.{i >> 8}.{i & 255}' if kind != 'remotes' else '10.1.0.0/16'
        remote = f'10.64.{i >> 7}.{(i & 127) * 2}' if kind != 'locals' else '10.64.0.0/24'
        yield f'[policy p{i}]\npeer = other\nlocal = {local}\nremote = {remote}\n'


@pytest.mark.parametrize('kind', ['remotes', 'locals', 'pairs'])
def test_many_policies_are_few_rules(lab, kind):
    left, right, a = victim(lab, f'[peer other]\nendpoint = 192.0.2.2\n{PEER}' + ''.join(many(kind, 500)))
    stays = [['of the first', '10.64.0.0', '10.1.0.0', 'udp', 5, 5], ['of the last', '10.64.3.230', '10.1.1.243', 'udp', 5, 5]]
    passes = [['between', '10.64.0.1', '10.1.0.2', 'udp', 5, 5], ['behind', '10.64.3.232', '10.1.0.2', 'udp', 5, 5]]
    if kind == 'locals':
        stays[1][1] = '10.64.0.255'
        passes[0][1:3] = '10.64.1.0', '10.1.0.2'
    left.address('lo', '10.1.0.0/32', '10.1.1.243/32')
    right.run('ip route add 10.1.0.0/16 via 192.0.2.1')
    assert Witness(left).takes(right, stays + passes) == names(passes)
    assert left.run('nft list table inet adit-adit0').stdout.count('jump denied-') < 10


def test_reload_replaces_the_rules_at_once(lab):
    """Policies added, removed and added again (conformance 7); an SA of another policy stays as it is."""
    left, right, a = victim(lab, SITE)
    witness = Witness(left)
    more = '[policy more]\npeer = other\nlocal = 10.1.0.0/24\nremote = 10.3.0.0/24\n'
    for added in (more, '', more):
        left.write('adit.ini', f'[host]\n{SITE}{added}')
        a.command('reload')
        stays = {'other source'} if added else set()
        assert witness.takes(right, FORGED + HONEST) == names(HONEST) - stays
    left.write('adit.ini', f'[host]\nfirewall = no\n{SITE}{more}')
    a.command('reload')
    assert witness.takes(right, FORGED + HONEST) == names(FORGED + HONEST)
    assert a.status()['host']['firewall'] == 'no'


def test_it_comes_back_when_another_program_flushes_the_rules(lab):
    """Whoever loads rules of his own begins with `flush ruleset`: by the next look, or reload, ours are there again."""
    left, right, a = victim(lab, SITE)
    witness = Witness(left)
    for look in (lambda: wait_for('the table', lambda: 'it is there again' in a.log(), 20), lambda: a.command('reload')):
        left.run('nft flush ruleset')
        look()
        assert witness.takes(right, FORGED + HONEST) == names(HONEST)
    assert a.stop() == 0
    assert witness.takes(right, FORGED) == names(FORGED)


def test_forwarded_packets_are_held_to_it_too(lab):
    """A gateway: what comes from the wire for the network behind it; what goes to the peer leaves by the tunnel alone."""
    left, right, _ = victim(lab, SITE + '[policy drop]\naction = discard\nlocal = 10.1.0.0/24\nremote = 10.5.0.0/24\n')
    inner = lab.host('inner')
    lab.wire(left, 'eth1', inner, 'eth0')
    left.address('eth1', '10.1.0.254/24')
    inner.address('eth0', '10.1.0.5/24')
    inner.run('ip route add default via 10.1.0.254')
    left.run('ip route add default via 192.0.2.2')
    left.run('sysctl -qw net.ipv4.ip_forward=1')
    witness = Witness(inner)
    right.run(PYTHON, PROBE, 'send', input=json.dumps([
        ['forged', '10.2.0.1', '10.1.0.5', 'udp', 5, 5], ['discarded', '10.5.0.1', '10.1.0.5', 'udp', 5, 5],
        ['honest', '10.3.0.1', '10.1.0.5', 'udp', 5, 5]]))
    witness.process.wait_text('"honest"')
    assert 'forged' not in witness.process.text() and 'discarded' not in witness.process.text()
    sniffer = right.spawn(PYTHON, PROBE, 'sniff', 'eth0', 'probe:')
    sniffer.wait_text('sniffing')
    inner.run(PYTHON, PROBE, 'send', input=json.dumps([
        ['protected', '10.1.0.5', '10.2.0.1', 'udp', 5, 5], ['discarded', '10.1.0.5', '10.5.0.1', 'udp', 5, 5],
        ['honest', '10.1.0.5', '10.3.0.1', 'udp', 5, 5]]))
    sniffer.wait_text('10.3.0.1')
    assert re.findall(r'clear.*', sniffer.text()) == ['clear 10.1.0.5 10.3.0.1']


def test_rules_that_others_take_away(lab):
    """Whoever tidies up routing rules that are not his, as network managers do, finds them there again."""
    left, _, a = victim(lab, SITE, 'address = 10.1.0.9/32')
    rules = [left.run(*ip, 'rule').stdout for ip in (['ip'], ['ip', '-6'])]
    assert rules[0].count('5192:') == rules[1].count('5192:') == rules[0].count('5189:') == 1
    left.run('ip rule del pref 5192')
    left.run('ip rule del pref 5189')
    left.run('ip -6 rule del pref 5192')
    wait_for('the rules', lambda: [left.run(*ip, 'rule').stdout for ip in (['ip'], ['ip', '-6'])] == rules, 5)
    assert 'of the routing rules that lead into the tunnel' in a.log()
    assert a.stop() == 0 and '51' not in left.run('ip rule').stdout


@pytest.mark.parametrize('firewall', ['auto', 'no'])
def test_routes_that_others_overrule(lab, firewall):
    """A routing rule before ours lets nothing out, as the firewall stands behind them."""
    left, right, a = victim(lab, SITE, f'firewall = {firewall}')
    left.run('ip route add default via 192.0.2.2')
    left.run('ip rule add pref 100 lookup main')
    sniffer = right.spawn(PYTHON, PROBE, 'sniff', 'eth0', 'probe:')
    sniffer.wait_text('sniffing')
    left.run(PYTHON, PROBE, 'send', input=json.dumps([
        ['protected', '10.1.0.1', '10.2.0.1', 'udp', 5, 5], ['other', '10.1.0.1', '10.3.0.1', 'udp', 5, 5]]))
    sniffer.wait_text('10.3.0.1')
    assert ('clear 10.1.0.1 10.2.0.1' in sniffer.text()) == (firewall == 'no')


def test_all_traffic_through_a_gateway(lab):
    """With a policy of all remote addresses the host's own networks stay reachable, as routes have it; no other is."""
    left, right, a = victim(lab, f'[peer other]\nendpoint = 192.0.2.2\n{PEER}local = 192.0.2.1, 10.1.0.1\nremote = 0.0.0.0/0\n')
    witness = Witness(left)
    far = [['far', '203.0.113.9', '10.1.0.1', 'udp', 5, 5]]
    near = [['near', '192.0.2.77', '192.0.2.1', 'udp', 5, 5], ['unprotected', '203.0.113.9', '10.1.0.2', 'udp', 5, 5]]
    assert witness.takes(right, far + near) == names(near)
    a.stop(signal.SIGKILL)
    right.run(PYTHON, PROBE, 'send', input=json.dumps(far + near))
    right.run(PYTHON, PROBE, 'send', input=json.dumps([['end', '203.0.113.9', '10.1.0.2', 'udp', 5, 5]]))
    witness.process.wait_text('"end"')
    assert '"far"' not in witness.process.text()


def test_too_many_rules(lab):
    """None at the start, and it is said why; but what is in force is not given up for them."""
    ports = ''.join(f'[policy p{i}]\npeer = other\nlocal = 10.1.0.0/24[tcp/{i}]\nremote = 10.3.0.0/24[tcp]\n'
                    for i in range(1, 8300))
    left, right, a = victim(lab, SITE)
    left.write('adit.ini', SITE + ports)
    refused = a.command('reload', check=False)
    assert refused.returncode == 1 and 'firewall: the policies would take more than 8192 rules' in refused.stderr
    assert a.status()['host']['firewall'] == 'nftables' and a.stop() == 0
    a.start()
    assert "firewall: nftables can't hold these policies (the policies would take more than 8192 rules)" in a.log()
    assert a.status()['host']['firewall'] == 'rp_filter'


def test_where_nftables_is_missing_the_log_says_what_stands_in(lab):
    """As in a container: no right to change the filter. A strict reverse-path filter is left strict, and does it."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.run('ip', 'route', 'add', '10.1.0.0/24', 'via', '192.0.2.1')
    left.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1')
    left.run('ip route add default via 192.0.2.2')
    a = Adit(left, SITE)
    a.process = left.spawn(PYTHON, PROBE, 'without-netfilter', ADIT, 'run', a.ini, log='adit.log')
    a.process.wait_text('ready')
    assert 'firewall: no nftables here (Protocol not supported)' in a.log() and 'loose' not in a.log()
    assert a.status()['host']['firewall'] == 'rp_filter'
    four = [p for p in FORGED + HONEST if '6' not in p[0]]
    assert Witness(left).takes(right, four) == {'other source', 'just below', 'just above'}  # it looks at sources alone
    a.stop()
    a.ini = left.write('peer.ini', SITE.replace('remote = 10.2.0.0/24', 'remote = 10.2.0.0/24, 192.0.2.2'))
    a.process = left.spawn(PYTHON, PROBE, 'without-netfilter', ADIT, 'run', a.ini, log='peer.log')
    a.process.wait_text('ready')
    assert 'has to be loose for these policies' in a.log()


def test_the_tunnels_address_may_be_the_outer_one(lab):
    """What is sealed leaves from that address too: the rule that leads what has it into the tunnel leaves it alone."""
    left, right = lab.pair()
    right.address('lo', '10.2.0.1/32')
    inner = {1: ('local = 192.0.2.1', 'remote = 0.0.0.0/0'), 2: ('local = 0.0.0.0/0', 'remote = 192.0.2.1')}
    a, b = (Adit(host, f'[host]\n{"address = 192.0.2.1/32" if number == 1 else ""}\n[peer other]\nendpoint = 192.0.2.{3 - number}\n'
                       f'{PEER}' + '\n'.join(inner[number]) + '\n').start() for host, number in ((left, 1), (right, 2)))
    a.up('other')
    left.ping('10.2.0.1', 3, source='192.0.2.1')
    counters = a.status()['counters']
    assert (counters['tun_reads'], counters['in_packets']) == (3, 3), 'nothing that is sealed comes to the TUN again'
    left.run('ip rule del pref 5188')
    wait_for('the rule', lambda: 'removed 1 of the routing rules' in a.log(), 20)
    left.ping('10.2.0.1', 3, source='192.0.2.1')
    assert a.stop() == 0 and '51' not in left.run('ip rule').stdout and b.stop() == 0


def bypassing(number, host='', policy=''):
    """The configuration of host 1 or 2, with two bypasses that name ports."""
    other = 3 - number
    return f'''[host]
{host}
[peer other]
endpoint = 192.0.2.{other}
psk      = "correct horse battery staple"
start    = no
[policy web]
action = bypass
local  = 10.{number}.0.0/24, fd0{number}::/64
remote = 10.{other}.0.0/24[tcp/7001], fd0{other}::/64[tcp/7001], 10.{other}.0.0/24[udp/53]
[policy lan]
peer   = other
local  = 10.{number}.0.0/24, fd0{number}::/64
remote = 10.{other}.0.0/24, fd0{other}::/64
{policy}
'''


def in_the_clear(lab, ini):
    """Left with that daemon; right knows nothing of it, and is reached in the clear or not at all."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32', 'fd01::1/128')
    right.address('lo', '10.2.0.1/32', 'fd02::1/128')
    for host, number, via in ((left, 2, 2), (right, 1, 1)):
        host.run(f'ip route add 10.{number}.0.0/24 via 192.0.2.{via}')
        host.run(f'ip route add fd0{number}::/64 via 2001:db8::{via}')
    return left, right, Adit(left, ini).start()


@pytest.mark.parametrize('io', ['uring', 'epoll'])
def test_bypass_that_no_route_can_express(lab, io):
    left, right, a = in_the_clear(lab, bypassing(1, f'io = {io}'))
    for address in '10.2.0.1', 'fd02::1':
        tcp_transfer(left, right, address, 30, port=7001)
    counters = a.status()['counters']
    assert counters['bypassed'] > 20000 and counters['drop_out_bypass'] == 0 and counters['drop_out_send'] == 0
    left.ping('10.2.0.1', 1, check=False, timeout=1)
    assert a.status()['counters']['drop_out_no_sa'] == 1
    sniffer = right.spawn(PYTHON, PROBE, 'sniff', 'eth0', 'probe:')
    sniffer.wait_text('sniffing')
    left.run(PYTHON, PROBE, 'send', input=json.dumps([
        ['protected', '10.1.0.1', '10.2.0.1', 'udp', 5, 54], ['bypass', '10.1.0.1', '10.2.0.1', 'udp', 5, 53]]))
    sniffer.wait_text('clear')
    time.sleep(0.3)
    assert sniffer.text().count('clear 10.1.0.1') == 1


def test_fail_open_passes_in_the_clear_while_there_is_no_sa(lab):
    left, right, a = in_the_clear(lab, bypassing(1, policy='fail-open = yes'))
    left.ping('10.2.0.1', 3)
    left.ping('fd02::1', 3)
    assert a.status()['counters']['bypassed'] == 6
    b = Adit(right, bypassing(2, policy='fail-open = yes')).start()
    a.up('other/lan')
    sniffer = right.spawn('tcpdump', '-n', '-l', '-i', 'eth0', 'icmp')
    sniffer.wait_text('listening')
    left.ping('10.2.0.1', 3)
    sniffer.stop(signal.SIGINT)
    assert '10.2.0.1' not in sniffer.text()
    b.stop(signal.SIGKILL)
    a.stop(signal.SIGKILL)
    for host in left, right:
        assert 'unreachable' not in host.run('ip route show table 5190').stdout
    left.ping('10.2.0.1', 3)


@pytest.mark.parametrize('host_keys, policy', [('', ''), ('firewall = no', ''), ('io = epoll', ''), ('', 'fail-open = yes\n')])
def test_no_marker_in_the_clear(lab, host_keys, policy):
    """
    Start, reload, rekeys, a peer that crashes, our own crash, shutdown: two hosts that reach each other by their routes
    as well, under traffic, and a capture on the wire. With fail-open it is seen at once, or it could not be seen at all.
    """
    link = Exposed(lab)
    left, hosts, seen = link.left, link.hosts, link.seen
    one, two = link.sides
    a, b = (Adit(host, marked(number, 'yes', policy, host_keys), 'ab'[number - 1]) for host, number in hosts)
    a.start()
    one.send()  # while negotiating with nobody there
    if policy:
        wait_for('what goes in the clear', seen)
        return
    time.sleep(1)
    b.start()
    two.send()
    passes(one, two)
    for what in ('other/other', 'other') * 2:  # Child SA and IKE SA
        a.command('rekey', what)
        b.command('rekey', what)
    passes(one, two)
    for more in ('', '[policy more]\npeer = other\nlocal = 10.1.0.0/24\nremote = 10.9.0.0/24\n', ''):
        left.write('a.ini', more + marked(1, 'yes', 'lifetime = 30m\n' if more else '', host_keys))
        a.command('reload')
        passes(one, two)
    b.stop(signal.SIGKILL)  # its routes and rules stay; ours notices
    time.sleep(4)
    b.start()
    passes(one, two)
    a.stop(signal.SIGKILL)
    time.sleep(2)
    a.start()
    passes(one, two)
    a.command('down', 'other')
    time.sleep(1)
    a.up('other')
    passes(one, two)
    b.stop(signal.SIGKILL)
    asked = time.monotonic()
    a.process.popen.send_signal(signal.SIGTERM)  # the peer does not answer, so it waits for two seconds
    time.sleep(1.5)
    found = a.process.running(), seen()
    assert found == (True, []) or time.monotonic() - asked > 2
    assert a.process.popen.wait(20) == 0
    wait_for('the host as it was before', seen, 10)
    assert {line.split()[1] for line in seen()} <= {'10.1.0.1', 'fd01::1'}, 'the peer has crashed and lets nothing out'
