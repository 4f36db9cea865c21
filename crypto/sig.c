#include "crypto/sig.h"

#include <mbedtls/ecdsa.h>
#include <mbedtls/md.h>
#include <mbedtls/pk.h>
#include <mbedtls/rsa.h>
#include <sodium.h>
#include <stdio.h>

#include "crypto/der.h"
#include "crypto/secret.h"
#include "crypto/sig_internal.h"

#define SIGNATURE_MAX (RSA_BITS_MAX / 8)
#define RAW_MAX (2 * CURVE_BYTES_MAX) /* r | s */
#define ALGORITHM_MAX 80              /* the longest AlgorithmIdentifier that we write */

enum family { FAMILY_RSA = 1, FAMILY_RSA_PSS, FAMILY_ECDSA, FAMILY_ED25519 };

struct scheme {
    enum family family;
    enum sig_hash hash;
    unsigned salt; /* bytes; RSA-PSS only */
};

static const struct hash {
    enum sig_hash id;
    mbedtls_md_type_t md;
    unsigned len;
    uint8_t arc; /* the last one of its object identifier, 2.16.840.1.101.3.4.2.x */
    const char *name;
} hashes_known[] = {
    {SIG_SHA2_256, MBEDTLS_MD_SHA256, 32, 1, "SHA2-256"},
    {SIG_SHA2_384, MBEDTLS_MD_SHA384, 48, 2, "SHA2-384"},
    {SIG_SHA2_512, MBEDTLS_MD_SHA512, 64, 3, "SHA2-512"},
};
#define HASHES (sizeof hashes_known / sizeof hashes_known[0])

static const struct hash *hash_of(enum sig_hash id)
{
    for (size_t i = 0; i < HASHES; i++)
        if (hashes_known[i].id == id)
            return &hashes_known[i];
    return NULL;
}

static enum family family_of(enum key_kind kind)
{
    if (curve_of_kind(kind))
        return FAMILY_ECDSA;
    return kind == KEY_RSA ? FAMILY_RSA : FAMILY_ED25519;
}

/* -- AlgorithmIdentifiers (RFC 7427 appendix A, RFC 8420 appendix A) -- */

