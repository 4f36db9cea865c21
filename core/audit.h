/*
 * The audit log of the data plane (RFC 4301 sections 5.1 and 5.2, RFC 4303 section 4): of packets that were discarded,
 * what there is to tell. A worker reports events of fixed size, at a limited rate for each reason; what is above that
 * it counts, and reports the number. The control thread makes a line of each.
 */
#ifndef ADIT_AUDIT_H
#define ADIT_AUDIT_H

#include "core/base/clock.h"
#include "core/base/stat.h"
#include "policy/selector.h"

#define AUDIT_BURST 10              /* lines of one reason at once; then one a second */
#define AUDIT_QUIET (10 * NS_PER_S) /* what was held back is told after that time at the latest */

struct audit_event {
    enum stat_id reason;
    uint32_t held;            /* of this reason, not reported since the last report */
    bool ah;                  /* else ESP */
    bool summary;             /* nothing but that number */
    ns_t wall;                /* nanoseconds since 1970 */
    uint32_t spi;             /* 0: none */
    uint64_t seq;             /* 0: none */
    uint32_t policy_id;       /* SPD_NONE: none */
    struct endpoint from, to; /* outer; family 0: none */
    uint32_t flow;            /* of IPv6, outer: its flow label; 0: none, or not known */
    struct flow inner;        /* family 0: can't be seen */
};

struct audit {
    ns_t next; /* NS_NEVER, or when what was held back is to be told */
    struct {
        unsigned tokens;
        uint32_t held;
        ns_t at; /* of the token that came last; 0: a full bucket */
    } reasons[STAT_DROPS];
};

#define AUDIT_TEXT 900

/*
 * One line. policy: its name, or NULL; local and remote: the selectors of the SA that the packet came on, or should have
 * taken, or NULL. text: AUDIT_TEXT bytes; returns it.
 */
const char *audit_format(const struct audit_event *e, const char *policy, const struct selectors *local,
                         const struct selectors *remote, char *text);

#endif
