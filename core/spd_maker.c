#include "core/spd_maker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct spd_maker {
    pthread_t thread;
    struct spd_entry *v;
    unsigned n;
    struct spd *spd;
    enum err err;
    atomic_bool done;
};

static void *thread_main(void *arg)
{
    struct spd_maker *m = arg;
    m->err = spd_new(&m->spd, m->v, m->n);
    atomic_store(&m->done, true);
    return NULL;
}

enum err spd_maker_new(struct spd_maker **out, struct spd_entry *v, unsigned n)
{
    struct spd_maker *m = calloc(1, sizeof *m);
    enum err e = m ? OK : ERR_NOMEM;
    if (e == OK) {
        m->v = v;
        m->n = n;
        e = pthread_create(&m->thread, NULL, thread_main, m) == 0 ? OK : ERR_SYSTEM;
    }
    if (e != OK) {
        free(m);
        free(v);
        return e;
    }
    *out = m;
    return OK;
}

bool spd_maker_done(const struct spd_maker *m)
{
    return atomic_load(&m->done);
}

enum err spd_maker_end(struct spd_maker *m, struct spd **out)
{
    pthread_join(m->thread, NULL);
    enum err e = m->err;
    *out = m->spd;
    free(m->v);
    free(m);
    return e;
}
