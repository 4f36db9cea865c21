/* What the data plane has to know of the network about sizes (core/pathmtu.h): links, probes, and what routers say. */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/daemon.h"
#include "tun/link.h"
#include "tun/udp.h"

#define ERRORS_PER_TURN 32 /* a flood leaves room for everything else */

static unsigned link_of(void *ctx, const struct path *path)
{
    unsigned mtu;
    struct ip source;
    (void)ctx;
    if (link_mtu(&path->local.ip, &mtu) == OK || udp_route(&path->remote, true, &source, &mtu) == OK)
        return mtu;
    return 0;
}

static enum err probe(void *ctx, uint64_t child, unsigned bytes)
{
    struct daemon *d = ctx;
    return ike_probe(d->engine, child, bytes, clock_now());
}

static void doubt(void *ctx, uint64_t child)
{
    struct daemon *d = ctx;
    ike_child_doubtful(d->engine, child, clock_now());
}

struct path_mtu_env daemon_sizes(struct daemon *d)
{
    return (struct path_mtu_env){.ctx = d, .timers = &d->timers, .link = link_of, .probe = probe, .doubt = doubt};
}

/* RFC 4301 section 6: an aid to find out what is wrong with a network. */
static void note(struct error_source *s, const struct icmp_error *e, bool heard)
{
    char from[IP_TEXT], to[ENDPOINT_TEXT], size[24] = "";
    if (e->mtu)
        snprintf(size, sizeof size, " (MTU %u)", e->mtu);
    log_limited(&s->limit, LOG_DEBUG, "core", "ICMP from %s about what went to %s: %s%s; %s", ip_format(&e->from, from),
                endpoint_format(&e->remote, to), e->too_big ? "too big" : "unreachable", size,
                heard ? "it is looked into" : "ignored");
}

static void take_errors(struct daemon *d, struct error_source *s)
{
    for (unsigned i = 0; i < ERRORS_PER_TURN; i++) {
        struct icmp_error e;
        enum err err = errors_read(s->fd, s->family, &e);
        if (err == ERR_NOTFOUND)
            break;
        bool heard = err == OK && dataplane_told(d->dataplane, &e, clock_now());
        stat_add(&d->stats, heard ? STAT_ICMP_HEARD : STAT_ICMP_IGNORED, 1);
        if (err == OK)
            note(s, &e, heard);
    }
}

static void on_errors(void *ctx, uint32_t events)
{
    struct error_source *s = ctx;
    (void)events;
    take_errors(s->daemon, s);
}

/* A container without CAP_NET_RAW goes without: what routers say is a hint, and probes do without it. */
void daemon_errors_open(struct daemon *d)
{
    for (unsigned i = 0; i < 2; i++) {
        struct error_source *s = &d->errors[i];
        *s = (struct error_source){.daemon = d, .family = i ? 6 : 4, .fd = -1};
        enum err e = errors_open(s->family, &s->fd);
        if (e == OK)
            e = loop_watch_add(d->loop, s->fd, EPOLLIN, on_errors, s, &s->watch);
        if (e != OK)
            log_line(LOG_INFO, "core", "ICMP errors of IPv%u can't be received: %s", s->family,
                     e == ERR_PERM ? "CAP_NET_RAW is needed" : err_text(e));
    }
}

void daemon_errors_close(struct daemon *d)
{
    for (unsigned i = 0; i < 2; i++) {
        if (d->errors[i].watch)
            loop_watch_del(d->loop, d->errors[i].watch);
        if (d->errors[i].daemon && d->errors[i].fd >= 0)
            close(d->errors[i].fd);
    }
}
