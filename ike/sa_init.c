/* IKE_SA_INIT (RFC 7296 section 1.2), with cookies (2.6), the wrong group (1.2, 2.7) and NAT detection (2.23). */
#include <stdio.h>
#include <stdlib.h>

#include "ike/proof.h"

#define HALF_OPEN_DEFAULT 1000
#define HALF_OPEN_PER_SOURCE 16 /* once cookies are demanded */
#define REPEATS_MAX 16          /* of one first message: nobody sends it more often within HALF_OPEN_LIFE */

static void put_fragmentation(struct ike_builder *b)
{
    struct span none = span_of(NULL, 0);
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_FRAGMENTATION_SUPPORTED, none);
}

/* -- initiator -- */

static void offer_made(struct ike_sa *sa, struct ike_job *job);

static void send_request(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct task *t = sa->current;
    struct ike_builder b;
    size_t len;
    struct ike_header h = {
        .spi_i = sa->spi_i, .version = 0x20, .exchange = EXCHANGE_SA_INIT, .flags = IKE_FLAG_INITIATOR};
    ike_begin(&b, e->out, IKE_MESSAGE_MAX, &h);
    if (sa->cookie.len)
        ike_put_notify(&b, PROTOCOL_NONE, span_of(NULL, 0), NOTIFY_COOKIE, buf_span(&sa->cookie));
    proposal_put_offer(&b, &t->offered, 0, 0);
    ike_put_ke(&b, t->group, span_of(t->pub.b, t->pub.len));
    ike_put(&b, PAYLOAD_NONCE, nonce_span(&sa->nonce_own));
    if (sa->run->peer->ppk.len)
        ppk_put_support(&b);
    put_nat_detection(&b, sa, &sa->path);
    if (sa->run->peer->fragmentation)
        put_fragmentation(&b);
    proof_put_hashes(&b);
    enum err err = ike_finish(&b, &len);
    if (err == OK)
        err = buf_set(&sa->first_own, span_of(e->out, len));
    sa->tx.next = 0; /* a retry with a cookie or another group is message 0 again (section 2.2) */
    if (err == OK)
        err = buf_set(&sa->tx.flight, buf_span(&sa->first_own));
    if (err != OK) {
        sa_fail(sa, "IKE_SA_INIT to %s could not be made: %s", sa_peer_name(sa), err_text(err));
        return;
    }
    msgid_request(&sa->tx);
    request_transmit(sa);
}

static void make_offer(struct ike_sa *sa)
{
    enum err err = job_start(sa, JOB_OFFER, sa->current->group, NULL, span_of(NULL, 0), offer_made);
    if (err != OK)
        sa_fail(sa, "no key exchange with %s: %s", sa_peer_name(sa), err_text(err));
}

static void offer_made(struct ike_sa *sa, struct ike_job *job)
{
    struct task *t = sa->current;
    if (job->result != OK) {
        sa_fail(sa, "no key exchange with %s: %s", sa_peer_name(sa), err_text(job->result));
        return;
    }
    t->kex = job->kex;
    t->pub = job->pub;
    job->kex = NULL;
    send_request(sa);
}

static struct path first_path(const struct run *run)
{
    const struct ike_env *env = &run->e->env;
    const struct host *host = &run->e->config->host;
    struct path p = {.transport = PATH_UDP};
    if (run->candidate_count)
        p.remote = run->candidates[run->candidate];
    if (run->hint.ip.family == p.remote.ip.family)
        p.local.ip = run->hint.ip;
    if (env->source && !env->source(env->ctx, &p.remote.ip, &p.local.ip))
        p.local.ip = (struct ip){0}; /* there is no way now: perhaps when it is sent */
    p.local.port = host->port;
    if (p.remote.port != IKE_PORT || host->port != IKE_PORT) { /* else what answers would miss its marker */
        p.local.port = host->nat_port;
        p.marker = true;
        if (p.remote.port == IKE_PORT)
            p.remote.port = NATT_PORT;
    }
    return p;
}

