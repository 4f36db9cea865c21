/* ICMP errors about packets that are too big, byte by byte; and about what none may be sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "test/unit/packets.h"
#include "tun/icmp.h"

static uint8_t packet[4096], out[ICMP_ERROR6_MAX], payload[2000];

static size_t build(bool ipv6, bool udp, size_t len)
{
    struct packet_spec s = udp ? packet_spec_udp(ipv6) : packet_spec_tcp(ipv6);
    uint64_t random = 1;
    packet_fill(&random, payload, len);
    return packet_build(&s, payload, len, packet);
}

static void ipv4_says_fragmentation_needed_and_the_size(void **state)
{
    (void)state;
    size_t len = build(false, false, 1400), n = icmp_too_big(span_of(packet, len), 1280, out);
    assert_int_equal(n, 576);
    static const uint8_t head[12] = {0x45, 0xc0, 0x02, 0x40, 0, 0, 0x40, 0, 64, 1};
    assert_memory_equal(out, head, 10);
    assert_memory_equal(out + 12, packet + 16, 4); /* from the packet's destination */
    assert_memory_equal(out + 16, packet + 12, 4); /* to its source */
    assert_int_equal(packet_naive_sum(0, out, 20), 0xffff);
    static const uint8_t type_code[2] = {3, 4}, unused_mtu[4] = {0, 0, 0x05, 0x00};
    assert_memory_equal(out + 20, type_code, 2);
    assert_memory_equal(out + 24, unused_mtu, 4);
    assert_memory_equal(out + 28, packet, 548);
    assert_int_equal(packet_naive_sum(0, out + 20, n - 20), 0xffff);
}

static void ipv4_short_packets_are_quoted_whole(void **state)
{
    (void)state;
    size_t len = build(false, true, 31), n = icmp_too_big(span_of(packet, len), 68, out);
    assert_int_equal(n, 28 + len);
    assert_memory_equal(out + 28, packet, len);
    assert_int_equal(packet_naive_sum(0, out + 20, n - 20), 0xffff);
}

static void ipv6_says_packet_too_big(void **state)
{
    (void)state;
    size_t len = build(true, false, 1400), n = icmp_too_big(span_of(packet, len), 1280, out);
    uint8_t pseudo[40 + 1240] = {0};
    assert_int_equal(n, 1280);
    static const uint8_t head[8] = {0x60, 0, 0, 0, 0x04, 0xd8, 58, 64};
    assert_memory_equal(out, head, 8);
    assert_memory_equal(out + 8, packet + 24, 16);
    assert_memory_equal(out + 24, packet + 8, 16);
    static const uint8_t type_code[2] = {2, 0}, mtu[4] = {0, 0, 0x05, 0x00};
    assert_memory_equal(out + 40, type_code, 2);
    assert_memory_equal(out + 44, mtu, 4);
    assert_memory_equal(out + 48, packet, 1232);
    memcpy(pseudo, out + 8, 32); /* RFC 8200 section 8.1 */
    pseudo[34] = 0x04;
    pseudo[35] = 0xd8;
    pseudo[39] = 58;
    memcpy(pseudo + 40, out + 40, 1240);
    assert_int_equal(packet_naive_sum(0, pseudo, sizeof pseudo), 0xffff);
}

static void nothing_is_said_about(size_t len)
{
    assert_int_equal(icmp_too_big(span_of(packet, len), 1280, out), 0);
}

static void some_packets_are_answered_with_nothing(void **state)
{
    (void)state;
    size_t len = build(false, true, 1400);
    packet[9] = 1;
    packet[20] = 3; /* itself an error */
    nothing_is_said_about(len);
    packet[20] = 8; /* an echo request */
    assert_int_not_equal(icmp_too_big(span_of(packet, len), 1280, out), 0);
    packet[7] = 1; /* a later fragment */
    nothing_is_said_about(len);
    len = build(false, true, 1400);
    packet[16] = 224; /* multicast */
    nothing_is_said_about(len);
    len = build(false, true, 1400);
    memset(packet + 12, 0, 4); /* from nobody */
    nothing_is_said_about(len);
    len = build(true, true, 1400);
    packet[6] = 58;
    packet[40] = 1;
    nothing_is_said_about(len);
    packet[40] = 128;
    assert_int_not_equal(icmp_too_big(span_of(packet, len), 1280, out), 0);
    packet[24] = 0xff;
    nothing_is_said_about(len);
    nothing_is_said_about(0);
    nothing_is_said_about(39);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4_says_fragmentation_needed_and_the_size),
        cmocka_unit_test(ipv4_short_packets_are_quoted_whole),
        cmocka_unit_test(ipv6_says_packet_too_big),
        cmocka_unit_test(some_packets_are_answered_with_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
