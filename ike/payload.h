/*
 * IKEv2 messages on the wire (RFC 7296 section 3): parsed into structs of views, and written. Parsers only fill structs.
 * The legality of a message (which payloads it must, may and must not hold) stands in table rows, checked before any
 * handler runs.
 */
#ifndef ADIT_PAYLOAD_H
#define ADIT_PAYLOAD_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/transform.h"
#include "policy/pad.h"
#include "policy/proposal.h"
#include "policy/selector.h"

#define IKE_HEADER_LEN 28
#define IKE_MESSAGE_MAX 65535
#define IKE_NONCE_MIN 16
#define IKE_NONCE_MAX 256
#define IKE_SPIS_MAX 64     /* SPIs looked at in one Delete payload; the rest is ignored */
#define IKE_NOTIFIES_MAX 32 /* notifies kept of one message; the rest is ignored */
#define IKE_CERTS_MAX 16    /* CERT payloads likewise */

enum exchange { EXCHANGE_SA_INIT = 34, EXCHANGE_AUTH = 35, EXCHANGE_CREATE_CHILD_SA = 36, EXCHANGE_INFORMATIONAL = 37 };
enum ike_flags { IKE_FLAG_INITIATOR = 0x08, IKE_FLAG_VERSION = 0x10, IKE_FLAG_RESPONSE = 0x20 };

enum payload_type {
    PAYLOAD_NONE = 0,
    PAYLOAD_SA = 33,
    PAYLOAD_KE = 34,
    PAYLOAD_IDI = 35,
    PAYLOAD_IDR = 36,
    PAYLOAD_CERT = 37,
    PAYLOAD_CERTREQ = 38,
    PAYLOAD_AUTH = 39,
    PAYLOAD_NONCE = 40,
    PAYLOAD_NOTIFY = 41,
    PAYLOAD_DELETE = 42,
    PAYLOAD_VENDOR = 43,
    PAYLOAD_TSI = 44,
    PAYLOAD_TSR = 45,
    PAYLOAD_SK = 46,
    PAYLOAD_CP = 47,
    PAYLOAD_EAP = 48,
    PAYLOAD_SKF = 53,
};

/* RFC 7296 section 3.10.1 and IANA. Below 16384: errors. */
enum notify_type {
    NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD = 1,
    NOTIFY_INVALID_IKE_SPI = 4,
    NOTIFY_INVALID_MAJOR_VERSION = 5,
    NOTIFY_INVALID_SYNTAX = 7,
    NOTIFY_INVALID_MESSAGE_ID = 9,
    NOTIFY_INVALID_SPI = 11,
    NOTIFY_NO_PROPOSAL_CHOSEN = 14,
    NOTIFY_INVALID_KE_PAYLOAD = 17,
    NOTIFY_AUTHENTICATION_FAILED = 24,
    NOTIFY_SINGLE_PAIR_REQUIRED = 34,
    NOTIFY_NO_ADDITIONAL_SAS = 35,
    NOTIFY_INTERNAL_ADDRESS_FAILURE = 36,
    NOTIFY_FAILED_CP_REQUIRED = 37,
    NOTIFY_TS_UNACCEPTABLE = 38,
    NOTIFY_INVALID_SELECTORS = 39,
    NOTIFY_UNACCEPTABLE_ADDRESSES = 40, /* MOBIKE: RFC 4555 section 4 */
    NOTIFY_UNEXPECTED_NAT_DETECTED = 41,
    NOTIFY_TEMPORARY_FAILURE = 43,
    NOTIFY_CHILD_SA_NOT_FOUND = 44,
    NOTIFY_STATUS = 16384,
    NOTIFY_INITIAL_CONTACT = 16384,
    NOTIFY_SET_WINDOW_SIZE = 16385,
    NOTIFY_ADDITIONAL_TS_POSSIBLE = 16386,
    NOTIFY_IPCOMP_SUPPORTED = 16387,
    NOTIFY_NAT_DETECTION_SOURCE_IP = 16388,
    NOTIFY_NAT_DETECTION_DESTINATION_IP = 16389,
    NOTIFY_COOKIE = 16390,
    NOTIFY_USE_TRANSPORT_MODE = 16391,
    NOTIFY_HTTP_CERT_LOOKUP_SUPPORTED = 16392,
    NOTIFY_REKEY_SA = 16393,
    NOTIFY_ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
    NOTIFY_NON_FIRST_FRAGMENTS_ALSO = 16395,
    NOTIFY_MOBIKE_SUPPORTED = 16396, /* RFC 4555 */
    NOTIFY_ADDITIONAL_IP4_ADDRESS = 16397,
    NOTIFY_ADDITIONAL_IP6_ADDRESS = 16398,
    NOTIFY_NO_ADDITIONAL_ADDRESSES = 16399,
    NOTIFY_UPDATE_SA_ADDRESSES = 16400,
    NOTIFY_COOKIE2 = 16401,
    NOTIFY_NO_NATS_ALLOWED = 16402,
    NOTIFY_AUTH_LIFETIME = 16403,             /* RFC 4478 */
    NOTIFY_CHILDLESS_IKEV2_SUPPORTED = 16418, /* RFC 6023 */
    NOTIFY_FRAGMENTATION_SUPPORTED = 16430,   /* RFC 7383 */
    NOTIFY_SIGNATURE_HASH_ALGORITHMS = 16431, /* RFC 7427 section 4 */
    NOTIFY_USE_PPK = 16435,                   /* RFC 8784 */
    NOTIFY_PPK_IDENTITY = 16436,
    NOTIFY_NO_PPK_AUTH = 16437,
    NOTIFY_PROBE = 44311, /* ours, for private use (section 3.10.1): padding */
};
/* "NO_PROPOSAL_CHOSEN", a static text, or "notify 12345", written into text. */
MUST_USE const char *notify_name(uint16_t type, char *text, size_t size);

