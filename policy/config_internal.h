/* Between the files that read a configuration; nobody else includes this. */
#ifndef ADIT_CONFIG_INTERNAL_H
#define ADIT_CONFIG_INTERNAL_H

#include "core/base/cursor.h"
#include "policy/config.h"

/* -- keys -- */

enum section_kind { SECTION_HOST = 1, SECTION_PEER = 2, SECTION_POLICY = 4 };

/* Bounds of one file: above any use (a hub with a hundred thousand peers and policies), low enough to be a bound. */
#define CONFIG_SECTIONS (1 << 18)
#define CONFIG_KEYS 80
#define CONFIG_FILE_MAX (32 * 1024 * 1024)

struct section;
struct loading;

/* What a key's value is applied to. */
struct target {
    struct loading *load;
    const struct section *section;
    struct host *host;
    struct peer *peer;     /* NULL outside of [peer] */
    struct policy *policy; /* of a [policy], or a peer's own; else NULL */
};

/* What a key's value is shown of. */
struct shown {
    const struct host *host;
    const struct peer *peer;
    const struct policy *policy;
};

enum field_kind {
    FIELD_NONE,
    FIELD_FLAG,      /* bool, by the words of true and false */
    FIELD_WORD,      /* enum, by a word for each value */
    FIELD_NUMBER,    /* unsigned, of any width */
    FIELD_NUMBER_OR, /* or the word for zero */
    FIELD_DURATION,  /* ns_t */
    FIELD_DURATION_OR,
    FIELD_SIZE, /* uint64_t */
    FIELD_TEXT, /* char[] */
    FIELD_PATH
};

/* The one field that a key stands for, of the host, the peer or the policy: it is read and shown in the same way. */
struct field {
    enum field_kind kind;
    uint16_t at, bytes;       /* where in its struct, and how many */
    const char *const *words; /* FLAG, WORD; NULL behind them */
    const char *zero;         /* what 0 and the empty text are shown as; NULL: as it is */
    unsigned min, max;        /* NUMBER; SIZE: min is what K stands for */
    bool told;                /* config_print has words of its own for it */
};

struct key {
    const char *name;
    unsigned sections; /* enum section_kind bits: where it may stand */
    bool list;         /* indented lines extend it */
    bool of_policy;    /* in a [peer]: belongs to the peer's own policy */
    void (*apply)(struct target *t, const char *value, unsigned line); /* NULL: the field is all; without: planned */
    void (*show)(const struct shown *of, char *text, size_t size);     /* NULL: the field, or config_print does */
    struct field field;
};

/* The value into a key's field. */
void field_read(const struct key *k, struct target *t, const char *value, unsigned line);
/* The value of a key as it would be written. False: config_print has words of its own for it, or it is planned. */
bool key_show(const struct key *k, const struct shown *of, char *text, size_t size);

/* Row i of the table, NULL past its end; fewer than CONFIG_KEYS. */
const struct key *key_at(unsigned i);
/* The row of a name in a section of that kind; -1 if there is none. */
int key_find(enum section_kind kind, const char *name);
/* Explains why there is none: misspelt, or of another section. Returns the key that was perhaps meant, or NULL. */
const char *key_unknown(struct loading *l, enum section_kind kind, const char *name, unsigned line);
const char *section_kind_name(enum section_kind kind);
bool has(const struct section *s, const char *name);
unsigned line_of(const struct section *s, const char *name); /* 0: not there; else perhaps on a refused line */

/* -- the file as it was read: sections with the text of their values -- */

struct section {
    enum section_kind kind;
    char name[64]; /* empty for [host] */
    struct hash_link by_name;
    unsigned line;
    const char *value[CONFIG_KEYS]; /* by row of the key table, NULL: not there; in memory for secrets */
    unsigned line_of[CONFIG_KEYS];
};

struct ini {
    struct section *sections; /* in file order; room for all, so that none moves */
    unsigned n;
    struct hash names;
    char *arena; /* holds the values; secret_alloc */
    size_t used, size;
};

/* The whole of a file into memory for secrets, at most CONFIG_FILE_MAX bytes. Errors: SYSTEM, RANGE (too large), NOMEM. */
MUST_USE enum err read_file(int fd, char **out, size_t *len);
MUST_USE enum err ini_read(struct loading *l, struct span text, struct ini *out);
void ini_free(struct ini *ini);

/* -- complaints: collected, so that they come out in the order of the lines -- */

struct complaint {
    unsigned line;
    bool warning;
    char *text;
};

#define COMPLAINTS_MAX 200

