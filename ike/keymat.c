#include "ike/keymat.h"

/* SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr at their longest; also what a pair of Child SAs takes. */
#define KEYMAT_MAX (7 * PRF_MAX)

/* Cuts the next len bytes off the keying material. */
static enum err take(struct reader *r, size_t len, struct secret *out)
{
    struct span part = read_span(r, len);
    if (r->failed)
        return ERR_RANGE;
    return secret_set(out, part);
}

static enum err cut_ike_keys(struct span material, uint16_t prf_id, const struct suite *s, struct ike_keys *out)
{
    struct reader r = reader_of(material);
    unsigned p = prf_len(prf_id);
    TRY(take(&r, p, &out->d));
    TRY(take(&r, s->integ_key_len, &out->ai));
    TRY(take(&r, s->integ_key_len, &out->ar));
    TRY(take(&r, s->encr_key_len, &out->ei)); /* with an AEAD's salt behind it (RFC 5282 section 7.1) */
    TRY(take(&r, s->encr_key_len, &out->er));
    TRY(take(&r, p, &out->pi));
    TRY(take(&r, p, &out->pr));
    out->prf = prf_id;
    return OK;
}

/* Section 2.14: the seven keys out of SKEYSEED. */
static enum err expand(struct ike_keys *out, uint16_t prf_id, const struct suite *s, struct span skeyseed,
                       struct span ni, struct span nr, uint64_t spi_i, uint64_t spi_r)
{
    uint8_t spis[16], material[KEYMAT_MAX];
    put_be64(spis, spi_i);
    put_be64(spis + 8, spi_r);
    struct span seed[] = {ni, nr, span_of(spis, sizeof spis)};
    size_t len = 3 * (size_t)prf_len(prf_id) + 2 * (size_t)s->integ_key_len + 2 * (size_t)s->encr_key_len;
    if (prf_len(prf_id) == 0)
        return ERR_UNSUPPORTED;
    if (len > sizeof material)
        return ERR_RANGE;
    enum err e = prf_plus(prf_id, skeyseed, seed, 3, material, len);
    if (e == OK)
        e = cut_ike_keys(span_of(material, len), prf_id, s, out);
    secret_wipe(material, sizeof material);
    return e;
}

/* The two PRFs of AES take keys of 128 bits, half of them from each nonce's beginning (section 2.14). */
static struct span seed_nonce(uint16_t prf_id, struct span nonce)
{
    const struct algorithm *a = algorithm_find(TRANSFORM_PRF, prf_id, 0);
    return a && a->aes && nonce.len > 8 ? span_of(nonce.data, 8) : nonce;
}

enum err keymat_skeyseed(uint16_t prf_id, struct span ni, struct span nr, struct span g, uint8_t *out)
{
    uint8_t nonces[2 * 256]; /* the key of this prf is Ni | Nr, each at most 256 bytes (section 3.9) */
    struct writer w = writer_of(nonces, sizeof nonces);
    write_span(&w, seed_nonce(prf_id, ni));
    write_span(&w, seed_nonce(prf_id, nr));
    if (w.failed)
        return ERR_RANGE;
    return prf(prf_id, span_of(nonces, writer_len(&w)), &g, 1, out);
}

enum err keymat_ike(struct ike_keys *out, uint16_t prf_id, const struct suite *s, struct span ni, struct span nr,
                    uint64_t spi_i, uint64_t spi_r, const struct kex_secret *g)
{
    uint8_t skeyseed[PRF_MAX];
    enum err e = keymat_skeyseed(prf_id, ni, nr, span_of(g->b, g->len), skeyseed);
    if (e == OK)
        e = expand(out, prf_id, s, span_of(skeyseed, prf_len(prf_id)), ni, nr, spi_i, spi_r);
    secret_wipe(skeyseed, sizeof skeyseed);
    return e;
}

