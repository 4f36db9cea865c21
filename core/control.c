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
#define SLICE NS_PER_MS       /* of a turn, for making answers */
#define AHEAD 16384           /* bytes of an answer that are made before they are sent */

struct control_client {
    struct control *owner;
    int fd;
    struct loop_watch *watch;
    uint32_t events; /* what watch waits for */
    char in[CONTROL_LINE];
    size_t in_len;
    bool busy;      /* with an answer: what is still to be sent of it … */
    struct buf out; /* … is this from out_at on … */
    size_t out_at;
    struct control_source source; /* … and what this has yet to make, if more is set */
    bool live;                    /* source had a stop: with its end the connection ends, too */
    uint64_t command;             /* the engine's command whose end it waits for; 0: none */
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
    ns_t until; /* then the slice of this turn is over; 0: it has not begun */
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

static void source_release(struct control_client *c)
{
    if (c->source.more)
        c->source.release(c->source.ctx);
    c->source = (struct control_source){0};
}

static void client_free(struct control_client *c)
{
    if (c->watch)
        loop_watch_del(c->owner->loop, c->watch);
    close(c->fd);
    source_release(c);
    buf_free(&c->out);
    free(c);
}

/* -- answers -- */

/* False: it can't be made further. */
static bool answer_more(struct control_client *c, ns_t until)
{
    bool over = false;
    enum err e = OK;
    size_t before;
    c->out.len = c->out_at = 0;
    do {
        before = c->out.len;
        e = c->source.more(c->source.ctx, &c->out, &over);
    } while (e == OK && !over && c->out.len > before && c->out.len < AHEAD && clock_now() < until);
    if (e != OK || over)
        source_release(c);
    return e == OK;
}

/* False: not now, or never again. */
static bool answer_send(struct control_client *c)
{
    while (c->out_at < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            client_watch(c, EPOLLOUT);
            return false;
        }
        if (n <= 0) {
            client_kill(c);
            return false;
        }
        c->out_at += (size_t)n;
        c->idle_at = clock_now() + CONTROL_IDLE;
    }
    return true;
}

static void client_flush(struct control_client *c)
{
    struct control *owner = c->owner;
    while (answer_send(c) && c->source.more) {
        ns_t now = clock_now();
        owner->until = owner->until ? owner->until : now + SLICE;
        if (now >= owner->until) { /* the loop comes back at once, when others have had their turn */
            client_watch(c, EPOLLOUT);
            return;
        }
        if (!answer_more(c, owner->until))
            client_kill(c);
        if (c->source.more && c->out.len == 0) { /* nothing to tell as yet */
            c->idle_at = NS_NEVER;
            client_watch(c, EPOLLIN);
            return;
        }
    }
    if (c->dead || c->out_at < c->out.len)
        return;
    buf_free(&c->out);
    c->out_at = 0;
    c->busy = false;
    if (c->live) {
        client_kill(c);
        return;
    }
    client_watch(c, EPOLLIN);
}

static void answer_begin(struct control_client *c)
{
    source_release(c);
    c->out.len = c->out_at = 0;
    c->busy = true;
    c->command = 0;
    c->idle_at = clock_now() + CONTROL_IDLE;
}

static void reply(struct control_client *c, const json_t *answer)
{
    char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    answer_begin(c);
    if (text && buf_append(&c->out, span_of(text, strlen(text))) == OK && buf_append(&c->out, span_of("\n", 1)) == OK)
        client_flush(c);
    else
        client_kill(c);
    free(text);
}

void control_reply(struct control_client *c, json_t *answer)
{
    reply(c, answer);
    json_decref(answer);
}

void control_stream(struct control_client *c, const struct control_source *source)
{
    answer_begin(c);
    c->source = *source;
    c->live = source->stop;
    client_flush(c);
}

void control_more(struct control_client *c)
{
    if (!c->dead && c->source.more && c->out_at == c->out.len)
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

static json_t *outcome(bool ok, const char *text)
{
    return json_pack("{s:b, s:o}", "ok", ok, ok ? "text" : "error", control_text(text));
}

void control_answer(struct control_client *c, bool ok, const char *text)
{
    control_reply(c, outcome(ok, text));
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
    while (!c->dead && !c->busy && !c->command) {
        char *end = memchr(c->in, '\n', c->in_len);
        if (!end)
            break;
        size_t len = (size_t)(end - c->in);
        client_line(c, c->in, len);
        c->in_len -= len + 1;
        memmove(c->in, end + 1, c->in_len);
    }
    if (!c->dead && !c->busy && c->in_len == sizeof c->in && !memchr(c->in, '\n', c->in_len)) {
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
    if (n == 0 && c->source.stop) {
        c->source.stop(c->source.ctx);
        c->source.stop = NULL;
        client_flush(c);
        return;
    }
    if (n <= 0) {
        client_kill(c);
        return;
    }
    if (c->source.more) /* it can say nothing but that it wants no more */
        return;
    c->in_len += (size_t)n;
    c->idle_at = clock_now() + CONTROL_IDLE;
    client_lines(c);
}

static void client_event(void *ctx, uint32_t events)
{
    struct control_client *c = ctx;
    if (c->dead)
        return;
    if (c->source.stop && events & (EPOLLERR | EPOLLHUP)) {
        client_kill(c);
    } else if (c->busy && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        client_flush(c);
        client_lines(c);
    } else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        client_read(c);
    }
}

void control_finish_reply(struct control *c, uint64_t command, json_t *answer)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        struct control_client *client = c->clients[i];
        if (client && !client->dead && client->command == command)
            reply(client, answer);
    }
    json_decref(answer);
}

void control_finish(struct control *c, uint64_t command, bool ok, const char *text)
{
    if (command)
        control_finish_reply(c, command, outcome(ok, text));
}

/* A line that came while its client waited for the answer to the one before. */
static bool client_behind(const struct control_client *c)
{
    return !c->dead && !c->busy && !c->command && memchr(c->in, '\n', c->in_len);
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
    c->until = 0;
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

static const char *reason(enum err e)
{
    if (e == ERR_EXISTS)
        return "another adit answers there; a second one needs 'tun', 'port' and 'nat-port' of its own in [host]";
    if (errno == EACCES && geteuid() != 0)
        return "Permission denied: this needs root, or CAP_NET_ADMIN and a 'control' in [host] that may be written";
    return strerror(errno);
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
        snprintf(why, why_size, "control socket %s: %s", path, reason(e));
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
