/*
 * The compiled SPD (policy/classifier.h) against a walk of the policies: random ones, and sets that are hard on
 * classifiers; and that neither making it nor asking it takes long.
 *
 * A seed is printed with each failure. ADIT_SEED=N begins with another one, ADIT_ROUNDS=N tries more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/clock.h"
#include "policy/spd.h"

#define MANY 100000

static uint64_t state;

static unsigned any_number(unsigned below)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((state >> 33) % below);
}

static unsigned from_environment(const char *name, unsigned usual)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : usual;
}

/* -- the oracle -- */

static bool matches(const struct spd_entry *e, const struct flow *f, bool out)
{
    return (out ? selectors_match_out : selectors_match_in)(e->local, e->remote, f);
}

static const struct spd_entry *walk(const struct spd *s, const struct flow *f, bool out)
{
    for (unsigned i = 0; i < spd_count(s); i++)
        if (matches(spd_at(s, i), f, out))
            return spd_at(s, i);
    return NULL;
}

static void agree(const struct spd *s, const struct flow *f, uint64_t seed)
{
    for (unsigned out = 0; out < 2; out++) {
        const struct spd_entry *expected = walk(s, f, out), *found = (out ? spd_lookup_out : spd_lookup_in)(s, f);
        char a[IP_TEXT], b[IP_TEXT];
        if (found == expected)
            continue;
        fail_msg("seed %llu, %u policies: %s %u > %s %u, protocol %u, %s: found entry %d, expected %d",
                 (unsigned long long)seed, spd_count(s), ip_format(&f->src, a), f->src_port, ip_format(&f->dst, b),
                 f->dst_port, f->proto, out ? "out" : "in", found ? (int)(found - spd_at(s, 0)) : -1,
                 expected ? (int)(expected - spd_at(s, 0)) : -1);
    }
}

/* -- random policies and packets -- */

/* How crowded the world of one round is: addresses differ in some bits only, of the first byte and of the last ones. */
struct world {
    uint32_t bits;        /* of an IPv4 address, and of each word of an IPv6 one, that differ */
    unsigned six, ranges; /* of 8 addresses are IPv6; of 8 selectors are no prefixes */
    unsigned ports, protos, lists;
};

static struct world any_world(void)
{
    static const uint32_t bits[] = {0x00000007, 0x03000103, 0xf00000ff, 0xffffffff, 0x000f000f};
    return (struct world){.bits = bits[any_number(5)],
                          .six = any_number(3) * 4,
                          .ranges = any_number(3) * 3,
                          .ports = 2 + any_number(8),
                          .protos = 1 + any_number(8),
                          .lists = 1 + any_number(3) * any_number(2)};
}

static struct ip any_ip(const struct world *w, bool six)
{
    uint8_t b[16] = {10};
    for (unsigned i = 0; i < (six ? 4 : 1); i++)
        put_be32(b + 4 * i, (any_number(1u << 31) << 1 ^ any_number(1u << 31)) & w->bits);
    return ip_from_bytes(six ? 6 : 4, b);
}

static struct ip_range any_range(const struct world *w, bool six)
{
    struct prefix p = {.ip = any_ip(w, six)};
    struct ip other = any_ip(w, six);
    if (any_number(8) < w->ranges)
        return ip_compare(&p.ip, &other) < 0 ? (struct ip_range){p.ip, other} : (struct ip_range){other, p.ip};
    unsigned max = six ? 128 : 32;
    p.bits = (uint8_t)(any_number(2) ? max - any_number(4) : any_number(max + 1));
    return prefix_range(&p);
}

static uint8_t any_proto(const struct world *w)
{
    static const uint8_t protos[] = {6, 17, 1, 50, 135, 58, 132, 0};
    return protos[any_number(w->protos)];
}

static struct selector any_selector(const struct world *w)
{
    struct selector s = {.range = any_range(w, any_number(8) < w->six),
                         .proto = any_number(3) ? any_proto(w) : 0,
                         .port_last = UINT16_MAX};
    uint16_t a = (uint16_t)any_number(w->ports), b = (uint16_t)any_number(w->ports);
    switch (any_number(5)) {
    case 0: /* OPAQUE */
        s.port_first = UINT16_MAX;
        s.port_last = 0;
        break;
    case 1:
        s.port_first = s.port_last = a;
        break;
    case 2:
        s.port_first = a < b ? a : b;
        s.port_last = a < b ? b : any_number(4) ? a : UINT16_MAX;
        break;
    default:
        break;
    }
    return s;
}

