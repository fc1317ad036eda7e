/* Tiny checkpoints of every architecture against PyTorch's logits
 * (tests/oracles/lm_checkpoints.py): a prompt at once, greedy steps, and the prompt in pieces. And
 * the demo model against its reference. */
#include "tests/worker/lm_kit.h"

#include "base/npy.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#define DATA TRM_SOURCE_DIR "/tests/data/language/models/"
#define TOKENS 96

typedef struct row {
    const char *path, *config, *reference;
    int64_t context; /* 0: the model's */
    double atol;
} row;

/* fp32 throughout on both sides: what is left is the order of sums */
#define FP32 2e-4
/* activations are rounded to int8 on both sides; a last bit may decide how */
#define INT8 2e-2

static const row decoders[] = {
    {"llama", "config.json", "reference", 0, FP32},
    {"llama", "config.linear.json", "linear", 0, FP32},
    {"llama", "config.dynamic.json", "dynamic", 192, FP32},
    {"llama", "config.yarn.json", "yarn", 0, FP32},
    {"llama", "config.yarn_mscale.json", "yarn_mscale", 0, FP32},
    {"llama", "config.llama3.json", "llama3", 0, FP32},
    {"llama-biases", "config.json", "reference", 0, FP32},
    {"mistral", "config.json", "reference", 0, FP32},
    {"qwen2", "config.json", "reference", 0, FP32},
    {"qwen2", "config.whole.json", "whole", 0, FP32},
    {"qwen3", "config.json", "reference", 0, FP32},
    {"gemma", "config.json", "reference", 0, FP32},
    {"gemma2", "config.json", "reference", 0, FP32},
    {"gemma3", "config.json", "reference", 0, FP32},
    {"gemma3", "config.old.json", "reference", 0, FP32},
    {"phi3", "config.json", "reference", 0, FP32},
    {"phi3", "config.short.json", "short", 128, FP32},
    {"gpt2", "config.json", "reference", 0, FP32},
    {"starcoder2", "config.json", "reference", 0, FP32},
    {"mixtral", "config.json", "reference", 0, FP32},
    {"qwen3moe", "config.json", "reference", 0, FP32},
    {"qwen3moe", "config.plain.json", "plain", 0, FP32},
    {"packed-gptq", "config.json", "reference", 0, INT8},
    {"packed-gptq-8", "config.json", "reference", 0, INT8},
    {"packed-gptq-sym", "config.json", "reference", 0, INT8},
    {"packed-awq", "config.json", "reference", 0, INT8},
    {"packed-ints", "config.json", "reference", 0, INT8},
    {"packed-fp8", "config.json", "reference", 0, FP32},
    {"packed-fp8-tensor", "config.json", "reference", 0, FP32},
    {"packed-fp8-block", "config.json", "reference", 0, FP32},
    {"packed-fp8-128", "config.json", "reference", 0, FP32},
    {"packed-fp8-experts", "config.json", "reference", 0, FP32},
    {"llama-f16.gguf", "", "llama-f16", 0, FP32}, /* rows of q and k in pairs, rope_freqs */
    {"llama-q8_0.gguf", "", "llama-q8_0", 0, INT8},
    {"gemma3-f16.gguf", "", "gemma3-f16", 0, FP32},
    {"mixtral-f16.gguf", "", "mixtral-f16", 0, FP32},
    {"phi3-f16.gguf", "", "phi3-f16", 0, FP32},
    {"gpt2-f16.gguf", "", "gpt2-f16", 0, FP32},
};
#define DECODERS (sizeof(decoders) / sizeof(decoders[0]))

/* ---- references ---- */

typedef struct reference {
    trm_arena *arena;
    trm_npz *file;
} reference;

static reference open_reference(const row *r)
{
    reference f = {NULL, NULL};
    char path[512];

    if (is_gguf(r->path))
        snprintf(path, sizeof(path), DATA "%s.npz", r->reference);
    else
        snprintf(path, sizeof(path), DATA "%s/%s.npz", r->path, r->reference);
    OK(trm_arena_create(0, &f.arena));
    OK(trm_npz_open(path, &f.file));
    return f;
}

static void close_reference(reference *f)
{
    trm_npz_close(f->file);
    trm_arena_destroy(f->arena);
}

static trm_tensor array(reference *f, const char *name)
{
    int at = trm_npz_find(f->file, name);
    trm_npy *npy = NULL;
    trm_tensor t;

    ck_assert_msg(at >= 0, "the reference has no '%s'", name);
    OK(trm_npz_get(f->file, at, &npy));
    t = *trm_npy_desc(npy);
    t.data = trm_arena_alloc_aligned(f->arena, trm_npy_row_bytes(npy) * (size_t)t.dims[0]);
    ck_assert_ptr_nonnull(t.data);
    OK(trm_npy_read_rows(npy, 0, t.dims[0], t.data));
    trm_npy_close(npy);
    return t;
}

static double largest_error(const float *got, const float *want, size_t count)
{
    double worst = 0.0;

    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - (double)want[i]);

        if (!(error <= worst))
            worst = isnan(error) ? HUGE_VAL : error;
    }
    return worst;
}

