/* Windows above one (RFC 7296 section 2.3): requests of the peer at once, out of order, repeated, and too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/impostor.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define NONE span_of(NULL, 0)

/* An established SA where each end allows so many requests; then an impostor stands in for A. Its next number is 2. */
static struct impostor *taken_over(unsigned window)
{
    struct sim *s = sim_new(window);
    A->peers[0].window = B->peers[0].window = window;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    return impostor_start(s, 0);
}

static void finish(struct impostor *c)
{
    struct sim *s = c->s;
    impostor_end(c);
    sim_free(s);
}

static uint64_t count(const struct impostor *c, enum stat_id id)
{
    return stat_get(&c->s->node[1 - c->as].stats, id);
}

static void ask(struct impostor *c, uint32_t id)
{
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, id, PAYLOAD_NONE, NONE, 0, 0);
}

/* That the n'th thing it sent is the answer to that request. */
static void answered(const struct impostor *c, unsigned n, uint32_t id)
{
    assert_true(n < c->n);
    assert_int_equal(c->seen[n].m.h.message_id, id);
    assert_true(c->seen[n].m.h.flags & IKE_FLAG_RESPONSE);
    assert_true(c->seen[n].m.opened);
}

static void a_window_of_one_takes_the_next_request_alone(void **state)
{
    (void)state;
    struct impostor *c = taken_over(1);
    static const uint32_t outside[] = {0, 1, 3, 4, 34, UINT32_MAX - 1, UINT32_MAX};
    for (unsigned i = 0; i < sizeof outside / sizeof *outside; i++) {
        uint64_t dropped = count(c, STAT_DROP_IKE_MSGID);
        ask(c, outside[i]);
        if (outside[i] != 1) { /* the answer to 1 is kept */
            assert_int_equal(count(c, STAT_DROP_IKE_MSGID), dropped + 1);
            assert_int_equal(c->n, 0);
        }
        c->n = 0;
    }
    ask(c, 2);
    answered(c, 0, 2);
    ask(c, 3);
    answered(c, 1, 3);
    assert_int_equal(c->n, 2);
    finish(c);
}

static void requests_out_of_order_are_answered_by_number(void **state)
{
    (void)state;
    struct impostor *c = taken_over(4);
    ask(c, 6); /* beyond the window: 2 to 5 */
    ask(c, 3);
    ask(c, 5);
    ask(c, 4);
    ask(c, 4);
    ask(c, 3);
    assert_int_equal(c->n, 0);
    assert_int_equal(count(c, STAT_DROP_IKE_MSGID), 3);
    ask(c, 2);
    assert_int_equal(c->n, 4);
    for (unsigned i = 0; i < 4; i++)
        answered(c, i, 2 + i);
    ask(c, 6);
    answered(c, 4, 6);
    finish(c);
}

/* As many answers are kept as there may be requests, and repeated bit for bit; older ones are gone. */
static void repeats_are_answered_identically(void **state)
{
    (void)state;
    for (unsigned window = 1; window <= WINDOW_MAX; window = window == 1 ? 5 : window + 27) {
        struct impostor *c = taken_over(window);
        for (uint32_t id = 2; id < 2 + 40; id++) {
            c->n = 0;
            ask(c, id);
            answered(c, 0, id);
            assert_int_equal(c->n, 1);
            uint32_t oldest = id - window + 1;
            for (uint32_t again = id >= 2 + window ? oldest - 1 : 2; again <= id; again++) {
                c->n = 1;
                ask(c, again);
                assert_int_equal(c->n, again >= oldest || id < 1 + window ? 2 : 1);
                if (c->n == 2)
                    answered(c, 1, again);
            }
            c->n = 1;
            ask(c, id);
            assert_int_equal(c->seen[0].len, c->seen[1].len);
            assert_memory_equal(c->seen[0].data, c->seen[1].data, c->seen[0].len);
        }
        finish(c);
    }
}

static void a_repeat_is_answered_while_a_later_one_is_awaited(void **state)
{
    (void)state;
    struct impostor *c = taken_over(4);
    ask(c, 2);
    ask(c, 4);
    ask(c, 2);
    answered(c, 1, 2);
    assert_int_equal(c->n, 2);
    assert_memory_equal(c->seen[0].data, c->seen[1].data, c->seen[0].len);
    ask(c, 3);
    answered(c, 2, 3);
    answered(c, 3, 4);
    finish(c);
}

