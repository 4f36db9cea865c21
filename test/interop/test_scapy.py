"""Scapy opens what we seal, and we open what Scapy seals: every suite that both know (Scapy has no short tags of GCM and no
implicit IVs), in tunnels of all combinations of IP versions and in transport mode. One link has a Child SA for each suite."""

import json
import os
import time

import pytest
from capture import Capture
from netlab import Adit, wait_for
from traffic import PYTHON

HERE = os.path.dirname(os.path.abspath(__file__))
PSK = 'correct horse battery staple'
SIZES, MACS = (128, 192, 256), ('sha1', 'sha256', 'sha384', 'sha512', 'aescmac')
SUITES = ['chacha20poly1305'] + [f'aes{n}{mode}' for n in SIZES for mode in ('gcm16', 'ccm16', 'ccm8')]
SUITES += [f'{cipher}-{mac}' for cipher in ('null', *(f'aes{n}{mode}' for n in SIZES for mode in ('', 'ctr'))) for mac in MACS]
OUTER = {4: ('192.0.2.1', '192.0.2.2'), 6: ('2001:db8::1', '2001:db8::2')}
PORT = 7000
SEND = '''
import json, socket, sys
for source, to, port, text in json.load(sys.stdin):
    s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((source, port))
    s.sendto(text.encode(), (to, port))
'''


class Link:
    """Two daemons with a Child SA for each suite; policy i has the networks, or in transport mode the port, of number i."""

    def __init__(self, lab, outer, transport, esn):
        self.outer, self.transport, self.esn, self.lab = outer, transport, esn, lab
        self.left, self.right = lab.pair()
        self.keys = [os.path.join(h.folder, 'keys') for h in (self.left, self.right)]
        for keys in self.keys:
            os.mkdir(keys, 0o700)
        if not transport:
            for n, h in enumerate((self.left, self.right), 1):
                h.address('lo', *(f'10.{n}.{i}.1/32' for i in range(len(SUITES))))
                h.address('lo', *(f'fd0{n}:0:0:{i:x}::1/128' for i in range(len(SUITES))))
        self.b = Adit(self.right, self.ini(2)).start()
        self.a = Adit(self.left, self.ini(1)).start()
        self.a.up('other')
        wait_for('all Child SAs', lambda: all(len(self.children(x)) == len(SUITES) for x in (self.a, self.b)))

    def side(self, number, i):
        if self.transport:
            return f'{OUTER[self.outer][number - 1]}[udp/{PORT + i}]'
        return f'10.{number}.{i}.0/24, fd0{number}:0:0:{i:x}::/64'

    def ini(self, number):
        other = 3 - number
        text = (f'[host]\nkeylog = {self.keys[number - 1]}\n[peer other]\nendpoint = {OUTER[self.outer][other - 1]}\n'
                f'psk = "{PSK}"\nstart = no\n')
        for i, suite in enumerate(SUITES):
            text += (f'[policy p{i}]\npeer = other\nlocal = {self.side(number, i)}\nremote = {self.side(other, i)}\n'
                     f'esp = {suite}-{self.esn}\n' + 'mode = transport-only\n' * self.transport)
        return text

    @staticmethod
    def children(daemon):
        return daemon.status()['peers'][0]['ike_sas'][0]['children']

    def suites(self):
        """Destination and SPI, which alone may be the same in both directions, to suite."""
        found, (left, right) = {}, OUTER[self.outer]
        for c in self.children(self.a):
            suite = SUITES[int(c['policy'][1:])]
            found[f'{left} {c["spi_in"]}'] = found[f'{right} {c["spi_out"]}'] = suite
        return found

    def pairs(self, i):
        """(family, source, destination, port) of what policy i covers, from left to right."""
        if self.transport:
            return [(self.outer, *OUTER[self.outer], PORT + i)]
        return [(4, f'10.1.{i}.1', f'10.2.{i}.1', PORT), (6, f'fd01:0:0:{i:x}::1', f'fd02:0:0:{i:x}::1', PORT)]

    def codec(self, host, verb, *argv, **more):
        """Runs the codec with a job; its output, in lines."""
        job = {'keys': os.path.join(self.keys[0], 'esp_sa'), 'transport': self.transport, 'esn': self.esn == 'esn',
               'suites': self.suites(), **more}
        path = host.write('job.json', json.dumps(job))
        return host.run(PYTHON, os.path.join(HERE, 'scapy_esp.py'), verb, *argv, path, timeout=120).stdout.splitlines()


KINDS = [(4, False, 'noesn'), (4, False, 'esn'), (6, False, 'noesn'), (6, False, 'esn'), (4, True, 'noesn'), (6, True, 'esn')]
NAMES = [f'{"transport" if t else "tunnel"}-over-ipv{o}-{e}' for o, t, e in KINDS]


@pytest.mark.parametrize('outer,transport,esn', KINDS, ids=NAMES)
def test_scapy_opens_what_we_seal(lab, outer, transport, esn):
    link = Link(lab, outer, transport, esn)
    capture = Capture(link.left)
    want = set()
    for host, back in ((link.left, False), (link.right, True)):
        packets = []
        for i, suite in enumerate(SUITES):
            for family, source, to, port in link.pairs(i):
                text = f'{"back" if back else "there"} {suite}'
                want.add(f'{family} {text}')
                packets.append([to, source, port, text] if back else [source, to, port, text])
        host.run(PYTHON, '-c', SEND, input=json.dumps(packets))
    time.sleep(1)  # what the right end has still to seal
    lines = link.codec(link.left, 'open', capture.end())
    suites, got = link.suites(), set()
    for line in lines:
        to, spi, rest = line.split(' ', 2)
        suite = suites[f'{to} {spi}']
        assert rest.endswith(' ' + suite), f'{suite}: {rest}'
        got.add(rest)
    assert got == want


@pytest.mark.parametrize('outer,transport,esn', KINDS, ids=NAMES)
def test_we_open_what_scapy_seals(lab, outer, transport, esn):
    """Each packet comes out of our TUN once; another with the same number is a replay, and one altered is none of ours."""
    link = Link(lab, outer, transport, esn)
    sniffer = link.left.spawn('tcpdump', '-i', 'adit0', '-n', '-l', '-A', 'udp')
    sniffer.wait_text('listening')
    to_left = {c['policy']: f'{OUTER[outer][0]} {c["spi_in"]}' for c in link.children(link.a)}
    good, replays = [], []
    for i, suite in enumerate(SUITES):
        for family, source, to, port in link.pairs(i):
            number = 500 + family  # far ahead, and another for each
            good.append([to_left[f'p{i}'], to, source, port, number, f'<good {suite} {family}>'])
            replays.append([to_left[f'p{i}'], to, source, port, number, f'<again {suite} {family}>'])
    link.codec(link.right, 'seal', send=good)
    link.codec(link.right, 'seal', send=replays)
    wait_for('all of them', lambda: sniffer.text().count('<good') >= len(good))
    wait_for('all replays', lambda: link.a.status()['counters']['drop_in_replay'] >= len(replays))
    text = sniffer.text()
    for *_, marker in good:
        assert text.count(marker) == 1, marker
    assert '<again' not in text
    counters = link.a.status()['counters']
    assert counters['drop_in_replay'] == len(replays) and counters['drop_in_auth'] == 0
