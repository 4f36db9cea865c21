#include "test/unit/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "test/unit/packets.h"
#include "test/unit/reload.h"
#include "tun/offload.h"
#include "tun/raw.h"

static ns_t rig_now(void *ctx)
{
    struct rig *r = ctx;
    return memory_now(r->net);
}

/* -- ike_env -- */

static void env_send(void *ctx, const struct path *path, struct span message)
{
    struct rig_host *h = ctx;
    uint8_t datagram[4096] = {0};
    size_t marker = path->marker ? 4 : 0;
    assert_true(message.len + marker <= sizeof datagram);
    memcpy(datagram + marker, message.data, message.len);
    memory_send(h->rig->net, &path->local, &path->remote, datagram, message.len + marker);
}

static void env_send_whole(void *ctx, const struct path *path, struct span message)
{
    struct rig_host *h = ctx;
    h->rig->probes += h == &h->rig->host[0];
    env_send(ctx, path, message);
}

static void env_probed(void *ctx, uint64_t child, unsigned bytes, bool through)
{
    struct rig_host *h = ctx;
    dataplane_probed(h->dataplane, child, bytes, through, h->rig->now);
}

static unsigned link_of(void *ctx, const struct path *path)
{
    (void)ctx;
    (void)path;
    return 1500;
}

static enum err probe(void *ctx, uint64_t child, unsigned bytes)
{
    struct rig_host *h = ctx;
    return ike_probe(h->engine, child, bytes, h->rig->now);
}

static void doubt(void *ctx, uint64_t child)
{
    struct rig_host *h = ctx;
    ike_child_doubtful(h->engine, child, h->rig->now);
}

static void env_keepalive(void *ctx, const struct path *path)
{
    struct rig_host *h = ctx;
    memory_send(h->rig->net, &path->local, &path->remote, (const uint8_t[]){0xff}, 1);
}

static enum err env_reserve(void *ctx, uint32_t *spi)
{
    return dataplane_reserve(((struct rig_host *)ctx)->dataplane, spi);
}

static void env_release(void *ctx, uint32_t spi)
{
    dataplane_release(((struct rig_host *)ctx)->dataplane, spi);
}

static enum err env_install(void *ctx, const struct ike_child *c, bool sending)
{
    struct rig_host *h = ctx;
    enum err e = dataplane_install(h->dataplane, c, "auto", sending, h->rig->now);
    worker_call(h->worker);
    return e;
}

static void env_activate(void *ctx, uint64_t child)
{
    struct rig_host *h = ctx;
    dataplane_activate(h->dataplane, child);
    worker_call(h->worker);
}

static void env_remove(void *ctx, uint64_t child, bool linger)
{
    struct rig_host *h = ctx;
    dataplane_remove(h->dataplane, child, linger, h->rig->now);
}

static void env_move(void *ctx, uint64_t child, const struct path *path)
{
    dataplane_move(((struct rig_host *)ctx)->dataplane, child, path);
}

static void env_traffic(void *ctx, uint64_t child, ns_t *in, ns_t *out)
{
    dataplane_traffic(((struct rig_host *)ctx)->dataplane, child, in, out);
}

static enum err env_job(void *ctx, struct ike_job *job)
{
    struct rig_host *h = ctx;
    assert_true(h->job_count < 64);
    h->jobs[h->job_count++] = job;
    return OK;
}

static bool env_raw(void *ctx)
{
    (void)ctx;
    return true;
}

static void env_event(void *ctx, const struct ike_event *e)
{
    struct rig_host *h = ctx;
    h->up += e->kind == IKE_EVENT_CHILD_UP;
    h->down += e->kind == IKE_EVENT_CHILD_DOWN;
    h->rekeyed += e->kind == IKE_EVENT_CHILD_REKEYED;
    if (e->kind == IKE_EVENT_FAILED) {
        h->failed++;
        snprintf(h->last_failure, sizeof h->last_failure, "%s", e->text);
    }
}

/* -- life -- */

static bool on_wire(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    struct rig *r = ctx;
    r->marker_seen += len && memmem(data, len, RIG_MARKER, strlen(RIG_MARKER)) != NULL;
    bool esp = (to->port == 4500 && len > 8 && get_be32(data) != 0) || to->port == 0; /* of a raw socket: or AH */
    r->esp_seen += esp;
    if (esp && r->keep_wire && r->wire_count < 64 && len <= sizeof r->wire[0].data) {
        unsigned i = r->wire_count++;
        r->wire[i].from = *from;
        r->wire[i].to = *to;
        r->wire[i].len = len;
        memcpy(r->wire[i].data, data, len);
    }
    bool first = ip_equal(&from->ip, &r->host[0].at.ip);
    return !(first && r->path_mtu && len + 28 > r->path_mtu);
}

