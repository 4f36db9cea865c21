/* Merging packets into superpackets: each rule has its case, and what is merged must come apart again as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/packets.h"
#include "tun/offload.h"

/* -- a loop that keeps what is written -- */

#define WRITES_MAX 512
#define SLOT_SIZE (4 * 1024 * 1024)

struct fixture {
    struct loop loop; /* first: the write operation finds us by it */
    struct loop_slot slot;
    uint8_t *frame[WRITES_MAX];
    size_t len[WRITES_MAX];
    unsigned pieces[WRITES_MAX];
    unsigned n;
    size_t used; /* bytes of the slot */
    struct coalescer *c;
};

static void keep_write(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov, unsigned n)
{
    struct fixture *f = (struct fixture *)l;
    size_t len = 0, at = 0;
    assert_null(io);
    assert_ptr_equal(slot, &f->slot);
    assert_in_range(n, 1, LOOP_IOV_MAX);
    for (unsigned i = 0; i < n; i++)
        len += iov[i].iov_len;
    assert_true(f->n < WRITES_MAX);
    f->frame[f->n] = malloc(len);
    for (unsigned i = 0; i < n; at += iov[i++].iov_len) {
        assert_true((uint8_t *)iov[i].iov_base >= slot->data);
        assert_true((uint8_t *)iov[i].iov_base + iov[i].iov_len <= slot->data + SLOT_SIZE);
        memcpy(f->frame[f->n] + at, iov[i].iov_base, iov[i].iov_len);
    }
    f->pieces[f->n] = n;
    f->len[f->n++] = len;
}

static const struct loop_ops keeping = {.name = "keeping", .write = keep_write};

