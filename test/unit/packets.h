/* Inner packets for tests: built, and checked, by slow code that shares nothing with the code under test. */
#ifndef ADIT_TEST_PACKETS_H
#define ADIT_TEST_PACKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct packet_spec {
    bool ipv6, udp;
    uint8_t tos, ttl;
    uint8_t host;             /* last byte of the source address */
    const uint8_t *from, *to; /* other addresses; NULL: from fd00:1:: to fd00:2::2, from 10.1.0.0 to 10.2.0.1 */
    uint16_t id, fragment;
    uint32_t flow_label;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window, urgent;
    uint8_t options[40]; /* TCP */
    uint8_t options_len; /* a multiple of 4 */
};

/* A TCP or UDP flow of ordinary looks. */
struct packet_spec packet_spec_tcp(bool ipv6);
struct packet_spec packet_spec_udp(bool ipv6);

/* Writes a whole packet, checksums complete; returns its length. */
size_t packet_build(const struct packet_spec *s, const uint8_t *payload, size_t len, uint8_t *out);
size_t packet_headers(const struct packet_spec *s);

/* Writes a frame as the TUN gives it: virtio_net_hdr, and the checksum left at the pseudo-header's sum. */
size_t packet_build_gso(const struct packet_spec *s, const uint8_t *payload, size_t len, uint16_t gso_size,
                        uint8_t *out);

/* The answer's direction: swaps the addresses, which leaves every checksum right. */
void packet_mirror(uint8_t *packet);

/* Lengths agree and every checksum is right and present (TCP, UDP; no options or extension headers). */
bool packet_sound(const uint8_t *packet, size_t len);

/* One's complement sum of 16-bit words, folded, not inverted. */
uint16_t packet_naive_sum(uint32_t sum, const uint8_t *data, size_t len);

/* A repeatable pseudo-random sequence. */
uint32_t packet_random(uint64_t *state);
void packet_fill(uint64_t *state, uint8_t *out, size_t len);

#endif
