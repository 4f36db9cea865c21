/*
 * The running daemon: one control thread (the main thread) that runs the IKE engine, timers, signals and the control
 * socket on a loop of its own, and the workers that carry packets. (DESIGN: decision 8.)
 */
#ifndef ADIT_DAEMON_H
#define ADIT_DAEMON_H

#include "core/base/log.h"
#include "core/base/timer.h"
#include "core/control.h"
#include "core/dataplane.h"
#include "core/host.h"
#include "core/job.h"
#include "core/keylog.h"
#include "core/mtu.h"
#include "core/reload.h"
#include "core/resolve.h"
#include "core/worker.h"
#include "ike/engine.h"

/* A raw socket for ICMP errors of one family (core/sizes.c). */
struct error_source {
    struct daemon *daemon;
    uint8_t family;
    int fd; /* -1: none */
    struct loop_watch *watch;
    struct log_limit limit;
};

/* Everything of one daemon; lives on daemon_run's stack. */
struct daemon {
    char file[256];
    struct config *config;
    ns_t started;
    struct loop *loop;
    int signal_fd, wake_fd; /* signals; workers with records for us */
    int route_fd, job_fd;   /* changes of addresses and routes; jobs that are done */
    int filter_fd;          /* changes of packet filters */
    struct loop_watch *signal_watch, *wake_watch, *route_watch, *filter_watch, *job_watch, *resolver_watch;
    struct resolver *resolver;
    struct timer_heap timers;
    struct timer refresh; /* looks again from where peers are reached */
    ns_t refreshed;       /* when it last did */
    bool routed;          /* there was a route to each of them then */
    bool unlisted;        /* our addresses could not be had the last time */
    bool changed;         /* the kernel has said since that addresses or routes are others */
    unsigned lost;        /* what of ours may be gone since then: tun/watch.h */
    ns_t restored;        /* when it was put back last */
    ns_t patience;        /* until it is the next time: another program may take it away as often as it comes back */
    bool unsized;         /* names got addresses since then, or the configuration is another: so may be the MTU */
    unsigned looked_at;   /* peers of this round; it goes by slices */
    bool round_changed;   /* `changed` was set when it began */
    bool round_unsized;   /* likewise */
    bool round_routed;    /* there was a route to each of those */
    struct mtu_survey mtu;
    struct timer settling; /* routes and MTU: by slices too */
    struct worker_shared shared;
    struct host_state *host;
    struct error_source errors[2];
    struct timer denied_look; /* at what the firewall has dropped */
    struct loop_watch *denied_watch;
    uint64_t denied[2];    /* in, out: counted, and not in the audit log yet */
    uint64_t denied_shown; /* in: in the audit log one by one since the last count there */
    struct dataplane *dataplane;
    struct worker *workers[SAD_WORKERS];
    unsigned worker_count, workers_running;
    char io_why[160]; /* which loop engine the workers run on, and why */
    struct ike_engine *engine;
    struct job_pool *jobs;
    struct keylog keylog;
    int flow_fd; /* file of the flow log; -1: flows go to the log */
    struct control *control;
    struct reload reload;
    struct capture *captures;    /* that run */
    unsigned loads;              /* of configurations, after the first */
    uint64_t commands;           /* numbers given out */
    unsigned first_ring;         /* of the worker whose records come first */
    bool records_left;           /* a ring was not emptied in this turn */
    bool jobs_left;              /* finished jobs wait */
    uint64_t turn_cpu, turn_max; /* ns: the thread's CPU time when this turn began; the longest turn so far */
    bool stopping;
    bool failed;             /* a worker has ended: so must we */
    enum host_end end;       /* how the host is left */
    ns_t stop_at;            /* patience with peers that don't answer our deletions */
    struct log_limit limit;  /* for what strangers can trigger */
    struct stat_block stats; /* the control thread's */
};

/* `adit run`: returns the exit code. */
int daemon_run(const char *file);

/* -- for the other files of the top floor -- */

/* The table that the engine is given (core/env.c); ctx is the daemon. */
struct ike_env daemon_env(struct daemon *d);
/* Packets may have waited for the SA that was just published, of either direction, or dummies may be due. */
void daemon_workers_call(struct daemon *d);
/* What the data plane asks about sizes, and the sockets that routers speak to (core/sizes.c). */
struct path_mtu_env daemon_sizes(struct daemon *d);
void daemon_errors_open(struct daemon *d);
void daemon_errors_close(struct daemon *d);
/* What the firewall has dropped (core/denied.c): counts it now; has it looked at now and then. Errors: NOMEM. */
void daemon_denied_count(struct daemon *d);
MUST_USE enum err daemon_denied_open(struct daemon *d);
void daemon_denied_close(struct daemon *d);
/* Tells the engine where we would send to this peer from. False: it has no address, or there is no route to it. */
bool daemon_hint(struct daemon *d, const struct peer *p);
/*
 * The same for every peer, and which addresses we have, within a second or so, since a send failed for want of its
 * address. It is done every 15 s too, and when the kernel says that something has changed.
 */
void daemon_refresh_soon(struct daemon *d);
/*
 * Begins to make all of that, and routes, MTU and MSS, fit the configuration in force. Another one that was not put in
 * force, but for which the host was extended, loses what it had.
 */
void daemon_settle(struct daemon *d);

/*
 * Loads the file anew and puts it in force, whole or not at all (core/reload.c), a little later. Returns the command
 * whose end tells the outcome; errors go there and to the log; what can't be changed while running is one of them.
 */
uint64_t daemon_reload(struct daemon *d);
MUST_USE enum err daemon_reload_new(struct daemon *d); /* Errors: NOMEM */
void daemon_reload_stop(struct daemon *d);             /* the daemon ends: it comes to nothing */

/* A client's request (core/command.c). */
void daemon_request(void *ctx, struct control_client *client, const json_t *request);

/* Answers with what `adit status` shows (core/listing.c). brief: numbers alone, and all at once. */
void daemon_status(struct daemon *d, struct control_client *client, bool brief);

/* One complaint about a configuration file as a line of text. */
void config_line_text(char *text, size_t size, const char *file, unsigned line, const char *what);

#endif
