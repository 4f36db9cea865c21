#include "policy/selector.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define PROTO_ICMP 1
#define PROTO_MOBILITY 135
#define PROTO_ICMPV6 58

/* What the two bytes of a selector's "port" mean for a protocol. */
enum port_kind { PORT_NONE, PORT_PAIR, PORT_ICMP, PORT_MOBILITY };

static const struct {
    uint8_t number;
    const char *name;
} protocols[] = {
    {6, "tcp"},       {17, "udp"}, {1, "icmp"},  {58, "icmpv6"}, {132, "sctp"}, {33, "dccp"},
    {136, "udplite"}, {135, "mh"}, {47, "gre"},  {50, "esp"},    {51, "ah"},    {4, "ipip"},
    {41, "ipv6"},     {2, "igmp"}, {89, "ospf"}, {115, "l2tp"},  {112, "vrrp"}, {103, "pim"},
};
#define PROTOCOLS (sizeof(protocols) / sizeof(protocols[0]))

static enum port_kind port_kind(uint8_t proto)
{
    switch (proto) {
    case 6:   /* TCP */
    case 17:  /* UDP */
    case 33:  /* DCCP */
    case 132: /* SCTP */
    case 136: /* UDP-Lite */
        return PORT_PAIR;
    case PROTO_ICMP:
    case PROTO_ICMPV6:
        return PORT_ICMP;
    case PROTO_MOBILITY:
        return PORT_MOBILITY;
    default:
        return PORT_NONE;
    }
}

static bool ports_any(const struct selector *s)
{
    return s->port_first == 0 && s->port_last == UINT16_MAX;
}

static bool ports_opaque(const struct selector *s)
{
    return s->port_first > s->port_last;
}

/* -- parsing -- */

/* Reads a decimal at *text and moves past it. */
static enum err take_number(const char **text, unsigned max, unsigned *out)
{
    size_t n = strspn(*text, "0123456789");
    if (n == 0)
        return ERR_SYNTAX;
    unsigned long value = n > 9 ? (unsigned long)max + 1 : strtoul(*text, NULL, 10);
    if (value > max)
        return ERR_RANGE;
    *text += n;
    *out = (unsigned)value;
    return OK;
}

static bool take_char(const char **text, char c)
{
    if (**text != c)
        return false;
    (*text)++;
    return true;
}

/* "T", "T(C)" or "T(C-C)": the lowest and highest type << 8 | code that it names. */
static enum err take_icmp(const char **text, uint16_t *first, uint16_t *last)
{
    unsigned type, low = 0, high = 255;
    TRY(take_number(text, 255, &type));
    if (take_char(text, '(')) {
        TRY(take_number(text, 255, &low));
        high = low;
        if (take_char(text, '-'))
            TRY(take_number(text, 255, &high));
        if (!take_char(text, ')'))
            return ERR_SYNTAX;
    }
    if (low > high)
        return ERR_RANGE;
    *first = (uint16_t)(type << 8 | low);
    *last = (uint16_t)(type << 8 | high);
    return OK;
}

/* One end of a port range, in the protocol's own notation. */
static enum err take_port(const char **text, enum port_kind kind, uint16_t *first, uint16_t *last)
{
    unsigned value;
    switch (kind) {
    case PORT_ICMP:
        return take_icmp(text, first, last);
    case PORT_PAIR:
        TRY(take_number(text, UINT16_MAX, &value));
        *first = *last = (uint16_t)value;
        return OK;
    case PORT_MOBILITY:
        TRY(take_number(text, 255, &value));
        *first = *last = (uint16_t)(value << 8); /* RFC 7296 section 3.13.1: the low bits are zero */
        return OK;
    default:
        return ERR_SYNTAX;
    }
}

static enum err parse_ports(const char *text, struct selector *s)
{
    uint16_t unused;
    enum port_kind kind = port_kind(s->proto);
    if (strcasecmp(text, "opaque") == 0) {
        s->port_first = UINT16_MAX;
        s->port_last = 0;
        return OK;
    }
    if (strcasecmp(text, "any") == 0)
        return OK;
    TRY(take_port(&text, kind, &s->port_first, &s->port_last));
    if (take_char(&text, '-'))
        TRY(take_port(&text, kind, &unused, &s->port_last));
    if (*text != '\0')
        return ERR_SYNTAX;
    return s->port_first <= s->port_last ? OK : ERR_RANGE;
}

static enum err parse_protocol(const char *text, uint8_t *out)
{
    unsigned number;
    if (strcasecmp(text, "any") == 0) {
        *out = 0;
        return OK;
    }
    for (size_t i = 0; i < PROTOCOLS; i++) {
        if (strcasecmp(text, protocols[i].name) == 0) {
            *out = protocols[i].number;
            return OK;
        }
    }
    TRY(take_number(&text, 255, &number));
    if (*text != '\0')
        return ERR_SYNTAX;
    *out = (uint8_t)number;
    return OK;
}

