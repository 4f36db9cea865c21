/* What a daemon knows of the reload of its configuration that is under way; the functions are daemon.h's. */
#ifndef ADIT_RELOAD_H
#define ADIT_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/timer.h"
#include "core/errand.h"

struct reading;

struct reload {
    enum reload_stage { RELOAD_IDLE, RELOAD_READING, RELOAD_EXTENDING, RELOAD_COMPILING, RELOAD_STARTING } stage;
    struct reading *reading; /* NULL while idle */
    struct errand *errand;   /* the thread that reads; then, beyond the end, the one that frees what was in force */
    struct timer look;
    uint64_t command; /* whose end it is */
    bool again;       /* asked for since it began: once more, as the end of that one */
    uint64_t next_command;
};

#endif
