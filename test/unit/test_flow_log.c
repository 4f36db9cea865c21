/* The flow log: the table of flows, what is told when, and the line that is made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/flow_log.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;
static uint8_t frame[66000];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

/* -- the table -- */

struct told {
    unsigned n, refuse;
    struct flow_record v[16];
    uint64_t packets, ends[4];
};

static bool put(void *ctx, const struct flow_record *r)
{
    struct told *t = ctx;
    if (t->refuse) {
        t->refuse--;
        return false;
    }
    if (t->n < 16)
        t->v[t->n] = *r;
    t->n++;
    t->packets += r->out_packets + r->in_packets + r->dropped;
    t->ends[r->end]++;
    return true;
}

static const struct policy policy = {.name = "lan", .action = ACTION_PROTECT, .flow_log = true};
static const struct spd_entry entry = {.policy = &policy, .id = 9, .base = 7};

static struct flow flow_make(uint32_t n, uint8_t proto)
{
    struct flow f = {.src = {.family = 4, .b = {10, 1}}, .dst = {.family = 4, .b = {10, 2, 0, 1}}, .proto = proto};
    f.src.b[2] = (uint8_t)(n >> 24);
    f.src.b[3] = (uint8_t)(n >> 16);
    f.src_port = (uint16_t)n;
    f.dst_port = 443;
    f.ports_known = true;
    return f;
}

static struct flow reversed(struct flow f)
{
    struct flow r = f;
    r.src = f.dst;
    r.dst = f.src;
    r.src_port = f.dst_port;
    r.dst_port = f.src_port;
    return r;
}

static void both_directions_are_one_flow(void **state)
{
    (void)state;
    struct flow_log *l;
    struct told t = {0};
    const struct flow_sink sink = {&t, put};
    struct flow f = flow_make(5, 6), back = reversed(f);
    ns_t now = 100 * NS_PER_S;
    assert_int_equal(flow_log_new(&l), OK);
    assert_int_equal(flow_log_deadline(l), NS_NEVER);
    assert_true(
        flow_log_add(l, &entry, &f, &(struct flow_amount){.spi = 1, .packets = 44, .bytes = 60000}, now, &sink));
    now += NS_PER_S;
    assert_true(flow_log_add(l, &entry, &back, &(struct flow_amount){true, FLOW_PASSED, 2, 1, 40}, now, &sink));
    assert_true(flow_log_add(l, &entry, &f, &(struct flow_amount){false, FLOW_DROPPED, 0, 3, 120}, now, &sink));
    assert_int_equal(flow_log_deadline(l), 100 * NS_PER_S + FLOW_IDLE);
    flow_log_sweep(l, now + FLOW_IDLE - 1, false, &sink);
    assert_int_equal(t.n, 0);
    flow_log_sweep(l, now + FLOW_IDLE, false, &sink);
    assert_int_equal(t.n, 1);
    const struct flow_record *r = &t.v[0];
    assert_true(ip_equal(&r->local, &f.src) && ip_equal(&r->remote, &f.dst));
    assert_int_equal(r->local_port, 5);
    assert_int_equal(r->remote_port, 443);
    assert_int_equal(r->policy_id, 7);
    assert_int_equal(r->out_packets, 44);
    assert_int_equal(r->out_bytes, 60000);
    assert_int_equal(r->in_packets, 1);
    assert_int_equal(r->in_bytes, 40);
    assert_int_equal(r->dropped, 3);
    assert_int_equal(r->spi_out, 1);
    assert_int_equal(r->spi_in, 2);
    assert_int_equal(r->first, 100 * NS_PER_S);
    assert_int_equal(r->last, 101 * NS_PER_S);
    assert_int_equal(r->end, FLOW_QUIET);
    assert_int_equal(flow_log_deadline(l), NS_NEVER);
    flow_log_free(l);
}

