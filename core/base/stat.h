/*
 * Named counters. One list yields the enum, the name (API: the status command and the metrics print it) and the text.
 * Each worker, and the control thread, owns one block and is its only writer; readers add the blocks up.
 */
#ifndef ADIT_STAT_H
#define ADIT_STAT_H

#include <stdatomic.h>
#include <stdint.h>

#define STAT_LIST(X)                                                                                           \
    /* traffic */                                                                                              \
    X(OUT_PACKETS, "out_packets", "inner packets sealed")                                                      \
    X(OUT_BYTES, "out_bytes", "inner bytes sealed")                                                            \
    X(IN_PACKETS, "in_packets", "inner packets delivered")                                                     \
    X(IN_BYTES, "in_bytes", "inner bytes delivered")                                                           \
    X(TX_DATAGRAMS, "tx_datagrams", "datagrams sent")                                                          \
    X(TX_CALLS, "tx_calls", "send operations, each of one or more datagrams")                                  \
    X(RX_DATAGRAMS, "rx_datagrams", "datagrams received")                                                      \
    X(RX_CALLS, "rx_calls", "receive operations, each of one or more datagrams")                               \
    X(TUN_READS, "tun_reads", "packets read from the TUN device, merged ones counted once")                    \
    X(TUN_WRITES, "tun_writes", "packets written to the TUN device, merged ones counted once")                 \
    X(KEEPALIVES_IN, "keepalives_in", "NAT keepalives received")                                               \
    X(OUT_HELD, "out_held", "outbound packets kept until their policy has an SA")                              \
    X(OUT_TFC_BYTES, "out_tfc_bytes", "bytes of traffic flow confidentiality padding sealed with them")        \
    X(OUT_DUMMIES, "out_dummies", "dummy packets sealed and sent")                                             \
    X(IN_ECN_ODD, "in_ecn_odd", "inner packets whose outer ECN field fits no tunnel (RFC 6040 4.2)")           \
    X(OUT_ICMP_QUOTED, "out_icmp_quoted", "ICMP errors sealed with the traffic that they are about")           \
    X(ICMP_TOLD, "icmp_told", "ICMP errors to senders whose packets are too big for the path")                 \
    X(ICMP_LIMITED, "icmp_limited", "the same, but not sent since there were too many")                        \
    X(ICMP_HEARD, "icmp_heard", "ICMP errors from the network about datagrams of an SA")                       \
    X(ICMP_IGNORED, "icmp_ignored", "ICMP errors from the network about no SA, or not to be believed")         \
    X(FLOWS_LOST, "flows_lost", "flows that had to go before the flow log could tell of them")                 \
    X(BYPASSED, "bypassed", "packets that policy lets pass unprotected")                                       \
    /* drops: what came from the TUN */                                                                        \
    X(DROP_OUT_MALFORMED, "drop_out_malformed", "outbound packet that is no valid IP packet")                  \
    X(DROP_OUT_NO_POLICY, "drop_out_no_policy", "outbound packet that matches no policy")                      \
    X(DROP_OUT_DISCARD, "drop_out_discard", "outbound packet that policy discards")                            \
    X(DROP_OUT_BYPASS, "drop_out_bypass", "outbound packet to bypass, without any raw socket to send it from") \
    X(DROP_OUT_NO_SA, "drop_out_no_sa", "outbound packet whose policy has no SA yet")                          \
    X(DROP_OUT_HOLD_FULL, "drop_out_hold_full", "outbound packet without an SA, and no room left to keep it")  \
    X(DROP_OUT_HOLD_LATE, "drop_out_hold_late", "outbound packet kept for an SA that did not come in time")    \
    X(DROP_OUT_SELECTOR, "drop_out_selector", "outbound packet outside its SA's selectors")                    \
    X(DROP_OUT_EXPIRED, "drop_out_expired", "outbound packet on an SA at its hard limit")                      \
    X(DROP_OUT_TRANSPORT, "drop_out_transport",                                                                \
      "outbound packet that transport mode can't carry: IP options or extension headers in UDP")               \
    X(DROP_OUT_REASSEMBLY, "drop_out_reassembly",                                                              \
      "outbound fragment in transport mode whose datagram did not become whole")                               \
    X(DROP_OUT_TOO_BIG, "drop_out_too_big", "outbound packet too big for the path")                            \
    X(DROP_OUT_FRAGMENT, "drop_out_fragment", "outbound fragment without ports, its first one not seen")       \
    X(DROP_OUT_NO_BUFFER, "drop_out_no_buffer", "outbound packet with all buffers in flight")                  \
    X(DROP_OUT_SEND, "drop_out_send", "datagram that the socket refused")                                      \
    X(DROP_OUT_CRYPTO, "drop_out_crypto", "outbound packet that the crypto engine refused")                    \
    /* drops: what came from the wire */                                                                       \
    X(DROP_IN_RUNT, "drop_in_runt", "datagram too short for ESP or IKE")                                       \
    X(DROP_IN_CUT, "drop_in_cut", "datagram of which, or of whose IP header, the kernel told only a part")     \
    X(DROP_IN_SPI, "drop_in_spi", "ESP packet with an unknown SPI")                                            \
    X(DROP_IN_REPLAY, "drop_in_replay", "ESP packet replayed or left of the window")                           \
    X(DROP_IN_AUTH, "drop_in_auth", "ESP packet whose integrity check failed")                                 \
    X(DROP_IN_PADDING, "drop_in_padding", "ESP packet with wrong padding")                                     \
    X(DROP_IN_DUMMY, "drop_in_dummy", "ESP dummy packet (next header 59), discarded by design")                \
    X(DROP_IN_MALFORMED, "drop_in_malformed", "ESP packet whose content is no valid IP packet")                \
    X(DROP_IN_SELECTOR, "drop_in_selector", "inner packet outside its SA's selectors")                         \
    X(DROP_IN_ECN, "drop_in_ecn", "inner packet that the path marked but that can't be (RFC 6040 4.2)")        \
    X(DROP_IN_FRAGMENT, "drop_in_fragment", "inner fragment without ports, its first one not seen")            \
    X(DROP_IN_EXPIRED, "drop_in_expired", "ESP packet on an SA at its hard limit")                             \
    X(DROP_IN_NO_BUFFER, "drop_in_no_buffer", "inbound packet with all buffers in flight")                     \
    X(DROP_IN_TUN, "drop_in_tun", "inner packet that the TUN device refused")                                  \
    X(DROP_IKE_RING, "drop_ike_ring", "IKE message while the control thread's queue was full")                 \
    X(DROP_EVENT_RING, "drop_event_ring", "worker event while the control thread's queue was full")            \
    /* drops: what never sees the TUN, counted by the firewall */                                              \
    X(DROP_IN_CLEAR, "drop_in_clear", "packet that arrived in the clear, against a policy")                    \
    X(DROP_OUT_CLEAR, "drop_out_clear", "packet that would have left in the clear, against a policy")          \
    /* drops: IKE */                                                                                           \
    X(DROP_IKE_RUNT, "drop_ike_runt", "IKE message shorter than its header or its stated length")              \
    X(DROP_IKE_VERSION, "drop_ike_version", "IKE message of another major version")                            \
    X(DROP_IKE_SPI, "drop_ike_spi", "IKE message of an unknown SA")                                            \
    X(DROP_IKE_SYNTAX, "drop_ike_syntax", "IKE message that does not parse")                                   \
    X(DROP_IKE_AUTH, "drop_ike_auth", "IKE message whose integrity check failed")                              \
    X(DROP_IKE_MSGID, "drop_ike_msgid", "IKE message outside the window")                                      \
    X(DROP_IKE_STATE, "drop_ike_state", "IKE message that its SA's state does not allow")                      \
    X(DROP_IKE_LIMIT, "drop_ike_limit", "IKE message over a limit of size, number or half-open SAs")           \
    X(DROP_IKE_FRAGMENT, "drop_ike_fragment", "IKE fragment not negotiated, out of range, or a duplicate")     \
    X(IKE_RETRANSMITS, "ike_retransmits", "IKE requests sent again")                                           \
    X(IKE_REPLAYED, "ike_replayed", "IKE requests answered again from the cache")

