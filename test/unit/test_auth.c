/* IKE_AUTH by signatures (RFC 7296 section 2.15, RFC 7427, RFC 7670): raw keys, certificates, and each end its own way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/proof.h"
#include "test/unit/credential.h"
#include "test/unit/sim.h"
#include "test/vectors/auth.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define WHY 400
#define SEED_A "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" /* of Ed25519 keys, as adit genkey writes them */
#define SEED_B "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

/* -- who has what -- */

static struct sim *finish(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < 4; i++)
            forget(&s->node[k].peers[i]);
    sim_free(s);
    return NULL;
}

/* Both by certificate, of whichever kind; A goes by a.example and B by b.example. */
static struct sim *certified(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    own_cert(&A->peers[0], VECTOR_A_P256_KEY, VECTOR_A_P256_CRT);
    own_cert(&B->peers[0], VECTOR_B_P256_KEY, VECTOR_B_P256_CRT);
    wants_ca(&A->peers[0], VECTOR_ROOT_CRT);
    wants_ca(&B->peers[0], VECTOR_ROOT_CRT);
    return s;
}

/* As certified, but A with another certificate. */
static struct sim *with_cert(const char *key, const char *const *certs)
{
    struct sim *s = certified(2);
    private_key_free(A->peers[0].auth.key);
    chain_free(A->peers[0].auth.chain);
    free(A->peers[0].auth.chain);
    own_certs(&A->peers[0], key, certs);
    return s;
}

static struct sim *raw(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    own_key(&A->peers[0], SEED_A);
    own_key(&B->peers[0], SEED_B);
    wants_key(&A->peers[0], SEED_B);
    wants_key(&B->peers[0], SEED_A);
    return s;
}

static void go(struct sim *s, unsigned from)
{
    struct sim_node *n = &s->node[from];
    if (!n->e)
        sim_start_engines(s, NULL);
    ike_up(n->e, &n->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
}

static void comes_up(struct sim *s, unsigned from)
{
    go(s, from);
    assert_sim(sim_up(s) && sim_command(&s->node[from], 1)->ok);
}

/* The one at fault hears of AUTHENTICATION_FAILED alone; the judge says what is wrong, and nothing is left of it. */
static void is_refused(struct sim *s, unsigned from, unsigned judge, const char *reason)
{
    go(s, from);
    assert_sim(sim_command(&s->node[from], 1) && !sim_command(&s->node[from], 1)->ok);
    if (!sim_find(&s->node[judge], IKE_EVENT_FAILED, reason)) {
        sim_dump(s);
        fail_msg("expected: %s", reason);
    }
    assert_sim(!sim_count(&s->node[judge], IKE_EVENT_CHILD_UP)); /* a responder at fault is up until it hears of it */
    assert_sim(!sim_find(&s->node[1 - judge], IKE_EVENT_FAILED, reason));
    if (from != judge)
        assert_sim(sim_find(&s->node[from], IKE_EVENT_FAILED, "AUTHENTICATION_FAILED") != NULL);
    else
        assert_non_null(strstr(ike_last_error(s->node[1 - judge].e, &s->node[1 - judge].peers[0], NULL),
                               "ended the IKE SA: AUTHENTICATION_FAILED: the id it expects"));
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_empty(s));
    finish(s);
}

/* -- each way of proof, from both ends -- */

static void note_auth(void *ctx, const struct ike_sa_info *info)
{
    snprintf(ctx, 400, "%s / %s", info->auth_local, info->auth_remote);
}

static void raw_keys_need_no_identity(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        char how[400] = "";
        struct sim *s = raw(1);
        for (unsigned k = 0; k < 2; k++) {
            s->node[k].peers[0].remote_id_any = true;
            s->node[k].peers[0].remote_id = (struct identity){.type = ID_NONE};
        }
        comes_up(s, from);
        ike_each_sa(A->e, note_auth, how);
        assert_string_equal(how, "Ed25519 raw key / Ed25519 raw key");
        assert_non_null(sim_find(B, IKE_EVENT_IKE_UP, "proved by Ed25519 raw key"));
        ike_rekey(A->e, &A->peers[0], NULL, 2, s->now); /* what was proved once stays known */
        sim_for(s, 3 * NS_PER_S);
        ike_each_sa(B->e, note_auth, how);
        assert_string_equal(how, "Ed25519 raw key / Ed25519 raw key");
        finish(s);
    }
}

