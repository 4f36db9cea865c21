/* Datagrams put together from their fragments, which slow code of the test's own has made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "test/unit/packets.h"
#include "tun/device.h"
#include "tun/reassembly.h"

#define TAG 7
#define PIECES_MAX 64

static struct reassembly *table;
static unsigned lost, lost_tag;

struct piece {
    size_t len;
    uint8_t b[9100];
};
struct datagram {
    size_t len;
    uint8_t b[66000];
    unsigned n;
    struct piece piece[PIECES_MAX];
};
static struct datagram one, other;
static uint8_t payload[66000];

static void note(void *ctx, uint32_t tag, unsigned fragments)
{
    assert_ptr_equal(ctx, &lost);
    lost += fragments;
    lost_tag = tag;
}

static int setup(void **state)
{
    (void)state;
    lost = lost_tag = 0;
    return reassembly_new(&table, note, &lost) != OK;
}

static int teardown(void **state)
{
    (void)state;
    reassembly_free(table);
    return 0;
}

static void sum(uint8_t *p)
{
    put_be16(p + 10, 0);
    put_be16(p + 10, (uint16_t)~packet_naive_sum(0, p, 20));
}

static struct piece *add_piece(struct datagram *d, size_t offset, size_t len, bool more, uint32_t id)
{
    struct piece *p = &d->piece[d->n++];
    bool ipv6 = d->b[0] >> 4 == 6;
    size_t header = ipv6 ? 40 : 20, at = ipv6 ? 48 : 20;
    assert_true(d->n <= PIECES_MAX && at + len <= sizeof p->b);
    memcpy(p->b, d->b, header);
    memcpy(p->b + at, d->b + header + offset, len);
    p->len = at + len;
    if (ipv6) {
        put_be16(p->b + 4, (uint16_t)(8 + len));
        p->b[6] = 44;
        p->b[40] = d->b[6];
        p->b[41] = 0;
        put_be16(p->b + 42, (uint16_t)(offset | more));
        put_be32(p->b + 44, id);
    } else {
        put_be16(p->b + 2, (uint16_t)p->len);
        put_be16(p->b + 4, (uint16_t)id);
        put_be16(p->b + 6, (uint16_t)(offset / 8 | (more ? 0x2000 : 0)));
        sum(p->b);
    }
    return p;
}

/* A UDP datagram with so much payload, and its fragments with at most `room` bytes of it each. */
static void make(struct datagram *d, bool ipv6, size_t len, size_t room, uint32_t id)
{
    struct packet_spec s = packet_spec_udp(ipv6);
    uint64_t random = id;
    s.fragment = 0;
    s.id = (uint16_t)id;
    packet_fill(&random, payload, len);
    d->len = packet_build(&s, payload, len, d->b);
    d->n = 0;
    size_t all = d->len - (ipv6 ? 40 : 20);
    for (size_t at = 0; at < all; at += room)
        (void)add_piece(d, at, all - at < room ? all - at : room, all - at > room, id);
}

static enum reassembly_result add_at(const struct piece *p, uint32_t tag, ns_t now, struct span *out)
{
    /* Memory of its own size, so that a look beyond it is seen. */
    uint8_t copy[9100];
    memcpy(copy, p->b, p->len);
    return reassembly_add(table, span_of(copy, p->len), tag, now, out);
}

static enum reassembly_result add(const struct piece *p)
{
    struct span out;
    return add_at(p, TAG, 1, &out);
}

/* The last one that was missing. */
static void expect_whole(const struct piece *p, const struct datagram *d)
{
    static const uint8_t nothing[TUN_HDR_LEN];
    struct span out = {.data = NULL};
    assert_int_equal(add_at(p, TAG, 1, &out), REASSEMBLY_WHOLE);
    assert_int_equal(out.len, TUN_HDR_LEN + d->len);
    assert_memory_equal(out.data, nothing, TUN_HDR_LEN);
    assert_memory_equal(out.data + TUN_HDR_LEN, d->b, d->len);
    assert_true(packet_sound(out.data + TUN_HDR_LEN, d->len));
}

