/* Secrets in memory, random numbers, the table of algorithms, PRF+, keys as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crypto/key.h"
#include "crypto/prf.h"
#include "crypto/random.h"
#include "crypto/secret.h"
#include "test/unit/crypto_vector.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* -- secrets -- */

static void secret_memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 8, 200, 4096 - 72, 4096 - 71, 5000, 300000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint8_t *p = secret_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(p[j], 0);
        memset(p, 0xff, sizes[i]);
        secret_free(p);
    }
    secret_free(NULL);
    assert_null(secret_alloc(SIZE_MAX));
}

static void many_secrets_can_be_had(void **state)
{
    (void)state;
    const size_t many = 40000; /* over vm.max_map_count if each were two mappings */
    void **p = calloc(many, sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < many; i++)
        assert_non_null(p[i] = secret_alloc(1200));
    for (size_t i = 0; i < many; i += 2)
        secret_free(p[i]);
    for (size_t i = 1; i < many; i += 2)
        secret_free(p[i]);
    free(p);
}

/* How a child that runs f ends. */
static int fate(void (*f)(uint8_t *p), uint8_t *p)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        f(p);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void look_for_zeroes(uint8_t *p)
{
    for (size_t i = 0; i < 100; i++)
        if (p[i])
            _exit(1);
    secret_free(p); /* does no harm */
}

static void a_forked_child_sees_no_secrets(void **state)
{
    (void)state;
    uint8_t *p = secret_alloc(100);
    assert_non_null(p);
    memset(p, 7, 100);
    int status = fate(look_for_zeroes, p);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(p[99], 7);
    secret_free(p);
}

static void write_past_the_end(uint8_t *unused)
{
    (void)unused;
    uint8_t *volatile p = secret_alloc(100);
    if (p)
        p[100] ^= 1;
    secret_free(p);
}

static void a_write_past_the_end_is_noticed(void **state)
{
    (void)state;
    int status = fate(write_past_the_end, NULL);
    assert_true(WIFSIGNALED(status));
}

static void free_twice(uint8_t *p)
{
    (void)p;
    uint8_t *volatile q = secret_alloc(100);
    secret_free(q);
    secret_free(q);
}

static void a_second_free_is_noticed(void **state)
{
    (void)state;
    int status = fate(free_twice, NULL);
    assert_true(WIFSIGNALED(status));
}

/* Whatever order they come and go in: no two overlap, each is zeroed, none is changed by its neighbours. */
static void small_secrets_share_memory_without_touching_each_other(void **state)
{
    (void)state;
    enum { MANY = 600 };
    static uint8_t *p[MANY];
    static size_t size[MANY];
    uint32_t r = 1;
    for (unsigned step = 0; step < 20000; step++) {
        r = r * 1664525u + 1013904223u;
        unsigned i = (r >> 8) % MANY;
        if (p[i]) {
            for (size_t k = 0; k < size[i]; k++)
                assert_int_equal(p[i][k], (uint8_t)i);
            secret_free(p[i]);
            p[i] = NULL;
            continue;
        }
        size[i] = 1 + (r >> 4) % 9000;
        assert_non_null(p[i] = secret_alloc(size[i]));
        for (size_t k = 0; k < size[i]; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], (int)i, size[i]);
    }
    for (unsigned i = 0; i < MANY; i++)
        secret_free(p[i]);
}

static size_t resident(void)
{
    unsigned long whole = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &whole, &pages), 2);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void small_secrets_take_little_more_than_their_size(void **state)
{
    (void)state;
    enum { MANY = 10000, SIZE = 900 };
    static void *p[MANY];
    size_t before = resident();
    for (unsigned i = 0; i < MANY; i++)
        assert_non_null(p[i] = secret_alloc(SIZE));
    assert_true(resident() - before < (size_t)MANY * SIZE * 5 / 4 + 1024 * 1024);
    for (unsigned i = 0; i < MANY; i++)
        secret_free(p[i]);
}

