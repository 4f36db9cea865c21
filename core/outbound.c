/*
 * TUN to wire, in one thread and without a queue: what was read in this turn is matched against the SPD; frame.c cuts it
 * into segments written straight to where they will be sealed, wire.c seals them as a batch and sends it.
 */
#include "core/worker_impl.h"

#define ACQUIRE_EVERY NS_PER_S

/* A packet wants an SA that isn't there: tell the control thread, at most once a second for each policy. */
static void acquire(struct worker *w, uint32_t policy_id, const struct flow *packet)
{
    ns_t now = worker_now(w);
    unsigned slot = policy_id % ACQUIRE_SLOTS;
    if (w->acquired[slot].policy_id == policy_id && now - w->acquired[slot].at < ACQUIRE_EVERY)
        return;
    w->acquired[slot].policy_id = policy_id;
    w->acquired[slot].at = now;
    (void)worker_event(w, &(struct worker_event){.kind = WORKER_ACQUIRE, .policy_id = policy_id, .packet = *packet});
}

/*
 * An ICMP error that no policy takes goes where answers to the packet it quotes would go, if there is an SA for those:
 * none is asked for (RFC 4301 section 6.2).
 */
static struct sa *match_quoted(struct worker *w, const struct spd *spd, struct span packet, const struct flow *f)
{
    struct flow quoted;
    if (flow_of_quoted(packet, f, &quoted) != OK)
        return NULL;
    const struct spd_entry *entry = flow_cache_lookup(w->flows, spd, &quoted);
    bool protect = entry && entry->policy->action == ACTION_PROTECT;
    struct sa *sa = protect ? worker_sa_out(w, entry) : NULL;
    if (!sa || !selectors_match_out(&sa->params.local, &sa->params.remote, &quoted))
        return NULL;
    worker_count(w, STAT_OUT_ICMP_QUOTED, 1);
    return sa;
}

/* Ports of fragments but the first are what the first one showed (section 7.3), where that is known. */
static void recall_ports(struct worker *w, struct flow *f)
{
    if (fragment_later(f))
        (void)fragment_table_fill(w->fragments, f, worker_now(w));
    else
        fragment_table_note(w->fragments, f, worker_now(w));
}

/* Nothing may carry it: counted, and told (RFC 4301 section 5.1). sa: the one that it is not for; NULL: none. */
static void refuse(struct worker *w, enum stat_id why, uint32_t packets, struct sa *sa, const struct flow *f)
{
    worker_drop(w, why, packets, sa ? sa->params.stats : NULL, sa);
    if (audit_wanted(w, why))
        audit_push(w, &(struct audit_event){.reason = why,
                                            .ah = sa && sa->params.proto == PROTOCOL_AH,
                                            .spi = sa ? sa->params.spi : 0,
                                            .policy_id = sa ? sa->params.policy_id : SPD_NONE,
                                            .inner = *f});
}

struct matched {
    const struct spd_entry *entry; /* NULL: none */
    bool waiting;                  /* for an SA that is not there, or not needed */
};

/* The outbound SA for a flow. NULL: the drop is counted for all its segments, unless it waits. */
static struct sa *match(struct worker *w, const struct spd *spd, struct span packet, const struct flow *f,
                        uint32_t packets, struct matched *m)
{
    enum stat_id unknown = fragment_later(f) && !f->ports_known ? STAT_DROP_OUT_FRAGMENT : STAT_COUNT;
    struct sa *quoted;
    const struct spd_entry *entry = m->entry = flow_cache_lookup(w->flows, spd, f);
    if (!entry) {
        quoted = match_quoted(w, spd, packet, f);
        if (!quoted)
            refuse(w, unknown != STAT_COUNT ? unknown : STAT_DROP_OUT_NO_POLICY, packets, NULL, f);
        return quoted;
    }
    if (entry->policy->action == ACTION_DISCARD) {
        worker_drop(w, STAT_DROP_OUT_DISCARD, packets, entry->stats, NULL);
        return NULL;
    }
    bool protect = entry->policy->action == ACTION_PROTECT;
    struct sa *sa = protect ? worker_sa_out(w, entry) : NULL;
    if (!sa) {
        m->waiting = true;
        return NULL;
    }
    /* The peer may have narrowed what we offered (RFC 7296 section 2.9). */
    if (!selectors_match_out(&sa->params.local, &sa->params.remote, f)) {
        quoted = match_quoted(w, spd, packet, f);
        if (!quoted)
            refuse(w, unknown != STAT_COUNT ? unknown : STAT_DROP_OUT_SELECTOR, packets, sa, f);
        return quoted;
    }
    return sa;
}

