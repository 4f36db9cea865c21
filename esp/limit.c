#include "esp/limit.h"

/*
 * At the rate of now the hard limit must be further away than a rekey may take. Once half of the soft limit is used up,
 * that is with two messages lost: the first of both is sent again after one second, and after two more. From an eighth on
 * it is a few round trips with full buffers on the way. A rate is what passed within a stretch of at least the shorter
 * and at most the longer time.
 */
#define LEAD_HALF (3 * NS_PER_S)
#define LEAD_EIGHTH (250 * NS_PER_MS)
#define STRETCH_LEAST NS_PER_MS
#define STRETCH_MOST NS_PER_S

/* What would pass within `lead` if it went on as in the stretch. */
static uint64_t expected(uint64_t passed, ns_t stretch, ns_t lead)
{
    return passed > UINT64_MAX / lead ? UINT64_MAX : passed * lead / stretch;
}

static bool near_hard(struct sa *sa, uint64_t count, uint64_t soft, uint64_t hard, uint64_t bytes, ns_t now)
{
    struct sa_stretch *s = &sa->stretch;
    ns_t stretch = now - s->since, lead = count < soft / 2 && bytes < sa->byte_soft / 2 ? LEAD_EIGHTH : LEAD_HALF;
    if (s->since == 0 || stretch > STRETCH_MOST) {
        *s = (struct sa_stretch){.since = now, .count = count, .bytes = bytes};
        return false;
    }
    if (stretch < STRETCH_LEAST)
        return false;
    return expected(count - s->count, stretch, lead) >= hard - count ||
           expected(bytes - s->bytes, stretch, lead) >= sa->byte_hard - bytes;
}

unsigned limit_passed(struct sa *sa, uint64_t count, uint64_t bytes, ns_t now)
{
    bool out = sa->params.dir == SA_OUT;
    uint64_t soft = out ? sa->seq_soft : sa->packet_soft, hard = out ? sa->seq_hard : sa->packet_hard;
    if (count < soft / 8 && count < hard && bytes < sa->byte_soft / 8)
        return SA_EVENT_NONE;
    bool over = count >= hard || bytes >= sa->byte_hard;
    unsigned events = SA_EVENT_NONE;
    if (!atomic_load_explicit(&sa->soft_raised, memory_order_relaxed) &&
        (over || count >= soft || bytes >= sa->byte_soft || near_hard(sa, count, soft, hard, bytes, now)) &&
        !atomic_exchange_explicit(&sa->soft_raised, true, memory_order_relaxed))
        events |= SA_EVENT_SOFT;
    if (over && !atomic_exchange_explicit(&sa->hard_raised, true, memory_order_relaxed))
        events |= SA_EVENT_HARD;
    return events;
}