/* Of what a policy would protect, some passes in the clear: that is a line of its own, which says so. */
static void what_fails_open_is_told_apart(void **state)
{
    (void)state;
    struct flow_log *l;
    struct told t = {0};
    const struct flow_sink sink = {&t, put};
    struct flow f = flow_make(5, 6);
    assert_int_equal(flow_log_new(&l), OK);
    (void)flow_log_add(l, &entry, &f, &(struct flow_amount){.fate = FLOW_CLEAR, .packets = 2}, 1, &sink);
    (void)flow_log_add(l, &entry, &f, &(struct flow_amount){.packets = 3}, 2, &sink);
    flow_log_sweep(l, 3, true, &sink);
    assert_int_equal(t.n, 2);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(t.v[i].out_packets, t.v[i].action == ACTION_BYPASS ? 2 : 3);
    flow_log_free(l);
}

static void echoes_and_answers_are_one_flow(void **state)
{
    (void)state;
    struct flow_log *l;
    struct told t = {0};
    const struct flow_sink sink = {&t, put};
    struct flow f = flow_make(0, 1), back;
    f.src_port = f.dst_port = 8 << 8;
    back = reversed(f);
    back.src_port = back.dst_port = 0;
    assert_int_equal(flow_log_new(&l), OK);
    (void)flow_log_add(l, &entry, &f, &(struct flow_amount){.packets = 1}, 5, &sink);
    (void)flow_log_add(l, &entry, &back, &(struct flow_amount){.in = true, .packets = 1}, 5, &sink);
    flow_log_sweep(l, 5, true, &sink);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.v[0].local_port, 0);
    assert_int_equal(t.v[0].end, FLOW_STOPPED);
    flow_log_free(l);
}

static void lasting_flows_are_told_in_parts(void **state)
{
    (void)state;
    struct flow_log *l;
    struct told t = {0};
    const struct flow_sink sink = {&t, put};
    struct flow f = flow_make(5, 17);
    assert_int_equal(flow_log_new(&l), OK);
    for (unsigned s = 0; s < 1500; s++) {
        ns_t now = (s + 1) * NS_PER_S;
        assert_true(flow_log_add(l, &entry, &f, &(struct flow_amount){.packets = 1, .bytes = 10}, now, &sink));
        if (now >= flow_log_deadline(l))
            flow_log_sweep(l, now, false, &sink);
    }
    assert_int_equal(t.ends[FLOW_LASTING], 2);
    flow_log_sweep(l, 1501 * NS_PER_S, true, &sink);
    assert_int_equal(t.packets, 1500);
    assert_true(t.v[1].first >= t.v[0].last);
    flow_log_free(l);
}

/* However many flows there are: the table is as large as it was, and every packet is told of once. */
static void a_flood_of_flows_evicts_and_loses_none(void **state)
{
    (void)state;
    struct flow_log *l;
    struct told t = {0};
    const struct flow_sink sink = {&t, put};
    uint64_t packets = 0;
    assert_int_equal(flow_log_new(&l), OK);
    for (uint32_t n = 0; n < 50000; n++) {
        struct flow f = flow_make(n * 65521, 17);
        assert_true(flow_log_add(l, &entry, &f, &(struct flow_amount){.packets = n % 5 + 1}, n + 1, &sink));
        packets += n % 5 + 1;
    }
    assert_in_range(t.ends[FLOW_EVICTED], 50000 - FLOW_SETS * FLOW_WAYS, 50000 - FLOW_SETS * FLOW_WAYS * 9 / 10);
    flow_log_sweep(l, 60000, true, &sink);
    assert_int_equal(t.packets, packets);
    assert_int_equal(t.n, 50000);
    flow_log_free(l);
}

static void what_is_not_taken_is_tried_again_or_said_lost(void **state)
{
    (void)state;
    struct flow_log *l;
    struct told t = {.refuse = 1};
    const struct flow_sink sink = {&t, put};
    struct flow f = flow_make(1, 17);
    assert_int_equal(flow_log_new(&l), OK);
    (void)flow_log_add(l, &entry, &f, &(struct flow_amount){.packets = 1}, 1, &sink);
    ns_t now = 1 + FLOW_IDLE;
    flow_log_sweep(l, now, false, &sink);
    assert_int_equal(t.n, 0);
    assert_int_equal(flow_log_deadline(l), now + NS_PER_S);
    flow_log_sweep(l, now + NS_PER_S, false, &sink);
    assert_int_equal(t.n, 1);
    unsigned lost = 0;
    t.refuse = 100000;
    for (uint32_t n = 0; n < 10000; n++) {
        f = flow_make(n, 17);
        lost += !flow_log_add(l, &entry, &f, &(struct flow_amount){.packets = 1}, now, &sink);
    }
    assert_int_equal(lost, 100000 - t.refuse);
    assert_true(lost >= 10000 - FLOW_SETS * FLOW_WAYS);
    flow_log_free(l);
}

