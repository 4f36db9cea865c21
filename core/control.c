#include "core/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/file.h"

#define ACCEPT_AGAIN NS_PER_S /* after the process ran out of descriptors */

struct control_client {
    struct control *owner;
    int fd;
    struct loop_watch *watch;
    uint32_t events; /* what watch waits for */
    char in[CONTROL_LINE];
    size_t in_len;
    char *out; /* what is still to be sent of an answer; NULL: nothing */
    size_t out_len, out_at;
    uint64_t command; /* the engine's command whose end it waits for; 0: none */
    ns_t idle_at;
    bool dead; /* freed in the next sweep: the loop may still name it in this turn */
};

struct control {
    struct loop *loop;
    struct control_handler handler;
    int fd;
    struct loop_watch *watch; /* NULL while no descriptor is free for another client */
    ns_t accept_at;           /* when it is set again then */
    bool starved;             /* no descriptor since the last client: said once */
    struct log_limit log_limit;
    struct control_client *clients[CONTROL_CLIENTS];
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
};

static void client_event(void *ctx, uint32_t events);

static void client_kill(struct control_client *c)
{
    c->dead = true;
}

static void client_watch(struct control_client *c, uint32_t events)
{
    if (c->dead || (c->watch && c->events == events))
        return;
    if (c->watch)
        loop_watch_del(c->owner->loop, c->watch);
    c->watch = NULL;
    c->events = events;
    if (loop_watch_add(c->owner->loop, c->fd, events, client_event, c, &c->watch) != OK)
        client_kill(c);
}

static void client_free(struct control_client *c)
{
    if (c->watch)
        loop_watch_del(c->owner->loop, c->watch);
    close(c->fd);
    free(c->out);
    free(c);
}

/* -- answers -- */

static void client_flush(struct control_client *c)
{
    while (c->out && c->out_at < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            client_watch(c, EPOLLOUT);
            return;
        }
        if (n <= 0) {
            client_kill(c);
            return;
        }
        c->out_at += (size_t)n;
    }
    free(c->out);
    c->out = NULL;
    client_watch(c, EPOLLIN);
}

void control_reply(struct control_client *c, json_t *reply)
{
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    size_t len = text ? strlen(text) : 0;
    char *out = text ? realloc(text, len + 2) : NULL;
    if (!out) {
        free(text);
        client_kill(c);
        return;
    }
    memcpy(out + len, "\n", 2);
    free(c->out);
    c->out = out;
    c->out_len = len + 1;
    c->out_at = 0;
    c->command = 0;
    c->idle_at = clock_now() + CONTROL_IDLE;
    client_flush(c);
}

json_t *control_text(const char *text)
{
    json_t *j = json_string(text);
    if (j)
        return j;
    char plain[512];
    snprintf(plain, sizeof plain, "%s", text);
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    return json_string(plain);
}

void control_answer(struct control_client *c, bool ok, const char *text)
{
    control_reply(c, json_pack("{s:b, s:o}", "ok", ok, ok ? "text" : "error", control_text(text)));
}

void control_wait(struct control_client *c, uint64_t command)
{
    c->command = command;
}

/* -- requests -- */

static void client_line(struct control_client *c, const char *line, size_t len)
{
    json_error_t error;
    json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(request))
        c->owner->handler.request(c->owner->handler.ctx, c, request);
    else
        control_answer(c, false, "expected one JSON object a line");
    json_decref(request);
}

/* Handles whole lines until one of them has to be waited for. */
static void client_lines(struct control_client *c)
{
    while (!c->dead && !c->out && !c->command) {
        char *end = memchr(c->in, '\n', c->in_len);
        if (!end)
            break;
        size_t len = (size_t)(end - c->in);
        client_line(c, c->in, len);
        c->in_len -= len + 1;
        memmove(c->in, end + 1, c->in_len);
    }
    if (!c->dead && !c->out && c->in_len == sizeof c->in && !memchr(c->in, '\n', c->in_len)) {
        control_answer(c, false, "request too long");
        client_kill(c);
    }
}

static void client_read(struct control_client *c)
{
    if (c->in_len == sizeof c->in) { /* a full buffer of requests behind one that waits */
        client_kill(c);
        return;
    }
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        client_kill(c);
        return;
    }
    c->in_len += (size_t)n;
    c->idle_at = clock_now() + CONTROL_IDLE;
    client_lines(c);
}

static void client_event(void *ctx, uint32_t events)
{
    struct control_client *c = ctx;
    if (c->dead)
        return;
    if (c->out && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        client_flush(c);
        client_lines(c);
    } else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        client_read(c);
    }
}

void control_finish(struct control *c, uint64_t command, bool ok, const char *text)
{
    for (unsigned i = 0; command && i < CONTROL_CLIENTS; i++) {
        struct control_client *client = c->clients[i];
        if (!client || client->dead || client->command != command)
            continue;
        control_answer(client, ok, text);
        return;
    }
}

