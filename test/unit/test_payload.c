/* IKEv2 messages: parsing, writing, legality (RFC 7296 sections 1.2 to 1.4, 2.5 and 3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "ike/payload.h"

#define SPI_I UINT64_C(0x0102030405060708)
#define SPI_R UINT64_C(0x1112131415161718)

struct text { /* a message, or a plaintext */
    uint8_t b[8192];
    size_t len;
};

static struct ike_header header(uint8_t exchange, uint8_t flags)
{
    bool first = exchange == EXCHANGE_SA_INIT && !(flags & IKE_FLAG_RESPONSE);
    return (struct ike_header){.spi_i = SPI_I, .spi_r = first ? 0 : SPI_R, .exchange = exchange, .flags = flags};
}

static void begin(struct ike_builder *b, struct text *t, uint8_t exchange, uint8_t flags)
{
    struct ike_header h = header(exchange, flags);
    ike_begin(b, t->b, sizeof t->b, &h);
}

static void finish(struct ike_builder *b, struct text *t)
{
    assert_int_equal(ike_finish(b, &t->len), OK);
}

static enum err parse(const struct text *t, struct ike_message *m)
{
    return ike_message_parse(span_of(t->b, t->len), m);
}

static struct selectors selectors(const char *list)
{
    struct selectors s;
    assert_int_equal(selectors_parse(list, &s, NULL, 0), OK);
    return s;
}

static const uint8_t filler[IKE_NONCE_MAX + 64] = {0x5a, 0x5b, 0x5c};

/* A payload of the type with a body that parses. */
static void put_sample(struct ike_builder *b, uint8_t type)
{
    struct identity id = {.type = ID_FQDN, .len = 4, .b = "host"};
    struct selectors ts = selectors("10.1.0.0/24[tcp/80], 2001:db8::/32");
    uint32_t spi = 0xc0ffee01;
    switch (type) {
    case PAYLOAD_KE:
        ike_put_ke(b, KE_CURVE25519, span_of(filler, 32));
        return;
    case PAYLOAD_IDI:
    case PAYLOAD_IDR:
        ike_put_id(b, type, &id);
        return;
    case PAYLOAD_AUTH:
        ike_put_auth(b, 2, span_of(filler, 32));
        return;
    case PAYLOAD_NONCE:
        ike_put(b, type, span_of(filler, 32));
        return;
    case PAYLOAD_NOTIFY:
        ike_put_notify(b, PROTOCOL_NONE, span_of(NULL, 0), NOTIFY_INITIAL_CONTACT, span_of(NULL, 0));
        return;
    case PAYLOAD_DELETE:
        ike_put_delete(b, PROTOCOL_ESP, &spi, 1);
        return;
    case PAYLOAD_TSI:
    case PAYLOAD_TSR:
        ike_put_ts(b, type, &ts);
        return;
    default:
        ike_put(b, type, span_of(filler, 12));
        return;
    }
}

static const uint8_t every_type[] = {PAYLOAD_SA,      PAYLOAD_KE,   PAYLOAD_IDI,   PAYLOAD_IDR,    PAYLOAD_CERT,
                                     PAYLOAD_CERTREQ, PAYLOAD_AUTH, PAYLOAD_NONCE, PAYLOAD_NOTIFY, PAYLOAD_DELETE,
                                     PAYLOAD_VENDOR,  PAYLOAD_TSI,  PAYLOAD_TSR,   PAYLOAD_CP,     PAYLOAD_EAP};
#define TYPES (sizeof every_type)

/* -- the header -- */

static void header_shorter_than_28_bytes_or_its_length_is_truncated(void **state)
{
    (void)state;
    struct text t;
    struct ike_builder b;
    struct ike_message m;
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    finish(&b, &t);
    for (size_t len = 0; len < IKE_HEADER_LEN; len++) {
        struct ike_header h;
        assert_int_equal(ike_header_parse(span_of(t.b, len), &h), ERR_TRUNCATED);
        assert_int_equal(ike_message_parse(span_of(t.b, len), &m), ERR_TRUNCATED);
    }
    assert_int_equal(parse(&t, &m), OK);
    put_be32(t.b + 24, IKE_HEADER_LEN + 1);
    assert_int_equal(parse(&t, &m), ERR_TRUNCATED);
    put_be32(t.b + 24, IKE_HEADER_LEN - 1);
    assert_int_equal(parse(&t, &m), ERR_TRUNCATED);
    put_be32(t.b + 24, UINT32_MAX);
    assert_int_equal(parse(&t, &m), ERR_TRUNCATED);
}

static void bytes_behind_the_stated_length_are_refused(void **state)
{
    (void)state;
    struct text t = {.len = 0};
    struct ike_builder b;
    struct ike_message m;
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    finish(&b, &t);
    t.len++;
    assert_int_equal(parse(&t, &m), ERR_SYNTAX);
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0); /* payloads that the header's length leaves out */
    put_sample(&b, PAYLOAD_NONCE);
    finish(&b, &t);
    put_be32(t.b + 24, IKE_HEADER_LEN);
    assert_int_equal(parse(&t, &m), ERR_SYNTAX);
}

