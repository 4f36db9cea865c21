/* What is wanted of each peer: starting, restarting with back-off, and the commands that wait for an outcome. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

#define BACKOFF_MAX (60 * NS_PER_S)
#define COMMAND_TIME (180 * NS_PER_S) /* three exchanges without an answer take no longer */
#define NO_MEMORY "out of memory"

static void retry_fire(struct timer *t, void *ctx, ns_t now)
{
    (void)ctx;
    (void)now;
    run_kick(CONTAINER_OF(t, struct run, retry));
}

/* -- which policies are whose: sorted once, for all peers of a configuration -- */

static int by_peer(const void *a, const void *b)
{
    const struct owned_policy *x = a, *y = b;
    if (x->peer != y->peer)
        return (uintptr_t)x->peer < (uintptr_t)y->peer ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

enum err policies_sort(const struct config *config, struct owned_policies *out)
{
    *out = (struct owned_policies){.v = calloc(config->policy_count + 1, sizeof *out->v)};
    if (!out->v)
        return ERR_NOMEM;
    for (unsigned i = 0; i < config->policy_count; i++) {
        const struct policy *p = config->policies[i];
        if (p->action == ACTION_PROTECT)
            out->v[out->n++] = (struct owned_policy){.peer = p->peer, .place = i, .policy = p};
    }
    qsort(out->v, out->n, sizeof *out->v, by_peer);
    return OK;
}

const struct owned_policy *policies_of(const struct owned_policies *all, const struct peer *peer, unsigned *n)
{
    unsigned low = 0, high = all->n;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if ((uintptr_t)all->v[middle].peer < (uintptr_t)peer)
            low = middle + 1;
        else
            high = middle;
    }
    *n = 0;
    while (low + *n < all->n && all->v[low + *n].peer == peer)
        ++*n;
    return all->v + low;
}

enum err run_policies(const struct owned_policies *all, const struct peer *peer, struct policy_run **out, unsigned *n)
{
    const struct owned_policy *mine = policies_of(all, peer, n);
    *out = calloc(*n ? *n : 1, sizeof **out);
    if (!*out)
        return ERR_NOMEM;
    for (unsigned i = 0; i < *n; i++)
        (*out)[i].policy = mine[i].policy;
    return OK;
}

enum err run_new(struct ike_engine *e, const struct owned_policies *all, const struct peer *peer, struct run **out)
{
    struct run *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->e = e;
    r->peer = peer;
    candidates_init(r);
    enum err err = run_policies(all, peer, &r->policies, &r->policy_count);
    if (err == OK)
        err = timer_add(&e->timers, &r->retry, retry_fire);
    if (err == OK && (err = timer_add(&e->timers, &r->patience, patience_fire)) != OK)
        timer_drop(&e->timers, &r->retry);
    if (err != OK) {
        free(r->policies);
        free(r);
        return err;
    }
    *out = r;
    return OK;
}

void run_free(struct run *r)
{
    if (!r)
        return;
    pace_forget(r);
    choose_remove(r, 0);
    choose_remove(r, 1);
    timer_drop(&r->e->timers, &r->retry);
    timer_drop(&r->e->timers, &r->patience);
    candidates_free(r);
    free(r->next.policies);
    free(r->policies);
    free(r);
}

enum err runs_load(struct ike_engine *e, const struct config *config)
{
    struct owned_policies all;
    e->runs = calloc(config->peer_count ? config->peer_count : 1, sizeof(struct run *));
    if (!e->runs)
        return ERR_NOMEM;
    enum err err = policies_sort(config, &all);
    while (err == OK && e->run_count < config->peer_count) {
        err = run_new(e, &all, config->peers[e->run_count], &e->runs[e->run_count]);
        e->run_count += err == OK;
    }
    free(all.v);
    for (unsigned i = e->run_count; err == OK && i-- > 0;)
        err = choose_add(e->runs[i], e->roll, e->runs[i]->peer);
    return err;
}