/* Those that are always the same. RSA has its parameters, which are NULL (RFC 4055); the others must have none. */
static const struct fixed {
    struct scheme scheme;
    uint8_t len;
    uint8_t der[15];
} fixed[] = {
    {{FAMILY_RSA, SIG_SHA2_256, 0}, 15, "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"},
    {{FAMILY_RSA, SIG_SHA2_384, 0}, 15, "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00"},
    {{FAMILY_RSA, SIG_SHA2_512, 0}, 15, "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00"},
    {{FAMILY_ECDSA, SIG_SHA2_256, 0}, 12, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"},
    {{FAMILY_ECDSA, SIG_SHA2_384, 0}, 12, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"},
    {{FAMILY_ECDSA, SIG_SHA2_512, 0}, 12, "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04"},
    {{FAMILY_ED25519, SIG_IDENTITY, 0}, 7, "\x30\x05\x06\x03\x2b\x65\x70"},
};
#define FIXED (sizeof fixed / sizeof fixed[0])

static const uint8_t oid_pss[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a};
static const uint8_t oid_mgf1[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08};
static const uint8_t oid_hash[] = {0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02}; /* the arc follows */

/* A hash's AlgorithmIdentifier; its parameters may be NULL or absent (RFC 4055 section 2.1). NULL: not one of ours. */
static const struct hash *read_hash(struct reader *r)
{
    struct reader algorithm = der_enter(r, DER_SEQUENCE), oid = der_enter(&algorithm, DER_OID);
    const bool sha2 = span_equal(read_span(&oid, sizeof oid_hash), span_of(oid_hash, sizeof oid_hash));
    const uint8_t arc = read_u8(&oid);
    if (der_next_is(&algorithm, DER_NULL) && der_read(&algorithm, DER_NULL).len != 0)
        return NULL;
    for (size_t i = 0; i < HASHES; i++)
        if (sha2 && hashes_known[i].arc == arc && reader_done(&oid) && reader_done(&algorithm))
            return &hashes_known[i];
    return NULL;
}

/*
 * RSASSA-PSS-params (RFC 4055 section 3.1): what is left out would be SHA-1, so that hash, mask and salt must be there.
 * The mask has the same hash. A salt longer than the hash is of no use and not what anybody sends.
 */
static bool read_pss(struct span der, struct scheme *out)
{
    uint8_t salt, trailer = 1;
    struct reader r = reader_of(der), algorithm = der_enter(&r, DER_SEQUENCE);
    const bool pss = span_equal(der_read(&algorithm, DER_OID), span_of(oid_pss, sizeof oid_pss));
    struct reader params = der_enter(&algorithm, DER_SEQUENCE);
    struct reader part = der_enter(&params, DER_CONTEXT + 0);
    const struct hash *hash = read_hash(&part);
    bool whole = reader_done(&part);

    part = der_enter(&params, DER_CONTEXT + 1);
    struct reader mask = der_enter(&part, DER_SEQUENCE);
    const bool mgf1 = span_equal(der_read(&mask, DER_OID), span_of(oid_mgf1, sizeof oid_mgf1));
    const struct hash *mask_hash = read_hash(&mask);
    whole = whole && reader_done(&part) && reader_done(&mask);

    part = der_enter(&params, DER_CONTEXT + 2);
    der_read_uint(&part, &salt, sizeof salt);
    whole = whole && reader_done(&part);
    if (der_next_is(&params, DER_CONTEXT + 3)) {
        part = der_enter(&params, DER_CONTEXT + 3);
        der_read_uint(&part, &trailer, sizeof trailer);
        whole = whole && reader_done(&part);
    }
    if (!pss || !mgf1 || !hash || mask_hash != hash || trailer != 1 || !whole || salt > hash->len ||
        !reader_done(&params) || !reader_done(&algorithm) || !reader_done(&r))
        return false;
    *out = (struct scheme){FAMILY_RSA_PSS, hash->id, salt};
    return true;
}

static bool read_scheme(struct span der, struct scheme *out)
{
    for (size_t i = 0; i < FIXED; i++) {
        if (span_equal(der, span_of(fixed[i].der, fixed[i].len))) {
            *out = fixed[i].scheme;
            return true;
        }
    }
    return read_pss(der, out);
}

#define HASH_ID_LEN (2 + 2 + sizeof oid_hash + 1 + 2)    /* SEQUENCE { OID, NULL } */
#define MASK_LEN (2 + 2 + sizeof oid_mgf1 + HASH_ID_LEN) /* SEQUENCE { OID, hash } */
#define SALT_LEN 3                                       /* INTEGER */

static void write_oid(struct writer *w, struct span oid)
{
    der_write_head(w, DER_OID, oid.len);
    write_span(w, oid);
}

static void write_hash(struct writer *w, const struct hash *hash)
{
    der_write_head(w, DER_SEQUENCE, HASH_ID_LEN - 2);
    der_write_head(w, DER_OID, sizeof oid_hash + 1);
    write_bytes(w, oid_hash, sizeof oid_hash);
    write_u8(w, hash->arc);
    der_write_head(w, DER_NULL, 0);
}

/*
 * RFC 7427 appendix A.4.3 without the trailer field: it has its default value, which DER leaves out (RFC 4055 section
 * 3.1), and there are peers that compare with that form byte for byte.
 */
static void write_pss(struct writer *w, const struct hash *hash)
{
    const uint8_t salt = (uint8_t)hash->len;
    const size_t params = 2 + HASH_ID_LEN + 2 + MASK_LEN + 2 + SALT_LEN;
    der_write_head(w, DER_SEQUENCE, 2 + sizeof oid_pss + 2 + params);
    write_oid(w, span_of(oid_pss, sizeof oid_pss));
    der_write_head(w, DER_SEQUENCE, params);
    der_write_head(w, DER_CONTEXT + 0, HASH_ID_LEN);
    write_hash(w, hash);
    der_write_head(w, DER_CONTEXT + 1, MASK_LEN);
    der_write_head(w, DER_SEQUENCE, MASK_LEN - 2);
    write_oid(w, span_of(oid_mgf1, sizeof oid_mgf1));
    write_hash(w, hash);
    der_write_head(w, DER_CONTEXT + 2, SALT_LEN);
    der_write_uint(w, span_of(&salt, 1));
}

static void write_scheme(struct writer *w, const struct scheme *s)
{
    if (s->family == FAMILY_RSA_PSS)
        write_pss(w, hash_of(s->hash));
    for (size_t i = 0; i < FIXED; i++)
        if (fixed[i].scheme.family == s->family && fixed[i].scheme.hash == s->hash)
            write_bytes(w, fixed[i].der, fixed[i].len);
}

/* -- RSA (RFC 8017) -- */

static bool rsa_verify(const struct public_key *k, const struct scheme *s, mbedtls_md_type_t md, const uint8_t *digest,
                       unsigned digest_len, struct span sig)
{
    mbedtls_pk_context pk;
    mbedtls_pk_init(&pk);
    unsigned char *at = (unsigned char *)(uintptr_t)k->spki; /* it only moves the pointer */
    bool good = false;
    if (mbedtls_pk_parse_subpubkey(&at, k->spki + k->spki_len, &pk) == 0 && sig.len == mbedtls_pk_get_len(&pk)) {
        mbedtls_rsa_context *rsa = mbedtls_pk_rsa(pk);
        const int rc = s->family == FAMILY_RSA_PSS
                           ? mbedtls_rsa_rsassa_pss_verify_ext(rsa, NULL, NULL, MBEDTLS_RSA_PUBLIC, md, digest_len,
                                                               digest, md, (int)s->salt, sig.data)
                           : mbedtls_rsa_rsassa_pkcs1_v15_verify(rsa, NULL, NULL, MBEDTLS_RSA_PUBLIC, md, digest_len,
                                                                 digest, sig.data);
        good = rc == 0;
    }
    mbedtls_pk_free(&pk);
    return good;
}

static enum err rsa_sign(const struct private_key *k, const struct scheme *s, const struct hash *hash,
                         const uint8_t *digest, const struct random_source *rnd, struct writer *out)
{
    mbedtls_pk_context pk;
    struct random_source source = *rnd;
    enum err e = ERR_CRYPTO;
    mbedtls_pk_init(&pk);
    if (mbedtls_pk_parse_key(&pk, k->secret, k->len, NULL, 0) == 0) {
        mbedtls_rsa_context *rsa = mbedtls_pk_rsa(pk);
        uint8_t *sig = write_room(out, mbedtls_pk_get_len(&pk));
        int rc = -1;
        if (sig && s->family == FAMILY_RSA_PSS) {
            mbedtls_rsa_set_padding(rsa, MBEDTLS_RSA_PKCS_V21, (int)hash->md);
            rc = mbedtls_rsa_rsassa_pss_sign_ext(rsa, sig_random, &source, hash->md, hash->len, digest, (int)s->salt,
                                                 sig);
        } else if (sig) {
            rc = mbedtls_rsa_rsassa_pkcs1_v15_sign(rsa, sig_random, &source, MBEDTLS_RSA_PRIVATE, hash->md, hash->len,
                                                   digest, sig);
        }
        e = rc == 0 ? OK : ERR_CRYPTO;
    }
    mbedtls_pk_free(&pk);
    return e;
}

/* -- ECDSA: r | s, each as long as the curve's order (RFC 4754 section 7) -- */

static bool ecdsa_verify(const struct public_key *k, const uint8_t *digest, unsigned digest_len, struct span raw)
{
    const struct curve *c = curve_of_kind(k->kind);
    const struct span point = public_key_point(k);
    mbedtls_ecp_group grp;
    mbedtls_ecp_point q;
    mbedtls_mpi r, s;
    if (raw.len != 2 * c->bytes)
        return false;
    mbedtls_ecp_group_init(&grp);
    mbedtls_ecp_point_init(&q);
    mbedtls_mpi_init(&r);
    mbedtls_mpi_init(&s);
    /* It also refuses an r or s that is zero, or not below the order. */
    const bool good = mbedtls_ecp_group_load(&grp, (mbedtls_ecp_group_id)c->group) == 0 &&
                      mbedtls_ecp_point_read_binary(&grp, &q, point.data, point.len) == 0 &&
                      mbedtls_mpi_read_binary(&r, raw.data, c->bytes) == 0 &&
                      mbedtls_mpi_read_binary(&s, raw.data + c->bytes, c->bytes) == 0 &&
                      mbedtls_ecdsa_verify(&grp, digest, digest_len, &q, &r, &s) == 0;
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&r);
    mbedtls_ecp_point_free(&q);
    mbedtls_ecp_group_free(&grp);
    return good;
}

/* The nonce is made of key and digest (RFC 6979): no weak or repeated random number can give the key away. */
static enum err ecdsa_sign(const struct private_key *k, const struct hash *hash, const uint8_t *digest,
                           const struct random_source *rnd, uint8_t *raw)
{
    const struct curve *c = curve_of_kind(k->public->kind);
    struct random_source source = *rnd;
    mbedtls_ecp_group grp;
    mbedtls_mpi r, s, d;
    mbedtls_ecp_group_init(&grp);
    mbedtls_mpi_init(&r);
    mbedtls_mpi_init(&s);
    mbedtls_mpi_init(&d);
    const bool good =
        mbedtls_ecp_group_load(&grp, (mbedtls_ecp_group_id)c->group) == 0 &&
        mbedtls_mpi_read_binary(&d, k->secret, k->len) == 0 &&
        mbedtls_ecdsa_sign_det_ext(&grp, &r, &s, &d, digest, hash->len, hash->md, sig_random, &source) == 0 &&
        mbedtls_mpi_write_binary(&r, raw, c->bytes) == 0 && mbedtls_mpi_write_binary(&s, raw + c->bytes, c->bytes) == 0;
    mbedtls_mpi_free(&d);
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&r);
    mbedtls_ecp_group_free(&grp);
    return good ? OK : ERR_CRYPTO;
}