static const char *const keys[] = {VECTOR_A_RSA_KEY, VECTOR_A_P256_KEY, VECTOR_A_P384_KEY, VECTOR_A_P521_KEY, SEED_A};
static const char *const certs[] = {VECTOR_A_RSA_CRT, VECTOR_A_P256_CRT, VECTOR_A_P384_CRT, VECTOR_A_P521_CRT};

static void each_kind_of_key_proves(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++)
        for (unsigned from = 0; from < 2; from++) {
            struct sim *s = sim_new(i);
            own_key(&A->peers[0], keys[i]);
            own_key(&B->peers[0], SEED_B);
            wants_key(&A->peers[0], SEED_B);
            wants_key(&B->peers[0], keys[i]);
            comes_up(s, from);
            finish(s);
        }
}

static void each_kind_of_certificate_proves(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned from = 0; from < 2; from++) {
            struct sim *s = with_cert(keys[i], (const char *const[]){certs[i], NULL});
            comes_up(s, from);
            assert_non_null(sim_find(B, IKE_EVENT_IKE_UP, "certificate of C=CH, O=adit test, CN=a_"));
            finish(s);
        }
}

/* A proves itself by a certificate, B by a pre-shared key; and a raw key beside a certificate. */
static void each_end_may_prove_in_its_own_way(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        char how[400] = "";
        struct sim *s = sim_new(3);
        own_cert(&A->peers[0], VECTOR_A_P256_KEY, VECTOR_A_P256_CRT);
        wants_ca(&B->peers[0], VECTOR_ROOT_CRT);
        comes_up(s, from);
        ike_each_sa(A->e, note_auth, how);
        assert_string_equal(how, "ECDSA P-256 certificate of C=CH, O=adit test, CN=a_p256 / psk");
        finish(s);

        s = sim_new(4);
        own_cert(&A->peers[0], VECTOR_A_P256_KEY, VECTOR_A_P256_CRT);
        wants_ca(&B->peers[0], VECTOR_ROOT_CRT);
        own_key(&B->peers[0], SEED_B);
        wants_key(&A->peers[0], SEED_B);
        comes_up(s, from);
        finish(s);
    }
}

static void intermediates_are_sent_and_used(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        struct sim *s = with_cert(VECTOR_A_SUB_KEY, (const char *const[]){VECTOR_A_SUB_CRT, VECTOR_SUB_CRT, NULL});
        comes_up(s, from);
        finish(s);
    }
}

static void any_identity_of_the_ca_is_taken_when_configured(void **state)
{
    (void)state;
    struct sim *s = certified(6);
    B->peers[0].remote_id_any = true;
    B->peers[0].remote_id = (struct identity){.type = ID_NONE};
    comes_up(s, 0);
    finish(s);
    s = certified(6); /* but it has to be in the certificate */
    B->peers[0].remote_id_any = true;
    B->peers[0].remote_id = (struct identity){.type = ID_NONE};
    assert_int_equal(identity_parse("carol.example", &A->peers[0].local_id), OK);
    is_refused(s, 0, 1, "does not hold the identity carol.example");
}

/* -- the peer's hashes -- */

static void set_hashes(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    (void)n;
    if (job->kind == JOB_FINISH || job->kind == JOB_RESPOND)
        job->sa->peer_hashes = *(unsigned *)ctx;
    if (job->kind == JOB_VERIFY && !*(unsigned *)ctx)
        assert_int_not_equal(job->proof->method, SIG_METHOD_DIGITAL);
    (void)s;
}

static void who_announces_no_hash_gets_the_old_methods(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned from = 0; from < 2; from++) {
            unsigned none = 0;
            struct sim *s = with_cert(keys[i], (const char *const[]){certs[i], NULL});
            s->job_hook = set_hashes;
            s->job_hook_ctx = &none;
            comes_up(s, from);
            finish(s);
        }
}

/* The end that signs takes the other for an old one, which it is not (RFC 7427 section 3). */
static void forget_hashes(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    (void)s;
    if (n == ctx && (job->kind == JOB_FINISH || job->kind == JOB_RESPOND))
        job->sa->peer_hashes = 0;
}

