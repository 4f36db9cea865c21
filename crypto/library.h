/* The crypto libraries that run here, by name and version, for `adit version`. */
#ifndef ADIT_LIBRARY_H
#define ADIT_LIBRARY_H

#include <stddef.h>

/* "libsodium 1.0.18" into text; returns it, or NULL past the end of the list. */
const char *library_text(unsigned i, char *text, size_t size);

#endif
