/* Key exchange: known answers (RFC 7748, 5903, 3526), and the values of hostile peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "crypto/kex.h"
#include "test/unit/crypto_vector.h"
#include "test/vectors/kex.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const uint16_t groups[] = {KE_CURVE25519, KE_ECP_256,   KE_ECP_384,  KE_ECP_521,
                                  KE_MODP_2048,  KE_MODP_3072, KE_MODP_4096};

static void known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kex_vectors); i++) {
        const struct kex_vector *v = &kex_vectors[i];
        const uint16_t group = (uint16_t)v->group;
        struct span a = hex(v->initiator), ga = hex(v->initiator_public), b = hex(v->responder),
                    gb = hex(v->responder_public), expected = hex(v->secret);
        struct scripted script_a = {a.data, a.len}, script_b = {b.data, b.len};
        const struct random_source rnd_a = scripted_source(&script_a), rnd_b = scripted_source(&script_b);
        struct kex *k = NULL;
        struct kex_public pub;
        struct kex_secret secret;

        assert_int_equal(kex_offer(group, &rnd_a, &k, &pub), OK);
        assert_true(span_equal(span_of(pub.b, pub.len), ga));
        assert_int_equal(pub.len, algorithm_find(TRANSFORM_KE, group, 0)->out_len);
        assert_int_equal(kex_finish(k, gb, &secret), OK);
        assert_true(span_equal(span_of(secret.b, secret.len), expected));
        assert_int_equal(kex_respond(group, &rnd_b, ga, &pub, &secret), OK);
        assert_true(span_equal(span_of(pub.b, pub.len), gb));
        assert_true(span_equal(span_of(secret.b, secret.len), expected));
        kex_free(k);
        const struct span all[] = {a, ga, b, gb, expected};
        for (size_t j = 0; j < COUNT(all); j++)
            span_free(all[j]);
    }
}

static void both_sides_agree_in_every_group(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(groups); i++) {
        struct kex *k = NULL;
        struct kex_public offer, answer;
        struct kex_secret ours, theirs;
        assert_int_equal(kex_offer(groups[i], &random_system, &k, &offer), OK);
        assert_int_equal(kex_respond(groups[i], &random_system, span_of(offer.b, offer.len), &answer, &theirs), OK);
        assert_int_equal(kex_finish(k, span_of(answer.b, answer.len), &ours), OK);
        assert_int_equal(ours.len, theirs.len);
        assert_memory_equal(ours.b, theirs.b, ours.len);
        kex_free(k);
    }
}

static void a_seeded_source_repeats_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(groups); i++) {
        struct kex_public pub[3];
        for (unsigned j = 0; j < 3; j++) {
            struct random_seeded seeded;
            const struct random_source rnd = random_seeded_source(&seeded, j == 2 ? 8 : 7);
            struct kex *k = NULL;
            assert_int_equal(kex_offer(groups[i], &rnd, &k, &pub[j]), OK);
            kex_free(k);
        }
        assert_memory_equal(pub[0].b, pub[1].b, pub[0].len);
        assert_memory_not_equal(pub[0].b, pub[2].b, pub[0].len);
    }
}

static void values_of_wrong_length_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(groups); i++) {
        struct kex *k = NULL;
        struct kex_public pub, answer;
        struct kex_secret secret;
        uint8_t longer[KEX_PUBLIC_MAX + 1] = {0};
        assert_int_equal(kex_offer(groups[i], &random_system, &k, &pub), OK);
        memcpy(longer, pub.b, pub.len);
        const size_t lengths[] = {0, 1, pub.len - 1u, pub.len + 1u};
        for (size_t j = 0; j < COUNT(lengths); j++) {
            const struct span peer = span_of(longer, lengths[j]);
            assert_int_equal(kex_finish(k, peer, &secret), ERR_RANGE);
            assert_int_equal(kex_respond(groups[i], &random_system, peer, &answer, &secret), ERR_RANGE);
        }
        kex_free(k);
    }
}

static enum err answer_to(uint16_t group, struct span peer)
{
    struct kex_public pub;
    struct kex_secret secret;
    return kex_respond(group, &random_system, peer, &pub, &secret);
}

/* Points of small order give a secret of zeroes (RFC 7748 section 6.1; RFC 8031 section 2.3). */
static void x25519_points_of_small_order_are_refused(void **state)
{
    (void)state;
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", /* p - 1 */
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", /* p */
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", /* p + 1 */
        "0000000000000000000000000000000000000000000000000000000000000080", /* 0 with the unused bit */
    };
    for (size_t i = 0; i < COUNT(points); i++) {
        struct span peer = hex(points[i]);
        assert_int_equal(answer_to(KE_CURVE25519, peer), ERR_AUTH);
        span_free(peer);
    }
}

