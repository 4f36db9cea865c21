/* Messages from people who mean harm: forged, replayed, mangled from outside, and mangled by an authenticated peer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/impostor.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define NONE span_of(NULL, 0)

static struct sim *connected(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    return s;
}

static void close_all(struct sim *s)
{
    s->hook = NULL;
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    assert_sim(sim_run(s, s->now + 150 * NS_PER_S, sim_empty));
    sim_free(s);
}

/* The life of a link: up, both rekeys, down. n counts its messages. */
static void life(struct sim *s)
{
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    sim_for(s, NS_PER_S);
    ike_rekey(A->e, &A->peers[0], &A->policies[0], 2, s->now);
    sim_for(s, NS_PER_S);
    ike_rekey(B->e, &B->peers[0], NULL, 3, s->now);
    sim_for(s, NS_PER_S);
}

/* -- changed on the way -- */

struct mangle {
    unsigned message; /* which one, counted from 0 */
    unsigned n;       /* seen so far */
    size_t len;       /* its length */
    enum { FLIP, CUT, GROW } how;
    size_t at;
};

static enum sim_fate mangle(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    struct mangle *m = ctx;
    if (p->keepalive || m->n++ != m->message)
        return SIM_DELIVER;
    m->len = p->len;
    switch (m->how) {
    case FLIP:
        p->data[m->at / 8 % p->len] ^= (uint8_t)(1 << m->at % 8);
        break;
    case CUT:
        p->len = m->at < p->len ? m->at : p->len;
        break;
    case GROW:
        p->data = realloc(p->data, p->len + 4);
        memset(p->data + p->len, 0, 4);
        p->len += 4;
        break;
    }
    return SIM_DELIVER;
}

/* One message of the life is mangled; returns its length, or 0 when there are not that many messages. */
static size_t mangled_life(unsigned message, int how, size_t at)
{
    struct sim *s = sim_new(message * 100000 + at);
    struct mangle m = {.message = message, .how = how, .at = at};
    s->hook = mangle;
    s->hook_ctx = &m;
    life(s);
    sim_for(s, 200 * NS_PER_S);
    if (!sim_agree(s) || !sim_both(s))
        printf("message %u, how %d, at %zu\n", message, how, at);
    assert_sim(sim_both(s) && sim_agree(s)); /* it never harms more than an attempt */
    sim_free(s);
    return m.len;
}

static void flipped_bits_establish_nothing(void **state)
{
    (void)state;
    for (unsigned message = 0; message < 14; message++)
        for (size_t at = message % 3; at == message % 3 || at < 8 * 300; at += 7)
            if (mangled_life(message, FLIP, at) * 8 <= at)
                break;
}

static void truncated_messages_are_dropped(void **state)
{
    (void)state;
    for (unsigned message = 0; message < 14; message++) {
        mangled_life(message, GROW, 0);
        for (size_t at = 0; mangled_life(message, CUT, at) > at;)
            at += at < 40 ? 1 : 9;
    }
}

/* -- changed by the peer itself: opened, rewritten and sealed with the keys of the link -- */

struct forge {
    unsigned message, n;
    bool found;
    unsigned payload;  /* which one to treat */
    unsigned payloads; /* how many there were */
    enum { DROP, TWICE, TYPE, BITS, EMPTY, SHORT, APPEND, SWAP, KINDS } how;
    unsigned value;
};

static void put_one(struct ike_builder *b, uint8_t type, struct span body, const struct forge *f)
{
    uint8_t copy[2048];
    size_t len = body.len < sizeof copy ? body.len : sizeof copy;
    memcpy(copy, body.data, len);
    switch (f->how) {
    case DROP:
        return;
    case TWICE:
        ike_put(b, type, span_of(copy, len));
        break;
    case TYPE:
        type = (uint8_t)(33 + f->value % 20);
        break;
    case BITS:
        if (len)
            copy[f->value / 8 % len] ^= (uint8_t)(1 << f->value % 8);
        break;
    case EMPTY:
        len = 0;
        break;
    case SHORT:
        len -= len ? f->value % len + 1 : 0;
        break;
    case APPEND:
        memset(copy + len, 0xff, sizeof copy - len < 8 ? 0 : 8);
        len += sizeof copy - len < 8 ? 0 : 8;
        break;
    case SWAP:
    case KINDS:
        break;
    }
    ike_put(b, type, span_of(copy, len));
}