static void any_order_makes_the_datagram(void **state)
{
    uint64_t random = 5;
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        bool ipv6 = round & 1;
        uint32_t id = ipv6 ? 0x12340000 + round : 100 + round;
        make(&one, ipv6, round < 2 ? 65000 : 1000 + packet_random(&random) % 9000, round < 2 ? 1480 : 8 * (20 + round),
             id);
        unsigned order[PIECES_MAX];
        for (unsigned i = 0; i < one.n; i++) {
            unsigned k = round < 4 ? i : packet_random(&random) % (i + 1);
            order[i] = order[k];
            order[k] = i;
        }
        if (round == 2 || round == 3) /* the last one first */
            for (unsigned i = 0; i < one.n; i++)
                order[i] = one.n - 1 - i;
        for (unsigned i = 0; i + 1 < one.n; i++)
            assert_int_equal(add(&one.piece[order[i]]), REASSEMBLY_WAITS);
        expect_whole(&one.piece[order[one.n - 1]], &one);
        assert_true(reassembly_deadline(table) == NS_NEVER);
    }
    assert_int_equal(lost, 0);
}

static void datagrams_do_not_mix(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++)
        for (unsigned what = 0; what < 4; what++) {
            make(&one, ipv6, 4000, 1000, 1);
            make(&other, ipv6, 4000, 1000, what ? 1 : 2);
            for (unsigned i = 0; i < other.n; i++) {
                if (what == 1)
                    other.piece[i].b[ipv6 ? 8 + 15 : 15] ^= 1; /* another source */
                if (what == 2)
                    other.piece[i].b[ipv6 ? 24 + 15 : 19] ^= 1; /* another destination */
            }
            struct span out;
            for (unsigned i = 0; i + 1 < one.n; i++) {
                assert_int_equal(add(&one.piece[i]), REASSEMBLY_WAITS);
                assert_int_equal(add_at(&other.piece[i], what == 3 ? TAG + 1 : TAG, 1, &out), REASSEMBLY_WAITS);
            }
            expect_whole(&one.piece[one.n - 1], &one);
            assert_int_equal(add_at(&other.piece[one.n - 1], what == 3 ? TAG + 1 : TAG, 1, &out), REASSEMBLY_WHOLE);
        }
    make(&one, false, 4000, 2000, 9); /* IPv4: another protocol */
    make(&other, false, 4000, 2000, 9);
    other.piece[1].b[9] = 99;
    assert_int_equal(add(&one.piece[0]), REASSEMBLY_WAITS);
    assert_int_equal(add(&other.piece[1]), REASSEMBLY_WAITS);
    assert_int_equal(lost, 0);
}

static void a_copy_does_no_harm(void **state)
{
    (void)state;
    make(&one, false, 5000, 1480, 3);
    for (unsigned i = 0; i + 1 < one.n; i++)
        for (unsigned k = 0; k < 3; k++)
            assert_int_equal(add(&one.piece[i]), REASSEMBLY_WAITS);
    expect_whole(&one.piece[one.n - 1], &one);
    /* The last one, too, while the first is missing. */
    for (unsigned k = 0; k < 3; k++)
        for (unsigned i = 1; i < one.n; i++)
            assert_int_equal(add(&one.piece[i]), REASSEMBLY_WAITS);
    expect_whole(&one.piece[0], &one);
    assert_int_equal(lost, 0);
}

