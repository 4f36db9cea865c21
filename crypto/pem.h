/* The textual encoding of certificates and CRLs (RFC 7468): files with any number of blocks, and text between them. */
#ifndef ADIT_PEM_H
#define ADIT_PEM_H

#include "core/base/buf.h"
#include "core/base/cursor.h"
#include "core/base/err.h"

/*
 * Hands each block with this label ("CERTIFICATE") to fn, in order, until one fails; or, when the text is one DER
 * element, that. *count: how many there were; none is not an error here. Errors: SYNTAX (a block is malformed), NOMEM,
 * what fn says.
 */
typedef enum err pem_fn(void *ctx, struct span der);
MUST_USE enum err pem_each(struct span text, const char *label, pem_fn *fn, void *ctx, unsigned *count);

/* The PEM text of one DER. Errors: NOMEM. */
MUST_USE enum err pem_encode(struct span der, const char *label, struct buf *out);

#endif
