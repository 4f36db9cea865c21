#include "policy/spelling.h"

#include <limits.h>
#include <string.h>

#define WORD_MAX 48

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment, with the three rows that a swap of neighbours needs. */
unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[3][WORD_MAX + 1];
    unsigned *before = row[0], *above = row[1], *now = row[2];
    if (a_len > WORD_MAX || b_len > WORD_MAX)
        return UINT_MAX;
    for (unsigned j = 0; j <= b_len; j++)
        above[j] = j;
    for (unsigned i = 1; i <= a_len; i++) {
        now[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            now[j] = least(above[j], now[j - 1]) + 1;
            now[j] = least(now[j], above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        unsigned *free_row = before;
        before = above;
        above = now;
        now = free_row;
    }
    return above[b_len];
}

struct spelling spelling_of(const char *word, size_t len)
{
    return (struct spelling){.word = word, .len = len, .distance = (unsigned)(len < WORD_MAX ? len / 3 + 2 : 0)};
}

void spelling_offer(struct spelling *s, const char *candidate)
{
    unsigned d = edit_distance(s->word, s->len, candidate, strlen(candidate));
    if (d < s->distance) {
        s->distance = d;
        s->nearest = candidate;
    }
}
