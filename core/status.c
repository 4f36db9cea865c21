/* What `adit status` shows, piece by piece. Field names are API, documented in adit(8): they are only ever added to. */
#include "core/status.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void set(json_t *object, const char *key, json_t *value)
{
    /* Without memory a field is missing; the rest still tells something. */
    (void)json_object_set_new(object, key, value);
}

static void append(json_t *list, json_t *value)
{
    (void)json_array_append_new(list, value);
}

static json_t *spi32(uint32_t spi)
{
    return json_sprintf("0x%08x", spi);
}

static json_t *spi64(uint64_t spi)
{
    return json_sprintf("%016llx", (unsigned long long)spi);
}

static json_t *endpoint_json(const struct endpoint *e)
{
    char text[ENDPOINT_TEXT];
    return json_string(endpoint_format(e, text));
}

/* Seconds since, or until; null where there is no such time. */
static json_t *since(const struct status_view *s, ns_t at)
{
    return !at ? json_null() : json_integer(at > s->now ? 0 : (json_int_t)((s->now - at) / NS_PER_S));
}

static json_t *until(const struct status_view *s, ns_t at)
{
    return !at || at == NS_NEVER ? json_null() : json_integer(at < s->now ? 0 : (json_int_t)((at - s->now) / NS_PER_S));
}

static json_t *identity_json(const struct identity *id)
{
    char text[IDENTITY_TEXT];
    return id->type == ID_NONE ? json_null() : control_text(identity_format(id, text, sizeof text));
}

static json_t *auth_json(const char *how)
{
    return *how ? control_text(how) : json_null();
}

static json_t *selectors_json(const struct selectors *v)
{
    json_t *list = json_array();
    for (unsigned i = 0; list && i < v->n; i++) {
        char text[SELECTOR_TEXT];
        append(list, json_string(selector_format(&v->v[i], text)));
    }
    return list;
}

/* -- SAs -- */

static const char *const ike_states[] = {
    [IKE_CONNECTING] = "connecting",
    [IKE_ESTABLISHED] = "established",
    [IKE_REKEYING] = "rekeying",
    [IKE_DELETING] = "deleting",
};

json_t *status_ike(const struct status_view *s, const struct ike_sa_info *info)
{
    char suite[512];
    json_t *sa = json_object();
    set(sa, "spi_i", spi64(info->spi_i));
    set(sa, "spi_r", spi64(info->spi_r));
    set(sa, "initiator", json_boolean(info->initiator));
    set(sa, "state", json_string(ike_states[info->state]));
    set(sa, "local_id", identity_json(&info->local_id));
    set(sa, "remote_id", identity_json(&info->remote_id));
    set(sa, "auth_local", auth_json(info->auth_local));
    set(sa, "auth_remote", auth_json(info->auth_remote));
    set(sa, "local", endpoint_json(&info->path.local));
    set(sa, "remote", endpoint_json(&info->path.remote));
    set(sa, "suite", json_string(proposal_format(&info->suite, suite, sizeof suite)));
    set(sa, "nat_local", json_boolean(info->nat_local));
    set(sa, "nat_remote", json_boolean(info->nat_remote));
    set(sa, "fragmentation", json_boolean(info->fragmentation));
    set(sa, "mobike", json_boolean(info->mobike));
    set(sa, "age", since(s, info->established));
    set(sa, "setup_us", !info->established ? json_null() : json_integer((json_int_t)(info->took / 1000)));
    set(sa, "rekey_in", until(s, info->rekey_at));
    set(sa, "reauth_in", until(s, info->reauth_at));
    set(sa, "ppk", json_boolean(info->ppk));
    set(sa, "childless", json_boolean(info->childless));
    return sa;
}

/* The drops that were any, by name; adds to the object. */
static void drops_json(json_t *out, const struct drop_stats *drops)
{
    for (unsigned i = 0; drops && i < STAT_DROPS; i++) {
        uint64_t n = atomic_load_explicit(&drops->n[i], memory_order_relaxed);
        if (n)
            set(out, stat_name((enum stat_id)(STAT_DROP_FIRST + i)), json_integer((json_int_t)n));
    }
}

