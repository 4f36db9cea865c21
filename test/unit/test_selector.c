/* Traffic selectors, and the flow that a packet shows (policy/selector.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "policy/selector.h"

static struct selector selector(const char *text)
{
    struct selector s;
    assert_int_equal(selector_parse(text, &s), OK);
    return s;
}

static struct selectors selectors(const char *text)
{
    struct selectors s;
    assert_int_equal(selectors_parse(text, &s, NULL, 0), OK);
    return s;
}

static void selectors_parse_and_format(void **state)
{
    (void)state;
    static const char *const same[] = {"10.1.0.0/24",
                                       "::/0[udp]",
                                       "10.1.0.5/32[tcp/443]",
                                       "10.0.0.1-10.0.0.9[icmp/8]",
                                       "0.0.0.0/0[icmp/8(0)]",
                                       "0.0.0.0/0[icmp/3(0-4)]",
                                       "0.0.0.0/0[icmp/3-4]",
                                       "0.0.0.0/0[icmp/3(1)-4(2)]",
                                       "::/0[icmpv6/128]",
                                       "::/0[mh/5]",
                                       "::/0[mh/5-7]",
                                       "10.0.0.0/8[tcp/1000-2000]",
                                       "10.0.0.0/8[esp]",
                                       "10.0.0.0/8[99]",
                                       "10.0.0.0/8[udp/opaque]",
                                       "10.0.0.0/8[sctp/0]",
                                       "10.0.0.0/8[any/opaque]"};
    static const char *const other[][2] = {{"10.1.0.5", "10.1.0.5/32"},
                                           {"10.1.0.5/24[TCP/80-80]", "10.1.0.0/24[tcp/80]"},
                                           {"10.0.0.0/8[6/0-65535]", "10.0.0.0/8[tcp]"},
                                           {"10.0.0.0/8[any]", "10.0.0.0/8"},
                                           {"10.0.0.0/8[tcp/any]", "10.0.0.0/8[tcp]"},
                                           {"10.0.0.0-10.255.255.255", "10.0.0.0/8"},
                                           {"0.0.0.0/0[icmp/8(0-255)]", "0.0.0.0/0[icmp/8]"}};
    char text[SELECTOR_TEXT];
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        struct selector s = selector(same[i]);
        assert_string_equal(selector_format(&s, text), same[i]);
    }
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        struct selector s = selector(other[i][0]);
        assert_string_equal(selector_format(&s, text), other[i][1]);
    }
}

static void wrong_selectors_are_refused(void **state)
{
    (void)state;
    static const char *const syntax[] = {"",
                                         "10.0.0.0/8[",
                                         "10.0.0.0/8]",
                                         "10.0.0.0/8[]",
                                         "10.0.0.0/8[tcp",
                                         "[tcp]",
                                         "10.0.0.0/8[tcp/]",
                                         "10.0.0.0/8[tcp/x]",
                                         "10.0.0.0/8[tcp/1-]",
                                         "10.0.0.0/8[tcp/1-2-3]",
                                         "10.0.0.0/8[tpc/1]",
                                         "10.0.0.0/8[gre/1]",
                                         "10.0.0.0/8[any/1]",
                                         "10.0.0.1-",
                                         "-10.0.0.1",
                                         "10.0.0.1-::1",
                                         "10.0.0.0/8-10.0.0.9",
                                         "10.0.0.0/8[icmp/8(]",
                                         "10.0.0.0/8[icmp/8()]",
                                         "10.0.0.0/8[tcp/1] x"};
    static const char *const range[] = {
        "10.0.0.0/33",     "10.0.0.9-10.0.0.1",    "10.0.0.0/8[tcp/65536]",   "10.0.0.0/8[tcp/2-1]",
        "10.0.0.0/8[256]", "10.0.0.0/8[icmp/256]", "10.0.0.0/8[icmp/3(4-1)]", "10.0.0.0/8[tcp/99999999999]"};
    struct selector s;
    for (size_t i = 0; i < sizeof(syntax) / sizeof(syntax[0]); i++)
        if (selector_parse(syntax[i], &s) != ERR_SYNTAX)
            fail_msg("%s", syntax[i]);
    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++)
        if (selector_parse(range[i], &s) != ERR_RANGE)
            fail_msg("%s", range[i]);
}

static void icmp_types_are_the_high_byte(void **state)
{
    (void)state;
    struct selector s = selector("0.0.0.0/0[icmp/8]"); /* RFC 7296 section 3.13.1 */
    assert_int_equal(s.port_first, 0x0800);
    assert_int_equal(s.port_last, 0x08ff);
    s = selector("::/0[mh/5]"); /* low bits zero */
    assert_int_equal(s.port_first, 0x0500);
    assert_int_equal(s.port_last, 0x0500);
    s = selector("0.0.0.0/0[udp/opaque]");
    assert_int_equal(s.port_first, 65535);
    assert_int_equal(s.port_last, 0);
}

