/* The loop's contract, run against both engines: loopback UDP sockets, and a packet socket pair in place of a TUN. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/base/cursor.h"
#include "core/base/loop.h"
#include "core/base/loop_msg.h"

#define ITEMS 1024
#define BYTES (4 << 20)

/* What one io got. */
struct inbox {
    unsigned calls, count, largest;
    struct loop_rx item[ITEMS]; /* data points into bytes */
    size_t used;
    uint8_t *bytes;
    unsigned failures;
    struct loop_failure failure;
};

struct bench {
    enum loop_kind kind;
    struct loop *loop;
    struct inbox a, b;
    unsigned sleeps, wakes, ends, sleeping;
    void (*at_end)(struct bench *t);
    struct loop_io *io;
    struct loop_watch *watch;
    unsigned watched;
    int fd;
};

static void received(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct inbox *in = ctx;
    in->calls++;
    in->largest = n > in->largest ? n : in->largest;
    assert_in_range(n, 1, LOOP_BATCH);
    for (unsigned i = 0; i < n; i++) {
        assert_true(in->count < ITEMS && in->used + rx[i].len <= BYTES);
        in->item[in->count] = rx[i];
        in->item[in->count++].data = in->bytes + in->used;
        memcpy(in->bytes + in->used, rx[i].data, rx[i].len);
        in->used += rx[i].len;
    }
}

static void failed(void *ctx, const struct loop_failure *f)
{
    struct inbox *in = ctx;
    in->failures++;
    in->failure = *f;
}

static void on_sleep(void *ctx)
{
    struct bench *t = ctx;
    t->sleeps++;
    assert_int_equal(t->sleeping++, 0);
}
static void on_wake(void *ctx)
{
    struct bench *t = ctx;
    t->wakes++;
    assert_int_equal(t->sleeping--, 1);
}
static void on_turn_end(void *ctx)
{
    struct bench *t = ctx;
    t->ends++;
    if (t->at_end)
        t->at_end(t);
}

static int setup(void **state)
{
    enum loop_kind kind = *(enum loop_kind *)*state;
    struct bench *t = calloc(1, sizeof *t);
    t->kind = kind;
    t->a.bytes = malloc(BYTES);
    t->b.bytes = malloc(BYTES);
    t->fd = -1;
    struct loop_hooks hooks = {.ctx = t, .turn_end = on_turn_end, .sleep = on_sleep, .wake = on_wake};
    char why[160] = "";
    enum err e = loop_new(kind, &hooks, &t->loop, why, sizeof why);
    if (e != OK)
        print_message("no loop of this kind here: %s\n", why);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct bench *t = *state;
    loop_free(t->loop);
    free(t->a.bytes);
    free(t->b.bytes);
    free(t);
    return 0;
}

/* The bench of this test; where the machine refuses the engine the test is skipped. */
static struct bench *bench(void **state)
{
    struct bench *t = *state;
    if (!t->loop)
        skip();
    return t;
}

static struct loop_io *open_io(struct bench *t, int fd, enum loop_io_kind kind, struct inbox *in)
{
    struct loop_io_handler h = {.ctx = in, .received = received, .failed = failed};
    struct loop_io *io = NULL;
    assert_int_equal(loop_io_open(t->loop, fd, kind, &h, &io), OK);
    assert_non_null(io);
    return io;
}

static struct endpoint local(int fd)
{
    struct sockaddr_storage ss;
    memset(&ss, 0, sizeof ss);
    socklen_t len = sizeof ss;
    struct endpoint e;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
    assert_int_equal(endpoint_from_sockaddr(&ss, &e), OK);
    return e;
}

static int udp(const char *address, int protocol)
{
    struct endpoint e = {.port = 0};
    struct sockaddr_storage ss;
    int one = 1, size = 4 << 20;
    assert_int_equal(ip_parse(address, &e.ip), OK);
    int fd = socket(e.ip.family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    (void)setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof one);
    if (e.ip.family == 6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof one);
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof one);
    }
    socklen_t len = endpoint_to_sockaddr(&e, &ss);
    if (bind(fd, (struct sockaddr *)&ss, len) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void send_to(int fd, const struct endpoint *to, const void *data, size_t len)
{
    struct sockaddr_storage ss;
    socklen_t name_len = endpoint_to_sockaddr(to, &ss);
    assert_int_equal(sendto(fd, data, len, 0, (struct sockaddr *)&ss, name_len), len);
}

static void pair(int type, int fd[2])
{
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
}

static void turn(struct bench *t, ns_t patience)
{
    assert_int_equal(loop_turn(t->loop, clock_now() + patience), OK);
}

/* Turns until the inbox has so many bytes, or twenty seconds have passed. */
static void turn_until(struct bench *t, const struct inbox *in, size_t bytes)
{
    for (ns_t end = clock_now() + 20 * NS_PER_S; in->used < bytes && clock_now() < end;)
        turn(t, 50 * NS_PER_MS);
}

static void fill(uint8_t *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 8) * 13 + seed);
}

