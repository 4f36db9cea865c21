#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

const char *sa_silence(const struct ike_sa *sa, char *text, size_t size)
{
    char at[ENDPOINT_TEXT];
    if (sa->path.local.ip.family)
        snprintf(text, size, "does it run, and is UDP port %u open on the way?", sa->path.remote.port);
    else
        snprintf(text, size, "this host has no route to %s", ip_format(&sa->path.remote.ip, at));
    return text;
}

/* Said once while nobody answers, as that takes a minute to be an error; silence has no other reason to give. */
static void tell_of_silence(struct ike_sa *sa)
{
    char at[ENDPOINT_TEXT], why[SILENCE_TEXT], text[TEXT_MAX];
    bool connecting = sa->state == SA_CONNECTING || sa->state == SA_AUTH_SENT;
    if (!connecting || sa->tx.tries != SILENCE_TRIES || !sa->run || sa->run->failures || sa->noted)
        return;
    snprintf(text, sizeof text, "%s at %s has not answered yet: %s", sa_peer_name(sa),
             endpoint_format(&sa->path.remote, at), sa_silence(sa, why, sizeof why));
    report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path, "%s", text);
    run_note(sa->run, text, false);
}

static void retransmit_fire(struct timer *t, void *ctx, ns_t now)
{
    (void)ctx;
    (void)now;
    struct ike_sa *sa = CONTAINER_OF(t, struct ike_sa, retransmit);
    if (!sa->tx.pending)
        return;
    /* With another address at hand, the first one does not get a minute (RFC 7296 section 2.4 leaves it to us). */
    bool others = sa->state == SA_CONNECTING && sa->run && sa->run->candidate_count > 1;
    if (sa->tx.tries >= (others ? RETRANSMIT_TRIES_LIST : mobike_patience(sa))) {
        request_expired(sa);
        return;
    }
    sa->tx.tries++;
    pace_end(sa);
    stat_add(sa->e->env.stats, STAT_IKE_RETRANSMITS, 1);
    if (!others)
        tell_of_silence(sa);
    request_transmit(sa);
}

bool sa_rekey(struct ike_sa *sa)
{
    if (task_waits(sa, TASK_IKE_REKEY, 0, NULL))
        return true;
    struct task *t = task_new(TASK_IKE_REKEY);
    if (t)
        task_queue(sa, t, false);
    return t;
}

static bool passed(ns_t at, ns_t now)
{
    return at && now >= at;
}

static void life_fire(struct timer *t, void *ctx, ns_t now)
{
    (void)ctx;
    struct ike_sa *sa = CONTAINER_OF(t, struct ike_sa, life);
    if (sa->state == SA_RESPONDING || sa->state == SA_HALF_OPEN || sa->state == SA_FAILED) {
        sa_kill(sa);
    } else if (sa->state == SA_REPLACED) { /* who had to delete it did not */
        sa_delete(sa, false);
    } else if (sa->state == SA_UP && passed(sa->leave_at, now)) {
        sa_delete(sa, true); /* it may have had Child SAs that the other does not */
    } else if (sa->state == SA_UP && (passed(sa->hard_at, now) || passed(sa->reauth_end, now))) {
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path, "IKE SA with %s reached the end of its life",
               sa_peer_name(sa));
        sa_delete(sa, true);
    } else if (sa->state == SA_UP) {
        bool rekey = passed(sa->rekey_at, now);
        if (passed(sa->reauth_at, now))
            reauth_due(sa);
        sa_arm(sa);
        if (rekey && !reauth_merge(sa))
            (void)sa_rekey(sa); /* if it can't, the hard limit stands */
    }
}

static void wake_fire(struct timer *t, void *ctx, ns_t now)
{
    (void)ctx;
    (void)now;
    task_next(CONTAINER_OF(t, struct ike_sa, wake));
}

