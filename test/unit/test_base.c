/* The ground floor: addresses, buffers, cursors, timers, the ring, epochs, log lines, counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/cursor.h"
#include "core/base/epoch.h"
#include "core/base/ip.h"
#include "core/base/log.h"
#include "core/base/ring.h"
#include "core/base/stat.h"
#include "core/base/timer.h"

/* -- addresses -- */

static struct ip ip(const char *text)
{
    struct ip a;
    assert_int_equal(ip_parse(text, &a), OK);
    return a;
}

static void test_ip_text_both_ways(void **state)
{
    (void)state;
    static const char *const good[] = {"0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1", "fe80::1"};
    char text[IP_TEXT];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct ip a = ip(good[i]);
        assert_string_equal(ip_format(&a, text), good[i]);
        assert_int_equal(a.family, strchr(good[i], ':') ? 6 : 4);
    }
    static const char *const bad[] = {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "host", "::g", "1.2.3.4/24", "[::1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ip a = {.family = 9};
        assert_int_equal(ip_parse(bad[i], &a), ERR_SYNTAX);
        assert_int_equal(a.family, 9);
    }
    struct ip none = {.family = 0};
    assert_string_equal(ip_format(&none, text), "none");
}

static void test_ip_equality_looks_at_family_and_all_bytes(void **state)
{
    (void)state;
    struct ip a = ip("10.0.0.1"), b = ip("10.0.0.2"), c = ip("a00:1::");
    assert_true(ip_equal(&a, &a));
    assert_false(ip_equal(&a, &b));
    assert_false(ip_equal(&a, &c)); /* same bytes, other family */
    const uint8_t bytes[16] = {10, 0, 0, 1, 99};
    struct ip d = ip_from_bytes(4, bytes);
    assert_true(ip_equal(&a, &d)); /* the fifth byte is not part of an IPv4 address */
    struct ip e = ip_from_bytes(5, bytes);
    assert_int_equal(e.family, 0);
    struct ip any4 = ip("0.0.0.0"), any6 = ip("::"), none = {.family = 0};
    assert_true(ip_is_any(&any4) && ip_is_any(&any6) && ip_is_any(&none));
    assert_false(ip_is_any(&a));
    struct path p = {.local = {a, 500}, .remote = {b, 500}}, q = p;
    assert_true(path_equal(&p, &q));
    q.marker = true;
    assert_false(path_equal(&p, &q));
    q = p;
    q.remote.port = 4500;
    assert_false(path_equal(&p, &q));
}

static void test_endpoint_text_and_sockaddr(void **state)
{
    (void)state;
    char text[ENDPOINT_TEXT];
    struct endpoint e = {ip("192.0.2.7"), 4500}, back;
    struct sockaddr_storage ss;
    assert_string_equal(endpoint_format(&e, text), "192.0.2.7:4500");
    assert_int_equal(endpoint_to_sockaddr(&e, &ss), sizeof(struct sockaddr_in));
    assert_int_equal(endpoint_from_sockaddr(&ss, &back), OK);
    assert_true(endpoint_equal(&e, &back));
    e = (struct endpoint){ip("2001:db8:1111:2222:3333:4444:5555:6666"), 65535};
    assert_string_equal(endpoint_format(&e, text), "[2001:db8:1111:2222:3333:4444:5555:6666]:65535");
    assert_int_equal(endpoint_to_sockaddr(&e, &ss), sizeof(struct sockaddr_in6));
    assert_int_equal(endpoint_from_sockaddr(&ss, &back), OK);
    assert_true(endpoint_equal(&e, &back));
    e.port = 0;
    assert_string_equal(endpoint_format(&e, text), "2001:db8:1111:2222:3333:4444:5555:6666");
    e = (struct endpoint){ip("::ffff:10.1.2.3"), 500};
    (void)endpoint_to_sockaddr(&e, &ss);
    assert_int_equal(endpoint_from_sockaddr(&ss, &back), OK);
    assert_string_equal(endpoint_format(&back, text), "10.1.2.3:500");
    e.ip.family = 0;
    assert_int_equal(endpoint_to_sockaddr(&e, &ss), 0);
    ss.ss_family = AF_UNIX;
    assert_int_equal(endpoint_from_sockaddr(&ss, &back), ERR_UNSUPPORTED);
}

