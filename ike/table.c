/* Where SAs are found: nothing that one message brings about walks all of them. */
#include "ike/internal.h"

uint64_t sa_own_spi(const struct ike_sa *sa)
{
    return sa->initiator ? sa->spi_i : sa->spi_r;
}

void table_init(struct sa_table *t, const struct random_source *random)
{
    *t = (struct sa_table){0};
    random_fill(random, t->key, sizeof t->key);
}

void table_free(struct sa_table *t)
{
    hash_free(&t->by_spi);
    hash_free(&t->by_first);
    hash_free(&t->by_source);
    hash_free(&t->by_peer);
}

/* -- keys: of what strangers send, so a keyed hash -- */

static uint64_t first_key(const struct sa_table *t, uint64_t spi_i, const struct endpoint *remote)
{
    uint8_t bytes[8 + 1 + sizeof remote->ip.b + 2];
    struct writer w = writer_of(bytes, sizeof bytes);
    write_u64(&w, spi_i);
    write_u8(&w, remote->ip.family);
    write_bytes(&w, remote->ip.b, sizeof remote->ip.b);
    write_u16(&w, remote->port);
    return siphash(t->key, span_of(bytes, writer_len(&w)));
}

/* Of one party, as far as addresses tell: providers hand out IPv6 by the /64 at least (RFC 8019 section 4.2). */
static struct span source_of(const struct ip *ip)
{
    return span_of(ip->b, ip->family == 4 ? 4 : 8);
}

static uint64_t peer_key(const struct sa_table *t, const struct ike_sa *sa)
{
    uint8_t bytes[sizeof sa->run + IDENTITY_FOLDED];
    memcpy(bytes, &sa->run, sizeof sa->run);
    size_t len = identity_fold(&sa->remote_id, bytes + sizeof sa->run);
    return siphash(t->key, span_of(bytes, sizeof sa->run + len));
}

/* -- coming and going -- */

void table_add(struct sa_table *t, struct ike_sa *sa)
{
    hash_add(&t->by_spi, &sa->by_spi, sa_own_spi(sa));
}

void table_add_first(struct sa_table *t, struct ike_sa *sa)
{
    hash_add(&t->by_first, &sa->by_first, first_key(t, sa->spi_i, &sa->first_remote));
    hash_add(&t->by_source, &sa->by_source, siphash(t->key, source_of(&sa->first_remote.ip)));
}

void table_not_half_open(struct sa_table *t, struct ike_sa *sa)
{
    hash_remove(&t->by_source, &sa->by_source);
}

void table_add_peer(struct sa_table *t, struct ike_sa *sa)
{
    hash_remove(&t->by_peer, &sa->by_peer);
    hash_add(&t->by_peer, &sa->by_peer, peer_key(t, sa));
}

void table_remove(struct sa_table *t, struct ike_sa *sa)
{
    hash_remove(&t->by_spi, &sa->by_spi);
    hash_remove(&t->by_first, &sa->by_first);
    hash_remove(&t->by_source, &sa->by_source);
    hash_remove(&t->by_peer, &sa->by_peer);
}

/* -- finding -- */

struct ike_sa *table_find(const struct sa_table *t, uint64_t own_spi)
{
    struct hash_link *l = hash_find(&t->by_spi, own_spi);
    return l ? CONTAINER_OF(l, struct ike_sa, by_spi) : NULL;
}

struct ike_sa *table_find_first(const struct sa_table *t, uint64_t spi_i, const struct endpoint *remote,
                                struct span message)
{
    for (struct hash_link *l = hash_find(&t->by_first, first_key(t, spi_i, remote)); l; l = hash_next(l)) {
        struct ike_sa *sa = CONTAINER_OF(l, struct ike_sa, by_first);
        if (sa->spi_i == spi_i && endpoint_equal(&sa->first_remote, remote) &&
            (!sa->first_peer.len || span_equal(buf_span(&sa->first_peer), message)))
            return sa;
    }
    return NULL;
}

unsigned table_from_source(const struct sa_table *t, const struct ip *source, unsigned enough)
{
    unsigned n = 0;
    struct span from = source_of(source);
    for (struct hash_link *l = hash_find(&t->by_source, siphash(t->key, from)); l && n < enough; l = hash_next(l))
        n += span_equal(source_of(&CONTAINER_OF(l, struct ike_sa, by_source)->first_remote.ip), from);
    return n;
}

static struct ike_sa *same_peer(struct hash_link *l, const struct ike_sa *sa)
{
    while (l && !sa_same_peer(CONTAINER_OF(l, struct ike_sa, by_peer), sa))
        l = hash_next(l);
    return l ? CONTAINER_OF(l, struct ike_sa, by_peer) : NULL;
}

struct ike_sa *table_same_peer(const struct sa_table *t, const struct ike_sa *sa)
{
    return same_peer(hash_find(&t->by_peer, peer_key(t, sa)), sa);
}

struct ike_sa *table_same_peer_next(const struct ike_sa *one, const struct ike_sa *sa)
{
    return one->by_peer.at ? same_peer(hash_next(&one->by_peer), sa) : NULL;
}
