/* The keys of a policy about what an observer sees of its traffic, and what we do. */
#include <stdlib.h>
#include <string.h>

#include "policy/config_internal.h"

#define TFC_MIN 64 /* above the headers of any packet, and below any MTU */

void traffic_tfc(struct target *t, const char *value, unsigned line)
{
    struct tfc tfc = {0};
    const char *list = value;
    char item[32];
    if (strcmp(value, "no") == 0)
        return;
    while (next_item(&list, item, sizeof item)) {
        bool full = strcmp(item, "mtu") == 0;
        char *end;
        unsigned long size = full ? TFC_FULL : strtoul(item, &end, 10);
        if (!full && (item[0] < '0' || item[0] > '9' || *end || size < TFC_MIN || size >= TFC_FULL)) {
            complain(t->load, line, "found '%s', expected a size from %d to %d, 'mtu', or 'no'",
                     *item ? item : "nothing", TFC_MIN, TFC_FULL - 1);
            return;
        }
        if (tfc.n == TFC_SIZES || (tfc.n && size <= tfc.size[tfc.n - 1])) {
            complain(t->load, line, "found '%s', expected at most %d sizes, each larger than the one before", value,
                     TFC_SIZES);
            return;
        }
        tfc.size[tfc.n++] = (uint16_t)size;
    }
    t->policy->tfc = tfc;
}

void traffic_dummies(struct target *t, const char *value, unsigned line)
{
    value_number(t->load, line, value, 0, DUMMIES_MAX, &t->policy->dummies);
}

static void yes(struct target *t, const char *value, unsigned line, bool *out)
{
    static const char *const words[] = {"yes", "no", NULL};
    unsigned i;
    if (value_word(t->load, line, value, words, &i))
        *out = i == 0;
}

void traffic_audit(struct target *t, const char *value, unsigned line)
{
    yes(t, value, line, &t->host->audit);
}

void traffic_flow_log(struct target *t, const char *value, unsigned line)
{
    yes(t, value, line, &t->policy->flow_log);
}

void traffic_flow_log_file(struct target *t, const char *value, unsigned line)
{
    value_path(t->load, line, value, t->host->flow_log, sizeof(t->host->flow_log));
}
