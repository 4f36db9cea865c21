/*
 * What finding a packet's policy costs, by how many there are, with and without the flow cache, and how long the table
 * takes to make; and what finding an SA costs. One thread; `test/bench/run --what spd` builds and runs it.
 *
 *     build/release/bench/micro_spd [N]...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/epoch.h"
#include "crypto/secret.h"
#include "esp/sad.h"
#include "policy/spd.h"

#define FLOWS (1u << 16)
#define PASSES 16
#define COLUMNS 8

static uint64_t seed = 4301;

static unsigned random_below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((seed >> 33) % n);
}

static uint64_t cpu_now(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "micro_spd: %s\n", what);
    exit(1);
}

/* -- sets of policies, and packets for them -- */

struct ends {
    uint32_t local, remote; /* IPv4 addresses, or what tells IPv6 ones apart */
    uint8_t proto;
    uint16_t local_port, remote_port;
};

struct kind {
    const char *name;
    bool six;
    /* The i-th of n policies, as the texts of its selectors. */
    void (*policy)(unsigned i, unsigned n, char *local, char *remote);
    struct ends (*packet)(unsigned n);
};

#define TEXT 120
#define DOTTED(a) (a) >> 24, (a) >> 16 & 255, (a) >> 8 & 255, (a)&255

/* One host each, behind 10.1.0.0/16. */
static void host_policy(unsigned i, unsigned n, char *local, char *remote)
{
    uint32_t host = 0x0b000000u + i * 7;
    (void)n;
    snprintf(local, TEXT, "10.1.0.0/16");
    snprintf(remote, TEXT, "%u.%u.%u.%u", DOTTED(host));
}

static struct ends host_packet(unsigned n)
{
    return (struct ends){0x0a010000u + random_below(65536), 0x0b000000u + random_below(n) * 7, 6, 50000, 443};
}

/* Sites: a network of 256 at each end, both different. */
static void site_policy(unsigned i, unsigned n, char *local, char *remote)
{
    (void)n;
    snprintf(local, TEXT, "10.%u.%u.0/24", i >> 8 & 255, i & 255);
    snprintf(remote, TEXT, "%u.%u.%u.0/24", 11 + (i >> 16), i >> 8 & 255, i & 255);
}

static struct ends site_packet(unsigned n)
{
    uint32_t i = random_below(n);
    return (struct ends){0x0a000000u + ((i & 65535) << 8) + random_below(256),
                         0x0b000000u + (i << 8) + random_below(256), 17, 50000, 53};
}

/* Ports of two networks, and what stays open behind them. */
static void port_policy(unsigned i, unsigned n, char *local, char *remote)
{
    snprintf(local, TEXT, "10.1.0.0/16");
    if (i + 1 == n)
        snprintf(remote, TEXT, "10.2.0.0/16");
    else
        snprintf(remote, TEXT, "10.2.0.0/16[%s/%u]", i & 1 ? "tcp" : "udp", i >> 1 & 65535);
}

static struct ends port_packet(unsigned n)
{
    uint32_t i = random_below(n);
    return (struct ends){0x0a010000u + random_below(65536), 0x0a020000u + random_below(65536), i & 1 ? 6 : 17, 50000,
                         (uint16_t)(i >> 1)};
}

/* Prefixes within prefixes, the longer ones first. */
static void nested_policy(unsigned i, unsigned n, char *local, char *remote)
{
    unsigned bits = i < n / 2 ? 32 : i < n * 3 / 4 ? 28 : i < n * 7 / 8 ? 24 : i + 1 < n ? 20 : 4;
    uint32_t net = (0x0b000000u + i * 2654435u % 0x1000000u) & (0xffffffffu << (32 - bits));
    snprintf(local, TEXT, i % 3 ? "10.0.0.0/8" : "10.1.0.0/16");
    snprintf(remote, TEXT, "%u.%u.%u.%u/%u", DOTTED(net), bits);
}

