/* The SA database: SPIs, publication, removal, and workers that read while it changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "esp/sad.h"
#include "test/unit/esp_wire.h"

static struct epoch *epoch;
static struct sad *sad;
static struct random_seeded seed;

static int make(void **state)
{
    (void)state;
    struct random_source rnd = random_seeded_source(&seed, 42);
    return epoch_new(&epoch, 2) == OK && sad_new(&sad, epoch, &rnd) == OK ? 0 : -1;
}

static int unmake(void **state)
{
    (void)state;
    sad_free(sad);
    epoch_free(epoch);
    return 0;
}

static uint32_t reserve(unsigned worker)
{
    uint32_t spi;
    assert_int_equal(sad_reserve(sad, worker, &spi), OK);
    return spi;
}

static struct sa *new_sa(enum sa_dir dir, uint32_t spi, uint32_t policy)
{
    struct sa_params p = params_of(GCM128);
    p.spi = spi;
    p.policy_id = policy;
    return sa_of(p, dir);
}

static struct sa *publish_in(uint32_t spi)
{
    struct sa *sa = new_sa(SA_IN, spi, 0);
    assert_int_equal(sad_publish_in(sad, sa), OK);
    return sa;
}

static void published_sa_is_found_by_its_whole_spi_only(void **state)
{
    (void)state;
    uint32_t spi = reserve(0);
    assert_null(sad_find_in(sad, spi));
    struct sa *sa = publish_in(spi);
    assert_ptr_equal(sad_find_in(sad, spi), sa);
    for (unsigned bit = 0; bit < 32; bit++)
        assert_null(sad_find_in(sad, spi ^ 1u << bit));
    for (uint32_t low = 0; low < 256; low++)
        assert_null(sad_find_in(sad, low));
    sad_remove_in(sad, spi);
    assert_null(sad_find_in(sad, spi));
    sad_remove_in(sad, spi);
}

static void spi_names_its_worker_and_is_never_reserved_by_the_rfc(void **state)
{
    (void)state;
    for (unsigned worker = 0; worker < SAD_WORKERS; worker++) {
        uint32_t spi = reserve(worker);
        assert_int_equal(spi >> 28, worker + 1);
        assert_true(spi > 255); /* RFC 4303 section 2.1 */
    }
    uint32_t spi;
    assert_int_equal(sad_reserve(sad, SAD_WORKERS, &spi), ERR_RANGE);
}

static void what_is_not_reserved_can_not_be_published(void **state)
{
    (void)state;
    uint32_t spi = reserve(3);
    struct sa *sa = new_sa(SA_IN, spi ^ 1u << 21, 0); /* its slot, another tag */
    assert_int_equal(sad_publish_in(sad, sa), ERR_STATE);
    sa_free(sa);
    sa = new_sa(SA_OUT, spi, 0);
    assert_int_equal(sad_publish_in(sad, sa), ERR_STATE);
    sa_free(sa);
    sa = new_sa(SA_IN, 0xfffffff0, 0); /* its page doesn't exist */
    assert_int_equal(sad_publish_in(sad, sa), ERR_STATE);
    sa_free(sa);
    publish_in(spi);
    sa = new_sa(SA_IN, spi, 0);
    assert_int_equal(sad_publish_in(sad, sa), ERR_STATE);
    sa_free(sa);
    sad_release(sad, spi);
    assert_non_null(sad_find_in(sad, spi)); /* a release does not take what is published */
    spi = reserve(3);
    sad_release(sad, spi);
    sa = new_sa(SA_IN, spi, 0);
    assert_int_equal(sad_publish_in(sad, sa), ERR_STATE);
    sa_free(sa);
}

