"""Traffic that can be told on the wire: marker.py SOURCE DESTINATION sends datagrams with a marker, answers those that come,
and connects by TCP to send more of it, over and over, whatever goes wrong; it prints how many came, four times a second."""

import select
import socket
import sys
import time

MARKER = b'plaintext-marker;' * 8
PORT = 7100
source, destination = sys.argv[1:]


def family():
    return socket.AF_INET6 if ':' in source else socket.AF_INET


def bound(kind, port=0):
    s = socket.socket(family(), kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((source, port))
    s.setblocking(False)
    return s


udp, listener = bound(socket.SOCK_DGRAM, PORT), bound(socket.SOCK_STREAM, PORT)
listener.listen()
calling, taken, came, streamed = None, [], 0, 0
told = tried = 0.0
while True:
    now = time.monotonic()
    try:
        udp.sendto(MARKER, (destination, PORT))
    except OSError:
        pass
    if now - tried > 0.1:  # a call that is not answered at once is made anew: each of them could leave in the clear
        tried = now
        if calling:
            calling.close()
            calling = None
        try:
            calling = bound(socket.SOCK_STREAM)
            calling.connect_ex((destination, PORT))
        except OSError:
            pass  # the address may be away for a while
    ready, writable, _ = select.select([udp, listener, *taken], [calling] if calling else [], [], 0.003)
    for s in ready:
        try:
            if s is listener:
                taken.append(s.accept()[0])
            elif s is udp:
                came += s.recvfrom(2048)[0] == MARKER
            else:
                got = len(s.recv(65536))
                streamed += got
                if not got:
                    raise OSError
        except OSError:
            if s in taken:
                s.close()
                taken.remove(s)
    if writable:
        try:
            calling.send(MARKER)
        except OSError:
            pass
        time.sleep(0.003)
    if now - told > 0.25:
        told = now
        print(came, streamed, flush=True)
