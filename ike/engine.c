#include "ike/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

#define TIMERS_PER_TICK 64  /* thousands may be due at once, when a link fails: in between others have their turn */
#define PLAIN_PER_SECOND 20 /* unprotected error replies: no amplifier, no mirror (RFC 7296 section 2.21.4) */

enum err ike_new(struct ike_engine **out, const struct ike_env *env, const struct config *config,
                 const struct ike_limits *limits)
{
    struct ike_engine *e = calloc(1, sizeof *e);
    if (!e)
        return ERR_NOMEM;
    e->env = *env;
    e->config = config;
    if (limits)
        e->limits = *limits;
    if (!e->limits.datagram)
        e->limits.datagram = FRAGMENT_DATAGRAM;
    e->next_child = 1;
    timer_heap_init(&e->timers, e);
    cookie_init(&e->jar, &env->random, 0);
    e->in = malloc(IKE_MESSAGE_MAX);
    e->out = malloc(IKE_MESSAGE_MAX);
    table_init(&e->table, &e->env.random);
    enum err err = e->in && e->out ? timer_add(&e->timers, &e->roam, roam_fire) : ERR_NOMEM;
    if (err == OK)
        err = runs_load(e, config);
    if (err != OK) {
        ike_free(e);
        return err;
    }
    *out = e;
    return OK;
}

void ike_free(struct ike_engine *e)
{
    if (!e)
        return;
    /* The SAs stay in the data plane, whose owner ends them with it. */
    while (e->sas)
        sa_kill_quietly(e->sas);
    engine_reap(e);
    walks_end(e);
    commands_free(e);
    reload_drop(e);
    for (unsigned i = 0; i < e->run_count; i++)
        run_free(e->runs[i]);
    free(e->runs);
    choose_end(e, 0);
    choose_end(e, 1);
    table_free(&e->table);
    hash_free(&e->children);
    hash_free(&e->child_groups);
    hash_free(&e->child_parts);
    hash_free(&e->lookups);
    timer_heap_free(&e->timers);
    secret_wipe(&e->jar, sizeof e->jar);
    if (e->in)
        secret_wipe(e->in, IKE_MESSAGE_MAX);
    if (e->out)
        secret_wipe(e->out, IKE_MESSAGE_MAX);
    free(e->in);
    free(e->out);
    free(e);
}

void engine_leave(struct ike_engine *e)
{
    held_serve(e);
    pace_resume(e);
    engine_reap(e);
    commands_check(e);
}

void drop(struct ike_engine *e, enum stat_id s)
{
    stat_add(e->env.stats, s, 1);
}

uint64_t random_below(struct ike_engine *e, uint64_t max)
{
    uint64_t r;
    random_fill(&e->env.random, &r, sizeof r);
    return max ? r % max : 0;
}

void report(struct ike_engine *e, enum ike_event_kind kind, const struct peer *peer, const struct policy *policy,
            const struct path *path, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list args;
    if (e->unhurried && --e->reports_left < 0)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct ike_event event = {.kind = kind, .peer = peer, .policy = policy, .text = text};
    if (path)
        event.path = *path;
    e->env.event(e->env.ctx, &event);
}

/* Whether one more unprotected reply may be sent now. */
static bool plain_allowed(struct ike_engine *e)
{
    if (e->now - e->plain_window >= NS_PER_S || e->plain_window == 0) {
        e->plain_window = e->now ? e->now : 1;
        e->plain_sent = 0;
    }
    return e->plain_sent++ < PLAIN_PER_SECOND;
}

void plain_notify(struct ike_engine *e, const struct path *path, const struct ike_header *h, uint8_t exchange,
                  uint16_t type, struct span data, bool limited)
{
    uint8_t out[256];
    struct ike_builder b;
    size_t len;
    if (limited && !plain_allowed(e))
        return;
    struct ike_header reply = {
        .spi_i = h->spi_i,
        .spi_r = h->spi_r,
        .version = 0x20,
        .exchange = exchange,
        .flags = (uint8_t)(IKE_FLAG_RESPONSE | (~h->flags & IKE_FLAG_INITIATOR)),
        .message_id = h->message_id,
    };
    ike_begin(&b, out, sizeof out, &reply);
    ike_put_notify(&b, PROTOCOL_NONE, span_of(NULL, 0), type, data);
    if (ike_finish(&b, &len) == OK)
        e->env.send(e->env.ctx, path, span_of(out, len));
}

