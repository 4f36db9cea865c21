#!/usr/bin/python3
"""An independent ESP codec for test_wire.py.

scapy_esp.py CAPTURE KEYS SUITE esn|noesn        opens every ESP packet of a capture; prints "opened N failed N"
scapy_esp.py seal KEYS SUITE SRC DST INNER_SRC INNER_DST SEQ TEXT
        seals an echo request with the keys of the SA from SRC to DST and sends it in UDP from port 4500
KEYS is an esp_sa table as Wireshark reads it.
"""

import csv
import logging
import sys

logging.getLogger('scapy').setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.all import ICMP, IP, UDP, conf, raw, rdpcap, send  # noqa: E402
from scapy.layers.ipsec import ESP, SecurityAssociation  # noqa: E402

CIPHERS = {'aes128gcm16': 'AES-GCM', 'aes256gcm16': 'AES-GCM', 'aes192gcm16': 'AES-GCM', 'aes128ccm16': 'AES-CCM',
           'aes256ccm16': 'AES-CCM', 'chacha20poly1305': 'CHACHA20-POLY1305', 'aes128': 'AES-CBC', 'aes192': 'AES-CBC',
           'aes256': 'AES-CBC', 'aes128ctr': 'AES-CTR', 'null': 'NULL'}
MACS = {'sha1': 'HMAC-SHA1-96', 'sha256': 'SHA2-256-128', 'sha384': 'SHA2-384-192', 'sha512': 'SHA2-512-256',
        'aescmac': 'AES-CMAC-96'}


def associations(table, suite, esn):
    """SPI to (source, destination, SecurityAssociation) for every line of an esp_sa table."""
    cipher, _, mac = suite.partition('-')
    found = {}
    with open(table) as f:
        # What Wireshark has no name for is a comment to it.
        for row in csv.reader(line.removeprefix('# ') for line in f):
            _, source, destination, spi, _, key, _, mac_key = row[:8]
            found[int(spi, 16)] = (source, destination, SecurityAssociation(
                ESP, spi=int(spi, 16), crypt_algo=CIPHERS[cipher], crypt_key=bytes.fromhex(key[2:]) or None,
                auth_algo=MACS.get(mac), auth_key=bytes.fromhex(mac_key[2:]) or None, esn_en=esn, esn=0))
    return found


def esp_packets(capture):
    for p in rdpcap(capture):
        if UDP in p and p[UDP].dport == 4500:
            payload = raw(p[UDP].payload)[:p[UDP].len - 8]
            if len(payload) > 8 and payload[:4] != bytes(4):
                yield IP(src=p[IP].src, dst=p[IP].dst, proto=50) / ESP(payload)


def open_all(capture, table, suite, esn):
    known = associations(table, suite, esn)
    opened = failed = 0
    for p in esp_packets(capture):
        outer = IP(raw(p))
        try:
            source, destination, sa = known[outer[ESP].spi]
            assert (source, destination) == (outer.src, outer.dst), 'addresses of the SA'
            sa.tunnel_header = IP(src=outer.src, dst=outer.dst)
            inner = sa.decrypt(outer)
            assert inner.haslayer(ICMP), inner.summary()
            opened += 1
        except Exception as e:  # pylint: disable=broad-except
            print(f'{outer.summary()}: {type(e).__name__} {e}')
            failed += 1
    print(f'opened {opened} failed {failed}')


def seal(table, suite, source, destination, inner_source, inner_destination, seq, text):
    sa = next(s for src, dst, s in reversed(list(associations(table, suite, False).values())) if (src, dst) == (source, destination))
    sa.tunnel_header = IP(src=source, dst=destination)
    inner = IP(src=inner_source, dst=inner_destination) / ICMP(id=4711, seq=1) / text.encode()
    sealed = sa.encrypt(inner, seq_num=int(seq))
    conf.verb = 0
    send(IP(src=source, dst=destination) / UDP(sport=4500, dport=4500) / raw(sealed[ESP]))


if __name__ == '__main__':
    if sys.argv[1] == 'seal':
        seal(*sys.argv[2:10])
    else:
        open_all(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == 'esn')
