/* Hosts and shares from what ranks say. */
#define _GNU_SOURCE
#include "parallel/build_id.h"
#include "parallel/topology.h"

#include <check.h>
#include <string.h>
#include <unistd.h>

static trm_rank_info rank_on(const char *host, uint64_t machine, int cores)
{
    trm_rank_info r = {.pid = 7, .cores = cores, .machine = machine};

    strcpy(r.host, host);
    return r;
}

START_TEST(hosts_and_shares)
{
    /* ranks dealt round the hosts, and two machines that go by one name */
    trm_rank_info infos[6] = {rank_on("a", 1, 8), rank_on("b", 2, 4), rank_on("a", 1, 8),
                              rank_on("a", 3, 2), rank_on("b", 2, 4), rank_on("a", 1, 8)};
    static const int host[6] = {0, 1, 0, 2, 1, 0}, local[6] = {0, 0, 1, 0, 1, 2};
    static const int cores[6] = {2, 2, 2, 2, 2, 2}, local_size[6] = {3, 2, 3, 1, 2, 3};
    trm_topology *t = NULL;
    char text[64];

    ck_assert_int_eq(trm_topology_create(infos, 6, &t), TRM_OK);
    ck_assert_int_eq(t->ranks, 6);
    ck_assert_int_eq(t->hosts, 3);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(t->host_of[i], host[i]);
        ck_assert_int_eq(t->rank[i].host_index, host[i]);
        ck_assert_int_eq(t->rank[i].local_rank, local[i]);
        ck_assert_int_eq(t->rank[i].cores, cores[i]);
        ck_assert_int_eq(trm_topology_local_size(t, i), local_size[i]);
    }
    ck_assert_str_eq(trm_topology_rank_text(t, 4, text, sizeof(text)), "rank 4 (b, pid 7)");
    ck_assert_str_eq(trm_topology_rank_text(t, 9, text, sizeof(text)), "rank 9");
    ck_assert_str_eq(trm_topology_rank_text(t, 4, text, 7), "rank 4");
    trm_topology_destroy(t);
    trm_topology_destroy(NULL);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

START_TEST(more_ranks_than_cores)
{
    trm_rank_info infos[3] = {rank_on("a", 1, 2), rank_on("a", 1, 2), rank_on("a", 1, 2)};
    trm_topology *t = NULL;

    memset(infos[1].host, 'x', TRM_HOST_BYTES); /* from another rank: may be without its end */
    ck_assert_int_eq(trm_topology_create(infos, 3, &t), TRM_OK);
    ck_assert_int_eq(t->hosts, 2);
    ck_assert_uint_eq(strlen(t->rank[1].host), TRM_HOST_BYTES - 1);
    ck_assert_int_eq(t->rank[0].cores, 1);
    trm_topology_destroy(t);
}
END_TEST

START_TEST(alone)
{
    trm_topology *t = NULL;
    char host[256] = "";

    ck_assert_int_eq(gethostname(host, sizeof(host) - 1), 0);
    ck_assert_int_eq(trm_topology_single(&t), TRM_OK);
    ck_assert_int_eq(t->ranks, 1);
    ck_assert_int_eq(t->hosts, 1);
    ck_assert(strncmp(t->rank[0].host, host, TRM_HOST_BYTES - 1) == 0);
    ck_assert_int_eq(t->rank[0].pid, (int)getpid());
    ck_assert_int_ge(t->rank[0].cores, 1);
    ck_assert_int_le(t->rank[0].cores, (int)sysconf(_SC_NPROCESSORS_CONF));
    ck_assert_uint_gt(t->rank[0].memory_bytes, 1 << 20);
    ck_assert_uint_eq(t->rank[0].build, trmi_build_id());
    trm_topology_destroy(t);
    for (int64_t n = 0; n < 3; n++) {
        trm_alloc_fail_after(n);
        t = NULL;
        ck_assert_int_eq(trm_topology_single(&t), TRM_ERR_NO_MEMORY);
        ck_assert_ptr_null(t);
    }
    trm_alloc_fail_after(-1);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("topology");
    TCase *tc = tcase_create("topology");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, hosts_and_shares);
    tcase_add_test(tc, more_ranks_than_cores);
    tcase_add_test(tc, alone);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
