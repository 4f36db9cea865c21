#!/usr/bin/python3
"""Writes ah.h: packets with AH by Python's cryptography and hmac, which share no line with what they test.

Run it as: test/vectors/ah_packets.py > test/vectors/ah.h
Keys as in test/unit/esp_wire.h: 80 81 82 … for integrity; AES-GMAC's is 00 01 02 …, the salt a0 a1 a2 a3 behind it, and its IV
the sequence number of 64 bits. What the ICV is computed over is written down for each packet: no code here derives it from
the packet.
"""

import ipaddress
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from esp_packets import MACS, hmac

SPI = 0x12345678
MACS = {**MACS, 'sha384': (48, 24, lambda k, d: hmac.digest(k, d, 'sha384'))}
INNER4 = bytes.fromhex('4500003000014000401100000a0100050a02000704d210e1001c0000404142434445464748494a4b4c4d4e4f50515253')
UDP = bytes.fromhex('04d20035001c0000404142434445464748494a4b4c4d4e4f50515253')
INNER6 = (bytes.fromhex('6000000000101140') + ipaddress.ip_address('2001:db8:1::5').packed + ipaddress.ip_address('2001:db8:2::7').packed
          + bytes.fromhex('04d200350010000061646974206a6f79'))


def address(text):
    return ipaddress.ip_address(text).packed


def checksum(header):
    total = sum(struct.unpack(f'!{len(header) // 2}H', header))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ipv4(src, dst, length, tos=0, ident=0, flags=0, ttl=0, proto=51, options=b'', summed=False):
    def header(value):
        return struct.pack('!BBHHHBBH', 0x45 + len(options) // 4, tos, length, ident, flags << 13, ttl, proto,
                           value) + address(src) + address(dst) + options
    return header(checksum(header(0)) if summed else 0)


def ipv6(src, dst, length, first, tc=0, flow=0, hops=0):
    return struct.pack('!IHBB', 6 << 28 | tc << 20 | flow, length, first, hops) + address(src) + address(dst)


