/* Keys and certificates of the ini file: who proves himself by what, defaults of [host], and what does not fit. */
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
#include "test/vectors/auth.h"

#define SEED "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="   /* an Ed25519 key … */
#define PUBLIC "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=" /* … and its public half */
#define PEER "[peer a]\nendpoint = 192.0.2.2\n"
#define NETS "local = 10.1.0.0/24\nremote = 10.2.0.0/24\n"
#define HOST_CERT "[host]\nkey = file:own.key\ncert = own.crt\nca = file:root.crt\n"

struct fixture {
    char folder[64], file[96], log[8192];
    struct config *config;
};

static const struct {
    const char *name, *text;
    mode_t mode;
} files[] = {
    {"own.key", VECTOR_A_P256_KEY, 0600},      {"own.crt", VECTOR_A_P256_CRT, 0644},
    {"rsa.key", VECTOR_A_RSA_KEY, 0600},       {"rsa.crt", VECTOR_A_RSA_CRT, 0644},
    {"root.crt", VECTOR_ROOT_CRT, 0644},       {"other.crt", VECTOR_OTHER_CRT, 0644},
    {"sub.crt", VECTOR_SUB_CRT, 0644},         {"root.crl", VECTOR_ROOT_CRL, 0644},
    {"open.key", VECTOR_A_P256_KEY, 0640},     {"seed.key", SEED "\n", 0600},
    {"nothing.key", "something\n", 0600},      {"b.crt", VECTOR_B_P256_CRT, 0644},
    {"writable.key", VECTOR_A_P256_KEY, 0620},
};
#define FILES (sizeof files / sizeof *files)

static void write_file(const struct fixture *f, const char *name, const char *text, mode_t mode)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fputs(text, out) >= 0, 1);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->folder, "/tmp/adit-auth-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->file, sizeof f->file, "%s/adit.ini", f->folder);
    for (size_t i = 0; i < FILES; i++)
        write_file(f, files[i].name, files[i].text, files[i].mode);
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
    unlink(f->file);
    rmdir(f->folder);
    config_free(f->config);
    free(f);
    return 0;
}

static void note(void *ctx, const char *kind, unsigned line, const char *text)
{
    struct fixture *f = ctx;
    size_t used = strlen(f->log);
    snprintf(f->log + used, sizeof f->log - used, "%u: %s%s\n", line, kind, text);
}

static void on_error(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)file;
    note(ctx, "", line, text);
}

static void on_warning(void *ctx, const char *file, unsigned line, const char *text)
{
    (void)file;
    note(ctx, "warning: ", line, text);
}

static enum err load(struct fixture *f, const char *text)
{
    const struct config_report report = {f, on_error, on_warning};
    write_file(f, "adit.ini", text, 0600);
    config_free(f->config);
    f->config = NULL;
    f->log[0] = '\0';
    return config_load(f->file, &report, &f->config);
}

static const struct peer *good(struct fixture *f, const char *text)
{
    enum err e = load(f, text);
    assert_string_equal(f->log, "");
    assert_int_equal(e, OK);
    return f->config->peers[0];
}

static void bad(struct fixture *f, const char *text, const char *problem)
{
    assert_int_equal(load(f, text), ERR_SYNTAX);
    if (!strstr(f->log, problem))
        fail_msg("expected: %s\n%s", problem, f->log);
}

static const char *name(const struct identity *id, char text[IDENTITY_TEXT])
{
    return identity_format(id, text, IDENTITY_TEXT);
}