static void old_method_is_refused_where_both_announced(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        struct sim *s = with_cert(keys[0], (const char *const[]){certs[0], NULL});
        s->job_hook = forget_hashes;
        s->job_hook_ctx = A;
        is_refused(s, from, 1, "although both ends announced RFC 7427");
    }
}

static void nothing_is_signed_with_a_hash_the_peer_did_not_announce(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        unsigned sha1 = 1u | 1u << 1;
        struct sim *s = raw(7);
        s->job_hook = set_hashes;
        s->job_hook_ctx = &sha1;
        go(s, from);
        assert_sim(sim_find(&s->node[from], IKE_EVENT_FAILED, "signature algorithms"));
        assert_sim(!sim_up(s));
        finish(s);
    }
}

static void hashes_are_read(void **state)
{
    (void)state;
    static const uint8_t list[] = {0, 1, 0, 2, 0, 5, 4, 0, 0};
    struct ike_message m = {.notifies = 1};
    m.notify[0].type = NOTIFY_SIGNATURE_HASH_ALGORITHMS;
    assert_int_equal(proof_hashes(&(struct ike_message){0}), 0);
    assert_int_not_equal(proof_hashes(&m), 0); /* it came, with nothing in it */
    assert_int_equal(proof_hashes(&m) & SIG_HASHES, 0);
    m.notify[0].data = span_of(list, sizeof list);
    assert_int_equal(proof_hashes(&m) & SIG_HASHES, SIG_HASH_BIT(SIG_SHA2_256) | SIG_HASH_BIT(SIG_IDENTITY));
}

/* -- refused -- */

static void wrong_keys_are_refused(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        struct sim *s = raw(10);
        forget(&B->peers[0]);
        own_key(&B->peers[0], SEED_B);
        wants_key(&B->peers[0], SEED_B); /* not A's */
        is_refused(s, from, 1, "is not by the configured public-key (Ed25519)");

        s = raw(11); /* right key, but it says to be somebody else than configured */
        assert_int_equal(identity_parse("carol.example", &B->peers[0].remote_id), OK);
        is_refused(s, from, 1, from ? "calls itself a.example" : "a.example at 10.0.0.1:4500 fits no peer");
    }
}

static void wrong_certificates_are_refused(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        struct sim *s = with_cert(VECTOR_A_OTHER_KEY, (const char *const[]){VECTOR_A_OTHER_CRT, NULL});
        is_refused(s, from, 1, "CN=other");
        s = with_cert(VECTOR_A_SUB_KEY, (const char *const[]){VECTOR_A_SUB_CRT, NULL});
        is_refused(s, from, 1, "CN=sub");
        s = with_cert(VECTOR_CAROL_KEY, (const char *const[]){VECTOR_CAROL_CRT, NULL}); /* says to be a.example */
        is_refused(s, from, 1, "does not hold the identity a.example");
        s = with_cert(VECTOR_A_P256_KEY, (const char *const[]){VECTOR_A_P256_CRT, NULL});
        assert_int_equal(identity_parse("carol.example", &A->peers[0].local_id), OK);
        /* right certificate, wrong identity */
        is_refused(s, from, 1, from ? "calls itself carol.example" : "carol.example at 10.0.0.1:4500 fits no peer");
        s = with_cert(VECTOR_A_RSA_KEY, (const char *const[]){VECTOR_A_P256_CRT, NULL}); /* another's certificate */
        is_refused(s, from, 1, "the key of its certificate (ECDSA P-256)");
        s = with_cert(VECTOR_A_P256_KEY, (const char *const[]){NULL});
        is_refused(s, from, 1, "it sent no certificate");
        /* The first CERT has to hold the key (RFC 7296 section 3.6). */
        s = with_cert(VECTOR_A_SUB_KEY, (const char *const[]){VECTOR_SUB_CRT, VECTOR_A_SUB_CRT, NULL});
        is_refused(s, from, 1, "the certificate of C=CH, O=adit test, CN=sub may not sign");
    }
}

