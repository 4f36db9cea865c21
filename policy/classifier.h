/*
 * Many boxes compiled for one question: which of those that hold a point comes first? (policy/region.h says how
 * policies become boxes, and packets points.)
 *
 * It is a tree of the boxes themselves, each in one leaf, so memory is linear whatever they are: up to 7 boxes to a
 * leaf, and nodes, of two cache lines, that part theirs along one axis, the one where it tells them apart best: in
 * slabs, with those that reach over a border apart from the others, or, where most do, by rank. Nothing is copied, as it
 * is in the tries and decision trees that cut space instead, nor does anything depend on prefix lengths, as it does in
 * tuple space search. A child knows its lowest entry, so that what can't come before the best one found is left alone.
 *
 * A lookup goes down one path for what is apart on some axis, and one more for each prefix within which the point lies
 * among longer ones: O(log n) nodes. No child has more than seven eighths of its node's boxes, so depth is bounded for
 * all sets. No structure of linear size is as quick with any boxes at all: some could be made up of which many nodes hold
 * a point on every axis while none of their boxes does. test/unit/test_classifier.c tries what is known to be hard on
 * classifiers.
 */
#ifndef ADIT_CLASSIFIER_H
#define ADIT_CLASSIFIER_H

#include "policy/region.h"

#define CLASSIFIER_NONE UINT32_MAX

struct classifier;

/* Of boxes of that many axes; reorders nothing, keeps nothing of theirs. Errors: NOMEM (or more than 2^28 boxes). */
MUST_USE enum err classifier_new(struct classifier **out, unsigned axes, const struct regions *in);
void classifier_free(struct classifier *c);
size_t classifier_size(const struct classifier *c); /* bytes */

/* Whether the entry really has the point: asked about boxes that are not exact. */
typedef bool (*classifier_confirm)(const void *ctx, uint32_t entry);

/* The lowest entry that has the point, or CLASSIFIER_NONE. */
uint32_t classifier_find(const struct classifier *c, const uint32_t *x, classifier_confirm confirm, const void *ctx);

/*
 * Questions about a box instead of a point. They are given up where they take more than some hundred steps, so that
 * asking them for each of the boxes never takes long.
 *
 * meets: is there one of an entry below `before` that has some of it? Yes, if given up, or if one is not exact.
 * covering: the lowest entry below `before` that has a box with all of it, and is confirmed; or CLASSIFIER_NONE.
 */
bool classifier_meets(const struct classifier *c, const struct region *r, uint32_t before);
uint32_t classifier_covering(const struct classifier *c, const struct region *r, uint32_t before,
                             classifier_confirm confirm, const void *ctx);

#endif
