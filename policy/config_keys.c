/* The keys of the ini file, what each one sets, defaults, and required keys. */
#include <stdlib.h>
#include <string.h>

#include "crypto/transform.h"
#include "policy/config_internal.h"
#include "policy/spelling.h"

#define HOST SECTION_HOST
#define PEER SECTION_PEER
#define POLICY SECTION_POLICY
#define REAUTH_MIN (10 * NS_PER_S)
#define MSS_MIN 88 /* what Linux takes for the least */
#define MSS_MAX 65495
#define WORKERS_MAX 15 /* four bits of an SPI name the worker; zero names none */

/* -- [host] -- */

static void host_id(struct target *t, const char *value, unsigned line)
{
    value_identity(t->load, line, value, &t->host->id);
}

static void host_tun(struct target *t, const char *value, unsigned line)
{
    size_t len = strlen(value);
    if (len == 0 || len >= sizeof(t->host->tun) || strpbrk(value, "/ \t:%") || strcmp(value, ".") == 0 ||
        strcmp(value, "..") == 0)
        complain(t->load, line, "found '%s', expected an interface name of at most %zu characters", value,
                 sizeof(t->host->tun) - 1);
    else
        memcpy(t->host->tun, value, len + 1);
}

bool next_item(const char **list, char *item, size_t size)
{
    const char *space = " \t";
    if (!*list)
        return false;
    const char *at = *list + strspn(*list, space);
    size_t n = strcspn(at, ","), len = n;
    *list = at[n] ? at + n + 1 : NULL;
    while (len > 0 && strchr(space, at[len - 1]))
        len--;
    snprintf(item, size, "%.*s", (int)(len < size ? len : size - 1), at);
    return true;
}

static void host_address(struct target *t, const char *value, unsigned line)
{
    char item[PREFIX_TEXT];
    struct prefix p;
    t->host->address_line = line;
    while (next_item(&value, item, sizeof(item))) {
        if (t->host->addresses == CONFIG_ADDRESSES) {
            complain(t->load, line, "found more than %d addresses", CONFIG_ADDRESSES);
            return;
        }
        if (prefix_parse(item, &p) != OK) {
            complain(t->load, line, "found '%s', expected an address with its prefix length, such as 10.1.0.1/24",
                     *item ? item : "nothing");
            return;
        }
        t->host->address[t->host->addresses++] = p;
    }
}

static void host_listen(struct target *t, const char *value, unsigned line)
{
    const unsigned max = sizeof(t->host->listen) / sizeof(t->host->listen[0]);
    char item[IP_TEXT];
    struct ip ip;
    while (next_item(&value, item, sizeof(item))) {
        if (t->host->listens == max || ip_parse(item, &ip) != OK) {
            complain(t->load, line, "found '%s', expected at most %u addresses of this host", *item ? item : "nothing",
                     max);
            return;
        }
        t->host->listen[t->host->listens++] = ip;
    }
}

