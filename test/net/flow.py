#!/usr/bin/python3
"""A TCP connection at a steady rate, for tests that change the network under it.

flow.py recv ADDR PORT                  takes one; prints JSON: bytes, the longest time without any (s), and when that was
flow.py send ADDR PORT SECONDS MBIT     prints how many bytes it sent
"""

import json
import socket
import sys
import time

CHUNK = 16384
TICK = 0.1


def receive(address, port):
    total, longest, when = 0, 0.0, 0.0
    with socket.create_server((address, port), family=socket.AF_INET6 if ':' in address else socket.AF_INET) as server:
        print('ready', flush=True)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(TICK)
            begin = last = tick = time.monotonic()
            silence, data = 0.0, None
            while data != b'':
                try:
                    data = connection.recv(1 << 20)
                except TimeoutError:
                    data = None
                now = time.monotonic()
                silence += min(now - tick, 2 * TICK)  # more is time in which this program itself did not run
                tick = now
                if data:
                    if silence > longest:
                        longest, when = silence, last - begin
                    silence, last = 0.0, now
                    total += len(data)
    print(json.dumps({'bytes': total, 'longest': round(longest, 2), 'when': round(when, 2)}), flush=True)


def send(address, port, seconds, mbit):
    total, begin = 0, time.monotonic()
    with socket.create_connection((address, port), timeout=60) as connection:
        while (now := time.monotonic() - begin) < seconds:
            if total < now * mbit * 125000:
                connection.sendall(bytes(CHUNK))
                total += CHUNK
            else:
                time.sleep(0.005)
    print(total, flush=True)


if __name__ == '__main__':
    if sys.argv[1] == 'recv':
        receive(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
