/*
 * The framing stage of an outbound SA: from inner packets to the payloads of outer ones (RFC 4303 section 3.3).
 */
#include "core/worker_impl.h"

/* Room for one more packet of that sealed length in the current batch, or NULL when all buffers are in flight. */
static uint8_t *batch_room(struct worker *w, struct sa *sa, uint32_t sealed_len)
{
    struct batch *b = &w->out;
    if (b->slot && (b->sa != sa || b->n == TRANSFORM_BATCH || b->used + sealed_len > LOOP_SLOT_SIZE))
        wire_flush(w);
    if (!b->slot) {
        b->slot = loop_slot_get(w->loop);
        if (!b->slot)
            return NULL;
        b->sa = sa;
        b->used = 0;
        b->n = 0;
    }
    uint8_t *at = b->slot->data + b->used;
    b->used += sealed_len;
    return at;
}

/*
 * The framing stage of plain tunnel mode: each inner packet becomes one outer packet. Each segment is written where it
 * will be sealed in place, so that the sealed batch is contiguous: a segmented send as it stands.
 */
void frame_packet(struct worker *w, struct sa *sa, struct segments *s)
{
    uint16_t mss =
        (uint16_t)atomic_load_explicit(s->ipv6 ? &w->p.shared->mss6 : &w->p.shared->mss4, memory_order_relaxed);
    while (segment_more(s)) {
        uint32_t size = segment_size(s, s->next);
        uint32_t sealed_len = esp_sealed_len(&sa->params.suite, size);
        uint8_t *room = sealed_len <= LOOP_SLOT_SIZE ? batch_room(w, sa, sealed_len) : NULL;
        if (!room) {
            worker_count(w, STAT_DROP_OUT_NO_BUFFER, s->count - s->next);
            return;
        }
        uint8_t *inner = room + esp_headroom(&sa->params.suite);
        bool single = s->count == 1;
        segment_next(s, inner);
        if (single && mss)
            clamp_mss(inner, size, mss);
        w->out.v[w->out.n++] = (struct esp_packet){
            .data = inner,
            .len = size,
            .next_header = s->ipv6 ? NEXT_HEADER_IPV6 : NEXT_HEADER_IPV4,
        };
    }
}
