/* Child SAs as objects, and what IKE_AUTH and CREATE_CHILD_SA have in common about them (RFC 7296 sections 2.8, 2.9). */
#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

#define ACTIVATE_AFTER (3 * NS_PER_S)  /* the peer surely has it then */
#define HASTY_BEFORE (250 * NS_PER_MS) /* a rekey asked for by traffic after less than that has little time */
#define SPI_MIN 256                    /* 1..255 are reserved (RFC 4303 section 2.1) */

struct path child_path(const struct ike_sa *sa, uint8_t protocol)
{
    return encap_path(sa, protocol, sa->path);
}

static void add_transform(struct proposal *p, uint8_t type, uint16_t id)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == type && p->t[i].id == id)
            return;
    if (p->n < PROPOSAL_TRANSFORMS)
        p->t[p->n++] = (struct transform){.type = type, .id = id};
}

/* One proposal without what doesn't belong: KE in IKE_AUTH, extended sequence numbers where they are off. */
static void filter(const struct proposal *in, const struct policy *policy, bool with_ke, struct proposal *out)
{
    out->protocol = in->protocol;
    out->n = 0;
    for (unsigned i = 0; i < in->n; i++) {
        const struct transform *t = &in->t[i];
        bool unwanted =
            (t->type == TRANSFORM_KE && !with_ke) || (t->type == TRANSFORM_ESN && t->id == ESN_YES && !policy->esn);
        if (!unwanted)
            out->t[out->n++] = *t;
    }
    if (!proposal_has(out, TRANSFORM_ESN))
        add_transform(out, TRANSFORM_ESN, ESN_NO);
}

void child_offer(const struct ike_sa *sa, const struct policy *policy, bool with_ke, struct proposals *out)
{
    out->n = policy->esp.n;
    for (unsigned i = 0; i < policy->esp.n; i++) {
        struct proposal *p = &out->v[i];
        filter(&policy->esp.v[i], policy, with_ke, p);
        if (with_ke && !proposal_has(p, TRANSFORM_KE)) {
            add_transform(p, TRANSFORM_KE, sa->choice.ke.id);
            add_transform(p, TRANSFORM_KE, KE_NONE);
        }
    }
}

/* A responder without groups of its own follows the initiator's choice, among all that IKE itself may use. */
static void child_acceptable(const struct ike_sa *sa, const struct policy *policy, bool with_ke, struct proposals *out)
{
    const struct proposals *ike = &sa->run->peer->ike;
    child_offer(sa, policy, with_ke, out);
    if (!with_ke)
        return;
    for (unsigned i = 0; i < out->n; i++) {
        if (proposal_has(&policy->esp.v[i], TRANSFORM_KE))
            continue;
        for (unsigned j = 0; j < ike->n; j++)
            for (unsigned k = 0; k < ike->v[j].n; k++)
                if (ike->v[j].t[k].type == TRANSFORM_KE)
                    add_transform(&out->v[i], TRANSFORM_KE, ike->v[j].t[k].id);
    }
}

/* What is padded behind a payload of any protocol could not be told from it: only inner IP headers say their length. */
static void put_transport(struct ike_builder *b)
{
    struct span none = span_of(NULL, 0);
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_USE_TRANSPORT_MODE, none);
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_ESP_TFC_PADDING_NOT_SUPPORTED, none);
}

void child_put_request(struct ike_builder *b, const struct task *t)
{
    if (t->transport)
        put_transport(b);
    proposal_put_offer(b, &t->offered, t->spi, 4);
    ike_put_ts(b, PAYLOAD_TSI, &t->local);
    ike_put_ts(b, PAYLOAD_TSR, &t->remote);
}

