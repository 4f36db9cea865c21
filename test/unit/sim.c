#include "test/unit/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINGER (5 * NS_PER_S)
#define JOB_TIME (2 * NS_PER_MS)

unsigned sim_rand(struct sim *s, unsigned below)
{
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return below ? (unsigned)((s->rng >> 16) % below) : 0;
}

/* -- the wire -- */

static struct sim_packet *packet_new(struct sim *s)
{
    for (unsigned i = 0; i < SIM_PACKETS; i++)
        if (!s->packets[i].used) {
            s->top = i >= s->top ? i + 1 : s->top;
            s->packets[i] = (struct sim_packet){.used = true, .number = s->packet_number++};
            return &s->packets[i];
        }
    fprintf(stderr, "sim: too many packets in flight\n");
    abort();
}

static void packet_free(struct sim_packet *p)
{
    free(p->data);
    *p = (struct sim_packet){0};
}

static void schedule(struct sim *s, struct sim_packet *p)
{
    p->at = s->now + s->delay + (s->jitter ? sim_rand(s, (unsigned)(s->jitter / 1000)) * 1000ULL : 0);
    if (sim_rand(s, 100) < s->reorder)
        p->at += s->delay * 3;
}

static bool owns(const struct sim_node *n, const struct ip *ip)
{
    for (unsigned i = 0; i < 3; i++)
        if (n->more[i].family && ip_equal(&n->more[i], ip))
            return true;
    return n->ip.family && ip_equal(&n->ip, ip);
}

static bool dead(const struct sim *s, const struct ip *ip)
{
    for (unsigned i = 0; i < 4; i++)
        if (s->dead[i].family && ip_equal(&s->dead[i], ip))
            return true;
    return false;
}

static void transmit(struct sim *s, struct sim_packet *p)
{
    struct sim_node *n = &s->node[p->from];
    bool sendable = owns(n, &p->src.ip);
    if (n->nat_ip.family) {
        p->src.ip = n->nat_ip;
        p->src.port = (uint16_t)(p->src.port + n->nat_shift);
    }
    if (s->cut || !sendable || dead(s, &p->src.ip) || dead(s, &p->dst.ip)) {
        packet_free(p);
        return;
    }
    if (!p->esp) {
        s->ike_sent++;
        enum sim_fate fate = s->hook ? s->hook(s, p, s->hook_ctx) : SIM_DELIVER;
        if (fate == SIM_DROP || sim_rand(s, 100) < s->loss) {
            packet_free(p);
            return;
        }
        if (fate == SIM_HOLD) {
            p->held = true;
            return;
        }
    }
    schedule(s, p);
    if (!p->esp && sim_rand(s, 100) < s->duplicate) {
        struct sim_packet *copy = packet_new(s);
        uint64_t number = copy->number;
        *copy = *p;
        copy->number = number;
        copy->data = malloc(p->len);
        memcpy(copy->data, p->data, p->len);
        schedule(s, copy);
    }
}

static struct sim_node *owner(struct sim *s, struct endpoint *dst)
{
    for (unsigned i = 0; i < s->nodes; i++) {
        struct sim_node *n = &s->node[i];
        if (n->nat_ip.family && ip_equal(&n->nat_ip, &dst->ip)) {
            dst->ip = n->ip;
            dst->port = (uint16_t)(dst->port - n->nat_shift);
            return n;
        }
        if (!n->nat_ip.family && owns(n, &dst->ip))
            return n;
    }
    return NULL;
}

/* A sequence number comes once only (RFC 4303 section 3.3.3): whoever sends must not start over. */
static bool fresh(struct sim_sa *sa, uint64_t seq)
{
    if (seq > sa->seq_in) {
        sa->seen_in = seq - sa->seq_in < 64 ? sa->seen_in << (seq - sa->seq_in) : 0;
        sa->seq_in = seq;
    }
    uint64_t bit = sa->seq_in - seq < 64 ? UINT64_C(1) << (sa->seq_in - seq) : 0;
    bool first = bit && !(sa->seen_in & bit);
    sa->seen_in |= bit;
    return first;
}

