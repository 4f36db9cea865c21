/* A worker's side of the flow log. */
#include "core/worker_impl.h"

static bool push_last(void *ctx, const struct flow_record *r)
{
    struct worker *w = ctx;
    if (ring_push(w->ring, WORKER_FLOW, span_of(r, sizeof *r), span_of(NULL, 0)) != OK)
        return false;
    w->ring_filled = true;
    return true;
}

/* Who makes more flows than can be told shall not keep IKE's messages and other events out of the ring. */
static bool push(void *ctx, const struct flow_record *r)
{
    const struct worker *w = ctx;
    return !ring_half_full(w->ring) && push_last(ctx, r);
}

static struct flow_sink sink_of(struct worker *w)
{
    return (struct flow_sink){.ctx = w, .put = push};
}

void flows_note(struct worker *w, const struct spd_entry *entry, const struct sa *sa, const struct flow *f,
                enum flow_fate fate, uint64_t packets, uint64_t bytes)
{
    const struct flow_sink sink = sink_of(w);
    const struct flow_amount a = {.in = sa && sa->params.dir == SA_IN,
                                  .fate = fate,
                                  .spi = sa ? sa->params.spi : 0,
                                  .packets = packets,
                                  .bytes = bytes};
    if (!flow_log_add(w->flow_log, entry, f, &a, worker_now(w), &sink))
        worker_count(w, STAT_FLOWS_LOST, 1);
}

void flows_turn(struct worker *w)
{
    const struct flow_sink sink = sink_of(w);
    if (flow_log_deadline(w->flow_log) == NS_NEVER)
        return;
    ns_t now = worker_now(w);
    if (now >= flow_log_deadline(w->flow_log))
        flow_log_sweep(w->flow_log, now, false, &sink);
}

void worker_flows_end(struct worker *w)
{
    const struct flow_sink sink = {.ctx = w, .put = push_last};
    flow_log_sweep(w->flow_log, worker_now(w), true, &sink);
}
