/*
 * The real thing: TUN device, UDP sockets and rtnetlink, in a network namespace of this process's own. Needs root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "test/unit/packets.h"
#include "tun/device.h"
#include "tun/netlink.h"
#include "tun/offload.h"
#include "tun/udp.h"
#include "tun/watch.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static const char *why_not; /* why these tests can't run here, or NULL */

static bool loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    close(fd);
    return ok;
}

/* Or the kernel tells of link-local addresses a second or two after their link is up. Where it can't be, so be it. */
static void no_address_detection(void)
{
    const char *paths[] = {"/proc/sys/net/ipv6/conf/all/accept_dad", "/proc/sys/net/ipv6/conf/default/accept_dad"};
    for (int i = 0; i < 2; i++) {
        int fd = open(paths[i], O_WRONLY | O_CLOEXEC);
        (void)!write(fd, "0", 1);
        close(fd);
    }
}

static int isolate(void **state)
{
    (void)state;
    if (geteuid() != 0)
        why_not = "not root";
    else if (access("/dev/net/tun", R_OK | W_OK) != 0)
        why_not = "no /dev/net/tun";
    else if (unshare(CLONE_NEWNET) != 0)
        why_not = "may not make a network namespace";
    else if (!loopback_up())
        why_not = "can't bring up the loopback";
    if (why_not)
        fprintf(stderr, "test_tun: skipped: %s\n", why_not);
    else
        no_address_detection();
    return 0;
}

static void need_isolation(void)
{
    if (why_not)
        skip();
}

/* What a command of iproute2 prints. */
static const char *ip_says(const char *command)
{
    static char text[8192];
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(text, 1, sizeof text - 1, p);
    text[n] = 0;
    pclose(p);
    return text;
}

static struct netlink_prefix prefix_of(const char *ip, uint8_t bits)
{
    struct netlink_prefix p = {.bits = bits};
    assert_int_equal(ip_parse(ip, &p.ip), OK);
    return p;
}

static struct tun *open_tun(const char *name, unsigned queues)
{
    struct tun *t = NULL;
    char why[200];
    enum err e = tun_open(name, queues, &t, why, sizeof why);
    if (e != OK)
        fprintf(stderr, "tun_open: %s\n", why);
    assert_int_equal(e, OK);
    return t;
}

/* -- device -- */

