#include "test/unit/fault.h"

#include <stdlib.h>

#include "core/dataplane.h"
#include "crypto/prf.h"
#include "esp/sad.h"
#include "ike/internal.h"

#define WORLDS 4 /* engines at a time */

const char *const fault_name[] = {
    "allocation", "job taken", "job result", "SPI",        "installation",
    "message",    "keys",      "PRF",        "inbound SA", "outbound SA",
};

struct fault fault;

void fault_arm(enum fault_kind kind, unsigned first, bool lasting)
{
    fault.kind = kind;
    fault.first = first;
    fault.calls = 0;
    fault.every = 0;
    fault.lasting = lasting;
    fault.armed = true;
}

void fault_arm_every(enum fault_kind kind, unsigned every)
{
    fault_arm(kind, 0, false);
    fault.every = every;
}

static bool fails(enum fault_kind kind)
{
    if (!fault.armed || fault.outside || kind != fault.kind || (fault.scoped && !fault.inside))
        return false;
    unsigned call = fault.calls++;
    if (fault.every)
        return call % fault.every == fault.every - 1;
    return fault.lasting ? call >= fault.first : call == fault.first;
}

/* -- wrapped by the linker -- */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return fails(FAULT_ALLOCATION) ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return fails(FAULT_ALLOCATION) ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size)
{
    return fails(FAULT_ALLOCATION) ? NULL : __real_realloc(p, size);
}

void *__real_secret_alloc(size_t size);
void *__wrap_secret_alloc(size_t size);
void *__wrap_secret_alloc(size_t size)
{
    return fails(FAULT_ALLOCATION) ? NULL : __real_secret_alloc(size);
}

enum err __real_ike_finish(struct ike_builder *b, size_t *len);
enum err __wrap_ike_finish(struct ike_builder *b, size_t *len);
enum err __wrap_ike_finish(struct ike_builder *b, size_t *len)
{
    return fails(FAULT_MESSAGE) ? ERR_FULL : __real_ike_finish(b, len);
}

enum err __real_ike_finish_sk(struct ike_builder *b, const struct suite *suite, struct keyed *keyed, size_t *len);
enum err __wrap_ike_finish_sk(struct ike_builder *b, const struct suite *suite, struct keyed *keyed, size_t *len);
enum err __wrap_ike_finish_sk(struct ike_builder *b, const struct suite *suite, struct keyed *keyed, size_t *len)
{
    return fails(FAULT_MESSAGE) ? ERR_CRYPTO : __real_ike_finish_sk(b, suite, keyed, len);
}

enum err __real_keyed_new(struct keyed **out, const struct suite *suite, enum transform_dir dir, const char *engine,
                          struct span key, struct span integ_key);
enum err __wrap_keyed_new(struct keyed **out, const struct suite *suite, enum transform_dir dir, const char *engine,
                          struct span key, struct span integ_key);
enum err __wrap_keyed_new(struct keyed **out, const struct suite *suite, enum transform_dir dir, const char *engine,
                          struct span key, struct span integ_key)
{
    return fails(FAULT_KEYS) ? ERR_CRYPTO : __real_keyed_new(out, suite, dir, engine, key, integ_key);
}

enum err __real_prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out);
enum err __wrap_prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out);
enum err __wrap_prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out)
{
    return fails(FAULT_PRF) ? ERR_CRYPTO : __real_prf(id, key, parts, n, out);
}

void __real_ike_job_run(struct ike_job *job);
void __wrap_ike_job_run(struct ike_job *job);
void __wrap_ike_job_run(struct ike_job *job)
{
    if (fails(FAULT_JOB_FAILED))
        job->result = ERR_NOMEM;
    else
        __real_ike_job_run(job);
}

enum err __real_sad_publish_in(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_in(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_in(struct sad *s, struct sa *sa)
{
    return fails(FAULT_PUBLISH_IN) ? ERR_FULL : __real_sad_publish_in(s, sa);
}

enum err __real_sad_publish_out(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_out(struct sad *s, struct sa *sa);
enum err __wrap_sad_publish_out(struct sad *s, struct sa *sa)
{
    return fails(FAULT_PUBLISH_OUT) ? ERR_NOMEM : __real_sad_publish_out(s, sa);
}

enum err __real_dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                  ns_t now);
enum err __wrap_dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                  ns_t now);
enum err __wrap_dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                  ns_t now)
{
    fault.inside++;
    enum err err = __real_dataplane_install(d, c, engine, sending, now);
    fault.inside--;
    return err;
}

enum err __real_dataplane_reserve(struct dataplane *d, uint32_t *spi);
enum err __wrap_dataplane_reserve(struct dataplane *d, uint32_t *spi);
enum err __wrap_dataplane_reserve(struct dataplane *d, uint32_t *spi)
{
    fault.inside++;
    enum err err = fails(FAULT_RESERVE) ? ERR_FULL : __real_dataplane_reserve(d, spi);
    fault.inside--;
    if (err == OK && fault.spis < sizeof fault.spi / sizeof *fault.spi)
        fault.spi[fault.spis++] = *spi;
    return err;
}

/* -- an engine's world -- */

static struct ike_env worlds[WORLDS];

static struct ike_env *world_of(void *ctx)
{
    for (unsigned i = 0; i < WORLDS; i++)
        if (worlds[i].ctx == ctx)
            return &worlds[i];
    abort();
}

static void env_send(void *ctx, const struct path *path, struct span message)
{
    fault.outside++;
    world_of(ctx)->send(ctx, path, message);
    fault.outside--;
}

static void env_keepalive(void *ctx, const struct path *path)
{
    fault.outside++;
    world_of(ctx)->keepalive(ctx, path);
    fault.outside--;
}

static enum err env_reserve(void *ctx, uint32_t *spi)
{
    return fails(FAULT_RESERVE) ? ERR_FULL : world_of(ctx)->spi_reserve(ctx, spi);
}

static enum err env_install(void *ctx, const struct ike_child *c, bool sending)
{
    return fails(FAULT_INSTALL) ? ERR_NOMEM : world_of(ctx)->child_install(ctx, c, sending);
}

static enum err env_job(void *ctx, struct ike_job *job)
{
    if (fails(FAULT_JOB_REFUSED))
        return ERR_FULL;
    fault.outside++;
    enum err err = world_of(ctx)->job(ctx, job);
    fault.outside--;
    return err;
}

void fault_worlds(struct ike_engine *const *engines, unsigned n)
{
    for (unsigned i = 0; i < WORLDS; i++)
        worlds[i] = i < n ? engines[i]->env : (struct ike_env){.ctx = NULL};
    for (unsigned i = 0; i < n; i++) {
        struct ike_env *env = &engines[i]->env;
        env->send = env_send;
        env->keepalive = env_keepalive;
        env->spi_reserve = env_reserve;
        env->child_install = env_install;
        env->job = env_job;
    }
}
