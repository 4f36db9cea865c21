/*
 * The control socket: one JSON object per line each way, for the owner of the daemon and root only. A client has one
 * request at a time; the next line is read when its answer has left. Lines, clients and idle time are bounded.
 */
#ifndef ADIT_CONTROL_H
#define ADIT_CONTROL_H

#include <jansson.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/loop.h"

#define CONTROL_LINE 4096 /* most bytes of a request */
#define CONTROL_CLIENTS 16
#define CONTROL_IDLE (10 * NS_PER_S) /* a client that says nothing, takes nothing and waits for nothing is closed */

struct control;
struct control_client;

struct control_handler {
    void *ctx;
    /* Ends with control_reply or control_stream, or with control_wait and a control_finish later. */
    void (*request)(void *ctx, struct control_client *c, const json_t *request);
};

/* Errors: EXISTS (another daemon answers there), SYSTEM, NOMEM; why gets a line. */
MUST_USE enum err control_open(struct control **out, struct loop *loop, const char *path,
                               const struct control_handler *h, char *why, size_t why_size);
void control_close(struct control *c); /* removes the socket's name; NULL is fine */

/* Takes over the reference to reply; NULL (no memory) closes the client. */
void control_reply(struct control_client *client, json_t *reply);
/*
 * A long answer, made as the client takes it: `more` appends the next piece (some KB at most), and sets *over with the
 * last one; an error closes the client. All clients together get a slice of each turn of the loop. release comes once,
 * after the last piece or when the client has gone.
 *
 * With `stop` it is one that goes on while there is something to tell: a piece may be empty, then it is asked again at
 * control_more; stop comes when the client wants no more. The
 * connection ends with it.
 */
struct control_source {
    void *ctx;
    enum err (*more)(void *ctx, struct buf *out, bool *over);
    void (*release)(void *ctx);
    void (*stop)(void *ctx);
};
void control_stream(struct control_client *client, const struct control_source *source);
void control_more(struct control_client *client);
/* Any text as JSON, also where it is no UTF-8. */
json_t *control_text(const char *text);
/* {"ok": ok, "text" or "error": text} */
void control_answer(struct control_client *client, bool ok, const char *text);
/* The answer to this client is the outcome of that command of the engine. */
void control_wait(struct control_client *client, uint64_t command);
/* May run within the engine, so a request behind that command is left to the next control_sweep. */
void control_finish(struct control *c, uint64_t command, bool ok, const char *text);

/* The same with any answer, which is taken over; also for several clients. */
void control_finish_reply(struct control *c, uint64_t command, json_t *reply);

/*
 * Between turns of the loop: handles requests that waited behind a command, frees clients that have gone or idled too
 * long. deadline: when to call it next.
 */
void control_sweep(struct control *c, ns_t now);
ns_t control_deadline(const struct control *c);

#endif
