/* What inbound ESP packets are dropped for, and what that leaves behind (RFC 4303 section 3.4, RFC 4301 section 5.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test/unit/esp_wire.h"

static void runts_are_dropped_and_counted(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct sa_params p = params_of(k);
        struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
        load_ipv4(0, 60);
        assert_int_equal(seal_all(out, 1), 1);
        struct esp_packet whole = w.v[0];
        uint32_t least = esp_sealed_len(&p.suite, 0), step = esp_align(&p.suite);
        for (uint32_t len = 0; len < whole.len; len++) {
            uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte read too many */
            memcpy(exact, whole.data, len);
            w.v[0] = (struct esp_packet){.data = exact, .len = len};
            assert_int_equal(open_all(in, 1), 0);
            bool runt = len < least || (len - least) % step != 0;
            expect_drop(0, runt ? STAT_DROP_IN_RUNT : STAT_DROP_IN_AUTH);
            free(exact);
        }
        w.v[0] = whole;
        assert_int_equal(open_all(in, 1), 1);
        sa_free(out);
        sa_free(in);
    }
}

static void any_flipped_bit_fails_and_never_moves_the_window(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES * 2; k++) {
        struct sa_params p = params_of(k / 2);
        p.esn = k & 1;
        struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
        load_ipv4(0, 45);
        assert_int_equal(seal_all(out, 1), 1);
        struct esp_packet whole = w.v[0];
        for (uint32_t bit = 0; bit < whole.len * 8; bit++) {
            uint8_t copy[256];
            memcpy(copy, whole.data, whole.len);
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
            w.v[0] = (struct esp_packet){.data = copy, .len = whole.len};
            assert_int_equal(open_all(in, 1), 0);
            assert_true(w.v[0].drop == STAT_DROP_IN_AUTH || (w.v[0].drop == STAT_DROP_IN_REPLAY && bit / 32 == 1));
            assert_int_equal(in->replay.top, 0);
        }
        assert_int_equal(in->packets, 0);
        assert_int_equal(in->last_used, 0);
        assert_false(in->in_use);
        w.v[0] = whole;
        assert_int_equal(open_all(in, 1), 1);
        sa_free(out);
        sa_free(in);
    }
}

static void truncated_icv_is_refused(void **state)
{
    (void)state;
    struct sa_params p = params_of(NULL_SHA256);
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (uint32_t cut = 4; cut <= 16; cut += 4) {
        load_ipv4(0, 60);
        assert_int_equal(seal_all(out, 1), 1);
        w.v[0].len -= cut;
        assert_int_equal(open_all(in, 1), 0);
        expect_drop(0, STAT_DROP_IN_AUTH);
    }
    sa_free(out);
    sa_free(in);
}

static void forged_number_far_ahead_does_not_shut_the_window(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (unsigned i = 0; i < 2; i++)
        load_ipv4(i, 60);
    assert_int_equal(seal_all(out, 2), 2);
    put_be32(w.v[0].data + 4, 0xf0000000); /* in one batch with the true one behind it */
    assert_int_equal(open_all(in, 2), 1);
    expect_drop(0, STAT_DROP_IN_AUTH);
    expect_delivered(1);
    assert_int_equal(in->replay.top, 2);
    sa_free(out);
    sa_free(in);
}

static void of_eight_duplicates_in_a_batch_one_is_accepted(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct sa_params p = params_of(k);
        struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
        load_ipv4(0, 60);
        assert_int_equal(seal_all(out, 1), 1);
        for (unsigned i = 1; i < 8; i++) {
            memcpy(w.sent[i], w.v[0].data, w.v[0].len);
            w.v[i] = (struct esp_packet){.data = w.sent[i], .len = w.v[0].len};
        }
        struct esp_packet again = w.v[7];
        assert_int_equal(open_all(in, 8), 1);
        expect_delivered(0);
        for (unsigned i = 1; i < 8; i++)
            expect_drop(i, STAT_DROP_IN_REPLAY);
        assert_int_equal(in->packets, 1);
        w.v[0] = again;
        assert_int_equal(open_all(in, 1), 0);
        expect_drop(0, STAT_DROP_IN_REPLAY);
        sa_free(out);
        sa_free(in);
    }
}