enum stat_id {
#define STAT_ENUM(id, name, text) STAT_##id,
    STAT_LIST(STAT_ENUM)
#undef STAT_ENUM
        STAT_COUNT
};

struct stat_block {
    _Alignas(64) _Atomic uint64_t n[STAT_COUNT];
};

static inline void stat_add(struct stat_block *b, enum stat_id s, uint64_t n)
{
    /* One writer: a plain load and store, made atomic only so that readers see whole values. */
    atomic_store_explicit(&b->n[s], atomic_load_explicit(&b->n[s], memory_order_relaxed) + n, memory_order_relaxed);
}
static inline uint64_t stat_get(const struct stat_block *b, enum stat_id s)
{
    return atomic_load_explicit(&b->n[s], memory_order_relaxed);
}

/* -- of one policy, and of one SA: any worker counts, once a batch or for what is dropped -- */

/* The drops that a policy or an SA may have: those from the first on that belong to what came from TUN and wire. */
#define STAT_DROP_FIRST STAT_DROP_OUT_MALFORMED
#define STAT_DROPS (STAT_DROP_IN_TUN - STAT_DROP_FIRST + 1)

struct drop_stats {
    _Atomic uint64_t n[STAT_DROPS]; /* by enum stat_id less STAT_DROP_FIRST */
};

struct policy_stats {
    _Atomic uint64_t out_packets, out_bytes, in_packets, in_bytes; /* inner */
    struct drop_stats drops;
};

static inline void stat_add_shared(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

const char *stat_name(enum stat_id s);
const char *stat_text(enum stat_id s);

#endif
