/* The requests of the control socket: {"command": "up", "peer": "office", "policy": "lan"} and so on. */
#include <stdio.h>
#include <string.h>

#include "core/capture.h"
#include "core/daemon.h"

static const char *request_text(const json_t *request, const char *key)
{
    const char *text = json_string_value(json_object_get(request, key));
    return text ? text : "";
}

typedef void engine_command(struct ike_engine *e, const struct peer *peer, const struct policy *policy,
                            uint64_t command, ns_t now);

static void answer_unknown(struct control_client *client, const char *what, const char *name)
{
    char text[256];
    snprintf(text, sizeof text, "no %s is called \"%.100s\"", what, name);
    control_answer(client, false, text);
}

/* up, down, rekey: the answer is the outcome, whenever the engine knows it. */
static void request_engine(struct daemon *d, struct control_client *client, const json_t *request, engine_command *fn)
{
    const char *peer_name = request_text(request, "peer"), *policy_name = request_text(request, "policy");
    const struct peer *peer = config_peer(d->config, peer_name);
    if (!peer) {
        answer_unknown(client, "peer", peer_name);
        return;
    }
    const struct policy *policy = policy_name[0] ? config_policy(d->config, policy_name) : NULL;
    if (policy_name[0] && (!policy || policy->peer != peer)) {
        answer_unknown(client, "policy of this peer", policy_name);
        return;
    }
    if (d->stopping) {
        control_answer(client, false, "the daemon is ending");
        return;
    }
    (void)daemon_hint(d, peer); /* a peer without a way to it now may have one in a moment */
    uint64_t command = ++d->commands;
    control_wait(client, command); /* before the call: the outcome may come from within */
    fn(d->engine, peer, policy, command, clock_now());
}

static void request_up(struct daemon *d, struct control_client *client, const json_t *request)
{
    request_engine(d, client, request, ike_up);
}

static void request_down(struct daemon *d, struct control_client *client, const json_t *request)
{
    request_engine(d, client, request, ike_down);
}

static void request_rekey(struct daemon *d, struct control_client *client, const json_t *request)
{
    request_engine(d, client, request, ike_rekey);
}

static void request_reload(struct daemon *d, struct control_client *client, const json_t *request)
{
    (void)request;
    if (d->stopping) {
        control_answer(client, false, "the daemon is ending");
        return;
    }
    control_wait(client, daemon_reload(d));
}

static void request_status(struct daemon *d, struct control_client *client, const json_t *request)
{
    daemon_status(d, client, json_is_true(json_object_get(request, "brief")));
}

static const struct {
    const char *name;
    void (*fn)(struct daemon *d, struct control_client *client, const json_t *request);
} requests[] = {
    {"status", request_status}, {"up", request_up},         {"down", request_down},
    {"rekey", request_rekey},   {"reload", request_reload}, {"capture", capture_request},
};

void daemon_request(void *ctx, struct control_client *client, const json_t *request)
{
    const char *name = request_text(request, "command");
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        if (strcmp(requests[i].name, name) != 0)
            continue;
        requests[i].fn(ctx, client, request);
        return;
    }
    control_answer(client, false, "unknown command");
}
