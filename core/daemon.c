#include "core/daemon.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "core/capture.h"
#include "core/report.h"
#include "core/trace.h"
#include "crypto/secret.h"
#include "tun/watch.h"

#define RECORDS_PER_TURN 16               /* of one worker's ring, so that a flood leaves room for everything else */
#define JOBS_PER_TURN 16                  /* likewise, of those that are done */
#define TIMERS_PER_TURN 64                /* likewise, of those that are due */
#define STOP_PATIENCE (2 * NS_PER_S)      /* for answers to our deletions */
#define REFRESH (15 * NS_PER_S)           /* of the addresses that peers are reached from */
#define SLICE NS_PER_MS                   /* of a turn, for each kind of work that there may be much of */
#define CALM_SLICE (NS_PER_MS / 2)        /* likewise, where nobody waits */
#define REFRESH_LEAST NS_PER_S            /* however many sends fail */
#define REFRESH_CHANGED (100 * NS_PER_MS) /* after a change: others come along with it */
#define REFRESH_PAUSE (300 * NS_PER_MS)   /* however many changes there are */
#define RECLAIM_AGAIN (50 * NS_PER_MS)    /* while a busy worker may still see what was retired */

/* -- what workers report -- */

static void worker_report(struct daemon *d, struct span record, ns_t now)
{
    struct worker_event e;
    if (record.len < sizeof e)
        return;
    memcpy(&e, record.data, sizeof e);
    const struct policy *policy;
    switch (e.kind) {
    case WORKER_ACQUIRE:
        policy = dataplane_policy(d->dataplane, e.policy_id);
        if (policy)
            ike_acquire(d->engine, policy, &e.packet, now);
        break;
    case WORKER_SOFT:
        ike_child_soft(d->engine, e.child, now);
        break;
    case WORKER_HARD:
        ike_child_hard(d->engine, e.child, now);
        break;
    case WORKER_LONG:
        dataplane_long(d->dataplane, e.child, now);
        break;
    case WORKER_MOVED:
        ike_child_moved(d->engine, e.child, &e.from, now);
        break;
    }
}

static void worker_record(struct daemon *d, uint32_t type, struct span record, ns_t now)
{
    struct worker_datagram head;
    if (report_record(d, type, record))
        return;
    if (type == WORKER_EVENT) {
        worker_report(d, record, now);
    } else if (type == WORKER_IKE && record.len >= sizeof head) {
        memcpy(&head, record.data, sizeof head);
        struct span message = span_of(record.data + sizeof head, record.len - sizeof head);
        trace_ike("received from", &head.path, message);
        ike_input(d->engine, &head.path, message, now);
    }
}

static void worker_records(struct daemon *d)
{
    ns_t now = clock_now(), until = now + SLICE;
    d->records_left = false;
    for (unsigned i = 0; i < d->worker_count; i++) { /* each time another one's come first */
        struct ring *ring = worker_ring(d->workers[(d->first_ring + i) % d->worker_count]);
        uint32_t type;
        struct span record;
        unsigned n = 0;
        while (n < RECORDS_PER_TURN && now < until && ring_peek(ring, &type, &record)) {
            worker_record(d, type, record, now);
            ring_pop(ring);
            now = clock_now();
            n++;
        }
        d->records_left = d->records_left || n == RECORDS_PER_TURN || now >= until;
    }
    d->first_ring++;
}

/* -- ending -- */

static void daemon_stop(struct daemon *d)
{
    if (d->stopping) { /* asked twice: no patience */
        d->stop_at = 0;
        return;
    }
    d->stopping = true;
    d->stop_at = clock_now() + STOP_PATIENCE;
    ike_shutdown(d->engine, clock_now());
}

/* A daemon that looks alive and carries nothing is worse than one that whoever watches it starts again. */
static void workers_look(struct daemon *d)
{
    for (unsigned i = 0; i < d->workers_running && !d->failed; i++) {
        if (!worker_failed(d->workers[i]))
            continue;
        d->failed = true;
        log_line(LOG_ERROR, "core", "worker %u has stopped, so packets no longer flow: ending", i);
        if (!d->stopping)
            daemon_stop(d);
    }
}

