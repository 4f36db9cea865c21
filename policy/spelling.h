/* Hints for misspelt words. */
#ifndef ADIT_SPELLING_H
#define ADIT_SPELLING_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The best candidate so far for a word: offered one by one, kept if nearer than those before. A candidate that is
 * further away than about a third of the word is no help to anybody and is not taken.
 */
struct spelling {
    const char *word;
    size_t len;
    const char *nearest; /* NULL: none is near */
    unsigned distance;
};

struct spelling spelling_of(const char *word, size_t len);
void spelling_offer(struct spelling *s, const char *candidate);

/* The fewest insertions, deletions, replacements and swaps of neighbours between two words; long words count as far. */
unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len);

#endif
