/* Options that all sockets of the daemon are given. */
#ifndef ADIT_SOCKOPT_H
#define ADIT_SOCKOPT_H

#include <stdbool.h>

#ifndef IPV6_FLOWINFO
#define IPV6_FLOWINFO 11 /* linux/in6.h, which can't stand beside netinet/in.h */
#endif

bool set_int(int fd, int level, int option, int value);
/* As large as we may have them; the kernel caps the plain variants by net.core.[rw]mem_max. */
void set_buffers(int fd);
/* SO_MARK with TUN_FWMARK. Who may not set it may not make routing rules either, so nothing depends on it: no failure. */
bool set_mark(int fd);

#endif
