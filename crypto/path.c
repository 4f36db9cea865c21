/*
 * From a leaf to a CA that is trusted (RFC 5280 section 6). Paths are found by names alone; then everything is judged from
 * the CA downwards, so that no key is used, and nothing a certificate says is believed, before who stands above it vouched
 * for it.
 */
#include <stdio.h>

#include "crypto/cert.h"
#include "crypto/constraints.h"
#include "crypto/der.h"
#include "crypto/dn.h"
#include "crypto/trust.h"
#include "crypto/x509.h"

#define STEPS_MAX 64      /* certificates tried at any place of a path */
#define SIGNATURES_MAX 40 /* signatures checked: four paths of the greatest length */
#define REASON_TEXT 600
#define DAY 86400

struct search {
    const struct trust *trust;
    int64_t now;
    unsigned n;
    struct x509 cert[CERT_CHAIN_MAX]; /* crt NULL: could not be parsed, or is there already */
    unsigned path[CERT_CHAIN_MAX];    /* from the leaf upwards */
    unsigned depth;
    bool used[CERT_CHAIN_MAX];
    unsigned steps, signatures, names; /* what may still be done */
    unsigned
        reached;    /* certificates vouched for in the best of the refused paths, counting the CA; 0: no path so far */
    enum err error; /* why that one was refused */
    char reason[REASON_TEXT];
};

/* The certificates of one path: [0] is the CA, [last] the leaf. */
struct line {
    const struct x509 *cert[CERT_CHAIN_MAX + 1];
    unsigned last;
};

/* -- what is asked of each -- */

static enum err judge_dates(const struct x509 *c, int64_t now, struct text *why)
{
    char date[X509_TIME_TEXT], clock[X509_TIME_TEXT];
    if (now >= c->not_before && now <= c->not_after)
        return OK;
    x509_name(c, why);
    if (now < c->not_before) {
        text_add(why, " is not valid before %s", x509_time_text(c->not_before, date));
    } else {
        int64_t days = (now - c->not_after) / DAY;
        if (days > 0)
            text_add(why, " expired %lld day%s ago", (long long)days, days > 1 ? "s" : "");
        else
            text_add(why, " expired today");
        text_add(why, ", on %s", x509_time_text(c->not_after, date));
    }
    text_add(why, "; is the clock of this host right? It says %s", x509_time_text(now, clock));
    return ERR_AUTH;
}

static enum err refuse(const struct x509 *c, enum err e, const char *what, struct text *why)
{
    x509_name(c, why);
    text_add(why, " %s", what);
    return e;
}

/* RFC 5280 section 6.1.4 (k) to (n). below: certificates between it and the leaf that count for its path length. */
static enum err judge_issuer(const struct x509 *c, unsigned below, struct text *why)
{
    if (!c->ca)
        return refuse(c, ERR_AUTH, "is not that of a CA, but a certificate was issued with it", why);
    if (c->has_key_usage && !(c->key_usage & X509_KEY_CERT_SIGN))
        return refuse(c, ERR_AUTH, "may not sign certificates: its keyUsage lacks keyCertSign", why);
    if (c->path_len >= 0 && below > (unsigned)c->path_len) {
        x509_name(c, why);
        text_add(why, " allows %d CAs below it, not %u", c->path_len, below);
        return ERR_AUTH;
    }
    return OK;
}

/* One of the uses that say IKE, or that the certificates of gateways have in practice (RFC 4945 section 5.1.3.12). */
static bool use_is_ours(struct span oid)
{
    static const struct {
        uint8_t len, oid[9];
    } uses[] = {
        {8, {0x2b, 6, 1, 5, 5, 7, 3, 17}}, /* ipsecIKE */
        {8, {0x2b, 6, 1, 5, 5, 8, 2, 2}},  /* iKEIntermediate */
        {8, {0x2b, 6, 1, 5, 5, 7, 3, 1}},  /* serverAuth */
        {8, {0x2b, 6, 1, 5, 5, 7, 3, 2}},  /* clientAuth */
        {4, {0x55, 0x1d, 37, 0}},          /* anyExtendedKeyUsage */
    };
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++)
        if (span_equal(oid, span_of(uses[i].oid, uses[i].len)))
            return true;
    return false;
}

