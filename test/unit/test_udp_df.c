/*
 * The socket that sends with DF beside the one that doesn't, on the loopback of a network namespace of this process's
 * own. Needs root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/cursor.h"
#include "core/base/loop.h"
#include "tun/udp.h"

#define GROUP 3

static const char *why_not; /* why these tests can't run here, or NULL */

static int isolate(void **state)
{
    (void)state;
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (geteuid() != 0 || unshare(CLONE_NEWNET) != 0) {
        why_not = "may not make a network namespace";
        fprintf(stderr, "test_udp_df: skipped: %s\n", why_not);
        return 0;
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int failed = ioctl(fd, SIOCSIFFLAGS, &r);
    close(fd);
    return failed;
}

static void need_isolation(void)
{
    if (why_not)
        skip();
}

static struct udp_options options(const char *ip, bool reuseport)
{
    struct udp_options o = {.local.port = 4500, .reuseport = reuseport, .mark = true, .gro = true};
    assert_int_equal(ip_parse(ip, &o.local.ip), OK);
    return o;
}

/* A host's sockets: n to receive, steered if there are several, and n to send with DF. */
struct sockets {
    int fd[2 * GROUP];
    unsigned n;
};

static struct sockets open_sockets(const char *ip, unsigned n)
{
    struct sockets s = {.n = n};
    struct udp_options o = options(ip, n > 1);
    char why[200];
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(udp_open(&o, &s.fd[i], why, sizeof why), OK);
    if (n > 1)
        assert_int_equal(udp_steer(s.fd[0], n), OK);
    for (unsigned i = 0; i < n; i++)
        if (udp_open_df(&o, s.fd, n + i, &s.fd[n + i], why, sizeof why) != OK)
            fail_msg("%s", why);
    return s;
}

static void close_sockets(const struct sockets *s)
{
    for (unsigned i = 0; i < 2 * s->n; i++)
        close(s->fd[i]);
}

/* -- what it sends -- */

/* All IPv4 packets of the loopback, each of them twice: on its way out, which is skipped, and in. */
static int open_tap(void)
{
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    assert_true(fd >= 0);
    return fd;
}

static size_t next_packet(int tap, uint8_t *out, size_t cap)
{
    struct sockaddr_ll from;
    do {
        struct pollfd p = {.fd = tap, .events = POLLIN};
        socklen_t len = sizeof from;
        if (poll(&p, 1, 1000) != 1)
            return 0;
        ssize_t n = recvfrom(tap, out, cap, 0, (struct sockaddr *)&from, &len);
        assert_true(n >= 20);
        if (from.sll_pkttype != PACKET_OUTGOING)
            return (size_t)n;
    } while (true);
}

static void ignore(void *ctx, struct loop_rx *rx, unsigned n)
{
    (void)ctx;
    (void)rx;
    (void)n;
}

static void on_failure(void *ctx, const struct loop_failure *f)
{
    *(int *)ctx = f->error;
}

/* Sends by that engine through the socket; the errno that it ended with. */
static int send_one(enum loop_kind kind, int fd, struct loop_tx tx)
{
    struct loop *l;
    struct loop_io *io;
    char why[200];
    int error = 0;
    struct loop_io_handler h = {.ctx = &error, .received = ignore, .failed = on_failure};
    if (loop_new(kind, NULL, &l, why, sizeof why) != OK)
        return -1;
    assert_int_equal(loop_io_open(l, fd, LOOP_UDP, &h, &io), OK);
    tx.slot = loop_slot_get(l);
    tx.data = tx.slot->data;
    loop_send(l, io, &tx);
    loop_slot_put(l, tx.slot);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(loop_turn(l, clock_now() + NS_PER_MS), OK);
    loop_free(l);
    return error;
}

static struct loop_tx message(uint32_t len, bool df)
{
    return (struct loop_tx){
        .len = len,
        .tos = 46 << 2 | 2,
        .df = df,
        .to = {.ip = {.family = 4, .b = {127, 0, 0, 9}}, .port = 4600},
        .from = {.family = 4, .b = {127, 0, 0, 7}},
    };
}

static void df_comes_from_the_same_address_and_port(void **state)
{
    (void)state;
    need_isolation();
    static const enum loop_kind kinds[] = {LOOP_EPOLL, LOOP_URING};
    for (unsigned i = 0; i < 4; i++) {
        struct sockets s = open_sockets("0.0.0.0", 1);
        bool df = i & 1;
        uint8_t packet[2000];
        int tap = open_tap(), error = send_one(kinds[i / 2], s.fd[df], message(100, df));
        if (error == 0) {
            assert_int_equal(next_packet(tap, packet, sizeof packet), 20 + 8 + 100);
            assert_int_equal(packet[0], 0x45); /* no options */
            assert_int_equal(packet[1], 46 << 2 | 2);
            assert_int_equal(get_be16(packet + 6), df ? 0x4000 : 0);
            assert_memory_equal(packet + 12, ((const uint8_t[]){127, 0, 0, 7, 127, 0, 0, 9}), 8);
            assert_int_equal(get_be16(packet + 20), 4500);
        } else {
            assert_int_equal(error, -1); /* no io_uring here */
        }
        close(tap);
        close_sockets(&s);
    }
}

static void segmented_sends_have_df_in_each(void **state)
{
    (void)state;
    need_isolation();
    struct sockets s = open_sockets("0.0.0.0", 1);
    struct loop_tx tx = message(3000, true);
    uint8_t packet[5000];
    int tap = open_tap();
    tx.segment = 1000;
    assert_int_equal(send_one(LOOP_EPOLL, s.fd[1], tx), 0);
    size_t len = next_packet(tap, packet, sizeof packet); /* the loopback cuts nothing */
    assert_true(len == 1028 || len == 3028);
    assert_int_equal(get_be16(packet + 6), 0x4000);
    close(tap);
    close_sockets(&s);
}

static void set_mtu(int mtu)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_mtu = mtu};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCSIFMTU, &r), 0);
    close(fd);
}

