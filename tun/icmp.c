#include "tun/icmp.h"

#include "core/base/ip.h"
#include "tun/offload.h"
#include "tun/packet.h"

#define ICMP_HEADER 8
#define ERROR_TOS 0xc0 /* internetwork control: RFC 1812 section 4.3.2.5 */
#define ERROR_TTL 64

enum icmp_type {
    ICMP4_UNREACHABLE = 3,
    ICMP4_SOURCE_QUENCH = 4,
    ICMP4_REDIRECT = 5,
    ICMP4_TIME_EXCEEDED = 11,
    ICMP4_PARAMETER = 12,
    ICMP6_TOO_BIG = 2,
    ICMP6_INFORMATIONAL = 128, /* and above */
    ICMP6_REDIRECT = 137,
};
#define ICMP4_FRAGMENTATION_NEEDED 4 /* code */
#define PROTO_ICMP4 1
#define PROTO_ICMP6 58

static bool one_host4(const uint8_t *a)
{
    return a[0] != 0 && a[0] != 127 && a[0] < 224;
}

static bool one_host6(const uint8_t *a)
{
    static const uint8_t none[15];
    return a[0] != 0xff && !(memcmp(a, none, sizeof none) == 0 && a[15] <= 1);
}

static bool error4(uint8_t type)
{
    return type == ICMP4_UNREACHABLE || type == ICMP4_SOURCE_QUENCH || type == ICMP4_REDIRECT ||
           type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER;
}

static bool may_tell4(const uint8_t *p, const struct ip_view *ip)
{
    if (get_be16(p + IPV4_FRAGMENT) & IPV4_FRAGMENT_OFFSET)
        return false;
    if (!one_host4(p + IPV4_SOURCE) || !one_host4(p + IPV4_SOURCE + 4))
        return false;
    return ip->protocol != PROTO_ICMP4 || ip->len <= ip->header_len || !error4(p[ip->header_len]);
}

static bool may_tell6(const uint8_t *p, const struct ip_view *ip)
{
    uint8_t protocol;
    uint32_t at;
    if (!one_host6(p + IPV6_SOURCE) || !one_host6(p + IPV6_SOURCE + 16))
        return false;
    if (ip_view_transport(ip, p, &protocol, &at) != OK) /* behind a fragment header there is what one can't tell */
        return ip->protocol == PROTO_FRAGMENT && ip->len >= IPV6_HEADER + 8 &&
               (get_be16(p + IPV6_HEADER + 2) & 0xfff8) == 0;
    return protocol != PROTO_ICMP6 || at >= ip->len || (p[at] >= ICMP6_INFORMATIONAL && p[at] != ICMP6_REDIRECT);
}

static size_t too_big4(const uint8_t *p, uint32_t len, uint32_t mtu, uint8_t *out)
{
    uint32_t quote =
        len < ICMP_ERROR4_MAX - IPV4_HEADER - ICMP_HEADER ? len : ICMP_ERROR4_MAX - IPV4_HEADER - ICMP_HEADER;
    uint32_t total = IPV4_HEADER + ICMP_HEADER + quote;
    uint8_t *icmp = out + IPV4_HEADER;
    memset(out, 0, IPV4_HEADER + ICMP_HEADER);
    out[0] = 0x45;
    out[IPV4_TOS] = ERROR_TOS;
    put_be16(out + IPV4_LENGTH, (uint16_t)total);
    put_be16(out + IPV4_FRAGMENT, IPV4_DF);
    out[IPV4_TTL] = ERROR_TTL;
    out[IPV4_PROTOCOL] = PROTO_ICMP4;
    memcpy(out + IPV4_SOURCE, p + IPV4_SOURCE + 4, 4);
    memcpy(out + IPV4_SOURCE + 4, p + IPV4_SOURCE, 4);
    put_be16(out + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, out, IPV4_HEADER)));
    icmp[0] = ICMP4_UNREACHABLE;
    icmp[1] = ICMP4_FRAGMENTATION_NEEDED;
    put_be16(icmp + 6, (uint16_t)mtu);
    memcpy(icmp + ICMP_HEADER, p, quote);
    put_be16(icmp + 2, (uint16_t)~checksum_fold(checksum_add(0, icmp, ICMP_HEADER + quote)));
    return total;
}

static size_t too_big6(const uint8_t *p, uint32_t len, uint32_t mtu, uint8_t *out)
{
    uint32_t quote =
        len < ICMP_ERROR6_MAX - IPV6_HEADER - ICMP_HEADER ? len : ICMP_ERROR6_MAX - IPV6_HEADER - ICMP_HEADER;
    uint32_t payload = ICMP_HEADER + quote;
    uint8_t *icmp = out + IPV6_HEADER;
    memset(out, 0, IPV6_HEADER + ICMP_HEADER);
    out[0] = 6 << 4;
    put_be16(out + IPV6_LENGTH, (uint16_t)payload);
    out[IPV6_NEXT] = PROTO_ICMP6;
    out[IPV6_HOP_LIMIT] = ERROR_TTL;
    memcpy(out + IPV6_SOURCE, p + IPV6_SOURCE + 16, 16);
    memcpy(out + IPV6_SOURCE + 16, p + IPV6_SOURCE, 16);
    icmp[0] = ICMP6_TOO_BIG;
    put_be32(icmp + 4, mtu);
    memcpy(icmp + ICMP_HEADER, p, quote);
    uint64_t sum = pseudo_addresses(out, true) + payload + PROTO_ICMP6;
    put_be16(icmp + 2, (uint16_t)~checksum_fold(checksum_add(sum, icmp, payload)));
    return IPV6_HEADER + payload;
}

size_t icmp_too_big(struct span packet, uint32_t mtu, uint8_t out[ICMP_ERROR6_MAX])
{
    struct ip_view ip;
    if (ip_view_parse(&ip, packet) != OK)
        return 0;
    if (ip.ipv6)
        return may_tell6(packet.data, &ip) ? too_big6(packet.data, ip.len, mtu, out) : 0;
    return may_tell4(packet.data, &ip) ? too_big4(packet.data, ip.len, mtu, out) : 0;
}
