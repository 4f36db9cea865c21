/* ESP in UDP or as protocol 50: who decides for what, and that both ends agree (RFC 7296 section 2.23; ike/encap.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ike/internal.h"
#include "test/unit/scripted.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static bool able(void *ctx)
{
    (void)ctx;
    return true;
}

static void close_all(struct sim *s)
{
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    assert_sim(sim_run(s, s->now + 100 * NS_PER_S, sim_empty));
    sim_free(s);
}

static struct sim *hosts(uint64_t seed, enum encap_mode a, enum encap_mode b)
{
    struct sim *s = sim_new(seed);
    A->peers[0].encap = a;
    B->peers[0].encap = b;
    return s;
}

static void start(struct sim *s, bool a, bool b)
{
    sim_start_engines(s, NULL);
    A->e->env.raw = a ? able : NULL;
    B->e->env.raw = b ? able : NULL;
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
}

static void assert_path(struct sim *s, bool raw)
{
    assert_sim(sim_both(s));
    for (unsigned i = 0; i < 2; i++) {
        const struct path *p = &sim_sending(&s->node[i], NULL)->path;
        assert_int_equal(p->transport, raw ? PATH_RAW : PATH_UDP);
        assert_int_equal(p->marker, !raw);
        if (raw)
            assert_int_equal(p->local.port | p->remote.port, 0);
    }
}

static void both_ends_agree(void **state)
{
    (void)state;
    static const struct {
        enum encap_mode a, b;
        bool able_a, able_b, nat, raw;
    } cases[] = {
        {ENCAP_AUTO, ENCAP_AUTO, true, true, false, false}, {ENCAP_RAW, ENCAP_RAW, true, true, false, true},
        {ENCAP_RAW, ENCAP_AUTO, true, true, false, false},  {ENCAP_AUTO, ENCAP_RAW, true, true, false, false},
        {ENCAP_UDP, ENCAP_RAW, true, true, false, false},   {ENCAP_RAW, ENCAP_RAW, true, true, true, false},
        {ENCAP_RAW, ENCAP_RAW, false, true, false, false}, /* who can't send it asks for UDP */
        {ENCAP_RAW, ENCAP_RAW, true, false, false, false},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *s = hosts(i + 1, cases[i].a, cases[i].b);
        if (cases[i].nat) {
            A->nat_ip = (struct ip){.family = 4, .b = {203, 0, 113, 7}};
            A->nat_shift = 1000;
            B->peers[0].endpoint_any = true;
        }
        start(s, cases[i].able_a, cases[i].able_b);
        assert_path(s, cases[i].raw);
        assert_int_equal(sim_find(A, IKE_EVENT_CHILD_UP, "raw ESP") != NULL, cases[i].raw);
        for (unsigned k = 0; k < 2; k++) { /* and stay so on what is made of it */
            ike_rekey(A->e, &A->peers[0], k ? &A->policies[0] : NULL, 2 + k, s->now);
            sim_for(s, 10 * NS_PER_S);
            assert_true(sim_command(A, 2 + k)->ok);
        }
        assert_path(s, cases[i].raw);
        close_all(s);
    }
}

