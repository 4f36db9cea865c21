/* The outer IP header (RFC 4301 section 5.1.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "esp/outer.h"

#define ESP 50

static struct ip ip(const char *text)
{
    struct ip out;
    assert_int_equal(ip_parse(text, &out), OK);
    return out;
}

/* One's complement sum of an IPv4 header with its checksum: all ones if that is right. */
static uint16_t header_sum(const uint8_t *header)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < OUTER_IPV4; i += 2)
        sum += get_be16(header + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* A packet's own header, 40 bytes of it. */
static void put_inner(uint8_t packet[OUTER_IPV6], uint8_t family, const struct outer *o)
{
    struct writer w = writer_of(packet, OUTER_IPV6);
    struct ip from = ip(family == 4 ? "10.1.0.1" : "fd00:1::1"), to = ip(family == 4 ? "10.2.0.9" : "fd00:2::9");
    memset(packet, 0xaa, OUTER_IPV6);
    assert_int_equal(outer_put(&w, o, &from, &to, 17, 20, 0x1234), OK);
}

/* -- what is chosen for it -- */

static struct outer chosen(const struct outer_rule *rule, enum policy_mode mode, uint8_t family, struct outer inner)
{
    struct sa sa = {.params = {.mode = mode, .outer = *rule}, .flow = 0x54321};
    uint8_t packet[OUTER_IPV6], before[OUTER_IPV6];
    put_inner(packet, family, &inner);
    memcpy(before, packet, sizeof before);
    struct outer o = outer_of(&sa, packet);
    assert_memory_equal(packet, before, sizeof before); /* the inner header stays: TTL, DSCP, all of it */
    return o;
}

static struct outer_rule copied(void)
{
    struct outer_rule r = {.ecn = true};
    for (uint8_t i = 0; i < 64; i++)
        r.dscp[i] = i;
    return r;
}

static void dscp_is_copied_or_mapped_by_the_rule(void **state)
{
    (void)state;
    for (uint8_t family = 4; family <= 6; family += 2)
        for (uint8_t dscp = 0; dscp < 64; dscp++) {
            struct outer_rule rule = copied();
            struct outer inner = {.tos = (uint8_t)(dscp << 2)};
            assert_int_equal(chosen(&rule, MODE_TUNNEL, family, inner).tos, dscp << 2);
            rule.dscp[dscp] = 63 - dscp;
            assert_int_equal(chosen(&rule, MODE_TUNNEL, family, inner).tos, (63 - dscp) << 2);
            inner.tos = (uint8_t)((63 - dscp) << 2);
            assert_int_equal(chosen(&rule, MODE_TUNNEL, family, inner).tos, inner.tos);
        }
}

/* RFC 6040 figure 3. */
static void ecn_is_copied_or_cleared_outward(void **state)
{
    (void)state;
    struct outer_rule normal = copied(), compatible = copied();
    compatible.ecn = false;
    for (uint8_t family = 4; family <= 6; family += 2)
        for (uint8_t ecn = 0; ecn < 4; ecn++) {
            struct outer inner = {.tos = 10 << 2 | ecn};
            assert_int_equal(chosen(&normal, MODE_TUNNEL, family, inner).tos, inner.tos);
            assert_int_equal(chosen(&compatible, MODE_TUNNEL, family, inner).tos, 10 << 2);
        }
}

static void df_is_copied_set_or_cleared(void **state)
{
    (void)state;
    static const struct {
        enum df_mode mode;
        bool without, with; /* the outer bit by the inner one; IPv6: as with */
    } rows[] = {{DF_CLEAR, false, false}, {DF_COPY, false, true}, {DF_SET, true, true}};
    for (unsigned i = 0; i < 3; i++) {
        struct outer_rule rule = copied();
        rule.df = rows[i].mode;
        assert_int_equal(chosen(&rule, MODE_TUNNEL, 4, (struct outer){.df = false}).df, rows[i].without);
        assert_int_equal(chosen(&rule, MODE_TUNNEL, 4, (struct outer){.df = true}).df, rows[i].with);
        assert_int_equal(chosen(&rule, MODE_TUNNEL, 6, (struct outer){.df = false}).df, rows[i].with);
    }
}

static void ttl_and_flow_label_are_no_copies(void **state)
{
    (void)state;
    struct outer_rule rule = copied();
    for (uint8_t family = 4; family <= 6; family += 2) {
        struct outer o = chosen(&rule, MODE_TUNNEL, family, (struct outer){.ttl = 3, .flow = 0xabcde});
        assert_int_equal(o.ttl, 0);
        assert_int_equal(o.flow, 0x54321);
    }
}

static void transport_mode_keeps_the_packets_own_header(void **state)
{
    (void)state;
    struct outer_rule rule = {.ecn = false, .df = DF_CLEAR}; /* of no concern there */
    struct outer inner = {.tos = 0xbb, .ttl = 3, .df = true, .flow = 0xabcde};
    struct outer o = chosen(&rule, MODE_TRANSPORT, 4, inner);
    assert_true(o.tos == 0xbb && o.ttl == 3 && o.df && o.flow == 0);
    o = chosen(&rule, MODE_TRANSPORT, 6, inner);
    assert_true(o.tos == 0xbb && o.ttl == 3 && o.df && o.flow == 0xabcde);
}

static void dummies_look_like_ordinary_packets(void **state)
{
    (void)state;
    struct outer_rule rule = {.ecn = true, .df = DF_SET};
    memset(rule.dscp, 46, sizeof rule.dscp);
    struct sa sa = {.params = {.mode = MODE_TUNNEL, .outer = rule}, .flow = 0x54321};
    struct outer dummy = outer_of_dummy(&sa), other = chosen(&rule, MODE_TUNNEL, 4, (struct outer){.tos = 0});
    assert_true(outer_alike(&dummy, &other) && dummy.flow == other.flow);
    sa.params.mode = MODE_TRANSPORT;
    dummy = outer_of_dummy(&sa);
    assert_true(dummy.tos == 0 && !dummy.df && dummy.flow == 0);
}

static void what_a_socket_is_told_parts_a_segmented_send(void **state)
{
    (void)state;
    struct outer a = {.tos = 1, .ttl = 2, .flow = 3}, b = {.tos = 1, .ttl = 2, .flow = 5};
    assert_true(outer_alike(&a, &b));
    b.df = true;
    assert_false(outer_alike(&a, &b));
    b = (struct outer){.tos = 2, .ttl = 2};
    assert_false(outer_alike(&a, &b));
    b = (struct outer){.tos = 1, .ttl = 3};
    assert_false(outer_alike(&a, &b));
}

/* -- congestion on the way in -- */

enum { NOT_ECT = 0, ECT1 = 1, ECT0 = 2, CE = 3, ODD = 4, DROP = 8 };

/* RFC 6040 figure 4, its rows and columns in its order; ODD where it has exclamation marks. */
static const uint8_t fields[4] = {NOT_ECT, ECT0, ECT1, CE};
static const uint8_t figure4[4][4] = {
    {NOT_ECT, NOT_ECT | ODD, NOT_ECT | ODD, DROP},
    {ECT0, ECT0, ECT1, CE},
    {ECT1, ECT1 | ODD, ECT1, CE},
    {CE, CE, CE | ODD, CE},
};

static void ecn_of_all_combinations_follows_rfc_6040(void **state)
{
    (void)state;
    for (uint8_t family = 4; family <= 6; family += 2)
        for (unsigned row = 0; row < 4; row++)
            for (unsigned column = 0; column < 4; column++) {
                uint8_t packet[OUTER_IPV6], expected[OUTER_IPV6], want = figure4[row][column];
                struct outer inner = {.tos = 10 << 2 | fields[row], .ttl = 9, .flow = 0xfffff};
                put_inner(packet, family, &inner);
                enum outer_ecn got = outer_ecn_in(46 << 2 | fields[column], packet);
                assert_int_equal(got, want & DROP ? OUTER_ECN_DROP : want & ODD ? OUTER_ECN_ODD : OUTER_ECN_USUAL);
                if (!(want & DROP))
                    inner.tos = 10 << 2 | (want & 3);
                put_inner(expected, family, &inner); /* its checksum is computed from the beginning */
                assert_memory_equal(packet, expected, sizeof expected);
            }
}

/* The sum that is updated must not become the other zero of one's complement, whatever it was. */
static void inner_checksum_is_right_after_every_change(void **state)
{
    (void)state;
    for (uint32_t id = 0; id <= UINT16_MAX; id++) {
        uint8_t packet[OUTER_IPV6], whole[OUTER_IPV6];
        struct outer o = {.tos = ECT0}, ce = {.tos = CE};
        struct ip from = ip("10.1.0.1"), to = ip("10.2.0.9");
        struct writer w = writer_of(packet, sizeof packet), v = writer_of(whole, sizeof whole);
        assert_int_equal(outer_put(&w, &o, &from, &to, 17, 20, (uint16_t)id), OK);
        assert_int_equal(outer_put(&v, &ce, &from, &to, 17, 20, (uint16_t)id), OK);
        assert_int_equal(outer_ecn_in(CE, packet), OUTER_ECN_USUAL);
        assert_int_equal(header_sum(packet), 0xffff);
        assert_memory_equal(packet, whole, OUTER_IPV4);
    }
}

/* -- the header as we write it -- */

static void an_ipv4_header_is_complete(void **state)
{
    (void)state;
    /* The one that textbooks compute a checksum of, with another protocol and DSCP. */
    static const uint8_t expected[OUTER_IPV4] = {0x45, 0xb9, 0x00, 0x73, 0xbe, 0xef, 0x40, 0x00, 0x40, 0x32,
                                                 0xf8, 0x97, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7};
    uint8_t room[OUTER_IPV4];
    struct writer w = writer_of(room, sizeof room);
    struct outer o = {.tos = 0xb9, .df = true};
    struct ip from = ip("192.168.0.1"), to = ip("192.168.0.199");
    assert_int_equal(outer_put(&w, &o, &from, &to, ESP, 0x73 - OUTER_IPV4, 0xbeef), OK);
    assert_int_equal(writer_len(&w), outer_len(4));
    assert_memory_equal(room, expected, sizeof expected);
}

static void an_ipv6_header_is_complete(void **state)
{
    (void)state;
    static const uint8_t expected[OUTER_IPV6] = {
        0x6b, 0x9a, 0xbc, 0xde, 0x05, 0x00, 0x32, 0x07,                            /* to the hop limit */
        0x20, 0x01, 0x0d, 0xb8, 0,    0,    0,    0,    0, 0, 0, 0, 0, 0, 0, 0x01, /* from */
        0x20, 0x01, 0x0d, 0xb8, 0,    0,    0,    0,    0, 0, 0, 0, 0, 0, 0, 0x02, /* to */
    };
    uint8_t room[OUTER_IPV6];
    struct writer w = writer_of(room, sizeof room);
    struct outer o = {.tos = 0xb9, .df = true, .ttl = 7, .flow = 0xabcde};
    struct ip from = ip("2001:db8::1"), to = ip("2001:db8::2");
    assert_int_equal(outer_put(&w, &o, &from, &to, ESP, 0x500, 0xbeef), OK);
    assert_int_equal(writer_len(&w), outer_len(6));
    assert_memory_equal(room, expected, sizeof expected);
}

/* Summed up with its own checksum a header gives all ones, whatever the carries. */
static void every_ipv4_checksum_is_right(void **state)
{
    (void)state;
    struct ip from = ip("255.255.255.254"), to = ip("255.255.255.253");
    for (uint32_t id = 0; id <= UINT16_MAX; id++) {
        uint8_t room[OUTER_IPV4];
        struct writer w = writer_of(room, sizeof room);
        struct outer o = {.tos = (uint8_t)id, .ttl = 255, .df = id & 1};
        assert_int_equal(outer_put(&w, &o, &from, &to, ESP, (uint16_t)(id - OUTER_IPV4) % 65000, (uint16_t)id), OK);
        assert_int_equal(header_sum(room), 0xffff);
    }
}

static void without_df_no_fragment_bit_is_set(void **state)
{
    (void)state;
    uint8_t room[OUTER_IPV4];
    struct writer w = writer_of(room, sizeof room);
    struct outer o = {.tos = 0};
    struct ip any = ip("10.0.0.1");
    assert_int_equal(outer_put(&w, &o, &any, &any, ESP, 100, 1), OK);
    assert_int_equal(get_be16(room + 6), 0); /* neither DF nor MF, offset 0 */
    assert_int_equal(room[8], OUTER_TTL);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    uint8_t room[OUTER_IPV6];
    struct outer o = {.tos = 0};
    struct ip from4 = ip("10.0.0.1"), from6 = ip("2001:db8::1");
    struct writer w = writer_of(room, OUTER_IPV4);
    assert_int_equal(outer_put(&w, &o, &from4, &from4, ESP, UINT16_MAX - OUTER_IPV4 + 1, 1), ERR_RANGE);
    assert_int_equal(outer_put(&w, &o, &from4, &from4, ESP, UINT16_MAX - OUTER_IPV4, 1), OK);
    w = writer_of(room, OUTER_IPV4 - 1);
    assert_int_equal(outer_put(&w, &o, &from4, &from4, ESP, 1, 1), ERR_FULL);
    w = writer_of(room, OUTER_IPV6);
    assert_int_equal(outer_put(&w, &o, &from6, &from6, ESP, UINT16_MAX + 1, 1), ERR_RANGE);
    assert_int_equal(outer_put(&w, &o, &from6, &from6, ESP, UINT16_MAX, 1), OK);
    w = writer_of(room, OUTER_IPV6 - 1);
    assert_int_equal(outer_put(&w, &o, &from6, &from6, ESP, 1, 1), ERR_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dscp_is_copied_or_mapped_by_the_rule),
        cmocka_unit_test(ecn_is_copied_or_cleared_outward),
        cmocka_unit_test(df_is_copied_set_or_cleared),
        cmocka_unit_test(ttl_and_flow_label_are_no_copies),
        cmocka_unit_test(transport_mode_keeps_the_packets_own_header),
        cmocka_unit_test(dummies_look_like_ordinary_packets),
        cmocka_unit_test(what_a_socket_is_told_parts_a_segmented_send),
        cmocka_unit_test(ecn_of_all_combinations_follows_rfc_6040),
        cmocka_unit_test(inner_checksum_is_right_after_every_change),
        cmocka_unit_test(an_ipv4_header_is_complete),
        cmocka_unit_test(an_ipv6_header_is_complete),
        cmocka_unit_test(every_ipv4_checksum_is_right),
        cmocka_unit_test(without_df_no_fragment_bit_is_set),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