struct run *run_of(const struct ike_engine *e, const struct peer *peer)
{
    struct run *r = peer->number < e->run_count ? e->runs[peer->number] : NULL;
    if (!r || e->config->peers[peer->number] != peer)
        return NULL;
    run_settle(r);
    return r;
}

struct policy_run *run_policy(const struct run *r, const struct policy *policy)
{
    for (unsigned i = 0; i < r->policy_count; i++)
        if (r->policies[i].policy == policy)
            return &r->policies[i];
    return NULL;
}

bool run_needs(const struct run *r, const struct policy_run *p)
{
    bool kept = r->e->started && r->peer->start == START_YES && !r->held && !p->held;
    return !r->e->stopping && (kept || p->once) && !child_live(r->e, p->policy);
}

/* The SA on which Child SAs are to be made, or NULL. */
static struct ike_sa *usable(const struct run *r)
{
    for (struct ike_sa *sa = r->sas; sa; sa = sa->run_next)
        if (sa->state == SA_UP && !sa->undecided_of && !sa->redundant && !sa->yields_to)
            return sa;
    return NULL;
}

/* Something that will bring up this policy, or try, is under way. */
static bool under_way(const struct run *r, const struct policy *policy)
{
    for (const struct ike_sa *sa = r->sas; sa; sa = sa->run_next)
        if ((sa_connecting(sa) && !sa->redundant) || sa->undecided_of ||
            (sa->state == SA_UP && task_waits(sa, TASK_CHILD_NEW, 0, policy)))
            return true;
    return false;
}

void run_kick(struct run *r)
{
    struct ike_engine *e = r->e;
    ns_t next = NS_NEVER;
    if (run_leaves(r))
        return;
    for (unsigned i = 0; i < r->policy_count; i++) {
        struct policy_run *p = &r->policies[i];
        if (!run_needs(r, p) || under_way(r, p->policy))
            continue;
        if (p->not_before > e->now) {
            next = p->not_before < next ? p->not_before : next;
            continue;
        }
        struct ike_sa *sa = usable(r);
        if (!sa && !p->once && !pace_admits(r))
            break;
        if (!sa) {
            if (!candidates_wait(r))
                sa_init_start(r, p->policy, NULL);
            continue;
        }
        struct task *t = task_new(TASK_CHILD_NEW);
        if (!t) {
            run_failed(r, p->policy, NO_MEMORY);
            continue;
        }
        t->policy = p->policy;
        task_queue(sa, t, false);
    }
    if (next != NS_NEVER)
        timer_set(&e->timers, &r->retry, next);
}

void run_later(struct run *r, ns_t in)
{
    ns_t at = r->e->now + in;
    if (!timer_is_set(&r->retry) || r->retry.at > at)
        timer_set(&r->e->timers, &r->retry, at);
}

void run_note(struct run *r, const char *text, bool sure)
{
    if (!sure && ((r->error[0] && r->error_sure) || child_any(r)))
        return;
    snprintf(r->error, sizeof r->error, "%s", text);
    r->error_at = r->e->now;
    r->error_sure = sure;
}

void run_failed(struct run *r, const struct policy *policy, const char *text)
{
    struct ike_engine *e = r->e;
    run_note(r, text, true);
    bool more = r->more; /* addresses to try: it has not failed yet */
    r->more = false;
    ns_t wait = more ? NS_PER_S : NS_PER_S << (r->failures < 6 ? r->failures : 6);
    wait = wait < BACKOFF_MAX ? wait : BACKOFF_MAX;
    wait += random_below(e, wait / 4 + 1);
    r->failures += !more;
    bool again = false;
    for (unsigned i = 0; i < r->policy_count; i++) {
        struct policy_run *p = &r->policies[i];
        if (policy && p->policy != policy)
            continue;
        p->once = p->once && more;
        p->packet = p->packet && more;
        p->not_before = e->now + wait;
        again |= run_needs(r, p);
    }
    if (!more)
        commands_end(e, COMMAND_UP, r, policy, false, text);
    if (again)
        run_later(r, wait);
}

void run_reached(struct run *r)
{
    for (unsigned i = 0; i < r->policy_count; i++)
        r->policies[i].not_before = 0;
}

