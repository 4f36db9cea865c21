/*
 * Transport mode carries whole datagrams (RFC 4303 section 3.1.1), and the host has cut up what is longer than the TUN's
 * MTU: its fragments are put together, and the datagram leaves in fragments of the outer packet (section 3.3.4): the
 * kernel's in UDP, else those of pieces.c.
 */
#include "core/worker_impl.h"
#include "esp/outer.h"

/* It gets a batch of its own: it is too long for a segmented send with others. */
static void frame_whole(struct worker *w, struct sa *sa, struct span whole)
{
    struct segments s;
    wire_flush(w);
    if (segment_begin(&s, whole) != OK) {
        worker_sa_drop(w, STAT_DROP_OUT_MALFORMED, 1, sa);
        return;
    }
    struct outer outer = outer_of(sa, s.packet);
    outer.df = false; /* of IPv6 too: this host fragments it */
    frame_transport(w, sa, &s, &outer, 0);
    wire_flush(w);
}

void frame_fragment(struct worker *w, struct sa *sa, struct segments *s)
{
    struct span whole;
    struct span packet = span_of(s->packet, s->len);
    /* A checksum that is still to be made is made by who sends a packet whole: never in a fragment. */
    enum reassembly_result r =
        s->csum ? REASSEMBLY_NONE : reassembly_add(w->reassembly, packet, sa->params.policy_id, worker_now(w), &whole);
    if (r == REASSEMBLY_NONE)
        frame_packet(w, sa, s);
    else if (r == REASSEMBLY_WHOLE)
        frame_whole(w, sa, whole);
}

void fragments_expire(struct worker *w)
{
    if (reassembly_deadline(w->reassembly) != NS_NEVER)
        reassembly_expire(w->reassembly, worker_now(w));
}

void fragments_dropped(void *ctx, uint32_t policy_id, unsigned fragments)
{
    struct worker *w = ctx;
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    const struct spd_entry *entry = spd_find(spd, policy_id);
    worker_drop(w, STAT_DROP_OUT_REASSEMBLY, fragments, entry ? entry->stats : NULL, NULL);
}
