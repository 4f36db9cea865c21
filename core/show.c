#include "core/show.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool true_of(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* "42s", "5m07s", "3h12m", "2d04h"; "never" where there is no time. */
static const char *duration(const json_t *object, const char *key, char *text, size_t size)
{
    const json_t *v = json_object_get(object, key);
    long long s = json_integer_value(v);
    if (!json_is_integer(v))
        snprintf(text, size, "never");
    else if (s < 60)
        snprintf(text, size, "%llds", s);
    else if (s < 3600)
        snprintf(text, size, "%lldm%02llds", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, size, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else
        snprintf(text, size, "%lldd%02lldh", s / 86400, s / 3600 % 24);
    return text;
}

/* ", rekey in 3h12m"; nothing where it is never due. */
static void show_due(FILE *out, const json_t *object, const char *key, const char *what)
{
    char text[24];
    if (json_is_integer(json_object_get(object, key)))
        fprintf(out, ", %s in %s", what, duration(object, key, text, sizeof text));
}

static const char *plural(json_int_t n)
{
    return n == 1 ? "" : "s";
}

static const char *bytes(double n, char *text, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    unsigned u = 0;
    for (; n >= 9999.5 && u + 1 < sizeof units / sizeof units[0]; u++)
        n /= 1000;
    snprintf(text, size, u && n < 100 ? "%.1f %s" : "%.0f %s", n, units[u]);
    return text;
}

static void list(FILE *out, const json_t *array)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item) fprintf(out, "%s%s", i ? ", " : "", json_string_value(item));
    if (!json_array_size(array))
        fputs("-", out);
}

static void show_host(FILE *out, const json_t *status)
{
    const json_t *host = json_object_get(status, "host");
    char up[24];
    fprintf(out, "adit %s on %s, MTU %" PRId64 ", up %s, %s\n", text_of(status, "version"), text_of(host, "tun"),
            (int64_t)number_of(host, "mtu"), duration(status, "uptime", up, sizeof up), text_of(status, "config"));
    fprintf(out, "  io       %s, %" PRId64 " worker%s\n", text_of(host, "io"), (int64_t)number_of(host, "workers"),
            plural(number_of(host, "workers")));
    fprintf(out, "  crypto   %s (", text_of(host, "crypto"));
    list(out, json_object_get(host, "crypto_engines"));
    fputs(" here)\n  sockets  ", out);
    list(out, json_object_get(host, "sockets"));
    if (true_of(host, "raw_esp"))
        fputs(", raw ESP", out);
    else
        fprintf(out, "; no raw ESP: %s", text_of(host, "raw_esp_why"));
    fputs("\n  routes   ", out);
    list(out, json_object_get(host, "routes"));
    fprintf(out, "\n  firewall %s\n", text_of(host, "firewall"));
}

static void show_direction(FILE *out, const json_t *child, const char *way)
{
    char key[16], size[24], last[24];
    snprintf(key, sizeof key, "%s_bytes", way);
    bytes((double)number_of(child, key), size, sizeof size);
    snprintf(key, sizeof key, "%s_packets", way);
    json_int_t packets = number_of(child, key);
    snprintf(key, sizeof key, "spi_%s", way);
    const char *spi = text_of(child, key);
    snprintf(key, sizeof key, "%s_last", way);
    const json_t *at = json_object_get(child, key);
    bool now = json_is_integer(at) && json_integer_value(at) == 0;
    fprintf(out, "      %-3s %s  %" PRId64 " packet%s, %s, last %s%s\n", way, spi, (int64_t)packets, plural(packets),
            size, now ? "now" : duration(child, key, last, sizeof last), now || !json_is_integer(at) ? "" : " ago");
}

static void show_own_drops(FILE *out, const char *indent, const json_t *object)
{
    const char *name;
    json_t *count;
    json_t *drops = json_object_get(object, "drops");
    if (json_object_size(drops))
        fprintf(out, "%sdropped", indent);
    json_object_foreach(drops, name, count) fprintf(out, "  %s %" PRId64, name, (int64_t)json_integer_value(count));
    if (json_object_size(drops))
        fputc('\n', out);
}

static void show_child(FILE *out, const json_t *child)
{
    char age[24];
    fprintf(out, "    %s  %s  %s%s%s  %s, %s in %s  age %s", text_of(child, "policy"), text_of(child, "state"),
            strcmp(text_of(child, "protocol"), "ah") == 0 ? "AH " : "", text_of(child, "suite"),
            true_of(child, "esn") ? "-esn" : "", text_of(child, "crypto"), text_of(child, "mode"),
            text_of(child, "encap"), duration(child, "age", age, sizeof age));
    show_due(out, child, "rekey_in", "rekey");
    fputs("\n      ", out);
    list(out, json_object_get(child, "local"));
    fputs(" <-> ", out);
    list(out, json_object_get(child, "remote"));
    fputc('\n', out);
    show_direction(out, child, "in");
    show_direction(out, child, "out");
    show_own_drops(out, "      ", child);
}

