/* Cutting superpackets, checksums, and the MSS clamp. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/packets.h"
#include "tun/offload.h"

#define FRAME_MAX (10 + 65575)

struct cut {
    uint8_t *packet[2048];
    size_t len[2048];
    unsigned n;
};

/* Cuts a frame, each segment into a block of exactly its size so that a sanitizer sees any byte too many. */
static enum err cut_frame(const uint8_t *frame, size_t len, struct cut *out)
{
    struct segments s;
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, frame, len);
    memset(out, 0, sizeof *out);
    enum err e = segment_begin(&s, (struct span){copy, len});
    while (e == OK && segment_more(&s)) {
        assert_true(out->n < 2048);
        out->len[out->n] = segment_size(&s, out->n);
        out->packet[out->n] = malloc(out->len[out->n]);
        segment_next(&s, out->packet[out->n]);
        out->n++;
    }
    free(copy);
    return e;
}

static void cut_free(struct cut *c)
{
    for (unsigned i = 0; i < c->n; i++)
        free(c->packet[i]);
}

/* -- checksum -- */

static void checksum_of_the_rfc_1071_example(void **state)
{
    (void)state;
    const uint8_t data[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    assert_int_equal(checksum_fold(checksum_add(0, data, sizeof data)), 0xddf2);
}

static void checksum_matches_naive_at_every_length_and_alignment(void **state)
{
    (void)state;
    uint64_t seed = 1;
    uint8_t data[700], copy[700];
    packet_fill(&seed, data, sizeof data);
    for (size_t len = 0; len < 600; len++)
        for (size_t at = 0; at < 9; at += 3) {
            uint32_t start = packet_random(&seed) & 0xffff;
            uint16_t want = packet_naive_sum(start, data + at, len);
            assert_int_equal(checksum_fold(checksum_add(start, data + at, len)), want);
            memset(copy, 0xee, sizeof copy);
            assert_int_equal(checksum_fold(checksum_copy(start, copy + 1, data + at, len)), want);
            assert_memory_equal(copy + 1, data + at, len);
            assert_int_equal(copy[0], 0xee);
            assert_int_equal(copy[1 + len], 0xee);
        }
}

static void checksum_of_all_ones_does_not_overflow(void **state)
{
    (void)state;
    size_t len = 3 * 1024 * 1024;
    uint8_t *data = malloc(len);
    memset(data, 0xff, len);
    assert_int_equal(checksum_fold(checksum_add(0, data, len)), 0xffff);
    data[0] = 0xfe;
    assert_int_equal(checksum_fold(checksum_add(0, data, len)), 0xfeff);
    free(data);
}

/* -- packets without GSO -- */

static void packet_without_offload_goes_verbatim(void **state)
{
    (void)state;
    uint8_t frame[200] = {0};
    struct packet_spec s = packet_spec_tcp(false);
    size_t len = packet_build(&s, (const uint8_t *)"hello", 5, frame + 10);
    frame[10 + 40] ^= 1; /* a wrong checksum is not ours to mend */
    struct cut c;
    assert_int_equal(cut_frame(frame, len + 10, &c), OK);
    assert_int_equal(c.n, 1);
    assert_int_equal(c.len[0], len);
    assert_memory_equal(c.packet[0], frame + 10, len);
    cut_free(&c);
}

static void bytes_behind_the_ip_length_are_cut_off(void **state)
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        uint8_t frame[200] = {0};
        struct packet_spec s = packet_spec_udp(v6);
        size_t len = packet_build(&s, (const uint8_t *)"hello", 5, frame + 10);
        struct cut c;
        assert_int_equal(cut_frame(frame, len + 10 + 7, &c), OK);
        assert_int_equal(c.len[0], len);
        cut_free(&c);
    }
}

static void left_out_checksum_is_completed(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (size_t payload = 0; payload < 80; payload++) {
            uint8_t frame[300], data[80], want[300];
            uint64_t seed = payload;
            packet_fill(&seed, data, sizeof data);
            struct packet_spec s = kind & 1 ? packet_spec_udp(kind & 2) : packet_spec_tcp(kind & 2);
            size_t len = packet_build_gso(&s, data, payload, 0, frame);
            frame[1] = 0; /* GSO_NONE */
            assert_int_equal(packet_build(&s, data, payload, want), len - 10);
            struct cut c;
            assert_int_equal(cut_frame(frame, len, &c), OK);
            assert_int_equal(c.len[0], len - 10);
            assert_memory_equal(c.packet[0], want, len - 10);
            cut_free(&c);
        }
}

