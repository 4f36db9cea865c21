/* Post-quantum preshared keys (RFC 8784). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static void close_all(struct sim *s)
{
    s->traffic = 0;
    s->loss = s->duplicate = 0;
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    bool empty = sim_run(s, s->now + 100 * NS_PER_S, sim_empty);
    if (!empty)
        sim_dump(s);
    assert_true(empty);
    sim_free(s);
}

static void give(struct sim_node *n, const char *key, const char *id, bool required)
{
    struct peer *p = &n->peers[0];
    if (secret_set(&p->ppk, span_of(key, strlen(key))) != OK || identity_parse(id, &p->ppk_id) != OK)
        abort();
    p->ppk_required = required;
}

static bool has_ppk(struct sim_node *n)
{
    return n->e->sas && n->e->sas_last->ppk;
}

static struct sim *started(uint64_t seed, const char *a, bool a_must, const char *b, bool b_must)
{
    struct sim *s = sim_new(seed);
    if (a)
        give(A, a, a, a_must);
    if (b)
        give(B, b, b, b_must);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 20 * NS_PER_S);
    return s;
}

/* Table 1 of section 3, and the initiator's side of it; a key is called by its own text. */
static void who_has_and_who_insists_decides(void **state)
{
    (void)state;
    static const struct {
        const char *a;
        bool a_must;
        const char *b;
        bool b_must, up, with;
    } cases[] = {
        {NULL, false, NULL, false, true, false},   {"one", false, NULL, false, true, false},
        {NULL, false, "one", false, true, false},  {"one", false, "one", false, true, true},
        {"one", true, "one", true, true, true},    {"one", true, "one", false, true, true},
        {"one", false, "one", true, true, true},   {"one", false, "two", false, true, false},
        {"one", true, "two", false, false, false}, {"one", false, "two", true, false, false},
        {"one", true, "two", true, false, false},  {"one", true, NULL, false, false, false},
        {NULL, false, "one", true, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *s = started(i + 1, cases[i].a, cases[i].a_must, cases[i].b, cases[i].b_must);
        bool up = sim_up(s), right = up == cases[i].up && (!up || has_ppk(A) == cases[i].with);
        if (!right)
            sim_dump(s);
        assert_true(right);
        assert_int_equal(sim_command(A, 1)->ok, up);
        if (up) {
            assert_int_equal(has_ppk(A), has_ppk(B));
            bool unused = cases[i].a && !cases[i].with;
            assert_int_equal(sim_find(A, IKE_EVENT_NOTICE, "without the post-quantum preshared key") != NULL, unused);
            assert_null(A->e->sas->plain);
            assert_null(B->e->sas->plain);
        } else {
            assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
        }
        close_all(s);
    }
}

static void another_key_of_the_same_name_fails(void **state)
{
    (void)state;
    for (unsigned must = 0; must < 2; must++) {
        struct sim *s = sim_new(20 + must);
        give(A, "this key", "name", must);
        give(B, "that key", "name", must);
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, 20 * NS_PER_S);
        assert_false(sim_command(A, 1)->ok);
        assert_non_null(sim_find(A, IKE_EVENT_FAILED, "AUTHENTICATION_FAILED"));
        close_all(s);
    }
}

