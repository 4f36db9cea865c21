/* The network in memory: it must behave to the code above as the real engines do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tun/memory.h"

#define RX_MAX 256

struct host {
    struct loop *loop;
    struct loop_io *io;
    unsigned calls, count, failures, turns, sleeps, wakes, watched;
    struct loop_failure failure;
    struct {
        uint32_t len;
        uint16_t segment;
        uint8_t tos, first;
        struct endpoint from;
        struct ip to;
        ns_t at;
    } rx[RX_MAX];
    struct memory_net *net;
    int event;
};

struct fixture {
    struct memory_net *net;
    struct host a, b;
    struct endpoint at_a, at_b;
};

static void on_received(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct host *h = ctx;
    assert_in_range(n, 1, LOOP_BATCH);
    h->calls++;
    for (unsigned i = 0; i < n; i++, h->count++) {
        assert_true(h->count < RX_MAX);
        h->rx[h->count].len = rx[i].len;
        h->rx[h->count].segment = rx[i].segment;
        h->rx[h->count].tos = rx[i].tos;
        h->rx[h->count].first = rx[i].len ? rx[i].data[0] : 0;
        h->rx[h->count].from = rx[i].from;
        h->rx[h->count].to = rx[i].to;
        h->rx[h->count].at = memory_now(h->net);
        rx[i].data = NULL; /* the receiver may change what it was given */
    }
}

static void on_failed(void *ctx, const struct loop_failure *f)
{
    struct host *h = ctx;
    h->failures++;
    h->failure = *f;
}

static void on_turn_end(void *ctx)
{
    ((struct host *)ctx)->turns++;
}
static void on_sleep(void *ctx)
{
    ((struct host *)ctx)->sleeps++;
}
static void on_wake(void *ctx)
{
    struct host *h = ctx;
    h->wakes++;
    assert_int_equal(h->wakes, h->sleeps);
}

static struct endpoint endpoint_of(const char *ip, uint16_t port)
{
    struct endpoint e = {.port = port};
    assert_int_equal(ip_parse(ip, &e.ip), OK);
    return e;
}

static void host_open(struct fixture *f, struct host *h, const struct endpoint *at)
{
    struct loop_hooks hooks = {.ctx = h, .turn_end = on_turn_end, .sleep = on_sleep, .wake = on_wake};
    struct loop_io_handler handler = {.ctx = h, .received = on_received, .failed = on_failed};
    h->net = f->net;
    assert_int_equal(memory_loop_new(f->net, &hooks, &h->loop), OK);
    assert_int_equal(loop_io_open(h->loop, memory_udp(f->net, at), LOOP_UDP, &handler, &h->io), OK);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(memory_net_new(&f->net, 7), OK);
    f->at_a = endpoint_of("192.0.2.1", 4500);
    f->at_b = endpoint_of("192.0.2.2", 4500);
    host_open(f, &f->a, &f->at_a);
    host_open(f, &f->b, &f->at_b);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_free(f->a.loop);
    loop_free(f->b.loop);
    memory_net_free(f->net);
    free(f);
    return 0;
}

/* Sends len bytes from a to b, the first of each segment numbered. */
static void send_from_a(struct fixture *f, uint32_t len, uint16_t segment, uint8_t tos)
{
    struct loop_slot *s = loop_slot_get(f->a.loop);
    assert_non_null(s);
    for (uint32_t i = 0; i < len; i++)
        s->data[i] = (uint8_t)(segment ? i / segment : 0);
    loop_send(f->a.loop, f->a.io,
              &(struct loop_tx){.slot = s, .data = s->data, .len = len, .segment = segment, .tos = tos, .to = f->at_b});
    memset(s->data, 0xee, len ? len : 1);
    loop_slot_put(f->a.loop, s);
}

