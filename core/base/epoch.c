#include "core/base/epoch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define LINE 64
#define OFFLINE 0 /* real epochs start at 1 */

/* The epoch a reader saw at its last quiescent point: it holds nothing that was unlinked before that epoch began. */
struct reader_state {
    _Alignas(LINE) _Atomic uint64_t seen;
};

struct retired {
    struct retired *next;
    uint64_t stamp; /* safe to free once every reader has seen this epoch */
    void (*free_fn)(void *);
    void *object;
};

struct epoch {
    _Alignas(LINE) _Atomic uint64_t now;
    unsigned count, waiting;
    struct retired *first, **last; /* oldest first, so stamps ascend */
    struct reader_state readers[];
};

enum err epoch_new(struct epoch **out, unsigned readers)
{
    size_t size = sizeof(struct epoch) + readers * sizeof(struct reader_state);
    struct epoch *e = aligned_alloc(LINE, size);
    if (!e)
        return ERR_NOMEM;
    atomic_init(&e->now, 1);
    e->count = readers;
    e->waiting = 0;
    e->first = NULL;
    e->last = &e->first;
    for (unsigned i = 0; i < readers; i++)
        atomic_init(&e->readers[i].seen, OFFLINE);
    *out = e;
    return OK;
}

/* Frees what was retired up to and including epoch `upto`; returns how many still wait. */
static unsigned free_upto(struct epoch *e, uint64_t upto)
{
    while (e->first && e->first->stamp <= upto) {
        struct retired *r = e->first;
        e->first = r->next;
        if (!e->first)
            e->last = &e->first;
        r->free_fn(r->object);
        free(r);
        e->waiting--;
    }
    return e->waiting;
}

void epoch_free(struct epoch *e)
{
    if (!e)
        return;
    (void)free_upto(e, UINT64_MAX);
    free(e);
}

void epoch_online(struct epoch *e, unsigned reader)
{
    /*
     * Announce the epoch first, then look whether it has moved on. Either the control thread sees the announcement and
     * waits, or it had looked before; then the second load sees its new epoch, and with it everything it unlinked.
     */
    uint64_t now = atomic_load(&e->now);
    for (;;) {
        atomic_store(&e->readers[reader].seen, now);
        uint64_t again = atomic_load(&e->now);
        if (again == now)
            return;
        now = again;
    }
}

void epoch_quiesce(struct epoch *e, unsigned reader)
{
    uint64_t now = atomic_load_explicit(&e->now, memory_order_acquire);
    /* Once a batch: spare the cache line when nothing was retired since. */
    if (atomic_load_explicit(&e->readers[reader].seen, memory_order_relaxed) != now)
        atomic_store_explicit(&e->readers[reader].seen, now, memory_order_release);
}

void epoch_offline(struct epoch *e, unsigned reader)
{
    atomic_store_explicit(&e->readers[reader].seen, OFFLINE, memory_order_release);
}

enum err epoch_retire(struct epoch *e, void (*free_fn)(void *), void *object)
{
    struct retired *r = malloc(sizeof *r);
    if (!r)
        return ERR_NOMEM;
    *r =
        (struct retired){.next = NULL, .stamp = atomic_fetch_add(&e->now, 1) + 1, .free_fn = free_fn, .object = object};
    *e->last = r;
    e->last = &r->next;
    e->waiting++;
    return OK;
}

unsigned epoch_reclaim(struct epoch *e)
{
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; e->first && i < e->count; i++) {
        uint64_t seen = atomic_load(&e->readers[i].seen);
        if (seen != OFFLINE && seen < oldest)
            oldest = seen;
    }
    return free_upto(e, oldest);
}

void epoch_wait(struct epoch *e)
{
    const struct timespec pause = {.tv_nsec = 50 * 1000};
    uint64_t stamp = atomic_fetch_add(&e->now, 1) + 1;
    for (unsigned i = 0; i < e->count; i++) {
        for (;;) {
            uint64_t seen = atomic_load(&e->readers[i].seen);
            if (seen == OFFLINE || seen >= stamp)
                break;
            (void)nanosleep(&pause, NULL);
        }
    }
    (void)free_upto(e, stamp);
}
