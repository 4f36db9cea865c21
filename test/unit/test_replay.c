/* The anti-replay window and the inference of extended sequence numbers (RFC 4303 section 3.4.3, appendix A). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "esp/replay.h"

static const uint32_t sizes[] = {32, 33, 63, 64, 65, 100, 128, 1000, 1024, 4096, 16384, 65535, 65536};
#define SIZES (sizeof sizes / sizeof sizes[0])

static struct replay window(uint32_t size)
{
    struct replay r;
    assert_int_equal(replay_init(&r, size), OK);
    return r;
}

static void sizes_out_of_range_are_refused(void **state)
{
    (void)state;
    struct replay r;
    assert_int_equal(replay_init(&r, 1), ERR_RANGE);
    assert_int_equal(replay_init(&r, REPLAY_MIN - 1), ERR_RANGE);
    assert_int_equal(replay_init(&r, REPLAY_MAX + 1), ERR_RANGE);
    assert_int_equal(replay_init(&r, UINT32_MAX), ERR_RANGE);
}

static void size_is_at_least_what_was_asked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SIZES; i++) {
        struct replay r = window(sizes[i]);
        assert_true(r.size >= sizes[i] && r.size < sizes[i] + 64 && r.size % 64 == 0);
        replay_fini(&r);
    }
}

static void zero_is_rejected_and_one_is_first(void **state)
{
    (void)state;
    struct replay r = window(64);
    assert_false(replay_check(&r, 0));
    assert_false(replay_commit(&r, 0));
    assert_true(replay_check(&r, 1));
    assert_true(replay_commit(&r, 1));
    assert_false(replay_check(&r, 1));
    assert_false(replay_commit(&r, 0));
    assert_int_equal(r.top, 1);
    replay_fini(&r);
}

static void check_changes_nothing(void **state)
{
    (void)state;
    struct replay r = window(64);
    assert_true(replay_check(&r, 1000));
    assert_true(replay_check(&r, 1000));
    assert_int_equal(r.top, 0);
    assert_true(replay_commit(&r, 1));
    replay_fini(&r);
}

/* After a jump to top, from left edge to top each number is accepted once, and the one before the edge never. */
static void edges(uint32_t size, uint64_t top)
{
    struct replay r = window(size);
    uint64_t left = top - r.size + 1;
    assert_true(replay_commit(&r, top));
    assert_false(replay_commit(&r, top));
    assert_false(replay_check(&r, left - 1));
    assert_false(replay_commit(&r, left - 1));
    for (uint64_t seq = left; seq < top; seq++)
        assert_true(replay_commit(&r, seq));
    for (uint64_t seq = left; seq <= top; seq++)
        assert_false(replay_commit(&r, seq));
    assert_true(replay_commit(&r, top + 1));
    assert_false(replay_commit(&r, left));
    replay_fini(&r);
}

static void left_edge_is_in_and_the_one_before_is_out(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SIZES; i++)
        for (uint64_t off = 0; off < 130; off += 13)
            edges(sizes[i], UINT64_C(1000000) + off);
    edges(64, 65 + 64);
    edges(1024, (UINT64_C(1) << 32) + 10);
    edges(65536, (UINT64_C(1) << 32) + 70000);
}

static void window_at_the_start_reaches_down_to_one(void **state)
{
    (void)state;
    struct replay r = window(1024);
    assert_true(replay_commit(&r, 1000));
    for (uint64_t seq = 1; seq < 1000; seq++)
        assert_true(replay_commit(&r, seq));
    assert_false(replay_commit(&r, 0));
    replay_fini(&r);
}

static void jumps_as_long_as_the_window_and_longer_leave_it_empty(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SIZES; i++) {
        struct replay r = window(sizes[i]);
        uint64_t steps[] = {r.size - 1,          r.size, r.size + 1, 2 * (uint64_t)r.size, 64 * ((uint64_t)r.mask + 1),
                            UINT64_C(1000000007)};
        uint64_t top = 1;
        for (uint64_t seq = 1; seq <= r.size; seq++)
            assert_true(replay_commit(&r, top = seq));
        for (unsigned k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            uint64_t old = top;
            assert_true(replay_commit(&r, top += steps[k]));
            assert_false(replay_commit(&r, top));
            for (uint64_t seq = top - r.size + 1; seq < top; seq++)
                assert_int_equal(replay_commit(&r, seq), seq > old); /* full up to old, empty after it */
        }
        replay_fini(&r);
    }
}

