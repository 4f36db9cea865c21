#include "test/unit/crowd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct crowd_packet {
    unsigned to;
    struct path path; /* as the receiver sees it */
    size_t len;
    uint8_t *data;
};

static void die(const char *what)
{
    fprintf(stderr, "crowd: %s\n", what);
    abort();
}

/* Room for one more of them. */
static void *more(void *v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap ? *cap * 2 : 64;
    v = realloc(v, *cap * size);
    if (!v)
        die("out of memory");
    return v;
}

/* -- what the engines are given -- */

static void env_send(void *ctx, const struct path *path, struct span message)
{
    struct crowd_end *from = ctx;
    struct crowd *c = from->crowd;
    unsigned me = (unsigned)(from - c->end);
    c->sent++;
    if (c->lose && c->lose(c, me, message))
        return;
    c->queue = more(c->queue, c->len, &c->cap, sizeof *c->queue);
    struct crowd_packet *p = &c->queue[c->len++];
    *p = (struct crowd_packet){.to = 1 - me, .path = *path, .len = message.len, .data = malloc(message.len)};
    p->path.local = path->remote;
    p->path.remote = path->local;
    if (!p->data)
        die("out of memory");
    memcpy(p->data, message.data, message.len);
}

static void env_keepalive(void *ctx, const struct path *path)
{
    (void)ctx;
    (void)path;
}

static enum err env_spi_reserve(void *ctx, uint32_t *spi)
{
    *spi = ++((struct crowd_end *)ctx)->spi + 4096;
    return OK;
}

static void env_spi_release(void *ctx, uint32_t spi)
{
    (void)ctx;
    (void)spi;
}

static enum err env_install(void *ctx, const struct ike_child *child, bool sending)
{
    (void)child;
    (void)sending;
    ((struct crowd_end *)ctx)->installed++;
    return OK;
}

static void env_activate(void *ctx, uint64_t child)
{
    (void)ctx;
    (void)child;
}

static void env_remove(void *ctx, uint64_t child, bool linger)
{
    (void)child;
    (void)linger;
    ((struct crowd_end *)ctx)->removed++;
}

static void env_move(void *ctx, uint64_t child, const struct path *path)
{
    (void)ctx;
    (void)child;
    (void)path;
}

static void env_traffic(void *ctx, uint64_t child, ns_t *in, ns_t *out)
{
    (void)ctx;
    (void)child;
    *in = *out = 0;
}

static enum err env_job(void *ctx, struct ike_job *job)
{
    struct crowd_end *end = ctx;
    if (end->full)
        return ERR_FULL;
    end->jobs = more(end->jobs, end->job_count, &end->job_cap, sizeof(struct ike_job *));
    end->jobs[end->job_count++] = job;
    return OK;
}

static void env_event(void *ctx, const struct ike_event *e)
{
    struct crowd_end *end = ctx;
    end->events[e->kind]++;
    if (e->kind == IKE_EVENT_FAILED)
        snprintf(end->failure, sizeof end->failure, "%s", e->text);
}

/* -- setting up -- */

static void complain(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    fprintf(stderr, "%s:%u: %s\n", file, line, text);
}

static void write_clients(FILE *f, unsigned clients, const char *extra)
{
    for (unsigned i = 0; i < clients; i++)
        fprintf(f,
                "[peer p%u]\nendpoint = 192.0.2.2\nid = hub.test\nlocal-id = p%u.test\npsk = \"a secret\"\n"
                "local = 10.%u.%u.%u\nremote = 10.1.0.1\n%s",
                i, i, 32 + (i >> 16), i >> 8 & 255, i & 255, extra);
}

static void write_hub(FILE *f, const char *extra, const char *hub_extra)
{
    fprintf(f,
            "[peer clients]\nendpoint = %%any\nid = %%any\nlocal-id = hub.test\npsk = \"a secret\"\n"
            "local = 10.1.0.1\nremote = 10.32.0.0-10.47.255.255\n%s%s",
            extra, hub_extra);
}

static struct config *load(unsigned which, unsigned clients, const char *extra, const char *hub_extra)
{
    char path[] = "/tmp/adit-crowd-XXXXXX";
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    struct config *config = NULL;
    const struct config_report report = {.error = complain, .warning = complain};
    if (!f)
        die("no file for the configuration");
    if (which == CROWD_HUB)
        write_hub(f, extra, hub_extra);
    else
        write_clients(f, clients, extra);
    fclose(f);
    if (config_load(path, &report, &config) != OK)
        die("the configuration");
    unlink(path);
    return config;
}

