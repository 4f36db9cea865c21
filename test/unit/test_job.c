/* Slow steps: their queue is bounded, one that is refused fails what needed it, and none is run at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/job.h"
#include "test/unit/rig.h"

static struct rig rig;

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void test_queue_is_bounded_and_refuses_more(void **state)
{
    (void)state;
    struct job_queue q = {0};
    struct ike_job *job = (struct ike_job *)&rig; /* never looked into */
    for (unsigned i = 0; i < JOB_QUEUE; i++)
        assert_int_equal(job_push(&q, job), OK);
    assert_int_equal(job_push(&q, job), ERR_FULL);
    assert_int_equal(q.len, JOB_QUEUE);
    free(q.ring);
}

struct outcome {
    struct job_queue jobs;
    bool refuse, ended, ok;
    char text[256];
};

static enum err take_job(void *ctx, struct ike_job *job)
{
    struct outcome *o = ctx;
    return o->refuse ? ERR_FULL : job_push(&o->jobs, job);
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
    ike_up(e, rig.host[0].config->peers[0], NULL, 7, 1);
    return e;
}

static void test_refused_job_ends_the_attempt_with_the_reason(void **state)
{
    (void)state;
    struct outcome o = {.refuse = true};
    struct ike_engine *e = engine(&o);
    assert_true(o.ended);
    assert_false(o.ok);
    assert_non_null(strstr(o.text, err_text(ERR_FULL)));
    ike_free(e);
}

/* That nothing leaks is a sanitizer's to see. */
static void test_jobs_left_at_the_end_are_freed_without_being_run(void **state)
{
    (void)state;
    struct outcome o = {.refuse = false};
    struct ike_engine *e = engine(&o);
    assert_int_equal(o.jobs.len, 1);
    ike_free(e);
    job_queue_free(&o.jobs);
    assert_int_equal(o.jobs.len, 0);
    assert_false(o.ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_is_bounded_and_refuses_more),
        cmocka_unit_test_teardown(test_refused_job_ends_the_attempt_with_the_reason, teardown),
        cmocka_unit_test_teardown(test_jobs_left_at_the_end_are_freed_without_being_run, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
