/* Tiny checkpoints on several ranks, everything split that can be: the bits of one rank. What this
 * adds to the tests of parallel/: weights as files have them (q, k and v in one tensor, stored as
 * [inputs, outputs], an expert a tensor, blocks), of which ranks hold parts. */
#include "tests/worker/lm_kit.h"
#include "tests/worker/ranks_kit.h"

#include "parallel/lower.h"
#include "parallel/shapes.h"

#define DATA TRM_SOURCE_DIR "/tests/data/language/models/"
#define PROMPT 40
#define STEPS 3
#define KEPT 4

typedef struct layout {
    const char *model;
    int ranks;
    int sums;  /* at least so many nodes are sums that ranks share */
    int norms; /* so many take the residual and a norm along: none that a bias is added to */
} layout;

static const layout layouts[] = {
    {"llama", 2, 4, 3},
    {"llama", 3, 2, 1},
    {"llama", 4, 0, 0},
    {"llama-biases", 2, 2, 0},
    {"qwen2", 2, 6, 5},
    {"qwen3", 2, 4, 3},
    {"gemma2", 2, 6, 0},
    {"gemma3", 2, 7, 0},
    {"phi3", 2, 4, 3},
    {"gpt2", 2, 4, 0},
    {"gpt2", 4, 4, 0},
    {"starcoder2", 2, 4, 0},
    {"mixtral", 2, 4, 3},
    {"mixtral", 4, 2, 1},
    {"qwen3moe", 3, 3, 2},
    {"llama-f16.gguf", 2, 4, 3},
    {"llama-q8_0.gguf", 2, 4, 3},
    {"mixtral-f16.gguf", 2, 4, 3},
    {"phi3-f16.gguf", 2, 4, 3},
    {"packed-gptq", 2, 4, 3},
    {"packed-awq", 2, 4, 3},
    {"packed-fp8", 2, 4, 3},
    {"packed-fp8-128", 2, 4, 3},
    {"packed-fp8-experts", 2, 2, 1},
};

static void choose(const trm_sharding *s, int *strategy, int *sums)
{
    static const char *const wanted[] = {"kv heads", "query heads", "heads",    "groups",
                                         "sum",      "experts",     "features", "out features"};

    *sums = 0;
    for (int n = 0; n < s->graph->node_count; n++) {
        trm_op op = s->graph->nodes[n].op;

        strategy[n] = 0;
        for (int w = 0; w < 8 && strategy[n] == 0; w++)
            for (int k = 0; k < s->axes[n].axis_count && op != TRM_OP_TrmEmbed; k++)
                if (strcmp(s->axes[n].axes[k].name, wanted[w]) == 0 &&
                    trm_sharding_possible(s, n, k + 1))
                    strategy[n] = k + 1;
        *sums += strategy[n] > 0 && s->axes[n].axes[strategy[n] - 1].tree;
    }
}

/* Sums over ranks that have the residual and the norm with them. */
static int count_with_norms(const trm_graph *g)
{
    int count = 0;

    for (int n = 0; n < g->node_count; n++)
        count += g->nodes[n].op == TRM_OP_TrmReduceTree && g->nodes[n].input_count > 1;
    return count;
}

