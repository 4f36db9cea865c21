/* Known answers of the RFCs, each through every engine that has the suite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "crypto/prf.h"
#include "crypto/secret.h"
#include "test/unit/crypto_vector.h"
#include "test/vectors/aead.h"
#include "test/vectors/cbc.h"
#include "test/vectors/ctr.h"
#include "test/vectors/hmac.h"
#include "test/vectors/mac.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Through every engine, both ways; and the tag with one bit flipped through none. */
static void through_engines(const char *name, const struct packet_vector *v)
{
    const char *engine;
    unsigned engines = 0;
    for (unsigned i = 0; (engine = engine_name(i)) != NULL; i++) {
        if (!engine_has(engine, &v->suite))
            continue;
        engines++;
        if (!vector_seals(engine, v))
            fail_msg("%s: %s seals it otherwise", name, engine);
        if (!vector_opens(engine, v))
            fail_msg("%s: %s doesn't open it", name, engine);
        uint8_t bad[TRANSFORM_ICV_MAX];
        struct packet_vector forged = *v;
        memcpy(bad, v->icv.data, v->icv.len);
        bad[v->icv.len - 1] ^= 1;
        forged.icv = span_of(bad, v->icv.len);
        if (vector_opens(engine, &forged))
            fail_msg("%s: %s opens it with a wrong ICV", name, engine);
    }
    assert_true(engines > 0);
}

/* A vector of AES-GCM is one for each length of ICV, since RFC 4106 section 6 only cuts the tag. */
static void aead_known_answer(const struct aead_vector *a, size_t icv_len)
{
    struct span key = hex(a->key), nonce = hex(a->nonce), aad = hex(a->aad), plain = hex(a->plain),
                cipher = hex(a->cipher), tag = hex(a->tag);
    uint8_t with_salt[36];
    char keyword[20] = "chacha20poly1305";
    if (!a->chacha)
        snprintf(keyword, sizeof keyword, "aes%zugcm%zu", key.len * 8, icv_len);
    memcpy(with_salt, key.data, key.len);
    memcpy(with_salt + key.len, nonce.data, 4);
    const struct packet_vector v = {
        .suite = suite_by_name(keyword, NULL),
        .key = span_of(with_salt, key.len + 4),
        .iv = span_of(nonce.data + 4, 8),
        .aad = aad,
        .plain = plain,
        .cipher = cipher,
        .icv = span_of(tag.data, icv_len),
    };
    through_engines(a->name, &v);
    const struct span all[] = {key, nonce, aad, plain, cipher, tag};
    for (size_t j = 0; j < COUNT(all); j++)
        span_free(all[j]);
}

static void aead_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(aead_vectors); i++)
        for (size_t icv = aead_vectors[i].chacha ? 16 : 8; icv <= 16; icv += 4)
            aead_known_answer(&aead_vectors[i], icv);
}

/* Ciphers without integrity of their own: each with every MAC. */
static void cipher_known_answer(const char *name, const char *keyword, struct packet_vector v)
{
    static const uint8_t esp[8] = {0, 0, 0x43, 0x21, 0, 0, 0, 1}, integ_key[64] = {1, 2, 3};
    const struct algorithm *integ;
    for (unsigned j = 0; (integ = algorithm_of_type(TRANSFORM_INTEG, j)) != NULL; j++) {
        uint8_t icv[TRANSFORM_ICV_MAX];
        v.suite = suite_by_name(keyword, integ->keyword);
        v.aad = span_of(esp, sizeof esp);
        v.integ_key = span_of(integ_key, v.suite.integ_key_len);
        const struct span parts[] = {v.aad, v.iv, v.cipher};
        reference_icv(&v.suite, v.integ_key, parts, 3, icv);
        v.icv = span_of(icv, v.suite.icv_len);
        through_engines(name, &v);
    }
    span_free(v.key);
    span_free(v.iv);
    span_free(v.plain);
    span_free(v.cipher);
}

