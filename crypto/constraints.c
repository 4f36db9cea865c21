#include "crypto/constraints.h"

#include "crypto/der.h"
#include "crypto/dn.h"

static const uint8_t oid_email[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1}; /* emailAddress, PKCS #9 */

struct name {
    uint8_t tag; /* as x509_next_name gives it */
    struct span value;
};

enum verdict { OUTSIDE, INSIDE, UNKNOWN };

static bool ends_with(struct span s, struct span tail)
{
    return s.len >= tail.len && equal_ignoring_case(span_of(s.data + (s.len - tail.len), tail.len), tail);
}

/* "host.example" holds itself and what has labels added on the left; ".host.example" only the latter. */
static enum verdict within_dns(struct span name, struct span base)
{
    if (!is_printable(name) || !is_printable(base) || name.len == 0)
        return UNKNOWN;
    if (name.data[name.len - 1] == '.') /* the same name, written as an absolute one */
        name.len--;
    if (base.len == 0 || equal_ignoring_case(name, base))
        return INSIDE;
    if (!ends_with(name, base) || name.len == base.len)
        return OUTSIDE;
    return base.data[0] == '.' || name.data[name.len - base.len - 1] == '.' ? INSIDE : OUTSIDE;
}

/* A base is a mailbox, a host (all its mailboxes), or ".domain" (all mailboxes of the hosts below it). */
static enum verdict within_mail(struct span name, struct span base)
{
    if (!is_printable(name) || !is_printable(base))
        return UNKNOWN;
    const uint8_t *at = name.len ? memrchr(name.data, '@', name.len) : NULL;
    if (!at)
        return UNKNOWN;
    struct span host = span_of(at + 1, (size_t)(name.data + name.len - (at + 1)));
    if (base.len == 0)
        return INSIDE;
    if (memchr(base.data, '@', base.len))
        return equal_ignoring_case(name, base) ? INSIDE : OUTSIDE;
    if (base.data[0] == '.')
        return host.len > base.len && ends_with(host, base) ? INSIDE : OUTSIDE;
    return equal_ignoring_case(host, base) ? INSIDE : OUTSIDE;
}

/* A base is an address and a mask. */
static enum verdict within_ip(struct span name, struct span base)
{
    if ((base.len != 8 && base.len != 32) || (name.len != 4 && name.len != 16))
        return UNKNOWN;
    if (base.len != 2 * name.len)
        return OUTSIDE;
    for (size_t i = 0; i < name.len; i++)
        if ((name.data[i] ^ base.data[i]) & base.data[name.len + i])
            return OUTSIDE;
    return INSIDE;
}

static enum verdict within(struct name name, struct span base)
{
    switch (name.tag) {
    case X509_DNS:
        return within_dns(name.value, base);
    case X509_MAIL:
        return within_mail(name.value, base);
    case X509_IP:
        return within_ip(name.value, base);
    case X509_DIRECTORY:
        return dn_within(name.value, base) ? INSIDE : OUTSIDE;
    default:
        return UNKNOWN;
    }
}

static void add_name(struct name name, struct text *t)
{
    char text[160];
    switch (name.tag) {
    case X509_DNS:
    case X509_MAIL:
        text_escape(t, name.value.len <= 80 ? name.value : span_of(name.value.data, 80), "\\");
        break;
    case X509_DIRECTORY:
        text_add(t, "%s", dn_format(name.value, text, sizeof text));
        break;
    default:
        text_add(t, "%s ", name.tag == X509_IP ? "IP address" : "a name of another kind");
        text_hex(t, name.value.len <= 40 ? name.value : span_of(name.value.data, 40));
    }
}

/* One check under way: the names of c against the subtrees of ca. */
struct check {
    const struct x509 *ca, *c;
    struct span permitted, excluded; /* GeneralSubtrees, within their tag */
    unsigned *budget;
    struct text *why;
};

static enum err refuse(const struct check *k, struct name name, enum err e, const char *what)
{
    x509_name(k->c, k->why);
    text_add(k->why, " has the name ");
    add_name(name, k->why);
    text_add(k->why, ", which %s", what);
    return e;
}

