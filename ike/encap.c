/*
 * How the ESP of an IKE SA's Child SAs travels: in UDP, or as protocol 50 (RFC 7296 section 2.23; DESIGN: decision 1).
 * In UDP wherever the peer knows NAT traversal, also without a NAT: to that end the SOURCE hash is altered, so that it
 * takes us for being behind one. As protocol 50 if both ends tell the truth and there is none, or if the peer knows
 * nothing of all that.
 */
#include <stdio.h>

#include "ike/internal.h"

bool encap_possible(const struct ike_engine *e)
{
    return e->env.raw && e->env.raw(e->env.ctx);
}

/*
 * Whether whoever is at that address is to have ESP as protocol 50. Until IKE_AUTH only the address tells. One that may
 * want AH decides, for that works in no other way.
 */
static bool wanted_there(const struct ike_engine *e, const struct ip *remote)
{
    struct strangers all = strangers_at(e, remote);
    bool any = false, raw = true;
    for (const struct run *r; (r = stranger_next(&all)) != NULL; any = true) {
        if (r->peer->ah)
            return true;
        raw = raw && r->peer->encap == ENCAP_RAW;
    }
    return any && raw;
}

void encap_begin(struct ike_sa *sa)
{
    const struct peer *peer = sa->run ? sa->run->peer : NULL;
    bool raw = peer ? peer->encap == ENCAP_RAW || peer->ah : wanted_there(sa->e, &sa->path.remote.ip);
    sa->pretends = !raw || !encap_possible(sa->e);
}

void encap_settle(struct ike_sa *sa, bool natt, bool nat_local, bool nat_remote)
{
    sa->natt = natt;
    sa->nat_local = nat_local;
    sa->nat_remote = nat_remote;
    /* Without notifies there are no NAT-T ports, unless the peer came to one of ours. */
    sa->raw = natt ? !sa->pretends && !nat_local && !nat_remote : !sa->path.marker;
}

bool encap_refused(const struct ike_sa *sa, char *why, size_t size)
{
    const struct peer *peer = sa->run ? sa->run->peer : NULL;
    if (!sa->raw || sa->natt)
        return false;
    if (peer && peer->encap == ENCAP_UDP)
        snprintf(why, size, "does not support NAT traversal, and encap = udp allows no ESP without it");
    else if (!encap_possible(sa->e))
        snprintf(why, size, "does not support NAT traversal, and raw ESP (protocol 50) needs CAP_NET_RAW here");
    else
        return false;
    return true;
}

/*
 * The DESTINATION hash is always true, so that nobody is told a NAT of his own that isn't there. The SOURCE hash is
 * altered or true for the life of the SA.
 */
void put_nat_detection(struct ike_builder *b, const struct ike_sa *sa, const struct path *path)
{
    uint8_t hash[NAT_HASH_LEN];
    struct span none = span_of(NULL, 0);
    nat_hash(sa->spi_i, sa->spi_r, &path->local, hash);
    for (unsigned i = 0; i < sizeof hash && sa->pretends; i++)
        hash[i] = (uint8_t)~hash[i];
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_NAT_DETECTION_SOURCE_IP, span_of(hash, sizeof hash));
    nat_hash(sa->spi_i, sa->spi_r, &path->remote, hash);
    ike_put_notify(b, PROTOCOL_NONE, none, NOTIFY_NAT_DETECTION_DESTINATION_IP, span_of(hash, sizeof hash));
}

struct path encap_path(const struct ike_sa *sa, uint8_t protocol, struct path p)
{
    if (sa->raw || protocol == PROTOCOL_AH) {
        p.transport = PATH_RAW;
        p.local.port = p.remote.port = 0;
        p.marker = false;
    } else if (
        !p.marker) { /* IKE stayed on port 500; ESP in UDP lives on the NAT-T ports only (RFC 3948 section 2.1) */
        p.local.port = sa->e->config->host.nat_port;
        p.remote.port = NATT_PORT;
        p.marker = true;
    }
    return p;
}

bool ike_sends_raw(const struct ike_engine *e, const struct peer *peer)
{
    const struct run *r = run_of(e, peer);
    for (const struct ike_sa *sa = r ? r->sas : NULL; sa; sa = sa->run_next)
        if (sa->state == SA_UP)
            return sa->raw;
    return (peer->encap == ENCAP_RAW || peer->ah) && encap_possible(e);
}
