/*
 * The IKEv2 engine (RFC 7296), sans-I/O: datagrams, time and commands go in; datagrams, SA operations, jobs, events and
 * the next deadline come out through the table of functions it was given. No sockets, no clock, no threads, no global
 * state, so loss, retransmission, rekeying and collisions are deterministic in tests.
 *
 * Re-entrancy: the functions of struct ike_env must not call back into the engine. One thread at a time per engine.
 */
#ifndef ADIT_ENGINE_H
#define ADIT_ENGINE_H

#include "core/base/clock.h"
#include "core/base/cursor.h"
#include "core/base/ip.h"
#include "core/base/stat.h"
#include "crypto/random.h"
#include "crypto/transform.h"
#include "policy/config.h"
#include "policy/pad.h"

struct ike_engine;
struct ike_job; /* a slow step: key exchange, signature, certificate path */

/* A negotiated CHILD_SA pair, as the data plane installs it. Spans point into engine memory: copy what you keep. */
struct ike_child {
    uint64_t id; /* the engine's handle; never reused */
    const struct peer *peer;
    const struct policy *policy;      /* what it was negotiated for */
    const struct identity *remote_id; /* proved */
    uint32_t spi_in, spi_out;         /* ours (from spi_reserve), the peer's */
    uint8_t protocol;                 /* PROTOCOL_ESP or PROTOCOL_AH */
    struct suite suite;
    bool esn;
    struct span key_in, integ_in, key_out, integ_out;
    struct selectors local, remote; /* narrowed */
    enum policy_mode mode;
    /*
     * Transport mode: both ends' addresses as the peer has them, and its packets' checksums: others than those of the path
     * if there is a NAT (RFC 7296 section 2.23.1, RFC 3948 section 3.1.2).
     */
    struct ip seen_local, seen_remote;
    struct path path; /* outer endpoints; its transport tells whether ESP goes in UDP or as protocol 50; AH is raw */
    bool tfc;         /* the peer takes TFC padding (RFC 7296 section 1.3.1) */
};

enum ike_event_kind {
    IKE_EVENT_IKE_UP,
    IKE_EVENT_IKE_REKEYED,
    IKE_EVENT_IKE_DOWN,
    IKE_EVENT_CHILD_UP,
    IKE_EVENT_CHILD_REKEYED,
    IKE_EVENT_CHILD_DOWN,
    IKE_EVENT_FAILED, /* an attempt failed: text says which field, and both values */
    IKE_EVENT_NOTICE, /* something a person may want to know */
    IKE_EVENT_IKE_MOVED,
};

struct ike_event {
    enum ike_event_kind kind;
    const struct peer *peer;     /* NULL before it proved itself as initiator: anybody can bring those events about */
    const struct policy *policy; /* Child SA events */
    struct path path;
    const char *text; /* one line, safe to log, in a person's words */
    uint64_t command; /* the command this ends, 0: none */
    bool command_ok;  /* with command: it happened */
};

/*
 * Everything the engine needs from outside. All must be set but wall, resolve (names have no address), source, keylog,
 * raw.
 */
