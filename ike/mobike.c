/*
 * MOBIKE (RFC 4555): what is negotiated in IKE_AUTH, and the INFORMATIONAL exchanges about addresses. The initiator is
 * who initiated the first IKE SA, whoever has rekeyed it since (section 1.3): mobike.decides. NO_NATS_ALLOWED is
 * understood but never sent: where a NAT is found, ESP goes in UDP.
 */
#include <stdio.h>

#include "ike/internal.h"

#define REFUSED_WAIT (2 * NS_PER_S) /* before an update that met a NAT is tried again */
#define REFUSED_TRIES 5             /* as many as retransmissions (section 3.9) */

static const struct span none = {NULL, 0};

/* -- lists of addresses -- */

static unsigned put_addresses(const struct ike_sa *sa, struct ike_builder *b)
{
    const struct ike_engine *e = sa->e;
    unsigned n = 0;
    for (unsigned i = 0; i < e->address_count && n < MOBIKE_ADDRESSES; i++) {
        const struct ip *ip = &e->addresses[i];
        if (ip_equal(ip, &sa->path.local.ip))
            continue;
        ike_put_notify(b, PROTOCOL_NONE, none,
                       ip->family == 4 ? NOTIFY_ADDITIONAL_IP4_ADDRESS : NOTIFY_ADDITIONAL_IP6_ADDRESS,
                       span_of(ip->b, ip_len(ip->family)));
        n++;
    }
    return n;
}

static void put_list(const struct ike_sa *sa, struct ike_builder *b)
{
    if (!put_addresses(sa, b))
        ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_NO_ADDITIONAL_ADDRESSES, none);
}

static bool usable(const struct ip *ip)
{
    bool multicast = ip->family == 4 ? ip->b[0] >= 224 : ip->b[0] == 0xff;
    return ip->family && !ip_is_any(ip) && !multicast;
}

static bool listed(const struct mobike *m, const struct ip *ip)
{
    for (unsigned i = 0; i < m->peers; i++)
        if (ip_equal(&m->peer[i], ip))
            return true;
    return false;
}

static void add_address(struct mobike *m, const struct ip *ip)
{
    if (m->peers < MOBIKE_ADDRESSES && usable(ip) && !listed(m, ip))
        m->peer[m->peers++] = *ip;
}

/* The whole list, and the address that the message came from is one of it (section 3.6). */
static void take_list(struct ike_sa *sa, const struct ike_message *m, const struct ip *from)
{
    sa->mobike.peers = 0;
    add_address(&sa->mobike, from);
    for (unsigned i = 0; i < m->notifies; i++) {
        const struct ike_notify *n = &m->notify[i];
        uint8_t family = n->type == NOTIFY_ADDITIONAL_IP4_ADDRESS   ? 4
                         : n->type == NOTIFY_ADDITIONAL_IP6_ADDRESS ? 6
                                                                    : 0;
        if (!family || n->data.len != ip_len(family))
            continue;
        struct ip ip = ip_from_bytes(family, n->data.data);
        add_address(&sa->mobike, &ip);
    }
}

static bool has_list(const struct ike_message *m)
{
    return ike_find_notify(m, NOTIFY_ADDITIONAL_IP4_ADDRESS) || ike_find_notify(m, NOTIFY_ADDITIONAL_IP6_ADDRESS) ||
           ike_find_notify(m, NOTIFY_NO_ADDITIONAL_ADDRESSES);
}

/* -- IKE_AUTH -- */

void mobike_put_auth(struct ike_sa *sa, struct ike_builder *b)
{
    if (!sa->run->peer->mobike)
        return;
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_MOBIKE_SUPPORTED, none);
    put_addresses(sa, b);
    sa->mobike.told = sa->e->address_version;
}

void mobike_take_auth(struct ike_sa *sa, const struct ike_message *m)
{
    sa->mobike.decides = sa->initiator;
    sa->mobike.on = sa->run->peer->mobike && sa->path.marker && ike_find_notify(m, NOTIFY_MOBIKE_SUPPORTED);
    if (sa->mobike.on)
        take_list(sa, m, &sa->path.remote.ip);
}

void mobike_inherit(struct ike_sa *sa, const struct ike_sa *old)
{
    sa->mobike = old->mobike;
    sa->mobike.spread = sa->mobike.probed = false;
    sa->mobike.mapped = false; /* the hash has the SPIs in it (section 3.8) */
    sa->mobike.newest = 0;
}

/* -- NATs -- */

bool mobike_nat_found(const struct ike_sa *sa, const struct ike_message *m)
{
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_NO_NATS_ALLOWED);
    const struct endpoint *from = &sa->rx.path.remote, *to = &sa->rx.path.local;
    uint8_t want[2 * 16 + 4];
    struct writer w = writer_of(want, sizeof want);
    if (!n || !sa->run || !sa->run->peer->mobike)
        return false;
    write_bytes(&w, from->ip.b, ip_len(from->ip.family));
    write_bytes(&w, to->ip.b, ip_len(to->ip.family));
    write_u16(&w, from->port);
    write_u16(&w, to->port);
    return !span_equal(n->data, span_of(want, writer_len(&w)));
}

