#include "core/base/loop_msg.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* -- sending -- */

static void put_control(struct msg_route *r, int level, int type, const void *data, size_t len)
{
    struct cmsghdr head = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
    uint8_t *at = r->control + r->control_len;
    memcpy(at, &head, sizeof head);
    memcpy(at + CMSG_LEN(0), data, len);
    r->control_len += CMSG_SPACE(len);
}

/* The same address as an IPv6 socket wants it. */
static struct endpoint mapped(const struct endpoint *e)
{
    struct endpoint m = {.ip = {.family = 6, .b = {[10] = 0xff, [11] = 0xff}}, .port = e->port};
    memcpy(m.ip.b + 12, e->ip.b, 4);
    return m;
}

static void put_source(struct msg_route *r, const struct ip *from)
{
    if (from->family == 4) {
        struct in_pktinfo info = {.ipi_ifindex = 0};
        memcpy(&info.ipi_spec_dst, from->b, 4);
        put_control(r, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (from->family == 6) {
        struct in6_pktinfo info = {.ipi6_ifindex = 0};
        memcpy(&info.ipi6_addr, from->b, 16);
        put_control(r, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

void msg_route(struct msg_route *r, const struct loop_tx *tx, bool inet6)
{
    struct endpoint to = inet6 && tx->to.ip.family == 4 ? mapped(&tx->to) : tx->to;
    r->name_len = endpoint_to_sockaddr(&to, &r->name);
    r->control_len = 0;
    put_source(r, &tx->from);
    bool v4 = tx->to.ip.family == 4; /* also on an IPv6 socket: the packet that leaves decides */
    int level = v4 ? IPPROTO_IP : IPPROTO_IPV6, tos = tx->tos, ttl = tx->ttl;
    if (tos)
        put_control(r, level, v4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof tos);
    if (ttl)
        put_control(r, level, v4 ? IP_TTL : IPV6_HOPLIMIT, &ttl, sizeof ttl);
    r->control_plain = r->control_len;
    if (msg_segmented(tx))
        put_control(r, IPPROTO_UDP, UDP_SEGMENT, &tx->segment, sizeof tx->segment);
}

void msg_header(struct msghdr *hdr, struct iovec *iov, struct msg_route *r, const struct loop_tx *tx, uint32_t len,
                bool segmented)
{
    size_t control_len = segmented ? r->control_len : r->control_plain;
    *iov = (struct iovec){.iov_base = tx->slot->data + (tx->data - tx->slot->data), .iov_len = len};
    *hdr = (struct msghdr){
        .msg_name = &r->name,
        .msg_namelen = r->name_len,
        .msg_iov = iov,
        .msg_iovlen = 1,
        .msg_control = control_len ? r->control : NULL,
        .msg_controllen = control_len,
    };
}

struct loop_failure msg_failure(const struct loop_tx *tx, int error)
{
    bool segmented = msg_segmented(tx);
    return (struct loop_failure){
        .error = error,
        .datagrams = segmented ? (tx->len + tx->segment - 1) / tx->segment : 1,
        .size = segmented ? tx->segment : tx->len,
        .to = tx->to,
    };
}

size_t msg_bytes(const struct iovec *iov, unsigned n)
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += iov[i].iov_len;
    return len;
}

struct loop_failure msg_write_failure(const struct iovec *iov, unsigned n, int error)
{
    return (struct loop_failure){
        .error = error == EAGAIN ? ENOBUFS : error, .datagrams = 1, .size = (uint32_t)msg_bytes(iov, n)};
}

bool msg_inet6(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_INET6;
}

void msg_drain_errors(int fd)
{
    /* What they say is not lost: a send that is too long for the path fails by itself the next time. */
    struct msghdr hdr = {.msg_iov = NULL};
    for (int i = 0; i < 1024 && recvmsg(fd, &hdr, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0; i++)
        hdr = (struct msghdr){.msg_iov = NULL};
}

/* -- receiving -- */

/* The destination address; a v4 packet on a v6 socket has it mapped. */
static struct ip from_in6(const struct in6_addr *a)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_addr = *a};
    struct sockaddr_storage storage = {.ss_family = AF_INET6};
    struct endpoint e = {.port = 0};
    memcpy(&storage, &sin6, sizeof sin6);
    return endpoint_from_sockaddr(&storage, &e) == OK ? e.ip : (struct ip){.family = 0};
}

static void read_control(const struct cmsghdr *c, struct loop_rx *rx)
{
    const uint8_t *data = CMSG_DATA(c);
    size_t len = c->cmsg_len - CMSG_LEN(0);
    int value = 0;
    if (len >= sizeof value)
        memcpy(&value, data, sizeof value);

    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
        if (value > 0 && (uint32_t)value < rx->len)
            rx->segment = (uint16_t)value;
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS && len >= 1) {
        rx->tos = data[0];
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
        rx->tos = (uint8_t)value;
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_FLOWINFO && len >= sizeof value) {
        uint32_t info = ntohl((uint32_t)value);
        rx->tos = (uint8_t)(info >> 20);
        rx->flow = info & LOOP_FLOW_LABEL;
    } else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
               (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)) {
        rx->ttl = (uint8_t)value;
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && len >= sizeof(struct in_pktinfo)) {
        struct in_pktinfo info;
        memcpy(&info, data, sizeof info);
        uint8_t bytes[4];
        memcpy(bytes, &info.ipi_addr, sizeof bytes);
        rx->to = ip_from_bytes(4, bytes);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && len >= sizeof(struct in6_pktinfo)) {
        struct in6_pktinfo info;
        memcpy(&info, data, sizeof info);
        rx->to = from_in6(&info.ipi6_addr);
    }
}

void msg_received(struct msghdr *hdr, struct loop_rx *rx)
{
    struct sockaddr_storage name = {.ss_family = AF_UNSPEC};
    size_t len = hdr->msg_namelen < MSG_RX_NAME ? hdr->msg_namelen : MSG_RX_NAME;
    rx->segment = 0;
    rx->tos = 0;
    rx->ttl = 0;
    rx->flow = 0;
    rx->cut = hdr->msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    rx->from = (struct endpoint){.port = 0};
    rx->to = (struct ip){.family = 0};
    if (len) {
        memcpy(&name, hdr->msg_name, len);
        (void)!endpoint_from_sockaddr(&name, &rx->from);
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c))
        read_control(c, rx);
}

unsigned msg_read_packets(int fd, uint8_t *memory, size_t size, struct loop_rx *rx, unsigned n, int *error)
{
    unsigned count = 0;
    *error = 0;
    while (count < n && size >= LOOP_RX_SIZE) {
        ssize_t len = read(fd, memory, LOOP_RX_SIZE);
        if (len <= 0) {
            *error = len == 0 ? EPIPE : errno == EAGAIN || errno == EINTR ? 0 : errno;
            break;
        }
        rx[count++] = (struct loop_rx){.data = memory, .len = (uint32_t)len};
        /* Packed closely, on cache lines of their own: a flood of small packets touches few pages. */
        size_t used = ((size_t)len + 63) & ~(size_t)63;
        memory += used;
        size -= used;
    }
    return count;
}

int msg_write_packet(int fd, const struct iovec *iov, unsigned n)
{
    ssize_t done;
    do
        done = writev(fd, iov, (int)n);
    while (done < 0 && errno == EINTR);
    return done < 0 ? errno : 0;
}

/* -- memory -- */

void *msg_map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, size, MADV_DONTDUMP); /* people's traffic stays out of core files */
    return memory;
}

void msg_unmap(void *memory, size_t size)
{
    if (memory)
        (void)munmap(memory, size);
}
