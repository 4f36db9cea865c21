/*
 * Datagrams of raw sockets that are longer than the path carries whole. The kernel refuses what its device has no room
 * for, and never fragments IPv6 that it did not write the header of: what may be fragmented is cut here, after ESP or AH,
 * as RFC 4303 section 3.3.4 and RFC 4302 section 3.3.4 have it. (UDP sockets leave that to the kernel.)
 */
#include "core/worker_impl.h"
#include "crypto/random.h"
#include "tun/cut.h"
#include "tun/raw.h"

static enum err begin(struct worker *w, struct cut *c, uint8_t *packet, uint32_t len, uint8_t protocol, uint32_t max)
{
    struct ip_view v;
    struct ip_insertion in;
    uint32_t id;
    TRY(ip_view_parse(&v, span_of(packet, len)));
    if (v.ipv6) {
        TRY(ip_view_find(&v, packet, protocol, &in));
        random_bytes(&id, sizeof id); /* what counts up would tell of other traffic (RFC 7739 section 2) */
        return cut_begin_ipv6(c, span_of(packet, len), &in, max, id);
    }
    if (!get_be16(packet + IPV4_ID)) /* of AH there is one already, and it is covered */
        put_be16(packet + IPV4_ID, frame_identification(w));
    return cut_begin(c, span_of(packet, len), max);
}

bool pieces_send(struct worker *w, struct loop_io *io, const struct loop_tx *whole, uint8_t protocol, uint32_t max)
{
    struct cut c;
    uint8_t *packet = whole->slot->data + (whole->data - whole->slot->data);
    if (begin(w, &c, packet, whole->len, protocol, max) != OK)
        return false;
    struct loop_slot *slot = loop_slot_get(w->loop);
    if (!slot)
        return false;
    struct loop_tx piece = *whole;
    piece.slot = slot;
    for (uint32_t used = 0; (piece.len = cut_size(&c)) != 0 && piece.len <= LOOP_SLOT_SIZE - used; used += piece.len) {
        piece.data = slot->data + used;
        cut_next(&c, slot->data + used);
        loop_send(w->loop, io, &piece);
        worker_count(w, STAT_TX_CALLS, 1);
        worker_count(w, STAT_TX_DATAGRAMS, 1);
    }
    loop_slot_put(w->loop, slot);
    return true;
}
