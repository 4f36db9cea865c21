/*
 * Fragments as an authenticated peer may send them, held against a plain model of RFC 7383 section 2.6; and any text
 * sealed into fragments, which must join into the same again.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "crypto/secret.h"
#include "ike/fragment.h"

static struct {
    struct suite suite;
    struct keyed *seal, *open;
    uint64_t iv;
} with;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    static const uint8_t key[64] = {3, 1, 4};
    struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
    FUZZ_CHECK(crypto_init() == OK && suite_of(&gcm, NULL, &with.suite) == OK);
    struct span k = span_of(key, with.suite.encr_key_len), none = span_of(NULL, 0);
    FUZZ_CHECK(keyed_new(&with.seal, &with.suite, TRANSFORM_SEAL, NULL, k, none) == OK);
    FUZZ_CHECK(keyed_new(&with.open, &with.suite, TRANSFORM_OPEN, NULL, k, none) == OK);
    return 0;
}

/* -- seeds: records of number, total, exchange, first type, length and content -- */

static void put_record(struct writer *w, uint16_t number, uint16_t total, uint16_t len)
{
    uint8_t *p;
    write_u16(w, number);
    write_u16(w, total);
    write_u8(w, EXCHANGE_AUTH);
    write_u8(w, PAYLOAD_VENDOR);
    write_u16(w, len);
    p = write_room(w, len);
    if (p)
        memset(p, number, len);
}

size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    struct writer w = writer_of(out, cap);
    if (i > 3)
        return 0;
    for (uint16_t n = 1; n <= 4; n++)
        put_record(&w, i % 2 ? (uint16_t)(5 - n) : n, 4, (uint16_t)(i * 1000 + n));
    for (uint16_t n = 64; i >= 2 && n > 0; n--)
        put_record(&w, n, 64, 1000);
    return writer_len(&w);
}

/* -- receiving -- */

struct model {
    uint16_t total;
    uint8_t exchange, first;
    size_t len;
    bool there[FRAGMENTS_MAX];
    struct span part[FRAGMENTS_MAX];
};

static bool model_wants(const struct model *o, const struct ike_message *m)
{
    if (m->fragment == 0 || m->fragments == 0 || m->fragment > m->fragments || m->fragments > FRAGMENTS_MAX)
        return false;
    if (o->total == 0)
        return true;
    return m->h.exchange == o->exchange && m->fragments >= o->total &&
           (m->fragments > o->total || !o->there[m->fragment - 1]);
}

/* Takes it, unless all of it would be more than a message can hold. */
static bool model_keeps(struct model *o, const struct ike_message *m, struct span text)
{
    bool fresh = m->fragments != o->total;
    if (text.len > IKE_MESSAGE_MAX - (fresh ? 0 : o->len))
        return false;
    if (fresh)
        *o = (struct model){.total = m->fragments, .exchange = m->h.exchange};
    o->there[m->fragment - 1] = true;
    o->part[m->fragment - 1] = text;
    o->len += text.len;
    if (m->fragment == 1)
        o->first = m->sk_first;
    return true;
}

static bool model_complete(const struct model *o)
{
    for (unsigned i = 0; i < o->total; i++)
        if (!o->there[i])
            return false;
    return o->total > 0;
}

static void check_joined(const struct model *o, const struct ike_message *m, struct span text)
{
    FUZZ_CHECK(text.len == o->len && m->sk_first == o->first && m->h.exchange == o->exchange);
    FUZZ_CHECK(m->seen == PAYLOAD_BIT(PAYLOAD_SK) && !m->opened && m->fragments == 0);
    size_t at = 0;
    for (unsigned i = 0; i < o->total; i++) {
        FUZZ_CHECK(span_equal(o->part[i], span_of(text.data + at, o->part[i].len)));
        at += o->part[i].len;
    }
}

static void receive(struct span input)
{
    static uint8_t out[IKE_MESSAGE_MAX];
    static struct ike_message m;
    struct fragments *set = NULL;
    struct model o = {0};
    struct reader r = reader_of(input);
    while (reader_left(&r) >= 8) {
        m = (struct ike_message){.h.message_id = 1, .fragment = read_u16(&r), .fragments = read_u16(&r)};
        m.h.exchange = read_u8(&r);
        m.sk_first = read_u8(&r);
        size_t len = read_u16(&r);
        struct span text = read_span(&r, len < reader_left(&r) ? len : reader_left(&r)), whole;
        bool want = fragment_wanted(set, &m);
        FUZZ_CHECK(want == model_wants(&o, &m));
        if (!want)
            continue;
        FUZZ_CHECK((fragment_keep(&set, &m, text, 0) == OK) == model_keeps(&o, &m, text));
        bool complete = model_complete(&o);
        FUZZ_CHECK(fragments_join(&set, out, &m, &whole) == complete);
        if (!complete)
            continue;
        check_joined(&o, &m, whole);
        FUZZ_CHECK(set == NULL);
        (void)!ike_inner_parse(m.sk_first, whole, &m);
        o = (struct model){0};
    }
    fragments_free(&set);
}

/* -- sending -- */

static void next_iv(void *ctx, uint8_t iv[TRANSFORM_IV_MAX])
{
    (void)ctx;
    put_be64(iv, ++with.iv);
}

static void take(struct fragments **set, struct span message)
{
    static uint8_t copy[IKE_MESSAGE_MAX];
    static struct ike_message m;
    struct span text;
    memcpy(copy, message.data, message.len);
    FUZZ_CHECK(ike_message_parse(span_of(copy, message.len), &m) == OK);
    FUZZ_CHECK(ike_open_sk(copy, &m, &with.suite, with.open, &text) == OK);
    FUZZ_CHECK(fragment_wanted(*set, &m) && fragment_keep(set, &m, text, 0) == OK);
}

static void send_and_join(struct span text, size_t max)
{
    static uint8_t plain[IKE_MESSAGE_MAX], out[IKE_MESSAGE_MAX];
    static struct ike_message m;
    uint8_t iv[TRANSFORM_IV_MAX];
    struct ike_builder b;
    struct buf flight = {NULL, 0, 0};
    struct fragments *set = NULL;
    struct ike_header h = {.spi_i = 1, .spi_r = 2, .exchange = EXCHANGE_AUTH};
    struct fragment_sealer f = {.suite = &with.suite, .key = with.seal, .max = max, .iv = next_iv};
    next_iv(NULL, iv);
    ike_begin(&b, plain, sizeof plain, &h);
    ike_begin_sk(&b, &with.suite, span_of(iv, with.suite.iv_len));
    write_span(&b.w, text);
    bool fits = !b.w.failed;
    if (fragment_seal(&b, &f, &flight) != OK) {
        FUZZ_CHECK(!fits || max < 140 || text.len > 64 * (max - 61));
        return;
    }
    struct span rest = buf_span(&flight), first = flight_next(&rest), whole;
    FUZZ_CHECK(first.len <= max);
    if (rest.len) {
        take(&set, first);
        while (rest.len) {
            struct span next = flight_next(&rest);
            FUZZ_CHECK(next.len <= max);
            take(&set, next);
        }
        FUZZ_CHECK(fragments_join(&set, out, &m, &whole) && span_equal(whole, text));
    }
    buf_free(&flight);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    receive(span_of(data, len));
    if (len >= 2)
        send_and_join(span_of(data + 2, len - 2), get_be16(data) % 1500);
    return 0;
}
