#include "ike/internal.h"

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
    if (sa->suite.counter_iv) /* unique by construction: it never goes back under one key */
        put_be64(iv, sa->iv++);
    else
        random_fill(&sa->e->env.random, iv, sizeof iv);
    ike_begin(b, sa->e->out, IKE_MESSAGE_MAX, &h);
    ike_begin_sk(b, &sa->suite, span_of(iv, sa->suite.iv_len));
}

void request_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange)
{
    message_begin(sa, b, exchange, false, sa->tx.next);
}

void request_transmit(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    sa->last_out = e->now;
    timer_set(&e->timers, &sa->retransmit, e->now + msgid_wait(sa->tx.tries, &e->env.random));
    e->env.send(e->env.ctx, &sa->path, buf_span(&sa->tx.request));
}

void request_send(struct ike_sa *sa, struct ike_builder *b)
{
    size_t len;
    enum err err = ike_finish_sk(b, &sa->suite, sa->seal, &len);
    if (err == OK)
        err = msgid_request(&sa->tx, span_of(sa->e->out, len));
    if (err != OK) {
        sa_lost(sa, "IKE SA with %s: a request could not be made: %s", sa_peer_name(sa), err_text(err));
        return;
    }
    request_transmit(sa);
}

void reply_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange)
{
    message_begin(sa, b, exchange, true, sa->rx.expected);
}

void reply_send(struct ike_sa *sa, struct ike_builder *b)
{
    struct ike_engine *e = sa->e;
    size_t len;
    enum err err = ike_finish_sk(b, &sa->suite, sa->seal, &len);
    if (err == OK)
        err = msgid_answer(&sa->rx, span_of(e->out, len));
    if (err != OK) {
        sa_lost(sa, "IKE SA with %s: an answer could not be made: %s", sa_peer_name(sa), err_text(err));
        return;
    }
    sa->last_out = e->now;
    e->env.send(e->env.ctx, &sa->rx.path, buf_span(&sa->rx.response));
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
    char to[ENDPOINT_TEXT];
    endpoint_format(&sa->path.remote, to);
    switch (sa->state) {
    case SA_CONNECTING:
        sa_init_expired(sa);
        break;
    case SA_AUTH_SENT:
        sa_fail(sa, "%s at %s does not answer IKE_AUTH (is UDP port %u open on the way?)", sa_peer_name(sa), to,
                sa->path.remote.port);
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

static void handle_response(struct ike_sa *sa, const struct ike_message *m)
{
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

static void input_request(struct ike_sa *sa, const struct path *path, struct span raw, struct ike_message *m,
                          enum err err)
{
    if (msgid_accept(&sa->rx, raw, path) != OK)
        return; /* it will come again */
    sa_follow(sa, path);
    if (err == OK)
        err = ike_message_legal(m);
    if (err == OK)
        handle_request(sa, m);
    else
        refuse_request(sa, m, err);
}

static void input_response(struct ike_sa *sa, const struct path *path, struct ike_message *m, enum err err)
{
    sa_follow(sa, path);
    timer_cancel(&sa->e->timers, &sa->retransmit);
    msgid_done(&sa->tx);
    if (err == OK)
        err = ike_message_legal(m);
    if (err == OK)
        handle_response(sa, m);
    else if (sa_connecting(sa))
        sa_fail(sa, "%s sent a malformed answer: %s", sa_peer_name(sa), err_text(err));
    else
        sa_lost(sa, "IKE SA with %s is down: it sent a malformed answer: %s", sa_peer_name(sa), err_text(err));
}

/* The kept answer again, to where the retransmission came from (sections 2.1 and 2.11). */
static void answer_again(struct ike_sa *sa, const struct path *path)
{
    drop(sa->e, STAT_IKE_REPLAYED);
    sa->e->env.send(sa->e->env.ctx, path, buf_span(&sa->rx.response));
}

void sa_input(struct ike_sa *sa, const struct path *path, struct span message, struct ike_message *m)
{
    struct ike_engine *e = sa->e;
    bool response = m->h.flags & IKE_FLAG_RESPONSE;
    if (m->h.exchange == EXCHANGE_SA_INIT) {
        if (response && sa->state == SA_CONNECTING)
            sa_init_response(sa, path, message, m);
        else
            drop(e, STAT_DROP_IKE_STATE);
        return;
    }
    if (!response && msgid_judge(&sa->rx, m->h.message_id, message) == MSGID_REPEAT) {
        answer_again(sa, path);
        return;
    }
    if (!m->sk_offset || !sa->open || !state_allows(sa, m->h.exchange, response)) {
        drop(e, STAT_DROP_IKE_STATE);
        return;
    }
    bool wanted = response ? msgid_awaited(&sa->tx, m->h.message_id) && sa->tx.request.data[18] == m->h.exchange
                           : msgid_judge(&sa->rx, m->h.message_id, message) == MSGID_FRESH;
    if (!wanted) {
        drop(e, STAT_DROP_IKE_MSGID);
        return;
    }
    enum err err = ike_open_sk(e->in, m, &sa->suite, sa->open);
    if (err != OK && err != ERR_SYNTAX && err != ERR_CRITICAL) {
        drop(e, STAT_DROP_IKE_AUTH);
        return;
    }
    sa->last_in = e->now;
    sa->unanswered = 0;
    if (response)
        input_response(sa, path, m, err);
    else
        input_request(sa, path, message, m, err);
}
