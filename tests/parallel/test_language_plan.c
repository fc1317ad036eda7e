/* Plans of language models: what the ledger holds of weights and of the KV cache, what crosses
 * cuts, what the search chooses. Rates are a data sheet's. */
#include "tests/parallel/lm_kit.h"

#include "parallel/planner.h"
#include "parallel/rates_impl.h"

static trm_rates *rates;
static net m;
static trm_plan *plan;
static trm_tensor inputs[4];

static void setup(void)
{
    ck_assert_msg(trm_rates_describe("cpu:8", &rates) == TRM_OK, "%s", trm_message());
}

static void teardown(void)
{
    trm_plan_destroy(plan);
    plan = NULL;
    m.input_count = 0; /* they have no data */
    net_close(&m);
    trm_rates_destroy(rates);
}

static const lm_shape llama = {.name = "llama",
                               .heads = 8,
                               .kv = 4,
                               .head = 32,
                               .hidden = 256,
                               .ffn = 1024,
                               .vocabulary = 1024,
                               .layers = 4,
                               .weights = TRM_DTYPE_BF16};

static trm_plan_options options_for(int ranks, int data, int tensor, int pipeline)
{
    lm_descs(1, 1, inputs);
    return (trm_plan_options){.parallel = {data, tensor, pipeline},
                              .ranks = ranks,
                              .batch = 1,
                              .inputs = inputs,
                              .threads = 1,
                              .cores = 8,
                              .dtype = TRM_DTYPE_F32,
                              .kv_tokens = 100,
                              .kv_dtype = TRM_DTYPE_F16,
                              .rates = rates};
}

static void make(const trm_plan_options *o)
{
    trm_plan_destroy(plan);
    plan = NULL;
    ck_assert_msg(trm_plan_make(m.g, o, &plan) == TRM_OK, "%s", trm_message());
}

/* Of `layers` layers with `kv` heads: seven pages. */
static size_t cache_of(const lm_shape *s, int layers, int64_t kv)
{
    return 7 * (size_t)layers * trm_kv_page_bytes(kv, s->head, TRM_DTYPE_F16);
}

START_TEST(cache_in_the_ledger)
{
    static const struct {
        int tensor, pipeline;
        int64_t kv; /* of the last shard */
        int64_t heads, kv_heads;
    } rows[] = {{1, 1, 4, 8, 4}, {2, 1, 2, 8, 4}, {3, 1, 2, 8, 4}, {4, 1, 1, 8, 4},
                {2, 2, 2, 8, 4}, {1, 4, 4, 8, 4}, {8, 1, 1, 8, 2}}; /* all of them where query heads
                                                                       are cut */

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int ranks = rows[i].tensor * rows[i].pipeline, layers = 0;
        trm_plan_options o = options_for(ranks, 1, rows[i].tensor, rows[i].pipeline);
        lm_shape s = llama;
        size_t sum = 0, all = 0;

        s.kv = rows[i].kv_heads;
        if (m.g != NULL) {
            m.input_count = 0;
            net_close(&m);
        }
        m = lm_open(&s, 3);
        make(&o);
        for (int r = 0; r < plan->ledger_count; r++) {
            const trm_ledger *l = &plan->ledger[r];

            ck_assert_uint_eq(trm_ledger_total(l), l->weights + l->activations + l->staging +
                                                       l->communicators + l->workspace + l->kv);
            sum += r % rows[i].tensor == rows[i].tensor - 1 ? l->kv : 0;
            all += l->kv;
            ck_assert_uint_eq(l->kv % cache_of(&s, 1, 1), 0);
        }
        for (int n = 0; n < m.g->node_count; n++)
            layers += m.g->nodes[n].op == TRM_OP_TrmPagedAttention;
        ck_assert_int_eq(layers, 4);
        ck_assert_uint_eq(sum, cache_of(&s, layers, rows[i].kv));
        if (s.kv >= rows[i].tensor) /* every head on one rank */
            ck_assert_uint_eq(all, cache_of(&s, layers, s.kv));
        /* without tokens there is no cache */
        o.kv_tokens = 0;
        make(&o);
        for (int r = 0; r < plan->ledger_count; r++)
            ck_assert_uint_eq(plan->ledger[r].kv, 0);
    }
}
END_TEST

