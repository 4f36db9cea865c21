/*
 * What RFC 7296 demands of an engine when the other side does what no engine would: one test for each rule, by a peer
 * that plays from a script. test/conformance says which rule is tested where.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "test/unit/scripted.h"

#define NONE span_of(NULL, 0)
#define B (&p->s->node[1])
#define CREATE EXCHANGE_CREATE_CHILD_SA
#define INFORMATIONAL EXCHANGE_INFORMATIONAL

static struct scripted *fresh(uint64_t seed)
{
    return scripted_new(sim_new(seed), NULL);
}

static struct scripted *connected(uint64_t seed)
{
    struct scripted *p = scripted_connected(seed);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    assert_int_equal(sim_children(B), 1);
    return p;
}

static void expect_up(struct scripted *p)
{
    if (scripted_sas(p, IKE_ESTABLISHED) != 1)
        sim_dump(p->s);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    assert_int_equal(sim_children(B), 1);
    scripted_free(p);
}

/* No SA was made, whatever was said. */
static void expect_nothing(struct scripted *p)
{
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED) + scripted_sas(p, IKE_CONNECTING), 0);
    assert_int_equal(sim_children(B), 0);
    scripted_free(p);
}

static bool told(const struct scripted *p, uint8_t exchange, uint16_t notify)
{
    return scripted_told(&p->answer, exchange, notify);
}

static uint32_t engine_child_spi(const struct scripted *p)
{
    const struct sim_sa *sa = sim_sending(B, &B->policies[0]);
    return sa ? sa->spi_in : 0;
}

/* -- IKE_SA_INIT -- */

static void wrong_group_is_answered_with_the_right_one(void **state)
{
    (void)state;
    struct scripted *p = fresh(1);
    uint8_t value[64] = {1};
    sim_proposals(&p->s->node[0].peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-ecp256-x25519");
    scripted_init(p);
    scripted_put_sa(p);
    ike_put_ke(&p->b, KE_ECP_256, span_of(value, sizeof value));
    scripted_put_nonce(p);
    scripted_send(p);
    assert_true(told(p, EXCHANGE_SA_INIT, NOTIFY_INVALID_KE_PAYLOAD));
    struct span data = ike_find_notify(&p->answer.m, NOTIFY_INVALID_KE_PAYLOAD)->data;
    assert_int_equal(data.len, 2);
    assert_int_equal(get_be16(data.data), KE_CURVE25519);
    assert_int_equal(p->answer.m.h.spi_r, 0);
    expect_nothing(p);
}

static void key_exchange_values_that_are_none_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        uint8_t first;
    } values[] = {{32, 0}, {32, 1}, {31, 9}, {33, 9}, {0, 0}, {1, 1}, {256, 7}};
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++) {
        struct scripted *p = fresh(2);
        uint8_t value[256] = {values[i].first}; /* 0 and 1 are points of low order (RFC 7748 section 6.1) */
        scripted_init(p);
        scripted_put_sa(p);
        ike_put_ke(&p->b, KE_CURVE25519, span_of(value, values[i].len));
        scripted_put_nonce(p);
        scripted_send(p);
        assert_false(p->answer.n && p->answer.m.seen & PAYLOAD_BIT(PAYLOAD_SA));
        expect_nothing(p);
    }
}

static void every_group_number_is_survived(void **state)
{
    (void)state;
    struct scripted *p = fresh(3);
    for (uint32_t group = 0; group < 65536; group += group < 64 ? 1 : 97) {
        uint8_t value[64] = {9};
        p->spi_i++;
        scripted_init(p);
        scripted_put_sa(p);
        ike_put_ke(&p->b, (uint16_t)group, span_of(value, 32));
        scripted_put_nonce(p);
        scripted_send(p);
        if (group != KE_CURVE25519)
            assert_true(told(p, EXCHANGE_SA_INIT, NOTIFY_INVALID_KE_PAYLOAD) ||
                        told(p, EXCHANGE_SA_INIT, NOTIFY_INVALID_SYNTAX) || p->answer.n == 0);
    }
    assert_in_range(scripted_sas(p, IKE_CONNECTING), 0, 1);
    scripted_free(p);
}

static void error_notify_in_a_request_is_ignored(void **state)
{
    (void)state;
    struct scripted *p = fresh(4);
    scripted_init(p);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, 8191, NONE);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_NO_PROPOSAL_CHOSEN, NONE);
    scripted_put_sa(p);
    scripted_put_ke(p);
    scripted_put_nonce(p);
    scripted_send(p);
    scripted_derive(p);
    scripted_request(p, EXCHANGE_AUTH);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, 8191, NONE);
    scripted_put_auth(p, &p->s->node[0].peers[0].local_id, NONE);
    scripted_put_child(p, p->child_spi);
    scripted_send(p);
    expect_up(p);
}

