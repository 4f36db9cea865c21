/* The control socket: requests that come at once, one that is waited for, long answers, a process out of descriptors. */
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
    unsigned pieces, limit; /* of the long answer: made so far, and all */
    bool failing;           /* the last one can't be made */
    unsigned released;
    struct control_client *live; /* of "live" */
    unsigned news, stopped;      /* pieces it has for now */
};

#define PIECE 1000

/* Each takes a tenth of a millisecond. */
static enum err more(void *ctx, struct buf *out, bool *over)
{
    struct rig *r = ctx;
    char text[PIECE];
    for (ns_t until = clock_now() + NS_PER_MS / 10; clock_now() < until;)
        ;
    memset(text, 'x', sizeof text);
    *over = ++r->pieces == r->limit;
    return *over && r->failing ? ERR_NOMEM : buf_append(out, span_of(text, sizeof text));
}

static void release(void *ctx)
{
    struct rig *r = ctx;
    r->released++;
}

static enum err live_more(void *ctx, struct buf *out, bool *over)
{
    struct rig *r = ctx;
    *over = r->stopped && !r->news;
    if (!r->news)
        return OK;
    r->news--;
    return buf_append(out, span_of("news\n", 5));
}

static void live_stop(void *ctx)
{
    struct rig *r = ctx;
    r->stopped++;
    r->news++; /* what was left */
}