static void a_secret_holds_no_rest_of_an_older_one(void **state)
{
    (void)state;
    struct secret s = {0};
    uint8_t bytes[SECRET_INLINE + 1];
    memset(bytes, 9, sizeof bytes);
    assert_int_equal(secret_set(&s, span_of(bytes, sizeof bytes)), ERR_RANGE);
    assert_int_equal(secret_set(&s, span_of(bytes, SECRET_INLINE)), OK);
    assert_int_equal(secret_set(&s, span_of("ab", 2)), OK);
    assert_int_equal(secret_span(&s).len, 2);
    assert_memory_equal(s.b, "ab", 2);
    for (size_t i = 2; i < SECRET_INLINE; i++)
        assert_int_equal(s.b[i], 0);
    assert_int_equal(secret_set(&s, span_of(NULL, 0)), OK);
    assert_int_equal(s.len, 0);
}

static void secrets_compare(void **state)
{
    (void)state;
    assert_true(secret_equal("abcd", "abcd", 4));
    assert_true(secret_equal("abcd", "abce", 3));
    assert_false(secret_equal("abcd", "abce", 4));
    assert_false(secret_equal("abcd", "bbcd", 4));
    assert_true(secret_equal("a", "b", 0));
    for (size_t n = 1; n <= 64; n++) {
        uint8_t a[64] = {0}, b[64] = {0};
        memset(b + n, 1, sizeof b - n);
        assert_true(secret_equal(a, b, n));
        for (size_t i = 0; i < n; i++) {
            b[i] ^= 0x80;
            assert_false(secret_equal(a, b, n));
            b[i] ^= 0x80;
        }
    }
}

/* -- random -- */

static void seeded_sources_depend_on_seed_and_call(void **state)
{
    (void)state;
    struct random_seeded a, b, c;
    const struct random_source ra = random_seeded_source(&a, 1), rb = random_seeded_source(&b, 1),
                               rc = random_seeded_source(&c, 2);
    uint8_t x[40], y[40], z[40];
    random_fill(&ra, x, sizeof x);
    random_fill(&rb, y, sizeof y);
    random_fill(&rc, z, sizeof z);
    assert_memory_equal(x, y, sizeof x);
    assert_memory_not_equal(x, z, sizeof x);
    random_fill(&ra, z, sizeof z);
    assert_memory_not_equal(x, z, sizeof x);
}

static void system_random_differs(void **state)
{
    (void)state;
    uint8_t x[32], y[32];
    random_bytes(x, sizeof x);
    random_fill(&random_system, y, sizeof y);
    assert_memory_not_equal(x, y, sizeof x);
}

/* -- algorithms -- */

static void every_row_is_found_again(void **state)
{
    (void)state;
    const struct algorithm *a;
    char text[16];
    unsigned n = 0;
    for (; (a = algorithm_at(n)) != NULL; n++) {
        assert_ptr_equal(algorithm_find(a->t.type, a->t.id, a->t.key_bits), a);
        assert_ptr_equal(algorithm_namesake(algorithm_by_keyword(a->keyword, strlen(a->keyword)), a->t.type), a);
        transform_text(&a->t, text, sizeof text);
        assert_true(strncmp(text, a->keyword, sizeof text - 1) == 0);
    }
    assert_true(n > 20);
}

static void keywords_and_aliases(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        uint8_t type;
        uint16_t id, bits;
    } words[] = {
        {"aes128", TRANSFORM_ENCR, ENCR_AES_CBC, 128},
        {"aes256cbc", TRANSFORM_ENCR, ENCR_AES_CBC, 256},
        {"aes256gcm128", TRANSFORM_ENCR, ENCR_AES_GCM_16, 256},
        {"aes128gcm", TRANSFORM_ENCR, ENCR_AES_GCM_16, 128},
        {"aes192gcm64", TRANSFORM_ENCR, ENCR_AES_GCM_8, 192},
        {"aes256gcm12", TRANSFORM_ENCR, ENCR_AES_GCM_12, 256},
        {"sha2_384", TRANSFORM_INTEG, INTEG_HMAC_SHA2_384_192, 0},
        {"prfsha512", TRANSFORM_PRF, PRF_HMAC_SHA2_512, 0},
        {"curve25519", TRANSFORM_KE, KE_CURVE25519, 0},
        {"modp4096", TRANSFORM_KE, KE_MODP_4096, 0},
        {"noesn", TRANSFORM_ESN, ESN_NO, 0},
    };
    for (size_t i = 0; i < COUNT(words); i++) {
        const struct algorithm *a = algorithm_by_keyword(words[i].word, strlen(words[i].word));
        assert_non_null(a);
        assert_int_equal(a->t.type, words[i].type);
        assert_int_equal(a->t.id, words[i].id);
        assert_int_equal(a->t.key_bits, words[i].bits);
    }
    assert_null(algorithm_by_keyword("aes128-sha256", 5));
    assert_null(algorithm_by_keyword("aes12", 5));
    assert_null(algorithm_by_keyword("", 0));
    assert_non_null(algorithm_by_keyword("aes128-sha256", 6));
}

