/* NAT detection (RFC 7296 section 2.23) and cookies (section 2.6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "crypto/random.h"
#include "crypto/secret.h"
#include "ike/nat.h"

#define SPI_I UINT64_C(0x0102030405060708)
#define SPI_R UINT64_C(0x1112131415161718)

static struct endpoint endpoint(const char *ip, uint16_t port)
{
    struct endpoint e = {.port = port};
    assert_int_equal(ip_parse(ip, &e.ip), OK);
    return e;
}

/* Expected values: hashlib.sha1(spi_i + spi_r + ipaddress.ip_address(text).packed + port.to_bytes(2, "big")). */
static void hash_is_sha1_over_spis_address_and_port(void **state)
{
    (void)state;
    static const uint8_t v4[] = {0xd7, 0x98, 0xd9, 0x86, 0x14, 0x3f, 0x87, 0x8f, 0x70, 0x76,
                                 0x5e, 0x0e, 0x86, 0x9c, 0x80, 0xbb, 0xc3, 0x75, 0xf7, 0x01},
                         v6[] = {0x98, 0xc7, 0x54, 0x83, 0xdb, 0x80, 0x16, 0x86, 0x97, 0x63,
                                 0x5a, 0xa7, 0x84, 0x45, 0x04, 0x96, 0x3e, 0x87, 0xde, 0x33};
    uint8_t out[NAT_HASH_LEN];
    struct endpoint e = endpoint("192.0.2.1", 500);
    nat_hash(SPI_I, SPI_R, &e, out);
    assert_memory_equal(out, v4, sizeof out);
    e = endpoint("2001:db8::1", 4500);
    nat_hash(SPI_I, 0, &e, out);
    assert_memory_equal(out, v6, sizeof out);
}

/* -- detection: a message as it arrives on path, with the hashes its sender wrote -- */

static struct ike_message message;
static uint8_t hashes[8][NAT_HASH_LEN];

static void start_message(void)
{
    memset(&message, 0, sizeof message);
    message.h.spi_i = SPI_I;
    message.h.spi_r = SPI_R;
}

static void say(uint16_t type, const char *ip, uint16_t port)
{
    struct endpoint e = endpoint(ip, port);
    uint8_t *hash = hashes[message.notifies];
    nat_hash(SPI_I, SPI_R, &e, hash);
    message.notify[message.notifies++] = (struct ike_notify){.type = type, .data = span_of(hash, NAT_HASH_LEN)};
}

static void expect(bool supported, bool local, bool remote)
{
    struct path path = {.local = endpoint("192.0.2.1", 500), .remote = endpoint("198.51.100.7", 500)};
    bool s, l, r;
    nat_detect(&message, &path, &s, &l, &r);
    assert_int_equal(s, supported);
    assert_int_equal(l, local);
    assert_int_equal(r, remote);
}

static void true_hashes_mean_no_nat(void **state)
{
    (void)state;
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "198.51.100.7", 500);
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "192.0.2.1", 500);
    expect(true, false, false);
}

static void other_source_means_the_peer_is_behind_a_nat(void **state)
{
    (void)state;
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "10.0.0.7", 500);
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "192.0.2.1", 500);
    expect(true, false, true);
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "198.51.100.7", 501); /* the port alone */
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "192.0.2.1", 500);
    expect(true, false, true);
}

static void other_destination_means_we_are_behind_a_nat(void **state)
{
    (void)state;
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "198.51.100.7", 500);
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "203.0.113.9", 500);
    expect(true, true, false);
}

static void one_of_several_sources_suffices(void **state)
{
    (void)state;
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "10.0.0.7", 500);
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "198.51.100.7", 500);
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "10.9.9.9", 500);
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "192.0.2.1", 500);
    expect(true, false, false);
}

static void absent_or_misshapen_hashes(void **state)
{
    (void)state;
    start_message();
    say(NOTIFY_COOKIE, "198.51.100.7", 500);
    expect(false, false, false);
    start_message();
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "192.0.2.1", 500); /* the source is not told: nothing known of it */
    expect(true, false, false);
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "198.51.100.7", 500);
    message.notify[0].data.len = 19;
    expect(true, false, true);
    message.notify[0].data = span_of(NULL, 0);
    expect(true, false, true);
}

static void spis_of_the_message_are_part_of_the_hash(void **state)
{
    (void)state;
    start_message();
    say(NOTIFY_NAT_DETECTION_SOURCE_IP, "198.51.100.7", 500);
    say(NOTIFY_NAT_DETECTION_DESTINATION_IP, "192.0.2.1", 500);
    message.h.spi_r = 0;
    expect(true, true, true);
}

/* -- cookies -- */

#define NOW (UINT64_C(1000) * NS_PER_S)

struct cookies {
    struct random_seeded seed;
    struct random_source rnd;
    struct cookie_jar jar;
    struct endpoint peer;
    struct span nonce;
    uint8_t cookie[COOKIE_LEN];
};

static struct cookies *fresh_cookie(void)
{
    static struct cookies c;
    c.rnd = random_seeded_source(&c.seed, 42);
    c.peer = endpoint("198.51.100.7", 500);
    c.nonce = span_of("0123456789abcdef", 16);
    cookie_init(&c.jar, &c.rnd, NOW);
    cookie_make(&c.jar, &c.rnd, NOW, SPI_I, &c.peer, c.nonce, c.cookie);
    return &c;
}

static bool valid_at(struct cookies *c, uint64_t now)
{
    return cookie_valid(&c->jar, &c->rnd, now, SPI_I, &c->peer, c->nonce, span_of(c->cookie, COOKIE_LEN));
}