static void udp_checksum_zero_is_sent_as_ones(void **state)
{
    (void)state;
    uint8_t frame[64], data[4] = {0, 0, 9, 9}, packet[64];
    struct packet_spec s = packet_spec_udp(false);
    /* Choose the payload so that the sum is 0xffff and its complement 0. */
    packet_build(&s, data, 4, packet);
    data[0] = packet[26];
    data[1] = packet[27];
    for (int gso = 0; gso < 2; gso++) {
        size_t len = packet_build_gso(&s, data, 4, 100, frame);
        frame[1] = gso ? 5 : 0;
        struct cut c;
        assert_int_equal(cut_frame(frame, len, &c), OK);
        assert_int_equal(c.packet[0][26] << 8 | c.packet[0][27], 0xffff);
        cut_free(&c);
    }
}

/* -- GSO -- */

static void check_segments(const struct packet_spec *s, const uint8_t *payload, size_t len, uint16_t gso,
                           const struct cut *c)
{
    size_t at = 0;
    assert_int_equal(c->n, len > gso ? (len + gso - 1) / gso : 1);
    for (unsigned i = 0; i < c->n; i++) {
        size_t part = len - at < gso ? len - at : gso;
        struct packet_spec want = *s;
        uint8_t *built = malloc(part + 128);
        want.id = (uint16_t)(s->id + i);
        want.seq = s->seq + (uint32_t)at;
        if (i + 1 < c->n)
            want.flags &= (uint8_t)~0x09; /* FIN, PSH */
        if (i > 0)
            want.flags &= 0x7f; /* CWR */
        assert_int_equal(packet_build(&want, payload + at, part, built), c->len[i]);
        assert_memory_equal(built, c->packet[i], c->len[i]);
        assert_true(packet_sound(c->packet[i], c->len[i]));
        free(built);
        at += part;
    }
    assert_int_equal(at, len);
}

static void cut_and_check(const struct packet_spec *s, size_t len, uint16_t gso)
{
    uint8_t *payload = malloc(len), *frame = malloc(FRAME_MAX);
    uint64_t seed = len * 31 + gso;
    packet_fill(&seed, payload, len);
    size_t n = packet_build_gso(s, payload, len, gso, frame);
    struct cut c;
    assert_int_equal(cut_frame(frame, n, &c), OK);
    check_segments(s, payload, len, gso, &c);
    cut_free(&c);
    free(payload);
    free(frame);
}

static void tcp_is_cut_with_sequence_id_and_flags_put_right(void **state)
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct packet_spec s = packet_spec_tcp(v6);
        s.flags = 0x10 | 0x80 | 0x40 | 0x08 | 0x01; /* ACK CWR ECE PSH FIN */
        cut_and_check(&s, 5000, 1348);
        cut_and_check(&s, 2696, 1348);
        cut_and_check(&s, 1348, 1348);
        cut_and_check(&s, 1349, 1348);
        cut_and_check(&s, 1, 1348);
        cut_and_check(&s, 1000, 1);
        cut_and_check(&s, 65535 - packet_headers(&s), 1348);
    }
}

static void udp_is_cut_with_lengths_put_right(void **state)
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct packet_spec s = packet_spec_udp(v6);
        cut_and_check(&s, 5000, 1200);
        cut_and_check(&s, 2401, 1200);
        cut_and_check(&s, 65000, 1372);
    }
}

static void ecn_bit_of_the_gso_type_is_no_type(void **state)
{
    (void)state;
    uint8_t frame[4000], payload[3000] = {5};
    struct packet_spec s = packet_spec_tcp(false);
    s.flags |= 0x80;
    size_t n = packet_build_gso(&s, payload, sizeof payload, 1000, frame);
    frame[1] |= 0x80;
    struct cut c;
    assert_int_equal(cut_frame(frame, n, &c), OK);
    check_segments(&s, payload, sizeof payload, 1000, &c);
    cut_free(&c);
}

/* Puts bytes between the fixed IP header and the transport header of a GSO frame. */
static size_t insert_headers(uint8_t *frame, size_t n, size_t at, const uint8_t *more, size_t len)
{
    uint16_t start;
    memmove(frame + 10 + at + len, frame + 10 + at, n - 10 - at);
    memcpy(frame + 10 + at, more, len);
    memcpy(&start, frame + 6, 2);
    start = (uint16_t)(start + len);
    memcpy(frame + 6, &start, 2);
    return n + len;
}

