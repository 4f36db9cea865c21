/*
 * A large SPD is compiled in a thread of its own (core/errand.h), so that the control thread goes on with its peers.
 */
#ifndef ADIT_SPD_MAKER_H
#define ADIT_SPD_MAKER_H

#include "policy/spd.h"

struct spd_maker;

/* Takes v, which came from malloc, also on errors; what it refers to must stay until the end. Errors: NOMEM, SYSTEM. */
MUST_USE enum err spd_maker_new(struct spd_maker **out, struct spd_entry *v, unsigned n);
bool spd_maker_done(const struct spd_maker *m);
/* Waits for the end if need be, and frees the maker. Errors: those of spd_new. */
MUST_USE enum err spd_maker_end(struct spd_maker *m, struct spd **out);

#endif