/* RFC 7296 section 2.5: a higher major version is told ours; IKEv1 gets the same, and the operator a hint. */
static void other_version(struct ike_engine *e, const struct path *path, const struct ike_header *h)
{
    char from[ENDPOINT_TEXT];
    drop(e, STAT_DROP_IKE_VERSION);
    if (h->version >> 4 == 1)
        log_limited(&e->log_limit, LOG_WARN, "ike",
                    "%s speaks IKEv1, which is not supported: set IKEv2 (keyexchange=ikev2) there",
                    endpoint_format(&path->remote, from));
    /* In IKEv1 that flag bit means nothing, in a version yet to come the response bit means what it means here. */
    if (!(h->flags & IKE_FLAG_RESPONSE))
        plain_notify(e, path, h, h->exchange, NOTIFY_INVALID_MAJOR_VERSION, span_of(NULL, 0), true);
}

/* The SA this message belongs to, or NULL; its SPIs and its sender's role must fit. */
static struct ike_sa *find_sa(const struct ike_engine *e, const struct ike_header *h)
{
    bool from_initiator = h->flags & IKE_FLAG_INITIATOR;
    uint64_t own = from_initiator ? h->spi_r : h->spi_i;
    uint64_t theirs = from_initiator ? h->spi_i : h->spi_r;
    struct ike_sa *sa = own ? table_find(&e->table, own) : NULL;
    if (!sa || sa->initiator == from_initiator)
        return NULL;
    uint64_t known = sa->initiator ? sa->spi_r : sa->spi_i;
    return known == 0 || known == theirs ? sa : NULL; /* 0: we initiate, and wait for the first answer */
}

static void no_sa(struct ike_engine *e, const struct path *path, const struct ike_header *h)
{
    drop(e, STAT_DROP_IKE_SPI);
    /* Never an answer to a response, else two confused ends would talk forever (section 2.21.4). */
    if (!(h->flags & IKE_FLAG_RESPONSE) && h->exchange != EXCHANGE_SA_INIT)
        plain_notify(e, path, h, h->exchange, NOTIFY_INVALID_IKE_SPI, span_of(NULL, 0), true);
}

static void input(struct ike_engine *e, const struct path *path, struct span message)
{
    struct ike_message m;
    struct ike_header h;
    if (message.len > IKE_MESSAGE_MAX || ike_header_parse(message, &h) != OK || h.length != message.len) {
        drop(e, STAT_DROP_IKE_RUNT);
        return;
    }
    if (h.exchange == EXCHANGE_SA_INIT && message.len > SA_INIT_MAX) {
        drop(e, STAT_DROP_IKE_LIMIT);
        return;
    }
    if (h.version >> 4 != 2) {
        other_version(e, path, &h);
        return;
    }
    if (h.spi_i == 0) {
        drop(e, STAT_DROP_IKE_SPI);
        return;
    }
    memcpy(e->in, message.data, message.len); /* SK is opened in place, and the caller's bytes are not ours to change */
    struct span copy = span_of(e->in, message.len);
    enum err err = ike_message_parse(copy, &m);
    bool first = h.exchange == EXCHANGE_SA_INIT && h.spi_r == 0 && h.flags & IKE_FLAG_INITIATOR &&
                 !(h.flags & IKE_FLAG_RESPONSE);
    if (err == ERR_CRITICAL && first)
        plain_notify(e, path, &h, h.exchange, NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD, span_of(&m.critical, 1), true);
    if (err != OK) {
        drop(e, STAT_DROP_IKE_SYNTAX);
        return;
    }
    if (first) {
        sa_init_request(e, path, message, &m);
        return;
    }
    struct ike_sa *sa = find_sa(e, &h);
    if (sa)
        sa_input(sa, path, message, &m);
    else
        no_sa(e, path, &h);
}

void ike_input(struct ike_engine *e, const struct path *path, struct span message, ns_t now)
{
    e->now = now;
    input(e, path, message);
    engine_leave(e);
}

void ike_tick(struct ike_engine *e, ns_t now)
{
    e->now = now;
    timer_run_some(&e->timers, now, TIMERS_PER_TICK);
    engine_leave(e);
}

ns_t ike_deadline(const struct ike_engine *e)
{
    return timer_next(&e->timers);
}

struct identity local_identity(const struct ike_engine *e, const struct peer *peer, const struct path *path)
{
    if (peer->local_id.type != ID_NONE)
        return peer->local_id;
    if (e->config->host.id.type != ID_NONE)
        return e->config->host.id;
    return identity_of_ip(&path->local.ip);
}

void ike_shutdown(struct ike_engine *e, ns_t now)
{
    e->now = now;
    e->stopping = true;
    for (unsigned i = 0; i < e->run_count; i++) {
        commands_end(e, COMMAND_UP, e->runs[i], NULL, false, STOPPING);
        commands_end(e, COMMAND_REKEY, e->runs[i], NULL, false, STOPPING);
    }
    for (struct ike_sa *sa = e->sas, *next; sa; sa = next) {
        next = sa->next;
        sa_delete(sa, false);
    }
    engine_leave(e);
}

bool ike_idle(const struct ike_engine *e)
{
    return !e->sas;
}