static void what_is_not_authentic_is_not_held(void **state)
{
    (void)state;
    struct impostor *c = taken_over(4);
    uint8_t out[200];
    size_t len = impostor_make(c, out, sizeof out, EXCHANGE_INFORMATIONAL, 0, 3, 0, NONE, 0, 0);
    out[len - 3] ^= 1;
    impostor_inject(c, out, len);
    assert_int_equal(count(c, STAT_DROP_IKE_AUTH), 1);
    ask(c, 2);
    assert_int_equal(c->n, 1);
    ask(c, 3);
    answered(c, 1, 3);
    finish(c);
}

/* The rekey of the IKE SA takes a key exchange: what comes meanwhile waits. */
static void later_requests_wait_for_a_slow_one(void **state)
{
    (void)state;
    struct impostor *c = taken_over(4);
    struct sim *s = c->s;
    static uint8_t out[2048], nonce[32] = {1}, ke[32] = {9};
    struct ike_builder b;
    struct ike_header h = {.spi_i = 1};
    ike_begin(&b, out, sizeof out, &h);
    proposal_put_offer(&b, &A->peers[0].ike, 0x1122334455667788, 8);
    ike_put(&b, PAYLOAD_NONCE, span_of(nonce, sizeof nonce));
    ike_put_ke(&b, KE_CURVE25519, span_of(ke, sizeof ke));
    struct span chain = span_of(out + IKE_HEADER_LEN, writer_len(&b.w) - IKE_HEADER_LEN);
    ask(c, 3);
    impostor_send(c, EXCHANGE_CREATE_CHILD_SA, 0, 2, PAYLOAD_SA, chain, 0, 0);
    ask(c, 4);
    impostor_send(c, EXCHANGE_CREATE_CHILD_SA, 0, 2, PAYLOAD_SA, chain, 0, 0);
    assert_int_equal(c->n, 0);
    sim_for(s, 50 * NS_PER_MS);
    assert_int_equal(c->n, 3);
    answered(c, 0, 2);
    assert_true(c->seen[0].m.ke.len == 32);
    answered(c, 1, 3);
    answered(c, 2, 4);
    finish(c);
}

/* Whoever deletes the SA first and asks later gets no answer to what is behind the Delete, and nothing breaks. */
static void nothing_is_served_after_the_sa_is_gone(void **state)
{
    (void)state;
    struct impostor *c = taken_over(8);
    struct sim *s = c->s;
    static const uint8_t delete_ike[] = {0, 0, 0, 8, PROTOCOL_IKE, 0, 0, 0};
    ask(c, 3);
    ask(c, 5);
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 4, PAYLOAD_DELETE, span_of(delete_ike, sizeof delete_ike), 0, 0);
    ask(c, 2);
    assert_int_equal(c->n, 3);
    answered(c, 2, 4);
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
    finish(c);
}

/* A malformed request ends the SA when its turn comes, not before. */
static void malformed_ones_wait_for_their_turn(void **state)
{
    (void)state;
    struct impostor *c = taken_over(8);
    struct sim *s = c->s;
    static const uint8_t cut[] = {0, 0, 0, 99};
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 3, PAYLOAD_NOTIFY, span_of(cut, sizeof cut), 0, 0);
    assert_int_equal(c->n, 0);
    ask(c, 2);
    assert_int_equal(c->n, 2);
    answered(c, 1, 3);
    assert_non_null(ike_find_notify(&c->seen[1].m, NOTIFY_INVALID_SYNTAX));
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
    finish(c);
}

static void held_requests_are_bounded(void **state)
{
    (void)state;
    struct impostor *c = taken_over(32);
    static uint8_t filler[30000] = {0, 0, 30000 >> 8, 30000 & 255};
    for (uint32_t id = 3; id < 6; id++)
        impostor_send(c, EXCHANGE_INFORMATIONAL, 0, id, PAYLOAD_VENDOR, span_of(filler, sizeof filler), 0, 0);
    assert_int_equal(count(c, STAT_DROP_IKE_LIMIT), 1);
    ask(c, 2);
    assert_int_equal(c->n, 3);
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 5, PAYLOAD_VENDOR, span_of(filler, sizeof filler), 0, 0);
    answered(c, 3, 5);
    for (uint32_t id = 7; id < 9; id++) /* what was served no longer counts */
        impostor_send(c, EXCHANGE_INFORMATIONAL, 0, id, PAYLOAD_VENDOR, span_of(filler, sizeof filler), 0, 0);
    ask(c, 6);
    assert_int_equal(c->n, 7);
    finish(c);
}

/* -- announcements -- */

struct heard { /* both IKE_AUTH messages */
    unsigned n;
    size_t len[2];
    uint8_t data[2][1024];
};