static void header_fields_are_read_and_versions_not_judged(void **state)
{
    (void)state;
    struct text t;
    struct ike_builder b;
    struct ike_message m;
    struct ike_header h = {.spi_i = SPI_I, .spi_r = SPI_R, .exchange = 37, .flags = 0x28, .message_id = 0xdeadbeef};
    ike_begin(&b, t.b, sizeof t.b, &h);
    finish(&b, &t);
    assert_int_equal(t.b[17], 0x20);
    t.b[17] = 0x35;
    assert_int_equal(parse(&t, &m), OK);
    assert_true(m.h.spi_i == SPI_I && m.h.spi_r == SPI_R);
    assert_int_equal(m.h.version, 0x35);
    assert_int_equal(m.h.exchange, 37);
    assert_int_equal(m.h.flags, 0x28);
    assert_int_equal(m.h.message_id, 0xdeadbeef);
    assert_int_equal(m.h.length, 28);
}

/* -- what was written reads back -- */

static void write_everything(struct text *t, bool reversed)
{
    struct ike_builder b;
    begin(&b, t, EXCHANGE_INFORMATIONAL, 0);
    for (size_t i = 0; i < TYPES; i++)
        put_sample(&b, every_type[reversed ? TYPES - 1 - i : i]);
    finish(&b, t);
}

static void check_everything(const struct ike_message *m)
{
    struct selectors ts = selectors("10.1.0.0/24[tcp/80], 2001:db8::/32");
    uint32_t all = 0;
    for (size_t i = 0; i < TYPES; i++)
        all |= PAYLOAD_BIT(every_type[i]);
    assert_int_equal(m->seen, all);
    assert_int_equal(m->ke_group, KE_CURVE25519);
    assert_true(span_equal(m->ke, span_of(filler, 32)));
    assert_true(span_equal(m->nonce, span_of(filler, 32)));
    assert_int_equal(m->auth_method, 2);
    assert_true(span_equal(m->auth_data, span_of(filler, 32)));
    assert_true(span_equal(m->idi, span_of("\2\0\0\0host", 8)));
    assert_true(span_equal(m->idr, m->idi));
    assert_true(span_equal(m->sa, span_of(filler, 12)));
    assert_true(span_equal(m->cp, span_of(filler, 12)));
    assert_int_equal(m->notifies, 1);
    assert_int_equal(m->dels, 1);
    assert_int_equal(m->del[0].protocol, PROTOCOL_ESP);
    assert_int_equal(m->del[0].n, 1);
    assert_int_equal(m->del[0].spi[0], 0xc0ffee01);
    assert_true(m->tsi.present && m->tsr.present);
    assert_true(selectors_equal(&m->tsi.v, &ts) && selectors_equal(&m->tsr.v, &ts));
}

static void every_payload_reads_back_in_any_order(void **state)
{
    (void)state;
    struct text t;
    struct ike_message m;
    for (int reversed = 0; reversed < 2; reversed++) {
        write_everything(&t, reversed);
        assert_int_equal(parse(&t, &m), OK);
        check_everything(&m);
    }
}

static void selectors_have_the_wire_form_of_the_rfc(void **state)
{
    (void)state;
    static const uint8_t want[] = {1,  0, 0, 0, /* one selector, reserved */
                                   7,  6, 0, 16, 0,  80, 0, 90,
                                   10, 1, 0, 0,  10, 1,  0, 0xff}; /* IPv4, TCP, length, ports, addresses */
    struct text t;
    struct ike_builder b;
    struct selectors s = selectors("10.1.0.0/24[tcp/80-90]");
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    ike_put_ts(&b, PAYLOAD_TSI, &s);
    finish(&b, &t);
    assert_int_equal(t.len, IKE_HEADER_LEN + 4 + sizeof want);
    assert_memory_equal(t.b + IKE_HEADER_LEN + 4, want, sizeof want);
}

static void builder_reports_full_at_every_smaller_size(void **state)
{
    (void)state;
    struct text whole, t;
    write_everything(&whole, false);
    for (size_t cap = 0; cap <= whole.len; cap++) {
        struct ike_builder b;
        struct ike_header h = header(EXCHANGE_INFORMATIONAL, 0);
        memset(t.b, 0xee, sizeof t.b);
        ike_begin(&b, t.b, cap, &h);
        for (size_t i = 0; i < TYPES; i++)
            put_sample(&b, every_type[i]);
        assert_int_equal(ike_finish(&b, &t.len), cap < whole.len ? ERR_FULL : OK);
        assert_int_equal(t.b[cap], 0xee);
    }
    assert_memory_equal(t.b, whole.b, whole.len);
}

