/*
 * IP datagrams in pieces: any bytes as fragments, of which only whole datagrams may come; and packets cut up, put together
 * again from their fragments in another order. What the bytes behind a header show of a flow is what the packet shows.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "policy/selector.h"
#include "tun/cut.h"
#include "tun/device.h"
#include "tun/offload.h"
#include "tun/reassembly.h"

#define PIECES 128

static struct reassembly *reassembly;
static uint64_t dropped;
static ns_t now;

static void count_dropped(void *ctx, uint32_t tag, unsigned fragments)
{
    (void)ctx;
    (void)tag;
    dropped += fragments;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    FUZZ_CHECK(reassembly_new(&reassembly, count_dropped, NULL) == OK);
    return 0;
}

/* A frame as a TUN gives it, with one packet that fills it and is no fragment. */
static void check_whole(struct span frame)
{
    static const uint8_t nothing[TUN_HDR_LEN];
    struct ip_view v;
    struct span packet = span_of(frame.data + TUN_HDR_LEN, frame.len - TUN_HDR_LEN);
    FUZZ_CHECK(memcmp(frame.data, nothing, TUN_HDR_LEN) == 0);
    FUZZ_CHECK(ip_view_parse(&v, packet) == OK && v.len == packet.len && !v.fragment);
    FUZZ_CHECK(v.ipv6 || checksum_fold(checksum_add(0, packet.data, v.header_len)) == 0xffff);
}

/* Takes a fragment in a block of its exact size. */
static enum reassembly_result add(const uint8_t *packet, size_t len, uint32_t tag, struct span *out)
{
    uint8_t *copy = malloc(len ? len : 1);
    FUZZ_CHECK(copy);
    if (len)
        memcpy(copy, packet, len);
    enum reassembly_result r = reassembly_add(reassembly, span_of(copy, len), tag, now, out);
    if (r == REASSEMBLY_WHOLE)
        check_whole(*out);
    free(copy);
    return r;
}

/* Each packet behind two bytes: time that has passed, and its tag and its length. */
static void feed(const uint8_t *data, size_t size)
{
    while (size >= 2) {
        size_t len = data[1] & 127u;
        struct span out;
        now += (ns_t)data[0] * NS_PER_S / 16;
        data += 2;
        size -= 2;
        len = len < size ? len : size;
        (void)add(data, len, data[-1] >> 7, &out);
        data += len;
        size -= len;
    }
    reassembly_expire(reassembly, now);
    FUZZ_CHECK(reassembly_deadline(reassembly) > now);
}

static void cut_one(struct cut *c, const uint8_t *packet, uint32_t len, uint32_t step)
{
    static uint8_t pieces[PIECES][1600];
    uint32_t size[PIECES], n = 0;
    struct span out = {0};
    for (; n < PIECES && (size[n] = cut_size(c)) != 0 && size[n] <= sizeof pieces[0]; n++)
        cut_next(c, pieces[n]);
    if (n < 2 || n == PIECES || cut_size(c))
        return;
    enum reassembly_result r = REASSEMBLY_NONE;
    for (uint32_t i = 0, k = step % n; i < n; i++, k = (k + 1) % n)
        r = add(pieces[k], size[k], 9, &out);
    /* What had headers that are too long, or was part of something else before, comes to nothing. */
    if (r != REASSEMBLY_WHOLE)
        return;
    bool ipv4 = packet[0] >> 4 == 4;
    const uint8_t *got = out.data + TUN_HDR_LEN;
    FUZZ_CHECK(out.len == TUN_HDR_LEN + len);
    FUZZ_CHECK(memcmp(got, packet, ipv4 ? IPV4_CHECKSUM : len) == 0);
    FUZZ_CHECK(!ipv4 || memcmp(got + IPV4_SOURCE, packet + IPV4_SOURCE, len - IPV4_SOURCE) == 0);
}

