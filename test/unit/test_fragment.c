/* IKE fragmentation (RFC 7383): messages cut and put together, lost and shuffled, and fragments that mean harm. */
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
#define SMALL ((struct ike_limits){.datagram = 200})

/* -- one message, cut and joined -- */

static const uint8_t key[64] = {1, 2, 3}, integ_key[64] = {4, 5, 6};
static const struct ike_header head = {.spi_i = 1, .spi_r = 2, .exchange = EXCHANGE_AUTH, .flags = 8, .message_id = 1};

struct ends {
    struct suite suite;
    struct keyed *seal, *open;
    uint64_t iv;
};

static void next_iv(void *ctx, uint8_t iv[TRANSFORM_IV_MAX])
{
    struct ends *e = ctx;
    memset(iv, 0, TRANSFORM_IV_MAX);
    put_be64(iv, ++e->iv);
}

static struct ends ends_of(bool aead)
{
    struct ends e = {.iv = 1000};
    struct transform encr = {TRANSFORM_ENCR, aead ? ENCR_AES_GCM_16 : ENCR_AES_CBC, 128};
    struct transform integ = {TRANSFORM_INTEG, aead ? INTEG_NONE : INTEG_HMAC_SHA2_256_128, 0};
    assert_int_equal(suite_of(&encr, &integ, &e.suite), OK);
    struct span k = span_of(key, e.suite.encr_key_len), ik = span_of(integ_key, e.suite.integ_key_len);
    assert_int_equal(keyed_new(&e.seal, &e.suite, TRANSFORM_SEAL, NULL, k, ik), OK);
    assert_int_equal(keyed_new(&e.open, &e.suite, TRANSFORM_OPEN, NULL, k, ik), OK);
    return e;
}

static void ends_free(struct ends *e)
{
    keyed_free(e->seal);
    keyed_free(e->open);
}

/* A vendor ID of so many bytes and a Delete, sealed into messages of at most max bytes. */
static enum err sealed(struct ends *e, size_t filler, size_t max, struct buf *flight)
{
    static uint8_t out[IKE_MESSAGE_MAX], text[IKE_MESSAGE_MAX];
    uint8_t iv[TRANSFORM_IV_MAX];
    struct ike_builder b;
    static const uint32_t spi = 0xabcdef01;
    struct fragment_sealer f = {.suite = &e->suite, .key = e->seal, .max = max, .iv = next_iv, .ctx = e};
    for (size_t i = 0; i < filler; i++)
        text[i] = (uint8_t)(i * 7 + i / 256);
    next_iv(e, iv);
    ike_begin(&b, out, sizeof out, &head);
    ike_begin_sk(&b, &e->suite, span_of(iv, e->suite.iv_len));
    ike_put(&b, PAYLOAD_VENDOR, span_of(text, filler));
    ike_put_delete(&b, PROTOCOL_ESP, &spi, 1);
    return fragment_seal(&b, &f, flight);
}

/* What a receiver makes of a flight that comes in the order of `step`; returns how many messages it was. */
static unsigned joined(const struct ends *e, struct span flight, size_t max, size_t filler, unsigned step)
{
    static uint8_t copy[IKE_MESSAGE_MAX], whole[IKE_MESSAGE_MAX];
    struct span part[FRAGMENTS_MAX], text;
    struct ike_message m;
    struct fragments *set = NULL;
    unsigned n = 0;
    while (flight.len) {
        assert_true(n < FRAGMENTS_MAX);
        part[n++] = flight_next(&flight);
        assert_true(part[n - 1].len <= max);
    }
    for (unsigned i = 0, at = 0; i < n; i++, at = (at + step) % n) {
        memcpy(copy, part[at].data, part[at].len);
        assert_int_equal(ike_message_parse(span_of(copy, part[at].len), &m), OK);
        assert_int_equal(m.sk_first, at == 0 ? PAYLOAD_VENDOR : PAYLOAD_NONE);
        assert_memory_equal(copy, part[0].data, 16);          /* the header as it was but for next payload … */
        assert_memory_equal(copy + 17, part[0].data + 17, 7); /* … and length */
        assert_int_equal(ike_open_sk(copy, &m, &e->suite, e->open, &text), OK);
        if (n == 1)
            break;
        assert_int_equal(copy[16], PAYLOAD_SKF);
        assert_int_equal(m.fragment, at + 1);
        assert_int_equal(m.fragments, n);
        assert_true(fragment_wanted(set, &m));
        assert_int_equal(fragment_keep(&set, &m, text, 0), OK);
        assert_int_equal(fragments_join(&set, whole, &m, &text), i + 1 == n);
    }
    assert_null(set);
    assert_int_equal(ike_inner_parse(m.sk_first, text, &m), OK);
    assert_int_equal(m.h.message_id, 1);
    assert_int_equal(m.dels, 1);
    assert_int_equal(m.del[0].spi[0], 0xabcdef01);
    assert_int_equal(text.len, 4 + filler + 12);
    for (size_t i = 0; i < filler; i++)
        assert_int_equal(text.data[4 + i], (uint8_t)(i * 7 + i / 256));
    return n;
}

