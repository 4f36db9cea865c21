/*
 * Whole ESP packets against the anti-replay window, by batches, around every edge there is: the window's own, the wrap of
 * the low half, the end of the numbers (RFC 4303 section 3.4.3, appendix A), also while the window changes its size. A
 * seed is printed with each failure. ADIT_SEED=N begins with another one, ADIT_ROUNDS=N tries more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "test/unit/packets.h"

#include "test/unit/esp_wire.h"

#define LEN 40u
#define T(high, low) ((uint64_t)(high) << 32 | (uint64_t)(low))

static const uint32_t windows[] = {32, 64, 128, 1024, 65536};
#define WINDOWS (sizeof windows / sizeof windows[0])

/* The two ends of one SA. */
struct pair {
    struct sa *out, *in;
    uint64_t window; /* as it came out, rounded */
};

static struct pair pair_of(unsigned suite, bool esn, uint32_t window)
{
    struct sa_params p = params_of(suite);
    p.esn = esn;
    p.replay_window = window;
    struct pair s = {.out = sa_of(p, SA_OUT), .in = sa_of(p, SA_IN)};
    s.window = s.in->replay.size;
    return s;
}

static void pair_free(struct pair *s)
{
    sa_free(s->out);
    sa_free(s->in);
}

/* Packet i of the next batch is one with that number, as a sender that has come there would send it. */
static void put(struct pair *s, unsigned i, uint64_t seq)
{
    struct esp_packet before[BATCH];
    memcpy(before, w.v, sizeof before);
    load_ipv4(0, LEN); /* a batch of one is sealed at the beginning of v, its bytes are moved to where they belong */
    s->out->seq = seq - 1;
    assert_int_equal(seal_all(s->out, 1), 1);
    struct esp_packet sealed = w.v[0];
    memcpy(w.v, before, sizeof before);
    memmove(w.got[i] + HEAD, sealed.data, sealed.len);
    w.v[i] = (struct esp_packet){.data = w.got[i] + HEAD, .len = sealed.len};
}

/* Opens what was put; the inner packets go elsewhere. */
static unsigned take(struct pair *s, unsigned n)
{
    static uint8_t inner[BATCH][ROOM];
    unsigned events;
    for (unsigned i = 0; i < n; i++)
        w.v[i].dst = inner[i];
    return esp_open(s->in, w.v, n, 6, &events);
}

/* Opens a batch of those numbers and compares with what is wanted of each: '+' delivered, 'r' replay, 'a' forged. */
static void expect(struct pair *s, const char *want, const uint64_t *seq)
{
    unsigned n = (unsigned)strlen(want);
    for (unsigned i = 0; i < n; i++)
        put(s, i, seq[i]);
    (void)take(s, n);
    for (unsigned i = 0; i < n; i++) {
        char got = w.v[i].verdict == OK ? '+' : w.v[i].drop == STAT_DROP_IN_REPLAY ? 'r' : 'a';
        if (got != want[i] || (got == 'a' && w.v[i].drop != STAT_DROP_IN_AUTH))
            fail_msg("window %llu, packet %u of \"%s\", number %#llx: %c", (unsigned long long)s->window, i, want,
                     (unsigned long long)seq[i], got);
    }
}

#define EXPECT(s, want, ...)                          \
    expect(s, want, (const uint64_t[]){__VA_ARGS__}); \
    assert_int_equal(sizeof(want) - 1, sizeof((uint64_t[]){__VA_ARGS__}) / 8)

static void edges_of_each_window(void **state)
{
    (void)state;
    for (unsigned k = 0; k < WINDOWS * 2; k++) {
        bool esn = k & 1;
        struct pair s = pair_of(k % SUITES, esn, windows[k / 2]);
        uint64_t size = s.window, top = 200000;
        EXPECT(&s, "+", top);
        /* Left of the window: with ESN that is taken for a number 2^32 on, which fails. */
        expect(&s, esn ? "ra+r" : "rr+r", (const uint64_t[]){top, top - size, top - size + 1, top - size + 1});
        EXPECT(&s, "+", top + 1); /* moves it by one */
        expect(&s, esn ? "a+" : "r+", (const uint64_t[]){top - size + 1, top - size + 2});
        uint64_t last = top + 1;
        top = last + size; /* a jump of the whole window: all before is gone, all of the new one is free */
        EXPECT(&s, "+", top);
        expect(&s, esn ? "a+r+" : "r+r+", (const uint64_t[]){last, top - size + 1, top - size + 1, top - 1});
        top += 3 * size + 5;
        EXPECT(&s, "+++r", top, top - size + 1, top - 1, top - 1);
        pair_free(&s);
    }
}