/* IKE itself goes to the NAT-T ports all the same, with its marker, and rekeys change nothing. */
static void raw_esp_stays_so_over_rekeys(void **state)
{
    (void)state;
    struct sim *s = hosts(20, ENCAP_RAW, ENCAP_RAW);
    start(s, true, true);
    for (unsigned by = 0; by < 2; by++) {
        struct sim_node *n = &s->node[by];
        assert_int_equal(n->e->sas->path.remote.port, 4500);
        ike_rekey(n->e, &n->peers[0], &n->policies[0], 5, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_true(sim_command(n, 5)->ok);
        ike_rekey(n->e, &n->peers[0], NULL, 6, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_true(sim_command(n, 6)->ok);
        ike_rekey(n->e, &n->peers[0], &n->policies[0], 7, s->now); /* on the new IKE SA */
        sim_for(s, 100 * NS_PER_S);
        assert_true(sim_command(n, 7)->ok);
        assert_path(s, true);
    }
    close_all(s);
}

static bool told_truth(struct span raw, uint16_t type, uint64_t spi_i, uint64_t spi_r, const struct endpoint *e)
{
    uint8_t hash[NAT_HASH_LEN];
    struct ike_message m;
    nat_hash(spi_i, spi_r, e, hash);
    if (ike_message_parse(raw, &m) != OK)
        return false;
    const struct ike_notify *n = ike_find_notify(&m, type);
    return n && span_equal(n->data, span_of(hash, sizeof hash));
}

struct watch { /* both NAT_DETECTION hashes of each message of IKE_SA_INIT */
    unsigned messages;
    bool source[2], destination[2];
};

static enum sim_fate look(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct watch *w = ctx;
    (void)s;
    if (p->len < IKE_HEADER_LEN || p->data[18] != EXCHANGE_SA_INIT || w->messages == 2)
        return SIM_DELIVER;
    uint64_t spi_i = get_be64(p->data), spi_r = get_be64(p->data + 8);
    unsigned k = w->messages++;
    w->source[k] = told_truth(span_of(p->data, p->len), NOTIFY_NAT_DETECTION_SOURCE_IP, spi_i, spi_r, &p->src);
    w->destination[k] =
        told_truth(span_of(p->data, p->len), NOTIFY_NAT_DETECTION_DESTINATION_IP, spi_i, spi_r, &p->dst);
    return SIM_DELIVER;
}

static void hashes_are_true_for_raw_esp_alone(void **state)
{
    (void)state;
    for (unsigned raw = 0; raw < 2; raw++) {
        struct sim *s = raw ? hosts(30, ENCAP_RAW, ENCAP_RAW) : hosts(31, ENCAP_AUTO, ENCAP_UDP);
        struct watch w = {0};
        s->hook = look;
        s->hook_ctx = &w;
        start(s, true, true);
        assert_int_equal(w.messages, 2);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(w.source[i], raw);
            assert_true(w.destination[i]);
        }
        s->hook = NULL;
        close_all(s);
    }
}

/* Of a responder's peers at one address all have to want it. */
static void peers_at_one_address_have_to_agree(void **state)
{
    (void)state;
    for (unsigned all = 0; all < 2; all++) {
        struct sim *s = hosts(40 + all, ENCAP_RAW, ENCAP_RAW);
        B->peers[1] = B->peers[0];
        B->peers[1].number = 1;
        snprintf(B->peers[1].name, sizeof B->peers[1].name, "another");
        B->peers[1].remote_id.b[0] ^= 1;
        B->peers[1].encap = all ? ENCAP_RAW : ENCAP_AUTO;
        B->peer_list[1] = &B->peers[1];
        B->config.peer_count = 2;
        start(s, true, true);
        assert_path(s, all);
        close_all(s);
    }
}

/* -- a peer without NAT traversal -- */

static void put_init(struct scripted *p)
{
    scripted_init(p);
    scripted_put_sa(p);
    scripted_put_ke(p);
    ike_put(&p->b, PAYLOAD_NONCE, span_of(p->own.b, p->own.len));
    scripted_send(p);
}

/* As scripted_send, on port 500. */
static void send_there(struct scripted *p)
{
    size_t len;
    struct path path = {.local = p->to, .remote = p->from};
    assert_int_equal(ike_finish_sk(&p->b, &p->suite, p->seal, &len), OK);
    sim_inject(p->s, 1, &path, span_of(p->out, len));
    sim_for(p->s, 20 * NS_PER_MS);
}

static void responder_gives_raw_esp_to_who_knows_no_natt(void **state)
{
    (void)state;
    static const struct {
        enum encap_mode encap;
        bool able, up;
    } cases[] = {
        {ENCAP_AUTO, true, true}, {ENCAP_RAW, true, true}, {ENCAP_UDP, true, false}, {ENCAP_AUTO, false, false}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *s = hosts(50 + i, ENCAP_AUTO, cases[i].encap);
        struct scripted *p = scripted_new(s, NULL);
        B->e->env.raw = cases[i].able ? able : NULL;
        put_init(p);
        if (!scripted_told(&p->answer, EXCHANGE_SA_INIT, NOTIFY_NO_PROPOSAL_CHOSEN)) {
            scripted_derive(p);
            scripted_request(p, EXCHANGE_AUTH);
            scripted_put_auth(p, &s->node[0].peers[0].local_id, span_of(NULL, 0));
            scripted_put_child(p, p->child_spi);
            send_there(p);
        }
        const struct sim_sa *sa = sim_sending(B, NULL);
        assert_int_equal(sa != NULL, cases[i].up);
        if (sa) {
            assert_int_equal(sa->path.transport, PATH_RAW);
            assert_int_equal(B->e->sas->path.remote.port, 500);
        }
        scripted_free(p);
    }
}

/* Two peers of that address: which of them it is, and so that it must not, is only known in IKE_AUTH. */
static void encap_udp_is_kept_to_in_ike_auth(void **state)
{
    (void)state;
    struct sim *s = hosts(60, ENCAP_AUTO, ENCAP_UDP);
    struct scripted *p = scripted_new(s, NULL);
    B->e->env.raw = able;
    put_init(p);
    scripted_derive(p);
    scripted_request(p, EXCHANGE_AUTH);
    scripted_put_auth(p, &s->node[0].peers[0].local_id, span_of(NULL, 0));
    scripted_put_child(p, p->child_spi);
    send_there(p);
    assert_null(sim_sending(B, NULL));
    assert_true(scripted_told(&p->answer, EXCHANGE_AUTH, NOTIFY_NO_PROPOSAL_CHOSEN));
    assert_non_null(sim_find(B, IKE_EVENT_FAILED, "encap = udp allows no ESP without it"));
    scripted_free(p);
}

/* Takes the NAT_DETECTION notifies out of what B says, and notes where A goes on. */
static enum sim_fate strip(struct sim *s, struct sim_packet *p, void *ctx)
{
    uint16_t *port = ctx;
    (void)s;
    if (p->from == 1 && p->len > IKE_HEADER_LEN && p->data[18] == EXCHANGE_SA_INIT)
        for (size_t i = IKE_HEADER_LEN; i + 8 <= p->len; i++)
            if (p->data[i] == 0 && p->data[i + 1] == 0 && p->data[i + 2] == 0x40 &&
                (p->data[i + 3] == 0x04 || p->data[i + 3] == 0x05))
                p->data[i + 2] = 0x9f; /* a status type that nobody knows */
    if (p->from == 0 && p->len > IKE_HEADER_LEN && p->data[18] == EXCHANGE_AUTH)
        *port = p->dst.port;
    return SIM_DELIVER;
}

static void initiator_goes_on_without_natt_if_it_can(void **state)
{
    (void)state;
    static const struct {
        enum encap_mode encap;
        bool able;
        const char *why;
    } cases[] = {{ENCAP_AUTO, true, NULL},
                 {ENCAP_AUTO, false, "raw ESP (protocol 50) needs CAP_NET_RAW"},
                 {ENCAP_UDP, true, "encap = udp allows no ESP without it"}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *s = hosts(70 + i, cases[i].encap, ENCAP_AUTO);
        uint16_t port = 0;
        s->hook = strip;
        s->hook_ctx = &port;
        start(s, cases[i].able, true);
        assert_int_equal(port, cases[i].why ? 0 : 500); /* it has no NAT-T port to go to */
        if (cases[i].why)
            assert_non_null(sim_find(A, IKE_EVENT_FAILED, cases[i].why));
        s->hook = NULL;
        close_all(s);
    }
}

/* Transport mode is for the addresses themselves: when one of them is another, so are the selectors. */
static void transport_mode_follows_addresses(void **state)
{
    (void)state;
    for (unsigned covered = 0; covered < 2; covered++) {
        struct sim *s = hosts(80 + covered, ENCAP_RAW, ENCAP_RAW);
        struct selectors want;
        for (unsigned k = 0; k < 2; k++) {
            struct policy *p = &s->node[k].policies[0];
            p->mode = MODE_TRANSPORT;
            sim_selectors(&p->local, k ? "10.0.0.2" : covered ? "10.0.0.0/16" : "10.0.0.1");
            sim_selectors(&p->remote, !k ? "10.0.0.2" : covered ? "10.0.0.0/16" : "10.0.0.1");
            s->node[k].peers[0].mobike = true;
        }
        A->more[0] = (struct ip){.family = 4, .b = {10, 0, 1, 1}};
        sim_start_engines(s, NULL);
        for (unsigned k = 0; k < 2; k++) {
            s->node[k].e->env.raw = able;
            s->node[k].e->env.transport_mode = true;
            sim_addresses(s, k);
        }
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, 5 * NS_PER_S);
        assert_path(s, true);
        A->ip = A->more[0];
        A->more[0].family = 0;
        sim_addresses(s, 0);
        sim_for(s, 10 * NS_PER_S);
        assert_path(s, true);
        assert_true(ip_equal(&sim_sending(A, NULL)->path.local.ip, &A->ip));
        assert_true(ip_equal(&sim_sending(B, NULL)->path.remote.ip, &A->ip));
        sim_selectors(&want, covered ? "10.0.1.1" : "10.0.0.1");
        assert_int_equal(sim_sending(A, NULL)->mode, MODE_TRANSPORT);
        assert_true(selectors_equal(&sim_sending(A, NULL)->local, &want));
        assert_true(selectors_equal(&sim_sending(B, NULL)->remote, &want));
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_REKEYED), covered);
        assert_int_equal(sim_count(B, IKE_EVENT_CHILD_REKEYED), covered);
        close_all(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_agree),
        cmocka_unit_test(raw_esp_stays_so_over_rekeys),
        cmocka_unit_test(hashes_are_true_for_raw_esp_alone),
        cmocka_unit_test(peers_at_one_address_have_to_agree),
        cmocka_unit_test(responder_gives_raw_esp_to_who_knows_no_natt),
        cmocka_unit_test(encap_udp_is_kept_to_in_ike_auth),
        cmocka_unit_test(initiator_goes_on_without_natt_if_it_can),
        cmocka_unit_test(transport_mode_follows_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
