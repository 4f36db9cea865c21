"""Daemons that run out of descriptors, and daemons killed at every stage: traffic, recovery, and nothing in the clear."""

import json
import os
import re
import resource
import signal
import socket
import time

import pytest
from capture import Capture
from netlab import ADIT, Adit, wait_for
from traffic import Stream

PSK = 'correct horse battery staple'


def ini(number, host='', peer='dpd = 2s'):
    other = 3 - number
    return (f'[host]\n{host}\n[peer other]\nendpoint = 192.0.2.{other}\npsk = "{PSK}"\n'
            f'local = 10.{number}.0.0/24\nremote = 10.{other}.0.0/24\n{peer}\n')


def hosts(lab):
    """Without the tunnel each would send to the other in the clear: there is a route."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    left.run('ip', 'route', 'add', 'default', 'via', '192.0.2.2')
    right.run('ip', 'route', 'add', 'default', 'via', '192.0.2.1')
    return left, right


def passes(a, b):
    return (a.host.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1') and
            b.host.ping('10.1.0.1', 1, check=False, timeout=1, source='10.2.0.1'))


# -- descriptors --

class Client:
    """A connection to the control socket, from outside of the daemon's namespaces."""

    def __init__(self, daemon):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(f'/proc/{daemon.process.pid}/root/run/adit/adit0.sock')
        self.file = self.socket.makefile('rw')

    def ask(self, **request):
        self.file.write(json.dumps(request) + '\n')
        self.file.flush()
        return json.loads(self.file.readline())

    def close(self):
        self.file.close()
        self.socket.close()


def flood(daemon, n):
    """As many connections as the socket takes, each with a request; the rest is refused by the kernel."""
    taken = []
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect(f'/proc/{daemon.process.pid}/root/run/adit/adit0.sock')
            s.send(b'{"command": "status"}\n')
            taken.append(s)
        except OSError:
            s.close()
    return taken


def limit_descriptors(daemon, more):
    """The daemon may have so many more than it has; None: as many as it likes."""
    pid = daemon.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir(f'/proc/{pid}/fd'))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard if more is None else highest + 1 + more, hard))


@pytest.mark.parametrize('io', ['uring', 'epoll'])
@pytest.mark.parametrize('more', [0, 3])
def test_no_descriptor_left(lab, udp_rate, io, more):
    """Traffic and rekeys go on, whoever is connected is served, who comes waits; the log says so once."""
    left, right = hosts(lab)
    b = Adit(right, ini(2, f'io = {io}')).start()
    a = Adit(left, ini(1, f'io = {io}')).start()
    a.up('other')
    left.ping('10.2.0.1', 1, source='10.1.0.1')
    seconds, client = 8, Client(a)
    assert client.ask(command='status')['ok']
    flows = [Stream(udp_rate, left, right, '10.2.0.1', seconds=seconds), Stream(udp_rate, right, left, '10.1.0.1', seconds=seconds)]
    used = a.process.cpu()
    limit_descriptors(a, more)
    crowd = flood(a, 100)
    assert len(crowd) > more
    waiting = left.spawn(ADIT, 'status')
    wait_for('the log', lambda: 'Too many open files' in a.log(), 5)
    for _ in range(3):
        assert client.ask(command='rekey', peer='other', policy='other')['ok']
        refused = client.ask(command='reload')
        assert not refused['ok'] and 'Too many open files' in json.dumps(refused)
        a.process.popen.send_signal(signal.SIGHUP)
        crowd += flood(a, 100)
        time.sleep(1)
    assert waiting.running(), 'who comes later waits'
    assert len(re.findall('another client.*Too many open files', a.log())) == 1
    for flow in flows:
        sent, got = flow.done()
        assert sent > 10000 and got == sent, f'{got} of {sent} datagrams arrived'
    assert a.process.cpu() - used < seconds / 2, 'it turns and turns in vain'
    limit_descriptors(a, None)
    for s in crowd:
        s.close()
    wait_for('the answer to who waited', lambda: not waiting.running(), 15)
    assert waiting.popen.returncode == 0 and 'other' in waiting.text()
    a.command('reload')
    assert a.status()['ok']
    left.ping('10.2.0.1', 2, source='10.1.0.1')
    assert (a.stop(), b.stop()) == (0, 0)


