#include <stdlib.h>

#include "ike/internal.h"

#define TABLE_FIRST_SIZE 64

uint64_t sa_own_spi(const struct ike_sa *sa)
{
    return sa->initiator ? sa->spi_i : sa->spi_r;
}

static size_t spi_slot(const struct sa_table *t, uint64_t spi)
{
    return (size_t)(spi ^ spi >> 32) & (t->size - 1); /* our SPIs are random: no mixing is needed */
}

/* The peer chose the SPI and could aim at one chain, but half-open SAs are limited and so is its length. */
static size_t first_slot(const struct sa_table *t, uint64_t spi_i, const struct endpoint *remote)
{
    uint64_t h = spi_i;
    for (unsigned i = 0; i < sizeof remote->ip.b; i++)
        h = (h ^ remote->ip.b[i]) * UINT64_C(0x100000001b3);
    h = (h ^ remote->port) * UINT64_C(0x100000001b3);
    return (size_t)(h ^ h >> 32) & (t->size - 1);
}

enum err table_init(struct sa_table *t)
{
    *t = (struct sa_table){.size = TABLE_FIRST_SIZE};
    t->by_spi = calloc(t->size, sizeof(struct ike_sa *));
    t->by_first = calloc(t->size, sizeof(struct ike_sa *));
    return t->by_spi && t->by_first ? OK : ERR_NOMEM;
}

void table_free(struct sa_table *t)
{
    free(t->by_spi);
    free(t->by_first);
    *t = (struct sa_table){0};
}

static void grow(struct sa_table *t)
{
    struct sa_table n = {.size = t->size * 2, .count = t->count};
    n.by_spi = calloc(n.size, sizeof(struct ike_sa *));
    n.by_first = calloc(n.size, sizeof(struct ike_sa *));
    if (!n.by_spi || !n.by_first) { /* longer chains are no failure */
        table_free(&n);
        return;
    }
    for (size_t i = 0; i < t->size; i++) {
        for (struct ike_sa *sa = t->by_spi[i], *next; sa; sa = next) {
            next = sa->spi_chain;
            size_t slot = spi_slot(&n, sa_own_spi(sa));
            sa->spi_chain = n.by_spi[slot];
            n.by_spi[slot] = sa;
        }
        for (struct ike_sa *sa = t->by_first[i], *next; sa; sa = next) {
            next = sa->first_chain;
            size_t slot = first_slot(&n, sa->spi_i, &sa->first_remote);
            sa->first_chain = n.by_first[slot];
            n.by_first[slot] = sa;
        }
    }
    table_free(t);
    *t = n;
}

void table_add(struct sa_table *t, struct ike_sa *sa)
{
    if (t->count >= t->size)
        grow(t);
    size_t slot = spi_slot(t, sa_own_spi(sa));
    sa->spi_chain = t->by_spi[slot];
    t->by_spi[slot] = sa;
    t->count++;
}

void table_add_first(struct sa_table *t, struct ike_sa *sa)
{
    size_t slot = first_slot(t, sa->spi_i, &sa->first_remote);
    sa->first_chain = t->by_first[slot];
    t->by_first[slot] = sa;
}

void table_remove(struct sa_table *t, struct ike_sa *sa)
{
    for (struct ike_sa **p = &t->by_spi[spi_slot(t, sa_own_spi(sa))]; *p; p = &(*p)->spi_chain)
        if (*p == sa) {
            *p = sa->spi_chain;
            t->count--;
            break;
        }
    for (struct ike_sa **p = &t->by_first[first_slot(t, sa->spi_i, &sa->first_remote)]; *p; p = &(*p)->first_chain)
        if (*p == sa) {
            *p = sa->first_chain;
            break;
        }
}

struct ike_sa *table_find(const struct sa_table *t, uint64_t own_spi)
{
    struct ike_sa *sa = t->by_spi[spi_slot(t, own_spi)];
    while (sa && sa_own_spi(sa) != own_spi)
        sa = sa->spi_chain;
    return sa;
}

struct ike_sa *table_find_first(const struct sa_table *t, uint64_t spi_i, const struct endpoint *remote,
                                struct span message)
{
    struct ike_sa *sa = t->by_first[first_slot(t, spi_i, remote)];
    while (sa && !(sa->spi_i == spi_i && endpoint_equal(&sa->first_remote, remote) &&
                   (!sa->first_peer.len || span_equal(buf_span(&sa->first_peer), message))))
        sa = sa->first_chain;
    return sa;
}
