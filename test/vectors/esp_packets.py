#!/usr/bin/python3
"""Writes esp.h: ESP packets by Python's cryptography and hmac, which share no line with what they test.

Run it as: test/vectors/esp_packets.py > test/vectors/esp.h
Keys as in test/unit/esp_wire.h: 00 01 02 …, the salt a0 a1 a2 … behind it, 80 81 82 … for integrity; CBC's IV is c0 … cf, all
others the sequence number of 64 bits. AES-XCBC (RFC 3566) is put together here from AES.
"""

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.cmac import CMAC

SPI = 0x12345678
INNER = bytes.fromhex('4500003000014000401100000a0100050a02000704d210e1001c0000404142434445464748494a4b4c4d4e4f50515253')


def aes(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def xcbc(key, data):
    k1, k2, k3 = (aes(key, bytes([i]) * 16) for i in (1, 2, 3))
    blocks = [data[i:i + 16] for i in range(0, len(data), 16)]
    chain = bytes(16)
    for block in blocks[:-1]:
        chain = aes(k1, xor(chain, block))
    last = blocks[-1]
    return aes(k1, xor(xor(chain, last), k2) if len(last) == 16 else xor(xor(chain, (last + b'\x80').ljust(16, b'\0')), k3))


def cmac(key, data):
    c = CMAC(algorithms.AES(key))
    c.update(data)
    return c.finalize()


MACS = {'sha1': (20, 12, lambda k, d: hmac.digest(k, d, 'sha1')), 'sha256': (32, 16, lambda k, d: hmac.digest(k, d, 'sha256')),
        'sha512': (64, 32, lambda k, d: hmac.digest(k, d, 'sha512')), 'aesxcbc': (16, 12, xcbc), 'aescmac': (16, 12, cmac)}
# Keyword: mode, bytes of key, of salt, of ICV, implicit IV
CIPHERS = {'aes192gcm12': ('gcm', 24, 4, 12, False), 'aes128gcm8': ('gcm', 16, 4, 8, False),
           'aes256ccm16': ('ccm', 32, 3, 16, False), 'aes192ccm8': ('ccm', 24, 3, 8, False), 'aes128ccm8': ('ccm', 16, 3, 8, False),
           'aes128gmac': ('gmac', 16, 4, 16, False), 'aes256gmac': ('gmac', 32, 4, 16, False),
           'aes256gcm16iiv': ('gcm', 32, 4, 16, True), 'aes128ccm8iiv': ('ccm', 16, 3, 8, True),
           'chacha20poly1305iiv': ('chacha', 32, 4, 16, True),
           'aes192': ('cbc', 24, 0, 0, False), 'aes256': ('cbc', 32, 0, 0, False),
           'aes128ctr': ('ctr', 16, 4, 0, False), 'aes256ctr': ('ctr', 32, 4, 0, False), 'null': ('null', 0, 0, 0, False)}


def aead(mode, key, nonce, text, aad, iv, icv_len):
    if mode == 'ccm':
        return AESCCM(key, tag_length=icv_len).encrypt(nonce, text, aad)
    if mode == 'gmac':  # RFC 4543: the IV is among what is authenticated
        return text + AESGCM(key).encrypt(nonce, b'', aad + iv + text)
    sealed = (AESGCM if mode == 'gcm' else ChaCha20Poly1305)(key).encrypt(nonce, text, aad)
    return sealed[:len(text) + icv_len]


def cipher(mode, key, salt, iv, text):
    if mode == 'null':
        return text
    how = modes.CBC(iv) if mode == 'cbc' else modes.CTR(salt + iv + bytes([0, 0, 0, 1]))
    return Cipher(algorithms.AES(key), how).encryptor().update(text)


def packet(encr, integ, esn, seq):
    mode, key_len, salt_len, icv_len, implicit = CIPHERS[encr]
    key, salt = bytes(range(key_len)), bytes(range(0xa0, 0xa0 + salt_len))
    iv = b'' if mode == 'null' else bytes(range(0xc0, 0xd0)) if mode == 'cbc' else seq.to_bytes(8, 'big')
    spi, low, high = SPI.to_bytes(4, 'big'), (seq & 0xffffffff).to_bytes(4, 'big'), (seq >> 32).to_bytes(4, 'big')
    pad = -(len(INNER) + 2) % (16 if mode == 'cbc' else 4)
    text = INNER + bytes(range(1, pad + 1)) + bytes([pad, 4])
    if not integ:
        return spi + low + (b'' if implicit else iv) + aead(mode, key, salt + iv, text, spi + (high if esn else b'') + low, iv, icv_len)
    mac_key_len, mac_len, mac = MACS[integ]
    body = spi + low + iv + cipher(mode, key, salt, iv, text)
    return body + mac(bytes(range(0x80, 0x80 + mac_key_len)), body + (high if esn else b''))[:mac_len]


SUITES = [('aes192gcm12', ''), ('aes128gcm8', ''), ('aes256ccm16', ''), ('aes192ccm8', ''), ('aes128ccm8', ''), ('aes128gmac', ''),
          ('aes256gmac', ''), ('aes256gcm16iiv', ''), ('aes128ccm8iiv', ''), ('chacha20poly1305iiv', ''), ('aes128ctr', 'sha256'),
          ('aes256ctr', 'sha512'), ('aes128ctr', 'aescmac'), ('aes256', 'sha1'), ('aes192', 'aesxcbc'), ('null', 'aesxcbc')]

def main():
    print('''/* ESP packets of an independent program, written by esp_packets.py, which says what is in them. */
#ifndef ADIT_VECTORS_ESP_H
#define ADIT_VECTORS_ESP_H

#include <stdbool.h>
#include <stdint.h>

struct esp_vector {
    const char *encr, *integ; /* integ NULL with AEADs */
    bool esn;
    uint64_t seq;
    const char *packet;
};

static const struct esp_vector esp_vectors[] = {''')
    for n, (e, i) in enumerate(SUITES):
        for with_esn, number in ((False, 7 + n), (True, (n + 1) << 32 | 9)):
            text = packet(e, i, with_esn, number).hex()
            lines = '\n     '.join(f'"{text[k:k + 96]}"' for k in range(0, len(text), 96))
            integrity = f'"{i}"' if i else 'NULL'
            print(f'    {{"{e}", {integrity}, {"true" if with_esn else "false"}, UINT64_C({number}),\n     {lines}}},')
    print('};\n\n#endif')


if __name__ == '__main__':
    main()
