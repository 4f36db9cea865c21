/* Tables with their nodes inside what they index: found, in order, and gone when removed, through every growth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "crypto/secret.h"
#include "crypto/siphash.h"

#define MANY 20000

struct item {
    struct hash_link link;
    unsigned number;
};

static struct item items[MANY];

static struct item *item_of(struct hash_link *l)
{
    return (struct item *)(void *)l;
}

static void test_what_was_added_is_found_until_it_is_removed(void **state)
{
    (void)state;
    struct hash h = {0};
    assert_null(hash_find(&h, 7));
    for (unsigned i = 0; i < MANY; i++)
        hash_add(&h, &items[i].link, i);
    assert_int_equal(h.count, MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_ptr_equal(hash_find(&h, i), &items[i].link);
    assert_null(hash_find(&h, MANY));
    for (unsigned i = 0; i < MANY; i += 2)
        hash_remove(&h, &items[i].link);
    hash_remove(&h, &items[0].link); /* in no table */
    assert_int_equal(h.count, MANY / 2);
    for (unsigned i = 0; i < MANY; i++)
        assert_ptr_equal(hash_find(&h, i), i % 2 ? &items[i].link : NULL);
    for (unsigned i = 1; i < MANY; i += 2)
        hash_remove(&h, &items[i].link);
    assert_int_equal(h.count, 0);
    hash_free(&h);
}

static void test_those_of_one_key_come_newest_first_also_after_growing(void **state)
{
    (void)state;
    struct hash h = {0};
    for (unsigned i = 0; i < MANY; i++) {
        items[i].number = i;
        hash_add(&h, &items[i].link, i % 3 ? i : 42);
    }
    unsigned expected = MANY - 1, n = 0;
    for (struct hash_link *l = hash_find(&h, 42); l; l = hash_next(l), n++) {
        while (expected % 3 && expected != 42)
            expected--;
        assert_int_equal(item_of(l)->number, expected);
        expected--;
    }
    assert_int_equal(n, (MANY + 2) / 3);
    for (unsigned i = 0; i < MANY; i++)
        hash_remove(&h, &items[i].link);
    hash_free(&h);
}

/* A table that grows has some entries in its new half and some not: at each moment all of them are found, and go. */
static void test_nothing_is_lost_while_a_table_grows(void **state)
{
    (void)state;
    struct hash h = {0};
    for (unsigned i = 0; i < 5000; i++) {
        hash_add(&h, &items[i].link, i);
        for (unsigned k = i; k; k /= 2)
            assert_ptr_equal(hash_find(&h, k), k % 5 == 3 && k + 2 <= i ? NULL : &items[k].link);
        if (i % 5 == 0 && i)
            hash_remove(&h, &items[i - 2].link);
    }
    assert_int_equal(h.count, 5000 - 999);
    for (unsigned i = 0; i < 5000; i++)
        hash_remove(&h, &items[i].link);
    assert_int_equal(h.count, 0);
    hash_free(&h);
}

/* Nor does one addition move all of them. */
static void test_a_table_grows_step_by_step(void **state)
{
    (void)state;
    struct hash h = {0};
    for (unsigned i = 0; i < MANY; i++) {
        size_t before = h.old ? h.moved : 0;
        const struct hash_link *const *old = (const struct hash_link *const *)h.old;
        hash_add(&h, &items[i].link, i);
        if (old && h.old)
            assert_in_range(h.moved, before + 1, before + 4);
        if (i > 16 && i == (1u << h.bits) / 2) /* it has just begun to */
            assert_true(h.old && h.moved == 0);
    }
    for (unsigned i = 0; i < MANY; i++)
        hash_remove(&h, &items[i].link);
    hash_free(&h);
}

/* Keys that count up, pointers, and random ones: no chain is long. */
static void test_keys_that_count_up_are_spread(void **state)
{
    (void)state;
    static const uint64_t strides[] = {1, 64, 4096, UINT64_C(1) << 32, UINT64_C(1) << 52};
    for (unsigned s = 0; s < sizeof strides / sizeof *strides; s++) {
        struct hash h = {0};
        unsigned longest = 0;
        for (unsigned i = 0; i < 4096; i++)
            hash_add(&h, &items[i].link, i * strides[s]);
        for (size_t slot = 0; slot < (size_t)1 << h.bits; slot++) {
            unsigned n = 0;
            for (const struct hash_link *l = h.slots[slot]; l; l = l->next)
                n++;
            longest = n > longest ? n : longest;
        }
        assert_true(longest <= 8);
        for (unsigned i = 0; i < 4096; i++)
            hash_remove(&h, &items[i].link);
        hash_free(&h);
    }
}

/* The reference implementation's vectors: key 00..0f, messages of 0 and of 15 bytes 00..0e. */
static void test_siphash_known_answers(void **state)
{
    (void)state;
    uint8_t key[SIPHASH_KEY], message[15];
    for (unsigned i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i;
    memcpy(message, key, sizeof message);
    assert_true(siphash(key, span_of(NULL, 0)) == UINT64_C(0x310e0edd47db6f72));
    assert_true(siphash(key, span_of(message, sizeof message)) == UINT64_C(0xe545be4961ca29a1));
    key[0] ^= 1;
    assert_true(siphash(key, span_of(message, sizeof message)) != UINT64_C(0xe545be4961ca29a1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_added_is_found_until_it_is_removed),
        cmocka_unit_test(test_those_of_one_key_come_newest_first_also_after_growing),
        cmocka_unit_test(test_nothing_is_lost_while_a_table_grows),
        cmocka_unit_test(test_a_table_grows_step_by_step),
        cmocka_unit_test(test_keys_that_count_up_are_spread),
        cmocka_unit_test(test_siphash_known_answers),
    };
    return crypto_init() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
