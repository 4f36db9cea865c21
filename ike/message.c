#include "ike/internal.h"

/* A fresh one, of as many bytes as the suite takes. */
static void make_iv(void *ctx, uint8_t iv[TRANSFORM_IV_MAX])
{
    struct ike_sa *sa = ctx;
    if (sa->suite.counter_iv) /* unique by construction: it never goes back under one key */
        put_be64(iv, sa->iv++);
    else
        random_fill(&sa->e->env.random, iv, TRANSFORM_IV_MAX);
}

static void message_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange, bool response, uint32_t id)
{
    struct ike_header h = {
        .spi_i = sa->spi_i,
        .spi_r = sa->spi_r,
        .version = 0x20,
        .exchange = exchange,
        .flags = (uint8_t)((sa->initiator ? IKE_FLAG_INITIATOR : 0) | (response ? IKE_FLAG_RESPONSE : 0)),
        .message_id = id,
    };
    uint8_t iv[TRANSFORM_IV_MAX];
    make_iv(sa, iv);
    ike_begin(b, sa->e->out, IKE_MESSAGE_MAX, &h);
    ike_begin_sk(b, &sa->suite, span_of(iv, sa->suite.iv_len));
}

static size_t longest(const struct ike_sa *sa, const struct path *path)
{
    return sa->fragmentation ? fragment_room(path, sa->e->limits.datagram) : SIZE_MAX;
}

/* What the message in b becomes: fragments, if it is longer than max. Errors: FULL, CRYPTO, NOMEM. */
static enum err seal(struct ike_sa *sa, struct ike_builder *b, size_t max, struct buf *flight)
{
    struct fragment_sealer f = {
        .suite = &sa->suite,
        .key = sa->seal,
        .max = max,
        .iv = make_iv,
        .ctx = sa,
    };
    return fragment_seal(b, &f, flight);
}

void flight_send(struct ike_engine *e, const struct path *path, struct span flight)
{
    while (flight.len)
        e->env.send(e->env.ctx, path, flight_next(&flight));
}

void request_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange)
{
    message_begin(sa, b, exchange, false, sa->tx.next);
}

void request_again(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange)
{
    message_begin(sa, b, exchange, false, sa->tx.next - 1);
}

void request_transmit(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct path paths[MOBIKE_PATHS];
    unsigned tries = sa->tx.tries < RETRANSMIT_TRIES ? sa->tx.tries : RETRANSMIT_TRIES;
    unsigned n = mobike_paths(sa, paths);
    if (sa->current && sa->current->kind == TASK_PROBE)
        probe_again(sa);
    sa->last_out = e->now;
    timer_set(&e->timers, &sa->retransmit, e->now + msgid_wait(tries, &e->env.random));
    for (unsigned i = 0; i < n; i++)
        flight_send(e, &paths[i], buf_span(&sa->tx.flight));
}

/* Our next request, which waits for its answer from now on. False: there was none to be made, and the SA is gone. */
static bool request_seal(struct ike_sa *sa, struct ike_builder *b, size_t max)
{
    enum err err = seal(sa, b, max, &sa->tx.flight);
    if (err != OK && sa_connecting(sa)) {
        sa_fail(sa, "a request to %s could not be made: %s", sa_peer_name(sa),
                err == ERR_FULL ? "it is too long (our certificates?)" : err_text(err));
        return false;
    }
    if (err != OK) {
        sa_lost(sa, "IKE SA with %s: a request could not be made: %s", sa_peer_name(sa), err_text(err));
        return false;
    }
    msgid_request(&sa->tx);
    sa->mobike.spread = sa->mobike.probed = false;
    return true;
}

void request_send(struct ike_sa *sa, struct ike_builder *b)
{
    if (request_seal(sa, b, longest(sa, &sa->path)))
        request_transmit(sa);
}

bool request_send_whole(struct ike_sa *sa, struct ike_builder *b)
{
    struct ike_engine *e = sa->e;
    if (!request_seal(sa, b, SIZE_MAX))
        return false;
    sa->last_out = e->now;
    timer_set(&e->timers, &sa->retransmit, e->now + msgid_wait(0, &e->env.random));
    e->env.send_whole(e->env.ctx, &sa->path, buf_span(&sa->tx.flight));
    return true;
}

