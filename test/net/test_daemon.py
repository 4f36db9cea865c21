"""The daemon on a host that changes under it: signals, and addresses that come and go."""

import json
import select
import signal
import socket
import time

import pytest
from netlab import Adit, wait_for

INI = '''[host]
id = {me}
[peer other]
endpoint = {endpoint}
id       = {other}
psk      = "correct horse battery staple"
start    = {start}
local    = 10.{number}.0.0/24
remote   = 10.{remote}.0.0/24
'''


def daemons(lab):
    """The left calls the right on demand, which takes it from anywhere."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    a = Adit(left, INI.format(me='left', other='right', endpoint='192.0.2.2', start='on-demand', number=1, remote=2))
    b = Adit(right, INI.format(me='right', other='left', endpoint='%any', start='no', number=2, remote=1))
    return a.start(), b.start()


def answers(a):
    return a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1')


@pytest.mark.parametrize('last', [signal.SIGQUIT, signal.SIGINT])
def test_no_signal_ends_it_with_its_routes_in_place(lab, last):
    a, _ = daemons(lab)
    for one in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE):
        a.process.popen.send_signal(one)
    time.sleep(0.2)
    assert a.process.running() and a.status()['ok']
    assert a.stop(last) == 0
    assert 'unreachable' not in a.host.run('ip -4 route show table all').stdout


def test_new_address_is_called_from(lab):
    """An attempt from the address that a lease took away would fail for ever."""
    a, _ = daemons(lab)
    a.host.run('ip', 'address', 'del', '192.0.2.1/24', 'dev', 'eth0')
    a.host.run('ip', 'address', 'add', '192.0.2.9/24', 'dev', 'eth0')
    time.sleep(16)
    wait_for('traffic from the new address', lambda: answers(a), 60)


def test_protected_address_may_come_late_and_change(lab):
    """The host's own packets into the tunnel have the source that their policy covers, whenever the host gets it."""
    a, _ = daemons(lab)
    a.host.run('ip', 'address', 'del', '10.1.0.1/32', 'dev', 'lo')
    for address in '10.1.0.7', '10.1.0.9':
        a.host.address('lo', f'{address}/32')
        wait_for(f'answers to {address}', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1), 10)
        assert f'src {address}' in a.host.run('ip', 'route', 'get', '10.2.0.1').stdout
        a.host.run('ip', 'address', 'del', f'{address}/32', 'dev', 'lo')


@pytest.mark.parametrize('io', ['uring', 'epoll'])
def test_a_device_deleted_under_it_ends_it_with_a_reason(lab, io):
    """
    What it needs is gone for good: it says so and exits 1, for a supervisor to start it anew. Until then all stays closed,
    as after a crash; nothing is left when it has run again.
    """
    left, _ = lab.pair()
    ini = INI.format(me='left', other='right', endpoint='192.0.2.2', start='no', number=1, remote=2)
    a = Adit(left, ini.replace('[host]', f'[host]\nio = {io}')).start()
    left.run('ip link del adit0')
    wait_for('the daemon to end', lambda: not a.process.running(), 60)
    assert a.process.popen.returncode == 1
    assert "can't go on" in a.log()
    assert 'stays closed' in a.log() and left.run('ip route show table 5190').stdout.startswith('unreachable 10.2.0.0/')
    assert not left.run('find /run/adit -type s').stdout
    a.start()
    assert a.stop() == 0
    assert '5190' not in left.run('ip route show table all').stdout + left.run('ip rule').stdout
    assert 'adit' not in left.run('nft list tables').stdout


def test_too_many_addresses_to_follow_are_told_of_once(lab):
    a, _ = daemons(lab)
    a.host.run('sh', '-c', 'for i in $(seq 1 250); do ip address add 10.50.0.$i/32 dev eth0; done')
    a.host.run('sh', '-c', 'for i in $(seq 1 50); do ip address add 10.51.0.$i/32 dev eth0; done')
    wait_for('a warning', lambda: 'too many addresses' in a.log(), 20)
    a.host.address('eth0', '10.52.0.1/32')
    time.sleep(2)
    assert a.log().count('too many addresses') == 1
    wait_for('traffic all the same', lambda: answers(a), 10)


MANY = [f"""[peer p{i}]
endpoint = 192.0.2.2
id       = p{i}
psk      = "correct horse battery staple"
start    = no
local    = 10.1.0.0/24
remote   = 10.64.{i >> 8}.{i & 255}
""" for i in range(4000)]


class Asker:
    """A connection to the control socket, for one request after the other; answers may be waited for later."""

    def __init__(self, a):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f'/proc/{a.host.holder.pid}/root/run/adit/adit0.sock')
        self.lines = self.socket.makefile()

    def say(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b'\n')
        return self

    def answered(self):
        return bool(select.select([self.socket], [], [], 0)[0])

    def answer(self):
        return json.loads(self.lines.readline())


