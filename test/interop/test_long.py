"""Long runs against strongSwan: rekeys of both sides at once for a minute, deletes and crashes, with several Child SAs."""

import os
import re
import signal
import time

import pytest
from netlab import Adit, StrongSwan, wait_for
from traffic import Stream

PSK = 'correct horse battery staple'
CHILDREN = ('one', 'two')


def swanctl(ike='', child=''):
    children = '\n'.join(f'{name} {{\nlocal_ts = 10.2.{i}.0/24\nremote_ts = 10.1.{i}.0/24\n{child}\n}}'
                         for i, name in enumerate(CHILDREN))
    return f'''
        connections {{ peer {{
            version = 2
            local_addrs = 192.0.2.2
            remote_addrs = 192.0.2.1
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
    s = StrongSwan(right, swanctl(*theirs)).start()
    return Adit(left, ini(*ours)).start(), s


def streams(a, s, tool, seconds, rate=500):
    """Each Child SA both ways."""
    return [Stream(tool, source, sink, f'10.{net}.{i}.1', rate=rate, seconds=seconds, port=7000 + 10 * net + i)
            for i in range(len(CHILDREN)) for source, sink, net in ((a.host, s.host, 2), (s.host, a.host, 1))]


def reach(a, s, i):
    return (a.host.ping(f'10.2.{i}.1', 1, check=False, timeout=1, source=f'10.1.{i}.1') and
            s.host.ping(f'10.1.{i}.1', 1, check=False, timeout=1, source=f'10.2.{i}.1'))


def reach_all(a, s):
    return all(reach(a, s, i) for i in range(len(CHILDREN)))


def test_a_minute_of_rekeys_by_both_sides(lab, udp_rate):
    """
    strongSwan rekeys every few seconds by itself, and both do at the same moment by command, so that rekeys of one Child
    SA, of the IKE SA, and of both kinds collide. Not one datagram is lost: the wire itself loses none.
    """
    # A slow group keeps an exchange going for a while, so that requests cross also on a wire without delay.
    a, s = pair(lab, ('ike = aes256-sha256-modp4096\nrekey = 20s\nstart = no', 'esp = aes256gcm16-modp4096\nlifetime = 20s'),
                ('proposals = aes256-sha256-modp4096\nrekey_time = 7s\nrand_time = 0s\nover_time = 60s',
                 'esp_proposals = aes256gcm16-modp4096\nrekey_time = 4s\nrand_time = 0s\nlife_time = 60s'))
    a.up('strong')
    assert reach_all(a, s)
    seconds, began = 60, time.monotonic()
    flows = streams(a, s, udp_rate, seconds)
    turn = 0
    while time.monotonic() - began < seconds - 3:
        what = CHILDREN[turn % 3] if turn % 3 < 2 else None
        # Which of the two is a little earlier changes; what the other has done already may be refused.
        theirs = s.host.spawn('swanctl', '--rekey', *(['--child', what] if what else ['--ike', 'peer']), '--uri',
                              f'unix://{s.host.folder}/vici', log='rekey.log')
        time.sleep(turn % 5 * 0.01)
        a.command('rekey', f'strong/{what}' if what else 'strong', check=False)
        wait_for('swanctl', lambda p=theirs: not p.running(), 30)
        time.sleep(1)
        turn += 1
    counts = [flow.done() for flow in flows]
    sent, got = (sum(c[i] for c in counts) for i in (0, 1))
    children, ikes = (len(re.findall(p, a.log())) for p in ('Child SA of policy.* is rekeyed', 'IKE SA with strong is rekeyed'))
    collisions = len(re.findall('detected .* collision with', s.log()))
    print(f'{sent} datagrams sent, {sent - got} lost; {children} rekeys of Child SAs, {ikes} of the IKE SA, '
          f'{collisions} collisions seen by strongSwan')
    assert sent > 60 * 4 * 400 and got == sent, f'{counts}'
    assert children > 15 and ikes > 6 and collisions > 1
    assert a.log().count('is down') == 0
    wait_for('the ends to settle', lambda: s.swanctl('--list-sas').stdout.count('ESTABLISHED') == 1, 30)
    assert reach_all(a, s)
    assert a.stop() == 0


@pytest.mark.parametrize('who', ['adit', 'strongswan'])
def test_crash_under_traffic(lab, who):
    """kill -9, and a start some seconds later: traffic of all Child SAs comes back by itself, from both sides."""
    a, s = pair(lab, ('dpd = 2s', ''), ('dpd_delay = 2s', 'start_action = trap|start\ndpd_action = restart'))
    wait_for('the tunnel', lambda: reach_all(a, s), 20)
    pingers = [a.host.spawn('ping', '-n', '-q', '-i', '0.05', '-I', f'10.1.{i}.1', f'10.2.{i}.1') for i in range(len(CHILDREN))]
    for _ in range(2):
        if who == 'adit':
            a.stop(signal.SIGKILL)
            time.sleep(2)
            a.start()
        else:
            s.process.stop(signal.SIGKILL)
            os.unlink(f'{s.host.folder}/vici')
            time.sleep(2)
            s.start()
        began = time.monotonic()
        wait_for('traffic after the crash', lambda: reach_all(a, s), 60)
        print(f'{who} killed: traffic {time.monotonic() - began:.1f} s after the restart')
        time.sleep(3)
        assert reach_all(a, s), 'and it stays'
    for p in pingers:
        p.stop(signal.SIGINT)
    assert a.stop() == 0


@pytest.mark.parametrize('who', ['adit', 'strongswan'])
def test_one_of_several_children_deleted(lab, udp_rate, who):
    """The others lose nothing; what was deleted comes back on request, by either side."""
    a, s = pair(lab, ('start = no', ''))
    a.up('strong')
    assert reach_all(a, s)
    flow = Stream(udp_rate, a.host, s.host, '10.2.0.1', rate=500, seconds=8)
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
    sent, got = flow.done()
    assert got == sent > 3000, f'{got} of {sent}'
    assert s.swanctl('--list-sas').stdout.count('INSTALLED') == 2
