#include "crypto/secret.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crypto/transform.h"

enum err crypto_init(void)
{
    if (sodium_init() < 0)
        return ERR_CRYPTO;
    return engines_start();
}

/*
 * Small objects share slabs: mappings that are locked, kept out of core files and of forked children, and lie between
 * pages that nobody may touch. A mapping for each object would cost a page of locked memory and several system calls
 * for the smallest of them, and a few ten thousand SAs would run into RLIMIT_MEMLOCK or vm.max_map_count. Large objects
 * have a mapping of their own. What is known about a slab stands outside of it, so that a forked child, which finds all
 * slabs full of zeroes, can still count on it.
 *
 * An object is preceded by its head and followed by a canary, which secret_free checks.
 */
struct slab {
    struct slab *prev, *next; /* of its class, while it has room */
    uint8_t *memory;
    unsigned slots, used;
    size_t slot_size;
    uint64_t taken[]; /* a bit for each slot */
};

struct secret_head {
    size_t size;       /* of the object */
    size_t mapped;     /* of its own mapping; 0: in a slab */
    struct slab *slab; /* that one */
    uint64_t canary;
};

#define HEAD_ROOM 64 /* keeps the object aligned for vector loads of the crypto libraries */
#define CANARY UINT64_C(0x5ec2e7c0ffee1dea)
#define SLAB_SIZE (64u * 1024)
#define CLASSES 24 /* sizes of slots: four to each doubling, from 128 bytes on */
#define SLOT_FIRST 128
#define SLOT_MOST ((SLOT_FIRST / 4) << (CLASSES / 4 - 1)) * 7

_Static_assert(sizeof(struct secret_head) <= HEAD_ROOM, "the head precedes the object");
_Static_assert(SLOT_MOST <= SLAB_SIZE / 8, "a slab is no waste");