static void any_selectors(const struct world *w, struct selectors *out)
{
    out->n = (uint8_t)(any_number(20) ? 1 + any_number(w->lists) : any_number(SELECTORS_MAX + 1));
    for (unsigned i = 0; i < out->n; i++)
        out->v[i] = any_selector(w);
}

static struct flow any_flow(const struct world *w)
{
    bool six = any_number(8) < w->six;
    struct flow f = {.src = any_ip(w, six), .dst = any_ip(w, six), .proto = any_proto(w)};
    f.ports_known = f.proto != 50 && f.proto != 0 && any_number(6);
    if (f.ports_known) {
        f.src_port = (uint16_t)any_number(w->ports);
        f.dst_port = selector_sender_only(f.proto) ? f.src_port : (uint16_t)any_number(w->ports);
    }
    return f;
}

/* Where policies begin and end, and next to it. */
static struct flow edge_flow(const struct world *w, const struct policy *p)
{
    struct flow f = any_flow(w);
    if (!p->local.n || !p->remote.n)
        return f;
    const struct ip_range *l = &p->local.v[any_number(p->local.n)].range,
                          *r = &p->remote.v[any_number(p->remote.n)].range;
    if (l->first.family != f.src.family || r->first.family != f.src.family)
        return f;
    struct ip local = any_number(2) ? l->first : l->last, remote = any_number(2) ? r->first : r->last;
    if (any_number(8) == 0)
        local.b[ip_len(local.family) - 1] ^= 1;
    if (any_number(8) == 0)
        remote.b[ip_len(remote.family) - 1] ^= 1;
    bool out = any_number(2);
    f.src = out ? local : remote;
    f.dst = out ? remote : local;
    return f;
}

static struct spd *compiled(const struct policy *p, unsigned n)
{
    struct spd_entry *e = calloc(n + 1, sizeof(*e));
    struct spd *s;
    assert_non_null(e);
    for (unsigned i = 0; i < n; i++)
        e[i] = (struct spd_entry){.policy = &p[i], .id = i};
    assert_int_equal(spd_new(&s, e, n), OK);
    free(e);
    return s;
}

/* Nothing of an entry that says it is not overlapped is taken by an earlier one. */
static void overlaps_are_told(const struct spd *s, const struct flow *f, uint64_t seed)
{
    for (unsigned i = 0, met = 0; i < spd_count(s); i++) {
        if (!matches(spd_at(s, i), f, false))
            continue;
        if (met++ && !spd_at(s, i)->overlapped)
            fail_msg("seed %llu: entry %u is overlapped and does not say so", (unsigned long long)seed, i);
    }
}

static void one_round(struct policy *p, unsigned n, unsigned flows, uint64_t seed, unsigned *hits)
{
    state = seed * UINT64_C(0x9e3779b97f4a7c15);
    struct world w = any_world();
    for (unsigned i = 0; i < n; i++) {
        any_selectors(&w, &p[i].local);
        any_selectors(&w, &p[i].remote);
        if (i > 0 && any_number(8) == 0)
            p[i].remote = p[any_number(i)].remote;
    }
    struct spd *s = compiled(p, n);
    for (unsigned i = 0; i < flows; i++) {
        struct flow f = any_number(2) ? any_flow(&w) : edge_flow(&w, &p[any_number(n)]);
        agree(s, &f, seed);
        *hits += walk(s, &f, true) != NULL;
        if (i % 16 == 0)
            overlaps_are_told(s, &f, seed);
    }
    spd_free(s);
}

static void what_is_compiled_says_what_a_walk_says(void **unused)
{
    (void)unused;
    unsigned rounds = from_environment("ADIT_ROUNDS", 300), first = from_environment("ADIT_SEED", 1), hits = 0;
    struct policy *p = calloc(2000, sizeof(*p));
    assert_non_null(p);
    for (unsigned i = 0; i < rounds; i++)
        one_round(p, 1 + (first + i) * 37 % 300, 500, first + i, &hits);
    for (unsigned i = 0; i < rounds / 50; i++)
        one_round(p, 2000, 200, first + rounds + i, &hits);
    printf("seeds %u to %u, %u flows, %u of them match\n", first, first + rounds + rounds / 50 - 1,
           rounds * 500 + rounds / 50 * 200, hits);
    assert_in_range(hits, rounds * 100, rounds * 450);
    free(p);
}

