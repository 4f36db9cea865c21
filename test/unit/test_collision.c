/* Crossing exchanges, with the messages held and released in every order (RFC 7296 sections 2.8 and 2.25). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/base/cursor.h"
#include "ike/internal.h"
#include "test/unit/reload.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static enum sim_fate hold_all(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)p;
    (void)ctx;
    return SIM_HOLD;
}

static struct sim *connected(uint64_t seed, bool keep)
{
    struct sim *s = sim_new(seed);
    if (keep)
        A->peers[0].start = B->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    if (keep) {
        ike_start(A->e, s->now);
        ike_start(B->e, s->now);
    }
    return s;
}

enum act { CHILD_REKEY, IKE_REKEY, CHILD_DOWN, IKE_DOWN, NEW_CHILD, CHILD_HARD, ACTS };
static const char *const act_name[ACTS] = {"child rekey", "ike rekey", "child down", "ike down", "new child", "hard"};

static void act(struct sim *s, unsigned by, enum act what, uint64_t command)
{
    struct sim_node *n = &s->node[by];
    const struct sim_sa *sa = sim_sending(n, &n->policies[0]);
    switch (what) {
    case CHILD_REKEY:
        ike_rekey(n->e, &n->peers[0], &n->policies[0], command, s->now);
        break;
    case IKE_REKEY:
        ike_rekey(n->e, &n->peers[0], NULL, command, s->now);
        break;
    case CHILD_DOWN:
        ike_down(n->e, &n->peers[0], &n->policies[0], command, s->now);
        break;
    case IKE_DOWN:
        ike_down(n->e, &n->peers[0], NULL, command, s->now);
        break;
    case NEW_CHILD:
        ike_up(n->e, &n->peers[0], &n->policies[1], command, s->now);
        break;
    case CHILD_HARD:
        if (sa)
            ike_child_hard(n->e, sa->id, s->now);
        break;
    case ACTS:
        break;
    }
}

static void lose(struct sim_packet *p)
{
    free(p->data);
    *p = (struct sim_packet){0};
}

static void shuffle(struct sim *s)
{
    for (unsigned step = 0; step < 40; step++) {
        unsigned n = 0;
        while (sim_held(s, n))
            n++;
        struct sim_packet *p = n ? sim_held(s, sim_rand(s, n)) : NULL;
        if (p && sim_rand(s, 8) == 0) {
            lose(p);
        } else if (p) {
            sim_release(s, p);
        }
        sim_for(s, 5 * NS_PER_MS + sim_rand(s, 40) * NS_PER_MS);
    }
    s->hook = NULL;
    while (sim_held(s, 0))
        sim_release(s, sim_held(s, 0));
}

/* A link with traffic, its messages held from here on; each end does something, at most 8 ms apart. */
static struct sim *crossing(enum act a, enum act b, uint64_t seed, ns_t apart)
{
    struct sim *s = sim_new(seed);
    if (a == NEW_CHILD || b == NEW_CHILD)
        sim_two_policies(s);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], &A->policies[0], 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_both));
    sim_for(s, NS_PER_S);
    s->traffic = 50 * NS_PER_MS;
    s->hook = hold_all;
    act(s, 0, a, 5);
    sim_for(s, apart);
    act(s, 1, b, 6);
    return s;
}

/*
 * In the end both ends agree, whatever was on its way arrived, and nothing is left over. Frees the sim; returns how
 * often traffic went back to a Child SA that had been replaced.
 */
