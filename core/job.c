#include "core/job.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define NICENESS 5 /* a burst of handshakes leaves the processors to packets first */

struct job_ring {
    struct ike_job **v; /* never full, for no more are under way */
    size_t cap, head, len;
};

struct job_pool {
    pthread_mutex_t lock; /* for all below but the threads */
    pthread_cond_t more;
    struct job_ring urgent, other, done;
    size_t under_way; /* pushed and not collected */
    bool ending;
    int wake_fd;
    pthread_t thread[JOB_THREADS];
    unsigned threads;
};

unsigned job_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > JOB_THREADS ? JOB_THREADS : (unsigned)n;
}

static void ring_put(struct job_ring *r, struct ike_job *job)
{
    r->v[(r->head + r->len++) % r->cap] = job;
}

static struct ike_job *ring_take(struct job_ring *r)
{
    if (!r->len)
        return NULL;
    struct ike_job *job = r->v[r->head];
    r->head = (r->head + 1) % r->cap;
    r->len--;
    return job;
}

/* Under the lock. NULL: the pool ends. */
static struct ike_job *next_job(struct job_pool *p)
{
    while (!p->ending && !p->urgent.len && !p->other.len)
        pthread_cond_wait(&p->more, &p->lock);
    if (p->ending)
        return NULL;
    struct ike_job *job = ring_take(&p->urgent);
    return job ? job : ring_take(&p->other);
}

static void *thread_main(void *arg)
{
    struct job_pool *p = arg;
    const uint64_t one = 1;
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS); /* of this thread alone; if not, it is the same work */
    pthread_mutex_lock(&p->lock);
    for (struct ike_job *job; (job = next_job(p)) != NULL;) {
        pthread_mutex_unlock(&p->lock);
        ike_job_run(job);
        pthread_mutex_lock(&p->lock);
        ring_put(&p->done, job);
        /* One write wakes for all that are done by the time they are looked at. A full counter is awake already. */
        if (p->done.len == 1)
            while (write(p->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
                ;
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static enum err start_threads(struct job_pool *p, unsigned threads)
{
    for (; p->threads < threads && p->threads < JOB_THREADS; p->threads++)
        if (pthread_create(&p->thread[p->threads], NULL, thread_main, p) != 0)
            return ERR_SYSTEM;
    return OK;
}

enum err job_pool_new(struct job_pool **out, unsigned threads, unsigned most, int wake_fd)
{
    struct job_pool *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    p->wake_fd = wake_fd;
    struct job_ring *rings[] = {&p->urgent, &p->other, &p->done};
    enum err e = OK;
    for (unsigned i = 0; i < sizeof rings / sizeof *rings; i++) {
        rings[i]->cap = most;
        rings[i]->v = calloc(most, sizeof(struct ike_job *));
        if (!rings[i]->v)
            e = ERR_NOMEM;
    }
    if (e == OK)
        e = start_threads(p, threads);
    if (e != OK) {
        job_pool_free(p);
        return e;
    }
    *out = p;
    return OK;
}

static void ring_free(struct job_ring *r)
{
    for (struct ike_job *job; (job = ring_take(r)) != NULL;)
        ike_job_free(job);
    free(r->v);
}

void job_pool_free(struct job_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    ring_free(&p->urgent);
    ring_free(&p->other);
    ring_free(&p->done);
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

enum err job_push(struct job_pool *p, struct ike_job *job)
{
    enum err e = OK;
    pthread_mutex_lock(&p->lock);
    if (p->under_way == p->other.cap) {
        e = ERR_FULL;
    } else {
        p->under_way++;
        ring_put(ike_job_urgent(job) ? &p->urgent : &p->other, job);
        pthread_cond_signal(&p->more);
    }
    pthread_mutex_unlock(&p->lock);
    return e;
}

static struct ike_job *take_done(struct job_pool *p)
{
    pthread_mutex_lock(&p->lock);
    struct ike_job *job = ring_take(&p->done);
    p->under_way -= job != NULL;
    pthread_mutex_unlock(&p->lock);
    return job;
}

bool job_collect(struct job_pool *p, struct ike_engine *e, unsigned most, ns_t until)
{
    ns_t now;
    for (unsigned i = 0; i < most && (now = clock_now()) < until; i++) {
        struct ike_job *job = take_done(p);
        if (!job)
            return false;
        ike_complete(e, job, now);
    }
    return true;
}
