#include "core/base/buf.h"

#include <stdlib.h>
#include <string.h>

enum err buf_reserve(struct buf *b, size_t cap)
{
    if (cap <= b->cap)
        return OK;
    size_t want = b->cap ? b->cap : 64;
    while (want < cap)
        want = want > SIZE_MAX / 2 ? cap : want * 2;
    /* Not realloc: it may leave a copy of the old bytes behind, and they may be secret. */
    uint8_t *data = malloc(want);
    if (!data)
        return ERR_NOMEM;
    if (b->len)
        memcpy(data, b->data, b->len);
    if (b->data) {
        explicit_bzero(b->data, b->cap);
        free(b->data);
    }
    b->data = data;
    b->cap = want;
    return OK;
}

enum err buf_append(struct buf *b, struct span s)
{
    if (s.len == 0)
        return OK;
    if (s.len > SIZE_MAX - b->len)
        return ERR_NOMEM;
    TRY(buf_reserve(b, b->len + s.len));
    memcpy(b->data + b->len, s.data, s.len);
    b->len += s.len;
    return OK;
}

enum err buf_set(struct buf *b, struct span s)
{
    if (s.len > b->cap) {
        struct buf fresh = {NULL, 0, 0};
        TRY(buf_append(&fresh, s));
        buf_free(b);
        *b = fresh;
        return OK;
    }
    /* The new content may be a part of the old one. */
    if (s.len)
        memmove(b->data, s.data, s.len);
    if (b->len > s.len)
        explicit_bzero(b->data + s.len, b->len - s.len);
    b->len = s.len;
    return OK;
}

void buf_free(struct buf *b)
{
    if (b->data) {
        explicit_bzero(b->data, b->cap);
        free(b->data);
    }
    *b = (struct buf){NULL, 0, 0};
}