static void messages_of_every_size_are_cut_and_joined(void **state)
{
    (void)state;
    for (int aead = 0; aead < 2; aead++) {
        struct ends e = ends_of(aead);
        struct buf flight = {NULL, 0, 0};
        for (size_t max = 140; max < 1300; max += max < 160 ? 1 : 271)
            for (size_t filler = 0; filler < 3000; filler += filler < 300 ? 1 : 97) {
                assert_int_equal(sealed(&e, filler, max, &flight), OK);
                unsigned n = joined(&e, buf_span(&flight), max, filler, 1);
                joined(&e, buf_span(&flight), max, filler,
                       n - 1 ? n - 1 : 1); /* the first one first, the rest backwards */
                if (n == 1)                /* whole wherever it fits */
                    assert_int_equal(flight.data[16], PAYLOAD_SK);
            }
        buf_free(&flight);
        ends_free(&e);
    }
}

static void each_fragment_has_its_own_iv(void **state)
{
    (void)state;
    struct ends e = ends_of(true);
    struct buf flight = {NULL, 0, 0};
    assert_int_equal(sealed(&e, 2000, 140, &flight), OK);
    struct span rest = buf_span(&flight);
    uint64_t last = 0;
    while (rest.len) {
        struct span m = flight_next(&rest);
        uint64_t iv = get_be64(m.data + IKE_HEADER_LEN + 8);
        assert_true(iv > last);
        last = iv;
    }
    buf_free(&flight);
    ends_free(&e);
}

static void limits_of_cutting(void **state)
{
    (void)state;
    struct ends e = ends_of(true);
    struct buf flight = {NULL, 0, 0};
    assert_int_equal(sealed(&e, 3000, SIZE_MAX, &flight), OK); /* not negotiated */
    assert_int_equal(joined(&e, buf_span(&flight), SIZE_MAX, 3000, 1), 1);
    size_t len = flight.len;
    assert_int_equal(sealed(&e, 60000, 140, &flight), ERR_FULL);
    assert_int_equal(sealed(&e, 60000, 60, &flight), ERR_FULL); /* no room for a single byte */
    assert_int_equal(flight.len, len);
    assert_int_equal(sealed(&e, 65400, 1248, &flight), OK); /* the longest there is, at the usual size */
    assert_true(joined(&e, buf_span(&flight), 1248, 65400, 1) <= FRAGMENTS_MAX);
    assert_int_equal(sealed(&e, 65400, 1228, &flight), OK); /* and with IPv6 and a marker */
    buf_free(&flight);
    ends_free(&e);
}

static void room_is_what_ip_udp_and_marker_leave(void **state)
{
    (void)state;
    struct path v4 = {.remote.ip.family = 4}, v6 = {.remote.ip.family = 6, .marker = true};
    assert_int_equal(fragment_room(&v4, 1280), 1280 - 20 - 8);
    assert_int_equal(fragment_room(&v6, 1280), 1280 - 40 - 8 - 4);
    assert_int_equal(fragment_room(&v6, 20), 0);
}

