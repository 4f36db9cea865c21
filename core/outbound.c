/*
 * TUN to wire, in one thread and without a queue: what was read in this turn is matched against the SPD, cut into
 * segments written straight to where they will be sealed, sealed as a batch, and sent with segmentation.
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

static struct loop_io *socket_for(struct worker *w, const struct path *path)
{
    for (unsigned i = 0; i < w->p.socket_count; i++) {
        const struct worker_socket *s = &w->sockets[i].s;
        if (s->local.ip.family == path->remote.ip.family && s->local.port == path->local.port &&
            (ip_is_any(&s->local.ip) || ip_equal(&s->local.ip, &path->local.ip)))
            return w->sockets[i].io;
    }
    return NULL;
}

/*
 * Sends sealed packets that lie one behind the other. A run for one segmented send is as many as have the first one's
 * length, and one shorter that ends it.
 */
static void send_sealed(struct worker *w, struct batch *b, unsigned n)
{
    struct path path = sa_path(b->sa);
    struct loop_io *io = socket_for(w, &path);
    if (!io) {
        worker_count(w, STAT_DROP_OUT_SEND, n);
        return;
    }
    for (unsigned i = 0; i < n;) {
        uint32_t size = b->v[i].len, total = size;
        unsigned k = i + 1;
        while (k < n && k - i < LOOP_SEGMENTS && b->v[k - 1].len == size && b->v[k].len <= size &&
               total + b->v[k].len <= LOOP_SEND_MAX)
            total += b->v[k++].len;
        struct loop_tx tx = {
            .slot = b->slot,
            .data = b->v[i].data,
            .len = total,
            .segment = k - i > 1 ? (uint16_t)size : 0,
            .to = path.remote,
            .from = path.local.ip,
        };
        loop_send(w->loop, io, &tx);
        worker_count(w, STAT_TX_CALLS, 1);
        worker_count(w, STAT_TX_DATAGRAMS, k - i);
        i = k;
    }
}

static void flush(struct worker *w)
{
    struct batch *b = &w->out;
    if (!b->slot)
        return;
    if (b->n) {
        unsigned sealed = 0, events = SA_EVENT_NONE;
        uint64_t bytes = 0;
        for (unsigned i = 0; i < b->n; i++)
            bytes += b->v[i].len;
        pthread_spin_lock(&b->sa->lock);
        enum err e = esp_seal(b->sa, b->v, b->n, worker_now(w), &sealed, &events);
        pthread_spin_unlock(&b->sa->lock);
        worker_limits(w, b->sa, events);
        if (e == OK) {
            for (unsigned i = sealed; i < b->n; i++)
                bytes -= b->v[i].len;
            worker_count(w, STAT_OUT_PACKETS, sealed);
            worker_count(w, STAT_OUT_BYTES, bytes);
            send_sealed(w, b, sealed);
            worker_count(w, STAT_DROP_OUT_EXPIRED, b->n - sealed);
        } else {
            worker_count(w, e == ERR_EXPIRED ? STAT_DROP_OUT_EXPIRED : STAT_DROP_OUT_CRYPTO, b->n);
        }
    }
    loop_slot_put(w->loop, b->slot);
    b->slot = NULL;
    b->sa = NULL;
    b->n = 0;
}

/* Room for one more packet of that sealed length in the current batch, or NULL when all buffers are in flight. */
static uint8_t *batch_room(struct worker *w, struct sa *sa, uint32_t sealed_len)
{
    struct batch *b = &w->out;
    if (b->slot && (b->sa != sa || b->n == TRANSFORM_BATCH || b->used + sealed_len > LOOP_SLOT_SIZE))
        flush(w);
    if (!b->slot) {
        b->slot = loop_slot_get(w->loop);
        if (!b->slot)
            return NULL;
        b->sa = sa;
        b->used = 0;
        b->n = 0;
    }
    uint8_t *at = b->slot->data + b->used;
    b->used += sealed_len;
    return at;
}

/*
 * The framing stage of plain tunnel mode: each inner packet becomes one outer packet. Each segment is written where it
 * will be sealed in place, so that the sealed batch is contiguous: a segmented send as it stands.
 */
