#!/usr/bin/python3
"""A bad wire between two hosts that know only this one: what comes from one goes to the other, mostly.

relay.py NEAR FAR LOSS DUPLICATION REORDERING SEED
        NEAR and FAR are OURS=THEIRS, an address of this host and the one of a peer on that side; of a thousand datagrams
        so many are lost, doubled, and held back until some later ones have passed.
Prints "ready"; at SIGTERM "NEAR-TO-FAR ESP: in out" and the same back, counting ESP alone.
"""

import random
import selectors
import signal
import socket
import sys

PORTS = (500, 4500)
BUFFER = 8 << 20
HELD_MOST = 20  # how many others overtake what is held back


class Way:
    """One direction of one port."""

    def __init__(self, come, go, to, counts, rates, rng):
        self.come, self.go, self.to, self.counts, self.rates, self.rng = come, go, to, counts, rates, rng
        self.held = []  # [how many more pass before it, datagram]

    def send(self, data):
        if len(data) > 8 and data[:4] != bytes(4) and self.to[1] == 4500:
            self.counts[1] += 1
        self.go.sendto(data, self.to)

    def pass_on(self, data):
        self.counts[0] += len(data) > 8 and data[:4] != bytes(4) and self.to[1] == 4500
        loss, duplication, reordering = self.rates
        dice = self.rng.randrange(1000)
        if dice >= loss:
            if self.rng.randrange(1000) < reordering:
                self.held.append([self.rng.randrange(1, HELD_MOST), data])
            else:
                self.send(data)
            if self.rng.randrange(1000) < duplication:
                self.held.append([self.rng.randrange(1, HELD_MOST), data])
        for h in self.held:
            h[0] -= 1
        for h in [h for h in self.held if h[0] <= 0]:
            self.held.remove(h)
            self.send(h[1])

    def flush(self):
        for _, data in self.held:
            self.send(data)
        self.held = []


def bound(address, port):
    s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
    s.setsockopt(socket.SOL_SOCKET, 32, BUFFER)  # SO_SNDBUFFORCE
    s.bind((address, port))
    s.setblocking(False)
    return s


def main(near, far, loss, duplication, reordering, seed):
    (ours_near, near), (ours_far, far) = near.split('='), far.split('=')
    rng, rates = random.Random(int(seed)), (int(loss), int(duplication), int(reordering))
    counts = ([0, 0], [0, 0])
    chosen = selectors.DefaultSelector()
    for port in PORTS:
        a, b = bound(ours_near, port), bound(ours_far, port)
        chosen.register(a, selectors.EVENT_READ, Way(a, b, (far, port), counts[0], rates, rng))
        chosen.register(b, selectors.EVENT_READ, Way(b, a, (near, port), counts[1], rates, rng))
    going = True

    def stop(*_):
        nonlocal going
        going = False
    signal.signal(signal.SIGTERM, stop)
    print('ready', flush=True)
    while going:
        events = chosen.select(0.05)
        for key, _ in events:
            for _ in range(64):
                try:
                    key.data.pass_on(key.data.come.recv(65535))
                except BlockingIOError:
                    break
        if not events:  # nothing comes that could overtake them
            for key in chosen.get_map().values():
                key.data.flush()
    for name, n in zip(('near-to-far', 'far-to-near'), counts):
        print(f'{name} ESP: {n[0]} {n[1]}', flush=True)


main(*sys.argv[1:])