static void test_receives_datagrams_as_one_vector(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0);
    struct endpoint to = local(rx), from = local(tx);
    struct loop_io *io = open_io(t, rx, LOOP_UDP, &t->a);
    turn(t, 0);
    for (uint8_t i = 0; i < 10; i++) {
        uint8_t data[3] = {i, 1, 2};
        send_to(tx, &to, data, i == 9 ? 2 : 3);
    }
    turn_until(t, &t->a, 29);
    assert_int_equal(t->a.count, 10);
    assert_int_equal(t->a.calls, 1);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(t->a.item[i].len, i == 9 ? 2 : 3);
        assert_int_equal(t->a.item[i].segment, 0);
        assert_int_equal(t->a.item[i].data[0], i);
        assert_true(endpoint_equal(&t->a.item[i].from, &from));
        assert_true(ip_equal(&t->a.item[i].to, &to.ip));
    }
    loop_io_close(t->loop, io);
    close(rx);
    close(tx);
}

/* Receives so many of one size, in portions that the socket holds, and checks each. */
static void receive_many(struct bench *t, int tx, const struct endpoint *to, unsigned count, size_t len)
{
    static uint8_t data[60000];
    t->a.largest = 0;
    for (unsigned done = 0; done < count;) {
        unsigned portion = count - done < 16 ? count - done : 16;
        t->a.count = 0;
        t->a.used = 0;
        for (unsigned i = 0; i < portion; i++) {
            fill(data, len, done + i);
            send_to(tx, to, data, len);
        }
        turn_until(t, &t->a, portion * len);
        assert_int_equal(t->a.count, portion);
        for (unsigned i = 0; i < portion; i++) {
            fill(data, len, done + i);
            assert_int_equal(t->a.item[i].len, len);
            assert_memory_equal(t->a.item[i].data, data, len);
        }
        done += portion;
    }
}

/* How much is received at once follows the size of what comes: after large ones small ones fill whole vectors again. */
static void test_vectors_grow_again_when_datagrams_shrink(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0);
    struct endpoint to = local(rx);
    struct loop_io *io = open_io(t, rx, LOOP_UDP, &t->a);
    turn(t, 0);
    receive_many(t, tx, &to, 160, 60000);
    receive_many(t, tx, &to, 64, 100);
    receive_many(t, tx, &to, 256, 100);
    assert_int_equal(t->a.largest, 16);
    receive_many(t, tx, &to, 32, 60000);
    loop_io_close(t->loop, io);
    close(rx);
    close(tx);
}

/* Sends `len` bytes in segments from one socket of the loop to another and checks that they arrive in order. */
static void segmented_transfer(struct bench *t, int rx, int tx, struct endpoint to, unsigned rounds)
{
    const uint32_t len = 39 * 1000 + 400;
    struct loop_io *in = open_io(t, rx, LOOP_UDP, &t->a), *out = open_io(t, tx, LOOP_UDP, &t->b);
    struct loop_slot *slot = loop_slot_get(t->loop);
    assert_non_null(slot);
    fill(slot->data, len, 5);
    for (unsigned i = 0; i < rounds; i++) {
        struct loop_tx send = {.slot = slot, .data = slot->data, .len = len, .segment = 1000, .to = to};
        loop_send(t->loop, out, &send);
    }
    loop_slot_put(t->loop, slot);
    turn_until(t, &t->a, len * rounds);
    assert_int_equal(t->b.failures, 0);
    assert_int_equal(t->a.used, len * rounds);
    uint8_t *want = malloc(len);
    fill(want, len, 5);
    for (unsigned i = 0; i < rounds; i++)
        assert_memory_equal(t->a.bytes + i * len, want, len);
    free(want);
    for (unsigned i = 0; i < t->a.count; i++)
        assert_true(t->a.item[i].segment == 1000 || (t->a.item[i].segment == 0 && t->a.item[i].len <= 1000));
    turn(t, 0);
    assert_int_equal(t->loop->free_count, LOOP_SLOTS);
    loop_io_close(t->loop, in);
    loop_io_close(t->loop, out);
    close(rx);
    close(tx);
}

static void test_segmented_send_arrives_whole_and_in_order(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0);
    segmented_transfer(t, rx, tx, local(rx), 10);
    assert_true(t->a.count < 400); /* coalesced: far fewer than datagrams */
}

static void test_refused_segmentation_is_sent_singly(void **state)
{
    struct bench *t = bench(state);
    /* UDP-Lite refuses UDP_SEGMENT with EIO, as UDP does on a path without checksum offload. */
    int rx = udp("127.0.0.1", IPPROTO_UDPLITE), tx = udp("127.0.0.1", IPPROTO_UDPLITE);
    if (rx < 0 || tx < 0)
        skip();
    segmented_transfer(t, rx, tx, local(rx), 10);
    assert_int_equal(t->a.count, 400);
}

