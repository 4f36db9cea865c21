"""Scapy's AH layer as an independent codec, in both directions."""

import os
import re
import subprocess
import time

import pytest
from capture import Capture
from netlab import Adit
from traffic import PYTHON

HERE = os.path.dirname(os.path.abspath(__file__))
OUTER = {4: ('192.0.2.1', '192.0.2.2'), 6: ('2001:db8::1', '2001:db8::2')}
INNER = {4: ('10.1.0.1', '10.2.0.1'), 6: ('fd01::1', 'fd02::1')}


def ini(number, family, mode, suite, keylog):
    own, other = OUTER[family][number - 1], OUTER[family][2 - number]
    far = 3 - number
    nets = (f'local = 10.{number}.0.0/24, fd0{number}::/64\nremote = 10.{far}.0.0/24, fd0{far}::/64\n' if mode == 'tunnel' else
            f'local = {own}\nremote = {other}\nmode = transport-only\n')
    return (f'[host]\nkeylog = {keylog}\n[peer other]\nendpoint = {other}\npsk = "correct horse battery staple"\nstart = no\n'
            f'{nets}ah = {suite}\n')


def captured(lab, family, mode, suite):
    """SAs of AH with some traffic: the capture file, and the keys of the left host."""
    ends = lab.pair()
    for i, end in enumerate(ends):
        end.address('lo', f'{INNER[4][i]}/32', f'{INNER[6][i]}/128')
        os.mkdir(os.path.join(end.folder, 'keys'), 0o700)
    capture = Capture(ends[0])
    a, _ = (Adit(end, ini(i + 1, family, mode, suite, os.path.join(end.folder, 'keys'))).start() for i, end in enumerate(ends))
    a.up('other')
    for size in (100, 1000):
        if mode == 'transport':
            ends[0].ping(OUTER[family][1], 3, size)
        else:
            for inner in (4, 6):
                ends[0].ping(INNER[inner][1], 3, size, source=INNER[inner][0])
        a.command('rekey', 'other/other')
    return capture.end(), os.path.join(ends[0].folder, 'keys', 'esp_sa')


EVERY = [(4, 'tunnel', 'sha256', 'noesn'), (4, 'tunnel', 'sha384', 'esn'), (4, 'tunnel', 'sha1', 'noesn'),
         (4, 'transport', 'sha512', 'esn'), (4, 'transport', 'aescmac', 'noesn'), (6, 'tunnel', 'sha512', 'esn'),
         (6, 'tunnel', 'aescmac', 'noesn'), (6, 'transport', 'sha256', 'esn'), (6, 'transport', 'sha384', 'noesn')]


@pytest.mark.parametrize('family,mode,suite,esn', EVERY)
def test_scapy_and_we_agree_on_each_packet(lab, family, mode, suite, esn):
    """It verifies what we sealed; and what it seals with the peer's key comes out of our TUN, but not a second time."""
    capture, keys = captured(lab, family, mode, f'{suite}-{esn}')
    codec = [PYTHON, os.path.join(HERE, 'scapy_ah.py')]
    done = subprocess.run([*codec, capture, keys, suite, mode, esn], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verified, failed = map(int, re.search(r'verified (\d+) failed (\d+)', done.stdout).groups())
    assert verified >= 12 and failed == 0, done.stdout

    left, right = lab.hosts
    inner = INNER[4] if mode == 'tunnel' else OUTER[family]
    sniffer = left.spawn('tcpdump', '-i', 'adit0', '-n', '-l', '-A', 'icmp or icmp6')
    sniffer.wait_text('listening')
    for text in ('sealed-elsewhere', 'replayed-number'):
        right.run(*codec, 'seal', keys, suite, mode, esn, *reversed(OUTER[family]), *reversed(inner), '500', text)
    sniffer.wait_text('sealed-elsewhere')
    time.sleep(0.3)
    assert 'replayed-number' not in sniffer.text()
