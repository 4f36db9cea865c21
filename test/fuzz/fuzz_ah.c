/*
 * AH under hostile input: IP headers of any bytes, told apart and frozen; packets from the wire, opened by an SA that must
 * believe none of them; and, authentic by construction, headers and payloads that meet every check behind the ICV.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "crypto/secret.h"
#include "esp/ah.h"
#include "esp/esp.h"

#define SPI 0x12345678u

static const uint8_t key[64] = {7, 1, 9};
static struct sa *out, *tunnel, *transport;

static struct sa *make(enum sa_dir dir, enum policy_mode mode)
{
    const struct transform sha = {TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128, 0};
    struct sa_params p = {.dir = dir, .spi = SPI, .proto = PROTOCOL_AH, .mode = mode, .esn = true, .replay_window = 64};
    struct sa *sa = NULL;
    FUZZ_CHECK(suite_of_integ(&sha, &p.suite) == OK);
    p.integ_key = span_of(key, p.suite.integ_key_len);
    FUZZ_CHECK(ip_parse("10.1.0.1", &p.path.remote.ip) == OK && ip_parse("10.2.0.1", &p.path.local.ip) == OK);
    FUZZ_CHECK(selectors_parse("0.0.0.0/0, ::/0", &p.local, NULL, 0) == OK);
    p.remote = p.local;
    FUZZ_CHECK(sa_new(&sa, &p, 0) == OK);
    return sa;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    FUZZ_CHECK(crypto_init() == OK);
    out = make(SA_OUT, MODE_TUNNEL);
    tunnel = make(SA_IN, MODE_TUNNEL);
    transport = make(SA_IN, MODE_TRANSPORT);
    return 0;
}

static uint8_t *block_of(const uint8_t *data, uint32_t len, uint32_t more)
{
    uint8_t *block = malloc(len + more ? len + more : 1);
    FUZZ_CHECK(block);
    if (len > 0)
        memcpy(block, data, len);
    return block;
}

/* Freezing is the same whatever it is asked for first, and leaves nothing to freeze. */
static void freeze(const uint8_t *data, uint32_t head)
{
    uint8_t *once = block_of(data, head, 0), *twice;
    uint32_t at = 0, again = 0;
    bool known = ah_freeze(once, head, &at);
    FUZZ_CHECK(!known || (at < head && head >= 20));
    if (known && head <= AH_HEAD_MAX) {
        FUZZ_CHECK(ah_covers(data, head));
        twice = block_of(once, head, 0);
        FUZZ_CHECK(ah_freeze(twice, head, &again) && again == at && memcmp(once, twice, head) == 0);
        free(twice);
    }
    free(once);
}

/* Opens a packet in blocks of its exact size, which is left as it was. */
static bool open_one(struct sa *sa, const uint8_t *packet, uint32_t len, uint32_t head)
{
    uint8_t *copy = block_of(packet, len, 0), *dst = malloc(len + AH_SCRATCH);
    FUZZ_CHECK(dst && head <= len);
    struct esp_packet p = {.data = copy + head, .dst = dst, .len = len - head, .head = (uint16_t)head};
    unsigned events, good = esp_open(sa, &p, 1, 1, &events);
    FUZZ_CHECK(good == (p.verdict == OK) && (len == 0 || memcmp(copy, packet, len) == 0));
    if (good)
        FUZZ_CHECK(p.data >= dst + head && p.data + p.len <= dst + len);
    free(copy);
    free(dst);
    return good;
}

