#include "ike/proposal.h"

#include <stdio.h>

#define PROPOSAL_HEADER 8
#define TRANSFORM_HEADER 8
#define MORE_PROPOSALS 2
#define MORE_TRANSFORMS 3
#define ATTRIBUTE_TV 0x8000
#define ATTRIBUTE_KEY_LENGTH 14
#define ESP_SPI_MIN 256 /* below is reserved (RFC 4303 section 2.1) */

/* -- writing -- */

static void put_transform(struct writer *w, const struct transform *t, bool more)
{
    bool sized = t->key_bits != 0;
    write_u8(w, more ? MORE_TRANSFORMS : 0);
    write_u8(w, 0);
    write_u16(w, sized ? TRANSFORM_HEADER + 4 : TRANSFORM_HEADER);
    write_u8(w, t->type);
    write_u8(w, 0);
    write_u16(w, t->id);
    if (sized) {
        write_u16(w, ATTRIBUTE_TV | ATTRIBUTE_KEY_LENGTH);
        write_u16(w, t->key_bits);
    }
}

static void put_proposal(struct writer *w, const struct proposal *p, uint8_t number, uint64_t spi, uint8_t spi_len,
                         bool more)
{
    size_t at = writer_len(w);
    write_u8(w, more ? MORE_PROPOSALS : 0);
    write_u8(w, 0);
    write_u16(w, 0); /* length, below */
    write_u8(w, number);
    write_u8(w, p->protocol);
    write_u8(w, spi_len);
    write_u8(w, p->n);
    if (spi_len == 8)
        write_u64(w, spi);
    else if (spi_len == 4)
        write_u32(w, (uint32_t)spi);
    for (unsigned i = 0; i < p->n; i++)
        put_transform(w, &p->t[i], i + 1 < p->n);
    write_patch_u16(w, at + 2, writer_len(w) - at);
}

void proposal_put_offer(struct ike_builder *b, const struct proposals *p, uint64_t spi, uint8_t spi_len)
{
    ike_open(b, PAYLOAD_SA);
    for (unsigned i = 0; i < p->n; i++)
        put_proposal(&b->w, &p->v[i], (uint8_t)(i + 1), spi, spi_len, i + 1 < p->n);
    ike_close(b);
}

/* Every transform that the choice has, NONE included where it was offered: one of each type (section 2.7). */
static void choice_transforms(const struct choice *c, bool with_none, struct proposal *out)
{
    const struct transform *all[] = {&c->encr, &c->prf, &c->integ, &c->ke, &c->esn};
    memset(out, 0, sizeof *out);
    out->protocol = c->protocol;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool none = (all[i]->type == TRANSFORM_INTEG || all[i]->type == TRANSFORM_KE) && all[i]->id == 0;
        if (all[i]->type != 0 && (with_none || !none))
            out->t[out->n++] = *all[i];
    }
}

void proposal_put_answer(struct ike_builder *b, const struct choice *c, uint64_t spi, uint8_t spi_len)
{
    struct proposal p;
    choice_transforms(c, true, &p);
    ike_open(b, PAYLOAD_SA);
    put_proposal(&b->w, &p, c->number, spi, spi_len, false);
    ike_close(b);
}

void choice_proposal(const struct choice *c, struct proposal *out)
{
    choice_transforms(c, false, out);
}

enum err choice_suite(const struct choice *c, struct suite *out)
{
    return c->protocol == PROTOCOL_AH ? suite_of_integ(&c->integ, out) : suite_of(&c->encr, &c->integ, out);
}

/* -- reading -- */

struct wire_proposal {
    uint8_t number, protocol, spi_len, count;
    uint64_t spi;
    struct reader transforms;
};

struct wire_transform {
    struct transform t;
    bool usable; /* no attribute that we don't understand, or that must not be there (section 3.3.6) */
};

/*
 * Section 3.3.5: the only attribute is Key Length, in its short form, once, on a cipher. Anything else makes the
 * transform unacceptable, and it alone.
 */
static enum err read_attributes(struct reader *r, struct wire_transform *out)
{
    while (reader_left(r) > 0) {
        uint16_t type = read_u16(r), value = read_u16(r);
        if (!(type & ATTRIBUTE_TV))
            read_span(r, value);
        if (r->failed)
            return ERR_SYNTAX;
        if (type != (ATTRIBUTE_TV | ATTRIBUTE_KEY_LENGTH) || out->t.type != TRANSFORM_ENCR || out->t.key_bits != 0 ||
            value == 0)
            out->usable = false;
        else
            out->t.key_bits = value;
    }
    return OK;
}

