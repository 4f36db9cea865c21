/* What of the bypass policies routes can express (policy/bypass.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "crypto/random.h"
#include "policy/bypass.h"
#include "policy/config_internal.h"
#include "policy/overlap.h"

#define PEER "[peer a]\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n"
#define PROTECT(name, nets) "[policy " name "]\npeer = a\n" nets
#define BYPASS(name, nets) "[policy " name "]\naction = bypass\n" nets
#define DISCARD(name, nets) "[policy " name "]\naction = discard\n" nets
#define LOCAL_REMOTE(l, r) "local = " l "\nremote = " r "\n"
#define LAN LOCAL_REMOTE("10.1.0.0/24", "10.2.0.0/16")
#define INNER LOCAL_REMOTE("10.1.0.0/24", "10.2.9.0/24")

static const char *text_of(const struct ip_ranges *r)
{
    static char all[1024];
    char text[RANGE_TEXT];
    all[0] = 0;
    for (unsigned i = 0; i < r->n; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? " " : "", range_format(&r->v[i], text));
    return all;
}

static void on_error(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    fail_msg("%s:%u: %s", file, line, text);
}

static void on_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)file;
    (void)line;
    if (strstr(text, "are dropped, not passed by"))
        snprintf(ctx, 512, "%s", text);
}

static struct config *load(const char *text, char warning[512])
{
    const struct config_report report = {warning, on_error, on_warning};
    struct config *c = NULL;
    warning[0] = 0;
    assert_int_equal(config_parse(span_of(text, strlen(text)), "t.ini", false, &report, &c), OK);
    return c;
}

/* The ranges that bypass in a configuration, and "DESTINATIONS OTHER" of the first conflict of any policy. */
static void expect(const char *text, const char *ranges, const char *conflict)
{
    char warning[512], found[256] = "", where_text[RANGE_TEXT];
    struct config *c = load(text, warning);
    struct ip_ranges r;
    struct ip_range where;
    struct bypass_map *m;
    assert_int_equal(bypass_map_new(&m, c), OK);
    assert_int_equal(bypass_ranges(m, &r), OK);
    assert_string_equal(text_of(&r), ranges);
    for (unsigned i = 0; i < c->policy_count && !found[0]; i++) {
        const struct policy *other = bypass_conflict(m, i, &where);
        if (other)
            snprintf(found, sizeof found, "%s %s", range_format(&where, where_text), other->name);
    }
    assert_string_equal(found, conflict);
    assert_string_equal(warning, "");
    ip_ranges_free(&r);
    bypass_map_free(m);
    config_free(c);
}

static void a_bypass_before_what_it_excepts_is_kept_out(void **state)
{
    (void)state;
    expect(PEER BYPASS("b", INNER) PROTECT("p", LAN), "10.2.9.0/24", "");
    expect(PEER BYPASS("b", LOCAL_REMOTE("0.0.0.0/0, ::/0", "10.2.9.3-10.2.9.5, fd02::/64")) PROTECT("p", LAN),
           "10.2.9.3-10.2.9.5 fd02::/64", "");
    expect(PEER BYPASS("b", LAN) PROTECT("p", LAN), "10.2.0.0/16", "");
    expect(PEER BYPASS("b", INNER) PROTECT("p", LOCAL_REMOTE("10.1.0.0/24[tcp]", "10.2.0.0/16[tcp/80]")), "10.2.9.0/24",
           "");
}

static void what_comes_before_the_bypass_stays_in_the_tunnel(void **state)
{
    (void)state;
    expect(PEER PROTECT("p", LAN) BYPASS("b", INNER), "", "");
    expect(PEER PROTECT("q", LOCAL_REMOTE("10.1.0.0/24", "10.2.9.128/25")) BYPASS("b", INNER) PROTECT("p", LAN),
           "10.2.9.0/25", "");
    expect(PEER PROTECT("q", LOCAL_REMOTE("10.1.0.0/24", "10.2.9.7"))
               BYPASS("b", LOCAL_REMOTE("10.1.0.0/24", "10.2.9.0-10.2.9.15, 10.2.9.7")) PROTECT("p", LAN),
           "10.2.9.0-10.2.9.6 10.2.9.8/29", "");
    expect(PEER DISCARD("d", LOCAL_REMOTE("10.1.0.0/24", "10.2.9.0/25")) BYPASS("b", INNER) PROTECT("p", LAN),
           "10.2.9.128/25", "");
}

static void what_comes_before_and_takes_only_some_is_a_conflict(void **state)
{
    (void)state;
    expect(PEER PROTECT("q", LOCAL_REMOTE("10.1.0.0/24", "10.2.9.7[tcp/443]")) BYPASS("b", INNER) PROTECT("p", LAN),
           "10.2.9.0-10.2.9.6 10.2.9.8-10.2.9.255", "10.2.9.7/32 q");
    expect(PEER DISCARD("d", LOCAL_REMOTE("10.1.0.7", "10.2.9.0/24")) BYPASS("b", INNER) PROTECT("p", LAN), "",
           "10.2.9.0/24 d");
}

static void ports_and_protocols_of_the_bypass_are_a_conflict(void **state)
{
    (void)state;
    expect(PEER BYPASS("b", LOCAL_REMOTE("10.1.0.0/24", "10.2.9.0/24[udp/53]")) PROTECT("p", LAN), "", "10.2.9.0/24 p");
    expect(PEER BYPASS("b", LOCAL_REMOTE("10.1.0.0/24[udp]", "10.2.9.0/24")) PROTECT("p", LAN), "", "10.2.9.0/24 p");
    expect(PEER BYPASS("b", LOCAL_REMOTE("10.1.0.0/24", "10.3.0.0/24[udp/53]")) PROTECT("p", LAN), "", "");
}

