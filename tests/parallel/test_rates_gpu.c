/* Rates of accelerators: which card a name means, and laws that hold for every card. No test looks
 * at a time. */
#include "base/file.h"
#include "tests/parallel/rates_kit.h"

#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/trireme-rates-XXXXXX";

static const struct {
    const char *device, *card;
    double gib;
} cards[] = {
    {"cuda:40GiB", "A100 40 GB", 40},
    {"cuda:48GiB", "L40S 48 GB", 48},
    {"cuda:80GiB", "H100 SXM 80 GB", 80},
    {"cuda:80", "H100 SXM 80 GB", 80},
    {"cuda:141GiB", "H200 141 GB", 141},
    {"cuda:180GiB", "B200 180 GB", 180},
    {"cuda:192GiB", "B200 180 GB", 192},
    {"cuda:24GiB", "A100 40 GB", 24},
    {"cuda:64GiB", "L40S 48 GB", 64},
    {"cuda:96GiB", "H100 SXM 80 GB", 96},
    {"cuda:1000GiB", "B200 180 GB", 1000},
    {"cuda:a100-40", "A100 40 GB", 39.6},
    {"cuda:a100-80", "A100 80 GB", 79.2},
    {"cuda:h100", "H100 SXM 80 GB", 79.2},
    {"cuda:H100-PCIe", "H100 PCIe 80 GB", 79.2},
    {"cuda:h200", "H200 141 GB", 139.6},
    {"cuda:l40s", "L40S 48 GB", 45},
    {"cuda:b200", "B200 180 GB", 178.2},
};

START_TEST(cards_by_memory_and_name)
{
    size_t usable;
    trm_rates *r;
    char want[100];

    OK(trm_rates_describe(cards[_i].device, &r));
    snprintf(want, sizeof(want), "data sheet (%s: %s)", cards[_i].device, cards[_i].card);
    ck_assert_str_eq(trm_rates_source(r), want);
    ck_assert(trm_rates_is_gpu(r));
    ck_assert_double_eq_tol((double)trm_rates_memory_bytes(r) / 1073741824.0, cards[_i].gib, 1e-6);
    usable = trm_rates_usable_bytes(r, trm_rates_memory_bytes(r));
    ck_assert_uint_eq(trm_rates_memory_bytes(r) - usable, (size_t)600 << 20);
    ck_assert_uint_eq(trm_rates_usable_bytes(r, 1000), 900); /* a tenth of little */
    trm_rates_destroy(r);
}
END_TEST

static const struct {
    const char *driver, *card;
    double gib;
    bool exact;
} drivers[] = {
    {"NVIDIA H100 80GB HBM3 (cuda:0, sm_90)", "h100", 79.6, true},
    {"NVIDIA H100 PCIe", "h100-pcie", 79.6, true},
    {"NVIDIA H200", "h200", 140.4, true},
    {"NVIDIA A100-SXM4-40GB", "a100-40", 39.4, true},
    {"NVIDIA A100-SXM4-80GB", "a100-80", 79.2, true},
    {"NVIDIA A100 80GB PCIe", "a100-80", 79.2, true},
    {"NVIDIA L40S", "l40s", 44.5, true},
    {"NVIDIA B200", "b200", 179, true},
    {"NVIDIA GeForce RTX 4090", "a100-40", 24, false},
    {"Emulated GPU", "a100-40", 8, false},
};

START_TEST(cards_by_driver)
{
    bool exact;
    const trmi_card *card = trmi_card_of_device(drivers[_i].driver, drivers[_i].gib, &exact);

    ck_assert_str_eq(card->name, drivers[_i].card);
    ck_assert_int_eq(exact, drivers[_i].exact);
}
END_TEST

/* Laws that hold for every card: more work is not faster, 16 bits are no slower, the links count.
 */
