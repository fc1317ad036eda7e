/* Tiny checkpoints of every architecture against PyTorch's logits
 * (tests/oracles/lm_checkpoints.py): a prompt at once, greedy steps, and the prompt in pieces. And
 * the demo model against its reference. */
#include "tests/worker/lm_logits_kit.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#define DATA TRM_SOURCE_DIR "/tests/data/language/models/"
#define TOKENS 96

typedef struct row {
    const char *path, *config, *reference;
    int64_t context; /* 0: the model's */
    lm_weights weights;
    bool cache8; /* with a cache of 8 bits, too */
} row;

static const row decoders[] = {
    {"llama", "config.json", "reference", 0, LM_F32, true},
    {"llama", "config.linear.json", "linear", 0, LM_F32, false},
    {"llama", "config.dynamic.json", "dynamic", 192, LM_F32, false},
    {"llama", "config.yarn.json", "yarn", 0, LM_F32, false},
    {"llama", "config.yarn_mscale.json", "yarn_mscale", 0, LM_F32, false},
    {"llama", "config.llama3.json", "llama3", 0, LM_F32, false},
    {"llama-biases", "config.json", "reference", 0, LM_F16, false},
    {"mistral", "config.json", "reference", 0, LM_BF16, true},
    {"qwen2", "config.json", "reference", 0, LM_BF16, false},
    {"qwen2", "config.whole.json", "whole", 0, LM_BF16, false},
    {"qwen3", "config.json", "reference", 0, LM_BF16, true},
    {"gemma", "config.json", "reference", 0, LM_BF16, false},
    {"gemma2", "config.json", "reference", 0, LM_BF16, true},
    {"gemma3", "config.json", "reference", 0, LM_BF16, true},
    {"gemma3", "config.old.json", "reference", 0, LM_BF16, false},
    {"phi3", "config.json", "reference", 0, LM_BF16, true},
    {"phi3", "config.short.json", "short", 128, LM_BF16, false},
    {"gpt2", "config.json", "reference", 0, LM_BF16, true},
    {"starcoder2", "config.json", "reference", 0, LM_BF16, false},
    {"mixtral", "config.json", "reference", 0, LM_BF16, false},
    {"qwen3moe", "config.json", "reference", 0, LM_BF16, false},
    {"qwen3moe", "config.plain.json", "plain", 0, LM_BF16, false},
    {"packed-gptq", "config.json", "reference", 0, LM_INT4, true},
    {"packed-gptq-8", "config.json", "reference", 0, LM_INT8, false},
    {"packed-gptq-sym", "config.json", "reference", 0, LM_INT4, false},
    {"packed-awq", "config.json", "reference", 0, LM_INT4, false},
    {"packed-ints", "config.json", "reference", 0, LM_INT4, false},
    {"packed-fp8", "config.json", "reference", 0, LM_FP8, false},
    {"packed-fp8-tensor", "config.json", "reference", 0, LM_FP8, false},
    {"packed-fp8-block", "config.json", "reference", 0, LM_FP8, false},
    {"packed-fp8-128", "config.json", "reference", 0, LM_FP8, false},
    {"packed-fp8-experts", "config.json", "reference", 0, LM_FP8, false},
    {"llama-f16.gguf", "", "llama-f16", 0, LM_F16, true}, /* rows of q and k in pairs, rope_freqs */
    {"llama-q8_0.gguf", "", "llama-q8_0", 0, LM_INT8, false},
    {"gemma3-f16.gguf", "", "gemma3-f16", 0, LM_F16, false},
    {"mixtral-f16.gguf", "", "mixtral-f16", 0, LM_F16, false},
    {"phi3-f16.gguf", "", "phi3-f16", 0, LM_F16, false},
    {"gpt2-f16.gguf", "", "gpt2-f16", 0, LM_F16, false},
};
#define DECODERS (sizeof(decoders) / sizeof(decoders[0]))

/* ---- decoders ---- */

/* `path`: the checkpoint; `name`: of the file beside or in it. */
static reference open_reference(const char *path, const char *name)
{
    reference f = {NULL, NULL};
    char full[512];

    if (is_gguf(path))
        snprintf(full, sizeof(full), DATA "%s.npz", name);
    else
        snprintf(full, sizeof(full), DATA "%s/%s.npz", path, name);
    OK(trm_arena_create(0, &f.arena));
    OK(trm_npz_open(full, &f.file));
    return f;
}

/* The prompt in pieces of at most `piece`; the logits of `rows` (ascending) and of the last token
 * into out [row_count + 1, V]. */
