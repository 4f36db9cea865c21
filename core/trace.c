#include "core/trace.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/base/log.h"
#include "ike/payload.h"

const char *trace_format(const struct path *path, struct span message, char *text)
{
    static const char *const names[] = {"IKE_SA_INIT", "IKE_AUTH", "CREATE_CHILD_SA", "INFORMATIONAL"};
    char remote[ENDPOINT_TEXT], number[16];
    struct ike_header h;
    endpoint_format(&path->remote, remote);
    if (ike_header_parse(message, &h) != OK) {
        snprintf(text, TRACE_TEXT, "%s: %zu bytes that are no IKE message", remote, message.len);
        return text;
    }
    unsigned which = h.exchange - (unsigned)EXCHANGE_SA_INIT;
    snprintf(number, sizeof number, "exchange %u", h.exchange);
    snprintf(text, TRACE_TEXT, "%s: %s %s %" PRIu32 ", %zu bytes, %016" PRIx64 "_i %016" PRIx64 "_r", remote,
             which < sizeof names / sizeof names[0] ? names[which] : number,
             h.flags & IKE_FLAG_RESPONSE ? "response" : "request", h.message_id, message.len, h.spi_i, h.spi_r);
    return text;
}

void trace_ike(const char *way, const struct path *path, struct span message)
{
    char text[TRACE_TEXT];
    if (log_enabled(LOG_DEBUG))
        log_line(LOG_DEBUG, "ike", "%s %s", way, trace_format(path, message, text));
}