# -- kill -9 --

EXCHANGES = {'IKE_SA_INIT': 34, 'IKE_AUTH': 35, 'child rekey': 36, 'IKE rekey': 36, 'delete': 37}
MARKER = b'plaintext marker'


class Freeze:
    """One half of an exchange (its requests, or its responses) does not arrive any more, at either host."""

    def __init__(self, hosts_, exchange, half):
        self.hosts, rules = hosts_, []
        for port, marker in ((500, 0), (4500, 32)):  # behind the UDP header, and the non-ESP marker
            zero = '@th,64,32 0 ' if marker else ''
            rules.append(f'udp dport {port} {zero}@th,{64 + marker + 18 * 8},8 {exchange} '
                         f'@th,{64 + marker + 19 * 8},8 & 0x20 == {0x20 if half == "response" else 0} counter drop')
        text = 'table inet freeze {\n chain in {\n type filter hook input priority -300\n' + '\n'.join(rules) + '\n}\n}\n'
        for h in self.hosts:
            h.run('nft', '-f', h.write('freeze.nft', text))

    def dropped(self):
        return any(re.search(r'packets [1-9]', h.run('nft list table inet freeze').stdout) for h in self.hosts)

    def thaw(self):
        for h in self.hosts:
            h.run('nft delete table inet freeze')


class Watch:
    """Both hosts keep sending a marker; it must never be on the wire."""

    def __init__(self, left, right):
        self.capture = Capture(right)
        self.pingers = [h.spawn('ping', '-n', '-i', '0.02', '-p', MARKER.hex(), '-I', source, to, log='marker.log')
                        for h, source, to in ((left, '10.1.0.1', '10.2.0.1'), (right, '10.2.0.1', '10.1.0.1'))]

    def done(self):
        for p in self.pingers:
            p.stop(signal.SIGINT)
        self.capture.end()
        wire = self.capture.bytes()
        assert len(wire) > 5000 and MARKER not in wire
        for p in self.pingers:
            assert ' 0 received' not in p.text(), 'some pings went through the tunnel'


@pytest.mark.parametrize('victim', ['initiator', 'responder'])
@pytest.mark.parametrize('half', ['request', 'response'])
@pytest.mark.parametrize('stage', list(EXCHANGES))
def test_killed_at_each_stage(lab, stage, half, victim):
    """Whoever is killed while an exchange is half done: both recover when it is back, and nothing leaves in the clear."""
    left, right = hosts(lab)
    b = Adit(right, ini(2, peer='dpd = 2s\nstart = no')).start()
    a = Adit(left, ini(1, peer='dpd = 2s\nstart = no')).start()
    watch = Watch(left, right)
    connecting = stage in ('IKE_SA_INIT', 'IKE_AUTH')
    if not connecting:
        a.up('other')
    # Whoever starts anew, starts by itself.
    left.write('adit.ini', ini(1))
    right.write('adit.ini', ini(2))
    freeze = Freeze((left, right), EXCHANGES[stage], half)
    command = {'child rekey': ['rekey', 'other/other'], 'IKE rekey': ['rekey', 'other'], 'delete': ['down', 'other']}
    left.spawn(ADIT, *command.get(stage, ['up', 'other']))
    wait_for('the exchange to stick', freeze.dropped)
    killed = a if victim == 'initiator' else b
    killed.stop(signal.SIGKILL)
    time.sleep(0.5)
    freeze.thaw()
    time.sleep(0.5)
    began = time.monotonic()
    killed.start()
    wait_for('traffic after the restart', lambda: passes(a, b), 30)
    print(f'{stage}, {half} lost, {victim} killed: traffic {time.monotonic() - began:.1f} s after the restart')
    time.sleep(1)
    watch.done()
    assert (a.stop(), b.stop()) == (0, 0)