static void replays_cost_no_decryption(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    struct sa *in = sa_of(p, SA_IN);
    craft_trailer(0, &p, 9, "\x01\x02\x02\x04", 4);
    assert_int_equal(open_all(in, 1), 1);
    craft_trailer(0, &p, 9, "\x01\x02\x02\x04", 4);
    memset(w.got[0], 0x55, 64);
    assert_int_equal(open_all(in, 1), 0);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(w.got[0][i], 0x55);
    sa_free(in);
}

static void authentic_number_zero_is_rejected(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    struct sa *in = sa_of(p, SA_IN);
    craft_trailer(0, &p, 0, "\x01\x02\x02\x04", 4);
    assert_int_equal(open_all(in, 1), 0);
    expect_drop(0, STAT_DROP_IN_REPLAY);
    craft_trailer(0, &p, 1, "\x01\x02\x02\x04", 4);
    assert_int_equal(open_all(in, 1), 1);
    sa_free(in);
}

static void esn_batches_cross_2_32_in_any_order(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct sa_params p = params_of(k);
        p.esn = true;
        p.replay_window = 64;
        struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
        out->seq = in->replay.top = UINT32_MAX - 70;
        for (unsigned round = 0; round < 3; round++) {
            for (unsigned i = 0; i < BATCH; i++)
                load_ipv4(i, 60);
            assert_int_equal(seal_all(out, BATCH), BATCH);
            for (unsigned i = 0; i < BATCH / 2; i++) { /* last comes first */
                struct esp_packet p0 = w.v[i];
                w.v[i] = w.v[BATCH - 1 - i];
                w.v[BATCH - 1 - i] = p0;
            }
            assert_int_equal(open_all(in, BATCH), BATCH);
        }
        assert_true(in->replay.top == UINT64_C(0xffffffff) - 70 + 3 * BATCH);
        sa_free(out);
        sa_free(in);
    }
}

static void esn_receiver_refuses_a_second_wrap(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    p.esn = true;
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    in->replay.top = UINT64_MAX - 1;
    out->seq = 4; /* a sender that wrapped past 2^64: number 5 again */
    load_ipv4(0, 60);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(open_all(in, 1), 0);
    expect_drop(0, STAT_DROP_IN_REPLAY);
    assert_true(in->replay.top == UINT64_MAX - 1);
    sa_free(out);
    sa_free(in);
}

static void wrong_padding_is_dropped_and_right_padding_up_to_255_taken(void **state)
{
    (void)state;
    static const unsigned in_suite[] = {GCM256, NULL_SHA256};
    for (unsigned k = 0; k < 2; k++) {
        struct sa_params p = params_of(in_suite[k]);
        struct sa *in = sa_of(p, SA_IN);
        craft_trailer(0, &p, 1, "\x01\x02\x02\x04", 4);
        craft_trailer(1, &p, 2, "\x02\x01\x02\x04", 4);
        craft_trailer(2, &p, 3, "\x00\x00\x02\x04", 4);
        craft_trailer(3, &p, 4, "\x01\x02\x03\x04\x05\x07\x06\x04", 8);
        craft_trailer(4, &p, 5, "\x01\x02\x1e\x04", 4); /* 30 = all there is, but not 1, 2, 3 … */
        craft_trailer(5, &p, 6, "\x01\x02\x1f\x04", 4); /* pad length > payload */
        craft_trailer(6, &p, 7, "\x01\x02\xff\x04", 4);
        uint8_t longest[258];
        for (unsigned i = 0; i < 255; i++)
            longest[i] = (uint8_t)(i + 1);
        longest[254] = 255, longest[255] = 255, longest[256] = 4;
        uint8_t text[28 + 260] = {0};
        uint32_t len = ipv4(w.inner[7], 27, "10.1.0.5", "10.2.0.7"); /* 27 + 255 + 2 = 284, a multiple of 4 */
        w.inner_len[7] = len;
        memcpy(text, w.inner[7], len);
        memcpy(text + len, longest, 257);
        craft(7, &p, 8, text, len + 257);
        assert_int_equal(open_all(in, 8), 2);
        expect_delivered(0);
        for (unsigned i = 1; i < 7; i++)
            expect_drop(i, STAT_DROP_IN_PADDING);
        expect_delivered(7);
        sa_free(in);
    }
}

