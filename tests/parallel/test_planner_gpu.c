/* Plans for accelerators that are not here: what is chosen on cards of a data sheet, what their
 * ranks hold, and that times are of the right order. Weights are pages of an empty file: nothing
 * reads them. */
#define _GNU_SOURCE
#include "model/package.h"
#include "model/passes/passes.h"
#include "parallel/planner.h"
#include "tests/parallel/graph_kit.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static trm_file *file;
static net m;
static trm_package *package;
static trm_graph *g;
static trm_rates *rates;
static trm_plan *plan;

static void setup(void)
{
    int fd = memfd_create("weights", MFD_CLOEXEC);
    char path[64];

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)4 << 30), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ck_assert_msg(trm_file_open(path, &file) == TRM_OK, "%s", trm_message());
    close(fd);
}

static void teardown(void)
{
    trm_plan_destroy(plan);
    trm_rates_destroy(rates);
    trm_package_close(package);
    if (m.g != NULL)
        net_close(&m);
    trm_file_unref(file);
}

static int weight(int rank, int64_t a, int64_t b)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = rank, .dims = {a, b}};
    int v;

    ck_assert_msg(trm_graph_add_weight(m.g, net_name(&m, "w"), &t, file, 0, &v) == TRM_OK, "%s",
                  trm_message());
    return v;
}

static int product(int x, int64_t from, int64_t to)
{
    int y = net_node(&m, MatMul, x, weight(2, from, to));

    return net_node(&m, Add, y, weight(1, to, 0));
}

static int heads_of(int x, int shape)
{
    int y = net_node(&m, Reshape, x, shape);

    y = net_node(&m, Transpose, y);
    net_list(&m, "perm", 0, 2, 1, 3);
    return y;
}

static int norm(int x, int64_t width)
{
    int y = net_node(&m, LayerNormalization, x, weight(1, width, 0), weight(1, width, 0));

    net_int(&m, "axis", -1);
    return y;
}

/* An encoder as BERT's: `layers` of attention and a perceptron, after [batch, length, width]. */
static void encoder(int layers, int64_t width, int64_t heads, int64_t length)
{
    const int64_t shape[4] = {0, 0, heads, width / heads};
    int x;

    m = net_open(1);
    x = net_input_of(&m, TRM_DTYPE_F32, 0, 1, DIMS(1, length, width));
    for (int i = 0; i < layers; i++) {
        int by_heads = net_ints_of(&m, 4, shape), flat = net_ints(&m, 0, 0, -1), y;
        int q = heads_of(product(x, width, width), by_heads);
        int k = heads_of(product(x, width, width), by_heads);
        int v = heads_of(product(x, width, width), by_heads);

        y = net_node(&m, TrmAttention, q, k, v);
        y = net_node(&m, Transpose, y);
        net_list(&m, "perm", 0, 2, 1, 3);
        y = net_node(&m, Reshape, y, flat);
        x = norm(net_node(&m, Add, x, product(y, width, width)), width);
        y = net_node(&m, Gelu, product(x, width, 4 * width));
        x = norm(net_node(&m, Add, x, product(y, 4 * width, width)), width);
    }
    net_outputs(&m, &x, 1);
    g = m.g;
    ck_assert_msg(trm_pass_prepare(g, NULL) == TRM_OK, "%s", trm_message());
}

static int conv(int x, int64_t ins, int64_t outs, int64_t kernel, int64_t stride)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {outs, ins, kernel, kernel}};
    int64_t pad = kernel / 2;
    int w, y;

    ck_assert_int_eq(trm_graph_add_weight(m.g, net_name(&m, "w"), &t, file, 0, &w), TRM_OK);
    y = net_node(&m, Conv, x, w, weight(1, outs, 0));
    net_list(&m, "pads", pad, pad, pad, pad);
    net_list(&m, "strides", stride, stride);
    return y;
}

