#include "core/mtu.h"

#include <stdlib.h>

#include "esp/ah.h"
#include "esp/sa.h"

#define UDP_HEADER 8

static unsigned inner_of(const struct transform *encr, const struct transform *integ, unsigned room, unsigned least)
{
    struct suite s;
    if (suite_of(encr, integ, &s) != OK)
        return least;
    unsigned inner = esp_inner_max(&s, room);
    return !least || inner < least ? inner : least;
}

/* Behind IPv6, where its padding is the larger one. */
static unsigned inner_of_ah(const struct transform *integ, unsigned room, unsigned least)
{
    struct suite s;
    if (suite_of_integ(integ, &s) != OK)
        return least;
    unsigned inner = ah_payload_max(&s, 6, room);
    return !least || inner < least ? inner : least;
}

unsigned mtu_inner(const struct proposals *esp, unsigned room)
{
    static const struct transform none = {.type = TRANSFORM_INTEG, .id = INTEG_NONE};
    unsigned least = 0;
    for (unsigned p = 0; p < esp->n; p++) {
        const struct proposal *v = &esp->v[p];
        for (unsigned i = 0; i < v->n; i++) {
            if (v->protocol == PROTOCOL_AH && v->t[i].type == TRANSFORM_INTEG)
                least = inner_of_ah(&v->t[i], room, least);
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

unsigned mtu_room(const struct endpoint *to, unsigned mtu, bool raw)
{
    unsigned header = (to->ip.family == 6 ? 40 : 20) + (raw ? 0 : UDP_HEADER);
    if (mtu > UINT16_MAX)
        mtu = UINT16_MAX; /* loopback: no IP packet is longer */
    return mtu > header ? mtu - header : 0;
}

void mtu_reset(struct mtu_survey *s, const struct config *c)
{
    mtu_free(s);
    s->rooms = calloc(c->peer_count ? c->peer_count : 1, sizeof *s->rooms);
    s->peers = s->rooms ? c->peer_count : 0;
}

void mtu_free(struct mtu_survey *s)
{
    free(s->rooms);
    *s = (struct mtu_survey){0};
}

void mtu_note(struct mtu_survey *s, const struct peer *p, unsigned room)
{
    if (p->number < s->peers)
        s->rooms[p->number] = (uint16_t)room;
}

void mtu_begin(struct mtu_survey *s)
{
    s->under_way = s->rooms != NULL;
    s->at = 0;
    s->least = 0;
    s->ipv6 = false;
}

static void look_at(struct mtu_survey *s, const struct policy *p)
{
    if (p->action != ACTION_PROTECT)
        return;
    unsigned room = p->peer->number < s->peers ? s->rooms[p->peer->number] : 0;
    unsigned inner = room ? mtu_inner(&p->esp, room) : 0;
    if (inner && (!s->least || inner < s->least))
        s->least = inner;
    s->ipv6 = s->ipv6 || selectors_ipv6(&p->remote);
}

static unsigned found(const struct mtu_survey *s, const struct host *host)
{
    bool ipv6 = s->ipv6;
    for (unsigned i = 0; i < host->addresses; i++)
        ipv6 = ipv6 || host->address[i].ip.family == 6;
    unsigned mtu = s->least ? s->least : MTU_UNKNOWN, min = ipv6 ? MTU_MIN6 : MTU_MIN4;
    return host->mtu ? host->mtu : mtu < min ? min : mtu;
}

bool mtu_some(struct mtu_survey *s, const struct config *c, ns_t until, unsigned *mtu)
{
    if (!s->under_way)
        return true;
    do {
        if (s->at == c->policy_count) {
            s->under_way = false;
            *mtu = found(s, &c->host);
            return true;
        }
        look_at(s, c->policies[s->at++]);
    } while (clock_now() < until);
    return false;
}
