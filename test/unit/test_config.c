/* The ini file (policy/config.h): values, defaults, every complaint with its line, and the edges of inih. */
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

#include "policy/config.h"

struct fixture {
    char folder[64], file[96];
    char log[16384]; /* "LINE: text\n", warnings with "warning: " */
    struct config *config;
};

static void note(struct fixture *f, const char *kind, unsigned line, const char *text)
{
    size_t used = strlen(f->log);
    snprintf(f->log + used, sizeof(f->log) - used, "%u: %s%s\n", line, kind, text);
}

static void on_error(void *ctx, const char *file, unsigned line, const char *text)
{
    struct fixture *f = ctx;
    assert_string_equal(file, f->file);
    note(f, "", line, text);
}

static void on_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    struct fixture *f = ctx;
    assert_string_equal(file, f->file);
    note(f, "warning: ", line, text);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    strcpy(f->folder, "/tmp/adit-config-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->file, sizeof(f->file), "%s/adit.ini", f->folder);
    *state = f;
    return 0;
}

static const char *const secrets[] = {"adit.ini", "good.psk", "open.psk", "empty.psk", "long.psk", "link"};

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", f->folder, secrets[i]);
        unlink(path);
    }
    rmdir(f->folder);
    config_free(f->config);
    free(f);
    return 0;
}

static void write_file(struct fixture *f, const char *name, const void *data, size_t len, mode_t mode)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static enum err load_bytes(struct fixture *f, const void *data, size_t len)
{
    const struct config_report report = {f, on_error, on_warning};
    write_file(f, "adit.ini", data, len, 0600);
    config_free(f->config);
    f->config = NULL;
    f->log[0] = '\0';
    return config_load(f->file, &report, &f->config);
}

static enum err load(struct fixture *f, const char *text)
{
    return load_bytes(f, text, strlen(text));
}

/* The file must load with exactly these complaints (warnings). */
static const struct config *good(struct fixture *f, const char *text, const char *log)
{
    enum err e = load(f, text);
    assert_string_equal(f->log, log);
    assert_int_equal(e, OK);
    return f->config;
}

/* The file must be refused with exactly these complaints. */
static void bad(struct fixture *f, const char *text, const char *log)
{
    enum err e = load(f, text);
    assert_string_equal(f->log, log);
    assert_int_equal(e, ERR_SYNTAX);
    assert_null(f->config);
}

#define PEER "[peer a]\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n"
#define NETS "local = 10.1.0.0/24\nremote = 10.2.0.0/24\n"
#define LINK PEER NETS

#ifdef HAVE_IPSEC_MB
#define WITH_IPSEC_MB " or ipsec-mb"
#else
#define WITH_IPSEC_MB ""
#endif

/* -- what loads -- */

static void four_lines_are_a_link(void **state)
{
    char text[IDENTITY_TEXT];
    const struct config *c = good(*state, LINK, "");
    const struct peer *p = config_peer(c, "a");
    const struct policy *own = config_policy(c, "a");
    struct proposals builtin;
    assert_int_equal(c->peer_count, 1);
    assert_int_equal(c->policy_count, 1);
    assert_non_null(p);
    assert_non_null(own);
    assert_int_equal(p->line, 1);
    assert_int_equal(p->endpoint_count, 1);
    assert_int_equal(p->endpoints[0].at.port, 500);
    assert_false(p->endpoint_any);
    assert_int_equal(p->local_id.type, ID_NONE);
    assert_string_equal(identity_format(&p->remote_id, text, sizeof(text)), "192.0.2.2");
    assert_int_equal(p->psk.len, 16);
    assert_memory_equal(p->psk.b, "0123456789abcdef", 16);
    assert_int_equal(p->start, START_YES);
    assert_int_equal(p->encap, ENCAP_AUTO);
    assert_int_equal(p->rekey, 4 * 3600 * NS_PER_S);
    assert_int_equal(p->dpd, 30 * NS_PER_S);
    assert_true(p->fragmentation);
    assert_int_equal(p->window, 1);
    assert_true(p->mobike);
    proposals_default(PROTOCOL_IKE, &builtin);
    assert_true(proposals_equal(&p->ike, &builtin));
    assert_ptr_equal(own->peer, p);
    assert_int_equal(own->action, ACTION_PROTECT);
    assert_int_equal(own->mode, MODE_TUNNEL);
    assert_int_equal(own->lifetime, 3600 * NS_PER_S);
    assert_int_equal(own->replay_window, 1024);
    assert_int_equal(own->hold, 16);
    assert_int_equal(own->tfc.n, 0);
    assert_int_equal(own->dummies, 0);
    assert_false(own->flow_log);
    assert_int_equal(own->mss, 0);
    assert_int_equal(own->icmp, ICMP_TOO_BIG);
    assert_false(own->fragment_before);
    assert_int_equal(own->peer->pmtu, PMTU_PROBE);
    assert_true(own->esn);
    proposals_default(PROTOCOL_ESP, &builtin);
    assert_true(proposals_equal(&own->esp, &builtin));
    assert_null(config_peer(c, "b"));
    assert_null(config_policy(c, "b"));
}

static void the_host_has_defaults(void **state)
{
    const struct host *h = &good(*state, LINK, "")->host;
    assert_string_equal(h->tun, "adit0");
    assert_string_equal(h->control, "/run/adit/adit0.sock");
    assert_string_equal(h->crypto, "auto");
    assert_string_equal(h->keylog, "");
    assert_string_equal(h->flow_log, "");
    assert_true(h->audit);
    assert_int_equal(h->port, 500);
    assert_int_equal(h->nat_port, 4500);
    assert_int_equal(h->mtu, 0);
    assert_int_equal(h->workers, 0);
    assert_int_equal(h->io, LOOP_AUTO);
    assert_int_equal(h->log, LOG_INFO);
    assert_int_equal(h->log_format, LOG_TEXT);
    assert_true(h->routes);
    assert_int_equal(h->id.type, ID_NONE);
}

static void every_host_key_is_taken(void **state)
{
    struct fixture *f = *state;
    char text[IDENTITY_TEXT];
    const struct config *c = good(f,
                                  "[host]\nid = gate.example\ntun = vpn7\naddress = 10.1.0.1/24,\n\t2001:db8:1::1/64\n"
                                  "mtu = 1400\nlisten = 192.0.2.1, ::1\nport = 0\nnat-port = 4501\nworkers = 3\n"
                                  "half-open = 5000\ncookies = always\nio = epoll\ncrypto = sodium\nroutes = "
                                  "no\nfirewall = no\nlog = debug\nlog-format = json\n"
                                  "keylog = keys\naudit = no\nflow-log-file = /var/log/flows\n" LINK
                                  "[policy six]\npeer = a\nlocal = 2001:db8:1::/64\n"
                                  "remote = 2001:db8:2::/64\n",
                                  "");
    const struct host *h = &c->host;
    assert_string_equal(identity_format(&h->id, text, sizeof(text)), "gate.example");
    assert_true(identity_equal(&c->peers[0]->local_id, &h->id));
    assert_string_equal(h->tun, "vpn7");
    assert_string_equal(h->control, "/run/adit/vpn7.sock");
    assert_int_equal(h->addresses, 2);
    assert_string_equal(prefix_format(&h->address[1], text), "2001:db8:1::1/64");
    assert_int_equal(h->mtu, 1400);
    assert_int_equal(h->listens, 2);
    assert_int_equal(h->listen[1].family, 6);
    assert_int_equal(h->port, 0);
    assert_int_equal(h->nat_port, 4501);
    assert_int_equal(h->workers, 3);
    assert_int_equal(h->half_open, 5000);
    assert_true(h->cookies);
    assert_int_equal(h->io, LOOP_EPOLL);
    assert_string_equal(h->crypto, "sodium");
    assert_false(h->routes);
    assert_false(h->firewall);
    assert_int_equal(h->log, LOG_DEBUG);
    assert_int_equal(h->log_format, LOG_JSON);
    assert_int_equal(strncmp(h->keylog, f->folder, strlen(f->folder)), 0);
    assert_string_equal(h->keylog + strlen(f->folder), "/keys");
    assert_string_equal(h->flow_log, "/var/log/flows");
    assert_false(h->audit);
}

