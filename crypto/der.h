/*
 * The little DER (X.690) that keys and signatures need, strictly: definite lengths in their shortest form, and
 * integers, never negative, in theirs. What is not so fails the reader.
 */
#ifndef ADIT_DER_H
#define ADIT_DER_H

#include "core/base/cursor.h"

enum der_tag {
    DER_INTEGER = 0x02,
    DER_OCTET_STRING = 0x04,
    DER_NULL = 0x05,
    DER_OID = 0x06,
    DER_SEQUENCE = 0x30,
    DER_CONTEXT = 0xa0, /* plus the number, constructed */
};

/* The content of the next element, which must have this tag; a failed reader and nothing otherwise. */
struct span der_read(struct reader *r, uint8_t tag);
struct reader der_enter(struct reader *r, uint8_t tag); /* the same as a reader of what is in it */
bool der_next_is(const struct reader *r, uint8_t tag);
/* An INTEGER of at most n bytes, into out with zeroes before it. */
void der_read_uint(struct reader *r, uint8_t *out, size_t n);

void der_write_head(struct writer *w, uint8_t tag, size_t len); /* len below 65536 */
size_t der_uint_len(struct span value);                         /* what der_write_uint writes; value below 120 bytes */
void der_write_uint(struct writer *w, struct span value);

#endif
