/* trireme plan: how ranks would share a model. Neither the ranks nor the devices are needed. */
#include "launch/commands.h"
#include "launch/inputs.h"
#include "launch/options.h"
#include "model/package.h"
#include "model/passes/passes.h"
#include "worker/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plan {
    trm_parallel_options parallel;
    trm_option_list dims;
    const char *device, *dtype;
    int64_t ranks, hosts, threads, batch;
    bool json, verbose;
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

static trm_status run_plan(const struct plan *c, const char *path)
{
    trm_plan_options o = {.ranks = (int)c->ranks, .dtype = trm_dtype_from_name(c->dtype)};
    int hosts = (int)c->hosts;
    int *host = place_ranks((int)c->ranks, hosts);
    trm_evaluator evaluator = {0};
    trm_device *device = NULL;
    trm_package *package = NULL;
    trm_arena *arena = NULL;
    trm_rates *rates = NULL;
    trm_tensor *inputs;
    trm_status st = TRM_OK;

    if (host == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%d ranks", (int)c->ranks);
    TRM_TRY(st, trm_parallel_apply(&c->parallel, &o), done);
    TRM_TRY(st, trm_package_open(path, &package), done);
    TRM_TRY(st, trm_device_cpu_create(0, &device), done);
    TRM_TRY(st, trm_evaluator_create(device, &evaluator), done);
    st = trm_pass_prepare(package->graph, &evaluator);
    if (st != TRM_OK) {
        st = trm_fail_context(st, "%s", path);
        goto done;
    }
    TRM_TRY(st, trm_arena_create(0, &arena), done);
    inputs = trm_arena_alloc(arena, (size_t)package->graph->input_count + 1, sizeof(trm_tensor));
    if (inputs == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "plan");
        goto done;
    }
    TRM_TRY(st, trm_inputs_shapes(package->graph, c->batch, &c->dims, 128, inputs), done);
    TRM_TRY(st, find_rates(c, device, &rates, &o.cores), done);
    o.rates = rates;
    o.inputs = inputs;
    o.hosts = host;
    o.threads = c->threads > 0 ? (int)c->threads
                               : default_threads(o.cores, (int)((c->ranks + hosts - 1) / hosts));
    st = make_and_print(c, package->graph, &o);
done:
    trm_rates_destroy(rates);
    trm_arena_destroy(arena);
    trm_evaluator_destroy(&evaluator);
    trm_package_close(package);
    trm_device_destroy(device);
    trm_free(host);
    return st;
}

trm_status trm_cmd_plan(int argc, char **argv)
{
    struct plan c = {.parallel = TRM_PARALLEL_DEFAULTS,
                     .device = "auto",
                     .dtype = "fp32",
                     .ranks = 1,
                     .hosts = 1,
                     .batch = 1};
    trm_common_options common = TRM_COMMON_DEFAULTS;
    const trm_option options[] = {
        {"ranks", TRM_OPTION_INT, "N", 1, 4096, NULL, "ranks to plan for (1)", &c.ranks},
        {"hosts", TRM_OPTION_INT, "N", 1, 4096, NULL, "hosts they are on, equally (1)", &c.hosts},
        {"device", TRM_OPTION_STRING, "D", 0, 0, NULL,
         "of every rank: cpu, cpu:16, cuda:80GiB, cuda:h200 (this machine's CPU)", &c.device},
        {"threads", TRM_OPTION_INT, "N", 0, 1024, NULL,
         "of each rank (0: its share of the host's cores)", &c.threads},
        {"dtype", TRM_OPTION_STRING, "T", 0, 0, "fp32|bf16|fp16",
         "precision of convolutions and matmuls (fp32)", &c.dtype},
        TRM_PARALLEL_OPTIONS(c.parallel),
        {"batch", TRM_OPTION_INT, "N", 1, 65536, NULL, "records of a step (1)", &c.batch},
        {"dim", TRM_OPTION_LIST, "NAME=N...", 0, 0, NULL, "values of other free dims (128)",
         &c.dims},
        {"json", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print one JSON object", &c.json},
        {"verbose", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "print what is split how, node by node",
         &c.verbose},
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
