/* The audit log of the data plane: what is reported, how often, and the lines that are made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/trace.h"
#include "ike/payload.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;
static uint8_t frame[2048];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void send_udp(uint8_t net)
{
    rig_inject_udp(&rig, net);
    rig_run(&rig, 2 * NS_PER_MS);
}

static void again(void)
{
    memory_send(rig.net, &rig.wire[0].from, &rig.wire[0].to, rig.wire[0].data, rig.wire[0].len);
}

static const struct audit_event *last(unsigned host)
{
    struct rig_host *h = &rig.host[host];
    assert_in_range(h->audit_count, 1, 64);
    return &h->audits[h->audit_count - 1];
}

static void assert_outer(const struct audit_event *e)
{
    assert_true(endpoint_equal(&e->from, &rig.wire[0].from));
    assert_true(endpoint_equal(&e->to, &rig.wire[0].to));
}

static void what_the_wire_brings_is_reported(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "");
    rig_up(&rig);
    rig.keep_wire = true;
    send_udp(2);
    assert_int_equal(rig.wire_count, 1);
    assert_int_equal(rig.host[1].audit_count, 0);
    uint32_t spi = get_be32(rig.wire[0].data);

    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_REPLAY);
    assert_int_equal(last(1)->spi, spi);
    assert_int_equal(last(1)->seq, 1);
    assert_int_equal(last(1)->policy_id, 0);
    assert_outer(last(1));

    rig.wire[0].data[7] = 9;
    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_AUTH);
    assert_int_equal(last(1)->spi, spi);
    assert_int_equal(last(1)->seq, 9);
    assert_outer(last(1));

    put_be32(rig.wire[0].data, spi ^ 0x00100000);
    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_SPI);
    assert_int_equal(last(1)->spi, spi ^ 0x00100000);
    assert_int_equal(last(1)->seq, 9);
    assert_outer(last(1));
    assert_int_equal(rig.host[1].audit_count, 3);
}

/* An IP header of 20 bytes, then AH: its SPI is the second word, its number the third. */
static void ah_is_told_as_ah(void **state)
{
    (void)state;
    rig_setup(&rig, 6, "ah = sha256\n");
    rig_up(&rig);
    rig_run(&rig, 100 * NS_PER_MS);
    rig.wire_count = 0;
    rig.keep_wire = true;
    send_udp(2);
    assert_int_equal(rig.wire_count, 1);
    uint32_t spi = get_be32(rig.wire[0].data + 24);
    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_REPLAY);
    assert_true(last(1)->ah);
    assert_int_equal(last(1)->spi, spi);
    assert_int_equal(last(1)->seq, 1);
    put_be32(rig.wire[0].data + 24, spi ^ 0x00100000);
    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_SPI);
    assert_true(last(1)->ah);
    assert_int_equal(last(1)->spi, spi ^ 0x00100000);
    assert_int_equal(last(1)->seq, 1);
}

/* RFC 4303 section 4 wants the flow label too. */
static void over_ipv6_the_flow_label_is_told(void **state)
{
    (void)state;
    rig_setup_ipv6(&rig, 7, "encap = raw\npackets = 4\n");
    rig_up(&rig);
    rig_run(&rig, 100 * NS_PER_MS);
    rig.wire_count = 0;
    rig.keep_wire = true;
    uint32_t flow = rig_out_sa(&rig, 0)->flow;
    send_udp(2);
    assert_int_equal(rig.wire_count, 1);
    assert_int_equal(get_be32(rig.wire[0].data) & 0xfffff, flow);
    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_REPLAY);
    assert_int_equal(last(1)->flow, flow);
    rig.wire[0].data[40] ^= 0x0f; /* the SPI */
    again();
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_SPI);
    assert_int_equal(last(1)->flow, flow);
    for (unsigned i = 0; i < 6; i++)
        rig_inject_udp(&rig, 2);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(last(0)->reason, STAT_DROP_OUT_EXPIRED);
    assert_int_equal(last(0)->flow, flow);
}

