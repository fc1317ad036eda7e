/* trireme bench: time of repeated steps of a tensor model, as a table or JSON. */
#include "launch/commands.h"
#include "launch/bench_language.h"
#include "launch/bench_report.h"
#include "launch/bench_url.h"
#include "launch/inputs.h"
#include "launch/ranks.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

struct bench {
    trm_common_options common;
    trm_parallel_options parallel;
    trm_ranks ranks;
    trm_option_list inputs, dims;
    int64_t batch; /* 0: not given */
    int64_t warmup, rounds, seed;
    bool json, profile;
    trm_lm_cli lm;
    int64_t prompt_tokens, new_tokens;
    bool resident;
    trm_arena *arena;
    trm_tensor *in, *out; /* in: once it is loaded */
    double start_ms;
    trm_bench_result result; /* rank 0 */
};

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
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

/* Inputs from files or made up; the planner asks for them first. */
static trm_status make_inputs(struct bench *b, const trm_graph *g)
{
    trm_tensor *in;

    if (b->in != NULL)
        return TRM_OK;
    in = trm_arena_alloc(b->arena, (size_t)g->input_count + 1, sizeof(trm_tensor));
    if (in == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "bench");
    if (b->inputs.count > 0)
        TRM_CHECK(trm_inputs_load(g, &b->inputs, b->arena, in));
    else
        TRM_CHECK(trm_inputs_random(g, b->batch > 0 ? b->batch : 1, &b->dims, (uint64_t)b->seed,
                                    b->arena, in));
    TRM_CHECK(count_records(b, g, in));
    b->in = in;
    return TRM_OK;
}

static trm_status planned_inputs(void *ctx, const trm_graph *g, const trm_tensor **inputs_out)
{
    struct bench *b = ctx;

    TRM_CHECK(make_inputs(b, g));
    *inputs_out = b->in;
    return TRM_OK;
}

/* Steps one after another: latency. */
static trm_status time_steps(struct bench *b, trm_replica *r)
{
    double start = now_ms();

    TRM_CHECK(trm_replica_run(r, b->in, b->out));
    b->result.first_ms = now_ms() - start;
    for (int64_t i = 0; i < b->warmup; i++)
        TRM_CHECK(trm_replica_run(r, b->in, b->out));
    for (int64_t i = 0; i < b->rounds; i++) {
        start = now_ms();
        TRM_CHECK(trm_replica_run(r, b->in, b->out));
        b->result.ms[i] = now_ms() - start;
    }
    return TRM_OK;
}

/* As many steps under way as the replica takes: throughput. Timed from when the pipeline is full to
 * the last result but those that drain it. */
static trm_status time_flow(struct bench *b, trm_replica *r)
{
    int64_t depth = trm_replica_depth(r), steps = b->rounds + depth, done = 0;
    double start = 0;

    for (int64_t i = 0; i < steps; i++) {
        if (trm_replica_under_way(r) == depth) {
            TRM_CHECK(trm_replica_collect(r, b->out));
            if (done++ == 0)
                start = now_ms();
        }
        TRM_CHECK(trm_replica_submit(r, b->in));
    }
    if (done > 1)
        b->result.flow_ms = (now_ms() - start) / (double)(done - 1);
    while (trm_replica_under_way(r) > 0)
        TRM_CHECK(trm_replica_collect(r, b->out));
    return TRM_OK;
}

static trm_status lead(struct bench *b)
{
    trm_tensor_model *m = b->ranks.model;
    trm_status st;

    b->out = trm_arena_alloc(b->arena, (size_t)m->graph->output_count + 1, sizeof(trm_tensor));
    b->result.ms = trm_arena_alloc(b->arena, (size_t)b->rounds, sizeof(double));
    if (b->out == NULL || b->result.ms == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "bench");
    b->result.load_ms = now_ms() - b->start_ms;
    TRM_CHECK(make_inputs(b, m->graph));
    trm_replica_hold_inputs(m->replica, b->resident);
    TRM_CHECK(time_steps(b, m->replica));
    if (trm_replica_depth(m->replica) > 1)
        TRM_CHECK(time_flow(b, m->replica));
    st = trm_replica_stop(m->replica);
    if (st == TRM_OK && b->profile)
        trm_engine_profile(trm_replica_engine(m->replica), stderr);
    return st;
}