static unsigned settled(struct sim *s, enum act a, enum act b)
{
    sim_for(s, 5 * NS_PER_S);
    s->traffic = NS_PER_S;
    sim_for(s, 200 * NS_PER_S);
    s->traffic = 0;
    sim_for(s, NS_PER_S);
    bool fresh = a == NEW_CHILD || b == NEW_CHILD; /* its responder sends before its initiator has the answer */
    if (!sim_agree(s) || (s->esp_lost && !fresh))
        printf("%s against %s\n", act_name[a], act_name[b]);
    assert_sim(sim_agree(s));
    assert_sim(s->esp_lost == 0 || fresh);
    assert_sim((sim_command(A, 5) || a == CHILD_HARD) && (sim_command(B, 6) || b == CHILD_HARD));
    bool down = a == IKE_DOWN || b == IKE_DOWN;
    assert_sim(sim_ike_sas(A, IKE_ESTABLISHED) == sim_ike_sas(B, IKE_ESTABLISHED));
    assert_sim(down || sim_ike_sas(A, IKE_ESTABLISHED) == 1);
    assert_sim(sim_ike_sas(A, IKE_DELETING) + sim_ike_sas(B, IKE_DELETING) == 0);
    bool child_goes = down || a == CHILD_DOWN || b == CHILD_DOWN || a == CHILD_HARD || b == CHILD_HARD;
    assert_sim(child_goes || (sim_sending(A, &A->policies[0]) && sim_sending(B, &B->policies[0])));
    unsigned most = fresh ? a == b ? 3 : 2 : 1;
    assert_sim(sim_children(A) <= most && sim_children(A) == sim_children(B));
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    assert_sim(sim_run(s, s->now + 100 * NS_PER_S, sim_empty));
    unsigned resumed = s->resumed;
    sim_free(s);
    return resumed;
}

/* Every message is held, and a seeded hand releases, drops or delays them one by one. */
static unsigned cross(enum act a, enum act b, uint64_t seed)
{
    struct sim *s = crossing(a, b, seed, seed % 8 * NS_PER_MS);
    shuffle(s);
    return settled(s, a, b);
}

/*
 * Which of the held messages goes next, as digits of a number that counts through all orders: choice[i] is what was
 * released at step i, of[i] how many there were to choose from.
 */
#define STEPS 40
struct order {
    unsigned choice[STEPS], of[STEPS], steps;
};

static bool next_order(struct order *o)
{
    while (o->steps && ++o->choice[o->steps - 1] >= o->of[o->steps - 1])
        o->choice[--o->steps] = 0;
    return o->steps > 0;
}

static unsigned held_count(struct sim *s)
{
    unsigned n = 0;
    while (sim_held(s, n))
        n++;
    return n;
}

/* Both ends start at the same moment; the messages are delivered in this order, but for one that may get lost. */
static void cross_in_order(enum act a, enum act b, struct order *o)
{
    struct sim *s = crossing(a, b, 7, 0);
    unsigned n, step = 0;
    bool lost = false;
    for (sim_for(s, 5 * NS_PER_MS); (n = held_count(s)) && step < STEPS; step++) {
        if (step >= o->steps)
            o->choice[step] = 0;
        o->of[step] = lost ? n : 2 * n;
        struct sim_packet *p = sim_held(s, o->choice[step] % n);
        if (o->choice[step] >= n) {
            lose(p);
            lost = true;
        } else {
            sim_release(s, p);
        }
        sim_for(s, 15 * NS_PER_MS); /* on its way, and what a key exchange takes */
    }
    o->steps = step;
    s->hook = NULL;
    settled(s, a, b);
}

static void every_order_of_crossing_exchanges_with_one_loss(void **state)
{
    (void)state;
    for (unsigned a = CHILD_REKEY; a <= NEW_CHILD; a++)
        for (unsigned b = CHILD_REKEY; b <= NEW_CHILD; b++) {
            struct order o = {0};
            unsigned orders = 0;
            do {
                cross_in_order(a, b, &o);
                orders++;
            } while (next_order(&o));
            printf("%s against %s: %u orders\n", act_name[a], act_name[b], orders);
        }
}

static void every_pair_of_exchanges_in_many_orders(void **state)
{
    (void)state;
    unsigned resumed = 0;
    for (unsigned a = 0; a < ACTS; a++)
        for (unsigned b = 0; b < ACTS; b++)
            for (uint64_t seed = 0; seed < 30; seed++)
                resumed += cross(a, b, 1000 + a * 10000 + b * 1000 + seed);
    assert_true(resumed > 0);
}

/* -- the sequences that section 2.8.1 spells out -- */

