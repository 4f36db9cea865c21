#include "crypto/secret.h"

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
 * Every object has a mapping of its own, rounded up to whole pages. sodium_malloc would take four pages and several
 * system calls for the smallest object, and its guard pages split the address space: a few ten thousand SAs would run
 * into vm.max_map_count. Neighbouring mappings with the same advice are merged by the kernel, so these don't. The
 * object is preceded by its size and followed by a canary, which secret_free checks.
 */
struct secret_head {
    size_t size;   /* of the object */
    size_t mapped; /* of the mapping */
    uint64_t canary;
};

#define HEAD_ROOM 64 /* keeps the object aligned for vector loads of the crypto libraries */
#define CANARY UINT64_C(0x5ec2e7c0ffee1dea)

_Static_assert(sizeof(struct secret_head) <= HEAD_ROOM, "the head precedes the object");

/* The canary differs by address: bytes copied from one object over another's end are noticed as well. */
static uint64_t canary_of(const struct secret_head *h)
{
    return CANARY ^ (uint64_t)(uintptr_t)h;
}

void *secret_alloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX / 2)
        return NULL;
    size_t mapped = (HEAD_ROOM + size + sizeof(uint64_t) + page - 1) / page * page;
    struct secret_head *h = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (h == MAP_FAILED)
        return NULL;
    /* A kernel without this advice must not keep us from working: the rest of the protection still holds. */
    (void)madvise(h, mapped, MADV_DONTDUMP);
    (void)madvise(h, mapped, MADV_WIPEONFORK);
    (void)mlock(h, mapped); /* RLIMIT_MEMLOCK may be used up */
    *h = (struct secret_head){.size = size, .mapped = mapped, .canary = canary_of(h)};
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
    if (h->canary == 0 && h->mapped == 0)
        return; /* in a forked child the kernel gave us zeroes: nothing to wipe, its size is gone with it */
    if (h->canary != canary_of(h) || memcmp(object + h->size, &h->canary, sizeof h->canary) != 0)
        abort(); /* written past its end, or freed twice: going on would only hide the damage */
    size_t mapped = h->mapped;
    sodium_memzero(h, mapped);
    munmap(h, mapped);
}

void secret_wipe(void *p, size_t n)
{
    sodium_memzero(p, n);
}

bool secret_equal(const void *a, const void *b, size_t n)
{
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
