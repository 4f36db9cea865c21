#include "core/base/stat.h"

const char *stat_name(enum stat_id s)
{
    static const char *const names[STAT_COUNT] = {
#define STAT_NAME(id, name, text) [STAT_##id] = name,
        STAT_LIST(STAT_NAME)
#undef STAT_NAME
    };
    return (unsigned)s < STAT_COUNT ? names[s] : "unknown";
}

const char *stat_text(enum stat_id s)
{
    static const char *const texts[STAT_COUNT] = {
#define STAT_TEXT(id, name, text) [STAT_##id] = text,
        STAT_LIST(STAT_TEXT)
#undef STAT_TEXT
    };
    return (unsigned)s < STAT_COUNT ? texts[s] : "unknown counter";
}
