/* What of the bypass policies routes can express (policy/bypass.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "policy/bypass.h"
#include "policy/config_internal.h"

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
    assert_int_equal(bypass_ranges(c, &r), OK);
    assert_string_equal(text_of(&r), ranges);
    for (unsigned i = 0; i < c->policy_count && !found[0]; i++) {
        const struct policy *other = bypass_conflict(c, i, &where);
        if (other)
            snprintf(found, sizeof found, "%s %s", range_format(&where, where_text), other->name);
    }
    assert_string_equal(found, conflict);
    assert_string_equal(warning, "");
    ip_ranges_free(&r);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bypass_before_what_it_excepts_is_kept_out),
        cmocka_unit_test(what_comes_before_the_bypass_stays_in_the_tunnel),
        cmocka_unit_test(what_comes_before_and_takes_only_some_is_a_conflict),
        cmocka_unit_test(ports_and_protocols_of_the_bypass_are_a_conflict),
        cmocka_unit_test(sources_the_bypass_leaves_to_others_are_a_conflict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