static void lists_name_the_wrong_item(void **state)
{
    (void)state;
    char at[SELECTOR_TEXT] = "", text[200], many[SELECTORS_MAX * 9 + 40] = "";
    struct selectors s = selectors(" 10.1.0.0/24 ,10.2.0.0/24[tcp] , ::/0");
    assert_int_equal(s.n, 3);
    assert_string_equal(selectors_format(&s, text, sizeof(text)), "10.1.0.0/24, 10.2.0.0/24[tcp], ::/0");
    assert_int_equal(selectors_parse("10.1.0.0/24, 10.2.0/24", &s, at, sizeof(at)), ERR_SYNTAX);
    assert_string_equal(at, "10.2.0/24");
    assert_int_equal(selectors_parse("10.1.0.0/24,", &s, at, sizeof(at)), ERR_SYNTAX);
    assert_string_equal(at, "");
    assert_int_equal(s.n, 3); /* untouched */
    for (int i = 0; i <= SELECTORS_MAX; i++)
        strcat(many, i ? ",10.1.1.1" : "10.1.1.1");
    assert_int_equal(selectors_parse(many, &s, at, sizeof(at)), ERR_FULL);
    many[strlen(many) - 9] = '\0';
    assert_int_equal(selectors_parse(many, &s, at, sizeof(at)), OK);
    assert_int_equal(s.n, SELECTORS_MAX);
}

static void long_lists_are_cut_with_dots(void **state)
{
    (void)state;
    struct selectors s = selectors("10.1.0.0/24, 10.2.0.0/24");
    char text[64];
    for (size_t size = 1; size < sizeof(text); size++) {
        memset(text, 'x', sizeof(text));
        selectors_format(&s, text, size);
        assert_true(strlen(text) < size);
    }
    assert_string_equal(selectors_format(&s, text, 25), "10.1.0.0/24, 10.2.0.0/24");
    assert_string_equal(selectors_format(&s, text, 24), "10.1.0.0/24…");
    assert_string_equal(selectors_format(&s, text, 4), "…");
}

static void unknown_ports_match_only_any_and_opaque(void **state)
{
    (void)state;
    struct selector any = selector("10.0.0.0/8[udp]"), one = selector("10.0.0.0/8[udp/0]");
    struct selector opaque = selector("10.0.0.0/8[udp/opaque]");
    struct ip ip = any.range.first;
    assert_true(selector_matches(&any, &ip, 17, 0, false));
    assert_false(selector_matches(&one, &ip, 17, 0, false)); /* RFC 4301 section 4.4.1.1 */
    assert_true(selector_matches(&one, &ip, 17, 0, true));
    assert_true(selector_matches(&opaque, &ip, 17, 0, false));
    assert_false(selector_matches(&opaque, &ip, 17, 0, true));
    assert_false(selector_matches(&any, &ip, 6, 0, true));
}

static void any_includes_opaque_when_narrowing(void **state)
{
    (void)state;
    struct selector any = selector("10.0.0.0/8[udp]"), opaque = selector("10.0.0.0/8[udp/opaque]"), out;
    struct selector some = selector("10.0.0.0/8[udp/5-9]"), all = selector("0.0.0.0/0");
    assert_true(selector_within(&opaque, &any));
    assert_false(selector_within(&any, &opaque));
    assert_false(selector_within(&some, &opaque));
    assert_false(selector_within(&opaque, &some));
    assert_false(selector_within(&any, &some));
    assert_true(selector_within(&some, &all));
    assert_false(selector_within(&all, &some));
    assert_true(selector_intersect(&any, &opaque, &out));
    assert_true(selector_equal(&out, &opaque));
    assert_true(selector_intersect(&opaque, &any, &out));
    assert_true(selector_equal(&out, &opaque));
    assert_false(selector_intersect(&some, &opaque, &out));
}

