/* Child SAs that share a path but not what their peers' `pmtu` says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/pathmtu.h"

#define LINK 1500
#define PATH 1300

static struct {
    struct timer_heap timers;
    struct path_mtus *all;
    uint64_t asked; /* the child whose IKE SA the last probe went by; 0: there was none */
    unsigned size;
    ns_t now;
} world;

static unsigned link_of(void *ctx, const struct path *path)
{
    (void)ctx;
    (void)path;
    return LINK;
}

static enum err probe(void *ctx, uint64_t child, unsigned bytes)
{
    (void)ctx;
    world.asked = child;
    world.size = bytes;
    return OK;
}

static void doubt(void *ctx, uint64_t child)
{
    (void)ctx;
    (void)child;
}

static struct path path_of(void)
{
    struct path p = {.local.port = 4500, .remote.port = 4500};
    assert_int_equal(ip_parse("192.0.2.1", &p.local.ip), OK);
    assert_int_equal(ip_parse("192.0.2.2", &p.remote.ip), OK);
    return p;
}

static int setup(void **state)
{
    (void)state;
    const struct path_mtu_env env = {.timers = &world.timers, .link = link_of, .probe = probe, .doubt = doubt};
    timer_heap_init(&world.timers, NULL);
    world.now = NS_PER_S;
    world.asked = 0;
    return path_mtus_new(&world.all, &env) != OK;
}

static int teardown(void **state)
{
    (void)state;
    path_mtus_free(world.all);
    timer_heap_free(&world.timers);
    return 0;
}

static struct sa sas[3];

static void join(struct path_user *u, uint64_t child, enum pmtu_mode mode)
{
    struct path path = path_of();
    *u = (struct path_user){.child = child, .in = &sas[child - 1], .mode = mode, .icmp = ICMP_TOO_BIG};
    path_mtu_join(world.all, u, &path);
}

static void leave(struct path_user *u)
{
    path_mtu_leave(world.all, u);
}

static unsigned size_of(const struct path_user *u)
{
    unsigned link;
    return path_mtu_size(u, &link);
}

/* Long datagrams leave, and all probes are answered that the path has room for. */
static void traffic(struct path_user *u, struct path_user *asked)
{
    path_mtu_used(u, world.now);
    for (unsigned i = 0; i < 300; i++) {
        world.now += 100 * NS_PER_MS;
        world.asked = 0;
        timer_run(&world.timers, world.now);
        if (!world.asked)
            continue;
        assert_true(asked && world.asked == asked->child);
        path_mtu_probed(asked, world.size, world.size <= PATH, world.now);
    }
}

static void who_probes_finds_it_for_all_who_want_to_know(void **state)
{
    (void)state;
    static const enum pmtu_mode orders[2][3] = {{PMTU_PROBE, PMTU_ICMP, PMTU_NO}, {PMTU_NO, PMTU_ICMP, PMTU_PROBE}};
    for (unsigned i = 0; i < 2; i++) {
        struct path_user u[3], *by = &u[i ? 2 : 0], *no = &u[i ? 0 : 2];
        for (unsigned k = 0; k < 3; k++)
            join(&u[k], k + 1, orders[i][k]);
        traffic(&u[1], by); /* also where who sends doesn't probe */
        assert_int_equal(size_of(by), PATH);
        assert_int_equal(size_of(&u[1]), PATH);
        assert_int_equal(size_of(no), LINK);
        assert_true(path_mtu_complete(by) && path_mtu_complete(&u[1]) && !path_mtu_complete(no));
        for (unsigned k = 0; k < 3; k++)
            leave(&u[k]);
    }
}

static void when_the_last_one_that_probes_leaves_icmp_is_believed_again(void **state)
{
    (void)state;
    struct path_user probes, listens;
    struct path path = path_of();
    join(&listens, 2, PMTU_ICMP);
    join(&probes, 1, PMTU_PROBE);
    traffic(&probes, &probes);
    leave(&probes);
    assert_int_equal(size_of(&listens), LINK); /* nobody confirms it */
    traffic(&listens, NULL);
    const struct icmp_error e = {.too_big = true,
                                 .mtu = 1400,
                                 .proto = 17,
                                 .local = path.local,
                                 .remote = path.remote,
                                 .esp = true,
                                 .spi = listens.spi_out};
    assert_true(path_mtu_told(world.all, &e, world.now));
    assert_int_equal(size_of(&listens), 1400);
    leave(&listens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_probes_finds_it_for_all_who_want_to_know, setup, teardown),
        cmocka_unit_test_setup_teardown(when_the_last_one_that_probes_leaves_icmp_is_believed_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