struct ike_header {
    uint64_t spi_i, spi_r;
    uint8_t next_payload, version, exchange, flags;
    uint32_t message_id, length;
};

struct ike_notify {
    uint8_t protocol; /* enum protocol_id */
    uint16_t type;
    struct span spi, data;
};

struct ike_ts { /* one TS payload: at most SELECTORS_MAX selectors are kept */
    bool present;
    struct selectors v;
    unsigned ignored; /* selectors of types we don't know, or beyond the most */
};

struct ike_delete {
    uint8_t protocol;
    uint8_t n;
    uint32_t spi[IKE_SPIS_MAX]; /* ESP or AH; none for IKE */
};

/* Certificate encodings (RFC 7296 section 3.6, RFC 7670 section 3); the others mean nothing to us. */
enum cert_encoding { CERT_X509_SIGNATURE = 4, CERT_RAW_PUBLIC_KEY = 15 };

struct ike_cert {
    uint8_t encoding;
    struct span data;
};

/* A whole message's payloads, as views into its bytes (or into the decrypted SK content). */
struct ike_message {
    struct ike_header h;
    uint32_t seen;  /* which known payload types were there: PAYLOAD_BIT */
    struct span sa; /* body of the SA payload: wire proposals, see ike/proposal.h */
    uint16_t ke_group;
    struct span ke, nonce, auth_data;
    uint8_t auth_method;
    struct span idi, idr; /* bodies: type, 3 reserved bytes, data (AUTH covers exactly these) */
    struct ike_ts tsi, tsr;
    struct ike_notify notify[IKE_NOTIFIES_MAX];
    uint8_t notifies;
    struct ike_delete del[4]; /* one for each protocol: Delete payloads of the same are taken together */
    uint8_t dels;
    struct ike_cert cert[IKE_CERTS_MAX]; /* in the order of the message: the first is the leaf */
    uint8_t certs;
    struct span cp;
    /* SK or SKF: where it stands in the message, for decryption in place */
    size_t sk_offset; /* of its IV, from the start of the message; 0: none */
    size_t sk_len;    /* from there on */
    uint8_t sk_first; /* type of the first payload inside */
    /* SKF: which of how many it says it is, unchecked; both 0 with SK */
    uint16_t fragment, fragments;
    bool opened;         /* what SK held was parsed: what is here now came protected */
    uint8_t inner_first; /* type of the first payload in … */
    struct span inner;   /* … what SK held: from both, all of it can be parsed again */
    uint8_t critical;    /* on ERR_CRITICAL: the offending type */
};
#define PAYLOAD_BIT(type) (UINT32_C(1) << ((type)-33)) /* types 33..48, and 53 */

/* Header alone. Errors: TRUNCATED (below 28 bytes, or below its own length field); version is not judged. */
MUST_USE enum err ike_header_parse(struct span message, struct ike_header *out);
/*
 * The chain of payloads outside SK (an SK payload must be last). Errors: TRUNCATED (as above), SYNTAX (lengths, bytes
 * left over, selectors, nonce size, more than one of what may stand once), CRITICAL (unknown type with the bit set:
 * out->critical; the rest of the message is parsed, so that an SK payload can be authenticated before this is believed).
 */
