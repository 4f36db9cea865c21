#include "tun/nflog.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tun/rtnl.h"

#define FIRST_GROUP 5190 /* as our routing table; others mostly begin with 0 */
#define GROUPS 64
#define NOTICE_SIZE 4096
#define ANSWER_SECONDS 5

/* The kernel's answer to a request: an errno, or 0. */
static int answer(int fd)
{
    _Alignas(8) uint8_t bytes[NOTICE_SIZE];
    for (;;) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        struct span all = span_of(bytes, (size_t)n), message;
        while (rtnl_next(&all, &message)) {
            struct nlmsghdr h;
            int error;
            memcpy(&h, message.data, sizeof h);
            if (h.nlmsg_type == NLMSG_ERROR && rtnl_body(message, &error, sizeof error))
                return -error;
        }
    }
}

/* Asks for that group's packets, each at once; an errno, or 0. */
static int listen_to(int fd, uint16_t group)
{
    struct nfgenmsg body = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(group)};
    struct nfulnl_msg_config_cmd bind_group = {.command = NFULNL_CFG_CMD_BIND};
    struct nfulnl_msg_config_mode copy = {.copy_range = htonl(NFLOG_PACKET), .copy_mode = NFULNL_COPY_PACKET};
    uint32_t at_once = htonl(1);
    struct rtnl_request q;
    rtnl_begin(&q, NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG, NLM_F_ACK, &body, sizeof body);
    rtnl_attr(&q, NFULA_CFG_CMD, &bind_group, sizeof bind_group);
    rtnl_attr(&q, NFULA_CFG_MODE, &copy, sizeof copy);
    rtnl_attr(&q, NFULA_CFG_QTHRESH, &at_once, sizeof at_once);
    q.u.header.nlmsg_len = (uint32_t)q.len;
    return send(fd, q.u.bytes, q.len, 0) < 0 ? errno : answer(fd);
}

/* With patience for answers, which reading packets has not. */
static int open_socket(void)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&kernel, sizeof kernel) == 0) /* then nobody but the kernel is heard */
        return fd;
    (void)close(fd);
    return -1;
}

enum err nflog_open(int *fd, uint16_t *group)
{
    int error = EBUSY, s = open_socket();
    if (s < 0)
        return ERR_SYSTEM;
    for (unsigned i = 0; i < GROUPS && error == EBUSY; i++) {
        *group = (uint16_t)(FIRST_GROUP + i);
        error = listen_to(s, *group);
    }
    if (error == 0) {
        *fd = s;
        return OK;
    }
    (void)close(s);
    errno = error;
    return error == EPERM || error == EACCES ? ERR_PERM : error == EBUSY ? ERR_FULL : ERR_SYSTEM;
}

enum err nflog_read(int fd, uint8_t packet[NFLOG_PACKET], size_t *len)
{
    _Alignas(8) uint8_t bytes[NOTICE_SIZE];
    for (;;) {
        ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == ENOBUFS))
            continue;
        if (n < 0)
            return ERR_NOTFOUND;
        struct span all = span_of(bytes, (size_t)n), message;
        while (rtnl_next(&all, &message)) {
            struct span copy = rtnl_find(message, sizeof(struct nfgenmsg), NFULA_PAYLOAD);
            struct nlmsghdr h;
            memcpy(&h, message.data, sizeof h);
            if (h.nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) || copy.len == 0)
                continue;
            *len = copy.len < NFLOG_PACKET ? copy.len : NFLOG_PACKET;
            memcpy(packet, copy.data, *len);
            return OK;
        }
    }
}
