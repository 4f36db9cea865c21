/*
 * Certificates and CRLs from a hostile peer, as PEM or DER: they are verified or refused with a reason fit for a terminal.
 * An input is tried as a chain, as CAs and as CRLs.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "crypto/cert.h"
#include "crypto/pem.h"
#include "crypto/secret.h"
#include "test/vectors/cert.h"

#define NOW INT64_C(2538907200) /* 2050-06-15 12:00 UTC */
#define WHY 600

static struct trust *cas;

static const char *const seeds[] = {
    PEM_LEAF,      PEM_SUB,       PEM_NAMES_GOOD, PEM_NAMES,       PEM_SHA1_ROOT_LEAF, PEM_PSS_LEAF,
    PEM_ED25519,   PEM_P521_LEAF, PEM_CRL_EMPTY,  PEM_CRL_LEAF,    PEM_CRL_OTHERS,     PEM_EXPIRED,
    PEM_ROLLOVER,  PEM_CRITICAL,  PEM_V1_LEAF,    PEM_CRL_PARTIAL, PEM_CRL_INDIRECT,   PEM_CONTROL_IN_SUBJECT,
    PEM_URIS_WITH, PEM_DEEP_LEAF, PEM_MINIMUM,    PEM_EKU_CODE,    PEM_EMPTY_SUBJECT,  PEM_SAN_MALFORMED,
    PEM_CN_ONLY,   PEM_ROOT,
};
#define SEEDS (sizeof seeds / sizeof seeds[0])

struct room {
    uint8_t *out;
    size_t cap, len;
};

static enum err put(void *ctx, struct span der)
{
    struct room *r = ctx;
    FUZZ_CHECK(der.len <= r->cap);
    memcpy(r->out, der.data, der.len);
    r->len = der.len;
    return OK;
}

/* Each seed as the DER that a CERT payload carries, then as the PEM of a file. */
size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    struct room r = {out, cap, 0};
    unsigned count;
    if (i >= 2 * SEEDS)
        return 0;
    const char *text = seeds[i % SEEDS];
    if (i >= SEEDS)
        FUZZ_CHECK(put(&r, span_of(text, strlen(text))) == OK);
    else
        FUZZ_CHECK(pem_each(span_of(text, strlen(text)), strstr(text, "X509 CRL") ? "X509 CRL" : "CERTIFICATE", put, &r,
                            &count) == OK);
    return r.len;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char trusted[] = PEM_ROOT PEM_SAME_NAME;
    char why[WHY];
    (void)argc, (void)argv;
    FUZZ_CHECK(crypto_init() == OK && trust_new(&cas) == OK);
    FUZZ_CHECK(trust_add_ca(cas, span_of(trusted, sizeof trusted - 1), why, sizeof why) == OK);
    FUZZ_CHECK(trust_add_ca(cas, span_of(PEM_SUB, sizeof PEM_SUB - 1), why, sizeof why) == OK);
    FUZZ_CHECK(trust_add_ca(cas, span_of(PEM_NAMES, sizeof PEM_NAMES - 1), why, sizeof why) == OK);
    return 0;
}

static void check_reason(enum err e, const char *why)
{
    FUZZ_CHECK(e == OK || why[0]);
    for (const char *c = why; *c; c++)
        FUZZ_CHECK(*c >= 0x20 && *c < 0x7f);
}

static void fuzz_chain(const struct trust *t, struct span input)
{
    char why[WHY] = "";
    struct chain c = {0};
    struct public_key *key = NULL, *same = NULL;
    struct span name;
    enum err e = chain_add(&c, input, why, sizeof why);
    check_reason(e, why);
    if (c.n > 0 && c.n < CERT_CHAIN_MAX) {
        why[0] = '\0';
        (void)!chain_add(&c, span_of(PEM_SUB, sizeof PEM_SUB - 1), why, sizeof why);
        why[0] = '\0';
        e = cert_verify(t, &c, NOW, &key, why, sizeof why);
        check_reason(e, why);
        if (e == OK)
            FUZZ_CHECK(chain_key(&c, &same, why, sizeof why) == OK && public_key_equal(key, same));
    }
    if (chain_subject(&c, &name) == OK)
        FUZZ_CHECK(cert_has_identity(&c, 9, name));
    cert_has_identity(&c, 2, span_of("gate.example", 12));
    cert_has_identity(&c, 1, span_of("\xc0\x00\x02\x01", 4));
    public_key_free(key);
    public_key_free(same);
    chain_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char leaf[] = PEM_LEAF;
    char why[WHY] = "";
    struct span input = span_of(data, len);
    struct trust *t;
    fuzz_chain(cas, input);
    FUZZ_CHECK(trust_new(&t) == OK);
    check_reason(trust_add_ca(t, input, why, sizeof why), why);
    FUZZ_CHECK(trust_equal(t, t));
    why[0] = '\0';
    enum err e = trust_add_crl(t, input, why, sizeof why);
    check_reason(e, why);
    if (e == OK && trust_add_ca(t, span_of(PEM_ROOT, sizeof PEM_ROOT - 1), why, sizeof why) == OK)
        fuzz_chain(t, span_of(leaf, sizeof leaf - 1));
    trust_free(t);
    return 0;
}