static void dates_and_revocation_count(void **state)
{
    (void)state;
    char why[WHY];
    struct sim *s = certified(12);
    s->wall = INT64_C(9000000000); /* in the year 2255 */
    is_refused(s, 0, 1, "expired");
    s = certified(12);
    s->wall = 1000000000; /* in 2001 */
    is_refused(s, 0, 1, "not valid before");
    s = with_cert(VECTOR_A_P384_KEY, (const char *const[]){VECTOR_A_P384_CRT, NULL});
    assert_int_equal(trust_add_crl(B->peers[0].auth.trust, text_span(VECTOR_ROOT_CRL), why, sizeof why), OK);
    is_refused(s, 0, 1, "revoked");
    s = certified(13); /* the CRL does no harm to others */
    assert_int_equal(trust_add_crl(B->peers[0].auth.trust, text_span(VECTOR_ROOT_CRL), why, sizeof why), OK);
    comes_up(s, 0);
    finish(s);
}

static void the_method_is_the_configured_one(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        struct sim *s = sim_new(14);
        wants_ca(&B->peers[0], VECTOR_ROOT_CRT);
        is_refused(s, from, 1, "(id a.example) uses a pre-shared key, a signature by a certificate is configured");
        s = sim_new(15);
        own_cert(&A->peers[0], VECTOR_A_P256_KEY, VECTOR_A_P256_CRT);
        is_refused(s, from, 1, "a pre-shared key is configured");
        s = raw(16);
        B->peers[0].auth.remote = AUTH_PSK;
        is_refused(s, from, 1, "(id a.example) uses Ed25519, a pre-shared key is configured");
    }
}

/* -- which peer it is -- */

static void more_peers(struct sim_node *n, unsigned count)
{
    for (unsigned i = 1; i < count; i++) {
        n->peers[i] = n->peers[0];
        n->peers[i].auth = (struct authentication){.local = AUTH_PSK};
        snprintf(n->peers[i].name, sizeof n->peers[i].name, "peer%u", i);
    }
    n->config.peer_count = count;
}

static void open_peer(struct peer *p)
{
    p->endpoint_any = true;
    p->remote_id_any = true;
    p->remote_id = (struct identity){.type = ID_NONE};
}

/* B has several peers without id: the one is meant whose key it is. */
static void a_raw_key_finds_its_peer(void **state)
{
    (void)state;
    struct sim *s = sim_new(20);
    own_key(&A->peers[0], SEED_A);
    wants_key(&A->peers[0], SEED_B);
    more_peers(B, 4);
    for (unsigned i = 0; i < 4; i++) {
        open_peer(&B->peers[i]);
        own_key(&B->peers[i], SEED_B);
        wants_key(&B->peers[i], keys[(i + 2) % 4]);
    }
    public_key_free(B->peers[2].auth.public_key);
    wants_key(&B->peers[2], SEED_A);
    B->policies[0].peer = &B->peers[2];
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_sim(sim_up(s));
    assert_ptr_equal(sim_find(B, IKE_EVENT_IKE_UP, "peer2")->peer, &B->peers[2]);
    finish(s);
}

static void count_checks(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    (void)s;
    (void)n;
    if (job->kind == JOB_VERIFY)
        *(unsigned *)ctx += job->proof->candidates;
}

/* The name of a key is its fingerprint: then no other is tried. */
static void a_fingerprint_names_its_peer(void **state)
{
    (void)state;
    unsigned checks = 0;
    struct sim *s = sim_new(21);
    own_key(&A->peers[0], SEED_A);
    wants_key(&A->peers[0], SEED_B);
    A->peers[0].local_id = (struct identity){.type = ID_KEY_ID, .len = KEY_FINGERPRINT};
    public_key_fingerprint(private_key_public(A->peers[0].auth.key), A->peers[0].local_id.b);
    more_peers(B, 3);
    for (unsigned i = 0; i < 3; i++) {
        open_peer(&B->peers[i]);
        own_key(&B->peers[i], SEED_B);
        wants_key(&B->peers[i], i == 1 ? SEED_A : keys[i]);
    }
    B->policies[0].peer = &B->peers[1];
    s->job_hook = count_checks;
    s->job_hook_ctx = &checks;
    comes_up(s, 0);
    assert_int_equal(checks, 2); /* one at each end */
    finish(s);
}

