"""Packets as no honest host sends them, each with a name in its payload, and a witness that tells which ones a host took.

probe.py send: reads a JSON list of [NAME, SOURCE, DESTINATION, PROTOCOL, more...] and sends them past all filters of this
host: "udp", "tcp" and "fragments" (UDP in IPv6, cut up) with SOURCE-PORT, DESTINATION-PORT; "icmp" and "icmpv6" with TYPE, CODE; "quote" and "quote6", an
ICMP error that quotes a UDP packet with SOURCE-PORT, DESTINATION-PORT; "too-big", one that quotes an IPv6 fragment of
PROTOCOL-NUMBER, OFFSET, SOURCE-PORT, DESTINATION-PORT; any other is a protocol's number.
probe.py watch: prints "NAME" for each one that gets past this host's filters.
probe.py sniff DEVICE MARKER: prints each address pair between which the marker is seen on the wire in the clear.
probe.py without-netfilter PROGRAM...: runs it where the kernel knows no netfilter, as far as it can tell.
"""

import ctypes
import json
import os
import platform
import re
import select
import socket
import struct
import sys

MARK = b'probe:%s;'


def built(name, source, destination, protocol, *more):
    from scapy.all import ICMP, IP, IPv6, TCP, UDP, Raw, raw
    from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6Unknown, IPv6ExtHdrFragment
    six = ':' in source
    payload = Raw(MARK % name.encode())
    if protocol in ('udp', 'tcp'):
        inner = {'udp': UDP, 'tcp': TCP}[protocol](sport=more[0], dport=more[1]) / payload
    elif protocol == 'icmp':
        inner = ICMP(type=more[0], code=more[1]) / payload
    elif protocol == 'icmpv6':
        inner = ICMPv6Unknown(type=more[0], code=more[1], msgbody=MARK % name.encode())
    elif protocol == 'quote':
        inner = ICMP(type=3, code=4) / IP(src=destination, dst=source) / UDP(sport=more[0], dport=more[1]) / payload
    elif protocol == 'quote6':
        inner = ICMPv6DestUnreach() / IPv6(src=destination, dst=source) / UDP(sport=more[0], dport=more[1]) / payload
    elif protocol == 'too-big':
        cut_up = IPv6ExtHdrFragment(nh=more[0], offset=more[1], m=1)
        inner = ICMPv6PacketTooBig() / IPv6(src=destination, dst=source) / cut_up / Raw(struct.pack('>HH', *more[2:])) / payload
    else:
        return raw((IPv6(src=source, dst=destination, nh=int(protocol)) if six else
                    IP(src=source, dst=destination, proto=int(protocol))) / payload)
    return raw((IPv6 if six else IP)(src=source, dst=destination) / inner)


def cut(name, source, destination, _, sport, dport):
    from scapy.all import UDP, IPv6, Raw, raw
    from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6
    whole = IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(id=7) / UDP(sport=sport, dport=dport) / Raw(MARK % name.encode() * 200)
    return [raw(f) for f in fragment6(whole, 1280)]


def send():
    four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for probe in json.load(sys.stdin):
        try:
            for packet in cut(*probe) if probe[3] == 'fragments' else [built(*probe)]:
                (six if ':' in probe[2] else four).sendto(packet, (probe[2], 0))
        except PermissionError:
            pass  # this host's own filter has dropped it
    print('sent')


def watch():
    protocols = [(socket.AF_INET, p) for p in (1, 6, 17, 47, 50, 51)] + [(socket.AF_INET6, p) for p in (6, 17, 47, 58)]
    sockets = [socket.socket(family, socket.SOCK_RAW, p) for family, p in protocols]
    print('watching', flush=True)
    names = []
    while True:
        # Told together when no more is there: whoever reads one of them may count on all that came before.
        ready = select.select(sockets, [], [], 0 if names else None)[0]
        for s in ready:
            names += re.findall(rb'probe:([^;]*);', s.recv(65536))
        if not ready:
            print('\n'.join(f'"{name.decode()}"' for name in names), flush=True)
            names = []


def sniff(device, marker):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    wire.bind((device, 3))
    print('sniffing', flush=True)
    while True:
        packet = wire.recv(65536)
        if marker.encode() in packet:
            ends = (packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])
            print('clear', *(socket.inet_ntop(socket.AF_INET if len(a) == 4 else socket.AF_INET6, a) for a in ends), flush=True)


def without_netfilter(*argv):
    """A filter of system calls (seccomp): socket(AF_NETLINK, any, NETLINK_NETFILTER) is EPROTONOSUPPORT."""
    call = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
    load, equal, end = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    code = [(load, 0, 0, 0), (equal, 0, 5, call), (load, 0, 0, 16), (equal, 0, 3, 16), (load, 0, 0, 32), (equal, 0, 1, 12),
            (end, 0, 0, 0x00050000 | 93), (end, 0, 0, 0x7fff0000)]
    program = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *c) for c in code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(22, 2, struct.pack('=H6xQ', len(code), ctypes.addressof(program))):  # PR_SET_SECCOMP, a filter
        raise OSError(ctypes.get_errno(), 'prctl')
    os.execv(argv[0], argv)


{'without-netfilter': without_netfilter, 'send': send, 'watch': watch, 'sniff': sniff}[sys.argv[1]](*sys.argv[2:])
