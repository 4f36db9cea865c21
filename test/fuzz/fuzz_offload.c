/*
 * Superpackets: the first byte of the input picks what the rest is.
 *   0: a frame of the TUN, cut into segments that then pass the MSS clamp
 *   1: packets (16-bit length before each), merged and cut again
 *   2: the same with checksums put right first, so that merging happens
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "tun/offload.h"
#include "tun/packet.h"

#define SEGMENTS_MAX 4096 /* of one input: enough to reach all code */

/* -- cutting -- */

/* Cuts a frame; returns the number of segments, and their bytes in *bytes. */
static unsigned cut(const uint8_t *data, size_t len, size_t *bytes)
{
    struct segments s;
    unsigned n = 0;
    *bytes = 0;
    if (segment_begin(&s, (struct span){data, len}) != OK)
        return 0;
    FUZZ_CHECK(s.count > 0 && s.len <= len);
    for (; segment_more(&s) && n < SEGMENTS_MAX; n++) {
        uint32_t size = segment_size(&s, n);
        FUZZ_CHECK(size > 0 && size <= s.len && size <= segment_size(&s, 0));
        uint8_t *out = malloc(size);
        if (!out)
            abort();
        segment_next(&s, out);
        FUZZ_CHECK(out[0] == data[TUN_HDR_LEN]);
        clamp_mss(out, size, 1300);
        *bytes += size;
        free(out);
    }
    return n;
}

/* -- merging -- */

struct sink {
    struct loop loop; /* first */
    struct loop_slot slot;
    size_t size;    /* of the slot */
    size_t packets; /* that a receiver will see */
    unsigned writes;
};

static void sink_write(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov, unsigned n)
{
    struct sink *k = (struct sink *)l;
    size_t len = 0, at = 0, bytes;
    (void)io;
    FUZZ_CHECK(n > 0 && n <= LOOP_IOV_MAX);
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *base = iov[i].iov_base;
        FUZZ_CHECK(base >= slot->data && base + iov[i].iov_len <= slot->data + k->size);
        len += iov[i].iov_len;
    }
    k->writes++;
    if (n == 1) {
        k->packets++;
        return;
    }
    FUZZ_CHECK(len <= TUN_HDR_LEN + 65535);
    uint8_t *frame = malloc(len);
    if (!frame)
        abort();
    for (unsigned i = 0; i < n; at += iov[i++].iov_len)
        memcpy(frame + at, iov[i].iov_base, iov[i].iov_len);
    FUZZ_CHECK(cut(frame, len, &bytes) == n);
    k->packets += n;
    free(frame);
}

static const struct loop_ops sink_ops = {.name = "sink", .write = sink_write};

static void mend(uint8_t *p, size_t len)
{
    struct ip_view ip;
    if (ip_view_parse(&ip, (struct span){p, len}) != OK || ip.len != len)
        return;
    if (!ip.ipv6) {
        put_be16(p + IPV4_CHECKSUM, 0);
        put_be16(p + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, p, ip.header_len)));
    }
    uint8_t *t = p + ip.header_len;
    size_t room = len - ip.header_len, at = ip.protocol == PROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
    if ((ip.protocol != PROTO_TCP && ip.protocol != PROTO_UDP) || room < at + 2)
        return;
    put_be16(t + at, 0);
    uint64_t sum = pseudo_addresses(p, ip.ipv6) + ip.protocol + room;
    put_be16(t + at, (uint16_t)~checksum_fold(checksum_add(sum, t, room)));
}

/* Adds each packet of the input; returns their number. */
static size_t add_all(struct coalescer *c, uint8_t *place, const uint8_t *data, size_t len, bool mended)
{
    struct reader r = reader_of((struct span){data, len});
    size_t n = 0;
    while (reader_left(&r) > 2) {
        size_t want = read_u16(&r), left = reader_left(&r);
        struct span packet = read_span(&r, want < left ? want : left);
        if (packet.len == 0)
            continue;
        place += COALESCE_HEADROOM;
        memcpy(place, packet.data, packet.len);
        if (mended)
            mend(place, packet.len);
        coalesce_add(c, place, (uint32_t)packet.len);
        place += packet.len;
        n++;
    }
    return n;
}

