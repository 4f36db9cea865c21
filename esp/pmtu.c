#include "esp/pmtu.h"

/* MTUs that links and tunnels have: the search tries these before what lies between. */
static const uint16_t common[] = {576,  1280, 1300, 1340, 1380, 1400, 1420, 1440, 1460, 1472,
                                  1480, 1492, 1500, 2002, 4352, 4464, 8166, 9000, 9202, 65535};

static uint16_t clamp(unsigned v, unsigned least, unsigned most)
{
    return (uint16_t)(v < least ? least : v > most ? most : v);
}

void pmtu_init(struct pmtu *p, bool ipv6, unsigned max)
{
    *p = (struct pmtu){.min = ipv6 ? PMTU_MIN6 : PMTU_MIN4,
                       .base = ipv6 ? PMTU_MIN6 : PMTU_BASE4,
                       .next = NS_NEVER,
                       .raise_at = NS_NEVER};
    p->max = p->high = p->size = clamp(max, p->min, PMTU_MAX);
    if (p->base > p->max)
        p->base = p->max;
    p->low = p->base;
}

static void search(struct pmtu *p, ns_t now)
{
    p->phase = PMTU_SEARCH;
    p->tries = 0;
    p->next = now;
}

/* Everything up to the link's MTU may pass (again). */
static void search_all(struct pmtu *p, ns_t now)
{
    p->high = p->max;
    p->spent = 0;
    p->top = true;
    search(p, now);
}

static void complete(struct pmtu *p, ns_t now)
{
    p->phase = PMTU_COMPLETE;
    p->claimed = 0;
    p->next = now + PMTU_CONFIRM;
    p->raise_at = p->size < p->max ? now + PMTU_RAISE : NS_NEVER;
}

void pmtu_limit(struct pmtu *p, unsigned max, ns_t now)
{
    uint16_t is = clamp(max, p->min, PMTU_MAX), was = p->max;
    if (is == was)
        return;
    p->max = is;
    p->base = is < p->base ? is : p->base;
    p->low = is < p->low ? is : p->low;
    p->high = is < p->high ? is : p->high;
    if (is < p->size || p->phase == PMTU_UNKNOWN)
        p->size = is;
    if (p->phase == PMTU_UNKNOWN)
        p->high = is;
    else if (is > was)
        search_all(p, now);
}

void pmtu_used(struct pmtu *p, ns_t now)
{
    p->in_use = true;
    if (p->phase == PMTU_UNKNOWN && !p->claims_only)
        search_all(p, now);
}

static void doubt(struct pmtu *p, ns_t now)
{
    if (p->doubted || now < p->deaf_until)
        return;
    p->doubted = true;
    p->next = now;
}

void pmtu_doubt(struct pmtu *p, ns_t now)
{
    if (p->phase != PMTU_UNKNOWN && !p->claims_only)
        doubt(p, now);
}

void pmtu_claim(struct pmtu *p, unsigned mtu, ns_t now)
{
    uint16_t claimed = clamp(mtu, p->min, PMTU_MAX);
    if (p->claims_only) {
        if (mtu == 0 || claimed >= p->size)
            return;
        p->size = p->high = claimed;
        p->low = p->low < claimed ? p->low : claimed;
        complete(p, now);
        return;
    }
    if (mtu != 0 && claimed < p->high && now >= p->deaf_until)
        p->claimed = claimed;
    if (mtu != 0 && claimed >= p->size)
        return;
    if (p->phase == PMTU_UNKNOWN)
        search_all(p, now);
    doubt(p, now);
}

void pmtu_only_claims(struct pmtu *p, bool only)
{
    if (only &&
        !p->claims_only) { /* a search that nobody ends proves nothing, and what was found ages without notice */
        p->size = p->high = p->max;
        p->phase = PMTU_UNKNOWN;
        p->claimed = p->probing = 0;
        p->doubted = p->top = false;
        p->raise_at = NS_NEVER;
    }
    p->claims_only = only;
}

/* The next size between what passes and what does not; 0: there is none worth a probe. */
static uint16_t candidate(const struct pmtu *p)
{
    if (p->top)
        return p->high;
    if (p->size > p->low) /* in force, and not proved */
        return p->size;
    if (p->claimed > p->low && p->claimed <= p->high)
        return p->claimed;
    uint16_t low = p->spent > p->low ? p->spent : p->low;
    if (p->high < low + PMTU_STEP)
        return 0;
    unsigned middle = (low + p->high + 1u) / 2, quarter = (p->high - low) / 4u;
    uint16_t best = (uint16_t)middle;
    unsigned off = quarter + 1;
    for (unsigned i = 0; i < sizeof common / sizeof common[0]; i++) {
        unsigned away = common[i] > middle ? common[i] - middle : middle - common[i];
        if (away < off && common[i] > low && common[i] <= p->high) {
            best = common[i];
            off = away;
        }
    }
    return best;
}

