/* Planned storages that live together never overlap; the arena is not larger than their sum and not
 * smaller than needed. */
#include "base/arena_plan.h"

#include <check.h>
#include <stdlib.h>

#define COUNT 200

static uint32_t seed = 12345;

static int random_below(int n)
{
    seed = seed * 1664525u + 1013904223u;
    return (int)((seed >> 8) % (uint32_t)n);
}

START_TEST(random_lifetimes)
{
    trm_lifetime s[COUNT];
    size_t total, sum = 0, peak = 0;

    for (int i = 0; i < COUNT; i++) {
        int birth = random_below(100);

        s[i] = (trm_lifetime){.bytes = (size_t)(random_below(50) * 64),
                              .birth = birth,
                              .death = birth + random_below(20)};
        sum += s[i].bytes;
    }
    for (int t = 0; t < 120; t++) {
        size_t live = 0;

        for (int i = 0; i < COUNT; i++)
            live += s[i].birth <= t && t <= s[i].death ? s[i].bytes : 0;
        peak = live > peak ? live : peak;
    }
    total = trm_arena_plan(s, COUNT);
    ck_assert_uint_le(total, sum);
    ck_assert_uint_ge(total, peak);
    ck_assert_uint_le(total,
                      peak + peak / 2); /* greedy by size stays near the bound on such inputs */
    for (int i = 0; i < COUNT; i++) {
        ck_assert_uint_le(s[i].offset + s[i].bytes, total);
        for (int j = 0; j < i; j++)
            if (s[i].birth <= s[j].death && s[j].birth <= s[i].death)
                ck_assert(s[i].offset + s[i].bytes <= s[j].offset ||
                          s[j].offset + s[j].bytes <= s[i].offset);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("memory plan");
    TCase *t = tcase_create("plan");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, random_lifetimes, 0, 20);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