static bool valid(struct cookies *c)
{
    return valid_at(c, NOW);
}

static void cookie_is_valid_for_what_it_was_made_for_alone(void **state)
{
    (void)state;
    struct cookies *c = fresh_cookie();
    struct span cookie = span_of(c->cookie, COOKIE_LEN);
    assert_true(valid(c));
    struct endpoint other = endpoint("198.51.100.8", 500), port = endpoint("198.51.100.7", 501);
    assert_false(cookie_valid(&c->jar, &c->rnd, NOW, SPI_I, &other, c->nonce, cookie));
    assert_true(cookie_valid(&c->jar, &c->rnd, NOW, SPI_I, &port, c->nonce, cookie)); /* a NAT may map the retry anew */
    assert_false(cookie_valid(&c->jar, &c->rnd, NOW, SPI_I + 1, &c->peer, c->nonce, cookie));
    assert_false(cookie_valid(&c->jar, &c->rnd, NOW, SPI_I, &c->peer, span_of("0123456789abcdeF", 16), cookie));
    assert_false(cookie_valid(&c->jar, &c->rnd, NOW, SPI_I, &c->peer, span_of("0123456789abcde", 15), cookie));
}

static void cookie_with_any_flipped_bit_or_other_length_is_invalid(void **state)
{
    (void)state;
    struct cookies *c = fresh_cookie();
    for (unsigned bit = 0; bit < 8 * COOKIE_LEN; bit++) {
        c->cookie[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(valid(c));
        c->cookie[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    uint8_t longer[65] = {0};
    memcpy(longer, c->cookie, COOKIE_LEN);
    for (size_t len = 0; len <= sizeof longer; len++)
        assert_int_equal(cookie_valid(&c->jar, &c->rnd, NOW, SPI_I, &c->peer, c->nonce, span_of(longer, len)),
                         len == COOKIE_LEN);
}

static void secret_rotates_and_the_one_before_still_counts(void **state)
{
    (void)state;
    struct cookies *c = fresh_cookie();
    uint8_t later[COOKIE_LEN];
    cookie_make(&c->jar, &c->rnd, NOW + 59 * NS_PER_S, SPI_I, &c->peer, c->nonce, later);
    assert_memory_equal(later, c->cookie, COOKIE_LEN);
    cookie_make(&c->jar, &c->rnd, NOW + 60 * NS_PER_S, SPI_I, &c->peer, c->nonce, later);
    assert_int_equal(later[0], (uint8_t)(c->cookie[0] + 1));
    assert_memory_not_equal(later + 1, c->cookie + 1, COOKIE_LEN - 1);
    assert_true(valid_at(c, NOW + 60 * NS_PER_S));
    assert_true(
        cookie_valid(&c->jar, &c->rnd, NOW + 60 * NS_PER_S, SPI_I, &c->peer, c->nonce, span_of(later, COOKIE_LEN)));
    cookie_make(&c->jar, &c->rnd, NOW + 120 * NS_PER_S, SPI_I, &c->peer, c->nonce, later);
    assert_false(valid_at(c, NOW + 120 * NS_PER_S));
    for (unsigned i = 0; i < 600; i++) { /* the version byte wraps */
        uint64_t now = NOW + (180 + 60 * (uint64_t)i) * NS_PER_S;
        cookie_make(&c->jar, &c->rnd, now, SPI_I, &c->peer, c->nonce, later);
        assert_true(cookie_valid(&c->jar, &c->rnd, now, SPI_I, &c->peer, c->nonce, span_of(later, COOKIE_LEN)));
        assert_false(valid_at(c, now));
    }
}

/* Cookies are asked for under load only: what was given out at the end of one flood must not open the next. */
static void cookie_grows_old_though_nobody_asks_for_another(void **state)
{
    (void)state;
    struct cookies *c = fresh_cookie();
    uint8_t later[COOKIE_LEN];
    assert_true(valid_at(c, NOW + 119 * NS_PER_S));
    c = fresh_cookie();
    assert_false(valid_at(c, NOW + 120 * NS_PER_S));
    c = fresh_cookie();
    cookie_make(&c->jar, &c->rnd, NOW + 3600 * NS_PER_S, SPI_I, &c->peer, c->nonce, later);
    assert_false(valid_at(c, NOW + 3600 * NS_PER_S));
}

static void another_jar_does_not_accept_it(void **state)
{
    (void)state;
    struct cookies *c = fresh_cookie();
    cookie_init(&c->jar, &c->rnd, NOW);
    assert_false(valid(c));
}

static int start_crypto(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_is_sha1_over_spis_address_and_port),
        cmocka_unit_test(true_hashes_mean_no_nat),
        cmocka_unit_test(other_source_means_the_peer_is_behind_a_nat),
        cmocka_unit_test(other_destination_means_we_are_behind_a_nat),
        cmocka_unit_test(one_of_several_sources_suffices),
        cmocka_unit_test(absent_or_misshapen_hashes),
        cmocka_unit_test(spis_of_the_message_are_part_of_the_hash),
        cmocka_unit_test(cookie_is_valid_for_what_it_was_made_for_alone),
        cmocka_unit_test(cookie_with_any_flipped_bit_or_other_length_is_invalid),
        cmocka_unit_test(secret_rotates_and_the_one_before_still_counts),
        cmocka_unit_test(cookie_grows_old_though_nobody_asks_for_another),
        cmocka_unit_test(another_jar_does_not_accept_it),
    };
    return cmocka_run_group_tests(tests, start_crypto, NULL);
}