static void a_datagram_arrives_with_its_addresses_and_tos(void **state)
{
    struct fixture *f = *state;
    send_from_a(f, 100, 0, 0xb8);
    memory_run(f->net, 0);
    assert_int_equal(f->b.count, 1);
    assert_int_equal(f->b.rx[0].len, 100);
    assert_int_equal(f->b.rx[0].segment, 0);
    assert_int_equal(f->b.rx[0].tos, 0xb8);
    assert_true(endpoint_equal(&f->b.rx[0].from, &f->at_a));
    assert_true(ip_equal(&f->b.rx[0].to, &f->at_b.ip));
    assert_int_equal(f->a.count, 0);
}

struct seen {
    unsigned n;
    size_t len[RX_MAX];
    bool pass;
};

static bool tap(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    struct seen *s = ctx;
    (void)from;
    (void)to;
    (void)data;
    s->len[s->n++] = len;
    return s->pass;
}

static void a_segmented_send_is_datagrams_on_the_wire_and_merged_at_the_receiver(void **state)
{
    struct fixture *f = *state;
    struct seen seen = {.pass = true};
    memory_net_tap(f->net, tap, &seen);
    send_from_a(f, 10 * 1000 + 500, 1000, 0);
    memory_run(f->net, 0);
    assert_int_equal(seen.n, 11);
    assert_int_equal(seen.len[0], 1000);
    assert_int_equal(seen.len[10], 500);
    assert_int_equal(f->b.count, 1);
    assert_int_equal(f->b.rx[0].len, 10500);
    assert_int_equal(f->b.rx[0].segment, 1000);
}

static void a_tap_can_drop(void **state)
{
    struct fixture *f = *state;
    struct seen seen = {.pass = false};
    memory_net_tap(f->net, tap, &seen);
    send_from_a(f, 100, 0, 0);
    memory_run(f->net, 0);
    assert_int_equal(seen.n, 1);
    assert_int_equal(f->b.count, 0);
}

static void only_equal_neighbours_are_merged(void **state)
{
    struct fixture *f = *state;
    const uint32_t len[] = {500, 500, 400, 500, 600};
    for (unsigned i = 0; i < 5; i++)
        send_from_a(f, len[i], 0, 0);
    send_from_a(f, 600, 0, 3); /* another TOS */
    memory_run(f->net, 0);
    assert_int_equal(f->b.count, 4);
    assert_int_equal(f->b.rx[0].len, 1400);
    assert_int_equal(f->b.rx[0].segment, 500);
    assert_int_equal(f->b.rx[1].len, 500);
    assert_int_equal(f->b.rx[1].segment, 0);
    assert_int_equal(f->b.rx[2].len, 600);
    assert_int_equal(f->b.rx[3].tos, 3);
}

static void at_most_64_datagrams_are_merged(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 70; i++)
        send_from_a(f, 50, 0, 0);
    memory_run(f->net, 0);
    assert_int_equal(f->b.count, 2);
    assert_int_equal(f->b.rx[0].len, 64 * 50);
    assert_int_equal(f->b.rx[1].len, 6 * 50);
}

static void delay_is_virtual_and_exact(void **state)
{
    struct fixture *f = *state;
    memory_net_faults(f->net, &(struct memory_faults){.delay = 20 * NS_PER_MS});
    send_from_a(f, 100, 0, 0);
    memory_run(f->net, 10 * NS_PER_MS);
    assert_int_equal(f->b.count, 0);
    assert_int_equal(memory_now(f->net), 10 * NS_PER_MS);
    memory_run(f->net, NS_PER_S);
    assert_int_equal(f->b.count, 1);
    assert_int_equal(f->b.rx[0].at, 20 * NS_PER_MS);
    assert_int_equal(memory_now(f->net), NS_PER_S);
}