enum err keymat_ike_rekey(struct ike_keys *out, uint16_t prf_id, const struct suite *s, const struct ike_keys *old,
                          struct span ni, struct span nr, uint64_t spi_i, uint64_t spi_r, const struct kex_secret *g)
{
    uint8_t skeyseed[PRF_MAX];
    struct span parts[] = {span_of(g->b, g->len), ni, nr};
    enum err e = prf(old->prf, secret_span(&old->d), parts, 3, skeyseed);
    if (e == OK)
        e = expand(out, prf_id, s, span_of(skeyseed, prf_len(old->prf)), ni, nr, spi_i, spi_r);
    secret_wipe(skeyseed, sizeof skeyseed);
    return e;
}

/* SK_x = prf+ (PPK, SK_x') */
static enum err stir(uint16_t prf_id, struct span ppk, struct secret *key)
{
    uint8_t out[PRF_MAX];
    struct span seed = secret_span(key);
    if (key->len > sizeof out)
        return ERR_RANGE;
    enum err e = prf_plus(prf_id, ppk, &seed, 1, out, key->len);
    if (e == OK)
        memcpy(key->b, out, key->len);
    secret_wipe(out, sizeof out);
    return e;
}

enum err keymat_ppk(struct ike_keys *k, struct span ppk)
{
    TRY(stir(k->prf, ppk, &k->d));
    TRY(stir(k->prf, ppk, &k->pi));
    return stir(k->prf, ppk, &k->pr);
}

/* Section 2.17: initiator to responder first; in each direction encryption before integrity. */
static enum err cut_child_keys(struct span material, const struct suite *s, struct child_keys *out)
{
    struct reader r = reader_of(material);
    TRY(take(&r, s->encr_key_len, &out->encr_i));
    TRY(take(&r, s->integ_key_len, &out->integ_i));
    TRY(take(&r, s->encr_key_len, &out->encr_r));
    return take(&r, s->integ_key_len, &out->integ_r);
}

enum err keymat_child(struct child_keys *out, const struct ike_keys *k, const struct suite *s, struct span ni,
                      struct span nr, const struct kex_secret *g)
{
    uint8_t material[KEYMAT_MAX];
    size_t len = 2 * ((size_t)s->encr_key_len + s->integ_key_len);
    struct span seed[3];
    unsigned n = 0;
    if (len > sizeof material)
        return ERR_RANGE;
    if (g)
        seed[n++] = span_of(g->b, g->len);
    seed[n++] = ni;
    seed[n++] = nr;
    enum err e = prf_plus(k->prf, secret_span(&k->d), seed, n, material, len);
    if (e == OK)
        e = cut_child_keys(span_of(material, len), s, out);
    secret_wipe(material, sizeof material);
    return e;
}

enum err keymat_psk_auth(uint16_t prf_id, struct span psk, const struct secret *sk_p, struct span message,
                         struct span nonce, struct span id_body, uint8_t *out)
{
    static const char pad[] = "Key Pad for IKEv2"; /* 17 octets, no NUL (section 2.15) */
    uint8_t key[PRF_MAX], id_mac[PRF_MAX];
    struct span pad_part = span_of(pad, sizeof pad - 1);
    enum err e = prf(prf_id, psk, &pad_part, 1, key);
    if (e == OK)
        e = prf(prf_id, secret_span(sk_p), &id_body, 1, id_mac);
    if (e == OK) {
        struct span octets[] = {message, nonce, span_of(id_mac, prf_len(prf_id))};
        e = prf(prf_id, span_of(key, prf_len(prf_id)), octets, 3, out);
    }
    secret_wipe(key, sizeof key);
    secret_wipe(id_mac, sizeof id_mac);
    return e;
}

enum err keymat_signed_octets(uint16_t prf_id, const struct secret *sk_p, struct span message, struct span nonce,
                              struct span id_body, struct buf *out)
{
    uint8_t id_mac[PRF_MAX];
    enum err e = prf(prf_id, secret_span(sk_p), &id_body, 1, id_mac);
    if (e == OK)
        e = buf_append(out, message);
    if (e == OK)
        e = buf_append(out, nonce);
    if (e == OK)
        e = buf_append(out, span_of(id_mac, prf_len(prf_id)));
    secret_wipe(id_mac, sizeof id_mac);
    return e;
}