static void points_off_the_curve_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(kex_vectors); i++) {
        const struct kex_vector *v = &kex_vectors[i];
        const uint16_t group = (uint16_t)v->group;
        if (group < KE_ECP_256 || group > KE_ECP_521)
            continue;
        struct span peer = hex(v->initiator_public);
        uint8_t point[KEX_PUBLIC_MAX];
        assert_int_equal(answer_to(group, peer), OK);
        for (size_t j = 0; j < peer.len; j += 7) {
            memcpy(point, peer.data, peer.len);
            point[j] ^= 1;
            assert_int_equal(answer_to(group, span_of(point, peer.len)), ERR_AUTH);
        }
        memset(point, 0, sizeof point); /* what some would take for the point at infinity */
        assert_int_equal(answer_to(group, span_of(point, peer.len)), ERR_AUTH);
        memset(point, 0xff, sizeof point); /* coordinates above p */
        assert_int_equal(answer_to(group, span_of(point, peer.len)), ERR_AUTH);
        span_free(peer);
    }
}

/* RFC 6989 section 2.1: 1 < y < p - 1. */
static void modp_values_out_of_range_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(prime_vectors); i++) {
        const uint16_t group = (uint16_t)prime_vectors[i].group;
        struct span prime = hex(prime_vectors[i].prime);
        uint8_t y[KEX_PUBLIC_MAX] = {0};
        const size_t last = prime.len - 1;
        const struct span peer = span_of(y, prime.len);
        assert_int_equal(answer_to(group, peer), ERR_AUTH); /* 0 */
        y[last] = 1;
        assert_int_equal(answer_to(group, peer), ERR_AUTH);
        y[last] = 2;
        assert_int_equal(answer_to(group, peer), OK);
        memcpy(y, prime.data, prime.len); /* p: its last byte is ff */
        assert_int_equal(answer_to(group, peer), ERR_AUTH);
        y[last] = 0xfe; /* p - 1 */
        assert_int_equal(answer_to(group, peer), ERR_AUTH);
        y[last] = 0xfd;
        assert_int_equal(answer_to(group, peer), OK);
        memset(y, 0xff, sizeof y);
        assert_int_equal(answer_to(group, peer), ERR_AUTH);
        span_free(prime);
    }
}

/* A secret that begins with zeroes keeps its full length (RFC 7296 section 2.14): sought among many. */
static void secrets_keep_the_length_of_the_group(void **state)
{
    (void)state;
    unsigned padded = 0;
    for (uint64_t seed = 0; seed < 2000 && padded == 0; seed++) {
        struct random_seeded seeded;
        const struct random_source rnd = random_seeded_source(&seeded, seed);
        uint8_t generator[256] = {0};
        struct kex_public pub;
        struct kex_secret secret;
        generator[255] = 2;
        assert_int_equal(kex_respond(KE_MODP_2048, &rnd, span_of(generator, 256), &pub, &secret), OK);
        assert_int_equal(secret.len, 256);
        assert_memory_equal(secret.b, pub.b, 256); /* with 2 as the peer's value they are the same number */
        padded += secret.b[0] == 0;
    }
    assert_int_equal(padded, 1);
}

/* The scalar is drawn again when it isn't in 1..n-1. */
static void private_values_beyond_the_order_are_drawn_again(void **state)
{
    (void)state;
    uint8_t script[3 * 32];
    memset(script, 0xff, 32);   /* above n */
    memset(script + 32, 0, 32); /* zero */
    memset(script + 64, 0x11, 32);
    struct scripted whole = {script, sizeof script}, last = {script + 64, 32};
    const struct random_source rnd_whole = scripted_source(&whole), rnd_last = scripted_source(&last);
    struct kex *k = NULL, *l = NULL;
    struct kex_public a, b;
    assert_int_equal(kex_offer(KE_ECP_256, &rnd_whole, &k, &a), OK);
    assert_int_equal(kex_offer(KE_ECP_256, &rnd_last, &l, &b), OK);
    assert_memory_equal(a.b, b.b, 64);
    kex_free(k);
    kex_free(l);

    struct scripted zeroes = {script, 0}; /* a broken source ends in an error, not in an endless loop */
    const struct random_source rnd_zeroes = scripted_source(&zeroes);
    k = NULL;
    assert_int_equal(kex_offer(KE_ECP_256, &rnd_zeroes, &k, &a), ERR_CRYPTO);
    assert_null(k);
}

static void unknown_groups_are_refused(void **state)
{
    (void)state;
    static const uint16_t unknown[] = {KE_NONE, 1, 2, 5, 17, 22, 24, 32, 36, 65535};
    for (size_t i = 0; i < COUNT(unknown); i++) {
        struct kex *k = NULL;
        struct kex_public pub;
        assert_int_equal(kex_offer(unknown[i], &random_system, &k, &pub), ERR_UNSUPPORTED);
        assert_int_equal(answer_to(unknown[i], span_of(pub.b, 0)), ERR_UNSUPPORTED);
    }
    kex_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(both_sides_agree_in_every_group),
        cmocka_unit_test(a_seeded_source_repeats_itself),
        cmocka_unit_test(values_of_wrong_length_are_refused),
        cmocka_unit_test(x25519_points_of_small_order_are_refused),
        cmocka_unit_test(points_off_the_curve_are_refused),
        cmocka_unit_test(modp_values_out_of_range_are_refused),
        cmocka_unit_test(secrets_keep_the_length_of_the_group),
        cmocka_unit_test(private_values_beyond_the_order_are_drawn_again),
        cmocka_unit_test(unknown_groups_are_refused),
    };
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
