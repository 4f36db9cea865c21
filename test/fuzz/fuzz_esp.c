/*
 * esp_open under hostile input: what comes from the wire on an AEAD SA, and, authentic by construction, any text on a
 * NULL-encryption SA, so that padding, inner headers and selectors meet every byte pattern.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "crypto/secret.h"
#include "esp/esp.h"
#include "policy/fragments.h"

#define SPI 0x12345678u
#define BATCH 8

static const uint8_t key[64] = {7, 1, 9};

/* The SAs and the key that makes packets authentic, made once. */
static struct {
    struct sa *any, *ports, *transport, *aead;
    struct keyed *forge;
    struct suite null_suite;
} f;

static struct sa *make(const struct suite *s, enum policy_mode mode, bool esn, const char *local, const char *remote)
{
    struct sa_params p = {.dir = SA_IN, .spi = SPI, .suite = *s, .engine = "auto", .replay_window = 64, .mode = mode};
    p.esn = esn;
    p.key = span_of(key, s->encr_key_len);
    p.integ_key = span_of(key, s->integ_key_len);
    struct sa *sa = NULL;
    FUZZ_CHECK(ip_parse("10.1.0.1", &p.path.remote.ip) == OK && ip_parse("10.2.0.1", &p.path.local.ip) == OK);
    FUZZ_CHECK(selectors_parse(local, &p.local, NULL, 0) == OK && selectors_parse(remote, &p.remote, NULL, 0) == OK);
    FUZZ_CHECK(sa_new(&sa, &p, 0) == OK);
    return sa;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    FUZZ_CHECK(crypto_init() == OK);
    struct transform null = {TRANSFORM_ENCR, ENCR_NULL, 0}, sha = {TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128, 0};
    struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
    struct suite aead;
    FUZZ_CHECK(suite_of(&null, &sha, &f.null_suite) == OK && suite_of(&gcm, NULL, &aead) == OK);
    f.any = make(&f.null_suite, MODE_TUNNEL, false, "10.2.0.0/16, 2001:db8:2::/48", "10.1.0.0/16, 2001:db8:1::/48");
    f.ports = make(&f.null_suite, MODE_TUNNEL, true, "10.2.0.0/16[udp/53], ::/0[icmpv6]", "10.1.0.0/16, ::/0");
    f.transport = make(&f.null_suite, MODE_TRANSPORT, false, "10.2.0.1[tcp/80]", "10.1.0.1");
    f.aead = make(&aead, MODE_TUNNEL, true, "0.0.0.0/0", "0.0.0.0/0");
    FUZZ_CHECK(keyed_new(&f.forge, &f.null_suite, TRANSFORM_SEAL, "auto", span_of(NULL, 0),
                         span_of(key, f.null_suite.integ_key_len)) == OK);
    return 0;
}

/* What a delivered packet must be, whatever was sent. */
static void check_delivered(const struct sa *sa, const struct esp_packet *p, const uint8_t *dst, uint32_t room)
{
    FUZZ_CHECK(p->data == dst && p->len <= room);
    if (sa->params.mode == MODE_TRANSPORT) {
        FUZZ_CHECK(p->next_header != NEXT_HEADER_NONE);
        return;
    }
    FUZZ_CHECK(p->len >= 20 && p->next_header == (p->data[0] >> 4 == 4 ? NEXT_HEADER_IPV4 : NEXT_HEADER_IPV6));
    FUZZ_CHECK(p->len == (p->data[0] >> 4 == 4 ? get_be16(p->data + 2) : 40u + get_be16(p->data + 4)));
    /* A later fragment may have the ports of one that came before, and an ICMP error be about what matches. */
    struct span inner = span_of(p->data, p->len);
    struct flow flow, quoted;
    if (flow_of(inner, &flow) != OK || fragment_later(&flow))
        return;
    if (!selectors_match_in(&sa->params.local, &sa->params.remote, &flow))
        FUZZ_CHECK(flow_of_quoted(inner, &flow, &quoted) == OK &&
                   selectors_match_in(&sa->params.local, &sa->params.remote, &quoted));
}

/* Opens one packet in blocks of its exact size; it is left as it was. */
static bool open_one(struct sa *sa, const uint8_t *packet, uint32_t len)
{
    uint8_t *copy = malloc(len ? len : 1), *dst = malloc(len ? len : 1);
    FUZZ_CHECK(copy && dst);
    if (len > 0)
        memcpy(copy, packet, len);
    struct esp_packet p = {.data = copy, .dst = dst, .len = len};
    unsigned events, good = esp_open(sa, &p, 1, 1, &events);
    FUZZ_CHECK(good == (p.verdict == OK));
    if (good)
        check_delivered(sa, &p, dst, len);
    free(copy);
    free(dst);
    return good;
}

