/*
 * A peer that plays by a script: it takes node 0's place towards node 1's engine and says whatever a test wants, with
 * right keys and right checksums. AES-128-GCM, HMAC-SHA2-256, X25519 and the secret of the sim. It is the initiator of
 * its IKE SA; exchanges on it may be started by either side.
 */
#ifndef ADIT_TEST_SCRIPTED_H
#define ADIT_TEST_SCRIPTED_H

#include "ike/internal.h"
#include "test/unit/sim.h"

struct heard {  /* the last message of one direction */
    unsigned n; /* how many there were so far */
    struct buf raw;
    uint8_t *bytes; /* opened, what m points into */
    struct ike_message m;
    bool readable; /* parsed, and opened if it has an SK payload */
};

struct scripted {
    struct sim *s;
    struct endpoint from, to;
    uint64_t spi_i, spi_r;
    struct suite suite;
    struct ike_keys *keys;
    struct keyed *seal, *open;
    struct nonce own, theirs;
    struct kex *kex;
    struct kex_public pub;
    struct buf first_own, first_peer;
    uint32_t next; /* message ID of our next request */
    uint64_t iv;
    bool protected; /* what is being built has an SK payload */
    struct ike_builder b;
    uint8_t *out;
    uint32_t child_spi;           /* ours, of the first Child SA */
    struct heard answer, request; /* of the engine */
};

/* s: configured, not started yet. Its engines run from here on; node 0's hears nothing. */
struct scripted *scripted_new(struct sim *s, const struct ike_limits *limits);
void scripted_free(struct scripted *p); /* the sim too */

/* A message into p->b; then payloads by ike_put… (or the ones below); then send, which runs until it has been answered. */
void scripted_init(struct scripted *p); /* IKE_SA_INIT request */
void scripted_put_sa(struct scripted *p);
void scripted_put_ke(struct scripted *p);
void scripted_put_nonce(struct scripted *p); /* and NAT detection: no NAT */
void scripted_protected(struct scripted *p, uint8_t exchange, bool response, uint32_t id);
void scripted_request(struct scripted *p, uint8_t exchange); /* the next request of ours */
void scripted_reply(struct scripted *p);                     /* to the engine's last request */
void scripted_put_auth(struct scripted *p, const struct identity *id, struct span body); /* body: as on the wire */
void scripted_put_child(struct scripted *p, uint32_t spi); /* SA, TSi, TSr of node 0's first policy */
void scripted_send(struct scripted *p);
void scripted_put_spi(struct scripted *p, uint16_t type, uint8_t protocol, uint32_t spi); /* a notify about an SA */

void scripted_derive(struct scripted *p); /* after the answer to IKE_SA_INIT */
void scripted_exchange_init(struct scripted *p);
void scripted_exchange_auth(struct scripted *p);
struct scripted *scripted_connected(uint64_t seed); /* IKE SA and Child SA are up */

/* Whether the last answer (request) is of that exchange with that notify. */
bool scripted_told(const struct heard *h, uint8_t exchange, uint16_t notify);
unsigned scripted_sas(const struct scripted *p, enum ike_state state); /* of the engine */

#endif