static void payloads_in_any_order_are_accepted(void **state)
{
    (void)state;
    struct scripted *p = fresh(5);
    scripted_init(p);
    scripted_put_nonce(p);
    scripted_put_ke(p);
    scripted_put_sa(p);
    scripted_send(p);
    scripted_derive(p);
    scripted_request(p, EXCHANGE_AUTH);
    scripted_put_child(p, p->child_spi);
    scripted_put_auth(p, &p->s->node[0].peers[0].local_id, NONE);
    scripted_send(p);
    expect_up(p);
}

static void minor_version_and_version_flag_are_ignored(void **state)
{
    (void)state;
    struct scripted *p = fresh(6);
    scripted_init(p);
    p->out[17] = 0x2f;
    p->out[19] |= IKE_FLAG_VERSION;
    scripted_put_sa(p);
    scripted_put_ke(p);
    scripted_put_nonce(p);
    scripted_send(p);
    assert_int_equal(p->answer.m.h.version, 0x20);
    scripted_derive(p);
    scripted_exchange_auth(p);
    expect_up(p);
}

static void ikev1_is_not_answered_with_an_sa(void **state)
{
    (void)state;
    struct scripted *p = fresh(7);
    scripted_init(p);
    p->out[17] = 0x10;
    p->out[18] = 2; /* Identity Protection, what Main Mode is on the wire */
    scripted_put_sa(p);
    scripted_send(p);
    assert_true(p->answer.n <= 1);
    assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_VERSION), 1);
    expect_nothing(p);
}

static const uint8_t unknown_types[] = {1, 32, 49, 255};

static void unknown_payloads_are_skipped(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof unknown_types; i++) {
        struct scripted *p = fresh(8);
        scripted_init(p);
        ike_put(&p->b, unknown_types[i], span_of("whatever", 8));
        scripted_put_sa(p);
        scripted_put_ke(p);
        scripted_put_nonce(p);
        scripted_send(p);
        scripted_derive(p);
        scripted_request(p, EXCHANGE_AUTH);
        ike_put(&p->b, unknown_types[i], span_of("whatever", 8));
        scripted_put_auth(p, &p->s->node[0].peers[0].local_id, NONE);
        scripted_put_child(p, p->child_spi);
        scripted_send(p);
        expect_up(p);
    }
}

/* The payload that was put last gets its critical bit. */
static void make_critical(struct scripted *p, size_t at)
{
    p->out[at + 1] |= 0x80;
}

static void check_critical_answer(const struct scripted *p, uint8_t exchange, uint8_t type)
{
    assert_true(told(p, exchange, NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD));
    struct span data = ike_find_notify(&p->answer.m, NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD)->data;
    assert_int_equal(data.len, 1);
    assert_int_equal(data.data[0], type);
}

static void unknown_critical_payloads_reject_the_message(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof unknown_types; i++) {
        struct scripted *p = fresh(9);
        scripted_init(p);
        ike_put(&p->b, unknown_types[i], span_of("whatever", 8));
        make_critical(p, IKE_HEADER_LEN);
        scripted_put_sa(p);
        scripted_put_ke(p);
        scripted_put_nonce(p);
        scripted_send(p);
        check_critical_answer(p, EXCHANGE_SA_INIT, unknown_types[i]);
        expect_nothing(p);

        p = connected(10);
        scripted_request(p, INFORMATIONAL);
        size_t at = writer_len(&p->b.w);
        ike_put(&p->b, unknown_types[i], span_of("whatever", 8));
        make_critical(p, at);
        ike_put_delete(&p->b, PROTOCOL_IKE, NULL, 0); /* must not be acted upon */
        scripted_send(p);
        check_critical_answer(p, INFORMATIONAL, unknown_types[i]);
        expect_up(p);
    }
}

static void critical_bit_of_known_payloads_is_ignored(void **state)
{
    (void)state;
    struct scripted *p = fresh(11);
    scripted_init(p);
    scripted_put_sa(p);
    make_critical(p, IKE_HEADER_LEN);
    scripted_put_ke(p);
    size_t at = writer_len(&p->b.w);
    scripted_put_nonce(p);
    make_critical(p, at);
    scripted_send(p);
    scripted_derive(p);
    scripted_exchange_auth(p);
    expect_up(p);
}

/* Each transform of the one proposal left out: a mandatory type is missing, and nothing is agreed or crashes. */
static void each_transform_is_missed(void **state)
{
    (void)state;
    for (unsigned drop_type = TRANSFORM_ENCR; drop_type <= TRANSFORM_KE; drop_type++) {
        struct scripted *p = fresh(12);
        struct proposals *ike = &p->s->node[0].peers[0].ike;
        unsigned n = 0;
        for (unsigned i = 0; i < ike->v[0].n; i++)
            if (ike->v[0].t[i].type != drop_type)
                ike->v[0].t[n++] = ike->v[0].t[i];
        bool dropped = n < ike->v[0].n;
        ike->v[0].n = (uint8_t)n;
        scripted_init(p);
        scripted_put_sa(p);
        scripted_put_ke(p);
        scripted_put_nonce(p);
        scripted_send(p);
        if (dropped)
            assert_true(told(p, EXCHANGE_SA_INIT, NOTIFY_NO_PROPOSAL_CHOSEN));
        else
            assert_true(p->answer.m.seen & PAYLOAD_BIT(PAYLOAD_SA));
        scripted_free(p);
    }
}

