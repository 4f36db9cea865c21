"""
Long runs against strongSwan: rekeys of each side and of both at once under traffic, deletes, crashes of either.

ADIT_LONG says how many seconds each run with rekeys lasts, where 40 and 35 are too short: ADIT_LONG=240 pytest -s -k "lifetimes or rekeys"
"""

import os
import re
import signal
import time
from contextlib import ExitStack

import pytest
from netlab import Adit, Failed, Lab, StrongSwan, wait_for
from traffic import Stream, nothing_lost

PSK = 'correct horse battery staple'
CHILDREN = ('one', 'two')
ENDS = ('adit', 'strongswan')
ADIT_AT = '192.0.2.1'
LONG = int(os.environ.get('ADIT_LONG', '0'))


def swanctl(ike='', child=''):
    children = '\n'.join(f'{name} {{\nlocal_ts = 10.2.{i}.0/24\nremote_ts = 10.1.{i}.0/24\n{child}\n}}'
                         for i, name in enumerate(CHILDREN))
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = 192.0.2.2
            remote_addrs = {ADIT_AT}
            {ike}
            local {{ auth = psk
                id = right.example }}
            remote {{ auth = psk
                id = left.example }}
            children {{ {children} }}
        }} }}
        secrets {{ ike-1 {{ secret = "{PSK}" }} }}
        '''


def ini(peer='', policy=''):
    return (f'[host]\nid = left.example\n[peer strong]\nendpoint = 192.0.2.2\nid = right.example\npsk = "{PSK}"\n{peer}\n' +
            ''.join(f'[policy {name}]\npeer = strong\nlocal = 10.1.{i}.0/24\nremote = 10.2.{i}.0/24\n{policy}\n'
                    for i, name in enumerate(CHILDREN)))


def pair(lab, ours=('', ''), theirs=('', '')):
    left, right = lab.pair()
    left.address('lo', *(f'10.1.{i}.1/32' for i in range(len(CHILDREN))))
    right.address('lo', *(f'10.2.{i}.1/32' for i in range(len(CHILDREN))))
    a = Adit(left, ini(*ours)).start()
    # It drops an answer that has the number of the request which it is just answering: so it had better ask again soon.
    return a, StrongSwan(right, swanctl(*theirs), 'retransmit_timeout = 1.0').start()


def streams(a, s, tool, seconds, rate=500):
    """Each Child SA both ways."""
    return [Stream(tool, source, sink, f'10.{net}.{i}.1', rate=rate, seconds=seconds, port=7000 + 10 * net + i)
            for i in range(len(CHILDREN)) for source, sink, net in ((a.host, s.host, 2), (s.host, a.host, 1))]


def reach(a, s, i):
    return (a.host.ping(f'10.2.{i}.1', 1, check=False, timeout=1, source=f'10.1.{i}.1') and
            s.host.ping(f'10.1.{i}.1', 1, check=False, timeout=1, source=f'10.2.{i}.1'))


def reach_all(a, s, children=len(CHILDREN)):
    return all(reach(a, s, i) for i in range(children))


# -- what is there --

def ours(a, sending=False):
    """
    The IKE SAs and Child SAs that adit has, or sends on, as pairs of SPIs: (received on, sent to). An IKE SA that it is
    deleting may ask a minute longer for an answer: strongSwan forgets one in some collisions.
    """
    sas = [sa for sa in a.status()['peers'][0]['ike_sas'] if sa['state'] == 'established']
    return (sorted((sa['spi_i'], sa['spi_r']) for sa in sas),
            sorted((int(c['spi_in'], 16), int(c['spi_out'], 16)) for sa in sas for c in sa['children']
                   if c['sending'] or not sending))


def theirs(s):
    """The same of strongSwan, seen from adit's side, without what it keeps some seconds after it is deleted."""
    ikes, children, state = [], [], None
    for line in s.swanctl('--list-sas').stdout.splitlines():
        ike = re.match(r'peer: #\d+, ESTABLISHED, IKEv2, ([0-9a-f]{16})_i\*? ([0-9a-f]{16})_r', line)
        child = re.match(r'  \w+: #\d+, reqid \d+, (\w+)', line)
        spi = re.match(r'    (in|out) +([0-9a-f]{8}),', line)
        if ike:
            ikes.append(ike.groups())
        elif child:
            state = child[1]
        elif spi and state == 'INSTALLED' and spi[1] == 'in':
            children.append((None, int(spi[2], 16)))
        elif spi and state == 'INSTALLED':
            children[-1] = int(spi[2], 16), children[-1][1]
    return sorted(ikes), sorted(children)


def settled(a, s, children):
    """One IKE SA, one Child SA for each policy, and the same ones at both ends: nothing is left over."""
    mine = ours(a)
    return [len(kind) for kind in mine] == [1, children] and mine == theirs(s)


def wait_settled(a, s, children=len(CHILDREN), seconds=30):
    try:
        wait_for('the ends to settle', lambda: settled(a, s, children), seconds, 0.5)
    except Failed as e:
        raise Failed(f'{e}: {ours(a)} and {theirs(s)}\n{a.log()[-3000:]}\n{s.swanctl("--list-sas").stdout}') from None


class Rekeys:
    """How many rekeys there were, by who began them."""

    def __init__(self, a, s):
        mine, other = a.log(), s.log()
        self.child = {'adit': len(re.findall(r'Child SA of policy \S+ is rekeyed \(', mine)),
                      'strongswan': mine.count('is rekeyed by the peer')}
        # A request for the first one may come twice, or before it has its configuration: it accepts one of them.
        first = other.count('generating IKE_SA_INIT response 0 [ SA ')
        self.ike = {'adit': other.count(f'{ADIT_AT} is initiating an IKE_SA') - first,
                    'strongswan': other.count('initiating IKE_SA peer[')}

    def __str__(self):
        return f'rekeys of Child SAs {self.child}, of the IKE SA {self.ike}'


# -- a killed end that comes back and waits --

def abandon(lab, who):
    """
    A link one end of which has been killed and is back, but leaves it to the other to notice; with how many Child SAs.
    strongSwan has one only: restarting several it gives two of them the same reqid, and sends nothing on the first.
    """
    if who == 'adit':
        a, s = pair(lab, ('start = no', ''), ('dpd_delay = 2s', 'dpd_action = restart'))
        s.initiate(CHILDREN[0])
    else:
        a, s = pair(lab, ('dpd = 2s', ''))
    children = 1 if who == 'adit' else len(CHILDREN)
    wait_settled(a, s, children)
    for i in range(children):
        a.host.spawn('ping', '-n', '-q', '-i', '0.2', '-I', f'10.1.{i}.1', f'10.2.{i}.1', log=f'ping{i}.log')
        s.host.spawn('ping', '-n', '-q', '-i', '0.2', '-I', f'10.2.{i}.1', f'10.1.{i}.1', log=f'ping{i}.log')
    assert reach_all(a, s, children)
    kill_and_start(a, s, who)
    return a, s, children, time.monotonic()


@pytest.fixture(scope='module')
def abandoned():
    """Noticing takes a minute of retransmissions: so it begins with the first test, and the last ones look at the end."""
    if os.geteuid() != 0:
        pytest.skip('network namespaces need root')
    with ExitStack() as stack:
        yield {who: abandon(stack.enter_context(Lab()), who) for who in ENDS}


def kill_and_start(a, s, who):
    if who == 'adit':
        a.stop(signal.SIGKILL)
        time.sleep(1)
        a.start()
    else:
        s.process.stop(signal.SIGKILL)
        os.unlink(f'{s.host.folder}/vici')
        time.sleep(1)
        s.start()


# -- the tests --

@pytest.mark.usefixtures('abandoned')
def test_lifetimes_of_each_side(udp_rate):
    """Short lifetimes of one end, long ones of the other; both kinds of link at once, under traffic: no datagram is lost."""
    seconds = max(40, LONG)
    short = {'adit': (('rekey = 11s', 'lifetime = 5s'), ('rekey_time = 60m', 'rekey_time = 60m')),
             'strongswan': (('rekey = 1h', 'lifetime = 1h'), ('rekey_time = 11s\nrand_time = 1s\nover_time = 60s',
                                                             'rekey_time = 5s\nrand_time = 1s\nlife_time = 60s'))}
    with ExitStack() as stack:
        links = {who: pair(stack.enter_context(Lab()), *short[who]) for who in ENDS}
        flows = {}
        for who, (a, s) in links.items():
            wait_settled(a, s)
            flows[who] = streams(a, s, udp_rate, seconds, rate=300)
        time.sleep(seconds)
        for who, (a, s) in links.items():
            sent, other = nothing_lost(flows[who], s), ENDS[who == 'adit']
            rekeys = Rekeys(a, s)
            print(f'short lifetimes of {who}: {sent} datagrams; {rekeys}')
            assert sent > seconds * 4 * 250
            assert rekeys.child[who] >= 2 * (seconds // 7) and rekeys.ike[who] >= seconds // 14
            assert rekeys.child[other] == 0 and rekeys.ike[other] == 0
            assert 'is down' not in a.log()
            wait_settled(a, s)
            assert reach_all(a, s)
            assert a.stop() == 0


def test_rekeys_by_both_sides_at_once(lab, udp_rate):
    """
    strongSwan rekeys every few seconds by itself, and both do at the same moment by command, so that rekeys of one Child
    SA, of the IKE SA, and of both kinds collide. Not one datagram is lost.
    """
    # A slow group keeps an exchange going for a while, so that requests cross also on a wire without delay.
    a, s = pair(lab, ('ike = aes256-sha256-modp4096\nrekey = 20s\nstart = no', 'esp = aes256gcm16-modp4096\nlifetime = 20s'),
                ('proposals = aes256-sha256-modp4096\nrekey_time = 7s\nrand_time = 0s\nover_time = 60s',
                 'esp_proposals = aes256gcm16-modp4096\nrekey_time = 4s\nrand_time = 0s\nlife_time = 60s'))
    a.up('strong')
    assert reach_all(a, s)
    seconds, began = max(35, LONG), time.monotonic()
    flows = streams(a, s, udp_rate, seconds)
    turn = 0
    while time.monotonic() - began < seconds - 3:
        what = CHILDREN[turn % 3] if turn % 3 < 2 else None
        if not what:
            time.sleep(2)  # it would forget a rekey of a Child SA that it is still asking about
        # Which of the two is a little earlier changes; what the other has done already may be refused.
        command = s.host.spawn('swanctl', '--rekey', *(['--child', what] if what else ['--ike', 'peer']), '--uri',
                               f'unix://{s.host.folder}/vici', log='rekey.log')
        time.sleep(turn % 5 * 0.01)
        a.command('rekey', f'strong/{what}' if what else 'strong', check=False)
        wait_for('swanctl', lambda p=command: not p.running(), 30)
        time.sleep(1)
        turn += 1
    sent, rekeys = nothing_lost(flows, s), Rekeys(a, s)
    collisions = len(re.findall('detected .* collision with', s.log()))
    print(f'{sent} datagrams; {rekeys}, {collisions} collisions seen by strongSwan')
    assert sent > seconds * 4 * 400
    assert min(*rekeys.child.values(), *rekeys.ike.values(), collisions) > 0
    assert 'is down' not in a.log()
    # What lost a collision waits up to 90 s for the Delete of whoever made it, and strongSwan 5.9 forgets some.
    wait_settled(a, s, seconds=120)
    assert reach_all(a, s)
    assert a.stop() == 0


@pytest.mark.parametrize('who', ENDS)
def test_crash_under_traffic(lab, who):
    """
    kill -9, and a start some seconds later: who was killed connects again and says so (INITIAL_CONTACT), and the other
    drops what it had. Traffic of all Child SAs comes back by itself, from both sides.
    """
    a, s = pair(lab, ('start = yes' if who == 'adit' else 'start = no', ''), ('', 'start_action = start' if who == 'strongswan' else ''))
    wait_settled(a, s)
    pingers = [a.host.spawn('ping', '-n', '-q', '-i', '0.05', '-I', f'10.1.{i}.1', f'10.2.{i}.1') for i in range(len(CHILDREN))]
    for _ in range(2):
        before = ours(a)
        kill_and_start(a, s, who)
        began = time.monotonic()
        wait_for('traffic after the crash', lambda: reach_all(a, s), 60)
        print(f'{who} killed: traffic {time.monotonic() - began:.1f} s after the restart')
        wait_settled(a, s)
        assert not set(before[0]) & set(ours(a)[0])
    for p in pingers:
        p.stop(signal.SIGINT)
    assert a.stop() == 0


@pytest.mark.parametrize('who', ENDS)
def test_one_of_several_children_deleted(lab, udp_rate, who):
    """The others lose nothing; what was deleted comes back on request, by either side."""
    a, s = pair(lab, ('start = no', ''))
    a.up('strong')
    assert reach_all(a, s)
    flow = Stream(udp_rate, a.host, s.host, '10.2.0.1', rate=500, seconds=6)
    for _ in range(2):
        if who == 'adit':
            a.command('down', 'strong/two')
        else:
            s.swanctl('--terminate', '--child', 'two')
        assert a.host.ping('10.2.1.1', 1, check=False, timeout=1, source='10.1.1.1') == 0
        assert reach(a, s, 0)
        if who == 'adit':
            s.initiate('two')
        else:
            a.command('up', 'strong/two')
        assert reach_all(a, s)
    assert nothing_lost([flow], s) > 2000
    wait_settled(a, s)


@pytest.mark.parametrize('who', ENDS)
def test_a_dead_end_is_noticed(abandoned, who):
    """Liveness: the survivor finds that nobody knows its SAs any more, and sets them up anew."""
    a, s, children, began = abandoned[who]
    wait_for('traffic after the crash', lambda: reach_all(a, s, children), max(10, 110 - (time.monotonic() - began)), 0.5)
    wait_settled(a, s, children)
    if who == 'strongswan':
        assert 'does not answer' in a.log()
    else:
        assert 'giving up after 3 retransmits' in s.log()
    assert a.stop() == 0
