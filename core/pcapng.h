/*
 * A capture file as Wireshark reads it: pcapng (draft-ietf-opsawg-pcapng), one interface of whole IP packets, times in
 * nanoseconds. Blocks are appended to a buffer. Errors: NOMEM; RANGE (a packet above 65535 bytes).
 */
#ifndef ADIT_PCAPNG_H
#define ADIT_PCAPNG_H

#include "core/base/buf.h"
#include "core/base/clock.h"

/* Section header and interface description. name: of the interface, as it is shown. */
MUST_USE enum err pcapng_begin(struct buf *out, const char *name);

struct pcapng_packet {
    ns_t wall;        /* nanoseconds since 1970 */
    bool in;          /* it came, or goes */
    struct span head; /* headers, then … */
    struct span data; /* … the rest of the packet */
    const char *comment;
};
MUST_USE enum err pcapng_packet(struct buf *out, const struct pcapng_packet *p);

/* Interface statistics: of all packets there were, how many are missing here. */
MUST_USE enum err pcapng_end(struct buf *out, ns_t wall, uint64_t received, uint64_t dropped);

#endif