static void what_the_tun_brings_is_reported(void **state)
{
    (void)state;
    rig_setup(&rig, 2, "packets = 4\n");
    rig_up(&rig);
    send_udp(77);
    assert_int_equal(last(0)->reason, STAT_DROP_OUT_NO_POLICY);
    assert_int_equal(last(0)->inner.dst.b[1], 77);
    assert_int_equal(last(0)->inner.proto, 17);
    for (unsigned i = 0; i < 6; i++) /* at once: before anybody hears of the limit */
        rig_inject_udp(&rig, 2);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(last(0)->reason, STAT_DROP_OUT_EXPIRED);
    assert_int_equal(last(0)->seq, 5);
    assert_int_equal(last(0)->inner.dst.b[1], 2);
    assert_true(last(0)->spi != 0 && last(0)->to.port == 4500);
}

/* A flow of other addresses than the SA's selectors, sealed with its keys by a peer that keeps no rules. */
static void outside_the_selectors(uint64_t seed, const char *extra)
{
    rig_setup(&rig, seed, extra);
    rig_up(&rig);
    struct sa *out = sad_find_out(rig.host[0].shared.sad, 0, 0);
    out->params.remote.v[0].range.last.b[1] = 99;
    struct policy *p = (struct policy *)rig.host[0].config->policies[0];
    p->remote.v[0].range.last.b[1] = 99;
    struct spd *spd;
    epoch_offline(rig.host[0].shared.epoch, 0); /* its next turn brings it back */
    assert_int_equal(dataplane_prepare(rig.host[0].dataplane, rig.host[0].config, &spd), OK);
    dataplane_commit(rig.host[0].dataplane, rig.host[0].config, spd);
    send_udp(3);
    assert_int_equal(last(1)->reason, STAT_DROP_IN_SELECTOR);
    assert_int_equal(last(1)->seq, 1);
    assert_int_equal(last(1)->inner.dst.b[1], 3);
    assert_int_equal(last(1)->inner.proto, 17);
    assert_true(last(1)->inner.ports_known);
}

static void packets_outside_the_selectors_are_reported(void **state)
{
    (void)state;
    outside_the_selectors(3, "");
    rig_teardown(&rig);
    outside_the_selectors(8, "ah = sha256\n");
}

/* Ports that look like the beginning of an IP header are none: in transport mode the header is not there any more. */
static void ports_are_not_reported_as_a_header(void **state)
{
    (void)state;
    rig_setup_as(&rig, 7, "mode = transport-only\npackets = 4\n", &(struct rig_layout){.hosts = true});
    rig_up(&rig);
    struct packet_spec s = packet_spec_udp(false);
    static const uint8_t payload[100];
    s.from = rig.host[0].at.ip.b;
    s.to = rig.host[1].at.ip.b;
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, payload, sizeof payload, frame + TUN_HDR_LEN);
    put_be16(frame + TUN_HDR_LEN + 20, 0x4500);
    for (unsigned i = 0; i < 6; i++)
        rig_inject(&rig, 0, frame, TUN_HDR_LEN + n);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(last(0)->reason, STAT_DROP_OUT_EXPIRED);
    assert_int_equal(last(0)->inner.src.family, 0);
}

static void a_flood_is_a_few_lines_and_a_number(void **state)
{
    (void)state;
    rig_setup(&rig, 4, "");
    rig_up(&rig);
    rig.keep_wire = true;
    send_udp(2);
    for (unsigned i = 0; i < 1000; i++)
        again();
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(rig.host[1].audit_count, AUDIT_BURST);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_REPLAY), 1000);
    rig_run(&rig, AUDIT_QUIET + NS_PER_MS);
    assert_int_equal(rig.host[1].audit_count, AUDIT_BURST + 1);
    assert_true(last(1)->summary);
    assert_int_equal(last(1)->held, 1000 - AUDIT_BURST);
    rig_run(&rig, 60 * NS_PER_S);
    assert_int_equal(rig.host[1].audit_count, AUDIT_BURST + 1); /* told once */
    for (unsigned i = 0; i < 20; i++)
        again();
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(rig.host[1].audit_count, 2 * AUDIT_BURST + 1);
    rig_run(&rig, NS_PER_S);
    again();
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(last(1)->held, 10);
    assert_false(last(1)->summary);
}

static void it_can_be_turned_off(void **state)
{
    (void)state;
    rig_setup(&rig, 5, "");
    atomic_store(&rig.host[0].shared.no_audit, true);
    send_udp(77);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_POLICY), 1);
    rig_run(&rig, 20 * NS_PER_S);
    assert_int_equal(rig.host[0].audit_count, 0);
}