/* RFC 5722: and what is still to come of it is discarded, too. */
static void overlaps_spoil_the_datagram(void **state)
{
    static const struct {
        size_t offset, len;
        bool more;
    } wrong[] = {
        {8, 2000, true},    /* across two of them */
        {1480, 1480, true}, /* the same place, other bytes */
        {1480, 8, true},    /* a part of one */
        {4400, 608, true},  /* to the end and beyond the part that is there */
        {2960, 8, false},   /* an earlier end */
        {6000, 8, false},   /* a later one */
        {5008, 8, true},    /* behind the end */
    };
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++)
        for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            make(&one, ipv6, 5000, 1480, 100 + i);
            unsigned n = one.n;
            struct piece *bad = add_piece(&one, wrong[i].offset, wrong[i].len, wrong[i].more, 100 + i);
            bad->b[bad->len - 1] ^= 1;
            lost = 0;
            assert_int_equal(add(&one.piece[0]), REASSEMBLY_WAITS);
            assert_int_equal(add(&one.piece[1]), REASSEMBLY_WAITS);
            assert_int_equal(add(&one.piece[n - 1]), REASSEMBLY_WAITS);
            assert_int_equal(add(bad), REASSEMBLY_DROPPED);
            assert_int_equal(lost, 4);
            for (unsigned k = 0; k < n; k++)
                assert_int_equal(add(&one.piece[k]), REASSEMBLY_DROPPED);
            assert_int_equal(lost, 4 + n);
            assert_int_equal(lost_tag, TAG);
        }
}

static void what_is_missing_is_waited_for_in_bounds_of_time(void **state)
{
    struct span out;
    (void)state;
    make(&one, false, 5000, 1480, 1);
    make(&other, true, 5000, 1480, 1);
    assert_true(reassembly_deadline(table) == NS_NEVER);
    for (unsigned i = 1; i < one.n; i++)
        assert_int_equal(add_at(&one.piece[i], TAG, i * NS_PER_S, &out), REASSEMBLY_WAITS);
    assert_int_equal(add_at(&other.piece[0], 99, 5 * NS_PER_S, &out), REASSEMBLY_WAITS);
    assert_true(reassembly_deadline(table) == NS_PER_S + REASSEMBLY_TIME);
    reassembly_expire(table, NS_PER_S + REASSEMBLY_TIME - 1);
    assert_int_equal(lost, 0);
    reassembly_expire(table, NS_PER_S + REASSEMBLY_TIME);
    assert_int_equal(lost, one.n - 1);
    assert_int_equal(lost_tag, TAG);
    assert_int_equal(add_at(&one.piece[0], TAG, NS_PER_S + REASSEMBLY_TIME, &out), REASSEMBLY_WAITS);
    assert_true(reassembly_deadline(table) == 5 * NS_PER_S + REASSEMBLY_TIME);
    reassembly_expire(table, 100 * NS_PER_S);
    assert_int_equal(lost, one.n + 1);
    assert_true(reassembly_deadline(table) == NS_NEVER);
}

static void the_oldest_makes_room(void **state)
{
    struct span out;
    (void)state;
    for (unsigned i = 0; i < REASSEMBLY_MAX; i++) {
        make(&one, false, 5000, 1480, i);
        assert_int_equal(add_at(&one.piece[0], i, 100 + i, &out), REASSEMBLY_WAITS);
        assert_int_equal(add_at(&one.piece[2], i, 200, &out), REASSEMBLY_WAITS);
    }
    for (unsigned i = 0; i < 3; i++) {
        make(&one, false, 5000, 1480, 1000 + i);
        assert_int_equal(lost, 2 * i);
        assert_int_equal(add_at(&one.piece[0], 0, 300 + i, &out), REASSEMBLY_WAITS);
        assert_int_equal(lost, 2 * i + 2);
        assert_int_equal(lost_tag, i);
    }
}