static void test_tells_flow_labels(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("::1", 0), tx = udp("::", 0), one = 1;
    if (rx < 0)
        skip(); /* no IPv6 here */
    assert_int_equal(setsockopt(rx, IPPROTO_IPV6, IPV6_RECVTCLASS, &(int){0}, sizeof(int)), 0);
    assert_int_equal(setsockopt(rx, IPPROTO_IPV6, IPV6_FLOWINFO, &one, sizeof one), 0);
    struct loop_io *in = open_io(t, rx, LOOP_UDP, &t->a), *out = open_io(t, tx, LOOP_UDP, &t->b);
    struct loop_slot *slot = loop_slot_get(t->loop);
    struct loop_tx send = {.slot = slot, .data = slot->data, .len = 3, .tos = 0xb8, .to = local(rx)};
    loop_send(t->loop, out, &send);
    loop_slot_put(t->loop, slot);
    turn_until(t, &t->a, 3);
    assert_int_equal(t->a.item[0].tos, 0xb8);
    assert_in_range(t->a.item[0].flow, 1, 0xfffff); /* Linux makes one of the addresses and ports */
    loop_io_close(t->loop, in);
    loop_io_close(t->loop, out);
    close(rx);
    close(tx);
}

static void test_sends_with_chosen_source_tos_and_ttl(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("0.0.0.0", 0);
    struct loop_io *in = open_io(t, rx, LOOP_UDP, &t->a), *out = open_io(t, tx, LOOP_UDP, &t->b);
    struct loop_slot *slot = loop_slot_get(t->loop);
    memcpy(slot->data, "abcdef", 6);
    struct loop_tx send = {.slot = slot, .data = slot->data + 2, .len = 3, .tos = 0xb8, .ttl = 7, .to = local(rx)};
    assert_int_equal(ip_parse("127.0.0.2", &send.from), OK);
    loop_send(t->loop, out, &send);
    send.tos = send.ttl = 0;
    send.from.family = 0;
    loop_send(t->loop, out, &send);
    loop_slot_put(t->loop, slot);
    turn_until(t, &t->a, 6);
    assert_int_equal(t->a.count, 2);
    char text[IP_TEXT];
    assert_string_equal(ip_format(&t->a.item[0].from.ip, text), "127.0.0.2");
    assert_int_equal(t->a.item[0].tos, 0xb8);
    assert_int_equal(t->a.item[0].ttl, 7);
    assert_memory_equal(t->a.item[0].data, "cde", 3);
    assert_string_equal(ip_format(&t->a.item[1].from.ip, text), "127.0.0.1");
    assert_int_equal(t->a.item[1].tos, 0);
    assert_true(t->a.item[1].ttl > 7); /* the host's default */
    loop_io_close(t->loop, in);
    loop_io_close(t->loop, out);
    close(rx);
    close(tx);
}

/* More is told about each datagram than there is room for: who gets it has to know that something is missing. */
static void test_what_is_cut_off_is_said(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0), one = 1;
    struct loop_io *in = open_io(t, rx, LOOP_UDP, &t->a);
    struct endpoint to = local(rx);
    send_to(tx, &to, "whole", 5);
    turn_until(t, &t->a, 5);
    assert_int_equal(setsockopt(rx, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one), 0);
    assert_int_equal(setsockopt(rx, IPPROTO_IP, IP_RECVORIGDSTADDR, &one, sizeof one), 0);
    send_to(tx, &to, "part", 4);
    turn_until(t, &t->a, 9);
    assert_int_equal(t->a.count, 2);
    assert_false(t->a.item[0].cut);
    assert_true(t->a.item[1].cut);
    loop_io_close(t->loop, in);
    close(rx);
    close(tx);
}

static void test_ipv6_and_mapped_addresses(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("::1", 0), tx = udp("::", 0), four = udp("127.0.0.1", 0);
    if (rx < 0 || tx < 0)
        skip();
    struct loop_io *in = open_io(t, rx, LOOP_UDP, &t->a), *out = open_io(t, tx, LOOP_UDP, &t->b);
    struct loop_slot *slot = loop_slot_get(t->loop);
    fill(slot->data, 3000, 1);
    struct loop_tx send = {
        .slot = slot, .data = slot->data, .len = 3000, .segment = 1000, .tos = 0x28, .ttl = 9, .to = local(rx)};
    send.from = send.to.ip;
    loop_send(t->loop, out, &send);
    turn_until(t, &t->a, 3000);
    assert_int_equal(t->a.used, 3000);
    assert_int_equal(t->a.item[0].tos, 0x28);
    assert_int_equal(t->a.item[0].ttl, 9);
    assert_false(t->a.item[0].cut); /* with all that may be told of it */
    assert_true(ip_equal(&t->a.item[0].to, &send.to.ip));
    assert_true(ip_equal(&t->a.item[0].from.ip, &send.from));
    /* The same IPv6 socket talks to an IPv4 one and is answered. */
    send.to = local(four);
    assert_int_equal(ip_parse("127.0.0.3", &send.from), OK);
    send.len = 10;
    loop_send(t->loop, out, &send);
    turn(t, 0);
    uint8_t data[16];
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    assert_int_equal(recvfrom(four, data, sizeof data, 0, (struct sockaddr *)&peer, &len), 10);
    assert_int_equal(peer.sin_addr.s_addr, htonl(0x7f000003));
    assert_int_equal(sendto(four, data, 10, 0, (struct sockaddr *)&peer, len), 10);
    turn_until(t, &t->b, 10);
    assert_int_equal(t->b.count, 1);
    assert_int_equal(t->b.item[0].from.ip.family, 4);
    char text[IP_TEXT];
    assert_string_equal(ip_format(&t->b.item[0].to, text), "127.0.0.3");
    loop_slot_put(t->loop, slot);
    loop_io_close(t->loop, in);
    loop_io_close(t->loop, out);
    close(rx);
    close(tx);
    close(four);
}

