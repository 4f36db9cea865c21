/*
 * Datagrams of raw sockets that are longer than the path carries whole. The kernel refuses what its device has no room
 * for, and never fragments IPv6 that it did not write the header of: what may be fragmented is cut here, after ESP or AH,
 * as RFC 4303 section 3.3.4 and RFC 4302 section 3.3.4 have it. UDP sockets leave that to the kernel, which knows of the
 * path what ICMP has told it: over IPv6, where no router makes up for that, it is done here too.
 */
#include <string.h>

#include "core/worker_impl.h"
#include "crypto/random.h"
#include "esp/outer.h"
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

/* The checksum, which IPv6 wants (RFC 8200 section 8.1), of a UDP header whose own field is 0, with all behind it. */
static uint16_t udp_checksum(const uint8_t *packet, uint32_t len)
{
    uint64_t sum = pseudo_addresses(packet, true) + PROTO_UDP + len;
    uint16_t folded = (uint16_t)~checksum_fold(checksum_add(sum, packet + IPV6_HEADER, len));
    return folded ? folded : 0xffff;
}

bool pieces_send_udp(struct worker *w, struct loop_io *raw, const struct loop_tx *datagram, const struct path *path,
                     const struct outer *outer, uint32_t max)
{
    struct loop_slot *slot = loop_slot_get(w->loop);
    if (!slot)
        return false;
    uint8_t *udp = slot->data + IPV6_HEADER;
    uint32_t len = UDP_HEADER + datagram->len;
    struct writer header = writer_of(slot->data, IPV6_HEADER);
    bool sent = outer_put(&header, outer, &path->local.ip, &path->remote.ip, PROTO_UDP, len, 0) == OK;
    if (sent) {
        put_be16(udp, path->local.port);
        put_be16(udp + 2, path->remote.port);
        put_be16(udp + UDP_LENGTH, (uint16_t)len);
        put_be16(udp + UDP_CHECKSUM, 0);
        memcpy(udp + UDP_HEADER, datagram->data, datagram->len);
        put_be16(udp + UDP_CHECKSUM, udp_checksum(slot->data, len));
        const struct loop_tx whole = {.slot = slot,
                                      .data = slot->data,
                                      .len = IPV6_HEADER + len,
                                      .to = {.ip = path->remote.ip},
                                      .from = path->local.ip};
        sent = pieces_send(w, raw, &whole, PROTO_UDP, max);
    }
    loop_slot_put(w->loop, slot);
    return sent;
}