static void receive_esp(struct sim *s, struct sim_node *n, const struct sim_packet *p)
{
    for (unsigned i = 0; i < n->top; i++) {
        struct sim_sa *sa = &n->sas[i];
        if (!sa->used || !sa->inbound || sa->spi_in != p->spi)
            continue;
        if (memcmp(sa->key_in, p->key, sizeof p->key)) {
            fprintf(stderr, "sim: seed %llu: keys differ\n", (unsigned long long)s->seed);
            abort();
        }
        if (!fresh(sa, p->seq)) {
            fprintf(stderr, "sim: seed %llu: sequence number %llu again\n", (unsigned long long)s->seed,
                    (unsigned long long)p->seq);
            abort();
        }
        sa->in = s->now;
        s->esp_received++;
        if (s->esp_moves && p->seq == sa->seq_in && !endpoint_equal(&p->src, &sa->path.remote))
            ike_child_moved(n->e, sa->id, &p->src, s->now);
        return;
    }
    s->esp_lost++;
}

static void deliver(struct sim *s, struct sim_packet *p)
{
    struct sim_packet copy = *p;
    *p = (struct sim_packet){0};
    while (s->top && !s->packets[s->top - 1].used)
        s->top--;
    struct sim_node *n = owner(s, &copy.dst);
    if (n && copy.esp) {
        receive_esp(s, n, &copy);
    } else if (n && n->e && !copy.keepalive) {
        struct path path = {.local = copy.dst, .remote = copy.src, .marker = copy.marker};
        ike_input(n->e, &path, span_of(copy.data, copy.len), s->now);
    }
    free(copy.data);
}

void sim_release(struct sim *s, struct sim_packet *p)
{
    p->held = false;
    p->at = s->now + s->delay;
}

struct sim_packet *sim_held(struct sim *s, unsigned want)
{
    struct sim_packet *best = NULL;
    uint64_t after = 0;
    for (unsigned k = 0; k <= want; k++) {
        best = NULL;
        for (unsigned i = 0; i < s->top; i++)
            if (s->packets[i].used && s->packets[i].held && s->packets[i].number >= after &&
                (!best || s->packets[i].number < best->number))
                best = &s->packets[i];
        if (!best)
            return NULL;
        after = best->number + 1;
    }
    return best;
}

void sim_addresses(struct sim *s, unsigned node)
{
    const struct sim_node *n = &s->node[node];
    struct ip list[4];
    unsigned count = 0;
    if (n->ip.family)
        list[count++] = n->ip;
    for (unsigned i = 0; i < 3; i++)
        if (n->more[i].family)
            list[count++] = n->more[i];
    ike_addresses(n->e, list, count, s->now);
}

void sim_inject(struct sim *s, unsigned to, const struct path *path, struct span message)
{
    ike_input(s->node[to].e, path, message, s->now);
}

/* -- what the engine calls -- */

/* Where a packet comes from: the engine may leave that to the host. */
static struct endpoint source(const struct sim_node *n, const struct path *path)
{
    return (struct endpoint){path->local.ip.family ? path->local.ip : n->ip, path->local.port};
}

/* The first address is the one that routes prefer. */
static bool env_source(void *ctx, const struct ip *remote, struct ip *local)
{
    const struct sim_node *n = ctx;
    *local = n->ip;
    for (unsigned i = 0; i < 3 && local->family != remote->family; i++)
        *local = n->more[i];
    return local->family == remote->family;
}

/* Without being fragmented. */
static bool passes(const struct sim_node *n, const struct path *path, struct span message)
{
    size_t datagram = (path->remote.ip.family == 6 ? 48 : 28) + (path->marker ? 4 : 0) + message.len;
    return !n->path_mtu || datagram <= n->path_mtu;
}