/* -- the chain -- */

static void reserved_and_critical_bits_of_known_payloads_are_ignored(void **state)
{
    (void)state;
    struct text t;
    struct ike_message m;
    write_everything(&t, false);
    for (size_t at = IKE_HEADER_LEN; at < t.len; at += get_be16(t.b + at + 2))
        t.b[at + 1] = 0xff;
    assert_int_equal(parse(&t, &m), OK);
    check_everything(&m);
}

static void reserved_fields_inside_payloads_are_ignored(void **state)
{
    (void)state;
    struct text t;
    struct ike_message m;
    write_everything(&t, false);
    uint8_t type = t.b[16];
    for (size_t at = IKE_HEADER_LEN; at < t.len; at += get_be16(t.b + at + 2)) {
        if (type == PAYLOAD_AUTH || type == PAYLOAD_TSI || type == PAYLOAD_TSR)
            memset(t.b + at + 5, 0xff, 3);
        if (type == PAYLOAD_KE)
            memset(t.b + at + 6, 0xff, 2);
        type = t.b[at];
    }
    assert_int_equal(parse(&t, &m), OK);
    check_everything(&m);
}

static const uint8_t unknown_types[] = {1, 2, 31, 32, 49, 52, 54, 127, 128, 254, 255};

static void unknown_payload_without_critical_bit_is_skipped(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unknown_types; i++) {
        struct text t;
        struct ike_builder b;
        struct ike_message m;
        begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
        ike_put(&b, unknown_types[i], span_of(filler, 7));
        put_sample(&b, PAYLOAD_NONCE);
        ike_put(&b, unknown_types[i], span_of(NULL, 0));
        finish(&b, &t);
        assert_int_equal(parse(&t, &m), OK);
        assert_int_equal(m.seen, PAYLOAD_BIT(PAYLOAD_NONCE));
    }
}

static void unknown_critical_payload_is_named_and_the_rest_still_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unknown_types; i++) {
        struct text t;
        struct ike_builder b;
        struct ike_message m;
        begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
        ike_put(&b, unknown_types[i], span_of(filler, 7));
        ike_put(&b, PAYLOAD_SK, span_of(filler, 64));
        finish(&b, &t);
        t.b[IKE_HEADER_LEN + 1] = 0x80;
        assert_int_equal(parse(&t, &m), ERR_CRITICAL);
        assert_int_equal(m.critical, unknown_types[i]);
        assert_int_equal(m.sk_offset, IKE_HEADER_LEN + 4 + 7 + 4);
        assert_int_equal(m.sk_len, 64);
    }
}

static void lying_payload_lengths_are_malformed(void **state)
{
    (void)state;
    struct text whole;
    struct ike_message m;
    write_everything(&whole, false);
    for (size_t at = IKE_HEADER_LEN; at < whole.len; at += get_be16(whole.b + at + 2)) {
        static const uint16_t lies[] = {0, 1, 2, 3, 0x7fff, 0xffff};
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
            struct text t = whole;
            put_be16(t.b + at + 2, lies[i]);
            assert_int_equal(parse(&t, &m), ERR_SYNTAX);
        }
    }
}

static void message_cut_anywhere_does_not_parse(void **state)
{
    (void)state;
    struct text t;
    struct ike_message m;
    write_everything(&t, false);
    for (size_t len = IKE_HEADER_LEN; len < t.len; len++) {
        uint8_t *exact = malloc(len); /* for the address sanitizer */
        assert_non_null(exact);
        memcpy(exact, t.b, len);
        put_be32(exact + 24, (uint32_t)len);
        assert_int_equal(ike_message_parse(span_of(exact, len), &m), ERR_SYNTAX);
        free(exact);
    }
}

static void chain_of_thousands_of_payloads_is_refused(void **state)
{
    (void)state;
    struct text t;
    struct ike_message m;
    for (unsigned n = 200; n <= 1000; n += 800) {
        struct ike_builder b;
        begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
        for (unsigned i = 0; i < n; i++)
            ike_put(&b, PAYLOAD_VENDOR, span_of(NULL, 0));
        finish(&b, &t);
        assert_int_equal(parse(&t, &m), n == 200 ? OK : ERR_SYNTAX);
    }
}

static void what_may_stand_once_is_refused_twice(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        uint8_t type = every_type[i];
        bool many = type == PAYLOAD_CERT || type == PAYLOAD_CERTREQ || type == PAYLOAD_NOTIFY ||
                    type == PAYLOAD_DELETE || type == PAYLOAD_VENDOR;
        struct text t;
        struct ike_builder b;
        struct ike_message m;
        begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
        put_sample(&b, type);
        put_sample(&b, type);
        finish(&b, &t);
        assert_int_equal(parse(&t, &m), many ? OK : ERR_SYNTAX);
    }
}

