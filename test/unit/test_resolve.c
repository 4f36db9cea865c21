/* Names to addresses in threads of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "core/resolve.h"

static struct peer_endpoint name(const char *host, uint16_t port)
{
    struct peer_endpoint e = {.at.port = port};
    snprintf(e.host, sizeof e.host, "%s", host);
    return e;
}

static struct peer_endpoint address(const char *text)
{
    struct peer_endpoint e = {.at.port = IKE_PORT};
    assert_int_equal(ip_parse(text, &e.at.ip), OK);
    return e;
}

static void next(struct resolver *r, struct resolved *out)
{
    struct pollfd p = {.fd = resolver_fd(r), .events = POLLIN};
    while (!resolver_next(r, out))
        assert_int_equal(poll(&p, 1, 20000), 1);
}

static void a_list_keeps_its_order_and_has_no_doubles(void **state)
{
    struct resolver *r;
    struct resolved a;
    char text[ENDPOINT_TEXT];
    (void)state;
    assert_int_equal(resolver_new(&r), OK);
    const struct peer_endpoint v[] = {address("192.0.2.2"), name("localhost", 4501), name("localhost", 4501),
                                      address("192.0.2.2"), address("2001:db8::1")};
    assert_int_equal(resolver_ask(r, 7, v, 5), OK);
    next(r, &a);
    assert_int_equal(a.id, 7);
    assert_string_equal(a.why, "");
    assert_in_range(a.n, 3, 4); /* localhost is 127.0.0.1, ::1 or both */
    assert_string_equal(endpoint_format(&a.v[0], text), "192.0.2.2:500");
    assert_int_equal(a.v[1].port, 4501);
    assert_string_equal(endpoint_format(&a.v[a.n - 1], text), "[2001:db8::1]:500");
    assert_false(resolver_next(r, &a));
    resolver_free(r);
}

static void a_name_without_an_address_is_named(void **state)
{
    struct resolver *r;
    struct resolved a;
    (void)state;
    assert_int_equal(resolver_new(&r), OK);
    const struct peer_endpoint v[] = {name("-.invalid", IKE_PORT), address("192.0.2.2")};
    assert_int_equal(resolver_ask(r, 1, v, 2), OK);
    next(r, &a);
    assert_int_equal(a.n, 1);
    assert_int_equal(strncmp(a.why, "-.invalid has no address: ", 26), 0);
    resolver_free(r);
}

/* More questions than threads: each has one answer. */
static void every_question_is_answered_once(void **state)
{
    struct resolver *r;
    struct resolved a;
    bool seen[200] = {false};
    const struct peer_endpoint v = name("localhost", IKE_PORT);
    (void)state;
    assert_int_equal(resolver_new(&r), OK);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(resolver_ask(r, i, &v, 1), OK);
    for (unsigned i = 0; i < 200; i++) {
        next(r, &a);
        assert_true(a.id < 200 && !seen[a.id] && a.n);
        seen[a.id] = true;
    }
    assert_false(resolver_next(r, &a));
    resolver_free(r);
}

static void questions_are_bounded_and_an_end_waits_for_none(void **state)
{
    struct resolver *r;
    const struct peer_endpoint v = name("localhost", IKE_PORT);
    unsigned n = 0;
    (void)state;
    assert_int_equal(resolver_new(&r), OK);
    while (n <= RESOLVE_QUEUE && resolver_ask(r, n, &v, 1) == OK)
        n++;
    assert_int_equal(n, RESOLVE_QUEUE); /* answered ones that nobody took count as well */
    resolver_free(r);
    resolver_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_keeps_its_order_and_has_no_doubles),
        cmocka_unit_test(a_name_without_an_address_is_named),
        cmocka_unit_test(every_question_is_answered_once),
        cmocka_unit_test(questions_are_bounded_and_an_end_waits_for_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
