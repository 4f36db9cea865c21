/* The compiled SPD against a walk: policies and packets made of the input's bytes. */
#include "test/fuzz/fuzz.h"

#include "policy/spd.h"

#define POLICIES 40
#define FLOWS 24

/* Of few numbers, so that policies meet; and now and then of any. */
static struct ip take_ip(struct reader *r, bool six)
{
    uint8_t b[16] = {0}, how = read_u8(r);
    for (unsigned i = 0; i < (six ? 16u : 4u); i += 4)
        put_be32(b + i, how & 1 << (i / 4) ? read_u32(r) : (uint32_t)(how >> 4) << (how & 12) * 2);
    return ip_from_bytes(six ? 6 : 4, b);
}

static uint8_t take_proto(struct reader *r)
{
    static const uint8_t protos[] = {0, 6, 17, 1, 58, 135, 50, 255};
    return protos[read_u8(r) & 7];
}

static void take_selectors(struct reader *r, struct selectors *out)
{
    for (out->n = 0; out->n < 3 && !(out->n && read_u8(r) & 3); out->n++) {
        struct selector *s = &out->v[out->n];
        uint8_t how = read_u8(r);
        struct ip a = take_ip(r, how & 1), b = how & 2 ? take_ip(r, how & 1) : a;
        struct prefix p = {.ip = a, .bits = (uint8_t)(read_u8(r) % (ip_len(a.family) * 8 + 1))};
        *s = (struct selector){.proto = take_proto(r), .port_last = UINT16_MAX};
        s->range = ip_compare(&a, &b) < 0 ? (struct ip_range){a, b} : (struct ip_range){b, a};
        if (how & 4)
            s->range = prefix_range(&p);
        if (how & 8) { /* also OPAQUE, in any of its forms */
            s->port_first = how & 16 ? read_u8(r) & 3 : read_u16(r);
            s->port_last = how & 32 ? s->port_first : read_u16(r);
        }
    }
}

static struct flow take_flow(struct reader *r)
{
    uint8_t how = read_u8(r);
    struct flow f = {.src = take_ip(r, how & 1), .dst = take_ip(r, how & 1), .proto = take_proto(r)};
    f.ports_known = how & 2;
    if (f.ports_known) {
        f.src_port = how & 4 ? read_u8(r) & 3 : read_u16(r);
        f.dst_port = selector_sender_only(f.proto) ? f.src_port : how & 8 ? read_u8(r) & 3 : read_u16(r);
    }
    return f;
}

static void check(const struct spd *s, const struct flow *f, bool out)
{
    const struct spd_entry *first = NULL, *found = (out ? spd_lookup_out : spd_lookup_in)(s, f);
    for (unsigned i = 0; i < spd_count(s); i++) {
        const struct spd_entry *e = spd_at(s, i);
        if (!(out ? selectors_match_out : selectors_match_in)(e->local, e->remote, f))
            continue;
        FUZZ_CHECK(!first || e->overlapped);
        first = first ? first : e;
    }
    FUZZ_CHECK(found == first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct policy policies[POLICIES];
    struct spd_entry entries[POLICIES];
    struct reader r = reader_of(span_of(data, len));
    struct spd *s;
    unsigned n = 0;
    for (unsigned most = read_u8(&r) % (POLICIES + 1); n < most && !r.failed; n++) {
        take_selectors(&r, &policies[n].local);
        take_selectors(&r, &policies[n].remote);
        entries[n] = (struct spd_entry){.policy = &policies[n], .id = n};
    }
    FUZZ_CHECK(spd_new(&s, entries, n) == OK);
    for (unsigned i = 0; i < FLOWS && !r.failed; i++) {
        struct flow f = take_flow(&r);
        check(s, &f, false);
        check(s, &f, true);
    }
    spd_free(s);
    return 0;
}

/* Random bytes: long enough for some policies and packets. */
size_t fuzz_make_seed(unsigned i, uint8_t *out, size_t cap)
{
    uint64_t x = i + 1;
    size_t n = i < 16 && cap >= 2048 ? 256 + i * 100 : 0;
    for (size_t k = 0; k < n; k++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        out[k] = (uint8_t)(x >> 56);
    }
    return n;
}
