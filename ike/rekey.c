/* CREATE_CHILD_SA for the IKE SA itself (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2). */
#include <stdlib.h>

#include "ike/internal.h"

/* -- nonces and groups, for every exchange with them -- */

void nonce_make(struct ike_engine *e, struct nonce *n)
{
    n->len = NONCE_LEN;
    random_fill(&e->env.random, n->b, NONCE_LEN);
}

bool nonce_set(struct nonce *n, struct span s)
{
    if (s.len < IKE_NONCE_MIN || s.len > IKE_NONCE_MAX)
        return false;
    memcpy(n->b, s.data, s.len);
    n->len = (uint16_t)s.len;
    return true;
}

struct span nonce_span(const struct nonce *n)
{
    return span_of(n->b, n->len);
}

const struct nonce *nonce_lower(const struct nonce *a, const struct nonce *b)
{
    int c = memcmp(a->b, b->b, a->len < b->len ? a->len : b->len);
    if (c == 0)
        return a->len <= b->len ? a : b;
    return c < 0 ? a : b;
}

uint16_t first_group(const struct proposals *p)
{
    for (unsigned i = 0; i < p->n; i++)
        for (unsigned j = 0; j < p->v[i].n; j++)
            if (p->v[i].t[j].type == TRANSFORM_KE)
                return p->v[i].t[j].id;
    return KE_NONE;
}

static bool offers_group(const struct proposals *p, uint16_t group)
{
    for (unsigned i = 0; i < p->n; i++)
        for (unsigned j = 0; j < p->v[i].n; j++)
            if (p->v[i].t[j].type == TRANSFORM_KE && p->v[i].t[j].id == group)
                return true;
    return false;
}

uint16_t invalid_ke_group(const struct ike_message *m, const struct task *t)
{
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_INVALID_KE_PAYLOAD);
    if (!n || n->data.len != 2)
        return KE_NONE;
    uint16_t group = get_be16(n->data.data);
    return group != t->group && offers_group(&t->offered, group) ? group : KE_NONE;
}

/* -- what both roles share -- */

/* The successor of an SA, with its keys; not up yet. NULL: no memory, or no keys. */
static struct ike_sa *derived(struct ike_sa *old, bool initiator, uint64_t own_spi, const struct choice *choice,
                              const struct nonce *own, const struct nonce *theirs, const struct kex_secret *secret)
{
    struct ike_sa *sa = ike_sa_new(old->e, initiator, own_spi);
    if (!sa)
        return NULL;
    if (initiator)
        sa->spi_r = choice->spi;
    else
        sa->spi_i = choice->spi;
    sa->run = old->run;
    sa->local_id = old->local_id;
    sa->remote_id = old->remote_id;
    memcpy(sa->auth_local, old->auth_local, sizeof sa->auth_local);
    memcpy(sa->auth_remote, old->auth_remote, sizeof sa->auth_remote);
    sa->path = old->path;
    sa->pretends = old->pretends;
    encap_settle(sa, old->natt, old->nat_local, old->nat_remote);
    sa->fragmentation = old->fragmentation;
    sa->ppk = old->ppk;
    sa->childless = old->childless;
    mobike_inherit(sa, old);
    sa->choice = *choice;
    sa->nonce_own = *own;
    sa->nonce_peer = *theirs;
    if (sa_derive(sa, old, secret) != OK) {
        sa_kill(sa);
        return NULL;
    }
    return sa;
}

/* The same, and up; as yet without Child SAs. */
static struct ike_sa *successor(struct ike_sa *old, bool initiator, uint64_t own_spi, const struct choice *choice,
                                const struct nonce *own, const struct nonce *theirs, const struct kex_secret *secret)
{
    struct ike_sa *sa = derived(old, initiator, own_spi, choice, own, theirs, secret);
    if (sa)
        sa_up(sa);
    return sa;
}