/* -- what wakes the loop -- */

/* Empties the counter before what it announces, so that nothing is overlooked; an empty counter is no error. */
static void drain(int fd)
{
    uint64_t count;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        log_line(LOG_WARN, "core", "eventfd: %s", strerror(errno));
}

static void on_job(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    (void)events;
    drain(d->job_fd);
    d->jobs_left = true;
}

static void on_wake(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    (void)events;
    drain(d->wake_fd);
    d->records_left = true;
    workers_look(d);
}

static void on_signal(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    struct signalfd_siginfo info;
    (void)events;
    while (read(d->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGHUP) {
            log_line(LOG_INFO, "core", "%s: ending", info.ssi_signo == SIGINT ? "interrupted" : "terminated");
            daemon_stop(d);
        } else if (!d->stopping) {
            (void)daemon_reload(d);
        }
    }
}

/* A round, but not before that. */
static void look_soon(struct daemon *d, ns_t earliest)
{
    ns_t at = d->refreshed + REFRESH_PAUSE;
    at = at > earliest ? at : earliest;
    if (at < d->refresh.at)
        timer_set(&d->timers, &d->refresh, at);
}

static void on_route(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    unsigned news = host_news(d->host, d->route_fd);
    ns_t soon = clock_now() + REFRESH_CHANGED, patient = d->restored + d->patience;
    (void)events;
    d->lost |= news & ~(unsigned)WATCH_CHANGED;
    d->changed = d->changed || (news & WATCH_CHANGED);
    if (news & WATCH_CHANGED)
        look_soon(d, soon);
    else if (news)
        look_soon(d, soon > patient ? soon : patient);
}

static void on_filter(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    (void)events;
    if (watch_filter_read(d->filter_fd))
        look_soon(d, d->restored + d->patience);
}

/* Without it a change is noticed at the next turn of the timer. */
static void routes_watch(struct daemon *d)
{
    enum err e = watch_open(&d->route_fd);
    if (e == OK)
        e = loop_watch_add(d->loop, d->route_fd, EPOLLIN, on_route, d, &d->route_watch);
    if (e != OK)
        log_line(LOG_WARN, "core", "changes of address can't be watched: %s", strerror(errno));
    if (watch_filter_open(&d->filter_fd) == OK)
        e = loop_watch_add(d->loop, d->filter_fd, EPOLLIN, on_filter, d, &d->filter_watch);
    (void)e; /* a kernel without nftables: nothing to be watched */
}

/* Names were looked up: attempts go on, and the MTU may be known better now, which takes a look at every peer's route. */
static void on_resolved(void *ctx, uint32_t events)
{
    struct daemon *d = ctx;
    struct resolved a;
    (void)events;
    while (resolver_next(d->resolver, &a)) {
        ike_resolved(d->engine, a.id, a.v, a.n, a.why, clock_now());
        d->unsized = true;
    }
    daemon_refresh_soon(d);
}