/* Rewrites the chain of payloads behind `first` into b. */
static void rewrite_chain(struct ike_builder *b, uint8_t first, struct span chain, struct forge *f)
{
    struct reader r = reader_of(chain);
    uint8_t type = first;
    f->payloads = 0;
    while (type && !r.failed) {
        uint8_t next = read_u8(&r), own = type;
        read_u8(&r);
        uint16_t len = read_u16(&r);
        struct span body = read_span(&r, len >= 4 ? len - 4u : 0);
        if (f->payloads++ == f->payload)
            put_one(b, own, body, f);
        else
            ike_put(b, own, body);
        type = next;
    }
}

static enum sim_fate forge(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct forge *f = ctx;
    static uint8_t out[8192];
    uint8_t key[IMPOSTOR_KEY], iv[8] = {0xee, 1, 2, 3, 4, 5, 6, (uint8_t)f->value};
    struct ike_builder b;
    struct ike_header h;
    size_t len = 0;
    if (p->keepalive || f->n++ != f->message || ike_header_parse(span_of(p->data, p->len), &h) != OK)
        return SIM_DELIVER;
    f->found = true;
    ike_begin(&b, out, sizeof out, &h);
    if (h.next_payload != PAYLOAD_SK) {
        rewrite_chain(&b, h.next_payload, span_of(p->data + 28, p->len - 28), f);
        assert_int_equal(ike_finish(&b, &len), OK);
    } else {
        struct suite suite;
        struct keyed *open, *seal;
        struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
        assert_true(impostor_keys(s, p->data, key));
        assert_int_equal(suite_of(&gcm, NULL, &suite), OK);
        assert_int_equal(keyed_new(&open, &suite, TRANSFORM_OPEN, NULL, span_of(key, 20), NONE), OK);
        assert_int_equal(keyed_new(&seal, &suite, TRANSFORM_SEAL, NULL, span_of(key, 20), NONE), OK);
        struct transform_op op = {.aad = p->data,
                                  .aad_len = 32,
                                  .iv = p->data + 32,
                                  .src = p->data + 40,
                                  .dst = p->data + 40,
                                  .len = (uint32_t)(p->len - 56),
                                  .icv = p->data + p->len - 16};
        keyed_open(open, &op, 1);
        assert_true(op.ok);
        ike_begin_sk(&b, &suite, span_of(iv, 8));
        rewrite_chain(&b, p->data[28], span_of(p->data + 40, p->len - 56 - 1u - p->data[p->len - 17]), f);
        assert_int_equal(ike_finish_sk(&b, &suite, seal, &len), OK);
        keyed_free(open);
        keyed_free(seal);
    }
    free(p->data);
    p->data = malloc(len);
    memcpy(p->data, out, len);
    p->len = len;
    return SIM_DELIVER;
}

/* Returns how many payloads the message had; 0: there was no such message. */
static unsigned forged_life(unsigned message, unsigned payload, int how, unsigned value)
{
    struct sim *s = sim_new(message * 1000 + payload);
    struct forge f = {.message = message, .payload = payload, .how = how, .value = value};
    s->hook = forge;
    s->hook_ctx = &f;
    life(s);
    sim_for(s, 200 * NS_PER_S);
    s->hook = NULL;
    /* Whatever a peer does to itself: nothing crashes, nothing leaks, and both ends get over it. */
    ike_down(A->e, &A->peers[0], NULL, 0, s->now);
    sim_for(s, 150 * NS_PER_S);
    ike_up(A->e, &A->peers[0], NULL, 9, s->now);
    sim_for(s, 10 * NS_PER_S);
    if (!sim_both(s) || !sim_command(A, 9) || !sim_command(A, 9)->ok)
        printf("message %u payload %u how %d value %u\n", message, payload, how, value);
    assert_sim(sim_command(A, 9) && sim_command(A, 9)->ok && sim_both(s));
    close_all(s);
    return f.found ? f.payloads : 0;
}

