/*
 * One step after the other fails: the life of a link between two engines is lived again and again, and each time the
 * next allocation, job, SPI, installation or message can't be had. Nothing may crash, leak or stay stuck: once things
 * work again both ends agree by themselves, and after a shutdown no SA and no SPI is left. The same for the data plane.
 * The Makefile has the linker wrap the functions that fail here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/prf.h"
#include "esp/sad.h"
#include "ike/internal.h"
#include "test/unit/credential.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "test/unit/sim.h"
#include "test/vectors/auth.h"
#include "tun/offload.h"

#define A (&s->node[0])
#define B (&s->node[1])

enum kind {
    ALLOCATION,
    JOB_REFUSED,
    JOB_FAILED,
    RESERVE,
    INSTALL,
    MESSAGE,
    KEYS,
    PRF,
    PUBLISH_IN,
    PUBLISH_OUT,
};

static const char *const kind_name[] = {
    "allocation", "job taken", "job result", "SPI",        "installation",
    "message",    "keys",      "PRF",        "inbound SA", "outbound SA",
};

/* What fails: the first'th call of its kind, counted from 0, while armed; with `lasting` all that follow as well. */
static struct {
    enum kind kind;
    unsigned first, calls;
    bool lasting, armed;
    unsigned outside;  /* depth of what is not ours to break: the simulated world */
    bool scoped;       /* only in what the data plane does for the engine */
    unsigned inside;   /* depth of that */
    uint32_t spi[100]; /* all that were reserved */
    unsigned spis;
} fault;

static void fault_arm(enum kind kind, unsigned first, bool lasting)
{
    fault.kind = kind;
    fault.first = first;
    fault.calls = 0;
    fault.lasting = lasting;
    fault.armed = true;
}

static bool fails(enum kind kind)
{
    if (!fault.armed || fault.outside || kind != fault.kind || (fault.scoped && !fault.inside))
        return false;
    unsigned call = fault.calls++;
    return fault.lasting ? call >= fault.first : call == fault.first;
}

/* -- wrapped by the linker -- */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return fails(ALLOCATION) ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return fails(ALLOCATION) ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size)
{
    return fails(ALLOCATION) ? NULL : __real_realloc(p, size);
}

void *__real_secret_alloc(size_t size);
void *__wrap_secret_alloc(size_t size);
void *__wrap_secret_alloc(size_t size)
{
    return fails(ALLOCATION) ? NULL : __real_secret_alloc(size);
}

enum err __real_ike_finish(struct ike_builder *b, size_t *len);
enum err __wrap_ike_finish(struct ike_builder *b, size_t *len);
enum err __wrap_ike_finish(struct ike_builder *b, size_t *len)
{
    return fails(MESSAGE) ? ERR_FULL : __real_ike_finish(b, len);
}

enum err __real_ike_finish_sk(struct ike_builder *b, const struct suite *suite, struct keyed *keyed, size_t *len);
enum err __wrap_ike_finish_sk(struct ike_builder *b, const struct suite *suite, struct keyed *keyed, size_t *len);
enum err __wrap_ike_finish_sk(struct ike_builder *b, const struct suite *suite, struct keyed *keyed, size_t *len)
{
    return fails(MESSAGE) ? ERR_CRYPTO : __real_ike_finish_sk(b, suite, keyed, len);
}

enum err __real_keyed_new(struct keyed **out, const struct suite *suite, enum transform_dir dir, const char *engine,
                          struct span key, struct span integ_key);
enum err __wrap_keyed_new(struct keyed **out, const struct suite *suite, enum transform_dir dir, const char *engine,
                          struct span key, struct span integ_key);
enum err __wrap_keyed_new(struct keyed **out, const struct suite *suite, enum transform_dir dir, const char *engine,
                          struct span key, struct span integ_key)
{
    return fails(KEYS) ? ERR_CRYPTO : __real_keyed_new(out, suite, dir, engine, key, integ_key);
}

enum err __real_prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out);
enum err __wrap_prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out);
enum err __wrap_prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out)
{
    return fails(PRF) ? ERR_CRYPTO : __real_prf(id, key, parts, n, out);
}

void __real_ike_job_run(struct ike_job *job);
void __wrap_ike_job_run(struct ike_job *job);
void __wrap_ike_job_run(struct ike_job *job)
{
    if (fails(JOB_FAILED))
        job->result = ERR_NOMEM;
    else
        __real_ike_job_run(job);
}

