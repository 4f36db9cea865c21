/*
 * When an SA has come to its limits (RFC 4301 section 4.4.2.1): the soft ones ask for a rekey, the hard ones end it.
 */
#ifndef ADIT_LIMIT_H
#define ADIT_LIMIT_H

#include "esp/esp.h"

/*
 * What the counters have passed now, as SA_EVENT_*, each once in an SA's life. `count`: the last number used of SA_OUT,
 * the packets of SA_IN. At a rate that would reach the hard limit before a rekey is sure to be done, soft comes earlier,
 * but not before an eighth of the soft limit. The caller holds sa->lock.
 */
unsigned limit_passed(struct sa *sa, uint64_t count, uint64_t bytes, ns_t now);

#endif