static void two_keys_are_a_link(void **state)
{
    char text[IDENTITY_TEXT];
    uint8_t fingerprint[KEY_FINGERPRINT];
    const struct peer *p = good(*state, "[host]\nkey = file:seed.key\n" PEER "public-key = " PUBLIC "\n" NETS);
    assert_int_equal(p->auth.local, AUTH_PUBKEY);
    assert_int_equal(p->auth.remote, AUTH_PUBKEY);
    assert_int_equal(public_key_kind(p->auth.public_key), KEY_ED25519);
    assert_true(public_key_equal(p->auth.public_key, private_key_public(p->auth.key)));
    assert_true(p->remote_id_any); /* the key is the identity */
    assert_int_equal(p->local_id.type, ID_KEY_ID);
    public_key_fingerprint(p->auth.public_key, fingerprint);
    assert_memory_equal(p->local_id.b, fingerprint, sizeof fingerprint);
    assert_memory_equal(p->auth.fingerprint, fingerprint, sizeof fingerprint);

    /* Inline, with a configured identity at both ends, to a peer that comes from anywhere. */
    p = good(*state, "[host]\nid = me.example\n[peer a]\nendpoint = %any\nid = you.example\nkey = base64:" SEED
                     "\npublic-key = " PUBLIC "\n" NETS);
    assert_string_equal(name(&p->local_id, text), "me.example");
    assert_string_equal(name(&p->remote_id, text), "you.example");
    assert_false(p->remote_id_any);
    p = good(*state, "[host]\nkey = file:seed.key\n[peer a]\nendpoint = %any\npublic-key = " PUBLIC "\n" NETS);
    assert_true(p->remote_id_any);
}

static void certificates_of_the_host_are_for_all_peers(void **state)
{
    struct fixture *f = *state;
    char text[IDENTITY_TEXT];
    assert_int_equal(load(f, HOST_CERT "crl = root.crl\n" PEER NETS "[peer b]\nendpoint = localhost\n"
                                       "local = 10.1.0.0/24\nremote = 10.3.0.0/24\n"),
                     OK);
    const struct peer *p = f->config->peers[0], *b = f->config->peers[1];
    assert_non_null(
        strstr(f->log, "warning: 'b' must call itself localhost, and we call ourselves C=CH, O=adit test, CN=a_p256"));
    assert_string_equal(name(&p->local_id, text), "C=CH, O=adit test, CN=a_p256");
    assert_string_equal(name(&p->remote_id, text), "192.0.2.2");
    assert_string_equal(name(&b->remote_id, text), "localhost");
    assert_int_equal(p->auth.remote, AUTH_PUBKEY);
    assert_ptr_equal(p->auth.chain, b->auth.chain);
    assert_ptr_equal(p->auth.trust, b->auth.trust);
    assert_int_equal(trust_count(p->auth.trust), 1);
    assert_null(p->auth.public_key);

    /* A peer may have its own of each. */
    p = good(f, HOST_CERT PEER "id = b.example\nca = other.crt, file:root.crt\n" NETS);
    assert_int_equal(trust_count(p->auth.trust), 2);
    p = good(f, HOST_CERT PEER "key = file:rsa.key\ncert = rsa.crt, sub.crt\nlocal-id = a.example\n" NETS);
    assert_int_equal(p->auth.chain->n, 2);
    assert_int_equal(public_key_kind(private_key_public(p->auth.key)), KEY_RSA);
    assert_string_equal(name(&p->local_id, text), "a.example");
    p = good(f, HOST_CERT PEER "key = file:seed.key\npublic-key = " PUBLIC "\n" NETS);
    assert_null(p->auth.chain); /* the host's certificate is for another key */
    assert_int_equal(p->local_id.type, ID_KEY_ID);
    p = good(f, HOST_CERT PEER "psk = \"secret\"\n" NETS);
    assert_int_equal(p->auth.local, AUTH_PSK);
    assert_int_equal(p->auth.remote, AUTH_PSK);
    assert_int_equal(p->local_id.type, ID_NONE);
}

