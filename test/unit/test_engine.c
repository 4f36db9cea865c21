#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/reload.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define UP(n, c) ike_up((n)->e, &(n)->peers[0], NULL, (c), s->now)

static void close_all(struct sim *s)
{
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    assert_sim(sim_run(s, s->now + 100 * NS_PER_S, sim_empty));
    sim_free(s);
}

static struct sim *connected(struct sim *s)
{
    sim_start_engines(s, NULL);
    UP(A, 1);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    assert_sim(sim_command(A, 1) && sim_command(A, 1)->ok);
    return s;
}

static void connects_and_closes(void **state)
{
    (void)state;
    struct sim *s = connected(sim_new(1));
    assert_non_null(sim_find(A, IKE_EVENT_IKE_UP, "b.example"));
    assert_non_null(sim_find(B, IKE_EVENT_IKE_UP, "a.example"));
    assert_int_equal(sim_sending(A, NULL)->path.remote.port, 4500);
    assert_true(sim_sending(A, NULL)->path.marker);
    assert_int_equal(sim_sending(B, NULL)->path.remote.port, 4500);
    UP(A, 2); /* is up already */
    assert_true(sim_command(A, 2)->ok);
    ike_down(B->e, &B->peers[0], NULL, 3, s->now);
    assert_sim(sim_run(s, s->now + 20 * NS_PER_S, sim_empty));
    assert_true(sim_command(B, 3)->ok);
    assert_non_null(sim_find(A, IKE_EVENT_IKE_DOWN, "closed"));
    close_all(s);
}

static void every_suite_and_group_works(void **state)
{
    (void)state;
    static const char *const ike[] = {
        "aes128gcm16-prfsha256-x25519",   "aes256gcm16-prfsha384-ecp256",    "chacha20poly1305-prfsha512-ecp384",
        "aes128-sha256-x25519",           "aes256-sha512-modp2048",          "aes256-sha384-ecp521",
        "aes256gcm16-prfsha256-modp3072", "aes128-sha256-prfsha512-modp4096"};
    static const char *const esp[] = {"aes128gcm16-esn", "aes256gcm16-noesn", "chacha20poly1305", "aes128-sha256",
                                      "aes256-sha512",   "aes256-sha384",     "aes128gcm16",      "aes256-sha256"};
    for (unsigned i = 0; i < sizeof ike / sizeof *ike; i++) {
        struct sim *s = sim_new(i);
        for (unsigned k = 0; k < 2; k++) {
            sim_proposals(&s->node[k].peers[0].ike, PROTOCOL_IKE, ike[i]);
            sim_proposals(&s->node[k].policies[0].esp, PROTOCOL_ESP, esp[i]);
        }
        connected(s);
        ike_rekey(A->e, &A->peers[0], NULL, 2, s->now);
        sim_for(s, 3 * NS_PER_S);
        assert_sim(sim_command(A, 2)->ok && sim_up(s));
        close_all(s);
    }
}

static void defaults_connect(void **state)
{
    (void)state;
    struct sim *s = sim_new(3);
    for (unsigned k = 0; k < 2; k++) {
        proposals_default(PROTOCOL_IKE, &s->node[k].peers[0].ike);
        proposals_default(PROTOCOL_ESP, &s->node[k].policies[0].esp);
    }
    connected(s);
    ike_rekey(B->e, &B->peers[0], &B->policies[0], 2, s->now);
    sim_for(s, 3 * NS_PER_S);
    assert_sim(sim_command(B, 2)->ok && sim_up(s));
    close_all(s);
}

static void heavy_loss_converges(void **state)
{
    (void)state;
    for (uint64_t seed = 200; seed < 260; seed++) {
        struct sim *s = sim_new(seed);
        s->loss = 30;
        s->duplicate = s->reorder = 20;
        s->jitter = 50 * NS_PER_MS;
        A->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_run(s, s->now + 600 * NS_PER_S, sim_both);
        assert_sim(sim_both(s));
        s->loss = 0;
        sim_for(s, 300 * NS_PER_S);
        assert_sim(sim_up(s));
        close_all(s);
    }
}

static void wrong_psk_is_named_at_both_ends(void **state)
{
    (void)state;
    struct sim *s = sim_new(5);
    B->peers[0].psk.b[0] ^= 1;
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_command(A, 1) && !sim_command(A, 1)->ok);
    assert_sim(sim_find(A, IKE_EVENT_FAILED, "AUTHENTICATION_FAILED") != NULL);
    assert_sim(sim_find(B, IKE_EVENT_FAILED, "pre-shared keys differ (peer alice, their id a.example)") != NULL);
    assert_non_null(strstr(ike_last_error(A->e, &A->peers[0], NULL), "AUTHENTICATION_FAILED"));
    assert_int_equal(sim_children(A) + sim_children(B), 0);
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_empty(s));
    sim_free(s);
}