/* The packet that asks for a tunnel waits for it, if one is going to be asked for. False: it is dropped. */
static bool await(struct worker *w, const struct spd_entry *entry, struct span raw, const struct flow *f,
                  uint32_t packets, bool again)
{
    const struct policy *p = entry->policy;
    acquire(w, entry->id, f);
    enum stat_id drop = again || !p->hold || p->peer->start == START_NO ? STAT_DROP_OUT_NO_SA : STAT_DROP_OUT_HOLD_FULL;
    const struct hold_item item = {.policy_id = entry->id,
                                   .packets = packets,
                                   .datagram = f->fragment ? UINT64_C(1) << 32 | f->fragment_id : 0,
                                   .raw = raw};
    if (drop == STAT_DROP_OUT_HOLD_FULL && hold_put(w->hold, &item, p->hold, worker_now(w)) == OK) {
        worker_count(w, STAT_OUT_HELD, packets);
        return true;
    }
    worker_drop(w, drop, packets, entry->stats, NULL);
    return false;
}

/* What has no SA: it passes in the clear if its policy says so, else it waits. Returns what its flow has to know of it. */
static enum flow_fate without_sa(struct worker *w, const struct spd_entry *entry, struct segments *s, struct span raw,
                                 const struct flow *f, bool again)
{
    const struct policy *p = entry->policy;
    if (p->action == ACTION_PROTECT && !p->fail_open)
        return await(w, entry, raw, f, s->count, again) ? FLOW_HELD : FLOW_DROPPED;
    if (p->action == ACTION_PROTECT)
        acquire(w, entry->id, f);
    return reinject(w, s, &f->dst, entry->stats) ? FLOW_CLEAR : FLOW_DROPPED;
}

/* Each segment has the headers again. */
static uint64_t segments_bytes(const struct segments *s)
{
    return s->len + (uint64_t)(s->count - 1) * s->header_len;
}

/* One packet as it was read from the TUN; again: it has been held already. */
static void outbound(struct worker *w, const struct spd *spd, struct span raw, bool again)
{
    struct segments s;
    struct flow f;
    struct matched m = {0};
    if (segment_begin(&s, raw) != OK || flow_of(span_of(s.packet, s.len), &f) != OK) {
        worker_count(w, STAT_DROP_OUT_MALFORMED, 1);
        return;
    }
    if (f.fragment)
        recall_ports(w, &f);
    struct sa *sa = match(w, spd, span_of(s.packet, s.len), &f, s.count, &m);
    enum flow_fate fate = sa ? FLOW_PASSED : m.waiting ? without_sa(w, m.entry, &s, raw, &f, again) : FLOW_DROPPED;
    if (m.entry && m.entry->policy->flow_log && fate != FLOW_HELD)
        flows_note(w, m.entry, sa, &f, fate, s.count, segments_bytes(&s));
    if (sa && f.fragment && sa->params.mode == MODE_TRANSPORT)
        frame_fragment(w, sa, &s);
    else if (sa)
        frame_packet(w, sa, &s);
}

void outbound_received(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct worker *w = ctx;
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    worker_count(w, STAT_TUN_READS, n);
    for (unsigned i = 0; i < n; i++)
        outbound(w, spd, span_of(rx[i].data, rx[i].len), false);
    wire_flush(w);
}

struct late {
    struct worker *w;
    const struct spd *spd;
};

static bool has_sa(void *ctx, uint32_t policy_id)
{
    const struct late *late = ctx;
    const struct spd_entry *entry = spd_find(late->spd, policy_id);
    return entry && worker_sa_out(late->w, entry);
}

static void held_too_long(void *ctx, uint32_t policy_id, unsigned packets)
{
    const struct late *late = ctx;
    const struct spd_entry *entry = spd_find(late->spd, policy_id);
    worker_drop(late->w, STAT_DROP_OUT_HOLD_LATE, packets, entry ? entry->stats : NULL, NULL);
}

void outbound_held(struct worker *w)
{
    struct span raw;
    if (hold_deadline(w->hold) == NS_NEVER)
        return;
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    struct late late = {w, spd};
    hold_expire(w->hold, worker_now(w), held_too_long, &late);
    while (hold_take(w->hold, has_sa, &late, &raw))
        outbound(w, spd, raw, true);
    wire_flush(w);
}