static void forget(struct fixture *f)
{
    for (unsigned i = 0; i < f->n; i++)
        free(f->frame[i]);
    f->n = 0;
    f->used = 0;
    coalesce_begin(f->c, &f->loop, NULL, &f->slot);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->loop.ops = &keeping;
    f->slot.data = malloc(SLOT_SIZE);
    assert_int_equal(coalescer_new(&f->c, true), OK);
    forget(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    forget(f);
    coalescer_free(f->c);
    free(f->slot.data);
    free(f);
    return 0;
}

static void add_bytes(struct fixture *f, const uint8_t *packet, size_t len)
{
    uint8_t *place = f->slot.data + f->used + COALESCE_HEADROOM;
    f->used += COALESCE_HEADROOM + len;
    assert_true(f->used <= SLOT_SIZE);
    memcpy(place, packet, len);
    coalesce_add(f->c, place, (uint32_t)len);
}

static uint8_t pattern[70000];

/* Adds a packet with `len` payload bytes and moves the flow on by it. */
static void add(struct fixture *f, struct packet_spec *s, size_t len)
{
    static uint8_t packet[70000];
    for (size_t i = 0; i < sizeof pattern && pattern[1] == 0; i++)
        pattern[i] = (uint8_t)(i * 7 + i / 251);
    add_bytes(f, packet, packet_build(s, pattern + s->seq % 1000, len, packet));
    s->seq += (uint32_t)len;
    s->id++;
}

static unsigned flush(struct fixture *f)
{
    unsigned n = coalesce_flush(f->c);
    assert_int_equal(n, f->n);
    return n;
}

static uint16_t header_u16(const uint8_t *frame, size_t at)
{
    uint16_t v;
    memcpy(&v, frame + at, 2);
    return v;
}

static bool is_verbatim(const struct fixture *f, unsigned i)
{
    static const uint8_t zero[10];
    return memcmp(f->frame[i], zero, 10) == 0;
}

/* -- what is merged -- */

static void check_merged_header(const struct fixture *f, const struct packet_spec *s, uint16_t size)
{
    const uint8_t *h = f->frame[0];
    uint16_t start = s->ipv6 ? 40 : 20;
    assert_int_equal(h[0], 1);
    assert_int_equal(h[1], s->udp ? 5 : s->ipv6 ? 4 : 1);
    assert_int_equal(header_u16(h, 2), packet_headers(s));
    assert_int_equal(header_u16(h, 4), size);
    assert_int_equal(header_u16(h, 6), start);
    assert_int_equal(header_u16(h, 8), s->udp ? 6 : 16);
    assert_int_equal(get_be16(h + 10 + (s->ipv6 ? 4 : 2)), f->len[0] - 10 - (s->ipv6 ? 40 : 0));
    if (!s->ipv6)
        assert_int_equal(packet_naive_sum(0, h + 10, 20), 0xffff);
    if (s->udp)
        assert_int_equal(get_be16(h + 10 + start + 4), f->len[0] - 10 - start);
    uint32_t pseudo = (s->udp ? 17 : 6) + (uint32_t)f->len[0] - 10 - start;
    const uint8_t *addresses = h + 10 + (s->ipv6 ? 8 : 12);
    assert_int_equal(get_be16(h + 10 + start + header_u16(h, 8)),
                     packet_naive_sum(pseudo, addresses, s->ipv6 ? 32 : 8));
}

static void a_run_becomes_one_write_with_its_headers_put_right(void **state)
{
    struct fixture *f = *state;
    for (int kind = 0; kind < 4; kind++) {
        struct packet_spec s = kind & 1 ? packet_spec_udp(kind & 2) : packet_spec_tcp(kind & 2);
        struct packet_spec first = s;
        for (int i = 0; i < 4; i++)
            add(f, &s, 1000);
        add(f, &s, 999);
        assert_int_equal(flush(f), 1);
        assert_int_equal(f->pieces[0], 5);
        assert_int_equal(f->len[0], 10 + packet_headers(&first) + 4999);
        check_merged_header(f, &first, 1000);
        forget(f);
    }
}

static void a_single_packet_goes_verbatim(void **state)
{
    struct fixture *f = *state;
    uint8_t want[2000];
    struct packet_spec s = packet_spec_tcp(false);
    size_t len = packet_build(&s, pattern + s.seq % 1000, 700, want);
    add(f, &s, 700);
    assert_int_equal(flush(f), 1);
    assert_true(is_verbatim(f, 0));
    assert_int_equal(f->len[0], len + 10);
    assert_memory_equal(f->frame[0] + 20, want + 10, len - 10);
}

static void flows_are_gathered_side_by_side(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s[COALESCE_FLOWS];
    for (unsigned i = 0; i < COALESCE_FLOWS; i++) {
        s[i] = packet_spec_tcp(i & 1);
        s[i].sport = (uint16_t)(1000 + i);
    }
    for (unsigned round = 0; round < 5; round++)
        for (unsigned i = 0; i < COALESCE_FLOWS; i++)
            add(f, &s[i], 500);
    assert_int_equal(flush(f), COALESCE_FLOWS);
    for (unsigned i = 0; i < COALESCE_FLOWS; i++)
        assert_int_equal(f->pieces[i], 5);
}

static void more_flows_than_places_lose_nothing(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s[COALESCE_FLOWS + 3];
    size_t bytes = 0;
    for (unsigned i = 0; i < COALESCE_FLOWS + 3; i++) {
        s[i] = packet_spec_tcp(false);
        s[i].host = (uint8_t)(i + 1);
    }
    for (unsigned round = 0; round < 4; round++)
        for (unsigned i = 0; i < COALESCE_FLOWS + 3; i++)
            add(f, &s[i], 500);
    flush(f);
    for (unsigned i = 0; i < f->n; i++)
        bytes += f->len[i] - 10 - 52;
    assert_int_equal(bytes, (COALESCE_FLOWS + 3) * 4 * 500);
}

static void a_superpacket_stays_within_65535_bytes(void **state)
{
    struct fixture *f = *state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct packet_spec s = packet_spec_tcp(v6);
        for (int i = 0; i < 100; i++)
            add(f, &s, 1348);
        flush(f);
        assert_int_equal(f->n, 3);
        for (unsigned i = 0; i < f->n; i++)
            assert_true(f->len[i] - 10 <= 65535);
        assert_true(f->len[0] + 1348 - 10 > 65535);
        forget(f);
    }
}

static void a_superpacket_stays_within_the_pieces_of_one_write(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s = packet_spec_tcp(false), u = packet_spec_udp(false);
    for (int i = 0; i < 2 * LOOP_IOV_MAX; i++)
        add(f, &s, 100);
    assert_int_equal(flush(f), 2);
    forget(f);
    for (int i = 0; i < 128; i++)
        add(f, &u, 100);
    assert_int_equal(flush(f), 2);
    assert_int_equal(f->pieces[0], 64); /* as many as the kernel's own UDP GRO */
}