static void put_on_the_way(struct sim_node *n, const struct path *path, struct span message)
{
    if ((path->local.port == 4500) != path->marker) {
        fprintf(stderr, "sim: port %u with marker %d\n", path->local.port, path->marker);
        abort();
    }
    struct sim_packet *p = packet_new(n->sim);
    p->from = n->index;
    p->src = source(n, path);
    p->dst = path->remote;
    p->marker = path->marker;
    p->len = message.len;
    p->data = malloc(message.len);
    memcpy(p->data, message.data, message.len);
    transmit(n->sim, p);
}

static void env_send(void *ctx, const struct path *path, struct span message)
{
    const struct sim_node *n = ctx;
    if (!n->no_fragments || passes(n, path, message))
        put_on_the_way(ctx, path, message);
}

static void env_send_whole(void *ctx, const struct path *path, struct span message)
{
    if (passes(ctx, path, message))
        put_on_the_way(ctx, path, message);
}

static void env_probed(void *ctx, uint64_t child, unsigned bytes, bool through)
{
    struct sim_node *n = ctx;
    n->probe.child = child;
    n->probe.bytes = bytes;
    n->probe.through = through;
    n->probes++;
}

static void env_keepalive(void *ctx, const struct path *path)
{
    struct sim_node *n = ctx;
    struct sim_packet *p = packet_new(n->sim);
    p->from = n->index;
    p->keepalive = true;
    p->src = source(n, path);
    p->dst = path->remote;
    p->len = 1;
    p->data = calloc(1, 1);
    transmit(n->sim, p);
}

static enum err env_reserve(void *ctx, uint32_t *spi)
{
    struct sim_node *n = ctx;
    *spi = n->next_spi++;
    n->spis++;
    return OK;
}

static void env_release(void *ctx, uint32_t spi)
{
    struct sim_node *n = ctx;
    (void)spi;
    if (n->spis == 0) {
        fprintf(stderr, "sim: an SPI was released twice\n");
        abort();
    }
    n->spis--;
}

static struct sim_sa *find_sa(struct sim_node *n, uint64_t id)
{
    for (unsigned i = 0; i < n->top; i++)
        if (n->sas[i].used && n->sas[i].id == id && n->sas[i].linger == NS_NEVER)
            return &n->sas[i];
    fprintf(stderr, "sim: unknown child %llu\n", (unsigned long long)id);
    abort();
}

static void take_policy(struct sim_node *n, struct sim_sa *to)
{
    for (unsigned i = 0; i < n->top; i++)
        if (n->sas[i].used && n->sas[i].policy == to->policy &&
            (!policy_shared(to->policy) || selectors_equal(&n->sas[i].remote, &to->remote)))
            n->sas[i].sending = false;
    to->sending = true;
}

static void copy_key(uint8_t out[64], struct span key, struct span integ)
{
    memset(out, 0, 64);
    for (size_t i = 0; i < key.len; i++)
        out[i % 64] ^= key.data[i];
    for (size_t i = 0; i < integ.len; i++)
        out[(i + 7) % 64] ^= integ.data[i];
}

static enum err env_install(void *ctx, const struct ike_child *c, bool sending)
{
    struct sim_node *n = ctx;
    if (n->install_failures) {
        n->install_failures--;
        return ERR_NOMEM;
    }
    if (c->key_in.len != c->suite.encr_key_len || c->integ_out.len != c->suite.integ_key_len || c->spi_out < 256)
        abort();
    for (unsigned i = 0; i < SIM_SAS; i++) {
        struct sim_sa *sa = &n->sas[i];
        if (sa->used)
            continue;
        n->top = i >= n->top ? i + 1 : n->top;
        *sa = (struct sim_sa){.used = true,
                              .inbound = true,
                              .id = c->id,
                              .linger = NS_NEVER,
                              .spi_in = c->spi_in,
                              .spi_out = c->spi_out,
                              .protocol = c->protocol,
                              .local = c->local,
                              .remote = c->remote,
                              .policy = c->policy,
                              .tfc = c->tfc,
                              .mode = c->mode,
                              .path = c->path};
        copy_key(sa->key_in, c->key_in, c->integ_in);
        copy_key(sa->key_out, c->key_out, c->integ_out);
        if (sending)
            take_policy(n, sa);
        return OK;
    }
    abort();
}