static enum err read_transform(struct reader *r, bool last, struct wire_transform *out)
{
    uint8_t more = read_u8(r);
    read_u8(r); /* reserved */
    size_t len = read_u16(r);
    *out = (struct wire_transform){.t.type = read_u8(r), .usable = true};
    read_u8(r); /* reserved */
    out->t.id = read_u16(r);
    if (r->failed || len < TRANSFORM_HEADER || more != (last ? 0 : MORE_TRANSFORMS))
        return ERR_SYNTAX;
    struct reader attributes = read_sub(r, len - TRANSFORM_HEADER);
    if (attributes.failed)
        return ERR_SYNTAX;
    return read_attributes(&attributes, out);
}

/* Section 3.3.1. For protocols we don't know the SPI may be of any size. */
static enum err judge_spi(const struct wire_proposal *p)
{
    switch (p->protocol) {
    case PROTOCOL_IKE: /* none at first, the new SA's at a rekey */
        return p->spi_len == 0 || (p->spi_len == 8 && p->spi != 0) ? OK : ERR_SYNTAX;
    case PROTOCOL_AH:
    case PROTOCOL_ESP:
        return p->spi_len == 4 && p->spi >= ESP_SPI_MIN ? OK : ERR_SYNTAX;
    default:
        return OK;
    }
}

static enum err read_proposal(struct reader *r, struct wire_proposal *out)
{
    uint8_t more = read_u8(r);
    read_u8(r); /* reserved */
    size_t len = read_u16(r);
    if (r->failed || len < PROPOSAL_HEADER)
        return ERR_SYNTAX;
    struct reader body = read_sub(r, len - 4);
    out->number = read_u8(&body);
    out->protocol = read_u8(&body);
    out->spi_len = read_u8(&body);
    out->count = read_u8(&body);
    struct span spi = read_span(&body, out->spi_len);
    if (body.failed || more != (reader_left(r) > 0 ? MORE_PROPOSALS : 0))
        return ERR_SYNTAX;
    out->spi = 0;
    for (size_t i = 0; i < spi.len && spi.len <= 8; i++)
        out->spi = out->spi << 8 | spi.data[i];
    out->transforms = body;
    return judge_spi(out);
}

/* -- choosing -- */

#define ACCEPTABLE_MAX 64

/* What of one of the peer's proposals matters to us: the types it has, and those of its transforms that we know. */
struct acceptable {
    uint32_t types; /* bit by transform type 1..5 */
    bool spoiled;   /* a transform type that we don't understand (section 3.3.6) */
    unsigned n;
    struct transform t[ACCEPTABLE_MAX];
};

static bool transform_equal(const struct transform *a, const struct transform *b)
{
    return a->type == b->type && a->id == b->id && a->key_bits == b->key_bits;
}

static bool in_proposal(const struct proposal *p, const struct transform *t)
{
    for (unsigned i = 0; i < p->n; i++)
        if (transform_equal(&p->t[i], t))
            return true;
    return false;
}

static bool in_acceptable(const struct acceptable *a, const struct transform *t)
{
    for (unsigned i = 0; i < a->n; i++)
        if (transform_equal(&a->t[i], t))
            return true;
    return false;
}

/* NONE is a transform of its own for integrity and key exchange (section 3.3.2). */
static const struct transform integ_none = {.type = TRANSFORM_INTEG}, ke_none = {.type = TRANSFORM_KE};

static const struct transform *none_of(uint8_t type)
{
    return type == TRANSFORM_INTEG ? &integ_none : type == TRANSFORM_KE ? &ke_none : NULL;
}

/* Which types a proposal of this protocol may have (section 3.3.3). */
static bool type_known(uint8_t protocol, uint8_t type)
{
    if (protocol == PROTOCOL_IKE)
        return type >= TRANSFORM_ENCR && type <= TRANSFORM_KE;
    return (type == TRANSFORM_ENCR && protocol == PROTOCOL_ESP) || type == TRANSFORM_INTEG || type == TRANSFORM_KE ||
           type == TRANSFORM_ESN;
}

