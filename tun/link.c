#include "tun/link.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static bool holds(const struct ifaddrs *a, const struct ip *ip)
{
    struct sockaddr_storage sa = {0};
    struct endpoint e;
    if (!a->ifa_addr || (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
        return false;
    memcpy(&sa, a->ifa_addr,
           a->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    return endpoint_from_sockaddr(&sa, &e) == OK && ip_equal(&e.ip, ip);
}

static enum err mtu_of(const char *name, unsigned *mtu)
{
    struct ifreq r = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_SYSTEM;
    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    bool ok = ioctl(fd, SIOCGIFMTU, &r) == 0 && r.ifr_mtu > 0;
    (void)close(fd);
    if (ok)
        *mtu = (unsigned)r.ifr_mtu;
    return ok ? OK : ERR_SYSTEM;
}

enum err link_mtu(const struct ip *local, unsigned *mtu)
{
    struct ifaddrs *all, *a;
    if (getifaddrs(&all) != 0)
        return ERR_SYSTEM;
    for (a = all; a && !holds(a, local); a = a->ifa_next)
        continue;
    enum err e = a && !(a->ifa_flags & IFF_LOOPBACK) ? mtu_of(a->ifa_name, mtu) : ERR_NOTFOUND;
    freeifaddrs(all);
    return e;
}