static void wrong_identity_is_named_at_both_ends(void **state)
{
    (void)state;
    struct sim *s = sim_new(6);
    assert_int_equal(identity_parse("carol.example", &B->peers[0].remote_id), OK);
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(!sim_command(A, 1)->ok && sim_find(A, IKE_EVENT_FAILED, "ours: a.example"));
    assert_sim(sim_find(B, IKE_EVENT_FAILED, "a.example") && sim_find(B, IKE_EVENT_FAILED, "carol.example"));
    sim_free(s);

    s = sim_new(6);
    assert_int_equal(identity_parse("carol.example", &A->peers[0].remote_id), OK);
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(!sim_command(A, 1)->ok &&
               sim_find(A, IKE_EVENT_FAILED, "calls itself b.example, its configured id is carol.example"));
    sim_for(s, 60 * NS_PER_S); /* the responder was told */
    assert_sim(sim_empty(s));
    sim_free(s);
}

static void no_common_ike_proposal_is_named_at_both_ends(void **state)
{
    (void)state;
    struct sim *s = sim_new(7);
    sim_proposals(&B->peers[0].ike, PROTOCOL_IKE, "aes256-sha512-x25519");
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 5 * NS_PER_S); /* soon, not after a minute of retransmissions */
    assert_sim(!sim_command(A, 1)->ok && sim_find(A, IKE_EVENT_FAILED, "NO_PROPOSAL_CHOSEN") &&
               sim_find(A, IKE_EVENT_FAILED, "aes128gcm16"));
    assert_sim(sim_find(B, IKE_EVENT_FAILED, "aes256-sha512") != NULL);
    assert_sim(sim_find(B, IKE_EVENT_FAILED, "aes128gcm16") != NULL);
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_empty(s));
    sim_free(s);
}

static void child_failure_leaves_the_ike_sa(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct sim *s = sim_new(8 + k);
        if (k == 1) {
            sim_proposals(&B->policies[0].esp, PROTOCOL_ESP, "aes256-sha512");
        } else {
            sim_selectors(&B->policies[0].local, k ? "10.1.0.0/24" : "10.9.0.0/24");
            sim_selectors(&B->policies[0].remote, k ? "10.2.0.0/24" : "10.1.0.0/24");
        }
        sim_start_engines(s, NULL);
        UP(A, 1);
        sim_for(s, 5 * NS_PER_S);
        assert_sim(sim_command(A, 1) && !sim_command(A, 1)->ok);
        assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 1);
        assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
        if (k == 1) {
            assert_sim(sim_find(A, IKE_EVENT_FAILED, "NO_PROPOSAL_CHOSEN") != NULL);
            assert_sim(sim_find(B, IKE_EVENT_FAILED, "aes256-sha512") != NULL);
        } else {
            assert_sim(sim_find(A, IKE_EVENT_FAILED, "10.1.0.0/24 === 10.2.0.0/24") != NULL);
            assert_sim(sim_find(B, IKE_EVENT_FAILED,
                                "selectors have no overlap: peer offers 10.2.0.0/24 === 10.1.0.0/24 (ours === its), "
                                "policy \"net\" has 10.") != NULL);
            assert_int_equal(sim_find(B, IKE_EVENT_FAILED, "are exchanged at one of the ends") != NULL, k == 2);
        }
        close_all(s);
    }
}

static void both_starting_at_once_end_with_one_sa(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 400; seed++) {
        struct sim *s = sim_new(seed);
        s->jitter = 30 * NS_PER_MS;
        s->loss = seed % 2 ? 10 : 0;
        A->peers[0].start = B->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, sim_rand(s, 60) * NS_PER_MS);
        ike_start(B->e, s->now);
        sim_for(s, 100 * NS_PER_S);
        s->loss = 0;
        s->traffic = NS_PER_S;
        sim_for(s, 200 * NS_PER_S);
        s->traffic = 0;
        sim_for(s, NS_PER_S);
        assert_sim(sim_up(s));
        assert_int_equal(s->esp_lost, 0);
        close_all(s);
    }
}

