/* Plans of language models on accelerators: the cache takes what is left, times follow the work,
 * the layout is chosen by them. tests/cli/plan_language.sh has models of true size. */
#include "tests/parallel/lm_kit.h"

#include "parallel/planner_impl.h"
#include "parallel/rates_impl.h"

static trm_rates *rates;
static net m;
static trm_plan *plan;
static trm_tensor inputs[4];

static const lm_shape llama = {.name = "llama",
                               .heads = 8,
                               .kv = 4,
                               .head = 64,
                               .hidden = 512,
                               .ffn = 2048,
                               .vocabulary = 4096,
                               .layers = 4,
                               .act_bf16 = true,
                               .weights = TRM_DTYPE_BF16};

static const trm_phase phases[3] = {
    {"decode", 1, 1, 1024}, {"decode", 64, 1, 1024}, {"prefill", 8, 2048, 2048}};

static void setup(void)
{
    ck_assert_msg(trm_rates_describe("cuda:h200", &rates) == TRM_OK, "%s", trm_message());
    m = lm_open(&llama, 3);
}

static void teardown(void)
{
    trm_plan_destroy(plan);
    plan = NULL;
    m.input_count = 0; /* they have no data */
    net_close(&m);
    trm_rates_destroy(rates);
}

static trm_plan_options options_for(int ranks, int data, int tensor, int pipeline)
{
    lm_descs(512, 64, inputs);
    return (trm_plan_options){.parallel = {data, tensor, pipeline},
                              .ranks = ranks,
                              .inputs = inputs,
                              .threads = 1,
                              .dtype = TRM_DTYPE_F32,
                              .kv_tokens = 8192,
                              .kv_tokens_max = 1 << 30,
                              .kv_dtype = TRM_DTYPE_BF16,
                              .memory_bytes = (size_t)2 << 30,
                              .phases = phases,
                              .phase_count = 3,
                              .rates = rates};
}

static void make(const trm_plan_options *o)
{
    trm_plan_destroy(plan);
    plan = NULL;
    ck_assert_msg(trm_plan_make(m.g, o, &plan) == TRM_OK, "%s", trm_message());
}

/* One page more, and some rank would be above the limit; heads and layers as they are dealt out. */
START_TEST(cache_takes_what_is_left)
{
    static const struct {
        int tensor, pipeline;
    } rows[] = {{1, 1}, {2, 1}, {4, 1}, {8, 1}, {1, 2}, {2, 2}, {1, 4}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        trm_plan_options o =
            options_for(rows[i].tensor * rows[i].pipeline, 1, rows[i].tensor, rows[i].pipeline);
        int64_t pages;
        bool full = false;

        make(&o);
        ck_assert_int_eq(plan->kv_tokens % TRM_KV_PAGE, 0);
        ck_assert_int_gt(plan->kv_tokens, o.kv_tokens);
        pages = plan->kv_tokens / TRM_KV_PAGE;
        for (int r = 0; r < plan->ledger_count; r++) {
            const trm_ledger *l = &plan->ledger[r];

            ck_assert_uint_eq(l->kv % (size_t)pages, 0);
            ck_assert_uint_le(trm_ledger_total(l), o.memory_bytes);
            full = full || trm_ledger_total(l) + l->kv / (size_t)pages > o.memory_bytes;
        }
        ck_assert_msg(full, "tensor=%d,pipeline=%d: room is left", rows[i].tensor,
                      rows[i].pipeline);
        o.kv_tokens_max = 16384; /* no more than is of use */
        make(&o);
        ck_assert_int_eq(plan->kv_tokens, 16384);
        o.kv_tokens_max = 0; /* settled */
        make(&o);
        ck_assert_int_eq(plan->kv_tokens, 8192);
    }
}
END_TEST

START_TEST(too_small)
{
    trm_plan_options o = options_for(2, 0, 0, 0);
    bool too_big = false;

    o.memory_bytes = 8 << 20;
    o.too_big_out = &too_big;
    ck_assert_int_eq(trm_plan_make(m.g, &o, &plan), TRM_ERR_INVALID_ARG);
    ck_assert(too_big);
    ck_assert_msg(strstr(trm_message(), " a rank (weights ") != NULL &&
                      strstr(trm_message(), "the KV cache ") != NULL &&
                      strstr(trm_message(), "the limit is 8.4 MB") != NULL,
                  "%s", trm_message());
}
END_TEST

/* The phases of the only layout there is. */
static const trm_phase_time *times_of(trm_plan_options *o)
{
    make(o);
    ck_assert_int_eq(plan->candidate_count, 1);
    return plan->candidates[0].phases;
}

