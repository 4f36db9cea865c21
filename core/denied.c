/*
 * What the firewall drops (core/firewall.h), as counters beside our own, and in the audit log: cleartext that arrives
 * though a policy protects or discards it (RFC 4301 section 5.2, step 3b), and what would have left like that (5.1). Of
 * the former the kernel shows some, at the audit log's rate; of all others the number is told.
 */
#include <sys/epoll.h>

#include "core/audit.h"
#include "core/daemon.h"
#include "tun/nflog.h"

static const enum stat_id reasons[] = {STAT_DROP_IN_CLEAR, STAT_DROP_OUT_CLEAR};

static void line(struct daemon *d, struct audit_event *e)
{
    char text[AUDIT_TEXT];
    e->wall = clock_wall();
    if (d->config->host.audit)
        log_line(LOG_INFO, "audit", "%s", audit_format(e, NULL, NULL, NULL, text));
}

static void on_packet(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    uint8_t packet[NFLOG_PACKET];
    size_t len;
    (void)events;
    for (unsigned i = 0; i < AUDIT_BURST && nflog_read(host_filter_log(d->host), packet, &len) == OK; i++) {
        struct audit_event e = {.reason = STAT_DROP_IN_CLEAR};
        if (flow_of(span_of(packet, len), &e.inner) != OK)
            e.inner.src.family = 0;
        line(d, &e);
        d->denied_shown++;
    }
}

void daemon_denied_count(struct daemon *d)
{
    for (unsigned out = 0; out < 2; out++) {
        uint64_t n = host_filter_dropped(d->host, out);
        stat_add(&d->stats, reasons[out], n);
        d->denied[out] += n;
    }
}

static void tell_rest(struct daemon *d, unsigned out)
{
    uint64_t shown = out ? 0 : d->denied_shown, n = d->denied[out] > shown ? d->denied[out] - shown : 0;
    struct audit_event e = {.reason = reasons[out], .summary = true, .held = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX};
    if (n)
        line(d, &e);
    d->denied[out] = 0;
}

static void on_time(struct timer *t, void *ctx, ns_t now)
{
    struct daemon *d = ctx;
    daemon_denied_count(d);
    tell_rest(d, false);
    tell_rest(d, true);
    d->denied_shown = 0;
    timer_set(&d->timers, t, now + AUDIT_QUIET);
}

enum err daemon_denied_open(struct daemon *d)
{
    int fd = host_filter_log(d->host);
    TRY(timer_add(&d->timers, &d->denied_look, on_time));
    timer_set(&d->timers, &d->denied_look, clock_now() + AUDIT_QUIET);
    return fd < 0 ? OK : loop_watch_add(d->loop, fd, EPOLLIN, on_packet, d, &d->denied_watch);
}

void daemon_denied_close(struct daemon *d)
{
    if (d->denied_watch)
        loop_watch_del(d->loop, d->denied_watch);
    d->denied_watch = NULL;
}