static void wrong_group_is_retried(void **state)
{
    (void)state;
    struct sim *s = sim_new(10);
    sim_proposals(&A->peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-ecp256-ecp384-x25519");
    connected(s);
    close_all(s);
}

static enum sim_fate hold_auth_of_first(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    unsigned *held = ctx;
    return p->data[18] == EXCHANGE_AUTH && (*held)++ == 0 ? SIM_DROP : SIM_DELIVER;
}

/* Half-open SAs at B from addresses of their own, which never go on. */
static void fill_half_open(struct sim *s, unsigned n)
{
    unsigned held = 0;
    B->peers[0].endpoint_any = true;
    sim_start_engines(s, &(struct ike_limits){.half_open = 20, .cookie_threshold = 3});
    s->hook = hold_auth_of_first;
    s->hook_ctx = &held;
    UP(A, 9);
    struct sim_packet *first = NULL;
    for (unsigned i = 0; i < SIM_PACKETS && !first; i++)
        if (s->packets[i].used)
            first = &s->packets[i];
    if (!first) { /* its key pair is still being made */
        sim_for(s, 8 * NS_PER_MS);
        for (unsigned i = 0; i < SIM_PACKETS && !first; i++)
            if (s->packets[i].used)
                first = &s->packets[i];
    }
    assert_non_null(first);
    for (unsigned i = 0; i < n; i++) {
        struct path path = {.local = first->dst, .remote = first->src};
        path.remote.ip.b[3] = (uint8_t)(100 + i);
        sim_inject(s, 1, &path, span_of(first->data, first->len));
    }
    s->hook = NULL;
}

static void cookies_are_demanded_under_load(void **state)
{
    (void)state;
    for (unsigned group = 0; group < 2; group++) {
        struct sim *s = sim_new(11);
        if (group) /* COOKIE, then INVALID_KE_PAYLOAD */
            sim_proposals(&A->peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-ecp256-x25519");
        if (group)
            sim_proposals(&B->peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-x25519-ecp256");
        fill_half_open(s, 5);
        unsigned made = sim_ike_sas(B, IKE_CONNECTING);
        unsigned jobs = B->offers_run;
        assert_int_equal(made, 3); /* the others got a cookie: no state, no key exchange */
        assert_int_equal(jobs, 3);
        if (group)
            sim_proposals(&B->peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-x25519");
        assert_sim(sim_run(s, s->now + 10 * NS_PER_S, sim_both));
        sim_for(s, 40 * NS_PER_S);
        assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 0); /* half-open ones time out */
        close_all(s);
    }
}

static enum sim_fate never_end_cookies(struct sim *s, struct sim_packet *p, void *ctx)
{
    unsigned *sent = ctx;
    if (p->from != 0)
        return SIM_DELIVER;
    ++*sent;
    uint8_t reply[28 + 8 + 8] = {0};
    struct ike_builder b;
    size_t len;
    struct ike_header h = {.spi_i = get_be64(p->data), .version = 0x20, .exchange = 34, .flags = IKE_FLAG_RESPONSE};
    ike_begin(&b, reply, sizeof reply, &h);
    ike_put_notify(&b, 0, span_of(NULL, 0), NOTIFY_COOKIE, span_of(sent, 4));
    assert_int_equal(ike_finish(&b, &len), OK);
    struct sim_packet *out = NULL;
    for (unsigned i = 0; i < SIM_PACKETS && !out; i++)
        if (!s->packets[i].used)
            out = &s->packets[i];
    *out = (struct sim_packet){.used = true, .at = s->now + s->delay, .from = 1, .src = p->dst, .dst = p->src};
    s->top = (unsigned)(out - s->packets) >= s->top ? (unsigned)(out - s->packets) + 1 : s->top;
    out->data = malloc(len);
    out->len = len;
    memcpy(out->data, reply, len);
    return SIM_DROP;
}

static void endless_cookies_end(void **state)
{
    (void)state;
    struct sim *s = sim_new(12);
    unsigned sent = 0;
    s->hook = never_end_cookies;
    s->hook_ctx = &sent;
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 100 * NS_PER_S);
    assert_sim(sim_command(A, 1) && !sim_command(A, 1)->ok);
    assert_true(sent < 20);
    assert_sim(sim_empty(s));
    sim_free(s);
}

struct seen {
    unsigned n;
    ns_t at[64];
    size_t len;
    uint8_t data[2000];
    bool same;
};

static enum sim_fate record(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct seen *seen = ctx;
    if (p->from != 0)
        return SIM_DELIVER;
    if (seen->n == 0) {
        memcpy(seen->data, p->data, p->len);
        seen->len = p->len;
        seen->same = true;
    }
    seen->same &= seen->len == p->len && !memcmp(seen->data, p->data, p->len);
    seen->at[seen->n++] = s->now;
    return SIM_DROP;
}

static void retransmissions_are_identical_and_back_off(void **state)
{
    (void)state;
    struct sim *s = sim_new(13);
    struct seen seen = {0};
    s->hook = record;
    s->hook_ctx = &seen;
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_find(A, IKE_EVENT_NOTICE, "has not answered yet") && !sim_command(A, 1));
    assert_non_null(strstr(ike_last_error(A->e, &A->peers[0], NULL), "has not answered yet"));
    sim_for(s, 90 * NS_PER_S);
    assert_true(seen.same);
    assert_int_equal(seen.n, 6);
    for (unsigned i = 2; i < seen.n; i++)
        assert_true(seen.at[i] - seen.at[i - 1] > (seen.at[i - 1] - seen.at[i - 2]) * 3 / 2);
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "does not answer IKE_SA_INIT"));
    assert_false(sim_command(A, 1)->ok);
    sim_for(s, 100 * NS_PER_S);
    assert_int_equal(seen.n, 6); /* start = no: nothing more */
    sim_free(s);
}

