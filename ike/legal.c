/* Which payloads a message must, may and must not hold (RFC 7296 sections 1.2 to 1.4), as table rows. */
#include "ike/payload.h"

#define B(name) PAYLOAD_BIT(PAYLOAD_##name)
#define ALWAYS (B(NOTIFY) | B(VENDOR))
#define CERTS (B(CERT) | B(CERTREQ))
#define CHILD (B(SA) | B(TSI) | B(TSR))
/* Beside an error notify there may be whatever succeeded all the same (section 2.21.2), or nothing. */
#define ANYTHING (~(B(SK) | B(SKF)))

struct row {
    uint8_t exchange;
    bool response;
    bool error; /* the row is for messages with an error notify, or in IKE_SA_INIT with COOKIE */
    uint32_t must, may;
};

/* Several rows of one exchange and direction are alternatives: a message is legal when one of them fits. */
static const struct row rows[] = {
    /* No request has a row for errors: there an error notify means nothing and is ignored (section 3.10.1). */
    {EXCHANGE_SA_INIT, false, false, B(SA) | B(KE) | B(NONCE), ALWAYS | B(CERTREQ)},
    {EXCHANGE_SA_INIT, true, false, B(SA) | B(KE) | B(NONCE), ALWAYS | B(CERTREQ)},
    {EXCHANGE_SA_INIT, true, true, B(NOTIFY), ANYTHING},

    /* With a Child SA, and childless. */
    {EXCHANGE_AUTH, false, false, B(IDI) | CHILD, B(AUTH) | B(IDR) | B(CP) | CERTS | ALWAYS},
    {EXCHANGE_AUTH, false, false, B(IDI), B(AUTH) | B(IDR) | B(CP) | CERTS | ALWAYS},
    {EXCHANGE_AUTH, true, false, B(IDR) | B(AUTH) | CHILD, B(CP) | CERTS | ALWAYS},
    {EXCHANGE_AUTH, true, false, B(IDR) | B(AUTH), B(CP) | CERTS | ALWAYS},
    {EXCHANGE_AUTH, true, true, B(NOTIFY), ANYTHING},

    /* A Child SA, new or rekeyed; and the rekey of the IKE SA, where a key exchange is mandatory (section 2.18). */
    {EXCHANGE_CREATE_CHILD_SA, false, false, CHILD | B(NONCE), B(KE) | B(CP) | ALWAYS},
    {EXCHANGE_CREATE_CHILD_SA, false, false, B(SA) | B(NONCE) | B(KE), ALWAYS},
    {EXCHANGE_CREATE_CHILD_SA, true, false, CHILD | B(NONCE), B(KE) | B(CP) | ALWAYS},
    {EXCHANGE_CREATE_CHILD_SA, true, false, B(SA) | B(NONCE) | B(KE), ALWAYS},
    {EXCHANGE_CREATE_CHILD_SA, true, true, B(NOTIFY), ANYTHING},

    {EXCHANGE_INFORMATIONAL, false, false, 0, ANYTHING},
    {EXCHANGE_INFORMATIONAL, true, false, 0, ANYTHING},
};

/* Section 3.1: what the header of an IKE_SA_INIT message has to look like. */
static bool initial_header_legal(const struct ike_header *h, bool response, bool error)
{
    if (h->message_id != 0 || !(h->flags & IKE_FLAG_INITIATOR) != response)
        return false;
    if (!response)
        return h->spi_r == 0;
    return error || h->spi_r != 0; /* COOKIE and errors come without an SA */
}

static bool row_fits(const struct row *r, uint32_t seen, bool error)
{
    return error >= r->error && (seen & r->must) == r->must && (seen & ~(r->must | r->may)) == 0;
}

enum err ike_message_legal(const struct ike_message *m)
{
    bool response = m->h.flags & IKE_FLAG_RESPONSE;
    bool initial = m->h.exchange == EXCHANGE_SA_INIT;
    bool error = ike_find_error(m) || (initial && ike_find_notify(m, NOTIFY_COOKIE));
    uint32_t seen = m->seen;
    if (m->h.spi_i == 0)
        return ERR_SYNTAX;
    if (initial && !initial_header_legal(&m->h, response, error))
        return ERR_SYNTAX;
    if (!initial) {
        if (!m->opened || !(seen & B(SK)))
            return ERR_SYNTAX;
        seen &= ~B(SK);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].exchange == m->h.exchange && rows[i].response == response && row_fits(&rows[i], seen, error))
            return OK;
    return ERR_SYNTAX;
}