static struct sim_packet *held_from(struct sim *s, unsigned from)
{
    for (unsigned i = 0; sim_held(s, i); i++)
        if (sim_held(s, i)->from == from)
            return sim_held(s, i);
    return NULL;
}

static void pass(struct sim *s, unsigned from)
{
    struct sim_packet *p = held_from(s, from);
    assert_non_null(p);
    sim_release(s, p);
    sim_for(s, 20 * NS_PER_MS);
}

static void lowest_nonce_decides(void **state)
{
    (void)state;
    unsigned won[2] = {0};
    for (uint64_t seed = 50; seed < 70; seed++) {
        struct sim *s = connected(seed, false);
        s->hook = hold_all;
        act(s, 0, CHILD_REKEY, 5);
        act(s, 1, CHILD_REKEY, 6);
        sim_for(s, 10 * NS_PER_MS);
        pass(s, 0); /* both requests arrive before either answer */
        pass(s, 1);
        assert_int_equal(sim_children(A), 2); /* old, and the peer's new one */
        s->hook = NULL;
        pass(s, 0);
        pass(s, 1);
        sim_for(s, 500 * NS_PER_MS);
        assert_sim(sim_up(s));
        /* who sends what it made itself has won: its SPIs were offered, the other's answered */
        won[sim_sending(A, NULL)->id == 3] += 1;
        sim_free(s);
    }
    assert_true(won[0] > 2 && won[1] > 2);
}

/* req1 of A is lost; B rekeys meanwhile and deletes the old one; A's request then names an SA that is gone. */
static void late_request_finds_nothing(void **state)
{
    (void)state;
    struct sim *s = connected(71, false);
    s->hook = hold_all;
    act(s, 0, CHILD_REKEY, 5);
    sim_for(s, 10 * NS_PER_MS);
    struct sim_packet *late = held_from(s, 0);
    assert_non_null(late);
    s->hook = NULL;
    late->at = NS_NEVER;
    act(s, 1, CHILD_REKEY, 6);
    sim_for(s, 500 * NS_PER_MS);
    assert_true(sim_command(B, 6)->ok);
    assert_int_equal(sim_children(A), 1);
    sim_release(s, late);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_up(s));
    assert_int_equal(sim_count(A, IKE_EVENT_FAILED), 0);
    assert_non_null(sim_command(A, 5));
    sim_free(s);
}

static void spoil(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    (void)s;
    (void)ctx;
    if (n->index == 0 && job->kind == JOB_FINISH)
        job->result = ERR_CRYPTO;
}

/* Both rekey the IKE SA, and one comes to no end with its own: the other's is what there is. */
static void what_the_peer_made_counts_when_ours_fails(void **state)
{
    (void)state;
    unsigned anew = 0;
    for (uint64_t seed = 72; seed < 80; seed++) {
        struct sim *s = connected(seed, true);
        s->traffic = 50 * NS_PER_MS;
        s->hook = hold_all;
        act(s, 0, IKE_REKEY, 5);
        act(s, 1, IKE_REKEY, 6);
        sim_for(s, 10 * NS_PER_MS);
        pass(s, 0);
        pass(s, 1);
        s->job_hook = spoil;
        s->hook = NULL;
        pass(s, 0);
        pass(s, 1);
        s->job_hook = NULL;
        sim_for(s, 10 * NS_PER_S);
        assert_sim(sim_both(s) && sim_agree(s) && sim_ike_sas(A, IKE_ESTABLISHED) == 1);
        assert_sim(sim_command(A, 5) && sim_command(B, 6));
        anew += sim_count(A, IKE_EVENT_IKE_UP) + sim_count(B, IKE_EVENT_IKE_UP) > 2;
        sim_free(s);
    }
    assert_in_range(anew, 1, 7); /* what the peer deleted, for its nonce was the lowest, can't be taken */
}

/* -- start modes under crossing deletes -- */

