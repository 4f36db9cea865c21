#!/usr/bin/python3
"""An independent ESP codec for test_scapy.py.

scapy_esp.py open CAPTURE JOB    opens every ESP packet of a capture; prints "SA FAMILY TEXT" of each that holds UDP, or why
                                 it failed
scapy_esp.py seal JOB            seals the packets of the job and sends them in UDP from port 4500
JOB is a file of JSON: {"keys": an esp_sa table as Wireshark reads it, "transport": bool, "esn": bool,
"suites": {SA: SUITE}, "send": [[SA, SOURCE, DESTINATION, PORT, SEQUENCE NUMBER, TEXT]]}; an SA is "DESTINATION SPI" as in the
table.
"""

import csv
import json
import logging
import re
import sys

logging.getLogger('scapy').setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.all import IP, UDP, IPv6, conf, raw, rdpcap, send  # noqa: E402
from scapy.layers.ipsec import ESP, SecurityAssociation  # noqa: E402

MODES = {'gcm': 'AES-GCM', 'ccm': 'AES-CCM', 'ctr': 'AES-CTR', '': 'AES-CBC'}
MACS = {'sha1': 'HMAC-SHA1-96', 'sha256': 'SHA2-256-128', 'sha384': 'SHA2-384-192', 'sha512': 'SHA2-512-256',
        'aescmac': 'AES-CMAC-96'}


def cipher_of(keyword):
    """Scapy's name, and the length of the ICV where it has one."""
    if keyword in ('null', 'chacha20poly1305'):
        return keyword.upper().replace('20P', '20-P'), None
    mode, icv = re.fullmatch(r'aes\d{3}([a-z]*)(\d*)', keyword).groups()
    return MODES[mode], int(icv) if icv else None


class Association:
    """One SA of the table. Scapy leaves the high half of an extended number out of its MACs: here it is put in."""

    def __init__(self, row, suite, job):
        _, self.source, self.destination, spi, _, key, _, mac_key = row[:8]
        cipher, _, mac = suite.partition('-')
        name, icv = cipher_of(cipher)
        self.separate = bool(mac) and job['esn']
        self.sa = SecurityAssociation(ESP, spi=int(spi, 16), crypt_algo=name, crypt_key=bytes.fromhex(key[2:]) or None,
                                      crypt_icv_size=icv, auth_algo=MACS.get(mac), auth_key=bytes.fromhex(mac_key[2:]) or None,
                                      esn_en=job['esn'], esn=0)
        if not job['transport']:
            self.sa.tunnel_header = outer(self.source, self.destination)

    def verify(self, esp):
        mac, size = self.sa.auth_algo.new_mac(self.sa.auth_key), self.sa.auth_algo.icv_size
        mac.update(esp[:-size] + bytes(4))
        assert mac.finalize()[:size] == esp[-size:], 'ICV'

    def open(self, packet, esp):
        if self.separate:
            self.verify(esp)
        return self.sa.decrypt(packet, verify=not self.separate)

    def seal(self, inner, number):
        esp = raw(self.sa.encrypt(inner, seq_num=number)[ESP])
        if self.separate:
            mac, size = self.sa.auth_algo.new_mac(self.sa.auth_key), self.sa.auth_algo.icv_size
            mac.update(esp[:-size] + bytes(4))
            esp = esp[:-size] + mac.finalize()[:size]
        return esp


def outer(source, destination):
    return IPv6(src=source, dst=destination) if ':' in source else IP(src=source, dst=destination)


def associations(job):
    with open(job['keys']) as f:
        # What Wireshark has no name for is a comment to it.
        rows = list(csv.reader(line.removeprefix('# ') for line in f))
    named = {f'{row[2]} {row[3]}': row for row in rows}
    return {name: Association(named[name], suite, job) for name, suite in job['suites'].items()}


def esp_packets(capture):
    for p in rdpcap(capture):
        if UDP in p and p[UDP].dport == 4500:
            payload = raw(p[UDP].payload)[:p[UDP].len - 8]
            if len(payload) > 8 and payload[:4] != bytes(4):
                ip = p[IPv6] if IPv6 in p else p[IP]
                yield ip.src, ip.dst, payload


def open_all(capture, job):
    known = associations(job)
    for source, destination, payload in esp_packets(capture):
        packet = outer(source, destination) / ESP(payload)
        packet[0].fields['nh' if ':' in source else 'proto'] = 50
        name = f'{destination} 0x{packet[ESP].spi:08x}'
        try:
            a = known[name]
            assert a.source == source, 'addresses of the SA'
            inner = a.open(packet.__class__(raw(packet)), payload)
            if UDP in inner:  # and not an ICMP error, as nobody listens
                print(name, inner.version, bytes(inner[UDP].payload).decode())
        except Exception as e:  # pylint: disable=broad-except
            print(name, 'failed:', type(e).__name__, e)


def seal_all(job):
    known = associations(job)
    conf.verb = 0
    packets = []
    for name, source, destination, port, number, text in job['send']:
        a = known[name]
        inner = outer(source, destination) / UDP(sport=port, dport=port) / text.encode()
        esp = a.seal(inner.__class__(raw(inner)), number)
        packets.append(outer(a.source, a.destination) / UDP(sport=4500, dport=4500) / esp)
    send(packets)


if __name__ == '__main__':
    with open(sys.argv[-1]) as job_file:
        task = json.load(job_file)
    if sys.argv[1] == 'seal':
        seal_all(task)
    else:
        open_all(sys.argv[2], task)
