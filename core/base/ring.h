/*
 * A bounded ring of variable-length records between exactly one producer thread and one consumer thread, without locks.
 * A full ring refuses (the producer counts the drop); nothing ever blocks.
 */
#ifndef ADIT_RING_H
#define ADIT_RING_H

#include "core/base/cursor.h"
#include "core/base/err.h"

struct ring;

/* cap: bytes, rounded up to a power of two. Errors: NOMEM. */
MUST_USE enum err ring_new(struct ring **out, size_t cap);
void ring_free(struct ring *r);

/*
 * Producer. A record is a type and the concatenation of two spans (b may be empty). It stays in one piece, so one of
 * more than half the ring (less 8 bytes) never fits. Errors: FULL.
 */
MUST_USE enum err ring_push(struct ring *r, uint32_t type, struct span a, struct span b);
/* Producer. Records that may be lost give way then to those that should not. */
bool ring_half_full(struct ring *r);

/* Consumer. The span is contiguous, and valid until ring_pop. False when the ring is empty. */
bool ring_peek(struct ring *r, uint32_t *type, struct span *record);
void ring_pop(struct ring *r);

#endif
