/*
 * Keying material and the shared-key AUTH (RFC 7296 sections 2.13 to 2.18). Vectors: test/vectors/ikev2_keymat.txt
 * always; and where they are there NIST's CAVS vectors for IKEv2's KDF, nss-cavp/ikev2.fax under $ADIT_TESTDATA or
 * ../shared/testdata. Run from the top of the repository.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/keymat.h"

/* -- a file of "name = value" lines, in cases that blank lines separate -- */

struct field {
    char name[40];
    char text[4200];
};

struct test_case {
    struct field f[64];
    unsigned n;
    unsigned line; /* its last one, for messages */
};

static const char *text_of(const struct test_case *c, const char *name)
{
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->f[i].name, name) == 0)
            return c->f[i].text;
    fail_msg("line %u: the case lacks %s", c->line, name);
    return NULL;
}

static unsigned number_of(const struct test_case *c, const char *name)
{
    return (unsigned)strtoul(text_of(c, name), NULL, 10);
}

struct bytes {
    uint8_t b[2100];
    size_t len;
};

static struct bytes bytes_of(const struct test_case *c, const char *name)
{
    const char *hex = text_of(c, name);
    struct bytes out = {.len = strlen(hex) / 2};
    assert_true(out.len <= sizeof out.b);
    for (size_t i = 0; i < out.len; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        out.b[i] = (uint8_t)v;
    }
    return out;
}

static struct span view(const struct bytes *b)
{
    return span_of(b->b, b->len);
}

static void add_field(struct test_case *c, const char *line)
{
    struct field *f = &c->f[c->n];
    int at = 0;
    if (sscanf(line, "%39[^=\n]= %4199s%n", f->name, f->text, &at) < 2) {
        if (sscanf(line, "%39[^=\n]= %n", f->name, &at) < 1 || at == 0)
            return;
        f->text[0] = '\0'; /* an empty value: a suite without integrity keys */
    }
    for (size_t end = strlen(f->name); end > 0 && f->name[end - 1] == ' '; end--)
        f->name[end - 1] = '\0';
    assert_true(++c->n < sizeof c->f / sizeof *c->f);
}

/* Runs fn on every case; hash is the last "[SHA-…]" heading before it. */
static void each_case(FILE *f, void (*fn)(const struct test_case *c, const char *hash, void *ctx), void *ctx)
{
    static struct test_case c;
    static char line[8400];
    char hash[16] = "";
    unsigned number = 0;
    c.n = 0;
    for (bool more = true; more;) {
        more = fgets(line, sizeof line, f) != NULL;
        number++;
        if (more && sscanf(line, "[SHA-%15[^]]", hash) == 1)
            continue;
        if (more && strchr("\r\n#[", line[0]) == NULL) {
            add_field(&c, line);
            continue;
        }
        c.line = number;
        if (c.n > 2)
            fn(&c, hash, ctx);
        c.n = 0;
    }
}

/* -- comparing -- */

static void expect(const struct test_case *c, const char *name, const char *suffix, const struct secret *got)
{
    char full[60];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    struct bytes want = bytes_of(c, full);
    assert_int_equal(got->len, want.len);
    assert_memory_equal(got->b, want.b, want.len);
}

static void expect_ike(const struct test_case *c, const char *suffix, const struct ike_keys *k)
{
    expect(c, "SK_d", suffix, &k->d);
    expect(c, "SK_ai", suffix, &k->ai);
    expect(c, "SK_ar", suffix, &k->ar);
    expect(c, "SK_ei", suffix, &k->ei);
    expect(c, "SK_er", suffix, &k->er);
    expect(c, "SK_pi", suffix, &k->pi);
    expect(c, "SK_pr", suffix, &k->pr);
}

static void expect_child(const struct test_case *c, const char *suffix, const struct child_keys *k)
{
    expect(c, "encr_i", suffix, &k->encr_i);
    expect(c, "integ_i", suffix, &k->integ_i);
    expect(c, "encr_r", suffix, &k->encr_r);
    expect(c, "integ_r", suffix, &k->integ_r);
}

static struct suite suite_for(uint16_t encr, uint16_t bits, uint16_t integ)
{
    struct transform e = {.type = TRANSFORM_ENCR, .id = encr, .key_bits = bits};
    struct transform i = {.type = integ ? TRANSFORM_INTEG : 0, .id = integ};
    struct suite s;
    assert_int_equal(suite_of(&e, &i, &s), OK);
    return s;
}