static void grace_fire(struct timer *t, void *ctx, ns_t now)
{
    (void)ctx;
    (void)now;
    struct ike_sa *sa = CONTAINER_OF(t, struct ike_sa, grace);
    if (sa->state == SA_CONNECTING)
        sa_init_expired(sa);
}

uint64_t sa_spi_make(struct ike_engine *e)
{
    uint64_t spi;
    do
        random_fill(&e->env.random, &spi, sizeof spi);
    while (spi == 0 || table_find(&e->table, spi));
    return spi;
}

static bool add_timers(struct ike_sa *sa)
{
    struct timer_heap *h = &sa->e->timers;
    if (timer_add(h, &sa->retransmit, retransmit_fire) != OK)
        return false;
    if (timer_add(h, &sa->life, life_fire) != OK) {
        timer_drop(h, &sa->retransmit);
        return false;
    }
    if (timer_add(h, &sa->poll, poll_fire) != OK)
        goto drop_two;
    if (timer_add(h, &sa->wake, wake_fire) != OK)
        goto drop_three;
    if (timer_add(h, &sa->grace, grace_fire) == OK)
        return true;
    timer_drop(h, &sa->wake);
drop_three:
    timer_drop(h, &sa->poll);
drop_two:
    timer_drop(h, &sa->life);
    timer_drop(h, &sa->retransmit);
    return false;
}

struct ike_sa *ike_sa_new(struct ike_engine *e, bool initiator, uint64_t own_spi)
{
    struct ike_sa *sa = calloc(1, sizeof *sa);
    if (!sa)
        return NULL;
    sa->e = e;
    sa->initiator = initiator;
    sa->keys = secret_alloc(sizeof *sa->keys);
    if (!sa->keys || !add_timers(sa)) {
        secret_free(sa->keys);
        free(sa);
        return NULL;
    }
    if (initiator)
        sa->spi_i = own_spi;
    else
        sa->spi_r = own_spi;
    sa->created = sa->last_in = e->now;
    sa->rx.window = 1;
    sa->prev = e->sas_last;
    if (e->sas_last)
        e->sas_last->next = sa;
    else
        e->sas = sa;
    e->sas_last = sa;
    table_add(&e->table, sa);
    return sa;
}

static void not_half_open(struct ike_sa *sa)
{
    if (sa->halfway) {
        sa->halfway = false;
        sa->e->half_open--;
        table_not_half_open(&sa->e->table, sa);
    }
}

void sa_refused(struct ike_sa *sa)
{
    sa->state = SA_FAILED;
    timer_set(&sa->e->timers, &sa->life, sa->e->now + LINGER);
}

bool sa_same_peer(const struct ike_sa *a, const struct ike_sa *b)
{
    return a->run == b->run && (a->remote_id.type == ID_NONE || identity_equal(&a->remote_id, &b->remote_id));
}

void sa_crowd_out(const struct ike_sa *newest)
{
    unsigned n = 0;
    for (struct ike_sa *sa = table_same_peer(&newest->e->table, newest), *next; sa; sa = next) {
        next = table_same_peer_next(sa, newest);
        if (sa == newest || ++n < PEER_SAS_MAX)
            continue;
        if (sa->state != SA_DELETING) {
            report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path,
                   "%s has more than %d IKE SAs with us: the oldest is deleted", sa_peer_name(sa), PEER_SAS_MAX);
            sa_delete(sa, false);
        } else if (n >= 2 * PEER_SAS_MAX) { /* it does not even answer Deletes */
            sa_kill(sa);
        }
    }
}

bool sa_superseded(const struct ike_sa *sa)
{
    const struct sa_table *t = &sa->e->table;
    for (const struct ike_sa *o = table_same_peer(t, sa); o && o != sa; o = table_same_peer_next(o, sa))
        if (o->state == SA_UP)
            return true;
    return false;
}

void sa_replaced(struct ike_sa *sa)
{
    struct run *run = sa->run;
    report(sa->e, IKE_EVENT_IKE_DOWN, sa_peer(sa), NULL, &sa->path,
           "an old IKE SA with %s is gone: the peer says that it has started anew", sa_peer_name(sa));
    commands_end(sa->e, COMMAND_REKEY, run, NULL, false, "the peer has started anew");
    sa_kill(sa);
}