void sa_init_start(struct run *run, const struct policy *first, struct ike_sa *renews)
{
    struct ike_engine *e = run->e;
    const struct peer *peer = run->peer;
    struct ike_sa *sa = ike_sa_new(e, true, sa_spi_make(e));
    if (!sa) {
        run_failed(run, NULL, "out of memory");
        return;
    }
    sa->run = run;
    sa->caller = true;
    sa->renews = renews;
    if (renews)
        candidates_prefer(run, &renews->path.remote.ip);
    sa->state = SA_CONNECTING;
    sa_enlist(sa);
    pace_begin(sa);
    sa->path = first_path(run);
    sa->current = task_new(TASK_CONNECT);
    if (!sa->path.remote.ip.family) {
        sa_fail(sa, "%s has no address to connect to: %s", peer->name,
                peer->endpoint_any   ? "its endpoint is %any"
                : run->lookup        ? "its name is being looked up, without an answer yet"
                : run->lookup_why[0] ? run->lookup_why
                                     : "endpoint");
        return;
    }
    if (!sa->current) {
        sa_fail(sa, "%s: out of memory", peer->name);
        return;
    }
    encap_begin(sa);
    nonce_make(e, &sa->nonce_own);
    sa->current->policy = first;
    sa->current->offered = peer->ike;
    sa->current->group = first_group(&peer->ike);
    make_offer(sa);
}

/* Anybody on the way can send these: they end nothing at once, they are what gets reported in the end (2.21.1). */
static void note_error(struct ike_sa *sa, uint16_t type)
{
    bool settled = type == NOTIFY_NO_PROPOSAL_CHOSEN || type == NOTIFY_USE_PPK ||
                   type == NOTIFY_CHILDLESS_IKEV2_SUPPORTED; /* no retransmission will change it */
    sa->noted = type;
    if (settled && !timer_is_set(&sa->grace))
        timer_set(&sa->e->timers, &sa->grace, sa->e->now + ERROR_GRACE);
}

void sa_init_expired(struct ike_sa *sa)
{
    char at[ENDPOINT_TEXT], name[64], why[SILENCE_TEXT], offered[TEXT_MAX / 2];
    endpoint_format(&sa->path.remote, at);
    if (sa->noted == NOTIFY_NO_PROPOSAL_CHOSEN)
        sa_fail(sa, "%s at %s answers NO_PROPOSAL_CHOSEN: it accepts none of our IKE proposals (%s)", sa_peer_name(sa),
                at, proposals_format(&sa->current->offered, offered, sizeof offered));
    else if (sa->noted == NOTIFY_USE_PPK)
        sa_fail(sa, "%s at %s uses no post-quantum preshared key, which ppk-required asks for", sa_peer_name(sa), at);
    else if (sa->noted == NOTIFY_CHILDLESS_IKEV2_SUPPORTED)
        sa_fail(sa, "%s at %s sets up no IKE SA without a Child SA, which childless = force asks for", sa_peer_name(sa),
                at);
    else if (sa->noted)
        sa_fail(sa, "%s at %s answers IKE_SA_INIT with %s", sa_peer_name(sa), at,
                notify_name(sa->noted, name, sizeof name));
    else
        sa_fail(sa, "%s at %s does not answer IKE_SA_INIT: %s", sa_peer_name(sa), at, sa_silence(sa, why, sizeof why));
}

static void retry_with_cookie(struct ike_sa *sa, const struct ike_notify *cookie)
{
    if (cookie->data.len < 1 || cookie->data.len > 64 || sa->cookies >= COOKIE_RETRIES) {
        note_error(sa, NOTIFY_COOKIE);
        return;
    }
    sa->cookies++;
    if (buf_set(&sa->cookie, cookie->data) == OK)
        send_request(sa);
}

static void retry_with_group(struct ike_sa *sa, uint16_t group)
{
    struct task *t = sa->current;
    if (group == KE_NONE || t->retries >= KEX_RETRIES) {
        note_error(sa, NOTIFY_INVALID_KE_PAYLOAD);
        return;
    }
    t->retries++;
    t->group = group;
    task_reset(sa->e, t);
    timer_cancel(&sa->e->timers, &sa->retransmit);
    msgid_done(&sa->tx);
    make_offer(sa);
}

/* From here on IKE goes to the NAT-T ports, whether there is a NAT or not (section 2.23, RFC 4555 section 3.3). */
static void float_path(struct ike_sa *sa)
{
    if (sa->path.marker || !sa->natt)
        return;
    sa->path.local.port = sa->e->config->host.nat_port;
    sa->path.remote.port = NATT_PORT;
    sa->path.marker = true;
}

static void secret_made(struct ike_sa *sa, struct ike_job *job)
{
    enum err err = job->result;
    if (err == OK)
        err = sa_derive(sa, NULL, &job->secret);
    if (err != OK) {
        sa_fail(sa, "key exchange with %s failed: %s", sa_peer_name(sa), err_text(err));
        return;
    }
    float_path(sa);
    auth_start(sa);
}