static enum err judge_leaf(const struct x509 *c, struct text *why)
{
    if (c->has_key_usage && !(c->key_usage & (X509_DIGITAL_SIGNATURE | X509_NON_REPUDIATION)))
        return refuse(c, ERR_AUTH, "may not sign: its keyUsage lacks digitalSignature and nonRepudiation", why);
    if (!c->ext_key_usage.data)
        return OK;
    struct reader whole = reader_of(c->ext_key_usage), uses = der_enter(&whole, DER_SEQUENCE);
    bool ours = false;
    while (reader_left(&uses) > 0)
        ours |= use_is_ours(der_read(&uses, DER_OID));
    if (ours && reader_done(&uses) && reader_done(&whole))
        return OK;
    return refuse(c, ERR_AUTH,
                  "is not for IKE: its extendedKeyUsage lacks ipsecIKE, iKEIntermediate, serverAuth and clientAuth",
                  why);
}

/* -- revocation -- */

static enum err crl_refused(const struct x509 *c, const struct crl *crl, const char *what, struct text *why)
{
    char issuer[160];
    x509_name(c, why);
    text_add(why, " can't be checked: the CRL of %s %s", dn_format(crl->issuer, issuer, sizeof issuer), what);
    return ERR_AUTH;
}

/*
 * The latest list of the issuer, of those that its key signed. Errors: NOTFOUND (the trust has no list with this name),
 * AUTH (it has, but none that counts), NOMEM.
 */
static enum err find_crl(const struct search *s, const struct x509 *c, const struct x509 *issuer,
                         const struct crl **out, struct text *why)
{
    char reason[200] = "";
    const struct crl *best = NULL, *named = NULL;
    for (unsigned i = 0; i < s->trust->crl_count; i++) {
        const struct crl *crl = &s->trust->crl[i].crl;
        if (!dn_equal(crl->issuer, c->issuer))
            continue;
        struct text t = text_of(reason, sizeof reason);
        enum err e = x509_signed_by(&crl->sign, issuer, &t);
        if (e == ERR_NOMEM)
            return e;
        named = crl;
        if (e == OK && (!best || crl->this_update > best->this_update))
            best = crl;
    }
    if (!named)
        return ERR_NOTFOUND;
    if (!best)
        return crl_refused(c, named, reason, why);
    *out = best;
    return OK;
}

static enum err judge_revocation(const struct search *s, const struct x509 *c, const struct x509 *issuer,
                                 struct text *why)
{
    char date[X509_TIME_TEXT], clock[X509_TIME_TEXT], what[160];
    const struct crl *crl = NULL;
    enum err e = find_crl(s, c, issuer, &crl, why);
    if (e == ERR_NOTFOUND)
        return OK;
    if (e != OK)
        return e;
    if (issuer->has_key_usage && !(issuer->key_usage & X509_CRL_SIGN))
        return crl_refused(c, crl, "is signed by a key that may not: the keyUsage of its certificate lacks cRLSign",
                           why);
    if (s->now < crl->this_update || s->now > crl->next_update) {
        bool early = s->now < crl->this_update;
        snprintf(what, sizeof what, "%s %s; is the clock of this host right? It says %s",
                 early ? "is not valid before" : "expired on",
                 x509_time_text(early ? crl->this_update : crl->next_update, date), x509_time_text(s->now, clock));
        return crl_refused(c, crl, what, why);
    }
    return crl_revokes(crl, c->serial) ? refuse(c, ERR_AUTH, "was revoked by its CA", why) : OK;
}

/* -- a path -- */

