/* Traffic selector narrowing (RFC 7296 section 2.9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ike/narrow.h"

static struct selectors list(const char *text)
{
    struct selectors s;
    if (selectors_parse(text, &s, NULL, 0) != OK)
        fail_msg("%s does not parse", text);
    return s;
}

/* tsi is the peer's side: our remote. want_*: NULL for TS_UNACCEPTABLE. */
static void narrow(const char *tsi, const char *tsr, const char *local, const char *remote, const char *want_local,
                   const char *want_remote)
{
    struct policy p = {.local = list(local), .remote = list(remote)};
    struct selectors i = list(tsi), r = list(tsr), l, m;
    enum err e = narrow_offer(&i, &r, &p, &l, &m);
    if (!want_local) {
        assert_int_equal(e, ERR_MISMATCH);
        return;
    }
    assert_int_equal(e, OK);
    char got[600], want[600];
    struct selectors wl = list(want_local), wr = list(want_remote);
    assert_string_equal(selectors_format(&l, got, sizeof got), selectors_format(&wl, want, sizeof want));
    assert_string_equal(selectors_format(&m, got, sizeof got), selectors_format(&wr, want, sizeof want));
    assert_true(selectors_equal(&l, &wl) && selectors_equal(&m, &wr));
    assert_int_equal(narrow_check(&l, &r), OK); /* the peer will accept what we chose */
    assert_int_equal(narrow_check(&m, &i), OK);
}

static void equal_policies_need_no_narrowing(void **state)
{
    (void)state;
    narrow("10.1.0.0/24", "10.2.0.0/24", "10.2.0.0/24", "10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/24");
    narrow("10.1.0.0/24,10.3.0.0/24", "2001:db8::/32,10.2.0.0/24", "2001:db8::/32,10.2.0.0/24",
           "10.1.0.0/24,10.3.0.0/24,::/0", "10.2.0.0/24", "10.1.0.0/24,10.3.0.0/24");
}

static void wide_offer_is_cut_to_policy_and_narrow_offer_kept(void **state)
{
    (void)state;
    narrow("0.0.0.0/0", "0.0.0.0/0", "10.2.0.0/24", "10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/24");
    narrow("10.1.0.7/32", "10.2.0.9/32", "0.0.0.0/0", "0.0.0.0/0", "10.2.0.9/32", "10.1.0.7/32");
    narrow("10.1.0.0-10.1.0.20", "10.2.0.0/24", "10.2.0.0/24", "10.1.0.10-10.1.0.30", "10.2.0.0/24",
           "10.1.0.10-10.1.0.20");
    narrow("10.0.0.0/8", "10.2.0.0/24", "10.2.0.0/24", "10.1.0.0/24,10.3.0.0/24,192.0.2.0/24", "10.2.0.0/24",
           "10.1.0.0/24,10.3.0.0/24");
}

static void empty_intersection_on_either_side_is_unacceptable(void **state)
{
    (void)state;
    narrow("10.9.0.0/24", "10.2.0.0/24", "10.2.0.0/24", "10.1.0.0/24", NULL, NULL);
    narrow("10.1.0.0/24", "10.9.0.0/24", "10.2.0.0/24", "10.1.0.0/24", NULL, NULL);
    narrow("10.1.0.0/24[tcp]", "10.2.0.0/24", "10.2.0.0/24", "10.1.0.0/24[udp]", NULL, NULL);
    narrow("10.1.0.0/24[tcp/80]", "10.2.0.0/24", "10.2.0.0/24", "10.1.0.0/24[tcp/443]", NULL, NULL);
    narrow("2001:db8::/32", "10.2.0.0/24", "0.0.0.0/0,::/0", "0.0.0.0/0,::/0", NULL, NULL); /* no packet is both */
    narrow("10.1.0.0/24", "2001:db8::/32", "10.2.0.0/24,::/0", "0.0.0.0/0", NULL, NULL);
    narrow("10.1.0.0/24[tcp]", "10.2.0.0/24[udp]", "0.0.0.0/0", "0.0.0.0/0", NULL, NULL);
}

static void no_selectors_are_unacceptable(void **state)
{
    (void)state;
    struct policy p = {.local = list("0.0.0.0/0"), .remote = list("0.0.0.0/0")};
    struct selectors none = {.n = 0}, some = list("10.0.0.0/8"), l, r;
    assert_int_equal(narrow_offer(&none, &some, &p, &l, &r), ERR_MISMATCH);
    assert_int_equal(narrow_offer(&some, &none, &p, &l, &r), ERR_MISMATCH);
    assert_int_equal(narrow_check(&none, &some), ERR_MISMATCH);
    assert_int_equal(narrow_check(&some, &none), ERR_MISMATCH);
}

static void protocols_and_ports_intersect(void **state)
{
    (void)state;
    narrow("10.1.0.0/24", "10.2.0.0/24", "10.2.0.0/24[tcp/443]", "10.1.0.0/24", "10.2.0.0/24[tcp/443]", "10.1.0.0/24");
    narrow("10.1.0.0/24[tcp]", "10.2.0.0/24[tcp/400-500]", "10.2.0.0/24[tcp/443-9999]", "10.1.0.0/24",
           "10.2.0.0/24[tcp/443-500]", "10.1.0.0/24[tcp]");
}

