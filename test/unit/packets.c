#include "test/unit/packets.h"

#include <string.h>

static void be16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void be32(uint8_t *p, uint32_t v)
{
    be16(p, v >> 16);
    be16(p + 2, v & 0xffff);
}

static uint32_t from16(const uint8_t *p)
{
    return (uint32_t)(p[0] << 8 | p[1]);
}

uint32_t packet_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32);
}

void packet_fill(uint64_t *state, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)packet_random(state);
}

uint16_t packet_naive_sum(uint32_t sum, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += 2) {
        sum += (uint32_t)data[i] << 8;
        if (i + 1 < len)
            sum += data[i + 1];
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

struct packet_spec packet_spec_tcp(bool ipv6)
{
    return (struct packet_spec){
        .ipv6 = ipv6,
        .tos = 0x08,
        .ttl = 64,
        .host = 1,
        .id = 0xfffe,
        .fragment = 0x4000,
        .flow_label = 0x12345,
        .sport = 40000,
        .dport = 5201,
        .seq = 0xfffff000,
        .ack = 77,
        .flags = 0x10,
        .window = 501,
        .options = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8},
        .options_len = 12,
    };
}

struct packet_spec packet_spec_udp(bool ipv6)
{
    struct packet_spec s = packet_spec_tcp(ipv6);
    s.udp = true;
    s.options_len = 0;
    return s;
}

static size_t ip_header(const struct packet_spec *s, uint8_t *out, size_t total)
{
    uint8_t protocol = s->udp ? 17 : 6;
    if (s->ipv6) {
        memset(out, 0, 40);
        be32(out, 0x60000000u | (uint32_t)s->tos << 20 | s->flow_label);
        be16(out + 4, (uint32_t)total - 40);
        out[6] = protocol;
        out[7] = s->ttl;
        memcpy(out + 8, (const uint8_t[]){0xfd, 0, 0, 1}, 4);
        memcpy(out + 24, (const uint8_t[]){0xfd, 0, 0, 2}, 4);
        out[23] = s->host;
        out[39] = 2;
        if (s->from)
            memcpy(out + 8, s->from, 16);
        if (s->to)
            memcpy(out + 24, s->to, 16);
        return 40;
    }
    memset(out, 0, 20);
    out[0] = 0x45;
    out[1] = s->tos;
    be16(out + 2, (uint32_t)total);
    be16(out + 4, s->id);
    be16(out + 6, s->fragment);
    out[8] = s->ttl;
    out[9] = protocol;
    memcpy(out + 12, (const uint8_t[]){10, 1, 0, s->host, 10, 2, 0, 1}, 8);
    if (s->from)
        memcpy(out + 12, s->from, 4);
    if (s->to)
        memcpy(out + 16, s->to, 4);
    be16(out + 10, (uint16_t)~packet_naive_sum(0, out, 20));
    return 20;
}

static uint16_t pseudo(const uint8_t *packet, size_t total)
{
    if (packet[0] >> 4 == 6)
        return packet_naive_sum(packet[6] + (uint32_t)total - 40, packet + 8, 32);
    return packet_naive_sum(packet[9] + (uint32_t)total - 20, packet + 12, 8);
}

static void transport_header(const struct packet_spec *s, uint8_t *t, size_t len)
{
    be16(t, s->sport);
    be16(t + 2, s->dport);
    if (s->udp) {
        be16(t + 4, (uint32_t)len);
        be16(t + 6, 0);
        return;
    }
    be32(t + 4, s->seq);
    be32(t + 8, s->ack);
    t[12] = (uint8_t)((20 + s->options_len) / 4 << 4);
    t[13] = s->flags;
    be16(t + 14, s->window);
    be16(t + 16, 0);
    be16(t + 18, s->urgent);
    memcpy(t + 20, s->options, s->options_len);
}

size_t packet_headers(const struct packet_spec *s)
{
    return (s->ipv6 ? 40u : 20u) + (s->udp ? 8u : 20u + s->options_len);
}

size_t packet_build(const struct packet_spec *s, const uint8_t *payload, size_t len, uint8_t *out)
{
    size_t total = packet_headers(s) + len;
    size_t at = ip_header(s, out, total);
    transport_header(s, out + at, total - at);
    if (len)
        memcpy(out + total - len, payload, len);
    uint16_t sum = (uint16_t)~packet_naive_sum(pseudo(out, total), out + at, total - at);
    be16(out + at + (s->udp ? 6 : 16), s->udp && sum == 0 ? 0xffff : sum);
    return total;
}

size_t packet_build_gso(const struct packet_spec *s, const uint8_t *payload, size_t len, uint16_t gso_size,
                        uint8_t *out)
{
    uint8_t *packet = out + 10;
    size_t total = packet_build(s, payload, len, packet);
    uint16_t at = s->ipv6 ? 40 : 20, offset = s->udp ? 6 : 16, none = 0;
    be16(packet + at + offset, pseudo(packet, total));

    memset(out, 0, 10);
    out[0] = 1; /* needs checksum */
    out[1] = s->udp ? 5 : s->ipv6 ? 4 : 1;
    memcpy(out + 2, &none, 2); /* hdr_len: not to be trusted, so nothing useful */
    memcpy(out + 4, &gso_size, 2);
    memcpy(out + 6, &at, 2);
    memcpy(out + 8, &offset, 2);
    return total + 10;
}

bool packet_sound(const uint8_t *packet, size_t len)
{
    bool ipv6 = packet[0] >> 4 == 6;
    size_t at = ipv6 ? 40 : 20;
    if (len < at + 8 || (ipv6 ? from16(packet + 4) + 40 : from16(packet + 2)) != len)
        return false;
    if (!ipv6 && (packet[0] != 0x45 || packet_naive_sum(0, packet, 20) != 0xffff))
        return false;
    bool udp = packet[ipv6 ? 6 : 9] == 17;
    if (udp && (from16(packet + at + 4) != len - at || from16(packet + at + 6) == 0))
        return false;
    return packet_naive_sum(pseudo(packet, len), packet + at, len - at) == 0xffff;
}

void packet_mirror(uint8_t *packet)
{
    uint8_t t[16];
    size_t at = packet[0] >> 4 == 6 ? 8 : 12, n = packet[0] >> 4 == 6 ? 16 : 4;
    memcpy(t, packet + at, n);
    memcpy(packet + at, packet + at + n, n);
    memcpy(packet + at + n, t, n);
}