void sa_proven(struct ike_sa *sa)
{
    sa->unproven = false;
    for (struct child *c = sa->children; c; c = c->next)
        if (c->activate_at && !c->activated && c->state == CHILD_LIVE && !sa->yields_to)
            child_activate(c);
    for (struct ike_sa *o = table_same_peer(&sa->e->table, sa), *next; o; o = next) {
        next = table_same_peer_next(o, sa);
        if (o->yields_to == sa && o->state == SA_UP)
            sa_leave(o);
    }
}

void sa_leave(struct ike_sa *sa)
{
    if (sa->leave_at || sa->state != SA_UP)
        return;
    for (const struct child *c = sa->children; c; c = c->next) {
        struct child *heir = c->sending ? child_on(sa->yields_to, child_policy(c)) : NULL;
        if (heir)
            child_activate(heir);
    }
    sa->successor = true; /* nothing is lost with it */
    sa->leave_at = sa->e->now + LEAVE_AFTER;
    sa_arm(sa);
}

static void unyield(struct ike_sa *sa, const struct ike_sa *gone)
{
    if (sa->yields_to != gone)
        return;
    sa->yields_to = NULL;
    if (!sa->leave_at || sa->state != SA_UP)
        return;
    sa->leave_at = 0;
    sa->successor = false;
    if (passed(sa->rekey_at, sa->e->now)) /* it was not looked at meanwhile */
        sa->rekey_at = sa->e->now + 1;
    sa_arm(sa);
}

void sa_unrelate(struct ike_sa *gone)
{
    for (struct ike_sa *sa = table_same_peer(&gone->e->table, gone); sa; sa = table_same_peer_next(sa, gone)) {
        if (sa->undecided_of == gone)
            sa->undecided_of = NULL;
        if (sa->current && sa->current->collision.sa == gone)
            sa->current->collision.sa = NULL;
        unyield(sa, gone);
    }
    /* An attempt of ours knows no identity yet; towards clients of any address there is none. */
    const struct run *run = gone->run && !gone->run->peer->endpoint_any ? gone->run : NULL;
    for (struct ike_sa *sa = run ? run->sas : NULL; sa; sa = sa->run_next) {
        if (sa->renews == gone)
            sa->renews = NULL;
        unyield(sa, gone);
    }
}

void sa_enlist(struct ike_sa *sa)
{
    sa_unlist(sa);
    sa->run_at = &sa->run->sas;
    sa->run_next = sa->run->sas;
    if (sa->run_next)
        sa->run_next->run_at = &sa->run_next;
    sa->run->sas = sa;
}

void sa_unlist(struct ike_sa *sa)
{
    if (!sa->run_at)
        return;
    walks_leave_sa(sa);
    *sa->run_at = sa->run_next;
    if (sa->run_next)
        sa->run_next->run_at = sa->run_at;
    sa->run_at = NULL;
}

static void unlink_sa(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct timer *timers[] = {&sa->retransmit, &sa->life, &sa->poll, &sa->wake, &sa->grace};
    table_remove(&e->table, sa);
    sa_unlist(sa);
    pace_end(sa);
    for (unsigned i = 0; i < sizeof timers / sizeof *timers; i++)
        timer_drop(&e->timers, timers[i]);
    if (e->roaming == sa)
        e->roaming = sa->next;
    if (e->changing == sa)
        e->changing = sa->next;
    *(sa->prev ? &sa->prev->next : &e->sas) = sa->next;
    *(sa->next ? &sa->next->prev : &e->sas_last) = sa->prev;
    sa->prev = NULL;
    sa->next = e->dead;
    e->dead = sa;
}

