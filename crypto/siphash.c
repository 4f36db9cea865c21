#include "crypto/siphash.h"

#include <sodium.h>

_Static_assert(crypto_shorthash_KEYBYTES == SIPHASH_KEY && crypto_shorthash_BYTES == 8, "SipHash-2-4");

uint64_t siphash(const uint8_t key[SIPHASH_KEY], struct span bytes)
{
    uint8_t out[crypto_shorthash_BYTES];
    crypto_shorthash(out, bytes.len ? bytes.data : out, bytes.len, key);
    return get_be64(out);
}