static enum sim_fate hear_auth(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct heard *h = ctx;
    (void)s;
    if (p->keepalive || p->data[18] != EXCHANGE_AUTH || h->n == 2)
        return SIM_DELIVER;
    assert_true(p->len <= sizeof h->data[0]);
    memcpy(h->data[h->n], p->data, p->len);
    h->len[h->n++] = p->len;
    return SIM_DELIVER;
}

/* What a message announces; 0: nothing. */
static uint32_t announced(struct sim *s, uint8_t *data, size_t len)
{
    uint8_t key[IMPOSTOR_KEY];
    struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
    struct ike_message m;
    struct suite suite;
    struct keyed *open;
    struct span text;
    assert_true(impostor_keys(s, data, key));
    assert_int_equal(suite_of(&gcm, NULL, &suite), OK);
    assert_int_equal(keyed_new(&open, &suite, TRANSFORM_OPEN, NULL, span_of(key, sizeof key), NONE), OK);
    assert_int_equal(ike_message_parse(span_of(data, len), &m), OK);
    assert_int_equal(ike_open_sk(data, &m, &suite, open, &text), OK);
    assert_int_equal(ike_inner_parse(m.sk_first, text, &m), OK);
    keyed_free(open);
    const struct ike_notify *n = ike_find_notify(&m, NOTIFY_SET_WINDOW_SIZE);
    assert_true(!n || n->data.len == 4);
    return n ? get_be32(n->data.data) : 0;
}

static void both_ends_announce_theirs_in_ike_auth(void **state)
{
    (void)state;
    struct sim *s = sim_new(3);
    struct heard h = {0};
    s->hook = hear_auth;
    s->hook_ctx = &h;
    A->peers[0].window = 7;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    assert_int_equal(h.n, 2);
    assert_int_equal(announced(s, h.data[0], h.len[0]), 7);
    assert_int_equal(announced(s, h.data[1], h.len[1]), 0); /* one is what it is anyway */
    sim_free(s);
    s = sim_new(4);
    h.n = 0;
    s->hook = hear_auth;
    s->hook_ctx = &h;
    B->peers[0].window = 32;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    assert_int_equal(announced(s, h.data[0], h.len[0]), 0);
    assert_int_equal(announced(s, h.data[1], h.len[1]), 32);
    sim_free(s);
}

static void a_rekeyed_sa_starts_with_one_until_announced(void **state)
{
    (void)state;
    struct sim *s = sim_new(5);
    B->peers[0].window = 4;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    ike_rekey(A->e, &A->peers[0], NULL, 2, s->now);
    sim_for(s, NS_PER_S);
    assert_sim(sim_up(s));
    struct impostor *c = impostor_start(s, 0);
    ask(c, 1);
    assert_int_equal(count(c, STAT_DROP_IKE_MSGID), 1);
    ask(c, 0);
    answered(c, 0, 0);
    assert_non_null(ike_find_notify(&c->seen[0].m, NOTIFY_SET_WINDOW_SIZE));
    ask(c, 2);
    ask(c, 1);
    answered(c, 1, 1);
    answered(c, 2, 2);
    assert_null(ike_find_notify(&c->seen[1].m, NOTIFY_SET_WINDOW_SIZE)); /* said once */
    finish(c);
}

/* Whatever the peer allows, and however it says it: one request of ours at a time. */
static void the_peers_window_is_respected(void **state)
{
    (void)state;
    static const struct {
        uint8_t len, data[5];
    } sizes[] = {{4, {0, 0, 0, 32}},   {4, {0}}, {4, {255, 255, 255, 255}}, {3, {0, 0, 9}},
                 {5, {0, 0, 0, 0, 1}}, {0, {0}}};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct impostor *c = taken_over(1);
        struct sim *s = c->s;
        uint8_t notify[4 + 4 + 5] = {
            0, 0, 0, (uint8_t)(8 + sizes[i].len), 0, 0, NOTIFY_SET_WINDOW_SIZE >> 8, NOTIFY_SET_WINDOW_SIZE & 255};
        memcpy(notify + 8, sizes[i].data, sizes[i].len);
        impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 2, PAYLOAD_NOTIFY, span_of(notify, 8u + sizes[i].len), 0, 0);
        answered(c, 0, 2);
        assert_null(ike_find_error(&c->seen[0].m));
        ike_rekey(B->e, &B->peers[0], &B->policies[0], 5, s->now);
        ike_rekey(B->e, &B->peers[0], NULL, 6, s->now);
        ike_down(B->e, &B->peers[0], &B->policies[0], 7, s->now);
        sim_for(s, 900 * NS_PER_MS);
        assert_int_equal(c->n, 2); /* the first one waits for its answer */
        ask(c, 3);                 /* and a request of the peer is served meanwhile */
        answered(c, 2, 3);
        finish(c);
    }
}

