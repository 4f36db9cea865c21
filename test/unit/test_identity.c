/* Identities and distinguished names (policy/pad.h, policy/dn.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "policy/pad.h"

static struct identity identity(const char *text)
{
    struct identity id;
    if (identity_parse(text, &id) != OK)
        fail_msg("%s", text);
    return id;
}

static void check(const char *text, uint8_t type, const char *expected)
{
    char out[IDENTITY_TEXT];
    struct identity id = identity(text);
    assert_int_equal(id.type, type);
    assert_string_equal(identity_format(&id, out, sizeof(out)), expected);
}

static void types_are_told_by_their_looks(void **state)
{
    (void)state;
    check("l", ID_FQDN, "l");
    check("gate.example", ID_FQDN, "gate.example");
    check("@gate.example", ID_FQDN, "gate.example");
    check("me@gate.example", ID_RFC822, "me@gate.example");
    check("192.0.2.1", ID_IPV4, "192.0.2.1");
    check("2001:DB8::1", ID_IPV6, "2001:db8::1");
    check("keyid:office", ID_KEY_ID, "keyid:office");
    check("keyid:0x00ff41", ID_KEY_ID, "keyid:0x00ff41");
    check("keyid:0x414243", ID_KEY_ID, "keyid:ABC");
    check("C=CH, O=Example Ltd, CN=gate", ID_DER_DN, "C=CH, O=Example Ltd, CN=gate");
    check("/C=CH/O=Example Ltd/CN=gate", ID_DER_DN, "C=CH, O=Example Ltd, CN=gate");
    check("o = Smith\\, Jones ,  E=a@b.example", ID_DER_DN, "O=Smith\\, Jones, emailAddress=a@b.example");
}

static void wrong_identities_are_refused(void **state)
{
    (void)state;
    static const char *const syntax[] = {"",    "@",   "keyid:",  "keyid:0x0", "keyid:0xzz", "300.1.2.3", "1:2:3",
                                         "a b", "CN=", "CN=a,=b", "C=CH,junk", "CN=a\\",     "=x\x01",    "a\x7f.b"};
    struct identity id = {.type = 77};
    char text[400];
    for (size_t i = 0; i < sizeof(syntax) / sizeof(syntax[0]); i++)
        if (identity_parse(syntax[i], &id) == OK)
            fail_msg("%s", syntax[i]);
    assert_int_equal(identity_parse("DC=example", &id), ERR_UNSUPPORTED);
    memset(text, 'a', sizeof(text));
    text[IDENTITY_MAX + 1] = '\0';
    assert_int_equal(identity_parse(text, &id), ERR_RANGE);
    memcpy(text, "CN=", 3);
    assert_int_equal(identity_parse(text, &id), ERR_RANGE);
    assert_int_equal(id.type, 77); /* untouched */
}

static void names_are_der(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x30, 0x2d,                                                 /* the name */
                                       0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x06,       /* C */
                                       0x13, 0x02, 'C',  'H',                                      /* printable */
                                       0x31, 0x1e, 0x30, 0x1c, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, /* emailAddress */
                                       0xf7, 0x0d, 0x01, 0x09, 0x01, 0x16, 0x0f, 'm',  'e',  '@',  /* IA5 */
                                       'g',  'a',  't',  'e',  '.',  'e',  'x',  'a',  'm',  'p',  'l', 'e'};
    struct identity id = identity("C=CH, E=me@gate.example");
    assert_int_equal(id.len, sizeof(expected));
    assert_memory_equal(id.b, expected, sizeof(expected));
    id = identity("CN=Z\xc3\xbcrich");
    assert_int_equal(id.b[11], 0x0c); /* UTF8String, where PrintableString does not suffice */
}

static void letter_case_is_ignored_in_names(void **state)
{
    (void)state;
    struct identity a = identity("Gate.Example"), b = identity("gate.example"), c = identity("keyid:A");
    struct identity d = identity("keyid:a"), e = identity("gate.example2"), f = identity("me@gate.example");
    assert_true(identity_equal(&a, &b));
    assert_false(identity_equal(&a, &e));
    assert_false(identity_equal(&c, &d)); /* key identifiers are bytes */
    assert_false(identity_equal(&a, &f));
    b.type = ID_RFC822;
    assert_false(identity_equal(&a, &b));
}

static void equal_names_may_differ_in_string_type(void **state)
{
    (void)state;
    struct identity a = identity("C=CH, CN=gate"), b = identity("C=CH, CN=Gate"), c = identity("CN=gate, C=CH");
    struct identity d = identity("C=CH, CN=gate, CN=x"), e = a;
    assert_true(identity_equal(&a, &b));
    assert_false(identity_equal(&a, &c));
    assert_false(identity_equal(&a, &d));
    assert_false(identity_equal(&d, &a));
    for (unsigned i = 0; i + 1 < e.len; i++)
        if (e.b[i] == 0x13 && e.b[i + 1] == 4)
            e.b[i] = 0x0c; /* as certificates have it: UTF8String */
    assert_memory_not_equal(a.b, e.b, a.len);
    assert_true(identity_equal(&a, &e));
    e.len--; /* no longer DER: equal to itself only */
    assert_false(identity_equal(&a, &e));
    assert_true(identity_equal(&e, &e));
}

static void foreign_bytes_are_escaped(void **state)
{
    (void)state;
    struct identity id = {.type = ID_FQDN, .len = 6, .b = "a\n\x1b[\xc3\\"};
    char out[IDENTITY_TEXT], small[5];
    assert_string_equal(identity_format(&id, out, sizeof(out)), "a\\x0a\\x1b[\\xc3\\\\");
    assert_true(strlen(identity_format(&id, small, sizeof(small))) < sizeof(small));
    id.type = ID_DER_DN;
    assert_string_equal(identity_format(&id, out, sizeof(out)), "0x610a1b5bc35c");
    id.type = ID_IPV4; /* of a wrong length */
    assert_string_equal(identity_format(&id, out, sizeof(out)), "type1:0x610a1b5bc35c");
    id.type = ID_NONE;
    assert_string_equal(identity_format(&id, out, sizeof(out)), "none");
}

static void unknown_attributes_print_their_number(void **state)
{
    (void)state;
    static const uint8_t dn[] = {0x30, 0x1c, 0x31, 0x1a, 0x30, 0x0b, 0x06, 0x03, 0x55, 0x04, 0x05, 0x13, 0x04, '1', '2',
                                 '3',  '4',  0x30, 0x0b, 0x06, 0x04, 0x2a, 0x86, 0x48, 0x01, 0x04, 0x03, 1,    2,   3};
    struct identity id = {.type = ID_DER_DN, .len = sizeof(dn)};
    char out[IDENTITY_TEXT];
    memcpy(id.b, dn, sizeof(dn));
    assert_string_equal(identity_format(&id, out, sizeof(out)), "2.5.4.5=1234+1.2.840.1=0x010203");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_told_by_their_looks),
        cmocka_unit_test(wrong_identities_are_refused),
        cmocka_unit_test(names_are_der),
        cmocka_unit_test(letter_case_is_ignored_in_names),
        cmocka_unit_test(equal_names_may_differ_in_string_type),
        cmocka_unit_test(foreign_bytes_are_escaped),
        cmocka_unit_test(unknown_attributes_print_their_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