static int32_t largest(const float *x, size_t count)
{
    size_t best = 0;

    for (size_t i = 1; i < count; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

/* ---- decoders ---- */

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

/* TRM_TEST_BRIEF: of rows that only differ in a setting or a file's form, one. */
static bool is_left_out(const row *r)
{
    bool packed = strncmp(r->path, "packed", 6) == 0;

    if (getenv("TRM_TEST_BRIEF") == NULL)
        return false;
    if (is_gguf(r->path))
        return strcmp(r->path, "llama-q8_0.gguf") != 0;
    if (packed)
        return strcmp(r->path, "packed-gptq") != 0 && strcmp(r->path, "packed-fp8") != 0;
    return strcmp(r->config, "config.json") != 0;
}

static void check_decoder(const row *r)
{
    char path[512];
    reference f = open_reference(r);
    trm_tensor prompt = array(&f, "prompt"), rows = array(&f, "rows");
    trm_tensor want = array(&f, "logits"), tokens = array(&f, "tokens");
    int32_t count = (int32_t)prompt.dims[0], kept = (int32_t)rows.dims[0];
    int32_t steps = steps_of((int32_t)tokens.dims[0]);
    size_t width = (size_t)want.dims[1];
    float *whole, *pieces;
    double worst = 0.0;
    lm m, plain;

    snprintf(path, sizeof(path), DATA "%s", r->path);
    lm_open(&m, path, r->config, r->context, TOKENS);
    whole = (float *)trm_malloc((size_t)kept + 1, width * sizeof(float));
    pieces = (float *)trm_malloc((size_t)kept + 1, width * sizeof(float));
    ck_assert(whole != NULL && pieces != NULL && count + steps <= TOKENS);
    prefill(&m, prompt.data, count, count, rows.data, kept, whole);
    worst = largest_error(whole, want.data, ((size_t)kept + 1) * width);
    ck_assert_msg(worst <= r->atol, "%s %s: the prompt's logits differ by %g", r->path,
                  r->reference, worst);
    for (int32_t i = 0; i < steps; i++) {
        const float *at = (const float *)want.data + (size_t)(kept + 1 + i) * width, *logits;
        int32_t token = ((const int32_t *)tokens.data)[i], zero = 0;
        double error;

        ck_assert_msg(largest(i == 0 ? whole + (size_t)kept * width : pieces, width) == token,
                      "%s %s: step %d", r->path, r->reference, (int)i);
        if (i == steps - 1)
            break;
        logits = lm_step(&m, &token, 1, count + i, &zero, 1);
        memcpy(pieces, logits, width * sizeof(float));
        error = largest_error(logits, at, width);
        ck_assert_msg(error <= r->atol, "%s %s: logits of step %d differ by %g", r->path,
                      r->reference, (int)i, error);
        worst = error > worst ? error : worst;
    }
    if (getenv("TRM_TEST_VERBOSE") != NULL)
        printf("%-14s %-12s largest error %.2g\n", r->path, r->reference, worst);
    /* bits do not depend on how the prompt comes */
    prefill(&m, prompt.data, count, 7, rows.data, kept, pieces);
    ck_assert_msg(memcmp(whole, pieces, ((size_t)kept + 1) * width * sizeof(float)) == 0,
                  "%s %s: pieces of 7", r->path, r->reference);
    /* nor on operators being fused: here a token at a time, unfused */
    lm_open_as(&plain, path, r->config, r->context, TOKENS, false);
    ck_assert_int_lt(m.graph->node_count, plain.graph->node_count);
    prefill(&plain, prompt.data, count, 1, rows.data, kept, pieces);
    ck_assert_msg(memcmp(whole, pieces, ((size_t)kept + 1) * width * sizeof(float)) == 0,
                  "%s %s: unfused", r->path, r->reference);
    lm_close(&plain);
    trm_free(whole);
    trm_free(pieces);
    lm_close(&m);
    close_reference(&f);
}

START_TEST(decodes_as_pytorch)
{
    if (!is_left_out(&decoders[_i]))
        check_decoder(&decoders[_i]);
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

START_TEST(encodes_as_pytorch)
{
    const encoder *e = &encoders[_i];
    const row r = {.path = e->path, .reference = is_gguf(e->path) ? "bert-f16" : "reference"};
    reference f = open_reference(&r);
    trm_tensor ids = array(&f, "ids"), types = array(&f, "types"), lengths = array(&f, "lengths");
    trm_tensor want = array(&f, e->output), out;
    int32_t count = (int32_t)lengths.dims[0], at = 0;
    size_t width = (size_t)want.dims[1];
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
    lm_build(&m, 0);
    out = lm_encode(&m, ids.data, types.data, lengths.data, count);
    ck_assert_int_eq(out.dims[1], want.dims[1]);
    error = largest_error(out.data, want.data, (size_t)count * width);
    ck_assert_msg(error <= FP32, "%s %s: differs by %g", e->path, e->output, error);
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
    lm_build_as(&plain, 0, false);
    ck_assert_int_lt(m.graph->node_count, plain.graph->node_count);
    out = lm_encode(&plain, ids.data, types.data, lengths.data, count);
    ck_assert_msg(memcmp(out.data, kept, (size_t)count * width * sizeof(float)) == 0,
                  "%s %s: unfused", e->path, e->output);
    lm_close(&plain);
    trm_free(kept);
    lm_close(&m);
    close_reference(&f);
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
    char *path = trm_path_join(demo_path(), "reference.json");
    json_t *root = json_load_file(path, 0, NULL), *cases = json_object_get(root, "cases");
    json_t *one, *pair;
    size_t i, k, width;
    lm m;

    trm_free(path);
    if (root == NULL)
        return; /* not part of this tree */
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
    return failed == 0 ? 0 : 1;
}
