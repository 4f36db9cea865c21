/*
 * Raw sockets: whole IP packets with their headers, both ways, on both engines and in memory. The real ones run on the
 * loopback of a network namespace of this process's own and need root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/base/cursor.h"
#include "tun/memory.h"
#include "tun/raw.h"

#define ITEMS 64

static const char *why_not; /* why the real ones can't run here, or NULL */

static int isolate(void **state)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd;
    (void)state;
    if (geteuid() != 0 || unshare(CLONE_NEWNET) != 0)
        why_not = "may not make a network namespace";
    else if ((fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0 || ioctl(fd, SIOCSIFFLAGS, &r) != 0)
        why_not = "can't bring up the loopback";
    else
        close(fd);
    if (why_not)
        fprintf(stderr, "test_raw: real sockets skipped: %s\n", why_not);
    return 0;
}

struct inbox {
    unsigned count, failures;
    int error;
    struct {
        uint32_t len;
        uint8_t data[256];
        struct endpoint from;
        struct ip to;
        uint8_t tos;
    } item[ITEMS];
    bool cut; /* the last one */
    uint8_t last[2 * LOOP_HEAD_MAX];
};

static void received(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct inbox *in = ctx;
    for (unsigned i = 0; i < n; i++) {
        unsigned k = in->count++;
        assert_true(k < ITEMS);
        in->item[k].len = rx[i].len;
        memcpy(in->item[k].data, rx[i].data, rx[i].len < 256 ? rx[i].len : 256);
        in->item[k].from = rx[i].from;
        in->item[k].to = rx[i].to;
        in->item[k].tos = rx[i].tos;
        assert_int_equal(rx[i].segment, 0);
        in->cut = rx[i].cut;
        memcpy(in->last, rx[i].data, rx[i].len < sizeof in->last ? rx[i].len : sizeof in->last);
        rx[i].data[0] = 0; /* it may be changed */
    }
}

static void failed(void *ctx, const struct loop_failure *f)
{
    struct inbox *in = ctx;
    in->failures++;
    in->error = f->error;
}

static struct ip ip_of(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(text, &ip), OK);
    return ip;
}

static int raw(const char *local, uint8_t protocol)
{
    struct raw_options o = {.local = ip_of(local), .protocol = protocol, .mark = true};
    char why[200];
    int fd = -1;
    enum err e = raw_open(&o, &fd, why, sizeof why);
    if (e != OK)
        fail_msg("%s", why);
    return fd;
}

/* -- packets, written by hand -- */

static size_t ipv4(uint8_t *p, uint8_t options, const char *from, const char *to, uint32_t spi, size_t payload)
{
    size_t header = 20 + options, len = header + payload;
    struct ip a = ip_of(from), b = ip_of(to);
    memset(p, 0, len);
    p[0] = (uint8_t)(0x40 | header / 4);
    p[1] = 0xb9;
    put_be16(p + 2, (uint16_t)len);
    p[8] = 33;
    p[9] = 50;
    memcpy(p + 12, a.b, 4);
    memcpy(p + 16, b.b, 4);
    memset(p + 20, 1, options); /* no operation */
    put_be32(p + header, spi);
    p[len - 1] = 0x77;
    return len;
}

static size_t ipv6(uint8_t *p, const uint8_t *extensions, size_t extension, uint8_t first, const char *from,
                   const char *to, uint32_t spi, size_t payload)
{
    size_t len = 40 + extension + payload;
    struct ip a = ip_of(from), b = ip_of(to);
    memset(p, 0, len);
    put_be32(p, UINT32_C(6) << 28 | 0xb9u << 20 | 0xabcde);
    put_be16(p + 4, (uint16_t)(extension + payload));
    p[6] = first;
    p[7] = 33;
    memcpy(p + 8, a.b, 16);
    memcpy(p + 24, b.b, 16);
    memcpy(p + 40, extensions, extension);
    put_be32(p + 40 + extension, spi);
    p[len - 1] = 0x77;
    return len;
}

