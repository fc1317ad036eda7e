/* Rates and the cost model: laws that hold for any machine, on built-in rates; the cache on disk;
 * and a short probe, whose samples must come out of the model again. No test looks at a time. */
#include "base/file.h"
#include "base/team.h"
#include "tests/parallel/rates_kit.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/trireme-rates-XXXXXX";

/* ---- laws ---- */

static void check_laws(const trm_rates *r)
{
    for (int64_t n = 64; n < 4096; n *= 2) {
        ck_assert_double_gt(us(r, 1, 1, matmul(2 * n, n, n)), us(r, 1, 1, matmul(n, n, n)));
        ck_assert_double_gt(us(r, 1, 1, matmul(n, 2 * n, n)), us(r, 1, 1, matmul(n, n, n)));
        ck_assert_double_gt(us(r, 1, 1, matmul(n, n, 2 * n)), us(r, 1, 1, matmul(n, n, n)));
        ck_assert_double_gt(us(r, 1, 1, unary(TRM_OP_Softmax, 2 * n, 128)),
                            us(r, 1, 1, unary(TRM_OP_Softmax, n, 128)));
        ck_assert_double_ge(us(r, 1, 2, matmul(n, n, n)), us(r, 1, 1, matmul(n, n, n)));
    }
    for (int64_t c = 16; c < 1024; c *= 2) {
        ck_assert_double_gt(us(r, 1, 1, conv(1, c, 2 * c, 14, 3, 1)),
                            us(r, 1, 1, conv(1, c, c, 14, 3, 1)));
        ck_assert_double_gt(us(r, 1, 1, conv(8, c, c, 14, 3, 1)),
                            us(r, 1, 1, conv(1, c, c, 14, 3, 1)));
        ck_assert_double_gt(us(r, 1, 1, conv(1, c, c, 56, 3, 1)),
                            us(r, 1, 1, conv(1, c, c, 14, 3, 1)));
        /* all channels of all against one of one */
        ck_assert_double_gt(us(r, 1, 1, conv(1, c, c, 56, 3, 1)),
                            us(r, 1, 1, conv(1, c, c, 56, 3, c)));
    }
    ck_assert_double_le(us(r, r->threads, 1, matmul(1024, 1024, 1024)),
                        us(r, 1, 1, matmul(1024, 1024, 1024)));
}

START_TEST(laws_builtin)
{
    trm_rates *r;

    OK(trmi_rates_builtin(&r));
    ck_assert_str_eq(trm_rates_source(r), "built in");
    ck_assert_uint_gt(trm_rates_memory_bytes(r), (size_t)1 << 24);
    r->cpus = r->threads = 4;
    check_laws(r);
    /* more ranks than CPUs: time is shared */
    ck_assert_double_gt(us(r, 1, 8, matmul(512, 512, 512)),
                        1.9 * us(r, 1, 4, matmul(512, 512, 512)));
    trm_rates_destroy(r);
}
END_TEST

/* By hand: samples at powers of two with known times must come out, and what lies between them in
 * between. */