static void retries_for_ever_when_told_to_start(void **state)
{
    (void)state;
    struct sim *s = sim_new(14);
    s->loss = 100;
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    sim_for(s, 3600 * NS_PER_S);
    assert_true(sim_count(A, IKE_EVENT_FAILED) > 20);
    s->loss = 0;
    assert_sim(sim_run(s, s->now + 150 * NS_PER_S, sim_up));
    assert_string_equal(ike_last_error(A->e, &A->peers[0], NULL), "");
    close_all(s);
}

static void dead_peer_is_noticed_and_called_again(void **state)
{
    (void)state;
    struct sim *s = sim_new(15);
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    uint64_t sent = s->ike_sent;
    sim_for(s, 1000 * NS_PER_S);
    assert_int_equal(s->ike_sent, sent); /* no traffic, no liveness check */
    s->traffic = 100 * NS_PER_MS;
    sim_for(s, 1000 * NS_PER_S);
    assert_int_equal(s->ike_sent, sent); /* traffic both ways is proof enough */
    s->cut = true;
    sim_for(s, 20 * NS_PER_S);
    assert_int_equal(A->stats.n[STAT_IKE_RETRANSMITS], 0);
    sim_for(s, 120 * NS_PER_S);
    assert_non_null(sim_find(A, IKE_EVENT_IKE_DOWN, "does not answer"));
    assert_null(sim_sending(A, NULL));
    s->cut = false;
    s->traffic = 0;
    sim_run(s, s->now + 200 * NS_PER_S, sim_up);
    assert_sim(sim_up(s)); /* INITIAL_CONTACT swept B's old SA away */
    close_all(s);
}

static void restarted_peer_replaces_its_old_sa(void **state)
{
    (void)state;
    struct sim *s = connected(sim_new(16));
    ike_free(A->e); /* no Delete leaves */
    memset(A->sas, 0, sizeof A->sas);
    A->top = A->spis = 0;
    A->random.key[0] ^= 1;
    assert_int_equal(ike_new(&A->e, &A->env, &A->config, NULL), OK);
    UP(A, 2);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_up(s));
    assert_non_null(sim_find(B, IKE_EVENT_IKE_DOWN, "started anew"));
    close_all(s);
}

static void add_policies(struct sim_node *n)
{
    for (unsigned i = 1; i < 3; i++) {
        char text[32];
        n->policies[i] = n->policies[0];
        snprintf(n->policies[i].name, sizeof n->policies[i].name, "net%u", i);
        snprintf(text, sizeof text, "10.%u.%u.0/24", n->index + 1, i);
        sim_selectors(&n->policies[i].local, text);
        snprintf(text, sizeof text, "10.%u.%u.0/24", 2 - n->index, i);
        sim_selectors(&n->policies[i].remote, text);
    }
    n->config.policy_count = 3;
}

static void several_policies_share_one_ike_sa(void **state)
{
    (void)state;
    struct sim *s = sim_new(17);
    add_policies(A);
    add_policies(B);
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_command(A, 1) && sim_command(A, 1)->ok && sim_agree(s));
    assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 1);
    assert_int_equal(sim_children(A), 3);
    assert_int_equal(sim_children(B), 3);
    ike_down(A->e, &A->peers[0], &A->policies[1], 2, s->now);
    sim_for(s, 10 * NS_PER_S);
    assert_true(sim_command(A, 2)->ok);
    assert_int_equal(sim_children(B), 2);
    assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 1);
    ike_up(A->e, &A->peers[0], &A->policies[1], 3, s->now);
    sim_for(s, 10 * NS_PER_S);
    assert_true(sim_command(A, 3)->ok);
    ike_rekey(B->e, &B->peers[0], NULL, 4, s->now);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_command(B, 4)->ok && sim_agree(s) && sim_children(A) == 3);
    close_all(s);
}

