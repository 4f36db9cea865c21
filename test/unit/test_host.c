/*
 * Which of the host's sockets the control thread sends by, in a network namespace of this process's own. Needs root and
 * a TUN device.
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
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/host.h"
#include "policy/config_internal.h"

#define WORKERS 2

/* Without the loopback there is nowhere to connect a socket to that shall take nothing. */
static bool isolate(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (geteuid() != 0 || unshare(CLONE_NEWNET) != 0 || access("/dev/net/tun", R_OK | W_OK) != 0)
        return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &r), 0);
    close(fd);
    return true;
}

static void tell(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    fprintf(stderr, "%s:%u: %s\n", file, line, text);
}

static struct host_state *host_new(const char *keys, struct config **config)
{
    char text[200], why[300] = "";
    struct config_report report = {.error = tell, .warning = tell};
    struct host_state *h = NULL;
    snprintf(text, sizeof text,
             "[host]\ntun = t0\nmtu = 1400\nroutes = no\n%s[policy all]\naction = discard\nlocal = 10.1.0.0/24\n"
             "remote = 10.2.0.0/24\n",
             keys);
    assert_int_equal(config_parse(span_of(text, strlen(text)), "t.ini", false, &report, config), OK);
    if (host_up(&h, *config, WORKERS, why, sizeof why) != OK)
        fail_msg("%s", why);
    return h;
}

static struct path path_of(const char *local, uint16_t port, const char *remote)
{
    struct path p = {.local.port = port, .remote.port = 4500};
    assert_int_equal(ip_parse(local, &p.local.ip), OK);
    assert_int_equal(ip_parse(remote, &p.remote.ip), OK);
    return p;
}

static int discovery(int fd)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_true(fd >= 0);
    assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &value, &len), 0);
    return value;
}

static void what_goes_whole_has_a_socket_of_its_own(void **state)
{
    (void)state;
    static const char *const keys[] = {"", "listen = 127.0.0.1\n"};
    if (!isolate()) {
        fprintf(stderr, "test_host: skipped: no network namespace or no TUN device\n");
        skip();
    }
    for (unsigned i = 0; i < 2; i++) {
        struct config *config;
        struct host_state *h = host_new(keys[i], &config);
        struct path path = path_of("127.0.0.1", 4500, "127.0.0.9");
        assert_int_equal(discovery(host_socket(h, &path)), IP_PMTUDISC_OMIT);
        assert_int_equal(discovery(host_socket_df(h, &path)), IP_PMTUDISC_PROBE);
        path.local.port = 500;
        assert_int_equal(discovery(host_socket(h, &path)), IP_PMTUDISC_OMIT);
        assert_int_equal(host_socket_df(h, &path), -1);
        path.local.port = 4501;
        assert_int_equal(host_socket(h, &path), -1);
        assert_int_equal(host_socket_df(h, &path), -1);
        path = path_of("127.0.0.2", 4500, "127.0.0.9");
        assert_int_equal(host_socket_df(h, &path) < 0, i == 1);
        path = path_of("0.0.0.0", 4500, "127.0.0.9");
        assert_int_equal(host_socket_df(h, &path), -1);
        path = path_of("::1", 4500, "::2");
        assert_int_equal(host_socket(h, &path) < 0, i == 1);
        assert_int_equal(host_socket_df(h, &path) < 0, i == 1);
        host_down(h, HOST_OPEN);
        config_free(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_goes_whole_has_a_socket_of_its_own)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
