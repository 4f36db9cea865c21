/*
 * The Internet checksum (RFC 1071). The one's complement sum does not care about byte order (RFC 1071 section 2 (B)),
 * so the loops add words as the machine loads them, and the 16-bit result is swapped once. 16-bit halves are gathered
 * in 32-bit lanes of a vector: no carries to look after within a chunk.
 */
#include "tun/offload.h"

#include <string.h>

#define LANES_CHUNK 32768 /* vectors per chunk: two halves of 65535 in each still fit a 32-bit lane */
#define SHORT 64          /* bytes below which the words alone are quicker */

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/*
 * A loop over whole vectors of one width, for a machine that has them that wide. `copy` is a constant at each use, so
 * that each use becomes a loop of its own.
 */
#define DEFINE_SUM_VECTORS(name, width)                                                      \
    ALWAYS_INLINE uint64_t name(bool copy, uint8_t *dst, const uint8_t *src, size_t vectors) \
    {                                                                                        \
        typedef uint32_t lanes __attribute__((vector_size(width)));                          \
        lanes low = {0}, high = {0};                                                         \
        uint64_t sum = 0;                                                                    \
        for (size_t i = 0; i < vectors; i++) {                                               \
            lanes v;                                                                         \
            memcpy(&v, src + i * sizeof v, sizeof v);                                        \
            if (copy)                                                                        \
                memcpy(dst + i * sizeof v, &v, sizeof v);                                    \
            low += v & 0xffff;                                                               \
            high += v >> 16;                                                                 \
        }                                                                                    \
        low += high;                                                                         \
        for (unsigned i = 0; i < sizeof(lanes) / sizeof(uint32_t); i++)                      \
            sum += low[i];                                                                   \
        return sum;                                                                          \
    }

DEFINE_SUM_VECTORS(sum_vectors_16, 16)
DEFINE_SUM_VECTORS(sum_vectors_32, 32)

/* The sum in machine byte order, not folded, word by word. */
ALWAYS_INLINE uint64_t sum_words(bool copy, uint8_t *dst, const uint8_t *src, size_t len)
{
    uint64_t sum = 0;

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

/* The same by vectors, and the rest by words. width: 16 or 32, a constant as well. */
ALWAYS_INLINE uint64_t sum_long(size_t width, bool copy, uint8_t *dst, const uint8_t *src, size_t len)
{
    uint64_t sum = 0;

    while (len >= width) {
        size_t vectors = len / width < LANES_CHUNK ? len / width : LANES_CHUNK;
        sum += width == 32 ? sum_vectors_32(copy, dst, src, vectors) : sum_vectors_16(copy, dst, src, vectors);
        src += vectors * width;
        dst += copy ? vectors * width : 0;
        len -= vectors * width;
    }
    return sum + sum_words(copy, dst, src, len);
}

static uint64_t sum_plain(const uint8_t *src, size_t len)
{
    return sum_long(16, false, NULL, src, len);
}

static uint64_t copy_plain(uint8_t *dst, const uint8_t *src, size_t len)
{
    return sum_long(16, true, dst, src, len);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *src, size_t len)
{
    return sum_long(32, false, NULL, src, len);
}

__attribute__((target("avx2"))) static uint64_t copy_avx2(uint8_t *dst, const uint8_t *src, size_t len)
{
    return sum_long(32, true, dst, src, len);
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
    if (len < SHORT)
        return add_words(sum, sum_words(false, NULL, data, len));
    return add_words(sum, has_avx2() ? sum_avx2(data, len) : sum_plain(data, len));
}

uint64_t checksum_copy(uint64_t sum, uint8_t *dst, const uint8_t *src, size_t len)
{
    if (len < SHORT)
        return add_words(sum, sum_words(true, dst, src, len));
    return add_words(sum, has_avx2() ? copy_avx2(dst, src, len) : copy_plain(dst, src, len));
}

uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}
