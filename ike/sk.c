/*
 * The SK payload (RFC 7296 section 3.14; RFC 5282 for AEADs), and SKF, which holds a piece of one (RFC 7383 section 2.5).
 * Both kinds of suite protect the message from its first byte: an AEAD takes what stands before the IV as associated
 * data, so with SKF the fragment's number and their total too; a MAC covers it, the IV and the ciphertext.
 */
#include "ike/payload.h"

static void put_iv(struct ike_builder *b, const struct suite *s, struct span iv)
{
    b->payload_at = 0;
    b->iv_at = writer_len(&b->w);
    if (iv.len != s->iv_len)
        b->w.failed = true;
    write_span(&b->w, iv);
}

void ike_begin_sk(struct ike_builder *b, const struct suite *s, struct span iv)
{
    b->sk_at = writer_len(&b->w);
    ike_open(b, PAYLOAD_SK); /* its next-payload field is where the first inner payload's type goes */
    put_iv(b, s, iv);
}

void ike_begin_skf(struct ike_builder *b, const struct suite *s, uint16_t number, uint16_t total, struct span iv)
{
    b->sk_at = writer_len(&b->w);
    ike_open(b, PAYLOAD_SKF);
    write_u16(&b->w, number);
    write_u16(&b->w, total);
    put_iv(b, s, iv);
}

/* Padding, as little as aligns text and pad length; then its length. Its content is ours to choose: zero. */
static void pad(struct writer *w, size_t text_len, size_t block)
{
    size_t n = block > 1 ? (block - (text_len + 1) % block) % block : 0;
    uint8_t *p = write_room(w, n + 1);
    if (!p)
        return;
    memset(p, 0, n);
    p[n] = (uint8_t)n;
}

enum err ike_finish_sk(struct ike_builder *b, const struct suite *s, struct keyed *k, size_t *len)
{
    size_t text = b->iv_at + s->iv_len;
    if (b->w.failed)
        return ERR_FULL;
    pad(&b->w, writer_len(&b->w) - text, s->block);
    size_t text_len = writer_len(&b->w) - text;
    uint8_t *icv = write_room(&b->w, s->icv_len);
    write_patch_u16(&b->w, b->sk_at + 2, writer_len(&b->w) - b->sk_at);
    size_t total;
    TRY(ike_finish(b, &total));
    struct transform_op op = {
        .aad = b->w.start,
        .aad_len = (uint16_t)b->iv_at,
        .iv = b->w.start + b->iv_at,
        .src = b->w.start + text,
        .dst = b->w.start + text,
        .len = (uint32_t)text_len,
        .icv = icv,
    };
    TRY(keyed_seal(k, &op, 1));
    *len = total;
    return OK;
}

enum err ike_open_sk(uint8_t *message, struct ike_message *m, const struct suite *s, struct keyed *k, struct span *out)
{
    size_t overhead = (size_t)s->iv_len + s->icv_len;
    if (m->sk_offset == 0 || m->sk_len <= overhead || (m->sk_len - overhead) % s->block != 0)
        return ERR_AUTH;
    uint8_t *body = message + m->sk_offset, *text = body + s->iv_len;
    size_t text_len = m->sk_len - overhead;
    struct transform_op op = {
        .aad = message,
        .aad_len = (uint16_t)m->sk_offset,
        .iv = body,
        .src = text,
        .dst = text,
        .len = (uint32_t)text_len,
        .icv = text + text_len,
    };
    keyed_open(k, &op, 1);
    if (!op.ok)
        return ERR_AUTH;
    /* Only now is anything in the message worth an answer. Nothing but vendor IDs belongs outside (section 1.2). */
    if (m->seen & ~(PAYLOAD_BIT(PAYLOAD_SK) | PAYLOAD_BIT(PAYLOAD_SKF) | PAYLOAD_BIT(PAYLOAD_VENDOR)))
        return ERR_SYNTAX;
    size_t trailer = (size_t)text[text_len - 1] + 1;
    if (trailer > text_len)
        return ERR_SYNTAX;
    *out = span_of(text, text_len - trailer);
    return OK;
}