static void esp_may_go_without_udp(void **state)
{
    static const struct {
        const char *line;
        enum encap_mode encap;
    } cases[] = {
        {"", ENCAP_AUTO}, {"encap = auto\n", ENCAP_AUTO}, {"encap = udp\n", ENCAP_UDP}, {"encap = raw\n", ENCAP_RAW}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "[peer a]\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n%s"
                 "local = 10.1.0.0/24\nremote = 10.2.0.0/24\n",
                 cases[i].line);
        const struct config *c = good(*state, text, "");
        assert_int_equal(config_peer(c, "a")->encap, cases[i].encap);
    }
}

static void hosts_may_do_without_a_tunnel(void **state)
{
    static const struct {
        const char *line;
        enum policy_mode mode;
        bool only;
    } cases[] = {{"", MODE_TUNNEL, false},
                 {"mode = tunnel\n", MODE_TUNNEL, false},
                 {"mode = transport\n", MODE_TRANSPORT, false},
                 {"mode = transport-only\n", MODE_TRANSPORT, true}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "[peer a]\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n%s"
                 "local = 192.0.2.1\nremote = 192.0.2.2\n",
                 cases[i].line);
        const struct config *c = good(*state, text, "");
        assert_int_equal(config_policy(c, "a")->mode, cases[i].mode);
        assert_int_equal(config_policy(c, "a")->transport_only, cases[i].only);
    }
}

static void every_peer_and_policy_key_is_taken(void **state)
{
    char text[400];
    const struct config *c =
        good(*state,
             "[policy lan]\naction = bypass\nlocal = 10.1.0.0/24\nremote = 10.1.0.0/24[udp/53]\n"
             "[peer road]\nendpoint = %any\nid = me@road.example\nlocal-id = keyid:gate\npsk = 0x00112233\n"
             "ike = aes128-sha256-x25519,\n  aes256gcm16-x25519\nencap = udp\nrekey = 30m\ndpd = no\n"
             "fragmentation = no\nwindow = 32\n"
             "mobike = no\npmtu = icmp\nmss = 1200\nfragment = before\nicmp = unreachable, too-big\n"
             "local = 10.1.0.0/24\nremote = 10.9.0.0/24\nmode = tunnel\nesp = aes128gcm16\nlifetime = 1d\nbytes = 10M\n"
             "packets = 2K\nreplay-window = 64\nesn = no\nhold = 0\n"
             "tfc = 256,\n  mtu\ndummies = 5\nflow-log = yes\nfail-open = no\n"
             "[policy none]\naction = discard\nlocal = 10.1.0.0/24\nremote = 0.0.0.0/0\n",
             "");
    const struct peer *p = config_peer(c, "road");
    const struct policy *own = config_policy(c, "road");
    assert_int_equal(c->policy_count, 3);
    assert_string_equal(c->policies[0]->name, "lan");
    assert_int_equal(c->policies[0]->action, ACTION_BYPASS);
    assert_null(c->policies[0]->peer);
    assert_string_equal(c->policies[1]->name, "road"); /* where its section stands */
    assert_int_equal(c->policies[2]->action, ACTION_DISCARD);
    assert_true(p->endpoint_any);
    assert_int_equal(p->start, START_NO);
    assert_int_equal(p->encap, ENCAP_UDP);
    assert_int_equal(p->rekey, 1800 * NS_PER_S);
    assert_int_equal(p->dpd, 0);
    assert_false(p->fragmentation);
    assert_int_equal(p->window, 32);
    assert_false(p->mobike);
    assert_int_equal(p->psk.len, 4);
    assert_int_equal(p->psk.b[3], 0x33);
    assert_string_equal(identity_format(&p->remote_id, text, sizeof(text)), "me@road.example");
    assert_string_equal(identity_format(&p->local_id, text, sizeof(text)), "keyid:gate");
    assert_string_equal(proposals_format(&p->ike, text, sizeof(text)),
                        "aes128-sha256-x25519-prfsha256, aes256gcm16-x25519-prfsha256");
    assert_string_equal(proposals_format(&own->esp, text, sizeof(text)), "aes128gcm16-noesn");
    assert_int_equal(own->lifetime, 24 * 3600 * NS_PER_S);
    assert_int_equal(own->bytes, 10 * 1024 * 1024);
    assert_int_equal(own->packets, 2000);
    assert_int_equal(own->replay_window, 64);
    assert_int_equal(own->hold, 0);
    assert_int_equal(own->tfc.n, 2);
    assert_int_equal(own->tfc.size[0], 256);
    assert_int_equal(own->tfc.size[1], TFC_FULL);
    assert_int_equal(own->dummies, 5);
    assert_true(own->flow_log);
    assert_false(own->fail_open);
    assert_int_equal(own->mss, 1200);
    assert_int_equal(own->icmp, ICMP_TOO_BIG | ICMP_UNREACHABLE);
    assert_true(own->fragment_before);
    assert_int_equal(p->pmtu, PMTU_ICMP);
    assert_false(own->esn);
}

static void the_outer_header_follows_its_keys(void **state)
{
    const struct outer_rule *r = &config_policy(good(*state, LINK, ""), "a")->outer;
    assert_true(r->ecn);
    assert_int_equal(r->df, DF_CLEAR);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(r->dscp[i], i);
    r = &config_policy(good(*state, LINK "dscp = 46:0, 10:8,\n  0:63\necn = no\ndf = set\n", ""), "a")->outer;
    assert_false(r->ecn);
    assert_int_equal(r->df, DF_SET);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(r->dscp[i], i == 46 ? 0 : i == 10 ? 8 : i == 0 ? 63 : i);
    r = &config_policy(good(*state, LINK "dscp = 46\necn = yes\ndf = copy\n", ""), "a")->outer;
    assert_true(r->ecn);
    assert_int_equal(r->df, DF_COPY);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(r->dscp[i], 46);
    r = &config_policy(good(*state, LINK "dscp = copy\ndf = clear\n", ""), "a")->outer;
    assert_int_equal(r->df, DF_CLEAR);
    assert_int_equal(r->dscp[46], 46);
    bad(*state, LINK "[policy out]\naction = discard\nlocal = 10.1.0.0/24\nremote = 10.9.0.0/24\ndscp = 1\n",
        "10: found 'dscp' in a policy that protects nothing, expected action = protect with it\n");
}

