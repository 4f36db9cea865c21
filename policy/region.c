#include "policy/region.h"

#include <stdlib.h>

enum axis { AXIS_PROTOCOL, AXIS_LOCAL_PORT, AXIS_REMOTE_PORT, AXIS_ADDRESSES };

#define PORT_UNSEEN 65536u   /* of fragments, and of protocols without ports */
#define PORT_RECEIVER 65537u /* not looked at: the receiver's side of ICMP and the Mobility Header */

static unsigned words_of(uint8_t family)
{
    return ip_len(family) / 4;
}

static uint32_t word(const struct ip *ip, unsigned i)
{
    return get_be32(ip->b + 4 * i);
}

/* -- boxes -- */

struct ports {
    uint32_t first, last;
};

static struct ports ports_of(const struct selector *s)
{
    if (s->port_first == 0 && s->port_last == UINT16_MAX)
        return (struct ports){0, PORT_RECEIVER};
    if (s->port_first > s->port_last)
        return (struct ports){PORT_UNSEEN, PORT_UNSEEN};
    return (struct ports){s->port_first, s->port_last};
}

/* The words that both ends share, a range in the first that differs, all of the others: exact for a prefix. */
static void set_address(struct region *r, unsigned axis, const struct ip_range *range)
{
    bool open = false;
    for (unsigned i = 0; i < words_of(range->first.family); i++) {
        uint32_t first = word(&range->first, i), last = word(&range->last, i);
        if (open && (first != 0 || last != UINT32_MAX))
            r->exact = false;
        r->first[axis + i] = open ? 0 : first;
        r->last[axis + i] = open ? UINT32_MAX : last;
        open = open || first != last;
    }
}

static enum err add(struct regions *out, const struct region *r, struct ports local, struct ports remote)
{
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 64;
        struct region *v = realloc(out->v, cap * sizeof(*v));
        if (!v)
            return ERR_NOMEM;
        out->v = v;
        out->cap = cap;
    }
    struct region *added = &out->v[out->n++];
    *added = *r;
    added->first[AXIS_LOCAL_PORT] = local.first;
    added->last[AXIS_LOCAL_PORT] = local.last;
    added->first[AXIS_REMOTE_PORT] = remote.first;
    added->last[AXIS_REMOTE_PORT] = remote.last;
    return OK;
}

/* Only ANY reaches to PORT_RECEIVER by itself; what a stated port, or OPAQUE, lets pass there are boxes of their own. */
static enum err add_receiver_boxes(struct regions *out, const struct region *r, struct ports local, struct ports remote)
{
    const struct ports receiver = {PORT_RECEIVER, PORT_RECEIVER};
    if (remote.last != PORT_RECEIVER && local.first != PORT_UNSEEN)
        TRY(add(out, r, (struct ports){local.first, local.last < UINT16_MAX ? local.last : UINT16_MAX}, receiver));
    if (local.last != PORT_RECEIVER && remote.first != PORT_UNSEEN)
        TRY(add(out, r, receiver, (struct ports){remote.first, remote.last < UINT16_MAX ? remote.last : UINT16_MAX}));
    return OK;
}

static enum err add_pair(struct regions *out, uint32_t entry, const struct selector *l, const struct selector *r)
{
    uint8_t family = l->range.first.family, proto = l->proto ? l->proto : r->proto;
    struct region box = {.entry = entry, .exact = true};
    if (r->range.first.family != family || (l->proto && r->proto && l->proto != r->proto))
        return OK;
    box.first[AXIS_PROTOCOL] = proto;
    box.last[AXIS_PROTOCOL] = proto ? proto : UINT8_MAX;
    set_address(&box, AXIS_ADDRESSES, &l->range);
    set_address(&box, AXIS_ADDRESSES + words_of(family), &r->range);
    TRY(add(out, &box, ports_of(l), ports_of(r)));
    return proto == 0 || selector_sender_only(proto) ? add_receiver_boxes(out, &box, ports_of(l), ports_of(r)) : OK;
}

enum err regions_add(struct regions *out, const struct selectors *local, const struct selectors *remote, uint32_t entry,
                     uint8_t family)
{
    for (unsigned i = 0; i < local->n; i++)
        for (unsigned k = 0; local->v[i].range.first.family == family && k < remote->n; k++)
            TRY(add_pair(out, entry, &local->v[i], &remote->v[k]));
    return OK;
}

void regions_free(struct regions *r)
{
    free(r->v);
    *r = (struct regions){0};
}

/* -- points -- */

void region_point(const struct flow *f, bool out, uint32_t x[REGION_AXES])
{
    const struct ip *local = out ? &f->src : &f->dst, *remote = out ? &f->dst : &f->src;
    unsigned words = words_of(f->src.family);
    uint32_t sender = f->ports_known ? f->src_port : PORT_UNSEEN, receiver = f->ports_known ? f->dst_port : PORT_UNSEEN;
    if (f->ports_known && selector_sender_only(f->proto))
        receiver = PORT_RECEIVER;
    x[AXIS_PROTOCOL] = f->proto;
    x[AXIS_LOCAL_PORT] = out ? sender : receiver;
    x[AXIS_REMOTE_PORT] = out ? receiver : sender;
    for (unsigned i = 0; i < words; i++) {
        x[AXIS_ADDRESSES + i] = word(local, i);
        x[AXIS_ADDRESSES + words + i] = word(remote, i);
    }
}