static void show_listen(const struct shown *of, char *text, size_t size)
{
    char ip[IP_TEXT];
    size_t used = (size_t)snprintf(text, size, "%s", of->host->listens ? "" : "all addresses");
    for (unsigned i = 0; i < of->host->listens && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", ip_format(&of->host->listen[i], ip));
}

static void host_crypto(struct target *t, const char *value, unsigned line)
{
    const char *words[8] = {"auto"};
    unsigned i;
    for (i = 0; i + 2 < sizeof(words) / sizeof(words[0]) && engine_name(i); i++)
        words[i + 1] = engine_name(i);
    if (value_word(t->load, line, value, words, &i))
        snprintf(t->host->crypto, sizeof(t->host->crypto), "%s", words[i]);
}

bool value_path(struct loading *l, unsigned line, const char *value, char *out, size_t size)
{
    char path[256];
    if (!value_text(l, line, value, path, sizeof(path)))
        return false;
    const char *folder = path[0] == '/' ? "" : l->folder;
    if (strlen(folder) + strlen(path) >= size) {
        complain(l, line, "found a path that is too long, expected at most %zu bytes", size - 1);
        return false;
    }
    stpcpy(stpcpy(out, folder), path);
    return true;
}

/* -- [peer] -- */

static void peer_endpoint(struct target *t, const char *value, unsigned line)
{
    struct peer *p = t->peer;
    char item[300];
    while (next_item(&value, item, sizeof(item))) {
        struct peer_endpoint e = {0};
        if (strcmp(item, "%any") == 0) {
            p->endpoint_any = true;
        } else if (p->endpoint_count == PEER_ENDPOINTS) {
            complain(t->load, line, "found more than %d endpoints", PEER_ENDPOINTS);
            return;
        } else if (value_endpoint(t->load, line, item, &e)) {
            p->endpoints[p->endpoint_count++] = e;
        }
    }
    if (p->endpoint_any) /* whoever may come from anywhere may come from the others, too */
        p->endpoint_count = 0;
}

static void peer_id(struct target *t, const char *value, unsigned line)
{
    if (strcmp(value, "%any") == 0)
        t->peer->remote_id_any = true;
    else
        value_identity(t->load, line, value, &t->peer->remote_id);
}

static void peer_local_id(struct target *t, const char *value, unsigned line)
{
    value_identity(t->load, line, value, &t->peer->local_id);
}

static void peer_psk(struct target *t, const char *value, unsigned line)
{
    value_secret(t->load, line, value, &t->peer->psk);
}

static void peer_ike(struct target *t, const char *value, unsigned line)
{
    value_proposals(t->load, line, value, PROTOCOL_IKE, &t->peer->ike);
}

static void peer_reauth(struct target *t, const char *value, unsigned line)
{
    ns_t reauth;
    if (!value_duration(t->load, line, value, true, &reauth))
        return;
    if (reauth && reauth < REAUTH_MIN)
        complain(t->load, line, "found '%s', expected at least 10s, or 'no'", value);
    else
        t->peer->reauth = reauth;
}

static void peer_ppk(struct target *t, const char *value, unsigned line)
{
    value_secret(t->load, line, value, &t->peer->ppk);
}

static void peer_ppk_id(struct target *t, const char *value, unsigned line)
{
    value_identity(t->load, line, value, &t->peer->ppk_id);
}

/* -- [policy], and a peer's own -- */

static void policy_peer(struct target *t, const char *value, unsigned line)
{
    struct spelling near = spelling_of(value, strlen(value));
    t->policy->peer = config_peer(t->load->config, value);
    if (t->policy->peer)
        return;
    for (unsigned i = 0; i < t->load->config->peer_count; i++)
        spelling_offer(&near, t->load->config->peers[i]->name);
    complain(t->load, line,
             near.nearest ? "found '%s', expected the name of a [peer], perhaps '%s'"
                          : "found '%s', expected the name of a [peer]",
             value, near.nearest);
}

static void policy_local(struct target *t, const char *value, unsigned line)
{
    value_selectors(t->load, line, value, &t->policy->local);
}

static void policy_remote(struct target *t, const char *value, unsigned line)
{
    value_selectors(t->load, line, value, &t->policy->remote);
}

static void policy_mode(struct target *t, const char *value, unsigned line)
{
    static const char *const words[] = {"tunnel", "transport", "transport-only", NULL};
    unsigned i;
    if (!value_word(t->load, line, value, words, &i))
        return;
    t->policy->mode = i ? MODE_TRANSPORT : MODE_TUNNEL;
    t->policy->transport_only = i == 2;
}

static void policy_esp(struct target *t, const char *value, unsigned line)
{
    value_proposals(t->load, line, value, PROTOCOL_ESP, &t->policy->esp);
}

/* Stands behind "esp" in the table. */
static void policy_ah(struct target *t, const char *value, unsigned line)
{
    if (has(t->section, "esp"))
        complain(t->load, line, "found 'ah' beside 'esp', expected one of them: a packet is protected by either");
    value_proposals(t->load, line, value, PROTOCOL_AH, &t->policy->esp);
}

static void policy_mss(struct target *t, const char *value, unsigned line)
{
    unsigned n;
    if (strcmp(value, "auto") == 0)
        t->policy->mss = 0;
    else if (strcmp(value, "no") == 0)
        t->policy->mss = MSS_KEEP;
    else if (value_number_or(t->load, line, value, "auto, no or ", MSS_MIN, MSS_MAX, &n))
        t->policy->mss = (uint16_t)n;
}

static void show_mss(const struct shown *of, char *text, size_t size)
{
    if (of->policy->mss && of->policy->mss != MSS_KEEP)
        snprintf(text, size, "%u", of->policy->mss);
    else
        snprintf(text, size, "%s", of->policy->mss ? "no" : "auto");
}

static const struct {
    const char *word;
    uint8_t bit;
} icmp_words[] = {{"too-big", ICMP_TOO_BIG}, {"unreachable", ICMP_UNREACHABLE}};
#define ICMP_WORDS (sizeof icmp_words / sizeof icmp_words[0])

static void policy_icmp(struct target *t, const char *value, unsigned line)
{
    char item[32];
    t->policy->icmp = 0;
    if (strcmp(value, "no") == 0)
        return;
    while (next_item(&value, item, sizeof(item))) {
        uint8_t bit = 0;
        for (unsigned i = 0; i < ICMP_WORDS; i++)
            bit |= strcmp(item, icmp_words[i].word) == 0 ? icmp_words[i].bit : 0;
        t->policy->icmp |= bit;
        if (!bit)
            complain(t->load, line, "found '%s', expected a list of too-big and unreachable, or no alone",
                     *item ? item : "nothing");
    }
}

static void show_icmp(const struct shown *of, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s", of->policy->icmp ? "" : "no");
    for (unsigned i = 0; i < ICMP_WORDS && used < size; i++)
        if (of->policy->icmp & icmp_words[i].bit)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", icmp_words[i].word);
}

/* Takes one of the two ESN values out of every proposal. False: nothing was left of one of them. */
static bool drop_esn(struct proposals *esp, uint16_t id)
{
    bool left = true;
    for (unsigned i = 0; i < esp->n; i++) {
        struct proposal *p = &esp->v[i];
        unsigned kept = 0;
        for (unsigned j = 0; j < p->n; j++)
            if (p->t[j].type != TRANSFORM_ESN || p->t[j].id != id)
                p->t[kept++] = p->t[j];
        p->n = (uint8_t)kept;
        left = left && proposal_has(p, TRANSFORM_ESN);
    }
    return left;
}

/* Stands behind "esp" and "ah" in the table, so that its proposals are there. */
static void policy_esn(struct target *t, const char *value, unsigned line)
{
    static const char *const words[] = {"yes", "no", NULL};
    unsigned i;
    if (!value_word(t->load, line, value, words, &i))
        return;
    t->policy->esn = i == 0;
    if (!t->policy->esn && !drop_esn(&t->policy->esp, ESN_YES))
        complain(t->load, line, "found 'no', expected 'yes': the %s proposals ask for 'esn'",
                 policy_protocol(t->policy) == PROTOCOL_AH ? "ah" : "esp");
}

/* -- the table -- */

#define OWN (PEER | POLICY)

/* The words of keys with few values; of an enum in the order of its values, else of true and false. */
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
static const char *const yes_no[] = {"yes", "no", NULL};
static const char *const auto_no[] = {"auto", "no", NULL};

/* In a row: the field that is set and shown. */
#define FIELD(kind_, type, member) \
    .field.kind = (kind_), .field.at = offsetof(struct type, member), .field.bytes = sizeof(((struct type *)0)->member)
#define FLAG(type, member, words_) FIELD(FIELD_FLAG, type, member), .field.words = (words_)
#define WORD(type, member, ...) FIELD(FIELD_WORD, type, member), .field.words = WORDS(__VA_ARGS__)
#define NUMBER(type, member, min_, max_) FIELD(FIELD_NUMBER, type, member), .field.min = (min_), .field.max = (max_)
#define NUMBER_OR_AUTO(type, member, min_, max_) \
    FIELD(FIELD_NUMBER_OR, type, member), .field.min = (min_), .field.max = (max_), .field.zero = "auto"
#define DURATION(type, member) FIELD(FIELD_DURATION, type, member)
#define DURATION_OR_NO(type, member) FIELD(FIELD_DURATION_OR, type, member), .field.zero = "no"
#define SIZE(type, member, kilo) \
    FIELD(FIELD_SIZE, type, member), .field.min = (kilo), .field.zero = "what is safe for the suite"
#define TOLD .field.told = true /* by config_print in words of its own */

static const struct key keys[] = {
    {"id", HOST, false, false, .apply = host_id},
    {"key", HOST | PEER, false, false, .apply = auth_key},
    {"cert", HOST | PEER, true, false, .apply = auth_cert},
    {"ca", HOST | PEER, true, false, .apply = auth_ca},
    {"crl", HOST, true, false, .apply = auth_crl}, /* behind "ca", so that they are there */
    {"tun", HOST, false, false, .apply = host_tun},
    {"address", HOST, true, false, .apply = host_address},
    {"mtu", HOST, false, false, NUMBER_OR_AUTO(host, mtu, 576, 65535)},
    {"listen", HOST, true, false, .apply = host_listen, .show = show_listen},
    {"port", HOST, false, false, NUMBER(host, port, 0, 65535), TOLD},
    {"nat-port", HOST, false, false, NUMBER(host, nat_port, 1, 65535), TOLD},
    {"workers", HOST, false, false, NUMBER_OR_AUTO(host, workers, 1, WORKERS_MAX)},
    {"half-open", HOST, false, false, NUMBER(host, half_open, 1, 1000000), .field.zero = "1000"},
    {"cookies", HOST, false, false, FLAG(host, cookies, WORDS("always", "auto"))},
    {"io", HOST, false, false, WORD(host, io, "auto", "uring", "epoll")},
    {"crypto", HOST, false, false, .apply = host_crypto, FIELD(FIELD_TEXT, host, crypto)},
    {"routes", HOST, false, false, FLAG(host, routes, auto_no)},
    {"log", HOST, false, false, WORD(host, log, "error", "warn", "info", "debug")},
    {"log-format", HOST, false, false, WORD(host, log_format, "text", "json")},
    {"keylog", HOST, false, false, FIELD(FIELD_PATH, host, keylog), .field.zero = "no"},
    {"audit", HOST, false, false, FLAG(host, audit, yes_no)},
    {"flow-log-file", HOST, false, false, FIELD(FIELD_PATH, host, flow_log), .field.zero = "the log"},
    {"control", HOST, false, false, FIELD(FIELD_TEXT, host, control), TOLD},

    {"endpoint", PEER, true, false, .apply = peer_endpoint},
    {"id", PEER, false, false, .apply = peer_id},
    {"local-id", PEER, false, false, .apply = peer_local_id},
    {"psk", PEER, false, false, .apply = peer_psk},
    {"public-key", PEER, false, false, .apply = auth_public_key},
    {"auth", PEER, false, false, .apply = auth_methods},
    {"ike", PEER, true, false, .apply = peer_ike},
    {"start", PEER, false, false, WORD(peer, start, "yes", "on-demand", "no"), TOLD},
    {"encap", PEER, false, false, WORD(peer, encap, "auto", "udp", "raw")},
    {"rekey", PEER, false, false, DURATION(peer, rekey)},
    {"reauth", PEER, false, false, .apply = peer_reauth, DURATION_OR_NO(peer, reauth)},
    {"dpd", PEER, false, false, DURATION_OR_NO(peer, dpd)},
    {"childless", PEER, false, false, WORD(peer, childless, "allow", "force", "never")},
    {"ppk", PEER, false, false, .apply = peer_ppk},
    {"ppk-id", PEER, false, false, .apply = peer_ppk_id},
    {"ppk-required", PEER, false, false, FLAG(peer, ppk_required, yes_no), TOLD},
    {"mobike", PEER, false, false, FLAG(peer, mobike, yes_no)},
    {"pmtu", PEER, false, false, WORD(peer, pmtu, "probe", "icmp", "no")},
    {"unique", PEER, false, false, WORD(peer, unique, "no", "replace", "keep")},

    {"action", POLICY, false, false, WORD(policy, action, "protect", "bypass", "discard"), TOLD},
    {"peer", POLICY, false, false, .apply = policy_peer},
    {"local", OWN, true, true, .apply = policy_local},
    {"remote", OWN, true, true, .apply = policy_remote},
    {"mode", OWN, false, true, .apply = policy_mode},
    {"esp", OWN, true, true, .apply = policy_esp},
    {"ah", OWN, true, true, .apply = policy_ah},
    {"esn", OWN, false, true, .apply = policy_esn, FLAG(policy, esn, yes_no)},
    {"lifetime", OWN, false, true, DURATION_OR_NO(policy, lifetime)},
    {"bytes", OWN, false, true, SIZE(policy, bytes, 1024)},
    {"packets", OWN, false, true, SIZE(policy, packets, 1000)},
    {"replay-window", OWN, false, true, NUMBER(policy, replay_window, 32, 65536)},
    {"hold", OWN, false, true, NUMBER(policy, hold, 0, 256)},

    {"firewall", HOST, false, false, FLAG(host, firewall, auto_no)},
    {"metrics", HOST, false, false, .apply = NULL},
    {"user", HOST, false, false, .apply = NULL},
    {"hook", HOST, false, false, .apply = NULL},
    {"fragmentation", PEER, false, false, FLAG(peer, fragmentation, yes_no)},
    {"window", PEER, false, false, NUMBER(peer, window, 1, WINDOW_MAX)},
    {"dscp", OWN, true, true, .apply = outer_dscp, .show = outer_show_dscp},
    {"ecn", OWN, false, true, FLAG(policy, outer.ecn, yes_no)},
    {"df", OWN, false, true, WORD(policy, outer.df, "clear", "copy", "set")},
    {"tfc", OWN, true, true, .apply = traffic_tfc, .show = traffic_show_tfc},
    {"dummies", OWN, false, true, NUMBER(policy, dummies, 0, DUMMIES_MAX)},
    {"mss", OWN, false, true, .apply = policy_mss, .show = show_mss},
    {"fragment", OWN, false, true, FLAG(policy, fragment_before, WORDS("before", "after"))},
    {"fail-open", OWN, false, true, FLAG(policy, fail_open, yes_no)},
    {"icmp", OWN, true, true, .apply = policy_icmp, .show = show_icmp},
    {"flow-log", OWN, false, true, FLAG(policy, flow_log, yes_no)},
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))
_Static_assert(KEYS <= CONFIG_KEYS, "a section has room for every key");

