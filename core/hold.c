#include "core/hold.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN 16u /* of a record's bytes: headers are read by words */

struct record {
    uint32_t policy_id;
    uint32_t packets; /* 0: taken already */
    uint32_t offset, len;
    ns_t at;
};

/* A ring of records, and a ring of bytes in which each record's lie in one piece; both in the order of arrival. */
struct hold {
    uint32_t first, count; /* records */
    struct record records[HOLD_RECORDS];
    _Alignas(ALIGN) uint8_t bytes[HOLD_BYTES];
};

enum err hold_new(struct hold **out)
{
    struct hold *h = aligned_alloc(_Alignof(struct hold), sizeof *h);
    if (!h)
        return ERR_NOMEM;
    h->first = h->count = 0;
    *out = h;
    return OK;
}

void hold_free(struct hold *h)
{
    free(h);
}

static struct record *record_at(struct hold *h, uint32_t i)
{
    return &h->records[(h->first + i) % HOLD_RECORDS];
}

/* Where `need` bytes fit behind the newest record, or HOLD_BYTES. */
static uint32_t place(struct hold *h, uint32_t need)
{
    if (h->count == 0)
        return need <= HOLD_BYTES ? 0 : HOLD_BYTES;
    const struct record *newest = record_at(h, h->count - 1);
    uint32_t oldest = record_at(h, 0)->offset, end = (newest->offset + newest->len + ALIGN - 1) / ALIGN * ALIGN;
    if (newest->offset < oldest) /* has wrapped */
        return need <= oldest - end ? end : HOLD_BYTES;
    if (end <= HOLD_BYTES && need <= HOLD_BYTES - end)
        return end;
    return need <= oldest ? 0 : HOLD_BYTES;
}

static unsigned packets_of(struct hold *h, uint32_t policy_id)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        const struct record *r = record_at(h, i);
        n += r->policy_id == policy_id ? r->packets : 0;
    }
    return n;
}

enum err hold_put(struct hold *h, uint32_t policy_id, struct span raw, unsigned packets, unsigned limit, ns_t now)
{
    unsigned held = packets_of(h, policy_id);
    if (held && (held >= limit || packets > limit - held))
        return ERR_FULL;
    uint32_t at = raw.len && raw.len <= HOLD_BYTES ? place(h, (uint32_t)raw.len) : HOLD_BYTES;
    if (h->count == HOLD_RECORDS || at == HOLD_BYTES)
        return ERR_FULL;
    memcpy(h->bytes + at, raw.data, raw.len);
    *record_at(h, h->count++) = (struct record){policy_id, packets, at, (uint32_t)raw.len, now};
    return OK;
}

/* A record that was taken keeps its bytes, and its place, until all before it are gone. */
static void trim(struct hold *h)
{
    while (h->count && record_at(h, 0)->packets == 0) {
        h->first = (h->first + 1) % HOLD_RECORDS;
        h->count--;
    }
}

bool hold_take(struct hold *h, bool (*ready)(void *ctx, uint32_t policy_id), void *ctx, struct span *raw)
{
    trim(h);
    for (uint32_t i = 0; i < h->count; i++) {
        struct record *r = record_at(h, i);
        if (r->packets == 0 || !ready(ctx, r->policy_id))
            continue;
        *raw = span_of(h->bytes + r->offset, r->len);
        r->packets = 0;
        return true;
    }
    return false;
}

void hold_expire(struct hold *h, ns_t now, void (*dropped)(void *ctx, uint32_t policy_id, unsigned packets), void *ctx)
{
    for (trim(h); h->count && now - record_at(h, 0)->at >= HOLD_TIME; trim(h)) {
        struct record *r = record_at(h, 0);
        dropped(ctx, r->policy_id, r->packets);
        r->packets = 0;
    }
}

ns_t hold_deadline(const struct hold *h)
{
    return h->count ? h->records[h->first].at + HOLD_TIME : NS_NEVER;
}
