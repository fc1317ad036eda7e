/* What the planner says each rank will hold, beside what it holds once it has run a step: real
 * ranks (forked) run a plan's layout, and also give the answer of one rank.
 *
 * usage: test_plan_memory [MODEL TENSOR PIPELINE [MEMORY_BYTES [PERCENT]]]: the same for a model of
 * yours, with the figures; no rank may hold more than PERCENT of the model's weights. */
#include "model/package.h"
#include "parallel/lower.h"
#include "parallel/planner.h"
#include "parallel/shapes.h"
#include "tests/worker/ranks_kit.h"
#include "worker/replica.h"

#define FLOATS (1 << 20)

struct job {
    const char *path; /* NULL: the network below */
    int tensor, pipeline;
    size_t memory;
    double slack; /* of private weights, beyond 16 KiB */
    double share; /* of the model's weights, at most; 0: no limit */
    bool print;
};

/* ---- a network of ordinary sizes; its weights lie in a "file" ---- */

static float *numbers;
static trm_file *file;
static size_t used;

static int weight(trm_graph *g, const char *name, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = rank};
    size_t elems;
    int v;

    memcpy(t.dims, dims, (size_t)rank * sizeof(*dims));
    ck_assert_int_eq(trm_tensor_elems(&t, &elems), TRM_OK);
    ck_assert_uint_le(used + elems, FLOATS);
    ck_assert_int_eq(trm_graph_add_weight(g, name, &t, file, used * sizeof(float), &v), TRM_OK);
    used += elems;
    return v;
}

static int convolve(trm_graph *g, int x, int64_t from, int64_t to, int64_t kernel, const char *name)
{
    static const int64_t pads[] = {1, 1, 1, 1};
    char text[3][32];
    int in[3], y;

    for (int i = 0; i < 3; i++)
        snprintf(text[i], sizeof(text[i]), "%s%c", name, "wby"[i]);
    in[0] = x;
    in[1] = weight(g, text[0], 4, (const int64_t[]){to, from, kernel, kernel});
    in[2] = weight(g, text[1], 1, &to);
    y = node(g, TRM_OP_Conv, in, 3, text[2]);
    if (kernel == 3)
        ck_assert_int_eq(
            trm_attr_set_ints(&g->nodes[g->node_count - 1].attrs, g->arena, "pads", pads, 4),
            TRM_OK);
    return node(g, TRM_OP_Relu, &y, 1, name);
}

static int dense(trm_graph *g, int x, int64_t from, int64_t to, const char *name)
{
    char text[3][32];
    int in[2], sum[2];

    for (int i = 0; i < 3; i++)
        snprintf(text[i], sizeof(text[i]), "%s%c", name, "wby"[i]);
    in[0] = x;
    in[1] = weight(g, text[0], 2, (const int64_t[]){from, to});
    sum[0] = node(g, TRM_OP_MatMul, in, 2, text[2]);
    sum[1] = weight(g, text[1], 1, &to);
    return node(g, TRM_OP_Add, sum, 2, name);
}