static void env_activate(void *ctx, uint64_t child)
{
    struct sim_node *n = ctx;
    struct sim_sa *sa = find_sa(n, child);
    n->sim->resumed += sa->seq_out && !sa->sending;
    take_policy(n, sa);
}

static void env_remove(void *ctx, uint64_t child, bool linger)
{
    struct sim_node *n = ctx;
    struct sim_sa *sa = find_sa(n, child);
    sa->sending = false;
    sa->linger = n->sim->now + (linger && !n->abrupt ? LINGER : 0);
}

static void env_move(void *ctx, uint64_t child, const struct path *path)
{
    find_sa(ctx, child)->path = *path;
}

static void env_traffic(void *ctx, uint64_t child, ns_t *in, ns_t *out)
{
    const struct sim_sa *sa = find_sa(ctx, child);
    *in = sa->in;
    *out = sa->out;
}

static enum err env_job(void *ctx, struct ike_job *job)
{
    struct sim_node *n = ctx;
    if (n->job_count == SIM_JOBS)
        abort();
    n->jobs[n->job_count++] = (struct sim_job){job, n->sim->now + JOB_TIME + sim_rand(n->sim, 3) * NS_PER_MS};
    n->offers_run++;
    return OK;
}

static int64_t env_wall(void *ctx)
{
    const struct sim_node *n = ctx;
    return n->sim->wall;
}

/* The test answers it. */
static enum err env_resolve(void *ctx, uint64_t lookup, const struct peer *peer)
{
    struct sim_node *n = ctx;
    (void)peer;
    if (n->lookup) {
        fprintf(stderr, "sim: a second lookup while one is under way\n");
        abort();
    }
    n->lookup = lookup;
    n->lookups++;
    return OK;
}

static void env_event(void *ctx, const struct ike_event *e)
{
    struct sim_node *n = ctx;
    struct sim_event *to = &n->events[n->event_count < SIM_EVENTS ? n->event_count++ : SIM_EVENTS - 1];
    *to = (struct sim_event){
        .kind = e->kind, .peer = e->peer, .at = n->sim->now, .command = e->command, .ok = e->command_ok};
    snprintf(to->text, sizeof to->text, "%s", e->text);
}

static void env_keylog(void *ctx, const char *line)
{
    struct sim_node *n = ctx;
    if (n->keylogs == 16) {
        memmove(n->keylog[0], n->keylog[1], sizeof n->keylog - sizeof n->keylog[0]);
        n->keylogs--;
    }
    snprintf(n->keylog[n->keylogs++], sizeof n->keylog[0], "%s", line);
}

/* -- time -- */

static void run_jobs(struct sim *s)
{
    for (unsigned k = 0; k < s->nodes; k++) {
        struct sim_node *n = &s->node[k];
        for (unsigned i = 0; i < n->job_count;) {
            if (n->jobs[i].at > s->now) {
                i++;
                continue;
            }
            struct ike_job *job = n->jobs[i].job;
            n->jobs[i] = n->jobs[--n->job_count];
            ike_job_run(job);
            if (s->job_hook)
                s->job_hook(s, n, job, s->job_hook_ctx);
            ike_complete(n->e, job, s->now);
        }
    }
}

static void send_traffic(struct sim *s)
{
    for (unsigned k = 0; k < s->nodes; k++)
        for (unsigned i = 0; i < s->node[k].top; i++) {
            struct sim_sa *sa = &s->node[k].sas[i];
            if (!sa->used || !sa->sending)
                continue;
            struct sim_packet *p = packet_new(s);
            p->from = k;
            p->esp = true;
            p->src = source(&s->node[k], &sa->path);
            p->dst = sa->path.remote;
            p->spi = sa->spi_out;
            p->seq = ++sa->seq_out;
            memcpy(p->key, sa->key_out, sizeof p->key);
            sa->out = s->now;
            s->esp_sent++;
            transmit(s, p);
        }
    s->next_traffic = s->now + s->traffic;
}