/* -- cookies -- */

static const struct ike_limits wary = {.half_open = 100, .cookie_threshold = 1};

static void wrong_or_mangled_cookie_is_as_none(void **state)
{
    (void)state;
    struct scripted *p = scripted_new(sim_new(13), &wary);
    scripted_init(p); /* somebody who goes no further takes the one place that is free */
    p->out[0] = 0x99;
    scripted_put_sa(p);
    scripted_put_ke(p);
    scripted_put_nonce(p);
    scripted_send(p);
    assert_int_equal(scripted_sas(p, IKE_CONNECTING), 1);
    unsigned jobs = B->offers_run;
    uint8_t cookie[64] = {0};
    size_t len = 0;
    for (unsigned round = 0; round < 6; round++) {
        scripted_init(p);
        if (round)
            ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_COOKIE, span_of(cookie, len));
        scripted_put_sa(p);
        scripted_put_ke(p);
        scripted_put_nonce(p);
        scripted_send(p);
        assert_true(told(p, EXCHANGE_SA_INIT, NOTIFY_COOKIE));
        assert_int_equal(p->answer.m.h.spi_r, 0);
        assert_int_equal(scripted_sas(p, IKE_CONNECTING), 1); /* no state, no key exchange */
        assert_int_equal(B->offers_run, jobs);
        struct span good = ike_find_notify(&p->answer.m, NOTIFY_COOKIE)->data;
        assert_in_range(good.len, 1, 64);
        memcpy(cookie, good.data, good.len);
        len = round == 0 ? 0 : round == 1 ? good.len - 1 : round == 2 ? 64 : good.len;
        cookie[round * 7 % good.len] ^= 1;
    }
    /* And the right one brings it up, although its SPI was refused before. */
    memcpy(cookie, ike_find_notify(&p->answer.m, NOTIFY_COOKIE)->data.data, len);
    scripted_init(p);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_COOKIE, span_of(cookie, len));
    scripted_put_sa(p);
    scripted_put_ke(p);
    scripted_put_nonce(p);
    scripted_send(p);
    scripted_derive(p);
    scripted_exchange_auth(p);
    expect_up(p);
}

static void cookie_that_nobody_asked_for_is_ignored(void **state)
{
    (void)state;
    struct scripted *p = fresh(14);
    scripted_init(p);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_COOKIE, span_of("nobody asked for this", 21));
    scripted_put_sa(p);
    scripted_put_ke(p);
    scripted_put_nonce(p);
    scripted_send(p);
    scripted_derive(p);
    scripted_exchange_auth(p);
    expect_up(p);
}

/* -- IKE_AUTH -- */

/* AUTH is made over the octets as they came, reserved bits of the identity included (section 2.15). */
static void auth_covers_reserved_bits_of_the_identity(void **state)
{
    (void)state;
    for (unsigned exact = 0; exact < 2; exact++) {
        struct scripted *p = fresh(15);
        const struct identity *id = &p->s->node[0].peers[0].local_id;
        uint8_t body[4 + IDENTITY_MAX] = {id->type, 1, 2, 3};
        memcpy(body + 4, id->b, id->len);
        scripted_exchange_init(p);
        scripted_request(p, EXCHANGE_AUTH);
        size_t at = writer_len(&p->b.w);
        if (exact) {
            scripted_put_auth(p, id, span_of(body, 4u + id->len));
        } else { /* signed with zeros, sent with something else */
            scripted_put_auth(p, id, NONE);
            p->out[at + 5] = 1;
        }
        scripted_put_child(p, p->child_spi);
        scripted_send(p);
        if (exact) {
            expect_up(p);
        } else {
            assert_true(told(p, EXCHANGE_AUTH, NOTIFY_AUTHENTICATION_FAILED));
            assert_int_equal(sim_children(B), 0);
            scripted_free(p);
        }
    }
}

/* Without an AUTH payload the initiator asks for EAP (section 2.16): it is told no, and the log says why. */
static void eap_is_refused_and_named(void **state)
{
    (void)state;
    struct scripted *p = fresh(17);
    uint8_t body[4 + IDENTITY_MAX] = {0};
    const struct identity *id = &p->s->node[0].peers[0].local_id;
    scripted_exchange_init(p);
    scripted_request(p, EXCHANGE_AUTH);
    body[0] = id->type;
    memcpy(body + 4, id->b, id->len);
    ike_put(&p->b, PAYLOAD_IDI, span_of(body, 4u + id->len));
    scripted_put_child(p, p->child_spi);
    scripted_send(p);
    assert_true(told(p, EXCHANGE_AUTH, NOTIFY_AUTHENTICATION_FAILED));
    assert_non_null(sim_find(B, IKE_EVENT_FAILED, "uses EAP, a pre-shared key is configured"));
    sim_for(p->s, 60 * NS_PER_S);
    expect_nothing(p);
}

