/*
 * One thing that takes its time, done in a thread of its own while the control thread goes on with its peers. That one
 * looks now and then whether it is done: nobody is in a hurry.
 */
#ifndef ADIT_ERRAND_H
#define ADIT_ERRAND_H

#include <stdbool.h>

#include "core/base/err.h"

struct errand;

/* What ctx refers to belongs to the errand until its end. Errors: NOMEM, SYSTEM. */
MUST_USE enum err errand_new(struct errand **out, void (*run)(void *ctx), void *ctx);
bool errand_done(const struct errand *e);
void errand_end(struct errand *e); /* waits if need be; NULL is fine */

#endif