static void merge(const uint8_t *data, size_t len, bool mended)
{
    struct sink *k = calloc(1, sizeof *k);
    struct coalescer *c;
    if (!k || coalescer_new(&c, true) != OK)
        abort();
    k->loop.ops = &sink_ops;
    k->size = len * (1 + COALESCE_HEADROOM) + COALESCE_HEADROOM;
    k->slot.data = malloc(k->size);
    if (!k->slot.data)
        abort();
    coalesce_begin(c, &k->loop, NULL, &k->slot);
    size_t n = add_all(c, k->slot.data, data, len, mended);
    FUZZ_CHECK(coalesce_flush(c) == k->writes);
    FUZZ_CHECK(k->packets == n);
    coalescer_free(c);
    free(k->slot.data);
    free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t bytes;
    if (len < 1)
        return 0;
    if (data[0] % 3 == 0)
        (void)cut(data + 1, len - 1, &bytes);
    else
        merge(data + 1, len - 1, data[0] % 3 == 2);
    return 0;
}

/* -- seeds -- */

/* Headers of a packet with payload bytes behind them; checksums are left to mend(). */
static size_t seed_packet(uint8_t *p, bool ipv6, bool udp, uint32_t seq, size_t payload)
{
    size_t ip = ipv6 ? IPV6_HEADER : IPV4_HEADER, header = ip + (udp ? UDP_HEADER : TCP_HEADER);
    memset(p, 0, header + payload);
    p[0] = ipv6 ? 0x60 : 0x45;
    p[ipv6 ? IPV6_NEXT : IPV4_PROTOCOL] = udp ? PROTO_UDP : PROTO_TCP;
    p[ipv6 ? IPV6_HOP_LIMIT : IPV4_TTL] = 64;
    put_be16(p + (ipv6 ? IPV6_LENGTH : IPV4_LENGTH), (uint16_t)(header + payload - (ipv6 ? IPV6_HEADER : 0)));
    if (!ipv6)
        put_be16(p + IPV4_FRAGMENT, IPV4_DF);
    if (udp) {
        put_be16(p + ip + UDP_LENGTH, (uint16_t)(UDP_HEADER + payload));
        return header + payload;
    }
    put_be32(p + ip + TCP_SEQ, seq);
    p[ip + TCP_DATA] = 0x50;
    p[ip + TCP_FLAGS] = TCP_ACKED;
    return header + payload;
}

static size_t seed_frame(uint8_t *out, bool ipv6, bool udp)
{
    struct virtio_net_hdr h = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = udp    ? VIRTIO_NET_HDR_GSO_UDP_L4
                    : ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6
                           : VIRTIO_NET_HDR_GSO_TCPV4,
        .gso_size = 100,
        .csum_start = ipv6 ? IPV6_HEADER : IPV4_HEADER,
        .csum_offset = udp ? UDP_CHECKSUM : TCP_CHECKSUM,
    };
    out[0] = 0;
    memcpy(out + 1, &h, sizeof h);
    return 1 + sizeof h + seed_packet(out + 1 + sizeof h, ipv6, udp, 1, 350);
}

size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    if (i >= 8 || cap < 4096)
        return 0;
    bool ipv6 = i & 1, udp = i & 2;
    if (i < 4)
        return seed_frame(out, ipv6, udp);
    size_t at = 1;
    out[0] = 2;
    for (uint32_t k = 0; k < 5; k++) {
        size_t len = seed_packet(out + at + 2, ipv6, udp, k * 100, 100);
        put_be16(out + at, (uint16_t)len);
        at += 2 + len;
    }
    return at;
}