static void senseless_fragments_are_dropped(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        make(&one, ipv6, 5000, 1480, 4);
        unsigned n = one.n;
        lost = 0;
        assert_int_equal(add(add_piece(&one, 1480, 0, true, 4)), REASSEMBLY_DROPPED);  /* empty */
        assert_int_equal(add(add_piece(&one, 1480, 12, true, 4)), REASSEMBLY_DROPPED); /* no whole units */
        size_t most = ipv6 ? 65535 : 65515;
        struct piece *far = add_piece(&one, 0, most % 8 + 1, false, 4);
        put_be16(far->b + (ipv6 ? 42 : 6), (uint16_t)(ipv6 ? most / 8 * 8 : most / 8));
        assert_int_equal(add(far), REASSEMBLY_DROPPED); /* an IP packet has no room for that */
        assert_int_equal(lost, 3);
        for (unsigned i = 0; i + 1 < n; i++) /* and they spoil nothing */
            assert_int_equal(add(&one.piece[i]), REASSEMBLY_WAITS);
        expect_whole(&one.piece[n - 1], &one);
    }
}

/* The first one has longer headers than the others: together it is too long. */
static void too_long_with_its_header_is_dropped(void **state)
{
    struct piece *first = &one.piece[0];
    (void)state;
    make(&one, false, 65507, 1480, 5);
    memmove(first->b + 24, first->b + 20, first->len - 20);
    memcpy(first->b + 20, "\1\1\1\1", 4);
    first->b[0] = 0x46;
    first->len += 4;
    put_be16(first->b + 2, (uint16_t)first->len);
    for (unsigned i = 0; i + 1 < one.n; i++)
        assert_int_equal(add(&one.piece[i]), REASSEMBLY_WAITS);
    assert_int_equal(add(&one.piece[one.n - 1]), REASSEMBLY_DROPPED);
    assert_int_equal(lost, one.n);
}

/* RFC 8200 section 4.5: the first one's headers and its next header count. */
static void ipv6_headers_are_those_of_the_first(void **state)
{
    static const uint8_t hop[] = {44, 0, 1, 4, 0, 0, 0, 0};
    struct span out;
    (void)state;
    make(&one, true, 3000, 1480, 6);
    for (unsigned i = 0; i < one.n; i++) {
        struct piece *p = &one.piece[i];
        memmove(p->b + 48, p->b + 40, p->len - 40);
        memcpy(p->b + 40, hop, 8);
        p->b[6] = 0;
        p->len += 8;
        put_be16(p->b + 4, (uint16_t)(p->len - 40));
        if (i)
            p->b[48] = 99; /* no concern of theirs */
    }
    assert_int_equal(add(&one.piece[2]), REASSEMBLY_WAITS);
    assert_int_equal(add(&one.piece[0]), REASSEMBLY_WAITS);
    assert_int_equal(add_at(&one.piece[1], TAG, 1, &out), REASSEMBLY_WHOLE);
    const uint8_t *p = out.data + TUN_HDR_LEN;
    assert_int_equal(out.len, TUN_HDR_LEN + one.len + 8);
    assert_int_equal(get_be16(p + 4), one.len + 8 - 40);
    assert_int_equal(p[6], 0);
    assert_int_equal(p[40], 17);
    assert_memory_equal(p + 41, hop + 1, 7);
    assert_memory_equal(p + 48, one.b + 40, one.len - 40);
}

static void what_is_no_fragment_is_none(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        make(&one, ipv6, 1000, 1480, 7);
        struct piece whole = {.len = one.len};
        memcpy(whole.b, one.b, one.len);
        assert_int_equal(add(&whole), REASSEMBLY_NONE);
        assert_int_equal(add(&one.piece[0]), REASSEMBLY_NONE); /* of IPv6: an atomic one (RFC 6946) */
        for (whole.len = 0; whole.len < 48; whole.len++)
            assert_int_equal(add(&whole), REASSEMBLY_NONE);
    }
    assert_int_equal(lost, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(any_order_makes_the_datagram),
        TEST(datagrams_do_not_mix),
        TEST(a_copy_does_no_harm),
        TEST(overlaps_spoil_the_datagram),
        TEST(what_is_missing_is_waited_for_in_bounds_of_time),
        TEST(the_oldest_makes_room),
        TEST(senseless_fragments_are_dropped),
        TEST(too_long_with_its_header_is_dropped),
        TEST(ipv6_headers_are_those_of_the_first),
        TEST(what_is_no_fragment_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