static void loss_duplication_and_reordering_happen(void **state)
{
    struct fixture *f = *state;
    uint64_t bytes = 0;
    memory_net_faults(f->net, &(struct memory_faults){.loss = 500});
    for (unsigned i = 0; i < 200; i++)
        send_from_a(f, 10, 0, 0);
    memory_run(f->net, NS_PER_S);
    for (unsigned i = 0; i < f->b.count; i++)
        bytes += f->b.rx[i].len;
    assert_in_range(bytes, 700, 1300);

    f->b.count = 0;
    bytes = 0;
    memory_net_faults(f->net, &(struct memory_faults){.duplicate = 1000});
    send_from_a(f, 10, 0, 0);
    memory_run(f->net, NS_PER_S);
    assert_int_equal(f->b.rx[0].len, 20);

    f->b.count = 0;
    memory_net_faults(f->net, &(struct memory_faults){.reorder = 300});
    send_from_a(f, 50 * 10, 10, 0);
    memory_run(f->net, 2 * NS_PER_S);
    bool back = false;
    for (unsigned i = 1; i < f->b.count; i++)
        back |= f->b.rx[i].first < f->b.rx[i - 1].first;
    assert_true(back);
}

static void hooks_run_in_every_turn(void **state)
{
    struct fixture *f = *state;
    unsigned before = f->b.turns;
    assert_int_equal(loop_turn(f->b.loop, NS_NEVER), OK);
    assert_int_equal(f->b.turns, before + 1);
    assert_int_equal(f->b.sleeps, f->b.wakes);
    assert_true(f->b.sleeps > 0);
}

static void a_send_that_no_kernel_would_take_fails(void **state)
{
    struct fixture *f = *state;
    send_from_a(f, 64 * 100, 100, 0); /* 64 segments */
    memory_run(f->net, 0);
    assert_int_equal(f->a.failures, 1);
    assert_int_equal(f->a.failure.error, EINVAL);
    assert_int_equal(f->a.failure.datagrams, 64);
    assert_int_equal(f->a.failure.size, 100);
    send_from_a(f, 66000, 0, 0);
    memory_run(f->net, 0);
    assert_int_equal(f->a.failures, 2);
    assert_int_equal(f->a.failure.error, EMSGSIZE);
    struct loop_slot *s = loop_slot_get(f->a.loop);
    loop_send(f->a.loop, f->a.io, &(struct loop_tx){.slot = s, .data = s->data + LOOP_SLOT_SIZE - 5, .len = 6});
    loop_slot_put(f->a.loop, s);
    memory_run(f->net, 0);
    assert_int_equal(f->a.failures, 3);
    assert_int_equal(f->b.count, 0);
}

static void a_reuseport_group_is_steered_by_the_spi(void **state)
{
    struct fixture *f = *state;
    struct loop_io_handler handler = {.ctx = &f->a, .received = on_received};
    struct endpoint group = endpoint_of("0.0.0.0", 4501), to = endpoint_of("192.0.2.9", 4501);
    struct loop_io *io[3];
    struct host h[3] = {0};
    for (unsigned i = 0; i < 3; i++) {
        h[i].net = f->net;
        handler.ctx = &h[i];
        assert_int_equal(loop_io_open(f->a.loop, memory_udp(f->net, &group), LOOP_UDP, &handler, &io[i]), OK);
    }
    memory_send(f->net, &f->at_b, &to, (const uint8_t[]){0x20, 0, 0, 1}, 4);
    memory_send(f->net, &f->at_b, &to, (const uint8_t[]){0x30, 0, 0, 1}, 4);
    memory_send(f->net, &f->at_b, &to, (const uint8_t[]){0xf0, 0, 0, 1}, 4);
    memory_send(f->net, &f->at_b, &to, (const uint8_t[]){0, 0, 0, 0, 9}, 5);
    memory_send(f->net, &f->at_b, &to, (const uint8_t[]){0xff}, 1);
    memory_run(f->net, 0);
    assert_int_equal(h[0].count, 2); /* the keepalive is merged behind the IKE message, as the kernel does */
    assert_int_equal(h[0].rx[1].len, 6);
    assert_int_equal(h[1].count, 1);
    assert_int_equal(h[2].count, 1);
    assert_true(ip_equal(&h[1].rx[0].to, &to.ip));
    for (unsigned i = 0; i < 3; i++)
        loop_io_close(f->a.loop, io[i]);
}

