#!/usr/bin/python3
"""A bulk transfer whose content can be told: every 64 bytes hold a marker.

transfer.py recv ADDR PORT            takes one connection; prints bytes and SHA-256 of what came
transfer.py send ADDR PORT MEGABYTES  prints the same of what it sent
"""

import hashlib
import socket
import sys

MARKER = b'PLAINTEXT-MARKER-of-adit'
CHUNK = 1 << 20


def chunk(index):
    row = MARKER + index.to_bytes(8, 'big')
    return (row + bytes(64 - len(row))) * (CHUNK // 64)


def receive(address, port):
    digest, total = hashlib.sha256(), 0
    with socket.create_server((address, port), family=socket.AF_INET6 if ':' in address else socket.AF_INET) as server:
        print('ready', flush=True)
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(CHUNK):
                digest.update(data)
                total += len(data)
    print(total, digest.hexdigest(), flush=True)


def send(address, port, megabytes):
    digest = hashlib.sha256()
    with socket.create_connection((address, port), timeout=60) as connection:
        for i in range(megabytes):
            data = chunk(i)
            digest.update(data)
            connection.sendall(data)
    print(megabytes * CHUNK, digest.hexdigest(), flush=True)


if __name__ == '__main__':
    if sys.argv[1] == 'recv':
        receive(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