static void describe_overlap(const struct ike_sa *sa, const struct ike_message *m, const struct policy *only, char *why,
                             size_t size)
{
    char a[200], b[200], own[TEXT_MAX / 2] = "no policy";
    const struct run *run = sa->run;
    size_t at = 0;
    bool exchanged = false;
    for (unsigned i = 0; i < run->policy_count && at + 1 < sizeof own; i++) {
        const struct policy *p = run->policies[i].policy;
        if (only && p != only)
            continue;
        exchanged |= selectors_equal(&p->local, &m->tsi.v) && selectors_equal(&p->remote, &m->tsr.v);
        int n = snprintf(own + at, sizeof own - at, "%spolicy \"%s\" has %s === %s", at ? ", " : "", p->name,
                         selectors_format(&p->local, a, sizeof a), selectors_format(&p->remote, b, sizeof b));
        at += n > 0 ? (size_t)n : 0;
    }
    snprintf(why, size, "selectors have no overlap: peer offers %s === %s (ours === its), %s%s",
             selectors_format(&m->tsr.v, a, sizeof a), selectors_format(&m->tsi.v, b, sizeof b), own,
             exchanged ? ": local and remote are exchanged at one of the ends" : "");
}

uint16_t child_answer(struct ike_sa *sa, const struct ike_message *m, const struct policy *only, bool with_ke,
                      struct child_terms *out, char *why, size_t why_size)
{
    struct proposals ours;
    char detail[TEXT_MAX / 2];
    bool ke = m->seen & PAYLOAD_BIT(PAYLOAD_KE);
    out->policy = selectors_match(sa, m, only, out);
    if (!out->policy) {
        describe_overlap(sa, m, only, why, why_size);
        return NOTIFY_TS_UNACCEPTABLE;
    }
    child_acceptable(sa, out->policy, with_ke, &ours);
    if (ah_barred(sa, out->policy, why, why_size))
        return NOTIFY_NO_PROPOSAL_CHOSEN;
    if (proposal_choose(m->sa, &ours, ke ? m->ke_group : KE_NONE, with_ke, &out->choice, detail, sizeof detail) != OK ||
        out->choice.spi < SPI_MIN) {
        snprintf(why, why_size, "no %s proposal in common for policy \"%s\": %s",
                 protocol_text(policy_protocol(out->policy)), out->policy->name, detail);
        return NOTIFY_NO_PROPOSAL_CHOSEN;
    }
    if (with_ke && out->choice.ke.id != KE_NONE && (!ke || m->ke_group != out->choice.ke.id))
        return NOTIFY_INVALID_KE_PAYLOAD;
    out->initiator = false;
    out->no_tfc = ike_find_notify(m, NOTIFY_ESP_TFC_PADDING_NOT_SUPPORTED);
    if (sa->e->env.spi_reserve(sa->e->env.ctx, &out->spi_in) != OK) {
        snprintf(why, why_size, "no SPI left");
        return NOTIFY_NO_ADDITIONAL_SAS;
    }
    return 0;
}

void child_put_answer(struct ike_builder *b, const struct child_terms *t)
{
    struct span none = span_of(NULL, 0);
    if (t->mode == MODE_TRANSPORT)
        put_transport(b);
    if (t->more)
        ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_ADDITIONAL_TS_POSSIBLE, none);
    proposal_put_answer(b, &t->choice, t->spi_in, 4);
    ike_put_ts(b, PAYLOAD_TSI, t->initiator ? &t->local : &t->remote);
    ike_put_ts(b, PAYLOAD_TSR, t->initiator ? &t->remote : &t->local);
}

static void describe_error(const struct ike_sa *sa, const struct ike_notify *error, const struct task *task, char *why,
                           size_t size)
{
    char number[64], a[200], b[200], offered[TEXT_MAX / 2];
    const struct policy *p = task->policy;
    const char *name = notify_name(error->type, number, sizeof number);
    if (error->type == NOTIFY_TS_UNACCEPTABLE)
        snprintf(why, size, "%s answers %s: its policy has no overlap with ours, policy \"%s\": %s === %s",
                 sa_peer_name(sa), name, p->name, selectors_format(&p->local, a, sizeof a),
                 selectors_format(&p->remote, b, sizeof b));
    else if (error->type == NOTIFY_NO_PROPOSAL_CHOSEN)
        snprintf(why, size, "%s answers %s: it accepts none of our %s proposals for policy \"%s\" (%s)",
                 sa_peer_name(sa), name, protocol_text(policy_protocol(p)), p->name,
                 proposals_format(&task->offered, offered, sizeof offered));
    else
        snprintf(why, size, "%s answers %s to policy \"%s\"", sa_peer_name(sa), name, p->name);
}

