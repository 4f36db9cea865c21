/* IKE_AUTH (RFC 7296 sections 1.2 and 2.15): who both are, and the first Child SA. */
#include <stdio.h>
#include <stdlib.h>

#include "crypto/prf.h"
#include "ike/internal.h"

#define AUTH_METHOD_SHARED_KEY 2
#define ID_BODY_MAX (4 + IDENTITY_MAX)

/* The body of an ID payload as we write it, which our AUTH covers. */
static struct span id_body(const struct identity *id, uint8_t out[ID_BODY_MAX])
{
    struct writer w = writer_of(out, ID_BODY_MAX);
    write_u8(&w, id->type);
    write_bytes(&w, "\0\0\0", 3);
    write_bytes(&w, id->b, id->len);
    return span_of(out, writer_len(&w));
}

/* The AUTH data of one end: own tells whose. Errors: CRYPTO, UNSUPPORTED. */
static enum err auth_data(const struct ike_sa *sa, bool own, struct span body, uint8_t out[PRF_MAX])
{
    bool by_initiator = own == sa->initiator;
    return keymat_psk_auth(sa->prf, secret_span(&sa->run->peer->psk), by_initiator ? &sa->keys->pi : &sa->keys->pr,
                           buf_span(own ? &sa->first_own : &sa->first_peer),
                           nonce_span(own ? &sa->nonce_peer : &sa->nonce_own), body, out);
}

static bool auth_right(const struct ike_sa *sa, const struct ike_message *m, struct span body)
{
    uint8_t want[PRF_MAX];
    unsigned len = prf_len(sa->prf);
    bool ok = m->auth_method == AUTH_METHOD_SHARED_KEY && m->auth_data.len == len &&
              auth_data(sa, false, body, want) == OK && secret_equal(want, m->auth_data.data, len);
    secret_wipe(want, sizeof want);
    return ok;
}

/* Whether another SA with this peer is up: then this one isn't the first contact (section 2.4). */
static bool has_other(const struct ike_sa *sa)
{
    for (const struct ike_sa *o = sa->e->sas; o; o = o->next)
        if (o != sa && o->run == sa->run && o->state == SA_UP)
            return true;
    return false;
}

/* -- initiator -- */

void auth_start(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct task *t = sa->current;
    const struct peer *peer = sa->run->peer;
    uint8_t body_bytes[ID_BODY_MAX], auth[PRF_MAX];
    struct ike_builder b;
    struct span none = span_of(NULL, 0);
    sa->local_id = local_identity(e, peer, &sa->path);
    enum err err = auth_data(sa, true, id_body(&sa->local_id, body_bytes), auth);
    if (err == OK)
        err = e->env.spi_reserve(e->env.ctx, &t->spi);
    if (err != OK) {
        sa_fail(sa, "IKE_AUTH to %s could not be made: %s", peer->name, err_text(err));
        return;
    }
    child_offer(sa, t->policy, false, &t->offered);
    sa->state = SA_AUTH_SENT;
    request_begin(sa, &b, EXCHANGE_AUTH);
    ike_put_id(&b, PAYLOAD_IDI, &sa->local_id);
    if (peer->remote_id.type != ID_NONE && !peer->remote_id_any)
        ike_put_id(&b, PAYLOAD_IDR, &peer->remote_id);
    ike_put_auth(&b, AUTH_METHOD_SHARED_KEY, span_of(auth, prf_len(sa->prf)));
    secret_wipe(auth, sizeof auth);
    if (!has_other(sa))
        ike_put_notify(&b, PROTOCOL_NONE, none, NOTIFY_INITIAL_CONTACT, none);
    put_window(sa, &b);
    child_put_request(&b, t->policy, &t->offered, t->spi);
    mobike_put_auth(sa, &b);
    request_send(sa, &b);
}

