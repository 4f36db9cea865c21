/* Audit events as lines, with what RFC 4301 section 5.2 and RFC 4303 section 4 want in them. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/audit.h"

struct line {
    char *text;
    size_t len;
};

static void add(struct line *l, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct line *l, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(l->text + l->len, AUDIT_TEXT - l->len, fmt, args);
    va_end(args);
    size_t len = l->len + (n > 0 ? (size_t)n : 0);
    l->len = len < AUDIT_TEXT ? len : AUDIT_TEXT - 1;
}

static void add_time(struct line *l, ns_t wall)
{
    time_t seconds = (time_t)(wall / NS_PER_S);
    struct tm tm;
    char date[24];
    if (gmtime_r(&seconds, &tm) && strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm))
        add(l, ", at %s.%03uZ", date, (unsigned)(wall % NS_PER_S / NS_PER_MS));
}

static void add_inner(struct line *l, const struct flow *f)
{
    char src[IP_TEXT], dst[IP_TEXT];
    ip_format(&f->src, src);
    ip_format(&f->dst, dst);
    if (!f->ports_known)
        add(l, ", inside %s -> %s protocol %u", src, dst, f->proto);
    else if (selector_sender_only(f->proto))
        add(l, ", inside %s -> %s protocol %u type %u code %u", src, dst, f->proto, f->src_port >> 8,
            f->src_port & 0xff);
    else
        add(l, ", inside %s port %u -> %s port %u protocol %u", src, f->src_port, dst, f->dst_port, f->proto);
}

const char *audit_format(const struct audit_event *e, const char *policy, const struct selectors *local,
                         const struct selectors *remote, char *text)
{
    struct line l = {text, 0};
    char a[200], b[200];
    if (e->summary) {
        add(&l, "%s: %u more like this were not reported one by one", stat_name(e->reason), e->held);
        add_time(&l, e->wall);
        return text;
    }
    add(&l, "%s: %s", stat_name(e->reason), stat_text(e->reason));
    if (e->spi)
        add(&l, ", %s SPI 0x%08x", e->ah ? "AH" : "ESP", e->spi);
    if (e->seq)
        add(&l, ", sequence number %llu", (unsigned long long)e->seq);
    if (e->from.ip.family)
        add(&l, ", %s -> %s", endpoint_format(&e->from, a), endpoint_format(&e->to, b));
    if (e->flow)
        add(&l, ", flow label 0x%05x", e->flow);
    if (e->inner.src.family)
        add_inner(&l, &e->inner);
    if (policy)
        add(&l, ", policy %s", policy);
    if (local && remote)
        add(&l, ", selectors %s === %s", selectors_format(local, a, sizeof a), selectors_format(remote, b, sizeof b));
    add_time(&l, e->wall);
    if (e->held)
        add(&l, " (%u more before it were not reported)", e->held);
    return text;
}
