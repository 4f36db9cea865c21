/*
 * The proofs of IKE_AUTH (RFC 7296 section 2.15, RFC 7427, RFC 7670): ours made, the peer's checked, by pre-shared key or
 * by signature. Signatures are jobs: a proof owns copies of all that is signed and references to the keys and CAs, so
 * that it stands also when the configuration is replaced meanwhile.
 */
#ifndef ADIT_PROOF_H
#define ADIT_PROOF_H

#include "crypto/cert.h"
#include "crypto/sig.h"
#include "ike/internal.h"

#define AUTH_METHOD_SHARED_KEY 2
#define PROOF_HINTS 32     /* CAs named in one CERTREQ: IKE_SA_INIT has to fit one packet */
#define PROOF_CANDIDATES 8 /* peers that one signature is checked for, when the identity names none of them */

/* What a signature may be by: a raw key, or else a certificate that leads to one of these CAs. */
struct proof_candidate {
    struct public_key *key;
    struct trust *trust;
};

struct proof {
    struct buf octets; /* what is signed */
    uint8_t method;    /* of the AUTH payload: what SIGN makes, what VERIFY checks */
    struct buf data;

    struct private_key *key; /* SIGN */
    unsigned hashes;         /* that the peer takes */
    void (*made)(struct ike_sa *sa, enum err err, uint8_t method, struct span data);

    struct identity id; /* VERIFY: whom the peer says it is … */
    struct chain chain; /* … and what it shows for it */
    bool dated;         /* `now` is known */
    int64_t now;
    struct proof_candidate candidate[PROOF_CANDIDATES];
    unsigned candidates;
    unsigned proven;        /* OK: which one it is by */
    char how[AUTH_TEXT];    /* OK: for status and logs */
    char why[TEXT_MAX / 2]; /* else: in words, for our end alone */
    void (*checked)(struct ike_sa *sa, const struct proof *p, enum err err);
};

/* -- what jobs do, on any thread -- */
MUST_USE enum err proof_sign(struct proof *p, const struct random_source *rnd); /* Errors: those of sig_auth_make */
MUST_USE enum err proof_verify(struct proof *p);                                /* Errors: AUTH, NOMEM, CRYPTO */
void proof_free(struct proof *p);                                               /* NULL is fine */

/* -- on the engine's thread -- */

/*
 * Proves ourselves as local_id to the SA's peer, as its configuration says: `made` is called with the content of our AUTH
 * payload, at once (pre-shared key, failures) or when the job is done.
 */
void proof_make(struct ike_sa *sa, void (*made)(struct ike_sa *, enum err, uint8_t method, struct span data));
/* Whether AUTH is right for the peer's pre-shared key. body: of its ID payload, as it came. */
bool proof_psk_right(const struct ike_sa *sa, const struct peer *peer, const struct ike_message *m, struct span body);
/*
 * Checks the signature of AUTH for each of the peers in turn, as remote_id, by a job: `checked` gets the outcome. An
 * error says that there is no job. Errors: NOMEM, FULL, CRYPTO.
 */
MUST_USE enum err proof_check(struct ike_sa *sa, const struct ike_message *m, struct span body,
                              const struct peer *const *peers, unsigned n,
                              void (*checked)(struct ike_sa *, const struct proof *, enum err));
/* Whether that peer is whom the candidate stands for. */
bool proof_fits(const struct proof_candidate *c, const struct peer *peer);

/* How AUTH of this method and data proves. text for the messages of either end. */
enum auth_method proof_kind(uint8_t method);
const char *proof_text(const struct ike_message *m, char *text, size_t size);
const char *proof_wanted(const struct peer *peer); /* what is configured for the peer's proof */

/* -- payloads -- */
void proof_put_hashes(struct ike_builder *b);       /* SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4) */
unsigned proof_hashes(const struct ike_message *m); /* the peer's, as bits; 0: none came */
void proof_put_certs(struct ike_builder *b, const struct peer *peer); /* our certificates, if we prove by them */
/* CERTREQ (section 3.7) for the CAs of some peers: none is sent if none of them proves itself by certificate. */
struct proof_hints {
    const struct trust *last; /* most peers share one */
    unsigned n;
    uint8_t b[PROOF_HINTS][CERT_HINT];
};
void proof_hint(struct proof_hints *h, const struct peer *peer);
void proof_put_request(struct ike_builder *b, const struct proof_hints *h);

#endif
