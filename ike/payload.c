/* Parsing of IKEv2 messages (RFC 7296 section 3). */
#include "ike/payload.h"

#include <stdio.h>

/*
 * More payloads than any message needs. Each takes at least four bytes, so the chain ends by itself; this keeps a
 * hostile message from costing thousands of steps.
 */
#define PAYLOADS_MAX 256

#define CRITICAL_BIT 0x80
#define TS_IPV4 7
#define TS_IPV6 8

enum err ike_header_parse(struct span message, struct ike_header *out)
{
    struct reader r = reader_of(message);
    struct ike_header h;
    h.spi_i = read_u64(&r);
    h.spi_r = read_u64(&r);
    h.next_payload = read_u8(&r);
    h.version = read_u8(&r);
    h.exchange = read_u8(&r);
    h.flags = read_u8(&r);
    h.message_id = read_u32(&r);
    h.length = read_u32(&r);
    if (r.failed || h.length < IKE_HEADER_LEN || h.length > message.len)
        return ERR_TRUNCATED;
    *out = h;
    return OK;
}

/* -- one payload each: the body is what follows the generic header -- */

static enum err parse_ke(struct span body, struct ike_message *m)
{
    struct reader r = reader_of(body);
    uint16_t group = read_u16(&r);
    read_u16(&r); /* reserved */
    struct span value = read_rest(&r);
    if (r.failed)
        return ERR_SYNTAX;
    m->ke_group = group;
    m->ke = value;
    return OK;
}

static enum err parse_id(struct span body, struct span *out)
{
    if (body.len < 4)
        return ERR_SYNTAX;
    *out = body;
    return OK;
}

static enum err parse_auth(struct span body, struct ike_message *m)
{
    struct reader r = reader_of(body);
    uint8_t method = read_u8(&r);
    read_span(&r, 3); /* reserved */
    struct span data = read_rest(&r);
    if (r.failed)
        return ERR_SYNTAX;
    m->auth_method = method;
    m->auth_data = data;
    return OK;
}

static enum err parse_nonce(struct span body, struct ike_message *m)
{
    if (body.len < IKE_NONCE_MIN || body.len > IKE_NONCE_MAX)
        return ERR_SYNTAX;
    m->nonce = body;
    return OK;
}

static enum err parse_cert(struct span body, struct ike_message *m)
{
    struct reader r = reader_of(body);
    struct ike_cert c = {.encoding = read_u8(&r)};
    c.data = read_rest(&r);
    if (r.failed)
        return ERR_SYNTAX;
    if (m->certs < IKE_CERTS_MAX)
        m->cert[m->certs++] = c;
    return OK;
}

static enum err parse_notify(struct span body, struct ike_message *m)
{
    struct reader r = reader_of(body);
    struct ike_notify n = {.protocol = read_u8(&r)};
    uint8_t spi_len = read_u8(&r);
    n.type = read_u16(&r);
    n.spi = read_span(&r, spi_len);
    n.data = read_rest(&r);
    if (r.failed)
        return ERR_SYNTAX;
    if (m->notifies < IKE_NOTIFIES_MAX)
        m->notify[m->notifies++] = n;
    return OK;
}

/* The entry of this protocol, made if it is the first; NULL for protocols that have no SAs here. */
static struct ike_delete *delete_of(struct ike_message *m, uint8_t protocol)
{
    if (protocol != PROTOCOL_IKE && protocol != PROTOCOL_AH && protocol != PROTOCOL_ESP)
        return NULL;
    for (unsigned i = 0; i < m->dels; i++)
        if (m->del[i].protocol == protocol)
            return &m->del[i];
    struct ike_delete *d = &m->del[m->dels++];
    d->protocol = protocol;
    return d;
}

/* Section 3.11: the SPI size is 0 for IKE, 4 for AH and ESP, and the count fits the length. */
static enum err parse_delete(struct span body, struct ike_message *m)
{
    struct reader r = reader_of(body);
    uint8_t protocol = read_u8(&r), size = read_u8(&r);
    uint16_t count = read_u16(&r);
    if (r.failed || reader_left(&r) != (size_t)size * count)
        return ERR_SYNTAX;
    struct ike_delete *d = delete_of(m, protocol);
    if (!d)
        return OK;
    if (size != (protocol == PROTOCOL_IKE ? 0 : 4))
        return ERR_SYNTAX;
    for (; size && count > 0 && d->n < IKE_SPIS_MAX; count--)
        d->spi[d->n++] = read_u32(&r);
    return OK;
}