static enum err judge_signature(struct search *s, const struct x509 *c, const struct x509 *issuer, struct text *why)
{
    struct public_key *key;
    char reason[300];
    struct text t = text_of(reason, sizeof reason);
    if (s->signatures == 0)
        return refuse(c, ERR_AUTH, "was not reached: too many certificates were sent that have to be tried", why);
    s->signatures--;
    TRY(x509_key(issuer, &key, why));
    public_key_free(key);
    enum err e = x509_signed_by(&c->sign, issuer, &t);
    return e == OK || e == ERR_NOMEM ? e : refuse(c, e, reason, why);
}

static enum err judge_constraints(struct search *s, const struct line *l, struct text *why)
{
    for (unsigned i = 0; i < l->last; i++) {
        if (!l->cert[i]->constraints.data)
            continue;
        /* Section 6.1.3 (b): a CA's new key under its old name is not a name of its own, but the leaf's always is. */
        for (unsigned j = i + 1; j <= l->last; j++)
            if (j == l->last || !x509_self_issued(l->cert[j]))
                TRY(constraints_check(l->cert[i], l->cert[j], &s->names, why));
    }
    return OK;
}

static enum err judge_issuers(const struct line *l, struct text *why)
{
    unsigned below = 0;
    for (unsigned i = l->last; i-- > 0;) {
        TRY(judge_issuer(l->cert[i], below, why));
        below += !x509_self_issued(l->cert[i]);
    }
    return OK;
}

/* *reached: the certificates that were vouched for, counting the CA. */
static enum err judge_line(struct search *s, const struct line *l, unsigned *reached, struct text *why)
{
    for (unsigned i = 0; i <= l->last; i++) {
        const struct x509 *c = l->cert[i];
        if (i > 0)
            TRY(judge_signature(s, c, l->cert[i - 1], why));
        *reached = i + 1;
        if (c->unknown_critical.data) {
            refuse(c, ERR_UNSUPPORTED, "has the unknown critical extension ", why);
            oid_format(c->unknown_critical, why);
            return ERR_UNSUPPORTED;
        }
        TRY(judge_dates(c, s->now, why));
        if (i > 0)
            TRY(judge_revocation(s, c, l->cert[i - 1], why));
    }
    TRY(judge_issuers(l, why));
    TRY(judge_constraints(s, l, why));
    return judge_leaf(l->cert[l->last], why);
}

/* The present path, under this CA. The reason that is kept is that of the path which went furthest. */
static enum err judge_path(struct search *s, const struct trust_ca *ca)
{
    char reason[REASON_TEXT];
    struct text why = text_of(reason, sizeof reason);
    struct x509 anchor = {0};
    struct line l = {.cert = {&anchor}, .last = s->depth};
    for (unsigned i = 0; i < s->depth; i++)
        l.cert[s->depth - i] = &s->cert[s->path[i]];
    unsigned reached = 1;
    enum err e = x509_parse(buf_span(&ca->der), &anchor, &why);
    if (e == OK)
        e = judge_line(s, &l, &reached, &why);
    if (e != OK && reached > s->reached) {
        s->reached = reached;
        s->error = e;
        memcpy(s->reason, reason, sizeof reason);
    }
    x509_free(&anchor);
    return e;
}

/* Tries what may stand above the last certificate of the path. Errors: AUTH (then s->error, if a path was found); NOMEM. */
static enum err extend(struct search *s)
{
    const struct x509 *last = &s->cert[s->path[s->depth - 1]];
    for (unsigned i = 0; i < s->trust->ca_count; i++) {
        if (!dn_equal(s->trust->ca[i].subject, last->issuer))
            continue;
        enum err e = judge_path(s, &s->trust->ca[i]);
        if (e == OK || e == ERR_NOMEM)
            return e;
    }
    for (unsigned i = 0; i < s->n && s->steps > 0; i++) {
        if (s->used[i] || !s->cert[i].crt || !dn_equal(s->cert[i].subject, last->issuer))
            continue;
        s->steps--;
        s->used[i] = true;
        s->path[s->depth++] = i;
        enum err e = extend(s);
        s->depth--;
        s->used[i] = false;
        if (e == OK || e == ERR_NOMEM)
            return e;
    }
    return ERR_AUTH;
}