static void what_is_too_long_for_the_link_is_refused_and_not_fragmented(void **state)
{
    (void)state;
    need_isolation();
    struct sockets s = open_sockets("0.0.0.0", 1);
    set_mtu(1500);
    assert_int_equal(send_one(LOOP_EPOLL, s.fd[1], message(1472, true)), 0);
    assert_int_equal(send_one(LOOP_EPOLL, s.fd[1], message(1473, true)), EMSGSIZE);
    assert_int_equal(send_one(LOOP_EPOLL, s.fd[0], message(1473, false)), 0);
    set_mtu(65536);
    close_sockets(&s);
}

/* IPv6 has no such bit, but only the sender fragments. */
static void over_ipv6_the_socket_decides(void **state)
{
    (void)state;
    need_isolation();
    static const enum loop_kind kinds[] = {LOOP_EPOLL, LOOP_URING};
    struct sockets s = open_sockets("::", 1);
    struct loop_tx tx = {.to = {.ip = {.family = 6, .b = {[15] = 1}}, .port = 4600},
                         .from = {.family = 6, .b = {[15] = 1}},
                         .tos = 46 << 2};
    set_mtu(1500);
    for (unsigned i = 0; i < 2; i++) {
        tx.len = 1453;
        int error = send_one(kinds[i], s.fd[1], tx);
        if (error == -1)
            break; /* no io_uring here */
        assert_int_equal(error, EMSGSIZE);
        assert_int_equal(send_one(kinds[i], s.fd[0], tx), 0);
        tx.len = 1452;
        assert_int_equal(send_one(kinds[i], s.fd[1], tx), 0);
    }
    set_mtu(65536);
    close_sockets(&s);
}

/* -- one datagram outside of any loop -- */

static struct path path_of(const char *local, const char *remote)
{
    struct path p = {.local.port = 4500, .remote.port = 4600, .marker = true};
    assert_int_equal(ip_parse(local, &p.local.ip), OK);
    assert_int_equal(ip_parse(remote, &p.remote.ip), OK);
    return p;
}

static int discovery(int fd)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &value, &len), 0);
    return value;
}

/* By that socket, and, where there is none, by the other: it is as before afterwards. */
static void a_datagram_leaves_whole_or_not_at_all(void **state)
{
    (void)state;
    need_isolation();
    struct sockets s = open_sockets("0.0.0.0", 1);
    struct path path = path_of("127.0.0.7", "127.0.0.9");
    static const uint8_t data[1473];
    set_mtu(1500);
    for (unsigned i = 0; i < 2; i++) {
        bool df = i == 0;
        uint8_t packet[2000];
        int tap = open_tap(), fd = s.fd[df];
        assert_int_equal(udp_send_whole(fd, df, &path, data, 1468), OK);
        assert_int_equal(next_packet(tap, packet, sizeof packet), 1500);
        assert_int_equal(get_be16(packet + 6), 0x4000);
        assert_memory_equal(packet + 12, ((const uint8_t[]){127, 0, 0, 7, 127, 0, 0, 9}), 8);
        assert_int_equal(get_be16(packet + 20), 4500);
        assert_int_equal(udp_send_whole(fd, df, &path, data, 1469), ERR_SYSTEM);
        assert_int_equal(errno, EMSGSIZE);
        assert_int_equal(discovery(s.fd[0]), IP_PMTUDISC_OMIT);
        assert_int_equal(discovery(s.fd[1]), IP_PMTUDISC_PROBE);
        assert_int_equal(udp_send(s.fd[0], &path, data, 1469), OK);
        close(tap);
    }
    set_mtu(65536);
    close_sockets(&s);
}

