/* trireme bench: time of repeated steps of a tensor model, as a table or JSON. */
#include "launch/commands.h"
#include "launch/inputs.h"
#include "launch/options.h"
#include "worker/tensor_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct bench {
    trm_common_options common;
    trm_option_list inputs, dims;
    int64_t batch; /* 0: not given */
    int64_t warmup, rounds, seed;
    bool json, profile;
};

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* A JSON string. */
static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned char)*text);
        else
            printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
    putchar('"');
}

/* Records of a step: dim 0 of the first input. INVALID_ARG: --batch asked for another number. */
static trm_status count_records(struct bench *b, const trm_graph *g, const trm_tensor *in)
{
    int64_t records = g->input_count > 0 && in[0].rank > 0 ? in[0].dims[0] : 1;

    if (b->batch > 0 && b->batch != records)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--batch %" PRId64 ": dim 0 of input '%s' is %" PRId64 "%s", b->batch,
                        g->input_count > 0 ? g->values[g->inputs[0]].name : "", records,
                        b->inputs.count > 0 ? " in the file given" : " in the model");
    b->batch = records;
    return TRM_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

static void report(const struct bench *b, const char *path, trm_device *device,
                   const trm_engine *engine, const double *ms, double load_ms, double first_ms)
{
    size_t n = (size_t)b->rounds;
    double *sorted = trm_malloc(n, sizeof(double)), sum = 0;
    trm_engine_stats stats;
    trm_device_info info;

    if (sorted == NULL)
        return;
    for (size_t i = 0; i < n; i++) {
        sorted[i] = ms[i];
        sum += ms[i];
    }
    qsort(sorted, n, sizeof(double), ascending);
    trm_engine_get_stats(engine, &stats);
    device->ops->info(device, &info);
    if (b->json) {
        printf("{\"model\": ");
        print_quoted(path);
        printf(", \"device\": \"%s\", \"threads\": %d, \"dtype\": \"%s\", "
               "\"batch\": %" PRId64 ", \"load_ms\": %.3f, \"first_ms\": %.3f, \"median_ms\": "
               "%.4f, \"min_ms\": %.4f, \"ms\": [",
               info.name, info.threads, b->common.dtype, b->batch, load_ms, first_ms, sorted[n / 2],
               sorted[0]);
        for (size_t i = 0; i < n; i++)
            printf("%s%.4f", i > 0 ? ", " : "", ms[i]);
        printf("]}\n");
    } else {
        printf("model     %s (%s, batch %" PRId64 ", %s)\n", path, b->common.dtype, b->batch,
               info.name);
        printf("load      %.1f ms, first step %.1f ms, %d kernels, %.1f MB of activations\n",
               load_ms, first_ms, stats.kernels, (double)stats.arena_bytes / 1e6);
        printf(
            "step      median %.3f ms, min %.3f, mean %.3f, p90 %.3f, p99 %.3f, max %.3f (%" PRId64
            " steps)\n",
            sorted[n / 2], sorted[0], sum / (double)n, sorted[n * 9 / 10], sorted[n * 99 / 100],
            sorted[n - 1], b->rounds);
        printf("rate      %.2f records/s\n", 1e3 * (double)b->batch / sorted[n / 2]);
    }
    trm_free(sorted);
}

static trm_status run_bench(struct bench *b, const char *path)
{
    trm_tensor_model_options options = {.dtype = trm_dtype_from_name(b->common.dtype),
                                        .profile = b->profile};
    trm_device *device = NULL;
    trm_tensor_model *model = NULL;
    trm_arena *arena = NULL;
    double start = now_ms(), load_ms, first_ms, *ms;
    trm_tensor *in, *out;
    trm_status st = TRM_OK;

    TRM_CHECK(trm_device_cpu_create((int)b->common.threads, &device));
    TRM_TRY(st, trm_tensor_model_open(path, device, &options, &model), done);
    TRM_TRY(st, trm_arena_create(0, &arena), done);
    in = trm_arena_alloc(arena, (size_t)model->graph->input_count + 1, sizeof(trm_tensor));
    out = trm_arena_alloc(arena, (size_t)model->graph->output_count + 1, sizeof(trm_tensor));
    ms = trm_arena_alloc(arena, (size_t)b->rounds, sizeof(double));
    if (in == NULL || out == NULL || ms == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "bench");
        goto done;
    }
    load_ms = now_ms() - start;
    if (b->inputs.count > 0)
        TRM_TRY(st, trm_inputs_load(model->graph, &b->inputs, arena, in), done);
    else
        TRM_TRY(st,
                trm_inputs_random(model->graph, b->batch > 0 ? b->batch : 1, &b->dims,
                                  (uint64_t)b->seed, arena, in),
                done);
    TRM_TRY(st, count_records(b, model->graph, in), done);
    start = now_ms();
    TRM_TRY(st, trm_engine_run(model->engine, in, out), done);
    first_ms = now_ms() - start;
    for (int64_t i = 0; i < b->warmup; i++)
        TRM_TRY(st, trm_engine_run(model->engine, in, out), done);
    for (int64_t i = 0; i < b->rounds; i++) {
        start = now_ms();
        TRM_TRY(st, trm_engine_run(model->engine, in, out), done);
        ms[i] = now_ms() - start;
    }
    report(b, path, device, model->engine, ms, load_ms, first_ms);
    if (b->profile)
        trm_engine_profile(model->engine, stderr);
done:
    trm_tensor_model_close(model);
    trm_arena_destroy(arena);
    trm_device_destroy(device);
    return st;
}

trm_status trm_cmd_bench(int argc, char **argv)
{
    struct bench b = {.common = TRM_COMMON_DEFAULTS, .warmup = 3, .rounds = 20, .seed = 1};
    const trm_option options[] = {
        {"batch", TRM_OPTION_INT, "N", 1, 65536, NULL, "value of a free first dim (1)", &b.batch},
        {"dim", TRM_OPTION_LIST, "NAME=N...", 0, 0, NULL, "values of other free dims", &b.dims},
        {"input", TRM_OPTION_LIST, "NAME=FILE.npy...", 0, 0, NULL,
         "inputs from files instead of random ones", &b.inputs},
        {"seed", TRM_OPTION_INT, "S", 0, INT64_MAX, NULL, "of the random inputs (1)", &b.seed},
        {"warmup", TRM_OPTION_INT, "N", 0, 1000000, NULL, "steps before timing (3)", &b.warmup},
        {"rounds", TRM_OPTION_INT, "N", 1, 1000000, NULL, "timed steps (20)", &b.rounds},
        {"json", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print one JSON object with every time",
         &b.json},
        {"profile", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print time per kernel to standard error",
         &b.profile},
        TRM_DEVICE_OPTIONS(b.common),
    };
    trm_arguments args = {.command = "bench",
                          .usage =
                              "MODEL [--batch N | --input NAME=FILE.npy...] [--rounds N] [--json]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_status st = trm_options_parse(&args, argc, argv);

    if (st == TRM_OK && !args.help)
        st = trm_common_apply(&b.common);
    if (st == TRM_OK && !args.help)
        st = run_bench(&b, args.positionals[0]);
    trm_options_free_list(&b.inputs);
    trm_options_free_list(&b.dims);
    return st;
}
