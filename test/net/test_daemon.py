"""The daemon on a host that changes under it: signals, and addresses that come and go."""

import signal
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
    """What it needs is gone for good: it says so, takes everything down and exits 1, for a supervisor to start it anew."""
    left, _ = lab.pair()
    ini = INI.format(me='left', other='right', endpoint='192.0.2.2', start='no', number=1, remote=2)
    a = Adit(left, ini.replace('[host]', f'[host]\nio = {io}')).start()
    left.run('ip link del adit0')
    wait_for('the daemon to end', lambda: not a.process.running(), 60)
    assert a.process.popen.returncode == 1
    assert "can't go on" in a.log()
    assert 'table 5190' not in left.run('ip route show table all').stdout + left.run('ip rule').stdout
    assert not left.run('find /run/adit -type s').stdout


def test_too_many_addresses_to_follow_are_told_of_once(lab):
    a, _ = daemons(lab)
    a.host.run('sh', '-c', 'for i in $(seq 1 250); do ip address add 10.50.0.$i/32 dev eth0; done')
    a.host.run('sh', '-c', 'for i in $(seq 1 50); do ip address add 10.51.0.$i/32 dev eth0; done')
    wait_for('a warning', lambda: 'too many addresses' in a.log(), 20)
    a.host.address('eth0', '10.52.0.1/32')
    time.sleep(2)
    assert a.log().count('too many addresses') == 1
    wait_for('traffic all the same', lambda: answers(a), 10)
