#include <mbedtls/ecp.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "crypto/der.h"
#include "crypto/key.h"
#include "crypto/secret.h"
#include "crypto/sig_internal.h"

#define TEXT_MAX 65536       /* bytes of a key file */
#define RSA_PRIVATE_MAX 8192 /* DER RSAPrivateKey of RSA_BITS_MAX: nine halves of the modulus, rounded up */
#define RSA_EXPONENT_BITS 64 /* a public exponent as long as the modulus would make verifying as slow as signing */
#define SUPPORTED "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"

_Static_assert(MBEDTLS_MPI_MAX_BITS >= RSA_BITS_MAX, "mbedTLS takes the longest RSA key");
_Static_assert(ED25519_BYTES == crypto_sign_SEEDBYTES && ED25519_BYTES == crypto_sign_PUBLICKEYBYTES, "RFC 8032");

static const struct curve curves[] = {
    {KEY_ECDSA_256, MBEDTLS_ECP_DP_SECP256R1, 32, "P-256"},
    {KEY_ECDSA_384, MBEDTLS_ECP_DP_SECP384R1, 48, "P-384"},
    {KEY_ECDSA_521, MBEDTLS_ECP_DP_SECP521R1, 66, "P-521"},
};
#define CURVES (sizeof curves / sizeof curves[0])

/* RFC 8410 section 4: the algorithm has no parameters, so that all but the 32 bytes of the key is always the same. */
static const uint8_t ed25519_spki[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
static const uint8_t ed25519_oid[] = {0x2b, 0x65, 0x70};

PRINTF_LIKE(4, 5)
static enum err refuse(enum err e, char *why, size_t why_size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, why_size, format, args);
    va_end(args);
    return e;
}

static enum err no_memory(char *why, size_t why_size)
{
    return refuse(ERR_NOMEM, why, why_size, "%s", err_text(ERR_NOMEM));
}

int sig_random(void *source, unsigned char *p, size_t n)
{
    random_fill(source, p, n);
    return 0;
}

/* -- public keys -- */

const struct curve *curve_of_kind(enum key_kind kind)
{
    for (size_t i = 0; i < CURVES; i++)
        if (curves[i].kind == kind)
            return &curves[i];
    return NULL;
}

static const struct curve *curve_of_group(mbedtls_ecp_group_id group)
{
    for (size_t i = 0; i < CURVES; i++)
        if (curves[i].group == (int)group)
            return &curves[i];
    return NULL;
}

struct span public_key_point(const struct public_key *k)
{
    const struct curve *c = curve_of_kind(k->kind);
    const size_t len = c ? 1 + 2 * c->bytes : ED25519_BYTES;
    return span_of(k->spki + k->spki_len - len, len);
}

static enum err public_new(enum key_kind kind, unsigned bits, struct span head, struct span rest,
                           struct public_key **out, char *why, size_t why_size)
{
    struct public_key *k = malloc(sizeof *k + head.len + rest.len);
    if (!k)
        return no_memory(why, why_size);
    atomic_init(&k->refs, 1);
    k->kind = kind;
    k->bits = bits;
    k->spki_len = head.len + rest.len;
    struct writer w = writer_of(k->spki, k->spki_len);
    write_span(&w, head);
    write_span(&w, rest);
    *out = k;
    return OK;
}

static enum err public_of_ed25519(struct span point, struct public_key **out, char *why, size_t why_size)
{
    /* Also refuses what is not canonical, and points of small order, whose signatures anybody could make. */
    if (crypto_core_ed25519_is_valid_point(point.data) != 1)
        return refuse(ERR_SYNTAX, why, why_size, "its 32 bytes are no Ed25519 public key");
    return public_new(KEY_ED25519, 256, span_of(ed25519_spki, sizeof ed25519_spki), point, out, why, why_size);
}

