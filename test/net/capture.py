"""A capture of what passes a device, which is whole when it ends: tcpdump drops what it has not read when it is stopped."""

import os
import signal
import subprocess

from netlab import wait_for

LAST = b'the last frame of this capture'
# An experimental EtherType (IEEE 802): no SA, no policy and no filter for IP knows it.
SEND = ('import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); '
        f's.sendto(b"\\xff" * 6 + bytes(6) + b"\\x88\\xb5" + {LAST!r}, (sys.argv[1], 0))')


class Capture:
    """Of a host's device, in the file .path; more are options of tcpdump."""

    def __init__(self, host, dev='eth0', *more):
        self.host, self.dev = host, dev
        self.path = os.path.join(host.folder, f'{dev}-{len(host.processes)}.pcap')
        self.sniffer = host.spawn('tcpdump', '-i', dev, '-n', '--immediate-mode', '-U', '-Z', 'root', '-B', '16384', *more,
                                  '-w', self.path)
        self.sniffer.wait_text('listening')

    def bytes(self, begin=0):
        with open(self.path, 'rb') as f:
            f.seek(begin)
            return f.read()

    def end(self, last=None):
        """
        With all that passed before. last: what only the last packet to wait for holds; without, a frame of its own is sent,
        which is not for a TUN: that takes IP only.
        """
        begin = 0
        if last is None:
            last, begin = LAST, os.path.getsize(self.path)
            self.host.run('/usr/bin/python3', '-c', SEND, self.dev)
        wait_for('the end of the capture', lambda: last in self.bytes(begin))
        self.sniffer.stop(signal.SIGINT)
        return self.path

    def fields(self, display, *names):
        """Of the packets that a display filter of tshark shows: the first of each of these fields."""
        argv = ['tshark', '-r', self.path, '-Y', display, '-T', 'fields', '-E', 'occurrence=f']
        argv += [a for name in names for a in ('-e', name)]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
        return [line.split('\t') for line in lines]

    def count(self, display):
        return len(self.fields(display, 'frame.number'))
