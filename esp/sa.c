#include "esp/sa.h"

#include <stdlib.h>
#include <string.h>

#include "crypto/random.h"
#include "crypto/secret.h"
#include "esp/ah.h"

/*
 * The limits of a sequence number's own. Without ESN: an eighth of the space before its end, half a minute at 18 million
 * packets a second, and long enough for a rekey at any speed below; a number is never used twice (RFC 4303 3.3.3).
 */
#define SEQ32_SOFT ((UINT64_C(1) << 32) - (UINT64_C(1) << 29))
#define SEQ64_SOFT (UINT64_MAX - (UINT64_C(1) << 61))

/*
 * All modes of a cipher with 128-bit blocks lose against a birthday bound, as do the MACs made of it: after q blocks
 * under one key an attacker can tell ciphertext from random with probability about q^2 / 2^129. 2^36 blocks, 1 TiB,
 * leave 2^-57. ChaCha20 is no permutation and HMAC has no such bound at lengths within reach: only sequence numbers
 * limit them.
 */
#define BLOCK128_SOFT (UINT64_C(1) << 40)

#define FRAGMENT_SETS 8 /* fragmented packets that one SA remembers: four times that many */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A hard limit in force always has a soft one before it. */
static uint64_t soft_before(uint64_t soft, uint64_t hard)
{
    return soft < hard ? soft : hard - hard / 8;
}

static void set_limits(struct sa *sa)
{
    const struct sa_params *p = &sa->params;
    uint64_t hard = p->esn ? UINT64_MAX : UINT32_MAX;
    uint64_t soft = p->esn ? SEQ64_SOFT : SEQ32_SOFT;
    if (p->hard_packets)
        hard = least(hard, p->hard_packets);
    if (p->soft_packets)
        soft = least(soft, p->soft_packets);
    soft = soft_before(soft, hard);
    sa->seq_soft = sa->packet_soft = soft;
    sa->seq_hard = sa->packet_hard = hard;

    bool birthday = p->suite.aes;
    hard = birthday ? BLOCK128_SOFT + BLOCK128_SOFT / 10 : UINT64_MAX;
    soft = birthday ? BLOCK128_SOFT : UINT64_MAX;
    if (p->hard_bytes)
        hard = least(hard, p->hard_bytes);
    if (p->soft_bytes)
        soft = least(soft, p->soft_bytes);
    sa->byte_hard = hard;
    sa->byte_soft = soft_before(soft, hard);
}

static uint32_t new_flow(void)
{
    uint32_t n;
    random_bytes(&n, sizeof n);
    return 1 + n % 0xfffff; /* 0 says that there is none */
}

static bool any_proto(const struct selectors *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->v[i].proto != 0 || s->v[i].port_first != 0 || s->v[i].port_last != UINT16_MAX)
            return false;
    return true;
}

static bool any_port(const struct selectors *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->v[i].port_first != 0 || s->v[i].port_last != UINT16_MAX)
            return false;
    return true;
}

static enum err check_params(const struct sa_params *p)
{
    const struct suite *s = &p->suite;
    if (p->spi < 256) /* RFC 4303 section 2.1: 0 is for local use, 1..255 are reserved */
        return ERR_RANGE;
    if (p->local.n == 0 || p->remote.n == 0)
        return ERR_MISMATCH;
    if ((s->encr.id == ENCR_NONE) != (p->proto == PROTOCOL_AH)) /* a suite for the other one */
        return ERR_MISMATCH;
    /* RFC 4301 section 4.2, RFC 4303 section 3.2: never without integrity. */
    if (s->icv_len == 0 || (!s->aead && s->integ.id == INTEG_NONE))
        return ERR_MISMATCH;
    uint32_t align = esp_align(s);
    /* What seal.c counts on: masks instead of division, and padding written in blocks of 8 bytes before the ICV. */
    if ((align & (align - 1)) != 0 || align > 16 || s->icv_len < 8 || s->icv_len > TRANSFORM_ICV_MAX ||
        s->iv_len > TRANSFORM_IV_MAX || (s->counter_iv && s->iv_len != (s->implicit_iv ? 0 : COUNTER_IV)))
        return ERR_UNSUPPORTED;
    if (p->dir == SA_IN && p->esn && p->replay_window == 0)
        return ERR_RANGE;
    return OK;
}

static enum err build(struct sa *sa, const struct sa_params *p)
{
    bool in = p->dir == SA_IN;
    if (in && !(any_port(&p->local) && any_port(&p->remote)))
        TRY(fragment_table_new(&sa->fragments, FRAGMENT_SETS));
    if (in)
        TRY(replay_init(&sa->replay, p->replay_window));
    else if (p->suite.iv_len > 0 && !p->suite.counter_iv && !(sa->iv_pool = malloc(SA_IV_POOL)))
        return ERR_NOMEM;
    return keyed_new(&sa->keyed, &p->suite, in ? TRANSFORM_OPEN : TRANSFORM_SEAL, p->engine, p->key, p->integ_key);
}

