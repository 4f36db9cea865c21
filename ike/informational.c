/* INFORMATIONAL (RFC 7296 sections 1.4 and 2.4): deletes, liveness, and the keepalives of RFC 3948. */
#include "ike/internal.h"

#define POLL_EVERY NS_PER_S
#define POLL_TOGETHER (100 * NS_PER_MS) /* thousands of idle SAs wake the process so often, and not each by itself */

/* -- our requests -- */

void informational_start(struct ike_sa *sa)
{
    struct task *t = sa->current;
    struct ike_builder b;
    request_begin(sa, &b, EXCHANGE_INFORMATIONAL);
    if (t->kind == TASK_IKE_DELETE) {
        ike_put_delete(&b, PROTOCOL_IKE, NULL, 0);
    } else if (t->kind == TASK_CHILD_DELETE) {
        const struct child *c = child_find(sa->e, t->child);
        if (!c && !t->spi) { /* gone meanwhile */
            task_done(sa);
            return;
        }
        uint32_t spi = c ? c->spi_in : t->spi; /* the sender's inbound one (section 1.4.1) */
        ike_put_delete(&b, c ? c->protocol : t->protocol, &spi, 1);
    } else {
        put_window(sa, &b);
        mobike_put_probe(sa, &b);
    }
    request_send(sa, &b);
}

/* Our Delete of the IKE SA was answered, or nobody is there to answer it. */
static void deleted(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct run *run = sa->run;
    bool restart = sa->restart;
    if (run && !sa->redundant && !sa->successor)
        report(e, IKE_EVENT_IKE_DOWN, run->peer, NULL, &sa->path, "IKE SA with %s was closed", run->peer->name);
    sa_kill(sa);
    if (run && restart)
        run_later(run, 0);
}

void informational_response(struct ike_sa *sa, const struct ike_message *m)
{
    struct task *t = sa->current;
    if (t->kind == TASK_IKE_DELETE) {
        deleted(sa);
        return;
    }
    if (t->kind == TASK_LIVENESS)
        mobike_probed(sa, m);
    /* Its Deletes name the other halves of what we named. */
    struct child *c = t->kind == TASK_CHILD_DELETE ? child_find(sa->e, t->child) : NULL;
    if (c && c->sa == sa)
        child_drop(c, true);
    task_done(sa);
}

void informational_farewell(struct ike_sa *sa, uint16_t notify)
{
    struct ike_engine *e = sa->e;
    struct ike_builder b;
    size_t len;
    struct span none = span_of(NULL, 0);
    request_begin(sa, &b, EXCHANGE_INFORMATIONAL);
    ike_put_notify(&b, PROTOCOL_NONE, none, notify, none);
    if (ike_finish_sk(&b, &sa->suite, sa->seal, &len) == OK)
        e->env.send(e->env.ctx, &sa->path, span_of(e->out, len));
}

/* -- the peer's requests -- */

/* The peer closed a Child SA. Returns true with its other half, which the answer names. */
static bool peer_deletes(struct ike_sa *sa, uint8_t protocol, uint32_t spi, uint32_t *own)
{
    struct child *c = child_by_spi(sa->undecided_of ? sa->undecided_of : sa, protocol, spi);
    if (!c) {
        create_deleted(sa, protocol, spi);
        return false;
    }
    bool crossing = c->state == CHILD_DELETING; /* then our own Delete names it (section 1.4.1) */
    bool wanted = c->state == CHILD_LIVE;
    const struct policy *policy = child_policy(c);
    *own = c->spi_in;
    c->state = CHILD_DOOMED;
    if (wanted && policy && !child_successor(c)) {
        child_report(c, IKE_EVENT_CHILD_DOWN, "down: the peer closed it");
        run_later(sa->run, NS_PER_S + random_below(sa->e, NS_PER_S));
    }
    child_drop(c, true);
    return !crossing;
}

/* What the peer deletes of one protocol; own gets the other halves. Returns how many. */
static unsigned delete_children(struct ike_sa *sa, const struct ike_message *m, uint8_t protocol,
                                uint32_t own[IKE_SPIS_MAX])
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->dels; i++)
        for (unsigned j = 0; j < m->del[i].n && m->del[i].protocol == protocol; j++)
            if (peer_deletes(sa, protocol, m->del[i].spi[j], &own[n]))
                n++;
    return n;
}

static void answer_deletes(struct ike_sa *sa, const struct ike_message *m)
{
    uint32_t esp[IKE_SPIS_MAX], ah[IKE_SPIS_MAX];
    struct ike_builder b;
    uint16_t error = mobike_request(sa, m);
    if (sa->state == SA_DEAD)
        return;
    unsigned esps = delete_children(sa, m, PROTOCOL_ESP, esp), ahs = delete_children(sa, m, PROTOCOL_AH, ah);
    reply_begin(sa, &b, EXCHANGE_INFORMATIONAL);
    if (esps) /* one payload for each protocol (section 3.11) */
        ike_put_delete(&b, PROTOCOL_ESP, esp, esps);
    if (ahs)
        ike_put_delete(&b, PROTOCOL_AH, ah, ahs);
    put_window(sa, &b);
    mobike_put_answer(sa, m, error, &b);
    reply_send(sa, &b);
    mobike_resume(sa);
}