static void cbc_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cbc_vectors); i++) {
        const struct cbc_vector *c = &cbc_vectors[i];
        cipher_known_answer(
            c->name, "aes128",
            (struct packet_vector){
                .key = hex(c->key), .iv = hex(c->iv), .plain = hex(c->plain), .cipher = hex(c->cipher)});
    }
}

static void ctr_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ctr_vectors); i++) {
        const struct ctr_vector *c = &ctr_vectors[i];
        char keyword[20];
        snprintf(keyword, sizeof keyword, "aes%zuctr", (strlen(c->key) / 2 - 4) * 8);
        cipher_known_answer(
            c->name, keyword,
            (struct packet_vector){
                .key = hex(c->key), .iv = hex(c->iv), .plain = hex(c->plain), .cipher = hex(c->cipher)});
    }
}

static void check_prf(const char *name, uint16_t id, struct span key, struct span data, const char *expected)
{
    uint8_t out[PRF_MAX];
    struct span e = hex(expected), halves[] = {span_of(data.data, data.len / 2),
                                               span_of(data.data + data.len / 2, data.len - data.len / 2)};
    assert_true(e.len <= prf_len(id));
    assert_int_equal(prf(id, key, &data, 1, out), OK);
    if (memcmp(out, e.data, e.len) != 0)
        fail_msg("%s: wrong", name);
    assert_int_equal(prf(id, key, halves, 2, out), OK);
    if (memcmp(out, e.data, e.len) != 0)
        fail_msg("%s: wrong in two parts", name);
    span_free(e);
}

static void prf_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hmac_vectors); i++) {
        const struct hmac_vector *h = &hmac_vectors[i];
        struct span key = hex(h->key), data = hex(h->data);
        check_prf(h->name, PRF_HMAC_SHA2_256, key, data, h->sha256);
        check_prf(h->name, PRF_HMAC_SHA2_384, key, data, h->sha384);
        check_prf(h->name, PRF_HMAC_SHA2_512, key, data, h->sha512);
        span_free(key);
        span_free(data);
    }
}

/* NULL encryption is how an engine shows its bare MAC. */
static void icv_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(icv_vectors); i++) {
        const struct icv_vector *h = &icv_vectors[i];
        struct span key = hex(h->key), data = hex(h->data), icv = hex(h->icv);
        const struct packet_vector v = {
            .suite = suite_by_name("null", h->hash == 256   ? "sha256"
                                           : h->hash == 384 ? "sha384"
                                                            : "sha512"),
            .integ_key = key,
            .aad = span_of(data.data, 4),
            .plain = span_of(data.data + 4, data.len - 4),
            .cipher = span_of(data.data + 4, data.len - 4),
            .icv = icv,
        };
        assert_int_equal(icv.len, v.suite.icv_len);
        through_engines(h->name, &v);
        span_free(key);
        span_free(data);
        span_free(icv);
    }
}

/* As PRF with any key, and with those of IPsec and something to put into a packet as ICV too. */
static void mac_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(mac_vectors); i++) {
        const struct mac_vector *m = &mac_vectors[i];
        struct span key = hex(m->key), data = hex(m->data), mac = hex(m->mac);
        check_prf(m->name, m->prf, key, data, m->mac);
        const size_t header = data.len < 4 ? data.len : 4;
        struct packet_vector v = {
            .suite = suite_by_name("null", m->integ),
            .integ_key = key,
            .aad = span_of(data.data, header),
            .plain = span_of(data.data + header, data.len - header),
        };
        v.cipher = v.plain;
        v.icv = span_of(mac.data, v.suite.icv_len);
        if (data.len && key.len == v.suite.integ_key_len)
            through_engines(m->name, &v);
        span_free(key);
        span_free(data);
        span_free(mac);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aead_known_answers), cmocka_unit_test(cbc_known_answers), cmocka_unit_test(ctr_known_answers),
        cmocka_unit_test(prf_known_answers),  cmocka_unit_test(icv_known_answers), cmocka_unit_test(mac_known_answers),
    };
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