static void frame(struct worker *w, struct sa *sa, struct segments *s)
{
    uint16_t mss =
        (uint16_t)atomic_load_explicit(s->ipv6 ? &w->p.shared->mss6 : &w->p.shared->mss4, memory_order_relaxed);
    while (segment_more(s)) {
        uint32_t size = segment_size(s, s->next);
        uint32_t sealed_len = esp_sealed_len(&sa->params.suite, size);
        uint8_t *room = sealed_len <= LOOP_SLOT_SIZE ? batch_room(w, sa, sealed_len) : NULL;
        if (!room) {
            worker_count(w, STAT_DROP_OUT_NO_BUFFER, s->count - s->next);
            return;
        }
        uint8_t *inner = room + esp_headroom(&sa->params.suite);
        bool single = s->count == 1;
        segment_next(s, inner);
        if (single && mss)
            clamp_mss(inner, size, mss);
        w->out.v[w->out.n++] = (struct esp_packet){
            .data = inner,
            .len = size,
            .next_header = s->ipv6 ? NEXT_HEADER_IPV6 : NEXT_HEADER_IPV4,
        };
    }
}

/*
 * The outbound SA for a flow. NULL: the drop is counted for all its segments, unless `waiting` is the entry whose SA is
 * not there yet.
 */
static struct sa *match(struct worker *w, const struct spd *spd, const struct flow *f, uint32_t packets,
                        const struct spd_entry **waiting)
{
    const struct spd_entry *entry = flow_cache_lookup(w->flows, spd, f);
    if (!entry) {
        worker_count(w, STAT_DROP_OUT_NO_POLICY, packets);
        return NULL;
    }
    if (entry->policy->action != ACTION_PROTECT) {
        bool bypass = entry->policy->action == ACTION_BYPASS;
        worker_count(w, bypass ? STAT_DROP_OUT_BYPASS : STAT_DROP_OUT_DISCARD, packets);
        return NULL;
    }
    struct sa *sa = sad_find_out(w->p.shared->sad, entry->id, w->p.index);
    if (!sa) {
        *waiting = entry;
        return NULL;
    }
    /* The peer may have narrowed what we offered (RFC 7296 section 2.9). */
    if (!selectors_match_out(&sa->params.local, &sa->params.remote, f)) {
        worker_count(w, STAT_DROP_OUT_SELECTOR, packets);
        return NULL;
    }
    return sa;
}

/* The packet that asks for a tunnel waits for it, if one is going to be asked for. */
static void await(struct worker *w, const struct spd_entry *entry, struct span raw, const struct flow *f,
                  uint32_t packets, bool again)
{
    const struct policy *p = entry->policy;
    acquire(w, entry->id, f);
    if (again || !p->hold || p->peer->start == START_NO)
        worker_count(w, STAT_DROP_OUT_NO_SA, packets);
    else if (hold_put(w->hold, entry->id, raw, packets, p->hold, worker_now(w)) == OK)
        worker_count(w, STAT_OUT_HELD, packets);
    else
        worker_count(w, STAT_DROP_OUT_HOLD_FULL, packets);
}

/* One packet as it was read from the TUN; again: it has been held already. */
static void outbound(struct worker *w, const struct spd *spd, struct span raw, bool again)
{
    struct segments s;
    struct flow f;
    const struct spd_entry *waiting = NULL;
    if (segment_begin(&s, raw) != OK || flow_of(span_of(s.packet, s.len), &f) != OK) {
        worker_count(w, STAT_DROP_OUT_MALFORMED, 1);
        return;
    }
    struct sa *sa = match(w, spd, &f, s.count, &waiting);
    if (sa)
        frame(w, sa, &s);
    else if (waiting)
        await(w, waiting, raw, &f, s.count, again);
}

void outbound_received(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct worker *w = ctx;
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    worker_count(w, STAT_TUN_READS, n);
    for (unsigned i = 0; i < n; i++)
        outbound(w, spd, span_of(rx[i].data, rx[i].len), false);
    flush(w);
}

static bool has_sa(void *ctx, uint32_t policy_id)
{
    const struct worker *w = ctx;
    return sad_find_out(w->p.shared->sad, policy_id, w->p.index);
}

void outbound_held(struct worker *w)
{
    struct span raw;
    if (hold_deadline(w->hold) == NS_NEVER)
        return;
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    worker_count(w, STAT_DROP_OUT_HOLD_LATE, hold_expire(w->hold, worker_now(w)));
    while (hold_take(w->hold, has_sa, w, &raw))
        outbound(w, spd, raw, true);
    flush(w);
}
