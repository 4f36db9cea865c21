/* The configuration for people, as `adit check` prints it, and what a reload compares. */
#include <string.h>

#include "policy/config_internal.h"

#define WIDTH 100  /* columns of a terminal that we aim at */
#define ESP_MIN 24 /* the least width of the last column */
#define TEXT_MAX 1200

/* -- comparison -- */

/* A name is the same peer whatever it resolves to today. */
static bool same_endpoints(const struct peer *a, const struct peer *b)
{
    if (a->endpoint_any != b->endpoint_any || a->endpoint_count != b->endpoint_count)
        return false;
    for (unsigned i = 0; i < a->endpoint_count; i++)
        if (strcmp(a->endpoints[i].host, b->endpoints[i].host) != 0 ||
            !endpoint_equal(&a->endpoints[i].at, &b->endpoints[i].at))
            return false;
    return true;
}

static bool same_extensions(const struct peer *a, const struct peer *b)
{
    return a->reauth == b->reauth && a->childless == b->childless && a->ppk.len == b->ppk.len &&
           secret_equal(a->ppk.b, b->ppk.b, a->ppk.len) && identity_equal(&a->ppk_id, &b->ppk_id) &&
           a->ppk_required == b->ppk_required;
}

bool peer_equal(const struct peer *a, const struct peer *b)
{
    return strcmp(a->name, b->name) == 0 && same_endpoints(a, b) && identity_equal(&a->local_id, &b->local_id) &&
           identity_equal(&a->remote_id, &b->remote_id) && a->remote_id_any == b->remote_id_any &&
           auth_equal(&a->auth, &b->auth) && a->psk.len == b->psk.len && secret_equal(a->psk.b, b->psk.b, a->psk.len) &&
           proposals_equal(&a->ike, &b->ike) && a->start == b->start && a->encap == b->encap && a->rekey == b->rekey &&
           a->dpd == b->dpd && a->fragmentation == b->fragmentation && a->window == b->window &&
           a->mobike == b->mobike && a->pmtu == b->pmtu && a->ah == b->ah && same_extensions(a, b);
}

static bool same_sizes(const struct policy *a, const struct policy *b)
{
    return a->mss == b->mss && a->fragment_before == b->fragment_before && a->icmp == b->icmp;
}

static bool same_tfc(const struct tfc *a, const struct tfc *b)
{
    return a->n == b->n && memcmp(a->size, b->size, a->n * sizeof a->size[0]) == 0;
}

bool policy_equal(const struct policy *a, const struct policy *b)
{
    const char *peer_a = a->peer ? a->peer->name : "", *peer_b = b->peer ? b->peer->name : "";
    return strcmp(a->name, b->name) == 0 && a->action == b->action && strcmp(peer_a, peer_b) == 0 &&
           selectors_equal(&a->local, &b->local) && selectors_equal(&a->remote, &b->remote) && a->mode == b->mode &&
           a->transport_only == b->transport_only && proposals_equal(&a->esp, &b->esp) && a->lifetime == b->lifetime &&
           a->bytes == b->bytes && a->packets == b->packets && a->esn == b->esn && outer_equal(&a->outer, &b->outer) &&
           same_tfc(&a->tfc, &b->tfc) && same_sizes(a, b);
}

/* -- what differs from its default -- */

struct defaults {
    struct host host;
    struct peer peer;
    struct policy policy;
};

/* Of the one that `of` has; a line for each, indented, below `title` if that is given. */
static void print_settings(const struct shown *of, const struct defaults *d, const char *title, FILE *out)
{
    const struct shown standard = {.host = of->host ? &d->host : NULL,
                                   .peer = of->peer ? &d->peer : NULL,
                                   .policy = of->policy ? &d->policy : NULL};
    const struct key *k;
    char ours[TEXT_MAX], theirs[TEXT_MAX];
    for (unsigned i = 0; (k = key_at(i)) != NULL; i++) {
        if (!key_show(k, of, ours, sizeof(ours)) || !key_show(k, &standard, theirs, sizeof(theirs)) ||
            strcmp(ours, theirs) == 0)
            continue;
        if (title)
            fprintf(out, "\n%s\n", title);
        title = NULL;
        fprintf(out, "    %-13s  %s (default: %s)\n", k->name, ours, theirs);
    }
}

/* -- the policy table -- */

enum column { ORDER, NAME, ACTION, PEER, LOCAL, REMOTE, MODE, ESP, COLUMNS };
static const char *const titles[COLUMNS] = {"#", "name", "action", "peer", "local", "remote", "mode", "esp"};