static void the_device_is_there_and_non_blocking(void **state)
{
    (void)state;
    need_isolation();
    struct tun *t = open_tun("adit-t0", 1);
    char byte;
    assert_string_equal(tun_name(t), "adit-t0");
    assert_int_equal(tun_ifindex(t), if_nametoindex("adit-t0"));
    assert_true(fcntl(tun_fd(t, 0), F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(tun_fd(t, 0), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(read(tun_fd(t, 0), &byte, 1), -1);
    assert_int_equal(tun_fd(t, 1), -1);
    tun_close(t);
    assert_int_equal(if_nametoindex("adit-t0"), 0);
}

static void several_queues_are_several_descriptors_of_one_device(void **state)
{
    (void)state;
    need_isolation();
    struct tun *t = open_tun("adit-t1", 3);
    assert_true(tun_fd(t, 0) >= 0 && tun_fd(t, 1) >= 0 && tun_fd(t, 2) >= 0);
    assert_int_not_equal(tun_fd(t, 0), tun_fd(t, 1));
    assert_int_equal(tun_fd(t, 3), -1);
    tun_close(t);
}

static void a_name_in_use_is_refused_with_a_reason(void **state)
{
    (void)state;
    need_isolation();
    for (unsigned queues = 1; queues <= 2; queues++) {
        struct tun *t = open_tun("adit-t2", queues), *second = NULL;
        char why[200];
        assert_int_equal(tun_open("adit-t2", queues, &second, why, sizeof why), ERR_EXISTS);
        assert_non_null(strstr(why, "adit-t2 is in use"));
        assert_null(second);
        tun_close(t);
    }
    struct tun *t = NULL;
    char why[200];
    assert_int_equal(tun_open("lo", 1, &t, why, sizeof why), ERR_EXISTS);
    assert_int_equal(tun_open("a/b", 1, &t, why, sizeof why), ERR_SYSTEM);
    assert_int_equal(tun_open("a-name-that-is-too-long", 1, &t, why, sizeof why), ERR_SYSTEM);
}

/* -- netlink -- */

struct world {
    struct tun *tun;
    struct netlink *netlink;
    int ifindex;
};

static struct world world_open(const char *name)
{
    struct world w = {.tun = open_tun(name, 1)};
    w.ifindex = tun_ifindex(w.tun);
    assert_int_equal(netlink_open(&w.netlink, name), OK);
    assert_int_equal(netlink_link_up(w.netlink, w.ifindex, 1400, 777), OK);
    return w;
}

static void world_close(struct world *w)
{
    netlink_close(w->netlink);
    tun_close(w->tun);
}

static void the_link_comes_up_with_its_mtu_and_says_nothing_by_itself(void **state)
{
    (void)state;
    need_isolation();
    struct world w = world_open("adit-t3");
    const char *link = ip_says("ip link show adit-t3");
    assert_non_null(strstr(link, "UP"));
    assert_non_null(strstr(link, "mtu 1400"));
    assert_non_null(strstr(link, "qlen 777"));
    assert_int_equal(netlink_set_mtu(w.netlink, w.ifindex, 1380), OK);
    assert_non_null(strstr(ip_says("ip link show adit-t3"), "mtu 1380"));
    struct netlink_prefix six = prefix_of("fd00:9::1", 64);
    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &six), OK);
    /* Router solicitations would come within a second. */
    struct pollfd p = {.fd = tun_fd(w.tun, 0), .events = POLLIN};
    uint8_t frame[2000] = {0};
    for (int i = 0; i < 3 && poll(&p, 1, 400) == 1; i++)
        if (read(tun_fd(w.tun, 0), frame, sizeof frame) > 50)
            assert_false(frame[10 + 6] == 58 && frame[10 + 40] == 133);
    netlink_undo(w.netlink, false);
    assert_null(strstr(ip_says("ip link show adit-t3"), "UP"));
    world_close(&w);
}

/* Whether this host has that address, as far as peers are concerned; tun: without those of this device. */
static bool reachable_at(struct netlink *n, int tun, const char *text)
{
    struct ip want, list[64];
    unsigned count;
    assert_int_equal(ip_parse(text, &want), OK);
    assert_int_equal(netlink_addresses(n, tun, list, 64, &count), OK);
    for (unsigned i = 0; i < count; i++)
        if (ip_equal(&list[i], &want))
            return true;
    return false;
}

/* A change is told of, and then it is so: the kernel looks at carriers when it has the time. */
static bool noticed(int fd, struct netlink *n, const char *text, bool there)
{
    bool news = false;
    for (unsigned i = 0; i < 1000; i++) {
        news |= watch_read(fd, n, 0) != 0;
        if (news && reachable_at(n, 0, text) == there) {
            usleep(300000); /* what else belongs to it */
            (void)watch_read(fd, n, 0);
            return true;
        }
        usleep(10000);
    }
    return false;
}

static void addresses_of_working_links_count_and_changes_are_noticed(void **state)
{
    (void)state;
    need_isolation();
    struct world w = world_open("adit-t4");
    struct netlink_prefix route = prefix_of("10.7.0.0", 16);
    struct ip list[1];
    unsigned count;
    int fd;
    assert_int_equal(watch_open(&fd), OK);
    assert_int_equal(0, watch_read(fd, w.netlink, w.ifindex));
    ip_says("ip link add adit-v0 type veth peer name adit-v1 && ip link set adit-v1 up");
    ip_says("ip addr add 10.7.1.1/24 dev adit-v0; ip -6 addr add fd00:7::1/64 dev adit-v0 nodad");
    assert_int_not_equal(0, watch_read(fd, w.netlink, w.ifindex));
    assert_int_equal(0, watch_read(fd, w.netlink, w.ifindex));
    assert_false(reachable_at(w.netlink, 0, "10.7.1.1")); /* the link is down */
    ip_says("ip link set adit-v0 up; sleep 0.2");
    assert_true(noticed(fd, w.netlink, "10.7.1.1", true));
    assert_true(reachable_at(w.netlink, 0, "10.7.1.1") && reachable_at(w.netlink, 0, "fd00:7::1"));
    assert_int_equal(netlink_addresses(w.netlink, 0, list, 1, &count), ERR_FULL);
    assert_false(reachable_at(w.netlink, (int)if_nametoindex("adit-v0"), "10.7.1.1"));
    assert_false(reachable_at(w.netlink, 0, "127.0.0.1"));
    ip_says("ip link set adit-v1 down; sleep 0.2");
    assert_true(noticed(fd, w.netlink, "10.7.1.1", false)); /* no carrier */
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &route, NULL), OK);
    assert_int_equal(0, watch_read(fd, w.netlink, w.ifindex)); /* ours */
    ip_says("ip route add 10.8.0.0/16 dev adit-t4");
    assert_int_equal(watch_read(fd, w.netlink, w.ifindex), WATCH_CHANGED);
    ip_says("ip route add 10.7.1.0/24 dev adit-t4 table 5190 proto 90; ip route del 10.7.1.0/24 table 5190");
    assert_int_equal(watch_read(fd, w.netlink, w.ifindex), 0); /* that of another daemon */
    ip_says("ip route flush table 5190");
    assert_int_equal(watch_read(fd, w.netlink, w.ifindex), WATCH_LOST | WATCH_TAKEN);
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &route, NULL), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 4, false), OK);
    assert_int_equal(netlink_route_del(w.netlink, w.ifindex, &route), OK);
    assert_int_equal(watch_read(fd, w.netlink, w.ifindex), 0); /* that is what it was to do */
    ip_says("ip rule del pref 5192");
    assert_int_equal(watch_read(fd, w.netlink, w.ifindex), WATCH_LOST);
    ip_says("ip link set adit-t4 down");
    assert_int_equal(watch_read(fd, w.netlink, w.ifindex) & WATCH_DOWN, WATCH_DOWN);
    ip_says("ip link del adit-v0");
    close(fd);
    netlink_undo(w.netlink, false);
    world_close(&w);
}

