/*
 * Whole IKE messages, as a stranger may send them: header, payload chain, legality, and everything that looks into the
 * parts. What was parsed is written again, and must read back as the same.
 */
#include <string.h>

#include "crypto/secret.h"
#include "ike/narrow.h"
#include "ike/nat.h"
#include "ike/payload.h"
#include "ike/proposal.h"
#include "test/fuzz/fuzz.h"

static struct {
    struct proposals ike, esp;
    struct policy policy;
    struct suite gcm, cbc;
    struct keyed *seal, *open_gcm, *open_cbc;
} with;

static void want(enum err e)
{
    FUZZ_CHECK(e == OK);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    static const uint8_t key[64] = {1, 2, 3};
    struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 256}, none = {0, 0, 0};
    struct transform cbc = {TRANSFORM_ENCR, ENCR_AES_CBC, 128}, mac = {TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128, 0};
    want(crypto_init());
    proposals_default(PROTOCOL_IKE, &with.ike);
    proposals_default(PROTOCOL_ESP, &with.esp);
    want(selectors_parse("10.0.0.0/8[tcp], 192.0.2.0-192.0.2.77, 2001:db8::/32", &with.policy.local, NULL, 0));
    want(selectors_parse("0.0.0.0/0, ::/0[udp/1000-2000]", &with.policy.remote, NULL, 0));
    want(suite_of(&gcm, &none, &with.gcm));
    want(suite_of(&cbc, &mac, &with.cbc));
    struct span k = span_of(key, with.gcm.encr_key_len);
    want(keyed_new(&with.seal, &with.gcm, TRANSFORM_SEAL, NULL, k, span_of(NULL, 0)));
    want(keyed_new(&with.open_gcm, &with.gcm, TRANSFORM_OPEN, NULL, k, span_of(NULL, 0)));
    want(keyed_new(&with.open_cbc, &with.cbc, TRANSFORM_OPEN, NULL, span_of(key, with.cbc.encr_key_len),
                   span_of(key, with.cbc.integ_key_len)));
    return 0;
}

/* -- seeds -- */

static const uint8_t filler[64] = {7, 7, 7};

static void put_init(struct ike_builder *b, bool answer)
{
    proposal_put_offer(b, &with.ike, 0, 0);
    ike_put_ke(b, KE_CURVE25519, span_of(filler, 32));
    ike_put(b, PAYLOAD_NONCE, span_of(filler, 32));
    ike_put_notify(b, 0, span_of(NULL, 0), NOTIFY_NAT_DETECTION_SOURCE_IP, span_of(filler, 20));
    ike_put_notify(b, 0, span_of(NULL, 0), NOTIFY_NAT_DETECTION_DESTINATION_IP, span_of(filler, 20));
    if (answer)
        ike_put(b, PAYLOAD_CERTREQ, span_of(filler, 21));
}

static void put_auth(struct ike_builder *b)
{
    struct identity id = {.type = ID_FQDN, .len = 7, .b = "example"};
    ike_put_id(b, PAYLOAD_IDI, &id);
    ike_put_id(b, PAYLOAD_IDR, &id);
    ike_put_auth(b, 2, span_of(filler, 32));
    proposal_put_offer(b, &with.esp, 0xc0ffee01, 4);
    ike_put_ts(b, PAYLOAD_TSI, &with.policy.remote);
    ike_put_ts(b, PAYLOAD_TSR, &with.policy.local);
    ike_put_notify(b, 0, span_of(NULL, 0), NOTIFY_INITIAL_CONTACT, span_of(NULL, 0));
}

static void put_informational(struct ike_builder *b)
{
    static const uint32_t spis[] = {1000, 2000, 3000};
    ike_put_delete(b, PROTOCOL_ESP, spis, 3);
    ike_put_delete(b, PROTOCOL_IKE, NULL, 0);
    ike_put_notify(b, PROTOCOL_ESP, span_of(filler, 4), NOTIFY_REKEY_SA, span_of(filler, 4));
    ike_put(b, 200, span_of(filler, 5));
}

size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    struct ike_header h = {.spi_i = 0x0102030405060708, .exchange = EXCHANGE_SA_INIT, .flags = IKE_FLAG_INITIATOR};
    struct ike_builder b;
    size_t len;
    if (i > 5)
        return 0;
    if (i == 1)
        h.flags = IKE_FLAG_RESPONSE;
    if (i >= 1)
        h.spi_r = 0x1112131415161718;
    if (i >= 2)
        h.exchange = (uint8_t)(EXCHANGE_SA_INIT + (i > 4 ? 3 : i - 1));
    ike_begin(&b, out, cap, &h);
    if (i == 5)
        ike_begin_sk(&b, &with.gcm, span_of(filler, 8));
    if (i < 2)
        put_init(&b, i == 1);
    else if (i < 4)
        put_auth(&b);
    else
        put_informational(&b);
    if (i == 5)
        want(ike_finish_sk(&b, &with.gcm, with.seal, &len));
    else
        want(ike_finish(&b, &len));
    return len;
}