/* "wait" is answered by control_finish of command 7, "long" piece by piece, everything else at once. */
static void on_request(void *ctx, struct control_client *c, const json_t *request)
{
    struct rig *r = ctx;
    r->requests++;
    const char *name = json_string_value(json_object_get(request, "command"));
    if (name && strcmp(name, "wait") == 0)
        control_wait(c, 7);
    else if (name && strcmp(name, "long") == 0)
        control_stream(c, &(struct control_source){.ctx = r, .more = more, .release = release});
    else if (name && strcmp(name, "live") == 0) {
        r->live = c;
        control_stream(c, &(struct control_source){.ctx = r, .more = live_more, .release = release, .stop = live_stop});
    } else
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

/* Turns as the daemon makes them, for that long, but four at least: the machine may stall. Returns how many. */
static unsigned run(struct rig *r, ns_t how_long)
{
    unsigned turns = 0;
    for (ns_t until = clock_now() + how_long, now; (now = clock_now()) < until || (how_long && turns < 4); turns++) {
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

/* Takes what is there until so much has come, or nothing more comes. */
static size_t take(struct rig *r, int fd, size_t want)
{
    static char got[1 << 16];
    size_t all = 0;
    for (unsigned i = 0; i < 2000 && all < want; i++) {
        size_t most = want - all < sizeof got ? want - all : sizeof got;
        ssize_t n = recv(fd, got, most, MSG_DONTWAIT);
        if (n == 0)
            break;
        all += n > 0 ? (size_t)n : 0;
        run(r, NS_PER_MS);
    }
    return all;
}

static void test_long_answer_is_made_in_slices_of_a_turn(void **state)
{
    struct rig *r = *state;
    int fd = client(r), other = client(r);
    r->limit = 200; /* 20 ms of work */
    say(fd, "{\"command\":\"long\"}\n{\"command\":\"b\"}\n");
    run(r, 0);
    unsigned turns = 0;
    for (unsigned before; r->pieces < r->limit && turns < 1000; turns++) {
        before = r->pieces;
        control_sweep(r->control, clock_now());
        assert_int_equal(loop_turn(r->loop, 0), OK);
        assert_in_range(r->pieces - before, 0, 11);
        if (turns == 5)
            say(other, "{\"command\":\"a\"}\n");
        if (turns == 9)
            expect(other, "{\"ok\":true,\"text\":\"a\"}\n");
        char got[20 * PIECE];
        (void)!recv(fd, got, sizeof got, MSG_DONTWAIT); /* or the socket would be full */
    }
    assert_true(turns >= 20);
    close(fd);
    close(other);
}

static void test_long_answer_arrives_whole_and_the_next_behind_it(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    r->limit = 400;
    say(fd, "{\"command\":\"long\"}\n{\"command\":\"b\"}\n");
    assert_int_equal(take(r, fd, 400 * PIECE), 400 * PIECE);
    run(r, 20 * NS_PER_MS);
    expect(fd, "{\"ok\":true,\"text\":\"b\"}\n");
    assert_int_equal(r->released, 1);
    close(fd);
}

/* The socket's buffer takes some hundred KB; behind that a few pieces are made and no more. */
static void test_client_that_does_not_read_holds_no_memory(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    r->limit = 1000000;
    say(fd, "{\"command\":\"long\"}\n");
    unsigned made;
    do {
        made = r->pieces;
        run(r, 50 * NS_PER_MS);
    } while (made < r->pieces && r->pieces <= 2000);
    assert_in_range(r->pieces, 10, 2000);
    assert_in_range(run(r, 50 * NS_PER_MS), 0, 5); /* nor does it keep the loop awake */
    assert_int_equal(r->pieces, made);
    assert_int_equal(r->released, 0);
    close(fd);
    run(r, 20 * NS_PER_MS);
    assert_int_equal(r->released, 1);
}

static void test_answer_that_can_not_be_made_further_ends_the_connection(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    r->limit = 5;
    r->failing = true;
    say(fd, "{\"command\":\"long\"}\n");
    assert_true(take(r, fd, 1 << 20) < 5 * PIECE);
    assert_int_equal(recv(fd, (char[1]){0}, 1, MSG_DONTWAIT), 0);
    assert_int_equal(r->released, 1);
    close(fd);
}

static void test_live_answer_goes_on_until_its_client_wants_no_more(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    say(fd, "{\"command\":\"live\"}\n");
    assert_in_range(run(r, 50 * NS_PER_MS), 0, 8);            /* nothing to tell: the loop sleeps */
    assert_int_equal(control_deadline(r->control), NS_NEVER); /* and silence is no reason to end it */
    r->news = 2;
    control_more(r->live);
    expect(fd, "news\nnews\n");
    say(fd, "{\"command\":\"a\"}\n"); /* is not heard */
    run(r, 10 * NS_PER_MS);
    assert_int_equal(r->stopped, 0);
    shutdown(fd, SHUT_WR);
    run(r, 10 * NS_PER_MS);
    expect(fd, "news\n");
    assert_int_equal(recv(fd, (char[1]){0}, 1, MSG_DONTWAIT), 0);
    assert_int_equal(r->stopped, 1);
    assert_int_equal(r->released, 1);
    close(fd);
}

static void test_live_answer_ends_with_its_client(void **state)
{
    struct rig *r = *state;
    int fd = client(r);
    say(fd, "{\"command\":\"live\"}\n");
    run(r, 10 * NS_PER_MS);
    close(fd);
    run(r, 10 * NS_PER_MS);
    assert_int_equal(r->released, 1);
}

static void test_all_who_wait_for_a_command_are_answered(void **state)
{
    struct rig *r = *state;
    int fd[2] = {client(r), client(r)};
    for (unsigned i = 0; i < 2; i++)
        say(fd[i], "{\"command\":\"wait\"}\n");
    run(r, 20 * NS_PER_MS);
    control_finish_reply(r->control, 7, json_pack("{s:b}", "ok", 1));
    for (unsigned i = 0; i < 2; i++) {
        expect(fd[i], "{\"ok\":true}\n");
        close(fd[i]);
    }
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        RIG(test_requests_in_one_piece_are_answered_in_order),
        RIG(test_request_behind_one_that_waits_is_answered_after_it),
        RIG(test_long_answer_is_made_in_slices_of_a_turn),
        RIG(test_long_answer_arrives_whole_and_the_next_behind_it),
        RIG(test_client_that_does_not_read_holds_no_memory),
        RIG(test_answer_that_can_not_be_made_further_ends_the_connection),
        RIG(test_live_answer_goes_on_until_its_client_wants_no_more),
        RIG(test_live_answer_ends_with_its_client),
        RIG(test_all_who_wait_for_a_command_are_answered),
        RIG(test_without_a_free_descriptor_clients_wait_and_the_loop_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
