#include "tun/raw.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tun/sockopt.h"

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

static bool set_ipv4(int fd)
{
    return set_int(fd, IPPROTO_IP, IP_HDRINCL, 1) && set_int(fd, IPPROTO_IP, IP_PKTINFO, 1) &&
           set_int(fd, IPPROTO_IP, IP_RECVTOS, 1) && set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
}

static bool set_ipv6(int fd)
{
    static const int told[] = {IPV6_RECVPKTINFO, IPV6_RECVTCLASS,  IPV6_RECVHOPLIMIT, IPV6_FLOWINFO,
                               IPV6_RECVHOPOPTS, IPV6_RECVDSTOPTS, IPV6_RECVRTHDR};
    bool ok =
        set_int(fd, IPPROTO_IPV6, IPV6_HDRINCL, 1) && set_int(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_OMIT);
    for (unsigned i = 0; i < sizeof told / sizeof told[0] && ok; i++)
        ok = set_int(fd, IPPROTO_IPV6, told[i], 1);
    return ok;
}

static enum err set_up(int fd, const struct raw_options *o, char *why, size_t why_size)
{
    char text[IP_TEXT];
    struct sockaddr_storage sa;
    struct endpoint local = {.ip = o->local};
    socklen_t len = endpoint_to_sockaddr(&local, &sa);
    bool ok = o->local.family == 6 ? set_ipv6(fd) : set_ipv4(fd);
    if (!ok || (o->mark && !set_mark(fd))) {
        (void)snprintf(why, why_size, "raw socket: %s", strerror(errno));
        return ERR_SYSTEM;
    }
    set_buffers(fd);
    if (bind(fd, (struct sockaddr *)&sa, len) == 0)
        return OK;
    (void)snprintf(why, why_size, "cannot bind a raw socket to %s: %s", ip_format(&o->local, text), strerror(errno));
    return errno == EADDRNOTAVAIL ? ERR_EXISTS : ERR_SYSTEM;
}

enum err raw_open(const struct raw_options *o, int *fd, char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "%s", "");
    int s = socket(o->local.family == 6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, o->protocol);
    if (s < 0 && (errno == EPERM || errno == EACCES)) {
        (void)snprintf(why, why_size, "CAP_NET_RAW is needed");
        return ERR_PERM;
    }
    if (s < 0) {
        (void)snprintf(why, why_size, "cannot open a raw socket for IPv%u: %s", o->local.family, strerror(errno));
        return ERR_SYSTEM;
    }
    enum err e = set_up(s, o, why, why_size);
    if (e != OK) {
        int kept = errno;
        (void)close(s);
        errno = kept;
        return e;
    }
    *fd = s;
    return OK;
}

enum err raw_steer(int fd, const struct raw_options *o, unsigned worker, unsigned workers)
{
    /* The filter sees an IPv4 packet from its header on, of IPv6 only what stands behind. */
    bool ipv4 = o->local.family == 4;
    unsigned spi = o->protocol == RAW_AH ? 4 : 0;
    struct sock_filter code[] = {
        ipv4 ? (struct sock_filter)BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0)
             : (struct sock_filter)BPF_STMT(BPF_LDX | BPF_IMM, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_IND, spi), /* beyond the end: dropped, for it is no packet of ours */
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 28),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, worker + 1, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, worker == 0 ? 2 : 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, workers, worker == 0 ? 1 : 0, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0 ? ERR_SYSTEM : OK;
}