/* The Child SAs, and what still waits to be done about them, go over to the new SA. */
static void inherit(struct ike_sa *old, struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct child **end = &sa->children;
    while (*end)
        end = &(*end)->next;
    *end = old->children;
    old->children = NULL;
    for (struct child *c = sa->children; c; c = c->next)
        c->sa = sa;
    struct task **last = &sa->queue;
    while (*last)
        last = &(*last)->next;
    for (struct task **p = &old->queue; *p;) {
        struct task *t = *p;
        if (t->kind == TASK_IKE_REKEY || t->kind == TASK_IKE_DELETE) {
            p = &t->next;
            continue;
        }
        *p = t->next;
        t->next = NULL;
        *last = t;
        last = &t->next;
    }
    sa->undecided_of = NULL;
    sa->last_in = e->now;
    reauth_inherit(old, sa);
    old->state = SA_REPLACED;
    old->successor = true;
    timer_set(&e->timers, &old->life, e->now + REPLACED_LIFE);
    report(e, IKE_EVENT_IKE_REKEYED, sa_peer(sa), NULL, &sa->path, "IKE SA with %s is rekeyed", sa_peer_name(sa));
    commands_end(e, COMMAND_REKEY, sa->run, NULL, true, "rekeyed");
    task_next(sa);
    mobike_resume(sa); /* what the old one began is not carried over */
    mobike_tell(sa);
}

void rekey_settle(struct ike_sa *sa)
{
    struct task *t = sa->current;
    if (sa->state == SA_UP && t && t->kind == TASK_IKE_REKEY && t->collision.sa)
        inherit(sa, t->collision.sa);
}

/* -- initiator -- */

static void offer_made(struct ike_sa *sa, struct ike_job *job);

static void tell_failed(struct ike_sa *sa, const char *why)
{
    report(sa->e, IKE_EVENT_FAILED, sa_peer(sa), NULL, &sa->path, "the IKE SA with %s could not be rekeyed: %s",
           sa_peer_name(sa), why);
    commands_end(sa->e, COMMAND_REKEY, sa->run, NULL, false, why);
}

static void give_up(struct ike_sa *sa, const char *why)
{
    tell_failed(sa, why);
    task_done(sa);
}

/*
 * The peer has made a successor and moved the Child SAs to it, and we can't have it. What it has made by a rekey of its
 * own will do as well; otherwise only a new IKE SA brings the ends together again.
 */
static void start_over(struct ike_sa *sa, const char *why)
{
    rekey_settle(sa);
    tell_failed(sa, why);
    if (sa->state == SA_UP)
        sa_delete(sa, true);
    if (sa->state != SA_DEAD)
        task_done(sa);
}

static void begin(struct ike_sa *sa)
{
    struct task *t = sa->current;
    t->sent = false;
    t->ike_spi = sa_spi_make(sa->e);
    nonce_make(sa->e, &t->nonce);
    enum err err = job_start(sa, JOB_OFFER, t->group, NULL, span_of(NULL, 0), offer_made);
    if (err != OK)
        give_up(sa, err_text(err));
}

static bool names_prf(const struct proposal *p, uint16_t id)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == TRANSFORM_PRF && p->t[i].id == id)
            return true;
    return false;
}

/*
 * What is configured, kept to the PRF that the SA has now where that is possible. Section 2.18 has the new SA's keys
 * expanded with the new PRF; strongSwan (seen in 5.9) expands them with the old one, so only a rekey that keeps the PRF
 * works with every peer. It is also what a person expects of a rekey.
 */
static struct proposals same_prf(const struct ike_sa *sa)
{
    const struct proposals *all = &sa->run->peer->ike;
    struct proposals kept = {0};
    for (unsigned i = 0; i < all->n; i++) {
        if (!names_prf(&all->v[i], sa->prf))
            continue;
        struct proposal *p = &kept.v[kept.n++];
        p->protocol = all->v[i].protocol;
        for (unsigned k = 0; k < all->v[i].n; k++)
            if (all->v[i].t[k].type != TRANSFORM_PRF || all->v[i].t[k].id == sa->prf)
                p->t[p->n++] = all->v[i].t[k];
    }
    return kept.n ? kept : *all;
}

static enum err choose(const struct ike_sa *sa, const struct ike_message *m, struct choice *out, char *why, size_t size)
{
    struct proposals same = same_prf(sa);
    if (proposal_choose(m->sa, &same, m->ke_group, true, out, why, size) == OK)
        return OK;
    return proposal_choose(m->sa, &sa->run->peer->ike, m->ke_group, true, out, why, size);
}

void rekey_start(struct ike_sa *sa)
{
    struct task *t = sa->current;
    t->offered = same_prf(sa);
    t->group = offers_group(&t->offered, sa->choice.ke.id) ? sa->choice.ke.id : first_group(&t->offered);
    begin(sa);
}

