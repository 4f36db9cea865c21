/*
 * One hub and many clients that share an engine, in memory and in virtual time: for what only shows with thousands of
 * SAs. The hub has one [peer] of any address and identity, the clients' engine has a [peer] for each of them. There is
 * no data plane: installs are counted. Messages arrive in order and at once; jobs are run in between.
 */
#ifndef ADIT_TEST_CROWD_H
#define ADIT_TEST_CROWD_H

#include "ike/engine.h"

enum { CROWD_HUB, CROWD_CLIENTS };

struct crowd;

struct crowd_end {
    struct crowd *crowd;
    struct config *config;
    struct ike_engine *e;
    struct stat_block stats;
    struct random_seeded random;
    uint32_t spi;
    unsigned installed, removed;
    unsigned events[IKE_EVENT_NOTICE + 1];
    char failure[512]; /* the last one */
    struct ike_job **jobs;
    size_t job_count, job_cap;
    bool full;            /* no job is taken */
    uint64_t inputs, cpu; /* messages handed to this engine, and ns of CPU time that took */
};

struct crowd {
    ns_t now;
    struct crowd_end end[2];
    struct crowd_packet *queue; /* in order of arrival */
    size_t len, cap;
    bool (*lose)(struct crowd *c, unsigned from, struct span message); /* NULL: nothing */
    uint64_t sent;
};

/* extra: lines for every [peer]; hub_extra: for the hub's alone. Ends the program when it can't be set up. */
struct crowd *crowd_new(unsigned clients, const char *extra, const char *hub_extra, const struct ike_limits *limits);
void crowd_free(struct crowd *c);

/* Until all that is under way has arrived and been answered; no time passes. */
void crowd_settle(struct crowd *c);
/* The same, with timers, until then. */
void crowd_run(struct crowd *c, ns_t until);
/* Brings all clients up; false if it took longer than that. */
bool crowd_up(struct crowd *c, ns_t patience);

#endif
