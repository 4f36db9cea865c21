/* Notices from the kernel that links, addresses, routes, rules or packet filters of this network namespace have changed. */
#ifndef ADIT_WATCH_H
#define ADIT_WATCH_H

#include <stdbool.h>

#include "tun/netlink.h"

/* What may have come about, as bits. */
enum watch_news {
    WATCH_CHANGED = 1, /* this host is reached, or reaches others, in another way */
    WATCH_LOST = 2,    /* what a daemon added is gone, or may be: the kernel takes routes along without a word */
    WATCH_TAKEN = 4,   /* routes of its own certainly are */
    WATCH_DOWN = 8,    /* its TUN is down, or was */
    WATCH_STRICT = 16  /* a reverse-path filter that was to be loose */
};

/* A non-blocking descriptor that is readable when there are notices. Errors: SYSTEM. */
MUST_USE enum err watch_open(int *fd);
/*
 * Takes what is there, at most a few hundred notices at a time. n: what the daemon added; its own changes are no news.
 * tun: its TUN. Notices that were lost may have been anything.
 */
unsigned watch_read(int fd, const struct netlink *n, int tun);

/* The same for tables of nftables. Errors: SYSTEM. */
MUST_USE enum err watch_filter_open(int *fd);
bool watch_filter_read(int fd); /* true: one was removed, perhaps to be replaced */

#endif