static void stale_spi_of_a_reused_slot_finds_nothing(void **state)
{
    (void)state;
    enum { N = 768 };
    static uint32_t last[SAD_SLOTS];
    unsigned reused = 0;
    for (unsigned round = 0; round < 20; round++) {
        uint32_t spis[N];
        for (unsigned i = 0; i < N; i++) {
            spis[i] = reserve(1);
            uint32_t slot = spis[i] & (SAD_SLOTS - 1);
            assert_int_not_equal(spis[i], last[slot]);
            if (last[slot] != 0 && i % 16 == 0) {
                publish_in(spis[i]);
                assert_null(sad_find_in(sad, last[slot]));
                reused++;
            }
            last[slot] = spis[i];
        }
        for (unsigned i = 0; i < N; i++) {
            sad_remove_in(sad, spis[i]);
            sad_release(sad, spis[i]);
        }
        (void)epoch_reclaim(epoch);
    }
    assert_true(reused > 100);
}

static void all_slots_can_be_reserved_and_not_one_more(void **state)
{
    (void)state;
    uint8_t *seen = calloc(SAD_SLOTS, 1);
    uint32_t spi = 0;
    for (uint32_t i = 0; i < SAD_SLOTS; i++) {
        spi = reserve(i % SAD_WORKERS);
        assert_int_equal(seen[spi & (SAD_SLOTS - 1)]++, 0);
    }
    uint32_t untouched = 77;
    assert_int_equal(sad_reserve(sad, 0, &untouched), ERR_FULL);
    assert_int_equal(untouched, 77);
    sad_release(sad, spi);
    sad_release(sad, spi); /* the second does nothing */
    uint32_t again = reserve(0);
    assert_int_equal(again & (SAD_SLOTS - 1), spi & (SAD_SLOTS - 1));
    assert_int_equal(sad_reserve(sad, 0, &spi), ERR_FULL);
    free(seen);
}

static void outbound_sa_is_the_same_for_all_workers_and_replaced(void **state)
{
    (void)state;
    static const uint32_t ids[] = {0, 1, 63, 64, 1000, SAD_POLICIES - 1};
    for (unsigned i = 0; i < 6; i++) {
        assert_null(sad_find_out(sad, ids[i], 0));
        struct sa *first = new_sa(SA_OUT, 0x1000, ids[i]), *second = new_sa(SA_OUT, 0x2000, ids[i]);
        assert_int_equal(sad_publish_out(sad, first), OK);
        assert_ptr_equal(sad_find_out(sad, ids[i], 0), first);
        assert_int_equal(sad_publish_out(sad, second), OK);
        for (unsigned worker = 0; worker < SAD_WORKERS; worker++)
            assert_ptr_equal(sad_find_out(sad, ids[i], worker), second);
        sad_retire_out(sad, first); /* no longer the current one */
        assert_ptr_equal(sad_find_out(sad, ids[i], 0), second);
        sad_retire_out(sad, second);
        assert_null(sad_find_out(sad, ids[i], 0));
    }
    assert_null(sad_find_out(sad, SAD_POLICIES, 0));
    assert_null(sad_find_out(sad, 0, SAD_WORKERS));
}

static uint32_t seal_one(struct sa *sa)
{
    uint8_t bytes[HEAD + ROOM] = {0};
    struct esp_packet p = {.data = bytes + HEAD, .len = 60};
    unsigned events, sealed;
    assert_int_equal(esp_seal(sa, &p, 1, 1, &sealed, &events), OK);
    return get_be32(p.data + 4);
}

/* A nonce made from a sequence number must never come twice (RFC 4106 section 3.1). */
static void replaced_outbound_sa_may_come_back_and_goes_on_counting(void **state)
{
    (void)state;
    struct sa *first = new_sa(SA_OUT, 0x1000, 3), *second = new_sa(SA_OUT, 0x2000, 3);
    assert_int_equal(sad_publish_out(sad, first), OK);
    assert_int_equal(seal_one(sad_find_out(sad, 3, 0)), 1);
    assert_int_equal(sad_publish_out(sad, second), OK);
    epoch_wait(epoch); /* would free what was retired */
    assert_int_equal(seal_one(sad_find_out(sad, 3, 0)), 1);
    assert_int_equal(sad_publish_out(sad, first), OK);
    assert_int_equal(seal_one(sad_find_out(sad, 3, 0)), 2);
    sad_retire_out(sad, second);
    sad_retire_out(sad, first);
}