static struct ends nested_packet(unsigned n)
{
    (void)n;
    return (struct ends){0x0a000000u + random_below(1u << 24), 0x0b000000u + random_below(1u << 24), 6, 50000, 443};
}

/* Ranges that begin and end anywhere, at both ends, each within reach of many others. */
static void range_policy(unsigned i, unsigned n, char *local, char *remote)
{
    uint32_t a = random_below(1u << 24), b = a + random_below(4096), c = random_below(1u << 24),
             d = c + random_below(1u << 20);
    (void)i;
    (void)n;
    snprintf(local, TEXT, "10.%u.%u.%u-%u.%u.%u.%u", a >> 16, a >> 8 & 255, a & 255, DOTTED(0x0a000000u + b));
    snprintf(remote, TEXT, "11.%u.%u.%u-%u.%u.%u.%u[tcp]", c >> 16, c >> 8 & 255, c & 255, DOTTED(0x0b000000u + d));
}

static struct ends range_packet(unsigned n)
{
    (void)n;
    return (struct ends){0x0a000000u + random_below(1u << 24), 0x0b000000u + random_below(1u << 24), 6, 50000, 443};
}

/* A firewall: some rules name hosts at one end, some at the other, some ports, and some several of these. */
static void mixed_policy(unsigned i, unsigned n, char *local, char *remote)
{
    static const char *const service[] = {"", "[tcp]", "[udp]", "[tcp/%u]", "[udp/%u]", "[tcp/%u-65535]", "[icmp/8]"};
    char any[32];
    unsigned what = random_below(16), bits[2];
    (void)i;
    (void)n;
    snprintf(any, sizeof(any), service[random_below(7)], random_below(5000));
    bits[0] = what & 1 ? 24 + random_below(9) : what & 2 ? 16 : 8;
    bits[1] = what & 4 ? 24 + random_below(9) : what & 8 || !(what & 1) ? 16 + random_below(8) : 8;
    uint32_t l = (0x0a000000u + random_below(1u << 24)) & (0xffffffffu << (32 - bits[0]));
    uint32_t r = (0x0b000000u + random_below(1u << 24)) & (0xffffffffu << (32 - bits[1]));
    if (bits[0] + bits[1] < 40)
        bits[1] = 32;
    snprintf(local, TEXT, "%u.%u.%u.%u/%u", DOTTED(l), bits[0]);
    snprintf(remote, TEXT, "%u.%u.%u.%u/%u%s", DOTTED(r), bits[1], any);
}

static struct ends mixed_packet(unsigned n)
{
    (void)n;
    return (struct ends){0x0a000000u + random_below(1u << 24), 0x0b000000u + random_below(1u << 24),
                         random_below(2) ? 6 : 17, 50000, (uint16_t)random_below(65536)};
}

/* One IPv6 network of 64 bits each. */
static void six_policy(unsigned i, unsigned n, char *local, char *remote)
{
    (void)n;
    snprintf(local, TEXT, "2001:db8:1::/48");
    snprintf(remote, TEXT, "2001:db8:%x:%x::/64", 2 + (i >> 16), i & 65535);
}

static struct ends six_packet(unsigned n)
{
    return (struct ends){0x00010000u + random_below(65536), 0x00020000u + random_below(n), 6, 50000, 443};
}