static void each_payload_dropped_doubled_emptied(void **state)
{
    (void)state;
    static const int how[] = {DROP, TWICE, EMPTY, APPEND};
    for (unsigned i = 0; i < sizeof how / sizeof *how; i++)
        for (unsigned message = 0; message < 14; message++)
            for (unsigned payload = 0; payload == 0 || payload < forged_life(message, payload, how[i], 0); payload++)
                ;
}

static void each_payload_changed_by_its_sender(void **state)
{
    (void)state;
    for (unsigned message = 0; message < 14; message++)
        for (unsigned payload = 0; payload < 10; payload++) {
            unsigned n = 0;
            for (unsigned v = 0; v < 12; v++) {
                n = forged_life(message, payload, BITS, v * 37 + message);
                forged_life(message, payload, v % 2 ? SHORT : TYPE, v * 5 + payload);
            }
            if (n <= payload + 1)
                break;
        }
}

/* An answer that can't be read ends the SA: the peer is told, and does not go on sending to nobody. */
static void the_peer_hears_that_its_answer_is_malformed(void **state)
{
    (void)state;
    for (unsigned message = 3; message <= 5; message += 2) { /* of IKE_AUTH; of the rekey of the Child SA */
        struct sim *s = sim_new(12);
        struct forge f = {.message = message, .payload = 0, .how = TWICE};
        s->hook = forge;
        s->hook_ctx = &f;
        life(s);
        assert_true(f.found);
        assert_non_null(sim_find(B, IKE_EVENT_IKE_DOWN, "ended the IKE SA: INVALID_SYNTAX"));
        sim_for(s, 20 * NS_PER_S);
        assert_sim(sim_up(s));
        close_all(s);
    }
}

/* The answer's selectors reach beyond the offer: refused, and the peer's half is deleted (section 2.9). */
static void wider_answer_is_refused(void **state)
{
    (void)state;
    for (unsigned payload = 3; payload <= 4; payload++) {
        struct sim *s = sim_new(11);
        struct forge f = {
            .message = 3, .payload = payload, .how = BITS, .value = 18 * 8}; /* 10.x.0.255 to 10.x.1.255 */
        s->hook = forge;
        s->hook_ctx = &f;
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, 20 * NS_PER_S);
        assert_sim(sim_find(A, IKE_EVENT_FAILED, "wider than offered") && !sim_command(A, 1)->ok);
        assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 1);
        assert_int_equal(sim_children(A) + sim_children(B), 0);
        close_all(s);
    }
}

/* -- forged from outside -- */

struct capture {
    unsigned n;
    struct {
        struct path path;
        unsigned to;
        size_t len;
        uint8_t data[1024];
    } m[64];
};

static enum sim_fate capture(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    struct capture *c = ctx;
    if (p->keepalive || c->n == 64)
        return SIM_DELIVER;
    c->m[c->n].path = (struct path){.local = p->dst, .remote = p->src, .marker = p->marker};
    c->m[c->n].to = 1 - p->from;
    c->m[c->n].len = p->len;
    assert_true(p->len <= sizeof c->m[0].data);
    memcpy(c->m[c->n++].data, p->data, p->len);
    return SIM_DELIVER;
}

static void replays_change_nothing(void **state)
{
    (void)state;
    struct capture *c = calloc(1, sizeof *c);
    struct sim *s = sim_new(1);
    s->hook = capture;
    s->hook_ctx = c;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, NS_PER_S);
    for (unsigned k = 0; k < 2; k++) { /* requests of both ends, on the IKE SA that stays */
        ike_rekey(s->node[k].e, &s->node[k].peers[0], &s->node[k].policies[0], 2, s->now);
        sim_for(s, NS_PER_S);
    }
    s->hook = NULL;
    assert_sim(sim_up(s));
    uint32_t spi = sim_sending(A, NULL)->spi_out;
    unsigned events = A->event_count + B->event_count;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < c->n; i++) {
            sim_inject(s, c->m[i].to, &c->m[i].path, span_of(c->m[i].data, c->m[i].len));
            c->m[i].path.remote.ip.b[3] = 99; /* and from elsewhere */
            sim_inject(s, c->m[i].to, &c->m[i].path, span_of(c->m[i].data, c->m[i].len));
            sim_for(s, 30 * NS_PER_MS);
        }
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_up(s));
    assert_int_equal(sim_sending(A, NULL)->spi_out, spi);
    assert_int_equal(sim_sending(A, NULL)->path.remote.ip.b[3], 2); /* nobody was followed */
    assert_int_equal(sim_sending(B, NULL)->path.remote.ip.b[3], 1);
    assert_int_equal(A->event_count + B->event_count, events);
    assert_true(stat_get(&A->stats, STAT_DROP_IKE_MSGID) > 0);
    assert_true(stat_get(&B->stats, STAT_DROP_IKE_MSGID) > 0);
    close_all(s);
    free(c);
}

