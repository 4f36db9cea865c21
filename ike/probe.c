/*
 * Path MTU probes (RFC 8899 section 4.1): an INFORMATIONAL request, padded by a status notify that nobody knows and so
 * everybody ignores (RFC 7296 section 3.10.1), in a datagram of the probed size that may not be fragmented. The peer's
 * answer, which is short, proves the size.
 *
 * A lost request has to be sent again until it is answered, bit for bit as it was (RFC 7296 section 2.1), and that must
 * not take a size that does not pass. So from then on the datagram may be fragmented, by routers or by this host. Where
 * fragments don't pass either, which is what firewalls do, nothing that long ever would: what is sent after that is the
 * same request without its padding, a liveness check. The peer has seen none of them, asks nothing of it, and answers
 * both alike; the IKE SA would be lost otherwise. (IKE fragments, which may differ by RFC 7383 section 2.5.2, won't do:
 * strongSwan takes an INFORMATIONAL request that comes in fragments for something else and never answers.) An answer
 * after the request was sent again is counted as that one's.
 */
#include "ike/internal.h"

#define NOTIFY_HEADER 8 /* of the payload, with its generic header */
#define LEAST 128       /* bytes of a datagram that is worth probing */
#define SHORT_TRIES 2   /* from that retransmission on the padding is left out; from the first once that was needed */

/* The longest notify, in bytes of data, whose message is no longer than that. */
static size_t padding_for(const struct ike_sa *sa, size_t message)
{
    size_t around = IKE_HEADER_LEN + 4 + (size_t)sa->suite.iv_len + sa->suite.icv_len;
    size_t text = message > around ? message - around : 0;
    if (sa->suite.block > 1)
        text -= text % sa->suite.block;
    return text > NOTIFY_HEADER + 1 ? text - NOTIFY_HEADER - 1 : 0; /* the pad length is in there too */
}

static void put_padding(struct ike_builder *b, size_t len)
{
    ike_open(b, PAYLOAD_NOTIFY);
    write_u8(&b->w, PROTOCOL_NONE);
    write_u8(&b->w, 0);
    write_u16(&b->w, NOTIFY_PROBE);
    uint8_t *room = write_room(&b->w, len);
    if (room)
        memset(room, 0, len);
    ike_close(b);
}

void probe_start(struct ike_sa *sa)
{
    struct task *t = sa->current;
    struct ike_builder b;
    size_t room = fragment_room(&sa->path, t->datagram);
    request_begin(sa, &b, EXCHANGE_INFORMATIONAL);
    put_padding(&b, padding_for(sa, room));
    if (request_send_whole(sa, &b))
        t->datagram -= (unsigned)(room - sa->tx.flight.len);
}

static void tell(const struct ike_sa *sa, bool through)
{
    sa->e->env.probed(sa->e->env.ctx, sa->current->child, sa->current->datagram, through);
}

void probe_again(struct ike_sa *sa)
{
    struct task *t = sa->current;
    struct ike_builder b;
    size_t len;
    if (!t->sent_again)
        tell(sa, false);
    t->sent_again = true;
    if (t->shortened || sa->tx.tries < (sa->fragments_lost ? 1 : SHORT_TRIES))
        return;
    request_again(sa, &b, EXCHANGE_INFORMATIONAL);
    if (ike_finish_sk(&b, &sa->suite, sa->seal, &len) == OK)
        t->shortened = buf_set(&sa->tx.flight, span_of(sa->e->out, len)) == OK;
}

void probe_response(struct ike_sa *sa)
{
    if (!sa->current->sent_again)
        tell(sa, true);
    sa->fragments_lost = sa->fragments_lost || sa->current->shortened;
    task_done(sa);
}

/* Nothing else is under way, nor waits. */
static bool idle(const struct ike_sa *sa)
{
    return sa->state == SA_UP && !sa->unproven && !sa->current && !sa->queue && !sa->pending && !sa->undecided_of;
}

enum err ike_probe(struct ike_engine *e, uint64_t child, unsigned bytes, ns_t now)
{
    e->now = now;
    const struct child *c = child_find(e, child);
    if (!c)
        return ERR_NOTFOUND;
    struct ike_sa *sa = c->sa;
    if (!e->env.send_whole)
        return ERR_UNSUPPORTED;
    if (bytes < LEAST || bytes > UINT16_MAX)
        return ERR_RANGE;
    struct task *t = idle(sa) ? task_new(TASK_PROBE) : NULL;
    if (!t)
        return ERR_STATE;
    t->child = child;
    t->datagram = bytes;
    task_queue(sa, t, false);
    engine_leave(e);
    return OK;
}

void ike_child_doubtful(struct ike_engine *e, uint64_t child, ns_t now)
{
    e->now = now;
    const struct child *c = child_find(e, child);
    if (c && c->sa->state == SA_UP && now - c->sa->last_in >= DOUBT_AFTER && idle(c->sa))
        liveness_queue(c->sa);
    engine_leave(e);
}