static enum err check_rsa(const mbedtls_rsa_context *rsa, unsigned *bits, char *why, size_t why_size)
{
    *bits = (unsigned)mbedtls_mpi_bitlen(&rsa->N);
    if (*bits < RSA_BITS_MIN || *bits > RSA_BITS_MAX)
        return refuse(ERR_UNSUPPORTED, why, why_size, "RSA of %u bits: expected %d to %d", *bits, RSA_BITS_MIN,
                      RSA_BITS_MAX);
    if (mbedtls_mpi_bitlen(&rsa->E) > RSA_EXPONENT_BITS)
        return refuse(ERR_UNSUPPORTED, why, why_size, "an RSA public exponent of more than %d bits", RSA_EXPONENT_BITS);
    return OK;
}

/* The canonical form, whatever form it came in: an uncompressed point, a named curve, RSA with its NULL parameters. */
static enum err public_of_pk(mbedtls_pk_context *pk, struct public_key **out, char *why, size_t why_size)
{
    uint8_t der[KEY_SPKI_MAX];
    enum key_kind kind = KEY_RSA;
    unsigned bits = 0;
    const mbedtls_pk_type_t type = mbedtls_pk_get_type(pk);
    if (type == MBEDTLS_PK_RSA) {
        TRY(check_rsa(mbedtls_pk_rsa(*pk), &bits, why, why_size));
    } else {
        const struct curve *c = type == MBEDTLS_PK_ECKEY ? curve_of_group(mbedtls_pk_ec(*pk)->grp.id) : NULL;
        if (!c)
            return refuse(ERR_UNSUPPORTED, why, why_size, "a kind of key that is not taken: expected " SUPPORTED);
        kind = c->kind;
        bits = (unsigned)mbedtls_pk_get_bitlen(pk);
    }
    const int len = mbedtls_pk_write_pubkey_der(pk, der, sizeof der); /* it writes to the end */
    if (len <= 0)
        return refuse(ERR_CRYPTO, why, why_size, "%s", err_text(ERR_CRYPTO));
    return public_new(kind, bits, span_of(der + sizeof der - len, (size_t)len), span_of(NULL, 0), out, why, why_size);
}

static enum err public_of_der(struct span der, struct public_key **out, char *why, size_t why_size)
{
    if (der.len == sizeof ed25519_spki + ED25519_BYTES && memcmp(der.data, ed25519_spki, sizeof ed25519_spki) == 0)
        return public_of_ed25519(span_of(der.data + sizeof ed25519_spki, ED25519_BYTES), out, why, why_size);

    mbedtls_pk_context pk;
    mbedtls_pk_init(&pk);
    unsigned char *at = (unsigned char *)(uintptr_t)der.data; /* it only moves the pointer */
    const int rc = mbedtls_pk_parse_subpubkey(&at, der.data + der.len, &pk);
    enum err e;
    if (rc == MBEDTLS_ERR_PK_ALLOC_FAILED)
        e = no_memory(why, why_size);
    else if (rc == 0 && at == der.data + der.len)
        e = public_of_pk(&pk, out, why, why_size);
    else if (rc == MBEDTLS_ERR_ECP_FEATURE_UNAVAILABLE)
        e = refuse(ERR_UNSUPPORTED, why, why_size, "a compressed point: expected an uncompressed one");
    else if (rc == MBEDTLS_ERR_PK_UNKNOWN_PK_ALG || rc == MBEDTLS_ERR_PK_UNKNOWN_NAMED_CURVE)
        e = refuse(ERR_UNSUPPORTED, why, why_size, "a kind of key that is not taken: expected " SUPPORTED);
    else
        e = refuse(ERR_SYNTAX, why, why_size, "a malformed public key: expected a SubjectPublicKeyInfo of " SUPPORTED);
    mbedtls_pk_free(&pk);
    if (e == OK && (*out)->kind != KEY_RSA && !span_equal(public_key_spki(*out), der)) {
        public_key_free(*out);
        *out = NULL;
        e = refuse(ERR_SYNTAX, why, why_size, "an ECDSA key in unusual form: expected DER with a named curve");
    }
    return e;
}

/* -- text -- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The 32 bytes of a line of base64, blanks around it. */
static bool line_decode(struct span text, uint8_t out[ED25519_BYTES])
{
    size_t len = 0;
    while (text.len && is_blank(text.data[0]))
        text = span_of(text.data + 1, text.len - 1);
    while (text.len && is_blank(text.data[text.len - 1]))
        text.len--;
    return text.len == KEY_TEXT - 1 &&
           base64_decode((const char *)text.data, text.len, out, ED25519_BYTES, &len) == OK && len == ED25519_BYTES;
}