void reply_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange)
{
    message_begin(sa, b, exchange, true, sa->rx.expected);
}

void reply_send(struct ike_sa *sa, struct ike_builder *b)
{
    struct ike_engine *e = sa->e;
    struct buf *flight = msgid_flight(&sa->rx, sa->rx.expected);
    enum err err = seal(sa, b, longest(sa, &sa->rx.path), flight);
    if (err != OK) {
        sa_lost(sa, "IKE SA with %s: an answer could not be made: %s", sa_peer_name(sa), err_text(err));
        return;
    }
    msgid_answer(&sa->rx);
    if (msgid_due(&sa->rx) && !sa->due) {
        sa->due = true;
        sa->due_next = e->due;
        e->due = sa;
    }
    sa->last_out = e->now;
    flight_send(e, &sa->rx.path, buf_span(flight));
}

void put_window(struct ike_sa *sa, struct ike_builder *b)
{
    const struct peer *peer = sa_peer(sa);
    uint8_t size[4];
    if (!peer || peer->window <= sa->rx.window || msgid_widen(&sa->rx, peer->window) != OK)
        return;
    put_be32(size, sa->rx.window);
    ike_put_notify(b, PROTOCOL_NONE, span_of(NULL, 0), NOTIFY_SET_WINDOW_SIZE, span_of(size, sizeof size));
}

void reply_notify(struct ike_sa *sa, uint8_t exchange, uint8_t protocol, struct span spi, uint16_t type,
                  struct span data)
{
    struct ike_builder b;
    reply_begin(sa, &b, exchange);
    ike_put_notify(&b, protocol, spi, type, data);
    reply_send(sa, &b);
}

void request_expired(struct ike_sa *sa)
{
    char to[ENDPOINT_TEXT], why[SILENCE_TEXT];
    endpoint_format(&sa->path.remote, to);
    switch (sa->state) {
    case SA_CONNECTING:
        sa_init_expired(sa);
        break;
    case SA_AUTH_SENT:
        sa_fail(sa, "%s at %s does not answer IKE_AUTH: %s", sa_peer_name(sa), to, sa_silence(sa, why, sizeof why));
        break;
    default:
        rekey_settle(sa);
        sa_lost(sa, "IKE SA with %s is down: %s does not answer", sa_peer_name(sa), to);
    }
}

/* Whether an SA in this state listens to that exchange. */
static bool state_allows(const struct ike_sa *sa, uint8_t exchange, bool response)
{
    switch (sa->state) {
    case SA_HALF_OPEN:
        return exchange == EXCHANGE_AUTH && !response;
    case SA_AUTH_SENT:
        return exchange == EXCHANGE_AUTH && response;
    case SA_UP:
    case SA_REPLACED:
    case SA_DELETING:
        return exchange == EXCHANGE_CREATE_CHILD_SA || exchange == EXCHANGE_INFORMATIONAL;
    default:
        return false;
    }
}

static void handle_request(struct ike_sa *sa, const struct ike_message *m)
{
    switch (m->h.exchange) {
    case EXCHANGE_AUTH:
        auth_request(sa, m);
        break;
    case EXCHANGE_CREATE_CHILD_SA:
        create_request(sa, m);
        break;
    case EXCHANGE_INFORMATIONAL:
        informational_request(sa, m);
        break;
    }
}

/* What the peer finds malformed ends the SA at both ends, without a Delete (section 2.21.3). */
static bool fatal(const struct ike_sa *sa, const struct ike_message *m)
{
    return (sa->state == SA_UP || sa->state == SA_REPLACED) && ike_find_notify(m, NOTIFY_INVALID_SYNTAX);
}

