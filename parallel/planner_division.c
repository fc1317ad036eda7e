/* The graph divided among a tensor group: strategies by the placement search, the graph of the rank
 * with the largest share, and what each of its nodes costs and holds. Made once for every tensor
 * size and memory limit, used by all layouts that have it. */
#include "model/passes/passes.h"
#include "parallel/lower.h"
#include "parallel/planner_impl.h"
#include "parallel/shapes.h"

#include <stdlib.h>
#include <string.h>

/* ---- names: which node of the lowered graph a finished one was ---- */

struct named {
    const char *name;
    int value;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static int find_value(const struct named *names, int count, const char *name)
{
    struct named key = {.name = name};
    const struct named *found = bsearch(&key, names, (size_t)count, sizeof(struct named), by_name);

    return found == NULL ? -1 : found->value;
}

static const char *input_name(const trm_graph *g, const trm_node *n, int i)
{
    return i < n->input_count && n->inputs[i] != TRM_NO_VALUE ? g->values[n->inputs[i]].name : "";
}

/* The node that `wanted` (of the finished graph) was before it took in what follows: `at`, or
 * upstream of it. -1: not within `depth`. */
static int find_host(const trm_graph *local, int at, const trm_graph *finished,
                     const trm_node *wanted, int depth)
{
    const trm_node *n = &local->nodes[at];

    if (n->op == wanted->op &&
        strcmp(input_name(local, n, 0), input_name(finished, wanted, 0)) == 0 &&
        strcmp(input_name(local, n, 1), input_name(finished, wanted, 1)) == 0)
        return at;
    for (int i = 0; depth > 0 && i < n->input_count; i++) {
        int v = n->inputs[i], made = v == TRM_NO_VALUE ? -1 : local->values[v].producer;
        int found = made < 0 ? -1 : find_host(local, made, finished, wanted, depth - 1);

        if (found >= 0)
            return found;
    }
    return -1;
}

static trm_status find_hosts(trmi_division *d)
{
    const trm_graph *local = d->local, *done = d->finished;
    struct named *names = trm_malloc((size_t)local->value_count + 1, sizeof(*names));

    if (names == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", local->node_count);
    for (int v = 0; v < local->value_count; v++)
        names[v] = (struct named){.name = local->values[v].name, .value = v};
    qsort(names, (size_t)local->value_count, sizeof(*names), by_name);
    for (int n = 0; n < done->node_count; n++) {
        const trm_node *node = &done->nodes[n];
        int last = 0;

        for (int i = 0; i < node->output_count; i++) {
            int v =
                node->outputs[i] == TRM_NO_VALUE
                    ? -1
                    : find_value(names, local->value_count, done->values[node->outputs[i]].name);

            if (v >= 0 && local->values[v].producer >= 0) {
                last = local->values[v].producer;
                break;
            }
        }
        d->host_of[n] = find_host(local, last, done, node, TRM_POST_MAX);
        if (d->host_of[n] < 0)
            d->host_of[n] = last;
        d->run_here[d->host_of[n]]++;
    }
    trm_free(names);
    return TRM_OK;
}

/* ---- costs ---- */

static size_t bytes_of(const trm_tensor *t)
{
    size_t bytes = 0;

    return trm_tensor_bytes(t, &bytes) == TRM_OK ? bytes : 0;
}

static bool is_collective(const trm_node *n)
{
    return (trm_op_get(n->op)->flags & TRM_OPF_COLLECTIVE) != 0;
}

/* Microseconds of a collective: priced by the bytes of the whole tensor. */
static double collective_us(const trm_cost_context *c, const trm_node *n, int ranks,
                            const trm_tensor *in, const trm_tensor *out)
{
    size_t in_bytes = bytes_of(in), out_bytes = bytes_of(out);

    switch (n->op) {
    case TRM_OP_TrmAllReduce:
        return trm_cost_collective_us(c, TRM_COLLECTIVE_ALLREDUCE, ranks, in_bytes);
    case TRM_OP_TrmReduceTree:
        return trm_cost_collective_us(c, TRM_COLLECTIVE_ALLREDUCE, ranks,
                                      out_bytes * (size_t)trm_attr_int(&n->attrs, "most", 1));
    case TRM_OP_TrmAllGather:
        return trm_cost_collective_us(c, TRM_COLLECTIVE_ALLGATHER, ranks, out_bytes);
    case TRM_OP_TrmReduceScatter:
        return trm_cost_collective_us(c, TRM_COLLECTIVE_REDUCE_SCATTER, ranks, in_bytes);
    case TRM_OP_TrmAllToAll:
        return trm_cost_collective_us(c, TRM_COLLECTIVE_ALLTOALL, ranks, in_bytes * (size_t)ranks);
    default:
        return trm_cost_collective_us(c, TRM_COLLECTIVE_SHARD, ranks, in_bytes);
    }
}

/* Of the residual and the norm that follow a sum in the same node: what they take as a node of
 * their own, which is an upper bound where the devices do all in one step. */
static double after_sum_us(const trm_cost_context *c, const trm_node *n, const trm_tensor *in,
                           const trm_tensor *out)
{
    trm_tensor of_norm[4] = {in[1], out[0]};
    trm_node norm = *n;

    if (n->op != TRM_OP_TrmReduceTree || n->input_count < 3)
        return 0;
    norm.op = TRM_OP_TrmAddNorm;
    for (int i = 2; i < n->input_count; i++)
        of_norm[i] = in[i];
    return trm_cost_node_us(c, &norm, of_norm, out, false);
}

double trmi_division_node_us(const trm_cost_context *c, const trmi_division *d,
                             const trm_tensor *descs, const trm_node *n, trm_tensor *in,
                             trm_tensor *out)
{
    for (int i = 0; i < n->input_count; i++)
        in[i] = n->inputs[i] == TRM_NO_VALUE ? (trm_tensor){0} : descs[n->inputs[i]];
    for (int i = 0; i < n->output_count; i++)
        out[i] = n->outputs[i] == TRM_NO_VALUE ? (trm_tensor){0} : descs[n->outputs[i]];
    if (!is_collective(n))
        return trm_cost_node_us(c, n, in, out, false);
    return collective_us(c, n, d->tensor, &in[0], &out[0]) + after_sum_us(c, n, in, out);
}

static int most_arguments(const trm_graph *g)
{
    int most = 1;

    for (int n = 0; n < g->node_count; n++) {
        most = g->nodes[n].input_count > most ? g->nodes[n].input_count : most;
        most = g->nodes[n].output_count > most ? g->nodes[n].output_count : most;
    }
    return most;
}

static size_t bytes_of_step(const trmi_division *d)
{
    size_t bytes = d->activation_bytes;

    for (int v = 0; v < d->local->value_count; v++)
        bytes += d->weight_bytes[v];
    return bytes;
}

trm_status trmi_division_costs(const trmi_planner *p, trmi_division *d, int busy_ranks,
                               trm_link_kind link, int stages, trmi_costs **costs_out)
{
    trm_cost_context c = {.rates = p->options->rates,
                          .threads = p->options->threads,
                          .busy_ranks = busy_ranks,
                          .link = link,
                          .staged = trmi_is_staged(p->options),
                          .dtype = p->options->dtype,
                          .step_bytes = bytes_of_step(d) / (size_t)stages};
    size_t nodes = (size_t)d->local->node_count + 1, most = (size_t)most_arguments(d->finished);
    trmi_costs *k;
    trm_tensor *in, *out;
    double dispatch = trm_cost_step_us(&c, 1, 1) - trm_cost_step_us(&c, 0, 1);

    for (k = d->costs; k != NULL; k = k->next) {
        if (k->busy_ranks == busy_ranks && k->link == link && k->step_bytes == c.step_bytes) {
            *costs_out = k;
            return TRM_OK;
        }
    }
    k = trm_arena_alloc(d->arena, 1, sizeof(*k));
    in = trm_arena_alloc(d->arena, most, sizeof(trm_tensor));
    out = trm_arena_alloc(d->arena, most, sizeof(trm_tensor));
    if (k != NULL) {
        k->node_us = trm_arena_alloc(d->arena, nodes, sizeof(double));
        k->dispatch_us = trm_arena_alloc(d->arena, nodes, sizeof(double));
    }
    if (k == NULL || in == NULL || out == NULL || k->node_us == NULL || k->dispatch_us == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", d->local->node_count);
    k->busy_ranks = busy_ranks;
    k->link = link;
    k->step_bytes = c.step_bytes;
    for (int n = 0; n < d->finished->node_count; n++) {
        const trm_node *node = &d->finished->nodes[n];
        double us = trmi_division_node_us(&c, d, d->finished_descs, node, in, out);

        if (d->host.copies_of != NULL)
            us += trm_cost_copies_us(&c, d->host.copies_of[n], d->host.copied[n]);

        k->node_us[d->host_of[n]] += us;
        k->dispatch_us[d->host_of[n]] += dispatch;
        *(is_collective(node) ? &k->collective_us : &k->compute_us) += us;
        k->all_dispatch_us += dispatch;
    }
    k->next = d->costs;
    d->costs = k;
    *costs_out = k;
    return TRM_OK;
}

/* ---- making it ---- */

/* Constants of the whole graph, as they are: what is known before anything is divided. */
static size_t constant_bytes(const trm_graph *g)
{
    size_t bytes = 0;

    for (int v = 0; v < g->value_count; v++)
        if (trm_graph_is_constant(g, v))
            bytes += g->values[v].bytes;
    return bytes;
}

static trm_status search(const trmi_planner *p, trmi_division *d, int busy_ranks,
                         trm_link_kind link)
{
    trm_cost_context c = {.rates = p->options->rates,
                          .threads = p->options->threads,
                          .busy_ranks = busy_ranks,
                          .link = link,
                          .staged = trmi_is_staged(p->options),
                          .dtype = p->options->dtype,
                          .step_bytes = constant_bytes(p->g) / (size_t)d->tensor};
    trm_placement_options options = {.weight_bytes_max = d->weight_max};
    trm_placement_costs costs = {0};
    trm_placement placement = {0};
    trm_status st = TRM_OK;

    TRM_CHECK(trm_sharding_create(p->g, p->descs, d->tensor, &d->sharding));
    TRM_TRY(st, trm_placement_costs_create(d->sharding, &c, &costs), done);
    TRM_TRY(st, trm_placement_search(d->sharding, &costs, &options, &placement), done);
    memcpy(d->strategy, placement.strategy, (size_t)p->g->node_count * sizeof(int));
    d->exact = placement.exact;
done:
    trm_placement_fini(&placement);
    trm_placement_costs_destroy(&costs);
    return st;
}

trm_status trmi_division_lower(trm_graph *g, const trm_sharding *s, const int *strategy, int shard,
                               trm_graph **local_out)
{
    return s == NULL ? trm_lower_cut(g, 0, g->node_count, local_out)
                     : trm_lower(s, strategy, shard, local_out);
}

static bool is_integer(trm_dtype t)
{
    return trm_dtype_is_signed_int(t) || trm_dtype_is_unsigned_int(t);
}

/* What a rank contributes to a collective; of a sum by the tree the rank that has most. */
static size_t contribution(const trmi_division *d, const trm_node *n)
{
    if (n->op == TRM_OP_TrmReduceTree)
        return d->value_bytes[n->outputs[0]] * (size_t)trm_attr_int(&n->attrs, "most", 1);
    return d->value_bytes[n->inputs[0]];
}

static void measure_values(trmi_division *d)
{
    const trm_graph *g = d->local;

    for (int v = 0; v < g->value_count; v++)
        d->value_bytes[v] = bytes_of(&d->descs[v]);
    for (int i = 0; i < g->input_count; i++) {
        d->input_bytes += d->value_bytes[g->inputs[i]];
        /* tokens, positions and the step's description are at hand on every stage */
        if (d->language && is_integer(d->descs[g->inputs[i]].dtype))
            d->value_bytes[g->inputs[i]] = 0;
    }
    for (int i = 0; i < g->output_count; i++)
        d->output_bytes += d->value_bytes[g->outputs[i]];
    for (int n = 0; n < g->node_count; n++) {
        int v = g->nodes[n].input_count > 0 ? g->nodes[n].inputs[0] : TRM_NO_VALUE;

        if (is_collective(&g->nodes[n]) && g->nodes[n].op != TRM_OP_TrmShard && v != TRM_NO_VALUE &&
            contribution(d, &g->nodes[n]) > d->slot_bytes)
            d->slot_bytes = contribution(d, &g->nodes[n]);
    }
}

static trm_status allocate(trmi_division *d)
{
    size_t values = (size_t)d->local->value_count + 1;

    d->descs = trm_arena_alloc(d->arena, values, sizeof(trm_tensor));
    d->finished_descs =
        trm_arena_alloc(d->arena, (size_t)d->finished->value_count + 1, sizeof(trm_tensor));
    d->host_of = trm_arena_alloc(d->arena, (size_t)d->finished->node_count + 1, sizeof(int));
    d->run_here = trm_arena_alloc(d->arena, (size_t)d->local->node_count + 1, sizeof(int));
    d->weight_bytes = trm_arena_alloc(d->arena, values, sizeof(size_t));
    d->weights = trm_arena_alloc(d->arena, values, sizeof(trmi_weights));
    d->value_bytes = trm_arena_alloc(d->arena, values, sizeof(size_t));
    d->kv_bytes = trm_arena_alloc(d->arena, (size_t)d->local->node_count + 1, sizeof(size_t));
    if (d->descs == NULL || d->finished_descs == NULL || d->host_of == NULL ||
        d->run_here == NULL || d->weight_bytes == NULL || d->weights == NULL ||
        d->value_bytes == NULL || d->kv_bytes == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", d->local->node_count);
    return TRM_OK;
}

static trm_status make(const trmi_planner *p, trmi_division *d, int busy_ranks, trm_link_kind link)
{
    trmi_holder holder = trmi_holder_of(p->options);

    if (d->tensor > 1) {
        trm_status st = search(p, d, busy_ranks, link);

        if (st == TRM_ERR_NO_MEMORY && d->weight_max > 0) {
            d->failed = st;
            (void)snprintf(d->why, sizeof(d->why), "%s", trm_message());
            return TRM_OK;
        }
        TRM_CHECK(st);
    }
    TRM_CHECK(trmi_division_lower(p->g, d->sharding, d->strategy, d->tensor - 1, &d->local));
    TRM_CHECK(trm_lower_cut(d->local, 0, d->local->node_count, &d->finished));
    TRM_CHECK(trm_pass_finish(d->finished));
    TRM_CHECK(allocate(d));
    TRM_CHECK(trm_shapes_bind(d->local, p->inputs, d->arena, d->descs));
    TRM_CHECK(trm_shapes_bind(d->finished, p->inputs, d->arena, d->finished_descs));
    TRM_CHECK(find_hosts(d));
    d->language = trmi_ledger_kv(d->local, p->options, d->kv_bytes);
    if (trm_rates_is_gpu(p->options->rates) && !d->language) /* those run there as a whole */
        TRM_CHECK(trm_host_part_find(d->finished, d->finished_descs, d->arena, &d->host));
    for (int n = 0; n < d->local->node_count; n++)
        d->all_kv_bytes += d->kv_bytes[n];
    trmi_ledger_weights(d->local, &holder, 0, d->local->node_count, d->weights);
    for (int v = 0; v < d->local->value_count; v++) {
        size_t packed = d->weights[v].packed, plain = d->weights[v].bytes - packed;

        d->weight_bytes[v] = d->weights[v].mapped == 0 ? packed + plain
                             : packed > plain          ? packed
                                                       : plain;
    }
    measure_values(d);
    return trmi_ledger_activations(d->finished, d->finished_descs, &holder, NULL, 0,
                                   d->finished->node_count, &d->activation_bytes);
}

trm_status trmi_division_get(trmi_planner *p, int tensor, size_t weight_max, int busy_ranks,
                             trm_link_kind link, trmi_division **division_out)
{
    trm_arena *arena = NULL;
    trmi_division *d;
    trm_status st;

    for (d = p->divisions; d != NULL; d = d->next) {
        if (d->tensor == tensor && d->weight_max == weight_max) {
            *division_out = d;
            return TRM_OK;
        }
    }
    TRM_CHECK(trm_arena_create(0, &arena));
    d = trm_arena_alloc(arena, 1, sizeof(*d));
    if (d != NULL)
        d->strategy = trm_arena_alloc(arena, (size_t)p->g->node_count + 1, sizeof(int));
    if (d == NULL || d->strategy == NULL) {
        trm_arena_destroy(arena);
        return trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", p->g->node_count);
    }
    d->arena = arena;
    d->tensor = tensor;
    d->weight_max = weight_max;
    d->exact = true;
    st = make(p, d, busy_ranks, link);
    if (st != TRM_OK) {
        trmi_divisions_destroy(d);
        return st;
    }
    d->next = p->divisions;
    p->divisions = d;
    *division_out = d;
    return TRM_OK;
}

void trmi_divisions_destroy(trmi_division *d)
{
    while (d != NULL) {
        trmi_division *next = d->next;

        trm_graph_destroy(d->finished);
        trm_graph_destroy(d->local);
        trm_sharding_destroy(d->sharding);
        trm_arena_destroy(d->arena);
        d = next;
    }
}
