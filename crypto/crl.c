#include "crypto/crl.h"

#include "crypto/der.h"
#include "crypto/dn.h"

/* The next extension: its number, and whether it is critical. */
static bool next_extension(struct reader *list, struct span *number, bool *critical)
{
    if (reader_left(list) == 0)
        return false;
    struct reader e = der_enter(list, DER_SEQUENCE), oid = der_enter(&e, DER_OID);
    *number = read_rest(&oid);
    *critical = der_read_default_false(&e);
    struct reader value = der_enter(&e, DER_OCTET_STRING);
    if (!reader_done(&e) || value.failed)
        list->failed = true;
    return !list->failed;
}

/* What a critical extension says that makes the list something else than the complete list of its issuer. */
static const char *meaning(struct span number)
{
    static const struct {
        uint8_t id; /* within id-ce */
        const char *text;
    } known[] = {
        {27, "it is a delta CRL"},
        {28, "it covers only part of its issuer's certificates, or those of others"},
        {29, "it is an indirect CRL"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (number.len == 3 && number.data[0] == 0x55 && number.data[1] == 0x1d && number.data[2] == known[i].id)
            return known[i].text;
    return "it is not known here";
}

static enum err judge_extensions(struct reader *list, struct text *why)
{
    struct span number;
    bool critical;
    while (next_extension(list, &number, &critical)) {
        if (!critical)
            continue;
        text_add(why, "a CRL with the critical extension ");
        oid_format(number, why);
        text_add(why, " (%s) can't be used, expected a complete CRL of its issuer", meaning(number));
        return ERR_UNSUPPORTED;
    }
    return reader_done(list) ? OK : ERR_SYNTAX;
}

struct entry {
    struct span serial;
    struct reader extensions; /* empty when there are none */
};

static bool next_entry(struct reader *list, struct entry *out)
{
    if (reader_left(list) == 0)
        return false;
    struct reader r = der_enter(list, DER_SEQUENCE), serial = der_enter(&r, DER_INTEGER);
    out->serial = read_rest(&serial);
    out->extensions = (struct reader){0};
    der_read_whole(&r); /* revocationDate: what is listed is revoked */
    if (reader_left(&r) > 0)
        out->extensions = der_enter(&r, DER_SEQUENCE);
    if (!reader_done(&r))
        list->failed = true;
    return !list->failed;
}

static enum err judge_entries(struct span revoked, struct text *why)
{
    struct reader list = reader_of(revoked);
    struct entry entry;
    while (next_entry(&list, &entry))
        TRY(judge_extensions(&entry.extensions, why));
    return reader_done(&list) ? OK : ERR_SYNTAX;
}

/* The fields of TBSCertList, section 5.1; *extensions: empty when there are none. */
static enum err take_apart(struct crl *c, struct reader *extensions, struct text *why)
{
    struct reader whole = reader_of(c->sign.tbs), r = der_enter(&whole, DER_SEQUENCE);
    if (der_next_is(&r, DER_INTEGER))
        der_read_whole(&r);
    struct span algorithm = der_read_whole(&r);
    c->issuer = der_read_whole(&r);
    c->this_update = x509_read_time(&r);
    bool has_next = der_next_is(&r, DER_UTC_TIME) || der_next_is(&r, DER_GENERALIZED_TIME);
    if (has_next)
        c->next_update = x509_read_time(&r);
    if (der_next_is(&r, DER_SEQUENCE)) {
        struct reader revoked = der_enter(&r, DER_SEQUENCE);
        c->revoked = read_rest(&revoked);
    }
    if (der_next_is(&r, DER_CONTEXT + 0)) {
        struct reader tagged = der_enter(&r, DER_CONTEXT + 0);
        *extensions = der_enter(&tagged, DER_SEQUENCE);
        r.failed |= !reader_done(&tagged);
    }
    if (!reader_done(&r) || !reader_done(&whole) || !span_equal(algorithm, c->sign.algorithm))
        return ERR_SYNTAX;
    if (!has_next) {
        text_add(why, "a CRL without nextUpdate can't be used: nobody could tell when it is out of date");
        return ERR_UNSUPPORTED;
    }
    return OK;
}

enum err crl_parse(struct span der, struct crl *out, struct text *why)
{
    struct crl c = {0};
    struct reader extensions = {0};
    enum err e = x509_signed_parse(der, &c.sign);
    if (e == OK)
        e = take_apart(&c, &extensions, why);
    if (e == OK)
        e = judge_extensions(&extensions, why);
    if (e == OK)
        e = judge_entries(c.revoked, why);
    if (e == ERR_SYNTAX)
        text_add(why, "the CRL is malformed");
    if (e == OK)
        *out = c;
    return e;
}

/* An INTEGER's bytes without leading zeros: some issuers write one more than they should. */
static struct span significant(struct span serial)
{
    while (serial.len > 1 && serial.data[0] == 0) {
        serial.data++;
        serial.len--;
    }
    return serial;
}

bool crl_revokes(const struct crl *c, struct span serial)
{
    struct reader list = reader_of(c->revoked);
    struct entry entry;
    while (next_entry(&list, &entry))
        if (span_equal(significant(entry.serial), significant(serial)))
            return true;
    return list.failed; /* it was well-formed when it was parsed */
}