static void addresses_routes_and_rules_come_and_go(void **state)
{
    (void)state;
    need_isolation();
    struct world w = world_open("adit-t4");
    struct netlink_prefix a4 = prefix_of("10.9.0.1", 24), a6 = prefix_of("fd00:9::1", 64);
    struct netlink_prefix r4 = prefix_of("10.2.0.0", 16), r6 = prefix_of("fd00:2::", 32), all = prefix_of("0.0.0.0", 0);

    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a4), OK);
    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a6), OK);
    for (int again = 0; again < 2; again++) { /* idempotent */
        assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &r4, &a4.ip), OK);
        assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &r6, &a6.ip), OK);
        assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &all, NULL), OK);
        assert_int_equal(netlink_rules_add(w.netlink, 4, true), OK);
        assert_int_equal(netlink_rules_add(w.netlink, 6, false), OK);
    }
    const char *s = ip_says("ip -4 addr show dev adit-t4; ip -6 addr show dev adit-t4");
    assert_non_null(strstr(s, "inet 10.9.0.1/24"));
    assert_non_null(strstr(s, "inet6 fd00:9::1/64"));
    s = ip_says("ip -4 route show table 5190; ip -6 route show table 5190");
    assert_non_null(strstr(s, "default dev adit-t4 proto 90"));
    assert_non_null(strstr(s, "10.2.0.0/16 dev adit-t4 proto 90 scope link src 10.9.0.1"));
    assert_non_null(strstr(s, "unreachable 10.2.0.0/16 proto 90 metric "));
    assert_non_null(strstr(s, "unreachable default proto 90 metric "));
    assert_non_null(strstr(s, "fd00:2::/32 dev adit-t4 proto 90 src fd00:9::1"));
    assert_non_null(strstr(s, "unreachable fd00:2::/32 dev lo proto 90 metric "));
    s = ip_says("ip -4 rule");
    assert_non_null(strstr(s, "5188:\tfrom all fwmark 0x41444954 goto 5192 proto 90"));
    assert_non_null(strstr(s, "5189:\tfrom 10.9.0.1 lookup 5190 proto 90"));
    assert_non_null(strstr(s, "5190:\tnot from all fwmark 0x41444954 lookup 5190 suppress_prefixlength 0 proto 90"));
    assert_non_null(strstr(s, "5191:\tfrom all lookup main suppress_prefixlength 0 proto 90"));
    assert_non_null(strstr(s, "5192:\tnot from all fwmark 0x41444954 lookup 5190 proto 90"));
    s = ip_says("ip -6 rule");
    assert_null(strstr(s, "5190:"));
    assert_non_null(strstr(s, "5192:\tnot from all fwmark 0x41444954 lookup 5190 proto 90"));

    assert_int_equal(netlink_route_open(w.netlink, &r4), OK); /* fail-open: as routed without it */
    assert_int_equal(netlink_route_open(w.netlink, &r4), OK);
    s = ip_says("ip -4 route show table 5190");
    assert_non_null(strstr(s, "10.2.0.0/16 dev adit-t4"));
    assert_null(strstr(s, "unreachable 10.2.0.0/16"));
    assert_int_equal(netlink_route_del(w.netlink, w.ifindex, &r6), OK);
    assert_string_equal(ip_says("ip -6 route show table 5190"), "");
    netlink_undo(w.netlink, false);
    assert_string_equal(ip_says("ip -4 route show table 5190; ip -6 route show table 5190; ip rule | grep 51; "
                                "ip -6 rule | grep 51; ip -4 addr show dev adit-t4; ip -6 addr show dev adit-t4"),
                        "");
    world_close(&w);
}

