/*
 * Steps that fail on demand: allocations, jobs, SPIs, installations, messages, keys. The Makefile has the linker wrap
 * the functions that fail here, in the tests named test_faults*.
 */
#ifndef ADIT_TEST_FAULT_H
#define ADIT_TEST_FAULT_H

#include <stdbool.h>
#include <stdint.h>

struct ike_engine;

enum fault_kind {
    FAULT_ALLOCATION,
    FAULT_JOB_REFUSED,
    FAULT_JOB_FAILED,
    FAULT_RESERVE,
    FAULT_INSTALL,
    FAULT_MESSAGE,
    FAULT_KEYS,
    FAULT_PRF,
    FAULT_PUBLISH_IN,
    FAULT_PUBLISH_OUT,
};
extern const char *const fault_name[];

/* What fails: the first'th call of its kind, counted from 0, while armed; with `lasting` all that follow as well. */
extern struct fault {
    enum fault_kind kind;
    unsigned first, calls;
    unsigned every; /* if not 0: each so many'th call instead */
    bool lasting, armed;
    unsigned outside;  /* depth of what is not ours to break: the simulated world */
    bool scoped;       /* only in what the data plane does for the engine */
    unsigned inside;   /* depth of that */
    uint32_t spi[100]; /* all that were reserved */
    unsigned spis;
} fault;

void fault_arm(enum fault_kind kind, unsigned first, bool lasting);
void fault_arm_every(enum fault_kind kind, unsigned every);

/* The worlds of these engines may refuse what is asked of them, but they do not fail by themselves. */
void fault_worlds(struct ike_engine *const *engines, unsigned n);

#endif
