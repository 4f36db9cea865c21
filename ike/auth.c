/* IKE_AUTH (RFC 7296 sections 1.2 and 2.15): who both are, and the first Child SA. */
#include <stdio.h>
#include <stdlib.h>

#include "ike/proof.h"

/* -- a message that waits for a signature to be made or checked -- */

void auth_release(struct ike_sa *sa)
{
    if (sa->held)
        buf_free(&sa->held->content);
    free(sa->held);
    sa->held = NULL;
}

static enum err hold(struct ike_sa *sa, const struct ike_message *m)
{
    auth_release(sa);
    sa->held = calloc(1, sizeof *sa->held);
    if (!sa->held)
        return ERR_NOMEM;
    sa->held->h = m->h;
    sa->held->first = m->inner_first;
    return buf_set(&sa->held->content, m->inner);
}

/* The held message as it was: what could be parsed once can be parsed again. */
static void held(const struct ike_sa *sa, struct ike_message *m)
{
    *m = (struct ike_message){.h = sa->held->h};
    if (ike_inner_parse(sa->held->first, buf_span(&sa->held->content), m) != OK)
        *m = (struct ike_message){.h = sa->held->h};
}

/* Why our own proof could not be made. */
static const char *unmade(const struct ike_sa *sa, enum err err)
{
    return err != ERR_UNSUPPORTED                  ? err_text(err)
           : sa->run->peer->auth.local == AUTH_PSK ? "the PRF is not supported"
                                                   : "it takes none of the signature algorithms that our key has";
}

/* Whether another SA with this peer is up: then this one isn't the first contact (section 2.4). */
static bool has_other(const struct ike_sa *sa)
{
    for (const struct ike_sa *o = sa->run->sas; o; o = o->run_next)
        if (o != sa && o->state == SA_UP)
            return true;
    return false;
}

/* -- initiator -- */

static void send_request(struct ike_sa *sa, enum err err, uint8_t method, struct span data)
{
    struct ike_engine *e = sa->e;
    struct task *t = sa->current;
    const struct peer *peer = sa->run->peer;
    struct proof_hints hints = {0};
    struct ike_builder b;
    struct span none = span_of(NULL, 0);
    if (err == OK && !sa->childless)
        err = e->env.spi_reserve(e->env.ctx, &t->spi);
    if (err != OK) {
        sa_fail(sa, "IKE_AUTH to %s could not be made: %s", peer->name, unmade(sa, err));
        return;
    }
    sa->state = SA_AUTH_SENT;
    request_begin(sa, &b, EXCHANGE_AUTH);
    ike_put_id(&b, PAYLOAD_IDI, &sa->local_id);
    proof_put_certs(&b, peer);
    proof_hint(&hints, peer);
    proof_put_request(&b, &hints);
    if (peer->remote_id.type != ID_NONE && !peer->remote_id_any)
        ike_put_id(&b, PAYLOAD_IDR, &peer->remote_id);
    ike_put_auth(&b, method, data);
    if (!has_other(sa))
        ike_put_notify(&b, PROTOCOL_NONE, none, NOTIFY_INITIAL_CONTACT, none);
    put_window(sa, &b);
    ppk_put_request(sa, &b);
    if (!sa->childless) { /* else it comes by CREATE_CHILD_SA */
        child_offer(sa, t->policy, false, &t->offered);
        selectors_offer(sa, t);
        child_put_request(&b, t);
    }
    mobike_put_auth(sa, &b);
    request_send(sa, &b);
}

static void prove(struct ike_sa *sa)
{
    enum err err = ppk_begin(sa);
    if (err == OK)
        proof_make(sa, send_request);
    else
        send_request(sa, err, 0, span_of(NULL, 0));
}

/* The proof for a responder that turns out not to have our post-quantum preshared key; the other one follows. */
static void plain_made(struct ike_sa *sa, enum err err, uint8_t method, struct span data)
{
    if (err == OK)
        err = buf_set(&sa->plain_auth, data);
    if (err == OK)
        prove(sa);
    else
        send_request(sa, err, method, data);
}