static void down_is_not_undone_by_itself(void **state)
{
    (void)state;
    struct sim *s = sim_new(18);
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    ike_down(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 300 * NS_PER_S);
    assert_sim(sim_command(A, 1)->ok && sim_empty(s));
    ike_acquire(A->e, &A->policies[0], NULL, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_empty(s));
    UP(A, 2);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_up(s));
    ike_down(B->e, &B->peers[0], NULL, 3, s->now); /* the other end closes it: A calls again */
    sim_for(s, 20 * NS_PER_S);
    assert_sim(sim_up(s) && sim_command(B, 3)->ok);
    ike_down(B->e, &B->peers[0], &B->policies[0], 4, s->now); /* and so with the Child SA alone */
    sim_for(s, 20 * NS_PER_S);
    assert_sim(sim_up(s) && sim_command(B, 4)->ok);
    close_all(s);
}

static void traffic_brings_up_what_starts_on_demand(void **state)
{
    (void)state;
    struct sim *s = sim_new(19);
    A->peers[0].start = START_ON_DEMAND;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_empty(s));
    ike_acquire(B->e, &B->policies[0], NULL, s->now); /* start = no */
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_empty(s));
    for (unsigned i = 0; i < 10; i++)
        ike_acquire(A->e, &A->policies[0], NULL, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_up(s));
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), 1);
    close_all(s);
}

static void nat_is_crossed_and_a_new_mapping_followed(void **state)
{
    (void)state;
    struct sim *s = sim_new(20);
    A->nat_ip = (struct ip){.family = 4, .b = {192, 0, 2, 1}};
    A->nat_shift = 1000;
    B->peers[0].endpoint_any = true;
    connected(s);
    assert_int_equal(sim_sending(B, NULL)->path.remote.port, 5500);
    s->traffic = NS_PER_S;
    sim_for(s, 60 * NS_PER_S);
    assert_int_equal(s->esp_lost, 0);
    s->traffic = 0;
    A->nat_shift = 2000; /* the mapping changed; the next authentic message tells B */
    ike_rekey(A->e, &A->peers[0], &A->policies[0], 5, s->now);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_command(A, 5)->ok);
    assert_int_equal(sim_sending(B, NULL)->path.remote.port, 6500);
    A->nat_shift = 3000; /* or authentic ESP does */
    struct endpoint moved = {A->nat_ip, 7500};
    ike_child_moved(B->e, sim_sending(B, NULL)->id, &moved, s->now);
    assert_int_equal(sim_sending(B, NULL)->path.remote.port, 7500);
    struct ike_sa *sa = B->e->sas; /* a peer whose IKE stayed on port 500, while ESP uses 4500 */
    sa->path = (struct path){.local = {B->ip, 500}, .remote = {A->nat_ip, 500}};
    moved.port = 8500;
    ike_child_moved(B->e, sim_sending(B, NULL)->id, &moved, s->now);
    assert_int_equal(sim_sending(B, NULL)->path.remote.port, 8500);
    A->nat_shift = 4000;
    moved.port = 9999; /* who is behind a NAT himself follows nobody */
    ike_child_moved(A->e, sim_sending(A, NULL)->id, &moved, s->now);
    assert_int_equal(sim_sending(A, NULL)->path.remote.port, 4500);
    close_all(s);
}

static enum sim_fate count_keepalives(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    unsigned *n = ctx;
    n[p->from] += p->keepalive;
    return SIM_DELIVER;
}

static void keepalives_come_from_behind_a_nat_only(void **state)
{
    (void)state;
    struct sim *s = sim_new(21);
    unsigned n[2] = {0};
    A->nat_ip = (struct ip){.family = 4, .b = {192, 0, 2, 1}};
    A->nat_shift = 1000;
    B->peers[0].endpoint_any = true;
    connected(s);
    s->hook = count_keepalives;
    s->hook_ctx = n;
    sim_for(s, 205 * NS_PER_S);
    assert_in_range(n[0], 9, 11);
    assert_int_equal(n[1], 0);
    close_all(s);
}

static enum sim_fate hide_nat_detection(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    for (size_t i = 28; i + 8 < p->len; i++)
        if (p->data[18] == EXCHANGE_SA_INIT && p->data[i] == 0x40 &&
            (p->data[i + 1] == 0x04 || p->data[i + 1] == 0x05) && p->data[i - 2] == 0 && p->data[i - 1] == 0)
            p->data[i] = 0x60;
    return SIM_DELIVER;
}