static struct kex_secret shared_secret(const struct bytes *g)
{
    struct kex_secret s = {.len = (uint16_t)g->len};
    assert_true(g->len <= sizeof s.b);
    memcpy(s.b, g->b, g->len);
    return s;
}

/* -- our own vectors -- */

static void check_own(const struct test_case *c, const char *hash, void *ctx)
{
    (void)hash;
    uint16_t id = (uint16_t)number_of(c, "prf");
    struct suite s =
        suite_for((uint16_t)number_of(c, "encr"), (uint16_t)number_of(c, "bits"), (uint16_t)number_of(c, "integ"));
    struct bytes ni = bytes_of(c, "Ni"), nr = bytes_of(c, "Nr"), spi_i = bytes_of(c, "SPIi"),
                 spi_r = bytes_of(c, "SPIr");
    struct bytes g_first = bytes_of(c, "g^ir"), g_new = bytes_of(c, "g^ir (new)"), want = bytes_of(c, "SKEYSEED");
    struct kex_secret first = shared_secret(&g_first), new = shared_secret(&g_new);
    uint64_t si = get_be64(spi_i.b), sr = get_be64(spi_r.b);
    struct ike_keys k, rekeyed;
    struct child_keys child;
    uint8_t out[PRF_MAX];

    assert_int_equal(keymat_skeyseed(id, view(&ni), view(&nr), view(&g_first), out), OK);
    assert_int_equal(prf_len(id), want.len);
    assert_memory_equal(out, want.b, want.len);
    assert_int_equal(keymat_ike(&k, id, &s, view(&ni), view(&nr), si, sr, &first), OK);
    assert_int_equal(k.prf, id);
    expect_ike(c, "", &k);
    assert_int_equal(keymat_child(&child, &k, &s, view(&ni), view(&nr), NULL), OK);
    expect_child(c, "", &child);
    assert_int_equal(keymat_child(&child, &k, &s, view(&ni), view(&nr), &new), OK);
    expect_child(c, " (pfs)", &child);
    assert_int_equal(keymat_ike_rekey(&rekeyed, PRF_HMAC_SHA2_256, &s, &k, view(&ni), view(&nr), si, sr, &new), OK);
    assert_int_equal(rekeyed.prf, PRF_HMAC_SHA2_256);
    expect_ike(c, " (rekey)", &rekeyed);

    struct bytes psk = bytes_of(c, "psk"), body = bytes_of(c, "id"), message = bytes_of(c, "message");
    struct bytes auth = bytes_of(c, "AUTH"), ppk = bytes_of(c, "ppk");
    assert_int_equal(keymat_psk_auth(id, view(&psk), &k.pi, view(&message), view(&nr), view(&body), out), OK);
    assert_memory_equal(out, auth.b, auth.len);

    /* What a signature covers is what the shared key's AUTH is the PRF of (section 2.15). */
    struct buf octets = {0};
    uint8_t key[PRF_MAX];
    struct span pad = span_of("Key Pad for IKEv2", 17), parts;
    assert_int_equal(keymat_signed_octets(id, &k.pi, view(&message), view(&nr), view(&body), &octets), OK);
    parts = buf_span(&octets);
    assert_int_equal(prf(id, view(&psk), &pad, 1, key), OK);
    assert_int_equal(prf(id, span_of(key, prf_len(id)), &parts, 1, out), OK);
    assert_memory_equal(out, auth.b, auth.len);
    buf_free(&octets);
    assert_int_equal(keymat_ppk(&k, view(&ppk)), OK); /* three keys change, four don't */
    expect(c, "SK_d", " (ppk)", &k.d);
    expect(c, "SK_pi", " (ppk)", &k.pi);
    expect(c, "SK_pr", " (ppk)", &k.pr);
    expect(c, "SK_ei", "", &k.ei);
    expect(c, "SK_er", "", &k.er);
    ++*(unsigned *)ctx;
}

static void keys_and_auth_equal_those_of_an_independent_program(void **state)
{
    (void)state;
    unsigned n = 0;
    FILE *f = fopen("test/vectors/ikev2_keymat.txt", "r");
    if (!f)
        fail_msg("test/vectors/ikev2_keymat.txt: run this from the top of the repository");
    each_case(f, check_own, &n);
    fclose(f);
    assert_int_equal(n, 5);
}

/* -- NIST's -- */

/* The keys one behind the other are the start of the vector's keying material: its lengths are not those of a suite. */
static void expect_stream(const struct bytes *want, const struct secret *const *keys, unsigned n)
{
    size_t at = 0;
    for (unsigned i = 0; i < n && at < want->len; i++) {
        size_t len = keys[i]->len < want->len - at ? keys[i]->len : want->len - at;
        assert_memory_equal(keys[i]->b, want->b + at, len);
        at += len;
    }
    assert_true(at > 0);
}