/* A copy that ends with a NUL, as mbedTLS's reader of PEM wants it. Errors: SYNTAX, NOMEM. */
static enum err text_copy(struct span text, char **out)
{
    if (text.len > TEXT_MAX || (text.len && memchr(text.data, 0, text.len)))
        return ERR_SYNTAX;
    char *copy = secret_alloc(text.len + 1);
    if (!copy)
        return ERR_NOMEM;
    if (text.len)
        memcpy(copy, text.data, text.len);
    *out = copy;
    return OK;
}

/* What stands between the lines of this label. Errors: SYNTAX, NOMEM. */
static enum err pem_find(const char *text, const char *label, mbedtls_pem_context *pem)
{
    char begin[64], end[64];
    size_t used;
    snprintf(begin, sizeof begin, "-----BEGIN %s-----", label);
    snprintf(end, sizeof end, "-----END %s-----", label);
    const int rc = mbedtls_pem_read_buffer(pem, begin, end, (const unsigned char *)text, NULL, 0, &used);
    if (rc == 0)
        return OK;
    return rc == MBEDTLS_ERR_PEM_ALLOC_FAILED ? ERR_NOMEM : ERR_SYNTAX;
}

static enum err public_of_pem(struct span text, struct public_key **out, char *why, size_t why_size)
{
    char *copy = NULL;
    mbedtls_pem_context pem;
    enum err e = text_copy(text, &copy);
    mbedtls_pem_init(&pem);
    if (e == OK)
        e = pem_find(copy, "PUBLIC KEY", &pem);
    if (e == OK)
        e = public_of_der(span_of(pem.buf, pem.buflen), out, why, why_size);
    else if (e == ERR_NOMEM)
        e = no_memory(why, why_size);
    else
        e = refuse(ERR_SYNTAX, why, why_size,
                   "no public key: expected 44 characters of base64, or PEM with a PUBLIC KEY");
    mbedtls_pem_free(&pem);
    secret_free(copy);
    return e;
}

enum err public_key_parse(struct span text, struct public_key **out, char *why, size_t why_size)
{
    uint8_t point[ED25519_BYTES];
    if (line_decode(text, point))
        return public_of_ed25519(span_of(point, sizeof point), out, why, why_size);
    if (text.len && text.data[0] == DER_SEQUENCE)
        return public_of_der(text, out, why, why_size);
    return public_of_pem(text, out, why, why_size);
}

/* -- private keys -- */

/* Takes the public half over, also when it fails. */
static enum err private_new(struct public_key *public, struct span secret, struct private_key **out, char *why,
                            size_t why_size)
{
    struct private_key *k = secret_alloc(sizeof *k + secret.len);
    if (!k) {
        public_key_free(public);
        return no_memory(why, why_size);
    }
    atomic_init(&k->refs, 1);
    k->public = public;
    k->len = secret.len;
    memcpy(k->secret, secret.data, secret.len);
    *out = k;
    return OK;
}