static void bad_auth_is_refused_and_forgotten(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 5; how++) {
        static const size_t lens[] = {32, 0, 31, 33, 200};
        struct scripted *p = fresh(16);
        uint8_t auth[200] = {0}, body[4 + IDENTITY_MAX];
        const struct identity *id = &p->s->node[0].peers[0].local_id;
        scripted_exchange_init(p);
        scripted_request(p, EXCHANGE_AUTH);
        memset(body, 0, sizeof body);
        body[0] = id->type;
        memcpy(body + 4, id->b, id->len);
        ike_put(&p->b, PAYLOAD_IDI, span_of(body, 4u + id->len));
        ike_put_auth(&p->b, 2, span_of(auth, lens[how]));
        scripted_put_child(p, p->child_spi);
        scripted_send(p);
        assert_true(told(p, EXCHANGE_AUTH, NOTIFY_AUTHENTICATION_FAILED));
        assert_false(p->answer.m.seen & (PAYLOAD_BIT(PAYLOAD_IDR) | PAYLOAD_BIT(PAYLOAD_AUTH)));
        sim_for(p->s, 60 * NS_PER_S);
        assert_true(sim_empty(p->s));
        scripted_free(p);
    }
}

/* From who has not proved himself, or in another exchange, INITIAL_CONTACT ends nothing (section 2.4). */
static void initial_contact_counts_in_ike_auth_only(void **state)
{
    (void)state;
    struct scripted *p = connected(17);
    scripted_request(p, INFORMATIONAL);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_INITIAL_CONTACT, NONE);
    scripted_send(p);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);

    scripted_init(p); /* a stranger from the same address, who could be anybody */
    p->out[0] = 0x99;
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_INITIAL_CONTACT, NONE);
    scripted_put_sa(p);
    uint8_t value[32] = {9};
    ike_put_ke(&p->b, KE_CURVE25519, span_of(value, 32));
    scripted_put_nonce(p);
    scripted_send(p);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    assert_int_equal(scripted_sas(p, IKE_CONNECTING), 1);
    sim_for(p->s, 60 * NS_PER_S);
    expect_up(p);
}

/* -- Child SAs -- */

static void rekey_of_an_unknown_child_is_told(void **state)
{
    (void)state;
    static const uint8_t protocols[] = {PROTOCOL_ESP, 0, PROTOCOL_IKE, 2, 99};
    for (unsigned i = 0; i < sizeof protocols; i++) {
        struct scripted *p = connected(18);
        scripted_request(p, CREATE);
        scripted_put_spi(p, NOTIFY_REKEY_SA, protocols[i], i ? p->child_spi : 0xdeadbeef);
        scripted_put_nonce(p);
        scripted_put_child(p, 0xc0000002);
        scripted_send(p);
        if (protocols[i] == PROTOCOL_ESP) {
            assert_true(told(p, CREATE, NOTIFY_CHILD_SA_NOT_FOUND));
            const struct ike_notify *n = ike_find_notify(&p->answer.m, NOTIFY_CHILD_SA_NOT_FOUND);
            assert_int_equal(n->spi.len, 4);
            assert_int_equal(get_be32(n->spi.data), 0xdeadbeef);
        } else {
            assert_non_null(ike_find_error(&p->answer.m));
        }
        assert_int_equal(sim_children(B), 1);
        expect_up(p);
    }
}

/* The engine waits for the answer to its Delete of the Child SA. */
static struct scripted *child_being_deleted(uint64_t seed)
{
    struct scripted *p = connected(seed);
    unsigned before = p->request.n;
    ike_down(B->e, &B->peers[0], &B->policies[0], 5, p->s->now);
    sim_for(p->s, 10 * NS_PER_MS);
    assert_int_equal(p->request.n, before + 1);
    assert_int_equal(p->request.m.dels, 1);
    return p;
}

static void rekey_of_a_child_being_closed_is_put_off(void **state)
{
    (void)state;
    struct scripted *p = child_being_deleted(19);
    scripted_request(p, CREATE);
    scripted_put_spi(p, NOTIFY_REKEY_SA, PROTOCOL_ESP, p->child_spi);
    scripted_put_nonce(p);
    scripted_put_child(p, 0xc0000002);
    scripted_send(p);
    assert_true(told(p, CREATE, NOTIFY_TEMPORARY_FAILURE));
    scripted_free(p);
}

static void crossing_deletes_are_answered_without_one(void **state)
{
    (void)state;
    struct scripted *p = child_being_deleted(20);
    scripted_request(p, INFORMATIONAL);
    ike_put_delete(&p->b, PROTOCOL_ESP, &p->child_spi, 1);
    scripted_send(p);
    assert_int_equal(p->answer.m.h.exchange, INFORMATIONAL);
    assert_true(p->answer.readable);
    assert_int_equal(p->answer.m.dels, 0);
    assert_int_equal(sim_children(B), 0);
    scripted_free(p);
}