/* Who fails to prove a name that is configured does not come in as a peer that takes any name. */
static void a_named_peer_has_no_second_chance(void **state)
{
    (void)state;
    struct sim *s = raw(22);
    more_peers(B, 2);
    open_peer(&B->peers[1]);
    own_key(&B->peers[1], SEED_B);
    wants_key(&B->peers[1], SEED_A);
    public_key_free(B->peers[0].auth.public_key);
    wants_key(&B->peers[0], VECTOR_A_P256_KEY);
    is_refused(s, 0, 1, "peer alice (id a.example): its signature");

    s = raw(23);
    more_peers(B, 2);
    open_peer(&B->peers[1]);
    own_key(&B->peers[1], SEED_B);
    wants_key(&B->peers[1], SEED_A);
    B->peers[0].auth.remote = AUTH_PSK;
    is_refused(s, 0, 1, "alice (id a.example) uses");
}

/* -- a hostile AUTH payload, made by somebody who has all else right -- */

enum harm { NO_DATA, TRUNCATED, LONGER, ZERO, FLIPPED, OTHER_METHOD, HUGE_LENGTH, HARMS };

static void harm(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    uint8_t filler[2000] = {0};
    if (job->kind != JOB_SIGN || n->index != 0)
        return;
    (void)s;
    struct buf *data = &job->proof->data;
    switch (*(enum harm *)ctx) {
    case NO_DATA:
        data->len = 0;
        break;
    case TRUNCATED:
        data->len--;
        break;
    case LONGER:
        assert_int_equal(buf_append(data, span_of(filler, 1)), OK);
        break;
    case ZERO:
        memset(data->data, 0, data->len);
        break;
    case FLIPPED:
        data->data[data->len / 2] ^= 4;
        break;
    case OTHER_METHOD:
        job->proof->method = SIG_METHOD_RSA;
        break;
    case HUGE_LENGTH:
        assert_int_equal(buf_append(data, span_of(filler, sizeof filler)), OK);
        break;
    case HARMS:
        break;
    }
}

static void mangled_proofs_are_refused(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 5; kind++)
        for (unsigned from = 0; from < 2; from++)
            for (enum harm how = 0; how < HARMS; how++) {
                if (how == OTHER_METHOD && kind == 0)
                    continue;
                struct sim *s = sim_new(30 + kind);
                own_key(&A->peers[0], keys[kind]);
                own_key(&B->peers[0], SEED_B);
                wants_key(&A->peers[0], SEED_B);
                wants_key(&B->peers[0], keys[kind]);
                s->job_hook = harm;
                s->job_hook_ctx = &how;
                is_refused(s, from, 1, "its signature");
            }
}

/* A proof is worth nothing in another SA: its octets hold both nonces and the first message. */
static void replay(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    struct buf *old = ctx;
    (void)s;
    if (job->kind != JOB_SIGN || n->index != 0)
        return;
    struct buf *data = &job->proof->data;
    assert_int_equal(old->len ? buf_set(data, buf_span(old)) : buf_set(old, buf_span(data)), OK);
}

static void proofs_of_another_sa_are_refused(void **state)
{
    (void)state;
    struct buf old = {0};
    for (unsigned from = 0; from < 2; from++) {
        struct sim *s = raw(40 + from);
        s->job_hook = replay;
        s->job_hook_ctx = &old;
        if (!from) { /* the one that is replayed */
            comes_up(s, from);
            finish(s);
            s = raw(42);
            s->job_hook = replay;
            s->job_hook_ctx = &old;
        }
        is_refused(s, from, 1, "is not by the configured public-key");
    }
    buf_free(&old);
}

/* CVE-2015-4171: who answers but can't prove learns nothing beyond our refusal. */
static enum sim_fate count_ike(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    ((unsigned *)ctx)[p->from] += !p->keepalive;
    return SIM_DELIVER;
}

