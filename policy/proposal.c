#include "policy/proposal.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "policy/spelling.h"

/* Where the one line of explanation goes. */
struct why {
    char *text;
    size_t size;
};

static enum err refuse(struct why *why, const char *fmt, ...) PRINTF_LIKE(2, 3);
static enum err refuse(struct why *why, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (why->size > 0)
        vsnprintf(why->text, why->size, fmt, args);
    va_end(args);
    return ERR_SYNTAX;
}

/* -- building -- */

static bool same_transform(const struct transform *a, const struct transform *b)
{
    return a->type == b->type && a->id == b->id && a->key_bits == b->key_bits;
}

/* A transform named twice counts once. False: no room. */
static bool add(struct proposal *p, struct transform t)
{
    for (unsigned i = 0; i < p->n; i++)
        if (same_transform(&p->t[i], &t))
            return true;
    if (p->n == PROPOSAL_TRANSFORMS)
        return false;
    p->t[p->n++] = t;
    return true;
}

static void add_keywords(struct proposal *p, const char *const *keywords)
{
    for (; *keywords; keywords++) {
        const struct algorithm *a = algorithm_by_keyword(*keywords, strlen(*keywords));
        if (a)
            add(p, a->t);
    }
}

static void remove_type(struct proposal *p, uint8_t type)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type != type)
            p->t[kept++] = p->t[i];
    p->n = (uint8_t)kept;
}

bool proposal_has(const struct proposal *p, uint8_t type)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == type)
            return true;
    return false;
}

bool proposals_equal(const struct proposals *a, const struct proposals *b)
{
    if (a->n != b->n)
        return false;
    for (unsigned i = 0; i < a->n; i++) {
        if (a->v[i].protocol != b->v[i].protocol || a->v[i].n != b->v[i].n)
            return false;
        for (unsigned j = 0; j < a->v[i].n; j++)
            if (!same_transform(&a->v[i].t[j], &b->v[i].t[j]))
                return false;
    }
    return true;
}

/* -- the built-in lists -- */

#define IKE_COMMON                                                                                                     \
    "prfsha512", "prfsha384", "prfsha256", "x25519", "ecp256", "ecp384", "ecp521", "modp4096", "modp3072", "modp2048", \
        NULL
static const char *const ike_aead[] = {"aes256gcm16", "aes128gcm16", "chacha20poly1305", IKE_COMMON};
static const char *const ike_classic[] = {"aes256", "aes128", "sha512", "sha384", "sha256", IKE_COMMON};
static const char *const esp_aead[] = {"aes256gcm16", "aes128gcm16", "chacha20poly1305", "esn", "noesn", NULL};
static const char *const esp_classic[] = {"aes256", "aes128", "sha512", "sha256", "sha384", "esn", "noesn", NULL};
static const char *const ah_builtin[] = {"sha512", "sha256", "sha384", "esn", "noesn", NULL};

void proposals_default(enum protocol_id protocol, struct proposals *out)
{
    bool ike = protocol == PROTOCOL_IKE;
    if (protocol == PROTOCOL_AH) {
        *out = (struct proposals){.n = 1, .v[0].protocol = PROTOCOL_AH};
        add_keywords(&out->v[0], ah_builtin);
        return;
    }
    *out = (struct proposals){.n = 2};
    out->v[0].protocol = out->v[1].protocol = (uint8_t)protocol;
    add_keywords(&out->v[0], ike ? ike_aead : esp_aead);
    add_keywords(&out->v[1], ike ? ike_classic : esp_classic);
}

/* -- parsing -- */

const char *protocol_text(uint8_t protocol)
{
    return protocol == PROTOCOL_IKE ? "IKE" : protocol == PROTOCOL_AH ? "AH" : "ESP";
}

static const char *protocol_name(const struct proposal *p)
{
    return protocol_text(p->protocol);
}

/* True where a transform type has a place in the protocol's proposals (RFC 7296 section 3.3.3). */
static bool type_allowed(uint8_t protocol, uint8_t type)
{
    switch (type) {
    case TRANSFORM_ENCR:
        return protocol != PROTOCOL_AH;
    case TRANSFORM_INTEG:
    case TRANSFORM_KE:
        return true;
    case TRANSFORM_PRF:
        return protocol == PROTOCOL_IKE;
    case TRANSFORM_ESN:
        return protocol != PROTOCOL_IKE;
    default:
        return false;
    }
}