static struct ike_message fragment(uint16_t number, uint16_t total)
{
    return (struct ike_message){.h = head, .fragment = number, .fragments = total, .sk_first = PAYLOAD_VENDOR};
}

static void content_is_bounded_by_what_a_message_can_be(void **state)
{
    (void)state;
    static uint8_t text[IKE_MESSAGE_MAX];
    struct fragments *set = NULL;
    struct ike_message m = fragment(1, 3);
    assert_int_equal(fragment_keep(&set, &m, span_of(text, 65000), 0), OK);
    m = fragment(2, 3);
    assert_int_equal(fragment_keep(&set, &m, span_of(text, 536), 0), ERR_RANGE);
    assert_int_equal(fragment_keep(&set, &m, span_of(text, 535), 0), OK);
    m = fragment(3, 3);
    assert_int_equal(fragment_keep(&set, &m, span_of(text, 1), 0), ERR_RANGE);
    assert_int_equal(fragment_keep(&set, &m, NONE, 0), OK); /* an empty one is one all the same */
    static uint8_t out[IKE_MESSAGE_MAX];
    struct span whole;
    assert_true(fragments_join(&set, out, &m, &whole));
    assert_int_equal(whole.len, IKE_MESSAGE_MAX);
}

/* -- two engines -- */

struct wire {
    unsigned fragments, whole; /* protected messages seen */
    size_t longest;
    unsigned notifies; /* IKE_SA_INIT messages that speak of fragmentation */
};

static enum sim_fate watch(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct wire *w = ctx;
    struct ike_message m;
    (void)s;
    if (p->keepalive || ike_message_parse(span_of(p->data, p->len), &m) != OK)
        return SIM_DELIVER;
    if (m.h.exchange == EXCHANGE_SA_INIT)
        w->notifies += ike_find_notify(&m, NOTIFY_FRAGMENTATION_SUPPORTED) != NULL;
    else if (m.seen & PAYLOAD_BIT(PAYLOAD_SKF))
        w->fragments++;
    else
        w->whole++;
    if (m.h.exchange != EXCHANGE_SA_INIT && p->len > w->longest)
        w->longest = p->len;
    return SIM_DELIVER;
}

static bool negotiated;
static void note_sa(void *ctx, const struct ike_sa_info *info)
{
    (void)ctx;
    negotiated = info->fragmentation;
}

