/* The share of cores: every CPU goes to exactly one rank, cores are not divided without need. */
#include "parallel/cores.h"
#include "parallel/job.h"

#include <check.h>
#include <stdlib.h>

static const struct {
    int cpus, per_core, ranks;
} rows[] = {{2, 1, 1}, {2, 1, 2},  {8, 2, 4}, {8, 2, 3},
            {7, 1, 3}, {64, 2, 5}, {4, 2, 4}, {16, 1, 16}};

START_TEST(covers_once)
{
    int n = rows[_i].cpus, per = rows[_i].per_core, ranks = rows[_i].ranks;
    int owner[64], least = n, most = 0;

    for (int i = 0; i < n; i++)
        owner[i] = -1;
    for (int r = 0; r < ranks; r++) {
        trm_cpu cpus[64];
        int got;

        /* siblings far apart, as Linux numbers them: i and i + n/per */
        for (int i = 0; i < n; i++)
            cpus[i] = (trm_cpu){.id = i, .core = i % (n / per)};
        got = trm_cores_share(cpus, n, r, ranks);
        ck_assert_int_gt(got, 0);
        least = got < least ? got : least;
        most = got > most ? got : most;
        for (int i = 0; i < got; i++) {
            ck_assert_int_eq(owner[cpus[i].id], -1);
            owner[cpus[i].id] = r;
        }
    }
    for (int i = 0; i < n; i++) {
        ck_assert_int_ge(owner[i], 0);
        if (n / per >= ranks)
            ck_assert_int_eq(owner[i], owner[i % (n / per)]);
    }
    ck_assert_int_le(most - least, per);
}
END_TEST

START_TEST(too_few)
{
    trm_cpu cpus[2] = {{0, 0}, {1, 1}};

    ck_assert_int_eq(trm_cores_share(cpus, 2, 0, 4), 0);
    ck_assert_int_eq(trm_cores_share(cpus, 2, 2, 2), 0);
}
END_TEST

START_TEST(one_rank_without_a_launcher)
{
    trm_job job;
    int threads = 0;
    char blob[4] = "abc";

    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("PMIX_RANK");
    ck_assert_int_eq(trm_job_init(&job), TRM_OK);
    ck_assert(!job.mpi);
    ck_assert_int_eq(job.size, 1);
    ck_assert_int_eq(trm_job_bcast(&job, blob, sizeof(blob), 0, 100), TRM_OK);
    ck_assert_int_eq(trm_job_agree(&job, TRM_OK, 100), TRM_OK);
    ck_assert_int_eq(trm_job_agree(&job, trm_fail(TRM_ERR_BAD_FILE, "x"), 100), TRM_ERR_BAD_FILE);
    ck_assert_int_eq(trm_job_topology(&job)->ranks, 1);
    trm_job_take_cores(&job, true, &threads);
    ck_assert_int_ge(threads, 1);
    trm_job_end(&job, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cores");
    TCase *tc = tcase_create("cores");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, covers_once, 0, (int)(sizeof(rows) / sizeof(rows[0])));
    tcase_add_test(tc, too_few);
    tcase_add_test(tc, one_rank_without_a_launcher);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