static size_t notify_message(uint8_t *out, size_t cap, uint64_t spi_i, uint64_t spi_r, uint8_t exchange, uint8_t flags,
                             uint32_t id, uint16_t type, struct span data)
{
    struct ike_builder b;
    size_t len;
    struct ike_header h = {
        .spi_i = spi_i, .spi_r = spi_r, .version = 0x20, .exchange = exchange, .flags = flags, .message_id = id};
    ike_begin(&b, out, cap, &h);
    ike_put_notify(&b, 0, NONE, type, data);
    assert_int_equal(ike_finish(&b, &len), OK);
    return len;
}

/* Who sees our first message answers faster than the peer; the attempt lives on (RFC 7296 section 2.21.1). */
static enum sim_fate forge_error(struct sim *s, struct sim_packet *p, void *ctx)
{
    uint16_t *type = ctx;
    uint8_t out[128], data[2] = {0, 99};
    if (p->from != 0 || p->data[18] != EXCHANGE_SA_INIT)
        return SIM_DELIVER;
    struct path path = {.local = p->src, .remote = p->dst, .marker = p->marker};
    size_t len = notify_message(out, sizeof out, get_be64(p->data), 0, EXCHANGE_SA_INIT, IKE_FLAG_RESPONSE, 0, *type,
                                *type == NOTIFY_INVALID_KE_PAYLOAD ? span_of(data, 2) : NONE);
    uint8_t *bytes = malloc(len);
    memcpy(bytes, out, len);
    for (unsigned i = 0; i < SIM_PACKETS; i++)
        if (!s->packets[i].used) {
            s->packets[i] = (struct sim_packet){
                .used = true, .at = s->now + 1, .from = 1, .src = path.remote, .dst = path.local, .data = bytes};
            s->packets[i].len = len;
            s->top = i >= s->top ? i + 1 : s->top;
            break;
        }
    return SIM_DELIVER;
}

static void forged_errors_end_no_attempt(void **state)
{
    (void)state;
    static uint16_t types[] = {NOTIFY_NO_PROPOSAL_CHOSEN,
                               NOTIFY_AUTHENTICATION_FAILED,
                               NOTIFY_INVALID_KE_PAYLOAD,
                               NOTIFY_INVALID_MAJOR_VERSION,
                               NOTIFY_INVALID_SYNTAX,
                               NOTIFY_COOKIE,
                               NOTIFY_INVALID_IKE_SPI,
                               NOTIFY_TEMPORARY_FAILURE,
                               1234,
                               NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD};
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
        struct sim *s = sim_new(i);
        s->hook = forge_error;
        s->hook_ctx = &types[i];
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        close_all(s);
    }
}

/* Every exchange, flag and message ID, with and without SK, in every state of both ends. */
static void every_exchange_in_every_state(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 60; at += 2) {
        struct sim *s = sim_new(7);
        struct capture c = {0};
        s->hook = capture;
        s->hook_ctx = &c;
        A->peers[0].start = START_YES; /* a forged first message may cost an attempt, no more */
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, at * NS_PER_MS);
        for (unsigned k = 0; k < c.n; k++)
            for (unsigned exchange = 33; exchange < 45; exchange++)
                for (unsigned flags = 0; flags < 0x40; flags += 8) {
                    uint8_t out[1024];
                    struct path path = c.m[k].path;
                    memcpy(out, c.m[k].data, c.m[k].len); /* known SPIs, foreign content */
                    out[18] = (uint8_t)exchange;
                    out[19] = (uint8_t)flags;
                    sim_inject(s, c.m[k].to, &path, span_of(out, c.m[k].len));
                    size_t len = notify_message(out, sizeof out, get_be64(out), get_be64(out + 8), (uint8_t)exchange,
                                                (uint8_t)flags, flags / 8 % 3, NOTIFY_AUTHENTICATION_FAILED, NONE);
                    sim_inject(s, c.m[k].to, &path, span_of(out, len));
                }
        sim_for(s, 100 * NS_PER_S);
        if (!sim_up(s))
            printf("at %u ms\n", at);
        assert_sim(sim_up(s));
        close_all(s);
    }
}

