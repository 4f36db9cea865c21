#include "tun/udp.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/loop_msg.h"
#include "tun/sockopt.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

#define BUSY_WAIT (2 * NS_PER_S)
#define BUSY_PAUSE_US 20000
#define DISCARD_PORT 9
#define ROUTE_PORT 4500 /* for a look at a route: any port does */

/* The values are the same for both versions. */
static bool set_discovery(int fd, uint8_t family, int value)
{
    return family == 6 ? set_int(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, value)
                       : set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, value);
}

static bool set_ip(int fd, uint8_t family)
{
    if (family == 6)
        return set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) && set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) &&
               set_int(fd, IPPROTO_IPV6, IPV6_FLOWINFO, 1) && set_discovery(fd, 6, IPV6_PMTUDISC_DONT);
    return set_int(fd, IPPROTO_IP, IP_PKTINFO, 1) && set_int(fd, IPPROTO_IP, IP_RECVTOS, 1) &&
           set_discovery(fd, 4, IP_PMTUDISC_OMIT);
}

static enum err set_options(int fd, const struct udp_options *o, char *why, size_t why_size)
{
    const char *what = "IP options";
    bool ok = set_ip(fd, o->local.ip.family);
    if (ok && o->reuseport) {
        what = "SO_REUSEPORT";
        ok = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (ok && o->mark && !set_mark(fd)) {
        what = "SO_MARK";
        ok = false;
    }
    if (!ok) {
        (void)snprintf(why, why_size, "UDP socket: %s: %s", what, strerror(errno));
        return ERR_SYSTEM;
    }
    if (o->gro)
        (void)set_int(fd, IPPROTO_UDP, UDP_GRO, 1); /* kernels before 5.0: datagrams come one by one */
    set_buffers(fd);
    return OK;
}

static enum err bind_to(int fd, const struct endpoint *local, char *why, size_t why_size)
{
    char text[ENDPOINT_TEXT];
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(local, &sa);
    ns_t until = clock_now() + BUSY_WAIT;

    while (bind(fd, (struct sockaddr *)&sa, len) < 0) {
        if (errno == EADDRINUSE && clock_now() < until) {
            (void)usleep(BUSY_PAUSE_US);
            continue;
        }
        endpoint_format(local, text);
        if (errno == EADDRINUSE) {
            (void)snprintf(why, why_size, "UDP %s is in use by another program (another IPsec daemon?)", text);
            return ERR_EXISTS;
        }
        if (errno == EACCES || errno == EPERM) {
            (void)snprintf(why, why_size, "may not bind UDP %s: CAP_NET_BIND_SERVICE is needed", text);
            return ERR_PERM;
        }
        (void)snprintf(why, why_size, "cannot bind UDP %s: %s", text, strerror(errno));
        return ERR_SYSTEM;
    }
    return OK;
}

enum err udp_open(const struct udp_options *o, int *fd, char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "%s", "");
    int s = socket(o->local.ip.family == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0) {
        (void)snprintf(why, why_size, "cannot open a UDP socket for IPv%u: %s", o->local.ip.family, strerror(errno));
        return ERR_SYSTEM;
    }
    enum err e = set_options(s, o, why, why_size);
    if (e == OK)
        e = bind_to(s, &o->local, why, why_size);
    if (e != OK) {
        int kept = errno;
        (void)close(s);
        errno = kept;
        return e;
    }
    *fd = s;
    return OK;
}

enum err udp_tell_ttl(int fd, uint8_t family)
{
    bool ok = family == 6 ? set_int(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1) : set_int(fd, IPPROTO_IP, IP_RECVTTL, 1);
    return ok ? OK : ERR_SYSTEM;
}

/* Sockets share a port without steering only while all of them say that they would (SO_REUSEADDR). */
static bool set_shared(const int *fds, unsigned n, bool shared)
{
    bool ok = true;
    for (unsigned i = 0; i < n; i++)
        ok = set_int(fds[i], SOL_SOCKET, SO_REUSEADDR, shared) && ok;
    return ok;
}

/* To where nothing comes from: a datagram from anywhere else no longer fits this socket. */
static bool connect_nowhere(int fd, uint8_t family)
{
    static const struct endpoint nowhere[2] = {{.ip = {.family = 4, .b = {127, 0, 0, 1}}, .port = DISCARD_PORT},
                                               {.ip = {.family = 6, .b = {[15] = 1}}, .port = DISCARD_PORT}};
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(&nowhere[family == 6], &sa);
    return connect(fd, (struct sockaddr *)&sa, len) == 0;
}

