/* The key of a policy about what an observer sees of the sizes of its packets. */
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

void traffic_show_tfc(const struct shown *of, char *text, size_t size)
{
    const struct tfc *t = &of->policy->tfc;
    size_t used = (size_t)snprintf(text, size, "%s", t->n ? "" : "no");
    for (unsigned i = 0; i < t->n && used < size; i++) {
        const char *comma = i ? ", " : "";
        used += (size_t)(t->size[i] == TFC_FULL ? snprintf(text + used, size - used, "%smtu", comma)
                                                : snprintf(text + used, size - used, "%s%u", comma, t->size[i]));
    }
}