static const char *proposals_text(const struct proposals *p, enum protocol_id protocol, char *text, size_t size)
{
    struct proposals builtin;
    const char *mark = protocol == PROTOCOL_AH ? "AH: " : ""; /* in the column of ESP */
    size_t used = strlen(mark);
    proposals_default(protocol, &builtin);
    snprintf(text, size, "%s%s", mark, "default");
    if (!proposals_equal(p, &builtin))
        proposals_format(p, text + used, size - used);
    return text;
}

/* How much of the text one line takes: a proposal with its comma; of one that is too long, what ends with a '-'. */
static size_t piece(const char *text, size_t width)
{
    size_t len = strcspn(text, ",");
    len += text[len] == ',';
    if (len <= width)
        return len;
    for (size_t n = width; n > 0; n--)
        if (text[n - 1] == '-')
            return n;
    size_t word = strcspn(text, "-") + 1; /* one word that is longer than the line */
    return word < len ? word : len;
}

/* Line k of proposals that are broken into lines of at most `width`; empty when there is none. */
static void wrapped(const char *text, size_t width, unsigned k, char *out, size_t size)
{
    size_t len = piece(text, width);
    for (; k > 0 && len > 0; k--) {
        text += len;
        text += strspn(text, " ");
        len = piece(text, width);
    }
    snprintf(out, size, "%.*s", (int)len, text);
}

static void selector_line(const struct selectors *list, unsigned k, char *out)
{
    out[0] = '\0';
    if (k < list->n)
        selector_format(&list->v[k], out);
}

/* What column c of policy i says in its line k. out has TEXT_MAX bytes. */
static void cell(const struct policy *p, unsigned i, enum column c, unsigned k, size_t esp_width, char *out)
{
    static const char *const actions[] = {"protect", "bypass", "discard"};
    static const char *const modes[] = {"tunnel", "transport", "transport-only"};
    bool protect = p->action == ACTION_PROTECT;
    char text[TEXT_MAX];
    out[0] = '\0';
    if (c == LOCAL || c == REMOTE)
        selector_line(c == LOCAL ? &p->local : &p->remote, k, out);
    else if (c == ESP && protect)
        wrapped(proposals_text(&p->esp, policy_protocol(p), text, sizeof(text)), esp_width, k, out, TEXT_MAX);
    else if (k > 0)
        return;
    else if (c == ORDER)
        snprintf(out, TEXT_MAX, "%u", i + 1);
    else if (c == NAME)
        snprintf(out, TEXT_MAX, "%s", p->name);
    else if (c == ACTION)
        snprintf(out, TEXT_MAX, "%s", actions[p->action]);
    else if (c == PEER)
        snprintf(out, TEXT_MAX, "%s", p->peer ? p->peer->name : "-");
    else if (c == MODE)
        snprintf(out, TEXT_MAX, "%s", protect ? modes[p->mode + p->transport_only] : "-");
}

static void measure(const struct config *c, size_t width[COLUMNS])
{
    char text[TEXT_MAX];
    size_t used = 0;
    for (unsigned col = 0; col < ESP; col++) {
        width[col] = strlen(titles[col]);
        for (unsigned i = 0; i < c->policy_count; i++) {
            for (unsigned k = 0; k < SELECTORS_MAX; k++) {
                cell(c->policies[i], i, (enum column)col, k, WIDTH, text);
                if (strlen(text) > width[col])
                    width[col] = strlen(text);
            }
        }
        used += width[col] + 2;
    }
    width[ESP] = used + ESP_MIN <= WIDTH ? WIDTH - used : ESP_MIN;
}

/* One line, without blanks at its end. False: all of it is empty. */
static bool print_line(char texts[COLUMNS][TEXT_MAX], const size_t width[COLUMNS], FILE *out)
{
    int last = COLUMNS - 1;
    while (last >= 0 && !texts[last][0])
        last--;
    for (int c = 0; c < last; c++)
        fprintf(out, "%-*s  ", (int)width[c], texts[c]);
    if (last >= 0)
        fprintf(out, "%s\n", texts[last]);
    return last >= 0;
}

static void print_policies(const struct config *c, const struct defaults *d, FILE *out)
{
    size_t width[COLUMNS];
    char texts[COLUMNS][TEXT_MAX];
    measure(c, width);
    fprintf(out, "Policies, first match wins; what matches none is discarded\n");
    for (unsigned col = 0; col < COLUMNS; col++)
        snprintf(texts[col], TEXT_MAX, "%s", titles[col]);
    print_line(texts, width, out);
    for (unsigned i = 0; i < c->policy_count; i++) {
        unsigned k = 0;
        do {
            for (unsigned col = 0; col < COLUMNS; col++)
                cell(c->policies[i], i, (enum column)col, k, width[ESP], texts[col]);
            k++;
        } while (print_line(texts, width, out));
    }
    for (unsigned i = 0; i < c->policy_count; i++)
        print_settings(&(struct shown){.policy = c->policies[i]}, d, c->policies[i]->name, out);
}

