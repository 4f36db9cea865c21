/* How fast an engine seals packets of one suite on this machine: `adit bench` prints it, the ranking rests on it. */
#ifndef ADIT_MEASURE_H
#define ADIT_MEASURE_H

#include "core/base/err.h"
#include "crypto/transform.h"

#define MEASURE_SIZE_MAX 1500

struct measure {
    const char *engine; /* its name, static */
    const struct suite *suite;
    unsigned size;        /* bytes of text in a packet */
    double mb_per_s;      /* 10^6 bytes of text a second, on one core */
    double ns_per_packet; /* in batches, as superpackets give them */
};

/*
 * Seals batches of packets of `size` bytes (rounded up to the suite's block) for about `ms` milliseconds.
 * Errors: UNSUPPORTED (the engine lacks the suite), RANGE (size 0 or over MEASURE_SIZE_MAX), NOMEM, CRYPTO.
 */
MUST_USE enum err measure_seal(const char *engine, const struct suite *suite, unsigned size, unsigned ms,
                               struct measure *out);

#endif