/* A worker, whose datagrams are to be fragmented. */
struct worker {
    int fd;
    struct path path;
    atomic_bool stop;
    atomic_uint sent, refused;
};

static void *work(void *ctx)
{
    static const uint8_t data[1473];
    struct worker *w = ctx;
    while (!w->stop) {
        if (udp_send(w->fd, &w->path, data, sizeof data) != OK && errno == EMSGSIZE)
            w->refused++;
        w->sent++;
    }
    return NULL;
}

/* What the control thread sends whole makes no other datagram so. */
static void others_send_as_ever_meanwhile(void **state)
{
    (void)state;
    need_isolation();
    struct sockets four = open_sockets("0.0.0.0", 1);
    struct sockets six = open_sockets("::", 1);
    static const uint8_t data[100];
    set_mtu(1500);
    for (unsigned i = 0; i < 2; i++) {
        const struct sockets *s = i ? &six : &four;
        struct worker w = {.fd = s->fd[0], .path = i ? path_of("::1", "::1") : path_of("127.0.0.7", "127.0.0.9")};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, work, &w), 0);
        while (w.sent < 1000)
            assert_int_equal(udp_send_whole(s->fd[1], true, &w.path, data, sizeof data), OK);
        w.stop = true;
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.refused, 0);
    }
    set_mtu(65536);
    close_sockets(&six);
    close_sockets(&four);
}

/* -- what it doesn't take -- */

/* From many addresses and ports, so that a choice by hash would show. */
static void nothing_comes_in_there(const char *ip, unsigned n)
{
    struct sockets s = open_sockets(ip, n);
    uint8_t got[2000];
    unsigned count[2 * GROUP] = {0}, sent = 600;
    for (unsigned i = 0; i < sent; i++) {
        bool v6 = strchr(ip, ':') != NULL; /* its loopback has one address: the port alone varies */
        struct endpoint to = {.port = 4500}, from = {.port = 0};
        struct sockaddr_storage sa;
        uint8_t data[20] = {(uint8_t)((i % (n + 1)) << 4), 1, 2, 3};
        int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_int_equal(ip_parse(v6 ? "::1" : "127.0.0.1", &to.ip), OK);
        from.ip = to.ip;
        from.ip.b[3] = (uint8_t)(v6 ? 0 : 1 + i % 200);
        socklen_t len = endpoint_to_sockaddr(&from, &sa);
        assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
        len = endpoint_to_sockaddr(&to, &sa);
        assert_int_equal(sendto(fd, data, sizeof data, 0, (struct sockaddr *)&sa, len), sizeof data);
        close(fd);
    }
    for (unsigned i = 0; i < 2 * n; i++)
        while (recv(s.fd[i], got, sizeof got, 0) > 0)
            count[i]++;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(count[i], sent / (n + 1) * (i ? 1 : 2)); /* the first takes what names no worker, too */
    for (unsigned i = n; i < 2 * n; i++)
        assert_int_equal(count[i], 0);
    close_sockets(&s);
}

static void all_that_comes_goes_to_the_others(void **state)
{
    (void)state;
    need_isolation();
    nothing_comes_in_there("0.0.0.0", 1);
    nothing_comes_in_there("127.0.0.1", 1);
    nothing_comes_in_there("0.0.0.0", GROUP);
    nothing_comes_in_there("127.0.0.1", GROUP);
    nothing_comes_in_there("::", 1);
    nothing_comes_in_there("::1", GROUP);
}

static void nobody_else_gets_the_port(void **state)
{
    (void)state;
    need_isolation();
    struct sockets s = open_sockets("0.0.0.0", 1);
    struct udp_options o = options("0.0.0.0", true);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(4500)};
    char why[200];
    int fd, yes = 1;
    assert_int_equal(udp_open(&o, &fd, why, sizeof why), ERR_EXISTS);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), -1);
    assert_int_equal(errno, EADDRINUSE);
    close(fd);
    close_sockets(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(df_comes_from_the_same_address_and_port),
        cmocka_unit_test(segmented_sends_have_df_in_each),
        cmocka_unit_test(what_is_too_long_for_the_link_is_refused_and_not_fragmented),
        cmocka_unit_test(over_ipv6_the_socket_decides),
        cmocka_unit_test(a_datagram_leaves_whole_or_not_at_all),
        cmocka_unit_test(others_send_as_ever_meanwhile),
        cmocka_unit_test(all_that_comes_goes_to_the_others),
        cmocka_unit_test(nobody_else_gets_the_port),
    };
    return cmocka_run_group_tests(tests, isolate, NULL);
}