static void peer_without_nat_traversal_is_refused_in_words(void **state)
{
    (void)state;
    struct sim *s = sim_new(22);
    s->hook = hide_nat_detection;
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(!sim_command(A, 1)->ok);
    assert_int_equal(sim_children(A) + sim_children(B), 0);
    sim_free(s);
}

static void keylog_is_what_wireshark_reads(void **state)
{
    (void)state;
    struct sim *s = connected(sim_new(23));
    const char *line = A->keylog[0];
    assert_string_equal(line, B->keylog[0]);
    assert_int_equal(line[16], ',');
    assert_int_equal(line[33], ',');
    assert_int_equal(line[34 + 40], ','); /* AES-128 key with its salt */
    assert_non_null(strstr(line, ",\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\""));
    close_all(s);
}

static void failed_install_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct sim *s = sim_new(24);
        s->node[k].install_failures = 1;
        sim_start_engines(s, NULL);
        UP(A, 1);
        sim_for(s, 10 * NS_PER_S);
        assert_non_null(sim_find(&s->node[k], IKE_EVENT_FAILED, "could not be installed"));
        assert_sim(sim_command(A, 1) && !sim_command(A, 1)->ok);
        UP(A, 2);
        sim_for(s, 10 * NS_PER_S);
        assert_sim(sim_command(A, 2)->ok);
        s->node[k].install_failures = 1;
        ike_rekey(A->e, &A->peers[0], &A->policies[0], 3, s->now);
        sim_for(s, 30 * NS_PER_S); /* the peer's half is gone again, the old one still carries the traffic */
        assert_sim(sim_command(A, 3) && sim_both(s) && sim_agree(s));
        close_all(s);
    }
}

static void endpoint_port_means_nat_traversal_from_the_start(void **state)
{
    (void)state;
    struct sim *s = sim_new(25);
    A->peers[0].endpoints[0].at.port = 4500;
    connected(s);
    close_all(s);
}

/* Only on port 500 are messages without a marker understood, ours there and the peer's here. */
static enum sim_fate check_marker(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    assert_int_equal(p->marker, p->src.port != 500);
    assert_int_equal(p->marker, p->dst.port != 500);
    return SIM_DELIVER;
}

static void marker_and_port_belong_together(void **state)
{
    (void)state;
    static const uint16_t ports[] = {500, 0, 5500};
    for (unsigned i = 0; i < 3; i++) {
        struct sim *s = sim_new(26);
        A->config.host.port = ports[i];
        s->hook = check_marker;
        connected(s);
        close_all(s);
    }
}

static void commands_fail_in_words(void **state)
{
    (void)state;
    struct sim *s = sim_new(26);
    B->peers[0].endpoint_any = true;
    B->peers[0].endpoint_count = 0;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[1], NULL, 1, s->now);
    ike_up(A->e, &A->peers[0], &A->policies[1], 2, s->now);
    ike_rekey(A->e, &A->peers[0], NULL, 3, s->now);
    ike_rekey(A->e, &A->peers[0], &A->policies[0], 4, s->now);
    for (uint64_t c = 1; c <= 4; c++)
        assert_sim(sim_command(A, c) && !sim_command(A, c)->ok);
    ike_down(A->e, &A->peers[0], NULL, 5, s->now);
    assert_true(sim_command(A, 5)->ok);
    UP(B, 6);
    assert_sim(!sim_command(B, 6)->ok && sim_find(B, IKE_EVENT_FAILED, "no address"));
    sim_free(s);
}

/* -- reload -- */

static void copy_config(struct sim_node *n, struct config *config, struct peer *peer, struct policy *policy,
                        struct peer **peer_list, struct policy **policy_list)
{
    *peer = n->peers[0];
    *policy = n->policies[0];
    policy->peer = peer;
    *config = n->config;
    *peer_list = peer;
    *policy_list = policy;
    config->peers = peer_list;
    config->policies = policy_list;
}