static enum err signals_watch(struct daemon *d)
{
    /* By default the others would end the process with its routes in place. */
    static const int watched[] = {SIGHUP, SIGINT, SIGTERM, SIGQUIT}, ignored[] = {SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
        sigaddset(&set, watched[i]);
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    d->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    d->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    d->job_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (d->signal_fd < 0 || d->wake_fd < 0 || d->job_fd < 0)
        return ERR_SYSTEM;
    TRY(loop_watch_add(d->loop, d->job_fd, EPOLLIN, on_job, d, &d->job_watch));
    TRY(loop_watch_add(d->loop, d->signal_fd, EPOLLIN, on_signal, d, &d->signal_watch));
    TRY(loop_watch_add(d->loop, d->wake_fd, EPOLLIN, on_wake, d, &d->wake_watch));
    TRY(resolver_new(&d->resolver));
    return loop_watch_add(d->loop, resolver_fd(d->resolver), EPOLLIN, on_resolved, d, &d->resolver_watch);
}

/* -- the ways to the peers -- */

bool daemon_hint(struct daemon *d, const struct peer *p)
{
    struct endpoint at[PEER_CANDIDATES];
    unsigned current = 0, least = 0, n = ike_candidates(d->engine, p, at, &current);
    bool found = false, raw = ike_sends_raw(d->engine, p);
    for (unsigned i = 0; i < n; i++) {
        struct endpoint local = {0};
        unsigned mtu;
        bool way = host_local(d->host, d->config, &at[i], &local, &mtu);
        unsigned room = mtu_room(&at[i], mtu, raw);
        if (room && (!least || room < least))
            least = room;
        if (way && i == current) {
            ike_local_hint(d->engine, p, &local);
            found = true;
        }
    }
    mtu_note(&d->mtu, p, least);
    return found;
}

static void daemon_addresses(struct daemon *d)
{
    struct ip addresses[IKE_ADDRESSES];
    unsigned n;
    enum err e = host_addresses(d->host, d->config, addresses, IKE_ADDRESSES, &n);
    if (e == OK)
        ike_addresses(d->engine, addresses, n, clock_now());
    else if (!d->unlisted)
        log_line(LOG_WARN, "core", "SAs can't follow changes of this host's addresses: %s",
                 e == ERR_FULL ? "it has too many addresses or links" : err_text(e));
    d->unlisted = e != OK;
}

void daemon_refresh_soon(struct daemon *d)
{
    ns_t at = d->refreshed + REFRESH_LEAST;
    if (at < d->refresh.at)
        timer_set(&d->timers, &d->refresh, at);
}

static void mss_from_mtu(struct daemon *d)
{
    unsigned mtu = host_mtu(d->host);
    atomic_store(&d->shared.mtu, mtu);
    atomic_store(&d->shared.mss4, mtu - 40); /* IPv4 and TCP headers without options */
    atomic_store(&d->shared.mss6, mtu - 60);
}

static void settle_some(struct daemon *d, ns_t until)
{
    unsigned mtu = 0;
    bool over = host_settle_some(d->host, until) && mtu_some(&d->mtu, d->config, until, &mtu);
    if (mtu) {
        host_set_mtu(d->host, mtu);
        mss_from_mtu(d);
    }
    if (!over)
        timer_set(&d->timers, &d->settling, 0);
}

static void on_settling(struct timer *t, void *ctx, ns_t now)
{
    (void)t;
    (void)now;
    settle_some(ctx, clock_now() + CALM_SLICE);
}

/* What is put back comes at once, but ever more slowly if it does not last. */
static void restored(struct daemon *d)
{
    bool again = d->refreshed - d->restored < 2 * REFRESH;
    ns_t patience = again ? 2 * d->patience : REFRESH_PAUSE;
    d->patience = patience < REFRESH ? patience : REFRESH;
    d->restored = d->refreshed;
}

/* What another program, or the kernel along with something else, has taken away. */
static void restore(struct daemon *d)
{
    /* In that stage of a reload another thread is at the filter. */
    bool due = d->lost && d->refreshed >= d->restored + d->patience;
    bool back = d->reload.stage != RELOAD_FILTERING && host_filter_keep(d->host);
    host_rules_keep(d->host);
    if (due) {
        host_restore(d->host, d->lost);
        d->lost = 0;
        timer_set(&d->timers, &d->settling, 0);
    }
    if (back || due)
        restored(d);
}

static void round_begin(struct daemon *d)
{
    d->refreshed = clock_now();
    d->round_changed = d->changed;
    d->round_unsized = d->unsized;
    d->round_routed = true;
    d->changed = d->unsized = false;
    restore(d);
    daemon_addresses(d);
}

static void round_end(struct daemon *d)
{
    bool found = d->round_routed && !d->routed;
    d->looked_at = 0;
    d->routed = d->round_routed;
    /* What has changed meanwhile may have been missed: once more. */
    timer_set(&d->timers, &d->refresh, d->refreshed + (d->changed || d->unsized ? REFRESH_PAUSE : REFRESH));
    if (d->lost)
        look_soon(d, d->restored + d->patience);
    if (d->round_changed || found)
        host_reroute(d->host);
    if (d->round_unsized || found || (d->routed && d->round_changed))
        mtu_begin(&d->mtu); /* the path MTU is known now, or another one */
    timer_set(&d->timers, &d->settling, 0);
}

/* A round looks at each peer; it ends with the last one. */
static void round_some(struct daemon *d, ns_t until)
{
    if (d->looked_at == 0)
        round_begin(d);
    while (d->looked_at < d->config->peer_count) {
        const struct peer *p = d->config->peers[d->looked_at++];
        if (!daemon_hint(d, p) && !p->endpoint_any)
            d->round_routed = false;
        if (clock_now() >= until)
            break;
    }
    if (d->looked_at >= d->config->peer_count)
        round_end(d);
    else
        timer_set(&d->timers, &d->refresh, 0);
}

static void on_refresh(struct timer *t, void *ctx, ns_t now)
{
    (void)t;
    (void)now;
    round_some(ctx, clock_now() + CALM_SLICE);
}

/* A round from its beginning, with peers that may be others now. */
static void round_anew(struct daemon *d, ns_t until)
{
    mtu_reset(&d->mtu, d->config);
    d->looked_at = 0;
    d->unsized = true;
    round_some(d, until);
    settle_some(d, until);
}

void daemon_settle(struct daemon *d)
{
    host_settle(d->host, d->config);
    round_anew(d, clock_now() + CALM_SLICE);
}

/* -- start -- */

/* One processor: one worker, which the control thread shares it with. More: half of them, for the peers' other work. */
static unsigned worker_number(const struct config *c)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    unsigned n = c->host.workers;
    if (!n)
        n = cores <= 2 ? 1 : cores >= 8 ? 4 : (unsigned)cores / 2;
    return n > SAD_WORKERS ? SAD_WORKERS : n;
}