/* A heap, as malloc has one: any thread may call. */
static struct {
    pthread_mutex_t lock;
    struct slab *open[CLASSES];
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t slot_size(unsigned class)
{
    size_t n = (size_t)(SLOT_FIRST / 4 * (4 + class % 4)) << class / 4;
    return (n + HEAD_ROOM - 1) / HEAD_ROOM * HEAD_ROOM;
}

/* The canary differs by address: bytes copied from one object over another's end are noticed as well. */
static uint64_t canary_of(const struct secret_head *h)
{
    return CANARY ^ (uint64_t)(uintptr_t)h;
}

/* A kernel without this advice must not keep us from working: the rest of the protection still holds. */
static void protect(void *memory, size_t size)
{
    (void)madvise(memory, size, MADV_DONTDUMP);
    (void)madvise(memory, size, MADV_WIPEONFORK);
    (void)mlock(memory, size); /* RLIMIT_MEMLOCK may be used up */
}

static struct slab *slab_new(unsigned class)
{
    size_t size = slot_size(class), slots = SLAB_SIZE / size, guard = page_size();
    struct slab *s = calloc(1, sizeof *s + (slots + 63) / 64 * sizeof(uint64_t));
    if (!s)
        return NULL;
    uint8_t *memory = mmap(NULL, SLAB_SIZE + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        free(s);
        return NULL;
    }
    if (mprotect(memory + guard, SLAB_SIZE, PROT_READ | PROT_WRITE)) {
        munmap(memory, SLAB_SIZE + 2 * guard);
        free(s);
        return NULL;
    }
    protect(memory + guard, SLAB_SIZE);
    s->memory = memory + guard;
    s->slots = (unsigned)slots;
    s->slot_size = size;
    return s;
}

static void slab_open(struct slab *s, struct slab **list)
{
    s->prev = NULL;
    s->next = *list;
    if (s->next)
        s->next->prev = s;
    *list = s;
}

static void slab_close(struct slab *s, struct slab **list)
{
    *(s->prev ? &s->prev->next : list) = s->next;
    if (s->next)
        s->next->prev = s->prev;
}

static struct secret_head *slot_take(struct slab *s)
{
    unsigned word = 0;
    while (s->taken[word] == UINT64_MAX)
        word++;
    unsigned slot = word * 64 + (unsigned)__builtin_ctzll(~s->taken[word]);
    s->taken[word] |= UINT64_C(1) << slot % 64;
    s->used++;
    return (struct secret_head *)(void *)(s->memory + slot * s->slot_size);
}

static struct secret_head *small_alloc(unsigned class)
{
    struct secret_head *h = NULL;
    pthread_mutex_lock(&heap.lock);
    struct slab **list = &heap.open[class], *s = *list;
    if (!s && (s = slab_new(class)) != NULL)
        slab_open(s, list);
    if (s) {
        h = slot_take(s);
        h->slab = s;
        if (s->used == s->slots)
            slab_close(s, list);
    }
    pthread_mutex_unlock(&heap.lock);
    return h;
}

static unsigned class_of(size_t room)
{
    unsigned class = 0;
    while (class < CLASSES && slot_size(class) < room)
        class ++;
    return class;
}

/* Its memory is wiped already. The last slab with room in a class stays, so that one object may come and go cheaply. */
static void small_free(struct slab *s, const struct secret_head *h)
{
    unsigned slot = (unsigned)((size_t)((const uint8_t *)h - s->memory) / s->slot_size);
    pthread_mutex_lock(&heap.lock);
    struct slab **list = &heap.open[class_of(s->slot_size)];
    if (s->used-- == s->slots)
        slab_open(s, list);
    s->taken[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    bool unused = s->used == 0 && (s->prev || s->next);
    if (unused)
        slab_close(s, list);
    pthread_mutex_unlock(&heap.lock);
    if (!unused)
        return;
    munmap(s->memory - page_size(), SLAB_SIZE + 2 * page_size());
    free(s);
}

static struct secret_head *large_alloc(size_t room)
{
    size_t page = page_size(), mapped = (room + page - 1) / page * page;
    struct secret_head *h = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (h == MAP_FAILED)
        return NULL;
    protect(h, mapped);
    h->mapped = mapped;
    return h;
}

void *secret_alloc(size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size_t room = HEAD_ROOM + size + sizeof(uint64_t);
    unsigned class = class_of(room);
    struct secret_head *h = class < CLASSES ? small_alloc(class) : large_alloc(room);
    if (!h)
        return NULL;
    h->size = size;
    h->canary = canary_of(h);
    uint8_t *object = (uint8_t *)h + HEAD_ROOM;
    memcpy(object + size, &h->canary, sizeof h->canary);
    return object;
}

void secret_free(void *p)
{
    if (!p)
        return;
    uint8_t *object = p;
    struct secret_head *h = (struct secret_head *)(void *)(object - HEAD_ROOM);
    if (h->canary == 0 && h->size == 0)
        return; /* in a forked child the kernel gave us zeroes: nothing to wipe, its size is gone with it */
    if (h->canary != canary_of(h) || memcmp(object + h->size, &h->canary, sizeof h->canary) != 0)
        abort(); /* written past its end, or freed twice: going on would only hide the damage */
    struct slab *slab = h->slab;
    size_t mapped = h->mapped;
    sodium_memzero(h, slab ? slab->slot_size : mapped);
    if (!slab) {
        munmap(h, mapped);
        return;
    }
    h->canary = ~canary_of(h); /* tells a slot that was freed from one that a fork has emptied */
    small_free(slab, h);
}

void secret_wipe(void *p, size_t n)
{
    sodium_memzero(p, n);
}

bool secret_equal(const void *a, const void *b, size_t n)
{
    /* The usual lengths of an ICV take a few instructions; sodium_memcmp goes byte by byte. */
    if (n == crypto_verify_16_BYTES)
        return crypto_verify_16(a, b) == 0;
    if (n == crypto_verify_32_BYTES)
        return crypto_verify_32(a, b) == 0;
    return sodium_memcmp(a, b, n) == 0;
}

enum err secret_set(struct secret *s, struct span value)
{
    if (value.len > SECRET_INLINE)
        return ERR_RANGE;
    secret_wipe(s->b, sizeof s->b); /* no rest of a longer, older value */
    if (value.len)
        memcpy(s->b, value.data, value.len);
    s->len = (uint16_t)value.len;
    return OK;
}