static void lines_say_all_there_is(void **state)
{
    (void)state;
    char text[AUDIT_TEXT];
    struct selectors local, remote;
    struct audit_event e = {.reason = STAT_DROP_IN_SELECTOR, .spi = 0x10a, .seq = 7, .wall = 1500 * NS_PER_MS};
    assert_int_equal(selectors_parse("10.1.0.0/24", &local, NULL, 0), OK);
    assert_int_equal(selectors_parse("10.2.0.0/24", &remote, NULL, 0), OK);
    assert_int_equal(ip_parse("192.0.2.1", &e.from.ip), OK);
    assert_int_equal(ip_parse("192.0.2.2", &e.to.ip), OK);
    e.from.port = e.to.port = 4500;
    assert_int_equal(ip_parse("10.9.0.1", &e.inner.src), OK);
    assert_int_equal(ip_parse("10.1.0.1", &e.inner.dst), OK);
    e.inner.proto = 6;
    e.inner.ports_known = true;
    e.inner.src_port = 1;
    e.inner.dst_port = 443;
    e.held = 5;
    assert_string_equal(
        audit_format(&e, "lan", &local, &remote, text),
        "drop_in_selector: inner packet outside its SA's selectors, ESP SPI 0x0000010a, sequence number 7, "
        "192.0.2.1:4500 -> 192.0.2.2:4500, inside 10.9.0.1 port 1 -> 10.1.0.1 port 443 protocol 6, "
        "policy lan, selectors 10.1.0.0/24 === 10.2.0.0/24, at 1970-01-01T00:00:01.500Z "
        "(5 more before it were not reported)");
    e.inner.proto = 1;
    e.inner.src_port = e.inner.dst_port = 8 << 8 | 3;
    assert_non_null(strstr(audit_format(&e, NULL, NULL, NULL, text), "10.1.0.1 protocol 1 type 8 code 3, at 1970"));
    e.inner.ports_known = false;
    assert_non_null(strstr(audit_format(&e, NULL, NULL, NULL, text), "10.1.0.1 protocol 1, at 1970"));
    e.flow = 0x1a;
    assert_non_null(strstr(audit_format(&e, NULL, NULL, NULL, text), "192.0.2.2:4500, flow label 0x0001a, inside"));
    e.ah = true;
    assert_non_null(strstr(audit_format(&e, NULL, NULL, NULL, text), ", AH SPI 0x0000010a, "));
    e.summary = true;
    assert_string_equal(audit_format(&e, NULL, NULL, NULL, text),
                        "drop_in_selector: 5 more like this were not reported one by one, at 1970-01-01T00:00:01.500Z");
}

static void ike_messages_are_traced_by_their_headers(void **state)
{
    (void)state;
    const struct path path = {.remote = {{.family = 4, .b = {192, 0, 2, 2}}, 4500}};
    uint8_t message[40] = {
        [7] = 0x1a, [15] = 0x2b, [17] = 0x20, [18] = 36, [19] = IKE_FLAG_RESPONSE, [23] = 7, [27] = 40};
    char text[TRACE_TEXT];
    assert_string_equal(trace_format(&path, span_of(message, sizeof message), text),
                        "192.0.2.2:4500: CREATE_CHILD_SA response 7, 40 bytes, 000000000000001a_i 000000000000002b_r");
    message[18] = 43;
    message[19] = 0;
    assert_non_null(strstr(trace_format(&path, span_of(message, sizeof message), text), ": exchange 43 request 7, "));
    assert_string_equal(trace_format(&path, span_of(message, 27), text),
                        "192.0.2.2:4500: 27 bytes that are no IKE message");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_the_wire_brings_is_reported, teardown),
        cmocka_unit_test_teardown(ah_is_told_as_ah, teardown),
        cmocka_unit_test_teardown(over_ipv6_the_flow_label_is_told, teardown),
        cmocka_unit_test_teardown(what_the_tun_brings_is_reported, teardown),
        cmocka_unit_test_teardown(packets_outside_the_selectors_are_reported, teardown),
        cmocka_unit_test_teardown(ports_are_not_reported_as_a_header, teardown),
        cmocka_unit_test_teardown(a_flood_is_a_few_lines_and_a_number, teardown),
        cmocka_unit_test_teardown(it_can_be_turned_off, teardown),
        cmocka_unit_test(lines_say_all_there_is),
        cmocka_unit_test(ike_messages_are_traced_by_their_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
