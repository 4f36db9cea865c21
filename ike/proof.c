#include "ike/proof.h"

#include <stdio.h>
#include <stdlib.h>

#include "crypto/dn.h"
#include "crypto/prf.h"

#define ID_BODY_MAX (4 + IDENTITY_MAX)
#define HASHES_ANNOUNCED 1u /* a list came, perhaps of nothing we know: bit 0 is no algorithm's */
#define DER_SEQUENCE 0x30

/* -- what is proved -- */

/* The body of an ID payload as we write it, which our AUTH covers. */
static struct span id_body(const struct identity *id, uint8_t out[ID_BODY_MAX])
{
    struct writer w = writer_of(out, ID_BODY_MAX);
    write_u8(&w, id->type);
    write_bytes(&w, "\0\0\0", 3);
    write_bytes(&w, id->b, id->len);
    return span_of(out, writer_len(&w));
}

/* The SK_p, first message and nonce that an end vouches for; own tells which end. */
struct vouched {
    const struct secret *sk_p;
    struct span message, nonce;
};

static struct vouched vouched_by(const struct ike_sa *sa, bool own)
{
    return (struct vouched){
        .sk_p = own == sa->initiator ? &sa->keys->pi : &sa->keys->pr,
        .message = buf_span(own ? &sa->first_own : &sa->first_peer),
        .nonce = nonce_span(own ? &sa->nonce_peer : &sa->nonce_own),
    };
}

static enum err psk_auth(const struct ike_sa *sa, const struct peer *peer, bool own, struct span body,
                         uint8_t out[PRF_MAX])
{
    struct vouched v = vouched_by(sa, own);
    return keymat_psk_auth(sa->prf, secret_span(&peer->psk), v.sk_p, v.message, v.nonce, body, out);
}

bool proof_psk_right(const struct ike_sa *sa, const struct peer *peer, const struct ike_message *m, struct span body)
{
    uint8_t want[PRF_MAX];
    unsigned len = prf_len(sa->prf);
    bool ok = m->auth_data.len == len && psk_auth(sa, peer, false, body, want) == OK &&
              secret_equal(want, m->auth_data.data, len);
    secret_wipe(want, sizeof want);
    return ok;
}

/* NULL: no memory, or no crypto. */
static struct proof *proof_new(const struct ike_sa *sa, bool own, struct span body)
{
    struct vouched v = vouched_by(sa, own);
    struct proof *p = calloc(1, sizeof *p);
    if (p && keymat_signed_octets(sa->prf, v.sk_p, v.message, v.nonce, body, &p->octets) == OK)
        return p;
    proof_free(p);
    return NULL;
}

void proof_free(struct proof *p)
{
    if (!p)
        return;
    buf_free(&p->octets);
    buf_free(&p->data);
    private_key_free(p->key);
    chain_free(&p->chain);
    for (unsigned i = 0; i < p->candidates; i++) {
        public_key_free(p->candidate[i].key);
        trust_free(p->candidate[i].trust);
    }
    free(p);
}

/* -- how, in words -- */

static void describe(const struct public_key *key, const struct chain *chain, char *out, size_t size)
{
    char kind[64], subject[AUTH_TEXT];
    struct span name;
    public_key_text(key, kind, sizeof kind);
    if (!chain)
        snprintf(out, size, "%s raw key", kind);
    else if (chain_subject(chain, &name) == OK)
        snprintf(out, size, "%s certificate of %s", kind, dn_format(name, subject, sizeof subject));
    else
        snprintf(out, size, "%s certificate without subject", kind);
}

enum auth_method proof_kind(uint8_t method)
{
    return method == AUTH_METHOD_SHARED_KEY ? AUTH_PSK : AUTH_PUBKEY;
}

const char *proof_text(const struct ike_message *m, char *text, size_t size)
{
    if (!m->auth_data.data)
        return "EAP";
    if (m->auth_method == AUTH_METHOD_SHARED_KEY)
        return "a pre-shared key";
    return sig_auth_text(m->auth_method, m->auth_data, text, size);
}

const char *proof_wanted(const struct peer *peer)
{
    return peer->auth.remote == AUTH_PSK ? "a pre-shared key"
           : peer->auth.public_key       ? "a signature by its public-key"
                                         : "a signature by a certificate";
}

/* -- ours -- */

enum err proof_sign(struct proof *p, const struct random_source *rnd)
{
    return sig_auth_make(p->key, p->hashes, rnd, buf_span(&p->octets), &p->method, &p->data);
}

static void sign_done(struct ike_sa *sa, struct ike_job *job)
{
    const struct proof *p = job->proof;
    p->made(sa, job->result, p->method, buf_span(&p->data));
}

static enum err sign(struct ike_sa *sa, struct span body,
                     void (*made)(struct ike_sa *, enum err, uint8_t method, struct span data))
{
    const struct authentication *a = &sa->run->peer->auth;
    struct proof *p = proof_new(sa, true, body);
    if (!p)
        return ERR_NOMEM;
    p->key = private_key_ref(a->key);
    p->hashes = sa->peer_hashes;
    p->made = made;
    describe(private_key_public(a->key), a->chain, sa->auth_local, sizeof sa->auth_local);
    return job_start_proof(sa, JOB_SIGN, p, sign_done);
}

