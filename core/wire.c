/* What is framed is sealed as a batch and sent, with segmentation where lengths allow it. */
#include "core/worker_impl.h"

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

void wire_flush(struct worker *w)
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