static void what_a_crash_leaves_keeps_closed_is_adopted_or_swept(void **state)
{
    (void)state;
    need_isolation();
    struct netlink_prefix kept = prefix_of("10.2.0.0", 16), gone = prefix_of("10.3.0.0", 16),
                          six = prefix_of("fd00:2::", 32);
    struct world w = world_open("adit-t5");
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &kept, NULL), OK);
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &gone, NULL), OK);
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &six, NULL), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 4, true), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 6, false), OK);
    assert_false(netlink_left(w.netlink));
    netlink_undo(w.netlink, true); /* as a crash, which undoes nothing */
    world_close(&w);

    struct endpoint to = {.port = 500};
    struct ip source;
    unsigned mtu;
    assert_int_equal(ip_parse("10.2.0.7", &to.ip), OK);
    errno = 0;
    assert_int_equal(udp_route(&to, false, &source, &mtu), ERR_SYSTEM);
    assert_int_equal(errno, EHOSTUNREACH);

    w = world_open("adit-t5");
    assert_true(netlink_left(w.netlink));
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &kept, NULL), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 4, false), OK);

    struct netlink *other; /* a second daemon starts and sweeps: what the first uses stays */
    assert_int_equal(netlink_open(&other, "adit-other"), OK);
    netlink_sweep(other);
    netlink_close(other);
    assert_non_null(strstr(ip_says("ip rule"), "5192:"));
    assert_non_null(strstr(ip_says("ip route show table 5190"), "unreachable 10.2.0.0/16"));

    netlink_sweep(w.netlink);
    const char *s = ip_says("ip -4 route show table 5190; ip -6 route show table 5190; ip rule; ip -6 rule");
    assert_non_null(strstr(s, "unreachable 10.2.0.0/16"));
    assert_null(strstr(s, "10.3.0.0"));
    assert_null(strstr(s, "fd00:2::"));
    assert_null(strstr(s, "5190:\t"));
    assert_non_null(strstr(s, "5192:\t"));
    netlink_undo(w.netlink, false);
    assert_string_equal(ip_says("ip -4 route show table 5190; ip -6 route show table 5190; ip rule | grep 519; "
                                "ip -6 rule | grep 519"),
                        "");
    world_close(&w);
}

/* command: of iproute2, with "%s" where the verb stands */
static void main_route(const char *command, const char *verb)
{
    char line[128];
    size_t at = (size_t)(strstr(command, "%s") - command);
    snprintf(line, sizeof line, "%.*s%s%s", (int)at, command, verb, command + at + 2);
    assert_string_equal(ip_says(line), "");
}

static void a_thrown_prefix_is_routed_by_the_host_as_before(void **state)
{
    (void)state;
    need_isolation();
    const struct {
        const char *name, *around, *inner, *main, *inside, *beside;
        uint8_t around_bits, inner_bits;
    } rows[] = {
        {"adit-t10", "10.2.0.0", "10.2.9.0", "ip route %s 10.2.8.0/21 dev lo", "ip route get 10.2.9.1",
         "ip route get 10.2.8.1", 16, 24},
        {"adit-t11", "0.0.0.0", "10.2.9.0", "ip route %s default dev lo", "ip route get 10.2.9.1",
         "ip route get 10.3.0.1", 0, 24},
        {"adit-t12", "fd02::", "fd02:9::", "ip -6 route %s fd02::/16 dev lo", "ip route get fd02:9::1",
         "ip route get fd02:8::1", 16, 32},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w = world_open(rows[i].name);
        struct netlink_prefix a4 = prefix_of("10.9.0.1", 24), a6 = prefix_of("fd09::1", 64);
        struct netlink_prefix around = prefix_of(rows[i].around, rows[i].around_bits);
        struct netlink_prefix inner = prefix_of(rows[i].inner, rows[i].inner_bits);
        assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a4), OK);
        assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a6), OK);
        assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &around, NULL), OK);
        assert_int_equal(netlink_rules_add(w.netlink, around.ip.family, around.bits == 0), OK);
        main_route(rows[i].main, "add");
        assert_non_null(strstr(ip_says(rows[i].inside), around.bits ? rows[i].name : "dev"));
        assert_int_equal(netlink_throw_add(w.netlink, &inner), OK);
        assert_int_equal(netlink_throw_add(w.netlink, &inner), OK); /* idempotent */
        assert_non_null(strstr(ip_says(rows[i].inside), "dev lo"));
        assert_non_null(strstr(ip_says(rows[i].beside), rows[i].name));

        /* A route of the same prefix wins, and is not taken along when the throw route goes. */
        assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &inner, NULL), OK);
        assert_non_null(strstr(ip_says(rows[i].inside), rows[i].name));
        assert_int_equal(netlink_throw_del(w.netlink, &inner), OK);
        assert_non_null(strstr(ip_says(rows[i].inside), rows[i].name));
        assert_int_equal(netlink_throw_add(w.netlink, &inner), OK);
        assert_int_equal(netlink_route_del(w.netlink, w.ifindex, &inner), OK);
        assert_non_null(strstr(ip_says(rows[i].inside), "dev lo"));
        netlink_undo(w.netlink, false);
        assert_string_equal(ip_says("ip -4 route show table 5190; ip -6 route show table 5190"), "");
        world_close(&w);
        main_route(rows[i].main, "del");
    }
}

