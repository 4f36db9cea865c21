/* Key export in the format of Wireshark's ikev2_decryption_table. */
#include <stdio.h>

#include "ike/internal.h"

#define LINE_MAX_LEN 2048

/* What Wireshark's IKE dissector calls the algorithms that it knows, each with the length of the key where it has one. */
static const struct keylog_name {
    uint16_t id;
    const char *format;
} encr_names[] =
    {
        {ENCR_AES_CBC, "AES-CBC-%u [RFC3602]"},
        {ENCR_AES_CTR, "AES-CTR-%u [RFC5930]"},
        {ENCR_AES_CCM_8, "AES-CCM-%u with 8 octet ICV [RFC5282]"},
        {ENCR_AES_CCM_16, "AES-CCM-%u with 16 octet ICV [RFC5282]"},
        {ENCR_AES_GCM_8, "AES-GCM-%u with 8 octet ICV [RFC5282]"},
        {ENCR_AES_GCM_12, "AES-GCM-%u with 12 octet ICV [RFC5282]"},
        {ENCR_AES_GCM_16, "AES-GCM-%u with 16 octet ICV [RFC5282]"},
},
  integ_names[] = {
      {INTEG_NONE, "NONE [RFC4306]"},
      {INTEG_HMAC_SHA1_96, "HMAC_SHA1_96 [RFC2404]"},
      {INTEG_AES_XCBC_96, "ANY 96-bits of Authentication [No Checking]"},
      {INTEG_AES_CMAC_96, "ANY 96-bits of Authentication [No Checking]"},
      {INTEG_HMAC_SHA2_256_128, "HMAC_SHA2_256_128 [RFC4868]"},
      {INTEG_HMAC_SHA2_384_192, "HMAC_SHA2_384_192 [RFC4868]"},
      {INTEG_HMAC_SHA2_512_256, "HMAC_SHA2_512_256 [RFC4868]"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* False where it has none, as for ChaCha20-Poly1305: one bad line spoils its whole table. */
static bool name_of(const struct keylog_name *names, size_t n, const struct transform *t, char *text, size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (names[i].id == t->id) {
            snprintf(text, size, names[i].format, t->key_bits);
            return true;
        }
    return false;
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
    char line[LINE_MAX_LEN], encr[64], integ[64];
    uint8_t spi[8];
    struct writer w = writer_of(line, sizeof line);
    const struct ike_keys *k = sa->keys;
    if (!sa->e->env.keylog || !name_of(encr_names, COUNT(encr_names), &sa->suite.encr, encr, sizeof encr) ||
        !name_of(integ_names, COUNT(integ_names), &sa->suite.integ, integ, sizeof integ))
        return;
    put_be64(spi, sa->spi_i);
    put_hex(&w, spi, sizeof spi);
    put_text(&w, ",");
    put_be64(spi, sa->spi_r);
    put_hex(&w, spi, sizeof spi);
    put_secret(&w, &k->ei); /* with the salt, as SK_ei is derived */
    put_secret(&w, &k->er);
    put_text(&w, ",\"");
    put_text(&w, encr);
    put_text(&w, "\"");
    put_secret(&w, &k->ai);
    put_secret(&w, &k->ar);
    put_text(&w, ",\"");
    put_text(&w, integ);
    put_text(&w, "\"");
    write_u8(&w, 0);
    if (!w.failed)
        sa->e->env.keylog(sa->e->env.ctx, line);
    secret_wipe(line, sizeof line);
}