struct ike_env {
    void *ctx;
    struct random_source random;
    struct stat_block *stats;
    /* One IKE message to the network; bytes without the non-ESP marker (path->marker says if one is due). */
    void (*send)(void *ctx, const struct path *path, struct span message);
    /* A one-byte keepalive (RFC 3948 section 2.3). */
    void (*keepalive)(void *ctx, const struct path *path);
    /* The same, in a datagram that is lost rather than fragmented (IPv4: DF). May be NULL: no probes. */
    void (*send_whole)(void *ctx, const struct path *path, struct span message);
    /* The outcome of ike_probe. bytes: of the datagram that was tried, which a cipher's blocks may make shorter. */
    void (*probed)(void *ctx, uint64_t child, unsigned bytes, bool through);
    enum err (*spi_reserve)(void *ctx, uint32_t *spi);
    void (*spi_release)(void *ctx, uint32_t spi);
    /*
     * install: inbound SA is receiving when this returns; with `sending` outbound traffic of the policy moves to it as
     * well, otherwise that waits for activate (a rekey's responder: RFC 7296 section 2.8).
     */
    enum err (*child_install)(void *ctx, const struct ike_child *c, bool sending);
    void (*child_activate)(void *ctx, uint64_t child);
    /* Outbound stops now; with `linger` inbound keeps receiving for a few seconds, for what is still on its way. */
    void (*child_remove)(void *ctx, uint64_t child, bool linger);
    void (*child_move)(void *ctx, uint64_t child, const struct path *path);
    /* When something authentic last arrived, and when something last left, on any SA of this child; 0: never. */
    void (*child_traffic)(void *ctx, uint64_t child, ns_t *in, ns_t *out);
    /*
     * A slow step: run ike_job_run on any thread, then hand it to ike_complete on the engine's. Not from within.
     * An error says that it was not taken, and what needed it fails.
     */
    enum err (*job)(void *ctx, struct ike_job *job);
    /* Seconds since 1970, for the dates of certificates alone. May be NULL: then none is accepted. */
    int64_t (*wall)(void *ctx);
    /*
     * Looks up the names among the peer's endpoints, elsewhere; then ike_resolved with the same number, once, and not
     * from within. Late is no harm. An error says that it was not taken.
     */
    enum err (*resolve)(void *ctx, uint64_t lookup, const struct peer *peer);
    void (*event)(void *ctx, const struct ike_event *e);
    /*
     * The address that the routes would have us send from to this one; false: there is no way there now. May be NULL:
     * then any of ike_addresses of the same family will do.
     */
    bool (*source)(void *ctx, const struct ip *remote, struct ip *local);
    /* Key export for Wireshark: lines of its ikev2_decryption_table. May be NULL. */
    void (*keylog)(void *ctx, const char *line);
    /* Whether ESP can be sent as protocol 50, and AH at all. May be NULL: they can't. */
    bool (*raw)(void *ctx);
    bool transport_mode; /* the data plane carries transport mode; else it is neither offered nor accepted */
};

struct ike_limits {
    unsigned half_open;        /* most responder SAs before IKE_AUTH; default: [host]'s, which is 1000 unless written */
    unsigned cookie_threshold; /* half-open SAs from which cookies are demanded; default: a tenth of that */
    unsigned datagram;         /* bytes of the longest IP datagram that carries an IKE fragment; default 1280 */
};

/* config must outlive the engine or be replaced by ike_reload. limits NULL: defaults. Errors: NOMEM. */
MUST_USE enum err ike_new(struct ike_engine **out, const struct ike_env *env, const struct config *config,
                          const struct ike_limits *limits);
/* Frees everything, sends nothing, removes no SA: ike_shutdown first for a clean end. */
void ike_free(struct ike_engine *e);

/* One received IKE message without marker; path says how it came. */
void ike_input(struct ike_engine *e, const struct path *path, struct span message, ns_t now);
/* Fires what is due. ike_deadline: when to call it next, or NS_NEVER. */
void ike_tick(struct ike_engine *e, ns_t now);
ns_t ike_deadline(const struct ike_engine *e);

/* Whether an SA that is up waits for it: such jobs shall go first, so that strangers can't hold them up. Within job(). */
bool ike_job_urgent(const struct ike_job *job);
/* Any thread; touches only the job. Costs nothing once its SA is gone. */
void ike_job_run(struct ike_job *job);
/* The engine's thread; consumes the job, also when its SA is gone by now. */
void ike_complete(struct ike_engine *e, struct ike_job *job, ns_t now);
/* Wipes and frees a job that is not to be run or completed any more; its engine has been freed. */
void ike_job_free(struct ike_job *job);

/*
 * The answer of a lookup: the peer's addresses in the order of its endpoints, at most PEER_CANDIDATES; why names what
 * has none ("": nothing). Unknown lookups are of peers that are gone by now.
 */
void ike_resolved(struct ike_engine *e, uint64_t lookup, const struct endpoint *v, unsigned n, const char *why,
                  ns_t now);