static enum err parse_range(const char *text, struct ip_range *out)
{
    struct prefix p;
    struct ip_range r;
    char first[IP_TEXT];
    size_t n = strcspn(text, "-");
    if (text[n] == '\0') {
        TRY(prefix_parse(text, &p));
        *out = prefix_range(&p);
        return OK;
    }
    if (n >= sizeof(first))
        return ERR_SYNTAX;
    memcpy(first, text, n);
    first[n] = '\0';
    TRY(ip_parse(first, &r.first));
    TRY(ip_parse(text + n + 1, &r.last));
    if (r.first.family != r.last.family)
        return ERR_SYNTAX;
    if (ip_compare(&r.first, &r.last) > 0)
        return ERR_RANGE;
    *out = r;
    return OK;
}

enum err selector_parse(const char *text, struct selector *out)
{
    struct selector s = {.port_last = UINT16_MAX};
    char copy[SELECTOR_TEXT];
    size_t len = strlen(text);
    if (len >= sizeof(copy))
        return ERR_SYNTAX;
    memcpy(copy, text, len + 1);
    char *bracket = strchr(copy, '[');
    if (bracket) {
        if (copy[len - 1] != ']')
            return ERR_SYNTAX;
        copy[len - 1] = '\0';
        *bracket++ = '\0';
        char *slash = strchr(bracket, '/');
        if (slash)
            *slash++ = '\0';
        TRY(parse_protocol(bracket, &s.proto));
        if (slash)
            TRY(parse_ports(slash, &s));
    }
    TRY(parse_range(copy, &s.range));
    *out = s;
    return OK;
}

/* Keeps what the caller wants to show of an item that was refused. */
static enum err refuse(enum err e, const char *item, char *at, size_t at_size)
{
    if (at && at_size > 0)
        snprintf(at, at_size, "%s", item);
    return e;
}

enum err selectors_parse(const char *text, struct selectors *out, char *at, size_t at_size)
{
    struct selectors list = {0};
    const char *space = " \t\r\n";
    for (;;) {
        char item[SELECTOR_TEXT];
        text += strspn(text, space);
        size_t n = strcspn(text, ","), len = n;
        while (len > 0 && strchr(space, text[len - 1]))
            len--;
        snprintf(item, sizeof(item), "%.*s", (int)(len < sizeof(item) ? len : sizeof(item)), text);
        if (len >= sizeof(item))
            return refuse(ERR_SYNTAX, item, at, at_size);
        if (list.n == SELECTORS_MAX)
            return refuse(ERR_FULL, item, at, at_size);
        enum err e = selector_parse(item, &list.v[list.n]);
        if (e != OK)
            return refuse(e, item, at, at_size);
        list.n++;
        if (text[n] == '\0')
            break;
        text += n + 1;
    }
    *out = list;
    return OK;
}

/* -- formatting -- */

static void format_icmp(const struct selector *s, char *text, size_t size)
{
    unsigned t1 = s->port_first >> 8, c1 = s->port_first & 255, t2 = s->port_last >> 8, c2 = s->port_last & 255;
    if (c1 == 0 && c2 == 255)
        snprintf(text, size, t1 == t2 ? "/%u" : "/%u-%u", t1, t2);
    else if (t1 != t2)
        snprintf(text, size, "/%u(%u)-%u(%u)", t1, c1, t2, c2);
    else
        snprintf(text, size, c1 == c2 ? "/%u(%u)" : "/%u(%u-%u)", t1, c1, c2);
}

static void format_ports(const struct selector *s, char *text, size_t size)
{
    unsigned first = s->port_first, last = s->port_last;
    enum port_kind kind = port_kind(s->proto);
    text[0] = '\0';
    if (ports_any(s))
        return;
    if (ports_opaque(s)) {
        snprintf(text, size, "/opaque");
    } else if (kind == PORT_ICMP) {
        format_icmp(s, text, size);
    } else {
        if (kind == PORT_MOBILITY) {
            first >>= 8;
            last >>= 8;
        }
        snprintf(text, size, first == last ? "/%u" : "/%u-%u", first, last);
    }
}

static void format_protocol(uint8_t proto, char *text, size_t size)
{
    snprintf(text, size, "%u", proto);
    if (proto == 0)
        snprintf(text, size, "any");
    for (size_t i = 0; i < PROTOCOLS; i++)
        if (proto == protocols[i].number)
            snprintf(text, size, "%s", protocols[i].name);
}

const char *selector_format(const struct selector *s, char *text)
{
    char range[RANGE_TEXT], proto[12], ports[20];
    range_format(&s->range, range);
    if (s->proto == 0 && ports_any(s)) {
        snprintf(text, SELECTOR_TEXT, "%s", range);
        return text;
    }
    format_protocol(s->proto, proto, sizeof(proto));
    format_ports(s, ports, sizeof(ports));
    snprintf(text, SELECTOR_TEXT, "%.95s[%s%s]", range, proto, ports);
    return text;
}

