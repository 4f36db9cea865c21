/* The command that writes what a running daemon captures. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cli.h"

#define LINE_MAX_LEN 4096

static bool write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool request_send(int fd, const struct cli *c, uint64_t count)
{
    json_t *request = json_pack("{s:s, s:s, s:s}", "command", "capture", "peer", c->args[0], "side",
                                c->capture.wire ? "wire" : "plain");
    if (request && count)
        (void)json_object_set_new(request, "count", json_integer((json_int_t)count));
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    bool sent = text && write_all(fd, text, strlen(text)) && write_all(fd, "\n", 1);
    free(text);
    return sent;
}

/* The line before the packets, byte by byte, as what follows it is not for us. */
static bool accepted(int fd)
{
    char line[LINE_MAX_LEN];
    size_t len = 0;
    while (len < sizeof line && recv(fd, line + len, 1, 0) == 1 && line[len] != '\n')
        len++;
    json_error_t error;
    json_t *answer = json_loadb(line, len, 0, &error);
    bool ok = json_is_true(json_object_get(answer, "ok"));
    const char *why = json_string_value(json_object_get(answer, "error"));
    if (!ok)
        fprintf(stderr, "adit: %s\n", why ? why : "the daemon ended the connection");
    json_decref(answer);
    return ok;
}

/* A first signal asks the daemon to come to an end, which it does with the counters; a second one doesn't wait. */
static int copy(int from, int to, int signals)
{
    static char data[65536];
    bool asked = false;
    struct pollfd v[2] = {{.fd = from, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    for (;;) {
        if (poll(v, 2, -1) < 0 && errno != EINTR)
            return EXIT_FAILED;
        if (v[1].revents) {
            struct signalfd_siginfo info;
            if (read(signals, &info, sizeof info) != (ssize_t)sizeof info || asked || shutdown(from, SHUT_WR))
                return EXIT_FAILED;
            asked = true;
        }
        if (!v[0].revents)
            continue;
        ssize_t n = recv(from, data, sizeof data, 0);
        if (n == 0)
            return EXIT_DONE;
        if (n < 0 && errno != EINTR) {
            perror("adit: control socket");
            return EXIT_FAILED;
        }
        if (n > 0 && !write_all(to, data, (size_t)n)) {
            perror("adit: capture");
            return EXIT_FAILED;
        }
    }
}

/* Interrupts come as input: the file shall have its end. */
static int signals_open(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

/* What an earlier capture has written goes when there is something to take its place. */
static bool emptied(int fd)
{
    struct stat s;
    if (fstat(fd, &s) == 0 && (!S_ISREG(s.st_mode) || ftruncate(fd, 0) == 0))
        return true;
    perror("adit: capture");
    return false;
}

static int capture(const struct cli *c, int out, uint64_t count)
{
    int code, fd = daemon_connect(c, &code);
    if (fd < 0)
        return code;
    int signals = signals_open();
    code = EXIT_FAILED;
    if (signals < 0)
        perror("adit: signalfd");
    else if (request_send(fd, c, count) && accepted(fd) && (!c->capture.file || emptied(out)))
        code = copy(fd, out, signals);
    if (signals >= 0)
        close(signals);
    close(fd);
    return code;
}

static bool parse_count(const char *text, uint64_t *count)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    *count = n;
    return *text >= '0' && *text <= '9' && !*end && !errno && n > 0 && n < INT64_MAX;
}

int cli_capture(const struct cli *c)
{
    uint64_t count = 0;
    if (c->capture.plain && c->capture.wire) {
        fputs("adit: --plain and --wire exclude each other\n", stderr);
        return EXIT_USAGE;
    }
    if (c->capture.count && !parse_count(c->capture.count, &count)) {
        fputs("adit: --count takes a number above 0\n", stderr);
        return EXIT_USAGE;
    }
    if (!c->capture.file && isatty(STDOUT_FILENO)) {
        fputs("adit: packets are not for a terminal: name a file with -w, or pipe them into tshark -r -\n", stderr);
        return EXIT_USAGE;
    }
    int out = STDOUT_FILENO;
    if (c->capture.file) {
        /* What is in it may be for nobody else to read. */
        out = open(c->capture.file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (out < 0) {
            fprintf(stderr, "adit: %s: %s\n", c->capture.file, strerror(errno));
            return EXIT_FAILED;
        }
    }
    int code = capture(c, out, count);
    if (c->capture.file && close(out)) {
        fprintf(stderr, "adit: %s: %s\n", c->capture.file, strerror(errno));
        code = EXIT_FAILED;
    }
    return code;
}