static void set_up(struct crowd *c, unsigned which, struct config *config, const struct ike_limits *limits)
{
    struct crowd_end *end = &c->end[which];
    end->crowd = c;
    end->config = config;
    struct ike_env env = {
        .ctx = end,
        .random = random_seeded_source(&end->random, which + 1),
        .stats = &end->stats,
        .send = env_send,
        .keepalive = env_keepalive,
        .spi_reserve = env_spi_reserve,
        .spi_release = env_spi_release,
        .child_install = env_install,
        .child_activate = env_activate,
        .child_remove = env_remove,
        .child_move = env_move,
        .child_traffic = env_traffic,
        .job = env_job,
        .event = env_event,
    };
    if (ike_new(&end->e, &env, config, limits) != OK)
        die("no engine");
    struct endpoint local = {.ip = {.family = 4, .b = {192, 0, 2, 1}}, .port = 500};
    for (unsigned i = 0; which == CROWD_CLIENTS && i < config->peer_count; i++)
        ike_local_hint(end->e, config->peers[i], &local);
}

struct crowd *crowd_new(unsigned clients, const char *extra, const char *hub_extra, const struct ike_limits *limits)
{
    struct crowd *c = calloc(1, sizeof *c);
    if (!c)
        die("out of memory");
    c->now = NS_PER_S;
    for (unsigned which = 0; which < 2; which++)
        set_up(c, which, load(which, clients, extra, hub_extra), limits);
    return c;
}

void crowd_free(struct crowd *c)
{
    for (unsigned i = 0; i < 2; i++) {
        struct crowd_end *end = &c->end[i];
        ike_free(end->e);
        for (size_t k = 0; k < end->job_count; k++)
            ike_job_free(end->jobs[k]);
        free(end->jobs);
        config_free(end->config);
    }
    for (size_t i = 0; i < c->len; i++)
        free(c->queue[i].data);
    free(c->queue);
    free(c);
}

/* -- running -- */

static uint64_t cpu_now(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static bool run_jobs(struct crowd *c)
{
    bool some = false;
    for (unsigned i = 0; i < 2; i++) {
        struct crowd_end *end = &c->end[i];
        while (end->job_count) {
            struct ike_job *job = end->jobs[--end->job_count];
            ike_job_run(job);
            ike_complete(end->e, job, c->now);
            some = true;
        }
    }
    return some;
}

static bool deliver(struct crowd *c)
{
    struct crowd_packet *queue = c->queue;
    size_t n = c->len;
    c->queue = NULL;
    c->len = c->cap = 0;
    for (size_t i = 0; i < n; i++) {
        struct crowd_end *to = &c->end[queue[i].to];
        uint64_t before = cpu_now();
        ike_input(to->e, &queue[i].path, span_of(queue[i].data, queue[i].len), c->now);
        to->cpu += cpu_now() - before;
        to->inputs++;
        free(queue[i].data);
    }
    free(queue);
    return n;
}

void crowd_settle(struct crowd *c)
{
    while (run_jobs(c) || deliver(c))
        ;
}

static ns_t next_timer(const struct crowd *c)
{
    ns_t a = ike_deadline(c->end[0].e), b = ike_deadline(c->end[1].e);
    return a < b ? a : b;
}

void crowd_run(struct crowd *c, ns_t until)
{
    crowd_settle(c);
    for (ns_t at; (at = next_timer(c)) <= until;) {
        c->now = at > c->now ? at : c->now;
        for (unsigned i = 0; i < 2; i++)
            if (ike_deadline(c->end[i].e) <= c->now)
                ike_tick(c->end[i].e, c->now);
        crowd_settle(c);
    }
    c->now = until > c->now ? until : c->now;
}

bool crowd_up(struct crowd *c, ns_t patience)
{
    ns_t end = c->now + patience;
    ike_start(c->end[CROWD_CLIENTS].e, c->now);
    crowd_settle(c);
    while (ike_count(c->end[CROWD_CLIENTS].e).child_sas < c->end[CROWD_CLIENTS].config->peer_count && c->now < end)
        crowd_run(c, c->now + NS_PER_S / 10);
    return ike_count(c->end[CROWD_CLIENTS].e).child_sas == c->end[CROWD_CLIENTS].config->peer_count;
}
