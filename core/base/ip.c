#include "core/base/ip.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* ::ffff:0:0/96, RFC 4291 section 2.5.5.2. */
static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct ip ip_from_bytes(uint8_t family, const uint8_t *bytes)
{
    struct ip ip = {.family = 0};
    unsigned len = ip_len(family);
    if (len) {
        ip.family = family;
        memcpy(ip.b, bytes, len);
    }
    return ip;
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
    return a->family == b->family && memcmp(a->b, b->b, sizeof a->b) == 0;
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
    return a->port == b->port && ip_equal(&a->ip, &b->ip);
}

bool path_equal(const struct path *a, const struct path *b)
{
    return a->transport == b->transport && a->marker == b->marker && endpoint_equal(&a->local, &b->local) &&
           endpoint_equal(&a->remote, &b->remote);
}

bool ip_is_any(const struct ip *a)
{
    static const uint8_t zero[sizeof a->b];
    return memcmp(a->b, zero, sizeof zero) == 0;
}

enum err ip_parse(const char *text, struct ip *out)
{
    uint8_t bytes[16];
    uint8_t family = 0;
    if (inet_pton(AF_INET, text, bytes) == 1)
        family = 4;
    else if (inet_pton(AF_INET6, text, bytes) == 1)
        family = 6;
    else
        return ERR_SYNTAX;
    *out = ip_from_bytes(family, bytes);
    return OK;
}

const char *ip_format(const struct ip *a, char *text)
{
    if (a->family == 4 || a->family == 6)
        (void)inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->b, text, IP_TEXT);
    else
        (void)snprintf(text, IP_TEXT, "none");
    return text;
}

const char *endpoint_format(const struct endpoint *e, char *text)
{
    char address[IP_TEXT];
    ip_format(&e->ip, address);
    if (e->port == 0)
        (void)snprintf(text, ENDPOINT_TEXT, "%s", address);
    else
        (void)snprintf(text, ENDPOINT_TEXT, e->ip.family == 6 ? "[%s]:%u" : "%s:%u", address, (unsigned)e->port);
    return text;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *e, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (e->ip.family == 4) {
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(e->port)};
        memcpy(&sin.sin_addr, e->ip.b, 4);
        memcpy(out, &sin, sizeof sin);
        return sizeof sin;
    }
    if (e->ip.family == 6) {
        struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(e->port)};
        memcpy(&sin6.sin6_addr, e->ip.b, 16);
        memcpy(out, &sin6, sizeof sin6);
        return sizeof sin6;
    }
    return 0;
}

enum err endpoint_from_sockaddr(const struct sockaddr_storage *in, struct endpoint *out)
{
    if (in->ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, in, sizeof sin);
        uint8_t bytes[4];
        memcpy(bytes, &sin.sin_addr, sizeof bytes);
        *out = (struct endpoint){.ip = ip_from_bytes(4, bytes), .port = ntohs(sin.sin_port)};
        return OK;
    }
    if (in->ss_family == AF_INET6) {
        struct sockaddr_in6 sin6;
        memcpy(&sin6, in, sizeof sin6);
        uint8_t bytes[16];
        memcpy(bytes, &sin6.sin6_addr, sizeof bytes);
        bool mapped = memcmp(bytes, mapped_prefix, sizeof mapped_prefix) == 0;
        *out = (struct endpoint){.ip = mapped ? ip_from_bytes(4, bytes + 12) : ip_from_bytes(6, bytes),
                                 .port = ntohs(sin6.sin6_port)};
        return OK;
    }
    return ERR_UNSUPPORTED;
}