START_TEST(interpolation)
{
    trm_rates *r;
    double at[3];

    OK(trmi_rates_builtin(&r));
    r->cpus = r->threads = 2;
    for (int i = 0; i < 3; i++) {
        struct made m = matmul(64LL << 2 * i, 256, 256);
        trmi_sample *s = &r->samples[r->sample_count++];

        ck_assert(trmi_work_of(&m.node, m.in, m.out, &s->work));
        s->us[TRMI_ALONE] = 40 / TRMI_IN_STEP * pow(4, i);
        s->us[TRMI_TEAM] = 25 / TRMI_IN_STEP * pow(4, i);
        s->us[TRMI_CROWDED] = 50 / TRMI_IN_STEP * pow(4, i);
    }
    r->dispatch_us = 0;
    for (int i = 0; i < 3; i++) {
        at[i] = us(r, 1, 1, matmul(64LL << 2 * i, 256, 256));
        ck_assert_double_eq_tol(at[i], 40 * pow(4, i), 0.05 * at[i]);
        ck_assert_double_eq_tol(us(r, 2, 1, matmul(64LL << 2 * i, 256, 256)), 25 * pow(4, i),
                                0.05 * at[i]);
        ck_assert_double_eq_tol(us(r, 1, 2, matmul(64LL << 2 * i, 256, 256)), 50 * pow(4, i),
                                0.05 * at[i]);
    }
    ck_assert_double_gt(us(r, 1, 1, matmul(128, 256, 256)), at[0]);
    ck_assert_double_lt(us(r, 1, 1, matmul(128, 256, 256)), at[1]);
    /* another class is not touched by them */
    ck_assert_double_lt(us(r, 1, 1, unary(TRM_OP_Relu, 1, 64)), 5);
    /* weights that come from far away, where the machine was measured */
    r->read_us_mb[0][0] = r->read_us_mb[0][1] = 40;
    r->read_us_mb[0][2] = r->read_us_mb[0][3] = 100;
    trm_cost_context c = {.rates = r, .threads = 1, .step_bytes = 1 << 20};
    struct made m = matmul(64, 1024, 1024); /* 4 MiB of weights */
    double near = trm_cost_node_us(&c, &m.node, m.in, m.out, false);

    c.step_bytes = (size_t)1 << 30;
    ck_assert_double_eq_tol(trm_cost_node_us(&c, &m.node, m.in, m.out, false) - near, 240, 0.1);
    trm_rates_destroy(r);
}
END_TEST

START_TEST(free_and_fused)
{
    trm_rates *r;
    struct made view = unary(TRM_OP_Reshape, 1024, 1024), add = unary(TRM_OP_Add, 1024, 1024);
    struct made relu = unary(TRM_OP_Relu, 1024, 1024), small = unary(TRM_OP_Neg, 1, 2);
    int64_t known[2] = {1, 2};

    OK(trmi_rates_builtin(&r));
    trm_cost_context c = {.rates = r, .threads = 1, .busy_ranks = 1};
    ck_assert_double_eq(us(r, 1, 1, view), 0);
    ck_assert_double_eq(us(r, 1, 1, unary(TRM_OP_TrmAllReduce, 64, 64)), 0);
    small.out[0].data = known; /* shape arithmetic */
    ck_assert_double_eq(us(r, 1, 1, small), 0);
    ck_assert_double_eq(trm_cost_node_us(&c, &relu.node, relu.in, relu.out, true), 0);
    add.node.input_count = 2;
    add.in[1] = add.in[0];
    ck_assert_double_gt(trm_cost_node_us(&c, &add.node, add.in, add.out, true), 0);
    ck_assert_double_lt(trm_cost_node_us(&c, &add.node, add.in, add.out, true), us(r, 1, 1, add));
    ck_assert_double_lt(trm_cost_step_us(&c, 10, 1), trm_cost_step_us(&c, 10, 4));
    ck_assert_double_lt(trm_cost_step_us(&c, 10, 1), trm_cost_step_us(&c, 1000, 1));
    trm_rates_destroy(r);
}
END_TEST

START_TEST(collectives)
{
    trm_rates *r;

    OK(trmi_rates_builtin(&r));
    r->cpus = 16;
    for (int kind = 0; kind <= TRM_COLLECTIVE_MESSAGE; kind++) {
        trm_cost_context host = {.rates = r, .threads = 1, .link = TRM_LINK_HOST};
        trm_cost_context net = {.rates = r, .threads = 1, .link = TRM_LINK_NETWORK};
        trm_collective k = (trm_collective)kind;

        ck_assert_double_gt(trm_cost_collective_us(&host, k, 2, 1 << 20),
                            trm_cost_collective_us(&host, k, 2, 1 << 10));
        if (k == TRM_COLLECTIVE_SHARD)
            continue;
        ck_assert_double_gt(trm_cost_collective_us(&net, k, 2, 1 << 16),
                            trm_cost_collective_us(&host, k, 2, 1 << 16));
        ck_assert_double_ge(trm_cost_collective_us(&host, k, 8, 1 << 16),
                            trm_cost_collective_us(&host, k, 4, 1 << 16));
        if (k != TRM_COLLECTIVE_MESSAGE)
            ck_assert_double_eq(trm_cost_collective_us(&host, k, 1, 1 << 16), 0);
    }
    trm_rates_destroy(r);
}
END_TEST