static void create_child_before_auth_is_refused(void **state)
{
    (void)state;
    for (unsigned exchange = EXCHANGE_CREATE_CHILD_SA; exchange <= EXCHANGE_INFORMATIONAL; exchange++) {
        struct sim *s = sim_new(8);
        struct forge f = {.message = 2, .payload = 99, .how = SWAP};
        s->hook = forge;
        s->hook_ctx = &f;
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, 33 * NS_PER_MS); /* IKE_SA_INIT is done at both ends, IKE_AUTH is on its way */
        struct sim_packet *p = NULL;
        for (unsigned i = 0; i < SIM_PACKETS && !p; i++)
            if (s->packets[i].used && s->packets[i].data[18] == EXCHANGE_AUTH)
                p = &s->packets[i];
        assert_non_null(p);
        /* the same under another exchange type, with a right ICV */
        uint8_t key[20], plain[1024];
        struct suite suite;
        struct keyed *open, *seal;
        struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
        assert_true(impostor_keys(s, p->data, key));
        assert_int_equal(suite_of(&gcm, NULL, &suite), OK);
        assert_int_equal(keyed_new(&open, &suite, TRANSFORM_OPEN, NULL, span_of(key, 20), NONE), OK);
        assert_int_equal(keyed_new(&seal, &suite, TRANSFORM_SEAL, NULL, span_of(key, 20), NONE), OK);
        struct transform_op op = {.aad = p->data,
                                  .aad_len = 32,
                                  .iv = p->data + 32,
                                  .src = p->data + 40,
                                  .dst = plain,
                                  .len = (uint32_t)(p->len - 56),
                                  .icv = p->data + p->len - 16};
        keyed_open(open, &op, 1);
        assert_true(op.ok);
        p->data[18] = (uint8_t)exchange;
        op.src = plain;
        op.dst = p->data + 40;
        assert_int_equal(keyed_seal(seal, &op, 1), OK);
        keyed_free(open);
        keyed_free(seal);
        sim_for(s, 200 * NS_PER_MS);
        assert_int_equal(sim_children(B), 0);
        assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
        assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_STATE), 1);
        sim_for(s, 10 * NS_PER_S); /* the retransmission is what it was */
        assert_sim(sim_up(s));
        close_all(s);
    }
}

/* -- who is nobody -- */

static void unknown_spis_and_versions(void **state)
{
    (void)state;
    struct sim *s = connected(9);
    uint8_t out[128];
    struct path path = {.local = {B->ip, 500}, .remote = {A->ip, 500}};
    uint64_t before = s->ike_sent;
    size_t len = notify_message(out, sizeof out, 1, 2, EXCHANGE_INFORMATIONAL, IKE_FLAG_INITIATOR, 0, 1234, NONE);
    for (unsigned i = 0; i < 1000; i++)
        sim_inject(s, 1, &path, span_of(out, len));
    assert_in_range(s->ike_sent - before, 1, 50); /* INVALID_IKE_SPI, at a limited rate */
    before = s->ike_sent;
    out[19] = IKE_FLAG_RESPONSE;
    sim_for(s, 2 * NS_PER_S);
    sim_inject(s, 1, &path, span_of(out, len)); /* a response is never answered */
    assert_int_equal(s->ike_sent, before);
    out[19] = 0;
    out[17] = 0x30;
    for (unsigned i = 0; i < 1000; i++)
        sim_inject(s, 1, &path, span_of(out, len));
    assert_in_range(s->ike_sent - before, 1, 50);
    out[17] = 0x10; /* IKEv1 */
    sim_inject(s, 1, &path, span_of(out, len));
    assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_VERSION), 1001);
    for (size_t n = 0; n < IKE_HEADER_LEN; n++)
        sim_inject(s, 1, &path, span_of(out, n));
    assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_RUNT), IKE_HEADER_LEN);
    memset(out, 0, 8);
    out[17] = 0x20;
    sim_inject(s, 1, &path, span_of(out, len));
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_up(s));
    close_all(s);
}

