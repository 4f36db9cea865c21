"""MOBIKE (RFC 4555) between two daemons: hosts that lose the address, the link or the path in use."""

import re
import signal
import time

import pytest
from netlab import LEFT, RIGHT, Adit, wait_for
from traffic import Transfer

PSK = 'correct horse battery staple'


def ini(number, more='', host=''):
    """The configuration of host 1 (left, which connects) or 2 (right, which takes its peer from anywhere)."""
    here, there = ('left', 'right') if number == 1 else ('right', 'left')
    other = 3 - number
    return (f'[host]\n{host}\n[peer other]\nendpoint = {RIGHT[0] if number == 1 else "%any"}\nid = {there}.example\n'
            f'local-id = {here}.example\npsk = "{PSK}"\nlocal = 10.{number}.0.0/24\nremote = 10.{other}.0.0/24\n'
            f'start = {"yes" if number == 1 else "no"}\n{more}\n')


def tunnel(lab, more='', host=''):
    left, middle, right = lab.crossing()
    b = Adit(right, ini(2, more)).start()
    a = Adit(left, ini(1, more, host)).start()
    a.up('other')
    left.ping('10.2.0.1', 2, source='10.1.0.1')
    return a, middle, b


def ike(daemon):
    found = daemon.status()['peers'][0]['ike_sas']
    assert len(found) == 1
    return found[0]


def identity(daemon):
    """What a move must not change."""
    sa = ike(daemon)
    return sa['spi_i'], sa['spi_r'], {spi for c in sa['children'] for spi in (c['spi_in'], c['spi_out'])}


class Pinger:
    """Echoes every 10 ms; tells the longest time without an answer."""

    def __init__(self, host, to, source):
        self.process = host.spawn('ping', '-n', '-D', '-i', '0.01', '-I', source, to)
        self.process.wait_text('bytes from')

    def gap(self):
        self.process.stop(signal.SIGINT)
        times = [float(t) for t in re.findall(r'^\[([\d.]+)\] \d+ bytes from', self.process.text(), re.M)]
        return max(b - a for a, b in zip(times, times[1:]))


CHANGES = {
    'address deleted at the initiator': ('left', f'ip addr del {LEFT[0]}/24 dev eth0', (LEFT[1], RIGHT[0]), 10),
    'link down at the initiator': ('left', 'ip link set eth0 down', (LEFT[1], RIGHT[0]), 10),
    'carrier lost at the initiator': ('middle', 'ip link set m10 down', (LEFT[1], RIGHT[0]), 10),
    'better route at the initiator': ('left', 'ip route add default via 198.51.100.254 metric 5', (LEFT[1], RIGHT[0]), 10),
    'address deleted at the responder': ('right', f'ip addr del {RIGHT[0]}/24 dev eth0', (LEFT[0], RIGHT[1]), 10),
    'path silent, found by liveness': ('middle', 'ip route add blackhole 203.0.113.1/32', (LEFT[0], RIGHT[1]), 60),
}


@pytest.mark.parametrize('change', CHANGES)
def test_transfer_survives(lab, change, capsys):
    where, command, (here, there), patience = CHANGES[change]
    a, middle, b = tunnel(lab, 'dpd = 2s')
    before = identity(a)
    assert before == identity(b) and ike(a)['mobike'] and ike(b)['mobike']
    pinger = Pinger(a.host, '10.2.0.1', '10.1.0.1')
    transfer = Transfer(a.host, b.host, '10.2.0.1', 1000)
    time.sleep(0.3)
    {'left': a.host, 'middle': middle, 'right': b.host}[where].run(command)
    assert transfer.client.running(), 'the change came in the middle of the transfer'
    wait_for('the move', lambda: ike(a)['local'] == f'{here}:4500' and ike(a)['remote'] == f'{there}:4500' and
             ike(b)['local'] == f'{there}:4500' and ike(b)['remote'] == f'{here}:4500', 60)
    transfer.done()
    time.sleep(0.2)
    gap = pinger.gap()
    assert identity(a) == identity(b) == before, 'the same SAs as before'
    for child in (ike(a)['children'][0], ike(b)['children'][0]):
        assert {child['local_endpoint'], child['remote_endpoint']} == {f'{here}:4500', f'{there}:4500'}
    assert re.search(rf'ike-moved: IKE SA with other moved from {LEFT[0]}:4500 - {RIGHT[0]}:4500 to {here}:4500 - {there}:4500',
                     a.log())
    with capsys.disabled():
        print(f'\n{change}: {gap * 1000:.0f} ms without an answer')
    assert gap < patience
    assert a.stop() == 0 and b.stop() == 0


def test_both_ends_move_at_once(lab):
    a, _, b = tunnel(lab)
    before = identity(a)
    a.host.run('ip', 'addr', 'del', f'{LEFT[0]}/24', 'dev', 'eth0')
    b.host.run('ip', 'addr', 'del', f'{RIGHT[0]}/24', 'dev', 'eth0')
    wait_for('traffic', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), 60)
    assert identity(a) == identity(b) == before
    assert ike(a)['local'] == f'{LEFT[1]}:4500' and ike(a)['remote'] == f'{RIGHT[1]}:4500'


def test_back_and_forth_and_a_time_without_any_address(lab):
    a, _, b = tunnel(lab)
    before = identity(a)
    for _ in range(2):
        a.host.run('ip', 'link', 'set', 'eth0', 'down')
        a.host.run('ip', 'link', 'set', 'eth1', 'down')
        time.sleep(1)
        for link, address in ((0, LEFT[0]), (1, LEFT[1])):
            net = address.rsplit('.', 1)[0]
            a.host.run('ip', 'link', 'set', f'eth{link}', 'up')
            a.host.run('ip', 'route', 'add', 'default', 'via', f'{net}.254', 'metric', str(100 + link))
            wait_for('traffic', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), 60)
        a.host.ping('10.2.0.1', 3, source='10.1.0.1')
    assert identity(a) == identity(b) == before


def test_peer_without_mobike_is_called_anew_at_once(lab):
    a, _, b = tunnel(lab, 'mobike = no')
    before = identity(a)
    assert not ike(a)['mobike']
    began = time.monotonic()
    a.host.run('ip', 'addr', 'del', f'{LEFT[0]}/24', 'dev', 'eth0')
    # For a moment there is none.
    wait_for('the new SA', lambda: any(sa['local'] == f'{LEFT[1]}:4500' and sa['state'] == 'established'
                                       for sa in a.status()['peers'][0]['ike_sas']), 14)
    assert time.monotonic() - began < 15, 'not found by liveness, after half a minute and more'
    wait_for('traffic', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'), 60)
    assert identity(a) != before and "can't move from 192.0.2.1 to 198.51.100.1 without MOBIKE" in a.log()
    assert identity(a) == identity(b)


def test_only_addresses_of_listen_are_announced_and_used(lab):
    """Bound to one address, there is none to move to."""
    a, _, _ = tunnel(lab, host=f'listen = {LEFT[0]}')
    a.host.run('ip', 'route', 'add', 'default', 'via', '198.51.100.254', 'metric', '5')
    time.sleep(1)
    assert ike(a)['local'] == f'{LEFT[0]}:4500'
    assert 'ike-moved' not in a.log()
