/*
 * What the files of the ipsec-mb backend share. The library's managers that run many packets at once are big, 200 kB, and
 * busy while they run: a thread that uses such a suite has its own, not each SA.
 */
#ifndef ADIT_IPSEC_MB_H
#define ADIT_IPSEC_MB_H

#include "crypto/transform.h"

struct IMB_MGR;
struct IMB_JOB;

/* For looking up functions that fit this CPU and need no manager of their own; NULL: the library is of no use here. */
const struct IMB_MGR *mb_functions(void);

/* The thread's own; few: the one that is faster for a few packets, where they differ. NULL: no memory. */
struct IMB_MGR *mb_manager(bool few);
bool mb_few_differs(void);

/* Runs n jobs (1..TRANSFORM_BATCH) to their end. False if any of them failed. */
bool mb_run(struct IMB_MGR *m, const struct IMB_JOB *jobs, unsigned n);

#define MB_AES_KEY (15 * 16) /* bytes of an expanded key at its longest */

/* The round keys of both directions, each MB_AES_KEY bytes, aligned to 16. */
void mb_aes_key(uint16_t key_bits, const uint8_t *key, uint8_t *enc, uint8_t *dec);

/* The two families of suites, each as in struct backend; both have their keys in secret memory. */
bool mb_aead_has(const struct suite *s);
enum err mb_aead_key(void **state, const struct suite *s, enum transform_dir dir, struct span key);
enum err mb_aead_seal(const void *state, const struct suite *s, struct transform_op *ops, unsigned n);
void mb_aead_open(const void *state, const struct suite *s, struct transform_op *ops, unsigned n);
bool mb_mac_has(const struct suite *s);
enum err mb_mac_key(void **state, const struct suite *s, struct span key, struct span integ_key);
enum err mb_mac_seal(const void *state, const struct suite *s, struct transform_op *ops, unsigned n);
void mb_mac_open(const void *state, const struct suite *s, struct transform_op *ops, unsigned n);

#endif
