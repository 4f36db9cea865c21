/* Another configuration for a running daemon: whole or not at all. */
#include <stdio.h>
#include <string.h>

#include "core/daemon.h"

struct complaints {
    json_t *list; /* for a client; NULL: none */
};

static void complain(struct complaints *c, enum log_level level, const char *line)
{
    log_line(level, "core", "%s", line);
    if (c->list && level == LOG_ERROR)
        (void)json_array_append_new(c->list, control_text(line));
}

static void on_error(void *ctx, const char *file, unsigned line, const char *text)
{
    char out[1024];
    config_line_text(out, sizeof out, file, line, text);
    complain(ctx, LOG_ERROR, out);
}

static void on_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    char out[1024];
    config_line_text(out, sizeof out, file, line, text);
    complain(ctx, LOG_WARN, out);
}

static bool listen_same(const struct host *a, const struct host *b)
{
    if (a->listens != b->listens)
        return false;
    for (unsigned i = 0; i < a->listens; i++)
        if (!ip_equal(&a->listen[i], &b->listen[i]))
            return false;
    return true;
}

/* Addresses may be added while running, not taken away. */
static bool addresses_kept(const struct host *now, const struct host *next)
{
    for (unsigned i = 0; i < now->addresses; i++) {
        bool kept = false;
        for (unsigned k = 0; k < next->addresses && !kept; k++)
            kept = now->address[i].bits == next->address[k].bits && ip_equal(&now->address[i].ip, &next->address[k].ip);
        if (!kept)
            return false;
    }
    return true;
}

/* What can't change while running; each such change is a complaint. */
static bool fixed_kept(struct complaints *c, const char *file, const struct host *now, const struct host *next)
{
    const struct {
        bool same;
        const char *key;
    } keys[] = {
        {strcmp(now->tun, next->tun) == 0, "tun"},
        {now->port == next->port, "port"},
        {now->nat_port == next->nat_port, "nat-port"},
        {listen_same(now, next), "listen"},
        {now->workers == next->workers, "workers"},
        {now->io == next->io, "io"},
        {strcmp(now->control, next->control) == 0, "control"},
        {strcmp(now->keylog, next->keylog) == 0, "keylog"},
        {addresses_kept(now, next), "address (taking one away)"},
    };
    bool kept = true;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char line[400];
        if (keys[i].same)
            continue;
        kept = false;
        snprintf(line, sizeof line, "%s: [host] %s: the change needs a restart", file, keys[i].key);
        complain(c, LOG_ERROR, line);
    }
    return kept;
}

/* The point of no return: nothing here can fail. */
static void put_in_force(struct daemon *d, struct config *next, struct ike_change *change, struct spd *spd)
{
    struct config *old = d->config;
    ns_t now = clock_now();
    ike_reload(d->engine, change, now);
    d->config = next;
    d->loads++;
    dataplane_commit(d->dataplane, next, spd);
    dataplane_resize(d->dataplane);
    daemon_workers_call(d);
    daemon_settle(d);
    log_setup(next->host.log, next->host.log_format);
    config_free(old);
    ike_start(d->engine, now);
}

enum err daemon_reload(struct daemon *d, json_t *errors)
{
    struct complaints c = {errors};
    const struct config_report report = {.ctx = &c, .error = on_error, .warning = on_warning};
    struct config *next = NULL;
    TRY(config_load(d->file, &report, &next));
    char why[256], line[600];
    struct spd *spd = NULL;
    struct ike_change *change = NULL;
    enum err e = fixed_kept(&c, d->file, &d->config->host, &next->host) ? OK : ERR_STATE;
    if (e == OK) {
        e = host_extend(d->host, next, why, sizeof why);
        if (e == OK && ((e = ike_change_new(&change, d->config, next)) != OK ||
                        (e = dataplane_prepare(d->dataplane, next, &spd)) != OK))
            snprintf(why, sizeof why, "%s", err_text(e));
        if (e != OK) {
            daemon_settle(d); /* takes back what host_extend added */
            snprintf(line, sizeof line, "%s: %s", d->file, why);
            complain(&c, LOG_ERROR, line);
        }
    }
    if (e != OK) {
        ike_change_free(change);
        config_free(next);
        return e;
    }
    put_in_force(d, next, change, spd);
    log_line(LOG_INFO, "core", "%s loaded: %u peers, %u policies", d->file, next->peer_count, next->policy_count);
    return OK;
}