void auth_start(struct ike_sa *sa)
{
    char why[TEXT_MAX];
    if (!sa->childless && ah_barred(sa, sa->current->policy, why, sizeof why)) {
        sa->current->policy = ah_first_policy(sa);
        if (!sa->current->policy) {
            sa_fail(sa, "%s", why);
            return;
        }
    }
    sa->local_id = local_identity(sa->e, sa->run->peer, &sa->path);
    if (sa->ppk_agreed && !sa->run->peer->ppk_required)
        proof_make(sa, plain_made);
    else
        prove(sa);
}

/* The responder is not who it should be: it is told (section 2.21.2), and learns nothing else. */
static void distrust(struct ike_sa *sa, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void distrust(struct ike_sa *sa, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    informational_farewell(sa, NOTIFY_AUTHENTICATION_FAILED);
    sa_fail(sa, "%s", text);
}

static void refused(struct ike_sa *sa, const struct ike_notify *error)
{
    char own[IDENTITY_TEXT], number[64];
    identity_format(&sa->local_id, own, sizeof own);
    const char *name = notify_name(error->type, number, sizeof number);
    bool psk = sa->run->peer->auth.local == AUTH_PSK;
    if (error->type == NOTIFY_AUTHENTICATION_FAILED)
        sa_fail(sa, "authentication failed: %s refuses us (%s): %s%s or the id it expects differs (ours: %s)",
                sa_peer_name(sa), name, psk ? "its pre-shared key" : "it does not trust our ",
                psk ? "" : sa->auth_local, own);
    else
        sa_fail(sa, "%s refuses IKE_AUTH with %s (our id %s)", sa_peer_name(sa), name, own);
}

/* The first Child SA: its failure leaves the IKE SA as it is (section 2.21.2). */
static void first_child(struct ike_sa *sa, const struct ike_message *m)
{
    struct task *t = sa->current;
    struct child_terms terms;
    char why[TEXT_MAX];
    const struct ike_notify *error = ike_find_error(m);
    if (t->unwanted) {
        if (!error)
            t->disowned = true;
        return;
    }
    if (error && error->type == NOTIFY_SINGLE_PAIR_REQUIRED && child_single(sa, t))
        return;
    if (!child_accept(sa, m, t, false, &terms, why, sizeof why)) {
        child_failed(sa, t->policy, "%s", why);
        if (!error)
            t->disowned = true;
        return;
    }
    struct child *c = child_create(sa, &terms, &sa->nonce_own, &sa->nonce_peer, NULL, true);
    if (!c) {
        t->disowned = true;
        return;
    }
    t->spi = 0; /* the Child SA's from here on */
    child_report(c, IKE_EVENT_CHILD_UP, "up");
}

static void report_up(struct ike_sa *sa)
{
    char id[IDENTITY_TEXT], at[ENDPOINT_TEXT], suite[64], group[32];
    report(sa->e, IKE_EVENT_IKE_UP, sa_peer(sa), NULL, &sa->path,
           "IKE SA with %s (%s at %s) is up: proved by %s, we by %s; %s, %s", sa_peer_name(sa),
           identity_format(&sa->remote_id, id, sizeof id), endpoint_format(&sa->path.remote, at), sa->auth_remote,
           sa->auth_local, suite_text(&sa->suite, suite, sizeof suite),
           transform_text(&sa->choice.ke, group, sizeof group));
    ppk_audit(sa);
}

static void established(struct ike_sa *sa, const struct ike_message *m)
{
    struct run *run = sa->run;
    if (sa->childless && m->seen & PAYLOAD_BIT(PAYLOAD_SA)) { /* it must not (RFC 6023 section 3) */
        informational_farewell(sa, NOTIFY_INVALID_SYNTAX);
        sa_fail(sa, "%s answers IKE_AUTH with a Child SA, which was not asked for", sa_peer_name(sa));
        return;
    }
    mobike_take_auth(sa, m);
    sa_up(sa);
    report_up(sa);
    reauth_plan(sa, m);
    run_reached(run);
    if (!sa->childless)
        first_child(sa, m);
    task_done(sa);
    if (sa->redundant)
        sa_delete(sa, false);
    else if (!sa->yields_to)
        run_kick(run);
    else if (!sa->yields_to->unproven)
        sa_leave(sa);
}

static void responder_checked(struct ike_sa *sa, const struct proof *p, enum err err)
{
    char id[IDENTITY_TEXT];
    struct ike_message m;
    identity_format(&sa->remote_id, id, sizeof id);
    if (err != OK) {
        distrust(sa, "authentication failed: peer %s (id %s): %s", sa_peer_name(sa), id, p->why);
        return;
    }
    held(sa, &m);
    established(sa, &m);
    auth_release(sa);
}

/* The responder's proof, when its identity is the one expected: a pre-shared key at once, a signature by a job. */
static void check_responder(struct ike_sa *sa, const struct ike_message *m)
{
    const struct peer *peer = sa->run->peer;
    char id[IDENTITY_TEXT], text[96];
    identity_format(&sa->remote_id, id, sizeof id);
    if (proof_kind(m->auth_method) != peer->auth.remote) {
        distrust(sa, "authentication failed: %s (id %s) uses %s, %s is configured", peer->name, id,
                 proof_text(m, text, sizeof text), proof_wanted(peer));
    } else if (peer->auth.remote == AUTH_PUBKEY) {
        enum err err = hold(sa, m);
        if (err == OK)
            err = proof_check(sa, m, m->idr, &peer, 1, responder_checked);
        if (err != OK)
            distrust(sa, "%s (id %s) could not be authenticated: %s", peer->name, id, err_text(err));
    } else if (proof_psk_right(sa, peer, m, m->idr)) {
        snprintf(sa->auth_remote, sizeof sa->auth_remote, "psk");
        established(sa, m);
    } else {
        distrust(sa, "authentication failed: pre-shared keys differ (peer %s, their id %s)", peer->name, id);
    }
}

void auth_call_off(struct ike_sa *sa)
{
    if (sa->tx.pending) /* the answer brings it here again */
        return;
    jobs_detach(sa);
    auth_release(sa);
    sa->state = SA_UP; /* to the peer, which proves nothing any more: there is only this left to say to it */
    sa_delete(sa, false);
    task_done(sa);
}

void auth_response(struct ike_sa *sa, const struct ike_message *m)
{
    const struct ike_notify *error = ike_find_error(m);
    if (!sa->run) { /* called off; refused, there is nothing at the peer that could be deleted */
        if (error && !m->auth_data.data)
            sa_kill(sa);
        else
            auth_call_off(sa);
        return;
    }
    const struct peer *peer = sa->run->peer;
    char came[IDENTITY_TEXT], want[IDENTITY_TEXT];
    if (error && !m->auth_data.data) {
        refused(sa, error);
        return;
    }
    if (!m->idr.data || !m->auth_data.data || ike_identity(m->idr, &sa->remote_id) != OK) {
        distrust(sa, "%s answers IKE_AUTH without proving an identity", peer->name);
        return;
    }
    if (!ppk_answered(sa, m))
        distrust(sa, "authentication failed: %s has no post-quantum preshared key of our ppk-id, and it is required",
                 peer->name);
    else if (peer->remote_id_any || identity_equal(&sa->remote_id, &peer->remote_id))
        check_responder(sa, m);
    else
        distrust(sa, "authentication failed: %s calls itself %s, its configured id is %s", peer->name,
                 identity_format(&sa->remote_id, came, sizeof came),
                 identity_format(&peer->remote_id, want, sizeof want));
}

/* -- responder -- */

#define FIT_NAMED 4u /* how well a peer fits: its identity is this one, its address is, it is asked for ours */
#define FIT_HERE 2u
#define FIT_ASKED 1u
#define FIT_AT_ALL 1u

/* A raw key without a configured id goes by its fingerprint, if the peer calls itself so (DESIGN: Identities). */
static bool names(const struct peer *p, const struct identity *idi)
{
    if (!p->remote_id_any)
        return identity_equal(&p->remote_id, idi);
    return p->auth.public_key && idi->type == ID_KEY_ID &&
           span_equal(span_of(idi->b, idi->len), span_of(p->auth.fingerprint, KEY_FINGERPRINT));
}

/* 0: not at all. */
static unsigned fit(const struct run *run, const struct ike_sa *sa, const struct identity *idi,
                    const struct identity *idr)
{
    const struct peer *p = run->peer;
    bool here = candidates_have(run, &sa->path.remote.ip);
    bool named = names(p, idi);
    if ((!here && !p->endpoint_any) || (!named && !p->remote_id_any))
        return 0;
    struct identity own = local_identity(sa->e, p, &sa->path);
    return FIT_AT_ALL + (named ? FIT_NAMED : 0) + (here ? FIT_HERE : 0) +
           (idr->type != ID_NONE && identity_equal(&own, idr) ? FIT_ASKED : 0);
}

/* The peers an initiator may be, best first. */
struct choices {
    struct run *run[PROOF_CANDIDATES];
    unsigned fit[PROOF_CANDIDATES];
    unsigned n;
    const struct peer *other; /* the best of those that fit, but have to prove themselves in the other way */
    unsigned other_fit;
};

static void insert(struct choices *c, struct run *run, unsigned f)
{
    unsigned at = c->n < PROOF_CANDIDATES ? c->n++ : PROOF_CANDIDATES;
    for (; at > 0 && c->fit[at - 1] < f; at--) {
        if (at == PROOF_CANDIDATES)
            continue;
        c->fit[at] = c->fit[at - 1];
        c->run[at] = c->run[at - 1];
    }
    if (at == PROOF_CANDIDATES)
        return;
    c->fit[at] = f;
    c->run[at] = run;
}

/* The post-quantum preshared key goes into what is proved: only peers that have it in common can be tried together. */
static void keep_one_ppk(struct choices *c)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < c->n; i++)
        if (ppk_shared(c->run[0]->peer, c->run[i]->peer)) {
            c->fit[kept] = c->fit[i];
            c->run[kept++] = c->run[i];
        }
    c->n = kept;
}