enum err __real_sad_publish_in(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_in(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_in(struct sad *s, struct sa *sa)
{
    return fails(PUBLISH_IN) ? ERR_FULL : __real_sad_publish_in(s, sa);
}

enum err __real_sad_publish_out(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_out(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_out(struct sad *s, struct sa *sa)
{
    return fails(PUBLISH_OUT) ? ERR_NOMEM : __real_sad_publish_out(s, sa);
}

enum err __real_dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                  ns_t now);
enum err __wrap_dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                  ns_t now);
enum err __wrap_dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                  ns_t now)
{
    fault.inside++;
    enum err err = __real_dataplane_install(d, c, engine, sending, now);
    fault.inside--;
    return err;
}

enum err __real_dataplane_reserve(struct dataplane *d, uint32_t *spi);
enum err __wrap_dataplane_reserve(struct dataplane *d, uint32_t *spi);
enum err __wrap_dataplane_reserve(struct dataplane *d, uint32_t *spi)
{
    fault.inside++;
    enum err err = fails(RESERVE) ? ERR_FULL : __real_dataplane_reserve(d, spi);
    fault.inside--;
    if (err == OK && fault.spis < sizeof fault.spi / sizeof *fault.spi)
        fault.spi[fault.spis++] = *spi;
    return err;
}

/* -- the engine's world: it may refuse, but it does not fail by itself -- */

static struct ike_env world[2];

static struct ike_env *world_of(void *ctx)
{
    return &world[((struct sim_node *)ctx)->index];
}

static void env_send(void *ctx, const struct path *path, struct span message)
{
    fault.outside++;
    world_of(ctx)->send(ctx, path, message);
    fault.outside--;
}

static void env_keepalive(void *ctx, const struct path *path)
{
    fault.outside++;
    world_of(ctx)->keepalive(ctx, path);
    fault.outside--;
}

static enum err env_reserve(void *ctx, uint32_t *spi)
{
    return fails(RESERVE) ? ERR_FULL : world_of(ctx)->spi_reserve(ctx, spi);
}

static enum err env_install(void *ctx, const struct ike_child *c, bool sending)
{
    return fails(INSTALL) ? ERR_NOMEM : world_of(ctx)->child_install(ctx, c, sending);
}

static enum err env_job(void *ctx, struct ike_job *job)
{
    return fails(JOB_REFUSED) ? ERR_FULL : world_of(ctx)->job(ctx, job);
}

/* certified: authenticated by certificates, whose messages come in fragments. */
static struct sim *link_new(uint64_t seed, bool certified)
{
    static const char *const key[2] = {VECTOR_A_P256_KEY, VECTOR_B_P256_KEY};
    static const char *const cert[2] = {VECTOR_A_P256_CRT, VECTOR_B_P256_CRT};
    struct sim *s = sim_new(seed);
    for (unsigned k = 0; k < 2; k++) {
        s->node[k].peers[0].start = START_YES;
        s->node[k].peers[0].dpd = 5 * NS_PER_S;
        if (!certified)
            continue;
        own_cert(&s->node[k].peers[0], key[k], cert[k]);
        wants_ca(&s->node[k].peers[0], VECTOR_ROOT_CRT);
    }
    sim_start_engines(s, certified ? &(struct ike_limits){.datagram = 400} : NULL);
    for (unsigned k = 0; k < 2; k++) {
        struct ike_env *env = &s->node[k].e->env;
        world[k] = *env;
        env->send = env_send;
        env->keepalive = env_keepalive;
        env->spi_reserve = env_reserve;
        env->child_install = env_install;
        env->job = env_job;
    }
    s->traffic = 100 * NS_PER_MS;
    return s;
}

static void link_free(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        forget(&s->node[k].peers[0]);
    sim_free(s);
}

/* -- lives: armed from the beginning to the end -- */

static void start(struct sim *s)
{
    ike_start(A->e, s->now);
    sim_for(s, NS_PER_S);
    ike_start(B->e, s->now);
    sim_for(s, 3 * NS_PER_S);
}

static void rekey(struct sim *s, unsigned by, bool child, uint64_t command)
{
    struct sim_node *n = &s->node[by];
    ike_rekey(n->e, &n->peers[0], child ? &n->policies[0] : NULL, command, s->now);
}

static void life_with_rekeys(struct sim *s)
{
    start(s);
    for (unsigned i = 0; i < 4; i++) {
        rekey(s, i % 2, i < 2, 10 + i);
        sim_for(s, 2 * NS_PER_S);
    }
}

static void life_certified(struct sim *s)
{
    start(s);
    rekey(s, 0, true, 10);
    sim_for(s, 2 * NS_PER_S);
}

/* The IKE SA is authenticated anew. */
static void life_with_reauthentication(struct sim *s)
{
    A->peers[0].reauth = 50 * NS_PER_S;
    start(s);
    sim_for(s, 55 * NS_PER_S);
}

/* Both ends at once, so that the steps of collisions fail as well. */
static void life_with_collisions(struct sim *s)
{
    start(s);
    for (unsigned i = 0; i < 4; i++) {
        rekey(s, 0, i < 2, 10 + i);
        sim_for(s, i % 2 ? 15 * NS_PER_MS : 0);
        rekey(s, 1, i % 2 == 0, 20 + i);
        sim_for(s, 2 * NS_PER_S);
    }
}

static void life_with_deletes(struct sim *s)
{
    start(s);
    ike_down(A->e, &A->peers[0], &A->policies[0], 10, s->now);
    sim_for(s, NS_PER_S);
    ike_up(A->e, &A->peers[0], &A->policies[0], 11, s->now);
    sim_for(s, 2 * NS_PER_S);
    ike_down(B->e, &B->peers[0], NULL, 20, s->now);
    sim_for(s, NS_PER_S);
    ike_up(B->e, &B->peers[0], NULL, 21, s->now);
    sim_for(s, 2 * NS_PER_S);
}

static void life_with_soft_limits(struct sim *s)
{
    start(s);
    for (uint64_t id = 1; id < 4; id++) {
        ike_child_soft(A->e, id, s->now);
        sim_for(s, NS_PER_S);
    }
    for (uint64_t id = 1; id < 8; id++)
        ike_child_hard(B->e, id, s->now);
    sim_for(s, 3 * NS_PER_S);
}

/* The daemon's own copies of one and the same configuration, and one with another lifetime of the policy. */
struct copy {
    struct config config;
    struct peer peer, *peers[1];
    struct policy policy, *policies[1];
};
static struct copy copies[3];

static void reload(struct sim *s, struct copy *c, ns_t lifetime)
{
    *c = (struct copy){.config = A->config, .peer = A->peers[0], .policy = A->policies[0]};
    c->policy.peer = &c->peer;
    c->policy.lifetime = lifetime;
    c->peers[0] = &c->peer;
    c->policies[0] = &c->policy;
    c->config.peers = c->peers;
    c->config.policies = c->policies;
    ike_reload(A->e, &c->config, s->now);
    ike_start(A->e, s->now);
    sim_for(s, 2 * NS_PER_S);
}

static void life_with_reloads(struct sim *s)
{
    start(s);
    reload(s, &copies[0], A->policies[0].lifetime);
    reload(s, &copies[1], 1800 * NS_PER_S);
}

/* -- and what must hold afterwards -- */

static bool fail_here(struct sim *s, const char *what)
{
    print_message("%s: %s %u fails%s: %s\n", __func__, kind_name[fault.kind], fault.first,
                  fault.lasting ? ", and all that follow" : "", what);
    sim_dump(s);
    return false;
}

static bool commands_over(struct sim *s)
{
    sim_for(s, 200 * NS_PER_S); /* each ends within three minutes */
    for (uint64_t c = 10; c < 24; c++)
        for (unsigned k = 0; k < 2; k++)
            (void)sim_command(&s->node[k], c); /* aborts when one ends twice */
    return !A->e->commands && !B->e->commands;
}

/* One IKE SA, and the same Child SAs at both ends: two, if both have asked for one at the same time. */
static bool agreed(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        if (sim_ike_sas(&s->node[k], IKE_ESTABLISHED) != 1 || sim_ike_sas(&s->node[k], IKE_DELETING))
            return false;
    return sim_both(s) && sim_agree(s) && sim_children(A) == sim_children(B) && sim_children(A) <= 2;
}

/* Traffic of both ends arrives, all of it. */
static bool passes(struct sim *s)
{
    unsigned sent = s->esp_sent, got = s->esp_received, lost = s->esp_lost;
    sim_for(s, 10 * NS_PER_S);
    return s->esp_sent - sent >= 198 && s->esp_lost == lost && s->esp_received - got >= s->esp_sent - sent - 4;
}

static bool comes_back(struct sim *s)
{
    if (A->e->config != &A->config) /* a peer for which a reload had no memory stays unknown until the next one */
        reload(s, &copies[2], A->policies[0].lifetime);
    for (unsigned k = 0; k < 2; k++) {
        /* A command that fails says so, and is for who gave it to repeat: what was taken down is not up by itself. */
        struct sim_node *n = &s->node[k];
        struct run *r = n->e->runs ? n->e->runs[0] : NULL;
        if (r && (r->held || (r->policy_count && r->policies[0].held)))
            ike_up(n->e, r->peer, NULL, 23, s->now);
    }
    if (!sim_run(s, s->now + 400 * NS_PER_S, agreed))
        return fail_here(s, "the ends don't agree again");
    if (!commands_over(s))
        return fail_here(s, "a command never ended");
    if (!sim_run(s, s->now + 5 * NS_PER_S, agreed) || !passes(s))
        return fail_here(s, "traffic does not pass for good");
    return true;
}

static bool ends(struct sim *s)
{
    s->traffic = 0;
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    return sim_run(s, s->now + 400 * NS_PER_S, sim_empty) || fail_here(s, "something is left after the shutdown");
}

/* Lives with the n'th call failing. Returns false when there was no such call any more. */
static bool live(void (*life)(struct sim *), enum kind kind, unsigned n, bool lasting)
{
    struct sim *s = link_new(1000 + n, life == life_certified);
    fault_arm(kind, n, lasting);
    life(s);
    fault.armed = false;
    bool happened = fault.calls > n, well = comes_back(s) && ends(s);
    link_free(s);
    assert_true(well);
    return happened;
}

static void each(void (*life)(struct sim *), enum kind kind)
{
    for (unsigned lasting = 0; lasting < 2; lasting++) {
        unsigned n = 0;
        while (live(life, kind, n, lasting))
            n++;
        print_message("%u failing one by one%s: %s\n", n, lasting ? ", with all that follow" : "", kind_name[kind]);
        assert_true(n > 2);
    }
}

static void allocations_fail(void **state)
{
    (void)state;
    each(life_with_rekeys, ALLOCATION);
}
static void allocations_fail_with_certificates(void **state)
{
    (void)state;
    each(life_certified, ALLOCATION);
    each(life_certified, JOB_REFUSED);
    each(life_certified, JOB_FAILED);
    each(life_certified, MESSAGE);
}
static void allocations_fail_while_reauthenticating(void **state)
{
    (void)state;
    each(life_with_reauthentication, ALLOCATION);
    each(life_with_reauthentication, INSTALL);
    each(life_with_reauthentication, MESSAGE);
}
static void allocations_fail_in_collisions(void **state)
{
    (void)state;
    each(life_with_collisions, ALLOCATION);
}
static void allocations_fail_while_deleting(void **state)
{
    (void)state;
    each(life_with_deletes, ALLOCATION);
}
static void allocations_fail_at_limits(void **state)
{
    (void)state;
    each(life_with_soft_limits, ALLOCATION);
}
static void allocations_fail_while_reloading(void **state)
{
    (void)state;
    each(life_with_reloads, ALLOCATION);
}
/* The shutdown itself is short of everything: the peer may have to find out by itself, but nothing is left here. */
static void shutdown_fails(void **state)
{
    (void)state;
    static const enum kind kinds[] = {ALLOCATION, MESSAGE};
    for (unsigned k = 0; k < 2; k++)
        for (unsigned n = 0, calls = 1; n <= calls; n++) {
            struct sim *s = link_new(8 + n, false);
            start(s);
            fault_arm(kinds[k], n, true);
            ike_shutdown(A->e, s->now);
            sim_for(s, 5 * NS_PER_S);
            fault.armed = false;
            calls = fault.calls;
            assert_true(ends(s));
            link_free(s);
        }
}

static void engine_cannot_be_made(void **state)
{
    (void)state;
    struct sim *s = link_new(9, false);
    for (unsigned n = 0;; n++) {
        struct ike_engine *e = NULL;
        fault_arm(ALLOCATION, n, false);
        enum err err = ike_new(&e, &A->env, &A->config, NULL);
        fault.armed = false;
        if (err == OK) {
            assert_true(n > 4 && fault.calls == n);
            ike_free(e);
            break;
        }
        assert_int_equal(err, ERR_NOMEM);
        assert_null(e);
    }
    link_free(s);
}

static void jobs_are_refused(void **state)
{
    (void)state;
    each(life_with_rekeys, JOB_REFUSED);
    each(life_with_collisions, JOB_REFUSED);
}
static void jobs_fail(void **state)
{
    (void)state;
    each(life_with_rekeys, JOB_FAILED);
    each(life_with_collisions, JOB_FAILED);
}
/* A responder's key exchange that fails for want of memory is not the peer's fault: the IKE SA stays. */
static void a_shortage_is_not_blamed_on_the_peer(void **state)
{
    (void)state;
    for (unsigned child = 0; child < 2; child++) {
        struct sim *s = link_new(7, false);
        start(s);
        rekey(s, 0, child, 10);
        fault_arm(JOB_FAILED, 1, false); /* of the offer, the response and the end */
        sim_for(s, NS_PER_S);
        fault.armed = false;
        assert_int_equal(fault.calls, 2);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN) + sim_count(B, IKE_EVENT_IKE_DOWN), 0);
        assert_true(sim_run(s, s->now + 30 * NS_PER_S, agreed));
        sim_for(s, 20 * NS_PER_S);
        assert_true(sim_command(A, 10)->ok); /* tried again after TEMPORARY_FAILURE */
        assert_true(ends(s));
        link_free(s);
    }
}
/* A rekey that the peer refuses for a moment is tried again before the hard limit, however near that is. */
static void a_refused_rekey_beats_the_hard_limit(void **state)
{
    (void)state;
    struct sim *s = link_new(11, false);
    A->policies[0].lifetime = 8 * NS_PER_S;
    start(s);
    fault_arm(JOB_FAILED, 1, false); /* of the offer, the response and the end */
    sim_for(s, 6 * NS_PER_S);
    fault.armed = false;
    assert_true(fault.calls > 3);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_REKEYED), 1);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN), 0);
    assert_true(ends(s));
    link_free(s);
}
static void spis_run_out(void **state)
{
    (void)state;
    each(life_with_rekeys, RESERVE);
}
static void installations_fail(void **state)
{
    (void)state;
    each(life_with_rekeys, INSTALL);
    each(life_with_collisions, INSTALL);
}
static void messages_cannot_be_made(void **state)
{
    (void)state;
    each(life_with_rekeys, MESSAGE);
    each(life_with_collisions, MESSAGE);
    each(life_with_deletes, MESSAGE);
}
static void keys_cannot_be_made(void **state)
{
    (void)state;
    each(life_with_rekeys, KEYS);
    each(life_with_rekeys, PRF);
}