const struct key *key_at(unsigned i)
{
    return i < KEYS ? &keys[i] : NULL;
}

const char *section_kind_name(enum section_kind kind)
{
    return kind == SECTION_HOST ? "host" : kind == SECTION_PEER ? "peer" : "policy";
}

/* Planned keys are in the table, so that they are told apart from misspelt ones. */
static bool is_built(const struct key *k)
{
    return k->apply || k->field.kind != FIELD_NONE;
}

int key_find(enum section_kind kind, const char *name)
{
    for (unsigned i = 0; i < KEYS; i++)
        if ((keys[i].sections & kind) && strcmp(keys[i].name, name) == 0)
            return (int)i;
    return -1;
}

const char *key_unknown(struct loading *l, enum section_kind kind, const char *name, unsigned line)
{
    struct spelling near = spelling_of(name, strlen(name));
    for (unsigned i = 0; i < KEYS; i++) {
        if (strcmp(keys[i].name, name) == 0) {
            complain(l, line, "found '%s' in [%s], expected it in [%s%s]", name, section_kind_name(kind),
                     keys[i].sections & HOST   ? "host"
                     : keys[i].sections & PEER ? "peer"
                                               : "policy",
                     keys[i].sections & HOST ? "" : " NAME");
            return NULL;
        }
        if ((keys[i].sections & kind) && is_built(&keys[i]))
            spelling_offer(&near, keys[i].name);
    }
    if (near.nearest)
        complain(l, line, "found the unknown key '%s', expected perhaps '%s'", name, near.nearest);
    else
        complain(l, line, "found the unknown key '%s', expected one that [%s] has", name, section_kind_name(kind));
    return near.nearest;
}