static ns_t next_at(struct sim *s)
{
    ns_t at = s->traffic ? s->next_traffic : NS_NEVER;
    for (unsigned i = 0; i < s->top; i++)
        if (s->packets[i].used && !s->packets[i].held && s->packets[i].at < at)
            at = s->packets[i].at;
    for (unsigned k = 0; k < s->nodes; k++) {
        ns_t d = s->node[k].e ? ike_deadline(s->node[k].e) : NS_NEVER;
        at = d < at ? d : at;
        for (unsigned i = 0; i < s->node[k].job_count; i++)
            at = s->node[k].jobs[i].at < at ? s->node[k].jobs[i].at : at;
        for (unsigned i = 0; i < s->node[k].top; i++)
            if (s->node[k].sas[i].used && s->node[k].sas[i].linger < at)
                at = s->node[k].sas[i].linger;
    }
    return at;
}

static void step(struct sim *s)
{
    for (unsigned i = 0; i < s->top; i++)
        if (s->packets[i].used && !s->packets[i].held && s->packets[i].at <= s->now)
            deliver(s, &s->packets[i]);
    run_jobs(s);
    for (unsigned k = 0; k < s->nodes; k++) {
        struct sim_node *n = &s->node[k];
        if (n->e && ike_deadline(n->e) <= s->now)
            ike_tick(n->e, s->now);
        for (unsigned i = 0; i < n->top; i++)
            if (n->sas[i].used && n->sas[i].linger <= s->now) {
                n->sas[i].used = false;
                n->spis--;
            }
    }
    if (s->traffic && s->next_traffic <= s->now)
        send_traffic(s);
}

bool sim_run(struct sim *s, ns_t until, bool (*cond)(struct sim *))
{
    if (s->traffic && s->next_traffic < s->now)
        s->next_traffic = s->now;
    for (;;) {
        if (cond && cond(s))
            return true;
        ns_t at = next_at(s);
        if (at > until) {
            s->now = until > s->now ? until : s->now;
            return cond && cond(s);
        }
        s->now = at > s->now ? at : s->now;
        step(s);
    }
}

void sim_for(struct sim *s, ns_t duration)
{
    sim_run(s, s->now + duration, NULL);
}

/* -- set-up -- */

void sim_proposals(struct proposals *p, enum protocol_id protocol, const char *text)
{
    char why[200];
    if (proposals_parse(text, protocol, p, why, sizeof why) != OK) {
        fprintf(stderr, "sim: %s: %s\n", text, why);
        abort();
    }
}

void sim_selectors(struct selectors *s, const char *text)
{
    if (selectors_parse(text, s, NULL, 0) != OK)
        abort();
}