/* A line that came while its client waited for the answer to the one before. */
static bool client_behind(const struct control_client *c)
{
    return !c->dead && !c->out && !c->command && memchr(c->in, '\n', c->in_len);
}

/* -- clients come and go -- */

static bool peer_allowed(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
        return false;
    return cred.uid == 0 || cred.uid == geteuid();
}

static struct control_client *client_new(struct control *c, int fd)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        if (c->clients[i])
            continue;
        struct control_client *client = calloc(1, sizeof *client);
        if (!client)
            return NULL;
        client->owner = c;
        client->fd = fd;
        client->idle_at = clock_now() + CONTROL_IDLE;
        c->clients[i] = client;
        return client;
    }
    return NULL;
}

/* No descriptor is free: who wants to connect stays in the backlog, and the loop would come back at once. */
static void control_pause(struct control *c, int error)
{
    if (!c->starved)
        log_limited(&c->log_limit, LOG_WARN, "core", "%s: another client has to wait: %s", c->path, strerror(error));
    c->starved = true;
    loop_watch_del(c->loop, c->watch);
    c->watch = NULL;
    c->accept_at = clock_now() + ACCEPT_AGAIN;
}

static void control_accept(void *ctx, uint32_t events)
{
    struct control *c = ctx;
    (void)events;
    int fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            control_pause(c, errno);
        return;
    }
    c->starved = false;
    struct control_client *client = peer_allowed(fd) ? client_new(c, fd) : NULL;
    if (!client) {
        close(fd);
        return;
    }
    client_watch(client, EPOLLIN);
}

void control_sweep(struct control *c, ns_t now)
{
    if (!c->watch && c->accept_at <= now && loop_watch_add(c->loop, c->fd, EPOLLIN, control_accept, c, &c->watch) != OK)
        c->accept_at = now + ACCEPT_AGAIN;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        struct control_client *client = c->clients[i];
        if (client && client_behind(client))
            client_lines(client);
        if (!client || (!client->dead && (client->command || client->idle_at > now)))
            continue;
        client_free(client);
        c->clients[i] = NULL;
    }
}

ns_t control_deadline(const struct control *c)
{
    ns_t at = c->watch ? NS_NEVER : c->accept_at;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        const struct control_client *client = c->clients[i];
        if (client && (client->dead || client_behind(client)))
            return 0;
        if (client && !client->command && client->idle_at < at)
            at = client->idle_at;
    }
    return at;
}

/* -- the socket -- */

/* A name that a crashed daemon left is taken over; one that answers is not. */
static enum err name_clear(const struct sockaddr_un *sa)
{
    if (!file_is_socket(sa->sun_path))
        return OK; /* nothing there, or nothing of ours: bind tells */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_SYSTEM;
    int failed = connect(fd, (const struct sockaddr *)sa, sizeof *sa), error = errno;
    close(fd);
    if (!failed)
        return ERR_EXISTS;
    if (error == ECONNREFUSED)
        unlink(sa->sun_path);
    return OK;
}

static enum err socket_listen(const char *path, int *out)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path) {
        errno = ENAMETOOLONG;
        return ERR_SYSTEM;
    }
    memcpy(sa.sun_path, path, strlen(path));
    TRY(file_parent(path, 0755));
    TRY(name_clear(&sa));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_SYSTEM;
    /* Whoever connects before the mode is set is still judged by his credentials. */
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) || file_mode(path, 0600) != OK || listen(fd, CONTROL_CLIENTS)) {
        int error = errno;
        close(fd);
        errno = error;
        return ERR_SYSTEM;
    }
    *out = fd;
    return OK;
}

enum err control_open(struct control **out, struct loop *loop, const char *path, const struct control_handler *h,
                      char *why, size_t why_size)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    *c = (struct control){.loop = loop, .handler = *h};
    enum err e = socket_listen(path, &c->fd);
    if (e != OK) {
        snprintf(why, why_size, "control socket %s: %s", path,
                 e == ERR_EXISTS ? "another adit answers there" : strerror(errno));
        free(c);
        return e;
    }
    snprintf(c->path, sizeof c->path, "%s", path);
    e = loop_watch_add(loop, c->fd, EPOLLIN, control_accept, c, &c->watch);
    if (e != OK) {
        snprintf(why, why_size, "control socket %s: %s", path, err_text(e));
        control_close(c);
        return e;
    }
    *out = c;
    return OK;
}

void control_close(struct control *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (c->clients[i])
            client_free(c->clients[i]);
    if (c->watch)
        loop_watch_del(c->loop, c->watch);
    close(c->fd);
    unlink(c->path);
    free(c);
}