/* A window that remembers every number, by linear search. */
struct model {
    uint64_t seen[20000], top;
    unsigned n;
};

static bool model_commit(struct model *m, uint32_t size, uint64_t seq)
{
    if (seq == 0 || (seq <= m->top && m->top - seq >= size))
        return false;
    for (unsigned i = m->n; i-- > 0;)
        if (m->seen[i] == seq)
            return false;
    m->seen[m->n++] = seq;
    if (seq > m->top)
        m->top = seq;
    return true;
}

static void behaves_like_a_plain_list_under_random_numbers(void **state)
{
    (void)state;
    static struct model m;
    uint64_t x = 88172645463325252u;
    for (unsigned i = 0; i < SIZES; i++) {
        struct replay r = window(sizes[i]);
        memset(&m, 0, sizeof m);
        for (unsigned k = 0; k < 4000; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            uint64_t span = x % 16 == 0 ? 5 * (uint64_t)r.size : r.size / 8 + 70;
            uint64_t base = m.top > span ? m.top - span : 0;
            uint64_t seq = base + (x >> 8) % (2 * span);
            bool want = model_commit(&m, r.size, seq);
            assert_int_equal(replay_check(&r, seq), want);
            assert_int_equal(replay_commit(&r, seq), want);
            assert_int_equal(r.top, m.top);
        }
        replay_fini(&r);
    }
}

static void last_number_of_64_bits_is_the_end(void **state)
{
    (void)state;
    struct replay r = window(64);
    assert_true(replay_commit(&r, UINT64_MAX - 1));
    assert_true(replay_commit(&r, UINT64_MAX));
    assert_false(replay_commit(&r, UINT64_MAX));
    assert_false(replay_commit(&r, 0));
    assert_false(replay_commit(&r, 1));
    assert_true(replay_commit(&r, UINT64_MAX - 63));
    assert_false(replay_commit(&r, UINT64_MAX - 64));
    replay_fini(&r);
}

static void without_protection_every_number_passes(void **state)
{
    (void)state;
    struct replay r = window(0);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(replay_check(&r, 7));
        assert_true(replay_commit(&r, 7));
        assert_true(replay_commit(&r, 0)); /* section 3.4.3: no check at all */
    }
    replay_fini(&r);
}

static void without_esn_the_number_is_what_was_received(void **state)
{
    (void)state;
    struct replay r = window(64);
    assert_true(replay_infer(&r, 0, false) == 0);
    assert_true(replay_infer(&r, UINT32_MAX, false) == UINT32_MAX);
    assert_true(replay_commit(&r, UINT32_MAX));
    assert_true(replay_infer(&r, 1, false) == 1); /* a sender that wrapped is refused, not believed */
    assert_false(replay_check(&r, 1));
    replay_fini(&r);
}

#define T(high, low) (UINT64_C(high) << 32 | UINT64_C(low))

/* Appendix A2.1 and A2.2, window of 64: W - 1 = 63. */
static const struct {
    uint64_t top;
    uint32_t low;
    uint64_t means;
} inferences[] = {
    /* at the start: only case B's upper part exists */
    {0, 1, 1},
    {0, 0, 0},
    {0, 64, 64},
    {0, UINT32_MAX - 63, T(0, 0xffffffc0)},
    {0, UINT32_MAX - 62, 0}, /* would lie before the first number */
    {0, UINT32_MAX, 0},
    {62, UINT32_MAX, 0},
    /* case A: Tl >= W - 1 */
    {63, 0, 0},
    {63, 1, 1},
    {63, UINT32_MAX, UINT32_MAX},
    {64, 1, 1},
    {64, 0, T(1, 0)}, /* left of the window: the next subspace */
    {T(0, 0x80000000), 0x80000001, 0x80000001},
    {T(0, 0x80000000), 0x80000000 - 63, 0x80000000 - 63},
    {T(0, 0x80000000), 0x80000000 - 64, T(1, 0x7fffffc0)},
    {T(0, 0xfffffffe), 0xffffffff, T(0, 0xffffffff)},
    {T(0, 0xffffffff), 0, T(1, 0)}, /* a low half of 0 after the wrap is valid */
    {T(0, 0xffffffff), 5, T(1, 5)},
    {T(7, 63), 0, T(7, 0)},
    {T(7, 63), UINT32_MAX, T(7, 0xffffffff)},
    /* case B: Tl < W - 1, the window spans two subspaces */
    {T(1, 0), 0, T(1, 0)},
    {T(1, 0), UINT32_MAX, T(0, 0xffffffff)},
    {T(1, 0), UINT32_MAX - 62, T(0, 0xffffffc1)}, /* left edge */
    {T(1, 0), UINT32_MAX - 63, T(1, 0xffffffc0)}, /* left of it: 2^32 ahead */
    {T(1, 10), 11, T(1, 11)},
    {T(1, 10), UINT32_MAX - 52, T(0, 0xffffffcb)},
    {T(1, 10), UINT32_MAX - 53, T(1, 0xffffffca)},
    {T(9, 62), UINT32_MAX, T(8, 0xffffffff)},
    /* the end: a second wrap is refused */
    {T(0xffffffff, 0xfffffff0), 0xffffffff, T(0xffffffff, 0xffffffff)},
    {T(0xffffffff, 0xfffffff0), 0, 0},
    {T(0xffffffff, 0xffffffff), 1, 0},
    {T(0xffffffff, 0xffffffff), 0xffffffff, T(0xffffffff, 0xffffffff)},
};

