#include "core/base/ring.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LINE 64     /* producer's and consumer's positions live on cache lines of their own */
#define HEAD_LEN 8u /* length and type before each record; records start at multiples of this */
#define SKIP UINT32_MAX

struct record_head {
    uint32_t len; /* SKIP: the rest up to the end of the buffer is unused */
    uint32_t type;
};

/* Positions only grow; modulo cap they are offsets. Each side keeps the last value it saw of the other's position. */
struct ring {
    _Alignas(LINE) _Atomic size_t tail; /* written by the producer */
    size_t head_seen;
    _Alignas(LINE) _Atomic size_t head; /* written by the consumer */
    size_t tail_seen;
    _Alignas(LINE) size_t cap;
    uint8_t *data;
};

static size_t record_size(size_t len)
{
    return HEAD_LEN + ((len + HEAD_LEN - 1) & ~(size_t)(HEAD_LEN - 1));
}

enum err ring_new(struct ring **out, size_t cap)
{
    size_t size = LINE;
    while (size < cap) {
        if (size > SIZE_MAX / 4)
            return ERR_NOMEM;
        size *= 2;
    }
    struct ring *r = aligned_alloc(LINE, sizeof *r);
    uint8_t *data = malloc(size);
    if (!r || !data) {
        free(r);
        free(data);
        return ERR_NOMEM;
    }
    memset(r, 0, sizeof *r);
    atomic_init(&r->tail, 0);
    atomic_init(&r->head, 0);
    r->cap = size;
    r->data = data;
    *out = r;
    return OK;
}

void ring_free(struct ring *r)
{
    if (!r)
        return;
    free(r->data);
    free(r);
}

/* Whether n bytes from position tail on are free; looks at the consumer's line only when they seem not to be. */
static bool has_room(struct ring *r, size_t tail, size_t n)
{
    if (r->cap - (tail - r->head_seen) >= n)
        return true;
    r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
    return r->cap - (tail - r->head_seen) >= n;
}

static void put_head(struct ring *r, size_t at, uint32_t len, uint32_t type)
{
    struct record_head head = {len, type};
    memcpy(r->data + at, &head, sizeof head);
}

enum err ring_push(struct ring *r, uint32_t type, struct span a, struct span b)
{
    size_t limit = r->cap / 2 - HEAD_LEN;
    if (a.len > limit || b.len > limit - a.len)
        return ERR_FULL;
    size_t need = record_size(a.len + b.len);
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t at = tail & (r->cap - 1);
    size_t skip = r->cap - at < need ? r->cap - at : 0;
    if (!has_room(r, tail, skip + need))
        return ERR_FULL;
    if (skip) {
        put_head(r, at, SKIP, 0);
        at = 0;
    }
    put_head(r, at, (uint32_t)(a.len + b.len), type);
    if (a.len)
        memcpy(r->data + at + HEAD_LEN, a.data, a.len);
    if (b.len)
        memcpy(r->data + at + HEAD_LEN + a.len, b.data, b.len);
    atomic_store_explicit(&r->tail, tail + skip + need, memory_order_release);
    return OK;
}

bool ring_half_full(struct ring *r)
{
    return !has_room(r, atomic_load_explicit(&r->tail, memory_order_relaxed), r->cap / 2);
}

/* The head of the record at the consumer's position, stepping over a skipped end; false when there is none. */
static bool next_record(struct ring *r, size_t *at, struct record_head *head)
{
    size_t pos = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (pos == r->tail_seen) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (pos == r->tail_seen)
            return false;
    }
    *at = pos & (r->cap - 1);
    memcpy(head, r->data + *at, sizeof *head);
    if (head->len == SKIP) { /* the record after it was published together with it */
        atomic_store_explicit(&r->head, pos + (r->cap - *at), memory_order_release);
        *at = 0;
        memcpy(head, r->data, sizeof *head);
    }
    return true;
}

bool ring_peek(struct ring *r, uint32_t *type, struct span *record)
{
    size_t at;
    struct record_head head;
    if (!next_record(r, &at, &head))
        return false;
    *type = head.type;
    *record = span_of(r->data + at + HEAD_LEN, head.len);
    return true;
}

void ring_pop(struct ring *r)
{
    size_t at;
    struct record_head head;
    if (!next_record(r, &at, &head))
        return;
    size_t pos = atomic_load_explicit(&r->head, memory_order_relaxed);
    atomic_store_explicit(&r->head, pos + record_size(head.len), memory_order_release);
}