/* The engine waits for the answer to its rekey of the Child SA (ike false) or the IKE SA. */
static struct scripted *being_rekeyed(uint64_t seed, bool ike)
{
    struct scripted *p = connected(seed);
    unsigned before = p->request.n;
    ike_rekey(B->e, &B->peers[0], ike ? NULL : &B->policies[0], 5, p->s->now);
    sim_for(p->s, 30 * NS_PER_MS);
    assert_int_equal(p->request.n, before + 1);
    assert_int_equal(p->request.m.h.exchange, CREATE);
    return p;
}

static void delete_of_a_child_being_rekeyed_is_normal(void **state)
{
    (void)state;
    struct scripted *p = being_rekeyed(21, false);
    uint32_t theirs = engine_child_spi(p);
    scripted_request(p, INFORMATIONAL);
    ike_put_delete(&p->b, PROTOCOL_ESP, &p->child_spi, 1);
    scripted_send(p);
    assert_int_equal(p->answer.m.dels, 1);
    assert_int_equal(p->answer.m.del[0].n, 1);
    assert_int_equal(p->answer.m.del[0].spi[0], theirs);
    scripted_free(p);
}

static void ike_rekey_during_a_child_exchange_is_put_off(void **state)
{
    (void)state;
    struct scripted *p = being_rekeyed(22, false);
    scripted_request(p, CREATE);
    proposal_put_offer(&p->b, &p->s->node[0].peers[0].ike, 0x7777777777777777, 8);
    scripted_put_nonce(p);
    scripted_put_ke(p);
    scripted_send(p);
    assert_true(told(p, CREATE, NOTIFY_TEMPORARY_FAILURE));
    scripted_free(p);
}

static void child_exchange_during_an_ike_rekey_is_put_off(void **state)
{
    (void)state;
    struct scripted *p = being_rekeyed(23, true);
    scripted_request(p, CREATE);
    scripted_put_nonce(p);
    scripted_put_child(p, 0xc0000002);
    scripted_send(p);
    assert_true(told(p, CREATE, NOTIFY_TEMPORARY_FAILURE));
    assert_int_equal(sim_children(B), 1);
    scripted_free(p);
}

static void ike_delete_during_a_rekey_is_answered(void **state)
{
    (void)state;
    for (unsigned ike = 0; ike < 2; ike++) {
        struct scripted *p = being_rekeyed(24, ike);
        scripted_request(p, INFORMATIONAL);
        ike_put_delete(&p->b, PROTOCOL_IKE, NULL, 0);
        scripted_send(p);
        assert_int_equal(p->answer.m.h.exchange, INFORMATIONAL);
        assert_true(p->answer.readable && p->answer.m.dels == 0 && p->answer.m.notifies == 0);
        sim_for(p->s, 10 * NS_PER_S); /* what is still on its way */
        assert_true(sim_empty(p->s));
        assert_true(sim_command(B, 5) && !sim_command(B, 5)->ok);
        scripted_free(p);
    }
}

static void temporary_failure_is_not_retried_at_once(void **state)
{
    (void)state;
    for (unsigned ike = 0; ike < 2; ike++) {
        struct scripted *p = being_rekeyed(25, ike);
        unsigned before = p->request.n;
        ns_t at = p->s->now;
        scripted_reply(p);
        ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_TEMPORARY_FAILURE, NONE);
        scripted_send(p);
        while (p->request.n == before && p->s->now < at + 120 * NS_PER_S)
            sim_for(p->s, 100 * NS_PER_MS);
        assert_int_equal(p->request.n, before + 1); /* it comes again, later, under another number */
        assert_true(p->s->now - at > 2 * NS_PER_S);
        scripted_free(p);
    }
}

static void no_additional_sas_makes_all_anew(void **state)
{
    (void)state;
    struct scripted *p = being_rekeyed(26, false);
    scripted_reply(p);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_NO_ADDITIONAL_SAS, NONE);
    scripted_send(p);
    assert_int_equal(p->request.m.h.exchange, EXCHANGE_SA_INIT); /* the old one goes when the new one is there */
    scripted_free(p);
}

static void child_not_found_makes_it_anew(void **state)
{
    (void)state;
    struct scripted *p = being_rekeyed(27, false);
    unsigned before = p->request.n;
    uint32_t old = engine_child_spi(p);
    uint8_t spi[4];
    put_be32(spi, old);
    B->peers[0].start = START_YES;
    ike_start(B->e, p->s->now);
    scripted_reply(p);
    ike_put_notify(&p->b, PROTOCOL_ESP, span_of(spi, 4), NOTIFY_CHILD_SA_NOT_FOUND, NONE);
    scripted_send(p);
    sim_for(p->s, 5 * NS_PER_S);
    assert_true(p->request.n > before);
    assert_int_equal(p->request.m.h.exchange, CREATE);
    assert_null(ike_find_notify(&p->request.m, NOTIFY_REKEY_SA));
    scripted_free(p);
}

/* -- INFORMATIONAL, message IDs -- */

static void empty_request_has_an_empty_answer(void **state)
{
    (void)state;
    struct scripted *p = connected(28);
    unsigned before = p->answer.n;
    scripted_request(p, INFORMATIONAL);
    scripted_send(p);
    assert_int_equal(p->answer.n, before + 1);
    assert_true(p->answer.readable);
    assert_int_equal(p->answer.m.seen & ~PAYLOAD_BIT(PAYLOAD_SK), 0);
    expect_up(p);
}

