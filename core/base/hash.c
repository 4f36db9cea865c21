#include "core/base/hash.h"

#include <stdlib.h>

#define FIRST_BITS 4
#define MAX_BITS 30
#define MOVED_AT_ONCE 4 /* chains, with each entry that is added */

/* The highest bits of a product with 2^64 divided by the golden ratio: keys that count up are spread as well. */
static size_t slot_of(unsigned bits, uint64_t key)
{
    return (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits));
}

/* All entries of one key are in one chain: of the table that is left, until that chain has been moved. */
static struct hash_link **chain_of(const struct hash *h, uint64_t key)
{
    if (h->old) {
        size_t old = slot_of(h->bits - 1, key);
        if (old >= h->moved)
            return &h->old[old];
    }
    return &h->slots[slot_of(h->bits, key)];
}

static void put(struct hash_link **at, struct hash_link *l)
{
    l->at = at;
    l->next = *at;
    if (l->next)
        l->next->at = &l->next;
    *at = l;
}

/* Turned round first: entries of one key stay in their order. */
static void move_chain(struct hash *h, struct hash_link *l)
{
    struct hash_link *reversed = NULL;
    for (struct hash_link *next; l; l = next) {
        next = l->next;
        l->next = reversed;
        reversed = l;
    }
    for (struct hash_link *next; reversed; reversed = next) {
        next = reversed->next;
        put(&h->slots[slot_of(h->bits, reversed->key)], reversed);
    }
}

/* Begins with a table of twice the size: with thousands of entries it would take too long to move them all at once. */
static void grow(struct hash *h)
{
    unsigned bits = h->slots ? h->bits + 1 : FIRST_BITS;
    struct hash_link **slots = bits <= MAX_BITS ? calloc((size_t)1 << bits, sizeof(struct hash_link *)) : NULL;
    if (!slots)
        return;
    h->old = h->slots;
    h->moved = 0;
    h->slots = slots;
    h->bits = bits;
    if (!h->old)
        move_chain(h, h->single);
    h->single = NULL;
}

/* Goes on with it; all is moved long before the larger table is full as well. */
static void move_some(struct hash *h)
{
    size_t size = (size_t)1 << (h->bits - 1);
    for (unsigned n = 0; n < MOVED_AT_ONCE && h->moved < size; n++)
        move_chain(h, h->old[h->moved++]);
    if (h->moved < size)
        return;
    free(h->old);
    h->old = NULL;
}

void hash_free(struct hash *h)
{
    free(h->slots);
    free(h->old);
    *h = (struct hash){0};
}

void hash_add(struct hash *h, struct hash_link *l, uint64_t key)
{
    if (h->old)
        move_some(h);
    else if (h->count >= (h->slots ? (size_t)1 << h->bits : 1))
        grow(h);
    l->key = key;
    put(h->slots ? chain_of(h, key) : &h->single, l);
    h->count++;
}

void hash_remove(struct hash *h, struct hash_link *l)
{
    if (!l->at)
        return;
    *l->at = l->next;
    if (l->next)
        l->next->at = l->at;
    l->next = NULL;
    l->at = NULL;
    h->count--;
}

static struct hash_link *of_key(struct hash_link *l, uint64_t key)
{
    while (l && l->key != key)
        l = l->next;
    return l;
}

struct hash_link *hash_find(const struct hash *h, uint64_t key)
{
    return of_key(h->slots ? *chain_of(h, key) : h->single, key);
}

struct hash_link *hash_next(const struct hash_link *l)
{
    return of_key(l->next, l->key);
}

uint64_t hash_text(const char *text)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return h;
}
