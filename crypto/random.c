#include "crypto/random.h"

#include <sodium.h>
#include <string.h>

#include "core/base/cursor.h"

/*
 * libsodium's default source keeps no state in the process: each call is a getrandom(2), so that two processes after a
 * fork, or two copies of a virtual machine's snapshot, never give the same bytes. (It aborts should the kernel refuse.)
 */
void random_bytes(void *p, size_t n)
{
    randombytes_buf(p, n);
}

static void fill_system(void *ctx, void *p, size_t n)
{
    (void)ctx;
    random_bytes(p, n);
}

const struct random_source random_system = {NULL, fill_system};

/* The ChaCha20 key stream of the seed; each call has a nonce of its own, so that calls differ whatever their sizes. */
static void fill_seeded(void *ctx, void *p, size_t n)
{
    struct random_seeded *s = ctx;
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    put_be64(nonce, s->counter++);
    crypto_stream_chacha20(p, n, nonce, s->key);
}

struct random_source random_seeded_source(struct random_seeded *state, uint64_t seed)
{
    memset(state, 0, sizeof *state);
    put_be64(state->key, seed);
    return (struct random_source){state, fill_seeded};
}