static void ipv4_options_are_repeated(void **state)
{
    (void)state;
    uint8_t frame[4000], payload[2000] = {7};
    struct packet_spec s = packet_spec_tcp(false);
    size_t n = packet_build_gso(&s, payload, sizeof payload, 1000, frame);
    n = insert_headers(frame, n, 20, (const uint8_t[]){148, 4, 0, 0}, 4); /* router alert */
    frame[10] = 0x46;
    put_be16(frame + 12, (uint16_t)(n - 10));
    struct cut c;
    assert_int_equal(cut_frame(frame, n, &c), OK);
    assert_int_equal(c.n, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(c.packet[i][0], 0x46);
        assert_int_equal(packet_naive_sum(0, c.packet[i], 24), 0xffff);
        assert_int_equal(get_be16(c.packet[i] + 2), c.len[i]);
        uint16_t pseudo = packet_naive_sum(6 + (uint32_t)c.len[i] - 24, c.packet[i] + 12, 8);
        assert_int_equal(packet_naive_sum(pseudo, c.packet[i] + 24, c.len[i] - 24), 0xffff);
    }
    cut_free(&c);
}

static void ipv6_extension_headers_are_repeated_and_a_routing_header_changes_the_sum(void **state)
{
    (void)state;
    uint8_t frame[4000], payload[2000] = {7};
    /* A routing header whose last address is the one that counts (RFC 8200 section 8.1). */
    uint8_t routing[24] = {6, 2, 2, 1};
    for (unsigned i = 0; i < 16; i++)
        routing[8 + i] = (uint8_t)(0xa0 + i);
    struct packet_spec s = packet_spec_tcp(true);
    size_t n = packet_build_gso(&s, payload, sizeof payload, 1000, frame);
    size_t tcp_len = n - 10 - 40;
    n = insert_headers(frame, n, 40, routing, sizeof routing);
    frame[10 + 6] = 43;
    put_be16(frame + 10 + 4, (uint16_t)(n - 10 - 40));
    uint16_t sum = packet_naive_sum(6 + (uint32_t)tcp_len, frame + 10 + 8, 16);
    put_be16(frame + 10 + 64 + 16, packet_naive_sum(sum, routing + 8, 16));
    struct cut c;
    assert_int_equal(cut_frame(frame, n, &c), OK);
    assert_int_equal(c.n, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(get_be16(c.packet[i] + 4) + 40, c.len[i]);
        assert_memory_equal(c.packet[i] + 40, routing, sizeof routing);
        uint16_t pseudo = packet_naive_sum(6 + (uint32_t)c.len[i] - 64, c.packet[i] + 8, 16);
        pseudo = packet_naive_sum(pseudo, routing + 8, 16);
        assert_int_equal(packet_naive_sum(pseudo, c.packet[i] + 64, c.len[i] - 64), 0xffff);
    }
    cut_free(&c);
}

/* -- lies -- */

enum { FIELD_FLAGS, FIELD_TYPE, FIELD_HDR_LEN = 2, FIELD_SIZE = 4, FIELD_START = 6, FIELD_OFFSET = 8 };

static enum err begin_with(bool v6, bool udp, size_t at, unsigned width, uint16_t value)
{
    uint8_t frame[4000], payload[3000] = {0};
    struct packet_spec s = udp ? packet_spec_udp(v6) : packet_spec_tcp(v6);
    size_t n = packet_build_gso(&s, payload, sizeof payload, 1000, frame);
    if (width == 1)
        frame[at] = (uint8_t)value;
    else
        memcpy(frame + at, &value, 2);
    struct cut c;
    enum err e = cut_frame(frame, n, &c);
    cut_free(&c);
    return e;
}

static void hdr_len_is_never_believed(void **state)
{
    (void)state;
    assert_int_equal(begin_with(false, false, FIELD_HDR_LEN, 2, 0xffff), OK);
    assert_int_equal(begin_with(true, true, FIELD_HDR_LEN, 2, 1), OK);
}

static void lies_in_the_virtio_header_are_refused(void **state)
{
    (void)state;
    assert_int_equal(begin_with(false, false, FIELD_FLAGS, 1, 0), ERR_SYNTAX);
    assert_int_equal(begin_with(false, false, FIELD_TYPE, 1, 4), ERR_SYNTAX); /* TCPv6 on IPv4 */
    assert_int_equal(begin_with(true, false, FIELD_TYPE, 1, 1), ERR_SYNTAX);
    assert_int_equal(begin_with(false, false, FIELD_TYPE, 1, 5), ERR_SYNTAX); /* USO on TCP */
    assert_int_equal(begin_with(false, true, FIELD_TYPE, 1, 1), ERR_SYNTAX);
    assert_int_equal(begin_with(false, true, FIELD_TYPE, 1, 3), ERR_UNSUPPORTED); /* UFO */
    assert_int_equal(begin_with(false, false, FIELD_TYPE, 1, 77), ERR_UNSUPPORTED);
    assert_int_equal(begin_with(false, false, FIELD_SIZE, 2, 0), ERR_SYNTAX);
    assert_int_equal(begin_with(false, false, FIELD_START, 2, 0), ERR_SYNTAX);
    assert_int_equal(begin_with(false, false, FIELD_START, 2, 24), ERR_SYNTAX);
    assert_int_equal(begin_with(false, false, FIELD_START, 2, 0xffff), ERR_SYNTAX);
    assert_int_equal(begin_with(true, false, FIELD_START, 2, 48), ERR_SYNTAX);
    assert_int_equal(begin_with(false, false, FIELD_OFFSET, 2, 6), ERR_SYNTAX);
    assert_int_equal(begin_with(false, true, FIELD_OFFSET, 2, 16), ERR_SYNTAX);
    assert_int_equal(begin_with(false, true, FIELD_OFFSET, 2, 0xffff), ERR_SYNTAX);
}