void run_well(struct run *r, const struct policy *policy)
{
    struct policy_run *p = run_policy(r, policy);
    r->failures = 0;
    r->error[0] = 0;
    candidates_restart(r);
    if (p) {
        p->once = false;
        p->packet = false;
        p->not_before = 0;
    }
}

/* -- commands -- */

static void end_command(struct ike_engine *e, struct command **at, bool ok, const char *text)
{
    struct command *c = *at;
    struct ike_event event = {.kind = ok ? IKE_EVENT_NOTICE : IKE_EVENT_FAILED,
                              .peer = c->run ? c->run->peer : NULL,
                              .policy = c->policy,
                              .text = text,
                              .command = c->id,
                              .command_ok = ok};
    *at = c->next;
    timer_drop(&e->timers, &c->deadline);
    free(c);
    e->env.event(e->env.ctx, &event);
}

static void deadline_fire(struct timer *t, void *ctx, ns_t now)
{
    struct ike_engine *e = ctx;
    (void)now;
    for (struct command **p = &e->commands; *p; p = &(*p)->next)
        if (&(*p)->deadline == t) {
            end_command(e, p, false, "it has come to nothing within three minutes");
            return;
        }
}

void commands_free(struct ike_engine *e)
{
    while (e->commands) {
        struct command *c = e->commands;
        e->commands = c->next;
        timer_drop(&e->timers, &c->deadline);
        free(c);
    }
}

static void instant(struct ike_engine *e, uint64_t id, const struct peer *peer, const struct policy *policy,
                    const char *text)
{
    struct ike_event event = {
        .kind = IKE_EVENT_FAILED, .peer = peer, .policy = policy, .text = text, .command = id, .command_ok = false};
    if (id)
        e->env.event(e->env.ctx, &event);
}

void commands_end(struct ike_engine *e, enum command_kind kind, const struct run *r, const struct policy *policy,
                  bool ok, const char *text)
{
    for (struct command **p = &e->commands; *p;) {
        const struct command *c = *p;
        bool concerned = c->policy == policy || (!ok && (!policy || kind == COMMAND_UP) && (!policy || !c->policy));
        if (c->kind == kind && c->run == r && concerned)
            end_command(e, p, ok, text);
        else
            p = &(*p)->next;
    }
}

void commands_move(struct ike_engine *e,
                   const struct policy *(*mapped)(const struct ike_change *, const struct policy *))
{
    for (struct command **p = &e->commands; *p;) {
        struct command *c = *p;
        bool left = run_leaves(c->run);
        if (!left)
            run_settle(c->run);
        const struct policy *policy = left ? NULL : mapped(e->change, c->policy);
        left = left || (c->policy && !policy);
        c->policy = policy;
        c->run = left ? NULL : c->run;
        if (left)
            end_command(e, p, c->kind == COMMAND_DOWN, "the configuration was changed meanwhile");
        else
            p = &c->next;
    }
}

void commands_resume(struct ike_engine *e)
{
    for (const struct command *c = e->commands; c; c = c->next)
        for (unsigned i = 0; c->kind == COMMAND_UP && i < c->run->policy_count; i++)
            if (!c->policy || c->policy == c->run->policies[i].policy)
                c->run->policies[i].once = !child_live(e, c->run->policies[i].policy);
}

bool commands_await(const struct run *r)
{
    for (const struct command *c = r->e->commands; c; c = c->next)
        if (c->kind == COMMAND_UP && c->run == r)
            return true;
    return false;
}

/* At both ends: who waits for it will use it at once. */
static bool all_up(const struct command *c)
{
    for (unsigned i = 0; i < c->run->policy_count; i++) {
        const struct policy *p = c->run->policies[i].policy;
        const struct child *live = child_live(c->run->e, p);
        if ((!c->policy || c->policy == p) && (!live || live->sa->unproven))
            return false;
    }
    return true;
}

