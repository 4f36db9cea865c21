/* adit pki: keys and certificates of a small certificate authority, in files that cert, key and ca of adit.ini name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/cli.h"
#include "core/file.h"
#include "crypto/dn.h"
#include "crypto/issue.h"
#include "crypto/secret.h"
#include "crypto/x509.h"
#include "policy/pad.h"

#define FILE_MAX 65536
#define PATH_TEXT 512
#define NAME_TEXT 64 /* RFC 5280 appendix A.1: ub-common-name */
#define DAYS_CA 3650
#define DAYS_CERT 1095
#define DAYS_MAX 36500
#define DAY INT64_C(86400)
#define BACK INT64_C(3600) /* clocks differ: a certificate made now is to be valid at the other end, too */

/* What one call makes, and from what. */
struct making {
    const struct cli_pki *options;
    const char *name;
    bool ca;
    char key_path[PATH_TEXT], cert_path[PATH_TEXT];
    enum issue_key kind;
    struct issue what;
    uint8_t subject[4 * NAME_TEXT];
    struct identity identity[ISSUE_NAMES_MAX];
    struct buf ca_cert, ca_key, key, cert;
};

static int usage(const char *text)
{
    fprintf(stderr, "adit: %s ('adit pki --help')\n", text);
    return EXIT_USAGE;
}

static int failed(const char *path, const char *why)
{
    fprintf(stderr, "adit: %s%s%s\n", path, path[0] ? ": " : "", why);
    return EXIT_FAILED;
}

/* -- what was asked for -- */

static int take_key_kind(const char *text, enum issue_key *kind)
{
    static const char *const kinds[] = {"ecdsa256", "ecdsa384", "rsa3072"}; /* in the order of enum issue_key */
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (text && strcmp(text, kinds[i]) != 0)
            continue;
        *kind = (enum issue_key)i; /* without a word: the first */
        return EXIT_DONE;
    }
    return usage("--key takes ecdsa256, ecdsa384 or rsa3072");
}

static int take_days(const char *text, bool ca, struct issue *what)
{
    const int64_t now = (int64_t)(clock_wall() / NS_PER_S);
    char *end = NULL;
    long days = ca ? DAYS_CA : DAYS_CERT;
    if (text)
        days = strtol(text, &end, 10);
    if (end && (*end || end == text || days < 1 || days > DAYS_MAX))
        return usage("--days takes days from 1 to 36500");
    what->not_before = now - BACK;
    what->not_after = now + days * DAY;
    return EXIT_DONE;
}

static int take_subject(struct making *m)
{
    char text[sizeof "CN=" + 2 * NAME_TEXT];
    struct text t = text_of(text, sizeof text);
    struct span name = span_of(m->name, strlen(m->name));
    struct writer w = writer_of(m->subject, sizeof m->subject);
    if (name.len < 1 || name.len > NAME_TEXT || !is_printable(name))
        return usage("NAME takes 1 to 64 printable ASCII characters");
    text_add(&t, "CN=");
    text_escape(&t, name, ",\\");
    if (dn_encode(text, &w) != OK)
        return usage("NAME can't be the name of a certificate");
    m->what.subject = span_of(m->subject, writer_len(&w));
    return EXIT_DONE;
}

static int take_alt_name(struct making *m, const char *text)
{
    if (m->what.name_count == ISSUE_NAMES_MAX)
        return usage("too many --san");
    struct identity *id = &m->identity[m->what.name_count];
    if (identity_parse(text, id) != OK ||
        (id->type != ID_IPV4 && id->type != ID_IPV6 && id->type != ID_FQDN && id->type != ID_RFC822)) {
        char what[400];
        snprintf(what, sizeof what,
                 "\"%.100s\" is no name for a certificate: expected an IP address, a DNS name or a mail "
                 "address",
                 text);
        return usage(what);
    }
    m->what.names[m->what.name_count++] = (struct issue_name){id->type, span_of(id->b, id->len)};
    return EXIT_DONE;
}