/* Ecdsa-Sig-Value (RFC 3279 section 2.2.3), of method 14. */
static bool ecdsa_read(struct span der, size_t bytes, uint8_t *raw)
{
    struct reader r = reader_of(der), body = der_enter(&r, DER_SEQUENCE);
    der_read_uint(&body, raw, bytes);
    der_read_uint(&body, raw + bytes, bytes);
    return reader_done(&body) && reader_done(&r);
}

static void ecdsa_write(struct writer *w, size_t bytes, const uint8_t *raw)
{
    const struct span r = span_of(raw, bytes), s = span_of(raw + bytes, bytes);
    der_write_head(w, DER_SEQUENCE, der_uint_len(r) + der_uint_len(s));
    der_write_uint(w, r);
    der_write_uint(w, s);
}

/* -- every kind -- */

static bool digest_of(mbedtls_md_type_t md, struct span octets, uint8_t *digest)
{
    return mbedtls_md(mbedtls_md_info_from_type(md), octets.data, octets.len, digest) == 0;
}

/* A signature in its form on the wire; ECDSA's is raw, of method 9 to 11, or DER. */
static enum err verify(const struct public_key *k, const struct scheme *s, bool raw_form, struct span sig,
                       struct span octets)
{
    uint8_t digest[MBEDTLS_MD_MAX_SIZE], raw[RAW_MAX];
    bool good = false;
    if (s->family == FAMILY_ED25519) {
        /* RFC 8032 section 5.1.7; libsodium refuses a point of small order, and an s not below the order. */
        good = sig.len == crypto_sign_BYTES &&
               crypto_sign_verify_detached(sig.data, octets.data, octets.len, public_key_point(k).data) == 0;
        return good ? OK : ERR_AUTH;
    }
    const struct hash *hash = hash_of(s->hash);
    if (!digest_of(hash->md, octets, digest))
        return ERR_AUTH;
    if (s->family != FAMILY_ECDSA) {
        good = rsa_verify(k, s, hash->md, digest, hash->len, sig);
    } else if (raw_form) {
        good = ecdsa_verify(k, digest, hash->len, sig);
    } else {
        const size_t bytes = curve_of_kind(k->kind)->bytes;
        if (!ecdsa_read(sig, bytes, raw))
            return ERR_SYNTAX;
        good = ecdsa_verify(k, digest, hash->len, span_of(raw, 2 * bytes));
    }
    return good ? OK : ERR_AUTH;
}

