/* Keys and certificates of the ini file: read, handed from [host] to the peers, and held against each other. */
#include <stdlib.h>

#include "crypto/cert.h"
#include "crypto/sig.h"
#include "policy/config_internal.h"

#define WHY 300
#define NAME_MAX 512 /* a path in the file */

/* What a key of this section sets: the peer's own, or what all peers have. */
static struct authentication *of_target(struct target *t)
{
    return t->peer ? &t->peer->auth : &t->host->auth;
}

/* The path behind "file:", or NULL. */
static const char *after_file(const char *value)
{
    return strncmp(value, "file:", 5) == 0 ? value + 5 + strspn(value + 5, " ") : NULL;
}

void auth_key(struct target *t, const char *value, unsigned line)
{
    struct authentication *a = of_target(t);
    char why[WHY], *text = NULL;
    const char *path = after_file(value);
    struct span content;
    size_t len;
    if (path) {
        if (!value_file(t->load, line, path, true, &text, &len))
            return;
        content = span_of(text, len);
    } else if (strncmp(value, "base64:", 7) == 0) {
        if (t->load->inline_secret == 0)
            t->load->inline_secret = line;
        content = span_of(value + 7, strlen(value + 7));
    } else {
        complain(t->load, line, "found %s, expected file:PATH or base64:…", *value ? "a key as it is" : "nothing");
        return;
    }
    if (private_key_parse(content, &a->key, why, sizeof(why)) != OK)
        complain(t->load, line, "%s%s%s", path ? path : "", path ? ": " : "", why);
    secret_free(text);
}

void auth_public_key(struct target *t, const char *value, unsigned line)
{
    char why[WHY], *text = NULL;
    const char *path = after_file(value);
    struct span content = span_of(value, strlen(value));
    size_t len;
    if (path) {
        if (!value_file(t->load, line, path, false, &text, &len))
            return;
        content = span_of(text, len);
    }
    if (public_key_parse(content, &t->peer->auth.public_key, why, sizeof(why)) != OK)
        complain(t->load, line, "%s%s%s", path ? path : "", path ? ": " : "", why);
    else
        public_key_fingerprint(t->peer->auth.public_key, t->peer->auth.fingerprint);
    secret_free(text);
}

/* -- files of certificates: each one of a list is added to something -- */

typedef enum err (*add_fn)(struct authentication *a, struct span text, char *why, size_t why_size);

static enum err add_cert(struct authentication *a, struct span text, char *why, size_t why_size)
{
    return chain_add(a->chain, text, why, why_size);
}

static enum err add_ca(struct authentication *a, struct span text, char *why, size_t why_size)
{
    return trust_add_ca(a->trust, text, why, why_size);
}

static enum err add_crl(struct authentication *a, struct span text, char *why, size_t why_size)
{
    return trust_add_crl(a->trust, text, why, why_size);
}

static void add_files(struct loading *l, struct authentication *a, const char *list, unsigned line, add_fn add)
{
    char item[NAME_MAX], why[WHY], *text;
    size_t len;
    while (next_item(&list, item, sizeof(item))) {
        const char *path = after_file(item) ? after_file(item) : item;
        if (!*path) {
            complain(l, line, "found nothing, expected the path of a file");
            return;
        }
        if (!value_file(l, line, path, false, &text, &len))
            return;
        if (add(a, span_of(text, len), why, sizeof(why)) != OK)
            complain(l, line, "%s: %s", path, why);
        secret_free(text);
    }
}

void auth_cert(struct target *t, const char *value, unsigned line)
{
    struct authentication *a = of_target(t);
    a->chain = calloc(1, sizeof(*a->chain));
    if (a->chain)
        add_files(t->load, a, value, line, add_cert);
    else
        complain(t->load, line, "out of memory");
}

/* The CRLs of [host] are for the CAs of its peers as well. */
void auth_ca(struct target *t, const char *value, unsigned line)
{
    struct authentication *a = of_target(t);
    if (trust_new(&a->trust) != OK) {
        complain(t->load, line, "out of memory");
        return;
    }
    add_files(t->load, a, value, line, add_ca);
    if (t->peer && t->load->host && has(t->load->host, "crl"))
        add_files(t->load, a, t->load->host->value[key_find(SECTION_HOST, "crl")], line_of(t->load->host, "crl"),
                  add_crl);
}

