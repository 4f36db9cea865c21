/*
 * An ESP security association of one direction (RFC 4301 section 4.4.2). Built and keyed by the control thread in
 * private, published through the SAD, then used by workers: the runtime half is theirs, under `lock` (one worker at a
 * time, taken once a batch; with one worker it is never contended).
 */
#ifndef ADIT_SA_H
#define ADIT_SA_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/base/clock.h"
#include "core/base/ip.h"
#include "core/base/stat.h"
#include "crypto/transform.h"
#include "esp/replay.h"
#include "policy/fragments.h"
#include "policy/pad.h"
#include "policy/selector.h"

enum sa_dir { SA_OUT, SA_IN };

/* Everything the negotiation decided; copied by sa_new. Lengths in bytes, numbers of packets, times monotonic. */
struct sa_params {
    enum sa_dir dir;
    uint32_t spi;
    uint32_t policy_id;         /* spd_entry.id */
    uint32_t version;           /* of the policy that it was made for: it is of no use to another one of that number */
    struct policy_stats *stats; /* of that policy; outlive the SA. NULL: nothing is counted there */
    uint64_t child;             /* the engine's handle, given back in events */
    uint8_t proto;              /* PROTOCOL_AH, with a suite of its own; all else is ESP */
    struct suite suite;
    const char *engine; /* of crypto, "auto" */
    struct span key, integ_key;
    bool esn;
    uint32_t replay_window; /* SA_IN */
    enum policy_mode mode;
    struct tfc tfc;                 /* SA_OUT, tunnel mode: sizes to pad to, for a peer that takes it */
    struct path path;               /* local and remote outer endpoints */
    struct selectors local, remote; /* narrowed traffic selectors */
    struct outer_rule outer;        /* SA_OUT */
    uint16_t mss;                   /* as struct policy's */
    bool fragment_before;           /* likewise */
    struct ip seen_local,
        seen_remote; /* transport mode: both ends' addresses as the peer has them; family 0: unknown */
    /* Ask for a rekey at soft, stop at hard. 0: the sequence number's and the suite's own (sa.c says which). */
    uint64_t soft_bytes, soft_packets;
    uint64_t hard_bytes, hard_packets;
};

#define SA_IV_POOL (64 * TRANSFORM_IV_MAX) /* bytes of random IVs drawn at once */
#define SA_PATH_WORDS ((sizeof(struct path) + 7) / 8)

/* An address range as numbers of 128 bits (IPv4 in the low half), for a compare without a loop. */
struct inner_range {
    uint64_t first[2], last[2];
};

/* The time that a rate is measured over (limit.c): its beginning, and the counters then. */
struct sa_stretch {
    ns_t since; /* 0: not begun */
    uint64_t count, bytes;
};

struct sa {
    /* control half: fixed once published, but for the path (see sa_move) and the event flags */
    struct sa_params params; /* key spans are empty; path is the first one: ask sa_path for the current one */
    ns_t created;
    uint32_t
        flow; /* SA_OUT: the flow label of its packets over IPv6, 1..0xfffff, drawn by chance (RFC 6437 section 3) */
    atomic_uint path_version; /* odd while path changes: a sequence lock */
    _Atomic uint64_t path_words[SA_PATH_WORDS];
    /* The largest inner packet whose datagram passes the path whole, as far as known; 0: not known. */
    atomic_uint inner_max;
    atomic_uint datagram_max; /* likewise the largest datagram itself, with its IP header */
    /*
     * SA_OUT, in UDP over IPv6 on a path that is probed: packets up to that length leave whole, whatever ICMP has made the
     * kernel believe of the path, by which it would fragment them (RFC 8201 section 6: anybody can forge it). 0: none.
     */
    atomic_uint whole_max;
    /* SA_OUT: an ESP packet longer than that is news to the control thread, once: UINT32_MAX from then on. */
    atomic_uint news_over;
    /* runtime half: the worker's, under lock */
    _Alignas(64) pthread_spinlock_t lock;
    struct keyed *keyed;
    uint64_t seq;                      /* SA_OUT: last number used */
    uint64_t seq_soft, seq_hard;       /* SA_OUT: number at which to ask for a rekey, and the last that may be used */
    uint64_t packet_soft, packet_hard; /* SA_IN: the same for `packets` */
    uint64_t byte_soft, byte_hard;     /* the same for `bytes` */
    struct sa_stretch stretch;
    uint8_t *iv_pool;                 /* SA_OUT, suites with random IVs: drawn in bulk */
    uint32_t iv_left;                 /* bytes of the pool not yet used, at its end */
    struct replay replay;             /* SA_IN */
    struct fragment_table *fragments; /* SA_IN, selectors with ports: what first fragments showed; else NULL */
    bool address_only;                /* SA_IN: all selectors are for any protocol and port, so addresses decide */
    uint8_t seen_family;              /* SA_IN: the two ranges that the last inner packet fell into; 0: none yet */
    struct inner_range seen_src, seen_dst;
    _Atomic uint64_t packets, bytes; /* inner; bytes count inner packet lengths */
    _Atomic uint64_t last_used;      /* ns_t of the last batch */
    /* set once by the worker when it raised that event, so that a crowd of packets raises it once */
    atomic_bool soft_raised, hard_raised, moved_raised;
    struct drop_stats drops;
    atomic_bool in_use; /* SA_IN: something authentic has arrived */
};

/*
 * The SA starts unpublished. Errors: RANGE (SPI below 256; key lengths; window, also none with ESN: RFC 4303 section
 * 3.4.3 has no way to know the high half then), MISMATCH (a suite without integrity, RFC 4301 section 4.2; no
 * selectors), UNSUPPORTED, NOMEM, CRYPTO.
 */
MUST_USE enum err sa_new(struct sa **out, const struct sa_params *p, ns_t now);
void sa_free(void *sa); /* wipes; fits epoch_retire */

/*
 * Another replay window for an SA_IN that has one, by the control thread, while workers use the SA: nothing that was
 * received is forgotten, and nothing is taken now that was too old before. Errors: RANGE, NOMEM: as it was.
 */
MUST_USE enum err sa_resize(struct sa *sa, uint32_t replay_window);
/* New outer endpoints, same keys; by the control thread, while workers use the SA. sa_path reads a consistent copy. */
void sa_move(struct sa *sa, const struct path *path);
struct path sa_path(const struct sa *sa);

/* Plaintext with its trailer is a multiple of this power of two (RFC 4303 section 2.4). */
static inline uint32_t esp_align(const struct suite *s)
{
    return s->block > 4 ? s->block : 4;
}
/* Bytes of an ESP packet (SPI to ICV) that carries an inner packet of this length. */
uint32_t esp_sealed_len(const struct suite *s, uint32_t inner_len);
/* Most bytes that ESP adds in front of the inner packet (SPI, sequence number, IV). */
static inline uint32_t esp_headroom(const struct suite *s)
{
    return 8u + s->iv_len;
}
/*
 * The same for an SA of either protocol, behind an outer header of that family, and how much of it is in front of the
 * inner packet.
 */
uint32_t sa_sealed_len(const struct sa *sa, uint8_t family, uint32_t inner_len);
uint32_t sa_headroom(const struct sa *sa, uint8_t family);
uint32_t sa_inner_max(const struct sa *sa, uint8_t family, uint32_t room); /* as esp_inner_max */
/* The largest inner packet whose sealed form fits in `room` bytes (path MTU less outer IP and UDP headers). */
uint32_t esp_inner_max(const struct suite *s, uint32_t room);

#endif