static void check_nist_child(const struct test_case *c, const struct ike_keys *k, const struct suite *s, struct span ni,
                             struct span nr)
{
    struct bytes want = bytes_of(c, "DKM(Child SA)"), g = bytes_of(c, "g^ir (new)");
    struct child_keys child;
    const struct secret *keys[] = {&child.encr_i, &child.integ_i, &child.encr_r, &child.integ_r};
    assert_int_equal(keymat_child(&child, k, s, ni, nr, NULL), OK);
    expect_stream(&want, keys, 4);
    struct kex_secret new = shared_secret(&g);
    want = bytes_of(c, "DKM(Child SA D-H)");
    assert_int_equal(keymat_child(&child, k, s, ni, nr, &new), OK);
    expect_stream(&want, keys, 4);
}

static void expect_dkm(const struct bytes *want, const struct ike_keys *k)
{
    const struct secret *keys[] = {&k->d, &k->ai, &k->ar, &k->ei, &k->er, &k->pi, &k->pr};
    expect_stream(want, keys, 7);
}

static void check_nist(const struct test_case *c, const char *hash, void *ctx)
{
    unsigned *done = ctx;
    uint16_t id = !strcmp(hash, "1")     ? PRF_HMAC_SHA1
                  : !strcmp(hash, "256") ? PRF_HMAC_SHA2_256
                  : !strcmp(hash, "384") ? PRF_HMAC_SHA2_384
                  : !strcmp(hash, "512") ? PRF_HMAC_SHA2_512
                                         : 0;
    assert_int_not_equal(id, 0);
    struct bytes ni = bytes_of(c, "Ni"), nr = bytes_of(c, "Nr"), g = bytes_of(c, "g^ir"),
                 want = bytes_of(c, "SKEYSEED");
    struct bytes spi_i = bytes_of(c, "SPIi"), spi_r = bytes_of(c, "SPIr"), dkm = bytes_of(c, "DKM");
    uint64_t si = get_be64(spi_i.b), sr = get_be64(spi_r.b);
    uint8_t seed[PRF_MAX];
    struct suite s =
        *done % 2 ? suite_for(ENCR_AES_GCM_16, 256, 0) : suite_for(ENCR_AES_CBC, 256, INTEG_HMAC_SHA2_512_256);
    struct ike_keys k = {.prf = id};
    assert_int_equal(keymat_skeyseed(id, view(&ni), view(&nr), view(&g), seed), OK);
    assert_memory_equal(seed, want.b, want.len);
    struct kex_secret first = shared_secret(&g);
    assert_int_equal(keymat_ike(&k, id, &s, view(&ni), view(&nr), si, sr, &first), OK);
    expect_dkm(&dkm, &k);
    assert_int_equal(secret_set(&k.d, span_of(dkm.b, prf_len(id))), OK);
    check_nist_child(c, &k, &s, view(&ni), view(&nr));
    struct bytes g_new = bytes_of(c, "g^ir (new)");
    /* The vector has SKEYSEED alone: what follows from it is expanded here. */
    struct kex_secret new = shared_secret(&g_new);
    struct ike_keys rekeyed;
    want = bytes_of(c, "SKEYSEED(Rekey)");
    struct span parts[] = {view(&ni), view(&nr), view(&spi_i), view(&spi_r)};
    struct bytes expanded = {.len = 100};
    assert_int_equal(prf_plus(id, view(&want), parts, 4, expanded.b, expanded.len), OK);
    assert_int_equal(keymat_ike_rekey(&rekeyed, id, &s, &k, view(&ni), view(&nr), si, sr, &new), OK);
    expect_dkm(&expanded, &rekeyed);
    ++*done;
}

static void keys_equal_nists(void **state)
{
    (void)state;
    char name[400];
    const char *folder = getenv("ADIT_TESTDATA");
    unsigned done = 0;
    snprintf(name, sizeof name, "%s/nss-cavp/ikev2.fax", folder ? folder : "../shared/testdata");
    FILE *f = fopen(name, "r");
    if (!f) {
        print_message("%s is not there: tested with the project's own vectors alone\n", name);
        return;
    }
    each_case(f, check_nist, &done);
    fclose(f);
    print_message("%s: %u cases\n", name, done);
    assert_int_equal(done, 900);
}

/* -- edges -- */