/* ResNet-50, batch norms already in the weights. */
static void residual_network(int64_t batch)
{
    static const int blocks[4] = {3, 4, 6, 3};
    int64_t ins = 64;
    int x;

    m = net_open(1);
    x = net_input_of(&m, TRM_DTYPE_F32, 0, 1, DIMS(batch, 3, 224, 224));
    x = net_node(&m, Relu, conv(x, 3, 64, 7, 2));
    x = net_node(&m, MaxPool, x);
    net_list(&m, "kernel_shape", 3, 3);
    net_list(&m, "strides", 2, 2);
    net_list(&m, "pads", 1, 1, 1, 1);
    for (int stage = 0; stage < 4; stage++) {
        int64_t width = (int64_t)64 << stage;

        for (int i = 0; i < blocks[stage]; i++) {
            int64_t stride = i == 0 && stage > 0 ? 2 : 1;
            int y = net_node(&m, Relu, conv(x, ins, width, 1, 1));

            y = net_node(&m, Relu, conv(y, width, width, 3, stride));
            y = conv(y, width, 4 * width, 1, 1);
            if (i == 0)
                x = conv(x, ins, 4 * width, 1, stride);
            x = net_node(&m, Relu, net_node(&m, Add, y, x));
            ins = 4 * width;
        }
    }
    x = net_node(&m, GlobalAveragePool, x);
    x = net_node(&m, Flatten, x);
    x = product(x, 2048, 1000);
    net_outputs(&m, &x, 1);
    g = m.g;
    ck_assert_msg(trm_pass_prepare(g, NULL) == TRM_OK, "%s", trm_message());
}

static void network(const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/tests/data/networks/%s", TRM_SOURCE_DIR, name);
    ck_assert_msg(trm_package_open(path, &package) == TRM_OK, "%s", trm_message());
    g = package->graph;
    ck_assert_msg(trm_pass_prepare(g, NULL) == TRM_OK, "%s", trm_message());
}

static trm_plan_options options_for(const char *device, int ranks, trm_parallel parallel,
                                    int64_t batch, trm_dtype dtype)
{
    trm_rates_destroy(rates);
    rates = NULL;
    ck_assert_msg(trm_rates_describe(device, &rates) == TRM_OK, "%s", trm_message());
    return (trm_plan_options){.parallel = parallel,
                              .ranks = ranks,
                              .batch = batch,
                              .other_dims = 128,
                              .threads = 1,
                              .dtype = dtype,
                              .rates = rates};
}

static const trm_parallel one = {1, 1, 1}, any = {0, 0, 0};

static void make(const trm_plan_options *o)
{
    trm_plan_destroy(plan);
    plan = NULL;
    ck_assert_msg(trm_plan_make(g, o, &plan) == TRM_OK, "%s", trm_message());
}

/* ---- times ---- */

/* Between a half and twice what is aimed at on one H200 (BERT-base 0.45 ms, 18 000 a second at
 * batch 128; ResNet-50 0.40 ms, 35 000 to 45 000 a second at batch 256). */
static const struct {
    const char *name, *device;
    bool encoder;
    int64_t batch;
    trm_dtype dtype;
    double ms_least, ms_most;
} times[] = {
    {"BERT-base", "cuda:h200", true, 1, TRM_DTYPE_BF16, 0.2, 1},
    {"BERT-base, 128 records", "cuda:h200", true, 128, TRM_DTYPE_BF16, 3.6, 14},
    {"BERT-base on CUDA cores", "cuda:h200", true, 1, TRM_DTYPE_F32, 0.5, 3},
    {"BERT-base, A100", "cuda:a100-80", true, 128, TRM_DTYPE_F16, 10, 40},
    {"ResNet-50", "cuda:h200", false, 1, TRM_DTYPE_F16, 0.16, 0.8},
    {"ResNet-50, 256 images", "cuda:h200", false, 256, TRM_DTYPE_F16, 2.7, 15},
    {"ResNet-50, 256 images, A100", "cuda:a100-80", false, 256, TRM_DTYPE_F16, 7, 30},
};

START_TEST(times_are_of_the_right_order)
{
    trm_plan_options o;
    double ms;

    if (times[_i].encoder)
        encoder(12, 768, 12, 128);
    else
        residual_network(times[_i].batch);
    o = options_for(times[_i].device, 1, one, times[_i].batch, times[_i].dtype);
    make(&o);
    ms = plan->candidates[0].compute_us / 1e3;
    ck_assert_msg(ms > times[_i].ms_least && ms < times[_i].ms_most, "%s: %g ms", times[_i].name,
                  ms);
}
END_TEST

START_TEST(faster_cards_are_faster)
{
    static const char *const cards[] = {"cuda:l40s", "cuda:a100-80", "cuda:h100", "cuda:h200",
                                        "cuda:b200"};
    double before = 1e9;

    encoder(4, 1024, 16, 128);
    for (size_t i = 0; i < sizeof(cards) / sizeof(cards[0]); i++) {
        trm_plan_options o = options_for(cards[i], 1, one, 64, TRM_DTYPE_BF16);

        make(&o);
        ck_assert_msg(plan->step_us < before, "%s: %g us", cards[i], plan->step_us);
        before = plan->step_us;
    }
}
END_TEST

/* ---- layouts ---- */