static enum err sign(const struct private_key *k, const struct scheme *s, bool raw_form,
                     const struct random_source *rnd, struct span octets, struct writer *out)
{
    uint8_t digest[MBEDTLS_MD_MAX_SIZE], raw[RAW_MAX];
    if (s->family == FAMILY_ED25519) {
        uint8_t *sig = write_room(out, crypto_sign_BYTES);
        return sig && crypto_sign_detached(sig, NULL, octets.data, octets.len, k->secret) == 0 ? OK : ERR_CRYPTO;
    }
    const struct hash *hash = hash_of(s->hash);
    if (!digest_of(hash->md, octets, digest))
        return ERR_CRYPTO;
    if (s->family != FAMILY_ECDSA)
        return rsa_sign(k, s, hash, digest, rnd, out);
    TRY(ecdsa_sign(k, hash, digest, rnd, raw));
    const size_t bytes = curve_of_kind(k->public->kind)->bytes;
    if (raw_form)
        write_bytes(out, raw, 2 * bytes);
    else
        ecdsa_write(out, bytes, raw);
    return OK;
}

/* -- AUTH data -- */

/* The methods that are one with their curve and hash (RFC 4754 section 3). */
static const struct old_method {
    uint8_t method;
    enum key_kind kind;
    enum sig_hash hash;
} old_methods[] = {
    {SIG_METHOD_RSA, KEY_RSA, SIG_SHA2_256},
    {SIG_METHOD_ECDSA_256, KEY_ECDSA_256, SIG_SHA2_256},
    {SIG_METHOD_ECDSA_384, KEY_ECDSA_384, SIG_SHA2_384},
    {SIG_METHOD_ECDSA_521, KEY_ECDSA_521, SIG_SHA2_512},
};
#define OLD_METHODS (sizeof old_methods / sizeof old_methods[0])