/* What we insist on and the response lacks, as a notify; 0: nothing. */
static uint16_t missing(const struct ike_sa *sa, const struct ike_message *m)
{
    if (ppk_missing(sa, m))
        return NOTIFY_USE_PPK;
    bool lacks = sa->run->peer->childless == CHILDLESS_FORCE && !ike_find_notify(m, NOTIFY_CHILDLESS_IKEV2_SUPPORTED);
    return lacks ? NOTIFY_CHILDLESS_IKEV2_SUPPORTED : 0;
}

static void accept_response(struct ike_sa *sa, const struct path *path, struct span message,
                            const struct ike_message *m)
{
    struct ike_engine *e = sa->e;
    struct task *t = sa->current;
    struct choice choice;
    bool natt, nat_local, nat_remote;
    char why[TEXT_MAX / 2];
    if (proposal_accept(m->sa, &t->offered, true, &choice) != OK || choice.spi_len != 0 || choice.ke.id != t->group ||
        m->ke_group != t->group || !nonce_set(&sa->nonce_peer, m->nonce)) {
        note_error(sa, NOTIFY_INVALID_SYNTAX);
        drop(e, STAT_DROP_IKE_SYNTAX);
        return;
    }
    if (missing(sa, m)) { /* forged, perhaps: another response may come (RFC 8784 section 6) */
        note_error(sa, missing(sa, m));
        return;
    }
    sa->choice = choice;
    /* Said without having been asked for, it means nothing (RFC 7383 section 2.3). */
    sa->fragmentation = sa->run->peer->fragmentation && ike_find_notify(m, NOTIFY_FRAGMENTATION_SUPPORTED);
    sa->ppk_agreed = sa->run->peer->ppk.len && ike_find_notify(m, NOTIFY_USE_PPK);
    sa->childless = sa->run->peer->childless == CHILDLESS_FORCE;
    nat_detect(m, path, &natt, &nat_local, &nat_remote);
    encap_settle(sa, natt, nat_local, nat_remote);
    if (encap_refused(sa, why, sizeof why)) {
        sa_fail(sa, "%s %s", sa_peer_name(sa), why);
        return;
    }
    sa->spi_r = m->h.spi_r;
    sa->peer_hashes = proof_hashes(m);
    sa->path.local.ip = path->local.ip;
    timer_cancel(&e->timers, &sa->retransmit);
    timer_cancel(&e->timers, &sa->grace);
    msgid_done(&sa->tx);
    struct kex *kex = t->kex;
    t->kex = NULL;
    enum err err = buf_set(&sa->first_peer, message);
    if (err == OK)
        err = job_start(sa, JOB_FINISH, t->group, kex, m->ke, secret_made);
    else
        kex_free(kex);
    if (err != OK)
        sa_fail(sa, "key exchange with %s failed: %s", sa_peer_name(sa), err_text(err));
}

void sa_init_response(struct ike_sa *sa, const struct path *path, struct span message, struct ike_message *m)
{
    struct ike_engine *e = sa->e;
    if (!msgid_awaited(&sa->tx, m->h.message_id) || !ip_equal(&path->remote.ip, &sa->path.remote.ip)) {
        drop(e, STAT_DROP_IKE_MSGID);
        return;
    }
    if (ike_message_legal(m) != OK) {
        drop(e, STAT_DROP_IKE_SYNTAX);
        return;
    }
    const struct ike_notify *error = ike_find_error(m), *cookie = ike_find_notify(m, NOTIFY_COOKIE);
    if (error && error->type == NOTIFY_INVALID_KE_PAYLOAD)
        retry_with_group(sa, invalid_ke_group(m, sa->current));
    else if (error)
        note_error(sa, error->type);
    else if (cookie && !(m->seen & PAYLOAD_BIT(PAYLOAD_SA)))
        retry_with_cookie(sa, cookie);
    else
        accept_response(sa, path, message, m);
}

/* -- responder -- */

static bool cookie_holds(struct ike_engine *e, const struct path *path, const struct ike_message *m)
{
    uint8_t cookie[COOKIE_LEN];
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_COOKIE);
    if (n && cookie_valid(&e->jar, &e->env.random, e->now, m->h.spi_i, &path->remote, m->nonce, n->data))
        return true;
    cookie_make(&e->jar, &e->env.random, e->now, m->h.spi_i, &path->remote, m->nonce, cookie);
    plain_notify(e, path, &m->h, EXCHANGE_SA_INIT, NOTIFY_COOKIE, span_of(cookie, sizeof cookie), false);
    return false;
}