const char *selectors_format(const struct selectors *s, char *text, size_t size)
{
    const char *more = "…";
    size_t used = 0, reserve = strlen(more) + 1;
    if (size == 0)
        return text;
    text[0] = '\0';
    for (unsigned i = 0; i < s->n; i++) {
        char one[SELECTOR_TEXT], item[SELECTOR_TEXT + 2];
        int n = snprintf(item, sizeof(item), "%s%s", i ? ", " : "", selector_format(&s->v[i], one));
        bool last = i + 1 == s->n;
        if (used + (size_t)n + (last ? 1 : reserve) > size) {
            if (used + reserve <= size)
                memcpy(text + used, more, reserve);
            break;
        }
        memcpy(text + used, item, (size_t)n + 1);
        used += (size_t)n;
    }
    return text;
}

/* -- comparing -- */

bool selector_equal(const struct selector *a, const struct selector *b)
{
    return ip_compare(&a->range.first, &b->range.first) == 0 && ip_compare(&a->range.last, &b->range.last) == 0 &&
           a->proto == b->proto && a->port_first == b->port_first && a->port_last == b->port_last;
}

bool selectors_equal(const struct selectors *a, const struct selectors *b)
{
    if (a->n != b->n)
        return false;
    for (unsigned i = 0; i < a->n; i++)
        if (!selector_equal(&a->v[i], &b->v[i]))
            return false;
    return true;
}

/* ANY includes OPAQUE (RFC 7296 section 3.13.1); a stated port never matches one that can't be seen. */
static bool port_matches(const struct selector *s, uint16_t port, bool known)
{
    if (ports_any(s))
        return true;
    if (!known)
        return ports_opaque(s);
    return s->port_first <= port && port <= s->port_last;
}

bool selector_matches(const struct selector *s, const struct ip *ip, uint8_t proto, uint16_t port, bool port_known)
{
    return (s->proto == 0 || s->proto == proto) && range_contains(&s->range, ip) && port_matches(s, port, port_known);
}

bool selector_within(const struct selector *inner, const struct selector *outer)
{
    if (outer->proto != 0 && outer->proto != inner->proto)
        return false;
    if (!range_within(&inner->range, &outer->range))
        return false;
    if (ports_any(outer))
        return true;
    if (ports_opaque(outer) || ports_opaque(inner))
        return ports_opaque(outer) && ports_opaque(inner);
    return outer->port_first <= inner->port_first && inner->port_last <= outer->port_last;
}

static bool ports_intersect(const struct selector *a, const struct selector *b, struct selector *out)
{
    const struct selector *narrow = ports_any(a) ? b : a, *wide = narrow == a ? b : a;
    out->port_first = narrow->port_first;
    out->port_last = narrow->port_last;
    if (ports_any(wide))
        return true;
    if (ports_opaque(a) || ports_opaque(b))
        return ports_opaque(a) && ports_opaque(b);
    if (wide->port_first > out->port_first)
        out->port_first = wide->port_first;
    if (wide->port_last < out->port_last)
        out->port_last = wide->port_last;
    return out->port_first <= out->port_last;
}

bool selector_intersect(const struct selector *a, const struct selector *b, struct selector *out)
{
    struct selector s = {.proto = a->proto ? a->proto : b->proto};
    if (a->proto && b->proto && a->proto != b->proto)
        return false;
    if (!range_intersect(&a->range, &b->range, &s.range) || !ports_intersect(a, b, &s))
        return false;
    *out = s;
    return true;
}

static bool any_matches(const struct selectors *list, const struct ip *ip, const struct flow *f, uint16_t port,
                        bool ignore_port)
{
    for (unsigned i = 0; i < list->n; i++) {
        const struct selector *s = &list->v[i];
        if ((s->proto == 0 || s->proto == f->proto) && range_contains(&s->range, ip) &&
            (ignore_port || port_matches(s, port, f->ports_known)))
            return true;
    }
    return false;
}

bool selector_sender_only(uint8_t proto)
{
    enum port_kind kind = port_kind(proto);
    return kind == PORT_ICMP || kind == PORT_MOBILITY;
}

static bool match(const struct selectors *sender, const struct selectors *receiver, const struct flow *f)
{
    /* A fragment's receiver side still counts: a stated type there means that unseen ones are not wanted. */
    bool sender_only = selector_sender_only(f->proto) && f->ports_known;
    return any_matches(sender, &f->src, f, f->src_port, false) &&
           any_matches(receiver, &f->dst, f, f->dst_port, sender_only);
}

bool selectors_match_out(const struct selectors *local, const struct selectors *remote, const struct flow *f)
{
    return match(local, remote, f);
}

bool selectors_match_in(const struct selectors *local, const struct selectors *remote, const struct flow *f)
{
    return match(remote, local, f);
}