/* What a person may want to know of an answer that is taken. */
static void note_answer(const struct ike_sa *sa, const struct ike_message *m, const struct task *task,
                        const struct child_terms *t)
{
    if (task->transport && t->mode == MODE_TUNNEL)
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), t->policy, &sa->path,
               "%s declines transport mode for policy \"%s\": it runs in tunnel mode", sa_peer_name(sa),
               t->policy->name);
    if (ike_find_notify(m, NOTIFY_ADDITIONAL_TS_POSSIBLE))
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), t->policy, &sa->path,
               "%s narrows policy \"%s\" and would take more of it in other Child SAs: make it several policies",
               sa_peer_name(sa), t->policy->name);
}

bool child_accept(struct ike_sa *sa, const struct ike_message *m, const struct task *task, bool with_ke,
                  struct child_terms *out, char *why, size_t why_size)
{
    char a[200], b[200];
    const struct policy *p = task->policy;
    const struct ike_notify *error = ike_find_error(m);
    if (error) {
        describe_error(sa, error, task, why, why_size);
        return false;
    }
    if (!m->sa.data || !m->tsi.present || !m->tsr.present) {
        snprintf(why, why_size, "%s answers policy \"%s\" without a Child SA", sa_peer_name(sa), p->name);
        return false;
    }
    if (proposal_accept(m->sa, &task->offered, with_ke, &out->choice) != OK || out->choice.spi < SPI_MIN) {
        snprintf(why, why_size, "%s answers policy \"%s\" with a suite that was not offered", sa_peer_name(sa),
                 p->name);
        return false;
    }
    bool transport = ike_find_notify(m, NOTIFY_USE_TRANSPORT_MODE);
    if (transport && !task->transport) {
        snprintf(why, why_size, "%s answers policy \"%s\" in transport mode, which was not offered", sa_peer_name(sa),
                 p->name);
        return false;
    }
    if (!transport && p->transport_only) { /* what the peer has set up is deleted (section 1.3.1) */
        snprintf(why, why_size, "%s declines transport mode, and policy \"%s\" allows no other (transport-only)",
                 sa_peer_name(sa), p->name);
        return false;
    }
    if (!selectors_accept(sa, m, task, transport, out)) {
        snprintf(why, why_size, "%s answers policy \"%s\" with selectors wider than offered: %s === %s",
                 sa_peer_name(sa), p->name, selectors_format(&m->tsi.v, a, sizeof a),
                 selectors_format(&m->tsr.v, b, sizeof b));
        return false;
    }
    out->policy = p;
    out->spi_in = task->spi;
    out->mode = transport ? MODE_TRANSPORT : MODE_TUNNEL;
    out->no_tfc = ike_find_notify(m, NOTIFY_ESP_TFC_PADDING_NOT_SUPPORTED);
    out->initiator = true;
    note_answer(sa, m, task, out);
    return true;
}

bool child_single(struct ike_sa *sa, const struct task *refused)
{
    struct task *t = task_new(TASK_CHILD_NEW);
    if (!t)
        return false;
    t->policy = refused->policy;
    t->local = refused->local;
    t->remote = refused->remote;
    if (!selectors_single(sa, t)) {
        task_free(sa->e, t);
        return false;
    }
    task_queue(sa, t, true);
    return true;
}