static void key_lengths_must_fit(void **state)
{
    (void)state;
    assert_null(algorithm_find(TRANSFORM_ENCR, ENCR_AES_CBC, 0)); /* AES has no default length */
    assert_null(algorithm_find(TRANSFORM_ENCR, ENCR_AES_GCM_16, 512));
    assert_null(algorithm_find(TRANSFORM_ENCR, 3, 0));
    assert_null(algorithm_find(TRANSFORM_KE, KE_NONE, 0));
    assert_non_null(algorithm_find(TRANSFORM_ENCR, ENCR_CHACHA20_POLY1305, 0));
    assert_non_null(algorithm_find(TRANSFORM_ENCR, ENCR_CHACHA20_POLY1305, 256)); /* compared for AES only */
}

static void unknown_transforms_have_a_text(void **state)
{
    (void)state;
    static const struct {
        struct transform t;
        const char *text;
    } rows[] = {
        {{TRANSFORM_ENCR, 99, 0}, "encr:99"},
        {{TRANSFORM_ENCR, ENCR_AES_CBC, 99}, "encr:12/99"},
        {{TRANSFORM_KE, KE_NONE, 0}, "modpnone"},
        {{TRANSFORM_INTEG, 1, 0}, "integ:1"},
        {{200, 65535, 0}, "type200:65535"},
        {{TRANSFORM_KE, 2, 0}, "ke:2"},
        {{TRANSFORM_ENCR, 65535, 65535}, "encr:65535/655"}, /* cut, ended */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[15];
        assert_string_equal(transform_text(&rows[i].t, text, sizeof text), rows[i].text);
    }
}

/* -- PRF+ -- */

static void prf_plus_is_a_chain_of_prfs(void **state)
{
    (void)state;
    const struct span key = span_of("key", 3), parts[] = {span_of("Ni", 2), span_of("Nr", 2)};
    const struct algorithm *a;
    for (unsigned i = 0; (a = algorithm_of_type(TRANSFORM_PRF, i)) != NULL; i++) {
        const unsigned len = prf_len(a->t.id);
        uint8_t out[PRF_MAX * 4], t[PRF_MAX];
        assert_int_equal(prf_plus(a->t.id, key, parts, 2, out, 3 * len + 5), OK);
        for (unsigned round = 1; round <= 4; round++) { /* T1 | T2 | T3 | T4 of RFC 7296 section 2.13 */
            const uint8_t number = (uint8_t)round;
            const struct span seed[] = {span_of(t, round == 1 ? 0 : len), parts[0], parts[1], span_of(&number, 1)};
            assert_int_equal(prf(a->t.id, key, seed, 4, t), OK);
            assert_memory_equal(out + (round - 1) * len, t, round == 4 ? 5 : len);
        }
    }
}

static void prf_plus_ends_after_255_rounds(void **state)
{
    (void)state;
    static uint8_t out[255 * 32 + 1];
    const struct span key = span_of("key", 3);
    assert_int_equal(prf_plus(PRF_HMAC_SHA2_256, key, &key, 1, out, 255 * 32), OK);
    assert_int_equal(prf_plus(PRF_HMAC_SHA2_256, key, &key, 1, out, 255 * 32 + 1), ERR_RANGE);
    assert_int_equal(prf_plus(1, key, &key, 1, out, 16), ERR_UNSUPPORTED);
    assert_int_equal(prf(1, key, &key, 1, out), ERR_UNSUPPORTED);
    assert_int_equal(prf_len(1), 0);
}

