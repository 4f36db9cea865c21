/*
 * A hash table of nodes that live inside what they index: found, added and removed in constant time, also among many
 * of one key. It maps 64-bit keys; whoever uses it makes them of what it looks for (a keyed hash where a stranger
 * chooses that: crypto/siphash.h) and compares the whole on finding. It grows step by step, so that no
 * call takes long however many there are. A zeroed table is an empty one; it must not be
 * moved while it has entries. Adding never fails: without memory to grow, chains become longer.
 */
#ifndef ADIT_HASH_H
#define ADIT_HASH_H

#include <stddef.h>
#include <stdint.h>

/* What a node (or a timer) is part of. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct hash_link {
    struct hash_link *next, **at; /* of its chain; at: what points here, NULL while in no table */
    uint64_t key;
};

struct hash {
    struct hash_link **slots; /* NULL: one, `single` */
    struct hash_link *single;
    struct hash_link **old; /* half as many, while their entries are moved: those before `moved` have been */
    size_t moved;
    unsigned bits; /* 1 << bits slots */
    size_t count;
};

void hash_free(struct hash *h);                                   /* the nodes belong to their owners */
void hash_add(struct hash *h, struct hash_link *l, uint64_t key); /* before all others of its key */
void hash_remove(struct hash *h, struct hash_link *l);            /* in no table: nothing happens */

/* The entry of that key that was added last, and then the one added before it; NULL: no more. */
struct hash_link *hash_find(const struct hash *h, uint64_t key);
struct hash_link *hash_next(const struct hash_link *l);

/* A key of bytes that no stranger chooses: names of a configuration. */
uint64_t hash_text(const char *text);

#endif
