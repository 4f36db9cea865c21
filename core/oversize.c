/*
 * What is longer than the path to the peer carries whole (RFC 4301 section 8.2.1): the sender is told so, or its packet is
 * cut up, or its datagram is fragmented by the host.
 */
#include "core/worker_impl.h"
#include "tun/cut.h"
#include "tun/icmp.h"

#define IPV4_FLAGS_AT 6
#define IPV4_DF_BIT 0x40
#define IPV4_LEAST 68   /* RFC 791 section 3.2: every path carries that */
#define IPV6_LEAST 1280 /* RFC 8200 section 5: no sender has to go below */

static bool may_tell(struct worker *w)
{
    ns_t now = worker_now(w), each = NS_PER_S / ICMP_PER_S;
    uint64_t more = (now - w->icmp_at) / each;
    if (more > 0) {
        w->icmp_tokens = more >= ICMP_BURST - w->icmp_tokens ? ICMP_BURST : w->icmp_tokens + (unsigned)more;
        w->icmp_at = now;
    }
    if (w->icmp_tokens == 0) {
        worker_count(w, STAT_ICMP_LIMITED, 1);
        return false;
    }
    w->icmp_tokens--;
    return true;
}

/* The first segment stands for all of a superpacket: it is the one that a router would have complained about first. */
static void tell(struct worker *w, struct segments *s, uint32_t max)
{
    struct loop_slot *slot = may_tell(w) ? loop_slot_get(w->loop) : NULL;
    if (!slot)
        return;
    uint8_t *error = slot->data + TUN_HDR_LEN, *packet = error + ICMP_ERROR6_MAX;
    uint32_t size = segment_size(s, 0);
    memset(slot->data, 0, TUN_HDR_LEN);
    if (TUN_HDR_LEN + ICMP_ERROR6_MAX + size <= LOOP_SLOT_SIZE) {
        segment_next(s, packet);
        size_t len = icmp_too_big(span_of(packet, size), max, error);
        struct iovec iov = {.iov_base = slot->data, .iov_len = TUN_HDR_LEN + len};
        if (len) {
            loop_write(w->loop, w->tun, slot, &iov, 1);
            worker_count(w, STAT_ICMP_TOLD, 1);
        }
    }
    loop_slot_put(w->loop, slot);
}

/* Each of its segments becomes fragments that fit, each an ESP packet of its own. */
static void cut_up(struct worker *w, struct sa *sa, struct segments *s, uint32_t max)
{
    struct loop_slot *whole = loop_slot_get(w->loop);
    struct esp_packet p = {.next_header = NEXT_HEADER_IPV4, .outer = outer_of(sa, s->packet)};
    while (whole && segment_more(s)) {
        struct cut c;
        uint32_t size = segment_size(s, s->next), piece;
        segment_next(s, whole->data);
        if (cut_begin(&c, span_of(whole->data, size), max) != OK) {
            worker_sa_drop(w, STAT_DROP_OUT_MALFORMED, 1, sa);
            continue;
        }
        while ((piece = cut_size(&c)) != 0) {
            if (!frame_room(w, sa, piece, &p))
                break; /* the rest of a packet is of no use without it */
            cut_next(&c, p.data);
            frame_add(w, &p, piece);
        }
        if (piece)
            worker_sa_drop(w, STAT_DROP_OUT_NO_BUFFER, 1, sa);
    }
    if (!whole)
        worker_sa_drop(w, STAT_DROP_OUT_NO_BUFFER, s->count - s->next, sa);
    else
        loop_slot_put(w->loop, whole);
}

bool frame_oversize(struct worker *w, struct sa *sa, struct segments *s, uint32_t max)
{
    uint32_t least = s->ipv6 ? IPV6_LEAST : IPV4_LEAST;
    if (max < least)
        max = least;
    if (segment_size(s, 0) <= max)
        return true;
    if (s->ipv6 || s->packet[IPV4_FLAGS_AT] & IPV4_DF_BIT) {
        worker_sa_drop(w, STAT_DROP_OUT_TOO_BIG, s->count, sa);
        tell(w, s, max);
        return false;
    }
    /* Transport mode carries no fragments, and its header has the packet's own DF. */
    bool whole = sa->params.mode == MODE_TRANSPORT;
    if (whole || (!sa->params.fragment_before && sa->params.outer.df != DF_SET))
        return true;
    cut_up(w, sa, s, max);
    return false;
}