static void test_refused_sends_are_reported(void **state)
{
    struct bench *t = bench(state);
    int tx = udp("127.0.0.1", 0);
    struct loop_io *out = open_io(t, tx, LOOP_UDP, &t->a);
    struct loop_slot *slot = loop_slot_get(t->loop);
    struct loop_tx send = {.slot = slot, .data = slot->data, .len = 2500, .segment = 1000, .to = {.port = 9}};
    assert_int_equal(ip_parse("255.255.255.255", &send.to.ip), OK); /* needs SO_BROADCAST */
    loop_send(t->loop, out, &send);
    turn(t, 0);
    turn(t, 0);
    assert_int_equal(t->a.failures, 1);
    assert_int_equal(t->a.failure.error, EACCES);
    assert_int_equal(t->a.failure.datagrams, 3);
    assert_int_equal(t->a.failure.size, 1000);
    assert_true(endpoint_equal(&t->a.failure.to, &send.to));
    assert_int_equal(ip_parse("127.0.0.1", &send.to.ip), OK);
    send.segment = 0;
    send.len = 65520;
    loop_send(t->loop, out, &send);
    turn(t, 0);
    turn(t, 0);
    assert_int_equal(t->a.failures, 2);
    assert_int_equal(t->a.failure.error, EMSGSIZE);
    assert_int_equal(t->a.failure.datagrams, 1);
    assert_int_equal(t->a.failure.size, 65520);
    assert_int_equal(slot->refs, 1);
    loop_slot_put(t->loop, slot);
    loop_io_close(t->loop, out);
    close(tx);
}

/* Reads numbered datagrams of the test's own sending; counts each number. */
static unsigned read_numbers(int fd, unsigned *seen, unsigned n)
{
    unsigned count = 0;
    uint8_t data[64];
    while (read(fd, data, sizeof data) == 1) {
        assert_true(data[0] < n);
        seen[data[0]]++;
        count++;
    }
    return count;
}

static void test_slot_is_held_until_the_kernel_is_done(void **state)
{
    enum { N = 40 };
    struct bench *t = bench(state);
    int fd[2];
    pair(SOCK_DGRAM, fd);
    int size = 4608; /* takes a few datagrams, then the sender has to wait */
    assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    struct loop_io *out = open_io(t, fd[0], LOOP_UDP, &t->a);
    struct loop_slot *slot = loop_slot_get(t->loop);
    for (uint8_t i = 0; i < N; i++) {
        slot->data[i] = i;
        struct loop_tx send = {.slot = slot, .data = slot->data + i, .len = 1};
        loop_send(t->loop, out, &send);
    }
    assert_int_equal(slot->refs, N + 1);
    loop_slot_put(t->loop, slot);
    turn(t, 0);
    turn(t, 0);
    assert_true(slot->refs > 0 && slot->refs < N);
    for (unsigned i = 1; i < LOOP_SLOTS; i++)
        assert_ptr_not_equal(loop_slot_get(t->loop), slot);
    assert_null(loop_slot_get(t->loop));
    unsigned seen[N] = {0}, total = 0;
    for (ns_t end = clock_now() + 20 * NS_PER_S; total < N && clock_now() < end; turn(t, NS_PER_MS))
        total += read_numbers(fd[1], seen, N);
    assert_int_equal(total, N);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    turn(t, 0);
    assert_int_equal(slot->refs, 0);
    assert_ptr_equal(loop_slot_get(t->loop), slot);
    assert_int_equal(t->a.failures, 0);
    loop_io_close(t->loop, out);
    close(fd[0]);
    close(fd[1]);
}

