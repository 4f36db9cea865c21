/* What workers report for people to read: audit events and flows. Control thread. */
#ifndef ADIT_REPORT_H
#define ADIT_REPORT_H

#include "core/worker.h"

struct daemon;

/* False: the record is none of these. */
bool report_record(struct daemon *d, uint32_t type, struct span record);
/* The workers have stopped, and are still there: what they have left to tell. */
void report_last(struct daemon *d);

/*
 * The file for flows, as the configuration names it; opened anew, so that a file that was moved away is let go. None:
 * flows go to the log. Errors: SYSTEM; then it is as before.
 */
MUST_USE enum err report_open(struct daemon *d);
void report_close(struct daemon *d);

#endif