/* ---- what a node is ---- */

START_TEST(classes)
{
    trmi_work w;
    struct made m = matmul(8, 16, 32), c = conv(2, 16, 32, 14, 3, 1), d = conv(1, 16, 16, 7, 3, 16);
    struct made g = conv(1, 16, 32, 7, 3, 4), first = conv(1, 3, 64, 7, 3, 1);

    ck_assert(trmi_work_of(&m.node, m.in, m.out, &w));
    ck_assert_int_eq(w.kind, TRMI_DENSE);
    ck_assert_double_eq(w.flops, 2 * 8 * 16 * 32);
    ck_assert_double_eq(w.weights, 16 * 32 * 4);
    ck_assert_double_eq(w.bytes, 4 * (8 * 32 + 32 * 16 + 8 * 16));
    m.node.op = TRM_OP_Gemm; /* [k, m]' x [n, k]' */
    m.in[0] = f32(2, 32, 8, 0, 0);
    m.in[1] = f32(2, 16, 32, 0, 0);
    trm_attr both[2] = {{.name = "transA", .kind = TRM_ATTR_INT, .v = {.i = 1}},
                        {.name = "transB", .kind = TRM_ATTR_INT, .v = {.i = 1}}};
    m.node.attrs = (trm_attrs){.items = both, .count = 2};
    ck_assert(trmi_work_of(&m.node, m.in, m.out, &w));
    ck_assert_double_eq(w.feature[0], 8);
    ck_assert_double_eq(w.feature[1], 16);
    ck_assert_double_eq(w.feature[2], 32);
    m.node.op = TRM_OP_MatMul; /* batches of both */
    m.node.attrs.count = 0;
    m.in[0] = f32(3, 5, 8, 32, 0);
    m.in[1] = f32(3, 5, 32, 16, 0);
    m.out[0] = f32(3, 5, 8, 16, 0);
    ck_assert(trmi_work_of(&m.node, m.in, m.out, &w));
    ck_assert_int_eq(w.kind, TRMI_PRODUCT);
    ck_assert_double_eq(w.flops, 2 * 5 * 8 * 16 * 32);
    m.in[1] = f32(2, 32, 16, 0, 0); /* of the left only: more rows */
    ck_assert(trmi_work_of(&m.node, m.in, m.out, &w));
    ck_assert_int_eq(w.kind, TRMI_DENSE);
    ck_assert_double_eq(w.feature[0], 40);
    c = conv(2, 16, 32, 14, 3, 1);
    ck_assert(trmi_work_of(&c.node, c.in, c.out, &w));
    ck_assert_int_eq(w.kind, TRMI_CONV);
    ck_assert_double_eq(w.flops, 2.0 * 2 * 14 * 14 * 9 * 16 * 32);
    d = conv(1, 16, 16, 7, 3, 16);
    ck_assert(trmi_work_of(&d.node, d.in, d.out, &w));
    ck_assert_int_eq(w.kind, TRMI_DEPTHWISE);
    ck_assert_double_eq(w.flops, 2.0 * 49 * 9 * 16);
    g = conv(1, 16, 32, 7, 3, 4);
    ck_assert(trmi_work_of(&g.node, g.in, g.out, &w));
    ck_assert_int_eq(w.kind, TRMI_GROUPED);
    ck_assert_double_eq(w.flops, 2.0 * 49 * 9 * 4 * 32);
    first = conv(1, 3, 64, 7, 3, 1);
    ck_assert(trmi_work_of(&first.node, first.in, first.out, &w));
    ck_assert_int_eq(w.kind, TRMI_CONV_FEW);
}
END_TEST

