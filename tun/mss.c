/* Lowering the maximum segment size that a TCP SYN announces (RFC 9293 section 3.7.1). */
#include "tun/offload.h"
#include "tun/packet.h"

enum tcp_option { TCP_OPTION_END = 0, TCP_OPTION_NOP = 1, TCP_OPTION_MSS = 2, TCP_OPTION_MSS_LEN = 4 };

/* The place of the MSS option's value within the TCP header, or 0. */
static uint32_t find_mss(const uint8_t *tcp, uint32_t header_len)
{
    uint32_t at = TCP_HEADER;
    while (at < header_len && tcp[at] != TCP_OPTION_END) {
        if (tcp[at] == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 2 > header_len || tcp[at + 1] < 2 || at + tcp[at + 1] > header_len)
            return 0;
        if (tcp[at] == TCP_OPTION_MSS)
            return tcp[at + 1] == TCP_OPTION_MSS_LEN ? at + 2 : 0;
        at += tcp[at + 1];
    }
    return 0;
}

static void lower_mss(uint8_t *tcp, uint32_t at, uint16_t mss)
{
    uint16_t before = get_be16(tcp + at), after = mss;
    if (before <= mss)
        return;
    put_be16(tcp + at, mss);
    if (at & 1) {
        /* Behind an odd number of NOPs the value lies across two words of the sum. */
        before = __builtin_bswap16(before);
        after = __builtin_bswap16(after);
    }
    /* HC' = ~(~HC + ~m + m'): RFC 1624 section 3, equation 3. */
    uint64_t sum = (uint64_t)(uint16_t)~get_be16(tcp + TCP_CHECKSUM) + (uint16_t)~before + after;
    put_be16(tcp + TCP_CHECKSUM, (uint16_t)~checksum_fold(sum));
}

void clamp_mss(uint8_t *packet, size_t len, uint16_t mss)
{
    struct ip_view ip;
    uint8_t protocol;
    uint32_t at;

    if (ip_view_parse(&ip, (struct span){packet, len}) != OK || ip.fragment)
        return;
    if (ip_view_transport(&ip, packet, &protocol, &at) != OK || protocol != PROTO_TCP || at + TCP_HEADER > ip.len)
        return;
    uint8_t *tcp = packet + at;
    uint32_t header_len = (uint32_t)(tcp[TCP_DATA] >> 4) * 4;
    if (!(tcp[TCP_FLAGS] & TCP_SYN) || header_len < TCP_HEADER || at + header_len > ip.len)
        return;
    uint32_t option = find_mss(tcp, header_len);
    if (option)
        lower_mss(tcp, option, mss);
}
