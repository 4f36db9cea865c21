#include "test/unit/impostor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "impostor: %s\n", what);
    abort();
}

static void unhex(const char *text, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        must(sscanf(text + 2 * i, "%2x", &v) == 1, "a key in hexadecimal");
        out[i] = (uint8_t)v;
    }
}

static bool keys_of(struct sim *s, uint64_t spi_i, uint64_t spi_r, bool initiator, uint8_t key[IMPOSTOR_KEY])
{
    char spis[40];
    snprintf(spis, sizeof spis, "%016llx,%016llx", (unsigned long long)spi_i, (unsigned long long)spi_r);
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < s->node[k].keylogs; i++)
            if (!strncmp(s->node[k].keylog[i], spis, 33)) {
                unhex(s->node[k].keylog[i] + 34 + (initiator ? 0 : 41), key, IMPOSTOR_KEY);
                return true;
            }
    return false;
}

bool impostor_keys(struct sim *s, const uint8_t *message, uint8_t key[IMPOSTOR_KEY])
{
    return keys_of(s, get_be64(message), get_be64(message + 8), message[19] & IKE_FLAG_INITIATOR, key);
}

static enum sim_fate overhear(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct impostor *c = ctx;
    (void)s;
    if (p->keepalive || p->from == c->as || c->n == IMPOSTOR_SEEN)
        return SIM_DROP;
    must(p->len <= sizeof c->seen[0].data, "a message of moderate length");
    struct span text;
    uint8_t *data = c->seen[c->n].data;
    struct ike_message *m = &c->seen[c->n].m;
    memcpy(data, p->data, p->len);
    c->seen[c->n].len = p->len;
    c->seen[c->n].path = (struct path){.local = p->dst, .remote = p->src, .marker = p->marker};
    if (ike_message_parse(span_of(data, p->len), m) == OK && get_be64(p->data) == c->spi_i &&
        ike_open_sk(data, m, &c->suite, c->open, &text) == OK && m->fragments == 0)
        must(ike_inner_parse(m->sk_first, text, m) == OK, "an answer that can be read");
    memcpy(data, p->data, p->len); /* as it was on the wire; what was parsed is not for looking into bytes */
    c->n++;
    return SIM_DROP;
}

static void find_sa(void *ctx, const struct ike_sa_info *info)
{
    struct impostor *c = ctx;
    if (info->state != IKE_ESTABLISHED)
        return;
    c->spi_i = info->spi_i;
    c->spi_r = info->spi_r;
    c->initiator = info->initiator;
    c->path = (struct path){.local = info->path.remote, .remote = info->path.local, .marker = info->path.marker};
}

struct impostor *impostor_start(struct sim *s, unsigned as)
{
    struct impostor *c = calloc(1, sizeof *c);
    struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128};
    uint8_t own[IMPOSTOR_KEY], other[IMPOSTOR_KEY];
    must(c != NULL, "memory");
    c->s = s;
    c->as = as;
    c->iv = UINT64_C(1) << 40; /* far from what the engine has used */
    ike_each_sa(s->node[as].e, find_sa, c);
    must(c->spi_i && keys_of(s, c->spi_i, c->spi_r, c->initiator, own) &&
             keys_of(s, c->spi_i, c->spi_r, !c->initiator, other),
         "an established SA and its keys");
    must(suite_of(&gcm, NULL, &c->suite) == OK, "the suite");
    must(keyed_new(&c->seal, &c->suite, TRANSFORM_SEAL, NULL, span_of(own, sizeof own), span_of(NULL, 0)) == OK &&
             keyed_new(&c->open, &c->suite, TRANSFORM_OPEN, NULL, span_of(other, sizeof other), span_of(NULL, 0)) == OK,
         "both keys");
    s->hook = overhear;
    s->hook_ctx = c;
    return c;
}

void impostor_end(struct impostor *c)
{
    c->s->hook = NULL;
    keyed_free(c->seal);
    keyed_free(c->open);
    free(c);
}

size_t impostor_make(struct impostor *c, uint8_t *out, size_t cap, uint8_t exchange, uint8_t flags, uint32_t id,
                     uint8_t first, struct span chain, uint16_t number, uint16_t total)
{
    struct ike_header h = {.spi_i = c->spi_i,
                           .spi_r = c->spi_r,
                           .version = 0x20,
                           .exchange = exchange,
                           .flags = (uint8_t)(flags | (c->initiator ? IKE_FLAG_INITIATOR : 0)),
                           .message_id = id};
    struct ike_builder b;
    uint8_t iv[8];
    size_t len = 0;
    put_be64(iv, c->iv++);
    ike_begin(&b, out, cap, &h);
    if (number || total)
        ike_begin_skf(&b, &c->suite, number, total, span_of(iv, sizeof iv));
    else
        ike_begin_sk(&b, &c->suite, span_of(iv, sizeof iv));
    b.w.start[b.sk_at] = first;
    write_span(&b.w, chain);
    must(ike_finish_sk(&b, &c->suite, c->seal, &len) == OK, "a message that fits");
    return len;
}

void impostor_inject(struct impostor *c, const uint8_t *message, size_t len)
{
    sim_inject(c->s, 1 - c->as, &c->path, span_of(message, len));
}

void impostor_send(struct impostor *c, uint8_t exchange, uint8_t flags, uint32_t id, uint8_t first, struct span chain,
                   uint16_t number, uint16_t total)
{
    static uint8_t out[IKE_MESSAGE_MAX];
    impostor_inject(c, out, impostor_make(c, out, sizeof out, exchange, flags, id, first, chain, number, total));
}
