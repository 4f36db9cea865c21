/* What a daemon knows of the reload of its configuration that is under way; the functions are daemon.h's. */
#ifndef ADIT_RELOAD_H
#define ADIT_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/timer.h"
#include "core/errand.h"

struct reading;

struct reload {
    enum reload_stage {
        RELOAD_IDLE,
        RELOAD_READING,   /* in a thread */
        RELOAD_EXTENDING, /* the host */
        RELOAD_LISTING,   /* what is to be compiled */
        RELOAD_COMPILING, /* in a thread */
        RELOAD_PREPARING, /* the engine */
        RELOAD_FILTERING, /* in a thread, the host's firewall */
        RELOAD_SETTLING,  /* it is in force */
        RELOAD_STARTING,
        RELOAD_UNDOING, /* it was not put in force */
    } stage;
    struct reading *reading; /* NULL while idle */
    struct errand *errand;   /* the thread at work; beyond the end, the one that frees what was in force */
    struct timer look;
    uint64_t command; /* whose end it is */
    bool again;       /* asked for since it began: once more, as the end of that one */
    uint64_t next_command;
};

#endif