/* The part of a selector after its length; r holds just that. */
static enum err parse_range(struct reader *r, uint8_t family, struct selector *out)
{
    out->port_first = read_u16(r);
    out->port_last = read_u16(r);
    struct span first = read_span(r, ip_len(family)), last = read_span(r, ip_len(family));
    if (!reader_done(r))
        return ERR_SYNTAX;
    if (memcmp(first.data, last.data, ip_len(family)) > 0)
        return ERR_SYNTAX;
    /* 65535..0 is OPAQUE (section 3.13.1); every other reversed range is malformed. */
    bool opaque = out->port_first == UINT16_MAX && out->port_last == 0;
    if (out->port_first > out->port_last && !opaque)
        return ERR_SYNTAX;
    out->range.first = ip_from_bytes(family, first.data);
    out->range.last = ip_from_bytes(family, last.data);
    return OK;
}

static enum err parse_ts(struct span body, struct ike_ts *out)
{
    struct reader r = reader_of(body);
    unsigned count = read_u8(&r);
    read_span(&r, 3); /* reserved */
    if (r.failed || count == 0)
        return ERR_SYNTAX;
    for (; count > 0; count--) {
        uint8_t type = read_u8(&r);
        struct selector s = {.proto = read_u8(&r)};
        size_t len = read_u16(&r);
        if (r.failed || len < 4)
            return ERR_SYNTAX;
        struct reader sub = read_sub(&r, len - 4);
        if (sub.failed)
            return ERR_SYNTAX;
        if (type != TS_IPV4 && type != TS_IPV6) {
            out->ignored++; /* section 2.9: not returned in the narrowed set */
            continue;
        }
        TRY(parse_range(&sub, type == TS_IPV4 ? 4 : 6, &s));
        if (out->v.n < SELECTORS_MAX)
            out->v.v[out->v.n++] = s;
        else
            out->ignored++;
    }
    if (!reader_done(&r))
        return ERR_SYNTAX;
    out->present = true;
    return OK;
}

/* -- the chain -- */

static bool known(uint8_t type)
{
    return (type >= PAYLOAD_SA && type <= PAYLOAD_EAP) || type == PAYLOAD_SKF;
}

static bool repeatable(uint8_t type)
{
    return type == PAYLOAD_CERT || type == PAYLOAD_CERTREQ || type == PAYLOAD_NOTIFY || type == PAYLOAD_DELETE ||
           type == PAYLOAD_VENDOR;
}

static enum err parse_payload(uint8_t type, struct span body, struct ike_message *m)
{
    if ((m->seen & PAYLOAD_BIT(type)) && !repeatable(type))
        return ERR_SYNTAX;
    m->seen |= PAYLOAD_BIT(type);
    switch (type) {
    case PAYLOAD_SA:
        m->sa = body;
        return OK;
    case PAYLOAD_KE:
        return parse_ke(body, m);
    case PAYLOAD_IDI:
        return parse_id(body, &m->idi);
    case PAYLOAD_IDR:
        return parse_id(body, &m->idr);
    case PAYLOAD_CERT:
        return parse_cert(body, m);
    case PAYLOAD_AUTH:
        return parse_auth(body, m);
    case PAYLOAD_NONCE:
        return parse_nonce(body, m);
    case PAYLOAD_NOTIFY:
        return parse_notify(body, m);
    case PAYLOAD_DELETE:
        return parse_delete(body, m);
    case PAYLOAD_TSI:
        return parse_ts(body, &m->tsi);
    case PAYLOAD_TSR:
        return parse_ts(body, &m->tsr);
    case PAYLOAD_CP:
        m->cp = body;
        return OK;
    default:
        return OK;
    }
}

/* SK is what SKF is beyond its first four bytes (RFC 7383 section 2.5). */
static enum err parse_sk(uint8_t type, uint8_t first, struct span body, const uint8_t *message, struct ike_message *m)
{
    struct reader r = reader_of(body);
    if (type == PAYLOAD_SKF) {
        m->fragment = read_u16(&r);
        m->fragments = read_u16(&r);
    }
    struct span sealed = read_rest(&r);
    if (r.failed)
        return ERR_SYNTAX;
    m->seen |= PAYLOAD_BIT(type);
    m->sk_offset = (size_t)(sealed.data - message);
    m->sk_len = sealed.len;
    m->sk_first = first;
    return OK;
}

struct payload_chain {
    struct reader r;
    const uint8_t *message; /* where sk_offset counts from; NULL inside SK, where no other SK may be */
    unsigned left;
};

/*
 * The next payload's generic header and body; *type goes in as its type and out as that of the one after it. The
 * critical bit is ignored on what we know (section 3.2) and skips what we don't when it is clear.
 */
