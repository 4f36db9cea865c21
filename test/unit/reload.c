#include "test/unit/reload.h"

#include "ike/internal.h"

enum err reload(struct ike_engine *e, const struct config *config, ns_t now)
{
    struct ike_change *change;
    TRY(ike_change_new(&change, e->config, config));
    ike_reload(e, change, now);
    return OK;
}