/* A thousand first messages; how many of them cost a key exchange and a place. */
static void flood(unsigned cookie_threshold, unsigned half_open, unsigned expected)
{
    struct sim *s = sim_new(10);
    struct capture *c = calloc(1, sizeof *c);
    B->peers[0].endpoint_any = true;
    s->hook = capture;
    s->hook_ctx = c;
    sim_start_engines(s, &(struct ike_limits){.half_open = half_open, .cookie_threshold = cookie_threshold});
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    unsigned jobs = B->offers_run;
    for (unsigned i = 0; i < 1000; i++) {
        struct path path = {.local = {B->ip, 500}, .remote = {A->ip, (uint16_t)(1000 + i)}};
        path.remote.ip.b[2] = 200;
        c->m[0].data[0] = (uint8_t)i;
        sim_inject(s, 1, &path, span_of(c->m[0].data, c->m[0].len));
    }
    assert_int_equal(B->offers_run - jobs, expected);
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), expected);
    sim_for(s, 60 * NS_PER_S);
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 0);
    assert_sim(sim_up(s));
    close_all(s);
    free(c);
}

static void a_flood_is_bounded_and_passes(void **state)
{
    (void)state;
    for (unsigned cookies = 0; cookies < 2; cookies++)
        flood(cookies ? 10 : 1000, 50, cookies ? 10 : 50);
}

static void cookies_can_be_asked_of_everybody(void **state)
{
    (void)state;
    for (unsigned always = 0; always < 2; always++) {
        struct sim *s = sim_new(11);
        B->config.host.cookies = always;
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
        assert_int_equal(A->e->sas->cookies, always);
        close_all(s);
    }
}

/* What [host] says holds where no limit is given: 20 places, and cookies from the third on. */
static void the_configuration_sets_the_limits(void **state)
{
    (void)state;
    struct capture c = {.n = 0};
    struct sim *s = sim_new(12);
    B->peers[0].endpoint_any = true;
    B->config.host.half_open = 20;
    s->hook = capture;
    s->hook_ctx = &c;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    for (unsigned i = 0; i < 10; i++) {
        struct path path = {.local = {B->ip, 500}, .remote = {A->ip, (uint16_t)(1000 + i)}};
        c.m[0].data[0] = (uint8_t)i;
        sim_inject(s, 1, &path, span_of(c.m[0].data, c.m[0].len));
    }
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 2);
    close_all(s);
}

/* -- one party against many -- */

/* A's first message, as B sees it; B takes anybody. */
static struct sim *first_message(uint64_t seed, const struct ike_limits *limits, struct capture *c)
{
    struct sim *s = sim_new(seed);
    B->peers[0].endpoint_any = true;
    s->hook = capture;
    s->hook_ctx = c;
    sim_start_engines(s, limits);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    s->hook = NULL;
    return s;
}

/* That message again from elsewhere, behind a cookie that is right and in front of a vendor ID of some length. */
static void send_first(struct sim *s, const struct capture *c, const struct endpoint *from, uint64_t spi, size_t vendor)
{
    static uint8_t out[16384], text[16384], copy[1024];
    uint8_t cookie[COOKIE_LEN];
    struct forge plain = {.payload = 99, .how = SWAP};
    struct path path = {.local = {B->ip, 500}, .remote = *from};
    struct ike_message m;
    struct ike_builder b;
    size_t len;
    memcpy(copy, c->m[0].data, c->m[0].len);
    assert_int_equal(ike_message_parse(span_of(copy, c->m[0].len), &m), OK);
    cookie_make(&B->e->jar, &B->env.random, s->now, spi, from, m.nonce, cookie);
    struct ike_header h = m.h;
    h.spi_i = spi;
    ike_begin(&b, out, sizeof out, &h);
    ike_put_notify(&b, 0, NONE, NOTIFY_COOKIE, span_of(cookie, sizeof cookie));
    rewrite_chain(&b, m.h.next_payload, span_of(copy + 28, c->m[0].len - 28), &plain);
    ike_put(&b, PAYLOAD_VENDOR, span_of(text, vendor));
    assert_int_equal(ike_finish(&b, &len), OK);
    sim_inject(s, 1, &path, span_of(out, len));
}