struct loading {
    const struct config_report *report;
    const char *file;
    char folder[256];       /* of the file, with its slash; empty: the working directory */
    bool exposed;           /* others can read the file */
    unsigned inline_secret; /* line of the first secret that stands in the file itself, or 0 */
    struct config *config;
    const struct section *host; /* NULL: there is none */
    struct complaint complaints[COMPLAINTS_MAX];
    unsigned n, left_out, errors;
};

void complain(struct loading *l, unsigned line, const char *fmt, ...) PRINTF_LIKE(3, 4);
void warn(struct loading *l, unsigned line, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The next item of a comma-separated list into item, or false at its end; what does not fit is cut. */
bool next_item(const char **list, char *item, size_t size);

/* -- values: each returns false after it complained -- */

bool value_word(struct loading *l, unsigned line, const char *value, const char *const *words, unsigned *out);
bool value_number(struct loading *l, unsigned line, const char *value, unsigned min, unsigned max, unsigned *out);
/* words: what else the caller takes, for the complaint, such as "auto or ". */
bool value_number_or(struct loading *l, unsigned line, const char *value, const char *words, unsigned min, unsigned max,
                     unsigned *out);
bool value_duration(struct loading *l, unsigned line, const char *value, bool off, ns_t *out); /* off: "no" is 0 */
bool value_size(struct loading *l, unsigned line, const char *value, unsigned kilo, uint64_t *out);
bool value_text(struct loading *l, unsigned line, const char *value, char *out, size_t size);
/* A file or folder, relative to that of the configuration. */
bool value_path(struct loading *l, unsigned line, const char *value, char *out, size_t size);
bool value_identity(struct loading *l, unsigned line, const char *value, struct identity *out);
bool value_selectors(struct loading *l, unsigned line, const char *value, struct selectors *out);
bool value_proposals(struct loading *l, unsigned line, const char *value, enum protocol_id p, struct proposals *out);
bool value_secret(struct loading *l, unsigned line, const char *value, struct secret *out);
bool value_endpoint(struct loading *l, unsigned line, const char *value, struct peer_endpoint *out);
/*
 * The content of a file, its name relative to the configuration's folder; with `secret` one that others can read or
 * write is refused. The caller wipes and frees by secret_free.
 */
bool value_file(struct loading *l, unsigned line, const char *name, bool secret, char **text, size_t *len);

/* -- authentication: keys and certificates (config_auth.c) -- */

void auth_key(struct target *t, const char *value, unsigned line);
void auth_cert(struct target *t, const char *value, unsigned line);
void auth_ca(struct target *t, const char *value, unsigned line);
void auth_crl(struct target *t, const char *value, unsigned line);
void auth_public_key(struct target *t, const char *value, unsigned line);
void auth_methods(struct target *t, const char *value, unsigned line);
/* Takes from [host] what the peer's section does not have, and checks that all that is needed is there and fits. */
void auth_settle(struct loading *l, const struct section *s, struct peer *p);
/* Our identity when none is configured (DESIGN: Identities): the certificate's subject, or the key's fingerprint. */
void auth_local_id(struct loading *l, const struct section *s, struct peer *p);
bool auth_equal(const struct authentication *a, const struct authentication *b);
void auth_print(const struct authentication *a, FILE *out);
void auth_free(struct authentication *a, const struct authentication *host); /* host: whose chain stays; NULL: none */

/* -- the outer header (config_outer.c) -- */

void outer_dscp(struct target *t, const char *value, unsigned line);
void outer_show_dscp(const struct shown *of, char *text, size_t size);
struct outer_rule outer_default(void);
bool outer_equal(const struct outer_rule *a, const struct outer_rule *b);

/* -- what an observer sees of the traffic (config_traffic.c) -- */

void traffic_tfc(struct target *t, const char *value, unsigned line);
void traffic_show_tfc(const struct shown *of, char *text, size_t size);

/* -- after reading -- */

void host_defaults(struct host *h);
void peer_defaults(struct peer *p); /* of a zeroed one */
void policy_defaults(struct policy *p);
/* Applies the sections to the configuration: keys, defaults, required keys. Errors: NOMEM. */
MUST_USE enum err config_apply(struct loading *l, const struct ini *ini);
void config_check(struct loading *l); /* what only the whole shows: names, shadows, coverage */

/*
 * All of config_load but reading the file: file serves for messages and the folder of secrets.
 * exposed: others can read it. Errors: SYNTAX, NOMEM.
 */
MUST_USE enum err config_parse(struct span text, const char *file, bool exposed, const struct config_report *report,
                               struct config **out);

#endif