/* -- buffers -- */

static void test_buf_grows_keeps_and_replaces(void **state)
{
    (void)state;
    struct buf b = {NULL, 0, 0};
    for (unsigned i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)i;
        assert_int_equal(buf_append(&b, span_of(&byte, 1)), OK);
    }
    assert_int_equal(b.len, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(b.data[i], i & 0xff);
    assert_int_equal(buf_set(&b, span_of(b.data + 10, 20)), OK); /* a part of itself */
    assert_int_equal(b.len, 20);
    assert_int_equal(b.data[0], 10);
    assert_int_equal(b.data[20], 0); /* what it held before is wiped */
    uint8_t large[5000] = {7};
    assert_int_equal(buf_set(&b, span_of(large, sizeof large)), OK);
    assert_true(span_equal(buf_span(&b), span_of(large, sizeof large)));
    assert_int_equal(buf_append(&b, span_of(large, SIZE_MAX)), ERR_NOMEM); /* the sum would wrap */
    assert_int_equal(b.len, sizeof large);
    buf_free(&b);
    assert_null(b.data);
    assert_int_equal(b.len + b.cap, 0);
    assert_int_equal(buf_append(&b, span_of(NULL, 0)), OK);
    assert_null(b.data);
}

/* -- cursors -- */

static void test_reader_stays_failed(void **state)
{
    (void)state;
    const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct reader r = reader_of(span_of(data, sizeof data));
    assert_int_equal(read_u8(&r), 1);
    assert_int_equal(read_u16(&r), 0x0203);
    assert_int_equal(read_u32(&r), 0x04050607);
    assert_int_equal(reader_left(&r), 2);
    assert_int_equal(read_u32(&r), 0);
    assert_true(r.failed);
    assert_int_equal(read_u8(&r), 0); /* would fit, but the cursor has failed */
    assert_int_equal(reader_left(&r), 0);
    assert_null(read_rest(&r).data);
    assert_false(reader_done(&r));
}

static void test_reader_tail_and_sub(void **state)
{
    (void)state;
    const uint8_t data[] = {1, 2, 3, 4, 5, 6};
    struct reader r = reader_of(span_of(data, sizeof data));
    struct span tail = read_tail(&r, 2);
    assert_ptr_equal(tail.data, data + 4);
    assert_int_equal(tail.len, 2);
    assert_int_equal(reader_left(&r), 4);
    struct reader sub = read_sub(&r, 3);
    assert_int_equal(read_u16(&sub), 0x0102);
    assert_int_equal(read_u16(&sub), 0); /* not past its parent */
    assert_true(sub.failed && !r.failed);
    assert_int_equal(read_u8(&r), 4);
    assert_true(reader_done(&r));
    assert_null(read_tail(&r, 1).data);
    assert_true(r.failed);
    struct reader none = reader_of(span_of(NULL, 0));
    assert_true(reader_done(&none));
    assert_int_equal(read_span(&none, 0).len, 0);
    assert_false(none.failed);
    struct reader bad = read_sub(&none, 1);
    assert_true(bad.failed && none.failed);
}

static void test_writer_stays_failed_and_patches(void **state)
{
    (void)state;
    uint8_t data[16] = {0};
    struct writer w = writer_of(data, 15);
    write_u16(&w, 0);
    write_u32(&w, 0xa1a2a3a4);
    write_u64(&w, 0x0102030405060708);
    write_patch_u16(&w, 0, 14);
    assert_int_equal(get_be16(data), 14);
    assert_int_equal(get_be64(data + 6), 0x0102030405060708);
    assert_int_equal(writer_len(&w), 14);
    write_u16(&w, 0xffff);
    assert_true(w.failed);
    write_u8(&w, 0xff);
    assert_int_equal(data[14], 0);
    assert_int_equal(data[15], 0);
    struct writer v = writer_of(data, 4);
    write_u16(&v, 1);
    write_patch_u16(&v, 1, 5); /* half of it was not written yet */
    assert_true(v.failed);
    struct writer u = writer_of(data, 4);
    write_u16(&u, 1);
    write_patch_u16(&u, 0, 65536);
    assert_true(u.failed);
}