static bool all_down(const struct command *c)
{
    for (const struct ike_sa *sa = c->run->sas; sa; sa = sa->run_next) {
        if (sa->created > c->at) /* the peer may have called again meanwhile */
            continue;
        if (!c->policy && sa->state != SA_REPLACED)
            return false;
        for (const struct child *ch = sa->children; ch; ch = ch->next)
            if ((!c->policy || child_policy(ch) == c->policy) && ch->established <= c->at)
                return false;
    }
    return true;
}

/* The peer's own rekey of it is being answered. */
static bool peer_rekeys(const struct ike_sa *sa, const struct policy *policy)
{
    const struct pending *p = sa->pending;
    return p && (policy ? p->rekeyed && p->terms.policy == policy : p->ike);
}

/* Nothing is under way any more that could make this command come true; what made it true has said so before. */
static bool rekey_vain(const struct command *c)
{
    enum task_kind kind = c->policy ? TASK_CHILD_REKEY : TASK_IKE_REKEY;
    for (const struct ike_sa *sa = c->run->sas; sa; sa = sa->run_next)
        if ((task_waits(sa, kind, 0, c->policy) || peer_rekeys(sa, c->policy)))
            return false;
    return true;
}

void commands_check(struct ike_engine *e)
{
    for (struct command **p = &e->commands; *p;) {
        const struct command *c = *p;
        if (c->kind == COMMAND_UP && all_up(c))
            end_command(e, p, true, "up");
        else if (c->kind == COMMAND_DOWN && all_down(c))
            end_command(e, p, true, "down");
        else if (c->kind == COMMAND_REKEY && rekey_vain(c))
            end_command(e, p, false, "the SA to be rekeyed is gone");
        else
            p = &(*p)->next;
    }
}

/* The run of a peer, with everything a command needs; NULL: the command has failed and said so. */
static struct run *command_begin(struct ike_engine *e, enum command_kind kind, const struct peer *peer,
                                 const struct policy *policy, uint64_t id)
{
    struct run *r = run_of(e, peer);
    const char *why = e->stopping                                  ? STOPPING
                      : !r                                         ? "no such peer"
                      : policy && !run_policy(r, policy)           ? "the peer has no such policy"
                      : r->policy_count == 0 && kind == COMMAND_UP ? "the peer has no policy (local and remote)"
                                                                   : NULL;
    struct command *c = why || !id ? NULL : calloc(1, sizeof *c);
    if (!why && id && (!c || timer_add(&e->timers, &c->deadline, deadline_fire) != OK))
        why = NO_MEMORY;
    if (why) {
        free(c);
        instant(e, id, peer, policy, why);
        return NULL;
    }
    if (c) {
        c->next = e->commands;
        c->id = id;
        c->kind = kind;
        c->run = r;
        c->policy = policy;
        c->at = e->now;
        e->commands = c;
        timer_set(&e->timers, &c->deadline, e->now + COMMAND_TIME);
    }
    return r;
}

void ike_up(struct ike_engine *e, const struct peer *peer, const struct policy *policy, uint64_t command, ns_t now)
{
    e->now = now;
    struct run *r = command_begin(e, COMMAND_UP, peer, policy, command);
    if (!r)
        return;
    r->held = false;
    for (unsigned i = 0; i < r->policy_count; i++) {
        struct policy_run *p = &r->policies[i];
        if (policy && p->policy != policy)
            continue;
        const struct child *live = child_live(e, p->policy);
        p->held = false;
        p->once = !live;
        p->not_before = 0;
        if (live && live->sa->unproven)
            liveness_queue(live->sa);
    }
    run_kick(r);
    engine_leave(e);
}

static void down_all(struct run *r)
{
    r->held = true;
    timer_cancel(&r->e->timers, &r->retry);
    for (unsigned i = 0; i < r->policy_count; i++)
        r->policies[i].once = false;
    commands_end(r->e, COMMAND_UP, r, NULL, false, "it was taken down");
    for (struct ike_sa *sa = r->sas, *next; sa; sa = next) {
        next = sa->run_next;
        if (sa->state != SA_DELETING && sa->state != SA_REPLACED)
            sa_delete(sa, false);
        else
            sa->restart = false;
    }
}