/* Whether there is a place for one more half-open SA from there. Under load only for who receives at his address. */
static bool admitted(struct ike_engine *e, const struct path *path, const struct ike_message *m)
{
    const struct host *host = &e->config->host;
    unsigned most = e->limits.half_open ? e->limits.half_open : host->half_open ? host->half_open : HALF_OPEN_DEFAULT;
    unsigned trusting = e->limits.cookie_threshold ? e->limits.cookie_threshold : most / 10;
    bool room = e->half_open < most, crowded = e->half_open >= trusting;
    if (room && (host->cookies || crowded)) {
        if (!cookie_holds(e, path, m))
            return false;
        room = !crowded || table_from_source(&e->table, &path->remote.ip, HALF_OPEN_PER_SOURCE) < HALF_OPEN_PER_SOURCE;
    }
    if (!room)
        drop(e, STAT_DROP_IKE_LIMIT);
    return room;
}

static void refuse(struct ike_engine *e, const struct path *path, const struct ike_message *m, const char *why)
{
    char from[ENDPOINT_TEXT], peers[TEXT_MAX / 2];
    endpoint_format(&path->remote, from);
    if (why[0]) {
        report(e, IKE_EVENT_FAILED, NULL, NULL, path, "%s wants to connect, no IKE proposal in common: %s", from, why);
    } else {
        explain_strangers(e, path, NULL, NULL, peers, sizeof peers);
        log_limited(&e->log_limit, LOG_WARN, "ike", "%s wants to connect: no peer has that address, none has %%any: %s",
                    from, peers);
        candidates_doubt(e);
    }
    plain_notify(e, path, &m->h, EXCHANGE_SA_INIT, NOTIFY_NO_PROPOSAL_CHOSEN, span_of(NULL, 0), true);
}

/* For whoever it may be: until IKE_AUTH only the address tells. */
static void put_cert_request(struct ike_builder *b, const struct ike_sa *sa)
{
    struct proof_hints hints = {0};
    struct strangers all = strangers_at(sa->e, &sa->path.remote.ip);
    for (const struct run *r; (r = stranger_next(&all)) != NULL;)
        proof_hint(&hints, r->peer);
    proof_put_request(b, &hints);
}

static void send_response(struct ike_sa *sa, const struct kex_public *pub)
{
    struct ike_engine *e = sa->e;
    struct ike_builder b;
    size_t len;
    struct ike_header h = {.spi_i = sa->spi_i,
                           .spi_r = sa->spi_r,
                           .version = 0x20,
                           .exchange = EXCHANGE_SA_INIT,
                           .flags = IKE_FLAG_RESPONSE};
    ike_begin(&b, e->out, IKE_MESSAGE_MAX, &h);
    proposal_put_answer(&b, &sa->choice, 0, 0);
    ike_put_ke(&b, sa->choice.ke.id, span_of(pub->b, pub->len));
    ike_put(&b, PAYLOAD_NONCE, nonce_span(&sa->nonce_own));
    put_nat_detection(&b, sa, &sa->rx.path);
    proof_put_hashes(&b);
    put_cert_request(&b, sa);
    if (sa->fragmentation)
        put_fragmentation(&b);
    if (sa->ppk_agreed)
        ppk_put_support(&b);
    if (sa->childless_announced) /* about an IKE SA (RFC 6023 section 4) */
        ike_put_notify(&b, PROTOCOL_IKE, span_of(NULL, 0), NOTIFY_CHILDLESS_IKEV2_SUPPORTED, span_of(NULL, 0));
    if (ike_finish(&b, &len) != OK || buf_set(&sa->first_own, span_of(e->out, len)) != OK) {
        sa_kill(sa);
        return;
    }
    msgid_answer(&sa->rx); /* first_own answers retransmissions */
    sa->state = SA_HALF_OPEN;
    e->env.send(e->env.ctx, &sa->rx.path, buf_span(&sa->first_own));
}

static void responded(struct ike_sa *sa, struct ike_job *job)
{
    enum err err = job->result;
    nonce_make(sa->e, &sa->nonce_own);
    if (err == OK)
        err = sa_derive(sa, NULL, &job->secret);
    if (err == OK) {
        send_response(sa, &job->pub);
        return;
    }
    if (job_blames_peer(job)) { /* a public value that isn't one (RFC 6989) */
        drop(sa->e, STAT_DROP_IKE_SYNTAX);
        struct ike_header h = {.spi_i = sa->spi_i, .flags = IKE_FLAG_INITIATOR};
        plain_notify(sa->e, &sa->rx.path, &h, EXCHANGE_SA_INIT, NOTIFY_INVALID_SYNTAX, span_of(NULL, 0), true);
    }
    sa_kill(sa); /* a shortage of ours has passed, maybe, when the request comes again */
}

/* Whether a peer that this may be, as far as its address tells, is to have fragments. */
static bool fragmentation_for(const struct ike_engine *e, const struct path *path)
{
    struct strangers all = strangers_at(e, &path->remote.ip);
    for (const struct run *r; (r = stranger_next(&all)) != NULL;)
        if (r->peer->fragmentation)
            return true;
    return false;
}