static void sources_the_bypass_leaves_to_others_are_a_conflict(void **state)
{
    (void)state;
    expect(PEER BYPASS("b", LOCAL_REMOTE("10.1.0.0/25", "10.2.9.0/24")) PROTECT("p", LAN), "", "10.2.9.0/24 p");
    expect(PEER BYPASS("b", INNER) PROTECT("p", LAN) DISCARD("d", LOCAL_REMOTE("0.0.0.0/0", "0.0.0.0/0")), "",
           "10.2.9.0/24 d");
    expect(PEER BYPASS("b", LOCAL_REMOTE("10.1.0.0/24", "10.9.0.0/24"))
               DISCARD("d", LOCAL_REMOTE("0.0.0.0/0", "0.0.0.0/0")) PROTECT("p", LAN),
           "", "");
}

/* -- the search tree beneath -- */

struct tally {
    unsigned n;
    uint64_t sum; /* of the squares of their numbers, so that hardly another set has it too */
    unsigned stop;
};

static bool count_one(void *ctx, const struct overlap_item *item)
{
    struct tally *t = ctx;
    t->n++;
    t->sum += (uint64_t)item->a * item->a;
    return t->n == t->stop;
}

static struct ip_range random_range(const struct random_source *r)
{
    uint8_t b[4];
    random_fill(r, b, sizeof b);
    struct ip_range range = {{.family = b[0] & 1 ? 4 : 6}, {.family = b[0] & 1 ? 4 : 6}};
    range.first.b[1] = b[1];
    range.last.b[1] = b[0] & 2 || b[1] > 250 ? b[1] : (uint8_t)(b[1] + (b[2] & b[3]) % (255 - b[1]));
    range.last.b[3] = b[0] & 4 ? 255 : 0;
    return range;
}

static void what_overlaps_is_found_as_by_asking_each(void **state)
{
    (void)state;
    struct random_seeded state_of;
    const struct random_source random = random_seeded_source(&state_of, 7);
    for (unsigned size = 0; size < 70; size++) {
        struct overlaps o = {0};
        for (unsigned i = 0; i < size; i++) {
            const struct ip_range range = random_range(&random);
            assert_int_equal(overlaps_add(&o, &range, i + 1, 0), OK);
        }
        overlaps_sort(&o);
        for (unsigned k = 0; k < 100; k++) {
            const struct ip_range range = random_range(&random);
            struct ip_range both;
            struct tally want = {0}, got = {0}, first = {.stop = 1};
            for (unsigned i = 0; i < o.n; i++)
                if (range_intersect(&range, &o.v[i].range, &both))
                    (void)count_one(&want, &o.v[i]);
            assert_false(overlaps_each(&o, &range, count_one, &got));
            assert_int_equal(got.n, want.n);
            assert_int_equal(got.sum, want.sum);
            assert_int_equal(overlaps_each(&o, &range, count_one, &first), want.n > 0);
            assert_int_equal(first.n, want.n > 0);
        }
        overlaps_free(&o);
    }
}

/* Thousands of policies are not each held against each other one: that took a second. */
static void many_policies_are_asked_about_few(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    struct policy *all = test_calloc(MANY, sizeof *all), **list = test_calloc(MANY, sizeof(struct policy *));
    struct config c = {.policies = list, .policy_count = MANY};
    for (unsigned i = 0; i < MANY; i++) {
        struct selector *s = &all[i].remote.v[0];
        all[i].action = i % 2 ? ACTION_PROTECT : ACTION_BYPASS;
        all[i].local.n = all[i].remote.n = 1;
        s->range.first = (struct ip){.family = 4, .b = {10, (uint8_t)(i >> 9), (uint8_t)(i >> 1), 0}};
        s->range.last = s->range.first;
        s->range.first.b[3] = i % 2 ? 128 : 0;
        s->range.last.b[3] = 255;
        all[i].local.v[0].range = (struct ip_range){{.family = 4, .b = {192, 168}}, {.family = 4, .b = {192, 168}}};
        list[i] = &all[i];
    }
    struct bypass_map *m;
    struct ip_ranges r;
    struct ip_range where;
    assert_int_equal(bypass_map_new(&m, &c), OK);
    assert_int_equal(bypass_ranges(m, &r), OK);
    assert_int_equal(r.n, MANY / 2); /* each comes first where it meets another one */
    for (unsigned i = 0; i < MANY; i++)
        assert_null(bypass_conflict(m, i, &where));
    ip_ranges_free(&r);
    bypass_map_free(m);
    test_free(list);
    test_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bypass_before_what_it_excepts_is_kept_out),
        cmocka_unit_test(what_comes_before_the_bypass_stays_in_the_tunnel),
        cmocka_unit_test(what_comes_before_and_takes_only_some_is_a_conflict),
        cmocka_unit_test(ports_and_protocols_of_the_bypass_are_a_conflict),
        cmocka_unit_test(sources_the_bypass_leaves_to_others_are_a_conflict),
        cmocka_unit_test(what_overlaps_is_found_as_by_asking_each),
        cmocka_unit_test(many_policies_are_asked_about_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
