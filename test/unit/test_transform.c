/* Packet encryption by batches: engines agree, forgeries fail alone, nothing beyond a packet is touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crypto/measure.h"
#include "crypto/secret.h"
#include "test/unit/crypto_vector.h"

#define AAD_LEN 8
#define ROOM 2048  /* of one packet */
#define PACKETS 67 /* sizes 0..1500 in odd steps */
#define STEP 23
#define GUARD 0xa5

static uint8_t key_bytes[128];

/* Packets side by side: plain texts, sealed packets ([aad][iv][text][icv], then guard bytes), opened texts. */
struct traffic {
    struct suite suite;
    uint8_t plain[PACKETS][ROOM], wire[PACKETS][ROOM], opened[PACKETS][ROOM];
    uint8_t implicit[PACKETS][COUNTER_IV];
    struct transform_op seal[PACKETS], open[PACKETS];
};

static struct keyed *keyed(const struct suite *s, enum transform_dir dir, const char *engine)
{
    struct keyed *k = NULL;
    assert_int_equal(
        keyed_new(&k, s, dir, engine, span_of(key_bytes, s->encr_key_len), span_of(key_bytes + 64, s->integ_key_len)),
        OK);
    assert_string_equal(keyed_engine(k), engine);
    return k;
}

/* Every second packet in place; MAC suites get a tail with every third. fixed: this length, else growing ones. */
static struct traffic *traffic_new(const struct suite *s, unsigned fixed)
{
    struct traffic *t = malloc(sizeof *t);
    assert_non_null(t);
    t->suite = *s;
    random_bytes(t->plain, sizeof t->plain);
    random_bytes(t->implicit, sizeof t->implicit);
    memset(t->wire, GUARD, sizeof t->wire);
    memset(t->opened, GUARD, sizeof t->opened);
    for (unsigned i = 0; i < PACKETS; i++) {
        const unsigned size = fixed ? fixed : i * STEP, len = size / s->block * s->block;
        uint8_t *wire = t->wire[i], *text = wire + AAD_LEN + s->iv_len;
        random_bytes(wire, AAD_LEN + s->iv_len);
        t->seal[i] = (struct transform_op){
            .aad = wire,
            .aad_len = AAD_LEN,
            .iv = s->implicit_iv ? t->implicit[i] : wire + AAD_LEN,
            .src = t->plain[i],
            .dst = text,
            .icv = text + len,
            .len = len,
            .tail_len = !s->aead && i % 3 == 0 ? 4 : 0,
            .tail = {1, 2, 3, (uint8_t)i},
        };
        t->open[i] = t->seal[i];
        t->open[i].src = text;
        t->open[i].dst = t->opened[i];
        if (i % 2) {
            memcpy(text, t->plain[i], len);
            t->seal[i].src = text;
            t->open[i].dst = text;
        }
    }
    return t;
}

/* Batches of the sizes first, first + 1, …, at most 64, until all packets are through. */
static void run(struct keyed *k, struct transform_op *ops, enum transform_dir dir, unsigned first)
{
    for (unsigned at = 0, n = first; at < PACKETS; at += n, n++) {
        if (n > TRANSFORM_BATCH)
            n = TRANSFORM_BATCH;
        if (n > PACKETS - at)
            n = PACKETS - at;
        if (dir == TRANSFORM_SEAL)
            assert_int_equal(keyed_seal(k, ops + at, n), OK);
        else
            keyed_open(k, ops + at, n);
    }
}

static void seal_all(struct traffic *t, const char *engine, unsigned first)
{
    struct keyed *k = keyed(&t->suite, TRANSFORM_SEAL, engine);
    run(k, t->seal, TRANSFORM_SEAL, first);
    keyed_free(k);
}

static void open_all(struct traffic *t, const char *engine, unsigned first)
{
    struct keyed *k = keyed(&t->suite, TRANSFORM_OPEN, engine);
    run(k, t->open, TRANSFORM_OPEN, first);
    keyed_free(k);
}

static bool guarded(const uint8_t *p, const uint8_t *end)
{
    while (p < end)
        if (*p++ != GUARD)
            return false;
    return true;
}

/* Calls f for each suite and each pair of engines that have it. */
static void each_pair(void (*f)(const struct suite *s, const char *sealer, const char *opener, unsigned round))
{
    struct suite s;
    const char *a, *b;
    unsigned round = 0;
    for (unsigned i = 0; suite_at(i, &s); i++)
        for (unsigned j = 0; (a = engine_name(j)) != NULL; j++)
            for (unsigned k = 0; engine_has(a, &s) && (b = engine_name(k)) != NULL; k++)
                if (engine_has(b, &s))
                    f(&s, a, b, round++);
}