/*
 * Those that fit and prove themselves in this way. When the identity names some, only they: others that take anybody must
 * not be a second chance for who fails to be the one he says. Bounded, for each costs the check of a signature.
 */
static void choose(const struct ike_sa *sa, const struct ike_message *m, enum auth_method kind, struct choices *c)
{
    struct identity idr = {.type = ID_NONE};
    if (m->idr.data && ike_identity(m->idr, &idr) != OK)
        idr.type = ID_NONE;
    *c = (struct choices){.n = 0};
    struct claims from = claims_of(sa, &sa->remote_id);
    for (struct run *run; (run = claim_next(&from)) != NULL;) {
        unsigned f = fit(run, sa, &sa->remote_id, &idr);
        from.enough |= f > FIT_NAMED;
        if (f && run->peer->auth.remote == kind)
            insert(c, run, f);
        else if (f > c->other_fit) {
            c->other = run->peer;
            c->other_fit = f;
        }
    }
    bool named = c->other_fit > FIT_NAMED || (c->n && c->fit[0] > FIT_NAMED);
    while (named && c->n && c->fit[c->n - 1] <= FIT_NAMED)
        c->n--;
    keep_one_ppk(c);
}

static bool within(const struct transform *t, const struct proposal *p)
{
    if (t->type == 0 || (t->type == TRANSFORM_INTEG && t->id == INTEG_NONE))
        return true;
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == t->type && p->t[i].id == t->id && p->t[i].key_bits == t->key_bits)
            return true;
    return false;
}