static void throw_routes_a_crash_leaves_are_adopted_or_swept(void **state)
{
    (void)state;
    need_isolation();
    struct netlink_prefix around = prefix_of("10.2.0.0", 15), kept = prefix_of("10.3.9.0", 24),
                          gone = prefix_of("10.2.8.0", 24), six = prefix_of("fd02:9::", 32);
    struct world w = world_open("adit-t13");
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &around, NULL), OK);
    assert_int_equal(netlink_throw_add(w.netlink, &kept), OK);
    assert_int_equal(netlink_throw_add(w.netlink, &gone), OK);
    assert_int_equal(netlink_throw_add(w.netlink, &six), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 4, false), OK);
    world_close(&w); /* nothing undone */

    w = world_open("adit-t13");
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &around, NULL), OK);
    assert_int_equal(netlink_throw_add(w.netlink, &kept), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 4, false), OK);
    struct netlink *other; /* a second daemon sweeps: what may be the first one's stays */
    assert_int_equal(netlink_open(&other, "adit-other"), OK);
    netlink_sweep(other);
    netlink_close(other);
    assert_non_null(strstr(ip_says("ip route show table 5190"), "throw 10.3.9.0/24"));
    assert_non_null(strstr(ip_says("ip route show table 5190"), "throw 10.2.8.0/24"));
    assert_non_null(strstr(ip_says("ip -6 route show table 5190"), "throw fd02:9::/32"));

    netlink_sweep(w.netlink);
    assert_string_equal(ip_says("ip -6 route show table 5190"), "");
    assert_non_null(strstr(ip_says("ip route show table 5190"), "throw 10.3.9.0/24"));
    assert_null(strstr(ip_says("ip route show table 5190"), "10.2.8.0"));
    netlink_undo(w.netlink, false);
    assert_string_equal(ip_says("ip route show table 5190; ip rule | grep 519"), "");
    world_close(&w);
}

static void the_mark_keeps_own_packets_out_of_the_tun(void **state)
{
    (void)state;
    need_isolation();
    struct world w = world_open("adit-t6");
    struct netlink_prefix a4 = prefix_of("10.9.0.1", 24), all = prefix_of("0.0.0.0", 0);
    struct endpoint to = {.port = 500};
    struct ip source;
    unsigned mtu;
    assert_int_equal(ip_parse("198.51.100.7", &to.ip), OK);
    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a4), OK);
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &all, &a4.ip), OK);
    assert_int_equal(netlink_rules_add(w.netlink, 4, true), OK);
    assert_int_equal(udp_route(&to, false, &source, &mtu), OK);
    assert_true(ip_equal(&source, &a4.ip));
    assert_int_equal(mtu, 1400);
    assert_int_equal(udp_route(&to, true, &source, &mtu), ERR_SYSTEM); /* no route of the host's own */
    assert_int_equal(errno, ENETUNREACH);
    netlink_undo(w.netlink, false);
    world_close(&w);
}

static bool is_source(struct netlink *n, const struct ip *want)
{
    struct ip *list;
    unsigned count, found = 0;
    assert_int_equal(netlink_sources(n, &list, &count), OK);
    for (unsigned i = 0; i < count; i++)
        found += ip_equal(&list[i], want);
    free(list);
    assert_true(found < 2);
    return found;
}

static void what_addresses_this_host_may_send_from_is_listed(void **state)
{
    (void)state;
    need_isolation();
    struct world w = world_open("adit-t7");
    struct netlink_prefix a4 = prefix_of("10.9.0.1", 24), a6 = prefix_of("fd00:9::1", 64);
    assert_false(is_source(w.netlink, &a4.ip) || is_source(w.netlink, &a6.ip));
    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a4), OK);
    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &a6), OK);
    assert_true(is_source(w.netlink, &a4.ip) && is_source(w.netlink, &a6.ip));
    assert_int_equal(netlink_address_del(w.netlink, w.ifindex, &a4), OK);
    assert_true(!is_source(w.netlink, &a4.ip) && is_source(w.netlink, &a6.ip));
    assert_int_equal(netlink_address_del(w.netlink, w.ifindex, &a4), ERR_NOTFOUND);
    netlink_undo(w.netlink, false);
    assert_false(is_source(w.netlink, &a6.ip));
    world_close(&w);
}

static void a_refusal_comes_with_the_kernels_words(void **state)
{
    (void)state;
    need_isolation();
    struct world w = world_open("adit-t8");
    struct netlink_prefix r = prefix_of("10.2.0.0", 16);
    struct ip src = prefix_of("10.77.0.1", 0).ip; /* not an address of this host */
    assert_int_equal(netlink_route_add(w.netlink, w.ifindex, &r, &src), ERR_SYSTEM);
    assert_non_null(strstr(netlink_why(w.netlink), "Invalid prefsrc address"));
    assert_int_equal(netlink_set_mtu(w.netlink, 12345, 1400), ERR_NOTFOUND);
    assert_string_not_equal(netlink_why(w.netlink), "");
    netlink_undo(w.netlink, false);
    world_close(&w);
}

static void set_rp_filter(const char *value)
{
    int fd = open("/proc/sys/net/ipv4/conf/all/rp_filter", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, 1) != 1)
        skip();
    close(fd);
}

