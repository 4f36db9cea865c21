#include "core/capture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/daemon.h"
#include "core/pcapng.h"

#define PACKETS_AT_ONCE 16 /* made into blocks before others have their turn */

struct capture {
    struct capture *next, **at; /* of the daemon's */
    struct daemon *d;
    struct control_client *client;
    struct tap *tap;
    unsigned slot;      /* of the tap */
    uint64_t left;      /* packets still wanted; UINT64_MAX: no end */
    bool begun, ending; /* the first line is made; only what is in the rings follows */
};

/* No worker looks at it any more when this returns. */
static void untap(struct capture *c)
{
    struct taps *taps = &c->d->shared.taps;
    if (c->ending)
        return;
    c->ending = true;
    atomic_store(&taps->v[c->slot], NULL);
    atomic_fetch_sub(&taps->count, 1);
    epoch_wait(c->d->shared.epoch);
}

static enum err begin(struct capture *c, struct buf *out)
{
    static const char line[] = "{\"ok\":true,\"text\":\"pcapng follows\"}\n";
    char name[160];
    c->begun = true;
    snprintf(name, sizeof name, "adit %s, %s", c->tap->peer,
             c->tap->side == TAP_PLAIN ? "plain, inside the tunnel" : "wire, outside");
    TRY(buf_append(out, span_of(line, sizeof line - 1)));
    return pcapng_begin(out, name);
}

static enum err put_record(struct capture *c, struct buf *out, struct span record)
{
    struct tap_packet p;
    uint8_t headers[TAP_HEADERS];
    char comment[120];
    memcpy(&p, record.data, sizeof p);
    struct span bytes = span_of(record.data + sizeof p, record.len - sizeof p);
    const struct policy *policy = dataplane_policy(c->d->dataplane, p.policy_id);
    snprintf(comment, sizeof comment, "policy %s, SPI 0x%08x", policy ? policy->name : "-", p.spi);
    struct pcapng_packet packet = {
        .wall = p.wall,
        .in = p.in,
        .head = span_of(headers, tap_headers(&p, bytes, headers)),
        .data = bytes,
        .comment = comment,
    };
    enum err e = pcapng_packet(out, &packet);
    return e == ERR_RANGE ? OK : e; /* the headers would make it longer than any packet is */
}

static enum err put_packets(struct capture *c, struct buf *out, unsigned *n)
{
    struct span record;
    uint32_t type;
    for (unsigned i = 0; i < c->d->worker_count; i++) {
        struct ring *ring = c->tap->workers[i].ring;
        while (*n < PACKETS_AT_ONCE && c->left && ring_peek(ring, &type, &record)) {
            enum err e = put_record(c, out, record);
            ring_pop(ring);
            c->left -= c->left != UINT64_MAX;
            ++*n;
            if (e != OK)
                return e;
        }
    }
    return OK;
}

static enum err put_end(struct capture *c, struct buf *out)
{
    uint64_t seen = 0, lost = 0;
    for (unsigned i = 0; i < c->d->worker_count; i++) {
        seen += atomic_load(&c->tap->workers[i].seen);
        lost += atomic_load(&c->tap->workers[i].lost);
    }
    return pcapng_end(out, clock_wall(), seen, lost);
}

static enum err capture_more(void *ctx, struct buf *out, bool *over)
{
    struct capture *c = ctx;
    unsigned n = 0;
    if (!c->begun)
        return begin(c, out);
    TRY(put_packets(c, out, &n));
    if (!c->left)
        untap(c);
    *over = c->ending && n < PACKETS_AT_ONCE;
    return *over ? put_end(c, out) : OK;
}

static void capture_stop(void *ctx)
{
    untap(ctx);
}

static void capture_release(void *ctx)
{
    struct capture *c = ctx;
    untap(c);
    log_line(LOG_INFO, "audit", "%s capture ends", c->tap->peer);
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    tap_free(c->tap);
    free(c);
}

static enum err capture_new(struct daemon *d, const char *peer, enum tap_side side, struct capture **out)
{
    struct taps *taps = &d->shared.taps;
    unsigned slot = 0;
    while (slot < TAPS && atomic_load(&taps->v[slot]))
        slot++;
    if (slot == TAPS)
        return ERR_FULL;
    struct capture *c = calloc(1, sizeof *c);
    enum err e = c ? tap_new(&c->tap, peer, side, d->worker_count) : ERR_NOMEM;
    if (e != OK) {
        free(c);
        return e;
    }
    c->d = d;
    c->slot = slot;
    c->next = d->captures;
    c->at = &d->captures;
    if (c->next)
        c->next->at = &c->next;
    d->captures = c;
    *out = c;
    return OK;
}

void capture_request(struct daemon *d, struct control_client *client, const json_t *request)
{
    const char *peer = json_string_value(json_object_get(request, "peer"));
    const char *side = json_string_value(json_object_get(request, "side"));
    json_int_t count = json_integer_value(json_object_get(request, "count"));
    bool wire = side && strcmp(side, "wire") == 0;
    char text[160];
    if (!peer || !config_peer(d->config, peer)) {
        snprintf(text, sizeof text, "no peer is called \"%.100s\"", peer ? peer : "");
        control_answer(client, false, text);
        return;
    }
    struct capture *c;
    enum err e = capture_new(d, peer, wire ? TAP_WIRE : TAP_PLAIN, &c);
    if (e != OK) {
        control_answer(client, false, e == ERR_FULL ? "too many captures are running" : err_text(e));
        return;
    }
    c->client = client;
    c->left = count > 0 ? (uint64_t)count : UINT64_MAX;
    log_line(LOG_INFO, "audit", "%s capture of the %s side begins", peer, wire ? "wire" : "plain");
    atomic_store(&d->shared.taps.v[c->slot], c->tap);
    atomic_fetch_add(&d->shared.taps.count, 1);
    const struct control_source source = {
        .ctx = c, .more = capture_more, .release = capture_release, .stop = capture_stop};
    control_stream(client, &source);
}

void captures_turn(struct daemon *d)
{
    for (struct capture *c = d->captures, *next; c; c = next) {
        next = c->next;
        control_more(c->client);
    }
}
