/*
 * What the engine's files share. An IKE SA lives in sa.c, a Child SA in child.c, what is wanted of a peer and the
 * commands about it in run.c; each exchange has a file of its own that builds its request, handles it as responder and
 * handles its response as initiator: sa_init.c, auth.c, create.c (Child SAs), rekey.c (IKE SA), informational.c, and
 * mobike.c for what INFORMATIONAL says about addresses.
 *
 * Lifetimes: sa_kill and child_drop only unlink an SA, and sa_kill marks it dead; its memory goes in engine_reap, at
 * the end of each entry into the engine, so that no handler ever holds a pointer to freed memory. Any request may end
 * its SA (when it can't be sent): who walks a list meanwhile stops at a dead SA.
 */
#ifndef ADIT_IKE_INTERNAL_H
#define ADIT_IKE_INTERNAL_H

#include <stdarg.h>
#include <stdatomic.h>

#include "core/base/buf.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/base/timer.h"
#include "crypto/kex.h"
#include "crypto/secret.h"
#include "crypto/siphash.h"
#include "ike/engine.h"
#include "ike/fragment.h"
#include "ike/keymat.h"
#include "ike/msgid.h"
#include "ike/narrow.h"
#include "ike/nat.h"
#include "ike/payload.h"
#include "ike/proposal.h"

#define NONCE_LEN 32                    /* ours: half of the longest PRF's key, at least (section 2.10) */
#define TEXT_MAX 768                    /* one line for a person */
#define AUTH_TEXT 192                   /* how an end has proved itself */
#define NATT_PORT 4500                  /* the peer's, after floating (RFC 3947 section 4, RFC 7296 section 2.23) */
#define HALF_OPEN_LIFE (30 * NS_PER_S)  /* a responder waits this long for IKE_AUTH */
#define ERROR_GRACE (3 * NS_PER_S)      /* an unauthenticated refusal is believed after this (section 2.21.1) */
#define LINGER (10 * NS_PER_S)          /* a refused SA answers retransmissions */
#define PROVEN_AFTER (10 * NS_PER_S)    /* a peer without the answer to its IKE_AUTH would have asked again by then */
#define LEAVE_AFTER (2 * NS_PER_S)      /* from the last packet on the Child SAs of an IKE SA to its Delete */
#define REPLACED_LIFE (90 * NS_PER_S)   /* the peer has this long to delete what a rekey replaced */
#define KEEPALIVE_EVERY (20 * NS_PER_S) /* RFC 3948 section 4 */
#define DOUBT_AFTER (2 * NS_PER_S)      /* from the peer's last word until what strangers say about it is looked into */
#define KEX_RETRIES 4                   /* INVALID_KE_PAYLOAD answers followed in one exchange */
#define COOKIE_RETRIES 4                /* cookies followed in one attempt */
#define REFUSED_MAX (4 * 60 * NS_PER_S) /* of TEMPORARY_FAILURE, then the IKE SA is closed (section 2.25) */
#define MESSAGE_ID_SOFT (UINT32_MAX / 2) /* rekey from here on (section 2.2) */
#define SA_INIT_MAX 8192                 /* kept twice before anybody has proved anything; ours stay below 2 KB */
#define PEER_SAS_MAX 4                   /* IKE SAs with one identity; more than one only while the ends disagree */

#define MOBIKE_ADDRESSES 8 /* told to the peer, and remembered of what it tells us */
#define COOKIE2_LEN 16     /* of 8 to 64 (RFC 4555 section 4.2.5) */

#define STOPPING "the daemon is stopping"

enum sa_state {
    SA_CONNECTING, /* initiator, IKE_SA_INIT: key pair being made, request out, or secret being computed */
    SA_AUTH_SENT,  /* initiator, IKE_AUTH request out */
    SA_RESPONDING, /* responder, IKE_SA_INIT: secret being computed */
    SA_HALF_OPEN,  /* responder, IKE_SA_INIT answered */
    SA_UP,         /* authenticated */
    SA_REPLACED,   /* rekeyed; the Child SAs have moved on; one end will delete it */
    SA_DELETING,   /* our Delete is out, or waits for its turn */
    SA_FAILED,     /* responder: refused in IKE_AUTH; answers retransmissions for a while */
    SA_DEAD,
};

enum child_state {
    CHILD_LIVE,
    CHILD_DOOMED,   /* lost a rekey collision or was replaced: one end is about to delete it */
    CHILD_DELETING, /* our Delete is out, or waits for its turn; gone from the data plane unless it lingers there */
};

struct ike_sa;

struct nonce {
    uint16_t len;
    uint8_t b[IKE_NONCE_MAX];
};

/*
 * The Child SAs of one policy, whichever IKE SAs they belong to: where they have it from, so that another configuration
 * gives it to all of them at once. Exists while it has some. Of a policy that many share each identity has a part of its
 * own, found by that.
 */
struct child_group {
    struct hash_link link;       /* key: the policy's address */
    const struct policy *policy; /* NULL: it has left the configuration … */
    const struct policy *was;    /* … of which this one is; while that is in memory (reload.c) */
    struct child *first;         /* newest first */
    struct child *sender;        /* the one that the policy's outbound traffic uses, unless it is shared */
};

struct child {
    struct child *next;
    struct ike_sa *sa;
    uint64_t id;
    struct hash_link by_id;
    struct child_group *group; /* of its policy: child_table.c; NULL: its peer, or policy, left the configuration */
    struct child *group_next, **group_at;
    struct hash_link by_part; /* of a shared policy: the same */
    enum child_state state;
    uint32_t spi_in, spi_out;
    uint8_t protocol;
    struct suite suite;
    bool esn;
    enum policy_mode mode;
    bool no_tfc; /* the peer does not take TFC padding */
    struct selectors local, remote;
    bool installed;
    bool sending;     /* the policy's outbound traffic uses it */
    bool activated;   /* it did at some time */
    ns_t activate_at; /* it shall by then, whatever comes; 0: when the peer uses it, or its predecessor goes */
    ns_t established, soft_at, hard_at;
    struct timer life;
};

struct child_terms { /* the outcome of a negotiation */
    const struct policy *policy;
    struct choice choice;
    uint32_t spi_in;
    struct selectors local, remote;
    enum policy_mode mode;
    struct ip seen_local, seen_remote; /* transport mode: as the peer has these addresses */
    bool no_tfc;                       /* the peer does not take TFC padding (section 1.3.1) */
    bool more;                         /* answer: other parts of the offer are acceptable in Child SAs of their own */
    bool initiator;                    /* of the exchange */
};

