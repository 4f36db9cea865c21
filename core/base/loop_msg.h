/*
 * What the two engines for real descriptors share: messages with their control data, reads of TUN packets, mapped
 * memory. Internal to core/base, but for msg_route: tun/udp.c sends outside of a loop.
 */
#ifndef ADIT_LOOP_MSG_H
#define ADIT_LOOP_MSG_H

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "core/base/loop.h"

#ifndef IPV6_FLOWINFO
#define IPV6_FLOWINFO 11 /* linux/in6.h, which can't stand beside netinet/in.h */
#endif

/* Room for the sender's address and for the control data of a received message: PKTINFO; UDP_GRO, TOS, TTL. */
#define MSG_RX_NAME 32
#define MSG_RX_CONTROL (CMSG_SPACE(sizeof(struct in6_pktinfo)) + 3 * CMSG_SPACE(sizeof(int)))

#define MSG_FAULTS_MAX 8                 /* receive errors in a row before an io is left alone for a while */
#define MSG_FAULT_PAUSE (10 * NS_PER_MS) /* for that long: a device that is gone must not keep the thread busy */

/* Where a message goes and how. The segment size is the last piece of the control data: a single datagram omits it. */
struct msg_route {
    struct sockaddr_storage name;
    socklen_t name_len;
    size_t control_len;   /* with the segment size, where there is one */
    size_t control_plain; /* without */
    _Alignas(struct cmsghdr) uint8_t
        control[CMSG_SPACE(sizeof(struct in6_pktinfo)) + 2 * CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t))];
};

/* A segmented send was refused for segments over the path MTU as the kernel knows it (EINVAL from older kernels). */
static inline bool msg_too_long(int error)
{
    return error == EMSGSIZE || error == EINVAL;
}

static inline bool msg_segmented(const struct loop_tx *tx)
{
    return tx->segment && tx->segment < tx->len;
}

/* inet6: the socket's own family; IPv4 addresses are mapped on it (RFC 4291 section 2.5.5.2). */
void msg_route(struct msg_route *r, const struct loop_tx *tx, bool inet6);

/* A header for the first `len` bytes of tx; r and iov must live as long as hdr. segmented: with the segment size. */
void msg_header(struct msghdr *hdr, struct iovec *iov, struct msg_route *r, const struct loop_tx *tx, uint32_t len,
                bool segmented);

/* Reads the sender and the control data of a received message into rx, whose len is set. */
void msg_received(struct msghdr *hdr, struct loop_rx *rx);

struct loop_failure msg_failure(const struct loop_tx *tx, int error);
struct loop_failure msg_write_failure(const struct iovec *iov, unsigned n, int error);
size_t msg_bytes(const struct iovec *iov, unsigned n);

bool msg_inet6(int fd);
void msg_drain_errors(int fd); /* empties a socket's error queue: while there is something in it, it polls as ready */

/*
 * Reads packets, each with room for LOOP_RX_SIZE bytes, until the descriptor is empty, rx has n entries or the memory is
 * used up. Returns how many; *error gets 0 or the errno that ended it.
 */
unsigned msg_read_packets(int fd, uint8_t *memory, size_t size, struct loop_rx *rx, unsigned n, int *error);

/* Writes one packet; 0 or an errno. */
int msg_write_packet(int fd, const struct iovec *iov, unsigned n);

/* Anonymous memory, kept out of core files; NULL when there is none. */
void *msg_map(size_t size);
void msg_unmap(void *memory, size_t size);

#endif