/* The first of these that the peer takes is what we sign with: as strong as the key, and for RSA what everybody has. */
static bool pick_hash(enum key_kind kind, unsigned hashes, enum sig_hash *out)
{
    static const struct {
        enum key_kind kind;
        enum sig_hash hash[3];
    } wishes[] = {
        {KEY_RSA, {SIG_SHA2_256, SIG_SHA2_384, SIG_SHA2_512}},
        {KEY_ECDSA_256, {SIG_SHA2_256, SIG_SHA2_384, SIG_SHA2_512}},
        {KEY_ECDSA_384, {SIG_SHA2_384, SIG_SHA2_512, SIG_SHA2_256}},
        {KEY_ECDSA_521, {SIG_SHA2_512, SIG_SHA2_384, SIG_SHA2_256}},
        {KEY_ED25519, {SIG_IDENTITY, SIG_IDENTITY, SIG_IDENTITY}},
    };
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        for (size_t j = 0; j < 3 && wishes[i].kind == kind; j++) {
            if (hashes & SIG_HASH_BIT(wishes[i].hash[j])) {
                *out = wishes[i].hash[j];
                return true;
            }
        }
    }
    return false;
}

static const struct old_method *old_method_of(enum key_kind kind)
{
    for (size_t i = 0; i < OLD_METHODS; i++)
        if (old_methods[i].kind == kind)
            return &old_methods[i];
    return NULL;
}

static enum err make_digital(const struct private_key *k, unsigned hashes, const struct random_source *rnd,
                             struct span octets, struct writer *w)
{
    uint8_t algorithm[ALGORITHM_MAX];
    struct scheme s = {.family = family_of(k->public->kind)};
    if (!pick_hash(k->public->kind, hashes, &s.hash))
        return ERR_UNSUPPORTED;
    if (s.family == FAMILY_RSA)
        s = (struct scheme){FAMILY_RSA_PSS, s.hash, hash_of(s.hash)->len};
    struct writer a = writer_of(algorithm, sizeof algorithm);
    write_scheme(&a, &s);
    write_u8(w, (uint8_t)writer_len(&a));
    write_bytes(w, algorithm, writer_len(&a));
    return sign(k, &s, false, rnd, octets, w);
}