/* A limit between what a rank needs without and with its cache. */
START_TEST(cache_against_the_limit)
{
    trm_plan_options o = options_for(1, 1, 1, 1);
    trm_plan *none = NULL;
    size_t needs;

    m = lm_open(&llama, 3);
    o.kv_tokens = 16000;
    make(&o);
    needs = trm_ledger_total(&plan->ledger[0]);
    ck_assert_uint_eq(plan->candidates[plan->chosen].memory, needs);
    ck_assert_uint_gt(plan->ledger[0].kv, needs / 2);
    o.memory_bytes = needs - 1;
    ck_assert_int_eq(trm_plan_make(m.g, &o, &none), TRM_ERR_INVALID_ARG);
    /* four ranks hold a quarter of it each, in whichever way they share the model */
    o = options_for(4, 1, 0, 0);
    o.kv_tokens = 16000;
    o.memory_bytes = needs / 2;
    make(&o);
    for (int r = 0; r < plan->ledger_count; r++)
        ck_assert_uint_le(trm_ledger_total(&plan->ledger[r]), o.memory_bytes);
    o = options_for(4, 1, 1, 4);
    o.kv_tokens = 16000;
    o.memory_bytes = needs / 2;
    make(&o);
    for (int r = 0; r < plan->ledger_count; r++) {
        ck_assert_uint_le(trm_ledger_total(&plan->ledger[r]), o.memory_bytes);
        ck_assert_uint_le(plan->ledger[r].kv, needs / 3);
    }
}
END_TEST

/* Tokens, positions, rows and the step's address are everywhere: only the residual goes on (after
 * an attention's sum two vectors may: no more). */
START_TEST(crossing)
{
    trm_plan_options o = options_for(4, 1, 1, 4);

    m = lm_open(&llama, 3);
    make(&o);
    for (int s = 0; s + 1 < plan->stages.count; s++)
        ck_assert_uint_eq(plan->stages.crossing_bytes[s] % (size_t)(llama.hidden * 4), 0);
    ck_assert_uint_gt(plan->stages.crossing_bytes[0], 0);
}
END_TEST

/* A table that the first stage looks up and the last multiplies with is on both. */
START_TEST(tied_table)
{
    lm_shape s = llama;
    size_t table = (size_t)(s.vocabulary * s.hidden) * 2, free_ends = 0;

    for (int tied = 0; tied < 2; tied++) {
        trm_plan_options o = options_for(4, 1, 1, 4);

        s.tied = tied != 0;
        if (m.g != NULL) {
            m.input_count = 0;
            net_close(&m);
        }
        m = lm_open(&s, 3);
        make(&o);
        if (!tied)
            free_ends = plan->ledger[0].weights + plan->ledger[3].weights;
        ck_assert_uint_ge(plan->ledger[0].weights, table);
        ck_assert_uint_ge(plan->ledger[3].weights, table);
    }
    ck_assert_uint_eq(free_ends, plan->ledger[0].weights + plan->ledger[3].weights);
}
END_TEST

/* Weights of any type cost what they take; shards add up to the whole, but for padding. */
START_TEST(weights_in_the_ledger)
{
    static const trm_dtype types[] = {TRM_DTYPE_F32,   TRM_DTYPE_BF16, TRM_DTYPE_Q8_0,
                                      TRM_DTYPE_Q4_0,  TRM_DTYPE_Q4_K, TRM_DTYPE_F8_ROW,
                                      TRM_DTYPE_F8_128};
    lm_shape s = llama;
    trm_plan_options o = options_for(2, 1, 2, 1);
    size_t bytes = 0, got = 0;

    s.weights = types[_i];
    s.heads = s.kv = 32;
    m = lm_open(&s, 3);
    for (int v = 0; v < m.g->value_count; v++)
        bytes += trm_graph_is_constant(m.g, v) ? m.g->values[v].bytes : 0;
    o.ranks = 1;
    o.parallel = (trm_parallel){1, 1, 1};
    make(&o);
    /* made in memory, not in a file: their source stays beside the packed copy */
    ck_assert_uint_ge(plan->ledger[0].weights, bytes);
    ck_assert_uint_le(plan->ledger[0].weights, 2 * bytes + bytes / 8);
    o = options_for(2, 1, 2, 1);
    make(&o);
    for (int r = 0; r < 2; r++) {
        got += plan->ledger[r].weights;
        ck_assert_uint_lt(plan->ledger[r].weights, bytes + bytes / 2);
    }
    ck_assert_uint_ge(got, bytes);
}
END_TEST