static void prefill(lm *m, const int32_t *prompt, int32_t count, int32_t piece, const int32_t *rows,
                    int32_t row_count, float *out)
{
    size_t width = (size_t)m->config.vocabulary;
    int32_t done = 0;

    for (int32_t at = 0; at < count; at += piece) {
        int32_t n = count - at < piece ? count - at : piece, here[TOKENS], k = 0;
        const float *logits;

        while (done + k < row_count && rows[done + k] < at + n) {
            here[k] = rows[done + k] - at;
            k++;
        }
        here[k] = n - 1;
        logits = lm_step(m, prompt + at, n, at, here, k + 1);
        memcpy(out + (size_t)done * width, logits, (size_t)k * width * sizeof(float));
        memcpy(out + (size_t)row_count * width, logits + (size_t)k * width, width * sizeof(float));
        done += k;
    }
}

/* TRM_TEST_STEPS: fewer greedy steps, where a device is emulated. */
static int32_t steps_of(int32_t all)
{
    const char *text = getenv("TRM_TEST_STEPS");
    long asked = text == NULL ? 0 : strtol(text, NULL, 10);

    return asked > 0 && asked < all ? (int32_t)asked : all;
}

/* TRM_TEST_BRIEF: of rows that only differ in a setting or a file's form, one; rounded, a few. */
static bool is_left_out(const row *r, lm_mode mode)
{
    static const char *const rounded[] = {"qwen3", "mixtral", "llama-f16.gguf", "packed-gptq",
                                          "packed-fp8"};
    const char *only = getenv("TRM_TEST_DTYPE");

    if (only != NULL && strcmp(only, lm_mode_names[mode]) != 0)
        return true;
    if (mode == LM_CACHE8 && !r->cache8)
        return true;
    if (mode == LM_HALF) { /* nothing is rounded of these */
        bool on_cpu = r->weights == LM_BF16 || r->weights == LM_FP8;

        if (r->weights == LM_F32 || (getenv("TRM_TEST_DEVICE") == NULL && !on_cpu))
            return true;
    }
    if (getenv("TRM_TEST_BRIEF") == NULL)
        return false;
    if (mode == LM_CACHE8)
        return strcmp(r->path, "qwen3") != 0;
    if (mode == LM_HALF) {
        for (size_t i = 0; i < sizeof(rounded) / sizeof(rounded[0]); i++)
            if (strcmp(r->path, rounded[i]) == 0)
                return false;
        return true;
    }
    if (is_gguf(r->path))
        return strcmp(r->path, "llama-q8_0.gguf") != 0;
    if (strncmp(r->path, "packed", 6) == 0)
        return strcmp(r->path, "packed-gptq") != 0 && strcmp(r->path, "packed-fp8") != 0;
    return strcmp(r->config, "config.json") != 0;
}

/* Bits that depend on neither how the prompt comes nor on operators being fused. */
static void check_bits(lm *m, const row *r, const lm_precision *p, reference *f, const float *whole)
{
    trm_tensor prompt = array(f, "prompt"), rows = array(f, "rows");
    int32_t count = (int32_t)prompt.dims[0], kept = (int32_t)rows.dims[0];
    size_t bytes = ((size_t)kept + 1) * (size_t)m->config.vocabulary * sizeof(float);
    float *pieces = (float *)trm_malloc(bytes, 1);
    char path[512];
    lm plain;

    ck_assert_ptr_nonnull(pieces);
    prefill(m, prompt.data, count, 7, rows.data, kept, pieces);
    ck_assert_msg(memcmp(whole, pieces, bytes) == 0, "%s %s %s: pieces of 7", r->path, r->reference,
                  p->name);
    if (getenv("TRM_TEST_BRIEF") == NULL || strcmp(p->name, lm_mode_names[LM_FP32]) == 0) {
        snprintf(path, sizeof(path), DATA "%s", r->path); /* a token at a time, unfused */
        lm_open_as(&plain, path, r->config, r->context, TOKENS, false, p);
        ck_assert_int_lt(m->graph->node_count, plain.graph->node_count);
        prefill(&plain, prompt.data, count, 1, rows.data, kept, pieces);
        ck_assert_msg(memcmp(whole, pieces, bytes) == 0, "%s %s %s: unfused", r->path, r->reference,
                      p->name);
        lm_close(&plain);
    }
    trm_free(pieces);
}