static void each_end_has_its_method(void **state)
{
    struct fixture *f = *state;
    const struct peer *p = good(f, HOST_CERT PEER "psk = \"secret\"\nauth = psk, pubkey\n" NETS);
    assert_int_equal(p->auth.local, AUTH_PSK);
    assert_int_equal(p->auth.remote, AUTH_PUBKEY);
    assert_int_equal(p->local_id.type, ID_NONE);
    p = good(f, HOST_CERT PEER "psk = \"secret\"\nauth = pubkey, psk\n" NETS);
    assert_int_equal(p->auth.local, AUTH_PUBKEY);
    assert_int_equal(p->auth.remote, AUTH_PSK);
    p = good(f, HOST_CERT PEER "id = b.example\nauth = pubkey\n" NETS);
    assert_int_equal(p->auth.local, AUTH_PUBKEY);
    assert_int_equal(p->auth.remote, AUTH_PUBKEY);
}

static void what_does_not_fit_is_an_error(void **state)
{
    static const struct {
        const char *text, *problem;
    } rows[] = {
        {PEER, "1: found [peer a] without 'psk', 'public-key' or 'ca', expected one of them"},
        {"[host]\nkey = file:own.key\n" PEER, "3: found [peer a] without 'psk', 'public-key' or 'ca'"},
        {PEER "public-key = " PUBLIC,
         "1: found [peer a] to which we prove ourselves by a key, expected 'key' here or in"},
        {"[host]\nkey = file:own.key\n" PEER "auth = pubkey",
         "5: found [peer a] that proves itself by a key, expected its 'public-key' or the 'ca' it has"},
        {HOST_CERT PEER "auth = psk", "7: found [peer a] with auth = psk but without 'psk', expected it"},
        {HOST_CERT PEER "auth = pubkey, psk", "7: found [peer a] with auth = psk but without 'psk', expected it"},
        {HOST_CERT PEER "auth = pubkey\npsk = \"x\"", "8: found 'psk', expected none: 'auth' says that neither"},
        {HOST_CERT PEER "psk = \"x\"\npublic-key = " PUBLIC, "8: found 'psk' and 'public-key', expected 'auth' with"},
        {HOST_CERT PEER "psk = \"x\"\nca = root.crt", "8: found 'psk' and 'ca', expected 'auth' with them"},
        {HOST_CERT PEER "psk = \"x\"\nauth = pubkey, psk\npublic-key = " PUBLIC,
         "9: found 'public-key', expected none: 'auth' says that the peer proves itself by psk"},
        {HOST_CERT PEER "auth = eap", "7: found 'eap', expected psk or pubkey"},
        {HOST_CERT PEER "auth = pubkey, pubkey, psk", "7: found more than two methods"},
        {HOST_CERT PEER "key = file:rsa.key\ncert = own.crt",
         "8: found a certificate for another ECDSA P-256 key than the RSA 2048 one of 'key' on line 7"},
        {HOST_CERT PEER "cert = rsa.crt",
         "7: found a certificate for another RSA 2048 key than the ECDSA P-256 one of"},
        {"[host]\nkey = file:open.key\n" PEER, "can be read by others than its owner: chmod 600 it"},
        {"[host]\nkey = file:writable.key\n" PEER, "can be written by others than its owner: chmod 600 it"},
        {"[host]\nkey = file:none.key\n" PEER, "none.key can't be read: No such file or directory"},
        {"[host]\nkey = file:nothing.key\n" PEER, "2: nothing.key: "},
        {"[host]\nkey = " SEED "\n" PEER, "2: found a key as it is, expected file:PATH or base64:"},
        {"[host]\nkey = file:own.crt\n" PEER, "can be read by others"},
        {"[host]\nca = own.crt\n" PEER, "2: own.crt: "},
        {"[host]\nca = own.key\n" PEER, "2: own.key: "},
        {"[host]\nca = root.crt,,\n" PEER, "2: found nothing, expected the path of a file"},
        {"[host]\nca = root.crt\ncrl = root.crt\n" PEER, "3: root.crt: "},
        {"[host]\nkey = file:own.key\ncert = nowhere.crt\n" PEER, "nowhere.crt can't be read"},
        {HOST_CERT PEER "public-key = abc", "7: "},
        {HOST_CERT PEER "public-key = file:own.crt", "7: own.crt: "},
        {HOST_CERT "[peer a]\nendpoint = %any\n",
         "5: found [peer a] with endpoint %any but without 'id' or 'public-key'"},
    };
    char text[600];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text, "%s\n" NETS, rows[i].text);
        bad(*state, text, rows[i].problem);
        assert_null(strstr(((struct fixture *)*state)->log, SEED)); /* no secret in a message */
    }
}