static enum err start_tables(struct daemon *d, unsigned workers, char *why, size_t size)
{
    snprintf(why, size, "tables: %s", err_text(ERR_NOMEM));
    TRY(epoch_new(&d->shared.epoch, workers));
    TRY(sad_new(&d->shared.sad, d->shared.epoch, &random_system));
    struct path_mtu_env sizes = daemon_sizes(d);
    struct dataplane_params p = {.shared = &d->shared, .workers = workers, .timers = &d->timers, .sizes = &sizes};
    TRY(dataplane_new(&d->dataplane, &p));
    struct spd *spd;
    TRY(dataplane_prepare(d->dataplane, d->config, &spd));
    dataplane_commit(d->dataplane, d->config, spd);
    return OK;
}

static ns_t worker_clock(void *ctx)
{
    (void)ctx;
    return clock_now();
}

static enum err start_workers(struct daemon *d, unsigned workers, char *why, size_t size)
{
    mss_from_mtu(d);
    atomic_store(&d->shared.no_audit, !d->config->host.audit);
    for (unsigned i = 0; i < workers; i++) {
        struct worker_params p = {
            .index = i, .shared = &d->shared, .io = d->config->host.io, .now = worker_clock, .wake_fd = d->wake_fd};
        host_worker(d->host, i, &p);
        enum err e = worker_new(&d->workers[i], &p, d->io_why, sizeof d->io_why);
        if (e != OK) {
            snprintf(why, size, "worker: %s", d->io_why[0] ? d->io_why : err_text(e));
            return e;
        }
        d->worker_count++;
    }
    for (unsigned i = 0; i < workers; i++) {
        enum err e = worker_start(d->workers[i]);
        if (e != OK) {
            snprintf(why, size, "worker thread: %s", err_text(e));
            return e;
        }
        d->workers_running++;
    }
    return OK;
}

