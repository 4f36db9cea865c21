#include "ike/nat.h"

#include "crypto/prf.h"

void nat_hash(uint64_t spi_i, uint64_t spi_r, const struct endpoint *e, uint8_t out[NAT_HASH_LEN])
{
    uint8_t text[8 + 8 + 16 + 2];
    struct writer w = writer_of(text, sizeof text);
    write_u64(&w, spi_i);
    write_u64(&w, spi_r);
    write_bytes(&w, e->ip.b, ip_len(e->ip.family));
    write_u16(&w, e->port);
    sha1(span_of(text, writer_len(&w)), out);
}

/* Whether notifies of this type are there, and whether one of them holds the hash of e. */
static void look_for(const struct ike_message *m, uint16_t type, const struct endpoint *e, bool *any, bool *fits)
{
    uint8_t hash[NAT_HASH_LEN];
    nat_hash(m->h.spi_i, m->h.spi_r, e, hash);
    *any = *fits = false;
    for (unsigned i = 0; i < m->notifies; i++) {
        if (m->notify[i].type != type)
            continue;
        *any = true;
        if (span_equal(m->notify[i].data, span_of(hash, sizeof hash)))
            *fits = true;
    }
}

void nat_detect(const struct ike_message *m, const struct path *path, bool *supported, bool *local, bool *remote)
{
    bool source, source_fits, destination, destination_fits;
    /* There may be several SOURCE hashes: a sender need not know which of its addresses will be used. */
    look_for(m, NOTIFY_NAT_DETECTION_SOURCE_IP, &path->remote, &source, &source_fits);
    look_for(m, NOTIFY_NAT_DETECTION_DESTINATION_IP, &path->local, &destination, &destination_fits);
    *supported = source || destination;
    *remote = source && !source_fits;
    *local = destination && !destination_fits;
}
