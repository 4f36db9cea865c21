/* The values of the ini file: each parser complains by itself, with what was found and what was expected. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/key.h"
#include "policy/config_internal.h"
#include "policy/spelling.h"

static const char *shown(const char *value)
{
    return *value ? value : "nothing";
}

bool value_word(struct loading *l, unsigned line, const char *value, const char *const *words, unsigned *out)
{
    char list[96] = "";
    for (unsigned i = 0; words[i]; i++) {
        if (strcmp(value, words[i]) == 0) {
            *out = i;
            return true;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
    }
    complain(l, line, "found '%s', expected %s", shown(value), list);
    return false;
}

/* Decimal digits and nothing else, up to max. */
static bool take_decimal(const char *text, size_t len, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (text[i] < '0' || text[i] > '9' || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return len > 0;
}

bool value_number_or(struct loading *l, unsigned line, const char *value, const char *words, unsigned min, unsigned max,
                     unsigned *out)
{
    uint64_t n;
    if (!take_decimal(value, strlen(value), max, &n) || n < min) {
        complain(l, line, "found '%s', expected %sa number from %u to %u", shown(value), words, min, max);
        return false;
    }
    *out = (unsigned)n;
    return true;
}

bool value_number(struct loading *l, unsigned line, const char *value, unsigned min, unsigned max, unsigned *out)
{
    return value_number_or(l, line, value, "", min, max, out);
}

bool value_duration(struct loading *l, unsigned line, const char *value, bool off, ns_t *out)
{
    const char *expected =
        off ? "a duration such as 30s, 5m, 1h or 1d, or 'no'" : "a duration such as 30s, 5m, 1h or 1d";
    const uint64_t day = 24 * 60 * 60, longest = 366 * day;
    size_t len = strlen(value);
    uint64_t n, unit;
    if (off && strcmp(value, "no") == 0) {
        *out = 0;
        return true;
    }
    if (take_decimal(value, len, longest, &n)) {
        complain(l, line, "found '%s' without a unit, expected %s", value, expected);
        return false;
    }
    char last = len > 0 ? value[len - 1] : '\0';
    unit = last == 's' ? 1 : last == 'm' ? 60 : last == 'h' ? 60 * 60 : last == 'd' ? day : 0;
    if (unit == 0 || !take_decimal(value, len - 1, longest / unit, &n) || n == 0) {
        complain(l, line, "found '%s', expected %s", shown(value), expected);
        return false;
    }
    *out = n * unit * NS_PER_S;
    return true;
}

bool value_size(struct loading *l, unsigned line, const char *value, unsigned kilo, uint64_t *out)
{
    static const char units[] = "KMGT";
    size_t len = strlen(value);
    uint64_t n, factor = 1;
    const char *unit = len > 0 ? strchr(units, value[len - 1]) : NULL;
    if (unit) {
        len--;
        for (const char *u = units; u <= unit; u++)
            factor *= kilo;
    }
    if (!take_decimal(value, len, (UINT64_C(1) << 62) / factor, &n) || n == 0) {
        complain(l, line, "found '%s', expected a size such as 500, 10M or 1G", shown(value));
        return false;
    }
    *out = n * factor;
    return true;
}

/* The text between the quotes. False: there are none; a lone or an inner quote is complained about with len 0. */
static bool quoted(const char *value, const char **text, size_t *len)
{
    size_t n = strlen(value);
    if (value[0] != '"')
        return false;
    bool good = n >= 2 && value[n - 1] == '"' && !memchr(value + 1, '"', n - 2);
    *text = value + 1;
    *len = good ? n - 2 : 0;
    return true;
}

/* Plain text, or text in quotes. */
bool value_text(struct loading *l, unsigned line, const char *value, char *out, size_t size)
{
    const char *text = value;
    size_t len = strlen(value);
    if (quoted(value, &text, &len) && len == 0) {
        complain(l, line, "found quotes with nothing in them, or quotes that don't match, expected \"text\"");
        return false;
    }
    if (len == 0 || len >= size) {
        complain(l, line, "found %s, expected a text of at most %zu bytes", len ? "a longer text" : "nothing",
                 size - 1);
        return false;
    }
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

bool value_identity(struct loading *l, unsigned line, const char *value, struct identity *out)
{
    char text[IDENTITY_TEXT];
    if (!value_text(l, line, value, text, sizeof(text)))
        return false;
    enum err e = identity_parse(text, out);
    if (e == ERR_UNSUPPORTED)
        complain(l, line, "found '%s', expected a DN of the attributes C, ST, L, O, OU, CN and emailAddress", text);
    else if (e != OK)
        complain(l, line, "found '%s', expected an address, a host name, user@host, keyid:… or a DN such as C=…, CN=…",
                 text);
    return e == OK;
}

/* The text of a selector's CIDR, where it is one with host bits. */
static void warn_of_host_bits(struct loading *l, unsigned line, const char *item, size_t len)
{
    char text[PREFIX_TEXT], network[RANGE_TEXT];
    struct prefix p;
    size_t n = 0;
    while (n < len && item[n] != '[' && item[n] != ' ' && item[n] != '\t')
        n++;
    if (n >= sizeof(text))
        return;
    memcpy(text, item, n);
    text[n] = '\0';
    if (prefix_parse(text, &p) != OK || !prefix_has_host_bits(&p))
        return;
    struct ip_range r = prefix_range(&p);
    warn(l, line, "'%s' has bits set behind its prefix length: taken as %s", text, range_format(&r, network));
}

static void check_selectors(struct loading *l, unsigned line, const char *value, const struct selectors *list)
{
    for (unsigned i = 0; i < list->n; i++) {
        const struct selector *s = &list->v[i];
        char text[SELECTOR_TEXT];
        if ((s->range.first.family == 6 && s->proto == 1) || (s->range.first.family == 4 && s->proto == 58))
            complain(l, line, "found '%s', expected [%s] with IPv%u", selector_format(s, text),
                     s->proto == 1 ? "icmpv6" : "icmp", s->range.first.family);
    }
    while (*value) {
        value += strspn(value, " \t,");
        size_t len = strcspn(value, ",");
        warn_of_host_bits(l, line, value, len);
        value += len;
    }
}

bool value_selectors(struct loading *l, unsigned line, const char *value, struct selectors *out)
{
    char at[SELECTOR_TEXT] = "";
    enum err e = selectors_parse(value, out, at, sizeof(at));
    if (e == ERR_FULL)
        complain(l, line, "found more than %d networks, expected more policies with fewer", SELECTORS_MAX);
    else if (e == ERR_RANGE)
        complain(l, line, "found '%s' with a number out of range, expected CIDR or CIDR[proto/port]", at);
    else if (e != OK && strpbrk(at, " \t"))
        complain(l, line, "found '%s', expected commas between the items of a list", at);
    else if (e != OK)
        complain(l, line, "found '%s', expected CIDR or CIDR[proto/port], such as 10.1.0.0/24 or 10.1.0.5[tcp/443]",
                 shown(at));
    else
        check_selectors(l, line, value, out);
    return e == OK;
}

bool value_proposals(struct loading *l, unsigned line, const char *value, enum protocol_id p, struct proposals *out)
{
    char why[200] = "";
    if (proposals_parse(value, p, out, why, sizeof(why)) == OK)
        return true;
    complain(l, line, "%s", why);
    return false;
}

/* -- secrets: their text never appears in a message -- */

/* What is wrong with a file as an object of the file system; NULL: nothing. */
static const char *file_fault(const struct stat *st, bool secret)
{
    if (!S_ISREG(st->st_mode))
        return "is not a file";
    if (secret && st->st_mode & (S_IRGRP | S_IROTH))
        return "can be read by others than its owner: chmod 600 it";
    if (secret && st->st_mode & (S_IWGRP | S_IWOTH))
        return "can be written by others than its owner: chmod 600 it";
    return NULL;
}

/* The content without its newline. Two bytes more than a secret may have tell an over-long one. */
static bool read_secret(struct loading *l, unsigned line, int fd, const char *path, struct secret *out)
{
    char text[SECRET_INLINE + 3];
    size_t used = 0;
    ssize_t n;
    while (used < sizeof(text) && (n = read(fd, text + used, sizeof(text) - used)) > 0)
        used += (size_t)n;
    if (used > 0 && text[used - 1] == '\n')
        used--;
    if (used > 0 && text[used - 1] == '\r')
        used--;
    bool good = used > 0 && secret_set(out, span_of(text, used)) == OK;
    if (!good)
        complain(l, line, "found %s in secret file %s, expected 1 to %d bytes", used ? "too much" : "nothing", path,
                 SECRET_INLINE);
    secret_wipe(text, sizeof(text));
    return good;
}

#define PATH_TEXT 600

/* Opens a file that a value names; its path is for messages. -1: not, and complained. */
static int open_named(struct loading *l, unsigned line, const char *name, bool secret, char path[PATH_TEXT])
{
    const char *kind = secret ? "secret file" : "file";
    struct stat st;
    snprintf(path, PATH_TEXT, "%s%s", name[0] == '/' ? "" : l->folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        complain(l, line, "%s %s can't be read: %s", kind, path, strerror(errno));
    else if (file_fault(&st, secret))
        complain(l, line, "%s %s %s", kind, path, file_fault(&st, secret));
    else
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool secret_from_file(struct loading *l, unsigned line, const char *name, struct secret *out)
{
    char path[PATH_TEXT];
    int fd = open_named(l, line, name, true, path);
    if (fd < 0)
        return false;
    bool good = read_secret(l, line, fd, path, out);
    close(fd);
    return good;
}

bool value_file(struct loading *l, unsigned line, const char *name, bool secret, char **text, size_t *len)
{
    char path[PATH_TEXT];
    int fd = open_named(l, line, name, secret, path);
    if (fd < 0)
        return false;
    enum err e = read_file(fd, text, len);
    if (e != OK)
        complain(l, line, "file %s can't be read: %s", path,
                 e == ERR_SYSTEM  ? strerror(errno)
                 : e == ERR_RANGE ? "too large"
                                  : err_text(e));
    close(fd);
    return e == OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode_hex(const char *text, size_t len, struct secret *out)
{
    if (len == 0 || len % 2 != 0 || len / 2 > SECRET_INLINE)
        return false;
    for (size_t i = 0; i < len; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->b[i / 2] = (uint8_t)(high << 4 | low);
    }
    out->len = (uint16_t)(len / 2);
    return true;
}

static bool decode_base64(const char *text, struct secret *out)
{
    size_t len = 0;
    if (base64_decode(text, strlen(text), out->b, sizeof(out->b), &len) != OK || len == 0)
        return false;
    out->len = (uint16_t)len;
    return true;
}

bool value_secret(struct loading *l, unsigned line, const char *value, struct secret *out)
{
    const char *text;
    size_t len;
    if (strncmp(value, "file:", 5) == 0)
        return secret_from_file(l, line, value + 5 + strspn(value + 5, " "), out);
    if (l->inline_secret == 0)
        l->inline_secret = line;
    if (quoted(value, &text, &len)) {
        if (len > 0 && secret_set(out, span_of(text, len)) == OK)
            return true;
        complain(l, line, "found quotes with nothing in them, or quotes that don't match, expected \"text\"");
    } else if (strncmp(value, "0x", 2) == 0) {
        if (decode_hex(value + 2, strlen(value + 2), out))
            return true;
        complain(l, line, "found 0x with something else than pairs of hex digits, expected 1 to %d bytes",
                 SECRET_INLINE);
    } else if (strncmp(value, "base64:", 7) == 0) {
        if (decode_base64(value + 7, out))
            return true;
        complain(l, line, "found base64: with something else than base64, expected 1 to %d bytes", SECRET_INLINE);
    } else {
        complain(l, line, "found %s, expected file:PATH, \"text\", 0x… or base64:…",
                 *value ? "a secret without quotes" : "nothing");
    }
    return false;
}

/* -- endpoints -- */

static bool is_host_name(const char *name, size_t len)
{
    bool letter = false;
    if (len == 0 || len > 253 || name[0] == '.' || name[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alpha && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
        if (c == '.' && i > 0 && name[i - 1] == '.')
            return false;
        letter = letter || alpha;
    }
    return letter;
}

/* "[v6]:port", "v4:port", "name:port" and each without its port, to host and port (NULL: none). */
static bool split_endpoint(char *text, char **host, char **port)
{
    char *colon = strrchr(text, ':');
    *host = text;
    *port = NULL;
    if (text[0] == '[') {
        char *end = strchr(text, ']');
        if (!end || (end[1] != '\0' && end[1] != ':'))
            return false;
        *host = text + 1;
        *port = end[1] ? end + 2 : NULL;
        *end = '\0';
    } else if (colon && strchr(text, ':') == colon) { /* several: an IPv6 address as it is */
        *port = colon + 1;
        *colon = '\0';
    }
    return true;
}

bool value_endpoint(struct loading *l, unsigned line, const char *value, struct peer_endpoint *out)
{
    char text[300], *host, *port;
    struct ip ip = {0};
    uint64_t number = IKE_PORT;
    snprintf(text, sizeof(text), "%s", value);
    bool good = strlen(value) < sizeof(text) && split_endpoint(text, &host, &port);
    bool literal = good && ip_parse(host, &ip) == OK;
    if (good && text[0] == '[')
        good = literal && ip.family == 6;
    if (!good || (!literal && !is_host_name(host, strlen(host))) || (literal && ip_is_any(&ip))) {
        complain(l, line,
                 "found '%s', expected an address, a host name or %%any, perhaps with a port: host:port, [v6]:port",
                 shown(value));
        return false;
    }
    if (port && (!take_decimal(port, strlen(port), UINT16_MAX, &number) || number == 0)) {
        complain(l, line, "found '%s' as a port, expected a number from 1 to 65535", port);
        return false;
    }
    if (!literal)
        memcpy(out->host, host, strlen(host) + 1);
    out->at.ip = ip;
    out->at.port = (uint16_t)number;
    return true;
}
