/* CREATE_CHILD_SA for Child SAs, new ones and rekeys (RFC 7296 sections 1.3, 2.8 and 2.25). */
#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

/* Child SAs of one IKE SA: some for each policy, as rekeys overlap. An authenticated peer may be hostile too. */
#define CHILDREN_PER_POLICY 4
#define CHILDREN_LEAST 16

/* -- initiator -- */

/* The Child SA to be replaced, while it is worth replacing. */
static struct child *replaced(const struct ike_sa *sa, const struct task *t)
{
    struct child *c = t->kind == TASK_CHILD_REKEY ? child_find(sa->e, t->child) : NULL;
    return c && c->sa == sa && c->state == CHILD_LIVE ? c : NULL;
}

/* Whether what the current task is to make has a place still: the SA stays, and so does the policy. */
static bool wanted(const struct ike_sa *sa)
{
    const struct task *t = sa->current;
    return sa->state == SA_UP && t->policy && !t->unwanted;
}

/* It has none: what the peer has made of it goes again. The policy may have been asked for anew. */
static void call_off(struct ike_sa *sa, bool made)
{
    if (made)
        sa->current->disowned = true;
    if (sa->run)
        run_later(sa->run, 0);
    task_done(sa);
}

/* Our exchange led to no Child SA. */
static void give_up(struct ike_sa *sa, const char *why)
{
    struct task *t = sa->current;
    child_failed(sa, t->policy, "%s", why);
    if (t->kind == TASK_CHILD_REKEY)
        commands_end(sa->e, COMMAND_REKEY, sa->run, t->policy, false, why);
    task_done(sa);
}

/* From here on both ends rekey that Child SA, whichever request came first: the nonces of the peer's two count as well. */
static void note_collision(const struct ike_sa *sa)
{
    const struct pending *p = sa->pending;
    sa->current->collision = (struct collision){.seen = true, .lowest = *nonce_lower(&p->theirs, &p->ours)};
}

static void send_request(struct ike_sa *sa)
{
    struct task *t = sa->current;
    struct ike_builder b;
    const struct child *old = replaced(sa, t);
    if (t->kind == TASK_CHILD_REKEY && !old) { /* gone while the key pair was made */
        task_done(sa);
        return;
    }
    t->sent = true;
    if (old && sa->pending && sa->pending->rekeyed == old->id) /* the peer's request came while it was made */
        note_collision(sa);
    request_begin(sa, &b, EXCHANGE_CREATE_CHILD_SA);
    if (old) { /* named as the sender receives on it (section 1.3.3) */
        uint8_t spi[4];
        put_be32(spi, old->spi_in);
        ike_put_notify(&b, old->protocol, span_of(spi, 4), NOTIFY_REKEY_SA, span_of(NULL, 0));
    }
    ike_put(&b, PAYLOAD_NONCE, nonce_span(&t->nonce));
    if (t->group != KE_NONE)
        ike_put_ke(&b, t->group, span_of(t->pub.b, t->pub.len));
    child_put_request(&b, t);
    request_send(sa, &b);
}

static void offer_made(struct ike_sa *sa, struct ike_job *job)
{
    struct task *t = sa->current;
    if (!wanted(sa)) {
        call_off(sa, false);
        return;
    }
    if (job->result != OK) {
        give_up(sa, err_text(job->result));
        return;
    }
    t->kex = job->kex;
    t->pub = job->pub;
    job->kex = NULL;
    send_request(sa);
}

static void begin(struct ike_sa *sa)
{
    struct task *t = sa->current;
    struct ike_engine *e = sa->e;
    t->sent = false;
    nonce_make(e, &t->nonce);
    enum err err = e->env.spi_reserve(e->env.ctx, &t->spi);
    if (err == OK && t->group != KE_NONE)
        err = job_start(sa, JOB_OFFER, t->group, NULL, span_of(NULL, 0), offer_made);
    else if (err == OK)
        send_request(sa);
    if (err != OK)
        give_up(sa, err_text(err));
}

void create_start(struct ike_sa *sa)
{
    struct task *t = sa->current;
    if (!wanted(sa)) {
        call_off(sa, false);
        return;
    }
    bool rekey = t->kind == TASK_CHILD_REKEY;
    bool needless = rekey     ? !replaced(sa, t)
                    : t->anew ? child_on(sa, t->policy) != NULL
                              : child_live(sa->e, t->policy) != NULL;
    if (needless) {
        task_done(sa);
        return;
    }
    char why[TEXT_MAX];
    if (ah_barred(sa, t->policy, why, sizeof why)) {
        give_up(sa, why);
        return;
    }
    selectors_offer(sa, t);
    child_offer(sa, t->policy, true, &t->offered);
    t->group = first_group(&t->offered);
    begin(sa);
}