static void an_answer_is_kept_when_the_window_widens(void **state)
{
    (void)state;
    struct msgid_in in = {.expected = 6, .window = 1};
    struct msgid_out out = {0};
    assert_int_equal(buf_set(msgid_flight(&in, 5), span_of("answer", 6)), OK);
    assert_int_equal(msgid_widen(&in, 4), OK);
    assert_int_equal(msgid_judge(&in, 5), MSGID_REPEAT);
    assert_true(span_equal(buf_span(msgid_flight(&in, 5)), span_of("answer", 6)));
    assert_int_equal(msgid_judge(&in, 4), MSGID_OUTSIDE); /* there never was one of it */
    assert_int_equal(msgid_judge(&in, 9), MSGID_FRESH);
    assert_int_equal(msgid_judge(&in, 10), MSGID_OUTSIDE);
    msgid_free(&in, &out);
}

/* -- numbers come to an end -- */

static void numbers_do_not_start_over(void **state)
{
    (void)state;
    struct msgid_in in = {.expected = UINT32_MAX - 1, .window = 4};
    assert_int_equal(msgid_judge(&in, UINT32_MAX - 1), MSGID_FRESH);
    assert_int_equal(msgid_judge(&in, UINT32_MAX), MSGID_OUTSIDE);
    assert_int_equal(msgid_judge(&in, 0), MSGID_OUTSIDE);
    msgid_accept(&in, &(struct path){0});
    msgid_answer(&in);
    assert_int_equal(msgid_judge(&in, UINT32_MAX), MSGID_OUTSIDE);
    assert_int_equal(msgid_judge(&in, 0), MSGID_OUTSIDE);
}

static void an_sa_with_many_requests_behind_it_is_rekeyed(void **state)
{
    (void)state;
    for (unsigned who = 0; who < 2; who++) {
        struct sim *s = sim_new(who);
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        struct ike_sa *from = s->node[who].e->sas, *to = s->node[1 - who].e->sas;
        from->tx.next = to->rx.expected = MESSAGE_ID_SOFT; /* not yet */
        sim_for(s, 3 * NS_PER_S);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_REKEYED) + sim_count(B, IKE_EVENT_IKE_REKEYED), 0);
        to->rx.expected++;
        from->tx.next++;
        sim_for(s, 3 * NS_PER_S);
        assert_true(sim_count(A, IKE_EVENT_IKE_REKEYED) >= 1 && sim_count(B, IKE_EVENT_IKE_REKEYED) >= 1);
        assert_sim(sim_up(s));
        sim_free(s);
    }
}

/* The receiver notices by itself, should the sender not mind. */
static void the_receiver_rekeys_when_the_sender_does_not(void **state)
{
    (void)state;
    struct impostor *c = taken_over(1);
    struct sim *s = c->s;
    B->e->sas->rx.expected = MESSAGE_ID_SOFT + 1;
    sim_for(s, 2 * NS_PER_S);
    assert_true(c->n >= 1);
    assert_int_equal(c->seen[0].m.h.exchange, EXCHANGE_CREATE_CHILD_SA);
    assert_false(c->seen[0].m.tsi.present);
    finish(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_of_one_takes_the_next_request_alone),
        cmocka_unit_test(requests_out_of_order_are_answered_by_number),
        cmocka_unit_test(repeats_are_answered_identically),
        cmocka_unit_test(a_repeat_is_answered_while_a_later_one_is_awaited),
        cmocka_unit_test(what_is_not_authentic_is_not_held),
        cmocka_unit_test(later_requests_wait_for_a_slow_one),
        cmocka_unit_test(nothing_is_served_after_the_sa_is_gone),
        cmocka_unit_test(malformed_ones_wait_for_their_turn),
        cmocka_unit_test(held_requests_are_bounded),
        cmocka_unit_test(both_ends_announce_theirs_in_ike_auth),
        cmocka_unit_test(a_rekeyed_sa_starts_with_one_until_announced),
        cmocka_unit_test(the_peers_window_is_respected),
        cmocka_unit_test(an_answer_is_kept_when_the_window_widens),
        cmocka_unit_test(numbers_do_not_start_over),
        cmocka_unit_test(an_sa_with_many_requests_behind_it_is_rekeyed),
        cmocka_unit_test(the_receiver_rekeys_when_the_sender_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
