/* What status shows. */
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

void ike_each_sa(const struct ike_engine *e, void (*fn)(void *ctx, const struct ike_sa_info *), void *ctx)
{
    for (const struct ike_sa *sa = e->sas; sa; sa = sa->next) {
        struct ike_sa_info info = {
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
        choice_proposal(&sa->choice, &info.suite);
        for (const struct child *c = sa->children; c; c = c->next)
            info.children += c->state != CHILD_DELETING;
        fn(ctx, &info);
    }
}

void ike_each_child(const struct ike_engine *e, void (*fn)(void *ctx, const struct ike_child_info *), void *ctx)
{
    for (const struct ike_sa *sa = e->sas; sa; sa = sa->next)
        for (const struct child *c = sa->children; c; c = c->next) {
            struct ike_child_info info = {
                .id = c->id,
                .ike_spi_i = sa->spi_i,
                .policy = c->policy,
                .spi_in = c->spi_in,
                .spi_out = c->spi_out,
                .suite = c->suite,
                .esn = c->esn,
                .local = c->local,
                .remote = c->remote,
                .mode = c->mode,
                .established = c->established,
                .rekey_at = c->soft_at,
                .rekeying = c->state == CHILD_DOOMED || task_waits(sa, TASK_CHILD_REKEY, c->id, NULL),
            };
            if (c->state != CHILD_DELETING)
                fn(ctx, &info);
        }
}
