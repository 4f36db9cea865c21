/* Captures: what the workers copy, the headers that are put around it, and the blocks that are made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/pcapng.h"
#include "core/tap.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;
static uint8_t frame[2048], sent[2048];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

/* -- blocks -- */

/* The next block: its type and body, after both lengths were compared. */
static uint32_t next_block(struct reader *r, struct span *body)
{
    uint32_t type = read_u32(r), len = read_u32(r);
    assert_true(len >= 12 && len % 4 == 0);
    *body = read_span(r, len - 12);
    assert_int_equal(read_u32(r), len);
    assert_false(r->failed);
    return type;
}

/* The value of an option; the list must end as it should. */
static struct span option_of(struct reader *r, uint16_t wanted)
{
    struct span found = {NULL, 0};
    for (;;) {
        uint16_t type = read_u16(r), len = read_u16(r);
        struct span value = read_span(r, len);
        read_span(r, (4 - len % 4) % 4);
        assert_false(r->failed);
        if (type == wanted)
            found = value;
        if (type == 0)
            break;
    }
    assert_true(reader_done(r));
    return found;
}

static void blocks_are_as_the_format_says(void **state)
{
    (void)state;
    struct buf b = {0};
    const struct pcapng_packet packet = {.wall = 0x1122334455667788,
                                         .in = true,
                                         .head = span_of("abc", 3),
                                         .data = span_of("defg", 4),
                                         .comment = "five!"};
    struct span body, value;
    assert_int_equal(pcapng_begin(&b, "some name"), OK);
    assert_int_equal(pcapng_packet(&b, &packet), OK);
    assert_int_equal(pcapng_end(&b, 5, 7, 2), OK);
    struct reader r = reader_of(buf_span(&b)), in;

    assert_int_equal(next_block(&r, &body), 0x0a0d0d0a);
    in = reader_of(body);
    assert_int_equal(read_u32(&in), 0x1a2b3c4d);
    assert_int_equal(read_u32(&in), 0x00010000);
    assert_int_equal(read_u64(&in), UINT64_MAX);
    value = option_of(&in, 4);
    assert_memory_equal(value.data, "adit ", 5);

    assert_int_equal(next_block(&r, &body), 1);
    in = reader_of(body);
    assert_int_equal(read_u16(&in), 101);
    read_u16(&in);
    assert_int_equal(read_u32(&in), 0);
    struct reader again = in;
    value = option_of(&in, 2);
    assert_true(span_equal(value, span_of("some name", 9)));
    value = option_of(&again, 9);
    assert_true(span_equal(value, span_of("\x09", 1)));

    assert_int_equal(next_block(&r, &body), 6);
    in = reader_of(body);
    assert_int_equal(read_u32(&in), 0);
    assert_int_equal(read_u64(&in), 0x1122334455667788);
    assert_int_equal(read_u32(&in), 7);
    assert_int_equal(read_u32(&in), 7);
    value = read_span(&in, 8);
    assert_memory_equal(value.data, "abcdefg", 8);
    again = in;
    value = option_of(&in, 2);
    assert_true(span_equal(value, span_of("\0\0\0\1", 4)));
    value = option_of(&again, 1);
    assert_true(span_equal(value, span_of("five!", 5)));

    assert_int_equal(next_block(&r, &body), 5);
    in = reader_of(body);
    assert_int_equal(read_u32(&in), 0);
    assert_int_equal(read_u64(&in), 5);
    again = in;
    value = option_of(&in, 4);
    assert_int_equal(get_be64(value.data), 7);
    value = option_of(&again, 5);
    assert_int_equal(get_be64(value.data), 2);
    assert_true(reader_done(&r));
    buf_free(&b);
}

static void packets_longer_than_ip_has_are_refused(void **state)
{
    (void)state;
    static uint8_t big[65536];
    struct buf b = {0};
    struct pcapng_packet p = {.data = span_of(big, 65535)};
    assert_int_equal(pcapng_packet(&b, &p), OK);
    p.data.len = 65536;
    assert_int_equal(pcapng_packet(&b, &p), ERR_RANGE);
    p.data.len = 65535;
    p.head = span_of(big, 1);
    assert_int_equal(pcapng_packet(&b, &p), ERR_RANGE);
    buf_free(&b);
}

static void headers_are_whole_and_summed(void **state)
{
    (void)state;
    static const char *const from[] = {"192.0.2.1", "2001:db8::1"}, *const to[] = {"192.0.2.2", "2001:db8::2"};
    for (unsigned v6 = 0; v6 < 2; v6++) {
        uint8_t packet[TAP_HEADERS + 200];
        struct tap_packet p = {.protocol = 17, .udp = true};
        assert_int_equal(ip_parse(from[v6], &p.from.ip), OK);
        assert_int_equal(ip_parse(to[v6], &p.to.ip), OK);
        p.from.port = p.to.port = 4500;
        for (size_t len = 8; len < 150; len += 13) {
            uint64_t random = len;
            packet_fill(&random, sent, len);
            size_t n = tap_headers(&p, span_of(sent, len), packet);
            assert_int_equal(n, v6 ? 48 : 28);
            memcpy(packet + n, sent, len);
            assert_true(packet_sound(packet, n + len));
        }
        p.udp = false;
        p.protocol = 50;
        assert_int_equal(tap_headers(&p, span_of(sent, 10), packet), v6 ? 40 : 20);
        p.protocol = 0;
        assert_int_equal(tap_headers(&p, span_of(sent, 10), packet), 0);
    }
}

/* -- what the workers copy -- */

