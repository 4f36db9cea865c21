/*
 * What a fuzz target gives, and gets. A target is one file test/fuzz/fuzz_NAME.c that defines
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);   (returns 0; must never crash, leak or hang)
 *
 * and, if it likes, any of the optional parts below. Properties are checked with FUZZ_CHECK, which reports and aborts.
 *
 * With clang's libFuzzer the target stands alone. Otherwise it is linked with driver.c, which replays the seeds as they
 * are and then mutates them; `make build/release/fuzz/fuzz_NAME` (or VARIANT=asan) builds that. Usage:
 *
 *     fuzz_NAME [-t SECONDS] [-n INPUTS] [-s SEED] [FILE...]    FILE: more seeds
 *     fuzz_NAME -r FILE...                                      runs just these inputs, unchanged
 *
 * Input number i of a seed is always the same. Each is handed over in an allocation of exactly its size, so that
 * AddressSanitizer sees the first byte read beyond it. What crashes, or takes longer than 20 seconds, is written to
 * fuzz-crash-SEED-i.bin in the current folder, for -r.
 */
#ifndef ADIT_FUZZ_H
#define ADIT_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_INPUT_MAX 65536 /* longest input, in bytes */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Optional: called once before all (crypto_init and the like belong here). Returns 0. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Optional: valid inputs to start from, as constants. A target that defines one of the two defines both. */
struct fuzz_seed {
    const uint8_t *data;
    size_t len;
};
extern const struct fuzz_seed fuzz_seeds[];
extern const unsigned fuzz_seed_count;

/* Optional: seeds that code makes. Writes seed i (0, 1, …) into out and returns its length; 0: there are no more. */
size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap);

#define FUZZ_CHECK(what)                                                              \
    do {                                                                              \
        if (!(what)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

#endif
