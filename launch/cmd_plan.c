/* trireme plan: how ranks would share a model. Neither the ranks nor the devices are needed. */
#include "launch/commands.h"
#include "launch/inputs.h"
#include "kernels/language.h"
#include "launch/lm_options.h"
#include "launch/options.h"
#include "model/package.h"
#include "model/passes/passes.h"
#include "worker/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plan {
    trm_parallel_options parallel;
    trm_option_list dims;
    const char *device, *dtype;
    int64_t ranks, hosts, threads, batch;
    bool json, verbose;
    trm_lm_cli lm;
};

/* The device planned for: this machine's CPU, or one described. `cores_out`: of a host; 0: devices
 * of their own, which do not share cores. */
static trm_status find_rates(const struct plan *c, trm_device *here, trm_rates **rates_out,
                             int *cores_out)
{
    trm_device_info info;

    if (strcmp(c->device, "auto") != 0 && strcmp(c->device, "cpu") != 0) {
        bool cpu = strncmp(c->device, "cpu:", 4) == 0;

        TRM_CHECK(trm_rates_describe(c->device, rates_out));
        *cores_out = cpu ? (int)strtol(c->device + 4, NULL, 10) : 0;
        return TRM_OK;
    }
    here->ops->info(here, &info);
    *cores_out = info.threads;
    return trm_rates_cpu(here, false, rates_out);
}

/* Ranks in equal stretches on `hosts` hosts, as launchers place them. */
static int *place_ranks(int ranks, int hosts)
{
    int *host = trm_malloc((size_t)ranks, sizeof(int));

    for (int r = 0; host != NULL && r < ranks; r++)
        host[r] = (int)((int64_t)r * hosts / ranks);
    return host;
}

static int default_threads(int cores, int ranks_of_host)
{
    return cores <= ranks_of_host ? 1 : cores / ranks_of_host;
}

static trm_status make_and_print(const struct plan *c, trm_graph *g, trm_plan_options *o)
{
    trm_plan *plan = NULL;
    trm_status st;

    TRM_CHECK(trm_plan_make(g, o, &plan));
    if (c->json) {
        trm_plan_print_json(plan, g, o, stdout);
        st = TRM_OK;
    } else {
        st = trm_plan_print(plan, g, o, c->verbose, stdout);
    }
    trm_plan_destroy(plan);
    return st;
}

/* What is planned for: a graph and shapes of its inputs, from either kind of model. */
struct planned {
    trm_package *package;
    trm_language *language;
    trm_graph *graph;
    trm_tensor *inputs;
    trm_phase phases[TRM_LM_PHASES];
};

static trm_status open_language(const struct plan *c, const char *path, trm_plan_options *o,
                                struct planned *p)
{
    trm_lm_options options = {.device_memory = trm_rates_is_gpu(o->rates)};
    const trm_common_options common = {.dtype = c->dtype};
    trm_scheduler_limits limits;
    trm_language_options lo;

    TRM_CHECK(trm_lm_cli_model(&c->lm, &common, &options));
    lo = trm_lm_language_options(&options);
    TRM_CHECK(trm_language_open(path, &lo, &p->language));
    p->graph = p->language->graph;
    TRM_CHECK(trm_lm_settle(p->language, &options, &limits, &o->kv_dtype));
    o->dtype = TRM_DTYPE_F32; /* it is in the graph */
    o->kv_tokens = limits.encoder ? 0 : (int64_t)limits.pages * TRM_KV_PAGE;
    o->kv_tokens_max = trm_lm_pages_max(&options, &limits) * TRM_KV_PAGE;
    if (options.device_memory && !limits.encoder) {
        trm_lm_phases(&limits, p->phases);
        o->phases = p->phases;
        o->phase_count = TRM_LM_PHASES;
    }
    TRM_CHECK(trm_pass_prepare(p->graph, NULL));
    return trm_lm_plan_inputs(p->graph, limits.step_tokens, limits.batch, &p->inputs);
}

static trm_status open_package(const struct plan *c, const char *path, trm_device *device,
                               struct planned *p)
{
    trm_evaluator evaluator = {0};
    trm_status st;

