/* What `adit check` prints (policy/config_print.c): the table, and every key of the ini file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policy/config_internal.h"
#include "test/vectors/auth.h"

#define TEXT 8192

struct fixture {
    char folder[64];
    struct config *config;
};

static const struct {
    const char *name, *text;
} files[] = {
    {"own.key", VECTOR_A_P256_KEY},
    {"own.crt", VECTOR_A_P256_CRT},
    {"root.crt", VECTOR_ROOT_CRT},
    {"root.crl", VECTOR_ROOT_CRL},
};
#define FILES (sizeof files / sizeof *files)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char path[128];
    assert_non_null(f);
    strcpy(f->folder, "/tmp/adit-print-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    for (size_t i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", f->folder, files[i].name);
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        assert_true(fputs(files[i].text, out) >= 0);
        assert_int_equal(fclose(out), 0);
        assert_int_equal(chmod(path, 0600), 0);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char path[128];
    for (size_t i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", f->folder, files[i].name);
        unlink(path);
    }
    rmdir(f->folder);
    config_free(f->config);
    free(f);
    return 0;
}

static void on_error(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    fail_msg("%s:%u: %s", file, line, text);
}

static void on_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)ctx;
    (void)file;
    (void)line;
    (void)text;
}

static void load(struct fixture *f, const char *text)
{
    const struct config_report report = {f, on_error, on_warning};
    char file[96];
    snprintf(file, sizeof file, "%s/adit.ini", f->folder);
    config_free(f->config);
    f->config = NULL;
    assert_int_equal(config_parse(span_of(text, strlen(text)), file, false, &report, &f->config), OK);
}

static void print(struct fixture *f, char *out, size_t size)
{
    FILE *file = fmemopen(out, size, "w");
    assert_non_null(file);
    config_print(f->config, file);
    assert_int_equal(fclose(file), 0);
}

static void the_table_is_printed_without_secrets(void **state)
{
    struct fixture *f = *state;
    char out[8192] = "";
    load(f, "[host]\naddress = 10.1.0.1/24\n[peer office]\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n"
            "local = 10.1.0.0/24, 10.3.0.0/24\nremote = 10.2.0.0/24\n[peer road]\nendpoint = %any\nid = CN=road\n"
            "psk = 0xdeadbeefdeadbeefdeadbeefdeadbeef\nike = aes256-sha256-modp2048\n[policy lan]\naction = bypass\n"
            "local = 10.1.0.0/24\nremote = 10.1.0.0/24\n[policy web]\npeer = road\nlocal = 10.1.0.0/24[tcp/443]\n"
            "remote = 10.9.0.0/24\nesp = aes128-aes256-sha256-sha512-modp2048-noesn, aes128gcm16-noesn\n");
    print(f, out, sizeof out);
    assert_string_equal(
        out, "Host: tun adit0, address 10.1.0.1/24, ports 500 and 4500, control /run/adit/adit0.sock\n\n"
             "Policies, first match wins; what matches none is discarded\n"
             "#  name    action   peer    local                 remote       mode    esp\n"
             "1  office  protect  office  10.1.0.0/24           10.2.0.0/24  tunnel  default\n"
             "                            10.3.0.0/24\n"
             "2  lan     bypass   -       10.1.0.0/24           10.1.0.0/24  -\n"
             "3  web     protect  road    10.1.0.0/24[tcp/443]  10.9.0.0/24  tunnel  aes128-aes256-sha256-sha512-\n"
             "                                                                       modp2048-noesn,\n"
             "                                                                       aes128gcm16-noesn\n"
             "\nPeers\n"
             "office: 192.0.2.2, starts at once\n"
             "    id             192.0.2.2\n"
             "    local-id       our outer address\n"
             "    auth           pre-shared key\n"
             "    ike            default\n"
             "road: any address, waits for the peer\n"
             "    id             CN=road\n"
             "    local-id       our outer address\n"
             "    auth           pre-shared key\n"
             "    ike            aes256-sha256-modp2048-prfsha256\n"
             "\nDefault proposals\n"
             "    ike  aes256gcm16-aes128gcm16-chacha20poly1305-prfsha512-prfsha384-prfsha256-x25519-ecp256-\n"
             "         ecp384-ecp521-modp4096-modp3072-modp2048,\n"
             "         aes256-aes128-sha512-sha384-sha256-prfsha512-prfsha384-prfsha256-x25519-ecp256-ecp384-\n"
             "         ecp521-modp4096-modp3072-modp2048\n"
             "    esp  aes256gcm16-aes128gcm16-chacha20poly1305-esn-noesn,\n"
             "         aes256-aes128-sha512-sha256-sha384-esn-noesn\n");
    for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 100);
}

/* -- every key -- */