static enum err parse_next(struct payload_chain *c, uint8_t *type, struct ike_message *m)
{
    uint8_t this = *type, next = read_u8(&c->r), flags = read_u8(&c->r);
    size_t len = read_u16(&c->r);
    if (c->r.failed || len < 4 || c->left-- == 0)
        return ERR_SYNTAX;
    struct span body = read_span(&c->r, len - 4);
    if (c->r.failed)
        return ERR_SYNTAX;
    *type = next;
    if (!known(this)) {
        if ((flags & CRITICAL_BIT) && m->critical == 0)
            m->critical = this;
        return OK;
    }
    if (this != PAYLOAD_SK && this != PAYLOAD_SKF)
        return parse_payload(this, body, m);
    if (!c->message)
        return ERR_SYNTAX;
    *type = PAYLOAD_NONE; /* the last of its chain: its next payload is the first inside (section 3.14) */
    return parse_sk(this, next, body, c->message, m);
}

static enum err parse_chain(struct payload_chain *c, uint8_t first, struct ike_message *m)
{
    for (uint8_t type = first; type != PAYLOAD_NONE;)
        TRY(parse_next(c, &type, m));
    if (!reader_done(&c->r))
        return ERR_SYNTAX;
    return m->critical ? ERR_CRITICAL : OK;
}

enum err ike_message_parse(struct span message, struct ike_message *out)
{
    memset(out, 0, sizeof *out);
    TRY(ike_header_parse(message, &out->h));
    if (out->h.length != message.len) /* one message per datagram (section 3.1): the rest would be covered by nothing */
        return ERR_SYNTAX;
    struct payload_chain c = {.r = reader_of(message), .message = message.data, .left = PAYLOADS_MAX};
    read_span(&c.r, IKE_HEADER_LEN);
    return parse_chain(&c, out->h.next_payload, out);
}

enum err ike_inner_parse(uint8_t first, struct span plaintext, struct ike_message *m)
{
    struct payload_chain c = {.r = reader_of(plaintext), .message = NULL, .left = PAYLOADS_MAX};
    m->opened = true;
    m->inner_first = first;
    m->inner = plaintext;
    return parse_chain(&c, first, m);
}

/* -- looking into a parsed message -- */

const struct ike_notify *ike_find_notify(const struct ike_message *m, uint16_t type)
{
    for (unsigned i = 0; i < m->notifies; i++)
        if (m->notify[i].type == type)
            return &m->notify[i];
    return NULL;
}

const struct ike_notify *ike_find_error(const struct ike_message *m)
{
    for (unsigned i = 0; i < m->notifies; i++)
        if (m->notify[i].type < NOTIFY_STATUS)
            return &m->notify[i];
    return NULL;
}

/* Section 3.5. Types we don't know are kept as they are: such an identity equals none that is configured. */
enum err ike_identity(struct span body, struct identity *out)
{
    struct reader r = reader_of(body);
    uint8_t type = read_u8(&r);
    read_span(&r, 3); /* reserved */
    struct span data = read_rest(&r);
    if (r.failed)
        return ERR_SYNTAX;
    if (data.len > IDENTITY_MAX)
        return ERR_RANGE;
    switch (type) {
    case ID_IPV4:
        if (data.len != 4)
            return ERR_SYNTAX;
        break;
    case ID_IPV6:
        if (data.len != 16)
            return ERR_SYNTAX;
        break;
    case ID_FQDN:
    case ID_RFC822: /* "MUST NOT contain any terminators" */
        for (size_t i = 0; i < data.len; i++)
            if (data.data[i] == '\0' || data.data[i] == '\r' || data.data[i] == '\n')
                return ERR_SYNTAX;
        /* fall through */
    case ID_DER_DN:
    case ID_DER_GN:
    case ID_KEY_ID:
        if (data.len == 0)
            return ERR_SYNTAX;
        break;
    default:
        break;
    }
    memset(out, 0, sizeof *out);
    out->type = type;
    out->len = (uint16_t)data.len;
    if (data.len)
        memcpy(out->b, data.data, data.len);
    return OK;
}

