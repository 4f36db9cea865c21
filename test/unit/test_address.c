/* Prefixes and ranges (policy/address.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include <string.h>

#include "policy/address.h"

static struct prefix prefix(const char *text)
{
    struct prefix p;
    assert_int_equal(prefix_parse(text, &p), OK);
    return p;
}

static struct ip_range range(const char *first, const char *last)
{
    struct ip_range r;
    assert_int_equal(ip_parse(first, &r.first), OK);
    assert_int_equal(ip_parse(last, &r.last), OK);
    return r;
}

static void prefixes_parse_and_format(void **state)
{
    (void)state;
    static const char *const same[] = {"10.1.0.0/24", "10.1.0.5/24",   "0.0.0.0/0",      "192.0.2.1/32",
                                       "::/0",        "2001:db8::/32", "2001:db8::1/128"};
    char text[PREFIX_TEXT];
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        struct prefix p = prefix(same[i]);
        assert_string_equal(prefix_format(&p, text), same[i]);
    }
    struct prefix whole = prefix("10.1.0.1");
    assert_string_equal(prefix_format(&whole, text), "10.1.0.1/32");
    whole = prefix("2001:db8::1");
    assert_int_equal(whole.bits, 128);
}

static void wrong_prefixes_are_refused(void **state)
{
    (void)state;
    static const char *const syntax[] = {"",
                                         "/",
                                         "10.1.0.0/",
                                         "10.1.0.0/-1",
                                         "10.1.0.0/+8",
                                         "10.1/8",
                                         "10.1.0.0/8x",
                                         "x/8",
                                         "10.1.0.0/ 8",
                                         "10.1.0.0/0008",
                                         "10.1.0.0/8/8",
                                         "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb/8"};
    struct prefix p = {.bits = 77};
    for (size_t i = 0; i < sizeof(syntax) / sizeof(syntax[0]); i++)
        assert_int_equal(prefix_parse(syntax[i], &p), ERR_SYNTAX);
    assert_int_equal(prefix_parse("10.1.0.0/33", &p), ERR_RANGE);
    assert_int_equal(prefix_parse("::/129", &p), ERR_RANGE);
    assert_int_equal(p.bits, 77); /* untouched */
}

static void host_bits_are_seen_and_dropped(void **state)
{
    (void)state;
    char text[RANGE_TEXT];
    struct prefix p = prefix("10.1.3.5/22");
    struct ip_range r = prefix_range(&p);
    assert_true(prefix_has_host_bits(&p));
    assert_string_equal(range_format(&r, text), "10.1.0.0/22");
    p = prefix("2001:db8::8000/113");
    assert_false(prefix_has_host_bits(&p));
    p = prefix("10.1.0.0/24");
    assert_false(prefix_has_host_bits(&p));
}