    TRM_CHECK(trm_package_open(path, &p->package));
    p->graph = p->package->graph;
    TRM_CHECK(trm_evaluator_create(device, &evaluator));
    st = trm_pass_prepare(p->graph, &evaluator);
    trm_evaluator_destroy(&evaluator);
    if (st != TRM_OK)
        return trm_fail_context(st, "%s", path);
    p->inputs = trm_calloc((size_t)p->graph->input_count + 1, sizeof(trm_tensor));
    if (p->inputs == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "plan");
    return trm_inputs_shapes(p->graph, c->batch, &c->dims, 128, p->inputs);
}

static trm_status run_plan(const struct plan *c, const char *path)
{
    trm_plan_options o = {.ranks = (int)c->ranks, .dtype = trm_dtype_from_name(c->dtype)};
    int hosts = (int)c->hosts;
    int *host = place_ranks((int)c->ranks, hosts);
    struct planned p = {0};
    trm_device *device = NULL;
    trm_rates *rates = NULL;
    trm_status st = TRM_OK;

    if (host == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%d ranks", (int)c->ranks);
    TRM_TRY(st, trm_parallel_apply(&c->parallel, &o), done);
    TRM_TRY(st, trm_device_cpu_create(0, &device), done);
    TRM_TRY(st, find_rates(c, device, &rates, &o.cores), done);
    o.rates = rates;
    TRM_TRY(st,
            trm_language_is(path) ? open_language(c, path, &o, &p)
                                  : open_package(c, path, device, &p),
            done);
    o.inputs = p.inputs;
    o.hosts = host;
    o.threads = c->threads > 0 ? (int)c->threads
                               : default_threads(o.cores, (int)((c->ranks + hosts - 1) / hosts));
    st = make_and_print(c, p.graph, &o);
done:
    trm_rates_destroy(rates);
    trm_free(p.inputs);
    trm_package_close(p.package);
    trm_language_close(p.language);
    trm_device_destroy(device);
    trm_free(host);
    return st;
}

trm_status trm_cmd_plan(int argc, char **argv)
{
    struct plan c = {.parallel = TRM_PARALLEL_DEFAULTS,
                     .device = "auto",
                     .dtype = trm_dtype_unsaid,
                     .ranks = 1,
                     .hosts = 1,
                     .batch = 1,
                     .lm = TRM_LM_CLI_DEFAULTS};
    trm_common_options common = TRM_COMMON_DEFAULTS;
    const trm_option options[] = {
        {"ranks", TRM_OPTION_INT, "N", 1, 4096, NULL, "ranks to plan for (1)", &c.ranks},
        {"hosts", TRM_OPTION_INT, "N", 1, 4096, NULL, "hosts they are on, equally (1)", &c.hosts},
        {"device", TRM_OPTION_STRING, "D", 0, 0, NULL,
         "of every rank: cpu, cpu:16, cuda:80GiB, cuda:h200 (this machine's CPU)", &c.device},
        {"threads", TRM_OPTION_INT, "N", 0, 1024, NULL,
         "of each rank (0: its share of the host's cores)", &c.threads},
        {"dtype", TRM_OPTION_STRING, "T", 0, 0, "fp32|bf16|fp16",
         "precision of convolutions and matmuls (fp32; language models on GPUs: as weights)",
         &c.dtype},
        TRM_PARALLEL_OPTIONS(c.parallel),
        {"batch", TRM_OPTION_INT, "N", 1, 65536, NULL, "records of a step (1)", &c.batch},
        {"dim", TRM_OPTION_LIST, "NAME=N...", 0, 0, NULL, "values of other free dims (128)",
         &c.dims},
        {"json", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print one JSON object", &c.json},
        {"verbose", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print what is split how, node by node",
         &c.verbose},
        TRM_LM_ENGINE_OPTIONS(c.lm),
        TRM_LOG_OPTION(common),
    };
    trm_arguments args = {.command = "plan",
                          .usage = "MODEL --ranks N [--device D] [--parallel LAYOUT] "
                                   "[--objective O] [--memory BYTES]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_status st = trm_options_parse(&args, argc, argv);

    if (st == TRM_OK && !args.help)
        st = trm_common_apply(&common);
    if (st == TRM_OK && !args.help && c.ranks % c.hosts != 0)
        st = trm_fail(TRM_ERR_INVALID_ARG,
                      "--hosts %d: %d ranks cannot be on them equally; want a divisor of --ranks",
                      (int)c.hosts, (int)c.ranks);
    if (st == TRM_OK && !args.help)
        st = run_plan(&c, args.positionals[0]);
    trm_options_free_list(&c.dims);
    return st;
}