/* The same for each suite and engine. */
static void each_engine(void (*f)(const struct suite *s, const char *engine))
{
    struct suite s;
    const char *engine;
    for (unsigned i = 0; suite_at(i, &s); i++)
        for (unsigned j = 0; (engine = engine_name(j)) != NULL; j++)
            if (engine_has(engine, &s))
                f(&s, engine);
}

/* -- agreement -- */

static void pair_agrees(const struct suite *s, const char *sealer, const char *opener, unsigned round)
{
    struct traffic *t = traffic_new(s, 0);
    seal_all(t, sealer, 1 + round * 7 % TRANSFORM_BATCH);
    for (unsigned i = 0; i < PACKETS; i++) {
        const struct transform_op *op = &t->seal[i];
        assert_true(guarded(op->icv + s->icv_len, t->wire[i] + ROOM));
        if (s->mode != CIPHER_NULL && s->mode != CIPHER_GMAC && op->len > 16)
            assert_memory_not_equal(op->dst, t->plain[i], op->len);
        if (!s->aead) {
            const struct span parts[] = {{t->wire[i], (size_t)(op->icv - t->wire[i])}, {op->tail, op->tail_len}};
            uint8_t icv[TRANSFORM_ICV_MAX];
            reference_icv(s, span_of(key_bytes + 64, s->integ_key_len), parts, 2, icv);
            assert_memory_equal(icv, op->icv, s->icv_len);
        }
    }
    open_all(t, opener, 1 + round * 11 % TRANSFORM_BATCH);
    for (unsigned i = 0; i < PACKETS; i++) {
        const struct transform_op *op = &t->open[i];
        assert_true(op->ok);
        assert_memory_equal(op->dst, t->plain[i], op->len);
        assert_true(guarded(op->icv + s->icv_len, t->wire[i] + ROOM));
        if (op->dst == t->opened[i])
            assert_true(guarded(op->dst + op->len, t->opened[i] + ROOM));
    }
    free(t);
}

static void every_engine_opens_what_every_other_seals(void **state)
{
    (void)state;
    each_pair(pair_agrees);
}

static void pair_seals_alike(const struct suite *s, const char *sealer, const char *other, unsigned round)
{
    (void)round;
    struct traffic *t = traffic_new(s, 0), *u = malloc(sizeof *u);
    assert_non_null(u);
    seal_all(t, sealer, 64);
    for (unsigned i = 0; i < PACKETS; i++) { /* the same headers, IVs and texts, in another engine's hands */
        struct transform_op *op = &u->seal[i];
        *op = t->seal[i];
        memcpy(u->wire[i], t->wire[i], AAD_LEN + s->iv_len);
        op->aad = u->wire[i];
        op->iv = s->implicit_iv ? t->implicit[i] : u->wire[i] + AAD_LEN;
        op->src = t->plain[i];
        op->dst = u->wire[i] + AAD_LEN + s->iv_len;
        op->icv = op->dst + op->len;
    }
    u->suite = *s;
    seal_all(u, other, 1);
    for (unsigned i = 0; i < PACKETS; i++)
        assert_memory_equal(t->wire[i], u->wire[i], AAD_LEN + s->iv_len + t->seal[i].len + s->icv_len);
    free(t);
    free(u);
}

static void every_engine_seals_to_the_same_bytes(void **state)
{
    (void)state;
    each_pair(pair_seals_alike);
}

/* -- forgeries -- */

static void flip_fails(struct keyed *k, struct transform_op *op, uint8_t *byte)
{
    *byte ^= 0x10;
    keyed_open(k, op, 1);
    assert_false(op->ok);
    *byte ^= 0x10;
}

static void engine_refuses_each_flip(const struct suite *s, const char *engine)
{
    struct traffic *t = traffic_new(s, 48);
    seal_all(t, engine, 64);
    struct keyed *k = keyed(s, TRANSFORM_OPEN, engine);
    struct transform_op *op =
        &t->open[0]; /* out of place: the wire stays as it is; with a tail if the suite takes it */
    for (uint8_t *byte = t->wire[0]; byte < op->icv + s->icv_len; byte++) /* aad, iv, text, icv */
        flip_fails(k, op, byte);
    for (unsigned i = 0; i < op->tail_len; i++)
        flip_fails(k, op, &op->tail[i]);
    for (unsigned i = 0; s->implicit_iv && i < COUNTER_IV; i++)
        flip_fails(k, op, &t->implicit[0][i]);
    keyed_open(k, op, 1);
    assert_true(op->ok);
    assert_memory_equal(op->dst, t->plain[0], op->len);
    keyed_free(k);
    free(t);
}

