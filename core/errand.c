#include "core/errand.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct errand {
    pthread_t thread;
    void (*run)(void *ctx);
    void *ctx;
    atomic_bool done;
};

static void *thread_main(void *arg)
{
    struct errand *e = arg;
    e->run(e->ctx);
    atomic_store(&e->done, true);
    return NULL;
}

enum err errand_new(struct errand **out, void (*run)(void *ctx), void *ctx)
{
    struct errand *e = calloc(1, sizeof *e);
    if (!e)
        return ERR_NOMEM;
    e->run = run;
    e->ctx = ctx;
    if (pthread_create(&e->thread, NULL, thread_main, e) != 0) {
        free(e);
        return ERR_SYSTEM;
    }
    *out = e;
    return OK;
}

bool errand_done(const struct errand *e)
{
    return atomic_load(&e->done);
}

void errand_end(struct errand *e)
{
    if (!e)
        return;
    pthread_join(e->thread, NULL);
    free(e);
}