static void both_must_have_said_it(void **state)
{
    (void)state;
    for (unsigned who = 0; who < 4; who++) {
        struct sim *s = sim_new(who);
        struct wire w = {0};
        s->hook = watch;
        s->hook_ctx = &w;
        A->peers[0].fragmentation = who & 1;
        B->peers[0].fragmentation = who & 2;
        sim_start_engines(s, &SMALL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        /* An answer says it only to who asked. */
        assert_int_equal(w.notifies, who == 3 ? 2 : who & 1 ? 1 : 0);
        assert_int_equal(w.fragments > 0, who == 3);
        if (who == 3)
            assert_true(w.fragments >= 4 && w.longest <= 200 - 32);
        for (unsigned k = 0; k < 2; k++) {
            ike_each_sa(s->node[k].e, note_sa, NULL);
            assert_int_equal(negotiated, who == 3);
        }
        sim_free(s);
    }
}

/* Says on B's behalf, in its IKE_SA_INIT response, what it has not said. */
static enum sim_fate say_it(struct sim *s, struct sim_packet *p, void *ctx)
{
    static const uint8_t notify[] = {
        0, 0, 0, 8, 0, 0, NOTIFY_FRAGMENTATION_SUPPORTED >> 8, NOTIFY_FRAGMENTATION_SUPPORTED & 255};
    if (p->keepalive || p->from != 1 || p->data[18] != EXCHANGE_SA_INIT)
        return watch(s, p, ctx);
    uint8_t *longer = malloc(p->len + sizeof notify);
    memcpy(longer, p->data, IKE_HEADER_LEN);
    memcpy(longer + IKE_HEADER_LEN, notify, sizeof notify);
    memcpy(longer + IKE_HEADER_LEN + sizeof notify, p->data + IKE_HEADER_LEN, p->len - IKE_HEADER_LEN);
    longer[IKE_HEADER_LEN] = longer[16]; /* the first payload before it */
    longer[16] = PAYLOAD_NOTIFY;
    p->len += sizeof notify;
    put_be32(longer + 24, (uint32_t)p->len);
    free(p->data);
    p->data = longer;
    return watch(s, p, ctx);
}

static void said_without_being_asked_it_means_nothing(void **state)
{
    (void)state;
    struct sim *s = sim_new(4);
    struct wire w = {0};
    s->hook = say_it;
    s->hook_ctx = &w;
    A->peers[0].fragmentation = false;
    sim_start_engines(s, &SMALL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_int_equal(w.notifies, 1);
    assert_true(w.whole >= 1);
    assert_int_equal(w.fragments, 0);
    sim_free(s);
}

/* A successor keeps what was negotiated, and short messages stay whole. */
static void whole_life_in_fragments(void **state)
{
    (void)state;
    struct sim *s = sim_new(1);
    struct wire w = {0};
    sim_start_engines(s, &SMALL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    s->hook = watch;
    s->hook_ctx = &w;
    ike_rekey(A->e, &A->peers[0], NULL, 2, s->now);
    sim_for(s, NS_PER_S);
    assert_sim(sim_up(s));
    unsigned before = w.fragments;
    ike_rekey(B->e, &B->peers[0], &B->policies[0], 3, s->now);
    sim_for(s, NS_PER_S);
    assert_sim(sim_up(s) && sim_command(A, 2)->ok && sim_command(B, 3)->ok);
    assert_true(before >= 2 && w.fragments >= before + 2);
    assert_int_equal(w.whole, 4); /* the Deletes, and the answers to them */
    assert_int_equal(stat_get(&A->stats, STAT_DROP_IKE_FRAGMENT) + stat_get(&B->stats, STAT_DROP_IKE_FRAGMENT), 0);
    sim_free(s);
}

/* Fragments lost, doubled and shuffled: what came is kept, and a retransmission brings what is missing. */
static void fragments_survive_the_network(void **state)
{
    (void)state;
    unsigned up = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        struct sim *s = sim_new(seed);
        A->peers[0].start = START_YES;
        A->peers[0].window = B->peers[0].window = seed % 8 + 1;
        s->loss = seed % 3 * 10;
        s->duplicate = 20;
        s->reorder = 30;
        s->jitter = 5 * NS_PER_MS;
        sim_start_engines(s, &(struct ike_limits){.datagram = 150 + seed});
        ike_start(A->e, s->now);
        up += sim_run(s, s->now + 60 * NS_PER_S, sim_up);
        sim_for(s, 5 * NS_PER_S);
        ike_rekey(A->e, &A->peers[0], &A->policies[0], 2, s->now);
        ike_rekey(B->e, &B->peers[0], NULL, 3, s->now);
        sim_for(s, 100 * NS_PER_S);
        s->loss = s->duplicate = s->reorder = 0;
        sim_for(s, 150 * NS_PER_S);
        assert_sim(sim_both(s) && sim_agree(s));
        ike_shutdown(A->e, s->now);
        ike_shutdown(B->e, s->now);
        assert_sim(sim_run(s, s->now + 150 * NS_PER_S, sim_empty));
        sim_free(s);
    }
    assert_true(up >= 55); /* with a fifth lost, ten fragments pass at once with a probability of a tenth */
}

struct sendings { /* of A's IKE_AUTH request */
    unsigned n;
    struct buf all;
};

static enum sim_fate swallow_auth(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct sendings *c = ctx;
    if (p->keepalive || p->from != 0 || p->data[18] != EXCHANGE_AUTH)
        return SIM_DELIVER;
    assert_int_equal(buf_append(&c->all, span_of(p->data, p->len)), OK);
    c->n++;
    (void)s;
    return SIM_DROP;
}

static void retransmission_is_bit_identical(void **state)
{
    (void)state;
    struct sim *s = sim_new(5);
    struct sendings c = {0};
    s->hook = swallow_auth;
    s->hook_ctx = &c;
    sim_start_engines(s, &SMALL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 2 * NS_PER_S);
    assert_true(c.n >= 4 && c.n % 2 == 0);
    assert_memory_equal(c.all.data, c.all.data + c.all.len / 2, c.all.len / 2);
    buf_free(&c.all);
    sim_free(s);
}

/* -- a peer that means harm -- */

static struct impostor *taken_over(uint64_t seed, unsigned as)
{
    struct sim *s = sim_new(seed);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    return impostor_start(s, as);
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

/* An INFORMATIONAL request with a vendor ID, in fragments of 10 bytes: 4 of them. */
static const uint8_t vendor[40] = {0, 0, 0, 40, 1, 2, 3};
static void send_part(struct impostor *c, uint32_t id, uint16_t number, uint16_t total)
{
    size_t size = (sizeof vendor + total - 1u) / total, at = (number - 1u) * size;
    size = at >= sizeof vendor ? 0 : at + size > sizeof vendor ? sizeof vendor - at : size;
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, id, number == 1 ? PAYLOAD_VENDOR : 0, span_of(vendor + at, size),
                  number, total);
}

/* For B the peer in the place of A has sent IKE_SA_INIT and IKE_AUTH: the next request has number 2. */
static void any_order_completes_and_is_answered_once(void **state)
{
    (void)state;
    struct impostor *c = taken_over(1, 0);
    static const uint16_t order[] = {3, 1, 4, 2};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(c->n, 0);
        send_part(c, 2, order[i], 4);
    }
    assert_int_equal(c->n, 1);
    assert_true(c->seen[0].m.h.flags & IKE_FLAG_RESPONSE);
    assert_int_equal(c->seen[0].m.h.message_id, 2);
    /* A retransmission: the first fragment alone is answered, and with the same bytes (section 2.6.1). */
    for (uint16_t n = 2; n <= 4; n++)
        send_part(c, 2, n, 4);
    assert_int_equal(c->n, 1);
    assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 3);
    send_part(c, 2, 1, 4);
    assert_int_equal(c->n, 2);
    assert_memory_equal(c->seen[0].data, c->seen[1].data, c->seen[0].len);
    /* Also when it was cut anew, or comes whole; but not unless it is authentic. */
    send_part(c, 2, 1, 8);
    assert_int_equal(c->n, 3);
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 2, PAYLOAD_VENDOR, span_of(vendor, sizeof vendor), 0, 0);
    assert_int_equal(c->n, 4);
    uint8_t out[200];
    size_t len = impostor_make(c, out, sizeof out, EXCHANGE_INFORMATIONAL, 0, 2, 0, NONE, 1, 1);
    out[len - 1] ^= 1;
    impostor_inject(c, out, len);
    assert_int_equal(c->n, 4);
    assert_int_equal(count(c, STAT_DROP_IKE_AUTH), 1);
    finish(c);
}

