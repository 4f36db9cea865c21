/*
 * Keys and AUTH data as a hostile peer or a damaged file has them; the first byte says which. What reads as a key can
 * be written and read again, and no AUTH data but the right one is believed.
 */
#include <string.h>

#include "crypto/secret.h"
#include "crypto/sig.h"
#include "test/fuzz/fuzz.h"
#include "test/vectors/sig.h"

enum what { WHAT_PRIVATE, WHAT_PUBLIC, WHAT_AUTH, WHATS };

static const char *const texts[] = {pem_rsa_pkcs8, pem_ecdsa_256_sec1, pem_ecdsa_384_pkcs8, pem_ecdsa_521_pkcs8,
                                    pem_ed25519_pkcs8};
#define KEYS (sizeof texts / sizeof texts[0])

static struct private_key *keys[KEYS];
static const uint8_t methods[] = {SIG_METHOD_RSA, SIG_METHOD_ECDSA_256, SIG_METHOD_ECDSA_384, SIG_METHOD_ECDSA_521,
                                  SIG_METHOD_DIGITAL};
#define METHODS (sizeof methods / sizeof methods[0])

static struct span octets(void)
{
    return span_of("octets", 6);
}

/* LeakSanitizer does not look into secret memory, where the pointers to the public halves are. */
static void free_keys(void)
{
    for (size_t i = 0; i < KEYS; i++)
        private_key_free(keys[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    char why[200];
    FUZZ_CHECK(crypto_init() == OK);
    FUZZ_CHECK(atexit(free_keys) == 0);
    for (size_t i = 0; i < KEYS; i++)
        FUZZ_CHECK(private_key_parse(span_of(texts[i], strlen(texts[i])), &keys[i], why, sizeof why) == OK);
    return 0;
}

/* Each private key as a file, its public half as DER, and what it signs with method 14 and without. */
size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    struct buf data = {0};
    uint8_t method = 0;
    if (i >= 4 * KEYS)
        return 0;
    const struct private_key *k = keys[i / 4];
    struct writer w = writer_of(out, cap);
    switch (i % 4) {
    case 0:
        write_u8(&w, WHAT_PRIVATE);
        write_bytes(&w, texts[i / 4], strlen(texts[i / 4]));
        break;
    case 1:
        write_u8(&w, WHAT_PUBLIC);
        write_span(&w, public_key_spki(private_key_public(k)));
        break;
    default:
        write_u8(&w, WHAT_AUTH);
        write_u8(&w, (uint8_t)(i / 4));
        (void)!sig_auth_make(k, i % 4 == 2 ? SIG_HASHES : 0, &random_system, octets(), &method, &data);
        for (uint8_t m = 0; m < METHODS; m++)
            if (methods[m] == method)
                write_u8(&w, m);
        write_span(&w, buf_span(&data));
        buf_free(&data);
        break;
    }
    FUZZ_CHECK(!w.failed);
    return writer_len(&w);
}

static void same_again(const struct public_key *k)
{
    struct public_key *again = NULL;
    struct buf pem = {0};
    char why[200], text[32];
    FUZZ_CHECK(public_key_spki(k).len <= KEY_SPKI_MAX);
    FUZZ_CHECK(public_key_pem(k, &pem) == OK);
    FUZZ_CHECK(public_key_parse(buf_span(&pem), &again, why, sizeof why) == OK);
    FUZZ_CHECK(public_key_equal(again, k) && public_key_kind(again) == public_key_kind(k));
    FUZZ_CHECK(public_key_text(again, text, sizeof text)[0]);
    public_key_free(again);
    buf_free(&pem);
}

static void try_private(struct span text)
{
    struct private_key *k = NULL;
    char why[200] = "";
    enum err e = private_key_parse(text, &k, why, sizeof why);
    FUZZ_CHECK((e == OK) == (k != NULL));
    FUZZ_CHECK(e == OK || why[0]);
    if (k)
        same_again(private_key_public(k));
    private_key_free(k);
}

static void try_public(struct span text)
{
    struct public_key *k = NULL;
    char why[200] = "";
    enum err e = public_key_parse(text, &k, why, sizeof why);
    FUZZ_CHECK((e == OK) == (k != NULL));
    FUZZ_CHECK(e == OK || why[0]);
    if (k)
        same_again(k);
    public_key_free(k);
}

/* Over octets that no key here signed, nothing is right. */
static void try_auth(struct reader *r)
{
    char text[80];
    const struct public_key *k = private_key_public(keys[read_u8(r) % KEYS]);
    const uint8_t method = methods[read_u8(r) % METHODS];
    const struct span data = read_rest(r);
    enum err e = sig_auth_check(k, SIG_HASHES, method, data, octets());
    FUZZ_CHECK(e == OK || e == ERR_AUTH || e == ERR_UNSUPPORTED || e == ERR_SYNTAX);
    FUZZ_CHECK(sig_auth_check(k, SIG_HASHES, method, data, span_of("other", 5)) != OK);
    FUZZ_CHECK(sig_auth_text(method, data, text, sizeof text)[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct reader r = reader_of(span_of(data, len));
    switch (read_u8(&r) % WHATS) {
    case WHAT_PRIVATE:
        try_private(read_rest(&r));
        break;
    case WHAT_PUBLIC:
        try_public(read_rest(&r));
        break;
    default:
        try_auth(&r);
        break;
    }
    return 0;
}