static void endpoints_have_many_shapes(void **state)
{
    static const struct {
        const char *text, *shown;
        uint16_t port;
    } rows[] = {
        {"192.0.2.2:4500", "192.0.2.2:4500", 4500},   {"192.0.2.2:500", "192.0.2.2", 500},
        {"2001:db8::2", "2001:db8::2", 500},          {"[2001:db8::2]", "2001:db8::2", 500},
        {"[2001:db8::2]:77", "[2001:db8::2]:77", 77}, {"localhost:4501", "localhost:4501", 4501},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[200];
        snprintf(text, sizeof(text), "[peer a]\nendpoint = %s\npsk = \"0123456789abcdef\"\n" NETS, rows[i].text);
        const struct peer *p = config_peer(good(*state, text, ""), "a");
        char shown[PEER_ENDPOINT_TEXT];
        assert_int_equal(p->endpoint_count, 1);
        assert_int_equal(p->endpoints[0].at.port, rows[i].port);
        assert_string_equal(peer_endpoint_format(&p->endpoints[0], shown), rows[i].shown);
    }
}

static void a_name_is_the_expected_identity(void **state)
{
    const struct config *c = good(*state, "[peer a]\nendpoint = localhost\npsk = \"0123456789abcdef\"\n" NETS, "");
    char text[IDENTITY_TEXT];
    assert_string_equal(c->peers[0]->endpoints[0].host, "localhost");
    assert_int_equal(c->peers[0]->remote_id.type, ID_FQDN);
    assert_string_equal(identity_format(&c->peers[0]->remote_id, text, sizeof(text)), "localhost");
}

static void a_name_is_not_looked_up_on_loading(void **state)
{
    const struct config *c =
        good(*state, "[peer a]\nendpoint = nowhere.invalid\npsk = \"0123456789abcdef\"\n" NETS, "");
    assert_int_equal(c->peers[0]->endpoints[0].at.ip.family, 0);
    assert_true(peer_has_names(c->peers[0]));
}

static void an_endpoint_may_be_a_list(void **state)
{
    char text[IDENTITY_TEXT];
    struct endpoint at[PEER_ENDPOINTS];
    const struct config *c = good(
        *state,
        "[peer a]\nendpoint = 192.0.2.2,\n  gw.example:4500, [2001:db8::2]:77\npsk = \"0123456789abcdef\"\n" NETS, "");
    const struct peer *p = c->peers[0];
    assert_int_equal(p->endpoint_count, 3);
    assert_int_equal(peer_addresses(p, at), 2);
    assert_string_equal(endpoint_format(&at[1], text), "[2001:db8::2]:77");
    assert_string_equal(peer_endpoint_format(&p->endpoints[1], text), "gw.example:4500");
    assert_string_equal(identity_format(&p->remote_id, text, sizeof(text)), "192.0.2.2"); /* the first one's */
    c = good(*state, "[peer a]\nendpoint = 192.0.2.2, %any\nid = x\npsk = \"0123456789abcdef\"\n" NETS, "");
    assert_true(c->peers[0]->endpoint_any);
    assert_int_equal(c->peers[0]->endpoint_count, 0);
    bad(*state, "[peer a]\nendpoint = a.x, b.x, c.x, d.x, e.x, f.x, g.x, h.x, i.x\npsk = \"0123456789abcdef\"\n" NETS,
        "2: found more than 8 endpoints\n");
    bad(*state, "[peer a]\nendpoint = 192.0.2.2,,a.x\npsk = \"0123456789abcdef\"\n" NETS,
        "2: found 'nothing', expected an address, a host name or %any, perhaps with a port: host:port, [v6]:port\n");
}

static void secrets_come_in_four_shapes(void **state)
{
    struct fixture *f = *state;
    static const char *const rows[] = {"\"a;b#c = d\"", "0x613b6223632020203d2064", "base64:YTtiI2MgPSBk",
                                       "file:good.psk"};
    static const char *const expected[] = {"a;b#c = d", "a;b#c   = d", "a;b#c = d", "a;b#c = d "};
    write_file(f, "good.psk", "a;b#c = d \n", 11, 0600);
    for (size_t i = 0; i < 4; i++) {
        char text[200];
        snprintf(text, sizeof(text), "[peer a]\nendpoint = 192.0.2.2\npsk = %s ; comment\n" NETS, rows[i]);
        const struct peer *p = config_peer(good(f, text, ""), "a");
        assert_int_equal(p->psk.len, strlen(expected[i]));
        assert_memory_equal(p->psk.b, expected[i], p->psk.len);
    }
}

static void secret_files_must_be_private_and_sound(void **state)
{
    struct fixture *f = *state;
    char huge[300], text[200], expected[300];
    static const struct {
        const char *file, *problem;
    } rows[] = {
        {"open.psk", "secret file %s/open.psk can be read by others than its owner: chmod 600 it"},
        {"empty.psk", "found nothing in secret file %s/empty.psk, expected 1 to 256 bytes"},
        {"long.psk", "found too much in secret file %s/long.psk, expected 1 to 256 bytes"},
        {"none.psk", "secret file %s/none.psk can't be read: No such file or directory"},
        {".", "secret file %s/. is not a file"},
    };
    memset(huge, 'x', sizeof(huge));
    write_file(f, "open.psk", "secret\n", 7, 0640);
    write_file(f, "empty.psk", "\n", 1, 0600);
    write_file(f, "long.psk", huge, 257, 0600);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char problem[200];
        snprintf(text, sizeof(text), "[peer a]\nendpoint = 192.0.2.2\npsk = file:%s\n" NETS, rows[i].file);
        snprintf(problem, sizeof(problem), rows[i].problem, f->folder);
        snprintf(expected, sizeof(expected), "3: %s\n", problem);
        bad(f, text, expected);
    }
    write_file(f, "long.psk", huge, 256, 0600);
    good(f, "[peer a]\nendpoint = 192.0.2.2\npsk = file:long.psk\n" NETS, "");
    write_file(f, "open.psk", "secret\n", 7, 0602);
    snprintf(expected, sizeof(expected),
             "3: secret file %s/open.psk can be written by others than its owner: chmod 600 it\n", f->folder);
    bad(f, "[peer a]\nendpoint = 192.0.2.2\npsk = file:open.psk\n" NETS, expected);
}

static void wrong_secrets_are_refused_and_never_shown(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *value, *problem;
    } rows[] = {
        {"hunter2", "found a secret without quotes, expected file:PATH, \"text\", 0x… or base64:…"},
        {"", "found nothing, expected file:PATH, \"text\", 0x… or base64:…"},
        {"\"hunter2", "found quotes with nothing in them, or quotes that don't match, expected \"text\""},
        {"\"hun\"ter2\"", "found quotes with nothing in them, or quotes that don't match, expected \"text\""},
        {"\"\"", "found quotes with nothing in them, or quotes that don't match, expected \"text\""},
        {"0xhunter2", "found 0x with something else than pairs of hex digits, expected 1 to 256 bytes"},
        {"0x1", "found 0x with something else than pairs of hex digits, expected 1 to 256 bytes"},
        {"base64:hunter2", "found base64: with something else than base64, expected 1 to 256 bytes"},
        {"'hunter2'", "found a secret without quotes, expected file:PATH, \"text\", 0x… or base64:…"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[200], expected[200];
        snprintf(text, sizeof(text), "[peer a]\nendpoint = 192.0.2.2\npsk = %s\n" NETS, rows[i].value);
        snprintf(expected, sizeof(expected), "3: %s\n", rows[i].problem);
        bad(f, text, expected);
        assert_null(strstr(f->log, "hunter2"));
    }
    bad(f, "[peer a]\nendpoint = 192.0.2.2\npsk \"hunter2\"\n" NETS,
        "3: found 'psk' without ' = ' behind it, expected KEY = VALUE\n");
}

