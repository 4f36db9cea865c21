#include "tun/nft.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tun/rtnl.h"

#define ANSWER_SECONDS 5
#define SEQUENCE 1    /* of all messages: there is one batch a socket */
#define ELEMENTS 1000 /* of a set in one message, whose attributes are 64 KiB at most */

/* Numbers by which `nft list` knows what a set is of (its datatypes). */
enum key_type { KEY_IPV4 = 7, KEY_IPV6 = 8 };

/* -- messages and attributes -- */

static void append(struct nft_batch *b, const void *data, size_t len)
{
    static const uint8_t zero[NLMSG_ALIGNTO];
    if (b->failed == OK)
        b->failed = buf_append(&b->out, span_of(data, len));
    if (b->failed == OK)
        b->failed = buf_append(&b->out, span_of(zero, NLMSG_ALIGN(len) - len));
}

static void message_begin(struct nft_batch *b, uint16_t type, uint16_t flags, uint8_t family, uint16_t resource)
{
    struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags), .nlmsg_seq = SEQUENCE};
    struct nfgenmsg g = {.nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(resource)};
    b->message = b->out.len;
    append(b, &h, sizeof h);
    append(b, &g, sizeof g);
}

static void message_end(struct nft_batch *b)
{
    uint32_t len = (uint32_t)(b->out.len - b->message);
    if (b->failed == OK)
        memcpy(b->out.data + b->message, &len, sizeof len);
}

static void table_message(struct nft_batch *b, enum nf_tables_msg_types type, uint16_t flags)
{
    message_begin(b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, NFPROTO_INET, 0);
}

static void attr(struct nft_batch *b, uint16_t type, const void *data, size_t len)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof a + len), .nla_type = type};
    append(b, &a, sizeof a);
    append(b, data, len);
}

static void attr_text(struct nft_batch *b, uint16_t type, const char *text)
{
    attr(b, type, text, strlen(text) + 1);
}

static void attr_u32(struct nft_batch *b, uint16_t type, uint32_t value)
{
    uint32_t wire = htonl(value);
    attr(b, type, &wire, sizeof wire);
}

static void attr_u64(struct nft_batch *b, uint16_t type, uint64_t value)
{
    uint64_t wire = htobe64(value);
    attr(b, type, &wire, sizeof wire);
}

static size_t nest(struct nft_batch *b, uint16_t type)
{
    size_t start = b->out.len;
    attr(b, type | NLA_F_NESTED, NULL, 0);
    return start;
}

static void nest_end(struct nft_batch *b, size_t start)
{
    uint16_t len = (uint16_t)(b->out.len - start);
    if (b->failed == OK)
        memcpy(b->out.data + start, &len, sizeof len);
}

static void attr_value(struct nft_batch *b, uint16_t type, const void *value, size_t len)
{
    size_t data = nest(b, type);
    attr(b, NFTA_DATA_VALUE, value, len);
    nest_end(b, data);
}

/* -- tables, chains, sets -- */

static void batch_mark(struct nft_batch *b, uint16_t type)
{
    message_begin(b, type, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    message_end(b);
}

static void table(struct nft_batch *b, enum nf_tables_msg_types type, uint16_t flags)
{
    table_message(b, type, flags);
    attr_text(b, NFTA_TABLE_NAME, b->table);
    message_end(b);
}

void nft_begin(struct nft_batch *b, const char *name)
{
    *b = (struct nft_batch){0};
    snprintf(b->table, sizeof b->table, "%s", name);
    batch_mark(b, NFNL_MSG_BATCH_BEGIN);
    table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE); /* so that there is one to be deleted */
    table(b, NFT_MSG_DELTABLE, 0);
    table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE);
}

void nft_free(struct nft_batch *b)
{
    buf_free(&b->out);
}

static void chain_begin(struct nft_batch *b, const char *name)
{
    table_message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    attr_text(b, NFTA_CHAIN_TABLE, b->table);
    attr_text(b, NFTA_CHAIN_NAME, name);
}

void nft_chain(struct nft_batch *b, const char *name)
{
    chain_begin(b, name);
    message_end(b);
}

