/*
 * Identities and the peer authorization database (RFC 4301 section 4.4.3): who a peer is, how it proves it, and what it
 * may then ask for. Everything here is plain data, filled by config.c, owned by the struct config it belongs to and
 * never changed after it was loaded.
 */
#ifndef ADIT_PAD_H
#define ADIT_PAD_H

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/ip.h"
#include "crypto/cert.h"
#include "crypto/secret.h"
#include "crypto/sig.h"
#include "policy/proposal.h"
#include "policy/selector.h"

/* RFC 7296 section 3.5. */
enum id_type {
    ID_NONE = 0,
    ID_IPV4 = 1,
    ID_FQDN = 2,
    ID_RFC822 = 3,
    ID_IPV6 = 5,
    ID_DER_DN = 9,
    ID_DER_GN = 10,
    ID_KEY_ID = 11
};

#define IDENTITY_MAX 256
#define IDENTITY_TEXT 300

struct identity {
    uint8_t type; /* enum id_type */
    uint16_t len;
    uint8_t b[IDENTITY_MAX];
};

/* As strongSwan parses them: "keyid:…" (0x… or text), "C=…, CN=…" a DN, an address, a@b a mail address, else a FQDN
 * (a leading @ is dropped). Errors: SYNTAX, RANGE (too long), UNSUPPORTED (a DN attribute we don't know). */
MUST_USE enum err identity_parse(const char *text, struct identity *out);
struct identity identity_of_ip(const struct ip *ip);
/* Equal ones, and hardly others, give the same bytes: for hash tables. Returns how many. */
#define IDENTITY_FOLDED (1 + IDENTITY_MAX)
size_t identity_fold(const struct identity *id, uint8_t out[IDENTITY_FOLDED]);
bool identity_equal(const struct identity *a, const struct identity *b); /* FQDN, mail and DN ignore letter case */
const char *identity_format(const struct identity *id, char *text, size_t size); /* escaped: safe for logs */

enum policy_action { ACTION_PROTECT, ACTION_BYPASS, ACTION_DISCARD };
enum policy_mode { MODE_TUNNEL, MODE_TRANSPORT };
enum start_mode { START_YES, START_ON_DEMAND, START_NO };
enum encap_mode { ENCAP_AUTO, ENCAP_UDP, ENCAP_RAW };
enum auth_method { AUTH_PSK, AUTH_PUBKEY };

/*
 * What the ends of a link prove themselves with. Keys and CAs are counted by their references, so that a step that is
 * under way when the configuration is replaced can hold its own.
 */
struct authentication {
    enum auth_method local, remote; /* how we prove ourselves, how the peer must */
    struct private_key *key;        /* ours; NULL: none */
    struct chain *chain;            /* our certificates; NULL: none, the key is raw. The peer's own, or the host's */
    struct public_key *public_key;  /* the peer's raw key; NULL: a certificate that leads to a CA of trust */
    uint8_t fingerprint[KEY_FINGERPRINT]; /* of public_key */
    struct trust *trust;                  /* NULL: no CA */
};
/* IKE SAs without a first Child SA (RFC 6023): answered; asked for as well, always; or neither. */
enum childless_mode { CHILDLESS_ALLOW, CHILDLESS_FORCE, CHILDLESS_NEVER };

/* What a second IKE SA of one identity is: a third way beside it, its successor, or refused. */
enum unique_mode { UNIQUE_NO, UNIQUE_REPLACE, UNIQUE_KEEP };

/*
 * Sizes that inner packets are padded to (RFC 4303 section 2.7), ascending, in bytes: each to the first that it fits,
 * never beyond what fits the tunnel. TFC_FULL: all that fits.
 */
#define TFC_SIZES 8
#define TFC_FULL UINT16_MAX
struct tfc {
    uint8_t n; /* 0: no padding */
    uint16_t size[TFC_SIZES];
};

#define DUMMIES_MAX 1000

/* The outer DF bit: 0, the inner packet's (an IPv6 packet counts as having it: no router may fragment it), or 1. */
enum df_mode { DF_CLEAR, DF_COPY, DF_SET };

/* How the outer IP header follows the inner one (RFC 4301 section 5.1.2); the rest of it has no choice. */
struct outer_rule {
    uint8_t dscp[64]; /* the outer DSCP, 0..63, for each inner one; default: the same */
    bool ecn;         /* RFC 6040's normal mode, default; false: compatibility mode, the outer field is Not-ECT */
    enum df_mode df;  /* default DF_CLEAR */
};

struct peer;

/* How the largest datagram is found that passes to a peer whole. */
enum pmtu_mode {
    PMTU_PROBE, /* by probing (RFC 8899); what ICMP claims is a hint */
    PMTU_ICMP,  /* ICMP is believed */
    PMTU_NO,    /* not at all: the MTU of the route stands */
};

/* ICMP errors from outside that are listened to, though anybody can have sent them (RFC 4301 section 6.1.1): bits. */
enum icmp_believed {
    ICMP_TOO_BIG = 1,     /* fragmentation needed, packet too big: the path MTU is looked into */
    ICMP_UNREACHABLE = 2, /* destination unreachable: the peer is asked whether it is there */
};