static bool meet(const struct selectors *a, const struct selectors *b)
{
    struct selector common;
    for (unsigned i = 0; i < a->n; i++)
        for (unsigned k = 0; k < b->n; k++)
            if (selector_intersect(&a->v[i], &b->v[k], &common))
                return true;
    return false;
}

/* With plain selectors, and few of them, exactly; so nobody's packets are looked up without need. */
static void overlaps_are_told_only_where_they_are(void **unused)
{
    (void)unused;
    static struct policy p[60];
    struct world w = {.bits = 0x0300ffff, .ports = 8, .protos = 2, .lists = 1};
    unsigned overlapped = 0;
    state = 4301;
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 60; i++) {
            uint8_t proto = any_number(2) ? 6 : 17;
            p[i].local.n = p[i].remote.n = 1;
            p[i].local.v[0] = (struct selector){.range = any_range(&w, false), .proto = proto, .port_last = UINT16_MAX};
            p[i].remote.v[0] =
                (struct selector){.range = any_range(&w, false), .proto = proto, .port_last = UINT16_MAX};
            p[i].remote.v[0].port_first = p[i].remote.v[0].port_last = (uint16_t)any_number(4);
        }
        struct spd *s = compiled(p, 60);
        for (unsigned i = 0; i < 60; i++) {
            bool expected = false;
            for (unsigned k = 0; k < i && !expected; k++)
                expected = meet(&p[i].local, &p[k].local) && meet(&p[i].remote, &p[k].remote);
            assert_int_equal(spd_at(s, i)->overlapped, expected);
            overlapped += expected;
        }
        spd_free(s);
    }
    assert_in_range(overlapped, 600, 5400);
}

/* -- hard sets, and large ones -- */

static struct ip ip4(uint32_t number)
{
    uint8_t b[4];
    put_be32(b, number);
    return ip_from_bytes(4, b);
}

static struct ip ip6(uint32_t number)
{
    uint8_t b[16] = {0x20, 1, 0x0d, 0xb8};
    put_be32(b + 8, number); /* ranges that are no prefixes */
    return ip_from_bytes(6, b);
}

static void set(struct selectors *list, struct ip first, struct ip last, uint8_t proto, uint16_t port, uint16_t to)
{
    list->n = 1;
    list->v[0] = (struct selector){.range = {first, last}, .proto = proto, .port_first = port, .port_last = to};
}

/* One of the i-th of n policies' sides. */
struct side {
    uint32_t first, last;
    uint8_t proto;
    uint16_t port, to;
};

#define WHOLE UINT32_MAX
#define ANY_PORT 0, UINT16_MAX

struct hard {
    const char *name;
    void (*sides)(uint32_t i, uint32_t n, struct side *local, struct side *remote);
    uint32_t local, remote; /* packets come from addresses below, and go to them */
    uint16_t ports;         /* below */
};

static void hosts(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    (void)n;
    *local = (struct side){0, WHOLE, 0, ANY_PORT};
    *remote = (struct side){i, i, 0, ANY_PORT};
}

static void ports(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    (void)n;
    uint8_t proto = i & 1 ? 6 : 17;
    *local = (struct side){0, WHOLE, proto, ANY_PORT};
    *remote = (struct side){0, 7, proto, (uint16_t)(i >> 1), (uint16_t)(i >> 1)};
}

static void alike(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    (void)i;
    (void)n;
    *local = *remote = (struct side){5, 7, 6, ANY_PORT};
}

static void steps(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    *local = (struct side){n - 1 - i, n, 0, ANY_PORT};
    *remote = (struct side){1, n, 0, ANY_PORT};
}

static void shells(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    *local = (struct side){n - 1 - i, n + i, 0, ANY_PORT};
    *remote = (struct side){n - 1 - i, n + i, 0, ANY_PORT};
}

/* Each reaches over all that are shorter on one side and longer on the other; none has what lies beyond the diagonal. */
static void diagonal(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    *local = (struct side){0, i, 0, ANY_PORT};
    *remote = (struct side){0, n - i, 0, ANY_PORT};
}

/* Crossing lines: every policy of one half meets every one of the other. */
static void crosses(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    struct side line = {i * 3, i * 3, 0, ANY_PORT}, all = {0, WHOLE, 0, ANY_PORT};
    (void)n;
    *local = i & 1 ? line : all;
    *remote = i & 1 ? all : line;
}