static void show_extensions(FILE *out, const json_t *sa)
{
    static const struct {
        const char *key, *text;
    } all[] = {{"fragmentation", "fragmentation"},
               {"mobike", "MOBIKE"},
               {"ppk", "post-quantum preshared key"},
               {"childless", "childless"}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (true_of(sa, all[i].key))
            fprintf(out, ", %s", all[i].text);
    fputc('\n', out);
}

/* What is agreed, once there is an agreement. */
static void show_established(FILE *out, const json_t *sa)
{
    char age[24];
    fprintf(out, "    we by %s, the peer by %s\n    %s", text_of(sa, "auth_local"), text_of(sa, "auth_remote"),
            text_of(sa, "suite"));
    show_extensions(out, sa);
    fprintf(out, "    age %s", duration(sa, "age", age, sizeof age));
    show_due(out, sa, "rekey_in", "rekey");
    show_due(out, sa, "reauth_in", "reauthentication");
    fputc('\n', out);
}

static void show_ike(FILE *out, const json_t *sa)
{
    bool local = true_of(sa, "nat_local"), remote = true_of(sa, "nat_remote");
    fprintf(out, "  ike %s_i %s_r  %s, %s\n", text_of(sa, "spi_i"), text_of(sa, "spi_r"), text_of(sa, "state"),
            true_of(sa, "initiator") ? "initiator" : "responder");
    if (!json_is_string(json_object_get(sa, "remote_id"))) { /* nobody has said who he is yet */
        fprintf(out, "    %s <-> %s\n", text_of(sa, "local"), text_of(sa, "remote"));
        return;
    }
    fprintf(out, "    %s (%s) <-> %s (%s)%s\n", text_of(sa, "local_id"), text_of(sa, "local"), text_of(sa, "remote_id"),
            text_of(sa, "remote"),
            local    ? ", UDP encapsulation, we are behind NAT"
            : remote ? ", UDP encapsulation"
                     : "");
    if (json_is_integer(json_object_get(sa, "age")))
        show_established(out, sa);
    size_t i;
    json_t *child;
    json_array_foreach(json_object_get(sa, "children"), i, child) show_child(out, child);
}

static void show_peer(FILE *out, const json_t *peer)
{
    fprintf(out, "\npeer %s  %s  %s", text_of(peer, "name"), text_of(peer, "state"), text_of(peer, "endpoint"));
    if (strcmp(text_of(peer, "start"), "yes") != 0)
        fprintf(out, "  start = %s", text_of(peer, "start"));
    fputc('\n', out);
    char age[24];
    if (json_is_string(json_object_get(peer, "last_error")))
        fprintf(out, "  last error, %s ago: %s\n", duration(peer, "last_error_age", age, sizeof age),
                text_of(peer, "last_error"));
    size_t i;
    json_t *sa;
    json_array_foreach(json_object_get(peer, "ike_sas"), i, sa) show_ike(out, sa);
}

static void show_policy_traffic(FILE *out, const json_t *policy)
{
    char in[24], sent[24];
    if (number_of(policy, "in_packets") || number_of(policy, "out_packets"))
        fprintf(out, "    in %" PRId64 " packet%s, %s; out %" PRId64 " packet%s, %s\n",
                (int64_t)number_of(policy, "in_packets"), plural(number_of(policy, "in_packets")),
                bytes((double)number_of(policy, "in_bytes"), in, sizeof in), (int64_t)number_of(policy, "out_packets"),
                plural(number_of(policy, "out_packets")),
                bytes((double)number_of(policy, "out_bytes"), sent, sizeof sent));
    show_own_drops(out, "    ", policy);
}

static void show_policies(FILE *out, const json_t *status)
{
    size_t i;
    json_t *policy;
    fputs("\npolicies, first match wins; what matches none is discarded\n", out);
    json_array_foreach(json_object_get(status, "policies"), i, policy)
    {
        fprintf(out, "  %-16s %-8s ", text_of(policy, "name"), text_of(policy, "action"));
        list(out, json_object_get(policy, "local"));
        fputs(" <-> ", out);
        list(out, json_object_get(policy, "remote"));
        if (json_is_string(json_object_get(policy, "peer")))
            fprintf(out, "  %s, %s", text_of(policy, "peer"), text_of(policy, "mode"));
        fputc('\n', out);
        show_policy_traffic(out, policy);
    }
}

static void show_rate(FILE *out, const json_t *now, const json_t *before, double seconds, const char *way)
{
    char packets[16], octets[16], text[24] = "";
    snprintf(packets, sizeof packets, "%s_packets", way);
    snprintf(octets, sizeof octets, "%s_bytes", way);
    if (before && seconds > 0) {
        double rate = (double)(number_of(now, octets) - number_of(before, octets)) / seconds;
        double pps = (double)(number_of(now, packets) - number_of(before, packets)) / seconds;
        fprintf(out, "  %-4s %14s/s %12.0f packets/s %10.1f Mbit/s\n", way, bytes(rate, text, sizeof text), pps,
                rate * 8 / 1e6);
        return;
    }
    fprintf(out, "  %-4s %14s   %12" PRId64 " packets\n", way, bytes((double)number_of(now, octets), text, sizeof text),
            (int64_t)number_of(now, packets));
}

static void show_drops(FILE *out, const json_t *status)
{
    const json_t *drops = json_object_get(status, "drops");
    size_t i;
    json_t *drop;
    if (json_array_size(drops))
        fputs("\ndrops\n", out);
    json_array_foreach(drops, i, drop) fprintf(out, "  %10" PRId64 "  %-22s %s\n", (int64_t)number_of(drop, "count"),
                                               text_of(drop, "name"), text_of(drop, "text"));
}

void show_status(FILE *out, const json_t *status, const json_t *before, double seconds)
{
    show_host(out, status);
    size_t i;
    json_t *peer;
    json_array_foreach(json_object_get(status, "peers"), i, peer) show_peer(out, peer);
    if (number_of(status, "half_open"))
        fprintf(out, "\n%" PRId64 " half-open\n", (int64_t)number_of(status, "half_open"));
    show_policies(out, status);
    const json_t *now = json_object_get(status, "counters"), *then = json_object_get(before, "counters");
    fputs("\ntraffic\n", out);
    show_rate(out, now, then, seconds, "out");
    show_rate(out, now, then, seconds, "in");
    show_drops(out, status);
}