static enum err private_of_seed(const uint8_t *seed, struct private_key **out, char *why, size_t why_size)
{
    uint8_t point[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
    struct public_key *public = NULL;
    crypto_sign_seed_keypair(point, secret, seed);
    enum err e = public_of_ed25519(span_of(point, sizeof point), &public, why, why_size);
    if (e == OK)
        e = private_new(public, span_of(secret, sizeof secret), out, why, why_size);
    secret_wipe(secret, sizeof secret);
    return e;
}

static enum err private_of_rsa(mbedtls_pk_context *pk, struct public_key *public, struct private_key **out, char *why,
                               size_t why_size)
{
    if (mbedtls_rsa_check_privkey(mbedtls_pk_rsa(*pk)) != 0) {
        public_key_free(public);
        return refuse(ERR_SYNTAX, why, why_size, "the numbers of the RSA key do not belong together");
    }
    uint8_t *der = secret_alloc(RSA_PRIVATE_MAX);
    const int len = der ? mbedtls_pk_write_key_der(pk, der, RSA_PRIVATE_MAX) : 0;
    enum err e;
    if (len > 0) {
        e = private_new(public, span_of(der + RSA_PRIVATE_MAX - len, (size_t)len), out, why, why_size);
    } else {
        public_key_free(public);
        e = no_memory(why, why_size);
    }
    secret_free(der);
    return e;
}

/* The public half is in the file as well, or should be: one that is another key's would make signatures that fail. */
static bool pair_matches(mbedtls_ecp_keypair *ec)
{
    mbedtls_ecp_point q;
    struct random_source rnd = random_system;
    mbedtls_ecp_point_init(&q);
    const bool matches = mbedtls_ecp_check_privkey(&ec->grp, &ec->d) == 0 &&
                         mbedtls_ecp_mul(&ec->grp, &q, &ec->d, &ec->grp.G, sig_random, &rnd) == 0 &&
                         mbedtls_ecp_point_cmp(&q, &ec->Q) == 0;
    mbedtls_ecp_point_free(&q);
    return matches;
}

static enum err private_of_ec(mbedtls_pk_context *pk, struct public_key *public, struct private_key **out, char *why,
                              size_t why_size)
{
    uint8_t scalar[CURVE_BYTES_MAX];
    mbedtls_ecp_keypair *ec = mbedtls_pk_ec(*pk);
    const size_t len = curve_of_kind(public->kind)->bytes;
    enum err e;
    if (pair_matches(ec) && mbedtls_mpi_write_binary(&ec->d, scalar, len) == 0) {
        e = private_new(public, span_of(scalar, len), out, why, why_size);
    } else {
        public_key_free(public);
        e = refuse(ERR_SYNTAX, why, why_size, "the halves of the ECDSA key do not belong together");
    }
    secret_wipe(scalar, sizeof scalar);
    return e;
}

/* PKCS#8 with an Ed25519 key (RFC 8410 section 7, RFC 5958); mbedTLS 2.28 does not know it. NULL: it is none. */
static const uint8_t *pkcs8_seed(struct span der)
{
    uint8_t version;
    struct reader r = reader_of(der), body = der_enter(&r, DER_SEQUENCE);
    der_read_uint(&body, &version, 1);
    struct reader algorithm = der_enter(&body, DER_SEQUENCE);
    const bool ed25519 = span_equal(der_read(&algorithm, DER_OID), span_of(ed25519_oid, sizeof ed25519_oid));
    struct reader key = der_enter(&body, DER_OCTET_STRING);
    const struct span seed = der_read(&key, DER_OCTET_STRING);
    /* What follows are attributes and the public key (version 1), of which the seed knows better. */
    if (!ed25519 || version > 1 || body.failed || !reader_done(&r) || !reader_done(&algorithm) || !reader_done(&key) ||
        seed.len != ED25519_BYTES)
        return NULL;
    return seed.data;
}

static enum err private_of_pk(mbedtls_pk_context *pk, struct private_key **out, char *why, size_t why_size)
{
    struct public_key *public = NULL;
    TRY(public_of_pk(pk, &public, why, why_size));
    return public->kind == KEY_RSA ? private_of_rsa(pk, public, out, why, why_size)
                                   : private_of_ec(pk, public, out, why, why_size);
}

/* Every kind but Ed25519. */
static enum err private_of_pem(const char *text, struct private_key **out, char *why, size_t why_size)
{
    mbedtls_pk_context pk;
    enum err e;
    mbedtls_pk_init(&pk);
    switch (mbedtls_pk_parse_key(&pk, (const unsigned char *)text, strlen(text) + 1, NULL, 0)) {
    case 0:
        e = private_of_pk(&pk, out, why, why_size);
        break;
    case MBEDTLS_ERR_PK_PASSWORD_REQUIRED:
    case MBEDTLS_ERR_PEM_UNKNOWN_ENC_ALG:
        e = refuse(ERR_UNSUPPORTED, why, why_size,
                   "the private key is encrypted: expected it without a pass phrase ('openssl pkey' takes it off)");
        break;
    case MBEDTLS_ERR_PK_UNKNOWN_PK_ALG:
    case MBEDTLS_ERR_PK_UNKNOWN_NAMED_CURVE:
        e = refuse(ERR_UNSUPPORTED, why, why_size, "a kind of key that is not taken: expected " SUPPORTED);
        break;
    case MBEDTLS_ERR_PK_ALLOC_FAILED:
    case MBEDTLS_ERR_PEM_ALLOC_FAILED:
        e = no_memory(why, why_size);
        break;
    default:
        e = refuse(ERR_SYNTAX, why, why_size,
                   "no private key: expected 44 characters of base64, as 'adit genkey' prints them, or PEM with a "
                   "PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY");
        break;
    }
    mbedtls_pk_free(&pk);
    return e;
}

static enum err private_of_text(const char *text, struct private_key **out, char *why, size_t why_size)
{
    mbedtls_pem_context pem;
    mbedtls_pem_init(&pem);
    const uint8_t *seed = NULL;
    if (pem_find(text, "PRIVATE KEY", &pem) == OK)
        seed = pkcs8_seed(span_of(pem.buf, pem.buflen));
    enum err e = seed ? private_of_seed(seed, out, why, why_size) : private_of_pem(text, out, why, why_size);
    mbedtls_pem_free(&pem);
    return e;
}

enum err private_key_parse(struct span text, struct private_key **out, char *why, size_t why_size)
{
    uint8_t seed[ED25519_BYTES];
    char *copy = NULL;
    enum err e;
    if (line_decode(text, seed)) {
        e = private_of_seed(seed, out, why, why_size);
    } else {
        e = text_copy(text, &copy);
        if (e == OK)
            e = private_of_text(copy, out, why, why_size);
        else if (e == ERR_NOMEM)
            e = no_memory(why, why_size);
        else
            e = refuse(e, why, why_size, "no private key: expected text of at most %d bytes", TEXT_MAX);
    }
    secret_wipe(seed, sizeof seed);
    secret_free(copy);
    return e;
}

/* -- owners -- */

const struct public_key *private_key_public(const struct private_key *k)
{
    return k->public;
}

struct private_key *private_key_ref(struct private_key *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void private_key_free(struct private_key *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
        return;
    public_key_free(k->public);
    secret_free(k);
}

struct public_key *public_key_ref(struct public_key *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void public_key_free(struct public_key *k)
{
    if (k && atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) == 1)
        free(k);
}

/* -- what a key says of itself -- */

enum key_kind public_key_kind(const struct public_key *k)
{
    return k->kind;
}

unsigned public_key_bits(const struct public_key *k)
{
    return k->bits;
}

struct span public_key_spki(const struct public_key *k)
{
    return span_of(k->spki, k->spki_len);
}

bool public_key_equal(const struct public_key *a, const struct public_key *b)
{
    return span_equal(public_key_spki(a), public_key_spki(b));
}

void public_key_fingerprint(const struct public_key *k, uint8_t out[KEY_FINGERPRINT])
{
    _Static_assert(KEY_FINGERPRINT == crypto_hash_sha256_BYTES, "SHA-256");
    crypto_hash_sha256(out, k->spki, k->spki_len);
}

const char *public_key_text(const struct public_key *k, char *text, size_t size)
{
    const struct curve *c = curve_of_kind(k->kind);
    if (c)
        snprintf(text, size, "ECDSA %s", c->name);
    else if (k->kind == KEY_RSA)
        snprintf(text, size, "RSA %u", k->bits);
    else
        snprintf(text, size, "Ed25519");
    return text;
}

bool public_key_line(const struct public_key *k, char text[KEY_TEXT])
{
    if (k->kind != KEY_ED25519)
        return false;
    base64_encode(public_key_point(k), text, KEY_TEXT);
    return true;
}

enum err public_key_pem(const struct public_key *k, struct buf *out)
{
    unsigned char text[KEY_SPKI_MAX * 3 / 2 + 100]; /* base64 with its line ends, and two lines around it */
    size_t len;
    if (mbedtls_pem_write_buffer("-----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----\n", k->spki, k->spki_len,
                                 text, sizeof text, &len) != 0 ||
        len == 0)
        return ERR_NOMEM;                        /* it fails for nothing else */
    return buf_set(out, span_of(text, len - 1)); /* without its NUL */
}
