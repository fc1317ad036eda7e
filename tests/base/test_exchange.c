/* The exchange: pieces, their release, what a lying peer may not do, and another process. */
#include "base/exchange.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

START_TEST(take_and_release)
{
    trm_exchange *x;
    uint64_t a, b, c, d;
    char *pa, *pb, *pc;

    ck_assert_int_eq(trm_exchange_create(300 * KIB, &x), TRM_OK);
    ck_assert_uint_eq(trm_exchange_bytes(x), 300 * KIB);
    pa = trm_exchange_take(x, 100 * KIB, &a);
    pb = trm_exchange_take(x, 100 * KIB - 1, &b);
    pc = trm_exchange_take(x, 100 * KIB, &c);
    ck_assert(pa != NULL && pb != NULL && pc != NULL);
    ck_assert(b >= a + 100 * KIB && c >= b + 100 * KIB - 1);
    ck_assert_uint_eq((uintptr_t)pa % TRM_ALIGN + (uintptr_t)pb % TRM_ALIGN +
                          (uintptr_t)pc % TRM_ALIGN + a % TRM_ALIGN + b % TRM_ALIGN + c % TRM_ALIGN,
                      0);
    memset(pa, 1, 100 * KIB);
    memset(pb, 2, 100 * KIB - 1);
    memset(pc, 3, 100 * KIB);
    ck_assert(pa[100 * KIB - 1] == 1 && pb[0] == 2 && pb[100 * KIB - 2] == 2 && pc[0] == 3);
    ck_assert_uint_eq(trm_exchange_used(x), 300 * KIB - 1);
    ck_assert_ptr_null(trm_exchange_take(x, 1, &d)); /* full */
    ck_assert_int_eq(trm_exchange_release(x, b, 100 * KIB - 1), TRM_OK);
    ck_assert_ptr_null(trm_exchange_take(x, 101 * KIB, &d));
    ck_assert_ptr_eq(trm_exchange_take(x, 60 * KIB, &d), pb); /* the gap is used again */
    ck_assert_uint_eq(d, b);
    ck_assert_ptr_nonnull(trm_exchange_take(x, 39 * KIB, &d));
    ck_assert_int_eq(trm_exchange_release(x, a, 100 * KIB), TRM_OK);
    ck_assert_int_eq(trm_exchange_release(x, b, 60 * KIB), TRM_OK);
    ck_assert_int_eq(trm_exchange_release(x, d, 39 * KIB), TRM_OK);
    ck_assert_int_eq(trm_exchange_release(x, c, 100 * KIB), TRM_OK);
    ck_assert_uint_eq(trm_exchange_used(x), 0);
    ck_assert_ptr_nonnull(trm_exchange_take(x, 300 * KIB, &d)); /* whole again */
    ck_assert_ptr_null(trm_exchange_take(x, 0, &d));
    ck_assert_ptr_null(trm_exchange_take(x, SIZE_MAX, &d));
    trm_exchange_destroy(x);
    trm_exchange_destroy(NULL);
}
END_TEST

static const struct {
    const char *name;
    uint64_t offset, bytes;
} lies[] = {
    {"no piece there", 64, 100},
    {"shorter", 0, 99},
    {"longer", 0, 101},
    {"behind the end", 1u << 20, 100},
    {"far", UINT64_MAX, UINT64_MAX},
    {"free space", 192, 64},
};

START_TEST(release_of_what_is_no_piece)
{
    trm_exchange *x;
    uint64_t a;

    ck_assert_int_eq(trm_exchange_create(MIB, &x), TRM_OK);
    ck_assert_ptr_nonnull(trm_exchange_take(x, 100, &a));
    ck_assert_uint_eq(a, 0);
    ck_assert_msg(trm_exchange_release(x, lies[_i].offset, lies[_i].bytes) == TRM_ERR_INVALID_ARG,
                  "%s", lies[_i].name);
    ck_assert_uint_eq(trm_exchange_used(x), 100);
    ck_assert_int_eq(trm_exchange_release(x, 0, 100), TRM_OK);
    ck_assert_int_eq(trm_exchange_release(x, 0, 100), TRM_ERR_INVALID_ARG); /* twice */
    trm_exchange_destroy(x);
}
END_TEST