/* Hop-by-hop options with a PadN, destination options with one that is to be skipped by who does not know it, ESP. */
static const uint8_t chain[] = {60, 0, 1, 4, 0, 0, 0, 0, 50, 1, 0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

static void send_one(struct loop *l, struct loop_io *io, const uint8_t *packet, size_t len, const char *to)
{
    struct loop_slot *slot = loop_slot_get(l);
    assert_non_null(slot);
    memcpy(slot->data + 8, packet, len);
    struct loop_tx tx = {.slot = slot, .data = slot->data + 8, .len = (uint32_t)len, .to = {.ip = ip_of(to)}};
    loop_send(l, io, &tx);
    loop_slot_put(l, slot);
}

static void turns(struct loop *l, const struct inbox *in, unsigned count)
{
    ns_t until = clock_now() + 20 * NS_PER_S;
    while (in->count + in->failures < count && clock_now() < until)
        assert_int_equal(loop_turn(l, clock_now() + 20 * NS_PER_MS), OK);
}

/* -- both engines -- */

struct engine {
    struct loop *loop;
    struct inbox in;
};

static bool engine_new(struct engine *t, enum loop_kind kind)
{
    char why[160];
    memset(t, 0, sizeof *t);
    return loop_new(kind, NULL, &t->loop, why, sizeof why) == OK;
}

static struct loop_io *open_io(struct engine *t, int fd)
{
    struct loop_io_handler h = {.ctx = &t->in, .received = received, .failed = failed};
    struct loop_io *io;
    assert_int_equal(loop_io_open(t->loop, fd, LOOP_RAW, &h, &io), OK);
    return io;
}

static const enum loop_kind kinds[] = {LOOP_URING, LOOP_EPOLL};

static void ipv4_packets_pass_with_their_header(void **state)
{
    (void)state;
    if (why_not)
        skip();
    for (unsigned k = 0; k < 2; k++) {
        struct engine t;
        uint8_t packet[256];
        if (!engine_new(&t, kinds[k]))
            continue;
        int fd = raw("127.0.0.2", RAW_ESP);
        struct loop_io *io = open_io(&t, fd);
        size_t len = ipv4(packet, 4, "127.0.0.3", "127.0.0.2", 0x10000001, 60);
        send_one(t.loop, io, packet, len, "127.0.0.2");
        turns(t.loop, &t.in, 1);
        assert_int_equal(t.in.count, 1);
        assert_int_equal(t.in.item[0].len, len);
        const uint8_t *got = t.in.item[0].data;
        assert_memory_equal(got + 12, packet + 12, len - 12);
        assert_int_equal(got[1], 0xb9);
        assert_int_equal(got[8], 33);
        assert_int_equal(get_be16(got + 2), len);
        assert_int_equal(t.in.item[0].tos, 0xb9);
        struct ip from = ip_of("127.0.0.3"), to = ip_of("127.0.0.2");
        assert_true(ip_equal(&t.in.item[0].from.ip, &from));
        assert_int_equal(t.in.item[0].from.port, 0);
        assert_true(ip_equal(&t.in.item[0].to, &to));
        loop_io_close(t.loop, io);
        loop_free(t.loop);
        close(fd);
    }
}

/* The kernel keeps the header back: it is put together again, with traffic class, flow label, hop limit and chain. */
static void ipv6_headers_are_put_together_again(void **state)
{
    (void)state;
    if (why_not)
        skip();
    for (unsigned k = 0; k < 4; k++) {
        struct engine t;
        uint8_t packet[256];
        if (!engine_new(&t, kinds[k & 1]))
            continue;
        int fd = raw("::1", RAW_ESP);
        struct loop_io *io = open_io(&t, fd);
        size_t len = k < 2 ? ipv6(packet, chain, 0, 50, "::1", "::1", 0x10000001, 60)
                           : ipv6(packet, chain, sizeof chain, 0, "::1", "::1", 0x10000001, 60);
        send_one(t.loop, io, packet, len, "::1");
        turns(t.loop, &t.in, 1);
        assert_int_equal(t.in.count, 1);
        assert_int_equal(t.in.item[0].len, len);
        assert_memory_equal(t.in.item[0].data, packet, len);
        assert_int_equal(t.in.item[0].tos, 0xb9);
        assert_int_equal(t.in.item[0].from.port, 0);
        loop_io_close(t.loop, io);
        loop_free(t.loop);
        close(fd);
    }
}

/* Options that are to be skipped by who does not know them, 2,048 bytes of them: as many as one header can have. */
static void put_options(uint8_t *header, uint8_t next)
{
    uint32_t at = 2;
    memset(header, 0x66, 2048);
    header[0] = next;
    header[1] = 255;
    for (unsigned i = 0; i < 8; i++) {
        header[at] = 0x1e;
        header[at + 1] = i < 7 ? 254 : 252;
        at += 2u + header[at + 1];
    }
    assert_int_equal(at, 2048);
}

/* All that RFC 8200 has in one packet, as long as it can be; what is more comes with the word that it is not whole. */
static void extension_headers_of_any_length_are_there_or_said_to_be_missing(void **state)
{
    static uint8_t extensions[5 * 2048], packet[2 * LOOP_HEAD_MAX];
    (void)state;
    if (why_not)
        skip();
    for (unsigned k = 0; k < 2; k++)
        for (unsigned headers = 1; headers <= 5; headers++) {
            struct engine t;
            if (!engine_new(&t, kinds[k]))
                continue;
            int fd = raw("::1", RAW_ESP);
            struct loop_io *io = open_io(&t, fd);
            for (unsigned i = 0; i < headers; i++)
                put_options(extensions + i * 2048ul, i + 1 < headers ? 60 : 50);
            size_t len = ipv6(packet, extensions, headers * 2048ul, 60, "::1", "::1", 0x10000001, 60);
            send_one(t.loop, io, packet, len, "::1");
            turns(t.loop, &t.in, 1);
            assert_int_equal(t.in.count, 1);
            assert_int_equal(t.in.cut, headers > 4);
            if (headers <= 4) {
                assert_int_equal(t.in.item[0].len, len);
                assert_memory_equal(t.in.last + 1, packet + 1, len - 1);
            }
            loop_io_close(t.loop, io);
            loop_free(t.loop);
            close(fd);
        }
}

/* RFC 6946: the kernel takes a fragment header off that stands before all of its packet. */
static void atomic_fragments_come_as_whole_packets(void **state)
{
    static const uint8_t fragment[] = {60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 50, 0, 0, 0, 1, 2, 3, 4};
    static const uint8_t left[] = {60, 0, 1, 4, 0, 0, 0, 0, 50, 0, 1, 4, 0, 0, 0, 0};
    (void)state;
    if (why_not)
        skip();
    for (unsigned k = 0; k < 2; k++) {
        struct engine t;
        uint8_t packet[256];
        if (!engine_new(&t, kinds[k]))
            continue;
        int fd = raw("::1", RAW_ESP);
        struct loop_io *io = open_io(&t, fd);
        send_one(t.loop, io, packet, ipv6(packet, fragment, sizeof fragment, 0, "::1", "::1", 1u << 28, 60), "::1");
        turns(t.loop, &t.in, 1);
        size_t len = ipv6(packet, left, sizeof left, 0, "::1", "::1", 1u << 28, 60);
        assert_int_equal(t.in.count, 1);
        assert_false(t.in.cut);
        assert_int_equal(t.in.item[0].len, len);
        assert_memory_equal(t.in.last + 1, packet + 1, len - 1);
        loop_io_close(t.loop, io);
        loop_free(t.loop);
        close(fd);
    }
}

static void many_arrive_in_order_and_long_ones_fail(void **state)
{
    (void)state;
    if (why_not)
        skip();
    for (unsigned k = 0; k < 2; k++) {
        struct engine t;
        uint8_t packet[256];
        static uint8_t big[65535 + 20];
        if (!engine_new(&t, kinds[k]))
            continue;
        int fd = raw("127.0.0.2", RAW_ESP);
        struct loop_io *io = open_io(&t, fd);
        for (uint32_t i = 0; i < ITEMS; i++)
            send_one(t.loop, io, packet, ipv4(packet, 0, "127.0.0.3", "127.0.0.2", 0x10000000 + i, 60), "127.0.0.2");
        turns(t.loop, &t.in, ITEMS);
        assert_int_equal(t.in.count, ITEMS);
        for (uint32_t i = 0; i < ITEMS; i++)
            assert_int_equal(get_be32(t.in.item[i].data + 20), 0x10000000 + i);
        t.in.count = 0;
        send_one(t.loop, io, big, ipv4(big, 0, "127.0.0.3", "127.0.0.2", 1u << 28, 65535), "127.0.0.2");
        turns(t.loop, &t.in, 1);
        assert_int_equal(t.in.failures, 1);
        loop_io_close(t.loop, io);
        loop_free(t.loop);
        close(fd);
    }
}

/* Each worker's socket gets what is its own; the first one also what is nobody's. */
static void each_worker_gets_its_own(void **state)
{
    (void)state;
    if (why_not)
        skip();
    static const char *const at[] = {"127.0.0.2", "::1"};
    static const uint8_t protocols[] = {RAW_ESP, RAW_AH};
    static const uint8_t bits[] = {1, 2, 3, 0, 4, 15};
    for (unsigned round = 0; round < 4; round++) {
        struct raw_options o = {.local = ip_of(at[round & 1]), .protocol = protocols[round >> 1]};
        struct engine t[3];
        int fd[3];
        struct loop_io *io[3];
        for (unsigned w = 0; w < 3; w++) {
            assert_true(engine_new(&t[w], LOOP_EPOLL));
            fd[w] = raw(at[round & 1], o.protocol);
            assert_int_equal(raw_steer(fd[w], &o, w, 3), OK);
            io[w] = open_io(&t[w], fd[w]);
        }
        for (unsigned i = 0; i < sizeof bits; i++) {
            uint8_t packet[256];
            uint32_t word = (uint32_t)bits[i] << 28 | 0x123;
            size_t len = round & 1 ? ipv6(packet, chain, 0, o.protocol, "::1", "::1", word, 60)
                                   : ipv4(packet, 8, "127.0.0.3", "127.0.0.2", word, 60);
            size_t header = round & 1 ? 40 : 28;
            if (!(round & 1))
                packet[9] = o.protocol;
            if (o.protocol == RAW_AH) { /* the SPI is AH's second word */
                put_be32(packet + header, 0);
                put_be32(packet + header + 4, word);
            }
            send_one(t[0].loop, io[0], packet, len, at[round & 1]);
        }
        static const unsigned wanted[] = {4, 1, 1};
        for (unsigned w = 0; w < 3; w++) {
            turns(t[w].loop, &t[w].in, wanted[w]);
            assert_int_equal(t[w].in.count, wanted[w]);
        }
        for (unsigned w = 0; w < 3; w++) {
            loop_free(t[w].loop);
            close(fd[w]);
        }
    }
}

/* -- in memory -- */

static bool tapped(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    unsigned *seen = ctx;
    assert_int_equal(from->port | to->port, 0);
    assert_true(len > 20 && (data[0] >> 4 == 4 || data[0] >> 4 == 6));
    ++*seen;
    return true;
}

static void memory_carries_the_same(void **state)
{
    (void)state;
    struct memory_net *n;
    struct loop *l;
    struct inbox in[2] = {0};
    unsigned seen = 0;
    uint8_t packet[256];
    assert_int_equal(memory_net_new(&n, 1), OK);
    assert_int_equal(memory_loop_new(n, NULL, &l), OK);
    memory_net_tap(n, tapped, &seen);
    struct ip any4 = {.family = 4}, at6 = ip_of("2001:db8::2");
    struct loop_io *io[2];
    struct loop_io_handler h = {.ctx = &in[0], .received = received, .failed = failed};
    assert_int_equal(loop_io_open(l, memory_raw(n, &any4, RAW_ESP), LOOP_RAW, &h, &io[0]), OK);
    h.ctx = &in[1];
    assert_int_equal(loop_io_open(l, memory_raw(n, &at6, RAW_ESP), LOOP_RAW, &h, &io[1]), OK);
    size_t len = ipv4(packet, 4, "192.0.2.1", "192.0.2.2", 0x10000001, 60);
    send_one(l, io[0], packet, len, "192.0.2.2");
    memory_run(n, 0);
    assert_int_equal(in[0].count, 1);
    assert_int_equal(in[0].item[0].len, len);
    assert_int_not_equal(get_be16(in[0].item[0].data + 4), 0); /* Identification */
    assert_int_not_equal(get_be16(in[0].item[0].data + 10), 0);
    assert_memory_equal(in[0].item[0].data + 12, packet + 12, len - 12);
    assert_int_equal(in[0].item[0].tos, 0xb9);
    len = ipv6(packet, chain, sizeof chain, 0, "2001:db8::1", "2001:db8::2", 0x10000001, 60);
    struct endpoint from = {.ip = ip_of("2001:db8::1")}, to = {.ip = at6};
    memory_send(n, &from, &to, packet, len);
    memory_run(n, 0);
    assert_int_equal(in[1].count, 1);
    assert_memory_equal(in[1].item[0].data, packet, len);
    assert_true(ip_equal(&in[1].item[0].to, &at6));
    packet[6] = 17; /* of another protocol: on the wire, but nobody's */
    send_one(l, io[0], packet, len, "2001:db8::2");
    memory_run(n, 0);
    assert_int_equal(in[1].count, 1);
    assert_int_equal(seen, 3);
    send_one(l, io[0], packet, len - 1, "2001:db8::2"); /* no packet by its own account */
    memory_run(n, 0);
    assert_int_equal(in[0].failures, 1);
    assert_int_equal(seen, 3);
    loop_free(l);
    memory_net_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4_packets_pass_with_their_header),
        cmocka_unit_test(ipv6_headers_are_put_together_again),
        cmocka_unit_test(extension_headers_of_any_length_are_there_or_said_to_be_missing),
        cmocka_unit_test(atomic_fragments_come_as_whole_packets),
        cmocka_unit_test(many_arrive_in_order_and_long_ones_fail),
        cmocka_unit_test(each_worker_gets_its_own),
        cmocka_unit_test(memory_carries_the_same),
    };
    return cmocka_run_group_tests(tests, isolate, NULL);
}