/* What that node sends finds a receiver. */
static bool heard(struct sim *s, unsigned node)
{
    const struct sim_sa *sa = sim_sending(&s->node[node], NULL);
    const struct sim_node *peer = &s->node[1 - node];
    for (unsigned i = 0; sa && i < peer->top; i++)
        if (peer->sas[i].used && peer->sas[i].spi_in == sa->spi_out)
            return true;
    return false;
}

static bool in_touch(struct sim *s)
{
    return heard(s, 0) && heard(s, 1);
}

static bool mute(struct sim *s)
{
    return !sim_both(s);
}

/* Whichever IKE SA gives way, a link that carries traffic goes on carrying it: what goes waits until the peer has the other. */
static void both_starting_at_once_lose_no_packet(void **state)
{
    (void)state;
    for (uint64_t seed = 400; seed < 700; seed++) {
        struct sim *s = sim_new(seed);
        s->jitter = 30 * NS_PER_MS;
        s->loss = seed % 3 ? 0 : 10;
        A->abrupt = B->abrupt = seed % 2;
        A->peers[0].start = B->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, sim_rand(s, 60) * NS_PER_MS);
        ike_start(B->e, s->now);
        assert_sim(sim_run(s, s->now + 100 * NS_PER_S, in_touch));
        s->traffic = NS_PER_MS;
        assert_sim(!sim_run(s, s->now + NS_PER_S, mute));
        s->traffic = 50 * NS_PER_MS;
        assert_sim(!sim_run(s, s->now + 100 * NS_PER_S, mute));
        s->traffic = 0;
        sim_for(s, NS_PER_S);
        assert_sim(sim_up(s));
        assert_sim(s->esp_lost == 0);
        sim_free(s);
    }
}

static void kept_links_come_back(void **state)
{
    (void)state;
    for (uint64_t seed = 80; seed < 100; seed++) {
        struct sim *s = connected(seed, true);
        s->jitter = 10 * NS_PER_MS;
        ike_child_hard(A->e, sim_sending(A, NULL)->id, s->now);
        ike_child_hard(B->e, sim_sending(B, NULL)->id, s->now);
        sim_for(s, 20 * NS_PER_S);
        assert_sim(sim_both(s) && sim_agree(s));
        assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 1);
        sim_free(s);
    }
}

/* Whichever end's attempt has made it: who is told that the link is up can use it at once. */
static void up_is_said_when_both_ends_are(void **state)
{
    (void)state;
    for (uint64_t seed = 700; seed < 800; seed++) {
        struct sim *s = sim_new(seed);
        s->jitter = 30 * NS_PER_MS;
        s->loss = seed % 3 ? 0 : 10;
        B->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(B->e, s->now);
        sim_for(s, sim_rand(s, 60) * NS_PER_MS);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        while (!sim_command(A, 1))
            sim_for(s, NS_PER_MS);
        assert_sim(sim_command(A, 1)->ok && in_touch(s));
        ike_up(B->e, &B->peers[0], NULL, 2, s->now);
        sim_for(s, 5 * NS_PER_S);
        assert_sim(sim_command(B, 2) && sim_command(B, 2)->ok);
        sim_free(s);
    }
}

/* The daemon stops while IKE_AUTH is out: the peer may be up by then, and is told. */
static void stop_during_ike_auth_leaves_nothing_behind(void **state)
{
    (void)state;
    struct sim *s = sim_new(101);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    while (!sim_ike_sas(B, IKE_ESTABLISHED))
        sim_for(s, NS_PER_MS);
    ike_shutdown(A->e, s->now);
    assert_sim(sim_command(A, 1) && !sim_command(A, 1)->ok);
    sim_for(s, 2 * NS_PER_S);
    assert_sim(sim_ike_sas(B, IKE_ESTABLISHED) == 0 && ike_idle(A->e) && ike_idle(B->e));
    sim_free(s);
}

/* The IKE_AUTH requests of node 0's first attempt. */
static enum sim_fate lose_auth_of_first(struct sim *s, struct sim_packet *p, void *ctx)
{
    uint64_t *first = ctx, spi_i = get_be64(p->data);
    (void)s;
    if (p->from == 0 && !*first)
        *first = spi_i;
    return p->from == 0 && spi_i == *first && p->data[18] == EXCHANGE_AUTH ? SIM_DROP : SIM_DELIVER;
}

