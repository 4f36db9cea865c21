/* The rtnetlink protocol beneath netlink.h: building requests, waiting for the answer, walking dumps. */
#ifndef ADIT_RTNL_H
#define ADIT_RTNL_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/cursor.h"
#include "core/base/err.h"

#define RTNL_RECEIVE_SIZE (64 * 1024)

struct rtnl {
    int fd;
    uint32_t seq;
    char why[256]; /* the kernel's words for the last failure */
    uint8_t datagram[RTNL_RECEIVE_SIZE];
};

/* A request being built; always large enough for what netlink.c asks. */
struct rtnl_request {
    union {
        struct nlmsghdr header;
        uint8_t bytes[512];
    } u;
    size_t len;
};

MUST_USE enum err rtnl_open(struct rtnl *r);
void rtnl_close(struct rtnl *r);

/* body: the family's fixed struct (ifinfomsg, rtmsg …). Flags beyond NLM_F_REQUEST. */
void rtnl_begin(struct rtnl_request *q, uint16_t type, uint16_t flags, const void *body, size_t len);
void rtnl_attr(struct rtnl_request *q, uint16_t type, const void *data, size_t len);
void rtnl_attr_u32(struct rtnl_request *q, uint16_t type, uint32_t value);
size_t rtnl_nest(struct rtnl_request *q, uint16_t type); /* returns what rtnl_nest_end wants */
void rtnl_nest_end(struct rtnl_request *q, size_t start);

/* Sends and waits for the acknowledgement. Errors: PERM, EXISTS, NOTFOUND, SYSTEM (errno). */
MUST_USE enum err rtnl_call(struct rtnl *r, struct rtnl_request *q);
/* Sends back a message of a dump as another request: how what was listed is deleted. */
MUST_USE enum err rtnl_resend(struct rtnl *r, struct span message, uint16_t type);
/* All messages of a dump, one after another, each padded to 4 bytes. Errors: as rtnl_call, and NOMEM. */
MUST_USE enum err rtnl_dump(struct rtnl *r, struct rtnl_request *q, struct buf *out);

/* The next message of a dump's buffer: false at its end. */
bool rtnl_next(struct span *dump, struct span *message);
/* The fixed struct of a message copied out; false when it is shorter. */
bool rtnl_body(struct span message, void *body, size_t len);
/* An attribute behind a fixed struct of body_len bytes; {NULL, 0} when there is none. */
struct span rtnl_find(struct span message, size_t body_len, uint16_t type);
struct span rtnl_find_in(struct span attributes, uint16_t type); /* one of those within another, or behind nothing */
uint32_t rtnl_find_u32(struct span message, size_t body_len, uint16_t type, uint32_t otherwise);

#endif