/* What to do when the peer refuses. */
static void refused(struct ike_sa *sa, const struct ike_message *m, uint16_t error)
{
    struct task *t = sa->current;
    struct run *run = sa->run;
    struct child *old = replaced(sa, t);
    uint16_t group = error == NOTIFY_INVALID_KE_PAYLOAD ? invalid_ke_group(m, t) : KE_NONE;
    struct child_terms terms;
    char why[TEXT_MAX];
    if (t->kind == TASK_CHILD_REKEY && !old) { /* it went meanwhile, or the peer's rekey took its place */
        task_done(sa);
    } else if (group != KE_NONE && t->retries < KEX_RETRIES) {
        t->retries++;
        t->group = group;
        task_reset(sa->e, t);
        begin(sa);
    } else if (error == NOTIFY_TEMPORARY_FAILURE) {
        task_later(sa);
    } else if (error == NOTIFY_SINGLE_PAIR_REQUIRED && selectors_single(sa, t)) {
        task_reset(sa->e, t);
        begin(sa);
    } else if (error == NOTIFY_CHILD_SA_NOT_FOUND && old) { /* the peer forgot it: from scratch (section 2.25) */
        child_drop(old, true);
        task_done(sa);
        run_later(run, 0);
    } else if (error == NOTIFY_NO_ADDITIONAL_SAS && old) { /* it can't rekey: all anew (section 4) */
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), t->policy, &sa->path,
               "%s can't rekey Child SAs (NO_ADDITIONAL_SAS): the IKE SA is made anew", sa_peer_name(sa));
        bool renewed = reauth_begin(sa);
        task_done(sa);
        if (!renewed)
            sa_delete(sa, true);
    } else {
        if (!child_accept(sa, m, t, true, &terms, why, sizeof why)) /* it reads the error */
            give_up(sa, why);
    }
}

/* The peer may have made a Child SA by answering our request, and its answer may be late or lost. */
static bool answer_due(const struct ike_sa *sa)
{
    const struct task *t = sa->current;
    return t && (t->kind == TASK_CHILD_NEW || t->kind == TASK_CHILD_REKEY) && t->sent;
}

void create_deleted(struct ike_sa *sa, uint8_t protocol, uint32_t spi)
{
    if (answer_due(sa) && protocol == sa->current->offered.v[0].protocol)
        sa->current->deleted = spi;
}

/* The peer has made it and deleted it again, before we heard of it. */
static void finish_deleted(struct ike_sa *sa)
{
    struct child *old = replaced(sa, sa->current);
    if (old && sa->current->collision.seen) /* the peer's own is there in its place */
        child_doom(old);
    else if (old)
        child_delete(old, true);
    run_later(sa->run, 0);
    task_done(sa);
}

/*
 * Both ends have asked for the same Child SA at the same time, and the peer has got it. One is enough: that of who initiated
 * the first IKE SA, who refuses the other's while his own is under way.
 */
static bool crossed(const struct ike_sa *sa)
{
    const struct task *t = sa->current;
    const struct child *c = t->kind == TASK_CHILD_NEW && !sa->caller ? child_on(sa, t->policy) : NULL;
    return c && selectors_equal(&c->local, &t->terms.local) && selectors_equal(&c->remote, &t->terms.remote);
}

static void tell_made(struct ike_sa *sa, const struct child *c)
{
    if (sa->current->kind == TASK_CHILD_REKEY) {
        child_report(c, IKE_EVENT_CHILD_REKEYED, "rekeyed");
        commands_end(sa->e, COMMAND_REKEY, sa->run, child_policy(c), true, "rekeyed");
    } else {
        child_report(c, IKE_EVENT_CHILD_UP, "up");
    }
}

/*
 * Ours is complete. If the peer was rekeying the same Child SA, the lowest of the four nonces tells which new one goes;
 * whoever made it deletes it, and whoever made the other deletes the old one (section 2.8.1).
 */
static void finish(struct ike_sa *sa, const struct kex_secret *g)
{
    struct task *t = sa->current;
    struct ike_engine *e = sa->e;
    struct child *old = replaced(sa, t);
    if (t->deleted && t->deleted == t->terms.choice.spi) {
        finish_deleted(sa);
        return;
    }
    if (t->collision.seen) {
        const struct nonce *mine = nonce_lower(&t->nonce, &t->peer_nonce);
        if (nonce_lower(mine, &t->collision.lowest) == mine) {
            t->disowned = true;
            if (old)
                child_doom(old);
            task_done(sa);
            return;
        }
        struct child *theirs = child_find(e, t->collision.child);
        if (theirs)
            child_doom(theirs);
        else if (sa->pending && sa->pending->rekeyed == t->child)
            sa->pending->redundant = true;
    }
    bool twice = crossed(sa);
    struct child *c = child_create(sa, &t->terms, &t->nonce, &t->peer_nonce, g, !twice);
    if (!c) {
        t->disowned = true;
        if (t->kind == TASK_CHILD_REKEY)
            commands_end(e, COMMAND_REKEY, sa->run, t->policy, false, "the new Child SA could not be installed");
        task_done(sa);
        return;
    }
    t->spi = 0; /* the Child SA's from here on */
    if (twice)
        child_delete(c, false); /* what the peer sends on it until it hears that is received still */
    else
        tell_made(sa, c);
    if (old)
        child_delete(old, false);
    task_done(sa);
}

