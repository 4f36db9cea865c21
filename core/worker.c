#include "core/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/worker_impl.h"

#define RING_SIZE (1u << 20)
#define FRAGMENT_SETS 64
#define TURN_TRIES 7 /* with pauses of 1, 2, 4 … ms */

bool worker_push(struct worker *w, enum worker_message type, struct span a, struct span b, enum stat_id full)
{
    if (ring_push(w->ring, type, a, b) != OK) {
        worker_count(w, full, 1);
        return false;
    }
    w->ring_filled = true;
    return true;
}

bool worker_event(struct worker *w, const struct worker_event *e)
{
    return worker_push(w, WORKER_EVENT, span_of(e, sizeof *e), span_of(NULL, 0), STAT_DROP_EVENT_RING);
}

/* What esp_seal and esp_open report once is raised again if it could not be told now. */
void worker_limits(struct worker *w, struct sa *sa, unsigned events)
{
    if (events & SA_EVENT_SOFT &&
        !worker_event(w, &(struct worker_event){.kind = WORKER_SOFT, .child = sa->params.child}))
        atomic_store(&sa->soft_raised, false);
    if (events & SA_EVENT_HARD &&
        !worker_event(w, &(struct worker_event){.kind = WORKER_HARD, .child = sa->params.child}))
        atomic_store(&sa->hard_raised, false);
}

/* -- hooks of the loop -- */

static void on_sleep(void *ctx)
{
    struct worker *w = *(struct worker **)ctx;
    if (w)
        epoch_offline(w->p.shared->epoch, w->p.index);
}

static void on_wake(void *ctx)
{
    struct worker *w = *(struct worker **)ctx;
    if (w)
        epoch_online(w->p.shared->epoch, w->p.index);
}

static void wake_control(const struct worker *w)
{
    uint64_t one = 1;
    /* A full eventfd counter means that the control thread has been woken already. */
    if (w->p.wake_fd >= 0 && write(w->p.wake_fd, &one, sizeof one) < 0)
        return;
}

static void on_turn_end(void *ctx)
{
    struct worker *w = *(struct worker **)ctx;
    if (!w)
        return;
    outbound_held(w);
    fragments_expire(w);
    inbound_held(w);
    cover_send(w);
    audit_turn(w);
    flows_turn(w);
    epoch_quiesce(w->p.shared->epoch, w->p.index);
    if (!w->ring_filled)
        return;
    w->ring_filled = false;
    wake_control(w);
}

struct loop_hooks worker_hooks(struct worker **w)
{
    return (struct loop_hooks){.ctx = w, .sleep = on_sleep, .wake = on_wake, .turn_end = on_turn_end};
}

static void on_send_failed(void *ctx, const struct loop_failure *f)
{
    struct bound_socket *s = ctx;
    worker_count(s->worker, STAT_DROP_OUT_SEND, f->datagrams);
}

static void on_tun_failed(void *ctx, const struct loop_failure *f)
{
    worker_count(ctx, STAT_DROP_IN_TUN, f->datagrams);
}

/* The turn that this wakes has its end, where held packets are looked at; w->stop was set before the call. */
static void on_call(void *ctx, uint32_t events)
{
    struct worker *w = ctx;
    uint64_t count;
    (void)events;
    if (read(w->call_fd, &count, sizeof count) < 0) {
        /* Nothing to read: called by mistake, and no harm. */
    }
}

/* -- life -- */

static ns_t real_now(void *ctx)
{
    (void)ctx;
    return clock_now();
}

static enum err open_ios(struct worker *w)
{
    struct loop_io_handler tun = {.ctx = w, .received = outbound_received, .failed = on_tun_failed};
    TRY(loop_io_open(w->loop, w->p.tun_fd, LOOP_TUN, &tun, &w->tun));
    for (unsigned i = 0; i < w->p.socket_count; i++) {
        struct bound_socket *s = &w->sockets[i];
        s->worker = w;
        s->s = w->p.sockets[i];
        bool raw = s->s.kind != SOCKET_UDP;
        struct loop_io_handler in = {
            .ctx = s, .received = raw ? inbound_raw : inbound_received, .failed = on_send_failed};
        TRY(loop_io_open(w->loop, s->s.fd, raw ? LOOP_RAW : LOOP_UDP, &in, &s->io));
    }
    return OK;
}