static void each_flipped_byte_is_refused(void **state)
{
    (void)state;
    each_engine(engine_refuses_each_flip);
}

static bool is_bad(unsigned i)
{
    return i % 5 == 2 || i == 40 || i == 41;
}

static void engine_tells_bad_from_good(const struct suite *s, const char *engine)
{
    struct traffic *t = traffic_new(s, 0);
    seal_all(t, engine, 64);
    for (unsigned i = 0; i < PACKETS; i++)
        if (is_bad(i))
            t->wire[i][i % 3 ? 3 : t->open[i].icv - t->wire[i] + i % s->icv_len] ^= 1;
    open_all(t, engine, 64);
    for (unsigned i = 0; i < PACKETS; i++) {
        const struct transform_op *op = &t->open[i];
        assert_int_equal(op->ok, !is_bad(i));
        if (op->ok)
            assert_memory_equal(op->dst, t->plain[i], op->len);
        else if (!s->aead && op->dst == t->opened[i]) /* nothing is decrypted before the ICV was found right */
            assert_true(guarded(t->opened[i], t->opened[i] + ROOM));
    }
    free(t);
}

static void bad_packets_fail_alone_in_a_batch(void **state)
{
    (void)state;
    each_engine(engine_tells_bad_from_good);
}

static void engine_leaves_wire_alone(const struct suite *s, const char *engine)
{
    struct traffic *t = traffic_new(s, 0);
    seal_all(t, engine, 64);
    t->wire[0][0] ^= 1; /* with a tail, and refused */
    uint8_t(*before)[ROOM] = malloc(sizeof t->wire);
    assert_non_null(before);
    memcpy(before, t->wire, sizeof t->wire);
    open_all(t, engine, 64);
    for (unsigned i = 0; i < PACKETS; i += 2) /* those out of place */
        assert_memory_equal(before[i], t->wire[i], ROOM);
    free(before);
    free(t);
}

static void opening_leaves_the_received_packet_as_it_was(void **state)
{
    (void)state;
    each_engine(engine_leaves_wire_alone);
}

/* Another length, with the ICV that makes it authentic: only its length is wrong. */
static void cut(struct traffic *t, unsigned i, unsigned len)
{
    struct transform_op *op = &t->open[i];
    op->len = len;
    op->icv = t->wire[i] + AAD_LEN + t->suite.iv_len + len;
    const struct span parts[] = {{t->wire[i], (size_t)(op->icv - t->wire[i])}, {op->tail, op->tail_len}};
    reference_icv(&t->suite, span_of(key_bytes + 64, t->suite.integ_key_len), parts, 2, op->icv);
}

static void engine_refuses_partial_blocks(const struct suite *s, const char *engine)
{
    if (s->block == 1)
        return;
    struct traffic *t = traffic_new(s, 64);
    seal_all(t, engine, 64);
    cut(t, 0, 61);
    cut(t, 2, 65);
    cut(t, 3, 1);
    cut(t, 5, 48); /* three whole blocks are none the worse for it */
    cut(t, 9, 63);
    struct keyed *k = keyed(s, TRANSFORM_OPEN, engine);
    keyed_open(k, t->open, 10);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(t->open[i].ok, i != 0 && i != 2 && i != 3 && i != 9);
    keyed_free(k);
    k = keyed(s, TRANSFORM_SEAL, engine);
    t->seal[1].len = 63;
    assert_int_equal(keyed_seal(k, t->seal, 2), ERR_RANGE);
    keyed_free(k);
    free(t);
}

static void texts_of_partial_blocks_fail_alone(void **state)
{
    (void)state;
    each_engine(engine_refuses_partial_blocks);
}

static void engine_limits_aad_of_ccm(const struct suite *s, const char *engine)
{
    if (s->mode != CIPHER_CCM || strcmp(engine, "ipsec-mb") != 0)
        return;
    static uint8_t aad[TRANSFORM_CCM_AAD_MAX + 1];
    struct traffic *t = traffic_new(s, 64);
    for (unsigned i = 0; i < 3; i++) {
        t->seal[i].aad = t->open[i].aad = aad;
        t->seal[i].aad_len = t->open[i].aad_len = TRANSFORM_CCM_AAD_MAX;
    }
    struct keyed *k = keyed(s, TRANSFORM_SEAL, engine);
    assert_int_equal(keyed_seal(k, t->seal, 3), OK);
    t->seal[1].aad_len++;
    assert_int_equal(keyed_seal(k, t->seal, 3), ERR_RANGE);
    keyed_free(k);
    k = keyed(s, TRANSFORM_OPEN, engine);
    t->open[1].aad_len++;
    keyed_open(k, t->open, 3);
    assert_true(t->open[0].ok && !t->open[1].ok && t->open[2].ok);
    keyed_free(k);
    free(t);
}