static void reload_keeps_what_did_not_change(void **state)
{
    (void)state;
    for (unsigned change = 0; change < 4; change++) {
        struct sim *s = sim_new(27);
        struct config config;
        struct peer *peer = calloc(1, sizeof *peer), *peer_list;
        struct policy *policy = calloc(1, sizeof *policy), *policy_list;
        A->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        uint32_t before = sim_sending(A, NULL)->spi_out;
        copy_config(A, &config, peer, policy, &peer_list, &policy_list);
        if (change == 1)
            policy->bytes = UINT64_C(1) << 40;
        if (change == 2)
            peer->dpd = 7 * NS_PER_S;
        if (change == 3)
            config.peer_count = config.policy_count = 0;
        reload(A->e, &config, s->now);
        assert_int_equal(A->job_count, 0); /* nothing starts before the hints */
        ike_start(A->e, s->now);
        memset(A->peers, 0xaa, sizeof A->peers); /* nobody looks there any more */
        memset(A->policies, 0xaa, sizeof A->policies);
        sim_for(s, 30 * NS_PER_S);
        if (change == 3) {
            assert_sim(sim_empty(s));
        } else {
            assert_sim(sim_up(s));
            assert_int_equal(sim_sending(A, NULL)->spi_out == before, change == 0);
            assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), change == 2 ? 2 : 1);
            ike_rekey(A->e, peer, policy, 4, s->now);
            sim_for(s, 10 * NS_PER_S);
            assert_sim(sim_command(A, 4)->ok);
        }
        close_all(s);
        free(peer);
        free(policy);
    }
}

/* At every moment of a connection, and of a rekey. */
static void reload_at_any_moment(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 70; at++) {
        struct sim *s = sim_new(28);
        struct config config;
        struct peer *peer = calloc(1, sizeof *peer), *peer_list;
        struct policy *policy = calloc(1, sizeof *policy), *policy_list;
        sim_start_engines(s, NULL);
        UP(A, 1);
        sim_for(s, at * NS_PER_MS);
        if (at % 2) {
            ike_rekey(A->e, &A->peers[0], &A->policies[0], 0, s->now);
            sim_for(s, at / 2 * NS_PER_MS);
        }
        copy_config(A, &config, peer, policy, &peer_list, &policy_list);
        if (at % 3 == 1)
            policy->replay_window = 4096;
        if (at % 3 == 2)
            peer->dpd = 7 * NS_PER_S;
        reload(A->e, &config, s->now);
        ike_start(A->e, s->now);
        memset(A->peers, 0xaa, sizeof A->peers);
        memset(A->policies, 0xaa, sizeof A->policies);
        sim_for(s, 150 * NS_PER_S);
        assert_non_null(sim_command(A, 1));
        ike_up(A->e, peer, NULL, 2, s->now);
        sim_for(s, 150 * NS_PER_S);
        assert_sim(sim_command(A, 2)->ok && sim_agree(s));
        close_all(s);
        free(peer);
        free(policy);
    }
}

/* At every moment of a connection its peer goes, or its policy: the other end has nothing left of it soon. */
static void reload_in_the_midst_tells_the_peer(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 140; at++) {
        struct sim *s = sim_new(29);
        struct config none = {0};
        sim_start_engines(s, NULL);
        UP(A, 1);
        sim_for(s, at / 2 * NS_PER_MS);
        none.host = A->config.host;
        none.peers = A->config.peers;
        none.peer_count = at % 2;
        assert_int_equal(reload(A->e, &none, s->now), OK);
        assert_non_null(sim_command(A, 1));
        sim_for(s, 35 * NS_PER_S);                       /* half-open ones go by themselves */
        unsigned left = sim_ike_sas(A, IKE_ESTABLISHED); /* whose peer is still there, if it was up before */
        assert_sim(at % 2 ? left == sim_ike_sas(B, IKE_ESTABLISHED) : sim_empty(s));
        assert_sim(sim_children(A) == 0 && sim_children(B) == 0);
        close_all(s);
    }
}

/* Our request for a Child SA is out, its policy or its peer goes, and then the peer refuses. */
static void reload_while_the_peer_refuses(void **state)
{
    (void)state;
    for (unsigned change = 0; change < 2; change++) {
        struct config config;
        struct peer peer, *peer_list;
        struct policy policy, *policy_list;
        struct sim *s = sim_new(30);
        add_policies(A); /* B has the first one only */
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], &A->policies[0], 1, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        ike_up(A->e, &A->peers[0], &A->policies[1], 2, s->now);
        sim_for(s, 10 * NS_PER_MS);
        copy_config(A, &config, &peer, &policy, &peer_list, &policy_list);
        config.policy_count = 1;
        peer.dpd += change;
        reload(A->e, &config, s->now);
        ike_start(A->e, s->now);
        sim_for(s, 20 * NS_PER_S);
        assert_sim(sim_command(A, 2) && !sim_command(A, 2)->ok);
        assert_int_equal(sim_count(B, IKE_EVENT_FAILED), 1);
        assert_sim(change ? sim_empty(s) : sim_up(s));
        close_all(s);
    }
}