/* against a map of bytes: pieces never overlap, and every byte that is free can be had again */
START_TEST(random_use)
{
    enum { UNIT = 64, UNITS = 512, HELD = 64 };
    static unsigned char owner[UNITS];
    struct {
        uint64_t offset;
        size_t bytes;
    } held[HELD] = {{0, 0}};
    trm_exchange *x;
    uint64_t state = 12345;

    ck_assert_int_eq(trm_exchange_create((size_t)UNIT * UNITS, &x), TRM_OK);
    for (int step = 0; step < 20000; step++) {
        size_t k, bytes;

        state = state * 6364136223846793005u + 1442695040888963407u;
        k = (size_t)(state >> 33) % HELD;
        bytes = 1 + (size_t)(state >> 40) % 1500;
        if (held[k].bytes > 0) {
            ck_assert_int_eq(trm_exchange_release(x, held[k].offset, held[k].bytes), TRM_OK);
            for (size_t u = 0; u * UNIT < held[k].bytes; u++)
                owner[held[k].offset / UNIT + u] = 0;
            held[k].bytes = 0;
        } else if (trm_exchange_take(x, bytes, &held[k].offset) != NULL) {
            held[k].bytes = bytes;
            ck_assert_uint_le(held[k].offset + bytes, (size_t)UNIT * UNITS);
            for (size_t u = 0; u * UNIT < bytes; u++) {
                ck_assert_uint_eq(owner[held[k].offset / UNIT + u], 0);
                owner[held[k].offset / UNIT + u] = 1;
            }
        }
    }
    for (int k = 0; k < HELD; k++)
        if (held[k].bytes > 0)
            ck_assert_int_eq(trm_exchange_release(x, held[k].offset, held[k].bytes), TRM_OK);
    ck_assert_uint_eq(trm_exchange_used(x), 0);
    trm_exchange_destroy(x);
}
END_TEST

static size_t resident_pages(void *at, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = bytes / page, in = 0;
    unsigned char *map = calloc(n, 1);

    ck_assert_ptr_nonnull(map);
    at = (void *)(((uintptr_t)at + page - 1) / page * page);
    ck_assert_int_eq(mincore(at, (n - 1) * page, map), 0);
    for (size_t i = 0; i + 1 < n; i++)
        in += map[i] & 1;
    free(map);
    return in;
}

START_TEST(large_pieces_give_memory_back)
{
    trm_exchange *x;
    uint64_t large, next;
    char *p, *q;

    ck_assert_int_eq(trm_exchange_create(64 * MIB, &x), TRM_OK);
    p = trm_exchange_take(x, 8 * MIB + 100, &large);
    q = trm_exchange_take(x, 64 * KIB, &next);
    ck_assert(p != NULL && q != NULL);
    memset(p, 1, 8 * MIB + 100);
    memset(q, 2, 64 * KIB);
    ck_assert_uint_gt(resident_pages(p, 8 * MIB), 2000);
    ck_assert_int_eq(trm_exchange_release(x, large, 8 * MIB + 100), TRM_OK);
    ck_assert_uint_eq(resident_pages(p, 8 * MIB), 0);
    for (size_t i = 0; i < 64 * KIB; i++) /* the neighbour on its last page is whole */
        ck_assert_int_eq(q[i], 2);
    trm_exchange_destroy(x);
}
END_TEST