static void the_low_half_wraps_inside_one_batch(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct pair s = pair_of(k, true, windows[k % WINDOWS]);
        uint64_t wrap = T(1 + k, 0);
        s.in->replay.top = wrap - 4;
        EXPECT(&s, "++++++", wrap - 3, wrap - 2, wrap - 1, wrap, wrap + 1, wrap + 2);
        EXPECT(&s, "rrrrrr", wrap - 3, wrap - 2, wrap - 1, wrap, wrap + 1, wrap + 2);
        /* And to and fro across it, out of order: each number has its own high half. */
        pair_free(&s);
        s = pair_of(k, true, windows[k % WINDOWS]);
        s.in->replay.top = wrap - 20;
        EXPECT(&s, "+++++r+r", wrap + 3, wrap - 3, wrap + 1, wrap - 1, wrap, wrap, wrap - 2, wrap - 1);
        assert_true(s.in->replay.top == wrap + 3);
        pair_free(&s);
    }
}

static void of_numbers_2_32_apart_one_is_meant(void **state)
{
    (void)state;
    for (unsigned k = 0; k < WINDOWS; k++) {
        struct pair s = pair_of(GCM256, true, windows[k]);
        uint64_t size = s.window, top = T(3, 0x1000);
        s.in->replay.top = top;
        /* Left of the window counts as the next round, and what is a round too late or too early fails. */
        EXPECT(&s, "aaa", top - size, top - T(1, 0), top + T(1, 0) + 1);
        assert_true(s.in->replay.top == top);
        EXPECT(&s, "+", top + T(1, 0) - size); /* the furthest that can be meant */
        assert_true(s.in->replay.top == top + T(1, 0) - size);
        EXPECT(&s, "a", top + 1); /* so that one is lost for good */
        pair_free(&s);
    }
}

static void the_last_number_is_the_end(void **state)
{
    (void)state;
    for (unsigned k = 0; k < WINDOWS; k++) {
        struct pair s = pair_of(CHACHA, true, windows[k]);
        uint64_t size = s.window;
        s.in->replay.top = UINT64_MAX - 3;
        EXPECT(&s, "++", UINT64_MAX - 1, UINT64_MAX);
        EXPECT(&s, "rrr", UINT64_MAX, 1, size); /* a second wrap */
        EXPECT(&s, "+", UINT64_MAX - size + 1);
        assert_true(s.in->replay.top == UINT64_MAX);
        pair_free(&s);
        s = pair_of(CHACHA, false, windows[k]);
        s.in->replay.top = UINT32_MAX - 1;
        EXPECT(&s, "+rr+", UINT32_MAX, UINT32_MAX, 1,
               UINT32_MAX - s.window + 1); /* without ESN the first is one too many */
        pair_free(&s);
    }
}

/* Nothing is below number 1, though with ESN the window would reach there by arithmetic modulo 2^32. */
static void the_first_window_has_nothing_before_it(void **state)
{
    (void)state;
    for (unsigned k = 0; k < WINDOWS; k++) {
        struct pair s = pair_of(GCM128, true, windows[k]);
        EXPECT(&s, "rr", UINT32_MAX, UINT32_MAX - s.window + 2);
        EXPECT(&s, "+", 2);
        EXPECT(&s, "rr+", UINT32_MAX, 2, 1);
        EXPECT(&s, "r+", 1, s.window);
        pair_free(&s);
    }
}

static void a_batch_of_one_number_gives_one_packet(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct pair s = pair_of(k, k & 1, windows[k % WINDOWS]);
        for (unsigned i = 0; i < 8; i++)
            put(&s, i, 9);
        assert_int_equal(take(&s, 8), 1);
        assert_int_equal(w.v[0].verdict, OK);
        for (unsigned i = 1; i < 8; i++)
            expect_drop(i, STAT_DROP_IN_REPLAY);
        assert_int_equal(s.in->packets, 1);
        pair_free(&s);
    }
}

/* -- another size while packets come -- */

static void a_larger_window_takes_what_is_late_from_now_on(void **state)
{
    (void)state;
    struct pair s = pair_of(GCM256, false, 64);
    EXPECT(&s, "+++", 1000, 998, 1064);
    assert_int_equal(sa_resize(s.in, 1024), OK);
    s.window = 1024;
    EXPECT(&s, "rrr", 1064, 1000, 998); /* what has been seen, some of it left of the old window by now */
    EXPECT(&s, "r", 700);               /* nobody knows */
    EXPECT(&s, "++", 1063, 1064 - 63);  /* within the old window, and new */
    EXPECT(&s, "+++r", 2000, 1065, 1400, 2000 - 1024);
    pair_free(&s);
}