static void one_address_takes_some_places_only(void **state)
{
    (void)state;
    struct capture *c = calloc(1, sizeof *c);
    struct sim *s = first_message(30, &(struct ike_limits){.half_open = 100, .cookie_threshold = 10}, c);
    struct endpoint from[3] = {{{.family = 4, .b = {192, 0, 2, 1}}, 500},
                               {{.family = 6, .b = {0x20, 1, 0xd, 0xb8}}, 500},
                               {{.family = 4, .b = {192, 0, 2, 2}}, 500}};
    for (unsigned k = 0; k < 3; k++) {
        for (unsigned i = 0; i < 50; i++) {
            from[k].port++;
            from[k].ip.b[15] = (uint8_t)(k == 1 ? i : 0); /* within a /64 */
            send_first(s, c, &from[k], 1000 * k + i + 1, 4);
        }
        assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 16 * (k + 1));
        assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_LIMIT), 34 * (k + 1));
    }
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_up(s));
    close_all(s);
    free(c);
}

/* From a forged address, the same message again and again makes no flood of longer answers to whoever is there. */
static void repeats_of_a_first_message_are_no_amplifier(void **state)
{
    (void)state;
    struct capture *c = calloc(1, sizeof *c);
    struct sim *s = first_message(33, NULL, c);
    struct endpoint from = {{.family = 4, .b = {192, 0, 2, 1}}, 500};
    send_first(s, c, &from, 1, 4);
    sim_for(s, NS_PER_S);
    uint64_t sent = s->ike_sent;
    for (unsigned i = 0; i < 1000; i++)
        send_first(s, c, &from, 1, 4);
    assert_int_equal(s->ike_sent - sent, 16);
    assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_LIMIT), 1000 - 16);
    close_all(s);
    free(c);
}

static void huge_first_messages_are_not_kept(void **state)
{
    (void)state;
    struct capture *c = calloc(1, sizeof *c);
    struct sim *s = first_message(31, NULL, c);
    struct endpoint from = {{.family = 4, .b = {192, 0, 2, 1}}, 500};
    send_first(s, c, &from, 1, 7500);
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 1);
    send_first(s, c, &from, 2, 8192);
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 1);
    assert_int_equal(stat_get(&B->stats, STAT_DROP_IKE_LIMIT), 1);
    close_all(s);
    free(c);
}

/* The proposal of a first message has no SPI: the header has it (RFC 7296 section 3.3.1). */
static void spi_in_the_first_proposal_is_refused(void **state)
{
    (void)state;
    struct capture *c = calloc(1, sizeof *c);
    struct sim *s = first_message(32, NULL, c);
    struct endpoint from = {{.family = 4, .b = {192, 0, 2, 1}}, 500};
    uint8_t *d = c->m[0].data, *proposal = d + 32;
    assert_int_equal(d[16], PAYLOAD_SA);
    send_first(s, c, &from, 1, 4);
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 1);
    memmove(proposal + 16, proposal + 8, c->m[0].len - 40);
    memset(proposal + 8, 7, 8);
    proposal[6] = 8;
    put_be16(proposal + 2, (uint16_t)(get_be16(proposal + 2) + 8));
    put_be16(d + 30, (uint16_t)(get_be16(d + 30) + 8));
    c->m[0].len += 8;
    put_be32(d + 24, (uint32_t)c->m[0].len);
    send_first(s, c, &from, 2, 4);
    assert_int_equal(sim_ike_sas(B, IKE_CONNECTING), 1);
    close_all(s);
    free(c);
}