/* -- sections -- */

bool has(const struct section *s, const char *name)
{
    int key = key_find(s->kind, name);
    return key >= 0 && s->line_of[key] != 0;
}

unsigned line_of(const struct section *s, const char *name)
{
    int key = key_find(s->kind, name);
    return key >= 0 ? s->line_of[key] : 0;
}

/* Applies what the section has, in the order of the table. */
static void apply_keys(struct target *t)
{
    const struct section *s = t->section;
    for (unsigned i = 0; i < KEYS; i++) {
        if (!s->line_of[i] || !s->value[i])
            continue;
        if (!is_built(&keys[i]))
            complain(t->load, s->line_of[i], "found '%s', which is not supported by this version", keys[i].name);
        else if (keys[i].of_policy && !t->policy)
            complain(t->load, s->line_of[i],
                     "found '%s' of the peer's own policy, expected 'local' and 'remote' with it", keys[i].name);
        else if (keys[i].apply)
            keys[i].apply(t, s->value[i], s->line_of[i]);
        else
            field_read(&keys[i], t, s->value[i], s->line_of[i]);
    }
}

static void require(struct loading *l, const struct section *s, const char *name)
{
    if (!has(s, name))
        complain(l, s->line, "found [%s %s] without '%s', expected it", section_kind_name(s->kind), s->name, name);
}