static void ranges_that_are_no_prefix_stay_ranges(void **state)
{
    (void)state;
    char text[RANGE_TEXT];
    struct prefix p;
    struct ip_range r = range("10.0.0.1", "10.0.0.9");
    assert_int_equal(range_prefix(&r, &p), ERR_MISMATCH);
    assert_string_equal(range_format(&r, text), "10.0.0.1-10.0.0.9");
    r = range("10.0.0.4", "10.0.0.11"); /* eight addresses, but not aligned */
    assert_int_equal(range_prefix(&r, &p), ERR_MISMATCH);
    r = range("0.0.0.0", "255.255.255.255");
    assert_int_equal(range_prefix(&r, &p), OK);
    assert_int_equal(p.bits, 0);
    r = range("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
    assert_string_equal(range_format(&r, text), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0-"
                                                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
}

/* The prefixes must follow each other without gap from first to last. */
static void check_cover(const struct ip_range *r, const struct prefix *p, unsigned n)
{
    struct ip at = r->first;
    for (unsigned i = 0; i < n; i++) {
        struct ip_range block = prefix_range(&p[i]);
        assert_int_equal(ip_compare(&block.first, &at), 0);
        at = block.last;
        for (unsigned j = ip_len(at.family); j-- > 0;)
            if (++at.b[j] != 0)
                break;
        if (i + 1 == n)
            assert_int_equal(ip_compare(&block.last, &r->last), 0);
    }
}

static void ranges_are_covered_exactly(void **state)
{
    (void)state;
    struct prefix p[256];
    unsigned n = 0;
    struct ip_range r = range("10.0.0.1", "10.0.0.14");
    assert_int_equal(range_prefixes(&r, p, 6, &n), OK);
    assert_int_equal(n, 6); /* .1/32 .2/31 .4/30 .8/30 .12/31 .14/32 */
    check_cover(&r, p, n);
    assert_int_equal(range_prefixes(&r, p, 5, &n), ERR_FULL);
    r = range("0.0.0.0", "255.255.255.255");
    assert_int_equal(range_prefixes(&r, p, 1, &n), OK);
    assert_int_equal(n, 1);
    r = range("0.0.0.1", "255.255.255.254");
    assert_int_equal(range_prefixes(&r, p, 256, &n), OK);
    assert_int_equal(n, 62);
    check_cover(&r, p, n);
    r = range("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
    assert_int_equal(range_prefixes(&r, p, 256, &n), OK);
    assert_int_equal(n, 254);
    check_cover(&r, p, n);
    r = range("2001:db8::", "2001:db8::ffff");
    assert_int_equal(range_prefixes(&r, p, 256, &n), OK);
    assert_int_equal(n, 1);
}

static void ranges_contain_and_intersect(void **state)
{
    (void)state;
    struct ip_range a = range("10.0.0.10", "10.0.0.20"), b = range("10.0.0.15", "10.0.0.30"), out = {0};
    struct ip_range apart = range("10.0.0.21", "10.0.0.21"), six = range("::", "::ffff");
    struct ip_range touching = range("10.0.0.20", "10.0.0.21");
    assert_true(range_contains(&a, &a.first));
    assert_true(range_contains(&a, &a.last));
    assert_false(range_contains(&a, &apart.first));
    assert_false(range_contains(&six, &a.first));
    assert_true(range_intersect(&a, &b, &out));
    assert_int_equal(out.first.b[3], 15);
    assert_int_equal(out.last.b[3], 20);
    assert_true(range_intersect(&a, &touching, &out));
    assert_int_equal(out.first.b[3], 20);
    assert_false(range_intersect(&a, &apart, &out));
    assert_false(range_intersect(&a, &six, &out));
    assert_true(range_within(&out, &a));
    assert_false(range_within(&b, &a));
    assert_false(range_within(&a, &six));
}

static void a_range_without_another_is_what_lies_below_and_above(void **state)
{
    (void)state;
    static const struct {
        const char *from, *cut, *left;
    } rows[] = {
        {"10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/24"},
        {"10.0.0.0/24", "::/0", "10.0.0.0/24"},
        {"10.0.0.0/24", "10.0.0.0/23", ""},
        {"10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25"},
        {"10.0.0.0/23", "10.0.1.0/24", "10.0.0.0/24"},
        {"10.0.0.0/23", "10.0.0.255/32", "10.0.0.0-10.0.0.254 10.0.1.0/24"},
        {"0.0.0.0/0", "0.0.0.0/0", ""},
        {"::/0", "8000::/1", "::/1"},
        {"fd00::/127", "fd00::1/128", "fd00::/128"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct prefix a, b;
        struct ip_range left[2];
        char text[RANGE_TEXT], all[2 * RANGE_TEXT + 2] = "";
        assert_int_equal(prefix_parse(rows[i].from, &a), OK);
        assert_int_equal(prefix_parse(rows[i].cut, &b), OK);
        struct ip_range from = prefix_range(&a), cut = prefix_range(&b);
        unsigned n = range_subtract(&from, &cut, left);
        for (unsigned k = 0; k < n; k++)
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", k ? " " : "", range_format(&left[k], text));
        assert_string_equal(all, rows[i].left);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes_parse_and_format),
        cmocka_unit_test(wrong_prefixes_are_refused),
        cmocka_unit_test(host_bits_are_seen_and_dropped),
        cmocka_unit_test(ranges_that_are_no_prefix_stay_ranges),
        cmocka_unit_test(ranges_are_covered_exactly),
        cmocka_unit_test(ranges_contain_and_intersect),
        cmocka_unit_test(a_range_without_another_is_what_lies_below_and_above),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
