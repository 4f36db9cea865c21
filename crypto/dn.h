/* X.501 distinguished names of the simple kind, "C=CH, CN=gate", to and from DER (RFC 5280 section 4.1.2.4). */
#ifndef ADIT_DN_H
#define ADIT_DN_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "core/base/escape.h"

/*
 * Attributes C, ST (S), L, O, OU, CN, emailAddress (E), in the order written; separated by commas, or by slashes if the
 * text begins with one; a backslash keeps the next character's meaning away. Errors: SYNTAX, RANGE (does not fit),
 * UNSUPPORTED (another attribute).
 */
MUST_USE enum err dn_encode(const char *text, struct writer *w);
/* Text as above; attributes that have no short name by their number; what does not parse in hex. Safe for logs. */
const char *dn_format(struct span der, char *text, size_t size);
/* RFC 5280 section 7.1 in the simple: the same attributes in the same order, values alike but for their string type and
 * the case of ASCII letters. What does not parse is equal only byte by byte. */
bool dn_equal(struct span a, struct span b);
/* Whether name is subtree or below it: it begins with the RDNs of subtree. What does not parse never is. */
bool dn_within(struct span name, struct span subtree);

/* One attribute with its value; `first` where it begins an RDN. */
struct dn_attribute {
    struct span oid, value;
    uint8_t tag; /* enum der_tag */
    bool first;
};
/* Goes through a name from its most significant attribute on; the spans are views into it. */
struct dn_walk {
    struct reader rdns, set;
};
struct dn_walk dn_walk_of(struct span der);
bool dn_next(struct dn_walk *w, struct dn_attribute *out); /* false at the end or at a fault */
bool dn_done(const struct dn_walk *w); /* after that: whether it was the end of a well-formed name */

/* Appends an object identifier as "2.5.29.30". */
void oid_format(struct span oid, struct text *t);

#endif