static unsigned due_complete(struct pmtu *p, ns_t now)
{
    if (!p->in_use)
        return 0;
    if (now >= p->raise_at) {
        search_all(p, now);
        return candidate(p);
    }
    if (now < p->next)
        return 0;
    p->in_use = false;
    return p->size;
}

unsigned pmtu_due(struct pmtu *p, ns_t now)
{
    if (p->claims_only) {
        if (now >= p->raise_at) { /* RFC 4301 section 8.2.2: it ages */
            p->size = p->high = p->max;
            p->raise_at = NS_NEVER;
            p->phase = PMTU_UNKNOWN;
        }
        return 0;
    }
    if (p->probing && now - p->sent_at < PMTU_PATIENCE)
        return 0;
    p->probing = 0;
    if (p->phase == PMTU_UNKNOWN || (now < p->next && p->phase == PMTU_SEARCH))
        return 0;
    if (p->doubted)
        return now < p->next ? 0 : p->size;
    if (p->phase == PMTU_COMPLETE)
        return due_complete(p, now);
    uint16_t size = candidate(p);
    if (!size)
        complete(p, now);
    return size;
}

void pmtu_sent(struct pmtu *p, unsigned size, ns_t now)
{
    p->probing = (uint16_t)size;
    p->sent_at = now;
}

void pmtu_busy(struct pmtu *p, ns_t now)
{
    p->next = now + PMTU_BUSY;
    p->in_use = true;
}

static void passed(struct pmtu *p, unsigned asked, unsigned size, ns_t now)
{
    bool progress = size > p->low;
    p->tries = 0;
    p->top = false;
    if (progress)
        p->low = (uint16_t)size;
    p->spent = (uint16_t)asked;
    if (p->doubted && asked == p->size) {
        p->doubted = false;
        p->claimed = 0;
        p->deaf_until = now + PMTU_CONFIRM;
    }
    bool told = asked == p->claimed; /* ICMP was right */
    if (told)
        p->claimed = 0;
    /* Where a suite's blocks make probes a little shorter than asked for, no more is known than that. */
    if (asked >= p->high || told)
        p->high = p->phase == PMTU_SEARCH ? p->low : p->high;
    if (p->low > p->size || (progress && asked == p->size))
        p->size = p->low;
    p->next = p->phase == PMTU_SEARCH ? now : now + PMTU_CONFIRM;
}

static void too_big(struct pmtu *p, unsigned size, ns_t now)
{
    p->spent = 0;
    uint16_t below = size > p->base ? p->base : p->min;
    p->tries = 0;
    p->top = false;
    if (size <= p->high && size > p->min)
        p->high = (uint16_t)(size - 1);
    if (size <= p->low)
        p->low = below;
    if (size <= p->size) {
        bool told = p->claimed >= p->low && p->claimed < size; /* ICMP and a lost probe say the same */
        p->size = told ? p->claimed : p->low;
        p->doubted = false;
    }
    if (p->claimed > p->high)
        p->claimed = 0;
    search(p, now);
}

void pmtu_result(struct pmtu *p, unsigned size, bool through, ns_t now)
{
    unsigned asked = p->probing;
    if (!asked || size > asked)
        return;
    p->probing = 0;
    if (through) {
        passed(p, asked, size, now);
        return;
    }
    if (asked != p->lost)
        p->tries = 0;
    p->lost = (uint16_t)asked;
    p->next = now;
    p->in_use = true; /* it is not over */
    if (++p->tries >= (p->doubted && asked >= p->size ? 1 : PMTU_PROBES))
        too_big(p, asked, now);
}

ns_t pmtu_deadline(const struct pmtu *p)
{
    if (p->claims_only)
        return p->raise_at;
    if (p->probing)
        return p->sent_at + PMTU_PATIENCE;
    if (p->phase == PMTU_UNKNOWN)
        return NS_NEVER;
    if (p->doubted || p->phase == PMTU_SEARCH)
        return p->next;
    if (!p->in_use)
        return NS_NEVER;
    return p->next < p->raise_at ? p->next : p->raise_at;
}
