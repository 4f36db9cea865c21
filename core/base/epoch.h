/*
 * Epoch reclamation: the control thread unlinks an object that workers may be looking at and retires it; it is freed
 * once every worker has passed a quiescent point. A sleeping (offline) worker counts as quiescent, so an idle tunnel
 * never delays a free. One control thread, a fixed number of readers.
 */
#ifndef ADIT_EPOCH_H
#define ADIT_EPOCH_H

#include "core/base/err.h"

struct epoch;

MUST_USE enum err epoch_new(struct epoch **out, unsigned readers);
void epoch_free(struct epoch *e); /* readers have ended; runs what is still retired */

/* Reader i. Starts offline. Between online and offline it may hold pointers; quiesce says it holds none right now. */
void epoch_online(struct epoch *e, unsigned reader);
void epoch_quiesce(struct epoch *e, unsigned reader);
void epoch_offline(struct epoch *e, unsigned reader);

/* Control thread. retire: free_fn(object) will run in a later epoch_reclaim. Errors: NOMEM (nothing was retired). */
MUST_USE enum err epoch_retire(struct epoch *e, void (*free_fn)(void *), void *object);
unsigned epoch_reclaim(struct epoch *e); /* frees what is safe; returns how many still wait */
void epoch_wait(struct epoch *e);        /* blocks until all readers passed a quiescent point, then reclaims all */

#endif