def test_while_a_reload_is_read_others_go_on_and_the_old_one_is_in_force(lab):
    left, _ = lab.pair()
    a = Adit(left, '[host]\nid = left\nroutes = no\n' + ''.join(MANY)).start()
    first, second, third, other = (Asker(a) for _ in range(4))
    left.write('adit.ini', '[host]\nid = left\nroutes = no\n' + ''.join(MANY[:3000]))
    first.say(command='reload')
    other.say(command='up', peer='nobody')
    assert 'no peer' in other.answer()['error']
    assert len(other.say(command='status').answer()['peers']) == 4000 or first.answered()
    # Who asks while one is under way may have written the file since that was read: it is read again, once for both.
    left.write('adit.ini', '[host]\nid = left\nroutes = no\n' + ''.join(MANY[:20]))
    second.say(command='reload')
    third.say(command='reload')
    assert first.answer()['ok'] and second.answer()['ok'] and third.answer()['ok']
    status = other.say(command='status').answer()
    assert [p['name'] for p in status['peers']] == [f'p{i}' for i in range(20)]
    assert a.log().count(' loaded: ') in (2, 3)
    left.write('adit.ini', '[host]\nnonsense = 1\n' + ''.join(MANY))
    refused = first.say(command='reload').answer()
    assert not refused['ok'] and 'nonsense' in refused['errors'][0]
    assert len(other.say(command='status').answer()['peers']) == 20
    assert a.stop() == 0


def test_an_end_in_the_midst_of_a_reload(lab):
    left, _ = lab.pair()
    a = Adit(left, '[host]\nid = left\nroutes = no\n' + MANY[0]).start()
    left.write('adit.ini', '[host]\nid = left\nroutes = no\n' + ''.join(MANY))
    for delay in (0, 0.05, 0.1, 0.15):
        asker = Asker(a).say(command='reload')
        Asker(a).say(command='status', brief=True).answer()  # what was asked before has been heard
        time.sleep(delay)
        assert a.stop() == 0
        assert asker.answered() and (delay or not asker.answer()['ok'])
        a.start()


def test_a_status_that_is_read_slowly_goes_on_over_a_reload(lab):
    """Those who are there before and after are listed once each, those who come or go at most once."""
    left, _ = lab.pair()
    a = Adit(left, '[host]\nid = left\nroutes = no\n' + ''.join(MANY)).start()
    asker, other = Asker(a), Asker(a)
    asker.say(command='status')
    asker.lines.read(200000)
    left.write('adit.ini', '[host]\nid = left\nroutes = no\n' + ''.join(MANY[100:200] + MANY[300:3900]))
    assert other.say(command='reload').answer()['ok']
    asker.socket.close()
    slow = Asker(a).say(command='status')
    text = slow.lines.read(150000)
    left.write('adit.ini', '[host]\nid = left\nroutes = no\n' + ''.join(MANY[150:200] + MANY[300:3950]))
    assert other.say(command='reload').answer()['ok']
    peers = [p['name'] for p in json.loads(text + slow.lines.readline())['peers']]
    assert len(set(peers)) == len(peers)
    assert set(peers) >= {f'p{i}' for i in [*range(150, 200), *range(300, 3950)]}


def test_thousands_of_policies_hold_nobody_up(lab):
    """Routes, their sources and the MTU follow a change while the control thread stays there for others."""
    left, _ = lab.pair()
    left.address('lo', '10.1.0.1/32')
    peers = MANY
    a = Adit(left, '[host]\nid = left\n' + ''.join(peers)).start()

    def routes(source):
        return left.run('ip route show table 5190').stdout.count(f'dev adit0 proto 90 scope link src {source}')

    assert routes('10.1.0.1') == len(peers)
    left.address('lo', '10.1.0.9/32')
    left.run('ip address del 10.1.0.1/32 dev lo')
    wait_for('the new source', lambda: routes('10.1.0.9') == len(peers), 10)
    left.run('ip link set eth0 mtu 1400')
    wait_for('the MTU of 1400 less the overhead', lambda: ' mtu 13' in left.run('ip link show adit0').stdout, 10)
    print(f'longest turn of the control thread: {a.status()["turn_max_us"]} us')
    left.write('adit.ini', '[host]\nid = left\nlog = info\n' + ''.join(peers[:10]))
    a.command('reload')
    wait_for('the routes of those who went to go', lambda: routes('10.1.0.9') == 10, 10)
    assert left.run('ip route show table 5190').stdout.count('unreachable') == 10


@pytest.mark.parametrize('addresses', ['10.9.0.1/24', '10.9.0.1/24, fd00:9::1/64'])
def test_a_reload_that_fails_halfway_takes_back_what_it_added(lab, addresses):
    """All of a configuration is put in force or nothing, on the host too. Here IPv6 into the tunnel is impossible."""
    left, _ = lab.pair()
    ini = INI.format(me='left', other='right', endpoint='192.0.2.2', start='no', number=1, remote=2)
    a = Adit(left, ini).start()
    left.run('sysctl -q net.ipv6.conf.adit0.disable_ipv6=1')

    def host():
        return [left.run(f'ip {what}').stdout for what in ('address show dev adit0', 'route show table 5190', '-6 route show table all')]

    before = host()
    left.write('adit.ini', ini.replace('[host]', f'[host]\naddress = {addresses}').replace(
        'remote   = 10.2.0.0/24', 'remote   = 10.2.0.0/24, 10.3.0.0/24, fd00:2::/64'))
    done = a.command('reload', check=False)
    assert done.returncode == 1 and 'fd00:' in done.stderr
    assert host() == before
    left.run('sysctl -q net.ipv6.conf.adit0.disable_ipv6=0')
    a.command('reload')
    address, route4, route6 = host()
    assert '10.9.0.1/24' in address and '10.3.0.0/24 dev adit0' in route4 and 'fd00:2::/64 dev adit0' in route6
