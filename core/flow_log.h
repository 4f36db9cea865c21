/*
 * The flow log: of each flow of a policy that has `flow-log`, what it was and how much, told when it is over. A worker
 * keeps the flows that it sees in a table of fixed size; one that is quiet for FLOW_IDLE ends, one that lasts is told
 * every FLOW_LONG and begins anew, and where there is no room the one that was quiet longest makes it. The control
 * thread makes a line of each. A flow whose directions are carried by different workers is told by both.
 */
#ifndef ADIT_FLOW_LOG_H
#define ADIT_FLOW_LOG_H

#include "core/base/clock.h"
#include "core/base/cursor.h"
#include "crypto/siphash.h"
#include "policy/spd.h"

#define FLOW_IDLE (30 * NS_PER_S)
#define FLOW_LONG (600 * NS_PER_S)
#define FLOW_SETS 512 /* a power of two */
#define FLOW_WAYS 8

enum flow_end {
    FLOW_QUIET,   /* nothing for FLOW_IDLE */
    FLOW_LASTING, /* it goes on: what follows is told later */
    FLOW_EVICTED, /* others needed the room */
    FLOW_STOPPED, /* the daemon ends */
};

/* Also the record in the ring. Ports are 0 where there are not two of them. */
struct flow_record {
    struct ip local, remote;
    uint16_t local_port, remote_port;
    uint8_t proto;
    uint8_t action; /* enum policy_action: that of the policy; bypass for what its fail-open let pass in the clear */
    uint8_t end;    /* enum flow_end */
    uint32_t policy_id;       /* spd_entry.base */
    uint32_t spi_out, spi_in; /* of the packet that was the last; 0: none */
    uint64_t out_packets, out_bytes, in_packets, in_bytes;
    uint64_t dropped; /* packets that were not let pass */
    ns_t first, last; /* monotonic; 0: an empty place */
};

/* What becomes of a packet: on an SA, not let pass, past the tunnel in the clear, or that is not known yet. */
enum flow_fate { FLOW_PASSED, FLOW_DROPPED, FLOW_CLEAR, FLOW_HELD };

/* What a packet, or a merged one, adds. */
struct flow_amount {
    bool in;
    enum flow_fate fate;
    uint32_t spi;
    uint64_t packets, bytes;
};

struct flow_log;

MUST_USE enum err flow_log_new(struct flow_log **out); /* Errors: NOMEM */
void flow_log_free(struct flow_log *l);                /* NULL is fine */

/* Takes what is told: false keeps the flow for another attempt where that is possible. */
struct flow_sink {
    void *ctx;
    bool (*put)(void *ctx, const struct flow_record *r);
};

/* False: a flow had to go, and the sink did not take it. */
bool flow_log_add(struct flow_log *l, const struct spd_entry *entry, const struct flow *f, const struct flow_amount *a,
                  ns_t now, const struct flow_sink *sink);
/* Tells what is over; with `all` everything. */
void flow_log_sweep(struct flow_log *l, ns_t now, bool all, const struct flow_sink *sink);
ns_t flow_log_deadline(const struct flow_log *l); /* of the next sweep; NS_NEVER: there are no flows */

/* One JSON object without a newline; wall: what time it is now, likewise in nanoseconds. To be freed; NULL: no memory. */
char *flow_format(const struct flow_record *r, const char *policy, const char *peer, ns_t now, ns_t wall);

#endif
