#include "policy/dn.h"

#include <stdio.h>
#include <strings.h>

#include "policy/escape.h"

enum der_tag {
    DER_OID = 0x06,
    DER_UTF8 = 0x0c,
    DER_PRINTABLE = 0x13,
    DER_T61 = 0x14,
    DER_IA5 = 0x16,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31
};

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

static size_t tlv_size(size_t len)
{
    return 1 + (len < 0x80 ? 1 : len < 0x100 ? 2 : 3) + len;
}

static void put_header(struct writer *w, uint8_t tag, size_t len)
{
    write_u8(w, tag);
    if (len < 0x80) {
        write_u8(w, (uint8_t)len);
    } else if (len < 0x100) {
        write_u8(w, 0x81);
        write_u8(w, (uint8_t)len);
    } else {
        write_u8(w, 0x82);
        write_u16(w, (uint16_t)len);
    }
}

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
    size_t pair = tlv_size(a->oid_len) + tlv_size(len);
    put_header(w, DER_SET, tlv_size(pair));
    put_header(w, DER_SEQUENCE, pair);
    put_header(w, DER_OID, a->oid_len);
    write_bytes(w, a->oid, a->oid_len);
    put_header(w, string_tag(a, value, len), len);
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
    put_header(w, DER_SEQUENCE, writer_len(&rdns));
    write_bytes(w, body, writer_len(&rdns));
    return rdns.failed || w->failed ? ERR_RANGE : OK;
}

/* -- DER to text, and comparison -- */

/* The next element: its tag, and a reader confined to its content. */
static struct reader read_element(struct reader *r, uint8_t *tag)
{
    *tag = read_u8(r);
    size_t len = read_u8(r);
    if (len == 0x81) {
        len = read_u8(r);
    } else if (len == 0x82) {
        len = read_u16(r);
    } else if (len >= 0x80) {
        r->failed = true;
    }
    return read_sub(r, len);
}

static struct reader read_tagged(struct reader *r, uint8_t expected)
{
    uint8_t tag;
    struct reader content = read_element(r, &tag);
    if (tag != expected)
        content.failed = r->failed = true;
    return content;
}

/* One attribute with its value; `first` where it begins an RDN. */
struct pair {
    struct span oid, value;
    uint8_t tag;
    bool first;
};

/* Walks a name: rdns over its content, set within the present RDN (starts empty). False at the end or on a fault. */
static bool next_pair(struct reader *rdns, struct reader *set, struct pair *out)
{
    out->first = reader_left(set) == 0;
    if (out->first) {
        if (reader_left(rdns) == 0)
            return false;
        *set = read_tagged(rdns, DER_SET);
    }
    struct reader pair = read_tagged(set, DER_SEQUENCE);
    struct reader oid = read_tagged(&pair, DER_OID);
    struct reader value = read_element(&pair, &out->tag);
    out->oid = read_rest(&oid);
    out->value = read_rest(&value);
    if (!reader_done(&pair) || oid.failed || value.failed || set->failed) {
        rdns->failed = true;
        return false;
    }
    return true;
}

static bool is_string(uint8_t tag)
{
    return tag == DER_UTF8 || tag == DER_PRINTABLE || tag == DER_T61 || tag == DER_IA5;
}

static bool equal_pair(const struct pair *a, const struct pair *b)
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
    struct reader whole = reader_of(der), rdns = read_tagged(&whole, DER_SEQUENCE), set = {0};
    struct pair p;
    while (next_pair(&rdns, &set, &p))
        ;
    return reader_done(&rdns) && reader_done(&whole);
}

bool dn_equal(struct span a, struct span b)
{
    struct reader whole_a = reader_of(a), whole_b = reader_of(b);
    struct reader rdns_a = read_tagged(&whole_a, DER_SEQUENCE), rdns_b = read_tagged(&whole_b, DER_SEQUENCE);
    struct reader set_a = {0}, set_b = {0};
    bool alike = true;
    if (!is_name(a) || !is_name(b))
        return span_equal(a, b);
    while (alike) {
        struct pair pa, pb;
        bool more_a = next_pair(&rdns_a, &set_a, &pa), more_b = next_pair(&rdns_b, &set_b, &pb);
        if (!more_a && !more_b)
            break;
        alike = more_a && more_b && equal_pair(&pa, &pb);
    }
    return alike;
}

static void format_oid(struct span oid, struct text *t)
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

static void format_pair(const struct pair *p, struct text *t)
{
    const struct attribute *found = NULL;
    for (size_t i = 0; i < ATTRIBUTES && !found; i++)
        if (span_equal(p->oid, span_of(attributes[i].oid, attributes[i].oid_len)))
            found = &attributes[i];
    if (found)
        text_add(t, "%s", found->name);
    else
        format_oid(p->oid, t);
    text_add(t, "=");
    if (is_string(p->tag))
        text_escape(t, p->value, ",\\");
    else
        text_hex(t, p->value);
}

const char *dn_format(struct span der, char *text, size_t size)
{
    struct text t = text_of(text, size);
    struct reader whole = reader_of(der), rdns = read_tagged(&whole, DER_SEQUENCE), set = {0};
    struct pair p;
    bool some = false;
    while (next_pair(&rdns, &set, &p)) {
        if (some)
            text_add(&t, p.first ? ", " : "+");
        format_pair(&p, &t);
        some = true;
    }
    if (!some || !reader_done(&rdns) || !reader_done(&whole)) {
        t = text_of(text, size);
        text_hex(&t, der);
    }
    return text;
}
