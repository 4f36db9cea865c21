/* The outer IP header as a policy wants it, and its key dscp (RFC 4301 section 5.1.2). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/config_internal.h"

#define DSCP_MAX 63

struct outer_rule outer_default(void)
{
    struct outer_rule r = {.ecn = true, .df = DF_CLEAR};
    for (unsigned i = 0; i <= DSCP_MAX; i++)
        r.dscp[i] = (uint8_t)i;
    return r;
}

bool outer_equal(const struct outer_rule *a, const struct outer_rule *b)
{
    return memcmp(a->dscp, b->dscp, sizeof a->dscp) == 0 && a->ecn == b->ecn && a->df == b->df;
}

/* A number up to DSCP_MAX at *at, which is moved behind it. */
static bool take_dscp(const char **at, unsigned *out)
{
    size_t digits = strspn(*at, "0123456789");
    if (digits == 0 || digits > 2)
        return false;
    *out = (unsigned)strtoul(*at, NULL, 10);
    *at += digits;
    return *out <= DSCP_MAX;
}

/* FROM:TO */
static bool take_pair(const char *item, unsigned *from, unsigned *to)
{
    return take_dscp(&item, from) && *item++ == ':' && take_dscp(&item, to) && *item == '\0';
}

/* copy, a number for all, or a list of pairs beside which all others are copied. */
void outer_dscp(struct target *t, const char *value, unsigned line)
{
    struct outer_rule *r = &t->policy->outer;
    const char *number = value;
    unsigned from, to;
    char item[16];
    uint64_t seen = 0;
    if (strcmp(value, "copy") == 0)
        return;
    if (take_dscp(&number, &to) && *number == '\0') {
        memset(r->dscp, (int)to, sizeof r->dscp);
        return;
    }
    while (next_item(&value, item, sizeof item)) {
        if (!take_pair(item, &from, &to)) {
            complain(t->load, line,
                     "found '%s', expected copy, a DSCP from 0 to %u, or a list of FROM:TO such as 46:0, 10:8",
                     *item ? item : "nothing", DSCP_MAX);
            return;
        }
        if (seen >> from & 1) {
            complain(t->load, line, "found DSCP %u twice, expected one mapping of it", from);
            return;
        }
        seen |= UINT64_C(1) << from;
        r->dscp[from] = (uint8_t)to;
    }
}

void outer_show_dscp(const struct shown *of, char *text, size_t size)
{
    const uint8_t *dscp = of->policy->outer.dscp;
    size_t used = 0;
    bool one = true;
    for (unsigned i = 1; i <= DSCP_MAX; i++)
        one = one && dscp[i] == dscp[0];
    if (one) {
        snprintf(text, size, "%u", dscp[0]);
        return;
    }
    snprintf(text, size, "copy");
    for (unsigned i = 0; i <= DSCP_MAX && used < size; i++)
        if (dscp[i] != i)
            used += (size_t)snprintf(text + used, size - used, "%s%u:%u", used ? ", " : "", i, dscp[i]);
}
