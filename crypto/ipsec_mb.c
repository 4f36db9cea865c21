/* The fast backend, intel-ipsec-mb: its start, its managers, and which family of suites goes where. */
#include "crypto/ipsec_mb.h"

#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <sys/mman.h>

#include "crypto/secret.h"

#define WIDE (IMB_FEATURE_AVX512_SKX | IMB_FEATURE_SHANI)
#define NEEDED (IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ) /* without them the library emulates, slowly */

/* Set by mb_start before any thread, only read afterwards. */
static const IMB_MGR *functions; /* those that fit this CPU; NULL: unusable here */
static bool few_differs;         /* there are lanes of AVX-512, and the CPU's own instructions for hashes */

/* The thread's own managers, wiped and freed at its end. */
static pthread_key_t many_key, few_key;

/* -- managers -- */

const struct IMB_MGR *mb_functions(void)
{
    return functions;
}

bool mb_few_differs(void)
{
    return few_differs;
}

static void manager_free(void *m)
{
    const size_t size = imb_get_mb_mgr_size();
    secret_wipe(m, size);
    munmap(m, size);
}

/*
 * Its lanes hold states of hashes that began with a key, so it isn't dumped; unlike keys (crypto/secret.h) it outlives
 * a fork, for a child that makes keys of its own.
 */
static IMB_MGR *manager_new(bool few)
{
    const size_t size = imb_get_mb_mgr_size();
    void *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    (void)madvise(room, size, MADV_DONTDUMP);
    IMB_MGR *m = imb_set_pointers_mb_mgr(room, 0, 1);
    if (m && few)
        init_mb_mgr_avx(m);
    else if (m)
        init_mb_mgr_auto(m, NULL);
    if (!m || imb_get_errno(m) != 0) {
        manager_free(room);
        return NULL;
    }
    return m;
}

struct IMB_MGR *mb_manager(bool few)
{
    const pthread_key_t key = few ? few_key : many_key;
    IMB_MGR *m = pthread_getspecific(key);
    if (!m) {
        m = manager_new(few);
        if (m && pthread_setspecific(key, m) != 0) {
            manager_free(m);
            m = NULL;
        }
    }
    return m;
}

static enum err mb_start(void)
{
    if (functions)
        return OK;
    IMB_MGR *m = manager_new(false);
    if (!m)
        return OK; /* the other backends do without */
    if ((m->features & NEEDED) != NEEDED) {
        manager_free(m);
        return OK;
    }
    if (pthread_key_create(&many_key, manager_free) != 0 || pthread_key_create(&few_key, manager_free) != 0) {
        manager_free(m);
        return ERR_CRYPTO;
    }
    few_differs = (m->features & WIDE) == WIDE;
    functions = m;
    return OK;
}

bool mb_run(struct IMB_MGR *m, const struct IMB_JOB *jobs, unsigned n)
{
    unsigned done = 0;
    IMB_JOB *job;
    for (unsigned i = 0; i < n; i++) {
        *IMB_GET_NEXT_JOB(m) = jobs[i];
        if ((job = IMB_SUBMIT_JOB(m)) != NULL) /* this one, or one before it */
            done += job->status == IMB_STATUS_COMPLETED;
    }
    while ((job = IMB_FLUSH_JOB(m)) != NULL)
        done += job->status == IMB_STATUS_COMPLETED;
    return done == n;
}

void mb_aes_key(uint16_t key_bits, const uint8_t *key, uint8_t *enc, uint8_t *dec)
{
    switch (key_bits) {
    case 128:
        IMB_AES_KEYEXP_128(functions, key, enc, dec);
        break;
    case 192:
        IMB_AES_KEYEXP_192(functions, key, enc, dec);
        break;
    default:
        IMB_AES_KEYEXP_256(functions, key, enc, dec);
        break;
    }
}

/* -- the backend -- */

static bool mb_has(const struct suite *s)
{
    return functions && (s->aead ? mb_aead_has(s) : mb_mac_has(s));
}

static enum err mb_key(void **state, const struct suite *s, enum transform_dir dir, struct span key,
                       struct span integ_key)
{
    return s->aead ? mb_aead_key(state, s, dir, key) : mb_mac_key(state, s, key, integ_key);
}

static void mb_unkey(void *state, const struct suite *s)
{
    (void)s;
    secret_free(state);
}

static enum err mb_seal(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    return (s->aead ? mb_aead_seal : mb_mac_seal)(state, s, ops, n);
}

static void mb_open(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    (s->aead ? mb_aead_open : mb_mac_open)(state, s, ops, n);
}

static const struct backend ipsec_mb = {
    .name = "ipsec-mb",
    .start = mb_start,
    .has = mb_has,
    .key = mb_key,
    .unkey = mb_unkey,
    .seal = mb_seal,
    .open = mb_open,
};
const struct backend *const backend_ipsec_mb = &ipsec_mb;
