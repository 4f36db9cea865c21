#include "tun/watch.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netconf.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tun/rtnl.h"

#define NOTICE_SIZE (32 * 1024)
#define DATAGRAMS_PER_READ 256 /* routes come by the hundred thousand where BGP runs: the rest waits its turn */
#define GROUP(number) (1u << ((number)-1))

static enum err open_groups(int protocol, unsigned groups, int *fd)
{
    struct sockaddr_nl local = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
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

enum err watch_open(int *fd)
{
    return open_groups(NETLINK_ROUTE,
                       RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE |
                           GROUP(RTNLGRP_IPV4_RULE) | GROUP(RTNLGRP_IPV6_RULE) | GROUP(RTNLGRP_IPV4_NETCONF),
                       fd);
}

/* Whose notices they are; each kind says what one of them may mean. */
struct watcher {
    const struct netlink *netlink;
    int tun;
    unsigned all; /* what lost notices may have been */
    unsigned (*news)(const struct watcher *w, struct span message, uint16_t type);
};

static unsigned read_all(int fd, const struct watcher *w)
{
    _Alignas(8) uint8_t bytes[NOTICE_SIZE];
    unsigned news = 0;
    for (unsigned i = 0; i < DATAGRAMS_PER_READ; i++) {
        struct sockaddr_nl from = {0};
        struct iovec iov = {bytes, sizeof bytes};
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = recvmsg(fd, &m, 0);
        if (n < 0 && errno == ENOBUFS) {
            news |= w->all;
            continue;
        }
        if (n < 0)
            break;
        struct span all = {bytes, (size_t)n}, message;
        while (from.nl_pid == 0 && rtnl_next(&all, &message)) {
            struct nlmsghdr h;
            memcpy(&h, message.data, sizeof h);
            news |= w->news(w, message, h.nlmsg_type);
        }
    }
    return news;
}

static unsigned link_news(const struct watcher *w, struct span message, uint16_t type)
{
    struct ifinfomsg link;
    bool down = type == RTM_NEWLINK && rtnl_body(message, &link, sizeof link) && link.ifi_index == w->tun &&
                !(link.ifi_flags & IFF_UP);
    return WATCH_CHANGED | (down ? WATCH_LOST | WATCH_DOWN : 0);
}

/* Routes lose it as their source, if they don't go with it, and it may be back before anybody has looked. */
static unsigned gone_address_news(struct span message)
{
    struct ifaddrmsg address;
    bool matters = rtnl_body(message, &address, sizeof address) && address.ifa_scope != RT_SCOPE_LINK;
    return WATCH_CHANGED | (matters ? WATCH_LOST : 0);
}

static unsigned route_news(const struct watcher *w, struct span message, uint16_t type)
{
    struct rtmsg route;
    if (!rtnl_body(message, &route, sizeof route) || (route.rtm_flags & RTM_F_CLONED))
        return 0;
    if (route.rtm_protocol != ROUTE_PROTOCOL)
        return WATCH_CHANGED;
    return type == RTM_DELROUTE && netlink_has(w->netlink, message) ? WATCH_LOST | WATCH_TAKEN : 0;
}

/* Of a new interface, too: what new ones get is a setting of its own, which may be strict. */
static unsigned setting_news(const struct watcher *w, struct span message)
{
    const uint32_t strict = 1, template = (uint32_t)NETCONFA_IFINDEX_DEFAULT;
    return netlink_loosens(w->netlink) &&
                   rtnl_find_u32(message, sizeof(struct netconfmsg), NETCONFA_RP_FILTER, 0) == strict &&
                   rtnl_find_u32(message, sizeof(struct netconfmsg), NETCONFA_IFINDEX, template) != template
               ? WATCH_STRICT
               : 0;
}

static unsigned route_socket_news(const struct watcher *w, struct span message, uint16_t type)
{
    switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return link_news(w, message, type);
    case RTM_NEWADDR:
        return WATCH_CHANGED;
    case RTM_DELADDR:
        return gone_address_news(message);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return route_news(w, message, type);
    case RTM_DELRULE:
        return netlink_has(w->netlink, message) ? WATCH_LOST : 0;
    case RTM_NEWNETCONF:
        return setting_news(w, message);
    default:
        return 0;
    }
}

unsigned watch_read(int fd, const struct netlink *n, int tun)
{
    return read_all(fd, &(struct watcher){n, tun, WATCH_CHANGED | WATCH_LOST, route_socket_news});
}

enum err watch_filter_open(int *fd)
{
    return open_groups(NETLINK_NETFILTER, GROUP(NFNLGRP_NFTABLES), fd);
}

static unsigned filter_news(const struct watcher *w, struct span message, uint16_t type)
{
    (void)message;
    return type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE) ? w->all : 0;
}

bool watch_filter_read(int fd)
{
    return read_all(fd, &(struct watcher){.all = WATCH_LOST, .news = filter_news}) != 0;
}
