#!/usr/bin/python3
"""Numbered datagrams: which of them arrive, and which twice.

numbered.py recv ADDR PORT              until a line is read or the input ends: "N arrived, N twice, N altered"
numbered.py send ADDR PORT COUNT SIZE RATE [SOURCE]
"""

import hashlib
import select
import socket
import sys
import time


def body(number, size):
    head = number.to_bytes(4, 'big')
    return (head + hashlib.sha256(head).digest() * (size // 32 + 1))[:size]


def udp(address):
    return socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)


def receive(address, port):
    s, seen, twice, altered = udp(address), set(), 0, 0
    s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    s.bind((address, int(port)))
    print('ready', flush=True)
    while sys.stdin not in (ready := select.select([s, sys.stdin], [], [])[0]) or s in ready:
        if s in ready:
            data = s.recv(65535)
            number = int.from_bytes(data[:4], 'big')
            altered += data != body(number, len(data))
            twice += number in seen
            seen.add(number)
    print(f'{len(seen)} arrived, {twice} twice, {altered} altered', flush=True)


def send(address, port, count, size, rate, source=None):
    s, began = udp(address), time.monotonic()
    if source:
        s.bind((source, 0))
    for i in range(int(count)):
        s.sendto(body(i, int(size)), (address, int(port)))
        wait = began + i / int(rate) - time.monotonic()
        if wait > 0.001:
            time.sleep(wait)
        began += max(-wait - 0.1, 0)  # a pause is not made up for: that burst could be more than queues hold


{'recv': receive, 'send': send}[sys.argv[1]](*sys.argv[2:])