#define MSS_KEEP UINT16_MAX

/* One entry of the SPD as configured. */
struct policy {
    char name[64];
    struct hash_link by_name; /* config_policy's */
    unsigned line;            /* in the configuration file */
    uint32_t version;         /* generation since which all that its SAs depend on, and its name, have been the same */
    enum policy_action action;
    const struct peer *peer; /* NULL unless action is protect */
    struct selectors local, remote;
    enum policy_mode mode;
    bool transport_only;    /* with MODE_TRANSPORT: a peer that declines it gets no Child SA, else a tunnel */
    struct proposals esp;   /* or of AH, all of them: policy_protocol */
    ns_t lifetime;          /* soft; 0: none. The hard limit stands 10 % later */
    uint64_t bytes;         /* soft; 0: the suite's own safe limit */
    uint64_t packets;       /* soft; 0: the suite's own safe limit */
    uint32_t replay_window; /* packets, 32..65536 */
    bool esn;               /* offer extended sequence numbers */
    bool fail_open;         /* without an SA it passes in the clear */
    uint16_t hold;          /* packets kept while there is no SA, 0..256; default 16 */
    struct tfc tfc;         /* default: none */
    bool flow_log;          /* a line for each flow; default false */
    unsigned dummies;       /* dummy packets a second, 0..DUMMIES_MAX; default 0 */
    struct outer_rule outer;
    uint16_t mss;         /* TCP's, lowered to that in SYNs; 0: to what fits (default), MSS_KEEP: never */
    bool fragment_before; /* too long IPv4 packets without DF are cut up inside the tunnel, not their datagrams */
    uint8_t icmp;         /* enum icmp_believed; default ICMP_TOO_BIG */
};

#define WINDOW_MAX 32 /* requests of one peer under way at once (RFC 7296 section 2.3) */

#define PEER_ENDPOINTS 8
#define PEER_CANDIDATES 16 /* addresses of one peer, those of its names counted one by one */
#define PEER_ENDPOINT_TEXT 264
#define IKE_PORT 500 /* an endpoint with another one is a NAT-T port: marker from the first message */

/* One item of a peer's endpoint list. */
struct peer_endpoint {
    char host[256]; /* as written, if it is a name; empty: an address */
    struct endpoint
        at; /* port IKE_PORT unless written; a name has no address (family 0): that is the engine's matter */
};

struct peer {
    char name[64];
    struct hash_link by_name; /* config_peer's */
    unsigned line;
    unsigned number;                                /* its place among the configuration's peers */
    bool endpoint_any;                              /* %any: endpoints is empty */
    struct peer_endpoint endpoints[PEER_ENDPOINTS]; /* tried in turn */
    unsigned endpoint_count;
    struct identity local_id;  /* the peer's, the host's, or our key's; type NONE: the outer address */
    struct identity remote_id; /* as written, or the first endpoint's address, or its name as a FQDN */
    bool remote_id_any;        /* id = %any, or a raw key without id: remote_id is NONE; else it never is */
    struct authentication auth;
    struct secret psk; /* empty: none */
    struct proposals ike;
    enum start_mode start;
    enum encap_mode encap;
    enum unique_mode unique;
    ns_t rekey;  /* IKE SA, soft; default 4 h */
    ns_t reauth; /* age at which an IKE SA is replaced by one with fresh authentication; default 0: never */
    enum childless_mode childless;
    struct secret ppk;      /* post-quantum preshared key (RFC 8784); len 0: none */
    struct identity ppk_id; /* its name: of an identity's octets, whatever its type; NONE without a ppk */
    bool ppk_required;      /* nothing comes up without it */
    ns_t dpd; /* idle time before a liveness check when traffic leaves and none comes; default 30 s; 0: off */

    bool fragmentation;  /* of IKE messages (RFC 7383), if the peer supports it; default true */
    unsigned window;     /* requests of the peer that may be under way at once, 1..WINDOW_MAX; default 1 */
    enum pmtu_mode pmtu; /* default PMTU_PROBE */
    bool mobike;         /* follow changes of address (RFC 4555), ours and the peer's; default true */
    bool ah;             /* a policy of it is for AH, which needs to know the truth about NATs */
};

/* PROTOCOL_ESP or PROTOCOL_AH: what its traffic is protected with. */
static inline uint8_t policy_protocol(const struct policy *p)
{
    return p->esp.n ? p->esp.v[0].protocol : PROTOCOL_ESP;
}

/*
 * Several who each prove an identity of their own may use this policy at once: each has the traffic it narrowed it to.
 * Whoever is called is one alone, and packets may wait for him.
 */
static inline bool policy_shared(const struct policy *p)
{
    return p->peer && p->peer->start == START_NO && (p->peer->endpoint_any || p->peer->remote_id_any);
}

/* As written: a name or an address, with a port other than 500. text: PEER_ENDPOINT_TEXT bytes; returns it. */
const char *peer_endpoint_format(const struct peer_endpoint *e, char *text);
/* Those of its endpoints that are addresses, in order; at most PEER_ENDPOINTS. */
unsigned peer_addresses(const struct peer *p, struct endpoint *out);
bool peer_has_names(const struct peer *p);

#endif