static void offer_made(struct ike_sa *sa, struct ike_job *job)
{
    struct task *t = sa->current;
    struct ike_builder b;
    if (sa->state != SA_UP) { /* the peer was faster, or it is being closed */
        task_done(sa);
        return;
    }
    if (job->result != OK) {
        give_up(sa, err_text(job->result));
        return;
    }
    t->kex = job->kex;
    t->pub = job->pub;
    job->kex = NULL;
    t->sent = true;
    request_begin(sa, &b, EXCHANGE_CREATE_CHILD_SA);
    proposal_put_offer(&b, &t->offered, t->ike_spi, 8);
    ike_put(&b, PAYLOAD_NONCE, nonce_span(&t->nonce));
    ike_put_ke(&b, t->group, span_of(t->pub.b, t->pub.len));
    request_send(sa, &b);
}

static void refused(struct ike_sa *sa, const struct ike_message *m, uint16_t error)
{
    struct task *t = sa->current;
    char name[64];
    uint16_t group = error == NOTIFY_INVALID_KE_PAYLOAD ? invalid_ke_group(m, t) : KE_NONE;
    if (sa->state != SA_UP) { /* it is being closed: nobody wants to know */
        task_done(sa);
    } else if (t->collision.sa) { /* the peer has done it already, and is about to delete this one (section 2.8.2) */
        inherit(sa, t->collision.sa);
        task_done(sa);
    } else if (group != KE_NONE && t->retries < KEX_RETRIES) {
        t->retries++;
        t->group = group;
        task_reset(sa->e, t);
        begin(sa);
    } else if (error == NOTIFY_TEMPORARY_FAILURE) {
        task_later(sa);
    } else if (error == NOTIFY_NO_ADDITIONAL_SAS && reauth_begin(sa)) { /* it can't rekey: a new one (section 4) */
        task_done(sa);
    } else {
        give_up(sa, notify_name(error, name, sizeof name));
    }
}

/* The old one is being closed, and the peer counts the new one as up, with all Child SAs on it: it is closed as well. */
static void close_unwanted(struct ike_sa *old, struct ike_job *job)
{
    const struct task *t = old->current;
    struct ike_sa *made =
        job->result == OK ? derived(old, true, t->ike_spi, &t->terms.choice, &t->nonce, &t->peer_nonce, &job->secret)
                          : NULL;
    if (!made)
        return;
    made->state = SA_REPLACED;
    made->successor = true;
    sa_delete(made, false);
}

/*
 * Ours is complete. If the peer was rekeying as well, the new SA with the lowest of the four nonces goes, deleted by
 * its maker; the other inherits the Child SAs, and its maker deletes the old one (section 2.8.2).
 */
static void secret_made(struct ike_sa *sa, struct ike_job *job)
{
    struct task *t = sa->current;
    struct ike_sa *theirs = t->collision.sa;
    if (sa->state != SA_UP) {
        close_unwanted(sa, job);
        task_done(sa);
        return;
    }
    struct ike_sa *made =
        job->result == OK ? successor(sa, true, t->ike_spi, &t->terms.choice, &t->nonce, &t->peer_nonce, &job->secret)
                          : NULL;
    if (!made) {
        start_over(sa, job->result != OK ? err_text(job->result) : "no keys");
        return;
    }
    const struct nonce *mine = nonce_lower(&t->nonce, &t->peer_nonce);
    if (theirs && nonce_lower(mine, &t->collision.lowest) == mine) {
        inherit(sa, theirs);
        task_done(sa);
        made->successor = true;
        sa_delete(made, false);
        return;
    }
    if (theirs) { /* its maker deletes it */
        theirs->undecided_of = NULL;
        theirs->state = SA_REPLACED;
        theirs->successor = true;
        timer_set(&sa->e->timers, &theirs->life, sa->e->now + REPLACED_LIFE);
    }
    inherit(sa, made);
    task_done(sa);
    sa_delete(sa, false);
}

void rekey_response(struct ike_sa *sa, const struct ike_message *m)
{
    struct task *t = sa->current;
    struct choice *c = &t->terms.choice;
    const struct ike_notify *error = ike_find_error(m);
    if (error) {
        refused(sa, m, error->type);
        return;
    }
    if (proposal_accept(m->sa, &t->offered, true, c) != OK || c->spi_len != 8 || c->spi == 0 || c->ke.id != t->group ||
        m->ke_group != t->group || !nonce_set(&t->peer_nonce, m->nonce)) {
        start_over(sa, "its answer does not fit our offer");
        return;
    }
    struct kex *kex = t->kex;
    t->kex = NULL;
    enum err err = job_start(sa, JOB_FINISH, t->group, kex, m->ke, secret_made);
    if (err != OK)
        start_over(sa, err_text(err));
}

