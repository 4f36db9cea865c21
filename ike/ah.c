/*
 * What is different about Child SAs of AH: it covers the outer addresses, so NATs must not be there (RFC 4302 section
 * 3.3.3.1.1.1, RFC 7296 section 2.23), and the peer must be told the truth about them.
 */
#include <stdio.h>

#include "ike/internal.h"

bool ah_barred(const struct ike_sa *sa, const struct policy *policy, char *why, size_t size)
{
    if (policy_protocol(policy) != PROTOCOL_AH)
        return false;
    if (!encap_possible(sa->e)) {
        snprintf(why, size, "policy \"%s\" is for AH (protocol 51), which needs CAP_NET_RAW here", policy->name);
        return true;
    }
    if (!sa->nat_local && !sa->nat_remote)
        return false;
    snprintf(why, size, "policy \"%s\" is for AH, which can't pass a NAT, and there is one before %s%s", policy->name,
             sa->nat_local ? "us" : sa_peer_name(sa),
             sa->nat_local ? "" : ", or it says so to have ESP encapsulated in UDP");
    return true;
}

const struct policy *ah_first_policy(const struct ike_sa *sa)
{
    char why[TEXT_MAX];
    for (unsigned i = 0; i < sa->run->policy_count; i++) {
        const struct policy_run *p = &sa->run->policies[i];
        if (run_needs(sa->run, p) && !ah_barred(sa, p->policy, why, sizeof why))
            return p->policy;
    }
    return NULL;
}

void ah_check_nat(struct ike_sa *sa)
{
    char why[TEXT_MAX];
    for (struct child *c = sa->children; c && sa->state == SA_UP; c = c->next) {
        if (c->state != CHILD_LIVE || !child_policy(c) || c->protocol != PROTOCOL_AH ||
            !ah_barred(sa, child_policy(c), why, sizeof why))
            continue;
        child_report(c, IKE_EVENT_CHILD_DOWN, "down: %s", why);
        child_delete(c, true);
        run_later(sa->run, 0);
    }
}