static void detect(struct ike_sa *sa, const struct ike_message *m, const struct path *path)
{
    bool supported, local, remote;
    nat_detect(m, path, &supported, &local, &remote);
    if (!supported)
        return;
    bool raw = sa->raw;
    encap_settle(sa, true, local, remote);
    if (sa->raw != raw)
        sa_move_children(sa);
}

static const struct ike_notify *seen_mapping(const struct ike_message *m)
{
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_NAT_DETECTION_DESTINATION_IP);
    return n && n->data.len == NAT_HASH_LEN ? n : NULL;
}

void mobike_put_probe(const struct ike_sa *sa, struct ike_builder *b)
{
    if (sa->mobike.on && sa->mobike.decides && sa->nat_local)
        put_nat_detection(b, sa, &sa->path);
}

void mobike_probed(struct ike_sa *sa, const struct ike_message *m)
{
    const struct ike_notify *n = seen_mapping(m);
    if (!sa->mobike.on || !sa->mobike.decides || !sa->nat_local || !n)
        return;
    /* One that was never heard of may have changed since IKE_AUTH: an update too many is harmless. */
    if (!sa->mobike.mapped || memcmp(sa->mobike.mapping, n->data.data, NAT_HASH_LEN) != 0)
        mobike_update(sa);
}

/* -- our requests -- */

static bool queued(const struct ike_sa *sa, enum task_kind kind)
{
    for (const struct task *t = sa->queue; t; t = t->next)
        if (t->kind == kind)
            return true;
    return false;
}

static void queue_first(struct ike_sa *sa, enum task_kind kind)
{
    struct task *t = queued(sa, kind) ? NULL : task_new(kind);
    if (t)
        task_queue(sa, t, true);
}

void mobike_update(struct ike_sa *sa)
{
    sa->mobike.owed = true;
    queue_first(sa, TASK_UPDATE);
}

void mobike_announce(struct ike_sa *sa)
{
    queue_first(sa, TASK_ANNOUNCE);
}

void mobike_start(struct ike_sa *sa)
{
    struct task *t = sa->current;
    struct ike_builder b;
    t->path = sa->path;
    request_begin(sa, &b, EXCHANGE_INFORMATIONAL);
    if (t->kind == TASK_UPDATE) {
        ike_put_notify(&b, PROTOCOL_NONE, none, NOTIFY_UPDATE_SA_ADDRESSES, none);
        put_nat_detection(&b, sa, &sa->path);
    }
    bool news = t->kind == TASK_UPDATE && sa->mobike.told != sa->e->address_version;
    t->told = news || t->kind == TASK_ANNOUNCE ? sa->e->address_version : 0;
    if (t->told)
        put_list(sa, &b);
    if (t->kind != TASK_ANNOUNCE) { /* unpredictable to the peer, who can't answer without having got it (3.7) */
        random_fill(&sa->e->env.random, t->cookie, sizeof t->cookie);
        ike_put_notify(&b, PROTOCOL_NONE, none, NOTIFY_COOKIE2, span_of(t->cookie, sizeof t->cookie));
    }
    request_send(sa, &b);
}

static bool cookie_returned(const struct task *t, const struct ike_message *m)
{
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_COOKIE2);
    return n && n->data.len == COOKIE2_LEN && secret_equal(n->data.data, t->cookie, COOKIE2_LEN);
}

static void close_sa(struct ike_sa *sa, const char *why)
{
    report(sa->e, IKE_EVENT_FAILED, sa_peer(sa), NULL, &sa->path, "IKE SA with %s is closed: %s", sa_peer_name(sa),
           why);
    sa_delete(sa, true);
}

/* The responder did not carry our update out (sections 3.5 and 3.9). */
static void refused(struct ike_sa *sa, uint16_t type)
{
    char name[64], text[128];
    unsigned tries = ++sa->mobike.refused;
    if (type == NOTIFY_UNEXPECTED_NAT_DETECTED && tries <= REFUSED_TRIES) { /* the attacker may hit one packet only */
        struct task *t = task_new(TASK_UPDATE);
        if (t) {
            t->not_before = sa->e->now + REFUSED_WAIT;
            task_queue(sa, t, true);
            return;
        }
    } else if (type == NOTIFY_UNACCEPTABLE_ADDRESSES && mobike_next_pair(sa)) {
        return;
    }
    snprintf(text, sizeof text, "it refuses our address with %s", notify_name(type, name, sizeof name));
    close_sa(sa, text);
}

/*
 * Tunnels go on with the selectors they have (RFC 4555 section 3.5). Transport mode is for the two addresses themselves:
 * where those are others now, or the peer sees others, it is negotiated anew.
 */