/* -- timers -- */

struct alarm {
    struct timer timer;
    unsigned fired;
    ns_t fired_at;
};
struct alarms {
    struct timer_heap heap;
    ns_t last;
    unsigned fired;
    struct alarm *other;
};

static void ring_alarm(struct timer *t, void *ctx, ns_t now)
{
    struct alarms *all = ctx;
    struct alarm *a = (struct alarm *)t;
    assert_false(timer_is_set(t));
    assert_true(t->at <= now && t->at >= all->last); /* in order */
    all->last = t->at;
    all->fired++;
    a->fired++;
    a->fired_at = now;
}

static void check_heap(const struct timer_heap *h)
{
    for (size_t i = 0; i < h->len; i++) {
        assert_int_equal(h->heap[i]->slot, i + 1);
        assert_true(i == 0 || h->heap[(i - 1) / 2]->at <= h->heap[i]->at);
    }
}

static void test_timers_fire_in_order(void **state)
{
    (void)state;
    enum { N = 300 };
    struct alarms all = {.last = 0};
    struct alarm *a = calloc(N, sizeof *a);
    uint32_t random = 1;
    timer_heap_init(&all.heap, &all);
    assert_true(timer_next(&all.heap) == NS_NEVER);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(timer_add(&all.heap, &a[i].timer, ring_alarm), OK);
    for (unsigned i = 0; i < 5 * N; i++) { /* set, move earlier, move later, cancel */
        random = random * 1664525 + 1013904223;
        struct timer *t = &a[(random >> 8) % N].timer;
        if (random >> 29 == 0)
            timer_cancel(&all.heap, t);
        else
            timer_set(&all.heap, t, 1000 + (random >> 16) % 500);
        check_heap(&all.heap);
    }
    unsigned set = 0, due = 0;
    ns_t first = NS_NEVER;
    for (unsigned i = 0; i < N; i++) {
        set += timer_is_set(&a[i].timer);
        due += timer_is_set(&a[i].timer) && a[i].timer.at <= 1250;
        if (timer_is_set(&a[i].timer) && a[i].timer.at < first)
            first = a[i].timer.at;
    }
    assert_int_equal(all.heap.len, set);
    assert_int_equal(timer_next(&all.heap), first);
    timer_run(&all.heap, 1250);
    assert_int_equal(all.fired, due);
    assert_true(timer_next(&all.heap) > 1250);
    timer_run(&all.heap, 2000);
    assert_int_equal(all.fired, set);
    assert_true(timer_next(&all.heap) == NS_NEVER);
    for (unsigned i = 0; i < N; i++)
        timer_drop(&all.heap, &a[i].timer);
    timer_heap_free(&all.heap);
    free(a);
}

static void fire_again(struct timer *t, void *ctx, ns_t now)
{
    struct alarms *all = ctx;
    all->fired++;
    timer_set(&all->heap, t, now);                /* at once, again */
    timer_cancel(&all->heap, &all->other->timer); /* due too, but taken back */
}

