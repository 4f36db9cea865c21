/*
 * The engine's slow steps (key exchange; later signatures and names), queued while an engine call is running and run
 * between turns of the control thread, one at a time, so that a burst of handshakes never holds up what else waits there.
 */
#ifndef ADIT_JOB_H
#define ADIT_JOB_H

#include <stdbool.h>

#include "ike/engine.h"

#define JOB_QUEUE (1u << 16) /* most jobs that wait */

struct job_queue {
    struct ike_job **ring;
    size_t cap, head, len;
};

/* Errors: NOMEM, FULL (the job stays the caller's). A zeroed queue is an empty one. */
MUST_USE enum err job_push(struct job_queue *q, struct ike_job *job);
/* Runs the oldest job and hands it to the engine; false if there was none. */
bool job_run(struct job_queue *q, struct ike_engine *e);
void job_queue_free(struct job_queue *q); /* the engine has been freed: what is left is not run any more */

#endif
