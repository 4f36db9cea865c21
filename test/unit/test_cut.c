/* Packets cut into fragments, put together again by slow code of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "test/unit/packets.h"
#include "tun/cut.h"

static uint8_t packet[66000], payload[65000], whole[66000], piece[66000];

static size_t build(uint16_t fragment, size_t len)
{
    struct packet_spec s = packet_spec_udp(false);
    uint64_t random = 7;
    s.fragment = fragment;
    packet_fill(&random, payload, len);
    return packet_build(&s, payload, len, packet);
}

/* Puts the header's checksum right after a change. */
static void checksum(uint8_t *p)
{
    p[10] = p[11] = 0;
    put_be16(p + 10, (uint16_t)~packet_naive_sum(0, p, (p[0] & 15u) * 4));
}

static unsigned cut_and_join(size_t len, uint32_t room)
{
    struct cut c;
    unsigned n = 0;
    size_t header = (packet[0] & 15u) * 4, at = 0;
    uint32_t size;
    assert_int_equal(cut_begin(&c, span_of(packet, len), room), OK);
    while ((size = cut_size(&c)) != 0) {
        cut_next(&c, piece);
        uint32_t own = (piece[0] & 15u) * 4;
        bool last = cut_size(&c) == 0;
        assert_true(size <= room);
        assert_int_equal(get_be16(piece + 2), size);
        assert_int_equal(packet_naive_sum(0, piece, own), 0xffff);
        assert_int_equal(get_be16(piece + 4), get_be16(packet + 4));
        assert_int_equal((get_be16(piece + 6) & 0x1fff) * 8u, (get_be16(packet + 6) & 0x1fff) * 8u + at);
        assert_int_equal(!(get_be16(piece + 6) & 0x2000), last && !(get_be16(packet + 6) & 0x2000));
        assert_memory_equal(piece + 12, packet + 12, 8);
        memcpy(whole + at, piece + own, size - own);
        at += size - own;
        n++;
    }
    assert_int_equal(at, len - header);
    assert_memory_equal(whole, packet + header, at);
    return n;
}

static void fragments_make_the_packet_again(void **state)
{
    (void)state;
    for (size_t len = 1200; len < 1500; len++)
        assert_int_equal(cut_and_join(build(0, len), 1280), 28 + len <= 1280 ? 1 : 2);
    assert_true(cut_and_join(build(0, 65000), 576) > 100);
    assert_true(cut_and_join(build(0, 100), 28) > 10);
}

static void a_fragment_is_cut_into_fragments_of_the_same_packet(void **state)
{
    (void)state;
    cut_and_join(build(0x2000 | 185, 1400), 600); /* neither the first nor the last */
    cut_and_join(build(185, 1400), 600);          /* the last */
}

/* RFC 791 section 3.1: the first has all options, the others those with the copied flag. */
/* Behind 64 KiB the offset would be 0 again, and a fragment of this one would bring ports that nobody has looked at. */
static void a_fragment_of_more_than_a_datagram_is_not_cut(void **state)
{
    struct cut c;
    (void)state;
    for (uint16_t offset = 0x1f00; offset <= 0x1fff; offset++) {
        size_t n = build(offset, 1000);
        assert_int_equal(cut_begin(&c, span_of(packet, n), 68), offset * 8u + n > 65535 ? ERR_SYNTAX : OK);
    }
}

static void only_copied_options_are_in_later_fragments(void **state)
{
    (void)state;
    static const uint8_t options[12] = {7, 3,    4, 0x94, 4, 0,
                                        0, 0x83, 3, 4,    0, 0}; /* record route, alert, loose route */
    struct cut c;
    size_t len = build(0, 1400);
    memmove(packet + 32, packet + 20, len - 20);
    memcpy(packet + 20, options, sizeof options);
    packet[0] = 0x48;
    len += 12;
    put_be16(packet + 2, (uint16_t)len);
    checksum(packet);
    assert_int_equal(cut_and_join(len, 800), 2);
    assert_int_equal(cut_begin(&c, span_of(packet, len), 800), OK);
    cut_next(&c, piece);
    assert_memory_equal(piece + 20, options, 12);
    cut_next(&c, piece);
    static const uint8_t copied[8] = {0x94, 4, 0, 0, 0x83, 3, 4, 0};
    assert_int_equal(piece[0], 0x47);
    assert_memory_equal(piece + 20, copied, 8);
}

