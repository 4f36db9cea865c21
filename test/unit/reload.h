/* Another configuration for an engine of a test, in one go. */
#ifndef ADIT_TEST_RELOAD_H
#define ADIT_TEST_RELOAD_H

#include "ike/engine.h"

/* Errors: NOMEM; then nothing has changed. */
enum err reload(struct ike_engine *e, struct config *config, ns_t now);

#endif
