#include "ike/msgid.h"

#include <stdlib.h>

static bool is_held(const struct msgid_in *in, uint32_t id)
{
    for (const struct held_request *r = in->held; r; r = r->next)
        if (r->h.message_id == id)
            return true;
    return false;
}

struct buf *msgid_flight(struct msgid_in *in, uint32_t id)
{
    return in->ring ? &in->ring[id % in->window] : &in->last;
}

enum msgid_verdict msgid_judge(struct msgid_in *in, uint32_t id)
{
    if (id < in->expected)
        return in->expected - id <= in->window && msgid_flight(in, id)->len ? MSGID_REPEAT : MSGID_OUTSIDE;
    /* The last number is never served: numbers don't start over within one SA (section 2.2). */
    if (id - in->expected >= in->window || id == UINT32_MAX)
        return MSGID_OUTSIDE;
    return (id == in->expected && in->busy) || is_held(in, id) ? MSGID_BUSY : MSGID_FRESH;
}

void msgid_accept(struct msgid_in *in, const struct path *path)
{
    in->path = *path;
    in->busy = true;
}

void msgid_answer(struct msgid_in *in)
{
    in->expected++;
    in->busy = false;
}

enum err msgid_widen(struct msgid_in *in, unsigned window)
{
    struct buf *ring = calloc(window, sizeof *ring);
    if (!ring)
        return ERR_NOMEM;
    for (uint32_t n = 1; n <= in->window && n <= in->expected; n++) /* the answers that are there move over */
        ring[(in->expected - n) % window] = *msgid_flight(in, in->expected - n);
    free(in->ring);
    in->ring = ring;
    in->last = (struct buf){NULL, 0, 0};
    in->window = window;
    return OK;
}

enum err msgid_hold(struct msgid_in *in, const struct ike_message *m, const struct path *path, enum err err,
                    struct span text)
{
    if (text.len > HELD_MAX - in->held_bytes)
        return ERR_FULL;
    struct held_request *r = calloc(1, sizeof *r);
    if (!r || buf_set(&r->text, text) != OK) {
        free(r);
        return ERR_NOMEM;
    }
    r->h = m->h;
    r->path = *path;
    r->first = m->sk_first;
    r->err = err;
    struct held_request **at = &in->held;
    while (*at && (*at)->h.message_id < m->h.message_id)
        at = &(*at)->next;
    r->next = *at;
    *at = r;
    in->held_bytes += text.len;
    return OK;
}

bool msgid_due(const struct msgid_in *in)
{
    return in->held && in->held->h.message_id == in->expected;
}

struct held_request *msgid_take(struct msgid_in *in)
{
    struct held_request *r = in->held;
    if (!msgid_due(in))
        return NULL;
    in->held = r->next;
    in->held_bytes -= r->text.len;
    return r;
}

void held_free(struct held_request *r)
{
    if (!r)
        return;
    buf_free(&r->text);
    free(r);
}

void msgid_request(struct msgid_out *out)
{
    out->next++;
    out->tries = 0;
    out->pending = true;
}

bool msgid_awaited(const struct msgid_out *out, uint32_t id)
{
    return out->pending && id == out->next - 1;
}

void msgid_done(struct msgid_out *out)
{
    out->pending = false;
    buf_free(&out->flight);
}

ns_t msgid_wait(unsigned tries, const struct random_source *rnd)
{
    ns_t wait = RETRANSMIT_FIRST << (tries < 16 ? tries : 16);
    uint32_t r;
    random_fill(rnd, &r, sizeof r);
    return wait + wait / 10 * (r % 1000) / 1000;
}

void msgid_free(struct msgid_in *in, struct msgid_out *out)
{
    for (unsigned i = 0; in->ring && i < in->window; i++)
        buf_free(&in->ring[i]);
    free(in->ring);
    buf_free(&in->last);
    while (in->held) {
        struct held_request *r = in->held;
        in->held = r->next;
        held_free(r);
    }
    buf_free(&out->flight);
}
