/*
 * No nonce is used twice under one key (RFC 4106 section 3.1, RFC 7634 section 2, RFC 3686 section 4, RFC 8750 section 4),
 * and no IV of CBC comes again: all that is ever sealed, of ESP and of IKE, by whole tunnels in memory, is written down,
 * across rekeys of all kinds, losses, crashes and threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crypto/random.h"
#include "test/unit/rig.h"

#include "test/unit/esp_wire.h"

/* -- the recorder -- */

#define KEYS 4096u
#define USES (1u << 20)

enum counter { COUNTER, RANDOM }; /* what makes the IVs of a suite */

struct sealer { /* a keyed transform that lives, or one that was freed and whose memory is used again */
    const struct keyed *k;
    unsigned key;
    struct suite suite;
};

struct use {
    unsigned key; /* 0: free */
    uint8_t iv[16];
};

static struct {
    pthread_mutex_t lock;
    uint8_t key[KEYS][80];
    unsigned keys, sealers, uses, twice;
    struct sealer sealer[KEYS * 2];
    struct use use[USES];
    uint64_t by_kind[2];
} book = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void forget(void)
{
    book.keys = book.sealers = book.uses = book.twice = 0;
    memset(book.by_kind, 0, sizeof book.by_kind);
    memset(book.use, 0, sizeof book.use);
}

/* From 1; the same for the same bytes. */
static unsigned key_number(struct span key)
{
    uint8_t padded[80] = {(uint8_t)key.len};
    assert_true(key.len < sizeof padded);
    memcpy(padded + 1, key.data, key.len);
    unsigned i = 0;
    while (i < book.keys && memcmp(book.key[i], padded, sizeof padded) != 0)
        i++;
    if (i == book.keys) {
        assert_true(book.keys < KEYS);
        memcpy(book.key[book.keys++], padded, sizeof padded);
    }
    return i + 1;
}

static void write_down(unsigned key, const uint8_t *iv, unsigned len)
{
    struct use u = {.key = key};
    memcpy(u.iv, iv, len);
    uint64_t at = key * UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned i = 0; i < 16; i++)
        at = (at ^ u.iv[i]) * UINT64_C(0x100000001b3);
    struct use *slot;
    while ((slot = &book.use[(at ^ at >> 32) % USES])->key) {
        if (slot->key == u.key && memcmp(slot->iv, u.iv, sizeof u.iv) == 0) {
            book.twice++;
            return;
        }
        at++;
    }
    *slot = u;
    assert_true(++book.uses < USES / 2);
}

enum err __real_keyed_new(struct keyed **out, const struct suite *s, enum transform_dir dir, const char *engine,
                          struct span key, struct span mac_key);
enum err __wrap_keyed_new(struct keyed **out, const struct suite *s, enum transform_dir dir, const char *engine,
                          struct span key, struct span mac_key);
enum err __wrap_keyed_new(struct keyed **out, const struct suite *s, enum transform_dir dir, const char *engine,
                          struct span key, struct span mac_key)
{
    enum err e = __real_keyed_new(out, s, dir, engine, key, mac_key);
    if (e == OK && dir == TRANSFORM_SEAL) {
        pthread_mutex_lock(&book.lock);
        unsigned i = 0;
        while (i < book.sealers && book.sealer[i].k != *out)
            i++;
        book.sealers += i == book.sealers;
        book.sealer[i] = (struct sealer){*out, key_number(key), *s};
        pthread_mutex_unlock(&book.lock);
    }
    return e;
}

enum err __real_keyed_seal(struct keyed *k, struct transform_op *ops, unsigned n);
enum err __wrap_keyed_seal(struct keyed *k, struct transform_op *ops, unsigned n);
enum err __wrap_keyed_seal(struct keyed *k, struct transform_op *ops, unsigned n)
{
    pthread_mutex_lock(&book.lock);
    const struct sealer *s = book.sealer;
    while (s < book.sealer + book.sealers && s->k != k)
        s++;
    assert_true(s < book.sealer + book.sealers);
    bool counts = s->suite.counter_iv;
    for (unsigned i = 0; i < n && (counts || s->suite.iv_len); i++)
        write_down(s->key, ops[i].iv, counts ? COUNTER_IV : s->suite.iv_len);
    book.by_kind[counts ? COUNTER : RANDOM] += n;
    pthread_mutex_unlock(&book.lock);
    return __real_keyed_seal(k, ops, n);
}

