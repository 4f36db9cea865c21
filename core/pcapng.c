#include "core/pcapng.h"

#include <string.h>

enum block { SECTION_HEADER = 0x0a0d0d0a, INTERFACE = 1, STATISTICS = 5, PACKET = 6 };
enum option {
    END = 0,
    COMMENT = 1,
    IF_NAME = 2,
    IF_RESOLUTION = 9,
    USER_APPLICATION = 4,
    FLAGS = 2,
    RECEIVED = 4,
    DROPPED = 5
};

#define BYTE_ORDER_MAGIC 0x1a2b3c4d /* ours is that of the cursor: big-endian */
#define LINKTYPE_RAW 101            /* IPv4 or IPv6, by its first nibble */
#define NANOSECONDS 9               /* powers of ten */
#define PACKET_MAX 65535
#define ROOM 256 /* beside packet and texts: more than any block needs */

/* Room for a block; the writer is failed if there is none. */
static struct writer block_begin(struct buf *out, enum block type, size_t size)
{
    struct writer w = {.failed = true};
    if (buf_reserve(out, out->len + size + ROOM) != OK)
        return w;
    w = writer_of(out->data + out->len, size + ROOM);
    write_u32(&w, type);
    write_u32(&w, 0); /* its length, which also stands at its end */
    return w;
}

static enum err block_end(struct buf *out, struct writer *w)
{
    uint32_t len = (uint32_t)writer_len(w) + 4;
    write_u32(w, len);
    if (w->failed)
        return ERR_NOMEM;
    put_be32(w->start + 4, len);
    out->len += len;
    return OK;
}

/* To the next multiple of four. */
static void align(struct writer *w)
{
    static const uint8_t zero[3];
    write_bytes(w, zero, (0u - writer_len(w)) & 3);
}

static void option(struct writer *w, enum option type, const void *value, size_t len)
{
    write_u16(w, (uint16_t)type);
    write_u16(w, (uint16_t)len);
    write_bytes(w, value, len);
    align(w);
}

static void option_u64(struct writer *w, enum option type, uint64_t value)
{
    uint8_t bytes[8];
    put_be64(bytes, value);
    option(w, type, bytes, sizeof bytes);
}

static void time_put(struct writer *w, ns_t wall)
{
    write_u32(w, (uint32_t)(wall >> 32));
    write_u32(w, (uint32_t)wall);
}

enum err pcapng_begin(struct buf *out, const char *name)
{
    static const char program[] = "adit " ADIT_VERSION;
    const uint8_t resolution = NANOSECONDS;
    struct writer w = block_begin(out, SECTION_HEADER, sizeof program);
    write_u32(&w, BYTE_ORDER_MAGIC);
    write_u16(&w, 1); /* version 1.0 */
    write_u16(&w, 0);
    write_u64(&w, UINT64_MAX); /* the section's length is not said */
    option(&w, USER_APPLICATION, program, sizeof program - 1);
    option(&w, END, NULL, 0);
    enum err e = block_end(out, &w);
    if (e != OK)
        return e;
    w = block_begin(out, INTERFACE, strlen(name));
    write_u16(&w, LINKTYPE_RAW);
    write_u16(&w, 0);
    write_u32(&w, 0); /* packets are never cut */
    option(&w, IF_NAME, name, strlen(name));
    option(&w, IF_RESOLUTION, &resolution, 1);
    option(&w, END, NULL, 0);
    return block_end(out, &w);
}

enum err pcapng_packet(struct buf *out, const struct pcapng_packet *p)
{
    size_t len = p->head.len + p->data.len, comment = p->comment ? strlen(p->comment) : 0;
    uint8_t flags[4];
    if (p->data.len > PACKET_MAX || len > PACKET_MAX)
        return ERR_RANGE;
    put_be32(flags, p->in ? 1 : 2);
    struct writer w = block_begin(out, PACKET, len + comment);
    write_u32(&w, 0); /* the interface */
    time_put(&w, p->wall);
    write_u32(&w, (uint32_t)len);
    write_u32(&w, (uint32_t)len);
    write_span(&w, p->head);
    write_span(&w, p->data);
    align(&w);
    option(&w, FLAGS, flags, sizeof flags);
    if (comment)
        option(&w, COMMENT, p->comment, comment);
    option(&w, END, NULL, 0);
    return block_end(out, &w);
}

enum err pcapng_end(struct buf *out, ns_t wall, uint64_t received, uint64_t dropped)
{
    struct writer w = block_begin(out, STATISTICS, 0);
    write_u32(&w, 0);
    time_put(&w, wall);
    option_u64(&w, RECEIVED, received);
    option_u64(&w, DROPPED, dropped);
    option(&w, END, NULL, 0);
    return block_end(out, &w);
}