static void intersections_are_the_common_part(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"10.0.0.0/8", "10.1.0.0/16[tcp/80]", "10.1.0.0/16[tcp/80]"},
        {"10.0.0.0/8[tcp/1-100]", "0.0.0.0/0[tcp/50-200]", "10.0.0.0/8[tcp/50-100]"},
        {"10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.20[udp]", "10.0.0.5-10.0.0.9[udp]"},
        {"10.0.0.0/8[tcp]", "10.0.0.0/8[udp]", NULL},
        {"10.0.0.0/8[tcp/1-5]", "10.0.0.0/8[tcp/6-9]", NULL},
        {"10.0.0.0/8", "::/0", NULL},
        {"10.0.0.0/8", "11.0.0.0/8", NULL},
    };
    char text[SELECTOR_TEXT];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct selector a = selector(rows[i][0]), b = selector(rows[i][1]), out;
        assert_int_equal(selector_intersect(&a, &b, &out), rows[i][2] != NULL);
        assert_int_equal(selector_intersect(&b, &a, &out), rows[i][2] != NULL);
        if (rows[i][2])
            assert_string_equal(selector_format(&out, text), rows[i][2]);
        if (rows[i][2])
            assert_true(selector_within(&out, &a) && selector_within(&out, &b));
    }
}

static struct flow flow(const char *src, const char *dst, uint8_t proto, uint16_t sport, uint16_t dport)
{
    struct flow f = {.proto = proto, .src_port = sport, .dst_port = dport, .ports_known = true};
    assert_int_equal(ip_parse(src, &f.src), OK);
    assert_int_equal(ip_parse(dst, &f.dst), OK);
    return f;
}

static void directions_swap_the_sides(void **state)
{
    (void)state;
    struct selectors local = selectors("10.1.0.0/24[tcp]"), remote = selectors("10.2.0.0/24[tcp/443], 10.3.0.0/24");
    struct flow out = flow("10.1.0.1", "10.2.0.1", 6, 50000, 443), in = flow("10.2.0.1", "10.1.0.1", 6, 443, 50000);
    assert_true(selectors_match_out(&local, &remote, &out));
    assert_false(selectors_match_in(&local, &remote, &out));
    assert_true(selectors_match_in(&local, &remote, &in));
    out.dst_port = 444;
    assert_false(selectors_match_out(&local, &remote, &out));
    out = flow("10.1.0.1", "10.3.0.1", 17, 1, 1);
    assert_false(selectors_match_out(&local, &remote, &out)); /* local says TCP */
}

static void icmp_is_held_against_the_sender(void **state)
{
    (void)state;
    /* RFC 4301 section 4.4.1.3: we may ping them and get the answer, they may not ping us. */
    struct selectors local = selectors("10.1.0.0/24[icmp/8]"), remote = selectors("10.2.0.0/24[icmp/0]");
    struct selectors nothing = selectors("10.2.0.0/24[icmp/opaque]");
    struct flow ping = flow("10.1.0.1", "10.2.0.1", 1, 0x0800, 0x0800);
    struct flow pong = flow("10.2.0.1", "10.1.0.1", 1, 0x0000, 0x0000);
    struct flow pinged = flow("10.2.0.1", "10.1.0.1", 1, 0x0800, 0x0800);
    assert_true(selectors_match_out(&local, &remote, &ping));
    assert_true(selectors_match_in(&local, &remote, &pong));
    assert_false(selectors_match_in(&local, &remote, &pinged));
    assert_true(selectors_match_out(&local, &nothing, &ping));
    assert_false(selectors_match_in(&local, &nothing, &pong));
    ping.ports_known = false; /* a fragment */
    assert_false(selectors_match_out(&local, &remote, &ping));
}

/* -- flow_of -- */

static const uint8_t tcp4[] = {0x45, 0xb8, 0, 24, 0,  0, 0, 0, 64,   6,    0, 0,
                               10,   1,    0, 1,  10, 2, 0, 2, 0xc3, 0x50, 1, 187};

static void ipv4_flows_are_read(void **state)
{
    (void)state;
    struct flow f;
    uint8_t p[64];
    assert_int_equal(flow_of(span_of(tcp4, sizeof(tcp4)), &f), OK);
    assert_int_equal(f.src.b[3], 1);
    assert_int_equal(f.dst.b[1], 2);
    assert_int_equal(f.src_port, 50000);
    assert_int_equal(f.dst_port, 443);
    assert_int_equal(f.dscp_ecn, 0xb8);
    assert_int_equal(f.header_len, 20);
    assert_int_equal(f.packet_len, 24);
    assert_true(f.ports_known);
    memcpy(p, tcp4, 24);
    p[6] = 0x20; /* more fragments, offset 0: the ports are there */
    assert_int_equal(flow_of(span_of(p, 24), &f), OK);
    assert_true(f.ports_known);
    p[7] = 1; /* not the first */
    assert_int_equal(flow_of(span_of(p, 24), &f), OK);
    assert_false(f.ports_known);
    assert_int_equal(f.dst_port, 0);
    p[6] = p[7] = 0;
    p[9] = 1; /* ICMP */
    assert_int_equal(flow_of(span_of(p, 24), &f), OK);
    assert_int_equal(f.src_port, 0xc350);
    assert_int_equal(f.dst_port, 0xc350);
    p[9] = 50; /* ESP has no ports */
    assert_int_equal(flow_of(span_of(p, 24), &f), OK);
    assert_false(f.ports_known);
}