const char *notify_name(uint16_t type, char *text, size_t size)
{
    static const struct {
        uint16_t type;
        const char *name;
    } names[] = {
        {NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD, "UNSUPPORTED_CRITICAL_PAYLOAD"},
        {NOTIFY_INVALID_IKE_SPI, "INVALID_IKE_SPI"},
        {NOTIFY_INVALID_MAJOR_VERSION, "INVALID_MAJOR_VERSION"},
        {NOTIFY_INVALID_SYNTAX, "INVALID_SYNTAX"},
        {NOTIFY_INVALID_MESSAGE_ID, "INVALID_MESSAGE_ID"},
        {NOTIFY_INVALID_SPI, "INVALID_SPI"},
        {NOTIFY_NO_PROPOSAL_CHOSEN, "NO_PROPOSAL_CHOSEN"},
        {NOTIFY_INVALID_KE_PAYLOAD, "INVALID_KE_PAYLOAD"},
        {NOTIFY_AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED"},
        {NOTIFY_SINGLE_PAIR_REQUIRED, "SINGLE_PAIR_REQUIRED"},
        {NOTIFY_NO_ADDITIONAL_SAS, "NO_ADDITIONAL_SAS"},
        {NOTIFY_INTERNAL_ADDRESS_FAILURE, "INTERNAL_ADDRESS_FAILURE"},
        {NOTIFY_FAILED_CP_REQUIRED, "FAILED_CP_REQUIRED"},
        {NOTIFY_TS_UNACCEPTABLE, "TS_UNACCEPTABLE"},
        {NOTIFY_INVALID_SELECTORS, "INVALID_SELECTORS"},
        {NOTIFY_UNACCEPTABLE_ADDRESSES, "UNACCEPTABLE_ADDRESSES"},
        {NOTIFY_UNEXPECTED_NAT_DETECTED, "UNEXPECTED_NAT_DETECTED"},
        {NOTIFY_TEMPORARY_FAILURE, "TEMPORARY_FAILURE"},
        {NOTIFY_CHILD_SA_NOT_FOUND, "CHILD_SA_NOT_FOUND"},
        {NOTIFY_INITIAL_CONTACT, "INITIAL_CONTACT"},
        {NOTIFY_SET_WINDOW_SIZE, "SET_WINDOW_SIZE"},
        {NOTIFY_ADDITIONAL_TS_POSSIBLE, "ADDITIONAL_TS_POSSIBLE"},
        {NOTIFY_IPCOMP_SUPPORTED, "IPCOMP_SUPPORTED"},
        {NOTIFY_NAT_DETECTION_SOURCE_IP, "NAT_DETECTION_SOURCE_IP"},
        {NOTIFY_NAT_DETECTION_DESTINATION_IP, "NAT_DETECTION_DESTINATION_IP"},
        {NOTIFY_COOKIE, "COOKIE"},
        {NOTIFY_USE_TRANSPORT_MODE, "USE_TRANSPORT_MODE"},
        {NOTIFY_HTTP_CERT_LOOKUP_SUPPORTED, "HTTP_CERT_LOOKUP_SUPPORTED"},
        {NOTIFY_REKEY_SA, "REKEY_SA"},
        {NOTIFY_ESP_TFC_PADDING_NOT_SUPPORTED, "ESP_TFC_PADDING_NOT_SUPPORTED"},
        {NOTIFY_NON_FIRST_FRAGMENTS_ALSO, "NON_FIRST_FRAGMENTS_ALSO"},
        {NOTIFY_MOBIKE_SUPPORTED, "MOBIKE_SUPPORTED"},
        {NOTIFY_ADDITIONAL_IP4_ADDRESS, "ADDITIONAL_IP4_ADDRESS"},
        {NOTIFY_ADDITIONAL_IP6_ADDRESS, "ADDITIONAL_IP6_ADDRESS"},
        {NOTIFY_NO_ADDITIONAL_ADDRESSES, "NO_ADDITIONAL_ADDRESSES"},
        {NOTIFY_UPDATE_SA_ADDRESSES, "UPDATE_SA_ADDRESSES"},
        {NOTIFY_COOKIE2, "COOKIE2"},
        {NOTIFY_NO_NATS_ALLOWED, "NO_NATS_ALLOWED"},
        {NOTIFY_FRAGMENTATION_SUPPORTED, "IKEV2_FRAGMENTATION_SUPPORTED"},
        {NOTIFY_SIGNATURE_HASH_ALGORITHMS, "SIGNATURE_HASH_ALGORITHMS"},
        {NOTIFY_AUTH_LIFETIME, "AUTH_LIFETIME"},
        {NOTIFY_CHILDLESS_IKEV2_SUPPORTED, "CHILDLESS_IKEV2_SUPPORTED"},
        {NOTIFY_USE_PPK, "USE_PPK"},
        {NOTIFY_PPK_IDENTITY, "PPK_IDENTITY"},
        {NOTIFY_NO_PPK_AUTH, "NO_PPK_AUTH"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].type == type)
            return names[i].name;
    snprintf(text, size, "notify %u", type);
    return text;
}
