/*
 * Reverse-path filtering (RFC 3704) against a policy that covers the peer's own address. The peer's ESP arrives on the
 * real interface while the route back to that address leads into the TUN: the strict filter (rp_filter = 1) would drop
 * it. The mark that keeps our own packets out of the TUN is no help, since what arrives carries none unless a firewall
 * puts it there; for those that do, src_valid_mark is set. So strict becomes loose (2) while the daemon runs.
 */
#ifndef ADIT_RP_FILTER_H
#define ADIT_RP_FILTER_H

#include <net/if.h>
#include <stdbool.h>

#define RP_FILTER_MAX 32

struct rp_filter {
    bool mark;      /* src_valid_mark was turned on */
    unsigned count; /* interfaces (or "all") made loose */
    char names[RP_FILTER_MAX][IFNAMSIZ];
};

/*
 * To be called again when something may be strict once more. Where /proc/sys is not to be written (a container), or
 * nothing is strict, nothing happens: false.
 */
bool rp_filter_loosen(struct rp_filter *r);
void rp_filter_restore(struct rp_filter *r);

#endif
