#include "core/base/timer.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>

void timer_heap_init(struct timer_heap *h, void *ctx)
{
    *h = (struct timer_heap){.ctx = ctx};
}

void timer_heap_free(struct timer_heap *h)
{
    for (size_t i = 0; i < h->len; i++)
        h->heap[i]->slot = 0;
    free(h->heap);
    *h = (struct timer_heap){.ctx = h->ctx};
}

static void place(struct timer_heap *h, size_t i, struct timer *t)
{
    h->heap[i] = t;
    t->slot = i + 1;
}

static void sift_up(struct timer_heap *h, size_t i, struct timer *t)
{
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (h->heap[parent]->at <= t->at)
            break;
        place(h, i, h->heap[parent]);
        i = parent;
    }
    place(h, i, t);
}

static void sift_down(struct timer_heap *h, size_t i, struct timer *t)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->len)
            break;
        if (child + 1 < h->len && h->heap[child + 1]->at < h->heap[child]->at)
            child++;
        if (t->at <= h->heap[child]->at)
            break;
        place(h, i, h->heap[child]);
        i = child;
    }
    place(h, i, t);
}

/* Puts t where it belongs, given that place i is free for it. */
static void settle(struct timer_heap *h, size_t i, struct timer *t)
{
    if (i > 0 && h->heap[(i - 1) / 2]->at > t->at)
        sift_up(h, i, t);
    else
        sift_down(h, i, t);
}

enum err timer_add(struct timer_heap *h, struct timer *t, void (*fire)(struct timer *, void *, ns_t))
{
    if (h->announced == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 16;
        if (cap > SIZE_MAX / sizeof(struct timer *))
            return ERR_NOMEM;
        struct timer **heap = realloc(h->heap, cap * sizeof(struct timer *));
        if (!heap)
            return ERR_NOMEM;
        h->heap = heap;
        h->cap = cap;
    }
    h->announced++;
    *t = (struct timer){.at = NS_NEVER, .slot = 0, .fire = fire};
    return OK;
}

void timer_drop(struct timer_heap *h, struct timer *t)
{
    timer_cancel(h, t);
    h->announced--;
    t->fire = NULL;
}

void timer_set(struct timer_heap *h, struct timer *t, ns_t at)
{
    t->at = at < h->floor ? h->floor : at;
    settle(h, t->slot ? t->slot - 1 : h->len++, t);
}

void timer_cancel(struct timer_heap *h, struct timer *t)
{
    if (!t->slot)
        return;
    size_t i = t->slot - 1;
    t->slot = 0;
    struct timer *last = h->heap[--h->len];
    if (last != t)
        settle(h, i, last);
}

ns_t timer_next(const struct timer_heap *h)
{
    return h->len ? h->heap[0]->at : NS_NEVER;
}

void timer_run(struct timer_heap *h, ns_t now)
{
    timer_run_some(h, now, UINT_MAX);
}

void timer_run_some(struct timer_heap *h, ns_t now, unsigned most)
{
    if (now == NS_NEVER)
        return;
    h->floor = now + 1;
    for (unsigned n = 0; n < most && h->len && h->heap[0]->at <= now; n++) {
        struct timer *t = h->heap[0];
        timer_cancel(h, t);
        t->fire(t, h->ctx, now);
    }
    h->floor = 0;
}
