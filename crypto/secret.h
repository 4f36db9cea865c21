/*
 * Memory for secrets, and what may be done with them: allocated non-dumpable and locked where the system allows, wiped
 * when freed, and in children of a fork.
 */
#ifndef ADIT_SECRET_H
#define ADIT_SECRET_H

#include "core/base/cursor.h"
#include "core/base/err.h"

#define SECRET_INLINE 256 /* most bytes of a struct secret: any PRF output, key or PSK that IKE handles */

/* A secret of bounded length held by value inside a structure that was allocated with secret_alloc. */
struct secret {
    uint16_t len;
    uint8_t b[SECRET_INLINE];
};

/* Start the crypto libraries; call once, before any thread. Errors: CRYPTO. */
MUST_USE enum err crypto_init(void);

/*
 * Zeroed memory for structures that hold keys, aligned to 64 bytes; up to 7 KB it shares locked pages with others, what
 * is larger takes whole ones. Any thread. NULL when there is none. secret_free(NULL) is fine.
 */
void *secret_alloc(size_t size);
void secret_free(void *p); /* wipes */

void secret_wipe(void *p, size_t n);
bool secret_equal(const void *a, const void *b, size_t n); /* constant-time */

static inline struct span secret_span(const struct secret *s)
{
    return (struct span){s->b, s->len};
}
/* Errors: RANGE (longer than SECRET_INLINE). */
MUST_USE enum err secret_set(struct secret *s, struct span value);

#endif
