/*
 * One end of an IKE SA that two simulated engines have made, played on by a test: it takes the engine's place with the
 * SA's keys (aes128gcm16) from the key log, and sends whatever an authenticated peer may send. Either end, and SAs after
 * a rekey too; test/unit/scripted.h is a peer that plays from the first message on.
 */
#ifndef ADIT_TEST_IMPOSTOR_H
#define ADIT_TEST_IMPOSTOR_H

#include "crypto/transform.h"
#include "ike/payload.h"
#include "test/unit/sim.h"

#define IMPOSTOR_KEY 20 /* with its salt */
#define IMPOSTOR_SEEN 64

struct impostor {
    struct sim *s;
    unsigned as; /* the node it stands in for */
    uint64_t spi_i, spi_r;
    bool initiator; /* of the IKE SA */
    struct path path;
    struct suite suite;
    struct keyed *seal, *open;
    uint64_t iv;
    /* What the other node has sent since, to be looked at. */
    struct {
        struct ike_message m;
        uint8_t data[2048];
        size_t len;
        struct path path;
    } seen[IMPOSTOR_SEEN];
    unsigned n;
};

/* The keys that the sender of this message has, from the log of whoever has them. False: there are none yet. */
bool impostor_keys(struct sim *s, const uint8_t *message, uint8_t key[IMPOSTOR_KEY]);

/* Takes the place of a node on its established SA; what its own engine sends, and what is sent to it, is lost. */
struct impostor *impostor_start(struct sim *s, unsigned as);
void impostor_end(struct impostor *c);
/* Sends a message that holds this chain of payloads; total 0: as SK. Requests, unless the flag is set. */
void impostor_send(struct impostor *c, uint8_t exchange, uint8_t flags, uint32_t id, uint8_t first, struct span chain,
                   uint16_t number, uint16_t total);
/* The same bytes as they would be sent. */
size_t impostor_make(struct impostor *c, uint8_t *out, size_t cap, uint8_t exchange, uint8_t flags, uint32_t id,
                     uint8_t first, struct span chain, uint16_t number, uint16_t total);
void impostor_inject(struct impostor *c, const uint8_t *message, size_t len);

#endif