/* -- what is done with a message -- */

static bool inside(struct span part, struct span whole)
{
    return part.len == 0 || (part.data >= whole.data && part.len <= whole.len &&
                             (size_t)(part.data - whole.data) <= whole.len - part.len);
}

static void check_views(const struct ike_message *m, struct span whole)
{
    FUZZ_CHECK(inside(m->sa, whole) && inside(m->ke, whole) && inside(m->nonce, whole));
    FUZZ_CHECK(inside(m->auth_data, whole) && inside(m->idi, whole) && inside(m->idr, whole) && inside(m->cp, whole));
    FUZZ_CHECK(m->notifies <= IKE_NOTIFIES_MAX && m->dels <= 3);
    for (unsigned i = 0; i < m->notifies; i++)
        FUZZ_CHECK(inside(m->notify[i].spi, whole) && inside(m->notify[i].data, whole));
    for (unsigned i = 0; i < m->dels; i++)
        FUZZ_CHECK(m->del[i].n <= IKE_SPIS_MAX);
    FUZZ_CHECK(m->sk_offset == 0 || (m->sk_offset <= whole.len && m->sk_len <= whole.len - m->sk_offset));
    FUZZ_CHECK(m->tsi.v.n <= SELECTORS_MAX && m->tsr.v.n <= SELECTORS_MAX);
}

static void look_into(const struct ike_message *m)
{
    struct choice c;
    struct identity id;
    struct selectors local, remote;
    struct path path = {.local.ip.family = 4, .remote.ip.family = 6};
    char text[300];
    bool any, l, r;
    if (proposal_choose(m->sa, &with.ike, m->ke_group, true, &c, text, sizeof text) == ERR_MISMATCH)
        FUZZ_CHECK(strlen(text) > 0);
    if (proposal_choose(m->sa, &with.esp, KE_NONE, false, &c, text, sizeof text) == OK)
        FUZZ_CHECK(c.protocol == PROTOCOL_ESP && c.spi >= 256);
    (void)!proposal_accept(m->sa, &with.ike, true, &c);
    if (ike_identity(m->idi, &id) == OK) {
        FUZZ_CHECK(id.len <= IDENTITY_MAX);
    }
    if (narrow_offer(&m->tsi.v, &m->tsr.v, &with.policy, &local, &remote) == OK) {
        FUZZ_CHECK(narrow_check(&remote, &m->tsi.v) == OK && narrow_check(&local, &m->tsr.v) == OK);
        FUZZ_CHECK(narrow_check(&local, &with.policy.local) == OK);
        FUZZ_CHECK(narrow_check(&remote, &with.policy.remote) == OK);
    }
    nat_detect(m, &path, &any, &l, &r);
    const struct ike_notify *error = ike_find_error(m);
    if (error)
        FUZZ_CHECK(notify_name(error->type, text, sizeof text)[0] != '\0');
}

/* A legal message has what the table promises (payload.h): no handler needs to ask again. */
static void check_promises(const struct ike_message *m)
{
    bool response = m->h.flags & IKE_FLAG_RESPONSE;
    FUZZ_CHECK(m->h.spi_i != 0);
    FUZZ_CHECK(m->opened || m->h.exchange == EXCHANGE_SA_INIT);
    if (m->h.exchange == EXCHANGE_SA_INIT && (!response || (!ike_find_error(m) && !ike_find_notify(m, NOTIFY_COOKIE))))
        FUZZ_CHECK(m->nonce.len >= IKE_NONCE_MIN && (m->seen & PAYLOAD_BIT(PAYLOAD_SA)) && m->ke.data);
    if (m->h.exchange == EXCHANGE_AUTH && !response)
        FUZZ_CHECK(m->idi.len >= 4 && m->tsi.present == m->tsr.present);
}