static void a_smaller_window_forgets_only_what_it_leaves_out(void **state)
{
    (void)state;
    struct pair s = pair_of(CHACHA, true, 65536);
    s.in->replay.top = T(0, 0xffffff00);
    EXPECT(&s, "+++", T(1, 5), T(0, 0xfffffff0), T(1, 2));
    assert_int_equal(sa_resize(s.in, 32), OK);
    assert_int_equal(s.in->replay.size, 64);
    EXPECT(&s, "rrra", T(1, 5), T(0, 0xfffffff0), T(1, 2), T(1, 5) - 64);
    EXPECT(&s, "++", T(1, 5) - 63, T(1, 4));
    pair_free(&s);
}

static void sizes_that_are_none_change_nothing(void **state)
{
    (void)state;
    struct pair s = pair_of(GCM256, false, 128);
    EXPECT(&s, "+", 5);
    assert_int_equal(sa_resize(s.in, 0), ERR_RANGE);
    assert_int_equal(sa_resize(s.in, 31), ERR_RANGE);
    assert_int_equal(sa_resize(s.in, 65537), ERR_RANGE);
    assert_int_equal(s.in->replay.size, 128);
    EXPECT(&s, "r+", 5, 4);
    pair_free(&s);
}

/* -- against a model -- */

#define SEEN (1u << 16)
#define POOL 512u

/* All numbers ever accepted, in a table; what is known of the window besides. */
struct model {
    uint64_t seen[SEEN], top, size;
    uint64_t sure; /* below it a larger window may refuse what it has not seen */
    unsigned count;
    bool esn;
};

struct kept { /* a packet that was sealed, to come late or again */
    uint64_t seq;
    uint32_t len;
    uint8_t bytes[128];
};

static struct model m;
static struct kept pool[POOL];
static uint64_t rnd;

static uint64_t *place(uint64_t seq)
{
    uint64_t i = seq * UINT64_C(0x9e3779b97f4a7c15) >> 48;
    while (m.seen[i % SEEN] && m.seen[i % SEEN] != seq)
        i++;
    return &m.seen[i % SEEN];
}

/* Whether the receiver, with its window ending at top, can take the low half for that number. */
static bool meant(uint64_t top, uint64_t seq)
{
    if (!m.esn)
        return seq <= UINT32_MAX;
    uint64_t left = top >= m.size ? top - m.size + 1 : 1;
    uint64_t reach = top >= m.size - 1 ? left + UINT32_MAX : top + UINT32_MAX - (m.size - 1) + 1;
    return seq >= left && (seq <= reach || reach < left); /* the last round has no end */
}

/* What has to happen to an unaltered packet: 1 delivered, 0 dropped, -1 either. */
static int wanted(uint64_t top_before, uint64_t seq)
{
    if (seq == 0 || !meant(top_before, seq) || *place(seq) == seq || (seq <= m.top && m.top - seq >= m.size))
        return 0;
    return seq < m.sure ? -1 : 1;
}

static void model_accept(uint64_t seq)
{
    *place(seq) = seq;
    m.count++;
    if (seq > m.top)
        m.top = seq;
}

/* The next number that a sender might use: mostly the next one, sometimes far on, sometimes just before a wrap. */
static uint64_t next_number(uint64_t last)
{
    uint64_t jumps[] = {m.size - 1, m.size, m.size + 1, 64, 2 * m.size, 100000, UINT32_MAX / 2};
    uint32_t r = packet_random(&rnd) % 64;
    uint64_t step = r < 48 ? 1 : r < 60 ? 1 + packet_random(&rnd) % 8 : jumps[packet_random(&rnd) % (m.esn ? 7 : 6)];
    if (m.esn && r == 63 && packet_random(&rnd) % 2)
        step = (uint64_t)UINT32_MAX - (uint32_t)last + 1 + packet_random(&rnd) % 3; /* to the wrap */
    uint64_t end = m.esn ? UINT64_MAX : UINT32_MAX;
    return step > end - last ? last : last + step; /* at the end the same once more */
}

