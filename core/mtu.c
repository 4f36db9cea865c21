#include "core/mtu.h"

#include "esp/sa.h"
#include "tun/udp.h"

#define UDP_HEADER 8

static unsigned inner_of(const struct transform *encr, const struct transform *integ, unsigned room, unsigned least)
{
    struct suite s;
    if (suite_of(encr, integ, &s) != OK)
        return least;
    unsigned inner = esp_inner_max(&s, room);
    return !least || inner < least ? inner : least;
}

unsigned mtu_inner(const struct proposals *esp, unsigned room)
{
    static const struct transform none = {.type = TRANSFORM_INTEG, .id = INTEG_NONE};
    unsigned least = 0;
    for (unsigned p = 0; p < esp->n; p++) {
        const struct proposal *v = &esp->v[p];
        for (unsigned i = 0; i < v->n; i++) {
            if (v->t[i].type != TRANSFORM_ENCR)
                continue;
            least = inner_of(&v->t[i], &none, room, least);
            for (unsigned j = 0; j < v->n; j++)
                if (v->t[j].type == TRANSFORM_INTEG)
                    least = inner_of(&v->t[i], &v->t[j], room, least);
        }
    }
    return least;
}

static bool selectors_ipv6(const struct selectors *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->v[i].range.first.family == 6)
            return true;
    return false;
}

bool mtu_inner_ipv6(const struct config *c)
{
    for (unsigned i = 0; i < c->host.addresses; i++)
        if (c->host.address[i].ip.family == 6)
            return true;
    for (unsigned i = 0; i < c->policy_count; i++)
        if (c->policies[i]->action == ACTION_PROTECT && selectors_ipv6(&c->policies[i]->remote))
            return true;
    return false;
}

/* What the route to an address leaves for the UDP payload; 0 if it isn't known. */
static unsigned room_to(const struct endpoint *to)
{
    struct ip source;
    unsigned mtu;
    if (udp_route(to, true, &source, &mtu) != OK)
        return 0;
    unsigned header = (to->ip.family == 6 ? 40 : 20) + UDP_HEADER;
    if (mtu > UINT16_MAX)
        mtu = UINT16_MAX; /* loopback: no IP packet is longer */
    return mtu > header ? mtu - header : 0;
}

/* The least that is left to any of the peer's addresses; 0 if none is known. */
static unsigned peer_room(const struct ike_engine *e, const struct peer *p)
{
    struct endpoint at[PEER_CANDIDATES];
    unsigned least = 0, current, n = e ? ike_candidates(e, p, at, &current) : peer_addresses(p, at);
    for (unsigned i = 0; i < n; i++) {
        unsigned room = room_to(&at[i]);
        if (room && (!least || room < least))
            least = room;
    }
    return least;
}

unsigned mtu_for(const struct config *c, const struct ike_engine *e)
{
    unsigned least = 0;
    for (unsigned i = 0; i < c->policy_count; i++) {
        const struct policy *p = c->policies[i];
        unsigned room = p->action == ACTION_PROTECT ? peer_room(e, p->peer) : 0;
        unsigned inner = room ? mtu_inner(&p->esp, room) : 0;
        if (inner && (!least || inner < least))
            least = inner;
    }
    if (!least)
        least = MTU_UNKNOWN;
    unsigned min = mtu_inner_ipv6(c) ? MTU_MIN6 : MTU_MIN4;
    return least < min ? min : least;
}