void proof_make(struct ike_sa *sa, void (*made)(struct ike_sa *, enum err, uint8_t method, struct span data))
{
    const struct peer *peer = sa->run->peer;
    uint8_t body_bytes[ID_BODY_MAX], auth[PRF_MAX] = {0};
    struct span body = id_body(&sa->local_id, body_bytes), none = span_of(NULL, 0);
    if (peer->auth.local == AUTH_PSK) {
        enum err err = psk_auth(sa, peer, true, body, auth);
        snprintf(sa->auth_local, sizeof sa->auth_local, "psk");
        made(sa, err, AUTH_METHOD_SHARED_KEY, span_of(auth, prf_len(sa->prf)));
        secret_wipe(auth, sizeof auth);
        return;
    }
    enum err err = sign(sa, body, made);
    if (err != OK)
        made(sa, err, 0, none);
}

/* -- the peer's -- */

bool proof_fits(const struct proof_candidate *c, const struct peer *peer)
{
    const struct authentication *a = &peer->auth;
    if (a->remote != AUTH_PUBKEY)
        return false;
    if (c->key || a->public_key)
        return c->key && a->public_key && public_key_equal(c->key, a->public_key);
    return a->trust && trust_equal(c->trust, a->trust);
}

/* What is wrong with a signature by a key that is trusted. */
static void explain(struct proof *p, const struct public_key *key, const char *whose, enum err err)
{
    char method[96], kind[64];
    sig_auth_text(p->method, buf_span(&p->data), method, sizeof method);
    public_key_text(key, kind, sizeof kind);
    if (err == ERR_AUTH)
        snprintf(p->why, sizeof p->why, "its signature (%s) is not by %s (%s)", method, whose, kind);
    else if (err == ERR_UNSUPPORTED)
        snprintf(p->why, sizeof p->why,
                 "its signature (%s) is of a method that %s (%s) does not have, or of a hash that was not announced",
                 method, whose, kind);
    else
        snprintf(p->why, sizeof p->why, "its signature (%s) can't be checked: %s", method, err_text(err));
}

static enum err check_signature(struct proof *p, const struct public_key *key, const struct chain *chain)
{
    char method[96];
    if (p->hashes && p->method != SIG_METHOD_DIGITAL) { /* we announce always (RFC 7427 section 3) */
        snprintf(p->why, sizeof p->why, "its signature (%s) is of the older kind although both ends announced RFC 7427",
                 sig_auth_text(p->method, buf_span(&p->data), method, sizeof method));
        return ERR_UNSUPPORTED;
    }
    enum err err = sig_auth_check(key, SIG_HASHES, p->method, buf_span(&p->data), buf_span(&p->octets));
    if (err == OK)
        describe(key, chain, p->how, sizeof p->how);
    else
        explain(p, key, chain ? "the key of its certificate" : "the configured public-key", err);
    return err;
}

/*
 * Path, identity, signature: each must hold. The identity is the certificate's, so that who holds some certificate of a
 * CA can't speak for another (RFC 7296 section 3.5, RFC 4945 section 3.1).
 */
static enum err check_certificate(struct proof *p, const struct trust *trust)
{
    char id[IDENTITY_TEXT], holder[AUTH_TEXT];
    struct public_key *key = NULL;
    if (p->chain.n == 0) {
        if (!p->why[0])
            snprintf(p->why, sizeof p->why, "it sent no certificate");
        return ERR_AUTH;
    }
    if (!p->dated) {
        snprintf(p->why, sizeof p->why, "its certificate can't be judged: the date is not known here");
        return ERR_AUTH;
    }
    TRY(cert_verify(trust, &p->chain, p->now, &key, p->why, sizeof p->why));
    enum err err = OK;
    if (!cert_has_identity(&p->chain, p->id.type, span_of(p->id.b, p->id.len))) {
        describe(key, &p->chain, holder, sizeof holder);
        snprintf(p->why, sizeof p->why, "its certificate does not hold the identity %s (%s)",
                 identity_format(&p->id, id, sizeof id), holder);
        err = ERR_AUTH;
    }
    if (err == OK)
        err = check_signature(p, key, &p->chain);
    public_key_free(key);
    return err;
}

enum err proof_verify(struct proof *p)
{
    char first[sizeof p->why] = "";
    enum err err = ERR_AUTH;
    for (unsigned i = 0; i < p->candidates; i++) {
        const struct proof_candidate *c = &p->candidate[i];
        err = c->key ? check_signature(p, c->key, NULL) : check_certificate(p, c->trust);
        p->proven = i;
        if (err == OK)
            return OK;
        if (i == 0)
            memcpy(first, p->why, sizeof first);
    }
    memcpy(p->why, first, sizeof first); /* that of the peer which fits best */
    return err;
}

