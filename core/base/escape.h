/* Text made of foreign bytes, bounded and safe for logs and terminals. */
#ifndef ADIT_ESCAPE_H
#define ADIT_ESCAPE_H

#include "core/base/cursor.h"
#include "core/base/err.h"

/* Appends to a buffer of the caller's, always terminated; what does not fit is cut off. */
struct text {
    char *at;
    size_t left; /* with the NUL */
};

struct text text_of(char *buffer, size_t size);
void text_add(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Printable ASCII as it is, with a backslash before each character of `special`; all else as \xNN. */
void text_escape(struct text *t, struct span bytes, const char *special);
void text_hex(struct text *t, struct span bytes); /* 0x… */

bool is_printable(struct span bytes);                   /* ASCII 0x20..0x7e throughout */
bool equal_ignoring_case(struct span a, struct span b); /* ASCII letters; no locale */

#endif