enum task_kind {
    TASK_CONNECT, /* IKE_SA_INIT and IKE_AUTH */
    TASK_CHILD_NEW,
    TASK_CHILD_REKEY,
    TASK_CHILD_DELETE,
    TASK_IKE_REKEY,
    TASK_IKE_DELETE,
    TASK_LIVENESS,
    TASK_UPDATE,   /* UPDATE_SA_ADDRESSES (RFC 4555 section 3.5) */
    TASK_ANNOUNCE, /* our list of addresses alone (section 3.6) */
    TASK_PROBE,    /* whether a datagram of that size passes: probe.c */
    TASK_ROUTABLE, /* whether the peer receives at its new address (section 3.7) */
};

/* The peer's half of a simultaneous rekey, noted while ours is under way (section 2.8). */
struct collision {
    bool seen;
    struct nonce lowest; /* of its two */
    uint64_t child;      /* what it made: a Child SA … */
    struct ike_sa *sa;   /* … or an IKE SA */
};

/* Something this end wants of the peer: waits in its SA's queue, then is the SA's one exchange. */
struct task {
    struct task *next;
    enum task_kind kind;
    const struct policy *policy; /* CONNECT, CHILD_NEW */
    uint64_t child;              /* CHILD_REKEY, CHILD_DELETE */
    ns_t not_before;
    ns_t refused_since;             /* first TEMPORARY_FAILURE */
    unsigned retries;               /* INVALID_KE_PAYLOAD answers followed */
    bool anew;                      /* CHILD_NEW: though another SA has one of that policy */
    bool unwanted;                  /* its policy was taken down by hand meanwhile */
    bool single;                    /* one pair of addresses only: the peer has asked for that */
    bool transport;                 /* transport mode is offered */
    struct selectors local, remote; /* offered */
    struct proposals offered;
    uint16_t group; /* of our KE payload, KE_NONE without one */
    struct kex *kex;
    struct kex_public pub;
    bool sent; /* the request is out, or was answered */
    struct nonce nonce, peer_nonce;
    uint32_t spi;     /* reserved for a Child SA */
    uint8_t protocol; /* CHILD_DELETE of something disowned: that of its SPI */
    bool disowned;    /* the peer has set up a Child SA to that SPI and we can't: it is to be deleted there */
    uint64_t ike_spi;
    struct child_terms terms; /* what was agreed, while the secret is being computed */
    uint32_t deleted;         /* the peer's SPI of a Child SA that it has deleted, and that we don't know (yet) */
    struct collision collision;
    unsigned datagram;           /* PROBE: bytes of it */
    bool sent_again, shortened;  /* PROBE: the outcome was told; the request has lost its padding */
    unsigned told;               /* UPDATE, ANNOUNCE: version of our list of addresses that goes with it; 0: none */
    struct path path;            /* UPDATE, ROUTABLE: what it is about */
    uint8_t cookie[COOKIE2_LEN]; /* of the same */
};

/* A request of the peer that waits for its key exchange to be computed. */
struct pending {
    struct child_terms terms; /* a Child SA; an IKE SA only has the choice */
    struct nonce theirs, ours;
    uint64_t rekeyed; /* Child SA that is replaced; 0: none */
    bool ike;         /* the IKE SA is being rekeyed */
    bool redundant;   /* our own rekey of the same Child SA has won meanwhile */
};

enum job_kind { JOB_OFFER, JOB_RESPOND, JOB_FINISH, JOB_SIGN, JOB_VERIFY };

struct proof; /* of SIGN and VERIFY: proof.h */

struct ike_job { /* secret memory */
    struct ike_job *next;
    struct ike_sa *sa;     /* the engine's thread's; NULL: gone meanwhile */
    atomic_bool cancelled; /* the same, for whichever thread runs it */
    enum job_kind kind;
    uint16_t group;
    struct random_source random;
    struct kex *kex;
    struct kex_public pub; /* OFFER, RESPOND: out */
    struct kex_public peer;
    struct kex_secret secret;
    struct proof *proof;
    enum err result;
    void (*done)(struct ike_sa *sa, struct ike_job *job);
};

struct policy_run {
    const struct policy *policy;
    bool once;       /* asked for by a command or by traffic, until it is up or failed */
    bool held;       /* taken down by hand: not started by itself */
    ns_t not_before; /* failed lately */
    bool hasty;      /* its limits are so low that a rekey hardly has time: that was said */
    bool packet;     /* what asked for it is known: the selectors of one packet */
    struct selector packet_local, packet_remote;
};

/* By what strangers and claims are found to be of a configured peer; there is another roll while a change is prepared. */
struct roll {
    struct hash addresses, names, keys, open;
};

/* Another configuration's part in a run: reload.c. policies NULL: there is none. */
struct heir {
    const struct peer *peer;
    struct policy_run *policies;
    unsigned policy_count;
};

/* What the engine knows about a configured peer beside its SAs. */
struct run {
    struct ike_engine *e;
    const struct peer *peer;
    struct policy_run *policies;
    unsigned policy_count;
    bool held;
    uint64_t stays;                         /* number of the last change of configuration that its peer outlives */
    struct heir next;                       /* what it is in the configuration that comes */
    struct listing *listed[2];              /* choose.c: by roll */
    struct ike_sa *sas;                     /* attempts of ours and what is up: the one that came last first */
    struct run *waiting_next, **waiting_at; /* pace.c; waiting_at NULL: it does not */
    struct endpoint hint;
    struct endpoint candidates[PEER_CANDIDATES]; /* candidate.c: where it may be */
    unsigned candidate_count, candidate;         /* the next attempt's */
    bool more;       /* an attempt has failed, and there are addresses left to try before it counts */
    bool stale;      /* its names are to be looked up before the next attempt */
    uint64_t lookup; /* which is under way; 0: none */
    struct hash_link by_lookup;
    ns_t looked_up;       /* when it was asked for; 0: never */
    char lookup_why[400]; /* what became of it, if not all names have an address */
    struct timer patience;
    unsigned failures; /* in a row */
    struct timer retry;
    char error[TEXT_MAX];
    ns_t error_at;
    bool error_sure; /* from an attempt of ours, or from the peer itself; not from somebody who may be anybody */
};