START_TEST(accelerators)
{
    const trmi_card *card = trmi_card_get(_i);
    trm_cost_context c = {.threads = 1, .busy_ranks = 1, .dtype = TRM_DTYPE_F32};
    struct made view = unary(TRM_OP_Reshape, 1024, 1024), soft = unary(TRM_OP_Softmax, 1024, 1024);
    struct made odd = unary(TRM_OP_Unique, 1024, 1024);
    char device[40];
    trm_rates *r;

    snprintf(device, sizeof(device), "cuda:%s", card->name);
    OK(trm_rates_describe(device, &r));
    c.rates = r;
    for (int64_t n = 16; n <= 8192; n *= 2) {
        struct made small = matmul(n, n, n), large = matmul(4 * n, n, n);
        double f32 = us(r, 1, 1, small), half;

        ck_assert_double_ge(f32, 2); /* no kernel is shorter */
        ck_assert_double_ge(us(r, 1, 1, large), f32);
        ck_assert_double_ge(us(r, 1, 1, matmul(n, n, 2 * n)), f32);
        c.dtype = TRM_DTYPE_BF16;
        half = trm_cost_node_us(&c, &small.node, small.in, small.out, false);
        ck_assert_double_le(half, f32);
        c.dtype = TRM_DTYPE_F16;
        ck_assert_double_eq(trm_cost_node_us(&c, &small.node, small.in, small.out, false), half);
        /* never beyond the peak, nor the memory's bandwidth */
        ck_assert_double_gt(half, 2.0 * (double)(n * n * n) / (card->half * 1e6));
        ck_assert_double_gt(f32, 12.0 * (double)(n * n) / (card->memory_gb_s * 1e3));
        ck_assert_double_ge(us(r, 1, 1, unary(TRM_OP_Gelu, 2 * n, 512)),
                            us(r, 1, 1, unary(TRM_OP_Gelu, n, 512)));
    }
    for (int64_t k = 16; k < 1024; k *= 2) {
        ck_assert_double_ge(us(r, 1, 1, conv(8, k, k, 14, 3, 1)),
                            us(r, 1, 1, conv(1, k, k, 14, 3, 1)));
        /* depthwise: by bytes, but no better at that */
        ck_assert_double_ge(1.7 * us(r, 1, 1, conv(32, k, k, 56, 3, 1)),
                            us(r, 1, 1, conv(32, k, k, 56, 3, k)));
    }
    ck_assert_double_eq(us(r, 1, 1, view), 0);
    ck_assert_double_ge(trm_cost_node_us(&c, &soft.node, soft.in, soft.out, false),
                        us(r, 1, 1, soft));                   /* between two Casts */
    ck_assert_double_gt(us(r, 1, 1, odd), us(r, 1, 1, soft)); /* the host's */
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        for (size_t bytes = 1024; bytes <= (size_t)64 << 20; bytes *= 2) {
            double linked, all = trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, ranks, bytes);

            ck_assert_double_ge(
                trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, ranks, 2 * bytes), all);
            for (int kind = 0; kind < TRM_COLLECTIVE_SHARD; kind++) {
                trm_collective k = (trm_collective)kind;

                linked = trm_cost_collective_us(&c, k, ranks, bytes);
                c.staged = true;
                ck_assert_double_gt(trm_cost_collective_us(&c, k, ranks, bytes), linked * 0.9);
                c.staged = false;
                ck_assert_double_eq(trm_cost_collective_us(&c, k, 1, bytes), 0);
            }
        }
    }
    ck_assert_double_ge(trm_cost_collective_us(&c, TRM_COLLECTIVE_MESSAGE, 2, 1 << 20),
                        20 + 2 * 41);
    trm_rates_destroy(r);
}
END_TEST

/* Published: 6.5 us for a small sum of eight cards, 20 us with a ring; large ones by the link. */
START_TEST(sums_over_nvlink)
{
    trm_cost_context c = {.threads = 1, .busy_ranks = 1};
    trm_rates *r;

    OK(trm_rates_describe("cuda:h200", &r));
    c.rates = r;
    ck_assert_double_eq_tol(trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, 8, 8192), 6.7,
                            0.2);
    ck_assert_double_eq_tol(trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, 8, 300000), 21.5,
                            1);
    ck_assert_double_eq_tol(
        trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, 8, (size_t)1 << 30), 5600, 300);
    trm_rates_destroy(r);
}
END_TEST

START_TEST(a_probe_is_cached)
{
    trm_rates *a, *b;
    char *path, *text;
    size_t bytes;

    OK(trm_rates_describe("cuda:h200", &a));
    OK(trm_rates_describe("cuda:h200", &b));
    snprintf(a->machine, sizeof(a->machine), "Some GPU, 1000 MiB");
    memcpy(b->machine, a->machine, sizeof(a->machine));
    a->gpu.dense[1] = 0.625;
    a->gpu.conv[0] = 0.125;
    a->gpu.gb_s = 1234.5;
    a->gpu.gap_us = 2.25;
    a->probes = 1;
    path = trmi_rates_cache_path(a->machine);
    OK(trmi_rates_store(path, a));
    OK(trmi_rates_load(path, b));
    ck_assert_double_eq(b->gpu.dense[1], 0.625);
    ck_assert_double_eq(b->gpu.conv[0], 0.125);
    ck_assert_double_eq(b->gpu.gb_s, 1234.5);
    ck_assert_double_eq(b->gpu.gap_us, 2.25);
    text = slurp(path, &bytes);
    for (size_t cut = 0; cut + 1 < bytes; cut += 5) {
        spill(path, text, cut);
        ck_assert_int_eq(trmi_rates_load(path, b), TRM_ERR_BAD_FILE);
    }
    free(text);
    trm_rates_destroy(b);
    OK(trmi_rates_builtin(&b)); /* a CPU takes none of it */
    memcpy(b->machine, a->machine, sizeof(a->machine));
    a->gpu.gap_us = 0;
    OK(trmi_rates_store(path, a));
    ck_assert_int_eq(trmi_rates_load(path, b), TRM_ERR_BAD_FILE);
    trm_free(path);
    trm_rates_destroy(a);
    trm_rates_destroy(b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parallel/rates, accelerators");
    TCase *t = tcase_create("all");
    SRunner *runner;
    int failed;

    if (mkdtemp(folder) == NULL)
        return EXIT_FAILURE;
    setenv("TRM_CACHE", folder, 1);
    tcase_add_loop_test(t, cards_by_memory_and_name, 0, (int)(sizeof(cards) / sizeof(cards[0])));
    tcase_add_loop_test(t, cards_by_driver, 0, (int)(sizeof(drivers) / sizeof(drivers[0])));
    tcase_add_loop_test(t, accelerators, 0, trmi_card_count());
    tcase_add_test(t, sums_over_nvlink);
    tcase_add_test(t, a_probe_is_cached);
    suite_add_tcase(suite, t);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    rmdir(folder);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