static void pad_length_is_not_followed_out_of_the_packet(void **state)
{
    (void)state;
    struct sa_params p = params_of(NULL_SHA256);
    struct sa *in = sa_of(p, SA_IN);
    uint8_t text[32], room[96];
    for (unsigned i = 0; i < sizeof room; i++)
        room[i] = (uint8_t)(i - 31); /* 1 stands right before the text, as if the padding began there */
    for (unsigned i = 0; i < 30; i++)
        text[i] = (uint8_t)(i + 2);
    text[30] = 31;
    text[31] = 4;
    craft(0, &p, 1, text, sizeof text);
    w.v[0].dst = room + 33;
    unsigned events;
    assert_int_equal(room[32], 1);
    assert_int_equal(esp_open(in, w.v, 1, 1, &events), 0);
    expect_drop(0, STAT_DROP_IN_PADDING);
    for (unsigned i = 0; i < 30; i++) /* all of the payload is padding: nothing is left, and that is no IP packet */
        text[i] = (uint8_t)(i + 1);
    text[30] = 30;
    craft(0, &p, 2, text, sizeof text);
    assert_int_equal(open_all(in, 1), 0);
    expect_drop(0, STAT_DROP_IN_MALFORMED);
    sa_free(in);
}

static void dummies_are_discarded_and_advance_the_window(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    out->seq = 5000;
    memset(w.inner[0], 0xa5, 100);
    load(0, 100, NEXT_HEADER_NONE);
    load(1, 0, NEXT_HEADER_NONE);
    assert_int_equal(seal_all(out, 2), 2);
    assert_int_equal(open_all(in, 2), 0);
    expect_drop(0, STAT_DROP_IN_DUMMY);
    expect_drop(1, STAT_DROP_IN_DUMMY);
    assert_int_equal(in->replay.top, 5002);
    assert_int_equal(in->packets, 0);
    assert_int_equal(in->last_used, 6); /* an authentic sign of life */
    sa_free(out);
    sa_free(in);
}

static void tfc_padding_is_cut_off_by_the_inner_length(void **state)
{
    (void)state;
    struct sa_params p = params_of(CBC256_SHA256);
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    ipv4(w.inner[0], 60, "10.1.0.5", "10.2.0.7");
    memset(w.inner[0] + 60, 0, 1000);
    load(0, 1060, NEXT_HEADER_IPV4);
    ipv6(w.inner[1], 60, "2001:db8:1::5", "2001:db8:2::7");
    memset(w.inner[1] + 60, 0, 1000);
    load(1, 1060, NEXT_HEADER_IPV6);
    assert_int_equal(seal_all(out, 2), 2);
    assert_int_equal(open_all(in, 2), 2);
    w.inner_len[0] = w.inner_len[1] = 60;
    expect_delivered(0);
    expect_delivered(1);
    assert_int_equal(in->bytes, 120);
    sa_free(out);
    sa_free(in);
}

