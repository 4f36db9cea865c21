/*
 * The ini file (DESIGN: The ini file), read with inih through a reader of our own that counts lines and sees what inih
 * would hide. A configuration is loaded whole or not at all; all errors of a file are reported in one go.
 */
#ifndef ADIT_CONFIG_H
#define ADIT_CONFIG_H

#include <stdio.h>

#include "core/base/log.h"
#include "core/base/loop.h"
#include "policy/pad.h"

#define CONFIG_ADDRESSES 16

struct host {
    struct identity id;
    struct authentication auth;              /* key, chain and trust: what peers without their own have */
    char tun[16];                            /* default "adit0" */
    struct prefix address[CONFIG_ADDRESSES]; /* of the TUN device */
    unsigned addresses;
    unsigned address_line;
    unsigned mtu;        /* 0: auto */
    struct ip listen[8]; /* none: all */
    unsigned listens;
    uint16_t port, nat_port; /* defaults 500, 4500; port 0: only nat_port */
    unsigned workers;        /* 0: auto */
    unsigned half_open;      /* most responder's IKE SAs before IKE_AUTH; 0: the engine's default */
    bool cookies;            /* from every stranger, not only from a tenth of half_open on (RFC 7296 section 2.6) */
    enum loop_kind io;
    char crypto[16]; /* "auto" or an engine */
    bool routes;     /* auto: true; no: false */
    bool firewall;   /* likewise */
    bool audit;      /* lines about discarded packets; default true */
    enum log_level log;
    enum log_format log_format;
    char keylog[256];   /* folder; empty: off */
    char flow_log[256]; /* file; empty: the log */
    char control[108];  /* socket path; default /run/adit/TUN.sock */
};

struct config {
    char file[256];
    struct host host;
    struct peer **peers; /* in file order */
    unsigned peer_count;
    struct policy **policies; /* SPD order: a peer's own policy stands where the peer's section stands */
    unsigned policy_count;
    struct hash peer_names, policy_names; /* of one that was loaded; one made by hand does without */
    uint32_t generation;                  /* reloads that have led to it */
};

/* Where complaints go: one call each, "FILE:LINE: what is wrong, what was expected". line 0: the file as a whole. */
struct config_report {
    void *ctx;
    void (*error)(void *ctx, const char *file, unsigned line, const char *text);
    void (*warning)(void *ctx, const char *file, unsigned line, const char *text);
};

/*
 * Reads a file; names are looked up by who uses them. file: secrets are relative to its folder.
 * Errors: SYNTAX (all of it reported), NOTFOUND (the file can't be read; reported), NOMEM.
 */
MUST_USE enum err config_load(const char *file, const struct config_report *report, struct config **out);
void config_free(struct config *c); /* wipes secrets; NULL is fine */

const struct peer *config_peer(const struct config *c, const char *name);     /* NULL if none */
const struct policy *config_policy(const struct config *c, const char *name); /* NULL if none */
/* All that would matter to a running SA; `unique` and `hold` matter to the next one only, `dummies` follows at once, and
 * replay windows are resized in place. */
bool peer_equal(const struct peer *a, const struct peer *b);
bool policy_equal(const struct policy *a, const struct policy *b); /* likewise; peers compared by name */

/* The policy table that would be loaded, as `adit check` prints it. */
void config_print(const struct config *c, FILE *out);

#endif