#define HOST SECTION_HOST
#define PEER SECTION_PEER
#define POLICY SECTION_POLICY
#define OWN (PEER | POLICY)
#define END "[peer a]\nendpoint = 192.0.2.2\n"
#define PSK "psk = \"0123456789abcdef\"\n"
#define NETS "local = 10.1.0.0/24\nremote = 10.2.0.0/24\n"
#define CERT "key = file:own.key\ncert = own.crt\nca = root.crt\n"
#define SEED "base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define PUBLIC "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="

/* A key with another value than its default, in a section or, with a '[', in a file of its own; and what then is said. */
static const struct sample {
    unsigned sections;
    const char *key, *text, *said;
} samples[] = {
    {HOST, "id", "id = h.example", "local-id       h.example\n"},
    {HOST, "key", "[host]\nkey = " SEED "\n" END "public-key = " PUBLIC "\n" NETS, "auth           Ed25519 raw key; "},
    {HOST, "cert", "[host]\n" CERT END NETS, "auth           ECDSA P-256 certificate; "},
    {HOST, "ca", "[host]\n" CERT END NETS, "the peer's: a certificate of 1 CA\n"},
    {HOST, "crl", "[host]\n" CERT "crl = root.crl\n" END NETS, "a certificate of 1 CA, 1 CRL\n"},
    {HOST, "tun", "tun = adit7", "Host: tun adit7, "},
    {HOST, "address", "address = 10.1.0.1/24, 10.1.0.2", "address 10.1.0.1/24, 10.1.0.2/32, "},
    {HOST, "mtu", "mtu = 1300", "    mtu            1300 (default: auto)\n"},
    {HOST, "listen", "listen = 192.0.2.1, ::1", "    listen         192.0.2.1, ::1 (default: all addresses)\n"},
    {HOST, "port", "port = 0", ", port 4500, "},
    {HOST, "nat-port", "nat-port = 14500", ", ports 500 and 14500, "},
    {HOST, "workers", "workers = 2", "    workers        2 (default: auto)\n"},
    {HOST, "half-open", "half-open = 50", "    half-open      50 (default: 1000)\n"},
    {HOST, "cookies", "cookies = always", "    cookies        always (default: auto)\n"},
    {HOST, "io", "io = epoll", "    io             epoll (default: auto)\n"},
    {HOST, "crypto", "crypto = sodium", "    crypto         sodium (default: auto)\n"},
    {HOST, "routes", "routes = no", "    routes         no (default: auto)\n"},
    {HOST, "log", "log = debug", "    log            debug (default: info)\n"},
    {HOST, "log-format", "log-format = json", "    log-format     json (default: text)\n"},
    {HOST, "keylog", "keylog = /tmp/k", "    keylog         /tmp/k (default: no)\n"},
    {HOST, "audit", "audit = no", "    audit          no (default: yes)\n"},
    {HOST, "flow-log-file", "flow-log-file = /tmp/f", "    flow-log-file  /tmp/f (default: the log)\n"},
    {HOST, "control", "control = /tmp/c", ", control /tmp/c\n"},
    {HOST, "firewall", "firewall = no", "    firewall       no (default: auto)\n"},

    {PEER, "endpoint", "[peer a]\nendpoint = w.example, 192.0.2.7:4500\n" PSK NETS, "a: w.example, 192.0.2.7:4500, "},
    {PEER, "id", "id = w.example", "    id             w.example\n"},
    {PEER, "local-id", "local-id = h.example", "    local-id       h.example\n"},
    {PEER, "psk", "[host]\n" CERT END PSK NETS, "    auth           pre-shared key\n"},
    {PEER, "key", END "key = " SEED "\npublic-key = " PUBLIC "\n" NETS, "auth           Ed25519 raw key; "},
    {PEER, "cert", END CERT NETS, "auth           ECDSA P-256 certificate; "},
    {PEER, "ca", END CERT NETS, "the peer's: a certificate of 1 CA\n"},
    {PEER, "public-key", END "key = " SEED "\npublic-key = " PUBLIC "\n" NETS, "the peer's: Ed25519 raw key\n"},
    {PEER, "auth", END PSK "auth = psk, pubkey\nca = root.crt\n" NETS, "pre-shared key; the peer's: a certificate"},
    {PEER, "ike", "ike = aes128-sha256-x25519", "    ike            aes128-sha256-x25519-prfsha256\n"},
    {PEER, "start", "start = on-demand", ", starts on demand\n"},
    {PEER, "encap", "encap = raw", "    encap          raw (default: auto)\n"},
    {PEER, "rekey", "rekey = 90m", "    rekey          90m (default: 4h)\n"},
    {PEER, "reauth", "reauth = 2d", "    reauth         2d (default: no)\n"},
    {PEER, "dpd", "dpd = no", "    dpd            no (default: 30s)\n"},
    {PEER, "childless", "childless = never", "    childless      never (default: allow)\n"},
    {PEER, "ppk", "ppk = \"0123456789abcdef\"\nppk-id = p1", "    ppk            p1, used where the peer has it too\n"},
    {PEER, "ppk-id", "ppk = \"0123456789abcdef\"\nppk-id = p2", "    ppk            p2, "},
    {PEER, "ppk-required", "ppk = \"0123456789abcdef\"\nppk-id = p\nppk-required = yes", "p, required\n"},
    {PEER, "mobike", "mobike = no", "    mobike         no (default: yes)\n"},
    {PEER, "pmtu", "pmtu = icmp", "    pmtu           icmp (default: probe)\n"},
    {PEER, "unique", "unique = keep", "    unique         keep (default: no)\n"},
    {PEER, "fragmentation", "fragmentation = no", "    fragmentation  no (default: yes)\n"},
    {PEER, "window", "window = 8", "    window         8 (default: 1)\n"},

    {POLICY, "action", "[policy b]\naction = discard\n" NETS, "1  b     discard  "},
    {POLICY, "peer", END PSK "[policy b]\npeer = a\n" NETS, "1  b     protect  a     "},
    {OWN, "local",
     END PSK "local = 10.9.0.9[tcp]\nremote = 10.2.0.0/24\n[policy b]\npeer = a\nlocal = 10.9.0.8\n"
             "remote = 10.2.0.0/24",
     "10.9.0.8/32       10.2.0.0/24"},
    {OWN, "remote",
     END PSK "local = 10.1.0.0/24\nremote = 10.3.0.0/24\n[policy b]\npeer = a\nlocal = 10.1.0.0/24\n"
             "remote = 10.4.0.0/24[udp/53]",
     "10.1.0.0/24  10.4.0.0/24[udp/53]"},
    {OWN, "mode", "mode = transport-only", "  transport-only  "},
    {OWN, "esp", "esp = aes128gcm16-noesn", "  aes128gcm16-noesn\n"},
    {OWN, "ah", "ah = sha512-noesn", "  AH: sha512-noesn\n"},
    {OWN, "esn", "esn = no", "    esn            no (default: yes)\n"},
    {OWN, "lifetime", "lifetime = 90s", "    lifetime       90s (default: 1h)\n"},
    {OWN, "bytes", "bytes = 2048M", "    bytes          2G (default: what is safe for the suite)\n"},
    {OWN, "packets", "packets = 5000", "    packets        5K (default: what is safe for the suite)\n"},
    {OWN, "replay-window", "replay-window = 64", "    replay-window  64 (default: 1024)\n"},
    {OWN, "hold", "hold = 0", "    hold           0 (default: 16)\n"},
    {OWN, "dscp", "dscp = 46:34, 10:0", "    dscp           10:0, 46:34 (default: copy)\n"},
    {OWN, "ecn", "ecn = no", "    ecn            no (default: yes)\n"},
    {OWN, "df", "df = copy", "    df             copy (default: clear)\n"},
    {OWN, "tfc", "tfc = 256, mtu", "    tfc            256, mtu (default: no)\n"},
    {OWN, "dummies", "dummies = 5", "    dummies        5 (default: 0)\n"},
    {OWN, "mss", "mss = no", "    mss            no (default: auto)\n"},
    {OWN, "fragment", "fragment = before", "    fragment       before (default: after)\n"},
    {OWN, "fail-open", "fail-open = yes", "    fail-open      yes (default: no)\n"},
    {OWN, "icmp", "icmp = no", "    icmp           no (default: too-big)\n"},
    {OWN, "flow-log", "flow-log = yes", "    flow-log       yes (default: no)\n"},
};
#define SAMPLES (sizeof samples / sizeof *samples)