static enum err worker_init(struct worker *w, char *why, size_t why_size)
{
    TRY(ring_new(&w->ring, RING_SIZE));
    TRY(flow_cache_new(&w->flows));
    TRY(coalescer_new(&w->coalescer, w->p.uso));
    TRY(hold_new(&w->hold));
    TRY(hold_new(&w->early));
    TRY(flow_log_new(&w->flow_log));
    TRY(fragment_table_new(&w->fragments, FRAGMENT_SETS));
    TRY(reassembly_new(&w->reassembly, fragments_dropped, w));
    if (w->p.loop) {
        w->loop = w->p.loop;
    } else {
        w->hooks = worker_hooks(&w->self);
        TRY(loop_new(w->p.io, &w->hooks, &w->loop, why, why_size));
        w->own_loop = true;
        w->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->call_fd < 0)
            return ERR_SYSTEM;
        TRY(loop_watch_add(w->loop, w->call_fd, EPOLLIN, on_call, w, &w->call_watch));
    }
    return open_ios(w);
}

enum err worker_new(struct worker **out, const struct worker_params *p, char *why, size_t why_size)
{
    struct worker *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);
    if (!w)
        return ERR_NOMEM;
    *w = (struct worker){.p = *p, .call_fd = -1};
    w->identification = (uint16_t)(p->index << 12); /* each worker has some of its own, for a while */
    w->self = w;
    w->icmp_tokens = ICMP_BURST;
    if (!w->p.now)
        w->p.now = real_now;
    cover_init(&w->cover);
    w->audit.next = NS_NEVER;
    for (unsigned i = 0; i < ACQUIRE_SLOTS; i++)
        w->acquired[i].policy_id = SPD_NONE;
    enum err e = worker_init(w, why, why_size);
    if (e != OK) {
        worker_free(w);
        return e;
    }
    *out = w;
    return OK;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    worker_stop(w);
    if (w->own_loop) {
        loop_free(w->loop);
    } else if (w->loop) {
        if (w->tun)
            loop_io_close(w->loop, w->tun);
        for (unsigned i = 0; i < w->p.socket_count; i++)
            if (w->sockets[i].io)
                loop_io_close(w->loop, w->sockets[i].io);
    }
    if (w->call_fd >= 0)
        close(w->call_fd);
    coalescer_free(w->coalescer);
    hold_free(w->hold);
    hold_free(w->early);
    flow_log_free(w->flow_log);
    fragment_table_free(w->fragments);
    reassembly_free(w->reassembly);
    flow_cache_free(w->flows);
    ring_free(w->ring);
    free(w);
}

static ns_t deadline(const struct worker *w)
{
    const ns_t all[] = {hold_deadline(w->hold), hold_deadline(w->early),        w->cover.next,
                        w->audit.next,          flow_log_deadline(w->flow_log), reassembly_deadline(w->reassembly)};
    ns_t least = NS_NEVER;
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        least = all[i] < least ? all[i] : least;
    return least;
}

/* A turn that fails may be short of memory for a moment; one that goes on failing is the end of this worker. */
static bool turns_well(struct worker *w)
{
    for (unsigned i = 0; i < TURN_TRIES; i++) {
        if (loop_turn(w->loop, deadline(w)) == OK)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = (long)NS_PER_MS << i}, NULL);
    }
    return false;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    epoch_online(w->p.shared->epoch, w->p.index);
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        if (turns_well(w))
            continue;
        log_line(LOG_ERROR, "core", "worker %u can't go on: %s", w->p.index, strerror(errno));
        atomic_store(&w->failed, true);
        wake_control(w);
        break;
    }
    epoch_offline(w->p.shared->epoch, w->p.index);
    return NULL;
}

bool worker_failed(const struct worker *w)
{
    return atomic_load(&w->failed);
}

enum err worker_start(struct worker *w)
{
    /* Signals are the control thread's; but a fault must end the process with its report. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    sigset_t all, old;
    sigfillset(&all);
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e)
        return ERR_SYSTEM;
    w->started = true;
    return OK;
}

void worker_call(struct worker *w)
{
    uint64_t one = 1;
    atomic_store(&w->called, true);
    if (w->call_fd >= 0 && write(w->call_fd, &one, sizeof one) < 0) {
        /* Only a counter near 2^64 refuses a write, and then the worker is awake. */
    }
}

void worker_stop(struct worker *w)
{
    if (!w->started)
        return;
    atomic_store(&w->stop, true);
    worker_call(w);
    pthread_join(w->thread, NULL);
    w->started = false;
}

struct ring *worker_ring(struct worker *w)
{
    return w->ring;
}

const struct stat_block *worker_stats(const struct worker *w)
{
    return &w->stats;
}

const char *worker_loop_name(const struct worker *w)
{
    return w->loop->ops->name;
}