/* Whether the suite, chosen by address alone, is one that this peer may use. */
static bool suite_allowed(const struct choice *c, const struct proposals *p)
{
    for (unsigned i = 0; i < p->n; i++)
        if (within(&c->encr, &p->v[i]) && within(&c->prf, &p->v[i]) && within(&c->integ, &p->v[i]) &&
            within(&c->ke, &p->v[i]))
            return true;
    return false;
}

static void refuse(struct ike_sa *sa, const struct peer *peer, uint16_t type, const char *text)
{
    struct ike_engine *e = sa->e;
    struct span none = span_of(NULL, 0);
    struct run *run = peer ? run_of(e, peer) : NULL;
    if (run)
        run_note(run, text, false);
    report(e, IKE_EVENT_FAILED, NULL, NULL, &sa->path, "%s", text);
    sa->run = NULL;
    auth_release(sa);
    reply_notify(sa, EXCHANGE_AUTH, PROTOCOL_NONE, none, type, none);
    if (sa->state != SA_DEAD)
        sa_refused(sa);
}

/* Answered as every refusal is; that the identity was proved is seen in our log. */
static void refuse_another(struct ike_sa *sa)
{
    char text[TEXT_MAX], id[IDENTITY_TEXT];
    snprintf(text, sizeof text, "%s (id %s) is connected already and wants to connect once more (unique = keep)",
             sa_peer_name(sa), identity_format(&sa->remote_id, id, sizeof id));
    refuse(sa, NULL, NOTIFY_AUTHENTICATION_FAILED, text);
}

