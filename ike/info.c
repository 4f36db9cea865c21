/* What status shows. */
#include <stdlib.h>

#include "ike/internal.h"

static enum ike_state public_state(const struct ike_sa *sa)
{
    switch (sa->state) {
    case SA_UP:
        return sa->current && sa->current->kind == TASK_IKE_REKEY ? IKE_REKEYING : IKE_ESTABLISHED;
    case SA_REPLACED:
    case SA_DELETING:
    case SA_FAILED:
        return IKE_DELETING;
    default:
        return IKE_CONNECTING;
    }
}

struct ike_counts ike_count(const struct ike_engine *e)
{
    return (struct ike_counts){
        .half_open = e->half_open, .ike_sas = e->table.by_spi.count, .child_sas = e->children.count};
}

/* -- one of them -- */

static void describe_sa(const struct ike_sa *sa, struct ike_sa_info *out)
{
    *out = (struct ike_sa_info){
        .spi_i = sa->spi_i,
        .spi_r = sa->spi_r,
        .initiator = sa->initiator,
        .state = public_state(sa),
        .peer = sa_peer(sa),
        .local_id = sa->local_id,
        .remote_id = sa->remote_id,
        .auth_local = sa->auth_local,
        .auth_remote = sa->auth_remote,
        .path = sa->path,
        .nat_local = sa->nat_local,
        .nat_remote = sa->nat_remote,
        .fragmentation = sa->fragmentation,
        .mobike = sa->mobike.on,
        .established = sa->established,
        .rekey_at = sa->rekey_at,
        .reauth_at = sa->reauth_at,
        .ppk = sa->ppk,
        .childless = sa->childless,
        .took = sa->established - (sa->established ? sa->created : 0),
    };
    choice_proposal(&sa->choice, &out->suite);
    for (const struct child *c = sa->children; c; c = c->next)
        out->children += c->state != CHILD_DELETING;
}

static void describe_child(const struct child *c, struct ike_child_info *out)
{
    *out = (struct ike_child_info){
        .id = c->id,
        .ike_spi_i = c->sa->spi_i,
        .policy = child_policy(c),
        .spi_in = c->spi_in,
        .spi_out = c->spi_out,
        .protocol = c->protocol,
        .suite = c->suite,
        .esn = c->esn,
        .local = c->local,
        .remote = c->remote,
        .mode = c->mode,
        .established = c->established,
        .rekey_at = c->soft_at,
        .rekeying = c->state == CHILD_DOOMED || task_waits(c->sa, TASK_CHILD_REKEY, c->id, NULL),
    };
}

/* -- all of them -- */

void ike_each_sa(const struct ike_engine *e, void (*fn)(void *ctx, const struct ike_sa_info *), void *ctx)
{
    for (const struct ike_sa *sa = e->sas; sa; sa = sa->next) {
        struct ike_sa_info info;
        describe_sa(sa, &info);
        fn(ctx, &info);
    }
}

void ike_each_child(const struct ike_engine *e, void (*fn)(void *ctx, const struct ike_child_info *), void *ctx)
{
    for (const struct ike_sa *sa = e->sas; sa; sa = sa->next)
        for (const struct child *c = sa->children; c; c = c->next) {
            struct ike_child_info info;
            describe_child(c, &info);
            if (c->state != CHILD_DELETING)
                fn(ctx, &info);
        }
}

/* -- one after the other, while they come and go -- */

struct ike_walk {
    struct ike_engine *e; /* NULL: gone */
    struct ike_walk *next, **at;
    struct ike_sa *sa;   /* the next one */
    struct child *child; /* the next one of the SA before that */
};

enum err ike_walk_new(struct ike_engine *e, struct ike_walk **out)
{
    struct ike_walk *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NOMEM;
    *w = (struct ike_walk){.e = e, .next = e->walks, .at = &e->walks};
    if (w->next)
        w->next->at = &w->next;
    e->walks = w;
    *out = w;
    return OK;
}

void ike_walk_free(struct ike_walk *w)
{
    if (w && w->e) {
        *w->at = w->next;
        if (w->next)
            w->next->at = w->at;
    }
    free(w);
}

void walks_end(struct ike_engine *e)
{
    for (struct ike_walk *w = e->walks; w; w = w->next)
        *w = (struct ike_walk){.next = w->next};
    e->walks = NULL;
}

/* The list of a run has the newest first, so that what comes during a walk from its end is still seen. */
static struct ike_sa *newer(const struct ike_sa *sa)
{
    return sa->run_at == &sa->run->sas ? NULL : CONTAINER_OF(sa->run_at, struct ike_sa, run_next);
}

void walks_leave_sa(struct ike_sa *sa)
{
    for (struct ike_walk *w = sa->e->walks; w; w = w->next)
        if (w->sa == sa)
            w->sa = newer(sa);
}

void walks_leave_child(struct child *c)
{
    for (struct ike_walk *w = c->sa->e->walks; w; w = w->next)
        if (w->child == c)
            w->child = c->next;
}

void ike_walk_peer(struct ike_walk *w, const struct peer *peer)
{
    const struct run *r = w->e ? run_of(w->e, peer) : NULL;
    w->child = NULL;
    w->sa = r ? r->sas : NULL;
    while (w->sa && w->sa->run_next)
        w->sa = w->sa->run_next;
}

bool ike_walk_sa(struct ike_walk *w, struct ike_sa_info *out)
{
    if (!w->sa)
        return false;
    describe_sa(w->sa, out);
    w->child = w->sa->children;
    w->sa = newer(w->sa);
    return true;
}

bool ike_walk_child(struct ike_walk *w, struct ike_child_info *out)
{
    while (w->child && w->child->state == CHILD_DELETING)
        w->child = w->child->next;
    if (!w->child)
        return false;
    describe_child(w->child, out);
    w->child = w->child->next;
    return true;
}
