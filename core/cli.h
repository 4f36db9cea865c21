/* The command line. Exit codes: 0 done, 1 failed, 2 usage. */
#ifndef ADIT_CLI_H
#define ADIT_CLI_H

#include <stdbool.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define CLI_SAN_MAX 31

/* Options of pki as they were written; NULL: not given. */
struct cli_pki {
    const char *days, *key, *out, *ca;
    const char *san[CLI_SAN_MAX];
    unsigned san_count;
};

/* Options of capture. */
struct cli_capture {
    bool plain, wire;
    const char *file, *count; /* NULL: not given */
};

/* The options and arguments of one call, sorted out. */
struct cli {
    const char *command;
    const char *socket; /* -s, or NULL */
    bool json, watch;
    bool pem;    /* pubkey */
    unsigned ms; /* bench: milliseconds for each measurement */
    struct cli_pki pki;
    struct cli_capture capture;
    const char *args[2];
    int arg_count;
};

int cli_main(int argc, char **argv);

/* The commands; each returns the exit code. */
int cli_check(const struct cli *c); /* core/tool.c */
int cli_genkey(const struct cli *c);
int cli_pubkey(const struct cli *c);
int cli_genpsk(const struct cli *c);
int cli_version(const struct cli *c);
int cli_pki(const struct cli *c);    /* core/pki.c */
int cli_bench(const struct cli *c);  /* core/bench.c */
int cli_status(const struct cli *c); /* core/client.c */
int cli_act(const struct cli *c);    /* up, down, rekey */
int cli_reload(const struct cli *c);
int cli_capture(const struct cli *c); /* core/capture_cli.c */

/* Connects to the daemon that is meant; -1, with the reason on stderr and the exit code in *code. */
int daemon_connect(const struct cli *c, int *code);

#endif