static void malformed_inner_packets_are_dropped(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (unsigned i = 0; i < 12; i++) {
        if (i < 8)
            load_ipv4(i, 60);
        else
            load(i, ipv6(w.inner[i], 60, "2001:db8:1::5", "2001:db8:2::7"), NEXT_HEADER_IPV6);
    }
    w.v[0].data[0] = 0x65;         /* version 6 in next header 4 */
    w.v[1].data[0] = 0x44;         /* header length 16 */
    put_be16(w.v[2].data + 2, 61); /* longer than the payload */
    put_be16(w.v[3].data + 2, 19); /* shorter than its header */
    w.v[4].len = 19;               /* no whole header */
    w.v[5].next_header = 6;        /* no IP packet, in tunnel mode */
    w.v[6].next_header = 41;       /* says IPv6 */
    w.v[7].data[0] = 0x4f;         /* header length 60 … */
    put_be16(w.v[7].data + 2, 40); /* … in a packet of 40 */
    w.v[8].next_header = 4;        /* says IPv4 */
    put_be16(w.v[9].data + 4, 21); /* longer than the payload */
    w.v[10].len = 39;              /* no whole header */
    w.v[11].len = 0;               /* nothing */
    assert_int_equal(seal_all(out, 12), 12);
    assert_int_equal(open_all(in, 12), 0);
    for (unsigned i = 0; i < 12; i++)
        expect_drop(i, STAT_DROP_IN_MALFORMED);
    assert_int_equal(in->replay.top, 12);
    sa_free(out);
    sa_free(in);
}

/* Opens one packet from each of the addresses in turn and compares with what is wanted. */
static void expect_selected(struct sa *out, struct sa *in, const char *src, const char *dst, bool want)
{
    bool v6 = strchr(src, ':') != NULL;
    uint32_t len = v6 ? ipv6(w.inner[0], 60, src, dst) : ipv4(w.inner[0], 60, src, dst);
    load(0, len, v6 ? NEXT_HEADER_IPV6 : NEXT_HEADER_IPV4);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(open_all(in, 1), want);
    if (!want)
        expect_drop(0, STAT_DROP_IN_SELECTOR);
}

static void inner_addresses_outside_the_selectors_are_dropped(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    selector_of(&p.local, "10.2.0.0/16, 10.9.0.1-10.9.0.3, 2001:db8:2::/48, ::/64");
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    assert_true(in->address_only);
    for (unsigned round = 0; round < 2; round++) {
        expect_selected(out, in, "10.1.0.5", "10.2.0.7", true);
        expect_selected(out, in, "10.1.0.0", "10.2.255.255", true);
        expect_selected(out, in, "10.0.255.255", "10.2.0.7", false);
        expect_selected(out, in, "10.2.0.0", "10.2.0.7", false);
        expect_selected(out, in, "10.1.0.5", "10.1.255.255", false);
        expect_selected(out, in, "10.1.0.5", "10.3.0.0", false);
        expect_selected(out, in, "10.2.0.7", "10.1.0.5", false);
        expect_selected(out, in, "10.1.0.5", "10.9.0.3", true);
        expect_selected(out, in, "10.1.0.5", "10.9.0.4", false);
        expect_selected(out, in, "10.1.0.5", "10.2.0.7", true);
        expect_selected(out, in, "2001:db8:1::5", "2001:db8:2::7", true);
        expect_selected(out, in, "2001:db8:1::5", "2001:db8:3::", false);
        expect_selected(out, in, "2001:db8:0:ffff:ffff:ffff:ffff:ffff", "2001:db8:2::7", false);
        expect_selected(out, in, "2001:db8:1:ffff:ffff:ffff:ffff:ffff", "2001:db8:2::7", true);
        expect_selected(out, in, "2001:db8:1::5", "::a09:1", true);
        expect_selected(out, in, "10.1.0.5", "10.8.0.1", false);
    }
    sa_free(out);
    sa_free(in);
}

static void families_are_not_mixed_up(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    selector_of(&p.local, "10.2.0.0/16, ::/0");
    selector_of(&p.remote, "10.1.0.0/16, ::/0");
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    expect_selected(out, in, "2001:db8:1::5", "2001:db8:2::7", true);
    expect_selected(out, in, "10.8.0.1", "10.9.0.1", false); /* as numbers, they lie in ::/0, where the last one was */
    expect_selected(out, in, "10.1.0.1", "10.2.0.1", true);
    expect_selected(out, in, "::a01:1", "::a02:1", true);
    sa_free(out);
    sa_free(in);
}