static void sk_is_found_and_must_be_last_and_not_nested(void **state)
{
    (void)state;
    struct text t;
    struct ike_builder b;
    struct ike_message m;
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    ike_put(&b, PAYLOAD_SK, span_of(filler, 40));
    finish(&b, &t);
    t.b[IKE_HEADER_LEN] = PAYLOAD_DELETE;
    assert_int_equal(parse(&t, &m), OK);
    assert_int_equal(m.sk_offset, IKE_HEADER_LEN + 4);
    assert_int_equal(m.sk_len, 40);
    assert_int_equal(m.sk_first, PAYLOAD_DELETE);
    assert_false(m.opened);

    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    ike_put(&b, PAYLOAD_SK, span_of(filler, 40));
    put_sample(&b, PAYLOAD_NONCE);
    finish(&b, &t);
    assert_int_equal(parse(&t, &m), ERR_SYNTAX);

    static const uint8_t inner[] = {0, 0, 0, 4};
    memset(&m, 0, sizeof m);
    assert_int_equal(ike_inner_parse(PAYLOAD_SK, span_of(inner, 4), &m), ERR_SYNTAX);
    memset(&m, 0, sizeof m);
    assert_int_equal(ike_inner_parse(PAYLOAD_SKF, span_of(inner, 4), &m), ERR_SYNTAX);
}

static void inner_chain_adds_to_the_message(void **state)
{
    (void)state;
    struct text t;
    struct ike_builder b;
    struct ike_message m = {.seen = PAYLOAD_BIT(PAYLOAD_SK)};
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    put_sample(&b, PAYLOAD_DELETE);
    finish(&b, &t);
    struct span inner = span_of(t.b + IKE_HEADER_LEN, t.len - IKE_HEADER_LEN);
    assert_int_equal(ike_inner_parse(PAYLOAD_DELETE, inner, &m), OK);
    assert_true(m.opened);
    assert_int_equal(m.seen, PAYLOAD_BIT(PAYLOAD_SK) | PAYLOAD_BIT(PAYLOAD_DELETE));
    assert_int_equal(m.dels, 1);
    inner.len--;
    memset(&m, 0, sizeof m);
    assert_int_equal(ike_inner_parse(PAYLOAD_DELETE, inner, &m), ERR_SYNTAX);
    memset(&m, 0, sizeof m); /* nothing inside is a legal informational message */
    assert_int_equal(ike_inner_parse(PAYLOAD_NONE, span_of(NULL, 0), &m), OK);
    memset(&m, 0, sizeof m); /* bytes that no payload accounts for */
    assert_int_equal(ike_inner_parse(PAYLOAD_NONE, span_of(t.b, 1), &m), ERR_SYNTAX);
}

/* -- single payloads -- */

static enum err parse_one(uint8_t type, const void *body, size_t len, struct ike_message *m)
{
    static struct text t;
    struct ike_builder b;
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    ike_put(&b, type, span_of(body, len));
    finish(&b, &t);
    return parse(&t, m);
}

static void nonce_has_16_to_256_bytes(void **state)
{
    (void)state;
    struct ike_message m;
    for (size_t len = 0; len <= sizeof filler; len++)
        assert_int_equal(parse_one(PAYLOAD_NONCE, filler, len, &m), len < 16 || len > 256 ? ERR_SYNTAX : OK);
}

static void fixed_parts_of_bodies_must_be_there(void **state)
{
    (void)state;
    static const uint8_t types[] = {PAYLOAD_KE,     PAYLOAD_IDI,    PAYLOAD_IDR, PAYLOAD_AUTH,
                                    PAYLOAD_NOTIFY, PAYLOAD_DELETE, PAYLOAD_TSI, PAYLOAD_TSR};
    static const uint8_t zero[4];
    struct ike_message m;
    for (size_t i = 0; i < sizeof types; i++)
        for (size_t len = 0; len < 4; len++)
            assert_int_equal(parse_one(types[i], zero, len, &m), ERR_SYNTAX);
}

static void notify_with_lying_spi_size_is_malformed(void **state)
{
    (void)state;
    uint8_t body[] = {PROTOCOL_ESP, 4, 0x40, 0x09, 1, 2, 3, 4, 9, 9};
    struct ike_message m;
    assert_int_equal(parse_one(PAYLOAD_NOTIFY, body, sizeof body, &m), OK);
    const struct ike_notify *n = ike_find_notify(&m, NOTIFY_REKEY_SA);
    assert_non_null(n);
    assert_int_equal(n->protocol, PROTOCOL_ESP);
    assert_true(span_equal(n->spi, span_of("\1\2\3\4", 4)));
    assert_true(span_equal(n->data, span_of("\11\11", 2)));
    assert_null(ike_find_notify(&m, NOTIFY_COOKIE));
    assert_null(ike_find_error(&m));
    body[1] = 7;
    assert_int_equal(parse_one(PAYLOAD_NOTIFY, body, sizeof body, &m), ERR_SYNTAX);
    body[1] = 255;
    assert_int_equal(parse_one(PAYLOAD_NOTIFY, body, sizeof body, &m), ERR_SYNTAX);
}

