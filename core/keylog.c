#include "core/keylog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/file.h"
#include "crypto/secret.h"

#define KEYLOG_LINE 1024

enum err keylog_open(struct keylog *k, const char *folder)
{
    *k = (struct keylog){-1, -1};
    TRY(file_folder(folder, 0700));
    TRY(file_append(folder, "ikev2_decryption_table", &k->ike_fd));
    enum err e = file_append(folder, "esp_sa", &k->esp_fd);
    if (e != OK)
        keylog_close(k);
    return e;
}

void keylog_close(struct keylog *k)
{
    if (k->ike_fd >= 0)
        close(k->ike_fd);
    if (k->esp_fd >= 0)
        close(k->esp_fd);
    *k = (struct keylog){-1, -1};
}

static void keylog_write(int fd, const char *line, size_t len)
{
    if (write(fd, line, len) != (ssize_t)len)
        log_line(LOG_WARN, "core", "keylog: write failed: %s", strerror(errno));
}

void keylog_ike(struct keylog *k, const char *line)
{
    if (k->ike_fd < 0)
        return;
    char out[KEYLOG_LINE];
    int n = snprintf(out, sizeof out, "%s\n", line);
    if (n > 0 && (size_t)n < sizeof out)
        keylog_write(k->ike_fd, out, (size_t)n);
    secret_wipe(out, sizeof out);
}

/* What Wireshark's ESP dissector calls the algorithms. */
struct keylog_name {
    uint16_t id;
    const char *name;
};

static const struct keylog_name encr_names[] = {
    {ENCR_NULL, "NULL"},
    {ENCR_AES_CBC, "AES-CBC [RFC3602]"},
    {ENCR_AES_CTR, "AES-CTR [RFC3686]"},
    {ENCR_AES_GCM_8, "AES-GCM with 8 octet ICV [RFC4106]"},
    {ENCR_AES_GCM_12, "AES-GCM with 12 octet ICV [RFC4106]"},
    {ENCR_AES_GCM_16, "AES-GCM with 16 octet ICV [RFC4106]"},
    {ENCR_CHACHA20_POLY1305, "ChaCha20 with Poly1305 [RFC7634]"},
};
static const struct keylog_name integ_names[] = {
    {INTEG_NONE, "NULL"},
    {INTEG_HMAC_SHA1_96, "HMAC-SHA-1-96 [RFC2404]"},
    {INTEG_AES_XCBC_96, "ANY 96 bit authentication [no checking]"},
    {INTEG_AES_CMAC_96, "ANY 96 bit authentication [no checking]"},
    {INTEG_HMAC_SHA2_256_128, "HMAC-SHA-256-128 [RFC4868]"},
    {INTEG_HMAC_SHA2_384_192, "HMAC-SHA-384-192 [RFC4868]"},
    {INTEG_HMAC_SHA2_512_256, "HMAC-SHA-512-256 [RFC4868]"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *keylog_name(const struct keylog_name *names, size_t n, uint16_t id)
{
    for (size_t i = 0; i < n; i++)
        if (names[i].id == id)
            return names[i].name;
    return NULL;
}

static void keylog_hex(struct span key, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "%s", key.len ? "0x" : "");
    for (size_t i = 0; i < key.len && n + 3 <= size; i++, n += 2)
        snprintf(out + n, size - n, "%02x", key.data[i]);
}

static void keylog_sa(struct keylog *k, const struct ike_child *c, const struct endpoint *from,
                      const struct endpoint *to, uint32_t spi, struct span key, struct span integ)
{
    char src[IP_TEXT] = "*", dst[IP_TEXT] = "*", key_hex[160], integ_hex[160], line[KEYLOG_LINE], ours[2][32];
    const bool ah = c->protocol == PROTOCOL_AH; /* Wireshark reads it as it is, and checks no ICV */
    const char *encr_name = ah ? "AH" : keylog_name(encr_names, COUNT(encr_names), c->suite.encr.id);
    const char *integ_name = keylog_name(integ_names, COUNT(integ_names), c->suite.integ.id);
    /* One bad line spoils the whole table: what Wireshark has no name for is a comment in it, for other readers. */
    const bool known = !ah && encr_name && integ_name;
    /* Our own side may not be known yet; Wireshark takes a star for any address. */
    if (!ip_is_any(&from->ip))
        ip_format(&from->ip, src);
    if (!ip_is_any(&to->ip))
        ip_format(&to->ip, dst);
    keylog_hex(key, key_hex, sizeof key_hex);
    keylog_hex(integ, integ_hex, sizeof integ_hex);
    int n = snprintf(line, sizeof line, "%s\"%s\",\"%s\",\"%s\",\"0x%08x\",\"%s\",\"%s\",\"%s\",\"%s\"\n",
                     known ? "" : "# ", c->path.remote.ip.family == 6 ? "IPv6" : "IPv4", src, dst, spi,
                     encr_name ? encr_name : transform_text(&c->suite.encr, ours[0], sizeof ours[0]), key_hex,
                     integ_name ? integ_name : transform_text(&c->suite.integ, ours[1], sizeof ours[1]), integ_hex);
    if (n > 0 && (size_t)n < sizeof line)
        keylog_write(k->esp_fd, line, (size_t)n);
    secret_wipe(key_hex, sizeof key_hex);
    secret_wipe(integ_hex, sizeof integ_hex);
    secret_wipe(line, sizeof line);
}

void keylog_child(struct keylog *k, const struct ike_child *c)
{
    if (k->esp_fd < 0)
        return;
    keylog_sa(k, c, &c->path.remote, &c->path.local, c->spi_in, c->key_in, c->integ_in);
    keylog_sa(k, c, &c->path.local, &c->path.remote, c->spi_out, c->key_out, c->integ_out);
}
