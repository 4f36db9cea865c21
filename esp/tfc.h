/* Traffic flow confidentiality: how long an inner packet shall look (RFC 4303 section 2.7). */
#ifndef ADIT_TFC_H
#define ADIT_TFC_H

#include "policy/pad.h"

/*
 * The length that an inner packet of len bytes is padded to: the first size that it fits, but no more than mtu. Never
 * less than len; a packet longer than all sizes stays as it is.
 */
uint32_t tfc_padded(const struct tfc *t, uint32_t len, uint32_t mtu);

/* The length of a dummy: one of those that padded packets have, or without padding any from TFC_DUMMY_MIN on. */
#define TFC_DUMMY_MIN 40
uint32_t tfc_dummy(const struct tfc *t, uint64_t random, uint32_t mtu);

#endif
