/* A flow as a line of JSON: field names are API, documented in adit(8). */
#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "core/flow_log.h"

static json_t *time_json(ns_t wall)
{
    time_t seconds = (time_t)(wall / NS_PER_S);
    struct tm tm;
    char date[24] = "";
    if (gmtime_r(&seconds, &tm))
        (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    return json_sprintf("%s.%03uZ", date, (unsigned)(wall % NS_PER_S / NS_PER_MS));
}

static json_t *ip_json(const struct ip *ip)
{
    char text[IP_TEXT];
    return json_string(ip_format(ip, text));
}

static json_t *spi_json(uint32_t spi)
{
    return spi ? json_sprintf("0x%08x", spi) : json_null();
}

static json_t *port_json(uint16_t port)
{
    return port ? json_integer(port) : json_null();
}

char *flow_format(const struct flow_record *r, const char *policy, const char *peer, ns_t now, ns_t wall)
{
    static const char *const verdicts[] = {
        [ACTION_PROTECT] = "protect", [ACTION_BYPASS] = "bypass", [ACTION_DISCARD] = "discard"};
    static const char *const ends[] = {
        [FLOW_QUIET] = "quiet", [FLOW_LASTING] = "lasting", [FLOW_EVICTED] = "evicted", [FLOW_STOPPED] = "stopped"};
    json_t *j = json_pack(
        "{s:s?, s:s?, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s}", "policy",
        policy, "peer", peer, "verdict", verdicts[r->action], "protocol", (int)r->proto, "local", ip_json(&r->local),
        "local_port", port_json(r->local_port), "remote", ip_json(&r->remote), "remote_port", port_json(r->remote_port),
        "spi_out", spi_json(r->spi_out), "spi_in", spi_json(r->spi_in), "out_packets", (json_int_t)r->out_packets,
        "out_bytes", (json_int_t)r->out_bytes, "in_packets", (json_int_t)r->in_packets, "in_bytes",
        (json_int_t)r->in_bytes, "dropped_packets", (json_int_t)r->dropped, "start", time_json(wall - (now - r->first)),
        "end", time_json(wall - (now - r->last)), "why", ends[r->end]);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    return text;
}