/* -- whole tunnels -- */

static struct rig rig;

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void traffic(unsigned packets)
{
    static uint8_t taken[66000];
    for (unsigned i = 0; i < packets; i++) {
        rig_send_udp(&rig, i & 1, false, (const uint8_t *)"payload", 7);
        if (i % 16 == 15)
            rig_run(&rig, NS_PER_MS);
    }
    for (unsigned i = 0; i < 2; i++)
        while (memory_tun_take(rig.net, rig.host[i].tun, taken, sizeof taken))
            ;
}

static const struct policy *policy_at(unsigned host)
{
    return rig.host[host].config->policies[0];
}

static void rekey(unsigned host, bool child)
{
    struct rig_host *h = &rig.host[host];
    static uint64_t command = 100;
    ike_rekey(h->engine, h->config->peers[0], child ? policy_at(host) : NULL, ++command, rig.now);
}

/* Rekeys of one kind by each side and by both at once, with traffic before, during and after. */
static void rekeys(bool child)
{
    for (unsigned who = 1; who <= 3; who++) {
        if (who & 1)
            rekey(0, child);
        if (who & 2)
            rekey(1, child);
        traffic(200);
        rig_run(&rig, 50 * NS_PER_MS);
        traffic(100);
    }
}

static void bring_up(unsigned host)
{
    struct rig_host *h = &rig.host[host];
    ike_up(h->engine, h->config->peers[0], NULL, 7, rig.now);
    for (unsigned i = 0; i < 3000 && !h->up; i++)
        rig_run(&rig, 10 * NS_PER_MS);
    assert_true(h->up);
}

static void note_child(void *ctx, const struct ike_child_info *c)
{
    *(struct ike_child_info *)ctx = *c;
}

/* Two Child SAs of one policy, and the traffic goes from one to the other and back. */
static void to_and_fro(void)
{
    static uint8_t key[64];
    struct dataplane *d = rig.host[0].dataplane;
    struct ike_child_info first;
    ike_each_child(rig.host[0].engine, note_child, &first);
    struct ike_child second = {.id = first.id + 1000,
                               .policy = first.policy,
                               .protocol = first.protocol,
                               .spi_out = 0x1000,
                               .suite = first.suite,
                               .esn = first.esn};
    random_bytes(key, sizeof key);
    second.key_in = second.key_out = span_of(key, first.suite.encr_key_len);
    second.integ_in = second.integ_out = span_of(key, first.suite.integ_key_len);
    second.local = first.local;
    second.remote = first.remote;
    second.path = sa_path(sad_find_out(rig.host[0].shared.sad, 0, 0));
    assert_int_equal(dataplane_reserve(d, &second.spi_in), OK);
    assert_int_equal(dataplane_install(d, &second, "auto", true, rig.now), OK);
    for (unsigned i = 0; i < 10; i++) {
        traffic(20);
        dataplane_activate(d, i & 1 ? second.id : first.id);
    }
    dataplane_activate(d, first.id);
    dataplane_remove(d, second.id, true, rig.now);
    traffic(20);
}

static void all_of_it(const char *extra, unsigned seed)
{
    rig_setup(&rig, seed, extra);
    rig_up(&rig);
    rekeys(true);
    rekeys(false);
    to_and_fro();
    memory_net_faults(rig.net,
                      &(struct memory_faults){.loss = 100, .duplicate = 100, .reorder = 200, .delay = 5 * NS_PER_MS});
    rekeys(true);
    rekeys(false);
    rig_run(&rig, 10 * NS_PER_S);
    memory_net_faults(rig.net, &(struct memory_faults){.delay = NS_PER_MS});
    rig_restart(&rig, 1, seed + 50);
    bring_up(1);
    traffic(200);
    rekeys(true);
    rig_restart(&rig, 0, seed); /* its source of random numbers begins as it did at first */
    bring_up(0);
    traffic(200);
    rekeys(true);
    assert_int_equal(book.twice, 0);
}

