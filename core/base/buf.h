/* A growable byte buffer that owns its bytes and wipes them when it grows or is freed (keys and messages pass through). */
#ifndef ADIT_BUF_H
#define ADIT_BUF_H

#include "core/base/cursor.h"
#include "core/base/err.h"

struct buf {
    uint8_t *data;
    size_t len, cap;
};

/* Errors: NOMEM. A zeroed struct buf is an empty one. */
MUST_USE enum err buf_reserve(struct buf *b, size_t cap);
MUST_USE enum err buf_append(struct buf *b, struct span s);
MUST_USE enum err buf_set(struct buf *b, struct span s); /* replaces the content */
void buf_free(struct buf *b);                            /* wipes, frees, zeroes the struct */

static inline struct span buf_span(const struct buf *b)
{
    return (struct span){b->data, b->len};
}

#endif