static void too_much_associated_data_fails_alone(void **state)
{
    (void)state;
    each_engine(engine_limits_aad_of_ccm);
}

/* -- contract -- */

static void suites_that_esp_forbids_are_refused(void **state)
{
    (void)state;
    struct suite s;
    const struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128}, cbc = {TRANSFORM_ENCR, ENCR_AES_CBC, 256},
                           null = {TRANSFORM_ENCR, ENCR_NULL, 0}, des = {TRANSFORM_ENCR, 3, 0},
                           odd = {TRANSFORM_ENCR, ENCR_AES_CBC, 160},
                           sha = {TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128, 0}, md5 = {TRANSFORM_INTEG, 1, 0},
                           none = {TRANSFORM_INTEG, INTEG_NONE, 0};
    assert_int_equal(suite_of(&gcm, &sha, &s), ERR_MISMATCH);
    assert_int_equal(suite_of(&cbc, NULL, &s), ERR_MISMATCH);
    assert_int_equal(suite_of(&cbc, &none, &s), ERR_MISMATCH);
    assert_int_equal(suite_of(&null, NULL, &s), ERR_MISMATCH); /* neither secrecy nor integrity */
    assert_int_equal(suite_of(&des, &sha, &s), ERR_UNSUPPORTED);
    assert_int_equal(suite_of(&odd, &sha, &s), ERR_UNSUPPORTED);
    assert_int_equal(suite_of(&cbc, &md5, &s), ERR_UNSUPPORTED);
    assert_int_equal(suite_of(&sha, &sha, &s), ERR_UNSUPPORTED);
    assert_int_equal(suite_of(&gcm, &none, &s), OK);
    assert_int_equal(s.icv_len, 16);
    assert_int_equal(suite_of(&cbc, &sha, &s), OK);
    assert_int_equal(s.encr_key_len, 32);
    assert_int_equal(s.integ_key_len, 32);
    char text[32];
    assert_string_equal(suite_text(&s, text, sizeof text), "aes256-sha256");
}

static void suites_of_ah_have_a_mac_alone(void **state)
{
    (void)state;
    struct suite s;
    char text[32];
    const struct transform gmac = {TRANSFORM_INTEG, INTEG_AES_192_GMAC, 0}, md5 = {TRANSFORM_INTEG, 1, 0},
                           sha = {TRANSFORM_INTEG, INTEG_HMAC_SHA2_384_192, 0},
                           cbc = {TRANSFORM_ENCR, ENCR_AES_CBC, 256}, null = {TRANSFORM_ENCR, ENCR_NULL, 0};
    assert_int_equal(suite_of_integ(&sha, &s), OK);
    assert_int_equal(s.encr_key_len, 0);
    assert_int_equal(s.integ_key_len, 48);
    assert_int_equal(s.icv_len, 24);
    assert_int_equal(s.iv_len, 0);
    assert_string_equal(suite_text(&s, text, sizeof text), "sha384");
    assert_int_equal(suite_of_integ(&gmac, &s), OK);
    assert_int_equal(s.encr_key_len + s.integ_key_len, 24 + 4); /* RFC 4543 section 5.4 */
    assert_int_equal(s.icv_len, 16);
    assert_int_equal(s.iv_len, 8);
    assert_string_equal(suite_text(&s, text, sizeof text), "aes192gmac");
    assert_int_equal(suite_of_integ(&md5, &s), ERR_UNSUPPORTED);
    assert_int_equal(suite_of_integ(&cbc, &s), ERR_UNSUPPORTED);
    assert_int_equal(suite_of(&null, &gmac, &s), ERR_UNSUPPORTED); /* section 5.3: not with ESP */
    assert_int_equal(suite_of(&cbc, &gmac, &s), ERR_UNSUPPORTED);
}