static void secret_made(struct ike_sa *sa, struct ike_job *job)
{
    if (!wanted(sa)) {
        call_off(sa, true);
    } else if (job->result == OK) {
        finish(sa, &job->secret);
    } else {
        sa->current->disowned = true;
        give_up(sa, err_text(job->result));
    }
}

void create_response(struct ike_sa *sa, const struct ike_message *m)
{
    struct task *t = sa->current;
    const struct ike_notify *error = ike_find_error(m);
    char why[TEXT_MAX] = "";
    if (!wanted(sa)) {
        call_off(sa, !error);
        return;
    }
    if (error) {
        refused(sa, m, error->type);
        return;
    }
    bool ok = child_accept(sa, m, t, true, &t->terms, why, sizeof why) && nonce_set(&t->peer_nonce, m->nonce);
    uint16_t ke = ok ? t->terms.choice.ke.id : KE_NONE;
    if (ok && ke != KE_NONE && (ke != t->group || m->ke_group != ke || !m->ke.data)) {
        snprintf(why, sizeof why, "%s answers policy \"%s\" with another key exchange group than ours",
                 sa_peer_name(sa), t->policy->name);
        ok = false;
    }
    if (!ok) {
        t->disowned = true;
        give_up(sa, why);
        return;
    }
    if (ke == KE_NONE) {
        finish(sa, NULL);
        return;
    }
    struct kex *kex = t->kex;
    t->kex = NULL;
    if (job_start(sa, JOB_FINISH, ke, kex, m->ke, secret_made) != OK) {
        t->disowned = true;
        give_up(sa, "out of memory");
    }
}

/* -- responder -- */

static void reply_error(struct ike_sa *sa, uint16_t type)
{
    struct span none = span_of(NULL, 0);
    reply_notify(sa, EXCHANGE_CREATE_CHILD_SA, PROTOCOL_NONE, none, type, none);
}

static void pending_drop(struct ike_sa *sa)
{
    if (sa->pending && sa->pending->terms.spi_in)
        sa->e->env.spi_release(sa->e->env.ctx, sa->pending->terms.spi_in);
    free(sa->pending);
    sa->pending = NULL;
}

/* Our own rekey of that Child SA is out, and this request of the peer crosses it. */
static bool collides(const struct ike_sa *sa, uint64_t child)
{
    const struct task *t = sa->current;
    return child && t && t->kind == TASK_CHILD_REKEY && t->child == child && t->sent;
}

/* The peer rekeyed a Child SA: it will delete the old one now, unless nonces decide, or have decided. */
static void note_replacement(struct ike_sa *sa, const struct pending *p, struct child *made)
{
    struct child *old = child_find(sa->e, p->rekeyed);
    if (p->redundant)
        child_doom(made);
    else if (collides(sa, p->rekeyed))
        sa->current->collision.child = made->id;
    else if (old)
        child_doom(old);
}

/* What was asked for is no longer possible: things changed while the secret was computed. */
static bool overtaken(const struct ike_sa *sa, const struct pending *p)
{
    const struct child *old = child_find(sa->e, p->rekeyed);
    return !p->terms.policy || sa->state != SA_UP ||
           (p->rekeyed && !p->redundant && (!old || old->state == CHILD_DELETING));
}

static void answer(struct ike_sa *sa, const struct kex_public *pub, const struct kex_secret *g)
{
    struct pending *p = sa->pending;
    struct ike_builder b;
    struct child_terms *t = &p->terms;
    if (overtaken(sa, p)) {
        pending_drop(sa);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
        return;
    }
    /* It receives before the answer leaves; it sends when the peer surely has it (section 2.8). */
    bool sending = !p->rekeyed && !child_elsewhere(sa, t->policy);
    struct child *c = child_create(sa, t, &p->theirs, &p->ours, g, sending);
    uint32_t spi = t->spi_in;
    t->spi_in = 0;
    if (!c) {
        pending_drop(sa);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
        return;
    }
    t->spi_in = spi;
    reply_begin(sa, &b, EXCHANGE_CREATE_CHILD_SA);
    ike_put(&b, PAYLOAD_NONCE, nonce_span(&p->ours));
    if (pub)
        ike_put_ke(&b, t->choice.ke.id, span_of(pub->b, pub->len));
    child_put_answer(&b, t);
    t->spi_in = 0;
    if (p->rekeyed) {
        note_replacement(sa, p, c);
        child_report(c, IKE_EVENT_CHILD_REKEYED, "rekeyed by the peer");
        commands_end(sa->e, COMMAND_REKEY, sa->run, child_policy(c), true, "rekeyed");
    } else {
        child_report(c, IKE_EVENT_CHILD_UP, "up");
    }
    pending_drop(sa);
    reply_send(sa, &b);
}