static void first_error_notify_is_found_and_more_notifies_than_room_are_ignored(void **state)
{
    (void)state;
    struct text t;
    struct ike_builder b;
    struct ike_message m;
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    put_sample(&b, PAYLOAD_NOTIFY);
    ike_put_notify(&b, 0, span_of(NULL, 0), 16383, span_of(NULL, 0));
    for (unsigned i = 0; i < 100; i++)
        ike_put_notify(&b, 0, span_of(NULL, 0), NOTIFY_TS_UNACCEPTABLE, span_of(NULL, 0));
    finish(&b, &t);
    assert_int_equal(parse(&t, &m), OK);
    assert_int_equal(m.notifies, IKE_NOTIFIES_MAX);
    assert_int_equal(ike_find_error(&m)->type, 16383);
}

static void delete_is_held_to_its_protocol_and_count(void **state)
{
    (void)state;
    struct ike_message m;
    static const struct {
        uint8_t b[12];
        size_t len;
        enum err want;
    } cases[] = {
        {{1, 0, 0, 0}, 4, OK},                                  /* IKE */
        {{1, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}, 12, ERR_SYNTAX}, /* IKE with an SPI */
        {{3, 4, 0, 1, 1, 2, 3, 4}, 8, OK},
        {{2, 4, 0, 1, 1, 2, 3, 4}, 8, OK},
        {{3, 4, 0, 2, 1, 2, 3, 4}, 8, ERR_SYNTAX},              /* two promised */
        {{3, 4, 0, 0, 1, 2, 3, 4}, 8, ERR_SYNTAX},              /* none promised */
        {{3, 4, 0xff, 0xff, 1, 2, 3, 4}, 8, ERR_SYNTAX},        /* all promised */
        {{3, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}, 12, ERR_SYNTAX}, /* ESP's has four bytes */
        {{3, 0, 0, 9}, 4, ERR_SYNTAX},
        {{99, 2, 0, 2, 1, 2, 3, 4}, 8, OK},         /* a protocol we don't know is skipped, */
        {{99, 2, 0, 3, 1, 2, 3, 4}, 8, ERR_SYNTAX}, /* but not its lies */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(parse_one(PAYLOAD_DELETE, cases[i].b, cases[i].len, &m), cases[i].want);
        if (cases[i].want == OK)
            assert_int_equal(m.dels, cases[i].b[0] == 99 ? 0 : 1);
    }
}

static void deletes_of_one_protocol_are_taken_together_and_bounded(void **state)
{
    (void)state;
    struct text t;
    struct ike_builder b;
    struct ike_message m;
    uint32_t spis[50];
    for (uint32_t i = 0; i < 50; i++)
        spis[i] = 1000 + i;
    begin(&b, &t, EXCHANGE_INFORMATIONAL, 0);
    ike_put_delete(&b, PROTOCOL_ESP, spis, 1);
    ike_put_delete(&b, PROTOCOL_AH, spis, 2);
    ike_put_delete(&b, PROTOCOL_IKE, NULL, 0);
    for (unsigned i = 0; i < 5; i++)
        ike_put_delete(&b, PROTOCOL_ESP, spis, 50);
    finish(&b, &t);
    assert_int_equal(parse(&t, &m), OK);
    assert_int_equal(m.dels, 3);
    assert_int_equal(m.del[0].protocol, PROTOCOL_ESP);
    assert_int_equal(m.del[0].n, IKE_SPIS_MAX);
    assert_int_equal(m.del[0].spi[0], 1000);
    assert_int_equal(m.del[0].spi[50], 1049);
    assert_int_equal(m.del[1].n, 2);
    assert_int_equal(m.del[2].n, 0);
}

static void traffic_selectors_that_lie_are_malformed(void **state)
{
    (void)state;
    static const uint8_t good[] = {1, 0, 0, 0, 7, 6, 0, 16, 0, 80, 0, 90, 10, 1, 0, 0, 10, 1, 0, 0xff};
    static const struct {
        unsigned at;
        uint8_t value;
        enum err want;
    } changes[] = {
        {0, 0, ERR_SYNTAX},                        /* none counted */
        {0, 2, ERR_SYNTAX},                        /* one more counted */
        {0, 255, ERR_SYNTAX}, {7, 15, ERR_SYNTAX}, /* selector length */
        {7, 17, ERR_SYNTAX},  {7, 3, ERR_SYNTAX},  {7, 0, ERR_SYNTAX},
        {6, 1, ERR_SYNTAX},   {4, 8, ERR_SYNTAX}, /* IPv6 of IPv4's length */
        {11, 79, ERR_SYNTAX},                     /* ports 80..79 */
        {16, 9, ERR_SYNTAX},                      /* addresses 10.1.0.0..9.1.0.255 */
        {9, 90, OK},                              /* one port */
        {4, 9, OK},                               /* a type we don't know */
    };
    struct ike_message m;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        uint8_t body[sizeof good];
        memcpy(body, good, sizeof good);
        body[changes[i].at] = changes[i].value;
        assert_int_equal(parse_one(PAYLOAD_TSI, body, sizeof body, &m), changes[i].want);
    }
    for (size_t len = 0; len < sizeof good; len++)
        assert_int_equal(parse_one(PAYLOAD_TSR, good, len, &m), ERR_SYNTAX);
}