void host_defaults(struct host *h)
{
    *h = (struct host){.tun = "adit0",
                       .port = 500,
                       .nat_port = 4500,
                       .crypto = "auto",
                       .routes = true,
                       .firewall = true,
                       .audit = true,
                       .log = LOG_INFO};
}

static void apply_host(struct loading *l, const struct section *s)
{
    struct host *h = &l->config->host;
    struct target t = {.load = l, .section = s, .host = h};
    apply_keys(&t);
    if (h->port == h->nat_port)
        complain(l, line_of(s, has(s, "nat-port") ? "nat-port" : "port"),
                 "found %u as 'port' and as 'nat-port', expected two different ones", h->port);
    if (h->nat_port == IKE_PORT) /* the one port on which IKE comes without a marker (RFC 3948 section 2.2) */
        complain(l, line_of(s, "nat-port"), "found 500 as 'nat-port', expected another: ESP can't go there");
}

void policy_defaults(struct policy *p)
{
    *p = (struct policy){.lifetime = 60 * 60 * NS_PER_S,
                         .replay_window = 1024,
                         .hold = 16,
                         .icmp = ICMP_TOO_BIG,
                         .esn = true,
                         .outer = outer_default()};
    proposals_default(PROTOCOL_ESP, &p->esp);
}

void peer_defaults(struct peer *p)
{
    p->rekey = 4 * 60 * 60 * NS_PER_S;
    p->dpd = 30 * NS_PER_S;
    p->fragmentation = true;
    p->window = 1;
    p->mobike = true;
    proposals_default(PROTOCOL_IKE, &p->ike);
}