static void strict_reverse_path_filtering_is_loosened_and_restored(void **state)
{
    (void)state;
    need_isolation();
    int fd;
    assert_int_equal(watch_open(&fd), OK);
    const char *show = "cat /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/conf/all/src_valid_mark";
    set_rp_filter("1");
    struct netlink *n;
    assert_int_equal(netlink_open(&n, "adit0"), OK);
    assert_int_equal(watch_read(fd, n, 0) & WATCH_STRICT, 0); /* nothing to be loosened for */
    assert_int_equal(netlink_rules_add(n, 4, false), OK);
    assert_string_equal(ip_says(show), "2\n1\n");
    assert_int_equal(watch_read(fd, n, 0), 0);
    assert_false(netlink_loosen(n));
    set_rp_filter("1"); /* an administrator, or another daemon that ends */
    assert_int_equal(watch_read(fd, n, 0), WATCH_STRICT);
    assert_true(netlink_loosen(n));
    assert_string_equal(ip_says(show), "2\n1\n");
    netlink_undo(n, false);
    assert_string_equal(ip_says(show), "1\n0\n");
    assert_int_equal(watch_read(fd, n, 0) & WATCH_STRICT, 0);
    netlink_close(n);
    close(fd);
    set_rp_filter("0");
}

/* -- UDP -- */

static int open_udp(const char *ip, uint16_t port, bool reuseport, struct endpoint *at)
{
    struct udp_options o = {.local.port = port, .reuseport = reuseport, .mark = true, .gro = true};
    char why[200];
    int fd = -1;
    assert_int_equal(ip_parse(ip, &o.local.ip), OK);
    assert_int_equal(udp_open(&o, &fd, why, sizeof why), OK);
    if (at)
        *at = o.local;
    return fd;
}

static void udp_sockets_have_their_options(void **state)
{
    (void)state;
    need_isolation();
    struct endpoint at;
    int fd = open_udp("127.0.0.1", 4500, false, &at), value = 0;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_MARK, &value, &len), 0);
    assert_int_equal(value, TUN_FWMARK);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &len), 0);
    assert_true(value >= 7 * 1024 * 1024);
    assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &value, &len), 0);
    assert_int_equal(value, IP_PMTUDISC_OMIT);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);

    struct udp_options o = {.local = at};
    char why[200];
    int second = -1;
    assert_int_equal(udp_open(&o, &second, why, sizeof why), ERR_EXISTS);
    assert_non_null(strstr(why, "127.0.0.1:4500 is in use"));
    int six = open_udp("::", 4500, false, NULL); /* IPV6_V6ONLY: no conflict */
    close(six);
    close(fd);
}

static void a_datagram_is_sent_with_marker_and_source(void **state)
{
    (void)state;
    need_isolation();
    const char *any[] = {"0.0.0.0", "::"}, *local[] = {"127.0.0.5", "::1"};
    for (int i = 0; i < 2; i++) {
        struct path path = {.marker = true};
        struct sockaddr_storage sa;
        struct endpoint from;
        socklen_t len = sizeof sa;
        uint8_t got[100];
        int a = open_udp(any[i], 4500, false, NULL), b = open_udp(local[i], 4501, false, &path.remote);
        assert_int_equal(ip_parse(local[i], &path.local.ip), OK);
        assert_int_equal(udp_send(a, &path, (const uint8_t *)"hello", 5), OK);
        assert_int_equal(recvfrom(b, got, sizeof got, 0, (struct sockaddr *)&sa, &len), 9);
        assert_memory_equal(got, "\0\0\0\0hello", 9);
        assert_int_equal(endpoint_from_sockaddr(&sa, &from), OK);
        assert_true(ip_equal(&from.ip, &path.local.ip));
        path.marker = false;
        assert_int_equal(udp_send(a, &path, (const uint8_t *)"hello", 5), OK);
        assert_int_equal(recv(b, got, sizeof got, 0), 5);
        close(a);
        close(b);
    }
}

static void segmented_sends_work_without_path_mtu_discovery(void **state)
{
    (void)state;
    need_isolation();
    struct path path = {0};
    uint8_t data[10 * 1000 + 1] = {1}, got[70000];
    int a = open_udp("127.0.0.1", 4500, false, NULL), b = open_udp("127.0.0.1", 4501, false, &path.remote);
    int segment = 1000, total = 0;
    assert_int_equal(setsockopt(a, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment), 0);
    assert_int_equal(udp_send(a, &path, data, sizeof data), OK);
    for (ssize_t n = recv(b, got, sizeof got, 0); n > 0; n = recv(b, got, sizeof got, 0))
        total += (int)n;
    assert_int_equal(total, sizeof data);
    close(a);
    close(b);
}