static void kill_sa(struct ike_sa *sa, bool data_plane)
{
    struct ike_engine *e = sa->e;
    if (sa->state == SA_DEAD)
        return;
    sa->state = SA_DEAD;
    not_half_open(sa);
    jobs_detach(sa);
    while (sa->children) {
        if (!data_plane)
            sa->children->installed = false;
        child_drop(sa->children, true);
    }
    if (sa->pending && sa->pending->terms.spi_in)
        e->env.spi_release(e->env.ctx, sa->pending->terms.spi_in);
    free(sa->pending);
    sa->pending = NULL;
    sa_unrelate(sa);
    unlink_sa(sa);
    if (sa->current)
        task_free(e, sa->current);
    sa->current = NULL;
    while (sa->queue) {
        struct task *t = sa->queue;
        sa->queue = t->next;
        task_free(e, t);
    }
}

void sa_kill(struct ike_sa *sa)
{
    kill_sa(sa, true);
}

void sa_kill_quietly(struct ike_sa *sa)
{
    kill_sa(sa, false);
}

void engine_reap(struct ike_engine *e)
{
    while (e->dead_children) {
        struct child *c = e->dead_children;
        e->dead_children = c->next;
        free(c);
    }
    while (e->dead) {
        struct ike_sa *sa = e->dead;
        e->dead = sa->next;
        keyed_free(sa->seal);
        keyed_free(sa->open);
        secret_free(sa->keys);
        ppk_forget(sa);
        buf_free(&sa->first_own);
        buf_free(&sa->first_peer);
        buf_free(&sa->cookie);
        auth_release(sa);
        msgid_free(&sa->rx, &sa->tx);
        fragments_free(&sa->request_parts);
        fragments_free(&sa->response_parts);
        free(sa);
    }
}

const struct peer *sa_peer(const struct ike_sa *sa)
{
    return sa->run ? sa->run->peer : NULL;
}

const char *sa_peer_name(const struct ike_sa *sa)
{
    return sa->run ? sa->run->peer->name : "(unknown)";
}

bool sa_connecting(const struct ike_sa *sa)
{
    return sa->state == SA_CONNECTING || sa->state == SA_AUTH_SENT;
}

void sa_lost(struct ike_sa *sa, const char *fmt, ...)
{
    char text[TEXT_MAX];
    struct run *run = sa->run;
    struct ike_engine *e = sa->e;
    bool replaced = sa->state == SA_REPLACED || sa->state == SA_DELETING || sa->undecided_of || sa->yields_to;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!replaced && !sa_superseded(sa))
        report(e, IKE_EVENT_IKE_DOWN, sa_peer(sa), NULL, &sa->path, "%s", text);
    bool restart = !replaced || sa->restart;
    bool again = restart || sa->yields_to; /* what it yields to may not have all of its Child SAs */
    sa_kill(sa);
    if (run && again)
        run_later(run, NS_PER_S + random_below(e, NS_PER_S));
    if (!run || !restart)
        return;
    candidates_restart(run);
    commands_end(e, COMMAND_REKEY, run, NULL, false, text);
}

void sa_fail(struct ike_sa *sa, const char *fmt, ...)
{
    char text[TEXT_MAX];
    struct run *run = sa->run;
    struct ike_engine *e = sa->e;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    bool redundant = sa->redundant;
    struct path path = sa->path;
    sa_kill(sa);
    if (redundant || !run)
        return;
    report(e, IKE_EVENT_FAILED, run->peer, NULL, &path, "%s", text);
    candidates_next(run);
    run_failed(run, NULL, text);
}

void sa_delete(struct ike_sa *sa, bool restart)
{
    if (sa->state == SA_AUTH_SENT) { /* the peer may count it as up: wait for the answer, then delete */
        sa->redundant = true;
        return;
    }
    if (sa->state != SA_UP && sa->state != SA_REPLACED) {
        if (sa->state != SA_DELETING)
            sa_kill(sa);
        return;
    }
    struct task *t = task_new(TASK_IKE_DELETE);
    if (!t) {
        struct run *run = sa->run;
        sa_kill(sa);
        if (restart && run)
            run_later(run, 0);
        return;
    }
    sa->restart = restart;
    sa->state = SA_DELETING;
    timer_cancel(&sa->e->timers, &sa->life);
    for (struct child *c = sa->children; c; c = c->next)
        child_retire(c);
    task_queue(sa, t, true);
}