static void test_waiting_sends_are_bounded(void **state)
{
    struct bench *t = bench(state);
    int fd[2];
    pair(SOCK_DGRAM, fd);
    struct loop_io *out = open_io(t, fd[0], LOOP_UDP, &t->a);
    struct loop_slot *slot = loop_slot_get(t->loop);
    struct loop_tx send = {.slot = slot, .data = slot->data, .len = 1};
    for (unsigned i = 0; i < 3000; i++) {
        loop_send(t->loop, out, &send);
        if (i % 100 == 0)
            turn(t, 0);
    }
    assert_in_range(t->a.failures, 1, 2900);
    assert_int_equal(t->a.failure.error, ENOBUFS);
    assert_in_range(slot->refs, 100, 2000);
    loop_io_close(t->loop, out); /* with all that in flight */
    for (ns_t end = clock_now() + 20 * NS_PER_S; slot->refs > 1 && clock_now() < end;)
        turn(t, 0);
    assert_int_equal(slot->refs, 1);
    loop_slot_put(t->loop, slot);
    close(fd[0]);
    close(fd[1]);
}

static void test_tun_packets_come_in_vectors_and_in_order(void **state)
{
    struct bench *t = bench(state);
    int fd[2];
    pair(SOCK_SEQPACKET, fd);
    struct loop_io *io = open_io(t, fd[0], LOOP_TUN, &t->a);
    turn(t, 0);
    for (unsigned round = 0; round < 4; round++) {
        for (uint8_t i = 0; i < 50; i++) {
            uint8_t data[100] = {(uint8_t)round, i};
            assert_int_equal(write(fd[1], data, 50 + i), 50 + i);
        }
        turn_until(t, &t->a, (round + 1) * (50 * 50 + 49 * 25));
    }
    assert_int_equal(t->a.count, 200);
    assert_true(t->a.largest >= 16);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(t->a.item[i].data[0], i / 50);
        assert_int_equal(t->a.item[i].data[1], i % 50);
        assert_int_equal(t->a.item[i].len, 50 + i % 50);
    }
    loop_io_close(t->loop, io);
    close(fd[0]);
    close(fd[1]);
}