static void delete_names_and_gets_the_pair(void **state)
{
    (void)state;
    struct scripted *p = connected(29);
    uint32_t theirs = engine_child_spi(p);
    scripted_request(p, INFORMATIONAL);
    ike_put_delete(&p->b, PROTOCOL_ESP, &p->child_spi, 1);
    scripted_send(p);
    assert_int_equal(p->answer.m.dels, 1);
    assert_int_equal(p->answer.m.del[0].protocol, PROTOCOL_ESP);
    assert_int_equal(p->answer.m.del[0].n, 1);
    assert_int_equal(p->answer.m.del[0].spi[0], theirs);
    assert_int_equal(sim_children(B), 0);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    scripted_free(p);
}

static void mixed_and_oversized_deletes_are_survived(void **state)
{
    (void)state;
    struct scripted *p = connected(30);
    static uint32_t spis[5000];
    for (unsigned i = 0; i < 5000; i++)
        spis[i] = 0xd0000000 + i;
    scripted_request(p, INFORMATIONAL);
    ike_put_delete(&p->b, 2, spis, 10); /* AH */
    ike_put_delete(&p->b, PROTOCOL_ESP, spis, 5000);
    ike_put_delete(&p->b, PROTOCOL_ESP, &p->child_spi, 1);
    scripted_send(p);
    assert_true(p->answer.readable);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    scripted_request(p, INFORMATIONAL);
    ike_put_delete(&p->b, PROTOCOL_ESP, &p->child_spi, 1);
    scripted_send(p);
    assert_int_equal(sim_children(B), 0);
    scripted_free(p);
}

static void repeated_request_gets_the_identical_answer(void **state)
{
    (void)state;
    struct scripted *p = connected(31);
    uint8_t request[512], answer[512];
    scripted_request(p, INFORMATIONAL);
    scripted_send(p);
    size_t len = get_be32(p->out + 24), answer_len = p->answer.raw.len;
    memcpy(request, p->out, len);
    memcpy(answer, p->answer.raw.data, answer_len);
    unsigned before = p->answer.n;
    struct path path = {.local = {p->to.ip, 4500}, .remote = {p->from.ip, 4500}, .marker = true};
    sim_inject(p->s, 1, &path, span_of(request, len));
    assert_int_equal(p->answer.n, before + 1);
    assert_int_equal(p->answer.raw.len, answer_len);
    assert_memory_equal(p->answer.raw.data, answer, answer_len);
    expect_up(p);
}

static void message_ids_outside_the_window_are_not_acknowledged(void **state)
{
    (void)state;
    static const uint32_t ids[] = {0, 3, 40, UINT32_MAX}; /* IKE_AUTH was 1 */
    struct scripted *p = connected(32);
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        unsigned before = p->answer.n;
        scripted_protected(p, INFORMATIONAL, false, ids[i]);
        ike_put_delete(&p->b, PROTOCOL_IKE, NULL, 0);
        scripted_send(p);
        assert_int_equal(p->answer.n, before);
        assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_MSGID), i + 1);
    }
    expect_up(p);
}

static void answer_to_nothing_is_ignored(void **state)
{
    (void)state;
    struct scripted *p = connected(33);
    for (uint32_t id = 0; id < 3; id++) {
        scripted_protected(p, INFORMATIONAL, true, id);
        ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_AUTHENTICATION_FAILED, NONE);
        scripted_send(p);
    }
    expect_up(p);
}

static void retransmission_stops_once_answered(void **state)
{
    (void)state;
    struct scripted *p = being_rekeyed(34, false);
    unsigned before = p->request.n;
    sim_for(p->s, 4 * NS_PER_S);
    assert_int_equal(p->request.n, before + 2); /* after 1 s, and 2 s later */
    scripted_reply(p);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_TEMPORARY_FAILURE, NONE);
    scripted_send(p);
    sim_for(p->s, 2 * NS_PER_S);
    assert_int_equal(p->request.n, before + 2);
    scripted_free(p);
}

static void message_ids_running_out_rekey_the_ike_sa(void **state)
{
    (void)state;
    struct scripted *p = connected(35);
    B->e->sas->tx.next = MESSAGE_ID_SOFT + 1;
    sim_for(p->s, 30 * NS_PER_S);
    assert_int_equal(p->request.m.h.exchange, CREATE);
    assert_int_equal(p->request.m.h.message_id, MESSAGE_ID_SOFT + 1);
    assert_false(p->request.m.tsi.present);
    assert_true(p->request.m.ke.data != NULL);
    scripted_free(p);
}