/* Whether the responder is who it should be; if not, tells it (section 2.21.2) and fails. */
static bool responder_proven(struct ike_sa *sa, const struct ike_message *m)
{
    const struct peer *peer = sa->run->peer;
    char came[IDENTITY_TEXT], want[IDENTITY_TEXT];
    if (!m->idr.data || !m->auth_data.data || ike_identity(m->idr, &sa->remote_id) != OK) {
        informational_farewell(sa, NOTIFY_AUTHENTICATION_FAILED);
        sa_fail(sa, "%s answers IKE_AUTH without proving an identity", peer->name);
        return false;
    }
    identity_format(&sa->remote_id, came, sizeof came);
    bool expected = peer->remote_id_any || identity_equal(&sa->remote_id, &peer->remote_id);
    if (expected && auth_right(sa, m, m->idr))
        return true;
    informational_farewell(sa, NOTIFY_AUTHENTICATION_FAILED);
    if (!expected)
        sa_fail(sa, "authentication failed: %s calls itself %s, its configured id is %s", peer->name, came,
                identity_format(&peer->remote_id, want, sizeof want));
    else if (m->auth_method != AUTH_METHOD_SHARED_KEY)
        sa_fail(sa, "authentication failed: %s (id %s) uses method %u, a pre-shared key is configured", peer->name,
                came, m->auth_method);
    else
        sa_fail(sa, "authentication failed: pre-shared keys differ (peer %s, their id %s)", peer->name, came);
    return false;
}

static void refused(struct ike_sa *sa, const struct ike_notify *error)
{
    char own[IDENTITY_TEXT], number[64];
    identity_format(&sa->local_id, own, sizeof own);
    const char *name = notify_name(error->type, number, sizeof number);
    if (error->type == NOTIFY_AUTHENTICATION_FAILED)
        sa_fail(sa,
                "authentication failed: %s refuses us (%s): its pre-shared key or the id it expects differs (ours: %s)",
                sa_peer_name(sa), name, own);
    else
        sa_fail(sa, "%s refuses IKE_AUTH with %s (our id %s)", sa_peer_name(sa), name, own);
}

/* The first Child SA: its failure leaves the IKE SA as it is (section 2.21.2). */
static void first_child(struct ike_sa *sa, const struct ike_message *m)
{
    struct task *t = sa->current;
    struct child_terms terms;
    char why[TEXT_MAX];
    if (!child_accept(sa, m, t, false, &terms, why, sizeof why)) {
        child_failed(sa, t->policy, "%s", why);
        if (!ike_find_error(m))
            child_disown(sa, t);
        return;
    }
    struct child *c = child_create(sa, &terms, &sa->nonce_own, &sa->nonce_peer, NULL, true);
    if (!c) {
        child_disown(sa, t);
        return;
    }
    t->spi = 0; /* the Child SA's from here on */
    child_report(c, IKE_EVENT_CHILD_UP, "up");
}

static void report_up(struct ike_sa *sa)
{
    char id[IDENTITY_TEXT], at[ENDPOINT_TEXT], suite[64], group[32];
    report(sa->e, IKE_EVENT_IKE_UP, sa_peer(sa), NULL, &sa->path, "IKE SA with %s (%s at %s) is up: %s, %s",
           sa_peer_name(sa), identity_format(&sa->remote_id, id, sizeof id), endpoint_format(&sa->path.remote, at),
           suite_text(&sa->suite, suite, sizeof suite), transform_text(&sa->choice.ke, group, sizeof group));
}

void auth_response(struct ike_sa *sa, const struct ike_message *m)
{
    const struct ike_notify *error = ike_find_error(m);
    if (error && !m->auth_data.data) {
        refused(sa, error);
        return;
    }
    if (!responder_proven(sa, m))
        return;
    struct run *run = sa->run;
    mobike_take_auth(sa, m);
    sa_up(sa);
    report_up(sa);
    first_child(sa, m);
    task_done(sa);
    if (sa->redundant)
        sa_delete(sa, false);
    else
        run_kick(run);
}

/* -- responder -- */

