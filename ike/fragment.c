#include "ike/fragment.h"

#include <stdlib.h>

#define UDP_HEADER 8
#define MARKER 4 /* non-ESP marker (RFC 3948 section 2.2) */
#define SKF_HEADER 8
#define LENGTH_AT 24

_Static_assert(FRAGMENTS_MAX <= 64, "one bit each says which have come");

struct fragments {
    struct ike_header h; /* of the first that came */
    ns_t since;
    uint64_t present; /* bit n: fragment n + 1 */
    uint16_t total, count;
    uint8_t first; /* type of the first payload inside, once fragment 1 is there */
    size_t len;    /* of all parts */
    struct buf part[FRAGMENTS_MAX];
};

/* -- sending -- */

size_t fragment_room(const struct path *path, unsigned datagram)
{
    size_t headers = (path->remote.ip.family == 6 ? 40 : 20) + UDP_HEADER + (path->marker ? MARKER : 0);
    return datagram > headers ? datagram - headers : 0;
}

/* Text with its padding and pad length: as many whole blocks as it takes. */
static size_t padded(size_t text, size_t block)
{
    return block > 1 ? (text + 1 + block - 1) / block * block : text + 1;
}

/* The most text that one fragment holds; 0: none. */
static size_t chunk_size(const struct fragment_sealer *f)
{
    size_t overhead = IKE_HEADER_LEN + SKF_HEADER + (size_t)f->suite->iv_len + f->suite->icv_len;
    size_t room = f->max > overhead ? f->max - overhead : 0;
    if (f->suite->block > 1)
        room -= room % f->suite->block;
    return room ? room - 1 : 0;
}

/* Appends fragment `number`; the first one names the type of the first payload inside (section 2.5). */
static enum err put_fragment(struct buf *flight, const struct ike_builder *whole, const struct fragment_sealer *f,
                             uint16_t number, uint16_t total, struct span text)
{
    struct ike_builder b;
    uint8_t iv[TRANSFORM_IV_MAX];
    size_t len;
    f->iv(f->ctx, iv);
    ike_begin(&b, flight->data + flight->len, flight->cap - flight->len, &whole->h);
    ike_begin_skf(&b, f->suite, number, total, span_of(iv, f->suite->iv_len));
    if (number == 1 && !b.w.failed)
        b.w.start[b.sk_at] = whole->w.start[whole->sk_at];
    write_span(&b.w, text);
    TRY(ike_finish_sk(&b, f->suite, f->key, &len));
    flight->len += len;
    return OK;
}

enum err fragment_seal(struct ike_builder *b, const struct fragment_sealer *f, struct buf *flight)
{
    size_t text_at = b->iv_at + f->suite->iv_len, len;
    if (b->w.failed)
        return ERR_FULL;
    size_t left = writer_len(&b->w) - text_at, chunk = chunk_size(f);
    if (text_at + padded(left, f->suite->block) + f->suite->icv_len <= f->max) {
        TRY(ike_finish_sk(b, f->suite, f->key, &len));
        return buf_set(flight, span_of(b->w.start, len));
    }
    size_t total = chunk ? (left + chunk - 1) / chunk : SIZE_MAX;
    if (total > FRAGMENTS_MAX)
        return ERR_FULL;
    struct buf made = {NULL, 0, 0};
    enum err err = buf_reserve(&made, total * f->max);
    const uint8_t *text = b->w.start + text_at;
    for (size_t n = 1; n <= total && err == OK; n++) {
        size_t part = left < chunk ? left : chunk;
        err = put_fragment(&made, b, f, (uint16_t)n, (uint16_t)total, span_of(text, part));
        text += part;
        left -= part;
    }
    buf_free(err == OK ? flight : &made);
    if (err == OK)
        *flight = made;
    return err;
}

struct span flight_next(struct span *flight)
{
    struct reader r = reader_of(*flight);
    read_span(&r, LENGTH_AT);
    uint32_t len = read_u32(&r);
    if (r.failed || len < IKE_HEADER_LEN || len > flight->len)
        len = (uint32_t)flight->len;
    struct span message = span_of(flight->data, len);
    *flight = span_of(len ? flight->data + len : flight->data, flight->len - len);
    return message;
}

/* -- receiving -- */

static uint64_t bit_of(const struct ike_message *m)
{
    return UINT64_C(1) << (m->fragment - 1);
}

bool fragment_wanted(const struct fragments *set, const struct ike_message *m)
{
    if (m->fragment == 0 || m->fragment > m->fragments || m->fragments > FRAGMENTS_MAX)
        return false;
    if (!set)
        return true;
    if (m->h.message_id != set->h.message_id || m->h.exchange != set->h.exchange)
        return false;
    return m->fragments > set->total || (m->fragments == set->total && !(set->present & bit_of(m)));
}

enum err fragment_keep(struct fragments **set, const struct ike_message *m, struct span text, ns_t now)
{
    struct fragments *f = *set && (*set)->total == m->fragments ? *set : NULL, *fresh = NULL;
    if (!f) {
        f = fresh = calloc(1, sizeof *f);
        if (!f)
            return ERR_NOMEM;
        f->h = m->h;
        f->since = now;
        f->total = m->fragments;
    }
    enum err err = text.len > IKE_MESSAGE_MAX - f->len ? ERR_RANGE : buf_set(&f->part[m->fragment - 1], text);
    if (err != OK) {
        free(fresh);
        return err;
    }
    f->len += text.len;
    f->present |= bit_of(m);
    f->count++;
    if (m->fragment == 1)
        f->first = m->sk_first;
    if (fresh) {
        fragments_free(set);
        *set = fresh;
    }
    return OK;
}

bool fragments_join(struct fragments **set, uint8_t *out, struct ike_message *m, struct span *text)
{
    const struct fragments *f = *set;
    struct writer w = writer_of(out, IKE_MESSAGE_MAX);
    if (!f || f->count < f->total)
        return false;
    for (unsigned i = 0; i < f->total; i++)
        write_span(&w, buf_span(&f->part[i]));
    *m = (struct ike_message){.h = f->h, .seen = PAYLOAD_BIT(PAYLOAD_SK), .sk_first = f->first};
    *text = span_of(out, writer_len(&w));
    fragments_free(set);
    return true;
}

bool fragments_expired(const struct fragments *set, ns_t now)
{
    return set && now - set->since >= FRAGMENTS_LIFE;
}

void fragments_free(struct fragments **set)
{
    if (!*set)
        return;
    for (unsigned i = 0; i < (*set)->total; i++)
        buf_free(&(*set)->part[i]);
    free(*set);
    *set = NULL;
}