static void ipv4_options_are_walked(void **state)
{
    (void)state;
    struct flow f;
    uint8_t p[32] = {0};
    memcpy(p, tcp4, 20);
    memcpy(p + 28, tcp4 + 20, 4);
    p[0] = 0x47;
    p[3] = 32;
    assert_int_equal(flow_of(span_of(p, 32), &f), OK);
    assert_int_equal(f.header_len, 28);
    assert_int_equal(f.dst_port, 443);
}

static void bad_ipv4_is_refused(void **state)
{
    (void)state;
    struct flow f;
    uint8_t p[64];
    for (size_t n = 0; n < sizeof(tcp4); n++)
        assert_int_equal(flow_of(span_of(tcp4, n), &f), ERR_TRUNCATED);
    memcpy(p, tcp4, 24);
    p[3] = 23; /* the last byte of the ports lies behind the packet's end */
    assert_int_equal(flow_of(span_of(p, 24), &f), ERR_TRUNCATED);
    p[3] = 19;
    assert_int_equal(flow_of(span_of(p, 24), &f), ERR_SYNTAX);
    p[3] = 24;
    p[0] = 0x44;
    assert_int_equal(flow_of(span_of(p, 24), &f), ERR_SYNTAX);
    p[0] = 0x55;
    assert_int_equal(flow_of(span_of(p, 24), &f), ERR_SYNTAX);
    p[0] = 0x45;
    p[2] = p[3] = 0; /* a superpacket larger than the field can say */
    assert_int_equal(flow_of(span_of(p, 24), &f), OK);
    assert_int_equal(f.packet_len, 0);
    p[3] = 200; /* a quotation */
    assert_int_equal(flow_of(span_of(p, 24), &f), OK);
    assert_int_equal(f.packet_len, 200);
}

/* An IPv6 packet with these extension headers (each 8 bytes), then UDP 53 -> 54. Returns its length. */
static size_t build_ipv6(uint8_t *p, const uint8_t *headers, size_t n, uint16_t offset)
{
    memset(p, 0, 40);
    p[0] = 0x60 | 0x0b;
    p[1] = 0x80;
    p[6] = n ? headers[0] : 17;
    p[23] = 1;
    p[39] = 2;
    size_t at = 40;
    for (size_t i = 0; i < n; i++, at += 8) {
        memset(p + at, 0, 8);
        p[at] = i + 1 < n ? headers[i + 1] : 17;
        if (headers[i] == 44)
            put_be16(p + at + 2, offset);
    }
    put_be16(p + at, 53);
    put_be16(p + at + 2, 54);
    memset(p + at + 4, 0, 4);
    put_be16(p + 4, (uint16_t)(at + 8 - 40));
    return at + 8;
}

static void ipv6_extension_headers_are_walked(void **state)
{
    (void)state;
    static const uint8_t all[] = {0, 60, 43, 44, 60}, eight[] = {60, 60, 60, 60, 60, 60, 60, 60},
                         nine[] = {60, 60, 60, 60, 60, 60, 60, 60, 60};
    uint8_t p[256];
    struct flow f;
    size_t len = build_ipv6(p, all, 5, 1); /* M bit alone: the first fragment */
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_int_equal(f.proto, 17);
    assert_int_equal(f.src_port, 53);
    assert_int_equal(f.dst_port, 54);
    assert_int_equal(f.header_len, 80);
    assert_int_equal(f.packet_len, len);
    assert_int_equal(f.dscp_ecn, 0xb8);
    for (size_t n = 0; n < len - 4; n++)
        assert_int_equal(flow_of(span_of(p, n), &f), ERR_TRUNCATED);
    len = build_ipv6(p, eight, 8, 0);
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    len = build_ipv6(p, nine, 9, 0);
    assert_int_equal(flow_of(span_of(p, len), &f), ERR_SYNTAX);
    len = build_ipv6(p, NULL, 0, 0);
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_int_equal(f.header_len, 40);
}