static enum err start_engine(struct daemon *d, char *why, size_t size)
{
    const char *keylog = d->config->host.keylog;
    if (keylog[0] && keylog_open(&d->keylog, keylog) != OK) {
        snprintf(why, size, "keylog %s: %s", keylog, strerror(errno));
        return ERR_SYSTEM;
    }
    if (keylog[0])
        log_line(LOG_WARN, "core", "keys are written to %s: whoever reads it reads the traffic", keylog);
    if (report_open(d) != OK) {
        snprintf(why, size, "flow-log-file %s: %s", d->config->host.flow_log, strerror(errno));
        return ERR_SYSTEM;
    }
    snprintf(why, size, "threads for key exchange: %s", err_text(ERR_SYSTEM));
    TRY(job_pool_new(&d->jobs, job_threads(), JOB_QUEUE, d->job_fd));
    struct ike_env env = daemon_env(d);
    snprintf(why, size, "IKE engine: %s", err_text(ERR_NOMEM));
    return ike_new(&d->engine, &env, d->config, NULL);
}

static enum err daemon_start(struct daemon *d, char *why, size_t size)
{
    struct loop_hooks hooks = {0};
    enum err e = loop_epoll_new(&hooks, &d->loop);
    if (e == OK)
        e = signals_watch(d);
    if (e != OK) {
        snprintf(why, size, "event loop: %s", err_text(e));
        return e;
    }
    timer_heap_init(&d->timers, d);
    struct control_handler handler = {.ctx = d, .request = daemon_request};
    TRY(control_open(&d->control, d->loop, d->config->host.control, &handler, why, size));
    unsigned workers = worker_number(d->config);
    TRY(start_tables(d, workers, why, size));
    TRY(start_engine(d, why, size));
    TRY(timer_add(&d->timers, &d->refresh, on_refresh));
    TRY(timer_add(&d->timers, &d->settling, on_settling));
    TRY(daemon_reload_new(d));
    TRY(host_up(&d->host, d->config, workers, why, size));
    routes_watch(d);
    daemon_errors_open(d);
    TRY(daemon_denied_open(d));
    round_anew(d, NS_NEVER); /* whole: nobody waits yet */
    TRY(start_workers(d, workers, why, size));
    log_line(LOG_INFO, "core", "ready: adit " ADIT_VERSION " on %s, MTU %u, %u worker%s on %s", host_tun_name(d->host),
             host_mtu(d->host), workers, workers == 1 ? "" : "s", d->io_why);
    ike_start(d->engine, clock_now());
    return OK;
}

/* -- running -- */

static ns_t earlier(ns_t a, ns_t b)
{
    return a < b ? a : b;
}

/* How long, at most, others had to wait for this thread. CPU time: what the machine did meanwhile is not its fault. */
static void turn_note(struct daemon *d)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    uint64_t cpu = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
    if (d->turn_cpu && cpu - d->turn_cpu > d->turn_max)
        d->turn_max = cpu - d->turn_cpu;
    d->turn_cpu = cpu;
}

static enum err daemon_turn(struct daemon *d)
{
    ns_t now = clock_now();
    turn_note(d);
    if (d->records_left)
        worker_records(d);
    if (d->jobs_left)
        d->jobs_left = job_collect(d->jobs, d->engine, JOBS_PER_TURN, clock_now() + SLICE);
    if (ike_deadline(d->engine) <= now)
        ike_tick(d->engine, now);
    timer_run_some(&d->timers, now, TIMERS_PER_TURN);
    control_sweep(d->control, now);
    captures_turn(d);
    ns_t deadline = earlier(earlier(ike_deadline(d->engine), timer_next(&d->timers)), control_deadline(d->control));
    if (epoch_reclaim(d->shared.epoch))
        deadline = earlier(deadline, now + RECLAIM_AGAIN);
    if (d->stopping)
        deadline = earlier(deadline, d->stop_at);
    if (d->records_left || d->jobs_left)
        deadline = 0;
    return loop_turn(d->loop, deadline);
}

static int daemon_serve(struct daemon *d)
{
    while (!d->stopping || (!ike_idle(d->engine) && clock_now() < d->stop_at)) {
        enum err e = daemon_turn(d);
        if (e != OK) {
            log_line(LOG_ERROR, "core", "event loop: %s", err_text(e));
            return 1;
        }
    }
    return d->failed ? 1 : 0;
}