/* Every trial of the probe is a node that is measured as what it is meant to be. */
START_TEST(trials)
{
    void *data = trm_aligned_malloc(TRMI_TRIAL_BYTES);
    bool seen[TRMI_CLASSES] = {false};
    trm_arena *arena;

    OK(trm_arena_create(0, &arena));
    ck_assert_int_le(trmi_trial_count(), TRMI_SAMPLES_MAX);
    for (int i = 0; i < trmi_trial_count(); i++) {
        trmi_trial t;
        trmi_work w;

        OK(trmi_trial_make(i, TRM_DTYPE_F32, data, arena, &t));
        ck_assert_msg(trmi_work_of(&t.node, t.in, t.out, &w), "trial %d is no work", i);
        ck_assert(trm_tensor_is_concrete(&t.out[0]));
        seen[w.kind] = true;
    }
    for (int c = 0; c < TRMI_OTHER; c++)
        ck_assert_msg(seen[c], "no trial of class %s", trmi_class_name((trmi_class)c));
    trm_arena_destroy(arena);
    trm_aligned_free(data);
}
END_TEST

/* ---- descriptions ---- */

START_TEST(described)
{
    static const char *const bad[] = {"",         "cpu",       "cpu:",      "cpu:0",     "cpu:1.5",
                                      "cpu:4x",   "cuda",      "cuda:",     "cuda:0GiB", "cuda:8GB",
                                      "cuda:nan", "tpu:80GiB", "cpu:99999", "cpu:-1"};
    trm_rates *a, *b;

    OK(trm_rates_describe("cpu:16", &a));
    ck_assert_ptr_nonnull(strstr(trm_rates_source(a), "cpu:16"));
    ck_assert_double_lt(us(a, 16, 1, matmul(2048, 2048, 2048)),
                        us(a, 1, 1, matmul(2048, 2048, 2048)) / 8);
    OK(trm_rates_describe("cuda:141GiB", &b));
    ck_assert_uint_eq(trm_rates_memory_bytes(b), (size_t)141 << 30);
    ck_assert_double_lt(us(b, 1, 1, matmul(2048, 2048, 2048)),
                        us(a, 16, 1, matmul(2048, 2048, 2048)));
    trm_rates_destroy(a);
    OK(trm_rates_describe("cuda:80GiB", &a));
    /* the same multiprocessors, faster memory */
    ck_assert_double_eq(us(b, 1, 1, matmul(2048, 2048, 2048)),
                        us(a, 1, 1, matmul(2048, 2048, 2048)));
    ck_assert_double_lt(us(b, 1, 1, unary(TRM_OP_Relu, 8192, 8192)),
                        us(a, 1, 1, unary(TRM_OP_Relu, 8192, 8192)));
    trm_cost_context c = {.rates = a, .threads = 1, .busy_ranks = 1, .dtype = TRM_DTYPE_F32};
    struct made m = matmul(2048, 2048, 2048);
    double full = trm_cost_node_us(&c, &m.node, m.in, m.out, false);

    c.dtype = TRM_DTYPE_BF16;
    ck_assert_double_lt(trm_cost_node_us(&c, &m.node, m.in, m.out, false), full / 4);
    trm_rates_destroy(a);
    trm_rates_destroy(b);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(trm_rates_describe(bad[i], &a) == TRM_ERR_INVALID_ARG, "'%s'", bad[i]);
        ck_assert_ptr_nonnull(strstr(trm_message(), "cuda:80GiB"));
        ck_assert_ptr_nonnull(strstr(trm_message(), "h100-pcie, h200, l40s"));
    }
}
END_TEST

/* ---- the cache ---- */

