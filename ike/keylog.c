/* Key export in the format of Wireshark's ikev2_decryption_table. */
#include <stdio.h>

#include "ike/internal.h"

#define LINE_MAX_LEN 2048

/* Wireshark's names for what it can decrypt; it has none for ChaCha20-Poly1305, and one bad line spoils its table. */
static const char *encr_name(const struct transform *t, char *text, size_t size)
{
    if (t->id == ENCR_AES_CBC)
        snprintf(text, size, "AES-CBC-%u [RFC3602]", t->key_bits);
    else if (t->id == ENCR_AES_GCM_16)
        snprintf(text, size, "AES-GCM-%u with 16 octet ICV [RFC5282]", t->key_bits);
    else
        return NULL;
    return text;
}

static const char *integ_name(const struct transform *t)
{
    switch (t->id) {
    case INTEG_HMAC_SHA2_256_128:
        return "HMAC_SHA2_256_128 [RFC4868]";
    case INTEG_HMAC_SHA2_384_192:
        return "HMAC_SHA2_384_192 [RFC4868]";
    case INTEG_HMAC_SHA2_512_256:
        return "HMAC_SHA2_512_256 [RFC4868]";
    default:
        return "NONE [RFC4306]";
    }
}

static void put_text(struct writer *w, const char *text)
{
    write_bytes(w, text, strlen(text));
}

static void put_hex(struct writer *w, const uint8_t *data, size_t len)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        write_u8(w, (uint8_t)digit[data[i] >> 4]);
        write_u8(w, (uint8_t)digit[data[i] & 15]);
    }
}

static void put_secret(struct writer *w, const struct secret *s)
{
    put_text(w, ",");
    put_hex(w, s->b, s->len);
}

void keylog(const struct ike_sa *sa)
{
    char line[LINE_MAX_LEN], name[64];
    uint8_t spi[8];
    struct writer w = writer_of(line, sizeof line);
    const struct ike_keys *k = sa->keys;
    if (!sa->e->env.keylog || !encr_name(&sa->suite.encr, name, sizeof name))
        return;
    put_be64(spi, sa->spi_i);
    put_hex(&w, spi, sizeof spi);
    put_text(&w, ",");
    put_be64(spi, sa->spi_r);
    put_hex(&w, spi, sizeof spi);
    put_secret(&w, &k->ei); /* with the salt, as SK_ei is derived */
    put_secret(&w, &k->er);
    put_text(&w, ",\"");
    put_text(&w, name);
    put_text(&w, "\"");
    put_secret(&w, &k->ai);
    put_secret(&w, &k->ar);
    put_text(&w, ",\"");
    put_text(&w, integ_name(&sa->suite.integ));
    put_text(&w, "\"");
    write_u8(&w, 0);
    if (!w.failed)
        sa->e->env.keylog(sa->e->env.ctx, line);
    secret_wipe(line, sizeof line);
}
