#include "test/unit/reload.h"

#include <limits.h>

#include "ike/internal.h"

enum err reload_prepare(struct ike_engine *e, struct config *config, struct ike_change **out)
{
    bool over;
    TRY(ike_change_new(out, e->config, config));
    enum err err = ike_change_prepare(*out, e, UINT_MAX, &over);
    if (err != OK)
        ike_change_free(*out);
    return err;
}

enum err reload(struct ike_engine *e, struct config *config, ns_t now)
{
    struct ike_change *change;
    TRY(reload_prepare(e, config, &change));
    ike_reload(e, change, now);
    while (!ike_reload_some(e, 1, now))
        continue;
    return OK;
}