MUST_USE enum err ike_message_parse(struct span message, struct ike_message *out);
/* The chain that an opened SK payload holds, added to the same message. first: type of its first payload. */
MUST_USE enum err ike_inner_parse(uint8_t first, struct span plaintext, struct ike_message *m);

/* NULL if there is none of that type. */
const struct ike_notify *ike_find_notify(const struct ike_message *m, uint16_t type);
/* The first error notify (type < 16384), or NULL. */
const struct ike_notify *ike_find_error(const struct ike_message *m);

/* -- legality -- */
/*
 * Whether this message may stand at all in its exchange and direction, with which payloads; after ike_inner_parse where
 * there is an SK payload. What then holds, and the engine may count on (sections 1.2 to 1.4):
 *   spi_i is not 0. All but IKE_SA_INIT came protected.
 *   IKE_SA_INIT request: message ID 0, spi_r 0, SA, KE, Nonce. Response: the same with spi_r, or an error or COOKIE.
 *   IKE_AUTH request: IDi; SA, TSi and TSr all or none. AUTH may be missing: that asks for EAP (section 2.16).
 *   IKE_AUTH response: IDr and AUTH, SA, TSi and TSr all or none; or an error.
 *   CREATE_CHILD_SA: SA and Nonce with either both TS (a Child SA) or a KE and no TS (an IKE SA's rekey); a response may
 *   be an error instead.
 * Errors: SYNTAX.
 */
MUST_USE enum err ike_message_legal(const struct ike_message *m);

/* -- writing -- */

/*
 * A message being built into a caller's buffer (IKE_MESSAGE_MAX at most). begin writes the header; each payload is
 * opened, written through `w`, and closed (its length and the previous next-payload field filled in); finish closes the
 * chain and the length. With SK: begin_sk after begin, then inner payloads, then finish_sk.
 */
struct ike_builder {
    struct writer w;
    struct ike_header h;
    size_t next_at;    /* where the type of the payload to come is to be written */
    size_t payload_at; /* start of the open payload; 0: none */
    size_t sk_at;      /* start of the SK or SKF payload; 0: none */
    size_t iv_at;      /* its IV */
};
void ike_begin(struct ike_builder *b, uint8_t *out, size_t cap, const struct ike_header *h);
void ike_open(struct ike_builder *b, uint8_t type);
void ike_close(struct ike_builder *b);
/* Whole payloads */
void ike_put(struct ike_builder *b, uint8_t type, struct span body);
void ike_put_ke(struct ike_builder *b, uint16_t group, struct span value);
void ike_put_id(struct ike_builder *b, uint8_t type, const struct identity *id);
void ike_put_auth(struct ike_builder *b, uint8_t method, struct span data);
void ike_put_cert(struct ike_builder *b, uint8_t encoding, struct span data);
void ike_put_notify(struct ike_builder *b, uint8_t protocol, struct span spi, uint16_t type, struct span data);
void ike_put_delete(struct ike_builder *b, uint8_t protocol, const uint32_t *spis, unsigned n); /* IKE: n = 0 */
void ike_put_ts(struct ike_builder *b, uint8_t type, const struct selectors *s);
/* Errors: FULL (did not fit). len: the whole message. */
MUST_USE enum err ike_finish(struct ike_builder *b, size_t *len);

/* -- the SK payload (RFC 7296 section 3.14, RFC 5282), and SKF (RFC 7383 section 2.5) -- */
/* Opens an SK payload here; iv gets its place, to be filled with suite.iv_len bytes before finish. */
void ike_begin_sk(struct ike_builder *b, const struct suite *s, struct span iv);
/* The same for fragment `number` of `total`: a piece of the content is then written through `w`. */
void ike_begin_skf(struct ike_builder *b, const struct suite *s, uint16_t number, uint16_t total, struct span iv);
/* Pads, seals with the sender's key, closes. Errors: FULL, CRYPTO. */
MUST_USE enum err ike_finish_sk(struct ike_builder *b, const struct suite *s, struct keyed *k, size_t *len);
/*
 * Opens the SK or SKF payload of a parsed message in place (message bytes are changed); text is what it holds.
 * Errors: AUTH (no SK payload, too short or misaligned for the suite, wrong integrity: the message is nobody's);
 * then, of an authentic message only: SYNTAX (padding, payloads before SK).
 */
MUST_USE enum err ike_open_sk(uint8_t *message, struct ike_message *m, const struct suite *s, struct keyed *k,
                              struct span *text);

/* Identity of an ID body. Errors: SYNTAX, RANGE. */
MUST_USE enum err ike_identity(struct span body, struct identity *out);

#endif