/* Prefixes of every length within one another, the shorter later. */
static void nests(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    uint32_t bits = i * UINT64_C(17) / n, low = (1u << bits) - 1, at = i * 2654435761u % n & ~low;
    *local = (struct side){at, at | low, 0, ANY_PORT};
    at = i * 40503u % n & ~low;
    *remote = (struct side){at, at | low, 6, (uint16_t)(i % 5), (uint16_t)(i % 5 + bits)};
}

/* Services of all hosts behind those of single ones: none meets another, but that takes a look at every host to tell. */
static void services(uint32_t i, uint32_t n, struct side *local, struct side *remote)
{
    uint8_t proto = i & 1 ? 6 : 17;
    *local = (struct side){0, WHOLE, 0, ANY_PORT};
    uint16_t port = i & 2 ? 5 : 60000;
    *remote = (struct side){i >> 1, i >> 1, proto, port, port};
    if (i >= n / 2)
        *remote = (struct side){0, WHOLE, proto, (uint16_t)(6 + i / 2 % 50000), (uint16_t)(6 + i / 2 % 50000)};
}

static const struct hard sets[] = {
    {"hosts", hosts, 10, MANY + 100, 10},
    {"ports", ports, 10, 10, UINT16_MAX},
    {"all alike", alike, 10, 10, 10},
    {"steps", steps, MANY + 100, 10, 10},
    {"shells", shells, 2 * MANY, 2 * MANY, 10},
    {"diagonal", diagonal, MANY + 100, MANY + 100, 10},
    {"crosses", crosses, 3 * MANY, 3 * MANY, 3},
    {"nested prefixes", nests, MANY, MANY, 30},
    {"services", services, 10, MANY, 50000},
};
#define SETS (sizeof(sets) / sizeof(sets[0]))

static void fill(struct policy *p, unsigned n, const struct hard *h, bool six)
{
    struct ip (*address)(uint32_t) = six ? ip6 : ip4;
    for (unsigned i = 0; i < n; i++) {
        struct side l, r;
        h->sides(i, n, &l, &r);
        set(&p[i].local, address(l.first), address(l.last), l.proto, l.port, l.to);
        set(&p[i].remote, address(r.first), address(r.last), r.proto, r.port, r.to);
    }
}

static struct flow hard_flow(const struct hard *h, unsigned share, bool six)
{
    struct ip (*address)(uint32_t) = six ? ip6 : ip4;
    return (struct flow){.src = address(any_number(h->local / share + 1)),
                         .dst = address(any_number(h->remote / share + 1)),
                         .proto = any_number(2) ? 6 : 17,
                         .src_port = (uint16_t)any_number(h->ports),
                         .dst_port = (uint16_t)any_number(h->ports),
                         .ports_known = true};
}

static void hard_sets_are_answered_alike(void **unused)
{
    (void)unused;
    static struct policy p[1000];
    state = 1;
    for (unsigned k = 0; k < 2 * SETS; k++) {
        const struct hard *h = &sets[k / 2];
        fill(p, 1000, h, k & 1);
        struct spd *s = compiled(p, 1000);
        for (unsigned i = 0; i < 3000; i++) {
            struct flow f = hard_flow(h, MANY / 1000, k & 1);
            agree(s, &f, k);
        }
        spd_free(s);
    }
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A walk would take a minute for each of these, and comparing all policies with each other as long. */
static void a_hundred_thousand_policies_are_made_and_asked(void **unused)
{
    (void)unused;
    struct policy *p = calloc(MANY, sizeof(*p));
    assert_non_null(p);
    state = 1;
    for (unsigned k = 0; k < SETS; k++) {
        unsigned found = 0;
        fill(p, MANY, &sets[k], false);
        double start = cpu_seconds();
        struct spd *s = compiled(p, MANY);
        double made = cpu_seconds() - start;
        assert_true(spd_size(s) < (size_t)MANY * 300);
        start = cpu_seconds();
        for (unsigned i = 0; i < 100000; i++) {
            struct flow f = hard_flow(&sets[k], 1, false);
            found += spd_lookup_out(s, &f) != NULL;
        }
        double asked = cpu_seconds() - start;
        printf("%-16s made in %.0f ms, %.0f bytes a policy, %.0f ns a lookup, %u of 100000 found\n", sets[k].name,
               made * 1e3, (double)spd_size(s) / MANY, asked * 1e4, found);
        spd_free(s);
    }
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_compiled_says_what_a_walk_says),
        cmocka_unit_test(overlaps_are_told_only_where_they_are),
        cmocka_unit_test(hard_sets_are_answered_alike),
        cmocka_unit_test(a_hundred_thousand_policies_are_made_and_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
