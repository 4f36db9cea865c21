/*
 * A network of IKE engines in virtual time: seeded loss, duplication, reordering and delay, packets held and released
 * by hand, NAT, and a model data plane that checks what the engines do to it. Everything follows from the seed.
 */
#ifndef ADIT_TEST_SIM_H
#define ADIT_TEST_SIM_H

#include "core/base/buf.h"
#include "ike/engine.h"

#define SIM_NODES 3
#define SIM_PACKETS 4096
#define SIM_SAS 512
#define SIM_EVENTS 1024
#define SIM_JOBS 2048

struct sim;
struct sim_node;

struct sim_packet {
    bool used, held, esp, keepalive;
    ns_t at;
    unsigned from;
    struct endpoint src, dst;
    bool marker;
    size_t len;
    uint8_t *data; /* IKE */
    uint32_t spi;  /* model ESP */
    uint64_t seq;
    uint8_t key[64];
    uint64_t number;
};

struct sim_sa { /* in the model data plane */
    bool used, inbound, sending;
    uint64_t id;
    ns_t linger; /* inbound ends then; NS_NEVER: not removed */
    uint32_t spi_in, spi_out;
    uint8_t protocol;
    uint8_t key_in[64], key_out[64];
    struct selectors local, remote;
    const struct policy *policy;
    enum policy_mode mode;
    bool tfc;
    struct path path;
    ns_t in, out;
    uint64_t seq_out;         /* goes on when an SA that was replaced is activated again */
    uint64_t seq_in, seen_in; /* the highest, and which of the 64 up to it have come */
};

struct sim_event {
    enum ike_event_kind kind;
    const struct peer *peer;
    ns_t at;
    uint64_t command;
    bool ok;
    char text[800];
};

struct sim_job {
    struct ike_job *job;
    ns_t at;
};

struct sim_node {
    struct sim *sim;
    unsigned index;
    struct ike_engine *e;
    struct ike_env env;
    struct stat_block stats;
    struct random_seeded random;
    struct config config;
    struct peer peers[4], *peer_list[4];
    struct policy policies[4], *policy_list[4];
    struct ip ip, nat_ip; /* nat_ip: none unless behind a NAT */
    uint16_t nat_shift;
    bool abrupt;       /* its data plane forgets an SA at once, as strongSwan's does */
    struct ip more[3]; /* addresses beside ip; with family 0 there is none */
    struct sim_sa sas[SIM_SAS];
    unsigned top; /* of sas */
    uint32_t next_spi;
    unsigned spis; /* reserved or in use */
    struct sim_event events[SIM_EVENTS];
    unsigned event_count;
    struct sim_job jobs[SIM_JOBS];
    unsigned job_count, offers_run;
    unsigned path_mtu; /* longer datagrams that may not be fragmented are lost on their way from here; 0: none are */
    bool no_fragments; /* and so are all others of that length: fragments don't pass either */
    struct {
        uint64_t child;
        unsigned bytes;
        bool through;
    } probe;                   /* the last one whose outcome was told */
    unsigned probes;           /* how many were */
    unsigned install_failures; /* the next so many installs fail */
    uint64_t lookup;           /* of names, not answered yet; 0: none */
    unsigned lookups;          /* asked for so far */
    char keylog[16][400];      /* the last ones */
    unsigned keylogs;
};

enum sim_fate { SIM_DELIVER, SIM_DROP, SIM_HOLD };

struct sim {
    uint64_t seed, rng;
    ns_t now;
    unsigned nodes;
    struct sim_node node[SIM_NODES];
    struct sim_packet packets[SIM_PACKETS];
    unsigned top; /* of packets */
    uint64_t packet_number;
    unsigned loss, duplicate, reorder; /* percent */
    bool cut;                          /* nothing passes */
    struct ip dead[4];                 /* nothing passes from or to these */
    bool esp_moves;                    /* the data plane reports ESP from elsewhere */
    ns_t delay, jitter;
    ns_t traffic; /* a model packet each way every so often; 0: none */
    ns_t next_traffic;
    unsigned esp_sent, esp_received, esp_lost; /* lost: arrived where nobody receives */
    unsigned resumed;                          /* activations of an SA that had been replaced */
    enum sim_fate (*hook)(struct sim *s, struct sim_packet *p, void *ctx);
    void *hook_ctx;
    /* Sees each job when it has run, before the engine does. */
    void (*job_hook)(struct sim *s, struct sim_node *n, struct ike_job *job, void *ctx);
    void *job_hook_ctx;
    int64_t wall; /* the date, in seconds since 1970 */
    uint64_t ike_sent;
};

/* Two nodes 10.0.0.1 and 10.0.0.2 with one policy each that mirror each other; change the configuration, then start. */
struct sim *sim_new(uint64_t seed);
void sim_start_engines(struct sim *s, const struct ike_limits *limits);
void sim_free(struct sim *s);

/* Runs until `until` (absolute), or until cond holds; returns whether it held. */
bool sim_run(struct sim *s, ns_t until, bool (*cond)(struct sim *));
void sim_for(struct sim *s, ns_t duration);
void sim_release(struct sim *s, struct sim_packet *p);
struct sim_packet *sim_held(struct sim *s, unsigned i); /* the i'th held packet, oldest first; NULL */
/* Tells the engine of that node which addresses it has: ip and more. */
void sim_addresses(struct sim *s, unsigned node);
void sim_inject(struct sim *s, unsigned to, const struct path *path, struct span message);

unsigned sim_rand(struct sim *s, unsigned below);
unsigned sim_ike_sas(struct sim_node *n, enum ike_state state);
unsigned sim_children(struct sim_node *n);
struct sim_sa *sim_sending(struct sim_node *n, const struct policy *p);
/* Both ends agree on every Child SA pair, traffic of each up policy finds a receiver. */
bool sim_agree(struct sim *s);
bool sim_up(struct sim *s);    /* one IKE SA and one Child SA, the same at both ends */
bool sim_both(struct sim *s);  /* at least one Child SA sends at each end */
bool sim_empty(struct sim *s); /* no SA, no SPI anywhere */
const struct sim_event *sim_find(struct sim_node *n, enum ike_event_kind kind, const char *text);
unsigned sim_count(struct sim_node *n, enum ike_event_kind kind);
const struct sim_event *sim_command(struct sim_node *n, uint64_t command);
void sim_dump(struct sim *s);

void sim_proposals(struct proposals *p, enum protocol_id protocol, const char *text);
void sim_selectors(struct selectors *s, const char *text);
void sim_two_policies(struct sim *s); /* a second one for each end, "other"; they mirror each other */

/* In a test (behind cmocka.h) whose sim is `s`: shows it where the condition fails. */
#define assert_sim(condition)      \
    do {                           \
        bool sim_ok = (condition); \
        if (!sim_ok)               \
            sim_dump(s);           \
        assert_true(sim_ok);       \
    } while (0)

#endif
