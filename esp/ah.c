/* Sealing and opening with AH (RFC 4302 sections 3.3 and 3.4): what of it differs from ESP. */
#include <string.h>

#include "esp/ah_impl.h"

#define FRAGMENTED 0x3fff /* of IPv4: more fragments follow, or an offset */

enum ah_at { AH_NEXT = 0, AH_LENGTH = 1, AH_SPI = 4, AH_SEQ = 8 };

/* The family of the headers in front of AH. */
static uint8_t family_of(const uint8_t *headers)
{
    return headers[0] >> 4;
}

/*
 * The packet as the MAC reads it, beginning with its frozen headers: the ICV is 0 there, and the high half of an extended
 * sequence number follows. The IV of AES-GMAC, which stands where other ICVs begin, is read as it is: only what RFC 4543
 * section 4 calls the ICV counts as such.
 */
static void describe(const struct sa *sa, uint8_t *headers, uint32_t head, uint32_t len, uint64_t seq, uint8_t *icv,
                     struct transform_op *op)
{
    const struct suite *s = &sa->params.suite;
    op->aad = headers;
    op->aad_len = (uint16_t)(head + AH_FIXED);
    op->iv = headers + op->aad_len;
    op->src = op->dst = headers + op->aad_len + s->iv_len;
    op->len = len - op->aad_len - s->iv_len;
    op->icv = icv;
    op->tail_len = 0;
    op->ok = false;
    memset(op->dst, 0, s->icv_len);
    if (sa->params.esn) {
        put_be32(headers + len, (uint32_t)(seq >> 32));
        op->len += AH_SCRATCH;
    }
}

/* -- sealing -- */

/* What of a batch has to be put back when the MACs have been computed, and what goes in then. */
struct sealing {
    struct transform_op ops[TRANSFORM_BATCH];
    uint8_t headers[TRANSFORM_BATCH][AH_HEAD_MAX], icv[TRANSFORM_BATCH][TRANSFORM_ICV_MAX];
};

/* Writes AH in front of the payload (section 2), saves the headers before it, and freezes them. */
static bool frame(struct sa *sa, const struct esp_packet *p, uint64_t seq, uint8_t saved[AH_HEAD_MAX],
                  uint8_t icv[TRANSFORM_ICV_MAX], struct transform_op *op)
{
    uint32_t more = ah_len(&sa->params.suite, p->family), next_at;
    uint8_t *ah = p->data - more, *headers = ah - p->head;
    memset(ah, 0, more); /* its padding, too */
    ah[AH_NEXT] = p->next_header;
    ah[AH_LENGTH] = (uint8_t)(more / 4 - 2);
    put_be32(ah + AH_SPI, sa->params.spi);
    put_be32(ah + AH_SEQ, (uint32_t)seq);
    if (sa->params.suite.counter_iv)
        put_be64(ah + AH_FIXED, seq);
    memcpy(saved, headers, p->head);
    describe(sa, headers, p->head, p->head + more + p->len, seq, icv, op);
    return ah_freeze(headers, p->head, &next_at);
}

enum err ah_seal(struct sa *sa, struct esp_packet *v, unsigned n)
{
    const struct suite *s = &sa->params.suite;
    struct sealing b;
    bool sound = true;
    for (unsigned i = 0; i < n; i++)
        sound = v[i].head <= AH_HEAD_MAX && frame(sa, &v[i], ++sa->seq, b.headers[i], b.icv[i], &b.ops[i]) && sound;
    if (!sound || keyed_seal(sa->keyed, b.ops, n) != OK)
        return ERR_CRYPTO;
    for (unsigned i = 0; i < n; i++) {
        uint32_t more = ah_len(s, v[i].family);
        v[i].data -= more;
        v[i].len += more;
        memcpy(v[i].data - v[i].head, b.headers[i], v[i].head);
        memcpy(v[i].data + AH_FIXED + s->iv_len, b.icv[i], s->icv_len);
        v[i].verdict = OK;
    }
    return OK;
}

/* -- opening -- */

static bool lengths_agree(const uint8_t *headers, uint32_t head, uint32_t len)
{
    if (family_of(headers) == 4)
        return head >= OUTER_IPV4 && get_be16(headers + 2) == head + len;
    return family_of(headers) == 6 && head >= OUTER_IPV6 && get_be16(headers + 4) + (uint32_t)OUTER_IPV6 == head + len;
}

bool ah_sound(const struct sa *sa, const struct esp_packet *p)
{
    const uint8_t *headers = p->data - p->head;
    if (p->head > UINT16_MAX - AH_FIXED || p->len < AH_FIXED || !lengths_agree(headers, p->head, p->len))
        return false;
    /* Neither a shorter ICV than was negotiated nor more padding than is due (sections 2.6, 3.3.3.2.1). */
    uint32_t more = ah_len(&sa->params.suite, family_of(headers));
    if (p->len < more || p->data[AH_LENGTH] != more / 4 - 2)
        return false;
    /* Section 3.4.1: what looks like a fragment is none of AH's. */
    return family_of(headers) == 6 || !(get_be16(headers + 6) & FRAGMENTED);
}

bool ah_prepare(const struct sa *sa, struct esp_packet *p, uint64_t seq, struct transform_op *op)
{
    const struct suite *s = &sa->params.suite;
    uint32_t len = p->head + p->len, next_at;
    memcpy(p->dst, p->data - p->head,
           len); /* where it is delivered from; what was received keeps the headers as they are */
    describe(sa, p->dst, p->head, len, seq, p->data + AH_FIXED + s->iv_len, op);
    return ah_freeze(p->dst, p->head, &next_at) && p->dst[next_at] == AH_PROTOCOL;
}

uint8_t *ah_payload(const struct sa *sa, const struct esp_packet *p, uint32_t *len, uint8_t *next)
{
    uint32_t more = ah_len(&sa->params.suite, family_of(p->dst));
    *len = p->len - more;
    *next = p->data[AH_NEXT];
    return p->dst + p->head + more;
}
