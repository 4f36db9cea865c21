#include "policy/overlap.h"

#include <stdlib.h>

enum err overlaps_add(struct overlaps *o, const struct ip_range *range, uint32_t a, uint32_t b)
{
    if (o->n == o->cap) {
        unsigned cap = o->cap ? o->cap * 2 : 16;
        struct overlap_item *v = realloc(o->v, cap * sizeof *v);
        if (!v)
            return ERR_NOMEM;
        o->v = v;
        o->cap = cap;
    }
    o->v[o->n++] = (struct overlap_item){.range = *range, .a = a, .b = b};
    return OK;
}

void overlaps_free(struct overlaps *o)
{
    free(o->v);
    *o = (struct overlaps){0};
}

static int by_first(const void *x, const void *y)
{
    const struct overlap_item *a = x, *b = y;
    return ip_compare(&a->range.first, &b->range.first);
}

/* The tree of v[low] to v[high - 1]: the middle one is its root. Never empty. */
static const struct ip *note_last(struct overlap_item *v, unsigned low, unsigned high)
{
    unsigned middle = low + (high - low) / 2;
    const struct ip *last = &v[middle].range.last;
    const struct ip *sides[] = {low < middle ? note_last(v, low, middle) : last,
                                middle + 1 < high ? note_last(v, middle + 1, high) : last};
    for (unsigned i = 0; i < 2; i++)
        if (ip_compare(sides[i], last) > 0)
            last = sides[i];
    v[middle].last = *last;
    return &v[middle].last;
}

void overlaps_sort(struct overlaps *o)
{
    if (!o->n)
        return;
    qsort(o->v, o->n, sizeof *o->v, by_first);
    (void)note_last(o->v, 0, o->n);
}

struct visit {
    const struct overlap_item *v;
    const struct ip_range *range;
    bool (*fn)(void *ctx, const struct overlap_item *item);
    void *ctx;
};

static bool visit(const struct visit *w, unsigned low, unsigned high)
{
    if (low == high)
        return false;
    unsigned middle = low + (high - low) / 2;
    const struct overlap_item *item = &w->v[middle];
    if (ip_compare(&item->last, &w->range->first) < 0)
        return false;
    if (visit(w, low, middle))
        return true;
    if (ip_compare(&item->range.first, &w->range->last) > 0)
        return false;
    if (ip_compare(&item->range.last, &w->range->first) >= 0 && w->fn(w->ctx, item))
        return true;
    return visit(w, middle + 1, high);
}

bool overlaps_each(const struct overlaps *o, const struct ip_range *range,
                   bool (*fn)(void *ctx, const struct overlap_item *item), void *ctx)
{
    const struct visit w = {o->v, range, fn, ctx};
    return visit(&w, 0, o->n);
}