static bool deletes_ike(const struct ike_message *m)
{
    for (unsigned i = 0; i < m->dels; i++)
        if (m->del[i].protocol == PROTOCOL_IKE)
            return true;
    return false;
}

/* Whom we answered has not believed our proof (RFC 7296 section 2.21.2): what was up here never was there. */
static void disbelieved(struct ike_sa *sa)
{
    char own[IDENTITY_TEXT], text[TEXT_MAX];
    snprintf(text, sizeof text,
             "%s ended the IKE SA: AUTHENTICATION_FAILED: the id it expects, or what we are to prove it with, differs "
             "(ours: %s)",
             sa_peer_name(sa), identity_format(&sa->local_id, own, sizeof own));
    if (sa->run)
        run_note(sa->run, text, true);
    sa_lost(sa, "%s", text);
}

void informational_request(struct ike_sa *sa, const struct ike_message *m)
{
    struct ike_builder b;
    char name[64];
    const struct ike_notify *failed = ike_find_notify(m, NOTIFY_AUTHENTICATION_FAILED);
    const struct ike_notify *syntax = ike_find_notify(m, NOTIFY_INVALID_SYNTAX);
    reauth_hint(sa, m);
    if (!deletes_ike(m) && !failed && !syntax) {
        answer_deletes(sa, m);
        return;
    }
    reply_begin(sa, &b, EXCHANGE_INFORMATIONAL);
    mobike_put_answer(sa, m, 0, &b);
    reply_send(sa, &b);
    if (sa->state == SA_DEAD)
        return;
    if (failed) {
        disbelieved(sa);
        return;
    }
    if (syntax) {
        sa_lost(sa, "%s ended the IKE SA: %s", sa_peer_name(sa), notify_name(syntax->type, name, sizeof name));
        return;
    }
    rekey_settle(sa);
    sa_lost(sa, "%s closed the IKE SA", sa_peer_name(sa));
}

/* -- liveness -- */

/* When anything authentic last came from the peer, and when traffic last left for it. */
static void traffic(struct ike_sa *sa, ns_t *in, ns_t *out)
{
    struct ike_engine *e = sa->e;
    bool proof = false;
    *in = sa->last_in;
    *out = 0;
    for (struct child *c = sa->children; c; c = c->next) {
        ns_t child_in = 0, child_out = 0;
        if (!c->installed)
            continue;
        e->env.child_traffic(e->env.ctx, c->id, &child_in, &child_out);
        *in = child_in > *in ? child_in : *in;
        *out = child_out > *out ? child_out : *out;
        /* Traffic on a new SA says that the peer has it, even if the Delete of the old one was lost (section 2.8). */
        bool overdue = c->activate_at && e->now >= c->activate_at && !sa->unproven;
        if ((child_in || overdue) && !c->activated && c->state == CHILD_LIVE && !sa->yields_to)
            child_activate(c);
        proof |= child_in != 0;
    }
    if (sa->unproven && (proof || e->now >= sa->answered + PROVEN_AFTER))
        sa_proven(sa);
}

void liveness_queue(struct ike_sa *sa)
{
    struct task *t = task_waits(sa, TASK_LIVENESS, 0, NULL) ? NULL : task_new(TASK_LIVENESS);
    if (t)
        task_queue(sa, t, false);
}

/* A check is due when traffic has left for a while and nothing came back (section 2.4). */
static void check_liveness(struct ike_sa *sa, ns_t in, ns_t out)
{
    ns_t now = sa->e->now, dpd = sa->run ? sa->run->peer->dpd : 0;
    if (out <= in) {
        sa->unanswered = 0;
        return;
    }
    if (!sa->unanswered)
        sa->unanswered = out;
    if (!dpd || now - sa->unanswered < dpd || sa->current)
        return;
    liveness_queue(sa);
}

void poll_later(struct ike_sa *sa)
{
    ns_t at = sa->e->now + POLL_EVERY;
    timer_set(&sa->e->timers, &sa->poll, at - at % POLL_TOGETHER);
}

void poll_fire(struct timer *t, void *ctx, ns_t now)
{
    struct ike_engine *e = ctx;
    struct ike_sa *sa = CONTAINER_OF(t, struct ike_sa, poll);
    ns_t in, out;
    if (sa->state != SA_UP && sa->state != SA_REPLACED)
        return;
    poll_later(sa);
    traffic(sa, &in, &out);
    if (sa->state == SA_UP)
        check_liveness(sa, in, out);
    ns_t sent = out > sa->last_out ? out : sa->last_out;
    if (sa->state == SA_UP && sa->nat_local && now - sent >= KEEPALIVE_EVERY) {
        struct path path = child_path(sa, PROTOCOL_ESP);
        sa->last_out = now;
        e->env.keepalive(e->env.ctx, &path);
    }
    mobike_resume(sa); /* what there was no memory for when it was due */
    if (fragments_expired(sa->request_parts, now))
        fragments_free(&sa->request_parts);
    if (sa->state == SA_UP && (sa->tx.next > MESSAGE_ID_SOFT || sa->rx.expected > MESSAGE_ID_SOFT))
        (void)sa_rekey(sa); /* if it can't, the next turn will */
}