static void replaced_outbound_sa_lives_until_workers_have_passed(void **state)
{
    (void)state;
    struct sa *first = new_sa(SA_OUT, 0x1000, 3), *second = new_sa(SA_OUT, 0x2000, 3);
    assert_int_equal(sad_publish_out(sad, first), OK);
    epoch_online(epoch, 0);
    struct sa *held = sad_find_out(sad, 3, 0);
    assert_int_equal(sad_publish_out(sad, second), OK);
    sad_retire_out(sad, first);
    assert_int_equal(epoch_reclaim(epoch), 1);
    assert_int_equal(held->params.spi, 0x1000); /* a sanitizer would see a use after free */
    epoch_quiesce(epoch, 0);
    assert_int_equal(epoch_reclaim(epoch), 0);
    epoch_offline(epoch, 0);
    sad_retire_out(sad, second);
}

static void what_can_not_be_outbound_is_refused(void **state)
{
    (void)state;
    struct sa *sa = new_sa(SA_OUT, 0x1000, SAD_POLICIES);
    assert_int_equal(sad_publish_out(sad, sa), ERR_RANGE);
    sa_free(sa);
    sa = new_sa(SA_IN, 0x1000, 0);
    assert_int_equal(sad_publish_out(sad, sa), ERR_STATE);
    sa_free(sa);
}

static void removed_sa_lives_until_workers_have_passed(void **state)
{
    (void)state;
    epoch_online(epoch, 0);
    uint32_t spi = reserve(0);
    struct sa *sa = publish_in(spi);
    struct sa *held = sad_find_in(sad, spi);
    sad_remove_in(sad, spi);
    assert_null(sad_find_in(sad, spi));
    assert_int_equal(epoch_reclaim(epoch), 1);
    assert_ptr_equal(held, sa);
    assert_int_equal(held->params.spi, spi); /* a sanitizer would see a use after free */
    epoch_quiesce(epoch, 0);
    assert_int_equal(epoch_reclaim(epoch), 0);
    epoch_offline(epoch, 0);
}

static void moved_path_is_read_back(void **state)
{
    (void)state;
    struct sa *sa = new_sa(SA_OUT, 0x1000, 0);
    struct path path = sa_path(sa), read;
    assert_true(path_equal(&path, &sa->params.path));
    path.remote.port = 12345;
    path.marker = true;
    sa_move(sa, &path);
    read = sa_path(sa);
    assert_true(path_equal(&read, &path));
    assert_int_equal(read.remote.port, 12345);
    assert_true(read.marker);
    sa_free(sa);
}

/* -- a worker reads while the control thread replaces -- */

#define CURRENT 4

struct crowd {
    _Atomic uint32_t spi[CURRENT];
    atomic_bool stop;
    _Atomic uint64_t found, opened, sealed, torn;
};

/* Opens garbage (a packet of zeros) on whatever SA is current, seals on the outbound one, checks paths. */
static void use(struct crowd *c, unsigned reader)
{
    uint8_t bytes[HEAD + ROOM] = {0}, dst[ROOM];
    struct esp_packet p = {.data = bytes, .dst = dst, .len = 100};
    unsigned events, sealed;
    struct sa *in = sad_find_in(sad, atomic_load(&c->spi[reader]));
    if (in) {
        pthread_spin_lock(&in->lock);
        put_be32(bytes + 4, 1);
        if (esp_open(in, &p, 1, 1, &events) == 0 && p.drop == STAT_DROP_IN_AUTH)
            atomic_fetch_add(&c->opened, 1);
        pthread_spin_unlock(&in->lock);
        atomic_fetch_add(&c->found, 1);
    }
    struct sa *out = sad_find_out(sad, 9, reader);
    if (!out)
        return;
    pthread_spin_lock(&out->lock);
    p = (struct esp_packet){.data = bytes + HEAD, .len = 60};
    if (esp_seal(out, &p, 1, 1, &sealed, &events) == OK)
        atomic_fetch_add(&c->sealed, 1);
    pthread_spin_unlock(&out->lock);
    struct path path = sa_path(out);
    if (path.remote.port != path.local.port)
        atomic_fetch_add(&c->torn, 1);
}

