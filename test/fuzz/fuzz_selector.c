/* Selectors, identities and proposals from text, and flows from packets: what parses survives its own formatting. */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "policy/pad.h"
#include "policy/selector.h"

#define SEED(text)                                \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }

const struct fuzz_seed fuzz_seeds[] = {
    SEED("10.1.0.0/24, 10.1.0.5[tcp/443], ::/0[udp/1000-2000], 10.0.0.1-10.0.0.9[icmp/8]"),
    SEED("0.0.0.0/0[icmp/3(1)-4(2)],0.0.0.0/0[icmp/3(0-4)],::/0[mh/5-7],10.0.0.0/8[99/opaque]"),
    SEED("C=CH, O=Example\\, Ltd, CN=gate"),
    SEED("keyid:0x00ff41"),
    SEED("aes256gcm16-prfsha384-x25519, aes256-sha256-modp2048, default"),
    SEED("\x45\xb8\x00\x18\x00\x00\x00\x00\x40\x06\x00\x00\x0a\x01\x00\x01\x0a\x02\x00\x02\xc3\x50\x01\xbb"),
    SEED("\x60\x00\x00\x00\x00\x18\x3c\x40\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d"
         "\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x2c\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x01\x00\x00"
         "\x00\x00\x00\x35\x00\x36\x00\x08\x00\x00"),
};
const unsigned fuzz_seed_count = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

static void fuzz_selectors(const char *text)
{
    struct selectors list;
    char at[SELECTOR_TEXT], shown[SELECTOR_TEXT], all[300];
    if (selectors_parse(text, &list, at, sizeof(at)) != OK)
        return;
    selectors_format(&list, all, sizeof(all));
    for (unsigned i = 0; i < list.n; i++) {
        const struct selector *s = &list.v[i];
        struct selector again, both;
        FUZZ_CHECK(selector_parse(selector_format(s, shown), &again) == OK);
        FUZZ_CHECK(selector_equal(s, &again) && selector_within(s, &again));
        for (unsigned j = 0; j < list.n; j++)
            if (selector_intersect(s, &list.v[j], &both))
                FUZZ_CHECK(selector_within(&both, s) && selector_within(&both, &list.v[j]));
    }
}

static void fuzz_identity(const char *text, const uint8_t *data, size_t len)
{
    struct identity id, other = {.type = ID_DER_DN, .len = (uint16_t)(len < IDENTITY_MAX ? len : IDENTITY_MAX)};
    char shown[IDENTITY_TEXT], small[16];
    memcpy(other.b, data, other.len);
    identity_format(&other, shown, sizeof(shown));
    identity_format(&other, small, sizeof(small));
    FUZZ_CHECK(identity_equal(&other, &other));
    if (identity_parse(text, &id) != OK)
        return;
    FUZZ_CHECK(id.len > 0 && id.len <= IDENTITY_MAX);
    FUZZ_CHECK(identity_equal(&id, &id));
    (void)identity_equal(&id, &other);
    for (const char *c = identity_format(&id, shown, sizeof(shown)); *c; c++)
        FUZZ_CHECK(*c >= 0x20 && *c < 0x7f);
}

static void fuzz_proposals(const char *text)
{
    struct proposals p, again;
    char why[100], shown[4096];
    for (int protocol = PROTOCOL_IKE; protocol <= PROTOCOL_ESP; protocol += PROTOCOL_ESP - PROTOCOL_IKE) {
        if (proposals_parse(text, (enum protocol_id)protocol, &p, why, sizeof(why)) != OK)
            continue;
        proposals_format(&p, shown, sizeof(shown));
        FUZZ_CHECK(proposals_parse(shown, (enum protocol_id)protocol, &again, why, sizeof(why)) == OK);
        FUZZ_CHECK(proposals_equal(&p, &again));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct flow f;
    char text[2048];
    size_t n = len < sizeof(text) ? len : sizeof(text) - 1;
    if (n > 0)
        memcpy(text, data, n);
    text[n] = '\0';
    fuzz_selectors(text);
    if (len > 0)
        fuzz_identity(text, data, len);
    fuzz_proposals(text);
    if (flow_of(span_of(data, len), &f) == OK) {
        FUZZ_CHECK(f.header_len <= len);
        FUZZ_CHECK(f.packet_len == 0 || f.packet_len >= f.header_len);
        FUZZ_CHECK(f.ports_known || (f.src_port == 0 && f.dst_port == 0));
    }
    return 0;
}
