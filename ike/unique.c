/*
 * How many IKE SAs one identity may have with us (`unique` of a peer). All of it after authentication: before that,
 * anybody could end somebody else's SA (RFC 7296 section 2.4).
 */
#include "ike/internal.h"

/*
 * Of SAs of one identity: another, which was up before this one's first message came: not one that is being set up at
 * the same time from the other end.
 */
static bool earlier(const struct ike_sa *o, const struct ike_sa *sa)
{
    return o != sa && o->established && o->established < sa->created;
}

/*
 * The peer says that it has no other SA with us (section 2.4). Under `keep` it comes as far as here only if that is so:
 * each of two devices with one identity would say it.
 */
void unique_initial_contact(struct ike_sa *sa)
{
    for (struct ike_sa *o = table_same_peer(&sa->e->table, sa), *next; o; o = next) {
        next = table_same_peer_next(o, sa);
        if (earlier(o, sa))
            sa_replaced(o);
    }
}

bool unique_admits(struct ike_sa *sa)
{
    struct ike_sa *kept = NULL;
    for (struct ike_sa *o = table_same_peer(&sa->e->table, sa); o; o = table_same_peer_next(o, sa))
        if (o->state == SA_UP && earlier(o, sa) && !ip_equal(&o->path.remote.ip, &sa->path.remote.ip))
            kept = o; /* from one address it is the same device, which has started anew or reauthenticates */
    if (sa->run->peer->unique != UNIQUE_KEEP || !kept)
        return true;
    /* Perhaps it is only thought to be up: who does not answer makes room for the next attempt. */
    struct task *t = task_waits(kept, TASK_LIVENESS, 0, NULL) ? NULL : task_new(TASK_LIVENESS);
    if (t)
        task_queue(kept, t, false);
    return false;
}

void unique_replace(struct ike_sa *sa)
{
    if (sa->run->peer->unique != UNIQUE_REPLACE)
        return;
    for (struct ike_sa *o = table_same_peer(&sa->e->table, sa), *next; o && sa->state == SA_UP; o = next) {
        next = table_same_peer_next(o, sa);
        if (o->state != SA_UP || o->yields_to || !earlier(o, sa))
            continue;
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(o), NULL, &o->path,
               "%s has connected anew: its old IKE SA is deleted (unique = replace)", sa_peer_name(o));
        o->yields_to = sa; /* its traffic moves over first, when the peer surely has the new one */
        if (!sa->unproven)
            sa_leave(o);
    }
}
