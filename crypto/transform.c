#include "crypto/transform.h"

#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"

#ifndef HAVE_IPSEC_MB
const struct backend *const backend_ipsec_mb = NULL;
#endif

struct keyed {
    const struct backend *backend;
    struct suite suite;
    enum transform_dir dir;
    void *state; /* the keys, in secret memory */
};

/* -- suites -- */

enum err suite_of(const struct transform *encr, const struct transform *integ, struct suite *out)
{
    const struct algorithm *e = algorithm_find(TRANSFORM_ENCR, encr->id, encr->key_bits), *i = NULL;
    const bool with_integ = integ && integ->id != INTEG_NONE;

    if (encr->type != TRANSFORM_ENCR || !e)
        return ERR_UNSUPPORTED;
    if (with_integ) {
        i = algorithm_find(TRANSFORM_INTEG, integ->id, integ->key_bits);
        if (integ->type != TRANSFORM_INTEG || !i || i->aead) /* RFC 4543 section 5.3: that one is for AH */
            return ERR_UNSUPPORTED;
    }
    if (e->aead == with_integ)
        return ERR_MISMATCH;

    *out = (struct suite){
        .encr = e->t,
        .mode = e->mode,
        .aead = e->aead,
        .counter_iv = e->counter_iv,
        .implicit_iv = e->implicit_iv,
        .aes = e->aes || (i && i->aes),
        .encr_key_len = e->key_len,
        .salt_len = e->salt_len,
        .iv_len = e->iv_len,
        .block = e->block,
        .icv_len = e->icv_len,
    };
    if (i) {
        out->integ = i->t;
        out->integ_key_len = i->key_len;
        out->icv_len = i->icv_len;
        out->mac = i->prf;
    }
    return OK;
}

enum err suite_of_integ(const struct transform *integ, struct suite *out)
{
    const struct algorithm *i = algorithm_find(TRANSFORM_INTEG, integ->id, integ->key_bits);
    if (integ->type != TRANSFORM_INTEG || !i)
        return ERR_UNSUPPORTED;
    *out = (struct suite){
        .encr = {.type = TRANSFORM_ENCR, .id = ENCR_NONE},
        .integ = i->t,
        .mode = i->mode,
        .aead = i->aead,
        .counter_iv = i->counter_iv,
        .aes = i->aes,
        .salt_len = i->salt_len,
        .iv_len = i->iv_len,
        .block = 1,
        .icv_len = i->icv_len,
        .mac = i->prf,
    };
    if (i->aead) {
        out->encr.key_bits = (uint16_t)((i->key_len - i->salt_len) * 8);
        out->encr_key_len = i->key_len;
    } else {
        out->integ_key_len = i->key_len;
    }
    return OK;
}

const char *suite_text(const struct suite *s, char *text, size_t size)
{
    char encr[32], integ[32];
    transform_text(&s->encr, encr, sizeof encr);
    if (s->encr.id == ENCR_NONE)
        transform_text(&s->integ, text, size);
    else if (s->aead)
        snprintf(text, size, "%s", encr);
    else
        snprintf(text, size, "%s-%s", encr, transform_text(&s->integ, integ, sizeof integ));
    return text;
}

/* -- engines -- */

/* In the order of engine_name(). */
static const struct backend *backend_at(unsigned i)
{
    const struct backend *const all[] = {&backend_mbedtls, &backend_sodium, backend_ipsec_mb};
    return i < sizeof all / sizeof all[0] ? all[i] : NULL;
}

static const struct backend *backend_named(const char *name)
{
    const struct backend *b;
    for (unsigned i = 0; (b = backend_at(i)) != NULL; i++)
        if (strcmp(b->name, name) == 0)
            return b;
    return NULL;
}

enum err engines_start(void)
{
    const struct backend *b;
    for (unsigned i = 0; (b = backend_at(i)) != NULL; i++)
        if (b->start)
            TRY(b->start());
    return OK;
}

const char *engine_name(unsigned i)
{
    const struct backend *b = backend_at(i);
    return b ? b->name : NULL;
}

bool engine_has(const char *engine, const struct suite *s)
{
    const struct backend *b = backend_named(engine);
    return b && b->has(s);
}