static void test_large_tun_packets_are_read_whole(void **state)
{
    struct bench *t = bench(state);
    int fd[2], size = 4 << 20;
    pair(SOCK_SEQPACKET, fd);
    (void)setsockopt(fd[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    struct loop_io *io = open_io(t, fd[0], LOOP_TUN, &t->a);
    uint8_t *data = malloc(65545);
    fill(data, 65545, 9);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(write(fd[1], data, 65545), 65545);
    turn_until(t, &t->a, 8 * 65545);
    assert_int_equal(t->a.count, 8);
    for (unsigned i = 0; i < 8; i++)
        assert_memory_equal(t->a.item[i].data, data, 65545);
    free(data);
    loop_io_close(t->loop, io);
    close(fd[0]);
    close(fd[1]);
}

static void test_tun_writes_are_gathered_and_in_order(void **state)
{
    struct bench *t = bench(state);
    int fd[2], size = 4 << 20;
    pair(SOCK_SEQPACKET, fd);
    (void)setsockopt(fd[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    struct loop_io *io = open_io(t, fd[0], LOOP_TUN, &t->a);
    turn(t, 0);
    struct loop_slot *slot = loop_slot_get(t->loop);
    for (unsigned i = 0; i < 300; i++) {
        uint8_t *at = slot->data + (size_t)i * 8;
        put_be32(at, i);
        put_be32(at + 4, ~i);
        struct iovec iov[LOOP_IOV_MAX] = {{at, 2}, {at + 2, 3}, {at + 5, 3}};
        struct iovec one = {at, 8};
        loop_write(t->loop, io, slot, i % 3 ? iov : &one, i % 3 ? 3 : 1);
    }
    loop_slot_put(t->loop, slot);
    turn(t, 0);
    turn(t, 0);
    for (unsigned i = 0; i < 300; i++) {
        uint8_t data[16] = {0};
        assert_int_equal(read(fd[1], data, sizeof data), 8);
        assert_int_equal(get_be32(data), i);
        assert_int_equal(get_be32(data + 4), ~i);
    }
    assert_int_equal(t->a.failures, 0);
    assert_int_equal(t->loop->free_count, LOOP_SLOTS);
    loop_io_close(t->loop, io);
    close(fd[0]);
    close(fd[1]);
}

static void test_refused_tun_write_is_reported(void **state)
{
    struct bench *t = bench(state);
    int fd[2];
    pair(SOCK_SEQPACKET, fd);
    struct loop_io *io = open_io(t, fd[0], LOOP_TUN, &t->a);
    close(fd[1]);
    struct loop_slot *slot = loop_slot_get(t->loop);
    struct iovec iov[2] = {{slot->data, 20}, {slot->data + 100, 30}};
    loop_write(t->loop, io, slot, iov, 2);
    turn(t, 0);
    turn(t, 0);
    assert_int_equal(t->a.failures, 1);
    assert_int_equal(t->a.failure.error, EPIPE);
    assert_int_equal(t->a.failure.datagrams, 1);
    assert_int_equal(t->a.failure.size, 50);
    assert_int_equal(slot->refs, 1);
    loop_slot_put(t->loop, slot);
    loop_io_close(t->loop, io);
    close(fd[0]);
}

static void test_dead_descriptor_does_not_spin(void **state)
{
    struct bench *t = bench(state);
    int fd[2];
    pair(SOCK_SEQPACKET, fd);
    struct loop_io *io = open_io(t, fd[0], LOOP_TUN, &t->a);
    close(fd[1]);
    unsigned turns = 0;
    for (ns_t end = clock_now() + 100 * NS_PER_MS; clock_now() < end || turns < 4; turns++)
        assert_int_equal(loop_turn(t->loop, end), OK);
    assert_in_range(turns, 4, 60);
    loop_io_close(t->loop, io);
    close(fd[0]);
}

static void test_descriptor_without_multishot_is_polled(void **state)
{
    struct bench *t = bench(state);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {.it_value = {.tv_nsec = 5000000}, .it_interval = {.tv_nsec = 5000000}};
    assert_int_equal(timerfd_settime(fd, 0, &every, NULL), 0);
    struct loop_io *io = open_io(t, fd, LOOP_TUN, &t->a);
    turn_until(t, &t->a, 5 * 8);
    assert_true(t->a.count >= 5);
    assert_int_equal(t->a.item[0].len, 8);
    loop_io_close(t->loop, io);
    close(fd);
}

static void test_a_flood_does_not_starve_the_other_side(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0), fd[2];
    pair(SOCK_SEQPACKET, fd);
    struct endpoint to = local(rx);
    struct loop_io *flood = open_io(t, rx, LOOP_UDP, &t->a), *tun = open_io(t, fd[0], LOOP_TUN, &t->b);
    turn(t, 0);
    for (unsigned i = 0; i < 300; i++)
        send_to(tx, &to, "x", 1);
    assert_int_equal(write(fd[1], "packet", 6), 6);
    turn(t, NS_PER_S);
    turn(t, NS_PER_S);
    assert_int_equal(t->b.count, 1);
    assert_true(t->a.count < 300);
    turn_until(t, &t->a, 300);
    assert_int_equal(t->a.count, 300);
    loop_io_close(t->loop, flood);
    loop_io_close(t->loop, tun);
    close(rx);
    close(tx);
    close(fd[0]);
    close(fd[1]);
}

/* Whatever comes by one socket leaves room for what comes by another, also when it is full of superpackets. */
static void test_sockets_share_the_buffers(void **state)
{
    struct bench *t = bench(state);
    static uint8_t data[60000];
    int full[2], quiet = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0);
    full[0] = udp("127.0.0.1", 0);
    full[1] = udp("127.0.0.1", 0);
    struct endpoint to[2] = {local(full[0]), local(full[1])}, other = local(quiet);
    struct loop_io *first = open_io(t, full[0], LOOP_UDP, &t->a), *io = open_io(t, quiet, LOOP_UDP, &t->b),
                   *last = open_io(t, full[1], LOOP_UDP, &t->a);
    turn(t, 0);
    for (unsigned from = 0; from < 2; from++) {
        receive_many(t, tx, &to[from], 64, sizeof data);
        t->a.count = t->b.count = 0;
        t->a.used = t->b.used = 0;
        for (unsigned i = 0; i < 40; i++)
            send_to(tx, &to[from], data, sizeof data);
        turn(t, NS_PER_S);
        send_to(tx, &other, "x", 1);
        for (unsigned i = 0; i < 2; i++)
            turn(t, NS_PER_S);
        assert_int_equal(t->b.count, 1);
        turn_until(t, &t->a, 40 * sizeof data);
        assert_int_equal(t->a.count, 40);
    }
    loop_io_close(t->loop, first);
    loop_io_close(t->loop, io);
    loop_io_close(t->loop, last);
    close(full[0]);
    close(full[1]);
    close(quiet);
    close(tx);
}

static void on_watch(void *ctx, uint32_t events)
{
    struct bench *t = ctx;
    assert_true(events & EPOLLIN);
    t->watched++;
    if (t->watched == 3) {
        loop_watch_del(t->loop, t->watch);
        t->watch = NULL;
    }
}

static void test_watch_is_level_triggered_and_ends_in_its_callback(void **state)
{
    struct bench *t = bench(state);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(loop_watch_add(t->loop, fd, EPOLLIN, on_watch, t, &t->watch), OK);
    turn(t, 0);
    turn(t, 0);
    assert_int_equal(t->watched, 0);
    assert_int_equal(eventfd_write(fd, 1), 0);
    for (unsigned i = 0; i < 6; i++)
        turn(t, 20 * NS_PER_MS);
    assert_int_equal(t->watched, 3);
    assert_null(t->watch);
    /* One that never fired is dropped while it is armed. */
    int other = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(loop_watch_add(t->loop, other, EPOLLIN, on_watch, t, &t->watch), OK);
    turn(t, 0);
    loop_watch_del(t->loop, t->watch);
    assert_int_equal(eventfd_write(other, 1), 0);
    turn(t, 20 * NS_PER_MS);
    turn(t, 20 * NS_PER_MS);
    assert_int_equal(t->watched, 3);
    close(fd);
    close(other);
}

static void test_deadline_is_kept(void **state)
{
    struct bench *t = bench(state);
    turn(t, 0);
    ns_t start = clock_now(), end = start + 200 * NS_PER_MS;
    unsigned turns = 1;
    for (; clock_now() < end; turns++) /* a signal may end a wait early */
        assert_int_equal(loop_turn(t->loop, end), OK);
    assert_true(clock_now() - start < 10 * NS_PER_S);
    assert_in_range(turns, 2, 6);
    assert_int_equal(t->ends, turns);
    assert_int_equal(t->sleeps, t->wakes);
    assert_true(t->sleeps >= 1);
    start = clock_now();
    assert_int_equal(loop_turn(t->loop, start - NS_PER_S), OK); /* long past */
    assert_true(clock_now() - start < 10 * NS_PER_S);
}

static void *poke(void *arg)
{
    usleep(30000);
    (void)eventfd_write(*(int *)arg, 1);
    return NULL;
}

static void test_waits_for_ever_until_woken(void **state)
{
    struct bench *t = bench(state);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(loop_watch_add(t->loop, fd, EPOLLIN, on_watch, t, &t->watch), OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, poke, &fd), 0);
    while (!t->watched)
        assert_int_equal(loop_turn(t->loop, NS_NEVER), OK);
    assert_int_equal(t->watched, 1);
    assert_int_equal(t->sleeps, t->wakes);
    pthread_join(thread, NULL);
    loop_watch_del(t->loop, t->watch);
    close(fd);
}

static void send_once_at_end(struct bench *t)
{
    t->at_end = NULL;
    struct loop_slot *slot = loop_slot_get(t->loop);
    memcpy(slot->data, "end", 3);
    struct loop_tx send = {.slot = slot, .data = slot->data, .len = 3, .to = local(t->fd)};
    loop_send(t->loop, t->io, &send);
    loop_slot_put(t->loop, slot);
    /* Nothing is sent out before the next turn. */
    uint8_t data[8];
    assert_int_equal(recv(t->fd, data, sizeof data, MSG_DONTWAIT), -1);
}

static void test_turn_end_runs_before_anything_leaves(void **state)
{
    struct bench *t = bench(state);
    int tx = udp("127.0.0.1", 0);
    t->fd = udp("127.0.0.1", 0);
    t->io = open_io(t, tx, LOOP_UDP, &t->a);
    t->at_end = send_once_at_end;
    turn(t, 0);
    turn(t, 0);
    uint8_t data[8];
    assert_int_equal(recv(t->fd, data, sizeof data, MSG_DONTWAIT), 3);
    loop_io_close(t->loop, t->io);
    close(tx);
    close(t->fd);
}

struct closer {
    struct bench *t;
    unsigned calls;
};

static void close_on_receive(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct closer *c = ctx;
    (void)rx;
    (void)n;
    c->calls++;
    loop_io_close(c->t->loop, c->t->io);
    close(c->t->fd);
}

static void test_io_may_be_closed_in_its_callback(void **state)
{
    struct bench *t = bench(state);
    int tx = udp("127.0.0.1", 0);
    t->fd = udp("127.0.0.1", 0);
    struct endpoint to = local(t->fd);
    struct closer c = {.t = t};
    struct loop_io_handler h = {.ctx = &c, .received = close_on_receive};
    assert_int_equal(loop_io_open(t->loop, t->fd, LOOP_UDP, &h, &t->io), OK);
    turn(t, 0);
    for (unsigned i = 0; i < 100; i++)
        send_to(tx, &to, "abc", 3);
    for (unsigned i = 0; i < 5; i++)
        turn(t, 10 * NS_PER_MS);
    assert_int_equal(c.calls, 1);
    /* The port is free again: nothing in the kernel holds the socket. */
    struct sockaddr_storage ss;
    socklen_t len = endpoint_to_sockaddr(&to, &ss);
    int again = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(again, (struct sockaddr *)&ss, len), 0);
    close(again);
    close(tx);
}

