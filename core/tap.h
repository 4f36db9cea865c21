/*
 * What a capture sees: packets of one peer, copied by the workers as they pass, each worker into a ring of its own that
 * the control thread empties. A full ring loses packets, which are counted; the traffic never waits. While nobody
 * captures, a worker looks at one number for each batch.
 */
#ifndef ADIT_TAP_H
#define ADIT_TAP_H

#include <stdatomic.h>

#include "core/base/ip.h"
#include "core/base/ring.h"
#include "esp/sad.h"

#define TAPS 4              /* captures at a time */
#define TAP_RING (4u << 20) /* bytes, for each worker */

enum tap_side {
    TAP_PLAIN, /* inner packets, without their padding */
    TAP_WIRE,  /* outer ones: also those that turn out to be forged or replayed */
};

struct tap {
    char peer[64];
    enum tap_side side;
    struct {
        struct ring *ring;
        _Atomic uint64_t seen, lost; /* by the worker */
    } workers[SAD_WORKERS];
};

struct taps {
    _Atomic unsigned count;
    struct tap *_Atomic v[TAPS];
};

/* Each record of the ring; the packet's bytes follow. */
struct tap_packet {
    ns_t wall;
    struct endpoint from, to; /* outer */
    uint32_t spi, policy_id;
    uint8_t tos;
    uint8_t protocol; /* 0: the bytes are a whole IP packet; else what an IP header around them would say */
    bool udp;         /* a UDP header belongs before them, too */
    bool in;
};

/* Errors: NOMEM. */
MUST_USE enum err tap_new(struct tap **out, const char *peer, enum tap_side side, unsigned workers);
void tap_free(struct tap *t);

#define TAP_HEADERS 48 /* the most that tap_headers writes */

/* Writes the IP and UDP headers that belong before the bytes of a record; returns how many bytes that are. */
size_t tap_headers(const struct tap_packet *p, struct span bytes, uint8_t out[TAP_HEADERS]);

#endif
