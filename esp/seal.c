#include <assert.h>
#include <string.h>

#include "crypto/random.h"
#include "esp/ah_impl.h"
#include "esp/limit.h"

/* Extended sequence numbers lengthen the AAD of AEADs to SPI, high half, low half (RFC 4106 section 5, RFC 7634 2.1). */
#define AAD_ESN 12

/* What of a packet's input to the cipher doesn't stand in it as such. */
struct beside {
    uint8_t aad[AAD_ESN], iv[COUNTER_IV];
};

/* RFC 4303 section 2.4. */
static const uint8_t padding[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/*
 * How many of n packets the hard limits leave, and *bytes after them. A packet that passes the byte limit ends the SA
 * for good, also for shorter ones after it: the peer would otherwise see a trickle of an SA that is over.
 */
static unsigned admit(struct sa *sa, const struct esp_packet *v, unsigned n, uint64_t *bytes)
{
    *bytes = atomic_load_explicit(&sa->bytes, memory_order_relaxed);
    if (n > sa->seq_hard - sa->seq)
        n = (unsigned)(sa->seq_hard - sa->seq);
    for (unsigned i = 0; i < n; i++) {
        if (v[i].len > sa->byte_hard - *bytes) {
            sa->seq_hard = sa->seq + i;
            return i;
        }
        *bytes += v[i].len;
    }
    return n;
}

/* An unpredictable IV (RFC 3602 section 3), from a pool that is filled for many packets at once. */
static void random_iv(struct sa *sa, uint8_t *iv, unsigned len)
{
    if (sa->iv_left < len) {
        random_bytes(sa->iv_pool, SA_IV_POOL);
        sa->iv_left = SA_IV_POOL;
    }
    memcpy(iv, sa->iv_pool + SA_IV_POOL - sa->iv_left, len);
    sa->iv_left -= len;
}

/* In blocks of 8 bytes: sa_new saw to it that there are no more than 15, and that an ICV of 8 or more follows. */
static void put_trailer(uint8_t *at, uint32_t pad, uint8_t next_header)
{
    memcpy(at, padding, 8);
    if (pad > 8)
        memcpy(at + 8, padding + 8, 8);
    at[pad] = (uint8_t)pad;
    at[pad + 1] = next_header;
}

/* Writes header, IV and trailer around the inner packet, and the operation that seals it. */
static void frame(struct sa *sa, const struct esp_packet *p, uint64_t seq, struct transform_op *op,
                  struct beside *beside)
{
    const struct suite *s = &sa->params.suite;
    uint8_t *header = p->data - esp_headroom(s), *iv = s->implicit_iv ? beside->iv : header + 8;
    put_be32(header, sa->params.spi);
    put_be32(header + 4, (uint32_t)seq);
    if (s->counter_iv)
        put_be64(iv, seq); /* the implicit one is just that, too (RFC 8750 section 4) */
    else if (s->iv_len > 0)
        random_iv(sa, iv, s->iv_len);

    uint32_t pad = (0u - (p->len + 2)) & (esp_align(s) - 1);
    put_trailer(p->data + p->len, pad, p->next_header);

    op->aad = header;
    op->aad_len = 8;
    op->iv = iv;
    op->src = op->dst = p->data;
    op->len = p->len + pad + 2;
    op->icv = p->data + op->len;
    op->tail_len = 0;
    if (!sa->params.esn)
        return;
    uint32_t high = (uint32_t)(seq >> 32);
    if (s->aead) {
        put_be32(beside->aad, sa->params.spi);
        put_be32(beside->aad + 4, high);
        put_be32(beside->aad + 8, (uint32_t)seq);
        op->aad = beside->aad;
        op->aad_len = AAD_ESN;
    } else {
        put_be32(op->tail, high);
        op->tail_len = sizeof op->tail;
    }
}

/* Seals n admitted packets. Their numbers are used up whatever happens. */
static enum err run(struct sa *sa, struct esp_packet *v, unsigned n)
{
    struct transform_op ops[TRANSFORM_BATCH];
    struct beside beside[TRANSFORM_BATCH];
    for (unsigned i = 0; i < n; i++)
        frame(sa, &v[i], ++sa->seq, &ops[i], &beside[i]);
    if (keyed_seal(sa->keyed, ops, n) != OK)
        return ERR_CRYPTO;
    uint32_t head = esp_headroom(&sa->params.suite), icv = sa->params.suite.icv_len;
    for (unsigned i = 0; i < n; i++) {
        v[i].data -= head;
        v[i].len = head + ops[i].len + icv;
        v[i].verdict = OK;
    }
    return OK;
}

static void refuse(struct esp_packet *v, unsigned n, enum err why, enum stat_id drop)
{
    for (unsigned i = 0; i < n; i++) {
        v[i].verdict = why;
        v[i].drop = drop;
    }
}

enum err esp_seal(struct sa *sa, struct esp_packet *v, unsigned n, ns_t now, unsigned *sealed, unsigned *events)
{
    assert(n <= TRANSFORM_BATCH);
    uint64_t bytes;
    unsigned fit = admit(sa, v, n, &bytes);
    refuse(v + fit, n - fit, ERR_EXPIRED, STAT_DROP_OUT_EXPIRED);
    bool ah = sa->params.proto == PROTOCOL_AH;
    enum err e = fit == 0 ? ERR_EXPIRED : ah ? ah_seal(sa, v, fit) : run(sa, v, fit);
    *sealed = 0;
    if (e == OK) {
        *sealed = fit;
        uint64_t packets = atomic_load_explicit(&sa->packets, memory_order_relaxed);
        atomic_store_explicit(&sa->packets, packets + fit, memory_order_relaxed);
        atomic_store_explicit(&sa->bytes, bytes, memory_order_relaxed);
        atomic_store_explicit(&sa->last_used, now, memory_order_relaxed);
    } else if (fit > 0) {
        refuse(v, fit, e, STAT_DROP_OUT_CRYPTO);
    }
    *events = limit_passed(sa, sa->seq, atomic_load_explicit(&sa->bytes, memory_order_relaxed), now);
    return e;
}