static void test_free_with_operations_in_flight(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), fd[2], tun[2], event = eventfd(0, EFD_NONBLOCK);
    pair(SOCK_DGRAM, fd);
    pair(SOCK_SEQPACKET, tun);
    (void)open_io(t, rx, LOOP_UDP, &t->a);
    (void)open_io(t, tun[0], LOOP_TUN, &t->a);
    struct loop_io *out = open_io(t, fd[0], LOOP_UDP, &t->a);
    assert_int_equal(loop_watch_add(t->loop, event, EPOLLIN, on_watch, t, &t->watch), OK);
    struct loop_slot *slot = loop_slot_get(t->loop);
    struct loop_tx send = {.slot = slot, .data = slot->data, .len = 1};
    for (unsigned i = 0; i < 60; i++)
        loop_send(t->loop, out, &send);
    turn(t, 0);
    turn(t, 0);
    for (unsigned i = 0; i < 60; i++)
        loop_send(t->loop, out, &send);
    struct endpoint at = local(rx);
    ns_t start = clock_now();
    loop_free(t->loop);
    t->loop = NULL;
    assert_true(clock_now() - start < 10 * NS_PER_S);
    assert_int_equal(t->a.failures, 0);
    close(rx);
    struct sockaddr_storage ss;
    socklen_t len = endpoint_to_sockaddr(&at, &ss);
    int again = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(again, (struct sockaddr *)&ss, len), 0);
    close(again);
    close(fd[0]);
    close(fd[1]);
    close(tun[0]);
    close(tun[1]);
    close(event);
}