static const struct kind kinds[] = {
    {"hosts", false, host_policy, host_packet},
    {"pairs of networks", false, site_policy, site_packet},
    {"ports", false, port_policy, port_packet},
    {"nested prefixes", false, nested_policy, nested_packet},
    {"overlapping ranges", false, range_policy, range_packet},
    {"firewall", false, mixed_policy, mixed_packet},
    {"IPv6 networks", true, six_policy, six_packet},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct ip address(bool six, uint32_t number)
{
    uint8_t b[16] = {0x20, 1, 0x0d, 0xb8};
    put_be32(six ? b + 4 : b, number);
    b[15] = six ? 1 : 0;
    return ip_from_bytes(six ? 6 : 4, b);
}

static struct flow flow_of_kind(const struct kind *k, unsigned n)
{
    struct ends e = k->packet(n);
    return (struct flow){.src = address(k->six, e.local),
                         .dst = address(k->six, e.remote),
                         .proto = e.proto,
                         .src_port = e.local_port,
                         .dst_port = e.remote_port,
                         .ports_known = true};
}

/* -- measuring -- */

enum row { LOOKUP, ALL_NEW, MANY_FLOWS, FEW_FLOWS, COMPILE, BYTES, ROWS };

static struct policy *policies(const struct kind *k, unsigned n)
{
    struct policy *p = calloc(n, sizeof(*p));
    char local[TEXT], remote[TEXT];
    for (unsigned i = 0; p && i < n; i++) {
        k->policy(i, n, local, remote);
        if (selectors_parse(local, &p[i].local, NULL, 0) != OK || selectors_parse(remote, &p[i].remote, NULL, 0) != OK)
            fail(local);
    }
    return p;
}

/* Nanoseconds for each of the flows, in the quickest of some passes: others use the machine too. */
static double cost(struct flow_cache *cache, const struct spd *s, const struct flow *flows, unsigned count)
{
    double best = 0;
    for (unsigned pass = 0; pass < PASSES; pass++) {
        unsigned found = 0;
        uint64_t start = cpu_now();
        for (unsigned i = 0; i < FLOWS; i++)
            found +=
                (cache ? flow_cache_lookup(cache, s, &flows[i % count]) : spd_lookup_out(s, &flows[i % count])) != NULL;
        double taken = (double)(cpu_now() - start) / FLOWS;
        if (found <= FLOWS && (pass == 0 || taken < best))
            best = taken;
    }
    return best;
}

static void column(const struct kind *k, unsigned n, double out[ROWS])
{
    struct policy *p = policies(k, n);
    struct spd_entry *e = calloc(n, sizeof(*e));
    struct flow *flows = calloc(FLOWS, sizeof(*flows));
    struct flow_cache *cache;
    struct spd *s;
    if (!p || !e || !flows || flow_cache_new(&cache) != OK)
        fail("no memory");
    for (unsigned i = 0; i < n; i++)
        e[i] = (struct spd_entry){.policy = &p[i], .id = i};
    for (unsigned i = 0; i < FLOWS; i++)
        flows[i] = flow_of_kind(k, n);
    uint64_t start = cpu_now();
    if (spd_new(&s, e, n) != OK)
        fail("no memory");
    out[COMPILE] = (double)(cpu_now() - start) / NS_PER_MS;
    out[BYTES] = (double)spd_size(s) / n;
    out[LOOKUP] = cost(NULL, s, flows, FLOWS);
    out[ALL_NEW] = cost(cache, s, flows, FLOWS);
    out[MANY_FLOWS] = cost(cache, s, flows, 4096);
    out[FEW_FLOWS] = cost(cache, s, flows, 256);
    spd_free(s);
    flow_cache_free(cache);
    free(flows);
    free(e);
    free(p);
}

/* -- SAs -- */

#define SAS_MAX 10000u /* of the usual columns: each has keys in locked memory */

static struct sa *new_sa(enum sa_dir dir, uint32_t spi, uint32_t policy_id)
{
    static const uint8_t key[64] = {1};
    const struct algorithm *gcm = algorithm_by_keyword("aes128gcm16", strlen("aes128gcm16"));
    struct sa_params p = {.dir = dir, .spi = spi, .policy_id = policy_id, .engine = "auto", .replay_window = 32};
    struct sa *sa;
    if (!gcm || suite_of(&gcm->t, NULL, &p.suite) != OK || selectors_parse("0.0.0.0/0", &p.local, NULL, 0) != OK)
        fail("no suite");
    p.remote = p.local;
    p.key = span_of(key, p.suite.encr_key_len);
    if (sa_new(&sa, &p, 0) != OK)
        fail("no memory for SAs");
    return sa;
}

static struct sad *filled_sad(struct epoch *epoch, unsigned n, uint32_t *spis, struct sa **outbound)
{
    struct sad *sad;
    if (sad_new(&sad, epoch, &random_system) != OK)
        fail("no memory");
    for (unsigned i = 0; i < n; i++) {
        outbound[i] = new_sa(SA_OUT, 0x1000 + i, i);
        if (sad_reserve(sad, 0, &spis[i]) != OK || sad_publish_in(sad, new_sa(SA_IN, spis[i], i)) != OK ||
            sad_publish_out(sad, outbound[i]) != OK)
            fail("no memory for SAs");
    }
    return sad;
}

/* Nanoseconds to find an SA by its SPI, and by its policy, among n. */
static void sad_column(unsigned n, double out[2])
{
    uint32_t *spis = calloc(n, sizeof(*spis)), *order = calloc(FLOWS, sizeof(*order));
    struct sa **outbound = calloc(n, sizeof(struct sa *));
    struct epoch *epoch;
    if (!spis || !order || !outbound || epoch_new(&epoch, 1) != OK)
        fail("no memory");
    struct sad *sad = filled_sad(epoch, n, spis, outbound);
    for (unsigned i = 0; i < FLOWS; i++)
        order[i] = random_below(n);
    for (unsigned pass = 0; pass < 2 * PASSES; pass++) {
        unsigned in = pass & 1, found = 0;
        uint64_t start = cpu_now();
        for (unsigned i = 0; i < FLOWS; i++)
            found += (in ? sad_find_in(sad, spis[order[i]]) : sad_find_out(sad, order[i], 0)) != NULL;
        double taken = (double)(cpu_now() - start) / FLOWS;
        if (found != FLOWS)
            fail("an SA was not found");
        if (pass < 2 || taken < out[in])
            out[in] = taken;
    }
    sad_free(sad);
    for (unsigned i = 0; i < n; i++)
        sa_free(outbound[i]);
    epoch_free(epoch);
    free(spis);
    free(order);
    free(outbound);
}

static void print_row(const char *name, unsigned columns, double (*value)[ROWS], unsigned row)
{
    printf("  %-30s", name);
    for (unsigned i = 0; i < columns; i++)
        printf("%10.1f", value[i][row]);
    printf("\n");
}

static void print_sas(const unsigned *n, unsigned columns)
{
    double got[COLUMNS][ROWS];
    unsigned used = 0;
    printf("%-32s", "SAs of each direction");
    for (; used < columns && n[used] <= SAS_MAX; used++) {
        sad_column(n[used], got[used]);
        printf("%10u", n[used]);
    }
    printf("\n");
    print_row("by policy, ns", used, got, 0);
    print_row("by SPI, ns", used, got, 1);
}

int main(int argc, char **argv)
{
    static const unsigned usual[] = {1, 10, 100, 1000, 10000, 100000};
    static const char *const names[ROWS] = {"lookup, ns",           "cache, 65,536 flows, ns", "cache, 4,096 flows, ns",
                                            "cache, 256 flows, ns", "making the table, ms",    "bytes a policy"};
    unsigned n[COLUMNS], columns = argc > 1 ? (unsigned)argc - 1 : 6;
    if (crypto_init() != OK || columns > COLUMNS)
        return 1;
    for (unsigned i = 0; i < columns; i++) {
        n[i] = argc > 1 ? (unsigned)strtoul(argv[i + 1], NULL, 10) : usual[i];
        if (n[i] == 0 || n[i] > 131072)
            return 1;
    }
    for (size_t k = 0; k < KINDS; k++) {
        double got[COLUMNS][ROWS];
        printf("%-32s", kinds[k].name);
        for (unsigned i = 0; i < columns; i++) {
            column(&kinds[k], n[i], got[i]);
            printf("%10u", n[i]);
        }
        printf("\n");
        for (unsigned r = 0; r < ROWS; r++)
            print_row(names[r], columns, got, r);
    }
    print_sas(n, columns);
    return 0;
}