/* -- peers and host -- */

static void print_endpoints(const struct peer *p, FILE *out)
{
    char text[PEER_ENDPOINT_TEXT];
    if (p->endpoint_any)
        fprintf(out, "any address");
    for (unsigned i = 0; i < p->endpoint_count; i++)
        fprintf(out, "%s%s", i ? ", " : "", peer_endpoint_format(&p->endpoints[i], text));
}

static void print_peer(const struct peer *p, const struct defaults *d, FILE *out)
{
    static const char *const starts[] = {"starts at once", "starts on demand", "waits for the peer"};
    char text[TEXT_MAX], line[TEXT_MAX];
    fprintf(out, "%s: ", p->name);
    print_endpoints(p, out);
    fprintf(out, ", %s\n", starts[p->start]);
    fprintf(out, "    id             %s\n",
            p->remote_id_any ? "any" : identity_format(&p->remote_id, text, sizeof(text)));
    fprintf(out, "    local-id       %s\n",
            p->local_id.type == ID_NONE ? "our outer address" : identity_format(&p->local_id, text, sizeof(text)));
    auth_print(&p->auth, out);
    if (p->ppk.len)
        fprintf(out, "    ppk            %s, %s\n", identity_format(&p->ppk_id, text, sizeof(text)),
                p->ppk_required ? "required" : "used where the peer has it too");
    proposals_text(&p->ike, PROTOCOL_IKE, text, sizeof(text));
    for (unsigned k = 0;; k++) {
        wrapped(text, WIDTH - 19, k, line, sizeof(line));
        if (!line[0])
            break;
        fprintf(out, "    %-13s  %s\n", k ? "" : "ike", line);
    }
    print_settings(&(struct shown){.peer = p}, d, NULL, out);
}

static void print_host(const struct host *h, const struct defaults *d, FILE *out)
{
    char text[PREFIX_TEXT];
    fprintf(out, "Host: tun %s", h->tun);
    for (unsigned i = 0; i < h->addresses; i++)
        fprintf(out, "%s%s", i ? ", " : ", address ", prefix_format(&h->address[i], text));
    if (h->port)
        fprintf(out, ", ports %u and %u", h->port, h->nat_port);
    else
        fprintf(out, ", port %u", h->nat_port);
    fprintf(out, ", control %s\n", h->control);
    print_settings(&(struct shown){.host = h}, d, NULL, out);
}

/* What "default" stands for, if it was printed at all. */
static void print_legend(const struct config *c, FILE *out)
{
    enum { KINDS = 3 };
    static const char *const names[KINDS] = {"ike", "esp", "ah"};
    static const enum protocol_id protocols[KINDS] = {PROTOCOL_IKE, PROTOCOL_ESP, PROTOCOL_AH};
    char text[TEXT_MAX], line[TEXT_MAX];
    struct proposals builtin[KINDS];
    bool shown[KINDS] = {false};
    for (unsigned i = 0; i < KINDS; i++)
        proposals_default(protocols[i], &builtin[i]);
    for (unsigned i = 0; i < c->peer_count; i++)
        shown[0] = shown[0] || proposals_equal(&c->peers[i]->ike, &builtin[0]);
    for (unsigned i = 0; i < c->policy_count; i++)
        for (unsigned k = 1; k < KINDS && c->policies[i]->action == ACTION_PROTECT; k++)
            shown[k] = shown[k] || proposals_equal(&c->policies[i]->esp, &builtin[k]);
    if (shown[0] || shown[1] || shown[2])
        fprintf(out, "\nDefault proposals\n");
    for (unsigned i = 0; i < KINDS; i++) {
        proposals_format(&builtin[i], text, sizeof(text));
        for (unsigned k = 0; shown[i]; k++) {
            wrapped(text, WIDTH - 9, k, line, sizeof(line));
            if (!line[0])
                break;
            fprintf(out, "    %-3s  %s\n", k ? "" : names[i], line);
        }
    }
}

void config_print(const struct config *c, FILE *out)
{
    struct defaults d = {0};
    host_defaults(&d.host);
    peer_defaults(&d.peer);
    policy_defaults(&d.policy);
    print_host(&c->host, &d, out);
    fprintf(out, "\n");
    print_policies(c, &d, out);
    if (c->peer_count)
        fprintf(out, "\nPeers\n");
    for (unsigned i = 0; i < c->peer_count; i++)
        print_peer(c->peers[i], &d, out);
    print_legend(c, out);
}