static void nothing_is_sealed_twice_with_one_nonce(void **state)
{
    (void)state;
    static const char *const extras[] = {
        "esp = aes128gcm16\ntfc = 64, 256, 1024\ndummies = 20\n",
        "esp = aes256gcm12-esn\n",
        "esp = aes192gcm8\nencap = raw\n",
        "esp = aes256ccm16\n",
        "esp = chacha20poly1305-esn\n",
        "esp = aes128ctr-sha256-esn\n",
        "esp = aes256gmac\n",
        "esp = aes256gcm16iiv\n",
        "esp = aes128ccm8iiv-esn\n",
        "esp = chacha20poly1305iiv\n",
        "esp = aes128-sha256\n",
        "esp = aes256-sha512-esn\n",
        "ah = aes128gmac\n",
    };
    forget();
    for (unsigned i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        if (i)
            rig_teardown(&rig);
        all_of_it(extras[i], i + 1);
    }
    printf("%u keys, %llu packets by counters, %llu with drawn IVs\n", book.keys,
           (unsigned long long)book.by_kind[COUNTER], (unsigned long long)book.by_kind[RANDOM]);
    assert_true(book.keys > 13 * 40);
    assert_true(book.by_kind[COUNTER] > 20000 && book.by_kind[RANDOM] > 4000);
}

/* -- several threads on one SA, and processes -- */

static void *seal_much(void *ctx)
{
    struct sa *sa = ctx;
    struct esp_packet v[8];
    static _Thread_local uint8_t room[8][HEAD + 200];
    for (unsigned round = 0; round < 500; round++) {
        unsigned sealed, events;
        for (unsigned i = 0; i < 8; i++)
            v[i] = (struct esp_packet){.data = room[i] + HEAD, .len = 60, .next_header = NEXT_HEADER_IPV4};
        pthread_spin_lock(&sa->lock);
        enum err e = esp_seal(sa, v, 8, 5, &sealed, &events);
        pthread_spin_unlock(&sa->lock);
        assert_true(e == OK && sealed == 8);
    }
    return NULL;
}

static void threads_share_an_sa_without_sharing_nonces(void **state)
{
    (void)state;
    static const unsigned of[] = {GCM256, CHACHA, CBC256_SHA256};
    for (unsigned k = 0; k < sizeof of / sizeof of[0]; k++) {
        forget();
        struct sa *sa = sa_of(params_of(of[k]), SA_OUT);
        pthread_t thread[4];
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, seal_much, sa), 0);
        for (unsigned i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
        assert_int_equal(book.twice, 0);
        assert_int_equal(book.uses, 4 * 500 * 8);
        sa_free(sa);
    }
}

/* Keys and IVs of a child process are not its parent's, however the generator buffers. */
static void a_forked_child_draws_other_numbers(void **state)
{
    (void)state;
    uint8_t before[64], ours[64], theirs[64];
    int fd[2];
    random_bytes(before, sizeof before);
    assert_int_equal(pipe(fd), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        random_bytes(ours, sizeof ours);
        _exit(write(fd[1], ours, sizeof ours) == sizeof ours ? 0 : 1);
    }
    random_bytes(ours, sizeof ours);
    assert_int_equal(read(fd[0], theirs, sizeof theirs), sizeof theirs);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_memory_not_equal(ours, theirs, sizeof ours);
    assert_memory_not_equal(before, theirs, sizeof before);
    close(fd[0]);
    close(fd[1]);
}

/* The recorder itself: the same number twice is seen. */
static void what_comes_twice_is_noticed(void **state)
{
    (void)state;
    forget();
    struct sa *sa = sa_of(params_of(GCM256), SA_OUT);
    load_ipv4(0, 60);
    (void)seal_all(sa, 1);
    sa->seq = 0;
    load_ipv4(0, 60);
    (void)seal_all(sa, 1);
    assert_int_equal(book.twice, 1);
    sa_free(sa);
    sa = sa_of(params_of(GCM256), SA_OUT); /* another SA with the same key, as after a crash that kept it */
    load_ipv4(0, 60);
    (void)seal_all(sa, 1);
    assert_int_equal(book.twice, 2);
    sa_free(sa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(nothing_is_sealed_twice_with_one_nonce, teardown),
        cmocka_unit_test(threads_share_an_sa_without_sharing_nonces),
        cmocka_unit_test(a_forked_child_draws_other_numbers),
        cmocka_unit_test(what_comes_twice_is_noticed),
    };
    return cmocka_run_group_tests_name("nonce", tests, start_crypto, NULL);
}
