#include "core/base/hash.h"

#include <stdlib.h>

#define FIRST_BITS 4
#define MAX_BITS 30

/* The highest bits of a product with 2^64 divided by the golden ratio: keys that count up are spread as well. */
static struct hash_link **chain_of(struct hash_link **slots, unsigned bits, uint64_t key)
{
    return &slots[key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits)];
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
static void move_chain(struct hash_link *l, struct hash_link **slots, unsigned bits)
{
    struct hash_link *reversed = NULL;
    for (struct hash_link *next; l; l = next) {
        next = l->next;
        l->next = reversed;
        reversed = l;
    }
    for (struct hash_link *next; reversed; reversed = next) {
        next = reversed->next;
        put(chain_of(slots, bits, reversed->key), reversed);
    }
}

static void grow(struct hash *h)
{
    unsigned bits = h->slots ? h->bits + 1 : FIRST_BITS;
    struct hash_link **slots = bits <= MAX_BITS ? calloc((size_t)1 << bits, sizeof(struct hash_link *)) : NULL;
    if (!slots)
        return;
    for (size_t i = 0; h->slots && i < (size_t)1 << h->bits; i++)
        move_chain(h->slots[i], slots, bits);
    move_chain(h->single, slots, bits);
    h->single = NULL;
    free(h->slots);
    h->slots = slots;
    h->bits = bits;
}

void hash_free(struct hash *h)
{
    free(h->slots);
    *h = (struct hash){0};
}

void hash_add(struct hash *h, struct hash_link *l, uint64_t key)
{
    if (h->count >= (h->slots ? (size_t)1 << h->bits : 1))
        grow(h);
    l->key = key;
    put(h->slots ? chain_of(h->slots, h->bits, key) : &h->single, l);
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
    return of_key(h->slots ? *chain_of(h->slots, h->bits, key) : h->single, key);
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