/* A batch of new, late, repeated and altered packets; returns the highest number sent. */
static uint64_t random_batch(struct pair *s, uint64_t last, unsigned seed)
{
    unsigned n = 1 + packet_random(&rnd) % BATCH;
    uint64_t seq[BATCH], top = m.top;
    bool altered[BATCH];
    for (unsigned i = 0; i < n; i++) {
        struct kept *k = &pool[packet_random(&rnd) % POOL];
        uint32_t r = packet_random(&rnd) % 100;
        if (r < 70 || k->len == 0) {
            k->seq = last = next_number(last);
            put(s, i, last);
            k->len = w.v[i].len;
            memcpy(k->bytes, w.v[i].data, k->len);
        }
        seq[i] = k->seq;
        altered[i] = r >= 95;
        memcpy(w.got[i], k->bytes, k->len);
        if (altered[i])
            w.got[i][packet_random(&rnd) % k->len] ^= (uint8_t)(1u << packet_random(&rnd) % 8);
        w.v[i] = (struct esp_packet){.data = w.got[i], .len = k->len};
    }
    for (unsigned i = n; i-- > 1;) { /* some of it out of order */
        unsigned j = packet_random(&rnd) % 4 ? i : packet_random(&rnd) % (i + 1);
        struct esp_packet p = w.v[i];
        uint64_t q = seq[i];
        bool a = altered[i];
        w.v[i] = w.v[j], seq[i] = seq[j], altered[i] = altered[j];
        w.v[j] = p, seq[j] = q, altered[j] = a;
    }
    (void)take(s, n);
    for (unsigned i = 0; i < n; i++) {
        int want = altered[i] ? 0 : wanted(top, seq[i]);
        bool got = w.v[i].verdict == OK;
        if (want != -1 && got != want)
            fail_msg("seed %u: number %#llx is %s, top %#llx, window %llu", seed, (unsigned long long)seq[i],
                     got ? "delivered" : "dropped", (unsigned long long)m.top, (unsigned long long)m.size);
        if (got)
            model_accept(seq[i]);
    }
    if (s->in->replay.top != m.top)
        fail_msg("seed %u: the window ends at %#llx, not %#llx", seed, (unsigned long long)s->in->replay.top,
                 (unsigned long long)m.top);
    return last;
}

static void random_resize(struct pair *s)
{
    uint32_t size = windows[packet_random(&rnd) % WINDOWS];
    uint64_t left = m.top >= m.size ? m.top - m.size + 1 : 1;
    assert_int_equal(sa_resize(s->in, size), OK);
    if (s->in->replay.size > m.size && left > m.sure)
        m.sure = left;
    m.size = s->in->replay.size;
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void it_does_what_a_plain_list_does(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 0, T(0, 0xffffff00), T(0, 0xfffffff0), T(6, 0xffffffc0), UINT64_MAX - 3000};
    unsigned rounds = from_environment("ADIT_ROUNDS", 60), first = from_environment("ADIT_SEED", 1), delivered = 0;
    for (unsigned seed = first; seed < first + rounds; seed++) {
        rnd = seed * UINT64_C(0x9e3779b97f4a7c15);
        memset(&m, 0, sizeof m);
        memset(pool, 0, sizeof pool);
        m.esn = packet_random(&rnd) % 3;
        struct pair s = pair_of(packet_random(&rnd) % SUITES, m.esn, windows[packet_random(&rnd) % WINDOWS]);
        m.size = s.window;
        uint64_t last = starts[packet_random(&rnd) % (m.esn ? 6 : 4)];
        if (!m.esn && last > UINT32_MAX)
            last = 0;
        s.in->replay.top = m.top = last;
        for (unsigned i = 0; i < 100; i++) {
            uint64_t top = m.top;
            last = random_batch(&s, last, seed);
            if (m.top == top) /* the sender has gone too far ahead */
                last = top;
            if (packet_random(&rnd) % 16 == 0)
                random_resize(&s);
        }
        assert_int_equal(s.in->packets, m.count);
        delivered += m.count;
        pair_free(&s);
    }
    printf("seeds %u to %u, %u delivered\n", first, first + rounds - 1, delivered);
    assert_true(delivered > rounds * 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edges_of_each_window),
        cmocka_unit_test(the_low_half_wraps_inside_one_batch),
        cmocka_unit_test(of_numbers_2_32_apart_one_is_meant),
        cmocka_unit_test(the_last_number_is_the_end),
        cmocka_unit_test(the_first_window_has_nothing_before_it),
        cmocka_unit_test(a_batch_of_one_number_gives_one_packet),
        cmocka_unit_test(a_larger_window_takes_what_is_late_from_now_on),
        cmocka_unit_test(a_smaller_window_forgets_only_what_it_leaves_out),
        cmocka_unit_test(sizes_that_are_none_change_nothing),
        cmocka_unit_test(it_does_what_a_plain_list_does),
    };
    return cmocka_run_group_tests_name("replay torture", tests, start_crypto, NULL);
}
