#include "tun/watch.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tun/netlink.h"
#include "tun/rtnl.h"

#define NOTICE_SIZE (32 * 1024)
#define DATAGRAMS_PER_READ 256 /* routes come by the hundred thousand where BGP runs: the rest waits its turn */

enum err watch_open(int *fd)
{
    struct sockaddr_nl local = {
        .nl_family = AF_NETLINK,
        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
    };
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (s < 0)
        return ERR_SYSTEM;
    if (bind(s, (struct sockaddr *)&local, sizeof local) < 0) {
        int kept = errno;
        (void)close(s);
        errno = kept;
        return ERR_SYSTEM;
    }
    *fd = s;
    return OK;
}

static bool matters(struct span message)
{
    struct nlmsghdr h;
    struct rtmsg route;
    memcpy(&h, message.data, sizeof h);
    switch (h.nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return true;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return rtnl_body(message, &route, sizeof route) && route.rtm_protocol != ROUTE_PROTOCOL &&
               !(route.rtm_flags & RTM_F_CLONED);
    default:
        return false;
    }
}

bool watch_read(int fd)
{
    _Alignas(8) uint8_t bytes[NOTICE_SIZE];
    bool news = false;
    for (unsigned i = 0; i < DATAGRAMS_PER_READ; i++) {
        struct sockaddr_nl from = {0};
        struct iovec iov = {bytes, sizeof bytes};
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = recvmsg(fd, &m, 0);
        if (n < 0 && errno == ENOBUFS) {
            news = true;
            continue;
        }
        if (n < 0)
            break;
        struct span all = {bytes, (size_t)n}, message;
        while (from.nl_pid == 0 && !news && rtnl_next(&all, &message))
            news = matters(message);
    }
    return news;
}