static void a_group_is_steered_by_the_spi(void **state)
{
    (void)state;
    need_isolation();
    struct path path = {0};
    int fd[3], sender = open_udp("127.0.0.1", 4501, false, NULL);
    uint8_t got[100];
    for (unsigned i = 0; i < 3; i++)
        fd[i] = open_udp("127.0.0.1", 4500, true, &path.remote);
    assert_int_equal(udp_steer(fd[0], 3), OK);
    const struct {
        uint8_t bytes[8], len, want;
    } cases[] = {
        {{0x10, 0, 0, 1}, 8, 0}, {{0x20, 9, 9, 9}, 8, 1}, {{0x30, 0, 0, 1}, 8, 2}, {{0x00, 9, 9, 9}, 8, 0}, {{0}, 8, 0},
        {{0xff}, 1, 0},          {{0x40, 0, 0, 1}, 8, 0}, {{0xff, 0, 0, 1}, 8, 0},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(udp_send(sender, &path, cases[i].bytes, cases[i].len), OK);
        for (unsigned k = 0; k < 3; k++)
            assert_int_equal(recv(fd[k], got, sizeof got, 0), k == cases[i].want ? cases[i].len : -1);
    }
    for (unsigned k = 0; k < 3; k++)
        close(fd[k]);
    close(sender);
}

/* -- superpackets through a real device -- */

/*
 * A mirror: what is sent to the other address of the link comes back from there, so that one host talks to itself
 * through cutting and merging. Exchanging the two addresses changes no checksum.
 */
struct mirror {
    struct loop loop; /* first */
    struct loop_slot slot;
    struct coalescer *c;
    int fd;
    unsigned cut, merged, refused; /* frames that were superpackets: read, written */
    uint8_t frame[LOOP_RX_SIZE];
    uint8_t memory[4 * LOOP_SLOT_SIZE];
};

static void mirror_write(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov,
                         unsigned n)
{
    struct mirror *m = (struct mirror *)l;
    (void)io;
    (void)slot;
    m->merged += ((const uint8_t *)iov[0].iov_base)[1] != 0;
    if (writev(m->fd, iov, (int)n) < 0)
        m->refused++;
}

static const struct loop_ops mirror_ops = {.name = "mirror", .write = mirror_write};

static void turn_around(uint8_t *packet)
{
    uint8_t kept[16];
    size_t at = packet[0] >> 4 == 6 ? 8 : 12, len = packet[0] >> 4 == 6 ? 16 : 4;
    memcpy(kept, packet + at, len);
    memcpy(packet + at, packet + at + len, len);
    memcpy(packet + at + len, kept, len);
}

static void mirror_turn(struct mirror *m)
{
    ssize_t n;
    while ((n = read(m->fd, m->frame, sizeof m->frame)) > 0) {
        struct segments s;
        uint8_t *at = m->memory;
        assert_int_equal(segment_begin(&s, (struct span){m->frame, (size_t)n}), OK);
        m->cut += s.count > 1;
        coalesce_begin(m->c, &m->loop, NULL, &m->slot);
        for (uint32_t i = 0; segment_more(&s); i++) {
            uint32_t len = segment_size(&s, i);
            at += COALESCE_HEADROOM;
            assert_true(at + len <= m->memory + sizeof m->memory);
            segment_next(&s, at);
            turn_around(at);
            coalesce_add(m->c, at, len);
            at += len;
        }
        coalesce_flush(m->c);
    }
}

static struct mirror *mirror_new(const struct tun *t)
{
    struct mirror *m = calloc(1, sizeof *m);
    m->loop.ops = &mirror_ops;
    m->slot.data = m->memory;
    m->fd = tun_fd(t, 0);
    assert_int_equal(coalescer_new(&m->c, tun_has_uso(t)), OK);
    return m;
}

static struct world mirror_world(bool v6, struct endpoint *near, struct endpoint *far)
{
    struct world w = world_open("adit-t9");
    struct netlink_prefix p = v6 ? prefix_of("fd00:9::1", 64) : prefix_of("10.9.0.1", 24);
    assert_int_equal(netlink_address_add(w.netlink, w.ifindex, &p), OK);
    *near = *far = (struct endpoint){.ip = p.ip, .port = 7000};
    far->ip.b[v6 ? 15 : 3] = 2;
    return w;
}

static int connected(int type, const struct endpoint *near, const struct endpoint *far, int *listener)
{
    struct sockaddr_storage sa;
    int family = near->ip.family == 6 ? AF_INET6 : AF_INET;
    socklen_t len = endpoint_to_sockaddr(near, &sa);
    *listener = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*listener, (struct sockaddr *)&sa, len), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(*listener, 1), 0);
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    len = endpoint_to_sockaddr(far, &sa);
    if (connect(fd, (struct sockaddr *)&sa, len) < 0)
        assert_int_equal(errno, EINPROGRESS);
    return fd;
}

