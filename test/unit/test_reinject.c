/* What policy lets pass in the clear and routes have brought to the TUN: sent past it, packet by packet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/base/log.h"
#include "core/worker.h"
#include "crypto/library.h"
#include "test/unit/packets.h"
#include "tun/device.h"
#include "tun/memory.h"
#include "tun/raw.h"

static struct {
    struct memory_net *net;
    struct worker_shared shared;
    struct loop *loop;
    struct worker *worker;
    struct policy policy;
    struct peer peer;
    int tun;
} host;

/* What left in the clear. */
static struct {
    unsigned count;
    size_t bytes; /* of transport payload */
    bool unsound;
    uint8_t last[2048];
    size_t len;
} wire;

static uint8_t frame[66000], payload[66000];

static bool on_wire(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    const struct packet_spec *sent = ctx;
    (void)from;
    assert_int_equal(to->port, 0);
    wire.count++;
    wire.bytes += len - packet_headers(sent);
    wire.unsound = wire.unsound || !packet_sound(data, len);
    wire.len = len < sizeof wire.last ? len : sizeof wire.last;
    memcpy(wire.last, data, wire.len);
    return true;
}

static ns_t now(void *ctx)
{
    (void)ctx;
    return memory_now(host.net);
}

static void setup(enum policy_action action, bool fail_open, bool raw)
{
    memset(&host, 0, sizeof host);
    memset(&wire, 0, sizeof wire);
    assert_int_equal(crypto_init(), OK);
    log_setup(LOG_ERROR, LOG_TEXT);
    assert_int_equal(memory_net_new(&host.net, 1), OK);
    assert_int_equal(epoch_new(&host.shared.epoch, 1), OK);
    assert_int_equal(sad_new(&host.shared.sad, host.shared.epoch, &random_system), OK);
    host.policy = (struct policy){.action = action, .fail_open = fail_open, .peer = &host.peer, .hold = 4};
    assert_int_equal(selectors_parse("0.0.0.0/0, ::/0", &host.policy.local, NULL, 0), OK);
    host.policy.remote = host.policy.local;
    struct spd *spd;
    assert_int_equal(spd_new(&spd, &(struct spd_entry){.policy = &host.policy, .id = 3}, 1), OK);
    atomic_store(&host.shared.spd, spd);
    struct loop_hooks hooks = worker_hooks(&host.worker);
    assert_int_equal(memory_loop_new(host.net, &hooks, &host.loop), OK);
    host.tun = memory_tun(host.net);
    struct worker_params p = {.shared = &host.shared, .loop = host.loop, .tun_fd = host.tun, .now = now, .wake_fd = -1};
    const struct ip any[2] = {{.family = 4}, {.family = 6}};
    for (unsigned i = 0; raw && i < 2; i++)
        p.sockets[p.socket_count++] = (struct worker_socket){
            .fd = memory_raw(host.net, &any[i], RAW_ESP), .kind = SOCKET_ESP, .local = {.ip = any[i]}};
    assert_int_equal(worker_new(&host.worker, &p, NULL, 0), OK);
}

static int teardown(void **state)
{
    (void)state;
    worker_free(host.worker);
    loop_free(host.loop);
    spd_free(atomic_load(&host.shared.spd));
    sad_free(host.shared.sad);
    epoch_free(host.shared.epoch);
    memory_net_free(host.net);
    return 0;
}

/* Lets one packet, or a superpacket of such segments, come from the TUN. */
static void leave(struct packet_spec *s, size_t len, uint16_t gso_size)
{
    memory_net_tap(host.net, on_wire, s);
    size_t n;
    if (gso_size) {
        n = packet_build_gso(s, payload, len, gso_size, frame);
    } else {
        memset(frame, 0, TUN_HDR_LEN);
        n = TUN_HDR_LEN + packet_build(s, payload, len, frame + TUN_HDR_LEN);
    }
    assert_int_equal(memory_tun_inject(host.net, host.tun, frame, n), OK);
    memory_run(host.net, memory_now(host.net) + NS_PER_MS);
}