static void queue_delete(struct child *c)
{
    struct ike_sa *sa = c->sa;
    struct task *t = task_new(TASK_CHILD_DELETE);
    if (!t) { /* the peer must not go on sending into nothing: again, when there may be memory */
        timer_set(&sa->e->timers, &c->life, sa->e->now + NS_PER_S);
        return;
    }
    t->child = c->id;
    task_queue(sa, t, false);
}

static void child_life(struct timer *t, void *ctx, ns_t now)
{
    struct child *c = CONTAINER_OF(t, struct child, life);
    struct ike_engine *e = ctx;
    if (c->state == CHILD_DELETING)
        queue_delete(c);
    else if (c->state == CHILD_DOOMED)
        child_delete(c, true);
    if (c->state != CHILD_LIVE)
        return;
    if (now >= c->hard_at) {
        child_expired(c);
        return;
    }
    timer_set(&e->timers, &c->life, c->hard_at);
    (void)child_rekey(c); /* if it can't, the hard limit stands */
}

static enum err install(struct ike_sa *sa, struct child *c, const struct child_terms *t, const struct nonce *ni,
                        const struct nonce *nr, const struct kex_secret *g, bool sending)
{
    struct child_keys *k = secret_alloc(sizeof *k);
    if (!k)
        return ERR_NOMEM;
    enum err err = keymat_child(k, sa->keys, &c->suite, nonce_span(ni), nonce_span(nr), g);
    if (err == OK) {
        struct ike_child ic = {
            .id = c->id,
            .peer = sa_peer(sa),
            .policy = child_policy(c),
            .remote_id = &sa->remote_id,
            .spi_in = c->spi_in,
            .spi_out = c->spi_out,
            .protocol = c->protocol,
            .suite = c->suite,
            .esn = c->esn,
            .key_in = secret_span(t->initiator ? &k->encr_r : &k->encr_i),
            .integ_in = secret_span(t->initiator ? &k->integ_r : &k->integ_i),
            .key_out = secret_span(t->initiator ? &k->encr_i : &k->encr_r),
            .integ_out = secret_span(t->initiator ? &k->integ_i : &k->integ_r),
            .local = c->local,
            .remote = c->remote,
            .mode = c->mode,
            .seen_local = t->seen_local,
            .seen_remote = t->seen_remote,
            .tfc = !c->no_tfc && c->mode == MODE_TUNNEL && c->protocol == PROTOCOL_ESP,
            .path = encap_path(sa, c->protocol, sa->mobike.unproven ? sa->mobike.proven : sa->path),
        };
        err = sa->e->env.child_install(sa->e->env.ctx, &ic, sending);
    }
    secret_free(k);
    return err;
}

static void set_lifetime(struct ike_engine *e, struct child *c)
{
    ns_t life = child_policy(c)->lifetime;
    c->established = e->now;
    if (!life)
        return;
    c->soft_at = e->now + life - random_below(e, life / 10 + 1); /* jitter against collisions (section 2.8) */
    c->hard_at = e->now + life + life / 10;
    timer_set(&e->timers, &c->life, c->soft_at);
}

/* Whoever counts on padding must know where there is none. */
static void note_padding(const struct child *c)
{
    const struct policy *p = child_policy(c);
    if (!p->tfc.n || (c->mode == MODE_TUNNEL && !c->no_tfc))
        return;
    report(c->sa->e, IKE_EVENT_NOTICE, sa_peer(c->sa), p, &c->sa->path, "packets of policy \"%s\" are not padded: %s",
           p->name,
           c->mode == MODE_TUNNEL ? "the peer does not take it (ESP_TFC_PADDING_NOT_SUPPORTED)"
                                  : "that is for tunnel mode only");
}