static int take_alt_names(struct making *m)
{
    if (m->ca)
        return m->options->ca || m->options->san_count ? usage("pki ca takes neither --ca nor --san") : EXIT_DONE;
    if (!m->options->ca)
        return usage("pki cert needs --ca DIR/ca, as 'adit pki ca' made it");
    if (m->name[0] == '@' || m->name[0] == '.' || strchr(m->name, '/'))
        return usage("NAME is also that of the files: it can't begin with @ or a dot, nor hold a slash");
    int code = take_alt_name(m, m->name);
    for (unsigned i = 0; i < m->options->san_count && code == EXIT_DONE; i++)
        code = take_alt_name(m, m->options->san[i]);
    return code;
}

static int take_paths(struct making *m)
{
    const char *folder = m->options->out ? m->options->out : ".", *name = m->ca ? "ca" : m->name;
    if ((size_t)snprintf(m->key_path, PATH_TEXT, "%s/%s.key", folder, name) >= PATH_TEXT ||
        (size_t)snprintf(m->cert_path, PATH_TEXT, "%s/%s.crt", folder, name) >= PATH_TEXT)
        return usage("the name of the folder is too long");
    return EXIT_DONE;
}

/* -- doing it -- */

static int load_ca(struct making *m)
{
    char path[PATH_TEXT];
    if ((size_t)snprintf(path, sizeof path, "%s.crt", m->options->ca) >= sizeof path)
        return usage("the name after --ca is too long");
    if (file_read(path, FILE_MAX, false, &m->ca_cert) != OK)
        return failed(path, strerror(errno));
    snprintf(path, sizeof path, "%s.key", m->options->ca);
    enum err e = file_read(path, FILE_MAX, true, &m->ca_key);
    if (e == ERR_PERM)
        return failed(path, "others than its owner can read this private key: 'chmod 600' it first");
    return e == OK ? EXIT_DONE : failed(path, strerror(errno));
}

/* Never over an existing file, and both or none. */
static int save(const struct making *m)
{
    if (m->options->out && file_folder(m->options->out, 0700) != OK)
        return failed(m->options->out, strerror(errno));
    if (file_create(m->key_path, 0600, buf_span(&m->key)) != OK)
        return failed(m->key_path, strerror(errno));
    if (file_create(m->cert_path, 0644, buf_span(&m->cert)) == OK)
        return EXIT_DONE;
    int code = failed(m->cert_path, strerror(errno));
    unlink(m->key_path);
    return code;
}

static int make_files(struct making *m)
{
    const struct issuer issuer = {buf_span(&m->ca_cert), buf_span(&m->ca_key)};
    char why[600] = "", date[X509_TIME_TEXT];
    const int64_t asked = m->what.not_after;
    if (access(m->key_path, F_OK) == 0)
        return failed(m->key_path, strerror(EEXIST)); /* before a key is made for nothing */
    enum err e = issue_key_new(m->kind, &m->key);
    if (e == OK)
        e = issue_certificate(&m->what, buf_span(&m->key), m->ca ? NULL : &issuer, &m->cert, why, sizeof why);
    if (e != OK)
        return failed("", why[0] ? why : err_text(e));
    int code = save(m);
    if (code == EXIT_DONE)
        printf("%s and %s, valid until %s%s\n", m->key_path, m->cert_path, x509_time_text(m->what.not_after, date),
               m->what.not_after < asked ? ", as is the CA" : "");
    return code;
}

int cli_pki(const struct cli *c)
{
    struct making m = {.options = &c->pki, .name = c->args[1], .ca = strcmp(c->args[0], "ca") == 0};
    if (!m.ca && strcmp(c->args[0], "cert") != 0)
        return usage("pki takes ca NAME or cert NAME");
    if (crypto_init() != OK)
        return failed("", "the crypto libraries could not be started");
    int code = take_key_kind(m.options->key, &m.kind);
    if (code == EXIT_DONE)
        code = take_days(m.options->days, m.ca, &m.what);
    if (code == EXIT_DONE)
        code = take_subject(&m);
    if (code == EXIT_DONE)
        code = take_alt_names(&m);
    if (code == EXIT_DONE)
        code = take_paths(&m);
    if (code == EXIT_DONE && !m.ca)
        code = load_ca(&m);
    if (code == EXIT_DONE)
        code = make_files(&m);
    struct buf *all[] = {&m.ca_cert, &m.ca_key, &m.key, &m.cert};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_free(all[i]);
    return code;
}
