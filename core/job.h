/*
 * The engine's slow steps (key exchange, signatures), run by a few threads of their own, so that neither packets nor
 * other peers' messages wait for them. The control thread pushes and collects; a descriptor wakes it when there is
 * something to collect. Jobs of SAs that are up go first: strangers can't hold up a rekey.
 */
#ifndef ADIT_JOB_H
#define ADIT_JOB_H

#include <stdbool.h>
#include <stddef.h>

#include "ike/engine.h"

#define JOB_QUEUE (1u << 16) /* jobs under way, for a daemon: waiting, or done and not yet collected */
#define JOB_THREADS 4        /* most */

struct job_pool;

/* As many threads as this machine has processors for, 1..JOB_THREADS. */
unsigned job_threads(void);

/*
 * most: jobs under way, at least 1. wake_fd: an eventfd that gets written to. No threads: nothing is ever run.
 * Errors: NOMEM, SYSTEM.
 */
MUST_USE enum err job_pool_new(struct job_pool **out, unsigned threads, unsigned most, int wake_fd);
/* Waits for the jobs that are being run. The engine has been freed: no other is, and none is completed. NULL is fine. */
void job_pool_free(struct job_pool *p);

/* Errors: FULL (the job stays the caller's). */
MUST_USE enum err job_push(struct job_pool *p, struct ike_job *job);
/* Hands up to `most` finished jobs to the engine, none after `until`; true if there may be more. */
bool job_collect(struct job_pool *p, struct ike_engine *e, unsigned most, ns_t until);

#endif
