#include "crypto/dn.h"

#include <stdio.h>
#include <strings.h>

#include "core/base/escape.h"
#include "crypto/der.h"

/* RFC 5280 appendix A.1; the first name of a number is the one we write. */
static const struct attribute {
    const char *name;
    uint8_t oid_len;
    uint8_t oid[9];
} attributes[] = {
    {"C", 3, {0x55, 4, 6}},
    {"ST", 3, {0x55, 4, 8}},
    {"S", 3, {0x55, 4, 8}},
    {"L", 3, {0x55, 4, 7}},
    {"O", 3, {0x55, 4, 10}},
    {"OU", 3, {0x55, 4, 11}},
    {"CN", 3, {0x55, 4, 3}},
    {"emailAddress", 9, {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1}},
    {"E", 9, {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1}},
};
#define ATTRIBUTES (sizeof(attributes) / sizeof(attributes[0]))
#define VALUE_MAX 256

/* -- text to DER -- */

/* RFC 5280 section 4.1.2.4: PrintableString where it suffices, else UTF8String; mail addresses are IA5String. */
static uint8_t string_tag(const struct attribute *a, const char *value, size_t len)
{
    if (a->oid_len == 9)
        return DER_IA5;
    for (size_t i = 0; i < len; i++) {
        char c = value[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && !strchr(" '()+,-./:=?", c))
            return DER_UTF8;
    }
    return DER_PRINTABLE;
}

static void put_rdn(struct writer *w, const struct attribute *a, const char *value, size_t len)
{
    size_t pair = der_size(a->oid_len) + der_size(len);
    der_write_head(w, DER_SET, der_size(pair));
    der_write_head(w, DER_SEQUENCE, pair);
    der_write_head(w, DER_OID, a->oid_len);
    write_bytes(w, a->oid, a->oid_len);
    der_write_head(w, string_tag(a, value, len), len);
    write_bytes(w, value, len);
}

static const struct attribute *attribute_by_name(const char *name, size_t len)
{
    for (size_t i = 0; i < ATTRIBUTES; i++)
        if (strlen(attributes[i].name) == len && strncasecmp(attributes[i].name, name, len) == 0)
            return &attributes[i];
    return NULL;
}

/* The value at *text up to the separator, without escapes and outer spaces. Moves past the separator. */
static enum err take_value(const char **text, char separator, char *value, size_t *len)
{
    const char *at = *text;
    size_t n = 0, keep = 0; /* keep: spaces before it are part of the value */
    for (; *at && *at != separator; at++) {
        bool escaped = *at == '\\';
        if (escaped && *++at == '\0')
            return ERR_SYNTAX;
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return ERR_SYNTAX;
        if (n == VALUE_MAX)
            return ERR_RANGE;
        if (n == 0 && *at == ' ' && !escaped)
            continue;
        value[n++] = *at;
        if (*at != ' ' || escaped)
            keep = n;
    }
    *text = *at ? at + 1 : at;
    *len = keep;
    return keep ? OK : ERR_SYNTAX;
}

enum err dn_encode(const char *text, struct writer *w)
{
    uint8_t body[VALUE_MAX * 2];
    struct writer rdns = writer_of(body, sizeof(body));
    char separator = ',';
    text += strspn(text, " ");
    if (*text == '/')
        separator = *text++;
    do {
        char value[VALUE_MAX];
        size_t value_len, len;
        text += strspn(text, " ");
        len = strcspn(text, "=");
        if (text[len] == '\0')
            return ERR_SYNTAX;
        const char *after = text + len + 1;
        while (len > 0 && text[len - 1] == ' ')
            len--;
        const struct attribute *a = attribute_by_name(text, len);
        if (!a)
            return ERR_UNSUPPORTED;
        TRY(take_value(&after, separator, value, &value_len));
        put_rdn(&rdns, a, value, value_len);
        text = after;
    } while (*text);
    der_write_head(w, DER_SEQUENCE, writer_len(&rdns));
    write_bytes(w, body, writer_len(&rdns));
    return rdns.failed || w->failed ? ERR_RANGE : OK;
}

/* -- DER to text, and comparison -- */

struct dn_walk dn_walk_of(struct span der)
{
    struct reader whole = reader_of(der);
    struct dn_walk w = {.rdns = der_enter(&whole, DER_SEQUENCE)};
    w.rdns.failed |= !reader_done(&whole);
    return w;
}