static void handle_response(struct ike_sa *sa, const struct ike_message *m)
{
    if (fatal(sa, m)) {
        sa_lost(sa, "IKE SA with %s is down: the peer answers a request with INVALID_SYNTAX", sa_peer_name(sa));
        return;
    }
    switch (sa->current->kind) {
    case TASK_CONNECT:
        auth_response(sa, m);
        break;
    case TASK_CHILD_NEW:
    case TASK_CHILD_REKEY:
        create_response(sa, m);
        break;
    case TASK_IKE_REKEY:
        rekey_response(sa, m);
        break;
    case TASK_CHILD_DELETE:
    case TASK_IKE_DELETE:
    case TASK_LIVENESS:
        informational_response(sa, m);
        break;
    case TASK_PROBE:
        probe_response(sa);
        break;
    case TASK_UPDATE:
    case TASK_ANNOUNCE:
    case TASK_ROUTABLE:
        mobike_response(sa, m);
        break;
    }
}

/* An authentic request that can't be read: the answer says so, and a malformed one ends the SA (section 2.21). */
static void refuse_request(struct ike_sa *sa, const struct ike_message *m, enum err err)
{
    struct span none = span_of(NULL, 0);
    if (err == ERR_CRITICAL) {
        reply_notify(sa, m->h.exchange, PROTOCOL_NONE, none, NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD,
                     span_of(&m->critical, 1));
        return;
    }
    reply_notify(sa, m->h.exchange, PROTOCOL_NONE, none, NOTIFY_INVALID_SYNTAX, none);
    if (sa->state == SA_HALF_OPEN)
        sa_refused(sa);
    else
        sa_lost(sa, "IKE SA with %s is down: it sent a malformed request", sa_peer_name(sa));
}

/* Serves the request whose turn it is. What it holds is parsed only now: it may have waited. */
static void serve(struct ike_sa *sa, const struct path *path, struct ike_message *m, enum err err, struct span text)
{
    msgid_accept(&sa->rx, path);
    sa_follow(sa, path, false);
    if (err == OK)
        err = ike_inner_parse(m->sk_first, text, m);
    if (err == OK)
        err = ike_message_legal(m);
    if (err == OK)
        handle_request(sa, m);
    else
        refuse_request(sa, m, err);
}

static void input_request(struct ike_sa *sa, const struct path *path, struct ike_message *m, enum err err,
                          struct span text)
{
    if (m->h.message_id == sa->rx.expected) {
        fragments_free(&sa->request_parts); /* of the same message, if it has come whole besides */
        serve(sa, path, m, err, text);
    } else if (msgid_hold(&sa->rx, m, path, err, text) != OK) {
        drop(sa->e, STAT_DROP_IKE_LIMIT); /* it will come again */
    }
}

void held_serve(struct ike_engine *e)
{
    for (struct ike_sa *sa; (sa = e->due) != NULL;) {
        e->due = sa->due_next;
        sa->due = false; /* its answer to this one puts it back, if more wait */
        if (sa->state == SA_DEAD || !msgid_due(&sa->rx))
            continue;
        struct held_request *r = msgid_take(&sa->rx);
        struct ike_message m = {.h = r->h, .seen = PAYLOAD_BIT(PAYLOAD_SK), .sk_first = r->first};
        serve(sa, &r->path, &m, r->err, buf_span(&r->text));
        held_free(r);
    }
}

/* An authentic answer that can't be read ends the SA, and the peer is told (sections 2.21.2 and 2.21.3). */
static void refuse_response(struct ike_sa *sa, enum err err)
{
    if (sa->state != SA_DELETING)
        informational_farewell(sa, NOTIFY_INVALID_SYNTAX);
    if (sa_connecting(sa))
        sa_fail(sa, "%s sent a malformed answer: %s", sa_peer_name(sa), err_text(err));
    else
        sa_lost(sa, "IKE SA with %s is down: it sent a malformed answer: %s", sa_peer_name(sa), err_text(err));
}

static void input_response(struct ike_sa *sa, const struct path *path, struct ike_message *m, enum err err,
                           struct span text)
{
    sa_follow(sa, path, false);
    timer_cancel(&sa->e->timers, &sa->retransmit);
    msgid_done(&sa->tx);
    fragments_free(&sa->response_parts);
    mobike_arrived(sa, path);
    if (err == OK)
        err = ike_inner_parse(m->sk_first, text, m);
    if (err == OK)
        err = ike_message_legal(m);
    if (err == OK)
        handle_response(sa, m);
    else
        refuse_response(sa, err);
}