static void opaque_ports_and_unknown_selector_types_are_kept_and_counted(void **state)
{
    (void)state;
    static const uint8_t body[] = {3,  0,  0, 0,                                                            /* three */
                                   7,  17, 0, 16, 0xff, 0xff, 0,    0,    10, 1, 0, 0, 10,   1,    0,    0, /* OPAQUE */
                                   10, 0,  0, 8,  1,    2,    3,    4, /* a security label */
                                   7,  0,  0, 16, 0,    0,    0xff, 0xff, 0,  0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    struct ike_message m;
    assert_int_equal(parse_one(PAYLOAD_TSI, body, sizeof body, &m), OK);
    assert_int_equal(m.tsi.v.n, 2);
    assert_int_equal(m.tsi.ignored, 1);
    assert_int_equal(m.tsi.v.v[0].port_first, 65535);
    assert_int_equal(m.tsi.v.v[0].port_last, 0);
    assert_int_equal(m.tsi.v.v[1].port_last, 65535);
}

static void more_selectors_than_room_are_ignored(void **state)
{
    (void)state;
    uint8_t body[4 + 255 * 16] = {255};
    for (unsigned i = 0; i < 255; i++)
        memcpy(body + 4 + 16 * i, "\7\0\0\20\0\0\377\377\12\0\0\0\12\0\0\377", 16);
    struct ike_message m;
    assert_int_equal(parse_one(PAYLOAD_TSI, body, sizeof body, &m), OK);
    assert_int_equal(m.tsi.v.n, SELECTORS_MAX);
    assert_int_equal(m.tsi.ignored, 255 - SELECTORS_MAX);
}

static void identities_are_held_to_their_type_and_room(void **state)
{
    (void)state;
    static uint8_t body[65535];
    struct identity id;
    memset(body, 'x', sizeof body);
    for (size_t len = 0; len < 4; len++)
        assert_int_equal(ike_identity(span_of(body, len), &id), ERR_SYNTAX);
    static const uint8_t types[] = {ID_IPV4, ID_FQDN, ID_RFC822, ID_IPV6, ID_DER_DN, ID_KEY_ID, 13, 200};
    for (size_t i = 0; i < sizeof types; i++) {
        body[0] = types[i];
        for (size_t len = 0; len <= sizeof body - 4; len += len < 300 ? 1 : 5000) {
            enum err want = len > IDENTITY_MAX ? ERR_RANGE : OK;
            if (want == OK && ((types[i] == ID_IPV4 && len != 4) || (types[i] == ID_IPV6 && len != 16) ||
                               (len == 0 && types[i] <= ID_KEY_ID)))
                want = ERR_SYNTAX;
            assert_int_equal(ike_identity(span_of(body, 4 + len), &id), want);
            if (want == OK) {
                assert_int_equal(id.type, types[i]);
                assert_int_equal(id.len, len);
            }
        }
    }
    assert_int_equal(ike_identity(span_of("\2\0\0\0a\0b", 7), &id), ERR_SYNTAX);
    assert_int_equal(ike_identity(span_of("\3\0\0\0a\nb", 7), &id), ERR_SYNTAX);
    assert_int_equal(ike_identity(span_of("\13\0\0\0a\0b", 7), &id), OK);
    assert_int_equal(ike_identity(span_of("\2\1\2\3host", 8), &id), OK); /* reserved bits */
}

static void notify_names_are_the_rfcs(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(notify_name(NOTIFY_NO_PROPOSAL_CHOSEN, text, sizeof text), "NO_PROPOSAL_CHOSEN");
    assert_string_equal(notify_name(NOTIFY_INITIAL_CONTACT, text, sizeof text), "INITIAL_CONTACT");
    assert_string_equal(notify_name(12345, text, sizeof text), "notify 12345");
}

/* -- legality -- */

/* The message that these payloads make, as if it had come: outside for IKE_SA_INIT, inside SK for all others. */
static struct ike_message made_of(uint8_t exchange, uint8_t flags, const uint8_t *types, unsigned n, uint16_t notify)
{
    struct ike_message m = {.h = header(exchange, flags), .seen = exchange == 34 ? 0 : PAYLOAD_BIT(PAYLOAD_SK)};
    m.opened = exchange != EXCHANGE_SA_INIT;
    for (unsigned i = 0; i < n; i++)
        m.seen |= PAYLOAD_BIT(types[i]);
    if (notify) {
        m.seen |= PAYLOAD_BIT(PAYLOAD_NOTIFY);
        m.notify[m.notifies++].type = notify;
    }
    return m;
}

#define INITIAL IKE_FLAG_INITIATOR
#define ANSWER IKE_FLAG_RESPONSE
#define LIST(...)                                     \
    (const uint8_t[]){__VA_ARGS__}, sizeof(uint8_t[]) \
    {                                                 \
        __VA_ARGS__                                   \
    }

static bool legal(uint8_t exchange, uint8_t flags, const uint8_t *types, unsigned n, uint16_t notify)
{
    struct ike_message m = made_of(exchange, flags, types, n, notify);
    return ike_message_legal(&m) == OK;
}

static void complete_messages_are_legal(void **state)
{
    (void)state;
    assert_true(legal(34, INITIAL, LIST(33, 34, 40), 0));
    assert_true(legal(34, INITIAL, LIST(33, 34, 40, 43), NOTIFY_COOKIE));
    assert_true(legal(34, INITIAL, LIST(33, 34, 40), 12345)); /* an error in a request is ignored (section 3.10.1) */
    assert_true(legal(34, ANSWER, LIST(33, 34, 40, 38), NOTIFY_NAT_DETECTION_SOURCE_IP));
    assert_true(legal(34, ANSWER, LIST(41), NOTIFY_COOKIE));
    assert_true(legal(34, ANSWER, LIST(41), NOTIFY_INVALID_KE_PAYLOAD));
    assert_true(legal(35, INITIAL, LIST(35, 36, 39, 33, 44, 45, 37, 38), NOTIFY_INITIAL_CONTACT));
    assert_true(legal(35, INITIAL, LIST(35, 39), 0));             /* childless */
    assert_true(legal(35, INITIAL, LIST(35, 33, 44, 45, 47), 0)); /* asks for EAP */
    assert_true(legal(35, ANSWER, LIST(36, 39, 33, 44, 45), 0));
    assert_true(legal(35, ANSWER, LIST(36, 39), NOTIFY_TS_UNACCEPTABLE));
    assert_true(legal(35, ANSWER, LIST(41), NOTIFY_AUTHENTICATION_FAILED));
    assert_true(legal(36, 0, LIST(33, 40, 44, 45), NOTIFY_REKEY_SA));
    assert_true(legal(36, 0, LIST(33, 40, 34, 44, 45), 0));
    assert_true(legal(36, 0, LIST(33, 40, 34), 0)); /* the IKE SA's rekey */
    assert_true(legal(36, ANSWER, LIST(33, 40, 34, 44, 45), 0));
    assert_true(legal(36, ANSWER, LIST(33, 40, 34), 0));
    assert_true(legal(36, ANSWER, LIST(41), NOTIFY_TEMPORARY_FAILURE));
    assert_true(legal(37, 0, NULL, 0, 0));
    assert_true(legal(37, ANSWER, LIST(42), 0));
}

static void message_that_lacks_a_payload_is_illegal(void **state)
{
    (void)state;
    static const struct {
        uint8_t exchange, flags, n, types[6];
    } whole[] = {
        {34, INITIAL, 3, {33, 34, 40}},     {34, ANSWER, 3, {33, 34, 40}},
        {35, INITIAL, 4, {35, 33, 44, 45}}, {35, ANSWER, 5, {36, 39, 33, 44, 45}},
        {36, 0, 4, {33, 40, 44, 45}},       {36, ANSWER, 4, {33, 40, 44, 45}},
        {36, 0, 3, {33, 40, 34}},           {36, ANSWER, 3, {33, 40, 34}},
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        assert_true(legal(whole[i].exchange, whole[i].flags, whole[i].types, whole[i].n, 0));
        for (unsigned without = 0; without < whole[i].n; without++) {
            uint8_t types[6];
            unsigned n = 0;
            for (unsigned k = 0; k < whole[i].n; k++)
                if (k != without)
                    types[n++] = whole[i].types[k];
            assert_false(legal(whole[i].exchange, whole[i].flags, types, n, 0));
            assert_false(legal(whole[i].exchange, whole[i].flags, types, n, NOTIFY_INITIAL_CONTACT));
        }
    }
}

static void payload_where_it_must_not_be_is_illegal(void **state)
{
    (void)state;
    assert_false(legal(34, INITIAL, LIST(33, 34, 40, 39), 0)); /* AUTH before there are keys */
    assert_false(legal(34, INITIAL, LIST(33, 34, 40, 46), 0)); /* SK likewise */
    assert_false(legal(34, INITIAL, LIST(33, 34, 40, 42), 0)); /* an unprotected Delete */
    assert_false(legal(34, ANSWER, LIST(33, 34, 40, 46), 0));
    assert_false(legal(35, INITIAL, LIST(35, 39, 40), 0));
    assert_false(legal(35, INITIAL, LIST(35, 39, 33, 44), 0)); /* TSi alone */
    assert_false(legal(36, 0, LIST(33, 40, 34, 44), 0));
    assert_false(legal(36, 0, LIST(33, 40, 34, 44, 45, 39), 0));
    assert_false(legal(38, 0, LIST(33, 34, 40), 0)); /* exchanges we don't know */
    assert_false(legal(0, 0, NULL, 0, 0));
    assert_false(legal(34, ANSWER, LIST(41), NOTIFY_NAT_DETECTION_SOURCE_IP)); /* neither answer nor error */
}

static void everything_but_the_first_exchange_must_come_protected(void **state)
{
    (void)state;
    for (uint8_t exchange = 35; exchange <= 37; exchange++) {
        struct ike_message m = made_of(exchange, ANSWER, LIST(41), NOTIFY_TEMPORARY_FAILURE);
        assert_int_equal(ike_message_legal(&m), OK);
        m.opened = false; /* an SK payload that nobody opened */
        assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
        m.seen &= ~PAYLOAD_BIT(PAYLOAD_SK);
        assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    }
}

static void header_of_a_first_message_is_checked(void **state)
{
    (void)state;
    struct ike_message good = made_of(34, INITIAL, LIST(33, 34, 40), 0), m = good;
    m.h.spi_i = 0;
    assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    m = good;
    m.h.spi_r = 1;
    assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    m = good;
    m.h.message_id = 1;
    assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    m = good;
    m.h.flags = 0;
    assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    m = good;
    m.h.flags |= IKE_FLAG_VERSION | 0xc7; /* V and the undefined bits are ignored (section 3.1) */
    assert_int_equal(ike_message_legal(&m), OK);
    m = made_of(34, ANSWER, LIST(33, 34, 40), 0);
    m.h.spi_r = 0;
    assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    m.h.spi_r = 1;
    m.h.flags |= IKE_FLAG_INITIATOR;
    assert_int_equal(ike_message_legal(&m), ERR_SYNTAX);
    m = made_of(34, ANSWER, LIST(41), NOTIFY_INVALID_KE_PAYLOAD); /* with or without a responder's SPI */
    assert_int_equal(ike_message_legal(&m), OK);
    m.h.spi_r = 0;
    assert_int_equal(ike_message_legal(&m), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_shorter_than_28_bytes_or_its_length_is_truncated),
        cmocka_unit_test(bytes_behind_the_stated_length_are_refused),
        cmocka_unit_test(header_fields_are_read_and_versions_not_judged),
        cmocka_unit_test(every_payload_reads_back_in_any_order),
        cmocka_unit_test(selectors_have_the_wire_form_of_the_rfc),
        cmocka_unit_test(builder_reports_full_at_every_smaller_size),
        cmocka_unit_test(reserved_and_critical_bits_of_known_payloads_are_ignored),
        cmocka_unit_test(reserved_fields_inside_payloads_are_ignored),
        cmocka_unit_test(unknown_payload_without_critical_bit_is_skipped),
        cmocka_unit_test(unknown_critical_payload_is_named_and_the_rest_still_read),
        cmocka_unit_test(lying_payload_lengths_are_malformed),
        cmocka_unit_test(message_cut_anywhere_does_not_parse),
        cmocka_unit_test(chain_of_thousands_of_payloads_is_refused),
        cmocka_unit_test(what_may_stand_once_is_refused_twice),
        cmocka_unit_test(sk_is_found_and_must_be_last_and_not_nested),
        cmocka_unit_test(inner_chain_adds_to_the_message),
        cmocka_unit_test(nonce_has_16_to_256_bytes),
        cmocka_unit_test(fixed_parts_of_bodies_must_be_there),
        cmocka_unit_test(notify_with_lying_spi_size_is_malformed),
        cmocka_unit_test(first_error_notify_is_found_and_more_notifies_than_room_are_ignored),
        cmocka_unit_test(delete_is_held_to_its_protocol_and_count),
        cmocka_unit_test(deletes_of_one_protocol_are_taken_together_and_bounded),
        cmocka_unit_test(traffic_selectors_that_lie_are_malformed),
        cmocka_unit_test(opaque_ports_and_unknown_selector_types_are_kept_and_counted),
        cmocka_unit_test(more_selectors_than_room_are_ignored),
        cmocka_unit_test(identities_are_held_to_their_type_and_room),
        cmocka_unit_test(notify_names_are_the_rfcs),
        cmocka_unit_test(complete_messages_are_legal),
        cmocka_unit_test(message_that_lacks_a_payload_is_illegal),
        cmocka_unit_test(payload_where_it_must_not_be_is_illegal),
        cmocka_unit_test(everything_but_the_first_exchange_must_come_protected),
        cmocka_unit_test(header_of_a_first_message_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
