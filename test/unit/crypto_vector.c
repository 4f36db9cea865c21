#include "test/unit/crypto_vector.h"

#include <ctype.h>
#include <stdlib.h>

#include "crypto/prf.h"

static unsigned digit(char c)
{
    if (!isxdigit((unsigned char)c))
        abort();
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(tolower((unsigned char)c) - 'a' + 10);
}

struct span hex(const char *text)
{
    const size_t len = strlen(text);
    if (len % 2)
        abort();
    if (len == 0)
        return span_of(NULL, 0);
    uint8_t *bytes = malloc(len / 2);
    if (!bytes)
        abort();
    for (size_t i = 0; i < len / 2; i++)
        bytes[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    return span_of(bytes, len / 2);
}

void span_free(struct span s)
{
    free((void *)s.data);
}

static void fill_scripted(void *ctx, void *p, size_t n)
{
    struct scripted *s = ctx;
    const size_t take = n < s->left ? n : s->left;
    memset(p, 0, n);
    memcpy(p, s->at, take);
    s->at += take;
    s->left -= take;
}

struct random_source scripted_source(struct scripted *s)
{
    return (struct random_source){s, fill_scripted};
}

struct suite suite_by_name(const char *encr, const char *integ)
{
    struct suite s;
    const struct algorithm *e = algorithm_by_keyword(encr, strlen(encr));
    const struct algorithm *i = integ ? algorithm_by_keyword(integ, strlen(integ)) : NULL;
    if (!e || (integ && !i) || suite_of(&e->t, i ? &i->t : NULL, &s) != OK)
        abort();
    return s;
}

const struct algorithm *algorithm_of_type(uint8_t type, unsigned i)
{
    const struct algorithm *a;
    for (unsigned row = 0; (a = algorithm_at(row)) != NULL; row++)
        if (a->t.type == type && (a->aead <= (type == TRANSFORM_ENCR)) && i-- == 0)
            return a;
    return NULL;
}

bool suite_at(unsigned i, struct suite *out)
{
    const struct algorithm *e, *integ;
    unsigned macs = 0;
    while (algorithm_of_type(TRANSFORM_INTEG, macs))
        macs++;
    for (unsigned row = 0; (e = algorithm_of_type(TRANSFORM_ENCR, row)) != NULL; row++) {
        const unsigned variants = e->aead ? 1 : macs;
        if (i < variants) {
            integ = e->aead ? NULL : algorithm_of_type(TRANSFORM_INTEG, i);
            *out = suite_by_name(e->keyword, integ ? integ->keyword : NULL);
            return true;
        }
        i -= variants;
    }
    for (unsigned row = 0; (integ = algorithm_at(row)) != NULL; row++)
        if (integ->t.type == TRANSFORM_INTEG && i-- == 0)
            return suite_of_integ(&integ->t, out) == OK;
    return false;
}

/* A packet with exactly the bytes it needs, so that AddressSanitizer sees each one too many. */
static uint8_t *packet_of(const struct packet_vector *v, struct span text, struct transform_op *op)
{
    const size_t size = v->aad.len + v->iv.len + text.len + v->suite.icv_len;
    uint8_t *room = malloc(size);
    if (!room)
        abort();
    struct writer w = writer_of(room, size);
    write_span(&w, v->aad);
    write_span(&w, v->iv);
    uint8_t *at = w.at;
    write_span(&w, text);
    *op = (struct transform_op){
        .aad = room,
        .aad_len = (uint16_t)v->aad.len,
        .iv = room + v->aad.len,
        .src = at,
        .dst = at,
        .len = (uint32_t)text.len,
        .icv = w.at,
    };
    return room;
}

bool vector_seals(const char *engine, const struct packet_vector *v)
{
    struct transform_op op;
    struct keyed *k = NULL;
    uint8_t *room = packet_of(v, v->plain, &op);
    bool right = keyed_new(&k, &v->suite, TRANSFORM_SEAL, engine, v->key, v->integ_key) == OK &&
                 keyed_seal(k, &op, 1) == OK && span_equal(span_of(op.dst, op.len), v->cipher) &&
                 span_equal(span_of(op.icv, v->suite.icv_len), v->icv);
    keyed_free(k);
    free(room);
    return right;
}

bool vector_opens(const char *engine, const struct packet_vector *v)
{
    struct transform_op op;
    struct keyed *k = NULL;
    bool right = false;
    uint8_t *room = packet_of(v, v->cipher, &op);
    if (v->icv.len == v->suite.icv_len) {
        memcpy(op.icv, v->icv.data, v->icv.len);
        if (keyed_new(&k, &v->suite, TRANSFORM_OPEN, engine, v->key, v->integ_key) == OK) {
            keyed_open(k, &op, 1);
            right = op.ok && span_equal(span_of(op.dst, op.len), v->plain);
        }
    }
    keyed_free(k);
    free(room);
    return right;
}

void reference_icv(const struct suite *s, struct span integ_key, const struct span *parts, unsigned n, uint8_t *icv)
{
    uint8_t mac[PRF_MAX];
    if (prf(s->mac, integ_key, parts, n, mac) != OK)
        abort();
    memcpy(icv, mac, s->icv_len);
}

void pss_algorithm(unsigned hash, unsigned mask, unsigned salt, uint8_t out[PSS_ALGORITHM])
{
    struct span a = hex("304606092a864886f70d01010a3039a00f300d06096086480165030402010500"
                        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101");
    memcpy(out, a.data, PSS_ALGORITHM);
    out[29] = (uint8_t)hash;
    out[59] = (uint8_t)mask;
    out[66] = (uint8_t)salt;
    span_free(a);
}
