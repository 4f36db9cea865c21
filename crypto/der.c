#include "crypto/der.h"

#define LONG_1 0x81 /* one byte of length follows, two bytes follow, three bytes follow */
#define LONG_2 0x82
#define LONG_3 0x83

static size_t read_length(struct reader *r)
{
    const uint8_t first = read_u8(r);
    if (first < 0x80)
        return first;
    size_t len = 0;
    if (first == LONG_1 && (len = read_u8(r)) >= 0x80)
        return len;
    if (first == LONG_2 && (len = read_u16(r)) >= 0x100)
        return len;
    if (first == LONG_3 && (len = (size_t)read_u8(r) << 16, len |= read_u16(r)) >= 0x10000)
        return len;
    r->failed = true; /* indefinite, longer than any list of certificates, or not the shortest form */
    return 0;
}

struct span der_read(struct reader *r, uint8_t tag)
{
    if (read_u8(r) != tag)
        r->failed = true;
    return read_span(r, read_length(r));
}

struct reader der_enter(struct reader *r, uint8_t tag)
{
    struct reader inner = reader_of(der_read(r, tag));
    inner.failed = r->failed;
    return inner;
}

struct reader der_enter_any(struct reader *r, uint8_t *tag)
{
    *tag = read_u8(r);
    if ((*tag & 0x1f) == 0x1f) /* a number that goes on in further bytes: nothing here has one */
        r->failed = true;
    return read_sub(r, read_length(r));
}

struct span der_read_whole(struct reader *r)
{
    const uint8_t *start = r->at;
    uint8_t tag;
    struct reader content = der_enter_any(r, &tag);
    return content.failed ? (struct span){NULL, 0} : span_of(start, (size_t)(r->at - start));
}

bool der_read_default_false(struct reader *r)
{
    if (!der_next_is(r, DER_BOOLEAN))
        return false;
    struct span value = der_read(r, DER_BOOLEAN);
    if (value.len != 1 || (value.data[0] != 0 && value.data[0] != 0xff)) /* X.690 section 11.1 */
        r->failed = true;
    return value.len > 0 && value.data[0] != 0;
}

bool der_next_is(const struct reader *r, uint8_t tag)
{
    return reader_left(r) > 0 && r->at[0] == tag;
}

void der_read_uint(struct reader *r, uint8_t *out, size_t n)
{
    struct span v = der_read(r, DER_INTEGER);
    memset(out, 0, n);
    if (r->failed)
        return;
    const bool zero_first = v.len > 1 && v.data[0] == 0;
    if (v.len == 0 || v.data[0] & 0x80 || (zero_first && !(v.data[1] & 0x80))) {
        r->failed = true; /* empty, negative, or a zero too many */
        return;
    }
    if (zero_first)
        v = span_of(v.data + 1, v.len - 1);
    if (v.len > n) {
        r->failed = true;
        return;
    }
    memcpy(out + n - v.len, v.data, v.len);
}

size_t der_size(size_t len)
{
    return 1 + (len < 0x80 ? 1 : len < 0x100 ? 2 : 3) + len;
}

void der_write_head(struct writer *w, uint8_t tag, size_t len)
{
    write_u8(w, tag);
    if (len >= 0x100) {
        write_u8(w, LONG_2);
        write_u16(w, (uint16_t)len);
        return;
    }
    if (len >= 0x80)
        write_u8(w, LONG_1);
    write_u8(w, (uint8_t)len);
}

static struct span without_zeroes(struct span v)
{
    while (v.len > 1 && v.data[0] == 0)
        v = span_of(v.data + 1, v.len - 1);
    return v;
}

size_t der_uint_len(struct span value)
{
    const struct span v = without_zeroes(value);
    return 2 + (v.data[0] >> 7) + v.len;
}

void der_write_uint(struct writer *w, struct span value)
{
    const struct span v = without_zeroes(value);
    der_write_head(w, DER_INTEGER, der_uint_len(value) - 2);
    if (v.data[0] & 0x80)
        write_u8(w, 0); /* or it would be negative */
    write_span(w, v);
}
