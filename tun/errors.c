#include "tun/errors.h"

#include <errno.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tun/packet.h"

#define SOL_RAW_SOCKET 255 /* SOL_RAW, which not every C library has */
#define MESSAGE_MAX 2048   /* what errors quote is short */
#define ICMP_HEAD 8
#define UDP_QUOTED 8
#define PROTO_ESP 50
#define FRAGMENTATION_NEEDED 4 /* code of destination unreachable */

static bool set_filter(int fd, uint8_t family)
{
    if (family == 4) {
        struct icmp_filter f = {.data = ~(1u << ICMP_DEST_UNREACH)};
        return setsockopt(fd, SOL_RAW_SOCKET, ICMP_FILTER, &f, sizeof f) == 0;
    }
    struct icmp6_filter f;
    ICMP6_FILTER_SETBLOCKALL(&f);
    ICMP6_FILTER_SETPASS(ICMP6_DST_UNREACH, &f);
    ICMP6_FILTER_SETPASS(ICMP6_PACKET_TOO_BIG, &f);
    return setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f) == 0;
}

enum err errors_open(uint8_t family, int *fd)
{
    bool ipv4 = family == 4;
    int s = socket(ipv4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
                   ipv4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
    if (s < 0)
        return errno == EPERM || errno == EACCES ? ERR_PERM : ERR_SYSTEM;
    if (!set_filter(s, family)) {
        int kept = errno;
        (void)close(s);
        errno = kept;
        return ERR_SYSTEM;
    }
    *fd = s;
    return OK;
}

enum err errors_read(int fd, uint8_t family, struct icmp_error *out)
{
    uint8_t message[MESSAGE_MAX];
    struct sockaddr_storage name;
    struct endpoint from;
    socklen_t len;
    ssize_t n;
    do {
        len = sizeof name;
        n = recvfrom(fd, message, sizeof message, 0, (struct sockaddr *)&name, &len);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return ERR_NOTFOUND;
    TRY(errors_parse(span_of(message, (size_t)n), family, out));
    TRY(endpoint_from_sockaddr(&name, &from));
    out->from = from.ip;
    return OK;
}

/* The quoted datagram's IP header; what it carried is left in r. */
static enum err quoted_header(struct reader *r, uint8_t family, struct icmp_error *e)
{
    struct span header = read_span(r, family == 4 ? IPV4_HEADER : IPV6_HEADER);
    if (!header.data)
        return ERR_TRUNCATED;
    if (header.data[0] >> 4 != family)
        return ERR_SYNTAX;
    unsigned len = ip_len(family);
    const uint8_t *source = header.data + (family == 4 ? IPV4_SOURCE : IPV6_SOURCE);
    e->proto = header.data[family == 4 ? IPV4_PROTOCOL : IPV6_NEXT];
    e->local.ip = ip_from_bytes(family, source);
    e->remote.ip = ip_from_bytes(family, source + len);
    if (family == 6)
        return OK;
    unsigned header_len = (header.data[0] & 15u) * 4;
    /* We send no options, and a later fragment shows nothing of what it is part of. */
    if (header_len != IPV4_HEADER || get_be16(header.data + IPV4_FRAGMENT) & IPV4_FRAGMENT_OFFSET)
        return ERR_UNSUPPORTED;
    return OK;
}

/* What the datagram was: enough to find its SA by. Routers may quote no more than 8 bytes of it (RFC 792). */
static enum err quoted_payload(struct reader *r, struct icmp_error *e)
{
    if (e->proto == PROTO_UDP) {
        struct reader udp = read_sub(r, UDP_QUOTED);
        e->local.port = read_u16(&udp);
        e->remote.port = read_u16(&udp);
        if (udp.failed)
            return ERR_TRUNCATED;
    } else if (e->proto != PROTO_ESP && e->proto != PROTO_AH) {
        return ERR_UNSUPPORTED;
    }
    if (e->proto == PROTO_AH)
        read_u32(r); /* next header, length: the SPI stands behind them (RFC 4302 section 2) */
    e->spi = read_u32(r);
    e->esp = !r->failed && e->spi != 0;
    return e->esp || e->proto == PROTO_UDP ? OK : ERR_TRUNCATED;
}

enum err errors_parse(struct span message, uint8_t family, struct icmp_error *out)
{
    struct icmp_error e = {0};
    struct reader r = reader_of(message);
    if (family == 4) {
        struct span first = span_of(message.data, message.len ? 1 : 0);
        read_span(&r, first.len ? (first.data[0] & 15u) * 4 : 1);
    }
    uint8_t type = read_u8(&r), code = read_u8(&r);
    read_u16(&r); /* checksum */
    uint32_t rest = read_u32(&r);
    if (r.failed)
        return ERR_TRUNCATED;
    if (family == 4 && type == ICMP_DEST_UNREACH) {
        e.too_big = code == FRAGMENTATION_NEEDED;
        e.mtu = e.too_big ? rest & 0xffff : 0;
    } else if (family == 6 && (type == ICMP6_PACKET_TOO_BIG || type == ICMP6_DST_UNREACH)) {
        e.too_big = type == ICMP6_PACKET_TOO_BIG;
        e.mtu = e.too_big ? rest : 0;
    } else {
        return ERR_UNSUPPORTED;
    }
    TRY(quoted_header(&r, family, &e));
    TRY(quoted_payload(&r, &e));
    *out = e;
    return OK;
}