static void a_false_responder_gets_no_more_than_a_refusal(void **state)
{
    (void)state;
    unsigned sent[SIM_NODES] = {0};
    struct sim *s = certified(43);
    private_key_free(B->peers[0].auth.key);
    chain_free(B->peers[0].auth.chain);
    free(B->peers[0].auth.chain);
    own_cert(&B->peers[0], VECTOR_CAROL_KEY, VECTOR_CAROL_CRT);
    s->hook = count_ike;
    s->hook_ctx = sent;
    go(s, 0);
    assert_sim(sim_find(A, IKE_EVENT_FAILED, "does not hold the identity b.example") && !sim_sending(A, NULL));
    assert_int_equal(sent[0], 3); /* IKE_SA_INIT, IKE_AUTH, and AUTHENTICATION_FAILED */
    assert_int_equal(A->spis, 0);
    s->hook = NULL;
    finish(s);
}

/* -- certificates on the wire -- */

static void other_encodings_are_ignored(void **state)
{
    (void)state;
    uint8_t message[8192];
    struct ike_builder b;
    struct ike_message m = {0};
    struct ike_header h = {.spi_i = 1, .version = 0x20, .exchange = EXCHANGE_AUTH};
    size_t len;
    ike_begin(&b, message, sizeof message, &h);
    for (unsigned i = 0; i < IKE_CERTS_MAX + 4; i++)
        ike_put_cert(&b, (uint8_t)(i + 1), span_of("body", 4));
    assert_int_equal(ike_finish(&b, &len), OK);
    assert_int_equal(ike_message_parse(span_of(message, len), &m), OK);
    assert_int_equal(m.certs, IKE_CERTS_MAX);
    assert_int_equal(m.cert[3].encoding, CERT_X509_SIGNATURE);
    assert_int_equal(m.cert[3].data.len, 4);

    ike_begin(&b, message, sizeof message, &h); /* an encoding must be there */
    ike_put(&b, PAYLOAD_CERT, span_of(NULL, 0));
    assert_int_equal(ike_finish(&b, &len), OK);
    assert_int_equal(ike_message_parse(span_of(message, len), &m), ERR_SYNTAX);
}

/* The responder asks in IKE_SA_INIT, the initiator in IKE_AUTH (section 1.2); who wants a raw key does not ask. */
static enum sim_fate find_request(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct ike_message m;
    (void)s;
    if (!p->keepalive && ike_message_parse(span_of(p->data, p->len), &m) == OK && m.h.exchange == EXCHANGE_SA_INIT)
        *(unsigned *)ctx |= (m.seen & PAYLOAD_BIT(PAYLOAD_CERTREQ) ? 1u : 4u) << (p->from ? 1 : 0);
    return SIM_DELIVER;
}

static void certificates_are_asked_for(void **state)
{
    (void)state;
    for (unsigned by_cert = 0; by_cert < 2; by_cert++) {
        unsigned seen = 0;
        struct sim *s = by_cert ? certified(44) : raw(44);
        s->hook = find_request;
        s->hook_ctx = &seen;
        comes_up(s, 0);
        assert_int_equal(seen, by_cert ? 2u | 4u : 4u | 8u);
        s->hook = NULL;
        finish(s);
    }
}

/* -- jobs -- */

static void reload_while_proving(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx)
{
    (void)ctx;
    (void)s;
    if (job->kind != JOB_SIGN && job->kind != JOB_VERIFY)
        return;
    /* The configuration goes, equal keys of another come: the jobs have references of their own. */
    forget(&n->peers[0]);
    if (n->index == 0) {
        own_cert(&n->peers[0], VECTOR_A_P256_KEY, VECTOR_A_P256_CRT);
        wants_ca(&n->peers[0], VECTOR_ROOT_CRT);
    } else {
        own_cert(&n->peers[0], VECTOR_B_P256_KEY, VECTOR_B_P256_CRT);
        wants_ca(&n->peers[0], VECTOR_ROOT_CRT);
    }
}

static void a_reload_may_come_while_a_job_runs(void **state)
{
    (void)state;
    struct sim *s = certified(50);
    s->job_hook = reload_while_proving;
    comes_up(s, 0);
    finish(s);
}

static void who_is_gone_from_the_configuration_is_refused(struct sim *s, struct sim_node *n, struct ike_job *job,
                                                          void *ctx)
{
    (void)ctx;
    (void)s;
    if (job->kind == JOB_VERIFY && n->index == 1) {
        forget(&n->peers[0]);
        own_cert(&n->peers[0], VECTOR_B_P256_KEY, VECTOR_B_P256_CRT);
        wants_ca(&n->peers[0], VECTOR_OTHER_CRT);
    }
}

