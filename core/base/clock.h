/* Time. Everything but certificate dates and log stamps runs on the monotonic clock. */
#ifndef ADIT_CLOCK_H
#define ADIT_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a monotonic clock; tests hand in virtual ones. */
typedef uint64_t ns_t;

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define NS_NEVER UINT64_MAX

ns_t clock_now(void);  /* CLOCK_MONOTONIC; never fails */
ns_t clock_wall(void); /* nanoseconds since 1970 */

#endif