static struct policy *new_policy(const struct section *s)
{
    struct policy *p = malloc(sizeof(*p));
    if (!p)
        return NULL;
    policy_defaults(p);
    memcpy(p->name, s->name, sizeof(p->name));
    p->line = s->line;
    return p;
}

static struct peer *new_peer(const struct section *s)
{
    struct peer *p = secret_alloc(sizeof(*p)); /* zeroed; holds the key by value */
    if (!p)
        return NULL;
    memcpy(p->name, s->name, sizeof(p->name));
    p->line = s->line;
    peer_defaults(p);
    return p;
}

static void check_start(struct loading *l, const struct section *s, struct peer *p)
{
    if (!p->endpoint_any)
        return;
    if (has(s, "start") && p->start != START_NO)
        complain(l, line_of(s, "start"), "found a peer that shall be started with endpoint %%any, expected start = no");
    p->start = START_NO; /* nobody to send to */
}

/* By default a peer is expected under its endpoint, but calls itself by the subject of its certificate. */
static void warn_of_defaults(struct loading *l, const struct section *s, const struct peer *p)
{
    char ours[IDENTITY_TEXT], theirs[IDENTITY_TEXT];
    if (p->auth.remote != AUTH_PUBKEY || p->auth.public_key || p->local_id.type != ID_DER_DN ||
        p->remote_id.type == ID_NONE || has(s, "local-id") || l->config->host.id.type != ID_NONE)
        return;
    warn(l, s->line,
         "'%s' must call itself %s, and we call ourselves %s: ends with certificates seldom agree without 'id' in "
         "[peer] "
         "and 'local-id' here or 'id' in [host]",
         p->name, identity_format(&p->remote_id, theirs, sizeof(theirs)),
         identity_format(&p->local_id, ours, sizeof(ours)));
}