/* -- the data plane: whole tunnels in memory -- */

static struct rig rig;

static bool tunnel_passes(void)
{
    static uint8_t frame[2048], taken[2048];
    struct packet_spec spec = packet_spec_udp(false);
    memset(frame, 0, sizeof frame);
    size_t len = TUN_HDR_LEN + packet_build(&spec, (const uint8_t *)"there", 5, frame + TUN_HDR_LEN);
    uint8_t *ip = frame + TUN_HDR_LEN, source[4];
    for (unsigned from = 0; from < 2; from++) {
        if (memory_tun_inject(rig.net, rig.host[from].tun, frame, len) != OK)
            return false;
        rig_run(&rig, 5 * NS_PER_MS);
        if (memory_tun_take(rig.net, rig.host[1 - from].tun, taken, sizeof taken) != len)
            return false;
        memcpy(source, ip + 12, 4); /* and back: no checksum changes */
        memcpy(ip + 12, ip + 16, 4);
        memcpy(ip + 16, source, 4);
    }
    return true;
}

static bool tunnel_up(uint64_t command)
{
    for (unsigned i = 0; i < 40; i++) {
        struct rig_host *h = &rig.host[0];
        ike_up(h->engine, h->config->peers[0], NULL, command + i, rig.now);
        rig_run(&rig, 2 * NS_PER_S);
        if (tunnel_passes())
            return true;
    }
    return false;
}

