/*
 * Whole daemons without a process: engine, data plane and one worker each, on a network in memory and in virtual time.
 * Two hosts, 192.0.2.1 and 192.0.2.2, with 10.1.0.0/24 and fd00:1::/32 behind the first, 10.2 and fd00:2 behind the
 * second.
 */
#ifndef ADIT_TEST_RIG_H
#define ADIT_TEST_RIG_H

#include "core/dataplane.h"
#include "core/flow_log.h"
#include "core/worker.h"
#include "tun/memory.h"

struct rig_host {
    struct rig *rig;
    struct config *config;
    struct worker_shared shared;
    struct timer_heap timers;
    struct dataplane *dataplane;
    struct ike_engine *engine;
    struct loop *loop;
    struct worker *worker;
    struct stat_block stats;
    struct random_seeded random;
    struct ike_job *jobs[64];
    unsigned job_count;
    int tun, udp[2], raw[2];            /* raw: of protocols 50 and 51 */
    struct endpoint at;                 /* without port */
    unsigned up, down, failed, rekeyed; /* Child SA events */
    char last_failure[512];
    struct audit_event audits[64]; /* the first ones */
    unsigned audit_count;
    struct flow_record flows[64]; /* likewise */
    unsigned flow_count;
};

/* What a rig is if it is not what is said above. */
struct rig_layout {
    char suffix[32]; /* what stands behind each prefix of the second host, such as "[udp/53]" */
    bool ipv6;       /* outside: 2001:db8::1 and 2001:db8::2 */
    bool hosts;      /* what they protect is the traffic between themselves */
    bool nat;        /* the first is behind a NAT and seems to be 203.0.113.7 */
};

struct rig {
    struct memory_net *net;
    char extra[256];
    struct rig_layout layout;
    struct rig_host host[2];
    ns_t now;
    unsigned path_mtu; /* of host 0's datagrams: longer ones vanish; 0: none do. The link's is 1500 */
    unsigned probes;   /* host 0's, by now */
    bool keep_wire;    /* keep ESP datagrams below, for replays; and what raw sockets send */
    unsigned wire_count;
    struct {
        struct endpoint from, to;
        size_t len;
        uint8_t data[2048];
    } wire[64];
    uint64_t marker_seen; /* how often the marker was found on the wire */
    uint64_t esp_seen;
};

#define RIG_MTU 1400 /* of the TUN devices */
#define RIG_MARKER "plaintext-marker"

/* extra: lines for [peer] of both sides, e.g. "esp = aes128gcm16\n". Nothing is up yet. */
void rig_setup(struct rig *r, uint64_t seed, const char *extra);
void rig_setup_as(struct rig *r, uint64_t seed, const char *extra, const struct rig_layout *layout);
void rig_setup_ports(struct rig *r, uint64_t seed, const char *extra, const char *suffix);
void rig_setup_ipv6(struct rig *r, uint64_t seed, const char *extra);
void rig_teardown(struct rig *r);
/* Host `host` gets another configuration: the same but for `extra`. */
void rig_reload(struct rig *r, unsigned host, const char *extra);
/* The same in two: it is in force; what follows from that. */
struct config *rig_switch(struct rig *r, unsigned host, const char *extra);
void rig_settle(struct rig *r, unsigned host, struct config *old);
/* A host crashes and starts anew: it knows nothing, its peer has heard nothing. */
void rig_restart(struct rig *r, unsigned host, uint64_t seed);

/* Lets virtual time pass in steps of a millisecond. */
void rig_run(struct rig *r, ns_t how_long);
/* Host 0 brings the tunnel up; fails the test if it does not within 30 s. */
void rig_up(struct rig *r);

/* A frame, virtio_net_hdr first, from the network behind a host; and one UDP packet with that payload to the other. */
void rig_inject(struct rig *r, unsigned host, const uint8_t *frame, size_t len);
void rig_send_udp(struct rig *r, unsigned from, bool ipv6, const uint8_t *data, size_t len);

/* A UDP packet of 128 bytes from host 0, to an address of 10.net.0.0/16. */
void rig_inject_udp(struct rig *r, uint8_t net);
/* The SA by which a host sends for its first policy; it is there. */
struct sa *rig_out_sa(const struct rig *r, unsigned host);
uint64_t rig_stat(const struct rig *r, unsigned host, enum stat_id s);

#endif
