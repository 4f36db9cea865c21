/*
 * The security association database as workers see it. Inbound: the SPI that we hand out names its slot, so a lookup is
 * one array load and one compare. Outbound: one pointer for each policy and worker. The control thread is the only
 * writer; workers read with acquire loads between epoch_online and epoch_offline.
 *
 * SPI layout: bits 31..28 the worker (1..15, so never a reserved SPI and never the zero marker), bits 27..20 random,
 * bits 19..0 the slot.
 */
#ifndef ADIT_SAD_H
#define ADIT_SAD_H

#include "core/base/epoch.h"
#include "crypto/random.h"
#include "esp/sa.h"

#define SAD_SLOTS (1u << 20)
#define SAD_WORKERS 15
#define SAD_POLICIES (1u << 17)

struct sad;

/* The tables grow by pages as they are used. Errors: NOMEM. */
MUST_USE enum err sad_new(struct sad **out, struct epoch *epoch, const struct random_source *rnd);
void sad_free(struct sad *s); /* workers have ended; frees the inbound SAs */

/*
 * An unused inbound SPI for that worker (0-based), never the one its slot had last; stays reserved until released or
 * its SA is removed. Errors: FULL, NOMEM, RANGE (worker).
 */
MUST_USE enum err sad_reserve(struct sad *s, unsigned worker, uint32_t *spi);
void sad_release(struct sad *s, uint32_t spi); /* nothing happens once an SA is published there */

/* Publish (release store). The SAD owns the SA from here on. Errors: STATE (direction; SPI not reserved, or in use). */
MUST_USE enum err sad_publish_in(struct sad *s, struct sa *sa);
/* Unlink and retire: wiped and freed after all workers passed a quiescent point. Unknown: nothing happens. */
void sad_remove_in(struct sad *s, uint32_t spi);

/*
 * Outbound SAs stay the caller's: several may live for one policy, and traffic goes from one to another and back, each
 * time going on with that SA's own sequence numbers. Once published, an SA ends by sad_retire_out, not by sa_free (but
 * after the workers have ended).
 *
 * publish: makes sa the outbound SA of its policy for all workers; the one before is only unlinked.
 * Errors: STATE (direction), RANGE (policy), NOMEM.
 */
MUST_USE enum err sad_publish_out(struct sad *s, struct sa *sa);
/* Makes room for that policy: publishing its SAs needs no memory from then on. Errors: RANGE, NOMEM. */
MUST_USE enum err sad_prepare_out(struct sad *s, uint32_t policy_id);
/* Unlinked if it is the current one of its policy; wiped and freed after all workers passed a quiescent point. */
void sad_retire_out(struct sad *s, struct sa *sa);

/* Workers, and the control thread for status. NULL if there is none. */
struct sa *sad_find_in(const struct sad *s, uint32_t spi);
/* Workers: the SPI has been handed to a peer, and the SA that belongs to it is still being negotiated. */
bool sad_expects_in(const struct sad *s, uint32_t spi);
struct sa *sad_find_out(const struct sad *s, uint32_t policy_id, unsigned worker);

#endif
