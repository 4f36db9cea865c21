/* `adit bench`: every crypto engine with every ESP suite, and which of them "auto" means. */
#include <stdio.h>
#include <string.h>

#include "core/cli.h"
#include "crypto/measure.h"
#include "crypto/secret.h"

#define BENCH_SIZE 1400 /* bytes: a full packet of an ordinary path */

static void bench_engine(const char *engine, const struct suite *s, unsigned ms)
{
    char suite[64];
    struct measure m;
    enum err e = measure_seal(engine, s, BENCH_SIZE, ms, &m);
    if (e == ERR_UNSUPPORTED)
        return;
    suite_text(s, suite, sizeof suite);
    if (e != OK) {
        printf("%-24s %-10s %s\n", suite, engine, err_text(e));
        return;
    }
    const char *chosen = engine_for(s);
    printf("%-24s %-10s %8.0f %10.0f  %s\n", suite, engine, m.mb_per_s, m.ns_per_packet,
           chosen && strcmp(chosen, engine) == 0 ? "used" : "");
    fflush(stdout);
}

static void bench_suite(const struct transform *encr, const struct transform *integ, unsigned ms)
{
    struct suite s;
    if (suite_of(encr, integ, &s) != OK)
        return;
    for (unsigned i = 0; engine_name(i); i++)
        bench_engine(engine_name(i), &s, ms);
}

int cli_bench(const struct cli *c)
{
    static const struct transform none = {.type = TRANSFORM_INTEG, .id = INTEG_NONE};
    if (crypto_init() != OK) {
        fputs("adit: the crypto libraries could not be started\n", stderr);
        return EXIT_FAILED;
    }
    printf("sealing packets of %u bytes on one core\n\n", BENCH_SIZE);
    printf("%-24s %-10s %8s %10s\n", "suite", "engine", "MB/s", "ns/packet");
    const struct algorithm *encr, *integ;
    for (unsigned i = 0; (encr = algorithm_at(i)); i++) {
        if (encr->t.type != TRANSFORM_ENCR)
            continue;
        if (encr->aead)
            bench_suite(&encr->t, &none, c->ms);
        for (unsigned k = 0; !encr->aead && (integ = algorithm_at(k)); k++)
            if (integ->t.type == TRANSFORM_INTEG)
                bench_suite(&encr->t, &integ->t, c->ms);
    }
    return EXIT_DONE;
}