/* -- all of it -- */

/*
 * Whether the i'th certificate is there already, before it or among the CAs. It leads nowhere then, but each copy of a CA
 * would be one more step of more paths, all judged anew, with all of their CRLs, for anybody who sends it.
 */
static bool redundant(const struct trust *t, const struct chain *c, unsigned i)
{
    struct span der = buf_span(&c->der[i]);
    for (unsigned k = 0; k < i; k++)
        if (span_equal(buf_span(&c->der[k]), der))
            return true;
    for (unsigned k = 0; k < t->ca_count && i > 0; k++)
        if (span_equal(buf_span(&t->ca[k].der), der))
            return true;
    return false;
}

/* What could not be parsed may not have been needed; if it was, `skipped` says what was wrong with it. */
static enum err parse_chain(struct search *s, const struct chain *c, struct text *skipped)
{
    for (unsigned i = 0; i < c->n && i < CERT_CHAIN_MAX; i++) {
        char reason[REASON_TEXT];
        struct text why = text_of(reason, sizeof reason);
        s->n = i + 1;
        if (redundant(s->trust, c, i))
            continue;
        enum err e = x509_parse(buf_span(&c->der[i]), &s->cert[i], &why);
        if (e != OK && (i == 0 || e == ERR_NOMEM)) {
            memcpy(s->reason, reason, sizeof reason);
            return e;
        }
        if (e != OK)
            text_add(skipped, "; of what came with it, %s", reason);
    }
    return OK;
}

static void explain_no_path(struct search *s, const char *skipped)
{
    char issuer[160];
    struct text why = text_of(s->reason, sizeof s->reason);
    const struct x509 *top = &s->cert[0];
    /* The highest certificate that names lead to; as many steps as there are certificates end any circle. */
    for (unsigned step = 0; step < s->n; step++)
        for (unsigned i = 0; i < s->n; i++)
            if (s->cert[i].crt && &s->cert[i] != top && dn_equal(s->cert[i].subject, top->issuer)) {
                top = &s->cert[i];
                break;
            }
    x509_name(top, &why);
    text_add(&why, " was issued by %s, which is none of the CAs trusted here",
             dn_format(top->issuer, issuer, sizeof issuer));
    text_add(&why, "%s", skipped);
}

enum err cert_verify(const struct trust *t, const struct chain *c, int64_t now, struct public_key **key, char *why,
                     size_t why_size)
{
    struct search s = {.trust = t,
                       .now = now,
                       .path = {0},
                       .depth = 1,
                       .used = {true},
                       .steps = STEPS_MAX,
                       .signatures = SIGNATURES_MAX,
                       .names = CONSTRAINTS_BUDGET};
    char skipped[REASON_TEXT / 2] = "";
    struct text out = text_of(why, why_size), reason = text_of(s.reason, sizeof s.reason);
    struct text unused = text_of(skipped, sizeof skipped);
    enum err e = ERR_SYNTAX;
    if (c->n == 0)
        text_add(&reason, "there is no certificate");
    else
        e = parse_chain(&s, c, &unused);
    if (e == OK) {
        e = extend(&s);
        if (e == ERR_AUTH && s.reached)
            e = s.error;
        else if (e == ERR_AUTH)
            explain_no_path(&s, skipped);
    }
    if (e == OK)
        e = x509_key(&s.cert[0], key, &reason);
    if (e != OK)
        text_add(&out, "%s", s.reason[0] ? s.reason : err_text(e));
    for (unsigned i = 0; i < s.n; i++)
        x509_free(&s.cert[i]);
    return e;
}