static void lies_in_the_packet_are_refused(void **state)
{
    (void)state;
    assert_int_equal(begin_with(false, false, 10, 1, 0x55), ERR_SYNTAX);           /* version */
    assert_int_equal(begin_with(false, false, 10, 1, 0x44), ERR_SYNTAX);           /* header length */
    assert_int_equal(begin_with(false, false, 10, 1, 0x4f), ERR_SYNTAX);           /* and csum_start elsewhere */
    assert_int_equal(begin_with(false, false, 12, 2, 0xffff), ERR_SYNTAX);         /* total length beyond the end */
    assert_int_equal(begin_with(false, false, 12, 2, 0x1300), ERR_SYNTAX);         /* 19 */
    assert_int_equal(begin_with(false, false, 12, 2, 0x2700), ERR_SYNTAX);         /* 39: no whole TCP header */
    assert_int_equal(begin_with(false, false, 12, 2, 0x2d00), ERR_SYNTAX);         /* 45: options beyond the end */
    assert_int_equal(begin_with(false, true, 12, 2, 0x1b00), ERR_SYNTAX);          /* 27: no whole UDP header */
    assert_int_equal(begin_with(false, false, 16, 2, 0x0020), ERR_SYNTAX);         /* a fragment */
    assert_int_equal(begin_with(false, false, 10 + 9, 1, 17), ERR_SYNTAX);         /* protocol */
    assert_int_equal(begin_with(false, false, 10 + 20 + 12, 1, 0x40), ERR_SYNTAX); /* TCP data offset */
    assert_int_equal(begin_with(true, false, 10 + 4, 2, 0xffff), ERR_SYNTAX);      /* payload length */
    assert_int_equal(begin_with(true, false, 10 + 4, 2, 0), ERR_SYNTAX);           /* a jumbogram */
    assert_int_equal(begin_with(true, false, 10 + 6, 1, 44), ERR_SYNTAX);          /* fragment header */
    assert_int_equal(begin_with(true, false, 10 + 6, 1, 0), ERR_SYNTAX); /* hop-by-hop, csum_start before its end */
}

static void every_truncation_is_refused_or_within_bounds(void **state)
{
    (void)state;
    uint8_t frame[600], payload[400] = {0};
    struct packet_spec s = packet_spec_tcp(false);
    size_t n = packet_build_gso(&s, payload, sizeof payload, 100, frame);
    for (size_t len = 0; len < n; len++) {
        struct cut c;
        enum err e = cut_frame(frame, len, &c);
        assert_true(e == ERR_TRUNCATED || e == ERR_SYNTAX);
        cut_free(&c);
    }
}

/* -- MSS clamp -- */

static size_t build_syn(bool v6, uint8_t flags, const uint8_t *options, uint8_t len, uint8_t *out)
{
    struct packet_spec s = packet_spec_tcp(v6);
    s.flags = flags;
    memcpy(s.options, options, len);
    s.options_len = len;
    return packet_build(&s, NULL, 0, out);
}

static void mss_of_a_syn_is_lowered_with_its_checksum(void **state)
{
    (void)state;
    const uint8_t options[3][8] = {
        {2, 4, 5, 0xb4, 1, 1, 4, 2}, {1, 2, 4, 5, 0xb4, 1, 4, 2}, {4, 2, 1, 1, 2, 4, 5, 0xb4}};
    const unsigned at[3] = {2, 3, 6};
    for (int v6 = 0; v6 < 2; v6++)
        for (unsigned i = 0; i < 3; i++) {
            uint8_t p[100];
            unsigned tcp = v6 ? 40 : 20;
            size_t len = build_syn(v6, i == 1 ? 0x12 : 0x02, options[i], 8, p); /* SYN and SYN ACK */
            clamp_mss(p, len, 1300);
            assert_int_equal(get_be16(p + tcp + 20 + at[i]), 1300);
            assert_true(packet_sound(p, len));
        }
}