static void test_timers_may_be_set_and_cancelled_while_firing(void **state)
{
    (void)state;
    struct alarms all = {.last = 0};
    struct alarm a = {.fired = 0}, b = {.fired = 0};
    timer_heap_init(&all.heap, &all);
    all.other = &b;
    assert_int_equal(timer_add(&all.heap, &a.timer, fire_again), OK);
    assert_int_equal(timer_add(&all.heap, &b.timer, ring_alarm), OK);
    timer_set(&all.heap, &a.timer, 10);
    timer_set(&all.heap, &b.timer, 11);
    timer_run(&all.heap, 20); /* ends, although the timer sets itself to now */
    assert_int_equal(all.fired, 1);
    assert_int_equal(b.fired, 0);
    assert_true(timer_is_set(&a.timer));
    timer_run(&all.heap, 21);
    assert_int_equal(all.fired, 2);
    timer_set(&all.heap, &b.timer, 0); /* outside of a run a past time is kept as it is */
    assert_int_equal(timer_next(&all.heap), 0);
    timer_drop(&all.heap, &a.timer);
    timer_drop(&all.heap, &b.timer);
    assert_int_equal(all.heap.len + all.heap.announced, 0);
    timer_heap_free(&all.heap);
}

/* -- the ring -- */

static void test_ring_wraps_fills_and_stays_contiguous(void **state)
{
    (void)state;
    struct ring *r;
    uint8_t data[200];
    uint32_t type;
    struct span s;
    assert_int_equal(ring_new(&r, 200), OK); /* 256 */
    assert_false(ring_peek(r, &type, &s));
    ring_pop(r); /* of an empty ring does nothing */
    assert_int_equal(ring_push(r, 1, span_of(data, 121), span_of(NULL, 0)), ERR_FULL); /* over half */
    assert_int_equal(ring_push(r, 1, span_of(data, 60), span_of(data, SIZE_MAX)), ERR_FULL);
    unsigned pushed = 0, popped = 0;
    for (unsigned round = 0; round < 500; round++) {
        unsigned len = round * 37 % 121;
        for (unsigned i = 0; i < len; i++)
            data[i] = (uint8_t)(pushed + i);
        while (ring_push(r, pushed, span_of(data, len / 3), span_of(data + len / 3, len - len / 3)) != OK) {
            assert_true(ring_peek(r, &type, &s)); /* full, so there is something in it */
            assert_int_equal(type, popped);
            assert_int_equal(s.len, popped * 37 % 121);
            for (size_t i = 0; i < s.len; i++)
                assert_int_equal(s.data[i], (uint8_t)(popped + i));
            struct span again;
            assert_true(ring_peek(r, &type, &again));
            assert_ptr_equal(again.data, s.data);
            ring_pop(r);
            popped++;
        }
        pushed++;
    }
    for (; ring_peek(r, &type, &s); popped++)
        ring_pop(r);
    assert_int_equal(pushed, popped);
    assert_int_equal(ring_push(r, 7, span_of(NULL, 0), span_of(NULL, 0)), OK);
    assert_true(ring_peek(r, &type, &s));
    assert_int_equal(type, 7);
    assert_int_equal(s.len, 0);
    ring_free(r);
}

#define RING_RECORDS 100000u

static void *produce(void *arg)
{
    uint8_t data[64];
    for (uint32_t i = 0; i < RING_RECORDS;) {
        memset(data, (int)(i & 0xff), sizeof data);
        if (ring_push(arg, i, span_of(&i, sizeof i), span_of(data, i % 60)) == OK)
            i++;
        else
            sched_yield();
    }
    return NULL;
}

