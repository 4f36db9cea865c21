#include "tun/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/base/clock.h"

/* Linux 6.2; the kernel takes both or none. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define BUSY_WAIT (2 * NS_PER_S)
#define BUSY_PAUSE_US 20000

struct tun {
    char name[IFNAMSIZ];
    int ifindex;
    unsigned queues;
    bool uso;
    int fd[TUN_QUEUES_MAX];
};

static enum err open_file(int *fd, char *why, size_t why_size)
{
    *fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (*fd >= 0)
        return OK;
    switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        (void)snprintf(why, why_size,
                       "/dev/net/tun is missing: load the tun module or pass the device to the container");
        return ERR_NOTFOUND;
    case EACCES:
    case EPERM:
        (void)snprintf(why, why_size, "may not open /dev/net/tun: %s", strerror(errno));
        return ERR_PERM;
    default:
        (void)snprintf(why, why_size, "cannot open /dev/net/tun: %s", strerror(errno));
        return ERR_SYSTEM;
    }
}

/* Tells why TUNSETIFF failed with errno. */
static enum err attach_failed(const char *name, char *why, size_t why_size)
{
    switch (errno) {
    case EPERM:
        (void)snprintf(why, why_size, "may not create %s: CAP_NET_ADMIN is needed", name);
        return ERR_PERM;
    case EBUSY:
        (void)snprintf(why, why_size, "%s is in use by another program", name);
        return ERR_EXISTS;
    case EINVAL:
        if (if_nametoindex(name)) {
            (void)snprintf(why, why_size, "%s exists already and is no TUN device of this kind", name);
            return ERR_EXISTS;
        }
        (void)snprintf(why, why_size, "\"%s\" is not accepted as a device name", name);
        errno = EINVAL;
        return ERR_SYSTEM;
    default:
        (void)snprintf(why, why_size, "cannot create %s: %s", name, strerror(errno));
        return ERR_SYSTEM;
    }
}

/* Attaches a queue. The name of a process that just ended may be busy until the kernel has torn its ring down. */
static enum err attach(int fd, const char *name, int flags, char *why, size_t why_size)
{
    struct ifreq r = {.ifr_flags = (short)flags};
    ns_t until = clock_now() + BUSY_WAIT;

    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    while (ioctl(fd, TUNSETIFF, &r) < 0) {
        if (errno != EBUSY || clock_now() >= until)
            return attach_failed(name, why, why_size);
        (void)usleep(BUSY_PAUSE_US);
    }
    return OK;
}

static enum err open_queue(struct tun *t, unsigned index, char *why, size_t why_size)
{
    int size = TUN_HDR_LEN, flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if (t->queues > 1)
        /* Several queues may be attached by several processes: the first of ours insists on a new device. */
        flags |= IFF_MULTI_QUEUE | (index == 0 ? IFF_TUN_EXCL : 0);
    TRY(open_file(&t->fd[index], why, why_size));
    TRY(attach(t->fd[index], t->name, flags, why, why_size));
    if (ioctl(t->fd[index], TUNSETVNETHDRSZ, &size) < 0) {
        (void)snprintf(why, why_size, "%s: the kernel refuses a virtio_net_hdr: %s", t->name, strerror(errno));
        return ERR_SYSTEM;
    }
    return OK;
}

static enum err set_offload(struct tun *t, char *why, size_t why_size)
{
    unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    t->uso = ioctl(t->fd[0], TUNSETOFFLOAD, (unsigned long)(tcp | TUN_F_USO4 | TUN_F_USO6)) == 0;
    if (t->uso || ioctl(t->fd[0], TUNSETOFFLOAD, (unsigned long)tcp) == 0)
        return OK;
    (void)snprintf(why, why_size, "%s: the kernel refuses segmentation offload: %s", t->name, strerror(errno));
    return ERR_SYSTEM;
}

static enum err open_all(struct tun *t, char *why, size_t why_size)
{
    for (unsigned i = 0; i < t->queues; i++)
        TRY(open_queue(t, i, why, why_size));
    TRY(set_offload(t, why, why_size));
    t->ifindex = (int)if_nametoindex(t->name);
    if (t->ifindex > 0)
        return OK;
    (void)snprintf(why, why_size, "%s has no interface index: %s", t->name, strerror(errno));
    return ERR_SYSTEM;
}

enum err tun_open(const char *name, unsigned queues, struct tun **out, char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "%s", "");
    if (queues == 0 || queues > TUN_QUEUES_MAX || strlen(name) >= IFNAMSIZ) {
        (void)snprintf(why, why_size, "\"%s\" with %u queues: at most %d bytes and 1 to %d queues", name, queues,
                       IFNAMSIZ - 1, TUN_QUEUES_MAX);
        errno = EINVAL;
        return ERR_SYSTEM;
    }
    struct tun *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    (void)snprintf(t->name, sizeof t->name, "%s", name);
    t->queues = queues;
    for (unsigned i = 0; i < TUN_QUEUES_MAX; i++)
        t->fd[i] = -1;
    enum err e = open_all(t, why, why_size);
    if (e != OK) {
        tun_close(t);
        return e;
    }
    *out = t;
    return OK;
}

void tun_close(struct tun *t)
{
    if (!t)
        return;
    int kept = errno;
    for (unsigned i = 0; i < t->queues; i++)
        if (t->fd[i] >= 0)
            (void)close(t->fd[i]);
    free(t);
    errno = kept;
}

int tun_fd(const struct tun *t, unsigned queue)
{
    return queue < t->queues ? t->fd[queue] : -1;
}

int tun_ifindex(const struct tun *t)
{
    return t->ifindex;
}

const char *tun_name(const struct tun *t)
{
    return t->name;
}

bool tun_has_uso(const struct tun *t)
{
    return t->uso;
}