/* What waits for an answer can't be called back: it is deleted as soon as it is there. */
static void call_off(struct ike_sa *sa, const struct policy *policy)
{
    if (sa->current && sa->current->policy == policy)
        sa->current->unwanted = true;
    for (struct task *t = sa->queue; t; t = t->next)
        if (t->policy == policy)
            t->unwanted = true;
}

static void down_policy(struct run *r, struct policy_run *p)
{
    p->held = true;
    p->once = false;
    commands_end(r->e, COMMAND_UP, r, p->policy, false, "it was taken down");
    for (struct ike_sa *sa = r->sas, *next_sa; sa; sa = next_sa) {
        next_sa = sa->run_next;
        call_off(sa, p->policy);
        for (struct child *c = sa->children, *next; c && sa->state != SA_DEAD; c = next) {
            next = c->next;
            if (child_policy(c) != p->policy || c->state == CHILD_DELETING)
                continue;
            if (c->state == CHILD_LIVE)
                child_report(c, IKE_EVENT_CHILD_DOWN, "down: taken down by hand");
            child_delete(c, true);
        }
    }
}

void ike_down(struct ike_engine *e, const struct peer *peer, const struct policy *policy, uint64_t command, ns_t now)
{
    e->now = now;
    struct run *r = command_begin(e, COMMAND_DOWN, peer, policy, command);
    if (!r)
        return;
    if (policy)
        down_policy(r, run_policy(r, policy));
    else
        down_all(r);
    engine_leave(e);
}

void ike_rekey(struct ike_engine *e, const struct peer *peer, const struct policy *policy, uint64_t command, ns_t now)
{
    e->now = now;
    struct run *r = command_begin(e, COMMAND_REKEY, peer, policy, command);
    if (!r)
        return;
    struct child *c = policy ? child_live(e, policy) : NULL;
    struct ike_sa *sa = policy ? NULL : usable(r);
    const char *why = NULL;
    if (policy)
        why = !c ? "it has no Child SA" : child_rekey(c) ? NULL : NO_MEMORY;
    else
        why = !sa ? "there is no IKE SA" : sa_rekey(sa) ? NULL : NO_MEMORY;
    if (why)
        commands_end(e, COMMAND_REKEY, r, policy, false, why);
    engine_leave(e);
}

bool ike_start_some(struct ike_engine *e, unsigned *at, unsigned n, ns_t now)
{
    e->now = now;
    e->started = true;
    for (; n && *at < e->run_count; n--, ++*at) {
        candidates_start(e->runs[*at]);
        run_kick(e->runs[*at]);
    }
    engine_leave(e);
    return *at >= e->run_count;
}

void ike_start(struct ike_engine *e, ns_t now)
{
    unsigned at = 0;
    (void)ike_start_some(e, &at, UINT_MAX, now);
}

void ike_acquire(struct ike_engine *e, const struct policy *policy, const struct flow *packet, ns_t now)
{
    e->now = now;
    struct run *r = policy->peer ? run_of(e, policy->peer) : NULL;
    struct policy_run *p = r ? run_policy(r, policy) : NULL;
    if (!p || r->held || p->held || r->peer->start == START_NO || p->not_before > now || child_live(e, policy))
        return;
    p->once = true;
    if (packet)
        selectors_of_packet(p, packet);
    run_kick(r);
    engine_leave(e);
}

void ike_local_hint(struct ike_engine *e, const struct peer *peer, const struct endpoint *local)
{
    struct run *r = run_of(e, peer);
    if (!r)
        return;
    r->hint = *local;
    /* An attempt that is out already goes on from where we are now. */
    for (struct ike_sa *sa = r->sas; sa; sa = sa->run_next)
        if (sa->state == SA_CONNECTING && sa->path.remote.ip.family == local->ip.family)
            sa->path.local.ip = local->ip;
}

const char *ike_last_error(const struct ike_engine *e, const struct peer *peer, ns_t *when)
{
    const struct run *r = run_of(e, peer);
    if (when)
        *when = r && r->error[0] ? r->error_at : 0;
    return r ? r->error : "";
}