/* Nothing of a Child SA is left: none is known, no SPI is reserved, no policy has an outbound SA. */
static bool data_plane_empty(const struct rig_host *h)
{
    struct child_counters counters;
    for (uint64_t id = 1; id < 60; id++)
        if (dataplane_counters(h->dataplane, id, &counters) == OK)
            return false;
    for (unsigned i = 0; i < fault.spis; i++) {
        struct sa probe = {.params = {.dir = SA_IN, .spi = fault.spi[i]}};
        if (__real_sad_publish_in(h->shared.sad, &probe) != ERR_STATE)
            return false;
    }
    return !sad_find_out(h->shared.sad, 0, 0);
}

static bool installs(enum kind kind, unsigned n, bool lasting)
{
    rig_setup(&rig, 50 + n, "");
    fault.spis = 0;
    fault.scoped = true;
    fault_arm(kind, n, lasting);
    rig_run(&rig, NS_PER_MS);
    ike_up(rig.host[0].engine, rig.host[0].config->peers[0], NULL, 1, rig.now);
    rig_run(&rig, 2 * NS_PER_S);
    for (unsigned k = 0; k < 2; k++) {
        struct config *c = rig.host[k].config;
        ike_rekey(rig.host[k].engine, c->peers[0], c->policies[0], 2 + k, rig.now);
        rig_run(&rig, NS_PER_S);
    }
    fault.armed = fault.scoped = false;
    bool happened = fault.calls > n;
    assert_true(tunnel_up(10));
    for (unsigned k = 0; k < 2; k++)
        ike_shutdown(rig.host[k].engine, rig.now);
    rig_run(&rig, 12 * NS_PER_S);
    for (unsigned k = 0; k < 2; k++)
        assert_true(ike_idle(rig.host[k].engine) && data_plane_empty(&rig.host[k]));
    rig_teardown(&rig);
    return happened;
}