enum err sig_auth_make(const struct private_key *k, unsigned hashes, const struct random_source *rnd,
                       struct span octets, uint8_t *method, struct buf *data)
{
    uint8_t room[1 + ALGORITHM_MAX + SIGNATURE_MAX];
    struct writer w = writer_of(room, sizeof room);
    const struct old_method *old = old_method_of(k->public->kind);
    if (hashes) {
        TRY(make_digital(k, hashes, rnd, octets, &w));
    } else {
        if (!old)
            return ERR_UNSUPPORTED;
        const struct scheme s = {family_of(old->kind), old->hash, 0};
        TRY(sign(k, &s, true, rnd, octets, &w));
    }
    if (w.failed)
        return ERR_CRYPTO;
    TRY(buf_set(data, span_of(room, writer_len(&w))));
    *method = hashes ? SIG_METHOD_DIGITAL : old->method;
    return OK;
}

static enum err check_digital(const struct public_key *k, unsigned hashes, struct span data, struct span octets)
{
    struct scheme s;
    struct reader r = reader_of(data);
    const struct span algorithm = read_span(&r, read_u8(&r)), sig = read_rest(&r);
    if (r.failed || algorithm.len == 0 || sig.len == 0)
        return ERR_SYNTAX;
    if (!read_scheme(algorithm, &s) || !(hashes & SIG_HASH_BIT(s.hash)))
        return ERR_UNSUPPORTED;
    if (s.family != family_of(k->kind) && !(s.family == FAMILY_RSA_PSS && k->kind == KEY_RSA))
        return ERR_UNSUPPORTED;
    return verify(k, &s, false, sig, octets);
}

/* Method 1: the hash is named only under the signature, so each is tried (RFC 7296 section 3.8). */
static enum err check_rsa(const struct public_key *k, struct span data, struct span octets)
{
    uint8_t digest[MBEDTLS_MD_MAX_SIZE];
    struct scheme s = {.family = FAMILY_RSA};
    for (size_t i = 0; i < HASHES; i++) {
        s.hash = hashes_known[i].id;
        if (verify(k, &s, true, data, octets) == OK)
            return OK;
    }
    /* What old peers make unless told otherwise: it is refused, and the reason given is not "wrong signature". */
    if (digest_of(MBEDTLS_MD_SHA1, octets, digest) && rsa_verify(k, &s, MBEDTLS_MD_SHA1, digest, 20, data))
        return ERR_UNSUPPORTED;
    return ERR_AUTH;
}

enum err sig_auth_check(const struct public_key *k, unsigned hashes, uint8_t method, struct span data,
                        struct span octets)
{
    if (method == SIG_METHOD_DIGITAL)
        return check_digital(k, hashes, data, octets);
    const struct old_method *old = old_method_of(k->kind);
    if (!old || old->method != method)
        return ERR_UNSUPPORTED;
    if (method == SIG_METHOD_RSA)
        return check_rsa(k, data, octets);
    const struct scheme s = {FAMILY_ECDSA, old->hash, 0};
    return verify(k, &s, true, data, octets);
}

static const char *digital_text(struct span data, char *text, size_t size)
{
    static const char *const names[] = {
        [FAMILY_RSA] = "RSA", [FAMILY_RSA_PSS] = "RSA-PSS", [FAMILY_ECDSA] = "ECDSA", [FAMILY_ED25519] = "Ed25519"};
    struct scheme s;
    struct reader r = reader_of(data);
    if (!read_scheme(read_span(&r, read_u8(&r)), &s))
        snprintf(text, size, "a digital signature of unknown algorithm");
    else if (s.family == FAMILY_ED25519)
        snprintf(text, size, "%s", names[s.family]);
    else
        snprintf(text, size, "%s with %s", names[s.family], hash_of(s.hash)->name);
    return text;
}

const char *sig_auth_text(uint8_t method, struct span data, char *text, size_t size)
{
    if (method == SIG_METHOD_DIGITAL)
        return digital_text(data, text, size);
    snprintf(text, size, "method %u", method);
    for (size_t i = 0; i < OLD_METHODS; i++) {
        if (old_methods[i].method != method)
            continue;
        if (method == SIG_METHOD_RSA)
            snprintf(text, size, "RSA");
        else
            snprintf(text, size, "ECDSA %s with %s", curve_of_kind(old_methods[i].kind)->name,
                     hash_of(old_methods[i].hash)->name);
    }
    return text;
}