static const struct sample *sample_of(const struct key *k, unsigned section)
{
    for (size_t i = 0; i < SAMPLES; i++)
        if ((samples[i].sections & section) && strcmp(samples[i].key, k->name) == 0)
            return &samples[i];
    return NULL;
}

/* A configuration with the text in a section of that kind, or without one. */
static void write_with(unsigned section, const char *text, char *out)
{
    if (*text == '[')
        snprintf(out, TEXT, "%s", text);
    else
        snprintf(out, TEXT, "[host]\n%s\n" END PSK NETS "%s\n[policy b]\npeer = a\n" NETS "%s\n",
                 section == HOST ? text : "", section == PEER ? text : "", section == POLICY ? text : "");
}

/* Keys come and go by the table: a new one without a sample here fails. */
static void every_key_is_shown(void **state)
{
    struct fixture *f = *state;
    char text[TEXT], plain[TEXT] = "", out[TEXT];
    const struct key *k;
    write_with(HOST, "", text);
    load(f, text);
    print(f, plain, sizeof plain);
    for (unsigned i = 0; (k = key_at(i)) != NULL; i++) {
        for (unsigned section = HOST; section <= POLICY; section *= 2) {
            const struct sample *s = sample_of(k, section);
            if (!(k->sections & section) || (!k->apply && k->field.kind == FIELD_NONE))
                continue;
            if (!s)
                fail_msg("there is no sample of '%s' in [%s]", k->name, section_kind_name((enum section_kind)section));
            write_with(section, s->text, text);
            load(f, text);
            print(f, out, sizeof out);
            if (!strstr(out, s->said) || (strstr(plain, s->said) && s->text[0] != '['))
                fail_msg("%s\nis not shown as\n%s\nin\n%s", s->text, s->said, out);
        }
    }
}

/* As few lines as there is to say. */
static void defaults_are_not_repeated(void **state)
{
    struct fixture *f = *state;
    char out[TEXT] = "";
    load(f, END PSK NETS "rekey = 4h\nlifetime = 60m\nmss = auto\ntfc = no\n");
    print(f, out, sizeof out);
    assert_null(strstr(out, "default:"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_table_is_printed_without_secrets),
        TEST(every_key_is_shown),
        TEST(defaults_are_not_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
