#include "esp/sad.h"

#include <stdlib.h>

/* Pages of both tables: allocated by the control thread when first needed, never freed while workers run. */
#define IN_PAGE 1024u
#define IN_PAGES (SAD_SLOTS / IN_PAGE)
#define OUT_PAGE 64u
#define OUT_PAGES (SAD_POLICIES / OUT_PAGE)

#define SLOT_MASK (SAD_SLOTS - 1)
#define TAG_SHIFT 20
#define TAG_MASK 0xffu
#define WORKER_SHIFT 28

struct in_page {
    struct sa *_Atomic sa[IN_PAGE];
    /* Written by the control thread: the SPI that a slot is reserved for; worker bits 0: free, the tag is the last one's. */
    _Atomic uint32_t spi[IN_PAGE];
    unsigned used;
};

struct out_page {
    struct sa *_Atomic sa[OUT_PAGE][SAD_WORKERS];
};

struct sad {
    struct in_page *_Atomic in[IN_PAGES];
    struct out_page *_Atomic out[OUT_PAGES];
    /* the control thread's */
    struct epoch *epoch;
    struct random_source random;
    unsigned pages, used; /* of inbound slots; pages are filled in order */
};

enum err sad_new(struct sad **out, struct epoch *epoch, const struct random_source *rnd)
{
    struct sad *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->epoch = epoch;
    s->random = *rnd;
    *out = s;
    return OK;
}

void sad_free(struct sad *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->pages; i++) {
        struct in_page *page = atomic_load_explicit(&s->in[i], memory_order_relaxed);
        for (unsigned k = 0; k < IN_PAGE; k++)
            sa_free(atomic_load_explicit(&page->sa[k], memory_order_relaxed));
        free(page);
    }
    for (unsigned i = 0; i < OUT_PAGES; i++)
        free(atomic_load_explicit(&s->out[i], memory_order_relaxed));
    free(s);
}

/* Workers passed by, then wiped and freed; without memory for the list of the retired, wait for them here. */
static void retire(struct sad *s, struct sa *sa)
{
    if (epoch_retire(s->epoch, sa_free, sa) == OK)
        return;
    epoch_wait(s->epoch);
    sa_free(sa);
}

/* -- inbound: reservation, by the control thread -- */

/* One more page of slots. The tags start at random, so that a restarted daemon's SPIs differ from the last one's. */
static enum err grow(struct sad *s)
{
    if (s->pages == IN_PAGES)
        return ERR_FULL;
    struct in_page *page = calloc(1, sizeof *page);
    if (!page)
        return ERR_NOMEM;
    uint8_t tags[IN_PAGE];
    random_fill(&s->random, tags, sizeof tags);
    for (unsigned k = 0; k < IN_PAGE; k++)
        page->spi[k] = (uint32_t)tags[k] << TAG_SHIFT;
    atomic_store_explicit(&s->in[s->pages], page, memory_order_release);
    s->pages++;
    return OK;
}

static bool taken(uint32_t reserved)
{
    return reserved >> WORKER_SHIFT != 0;
}

/* A free slot, from a random one on; there is one. Slots freed lately are thus not the first to come back. */
static uint32_t free_slot(const struct sad *s, uint32_t start)
{
    uint32_t total = s->pages * IN_PAGE, slot = start % total;
    for (;;) {
        const struct in_page *page = atomic_load_explicit(&s->in[slot / IN_PAGE], memory_order_relaxed);
        if (page->used == IN_PAGE) {
            slot = (slot / IN_PAGE + 1) * IN_PAGE % total;
            continue;
        }
        do {
            if (!taken(page->spi[slot % IN_PAGE]))
                return slot;
        } while (++slot % IN_PAGE != 0);
        slot %= total;
    }
}

enum err sad_reserve(struct sad *s, unsigned worker, uint32_t *spi)
{
    if (worker >= SAD_WORKERS)
        return ERR_RANGE;
    /* Kept a quarter empty, so that a freed slot rests and a search is short; that failing, the last slot will do. */
    if (s->used >= s->pages * (IN_PAGE / 4 * 3)) {
        enum err e = grow(s);
        if (e != OK && s->used == s->pages * IN_PAGE)
            return e;
    }
    uint32_t random[2];
    random_fill(&s->random, random, sizeof random);
    uint32_t slot = free_slot(s, random[0]);
    struct in_page *page = atomic_load_explicit(&s->in[slot / IN_PAGE], memory_order_relaxed);
    _Atomic uint32_t *reserved = &page->spi[slot % IN_PAGE];
    /* Any tag but the last one's: what is still under way to the slot's former SPI must not meet the new SA. */
    uint32_t tag = ((*reserved >> TAG_SHIFT) + 1 + random[1] % TAG_MASK) & TAG_MASK;
    *reserved = (worker + 1) << WORKER_SHIFT | tag << TAG_SHIFT | slot;
    page->used++;
    s->used++;
    *spi = *reserved;
    return OK;
}

