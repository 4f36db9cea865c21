/*
 * Name constraints (RFC 5280 section 4.2.1.10), for mail addresses, DNS names, IP addresses and directory names.
 */
#ifndef ADIT_CONSTRAINTS_H
#define ADIT_CONSTRAINTS_H

#include "crypto/x509.h"

#define CONSTRAINTS_BUDGET 200000 /* comparisons of a name with a subtree within one verification */

/*
 * Whether all names of c lie within what ca permits and outside what it excludes. *budget is what may still be compared.
 * Errors: AUTH; UNSUPPORTED (a constraint or a name that can't be judged); SYNTAX.
 */
MUST_USE enum err constraints_check(const struct x509 *ca, const struct x509 *c, unsigned *budget, struct text *why);

#endif