static void daemon_end(struct daemon *d)
{
    if (d->engine)
        daemon_reload_stop(d);
    ike_free(d->engine);
    job_pool_free(d->jobs);
    for (unsigned i = 0; i < d->workers_running; i++)
        worker_stop(d->workers[i]);
    report_last(d);
    report_close(d);
    for (unsigned i = 0; i < d->worker_count; i++)
        worker_free(d->workers[i]);
    daemon_denied_close(d);
    host_down(d->host, d->end);
    if (d->loop)
        control_close(d->control);
    dataplane_free(d->dataplane);
    if (d->shared.sad)
        sad_free(d->shared.sad);
    if (d->shared.epoch)
        epoch_free(d->shared.epoch);
    timer_heap_free(&d->timers);
    mtu_free(&d->mtu);
    keylog_close(&d->keylog);
    if (d->signal_watch)
        loop_watch_del(d->loop, d->signal_watch);
    if (d->wake_watch)
        loop_watch_del(d->loop, d->wake_watch);
    daemon_errors_close(d);
    if (d->route_watch)
        loop_watch_del(d->loop, d->route_watch);
    if (d->filter_watch)
        loop_watch_del(d->loop, d->filter_watch);
    if (d->job_watch)
        loop_watch_del(d->loop, d->job_watch);
    if (d->resolver_watch)
        loop_watch_del(d->loop, d->resolver_watch);
    loop_free(d->loop);
    resolver_free(d->resolver);
    if (d->signal_fd >= 0)
        close(d->signal_fd);
    if (d->wake_fd >= 0)
        close(d->wake_fd);
    if (d->route_fd >= 0)
        close(d->route_fd);
    if (d->filter_fd >= 0)
        close(d->filter_fd);
    if (d->job_fd >= 0)
        close(d->job_fd);
    config_free(d->config);
}

void config_line_text(char *text, size_t size, const char *file, unsigned line, const char *what)
{
    if (line)
        snprintf(text, size, "%s:%u: %s", file, line, what);
    else
        snprintf(text, size, "%s: %s", file, what);
}

static void run_error(void *ctx, const char *file, unsigned line, const char *text)
{
    char out[1024];
    (void)ctx;
    config_line_text(out, sizeof out, file, line, text);
    fprintf(stderr, "adit: %s\n", out);
}

static void run_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    char out[1024];
    (void)ctx;
    config_line_text(out, sizeof out, file, line, text);
    log_line(LOG_WARN, "core", "%s", out);
}

int daemon_run(const char *file)
{
    struct daemon d = {.signal_fd = -1,
                       .wake_fd = -1,
                       .route_fd = -1,
                       .filter_fd = -1,
                       .job_fd = -1,
                       .flow_fd = -1,
                       .keylog = {-1, -1},
                       .end = HOST_AS_FOUND,
                       .patience = REFRESH_PAUSE,
                       .started = clock_now()};
    const struct config_report report = {.error = run_error, .warning = run_warning};
    if ((size_t)snprintf(d.file, sizeof d.file, "%s", file) >= sizeof d.file) {
        fprintf(stderr, "adit: %s: name too long\n", file);
        return 1;
    }
    (void)prctl(PR_SET_DUMPABLE, 0); /* keys are also on heaps of libraries: none of it into a core file */
    if (crypto_init() != OK) {
        fprintf(stderr, "adit: the crypto libraries could not be started\n");
        return 1;
    }
    if (config_load(file, &report, &d.config) != OK)
        return 1;
    log_setup(d.config->host.log, d.config->host.log_format);
    char why[512] = "";
    enum err e = daemon_start(&d, why, sizeof why);
    int code = 1;
    if (e == OK) {
        code = daemon_serve(&d);
        d.end = code ? HOST_CLOSED : HOST_OPEN;
    } else {
        log_line(LOG_ERROR, "core", "could not start: %s", why[0] ? why : err_text(e));
    }
    daemon_end(&d);
    return code;
}