void auth_crl(struct target *t, const char *value, unsigned line)
{
    if (t->host->auth.trust)
        add_files(t->load, &t->host->auth, value, line, add_crl);
}

void auth_methods(struct target *t, const char *value, unsigned line)
{
    static const char *const words[] = {"psk", "pubkey", NULL};
    struct authentication *a = &t->peer->auth;
    unsigned way[2] = {AUTH_PSK, AUTH_PSK}, n = 0;
    char item[16];
    while (next_item(&value, item, sizeof(item))) {
        if (n == 2) {
            complain(t->load, line, "found more than two methods, expected our own, and perhaps the peer's behind it");
            return;
        }
        if (!value_word(t->load, line, item, words, &way[n++]))
            return;
    }
    a->local = (enum auth_method)way[0];
    a->remote = (enum auth_method)way[n - 1];
}

/* -- the whole of a peer -- */

static void take_defaults(const struct section *s, struct authentication *a, const struct authentication *host)
{
    bool pubkey = a->local == AUTH_PUBKEY;
    if (pubkey && !has(s, "key") && host->key)
        a->key = private_key_ref(host->key);
    if (pubkey && !has(s, "key") && !has(s, "cert")) /* a key of its own has a certificate of its own, or none */
        a->chain = host->chain;
    if (a->remote == AUTH_PUBKEY && !a->public_key && !has(s, "ca") && host->trust)
        a->trust = trust_ref(host->trust);
}

/* The line of a key here or, when only [host] has it, there; 0: nobody has it. */
static unsigned given(const struct loading *l, const struct section *s, const char *name)
{
    unsigned line = line_of(s, name);
    return line || !l->host ? line : line_of(l->host, name);
}

/* Without `auth` both ends use the same method, so a section must not leave two to choose from. */
static void choose_methods(struct loading *l, const struct section *s, struct authentication *a)
{
    static const char *const keys[] = {"public-key", "cert", "ca", "key"};
    if (has(s, "auth"))
        return;
    a->local = a->remote = has(s, "psk") ? AUTH_PSK : AUTH_PUBKEY;
    for (unsigned i = 0; i < 4 && has(s, "psk"); i++)
        if (has(s, keys[i])) {
            complain(l, line_of(s, keys[i]),
                     "found 'psk' and '%s', expected 'auth' with them: how we prove ourselves, and how the peer must",
                     keys[i]);
            return;
        }
}

static void require_credentials(struct loading *l, const struct section *s, const struct authentication *a)
{
    unsigned line = has(s, "auth") ? line_of(s, "auth") : s->line;
    bool psk = a->local == AUTH_PSK || a->remote == AUTH_PSK;
    bool theirs = given(l, s, "public-key") || given(l, s, "ca");
    if (!has(s, "auth") && !has(s, "psk") && !theirs) {
        complain(l, line, "found [peer %s] without 'psk', 'public-key' or 'ca', expected one of them", s->name);
        return;
    }
    if (psk && !has(s, "psk"))
        complain(l, line, "found [peer %s] with auth = psk but without 'psk', expected it", s->name);
    if (!psk && has(s, "psk"))
        complain(l, line_of(s, "psk"), "found 'psk', expected none: 'auth' says that neither end uses it");
    if (a->local == AUTH_PUBKEY && !given(l, s, "key"))
        complain(l, line, "found [peer %s] to which we prove ourselves by a key, expected 'key' here or in [host]",
                 s->name);
    if (a->remote == AUTH_PUBKEY && !theirs)
        complain(l, line, "found [peer %s] that proves itself by a key, expected its 'public-key' or the 'ca' it has",
                 s->name);
    if (a->remote == AUTH_PSK && has(s, "public-key"))
        complain(l, line_of(s, "public-key"),
                 "found 'public-key', expected none: 'auth' says that the peer proves itself by psk");
}

static void check_certificate(struct loading *l, const struct section *s, const struct authentication *a)
{
    char why[WHY], ours[64], theirs[64];
    struct public_key *certified = NULL;
    unsigned line = given(l, s, "cert");
    if (!a->chain || a->chain->n == 0 || !a->key)
        return;
    if (chain_key(a->chain, &certified, why, sizeof(why)) != OK)
        complain(l, line, "%s", why);
    else if (!public_key_equal(certified, private_key_public(a->key)))
        complain(l, line,
                 "found a certificate for another %s key than the %s one of 'key' on line %u, expected its own",
                 public_key_text(certified, theirs, sizeof(theirs)),
                 public_key_text(private_key_public(a->key), ours, sizeof(ours)), given(l, s, "key"));
    public_key_free(certified);
}