static void check_decoder(const row *r, lm_mode mode)
{
    char path[512], where[64];
    const lm_precision precision = lm_precision_of(mode);
    reference f = open_reference(r->path, r->reference);
    trm_tensor prompt = array(&f, "prompt"), rows = array(&f, "rows");
    trm_tensor want = array(&f, "logits"), tokens = array(&f, "tokens");
    int32_t count = (int32_t)prompt.dims[0], kept = (int32_t)rows.dims[0], the_same = 0;
    int32_t steps = steps_of((int32_t)tokens.dims[0]);
    size_t width = (size_t)want.dims[1];
    double scale = mode == LM_FP32 ? 1.0 : largest_of(want.data, (size_t)want.dims[0] * width);
    float *got;
    double worst;
    lm m;

    snprintf(path, sizeof(path), DATA "%s", r->path);
    snprintf(where, sizeof(where), "%s %s", r->path, r->reference);
    lm_open_as(&m, path, r->config, r->context, TOKENS, true, &precision);
    /* of the prompt's rows, its last token and each greedy step but the last */
    got = (float *)trm_malloc((size_t)(kept + steps), width * sizeof(float));
    ck_assert(got != NULL && count + steps <= TOKENS);
    prefill(&m, prompt.data, count, count, rows.data, kept, got);
    for (int32_t i = 0; i + 1 < steps; i++) {
        int32_t token = ((const int32_t *)tokens.data)[i], zero = 0;

        memcpy(got + (size_t)(kept + 1 + i) * width, lm_step(&m, &token, 1, count + i, &zero, 1),
               width * sizeof(float));
    }
    worst = largest_error(got, want.data, (size_t)(kept + steps) * width) / scale;
    for (int32_t i = 0; i < kept + steps; i++) {
        const float *here = (const float *)want.data + (size_t)i * width;
        bool same = largest(got + (size_t)i * width, width) == largest(here, width);

        ck_assert_msg(same || i < kept || mode != LM_FP32, "%s: step %d", where, (int)(i - kept));
        the_same += same;
    }
    lm_note(mode, r->weights, where, worst, kept + steps, the_same);
    if (getenv("TRM_TEST_VERBOSE") != NULL)
        printf("%-6s %-4s %-18s %-12s largest error %.2g, likeliest tokens %d of %d\n",
               precision.name, lm_weights_names[r->weights], r->path, r->reference, worst,
               (int)the_same, (int)(kept + steps));
    ck_assert_msg(worst <= lm_bounds[mode][r->weights], "%s: logits in %s differ by %g, want %g",
                  where, precision.name, worst, lm_bounds[mode][r->weights]);
    check_bits(&m, r, &precision, &f, got);
    trm_free(got);
    lm_close(&m);
    close_reference(&f);
}

START_TEST(decodes_as_pytorch)
{
    for (int mode = 0; mode < LM_MODES; mode++)
        if (!is_left_out(&decoders[_i], (lm_mode)mode))
            check_decoder(&decoders[_i], (lm_mode)mode);
}
END_TEST

/* ---- encoders ---- */

typedef struct encoder {
    const char *path, *output, *pooling; /* array of the reference; instead of the model's */
    bool normalize;
} encoder;

static const encoder encoders[] = {
    {"bert", "mean", "mean", false},          {"bert", "cls", "cls", false},
    {"bert", "normalized", "mean", true},     {"xlm-roberta", "mean", "mean", false},
    {"xlm-roberta", "cls", "cls", false},     {"bert-classes", "logits", "", false},
    {"roberta-classes", "logits", "", false}, {"bert-f16.gguf", "normalized", "mean", true},
};

static void check_encoder(const encoder *e, lm_mode mode)
{
    const lm_precision precision = lm_precision_of(mode);
    bool gguf = is_gguf(e->path);
    lm_weights weights = gguf ? LM_F16 : LM_BF16;
    reference f = open_reference(e->path, gguf ? "bert-f16" : "reference");
    trm_tensor ids = array(&f, "ids"), types = array(&f, "types"), lengths = array(&f, "lengths");
    trm_tensor want = array(&f, e->output), out;
    int32_t count = (int32_t)lengths.dims[0], at = 0;
    size_t width = (size_t)want.dims[1];
    double scale = mode == LM_FP32 ? 1.0 : largest_of(want.data, (size_t)count * width);
    float *kept = (float *)trm_malloc((size_t)count * width, sizeof(float));
    char path[512];
    double error;
    lm m, plain;

    snprintf(path, sizeof(path), DATA "%s", e->path);
    lm_read(&m, path, "config.json");
    if (m.gguf != NULL) {
        ck_assert_str_eq(m.config.pooling, e->pooling); /* of its metadata */
        ck_assert(m.config.pooling_normalize == e->normalize);
    }
    snprintf(m.config.pooling, sizeof(m.config.pooling), "%s", e->pooling);
    m.config.pooling_normalize = e->normalize;
    lm_build_as(&m, 0, true, &precision);
    out = lm_encode(&m, ids.data, types.data, lengths.data, count);
    ck_assert_int_eq(out.dims[1], want.dims[1]);
    error = largest_error(out.data, want.data, (size_t)count * width) / scale;
    lm_note(mode, weights, e->path, error, 0, 0);
    if (getenv("TRM_TEST_VERBOSE") != NULL)
        printf("%-6s %-4s %-18s %-12s largest error %.2g\n", precision.name,
               lm_weights_names[weights], e->path, e->output, error);
    ck_assert_msg(error <= lm_bounds[mode][weights], "%s %s in %s: differs by %g, want %g", e->path,
                  e->output, precision.name, error, lm_bounds[mode][weights]);
    memcpy(kept, out.data, (size_t)count * width * sizeof(float));
    /* alone: the same bits */
    for (int32_t s = 0; s < count; s++) {
        const int32_t *length = (const int32_t *)lengths.data + s;

        out = lm_encode(&m, (const int32_t *)ids.data + at, (const int32_t *)types.data + at,
                        length, 1);
        ck_assert_int_eq(memcmp(out.data, kept + (size_t)s * width, width * sizeof(float)), 0);
        at += *length;
    }
    lm_read(&plain, path, "config.json");
    snprintf(plain.config.pooling, sizeof(plain.config.pooling), "%s", e->pooling);
    plain.config.pooling_normalize = e->normalize;
    lm_build_as(&plain, 0, false, &precision);
    ck_assert_int_lt(m.graph->node_count, plain.graph->node_count);
    out = lm_encode(&plain, ids.data, types.data, lengths.data, count);
    ck_assert_msg(memcmp(out.data, kept, (size_t)count * width * sizeof(float)) == 0,
                  "%s %s: unfused", e->path, e->output);
    lm_close(&plain);
    trm_free(kept);
    lm_close(&m);
    close_reference(&f);
}

