"""Two hosts that reach each other by their routes as well, and a capture of the wire: what is not protected is seen."""

import os
import re
import signal
import time

from netlab import wait_for

PYTHON = '/usr/bin/python3'
HERE = os.path.dirname(os.path.abspath(__file__))
MARKER = os.path.join(HERE, 'marker.py')
PROBE = os.path.join(HERE, 'probe.py')


def marked(number, start, policy='', host=''):
    other = 3 - number
    return (f'[host]\n{host}\n[peer other]\nendpoint = 192.0.2.{other}\npsk = "correct horse battery staple"\n'
            f'start = {start}\ndpd = 2s\nlocal = 10.{number}.0.0/24, fd0{number}::/64\n'
            f'remote = 10.{other}.0.0/24, fd0{other}::/64\n{policy}')


class Side:
    """One end of a link between 10.1.0.1 (fd01::1) and 10.2.0.1 (fd02::1), with traffic that never pauses."""

    def __init__(self, host, number):
        self.host, self.number, self.senders = host, number, []

    def send(self):
        for net in '10.{}.0.1', 'fd0{}::1':
            self.senders.append(self.host.spawn(PYTHON, MARKER, net.format(self.number), net.format(3 - self.number)))

    def quiet(self):
        for s in self.senders:
            s.stop(signal.SIGKILL)
        self.senders = []

    def counts(self):
        """What came so far by UDP and TCP of each IP version."""
        lines = [re.findall(r'^(\d+) (\d+)$', s.text(), re.M) for s in self.senders]
        return [int(n) for found in lines for n in (found[-1] if found else (0, 0))]


def passes(*sides):
    """All kinds of traffic come in at each of these now, or soon."""
    time.sleep(0.6)  # what is counted from then on came after this was asked
    before = [s.counts() for s in sides]
    wait_for('traffic of every kind both ways', lambda: all(
        now > then for s, b in zip(sides, before) for now, then in zip(s.counts(), b)), 60)


class Exposed:
    """The two hosts of a lab, their sides of the link, and what was seen in the clear of it."""

    def __init__(self, lab):
        self.left, self.right = lab.pair()
        self.hosts = (self.left, 1), (self.right, 2)
        for host, number in self.hosts:
            host.address('lo', f'10.{number}.0.1/32', f'fd0{number}::1/128')
            self.route(host, number)
        self.sides = [Side(*h) for h in self.hosts]
        self.wires = [host.spawn(PYTHON, PROBE, 'sniff', 'eth0', 'plaintext-marker') for host, _ in self.hosts]
        for w in self.wires:
            w.wait_text('sniffing')

    @staticmethod
    def route(host, number):
        """As the host's own configuration has it; whatever of it is there already stays."""
        host.run(f'ip route replace 10.{3 - number}.0.0/24 via 192.0.2.{3 - number}')
        host.run(f'ip route replace fd0{3 - number}::/64 via 2001:db8::{3 - number}')

    def seen_so_far(self):
        """How many lines seen() has of all that has left by now: a datagram that no policy protects comes behind it."""
        def last():
            return [w.text().count(' 192.0.2.255') for w in self.wires]
        before = last()
        self.left.run(PYTHON, '-c', 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); '
                      's.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); s.sendto(b"plaintext-marker", ("192.0.2.255", 9))')
        wait_for('the sniffers', lambda: all(now > then for now, then in zip(last(), before)))
        return len(self.seen())

    def seen(self):
        return [line for w in self.wires for line in w.text().split('\n') if line.startswith('clear')]