static void tun_frames_go_both_ways(void **state)
{
    struct fixture *f = *state;
    struct host h = {.net = f->net};
    struct loop_io_handler handler = {.ctx = &h, .received = on_received};
    struct loop_io *io;
    uint8_t frame[100];
    int tun = memory_tun(f->net);
    assert_int_equal(loop_io_open(f->a.loop, tun, LOOP_TUN, &handler, &io), OK);
    assert_int_equal(memory_tun_inject(f->net, tun, (const uint8_t *)"abcd", 4), OK);
    assert_int_equal(memory_tun_inject(f->net, tun, (const uint8_t *)"efgh", 4), OK);
    memory_run(f->net, 0);
    assert_int_equal(h.calls, 1);
    assert_int_equal(h.count, 2); /* frames are never merged */

    struct loop_slot *s = loop_slot_get(f->a.loop);
    memcpy(s->data, "hello world", 11);
    struct iovec iov[2] = {{s->data, 5}, {s->data + 6, 5}};
    loop_write(f->a.loop, io, s, iov, 2);
    loop_slot_put(f->a.loop, s);
    assert_int_equal(memory_tun_take(f->net, tun, frame, sizeof frame), 10);
    assert_memory_equal(frame, "helloworld", 10);
    assert_int_equal(memory_tun_take(f->net, tun, frame, sizeof frame), 0);
    loop_io_close(f->a.loop, io);
    assert_int_equal(memory_tun_inject(f->net, tun + 1, frame, 4), ERR_NOTFOUND);
}

static void on_event(void *ctx, uint32_t events)
{
    struct host *h = ctx;
    uint64_t value;
    assert_true(events & EPOLLIN);
    assert_int_equal(read(h->event, &value, sizeof value), sizeof value);
    h->watched++;
}

static void real_descriptors_can_be_watched(void **state)
{
    struct fixture *f = *state;
    struct loop_watch *w;
    uint64_t one = 1;
    f->a.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(loop_watch_add(f->a.loop, f->a.event, EPOLLIN, on_event, &f->a, &w), OK);
    memory_run(f->net, 0);
    assert_int_equal(f->a.watched, 0);
    assert_int_equal(write(f->a.event, &one, sizeof one), sizeof one);
    memory_run(f->net, 0);
    assert_int_equal(f->a.watched, 1);
    loop_watch_del(f->a.loop, w);
    close(f->a.event);
}

static void close_own_io(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct host *h = ctx;
    (void)rx;
    h->count += n;
    loop_io_close(h->loop, h->io);
}

static void an_io_may_be_closed_in_its_own_callback(void **state)
{
    struct fixture *f = *state;
    struct endpoint at = endpoint_of("2001:db8::1", 500);
    struct host h = {.loop = f->a.loop, .net = f->net};
    struct loop_io_handler handler = {.ctx = &h, .received = close_own_io};
    int fd = memory_udp(f->net, &at);
    assert_int_equal(loop_io_open(f->a.loop, fd, LOOP_UDP, &handler, &h.io), OK);
    memory_send(f->net, &at, &at, (const uint8_t *)"x", 1);
    memory_run(f->net, 0);
    memory_send(f->net, &at, &at, (const uint8_t *)"x", 1);
    memory_run(f->net, 0);
    assert_int_equal(h.count, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_datagram_arrives_with_its_addresses_and_tos),
        CASE(a_segmented_send_is_datagrams_on_the_wire_and_merged_at_the_receiver),
        CASE(a_tap_can_drop),
        CASE(only_equal_neighbours_are_merged),
        CASE(at_most_64_datagrams_are_merged),
        CASE(delay_is_virtual_and_exact),
        CASE(loss_duplication_and_reordering_happen),
        CASE(hooks_run_in_every_turn),
        CASE(a_send_that_no_kernel_would_take_fails),
        CASE(a_reuseport_group_is_steered_by_the_spi),
        CASE(tun_frames_go_both_ways),
        CASE(real_descriptors_can_be_watched),
        CASE(an_io_may_be_closed_in_its_own_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
