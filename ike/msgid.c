#include "ike/msgid.h"

enum msgid_verdict msgid_judge(const struct msgid_in *in, uint32_t id, struct span message)
{
    bool same = span_equal(buf_span(&in->request), message) && message.len > 0;
    if (id == in->expected)
        return !in->busy ? MSGID_FRESH : same ? MSGID_BUSY : MSGID_OUTSIDE;
    /*
     * A retransmission is bit-identical (RFC 7296 section 2.1). To answer anything else under that number would let
     * whoever can guess two SPIs have us send packets.
     */
    if (!in->busy && in->expected > 0 && id == in->expected - 1 && same && in->response.len)
        return MSGID_REPEAT;
    return MSGID_OUTSIDE;
}

enum err msgid_accept(struct msgid_in *in, struct span message, const struct path *path)
{
    TRY(buf_set(&in->request, message));
    in->path = *path;
    in->busy = true;
    return OK;
}

enum err msgid_answer(struct msgid_in *in, struct span response)
{
    TRY(buf_set(&in->response, response));
    in->expected++;
    in->busy = false;
    return OK;
}

enum err msgid_request(struct msgid_out *out, struct span request)
{
    TRY(buf_set(&out->request, request));
    out->next++;
    out->tries = 0;
    out->pending = true;
    return OK;
}

bool msgid_awaited(const struct msgid_out *out, uint32_t id)
{
    return out->pending && id == out->next - 1;
}

void msgid_done(struct msgid_out *out)
{
    out->pending = false;
    buf_free(&out->request);
}

ns_t msgid_wait(unsigned tries, const struct random_source *rnd)
{
    ns_t wait = RETRANSMIT_FIRST << (tries < 16 ? tries : 16);
    uint32_t r;
    random_fill(rnd, &r, sizeof r);
    return wait + wait / 10 * (r % 1000) / 1000;
}

void msgid_free(struct msgid_in *in, struct msgid_out *out)
{
    buf_free(&in->request);
    buf_free(&in->response);
    buf_free(&out->request);
}