/* -- what is not -- */

/* Two packets of one flow, the second changed by `change`: merged or not. */
static unsigned pair_with(struct fixture *f, struct packet_spec s, void (*change)(struct packet_spec *))
{
    forget(f);
    add(f, &s, 500);
    change(&s);
    add(f, &s, 500);
    return flush(f);
}

static void no_change(struct packet_spec *s)
{
    (void)s;
}
static void other_source(struct packet_spec *s)
{
    s->host++;
}
static void other_sport(struct packet_spec *s)
{
    s->sport++;
}
static void other_dport(struct packet_spec *s)
{
    s->dport++;
}
static void other_protocol(struct packet_spec *s)
{
    s->udp = !s->udp;
    s->options_len = 0;
}
static void other_ttl(struct packet_spec *s)
{
    s->ttl--;
}
static void other_tos(struct packet_spec *s)
{
    s->tos ^= 0x10;
}
static void other_ecn(struct packet_spec *s)
{
    s->tos ^= 0x03;
}
static void other_df(struct packet_spec *s)
{
    s->fragment ^= 0x4000;
}
static void a_fragment(struct packet_spec *s)
{
    s->fragment = 0x2000;
}
static void a_later_fragment(struct packet_spec *s)
{
    s->fragment = 0x0010;
}
static void other_flow_label(struct packet_spec *s)
{
    s->flow_label++;
}
static void other_options(struct packet_spec *s)
{
    s->options[7]++;
}
static void other_options_len(struct packet_spec *s)
{
    s->options_len = 0;
}
static void other_ack(struct packet_spec *s)
{
    s->ack++;
}
static void other_window(struct packet_spec *s)
{
    s->window++;
}
static void other_urgent(struct packet_spec *s)
{
    s->urgent++;
}
static void seq_gap(struct packet_spec *s)
{
    s->seq += 500;
}
static void seq_again(struct packet_spec *s)
{
    s->seq -= 500;
}
static void flag_fin(struct packet_spec *s)
{
    s->flags |= 0x01;
}
static void flag_syn(struct packet_spec *s)
{
    s->flags |= 0x02;
}
static void flag_rst(struct packet_spec *s)
{
    s->flags |= 0x04;
}
static void flag_urg(struct packet_spec *s)
{
    s->flags |= 0x20;
}
static void flag_ece(struct packet_spec *s)
{
    s->flags |= 0x40;
}
static void flag_cwr(struct packet_spec *s)
{
    s->flags |= 0x80;
}
static void flag_no_ack(struct packet_spec *s)
{
    s->flags = 0;
}
static void flag_psh(struct packet_spec *s)
{
    s->flags |= 0x08;
}
static void other_id(struct packet_spec *s)
{
    s->id = (uint16_t)(s->id + 5);
}

static void only_the_same_flow_and_header_fields_merge(void **state)
{
    static void (*const any[])(struct packet_spec *) = {other_source, other_sport, other_dport, other_protocol,
                                                        other_ttl,    other_tos,   other_ecn};
    struct fixture *f = *state;
    for (int kind = 0; kind < 4; kind++) {
        struct packet_spec s = kind & 1 ? packet_spec_udp(kind & 2) : packet_spec_tcp(kind & 2);
        assert_int_equal(pair_with(f, s, no_change), 1);
        for (unsigned i = 0; i < sizeof any / sizeof any[0]; i++)
            assert_int_equal(pair_with(f, s, any[i]), 2);
        if (s.ipv6)
            assert_int_equal(pair_with(f, s, other_flow_label), 2);
    }
}

static void ipv4_fragments_and_df_do_not_merge(void **state)
{
    static void (*const v4[])(struct packet_spec *) = {other_df, a_fragment, a_later_fragment};
    struct fixture *f = *state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pair_with(f, packet_spec_tcp(false), v4[i]), 2);
        assert_int_equal(pair_with(f, packet_spec_udp(false), v4[i]), 2);
    }
}