/* Every rank: opens the model together with the others, leads or follows, tells what it took. */
static trm_status on_ranks(struct bench *b, const char *path)
{
    trm_tensor_model_options options = {0};
    trm_status st = trm_arena_create(0, &b->arena);

    b->start_ms = now_ms();
    if (st == TRM_OK)
        st = trm_ranks_device(&b->ranks, &b->common, true);
    if (st == TRM_OK)
        st = trm_ranks_options(&b->ranks, &b->common, &b->parallel, (trm_parallel){1, 0, 0},
                               TRM_OBJECTIVE_LATENCY, &options);
    if (st == TRM_OK && options.parallel.data > 1)
        st = trm_fail(TRM_ERR_INVALID_ARG, "--parallel data=%d: bench times one replica",
                      options.parallel.data);
    options.parallel.data = 1;
    options.profile = b->profile;
    options.batch = b->batch;
    options.ctx = b;
    options.inputs = planned_inputs;
    TRM_CHECK(trm_ranks_open(&b->ranks, path, st, &options));
    if (trm_ranks_lead(&b->ranks, &st)) {
        st = lead(b);
        if (st != TRM_OK && st != TRM_ERR_COMM) { /* the others wait for the end */
            char text[512];

            snprintf(text, sizeof(text), "%s", trm_message());
            if (trm_replica_stop(b->ranks.model->replica) == TRM_OK)
                st = trm_fail(st, "%s", text);
        }
    }
    b->result.path = path;
    b->result.dtype = b->common.dtype;
    b->result.batch = b->batch;
    b->result.rounds = b->rounds;
    return trm_bench_report(&b->ranks, st, &b->result, b->json);
}

static trm_status bench_language(struct bench *b, const char *path)
{
    const trm_bench_language o = {.ranks = &b->ranks,
                                  .common = &b->common,
                                  .parallel = &b->parallel,
                                  .cli = &b->lm,
                                  .path = path,
                                  .batch = b->batch > 0 ? b->batch : 1,
                                  .prompt_tokens = b->prompt_tokens,
                                  .new_tokens = b->new_tokens,
                                  .warmup = b->warmup < 0 ? 1 : b->warmup,
                                  .rounds = b->rounds < 0 ? 3 : b->rounds,
                                  .seed = b->seed,
                                  .json = b->json,
                                  .profile = b->profile};

    if (b->inputs.count > 0 || b->dims.count > 0 || b->resident)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' is a language model: --input, --dim and --resident are not for it",
                        path);
    return trm_bench_language_on_ranks(&o);
}

static trm_status bench_any(struct bench *b, const char *path)
{
    TRM_CHECK(trm_common_apply(&b->common));
    if (trm_language_is(path))
        return bench_language(b, path);
    b->warmup = b->warmup < 0 ? 3 : b->warmup;
    b->rounds = b->rounds < 0 ? 20 : b->rounds;
    return on_ranks(b, path);
}

trm_status trm_cmd_bench(int argc, char **argv)
{
    struct bench b = {.common = TRM_COMMON_DEFAULTS,
                      .warmup = -1,
                      .rounds = -1,
                      .seed = 1,
                      .prompt_tokens = 128,
                      .new_tokens = 128,
                      .lm = TRM_LM_CLI_DEFAULTS,
                      .ranks = {.command = "bench"}};
    const trm_option options[] = {
        {"batch", TRM_OPTION_INT, "N", 1, 65536, NULL,
         "value of a free first dim; language models: sequences at once (1)", &b.batch},
        {"prompt-tokens", TRM_OPTION_INT, "N", 1, 1 << 24, NULL,
         "language models: random tokens of a prompt (128)", &b.prompt_tokens},
        {"new-tokens", TRM_OPTION_INT, "N", 1, 1 << 24, NULL,
         "language models: tokens of an answer (128)", &b.new_tokens},
        {"dim", TRM_OPTION_LIST, "NAME=N...", 0, 0, NULL, "values of other free dims", &b.dims},
        {"input", TRM_OPTION_LIST, "NAME=FILE.npy...", 0, 0, NULL,
         "inputs from files instead of random ones", &b.inputs},
        {"seed", TRM_OPTION_INT, "S", 0, INT64_MAX, NULL, "of the random inputs (1)", &b.seed},
        {"warmup", TRM_OPTION_INT, "N", 0, 1000000, NULL,
         "steps (language models: rounds) before timing (3; 1)", &b.warmup},
        {"rounds", TRM_OPTION_INT, "N", 1, 1000000, NULL, "timed steps (20; 3)", &b.rounds},
        {"resident", TRM_OPTION_FLAG, NULL, 0, 0, NULL,
         "inputs stay in the device's memory: uploads are not timed", &b.resident},
        {"json", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print one JSON object with every time",
         &b.json},
        {"profile", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print time per kernel to standard error",
         &b.profile},
        TRM_LM_ENGINE_OPTIONS(b.lm),
        TRM_PARALLEL_OPTIONS(b.parallel),
        TRM_DEVICE_OPTIONS(b.common),
    };
    trm_arguments args = {.command = "bench",
                          .usage = "MODEL [--batch N | --input NAME=FILE.npy...] [--rounds N] "
                                   "[--json], or --url URL ... for a server (--url URL --help)",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_status st;

    if (trm_bench_url_wanted(argc, argv))
        return trm_bench_url(argc, argv);
    TRM_CHECK(trm_job_init(&b.ranks.job));
    if (trm_ranks_silent(&b.ranks, argc, argv))
        return trm_ranks_end(&b.ranks, TRM_OK);
    st = trm_options_parse(&args, argc, argv);
    if (st == TRM_OK && !args.help)
        st = bench_any(&b, args.positionals[0]);
    trm_options_free_list(&b.inputs);
    trm_options_free_list(&b.dims);
    st = trm_ranks_end(&b.ranks, st);
    trm_arena_destroy(b.arena);
    return st;
}
