/* Configuration files: whatever they hold, they load or are refused with reasons, and what loaded can be printed. */
#include "test/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>

#include "policy/config_internal.h"
#include "policy/spd.h"

#define SEED(text)                                \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }

const struct fuzz_seed fuzz_seeds[] = {
    SEED("[peer office]\nendpoint = 192.0.2.2 ; comment\npsk = \"0123456789abcdef\"\nlocal = 10.1.0.0/24\n"
         "remote = 10.2.0.0/24\n"),
    SEED("\xef\xbb\xbf[host]\r\nid = C=CH, O=Example\\, Ltd, CN=gate\r\ntun = vpn0\r\naddress = 10.1.0.1/24,\r\n  "
         "2001:db8::1/64\r\nmtu = 1400\r\nlisten = 192.0.2.1, ::1\r\nport = 0\r\nworkers = auto\r\nio = epoll\r\n"
         "log = debug\r\nlog-format = json\r\nkeylog = keys\r\ncontrol = /run/x.sock\r\nroutes = no\r\n"),
    SEED("[peer road]\nendpoint = %any\nid = me@road.example\nlocal-id = keyid:0x00ff\npsk = 0x00112233\n"
         "ike = aes256gcm16-prfsha384-x25519, aes256-sha256-modp2048\nstart = no\nencap = udp\nrekey = 4h\ndpd = no\n"
         "[policy web]\npeer = road\nlocal = 10.1.0.0/24[tcp/443]\nremote = 0.0.0.0-10.0.0.9[tcp], ::/0[icmpv6/128]\n"
         "esp = aes128gcm16-noesn\nlifetime = 1h\nbytes = 10G\npackets = 1M\nreplay-window = 64\nesn = no\nmode = "
         "tunnel\n"
         "[policy lan]\naction = bypass\nlocal = 10.1.0.0/24\nremote = 10.1.0.0/24\n"),
    SEED("[peer list]\nendpoint = a.example, 192.0.2.2:4500,\n  b.example:501, [2001:db8::1]:7\npsk = \"x\"\nunique = "
         "keep\n"
         "local = 10.1.0.0/24\nremote = 10.2.0.0/24\nhold = 256\nstart = on-demand\n"),
    SEED("[peer dns]\nendpoint = [2001:db8::1]:4501\npsk = base64:AAECAwQFBgc=\nloacl = x\ncert = y\n  z\n"),
};
const unsigned fuzz_seed_count = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

static void count(void *ctx, const char *file, unsigned line, const char *text)
{
    unsigned *complaints = ctx;
    FUZZ_CHECK(file && text[0]);
    for (const char *c = text; *c; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f); /* a message stays on its line */
    (void)line;
    ++*complaints;
}

static void ignore(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    (void)file;
    (void)line;
    (void)text;
}

static void use(const struct config *c)
{
    struct spd_entry entries[64];
    struct spd *table;
    unsigned n = c->policy_count < 64 ? c->policy_count : 64;
    FILE *null = fopen("/dev/null", "w");
    FUZZ_CHECK(null);
    config_print(c, null);
    fclose(null);
    for (unsigned i = 0; i < n; i++) {
        const struct policy *p = c->policies[i];
        entries[i] = (struct spd_entry){.policy = p, .id = i};
        FUZZ_CHECK((p->action == ACTION_PROTECT) == (p->peer != NULL));
        FUZZ_CHECK(p->local.n > 0 && p->remote.n > 0 && p->esp.n > 0);
        FUZZ_CHECK(policy_equal(p, p));
    }
    for (unsigned i = 0; i < c->peer_count; i++) {
        const struct peer *p = c->peers[i];
        FUZZ_CHECK(p->psk.len > 0 && p->ike.n > 0);
        FUZZ_CHECK((p->remote_id.type == ID_NONE) == p->remote_id_any);
        FUZZ_CHECK(peer_equal(p, p));
    }
    FUZZ_CHECK(spd_new(&table, entries, n) == OK);
    spd_free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct config *c = NULL;
    unsigned errors = 0;
    const struct config_report report = {&errors, count, ignore};
    enum err e = config_parse(span_of(data, len), "fuzz.ini", false, &report, &c);
    FUZZ_CHECK((e == OK) == (c != NULL));
    FUZZ_CHECK(e == OK ? errors == 0 : errors > 0);
    if (c)
        use(c);
    config_free(c);
    return 0;
}
