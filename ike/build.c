/* Writing of IKEv2 messages (RFC 7296 section 3). */
#include "ike/payload.h"

#define NEXT_PAYLOAD_AT 16
#define LENGTH_AT 24
#define VERSION_2_0 0x20

void ike_begin(struct ike_builder *b, uint8_t *out, size_t cap, const struct ike_header *h)
{
    *b = (struct ike_builder){
        .w = writer_of(out, cap < IKE_MESSAGE_MAX ? cap : IKE_MESSAGE_MAX), .h = *h, .next_at = NEXT_PAYLOAD_AT};
    write_u64(&b->w, h->spi_i);
    write_u64(&b->w, h->spi_r);
    write_u8(&b->w, PAYLOAD_NONE);
    write_u8(&b->w, VERSION_2_0);
    write_u8(&b->w, h->exchange);
    write_u8(&b->w, h->flags);
    write_u32(&b->w, h->message_id);
    write_u32(&b->w, 0);
}

void ike_open(struct ike_builder *b, uint8_t type)
{
    size_t at = writer_len(&b->w);
    write_u32(&b->w, 0); /* no next payload yet, not critical, length still open */
    if (b->w.failed)
        return;
    b->w.start[b->next_at] = type;
    b->next_at = b->payload_at = at;
}

void ike_close(struct ike_builder *b)
{
    write_patch_u16(&b->w, b->payload_at + 2, writer_len(&b->w) - b->payload_at);
    b->payload_at = 0;
}

void ike_put(struct ike_builder *b, uint8_t type, struct span body)
{
    ike_open(b, type);
    write_span(&b->w, body);
    ike_close(b);
}

void ike_put_ke(struct ike_builder *b, uint16_t group, struct span value)
{
    ike_open(b, PAYLOAD_KE);
    write_u16(&b->w, group);
    write_u16(&b->w, 0);
    write_span(&b->w, value);
    ike_close(b);
}

/* A first octet that says what the rest is, and three reserved ones: ID, AUTH and TS payloads begin so. */
static void open_typed(struct ike_builder *b, uint8_t payload, uint8_t first)
{
    ike_open(b, payload);
    write_u32(&b->w, (uint32_t)first << 24);
}

void ike_put_id(struct ike_builder *b, uint8_t type, const struct identity *id)
{
    open_typed(b, type, id->type);
    write_bytes(&b->w, id->b, id->len);
    ike_close(b);
}

void ike_put_auth(struct ike_builder *b, uint8_t method, struct span data)
{
    open_typed(b, PAYLOAD_AUTH, method);
    write_span(&b->w, data);
    ike_close(b);
}

void ike_put_cert(struct ike_builder *b, uint8_t encoding, struct span data)
{
    ike_open(b, PAYLOAD_CERT);
    write_u8(&b->w, encoding);
    write_span(&b->w, data);
    ike_close(b);
}

void ike_put_notify(struct ike_builder *b, uint8_t protocol, struct span spi, uint16_t type, struct span data)
{
    ike_open(b, PAYLOAD_NOTIFY);
    write_u8(&b->w, protocol);
    write_u8(&b->w, (uint8_t)spi.len);
    write_u16(&b->w, type);
    write_span(&b->w, spi);
    write_span(&b->w, data);
    ike_close(b);
}

void ike_put_delete(struct ike_builder *b, uint8_t protocol, const uint32_t *spis, unsigned n)
{
    ike_open(b, PAYLOAD_DELETE);
    write_u8(&b->w, protocol);
    write_u8(&b->w, protocol == PROTOCOL_IKE ? 0 : 4);
    write_u16(&b->w, (uint16_t)n);
    for (unsigned i = 0; i < n; i++)
        write_u32(&b->w, spis[i]);
    ike_close(b);
}

void ike_put_ts(struct ike_builder *b, uint8_t type, const struct selectors *s)
{
    open_typed(b, type, s->n);
    for (unsigned i = 0; i < s->n; i++) {
        const struct selector *v = &s->v[i];
        unsigned len = ip_len(v->range.first.family);
        write_u8(&b->w, len == 4 ? 7 : 8); /* TS_IPV4_ADDR_RANGE, TS_IPV6_ADDR_RANGE */
        write_u8(&b->w, v->proto);
        write_u16(&b->w, (uint16_t)(8 + 2 * len));
        write_u16(&b->w, v->port_first);
        write_u16(&b->w, v->port_last);
        write_bytes(&b->w, v->range.first.b, len);
        write_bytes(&b->w, v->range.last.b, len);
    }
    ike_close(b);
}

enum err ike_finish(struct ike_builder *b, size_t *len)
{
    if (b->w.failed)
        return ERR_FULL;
    put_be32(b->w.start + LENGTH_AT, (uint32_t)writer_len(&b->w));
    *len = writer_len(&b->w);
    return OK;
}
