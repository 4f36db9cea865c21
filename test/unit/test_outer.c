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
        uint32_t sum = 0;
        for (unsigned i = 0; i < OUTER_IPV4; i += 2)
            sum += get_be16(room + i);
        while (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
        assert_int_equal(sum, 0xffff);
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
        cmocka_unit_test(an_ipv4_header_is_complete),   cmocka_unit_test(an_ipv6_header_is_complete),
        cmocka_unit_test(every_ipv4_checksum_is_right), cmocka_unit_test(without_df_no_fragment_bit_is_set),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