static void child_traffic_json(const struct status_view *s, json_t *child, uint64_t id)
{
    struct child_counters n;
    if (dataplane_counters(s->d->dataplane, id, &n) != OK)
        return;
    set(child, "crypto", json_string(n.crypto));
    set(child, "local_endpoint", endpoint_json(&n.path.local));
    set(child, "remote_endpoint", endpoint_json(&n.path.remote));
    set(child, "encap", json_string(n.path.transport == PATH_RAW ? "raw" : "udp"));
    set(child, "sending", json_boolean(n.sending));
    set(child, "in_packets", json_integer((json_int_t)n.in_packets));
    set(child, "in_bytes", json_integer((json_int_t)n.in_bytes));
    set(child, "in_last", since(s, n.last_in));
    set(child, "out_packets", json_integer((json_int_t)n.out_packets));
    set(child, "out_bytes", json_integer((json_int_t)n.out_bytes));
    set(child, "out_last", since(s, n.last_out));
    json_t *drops = json_object();
    drops_json(drops, n.in_drops);
    drops_json(drops, n.out_drops);
    set(child, "drops", drops);
    set(child, "path_mtu", n.path_mtu ? json_integer(n.path_mtu) : json_null());
    set(child, "path_mtu_probed", json_boolean(n.path_mtu_probed));
    set(child, "inner_mtu", n.inner_max ? json_integer(n.inner_max) : json_null());
}

json_t *status_child(const struct status_view *s, const struct ike_child_info *info)
{
    char suite[64];
    json_t *child = json_object();
    set(child, "policy", info->policy ? control_text(info->policy->name) : json_null());
    set(child, "state", json_string(info->rekeying ? "rekeying" : "established"));
    set(child, "spi_in", spi32(info->spi_in));
    set(child, "spi_out", spi32(info->spi_out));
    set(child, "protocol", json_string(info->protocol == PROTOCOL_AH ? "ah" : "esp"));
    set(child, "suite", json_string(suite_text(&info->suite, suite, sizeof suite)));
    set(child, "esn", json_boolean(info->esn));
    set(child, "mode", json_string(info->mode == MODE_TRANSPORT ? "transport" : "tunnel"));
    set(child, "local", selectors_json(&info->local));
    set(child, "remote", selectors_json(&info->remote));
    set(child, "age", since(s, info->established));
    set(child, "rekey_in", until(s, info->rekey_at));
    child_traffic_json(s, child, info->id);
    return child;
}

/* -- peers and policies -- */

static const char *const start_names[] = {
    [START_YES] = "yes",
    [START_ON_DEMAND] = "on-demand",
    [START_NO] = "no",
};

/* "endpoint": where the next attempt goes, or went; "endpoints": as configured; "addresses": what they stand for. */
static void endpoints_json(const struct status_view *s, json_t *peer, const struct peer *p)
{
    struct endpoint at[PEER_CANDIDATES];
    char text[PEER_ENDPOINT_TEXT];
    unsigned current = 0, n = ike_candidates(s->d->engine, p, at, &current);
    json_t *written = json_array(), *addresses = json_array();
    for (unsigned i = 0; i < p->endpoint_count; i++)
        append(written, json_string(peer_endpoint_format(&p->endpoints[i], text)));
    for (unsigned i = 0; i < n; i++)
        append(addresses, endpoint_json(&at[i]));
    set(peer, "endpoint",
        n                   ? endpoint_json(&at[current])
        : p->endpoint_count ? json_string(peer_endpoint_format(&p->endpoints[0], text))
                            : json_string("%any"));
    set(peer, "endpoints", written);
    set(peer, "addresses", addresses);
}

json_t *status_peer(const struct status_view *s, const struct peer *p)
{
    json_t *peer = json_object();
    ns_t when = 0;
    const char *error = ike_last_error(s->d->engine, p, &when);
    set(peer, "name", control_text(p->name));
    endpoints_json(s, peer, p);
    set(peer, "start", json_string(start_names[p->start]));
    set(peer, "last_error", error && *error ? control_text(error) : json_null());
    set(peer, "last_error_age", error && *error ? since(s, when) : json_null());
    return peer;
}