struct owned_policies {
    struct owned_policy {
        const struct peer *peer;
        const struct policy *policy;
        unsigned place; /* in the SPD */
    } * v;
    unsigned n;
};

enum command_kind { COMMAND_UP, COMMAND_DOWN, COMMAND_REKEY };
struct command {
    struct command *next;
    uint64_t id;
    enum command_kind kind;
    struct run *run;
    const struct policy *policy;
    ns_t at;
    struct timer deadline;
};

/* What MOBIKE (RFC 4555) knows of an IKE SA; goes over to its successors. */
struct mobike {
    bool on; /* both ends support it */
    bool
        decides; /* we initiated the first of these IKE SAs, so we choose the addresses (section 2); without MOBIKE too */
    bool spread; /* the request under way went out on several paths: its answer does not tell which of them works … */
    bool probed; /* … but for the way that the answer took, if they were tried for that */
    bool owed;   /* our addresses have changed, and no answer to an update has come since */
    bool unproven;      /* the peer's new address waits for TASK_ROUTABLE, and the Child SAs for its outcome … */
    struct path proven; /* … where they were before */
    bool mapped;        /* `mapping` is known */
    uint8_t mapping[NAT_HASH_LEN];    /* our address as the peer saw it at the last update (section 3.8) */
    struct ip peer[MOBIKE_ADDRESSES]; /* what the peer said it can be reached at */
    unsigned peers;
    unsigned told;    /* version of our list that the peer has */
    unsigned refused; /* updates in a row */
    uint32_t newest;  /* message ID of the newest request about addresses */
};

struct ike_sa {
    struct ike_engine *e;
    struct ike_sa *prev, *next; /* all SAs, oldest first */
    struct hash_link by_spi, by_first, by_source, by_peer;
    struct ike_sa *run_next, **run_at; /* of its run's list; run_at NULL: in none */
    struct ike_sa *due_next;           /* of the engine's list of them */
    bool due;                          /* stands there */
    enum sa_state state;
    bool initiator; /* of this SA: who sent IKE_SA_INIT or, after a rekey, CREATE_CHILD_SA */
    bool redundant; /* another SA to this peer won: delete this one as soon as it is up */
    bool restart;   /* DELETING: bring the peer up again afterwards, if it shall be kept up */
    bool successor; /* REPLACED or DELETING: a rekey made another one, nothing is lost */
    bool halfway;   /* counted as half-open */
    bool unproven;  /* we answered its IKE_AUTH, and nothing says as yet that the peer has got that */
    bool fresh;     /* an attempt of ours that may still be answered at once: pace.c */
    uint64_t spi_i, spi_r;
    struct run *run; /* NULL: not known yet, or gone from the configuration */
    struct identity local_id, remote_id;
    char auth_local[AUTH_TEXT], auth_remote[AUTH_TEXT]; /* how each end has proved itself */
    struct path path;
    ns_t created, established, rekey_at, hard_at;
    ns_t answered; /* unproven: when that answer last left */

    struct choice choice;
    struct suite suite;
    uint16_t prf;
    struct ike_keys *keys;
    struct keyed *seal, *open;
    uint64_t iv;

    struct buf first_own, first_peer; /* the IKE_SA_INIT messages, which AUTH covers; empty once up */
    struct endpoint first_remote;     /* responder: where the first message came from … */
    unsigned repeats;                 /* … and how often it came again and was answered */
    struct nonce nonce_own, nonce_peer;
    unsigned peer_hashes; /* its SIGNATURE_HASH_ALGORITHMS as bits; 0: it sent none */
    struct held *held;
    struct buf cookie;
    unsigned cookies;
    uint16_t noted; /* an unauthenticated error of the peer; 0: none */
    bool natt;      /* the peer knows NAT traversal */
    bool nat_local, nat_remote;
    bool pretends;       /* our SOURCE hashes are altered: encap.c */
    bool raw;            /* ESP goes as protocol 50 */
    bool fragmentation;  /* both ends said that they support it (RFC 7383 section 2.3) */
    bool fragments_lost; /* those of IP don't pass on this path: probe.c */
    struct mobike mobike;

    bool ppk_agreed;          /* both ends have announced RFC 8784 */
    bool ppk;                 /* the keys have the post-quantum preshared key in them */
    struct ike_keys *plain;   /* what they are without it, until IKE_AUTH is over; else NULL */
    struct buf plain_auth;    /* our AUTH data without it, for a responder that has another */
    bool childless_announced; /* responder: IKE_AUTH may come without a Child SA (RFC 6023) */
    bool childless;           /* it did */
    bool caller;              /* we initiated the first exchange, whoever has rekeyed since */
    ns_t reauth_at;           /* when authentication is to be renewed; 0: never */
    ns_t reauth_end;          /* it must have been by then; 0: no limit */
    struct ike_sa
        *yields_to; /* what takes its place: another one that the peer has set up at the same time, or a new one */
    ns_t leave_at;  /* then it is deleted; 0: not before the peer surely has the other */
    struct ike_sa *renews; /* the SA that this one takes the place of, as soon as its Child SAs are here too */

    struct msgid_out tx;
    struct msgid_in rx;
    struct fragments *request_parts;  /* of the expected request; NULL: none have come */
    struct fragments *response_parts; /* of the awaited response */
    struct task *queue, *current;
    struct pending *pending;
    struct ike_job *jobs;
    struct child *children;
    struct ike_sa *undecided_of; /* made by the peer's half of a collision: the SA being rekeyed */

    ns_t last_in, last_out, unanswered;
    struct timer retransmit, life, poll, wake, grace;
};

/* A request or answer of IKE_AUTH while a signature in it is being checked, or ours being made. */
struct held {
    struct ike_header h;
    uint8_t first; /* type of the first payload */
    struct buf content;
};

struct sa_table {
    struct hash by_spi;    /* ours */
    struct hash by_first;  /* responders': by the first message's sender and SPI */
    struct hash by_source; /* half-open ones: by their sender's address */
    struct hash by_peer;   /* those that are up: by peer and identity */
    uint8_t key[SIPHASH_KEY];
};