def icv(integ, message, seq):
    if integ.endswith('gmac'):
        key = bytes(range(int(integ[3:6]) // 8))
        return AESGCM(key).encrypt(bytes(range(0xa0, 0xa4)) + seq.to_bytes(8, 'big'), b'', message)
    key_len, icv_len, mac = MACS[integ]
    return mac(bytes(range(0x80, 0x80 + key_len)), message)[:icv_len]


def ah(integ, seq, following, align, tag=None):
    iv = seq.to_bytes(8, 'big') if integ.endswith('gmac') else b''
    tag = tag or bytes(16 if iv else MACS[integ][1])
    body = struct.pack('!II', SPI, seq & 0xffffffff) + iv + tag
    body += bytes(-(4 + len(body)) % align)
    return struct.pack('!BBH', following, (4 + len(body)) // 4 - 2, 0) + body


def packet(name, integ, esn, seq, mode, headers, following, payload, align):
    """headers(length, which): what stands before AH, 'sent', 'frozen', or as it 'arrived'; length: of AH and the payload."""
    length = len(ah(integ, seq, following, align)) + len(payload)
    frozen = headers(length, 'frozen') + ah(integ, seq, following, align) + payload
    if esn:
        frozen += (seq >> 32).to_bytes(4, 'big')
    rest = ah(integ, seq, following, align, icv(integ, frozen, seq)) + payload
    sent, arrived = headers(length, 'sent'), headers(length, 'arrived')
    return name, integ, esn, seq, mode, len(sent), sent + rest, arrived + rest


def outer4(length, which):
    fields = {'sent': dict(tos=0xb8, flags=2, ttl=64, summed=True), 'frozen': {},
              'arrived': dict(tos=0x03, flags=0, ttl=41, summed=True)}[which]
    return ipv4('192.0.2.1', '192.0.2.2', 20 + length, ident=7, **fields)


def outer6(length, which):
    fields = {'sent': dict(tc=0xb8, flow=0x12345, hops=64), 'frozen': {}, 'arrived': dict(tc=3, flow=0, hops=41)}[which]
    return ipv6('2001:db8:ffff::1', '2001:db8:ffff::2', length, 51, **fields)


# Router alert, security: as they are. Time stamp, record route, and one that nobody knows: zero, their lengths too.
OPTIONS = {'sent': '94040000' '820b0102030405060708 09' '01' '44080501aabbccdd' '07070400000000' '9e03ff' '00' '00',
           'frozen': '94040000' '820b0102030405060708 09' '01' '0000000000000000' '00000000000000' '000000' '00' '00',
           'arrived': '94040000' '820b0102030405060708 09' '01' '44080501aabb0000' '0707080a010205' '9e0300' '00' '00'}
# A loose source route (RFC 791) by 10.9.9.9 to 10.2.0.7: all of it zero, and the destination as it will be.
ROUTE = {'sent': '830b04' '0a090909' '0a020007' '00', 'frozen': '000000' '00000000' '00000000' '00',
         'arrived': '830b0c' '0a010001' '0a090901' '00'}


def options4(length, which):
    fields = {'sent': dict(tos=0x10, flags=2, ttl=64, summed=True), 'frozen': {},
              'arrived': dict(tos=0, flags=2, ttl=3, summed=True)}[which]
    options = bytes.fromhex(OPTIONS[which])
    return ipv4('10.1.0.5', '10.2.0.7', 20 + len(options) + length, ident=9, options=options, **fields)


def route4(length, which):
    fields = {'sent': dict(ttl=64, summed=True), 'frozen': {}, 'arrived': dict(ttl=3, summed=True)}[which]
    options = bytes.fromhex(ROUTE[which])
    to = '10.2.0.99' if which == 'sent' else '10.2.0.7'
    return ipv4('10.1.0.5', to, 20 + len(options) + length, ident=9, options=options, **fields)


def extended6(length, which):
    """Hop-by-hop: an option that may change (0x3e), one that may not (0x1e), padding. Destination options, routing type 0."""
    changing = {'sent': b'\x11\x22\x33\x44', 'frozen': bytes(4), 'arrived': b'\x99\x99\x00\x01'}[which]
    hop = bytes([60, 1]) + b'\x3e\x04' + changing + b'\x1e\x02\xab\xcd' + b'\x01\x02\0\0'
    destination = bytes([43, 0]) + b'\x1e\x01\x77' + b'\x00\x00\x00'
    via, end, first = address('2001:db8:9::9'), address('2001:db8:2::7'), address('2001:db8:2::99')
    if which == 'sent':
        routing, to = bytes([51, 4, 0, 2, 0, 0, 0, 0]) + via + end, '2001:db8:2::99'
    else:
        routing, to = bytes([51, 4, 0, 0, 0, 0, 0, 0]) + first + via, '2001:db8:2::7'
    fields = {'sent': dict(tc=1, flow=5, hops=64), 'frozen': {}, 'arrived': dict(hops=9)}[which]
    before = hop + destination + routing
    return ipv6('2001:db8:1::5', to, len(before) + length, 0, **fields) + before


def packets():
    names = ['sha256', 'sha384', 'sha512', 'sha1', 'aesxcbc', 'aescmac', 'aes128gmac', 'aes192gmac', 'aes256gmac']
    for n, integ in enumerate(names):
        for esn in (False, True):
            seq = 7 + n + ((n + 1) << 32 if esn else 0)
            yield packet(f'{integ}, 4in4', integ, esn, seq, 'tunnel', outer4, 4, INNER4, 4)
            yield packet(f'{integ}, 6in6', integ, esn, seq, 'tunnel', outer6, 41, INNER6, 8)
    yield packet('6in4', 'sha256', True, 9, 'tunnel', outer4, 41, INNER6, 4)
    yield packet('4in6', 'sha256', True, 9, 'tunnel', outer6, 4, INNER4, 8)
    yield packet('IPv4 options', 'sha256', True, 9, 'transport', options4, 17, UDP, 4)
    yield packet('IPv4 source route', 'aesxcbc', False, 9, 'transport', route4, 17, UDP, 4)
    yield packet('IPv6 extension headers', 'sha512', True, 9, 'transport', extended6, 17, UDP, 8)


def text(data):
    lines = [data.hex()[i:i + 96] for i in range(0, 2 * len(data), 96)]
    return '\n     '.join(f'"{line}"' for line in lines)


def main():
    print('/* Packets with AH of an independent program, written by ah_packets.py, which says what is in them. */\n'
          '#ifndef ADIT_VECTORS_AH_H\n#define ADIT_VECTORS_AH_H\n\n#include <stdbool.h>\n#include <stdint.h>\n\n'
          'struct ah_vector {\n    const char *name, *integ;\n    bool esn;\n    uint64_t seq;\n    bool transport;\n'
          '    unsigned head; /* bytes before AH */\n    const char *sent, *arrived;\n};\n\n'
          'static const struct ah_vector ah_vectors[] = {')
    for name, integ, esn, seq, mode, head, sent, arrived in packets():
        print(f'    {{"{name}", "{integ}", {"true" if esn else "false"}, UINT64_C({seq}), {"true" if mode == "transport" else "false"}, '
              f'{head},\n     {text(sent)},\n     {text(arrived)}}},')
    print('};\n\n#endif')


if __name__ == '__main__':
    main()
