#include "crypto/measure.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "crypto/secret.h"

#define BATCH 32 /* a superpacket of 64 KiB makes about 45 packets of 1,400 bytes, a quiet link one */
#define AAD_LEN 8
#define KEY_ROOM 128

/* Packets as ESP lays them out: header, IV, text, ICV, at an equal stride. */
static void lay_out(const struct suite *s, unsigned len, uint8_t *room, size_t stride, struct transform_op ops[BATCH])
{
    for (size_t i = 0; i < BATCH; i++) {
        uint8_t *packet = room + i * stride, *text = packet + AAD_LEN + s->iv_len;
        ops[i] = (struct transform_op){
            .aad = packet,
            .aad_len = AAD_LEN,
            .iv = s->implicit_iv ? packet : packet + AAD_LEN,
            .src = text,
            .dst = text,
            .len = len,
            .icv = text + len,
        };
    }
}

static enum err run(struct keyed *k, struct transform_op ops[BATCH], unsigned ms, struct measure *out)
{
    uint64_t batches = 0;
    TRY(keyed_seal(k, ops, BATCH)); /* warms caches, and makes what is made at first use */
    const uint64_t start = clock_now();
    uint64_t now = start;
    while (now - start < ms * NS_PER_MS) {
        for (int i = 0; i < 8; i++, batches++)
            TRY(keyed_seal(k, ops, BATCH));
        now = clock_now();
    }
    const double packets = (double)batches * BATCH, ns = (double)(now - start);
    if (packets > 0) {
        out->ns_per_packet = ns / packets;
        out->mb_per_s = packets * ops[0].len * 1e3 / ns;
    }
    return OK;
}

enum err measure_seal(const char *engine, const struct suite *suite, unsigned size, unsigned ms, struct measure *out)
{
    static const uint8_t key[KEY_ROOM]; /* speed doesn't depend on it */
    struct transform_op ops[BATCH];
    struct keyed *k = NULL;

    if (size == 0 || size > MEASURE_SIZE_MAX)
        return ERR_RANGE;
    const unsigned len = (size + suite->block - 1) / suite->block * suite->block;
    const size_t stride = (AAD_LEN + TRANSFORM_IV_MAX + (size_t)len + TRANSFORM_ICV_MAX + 63) / 64 * 64;
    uint8_t *room = calloc(BATCH, stride);
    if (!room)
        return ERR_NOMEM;
    lay_out(suite, len, room, stride, ops);
    enum err e = keyed_new(&k, suite, TRANSFORM_SEAL, engine, span_of(key, suite->encr_key_len),
                           span_of(key, suite->integ_key_len));
    if (e == OK) {
        *out = (struct measure){.engine = keyed_engine(k), .suite = suite, .size = len};
        e = run(k, ops, ms, out);
        keyed_free(k);
    }
    free(room);
    return e;
}