struct ike_engine {
    struct ike_env env;
    const struct config *config;
    struct ike_limits limits;
    ns_t now;
    bool started, stopping;
    bool unhurried;     /* requests that are queued now wait for a tick; and so few lines are reported: */
    int reports_left;   /* below 0: that many were left out */
    struct ike_sa *due; /* an answer of theirs left, and they hold requests that came early */
    struct timer_heap timers;
    struct sa_table table;
    struct hash children, child_groups; /* Child SAs by number; their groups by policy */
    struct hash child_parts;            /* those of shared policies by their peer's identity */
    struct roll rolls[2];               /* choose.c */
    unsigned roll;                      /* which of them is in force */
    uint64_t changes;                   /* of configuration, numbered */
    struct ike_change *change;          /* in force, but not all of it done: reload.c … */
    struct ike_sa *changing;            /* … the next SA that it may concern */
    struct hash lookups;                /* runs whose names are being looked up */
    struct ike_sa *sas, *sas_last, *dead;
    struct child *dead_children;
    struct run **runs; /* as config->peers */
    unsigned run_count;
    struct command *commands;
    struct cookie_jar jar;
    struct ip addresses[IKE_ADDRESSES];      /* this host's */
    unsigned address_count, address_version; /* the version is 0 until they are known */
    struct ike_walk *walks;                  /* info.c: at SAs that may go */
    struct ike_sa *roaming;                  /* the next to look whether it has to follow them; NULL: all have */
    struct timer roam;
    unsigned half_open;
    unsigned fresh;                     /* attempts of ours that count */
    struct run *waiting, **waiting_end; /* for their turn, in its order; end NULL: none ever did */
    uint64_t next_child, next_lookup;
    ns_t doubted; /* candidate.c: when a stranger last had names looked up */
    struct log_limit log_limit;
    ns_t plain_window; /* rate limit of unprotected error replies */
    unsigned plain_sent;
    uint8_t *in, *out; /* IKE_MESSAGE_MAX each */
};

/* -- table.c: where SAs are found -- */
void table_init(struct sa_table *t, const struct random_source *random);
void table_free(struct sa_table *t);
void table_add(struct sa_table *t, struct ike_sa *sa);
void table_add_first(struct sa_table *t, struct ike_sa *sa); /* half-open: by its first message, and its source */
void table_not_half_open(struct sa_table *t, struct ike_sa *sa);
void table_add_peer(struct sa_table *t, struct ike_sa *sa); /* is up: by its run and its peer's identity */
void table_remove(struct sa_table *t, struct ike_sa *sa);
struct ike_sa *table_find(const struct sa_table *t, uint64_t own_spi);
/* The responder SA that this very IKE_SA_INIT request made (once it is up: by SPI and sender alone), or NULL. */
struct ike_sa *table_find_first(const struct sa_table *t, uint64_t spi_i, const struct endpoint *remote,
                                struct span message);
/* Half-open SAs from there, counted up to `enough`. */
unsigned table_from_source(const struct sa_table *t, const struct ip *source, unsigned enough);
/* SAs that are, or were, up with the peer of sa, itself among them; the newest first; NULL: no more. */
struct ike_sa *table_same_peer(const struct sa_table *t, const struct ike_sa *sa);
struct ike_sa *table_same_peer_next(const struct ike_sa *one, const struct ike_sa *sa);
uint64_t sa_own_spi(const struct ike_sa *sa);

/* -- job.c -- */
/* Starts a job; done runs on completion unless the SA is gone by then. kex is consumed by FINISH. */
MUST_USE enum err job_start(struct ike_sa *sa, enum job_kind kind, uint16_t group, struct kex *kex, struct span peer,
                            void (*done)(struct ike_sa *, struct ike_job *));
/* The same with a signature to make or to check; the proof is consumed, also on errors. */
MUST_USE enum err job_start_proof(struct ike_sa *sa, enum job_kind kind, struct proof *proof,
                                  void (*done)(struct ike_sa *, struct ike_job *));
void jobs_detach(struct ike_sa *sa);
/* Whether a key exchange failed for what the peer sent (RFC 6989), not for a shortage of ours. */
bool job_blames_peer(const struct ike_job *job);