void nft_base_chain(struct nft_batch *b, const char *name, enum nft_hook hook)
{
    static const uint32_t hooks[] = {NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_LOCAL_OUT};
    chain_begin(b, name);
    size_t at = nest(b, NFTA_CHAIN_HOOK);
    attr_u32(b, NFTA_HOOK_HOOKNUM, hooks[hook]);
    attr_u32(b, NFTA_HOOK_PRIORITY, 0); /* behind the translation of destinations, where most filters are */
    nest_end(b, at);
    attr_u32(b, NFTA_CHAIN_POLICY, NF_ACCEPT);
    attr_text(b, NFTA_CHAIN_TYPE, "filter");
    message_end(b);
}

static void object_begin(struct nft_batch *b, enum nf_tables_msg_types type, uint16_t flags, const char *name)
{
    table_message(b, type, flags);
    attr_text(b, NFTA_OBJ_TABLE, b->table);
    attr_text(b, NFTA_OBJ_NAME, name);
    attr_u32(b, NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
}

void nft_counter(struct nft_batch *b, const char *name)
{
    object_begin(b, NFT_MSG_NEWOBJ, NLM_F_CREATE, name);
    nest_end(b, nest(b, NFTA_OBJ_DATA));
    message_end(b);
}

static void element(struct nft_batch *b, const struct ip *ip, uint32_t flags)
{
    size_t at = nest(b, NFTA_LIST_ELEM);
    attr_value(b, NFTA_SET_ELEM_KEY, ip->b, ip_len(ip->family));
    if (flags)
        attr_u32(b, NFTA_SET_ELEM_FLAGS, flags);
    nest_end(b, at);
}

/* False: there is none. */
static bool successor(struct ip *ip)
{
    for (unsigned i = ip_len(ip->family); i-- > 0;)
        if (++ip->b[i])
            return true;
    return false;
}

static void elements(struct nft_batch *b, const char *name, const struct nft_range *v, size_t n)
{
    table_message(b, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
    attr_text(b, NFTA_SET_ELEM_LIST_TABLE, b->table);
    attr_text(b, NFTA_SET_ELEM_LIST_SET, name);
    size_t list = nest(b, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (size_t i = 0; i < n; i++) {
        struct ip behind = v[i].last;
        element(b, &v[i].first, 0);
        if (successor(&behind)) /* else it is open, to the last address there is */
            element(b, &behind, NFT_SET_ELEM_INTERVAL_END);
    }
    nest_end(b, list);
    message_end(b);
}

void nft_set(struct nft_batch *b, const char *name, uint8_t family, const struct nft_range *v, size_t n)
{
    table_message(b, NFT_MSG_NEWSET, NLM_F_CREATE);
    attr_text(b, NFTA_SET_TABLE, b->table);
    attr_text(b, NFTA_SET_NAME, name);
    attr_u32(b, NFTA_SET_FLAGS, NFT_SET_INTERVAL);
    attr_u32(b, NFTA_SET_KEY_TYPE, family == 6 ? KEY_IPV6 : KEY_IPV4);
    attr_u32(b, NFTA_SET_KEY_LEN, ip_len(family));
    attr_u32(b, NFTA_SET_ID, ++b->sets);
    message_end(b);
    for (size_t i = 0; i < n; i += ELEMENTS)
        elements(b, name, v + i, n - i < ELEMENTS ? n - i : ELEMENTS);
}

/* -- rules -- */

void nft_rule(struct nft_batch *b, const char *chain)
{
    table_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    attr_text(b, NFTA_RULE_TABLE, b->table);
    attr_text(b, NFTA_RULE_CHAIN, chain);
    b->expressions = nest(b, NFTA_RULE_EXPRESSIONS);
}

struct expression {
    size_t element, data;
};

static struct expression expression(struct nft_batch *b, const char *name)
{
    struct expression e;
    e.element = nest(b, NFTA_LIST_ELEM);
    attr_text(b, NFTA_EXPR_NAME, name);
    e.data = nest(b, NFTA_EXPR_DATA);
    return e;
}

static void expression_end(struct nft_batch *b, struct expression e)
{
    nest_end(b, e.data);
    nest_end(b, e.element);
}

void nft_compare(struct nft_batch *b, enum nft_compare how, const void *value, size_t len)
{
    static const uint32_t ops[] = {NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CMP_GTE, NFT_CMP_LTE};
    struct expression e = expression(b, "cmp");
    attr_u32(b, NFTA_CMP_SREG, NFT_REG_1);
    attr_u32(b, NFTA_CMP_OP, ops[how]);
    attr_value(b, NFTA_CMP_DATA, value, len);
    expression_end(b, e);
}

static void load_fact(struct nft_batch *b, enum nft_fact fact)
{
    static const uint32_t keys[] = {NFT_META_NFPROTO, NFT_META_L4PROTO, NFT_META_MARK, NFT_META_IIFNAME,
                                    NFT_META_OIFNAME};
    struct expression e = expression(b, "meta");
    attr_u32(b, NFTA_META_KEY, keys[fact]);
    attr_u32(b, NFTA_META_DREG, NFT_REG_1);
    expression_end(b, e);
}

void nft_fact_byte(struct nft_batch *b, enum nft_fact fact, uint8_t value)
{
    uint8_t family = value == 6 ? NFPROTO_IPV6 : NFPROTO_IPV4;
    load_fact(b, fact);
    nft_compare(b, NFT_EQUAL, fact == NFT_IS_FAMILY ? &family : &value, 1);
}

void nft_fact_mark(struct nft_batch *b, uint32_t mark)
{
    load_fact(b, NFT_IS_MARK);
    nft_compare(b, NFT_EQUAL, &mark, sizeof mark);
}

static void compare_name(struct nft_batch *b, const char *name)
{
    char padded[IFNAMSIZ] = "";
    memcpy(padded, name, strnlen(name, sizeof padded - 1));
    nft_compare(b, NFT_EQUAL, padded, sizeof padded);
}

void nft_fact_interface(struct nft_batch *b, enum nft_fact fact, const char *name)
{
    load_fact(b, fact);
    compare_name(b, name);
}

void nft_field(struct nft_batch *b, enum nft_part part, unsigned offset, unsigned len)
{
    struct expression e = expression(b, "payload");
    attr_u32(b, NFTA_PAYLOAD_DREG, NFT_REG_1);
    attr_u32(b, NFTA_PAYLOAD_BASE, part == NFT_NETWORK ? NFT_PAYLOAD_NETWORK_HEADER : NFT_PAYLOAD_TRANSPORT_HEADER);
    attr_u32(b, NFTA_PAYLOAD_OFFSET, offset);
    attr_u32(b, NFTA_PAYLOAD_LEN, len);
    expression_end(b, e);
}

void nft_in_set(struct nft_batch *b, const char *name)
{
    struct expression e = expression(b, "lookup");
    attr_text(b, NFTA_LOOKUP_SET, name);
    attr_u32(b, NFTA_LOOKUP_SREG, NFT_REG_1);
    expression_end(b, e);
}

static void mask(struct nft_batch *b, const uint8_t bits[2])
{
    static const uint8_t none[2];
    struct expression e = expression(b, "bitwise");
    attr_u32(b, NFTA_BITWISE_SREG, NFT_REG_1);
    attr_u32(b, NFTA_BITWISE_DREG, NFT_REG_1);
    attr_u32(b, NFTA_BITWISE_LEN, sizeof none);
    attr_value(b, NFTA_BITWISE_MASK, bits, sizeof none);
    attr_value(b, NFTA_BITWISE_XOR, none, sizeof none);
    expression_end(b, e);
}

/* Of the IPv6 fragment header. */
static void fragment_field(struct nft_batch *b, unsigned offset, unsigned len)
{
    const uint8_t fragment_header = 44;
    struct expression e = expression(b, "exthdr");
    attr_u32(b, NFTA_EXTHDR_DREG, NFT_REG_1);
    attr(b, NFTA_EXTHDR_TYPE, &fragment_header, 1);
    attr_u32(b, NFTA_EXTHDR_OFFSET, offset);
    attr_u32(b, NFTA_EXTHDR_LEN, len);
    expression_end(b, e);
}

void nft_ipv6_fragment_of(struct nft_batch *b, uint8_t protocol)
{
    fragment_field(b, 0, 1);
    nft_compare(b, NFT_EQUAL, &protocol, 1);
}

void nft_later_fragment(struct nft_batch *b, uint8_t family)
{
    static const uint8_t offset4[2] = {0x1f, 0xff}, offset6[2] = {0xff, 0xf8}, none[2];
    if (family == 6)
        fragment_field(b, 2, sizeof none);
    else
        nft_field(b, NFT_NETWORK, 6, sizeof none);
    mask(b, family == 6 ? offset6 : offset4);
    nft_compare(b, NFT_UNEQUAL, none, sizeof none);
}

void nft_way_back(struct nft_batch *b, const char *interface)
{
    static const uint8_t none[4]; /* the kernel clears no more than that of a name that it does not have */
    struct expression e = expression(b, "fib");
    attr_u32(b, NFTA_FIB_DREG, NFT_REG_1);
    attr_u32(b, NFTA_FIB_RESULT, NFT_FIB_RESULT_OIFNAME);
    attr_u32(b, NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR);
    expression_end(b, e);
    if (interface)
        compare_name(b, interface);
    else
        nft_compare(b, NFT_EQUAL, none, sizeof none);
}

void nft_count(struct nft_batch *b, const char *counter)
{
    struct expression e = expression(b, counter ? "objref" : "counter");
    if (counter) {
        attr_u32(b, NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
        attr_text(b, NFTA_OBJREF_IMM_NAME, counter);
    }
    expression_end(b, e);
}

void nft_limit(struct nft_batch *b, unsigned per_second, unsigned burst)
{
    struct expression e = expression(b, "limit");
    attr_u64(b, NFTA_LIMIT_RATE, per_second);
    attr_u64(b, NFTA_LIMIT_UNIT, 1);
    attr_u32(b, NFTA_LIMIT_BURST, burst);
    expression_end(b, e);
}

void nft_log(struct nft_batch *b, uint16_t group)
{
    uint16_t wire = htons(group);
    struct expression e = expression(b, "log");
    attr(b, NFTA_LOG_GROUP, &wire, sizeof wire);
    expression_end(b, e);
}

void nft_verdict(struct nft_batch *b, enum nft_verdict_kind what, const char *chain)
{
    static const int codes[] = {NF_DROP, NF_ACCEPT, NFT_RETURN, NFT_JUMP, NFT_CONTINUE};
    struct expression e = expression(b, "immediate");
    attr_u32(b, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    size_t data = nest(b, NFTA_IMMEDIATE_DATA), verdict = nest(b, NFTA_DATA_VERDICT);
    attr_u32(b, NFTA_VERDICT_CODE, (uint32_t)codes[what]);
    if (chain)
        attr_text(b, NFTA_VERDICT_CHAIN, chain);
    nest_end(b, verdict);
    nest_end(b, data);
    expression_end(b, e);
    nest_end(b, b->expressions);
    message_end(b);
}

/* -- talking -- */

static enum err fail(int error, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s", strerror(error));
    switch (error) {
    case EPERM:
    case EACCES:
        return ERR_PERM;
    case ENOENT: /* a kind of expression that is not there */
    case EOPNOTSUPP:
    case EPROTONOSUPPORT:
    case EAFNOSUPPORT:
        return ERR_UNSUPPORTED;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_SYSTEM;
    }
}

/* The last message asks for an answer, which comes behind the errors of all others. (Old kernels: not the end itself.) */
static void acknowledged(struct nft_batch *b, size_t message)
{
    struct nlmsghdr h;
    if (b->failed != OK)
        return;
    memcpy(&h, b->out.data + message, sizeof h);
    h.nlmsg_flags ^= NLM_F_ACK;
    memcpy(b->out.data + message, &h, sizeof h);
}

/* The batch is sent as one datagram, however long it is. */
static int open_socket(size_t size)
{
    struct sockaddr_nl local = {.nl_family = AF_NETLINK};
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    int room = size < INT32_MAX / 4 ? (int)size * 2 : INT32_MAX / 2, on = 1;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on); /* errors without what they are about */
    if (bind(fd, (struct sockaddr *)&local, sizeof local) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* The first error among the answers, 0 if there is none before the acknowledgement. Another answer, if it is wanted. */
static int answered(int fd, struct buf *answer)
{
    uint8_t datagram[16384];
    for (;;) {
        struct sockaddr_nl from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(fd, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &from_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        struct span all = span_of(datagram, (size_t)n), message;
        while (from.nl_pid == 0 && rtnl_next(&all, &message)) {
            struct nlmsghdr h;
            struct nlmsgerr e;
            memcpy(&h, message.data, sizeof h);
            if (h.nlmsg_type == NLMSG_ERROR && rtnl_body(message, &e.error, sizeof e.error))
                return -e.error;
            if (answer && buf_append(answer, message) != OK)
                return ENOMEM;
        }
    }
}

/* Sends it, and waits for what comes of it; an errno, or 0. */
static int talk(const struct buf *out, struct buf *answer)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = open_socket(out->len), error = 0;
    if (fd < 0)
        return errno;
    if (sendto(fd, out->data, out->len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        error = errno;
    else
        error = answered(fd, answer);
    (void)close(fd);
    return error;
}

enum err nft_commit(struct nft_batch *b, char *why, size_t why_size)
{
    size_t len = b->out.len, message = b->message;
    acknowledged(b, message);
    batch_mark(b, NFNL_MSG_BATCH_END);
    if (b->failed != OK) {
        snprintf(why, why_size, "%s", err_text(b->failed));
        return b->failed;
    }
    int error = talk(&b->out, NULL);
    acknowledged(b, message);
    b->out.len = len;
    b->message = message;
    return error ? fail(error, why, why_size) : OK;
}

uint64_t nft_counted(const char *table_name, const char *counter)
{
    struct nft_batch b = {0};
    struct buf answer = {0};
    uint64_t packets = 0;
    snprintf(b.table, sizeof b.table, "%s", table_name);
    object_begin(&b, NFT_MSG_GETOBJ_RESET, NLM_F_ACK, counter);
    message_end(&b);
    if (b.failed == OK && talk(&b.out, &answer) == 0) {
        struct span data = rtnl_find(buf_span(&answer), sizeof(struct nfgenmsg), NFTA_OBJ_DATA);
        struct reader value = reader_of(rtnl_find_in(data, NFTA_COUNTER_PACKETS));
        packets = read_u64(&value);
    }
    buf_free(&answer);
    nft_free(&b);
    return packets;
}

/* Whether there is such a table: 0, ENOENT, or another errno if that can't be known. */
static int ask(const char *name)
{
    struct nft_batch b = {0};
    snprintf(b.table, sizeof b.table, "%s", name);
    table(&b, NFT_MSG_GETTABLE, NLM_F_ACK);
    int error = b.failed == OK ? talk(&b.out, NULL) : ENOMEM;
    nft_free(&b);
    return error;
}

bool nft_gone(const char *name)
{
    return ask(name) == ENOENT;
}

bool nft_there(const char *name)
{
    return ask(name) == 0;
}

void nft_remove(const char *name)
{
    struct nft_batch b = {0};
    char why[64];
    snprintf(b.table, sizeof b.table, "%s", name);
    batch_mark(&b, NFNL_MSG_BATCH_BEGIN);
    table(&b, NFT_MSG_NEWTABLE, NLM_F_CREATE);
    table(&b, NFT_MSG_DELTABLE, 0);
    if (nft_commit(&b, why, sizeof why) != OK) {
        /* Where nothing could be put there, nothing is. */
    }
    nft_free(&b);
}

/* -- what a crash has left -- */

struct leftovers {
    const char *prefix;
    char (*names)[NFT_TABLE_TEXT];
    unsigned n, cap;
};

static void look_at_table(struct leftovers *l, struct span message)
{
    struct span name = rtnl_find(message, sizeof(struct nfgenmsg), NFTA_TABLE_NAME);
    size_t prefix = strlen(l->prefix);
    if (l->n == l->cap || name.len <= prefix || name.len > NFT_TABLE_TEXT || name.data[name.len - 1] != 0 ||
        memcmp(name.data, l->prefix, prefix) != 0 || if_nametoindex((const char *)name.data + prefix))
        return;
    memcpy(l->names[l->n++], name.data, name.len);
}

static void list_tables(int fd, struct leftovers *l)
{
    uint8_t datagram[16384];
    bool more = true;
    while (more) {
        ssize_t n = recv(fd, datagram, sizeof datagram, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        struct span all = span_of(datagram, (size_t)n), message;
        while (more && rtnl_next(&all, &message)) {
            struct nlmsghdr h;
            memcpy(&h, message.data, sizeof h);
            more = h.nlmsg_type != NLMSG_DONE && h.nlmsg_type != NLMSG_ERROR;
            if (more)
                look_at_table(l, message);
        }
    }
}

unsigned nft_orphans(const char *prefix, char (*names)[NFT_TABLE_TEXT], unsigned cap)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct leftovers l = {.prefix = prefix, .names = names, .cap = cap};
    struct nft_batch b = {0};
    int fd = open_socket(RTNL_RECEIVE_SIZE);
    table_message(&b, NFT_MSG_GETTABLE, NLM_F_DUMP);
    message_end(&b);
    if (fd >= 0 && b.failed == OK &&
        sendto(fd, b.out.data, b.out.len, 0, (struct sockaddr *)&kernel, sizeof kernel) >= 0)
        list_tables(fd, &l);
    if (fd >= 0)
        (void)close(fd);
    nft_free(&b);
    return l.n;
}
