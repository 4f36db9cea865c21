#include "test/unit/reload.h"

#include <limits.h>

#include "ike/internal.h"

enum err reload(struct ike_engine *e, struct config *config, ns_t now)
{
    struct ike_change *change;
    TRY(ike_change_new(&change, e->config, config));
    bool over;
    enum err err = ike_change_prepare(change, e, UINT_MAX, &over);
    if (err != OK) {
        ike_change_free(change);
        return err;
    }
    ike_reload(e, change, now);
    while (!ike_reload_some(e, 1, now))
        continue;
    return OK;
}
