/* What was opened, on its way to the TUN: the last checks, and merging into superpackets. */
#include "core/worker_impl.h"

/* Other workers may be opening packets of the same SA. */
static void recall_ports(const struct worker *w, struct sa *sa, struct flow *f)
{
    pthread_spin_lock(&sa->lock);
    (void)fragment_table_fill(sa->fragments, f, worker_now(w));
    pthread_spin_unlock(&sa->lock);
}

/*
 * RFC 4301 section 5.2 step 4, against the SPD as it is now: the packet must be the traffic of the policy its SA was
 * made for. The SA's own selectors, which esp_open checked, say so already unless an earlier policy takes some of it.
 */
static bool selected(const struct worker *w, const struct spd *spd, const struct spd_entry *entry, struct sa *sa,
                     const struct esp_packet *p)
{
    struct flow f, quoted;
    struct span packet = span_of(p->data, p->len);
    if (!entry || !entry->overlapped)
        return entry != NULL;
    if (flow_of(packet, &f) != OK)
        return false;
    if (fragment_later(&f) && sa->fragments)
        recall_ports(w, sa, &f);
    const struct spd_entry *found = spd_lookup_in(spd, &f);
    if (!found && flow_of_quoted(packet, &f, &quoted) == OK) /* as esp_open does: RFC 4301 section 6.2 */
        found = spd_lookup_in(spd, &quoted);
    return found == entry;
}

/* NULL: its policy has gone, or is another one now, perhaps of another peer, or not to be protected at all. */
static const struct spd_entry *entry_of(const struct spd *spd, const struct sa *sa)
{
    const struct spd_entry *entry = spd_find(spd, sa->params.policy_id);
    return entry && entry->policy->version == sa->params.version ? entry : NULL;
}

/* What the path says about congestion (RFC 6040 section 4.2). False: the packet is to be dropped, which is counted. */
static bool decapsulated(struct worker *w, struct sa *sa, const struct esp_packet *p)
{
    enum outer_ecn ecn = outer_ecn_in(p->outer.tos, p->data);
    if (ecn == OUTER_ECN_DROP)
        worker_sa_drop(w, STAT_DROP_IN_ECN, 1, sa);
    else if (ecn != OUTER_ECN_USUAL)
        worker_count(w, STAT_IN_ECN_ODD, 1);
    return ecn != OUTER_ECN_DROP;
}

/* What was found wrong. Of a packet outside the selectors of a tunnel the inner one was opened, and is there. */
static void dropped(struct worker *w, const struct batch *b, const struct esp_packet *p)
{
    bool opened = p->drop == STAT_DROP_IN_SELECTOR && b->sa->params.mode == MODE_TUNNEL;
    worker_sa_drop(w, p->drop, 1, b->sa);
    if (p->drop != STAT_DROP_IN_DUMMY)
        audit_sa(w, p->drop, b->sa, p, &b->from, span_of(p->data, opened ? p->len : 0));
}

static void note_flow(struct worker *w, const struct spd_entry *entry, const struct sa *sa, const struct esp_packet *p)
{
    struct flow f;
    if (flow_of(span_of(p->data, p->len), &f) == OK)
        flows_note(w, entry, sa, &f, FLOW_PASSED, 1, p->len);
}

/* Merges the good packets into superpackets for the TUN. */
void deliver(struct worker *w, struct batch *b)
{
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    const struct spd_entry *entry = entry_of(spd, b->sa);
    uint16_t mss4 = frame_mss(w, b->sa, false), mss6 = frame_mss(w, b->sa, true);
    bool transport = b->sa->params.mode == MODE_TRANSPORT, tap = tapped(w), log = entry && entry->policy->flow_log;
    uint64_t packets = 0, bytes = 0;
    coalesce_begin(w->coalescer, w->loop, w->tun, b->slot);
    for (unsigned i = 0; i < b->n; i++) {
        struct esp_packet *p = &b->v[i];
        if (p->verdict != OK) {
            dropped(w, b, p);
            continue;
        }
        if (transport && !transport_restore(b, i)) {
            dropped(w, b, p);
            continue;
        }
        if (!selected(w, spd, entry, b->sa, p)) {
            worker_sa_drop(w, STAT_DROP_IN_SELECTOR, 1, b->sa);
            audit_sa(w, STAT_DROP_IN_SELECTOR, b->sa, p, &b->from, span_of(p->data, p->len));
            continue;
        }
        if ((p->outer.tos & OUTER_ECN) && !transport && !decapsulated(w, b->sa, p))
            continue;
        packets++;
        if (tap)
            tap_batch(w, b, TAP_PLAIN, i, 1);
        if (log)
            note_flow(w, entry, b->sa, p);
        uint16_t mss = p->data[0] >> 4 == 4 ? mss4 : mss6;
        if (mss)
            clamp_mss(p->data, p->len, mss);
        bytes += p->len - (transport ? b->head[i] : 0); /* as they are counted on the way out */
        coalesce_add(w->coalescer, p->data, p->len);
    }
    worker_count(w, STAT_TUN_WRITES, coalesce_flush(w->coalescer));
    worker_count(w, STAT_IN_PACKETS, packets);
    worker_count(w, STAT_IN_BYTES, bytes);
    struct policy_stats *stats = b->sa->params.stats;
    if (stats && packets) {
        stat_add_shared(&stats->in_packets, packets);
        stat_add_shared(&stats->in_bytes, bytes);
    }
}
