/*
 * Another configuration for a running daemon: whole or not at all. There may be thousands of peers, so it is read,
 * compared with the one in force and compiled in threads of their own, and so is the old one freed; what only the
 * control thread can do goes by slices. Until it is put in force, in one turn and in no time, nothing has changed; what
 * can still fail comes before.
 */
#include "core/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/daemon.h"
#include "core/report.h"

#define LOOK (2 * NS_PER_MS)  /* whether a thread has done its part */
#define SLICE (NS_PER_MS / 2) /* of a turn */
#define AT_ONCE 8             /* peers, or SAs, between two looks at the clock */

/* What the reading thread works on. */
struct reading {
    const char *file;
    struct host_state *host;
    const struct config *from; /* in force: it stays so meanwhile */
    struct config *next;
    struct ike_change *change;
    struct spd *spd;
    struct config *old;        /* once next is in force: what was before */
    unsigned resized, started; /* how far that is */
    json_t *errors;            /* lines for whoever asked */
    enum err err;
};

static void complain(struct reading *r, enum log_level level, const char *line)
{
    log_line(level, "core", "%s", line);
    if (r->errors && level == LOG_ERROR)
        (void)json_array_append_new(r->errors, control_text(line));
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
static bool fixed_kept(struct reading *c, const char *file, const struct host *now, const struct host *next)
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

/* -- in a thread -- */

static void read_and_compare(void *ctx)
{
    struct reading *r = ctx;
    const struct config_report report = {.ctx = r, .error = on_error, .warning = on_warning};
    r->err = config_load(r->file, &report, &r->next);
    if (r->err == OK)
        r->err = fixed_kept(r, r->file, &r->from->host, &r->next->host) ? OK : ERR_STATE;
    if (r->err == OK)
        r->err = ike_change_new(&r->change, r->from, r->next);
}

static void filter(void *ctx)
{
    struct reading *r = ctx;
    char why[256], line[600];
    r->err = host_filter(r->host, r->next, why, sizeof why);
    if (r->err == OK)
        return;
    snprintf(line, sizeof line, "%s: %s", r->file, why);
    complain(r, LOG_ERROR, line);
}

static void free_old(void *ctx)
{
    config_free(ctx);
}

/* -- step by step -- */

static void forget(struct daemon *d)
{
    struct reading *r = d->reload.reading;
    d->reload.reading = NULL;
    d->reload.stage = RELOAD_IDLE;
    if (!r)
        return;
    ike_change_free(r->change);
    spd_free(r->spd);
    config_free(r->next);
    json_decref(r->errors);
    free(r);
}

/* Tells who waits for it, and goes on with what was asked for meanwhile. why NULL: it is in force. */
static void finish(struct daemon *d, const char *why)
{
    const struct reading *r = d->reload.reading;
    json_t *errors = r ? r->errors : NULL;
    if (why)
        log_line(LOG_ERROR, "core", "%s was not loaded; the running configuration stays in force", d->file);
    control_finish_reply(d->control, d->reload.command,
                         why ? json_pack("{s:b, s:s, s:O?}", "ok", 0, "error", why, "errors", errors)
                             : json_pack("{s:b, s:s}", "ok", 1, "text", "loaded"));
    forget(d);
    if (d->reload.again)
        timer_set(&d->timers, &d->reload.look, 0);
}

static void refuse(struct daemon *d)
{
    finish(d, "not loaded; the running configuration stays in force");
}

static void errand_over(struct daemon *d)
{
    errand_end(d->reload.errand);
    d->reload.errand = NULL;
}

static void begin(struct daemon *d)
{
    struct reading *r = calloc(1, sizeof *r);
    errand_over(d); /* the last one's end: what it freed is gone */
    d->reload.again = false;
    d->reload.command = d->reload.next_command;
    d->reload.reading = r;
    if (r)
        *r = (struct reading){.file = d->file, .host = d->host, .from = d->config, .errors = json_array()};
    if (!r || errand_new(&d->reload.errand, read_and_compare, r) != OK)
        refuse(d);
    else
        d->reload.stage = RELOAD_READING;
}

/* The host, or memory, does not allow it, which has been said: what was added is taken back. */
static void undo(struct daemon *d)
{
    dataplane_prepare_drop(d->dataplane);
    daemon_settle(d);
    d->reload.stage = RELOAD_UNDOING;
}

static void undo_some(struct daemon *d)
{
    ns_t until = clock_now() + SLICE;
    bool over;
    do
        over = ike_change_undo(d->reload.reading->change, AT_ONCE);
    while (!over && clock_now() < until);
    if (over)
        refuse(d);
}

static void fail(struct daemon *d, const char *why)
{
    char line[600];
    snprintf(line, sizeof line, "%s: %s", d->file, why);
    complain(d->reload.reading, LOG_ERROR, line);
    undo(d);
}

static void extend_begin(struct daemon *d)
{
    struct reading *r = d->reload.reading;
    char why[256] = "";
    errand_over(d);
    d->reload.stage = RELOAD_EXTENDING;
    if (r->err != OK)
        refuse(d);
    else if (host_extend_begin(d->host, r->next, why, sizeof why) != OK)
        fail(d, why);
}

/* What it needs of the host is added; then its SPD goes to be compiled. */
static void extend_some(struct daemon *d)
{
    char why[256] = "";
    bool over;
    enum err e = host_extend_some(d->host, clock_now() + SLICE, &over, why, sizeof why);
    if (e == OK && over && (e = dataplane_prepare_begin(d->dataplane, d->reload.reading->next)) != OK)
        snprintf(why, sizeof why, "%s", err_text(e));
    if (e != OK)
        fail(d, why);
    else if (over)
        d->reload.stage = RELOAD_LISTING;
}

static void list_some(struct daemon *d)
{
    bool over;
    enum err e = dataplane_prepare_some(d->dataplane, clock_now() + SLICE, &over);
    if (e != OK)
        fail(d, err_text(e));
    else if (over)
        d->reload.stage = RELOAD_COMPILING;
}

static void compiled(struct daemon *d)
{
    enum err e = dataplane_prepare_end(d->dataplane, &d->reload.reading->spd);
    if (e != OK)
        fail(d, err_text(e));
    else
        d->reload.stage = RELOAD_PREPARING;
}

/* The engine makes ready for it; the last thing that can fail is the firewall, so that it never has to be taken back. */
static void prepare_some(struct daemon *d)
{
    struct reading *r = d->reload.reading;
    ns_t until = clock_now() + SLICE;
    bool over;
    enum err e;
    do
        e = ike_change_prepare(r->change, d->engine, AT_ONCE, &over);
    while (e == OK && !over && clock_now() < until);
    if (e == OK && over)
        e = errand_new(&d->reload.errand, filter, r);
    if (e != OK)
        fail(d, err_text(e));
    else if (over)
        d->reload.stage = RELOAD_FILTERING;
}

/* The point of no return: nothing here can fail. */
static void put_in_force(struct daemon *d)
{
    struct reading *r = d->reload.reading;
    r->old = d->config;
    d->config = r->next;
    d->loads++;
    r->next = NULL;
    dataplane_commit(d->dataplane, d->config, r->spd);
    r->spd = NULL;
    ike_reload(d->engine, r->change, clock_now());
    r->change = NULL;
    daemon_workers_call(d);
    daemon_settle(d);
    atomic_store(&d->shared.no_audit, !d->config->host.audit);
    if (report_open(d) != OK)
        log_line(LOG_ERROR, "core", "flow-log-file %s: %s: flows go where they went before", d->config->host.flow_log,
                 strerror(errno));
    log_setup(d->config->host.log, d->config->host.log_format);
    d->reload.stage = RELOAD_SETTLING;
}

static void filtered(struct daemon *d)
{
    errand_over(d);
    if (d->reload.reading->err == OK)
        put_in_force(d);
    else
        undo(d);
}

/* What the engine has of the old one goes over, or goes; then nobody looks at that any more. */
static void settle_some(struct daemon *d, ns_t until)
{
    struct config *old = d->reload.reading->old;
    bool over;
    do
        over = ike_reload_some(d->engine, AT_ONCE, clock_now());
    while (!over && clock_now() < until);
    if (!over)
        return;
    d->reload.reading->old = NULL;
    d->reload.stage = RELOAD_STARTING;
    if (errand_new(&d->reload.errand, free_old, old) != OK)
        config_free(old);
}

static void start_some(struct daemon *d)
{
    struct reading *r = d->reload.reading;
    ns_t until = clock_now() + SLICE;
    bool over = dataplane_resize(d->dataplane, &r->resized, until);
    if (!over)
        return;
    do
        over = ike_start_some(d->engine, &r->started, AT_ONCE, clock_now());
    while (!over && clock_now() < until);
    if (!over)
        return;
    log_line(LOG_INFO, "core", "%s loaded: %u peers, %u policies", d->file, d->config->peer_count,
             d->config->policy_count);
    finish(d, NULL);
}

static void next_step(struct daemon *d)
{
    struct reload *r = &d->reload;
    bool free = !r->errand || errand_done(r->errand);
    switch (r->stage) {
    case RELOAD_IDLE:
        if (r->again && free)
            begin(d);
        break;
    case RELOAD_READING:
        if (free)
            extend_begin(d);
        break;
    case RELOAD_EXTENDING:
        extend_some(d);
        break;
    case RELOAD_LISTING:
        list_some(d);
        break;
    case RELOAD_COMPILING:
        if (dataplane_prepare_done(d->dataplane))
            compiled(d);
        break;
    case RELOAD_PREPARING:
        prepare_some(d);
        break;
    case RELOAD_FILTERING:
        if (free)
            filtered(d);
        break;
    case RELOAD_SETTLING:
        settle_some(d, clock_now() + SLICE);
        break;
    case RELOAD_STARTING:
        start_some(d);
        break;
    case RELOAD_UNDOING:
        undo_some(d);
        break;
    }
}

/* Else another thread is at it. */
static bool at_it(enum reload_stage s)
{
    return s != RELOAD_IDLE && s != RELOAD_READING && s != RELOAD_COMPILING && s != RELOAD_FILTERING;
}

static void on_look(struct timer *t, void *ctx, ns_t now)
{
    struct daemon *d = ctx;
    if (d->stopping)
        daemon_reload_stop(d);
    else
        next_step(d);
    if (d->reload.stage != RELOAD_IDLE || d->reload.again)
        timer_set(&d->timers, t, at_it(d->reload.stage) ? now : now + LOOK);
}

enum err daemon_reload_new(struct daemon *d)
{
    return timer_add(&d->timers, &d->reload.look, on_look);
}

uint64_t daemon_reload(struct daemon *d)
{
    struct reload *r = &d->reload;
    if (!r->again) { /* else one reading of the file, from its beginning, is for all who ask until then */
        r->again = true;
        r->next_command = ++d->commands;
    }
    if (r->stage == RELOAD_IDLE)
        timer_set(&d->timers, &r->look, 0);
    return r->next_command;
}

void daemon_reload_stop(struct daemon *d)
{
    static const char why[] = "the daemon is ending";
    errand_over(d);
    dataplane_prepare_drop(d->dataplane);
    if (d->reload.stage == RELOAD_SETTLING)
        settle_some(d, NS_NEVER);
    errand_over(d);
    if (d->reload.stage != RELOAD_IDLE)
        finish(d, d->reload.stage == RELOAD_STARTING ? NULL : why);
    if (d->reload.again)
        control_finish(d->control, d->reload.next_command, false, why);
    d->reload.again = false;
}
