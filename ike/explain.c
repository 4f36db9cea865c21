/* Why none of the configured peers fits who wants to connect: for our log only, the stranger is told nothing of it. */
#include <stdio.h>

#include "ike/internal.h"

#define EXPLAINED 8 /* peers; a configuration may have thousands */

static size_t put(char *text, size_t size, size_t at, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* Appends; returns where the text ends now, at most size - 1. */
static size_t put(char *text, size_t size, size_t at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text + at, size - at, fmt, args);
    va_end(args);
    at += n > 0 ? (size_t)n : 0;
    return at < size ? at : size - 1;
}

static size_t put_addresses(const struct run *r, char *text, size_t size, size_t at)
{
    char one[IP_TEXT];
    if (!r->candidate_count)
        return put(text, size, at, "has no address known yet");
    at = put(text, size, at, "is at %s", ip_format(&r->candidates[0].ip, one));
    for (unsigned i = 1; i < r->candidate_count; i++)
        at = put(text, size, at, " or %s", ip_format(&r->candidates[i].ip, one));
    return at;
}

/* One peer: what would have to be otherwise. idi NULL: only the address counts yet. */
static size_t put_peer(const struct run *r, const struct path *path, const struct identity *idi,
                       const struct identity *idr, char *text, size_t size, size_t at)
{
    char id[IDENTITY_TEXT];
    const struct peer *p = r->peer;
    const char *and = "";
    at = put(text, size, at, "%s ", p->name);
    if (!p->endpoint_any && !candidates_have(r, &path->remote.ip)) {
        at = put_addresses(r, text, size, at);
        and = " and ";
    }
    if (idi && !p->remote_id_any && !identity_equal(&p->remote_id, idi)) {
        at = put(text, size, at, "%shas the id %s", and, identity_format(&p->remote_id, id, sizeof id));
        and = " and ";
    }
    struct identity own = local_identity(r->e, p, path);
    if (idr && idr->type != ID_NONE && !identity_equal(&own, idr))
        at = put(text, size, at, "%sknows us as %s", and, identity_format(&own, id, sizeof id));
    return at;
}

void explain_strangers(const struct ike_engine *e, const struct path *path, const struct identity *idi,
                       const struct identity *idr, char *text, size_t size)
{
    size_t at = 0;
    char id[IDENTITY_TEXT];
    text[0] = 0;
    for (unsigned i = 0; i < e->run_count && i < EXPLAINED; i++) {
        at = put(text, size, at, "%s", i ? "; " : "");
        at = put_peer(e->runs[i], path, idi, idr, text, size, at);
    }
    if (e->run_count == 0)
        at = put(text, size, at, "there is none");
    if (e->run_count > EXPLAINED)
        at = put(text, size, at, "; and %u more", e->run_count - EXPLAINED);
    if (idr && idr->type != ID_NONE)
        put(text, size, at, "; it asks for us as %s", identity_format(idr, id, sizeof id));
}
