/*
 * IP addresses and endpoints as values. Bytes are in network order; an IPv4 address uses b[0..3], the rest is zero, so
 * two addresses are equal exactly when all their bytes are.
 */
#ifndef ADIT_IP_H
#define ADIT_IP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/base/err.h"

struct ip {
    uint8_t family; /* 4, 6, or 0: none */
    uint8_t b[16];
};

struct endpoint {
    struct ip ip;
    uint16_t port; /* host order */
};

/*
 * How a datagram came or shall go: opaque to the IKE engine but for the addresses that NAT detection hashes. `marker`
 * says that IKE messages on it carry the four zero bytes of RFC 3948 section 2.2 (the engine sees messages without it;
 * who sends adds it).
 */
struct path {
    struct endpoint local, remote;
    uint8_t transport; /* enum path_transport */
    bool marker;
};
enum path_transport { PATH_UDP, PATH_RAW }; /* raw: IP protocol 50 or 51, both ports are 0 */

#define IP_TEXT 48       /* room for an address as text, with its NUL */
#define ENDPOINT_TEXT 56 /* [v6]:port */

static inline unsigned ip_len(uint8_t family)
{
    return family == 4 ? 4 : family == 6 ? 16 : 0;
}

struct ip ip_from_bytes(uint8_t family, const uint8_t *bytes);
bool ip_equal(const struct ip *a, const struct ip *b);
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
bool path_equal(const struct path *a, const struct path *b);
bool ip_is_any(const struct ip *a); /* 0.0.0.0, :: or none */

/* Parse plain addresses, without a name lookup. Errors: SYNTAX. */
MUST_USE enum err ip_parse(const char *text, struct ip *out);

/* Write into text (IP_TEXT or ENDPOINT_TEXT bytes) and return it. An endpoint of port 0 prints as its address only. */
const char *ip_format(const struct ip *a, char *text);
const char *endpoint_format(const struct endpoint *e, char *text);

/* To and from the socket layer; to_sockaddr returns the length that sendmsg wants. IPv4-mapped IPv6 reads as IPv4. */
socklen_t endpoint_to_sockaddr(const struct endpoint *e, struct sockaddr_storage *out);
MUST_USE enum err endpoint_from_sockaddr(const struct sockaddr_storage *in, struct endpoint *out);

#endif