static void stream_through(bool v6)
{
    enum { TOTAL = 8 * 1024 * 1024, PART = 64 * 1024 };
    static uint8_t out[PART], in[PART];
    struct endpoint near, far;
    struct world w = mirror_world(v6, &near, &far);
    struct mirror *m = mirror_new(w.tun);
    int listener, client = connected(SOCK_STREAM, &near, &far, &listener), server = -1;
    size_t sent = 0, received = 0;
    for (int idle = 0; received < TOTAL && idle < 100000; idle++) {
        mirror_turn(m);
        if (server < 0)
            server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        for (size_t i = 0; i < PART; i++)
            out[i] = (uint8_t)((sent + i) % 251);
        ssize_t n = server < 0 || sent >= TOTAL ? -1 : send(client, out, PART, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        n = server < 0 ? -1 : recv(server, in, PART, 0);
        for (ssize_t i = 0; i < n; i++)
            if (in[i] != (received + (size_t)i) % 251)
                fail_msg("byte %zu is wrong", received + (size_t)i);
        received += n > 0 ? (size_t)n : 0;
        if (n > 0)
            idle = 0;
        else
            usleep(200);
    }
    assert_true(received >= TOTAL);
    assert_true(m->cut > 20);
    assert_true(m->merged > 20);
    assert_int_equal(m->refused, 0);
    close(server);
    close(client);
    close(listener);
    coalescer_free(m->c);
    free(m);
    netlink_undo(w.netlink, false);
    world_close(&w);
}

static void a_tcp_stream_passes_cut_and_merged(void **state)
{
    (void)state;
    need_isolation();
    stream_through(false);
    stream_through(true);
}

/*
 * A device that has just come up loses what is sent before the kernel has given it a queue, and a new IPv6 address is
 * local only once the kernel's own thread has been at it: sends again until some of it has come back. Up to 3 s.
 */
static void send_until_back(struct mirror *m, int fd, int receiver, const uint8_t *data, size_t len)
{
    struct pollfd back = {.fd = receiver, .events = POLLIN};
    for (unsigned i = 0; i < 300; i++) {
        if (i % 30 == 0)
            assert_int_equal(send(fd, data, len, 0), len);
        mirror_turn(m);
        if (poll(&back, 1, 10) > 0)
            return;
    }
    fail_msg("nothing comes back");
}

/* The kernel may deliver the rest a moment later: waits up to 1 s for each datagram. */
static ssize_t receive_soon(int fd, uint8_t *got, size_t size)
{
    struct pollfd more = {.fd = fd, .events = POLLIN};
    return poll(&more, 1, 1000) > 0 ? recv(fd, got, size, 0) : -1;
}

static void datagrams_through(bool v6)
{
    enum { SIZE = 1200, COUNT = 20, LAST = 77 };
    uint8_t data[SIZE * COUNT + LAST], got[2000];
    struct endpoint near, far;
    struct world w = mirror_world(v6, &near, &far);
    struct mirror *m = mirror_new(w.tun);
    int receiver, sender = connected(SOCK_DGRAM, &near, &far, &receiver), segment = SIZE;
    uint64_t seed = 3;
    packet_fill(&seed, data, sizeof data);
    assert_int_equal(setsockopt(sender, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment), 0);
    send_until_back(m, sender, receiver, data, sizeof data);
    for (unsigned i = 0; i <= COUNT; i++) {
        size_t want = i < COUNT ? SIZE : LAST;
        assert_int_equal(receive_soon(receiver, got, sizeof got), want);
        assert_memory_equal(got, data + i * SIZE, want);
    }
    assert_int_equal(m->refused, 0);
    if (tun_has_uso(w.tun)) {
        assert_true(m->cut >= 1);
        assert_int_equal(m->merged, m->cut);
    }
    close(sender);
    close(receiver);
    coalescer_free(m->c);
    free(m);
    netlink_undo(w.netlink, false);
    world_close(&w);
}

static void udp_datagrams_pass_cut_and_merged(void **state)
{
    (void)state;
    need_isolation();
    datagrams_through(false);
    datagrams_through(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_device_is_there_and_non_blocking),
        cmocka_unit_test(several_queues_are_several_descriptors_of_one_device),
        cmocka_unit_test(a_name_in_use_is_refused_with_a_reason),
        cmocka_unit_test(the_link_comes_up_with_its_mtu_and_says_nothing_by_itself),
        cmocka_unit_test(addresses_of_working_links_count_and_changes_are_noticed),
        cmocka_unit_test(addresses_routes_and_rules_come_and_go),
        cmocka_unit_test(what_a_crash_leaves_keeps_closed_is_adopted_or_swept),
        cmocka_unit_test(a_thrown_prefix_is_routed_by_the_host_as_before),
        cmocka_unit_test(throw_routes_a_crash_leaves_are_adopted_or_swept),
        cmocka_unit_test(the_mark_keeps_own_packets_out_of_the_tun),
        cmocka_unit_test(what_addresses_this_host_may_send_from_is_listed),
        cmocka_unit_test(a_refusal_comes_with_the_kernels_words),
        cmocka_unit_test(strict_reverse_path_filtering_is_loosened_and_restored),
        cmocka_unit_test(udp_sockets_have_their_options),
        cmocka_unit_test(a_datagram_is_sent_with_marker_and_source),
        cmocka_unit_test(segmented_sends_work_without_path_mtu_discovery),
        cmocka_unit_test(a_group_is_steered_by_the_spi),
        cmocka_unit_test(a_tcp_stream_passes_cut_and_merged),
        cmocka_unit_test(udp_datagrams_pass_cut_and_merged),
    };
    return cmocka_run_group_tests(tests, isolate, NULL);
}