/* Whoever is told so is held to nothing but what he was told: one peer there that never allows it decides. */
static bool childless_allowed(const struct ike_engine *e, const struct path *path)
{
    struct strangers all = strangers_at(e, &path->remote.ip);
    for (const struct run *r; (r = stranger_next(&all)) != NULL;)
        if (r->peer->childless == CHILDLESS_NEVER)
            return false;
    return true;
}

/* The peer knows no NAT traversal, and ESP can't be sent to it in another way. */
static void refuse_encap(struct ike_sa *sa, const struct path *path, const struct ike_message *m, const char *why)
{
    char from[ENDPOINT_TEXT];
    struct ike_engine *e = sa->e;
    log_limited(&e->log_limit, LOG_WARN, "ike", "%s %s", endpoint_format(&path->remote, from), why);
    plain_notify(e, path, &m->h, EXCHANGE_SA_INIT, NOTIFY_NO_PROPOSAL_CHOSEN, span_of(NULL, 0), true);
    sa_kill(sa);
}

static void respond(struct ike_engine *e, const struct path *path, struct span message, const struct ike_message *m,
                    const struct choice *choice)
{
    bool natt, nat_local, nat_remote;
    char why[TEXT_MAX / 2];
    struct ike_sa *sa = ike_sa_new(e, false, sa_spi_make(e));
    if (!sa)
        return;
    sa->state = SA_RESPONDING;
    sa->halfway = true;
    e->half_open++;
    sa->spi_i = m->h.spi_i;
    sa->first_remote = path->remote;
    sa->path = *path;
    sa->choice = *choice;
    encap_begin(sa);
    nat_detect(m, path, &natt, &nat_local, &nat_remote);
    encap_settle(sa, natt, nat_local, nat_remote);
    if (encap_refused(sa, why, sizeof why)) {
        refuse_encap(sa, path, m, why);
        return;
    }
    sa->fragmentation = ike_find_notify(m, NOTIFY_FRAGMENTATION_SUPPORTED) && fragmentation_for(e, path);
    sa->peer_hashes = proof_hashes(m);
    sa->ppk_agreed = ike_find_notify(m, NOTIFY_USE_PPK) && ppk_configured(e, path);
    sa->childless_announced = childless_allowed(e, path);
    table_add_first(&e->table, sa);
    timer_set(&e->timers, &sa->life, e->now + HALF_OPEN_LIFE);
    msgid_accept(&sa->rx, path);
    if (!nonce_set(&sa->nonce_peer, m->nonce) || buf_set(&sa->first_peer, message) != OK ||
        job_start(sa, JOB_RESPOND, choice->ke.id, NULL, m->ke, responded) != OK)
        sa_kill(sa);
}

/* Whose address that really is, nobody knows: he must not be flooded with answers, which are longer than the request. */
static void answer_repeat(struct ike_sa *sa, const struct path *path)
{
    if (sa->state == SA_HALF_OPEN && sa->repeats >= REPEATS_MAX) {
        drop(sa->e, STAT_DROP_IKE_LIMIT);
    } else if (sa->state == SA_HALF_OPEN) {
        sa->repeats++;
        stat_add(sa->e->env.stats, STAT_IKE_REPLAYED, 1);
        sa->e->env.send(sa->e->env.ctx, path, buf_span(&sa->first_own));
    } else {
        drop(sa->e, STAT_DROP_IKE_STATE);
    }
}

void sa_init_request(struct ike_engine *e, const struct path *path, struct span message, struct ike_message *m)
{
    char why[TEXT_MAX] = "";
    struct choice choice;
    struct ike_sa *sa = table_find_first(&e->table, m->h.spi_i, &path->remote, message);
    if (sa) {
        answer_repeat(sa, path);
        return;
    }
    if (e->stopping || ike_message_legal(m) != OK) {
        drop(e, e->stopping ? STAT_DROP_IKE_STATE : STAT_DROP_IKE_SYNTAX);
        return;
    }
    if (!admitted(e, path, m))
        return;
    if (!choose_proposal(e, path, m, &choice, why, sizeof why)) {
        refuse(e, path, m, why);
        return;
    }
    if (choice.ke.id != m->ke_group) {
        uint8_t group[2];
        put_be16(group, choice.ke.id);
        plain_notify(e, path, &m->h, EXCHANGE_SA_INIT, NOTIFY_INVALID_KE_PAYLOAD, span_of(group, 2), false);
        return;
    }
    respond(e, path, message, m, &choice);
}