static uint64_t stat(enum stat_id id)
{
    return stat_get(worker_stats(host.worker), id);
}

static void what_bypasses_leaves_as_it_came(void **state)
{
    (void)state;
    setup(ACTION_BYPASS, false, true);
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        struct packet_spec s = packet_spec_udp(ipv6);
        wire.count = 0;
        leave(&s, 300, 0);
        assert_int_equal(wire.count, 1);
        assert_int_equal(wire.len, packet_headers(&s) + 300);
        assert_memory_equal(wire.last, frame + TUN_HDR_LEN, wire.len);
    }
    assert_int_equal(stat(STAT_BYPASSED), 2);
    assert_int_equal(stat(STAT_DROP_OUT_BYPASS), 0);
}

static void superpackets_leave_as_the_packets_they_stand_for(void **state)
{
    (void)state;
    setup(ACTION_BYPASS, false, true);
    for (int kind = 0; kind < 4; kind++) {
        struct packet_spec s = kind & 1 ? packet_spec_tcp(kind & 2) : packet_spec_udp(kind & 2);
        memset(&wire, 0, sizeof wire);
        leave(&s, 60001, 1200);
        assert_int_equal(wire.count, 51);
        assert_int_equal(wire.bytes, 60001);
        assert_false(wire.unsound);
    }
    struct packet_spec s = packet_spec_tcp(true);
    memset(&wire, 0, sizeof wire);
    leave(&s, 60000, 40); /* more than one slot holds, with all their headers */
    assert_int_equal(wire.count, 1500);
    assert_int_equal(wire.bytes, 60000);
    assert_false(wire.unsound);
    assert_int_equal(stat(STAT_BYPASSED), 4 * 51 + 1500);
}

static void without_a_raw_socket_it_is_dropped_and_counted(void **state)
{
    (void)state;
    setup(ACTION_BYPASS, false, false);
    struct packet_spec s = packet_spec_udp(false);
    leave(&s, 5000, 1000);
    assert_int_equal(wire.count, 0);
    assert_int_equal(stat(STAT_DROP_OUT_BYPASS), 5);
    assert_int_equal(stat(STAT_BYPASSED), 0);
}

static void fail_open_passes_and_asks_for_an_sa(void **state)
{
    (void)state;
    setup(ACTION_PROTECT, true, true);
    struct packet_spec s = packet_spec_udp(false);
    leave(&s, 100, 0);
    assert_int_equal(wire.count, 1);
    assert_int_equal(stat(STAT_BYPASSED), 1);
    assert_int_equal(stat(STAT_OUT_HELD), 0);
    uint32_t type;
    struct span record;
    assert_true(ring_peek(worker_ring(host.worker), &type, &record));
    assert_int_equal(type, WORKER_EVENT);
}

static void else_nothing_leaves_without_an_sa(void **state)
{
    (void)state;
    setup(ACTION_PROTECT, false, true);
    struct packet_spec s = packet_spec_udp(false);
    for (int i = 0; i < 6; i++)
        leave(&s, 100, 0);
    memory_run(host.net, memory_now(host.net) + 10 * NS_PER_S);
    leave(&s, 100, 0);
    assert_int_equal(wire.count, 0);
    assert_int_equal(stat(STAT_OUT_HELD), 4);
    assert_int_equal(stat(STAT_DROP_OUT_HOLD_FULL), 3);
    assert_int_equal(stat(STAT_DROP_OUT_HOLD_LATE), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_bypasses_leaves_as_it_came, teardown),
        cmocka_unit_test_teardown(superpackets_leave_as_the_packets_they_stand_for, teardown),
        cmocka_unit_test_teardown(without_a_raw_socket_it_is_dropped_and_counted, teardown),
        cmocka_unit_test_teardown(fail_open_passes_and_asks_for_an_sa, teardown),
        cmocka_unit_test_teardown(else_nothing_leaves_without_an_sa, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