static void set_up_node(struct sim *s, unsigned k)
{
    static const char *const net[2] = {"10.1.0.0/24", "10.2.0.0/24"}, *const id[2] = {"a.example", "b.example"};
    struct sim_node *n = &s->node[k];
    struct peer *peer = &n->peers[0];
    struct policy *policy = &n->policies[0];
    n->sim = s;
    n->index = k;
    n->next_spi = 0x1000 + k * 0x100000;
    n->ip = (struct ip){.family = 4, .b = {10, 0, 0, (uint8_t)(k + 1)}};
    snprintf(peer->name, sizeof peer->name, "%s", k ? "alice" : "bob");
    peer->endpoints[0].at = (struct endpoint){{.family = 4, .b = {10, 0, 0, (uint8_t)(2 - k)}}, 500};
    peer->endpoint_count = 1;
    if (identity_parse(id[k], &peer->local_id) != OK || identity_parse(id[1 - k], &peer->remote_id) != OK ||
        secret_set(&peer->psk, span_of("correct horse battery staple", 28)) != OK)
        abort();
    sim_proposals(&peer->ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-x25519");
    peer->start = START_NO;
    peer->rekey = 4 * 3600 * NS_PER_S;
    peer->dpd = 30 * NS_PER_S;
    peer->fragmentation = true;
    peer->window = 1;
    snprintf(policy->name, sizeof policy->name, "net");
    policy->peer = peer;
    sim_selectors(&policy->local, net[k]);
    sim_selectors(&policy->remote, net[1 - k]);
    sim_proposals(&policy->esp, PROTOCOL_ESP, "aes128gcm16");
    policy->lifetime = 3600 * NS_PER_S;
    policy->replay_window = 1024;
    policy->esn = true;
    for (unsigned i = 0; i < 4; i++) {
        n->peer_list[i] = &n->peers[i];
        n->policy_list[i] = &n->policies[i];
    }
    n->config.host.port = 500;
    n->config.host.nat_port = 4500;
    n->config.peers = n->peer_list;
    n->config.peer_count = 1;
    n->config.policies = n->policy_list;
    n->config.policy_count = 1;
}

struct sim *sim_new(uint64_t seed)
{
    struct sim *s = calloc(1, sizeof *s);
    s->seed = seed;
    s->rng = seed * 0x9e3779b97f4a7c15ULL + 1;
    s->now = NS_PER_S;
    s->nodes = 2;
    s->delay = 10 * NS_PER_MS;
    s->wall = 1900000000; /* in the year 2030 */
    for (unsigned k = 0; k < 2; k++)
        set_up_node(s, k);
    if (crypto_init() != OK)
        abort();
    return s;
}

void sim_start_engines(struct sim *s, const struct ike_limits *limits)
{
    for (unsigned k = 0; k < s->nodes; k++) {
        struct sim_node *n = &s->node[k];
        n->env = (struct ike_env){
            .ctx = n,
            .random = random_seeded_source(&n->random, s->seed * 8 + k),
            .stats = &n->stats,
            .send = env_send,
            .send_whole = env_send_whole,
            .probed = env_probed,
            .keepalive = env_keepalive,
            .spi_reserve = env_reserve,
            .spi_release = env_release,
            .child_install = env_install,
            .child_activate = env_activate,
            .child_remove = env_remove,
            .child_move = env_move,
            .child_traffic = env_traffic,
            .job = env_job,
            .wall = env_wall,
            .resolve = env_resolve,
            .event = env_event,
            .source = env_source,
            .keylog = env_keylog,
        };
        if (ike_new(&n->e, &n->env, &n->config, limits) != OK)
            abort();
    }
}

void sim_free(struct sim *s)
{
    for (unsigned k = 0; k < s->nodes; k++) {
        struct sim_node *n = &s->node[k];
        for (unsigned i = 0; i < n->job_count; i++)
            ike_complete(n->e, n->jobs[i].job, s->now);
        n->job_count = 0;
        ike_free(n->e);
    }
    for (unsigned i = 0; i < SIM_PACKETS; i++)
        free(s->packets[i].data);
    free(s);
}

/* -- looking -- */

struct count {
    enum ike_state state;
    unsigned n;
};

static void count_sa(void *ctx, const struct ike_sa_info *info)
{
    struct count *c = ctx;
    c->n += info->state == c->state;
}

unsigned sim_ike_sas(struct sim_node *n, enum ike_state state)
{
    struct count c = {state, 0};
    ike_each_sa(n->e, count_sa, &c);
    return c.n;
}

unsigned sim_children(struct sim_node *n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n->top; i++)
        count += n->sas[i].used && n->sas[i].linger == NS_NEVER;
    return count;
}

struct sim_sa *sim_sending(struct sim_node *n, const struct policy *p)
{
    for (unsigned i = 0; i < n->top; i++)
        if (n->sas[i].used && n->sas[i].sending && (!p || n->sas[i].policy == p))
            return &n->sas[i];
    return NULL;
}

