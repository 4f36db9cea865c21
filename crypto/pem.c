#include "crypto/pem.h"

#include <mbedtls/pem.h>
#include <stdio.h>

#include "crypto/x509.h"

#define LABEL_LINE 64

static enum err each_block(const char *text, const char *label, pem_fn *fn, void *ctx, unsigned *count)
{
    char begin[LABEL_LINE], end[LABEL_LINE];
    snprintf(begin, sizeof begin, "-----BEGIN %s-----", label);
    snprintf(end, sizeof end, "-----END %s-----", label);
    while ((text = strstr(text, begin))) {
        mbedtls_pem_context pem;
        size_t used = 0;
        mbedtls_pem_init(&pem);
        int ret = mbedtls_pem_read_buffer(&pem, begin, end, (const unsigned char *)text, NULL, 0, &used);
        enum err e = ret == MBEDTLS_ERR_PEM_ALLOC_FAILED ? ERR_NOMEM : ret != 0 ? ERR_SYNTAX : OK;
        if (e == OK)
            e = fn(ctx, span_of(pem.buf, pem.buflen));
        mbedtls_pem_free(&pem);
        TRY(e);
        ++*count;
        text += used;
    }
    return OK;
}

enum err pem_each(struct span text, const char *label, pem_fn *fn, void *ctx, unsigned *count)
{
    struct buf copy = {0};
    *count = 0;
    if (x509_is_der(text)) {
        *count = 1;
        return fn(ctx, text);
    }
    /* Theirs wants a string; one with a NUL ends there. */
    enum err e = buf_set(&copy, text);
    if (e == OK)
        e = buf_append(&copy, span_of("", 1));
    if (e == OK)
        e = each_block((const char *)copy.data, label, fn, ctx, count);
    buf_free(&copy);
    return e;
}

enum err pem_encode(struct span der, const char *label, struct buf *out)
{
    char begin[LABEL_LINE], end[LABEL_LINE];
    size_t used = 0;
    snprintf(begin, sizeof begin, "-----BEGIN %s-----\n", label);
    snprintf(end, sizeof end, "-----END %s-----\n", label);
    out->len = 0;
    TRY(buf_reserve(out, 2 * sizeof begin + der.len / 3 * 4 + der.len / 32 + 16));
    if (mbedtls_pem_write_buffer(begin, end, der.data, der.len, out->data, out->cap, &used) != 0)
        return ERR_NOMEM;
    out->len = used - 1; /* theirs ends with a NUL */
    return OK;
}
