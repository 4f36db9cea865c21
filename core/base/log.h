/*
 * Log lines to stderr: text (one line, with level) or JSON (one object a line: time, level, room, text). The level is
 * the project's one mutable global. Never called per packet; what a peer can trigger goes through log_limited.
 * Bytes from the network are escaped, so that nobody writes a line of his own into the log.
 */
#ifndef ADIT_LOG_H
#define ADIT_LOG_H

#include <stdbool.h>

#include "core/base/clock.h"
#include "core/base/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

void log_setup(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
MUST_USE enum err log_level_parse(const char *text, enum log_level *out);

/* room: "ike", "esp", "tun", "core", "policy", "audit". The text is one line without its newline. */
void log_line(enum log_level level, const char *room, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* A bucket of `burst` lines that refills one line every `every`; what was held back is counted in the next line. */
struct log_limit {
    ns_t last;
    unsigned tokens, held;
};
#define LOG_LIMIT_BURST 10
void log_limited(struct log_limit *l, enum log_level level, const char *room, const char *fmt, ...) PRINTF_LIKE(4, 5);

#endif