static struct tap *tap_set(unsigned host, unsigned i, const char *peer, enum tap_side side)
{
    struct taps *taps = &rig.host[host].shared.taps;
    struct tap *t;
    assert_int_equal(tap_new(&t, peer, side, 1), OK);
    atomic_store(&taps->v[i], t);
    atomic_fetch_add(&taps->count, 1);
    return t;
}

static void tap_drop(unsigned host, unsigned i)
{
    struct taps *taps = &rig.host[host].shared.taps;
    struct tap *t = atomic_exchange(&taps->v[i], NULL);
    atomic_fetch_sub(&taps->count, 1);
    tap_free(t);
}

static size_t send_udp(size_t len)
{
    struct packet_spec s = packet_spec_udp(false);
    uint8_t payload[1500];
    uint64_t random = len;
    packet_fill(&random, payload, len);
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, payload, len, frame + TUN_HDR_LEN);
    memcpy(sent, frame + TUN_HDR_LEN, n);
    assert_int_equal(memory_tun_inject(rig.net, rig.host[0].tun, frame, TUN_HDR_LEN + n), OK);
    rig_run(&rig, 3 * NS_PER_MS);
    return n;
}

static bool take(struct tap *t, struct tap_packet *p, struct span *bytes)
{
    uint32_t type;
    struct span record;
    if (!ring_peek(t->workers[0].ring, &type, &record))
        return false;
    memcpy(p, record.data, sizeof *p);
    *bytes = span_of(record.data + sizeof *p, record.len - sizeof *p);
    return true;
}

static void both_sides_of_both_ends(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "tfc = mtu\ndummies = 20\n");
    rig_up(&rig);
    rig.keep_wire = true;
    struct tap *t[4];
    struct tap *nobody = tap_set(0, 2, "nobody", TAP_PLAIN);
    size_t len;
    while (true) { /* until no dummy comes in between */
        for (unsigned i = 0; i < 4; i++)
            t[i] = tap_set(i / 2, i % 2, "other", i % 2 ? TAP_WIRE : TAP_PLAIN);
        rig.wire_count = 0;
        len = send_udp(700);
        unsigned alone = rig.wire_count == 1;
        for (unsigned i = 0; i < 4; i++)
            alone &= atomic_load(&t[i]->workers[0].seen) == 1;
        if (alone)
            break;
        for (unsigned i = 0; i < 4; i++)
            tap_drop(i / 2, i % 2);
    }
    unsigned real = 0;
    for (unsigned i = 0; i < 4; i++) {
        struct tap_packet p;
        struct span bytes = {NULL, 0};
        bool in = i >= 2;
        assert_true(take(t[i], &p, &bytes));
        assert_int_equal(p.in, in);
        assert_true(endpoint_equal(&p.from, &rig.wire[real].from));
        assert_true(endpoint_equal(&p.to, &rig.wire[real].to));
        if (i & 1)
            assert_true(span_equal(bytes, span_of(rig.wire[0].data, rig.wire[0].len)));
        else
            assert_true(span_equal(bytes, span_of(sent, len)));
        assert_int_equal(p.udp, i & 1);
        ring_pop(t[i]->workers[0].ring);
    }
    rig_run(&rig, NS_PER_S);
    struct tap_packet p;
    struct span bytes;
    assert_false(take(t[0], &p, &bytes) || take(t[2], &p, &bytes)); /* dummies are packets of the wire alone */
    assert_true(atomic_load(&t[1]->workers[0].seen) > 10);
    assert_int_equal(atomic_load(&nobody->workers[0].seen), 0);
    for (unsigned i = 0; i < 4; i++)
        tap_free(t[i]);
    tap_free(nobody);
}

/* AH has no UDP around it, and hides nothing. */
static void captures_of_ah_are_whole_packets(void **state)
{
    (void)state;
    rig_setup(&rig, 3, "ah = sha256\n");
    rig_up(&rig);
    rig_run(&rig, 100 * NS_PER_MS);
    rig.wire_count = 0;
    rig.keep_wire = true;
    struct tap *t[4] = {tap_set(0, 0, "other", TAP_PLAIN), tap_set(0, 1, "other", TAP_WIRE),
                        tap_set(1, 0, "other", TAP_PLAIN), tap_set(1, 1, "other", TAP_WIRE)};
    size_t len = send_udp(700);
    for (unsigned i = 0; i < 4; i++) {
        struct tap_packet p;
        struct span bytes = {NULL, 0};
        assert_true(take(t[i], &p, &bytes));
        assert_int_equal(p.protocol, 0);
        if (i & 1) {
            assert_int_equal(bytes.len, rig.wire[0].len);
            assert_int_equal(bytes.data[9], 51);
            assert_memory_equal(bytes.data + 20, rig.wire[0].data + 20, bytes.len - 20);
        } else {
            assert_true(span_equal(bytes, span_of(sent, len)));
        }
        tap_free(t[i]);
    }
}

static void what_finds_no_room_is_counted_and_passes(void **state)
{
    (void)state;
    rig_setup(&rig, 2, "");
    rig_up(&rig);
    struct tap *t = tap_set(0, 0, "other", TAP_PLAIN);
    for (unsigned i = 0; i < 4000; i++)
        send_udp(1300);
    uint64_t lost = atomic_load(&t->workers[0].lost);
    assert_true(lost > 500 && lost < 2000);
    assert_int_equal(atomic_load(&t->workers[0].seen), 4000);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 4000);
    tap_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_as_the_format_says),
        cmocka_unit_test(packets_longer_than_ip_has_are_refused),
        cmocka_unit_test(headers_are_whole_and_summed),
        cmocka_unit_test_teardown(both_sides_of_both_ends, teardown),
        cmocka_unit_test_teardown(captures_of_ah_are_whole_packets, teardown),
        cmocka_unit_test_teardown(what_finds_no_room_is_counted_and_passes, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
