#include "core/base/loop_raw.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cursor.h"
#include "core/base/loop_msg.h"

#define MESSAGES 32             /* of one recvmmsg */
#define CONTROL (HEADERS + 256) /* extension headers, PKTINFO, TOS, hop limit, flow label */
#define HEADERS LOOP_HEAD_MAX   /* room before the payload for the IPv6 header and what belongs to it */
#define PAYLOAD_MAX 65536       /* more than any IP packet has, or any IPv6 payload */
#define IPV6_HEADER 40
#define MEMORY ((size_t)MESSAGES * (HEADERS + PAYLOAD_MAX))

_Static_assert(MESSAGES <= LOOP_BATCH, "one recvmmsg fills one vector");

struct raw_reader {
    uint8_t *memory;
    struct mmsghdr msg[MESSAGES];
    struct iovec iov[MESSAGES];
    uint8_t name[MESSAGES][MSG_RX_NAME];
    _Alignas(struct cmsghdr) uint8_t control[MESSAGES][CONTROL];
};

/* An IPv6 header with its extension headers, as far as they are known. */
struct headers {
    uint8_t b[HEADERS];
    uint32_t len;
    uint32_t next; /* where the protocol of what follows belongs */
};

enum err raw_reader_new(struct raw_reader **out)
{
    struct raw_reader *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->memory = msg_map(MEMORY);
    if (!r->memory) {
        free(r);
        return ERR_NOMEM;
    }
    for (unsigned i = 0; i < MESSAGES; i++) {
        r->iov[i] = (struct iovec){r->memory + (size_t)i * (HEADERS + PAYLOAD_MAX) + HEADERS, PAYLOAD_MAX};
        r->msg[i].msg_hdr = (struct msghdr){
            .msg_name = r->name[i], .msg_iov = &r->iov[i], .msg_iovlen = 1, .msg_control = r->control[i]};
    }
    *out = r;
    return OK;
}

void raw_reader_free(struct raw_reader *r)
{
    if (!r)
        return;
    msg_unmap(r->memory, MEMORY);
    free(r);
}

struct raw_socket raw_socket_of(int fd)
{
    int protocol = 0;
    socklen_t len = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) != 0)
        protocol = 0;
    return (struct raw_socket){.fd = fd, .inet6 = msg_inet6(fd), .protocol = (uint8_t)protocol};
}

/* -- the header that IPv6 sockets keep back (RFC 3542 sections 6 to 9) -- */

/* An extension header goes where the chain ends, in the order in which they are told: that of the packet. */
static bool add_extension(struct headers *h, uint8_t type, const uint8_t *data, size_t len)
{
    if (len < 8 || len % 8 || len > HEADERS - h->len)
        return false;
    memcpy(h->b + h->len, data, len);
    h->b[h->next] = type;
    h->next = h->len;
    h->len += (uint32_t)len;
    return true;
}

/* False: an extension header that there is no room for. */
static bool add_control(struct headers *h, const struct cmsghdr *c)
{
    const uint8_t *data = CMSG_DATA(c);
    size_t len = c->cmsg_len - CMSG_LEN(0);
    int value;
    if (c->cmsg_level != IPPROTO_IPV6)
        return true;
    switch (c->cmsg_type) {
    case IPV6_FLOWINFO: /* traffic class and flow label, as they stand in the header */
        if (len >= 4)
            put_be32(h->b, UINT32_C(6) << 28 | (get_be32(data) & 0xfffffff));
        return true;
    case IPV6_HOPLIMIT:
        if (len >= sizeof value) {
            memcpy(&value, data, sizeof value);
            h->b[7] = (uint8_t)value;
        }
        return true;
    case IPV6_HOPOPTS:
        return add_extension(h, IPPROTO_HOPOPTS, data, len);
    case IPV6_RTHDR:
        return add_extension(h, IPPROTO_ROUTING, data, len);
    case IPV6_DSTOPTS:
        return add_extension(h, IPPROTO_DSTOPTS, data, len);
    default:
        return true;
    }
}

/* Puts the header before the payload; false: it would be none (no address was told, or something has no room). */
static bool put_header(struct loop_rx *rx, struct msghdr *hdr, uint8_t protocol)
{
    struct headers h; /* its bytes are written as they become more */
    bool fits = !rx->cut;
    h.len = IPV6_HEADER;
    h.next = 6;
    memset(h.b, 0, IPV6_HEADER);
    put_be32(h.b, UINT32_C(6) << 28 | (uint32_t)rx->tos << 20);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c && fits; c = CMSG_NXTHDR(hdr, c))
        fits = add_control(&h, c);
    uint32_t payload = h.len - IPV6_HEADER + rx->len;
    if (!fits || payload > UINT16_MAX || rx->from.ip.family != 6 || rx->to.family != 6)
        return false;
    h.b[h.next] = protocol;
    put_be16(h.b + 4, (uint16_t)payload);
    memcpy(h.b + 8, rx->from.ip.b, 16);
    memcpy(h.b + 24, rx->to.b, 16);
    rx->data -= h.len;
    rx->len += h.len;
    memcpy(rx->data, h.b, h.len);
    return true;
}

unsigned raw_read(struct raw_reader *r, const struct raw_socket *s, struct loop_rx *rx, int *error)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        r->msg[i].msg_hdr.msg_namelen = MSG_RX_NAME;
        r->msg[i].msg_hdr.msg_controllen = CONTROL;
    }
    *error = 0;
    int got = recvmmsg(s->fd, r->msg, MESSAGES, MSG_DONTWAIT, NULL);
    if (got < 0) {
        *error = errno == EAGAIN || errno == EINTR ? 0 : errno;
        return 0;
    }
    for (int i = 0; i < got; i++) {
        rx[i] = (struct loop_rx){.data = r->iov[i].iov_base, .len = r->msg[i].msg_len};
        msg_received(&r->msg[i].msg_hdr, &rx[i]);
        rx[i].from.port = 0; /* there are none; the kernel may have put the protocol there */
        if (s->inet6 && !put_header(&rx[i], &r->msg[i].msg_hdr, s->protocol))
            rx[i].cut = true;
    }
    return (unsigned)got;
}
