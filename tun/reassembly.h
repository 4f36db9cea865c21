/*
 * IP datagrams put together from their fragments (RFC 791 section 3.2, RFC 8200 section 4.5). Works on memory only, made
 * once: bounded in datagrams and in time, and nothing is allocated for a fragment. Fragments that overlap spoil their
 * datagram, with those still to come (RFC 5722); a copy of one that is there already does no harm.
 */
#ifndef ADIT_REASSEMBLY_H
#define ADIT_REASSEMBLY_H

#include "core/base/clock.h"
#include "core/base/cursor.h"

#define REASSEMBLY_MAX 16               /* datagrams under way; one more takes the place of the oldest */
#define REASSEMBLY_TIME (30 * NS_PER_S) /* from the first fragment to arrive; as long as Linux has */

struct reassembly;

enum reassembly_result {
    REASSEMBLY_WHOLE,   /* the datagram is complete */
    REASSEMBLY_WAITS,   /* for the others */
    REASSEMBLY_DROPPED, /* no use of it */
    REASSEMBLY_NONE,    /* no fragment, or the only one (RFC 6946) */
};

/* dropped: told of every fragment that was taken and comes to nothing, by its tag. Errors: NOMEM. */
MUST_USE enum err reassembly_new(struct reassembly **out, void (*dropped)(void *ctx, uint32_t tag, unsigned fragments),
                                 void *ctx);
void reassembly_free(struct reassembly *r); /* NULL is fine */

/*
 * Takes a copy of a fragment. Only those of one tag are put together. WHOLE: *out is the datagram, without DF, behind a
 * virtio_net_hdr that says nothing: as if it had been read from a TUN. It lies here and may be used until the next call.
 */
enum reassembly_result reassembly_add(struct reassembly *r, struct span packet, uint32_t tag, ns_t now,
                                      struct span *out);
void reassembly_expire(struct reassembly *r, ns_t now);
ns_t reassembly_deadline(const struct reassembly *r); /* when that is due; NS_NEVER if nothing waits */

#endif
