#include "test/unit/scripted.h"

#include <stdio.h>
#include <stdlib.h>

#define NONE span_of(NULL, 0)
#define MUST(expr)                                                            \
    do {                                                                      \
        enum err must_err = (expr);                                           \
        if (must_err != OK) {                                                 \
            fprintf(stderr, "scripted: %s: %s\n", #expr, err_text(must_err)); \
            abort();                                                          \
        }                                                                     \
    } while (0)

static struct span nonce_of(const struct nonce *n)
{
    return span_of(n->b, n->len);
}

/* -- what the engine says -- */

static enum err open_sk(const struct scripted *p, struct heard *h)
{
    struct span text;
    TRY(ike_open_sk(h->bytes, &h->m, &p->suite, p->open, &text));
    return ike_inner_parse(h->m.sk_first, text, &h->m);
}

static void hear(struct scripted *p, struct heard *h, const struct sim_packet *packet)
{
    h->n++;
    MUST(buf_set(&h->raw, span_of(packet->data, packet->len)));
    memcpy(h->bytes, packet->data, packet->len);
    enum err err = ike_message_parse(span_of(h->bytes, packet->len), &h->m);
    if (err == OK && h->m.sk_offset && p->open)
        err = open_sk(p, h);
    h->readable = err == OK;
}

static enum sim_fate listen_to(struct sim *s, struct sim_packet *packet, void *ctx)
{
    struct scripted *p = ctx;
    (void)s;
    if (packet->from != 1)
        return SIM_DELIVER;
    if (!packet->keepalive && packet->len >= IKE_HEADER_LEN)
        hear(p, packet->data[19] & IKE_FLAG_RESPONSE ? &p->answer : &p->request, packet);
    return SIM_DROP;
}

bool scripted_told(const struct heard *h, uint8_t exchange, uint16_t notify)
{
    return h->n && h->readable && h->m.h.exchange == exchange && ike_find_notify(&h->m, notify);
}

unsigned scripted_sas(const struct scripted *p, enum ike_state state)
{
    return sim_ike_sas(&p->s->node[1], state);
}

/* -- set-up -- */

struct scripted *scripted_new(struct sim *s, const struct ike_limits *limits)
{
    struct scripted *p = calloc(1, sizeof *p);
    struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
    p->s = s;
    p->from = (struct endpoint){s->node[0].ip, 500};
    p->to = (struct endpoint){s->node[1].ip, 500};
    p->spi_i = 0x1122334455667788;
    p->child_spi = 0xc0000001;
    p->out = malloc(IKE_MESSAGE_MAX);
    p->answer.bytes = malloc(IKE_MESSAGE_MAX);
    p->request.bytes = malloc(IKE_MESSAGE_MAX);
    p->own.len = 32;
    random_fill(&random_system, p->own.b, p->own.len);
    MUST(suite_of(&gcm, NULL, &p->suite));
    MUST(kex_offer(KE_CURVE25519, &random_system, &p->kex, &p->pub));
    s->hook = listen_to;
    s->hook_ctx = p;
    sim_start_engines(s, limits);
    return p;
}

void scripted_free(struct scripted *p)
{
    sim_free(p->s);
    keyed_free(p->seal);
    keyed_free(p->open);
    kex_free(p->kex);
    secret_free(p->keys);
    buf_free(&p->first_own);
    buf_free(&p->first_peer);
    buf_free(&p->answer.raw);
    buf_free(&p->request.raw);
    free(p->answer.bytes);
    free(p->request.bytes);
    free(p->out);
    free(p);
}

/* -- what we say -- */

void scripted_init(struct scripted *p)
{
    struct ike_header h = {
        .spi_i = p->spi_i, .version = 0x20, .exchange = EXCHANGE_SA_INIT, .flags = IKE_FLAG_INITIATOR};
    ike_begin(&p->b, p->out, IKE_MESSAGE_MAX, &h);
    p->protected = false;
    p->next = 1;
}

void scripted_put_sa(struct scripted *p)
{
    proposal_put_offer(&p->b, &p->s->node[0].peers[0].ike, 0, 0);
}

void scripted_put_ke(struct scripted *p)
{
    ike_put_ke(&p->b, KE_CURVE25519, span_of(p->pub.b, p->pub.len));
}

void scripted_put_nonce(struct scripted *p)
{
    uint8_t hash[NAT_HASH_LEN];
    ike_put(&p->b, PAYLOAD_NONCE, nonce_of(&p->own));
    nat_hash(p->spi_i, 0, &p->from, hash);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_NAT_DETECTION_SOURCE_IP, span_of(hash, sizeof hash));
    nat_hash(p->spi_i, 0, &p->to, hash);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, NOTIFY_NAT_DETECTION_DESTINATION_IP, span_of(hash, sizeof hash));
}

