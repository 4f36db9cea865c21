#include "tun/sockopt.h"

#include <errno.h>
#include <sys/socket.h>

#include "tun/udp.h"

#define BUFFER_SIZE (7 * 1024 * 1024)

bool set_int(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

void set_buffers(int fd)
{
    if (!set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_SIZE))
        (void)set_int(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_SIZE);
    if (!set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_SIZE))
        (void)set_int(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_SIZE);
}

bool set_mark(int fd)
{
    return set_int(fd, SOL_SOCKET, SO_MARK, (int)TUN_FWMARK) || errno == EPERM;
}
