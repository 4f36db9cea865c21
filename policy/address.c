#include "policy/address.h"

#include <stdio.h>
#include <string.h>

/* A decimal of one to three digits, nothing else. */
static enum err parse_bits(const char *text, unsigned max, uint8_t *out)
{
    unsigned value = 0;
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 3 || text[n] != '\0')
        return ERR_SYNTAX;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    if (value > max)
        return ERR_RANGE;
    *out = (uint8_t)value;
    return OK;
}

enum err prefix_parse(const char *text, struct prefix *out)
{
    char address[IP_TEXT];
    struct prefix p;
    size_t n = strcspn(text, "/");
    if (n >= sizeof(address))
        return ERR_SYNTAX;
    memcpy(address, text, n);
    address[n] = '\0';
    TRY(ip_parse(address, &p.ip));
    p.bits = (uint8_t)(ip_len(p.ip.family) * 8);
    if (text[n] == '/')
        TRY(parse_bits(text + n + 1, p.bits, &p.bits));
    *out = p;
    return OK;
}

const char *prefix_format(const struct prefix *p, char *text)
{
    char address[IP_TEXT];
    snprintf(text, PREFIX_TEXT, "%s/%u", ip_format(&p->ip, address), p->bits);
    return text;
}

/* The bits of byte i that lie behind the prefix length. */
static uint8_t host_mask(unsigned bits, unsigned i)
{
    if (bits >= (i + 1) * 8)
        return 0;
    if (bits <= i * 8)
        return 0xff;
    return (uint8_t)(0xff >> (bits - i * 8));
}

bool prefix_has_host_bits(const struct prefix *p)
{
    for (unsigned i = 0; i < ip_len(p->ip.family); i++)
        if (p->ip.b[i] & host_mask(p->bits, i))
            return true;
    return false;
}

struct ip_range prefix_range(const struct prefix *p)
{
    struct ip_range r = {.first = p->ip, .last = p->ip};
    for (unsigned i = 0; i < ip_len(p->ip.family); i++) {
        uint8_t mask = host_mask(p->bits, i);
        r.first.b[i] &= (uint8_t)~mask;
        r.last.b[i] |= mask;
    }
    return r;
}

enum err range_prefix(const struct ip_range *r, struct prefix *out)
{
    struct prefix p = {.ip = r->first, .bits = 0};
    unsigned max = ip_len(r->first.family) * 8;
    while (p.bits < max && !((r->first.b[p.bits / 8] ^ r->last.b[p.bits / 8]) & 0x80 >> p.bits % 8))
        p.bits++;
    struct ip_range whole = prefix_range(&p);
    if (max == 0 || ip_compare(&whole.first, &r->first) != 0 || ip_compare(&whole.last, &r->last) != 0)
        return ERR_MISMATCH;
    *out = p;
    return OK;
}

/* The longest aligned block that starts at first and does not pass last. */
static struct prefix largest_block(const struct ip *first, const struct ip *last)
{
    struct prefix p = {.ip = *first, .bits = (uint8_t)(ip_len(first->family) * 8)};
    while (p.bits > 0) {
        struct prefix wider = {.ip = *first, .bits = (uint8_t)(p.bits - 1)};
        struct ip_range r = prefix_range(&wider);
        if (ip_compare(&r.first, first) != 0 || ip_compare(&r.last, last) > 0)
            break;
        p = wider;
    }
    return p;
}

/* The address after ip; the caller knows that ip is not the last one of its family. */
static struct ip next_address(struct ip ip)
{
    for (unsigned i = ip_len(ip.family); i-- > 0;)
        if (++ip.b[i] != 0)
            break;
    return ip;
}

/* The address before ip; the caller knows that ip is not the first one of its family. */
static struct ip previous_address(struct ip ip)
{
    for (unsigned i = ip_len(ip.family); i-- > 0;)
        if (ip.b[i]-- != 0)
            break;
    return ip;
}

enum err range_prefixes(const struct ip_range *r, struct prefix *out, unsigned cap, unsigned *n)
{
    struct ip at = r->first;
    for (unsigned i = 0; i < cap; i++) {
        out[i] = largest_block(&at, &r->last);
        struct ip_range block = prefix_range(&out[i]);
        if (ip_compare(&block.last, &r->last) >= 0) {
            *n = i + 1;
            return OK;
        }
        at = next_address(block.last);
    }
    return ERR_FULL;
}

const char *range_format(const struct ip_range *r, char *text)
{
    struct prefix p;
    char first[IP_TEXT], last[IP_TEXT];
    if (range_prefix(r, &p) == OK)
        snprintf(text, RANGE_TEXT, "%s/%u", ip_format(&p.ip, first), p.bits);
    else
        snprintf(text, RANGE_TEXT, "%s-%s", ip_format(&r->first, first), ip_format(&r->last, last));
    return text;
}

int ip_compare(const struct ip *a, const struct ip *b)
{
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    return memcmp(a->b, b->b, sizeof(a->b));
}

bool range_contains(const struct ip_range *r, const struct ip *ip)
{
    return r->first.family == ip->family && ip_compare(&r->first, ip) <= 0 && ip_compare(ip, &r->last) <= 0;
}

bool range_within(const struct ip_range *inner, const struct ip_range *outer)
{
    return range_contains(outer, &inner->first) && range_contains(outer, &inner->last);
}

bool range_intersect(const struct ip_range *a, const struct ip_range *b, struct ip_range *out)
{
    if (a->first.family != b->first.family)
        return false;
    struct ip_range r = *a;
    if (ip_compare(&b->first, &r.first) > 0)
        r.first = b->first;
    if (ip_compare(&b->last, &r.last) < 0)
        r.last = b->last;
    if (ip_compare(&r.first, &r.last) > 0)
        return false;
    *out = r;
    return true;
}

unsigned range_subtract(const struct ip_range *from, const struct ip_range *cut, struct ip_range out[2])
{
    struct ip_range both;
    unsigned n = 0;
    if (!range_intersect(from, cut, &both)) {
        out[0] = *from;
        return 1;
    }
    if (ip_compare(&from->first, &both.first) < 0)
        out[n++] = (struct ip_range){from->first, previous_address(both.first)};
    if (ip_compare(&both.last, &from->last) < 0)
        out[n++] = (struct ip_range){next_address(both.last), from->last};
    return n;
}