bool dn_next(struct dn_walk *w, struct dn_attribute *out)
{
    out->first = reader_left(&w->set) == 0;
    if (out->first) {
        if (reader_left(&w->rdns) == 0)
            return false;
        w->set = der_enter(&w->rdns, DER_SET);
    }
    struct reader pair = der_enter(&w->set, DER_SEQUENCE);
    out->oid = der_read(&pair, DER_OID);
    struct reader value = der_enter_any(&pair, &out->tag);
    out->value = read_rest(&value);
    if (!reader_done(&pair) || value.failed || w->set.failed) {
        w->rdns.failed = true;
        return false;
    }
    return true;
}

bool dn_done(const struct dn_walk *w)
{
    return reader_done(&w->rdns);
}

static bool is_string(uint8_t tag)
{
    return tag == DER_UTF8 || tag == DER_PRINTABLE || tag == DER_T61 || tag == DER_IA5;
}

static bool equal_attribute(const struct dn_attribute *a, const struct dn_attribute *b)
{
    if (a->first != b->first || !span_equal(a->oid, b->oid))
        return false;
    if (!is_string(a->tag) || !is_string(b->tag))
        return a->tag == b->tag && span_equal(a->value, b->value);
    return equal_ignoring_case(a->value, b->value);
}

/* Well-formed to its end. */
static bool is_name(struct span der)
{
    struct dn_walk w = dn_walk_of(der);
    struct dn_attribute a;
    while (dn_next(&w, &a))
        ;
    return dn_done(&w);
}

/* Whether name begins with the attributes of prefix; *rest: and goes on after them. */
static bool begins_with(struct span name, struct span prefix, bool *rest)
{
    struct dn_walk wn = dn_walk_of(name), wp = dn_walk_of(prefix);
    struct dn_attribute an, ap;
    while (dn_next(&wp, &ap))
        if (!dn_next(&wn, &an) || !equal_attribute(&an, &ap))
            return false;
    *rest = dn_next(&wn, &an);
    return !*rest || an.first; /* an RDN is had whole or not at all */
}

bool dn_equal(struct span a, struct span b)
{
    bool rest = false;
    if (!is_name(a) || !is_name(b))
        return span_equal(a, b);
    return begins_with(a, b, &rest) && !rest;
}

bool dn_within(struct span name, struct span subtree)
{
    bool rest = false;
    return is_name(name) && is_name(subtree) && begins_with(name, subtree, &rest);
}

void oid_format(struct span oid, struct text *t)
{
    uint64_t arc = 0;
    bool first = true;
    for (size_t i = 0; i < oid.len; i++) {
        arc = arc << 7 | (oid.data[i] & 0x7f);
        if (oid.data[i] & 0x80)
            continue;
        if (first) /* X.690 section 8.19.4: the first two arcs share a number */
            text_add(t, "%u.%llu",
                     arc < 40   ? 0
                     : arc < 80 ? 1
                                : 2,
                     (unsigned long long)(arc < 40   ? arc
                                          : arc < 80 ? arc - 40
                                                     : arc - 80));
        else
            text_add(t, ".%llu", (unsigned long long)arc);
        first = false;
        arc = 0;
    }
}

static void format_attribute(const struct dn_attribute *p, struct text *t)
{
    const struct attribute *found = NULL;
    for (size_t i = 0; i < ATTRIBUTES && !found; i++)
        if (span_equal(p->oid, span_of(attributes[i].oid, attributes[i].oid_len)))
            found = &attributes[i];
    if (found)
        text_add(t, "%s", found->name);
    else
        oid_format(p->oid, t);
    text_add(t, "=");
    if (is_string(p->tag))
        text_escape(t, p->value, ",\\");
    else
        text_hex(t, p->value);
}

const char *dn_format(struct span der, char *text, size_t size)
{
    struct text t = text_of(text, size);
    struct dn_walk w = dn_walk_of(der);
    struct dn_attribute a;
    bool some = false;
    while (dn_next(&w, &a)) {
        if (some)
            text_add(&t, a.first ? ", " : "+");
        format_attribute(&a, &t);
        some = true;
    }
    if (!some || !dn_done(&w)) {
        t = text_of(text, size);
        text_hex(&t, der);
    }
    return text;
}