static void numbers_out_of_range_are_dropped(void **state)
{
    (void)state;
    struct impostor *c = taken_over(2, 0);
    static const uint16_t bad[][2] = {{0, 0}, {0, 4}, {1, 0}, {5, 4}, {65535, 4}, {1, 65}, {65, 65}, {65535, 65535}};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t out[200];
        /* impostor_make takes 0 of 0 for SK: the numbers are put in by hand, under a checksum that is right for others. */
        if (bad[i][0] || bad[i][1]) {
            impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 2, 0, NONE, bad[i][0], bad[i][1]);
        } else {
            size_t len = impostor_make(c, out, sizeof out, EXCHANGE_INFORMATIONAL, 0, 2, 0, NONE, 1, 1);
            memset(out + IKE_HEADER_LEN + 4, 0, 4);
            impostor_inject(c, out, len);
        }
        assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), i + 1);
    }
    assert_int_equal(c->n, 0);
    for (uint16_t n = 1; n <= 4; n++) /* none of it stands in the way */
        send_part(c, 2, n, 4);
    assert_int_equal(c->n, 1);
    for (uint16_t n = 1; n <= 64; n++)
        send_part(c, 3, n, 64);
    assert_int_equal(c->n, 2);
    finish(c);
}

static void fewer_are_dropped_and_more_start_over(void **state)
{
    (void)state;
    struct impostor *c = taken_over(3, 0);
    send_part(c, 2, 1, 4);
    send_part(c, 2, 2, 4);
    send_part(c, 2, 1, 2);
    send_part(c, 2, 2, 2); /* a set by itself, were the first one forgotten */
    assert_int_equal(c->n, 0);
    assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 2);
    send_part(c, 2, 5, 5);
    send_part(c, 2, 3, 4); /* of the set that was replaced */
    send_part(c, 2, 4, 4);
    assert_int_equal(c->n, 0);
    assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 4);
    for (uint16_t n = 1; n <= 4; n++) {
        assert_int_equal(c->n, 0);
        send_part(c, 2, n, 5);
    }
    assert_int_equal(c->n, 1);
    finish(c);
}