/* Whoever fails in IKE_AUTH keeps his place among the half-open until he is forgotten, and is no certain knowledge. */
static void strangers_with_a_known_name_are_contained(void **state)
{
    (void)state;
    struct sim *s = sim_new(33);
    A->peers[0].psk.b[0] ^= 1;
    sim_start_engines(s, &(struct ike_limits){.half_open = 3, .cookie_threshold = 100});
    s->cut = true;
    ike_up(B->e, &B->peers[0], NULL, 1, s->now);
    sim_for(s, 100 * NS_PER_S);
    s->cut = false;
    for (unsigned i = 0; i < 6; i++) {
        ike_up(A->e, &A->peers[0], NULL, 0, s->now);
        sim_for(s, NS_PER_S);
        assert_in_range(sim_ike_sas(B, IKE_DELETING), 1, 3);
    }
    assert_true(stat_get(&B->stats, STAT_DROP_IKE_LIMIT) > 0);
    const struct sim_event *failed = sim_find(B, IKE_EVENT_FAILED, "pre-shared keys differ (peer alice");
    assert_non_null(failed);
    assert_null(failed->peer); /* so that the log limits them */
    assert_non_null(strstr(ike_last_error(B->e, &B->peers[0], NULL), "does not answer"));
    sim_for(s, 200 * NS_PER_S);
    assert_sim(sim_empty(s));
    sim_free(s);
}

/* A peer that makes IKE SAs without end, says nothing about its old ones, and answers no Delete. */
static void ike_sas_of_one_peer_are_few(void **state)
{
    (void)state;
    struct sim *s = sim_new(34);
    sim_start_engines(s, NULL);
    for (unsigned i = 0; i < 12; i++) {
        struct forge f = {.message = 2, .payload = 3, .how = DROP}; /* INITIAL_CONTACT */
        s->hook = forge;
        s->hook_ctx = &f;
        ike_up(A->e, &A->peers[0], NULL, 0, s->now);
        sim_for(s, 500 * NS_PER_MS);
        s->hook = NULL;
        assert_in_range(sim_ike_sas(B, IKE_ESTABLISHED), 1, 4);
        assert_in_range(sim_ike_sas(B, IKE_ESTABLISHED) + sim_ike_sas(B, IKE_DELETING), 1, 8);
        assert_sim(sim_both(s));
        ike_free(A->e);
        memset(A->sas, 0, sizeof A->sas);
        A->top = A->spis = 0;
        assert_int_equal(ike_new(&A->e, &A->env, &A->config, NULL), OK);
    }
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 4);
    close_all(s);
}

/* Its key exchange is queued when an attempt is given up: nobody computes it any more. */
static void jobs_of_dead_sas_cost_nothing(void **state)
{
    (void)state;
    struct sim *s = sim_new(35);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_int_equal(A->job_count, 1);
    ike_down(A->e, &A->peers[0], NULL, 2, s->now);
    uint64_t random = A->random.counter;
    sim_for(s, NS_PER_S);
    assert_int_equal(A->job_count, 0);
    assert_int_equal(A->random.counter, random);
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flipped_bits_establish_nothing),
        cmocka_unit_test(truncated_messages_are_dropped),
        cmocka_unit_test(each_payload_dropped_doubled_emptied),
        cmocka_unit_test(each_payload_changed_by_its_sender),
        cmocka_unit_test(the_peer_hears_that_its_answer_is_malformed),
        cmocka_unit_test(wider_answer_is_refused),
        cmocka_unit_test(replays_change_nothing),
        cmocka_unit_test(forged_errors_end_no_attempt),
        cmocka_unit_test(every_exchange_in_every_state),
        cmocka_unit_test(create_child_before_auth_is_refused),
        cmocka_unit_test(unknown_spis_and_versions),
        cmocka_unit_test(a_flood_is_bounded_and_passes),
        cmocka_unit_test(cookies_can_be_asked_of_everybody),
        cmocka_unit_test(the_configuration_sets_the_limits),
        cmocka_unit_test(one_address_takes_some_places_only),
        cmocka_unit_test(repeats_of_a_first_message_are_no_amplifier),
        cmocka_unit_test(huge_first_messages_are_not_kept),
        cmocka_unit_test(spi_in_the_first_proposal_is_refused),
        cmocka_unit_test(strangers_with_a_known_name_are_contained),
        cmocka_unit_test(ike_sas_of_one_peer_are_few),
        cmocka_unit_test(jobs_of_dead_sas_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
