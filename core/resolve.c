#include "core/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct question {
    struct question *next;
    struct peer_endpoint v[PEER_ENDPOINTS];
    unsigned n;
    struct resolved answer;
};

struct resolver {
    pthread_mutex_t lock;
    unsigned threads; /* whoever of them and the owner lets go last frees it */
    bool closed;
    int fd;
    struct question *waiting, *answered;
    unsigned questions; /* in both lists and in threads */
};

enum err resolver_new(struct resolver **out)
{
    struct resolver *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->fd < 0 || pthread_mutex_init(&r->lock, NULL)) {
        if (r->fd >= 0)
            close(r->fd);
        free(r);
        return ERR_SYSTEM;
    }
    *out = r;
    return OK;
}

static void drop_list(struct question *q)
{
    while (q) {
        struct question *next = q->next;
        free(q);
        q = next;
    }
}

/* With the lock, which it gives back; the resolver may be gone afterwards. */
static void release(struct resolver *r)
{
    bool last = r->closed && r->threads == 0;
    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    drop_list(r->waiting);
    drop_list(r->answered);
    pthread_mutex_destroy(&r->lock);
    close(r->fd);
    free(r);
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->closed = true;
    release(r);
}

int resolver_fd(const struct resolver *r)
{
    return r->fd;
}

/* -- in a thread -- */

static void add(struct resolved *a, const struct endpoint *e)
{
    for (unsigned i = 0; i < a->n; i++)
        if (endpoint_equal(&a->v[i], e))
            return;
    if (a->n < PEER_CANDIDATES)
        a->v[a->n++] = *e;
}

/* A packet to it could go out, and would need no interface beside the address (link-local ones do). */
static bool usable(const struct ip *ip)
{
    bool link_local = ip->family == 6 && ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
    return ip->family && !ip_is_any(ip) && !link_local;
}

static void look_up(const struct peer_endpoint *name, struct resolved *answer)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM}, *list = NULL;
    unsigned before = answer->n;
    int error = getaddrinfo(name->host, NULL, &hints, &list);
    for (const struct addrinfo *a = list; !error && a; a = a->ai_next) {
        struct sockaddr_storage address = {0};
        struct endpoint e;
        memcpy(&address, a->ai_addr, a->ai_addrlen);
        if (endpoint_from_sockaddr(&address, &e) != OK || !usable(&e.ip))
            continue;
        e.port = name->at.port;
        add(answer, &e);
    }
    if (list)
        freeaddrinfo(list);
    if (answer->n == before && (error || !before) && !answer->why[0])
        snprintf(answer->why, sizeof answer->why, "%s has no address: %s", name->host,
                 error ? gai_strerror(error) : "none that can be used");
}

static void answer_question(struct question *q)
{
    for (unsigned i = 0; i < q->n; i++)
        if (q->v[i].host[0])
            look_up(&q->v[i], &q->answer);
        else
            add(&q->answer, &q->v[i].at);
}

static void *resolver_main(void *arg)
{
    struct resolver *r = arg;
    pthread_mutex_lock(&r->lock);
    while (r->waiting && !r->closed) {
        struct question *q = r->waiting;
        r->waiting = q->next;
        pthread_mutex_unlock(&r->lock);
        answer_question(q);
        pthread_mutex_lock(&r->lock);
        q->next = r->answered;
        r->answered = q;
        uint64_t one = 1;
        if (write(r->fd, &one, sizeof one) < 0) {
            /* A full counter means that it is readable already. */
        }
    }
    r->threads--;
    release(r);
    return NULL;
}

/* -- in the owner's thread -- */

/* With the lock. */
static bool start_thread(struct resolver *r)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, resolver_main, r))
        return false;
    pthread_detach(thread);
    r->threads++;
    return true;
}

enum err resolver_ask(struct resolver *r, uint64_t id, const struct peer_endpoint *v, unsigned n)
{
    struct question *q = calloc(1, sizeof *q);
    if (!q)
        return ERR_NOMEM;
    q->answer.id = id;
    q->n = n < PEER_ENDPOINTS ? n : PEER_ENDPOINTS;
    memcpy(q->v, v, q->n * sizeof *v);
    pthread_mutex_lock(&r->lock);
    enum err e = r->questions >= RESOLVE_QUEUE ? ERR_FULL : OK;
    if (e == OK && r->threads < RESOLVE_THREADS && !start_thread(r) && r->threads == 0)
        e = ERR_SYSTEM;
    if (e == OK) {
        struct question **end = &r->waiting;
        while (*end)
            end = &(*end)->next;
        *end = q;
        r->questions++;
    }
    pthread_mutex_unlock(&r->lock);
    if (e != OK)
        free(q);
    return e;
}

bool resolver_next(struct resolver *r, struct resolved *out)
{
    uint64_t count;
    if (read(r->fd, &count, sizeof count) < 0) {
        /* Nothing new since the last time, but something may be left. */
    }
    pthread_mutex_lock(&r->lock);
    struct question *q = r->answered;
    if (q) {
        r->answered = q->next;
        r->questions--;
    }
    pthread_mutex_unlock(&r->lock);
    if (!q)
        return false;
    *out = q->answer;
    free(q);
    return true;
}