/* -- sa.c -- */
struct ike_sa *ike_sa_new(struct ike_engine *e, bool initiator, uint64_t own_spi); /* NULL: no memory */
uint64_t sa_spi_make(struct ike_engine *e);
/* Forgets it at once, with its Child SAs; sends nothing, reports nothing. */
void sa_kill(struct ike_sa *sa);
/* The same, and the data plane keeps its Child SAs. */
void sa_kill_quietly(struct ike_sa *sa);
/* The same for an SA that was up: reports, and brings the peer up again if it shall be kept up. */
void sa_lost(struct ike_sa *sa, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* An attempt of ours failed: reports the reason and forgets the SA. */
void sa_fail(struct ike_sa *sa, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Deletes it at the peer; the Child SAs leave the data plane now. */
void sa_delete(struct ike_sa *sa, bool restart);
/* Refused in IKE_AUTH: lives on only to answer retransmissions, and counts as half-open until then. */
void sa_refused(struct ike_sa *sa);
/* Too many SAs with the same peer: the oldest are deleted. An authenticated peer may be hostile too. */
void sa_crowd_out(const struct ike_sa *newest);
/* Whether both are with the same peer, by its configuration and the identity it proved. */
bool sa_same_peer(const struct ike_sa *a, const struct ike_sa *b);
void sa_replaced(struct ike_sa *sa); /* by the peer's INITIAL_CONTACT */
/*
 * The peer has this one, which it called us for: it has said more on it than IKE_AUTH. Its Child SAs and the SAs that
 * yield to it have waited for that, so that traffic moves over without a gap.
 */
void sa_proven(struct ike_sa *sa);
/*
 * The peer has what this one yields to: traffic moves over, and a little later this one is deleted. What is on its way,
 * or waits in the peer, is to be received still: not every peer does so once it has seen the Delete.
 */
void sa_leave(struct ike_sa *sa);
/* Keys from a first exchange or (old != NULL) from a rekey; choice, nonces and SPIs are set. Errors: all of crypto. */
MUST_USE enum err sa_derive(struct ike_sa *sa, const struct ike_sa *old, const struct kex_secret *secret);
/* Authenticated: lifetimes start, liveness is watched. */
void sa_up(struct ike_sa *sa);
void sa_arm(struct ike_sa *sa); /* its life's timer, for whichever limit is next */
/* A newer SA with the same peer is up: its end is no loss. */
bool sa_superseded(const struct ike_sa *sa);
/* Queues the rekey of the IKE SA, unless one waits. False: no memory. */
bool sa_rekey(struct ike_sa *sa);
/* Where authentic, fresh IKE (or, with esp, ESP) came from is where the peer is now (RFC 7296 section 2.23). */
void sa_follow(struct ike_sa *sa, const struct path *path, bool esp);
void sa_move_children(struct ike_sa *sa); /* to where the IKE SA is */
/* It goes: what refers to it (an SA with the same peer: either was made by a rekey of the other, or yields) does no more. */
void sa_unrelate(struct ike_sa *gone);
/* Into, and out of, the list of its run. */
void sa_enlist(struct ike_sa *sa);
void sa_unlist(struct ike_sa *sa);
void engine_reap(struct ike_engine *e);
bool sa_connecting(const struct ike_sa *sa); /* an attempt of ours that is not up yet */
const char *sa_peer_name(const struct ike_sa *sa);
#define SILENCE_TEXT 96
/* Why there may be no answer, for a person; text: SILENCE_TEXT bytes. */
const char *sa_silence(const struct ike_sa *sa, char *text, size_t size);
const struct peer *sa_peer(const struct ike_sa *sa);

/* -- task.c: what an SA wants of the peer, one exchange after the other -- */
struct task *task_new(enum task_kind kind); /* NULL: no memory */
void task_free(struct ike_engine *e, struct task *t);
void task_reset(struct ike_engine *e, struct task *t); /* gives back the key pair and the SPI of an exchange */
void task_queue(struct ike_sa *sa, struct task *t, bool first);
bool task_waits(const struct ike_sa *sa, enum task_kind kind, uint64_t child, const struct policy *policy);
void task_next(struct ike_sa *sa); /* starts what waits, if nothing is under way */
/* The exchange is over: the current task ends, the next one starts. */
void task_done(struct ike_sa *sa);
/* The peer said TEMPORARY_FAILURE: the current task goes back to the queue for a while. */
void task_later(struct ike_sa *sa);
void tasks_drop(struct ike_sa *sa, uint64_t child); /* waiting tasks about this Child SA */

/* -- message.c: SK messages of an SA, and plain replies -- */
void request_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange);
void request_send(struct ike_sa *sa, struct ike_builder *b); /* kills the SA when it can't be sent */
/* The same in one message and datagram, which may not be fragmented when it is sent first. False: the SA is gone. */
bool request_send_whole(struct ike_sa *sa, struct ike_builder *b);
/* Begins one with the number of the request that is under way. */
void request_again(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange);
void reply_begin(struct ike_sa *sa, struct ike_builder *b, uint8_t exchange);
void reply_send(struct ike_sa *sa, struct ike_builder *b);
void reply_notify(struct ike_sa *sa, uint8_t exchange, uint8_t protocol, struct span spi, uint16_t type,
                  struct span data);
void request_transmit(struct ike_sa *sa); /* sends (again) what waits for an answer */
void request_expired(struct ike_sa *sa);  /* nobody answered */
/* Sends a flight: what one message became. */
void flight_send(struct ike_engine *e, const struct path *path, struct span flight);
/* Announces our window (section 2.3) if the peer does not know it yet: within a protected message being built. */
void put_window(struct ike_sa *sa, struct ike_builder *b);
/* Serves the held requests whose turn has come. */
void held_serve(struct ike_engine *e);
/* A reply without an SA (or before keys): header of the request, one notify. limited: counts against the rate. */
void plain_notify(struct ike_engine *e, const struct path *path, const struct ike_header *h, uint8_t exchange,
                  uint16_t type, struct span data, bool limited);
void sa_input(struct ike_sa *sa, const struct path *path, struct span message, struct ike_message *m);

/* -- sa_init.c -- */
/* renews: the SA that the new one is to take the place of, or NULL. */
void sa_init_start(struct run *run, const struct policy *first, struct ike_sa *renews);
void sa_init_request(struct ike_engine *e, const struct path *path, struct span message, struct ike_message *m);
void sa_init_response(struct ike_sa *sa, const struct path *path, struct span message, struct ike_message *m);
void sa_init_expired(struct ike_sa *sa);

/* -- encap.c: ESP in UDP, or as protocol 50 -- */
/* Of a new SA, whose path is known: whether we claim to be behind a NAT. */
void encap_begin(struct ike_sa *sa);
/* What the NAT_DETECTION notifies have said; natt: there were some. */
void encap_settle(struct ike_sa *sa, bool natt, bool nat_local, bool nat_remote);
bool encap_possible(const struct ike_engine *e); /* we have raw sockets */
/* Whether ESP can't be sent to such a peer at all, or must not be; why: what follows its name. */
bool encap_refused(const struct ike_sa *sa, char *why, size_t size);
void put_nat_detection(struct ike_builder *b, const struct ike_sa *sa, const struct path *path);
/* The path of ESP, or AH, where IKE has this one. */
struct path encap_path(const struct ike_sa *sa, uint8_t protocol, struct path p);

/* -- probe.c: path MTU probes -- */
void probe_start(struct ike_sa *sa); /* the current task */
void probe_again(struct ike_sa *sa); /* it is about to be sent again */
void probe_response(struct ike_sa *sa);

/* -- candidate.c: the addresses of a peer -- */
void candidates_init(struct run *r);
void candidates_free(struct run *r);
void candidates_start(struct run *r); /* looks up names for the first time, for whoever waits for the peer too */
/* Whether an attempt has to wait for names; asks for them if they are due. run_kick follows in any case. */
bool candidates_wait(struct run *r);
void candidates_next(struct run *r);                        /* an attempt has failed: the next one goes elsewhere */
void candidates_prefer(struct run *r, const struct ip *ip); /* the next attempt goes there, if it is one of them */
void candidates_restart(struct run *r);                     /* the peer was up: begin with the first again */
bool candidates_have(const struct run *r, const struct ip *ip);
/* A stranger wants to connect: perhaps a peer whose name has another address now. */
void candidates_doubt(struct ike_engine *e);
void patience_fire(struct timer *t, void *ctx, ns_t now);

/* -- explain.c -- */
/* What each peer would have wanted instead. idi NULL: not known yet; idr: whom the stranger asked for, or none. */
void explain_strangers(const struct ike_engine *e, const struct path *path, const struct identity *idi,
                       const struct identity *idr, char *text, size_t size);

/* -- unique.c: IKE SAs of one identity; all of it for an authenticated responder's SA -- */
bool unique_admits(struct ike_sa *sa);          /* before it is up: `keep` may refuse it */
void unique_initial_contact(struct ike_sa *sa); /* the peer sent INITIAL_CONTACT */
void unique_replace(struct ike_sa *sa);         /* once it is up */

/* -- auth.c -- */
void auth_start(struct ike_sa *sa);
void auth_request(struct ike_sa *sa, const struct ike_message *m);
void auth_response(struct ike_sa *sa, const struct ike_message *m);
/* Initiator: its peer or policy has left the configuration, and may count it as up: deleted with the answer. */
void auth_call_off(struct ike_sa *sa);
void auth_release(struct ike_sa *sa); /* lets go of the held message */

/* -- ppk.c: post-quantum preshared keys (RFC 8784) -- */
/* Responder: whether somebody who may be there has one. */
bool ppk_configured(const struct ike_engine *e, const struct path *path);
void ppk_put_support(struct ike_builder *b);
/* Initiator: the response to IKE_SA_INIT lacks what is required. */
bool ppk_missing(const struct ike_sa *sa, const struct ike_message *m);
/* Initiator: stirs the key in, if both have announced one. Errors: NOMEM, CRYPTO. */
MUST_USE enum err ppk_begin(struct ike_sa *sa);
void ppk_put_request(const struct ike_sa *sa, struct ike_builder *b);
/* Initiator: which keys the response goes with. False: without the key, which is required. */
bool ppk_answered(struct ike_sa *sa, const struct ike_message *m);
/*
 * Responder: whether it goes on with the key, which is then stirred in, or without. NULL: it does, and *without is what
 * proves the initiator instead of AUTH, if there is such; or why the answer is AUTHENTICATION_FAILED.
 */
const char *ppk_decide(struct ike_sa *sa, const struct peer *peer, const struct ike_message *m, struct span *without);
bool ppk_shared(const struct peer *a, const struct peer *b); /* the same key, name and demand */
/* What was decided is right for that peer too: the configuration may have changed meanwhile. */
bool ppk_holds(const struct ike_sa *sa, const struct peer *peer, const struct ike_message *m);
void ppk_put_answer(const struct ike_sa *sa, struct ike_builder *b);
void ppk_audit(const struct ike_sa *sa); /* up without a key that was configured: says so (section 6) */
void ppk_forget(struct ike_sa *sa);      /* the keys without it */

/* -- reauth.c: a new IKE SA before the old one goes (RFC 7296 section 2.8.3, RFC 4478) -- */
void reauth_plan(struct ike_sa *sa, const struct ike_message *m); /* just authenticated; m: what the peer sent last */
void reauth_put_lifetime(const struct ike_sa *sa, struct ike_builder *b);
void reauth_hint(struct ike_sa *sa, const struct ike_message *m); /* AUTH_LIFETIME, if it is there */
void reauth_due(struct ike_sa *sa);                               /* reauth_at has passed: plans the next attempt */
/*
 * It is to be renewed, and another SA with this peer has all that it has: it is left to that instead. Of two the one
 * with the lower initiator's SPI goes, on which both ends agree, so that neither is left without.
 */
bool reauth_merge(struct ike_sa *sa);
bool reauth_begin(struct ike_sa *sa);    /* false: not now, for something else is under way, or not possible */
void reauth_continue(struct ike_sa *sa); /* the next Child SA of what it renews, or the end of that */
void reauth_inherit(struct ike_sa *old, struct ike_sa *sa); /* the old one was rekeyed */

/* -- selectors.c: which traffic, and in which mode -- */
/* Fills in what the task offers: local, remote, transport. */
void selectors_offer(const struct ike_sa *sa, struct task *t);
/* Whether one pair of addresses is another offer than what was refused; then the task's next one is that. */
bool selectors_single(const struct ike_sa *sa, struct task *t);
/* Responder: the policy for an offer, its narrowed selectors and mode into out. NULL: no overlap. */
const struct policy *selectors_match(const struct ike_sa *sa, const struct ike_message *m, const struct policy *only,
                                     struct child_terms *out);
/* Initiator: the selectors of an answer, as this end sees addresses. False: not within what was offered. */
bool selectors_accept(const struct ike_sa *sa, const struct ike_message *m, const struct task *t, bool transport,
                      struct child_terms *out);
/*
 * Whether an SA in transport mode was negotiated for other addresses than IKE runs between now, or (remapped) than the
 * peer sees, and its policy covers the new ones.
 */
bool selectors_outdated(const struct ike_sa *sa, const struct child *c, bool remapped);
/* The selectors of a packet within the policy, for the front of an offer. */
void selectors_of_packet(struct policy_run *p, const struct flow *packet);

/* -- child.c: Child SAs as objects, and what their negotiation has in common -- */
/* What is offered: IKE_AUTH without KE (section 1.2), otherwise the policy's groups or {IKE's, NONE}. */
void child_offer(const struct ike_sa *sa, const struct policy *policy, bool with_ke, struct proposals *out);
struct path child_path(const struct ike_sa *sa, uint8_t protocol); /* of ESP, or AH */
void child_put_request(struct ike_builder *b, const struct task *t);
/*
 * Responder: what to answer to an offer. only: the one policy it may be for, or NULL. Returns 0 or the error notify to
 * send; why says it in words.
 */
uint16_t child_answer(struct ike_sa *sa, const struct ike_message *m, const struct policy *only, bool with_ke,
                      struct child_terms *out, char *why, size_t why_size);
void child_put_answer(struct ike_builder *b, const struct child_terms *t);
/* Initiator: reads the answer. False: why says what is wrong with it. */
bool child_accept(struct ike_sa *sa, const struct ike_message *m, const struct task *task, bool with_ke,
                  struct child_terms *out, char *why, size_t why_size);
/* Derives keys and installs. NULL: failed, and said so; a responder's SPI is released, an initiator's task disowns it. */
struct child *child_create(struct ike_sa *sa, const struct child_terms *t, const struct nonce *ni,
                           const struct nonce *nr, const struct kex_secret *g, bool sending);
/* Out of the data plane and out of its SA. */
void child_drop(struct child *c, bool linger);
/* Deletes it at the peer. gone: it leaves the data plane now, else when the peer has answered. */
void child_delete(struct child *c, bool now);
/* SINGLE_PAIR_REQUIRED (section 2.9): asks again for one pair. False: there is none left to ask for. */
bool child_single(struct ike_sa *sa, const struct task *refused);
void child_expired(struct child *c);
void child_doom(struct child *c); /* the peer is about to delete it; if it does not, we do */
void child_activate(struct child *c);
bool child_any(const struct run *run); /* some Child SA of that peer is there */
void child_retire(struct child *c);    /* out of the data plane; the object stays */
struct child *child_by_spi(const struct ike_sa *sa, uint8_t protocol, uint32_t spi_out);
struct child *child_on(const struct ike_sa *sa, const struct policy *policy); /* a live one of this SA, or NULL */
/*
 * Whether the same peer has a live one on another SA: then a responder's new one must not send at once, for the peer may
 * not have it yet (section 2.8).
 */
bool child_elsewhere(const struct ike_sa *sa, const struct policy *policy);
/* False: no memory. */
bool child_rekey(struct child *c);
void child_report(const struct child *c, enum ike_event_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);
void child_failed(struct ike_sa *sa, const struct policy *policy, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* -- ah.c: AH covers the outer addresses -- */
/* The policy is for AH and there is a NAT: why says it. */
bool ah_barred(const struct ike_sa *sa, const struct policy *policy, char *why, size_t size);
/* Another policy of the peer for IKE_AUTH, that is needed and not barred; NULL: there is none. */
const struct policy *ah_first_policy(const struct ike_sa *sa);
void ah_check_nat(struct ike_sa *sa); /* NATs may have come by an update of addresses: those that can't pass end */

/* -- child_table.c: where Child SAs are found -- */
/* By its number, and its policy. False: no memory. */
bool child_enlist(struct ike_engine *e, struct child *c, const struct policy *policy);
void child_unlist(struct ike_engine *e, struct child *c);
struct child *child_find(const struct ike_engine *e, uint64_t id);
struct child *child_live(const struct ike_engine *e, const struct policy *policy); /* the newest that is in use */
/* Its traffic is on this one now, as in the data plane: the policy's or, of a shared one, that of its part. */
void child_takes_traffic(struct child *c);
/* The newest other live one for the same traffic, or NULL. */
struct child *child_successor(const struct child *c);
void child_orphan(struct ike_engine *e, struct child *c); /* it has no policy any more */
/* Another configuration: the policy's Child SAs have that one instead; NULL: it is gone. */
void child_group_move(struct ike_engine *e, const struct policy *from, const struct policy *to);
const struct policy *child_policy(const struct child *c); /* NULL: it has left the configuration … */
const struct policy *child_named(const struct child *c);  /* … but just now: for a line about it */

/* -- pace.c: how many attempts of ours are under way at once -- */
bool pace_admits(struct run *r); /* false: it is kicked again when there is room */
void pace_forget(struct run *r); /* it waits no longer */
void pace_begin(struct ike_sa *sa);
void pace_end(struct ike_sa *sa); /* up, gone, or not answered at once */
void pace_resume(struct ike_engine *e);

/* -- choose.c: which configured peer a message is for -- */
/* Into a roll, as that peer: the last one first, so that peers are found in the configuration's order. Errors: NOMEM. */
MUST_USE enum err choose_add(struct run *r, unsigned roll, const struct peer *peer);
void choose_remove(struct run *r, unsigned roll);
void choose_end(struct ike_engine *e, unsigned roll); /* all are out of it */
void choose_moved(struct run *r);                     /* its addresses are known anew */
/* Whoever may be there, as far as the address tells: one peer of each kind that differs before IKE_AUTH. */
struct strangers {
    const struct ike_engine *e;
    struct ip from;
    unsigned lists;
    struct hash_link *at;
};
struct strangers strangers_at(const struct ike_engine *e, const struct ip *from);
struct run *stranger_next(struct strangers *s); /* NULL: no more */
/*
 * Before IKE_AUTH only the address tells who that may be: peers with this very address first, then those with %any.
 * False: nobody (why is empty), or nothing in common with any of them (why says what, for each).
 */
bool choose_proposal(struct ike_engine *e, const struct path *path, const struct ike_message *m, struct choice *out,
                     char *why, size_t why_size);
/*
 * In IKE_AUTH: all configured peers that the identity and the address may name, and maybe some more. First those that
 * go by this identity; then, unless the caller has found enough, those of any.
 */
struct claims {
    const struct ike_engine *e;
    uint64_t name, here, any; /* keys of the lists */
    unsigned list;
    struct hash_link *at;
    bool enough; /* set by the caller */
};
struct claims claims_of(const struct ike_sa *sa, const struct identity *idi);
struct run *claim_next(struct claims *c); /* NULL: no more */

/* -- create.c: CREATE_CHILD_SA for Child SAs -- */
void create_start(struct ike_sa *sa); /* the current task: CHILD_NEW or CHILD_REKEY */
void create_request(struct ike_sa *sa, const struct ike_message *m);
void create_response(struct ike_sa *sa, const struct ike_message *m);
/* The peer deletes a Child SA that is not there: the answer that tells of it may still be on its way. */
void create_deleted(struct ike_sa *sa, uint8_t protocol, uint32_t spi);

/* -- rekey.c: CREATE_CHILD_SA for the IKE SA -- */
void rekey_start(struct ike_sa *sa);
void rekey_request(struct ike_sa *sa, const struct ike_message *m);
void rekey_response(struct ike_sa *sa, const struct ike_message *m);
/* The SA goes away (the peer deletes it) while a rekey of it is undecided: what the peer made inherits. */
void rekey_settle(struct ike_sa *sa);
/* The group that INVALID_KE_PAYLOAD names, if it was offered and is another than ours; else KE_NONE. */
uint16_t invalid_ke_group(const struct ike_message *m, const struct task *t);
void nonce_make(struct ike_engine *e, struct nonce *n);
bool nonce_set(struct nonce *n, struct span s);
struct span nonce_span(const struct nonce *n);
uint16_t first_group(const struct proposals *p); /* KE_NONE without any */
/* The lower of two, octet by octet; a prefix is lower (section 2.8.1). */
const struct nonce *nonce_lower(const struct nonce *a, const struct nonce *b);

/* -- informational.c -- */
void informational_start(struct ike_sa *sa); /* the current task: deletes and liveness */
void informational_request(struct ike_sa *sa, const struct ike_message *m);
void informational_response(struct ike_sa *sa, const struct ike_message *m);
/* One INFORMATIONAL that nobody waits for, before the SA is forgotten. */
void informational_farewell(struct ike_sa *sa, uint16_t notify);
void liveness_queue(struct ike_sa *sa);               /* queues one, if none waits */
void poll_later(struct ike_sa *sa);                   /* in a second, along with others */
void poll_fire(struct timer *t, void *ctx, ns_t now); /* liveness, keepalives, overdue activation */

/* -- mobike.c: RFC 4555 -- */
/* In IKE_AUTH: that we support it and our other addresses; and whether both ends do. */
void mobike_put_auth(struct ike_sa *sa, struct ike_builder *b);
void mobike_take_auth(struct ike_sa *sa, const struct ike_message *m);
/* The request forbids NATs, and came through one (section 3.9). */
bool mobike_nat_found(const struct ike_sa *sa, const struct ike_message *m);
void mobike_inherit(struct ike_sa *sa, const struct ike_sa *old); /* after a rekey */
void mobike_start(struct ike_sa *sa); /* the current task: one of UPDATE, ANNOUNCE, ROUTABLE */
void mobike_response(struct ike_sa *sa, const struct ike_message *m);
/*
 * An INFORMATIONAL request of the peer: does what it says about addresses. Returns 0 or the error notify that
 * mobike_put_answer is to write among the rest. When the answer is out, mobike_resume checks what is to be checked.
 */
uint16_t mobike_request(struct ike_sa *sa, const struct ike_message *m);
void mobike_put_answer(const struct ike_sa *sa, const struct ike_message *m, uint16_t error, struct ike_builder *b);
void mobike_resume(struct ike_sa *sa); /* queues what is still owed or unproven */
/* Liveness checks tell an initiator behind a NAT whether its mapping is still the same (section 3.8). */
void mobike_put_probe(const struct ike_sa *sa, struct ike_builder *b);
void mobike_probed(struct ike_sa *sa, const struct ike_message *m);
void mobike_update(struct ike_sa *sa);   /* queues one, if none waits */
void mobike_announce(struct ike_sa *sa); /* the same */

/* -- roam.c: which addresses -- */
void roam_fire(struct timer *t, void *ctx, ns_t now); /* goes on with what ike_addresses began */
void mobike_tell(struct ike_sa *sa);                  /* our list, unless the peer has it or is being told */
/* The IKE SA and, with children, its Child SAs are there from now on; so is the request under way. */
void mobike_move(struct ike_sa *sa, const struct path *to, bool children);
/* The peer refuses this pair of addresses: takes another and updates. False: none is left. */
bool mobike_next_pair(struct ike_sa *sa);
/* Where the request under way goes: to the one path in use, or to every one there is once that has kept silent. */
#define MOBIKE_PATHS 16
unsigned mobike_paths(struct ike_sa *sa, struct path out[MOBIKE_PATHS]);
unsigned mobike_patience(const struct ike_sa *sa); /* retransmissions before the peer counts as gone */
/* The awaited answer came this way; retransmission has stopped. */
void mobike_arrived(struct ike_sa *sa, const struct path *path);

/* -- info.c: walks step aside before what they stand at leaves its list -- */
void walks_leave_sa(struct ike_sa *sa);
void walks_leave_child(struct child *c);
void walks_end(struct ike_engine *e);

/* -- run.c -- */
/* The protect policies of a configuration by peer, and in the order of the SPD within one; v is to be freed. */
MUST_USE enum err policies_sort(const struct config *config, struct owned_policies *out);
/* The first that belongs to this peer, in the order of the SPD; n: how many do. */
const struct owned_policy *policies_of(const struct owned_policies *all, const struct peer *peer, unsigned *n);
MUST_USE enum err run_new(struct ike_engine *e, const struct owned_policies *all, const struct peer *peer,
                          struct run **out);
/* The list of a run for that peer. Errors: NOMEM. */
MUST_USE enum err run_policies(const struct owned_policies *all, const struct peer *peer, struct policy_run **out,
                               unsigned *n);
void commands_resume(struct ike_engine *e); /* what the waiting ones ask for, asked for again */
/* Ends those of runs that leave, and those whose policy does: mapped() has none in its place. */
void commands_move(struct ike_engine *e,
                   const struct policy *(*mapped)(const struct ike_change *, const struct policy *));
void run_free(struct run *r);
MUST_USE enum err runs_load(struct ike_engine *e, const struct config *config);
struct run *run_of(const struct ike_engine *e, const struct peer *peer); /* of the configuration in force, or NULL */
struct policy_run *run_policy(const struct run *r, const struct policy *policy);
bool run_needs(const struct run *r, const struct policy_run *p);
/* The last failure, for status. What is not sure hides nothing that is, and is kept to itself while the peer is up. */
void run_note(struct run *r, const char *text, bool sure);
void run_kick(struct run *r);           /* starts what is needed and not under way */
void run_later(struct run *r, ns_t in); /* kicks after a while */
void run_failed(struct run *r, const struct policy *policy, const char *text);
void run_reached(struct run *r); /* an attempt of ours made an IKE SA: what failed before it holds up no policy */
void run_well(struct run *r, const struct policy *policy); /* a Child SA of it is up */
void commands_check(struct ike_engine *e);
bool commands_await(const struct run *r); /* some wait for a Child SA with that peer */
void commands_free(struct ike_engine *e);
void commands_end(struct ike_engine *e, enum command_kind kind, const struct run *r, const struct policy *policy,
                  bool ok, const char *text);

/* -- reload.c -- */
void run_settle(struct run *r);         /* goes over to the configuration in force, if it has not yet */
bool run_leaves(const struct run *r);   /* its peer is not in that, or another one: only its SAs are there still */
void reload_drop(struct ike_engine *e); /* the engine ends amid one; no SA is left */

/* -- engine.c -- */
/* At the end of each entry: frees what died, ends commands that came true. */
void engine_leave(struct ike_engine *e);
void report(struct ike_engine *e, enum ike_event_kind kind, const struct peer *peer, const struct policy *policy,
            const struct path *path, const char *fmt, ...) PRINTF_LIKE(6, 7);
void drop(struct ike_engine *e, enum stat_id s);
/* random in 0..max - 1 */
uint64_t random_below(struct ike_engine *e, uint64_t max);
void keylog(const struct ike_sa *sa);

/* -- identity of an end -- */
struct identity local_identity(const struct ike_engine *e, const struct peer *peer, const struct path *path);

#endif
