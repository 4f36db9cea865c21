#include "core/flow_log.h"

#include <stdlib.h>
#include <string.h>

#include "crypto/random.h"

#define SWEEP_LEAST NS_PER_S

struct flow_log {
    uint8_t key[SIPHASH_KEY]; /* so that nobody makes flows crowd into one set */
    ns_t next;
    struct flow_record sets[FLOW_SETS][FLOW_WAYS];
};

enum err flow_log_new(struct flow_log **out)
{
    struct flow_log *l = calloc(1, sizeof *l); /* of what is never used, no page is touched */
    if (!l)
        return ERR_NOMEM;
    random_bytes(l->key, sizeof l->key);
    l->next = NS_NEVER;
    *out = l;
    return OK;
}

void flow_log_free(struct flow_log *l)
{
    free(l);
}

ns_t flow_log_deadline(const struct flow_log *l)
{
    return l->next;
}

static bool same(const struct flow_record *a, const struct flow_record *b)
{
    return a->policy_id == b->policy_id && a->action == b->action && a->proto == b->proto &&
           a->local_port == b->local_port && a->remote_port == b->remote_port && ip_equal(&a->local, &b->local) &&
           ip_equal(&a->remote, &b->remote);
}

static struct flow_record *set_of(struct flow_log *l, const struct flow_record *r)
{
    uint8_t bytes[41];
    memcpy(bytes, r->local.b, 16);
    memcpy(bytes + 16, r->remote.b, 16);
    put_be16(bytes + 32, r->local_port);
    put_be16(bytes + 34, r->remote_port);
    put_be32(bytes + 36, r->policy_id);
    bytes[40] = r->proto;
    return l->sets[siphash(l->key, span_of(bytes, sizeof bytes)) % FLOW_SETS];
}

/* The place of a flow: its own, an empty one, or that of the one that was quiet longest. */
static struct flow_record *place(struct flow_log *l, const struct flow_record *r)
{
    struct flow_record *set = set_of(l, r), *best = &set[0];
    for (unsigned i = 0; i < FLOW_WAYS; i++) {
        if (set[i].first && same(&set[i], r))
            return &set[i];
        if (set[i].last < best->last)
            best = &set[i];
    }
    return best;
}

static void begin(struct flow_record *r, ns_t now)
{
    r->out_packets = r->out_bytes = r->in_packets = r->in_bytes = r->dropped = 0;
    r->first = r->last = now ? now : 1;
}

static struct flow_record describe(const struct spd_entry *entry, const struct flow *f, const struct flow_amount *a)
{
    bool in = a->in;
    bool ports = f->ports_known && !selector_sender_only(f->proto);
    return (struct flow_record){
        .local = in ? f->dst : f->src,
        .remote = in ? f->src : f->dst,
        .local_port = !ports ? 0
                      : in   ? f->dst_port
                             : f->src_port,
        .remote_port = !ports ? 0
                       : in   ? f->src_port
                              : f->dst_port,
        .proto = f->proto,
        .policy_id = entry->base,
        .action = (uint8_t)(a->fate == FLOW_CLEAR ? ACTION_BYPASS : entry->policy->action),
    };
}

static bool tell(struct flow_record *r, enum flow_end end, const struct flow_sink *sink)
{
    r->end = (uint8_t)end;
    return sink->put(sink->ctx, r);
}

bool flow_log_add(struct flow_log *l, const struct spd_entry *entry, const struct flow *f, const struct flow_amount *a,
                  ns_t now, const struct flow_sink *sink)
{
    struct flow_record wanted = describe(entry, f, a), *r = place(l, &wanted);
    bool told = true;
    if (!r->first || !same(r, &wanted)) {
        if (r->first)
            told = tell(r, FLOW_EVICTED, sink);
        *r = wanted;
        begin(r, now);
    }
    r->last = now ? now : 1;
    if (a->fate == FLOW_DROPPED) {
        r->dropped += a->packets;
    } else {
        *(a->in ? &r->in_packets : &r->out_packets) += a->packets;
        *(a->in ? &r->in_bytes : &r->out_bytes) += a->bytes;
        *(a->in ? &r->spi_in : &r->spi_out) = a->spi;
    }
    if (l->next == NS_NEVER)
        l->next = now + FLOW_IDLE;
    return told;
}

/* Tells of one flow if it is time. False: it has gone. */
static bool look(struct flow_record *r, ns_t now, bool all, const struct flow_sink *sink)
{
    if (all || now - r->last >= FLOW_IDLE) {
        if (!tell(r, all ? FLOW_STOPPED : FLOW_QUIET, sink))
            return true;
        *r = (struct flow_record){0};
        return false;
    }
    if (now - r->first >= FLOW_LONG && tell(r, FLOW_LASTING, sink))
        begin(r, now);
    return true;
}

void flow_log_sweep(struct flow_log *l, ns_t now, bool all, const struct flow_sink *sink)
{
    l->next = NS_NEVER;
    for (unsigned i = 0; i < FLOW_SETS * FLOW_WAYS; i++) {
        struct flow_record *r = &l->sets[i / FLOW_WAYS][i % FLOW_WAYS];
        if (!r->first || !look(r, now, all, sink))
            continue;
        ns_t quiet = r->last + FLOW_IDLE, lasting = r->first + FLOW_LONG;
        ns_t next = quiet < lasting ? quiet : lasting;
        l->next = next < l->next ? next : l->next;
    }
    if (l->next != NS_NEVER && l->next < now + SWEEP_LEAST)
        l->next = now + SWEEP_LEAST;
}