static void ipv4_id_counts_only_without_df(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s = packet_spec_udp(false);
    assert_int_equal(pair_with(f, s, other_id), 1);
    s.fragment = 0;
    assert_int_equal(pair_with(f, s, no_change), 1);
    assert_int_equal(pair_with(f, s, other_id), 2);
}

static void only_contiguous_tcp_with_equal_fields_merges(void **state)
{
    static void (*const tcp[])(struct packet_spec *) = {other_options, other_options_len, other_ack, other_window,
                                                        other_urgent,  seq_gap,           seq_again};
    struct fixture *f = *state;
    for (int v6 = 0; v6 < 2; v6++)
        for (unsigned i = 0; i < sizeof tcp / sizeof tcp[0]; i++)
            assert_int_equal(pair_with(f, packet_spec_tcp(v6), tcp[i]), 2);
}

static void flagged_tcp_never_merges(void **state)
{
    static void (*const flag[])(struct packet_spec *) = {flag_fin, flag_syn, flag_rst,   flag_urg,
                                                         flag_ece, flag_cwr, flag_no_ack};
    struct fixture *f = *state;
    for (int v6 = 0; v6 < 2; v6++)
        for (unsigned i = 0; i < sizeof flag / sizeof flag[0]; i++) {
            struct packet_spec s = packet_spec_tcp(v6);
            assert_int_equal(pair_with(f, s, flag[i]), 2);
            flag[i](&s);
            if (flag[i] != flag_ece) /* both with ECE say the same */
                assert_int_equal(pair_with(f, s, no_change), 2);
        }
}

static void psh_ends_a_run_and_is_kept(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s = packet_spec_tcp(false);
    assert_int_equal(pair_with(f, s, flag_psh), 1);
    assert_int_equal(f->frame[0][10 + 20 + 13], 0x18);
    flag_psh(&s);
    assert_int_equal(pair_with(f, s, no_change), 2);
}

static void a_shorter_packet_ends_a_run_and_a_longer_one_starts_another(void **state)
{
    struct fixture *f = *state;
    for (int udp = 0; udp < 2; udp++) {
        struct packet_spec s = udp ? packet_spec_udp(false) : packet_spec_tcp(false);
        add(f, &s, 500);
        add(f, &s, 400);
        add(f, &s, 400);
        add(f, &s, 401);
        assert_int_equal(flush(f), 3);
        assert_int_equal(f->pieces[0], 2);
        assert_int_equal(f->pieces[1], 1);
        forget(f);
    }
}

static void a_corrupt_packet_is_never_laundered(void **state)
{
    struct fixture *f = *state;
    for (int kind = 0; kind < 4; kind++)
        for (unsigned which = 0; which < 3; which++) {
            struct packet_spec s = kind & 1 ? packet_spec_udp(kind & 2) : packet_spec_tcp(kind & 2);
            for (unsigned i = 0; i < 3; i++) {
                uint8_t packet[1000];
                size_t len = packet_build(&s, pattern, 500, packet);
                if (i == which)
                    packet[len - 3] ^= 0x40;
                add_bytes(f, packet, len);
                s.seq += 500;
                s.id++;
            }
            flush(f);
            bool found = false;
            for (unsigned i = 0; i < f->n; i++)
                found |= is_verbatim(f, i) && !packet_sound(f->frame[i] + 10, f->len[i] - 10);
            assert_true(found);
            assert_int_equal(f->n, which == 1 ? 3 : 2);
            forget(f);
        }
}

/* Adds two packets; `mangle` changes the bytes of the second after it was built. */
static unsigned pair_mangled(struct fixture *f, struct packet_spec s, size_t at, uint8_t value)
{
    uint8_t packet[1000];
    forget(f);
    add(f, &s, 500);
    size_t len = packet_build(&s, pattern, 500, packet);
    packet[at] = value;
    add_bytes(f, packet, len);
    return flush(f);
}

