"""What is on the wire, held against the keys that the daemons export: no nonce comes twice under one key."""

import glob
import os
import signal
import socket
import struct

import pytest
from capture import Capture
from netlab import ADIT, Adit, wait_for
from scapy.utils import RawPcapReader  # pylint: disable=import-error

PSK = 'correct horse battery staple'
IV_LEN = {'aes128gcm16': 8, 'chacha20poly1305iiv-noesn': 0, 'aes256-sha256': 16}


def ini(number, keys, esp):
    other = 3 - number
    return (f'[host]\nkeylog = {keys}\nworkers = 2\n[peer other]\nendpoint = 192.0.2.{other}\npsk = "{PSK}"\ndpd = 2s\n'
            f'local = 10.{number}.0.0/24\nremote = 10.{other}.0.0/24\nesp = {esp}\nstart = no\n')


def esp_packets(capture):
    """(source, destination, SPI, what comes after it) of each ESP packet in UDP."""
    for frame, _ in RawPcapReader(capture):
        ip = frame[14:]
        if frame[12:14] != b'\x08\x00' or ip[9] != 17:
            continue
        udp = ip[(ip[0] & 15) * 4:]
        body = udp[8:struct.unpack('!H', udp[4:6])[0]]
        if udp[2:4] == struct.pack('!H', 4500) and len(body) > 8 and body[:4] != bytes(4):
            yield ip[12:16], ip[16:20], body[:4], body[4:]


def keys_of(folders):
    """Destination and SPI to key; a daemon that started anew may give an SPI again, which is the later one's then."""
    found = {}
    for folder in folders:
        with open(os.path.join(folder, 'esp_sa')) as f:
            for line in f:
                _, _, to, spi, _, key, _, _ = line.removeprefix('# ').strip().replace('"', '').split(',')[:8]
                found[socket.inet_aton(to), int(spi, 16).to_bytes(4, 'big')] = key
    return found


class Wire:
    """One life of the daemons after the other, each with a capture of its own; all nonces together."""

    def __init__(self, host, folders, iv_len):
        self.host, self.folders, self.iv_len, self.used, self.last_blocks = host, folders, iv_len, set(), set()
        self.capture = None

    def begin(self):
        self.capture = Capture(self.host)

    def end(self, least):
        """Writes down this life's nonces; how many keys it had."""
        keys, packets, seen_keys = keys_of(self.folders), 0, set()
        for _, to, spi, rest in esp_packets(self.capture.end()):
            key = keys[to, spi]
            iv = rest[4:4 + self.iv_len] or rest[:4]  # an implicit one is the sequence number
            assert (key, iv) not in self.used, f'SPI {spi.hex()}: {iv.hex()} again'
            assert iv not in self.last_blocks, 'an IV that could be foretold'
            self.used.add((key, iv))
            if self.iv_len == 16:
                self.last_blocks.add(rest[-32:-16])  # what a chained IV would be
            seen_keys.add(key)
            packets += 1
        assert packets >= least
        return len(seen_keys)


@pytest.mark.parametrize('esp', IV_LEN)
def test_no_nonce_twice(lab, esp):
    left, right = lab.pair()
    folders = []
    for number, h in enumerate((left, right), 1):
        h.address('lo', f'10.{number}.0.1/32')
        h.run('ip', 'link', 'set', 'eth0', 'gso_max_segs', '1')  # a frame for each packet
        folders.append(os.path.join(h.folder, 'keys'))
        os.mkdir(folders[-1], 0o700)
    a, b = Adit(left, ini(1, folders[0], esp)).start(), Adit(right, ini(2, folders[1], esp)).start()
    wire = Wire(left, folders, IV_LEN[esp])

    def traffic():
        left.ping('10.2.0.1', 50, interval=0.002, source='10.1.0.1')
        right.ping('10.1.0.1', 50, interval=0.002, source='10.2.0.1')

    def rekeys():
        for what in ('other/other', 'other'):
            for daemons in ((a,), (b,), (a, b)):
                begun = [d.host.spawn(ADIT, 'rekey', what) for d in daemons]
                traffic()
                for p in begun:
                    p.popen.wait(60)
                traffic()

    def alone():
        """No process has a child that could seal with the same keys."""
        for d in (a, b):
            for path in glob.glob(f'/proc/{d.process.pid}/task/*/children'):
                with open(path) as f:
                    assert not f.read().strip()

    wire.begin()
    a.up('other')
    traffic()
    rekeys()
    alone()
    assert wire.end(2000) >= 2 * 4
    for victim, how in ((a, signal.SIGTERM), (b, signal.SIGKILL), (a, signal.SIGKILL)):
        victim.stop(how)
        wire.begin()
        victim.start()
        victim.up('other')
        wait_for('traffic', lambda: left.ping('10.2.0.1', 1, check=False, timeout=1, source='10.1.0.1'))
        traffic()
        victim.command('rekey', 'other/other')
        traffic()
        assert wire.end(400) >= 4