static void an_exposed_file_with_a_secret_is_a_warning(void **state)
{
    struct fixture *f = *state;
    const struct config_report report = {f, on_error, on_warning};
    write_file(f, "adit.ini", LINK, strlen(LINK), 0644);
    assert_int_equal(config_load(f->file, &report, &f->config), OK);
    assert_string_equal(f->log,
                        "3: warning: this file holds a secret and can be read by others than its owner: chmod 600 "
                        "it, or use file:PATH\n");
    write_file(f, "good.psk", "secret", 6, 0400);
    const char *other = "[peer a]\nendpoint = 192.0.2.2\npsk = file:good.psk\n" NETS;
    write_file(f, "adit.ini", other, strlen(other), 0644);
    f->log[0] = '\0';
    config_free(f->config);
    assert_int_equal(config_load(f->file, &report, &f->config), OK);
    assert_string_equal(f->log, "");
}

static void a_file_that_is_not_there_is_reported(void **state)
{
    struct fixture *f = *state;
    const struct config_report report = {f, on_error, on_warning};
    assert_int_equal(config_load(f->file, &report, &f->config), ERR_NOTFOUND);
    assert_string_equal(f->log, "0: can't be read: No such file or directory\n");
    strcpy(f->file, f->folder);
    f->log[0] = '\0';
    assert_int_equal(config_load(f->file, &report, &f->config), ERR_NOTFOUND);
    assert_string_equal(f->log, "0: can't be read: Is a directory\n");
}

/* -- complaints about values -- */

