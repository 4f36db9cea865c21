#include "test/unit/credential.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WHY 400

struct span text_span(const char *text)
{
    return span_of(text, strlen(text));
}

/* What a node's peer proves by is another's key: only public halves cross. */
static struct private_key *key_of(const char *text)
{
    char why[WHY];
    struct private_key *k = NULL;
    if (private_key_parse(text_span(text), &k, why, sizeof why) != OK)
        fail_msg("%s", why);
    return k;
}

void own_key(struct peer *p, const char *key)
{
    p->auth.local = AUTH_PUBKEY;
    p->auth.key = key_of(key);
}

void own_certs(struct peer *p, const char *key, const char *const *certs)
{
    char why[WHY];
    own_key(p, key);
    p->auth.chain = calloc(1, sizeof *p->auth.chain);
    for (unsigned i = 0; certs[i]; i++)
        if (chain_add(p->auth.chain, text_span(certs[i]), why, sizeof why) != OK)
            fail_msg("%s", why);
}

void own_cert(struct peer *p, const char *key, const char *cert)
{
    own_certs(p, key, (const char *const[]){cert, NULL});
}

void wants_key(struct peer *p, const char *key)
{
    char why[WHY];
    struct private_key *k = key_of(key);
    p->auth.remote = AUTH_PUBKEY;
    if (public_key_parse(public_key_spki(private_key_public(k)), &p->auth.public_key, why, sizeof why) != OK)
        fail_msg("%s", why);
    public_key_fingerprint(p->auth.public_key, p->auth.fingerprint);
    private_key_free(k);
}

void wants_ca(struct peer *p, const char *ca)
{
    char why[WHY];
    p->auth.remote = AUTH_PUBKEY;
    assert_int_equal(trust_new(&p->auth.trust), OK);
    if (trust_add_ca(p->auth.trust, text_span(ca), why, sizeof why) != OK)
        fail_msg("%s", why);
}

void forget(struct peer *p)
{
    private_key_free(p->auth.key);
    if (p->auth.chain)
        chain_free(p->auth.chain);
    free(p->auth.chain);
    public_key_free(p->auth.public_key);
    trust_free(p->auth.trust);
    p->auth = (struct authentication){.local = AUTH_PSK};
}
