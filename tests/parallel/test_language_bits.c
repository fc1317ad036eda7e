/* Language models in every layout give the bits that one rank gives: the graphs of all ranks in
 * lockstep, stages one after another, over several steps with a paged cache. */
#include "tests/parallel/lm_steps.h"

#define STAGES_MAX 4

/* ---- running ---- */

/* A replica: `count` shards of `stages` stages. A rank's cache serves all of its stages here. */
typedef struct replica {
    int count, stages;
    trm_graph *local[SPMD_RANKS_MAX]; /* holds what its stages read */
    trm_graph *g[STAGES_MAX][SPMD_RANKS_MAX];
    cache caches[SPMD_RANKS_MAX];
} replica;

static const trm_tensor *input_named(const trm_graph *g, const char *name, const feed *f,
                                     const trm_graph *before, const spmd_rank *rank)
{
    static const char *const names[4] = {"tokens", "positions", "step", "rows"};

    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0)
            return &f->at[i];
    for (int i = 0; before != NULL && i < before->output_count; i++)
        if (strcmp(name, before->values[before->outputs[i]].name) == 0)
            return &rank->values[before->outputs[i]];
    ck_abort_msg("'%s' has no input '%s'", g->name, name);
    return NULL;
}

/* The logits of every rank must be the same; they are rank 0's. */
static trm_tensor run_step(replica *p, const batch *b, const lm_shape *s)
{
    spmd_rank ranks[STAGES_MAX][SPMD_RANKS_MAX] = {{{0}}};
    feed feeds[SPMD_RANKS_MAX];
    trm_tensor logits = {0};

    for (int stage = 0; stage < p->stages; stage++) {
        trm_tensor inputs[SPMD_RANKS_MAX][64];
        const trm_tensor *each[SPMD_RANKS_MAX];

        for (int r = 0; r < p->count; r++) {
            trm_graph *g = p->g[stage][r];

            ranks[stage][r].g = g;
            cache_step(&p->caches[r], b);
            feed_step(&feeds[r], b, s, &p->caches[r]);
            ck_assert_int_le(g->input_count, 64);
            for (int i = 0; i < g->input_count; i++)
                inputs[r][i] = *input_named(g, g->values[g->inputs[i]].name, &feeds[r],
                                            stage > 0 ? p->g[stage - 1][r] : NULL,
                                            stage > 0 ? &ranks[stage - 1][r] : NULL);
            each[r] = inputs[r];
        }
        spmd_run_each(ranks[stage], p->count, each);
    }
    for (int r = 0; r < p->count; r++) {
        const spmd_rank *last = &ranks[p->stages - 1][r];
        const trm_tensor *mine = &last->values[last->g->outputs[0]];

        if (r == 0)
            logits = spmd_copy(mine);
        else
            ck_assert_mem_eq(mine->data, logits.data, trm_tensor_numel(mine) * sizeof(float));
    }
    for (int stage = 0; stage < p->stages; stage++)
        for (int r = 0; r < p->count; r++)
            spmd_drop_values(&ranks[stage][r]);
    return logits;
}

/* Lowered, cut at even distances, finished as the executor gets it; s NULL: one rank, of one stage
 * unfused. */
static void replica_open(replica *p, trm_graph *g, const trm_sharding *s, const int *strategy,
                         int stages, trm_dtype kv_dtype)
{
    *p = (replica){.count = s == NULL ? 1 : s->ranks, .stages = stages};
    for (int r = 0; r < p->count; r++) {
        trm_graph *local = NULL;

        if (s == NULL)
            ck_assert_int_eq(trm_lower_cut(g, 0, g->node_count, &local), TRM_OK);
        else
            ck_assert_msg(trm_lower(s, strategy, r, &local) == TRM_OK, "%s", trm_message());
        cache_open(&p->caches[r], local, kv_dtype);
        for (int i = 0; i < stages; i++) {
            ck_assert_msg(trm_lower_cut(local, local->node_count * i / stages,
                                        local->node_count * (i + 1) / stages,
                                        &p->g[i][r]) == TRM_OK,
                          "%s", trm_message());
            /* what is compared with: one rank, unfused */
            ck_assert_msg((s == NULL && stages == 1 ? trm_graph_infer(p->g[i][r])
                                                    : trm_pass_finish(p->g[i][r])) == TRM_OK,
                          "%s", trm_message());
        }
        p->local[r] = local;
    }
}