static void fill(trm_rates *r)
{
    snprintf(r->machine, sizeof(r->machine), "Some CPU, avx512, 2 cpus");
    snprintf(r->date, sizeof(r->date), "2026-01-02");
    r->threads = 2;
    r->bf16[0] = 0.25;
    r->link[TRM_LINK_HOST][0] = (trmi_line){1.5, 0.125};
    r->read_us_mb[1][3] = 77.5;
    for (int i = 0; i < 5; i++) {
        struct made m = matmul(16 + i, 32, 64);
        trmi_sample *s = &r->samples[r->sample_count++];

        ck_assert(trmi_work_of(&m.node, m.in, m.out, &s->work));
        for (int k = 0; k < TRMI_CASES; k++)
            s->us[k] = 1.25 * (i + 1) + k;
    }
}

START_TEST(cache_round_trip)
{
    trm_rates *a, *b;
    char *path, *text;
    size_t bytes;

    OK(trmi_rates_builtin(&a));
    fill(a);
    path = trmi_rates_cache_path(a->machine);
    ck_assert_ptr_nonnull(path);
    ck_assert_int_eq(strncmp(path, folder, strlen(folder)), 0); /* $TRM_CACHE */
    OK(trmi_rates_store(path, a));
    OK(trmi_rates_builtin(&b));
    memcpy(b->machine, a->machine, sizeof(a->machine));
    OK(trmi_rates_load(path, b));
    ck_assert_int_eq(b->sample_count, 5);
    ck_assert_int_eq(memcmp(a->samples, b->samples, 5 * sizeof(*a->samples)), 0);
    ck_assert_double_eq(b->bf16[0], 0.25);
    ck_assert_double_eq(b->link[TRM_LINK_HOST][0].beta, 0.125);
    ck_assert_double_eq(b->read_us_mb[1][3], 77.5);
    ck_assert_str_eq(b->date, "2026-01-02");
    /* another machine's */
    snprintf(b->machine, sizeof(b->machine), "Another CPU");
    ck_assert_int_eq(trmi_rates_load(path, b), TRM_ERR_BAD_FILE);
    memcpy(b->machine, a->machine, sizeof(a->machine));
    /* torn at every length, and any byte changed */
    text = slurp(path, &bytes);
    for (size_t cut = 0; cut < bytes; cut += 7) {
        spill(path, text, cut);
        b->sample_count = 3;
        ck_assert_int_eq(trmi_rates_load(path, b), TRM_ERR_BAD_FILE);
        ck_assert_int_eq(b->sample_count, 3); /* as it was */
    }
    for (size_t at = 0; at + 18 < bytes; at += 3) {
        char was = text[at];

        text[at] = (char)(was == '7' ? '8' : '7');
        spill(path, text, bytes);
        ck_assert_msg(trmi_rates_load(path, b) == TRM_ERR_BAD_FILE, "byte %zu", at);
        text[at] = was;
    }
    spill(path, text, bytes);
    OK(trmi_rates_load(path, b));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(trmi_rates_load(path, b), TRM_ERR_NOT_FOUND);
    free(text);
    trm_free(path);
    trm_rates_destroy(a);
    trm_rates_destroy(b);
}
END_TEST