/* The page of a reserved SPI; NULL if it isn't reserved. */
static struct in_page *reserved_page(const struct sad *s, uint32_t spi)
{
    uint32_t slot = spi & SLOT_MASK;
    struct in_page *page = atomic_load_explicit(&s->in[slot / IN_PAGE], memory_order_relaxed);
    return page && taken(spi) && page->spi[slot % IN_PAGE] == spi ? page : NULL;
}

static void give_back(struct sad *s, struct in_page *page, uint32_t spi)
{
    page->spi[spi % IN_PAGE] = spi & TAG_MASK << TAG_SHIFT;
    page->used--;
    s->used--;
}

void sad_release(struct sad *s, uint32_t spi)
{
    struct in_page *page = reserved_page(s, spi);
    if (page && !atomic_load_explicit(&page->sa[spi % IN_PAGE], memory_order_relaxed))
        give_back(s, page, spi);
}

enum err sad_publish_in(struct sad *s, struct sa *sa)
{
    uint32_t spi = sa->params.spi;
    struct in_page *page = reserved_page(s, spi);
    if (sa->params.dir != SA_IN || !page || atomic_load_explicit(&page->sa[spi % IN_PAGE], memory_order_relaxed))
        return ERR_STATE;
    atomic_store_explicit(&page->sa[spi % IN_PAGE], sa, memory_order_release);
    return OK;
}

void sad_remove_in(struct sad *s, uint32_t spi)
{
    struct in_page *page = reserved_page(s, spi);
    if (!page)
        return;
    struct sa *sa = atomic_load_explicit(&page->sa[spi % IN_PAGE], memory_order_relaxed);
    if (!sa)
        return;
    atomic_store_explicit(&page->sa[spi % IN_PAGE], NULL, memory_order_release);
    give_back(s, page, spi);
    retire(s, sa);
}

struct sa *sad_find_in(const struct sad *s, uint32_t spi)
{
    uint32_t slot = spi & SLOT_MASK;
    struct in_page *page = atomic_load_explicit(&s->in[slot / IN_PAGE], memory_order_acquire);
    if (!page)
        return NULL;
    struct sa *sa = atomic_load_explicit(&page->sa[slot % IN_PAGE], memory_order_acquire);
    return sa && sa->params.spi == spi ? sa : NULL;
}

bool sad_expects_in(const struct sad *s, uint32_t spi)
{
    uint32_t slot = spi & SLOT_MASK;
    struct in_page *page = atomic_load_explicit(&s->in[slot / IN_PAGE], memory_order_acquire);
    return page && taken(spi) && atomic_load_explicit(&page->spi[slot % IN_PAGE], memory_order_relaxed) == spi;
}

/* -- outbound -- */

/* Points all workers of a policy to an SA, or to none. */
static void point_out(struct out_page *page, uint32_t policy_id, struct sa *sa)
{
    for (unsigned w = 0; w < SAD_WORKERS; w++)
        atomic_store_explicit(&page->sa[policy_id % OUT_PAGE][w], sa, memory_order_release);
}

enum err sad_prepare_out(struct sad *s, uint32_t policy_id)
{
    if (policy_id >= SAD_POLICIES)
        return ERR_RANGE;
    struct out_page *page = atomic_load_explicit(&s->out[policy_id / OUT_PAGE], memory_order_relaxed);
    if (page)
        return OK;
    page = calloc(1, sizeof *page);
    if (!page)
        return ERR_NOMEM;
    atomic_store_explicit(&s->out[policy_id / OUT_PAGE], page, memory_order_release);
    return OK;
}

enum err sad_publish_out(struct sad *s, struct sa *sa)
{
    uint32_t id = sa->params.policy_id;
    if (sa->params.dir != SA_OUT)
        return ERR_STATE;
    TRY(sad_prepare_out(s, id));
    point_out(atomic_load_explicit(&s->out[id / OUT_PAGE], memory_order_relaxed), id, sa);
    return OK;
}

void sad_retire_out(struct sad *s, struct sa *sa)
{
    uint32_t id = sa->params.policy_id;
    if (sad_find_out(s, id, 0) == sa)
        point_out(atomic_load_explicit(&s->out[id / OUT_PAGE], memory_order_relaxed), id, NULL);
    retire(s, sa);
}

struct sa *sad_find_out(const struct sad *s, uint32_t policy_id, unsigned worker)
{
    if (policy_id >= SAD_POLICIES || worker >= SAD_WORKERS)
        return NULL;
    struct out_page *page = atomic_load_explicit(&s->out[policy_id / OUT_PAGE], memory_order_acquire);
    return page ? atomic_load_explicit(&page->sa[policy_id % OUT_PAGE][worker], memory_order_acquire) : NULL;
}
