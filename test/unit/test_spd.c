/* The SPD and its flow cache (policy/spd.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/spd.h"

static struct policy policy(const char *name, const char *local, const char *remote)
{
    struct policy p = {0};
    snprintf(p.name, sizeof(p.name), "%s", name);
    assert_int_equal(selectors_parse(local, &p.local, NULL, 0), OK);
    assert_int_equal(selectors_parse(remote, &p.remote, NULL, 0), OK);
    return p;
}

static struct flow flow(const char *src, const char *dst, uint8_t proto, uint16_t dport)
{
    struct flow f = {.proto = proto, .src_port = 50000, .dst_port = dport, .ports_known = true};
    assert_int_equal(ip_parse(src, &f.src), OK);
    assert_int_equal(ip_parse(dst, &f.dst), OK);
    return f;
}

static struct spd *table(const struct policy *p, unsigned n)
{
    struct spd_entry e[64];
    struct spd *s;
    for (unsigned i = 0; i < n; i++)
        e[i] = (struct spd_entry){.policy = &p[i], .id = 100 + i};
    assert_int_equal(spd_new(&s, e, n), OK);
    return s;
}

static void first_match_wins(void **state)
{
    (void)state;
    struct policy p[] = {
        policy("web", "10.1.0.0/24", "10.2.0.0/24[tcp/443]"),
        policy("all", "10.1.0.0/24, 2001:db8:1::/64", "10.2.0.0/24, 2001:db8:2::/64"),
        policy("shadowed", "10.1.0.0/24", "10.2.0.0/25"),
        policy("six", "::/0", "::/0"),
    };
    struct spd *s = table(p, 4);
    struct flow f = flow("10.1.0.1", "10.2.0.1", 6, 443);
    assert_int_equal(spd_lookup_out(s, &f)->id, 100);
    assert_null(spd_lookup_in(s, &f));
    f.dst_port = 80;
    assert_int_equal(spd_lookup_out(s, &f)->id, 101);
    f = flow("10.2.0.1", "10.1.0.1", 17, 9);
    assert_int_equal(spd_lookup_in(s, &f)->id, 101);
    f = flow("2001:db8:1::1", "2001:db8:2::1", 17, 9);
    assert_int_equal(spd_lookup_out(s, &f)->id, 101);
    f = flow("2001:db8:3::1", "2001:db8:2::1", 17, 9);
    assert_int_equal(spd_lookup_out(s, &f)->id, 103);
    f = flow("10.1.0.1", "10.3.0.1", 17, 9);
    assert_null(spd_lookup_out(s, &f)); /* nothing matches: discard */
    assert_int_equal(spd_count(s), 4);
    assert_ptr_equal(spd_at(s, 2)->policy, &p[2]);
    assert_null(spd_at(s, 4));
    spd_free(s);
}

static void an_empty_table_matches_nothing(void **state)
{
    (void)state;
    struct spd *s = table(NULL, 0);
    struct flow f = flow("10.1.0.1", "10.2.0.1", 6, 443);
    assert_null(spd_lookup_out(s, &f));
    assert_null(spd_lookup_in(s, &f));
    spd_free(s);
    spd_free(NULL);
}

/* Policies and flows from a small world, so that many meet. */
static struct policy any_policy(void)
{
    static const char *const protos[] = {"", "[tcp]", "[tcp/1-2]", "[udp/2]", "[icmp/8]", "[udp/opaque]"};
    char side[2][200];
    for (int i = 0; i < 2; i++) {
        unsigned a = (unsigned)rand() % 3, b = (unsigned)rand() % 3;
        snprintf(side[i], sizeof(side[i]),
                 rand() % 3 ? "10.0.%u.0/24%s, 10.0.%u.0-10.0.%u.9%s" : "2001:db8:0:%u::/64%s", a, protos[rand() % 6],
                 b, b, protos[rand() % 6]);
    }
    return policy("any", side[0], side[1]);
}