static void complain(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    print_message("%s:%u: %s\n", file, line, text);
}

/* The other's endpoint and what is protected. */
static void describe(int fd, const struct rig_layout *l, unsigned me)
{
    unsigned other = 3 - me;
    const char *net = l->ipv6 ? "2001:db8::" : "192.0.2.";
    char peer[IP_TEXT];
    snprintf(peer, sizeof peer, "%s%u", net, other);
    if (l->nat && me == 2)
        snprintf(peer, sizeof peer, "203.0.113.7");
    dprintf(fd, "[peer other]\nendpoint = %s\n", peer);
    if (l->nat)
        dprintf(fd, "id = host%u\nlocal-id = host%u\n", other, me);
    if (l->hosts)
        dprintf(fd, "local = %s%u\nremote = %s\n", net, me, peer);
    else
        dprintf(fd, "local = 10.%u.0.0/24%s, fd00:%u::/32%s\nremote = 10.%u.0.0/24%s, fd00:%u::/32%s\n", me,
                me == 2 ? l->suffix : "", me, me == 2 ? l->suffix : "", other, me == 1 ? l->suffix : "", other,
                me == 1 ? l->suffix : "");
}

static void load(struct rig_host *h, unsigned me, const char *extra, struct config **out)
{
    char path[] = "/tmp/adit-rig-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    describe(fd, &h->rig->layout, me);
    dprintf(fd, "psk = \"a secret of the test\"\n%s%s", strstr(extra, "start =") ? "" : "start = no\n", extra);
    close(fd);
    struct config_report report = {.error = complain, .warning = complain};
    assert_int_equal(config_load(path, &report, out), OK);
    unlink(path);
}

static void host_setup(struct rig *r, unsigned i, uint64_t seed)
{
    struct rig_host *h = &r->host[i];
    h->rig = r;
    h->at = (struct endpoint){.ip = {.family = 4, .b = {192, 0, 2, (uint8_t)(i + 1)}}};
    if (r->layout.ipv6)
        h->at = (struct endpoint){.ip = {.family = 6, .b = {0x20, 1, 0xd, 0xb8, [15] = (uint8_t)(i + 1)}}};
    load(h, i + 1, r->extra, &h->config);
    assert_int_equal(epoch_new(&h->shared.epoch, 1), OK);
    assert_int_equal(sad_new(&h->shared.sad, h->shared.epoch, &random_system), OK);
    atomic_store(&h->shared.mtu, RIG_MTU);
    timer_heap_init(&h->timers, h);
    struct path_mtu_env sizes = {.ctx = h, .timers = &h->timers, .link = link_of, .probe = probe, .doubt = doubt};
    struct dataplane_params dp = {.shared = &h->shared, .workers = 1, .timers = &h->timers, .sizes = &sizes};
    assert_int_equal(dataplane_new(&h->dataplane, &dp), OK);
    struct spd *spd;
    assert_int_equal(dataplane_prepare(h->dataplane, h->config, &spd), OK);
    dataplane_commit(h->dataplane, h->config, spd);

    struct loop_hooks hooks = worker_hooks(&h->worker);
    assert_int_equal(memory_loop_new(r->net, &hooks, &h->loop), OK);
    if (!h->tun)
        h->tun = memory_tun(r->net);
    struct worker_params p = {.shared = &h->shared,
                              .loop = h->loop,
                              .tun_fd = h->tun,
                              .uso = true,
                              .now = rig_now,
                              .now_ctx = r,
                              .wake_fd = -1,
                              .socket_count = 4};
    static const uint16_t ports[2] = {500, 4500};
    for (unsigned k = 0; k < 2; k++) {
        struct endpoint local = {.ip = h->at.ip, .port = ports[k]};
        if (!h->udp[k])
            h->udp[k] = memory_udp(r->net, &local);
        p.sockets[k] = (struct worker_socket){.fd = h->udp[k], .local = local, .marker = ports[k] == 4500};
    }
    static const uint8_t protocols[2] = {RAW_ESP, RAW_AH};
    for (unsigned k = 0; k < 2; k++) {
        if (!h->raw[k])
            h->raw[k] = memory_raw(r->net, &h->at.ip, protocols[k]);
        p.sockets[2 + k] =
            (struct worker_socket){.fd = h->raw[k], .kind = k ? SOCKET_AH : SOCKET_ESP, .local = {.ip = h->at.ip}};
    }
    assert_int_equal(worker_new(&h->worker, &p, NULL, 0), OK);

    struct ike_env env = {
        .ctx = h,
        .random = random_seeded_source(&h->random, seed + i),
        .stats = &h->stats,
        .send = env_send,
        .send_whole = env_send_whole,
        .probed = env_probed,
        .keepalive = env_keepalive,
        .spi_reserve = env_reserve,
        .spi_release = env_release,
        .child_install = env_install,
        .child_activate = env_activate,
        .child_remove = env_remove,
        .child_move = env_move,
        .child_traffic = env_traffic,
        .job = env_job,
        .event = env_event,
        .raw = env_raw,
        .transport_mode = true,
    };
    assert_int_equal(ike_new(&h->engine, &env, h->config, NULL), OK);
    struct endpoint local = {.ip = h->at.ip, .port = 500};
    ike_local_hint(h->engine, h->config->peers[0], &local);
}

