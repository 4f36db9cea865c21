/*
 * Microseconds of CPU that a message costs an IKE engine, by how many SAs it has: the same in each column, or something
 * walks them. Two engines in one thread, in memory and in virtual time. `test/bench/run --what ike` builds and runs it.
 *
 *     build/release/bench/micro_ike [N]...
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "crypto/secret.h"
#include "ike/internal.h"
#include "test/unit/crowd.h"

#define ROUNDS 300
#define COLUMNS 8

enum row { SET_UP, LIVENESS, CHILD_REKEY, IKE_REKEY, UNKNOWN_SPI, FORGED, TICK, ROWS };

static const char *const names[ROWS] = {
    [SET_UP] = "IKE_SA_INIT or IKE_AUTH at the hub",  [LIVENESS] = "liveness check, answered",
    [CHILD_REKEY] = "rekey of a Child SA, a message", [IKE_REKEY] = "rekey of the IKE SA, a message",
    [UNKNOWN_SPI] = "message for an unknown SPI",     [FORGED] = "forged message for a known SPI",
    [TICK] = "second of an idle SA (timers)",
};

static uint64_t cpu_now(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void begin(struct crowd_end *end)
{
    end->cpu = end->inputs = 0;
}

/* Microseconds for each message since begin(). */
static double each(const struct crowd_end *end)
{
    return end->inputs ? (double)end->cpu / (double)end->inputs / 1000 : 0;
}

static struct ike_sa *client_sa(struct crowd *c, unsigned i)
{
    const struct config *config = c->end[CROWD_CLIENTS].config;
    struct ike_sa *sa = run_of(c->end[CROWD_CLIENTS].e, config->peers[i * 7919u % config->peer_count])->sas;
    while (sa && sa->state != SA_UP)
        sa = sa->run_next;
    if (!sa) {
        fprintf(stderr, "a client is down: %s\n", c->end[CROWD_CLIENTS].failure);
        exit(1);
    }
    return sa;
}

static double exchanges(struct crowd *c, enum row what)
{
    begin(&c->end[CROWD_HUB]);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct ike_sa *sa = client_sa(c, i);
        struct task *t = what == LIVENESS ? task_new(TASK_LIVENESS) : NULL;
        if (t)
            task_queue(sa, t, false);
        else if (what == CHILD_REKEY && sa->children)
            (void)child_rekey(sa->children);
        else if (what == IKE_REKEY)
            (void)sa_rekey(sa);
        crowd_settle(c);
    }
    return each(&c->end[CROWD_HUB]);
}

/* An INFORMATIONAL request that nobody who knows the keys has made. */
static double forgeries(struct crowd *c, bool known)
{
    uint8_t message[76] = {0};
    struct crowd_end *hub = &c->end[CROWD_HUB];
    begin(hub);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct ike_sa *sa = client_sa(c, i);
        struct path path = {.local = sa->path.remote, .remote = sa->path.local, .marker = sa->path.marker};
        struct writer w = writer_of(message, sizeof message);
        write_u64(&w, known ? sa->spi_i : i + 1);
        write_u64(&w, known ? sa->spi_r : i + 1);
        write_u8(&w, PAYLOAD_SK);
        write_u8(&w, 0x20);
        write_u8(&w, EXCHANGE_INFORMATIONAL);
        write_u8(&w, IKE_FLAG_INITIATOR);
        write_u32(&w, known ? sa->tx.next : 0);
        write_u32(&w, sizeof message);
        write_u8(&w, 0);
        write_u8(&w, 0);
        write_u16(&w, sizeof message - IKE_HEADER_LEN);
        uint64_t before = cpu_now();
        ike_input(hub->e, &path, span_of(message, sizeof message), c->now);
        hub->cpu += cpu_now() - before;
        hub->inputs++;
        crowd_settle(c);
    }
    return each(hub);
}

static double idle_second(struct crowd *c, unsigned n)
{
    uint64_t before = cpu_now();
    crowd_run(c, c->now + 10 * NS_PER_S);
    return (double)(cpu_now() - before) / 1000 / 10 / n / 2; /* both engines */
}

static void column(unsigned n, double out[ROWS])
{
    struct crowd *c = crowd_new(n, "esp = aes128gcm16\nike = aes128gcm16-prfsha256-x25519\n", "", NULL);
    begin(&c->end[CROWD_HUB]);
    if (!crowd_up(c, 600 * NS_PER_S)) {
        fprintf(stderr, "%u clients did not come up: %s\n", n, c->end[CROWD_CLIENTS].failure);
        exit(1);
    }
    out[SET_UP] = each(&c->end[CROWD_HUB]);
    out[LIVENESS] = exchanges(c, LIVENESS);
    out[UNKNOWN_SPI] = forgeries(c, false);
    out[FORGED] = forgeries(c, true);
    out[CHILD_REKEY] = exchanges(c, CHILD_REKEY);
    out[IKE_REKEY] = exchanges(c, IKE_REKEY);
    out[TICK] = idle_second(c, n);
    crowd_free(c);
}

int main(int argc, char **argv)
{
    static const unsigned usual[] = {100, 1000, 10000};
    double cost[COLUMNS][ROWS];
    unsigned n[COLUMNS], columns = argc > 1 ? (unsigned)argc - 1 : 3;
    if (crypto_init() != OK || columns > COLUMNS)
        return 1;
    printf("%-36s", "IKE SAs of the engine");
    for (unsigned i = 0; i < columns; i++) {
        n[i] = argc > 1 ? (unsigned)strtoul(argv[i + 1], NULL, 10) : usual[i];
        if (n[i] == 0 || n[i] > 100000)
            return 1;
        column(n[i], cost[i]);
        printf("%10u", n[i]);
    }
    printf("\n");
    for (unsigned r = 0; r < ROWS; r++) {
        printf("%-36s", names[r]);
        for (unsigned i = 0; i < columns; i++)
            printf("%10.2f", cost[i][r]);
        printf("\n");
    }
    return 0;
}