void auth_settle(struct loading *l, const struct section *s, struct peer *p)
{
    struct authentication *a = &p->auth;
    choose_methods(l, s, a);
    take_defaults(s, a, &l->config->host.auth);
    require_credentials(l, s, a);
    check_certificate(l, s, a);
}

static void check_own_identity(struct loading *l, unsigned line, const struct peer *p)
{
    char id[IDENTITY_TEXT];
    if (!cert_has_identity(p->auth.chain, p->local_id.type, span_of(p->local_id.b, p->local_id.len)))
        warn(l, line, "our certificate does not hold the identity %s that %s is told: it will hardly be believed",
             identity_format(&p->local_id, id, sizeof(id)), p->name);
}

void auth_local_id(struct loading *l, const struct section *s, struct peer *p)
{
    const struct authentication *a = &p->auth;
    unsigned line = given(l, s, "cert");
    struct span subject;
    if (a->local != AUTH_PUBKEY || !a->key)
        return;
    if (p->local_id.type == ID_NONE && a->chain && chain_subject(a->chain, &subject) == OK) {
        if (subject.len > IDENTITY_MAX) {
            complain(l, line, "found a certificate whose subject has %zu bytes, expected 'local-id' beside it",
                     subject.len);
            return;
        }
        p->local_id = (struct identity){.type = ID_DER_DN, .len = (uint16_t)subject.len};
        memcpy(p->local_id.b, subject.data, subject.len);
    }
    if (p->local_id.type == ID_NONE) {
        p->local_id = (struct identity){.type = ID_KEY_ID, .len = KEY_FINGERPRINT};
        public_key_fingerprint(private_key_public(a->key), p->local_id.b);
    }
    if (a->chain && a->chain->n)
        check_own_identity(l, line, p);
}

/* -- of what was loaded -- */

static bool chain_equal(const struct chain *a, const struct chain *b)
{
    if (!a || !b)
        return a == b;
    if (a->n != b->n)
        return false;
    for (unsigned i = 0; i < a->n; i++)
        if (!span_equal(buf_span(&a->der[i]), buf_span(&b->der[i])))
            return false;
    return true;
}

static bool key_equal(const struct public_key *a, const struct public_key *b)
{
    return a && b ? public_key_equal(a, b) : a == b;
}

bool auth_equal(const struct authentication *a, const struct authentication *b)
{
    return a->local == b->local && a->remote == b->remote &&
           key_equal(a->key ? private_key_public(a->key) : NULL, b->key ? private_key_public(b->key) : NULL) &&
           chain_equal(a->chain, b->chain) && key_equal(a->public_key, b->public_key) &&
           (a->trust && b->trust ? trust_equal(a->trust, b->trust) : a->trust == b->trust);
}

static void print_trust(const struct trust *t, FILE *out)
{
    unsigned cas = trust_count(t), crls = trust_crl_count(t);
    fprintf(out, "a certificate of %u CA%s", cas, cas == 1 ? "" : "s");
    if (crls)
        fprintf(out, ", %u CRL%s", crls, crls == 1 ? "" : "s");
    fprintf(out, "\n");
}

void auth_print(const struct authentication *a, FILE *out)
{
    char key[64];
    fprintf(out, "    auth           %s", a->local == AUTH_PSK ? "pre-shared key" : "");
    if (a->local == AUTH_PSK && a->remote == AUTH_PSK) {
        fprintf(out, "\n");
        return;
    }
    if (a->local == AUTH_PUBKEY)
        fprintf(out, "%s %s", public_key_text(private_key_public(a->key), key, sizeof(key)),
                a->chain ? "certificate" : "raw key");
    fprintf(out, "; the peer's: ");
    if (a->remote == AUTH_PSK)
        fprintf(out, "pre-shared key\n");
    else if (a->public_key)
        fprintf(out, "%s raw key\n", public_key_text(a->public_key, key, sizeof(key)));
    else
        print_trust(a->trust, out);
}

void auth_free(struct authentication *a, const struct authentication *host)
{
    private_key_free(a->key);
    if (a->chain && !(host && a->chain == host->chain)) {
        chain_free(a->chain);
        free(a->chain);
    }
    public_key_free(a->public_key);
    trust_free(a->trust);
    *a = (struct authentication){0};
}