enum err sa_derive(struct ike_sa *sa, const struct ike_sa *old, const struct kex_secret *secret)
{
    TRY(choice_suite(&sa->choice, &sa->suite));
    sa->prf = sa->choice.prf.id;
    struct span ni = nonce_span(sa->initiator ? &sa->nonce_own : &sa->nonce_peer);
    struct span nr = nonce_span(sa->initiator ? &sa->nonce_peer : &sa->nonce_own);
    if (old)
        TRY(keymat_ike_rekey(sa->keys, sa->prf, &sa->suite, old->keys, ni, nr, sa->spi_i, sa->spi_r, secret));
    else
        TRY(keymat_ike(sa->keys, sa->prf, &sa->suite, ni, nr, sa->spi_i, sa->spi_r, secret));
    struct ike_keys *k = sa->keys;
    const struct secret *own[2] = {&k->ei, &k->ai}, *peer[2] = {&k->er, &k->ar};
    const struct secret **out = sa->initiator ? own : peer, **in = sa->initiator ? peer : own;
    TRY(keyed_new(&sa->seal, &sa->suite, TRANSFORM_SEAL, NULL, secret_span(out[0]), secret_span(out[1])));
    TRY(keyed_new(&sa->open, &sa->suite, TRANSFORM_OPEN, NULL, secret_span(in[0]), secret_span(in[1])));
    keylog(sa);
    return OK;
}

void sa_arm(struct ike_sa *sa)
{
    ns_t now = sa->e->now, next = NS_NEVER;
    const ns_t at[] = {sa->rekey_at > now ? sa->rekey_at : 0, sa->hard_at, sa->reauth_at, sa->reauth_end};
    for (unsigned i = 0; i < sizeof at / sizeof *at; i++)
        if (at[i] && at[i] < next)
            next = at[i];
    if (sa->leave_at) /* before that nothing else is worth an exchange */
        next = sa->leave_at;
    if (next == NS_NEVER)
        timer_cancel(&sa->e->timers, &sa->life);
    else
        timer_set(&sa->e->timers, &sa->life, next);
}

void sa_up(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    sa->state = SA_UP;
    not_half_open(sa);
    pace_end(sa);
    sa_enlist(sa);
    table_add_peer(&e->table, sa);
    buf_free(&sa->first_own);
    buf_free(&sa->first_peer);
    ppk_forget(sa);
    sa->established = sa->last_in = e->now;
    ns_t rekey = sa->run->peer->rekey;
    if (rekey) { /* 10 % of jitter, so that the ends rarely collide (section 2.8) */
        sa->rekey_at = e->now + rekey - random_below(e, rekey / 10 + 1);
        sa->hard_at = e->now + rekey + rekey / 10;
    }
    sa_arm(sa);
    poll_later(sa);
}

void sa_move_children(struct ike_sa *sa)
{
    for (struct child *c = sa->children; c; c = c->next) {
        struct path path = child_path(sa, c->protocol);
        if (c->installed)
            sa->e->env.child_move(sa->e->env.ctx, c->id, &path);
    }
}

void sa_follow(struct ike_sa *sa, const struct path *path, bool esp)
{
    /* Behind a NAT ourselves, it is ours that rewrites: the peer's address is what it is (section 2.23). */
    if (path_equal(&sa->path, path) || (sa->nat_local && sa->state != SA_HALF_OPEN))
        return;
    /* With MOBIKE the initiator decides; all that remains to be followed is ESP through its NAT (RFC 4555 section 3.8). */
    if (sa->mobike.on && (!esp || sa->mobike.decides || !sa->nat_remote))
        return;
    sa->path = *path;
    sa_move_children(sa);
}