static void lines_are_json_with_all_there_is(void **state)
{
    (void)state;
    struct flow_record r = {.local_port = 5,
                            .remote_port = 443,
                            .proto = 6,
                            .action = ACTION_PROTECT,
                            .end = FLOW_QUIET,
                            .spi_out = 0x10a,
                            .out_packets = 3,
                            .out_bytes = UINT64_C(5000000000),
                            .first = 10 * NS_PER_S,
                            .last = 12 * NS_PER_S};
    assert_int_equal(ip_parse("10.1.0.1", &r.local), OK);
    assert_int_equal(ip_parse("10.2.0.1", &r.remote), OK);
    char *text = flow_format(&r, "lan", "office", 20 * NS_PER_S, 1000 * NS_PER_S);
    assert_string_equal(text, "{\"policy\":\"lan\",\"peer\":\"office\",\"verdict\":\"protect\",\"protocol\":6,"
                              "\"local\":\"10.1.0.1\",\"local_port\":5,\"remote\":\"10.2.0.1\",\"remote_port\":443,"
                              "\"spi_out\":\"0x0000010a\",\"spi_in\":null,\"out_packets\":3,\"out_bytes\":5000000000,"
                              "\"in_packets\":0,\"in_bytes\":0,\"dropped_packets\":0,"
                              "\"start\":\"1970-01-01T00:16:30.000Z\",\"end\":\"1970-01-01T00:16:32.000Z\","
                              "\"why\":\"quiet\"}");
    free(text);
    r.action = ACTION_DISCARD;
    r.local_port = 0;
    text = flow_format(&r, NULL, NULL, 20 * NS_PER_S, 1000 * NS_PER_S);
    json_t *j = json_loads(text, 0, NULL);
    assert_true(json_is_null(json_object_get(j, "policy")) && json_is_null(json_object_get(j, "peer")));
    assert_true(json_is_null(json_object_get(j, "local_port")));
    assert_string_equal(json_string_value(json_object_get(j, "verdict")), "discard");
    json_decref(j);
    free(text);
}

/* -- whole tunnels -- */

static void inject(unsigned host, size_t len)
{
    assert_int_equal(memory_tun_inject(rig.net, rig.host[host].tun, frame, len), OK);
    rig_run(&rig, 3 * NS_PER_MS);
}

static void send_udp(uint8_t net, size_t len)
{
    static const uint8_t payload[1400];
    struct packet_spec s = packet_spec_udp(false);
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, payload, len, frame + TUN_HDR_LEN);
    frame[TUN_HDR_LEN + 17] = net;
    inject(0, TUN_HDR_LEN + n);
}

static const struct flow_record *only(unsigned host)
{
    assert_int_equal(rig.host[host].flow_count, 1);
    return &rig.host[host].flows[0];
}

static void both_ends_tell_the_same(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "flow-log = yes\nhold = 0\n");
    send_udp(2, 72); /* no SA: dropped */
    rig_up(&rig);
    for (unsigned i = 0; i < 10; i++)
        send_udp(2, 72);
    assert_int_equal(rig.host[0].flow_count, 0);
    rig_run(&rig, FLOW_IDLE + NS_PER_S);
    const struct flow_record *out = only(0), *in = only(1);
    assert_int_equal(out->out_packets, 10);
    assert_int_equal(out->out_bytes, 1000);
    assert_int_equal(out->dropped, 1);
    assert_int_equal(in->in_packets, 10);
    assert_int_equal(in->in_bytes, 1000);
    assert_true(ip_equal(&out->local, &in->remote) && ip_equal(&out->remote, &in->local));
    assert_int_equal(out->local_port, in->remote_port);
    assert_int_equal(out->spi_out, in->spi_in);
    assert_true(out->spi_out != 0 && out->spi_in == 0);
    assert_int_equal(in->last - out->last, NS_PER_MS); /* the way there */
}