static void wrong_values_say_what_was_expected(void **state)
{
    static const struct {
        const char *line, *problem;
    } rows[] = {
        {"[host]\nmtu = 100", "found '100', expected auto or a number from 576 to 65535"},
        {"[host]\nmtu =", "found 'nothing', expected auto or a number from 576 to 65535"},
        {"[host]\nport = 70000", "found '70000', expected a number from 0 to 65535"},
        {"[host]\nport = 99999999999999999999", "found '99999999999999999999', expected a number from 0 to 65535"},
        {"[host]\nnat-port = 0", "found '0', expected a number from 1 to 65535"},
        {"[host]\nport = 0\nnat-port = 500", "found 500 as 'nat-port', expected another: ESP can't go there"},
        {"[host]\nport = 4500", "found 4500 as 'port' and as 'nat-port', expected two different ones"},
        {"[host]\nworkers = 16", "found '16', expected auto or a number from 1 to 15"},
        {"[host]\nhalf-open = 0", "found '0', expected a number from 1 to 1000000"},
        {"[host]\ncookies = no", "found 'no', expected always or auto"},
        {"[host]\nio = fast", "found 'fast', expected auto, uring or epoll"},
        {"[host]\nroutes = yes", "found 'yes', expected auto or no"},
        {"[host]\nlog = loud", "found 'loud', expected error, warn, info or debug"},
        {"[host]\nlog-format = xml", "found 'xml', expected text or json"},
        {"[host]\ntun = a/b", "found 'a/b', expected an interface name of at most 15 characters"},
        {"[host]\ntun = sixteencharsname",
         "found 'sixteencharsname', expected an interface name of at most 15 characters"},
        {"[host]\naddress = 10.1.0.1/24, x",
         "found 'x', expected an address with its prefix length, such as 10.1.0.1/24"},
        {"[host]\ncrypto = bogus", "found 'bogus', expected auto, mbedtls, sodium" WITH_IPSEC_MB},
        {"[host]\nlisten = eth0", "found 'eth0', expected at most 8 addresses of this host"},
        {"[host]\nid = a b",
         "found 'a b', expected an address, a host name, user@host, keyid:… or a DN such as C=…, CN=…"},
        {"[host]\nid = DC=x", "found 'DC=x', expected a DN of the attributes C, ST, L, O, OU, CN and emailAddress"},
        {"[peer b]\nendpoint = 192.0.2.300",
         "found '192.0.2.300', expected an address, a host name or %any, perhaps with a port: host:port, [v6]:port"},
        {"[peer b]\nendpoint = %any:4500",
         "found '%any:4500', expected an address, a host name or %any, perhaps with a port: host:port, [v6]:port"},
        {"[peer b]\nendpoint = [2001:db8::1]x",
         "found '[2001:db8::1]x', expected an address, a host name or %any, perhaps with a port: host:port, [v6]:port"},
        {"[peer b]\nendpoint = h.example:0", "found '0' as a port, expected a number from 1 to 65535"},
        {"[peer b]\nstart = maybe", "found 'maybe', expected yes, on-demand or no"},
        {"[peer b]\nencap = tcp", "found 'tcp', expected auto, udp or raw"},
        {"[peer b]\nrekey = 30", "found '30' without a unit, expected a duration such as 30s, 5m, 1h or 1d"},
        {"[peer b]\nrekey = 0s", "found '0s', expected a duration such as 30s, 5m, 1h or 1d"},
        {"[peer b]\nrekey = 5w", "found '5w', expected a duration such as 30s, 5m, 1h or 1d"},
        {"[peer b]\nrekey = 400d", "found '400d', expected a duration such as 30s, 5m, 1h or 1d"},
        {"[peer b]\ndpd = -1s", "found '-1s', expected a duration such as 30s, 5m, 1h or 1d, or 'no'"},
        {"[peer b]\nfragmentation = 576", "found '576', expected yes or no"},
        {"[peer b]\nwindow = 0", "found '0', expected a number from 1 to 32"},
        {"[peer b]\nwindow = 33", "found '33', expected a number from 1 to 32"},
        {"[peer b]\nmobike = auto", "found 'auto', expected yes or no"},
        {"[peer b]\nike = aes256gmc16-x25519", "found 'aes256gmc16', expected an IKE algorithm, perhaps 'aes256gcm16'"},
        {"[policy b]\naction = allow", "found 'allow', expected protect, bypass or discard"},
        {"[policy b]\npeer = aa", "found 'aa', expected the name of a [peer], perhaps 'a'"},
        {"[policy b]\npeer = elsewhere", "found 'elsewhere', expected the name of a [peer]"},
        {"[policy b]\nlocal = 10.1.0.0/33", "found '10.1.0.0/33' with a number out of range, expected CIDR or "
                                            "CIDR[proto/port]"},
        {"[policy b]\nlocal = 10.1.0/24",
         "found '10.1.0/24', expected CIDR or CIDR[proto/port], such as 10.1.0.0/24 or "
         "10.1.0.5[tcp/443]"},
        {"[policy b]\nlocal = 2001:db8::/64[icmp]", "found '2001:db8::/64[icmp]', expected [icmpv6] with IPv6"},
        {"[policy b]\nmode = both", "found 'both', expected tunnel, transport or transport-only"},
        {"[peer b]\nreauth = 3s", "found '3s', expected at least 10s, or 'no'"},
        {"[peer b]\nreauth = soon", "found 'soon', expected a duration such as 30s, 5m, 1h or 1d, or 'no'"},
        {"[peer b]\nchildless = yes", "found 'yes', expected allow, force or never"},
        {"[peer b]\nppk-required = maybe", "found 'maybe', expected yes or no"},
        {"[policy b]\nesp = aes256",
         "found a cipher without integrity, expected an algorithm such as 'sha256' beside it"},
        {"[policy b]\nbytes = 10X", "found '10X', expected a size such as 500, 10M or 1G"},
        {"[policy b]\nbytes = 99999999999999T", "found '99999999999999T', expected a size such as 500, 10M or 1G"},
        {"[policy b]\nbytes = M", "found 'M', expected a size such as 500, 10M or 1G"},
        {"[peer b]\nunique = yes", "found 'yes', expected no, replace or keep"},
        {"[peer b]\npmtu = 1400", "found '1400', expected probe, icmp or no"},
        {"[policy b]\nmss = 20", "found '20', expected auto, no or a number from 88 to 65495"},
        {"[policy b]\nfragment = never", "found 'never', expected before or after"},
        {"[policy b]\nicmp = too-big, echo", "found 'echo', expected a list of too-big and unreachable, or no alone"},
        {"[policy b]\nicmp = no, too-big", "found 'no', expected a list of too-big and unreachable, or no alone"},
        {"[policy b]\ntfc =", "found 'nothing', expected a size from 64 to 65534, 'mtu', or 'no'"},
        {"[policy b]\nhold = 257", "found '257', expected a number from 0 to 256"},
        {"[host]\naudit = loud", "found 'loud', expected yes or no"},
        {"[policy b]\ntfc = 63", "found '63', expected a size from 64 to 65534, 'mtu', or 'no'"},
        {"[policy b]\ntfc = 1e3", "found '1e3', expected a size from 64 to 65534, 'mtu', or 'no'"},
        {"[policy b]\ntfc = 512, 256", "found '512, 256', expected at most 8 sizes, each larger than the one before"},
        {"[policy b]\ntfc = mtu, mtu", "found 'mtu, mtu', expected at most 8 sizes, each larger than the one before"},
        {"[policy b]\ntfc = 64,65,66,67,68,69,70,71,72",
         "found '64,65,66,67,68,69,70,71,72', expected at most 8 sizes, each larger than the one before"},
        {"[policy b]\ndummies = 1001", "found '1001', expected a number from 0 to 1000"},
        {"[policy b]\nreplay-window = 16", "found '16', expected a number from 32 to 65536"},
        {"[policy b]\nesn = maybe", "found 'maybe', expected yes or no"},
        {"[policy b]\nesp = aes128gcm16-esn\nesn = no", "found 'no', expected 'yes': the esp proposals ask for 'esn'"},
        {"[policy b]\ndscp = 64",
         "found '64', expected copy, a DSCP from 0 to 63, or a list of FROM:TO such as 46:0, 10:8"},
        {"[policy b]\ndscp = 46:0, 10",
         "found '10', expected copy, a DSCP from 0 to 63, or a list of FROM:TO such as 46:0, 10:8"},
        {"[policy b]\ndscp = 46:0,",
         "found 'nothing', expected copy, a DSCP from 0 to 63, or a list of FROM:TO such as 46:0, 10:8"},
        {"[policy b]\ndscp = 1:+2",
         "found '1:+2', expected copy, a DSCP from 0 to 63, or a list of FROM:TO such as 46:0, 10:8"},
        {"[policy b]\ndscp = 46:0, 46:1", "found DSCP 46 twice, expected one mapping of it"},
        {"[policy b]\necn = copy", "found 'copy', expected yes or no"},
        {"[policy b]\ndf = yes", "found 'yes', expected clear, copy or set"},
        {"[host]\nfirewall = yes", "found 'yes', expected auto or no"},
        {"[policy b]\nfail-open = maybe", "found 'maybe', expected yes or no"},
        {"[policy b]\nah = aes128gcm16", "found 'aes128gcm16', which AH proposals don't have"},
        {"[policy b]\nah = sha256-esn\nesn = no", "found 'no', expected 'yes': the ah proposals ask for 'esn'"},
        {"[host]\npsk = \"x\"", "found 'psk' in [host], expected it in [peer NAME]"},
        {"[peer b]\naction = protect", "found 'action' in [peer], expected it in [policy NAME]"},
        {"[peer b]\nendpiont = x", "found the unknown key 'endpiont', expected perhaps 'endpoint'"},
        {"[host]\nqqqqqqqq = x", "found the unknown key 'qqqqqqqq', expected one that [host] has"},
        {"[peer b]\nlifetime = 1h", "found 'lifetime' of the peer's own policy, expected 'local' and 'remote' with it"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[400], expected[300];
        unsigned line = strchr(strchr(rows[i].line, '\n') + 1, '\n') ? 8 : 7;
        snprintf(text, sizeof(text), LINK "%s\n", rows[i].line);
        snprintf(expected, sizeof(expected), "%u: %s\n", line, rows[i].problem);
        assert_int_equal(load(f, text), ERR_SYNTAX);
        if (!strstr(f->log, expected))
            fail_msg("%s\n%s", rows[i].line, f->log);
    }
}

static void what_was_meant_is_not_missing(void **state)
{
    bad(*state,
        "[peer a]\nendpiont = 192.0.2.2\npsk: \"0123456789abcdef\"\nremtoe = 10.2.0.0/24\nlocal = 10.1.0.0/24\n",
        "2: found the unknown key 'endpiont', expected perhaps 'endpoint'\n"
        "3: found 'psk' without ' = ' behind it, expected KEY = VALUE\n"
        "4: found the unknown key 'remtoe', expected perhaps 'remote'\n");
    bad(*state,
        "[host]\ncrll = x\ncrl = y\n[peer a]\nendpiont = 192.0.2.3\nendpoint = 192.0.2.2\npsk = \"0123456789\"\n" NETS,
        "2: found the unknown key 'crll', expected perhaps 'crl'\n"
        "5: found the unknown key 'endpiont', expected perhaps 'endpoint'\n");
    bad(*state, PEER "local = 10.1.0.0/24 10.3.0.0/24\nremote = 10.2.0.0/24\n",
        "4: found '10.1.0.0/24 10.3.0.0/24', expected commas between the items of a list\n");
}

static void several_errors_come_in_the_order_of_lines(void **state)
{
    bad(*state,
        "[peer a]\nendpoint = %any\nstart = yes\nencap = maybe\nlocal = 10.0.0.0/8\n[policy p]\naction = bypass\n"
        "peer = a\nlocal = 10.0.0.0/8\nremote = 10.0.0.0/8\n",
        "1: found [peer a] without 'remote', expected it\n"
        "1: found [peer a] without 'psk', 'public-key' or 'ca', expected one of them\n"
        "1: found [peer a] with endpoint %any but without 'id' or 'public-key', expected one: nothing else tells who "
        "it is\n"
        "3: found a peer that shall be started with endpoint %any, expected start = no\n"
        "4: found 'maybe', expected auto, udp or raw\n"
        "8: found 'peer' in a policy that protects nothing, expected action = protect with it\n");
}

static void required_keys_are_named_with_their_section(void **state)
{
    bad(*state, "\n[peer a]\n\n[policy p]\n",
        "2: found [peer a] without 'endpoint', expected it\n"
        "2: found [peer a] without 'psk', 'public-key' or 'ca', expected one of them\n"
        "2: warning: peer 'a' has neither 'local' and 'remote' nor a [policy] that names it\n"
        "4: found [policy p] without 'local', expected it\n"
        "4: found [policy p] without 'remote', expected it\n"
        "4: found [policy p] without 'peer', expected it\n");
}

static void any_identity_must_be_asked_for(void **state)
{
    const struct config *c =
        good(*state, "[peer a]\nendpoint = %any\nid = %any\npsk = \"0123456789abcdef\"\n" NETS, "");
    assert_true(c->peers[0]->remote_id_any);
    assert_int_equal(c->peers[0]->remote_id.type, ID_NONE);
}

/* -- complaints about the whole -- */

static void duplicates_are_errors(void **state)
{
    bad(*state, LINK "psk = \"again\"\n[peer a]\nendpoint = 192.0.2.9\n[host]\nmtu = 1400\n[host]\nmtu = 1300\n",
        "6: found 'psk' again, expected it once: the first is on line 3\n"
        "7: found [peer a] again, expected it once: the first is on line 1\n"
        "11: found [host] again, expected it once: the first is on line 9\n");
    bad(*state, LINK "[policy a]\npeer = a\nlocal = 10.5.0.0/24\nremote = 10.6.0.0/24\n",
        "6: found a second policy of the name 'a', expected another name: the first is on line 1\n");
}

static void an_unused_peer_is_a_warning(void **state)
{
    good(*state, PEER, "1: warning: peer 'a' has neither 'local' and 'remote' nor a [policy] that names it\n");
    good(*state, PEER "[policy p]\npeer = a\n" NETS, "");
}

static void a_shadowed_policy_is_a_warning(void **state)
{
    good(*state, LINK "[policy p]\naction = bypass\nlocal = 10.1.0.0/25, 10.1.0.200[tcp]\nremote = 10.2.0.7\n",
         "6: warning: policy 'p' never matches: 'a' on line 1 comes first and covers it\n");
    good(*state, LINK "[policy p]\naction = bypass\nlocal = 10.1.0.0/25, 10.1.1.1\nremote = 10.9.0.7\n", "");
}

#ifdef __SANITIZE_ADDRESS__ /* many times slower */
#define MANY 20000
#else
#define MANY 100000
#endif

/*
 * Of one network's ports, and half of them of a common port too: whether one covers another is not asked of all, which
 * would take minutes.
 */
static void very_many_policies_are_loaded(void **state)
{
    const unsigned n = MANY;
    size_t room = (size_t)n * 120 + 1000, used;
    char *text = malloc(room), log[200];
    assert_non_null(text);
    used = (size_t)snprintf(text, room, "%s", PEER NETS);
    for (unsigned i = 0; i < n; i++)
        used += (size_t)snprintf(
            text + used, room - used, "[policy p%u]\npeer = a\nlocal = 10.1.0.0/16\nremote = %s10.%u.0.0/16[%s/%u]\n",
            i, i & 1 ? "10.3.0.0/16[tcp/65535], " : "", 3 + i / 50000, i & 1 ? "tcp" : "udp", i / 2 % 25000);
    snprintf(text + used, room - used,
             "[policy last]\npeer = a\nlocal = 10.1.3.0/24\nremote = 10.3.9.0/24[tcp/9007]\n");
    snprintf(log, sizeof(log),
             "%u: warning: policy 'last' never matches: 'p18015' on line %u comes first and covers it\n", 5 + 4 * n + 1,
             5 + 4 * 18015 + 1);
    assert_int_equal(good(*state, text, log)->policy_count, n + 2);
    free(text);
}

static void an_uncovered_address_is_a_warning(void **state)
{
    good(*state, "[host]\naddress = 10.1.0.1/24, 10.8.0.1/24\n" LINK,
         "2: warning: no policy covers the network of address 10.8.0.1/24: its packets are discarded\n");
    good(*state, "[host]\naddress = 10.1.0.1/24\nid = l\n" LINK, "");
}

static void sides_that_never_meet_are_an_error(void **state)
{
    bad(*state, PEER "local = 10.1.0.0/24\nremote = 2001:db8::/32\n",
        "1: found 'local' and 'remote' of 'a' that no packet can match together, expected one family and protocol on "
        "both "
        "sides\n");
    bad(*state, PEER "local = 10.1.0.0/24[tcp]\nremote = 10.2.0.0/24[udp]\n",
        "1: found 'local' and 'remote' of 'a' that no packet can match together, expected one family and protocol on "
        "both "
        "sides\n");
}

static void host_bits_in_a_network_are_a_warning(void **state)
{
    good(*state, PEER "local = 10.1.0.5/24[tcp], 10.3.0.0/24\nremote = 10.2.0.0/24\n",
         "4: warning: '10.1.0.5/24' has bits set behind its prefix length: taken as 10.1.0.0/24\n");
}

static void an_empty_file_is_a_warning(void **state)
{
    good(*state, "", "0: warning: the file has neither a peer nor a policy: every packet is discarded\n");
    good(*state, "; nothing\n# nothing\n\n",
         "0: warning: the file has neither a peer nor a policy: every packet is discarded\n");
}

/* -- the edges of inih, and of files -- */

static void indented_lines_extend_lists(void **state)
{
    char text[300];
    const struct config *c = good(*state,
                                  PEER "local = 10.1.0.0/24 ; one\n  10.3.0.0/24, ; two\n\n; comment\n\t# comment\n"
                                       "\t10.4.0.0/24\nremote =\n 10.2.0.0/24\n",
                                  "");
    assert_string_equal(selectors_format(&c->policies[0]->local, text, sizeof(text)),
                        "10.1.0.0/24, 10.3.0.0/24, 10.4.0.0/24");
    assert_string_equal(selectors_format(&c->policies[0]->remote, text, sizeof(text)), "10.2.0.0/24");
}

static void indented_keys_are_errors(void **state)
{
#define INDENTED                                                                                                     \
    "found an indented line, which continues the list above it, expected sections and keys at the beginning of the " \
    "line\n"
    bad(*state, LINK "  psk = \"other\"\n", "6: " INDENTED);
    bad(*state, LINK "  [policy x]\n", "6: " INDENTED);
    bad(*state, LINK "[host]\n  mtu = 1400\n", "7: " INDENTED);
    bad(*state, LINK "[host]\nmtu = 1400\n  1500\n",
        "8: found an indented line after 'mtu', expected one value: it is not a list\n");
}

static void comments_in_values_are_caught(void **state)
{
    bad(*state, "[peer a]\nendpoint = 192.0.2.2 # office\npsk = \"a ; b\"\n" NETS,
        "2: found ' #' after a value, expected ' ;' to begin a comment there\n"
        "3: found ' ;' in quotes, which begins a comment all the same, expected a value without it (secrets: "
        "file:PATH, "
        "0x… or base64:…)\n");
    const struct config *c = good(*state, "[peer a]\nendpoint = 192.0.2.2\npsk = \"a #b;c\" ; \"x # y\"\n" NETS, "");
    assert_int_equal(c->peers[0]->psk.len, 6);
    assert_memory_equal(c->peers[0]->psk.b, "a #b;c", 6);
}

static void over_long_lines_are_errors(void **state)
{
    struct fixture *f = *state;
    char text[900], line[300];
    memset(line, 'x', sizeof(line));
    memcpy(line, "psk = \"", 7);
    line[197] = '"';
    line[198] = '\0';
    snprintf(text, sizeof(text), "[peer a]\nendpoint = 192.0.2.2\n%s\n" NETS, line);
    assert_int_equal(good(f, text, "")->peers[0]->psk.len, 190);
    line[197] = 'x';
    line[198] = '"';
    line[199] = '\0';
    snprintf(text, sizeof(text), "[peer a]\nendpoint = 192.0.2.2\n%s\n" NETS, line);
    bad(f, text,
        "3: found a line of 199 bytes, expected at most 198: lists go on in indented lines, long secrets in a file\n");
    memset(line, 'x', sizeof(line));
    line[0] = ';';
    line[299] = '\0';
    snprintf(text, sizeof(text), "%s\n" LINK, line);
    good(f, text, ""); /* a comment may be as long as it likes */
}

static void over_long_names_are_errors(void **state)
{
    bad(*state, "[peer aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeee]\npsk = x\n" LINK,
        "1: found a section header of 50 characters, expected at most 49\n");
    good(*state,
         "[peer aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee]\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n" NETS,
         "");
    bad(*state, LINK "[host]\naaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeffffff = 1\n",
        "7: found a key of 51 characters, expected at most 49\n");
}

static void wrong_sections_are_errors_once(void **state)
{
    static const struct {
        const char *header, *problem;
    } rows[] = {
        {"[peers a]", "found [peers a], expected [host], [peer NAME] or [policy NAME]"},
        {"[peer]", "found [peer], expected [host], [peer NAME] or [policy NAME]"},
        {"[host x]", "found [host x], expected [host], [peer NAME] or [policy NAME]"},
        {"[]", "found [], expected [host], [peer NAME] or [policy NAME]"},
        {"[peer a/b]", "found 'a/b' as a name, expected letters, digits, '.', '_' and '-'"},
        {"[peer b", "found '[' without ']', expected [host], [peer NAME] or [policy NAME]"},
        {"[peer b ; ]", "found 'b ;' as a name, expected letters, digits, '.', '_' and '-'"},
        {"[peer b] x", "found text after ']', expected the end of the line"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[300], expected[200];
        snprintf(text, sizeof(text), LINK "%s\nany = 1\n  thing\n", rows[i].header);
        snprintf(expected, sizeof(expected), "6: %s\n", rows[i].problem);
        bad(*state, text, expected);
    }
    good(*state, "[ peer  a ] ; office\nendpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\n" NETS, "");
}

static void lines_that_are_nothing_are_errors(void **state)
{
    bad(*state, "mtu = 1400\n" LINK "[host]\nmtu: 1400\n= 5\nhello world\n10.0.0.0/8\n",
        "1: found 'mtu' before any section, expected [host], [peer NAME] or [policy NAME]\n"
        "8: found 'mtu' without ' = ' behind it, expected KEY = VALUE\n"
        "9: found '' without ' = ' behind it, expected KEY = VALUE\n"
        "10: found 'hello' without ' = ' behind it, expected KEY = VALUE\n"
        "11: found '' without ' = ' behind it, expected KEY = VALUE\n");
}

static void strange_bytes_are_errors(void **state)
{
    struct fixture *f = *state;
    static const char nul[] = LINK "[host]\nmtu = 14\0"
                                   "00\n";
    assert_int_equal(load_bytes(f, nul, sizeof(nul) - 1), ERR_SYNTAX);
    assert_string_equal(f->log, "7: found a NUL byte (0x00), expected text\n");
    bad(f, LINK "[host]\nmtu = 14\x1b[0m\n", "7: found a control character (0x1b), expected text\n");
}

static void other_line_ends_and_a_mark_are_tolerated(void **state)
{
    good(*state,
         "\xef\xbb\xbf[peer a]\r\nendpoint = 192.0.2.2\r\npsk = \"0123456789abcdef\"\r\n\r\nlocal = 10.1.0.0/24,\r\n"
         "  10.3.0.0/24\r\nremote = 10.2.0.0/24",
         "");
}

static void a_flood_of_errors_is_bounded(void **state)
{
    struct fixture *f = *state;
    static char text[300 * 2 + 1];
    for (int i = 0; i < 300; i++)
        memcpy(text + i * 2, "x\n", 3);
    assert_int_equal(load(f, text), ERR_SYNTAX);
    assert_non_null(strstr(f->log, "200: found 'x' without"));
    assert_null(strstr(f->log, "201: found 'x' without"));
    assert_non_null(strstr(f->log, "0: 100 more that are not shown\n"));
}

/* -- what IKE does beyond the plain -- */

static void extensions_are_off_until_asked_for(void **state)
{
    struct fixture *f = *state;
    char out[8192] = "", text[IDENTITY_TEXT];
    const struct peer *p = good(f, LINK, "")->peers[0];
    assert_true(p->reauth == 0 && p->ppk.len == 0 && p->ppk_id.type == ID_NONE && !p->ppk_required);
    assert_int_equal(p->childless, CHILDLESS_ALLOW);
    p = good(f, PEER "reauth = 8h\nchildless = force\nppk = \"quantum\"\nppk-id = link-1\nppk-required = yes\n" NETS,
             "")
            ->peers[0];
    assert_true(p->reauth == 8 * 3600 * NS_PER_S && p->ppk_required);
    assert_int_equal(p->childless, CHILDLESS_FORCE);
    assert_memory_equal(p->ppk.b, "quantum", p->ppk.len);
    assert_string_equal(identity_format(&p->ppk_id, text, sizeof text), "link-1");
    FILE *file = fmemopen(out, sizeof(out), "w");
    assert_non_null(file);
    config_print(f->config, file);
    assert_int_equal(fclose(file), 0);
    assert_non_null(strstr(out, "    ppk            link-1, required\n"));
    assert_null(strstr(out, "quantum"));
}

static void a_key_and_its_name_go_together(void **state)
{
    bad(*state, PEER "ppk = 0x0102\n" NETS,
        "4: found 'ppk' without 'ppk-id', expected the name that the peer knows it by\n");
    bad(*state, PEER "ppk-id = x\nppk-required = yes\n" NETS,
        "4: found 'ppk-id' without 'ppk', expected the key\n"
        "5: found 'ppk-required' without 'ppk', expected the key\n");
}

/* -- comparison and printing -- */

static void a_reload_sees_what_changed(void **state)
{
    struct fixture *f = *state;
    static const char *const peers[] = {"endpoint = 192.0.2.3\npsk = \"0123456789abcdef\"\n",
                                        "endpoint = 192.0.2.2, 192.0.2.3\npsk = \"0123456789abcdef\"\n",
                                        "endpoint = 192.0.2.2:501\npsk = \"0123456789abcdef\"\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdeF\"\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nid = x\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nlocal-id = x\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nike = aes256gcm16-x25519\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nstart = no\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nencap = udp\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nrekey = 1h\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\ndpd = 1h\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nfragmentation = no\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nwindow = 8\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nreauth = 1h\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nchildless = never\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nppk = 0x01\nppk-id = x\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\nmobike = no\n",
                                        "endpoint = 192.0.2.2\npsk = \"0123456789abcdef\"\npmtu = no\n"};
    static const char *const policies[] = {"local = 10.1.0.0/25\nremote = 10.2.0.0/24\n",
                                           "local = 10.1.0.0/24\nremote = 10.2.0.0/25\n",
                                           NETS "esp = aes128gcm16\n",
                                           NETS "lifetime = 2h\n",
                                           NETS "bytes = 1G\n",
                                           NETS "packets = 1G\n",
                                           NETS "tfc = mtu\n",
                                           NETS "ah = default\n",
                                           NETS "esn = no\n",
                                           NETS "dscp = 0\n",
                                           NETS "dscp = 46:0\n",
                                           NETS "ecn = no\n",
                                           NETS "df = copy\n",
                                           NETS "mss = no\n",
                                           NETS "fragment = before\n",
                                           NETS "icmp = no\n"};
    struct config *base;
    char text[300];
    good(f, "; first\n" LINK, "");
    base = f->config;
    f->config = NULL;
    good(f, LINK, ""); /* another line, else the same */
    assert_true(peer_equal(base->peers[0], f->config->peers[0]));
    assert_true(policy_equal(base->policies[0], f->config->policies[0]));
    for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
        snprintf(text, sizeof(text), "[peer a]\n%s" NETS, peers[i]);
        good(f, text, "");
        if (peer_equal(base->peers[0], f->config->peers[0]))
            fail_msg("%s", peers[i]);
    }
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        snprintf(text, sizeof(text), PEER "%s", policies[i]);
        good(f, text, "");
        assert_true(peer_equal(base->peers[0], f->config->peers[0]) != f->config->peers[0]->ah);
        if (policy_equal(base->policies[0], f->config->policies[0]))
            fail_msg("%s", policies[i]);
    }
    good(f, PEER NETS "replay-window = 64\n", ""); /* running SAs are given another one */
    assert_true(policy_equal(base->policies[0], f->config->policies[0]));
    config_free(base);
}