/* Who the peer must be: DESIGN's fallbacks. Without an endpoint there is none, and a key alone names nobody. */
static void expect_identity(struct loading *l, const struct section *s, struct peer *p)
{
    if (p->local_id.type == ID_NONE)
        p->local_id = l->config->host.id;
    auth_local_id(l, s, p);
    if (p->auth.remote == AUTH_PUBKEY && p->auth.public_key)
        p->remote_id_any |= !has(s, "id"); /* the key tells who it is, whatever it calls itself (RFC 7670 section 1) */
    if (p->remote_id.type != ID_NONE || p->remote_id_any || has(s, "id"))
        return;
    const struct peer_endpoint *first = &p->endpoints[0];
    if (first->at.ip.family)
        p->remote_id = identity_of_ip(&first->at.ip);
    else if (first->host[0] && identity_parse(first->host, &p->remote_id) != OK)
        complain(l, line_of(s, "endpoint"), "found a host name that can't be an identity, expected 'id' beside it");
    else if (p->endpoint_any)
        complain(l, s->line,
                 "found [peer %s] with endpoint %%any but without 'id' or 'public-key', expected one: nothing else "
                 "tells who it is",
                 s->name);
    warn_of_defaults(l, s, p);
}

/* A key and its name go together, and only who has them can insist on them. */
static void check_ppk(struct loading *l, const struct section *s)
{
    static const char *const beside[] = {"ppk-id", "ppk-required"};
    if (has(s, "ppk") && !has(s, "ppk-id"))
        complain(l, line_of(s, "ppk"), "found 'ppk' without 'ppk-id', expected the name that the peer knows it by");
    for (unsigned i = 0; i < 2; i++)
        if (has(s, beside[i]) && !has(s, "ppk"))
            complain(l, line_of(s, beside[i]), "found '%s' without 'ppk', expected the key", beside[i]);
}

static bool add_policy(struct config *c, struct policy *p)
{
    struct policy **more = reallocarray(c->policies, c->policy_count + 1, sizeof(*more));
    if (!more) {
        free(p);
        return false;
    }
    c->policies = more;
    c->policies[c->policy_count++] = p;
    hash_add(&c->policy_names, &p->by_name, hash_text(p->name));
    return true;
}