/* This rank's share of the model that `m` has read. */
static const char *divide(lm *m, const struct rank *r, int sums_wanted, int norms_wanted,
                          trm_graph **whole_out)
{
    trm_tensor in[4] = {lm_vector(TRM_DTYPE_I32, PROMPT, NULL),
                        lm_vector(TRM_DTYPE_I32, PROMPT, NULL), lm_vector(TRM_DTYPE_I64, 1, NULL),
                        lm_vector(TRM_DTYPE_I32, KEPT, NULL)};
    trm_engine_options options = {.comm = r->all};
    trm_graph *whole;
    trm_sharding *s;
    trm_tensor *descs;
    trm_arena *arena;
    int *strategy, sums;

    WANT_OK(trm_architecture_build(
        &m->config, m->weights != NULL ? m->weights : trm_gguf_weights(m->gguf), NULL, &whole));
    WANT_OK(trm_pass_prepare(whole, NULL));
    WANT_OK(trm_arena_create(0, &arena));
    descs = (trm_tensor *)trm_arena_alloc(arena, (size_t)whole->value_count, sizeof(*descs));
    strategy = (int *)trm_arena_alloc(arena, (size_t)whole->node_count, sizeof(int));
    WANT(descs != NULL && strategy != NULL);
    WANT_OK(trm_shapes_bind(whole, in, arena, descs));
    WANT_OK(trm_sharding_create(whole, descs, r->size, &s));
    choose(s, strategy, &sums);
    WANT(sums >= sums_wanted);
    WANT_OK(trm_lower(s, strategy, r->rank, &m->graph));
    WANT_OK(trm_pass_finish(m->graph));
    WANT(count_with_norms(m->graph) == (getenv("TRM_FUSE") == NULL ? norms_wanted : 0));
    WANT_OK(trm_device_cpu_create(1, &m->device));
    WANT_OK(trm_engine_create(m->graph, m->device, &options, &m->engine));
    trm_sharding_destroy(s);
    trm_arena_destroy(arena);
    *whole_out = whole;
    return NULL;
}

/* A prompt and some steps: [KEPT + STEPS, V] */
static void compute(lm *m, float *out)
{
    static const int32_t rows[KEPT] = {0, 17, 30, PROMPT - 1};
    size_t width = (size_t)m->config.vocabulary;
    int32_t tokens[PROMPT + STEPS], zero = 0;

    for (int32_t i = 0; i < PROMPT + STEPS; i++)
        tokens[i] = (i * 37 + 11) % 256;
    memcpy(out, lm_step(m, tokens, PROMPT, 0, rows, KEPT), KEPT * width * sizeof(float));
    for (int32_t i = 0; i < STEPS; i++)
        memcpy(out + (size_t)(KEPT + i) * width,
               lm_step(m, &tokens[PROMPT + i], 1, PROMPT + i, &zero, 1), width * sizeof(float));
}

static const char *run(struct rank *r, void *ctx)
{
    const layout *l = (const layout *)ctx;
    trm_graph *whole = NULL;
    float *alone, *together;
    const char *text;
    char path[512];
    size_t count;
    lm one, part;

    snprintf(path, sizeof(path), DATA "%s", l->model);
    lm_open_as(&one, path, "config.json", 0, PROMPT + STEPS, false, NULL);
    count = (size_t)((KEPT + STEPS) * one.config.vocabulary);
    alone = (float *)trm_malloc(count, sizeof(float));
    together = (float *)trm_malloc(count, sizeof(float));
    WANT(alone != NULL && together != NULL);
    compute(&one, alone);
    lm_close(&one);
    lm_read(&part, path, "config.json");
    text = divide(&part, r, l->sums, l->norms, &whole);
    if (text != NULL)
        return text;
    part.kv_dtype = TRM_DTYPE_F32;
    lm_cache(&part, PROMPT + STEPS);
    compute(&part, together);
    if (memcmp(alone, together, count * sizeof(float)) != 0)
        return wrong("%s: other bits than one rank's, unfused", l->model);
    lm_close(&part);
    trm_graph_destroy(whole);
    trm_free(alone);
    trm_free(together);
    return NULL;
}

START_TEST(same_bits)
{
    struct ranks set = {.size = layouts[_i].ranks,
                        .needs = {.slot_bytes = 1 << 20, .message_bytes = 1 << 16}};

    run_ranks(set, run, (void *)(uintptr_t)&layouts[_i]);
}
END_TEST

/* The same with the sum, the residual and the norm as nodes of their own. */
START_TEST(unfused)
{
    ck_assert_int_eq(setenv("TRM_FUSE", "off", 1), 0);
    run_ranks((struct ranks){.size = layouts[0].ranks,
                             .needs = {.slot_bytes = 1 << 20, .message_bytes = 1 << 16}},
              run, (void *)(uintptr_t)&layouts[0]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lm_layouts");
    TCase *t = tcase_create("layouts");
    SRunner *runner;
    int failed;

    unsetenv("TRM_FUSE");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, same_bits, 0, (int)(sizeof(layouts) / sizeof(layouts[0])));
    tcase_add_test(t, unfused);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
