/*
 * Bounded reading and writing of wire bytes, the only way this project touches them. Both cursors are sticky: once an
 * operation does not fit, the cursor is failed, every later read gives 0 (or an empty span), every later write does
 * nothing, and one check at the end tells. All integers are big-endian (network order).
 */
#ifndef ADIT_CURSOR_H
#define ADIT_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/base/err.h"

/* A view of bytes somebody else owns. */
struct span {
    const uint8_t *data;
    size_t len;
};

static inline struct span span_of(const void *data, size_t len)
{
    return (struct span){.data = data, .len = len};
}

/* For public values only: not constant-time. Secrets: secret_equal() of crypto/secret.h. */
static inline bool span_equal(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline uint16_t get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t get_be64(const uint8_t *p)
{
    return (uint64_t)get_be32(p) << 32 | get_be32(p + 4);
}
static inline void put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put_be32(uint8_t *p, uint32_t v)
{
    put_be16(p, (uint16_t)(v >> 16));
    put_be16(p + 2, (uint16_t)v);
}
static inline void put_be64(uint8_t *p, uint64_t v)
{
    put_be32(p, (uint32_t)(v >> 32));
    put_be32(p + 4, (uint32_t)v);
}

/* -- reading -- */

struct reader {
    const uint8_t *at, *end;
    bool failed;
};

static inline struct reader reader_of(struct span s)
{
    return (struct reader){.at = s.data, .end = s.data ? s.data + s.len : s.data};
}

static inline size_t reader_left(const struct reader *r)
{
    return r->failed ? 0 : (size_t)(r->end - r->at);
}

/* The next n bytes as a span; {NULL, 0} and failed when there are fewer. */
static inline struct span read_span(struct reader *r, size_t n)
{
    if (r->failed || n > (size_t)(r->end - r->at)) {
        r->failed = true;
        return (struct span){NULL, 0};
    }
    struct span s = {r->at, n};
    if (n)
        r->at += n;
    return s;
}

/* The last n bytes, cut off the end: for trailers. */
static inline struct span read_tail(struct reader *r, size_t n)
{
    if (r->failed || n > (size_t)(r->end - r->at)) {
        r->failed = true;
        return (struct span){NULL, 0};
    }
    if (n)
        r->end -= n;
    return (struct span){r->end, n};
}

/* A reader confined to the next n bytes: an inner field can't read past its parent. */
static inline struct reader read_sub(struct reader *r, size_t n)
{
    struct reader sub = reader_of(read_span(r, n));
    sub.failed = r->failed;
    return sub;
}

static inline struct span read_rest(struct reader *r)
{
    return read_span(r, reader_left(r));
}

static inline uint8_t read_u8(struct reader *r)
{
    struct span s = read_span(r, 1);
    return s.data ? s.data[0] : 0;
}
static inline uint16_t read_u16(struct reader *r)
{
    struct span s = read_span(r, 2);
    return s.data ? get_be16(s.data) : 0;
}
static inline uint32_t read_u32(struct reader *r)
{
    struct span s = read_span(r, 4);
    return s.data ? get_be32(s.data) : 0;
}
static inline uint64_t read_u64(struct reader *r)
{
    struct span s = read_span(r, 8);
    return s.data ? get_be64(s.data) : 0;
}

/* Nothing failed and nothing is left over. */
static inline bool reader_done(const struct reader *r)
{
    return !r->failed && r->at == r->end;
}

/* -- writing -- */

struct writer {
    uint8_t *start, *at, *end;
    bool failed;
};

static inline struct writer writer_of(void *data, size_t cap)
{
    uint8_t *p = data;
    return (struct writer){.start = p, .at = p, .end = p + cap};
}

static inline size_t writer_len(const struct writer *w)
{
    return (size_t)(w->at - w->start);
}

/* Room for n bytes to be filled in by the caller; NULL and failed when there is none. */
static inline uint8_t *write_room(struct writer *w, size_t n)
{
    if (w->failed || n > (size_t)(w->end - w->at)) {
        w->failed = true;
        return NULL;
    }
    uint8_t *p = w->at;
    w->at += n;
    return p;
}

static inline void write_bytes(struct writer *w, const void *data, size_t n)
{
    uint8_t *p = write_room(w, n);
    if (p && n)
        memcpy(p, data, n);
}
static inline void write_span(struct writer *w, struct span s)
{
    write_bytes(w, s.data, s.len);
}
static inline void write_u8(struct writer *w, uint8_t v)
{
    uint8_t *p = write_room(w, 1);
    if (p)
        p[0] = v;
}
static inline void write_u16(struct writer *w, uint16_t v)
{
    uint8_t *p = write_room(w, 2);
    if (p)
        put_be16(p, v);
}
static inline void write_u32(struct writer *w, uint32_t v)
{
    uint8_t *p = write_room(w, 4);
    if (p)
        put_be32(p, v);
}
static inline void write_u64(struct writer *w, uint64_t v)
{
    uint8_t *p = write_room(w, 8);
    if (p)
        put_be64(p, v);
}

/* Fills in, at offset `at`, a 16-bit length that was left open; a value over 65535 fails the writer. */
static inline void write_patch_u16(struct writer *w, size_t at, size_t value)
{
    if (w->failed || at + 2 > writer_len(w) || value > UINT16_MAX) {
        w->failed = true;
        return;
    }
    put_be16(w->start + at, (uint16_t)value);
}

#endif