/* Behind a fragment header that stands before all of its packet (RFC 6946), and not behind one that doesn't. */
static void mss_is_lowered_in_an_atomic_fragment(void **state)
{
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        uint8_t p[100];
        size_t len = build_syn(true, 0x02, (const uint8_t[]){2, 4, 5, 0xb4}, 4, p);
        memmove(p + 48, p + 40, len - 40);
        memcpy(p + 40, (const uint8_t[]){6, 0, 0, (uint8_t)more, 0, 0, 0, 9}, 8);
        p[6] = 44;
        put_be16(p + 4, (uint16_t)(len + 8 - 40));
        clamp_mss(p, len + 8, 1300);
        assert_int_equal(get_be16(p + 48 + 22), more ? 0x5b4 : 1300);
    }
}

static void assert_clamp_leaves(uint8_t *p, size_t len)
{
    uint8_t before[100];
    memcpy(before, p, len);
    clamp_mss(p, len, 1300);
    assert_memory_equal(before, p, len);
}

static void what_is_not_to_be_clamped_is_left_alone(void **state)
{
    (void)state;
    uint8_t p[100];
    const uint8_t small[] = {2, 4, 2, 0x18}, large[] = {2, 4, 5, 0xb4};
    assert_clamp_leaves(p, build_syn(false, 0x02, small, 4, p));
    assert_clamp_leaves(p, build_syn(false, 0x10, large, 4, p)); /* no SYN */
    assert_clamp_leaves(p, build_syn(false, 0x02, (const uint8_t[]){0, 4, 5, 0xb4}, 4, p));
    assert_clamp_leaves(p, build_syn(false, 0x02, (const uint8_t[]){0, 0, 2, 4, 5, 0xb4, 0, 0}, 8, p)); /* behind END */
    assert_clamp_leaves(p, build_syn(false, 0x02, (const uint8_t[]){1, 1, 2, 4}, 4, p));                /* cut off */
    assert_clamp_leaves(p, build_syn(false, 0x02, (const uint8_t[]){1, 1, 1, 2}, 4, p));
    assert_clamp_leaves(p, build_syn(false, 0x02, (const uint8_t[]){2, 3, 5, 0xb4}, 4, p));
    assert_clamp_leaves(p, build_syn(false, 0x02, (const uint8_t[]){8, 0, 2, 4, 5, 0xb4, 0, 0}, 8, p)); /* length 0 */
    size_t len = build_syn(false, 0x02, large, 4, p);
    p[6] = 0x20; /* more fragments */
    assert_clamp_leaves(p, len);
    len = build_syn(false, 0x02, large, 4, p);
    p[9] = 17;
    assert_clamp_leaves(p, len);
    len = build_syn(true, 0x02, large, 4, p);
    p[6] = 44;
    assert_clamp_leaves(p, len);
    len = build_syn(true, 0x02, large, 4, p);
    for (size_t cut = 0; cut < len; cut++)
        assert_clamp_leaves(p, cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum_of_the_rfc_1071_example),
        cmocka_unit_test(checksum_matches_naive_at_every_length_and_alignment),
        cmocka_unit_test(checksum_of_all_ones_does_not_overflow),
        cmocka_unit_test(packet_without_offload_goes_verbatim),
        cmocka_unit_test(bytes_behind_the_ip_length_are_cut_off),
        cmocka_unit_test(left_out_checksum_is_completed),
        cmocka_unit_test(udp_checksum_zero_is_sent_as_ones),
        cmocka_unit_test(tcp_is_cut_with_sequence_id_and_flags_put_right),
        cmocka_unit_test(udp_is_cut_with_lengths_put_right),
        cmocka_unit_test(ecn_bit_of_the_gso_type_is_no_type),
        cmocka_unit_test(ipv4_options_are_repeated),
        cmocka_unit_test(ipv6_extension_headers_are_repeated_and_a_routing_header_changes_the_sum),
        cmocka_unit_test(hdr_len_is_never_believed),
        cmocka_unit_test(lies_in_the_virtio_header_are_refused),
        cmocka_unit_test(lies_in_the_packet_are_refused),
        cmocka_unit_test(every_truncation_is_refused_or_within_bounds),
        cmocka_unit_test(mss_of_a_syn_is_lowered_with_its_checksum),
        cmocka_unit_test(mss_is_lowered_in_an_atomic_fragment),
        cmocka_unit_test(what_is_not_to_be_clamped_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
