/* trireme inspect: what a model is. */
#include "launch/commands.h"
#include "launch/inspect_language.h"
#include "launch/options.h"
#include "model/language/language.h"
#include "model/package.h"
#include "model/passes/passes.h"
#include "model/shape/shape.h"
#include "parallel/host_part.h"
#include "parallel/shapes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_shape(const trm_graph *g, const trm_tensor *t)
{
    if (t->rank < 0) {
        printf("[unknown rank]");
        return;
    }
    printf("[");
    for (int i = 0; i < t->rank; i++) {
        const char *name = trm_graph_dim_name(g, t->dims[i]);

        printf("%s", i > 0 ? ", " : "");
        if (name != NULL)
            printf("%s", name);
        else
            printf("%" PRId64, t->dims[i]);
    }
    printf("]");
}

static void print_values(const char *title, const trm_graph *g, const int *values, int count)
{
    for (int i = 0; i < count; i++) {
        const trm_value *v = &g->values[values[i]];

        printf("%-12s %s %s ", i == 0 ? title : "", v->name, trm_dtype_name(v->desc.dtype));
        print_shape(g, &v->desc);
        printf("\n");
    }
}

static void count_operators(const trm_graph *g, int *counts)
{
    for (int n = 0; n < g->node_count; n++) {
        counts[g->nodes[n].op]++;
        for (int i = 0; i < g->nodes[n].attrs.count; i++)
            if (g->nodes[n].attrs.items[i].kind == TRM_ATTR_GRAPH)
                count_operators(g->nodes[n].attrs.items[i].v.graph, counts);
    }
}

static void print_operators(const char *title, const trm_graph *g)
{
    int counts[TRM_OP_COUNT] = {0};
    bool first = true;

    count_operators(g, counts);
    printf("%-12s %d nodes:", title, g->node_count);
    for (;;) { /* most frequent first; ties by name */
        int best = 0;

        for (int i = 1; i < TRM_OP_COUNT; i++)
            if (counts[i] > counts[best])
                best = i;
        if (counts[best] == 0)
            break;
        printf("%s %s %d", first ? "" : ",", trm_op_get((trm_op)best)->name, counts[best]);
        counts[best] = 0;
        first = false;
    }
    printf("\n");
}

/* What runs on the device and what beside it, with free dims as `plan` takes them. A dtype that a
 * kernel refuses shows only when a model is loaded. */
static trm_status print_places(trm_graph *g)
{
    trm_host_part part;
    trm_arena *arena = NULL;
    trm_tensor *inputs, *descs;
    char text[400];
    int kernels = 0;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &arena));
    inputs = trm_arena_alloc(arena, (size_t)g->input_count + 1, sizeof(trm_tensor));
    descs = trm_arena_alloc(arena, (size_t)g->value_count + 1, sizeof(trm_tensor));
    if (inputs == NULL || descs == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "inspect");
        goto done;
    }
    trm_shapes_inputs(g, 1, 128, inputs);
    TRM_TRY(st, trm_shapes_bind(g, inputs, arena, descs), done);
    TRM_TRY(st, trm_host_part_find(g, descs, arena, &part), done);
    for (int n = 0; n < g->node_count; n++)
        kernels += part.on_host[n] ? 0 : 1;
    printf("%-12s %d nodes\n", "on cuda", kernels);
    printf("%-12s %d nodes", "on the CPU", part.nodes);
    if (part.nodes > 0)
        printf(": %s; %d copies, %.1f MB a step", trm_host_part_text(&part, text, sizeof(text)),
               part.copies, (double)part.copied_bytes / 1e6);
    if (part.followers > 0)
        printf("; %d small nodes follow them", part.followers);
    printf("\n");
done:
    trm_arena_destroy(arena);
    return st;
}

static size_t constant_bytes(const trm_graph *g)
{
    size_t total = 0;

    for (int v = 0; v < g->value_count; v++)
        if (g->values[v].desc.data != NULL)
            total += g->values[v].bytes;
    return total;
}

trm_status trm_cmd_inspect(int argc, char **argv)
{
    trm_common_options common = TRM_COMMON_DEFAULTS;
    const char *device = "cpu";
    bool raw = false;
    const trm_option options[] = {
        {"raw", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "as imported, without passes", &raw},
        {"device", TRM_OPTION_STRING, "D", 0, 0, "cpu|cuda",
         "cuda: what has a kernel there, and what runs on the CPU beside it", &device},
        TRM_LOG_OPTION(common),
    };
    trm_arguments args = {.command = "inspect",
                          .usage = "MODEL [--device cuda]",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_package *p = NULL;
    trm_graph *g;
    trm_status st = TRM_OK;

    TRM_CHECK(trm_options_parse(&args, argc, argv));
    if (args.help)
        return TRM_OK;
    TRM_CHECK(trm_common_apply(&common));
    if (trm_language_is(args.positionals[0]))
        return trm_inspect_language(args.positionals[0], strcmp(device, "cuda") == 0);
    TRM_CHECK(trm_package_open(args.positionals[0], &p));
    g = p->graph;
    printf("%-12s %s\n%-12s %s, opset %" PRId64 "%s%s\n", "model", p->model_path, "format",
           g->format, g->opset, g->producer[0] != '\0' ? ", by " : "", g->producer);
    printf("%-12s %" PRId64 " in %.1f MB of constants\n", "parameters",
           trm_graph_parameter_count(g), (double)constant_bytes(g) / 1e6);
    print_operators("operators", g);
    st = raw ? trm_graph_infer(g) : trm_pass_all(g, NULL);
    if (st == TRM_OK) {
        print_values("inputs", g, g->inputs, g->input_count);
        print_values("outputs", g, g->outputs, g->output_count);
        if (!raw)
            print_operators("fused", g);
        if (!raw && strcmp(device, "cuda") == 0)
            st = print_places(g);
        if (p->label_count > 0)
            printf("%-12s %d\n", "labels", p->label_count);
        if (p->has_preprocess)
            printf("%-12s from the YAML beside the model\n", "images");
    } else {
        st = trm_fail_context(st, "%s", args.positionals[0]);
    }
    trm_package_close(p);
    return st;
}
