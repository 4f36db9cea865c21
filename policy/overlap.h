/*
 * Ranges of addresses, found by what they overlap: a search tree over their first addresses, each node of which knows the
 * last address below it. What a range overlaps is found in time that grows with that and not with how many there are.
 */
#ifndef ADIT_OVERLAP_H
#define ADIT_OVERLAP_H

#include "policy/address.h"

struct overlap_item {
    struct ip_range range;
    uint32_t a, b;  /* whose it is: the caller's */
    struct ip last; /* the highest last address of those below it in the tree */
};

struct overlaps {
    struct overlap_item *v;
    unsigned n, cap;
};

/* A zeroed one is empty. All are added, then it is sorted once, then asked. Errors: NOMEM. */
MUST_USE enum err overlaps_add(struct overlaps *o, const struct ip_range *range, uint32_t a, uint32_t b);
void overlaps_sort(struct overlaps *o);
void overlaps_free(struct overlaps *o);

/* Calls fn for each that shares an address with the range, until it returns true; whether it did. */
bool overlaps_each(const struct overlaps *o, const struct ip_range *range,
                   bool (*fn)(void *ctx, const struct overlap_item *item), void *ctx);

#endif
