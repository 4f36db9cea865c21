#include "core/base/escape.h"

#include <stdarg.h>
#include <stdio.h>

struct text text_of(char *buffer, size_t size)
{
    if (size > 0)
        buffer[0] = '\0';
    return (struct text){buffer, size};
}

void text_add(struct text *t, const char *fmt, ...)
{
    va_list args;
    if (t->left < 2)
        return;
    va_start(args, fmt);
    int n = vsnprintf(t->at, t->left, fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < t->left ? (size_t)n : t->left - 1;
    t->at += used;
    t->left -= used;
}

void text_escape(struct text *t, struct span bytes, const char *special)
{
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t c = bytes.data[i];
        if (c < 0x20 || c > 0x7e)
            text_add(t, "\\x%02x", c);
        else
            text_add(t, strchr(special, c) ? "\\%c" : "%c", c);
    }
}

void text_hex(struct text *t, struct span bytes)
{
    text_add(t, "0x");
    for (size_t i = 0; i < bytes.len; i++)
        text_add(t, "%02x", bytes.data[i]);
}

bool is_printable(struct span bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        if (bytes.data[i] < 0x20 || bytes.data[i] > 0x7e)
            return false;
    return true;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool equal_ignoring_case(struct span a, struct span b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.data[i]) != lower(b.data[i]))
            return false;
    return true;
}