static bool has_mirror(const struct sim_node *n, const struct sim_sa *sa)
{
    for (unsigned i = 0; i < n->top; i++) {
        const struct sim_sa *o = &n->sas[i];
        if (o->used && o->inbound && o->spi_in == sa->spi_out && o->spi_out == sa->spi_in)
            return !memcmp(o->key_in, sa->key_out, 64) && !memcmp(o->key_out, sa->key_in, 64) &&
                   selectors_equal(&o->local, &sa->remote) && selectors_equal(&o->remote, &sa->local);
    }
    return false;
}

bool sim_agree(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < s->node[k].top; i++) {
            const struct sim_sa *sa = &s->node[k].sas[i];
            if (sa->used && (sa->sending || sa->linger == NS_NEVER) && !has_mirror(&s->node[1 - k], sa))
                return false;
        }
    return true;
}

bool sim_up(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        if (sim_ike_sas(&s->node[k], IKE_ESTABLISHED) != 1 || sim_ike_sas(&s->node[k], IKE_DELETING) ||
            sim_children(&s->node[k]) != 1 || !sim_sending(&s->node[k], NULL))
            return false;
    return sim_agree(s);
}

bool sim_both(struct sim *s)
{
    return sim_sending(&s->node[0], NULL) && sim_sending(&s->node[1], NULL);
}

bool sim_empty(struct sim *s)
{
    for (unsigned k = 0; k < s->nodes; k++)
        if (!ike_idle(s->node[k].e) || s->node[k].spis)
            return false;
    return true;
}

const struct sim_event *sim_find(struct sim_node *n, enum ike_event_kind kind, const char *text)
{
    for (unsigned i = 0; i < n->event_count; i++)
        if (n->events[i].kind == kind && strstr(n->events[i].text, text))
            return &n->events[i];
    return NULL;
}

unsigned sim_count(struct sim_node *n, enum ike_event_kind kind)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n->event_count; i++)
        count += n->events[i].kind == kind;
    return count;
}

const struct sim_event *sim_command(struct sim_node *n, uint64_t command)
{
    const struct sim_event *found = NULL;
    for (unsigned i = 0; i < n->event_count; i++)
        if (n->events[i].command == command) {
            if (found) {
                fprintf(stderr, "sim: command %llu ended twice\n", (unsigned long long)command);
                abort();
            }
            found = &n->events[i];
        }
    return found;
}

void sim_dump(struct sim *s)
{
    static const char *const kind[] = {"ike-up",     "ike-rekeyed", "ike-down", "child-up", "child-rekeyed",
                                       "child-down", "failed",      "notice",   "ike-moved"};
    printf("seed %llu at %.3f s\n", (unsigned long long)s->seed, (double)s->now / 1e9);
    for (unsigned k = 0; k < s->nodes; k++) {
        struct sim_node *n = &s->node[k];
        printf("node %u: %u connecting, %u established, %u deleting, %u children, %u spis\n", k,
               sim_ike_sas(n, IKE_CONNECTING), sim_ike_sas(n, IKE_ESTABLISHED), sim_ike_sas(n, IKE_DELETING),
               sim_children(n), n->spis);
        for (unsigned i = STAT_DROP_IKE_RUNT; i < STAT_COUNT; i++)
            if (stat_get(&n->stats, i))
                printf("  %s %llu\n", stat_name(i), (unsigned long long)stat_get(&n->stats, i));
        for (unsigned i = 0; i < n->event_count; i++)
            printf("  %9.3f %-13s %llu %d %s\n", (double)n->events[i].at / 1e9, kind[n->events[i].kind],
                   (unsigned long long)n->events[i].command, n->events[i].ok, n->events[i].text);
    }
}

void sim_two_policies(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &s->node[k];
        n->policies[1] = n->policies[0];
        snprintf(n->policies[1].name, sizeof n->policies[1].name, "other");
        sim_selectors(&n->policies[1].local, k ? "10.2.1.0/24" : "10.1.1.0/24");
        sim_selectors(&n->policies[1].remote, k ? "10.1.1.0/24" : "10.2.1.0/24");
        n->config.policy_count = 2;
    }
}
