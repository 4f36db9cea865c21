/* What first fragments showed, remembered for the later ones; and the flow that an ICMP error is about. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/fragments.h"
#include "test/unit/packets.h"

static struct flow fragment(uint32_t id, uint16_t offset, uint8_t proto)
{
    struct flow f = {.fragment = true, .fragment_id = id, .fragment_offset = offset, .proto = proto};
    f.src = ip_from_bytes(4, (const uint8_t[]){10, 1, 0, 1});
    f.dst = ip_from_bytes(4, (const uint8_t[]){10, 2, 0, 1});
    if (offset == 0) {
        f.src_port = 4000;
        f.dst_port = 53;
        f.ports_known = true;
    }
    return f;
}

static struct fragment_table *table(void)
{
    struct fragment_table *t;
    assert_int_equal(fragment_table_new(&t, 8), OK);
    return t;
}

static void later_ones_get_the_ports_of_their_first(void **state)
{
    (void)state;
    struct fragment_table *t = table();
    struct flow first = fragment(7, 0, 17), later = fragment(7, 1480, 17), other = fragment(8, 1480, 17);
    assert_false(fragment_table_fill(t, &later, 1));
    fragment_table_note(t, &first, 1);
    assert_true(fragment_table_fill(t, &later, 2));
    assert_int_equal(later.src_port, 4000);
    assert_int_equal(later.dst_port, 53);
    assert_true(later.ports_known);
    assert_false(fragment_table_fill(t, &other, 2));
    other = fragment(7, 1480, 6);
    assert_false(fragment_table_fill(t, &other, 2));
    other = fragment(7, 1480, 17);
    other.dst.b[3] = 2;
    assert_false(fragment_table_fill(t, &other, 2));
    later = fragment(7, 1480, 17);
    assert_false(fragment_table_fill(t, &later, 31 * NS_PER_S));
    fragment_table_free(t);
}

/* RFC 1858, RFC 3128: the flags of a TCP header must not be replaced behind a filter's back. */
static void tcp_headers_can_not_be_written_over(void **state)
{
    (void)state;
    struct fragment_table *t = table();
    struct flow first = fragment(7, 0, 6), at8 = fragment(7, 8, 6), at16 = fragment(7, 16, 6),
                at24 = fragment(7, 24, 6);
    fragment_table_note(t, &first, 1);
    assert_false(fragment_table_fill(t, &at8, 2));
    assert_false(fragment_table_fill(t, &at16, 2));
    assert_true(fragment_table_fill(t, &at24, 2));
    fragment_table_free(t);
}

static void the_table_is_bounded_and_forgets_the_oldest(void **state)
{
    (void)state;
    struct fragment_table *t = table();
    unsigned known = 0;
    for (uint32_t id = 0; id < 1000; id++) {
        struct flow first = fragment(id, 0, 17);
        fragment_table_note(t, &first, id + 1);
    }
    for (uint32_t id = 0; id < 1000; id++) {
        struct flow later = fragment(id, 8, 17);
        bool found = fragment_table_fill(t, &later, 1001);
        assert_true(found == (id >= 968));
        known += found;
    }
    assert_int_equal(known, 32);
    fragment_table_free(t);
}

/* An ICMP error that quotes so many bytes of a packet. */
static size_t error_about(bool ipv6, const uint8_t *quote, size_t len, uint8_t type, uint8_t *out)
{
    struct packet_spec s = packet_spec_udp(ipv6);
    size_t n = packet_build(&s, quote, len, out), at = ipv6 ? 40 : 20;
    memset(out + at, 0, 8);
    out[at] = type;
    out[ipv6 ? 6 : 9] = ipv6 ? 58 : 1;
    return n;
}

static enum err quoted(const uint8_t *packet, size_t len, struct flow *out)
{
    struct flow f;
    assert_int_equal(flow_of(span_of(packet, len), &f), OK);
    return flow_of_quoted(span_of(packet, len), &f, out);
}

static void errors_are_about_the_answer_to_what_they_quote(void **state)
{
    (void)state;
    uint8_t inner[200], error[400], zeroes[100] = {0};
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        struct packet_spec s = packet_spec_tcp(ipv6);
        struct flow f, q;
        size_t n = packet_build(&s, zeroes, 100, inner), least = (ipv6 ? 40 : 20) + 8;
        assert_int_equal(flow_of(span_of(inner, n), &f), OK);
        for (size_t cut = least; cut <= n; cut++) {
            size_t len = error_about(ipv6, inner, cut, ipv6 ? 2 : 3, error);
            assert_int_equal(quoted(error, len, &q), OK);
            assert_true(ip_equal(&q.src, &f.dst));
            assert_true(ip_equal(&q.dst, &f.src));
            assert_int_equal(q.src_port, f.dst_port);
            assert_int_equal(q.dst_port, f.src_port);
        }
        size_t len = error_about(ipv6, inner, 12, ipv6 ? 2 : 3, error);
        assert_int_not_equal(quoted(error, len, &q), OK);
        len = error_about(ipv6, inner, n, ipv6 ? 129 : 0, error); /* no error */
        assert_int_equal(quoted(error, len, &q), ERR_NOTFOUND);
        len = error_about(ipv6, inner, n, ipv6 ? 137 : 5, error); /* a redirect */
        assert_int_equal(quoted(error, len, &q), ERR_NOTFOUND);
        error[ipv6 ? 6 : 9] = 17;
        assert_int_equal(quoted(error, len, &q), ERR_NOTFOUND);
        inner[0] ^= 0x20; /* of the other version */
        len = error_about(ipv6, inner, n, ipv6 ? 2 : 3, error);
        assert_int_not_equal(quoted(error, len, &q), OK);
    }
}

static void a_quoted_echo_is_answered_by_its_reply(void **state)
{
    (void)state;
    uint8_t inner[200], error[400], zeroes[100] = {0};
    struct flow q;
    size_t n = error_about(false, zeroes, 56, 8, inner), len = error_about(false, inner, n, 11, error);
    assert_int_equal(quoted(error, len, &q), OK);
    assert_int_equal(q.src_port, 0);
    n = error_about(true, zeroes, 56, 129, inner);
    len = error_about(true, inner, n, 1, error);
    assert_int_equal(quoted(error, len, &q), OK);
    assert_int_equal(q.src_port, 128 << 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(later_ones_get_the_ports_of_their_first),
        cmocka_unit_test(tcp_headers_can_not_be_written_over),
        cmocka_unit_test(the_table_is_bounded_and_forgets_the_oldest),
        cmocka_unit_test(errors_are_about_the_answer_to_what_they_quote),
        cmocka_unit_test(a_quoted_echo_is_answered_by_its_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