static void test_ring_between_two_threads(void **state)
{
    (void)state;
    struct ring *r;
    pthread_t thread;
    assert_int_equal(ring_new(&r, 1024), OK);
    assert_int_equal(pthread_create(&thread, NULL, produce, r), 0);
    unsigned wrong = 0;
    for (uint32_t i = 0; i < RING_RECORDS;) {
        uint32_t type, number;
        struct span s;
        if (!ring_peek(r, &type, &s)) {
            sched_yield();
            continue;
        }
        memcpy(&number, s.data, sizeof number);
        wrong += type != i || number != i || s.len != 4 + i % 60;
        for (size_t k = 4; k < s.len; k++)
            wrong += s.data[k] != (uint8_t)i;
        ring_pop(r);
        i++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(wrong, 0);
    ring_free(r);
}

/* -- epochs -- */

static unsigned freed;

static void count_free(void *object)
{
    freed += *(unsigned *)object;
}

static void test_epoch_waits_for_online_readers_only(void **state)
{
    (void)state;
    struct epoch *e;
    unsigned one = 1, ten = 10, hundred = 100;
    freed = 0;
    assert_int_equal(epoch_new(&e, 3), OK);
    assert_int_equal(epoch_retire(e, count_free, &one), OK);
    assert_int_equal(epoch_reclaim(e), 0); /* all are offline */
    assert_int_equal(freed, 1);
    epoch_online(e, 0);
    epoch_online(e, 1);
    assert_int_equal(epoch_retire(e, count_free, &ten), OK);
    assert_int_equal(epoch_reclaim(e), 1);
    epoch_quiesce(e, 0);
    assert_int_equal(epoch_reclaim(e), 1);
    assert_int_equal(epoch_retire(e, count_free, &hundred), OK);
    epoch_offline(e, 1);
    epoch_online(e, 1); /* came back after both were retired: can't hold them */
    assert_int_equal(epoch_reclaim(e), 1);
    assert_int_equal(freed, 11);
    epoch_quiesce(e, 0);
    assert_int_equal(epoch_reclaim(e), 0);
    assert_int_equal(freed, 111);
    assert_int_equal(epoch_retire(e, count_free, &one), OK);
    epoch_offline(e, 0);
    epoch_offline(e, 1);
    epoch_wait(e);
    assert_int_equal(freed, 112);
    epoch_online(e, 2);
    assert_int_equal(epoch_retire(e, count_free, &one), OK);
    epoch_free(e);
    assert_int_equal(freed, 113);
}

/* Readers use an object that the control thread keeps replacing; a freed one has a broken canary. */
struct shared {
    struct epoch *epoch;
    _Atomic(uint64_t *) current;
    atomic_bool stop;
    atomic_uint next, wrong;
};

static void *hold_for_a_while(void *arg)
{
    struct shared *s = arg;
    epoch_online(s->epoch, 0);
    atomic_store(&s->next, 1);
    usleep(30000);
    atomic_store(&s->stop, true);
    epoch_quiesce(s->epoch, 0); /* stays online */
    return NULL;
}

static void test_epoch_wait_blocks_until_the_reader_is_quiescent(void **state)
{
    (void)state;
    struct shared s = {.epoch = NULL};
    pthread_t thread;
    unsigned one = 1;
    freed = 0;
    assert_int_equal(epoch_new(&s.epoch, 1), OK);
    assert_int_equal(pthread_create(&thread, NULL, hold_for_a_while, &s), 0);
    while (!atomic_load(&s.next))
        usleep(100);
    assert_int_equal(epoch_retire(s.epoch, count_free, &one), OK);
    epoch_wait(s.epoch);
    assert_true(atomic_load(&s.stop));
    assert_int_equal(freed, 1);
    pthread_join(thread, NULL);
    epoch_free(s.epoch);
}

#define CANARY UINT64_C(0x0123456789abcdef)

static void poison(void *object)
{
    *(uint64_t *)object = 0;
    free(object);
}

static void *read_objects(void *arg)
{
    struct shared *s = arg;
    unsigned me = atomic_fetch_add(&s->next, 1);
    for (unsigned turn = 0; !atomic_load(&s->stop); turn++) {
        epoch_online(s->epoch, me);
        for (unsigned i = 0; i < 50; i++) {
            const uint64_t *object = atomic_load_explicit(&s->current, memory_order_acquire);
            if (*object != CANARY)
                atomic_fetch_add(&s->wrong, 1);
            epoch_quiesce(s->epoch, me);
        }
        epoch_offline(s->epoch, me);
        if (turn % 64 == 0)
            usleep(10); /* asleep: nobody waits for it */
    }
    return NULL;
}

static void test_epoch_with_threads_that_come_and_go(void **state)
{
    (void)state;
    struct shared s = {.epoch = NULL};
    pthread_t thread[2];
    assert_int_equal(epoch_new(&s.epoch, 2), OK);
    uint64_t *object = malloc(sizeof *object);
    *object = CANARY;
    atomic_store(&s.current, object);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_objects, &s), 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t *fresh = malloc(sizeof *fresh);
        *fresh = CANARY;
        uint64_t *old = atomic_exchange(&s.current, fresh);
        assert_int_equal(epoch_retire(s.epoch, poison, old), OK);
        if (i % 2000 == 0)
            epoch_wait(s.epoch);
        else
            (void)epoch_reclaim(s.epoch);
    }
    atomic_store(&s.stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(epoch_reclaim(s.epoch), 0);
    assert_int_equal(atomic_load(&s.wrong), 0);
    epoch_free(s.epoch);
    free(atomic_load(&s.current));
}