static unsigned fit(const struct peer *p, const struct ike_sa *sa, const struct identity *idi,
                    const struct identity *idr)
{
    bool here = !p->endpoint_any && ip_equal(&p->endpoint.ip, &sa->path.remote.ip);
    bool named = !p->remote_id_any && identity_equal(&p->remote_id, idi);
    if ((!here && !p->endpoint_any) || (!named && !p->remote_id_any))
        return 0;
    struct identity own = local_identity(sa->e, p, &sa->path);
    return 1 + (named ? 4u : 0) + (here ? 2u : 0) + (idr->type != ID_NONE && identity_equal(&own, idr) ? 1u : 0);
}

static struct run *best_run(const struct ike_sa *sa, const struct identity *idi, const struct identity *idr)
{
    struct run *best = NULL;
    unsigned best_fit = 0;
    for (unsigned i = 0; i < sa->e->run_count; i++) {
        unsigned f = fit(sa->e->runs[i]->peer, sa, idi, idr);
        if (f > best_fit) {
            best_fit = f;
            best = sa->e->runs[i];
        }
    }
    return best;
}

/* What was configured instead, for who has to find the difference. */
static void describe_peers(const struct ike_engine *e, char *text, size_t size)
{
    size_t at = 0;
    text[0] = 0;
    for (unsigned i = 0; i < e->run_count && at + 1 < size; i++) {
        const struct peer *p = e->runs[i]->peer;
        char id[IDENTITY_TEXT], where[IP_TEXT];
        int n = snprintf(text + at, size - at, "%s%s (id %s at %s)", i ? ", " : "", p->name,
                         p->remote_id_any ? "%any" : identity_format(&p->remote_id, id, sizeof id),
                         p->endpoint_any ? "%any" : ip_format(&p->endpoint.ip, where));
        at += n > 0 ? (size_t)n : 0;
    }
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
    reply_notify(sa, EXCHANGE_AUTH, PROTOCOL_NONE, none, type, none);
    if (sa->state != SA_DEAD)
        sa_refused(sa);
}

/* True if the initiator is a configured peer and proved it; otherwise it was refused, always with the same answer. */
static bool initiator_proven(struct ike_sa *sa, const struct ike_message *m)
{
    struct identity idr = {.type = ID_NONE};
    char text[TEXT_MAX], id[IDENTITY_TEXT] = "?", at[ENDPOINT_TEXT], others[TEXT_MAX / 4];
    bool readable = ike_identity(m->idi, &sa->remote_id) == OK;
    if (m->idr.data && ike_identity(m->idr, &idr) != OK)
        idr.type = ID_NONE;
    endpoint_format(&sa->rx.path.remote, at);
    if (readable)
        identity_format(&sa->remote_id, id, sizeof id);
    sa->run = readable ? best_run(sa, &sa->remote_id, &idr) : NULL;
    if (!sa->run) {
        describe_peers(sa->e, others, sizeof others);
        snprintf(text, sizeof text, "authentication failed: %s at %s fits no peer; configured: %s", id, at, others);
        refuse(sa, NULL, NOTIFY_AUTHENTICATION_FAILED, text);
        return false;
    }
    const struct peer *peer = sa->run->peer;
    if (auth_right(sa, m, m->idi)) {
        if (suite_allowed(&sa->choice, &peer->ike))
            return true;
        snprintf(text, sizeof text, "%s (id %s) came with an IKE suite that its proposals don't allow", peer->name, id);
        refuse(sa, peer, NOTIFY_NO_PROPOSAL_CHOSEN, text);
        return false;
    }
    if (m->auth_data.data && m->auth_method == AUTH_METHOD_SHARED_KEY)
        snprintf(text, sizeof text, "authentication failed: pre-shared keys differ (peer %s, their id %s)", peer->name,
                 id);
    else
        snprintf(text, sizeof text, "authentication failed: %s (id %s) uses %s, a pre-shared key is configured",
                 peer->name, id, m->auth_data.data ? "another method" : "EAP");
    refuse(sa, peer, NOTIFY_AUTHENTICATION_FAILED, text);
    return false;
}