/* The bytes as headers and payload of an authentic packet, if they can be; opened once, and not again. */
static void open_sealed(struct sa *sa, const uint8_t *data, uint32_t len, uint32_t head, uint8_t next)
{
    uint8_t family = data[0] >> 4 == 6 ? 6 : 4;
    uint32_t more = ah_len(&out->params.suite, family), whole = len + more, at;
    uint8_t *packet = malloc(whole + AH_SCRATCH), copy[AH_HEAD_MAX];
    FUZZ_CHECK(packet);
    memcpy(packet, data, head);
    memcpy(packet + head + more, data + head, len - head);
    put_be16(packet + (family == 4 ? 2 : 4), (uint16_t)(whole - (family == 4 ? 0 : 40)));
    if (family == 4)
        packet[6] &= 0xc0, packet[7] = 0;
    memcpy(copy, packet, head);
    if (ah_freeze(copy, head, &at)) {
        unsigned sealed, events;
        packet[at] = AH_PROTOCOL;
        struct esp_packet p = {.data = packet + head + more,
                               .len = len - head,
                               .next_header = next,
                               .family = family,
                               .head = (uint16_t)head};
        out->seq = sa->replay.top;
        FUZZ_CHECK(esp_seal(out, &p, 1, 1, &sealed, &events) == OK && p.data == packet + head && p.len == whole - head);
        (void)open_one(sa, packet, whole, head);
        /* A source route that isn't used up at its end is another packet there. */
        FUZZ_CHECK(sa->replay.top == out->seq || sa->replay.top == out->seq - 1);
        FUZZ_CHECK(sa->replay.top != out->seq || !open_one(sa, packet, whole, head));
    }
    free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size > FUZZ_INPUT_MAX)
        return 0;
    uint32_t len = (uint32_t)size - 2, head = data[0] < len ? data[0] : len;
    uint8_t next = data[1];
    data += 2;
    freeze(data, head);
    uint64_t top = tunnel->replay.top;
    FUZZ_CHECK(!open_one(tunnel, data, len, head) && tunnel->replay.top == top);
    if (head >= 20 && head <= AH_HEAD_MAX) {
        open_sealed(tunnel, data, len, head, next);
        open_sealed(transport, data, len, head, next);
    }
    return 0;
}

/* The number of bytes before AH, what it carries, headers, payload. */
size_t fuzz_make_seed(unsigned i, uint8_t *to, size_t cap)
{
    static const uint8_t plain4[] = {20, 4,   0x45, 0, 0,  0,    0, 7, 0,  0, 64, 51, 0, 0,  192, 0, 2,
                                     1,  192, 0,    2, 2,  0x45, 0, 0, 28, 0, 0,  0,  0, 64, 17,  0, 0,
                                     10, 1,   0,    5, 10, 2,    0, 7, 4,  1, 0,  53, 0, 8,  0,   0};
    static const uint8_t options4[] = {40, 17, 0x4a, 0, 0, 0,    0, 7, 0, 0,    64, 51, 0, 0, 10, 1, 0,
                                       5,  10, 2,    0, 7, 0x94, 4, 0, 0, 0x83, 7,  4,  1, 2, 3,  4, 0x44,
                                       8,  5,  1,    0, 0, 0,    0, 0, 4, 1,    0,  53, 0, 8, 0,  0};
    static const uint8_t extended6[] = {72, 17, 0x60, 0, 0, 0, 0, 0,    0,  64,   0x20, 1,   0xd,  0xb8, 0, 1, 0,
                                        0,  0,  0,    0, 0, 0, 0, 0,    5,  0x20, 1,    0xd, 0xb8, 0,    2, 0, 0,
                                        0,  0,  0,    0, 0, 0, 0, 7,    43, 0,    0x3e, 4,   1,    2,    3, 4, 51,
                                        2,  0,  1,    0, 0, 0, 0, 0x20, 1,  0xd,  0xb8, 0,   9,    0,    0, 0, 0,
                                        0,  0,  0,    0, 0, 9, 4, 1,    0,  53,   0,    8,   0,    0};
    static const struct fuzz_seed seeds[] = {
        {plain4, sizeof plain4}, {options4, sizeof options4}, {extended6, sizeof extended6}};
    if (i >= sizeof seeds / sizeof seeds[0])
        return 0;
    size_t len = seeds[i].len < cap ? seeds[i].len : cap;
    memcpy(to, seeds[i].data, len);
    return len;
}