/* -- responder -- */

static void reply_error(struct ike_sa *sa, uint16_t type, struct span data)
{
    reply_notify(sa, EXCHANGE_CREATE_CHILD_SA, PROTOCOL_NONE, span_of(NULL, 0), type, data);
}

static struct pending *take_pending(struct ike_sa *sa)
{
    struct pending *p = sa->pending;
    sa->pending = NULL;
    return p;
}

static void responded(struct ike_sa *sa, struct ike_job *job)
{
    struct pending *p = take_pending(sa);
    struct task *t = sa->current;
    struct ike_builder b;
    struct span none = span_of(NULL, 0);
    if (job->result != OK && job_blames_peer(job)) {
        free(p);
        drop(sa->e, STAT_DROP_IKE_SYNTAX);
        reply_error(sa, NOTIFY_INVALID_SYNTAX, none);
        if (sa->state != SA_DEAD)
            sa_lost(sa, "IKE SA with %s is down: it sent an invalid public value", sa_peer_name(sa));
        return;
    }
    struct ike_sa *made =
        job->result != OK || sa->state != SA_UP
            ? NULL
            : successor(sa, false, sa_spi_make(sa->e), &p->terms.choice, &p->ours, &p->theirs, &job->secret);
    if (!made) {
        free(p);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE, none);
        task_next(sa); /* what waited for this */
        return;
    }
    reply_begin(sa, &b, EXCHANGE_CREATE_CHILD_SA);
    proposal_put_answer(&b, &p->terms.choice, made->spi_r, 8);
    ike_put(&b, PAYLOAD_NONCE, nonce_span(&p->ours));
    ike_put_ke(&b, p->terms.choice.ke.id, span_of(job->pub.b, job->pub.len));
    reply_send(sa, &b);
    if (sa->state == SA_DEAD) {
        sa_kill(made); /* the peer never hears of it */
    } else if (t && t->kind == TASK_IKE_REKEY && t->sent) {
        t->collision = (struct collision){.seen = true, .sa = made};
        t->collision.lowest = *nonce_lower(&p->theirs, &p->ours);
        made->undecided_of = sa;
    } else {
        inherit(sa, made);
        sa_crowd_out(made);
    }
    free(p);
}

/* Whether this is no moment for it: anything about a Child SA is under way, or the end of this SA (section 2.25). */
static bool busy(const struct ike_sa *sa)
{
    const struct task *t = sa->current;
    return sa->state != SA_UP || sa->undecided_of ||
           (t && (t->kind == TASK_CHILD_NEW || t->kind == TASK_CHILD_REKEY || t->kind == TASK_CHILD_DELETE ||
                  t->collision.seen));
}

void rekey_request(struct ike_sa *sa, const struct ike_message *m)
{
    struct choice choice;
    char why[TEXT_MAX / 2] = "";
    struct span none = span_of(NULL, 0);
    if (busy(sa)) {
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE, none);
        return;
    }
    if (choose(sa, m, &choice, why, sizeof why) != OK || choice.spi_len != 8 || choice.spi == 0) {
        report(sa->e, IKE_EVENT_FAILED, sa_peer(sa), NULL, &sa->path, "%s can't rekey the IKE SA: %s", sa_peer_name(sa),
               why);
        reply_error(sa, NOTIFY_NO_PROPOSAL_CHOSEN, none);
        return;
    }
    if (choice.ke.id != m->ke_group) {
        uint8_t group[2];
        put_be16(group, choice.ke.id);
        reply_error(sa, NOTIFY_INVALID_KE_PAYLOAD, span_of(group, 2));
        return;
    }
    struct pending *p = calloc(1, sizeof *p);
    if (!p || !nonce_set(&p->theirs, m->nonce)) {
        free(p);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE, none);
        return;
    }
    p->ike = true;
    p->terms.choice = choice;
    nonce_make(sa->e, &p->ours);
    sa->pending = p;
    if (job_start(sa, JOB_RESPOND, choice.ke.id, NULL, m->ke, responded) != OK) {
        free(take_pending(sa));
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE, none);
        task_next(sa);
    }
}