static void esn_inference_follows_appendix_a(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof inferences / sizeof inferences[0]; i++) {
        struct replay r = window(64);
        r.top = inferences[i].top;
        uint64_t got = replay_infer(&r, inferences[i].low, true);
        if (got != inferences[i].means)
            fail_msg("row %u: got %#llx", i, (unsigned long long)got);
        replay_fini(&r);
    }
}

static void esn_inference_finds_every_number_within_reach(void **state)
{
    (void)state;
    static const uint64_t tops[] = {T(0, 1),          T(0, 100000),  T(0, 0xffffffff), T(1, 0),
                                    T(1, 0x10000),    T(5, 1),       T(5, 65535),      T(5, 65536),
                                    T(5, 0x7fffffff), T(0xfff0, 12), T(0xffffffff, 0), T(0xffffffff, 0xffffff)};
    for (unsigned i = 0; i < SIZES; i++) {
        struct replay r = window(sizes[i]);
        for (unsigned k = 0; k < sizeof tops / sizeof tops[0]; k++) {
            r.top = tops[k];
            uint64_t left = r.top >= r.size ? r.top - r.size + 1 : 1;
            uint64_t right = left + UINT32_MAX;
            uint64_t seqs[] = {left, left + 1, r.top, r.top + 1, r.top + 63, r.top + 0x7fffffff, right - 1, right};
            for (unsigned m = 0; m < sizeof seqs / sizeof seqs[0]; m++)
                if (seqs[m] >= left && (r.top >= r.size || seqs[m] <= right - r.size))
                    assert_true(replay_infer(&r, (uint32_t)seqs[m], true) == seqs[m]);
        }
        replay_fini(&r);
    }
}

static void esn_crosses_the_wrap_in_any_order(void **state)
{
    (void)state;
    struct replay r = window(128);
    uint64_t start = T(0, 0xffffffff) - 200;
    for (unsigned step = 0; step < 400; step += 4) {
        static const unsigned order[4] = {2, 0, 3, 1};
        for (unsigned k = 0; k < 4; k++) {
            uint64_t seq = start + step + order[k];
            assert_true(replay_infer(&r, (uint32_t)seq, true) == seq);
            assert_true(replay_commit(&r, seq));
            assert_false(replay_check(&r, replay_infer(&r, (uint32_t)seq, true)));
        }
    }
    replay_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_out_of_range_are_refused),
        cmocka_unit_test(size_is_at_least_what_was_asked),
        cmocka_unit_test(zero_is_rejected_and_one_is_first),
        cmocka_unit_test(check_changes_nothing),
        cmocka_unit_test(left_edge_is_in_and_the_one_before_is_out),
        cmocka_unit_test(window_at_the_start_reaches_down_to_one),
        cmocka_unit_test(jumps_as_long_as_the_window_and_longer_leave_it_empty),
        cmocka_unit_test(behaves_like_a_plain_list_under_random_numbers),
        cmocka_unit_test(last_number_of_64_bits_is_the_end),
        cmocka_unit_test(without_protection_every_number_passes),
        cmocka_unit_test(without_esn_the_number_is_what_was_received),
        cmocka_unit_test(esn_inference_follows_appendix_a),
        cmocka_unit_test(esn_inference_finds_every_number_within_reach),
        cmocka_unit_test(esn_crosses_the_wrap_in_any_order),
    };
    return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
