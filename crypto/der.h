/*
 * The little DER (X.690) that keys, signatures and certificates need, strictly: definite lengths in their shortest
 * form, integers that are not negative in their shortest form. What is not so fails the reader.
 */
#ifndef ADIT_DER_H
#define ADIT_DER_H

#include "core/base/cursor.h"

enum der_tag {
    DER_BOOLEAN = 0x01,
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_OCTET_STRING = 0x04,
    DER_NULL = 0x05,
    DER_OID = 0x06,
    DER_UTF8 = 0x0c,
    DER_PRINTABLE = 0x13,
    DER_T61 = 0x14,
    DER_IA5 = 0x16,
    DER_UTC_TIME = 0x17,
    DER_GENERALIZED_TIME = 0x18,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_CONTEXT = 0xa0, /* plus the number, constructed */
};

/* The content of the next element, which must have this tag; a failed reader and nothing otherwise. */
struct span der_read(struct reader *r, uint8_t tag);
struct reader der_enter(struct reader *r, uint8_t tag); /* the same as a reader of what is in it */
bool der_next_is(const struct reader *r, uint8_t tag);
struct reader der_enter_any(struct reader *r, uint8_t *tag); /* the next element, whatever its tag */
struct span der_read_whole(struct reader *r);                /* the next element with its head */
bool der_read_default_false(struct reader *r);               /* a BOOLEAN that may be absent, and is FALSE then */
/* An INTEGER of at most n bytes, into out with zeroes before it. */
void der_read_uint(struct reader *r, uint8_t *out, size_t n);

size_t der_size(size_t len);                                    /* of an element with so long a content; below 65536 */
void der_write_head(struct writer *w, uint8_t tag, size_t len); /* len below 65536 */
size_t der_uint_len(struct span value);                         /* what der_write_uint writes; value below 120 bytes */
void der_write_uint(struct writer *w, struct span value);

#endif
