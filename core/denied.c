/*
 * What the firewall drops (core/firewall.h), as counters beside our own, and in the audit log: cleartext that arrives
 * though a policy protects or discards it (RFC 4301 section 5.2, step 3b), and what would have left like that (5.1).
 */
#include "core/audit.h"
#include "core/daemon.h"

static const enum stat_id reasons[] = {STAT_DROP_IN_CLEAR, STAT_DROP_OUT_CLEAR};

void daemon_denied_count(struct daemon *d)
{
    for (unsigned out = 0; out < 2; out++) {
        uint64_t n = host_filter_dropped(d->host, out);
        stat_add(&d->stats, reasons[out], n);
        d->denied[out] += n;
    }
}

static void tell(struct daemon *d, unsigned out)
{
    char text[AUDIT_TEXT];
    uint64_t n = d->denied[out];
    d->denied[out] = 0;
    if (!n || !d->config->host.audit)
        return;
    struct audit_event e = {.reason = reasons[out],
                            .summary = true,
                            .held = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX,
                            .wall = clock_wall()};
    log_line(LOG_INFO, "audit", "%s", audit_format(&e, NULL, NULL, NULL, text));
}

static void on_time(struct timer *t, void *ctx, ns_t now)
{
    struct daemon *d = ctx;
    daemon_denied_count(d);
    tell(d, false);
    tell(d, true);
    timer_set(&d->timers, t, now + AUDIT_QUIET);
}

enum err daemon_denied_open(struct daemon *d)
{
    TRY(timer_add(&d->timers, &d->denied_look, on_time));
    timer_set(&d->timers, &d->denied_look, clock_now() + AUDIT_QUIET);
    return OK;
}
