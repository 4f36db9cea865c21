/* Random numbers from one place, safe across fork. Tests hand the engine a seeded source of the same shape. */
#ifndef ADIT_RANDOM_H
#define ADIT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fills p; never fails (the system's source is checked in crypto_init). */
void random_bytes(void *p, size_t n);

struct random_source {
    void *ctx;
    void (*fill)(void *ctx, void *p, size_t n);
};
extern const struct random_source random_system;

static inline void random_fill(const struct random_source *s, void *p, size_t n)
{
    s->fill(s->ctx, p, n);
}

/* A deterministic source for tests and simulations; state is owned by the caller. */
struct random_seeded {
    uint8_t key[32];
    uint64_t counter;
};
struct random_source random_seeded_source(struct random_seeded *state, uint64_t seed);

#endif
