/*
 * Superpackets of the TUN device: cutting them into packets on the way out, and merging packets on the way in, by the
 * rules of virtio_net_hdr. Works on memory only; knows nothing of descriptors.
 */
#ifndef ADIT_OFFLOAD_H
#define ADIT_OFFLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "core/base/loop.h"
#include "tun/device.h"

/* -- cutting -- */

/* One superpacket being cut. Filled by segment_begin, advanced by segment_next; the packet must stay in place. */
struct segments {
    const uint8_t *packet; /* behind the virtio_net_hdr */
    uint32_t len;
    uint32_t header_len;  /* IP and transport headers, repeated in every segment (GSO); 0 when it goes as it is */
    uint32_t segment_len; /* most payload bytes in each segment (GSO) */
    uint32_t count;       /* segments in all; 1 without GSO */
    uint32_t next;        /* index of the next one */
    uint16_t csum_start, csum_offset;
    uint16_t transport; /* offset of the transport header (GSO or csum; otherwise the end of the fixed IP header) */
    uint8_t gso;        /* type without the ECN bit; 0: none */
    bool csum;          /* checksum to be filled in */
    bool ipv6;
    uint64_t ip_sum, transport_sum; /* what the checksums of all segments have in common (GSO) */
};

/*
 * Reads the virtio_net_hdr and headers of one packet from the TUN (`frame` includes the header) and plans the cut.
 * Never trusts hdr_len. Errors: TRUNCATED, SYNTAX (lies in the header or packet), UNSUPPORTED (GSO type).
 */
MUST_USE enum err segment_begin(struct segments *s, struct span frame);
/* Bytes of the largest and of the last segment with headers: all but the last one are as long as the first. */
uint32_t segment_size(const struct segments *s, uint32_t index);
/* Writes segment `next` at out (segment_size bytes: headers put right, checksums complete) and advances. */
void segment_next(struct segments *s, uint8_t *out);
static inline bool segment_more(const struct segments *s)
{
    return s->next < s->count;
}

/* Clamp of the TCP MSS option in a SYN (RFC 879 semantics): lowers it to mss in place with its checksum put right.
 * Packets that are no TCP SYN, or are fragments, are left alone. The checksum must be complete (after segment_next). */
void clamp_mss(uint8_t *packet, size_t len, uint16_t mss);

/* -- merging -- */

#define COALESCE_HEADROOM 16 /* bytes that must be free before each packet in its slot: its virtio_net_hdr goes there */
#define COALESCE_FLOWS 8

/*
 * Merges inner packets, in order, into superpackets and writes each with loop_write. All packets live in one slot,
 * each with COALESCE_HEADROOM bytes before it, and are changed in place. Rules: reference "coalescing": same flow and
 * header fields, contiguous TCP sequence, equal payloads except a shorter last, PSH ends a run, verified checksums;
 * everything else goes verbatim and in order within its flow.
 */
struct coalescer;
MUST_USE enum err coalescer_new(struct coalescer **out, bool uso);
void coalescer_free(struct coalescer *c);
/* Start on a slot (nothing may be pending), add packets, flush: writes to io, returns the number of writes. */
void coalesce_begin(struct coalescer *c, struct loop *loop, struct loop_io *io, struct loop_slot *slot);
void coalesce_add(struct coalescer *c, uint8_t *packet, uint32_t len);
unsigned coalesce_flush(struct coalescer *c);

/*
 * The Internet checksum: a running one's complement sum of bytes, not inverted; fold it with checksum_fold. Host-order
 * values can be added to it as they are (lengths, protocols); every piece but the last has an even length.
 */
uint64_t checksum_add(uint64_t sum, const uint8_t *data, size_t len);
uint64_t checksum_copy(uint64_t sum, uint8_t *dst, const uint8_t *src, size_t len); /* sums while copying */
uint16_t checksum_fold(uint64_t sum); /* host order value of the sum, not inverted */

#endif
