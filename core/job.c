#include "core/job.h"

#include <stdlib.h>

static enum err job_grow(struct job_queue *q)
{
    size_t cap = q->cap ? q->cap * 2 : 64;
    struct ike_job **ring = calloc(cap, sizeof *ring);
    if (!ring)
        return ERR_NOMEM;
    for (size_t i = 0; i < q->len; i++)
        ring[i] = q->ring[(q->head + i) % q->cap];
    free(q->ring);
    q->ring = ring;
    q->cap = cap;
    q->head = 0;
    return OK;
}

enum err job_push(struct job_queue *q, struct ike_job *job)
{
    if (q->len == JOB_QUEUE)
        return ERR_FULL;
    if (q->len == q->cap)
        TRY(job_grow(q));
    q->ring[(q->head + q->len++) % q->cap] = job;
    return OK;
}

bool job_run(struct job_queue *q, struct ike_engine *e)
{
    if (!q->len)
        return false;
    struct ike_job *job = q->ring[q->head];
    q->head = (q->head + 1) % q->cap;
    q->len--;
    ike_job_run(job);
    ike_complete(e, job, clock_now());
    return true;
}

void job_queue_free(struct job_queue *q)
{
    for (size_t i = 0; i < q->len; i++)
        ike_job_free(q->ring[(q->head + i) % q->cap]);
    free(q->ring);
    *q = (struct job_queue){0};
}
