#include "core/base/err.h"

const char *err_text(enum err e)
{
    static const char *const text[] = {
#define ERR_TEXT(name, words) [ERR_##name] = words,
        ERR_LIST(ERR_TEXT)
#undef ERR_TEXT
    };
    if ((unsigned)e >= sizeof text / sizeof *text)
        return "unknown error";
    return text[e];
}
