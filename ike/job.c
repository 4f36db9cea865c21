#include "ike/internal.h"
#include "ike/proof.h"

/* Hands a job over; it is freed if it is not taken. */
static enum err submit(struct ike_sa *sa, struct ike_job *job)
{
    job->random = sa->e->env.random;
    job->sa = sa;
    job->next = sa->jobs;
    enum err err = sa->e->env.job(sa->e->env.ctx, job);
    if (err != OK) {
        ike_job_free(job);
        return err;
    }
    sa->jobs = job;
    return OK;
}

enum err job_start(struct ike_sa *sa, enum job_kind kind, uint16_t group, struct kex *kex, struct span peer,
                   void (*done)(struct ike_sa *, struct ike_job *))
{
    struct ike_job *job = peer.len <= KEX_PUBLIC_MAX ? secret_alloc(sizeof *job) : NULL;
    if (!job) {
        kex_free(kex);
        return peer.len <= KEX_PUBLIC_MAX ? ERR_NOMEM : ERR_RANGE;
    }
    job->kind = kind;
    job->group = group;
    job->kex = kex;
    if (peer.len)
        memcpy(job->peer.b, peer.data, peer.len);
    job->peer.len = (uint16_t)peer.len;
    job->done = done;
    return submit(sa, job);
}

enum err job_start_proof(struct ike_sa *sa, enum job_kind kind, struct proof *proof,
                         void (*done)(struct ike_sa *, struct ike_job *))
{
    struct ike_job *job = secret_alloc(sizeof *job);
    if (!job) {
        proof_free(proof);
        return ERR_NOMEM;
    }
    job->kind = kind;
    job->proof = proof;
    job->done = done;
    return submit(sa, job);
}

void jobs_detach(struct ike_sa *sa)
{
    for (struct ike_job *j = sa->jobs; j; j = j->next) {
        j->sa = NULL;
        atomic_store_explicit(&j->cancelled, true, memory_order_relaxed);
    }
    sa->jobs = NULL;
}

bool ike_job_urgent(const struct ike_job *job)
{
    return job->sa->established != 0;
}

void ike_job_run(struct ike_job *job)
{
    struct span peer = span_of(job->peer.b, job->peer.len);
    if (atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
        job->result = ERR_STATE; /* nobody reads it */
        return;
    }
    switch (job->kind) {
    case JOB_OFFER:
        job->result = kex_offer(job->group, &job->random, &job->kex, &job->pub);
        break;
    case JOB_RESPOND:
        job->result = kex_respond(job->group, &job->random, peer, &job->pub, &job->secret);
        break;
    case JOB_FINISH:
        job->result = kex_finish(job->kex, peer, &job->secret);
        break;
    case JOB_SIGN:
        job->result = proof_sign(job->proof, &job->random);
        break;
    case JOB_VERIFY:
        job->result = proof_verify(job->proof);
        break;
    }
}

void ike_complete(struct ike_engine *e, struct ike_job *job, ns_t now)
{
    struct ike_sa *sa = job->sa;
    e->now = now;
    if (sa) {
        for (struct ike_job **p = &sa->jobs; *p; p = &(*p)->next)
            if (*p == job) {
                *p = job->next;
                break;
            }
        job->done(sa, job);
    }
    ike_job_free(job);
    engine_leave(e);
}

bool job_blames_peer(const struct ike_job *job)
{
    return job->result == ERR_AUTH || job->result == ERR_RANGE;
}

void ike_job_free(struct ike_job *job)
{
    kex_free(job->kex); /* unless its SA took it */
    proof_free(job->proof);
    secret_free(job);
}