static void prf_takes_empty_keys_and_parts(void **state)
{
    (void)state;
    uint8_t out[PRF_MAX];
    struct span empty = span_of(NULL, 0),
                expected = hex("b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
    assert_int_equal(prf(PRF_HMAC_SHA2_256, empty, &empty, 1, out), OK);
    assert_memory_equal(out, expected.data, expected.len);
    span_free(expected);
}

static void sha1_known_answer(void **state)
{
    (void)state;
    uint8_t out[20];
    struct span expected = hex("a9993e364706816aba3e25717850c26c9cd0d89d"); /* RFC 6234: "abc" */
    sha1(span_of("abc", 3), out);
    assert_memory_equal(out, expected.data, 20);
    span_free(expected);
}

/* -- keys as text -- */

static void base64_both_ways(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } rows[] = {{"", ""},
                {"f", "Zg=="},
                {"fo", "Zm8="},
                {"foo", "Zm9v"},
                {"foob", "Zm9vYg=="},
                {"fooba", "Zm9vYmE="},
                {"foobar", "Zm9vYmFy"}}; /* RFC 4648 section 10 */
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[16];
        uint8_t bytes[16];
        size_t len = 99;
        base64_encode(span_of(rows[i].bytes, strlen(rows[i].bytes)), text, sizeof text);
        assert_string_equal(text, rows[i].text);
        assert_int_equal(base64_decode(text, strlen(text), bytes, sizeof bytes, &len), OK);
        assert_int_equal(len, strlen(rows[i].bytes));
        assert_memory_equal(bytes, rows[i].bytes, len);
    }
}

static void base64_is_strict(void **state)
{
    (void)state;
    static const char *const wrong[] = {"Z",    "Zg",   "Zg=",   "Zg===", "Zh==", "Zm9=",  "Zm9v\n",   " Zm9",
                                        "Zm-v", "Z_9v", "Zg==Z", "=Zg=",  "====", "Zm9vZ", "Zg==Zg==", "Z\n9v"};
    uint8_t out[16];
    size_t len;
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_int_equal(base64_decode(wrong[i], strlen(wrong[i]), out, sizeof out, &len), ERR_SYNTAX);
    assert_int_equal(base64_decode("Zm9vYg==", 8, out, 3, &len), ERR_FULL);
    assert_int_equal(base64_decode("Zm9vYg==", 8, out, 4, &len), OK);
}

static void keys_are_random(void **state)
{
    (void)state;
    char text[KEY_TEXT], other[KEY_TEXT];
    key_generate(text);
    psk_generate(other);
    assert_int_equal(strlen(text), KEY_TEXT - 1);
    assert_int_equal(strlen(other), KEY_TEXT - 1);
    assert_string_not_equal(text, other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret_memory_is_zeroed_and_aligned),
        cmocka_unit_test(many_secrets_can_be_had),
        cmocka_unit_test(a_forked_child_sees_no_secrets),
        cmocka_unit_test(a_second_free_is_noticed),
        cmocka_unit_test(small_secrets_share_memory_without_touching_each_other),
        cmocka_unit_test(small_secrets_take_little_more_than_their_size),
        cmocka_unit_test(a_write_past_the_end_is_noticed),
        cmocka_unit_test(a_secret_holds_no_rest_of_an_older_one),
        cmocka_unit_test(secrets_compare),
        cmocka_unit_test(seeded_sources_depend_on_seed_and_call),
        cmocka_unit_test(system_random_differs),
        cmocka_unit_test(every_row_is_found_again),
        cmocka_unit_test(keywords_and_aliases),
        cmocka_unit_test(key_lengths_must_fit),
        cmocka_unit_test(unknown_transforms_have_a_text),
        cmocka_unit_test(prf_plus_is_a_chain_of_prfs),
        cmocka_unit_test(prf_plus_ends_after_255_rounds),
        cmocka_unit_test(prf_takes_empty_keys_and_parts),
        cmocka_unit_test(sha1_known_answer),
        cmocka_unit_test(base64_both_ways),
        cmocka_unit_test(base64_is_strict),
        cmocka_unit_test(keys_are_random),
    };
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