static struct flow any_flow(void)
{
    static const uint8_t protos[] = {6, 17, 1, 50};
    char src[40], dst[40];
    const char *form = rand() % 3 ? "10.0.%u.%u" : "2001:db8:0:%u::%u";
    snprintf(src, sizeof(src), form, (unsigned)rand() % 3, (unsigned)rand() % 12);
    snprintf(dst, sizeof(dst), form, (unsigned)rand() % 3, (unsigned)rand() % 12);
    struct flow f = flow(src, dst, protos[rand() % 4], (uint16_t)(rand() % 3));
    f.src_port = f.proto == 1 ? 0x0800 : (uint16_t)(rand() % 3);
    if (f.proto == 1)
        f.dst_port = f.src_port;
    f.ports_known = f.proto != 50 && rand() % 8;
    if (!f.ports_known)
        f.src_port = f.dst_port = 0;
    return f;
}

static const struct spd_entry *walk(const struct spd *s, const struct flow *f, bool out)
{
    for (unsigned i = 0; i < spd_count(s); i++) {
        const struct policy *p = spd_at(s, i)->policy;
        if (out ? selectors_match_out(&p->local, &p->remote, f) : selectors_match_in(&p->local, &p->remote, f))
            return spd_at(s, i);
    }
    return NULL;
}

static void lookups_and_cache_agree_with_a_plain_walk(void **state)
{
    (void)state;
    static struct policy p[40];
    struct flow_cache *c;
    unsigned hits = 0;
    assert_int_equal(flow_cache_new(&c), OK);
    srand(4301);
    for (int round = 0; round < 40; round++) {
        unsigned n = 1 + (unsigned)rand() % 40;
        for (unsigned i = 0; i < n; i++)
            p[i] = any_policy();
        struct spd *s = table(p, n);
        for (int i = 0; i < 1000; i++) {
            struct flow f = any_flow();
            const struct spd_entry *out = walk(s, &f, true);
            assert_ptr_equal(spd_lookup_out(s, &f), out);
            assert_ptr_equal(spd_lookup_in(s, &f), walk(s, &f, false));
            assert_ptr_equal(flow_cache_lookup(c, s, &f), out);
            assert_ptr_equal(flow_cache_lookup(c, s, &f), out);
            hits += out != NULL;
        }
        spd_free(s); /* the next table often lies at the same address */
    }
    flow_cache_free(c);
    assert_in_range(hits, 4000, 36000);
}

static void the_cache_forgets_a_replaced_table(void **state)
{
    (void)state;
    struct policy a[] = {policy("a", "10.1.0.0/24", "10.2.0.0/24")};
    struct policy b[] = {policy("x", "10.9.0.0/24", "10.9.0.0/24"), policy("b", "10.1.0.0/24", "10.2.0.0/24")};
    struct flow f = flow("10.1.0.1", "10.2.0.1", 6, 443), other = flow("10.9.0.1", "10.9.0.2", 6, 1);
    struct flow_cache *c;
    struct spd *s = table(a, 1);
    assert_int_equal(flow_cache_new(&c), OK);
    assert_ptr_equal(flow_cache_lookup(c, s, &f), spd_at(s, 0));
    assert_null(flow_cache_lookup(c, s, &other));
    spd_free(s);
    s = table(b, 2);
    assert_ptr_equal(flow_cache_lookup(c, s, &f), spd_at(s, 1));
    assert_ptr_equal(flow_cache_lookup(c, s, &other), spd_at(s, 0));
    spd_free(s);
    flow_cache_free(c);
    flow_cache_free(NULL);
}

static void an_entry_knows_whether_an_earlier_one_takes_from_it(void **state)
{
    (void)state;
    struct policy p[] = {
        policy("part", "10.1.0.0/24", "10.2.5.0/24"),  policy("web", "10.1.0.0/24", "10.2.0.0/24[tcp/443]"),
        policy("whole", "10.1.0.0/24", "10.2.0.0/16"), policy("other", "10.1.0.0/24", "10.3.0.0/16"),
        policy("six", "2001:db8:1::/64", "::/0"),
    };
    static const bool overlapped[] = {false, false, true, false, false};
    struct spd *s = table(p, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_ptr_equal(spd_find(s, 100 + i), spd_at(s, i));
        assert_int_equal(spd_at(s, i)->overlapped, overlapped[i]);
    }
    assert_null(spd_find(s, 99));
    assert_null(spd_find(s, 105));
    spd_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_knows_whether_an_earlier_one_takes_from_it),
        cmocka_unit_test(first_match_wins),
        cmocka_unit_test(an_empty_table_matches_nothing),
        cmocka_unit_test(lookups_and_cache_agree_with_a_plain_walk),
        cmocka_unit_test(the_cache_forgets_a_replaced_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