START_TEST(encodes_as_pytorch)
{
    const encoder *e = &encoders[_i];
    const char *only = getenv("TRM_TEST_DTYPE");

    for (int mode = LM_FP32; mode <= LM_HALF; mode++) {
        if (only != NULL && strcmp(only, lm_mode_names[mode]) != 0)
            continue;
        if (mode == LM_HALF && getenv("TRM_TEST_BRIEF") != NULL && strcmp(e->output, "cls") != 0)
            continue;
        check_encoder(e, (lm_mode)mode);
    }
}
END_TEST

/* ---- the demo model ---- */

static const char *demo_path(void)
{
    const char *given = getenv("TRM_TEST_DEMO_MODEL");

    return given != NULL ? given : TRM_SOURCE_DIR "/configs/demo/tiny-sotu";
}

static int32_t ids_of(json_t *list, int32_t *ids, size_t max)
{
    size_t n = json_array_size(list);

    ck_assert(n > 0 && n <= max);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int32_t)n;
}

/* log of the sum of exponentials */
static double log_total(const float *x, size_t count)
{
    double top = (double)x[largest(x, count)], sum = 0.0;

    for (size_t i = 0; i < count; i++)
        sum += exp((double)x[i] - top);
    return top + log(sum);
}

START_TEST(demo_model)
{
    const char *only = getenv("TRM_TEST_DTYPE");
    char *path = trm_path_join(demo_path(), "reference.json");
    json_t *root = json_load_file(path, 0, NULL), *cases = json_object_get(root, "cases");
    json_t *one, *pair;
    size_t i, k, width;
    lm m;

    trm_free(path);
    if (root == NULL || (only != NULL && strcmp(only, lm_mode_names[LM_FP32]) != 0)) {
        json_decref(root);
        return; /* not part of this tree, or of this run */
    }
    ck_assert_int_gt((int)json_array_size(cases), 0);
    lm_open(&m, demo_path(), "config.json", 0, 512);
    width = (size_t)m.config.vocabulary;
    json_array_foreach(cases, i, one)
    {
        int32_t prompt[512], greedy[512], zero = 0;
        int32_t n = ids_of(json_object_get(one, "prompt_ids"), prompt, 256);
        int32_t steps = steps_of(ids_of(json_object_get(one, "greedy_ids"), greedy, 256));
        int32_t last = n - 1;
        const float *logits = lm_step(&m, prompt, n, 0, &last, 1);
        double total = log_total(logits, width);

        json_array_foreach(json_object_get(one, "top5_logprobs_first"), k, pair)
        {
            size_t id = (size_t)json_integer_value(json_array_get(pair, 0));
            double want = json_number_value(json_array_get(pair, 1));

            ck_assert_double_le(fabs((double)logits[id] - total - want), 2e-4);
        }
        for (int32_t s = 0; s < steps; s++) {
            ck_assert_msg(largest(logits, width) == greedy[s], "case %d, step %d", (int)i, (int)s);
            if (s + 1 < steps)
                logits = lm_step(&m, &greedy[s], 1, n + s, &zero, 1);
        }
    }
    lm_close(&m);
    json_decref(root);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lm_logits");
    TCase *t = tcase_create("logits");
    SRunner *runner;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, decodes_as_pytorch, 0, (int)DECODERS);
    tcase_add_loop_test(t, encodes_as_pytorch, 0, (int)(sizeof(encoders) / sizeof(encoders[0])));
    tcase_add_test(t, demo_model);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    lm_print_seen();
    return failed == 0 ? 0 : 1;
}