void rig_setup_as(struct rig *r, uint64_t seed, const char *extra, const struct rig_layout *layout)
{
    assert_int_equal(crypto_init(), OK);
    log_setup(LOG_ERROR, LOG_TEXT);
    memset(r, 0, sizeof *r);
    r->layout = *layout;
    snprintf(r->extra, sizeof r->extra, "%s", extra);
    assert_int_equal(memory_net_new(&r->net, seed), OK);
    memory_net_tap(r->net, on_wire, r);
    memory_net_faults(r->net, &(struct memory_faults){.delay = NS_PER_MS});
    struct ip inner = {.family = 4, .b = {192, 0, 2, 1}}, outer = {.family = 4, .b = {203, 0, 113, 7}};
    if (layout->nat)
        memory_net_nat(r->net, &inner, &outer);
    for (unsigned i = 0; i < 2; i++)
        host_setup(r, i, seed);
}

void rig_setup(struct rig *r, uint64_t seed, const char *extra)
{
    rig_setup_as(r, seed, extra, &(struct rig_layout){.ipv6 = false});
}

void rig_setup_ports(struct rig *r, uint64_t seed, const char *extra, const char *suffix)
{
    struct rig_layout layout = {.ipv6 = false};
    snprintf(layout.suffix, sizeof layout.suffix, "%s", suffix);
    rig_setup_as(r, seed, extra, &layout);
}

void rig_setup_ipv6(struct rig *r, uint64_t seed, const char *extra)
{
    rig_setup_as(r, seed, extra, &(struct rig_layout){.ipv6 = true});
}

static void run_jobs(struct rig_host *h)
{
    while (h->job_count) {
        struct ike_job *job = h->jobs[0];
        memmove(h->jobs, h->jobs + 1, --h->job_count * sizeof *h->jobs);
        ike_job_run(job);
        ike_complete(h->engine, job, h->rig->now);
    }
}

static void host_teardown(struct rig_host *h)
{
    run_jobs(h);
    ike_free(h->engine);
    worker_free(h->worker);
    loop_free(h->loop);
    dataplane_free(h->dataplane);
    sad_free(h->shared.sad);
    epoch_free(h->shared.epoch);
    timer_heap_free(&h->timers);
    config_free(h->config);
}

void rig_restart(struct rig *r, unsigned host, uint64_t seed)
{
    struct rig_host *h = &r->host[host], before = *h;
    host_teardown(h);
    *h = (struct rig_host){
        .tun = before.tun, .udp = {before.udp[0], before.udp[1]}, .raw = {before.raw[0], before.raw[1]}};
    host_setup(r, host, seed);
}

struct config *rig_switch(struct rig *r, unsigned host, const char *extra)
{
    struct rig_host *h = &r->host[host];
    struct config *old = h->config;
    struct ike_change *change;
    struct spd *spd;
    load(h, host + 1, extra, &h->config);
    assert_int_equal(reload_prepare(h->engine, h->config, &change), OK);
    assert_int_equal(dataplane_prepare(h->dataplane, h->config, &spd), OK);
    epoch_offline(h->shared.epoch, 0); /* its worker, in this same thread, holds nothing between two turns */
    dataplane_commit(h->dataplane, h->config, spd);
    epoch_online(h->shared.epoch, 0);
    ike_reload(h->engine, change, r->now);
    return old;
}

void rig_settle(struct rig *r, unsigned host, struct config *old)
{
    struct rig_host *h = &r->host[host];
    while (!ike_reload_some(h->engine, 1, r->now))
        continue;
    config_free(old);
    ike_start(h->engine, r->now);
}

void rig_reload(struct rig *r, unsigned host, const char *extra)
{
    rig_settle(r, host, rig_switch(r, host, extra));
}

