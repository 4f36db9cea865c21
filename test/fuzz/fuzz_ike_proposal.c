/* SA payloads: what is chosen is within what we have, and what we answer with is what was chosen. */
#include <string.h>

#include "crypto/secret.h"
#include "ike/proposal.h"
#include "test/fuzz/fuzz.h"

static const struct {
    const char *text;
    enum protocol_id protocol;
} configurations[] = {
    {"default", PROTOCOL_IKE},
    {"aes256gcm16-prfsha384-ecp384", PROTOCOL_IKE},
    {"aes256-aes128-sha256-sha512-modp2048-ecp256, chacha20poly1305-prfsha512-x25519", PROTOCOL_IKE},
    {"default", PROTOCOL_ESP},
    {"aes128-sha256-x25519-noesn, aes128gcm16-esn", PROTOCOL_ESP},
    {"aes128gmac-aes256gcm16iiv-aes192ccm8-esn, aes128ctr-aesxcbc-sha1", PROTOCOL_ESP},
};
#define CONFIGURATIONS (sizeof configurations / sizeof *configurations)

static struct proposals ours[CONFIGURATIONS];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    char why[200];
    FUZZ_CHECK(crypto_init() == OK);
    for (size_t i = 0; i < CONFIGURATIONS; i++)
        FUZZ_CHECK(proposals_parse(configurations[i].text, configurations[i].protocol, &ours[i], why, sizeof why) ==
                   OK);
    return 0;
}

static struct span body_of(struct ike_builder *b)
{
    size_t len, head = IKE_HEADER_LEN + 4;
    FUZZ_CHECK(ike_finish(b, &len) == OK && len >= head);
    return span_of(b->w.start + head, len - head);
}

size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    static uint8_t message[8192];
    struct ike_header h = {.exchange = EXCHANGE_SA_INIT};
    struct ike_builder b;
    if (i >= CONFIGURATIONS)
        return 0;
    bool esp = configurations[i].protocol == PROTOCOL_ESP;
    ike_begin(&b, message, sizeof message, &h);
    proposal_put_offer(&b, &ours[i], 0xc0ffee01, esp ? 4 : i == 1 ? 8 : 0);
    struct span body = body_of(&b);
    FUZZ_CHECK(body.len <= cap);
    memcpy(out, body.data, body.len);
    return body.len;
}

static bool ours_has(const struct proposals *list, const struct transform *t)
{
    if (t->type == 0 || ((t->type == TRANSFORM_INTEG || t->type == TRANSFORM_KE) && t->id == 0))
        return true;
    for (unsigned i = 0; i < list->n; i++)
        for (unsigned k = 0; k < list->v[i].n; k++)
            if (list->v[i].t[k].type == t->type && list->v[i].t[k].id == t->id &&
                list->v[i].t[k].key_bits == t->key_bits)
                return true;
    return false;
}

static bool same(const struct transform *a, const struct transform *b)
{
    return a->type == b->type && a->id == b->id && a->key_bits == b->key_bits;
}

static void check_choice(const struct choice *c, const struct proposals *list, bool with_ke)
{
    struct suite s;
    struct proposal shown;
    char text[200];
    FUZZ_CHECK(choice_suite(c, &s) == OK);
    FUZZ_CHECK(ours_has(list, &c->encr) && ours_has(list, &c->prf) && ours_has(list, &c->integ));
    FUZZ_CHECK(ours_has(list, &c->ke) && ours_has(list, &c->esn));
    FUZZ_CHECK(c->number > 0 && c->encr.type == TRANSFORM_ENCR && (with_ke || c->ke.type == 0));
    if (c->protocol == PROTOCOL_IKE)
        FUZZ_CHECK(c->ke.id != KE_NONE &&
                   algorithm_encrypts_ike(algorithm_find(c->encr.type, c->encr.id, c->encr.key_bits)) &&
                   c->prf.type == TRANSFORM_PRF);
    choice_proposal(c, &shown);
    FUZZ_CHECK(strlen(proposal_format(&shown, text, sizeof text)) > 0);
}

/* Our answer, read as an offer of that one proposal, is the same choice again. */
static void check_answer(const struct choice *c, const struct proposals *list, bool with_ke)
{
    uint8_t message[400];
    struct ike_header h = {.exchange = EXCHANGE_SA_INIT};
    struct ike_builder b;
    struct choice numbered = *c, again;
    numbered.number = 1;
    ike_begin(&b, message, sizeof message, &h);
    proposal_put_answer(&b, &numbered, c->spi, c->spi_len);
    struct span body = body_of(&b);
    FUZZ_CHECK(proposal_choose(body, list, KE_NONE, with_ke, &again, NULL, 0) == OK);
    FUZZ_CHECK(again.spi == c->spi && again.spi_len == c->spi_len && again.protocol == c->protocol);
    FUZZ_CHECK(same(&again.encr, &c->encr) && same(&again.prf, &c->prf) && same(&again.integ, &c->integ));
    FUZZ_CHECK(same(&again.ke, &c->ke) && same(&again.esn, &c->esn));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct span sa = span_of(data, len);
    for (size_t i = 0; i < CONFIGURATIONS; i++) {
        for (int with_ke = 0; with_ke < 2; with_ke++) {
            struct choice c;
            char why[64];
            enum err e = proposal_choose(sa, &ours[i], KE_ECP_256, with_ke, &c, why, sizeof why);
            FUZZ_CHECK(e == OK || e == ERR_SYNTAX || e == ERR_MISMATCH);
            if (e == OK) {
                check_choice(&c, &ours[i], with_ke);
                check_answer(&c, &ours[i], with_ke);
            }
            if (proposal_accept(sa, &ours[i], with_ke, &c) == OK)
                check_choice(&c, &ours[i], with_ke);
        }
    }
    return 0;
}