static size_t most_held(void)
{
    size_t most = 0;

    for (int i = 0; i < plan->ledger_count; i++)
        if (trm_ledger_total(&plan->ledger[i]) > most)
            most = trm_ledger_total(&plan->ledger[i]);
    return most;
}

START_TEST(small_networks_are_replicated)
{
    static const char *const names[] = {"resnet50", "bert", "vit", "mobilenet_v2", "lstm_tagger"};
    trm_plan_options o;

    network(names[_i]);
    o = options_for("cuda:80GiB", 8, any, 1, TRM_DTYPE_F32);
    make(&o);
    ck_assert_int_eq(plan->parallel.data, 8);
    ck_assert_uint_le(most_held(), (size_t)200 << 20);
    for (int i = 0; i < plan->candidate_count; i++)
        ck_assert(plan->candidates[i].step_us > 0 || !plan->candidates[i].fits);
}
END_TEST

/* 32 layers of width 12288 are 232 GB in fp32: one card holds a third of them. */
static const struct {
    const char *device;
    trm_dtype dtype;
    int ranks, replica_least;
} big[] = {
    {"cuda:80GiB", TRM_DTYPE_F32, 8, 4},   {"cuda:80GiB", TRM_DTYPE_BF16, 8, 2},
    {"cuda:141GiB", TRM_DTYPE_F32, 8, 2},  {"cuda:h200", TRM_DTYPE_BF16, 4, 1},
    {"cuda:a100-40", TRM_DTYPE_F32, 8, 8},
};

START_TEST(what_does_not_fit_a_card_is_divided)
{
    trm_plan_options o;
    int replica;

    encoder(32, 12288, 96, 128);
    o = options_for(big[_i].device, big[_i].ranks, any, 1, big[_i].dtype);
    make(&o);
    replica = plan->parallel.tensor * plan->parallel.pipeline;
    ck_assert_int_ge(replica, big[_i].replica_least);
    ck_assert_uint_le(most_held(), trm_rates_usable_bytes(rates, trm_rates_memory_bytes(rates)));
    if (plan->parallel.tensor > 1)
        ck_assert_uint_ge(plan->ledger[0].communicators, (size_t)100 << 20);
    ck_assert_uint_eq(plan->ledger[0].staging, 0);
    ck_assert_uint_gt(plan->ledger[0].workspace, 0);
    ck_assert_uint_gt(plan->ledger[0].host, (size_t)16 << 20);
}
END_TEST

static const trm_candidate *candidate(int data, int tensor, int pipeline)
{
    for (int i = 0; i < plan->candidate_count; i++) {
        const trm_parallel *p = &plan->candidates[i].parallel;

        if (p->data == data && p->tensor == tensor && p->pipeline == pipeline)
            return &plan->candidates[i];
    }
    ck_abort_msg("no candidate %d x %d x %d", data, tensor, pipeline);
    return NULL;
}

START_TEST(latency_takes_the_links)
{
    trm_plan_options o;
    double linked, collectives, staged;

    encoder(8, 8192, 64, 16);
    o = options_for("cuda:h200", 4, any, 1, TRM_DTYPE_BF16);
    o.objective = TRM_OBJECTIVE_LATENCY;
    make(&o);
    ck_assert_int_eq(plan->parallel.tensor, 4);
    linked = plan->step_us;
    collectives = candidate(1, 4, 1)->collective_us;
    o.parallel = plan->parallel;
    o.staged = true;
    make(&o);
    staged = plan->step_us;
    ck_assert_double_gt(staged, linked * 1.2);
    ck_assert_uint_eq(plan->ledger[0].communicators, 0); /* no NCCL */
    o.staged = false;
    o.devices = 1; /* four ranks on one card: its time and its memory are shared */
    make(&o);
    ck_assert_double_gt(plan->step_us, staged);
    o.devices = 0;
    o = options_for("cuda:l40s", 4, o.parallel, 1, TRM_DTYPE_BF16); /* PCIe */
    make(&o);
    ck_assert_double_gt(candidate(1, 4, 1)->collective_us, 1.2 * collectives);
}
END_TEST