void scripted_protected(struct scripted *p, uint8_t exchange, bool response, uint32_t id)
{
    uint8_t iv[8];
    struct ike_header h = {.spi_i = p->spi_i,
                           .spi_r = p->spi_r,
                           .version = 0x20,
                           .exchange = exchange,
                           .flags = (uint8_t)(IKE_FLAG_INITIATOR | (response ? IKE_FLAG_RESPONSE : 0)),
                           .message_id = id};
    put_be64(iv, ++p->iv);
    ike_begin(&p->b, p->out, IKE_MESSAGE_MAX, &h);
    ike_begin_sk(&p->b, &p->suite, span_of(iv, 8));
    p->protected = true;
}

void scripted_request(struct scripted *p, uint8_t exchange)
{
    scripted_protected(p, exchange, false, p->next++);
}

void scripted_reply(struct scripted *p)
{
    scripted_protected(p, p->request.m.h.exchange, true, p->request.m.h.message_id);
}

void scripted_put_auth(struct scripted *p, const struct identity *id, struct span body)
{
    uint8_t auth[PRF_MAX], plain[4 + IDENTITY_MAX] = {id->type};
    memcpy(plain + 4, id->b, id->len);
    ike_put(&p->b, PAYLOAD_IDI, body.len ? body : span_of(plain, 4u + id->len));
    MUST(keymat_psk_auth(PRF_HMAC_SHA2_256, secret_span(&p->s->node[0].peers[0].psk), &p->keys->pi,
                         buf_span(&p->first_own), nonce_of(&p->theirs), body.len ? body : span_of(plain, 4u + id->len),
                         auth));
    ike_put_auth(&p->b, 2, span_of(auth, 32));
}

void scripted_put_child(struct scripted *p, uint32_t spi)
{
    const struct policy *policy = &p->s->node[0].policies[0];
    struct proposals esp;
    sim_proposals(&esp, PROTOCOL_ESP, "aes128gcm16-noesn");
    proposal_put_offer(&p->b, &esp, spi, 4);
    ike_put_ts(&p->b, PAYLOAD_TSI, &policy->local);
    ike_put_ts(&p->b, PAYLOAD_TSR, &policy->remote);
}

void scripted_put_spi(struct scripted *p, uint16_t type, uint8_t protocol, uint32_t spi)
{
    uint8_t bytes[4];
    put_be32(bytes, spi);
    ike_put_notify(&p->b, protocol, span_of(bytes, 4), type, NONE);
}

void scripted_send(struct scripted *p)
{
    size_t len;
    struct path path = {.local = p->to, .remote = p->from, .marker = p->protected};
    if (p->protected) {
        path.local.port = path.remote.port = 4500;
        MUST(ike_finish_sk(&p->b, &p->suite, p->seal, &len));
    } else {
        MUST(ike_finish(&p->b, &len));
        MUST(buf_set(&p->first_own, span_of(p->out, len)));
    }
    sim_inject(p->s, 1, &path, span_of(p->out, len));
    sim_for(p->s, 20 * NS_PER_MS);
}

/* -- whole exchanges -- */

void scripted_derive(struct scripted *p)
{
    struct kex_secret g;
    const struct ike_message *m = &p->answer.m;
    p->spi_r = m->h.spi_r;
    p->theirs.len = (uint16_t)m->nonce.len;
    memcpy(p->theirs.b, m->nonce.data, m->nonce.len);
    MUST(buf_set(&p->first_peer, buf_span(&p->answer.raw)));
    p->keys = secret_alloc(sizeof *p->keys);
    MUST(kex_finish(p->kex, m->ke, &g));
    kex_free(p->kex);
    p->kex = NULL;
    MUST(keymat_ike(p->keys, PRF_HMAC_SHA2_256, &p->suite, nonce_of(&p->own), nonce_of(&p->theirs), p->spi_i, p->spi_r,
                    &g));
    MUST(keyed_new(&p->seal, &p->suite, TRANSFORM_SEAL, NULL, secret_span(&p->keys->ei), NONE));
    MUST(keyed_new(&p->open, &p->suite, TRANSFORM_OPEN, NULL, secret_span(&p->keys->er), NONE));
}

void scripted_exchange_init(struct scripted *p)
{
    scripted_init(p);
    scripted_put_sa(p);
    scripted_put_ke(p);
    scripted_put_nonce(p);
    scripted_send(p);
    scripted_derive(p);
}

void scripted_exchange_auth(struct scripted *p)
{
    scripted_request(p, EXCHANGE_AUTH);
    scripted_put_auth(p, &p->s->node[0].peers[0].local_id, NONE);
    scripted_put_child(p, p->child_spi);
    scripted_send(p);
}

struct scripted *scripted_connected(uint64_t seed)
{
    struct scripted *p = scripted_new(sim_new(seed), NULL);
    scripted_exchange_init(p);
    scripted_exchange_auth(p);
    return p;
}
