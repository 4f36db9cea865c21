#!/usr/bin/python3
"""An independent codec of AH for test_ah_wire.py.

scapy_ah.py CAPTURE KEYS SUITE tunnel|transport esn|noesn
        verifies every packet with AH of a capture; prints "verified N failed N"
scapy_ah.py seal KEYS SUITE tunnel|transport esn|noesn SRC DST INNER_SRC INNER_DST SEQ TEXT
        puts AH into an echo request with the key of the SA from SRC to DST, and sends it
KEYS is an esp_sa table as the daemon writes it, in which SAs of AH are comments.
"""

import csv
import logging
import sys

logging.getLogger('scapy').setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.all import ICMP, IP, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, conf, raw, rdpcap, send  # noqa: E402
from scapy.layers.ipsec import AH, SecurityAssociation  # noqa: E402

MACS = {'sha1': 'HMAC-SHA1-96', 'sha256': 'SHA2-256-128', 'sha384': 'SHA2-384-192', 'sha512': 'SHA2-512-256',
        'aescmac': 'AES-CMAC-96'}


def outer(source, destination):
    return (IPv6 if ':' in source else IP)(src=source, dst=destination)


def associations(table, suite, mode, esn):
    """SPI to (source, destination, SecurityAssociation) for every line of AH."""
    found = {}
    with open(table) as f:
        for row in csv.reader(line.removeprefix('# ') for line in f):
            _, source, destination, spi, protocol, _, _, key = row[:8]
            assert protocol == 'AH', row
            found[int(spi, 16)] = (source, destination, SecurityAssociation(
                AH, spi=int(spi, 16), auth_algo=MACS[suite], auth_key=bytes.fromhex(key[2:]), esn_en=esn == 'esn', esn=0,
                tunnel_header=outer(source, destination) if mode == 'tunnel' else None))
    return found


def verify_all(capture, table, suite, mode, esn):
    known = associations(table, suite, mode, esn)
    verified = failed = 0
    for frame in rdpcap(capture):
        if AH not in frame:
            continue
        packet = frame[IPv6 if frame.type == 0x86dd else IP]
        packet = packet.__class__(raw(packet))
        try:
            source, destination, sa = known[packet[AH].spi]
            assert (source, destination) == (packet.src, packet.dst), 'addresses of the SA'
            inner = raw(sa.decrypt(packet))
            inner = (IPv6 if inner[0] >> 4 == 6 else IP)(inner)
            assert ICMP in inner or ICMPv6EchoRequest in inner or ICMPv6EchoReply in inner, inner.summary()
            verified += 1
        except Exception as e:  # pylint: disable=broad-except
            print(f'{packet.summary()}: {type(e).__name__} {e}')
            failed += 1
    print(f'verified {verified} failed {failed}')


def seal(table, suite, mode, esn, source, destination, inner_source, inner_destination, seq, text):
    sa = next(s for src, dst, s in reversed(list(associations(table, suite, mode, esn).values())) if (src, dst) == (source, destination))
    inner = (IPv6(src=inner_source, dst=inner_destination) / ICMPv6EchoRequest(id=4711, seq=1, data=text.encode())
             if ':' in inner_source else IP(src=inner_source, dst=inner_destination, id=99) / ICMP(id=4711, seq=1) / text.encode())
    if sa.tunnel_header and ':' not in source:
        sa.tunnel_header.id = 77
    sealed = sa.encrypt(inner.__class__(raw(inner)), seq_num=int(seq))
    if ':' in source:
        sealed.hlim, sealed.fl, sealed.tc = 7, 0x12345, 8  # as routers may have left them
    else:
        sealed.ttl, sealed.tos, sealed.chksum = 7, 8, None
    conf.verb = 0
    send(sealed)


if __name__ == '__main__':
    if sys.argv[1] == 'seal':
        seal(*sys.argv[2:12])
    else:
        verify_all(*sys.argv[1:6])