static void renew_transport(struct ike_sa *sa, bool remapped)
{
    for (struct child *c = sa->children; c && sa->state == SA_UP; c = c->next)
        if (selectors_outdated(sa, c, remapped))
            (void)child_rekey(c); /* if it can't, it ends with its lifetime */
}

static void updated(struct ike_sa *sa, const struct ike_message *m)
{
    const struct ike_notify *error = ike_find_error(m), *seen = seen_mapping(m);
    bool remapped = seen && sa->mobike.mapped && memcmp(sa->mobike.mapping, seen->data.data, NAT_HASH_LEN) != 0;
    if (error) {
        refused(sa, error->type);
        return;
    }
    sa->mobike.refused = 0;
    sa->mobike.owed = false;
    detect(sa, m, &sa->path);
    sa->mobike.mapped = seen;
    if (seen)
        memcpy(sa->mobike.mapping, seen->data.data, NAT_HASH_LEN);
    renew_transport(sa, remapped);
}

static void answered(struct ike_sa *sa, const struct ike_message *m)
{
    const struct task *t = sa->current;
    if (t->kind != TASK_ANNOUNCE && !cookie_returned(t, m)) {
        close_sa(sa, "its COOKIE2 is wrong (RFC 4555 section 3.7)");
        return;
    }
    if (t->told)
        sa->mobike.told = t->told;
    if (t->kind == TASK_ANNOUNCE)
        return;
    if (sa->mobike.spread || !path_equal(&t->path, &sa->path)) { /* it does not tell which address works */
        queue_first(sa, t->kind);
    } else if (t->kind == TASK_UPDATE) {
        updated(sa, m);
    } else {
        sa->mobike.unproven = false;
        sa_move_children(sa);
    }
}

void mobike_response(struct ike_sa *sa, const struct ike_message *m)
{
    if (sa->state == SA_UP)
        answered(sa, m);
    if (sa->state != SA_DEAD)
        task_done(sa);
}

/* -- the peer's requests -- */

/* The initiator's new addresses: the IKE SA takes them now, the Child SAs when it is sure that they are the peer's. */
static void take_update(struct ike_sa *sa, const struct ike_message *m)
{
    if (!endpoint_equal(&sa->path.remote, &sa->rx.path.remote)) {
        if (!sa->mobike.unproven)
            sa->mobike.proven = sa->path;
        sa->mobike.unproven = true;
    }
    detect(sa, m, &sa->rx.path);
    mobike_move(sa, &sa->rx.path, !sa->mobike.unproven);
}

uint16_t mobike_request(struct ike_sa *sa, const struct ike_message *m)
{
    bool update = ike_find_notify(m, NOTIFY_UPDATE_SA_ADDRESSES) && !sa->mobike.decides, list = has_list(m);
    struct mobike *mobike = &sa->mobike;
    if (!mobike->on || sa->state != SA_UP || (!update && !list) || m->h.message_id < mobike->newest)
        return 0;
    if (mobike_nat_found(sa, m))
        return NOTIFY_UNEXPECTED_NAT_DETECTED;
    if (update && !(usable(&sa->rx.path.remote.ip) && sa->rx.path.marker))
        return NOTIFY_UNACCEPTABLE_ADDRESSES;
    mobike->newest = m->h.message_id;
    if (list)
        take_list(sa, m, &sa->rx.path.remote.ip);
    if (update) {
        take_update(sa, m);
    } else if (mobike->decides && !listed(mobike, &sa->path.remote.ip)) { /* where it was, it is no more (3.5) */
        mobike_move(sa, &sa->rx.path, true);
        mobike_update(sa);
    }
    return 0;
}

void mobike_put_answer(const struct ike_sa *sa, const struct ike_message *m, uint16_t error, struct ike_builder *b)
{
    const struct ike_notify *cookie = ike_find_notify(m, NOTIFY_COOKIE2);
    if (!sa->mobike.on)
        return;
    if (error)
        ike_put_notify(b, PROTOCOL_NONE, none, error, none);
    else if (ike_find_notify(m, NOTIFY_NAT_DETECTION_SOURCE_IP) || seen_mapping(m))
        put_nat_detection(b, sa, &sa->rx.path);
    if (cookie && cookie->data.len >= 8 && cookie->data.len <= 64)
        ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_COOKIE2, cookie->data);
}

void mobike_resume(struct ike_sa *sa)
{
    if (sa->state != SA_UP)
        return;
    ah_check_nat(sa);
    if (sa->mobike.unproven && !task_waits(sa, TASK_ROUTABLE, 0, NULL))
        queue_first(sa, TASK_ROUTABLE);
    if (sa->mobike.owed && !task_waits(sa, TASK_UPDATE, 0, NULL))
        queue_first(sa, TASK_UPDATE);
}
