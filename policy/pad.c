#include "policy/pad.h"

#include <stdio.h>
#include <strings.h>

#include "core/base/escape.h"
#include "crypto/dn.h"

static enum err set(struct identity *out, enum id_type type, const char *text, size_t len)
{
    struct identity id = {.type = (uint8_t)type, .len = (uint16_t)len};
    if (len == 0)
        return ERR_SYNTAX;
    if (len > IDENTITY_MAX)
        return ERR_RANGE;
    memcpy(id.b, text, len);
    *out = id;
    return OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static enum err parse_key_id(const char *text, struct identity *out)
{
    char bytes[IDENTITY_MAX];
    size_t len = strlen(text);
    if (strncmp(text, "0x", 2) != 0)
        return set(out, ID_KEY_ID, text, len);
    if (len % 2 != 0)
        return ERR_SYNTAX;
    if (len / 2 - 1 > sizeof(bytes))
        return ERR_RANGE;
    for (size_t i = 2; i < len; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return ERR_SYNTAX;
        bytes[i / 2 - 1] = (char)(high << 4 | low);
    }
    return set(out, ID_KEY_ID, bytes, len / 2 - 1);
}

static enum err parse_dn(const char *text, struct identity *out)
{
    struct identity id = {.type = ID_DER_DN};
    struct writer w = writer_of(id.b, sizeof(id.b));
    TRY(dn_encode(text, &w));
    id.len = (uint16_t)writer_len(&w);
    *out = id;
    return OK;
}

/* No spaces, no control characters: such a name could only be a mistake. */
static bool is_name(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text <= 0x20 || *text == 0x7f)
            return false;
    return true;
}

enum err identity_parse(const char *text, struct identity *out)
{
    struct ip ip;
    if (strncasecmp(text, "keyid:", 6) == 0)
        return parse_key_id(text + 6, out);
    if (strchr(text, '='))
        return parse_dn(text, out);
    if (ip_parse(text, &ip) == OK) {
        *out = identity_of_ip(&ip);
        return OK;
    }
    if (!is_name(text))
        return ERR_SYNTAX;
    if (text[0] == '@')
        return set(out, ID_FQDN, text + 1, strlen(text + 1));
    if (strchr(text, '@'))
        return set(out, ID_RFC822, text, strlen(text));
    /* What holds a colon, or digits and dots alone, was meant to be an address. */
    if (strchr(text, ':') || text[strspn(text, "0123456789.")] == '\0')
        return ERR_SYNTAX;
    return set(out, ID_FQDN, text, strlen(text));
}

struct identity identity_of_ip(const struct ip *ip)
{
    struct identity id = {.type = ip->family == 4   ? ID_IPV4
                                  : ip->family == 6 ? ID_IPV6
                                                    : ID_NONE,
                          .len = (uint16_t)ip_len(ip->family)};
    memcpy(id.b, ip->b, id.len);
    return id;
}

static struct span bytes_of(const struct identity *id)
{
    return span_of(id->b, id->len <= IDENTITY_MAX ? id->len : IDENTITY_MAX);
}

bool identity_equal(const struct identity *a, const struct identity *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case ID_FQDN:
    case ID_RFC822:
        return equal_ignoring_case(bytes_of(a), bytes_of(b));
    case ID_DER_DN:
        return dn_equal(bytes_of(a), bytes_of(b));
    default:
        return span_equal(bytes_of(a), bytes_of(b));
    }
}

/* Letter case, and in a DN which kind of string it is written as (identity_equal looks at neither). */
static uint8_t fold_byte(uint8_t type, uint8_t b)
{
    if (b >= 'A' && b <= 'Z')
        return (uint8_t)(b - 'A' + 'a');
    bool string_tag = b == 0x0c || b == 0x13 || b == 0x14 || b == 0x16; /* UTF8, Printable, T61, IA5 */
    return type == ID_DER_DN && string_tag ? 0x0c : b;
}

size_t identity_fold(const struct identity *id, uint8_t out[IDENTITY_FOLDED])
{
    struct span bytes = bytes_of(id);
    bool as_is = id->type != ID_FQDN && id->type != ID_RFC822 && id->type != ID_DER_DN;
    out[0] = id->type;
    for (size_t i = 0; i < bytes.len; i++)
        out[1 + i] = as_is ? bytes.data[i] : fold_byte(id->type, bytes.data[i]);
    return 1 + bytes.len;
}

static void format_key_id(struct span bytes, struct text *t)
{
    text_add(t, "keyid:");
    if (is_printable(bytes) && bytes.len > 0 && !(bytes.len >= 2 && memcmp(bytes.data, "0x", 2) == 0))
        text_escape(t, bytes, "\\");
    else
        text_hex(t, bytes);
}

const char *identity_format(const struct identity *id, char *text, size_t size)
{
    char address[IP_TEXT];
    struct span bytes = bytes_of(id);
    struct text t = text_of(text, size);
    unsigned family = id->type == ID_IPV4 ? 4 : id->type == ID_IPV6 ? 6 : 0;
    if (family && bytes.len == ip_len((uint8_t)family)) {
        struct ip ip = ip_from_bytes((uint8_t)family, bytes.data);
        text_add(&t, "%s", ip_format(&ip, address));
        return text;
    }
    switch (id->type) {
    case ID_NONE:
        text_add(&t, "none");
        break;
    case ID_FQDN:
    case ID_RFC822:
        text_escape(&t, bytes, "\\");
        break;
    case ID_DER_DN:
        return dn_format(bytes, text, size);
    case ID_KEY_ID:
        format_key_id(bytes, &t);
        break;
    default:
        text_add(&t, "type%u:", id->type);
        text_hex(&t, bytes);
    }
    return text;
}

/* -- endpoints -- */

const char *peer_endpoint_format(const struct peer_endpoint *e, char *text)
{
    struct endpoint shown = e->at;
    if (shown.port == IKE_PORT)
        shown.port = 0;
    if (!e->host[0])
        return endpoint_format(&shown, text);
    if (shown.port)
        snprintf(text, PEER_ENDPOINT_TEXT, "%s:%u", e->host, shown.port);
    else
        snprintf(text, PEER_ENDPOINT_TEXT, "%s", e->host);
    return text;
}

unsigned peer_addresses(const struct peer *p, struct endpoint *out)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->endpoint_count; i++)
        if (!p->endpoints[i].host[0])
            out[n++] = p->endpoints[i].at;
    return n;
}

bool peer_has_names(const struct peer *p)
{
    for (unsigned i = 0; i < p->endpoint_count; i++)
        if (p->endpoints[i].host[0])
            return true;
    return false;
}