/* Every parsed part, written anew. SK is left out: its content was never opened. */
static size_t rewrite(const struct ike_message *m, uint8_t *out, size_t cap)
{
    struct ike_builder b;
    size_t len = 0;
    ike_begin(&b, out, cap, &m->h);
    if (m->seen & PAYLOAD_BIT(PAYLOAD_SA))
        ike_put(&b, PAYLOAD_SA, m->sa);
    if (m->seen & PAYLOAD_BIT(PAYLOAD_KE))
        ike_put_ke(&b, m->ke_group, m->ke);
    if (m->idi.len)
        ike_put(&b, PAYLOAD_IDI, m->idi);
    if (m->nonce.len)
        ike_put(&b, PAYLOAD_NONCE, m->nonce);
    if (m->seen & PAYLOAD_BIT(PAYLOAD_AUTH))
        ike_put_auth(&b, m->auth_method, m->auth_data);
    for (unsigned i = 0; i < m->notifies; i++)
        ike_put_notify(&b, m->notify[i].protocol, m->notify[i].spi, m->notify[i].type, m->notify[i].data);
    for (unsigned i = 0; i < m->dels; i++)
        ike_put_delete(&b, m->del[i].protocol, m->del[i].spi, m->del[i].n);
    if (m->tsi.v.n)
        ike_put_ts(&b, PAYLOAD_TSI, &m->tsi.v);
    if (m->tsr.v.n)
        ike_put_ts(&b, PAYLOAD_TSR, &m->tsr.v);
    return ike_finish(&b, &len) == OK ? len : 0;
}

static void check_rewritten(const struct ike_message *m)
{
    static uint8_t out[IKE_MESSAGE_MAX];
    static struct ike_message again;
    size_t len = rewrite(m, out, sizeof out);
    if (len == 0)
        return; /* merged payloads need more room in another shape; never for lack of care */
    FUZZ_CHECK(ike_message_parse(span_of(out, len), &again) == OK);
    FUZZ_CHECK(again.h.spi_i == m->h.spi_i && again.h.message_id == m->h.message_id && again.h.length == len);
    FUZZ_CHECK(span_equal(again.sa, m->sa) && again.ke_group == m->ke_group && span_equal(again.ke, m->ke));
    FUZZ_CHECK(span_equal(again.idi, m->idi) && span_equal(again.nonce, m->nonce));
    FUZZ_CHECK(again.auth_method == m->auth_method && span_equal(again.auth_data, m->auth_data));
    FUZZ_CHECK(again.notifies == m->notifies && again.dels == m->dels);
    for (unsigned i = 0; i < m->notifies; i++)
        FUZZ_CHECK(again.notify[i].type == m->notify[i].type && span_equal(again.notify[i].data, m->notify[i].data));
    for (unsigned i = 0; i < m->dels; i++)
        FUZZ_CHECK(memcmp(again.del[i].spi, m->del[i].spi, sizeof *m->del[i].spi * m->del[i].n) == 0);
    FUZZ_CHECK(selectors_equal(&again.tsi.v, &m->tsi.v) && selectors_equal(&again.tsr.v, &m->tsr.v));
}

static void open_with(const uint8_t *data, size_t len, const struct suite *s, struct keyed *k)
{
    static struct ike_message m;
    struct span text = {NULL, 0};
    uint8_t *copy = malloc(len ? len : 1);
    FUZZ_CHECK(copy != NULL);
    if (len)
        memcpy(copy, data, len);
    enum err e = ike_message_parse(span_of(copy, len), &m);
    if (e == OK || e == ERR_CRITICAL)
        e = ike_open_sk(copy, &m, s, k, &text);
    if (e == OK)
        e = ike_inner_parse(m.sk_first, text, &m);
    if (e == OK) {
        check_views(&m, span_of(copy, len));
        look_into(&m);
        if (ike_message_legal(&m) == OK)
            check_promises(&m);
    }
    free(copy);
}

/* In the open, and with the payloads as the content of an SK payload that was authentic. */
static void run(const uint8_t *data, size_t len)
{
    static struct ike_message m;
    struct span whole = span_of(data, len);
    if (ike_message_parse(whole, &m) == OK) {
        check_views(&m, whole);
        look_into(&m);
        check_rewritten(&m);
        if (ike_message_legal(&m) == OK)
            check_promises(&m);
    }
    open_with(data, len, &with.gcm, with.open_gcm);
    open_with(data, len, &with.cbc, with.open_cbc);
    if (len < IKE_HEADER_LEN)
        return;
    struct span inner = span_of(data + IKE_HEADER_LEN, len - IKE_HEADER_LEN);
    memset(&m, 0, sizeof m);
    m.h.spi_i = 1;
    m.h.exchange = data[18];
    m.h.flags = data[19];
    m.seen = PAYLOAD_BIT(PAYLOAD_SK);
    if (ike_inner_parse(data[16], inner, &m) == OK) {
        check_views(&m, inner);
        look_into(&m);
        if (ike_message_legal(&m) == OK)
            check_promises(&m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    run(data, len);
    if (len < IKE_HEADER_LEN)
        return 0;
    /* Once more with the length that the header should have: mutations seldom hit it, and nothing behind it is seen. */
    uint8_t *fitting = malloc(len);
    FUZZ_CHECK(fitting != NULL);
    memcpy(fitting, data, len);
    put_be32(fitting + 24, (uint32_t)len);
    run(fitting, len);
    free(fitting);
    return 0;
}