static void lengths_follow_suite_and_prf(void **state)
{
    (void)state;
    struct kex_secret g = {.len = 32};
    struct span nonce = span_of("0123456789abcdef", 16);
    struct ike_keys k;
    struct child_keys c;
    struct suite s = suite_for(ENCR_AES_GCM_16, 256, 0);
    assert_int_equal(keymat_ike(&k, PRF_HMAC_SHA2_384, &s, nonce, nonce, 1, 2, &g), OK);
    assert_int_equal(k.d.len, 48);
    assert_int_equal(k.ai.len, 0);
    assert_int_equal(k.ei.len, 36); /* 32 and the salt's 4 */
    assert_int_equal(keymat_child(&c, &k, &s, nonce, nonce, NULL), OK);
    assert_int_equal(c.encr_r.len, 36);
    assert_int_equal(c.integ_r.len, 0);
    assert_int_equal(keymat_ike(&k, 9999, &s, nonce, nonce, 1, 2, &g), ERR_UNSUPPORTED);
}

/* KEYMAT of each cipher and MAC: key and salt (RFC 4106 8.1, 4309 7.1, 3686 5.1, 7634 2), key of the MAC. */
static void material_has_the_lengths_of_the_rfcs(void **state)
{
    (void)state;
    static const struct {
        uint16_t encr, bits, integ, encr_len, integ_len;
    } rows[] = {
        {ENCR_AES_GCM_8, 192, 0, 28, 0},
        {ENCR_AES_GCM_12, 128, 0, 20, 0},
        {ENCR_AES_CCM_8, 128, 0, 19, 0},
        {ENCR_AES_CCM_16, 256, 0, 35, 0},
        {ENCR_AES_CTR, 192, INTEG_AES_XCBC_96, 28, 16},
        {ENCR_AES_CBC, 192, INTEG_AES_CMAC_96, 24, 16},
        {ENCR_AES_CBC, 128, INTEG_HMAC_SHA1_96, 16, 20},
    };
    struct span nonce = span_of("0123456789abcdef", 16);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kex_secret g = {.len = 32};
        struct ike_keys k;
        struct child_keys c;
        struct suite s = suite_for(rows[i].encr, rows[i].bits, rows[i].integ);
        assert_int_equal(keymat_ike(&k, PRF_AES128_XCBC, &s, nonce, nonce, 1, 2, &g), OK);
        assert_int_equal(k.d.len, 16);
        assert_int_equal(k.ei.len, rows[i].encr_len);
        assert_int_equal(k.ar.len, rows[i].integ_len);
        assert_int_equal(keymat_child(&c, &k, &s, nonce, nonce, NULL), OK);
        assert_int_equal(c.encr_i.len, rows[i].encr_len);
        assert_int_equal(c.integ_r.len, rows[i].integ_len);
    }
}

/* Only the first 64 bits of each nonce, and only in SKEYSEED (section 2.14). */
static void aes_prfs_take_half_a_key_of_each_nonce(void **state)
{
    (void)state;
    static const uint16_t ids[] = {PRF_AES128_XCBC, PRF_AES128_CMAC};
    struct span ni = span_of("aaaaaaaaBBBBBBBBBBBBBBBB", 24), nr = span_of("ccccccccDDDDDDDD", 16), g = span_of("g", 1);
    uint8_t got[PRF_MAX], want[PRF_MAX];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(keymat_skeyseed(ids[i], ni, nr, g, got), OK);
        assert_int_equal(prf(ids[i], span_of("aaaaaaaacccccccc", 16), &g, 1, want), OK);
        assert_memory_equal(got, want, 16);
        assert_int_equal(prf(ids[i], span_of("aaaaaaaaBBBBBBBBBBBBBBBBccccccccDDDDDDDD", 40), &g, 1, want), OK);
        assert_memory_not_equal(got, want, 16);
    }
    assert_int_equal(keymat_skeyseed(PRF_HMAC_SHA1, ni, nr, g, got), OK);
    assert_int_equal(prf(PRF_HMAC_SHA1, span_of("aaaaaaaaBBBBBBBBBBBBBBBBccccccccDDDDDDDD", 40), &g, 1, want), OK);
    assert_memory_equal(got, want, 20);
}

static int start_crypto(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_auth_equal_those_of_an_independent_program),
        cmocka_unit_test(keys_equal_nists),
        cmocka_unit_test(lengths_follow_suite_and_prf),
        cmocka_unit_test(material_has_the_lengths_of_the_rfcs),
        cmocka_unit_test(aes_prfs_take_half_a_key_of_each_nonce),
    };
    return cmocka_run_group_tests(tests, start_crypto, NULL);
}