/* A larger total that is not authentic must not throw away what has come. */
static void nothing_is_kept_or_replaced_unauthenticated(void **state)
{
    (void)state;
    struct impostor *c = taken_over(4, 0);
    uint8_t out[200];
    send_part(c, 2, 1, 4);
    send_part(c, 2, 2, 4);
    static const uint16_t number[] = {3, 4, 1, 64}, total[] = {4, 4, 9, 64};
    for (unsigned i = 0; i < 4; i++) {
        size_t len = impostor_make(c, out, sizeof out, EXCHANGE_INFORMATIONAL, 0, 2, 0, NONE, number[i], total[i]);
        out[len - 1 - i] ^= 4;
        impostor_inject(c, out, len);
        len = impostor_make(c, out, sizeof out, EXCHANGE_INFORMATIONAL, 0, 2, 0, NONE, 1, 1);
        put_be16(out + IKE_HEADER_LEN + 4, number[i]); /* the numbers are covered by the checksum, too */
        put_be16(out + IKE_HEADER_LEN + 6, total[i]);
        impostor_inject(c, out, len);
    }
    assert_int_equal(count(c, STAT_DROP_IKE_AUTH), 8);
    assert_int_equal(c->n, 0);
    send_part(c, 2, 3, 4);
    send_part(c, 2, 4, 4);
    assert_int_equal(c->n, 1);
    finish(c);
}

static void duplicates_are_ignored(void **state)
{
    (void)state;
    struct impostor *c = taken_over(5, 0);
    for (unsigned i = 0; i < 3; i++)
        for (uint16_t n = 1; n <= 3; n++)
            send_part(c, 2, n, 4);
    assert_int_equal(c->n, 0);
    assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 6);
    send_part(c, 2, 4, 4);
    assert_int_equal(c->n, 1);
    finish(c);
}

static void only_the_next_request_is_put_together(void **state)
{
    (void)state;
    struct impostor *c = taken_over(6, 0);
    static const uint32_t ids[] = {0, 1, 3, 4, UINT32_MAX};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++)
        for (uint16_t n = 2; n <= 4; n++)
            send_part(c, ids[i], n, 4);
    assert_int_equal(count(c, STAT_DROP_IKE_MSGID) + count(c, STAT_DROP_IKE_FRAGMENT), 15);
    /* Another exchange under the same number is no part of it. */
    send_part(c, 2, 1, 4);
    impostor_send(c, EXCHANGE_CREATE_CHILD_SA, 0, 2, 0, NONE, 2, 4);
    assert_int_equal(count(c, STAT_DROP_IKE_MSGID) + count(c, STAT_DROP_IKE_FRAGMENT), 16);
    for (uint16_t n = 2; n <= 4; n++)
        send_part(c, 2, n, 4);
    assert_int_equal(c->n, 1);
    finish(c);
}

