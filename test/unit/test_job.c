/* Slow steps: run by threads, urgent ones first; their queue is bounded; what is left at the end is freed, not run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/job.h"
#include "ike/internal.h"
#include "test/unit/rig.h"

static struct rig rig;

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

struct outcome {
    struct job_pool *jobs;
    bool refuse, ended, ok;
    unsigned taken;
    char text[256];
};

static enum err take_job(void *ctx, struct ike_job *job)
{
    struct outcome *o = ctx;
    o->taken++;
    return o->refuse ? ERR_FULL : job_push(o->jobs, job);
}

static void note_event(void *ctx, const struct ike_event *e)
{
    struct outcome *o = ctx;
    if (e->command != 7)
        return;
    o->ended = true;
    o->ok = e->command_ok;
    strncpy(o->text, e->text, sizeof o->text - 1);
}

static struct ike_engine *engine(struct outcome *o)
{
    static struct stat_block stats;
    struct ike_env env = {.ctx = o, .random = random_system, .stats = &stats, .job = take_job, .event = note_event};
    struct ike_engine *e;
    rig_setup(&rig, 1, "");
    assert_int_equal(ike_new(&e, &env, rig.host[0].config, NULL), OK);
    return e;
}

static int wake_fd(void)
{
    int fd = eventfd(0, EFD_NONBLOCK);
    assert_true(fd >= 0);
    return fd;
}

/* Jobs as the engine makes them, but for what follows on them. */
#define MANY 300
static struct ike_sa waiting, up = {.established = 1};
static unsigned finished, order[MANY];

static void note_done(struct ike_sa *sa, struct ike_job *job)
{
    assert_int_equal(job->result, OK);
    assert_int_equal(job->pub.len, 32);
    assert_true(finished < MANY);
    order[finished++] = sa == &up;
}

static struct ike_job *new_job(struct ike_sa *sa)
{
    struct ike_job *job = secret_alloc(sizeof *job);
    assert_non_null(job);
    job->kind = JOB_OFFER;
    job->group = 31;
    job->random = random_system;
    job->sa = sa;
    job->done = note_done;
    return job;
}

static void test_refused_job_ends_the_attempt_with_the_reason(void **state)
{
    (void)state;
    struct outcome o = {.refuse = true};
    struct ike_engine *e = engine(&o);
    ike_up(e, rig.host[0].config->peers[0], NULL, 7, 1);
    assert_true(o.ended);
    assert_false(o.ok);
    assert_non_null(strstr(o.text, err_text(ERR_FULL)));
    ike_free(e);
}

/* That nothing leaks is a sanitizer's to see. */
static void test_jobs_left_at_the_end_are_freed_without_being_run(void **state)
{
    (void)state;
    struct outcome o = {0};
    int fd = wake_fd();
    assert_int_equal(job_pool_new(&o.jobs, 0, 8, fd), OK);
    struct ike_engine *e = engine(&o);
    ike_up(e, rig.host[0].config->peers[0], NULL, 7, 1);
    assert_int_equal(o.taken, 1);
    assert_false(job_collect(o.jobs, e, 8, NS_NEVER));
    ike_free(e);
    job_pool_free(o.jobs);
    close(fd);
    assert_false(o.ended);
}

static void test_queue_is_bounded_and_refuses_more(void **state)
{
    (void)state;
    struct job_pool *p;
    int fd = wake_fd();
    assert_int_equal(job_pool_new(&p, 0, 5, fd), OK);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(job_push(p, new_job(i % 2 ? &up : &waiting)), OK);
    struct ike_job *more = new_job(&up);
    assert_int_equal(job_push(p, more), ERR_FULL);
    ike_job_free(more);
    job_pool_free(p);
    close(fd);
}

/* Collects until all are done, woken by the descriptor alone. */
static void collect(struct job_pool *p, struct ike_engine *e, int fd, unsigned all)
{
    while (finished < all) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        uint64_t count;
        assert_int_equal(poll(&poll_fd, 1, 10000), 1);
        assert_int_equal(read(fd, &count, sizeof count), sizeof count);
        assert_true(job_collect(p, e, 3, 0)); /* there may be some: it has not looked */
        while (job_collect(p, e, 3, NS_NEVER))
            ;
    }
}

static void test_threads_run_every_job_and_say_when_there_is_something_to_collect(void **state)
{
    (void)state;
    struct outcome o = {0};
    struct job_pool *p;
    int fd = wake_fd();
    struct ike_engine *e = engine(&o);
    for (unsigned threads = 1; threads <= JOB_THREADS; threads += 3) {
        finished = 0;
        assert_int_equal(job_pool_new(&p, threads, MANY, fd), OK);
        for (unsigned round = 0; round < 3; round++) { /* the queue is free again once they are collected */
            for (unsigned i = 0; i < MANY / 3; i++)
                assert_int_equal(job_push(p, new_job(&waiting)), OK);
            collect(p, e, fd, MANY / 3 * (round + 1));
        }
        job_pool_free(p);
    }
    ike_free(e);
    close(fd);
}

/* Holds its job up for as long as others are pushed. */
static void fill_once_pushed(void *pushing, void *p, size_t n)
{
    pthread_mutex_lock(pushing);
    pthread_mutex_unlock(pushing);
    random_fill(&random_system, p, n);
}

static void test_jobs_of_an_established_sa_go_first(void **state)
{
    (void)state;
    struct outcome o = {0};
    struct job_pool *p;
    int fd = wake_fd();
    struct ike_engine *e = engine(&o);
    finished = 0;
    assert_int_equal(job_pool_new(&p, 1, MANY, fd), OK);
    static pthread_mutex_t pushing = PTHREAD_MUTEX_INITIALIZER;
    struct ike_job *first = new_job(&waiting);
    first->random = (struct random_source){&pushing, fill_once_pushed};
    pthread_mutex_lock(&pushing);
    assert_int_equal(job_push(p, first), OK);
    for (unsigned i = 0; i < MANY - 2; i++)
        assert_int_equal(job_push(p, new_job(&waiting)), OK);
    assert_int_equal(job_push(p, new_job(&up)), OK);
    pthread_mutex_unlock(&pushing);
    collect(p, e, fd, MANY);
    assert_true(order[0] || order[1]); /* it overtook all others but the one that the thread may have begun */
    job_pool_free(p);
    ike_free(e);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_is_bounded_and_refuses_more),
        cmocka_unit_test_teardown(test_refused_job_ends_the_attempt_with_the_reason, teardown),
        cmocka_unit_test_teardown(test_jobs_left_at_the_end_are_freed_without_being_run, teardown),
        cmocka_unit_test_teardown(test_threads_run_every_job_and_say_when_there_is_something_to_collect, teardown),
        cmocka_unit_test_teardown(test_jobs_of_an_established_sa_go_first, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