static trm_graph *ordinary(void)
{
    trm_graph *g;
    int x, y;

    numbers = malloc(FLOATS * sizeof(float));
    for (size_t i = 0; i < FLOATS; i++)
        numbers[i] = sample(i) * 0.1f;
    ck_assert_int_eq(trm_file_from_memory(numbers, FLOATS * sizeof(float), "numbers", &file),
                     TRM_OK);
    ck_assert_int_eq(trm_graph_create(NULL, "ordinary", &g), TRM_OK);
    x = input(g, "x", TRM_DTYPE_F32, 4, (const int64_t[]){1, 3, 16, 16});
    y = convolve(g, x, 3, 64, 3, "c0");
    y = convolve(g, y, 64, 96, 3, "c1");
    y = convolve(g, y, 96, 192, 1, "c2");
    y = convolve(g, y, 192, 96, 3, "c3");
    y = node(g, TRM_OP_GlobalAveragePool, &y, 1, "pool");
    y = node(g, TRM_OP_Flatten, &y, 1, "flat");
    y = dense(g, y, 96, 768, "d0");
    y = node(g, TRM_OP_Relu, &y, 1, "d0r");
    y = dense(g, y, 768, 384, "d1");
    ck_assert_int_eq(trm_graph_set_inputs(g, &x, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(g, &y, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    return g;
}

/* ---- one rank ---- */

static void fill(const trm_graph *g, trm_tensor *in)
{
    trm_shapes_inputs(g, 1, 32, in);
    for (int i = 0; i < g->input_count; i++) {
        size_t n = trm_tensor_numel(&in[i]);

        in[i].data = calloc(n + 1, 8);
        for (size_t k = 0; k < n; k++)
            trm_tensor_set_f64(&in[i], k,
                               trm_dtype_is_float(in[i].dtype) ? (double)sample(k + 7)
                                                               : (double)(k % 2));
    }
}

static const char *same_as_one_rank(trm_graph *g, const trm_tensor *in, const trm_tensor *out)
{
    trm_tensor want[16];
    trm_graph *local;
    trm_engine *e;

    /* as trm_lower_cut makes it, finished: g itself stays as it is */
    WANT_OK(trm_lower_cut(g, 0, g->node_count, &local));
    WANT_OK(trm_pass_finish(local));
    WANT_OK(trm_engine_create(local, device, NULL, &e));
    WANT_OK(trm_engine_run(e, in, want));
    for (int i = 0; i < g->output_count; i++) {
        double most = 1e-30, worst = 0;

        WANT(trm_tensor_same_shape(&want[i], &out[i]));
        for (size_t k = 0; k < trm_tensor_numel(&want[i]); k++) {
            double a = trm_tensor_get_f64(&want[i], k), b = trm_tensor_get_f64(&out[i], k);

            most = fmax(most, fabs(a));
            worst = fmax(worst, fabs(a - b));
        }
        if (!(worst <= 1e-5 * most))
            return wrong("output %d is off by %g of %g", i, worst, most);
    }
    trm_engine_destroy(e);
    trm_graph_destroy(local);
    return NULL;
}

static size_t constant_bytes(const trm_graph *g)
{
    size_t bytes = 0;

    for (int v = 0; v < g->value_count; v++)
        if (trm_graph_is_constant(g, v) && trm_graph_use_count(g, v) > 0)
            bytes += g->values[v].bytes;
    return bytes;
}

static const char *compare(const struct job *job, const trm_graph *g, const trm_place *at,
                           const trm_ledger *said, const trm_replica_memory *is)
{
    double share = (double)is->weights_private / (double)constant_bytes(g);
    double weights = (double)(said->weights - said->mapped) / (double)is->weights_private;
    double activations = (double)said->activations / (double)is->activations;

    if (job->print)
        fprintf(stderr,
                "stage %d shard %d: private weights %.2f MB (%.1f %% of the model), predicted %.2f "
                "(%+.1f %%); activations %.2f MB, predicted %.2f (%+.1f %%)\n",
                at->stage, at->shard, (double)is->weights_private / 1e6, 100 * share,
                (double)(said->weights - said->mapped) / 1e6, 100 * (weights - 1),
                (double)is->activations / 1e6, (double)said->activations / 1e6,
                100 * (activations - 1));
    if (job->share > 0 && share > job->share)
        return wrong("stage %d, shard %d holds %.1f %% of the model's weights, want at most %.1f",
                     at->stage, at->shard, 100 * share, 100 * job->share);
    if (fabs(weights - 1) * (double)is->weights_private >
        fmax(job->slack * (double)is->weights_private, 16384))
        return wrong("stage %d, shard %d: %zu bytes of private weights, the plan said %zu",
                     at->stage, at->shard, is->weights_private, said->weights - said->mapped);
    if (!job->print && (activations < 0.7 || activations > 1.5))
        return wrong("stage %d, shard %d: %zu bytes of activations, the plan said %zu", at->stage,
                     at->shard, is->activations, said->activations);
    return NULL;
}

static const char *work(struct rank *r, void *ctx)
{
    const struct job *job = ctx;
    trm_plan_options o = {.parallel = {1, job->tensor, job->pipeline},
                          .ranks = r->size,
                          .threads = 1,
                          .cores = 64,
                          .dtype = TRM_DTYPE_F32,
                          .memory_bytes = job->memory};
    trm_replica_options ro = {.device = device, .replica = r->all, .stage = r->stage};
    trm_replica_memory memory;
    trm_package *package = NULL;
    trm_evaluator evaluator;
    trm_tensor in[16], out[16];
    trm_replica *replica;
    trm_rates *rates;
    trm_plan *plan;
    trm_graph *g;
    const char *text = NULL;

    if (job->path != NULL)
        WANT_OK(trm_package_open(job->path, &package));
    g = job->path != NULL ? package->graph : ordinary();
    WANT_OK(trm_evaluator_create(device, &evaluator));
    WANT_OK(trm_pass_prepare(g, &evaluator));
    WANT(g->input_count <= 16 && g->output_count <= 16);
    fill(g, in);
    WANT_OK(trm_rates_describe("cpu:64", &rates));
    o.rates = rates;
    o.inputs = in;
    WANT_OK(trm_plan_make(g, &o, &plan));
    ro.graph = g;
    ro.plan = plan;
    ro.place = trm_parallel_place(&plan->parallel, r->rank);
    WANT_OK(trm_plan_graph(plan, g, ro.place.stage, ro.place.shard, &ro.local));
    WANT_OK(trm_replica_create(&ro, &replica));
    if (r->rank == 0) {
        WANT_OK(trm_replica_run(replica, in, out));
        trm_replica_get_memory(replica, &memory); /* before one rank's weights are packed, too */
        text = same_as_one_rank(g, in, out);
        WANT_OK(trm_replica_stop(replica));
    } else {
        WANT_OK(trm_replica_follow(replica));
        trm_replica_get_memory(replica, &memory);
    }
    if (text == NULL)
        text = compare(job, g, &ro.place, &plan->ledger[r->rank], &memory);
    trm_replica_destroy(replica);
    trm_graph_destroy(ro.local);
    trm_plan_destroy(plan);
    trm_rates_destroy(rates);
    trm_evaluator_destroy(&evaluator);
    return text;
}

static void run_job(struct job *job)
{
    run_ranks((struct ranks){.size = job->tensor * job->pipeline, .tensor = job->tensor}, work,
              job);
}

static struct job asked;

START_TEST(as_asked)
{
    run_job(&asked);
}
END_TEST

START_TEST(ledger)
{
    static const int layouts[][2] = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {1, 3}, {2, 2}};
    struct job job = {.tensor = layouts[_i][0], .pipeline = layouts[_i][1], .slack = 0.05};

    run_job(&job);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("plan_memory");
    TCase *tc = tcase_create("plans");
    SRunner *runner;
    int failed;

    if (argc > 3) {
        asked = (struct job){.path = argv[1],
                             .tensor = atoi(argv[2]),
                             .pipeline = atoi(argv[3]),
                             .memory = argc > 4 ? strtoull(argv[4], NULL, 10) : 0,
                             .slack = 0.05,
                             .share = argc > 5 ? strtod(argv[5], NULL) / 100 : 0,
                             .print = true};
        tcase_add_test(tc, as_asked);
    } else {
        tcase_add_loop_test(tc, ledger, 0, 7);
    }
    tcase_set_timeout(tc, 100);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
