/* Key derivation and the AUTH payload's content (RFC 7296 sections 2.13 to 2.18; RFC 5282 for AEADs). */
#ifndef ADIT_KEYMAT_H
#define ADIT_KEYMAT_H

#include "core/base/buf.h"
#include "crypto/kex.h"
#include "crypto/prf.h"
#include "crypto/secret.h"
#include "crypto/transform.h"

/* All of an IKE SA's keys; secret memory. e: initiator to responder i, back r. integ_* empty for AEADs. */
struct ike_keys {
    uint16_t prf;
    struct secret d, ai, ar, ei, er, pi, pr;
};

/* SKEYSEED and SK_* of a first exchange. spi_* as 64-bit numbers of the header. Errors: CRYPTO, UNSUPPORTED. */
MUST_USE enum err keymat_ike(struct ike_keys *out, uint16_t prf_id, const struct suite *s, struct span ni,
                             struct span nr, uint64_t spi_i, uint64_t spi_r, const struct kex_secret *g);
/* The same for a rekeyed IKE SA: SKEYSEED = prf(old SK_d, g^ir new | Ni | Nr), with the old SA's PRF (section 2.18). */
MUST_USE enum err keymat_ike_rekey(struct ike_keys *out, uint16_t prf_id, const struct suite *s,
                                   const struct ike_keys *old, struct span ni, struct span nr, uint64_t spi_i,
                                   uint64_t spi_r, const struct kex_secret *g);
/*
 * Stirs a postquantum preshared key into SK_d, SK_pi and SK_pr of a first exchange (RFC 8784 section 3); a rekey goes on
 * from there without it. Errors: CRYPTO, UNSUPPORTED.
 */
MUST_USE enum err keymat_ppk(struct ike_keys *k, struct span ppk);
/* SKEYSEED alone, for known-answer tests. out: prf_len bytes. */
MUST_USE enum err keymat_skeyseed(uint16_t prf_id, struct span ni, struct span nr, struct span g, uint8_t *out);

struct child_keys {                                 /* secret memory */
    struct secret encr_i, integ_i, encr_r, integ_r; /* i: from the exchange's initiator to its responder */
};
/* KEYMAT = prf+(SK_d, [g^ir new |] Ni | Nr) of section 2.17. g NULL without PFS. */
MUST_USE enum err keymat_child(struct child_keys *out, const struct ike_keys *k, const struct suite *s, struct span ni,
                               struct span nr, const struct kex_secret *g);

/*
 * AUTH with a shared key (section 2.15): prf(prf(psk, "Key Pad for IKEv2"), message | nonce | prf(SK_p, id_body)).
 * message: the whole first message of the signer; nonce: the other side's; id_body: exactly as on the wire.
 */
MUST_USE enum err keymat_psk_auth(uint16_t prf_id, struct span psk, const struct secret *sk_p, struct span message,
                                  struct span nonce, struct span id_body, uint8_t *out);

/* The octets that an end signs (section 2.15), appended to out: message | nonce | prf(SK_p, id_body); spans as above. */
MUST_USE enum err keymat_signed_octets(uint16_t prf_id, const struct secret *sk_p, struct span message,
                                       struct span nonce, struct span id_body, struct buf *out);

#endif