static void *run_loop(void *arg)
{
    struct bench *t = arg;
    turn_until(t, &t->a, 100);
    return NULL;
}

static void test_runs_in_another_thread_than_it_was_made_in(void **state)
{
    struct bench *t = bench(state);
    int rx = udp("127.0.0.1", 0), tx = udp("127.0.0.1", 0);
    struct endpoint to = local(rx);
    (void)open_io(t, rx, LOOP_UDP, &t->a);
    struct loop_io *out = open_io(t, tx, LOOP_UDP, &t->b);
    struct loop_slot *slot = loop_slot_get(t->loop);
    struct loop_tx send = {.slot = slot, .data = slot->data, .len = 50, .to = to};
    loop_send(t->loop, out, &send); /* before the first turn */
    loop_slot_put(t->loop, slot);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_loop, t), 0);
    usleep(20000);
    int other = udp("127.0.0.1", 0);
    send_to(other, &to, "12345678901234567890123456789012345678901234567890", 50);
    pthread_join(thread, NULL);
    assert_int_equal(t->a.count, 2);
    loop_free(t->loop); /* by the one who made it, after the thread's end */
    t->loop = NULL;
    close(rx);
    close(tx);
    close(other);
}

static void test_slots_are_handed_out_last_in_first_out(void **state)
{
    struct bench *t = bench(state);
    struct loop_slot *a = loop_slot_get(t->loop), *b = loop_slot_get(t->loop);
    assert_ptr_not_equal(a, b);
    memset(a->data, 1, LOOP_SLOT_SIZE);
    memset(b->data, 2, LOOP_SLOT_SIZE);
    assert_int_equal(a->data[LOOP_SLOT_SIZE - 1], 1);
    loop_slot_ref(a);
    loop_slot_put(t->loop, a);
    assert_int_equal(t->loop->free_count, LOOP_SLOTS - 2);
    loop_slot_put(t->loop, b);
    assert_ptr_equal(loop_slot_get(t->loop), b);
    loop_slot_put(t->loop, a);
    assert_ptr_equal(loop_slot_get(t->loop), a);
}

int main(void)
{
    static enum loop_kind kinds[] = {LOOP_URING, LOOP_EPOLL};
    signal(SIGPIPE, SIG_IGN);
#define BOTH(f)                                        \
    {#f " (io_uring)", f, setup, teardown, &kinds[0]}, \
    {                                                  \
#f " (epoll)", f, setup, teardown, &kinds[1]   \
    }
    const struct CMUnitTest tests[] = {
        BOTH(test_receives_datagrams_as_one_vector),
        BOTH(test_vectors_grow_again_when_datagrams_shrink),
        BOTH(test_segmented_send_arrives_whole_and_in_order),
        BOTH(test_refused_segmentation_is_sent_singly),
        BOTH(test_sends_with_chosen_source_tos_and_ttl),
        BOTH(test_tells_flow_labels),
        BOTH(test_what_is_cut_off_is_said),
        BOTH(test_ipv6_and_mapped_addresses),
        BOTH(test_refused_sends_are_reported),
        BOTH(test_slot_is_held_until_the_kernel_is_done),
        BOTH(test_waiting_sends_are_bounded),
        BOTH(test_tun_packets_come_in_vectors_and_in_order),
        BOTH(test_large_tun_packets_are_read_whole),
        BOTH(test_tun_writes_are_gathered_and_in_order),
        BOTH(test_refused_tun_write_is_reported),
        BOTH(test_dead_descriptor_does_not_spin),
        BOTH(test_descriptor_without_multishot_is_polled),
        BOTH(test_a_flood_does_not_starve_the_other_side),
        BOTH(test_sockets_share_the_buffers),
        BOTH(test_watch_is_level_triggered_and_ends_in_its_callback),
        BOTH(test_deadline_is_kept),
        BOTH(test_waits_for_ever_until_woken),
        BOTH(test_turn_end_runs_before_anything_leaves),
        BOTH(test_io_may_be_closed_in_its_callback),
        BOTH(test_free_with_operations_in_flight),
        BOTH(test_runs_in_another_thread_than_it_was_made_in),
        BOTH(test_slots_are_handed_out_last_in_first_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
