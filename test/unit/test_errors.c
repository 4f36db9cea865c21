/* What routers' ICMP errors claim and quote, as raw sockets give them: whole, cut short, and made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tun/errors.h"

static uint8_t message[200];

/* An error about a datagram of ours that carried so many bytes behind its IP header. */
static size_t build(uint8_t family, uint8_t type, uint8_t code, uint32_t rest, uint8_t proto, const void *payload,
                    size_t len)
{
    uint8_t *p = message;
    memset(message, 0, sizeof message);
    if (family == 4) {
        p[0] = 0x46; /* with options: routers may have some */
        p += 24;
    }
    p[0] = type;
    p[1] = code;
    put_be32(p + 4, rest);
    p += 8;
    if (family == 4) {
        p[0] = 0x45;
        p[9] = proto;
        memcpy(p + 12, "\xc0\x00\x02\x01\xc0\x00\x02\x02", 8);
        p += 20;
    } else {
        p[0] = 0x60;
        p[6] = proto;
        p[8] = 0x20;
        p[23] = 1;
        p[24] = 0x20;
        p[39] = 2;
        p += 40;
    }
    memcpy(p, payload, len);
    return (size_t)(p - message) + len;
}

static enum err parse(uint8_t family, size_t len, struct icmp_error *e)
{
    return errors_parse(span_of(message, len), family, e);
}

#define UDP_ESP "\x11\x94\x11\x95\x05\x00\x00\x00\x12\x34\x56\x78\x00\x00\x00\x01"

static void udp_with_an_spi(void **state)
{
    (void)state;
    struct icmp_error e;
    size_t len = build(4, 3, 4, 1280, 17, UDP_ESP, 16);
    assert_int_equal(parse(4, len, &e), OK);
    assert_true(e.too_big && e.esp);
    assert_int_equal(e.mtu, 1280);
    assert_int_equal(e.local.port, 4500);
    assert_int_equal(e.remote.port, 4501);
    assert_int_equal(e.remote.ip.b[3], 2);
    assert_int_equal(e.local.ip.b[3], 1);
    assert_int_equal(e.spi, 0x12345678);
    len = build(6, 2, 0, 70000, 17, UDP_ESP, 16);
    assert_int_equal(parse(6, len, &e), OK);
    assert_true(e.too_big && e.esp);
    assert_int_equal(e.mtu, 70000);
    assert_int_equal(e.remote.ip.b[15], 2);
    assert_int_equal(e.remote.ip.family, 6);
}

static void eight_bytes_of_udp_show_no_spi(void **state)
{
    (void)state;
    struct icmp_error e;
    assert_int_equal(parse(4, build(4, 3, 4, 0, 17, UDP_ESP, 8), &e), OK);
    assert_false(e.esp);
    assert_true(e.too_big);
    assert_int_equal(e.mtu, 0);
    assert_int_equal(parse(4, build(4, 3, 4, 0, 17, UDP_ESP, 7), &e), ERR_TRUNCATED);
    uint8_t ike[16] = {0x11, 0x94, 0x11, 0x94}; /* the zero marker is no SPI */
    assert_int_equal(parse(4, build(4, 3, 4, 0, 17, ike, 16), &e), OK);
    assert_false(e.esp);
}

static void raw_esp_and_ah_are_found_by_their_spi(void **state)
{
    (void)state;
    struct icmp_error e;
    assert_int_equal(parse(4, build(4, 3, 4, 1400, 50, "\x12\x34\x56\x78\x00\x00\x00\x01", 8), &e), OK);
    assert_true(e.esp);
    assert_int_equal(e.spi, 0x12345678);
    assert_int_equal(e.remote.port, 0);
    assert_int_equal(parse(6, build(6, 2, 0, 1400, 51, "\x04\x04\x00\x00\x12\x34\x56\x78", 8), &e), OK);
    assert_int_equal(e.spi, 0x12345678);
    assert_int_equal(parse(4, build(4, 3, 4, 1400, 50, "\x12\x34\x56", 3), &e), ERR_TRUNCATED);
}

static void unreachable_is_another_thing(void **state)
{
    (void)state;
    struct icmp_error e;
    assert_int_equal(parse(4, build(4, 3, 1, 1280, 17, UDP_ESP, 16), &e), OK);
    assert_false(e.too_big);
    assert_int_equal(e.mtu, 0);
    assert_int_equal(parse(6, build(6, 1, 0, 1280, 17, UDP_ESP, 16), &e), OK);
    assert_false(e.too_big);
}

static void everything_else_is_of_no_use(void **state)
{
    (void)state;
    struct icmp_error e;
    size_t len;
    for (unsigned type = 0; type < 256; type++) {
        bool unreachable4 = type == 3, unreachable6 = type == 1, too_big6 = type == 2;
        len = build(4, (uint8_t)type, 0, 0, 17, UDP_ESP, 16);
        assert_int_equal(parse(4, len, &e), unreachable4 ? OK : ERR_UNSUPPORTED);
        len = build(6, (uint8_t)type, 0, 0, 17, UDP_ESP, 16);
        assert_int_equal(parse(6, len, &e), unreachable6 || too_big6 ? OK : ERR_UNSUPPORTED);
    }
    len = build(4, 3, 4, 1280, 6, UDP_ESP, 16); /* TCP of the host's own */
    assert_int_equal(parse(4, len, &e), ERR_UNSUPPORTED);
    len = build(4, 3, 4, 1280, 17, UDP_ESP, 16);
    message[24 + 8 + 7] = 1; /* a later fragment */
    assert_int_equal(parse(4, len, &e), ERR_UNSUPPORTED);
    len = build(4, 3, 4, 1280, 17, UDP_ESP, 16);
    message[24 + 8] = 0x65;
    assert_int_equal(parse(4, len, &e), ERR_SYNTAX);
    for (unsigned family = 4; family <= 6; family += 2) {
        len = build((uint8_t)family, family == 4 ? 3 : 2, family == 4 ? 4 : 0, 1280, 50, UDP_ESP, 4);
        for (size_t cut = 0; cut < len; cut++)
            assert_int_not_equal(parse((uint8_t)family, cut, &e), OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(udp_with_an_spi),
        cmocka_unit_test(eight_bytes_of_udp_show_no_spi),
        cmocka_unit_test(raw_esp_and_ah_are_found_by_their_spi),
        cmocka_unit_test(unreachable_is_another_thing),
        cmocka_unit_test(everything_else_is_of_no_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
