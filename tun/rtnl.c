#include "tun/rtnl.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_SECONDS 5

enum err rtnl_open(struct rtnl *r)
{
    struct sockaddr_nl local = {.nl_family = AF_NETLINK};
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    int on = 1;

    r->seq = 0;
    r->why[0] = 0;
    r->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (r->fd < 0)
        return ERR_SYSTEM;
    /* The kernel's own words for an error: present since 4.12, done without before. */
    (void)setsockopt(r->fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    (void)setsockopt(r->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
    (void)setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (bind(r->fd, (struct sockaddr *)&local, sizeof local) == 0)
        return OK;
    int kept = errno;
    rtnl_close(r);
    errno = kept;
    return ERR_SYSTEM;
}

void rtnl_close(struct rtnl *r)
{
    if (r->fd >= 0)
        (void)close(r->fd);
    r->fd = -1;
}

/* -- building -- */

static void append(struct rtnl_request *q, const void *data, size_t len)
{
    size_t padded = NLMSG_ALIGN(len);
    if (q->len + padded > sizeof q->u.bytes) {
        q->len = sizeof q->u.bytes + 1; /* rtnl_call refuses it */
        return;
    }
    memset(q->u.bytes + q->len, 0, padded);
    if (len)
        memcpy(q->u.bytes + q->len, data, len);
    q->len += padded;
}

void rtnl_begin(struct rtnl_request *q, uint16_t type, uint16_t flags, const void *body, size_t len)
{
    struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)};
    q->len = 0;
    append(q, &header, sizeof header);
    append(q, body, len);
}

void rtnl_attr(struct rtnl_request *q, uint16_t type, const void *data, size_t len)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof a + len), .nla_type = type};
    append(q, &a, sizeof a);
    append(q, data, len);
}

void rtnl_attr_u32(struct rtnl_request *q, uint16_t type, uint32_t value)
{
    rtnl_attr(q, type, &value, sizeof value);
}

size_t rtnl_nest(struct rtnl_request *q, uint16_t type)
{
    size_t start = q->len;
    rtnl_attr(q, type, NULL, 0);
    return start;
}

void rtnl_nest_end(struct rtnl_request *q, size_t start)
{
    uint16_t len = (uint16_t)(q->len - start);
    if (q->len <= sizeof q->u.bytes)
        memcpy(q->u.bytes + start, &len, sizeof len);
}

/* -- reading -- */

bool rtnl_next(struct span *dump, struct span *message)
{
    struct nlmsghdr h;
    if (dump->len < sizeof h)
        return false;
    memcpy(&h, dump->data, sizeof h);
    if (h.nlmsg_len < sizeof h || h.nlmsg_len > dump->len)
        return false;
    *message = (struct span){dump->data, h.nlmsg_len};
    size_t step = NLMSG_ALIGN(h.nlmsg_len) < dump->len ? NLMSG_ALIGN(h.nlmsg_len) : dump->len;
    dump->data += step;
    dump->len -= step;
    return true;
}

bool rtnl_body(struct span message, void *body, size_t len)
{
    if (message.len < NLMSG_HDRLEN + len)
        return false;
    memcpy(body, message.data + NLMSG_HDRLEN, len);
    return true;
}

static struct span find_from(struct span message, size_t at, uint16_t type)
{
    struct nlattr a;
    while (at + sizeof a <= message.len) {
        memcpy(&a, message.data + at, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > message.len - at)
            break;
        if ((a.nla_type & NLA_TYPE_MASK) == type)
            return (struct span){message.data + at + sizeof a, a.nla_len - sizeof a};
        at += NLA_ALIGN(a.nla_len);
    }
    return (struct span){NULL, 0};
}

struct span rtnl_find(struct span message, size_t body_len, uint16_t type)
{
    return find_from(message, NLMSG_HDRLEN + NLMSG_ALIGN(body_len), type);
}

struct span rtnl_find_in(struct span attributes, uint16_t type)
{
    return find_from(attributes, 0, type);
}

uint32_t rtnl_find_u32(struct span message, size_t body_len, uint16_t type, uint32_t otherwise)
{
    struct span s = rtnl_find(message, body_len, type);
    if (s.len != sizeof otherwise)
        return otherwise;
    memcpy(&otherwise, s.data, sizeof otherwise);
    return otherwise;
}

/* -- talking -- */