static void ipv6_fragments_hide_their_ports(void **state)
{
    (void)state;
    static const uint8_t fragment[] = {44};
    uint8_t p[256];
    struct flow f;
    size_t len = build_ipv6(p, fragment, 1, 8);
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_int_equal(f.proto, 17);
    assert_false(f.ports_known);
    assert_int_equal(f.src_port, 0);
    assert_int_equal(f.header_len, 48);
    p[40] = 60; /* what follows is the middle of something, not a header */
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_int_equal(f.proto, 60);
    assert_false(f.ports_known);
}

/* RFC 6946: a fragment header around a whole packet makes it none of several. */
static void an_atomic_fragment_is_a_whole_packet(void **state)
{
    (void)state;
    static const uint8_t headers[] = {60, 44, 60};
    uint8_t p[256];
    struct flow f;
    size_t len = build_ipv6(p, headers, 3, 6); /* reserved bits say nothing */
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_false(f.fragment);
    assert_true(f.ports_known && f.dst_port == 54);
    len = build_ipv6(p, headers, 3, 1);
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_true(f.fragment && f.ports_known);
}

static void payloads_show_the_flow_of_their_packet(void **state)
{
    (void)state;
    static const uint8_t headers[] = {60, 43, 44, 60};
    uint8_t p[256];
    struct flow f, whole;
    for (unsigned n = 0; n <= 4; n++)
        for (uint16_t offset = 0; offset <= 8; offset += 8) {
            size_t len = build_ipv6(p, headers, n, offset);
            assert_int_equal(flow_of(span_of(p, len), &whole), OK);
            assert_int_equal(flow_of_payload(&whole.src, &whole.dst, p[6], span_of(p + 40, len - 40), &f), OK);
            whole.packet_len = 0;
            whole.dscp_ecn = 0;
            whole.header_len -= 40;
            assert_memory_equal(&f, &whole, sizeof f);
            for (size_t cut = 0; n < 3 && cut < len - 44; cut++)
                assert_int_equal(flow_of_payload(&whole.src, &whole.dst, p[6], span_of(p + 40, cut), &f),
                                 ERR_TRUNCATED);
        }
    static const uint8_t tcp[] = {0, 80, 1, 0};
    struct ip a, b;
    assert_int_equal(ip_parse("192.0.2.1", &a), OK);
    assert_int_equal(ip_parse("192.0.2.2", &b), OK);
    assert_int_equal(flow_of_payload(&a, &b, 6, span_of(tcp, 4), &f), OK);
    assert_true(f.ports_known && f.src_port == 80 && f.dst_port == 256 && f.proto == 6 && !f.fragment);
    assert_int_equal(flow_of_payload(&a, &b, 60, span_of(tcp, 4), &f), OK); /* no such headers in IPv4 */
    assert_int_equal(f.proto, 60);
}

static void mobility_type_is_the_third_byte(void **state)
{
    (void)state;
    uint8_t p[64];
    struct flow f;
    size_t len = build_ipv6(p, NULL, 0, 0);
    p[6] = 135;
    p[42] = 5;
    assert_int_equal(flow_of(span_of(p, len), &f), OK);
    assert_int_equal(f.src_port, 0x0500);
    assert_true(f.ports_known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selectors_parse_and_format),
        cmocka_unit_test(wrong_selectors_are_refused),
        cmocka_unit_test(icmp_types_are_the_high_byte),
        cmocka_unit_test(lists_name_the_wrong_item),
        cmocka_unit_test(long_lists_are_cut_with_dots),
        cmocka_unit_test(unknown_ports_match_only_any_and_opaque),
        cmocka_unit_test(any_includes_opaque_when_narrowing),
        cmocka_unit_test(intersections_are_the_common_part),
        cmocka_unit_test(directions_swap_the_sides),
        cmocka_unit_test(icmp_is_held_against_the_sender),
        cmocka_unit_test(ipv4_flows_are_read),
        cmocka_unit_test(ipv4_options_are_walked),
        cmocka_unit_test(bad_ipv4_is_refused),
        cmocka_unit_test(ipv6_extension_headers_are_walked),
        cmocka_unit_test(ipv6_fragments_hide_their_ports),
        cmocka_unit_test(an_atomic_fragment_is_a_whole_packet),
        cmocka_unit_test(payloads_show_the_flow_of_their_packet),
        cmocka_unit_test(mobility_type_is_the_third_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
