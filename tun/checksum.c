/*
 * The Internet checksum (RFC 1071). The one's complement sum does not care about byte order (RFC 1071 section 2 (B)), so
 * the loops add words as the machine loads them, and the 16-bit result is swapped once. 16-bit halves are gathered in
 * 32-bit lanes of a vector: no carries to look after within a chunk.
 */
#include "tun/offload.h"

#include <string.h>

#define LANES_CHUNK 32768 /* vectors per chunk: two halves of 65535 in each still fit a 32-bit lane */

typedef uint32_t lanes __attribute__((vector_size(32)));

/* The sum in machine byte order, not folded. `copy` is a constant at each use, so that each use becomes its own loop. */
static inline __attribute__((always_inline)) uint64_t sum_words(bool copy, uint8_t *dst, const uint8_t *src, size_t len)
{
    uint64_t sum = 0;

    while (len >= sizeof(lanes)) {
        size_t vectors = len / sizeof(lanes);
        if (vectors > LANES_CHUNK)
            vectors = LANES_CHUNK;
        lanes low = {0}, high = {0};
        for (size_t i = 0; i < vectors; i++) {
            lanes v;
            memcpy(&v, src + i * sizeof v, sizeof v);
            if (copy)
                memcpy(dst + i * sizeof v, &v, sizeof v);
            low += v & 0xffff;
            high += v >> 16;
        }
        low += high;
        for (unsigned i = 0; i < sizeof(lanes) / sizeof(uint32_t); i++)
            sum += low[i];
        src += vectors * sizeof(lanes);
        dst += copy ? vectors * sizeof(lanes) : 0;
        len -= vectors * sizeof(lanes);
    }
    for (; len >= 4; len -= 4, src += 4, dst += copy ? 4 : 0) {
        uint32_t w;
        memcpy(&w, src, sizeof w);
        if (copy)
            memcpy(dst, &w, sizeof w);
        sum += w;
    }
    if (len) {
        /* An odd byte counts as if a zero byte followed it (RFC 1071 section 4.1). */
        uint32_t w = 0;
        memcpy(&w, src, len);
        if (copy)
            memcpy(dst, src, len);
        sum += w;
    }
    return sum;
}

static uint64_t sum_plain(const uint8_t *src, size_t len)
{
    return sum_words(false, NULL, src, len);
}

static uint64_t copy_plain(uint8_t *dst, const uint8_t *src, size_t len)
{
    return sum_words(true, dst, src, len);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *src, size_t len)
{
    return sum_words(false, NULL, src, len);
}

__attribute__((target("avx2"))) static uint64_t copy_avx2(uint8_t *dst, const uint8_t *src, size_t len)
{
    return sum_words(true, dst, src, len);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}
#else
#define sum_avx2 sum_plain
#define copy_avx2 copy_plain

static bool has_avx2(void)
{
    return false;
}
#endif

/* Adds what the loops found to a running sum of host-order values. */
static uint64_t add_words(uint64_t sum, uint64_t words)
{
    uint16_t folded = checksum_fold(words);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    folded = __builtin_bswap16(folded);
#endif
    return sum + folded;
}

uint64_t checksum_add(uint64_t sum, const uint8_t *data, size_t len)
{
    /* Short headers are not worth the question which loop to take. */
    if (len >= 64 && has_avx2())
        return add_words(sum, sum_avx2(data, len));
    return add_words(sum, sum_plain(data, len));
}

uint64_t checksum_copy(uint64_t sum, uint8_t *dst, const uint8_t *src, size_t len)
{
    if (len >= 64 && has_avx2())
        return add_words(sum, copy_avx2(dst, src, len));
    return add_words(sum, copy_plain(dst, src, len));
}

uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}