/* What a policy is protected with is one of both, and its peer knows when that needs the truth about NATs. */
static void ah_stands_in_the_place_of_esp(void **state)
{
    struct fixture *f = *state;
    char out[8192] = "";
    good(f,
         LINK "ah = sha256-x25519, aes128gmac-noesn\n[peer b]\nendpoint = 192.0.2.3\npsk = \"0123456789abcdef\"\n"
              "local = 10.1.0.0/24\nremote = 10.3.0.0/24\n[policy c]\npeer = b\nlocal = 10.1.0.0/24\n"
              "remote = 10.4.0.0/24\nah = default\n",
         "");
    const struct config *c = f->config;
    assert_int_equal(policy_protocol(c->policies[0]), PROTOCOL_AH);
    assert_int_equal(policy_protocol(c->policies[1]), PROTOCOL_ESP);
    assert_int_equal(policy_protocol(c->policies[2]), PROTOCOL_AH);
    assert_int_equal(c->policies[0]->esp.n, 2);
    assert_true(c->peers[0]->ah);
    assert_true(c->peers[1]->ah);
    FILE *text = fmemopen(out, sizeof out, "w");
    config_print(c, text);
    fclose(text);
    assert_non_null(strstr(out, "AH: sha256-x25519-esn-noesn,\n"));
    assert_non_null(strstr(out, "AH: default\n"));
    assert_non_null(strstr(out, "    ah   sha512-sha256-sha384-esn-noesn\n"));

    bad(f, LINK "esp = aes128gcm16\nah = sha256\n",
        "7: found 'ah' beside 'esp', expected one of them: a packet is protected by either\n");
    bad(f, LINK "ah = sha256\ntfc = mtu\n", "1: found 'ah' and 'tfc' in 'a', expected one of them: AH hides nothing\n");
    bad(f, LINK "ah = sha256\ndummies = 3\n",
        "1: found 'ah' and 'dummies' in 'a', expected one of them: AH hides nothing\n");
    bad(f, PEER "encap = udp\n" NETS "ah = sha256\n",
        "1: found 'ah' in 'a' and encap = udp in its peer 'a', expected 'esp': AH doesn't go in UDP\n");
    bad(f, LINK "[policy c]\naction = discard\nlocal = 10.9.0.0/24\nremote = 10.8.0.0/24\nah = sha256\n",
        "10: found 'ah' in a policy that protects nothing, expected action = protect with it\n");
    good(f, LINK, "");
    assert_false(f->config->peers[0]->ah);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(four_lines_are_a_link),
        TEST(the_host_has_defaults),
        TEST(every_host_key_is_taken),
        TEST(every_peer_and_policy_key_is_taken),
        TEST(esp_may_go_without_udp),
        TEST(the_outer_header_follows_its_keys),
        TEST(hosts_may_do_without_a_tunnel),
        TEST(endpoints_have_many_shapes),
        TEST(a_name_is_the_expected_identity),
        TEST(a_name_is_not_looked_up_on_loading),
        TEST(an_endpoint_may_be_a_list),
        TEST(secrets_come_in_four_shapes),
        TEST(secret_files_must_be_private_and_sound),
        TEST(wrong_secrets_are_refused_and_never_shown),
        TEST(an_exposed_file_with_a_secret_is_a_warning),
        TEST(a_file_that_is_not_there_is_reported),
        TEST(wrong_values_say_what_was_expected),
        TEST(what_was_meant_is_not_missing),
        TEST(several_errors_come_in_the_order_of_lines),
        TEST(required_keys_are_named_with_their_section),
        TEST(any_identity_must_be_asked_for),
        TEST(duplicates_are_errors),
        TEST(an_unused_peer_is_a_warning),
        TEST(a_shadowed_policy_is_a_warning),
        TEST(very_many_policies_are_loaded),
        TEST(an_uncovered_address_is_a_warning),
        TEST(sides_that_never_meet_are_an_error),
        TEST(host_bits_in_a_network_are_a_warning),
        TEST(an_empty_file_is_a_warning),
        TEST(indented_lines_extend_lists),
        TEST(indented_keys_are_errors),
        TEST(comments_in_values_are_caught),
        TEST(over_long_lines_are_errors),
        TEST(over_long_names_are_errors),
        TEST(wrong_sections_are_errors_once),
        TEST(lines_that_are_nothing_are_errors),
        TEST(strange_bytes_are_errors),
        TEST(other_line_ends_and_a_mark_are_tolerated),
        TEST(a_flood_of_errors_is_bounded),
        TEST(extensions_are_off_until_asked_for),
        TEST(a_key_and_its_name_go_together),
        TEST(a_reload_sees_what_changed),
        TEST(ah_stands_in_the_place_of_esp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