/* May this cipher stand in the proposal? ESP may go without secrecy, IKE may not. */
static bool encrypts(const struct proposal *p, const struct algorithm *a)
{
    return p->protocol != PROTOCOL_IKE || algorithm_encrypts_ike(a);
}

static const char *example(const struct proposal *p)
{
    return p->protocol == PROTOCOL_IKE  ? "aes256gcm16-prfsha384-x25519"
           : p->protocol == PROTOCOL_AH ? "sha256"
                                        : "aes256gcm16";
}

/* All of that for one row: AES-GMAC as a MAC is for AH (RFC 4543 section 5.3). */
static bool may_stand(const struct proposal *p, const struct algorithm *a)
{
    return type_allowed(p->protocol, a->t.type) && (a->t.type != TRANSFORM_ENCR || encrypts(p, a)) &&
           (a->t.type != TRANSFORM_INTEG || !a->aead || p->protocol == PROTOCOL_AH);
}

static enum err unknown_keyword(const struct proposal *p, const char *word, size_t len, struct why *why)
{
    struct spelling s = spelling_of(word, len);
    const struct algorithm *a;
    if (len == 0)
        return refuse(why, "found an empty keyword, expected for example '%s'", example(p));
    for (unsigned i = 0; (a = algorithm_at(i)) != NULL; i++)
        if (may_stand(p, a))
            spelling_offer(&s, a->keyword);
    if (s.nearest)
        return refuse(why, "found '%.*s', expected an %s algorithm, perhaps '%s'", (int)(len < 40 ? len : 40), word,
                      protocol_name(p), s.nearest);
    return refuse(why, "found '%.*s', expected an %s algorithm", (int)(len < 40 ? len : 40), word, protocol_name(p));
}

static enum err take_keyword(struct proposal *p, const char *word, size_t len, struct why *why)
{
    const struct algorithm *a = algorithm_by_keyword(word, len);
    if (!a)
        return unknown_keyword(p, word, len, why);
    if (p->protocol == PROTOCOL_AH && algorithm_namesake(a, TRANSFORM_INTEG))
        a = algorithm_namesake(a, TRANSFORM_INTEG);
    if (a->t.type == TRANSFORM_ENCR && !encrypts(p, a))
        return refuse(why,
                      a->implicit_iv ? "found '%s', expected a cipher with IVs of its own: this one is for ESP only"
                                     : "found '%s', expected a cipher: IKE is always encrypted",
                      a->keyword);
    if (!type_allowed(p->protocol, a->t.type))
        return refuse(why, "found '%s', which %s proposals don't have", a->keyword, protocol_name(p));
    if (!add(p, a->t))
        return refuse(why, "found more than %d algorithms, expected several proposals with fewer", PROPOSAL_TRANSFORMS);
    return OK;
}

/* Counts the proposal's ciphers: AEADs and others. */
static void count_ciphers(const struct proposal *p, unsigned *aead, unsigned *classic)
{
    *aead = *classic = 0;
    for (unsigned i = 0; i < p->n; i++) {
        const struct algorithm *a = algorithm_find(p->t[i].type, p->t[i].id, p->t[i].key_bits);
        if (p->t[i].type == TRANSFORM_ENCR)
            ++*(a && a->aead ? aead : classic);
    }
}

/* The PRF that is the same MAC as each integrity algorithm, in its order. */
static bool add_prfs_of_integrity(struct proposal *p)
{
    bool fits = true;
    for (unsigned i = 0, n = p->n; i < n; i++) {
        const struct algorithm *a = algorithm_find(p->t[i].type, p->t[i].id, p->t[i].key_bits);
        if (p->t[i].type == TRANSFORM_INTEG && a)
            fits = add(p, (struct transform){TRANSFORM_PRF, a->prf, 0}) && fits;
    }
    return fits;
}

static enum err complete_ike(struct proposal *p, bool aead, struct why *why)
{
    bool fits = true;
    if (!proposal_has(p, TRANSFORM_KE))
        return refuse(why, "found no key exchange method, expected one such as 'x25519'");
    if (!proposal_has(p, TRANSFORM_PRF))
        fits = add_prfs_of_integrity(p);
    if (!proposal_has(p, TRANSFORM_PRF))
        fits = add(p, (struct transform){TRANSFORM_PRF, PRF_HMAC_SHA2_256, 0});
    if (aead)
        remove_type(p, TRANSFORM_INTEG); /* "aes256gcm16-sha256-x25519": the hash named the PRF (RFC 5282 section 8) */
    if (!fits)
        return refuse(why, "found more than %d algorithms, expected several proposals with fewer", PROPOSAL_TRANSFORMS);
    return OK;
}

