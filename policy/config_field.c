/* Keys that stand for one field of the host, a peer or a policy: their values are read and shown by one description. */
#include <stdlib.h>
#include <string.h>

#include "policy/config_internal.h"

/* -- reading -- */

static void set_number(const struct field *f, void *at, unsigned n)
{
    if (f->bytes == sizeof(uint8_t))
        *(uint8_t *)at = (uint8_t)n;
    else if (f->bytes == sizeof(uint16_t))
        *(uint16_t *)at = (uint16_t)n;
    else
        *(unsigned *)at = n;
}

static void read_number(const struct field *f, struct loading *l, const char *value, unsigned line, void *at)
{
    char words[32] = "";
    unsigned n = 0;
    if (f->kind == FIELD_NUMBER_OR)
        snprintf(words, sizeof words, "%s or ", f->zero);
    if ((f->kind == FIELD_NUMBER_OR && strcmp(value, f->zero) == 0) ||
        value_number_or(l, line, value, words, f->min, f->max, &n))
        set_number(f, at, n);
}

static void *field_of(const struct key *k, struct target *t)
{
    unsigned s = k->sections;
    void *of = s & SECTION_HOST ? (void *)t->host : s & SECTION_POLICY ? (void *)t->policy : (void *)t->peer;
    return (char *)of + k->field.at;
}

void field_read(const struct key *k, struct target *t, const char *value, unsigned line)
{
    const struct field *f = &k->field;
    void *at = field_of(k, t);
    unsigned n;
    switch (f->kind) {
    case FIELD_FLAG:
    case FIELD_WORD:
        if (value_word(t->load, line, value, f->words, &n))
            set_number(f, at, f->kind == FIELD_FLAG ? n == 0 : n);
        return;
    case FIELD_NUMBER:
    case FIELD_NUMBER_OR:
        read_number(f, t->load, value, line, at);
        return;
    case FIELD_DURATION:
    case FIELD_DURATION_OR:
        value_duration(t->load, line, value, f->kind == FIELD_DURATION_OR, at);
        return;
    case FIELD_SIZE:
        value_size(t->load, line, value, f->min, at);
        return;
    case FIELD_TEXT:
        value_text(t->load, line, value, at, f->bytes);
        return;
    case FIELD_PATH:
        value_path(t->load, line, value, at, f->bytes);
        return;
    case FIELD_NONE:
        return;
    }
}

/* -- showing -- */

static unsigned get_number(const struct field *f, const void *at)
{
    return f->bytes == sizeof(uint8_t)    ? *(const uint8_t *)at
           : f->bytes == sizeof(uint16_t) ? *(const uint16_t *)at
                                          : *(const unsigned *)at;
}

static void show_duration(ns_t time, char *text, size_t size)
{
    static const struct {
        unsigned seconds;
        char unit;
    } units[] = {{24 * 60 * 60, 'd'}, {60 * 60, 'h'}, {60, 'm'}, {1, 's'}};
    uint64_t seconds = (uint64_t)time / NS_PER_S;
    unsigned i = 0;
    while (seconds % units[i].seconds)
        i++;
    snprintf(text, size, "%llu%c", (unsigned long long)(seconds / units[i].seconds), units[i].unit);
}

static void show_size(uint64_t n, unsigned kilo, char *text, size_t size)
{
    static const char *const units[] = {"", "K", "M", "G", "T"};
    unsigned i = 0;
    for (; i < 4 && n % kilo == 0; i++)
        n /= kilo;
    snprintf(text, size, "%llu%s", (unsigned long long)n, units[i]);
}

static void show_field(const struct field *f, const void *at, char *text, size_t size)
{
    switch (f->kind) {
    case FIELD_FLAG:
    case FIELD_WORD:
        snprintf(text, size, "%s", f->words[f->kind == FIELD_FLAG ? !*(const bool *)at : get_number(f, at)]);
        return;
    case FIELD_NUMBER:
    case FIELD_NUMBER_OR:
        if (get_number(f, at) || !f->zero)
            snprintf(text, size, "%u", get_number(f, at));
        else
            snprintf(text, size, "%s", f->zero);
        return;
    case FIELD_DURATION:
    case FIELD_DURATION_OR:
        if (*(const ns_t *)at)
            show_duration(*(const ns_t *)at, text, size);
        else
            snprintf(text, size, "%s", f->zero);
        return;
    case FIELD_SIZE:
        if (*(const uint64_t *)at)
            show_size(*(const uint64_t *)at, f->min, text, size);
        else
            snprintf(text, size, "%s", f->zero);
        return;
    case FIELD_TEXT:
    case FIELD_PATH:
        snprintf(text, size, "%s", *(const char *)at ? (const char *)at : f->zero);
        return;
    case FIELD_NONE:
        return;
    }
}

bool key_show(const struct key *k, const struct shown *of, char *text, size_t size)
{
    unsigned s = k->sections;
    const void *home = s & SECTION_HOST     ? (const void *)of->host
                       : s & SECTION_POLICY ? (const void *)of->policy
                                            : of->peer;
    if (!home || k->field.told || (!k->show && k->field.kind == FIELD_NONE))
        return false;
    if (k->show)
        k->show(of, text, size);
    else
        show_field(&k->field, (const char *)home + k->field.at, text, size);
    return true;
}