static void keep_transform(struct acceptable *a, const struct wire_transform *w, const struct proposals *ours)
{
    bool wanted = none_of(w->t.type) && w->t.id == 0;
    a->types |= UINT32_C(1) << w->t.type;
    for (unsigned i = 0; i < ours->n && !wanted; i++)
        wanted = in_proposal(&ours->v[i], &w->t);
    if (w->usable && wanted && !in_acceptable(a, &w->t) && a->n < ACCEPTABLE_MAX)
        a->t[a->n++] = w->t;
}

/* Reads all transforms of a proposal; shown (may be NULL) gets them as they are, for the message to a person. */
static enum err read_transforms(struct wire_proposal *p, const struct proposals *ours, struct acceptable *a,
                                struct proposal *shown)
{
    *a = (struct acceptable){.types = 0};
    for (unsigned left = p->count; left > 0; left--) {
        struct wire_transform w;
        TRY(read_transform(&p->transforms, left == 1, &w));
        if (shown && shown->n < PROPOSAL_TRANSFORMS)
            shown->t[shown->n++] = w.t;
        if (type_known(p->protocol, w.t.type))
            keep_transform(a, &w, ours);
        else
            a->spoiled = true;
    }
    return reader_done(&p->transforms) ? OK : ERR_SYNTAX;
}

/*
 * One transform of a type, ours first, `preferred` before all. Left at type 0 where both sides do without; NONE where
 * the peer lists it and we need nothing. False: nothing in common.
 */
static bool choose_type(uint8_t type, const struct acceptable *theirs, const struct proposal *ours, uint16_t preferred,
                        struct transform *out)
{
    const struct transform *none = none_of(type), *found = NULL;
    *out = (struct transform){.type = 0};
    bool optional = none && (!proposal_has(ours, type) || in_proposal(ours, none));
    if (!(theirs->types & UINT32_C(1) << type))
        return optional;
    for (unsigned i = 0; i < ours->n; i++) {
        const struct transform *t = &ours->t[i];
        if (t->type == type && in_acceptable(theirs, t) && (!found || (preferred && t->id == preferred)))
            found = t;
    }
    if (!found && optional && in_acceptable(theirs, none))
        found = none;
    if (found)
        *out = *found;
    return found != NULL;
}

/* What must not be, whatever both sides list: section 5 for IKE itself, RFC 4303 section 3.2.3 for ESP. */
static bool suite_allowed(const struct choice *c)
{
    struct suite s;
    const struct algorithm *encr = algorithm_find(TRANSFORM_ENCR, c->encr.id, c->encr.key_bits);
    if (c->protocol == PROTOCOL_IKE && (!encr || !algorithm_encrypts_ike(encr) || c->ke.id == KE_NONE))
        return false;
    return choice_suite(c, &s) == OK;
}

static bool choose_all(const struct acceptable *theirs, const struct proposal *ours, uint16_t prefer_ke, bool with_ke,
                       struct choice *c)
{
    bool ike = ours->protocol == PROTOCOL_IKE;
    bool ah = ours->protocol == PROTOCOL_AH;
    if ((!ah && !choose_type(TRANSFORM_ENCR, theirs, ours, 0, &c->encr)) ||
        !choose_type(TRANSFORM_INTEG, theirs, ours, 0, &c->integ))
        return false;
    if (ike && !choose_type(TRANSFORM_PRF, theirs, ours, 0, &c->prf))
        return false;
    if (!ike && !choose_type(TRANSFORM_ESN, theirs, ours, 0, &c->esn))
        return false;
    if (with_ke && !choose_type(TRANSFORM_KE, theirs, ours, prefer_ke, &c->ke))
        return false;
    return suite_allowed(c);
}

/* Two halves of one line, each cut to its share by proposals_format. */
static void explain(const struct proposals *offered, const struct proposals *ours, char *why, size_t size)
{
    char a[400], b[400];
    if (size == 0)
        return;
    size_t room = size > 32 ? (size - 24) / 2 : 1;
    if (room > sizeof a)
        room = sizeof a;
    proposals_format(offered, a, room);
    proposals_format(ours, b, room);
    /* Which protocols matters only where they differ: ESP offered, and AH configured. */
    bool differ = offered->n && ours->n && offered->v[0].protocol != ours->v[0].protocol;
    snprintf(why, size, "offered %s%s%s; configured %s%s%s", differ ? protocol_text(offered->v[0].protocol) : "",
             differ ? " " : "", offered->n ? a : "nothing", differ ? protocol_text(ours->v[0].protocol) : "",
             differ ? " " : "", ours->n ? b : "nothing");
}

