/*
 * Post-quantum preshared keys (RFC 8784). SK_d, SK_pi and SK_pr take the key in; with an optional one the initiator
 * keeps what they were before, for a responder that turns out to know another.
 */
#include <stdlib.h>

#include "ike/internal.h"

#define PPK_ID_FIXED 2 /* section 5.1: the rest of the PPK_ID is a configured value */

static bool peer_has(const struct peer *p)
{
    return p->ppk.len != 0;
}

bool ppk_configured(const struct ike_engine *e, const struct path *path)
{
    struct strangers all = strangers_at(e, &path->remote.ip);
    for (const struct run *r; (r = stranger_next(&all)) != NULL;)
        if (peer_has(r->peer))
            return true;
    return false;
}

void ppk_put_support(struct ike_builder *b)
{
    struct span none = span_of(NULL, 0);
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_USE_PPK, none);
}

/* The keys as they were go aside, and the preshared key goes in. */
static enum err mix(struct ike_sa *sa, const struct peer *peer)
{
    sa->plain = secret_alloc(sizeof *sa->plain);
    if (!sa->plain)
        return ERR_NOMEM;
    *sa->plain = *sa->keys;
    sa->ppk = true;
    return keymat_ppk(sa->keys, secret_span(&peer->ppk));
}

static void unmix(struct ike_sa *sa)
{
    sa->keys->d = sa->plain->d;
    sa->keys->pi = sa->plain->pi;
    sa->keys->pr = sa->plain->pr;
    sa->ppk = false;
}

void ppk_forget(struct ike_sa *sa)
{
    secret_free(sa->plain);
    sa->plain = NULL;
    buf_free(&sa->plain_auth);
}

void ppk_audit(const struct ike_sa *sa)
{
    if (peer_has(sa->run->peer) && !sa->ppk)
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path,
               "the IKE SA with %s is up without the post-quantum preshared key: the peer %s", sa_peer_name(sa),
               sa->ppk_agreed ? "has none of that ppk-id" : "uses none");
}

/* -- initiator -- */

bool ppk_missing(const struct ike_sa *sa, const struct ike_message *m)
{
    return sa->run->peer->ppk_required && !ike_find_notify(m, NOTIFY_USE_PPK);
}

enum err ppk_begin(struct ike_sa *sa)
{
    return sa->ppk_agreed ? mix(sa, sa->run->peer) : OK;
}

void ppk_put_request(const struct ike_sa *sa, struct ike_builder *b)
{
    uint8_t id[1 + IDENTITY_MAX];
    struct span none = span_of(NULL, 0);
    const struct peer *peer = sa->run->peer;
    if (!sa->ppk)
        return;
    struct writer w = writer_of(id, sizeof id);
    write_u8(&w, PPK_ID_FIXED);
    write_bytes(&w, peer->ppk_id.b, peer->ppk_id.len);
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_PPK_IDENTITY, span_of(id, writer_len(&w)));
    if (!peer->ppk_required)
        ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_NO_PPK_AUTH, buf_span(&sa->plain_auth));
}

bool ppk_answered(struct ike_sa *sa, const struct ike_message *m)
{
    if (!sa->ppk || ike_find_notify(m, NOTIFY_PPK_IDENTITY))
        return true;
    if (sa->run->peer->ppk_required)
        return false;
    unmix(sa);
    return true;
}

/* -- responder -- */

static bool names(const struct ike_notify *n, const struct identity *id)
{
    return n->data.len == 1u + id->len && n->data.data[0] == PPK_ID_FIXED &&
           memcmp(n->data.data + 1, id->b, id->len) == 0;
}

bool ppk_shared(const struct peer *a, const struct peer *b)
{
    return a->ppk.len == b->ppk.len && secret_equal(a->ppk.b, b->ppk.b, a->ppk.len) && a->ppk_id.len == b->ppk_id.len &&
           memcmp(a->ppk_id.b, b->ppk_id.b, a->ppk_id.len) == 0 && a->ppk_required == b->ppk_required;
}

bool ppk_holds(const struct ike_sa *sa, const struct peer *peer, const struct ike_message *m)
{
    const struct ike_notify *id = ike_find_notify(m, NOTIFY_PPK_IDENTITY);
    return sa->ppk ? id && peer_has(peer) && names(id, &peer->ppk_id) : !peer->ppk_required;
}

const char *ppk_decide(struct ike_sa *sa, const struct peer *peer, const struct ike_message *m, struct span *without)
{
    const struct ike_notify *id = ike_find_notify(m, NOTIFY_PPK_IDENTITY);
    const struct ike_notify *no_ppk = ike_find_notify(m, NOTIFY_NO_PPK_AUTH);
    *without = span_of(NULL, 0);
    if (!sa->ppk_agreed)
        return peer->ppk_required ? "a post-quantum preshared key is required (ppk-required), and it uses none" : NULL;
    if (!id)
        return "it announced a post-quantum preshared key and names none";
    if (peer_has(peer) && names(id, &peer->ppk_id))
        return mix(sa, peer) == OK ? NULL : "the post-quantum preshared key could not be used";
    if (peer->ppk_required)
        return "it names another post-quantum preshared key than ours (ppk-id), which is required";
    if (!no_ppk)
        return "it requires a post-quantum preshared key that is not ours (ppk-id)";
    *without = no_ppk->data;
    return NULL;
}

void ppk_put_answer(const struct ike_sa *sa, struct ike_builder *b)
{
    struct span none = span_of(NULL, 0);
    if (sa->ppk)
        ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_PPK_IDENTITY, none);
}