static void check_done(struct ike_sa *sa, struct ike_job *job)
{
    if (job->result == OK)
        memcpy(sa->auth_remote, job->proof->how, sizeof sa->auth_remote);
    job->proof->checked(sa, job->proof, job->result);
}

/*
 * The certificates of the message, of the one encoding that carries X.509 as it is. What is none ends the list: then the
 * path is found without it, or not. A raw public key (RFC 7670) tells nothing that is not configured.
 */
static enum err collect_chain(struct proof *p, const struct ike_message *m)
{
    for (unsigned i = 0; i < m->certs && p->chain.n < CERT_CHAIN_MAX; i++) {
        const struct ike_cert *c = &m->cert[i];
        if (c->encoding != CERT_X509_SIGNATURE)
            continue;
        if (c->data.len == 0 || c->data.len > CERT_DER_MAX || c->data.data[0] != DER_SEQUENCE)
            return OK;
        enum err err = chain_add(&p->chain, c->data, p->why, sizeof p->why);
        if (err != OK)
            return err == ERR_NOMEM ? err : OK;
    }
    return OK;
}

static void add_candidate(struct proof *p, const struct authentication *a)
{
    struct proof_candidate *c = &p->candidate[p->candidates++];
    if (a->public_key)
        c->key = public_key_ref(a->public_key);
    else
        c->trust = trust_ref(a->trust);
}

enum err proof_check(struct ike_sa *sa, const struct ike_message *m, struct span body, const struct peer *const *peers,
                     unsigned n, void (*checked)(struct ike_sa *, const struct proof *, enum err))
{
    struct ike_engine *e = sa->e;
    struct proof *p = proof_new(sa, false, body);
    if (!p)
        return ERR_NOMEM;
    p->method = m->auth_method;
    p->hashes = sa->peer_hashes;
    p->id = sa->remote_id;
    p->dated = e->env.wall != NULL;
    p->now = p->dated ? e->env.wall(e->env.ctx) : 0;
    p->checked = checked;
    for (unsigned i = 0; i < n && i < PROOF_CANDIDATES; i++)
        add_candidate(p, &peers[i]->auth);
    enum err err = buf_set(&p->data, m->auth_data);
    if (err == OK)
        err = collect_chain(p, m);
    if (err == OK)
        return job_start_proof(sa, JOB_VERIFY, p, check_done);
    proof_free(p);
    return err;
}

/* -- payloads -- */

void proof_put_hashes(struct ike_builder *b)
{
    uint8_t list[2 * 4];
    struct writer w = writer_of(list, sizeof list);
    for (uint16_t hash = SIG_SHA2_256; hash <= SIG_IDENTITY; hash++)
        write_u16(&w, hash);
    ike_put_notify(b, PROTOCOL_NONE, span_of(NULL, 0), NOTIFY_SIGNATURE_HASH_ALGORITHMS, span_of(list, writer_len(&w)));
}

unsigned proof_hashes(const struct ike_message *m)
{
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_SIGNATURE_HASH_ALGORITHMS);
    unsigned bits = n ? HASHES_ANNOUNCED : 0;
    struct reader r = reader_of(n ? n->data : span_of(NULL, 0));
    while (reader_left(&r) >= 2) {
        uint16_t hash = read_u16(&r);
        if (hash <= SIG_IDENTITY)
            bits |= SIG_HASH_BIT(hash);
    }
    return bits;
}

/*
 * Whether or not the peer asks for them: what CERTREQ names is a hint, and cross-certification may make another CA do
 * (section 3.7).
 */
void proof_put_certs(struct ike_builder *b, const struct peer *peer)
{
    const struct authentication *a = &peer->auth;
    if (a->local != AUTH_PUBKEY || !a->chain)
        return;
    for (unsigned i = 0; i < a->chain->n; i++)
        ike_put_cert(b, CERT_X509_SIGNATURE, buf_span(&a->chain->der[i]));
}

static bool listed(const struct proof_hints *h, const uint8_t *hint)
{
    for (unsigned i = 0; i < h->n; i++)
        if (!memcmp(h->b[i], hint, CERT_HINT))
            return true;
    return false;
}

void proof_hint(struct proof_hints *h, const struct peer *peer)
{
    const struct authentication *a = &peer->auth;
    if (a->remote != AUTH_PUBKEY || a->public_key || a->trust == h->last)
        return;
    h->last = a->trust;
    for (unsigned i = 0; i < trust_count(a->trust) && h->n < PROOF_HINTS; i++) {
        trust_hint(a->trust, i, h->b[h->n]);
        h->n += !listed(h, h->b[h->n]);
    }
}

void proof_put_request(struct ike_builder *b, const struct proof_hints *h)
{
    if (!h->last)
        return;
    ike_open(b, PAYLOAD_CERTREQ);
    write_u8(&b->w, CERT_X509_SIGNATURE);
    write_bytes(&b->w, h->b, (size_t)h->n * CERT_HINT);
    ike_close(b);
}
