/* Another configuration for an engine of a test, in one go. */
#ifndef ADIT_TEST_RELOAD_H
#define ADIT_TEST_RELOAD_H

#include "ike/engine.h"

/* All that comes before it is in force. Errors: NOMEM; then there is nothing. */
enum err reload_prepare(struct ike_engine *e, struct config *config, struct ike_change **out);
/* Errors: NOMEM; then nothing has changed. */
enum err reload(struct ike_engine *e, struct config *config, ns_t now);

#endif