static void replica_close(replica *p)
{
    for (int r = 0; r < p->count; r++) {
        for (int i = 0; i < p->stages; i++)
            trm_graph_destroy(p->g[i][r]);
        trm_graph_destroy(p->local[r]);
        cache_close(&p->caches[r]);
    }
}

/* ---- layouts ---- */

static const lm_shape shapes[] = {
    {.name = "f32",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 288,
     .vocabulary = 67,
     .qk_norm = true,
     .weights = TRM_DTYPE_F32},
    {.name = "bf16",
     .heads = 9,
     .kv = 3,
     .head = 32,
     .hidden = 96,
     .ffn = 352,
     .vocabulary = 97,
     .tied = true,
     .window = 18,
     .weights = TRM_DTYPE_BF16},
    {.name = "bf16 rounded",
     .heads = 4,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 192,
     .vocabulary = 50,
     .biased = true,
     .act_bf16 = true,
     .weights = TRM_DTYPE_BF16},
    {.name = "f16",
     .heads = 8,
     .kv = 2,
     .head = 32,
     .hidden = 64,
     .ffn = 224,
     .vocabulary = 64,
     .biased = true,
     .weights = TRM_DTYPE_F16},
    {.name = "transposed",
     .heads = 4,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 192,
     .vocabulary = 50,
     .transposed = true,
     .biased = true,
     .weights = TRM_DTYPE_F32},
    {.name = "q4_0",
     .heads = 14,
     .kv = 2,
     .head = 32,
     .hidden = 64,
     .ffn = 416,
     .vocabulary = 64,

     .tied = true,
     .weights = TRM_DTYPE_Q4_0},
    {.name = "q8_0",
     .heads = 8,
     .kv = 8,
     .head = 32,
     .hidden = 64,
     .ffn = 1024,
     .vocabulary = 50,
     .weights = TRM_DTYPE_Q8_0},
    {.name = "q4_k",
     .heads = 16,
     .kv = 4,
     .head = 64,
     .hidden = 256,
     .ffn = 1024,
     .vocabulary = 64,
     .weights = TRM_DTYPE_Q4_K},
    {.name = "q6_k",
     .heads = 16,
     .kv = 4,
     .head = 64,
     .hidden = 256,
     .ffn = 1024,
     .vocabulary = 64,
     .weights = TRM_DTYPE_Q6_K},
    {.name = "f8_row",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 416,
     .vocabulary = 64,
     .tied = true,
     .weights = TRM_DTYPE_F8_ROW},
    {.name = "f8_128, rounded",
     .heads = 16,
     .kv = 4,
     .head = 64,
     .hidden = 128,
     .ffn = 640,
     .vocabulary = 64,
     .act_bf16 = true,
     .weights = TRM_DTYPE_F8_128},
    {.name = "experts",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 32,
     .vocabulary = 64,
     .experts = 12,
     .top_k = 3,
     .groups = 6,
     .weights = TRM_DTYPE_F32},
    {.name = "experts q8_0",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 32,
     .vocabulary = 64,
     .experts = 8,
     .top_k = 2,
     .groups = 8,
     .weights = TRM_DTYPE_Q8_0},
    {.name = "experts f8_128",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 128,
     .ffn = 128,
     .vocabulary = 64,
     .experts = 8,
     .top_k = 2,
     .groups = 8,
     .weights = TRM_DTYPE_F8_128},
    {.name = "encoder",
     .heads = 6,
     .kv = 6,
     .head = 32,
     .hidden = 96,
     .ffn = 384,
     .vocabulary = 64,
     .biased = true,
     .encoder = true,
     .weights = TRM_DTYPE_F32},
    {.name = "encoder with lengths of one",
     .heads = 4,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 192,
     .vocabulary = 64,
     .biased = true,
     .encoder = true,
     .tied = true,
     .weights = TRM_DTYPE_F16},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

static const struct layout {
    int tensor, pipeline;
} layouts[] = {{1, 3}, {2, 1}, {3, 1}, {4, 1}, {2, 2}, {3, 3}};
#define LAYOUTS ((int)(sizeof(layouts) / sizeof(layouts[0])))

static void random_strategy(net *m, const trm_sharding *s, int *strategy)
{
    for (int n = 0; n < s->graph->node_count; n++) {
        int k = net_pick(m, 1 + s->axes[n].axis_count);

        strategy[n] = net_pick(m, 4) > 0 && trm_sharding_possible(s, n, k) ? k : 0;
    }
}

static void compare(const trm_tensor *got, const trm_tensor *want, const char *what, int step,
                    int tensor, int pipeline)
{
    const float *g = got->data, *w = want->data;

    ck_assert(trm_tensor_same_shape(got, want));
    for (size_t i = 0; i < trm_tensor_numel(want); i++) /* bits: no NaN, and zeros have signs */
        ck_assert_msg(g[i] == w[i] && signbit(g[i]) == signbit(w[i]),
                      "%s, tensor=%d, pipeline=%d: step %d: logit %zu is %.9g, one rank gives %.9g",
                      what, tensor, pipeline, step, i, (double)g[i], (double)w[i]);
}

/* One layout after another, each with the usual strategies and (tensor > 1) with random ones. */
START_TEST(bits)
{
    lm_shape s = shapes[_i];
    trm_dtype kv_dtype = _i % 2 == 0 ? TRM_DTYPE_F32 : TRM_DTYPE_BF16;
    trm_tensor want[STEPS], inputs[4], *descs;
    trm_arena *arena;
    replica p;
    int *strategy;
    net m;

    s.layers = 2;
    m = lm_open(&s, (uint64_t)_i + 3);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    descs = trm_calloc((size_t)m.g->value_count + 1, sizeof(trm_tensor));
    strategy = trm_calloc((size_t)m.g->node_count + 1, sizeof(int));
    lm_descs(6, 3, inputs);
    if (s.encoder)
        inputs[2].dims[0] = SEQUENCES;
    ck_assert_msg(trm_shapes_bind(m.g, inputs, arena, descs) == TRM_OK, "%s", trm_message());
    replica_open(&p, m.g, NULL, NULL, 1, kv_dtype);
    for (int i = 0; i < STEPS; i++) {
        want[i] = run_step(&p, &batches[i], &s);
        for (size_t k = 0; k < trm_tensor_numel(&want[i]); k++)
            ck_assert(isfinite(((const float *)want[i].data)[k]));
    }
    replica_close(&p);
    for (int l = 0; l < LAYOUTS; l++) {
        trm_sharding *sharding = NULL;
        int rounds = layouts[l].tensor > 1 ? 3 : 1;

        if (layouts[l].tensor > 1)
            ck_assert_int_eq(trm_sharding_create(m.g, descs, layouts[l].tensor, &sharding), TRM_OK);
        for (int round = 0; round < rounds; round++) {
            if (round == 0 && sharding != NULL)
                lm_strategy(sharding, strategy);
            else if (sharding != NULL)
                random_strategy(&m, sharding, strategy);
            replica_open(&p, m.g, sharding, strategy, layouts[l].pipeline, kv_dtype);
            for (int i = 0; i < STEPS; i++) {
                trm_tensor got = run_step(&p, &batches[i], &s);

                compare(&got, &want[i], s.name, i, layouts[l].tensor, layouts[l].pipeline);
                trm_aligned_free(got.data);
            }
            replica_close(&p);
        }
        trm_sharding_destroy(sharding);
    }
    for (int i = 0; i < STEPS; i++)
        trm_aligned_free(want[i].data);
    trm_arena_destroy(arena);
    trm_free(descs);
    trm_free(strategy);
    m.input_count = 0; /* they have no data */
    net_close(&m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language bits");
    TCase *c = tcase_create("layouts");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(c, spmd_open, spmd_close);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, bits, 0, SHAPES);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
