/*
 * Nanoseconds a packet for esp_seal and esp_open, by suite, size and batch. One thread, everything in cache. Built by
 * hand against a library built by make:
 *
 *     cc -std=c11 -D_GNU_SOURCE -O2 -I. test/bench/micro_esp.c build/release/libadit.a -o build/micro_esp \
 *        -lsodium -lmbedx509 -lmbedcrypto -lIPSec_MB -pthread
 *     build/micro_esp [ENGINE]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/secret.h"
#include "esp/esp.h"

#define GROUP TRANSFORM_BATCH /* packets between two looks at the clock */
#define STRIDE 1600
#define HEAD 64
#define SPAN (NS_PER_S / 10)

struct bench {
    struct sa *out, *in;
    uint8_t inner[STRIDE];
    uint32_t len;
    uint8_t wire[GROUP][STRIDE], plain[GROUP][STRIDE];
    struct esp_packet v[GROUP];
};

static void fail(const char *what)
{
    fprintf(stderr, "micro_esp: %s\n", what);
    exit(1);
}

static struct suite suite_named(const char *encr, const char *integ)
{
    const struct algorithm *e = algorithm_by_keyword(encr, strlen(encr));
    const struct algorithm *i = integ ? algorithm_by_keyword(integ, strlen(integ)) : NULL;
    struct suite s;
    if (!e || (integ && !i) || suite_of(&e->t, i ? &i->t : NULL, &s) != OK)
        fail("no such suite");
    return s;
}

static struct sa *make(enum sa_dir dir, const struct suite *s, const char *engine)
{
    static const uint8_t key[128] = {1, 2, 3};
    struct sa_params p = {.dir = dir, .spi = 0x10000000, .suite = *s, .engine = engine, .esn = true};
    p.replay_window = 1024;
    p.key = span_of(key, s->encr_key_len);
    p.integ_key = span_of(key, s->integ_key_len);
    struct sa *sa;
    if (selectors_parse(dir == SA_IN ? "10.2.0.0/16" : "10.1.0.0/16", &p.local, NULL, 0) != OK ||
        selectors_parse(dir == SA_IN ? "10.1.0.0/16" : "10.2.0.0/16", &p.remote, NULL, 0) != OK)
        fail("selectors");
    return sa_new(&sa, &p, 0) == OK ? sa : NULL;
}

static void load(struct bench *b)
{
    for (unsigned i = 0; i < GROUP; i++) {
        memcpy(b->wire[i] + HEAD, b->inner, b->len);
        b->v[i] = (struct esp_packet){.data = b->wire[i] + HEAD, .len = b->len, .next_header = NEXT_HEADER_IPV4};
    }
}

/* One group each way in batches of n; adds the times up. */
static void turn(struct bench *b, unsigned n, ns_t *sealing, ns_t *opening)
{
    unsigned sealed, events, good = 0;
    load(b);
    ns_t start = clock_now();
    for (unsigned i = 0; i < GROUP; i += n)
        if (esp_seal(b->out, b->v + i, n, start, &sealed, &events) != OK)
            fail("seal");
    *sealing += clock_now() - start;
    for (unsigned i = 0; i < GROUP; i++)
        b->v[i].dst = b->plain[i];
    start = clock_now();
    for (unsigned i = 0; i < GROUP; i += n)
        good += esp_open(b->in, b->v + i, n, start, &events);
    *opening += clock_now() - start;
    if (good != GROUP)
        fail("open");
}

static void measure(struct bench *b, unsigned n)
{
    ns_t sealing = 0, opening = 0, start = clock_now();
    unsigned turns = 0;
    for (; clock_now() - start < SPAN; turns++)
        turn(b, n, &sealing, &opening);
    double packets = (double)turns * GROUP;
    printf("  %6.0f %6.0f", (double)sealing / packets, (double)opening / packets);
}

static void run(struct bench *b, const struct suite *s, const char *engine, uint32_t len)
{
    char text[64];
    b->out = make(SA_OUT, s, engine);
    b->in = make(SA_IN, s, engine);
    if (!b->out || !b->in)
        return;
    static const uint8_t header[20] = {0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 5, 10, 2, 0, 7};
    memcpy(b->inner, header, sizeof header);
    put_be16(b->inner + 2, (uint16_t)len);
    b->len = len;
    printf("%-20s %-9s %5u", suite_text(s, text, sizeof text), keyed_engine(b->out->keyed), len);
    for (unsigned n = 1; n <= GROUP; n *= n == 1 ? 16 : 4)
        measure(b, n);
    putchar('\n');
    sa_free(b->out);
    sa_free(b->in);
}

int main(int argc, char **argv)
{
    static const char *const suites[][2] = {{"aes128gcm16", NULL}, {"aes256gcm16", NULL}, {"chacha20poly1305", NULL},
                                            {"aes128", "sha256"},  {"aes256", "sha256"},  {"aes256", "sha512"},
                                            {"null", "sha256"},    {"aes128", "sha1"},    {"aes128", "aesxcbc"},
                                            {"aes256ccm8", NULL},  {"aes128gmac", NULL},  {"null", "sha1"},
                                            {"null", "aescmac"}};
    static struct bench b;
    if (crypto_init() != OK)
        fail("crypto");
    printf("ns a packet:                            batch 1          batch 16         batch 64\n");
    printf("suite                engine    bytes    seal   open     seal   open     seal   open\n");
    for (unsigned i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        struct suite s = suite_named(suites[i][0], suites[i][1]);
        run(&b, &s, argc > 1 ? argv[1] : "auto", 64);
        run(&b, &s, argc > 1 ? argv[1] : "auto", 1400);
    }
    return 0;
}