static void policy_traffic_json(json_t *policy, const struct policy_stats *stats)
{
    json_t *drops = json_object();
    const struct {
        const char *name;
        const _Atomic uint64_t *n;
    } rows[] = {{"in_packets", stats ? &stats->in_packets : NULL},
                {"in_bytes", stats ? &stats->in_bytes : NULL},
                {"out_packets", stats ? &stats->out_packets : NULL},
                {"out_bytes", stats ? &stats->out_bytes : NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        set(policy, rows[i].name, json_integer(rows[i].n ? (json_int_t)atomic_load(rows[i].n) : 0));
    drops_json(drops, stats ? &stats->drops : NULL);
    set(policy, "drops", drops);
}

json_t *status_policy(const struct status_view *s, const struct policy *p)
{
    static const char *const actions[] = {
        [ACTION_PROTECT] = "protect", [ACTION_BYPASS] = "bypass", [ACTION_DISCARD] = "discard"};
    json_t *policy = json_object();
    set(policy, "name", control_text(p->name));
    set(policy, "action", json_string(actions[p->action]));
    set(policy, "peer", p->peer ? control_text(p->peer->name) : json_null());
    set(policy, "mode",
        p->action != ACTION_PROTECT ? json_null() : json_string(p->mode == MODE_TRANSPORT ? "transport" : "tunnel"));
    set(policy, "local", selectors_json(&p->local));
    set(policy, "remote", selectors_json(&p->remote));
    policy_traffic_json(policy, dataplane_policy_stats(s->d->dataplane, p->name));
    return policy;
}

/* -- host and counters -- */

json_t *status_host(const struct daemon *d)
{
    json_t *host = json_object(), *sockets = json_array(), *crypto = json_array();
    const char *raw_why;
    bool raw = host_raw(d->host, &raw_why);
    for (unsigned i = 0; i < host_socket_count(d->host); i++)
        append(sockets, endpoint_json(host_socket_at(d->host, i)));
    for (unsigned i = 0; engine_name(i); i++)
        append(crypto, json_string(engine_name(i)));
    set(host, "tun", control_text(host_tun_name(d->host)));
    set(host, "mtu", json_integer(host_mtu(d->host)));
    set(host, "firewall", json_string(host_firewall(d->host)));
    set(host, "uso", json_boolean(host_uso(d->host)));
    set(host, "workers", json_integer(d->worker_count));
    set(host, "io", json_string(worker_loop_name(d->workers[0])));
    set(host, "io_why", control_text(d->io_why));
    set(host, "crypto", json_string(d->config->host.crypto));
    set(host, "crypto_engines", crypto);
    set(host, "sockets", sockets);
    set(host, "raw_esp", json_boolean(raw));
    set(host, "raw_esp_why", raw ? json_null() : control_text(raw_why));
    return host;
}

json_t *status_route(const struct daemon *d, unsigned i)
{
    struct prefix p;
    char text[PREFIX_TEXT];
    host_route_at(d->host, i, &p);
    return json_string(prefix_format(&p, text));
}

static uint64_t counter(const struct daemon *d, enum stat_id n)
{
    uint64_t sum = stat_get(&d->stats, n);
    for (unsigned i = 0; i < d->worker_count; i++)
        sum += stat_get(worker_stats(d->workers[i]), n);
    return sum;
}

static void counters_json(const struct daemon *d, json_t *out)
{
    json_t *counters = json_object(), *drops = json_array();
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        uint64_t n = counter(d, (enum stat_id)i);
        const char *name = stat_name((enum stat_id)i);
        set(counters, name, json_integer((json_int_t)n));
        if (!n || strncmp(name, "drop_", 5) != 0)
            continue;
        json_t *drop =
            json_pack("{s:s, s:I, s:s}", "name", name, "count", (json_int_t)n, "text", stat_text((enum stat_id)i));
        append(drops, drop);
    }
    set(out, "counters", counters);
    set(out, "drops", drops);
}

void status_head(const struct status_view *s, json_t *out)
{
    const struct daemon *d = s->d;
    set(out, "ok", json_true());
    set(out, "version", json_string(ADIT_VERSION));
    set(out, "pid", json_integer(getpid()));
    set(out, "uptime", since(s, d->started));
    set(out, "config", control_text(d->file));
    set(out, "turn_max_us", json_integer((json_int_t)(d->turn_max / 1000)));
}

void status_tail(const struct status_view *s, json_t *out)
{
    struct ike_counts counts = ike_count(s->d->engine);
    set(out, "half_open", json_integer(counts.half_open));
    set(out, "ike_sa_count", json_integer(counts.ike_sas));
    set(out, "child_sa_count", json_integer(counts.child_sas));
    counters_json(s->d, out);
}
