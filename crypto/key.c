#include "crypto/key.h"

#include <sodium.h>

#include "crypto/random.h"
#include "crypto/secret.h"

#define KEY_BYTES 32

_Static_assert(KEY_BYTES == crypto_sign_SEEDBYTES, "Ed25519 (RFC 8032)");

enum err base64_decode(const char *text, size_t len, uint8_t *out, size_t out_cap, size_t *out_len)
{
    /* Four characters make at most three bytes; their own check for room can't be told from a wrong character. */
    if (len % 4)
        return ERR_SYNTAX;
    size_t padding = 0;
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    if (len / 4 * 3 - padding > out_cap)
        return ERR_FULL;
    if (sodium_base642bin(out, out_cap, text, len, NULL, out_len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
        return ERR_SYNTAX;
    return OK;
}

void base64_encode(struct span in, char *out, size_t out_size)
{
    sodium_bin2base64(out, out_size, in.data, in.len, sodium_base64_VARIANT_ORIGINAL);
}

void key_generate(char text[KEY_TEXT])
{
    uint8_t seed[KEY_BYTES];
    random_bytes(seed, sizeof seed);
    base64_encode(span_of(seed, sizeof seed), text, KEY_TEXT);
    secret_wipe(seed, sizeof seed);
}

void psk_generate(char text[KEY_TEXT])
{
    key_generate(text); /* also 32 random bytes */
}
