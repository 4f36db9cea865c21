/* A keyed hash for tables whose keys strangers choose: without the key nobody can make them collide (SipHash-2-4). */
#ifndef ADIT_SIPHASH_H
#define ADIT_SIPHASH_H

#include "core/base/cursor.h"

#define SIPHASH_KEY 16 /* bytes, random */

uint64_t siphash(const uint8_t key[SIPHASH_KEY], struct span bytes);

#endif
