/* What the engine needs from outside (struct ike_env), wired to sockets, data plane, log and control socket. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/daemon.h"
#include "core/trace.h"
#include "tun/udp.h"

/* The address we send from has gone, or the way there: after a new lease, or a switch of the uplink. */
static bool address_stale(int error)
{
    return error == EINVAL || error == EADDRNOTAVAIL || error == ENETUNREACH || error == EHOSTUNREACH;
}

static void env_datagram(struct daemon *d, const struct path *path, struct span data)
{
    int fd = host_socket(d->host, path);
    if (fd >= 0 && udp_send(fd, path, data.data, data.len) == OK) {
        stat_add(&d->stats, STAT_TX_DATAGRAMS, 1);
        stat_add(&d->stats, STAT_TX_CALLS, 1);
        return;
    }
    char text[ENDPOINT_TEXT];
    int error = errno;
    stat_add(&d->stats, STAT_DROP_OUT_SEND, 1);
    log_limited(&d->limit, LOG_INFO, "ike", "could not send to %s: %s", endpoint_format(&path->remote, text),
                fd < 0 ? "no socket of that address and port" : strerror(error));
    if (fd >= 0 && address_stale(error))
        daemon_refresh_soon(d); /* not at once: this runs within the engine, which takes no calls now */
}

static void env_send(void *ctx, const struct path *path, struct span message)
{
    trace_ike("sent to", path, message);
    env_datagram(ctx, path, message);
}

/* What the kernel refuses as too long is lost like what a router drops: the probe tells. */
static void env_send_whole(void *ctx, const struct path *path, struct span message)
{
    struct daemon *d = ctx;
    trace_ike("sent to", path, message);
    int df = host_socket_df(d->host, path), fd = df >= 0 ? df : host_socket(d->host, path);
    if (fd < 0 || udp_send_whole(fd, df >= 0, path, message.data, message.len) != OK)
        return;
    stat_add(&d->stats, STAT_TX_DATAGRAMS, 1);
    stat_add(&d->stats, STAT_TX_CALLS, 1);
}

static void env_probed(void *ctx, uint64_t child, unsigned bytes, bool through)
{
    struct daemon *d = ctx;
    dataplane_probed(d->dataplane, child, bytes, through, clock_now());
}

static void env_keepalive(void *ctx, const struct path *path)
{
    /* RFC 3948 section 2.3: one byte 0xff, without the marker. */
    struct path bare = *path;
    bare.marker = false;
    env_datagram(ctx, &bare, span_of("\xff", 1));
}

static enum err env_spi_reserve(void *ctx, uint32_t *spi)
{
    struct daemon *d = ctx;
    return dataplane_reserve(d->dataplane, spi);
}

static void env_spi_release(void *ctx, uint32_t spi)
{
    struct daemon *d = ctx;
    dataplane_release(d->dataplane, spi);
}

/* Where raw ESP was counted on and UDP it is, there is room for less: the MTU is to follow. */
static void note_encap(struct daemon *d, const struct peer *peer, const struct path *path)
{
    if (peer->encap != ENCAP_RAW || path->transport == PATH_RAW)
        return;
    d->unsized = true;
    daemon_refresh_soon(d);
}

void daemon_workers_call(struct daemon *d)
{
    for (unsigned i = 0; i < d->worker_count; i++)
        worker_call(d->workers[i]);
}

static enum err env_child_install(void *ctx, const struct ike_child *c, bool sending)
{
    struct daemon *d = ctx;
    if (c->mode == MODE_TRANSPORT) /* the header that a packet gets back has it */
        host_tell_ttl(d->host);
    enum err e = dataplane_install(d->dataplane, c, d->config->host.crypto, sending, clock_now());
    if (e == OK)
        keylog_child(&d->keylog, c);
    if (e == OK)
        note_encap(d, c->peer, &c->path);
    if (e == OK)
        daemon_workers_call(d);
    else
        log_line(LOG_ERROR, "core", "policy %s: the SA could not be set up: %s", c->policy->name, err_text(e));
    return e;
}

static void env_child_activate(void *ctx, uint64_t child)
{
    struct daemon *d = ctx;
    dataplane_activate(d->dataplane, child);
    daemon_workers_call(d);
}

