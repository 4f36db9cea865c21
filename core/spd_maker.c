#include "core/spd_maker.h"

#include <stdlib.h>

#include "core/errand.h"

struct spd_maker {
    struct errand *errand;
    struct spd_entry *v;
    unsigned n;
    struct spd *spd;
    enum err err;
};

static void make(void *ctx)
{
    struct spd_maker *m = ctx;
    m->err = spd_new(&m->spd, m->v, m->n);
}

enum err spd_maker_new(struct spd_maker **out, struct spd_entry *v, unsigned n)
{
    struct spd_maker *m = calloc(1, sizeof *m);
    enum err e = m ? OK : ERR_NOMEM;
    if (e == OK) {
        m->v = v;
        m->n = n;
        e = errand_new(&m->errand, make, m);
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
    return errand_done(m->errand);
}

enum err spd_maker_end(struct spd_maker *m, struct spd **out)
{
    errand_end(m->errand);
    enum err e = m->err;
    *out = m->spd;
    free(m->v);
    free(m);
    return e;
}