/* The kept answer again, to where the retransmission came from (sections 2.1 and 2.11). */
static void answer_again(struct ike_sa *sa, const struct path *path, uint32_t id)
{
    drop(sa->e, STAT_IKE_REPLAYED);
    if (sa->unproven) { /* it can't have answered what we have asked of it since */
        sa->answered = sa->e->now;
        sa->tx.tries = 0;
    }
    flight_send(sa->e, path, buf_span(msgid_flight(&sa->rx, id)));
}

/* Whether a message, whole or a fragment, has a place in this SA now; counts it if not. */
static bool wanted(struct ike_sa *sa, const struct ike_message *m, bool response, enum msgid_verdict verdict)
{
    bool repeat = verdict == MSGID_REPEAT;
    if (!m->sk_offset || !sa->open || (!repeat && !state_allows(sa, m->h.exchange, response))) {
        drop(sa->e, STAT_DROP_IKE_STATE);
        return false;
    }
    if (!repeat && verdict != MSGID_FRESH) {
        drop(sa->e, STAT_DROP_IKE_MSGID);
        return false;
    }
    if (!(m->seen & PAYLOAD_BIT(PAYLOAD_SKF)))
        return true;
    /*
     * Of what was answered, the first fragment alone asks for the answer again (RFC 7383 section 2.6.1). Of requests to
     * come only the next is put together: one set bounds the memory, and the others are sent again.
     */
    const struct fragments *set = response ? sa->response_parts : repeat ? NULL : sa->request_parts;
    bool turn = response || (repeat ? m->fragment == 1 : m->h.message_id == sa->rx.expected);
    if (sa->fragmentation && turn && fragment_wanted(set, m))
        return true;
    drop(sa->e, STAT_DROP_IKE_FRAGMENT);
    return false;
}

/* Keeps an authentic fragment. True when the message is complete: m and text are then of the whole. */
static bool collect(struct ike_sa *sa, struct ike_message *m, enum err err, struct span *text)
{
    struct fragments **set = m->h.flags & IKE_FLAG_RESPONSE ? &sa->response_parts : &sa->request_parts;
    if (err == OK)
        err = fragment_keep(set, m, *text, sa->e->now);
    if (err != OK) {
        drop(sa->e, err == ERR_SYNTAX ? STAT_DROP_IKE_SYNTAX : STAT_DROP_IKE_LIMIT);
        return false;
    }
    return fragments_join(set, sa->e->in, m, text);
}

static enum msgid_verdict judge(struct ike_sa *sa, const struct ike_message *m, bool response)
{
    uint32_t id = m->h.message_id;
    if (!response)
        return msgid_judge(&sa->rx, id);
    return msgid_awaited(&sa->tx, id) && sa->tx.flight.data[18] == m->h.exchange ? MSGID_FRESH : MSGID_OUTSIDE;
}

void sa_input(struct ike_sa *sa, const struct path *path, struct span message, struct ike_message *m)
{
    struct ike_engine *e = sa->e;
    struct span text = span_of(NULL, 0);
    bool response = m->h.flags & IKE_FLAG_RESPONSE;
    if (m->h.exchange == EXCHANGE_SA_INIT) {
        if (response && sa->state == SA_CONNECTING)
            sa_init_response(sa, path, message, m);
        else
            drop(e, STAT_DROP_IKE_STATE);
        return;
    }
    enum msgid_verdict verdict = judge(sa, m, response);
    if (!wanted(sa, m, response, verdict))
        return;
    enum err err = ike_open_sk(e->in, m, &sa->suite, sa->open, &text);
    if (err != OK && err != ERR_SYNTAX) {
        drop(e, STAT_DROP_IKE_AUTH);
        return;
    }
    if (verdict == MSGID_REPEAT) {
        answer_again(sa, path, m->h.message_id);
        return;
    }
    if (m->fragments && !collect(sa, m, err, &text))
        return;
    sa->last_in = e->now;
    sa->unanswered = 0;
    bool proof = sa->unproven;
    if (response)
        input_response(sa, path, m, err, text);
    else
        input_request(sa, path, m, err, text);
    if (proof && sa->state == SA_UP)
        sa_proven(sa);
}