/* The window may be wider: fragments of a later request are dropped all the same, and whole ones held. */
static void later_requests_in_fragments_have_to_wait(void **state)
{
    (void)state;
    struct sim *s = sim_new(12);
    B->peers[0].window = 4;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    struct impostor *c = impostor_start(s, 0);
    for (uint16_t n = 1; n <= 4; n++)
        send_part(c, 3, n, 4);
    assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 4);
    send_part(c, 2, 1, 4);
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 4, PAYLOAD_NONE, NONE, 0, 0);
    for (uint16_t n = 2; n <= 4; n++) {
        assert_int_equal(c->n, 0);
        send_part(c, 2, n, 4);
    }
    assert_int_equal(c->n, 1);
    for (uint16_t n = 4; n >= 1; n--)
        send_part(c, 3, n, 4);
    assert_int_equal(c->n, 3); /* it, and the one that was held */
    assert_int_equal(c->seen[2].m.h.message_id, 4);
    finish(c);
}

static void whole_message_beats_its_fragments(void **state)
{
    (void)state;
    struct impostor *c = taken_over(7, 0);
    for (uint16_t n = 1; n <= 3; n++)
        send_part(c, 2, n, 4);
    impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 2, PAYLOAD_VENDOR, span_of(vendor, sizeof vendor), 0, 0);
    assert_int_equal(c->n, 1);
    send_part(c, 2, 4, 4); /* of the answered one: ignored */
    assert_int_equal(c->n, 1);
    for (uint16_t n = 4; n >= 1; n--) { /* and nothing of it is left for the next */
        assert_int_equal(c->n, 1);
        send_part(c, 3, n, 4);
    }
    assert_int_equal(c->n, 2);
    finish(c);
}

static void incomplete_sets_are_forgotten_in_time(void **state)
{
    (void)state;
    struct impostor *c = taken_over(8, 0);
    for (uint16_t n = 1; n <= 3; n++)
        send_part(c, 2, n, 4);
    sim_for(c->s, 28 * NS_PER_S);
    send_part(c, 2, 3, 4);
    assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 1); /* still there */
    sim_for(c->s, 4 * NS_PER_S);
    send_part(c, 2, 4, 4); /* the first of a new set */
    assert_int_equal(c->n, 0);
    for (uint16_t n = 1; n <= 3; n++)
        send_part(c, 2, n, 4);
    assert_int_equal(c->n, 1);
    finish(c);
}

static void dropped_without_negotiation(void **state)
{
    (void)state;
    for (unsigned who = 0; who < 3; who++) {
        struct sim *s = sim_new(9);
        A->peers[0].fragmentation = who & 1;
        B->peers[0].fragmentation = who & 2;
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        struct impostor *c = impostor_start(s, 0);
        for (uint16_t n = 1; n <= 4; n++)
            send_part(c, 2, n, 4);
        assert_int_equal(c->n, 0);
        assert_int_equal(count(c, STAT_DROP_IKE_FRAGMENT), 4);
        impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 2, PAYLOAD_VENDOR, span_of(vendor, sizeof vendor), 0, 0);
        assert_int_equal(c->n, 1);
        finish(c);
    }
}

/* Answers in fragments: put together by who asked, dropped by who did not. */
static void answers_come_in_fragments_too(void **state)
{
    (void)state;
    struct impostor *c = taken_over(10, 1);
    struct sim *s = c->s;
    for (uint16_t n = 1; n <= 2; n++)
        impostor_send(c, EXCHANGE_INFORMATIONAL, IKE_FLAG_RESPONSE, 2, 0, NONE, n, 2);
    assert_int_equal(count(c, STAT_DROP_IKE_MSGID), 2);
    ike_down(A->e, &A->peers[0], &A->policies[0], 7, s->now); /* a Delete with number 2 */
    assert_int_equal(c->n, 1);
    assert_int_equal(c->seen[0].m.h.message_id, 2);
    impostor_send(c, EXCHANGE_INFORMATIONAL, IKE_FLAG_RESPONSE, 2, 0, NONE, 2, 3);
    impostor_send(c, EXCHANGE_INFORMATIONAL, IKE_FLAG_RESPONSE, 2, 0, NONE, 3, 3);
    assert_null(sim_command(A, 7));
    sim_for(s, 1500 * NS_PER_MS);
    assert_int_equal(c->n, 2); /* it asks again, and what it has stays */
    assert_memory_equal(c->seen[0].data, c->seen[1].data, c->seen[0].len);
    impostor_send(c, EXCHANGE_INFORMATIONAL, IKE_FLAG_RESPONSE, 2, PAYLOAD_VENDOR, span_of(vendor, sizeof vendor), 1,
                  3);
    assert_non_null(sim_command(A, 7));
    assert_true(sim_command(A, 7)->ok);
    finish(c);
}