/* The next subtree; section 4.2.1.10: minimum is 0, thus absent in DER, and there is no maximum. */
static bool next_subtree(struct reader *list, uint8_t *tag, struct span *base)
{
    if (reader_left(list) == 0)
        return false;
    struct reader subtree = der_enter(list, DER_SEQUENCE), name = der_enter_any(&subtree, tag);
    *base = read_rest(&name);
    if (!reader_done(&subtree))
        list->failed = true;
    return !list->failed;
}

/* Whether one of the subtrees has this name within it; *any: some are of its kind. */
static enum err find(const struct check *k, struct span subtrees, struct name name, bool *any, bool *inside)
{
    struct reader list = reader_of(subtrees);
    struct span base;
    uint8_t tag;
    *any = *inside = false;
    while (!*inside && next_subtree(&list, &tag, &base)) {
        if (*k->budget == 0)
            return refuse(k, name, ERR_UNSUPPORTED, "is one too many to be held against name constraints");
        --*k->budget;
        if (tag != name.tag)
            continue;
        enum verdict v = within(name, base);
        if (v == UNKNOWN)
            return refuse(k, name, ERR_UNSUPPORTED, "can't be held against the name constraints of its CA");
        *any = true;
        *inside = v == INSIDE;
    }
    return list.failed ? ERR_SYNTAX : OK;
}

static enum err judge(const struct check *k, struct name name)
{
    bool any, inside;
    TRY(find(k, k->excluded, name, &any, &inside));
    if (inside)
        return refuse(k, name, ERR_AUTH, "the name constraints of its CA exclude");
    TRY(find(k, k->permitted, name, &any, &inside));
    if (any && !inside)
        return refuse(k, name, ERR_AUTH, "is outside of what the name constraints of its CA permit");
    return OK;
}

/* Where no rfc822Name says who it is, mail addresses in the subject count (section 4.2.1.10). */
static enum err judge_subject_mail(const struct check *k)
{
    struct dn_walk w = dn_walk_of(k->c->subject);
    struct dn_attribute a;
    while (dn_next(&w, &a))
        if (span_equal(a.oid, span_of(oid_email, sizeof oid_email)))
            TRY(judge(k, (struct name){X509_MAIL, a.value}));
    return dn_done(&w) ? OK : ERR_SYNTAX;
}

static enum err judge_names(const struct check *k)
{
    struct dn_walk subject = dn_walk_of(k->c->subject);
    bool has_mail = false;
    if (reader_left(&subject.rdns) > 0)
        TRY(judge(k, (struct name){X509_DIRECTORY, k->c->subject}));
    if (k->c->alt_names.data) {
        struct reader names = x509_names_of(k->c->alt_names);
        struct name name;
        while (x509_next_name(&names, &name.tag, &name.value)) {
            has_mail |= name.tag == X509_MAIL;
            TRY(judge(k, name));
        }
        if (!reader_done(&names))
            return ERR_SYNTAX;
    }
    return has_mail ? OK : judge_subject_mail(k);
}

static enum err take_apart(struct check *k)
{
    struct reader whole = reader_of(k->ca->constraints), r = der_enter(&whole, DER_SEQUENCE);
    if (der_next_is(&r, DER_CONTEXT + 0)) {
        struct reader list = der_enter(&r, DER_CONTEXT + 0);
        k->permitted = read_rest(&list);
    }
    if (der_next_is(&r, DER_CONTEXT + 1)) {
        struct reader list = der_enter(&r, DER_CONTEXT + 1);
        k->excluded = read_rest(&list);
    }
    return reader_done(&r) && reader_done(&whole) ? OK : ERR_SYNTAX;
}

enum err constraints_check(const struct x509 *ca, const struct x509 *c, unsigned *budget, struct text *why)
{
    struct check k = {.ca = ca, .c = c, .budget = budget, .why = why};
    enum err e = take_apart(&k);
    if (e == OK)
        e = judge_names(&k);
    if (e == ERR_SYNTAX) {
        x509_name(c, why);
        text_add(why, " has names, or its CA name constraints, that can't be read");
    }
    return e;
}