static void packet_that_triggered_the_request_stays_within_the_answer(void **state)
{
    (void)state;
    /* Allowed with the range behind it: covered by it, in its place. */
    narrow("10.1.0.7[tcp/40000],10.1.0.0/24", "10.2.0.9[tcp/80],10.2.0.0/24", "10.2.0.0/24", "10.1.0.0/24",
           "10.2.0.0/24", "10.1.0.0/24");
    /* Policy allows no more than the packet's host. */
    narrow("10.1.0.7[tcp/40000],10.1.0.0/24", "10.2.0.9[tcp/80],10.2.0.0/24", "10.2.0.9", "10.1.0.7", "10.2.0.9",
           "10.1.0.7");
    /* The packet is not allowed, the rest is. */
    narrow("10.1.0.7[tcp/40000],10.1.0.0/24", "10.2.0.9[tcp/80],10.2.0.0/24", "10.2.0.128/25", "10.1.0.0/24",
           "10.2.0.128/25", "10.1.0.0/24");
}

static void first_choice_survives_when_there_is_more_than_room(void **state)
{
    (void)state;
    struct policy p = {.remote = list("0.0.0.0/0")};
    struct selectors tsi = list("10.0.0.0/8"), tsr = {.n = 0}, l, r;
    for (unsigned i = 0; i < SELECTORS_MAX; i++) { /* 32 offered ports × 32 allowed hosts make 1,024 pieces */
        struct selector s = list("10.2.0.0/16[tcp/1000]").v[0];
        s.port_first = s.port_last = (uint16_t)(1000 + i);
        tsr.v[tsr.n++] = s;
        s = list("10.2.0.0[tcp]").v[0];
        s.range.first.b[3] = s.range.last.b[3] = (uint8_t)(2 * i);
        p.local.v[p.local.n++] = s;
    }
    assert_int_equal(narrow_offer(&tsi, &tsr, &p, &l, &r), OK);
    assert_int_equal(l.n, SELECTORS_MAX);
    for (unsigned i = 0; i < l.n; i++)
        assert_int_equal(l.v[i].port_first, 1000); /* all of the first choice */
    assert_int_equal(narrow_check(&l, &tsr), OK);
    assert_int_equal(narrow_check(&l, &p.local), OK);
}

static void results_hold_nothing_twice(void **state)
{
    (void)state;
    narrow("10.1.0.0/24,10.1.0.0/24,10.1.0.0/25", "10.2.0.0/25,10.2.0.0/24", "10.2.0.0/24,10.2.0.0/16", "10.1.0.0/16",
           "10.2.0.0/24", "10.1.0.0/24");
}

static void families_without_counterpart_are_dropped(void **state)
{
    (void)state;
    narrow("10.1.0.0/24,2001:db8:1::/48", "10.2.0.0/24,2001:db8:2::/48", "10.2.0.0/24", "0.0.0.0/0,::/0", "10.2.0.0/24",
           "10.1.0.0/24");
    narrow("10.1.0.0/24,2001:db8:1::/48", "10.2.0.0/24,2001:db8:2::/48", "10.2.0.0/24,2001:db8:2::/64",
           "0.0.0.0/0,::/0", "10.2.0.0/24,2001:db8:2::/64", "10.1.0.0/24,2001:db8:1::/48");
    narrow("10.1.0.0/24[tcp],10.1.0.0/24[udp]", "10.2.0.0/24[udp]", "0.0.0.0/0", "0.0.0.0/0", "10.2.0.0/24[udp]",
           "10.1.0.0/24[udp]");
}

static void out_parameters_are_untouched_on_failure(void **state)
{
    (void)state;
    struct policy p = {.local = list("10.2.0.0/24"), .remote = list("10.1.0.0/24")};
    struct selectors i = list("10.9.0.0/24"), r = list("10.2.0.0/24"), l = list("1.1.1.1"), m = l, before = l;
    assert_int_equal(narrow_offer(&i, &r, &p, &l, &m), ERR_MISMATCH);
    assert_true(selectors_equal(&l, &before) && selectors_equal(&m, &before));
}

static void answer_wider_than_the_offer_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *offered;
        enum err want;
    } cases[] = {
        {"10.1.0.0/24", "10.1.0.0/24", OK},
        {"10.1.0.0/25", "10.1.0.0/24", OK},
        {"10.1.0.7[tcp/80]", "10.1.0.0/24", OK},
        {"10.1.0.0/24", "10.3.0.0/24,10.1.0.0/16", OK},
        {"10.1.0.0/24,10.1.1.0/24", "10.1.0.0/16", OK},
        {"10.1.0.0/23", "10.1.0.0/24", ERR_MISMATCH},
        {"0.0.0.0/0", "10.1.0.0/24", ERR_MISMATCH},
        {"10.1.0.0/24,10.2.0.0/24", "10.1.0.0/24", ERR_MISMATCH},
        {"10.1.0.0/24", "10.1.0.0/24[tcp]", ERR_MISMATCH},
        {"10.1.0.0/24[udp]", "10.1.0.0/24[tcp]", ERR_MISMATCH},
        {"10.1.0.0/24[tcp/80-90]", "10.1.0.0/24[tcp/80-89]", ERR_MISMATCH},
        {"::/0", "0.0.0.0/0", ERR_MISMATCH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct selectors a = list(cases[i].answer), o = list(cases[i].offered);
        if (narrow_check(&a, &o) != cases[i].want)
            fail_msg("%s within %s", cases[i].answer, cases[i].offered);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_policies_need_no_narrowing),
        cmocka_unit_test(wide_offer_is_cut_to_policy_and_narrow_offer_kept),
        cmocka_unit_test(empty_intersection_on_either_side_is_unacceptable),
        cmocka_unit_test(no_selectors_are_unacceptable),
        cmocka_unit_test(protocols_and_ports_intersect),
        cmocka_unit_test(packet_that_triggered_the_request_stays_within_the_answer),
        cmocka_unit_test(first_choice_survives_when_there_is_more_than_room),
        cmocka_unit_test(results_hold_nothing_twice),
        cmocka_unit_test(families_without_counterpart_are_dropped),
        cmocka_unit_test(out_parameters_are_untouched_on_failure),
        cmocka_unit_test(answer_wider_than_the_offer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