/* The key goes in once: what comes by rekeys has it through SK_d (section 3). */
static void rekeys_go_on_from_there(void **state)
{
    (void)state;
    struct sim *s = started(30, "one", true, "one", true);
    s->traffic = 10 * NS_PER_MS;
    for (unsigned by = 0; by < 2; by++) {
        struct sim_node *n = &s->node[by];
        ike_rekey(n->e, &n->peers[0], NULL, 5, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_true(sim_command(n, 5)->ok);
        ike_rekey(n->e, &n->peers[0], &n->policies[0], 6, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_true(sim_command(n, 6)->ok);
    }
    sim_for(s, 5 * NS_PER_S);
    assert_true(sim_up(s) && has_ppk(A) && has_ppk(B));
    assert_int_equal(s->esp_lost, 0);
    close_all(s);
}

/* SK_d, SK_pi, SK_pr and nothing else; without the responder's knowledge of the key the Child SA keys differ too. */
static void only_three_keys_take_it_in(void **state)
{
    (void)state;
    struct sim *s = started(31, NULL, false, NULL, false);
    struct ike_keys *k = secret_alloc(sizeof *k);
    const struct ike_keys *was = A->e->sas->keys;
    *k = *was;
    assert_int_equal(keymat_ppk(k, span_of("one", 3)), OK);
    assert_memory_not_equal(k->d.b, was->d.b, was->d.len);
    assert_memory_not_equal(k->pi.b, was->pi.b, was->pi.len);
    assert_memory_not_equal(k->pr.b, was->pr.b, was->pr.len);
    assert_memory_equal(k->ei.b, was->ei.b, was->ei.len);
    assert_memory_equal(k->er.b, was->er.b, was->er.len);
    secret_free(k);
    close_all(s);
}

/* An answer without USE_PPK may be forged: the initiator waits for another (section 6). */
static enum sim_fate hold_answers(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    return p->from == 1 ? SIM_HOLD : SIM_DELIVER;
}

static void answer_without_support_ends_nothing_at_once(void **state)
{
    (void)state;
    struct sim *s = sim_new(32);
    give(A, "one", "one", true);
    give(B, "one", "one", true);
    sim_start_engines(s, NULL);
    s->hook = hold_answers;
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    while (!sim_held(s, 0))
        sim_for(s, NS_PER_MS);
    struct sim_packet *real = sim_held(s, 0);
    /* the same with another notify in the place of USE_PPK */
    uint8_t *forged = malloc(real->len);
    memcpy(forged, real->data, real->len);
    size_t at = real->len - 1;
    while (at-- > IKE_HEADER_LEN + 2)
        if (get_be16(forged + at) == NOTIFY_USE_PPK) {
            put_be16(forged + at, NOTIFY_SET_WINDOW_SIZE);
            break;
        }
    struct path path = {.local = real->dst, .remote = real->src};
    sim_inject(s, 0, &path, span_of(forged, real->len));
    free(forged);
    assert_int_equal(sim_ike_sas(A, IKE_CONNECTING), 1);
    s->hook = NULL;
    sim_release(s, real);
    sim_for(s, 5 * NS_PER_S);
    assert_true(sim_command(A, 1)->ok && has_ppk(A));
    close_all(s);
}

/* A responder that proves itself without the key: taken by who sent NO_PPK_AUTH, by nobody else (section 3). */
static enum sim_fate drop_auth(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    return !p->keepalive && p->data[18] == EXCHANGE_AUTH ? SIM_DROP : SIM_DELIVER;
}

static void answer_without_the_key_is_for_who_has_it_optional(void **state)
{
    (void)state;
    for (unsigned must = 0; must < 2; must++) {
        struct sim *s = sim_new(40 + must);
        struct ike_message without = {.h.exchange = EXCHANGE_AUTH};
        give(A, "one", "one", must);
        give(B, "one", "one", must);
        sim_start_engines(s, NULL);
        s->hook = drop_auth;
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        while (!has_ppk(A))
            sim_for(s, NS_PER_MS);
        struct ike_sa *sa = A->e->sas;
        assert_int_equal(ppk_answered(sa, &without), !must);
        assert_int_equal(sa->ppk, must);
        assert_int_equal(!memcmp(sa->keys->pr.b, sa->plain->pr.b, sa->plain->pr.len), !must);
        s->hook = NULL;
        sa_kill(sa);
        engine_leave(A->e);
        sim_for(s, 40 * NS_PER_S);
        close_all(s);
    }
}

/* -- with signatures: two of them where the key is optional, for the responder may fall back to the other -- */

static void sign_with(struct sim *s)
{
    static const char *const seeds[2] = {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
                                         "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="};
    char why[400];
    for (unsigned k = 0; k < 2; k++) {
        struct authentication *a = &s->node[k].peers[0].auth, *other = &s->node[1 - k].peers[0].auth;
        a->local = other->remote = AUTH_PUBKEY;
        if (private_key_parse(span_of(seeds[k], strlen(seeds[k])), &a->key, why, sizeof why) != OK ||
            public_key_parse(public_key_spki(private_key_public(a->key)), &other->public_key, why, sizeof why) != OK)
            fail_msg("%s", why);
        public_key_fingerprint(other->public_key, other->fingerprint);
    }
}

static void signatures_cover_it_as_well(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool must, up, with;
    } cases[] = {{"one", "one", true, true, true},
                 {"one", "one", false, true, true},
                 {"one", "two", false, true, false},
                 {"one", "two", true, false, false},
                 {"one", NULL, false, true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *s = sim_new(50 + i);
        struct authentication keys[2];
        sign_with(s);
        keys[0] = A->peers[0].auth;
        keys[1] = B->peers[0].auth;
        give(A, cases[i].a, cases[i].a, cases[i].must);
        if (cases[i].b)
            give(B, cases[i].b, cases[i].b, false);
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, 20 * NS_PER_S);
        bool right = sim_up(s) == cases[i].up && (!cases[i].up || has_ppk(A) == cases[i].with);
        if (!right)
            sim_dump(s);
        assert_true(right);
        close_all(s);
        for (unsigned k = 0; k < 2; k++) {
            private_key_free(keys[k].key);
            public_key_free(keys[k].public_key);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_and_who_insists_decides),
        cmocka_unit_test(another_key_of_the_same_name_fails),
        cmocka_unit_test(rekeys_go_on_from_there),
        cmocka_unit_test(only_three_keys_take_it_in),
        cmocka_unit_test(answer_without_support_ends_nothing_at_once),
        cmocka_unit_test(answer_without_the_key_is_for_who_has_it_optional),
        cmocka_unit_test(signatures_cover_it_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