static void distrust_initiator(struct ike_sa *sa, const struct peer *peer, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void distrust_initiator(struct ike_sa *sa, const struct peer *peer, const char *fmt, ...)
{
    char text[TEXT_MAX], why[TEXT_MAX - 32];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    snprintf(text, sizeof text, "authentication failed: %s", why);
    refuse(sa, peer, NOTIFY_AUTHENTICATION_FAILED, text);
}

static void answer(struct ike_sa *sa, enum err err, uint8_t method, struct span data);

static void initiator_proven(struct ike_sa *sa, struct run *run)
{
    char text[TEXT_MAX], id[IDENTITY_TEXT], why[TEXT_MAX / 2];
    run_settle(run); /* amid a reload: its Child SA is to be of the policies as they are now */
    if (!suite_allowed(&sa->choice, &run->peer->ike)) {
        snprintf(text, sizeof text, "%s (id %s) came with an IKE suite that its proposals don't allow", run->peer->name,
                 identity_format(&sa->remote_id, id, sizeof id));
        refuse(sa, run->peer, NOTIFY_NO_PROPOSAL_CHOSEN, text);
        return;
    }
    sa->run = run;
    if (encap_refused(sa, why, sizeof why)) {
        snprintf(text, sizeof text, "%s %s", run->peer->name, why);
        refuse(sa, run->peer, NOTIFY_NO_PROPOSAL_CHOSEN, text);
        return;
    }
    sa->local_id = local_identity(sa->e, run->peer, &sa->path);
    proof_make(sa, answer);
}

/* Chosen anew, for the configuration may be another one by now. */
static void initiator_checked(struct ike_sa *sa, const struct proof *p, enum err err)
{
    char id[IDENTITY_TEXT];
    struct ike_message m;
    struct choices c;
    held(sa, &m);
    choose(sa, &m, AUTH_PUBKEY, &c);
    identity_format(&sa->remote_id, id, sizeof id);
    for (unsigned i = 0; err == OK && i < c.n; i++)
        if (proof_fits(&p->candidate[p->proven], c.run[i]->peer) && ppk_holds(sa, c.run[i]->peer, &m)) {
            initiator_proven(sa, c.run[i]);
            return;
        }
    if (err == OK)
        distrust_initiator(sa, NULL, "the peer of id %s has left the configuration", id);
    else if (p->candidates > 1)
        distrust_initiator(sa, NULL, "id %s is none of the %u peers that it may be, such as %s: %s", id, p->candidates,
                           c.n ? c.run[0]->peer->name : "?", p->why);
    else
        distrust_initiator(sa, c.n ? c.run[0]->peer : NULL, "peer %s (id %s): %s", c.n ? c.run[0]->peer->name : "?", id,
                           p->why);
}

/*
 * The initiator's proof for the peers that it may be, with the post-quantum preshared key if there is one: a pre-shared
 * key at once, signatures by a job.
 */
static void check_initiator(struct ike_sa *sa, const struct ike_message *m, enum auth_method kind,
                            const struct choices *c)
{
    const struct peer *peers[PROOF_CANDIDATES], *best = c->run[0]->peer;
    char id[IDENTITY_TEXT];
    struct ike_message plain;
    struct span without;
    const char *unkeyed = ppk_decide(sa, best, m, &without);
    if (without.data) { /* NO_PPK_AUTH stands for AUTH */
        plain = *m;
        plain.auth_data = without;
        m = &plain;
    }
    if (unkeyed) {
        distrust_initiator(sa, best, "peer %s (id %s): %s", best->name, identity_format(&sa->remote_id, id, sizeof id),
                           unkeyed);
    } else if (kind == AUTH_PUBKEY) {
        for (unsigned i = 0; i < c->n; i++)
            peers[i] = c->run[i]->peer;
        enum err err = proof_check(sa, m, m->idi, peers, c->n, initiator_checked);
        if (err != OK)
            distrust_initiator(sa, best, "peer %s could not be authenticated: %s", best->name, err_text(err));
    } else if (proof_psk_right(sa, best, m, m->idi)) {
        snprintf(sa->auth_remote, sizeof sa->auth_remote, "psk");
        initiator_proven(sa, c->run[0]);
    } else {
        distrust_initiator(sa, best, "pre-shared keys differ (peer %s, their id %s)", best->name,
                           identity_format(&sa->remote_id, id, sizeof id));
    }
}

/*
 * Both ends have started at once. An attempt of ours that is still in IKE_SA_INIT gives way to the peer's SA, on which
 * alone the peer can rely. Of two that have come further, the one whose initiator's SPI is higher stays, and the other's
 * initiator deletes it. Each end applies this when it has authenticated the other's SA, so whichever order the messages
 * took, exactly one initiator gives way, and only to an SA that is up at both ends: the peer, which may not even have our
 * answer yet, has to show first that it does.
 */
static void settle_with(struct ike_sa *sa, struct ike_sa *o)
{
    if (o == sa || !o->initiator)
        return;
    bool concurrent = o->state == SA_AUTH_SENT || (o->state == SA_UP && o->established >= sa->created);
    if (o->state == SA_CONNECTING)
        sa_delete(o, false);
    else if (concurrent && o->spi_i < sa->spi_i)
        o->yields_to = sa;
    else if (concurrent)
        sa->yields_to = o; /* the peer deletes it */
}

static void settle(struct ike_sa *sa)
{
    struct ike_sa *next;
    for (struct ike_sa *o = table_same_peer(&sa->e->table, sa); o; o = next) {
        next = table_same_peer_next(o, sa);
        settle_with(sa, o);
    }
    /* An attempt knows no identity yet. Without an address there is none, but maybe thousands of clients. */
    for (struct ike_sa *o = sa->run->peer->endpoint_any ? NULL : sa->run->sas; o; o = next) {
        next = o->run_next;
        if (sa_connecting(o))
            settle_with(sa, o);
    }
}

/* Writes our half of IKE_AUTH behind the identity: AUTH, and the Child SA or why there is none. */
static void answer_child(struct ike_sa *sa, const struct ike_message *m, struct ike_builder *b, struct child **made)
{
    struct child_terms terms = {0};
    char why[TEXT_MAX] = "";
    struct span none = span_of(NULL, 0);
    *made = NULL;
    if (sa->childless)
        return;
    uint16_t error = child_answer(sa, m, NULL, false, &terms, why, sizeof why);
    if (!error) {
        bool sending = !child_elsewhere(sa, terms.policy);
        *made = child_create(sa, &terms, &sa->nonce_peer, &sa->nonce_own, NULL, sending);
        error = *made ? 0 : NOTIFY_NO_PROPOSAL_CHOSEN;
    }
    if (error) {
        ike_put_notify(b, PROTOCOL_NONE, none, error, none);
        if (why[0])
            child_failed(sa, NULL, "%s", why);
        return;
    }
    child_put_answer(b, &terms);
}

/* The initiator is proven, and our own proof is made, or could not be. */
static void answer(struct ike_sa *sa, enum err err, uint8_t method, struct span data)
{
    struct ike_message m;
    struct ike_builder b;
    struct child *made;
    struct run *run = sa->run;
    if (err != OK) {
        distrust_initiator(sa, run->peer, "we can't prove ourselves to %s: %s", run->peer->name, unmade(sa, err));
        return;
    }
    if (!unique_admits(sa)) {
        refuse_another(sa);
        return;
    }
    held(sa, &m);
    sa->childless = !(m.seen & PAYLOAD_BIT(PAYLOAD_SA));
    if (sa->childless && !sa->childless_announced) { /* RFC 6023 section 3 */
        refuse(sa, run->peer, NOTIFY_INVALID_SYNTAX, "IKE_AUTH came without a Child SA, which was not announced");
        return;
    }
    if (mobike_nat_found(sa, &m)) {
        refuse(sa, run->peer, NOTIFY_UNEXPECTED_NAT_DETECTED, "the initiator forbids NATs, and there is one");
        return;
    }
    if (ike_find_notify(&m, NOTIFY_INITIAL_CONTACT))
        unique_initial_contact(sa);
    mobike_take_auth(sa, &m);
    sa_up(sa);
    report_up(sa);
    reauth_plan(sa, &m);
    reply_begin(sa, &b, EXCHANGE_AUTH);
    ike_put_id(&b, PAYLOAD_IDR, &sa->local_id);
    proof_put_certs(&b, run->peer);
    ike_put_auth(&b, method, data);
    put_window(sa, &b);
    ppk_put_answer(sa, &b);
    reauth_put_lifetime(sa, &b);
    answer_child(sa, &m, &b, &made);
    if (sa->mobike.on)
        mobike_put_auth(sa, &b);
    reply_send(sa, &b);
    auth_release(sa);
    if (sa->state == SA_DEAD)
        return;
    if (made)
        child_report(made, IKE_EVENT_CHILD_UP, "up");
    sa->unproven = true;
    sa->answered = sa->e->now;
    settle(sa);
    unique_replace(sa);
    sa_crowd_out(sa);
    run_later(run, 2 * NS_PER_S + random_below(sa->e, 2 * NS_PER_S)); /* what the peer does not bring up by itself */
    if (commands_await(run))
        liveness_queue(sa); /* who waits for it is not to wait for what the peer says by itself */
}

/* Whoever the initiator says it is, all refusals look alike to it. */
void auth_request(struct ike_sa *sa, const struct ike_message *m)
{
    enum auth_method kind = proof_kind(m->auth_method);
    char id[IDENTITY_TEXT] = "?", at[ENDPOINT_TEXT], text[96], others[TEXT_MAX / 2 - 64];
    struct choices c = {.n = 0};
    sa->path = sa->rx.path;
    if (hold(sa, m) != OK) {
        sa_kill(sa);
        return;
    }
    if (ike_identity(m->idi, &sa->remote_id) == OK) {
        identity_format(&sa->remote_id, id, sizeof id);
        choose(sa, m, kind, &c);
    }
    if (c.n && m->auth_data.data) {
        check_initiator(sa, m, kind, &c);
    } else if (c.n || c.other) {
        const struct peer *peer = c.n ? c.run[0]->peer : c.other;
        distrust_initiator(sa, peer, "%s (id %s) uses %s, %s is configured", peer->name, id,
                           proof_text(m, text, sizeof text), proof_wanted(peer));
    } else {
        struct identity idr = {.type = ID_NONE};
        if (m->idr.data && ike_identity(m->idr, &idr) != OK)
            idr.type = ID_NONE;
        bool readable = sa->remote_id.type != ID_NONE;
        explain_strangers(sa->e, &sa->rx.path, readable ? &sa->remote_id : NULL, &idr, others, sizeof others);
        candidates_doubt(sa->e);
        distrust_initiator(sa, NULL, "%s at %s fits no peer: %s", id, endpoint_format(&sa->rx.path.remote, at), others);
    }
}