/* The bytes as a packet, with a length that is right. */
static void round_trip(const uint8_t *data, size_t size, uint32_t room, uint32_t step)
{
    static uint8_t packet[UINT16_MAX];
    struct ip_view v;
    struct cut c;
    if (size < IPV6_HEADER || size > sizeof packet)
        return;
    memcpy(packet, data, size);
    bool ipv6 = packet[0] & 0x40 && packet[0] & 0x20;
    packet[0] = (uint8_t)(ipv6 ? 0x60 | (packet[0] & 15) : 0x40 | (packet[0] & 15));
    put_be16(packet + (ipv6 ? IPV6_LENGTH : IPV4_LENGTH), (uint16_t)(size - (ipv6 ? IPV6_HEADER : 0)));
    if (!ipv6)
        put_be16(packet + IPV4_FRAGMENT, 0);
    struct span whole_packet = span_of(packet, size);
    struct ip_insertion in;
    if (ip_view_parse(&v, whole_packet) != OK || (ipv6 && ip_view_insertion(&v, packet, &in) != OK))
        return;
    reassembly_expire(reassembly, now += REASSEMBLY_TIME);
    enum err e = ipv6 ? cut_begin_ipv6(&c, whole_packet, &in, room, step) : cut_begin(&c, whole_packet, room);
    if (e == OK)
        cut_one(&c, packet, (uint32_t)size, step);
}

static void same_flow(const uint8_t *data, size_t size)
{
    struct ip_view v;
    struct flow f, p;
    struct span packet = span_of(data, size);
    if (ip_view_parse(&v, packet) != OK || v.fragment || v.len > size)
        return;
    struct span payload = span_of(data + v.header_len, v.len - v.header_len);
    if (flow_of(packet, &f) != OK || f.packet_len == 0)
        return;
    FUZZ_CHECK(flow_of_payload(&f.src, &f.dst, v.protocol, payload, &p) == OK);
    FUZZ_CHECK(p.header_len + v.header_len == f.header_len && p.proto == f.proto && p.ports_known == f.ports_known);
    FUZZ_CHECK(p.src_port == f.src_port && p.dst_port == f.dst_port && p.fragment == f.fragment);
    FUZZ_CHECK(p.fragment_offset == f.fragment_offset && (!v.ipv6 || p.fragment_id == f.fragment_id));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    feed(data + 3, size - 3);
    round_trip(data + 3, size - 3, 48u + 4u * data[0], data[1]);
    same_flow(data + 3, size - 3);
    return 0;
}

/*
 * Room, order, one byte more; then a packet, or three fragments of a datagram and one more, at its beginning or where the
 * longest one ends.
 */
size_t fuzz_make_seed(unsigned i, uint8_t *to, size_t cap)
{
    if (i >= 6 || cap < 1000)
        return 0;
    memset(to, (int)i, 1000);
    to[0] = 40;
    to[1] = 3;
    uint8_t *p = to + 3;
    if (i < 2) { /* IPv4 with options, or IPv6 with a hop-by-hop header */
        p[0] = i ? 0x60 : 0x47;
        p[i ? 6 : 9] = i ? 0 : 17;
        memcpy(p + (i ? 40 : 20),
               i ? (const uint8_t[]){17, 0, 1, 4, 0, 0, 0, 0} : (const uint8_t[]){0x94, 4, 0, 0, 1, 1, 1, 0}, 8);
        return 700;
    }
    static const uint8_t order[] = {2, 0, 1, 3};
    for (unsigned k = 0; k < sizeof order; k++) {
        bool ipv6 = i & 1, more = order[k] < 2;
        uint32_t header = ipv6 ? 48 : 20, len = header + (more ? 16 : 11),
                 offset = 16u * order[k] + (i < 4 ? 0 : 65456);
        memset(p, 0, 2 + len);
        p[1] = (uint8_t)len;
        p += 2;
        p[0] = ipv6 ? 0x60 : 0x45;
        put_be16(p + (ipv6 ? 4 : 2), (uint16_t)(ipv6 ? len - 40 : len));
        p[ipv6 ? 6 : 9] = ipv6 ? 44 : 17;
        put_be16(p + (ipv6 ? 42 : 6), (uint16_t)(ipv6 ? offset | more : offset / 8 | (more ? IPV4_MF : 0)));
        p += len;
    }
    return (size_t)(p - to);
}
