/*
 * Key export for Wireshark: files `ikev2_decryption_table` and `esp_sa` in the format of its user tables, to be copied
 * into a Wireshark profile. Whoever reads them reads the traffic: mode 0600, written only when `keylog` asks for it.
 */
#ifndef ADIT_KEYLOG_H
#define ADIT_KEYLOG_H

#include "ike/engine.h"

struct keylog {
    int ike_fd, esp_fd; /* -1: closed */
};

/* Makes the folder if need be. Errors: SYSTEM (errno). */
MUST_USE enum err keylog_open(struct keylog *k, const char *folder);
void keylog_close(struct keylog *k);
void keylog_ike(struct keylog *k, const char *line); /* a line of ikev2_decryption_table, as the engine makes it */
void keylog_child(struct keylog *k, const struct ike_child *c); /* both directions */

#endif
