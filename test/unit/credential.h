/* What configured peers of a test prove themselves by: keys and certificates from their text. */
#ifndef ADIT_TEST_CREDENTIAL_H
#define ADIT_TEST_CREDENTIAL_H

#include "policy/pad.h"

struct span text_span(const char *text);
/* What we prove ourselves to that peer by; chain: ended by NULL. */
void own_key(struct peer *p, const char *key);
void own_certs(struct peer *p, const char *key, const char *const *certs);
void own_cert(struct peer *p, const char *key, const char *cert);
/* What that peer proves itself by: only the public half of key crosses. */
void wants_key(struct peer *p, const char *key);
void wants_ca(struct peer *p, const char *ca);
/* Frees all of that; a pre-shared key is left. */
void forget(struct peer *p);

#endif