/* Nothing unprotected and nothing that is no answer ends an SA; silence does, and takes the Child SAs with it. */
static void only_silence_declares_a_peer_dead(void **state)
{
    (void)state;
    static const uint16_t types[] = {NOTIFY_INVALID_IKE_SPI, NOTIFY_INVALID_SPI, NOTIFY_AUTHENTICATION_FAILED,
                                     NOTIFY_INVALID_SYNTAX, NOTIFY_INITIAL_CONTACT};
    struct scripted *p = connected(36);
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++)
        for (unsigned flags = 0; flags < 0x40; flags += 8) {
            uint8_t out[128];
            struct ike_builder b;
            size_t len;
            struct ike_header h = {.spi_i = p->spi_i,
                                   .spi_r = p->spi_r,
                                   .version = 0x20,
                                   .exchange = INFORMATIONAL,
                                   .flags = (uint8_t)flags,
                                   .message_id = 2};
            struct path path = {.local = {p->to.ip, 4500}, .remote = {p->from.ip, 4500}, .marker = true};
            ike_begin(&b, out, sizeof out, &h);
            ike_put_notify(&b, PROTOCOL_NONE, NONE, types[i], NONE);
            assert_int_equal(ike_finish(&b, &len), OK);
            sim_inject(p->s, 1, &path, span_of(out, len));
        }
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    p->s->traffic = NS_PER_S;
    sim_for(p->s, 40 * NS_PER_S);
    assert_int_equal(p->request.m.h.exchange, INFORMATIONAL); /* the liveness check */
    sim_for(p->s, 120 * NS_PER_S);
    assert_true(sim_empty(p->s));
    scripted_free(p);
}

/* -- the engine as initiator: what it says first is kept, and answered by hand -- */

static enum sim_fate keep_first_messages(struct sim *s, struct sim_packet *packet, void *ctx)
{
    struct buf *first = ctx;
    (void)s;
    for (unsigned i = 0; i < 4 && packet->from == 0; i++)
        if (!first[i].len) {
            assert_int_equal(buf_set(&first[i], span_of(packet->data, packet->len)), OK);
            break;
        }
    return SIM_DROP;
}

static void answer_first(struct sim *s, const struct buf *request, uint64_t spi_r, uint16_t type, struct span data)
{
    uint8_t out[256];
    struct ike_builder b;
    size_t len;
    struct ike_header h = {.spi_i = get_be64(request->data),
                           .spi_r = spi_r,
                           .version = 0x20,
                           .exchange = EXCHANGE_SA_INIT,
                           .flags = IKE_FLAG_RESPONSE};
    struct path path = {.local = {s->node[0].ip, 500}, .remote = {s->node[1].ip, 500}};
    ike_begin(&b, out, sizeof out, &h);
    ike_put_notify(&b, PROTOCOL_NONE, NONE, type, data);
    assert_int_equal(ike_finish(&b, &len), OK);
    sim_inject(s, 0, &path, span_of(out, len));
    sim_for(s, 20 * NS_PER_MS);
}

static struct span sa_of(const struct buf *request, uint8_t *copy, struct ike_message *m)
{
    memcpy(copy, request->data, request->len);
    assert_int_equal(ike_message_parse(span_of(copy, request->len), m), OK);
    return m->sa;
}

