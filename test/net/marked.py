#!/usr/bin/python3
"""Datagrams with certain IP headers: marked.py send SOURCE TO PORT DF OPTIONS TOS..., marked.py recv ADDRESS PORT.

send: one datagram for each TOS (a number), its payload the number's place in the list; DF is 0 or 1, for IPv4; OPTIONS are
IP options in hex, or "none". recv prints a line for each: PLACE TOS TTL OPTIONS.
"""

import socket
import struct
import sys

IP_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_PROBE = 10, 0, 3
IP_RECVOPTS, IP_RECVTTL = 6, 12


def sender(source, to, port, df, options, *marks):
    six = ':' in to
    for place, tos in enumerate(marks):
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((source, 0))
            if six:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, int(tos))
            else:
                s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, int(tos))
                s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE if df == '1' else PMTUDISC_DONT)
                if options != 'none':
                    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes.fromhex(options))
            s.sendto(str(place).encode(), (to, int(port)))


def number(data):
    return data[0] if len(data) == 1 else struct.unpack('i', data[:4])[0]


def receiver(address, port):
    six = ':' in address
    level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as s:
        for option in ((socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT) if six else
                       (socket.IP_RECVTOS, IP_RECVTTL, IP_RECVOPTS)):
            s.setsockopt(level, option, 1)
        s.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)  # SO_RCVBUFFORCE
        s.bind((address, int(port)))
        print('ready', flush=True)
        while True:
            data, control, _, _ = s.recvmsg(2000, 1000)
            got = {kind: value for where, kind, value in control if where == level}
            tos = got.get(socket.IPV6_TCLASS if six else socket.IP_TOS, b'\0')
            ttl = got.get(socket.IPV6_HOPLIMIT if six else socket.IP_TTL, b'\0')
            print(data.decode(), number(tos), number(ttl), got.get(IP_RECVOPTS, b'').hex() or 'none', flush=True)


if __name__ == '__main__':
    {'send': sender, 'recv': receiver}[sys.argv[1]](*sys.argv[2:])
