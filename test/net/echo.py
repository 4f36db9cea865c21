#!/usr/bin/python3
"""Echo requests, all of which are waited for. ping(8) leaves two round-trip times after its last request, whatever -W says,
once it has had an answer: on a busy machine an answer that is merely late counts as lost there.

echo.py ADDR COUNT INTERVAL SIZE TIMEOUT [SOURCE]   prints the answers and "N received"; TIMEOUT is that of the last one
"""

import os
import select
import socket
import struct
import sys
import time


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def request(six, ident, seq, payload):
    kind = 128 if six else 8
    # The kernel sees to the checksum of ICMPv6, which covers addresses.
    cover = 0 if six else checksum(struct.pack('!BBHHH', kind, 0, 0, ident, seq) + payload)
    return struct.pack('!BBHHH', kind, 0, cover, ident, seq) + payload


def answered(sock, six, ident, until):
    """The numbers of the answers that come until then; ends with the first silence after it."""
    while True:
        if not select.select([sock], [], [], max(0, until - time.monotonic()))[0]:
            return
        packet = sock.recv(1 << 17)
        message = packet if six else packet[(packet[0] & 15) * 4:]
        kind, _, _, got, seq = struct.unpack('!BBHHH', message[:8])
        if kind == (129 if six else 0) and got == ident:
            yield seq


def main(to, count, interval, size, timeout, source=None):
    six, ident = ':' in to, os.getpid() & 0xffff
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW,
                         socket.getprotobyname('ipv6-icmp' if six else 'icmp'))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    if source:
        sock.bind((source, 0))
    payload, sent, seen = bytes(i & 0xff for i in range(size)), {}, set()
    for seq in range(1, count + 1):
        sent[seq] = time.monotonic()
        try:
            sock.sendto(request(six, ident, seq, payload), (to, 0))
        except OSError as e:
            print(f'{seq}: {e.strerror}')
        for got in answered(sock, six, ident, sent[seq] + (interval if seq < count else timeout)):
            if got in sent and got not in seen:
                print(f'{got}: {(time.monotonic() - sent[got]) * 1000:.1f} ms')
            seen.add(got)
            if len(seen) == count:
                break
    print(f'{len(seen)} received')


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), *sys.argv[6:])
