/*
 * Traffic selectors (RFC 4301 section 4.4.1.1; RFC 7296 section 3.13.1): an address range, a protocol, and a port range
 * for protocols that have ports (or ICMP type and code in the two bytes of each end). And lists of them, one for the
 * local side, one for the remote side.
 */
#ifndef ADIT_SELECTOR_H
#define ADIT_SELECTOR_H

#include "core/base/cursor.h"
#include "policy/address.h"

#define SELECTORS_MAX 32

struct selector {
    struct ip_range range;
    uint8_t proto;                  /* 0: any */
    uint16_t port_first, port_last; /* 0..65535: any. 65535..0: OPAQUE (ports not visible) */
};

struct selectors {
    uint8_t n;
    struct selector v[SELECTORS_MAX];
};

#define SELECTOR_TEXT 128

/*
 * What a packet shows of itself. src/dst as in its header. Ports are host order, for ICMP type << 8 | code in both, for
 * the Mobility Header type << 8 in both. ports_known is false (and the ports 0) in non-first fragments and for
 * protocols without ports: RFC 4301 calls them OPAQUE then.
 */
struct flow {
    struct ip src, dst;
    uint16_t src_port, dst_port; /* host order; ICMP: type << 8 | code in both */
    uint8_t proto;
    bool ports_known;
    bool fragment;            /* one of several */
    uint16_t fragment_offset; /* where its payload begins in the whole packet's: 0 in the first */
    uint32_t fragment_id;
    uint8_t dscp_ecn;    /* TOS / traffic class byte */
    uint16_t header_len; /* bytes before the transport header */
    uint32_t packet_len; /* by the header's own length field; 0 if that is 0 (jumbo and GSO packets that exceed it) */
};

/*
 * Reads a packet's flow with its IPv4 options or IPv6 extension headers walked (at most 8). The packet may be shorter
 * than packet_len (a quotation in an ICMP error), but not than its headers and ports; bytes behind packet_len are not
 * looked at. Errors: TRUNCATED, SYNTAX (version, lengths, too many headers).
 */
MUST_USE enum err flow_of(struct span packet, struct flow *out);

/*
 * The same of what an IP header is followed by, of which only these fields are known: header_len counts from there on, and
 * the whole of the payload is looked at. What flow_of_quoted is given besides is then the payload. Errors: as flow_of.
 */
MUST_USE enum err flow_of_payload(const struct ip *src, const struct ip *dst, uint8_t next_header, struct span payload,
                                  struct flow *out);

/*
 * Of an ICMP or ICMPv6 error: the flow that would answer the packet it quotes, addresses and ports reversed, whose SA it
 * belongs to if its own header matches none (RFC 4301 section 6.2). Ports that can't be seen there are not known; for
 * ICMP quoted the answer to an echo request is the reply, and the other way round.
 * Errors: NOTFOUND (no ICMP error, or a fragment), TRUNCATED, SYNTAX (what it quotes is none).
 */
MUST_USE enum err flow_of_quoted(struct span packet, const struct flow *f, struct flow *out);

/*
 * ADDRESS, CIDR or FIRST-LAST, then optionally [PROTO] or [PROTO/PORT]; host bits of a CIDR are dropped. PROTO is a
 * name (tcp udp icmp icmpv6 sctp dccp udplite mh gre esp ah ipip ipv6 igmp ospf l2tp vrrp pim), a number, or "any". PORT:
 *   443, 1000-2000      for protocols with two ports
 *   8, 8(0), 3(0-4), 3-4  for ICMP: a type with all its codes, with one, with some; types; 3(1)-4(2) bounds both ends
 *   5, 5-7              for the Mobility Header: its type
 *   opaque              only packets whose port can't be seen
 * Errors: SYNTAX, RANGE.
 */
MUST_USE enum err selector_parse(const char *text, struct selector *out);
/* Comma-separated list. Errors: SYNTAX, RANGE, FULL. `at` (may be NULL) gets the offending item's text. */
MUST_USE enum err selectors_parse(const char *text, struct selectors *out, char *at, size_t at_size);
const char *selector_format(const struct selector *s, char *text);
/* "a, b, c" into text, cut with "…" where it does not fit; returns text. */
const char *selectors_format(const struct selectors *s, char *text, size_t size);

bool selector_equal(const struct selector *a, const struct selector *b);
bool selectors_equal(const struct selectors *a, const struct selectors *b);
/* One side of a packet. Unknown ports match only a selector of any port, or OPAQUE (RFC 4301 section 4.4.1.1). */
bool selector_matches(const struct selector *s, const struct ip *ip, uint8_t proto, uint16_t port, bool port_known);
bool selector_within(const struct selector *inner, const struct selector *outer);
bool selector_intersect(const struct selector *a, const struct selector *b, struct selector *out); /* false: empty */

/*
 * Out: local is the source; in: local is the destination. Protocols with one "port" (ICMP, Mobility Header) are held
 * against the sender's selector only: local says what may be sent, remote what may be received (RFC 4301 4.4.1.3).
 */
bool selector_sender_only(uint8_t proto); /* one of those protocols */
bool selectors_match_out(const struct selectors *local, const struct selectors *remote, const struct flow *f);
bool selectors_match_in(const struct selectors *local, const struct selectors *remote, const struct flow *f);

#endif