static void an_identity_that_is_not_in_the_certificate_is_a_warning(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(load(f, HOST_CERT PEER "local-id = b.example\n" NETS), OK);
    assert_string_equal(f->log,
                        "3: warning: our certificate does not hold the identity b.example that a is told: it will "
                        "hardly be believed\n");
}

static void every_difference_is_noticed(void **state)
{
    static const char *const others[] = {
        "[host]\nkey = file:rsa.key\ncert = rsa.crt\nca = root.crt\nid = a.example\n" PEER NETS,
        "[host]\nkey = file:own.key\ncert = own.crt, sub.crt\nca = root.crt\nid = a.example\n" PEER NETS,
        "[host]\nkey = file:own.key\nca = root.crt\nid = a.example\n" PEER NETS,
        "[host]\nkey = file:own.key\ncert = own.crt\nca = other.crt\nid = a.example\n" PEER NETS,
        "[host]\nkey = file:own.key\ncert = own.crt\nca = root.crt\ncrl = root.crl\nid = a.example\n" PEER NETS,
        "[host]\nkey = file:own.key\ncert = own.crt\nca = root.crt\nid = a.example\n" PEER NETS "public-key = " PUBLIC
        "\n",
        "[host]\nkey = file:own.key\ncert = own.crt\nca = root.crt\nid = a.example\n" PEER NETS
        "psk = \"x\"\nauth = pubkey, psk\n",
    };
    struct fixture *f = *state;
    const char *text = HOST_CERT "id = a.example\n" PEER NETS;
    good(f, text);
    struct config *base = f->config;
    f->config = NULL;
    good(f, text);
    assert_true(peer_equal(base->peers[0], f->config->peers[0]));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        good(f, others[i]);
        if (peer_equal(base->peers[0], f->config->peers[0]))
            fail_msg("%s", others[i]);
    }
    config_free(base);
}

static void the_proofs_are_printed(void **state)
{
    struct fixture *f = *state;
    char out[4096] = "";
    good(f,
         HOST_CERT PEER "id = b.example\n" NETS "[peer b]\nendpoint = %any\nkey = file:seed.key\npublic-key = " PUBLIC
                        "\nlocal = 10.1.0.0/24\nremote = 10.3.0.0/24\n[peer c]\nendpoint = 192.0.2.3\n"
                        "psk = \"x\"\nauth = psk, pubkey\nlocal = 10.1.0.0/24\nremote = 10.4.0.0/24\n");
    FILE *file = fmemopen(out, sizeof out, "w");
    assert_non_null(file);
    config_print(f->config, file);
    assert_int_equal(fclose(file), 0);
    assert_non_null(strstr(out, "    auth           ECDSA P-256 certificate; the peer's: a certificate of 1 CA\n"));
    assert_non_null(strstr(out, "    auth           Ed25519 raw key; the peer's: Ed25519 raw key\n"));
    assert_non_null(strstr(out, "    auth           pre-shared key; the peer's: a certificate of 1 CA\n"));
    assert_non_null(strstr(out, "    local-id       C=CH, O=adit test, CN=a_p256\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_keys_are_a_link, setup, teardown),
        cmocka_unit_test_setup_teardown(certificates_of_the_host_are_for_all_peers, setup, teardown),
        cmocka_unit_test_setup_teardown(each_end_has_its_method, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(an_identity_that_is_not_in_the_certificate_is_a_warning, setup, teardown),
        cmocka_unit_test_setup_teardown(every_difference_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(the_proofs_are_printed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
