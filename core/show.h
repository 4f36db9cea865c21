/* The daemon's status as text for a person. */
#ifndef ADIT_SHOW_H
#define ADIT_SHOW_H

#include <jansson.h>
#include <stdio.h>

/* before: the status of `seconds` ago, for rates; NULL: none are shown. */
void show_status(FILE *out, const json_t *status, const json_t *before, double seconds);

#endif
