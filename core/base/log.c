#include "core/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX 1024 /* bytes of a line's text before escaping; what is longer ends in "..." */
#define LINE_MAX_LEN (6 * TEXT_MAX + 256)
#define LIMIT_EVERY NS_PER_S

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* Level and format in one word, so that a reload changes both at once. */
static _Atomic unsigned setting = LOG_INFO | LOG_TEXT << 8;

void log_setup(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&setting, (unsigned)level | (unsigned)format << 8, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (unsigned)level <= (atomic_load_explicit(&setting, memory_order_relaxed) & 0xff);
}

enum err log_level_parse(const char *text, enum log_level *out)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return OK;
        }
    }
    return ERR_SYNTAX;
}

/* Anything that could move a terminal's cursor, end a line or turn its direction is not for printing. */
static bool printable(uint32_t c)
{
    return c >= 0xa0 && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff) && !(c >= 0x2028 && c <= 0x202e) &&
           !(c >= 0x2066 && c <= 0x2069);
}

/* Bytes of the printable UTF-8 sequence of two to four bytes at s; 0 when there is none (RFC 3629 section 3). */
static size_t utf8_len(const uint8_t *s, size_t left)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > left)
        return 0;
    uint32_t c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    return c >= lowest[n] && printable(c) ? n : 0;
}

struct line {
    char text[LINE_MAX_LEN];
    size_t len;
};

/* The worst case fits: five bytes for each one of the text, and the frame around it. */
static void put(struct line *l, const char *s, size_t n)
{
    if (n > sizeof l->text - l->len)
        n = sizeof l->text - l->len;
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_escaped(struct line *l, const char *s, bool json)
{
    static const char hex[] = "0123456789abcdef";
    size_t left = strlen(s);
    const uint8_t *p = (const uint8_t *)s;
    while (left) {
        size_t n = *p >= 0x80 ? utf8_len(p, left) : *p >= 0x20 && *p < 0x7f;
        if (n == 0) {
            const char code[] = {'\\', '\\', 'x', hex[*p >> 4], hex[*p & 15]};
            put(l, code + !json, sizeof code - !json);
            n = 1;
        } else {
            if (json && (*p == '"' || *p == '\\'))
                put(l, "\\", 1);
            put(l, (const char *)p, n);
        }
        p += n;
        left -= n;
    }
}

static void put_time(struct line *l)
{
    ns_t now = clock_wall();
    time_t seconds = (time_t)(now / NS_PER_S);
    struct tm tm;
    char date[24], stamp[40];
    if (!gmtime_r(&seconds, &tm) || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        return;
    int n = snprintf(stamp, sizeof stamp, "%s.%03uZ", date, (unsigned)(now % NS_PER_S / NS_PER_MS));
    put(l, stamp, (size_t)n);
}

static void put_string(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

static void emit(enum log_level level, const char *room, const char *text)
{
    struct line l;
    l.len = 0;
    if (atomic_load_explicit(&setting, memory_order_relaxed) >> 8 == LOG_JSON) {
        put_string(&l, "{\"time\":\"");
        put_time(&l);
        put_string(&l, "\",\"level\":\"");
        put_string(&l, level_names[level]);
        put_string(&l, "\",\"room\":\"");
        put_escaped(&l, room, true);
        put_string(&l, "\",\"text\":\"");
        put_escaped(&l, text, true);
        put_string(&l, "\"}\n");
    } else {
        put_string(&l, level_names[level]);
        put_string(&l, " ");
        put_escaped(&l, room, false);
        put_string(&l, ": ");
        put_escaped(&l, text, false);
        put_string(&l, "\n");
    }
    /* One write a line, so that lines of several threads don't mix. A full pipe loses lines rather than block us. */
    ssize_t n;
    do
        n = write(STDERR_FILENO, l.text, l.len);
    while (n < 0 && errno == EINTR);
}

static void format(char text[TEXT_MAX], const char *fmt, va_list args) PRINTF_LIKE(2, 0);

static void format(char text[TEXT_MAX], const char *fmt, va_list args)
{
    int n = vsnprintf(text, TEXT_MAX, fmt, args);
    if (n < 0)
        text[0] = '\0';
    else if (n >= TEXT_MAX)
        memcpy(text + TEXT_MAX - 4, "...", 4);
}

void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    int saved = errno; /* a log line between a failed call and its report must not change the reason */
    char text[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    format(text, fmt, args);
    va_end(args);
    emit(level, room, text);
    errno = saved;
}

/* Takes a token; a zeroed struct is a full bucket. */
static bool limit_take(struct log_limit *l, ns_t now)
{
    if (l->last == 0) {
        l->tokens = LOG_LIMIT_BURST;
        l->last = now;
    }
    ns_t earned = now > l->last ? (now - l->last) / LIMIT_EVERY : 0;
    if (earned >= LOG_LIMIT_BURST - l->tokens) {
        l->tokens = LOG_LIMIT_BURST;
        l->last = now;
    } else {
        l->tokens += (unsigned)earned;
        l->last += earned * LIMIT_EVERY;
    }
    if (l->tokens == 0) {
        l->held++;
        return false;
    }
    l->tokens--;
    return true;
}

void log_limited(struct log_limit *l, enum log_level level, const char *room, const char *fmt, ...)
{
    if (!log_enabled(level) || !limit_take(l, clock_now()))
        return;
    int saved = errno;
    char text[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    format(text, fmt, args);
    va_end(args);
    if (l->held) {
        char note[48];
        int n = snprintf(note, sizeof note, " (%u lines like this held back)", l->held);
        size_t len = strlen(text);
        if (len > TEXT_MAX - 1 - (size_t)n)
            len = TEXT_MAX - 1 - (size_t)n;
        memcpy(text + len, note, (size_t)n + 1);
        l->held = 0;
    }
    emit(level, room, text);
    errno = saved;
}