/* A step of one token is bound by the weights it reads: two ranks share them. */
START_TEST(tensor_pays)
{
    trm_plan_options o = options_for(1, 1, 1, 1);
    lm_shape s = llama;
    double one;
    int sums = 0, heads = 0;

    s.hidden = 1024;
    s.ffn = 4096;
    s.layers = 1;
    s.vocabulary = 4096;
    s.heads = 16;
    s.kv = 8;
    s.head = 64;
    m = lm_open(&s, 3);
    make(&o);
    one = plan->step_us;
    o = options_for(2, 1, 2, 1);
    make(&o);
    ck_assert_double_lt(plan->step_us, 0.8 * one);
    for (int n = 0; n < m.g->node_count; n++) {
        heads += m.g->nodes[n].op == TRM_OP_TrmPagedAttention && plan->strategy[n] > 0;
        sums += m.g->nodes[n].op == TRM_OP_TrmLinear && plan->strategy[n] > 0;
    }
    ck_assert_int_eq(heads, 1);
    ck_assert_int_eq(sums, 8); /* q, k, v, o, gate, up, down, head */
    o.objective = TRM_OBJECTIVE_LATENCY;
    o.parallel = (trm_parallel){1, 0, 0};
    make(&o);
    ck_assert_int_eq(plan->parallel.tensor, 2);
}
END_TEST

/* What a product does, by its weight's type: reading what the file has, computing 2 T N K. */
START_TEST(work_of_products)
{
    static const struct {
        trm_dtype dtype;
        double bytes;
    } rows[] = {{TRM_DTYPE_F32, 4},
                {TRM_DTYPE_BF16, 2},
                {TRM_DTYPE_Q8_0, 34.0 / 32},
                {TRM_DTYPE_Q4_0, 18.0 / 32},
                {TRM_DTYPE_Q4_K, 144.0 / 256},
                {TRM_DTYPE_F8_ROW, 36.0 / 32},
                {TRM_DTYPE_F8_128, 132.0 / 128}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        trm_node n = {.op = TRM_OP_TrmLinear, .input_count = 2, .output_count = 1, .name = ""};
        trm_tensor in[2] = {{.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {3, 4096}},
                            {.dtype = rows[i].dtype, .rank = 2, .dims = {1000, 4096}}};
        trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {3, 1000}};
        trmi_work w;
        double few, many;

        ck_assert(trmi_work_of(&n, in, &out, &w));
        ck_assert_double_eq(w.flops, 2.0 * 3 * 1000 * 4096);
        ck_assert_double_eq_tol(w.weights, rows[i].bytes * 1000 * 4096, 1);
        ck_assert_double_eq_tol(w.bytes, w.weights + 4.0 * 3 * (4096 + 1000), 1);
        few = trmi_rates_us(rates, &w, 1, 1, TRM_DTYPE_F32);
        in[0].dims[0] = out.dims[0] = 3000;
        ck_assert(trmi_work_of(&n, in, &out, &w));
        many = trmi_rates_us(rates, &w, 1, 1, TRM_DTYPE_F32);
        ck_assert_double_gt(many, 20 * few);
    }
    m = lm_open(&llama, 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language plans");
    TCase *c = tcase_create("plans");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, cache_in_the_ledger);
    tcase_add_test(c, cache_against_the_limit);
    tcase_add_test(c, crossing);
    tcase_add_test(c, tied_table);
    tcase_add_loop_test(c, weights_in_the_ledger, 0, 7);
    tcase_add_test(c, tensor_pays);
    tcase_add_test(c, work_of_products);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