static enum err fail(struct rtnl *r, int error, struct span words)
{
    if (words.len)
        (void)snprintf(r->why, sizeof r->why, "%.*s (%s)", (int)strnlen((const char *)words.data, words.len),
                       (const char *)words.data, strerror(error));
    else
        (void)snprintf(r->why, sizeof r->why, "%s", strerror(error));
    errno = error;
    switch (error) {
    case EPERM:
    case EACCES:
        return ERR_PERM;
    case EEXIST:
        return ERR_EXISTS;
    case ENOENT:
    case ESRCH:
    case ENODEV:
    case EADDRNOTAVAIL:
        return ERR_NOTFOUND;
    default:
        return ERR_SYSTEM;
    }
}

/* NLMSG_ERROR: the error, the header of the request, and with NETLINK_EXT_ACK attributes behind it. */
static enum err answer(struct rtnl *r, struct span message)
{
    struct nlmsgerr e;
    struct nlmsghdr h;
    struct span words = {NULL, 0};

    if (!rtnl_body(message, &e, sizeof e))
        return fail(r, EBADMSG, words);
    if (e.error == 0)
        return OK;
    memcpy(&h, message.data, sizeof h);
    if (h.nlmsg_flags & NLM_F_ACK_TLVS) {
        size_t echoed = h.nlmsg_flags & NLM_F_CAPPED ? 0 : NLMSG_ALIGN(e.msg.nlmsg_len) - NLMSG_HDRLEN;
        words = find_from(message, NLMSG_HDRLEN + sizeof e + echoed, NLMSGERR_ATTR_MSG);
    }
    return fail(r, -e.error, words);
}

static enum err transmit(struct rtnl *r, struct rtnl_request *q)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (q->len > sizeof q->u.bytes)
        return fail(r, EMSGSIZE, (struct span){NULL, 0});
    q->u.header.nlmsg_len = (uint32_t)q->len;
    q->u.header.nlmsg_seq = ++r->seq;
    r->why[0] = 0;
    if (sendto(r->fd, q->u.bytes, q->len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return fail(r, errno, (struct span){NULL, 0});
    return OK;
}

/* Handles one datagram of the answer. done: the last message has been seen. */
static enum err take_answer(struct rtnl *r, struct span datagram, struct buf *out, bool *done)
{
    struct span message;
    struct nlmsghdr h;

    while (!*done && rtnl_next(&datagram, &message)) {
        memcpy(&h, message.data, sizeof h);
        if (h.nlmsg_seq != r->seq)
            continue; /* the late answer to a request that was given up */
        *done = h.nlmsg_type == NLMSG_ERROR || h.nlmsg_type == NLMSG_DONE;
        if (h.nlmsg_type == NLMSG_ERROR)
            return answer(r, message);
        if (!*done && out) {
            static const uint8_t zero[NLMSG_ALIGNTO];
            TRY(buf_append(out, message));
            TRY(buf_append(out, (struct span){zero, NLMSG_ALIGN(message.len) - message.len}));
        }
    }
    return OK;
}

static enum err receive(struct rtnl *r, struct buf *out)
{
    bool done = false;

    while (!done) {
        struct sockaddr_nl from;
        struct iovec iov = {r->datagram, sizeof r->datagram};
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = recvmsg(r->fd, &m, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(r, errno, (struct span){NULL, 0});
        if (from.nl_pid == 0) /* anybody may send to a netlink socket; only the kernel is port 0 */
            TRY(take_answer(r, (struct span){r->datagram, (size_t)n}, out, &done));
    }
    return OK;
}

enum err rtnl_call(struct rtnl *r, struct rtnl_request *q)
{
    q->u.header.nlmsg_flags |= NLM_F_ACK;
    TRY(transmit(r, q));
    return receive(r, NULL);
}

enum err rtnl_resend(struct rtnl *r, struct span message, uint16_t type)
{
    struct rtnl_request q = {.len = 0};
    append(&q, message.data, message.len);
    q.u.header.nlmsg_type = type;
    q.u.header.nlmsg_flags = NLM_F_REQUEST;
    q.u.header.nlmsg_pid = 0;
    return rtnl_call(r, &q);
}

enum err rtnl_dump(struct rtnl *r, struct rtnl_request *q, struct buf *out)
{
    q->u.header.nlmsg_flags |= NLM_F_DUMP;
    TRY(transmit(r, q));
    return receive(r, out);
}
