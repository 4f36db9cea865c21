/*
 * The whole status, which may have thousands of peers, policies and routes: one JSON object, written as the client reads
 * it. What changes meanwhile is shown as it is when its turn comes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

enum stage { HEAD, ROUTES, PEERS, SAS, CHILDREN, POLICIES, TAIL };

struct listing {
    struct daemon *d;
    enum stage stage;
    struct ike_walk *walk;
    unsigned at;                                 /* next of the stage's */
    bool first, first_sa, first_child;           /* nothing stands in that array yet: no comma */
    const char *state;                           /* of the peer: the best that one of its IKE SAs has */
    unsigned loads;                              /* of the configuration that `at` counts in */
    char last[sizeof((struct policy *)0)->name]; /* that was listed, where another configuration may come */
    struct buf *out;
    enum err err; /* of this piece */
};

/* -- writing -- */

static void put(struct listing *l, const char *text, size_t len)
{
    if (l->err == OK)
        l->err = buf_append(l->out, span_of(text, len));
}

static void put_text(struct listing *l, const char *text)
{
    put(l, text, strlen(text));
}

/* Some of a JSON text, less so many of its first and last characters; takes over the reference. */
static void put_json(struct listing *l, json_t *j, size_t front, size_t back)
{
    char *text = j ? json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(j);
    if (text)
        put(l, text + front, strlen(text) - front - back);
    else
        l->err = ERR_NOMEM;
    free(text);
}

/* An object that goes on with an array of that name. */
static void put_open(struct listing *l, json_t *object, const char *array)
{
    put_json(l, object, 0, 1);
    put_text(l, ",\"");
    put_text(l, array);
    put_text(l, "\":[");
}

static void put_comma(struct listing *l, bool *first)
{
    if (!*first)
        put_text(l, ",");
    *first = false;
}

static void next_stage(struct listing *l, enum stage stage)
{
    l->stage = stage;
    l->at = 0;
    l->first = true;
    l->last[0] = 0;
}

/* -- one piece of each stage -- */

static void put_head(struct listing *l, const struct status_view *view)
{
    json_t *head = json_object();
    if (head)
        status_head(view, head);
    put_json(l, head, 0, 1);
    put_text(l, ",\"host\":");
    put_open(l, status_host(l->d), "routes");
    next_stage(l, ROUTES);
}

static void put_route(struct listing *l)
{
    if (l->at < host_route_count(l->d->host)) {
        put_comma(l, &l->first);
        put_json(l, status_route(l->d, l->at++), 0, 0);
        return;
    }
    put_text(l, "]},\"peers\":[");
    next_stage(l, PEERS);
}

static void put_peer(struct listing *l, const struct status_view *view)
{
    const struct config *c = l->d->config;
    if (l->at == c->peer_count) {
        put_text(l, "],\"policies\":[");
        next_stage(l, POLICIES);
        return;
    }
    const struct peer *p = c->peers[l->at++];
    snprintf(l->last, sizeof l->last, "%s", p->name);
    put_comma(l, &l->first);
    put_open(l, status_peer(view, p), "ike_sas");
    ike_walk_peer(l->walk, p);
    l->state = "down";
    l->first_sa = true;
    l->stage = SAS;
}

static void note_state(struct listing *l, enum ike_state state)
{
    if (state == IKE_ESTABLISHED || state == IKE_REKEYING)
        l->state = "up";
    else if (state == IKE_CONNECTING && strcmp(l->state, "up") != 0)
        l->state = "connecting";
}

static void put_sa(struct listing *l, const struct status_view *view)
{
    struct ike_sa_info info;
    if (!ike_walk_sa(l->walk, &info)) {
        put_text(l, "],\"state\":\"");
        put_text(l, l->state);
        put_text(l, "\"}");
        l->stage = PEERS;
        return;
    }
    note_state(l, info.state);
    put_comma(l, &l->first_sa);
    put_open(l, status_ike(view, &info), "children");
    l->first_child = true;
    l->stage = CHILDREN;
}

static void put_child(struct listing *l, const struct status_view *view)
{
    struct ike_child_info info;
    if (!ike_walk_child(l->walk, &info)) {
        put_text(l, "]}");
        l->stage = SAS;
        return;
    }
    put_comma(l, &l->first_child);
    put_json(l, status_child(view, &info), 0, 0);
}

static void put_policy(struct listing *l, const struct status_view *view)
{
    const struct config *c = l->d->config;
    if (l->at == c->policy_count) {
        put_text(l, "],");
        l->stage = TAIL;
        return;
    }
    const struct policy *p = c->policies[l->at++];
    snprintf(l->last, sizeof l->last, "%s", p->name);
    put_comma(l, &l->first);
    put_json(l, status_policy(view, p), 0, 0);
}

static void put_tail(struct listing *l, const struct status_view *view)
{
    json_t *tail = json_object();
    if (tail)
        status_tail(view, tail);
    put_json(l, tail, 1, 0);
    put_text(l, "\n");
}

/* -- the answer -- */

/* Another configuration may be in force by now: on behind what was listed last, if that has it. */
static void follow(struct listing *l)
{
    const struct config *c = l->d->config;
    bool policies = l->stage == POLICIES;
    unsigned count = policies ? c->policy_count : c->peer_count;
    if (l->loads == l->d->loads || l->stage == ROUTES)
        return;
    l->loads = l->d->loads;
    const struct peer *peer = policies ? NULL : config_peer(c, l->last);
    const struct policy *policy = policies ? config_policy(c, l->last) : NULL;
    for (unsigned i = 0; policy && i < count; i++)
        if (c->policies[i] == policy)
            l->at = i + 1;
    if (peer)
        l->at = peer->number + 1;
    l->at = l->at < count ? l->at : count;
}

static enum err more(void *ctx, struct buf *out, bool *over)
{
    struct listing *l = ctx;
    const struct status_view view = {.d = l->d, .now = clock_now()};
    l->out = out;
    l->err = OK;
    follow(l);
    switch (l->stage) {
    case HEAD:
        put_head(l, &view);
        break;
    case ROUTES:
        put_route(l);
        break;
    case PEERS:
        put_peer(l, &view);
        break;
    case SAS:
        put_sa(l, &view);
        break;
    case CHILDREN:
        put_child(l, &view);
        break;
    case POLICIES:
        put_policy(l, &view);
        break;
    case TAIL:
        put_tail(l, &view);
        *over = true;
        break;
    }
    return l->err;
}

static void release(void *ctx)
{
    struct listing *l = ctx;
    ike_walk_free(l->walk);
    free(l);
}

/* Numbers alone, at a cost that does not depend on how many of anything there are. */
static json_t *brief_status(const struct daemon *d)
{
    const struct status_view view = {.d = d, .now = clock_now()};
    json_t *out = json_object();
    status_head(&view, out);
    status_tail(&view, out);
    return out;
}

void daemon_status(struct daemon *d, struct control_client *client, bool brief)
{
    daemon_denied_count(d);
    if (brief) {
        control_reply(client, brief_status(d));
        return;
    }
    struct listing *l = calloc(1, sizeof *l);
    if (!l || ike_walk_new(d->engine, &l->walk) != OK) {
        free(l);
        control_reply(client, NULL);
        return;
    }
    l->d = d;
    l->loads = d->loads;
    control_stream(client, &(struct control_source){.ctx = l, .more = more, .release = release});
}
