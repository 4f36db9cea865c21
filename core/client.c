/* The commands that talk to a running daemon: status, up, down, rekey, reload. */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/cli.h"
#include "core/show.h"

#define RUN_FOLDER "/run/adit"
#define SOCKETS_MAX 64
#define ANSWER_MAX (64u << 20) /* bytes of one answer: more than any status */

typedef char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];

/* -- which daemon -- */

static int connect_to(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(sa.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* The sockets in the run folder that somebody answers on. */
static unsigned sockets_running(socket_path *v)
{
    DIR *dir = opendir(RUN_FOLDER);
    struct dirent *entry;
    unsigned n = 0;
    while (dir && n < SOCKETS_MAX && (entry = readdir(dir))) {
        size_t len = strlen(entry->d_name);
        if (len < 5 || strcmp(entry->d_name + len - 5, ".sock") != 0)
            continue;
        if ((size_t)snprintf(v[n], sizeof v[n], "%s/%s", RUN_FOLDER, entry->d_name) >= sizeof v[n])
            continue;
        int fd = connect_to(v[n]);
        if (fd < 0 && errno != EACCES)
            continue;
        if (fd >= 0)
            close(fd);
        n++;
    }
    if (dir)
        closedir(dir);
    return n;
}

int daemon_connect(const struct cli *c, int *code)
{
    socket_path found[SOCKETS_MAX];
    const char *path = c->socket;
    *code = EXIT_FAILED;
    if (!path) {
        unsigned n = sockets_running(found);
        if (n == 0) {
            fputs("adit: no daemon is running here (no socket in " RUN_FOLDER ")\n", stderr);
            return -1;
        }
        if (n > 1) {
            fputs("adit: several daemons are running, choose one with -s:\n", stderr);
            for (unsigned i = 0; i < n; i++)
                fprintf(stderr, "  -s %s\n", found[i]);
            *code = EXIT_USAGE;
            return -1;
        }
        path = found[0];
    }
    int fd = connect_to(path);
    if (fd < 0)
        fprintf(stderr, "adit: %s: %s%s\n", path, strerror(errno),
                errno == EACCES ? ": it is for root and the daemon's own user" : "");
    return fd;
}

/* -- one question, one answer -- */

static bool line_send(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads up to the end of a line; NULL when the daemon went away. To be freed. */
static char *line_receive(int fd)
{
    size_t cap = 65536, len = 0;
    char *text = malloc(cap + 1);
    while (text) {
        ssize_t n = recv(fd, text + len, cap - len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        text[len] = 0;
        if (text[len - 1] == '\n')
            return text;
        if (len < cap)
            continue;
        cap *= 2;
        char *more = cap <= ANSWER_MAX ? realloc(text, cap + 1) : NULL;
        if (!more)
            break;
        text = more;
    }
    free(text);
    return NULL;
}

/* Takes over the request. NULL: it failed, and stderr says why. *raw (if asked for): the answer's line, to be freed. */
static json_t *ask(int fd, json_t *request, char **raw)
{
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    bool sent = text && line_send(fd, text, strlen(text)) && line_send(fd, "\n", 1);
    free(text);
    char *line = sent ? line_receive(fd) : NULL;
    json_error_t error;
    json_t *answer = line ? json_loads(line, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (!json_is_object(answer)) {
        fputs(line ? "adit: the daemon's answer is malformed\n" : "adit: the daemon ended the connection\n", stderr);
        json_decref(answer);
        free(line);
        return NULL;
    }
    if (raw)
        *raw = line;
    else
        free(line);
    return answer;
}

/* Prints what a command came to; takes over the answer. */
static int outcome(json_t *answer)
{
    if (!answer)
        return EXIT_FAILED;
    int code = json_is_true(json_object_get(answer, "ok")) ? EXIT_DONE : EXIT_FAILED;
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(answer, "errors"), i, line) fprintf(stderr, "%s\n", json_string_value(line));
    const char *text = json_string_value(json_object_get(answer, code == EXIT_DONE ? "text" : "error"));
    if (code == EXIT_DONE && text && *text)
        puts(text);
    else if (code != EXIT_DONE)
        fprintf(stderr, "adit: %s\n", text ? text : "failed");
    json_decref(answer);
    return code;
}

/* -- the commands -- */

int cli_act(const struct cli *c)
{
    char name[160];
    if ((size_t)snprintf(name, sizeof name, "%s", c->args[0]) >= sizeof name) {
        fprintf(stderr, "adit: %s: name too long\n", c->args[0]);
        return EXIT_USAGE;
    }
    char *policy = strchr(name, '/');
    if (policy)
        *policy++ = 0;
    int code, fd = daemon_connect(c, &code);
    if (fd < 0)
        return code;
    json_t *request = json_pack("{s:s, s:s, s:s*}", "command", c->command, "peer", name, "policy", policy);
    code = outcome(ask(fd, request, NULL));
    close(fd);
    return code;
}

int cli_reload(const struct cli *c)
{
    int code, fd = daemon_connect(c, &code);
    if (fd < 0)
        return code;
    code = outcome(ask(fd, json_pack("{s:s}", "command", c->command), NULL));
    close(fd);
    return code;
}

static int status_watch(int fd)
{
    json_t *before = NULL, *now;
    ns_t then = 0;
    const struct timespec second = {.tv_sec = 1};
    while ((now = ask(fd, json_pack("{s:s}", "command", "status"), NULL))) {
        ns_t at = clock_now();
        fputs("\033[H\033[2J", stdout); /* cursor home, clear */
        show_status(stdout, now, before, (double)(at - then) / 1e9);
        if (fflush(stdout))
            break;
        json_decref(before);
        before = now;
        then = at;
        nanosleep(&second, NULL);
    }
    json_decref(before);
    json_decref(now);
    return EXIT_FAILED;
}

static int status_once(const struct cli *c, int fd)
{
    char *line = NULL;
    json_t *status = ask(fd, json_pack("{s:s}", "command", "status"), &line);
    if (!status)
        return EXIT_FAILED;
    int code = EXIT_DONE;
    if (!json_is_true(json_object_get(status, "ok")))
        code = outcome(json_incref(status));
    else if (c->json)
        fputs(line, stdout);
    else
        show_status(stdout, status, NULL, 0);
    json_decref(status);
    free(line);
    return code;
}

int cli_status(const struct cli *c)
{
    if (c->json && c->watch) {
        fputs("adit: --json and --watch exclude each other\n", stderr);
        return EXIT_USAGE;
    }
    int code, fd = daemon_connect(c, &code);
    if (fd < 0)
        return code;
    code = c->watch ? status_watch(fd) : status_once(c, fd);
    close(fd);
    return code;
}