/*
 * The fastest first. One order serves every suite (ipsec-mb lacks AES-CCM with keys of 192 bits); nanoseconds for a
 * packet of 64 and of 1,400 bytes, in batches of 32, on one core of a Zen 5 with AVX-512 and VAES (`adit bench` gives
 * those of other machines):
 *
 *                       ipsec-mb      sodium        mbedtls
 *   aes128gcm16          47    99     -             346  4987
 *   aes256gcm16          51   135     162   853     421  5447
 *   chacha20poly1305    232   509     427  1696     311  3196
 *   aes256-sha256       132   466     -             943  6565
 *   aes256-sha512       146   554     -            1250  6341
 *   aes128-sha1         122   316     -             569  3778
 *   aes128-aesxcbc      121   254     -             239  3576
 *   aes128ccm8          144   243     -             205  2417
 *   aes128gmac           48    95     -             306  3999
 */
static const struct backend *backend_best(const struct suite *s, bool any_aad)
{
    const struct backend *const ranking[] = {backend_ipsec_mb, &backend_sodium, &backend_mbedtls};
    for (size_t i = 0; i < sizeof ranking / sizeof ranking[0]; i++)
        if (ranking[i] && ranking[i]->has(s) && (!any_aad || s->mode != CIPHER_CCM || ranking[i]->ccm_aad_any))
            return ranking[i];
    return NULL;
}

const char *engine_for(const struct suite *s)
{
    const struct backend *b = backend_best(s, false);
    return b ? b->name : NULL;
}

/* -- keyed transforms -- */

enum err keyed_new(struct keyed **out, const struct suite *s, enum transform_dir dir, const char *engine,
                   struct span key, struct span integ_key)
{
    const bool any = !engine || strcmp(engine, "auto") == 0;
    const struct backend *b = any ? backend_best(s, !engine) : backend_named(engine);

    if (!b || !b->has(s))
        return ERR_UNSUPPORTED;
    if (key.len != s->encr_key_len || integ_key.len != s->integ_key_len)
        return ERR_RANGE;

    struct keyed *k = calloc(1, sizeof *k);
    if (!k)
        return ERR_NOMEM;
    *k = (struct keyed){.backend = b, .suite = *s, .dir = dir};
    enum err e = b->key(&k->state, s, dir, key, integ_key);
    if (e != OK) {
        free(k);
        return e;
    }
    *out = k;
    return OK;
}

void keyed_free(struct keyed *k)
{
    if (!k)
        return;
    k->backend->unkey(k->state, &k->suite);
    free(k);
}

const char *keyed_engine(const struct keyed *k)
{
    return k->backend->name;
}

static bool fits(const struct keyed *k, const struct transform_op *op)
{
    const struct suite *s = &k->suite;
    if (!s->aead && (uint64_t)op->aad_len + s->iv_len + op->len + op->tail_len > TRANSFORM_MAC_MAX)
        return false;
    return op->len % s->block == 0 && op->tail_len <= (s->aead ? 0 : sizeof op->tail) &&
           (s->mode != CIPHER_CCM || k->backend->ccm_aad_any || op->aad_len <= TRANSFORM_CCM_AAD_MAX);
}

enum err keyed_seal(struct keyed *k, struct transform_op *ops, unsigned n)
{
    if (k->dir != TRANSFORM_SEAL || n == 0 || n > TRANSFORM_BATCH)
        return ERR_RANGE;
    for (unsigned i = 0; i < n; i++)
        if (!fits(k, &ops[i]))
            return ERR_RANGE;
    return k->backend->seal(k->state, &k->suite, ops, n);
}

void keyed_open(struct keyed *k, struct transform_op *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = false;
    if (k->dir != TRANSFORM_OPEN || n > TRANSFORM_BATCH)
        return;
    /* Lengths come from the wire: one that doesn't fit fails alone and parts the batch in two. */
    for (unsigned i = 0; i < n;) {
        unsigned run = 0;
        while (i + run < n && fits(k, &ops[i + run]))
            run++;
        if (run)
            k->backend->open(k->state, &k->suite, ops + i, run);
        i += run + 1;
    }
}