/*
 * Commands. Each ends with exactly one event that carries its number (command != 0), at once or later, within three
 * minutes. policy NULL: all policies of the peer (rekey: the IKE SA).
 * up on what is already up ends well at once.
 */
void ike_up(struct ike_engine *e, const struct peer *peer, const struct policy *policy, uint64_t command, ns_t now);
void ike_down(struct ike_engine *e, const struct peer *peer, const struct policy *policy, uint64_t command, ns_t now);
void ike_rekey(struct ike_engine *e, const struct peer *peer, const struct policy *policy, uint64_t command, ns_t now);

/*
 * Brings up what the configuration says shall start by itself, and what commands before a reload asked for; retries on
 * failure, with back-off and jitter.
 */
void ike_start(struct ike_engine *e, ns_t now);
/* The same for n of its peers, from the one at *at on, which moves. True: these were the last. */
bool ike_start_some(struct ike_engine *e, unsigned *at, unsigned n, ns_t now);
/* From workers: traffic for a policy without SA, and the packet (NULL: not known), which the offer then names first; a soft or hard limit passed; an unknown SPI is no business of ours. */
void ike_acquire(struct ike_engine *e, const struct policy *policy, const struct flow *packet, ns_t now);
void ike_child_soft(struct ike_engine *e, uint64_t child, ns_t now);
void ike_child_hard(struct ike_engine *e, uint64_t child, ns_t now);
/* Where we would now send to this peer from: attempts under way go on from there, and begin there without env.source. */
void ike_local_hint(struct ike_engine *e, const struct peer *peer, const struct endpoint *local);
/*
 * The addresses that this host can be reached at, at start and whenever they or the routes have changed: SAs follow
 * them by MOBIKE (RFC 4555), and one whose peer can't is set up anew. All of them, at most IKE_ADDRESSES; the peer is
 * told of the first few. Where there are thousands of SAs, ike_tick goes on with them.
 */
#define IKE_ADDRESSES 256
void ike_addresses(struct ike_engine *e, const struct ip *list, unsigned n, ns_t now);
/*
 * Tries whether an IP datagram of that many bytes passes from here to the peer of that Child SA (RFC 8899); env.probed
 * tells, once, in a second or two, unless the SA ends before. Errors: NOTFOUND, UNSUPPORTED (no env.send_whole), STATE (something else is under way, or no memory: later), RANGE.
 */
MUST_USE enum err ike_probe(struct ike_engine *e, uint64_t child, unsigned bytes, ns_t now);
/* Somebody, who may be anybody, says that the peer can't be reached: a liveness check, if nothing has come lately. */
void ike_child_doubtful(struct ike_engine *e, uint64_t child, ns_t now);
/* Authentic and newest ESP arrived from another address than the SA's: peer's NAT mapping changed (RFC 7296 section 2.23). */
void ike_child_moved(struct ike_engine *e, uint64_t child, const struct endpoint *remote, ns_t now);

/*
 * Another configuration. Peers and policies are matched by name: equal ones keep their SAs, those of changed and vanished
 * ones are deleted at the peer. It starts nothing: ike_start does, once ike_local_hint has told about the peers that are
 * new. However many there are, nothing of it takes long at once:
 *
 * ike_change_new compares them; ike_change_prepare makes ready all that can fail, some peers at a time; ike_reload puts
 * the new one in force at one moment: strangers and commands find its peers, and no others. ike_reload_some then goes on
 * with what follows from that, some SAs and peers at a time, until it says that this was all: so long the old
 * configuration stays in memory, for a peer whose turn has not come is as it was. One change after the other.
 */
