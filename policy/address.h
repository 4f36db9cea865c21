/* Prefixes and ranges of addresses. Every selector is a range in the end (RFC 4301 section 4.4.1.1, 7296 3.13.1). */
#ifndef ADIT_ADDRESS_H
#define ADIT_ADDRESS_H

#include "core/base/err.h"
#include "core/base/ip.h"

struct prefix {
    struct ip ip; /* as written: host bits are kept (an interface address) */
    uint8_t bits;
};

struct ip_range { /* both ends included, both of one family, first <= last */
    struct ip first, last;
};

#define PREFIX_TEXT 56
#define RANGE_TEXT 100

/* "10.1.0.0/24", "10.1.0.1" (a whole-length prefix), "2001:db8::/32". Errors: SYNTAX, RANGE (prefix length). */
MUST_USE enum err prefix_parse(const char *text, struct prefix *out);
const char *prefix_format(const struct prefix *p, char *text);
bool prefix_has_host_bits(const struct prefix *p);
struct ip_range prefix_range(const struct prefix *p);
/* The range as a prefix, if it is one. Errors: MISMATCH. */
MUST_USE enum err range_prefix(const struct ip_range *r, struct prefix *out);
/* Covers the range exactly with prefixes: at most cap of them into out; returns how many. Errors: FULL. */
MUST_USE enum err range_prefixes(const struct ip_range *r, struct prefix *out, unsigned cap, unsigned *n);
const char *range_format(const struct ip_range *r, char *text); /* as a prefix if it is one, else "a-b" */

int ip_compare(const struct ip *a, const struct ip *b); /* by family, then as a number */
bool range_contains(const struct ip_range *r, const struct ip *ip);
bool range_within(const struct ip_range *inner, const struct ip_range *outer);
bool range_intersect(const struct ip_range *a, const struct ip_range *b, struct ip_range *out); /* false: empty */
/* What is left of `from` without `cut`: below it, above it. Returns how many ranges that are, 0 to 2. */
unsigned range_subtract(const struct ip_range *from, const struct ip_range *cut, struct ip_range out[2]);

#endif
