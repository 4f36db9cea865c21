/*
 * Deadlines in a binary heap with embedded nodes: set, move and cancel in O(log n), the earliest in O(1). One heap
 * serves one owner (an IKE engine, a daemon); no thread of its own, no clock of its own.
 */
#ifndef ADIT_TIMER_H
#define ADIT_TIMER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/clock.h"
#include "core/base/err.h"

struct timer {
    ns_t at;
    size_t slot; /* position in the heap + 1; 0: not set */
    void (*fire)(struct timer *t, void *ctx, ns_t now);
};

struct timer_heap {
    struct timer **heap;
    size_t len, cap, announced;
    ns_t floor; /* while timers fire: what they set is due no earlier, so that a run ends */
    void *ctx;  /* handed to every fire() */
};

void timer_heap_init(struct timer_heap *h, void *ctx);
void timer_heap_free(struct timer_heap *h); /* the timers themselves belong to their owners */

/*
 * Sets or moves t to fire at `at`. The heap keeps a place for every timer announced by timer_add, so that setting
 * never fails; timer_add before the first set, timer_drop before the memory goes away.
 */
MUST_USE enum err timer_add(struct timer_heap *h, struct timer *t, void (*fire)(struct timer *, void *, ns_t));
void timer_drop(struct timer_heap *h, struct timer *t);
void timer_set(struct timer_heap *h, struct timer *t, ns_t at);
void timer_cancel(struct timer_heap *h, struct timer *t);
static inline bool timer_is_set(const struct timer *t)
{
    return t->slot != 0;
}

ns_t timer_next(const struct timer_heap *h); /* earliest deadline, or NS_NEVER */
/* Fires all that are due, each cancelled first. fire may set again: for `now` or earlier it means the next run. */
void timer_run(struct timer_heap *h, ns_t now);
/* The first `most` of them; timer_next tells if there are more. */
void timer_run_some(struct timer_heap *h, ns_t now, unsigned most);

#endif