static void wrong_keys_engines_and_batches_are_refused(void **state)
{
    (void)state;
    struct suite s = suite_by_name("aes128gcm16", NULL), cbc = suite_by_name("aes128", "sha256");
    struct keyed *k = NULL;
    const struct span key = span_of(key_bytes, 20), none = span_of(NULL, 0);
    assert_int_equal(keyed_new(&k, &s, TRANSFORM_SEAL, NULL, span_of(key_bytes, 16), none), ERR_RANGE);
    assert_int_equal(keyed_new(&k, &s, TRANSFORM_SEAL, NULL, key, key), ERR_RANGE);
    assert_int_equal(keyed_new(&k, &s, TRANSFORM_SEAL, "openssl", key, none), ERR_UNSUPPORTED);
    assert_int_equal(keyed_new(&k, &s, TRANSFORM_SEAL, "sodium", key, none), ERR_UNSUPPORTED); /* has no 128 bits */
    assert_int_equal(keyed_new(&k, &cbc, TRANSFORM_SEAL, "auto", span_of(key_bytes, 16), none), ERR_RANGE);
    assert_null(k);

    struct traffic *t = traffic_new(&s, 32);
    assert_int_equal(keyed_new(&k, &s, TRANSFORM_SEAL, "auto", key, none), OK);
    assert_string_equal(keyed_engine(k), engine_for(&s));
    assert_int_equal(keyed_seal(k, t->seal, 0), ERR_RANGE);
    assert_int_equal(keyed_seal(k, t->seal, TRANSFORM_BATCH + 1), ERR_RANGE);
    t->seal[1].tail_len = 4; /* AEADs have it in aad */
    assert_int_equal(keyed_seal(k, t->seal, 2), ERR_RANGE);
    t->open[0].ok = true;
    keyed_open(k, t->open, 1); /* a key for sealing opens nothing */
    assert_false(t->open[0].ok);
    keyed_free(k);
    keyed_free(NULL);
    free(t);
}

static void every_suite_has_an_engine(void **state)
{
    (void)state;
    struct suite s;
    unsigned suites = 0;
    for (unsigned i = 0; suite_at(i, &s); i++, suites++) {
        assert_true(engine_has("mbedtls", &s));
        assert_true(engine_has(engine_for(&s), &s));
    }
    assert_int_equal(suites, 26 + 7 * 6 + 9);
    assert_false(engine_has("openssl", &s));
}

static void *one_thread(void *arg)
{
    const struct suite *s = arg;
    for (unsigned i = 0; i < 20; i++)
        pair_agrees(s, engine_for(s), engine_for(s), i);
    return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct suite suites[] = {suite_by_name("aes128", "sha256"), suite_by_name("aes128", "sha256"),
                             suite_by_name("chacha20poly1305", NULL)};
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_thread, &suites[i]), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void a_forked_child_can_use_every_engine(void **state)
{
    (void)state;
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        each_pair(pair_agrees);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void measure_gives_figures(void **state)
{
    (void)state;
    struct measure m;
    const struct suite s = suite_by_name("aes128", "sha256");
    assert_int_equal(measure_seal("mbedtls", &s, 1400, 2, &m), OK);
    assert_int_equal(m.size, 1408); /* whole blocks */
    assert_string_equal(m.engine, "mbedtls");
    assert_true(m.mb_per_s > 0 && m.ns_per_packet > 0);
    assert_int_equal(measure_seal("sodium", &s, 64, 1, &m), ERR_UNSUPPORTED);
    assert_int_equal(measure_seal("mbedtls", &s, 0, 1, &m), ERR_RANGE);
    assert_int_equal(measure_seal("mbedtls", &s, 1501, 1, &m), ERR_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_engine_opens_what_every_other_seals),
        cmocka_unit_test(every_engine_seals_to_the_same_bytes),
        cmocka_unit_test(each_flipped_byte_is_refused),
        cmocka_unit_test(bad_packets_fail_alone_in_a_batch),
        cmocka_unit_test(opening_leaves_the_received_packet_as_it_was),
        cmocka_unit_test(texts_of_partial_blocks_fail_alone),
        cmocka_unit_test(too_much_associated_data_fails_alone),
        cmocka_unit_test(suites_that_esp_forbids_are_refused),
        cmocka_unit_test(suites_of_ah_have_a_mac_alone),
        cmocka_unit_test(wrong_keys_engines_and_batches_are_refused),
        cmocka_unit_test(every_suite_has_an_engine),
        cmocka_unit_test(threads_do_not_disturb_each_other),
        cmocka_unit_test(a_forked_child_can_use_every_engine),
        cmocka_unit_test(measure_gives_figures),
    };
    if (crypto_init() != OK)
        return 1;
    random_bytes(key_bytes, sizeof key_bytes);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
