/*
 * One step after the other fails in the data plane of whole tunnels, and in what runs the slow steps: nothing leaks or
 * stays behind, and once things work again the tunnel comes up by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/job.h"
#include "esp/sad.h"
#include "test/unit/fault.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;

static bool tunnel_passes(void)
{
    static uint8_t frame[2048], taken[2048];
    struct packet_spec spec = packet_spec_udp(false);
    memset(frame, 0, sizeof frame);
    size_t len = TUN_HDR_LEN + packet_build(&spec, (const uint8_t *)"there", 5, frame + TUN_HDR_LEN);
    uint8_t *ip = frame + TUN_HDR_LEN, source[4];
    for (unsigned from = 0; from < 2; from++) {
        if (memory_tun_inject(rig.net, rig.host[from].tun, frame, len) != OK)
            return false;
        rig_run(&rig, 5 * NS_PER_MS);
        if (memory_tun_take(rig.net, rig.host[1 - from].tun, taken, sizeof taken) != len)
            return false;
        memcpy(source, ip + 12, 4); /* and back: no checksum changes */
        memcpy(ip + 12, ip + 16, 4);
        memcpy(ip + 16, source, 4);
    }
    return true;
}

static bool tunnel_up(uint64_t command)
{
    for (unsigned i = 0; i < 40; i++) {
        struct rig_host *h = &rig.host[0];
        ike_up(h->engine, h->config->peers[0], NULL, command + i, rig.now);
        rig_run(&rig, 2 * NS_PER_S);
        if (tunnel_passes())
            return true;
    }
    return false;
}

/* Nothing of a Child SA is left: none is known, no SPI is reserved, no policy has an outbound SA. */
static bool data_plane_empty(const struct rig_host *h)
{
    struct child_counters counters;
    for (uint64_t id = 1; id < 60; id++)
        if (dataplane_counters(h->dataplane, id, &counters) == OK)
            return false;
    for (unsigned i = 0; i < fault.spis; i++) {
        struct sa probe = {.params = {.dir = SA_IN, .spi = fault.spi[i]}};
        if (sad_publish_in(h->shared.sad, &probe) != ERR_STATE)
            return false;
    }
    return !sad_find_out(h->shared.sad, 0, 0);
}

static bool installs(enum fault_kind kind, unsigned n, bool lasting)
{
    rig_setup(&rig, 50 + n, "");
    fault.spis = 0;
    fault.scoped = true;
    fault_arm(kind, n, lasting);
    rig_run(&rig, NS_PER_MS);
    ike_up(rig.host[0].engine, rig.host[0].config->peers[0], NULL, 1, rig.now);
    rig_run(&rig, 2 * NS_PER_S);
    for (unsigned k = 0; k < 2; k++) {
        struct config *c = rig.host[k].config;
        ike_rekey(rig.host[k].engine, c->peers[0], c->policies[0], 2 + k, rig.now);
        rig_run(&rig, NS_PER_S);
    }
    fault.armed = fault.scoped = false;
    bool happened = fault.calls > n;
    assert_true(tunnel_up(10));
    for (unsigned k = 0; k < 2; k++)
        ike_shutdown(rig.host[k].engine, rig.now);
    rig_run(&rig, 12 * NS_PER_S);
    for (unsigned k = 0; k < 2; k++)
        assert_true(ike_idle(rig.host[k].engine) && data_plane_empty(&rig.host[k]));
    rig_teardown(&rig);
    return happened;
}

static void each_install_step_fails(void **state)
{
    (void)state;
    static const enum fault_kind kinds[] = {FAULT_ALLOCATION, FAULT_RESERVE, FAULT_KEYS, FAULT_PUBLISH_IN,
                                            FAULT_PUBLISH_OUT};
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (unsigned lasting = 0; lasting < 2; lasting++) {
            unsigned n = 0;
            while (installs(kinds[k], n, lasting))
                n++;
            print_message("%u failing one by one%s: %s\n", n, lasting ? ", with all that follow" : "",
                          fault_name[kinds[k]]);
            assert_true(n > 2);
        }
}

/* What activates can't report a failure, so an installation that sends later already has all that takes memory. */
static void activation_needs_no_memory(void **state)
{
    (void)state;
    static const uint8_t key[64];
    const struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128}, none = {TRANSFORM_INTEG, INTEG_NONE, 0};
    rig_setup(&rig, 1, "");
    struct rig_host *h = &rig.host[0];
    struct ike_child c = {.id = 1, .policy = h->config->policies[0], .spi_out = 0x1234};
    assert_int_equal(suite_of(&gcm, &none, &c.suite), OK);
    c.local = c.policy->local;
    c.remote = c.policy->remote;
    c.path.local.ip = h->at.ip;
    c.path.remote.ip = rig.host[1].at.ip;
    c.key_in = c.key_out = span_of(key, c.suite.encr_key_len);
    assert_int_equal(dataplane_reserve(h->dataplane, &c.spi_in), OK);
    assert_int_equal(dataplane_install(h->dataplane, &c, "auto", false, 0), OK);
    fault_arm(FAULT_ALLOCATION, 0, true);
    dataplane_activate(h->dataplane, c.id);
    fault.armed = false;
    assert_non_null(sad_find_out(h->shared.sad, 0, 0));
    dataplane_remove(h->dataplane, c.id, false, 0);
    rig_teardown(&rig);
}

/* Nothing of the slow steps' threads and queues is left when one of their parts can't be had. */
static void job_pool_cannot_be_made(void **state)
{
    (void)state;
    for (unsigned n = 0;; n++) {
        struct job_pool *p = NULL;
        fault_arm(FAULT_ALLOCATION, n, false);
        enum err err = job_pool_new(&p, 2, 8, -1);
        fault.armed = false;
        if (err == OK) {
            assert_int_equal(n, 4);
            job_pool_free(p);
            return;
        }
        assert_int_equal(err, ERR_NOMEM);
        assert_null(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_install_step_fails),
        cmocka_unit_test(activation_needs_no_memory),
        cmocka_unit_test(job_pool_cannot_be_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
