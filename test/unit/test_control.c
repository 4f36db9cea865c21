/* The control socket: requests that come at once, one that is waited for, and a process out of descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/control.h"

struct rig {
    struct loop *loop;
    struct control *control;
    char dir[32], path[64];
    unsigned requests;
};

/* "wait" is answered by control_finish of command 7, everything else at once. */
static void on_request(void *ctx, struct control_client *c, const json_t *request)
{
    struct rig *r = ctx;
    r->requests++;
    const char *name = json_string_value(json_object_get(request, "command"));
    if (name && strcmp(name, "wait") == 0)
        control_wait(c, 7);
    else
        control_answer(c, true, name ? name : "");
}

static int setup(void **state)
{
    struct rig *r = test_calloc(1, sizeof *r);
    struct control_handler handler = {.ctx = r, .request = on_request};
    char why[200];
    strcpy(r->dir, "/tmp/adit-control-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/socket", r->dir);
    assert_int_equal(loop_epoll_new(&(struct loop_hooks){0}, &r->loop), OK);
    assert_int_equal(control_open(&r->control, r->loop, r->path, &handler, why, sizeof why), OK);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    control_close(r->control);
    loop_free(r->loop);
    rmdir(r->dir);
    test_free(r);
    return 0;
}

/* Turns as the daemon makes them, for that long; returns how many there were. */
static unsigned run(struct rig *r, ns_t how_long)
{
    unsigned turns = 0;
    for (ns_t until = clock_now() + how_long, now; (now = clock_now()) < until; turns++) {
        control_sweep(r->control, now);
        ns_t at = control_deadline(r->control);
        assert_int_equal(loop_turn(r->loop, at < until ? at : until), OK);
    }
    return turns;
}

static int client(const struct rig *r)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, r->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What has come so far. */
static void expect(int fd, const char *text)
{
    char got[256] = "";
    ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    got[n > 0 ? n : 0] = 0;
    assert_string_equal(got, text);
}

static void test_requests_in_one_piece_are_answered_in_order(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    say(fd, "{\"command\":\"a\"}\n{\"command\":\"b\"}\nnonsense\n");
    run(r, 20 * NS_PER_MS);
    expect(fd, "{\"ok\":true,\"text\":\"a\"}\n{\"ok\":true,\"text\":\"b\"}\n"
               "{\"ok\":false,\"error\":\"expected one JSON object a line\"}\n");
    close(fd);
}

static void test_request_behind_one_that_waits_is_answered_after_it(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    say(fd, "{\"command\":\"wait\"}\n{\"command\":\"b\"}\n");
    run(r, 20 * NS_PER_MS);
    expect(fd, "");
    assert_int_equal(r->requests, 1);
    control_finish(r->control, 7, true, "done");
    assert_int_equal(r->requests, 1); /* never from within the engine, which reports the outcome */
    assert_int_equal(control_deadline(r->control), 0);
    run(r, 20 * NS_PER_MS);
    expect(fd, "{\"ok\":true,\"text\":\"done\"}\n{\"ok\":true,\"text\":\"b\"}\n");
    assert_int_equal(r->requests, 2);
    close(fd);
}

/* A connection that can't be accepted stays readable: the loop must not spin on it, and must come back to it. */
static void test_without_a_free_descriptor_clients_wait_and_the_loop_sleeps(void **state)
{
    struct rig *r = *state;
    int fd = client(r), top = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct rlimit limit, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = (rlim_t)top; /* no number below it is free */
    close(top);
    say(fd, "{\"command\":\"a\"}\n");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    unsigned turns = run(r, 200 * NS_PER_MS);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    expect(fd, "");
    assert_true(turns < 10);
    run(r, NS_PER_S);
    expect(fd, "{\"ok\":true,\"text\":\"a\"}\n");
    close(fd);
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        RIG(test_requests_in_one_piece_are_answered_in_order),
        RIG(test_request_behind_one_that_waits_is_answered_after_it),
        RIG(test_without_a_free_descriptor_clients_wait_and_the_loop_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