static void a_wrong_ip_header_is_left_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct packet_spec v4 = packet_spec_tcp(false), v6 = packet_spec_tcp(true), udp = packet_spec_udp(false);
    assert_int_equal(pair_mangled(f, v4, 10, 0), 2);   /* header checksum */
    assert_int_equal(pair_mangled(f, v4, 3, 0), 2);    /* total length */
    assert_int_equal(pair_mangled(f, v4, 0, 0x46), 2); /* options */
    assert_int_equal(pair_mangled(f, v4, 0, 0x75), 2); /* version */
    assert_int_equal(pair_mangled(f, v6, 5, 0), 2);    /* payload length */
    assert_int_equal(pair_mangled(f, v6, 6, 0), 2);    /* hop-by-hop */
    assert_int_equal(pair_mangled(f, v6, 6, 44), 2);   /* fragment */
    assert_int_equal(pair_mangled(f, udp, 25, 0), 2);  /* UDP length */
    assert_int_equal(pair_mangled(f, v4, 32, 0x40), 2);
    assert_int_equal(pair_mangled(f, v4, 32, 0xf0), 2);
}

static void udp_without_checksum_stays_alone(void **state)
{
    struct fixture *f = *state;
    uint8_t packet[1000], payload[4] = {0, 0, 9, 9};
    struct packet_spec s = packet_spec_udp(false);
    /* The one payload for which leaving the checksum out and a right checksum look the same to a sum. */
    packet_build(&s, payload, 4, packet);
    memcpy(payload, packet + 26, 2);
    size_t len = packet_build(&s, payload, 4, packet);
    assert_int_equal(get_be16(packet + 26), 0xffff);
    packet[26] = packet[27] = 0;
    add_bytes(f, packet, len);
    add_bytes(f, packet, len);
    assert_int_equal(flush(f), 2);
}

static void udp_stays_alone_where_the_device_takes_no_udp_superpackets(void **state)
{
    struct fixture *f = *state;
    coalescer_free(f->c);
    assert_int_equal(coalescer_new(&f->c, false), OK);
    forget(f);
    assert_int_equal(pair_with(f, packet_spec_udp(false), no_change), 2);
    assert_int_equal(pair_with(f, packet_spec_tcp(false), no_change), 1);
}

static void icmp_goes_verbatim_at_once(void **state)
{
    struct fixture *f = *state;
    uint8_t icmp[84] = {0x45, 0, 0, 84, 0, 1, 0x40, 0, 64, 1};
    struct packet_spec s = packet_spec_tcp(false);
    add(f, &s, 500);
    add_bytes(f, icmp, sizeof icmp);
    assert_int_equal(f->n, 1);
    assert_true(is_verbatim(f, 0));
    assert_memory_equal(f->frame[0] + 10, icmp, sizeof icmp);
    add(f, &s, 500);
    assert_int_equal(flush(f), 2); /* it does not cut the run */
}

static void order_within_a_flow_is_kept(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s = packet_spec_tcp(false), other = packet_spec_tcp(false);
    other.sport = 9;
    add(f, &other, 100);
    add(f, &s, 500);
    add(f, &s, 500);
    add(f, &s, 0); /* a bare ACK */
    assert_int_equal(f->n, 2);
    assert_int_equal(f->pieces[0], 2);
    assert_int_equal(f->len[1], 10 + 52);
    add(f, &s, 500);
    s.flags = 0x11; /* FIN */
    add(f, &s, 500);
    assert_int_equal(f->n, 4);
    assert_int_equal(get_be32(f->frame[2] + 10 + 24) + 500, get_be32(f->frame[3] + 10 + 24));
    assert_int_equal(flush(f), 5);
}

static void a_fragment_overtakes_nothing_of_its_hosts(void **state)
{
    struct fixture *f = *state;
    struct packet_spec s = packet_spec_udp(false), other = packet_spec_udp(false);
    other.host = 9;
    add(f, &other, 500);
    add(f, &s, 500);
    s.fragment = 0x2000;
    add(f, &s, 500);
    assert_int_equal(f->n, 2);
    assert_int_equal(get_be16(f->frame[1] + 10 + 6), 0x2000);
    assert_int_equal(flush(f), 3);
}

