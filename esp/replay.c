#include "esp/replay.h"

#include <stdlib.h>
#include <string.h>

/*
 * The ring holds one word more than the window needs, so that the words the window covers never share a slot: moving
 * ahead clears whole words and shifts nothing (the idea of RFC 6479, here with the window exact to the bit).
 */

enum err replay_init(struct replay *r, uint32_t size)
{
    if (size != 0 && (size < REPLAY_MIN || size > REPLAY_MAX))
        return ERR_RANGE;
    struct replay new = {.size = replay_rounded(size)};
    if (new.size != 0) {
        uint32_t words = 2;
        while (words < new.size / 64 + 1)
            words *= 2;
        new.mask = words - 1;
        new.bits = calloc(words, sizeof *new.bits);
        if (!new.bits)
            return ERR_NOMEM;
    }
    *r = new;
    return OK;
}

void replay_fini(struct replay *r)
{
    free(r->bits);
    *r = (struct replay){0};
}

void replay_carry(struct replay *to, const struct replay *r)
{
    uint64_t top = r->top >> 6;
    to->top = r->top;
    for (uint32_t k = 0; k <= to->mask && k <= top; k++)
        to->bits[(top - k) & to->mask] = k <= r->mask ? r->bits[(top - k) & r->mask] : UINT64_MAX;
}

uint64_t replay_infer(const struct replay *r, uint32_t low, bool esn)
{
    if (!esn)
        return low;
    uint32_t top_low = (uint32_t)r->top;
    uint64_t high = r->top >> 32;
    uint32_t left = top_low - (r->size - 1); /* low half of the window's left edge, modulo 2^32 */
    if (top_low >= r->size - 1)              /* case A: the window lies in one subspace */
        high += low < left;
    else /* case B: it spans two, and numbers from its left edge on are in the lower one */
        high -= low >= left;
    return high > UINT32_MAX ? 0 : high << 32 | low; /* neither before subspace 0 nor after the last */
}

bool replay_check(const struct replay *r, uint64_t seq)
{
    if (r->size == 0)
        return true;
    if (seq == 0)
        return false;
    if (seq > r->top)
        return true;
    if (r->top - seq >= r->size)
        return false;
    return (r->bits[(seq >> 6) & r->mask] >> (seq & 63) & 1) == 0;
}

/* Clears the words that the right edge moves over. */
static void advance(struct replay *r, uint64_t seq)
{
    uint64_t word = r->top >> 6, steps = (seq >> 6) - word;
    if (steps > r->mask)
        memset(r->bits, 0, ((size_t)r->mask + 1) * sizeof *r->bits);
    else
        for (; steps > 0; steps--)
            r->bits[++word & r->mask] = 0;
    r->top = seq;
}

bool replay_commit(struct replay *r, uint64_t seq)
{
    if (!replay_check(r, seq))
        return false;
    if (r->size == 0)
        return true;
    if (seq > r->top)
        advance(r, seq);
    r->bits[(seq >> 6) & r->mask] |= UINT64_C(1) << (seq & 63);
    return true;
}
