/* The IP headers in front of AH: which parts of them the ICV covers (RFC 4302 section 3.3.3.1, appendix A). */
#include <string.h>

#include "esp/ah.h"
#include "esp/outer.h"

enum ipv4_at {
    V4_TOS = 1,
    V4_LENGTH = 2,
    V4_ID = 4,
    V4_FLAGS = 6,
    V4_TTL = 8,
    V4_PROTOCOL = 9,
    V4_SUM = 10,
    V4_TO = 16
};
enum ipv6_at { V6_NEXT = 6, V6_HOPS = 7, V6_TO = 24 };
enum next_header { NEXT_HOPOPT = 0, NEXT_ROUTING = 43, NEXT_DSTOPTS = 60 };

/* -- IPv4 (section 3.3.3.1.1) -- */

#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_LSRR 131
#define OPTION_SSRR 137

/* Appendix A1: everything else is zeroed, and so is what nobody knows (section 3.3.3.1). */
static bool option_immutable(uint8_t type)
{
    return type == 130 /* security */ || type == 133 /* extended security */ || type == 134 /* commercial security */ ||
           type == 148 /* router alert */ || type == 149 /* multi-destination delivery */;
}

/* A source route that isn't used up leads to its last address, which the destination will be by then. */
static void follow_route(uint8_t *headers, const uint8_t *option, uint8_t len)
{
    if (len >= 7 && option[2] <= len - 3)
        memcpy(headers + V4_TO, option + len - 4, 4);
}

static bool freeze_options(uint8_t *headers, uint32_t head)
{
    uint32_t at = OUTER_IPV4;
    while (at < head && headers[at] != OPTION_END) {
        if (headers[at] == OPTION_NOP) {
            at++;
            continue;
        }
        uint32_t len = at + 1 < head ? headers[at + 1] : 0;
        if (len < 2 || len > head - at)
            return false;
        uint8_t type = headers[at];
        if (type == OPTION_LSRR || type == OPTION_SSRR)
            follow_route(headers, headers + at, (uint8_t)len);
        if (!option_immutable(type))
            memset(headers + at, 0, len);
        at += len;
    }
    return true;
}

static bool freeze_ipv4(uint8_t *headers, uint32_t head, uint32_t *next_at)
{
    if (head < OUTER_IPV4 || (headers[0] & 15u) * 4 != head)
        return false;
    headers[V4_TOS] = 0;
    put_be16(headers + V4_FLAGS, 0);
    headers[V4_TTL] = 0;
    put_be16(headers + V4_SUM, 0);
    *next_at = V4_PROTOCOL;
    return freeze_options(headers, head);
}

/* -- IPv6 (section 3.3.3.1.2) -- */

#define OPTION_PAD1 0
#define OPTION_CHANGES 0x20 /* RFC 8200 section 4.2: the data may change on the way */

static bool freeze_tlvs(uint8_t *header, uint32_t len)
{
    for (uint32_t at = 2; at < len;) {
        if (header[at] == OPTION_PAD1) {
            at++;
            continue;
        }
        if (at + 2 > len || header[at + 1] > len - at - 2)
            return false;
        uint32_t data = header[at + 1];
        if (header[at] & OPTION_CHANGES)
            memset(header + at + 2, 0, data);
        at += 2 + data;
    }
    return true;
}

/*
 * A type 0 header (RFC 2460 section 4.4) as it will arrive: each address that is still ahead becomes the destination once,
 * and the one before it takes its place. Others must have nothing ahead of them any more.
 */
static bool follow_routing(uint8_t *headers, uint8_t *header, uint32_t len)
{
    uint32_t addresses = (len - 8) / 16, left = header[3];
    if (left == 0)
        return true;
    if (header[2] != 0 || (len - 8) % 16 != 0 || left > addresses)
        return false;
    uint8_t *first = header + 8 + (addresses - left) * 16, *to = headers + V6_TO, last[16];
    memcpy(last, header + len - 16, 16);
    memmove(first + 16, first, (left - 1) * 16);
    memcpy(first, to, 16);
    memcpy(to, last, 16);
    header[3] = 0;
    return true;
}

static bool freeze_ipv6(uint8_t *headers, uint32_t head, uint32_t *next_at)
{
    uint32_t at = OUTER_IPV6;
    if (head < OUTER_IPV6)
        return false;
    put_be32(headers, UINT32_C(6) << 28); /* traffic class and flow label */
    headers[V6_HOPS] = 0;
    *next_at = V6_NEXT;
    while (at < head) {
        uint8_t type = headers[*next_at], *header = headers + at;
        uint32_t len = head - at >= 8 ? (header[1] + 1u) * 8 : 0;
        if (len == 0 || len > head - at)
            return false;
        bool known = type == NEXT_ROUTING                          ? follow_routing(headers, header, len)
                     : type == NEXT_HOPOPT || type == NEXT_DSTOPTS ? freeze_tlvs(header, len)
                                                                   : false;
        if (!known)
            return false;
        *next_at = at;
        at += len;
    }
    return true;
}

bool ah_freeze(uint8_t *headers, uint32_t head, uint32_t *next_at)
{
    if (head == 0)
        return false;
    return headers[0] >> 4 == 4 ? freeze_ipv4(headers, head, next_at)
                                : headers[0] >> 4 == 6 && freeze_ipv6(headers, head, next_at);
}

bool ah_covers(const uint8_t *headers, uint32_t head)
{
    uint8_t copy[AH_HEAD_MAX];
    uint32_t next_at;
    if (head > sizeof copy)
        return false;
    memcpy(copy, headers, head);
    return ah_freeze(copy, head, &next_at);
}