static void ports_protocols_and_fragments_are_checked_against_the_selectors(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    selector_of(&p.local, "10.2.0.0/16[udp/53]");
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (unsigned i = 0; i < 5; i++)
        load_ipv4(i, 60);
    put_be16(w.v[1].data + 22, 54);
    w.v[2].data[9] = 6;
    put_be16(w.v[3].data + 6, 0x00b9); /* a fragment other than the first: its ports are not visible */
    w.v[4].len = 23;                   /* no whole port */
    put_be16(w.v[4].data + 2, 23);
    assert_int_equal(seal_all(out, 5), 5);
    assert_int_equal(open_all(in, 5), 1);
    expect_delivered(0);
    for (unsigned i = 1; i < 3; i++)
        expect_drop(i, STAT_DROP_IN_SELECTOR);
    expect_drop(3, STAT_DROP_IN_FRAGMENT);
    expect_drop(4, STAT_DROP_IN_MALFORMED);
    sa_free(out);
    sa_free(in);
}

static void parallel_sas_with_the_same_selectors_all_deliver(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256), q = params_of(GCM256);
    q.spi = 0x22345678;
    struct sa *out[2] = {sa_of(p, SA_OUT), sa_of(q, SA_OUT)}, *in[2] = {sa_of(p, SA_IN), sa_of(q, SA_IN)};
    for (unsigned i = 0; i < 10; i++) {
        load_ipv4(0, 60);
        assert_int_equal(seal_all(out[i & 1], 1), 1);
        assert_int_equal(open_all(in[i & 1], 1), 1);
    }
    for (unsigned i = 0; i < 2; i++) {
        sa_free(out[i]);
        sa_free(in[i]);
    }
}

static void good_and_bad_share_a_batch_without_harm(void **state)
{
    (void)state;
    struct sa_params p = params_of(CHACHA);
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (unsigned i = 0; i < BATCH; i++)
        load_ipv4(i, 60 + i);
    assert_int_equal(seal_all(out, BATCH), BATCH);
    for (unsigned i = 0; i < BATCH; i++) {
        if (i % 4 == 1)
            w.v[i].data[20] ^= 1;
        else if (i % 4 == 2)
            w.v[i].len = i;
    }
    assert_int_equal(open_all(in, BATCH), BATCH / 2);
    for (unsigned i = 0; i < BATCH; i++) {
        if (i % 4 == 1)
            expect_drop(i, STAT_DROP_IN_AUTH);
        else if (i % 4 == 2)
            assert_int_not_equal(w.v[i].verdict, OK);
        else
            expect_delivered(i);
    }
    sa_free(out);
    sa_free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runts_are_dropped_and_counted),
        cmocka_unit_test(any_flipped_bit_fails_and_never_moves_the_window),
        cmocka_unit_test(truncated_icv_is_refused),
        cmocka_unit_test(forged_number_far_ahead_does_not_shut_the_window),
        cmocka_unit_test(of_eight_duplicates_in_a_batch_one_is_accepted),
        cmocka_unit_test(replays_cost_no_decryption),
        cmocka_unit_test(authentic_number_zero_is_rejected),
        cmocka_unit_test(esn_batches_cross_2_32_in_any_order),
        cmocka_unit_test(esn_receiver_refuses_a_second_wrap),
        cmocka_unit_test(wrong_padding_is_dropped_and_right_padding_up_to_255_taken),
        cmocka_unit_test(pad_length_is_not_followed_out_of_the_packet),
        cmocka_unit_test(dummies_are_discarded_and_advance_the_window),
        cmocka_unit_test(tfc_padding_is_cut_off_by_the_inner_length),
        cmocka_unit_test(malformed_inner_packets_are_dropped),
        cmocka_unit_test(inner_addresses_outside_the_selectors_are_dropped),
        cmocka_unit_test(families_are_not_mixed_up),
        cmocka_unit_test(ports_protocols_and_fragments_are_checked_against_the_selectors),
        cmocka_unit_test(parallel_sas_with_the_same_selectors_all_deliver),
        cmocka_unit_test(good_and_bad_share_a_batch_without_harm),
    };
    return cmocka_run_group_tests_name("esp inbound", tests, start_crypto, NULL);
}