/* An authentic fragment with a payload outside, or padding longer than it is, is no part of any message. */
static void malformed_fragments_are_no_part(void **state)
{
    (void)state;
    struct impostor *c = taken_over(11, 0);
    uint8_t out[200];
    struct ike_builder b;
    struct ike_header h = {.spi_i = c->spi_i,
                           .spi_r = c->spi_r,
                           .version = 0x20,
                           .exchange = EXCHANGE_INFORMATIONAL,
                           .flags = IKE_FLAG_INITIATOR,
                           .message_id = 2};
    size_t len;
    ike_begin(&b, out, sizeof out, &h);
    ike_put_notify(&b, PROTOCOL_NONE, NONE, NOTIFY_INITIAL_CONTACT, NONE);
    ike_begin_skf(&b, &c->suite, 4, 4, span_of("\1\1\1\1\1\1\1\1", 8));
    assert_int_equal(ike_finish_sk(&b, &c->suite, c->seal, &len), OK);
    impostor_inject(c, out, len);
    assert_int_equal(count(c, STAT_DROP_IKE_SYNTAX), 1);
    for (uint16_t n = 1; n <= 3; n++)
        send_part(c, 2, n, 4);
    assert_int_equal(c->n, 0);
    send_part(c, 2, 4, 4);
    assert_int_equal(c->n, 1);
    /* Too short for its own numbers: it does not parse. */
    ike_begin(&b, out, sizeof out, &h);
    ike_put(&b, PAYLOAD_SKF, span_of("\0\1\0", 3));
    assert_int_equal(ike_finish(&b, &len), OK);
    impostor_inject(c, out, len);
    assert_int_equal(count(c, STAT_DROP_IKE_SYNTAX), 2);
    finish(c);
}

static int start_crypto(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_every_size_are_cut_and_joined),
        cmocka_unit_test(each_fragment_has_its_own_iv),
        cmocka_unit_test(limits_of_cutting),
        cmocka_unit_test(room_is_what_ip_udp_and_marker_leave),
        cmocka_unit_test(content_is_bounded_by_what_a_message_can_be),
        cmocka_unit_test(both_must_have_said_it),
        cmocka_unit_test(said_without_being_asked_it_means_nothing),
        cmocka_unit_test(whole_life_in_fragments),
        cmocka_unit_test(fragments_survive_the_network),
        cmocka_unit_test(retransmission_is_bit_identical),
        cmocka_unit_test(any_order_completes_and_is_answered_once),
        cmocka_unit_test(numbers_out_of_range_are_dropped),
        cmocka_unit_test(fewer_are_dropped_and_more_start_over),
        cmocka_unit_test(nothing_is_kept_or_replaced_unauthenticated),
        cmocka_unit_test(duplicates_are_ignored),
        cmocka_unit_test(only_the_next_request_is_put_together),
        cmocka_unit_test(later_requests_in_fragments_have_to_wait),
        cmocka_unit_test(whole_message_beats_its_fragments),
        cmocka_unit_test(incomplete_sets_are_forgotten_in_time),
        cmocka_unit_test(dropped_without_negotiation),
        cmocka_unit_test(answers_come_in_fragments_too),
        cmocka_unit_test(malformed_fragments_are_no_part),
    };
    return cmocka_run_group_tests(tests, start_crypto, NULL);
}