/* The retry has the group that was asked for and the whole offer again, also when the answer has a responder's SPI. */
static void invalid_ke_is_followed_with_the_full_offer(void **state)
{
    (void)state;
    for (unsigned spi = 0; spi < 2; spi++) {
        struct sim *s = sim_new(37);
        struct buf first[4] = {0};
        uint8_t copy[2][2048], group[2] = {0, KE_ECP_256};
        struct ike_message m[2];
        sim_proposals(&s->node[0].peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-x25519-ecp256");
        s->hook = keep_first_messages;
        s->hook_ctx = first;
        sim_start_engines(s, NULL);
        ike_up(s->node[0].e, &s->node[0].peers[0], NULL, 1, s->now);
        sim_for(s, 20 * NS_PER_MS);
        assert_true(first[0].len);
        answer_first(s, &first[0], spi ? 0x1234 : 0, NOTIFY_INVALID_KE_PAYLOAD, span_of(group, 2));
        assert_true(first[1].len);
        struct span a = sa_of(&first[0], copy[0], &m[0]), b = sa_of(&first[1], copy[1], &m[1]);
        assert_int_equal(m[1].ke_group, KE_ECP_256);
        assert_int_equal(m[1].h.message_id, 0);
        assert_int_equal(m[1].h.spi_r, 0);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        for (unsigned i = 0; i < 4; i++)
            buf_free(&first[i]);
        sim_free(s);
    }
}

static void cookie_is_returned_first_and_whole(void **state)
{
    (void)state;
    static const size_t lens[] = {1, 64, 0, 65};
    for (unsigned i = 0; i < 4; i++) {
        struct sim *s = sim_new(38);
        struct buf first[4] = {0};
        uint8_t cookie[65] = {7, 8, 9}, copy[2048];
        struct ike_message m;
        s->hook = keep_first_messages;
        s->hook_ctx = first;
        sim_start_engines(s, NULL);
        ike_up(s->node[0].e, &s->node[0].peers[0], NULL, 1, s->now);
        sim_for(s, 20 * NS_PER_MS);
        answer_first(s, &first[0], 0, NOTIFY_COOKIE, span_of(cookie, lens[i]));
        bool valid = lens[i] >= 1 && lens[i] <= 64;
        assert_int_equal(first[1].len > 0, valid);
        if (valid) {
            sa_of(&first[1], copy, &m);
            assert_int_equal(m.h.next_payload, PAYLOAD_NOTIFY);
            assert_int_equal(m.notify[0].type, NOTIFY_COOKIE);
            assert_true(span_equal(m.notify[0].data, span_of(cookie, lens[i])));
            assert_int_equal(m.h.message_id, 0);
        }
        for (unsigned k = 0; k < 4; k++)
            buf_free(&first[k]);
        sim_free(s);
    }
}

/* Cookies under load and the wrong group, one after the other, whichever comes first. */
static void cookie_and_wrong_group_in_one_attempt(void **state)
{
    (void)state;
    struct sim *s = sim_new(39);
    sim_proposals(&s->node[0].peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-x25519-ecp256");
    sim_proposals(&s->node[1].peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-ecp256");
    struct buf first[4] = {0};
    uint8_t group[2] = {0, KE_ECP_256}, cookie[20] = {1};
    s->hook = keep_first_messages;
    s->hook_ctx = first;
    sim_start_engines(s, NULL);
    ike_up(s->node[0].e, &s->node[0].peers[0], NULL, 1, s->now);
    sim_for(s, 20 * NS_PER_MS);
    answer_first(s, &first[0], 0, NOTIFY_COOKIE, span_of(cookie, sizeof cookie));
    s->hook = NULL; /* its retransmission reaches the other engine, which wants another group */
    assert_true(sim_run(s, s->now + 10 * NS_PER_S, sim_up));
    for (unsigned i = 0; i < 4; i++)
        buf_free(&first[i]);
    sim_free(s);

    s = sim_new(40);
    sim_proposals(&s->node[0].peers[0].ike, PROTOCOL_IKE, "aes128gcm16-prfsha256-x25519-ecp256");
    s->hook = keep_first_messages;
    s->hook_ctx = first;
    sim_start_engines(s, NULL);
    ike_up(s->node[0].e, &s->node[0].peers[0], NULL, 1, s->now);
    sim_for(s, 20 * NS_PER_MS);
    answer_first(s, &first[0], 0, NOTIFY_INVALID_KE_PAYLOAD, span_of(group, 2));
    assert_true(first[1].len);
    answer_first(s, &first[1], 0, NOTIFY_COOKIE, span_of(cookie, sizeof cookie));
    assert_true(first[2].len);
    struct ike_message m;
    uint8_t copy[2048];
    sa_of(&first[2], copy, &m);
    assert_int_equal(m.ke_group, KE_ECP_256);
    assert_int_equal(m.notify[0].type, NOTIFY_COOKIE);
    for (unsigned i = 0; i < 4; i++)
        buf_free(&first[i]);
    sim_free(s);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(wrong_group_is_answered_with_the_right_one),
        T(key_exchange_values_that_are_none_are_refused),
        T(every_group_number_is_survived),
        T(error_notify_in_a_request_is_ignored),
        T(payloads_in_any_order_are_accepted),
        T(minor_version_and_version_flag_are_ignored),
        T(ikev1_is_not_answered_with_an_sa),
        T(unknown_payloads_are_skipped),
        T(unknown_critical_payloads_reject_the_message),
        T(critical_bit_of_known_payloads_is_ignored),
        T(each_transform_is_missed),
        T(wrong_or_mangled_cookie_is_as_none),
        T(cookie_that_nobody_asked_for_is_ignored),
        T(auth_covers_reserved_bits_of_the_identity),
        T(eap_is_refused_and_named),
        T(bad_auth_is_refused_and_forgotten),
        T(initial_contact_counts_in_ike_auth_only),
        T(rekey_of_an_unknown_child_is_told),
        T(rekey_of_a_child_being_closed_is_put_off),
        T(crossing_deletes_are_answered_without_one),
        T(delete_of_a_child_being_rekeyed_is_normal),
        T(ike_rekey_during_a_child_exchange_is_put_off),
        T(child_exchange_during_an_ike_rekey_is_put_off),
        T(ike_delete_during_a_rekey_is_answered),
        T(temporary_failure_is_not_retried_at_once),
        T(no_additional_sas_makes_all_anew),
        T(child_not_found_makes_it_anew),
        T(empty_request_has_an_empty_answer),
        T(delete_names_and_gets_the_pair),
        T(mixed_and_oversized_deletes_are_survived),
        T(repeated_request_gets_the_identical_answer),
        T(message_ids_outside_the_window_are_not_acknowledged),
        T(answer_to_nothing_is_ignored),
        T(retransmission_stops_once_answered),
        T(message_ids_running_out_rekey_the_ike_sa),
        T(only_silence_declares_a_peer_dead),
        T(invalid_ke_is_followed_with_the_full_offer),
        T(cookie_is_returned_first_and_whole),
        T(cookie_and_wrong_group_in_one_attempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