/* Another lifetime for the policy of node 0: what it has of that is made anew. */
static void change_policy(struct sim *s, struct config *config, struct policy *policy, struct policy **list)
{
    *config = A->config;
    *policy = A->policies[0];
    policy->lifetime /= 2;
    *list = policy;
    config->policies = list;
    assert_int_equal(reload(A->e, config, s->now), OK);
    ike_start(A->e, s->now);
}

/*
 * Our attempt is in IKE_AUTH when the peer calls, and the peer's SA may have to yield to it. A reload that calls the
 * attempt off leaves the peer's SA as the one there is, whether or not the attempt is heard of again.
 */
static void reload_calls_off_what_another_yields_to(void **state)
{
    (void)state;
    unsigned yielded = 0;
    for (unsigned i = 0; i < 32; i++) {
        struct sim *s = sim_new(110 + i / 2);
        struct config config;
        struct policy policy, *list;
        uint64_t first = 0;
        s->hook = lose_auth_of_first;
        s->hook_ctx = &first;
        A->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, NS_PER_S);
        ike_up(B->e, &B->peers[0], NULL, 1, s->now);
        sim_for(s, NS_PER_S);
        for (const struct ike_sa *sa = A->e->sas; sa; sa = sa->next)
            yielded += sa->yields_to != NULL && sa->state == SA_UP;
        change_policy(s, &config, &policy, &list);
        if (i % 2)
            s->hook = NULL;
        sim_for(s, 30 * NS_PER_S);
        assert_sim(sim_agree(s) && sim_sending(A, &policy) && sim_both(s));
        sim_for(s, 300 * NS_PER_S);
        assert_sim(sim_up(s));
        assert_null(A->e->sas->yields_to);
        ike_shutdown(A->e, s->now);
        ike_shutdown(B->e, s->now);
        assert_sim(sim_run(s, s->now + 100 * NS_PER_S, sim_empty));
        sim_free(s);
    }
    assert_in_range(yielded, 1, 31);
}

/* The same, and the peer refuses: it has nothing that could be deleted there, so no Delete is sent again and again. */
static void a_refusal_ends_what_a_reload_called_off(void **state)
{
    (void)state;
    for (unsigned refused = 0; refused < 2; refused++) {
        struct sim *s = sim_new(130);
        struct config config;
        struct policy *list = NULL;
        uint64_t first = 0;
        s->hook = lose_auth_of_first;
        s->hook_ctx = &first;
        A->peers[0].start = START_YES;
        B->peers[0].start = START_NO;
        B->peers[0].psk.b[0] ^= refused;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, NS_PER_S / 2);
        struct ike_sa *called_off = A->e->sas;
        assert_true(called_off->spi_i == first && called_off->state == SA_AUTH_SENT);
        config = A->config;
        config.policies = &list;
        config.policy_count = 0;
        assert_int_equal(reload(A->e, &config, s->now), OK);
        s->hook = NULL;
        sim_for(s, 3 * NS_PER_S);
        assert_sim(!A->e->sas);
        sim_for(s, 20 * NS_PER_S); /* the peer answers retransmissions of what it has refused for a while */
        assert_sim(sim_empty(s));
        sim_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_nonce_decides),
        cmocka_unit_test(late_request_finds_nothing),
        cmocka_unit_test(what_the_peer_made_counts_when_ours_fails),
        cmocka_unit_test(every_pair_of_exchanges_in_many_orders),
        cmocka_unit_test(every_order_of_crossing_exchanges_with_one_loss),
        cmocka_unit_test(both_starting_at_once_lose_no_packet),
        cmocka_unit_test(up_is_said_when_both_ends_are),
        cmocka_unit_test(kept_links_come_back),
        cmocka_unit_test(stop_during_ike_auth_leaves_nothing_behind),
        cmocka_unit_test(reload_calls_off_what_another_yields_to),
        cmocka_unit_test(a_refusal_ends_what_a_reload_called_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