static void what_can_not_be_cut_is_refused(void **state)
{
    (void)state;
    struct cut c;
    size_t len = build(0x4000, 1400);
    assert_int_equal(cut_begin(&c, span_of(packet, len), 1280), ERR_MISMATCH);
    len = build(0, 1400);
    assert_int_equal(cut_begin(&c, span_of(packet, len), 27), ERR_RANGE);
    packet[0] = 0x46;
    packet[20] = 0x83;
    packet[21] = 1; /* an option that does not hold its own length */
    assert_int_equal(cut_begin(&c, span_of(packet, len), 1280), ERR_SYNTAX);
    packet[21] = 9; /* longer than the header */
    assert_int_equal(cut_begin(&c, span_of(packet, len), 1280), ERR_SYNTAX);
    struct packet_spec six = packet_spec_udp(true);
    len = packet_build(&six, payload, 1400, packet);
    assert_int_equal(cut_begin(&c, span_of(packet, len), 1280), ERR_SYNTAX);
}

/* RFC 8200 section 4.5: headers for the way are in each fragment, and the last of them says 44. */
static void ipv6_is_cut_behind_what_is_for_the_way(void **state)
{
    (void)state;
    static const uint8_t way[8] = {17, 0, 0x3e, 4, 1, 2, 3, 4};
    for (unsigned more = 0; more < 2; more++) {
        struct packet_spec six = packet_spec_udp(true);
        struct ip_insertion in = {.offset = 40 + more * 8, .next_at = more ? 40 : 6};
        struct cut c;
        size_t len = packet_build(&six, payload, 3000, packet), at = 0;
        if (more) {
            memmove(packet + 48, packet + 40, len - 40);
            memcpy(packet + 40, way, sizeof way);
            len += 8;
            packet[6] = 60;
            put_be16(packet + 4, (uint16_t)(len - 40));
        }
        uint32_t size, room = 1283;
        assert_int_equal(cut_begin_ipv6(&c, span_of(packet, len), &in, room, 0x12345678), OK);
        while ((size = cut_size(&c)) != 0) {
            cut_next(&c, piece);
            const uint8_t *fragment = piece + in.offset;
            bool last = cut_size(&c) == 0;
            assert_true(size <= room && (last || (size - in.offset) % 8 == 0));
            assert_int_equal(get_be16(piece + 4) + 40, size);
            assert_int_equal(piece[in.next_at], 44);
            assert_memory_equal(piece + 8, packet + 8, 32);
            assert_int_equal(get_be16(fragment), 17 << 8);
            assert_int_equal(get_be16(fragment + 2), at | !last);
            assert_int_equal(get_be32(fragment + 4), 0x12345678);
            memcpy(whole + at, fragment + 8, size - in.offset - 8);
            at += size - in.offset - 8;
        }
        assert_int_equal(at, len - in.offset);
        assert_memory_equal(whole, packet + in.offset, at);
        assert_int_equal(cut_begin_ipv6(&c, span_of(packet, len), &in, in.offset + 15, 1), ERR_RANGE);
        in.offset = (uint32_t)len + 1;
        assert_int_equal(cut_begin_ipv6(&c, span_of(packet, len), &in, room, 1), ERR_SYNTAX);
    }
    struct ip_insertion in = {.offset = 40, .next_at = 6};
    struct cut c;
    size_t len = build(0, 1400);
    assert_int_equal(cut_begin_ipv6(&c, span_of(packet, len), &in, 1280, 1), ERR_SYNTAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fragments_make_the_packet_again),
        cmocka_unit_test(a_fragment_is_cut_into_fragments_of_the_same_packet),
        cmocka_unit_test(a_fragment_of_more_than_a_datagram_is_not_cut),
        cmocka_unit_test(only_copied_options_are_in_later_fragments),
        cmocka_unit_test(what_can_not_be_cut_is_refused),
        cmocka_unit_test(ipv6_is_cut_behind_what_is_for_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