static void runts_and_garbage_go_verbatim(void **state)
{
    struct fixture *f = *state;
    uint8_t packet[200];
    for (int kind = 0; kind < 4; kind++) {
        struct packet_spec s = kind & 1 ? packet_spec_udp(kind & 2) : packet_spec_tcp(kind & 2);
        size_t len = packet_build(&s, pattern, 20, packet);
        for (size_t cut = 1; cut < len; cut++)
            add_bytes(f, packet, cut);
        flush(f);
        assert_int_equal(f->n, len - 1);
        for (unsigned i = 0; i < f->n; i++) {
            assert_true(is_verbatim(f, i));
            assert_memory_equal(f->frame[i] + 10, packet, f->len[i] - 10);
        }
        forget(f);
    }
}

/* -- property: cut, merge, cut again -- */

/* Cuts a frame into packets appended to out; returns their number. */
static unsigned cut_into(const uint8_t *frame, size_t len, uint8_t **packet, size_t *size, unsigned n)
{
    struct segments s;
    assert_int_equal(segment_begin(&s, (struct span){frame, len}), OK);
    for (uint32_t i = 0; segment_more(&s); i++, n++) {
        size[n] = segment_size(&s, i);
        packet[n] = malloc(size[n]);
        segment_next(&s, packet[n]);
    }
    return n;
}

static void round_trip(struct fixture *f, uint64_t *seed)
{
    static uint8_t *first[4096], *second[4096], frame[66000], payload[66000];
    static size_t first_len[4096], second_len[4096];
    unsigned n = 0, m = 0;
    struct packet_spec s =
        packet_random(seed) & 1 ? packet_spec_udp(packet_random(seed) & 1) : packet_spec_tcp(packet_random(seed) & 1);
    s.seq = packet_random(seed);
    s.id = (uint16_t)packet_random(seed);
    s.flags |= packet_random(seed) & 0x08;
    s.fragment = packet_random(seed) & 1 ? 0x4000 : 0;
    uint16_t gso = (uint16_t)(100 + packet_random(seed) % 1400);
    size_t len = 1 + packet_random(seed) % (s.udp ? 40u * gso : 60000u);
    if (len > 65000)
        len = 65000;
    packet_fill(seed, payload, len);
    size_t frame_len = packet_build_gso(&s, payload, len, gso, frame);
    n = cut_into(frame, frame_len, first, first_len, 0);
    forget(f);
    for (unsigned i = 0; i < n; i++) {
        assert_true(packet_sound(first[i], first_len[i]));
        add_bytes(f, first[i], first_len[i]);
    }
    flush(f);
    assert_true(f->n <= 1 + n / 64);
    for (unsigned i = 0; i < f->n; i++)
        m = cut_into(f->frame[i], f->len[i], second, second_len, m);
    assert_int_equal(m, n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(first_len[i], second_len[i]);
        assert_memory_equal(first[i], second[i], first_len[i]);
        free(first[i]);
        free(second[i]);
    }
}

static void what_was_merged_comes_apart_again_as_it_was(void **state)
{
    uint64_t seed = 42;
    for (int i = 0; i < 200; i++)
        round_trip(*state, &seed);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_run_becomes_one_write_with_its_headers_put_right),
        CASE(a_single_packet_goes_verbatim),
        CASE(flows_are_gathered_side_by_side),
        CASE(more_flows_than_places_lose_nothing),
        CASE(a_superpacket_stays_within_65535_bytes),
        CASE(a_superpacket_stays_within_the_pieces_of_one_write),
        CASE(only_the_same_flow_and_header_fields_merge),
        CASE(ipv4_fragments_and_df_do_not_merge),
        CASE(ipv4_id_counts_only_without_df),
        CASE(only_contiguous_tcp_with_equal_fields_merges),
        CASE(flagged_tcp_never_merges),
        CASE(psh_ends_a_run_and_is_kept),
        CASE(a_shorter_packet_ends_a_run_and_a_longer_one_starts_another),
        CASE(a_corrupt_packet_is_never_laundered),
        CASE(a_wrong_ip_header_is_left_as_it_is),
        CASE(udp_without_checksum_stays_alone),
        CASE(udp_stays_alone_where_the_device_takes_no_udp_superpackets),
        CASE(icmp_goes_verbatim_at_once),
        CASE(order_within_a_flow_is_kept),
        CASE(a_fragment_overtakes_nothing_of_its_hosts),
        CASE(runts_and_garbage_go_verbatim),
        CASE(what_was_merged_comes_apart_again_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