/* The text, authentic, under the next number of an SA with the NULL cipher; and the same again, a replay. */
static void open_forged(struct sa *sa, const uint8_t *text, uint32_t len)
{
    uint64_t seq = sa->replay.top + 1;
    uint8_t *packet = malloc(8 + (size_t)len + TRANSFORM_ICV_MAX);
    FUZZ_CHECK(packet);
    put_be32(packet, SPI);
    put_be32(packet + 4, (uint32_t)seq);
    if (len > 0)
        memcpy(packet + 8, text, len);
    struct transform_op op = {.aad = packet, .aad_len = 8, .iv = packet + 8, .src = packet + 8, .dst = packet + 8};
    op.len = len;
    op.icv = packet + 8 + len;
    op.tail_len = sa->params.esn ? 4 : 0;
    put_be32(op.tail, (uint32_t)(seq >> 32));
    FUZZ_CHECK(keyed_seal(f.forge, &op, 1) == OK);
    uint32_t whole = 8 + len + f.null_suite.icv_len;
    (void)open_one(sa, packet, whole);
    FUZZ_CHECK(len < 4 || len % 4 != 0 || sa->replay.top == seq);
    FUZZ_CHECK(!open_one(sa, packet, whole));
    free(packet);
}

/* A batch of pieces as they came from the wire: nothing may be believed, nothing may change. */
static void open_raw(const uint8_t *data, uint32_t len)
{
    struct esp_packet v[BATCH];
    uint8_t *copy = malloc(len ? len : 1), *dst = malloc(len ? len : 1);
    FUZZ_CHECK(copy && dst);
    if (len > 0)
        memcpy(copy, data, len);
    uint32_t piece = len / BATCH;
    for (uint32_t i = 0; i < BATCH; i++)
        v[i] = (struct esp_packet){.data = copy + i * piece, .dst = dst + i * piece, .len = piece};
    unsigned events;
    FUZZ_CHECK(esp_open(f.aead, v, BATCH, 1, &events) == 0 && f.aead->replay.top == 0);
    free(copy);
    free(dst);
    FUZZ_CHECK(!open_one(f.aead, data, len) && !open_one(f.any, data, len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len > FUZZ_INPUT_MAX)
        return 0;
    open_raw(data, (uint32_t)len);
    open_forged(f.any, data, (uint32_t)len);
    open_forged(f.ports, data, (uint32_t)len);
    open_forged(f.transport, data, (uint32_t)len);
    return 0;
}

/* Whole texts of packets that each SA delivers, and of dummies. */
size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    static const uint8_t udp4[] = {0x45, 0, 0, 30, 0, 0, 0,  0, 64, 17, 0, 0, 10, 1, 0, 5, 10,
                                   2,    0, 7, 4,  1, 0, 53, 0, 10, 0,  0, 1, 2,  1, 2, 2, 4};
    static const uint8_t icmp6[] = {0x60, 0, 0, 0, 0,   8, 58,   64, 0x20, 1,    0xd, 0xb8, 0, 1, 0, 0, 0, 0,
                                    0,    0, 0, 0, 0,   5, 0x20, 1,  0xd,  0xb8, 0,   2,    0, 0, 0, 0, 0, 0,
                                    0,    0, 0, 7, 128, 0, 0,    0,  0,    0,    0,   0,    1, 2, 2, 41};
    static const uint8_t options6[] = {0x60, 0, 0, 0, 0,    16, 60,  64,   0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0,
                                       0,    0, 0, 5, 0x20, 1,  0xd, 0xb8, 0,    2, 0,   0,    0, 0, 0, 0, 0, 0, 0, 7,
                                       17,   0, 1, 4, 0,    0,  0,   0,    4,    1, 0,   53,   0, 8, 0, 0, 1, 2, 2, 41};
    static const uint8_t tcp[] = {4, 1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 1, 0, 0, 0, 0, 1, 2, 2, 6};
    static const uint8_t dummy[] = {1, 2, 3, 4, 5, 6, 0, 59};
    static const struct fuzz_seed seeds[] = {{udp4, sizeof udp4},
                                             {icmp6, sizeof icmp6},
                                             {options6, sizeof options6},
                                             {tcp, sizeof tcp},
                                             {dummy, sizeof dummy}};
    if (i >= sizeof seeds / sizeof seeds[0])
        return 0;
    size_t len = seeds[i].len < cap ? seeds[i].len : cap;
    memcpy(out, seeds[i].data, len);
    return len;
}