/* Both kinds of sequence numbers, where the proposal says nothing about them. */
static enum err complete_esn(struct proposal *p, struct why *why)
{
    if (proposal_has(p, TRANSFORM_ESN))
        return OK;
    if (!add(p, (struct transform){TRANSFORM_ESN, ESN_YES, 0}) || !add(p, (struct transform){TRANSFORM_ESN, ESN_NO, 0}))
        return refuse(why, "found more than %d algorithms, expected several proposals with fewer", PROPOSAL_TRANSFORMS);
    return OK;
}

static enum err complete_esp(struct proposal *p, bool aead, struct why *why)
{
    if (aead && proposal_has(p, TRANSFORM_INTEG))
        return refuse(why, "found an integrity algorithm beside an AEAD cipher, expected the cipher alone");
    return complete_esn(p, why);
}

static enum err complete_ah(struct proposal *p, struct why *why)
{
    if (!proposal_has(p, TRANSFORM_INTEG))
        return refuse(why, "found no integrity algorithm, expected one such as 'sha256'");
    return complete_esn(p, why);
}

static enum err complete(struct proposal *p, struct why *why)
{
    unsigned aead, classic;
    if (p->protocol == PROTOCOL_AH)
        return complete_ah(p, why);
    count_ciphers(p, &aead, &classic);
    if (aead + classic == 0)
        return refuse(why, "found no cipher, expected one such as 'aes256gcm16'");
    if (aead && classic)
        return refuse(why, "found AEAD and other ciphers in one proposal, expected a comma between two proposals");
    if (classic && !proposal_has(p, TRANSFORM_INTEG))
        return refuse(why, "found a cipher without integrity, expected an algorithm such as 'sha256' beside it");
    return p->protocol == PROTOCOL_IKE ? complete_ike(p, aead > 0, why) : complete_esp(p, aead > 0, why);
}

static bool push(struct proposals *list, const struct proposal *p)
{
    if (list->n == PROPOSALS_MAX)
        return false;
    list->v[list->n++] = *p;
    return true;
}

/* One item between commas. */
static enum err take_item(struct proposals *list, const char *item, size_t len, enum protocol_id protocol,
                          struct why *why)
{
    struct proposal p = {.protocol = (uint8_t)protocol};
    bool fits = true;
    if (len == 7 && memcmp(item, "default", 7) == 0) {
        struct proposals builtin;
        proposals_default(protocol, &builtin);
        for (unsigned i = 0; i < builtin.n; i++)
            fits = push(list, &builtin.v[i]) && fits;
    } else {
        for (size_t at = 0; at <= len;) {
            const char *dash = memchr(item + at, '-', len - at);
            size_t n = dash ? (size_t)(dash - item) - at : len - at;
            TRY(take_keyword(&p, item + at, n, why));
            at += n + 1;
        }
        TRY(complete(&p, why));
        fits = push(list, &p);
    }
    return fits ? OK : refuse(why, "found more than %d proposals", PROPOSALS_MAX);
}

enum err proposals_parse(const char *text, enum protocol_id protocol, struct proposals *out, char *why, size_t why_size)
{
    struct proposals list = {0};
    struct why w = {why, why_size};
    const char *space = " \t\r\n";
    for (;;) {
        text += strspn(text, space);
        size_t n = strcspn(text, ","), len = n;
        while (len > 0 && strchr(space, text[len - 1]))
            len--;
        TRY(take_item(&list, text, len, protocol, &w));
        if (text[n] == '\0')
            break;
        text += n + 1;
    }
    *out = list;
    return OK;
}

/* -- formatting -- */

/* Appends as much as fits, always terminated; size is at least 1. */
static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

static void append_proposal(const struct proposal *p, char *text, size_t size)
{
    for (unsigned i = 0; i < p->n; i++) {
        char word[32];
        append(text, size, i ? "-" : "");
        append(text, size, transform_text(&p->t[i], word, sizeof(word)));
    }
}

const char *proposal_format(const struct proposal *p, char *text, size_t size)
{
    if (size > 0) {
        text[0] = '\0';
        append_proposal(p, text, size);
    }
    return text;
}

const char *proposals_format(const struct proposals *p, char *text, size_t size)
{
    if (size > 0)
        text[0] = '\0';
    for (unsigned i = 0; i < p->n && size > 0; i++) {
        append(text, size, i ? ", " : "");
        append_proposal(&p->v[i], text, size);
    }
    return text;
}