struct ike_change;
/* By any thread, while the old one does not change. Numbers the versions of the new one's policies. Errors: NOMEM. */
MUST_USE enum err ike_change_new(struct ike_change **out, const struct config *from, struct config *to);
void ike_change_free(struct ike_change *c); /* one that was not put in force; NULL is fine */
/* Before that, what was prepared, for n more peers. True: all. */
bool ike_change_undo(struct ike_change *c, unsigned n);
/* For n more peers; over: these were the last. Errors: NOMEM; then it is to be freed. */
MUST_USE enum err ike_change_prepare(struct ike_change *c, struct ike_engine *e, unsigned n, bool *over);
/* From the configuration in force; takes it over. What it has to tell the peers follows in ticks. */
void ike_reload(struct ike_engine *e, struct ike_change *change, ns_t now);
/* True: all is done, or there was nothing to do. */
bool ike_reload_some(struct ike_engine *e, unsigned n, ns_t now);

/* Deletes all SAs at the peers. ike_idle: nothing waits for an answer any more (call until true or patience ends). */
void ike_shutdown(struct ike_engine *e, ns_t now);
bool ike_idle(const struct ike_engine *e);

/* -- what status shows -- */
enum ike_state { IKE_CONNECTING, IKE_ESTABLISHED, IKE_REKEYING, IKE_DELETING };

struct ike_sa_info {
    uint64_t spi_i, spi_r;
    bool initiator;
    enum ike_state state;
    const struct peer *peer; /* NULL while unknown */
    struct identity local_id, remote_id;
    const char *auth_local, *auth_remote; /* how each end has proved itself: "psk", "Ed25519 raw key" …; "": not yet */
    struct path path;
    struct proposal suite;      /* one transform of each type: what was chosen */
    bool nat_local, nat_remote; /* a NAT was detected before us, before the peer */
    bool fragmentation;         /* long messages go in fragments (RFC 7383) */
    bool mobike;                /* both ends support it */
    ns_t established, rekey_at; /* 0: not */
    ns_t reauth_at;             /* 0: not */
    bool ppk, childless;
    ns_t took; /* from its first message to established */
    unsigned children;
};
struct ike_child_info {
    uint64_t id;
    uint64_t ike_spi_i; /* of its IKE SA */
    const struct policy *policy;
    uint32_t spi_in, spi_out;
    uint8_t protocol; /* PROTOCOL_ESP or PROTOCOL_AH */
    struct suite suite;
    bool esn;
    struct selectors local, remote;
    enum policy_mode mode;
    ns_t established, rekey_at;
    bool rekeying;
};
/* Numbers alone, at once. half_open: the peer has yet to authenticate; they count as IKE SAs as well. */
struct ike_counts {
    unsigned half_open;
    size_t ike_sas, child_sas;
};
struct ike_counts ike_count(const struct ike_engine *e);
void ike_each_sa(const struct ike_engine *e, void (*fn)(void *ctx, const struct ike_sa_info *), void *ctx);
void ike_each_child(const struct ike_engine *e, void (*fn)(void *ctx, const struct ike_child_info *), void *ctx);
/*
 * One peer after the other, its IKE SAs and theirs, piece by piece: the engine may go on between any two calls. What
 * comes or goes meanwhile is seen or not; what is there all the time is seen once, a rekeyed SA in its successor.
 */
struct ike_walk;
MUST_USE enum err ike_walk_new(struct ike_engine *e, struct ike_walk **out); /* Errors: NOMEM */
void ike_walk_free(struct ike_walk *w);                                      /* NULL is fine */
void ike_walk_peer(struct ike_walk *w, const struct peer *peer);
/* The peer's next IKE SA, the oldest first, and the next Child SA of that; false: no more. */
bool ike_walk_sa(struct ike_walk *w, struct ike_sa_info *out);
bool ike_walk_child(struct ike_walk *w, struct ike_child_info *out);
/* The addresses by which a peer is known now (out: PEER_CANDIDATES), and which of them the next attempt goes to. */
unsigned ike_candidates(const struct ike_engine *e, const struct peer *peer, struct endpoint *out, unsigned *current);
/* Whether ESP to it goes as protocol 50; without an IKE SA: whether it is meant to. */
bool ike_sends_raw(const struct ike_engine *e, const struct peer *peer);
/* The last failure of a peer, or "" if the last attempt went well; and when. */
const char *ike_last_error(const struct ike_engine *e, const struct peer *peer, ns_t *when);

#endif