void rig_teardown(struct rig *r)
{
    for (unsigned i = 0; i < 2; i++)
        host_teardown(&r->host[i]);
    memory_net_free(r->net);
}

static void one_event(struct rig_host *h, const struct worker_event *e)
{
    if (e->kind == WORKER_ACQUIRE)
        ike_acquire(h->engine, dataplane_policy(h->dataplane, e->policy_id), &e->packet, h->rig->now);
    if (e->kind == WORKER_SOFT)
        ike_child_soft(h->engine, e->child, h->rig->now);
    if (e->kind == WORKER_HARD)
        ike_child_hard(h->engine, e->child, h->rig->now);
    if (e->kind == WORKER_LONG)
        dataplane_long(h->dataplane, e->child, h->rig->now);
    if (e->kind == WORKER_MOVED)
        ike_child_moved(h->engine, e->child, &e->from, h->rig->now);
}

/* What the control thread does between two waits. */
static void control(struct rig_host *h)
{
    uint32_t type;
    struct span record;
    while (ring_peek(worker_ring(h->worker), &type, &record)) {
        if (type == WORKER_IKE) {
            struct worker_datagram d;
            memcpy(&d, record.data, sizeof d);
            ike_input(h->engine, &d.path, span_of(record.data + sizeof d, record.len - sizeof d), h->rig->now);
        } else if (type == WORKER_EVENT) {
            struct worker_event e;
            memcpy(&e, record.data, sizeof e);
            one_event(h, &e);
        } else if (type == WORKER_AUDIT) {
            if (h->audit_count < 64)
                memcpy(&h->audits[h->audit_count], record.data, sizeof h->audits[0]);
            h->audit_count++;
        } else if (type == WORKER_FLOW) {
            if (h->flow_count < 64)
                memcpy(&h->flows[h->flow_count], record.data, sizeof h->flows[0]);
            h->flow_count++;
        }
        ring_pop(worker_ring(h->worker));
        run_jobs(h);
    }
    ike_tick(h->engine, h->rig->now);
    run_jobs(h);
    timer_run(&h->timers, h->rig->now);
    epoch_reclaim(h->shared.epoch);
}

void rig_run(struct rig *r, ns_t how_long)
{
    ns_t until = memory_now(r->net) + how_long;
    while (memory_now(r->net) < until) {
        memory_run(r->net, memory_now(r->net) + NS_PER_MS);
        r->now = memory_now(r->net);
        control(&r->host[0]);
        control(&r->host[1]);
    }
}

void rig_up(struct rig *r)
{
    rig_run(r, NS_PER_MS);
    ike_up(r->host[0].engine, r->host[0].config->peers[0], NULL, 1, r->now);
    run_jobs(&r->host[0]);
    for (unsigned i = 0; i < 3000 && !(r->host[0].up && r->host[1].up); i++)
        rig_run(r, 10 * NS_PER_MS);
    if (!r->host[0].up || !r->host[1].up)
        fail_msg("no tunnel: %s / %s", r->host[0].last_failure, r->host[1].last_failure);
}

void rig_inject(struct rig *r, unsigned host, const uint8_t *frame, size_t len)
{
    assert_int_equal(memory_tun_inject(r->net, r->host[host].tun, frame, len), OK);
}

void rig_send_udp(struct rig *r, unsigned from, bool ipv6, const uint8_t *data, size_t len)
{
    static uint8_t frame[66000];
    struct packet_spec s = packet_spec_udp(ipv6);
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, data, len, frame + TUN_HDR_LEN);
    if (from == 1)
        packet_mirror(frame + TUN_HDR_LEN);
    rig_inject(r, from, frame, TUN_HDR_LEN + n);
}

void rig_inject_udp(struct rig *r, uint8_t net)
{
    static const uint8_t payload[100];
    uint8_t frame[TUN_HDR_LEN + 28 + sizeof payload] = {0};
    struct packet_spec s = packet_spec_udp(false);
    size_t n = packet_build(&s, payload, sizeof payload, frame + TUN_HDR_LEN);
    frame[TUN_HDR_LEN + 17] = net; /* of the destination */
    rig_inject(r, 0, frame, TUN_HDR_LEN + n);
}

struct sa *rig_out_sa(const struct rig *r, unsigned host)
{
    struct sa *sa = sad_find_out(r->host[host].shared.sad, 0, 0);
    assert_non_null(sa);
    return sa;
}

uint64_t rig_stat(const struct rig *r, unsigned host, enum stat_id s)
{
    return stat_get(worker_stats(r->host[host].worker), s);
}