/* No cipher, no memory: the first request that can't be made ends the IKE SA, in the midst of whatever asked for it. */
static void request_that_cannot_be_made_ends_the_sa(void **state)
{
    (void)state;
    for (unsigned what = 0; what < 4; what++) {
        struct config config;
        struct peer peer, *peer_list;
        struct policy policy, *policy_list;
        struct sim *s = sim_new(31);
        add_policies(A);
        add_policies(B);
        sim_start_engines(s, NULL);
        UP(A, 1);
        sim_for(s, 5 * NS_PER_S);
        struct ike_sa *sa = A->e->sas;
        struct keyed *seal = sa->seal;
        sa->seal = sa->open; /* fails */
        sa->open = seal;
        if (what == 0) {
            copy_config(A, &config, &peer, &policy, &peer_list, &policy_list);
            policy.replay_window = 4096;
            config.policy_count = 1;
            reload(A->e, &config, s->now);
            sim_for(s, NS_PER_MS); /* requests of a reload go out with the next ticks */
        } else if (what == 1) {
            ike_down(A->e, &A->peers[0], &A->policies[1], 2, s->now);
        } else if (what == 2) {
            ike_child_hard(A->e, sa->children->id, s->now);
        } else {
            child_doom(sa->children);
            sim_for(s, 100 * NS_PER_S);
        }
        assert_non_null(sim_find(A, IKE_EVENT_IKE_DOWN, "could not be made"));
        assert_int_equal(sim_children(A), 0);
        close_all(s);
    }
}

static enum sim_fate lose(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)p;
    (void)ctx;
    return SIM_DROP;
}

static void note_local(void *ctx, const struct ike_sa_info *info)
{
    *(struct ip *)ctx = info->path.local.ip;
}

static void an_attempt_under_way_follows_the_hosts_address(void **state)
{
    (void)state;
    struct sim *s = sim_new(77);
    struct ip local = {0};
    struct endpoint elsewhere = {.ip = {.family = 4, .b = {10, 0, 0, 9}}, .port = 500};
    A->more[0] = elsewhere.ip;
    B->peers[0].endpoint_any = true;
    sim_start_engines(s, NULL);
    s->hook = lose;
    UP(A, 1);
    sim_for(s, 500 * NS_PER_MS);
    ike_local_hint(A->e, &A->peers[0], &elsewhere);
    ike_each_sa(A->e, note_local, &local);
    assert_true(ip_equal(&local, &elsewhere.ip));
    s->hook = NULL;
    assert_sim(sim_run(s, s->now + 10 * NS_PER_S, sim_up));
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connects_and_closes),
        cmocka_unit_test(an_attempt_under_way_follows_the_hosts_address),
        cmocka_unit_test(every_suite_and_group_works),
        cmocka_unit_test(defaults_connect),
        cmocka_unit_test(heavy_loss_converges),
        cmocka_unit_test(wrong_psk_is_named_at_both_ends),
        cmocka_unit_test(wrong_identity_is_named_at_both_ends),
        cmocka_unit_test(no_common_ike_proposal_is_named_at_both_ends),
        cmocka_unit_test(child_failure_leaves_the_ike_sa),
        cmocka_unit_test(both_starting_at_once_end_with_one_sa),
        cmocka_unit_test(wrong_group_is_retried),
        cmocka_unit_test(cookies_are_demanded_under_load),
        cmocka_unit_test(endless_cookies_end),
        cmocka_unit_test(retransmissions_are_identical_and_back_off),
        cmocka_unit_test(retries_for_ever_when_told_to_start),
        cmocka_unit_test(dead_peer_is_noticed_and_called_again),
        cmocka_unit_test(restarted_peer_replaces_its_old_sa),
        cmocka_unit_test(several_policies_share_one_ike_sa),
        cmocka_unit_test(down_is_not_undone_by_itself),
        cmocka_unit_test(traffic_brings_up_what_starts_on_demand),
        cmocka_unit_test(nat_is_crossed_and_a_new_mapping_followed),
        cmocka_unit_test(keepalives_come_from_behind_a_nat_only),
        cmocka_unit_test(peer_without_nat_traversal_is_refused_in_words),
        cmocka_unit_test(keylog_is_what_wireshark_reads),
        cmocka_unit_test(failed_install_is_reported_and_leaks_nothing),
        cmocka_unit_test(endpoint_port_means_nat_traversal_from_the_start),
        cmocka_unit_test(marker_and_port_belong_together),
        cmocka_unit_test(commands_fail_in_words),
        cmocka_unit_test(reload_keeps_what_did_not_change),
        cmocka_unit_test(reload_at_any_moment),
        cmocka_unit_test(reload_in_the_midst_tells_the_peer),
        cmocka_unit_test(reload_while_the_peer_refuses),
        cmocka_unit_test(request_that_cannot_be_made_ends_the_sa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