struct sad_reader {
    struct crowd *crowd;
    unsigned index;
};

static void *reader_main(void *arg)
{
    struct sad_reader *r = arg;
    for (unsigned turn = 1; !atomic_load(&r->crowd->stop); turn++) {
        epoch_online(epoch, r->index);
        for (unsigned i = 0; i < 16; i++) {
            use(r->crowd, r->index);
            if (i % 4 == 3)
                epoch_quiesce(epoch, r->index);
        }
        epoch_offline(epoch, r->index);
    }
    return NULL;
}

static void workers_open_and_seal_while_sas_are_replaced(void **state)
{
    (void)state;
    struct crowd c = {0};
    struct sad_reader readers[2] = {{&c, 0}, {&c, 1}};
    pthread_t thread[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, reader_main, &readers[i]), 0);
    struct sa *last = NULL;
    for (unsigned round = 0; round < 400; round++) {
        for (unsigned i = 0; i < 2; i++) {
            uint32_t old = atomic_load(&c.spi[i]), spi = reserve(i);
            publish_in(spi);
            atomic_store(&c.spi[i], spi);
            sad_remove_in(sad, old);
        }
        struct sa *out = new_sa(SA_OUT, 0x1000 + round, 9);
        assert_int_equal(sad_publish_out(sad, out), OK);
        if (last && round % 8 == 0) { /* there and back */
            assert_int_equal(sad_publish_out(sad, last), OK);
            assert_int_equal(sad_publish_out(sad, out), OK);
        }
        if (last)
            sad_retire_out(sad, last);
        last = out;
        for (uint16_t port = 1; port < 20; port++) {
            struct path path = out->params.path;
            path.local.port = path.remote.port = port;
            sa_move(out, &path);
        }
        (void)epoch_reclaim(epoch);
        if (round % 16 == 0)
            usleep(1000);
        if (round % 100 == 99) {
            sad_retire_out(sad, out);
            last = NULL;
        }
    }
    atomic_store(&c.stop, true);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(epoch_reclaim(epoch), 0);
    assert_int_equal(c.torn, 0);
    assert_true(c.found > 0 && c.opened == c.found && c.sealed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(published_sa_is_found_by_its_whole_spi_only, make, unmake),
        cmocka_unit_test_setup_teardown(spi_names_its_worker_and_is_never_reserved_by_the_rfc, make, unmake),
        cmocka_unit_test_setup_teardown(what_is_not_reserved_can_not_be_published, make, unmake),
        cmocka_unit_test_setup_teardown(stale_spi_of_a_reused_slot_finds_nothing, make, unmake),
        cmocka_unit_test_setup_teardown(all_slots_can_be_reserved_and_not_one_more, make, unmake),
        cmocka_unit_test_setup_teardown(outbound_sa_is_the_same_for_all_workers_and_replaced, make, unmake),
        cmocka_unit_test_setup_teardown(replaced_outbound_sa_may_come_back_and_goes_on_counting, make, unmake),
        cmocka_unit_test_setup_teardown(replaced_outbound_sa_lives_until_workers_have_passed, make, unmake),
        cmocka_unit_test_setup_teardown(what_can_not_be_outbound_is_refused, make, unmake),
        cmocka_unit_test_setup_teardown(removed_sa_lives_until_workers_have_passed, make, unmake),
        cmocka_unit_test_setup_teardown(moved_path_is_read_back, make, unmake),
        cmocka_unit_test_setup_teardown(workers_open_and_seal_while_sas_are_replaced, make, unmake),
    };
    return cmocka_run_group_tests_name("sad", tests, start_crypto, NULL);
}