enum err proposal_choose(struct span sa, const struct proposals *ours, uint16_t prefer_ke, bool with_ke,
                         struct choice *out, char *why, size_t why_size)
{
    struct reader r = reader_of(sa);
    struct proposals offered = {.n = 0};
    struct choice best = {.number = 0};
    unsigned best_at = ours->n; /* all of the peer's are read, for their syntax; the lowest of ours that fits wins */
    unsigned number = 1;
    do {
        struct wire_proposal p;
        struct acceptable theirs;
        TRY(read_proposal(&r, &p));
        if (p.number != number++) /* one, and one more each (section 3.3.1) */
            return ERR_SYNTAX;
        struct proposal *shown = offered.n < PROPOSALS_MAX ? &offered.v[offered.n++] : NULL;
        if (shown)
            *shown = (struct proposal){.protocol = p.protocol};
        TRY(read_transforms(&p, ours, &theirs, shown));
        for (unsigned i = 0; i < best_at && !theirs.spoiled; i++) {
            struct choice c = {.number = p.number, .protocol = p.protocol, .spi = p.spi, .spi_len = p.spi_len};
            if (ours->v[i].protocol != p.protocol || !choose_all(&theirs, &ours->v[i], prefer_ke, with_ke, &c))
                continue;
            best = c;
            best_at = i;
        }
    } while (reader_left(&r) > 0);
    if (best_at == ours->n) {
        explain(&offered, ours, why, why_size);
        return ERR_MISMATCH;
    }
    *out = best;
    return OK;
}

/* -- the answer to our offer -- */

static struct transform *slot(struct choice *c, uint8_t type)
{
    switch (type) {
    case TRANSFORM_ENCR:
        return &c->encr;
    case TRANSFORM_PRF:
        return &c->prf;
    case TRANSFORM_INTEG:
        return &c->integ;
    case TRANSFORM_KE:
        return &c->ke;
    case TRANSFORM_ESN:
        return &c->esn;
    default:
        return NULL;
    }
}

/* NONE of a type that we didn't offer at all means the same as leaving it out. */
static bool was_offered(const struct proposal *offered, const struct transform *t)
{
    const struct transform *none = none_of(t->type);
    return in_proposal(offered, t) || (none && transform_equal(t, none) && !proposal_has(offered, t->type));
}

/* Each type that we offered has to be answered, unless it may be NONE (section 2.7). */
static bool complete(const struct proposal *offered, struct choice *c, bool with_ke)
{
    for (uint8_t type = TRANSFORM_ENCR; type <= TRANSFORM_ESN; type++) {
        if (slot(c, type)->type != 0 || !proposal_has(offered, type) || (type == TRANSFORM_KE && !with_ke))
            continue;
        const struct transform *none = none_of(type);
        if (!none || !in_proposal(offered, none))
            return false;
    }
    return true;
}

enum err proposal_accept(struct span sa, const struct proposals *offered, bool with_ke, struct choice *out)
{
    struct reader r = reader_of(sa);
    struct wire_proposal p;
    enum err e = OK;
    TRY(read_proposal(&r, &p));
    if (reader_left(&r) > 0)
        return ERR_SYNTAX;
    const struct proposal *ours = NULL;
    if (p.number >= 1 && p.number <= offered->n && offered->v[p.number - 1].protocol == p.protocol)
        ours = &offered->v[p.number - 1];
    struct choice c = {.number = p.number, .protocol = p.protocol, .spi = p.spi, .spi_len = p.spi_len};
    for (unsigned left = p.count; left > 0; left--) { /* to the end, for the syntax */
        struct wire_transform w;
        TRY(read_transform(&p.transforms, left == 1, &w));
        struct transform *t = slot(&c, w.t.type);
        if (t == &c.ke && !with_ke)
            continue;
        if (!t || t->type != 0 || !w.usable || !ours || !was_offered(ours, &w.t))
            e = ERR_MISMATCH;
        else
            *t = w.t;
    }
    if (!reader_done(&p.transforms))
        return ERR_SYNTAX;
    if (e != OK || !ours || !complete(ours, &c, with_ke) || !suite_allowed(&c))
        return ERR_MISMATCH;
    *out = c;
    return OK;
}