/*
 * The peer says that it has no other SA with us (section 2.4). One that was set up after this one's first message came
 * is no leftover: both ends have started at once, and settle() decides.
 */
static void initial_contact(struct ike_sa *sa)
{
    for (struct ike_sa *o = sa->e->sas, *next; o; o = next) {
        next = o->next;
        if (o != sa && sa_same_peer(o, sa) && o->established && o->established < sa->created)
            sa_replaced(o);
    }
}

/*
 * Both ends have started at once. An attempt of ours that is still in IKE_SA_INIT gives way to the peer's SA, on which
 * alone the peer can rely. Of two that have come further, the one whose initiator's SPI is higher stays, and the other's
 * initiator deletes it. Each end applies this when it has authenticated the other's SA, so whichever order the messages
 * took, exactly one initiator gives way, and only to an SA that is up at both ends.
 */
static void settle(struct ike_sa *sa)
{
    for (struct ike_sa *o = sa->e->sas, *next; o; o = next) {
        next = o->next;
        if (o == sa || o->run != sa->run || !o->initiator)
            continue;
        bool concurrent = o->state == SA_AUTH_SENT || (o->state == SA_UP && o->established >= sa->created);
        if (o->state == SA_CONNECTING || (concurrent && o->spi_i < sa->spi_i))
            sa_delete(o, false);
    }
}

/* Writes our half of IKE_AUTH behind the identity: AUTH, and the Child SA or why there is none. */
static void answer_child(struct ike_sa *sa, const struct ike_message *m, struct ike_builder *b, struct child **made)
{
    struct child_terms terms = {0};
    char why[TEXT_MAX] = "";
    struct span none = span_of(NULL, 0);
    *made = NULL;
    if (!(m->seen & PAYLOAD_BIT(PAYLOAD_SA)))
        return;
    uint16_t error = child_answer(sa, m, NULL, false, &terms, why, sizeof why);
    if (!error) {
        *made = child_create(sa, &terms, &sa->nonce_peer, &sa->nonce_own, NULL, true);
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

void auth_request(struct ike_sa *sa, const struct ike_message *m)
{
    uint8_t body_bytes[ID_BODY_MAX], auth[PRF_MAX];
    struct ike_builder b;
    struct child *made;
    sa->path = sa->rx.path;
    if (!initiator_proven(sa, m))
        return;
    if (mobike_nat_found(sa, m)) {
        refuse(sa, sa->run->peer, NOTIFY_UNEXPECTED_NAT_DETECTED, "the initiator forbids NATs, and there is one");
        return;
    }
    struct run *run = sa->run;
    mobike_take_auth(sa, m);
    sa->local_id = local_identity(sa->e, run->peer, &sa->path);
    if (auth_data(sa, true, id_body(&sa->local_id, body_bytes), auth) != OK) {
        sa_kill(sa);
        return;
    }
    if (ike_find_notify(m, NOTIFY_INITIAL_CONTACT))
        initial_contact(sa);
    sa_up(sa);
    report_up(sa);
    reply_begin(sa, &b, EXCHANGE_AUTH);
    ike_put_id(&b, PAYLOAD_IDR, &sa->local_id);
    ike_put_auth(&b, AUTH_METHOD_SHARED_KEY, span_of(auth, prf_len(sa->prf)));
    secret_wipe(auth, sizeof auth);
    put_window(sa, &b);
    answer_child(sa, m, &b, &made);
    if (sa->mobike.on)
        mobike_put_auth(sa, &b);
    reply_send(sa, &b);
    if (sa->state == SA_DEAD)
        return;
    if (made)
        child_report(made, IKE_EVENT_CHILD_UP, "up");
    settle(sa);
    sa_crowd_out(sa);
    run_later(run, 2 * NS_PER_S + random_below(sa->e, 2 * NS_PER_S)); /* what the peer does not bring up by itself */
}