static void responded(struct ike_sa *sa, struct ike_job *job)
{
    if (job->result == OK) {
        answer(sa, &job->pub, &job->secret);
    } else if (!job_blames_peer(job)) {
        pending_drop(sa);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
    } else {
        pending_drop(sa);
        drop(sa->e, STAT_DROP_IKE_SYNTAX);
        reply_error(sa, NOTIFY_INVALID_SYNTAX);
        if (sa->state != SA_DEAD)
            sa_lost(sa, "IKE SA with %s is down: it sent an invalid public value", sa_peer_name(sa));
    }
    task_next(sa); /* a rekey of the IKE SA has waited for this */
}

/* Whether this is no moment for a Child SA (section 2.25); or its packets would go where the peer may not be. */
static bool busy(const struct ike_sa *sa)
{
    return sa->state != SA_UP || sa->undecided_of || sa->mobike.unproven ||
           (sa->current && sa->current->kind == TASK_IKE_REKEY);
}

/* Whether one more would be too many (section 1.3). */
static bool full(const struct ike_sa *sa)
{
    unsigned n = 0, most = sa->run->policy_count * CHILDREN_PER_POLICY;
    for (const struct child *c = sa->children; c; c = c->next)
        n++;
    return n >= (most < CHILDREN_LEAST ? CHILDREN_LEAST : most);
}

/* We are asking for the same, and ours stays: crossed(). */
static bool ours_stays(const struct ike_sa *sa, const struct policy *policy)
{
    const struct task *t = sa->current;
    return sa->caller && t && t->kind == TASK_CHILD_NEW && t->policy == policy;
}

/* Answers the request for a Child SA; old is what it replaces, or NULL. */
static void respond(struct ike_sa *sa, const struct ike_message *m, const struct child *old)
{
    struct child_terms terms = {0};
    char why[TEXT_MAX] = "";
    uint16_t error = child_answer(sa, m, old ? child_policy(old) : NULL, true, &terms, why, sizeof why);
    if (error == NOTIFY_INVALID_KE_PAYLOAD) {
        uint8_t group[2];
        put_be16(group, terms.choice.ke.id);
        reply_notify(sa, EXCHANGE_CREATE_CHILD_SA, PROTOCOL_NONE, span_of(NULL, 0), error, span_of(group, 2));
        return;
    }
    if (error) {
        child_failed(sa, NULL, "%s", why);
        reply_error(sa, error);
        return;
    }
    struct pending *p = !old && ours_stays(sa, terms.policy) ? NULL : calloc(1, sizeof *p);
    if (!p || !nonce_set(&p->theirs, m->nonce)) {
        free(p);
        sa->e->env.spi_release(sa->e->env.ctx, terms.spi_in);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
        return;
    }
    p->terms = terms;
    p->rekeyed = old ? old->id : 0;
    nonce_make(sa->e, &p->ours);
    sa->pending = p;
    if (collides(sa, p->rekeyed))
        note_collision(sa);
    if (terms.choice.ke.id == KE_NONE) {
        answer(sa, NULL, NULL);
    } else if (job_start(sa, JOB_RESPOND, terms.choice.ke.id, NULL, m->ke, responded) != OK) {
        pending_drop(sa);
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
    }
}

void create_request(struct ike_sa *sa, const struct ike_message *m)
{
    const struct ike_notify *rekey = ike_find_notify(m, NOTIFY_REKEY_SA);
    struct child *old = NULL;
    if (!m->tsi.present) {
        rekey_request(sa, m);
        return;
    }
    if (busy(sa)) {
        reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
        return;
    }
    if (rekey) {
        if (rekey->spi.len == 4)
            old = child_by_spi(sa, rekey->protocol, get_be32(rekey->spi.data));
        if (!old && answer_due(sa)) { /* it would drop what we are about to hear of */
            reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
            return;
        }
        if (!old) {
            reply_notify(sa, EXCHANGE_CREATE_CHILD_SA, rekey->protocol, rekey->spi, NOTIFY_CHILD_SA_NOT_FOUND,
                         span_of(NULL, 0));
            return;
        }
        if (old->state != CHILD_LIVE || !child_policy(old)) {
            reply_error(sa, NOTIFY_TEMPORARY_FAILURE);
            return;
        }
    }
    if (full(sa))
        reply_error(sa, NOTIFY_NO_ADDITIONAL_SAS);
    else
        respond(sa, m, old);
}
