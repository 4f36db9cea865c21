#include "core/hold.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN 16u /* of a record's bytes: headers are read by words */

struct record {
    uint32_t policy_id;
    uint32_t packets; /* 0: taken already */
    bool joined;      /* fragment of a datagram that is among the others: counts with that */
    uint64_t datagram;
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

/* What a policy has here: packets in all, and fragments of that datagram. */
struct held {
    unsigned packets, fragments;
};

static struct held held_of(struct hold *h, uint32_t policy_id, uint64_t datagram)
{
    struct held n = {0};
    for (uint32_t i = 0; i < h->count; i++) {
        const struct record *r = record_at(h, i);
        if (r->policy_id != policy_id || r->packets == 0)
            continue;
        n.packets += r->joined ? 0 : r->packets;
        n.fragments += datagram && r->datagram == datagram;
    }
    return n;
}

enum err hold_put(struct hold *h, const struct hold_item *item, unsigned limit, ns_t now)
{
    struct held n = held_of(h, item->policy_id, item->datagram);
    bool full = n.fragments ? n.fragments >= HOLD_FRAGMENTS
                            : n.packets && (n.packets >= limit || item->packets > limit - n.packets);
    size_t len = item->raw.len;
    uint32_t at = !full && len && len <= HOLD_BYTES ? place(h, (uint32_t)len) : HOLD_BYTES;
    if (h->count == HOLD_RECORDS || at == HOLD_BYTES)
        return ERR_FULL;
    memcpy(h->bytes + at, item->raw.data, len);
    *record_at(h, h->count++) = (struct record){.policy_id = item->policy_id,
                                                .packets = item->packets,
                                                .joined = n.fragments,
                                                .datagram = item->datagram,
                                                .offset = at,
                                                .len = (uint32_t)len,
                                                .at = now};
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