enum err sa_new(struct sa **out, const struct sa_params *p, ns_t now)
{
    TRY(check_params(p));
    struct sa *sa = aligned_alloc(_Alignof(struct sa), sizeof *sa);
    if (!sa)
        return ERR_NOMEM;
    memset(sa, 0, sizeof *sa);
    sa->params = *p;
    sa->params.key = sa->params.integ_key = (struct span){NULL, 0};
    sa->params.engine = NULL;
    sa->created = now;
    sa->flow = p->dir == SA_OUT ? new_flow() : 0;
    sa->address_only = any_proto(&p->local) && any_proto(&p->remote);
    if (pthread_spin_init(&sa->lock, PTHREAD_PROCESS_PRIVATE) != 0) {
        free(sa);
        return ERR_NOMEM;
    }
    set_limits(sa);
    atomic_store(&sa->news_over, UINT32_MAX);
    sa_move(sa, &p->path);
    enum err e = build(sa, p);
    if (e != OK) {
        sa_free(sa);
        return e;
    }
    *out = sa;
    return OK;
}

void sa_free(void *object)
{
    struct sa *sa = object;
    if (!sa)
        return;
    keyed_free(sa->keyed);
    replay_fini(&sa->replay);
    fragment_table_free(sa->fragments);
    if (sa->iv_pool) /* IVs that were drawn but never sent */
        secret_wipe(sa->iv_pool, SA_IV_POOL);
    free(sa->iv_pool);
    (void)pthread_spin_destroy(&sa->lock);
    secret_wipe(sa, sizeof *sa);
    free(sa);
}

enum err sa_resize(struct sa *sa, uint32_t replay_window)
{
    /* Size and ring are replaced here alone, so this thread reads them without the lock. */
    uint32_t size = sa->replay.size;
    struct replay next, old = {.bits = sa->replay.bits};
    if (replay_window == 0 || size == 0)
        return ERR_RANGE;
    if (size == replay_rounded(replay_window))
        return OK;
    TRY(replay_init(&next, replay_window));
    pthread_spin_lock(&sa->lock);
    replay_carry(&next, &sa->replay);
    sa->replay = next;
    pthread_spin_unlock(&sa->lock);
    replay_fini(&old);
    return OK;
}

/*
 * A sequence lock without fences, which ThreadSanitizer can't see: each word is stored with release and loaded with
 * acquire, so whoever saw a new word also sees the odd version that was stored before it.
 */
void sa_move(struct sa *sa, const struct path *path)
{
    uint64_t words[SA_PATH_WORDS] = {0};
    memcpy(words, path, sizeof *path);
    unsigned version = atomic_load_explicit(&sa->path_version, memory_order_relaxed);
    atomic_store_explicit(&sa->path_version, version + 1, memory_order_relaxed);
    for (unsigned i = 0; i < SA_PATH_WORDS; i++)
        atomic_store_explicit(&sa->path_words[i], words[i], memory_order_release);
    atomic_store_explicit(&sa->path_version, version + 2, memory_order_release);
}

struct path sa_path(const struct sa *sa)
{
    uint64_t words[SA_PATH_WORDS];
    unsigned before, after;
    do {
        before = atomic_load_explicit(&sa->path_version, memory_order_acquire);
        for (unsigned i = 0; i < SA_PATH_WORDS; i++)
            words[i] = atomic_load_explicit(&sa->path_words[i], memory_order_acquire);
        after = atomic_load_explicit(&sa->path_version, memory_order_relaxed);
    } while (before != after || (before & 1) != 0);
    struct path path;
    memcpy(&path, words, sizeof path);
    return path;
}

uint32_t esp_sealed_len(const struct suite *s, uint32_t inner_len)
{
    uint32_t align = esp_align(s);
    return esp_headroom(s) + ((inner_len + 2 + align - 1) & ~(align - 1)) + s->icv_len;
}

uint32_t sa_headroom(const struct sa *sa, uint8_t family)
{
    const struct suite *s = &sa->params.suite;
    return sa->params.proto == PROTOCOL_AH ? ah_len(s, family) : esp_headroom(s);
}

uint32_t sa_inner_max(const struct sa *sa, uint8_t family, uint32_t room)
{
    const struct suite *s = &sa->params.suite;
    return sa->params.proto == PROTOCOL_AH ? ah_payload_max(s, family, room) : esp_inner_max(s, room);
}

uint32_t sa_sealed_len(const struct sa *sa, uint8_t family, uint32_t inner_len)
{
    const struct suite *s = &sa->params.suite;
    return sa->params.proto == PROTOCOL_AH ? ah_len(s, family) + inner_len : esp_sealed_len(s, inner_len);
}

uint32_t esp_inner_max(const struct suite *s, uint32_t room)
{
    uint32_t fixed = esp_headroom(s) + s->icv_len;
    if (room < fixed)
        return 0;
    uint32_t text = (room - fixed) & ~(esp_align(s) - 1);
    return text < 2 ? 0 : text - 2;
}