/* -- log -- */

static int saved_stderr = -1;
static int log_pipe[2];

static void capture_begin(void)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, log_pipe), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(log_pipe[1], STDERR_FILENO);
}

static const char *capture_end(void)
{
    static char text[8192];
    ssize_t n = read(log_pipe[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(log_pipe[0]);
    close(log_pipe[1]);
    return text;
}

static void test_log_text_escapes_what_could_forge_a_line(void **state)
{
    (void)state;
    log_setup(LOG_INFO, LOG_TEXT);
    capture_begin();
    log_line(LOG_INFO, "ike", "peer %s", "a\nerror ike: forged\x1b[2J\x7f");
    log_line(LOG_DEBUG, "ike", "not shown");
    log_line(LOG_WARN, "tun", "K\xc3\xb6ln \xff \xc3( \xe2\x80\xae \xc2\x9b \xc0\xaf end");
    const char *text = capture_end();
    assert_string_equal(text, "info ike: peer a\\x0aerror ike: forged\\x1b[2J\\x7f\n"
                              "warn tun: K\xc3\xb6ln \\xff \\xc3( \\xe2\\x80\\xae \\xc2\\x9b \\xc0\\xaf end\n");
}

static void test_log_json_is_one_object_a_line(void **state)
{
    (void)state;
    log_setup(LOG_DEBUG, LOG_JSON);
    capture_begin();
    errno = ENOENT;
    log_line(LOG_DEBUG, "core", "say \"%s\" \\ %c", "x\n\xff", 1);
    assert_int_equal(errno, ENOENT);
    const char *text = capture_end();
    log_setup(LOG_INFO, LOG_TEXT);
    assert_int_equal(strncmp(text, "{\"time\":\"20", 11), 0);
    assert_int_equal(text[19], 'T');
    const char *rest = strstr(text, "Z\",");
    assert_non_null(rest);
    assert_string_equal(rest, "Z\",\"level\":\"debug\",\"room\":\"core\","
                              "\"text\":\"say \\\"x\\\\x0a\\\\xff\\\" \\\\ \\\\x01\"}\n");
}

static void test_log_cuts_long_lines(void **state)
{
    (void)state;
    char *large = malloc(5001);
    memset(large, '\n', 5000);
    large[5000] = '\0';
    log_setup(LOG_INFO, LOG_TEXT);
    capture_begin();
    log_line(LOG_ERROR, "core", "%s", large);
    const char *text = capture_end();
    size_t len = strlen(text);
    assert_in_range(len, 1000, 4 * 1024 + 20);
    assert_string_equal(text + len - 8, "\\x0a...\n");
    free(large);
}

static void test_log_limit_holds_back_and_says_so(void **state)
{
    (void)state;
    struct log_limit limit = {0, 0, 0};
    log_setup(LOG_INFO, LOG_TEXT);
    capture_begin();
    for (unsigned i = 0; i < 25; i++)
        log_limited(&limit, LOG_WARN, "esp", "line %u", i);
    limit.last -= 1500 * NS_PER_MS; /* a second and a half later */
    log_limited(&limit, LOG_WARN, "esp", "later");
    log_limited(&limit, LOG_WARN, "esp", "too soon");
    log_limited(&limit, LOG_DEBUG, "esp", "not enabled, costs nothing");
    const char *text = capture_end();
    unsigned lines = 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, LOG_LIMIT_BURST + 1);
    assert_non_null(strstr(text, "line 9\n"));
    assert_null(strstr(text, "line 10\n"));
    assert_non_null(strstr(text, "later (15 lines like this held back)\n"));
    assert_int_equal(limit.held, 1);
}

static void test_log_levels_by_name(void **state)
{
    (void)state;
    enum log_level level = LOG_ERROR;
    assert_int_equal(log_level_parse("debug", &level), OK);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse("Debug", &level), ERR_SYNTAX);
    assert_int_equal(log_level_parse("", &level), ERR_SYNTAX);
    log_setup(LOG_WARN, LOG_TEXT);
    assert_true(log_enabled(LOG_ERROR) && log_enabled(LOG_WARN));
    assert_false(log_enabled(LOG_INFO));
    log_setup(LOG_INFO, LOG_TEXT);
}