static void each_install_step_fails(void **state)
{
    (void)state;
    static const enum kind kinds[] = {ALLOCATION, RESERVE, KEYS, PUBLISH_IN, PUBLISH_OUT};
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (unsigned lasting = 0; lasting < 2; lasting++) {
            unsigned n = 0;
            while (installs(kinds[k], n, lasting))
                n++;
            print_message("%u failing one by one%s: %s\n", n, lasting ? ", with all that follow" : "",
                          kind_name[kinds[k]]);
            assert_true(n > 2);
        }
}

/* What activates can't report a failure, so an installation that sends later already has all that takes memory. */
static void activation_needs_no_memory(void **state)
{
    (void)state;
    static const uint8_t key[64];
    const struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128}, none = {TRANSFORM_INTEG, INTEG_NONE, 0};
    rig_setup(&rig, 1, "");
    struct rig_host *h = &rig.host[0];
    struct ike_child c = {.id = 1, .policy = h->config->policies[0], .spi_out = 0x1234};
    assert_int_equal(suite_of(&gcm, &none, &c.suite), OK);
    c.local = c.policy->local;
    c.remote = c.policy->remote;
    c.path.local.ip = h->at.ip;
    c.path.remote.ip = rig.host[1].at.ip;
    c.key_in = c.key_out = span_of(key, c.suite.encr_key_len);
    assert_int_equal(dataplane_reserve(h->dataplane, &c.spi_in), OK);
    assert_int_equal(dataplane_install(h->dataplane, &c, "auto", false, 0), OK);
    fault_arm(ALLOCATION, 0, true);
    dataplane_activate(h->dataplane, c.id);
    fault.armed = false;
    assert_non_null(sad_find_out(h->shared.sad, 0, 0));
    dataplane_remove(h->dataplane, c.id, false, 0);
    rig_teardown(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(allocations_fail_with_certificates),
        cmocka_unit_test(allocations_fail_while_reauthenticating),
        cmocka_unit_test(allocations_fail_in_collisions),
        cmocka_unit_test(allocations_fail_while_deleting),
        cmocka_unit_test(allocations_fail_at_limits),
        cmocka_unit_test(allocations_fail_while_reloading),
        cmocka_unit_test(shutdown_fails),
        cmocka_unit_test(engine_cannot_be_made),
        cmocka_unit_test(jobs_are_refused),
        cmocka_unit_test(jobs_fail),
        cmocka_unit_test(a_shortage_is_not_blamed_on_the_peer),
        cmocka_unit_test(a_refused_rekey_beats_the_hard_limit),
        cmocka_unit_test(spis_run_out),
        cmocka_unit_test(installations_fail),
        cmocka_unit_test(messages_cannot_be_made),
        cmocka_unit_test(keys_cannot_be_made),
        cmocka_unit_test(each_install_step_fails),
        cmocka_unit_test(activation_needs_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