START_TEST(view_of_another_process)
{
    trm_exchange *x;
    uint64_t at;
    char *p;
    pid_t child;
    int status = 0;

    ck_assert_int_eq(trm_exchange_create(MIB, &x), TRM_OK);
    p = trm_exchange_take(x, 100 * KIB, &at);
    ck_assert_ptr_nonnull(p);
    memset(p, 7, 100 * KIB);
    child = fork();
    if (child == 0) {
        trm_exchange_view *v;
        const char *seen;
        int bad = 0;

        if (trm_exchange_attach(trm_exchange_name(x), trm_exchange_bytes(x), &v) != TRM_OK)
            _exit(9);
        seen = trm_exchange_at(v, at, 100 * KIB);
        bad |= seen == NULL || seen == p || seen[0] != 7 || seen[100 * KIB - 1] != 7;
        bad |= trm_exchange_at(v, 0, MIB) == NULL || trm_exchange_at(v, MIB, 0) == NULL;
        bad |= trm_exchange_at(v, 1, MIB) != NULL || trm_exchange_at(v, MIB + 1, 0) != NULL;
        bad |= trm_exchange_at(v, UINT64_MAX, 2) != NULL || trm_exchange_at(v, 2, UINT64_MAX);
        trm_exchange_detach(v);
        trm_exchange_detach(NULL);
        _exit(bad);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    trm_exchange_destroy(x);
}
END_TEST

static const struct {
    const char *name;
    trm_status want;
} names[] = {
    {"", TRM_ERR_INVALID_ARG},
    {"/etc/passwd", TRM_ERR_INVALID_ARG},
    {"/proc/self/mem:0123456789abcdef", TRM_ERR_INVALID_ARG},
    {"/proc/1/../../dev/zero:0123456789abcdef", TRM_ERR_INVALID_ARG},
    {"/proc/1/fd/2", TRM_ERR_INVALID_ARG},
    {"/proc/1/fd/2:", TRM_ERR_INVALID_ARG},
    {"/proc/1/fd/2:0123456789abcde", TRM_ERR_INVALID_ARG},
    {"/proc/1/fd/2:0123456789abcdef0", TRM_ERR_INVALID_ARG},
    {"/proc/1/fd/2:0123456789abcdeg", TRM_ERR_INVALID_ARG},
    {"/proc/11111111111111111111111111111111111111111111111111111111111111/fd/1:0123456789abcdef",
     TRM_ERR_INVALID_ARG},
    {"/proc/999999999/fd/3:0123456789abcdef", TRM_ERR_NOT_FOUND},
};

START_TEST(bad_names)
{
    trm_exchange_view *v = NULL;
    trm_status st = trm_exchange_attach(names[_i].name, MIB, &v);

    ck_assert_msg(st == names[_i].want, "%s: %s: %s", names[_i].name, trm_status_name(st),
                  trm_message());
    ck_assert_ptr_null(v);
}
END_TEST

/* the same path with another token, or of another size: what another host may have */
START_TEST(another_segment)
{
    trm_exchange *x;
    trm_exchange_view *v = NULL;
    char name[128];

    ck_assert_int_eq(trm_exchange_create(MIB, &x), TRM_OK);
    snprintf(name, sizeof(name), "%s", trm_exchange_name(x));
    ck_assert_int_eq(trm_exchange_attach(name, MIB + 1, &v), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_exchange_attach(name, 0, &v), TRM_ERR_INVALID_ARG);
    name[strlen(name) - 1] = name[strlen(name) - 1] == '0' ? '1' : '0';
    ck_assert_int_eq(trm_exchange_attach(name, MIB, &v), TRM_ERR_NOT_FOUND);
    trm_exchange_destroy(x);
    ck_assert_int_eq(trm_exchange_create(0, &x), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_exchange_create(SIZE_MAX, &x), TRM_ERR_INVALID_ARG);
}
END_TEST

START_TEST(no_memory)
{
    trm_exchange *x = NULL;
    uint64_t at;

    for (int k = 0; x == NULL; k++) {
        trm_alloc_fail_after(k);
        ck_assert(trm_exchange_create(MIB, &x) == TRM_OK || x == NULL);
    }
    trm_alloc_fail_after(0);
    ck_assert_ptr_null(trm_exchange_take(x, 100, &at));
    trm_alloc_fail_after(-1);
    ck_assert_ptr_nonnull(trm_exchange_take(x, 100, &at));
    trm_exchange_destroy(x);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exchange");
    TCase *tc = tcase_create("exchange");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, take_and_release);
    tcase_add_loop_test(tc, release_of_what_is_no_piece, 0, (int)(sizeof(lies) / sizeof(lies[0])));
    tcase_add_test(tc, random_use);
    tcase_add_test(tc, large_pieces_give_memory_back);
    tcase_add_test(tc, view_of_another_process);
    tcase_add_loop_test(tc, bad_names, 0, (int)(sizeof(names) / sizeof(names[0])));
    tcase_add_test(tc, another_segment);
    tcase_add_test(tc, no_memory);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