/* What a flood of flows has to tell shares the ring with IKE, which is not to be lost for it. */
static void a_flood_of_flows_leaves_room_for_ike(void **state)
{
    (void)state;
    static uint8_t message[65536];
    struct rig_host *h = &rig.host[0];
    rig_setup(&rig, 5, "flow-log = yes\nhold = 0\nstart = no\n");
    struct packet_spec s = packet_spec_udp(false);
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, message, 10, frame + TUN_HDR_LEN);
    for (uint32_t i = 0; i < 20000; i++) {
        put_be16(frame + TUN_HDR_LEN + 20, (uint16_t)i);
        assert_int_equal(memory_tun_inject(rig.net, h->tun, frame, TUN_HDR_LEN + n), OK);
        if (i % 64 == 0)
            assert_int_equal(loop_turn(h->loop, rig.now), OK); /* and nobody empties the ring meanwhile */
    }
    assert_true(rig_stat(&rig, 0, STAT_FLOWS_LOST) > 0);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(
            ring_push(worker_ring(h->worker), WORKER_IKE, span_of(message, sizeof message), span_of(NULL, 0)), OK);
}

static void superpackets_count_each_segment_with_its_headers(void **state)
{
    (void)state;
    static uint8_t payload[40000];
    rig_setup(&rig, 2, "flow-log = yes\n");
    rig_up(&rig);
    struct packet_spec s = packet_spec_tcp(false);
    inject(0, packet_build_gso(&s, payload, sizeof payload, 1340, frame));
    rig_run(&rig, FLOW_IDLE + NS_PER_S);
    assert_int_equal(only(0)->out_packets, 30);
    assert_int_equal(only(0)->out_bytes, 40000 + 30 * 52);
    assert_int_equal(only(1)->in_packets, 30);
    assert_int_equal(only(1)->in_bytes, 40000 + 30 * 52);
}

static void discarded_flows_are_told_and_silent_policies_are_not(void **state)
{
    (void)state;
    rig_setup(&rig, 3, "[policy no]\naction = discard\nlocal = 10.1.0.0/24\nremote = 10.3.0.0/24\nflow-log = yes\n");
    rig_up(&rig);
    for (unsigned i = 0; i < 4; i++) {
        send_udp(2, 10);
        send_udp(3, 10);
    }
    rig_run(&rig, FLOW_IDLE + NS_PER_S);
    assert_int_equal(only(0)->action, ACTION_DISCARD);
    assert_int_equal(only(0)->dropped, 4);
    assert_int_equal(only(0)->out_packets, 0);
    assert_int_equal(rig.host[1].flow_count, 0);
}

static void the_end_tells_what_is_left(void **state)
{
    (void)state;
    rig_setup(&rig, 4, "flow-log = yes\n");
    rig_up(&rig);
    send_udp(2, 10);
    worker_flows_end(rig.host[0].worker);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(only(0)->end, FLOW_STOPPED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_directions_are_one_flow),
        cmocka_unit_test(what_fails_open_is_told_apart),
        cmocka_unit_test(echoes_and_answers_are_one_flow),
        cmocka_unit_test(lasting_flows_are_told_in_parts),
        cmocka_unit_test(a_flood_of_flows_evicts_and_loses_none),
        cmocka_unit_test(what_is_not_taken_is_tried_again_or_said_lost),
        cmocka_unit_test(lines_are_json_with_all_there_is),
        cmocka_unit_test_teardown(both_ends_tell_the_same, teardown),
        cmocka_unit_test_teardown(a_flood_of_flows_leaves_room_for_ike, teardown),
        cmocka_unit_test_teardown(superpackets_count_each_segment_with_its_headers, teardown),
        cmocka_unit_test_teardown(discarded_flows_are_told_and_silent_policies_are_not, teardown),
        cmocka_unit_test_teardown(the_end_tells_what_is_left, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