/* -- counters, errors, clock -- */

static void test_counter_names_are_unique_and_well_formed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        const char *name = stat_name((enum stat_id)i);
        assert_true(name[0] != '\0' && stat_text((enum stat_id)i)[0] != '\0');
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(name));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(name, stat_name((enum stat_id)k));
    }
    assert_string_equal(stat_name(STAT_COUNT), "unknown");
    struct stat_block *block = aligned_alloc(64, (sizeof *block + 63) & ~(size_t)63);
    memset(block, 0, sizeof *block);
    stat_add(block, STAT_OUT_BYTES, 3);
    stat_add(block, STAT_OUT_BYTES, 4);
    assert_int_equal(stat_get(block, STAT_OUT_BYTES), 7);
    assert_int_equal(stat_get(block, STAT_OUT_PACKETS), 0);
    free(block);
}

static void test_every_error_has_its_own_text(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= ERR_TIMEOUT; i++) {
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(err_text((enum err)i), err_text((enum err)k));
    }
    assert_string_equal(err_text(OK), "ok");
    assert_string_equal(err_text((enum err)999), "unknown error");
}

static void test_clocks_run(void **state)
{
    (void)state;
    ns_t a = clock_now();
    usleep(2000);
    assert_in_range(clock_now() - a, 2 * NS_PER_MS, 5 * NS_PER_S);
    assert_true(clock_wall() > UINT64_C(1600000000) * NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ip_text_both_ways),
        cmocka_unit_test(test_ip_equality_looks_at_family_and_all_bytes),
        cmocka_unit_test(test_endpoint_text_and_sockaddr),
        cmocka_unit_test(test_buf_grows_keeps_and_replaces),
        cmocka_unit_test(test_reader_stays_failed),
        cmocka_unit_test(test_reader_tail_and_sub),
        cmocka_unit_test(test_writer_stays_failed_and_patches),
        cmocka_unit_test(test_timers_fire_in_order),
        cmocka_unit_test(test_timers_may_be_set_and_cancelled_while_firing),
        cmocka_unit_test(test_ring_wraps_fills_and_stays_contiguous),
        cmocka_unit_test(test_ring_between_two_threads),
        cmocka_unit_test(test_epoch_waits_for_online_readers_only),
        cmocka_unit_test(test_epoch_wait_blocks_until_the_reader_is_quiescent),
        cmocka_unit_test(test_epoch_with_threads_that_come_and_go),
        cmocka_unit_test(test_log_text_escapes_what_could_forge_a_line),
        cmocka_unit_test(test_log_json_is_one_object_a_line),
        cmocka_unit_test(test_log_cuts_long_lines),
        cmocka_unit_test(test_log_limit_holds_back_and_says_so),
        cmocka_unit_test(test_log_levels_by_name),
        cmocka_unit_test(test_counter_names_are_unique_and_well_formed),
        cmocka_unit_test(test_every_error_has_its_own_text),
        cmocka_unit_test(test_clocks_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
