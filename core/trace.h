/* IKE messages in the log, for `log = debug`: what the header says, which is never secret. */
#ifndef ADIT_TRACE_H
#define ADIT_TRACE_H

#include "core/base/cursor.h"
#include "core/base/ip.h"

#define TRACE_TEXT 160

/* A message as one line, without its direction; text: TRACE_TEXT bytes; returns it. */
const char *trace_format(const struct path *path, struct span message, char *text);
/* Logs it, if the level asks for it. way: "sent to" or "received from". */
void trace_ike(const char *way, const struct path *path, struct span message);

#endif