static enum err failed_df(char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "UDP socket with DF: %s", strerror(errno));
    return ERR_SYSTEM;
}

static enum err open_df(int s, const struct udp_options *o, char *why, size_t why_size)
{
    uint8_t family = o->local.ip.family;
    TRY(set_options(s, o, why, why_size));
    if (!set_discovery(s, family, IP_PMTUDISC_PROBE) || !set_shared(&s, 1, true))
        return failed_df(why, why_size);
    TRY(bind_to(s, &o->local, why, why_size));
    return connect_nowhere(s, family) && set_shared(&s, 1, false) ? OK : failed_df(why, why_size);
}

enum err udp_open_df(const struct udp_options *o, const int *held, unsigned n, int *fd, char *why, size_t why_size)
{
    struct udp_options alone = *o;
    alone.reuseport = false;
    (void)snprintf(why, why_size, "%s", "");
    int s = socket(o->local.ip.family == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0)
        return failed_df(why, why_size);
    enum err e = set_shared(held, n, true) ? open_df(s, &alone, why, why_size) : failed_df(why, why_size);
    (void)set_shared(held, n, false);
    if (e == OK)
        *fd = s;
    else
        (void)close(s);
    return e;
}

enum err udp_steer(int fd, unsigned workers)
{
    /* The filter sees the payload; a load beyond its end makes it return 0, which is the right socket for a runt. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 28),
        BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 1), /* 0, which is no worker, becomes more than there are */
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, workers, 1, 0),
        BPF_STMT(BPF_RET | BPF_A, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return ERR_SYSTEM;
    return OK;
}

static enum err send_one(int fd, const struct path *path, const uint8_t *data, size_t len, bool whole)
{
    static const uint8_t marker[4]; /* RFC 3948 section 2.2 */
    struct iovec iov[2] = {{(void *)(uintptr_t)marker, sizeof marker}, {(void *)(uintptr_t)data, len}};
    const struct loop_tx tx = {.to = path->remote, .from = path->local.ip, .df = whole};
    struct msg_route route;
    msg_route(&route, &tx, false);
    struct msghdr m = {
        .msg_name = &route.name,
        .msg_namelen = route.name_len,
        .msg_iov = path->marker ? iov : iov + 1,
        .msg_iovlen = path->marker ? 2 : 1,
        .msg_control = route.control_len ? route.control : NULL,
        .msg_controllen = route.control_len,
    };
    ssize_t n;
    do
        n = sendmsg(fd, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? ERR_SYSTEM : OK;
}

enum err udp_send(int fd, const struct path *path, const uint8_t *data, size_t len)
{
    return send_one(fd, path, data, len, false);
}

enum err udp_send_whole(int fd, bool df, const struct path *path, const uint8_t *data, size_t len)
{
    uint8_t family = path->remote.ip.family;
    if (df)
        return send_one(fd, path, data, len, true);
    enum err e = ERR_SYSTEM;
    if (set_discovery(fd, family, IP_PMTUDISC_PROBE))
        e = send_one(fd, path, data, len, true);
    int kept = errno;
    (void)set_discovery(fd, family, family == 6 ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_OMIT);
    errno = kept;
    return e;
}

static enum err route_of(int fd, const struct endpoint *to, bool mark, struct ip *source, unsigned *mtu)
{
    struct endpoint target = *to, local;
    struct sockaddr_storage sa;
    socklen_t len;
    int value = 0;

    if (mark && !set_mark(fd))
        return ERR_SYSTEM;
    if (target.port == 0)
        target.port = ROUTE_PORT;
    len = endpoint_to_sockaddr(&target, &sa);
    if (connect(fd, (struct sockaddr *)&sa, len) < 0)
        return ERR_SYSTEM;
    len = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        return ERR_SYSTEM;
    TRY(endpoint_from_sockaddr(&sa, &local));
    len = sizeof value;
    int level = to->ip.family == 6 ? IPPROTO_IPV6 : IPPROTO_IP;
    if (getsockopt(fd, level, to->ip.family == 6 ? IPV6_MTU : IP_MTU, &value, &len) < 0)
        return ERR_SYSTEM;
    *source = local.ip;
    *mtu = (unsigned)value;
    return OK;
}

enum err udp_route(const struct endpoint *to, bool mark, struct ip *source, unsigned *mtu)
{
    int fd = socket(to->ip.family == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_SYSTEM;
    enum err e = route_of(fd, to, mark, source, mtu);
    int kept = errno;
    (void)close(fd);
    errno = kept;
    return e;
}