static enum err apply_peer(struct loading *l, const struct section *s, struct peer *p)
{
    struct target t = {.load = l, .section = s, .host = &l->config->host, .peer = p};
    if (has(s, "local") || has(s, "remote")) {
        t.policy = new_policy(s);
        if (!t.policy || !add_policy(l->config, t.policy))
            return ERR_NOMEM;
        t.policy->peer = p;
        require(l, s, "local");
        require(l, s, "remote");
    }
    apply_keys(&t);
    require(l, s, "endpoint");
    auth_settle(l, s, p);
    check_ppk(l, s);
    check_start(l, s, p);
    expect_identity(l, s, p);
    return OK;
}

/* What only makes sense for protected traffic. */
static void check_unprotected(struct loading *l, const struct section *s)
{
    static const char *const protect_only[] = {
        "peer", "mode", "esp", "esn",     "lifetime", "bytes",    "packets", "replay-window", "hold", "dscp",
        "ecn",  "df",   "tfc", "dummies", "mss",      "fragment", "icmp",    "fail-open",     "ah"};
    for (size_t i = 0; i < sizeof(protect_only) / sizeof(protect_only[0]); i++)
        if (has(s, protect_only[i]))
            complain(l, line_of(s, protect_only[i]),
                     "found '%s' in a policy that protects nothing, expected action = "
                     "protect with it",
                     protect_only[i]);
}

static enum err apply_policy(struct loading *l, const struct section *s)
{
    struct policy *p = new_policy(s);
    struct target t = {.load = l, .section = s, .host = &l->config->host, .policy = p};
    if (!p || !add_policy(l->config, p))
        return ERR_NOMEM;
    apply_keys(&t);
    require(l, s, "local");
    require(l, s, "remote");
    if (p->action == ACTION_PROTECT)
        require(l, s, "peer");
    else
        check_unprotected(l, s);
    return OK;
}

/* Peers first and without their keys, so that a policy may name one that comes later. */
static enum err make_peers(struct loading *l, const struct ini *ini)
{
    struct config *c = l->config;
    c->peers = calloc(ini->n ? ini->n : 1, sizeof(*c->peers));
    if (!c->peers)
        return ERR_NOMEM;
    for (unsigned i = 0; i < ini->n; i++) {
        if (ini->sections[i].kind != SECTION_PEER)
            continue;
        struct peer *p = new_peer(&ini->sections[i]);
        if (!p)
            return ERR_NOMEM;
        p->number = c->peer_count;
        c->peers[c->peer_count++] = p;
        hash_add(&c->peer_names, &p->by_name, hash_text(p->name));
    }
    return OK;
}

/* Peers learn what their policies want of the engine. */
static void settle_ah(struct config *c)
{
    for (unsigned i = 0; i < c->policy_count; i++) {
        const struct policy *p = c->policies[i];
        if (p->action == ACTION_PROTECT && p->peer && policy_protocol(p) == PROTOCOL_AH)
            c->peers[p->peer->number]->ah = true;
    }
}

enum err config_apply(struct loading *l, const struct ini *ini)
{
    struct config *c = l->config;
    unsigned peer = 0;
    host_defaults(&c->host);
    TRY(make_peers(l, ini));
    for (unsigned i = 0; i < ini->n; i++) /* wherever it stands: its id is a default for all */
        if (ini->sections[i].kind == SECTION_HOST) {
            l->host = &ini->sections[i];
            apply_host(l, l->host);
        }
    for (unsigned i = 0; i < ini->n; i++) {
        const struct section *s = &ini->sections[i];
        if (s->kind == SECTION_PEER)
            TRY(apply_peer(l, s, c->peers[peer++]));
        else if (s->kind == SECTION_POLICY)
            TRY(apply_policy(l, s));
    }
    settle_ah(c);
    if (!c->host.control[0])
        snprintf(c->host.control, sizeof(c->host.control), "/run/adit/%s.sock", c->host.tun);
    return OK;
}