/* Of two measurements the least of each. */
START_TEST(merging)
{
    trm_rates *a, *b;
    struct made extra = matmul(7, 7, 7);

    OK(trmi_rates_builtin(&a));
    OK(trmi_rates_builtin(&b));
    fill(a);
    fill(b);
    a->probes = b->probes = 1;
    a->undisturbed = 0.5;
    b->undisturbed = 0.75;
    a->samples[1].us[TRMI_TEAM] = 100;
    a->samples[2].us[TRMI_CROWDED] = 0; /* not measured */
    b->samples[3].us[TRMI_ALONE] = 100;
    ck_assert(trmi_work_of(&extra.node, extra.in, extra.out, &b->samples[5].work));
    b->samples[5].us[TRMI_ALONE] = 3;
    b->sample_count = 6;
    trmi_rates_merge(a, b);
    ck_assert_int_eq(a->sample_count, 6);
    ck_assert_int_eq(a->probes, 2);
    ck_assert_double_eq(a->undisturbed, 0.75);
    ck_assert_double_eq(a->samples[1].us[TRMI_TEAM], 1.25 * 2 + TRMI_TEAM);
    ck_assert_double_eq(a->samples[2].us[TRMI_CROWDED], 1.25 * 3 + TRMI_CROWDED);
    ck_assert_double_eq(a->samples[3].us[TRMI_ALONE], 1.25 * 4);
    ck_assert_double_eq(a->samples[5].us[TRMI_ALONE], 3);
    b->threads = 7; /* another team */
    trmi_rates_merge(a, b);
    ck_assert_int_eq(a->probes, 2);
    trm_rates_destroy(a);
    trm_rates_destroy(b);
}
END_TEST

/* A cache that cannot be written is no failure; no device, no measuring. */
START_TEST(without_a_device)
{
    int team = trm_team_size();
    trm_rates *r;

    OK(trm_rates_cpu(NULL, false, &r));
    ck_assert_str_eq(trm_rates_source(r), "built in");
    ck_assert_int_eq(trm_team_size(), team);
    trm_rates_destroy(r);
}
END_TEST

/* A probe much shorter than the real one; then its samples come out of the model. */
START_TEST(short_probe)
{
    trm_rates *r, *back;
    char *path;
    int seen = 0;

    trm_team_init(1);
    OK(trmi_rates_builtin(&r));
    OK(trmi_rates_probe(300, r));
    ck_assert_int_ge(r->sample_count, 1);
    ck_assert_int_eq(trm_team_size(), 1);
    ck_assert_double_gt(r->undisturbed, 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_double_gt(r->link[TRM_LINK_HOST][i].alpha, 0);
        ck_assert_double_gt(r->link[TRM_LINK_HOST][i].beta, 0);
    }
    for (int i = 0; i < r->sample_count; i++) {
        const trmi_sample *s = &r->samples[i];
        double got = trmi_rates_us(r, &s->work, 1, 1, TRM_DTYPE_F32);

        ck_assert_double_gt(s->us[TRMI_ALONE], 0);
        seen += got > s->us[TRMI_ALONE] / 2 && got < s->us[TRMI_ALONE] * 2;
    }
    /* neighbours in the list of trials pull a little; a model that ignored samples would not pass
     */
    ck_assert_int_ge(seen * 10, r->sample_count * 8);
    path = trmi_rates_cache_path("probe");
    snprintf(r->machine, sizeof(r->machine), "probe");
    OK(trmi_rates_store(path, r));
    OK(trmi_rates_builtin(&back));
    memcpy(back->machine, r->machine, sizeof(r->machine));
    OK(trmi_rates_load(path, back));
    ck_assert_int_eq(back->sample_count, r->sample_count);
    ck_assert_int_eq(unlink(path), 0);
    trm_free(path);
    trm_rates_destroy(back);
    trm_rates_destroy(r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("parallel/rates");
    TCase *t = tcase_create("all");
    SRunner *r;
    int failed;

    if (mkdtemp(folder) == NULL || setenv("TRM_CACHE", folder, 1) != 0)
        return EXIT_FAILURE;
    tcase_set_timeout(t, 100);
    tcase_add_test(t, laws_builtin);
    tcase_add_test(t, interpolation);
    tcase_add_test(t, free_and_fused);
    tcase_add_test(t, collectives);
    tcase_add_test(t, classes);
    tcase_add_test(t, trials);
    tcase_add_test(t, described);
    tcase_add_test(t, cache_round_trip);
    tcase_add_test(t, merging);
    tcase_add_test(t, without_a_device);
    tcase_add_test(t, short_probe);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* teams of threads do not survive a fork */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    rmdir(folder);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
