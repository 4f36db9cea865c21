/*
 * What policy lets pass in the clear but routes have brought to the TUN (bypass that no route can express, fail-open): it
 * leaves by the raw sockets, as it is, with the mark that keeps it out of the TUN.
 */
#include "core/worker_impl.h"

static struct loop_io *raw_socket(struct worker *w, uint8_t family)
{
    for (unsigned i = 0; i < w->p.socket_count; i++)
        if (w->sockets[i].s.kind == SOCKET_ESP && w->sockets[i].s.local.ip.family == family)
            return w->sockets[i].io;
    return NULL;
}

/* As many segments as one slot holds; false: all slots are in flight. */
static bool send_some(struct worker *w, struct loop_io *io, struct segments *s, const struct ip *to,
                      struct policy_stats *stats)
{
    struct loop_slot *slot = loop_slot_get(w->loop);
    uint32_t used = 0, packets = 0;
    if (!slot)
        return false;
    while (segment_more(s)) {
        uint32_t size = segment_size(s, s->next);
        if (size > LOOP_SLOT_SIZE - used)
            break;
        segment_next(s, slot->data + used);
        loop_send(w->loop, io,
                  &(struct loop_tx){.slot = slot, .data = slot->data + used, .len = size, .to = {.ip = *to}});
        used += size;
        packets++;
    }
    loop_slot_put(w->loop, slot);
    worker_count(w, STAT_TX_CALLS, packets);
    worker_count(w, STAT_BYPASSED, packets);
    if (stats) {
        stat_add_shared(&stats->out_packets, packets);
        stat_add_shared(&stats->out_bytes, used);
    }
    return true;
}

bool reinject(struct worker *w, struct segments *s, const struct ip *to, struct policy_stats *stats)
{
    struct loop_io *io = raw_socket(w, to->family);
    if (!io) {
        worker_drop(w, STAT_DROP_OUT_BYPASS, s->count, stats, NULL);
        return false;
    }
    while (segment_more(s))
        if (!send_some(w, io, s, to, stats)) {
            worker_drop(w, STAT_DROP_OUT_NO_BUFFER, s->count - s->next, stats, NULL);
            return false;
        }
    return true;
}