START_TEST(too_big_is_told)
{
    trm_plan_options o;
    bool too_big = false;

    encoder(32, 12288, 96, 128);
    o = options_for("cuda:80GiB", 1, any, 1, TRM_DTYPE_F32);
    o.too_big_out = &too_big;
    ck_assert_int_eq(trm_plan_make(g, &o, &plan), TRM_ERR_INVALID_ARG);
    ck_assert(too_big);
    ck_assert_msg(strstr(trm_message(), "the model does not fit: ") != NULL, "%s", trm_message());
    ck_assert_msg(strstr(trm_message(), "the biggest weights are 'w") != NULL, "%s", trm_message());
    ck_assert_msg(strstr(trm_message(), "would fit: tensor=") != NULL, "%s", trm_message());
    too_big = false;
    o.ranks = 3;
    o.parallel = (trm_parallel){2, 1, 1};
    ck_assert_int_eq(trm_plan_make(g, &o, &plan), TRM_ERR_INVALID_ARG);
    ck_assert(!too_big); /* something else */
}
END_TEST

/* ---- memory that others have taken ---- */

START_TEST(memory_is_explained)
{
    trm_plan_options o;
    char text[900];

    encoder(4, 2048, 16, 128);
    o = options_for("cuda:80GiB", 1, one, 1, TRM_DTYPE_F32);
    make(&o);
    trm_plan_explain_memory(plan, g, &o, 0, (size_t)600 << 20, text, sizeof(text));
    ck_assert_msg(strstr(text, "(weights 805") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "there were 629.1 MB for it") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "the biggest weights are 'w") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "would fit: tensor=") != NULL, "%s", text);
    trm_plan_explain_memory(plan, g, &o, 0, (size_t)60 << 30, text, sizeof(text)); /* enough */
    ck_assert_msg(strstr(text, "steps need more: a smaller --step-tokens") != NULL, "%s", text);
    trm_plan_explain_memory(plan, g, &o, 0, 0, text, sizeof(text)); /* not known */
    ck_assert_msg(strstr(text, "there was less") != NULL, "%s", text);
    o.rates = NULL;
    trm_plan_explain_memory(plan, g, &o, 7, 1000, text, 40); /* cut, not overrun */
    ck_assert_uint_eq(strlen(text), 39);
}
END_TEST

/* ---- beside the device ---- */

static char *printed(const trm_plan_options *o, bool json)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);

    if (json)
        trm_plan_print_json(plan, g, o, f);
    else
        ck_assert_int_eq(trm_plan_print(plan, g, o, false, f), TRM_OK);
    fclose(f);
    return text;
}

/* The host sorts for Unique, whose result goes back to the device. */
START_TEST(operators_without_a_kernel_are_counted)
{
    trm_plan_options o;
    double without = 0;
    char *text;

    for (int with = 0; with < 2; with++) {
        int x, out[2];

        m = net_open(1);
        x = product(net_input(&m, 64, 1024), 1024, 1024);
        out[0] = product(x, 1024, 1024);
        out[1] = with ? net_node(&m, Unique, x) : x;
        out[1] = net_node(&m, Neg, out[1]);
        net_outputs(&m, out, 2);
        g = m.g;
        ck_assert_msg(trm_pass_prepare(g, NULL) == TRM_OK, "%s", trm_message());
        o = options_for("cuda:80GiB", 1, one, 1, TRM_DTYPE_F32);
        make(&o);
        text = printed(&o, false);
        ck_assert_msg((strstr(text, "on the CPU: 1 nodes (Unique 1), copies 0.5 MB a step") !=
                       NULL) == (with == 1),
                      "%s", text);
        ck_assert_ptr_nonnull(strstr(text, "data sheet (cuda:80GiB: H100 SXM 80 GB)"));
        free(text);
        text = printed(&o, true);
        ck_assert_msg(strstr(text, with ? "\"on_cpu\": {\"nodes\": 1, \"operators\": "
                                          "{\"Unique\": 1}, \"copies\": 2, "
                                          "\"copied_bytes\": 524288}"
                                        : "\"on_cpu\": {\"nodes\": 0, \"operators\": {}, ") != NULL,
                      "%s", text);
        free(text);
        if (with)
            ck_assert_double_gt(plan->step_us, without + 40); /* two copies of 256 KiB */
        without = plan->step_us;
        if (!with)
            net_close(&m);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("planner, accelerators");
    TCase *tc = tcase_create("plans");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, times_are_of_the_right_order, 0,
                        (int)(sizeof(times) / sizeof(times[0])));
    tcase_add_test(tc, faster_cards_are_faster);
    tcase_add_loop_test(tc, small_networks_are_replicated, 0, 5);
    tcase_add_loop_test(tc, what_does_not_fit_a_card_is_divided, 0,
                        (int)(sizeof(big) / sizeof(big[0])));
    tcase_add_test(tc, latency_takes_the_links);
    tcase_add_test(tc, too_big_is_told);
    tcase_add_test(tc, memory_is_explained);
    tcase_add_test(tc, operators_without_a_kernel_are_counted);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