struct child *child_create(struct ike_sa *sa, const struct child_terms *t, const struct nonce *ni,
                           const struct nonce *nr, const struct kex_secret *g, bool sending)
{
    struct ike_engine *e = sa->e;
    struct child *c = calloc(1, sizeof *c);
    enum err err = c ? timer_add(&e->timers, &c->life, child_life) : ERR_NOMEM;
    if (err == OK) {
        c->sa = sa;
        c->id = e->next_child++;
        c->spi_in = t->spi_in;
        c->spi_out = (uint32_t)t->choice.spi;
        c->protocol = t->choice.protocol;
        c->esn = t->choice.esn.id == ESN_YES;
        c->mode = t->mode;
        c->no_tfc = t->no_tfc;
        c->local = t->local;
        c->remote = t->remote;
        err = child_enlist(e, c, t->policy) ? choice_suite(&t->choice, &c->suite) : ERR_NOMEM;
        if (err == OK)
            err = install(sa, c, t, ni, nr, g, sending);
        if (err != OK) {
            child_unlist(e, c);
            timer_drop(&e->timers, &c->life);
        }
    }
    if (err != OK) {
        free(c);
        if (!t->initiator)
            e->env.spi_release(e->env.ctx, t->spi_in);
        child_failed(sa, t->policy, "the Child SA of policy \"%s\" could not be installed: %s", t->policy->name,
                     err_text(err));
        return NULL;
    }
    c->installed = true;
    set_lifetime(e, c);
    c->next = sa->children;
    sa->children = c;
    if (sending)
        child_takes_traffic(c);
    else if (child_elsewhere(sa, t->policy))
        c->activate_at = e->now + ACTIVATE_AFTER;
    run_well(sa->run, t->policy);
    note_padding(c);
    return c;
}

struct child *child_by_spi(const struct ike_sa *sa, uint8_t protocol, uint32_t spi_out)
{
    for (struct child *c = sa->children; c; c = c->next)
        if (c->spi_out == spi_out && c->protocol == protocol)
            return c;
    return NULL;
}

struct child *child_on(const struct ike_sa *sa, const struct policy *policy)
{
    for (struct child *c = sa->children; c; c = c->next)
        if (c->state == CHILD_LIVE && c->installed && child_policy(c) == policy)
            return c;
    return NULL;
}

bool child_elsewhere(const struct ike_sa *sa, const struct policy *policy)
{
    for (const struct ike_sa *o = table_same_peer(&sa->e->table, sa); o; o = table_same_peer_next(o, sa))
        if (o != sa && child_on(o, policy))
            return true;
    return false;
}

bool child_any(const struct run *run)
{
    for (const struct ike_sa *sa = run->sas; sa; sa = sa->run_next)
        if (sa->children)
            return true;
    return false;
}

void child_activate(struct child *c)
{
    child_takes_traffic(c);
    c->sa->e->env.child_activate(c->sa->e->env.ctx, c->id);
}

static void uninstall(struct child *c, bool linger)
{
    struct ike_engine *e = c->sa->e;
    if (!c->installed)
        return;
    c->installed = false;
    struct child *successor = c->sending ? child_successor(c) : NULL;
    if (successor) /* it takes the traffic over first: nothing falls into the gap */
        child_activate(successor);
    c->sending = false;
    e->env.child_remove(e->env.ctx, c->id, linger);
}

void child_drop(struct child *c, bool linger)
{
    struct ike_sa *sa = c->sa;
    walks_leave_child(c);
    for (struct child **p = &sa->children; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            break;
        }
    tasks_drop(sa, c->id);
    uninstall(c, linger);
    child_unlist(sa->e, c);
    timer_drop(&sa->e->timers, &c->life);
    c->state = CHILD_DELETING;
    c->next = sa->e->dead_children;
    sa->e->dead_children = c;
}

void child_retire(struct child *c)
{
    c->state = CHILD_DELETING;
    timer_cancel(&c->sa->e->timers, &c->life);
    uninstall(c, true);
}

void child_delete(struct child *c, bool now)
{
    if (c->state == CHILD_DELETING)
        return;
    c->state = CHILD_DELETING;
    timer_cancel(&c->sa->e->timers, &c->life);
    tasks_drop(c->sa, c->id);
    if (now)
        uninstall(c, true);
    queue_delete(c);
}