static void trust_that_is_withdrawn_meanwhile_counts(void **state)
{
    (void)state;
    struct sim *s = certified(51);
    s->job_hook = who_is_gone_from_the_configuration_is_refused;
    is_refused(s, 0, 1, "left the configuration");
}

static void down_ends_an_attempt_whose_jobs_are_under_way(void **state)
{
    (void)state;
    for (ns_t after = 20; after < 60; after++) {
        struct sim *s = certified(60 + after);
        sim_start_engines(s, NULL);
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, after * NS_PER_MS);
        ike_down(A->e, &A->peers[0], NULL, 2, s->now);
        ike_down(B->e, &B->peers[0], NULL, 2, s->now);
        sim_for(s, 150 * NS_PER_S);
        assert_sim(sim_empty(s));
        finish(s);
    }
}

static void loss_and_repeats_do_no_harm(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 312; seed++) {
        struct sim *s = seed % 2 ? certified(seed) : raw(seed);
        s->loss = 30;
        s->duplicate = s->reorder = 20;
        s->jitter = 50 * NS_PER_MS;
        A->peers[0].start = START_YES;
        B->peers[0].start = seed % 3 ? START_NO : START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        ike_start(B->e, s->now);
        sim_run(s, s->now + 600 * NS_PER_S, sim_both);
        assert_sim(sim_both(s));
        s->loss = 0;
        sim_for(s, 300 * NS_PER_S);
        assert_sim(sim_up(s));
        finish(s);
    }
}

/* More certificates than a message holds: an attempt that fails as any other, with its reason, and not every second. */
static void certificates_that_fit_no_message(void **state)
{
    (void)state;
    struct sim *s = certified(90);
    struct chain *chain = A->peers[0].auth.chain;
    static const uint8_t much[CERT_DER_MAX];
    A->peers[0].start = START_YES;
    while (chain->n < 6)
        assert_int_equal(buf_set(&chain->der[chain->n++], span_of(much, sizeof much)), OK);
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 60 * NS_PER_S);
    assert_true(sim_command(A, 1) && !sim_command(A, 1)->ok);
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "could not be made"));
    assert_in_range(sim_count(A, IKE_EVENT_FAILED), 2, 10);
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN), 0);
    finish(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_keys_need_no_identity),
        cmocka_unit_test(each_kind_of_key_proves),
        cmocka_unit_test(each_kind_of_certificate_proves),
        cmocka_unit_test(each_end_may_prove_in_its_own_way),
        cmocka_unit_test(intermediates_are_sent_and_used),
        cmocka_unit_test(any_identity_of_the_ca_is_taken_when_configured),
        cmocka_unit_test(who_announces_no_hash_gets_the_old_methods),
        cmocka_unit_test(old_method_is_refused_where_both_announced),
        cmocka_unit_test(nothing_is_signed_with_a_hash_the_peer_did_not_announce),
        cmocka_unit_test(hashes_are_read),
        cmocka_unit_test(wrong_keys_are_refused),
        cmocka_unit_test(wrong_certificates_are_refused),
        cmocka_unit_test(dates_and_revocation_count),
        cmocka_unit_test(the_method_is_the_configured_one),
        cmocka_unit_test(a_raw_key_finds_its_peer),
        cmocka_unit_test(a_fingerprint_names_its_peer),
        cmocka_unit_test(a_named_peer_has_no_second_chance),
        cmocka_unit_test(mangled_proofs_are_refused),
        cmocka_unit_test(proofs_of_another_sa_are_refused),
        cmocka_unit_test(a_false_responder_gets_no_more_than_a_refusal),
        cmocka_unit_test(other_encodings_are_ignored),
        cmocka_unit_test(certificates_are_asked_for),
        cmocka_unit_test(a_reload_may_come_while_a_job_runs),
        cmocka_unit_test(trust_that_is_withdrawn_meanwhile_counts),
        cmocka_unit_test(down_ends_an_attempt_whose_jobs_are_under_way),
        cmocka_unit_test(loss_and_repeats_do_no_harm),
        cmocka_unit_test(certificates_that_fit_no_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