static void env_child_remove(void *ctx, uint64_t child, bool linger)
{
    struct daemon *d = ctx;
    dataplane_remove(d->dataplane, child, linger, clock_now());
}

static void env_child_move(void *ctx, uint64_t child, const struct path *path)
{
    struct daemon *d = ctx;
    dataplane_move(d->dataplane, child, path);
}

static void env_child_traffic(void *ctx, uint64_t child, ns_t *in, ns_t *out)
{
    struct daemon *d = ctx;
    dataplane_traffic(d->dataplane, child, in, out);
}

static enum err env_job(void *ctx, struct ike_job *job)
{
    struct daemon *d = ctx;
    return job_push(d->jobs, job);
}

static int64_t env_wall(void *ctx)
{
    (void)ctx;
    return (int64_t)time(NULL);
}

static enum err env_resolve(void *ctx, uint64_t lookup, const struct peer *peer)
{
    struct daemon *d = ctx;
    return resolver_ask(d->resolver, lookup, peer->endpoints, peer->endpoint_count);
}

static void env_keylog(void *ctx, const char *line)
{
    struct daemon *d = ctx;
    keylog_ike(&d->keylog, line);
}

/* -- events: the audit log, and the end of commands -- */

/* The first word behind the peer's name, for programs that read the log. */
static const char *const event_names[] = {
    [IKE_EVENT_IKE_UP] = "ike-up",
    [IKE_EVENT_IKE_REKEYED] = "ike-rekeyed",
    [IKE_EVENT_IKE_DOWN] = "ike-down",
    [IKE_EVENT_CHILD_UP] = "child-up",
    [IKE_EVENT_CHILD_REKEYED] = "child-rekeyed",
    [IKE_EVENT_CHILD_DOWN] = "child-down",
    [IKE_EVENT_FAILED] = "failed",
    [IKE_EVENT_NOTICE] = "notice",
    [IKE_EVENT_IKE_MOVED] = "ike-moved",
};

/* How a command ended is for who gave it; what failed on the way has been told by an event of its own. */
static enum log_level event_level(const struct ike_event *e)
{
    return e->command ? LOG_DEBUG : e->kind == IKE_EVENT_FAILED ? LOG_WARN : LOG_INFO;
}

static void env_event(void *ctx, const struct ike_event *e)
{
    struct daemon *d = ctx;
    const char *text = e->text ? e->text : "";
    char remote[ENDPOINT_TEXT];
    if (e->peer)
        log_line(event_level(e), "audit", "%s%s%s %s: %s", e->peer->name, e->policy ? "/" : "",
                 e->policy ? e->policy->name : "", event_names[e->kind], text);
    else /* a stranger can bring these about as often as he likes */
        log_limited(&d->limit, event_level(e), "audit", "%s %s: %s", endpoint_format(&e->path.remote, remote),
                    event_names[e->kind], text);
    if (e->command)
        control_finish(d->control, e->command, e->command_ok, text);
}

static bool env_source(void *ctx, const struct ip *remote, struct ip *local)
{
    struct daemon *d = ctx;
    return host_source(d->host, d->config, remote, local);
}

static bool env_raw(void *ctx)
{
    struct daemon *d = ctx;
    const char *why;
    return host_raw(d->host, &why);
}

struct ike_env daemon_env(struct daemon *d)
{
    return (struct ike_env){
        .ctx = d,
        .random = random_system,
        .stats = &d->stats,
        .send = env_send,
        .send_whole = env_send_whole,
        .probed = env_probed,
        .keepalive = env_keepalive,
        .spi_reserve = env_spi_reserve,
        .spi_release = env_spi_release,
        .child_install = env_child_install,
        .child_activate = env_child_activate,
        .child_remove = env_child_remove,
        .child_move = env_child_move,
        .child_traffic = env_child_traffic,
        .job = env_job,
        .wall = env_wall,
        .resolve = env_resolve,
        .event = env_event,
        .source = env_source,
        .keylog = d->keylog.ike_fd >= 0 ? env_keylog : NULL,
        .raw = env_raw,
        .transport_mode = true,
    };
}