START_TEST(times_follow_the_work)
{
    trm_plan_options o = options_for(1, 1, 1, 1);
    trm_phase other[3];
    trm_phase_time one[3], two[3];

    memcpy(one, times_of(&o), sizeof(one));
    ck_assert_double_gt(one[1].step_us, one[0].step_us);
    ck_assert_double_gt(one[1].tokens_s, 10 * one[0].tokens_s);
    ck_assert_double_gt(one[2].tokens_s, one[1].tokens_s);
    ck_assert_int_eq(one[2].steps, 32);
    /* as many tokens a second as the steps say */
    ck_assert_double_eq_tol(one[0].tokens_s * one[0].step_us, 1e6, 1);
    ck_assert_double_eq_tol(one[1].tokens_s * one[1].step_us, 64e6, 64);
    /* a longer context takes longer */
    memcpy(other, phases, sizeof(other));
    other[1].context = 4096;
    o.phases = other;
    memcpy(two, times_of(&o), sizeof(two));
    ck_assert_double_gt(two[1].step_us, one[1].step_us);
    ck_assert_double_eq(two[0].step_us, one[0].step_us);
    /* a cache of half the bytes is read in less time */
    o.phases = phases;
    o.kv_dtype = TRM_DTYPE_I8;
    memcpy(two, times_of(&o), sizeof(two));
    ck_assert_double_lt(two[1].step_us, one[1].step_us);
    /* larger steps of prompts are no slower a token */
    o.kv_dtype = TRM_DTYPE_BF16;
    lm_descs(4096, 64, inputs);
    memcpy(two, times_of(&o), sizeof(two));
    ck_assert_int_eq(two[2].steps, 4);
    ck_assert_double_gt(two[2].tokens_s, one[2].tokens_s);
    ck_assert_double_eq(two[1].step_us, one[1].step_us);
    /* a batch that the cache has no room for is made smaller */
    o = options_for(1, 1, 1, 1);
    o.kv_tokens_max = 0;
    memcpy(two, times_of(&o), sizeof(two));
    ck_assert_int_eq(two[1].sequences, 8);
    ck_assert_double_lt(two[1].tokens_s, one[1].tokens_s);
}
END_TEST

START_TEST(stages_take_turns)
{
    trm_plan_options o = options_for(2, 1, 1, 2);
    trm_phase_time two[3];

    memcpy(two, times_of(&o), sizeof(two));
    /* one sequence is on one stage at a time; 64 are two steps */
    ck_assert_int_eq(two[0].steps, 1);
    ck_assert_double_eq_tol(two[0].tokens_s * two[0].step_us, 1e6, 1);
    ck_assert_int_eq(two[1].steps, 2);
    ck_assert_double_lt(two[1].all_us, 2 * two[1].step_us);
    ck_assert_double_ge(two[1].all_us, two[1].step_us);
}
END_TEST

START_TEST(chosen_by_the_goal)
{
    trm_plan_options o = options_for(4, 0, 0, 0);
    const trm_candidate *best;

    make(&o);
    best = &plan->candidates[plan->chosen];
    for (int i = 0; i < plan->candidate_count; i++)
        ck_assert_double_le(plan->candidates[i].phases[1].tokens_s,
                            best->phases[1].tokens_s * 1.021);
    ck_assert_int_eq(plan->parallel.data, 4); /* it fits one card: nothing beats replicas */
    o.objective = TRM_OBJECTIVE_LATENCY;
    make(&o);
    best = &plan->candidates[plan->chosen];
    for (int i = 0; i < plan->candidate_count; i++)
        ck_assert_double_ge(plan->candidates[i].phases[0].step_us * 1.021, best->phases[0].step_us);
}
END_TEST

/* What fused kernels take in: per layer rope twice, gated, the sums before norms; k and v begin
 * with q, up with gate. */
START_TEST(absorbed)
{
    int counts[3] = {0};

    for (int n = 0; n < m.g->node_count; n++)
        counts[trmi_gpu_language_absorbed(m.g, n)]++;
    ck_assert_int_eq(counts[TRMI_ABSORBED], 4 * (2 + 1 + 2));
    ck_assert_int_eq(counts[TRMI_ABSORBED_GAP], 4 * 3);
}
END_TEST

/* Activations of 16 bits run on tensor cores; blocks too; fp32 does not. */
START_TEST(products_by_type)
{
    trm_attr attr = {.name = "act", .kind = TRM_ATTR_STRING};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {4096, 4096}},
                        {.dtype = TRM_DTYPE_BF16, .rank = 2, .dims = {4096, 4096}}};
    trm_node node = {.op = TRM_OP_TrmLinear, .name = "", .input_count = 2, .output_count = 1};
    trm_cost_context c = {.rates = rates, .threads = 1, .busy_ranks = 1};
    double exact = trm_cost_node_us(&c, &node, in, in, false), half, blocks;

    attr.v.s = "bf16";
    node.attrs = (trm_attrs){.items = &attr, .count = 1};
    half = trm_cost_node_us(&c, &node, in, in, false);
    node.attrs.count = 0;
    in[1].dtype = TRM_DTYPE_Q4_K;
    blocks = trm_cost_node_us(&c, &node, in, in, false);
    ck_assert_double_gt(exact, 5 * half);
    ck_assert_double_gt(exact, 5 * blocks);
    /* never beyond the card's peak */
    ck_assert_double_gt(half, 2.0 * 4096 * 4096 * 4096 / 989e6);
    /* one row: the weights' bytes */
    in[0].dims[0] = 1;
    ck_assert_double_gt(trm_cost_node_us(&c, &node, in, in, false), 4096.0 * 4096 * 0.5625 / 4.8e6);
    /* fp8: bf16's rate and half its bytes; without act that of fp32 */
    in[1].dtype = TRM_DTYPE_F8_ROW;
    ck_assert_double_gt(trm_cost_node_us(&c, &node, in, in, false), 4096.0 * 4096 * 1.125 / 4.8e6);
    in[0].dims[0] = 4096;
    ck_assert_double_ge(trm_cost_node_us(&c, &node, in, in, false), 0.9 * exact);
    node.attrs.count = 1;
    ck_assert_double_le(trm_cost_node_us(&c, &node, in, in, false), half);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language_gpu");
    TCase *t = tcase_create("plans");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, cache_takes_what_is_left);
    tcase_add_test(t, too_small);
    tcase_add_test(t, times_follow_the_work);
    tcase_add_test(t, stages_take_turns);
    tcase_add_test(t, chosen_by_the_goal);
    tcase_add_test(t, absorbed);
    tcase_add_test(t, products_by_type);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
