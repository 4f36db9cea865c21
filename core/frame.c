/*
 * The framing stage of an outbound SA: from inner packets to the payloads of outer ones (RFC 4303 section 3.3).
 */
#include <string.h>

#include "core/worker_impl.h"
#include "esp/ah.h"
#include "esp/outer.h"
#include "esp/tfc.h"
#include "tun/raw.h"

struct batch *frame_batch(struct worker *w, struct sa *sa, uint32_t bytes)
{
    struct batch *b = &w->out;
    if (b->slot && (b->sa != sa || b->n == TRANSFORM_BATCH || b->used + bytes > LOOP_SLOT_SIZE))
        wire_flush(w);
    if (b->slot)
        return b;
    b->slot = loop_slot_get(w->loop);
    if (!b->slot)
        return NULL;
    b->sa = sa;
    b->used = 0;
    b->n = 0;
    b->path = sa_path(sa);
    return b;
}

uint16_t frame_identification(struct worker *w)
{
    if (++w->identification == 0)
        w->identification = 1;
    return w->identification;
}

/*
 * Room for one more inner packet of that length in front of which all fits that sealing adds, or NULL. Where the socket is
 * a raw one the outer IP header stands before that, and is written here.
 */
static uint8_t *batch_room(struct worker *w, struct sa *sa, uint32_t len, const struct outer *outer)
{
    uint32_t most = OUTER_IPV6 + sa_sealed_len(sa, 6, len) + AH_SCRATCH;
    struct batch *b = most <= LOOP_SLOT_SIZE ? frame_batch(w, sa, most) : NULL;
    if (!b)
        return NULL;
    const struct path *path = &b->path;
    uint8_t *at = b->slot->data + b->used, family = path->remote.ip.family;
    uint32_t sealed_len = sa_sealed_len(sa, family, len);
    bool ah = sa->params.proto == PROTOCOL_AH;
    b->head[b->n] = 0;
    if (path->transport == PATH_RAW) {
        struct writer header = writer_of(at, OUTER_IPV6);
        if (outer_put(&header, outer, &path->local.ip, &path->remote.ip, ah ? RAW_AH : RAW_ESP, sealed_len,
                      ah ? frame_identification(w) : 0) != OK)
            return NULL;
        b->head[b->n] = (uint16_t)writer_len(&header);
    }
    b->used += b->head[b->n] + sealed_len + (ah ? AH_SCRATCH : 0);
    return at + b->head[b->n] + sa_headroom(sa, family);
}

uint32_t frame_largest(const struct worker *w, const struct sa *sa)
{
    uint32_t room = atomic_load_explicit(&w->p.shared->mtu, memory_order_relaxed);
    uint32_t path = atomic_load_explicit(&sa->inner_max, memory_order_relaxed);
    return path && path < room ? path : room;
}

bool frame_room(struct worker *w, struct sa *sa, uint32_t size, struct esp_packet *p)
{
    p->len = sa->params.tfc.n ? tfc_padded(&sa->params.tfc, size, frame_largest(w, sa)) : size;
    p->tfc = (uint16_t)(p->len - size);
    uint8_t *room = batch_room(w, sa, p->len, &p->outer);
    if (!room)
        return false;
    p->data = room;
    p->head = w->out.head[w->out.n];
    p->family = w->out.path.remote.ip.family;
    return true;
}

void frame_add(struct worker *w, const struct esp_packet *p, uint32_t size)
{
    if (p->len > size) /* what lay there before is other people's; and sealed, zeros look like anything else */
        memset(p->data + size, 0, p->len - size);
    w->out.v[w->out.n++] = *p;
}

uint16_t frame_mss(const struct worker *w, const struct sa *sa, bool ipv6)
{
    unsigned headers = ipv6 ? 60 : 40; /* IP and TCP without options */
    unsigned path = atomic_load_explicit(&sa->inner_max, memory_order_relaxed);
    unsigned mss = atomic_load_explicit(ipv6 ? &w->p.shared->mss6 : &w->p.shared->mss4, memory_order_relaxed);
    if (sa->params.mss)
        return sa->params.mss == MSS_KEEP ? 0 : sa->params.mss;
    if (path > headers && (!mss || path - headers < mss))
        mss = path - headers;
    return (uint16_t)mss;
}

/*
 * In tunnel mode each inner packet becomes one outer packet, if it fits the path. Each segment is written where it will
 * be sealed in place, so that the sealed batch is contiguous: a segmented send as it stands.
 */
void frame_packet(struct worker *w, struct sa *sa, struct segments *s)
{
    uint32_t max = atomic_load_explicit(&sa->inner_max, memory_order_relaxed);
    bool over = max && segment_size(s, 0) > max;
    if (over && !frame_oversize(w, sa, s, max))
        return;
    uint16_t mss = s->count == 1 ? frame_mss(w, sa, s->ipv6) : 0;
    struct esp_packet p = {
        .next_header = s->ipv6 ? NEXT_HEADER_IPV6 : NEXT_HEADER_IPV4,
        .outer = outer_of(sa, s->packet), /* segments of one packet have one header */
    };
    if (over) /* it shall pass, and can only in fragments */
        p.outer.df = false;
    if (sa->params.mode == MODE_TRANSPORT) {
        frame_transport(w, sa, s, &p.outer, mss);
        return;
    }
    while (segment_more(s)) {
        uint32_t size = segment_size(s, s->next);
        if (!frame_room(w, sa, size, &p)) {
            worker_sa_drop(w, STAT_DROP_OUT_NO_BUFFER, s->count - s->next, sa);
            return;
        }
        segment_next(s, p.data);
        if (mss)
            clamp_mss(p.data, size, mss);
        frame_add(w, &p, size);
    }
}

bool frame_dummy(struct worker *w, struct sa *sa, uint32_t len)
{
    struct outer outer = outer_of_dummy(sa);
    uint8_t *inner = batch_room(w, sa, len, &outer);
    if (!inner)
        return false;
    memset(inner, 0, len);
    w->out.v[w->out.n++] = (struct esp_packet){
        .data = inner,
        .len = len,
        .next_header = NEXT_HEADER_NONE,
        .tfc = (uint16_t)len,
        .outer = outer,
    };
    return true;
}
