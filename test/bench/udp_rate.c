/*
 * Datagrams at a steady rate, for `make bench`:
 *   udp_rate recv PORT                       counts until told to end by its standard input; prints the count
 *   udp_rate send ADDR PORT SIZE RATE SECONDS   sends RATE datagrams a second in bursts of a millisecond; prints how many
 * sendmmsg and recvmmsg, so that the tool itself costs as little as it can.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BURST 256

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int udp_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 16 << 20;
    if (fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    return fd;
}

static int receive(uint16_t port)
{
    static uint8_t bytes[BURST][2048];
    static struct mmsghdr m[BURST];
    static struct iovec iov[BURST];
    int fd = udp_socket();
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (bind(fd, (struct sockaddr *)&at, sizeof at)) {
        perror("bind");
        return 1;
    }
    for (unsigned i = 0; i < BURST; i++) {
        iov[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    puts("ready");
    fflush(stdout);
    unsigned long long count = 0;
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        poll(p, 2, -1);
        int n = p[0].revents ? recvmmsg(fd, m, BURST, MSG_DONTWAIT, NULL) : 0;
        if (n > 0)
            count += (unsigned)n;
        else if (p[1].revents)
            break;
    }
    printf("%llu\n", count);
    return 0;
}

static int transmit(const char *to, uint16_t port, size_t size, double rate, double seconds)
{
    static uint8_t bytes[2048];
    static struct mmsghdr m[BURST];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct iovec iov = {bytes, size};
    int fd = udp_socket();
    if (size > sizeof bytes || inet_pton(AF_INET, to, &at.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&at, sizeof at))
        return 1;
    for (unsigned i = 0; i < BURST; i++)
        m[i].msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
    unsigned long long sent = 0;
    double start = now(), paused = 0, t;
    while ((t = now() - start) < seconds) {
        /* A pause is not made up for, but for a tenth of a second: that burst could be more than queues hold. */
        double behind = t - paused - (double)sent / rate;
        if (behind > 0.1)
            paused += behind - 0.1;
        unsigned long long due = (unsigned long long)((t - paused) * rate);
        if (due <= sent) {
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
            continue;
        }
        unsigned long long burst = due - sent > BURST ? BURST : due - sent;
        int n = sendmmsg(fd, m, (unsigned)burst, 0);
        if (n > 0)
            sent += (unsigned)n;
    }
    printf("%llu\n", sent);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "recv"))
        return receive((uint16_t)atoi(argv[2]));
    if (argc == 7 && !strcmp(argv[1], "send"))
        return transmit(argv[2], (uint16_t)atoi(argv[3]), (size_t)atoi(argv[4]), atof(argv[5]), atof(argv[6]));
    fputs("usage: udp_rate recv PORT | send ADDR PORT SIZE RATE SECONDS\n", stderr);
    return 2;
}
