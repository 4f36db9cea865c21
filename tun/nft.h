/*
 * A table of packet filter rules (nf_tables), written as one netlink batch that the kernel puts in force as a whole or
 * not at all, in the place of a table of the same name. Spoken without a library: what is asked here is a page of
 * attributes, and a library's text or objects would cost each start and reload more than they save. The table outlives
 * the process until nft_remove: what it drops, it drops after a crash too.
 *
 * A batch takes its first failure (of memory) along to nft_commit, so that nothing before has to be looked at.
 */
#ifndef ADIT_NFT_H
#define ADIT_NFT_H

#include <stdbool.h>

#include "core/base/buf.h"
#include "core/base/ip.h"

#define NFT_TABLE_TEXT 32

struct nft_batch {
    struct buf out;
    enum err failed;
    char table[NFT_TABLE_TEXT];
    size_t message, expressions; /* where the one that is being written begins */
    unsigned sets;
};

enum nft_hook { NFT_INPUT, NFT_FORWARD, NFT_OUTPUT };
enum nft_verdict_kind { NFT_DO_DROP, NFT_DO_ACCEPT, NFT_DO_RETURN, NFT_DO_JUMP, NFT_DO_CONTINUE };
enum nft_compare { NFT_EQUAL, NFT_UNEQUAL, NFT_AT_LEAST, NFT_AT_MOST };
enum nft_fact { NFT_IS_FAMILY, NFT_IS_PROTOCOL, NFT_IS_MARK, NFT_IS_IN, NFT_IS_OUT };
enum nft_part { NFT_NETWORK, NFT_TRANSPORT }; /* where an offset in a packet counts from */

/* The first and the last of addresses of one family. */
struct nft_range {
    struct ip first, last;
};

void nft_begin(struct nft_batch *b, const char *table);
void nft_free(struct nft_batch *b);

/* A chain that others jump to, or one that is asked at a hook and accepts what none of its rules takes. */
void nft_chain(struct nft_batch *b, const char *name);
void nft_base_chain(struct nft_batch *b, const char *name, enum nft_hook hook);
/* What packets are counted by that rules name; it keeps its count while they change, but not while the table does. */
void nft_counter(struct nft_batch *b, const char *name);
/* A set of addresses; the ranges are in order and neither overlap nor touch. */
void nft_set(struct nft_batch *b, const char *name, uint8_t family, const struct nft_range *v, size_t n);

/*
 * A rule at the end of a chain, that does what nft_verdict says with a packet that fits all conditions between the two.
 * Values that are compared are as in the packet; facts are bytes (family, protocol), a mark, names of interfaces.
 */
void nft_rule(struct nft_batch *b, const char *chain);
void nft_fact_byte(struct nft_batch *b, enum nft_fact fact, uint8_t value);
void nft_fact_mark(struct nft_batch *b, uint32_t mark);
void nft_fact_interface(struct nft_batch *b, enum nft_fact fact, const char *name);
void nft_field(struct nft_batch *b, enum nft_part part, unsigned offset, unsigned len); /* read for what follows */
void nft_compare(struct nft_batch *b, enum nft_compare how, const void *value, size_t len);
void nft_in_set(struct nft_batch *b, const char *name);
/* Also where NFT_IS_PROTOCOL knows nothing: behind the first fragment the kernel takes AH for one more extension header. */
void nft_ipv6_fragment_of(struct nft_batch *b, uint8_t protocol);
void nft_later_fragment(struct nft_batch *b, uint8_t family); /* not the first one of a datagram */
/* The route back to the packet's source leads out there (NULL: nowhere). At the hooks input and forward only. */
void nft_way_back(struct nft_batch *b, const char *interface);
void nft_count(struct nft_batch *b, const char *counter); /* NULL: one of the rule's own, for who lists it */
/* The rest of the rule is for so many packets a second, and as many more at once; the log gets a copy of each. */
void nft_limit(struct nft_batch *b, unsigned per_second, unsigned burst);
void nft_log(struct nft_batch *b, uint16_t group);
void nft_verdict(struct nft_batch *b, enum nft_verdict_kind what, const char *chain);

/* The batch may be put in force again. Errors: PERM, UNSUPPORTED (this kernel can't do it), NOMEM, SYSTEM; why gets one line. */
MUST_USE enum err nft_commit(struct nft_batch *b, char *why, size_t why_size);
/* How many packets that counter of a table has seen since it was asked last; 0 if it is not there. */
uint64_t nft_counted(const char *table, const char *counter);
/* There is no such table: another program has taken it away. False where that can't be known. */
bool nft_gone(const char *table);
bool nft_there(const char *table); /* likewise: there certainly is one */
/* Takes the table away; that there is none, or nothing to ask, is fine. */
void nft_remove(const char *table);
/* The tables named by that prefix and a network device that is not there: of who crashed, and left. Returns how many. */
unsigned nft_orphans(const char *prefix, char (*names)[NFT_TABLE_TEXT], unsigned cap);

#endif
