/* The commands that need no daemon: check, genkey, pubkey, genpsk, version. */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/loop.h"
#include "core/cli.h"
#include "core/daemon.h"
#include "core/file.h"
#include "core/resolve.h"
#include "crypto/key.h"
#include "crypto/library.h"
#include "crypto/secret.h"
#include "crypto/sig.h"

static bool start_crypto(void)
{
    if (crypto_init() == OK)
        return true;
    fputs("adit: the crypto libraries could not be started\n", stderr);
    return false;
}

/* -- check -- */

static void check_line(void *ctx, const char *file, unsigned line, const char *text)
{
    char out[1024];
    config_line_text(out, sizeof out, file, line, text);
    fprintf(stderr, "%s%s\n", (const char *)ctx, out);
}

static void check_error(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    check_line("", file, line, text);
}

static void check_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    check_line("warning: ", file, line, text);
}

#define CHECK_PATIENCE (5 * NS_PER_S) /* for all names together */

static void print_resolved(const struct peer *p, const struct resolved *a)
{
    char text[ENDPOINT_TEXT];
    printf("    %s: ", p->name);
    for (unsigned i = 0; i < a->n; i++)
        printf("%s%s", i ? ", " : "", ip_format(&a->v[i].ip, text));
    printf("%s\n", a->n ? "" : "none");
}

/* Names are looked up as the daemon will do by itself, so that those without an answer are warnings only. */
static void check_names(const char *file, const struct config *c)
{
    struct resolver *r;
    struct resolved a;
    unsigned asked = 0;
    char why[RESOLVE_WHY + 16];
    ns_t until = clock_now() + CHECK_PATIENCE, now;
    if (resolver_new(&r) != OK)
        return;
    for (unsigned i = 0; i < c->peer_count; i++)
        if (peer_has_names(c->peers[i]))
            asked += resolver_ask(r, i, c->peers[i]->endpoints, c->peers[i]->endpoint_count) == OK;
    if (asked)
        printf("\nAddresses of names\n");
    while (asked && (now = clock_now()) < until) {
        struct pollfd p = {.fd = resolver_fd(r), .events = POLLIN};
        (void)poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1);
        for (; resolver_next(r, &a); asked--) {
            print_resolved(c->peers[a.id], &a);
            snprintf(why, sizeof why, "endpoint %s", a.why);
            if (a.why[0])
                check_warning(NULL, file, c->peers[a.id]->line, why);
        }
    }
    if (asked)
        check_warning(NULL, file, 0, "some names were not looked up in time");
    resolver_free(r);
}

int cli_check(const struct cli *c)
{
    const struct config_report report = {.error = check_error, .warning = check_warning};
    struct config *config = NULL;
    if (!start_crypto() || config_load(c->args[0], &report, &config) != OK)
        return EXIT_FAILED;
    config_print(config, stdout);
    fflush(stdout);
    check_names(c->args[0], config);
    config_free(config);
    return EXIT_DONE;
}

/* -- keys -- */

static int print_secret(char *text, size_t size)
{
    if (file_readable_by_others(STDOUT_FILENO))
        fputs("adit: warning: others may read this file: 'umask 077' first\n", stderr);
    puts(text);
    fflush(stdout);
    secret_wipe(text, size);
    return EXIT_DONE;
}

int cli_genkey(const struct cli *c)
{
    char text[KEY_TEXT];
    (void)c;
    if (!start_crypto())
        return EXIT_FAILED;
    key_generate(text);
    return print_secret(text, sizeof text);
}

int cli_genpsk(const struct cli *c)
{
    char text[KEY_TEXT];
    (void)c;
    if (!start_crypto())
        return EXIT_FAILED;
    psk_generate(text);
    return print_secret(text, sizeof text);
}

#define KEY_FILE_MAX 65536 /* more than any private key */

/* What stdin holds, in secret memory of the caller; NULL when there is no memory. */
static uint8_t *read_secret(size_t *len)
{
    uint8_t *text = secret_alloc(KEY_FILE_MAX);
    setvbuf(stdin, NULL, _IONBF, 0); /* no copy of the key in stdio's buffer */
    if (text)
        *len = fread(text, 1, KEY_FILE_MAX, stdin);
    return text;
}

static enum err print_public(const struct public_key *k, bool as_pem)
{
    char line[KEY_TEXT];
    struct buf pem = {0};
    if (!as_pem && public_key_line(k, line)) {
        puts(line);
        return OK;
    }
    TRY(public_key_pem(k, &pem));
    fwrite(pem.data, 1, pem.len, stdout);
    buf_free(&pem);
    return OK;
}

int cli_pubkey(const struct cli *c)
{
    struct private_key *k = NULL;
    char why[256] = "out of memory";
    size_t len = 0;
    if (!start_crypto())
        return EXIT_FAILED;
    uint8_t *text = read_secret(&len);
    enum err e = text ? private_key_parse(span_of(text, len), &k, why, sizeof why) : ERR_NOMEM;
    secret_free(text);
    if (e == OK)
        e = print_public(private_key_public(k), c->pem);
    else
        fprintf(stderr, "adit: stdin: %s\n", why);
    private_key_free(k);
    return e == OK ? EXIT_DONE : EXIT_FAILED;
}

/* -- version -- */

int cli_version(const struct cli *c)
{
    char why[160] = "", library[64];
    struct loop_hooks hooks = {0};
    struct loop *loop = NULL;
    (void)c;
    if (!start_crypto())
        return EXIT_FAILED;
    printf("adit %s\n", ADIT_VERSION);
    printf("libraries: jansson %s", jansson_version_str());
    for (unsigned i = 0; library_text(i, library, sizeof library); i++)
        printf(", %s", library);
    printf("\ncrypto engines:");
    for (unsigned i = 0; engine_name(i); i++)
        printf("%s %s", i ? "," : "", engine_name(i));
    enum err e = loop_uring_new(&hooks, &loop, why, sizeof why);
    printf("\nio_uring: %s%s%s\n", e == OK ? "usable" : "not usable", why[0] ? ": " : "", why);
    if (e == OK)
        loop_free(loop);
    return EXIT_DONE;
}