void child_doom(struct child *c)
{
    if (c->state != CHILD_LIVE)
        return;
    c->state = CHILD_DOOMED;
    timer_set(&c->sa->e->timers, &c->life, c->sa->e->now + REPLACED_LIFE);
}

bool child_rekey(struct child *c)
{
    struct task *t;
    if (c->state != CHILD_LIVE || !child_policy(c) || task_waits(c->sa, TASK_CHILD_REKEY, c->id, NULL))
        return true;
    t = task_new(TASK_CHILD_REKEY);
    if (!t)
        return false;
    t->child = c->id;
    t->policy = child_policy(c);
    task_queue(c->sa, t, false);
    return true;
}

void child_expired(struct child *c)
{
    struct run *run = c->sa->run;
    child_report(c, IKE_EVENT_CHILD_DOWN, "down: it reached its hard limit");
    child_delete(c, true);
    if (run)
        run_later(run, 0);
}

void child_report(const struct child *c, enum ike_event_kind kind, const char *fmt, ...)
{
    char text[TEXT_MAX / 2], a[200], b[200], suite[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const struct policy *p = child_named(c);
    report(c->sa->e, kind, sa_peer(c->sa), p, &c->sa->path, "Child SA of policy \"%s\" is %s (%s === %s, %s%s%s%s%s)",
           p ? p->name : "(gone)", text, selectors_format(&c->local, a, sizeof a),
           selectors_format(&c->remote, b, sizeof b), c->protocol == PROTOCOL_AH ? "AH " : "",
           suite_text(&c->suite, suite, sizeof suite), c->esn ? ", esn" : "",
           c->mode == MODE_TRANSPORT ? ", transport" : "",
           c->sa->raw && c->protocol == PROTOCOL_ESP ? ", raw ESP" : "");
}

void child_failed(struct ike_sa *sa, const struct policy *policy, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    report(sa->e, IKE_EVENT_FAILED, sa_peer(sa), policy, &sa->path, "%s", text);
    if (sa->run && policy)
        run_failed(sa->run, policy, text);
    else if (sa->run) /* the peer's attempt, not ours */
        run_note(sa->run, text, true);
}

/* Whoever has set limits that hardly outlast a rekey at the rate of now is told so, once. */
static void note_haste(struct child *c)
{
    const struct policy *policy = child_policy(c);
    struct policy_run *p = policy ? run_policy(c->sa->run, policy) : NULL;
    ns_t age = c->sa->e->now - c->established;
    if (!p || p->hasty || age >= HASTY_BEFORE)
        return;
    p->hasty = true;
    report(
        c->sa->e, IKE_EVENT_NOTICE, sa_peer(c->sa), policy, &c->sa->path,
        "traffic so fast uses up bytes or packets of policy \"%s\" too soon: it asks for fresh keys after %u ms, and "
        "packets are dropped whenever those are late",
        policy->name, (unsigned)(age / NS_PER_MS));
}

void ike_child_soft(struct ike_engine *e, uint64_t child, ns_t now)
{
    e->now = now;
    struct child *c = child_find(e, child);
    if (c && c->state == CHILD_LIVE) {
        note_haste(c);
        (void)child_rekey(c);
    }
    engine_leave(e);
}

void ike_child_hard(struct ike_engine *e, uint64_t child, ns_t now)
{
    e->now = now;
    struct child *c = child_find(e, child);
    if (c && c->state != CHILD_DELETING)
        child_expired(c);
    engine_leave(e);
}

void ike_child_moved(struct ike_engine *e, uint64_t child, const struct endpoint *remote, ns_t now)
{
    e->now = now;
    struct child *c = child_find(e, child);
    if (c && c->installed && c->sa->state == SA_UP) {
        struct path path = child_path(c->sa, PROTOCOL_ESP); /* IKE itself may have stayed on port 500 */
        path.remote = *remote;
        sa_follow(c->sa, &path, true);
    }
    engine_leave(e);
}
