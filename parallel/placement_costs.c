/* Costs of the placement search from measured rates: nodes by their local shapes on the rank with
 * the largest share, changes of form by the bytes of the whole value.
 *
 * What will be fused into its producer costs next to nothing, but only while the producer's form
 * reaches it unchanged. A node's strategy alone does not say that; the change does: the value
 * between the two has one reader, so a change of it is exactly what breaks the fusion. So a node
 * to be fused is priced as fused, and a change of the value before it pays the difference for it
 * and for what would have been fused after it. */
#include "parallel/placement.h"
#include "parallel/sharding_impl.h"

#include <math.h>
#include <string.h>

#define NORM_PASSES 4 /* element-wise nodes that a norm in pieces becomes, against one kernel */

typedef struct costs_ctx {
    const trm_cost_context *cost;
    trm_arena *arena;
    double **node_us; /* [node_count][strategies], negative: not known yet */
    int *fused_next;  /* [value_count] the node that will be fused onto this value's maker, or -1 */
    bool *fused;      /* [node_count] */
    trm_tensor *in, *out; /* scratch: the most inputs and outputs of any node */
} costs_ctx;

static bool is_host(trm_op op)
{
    return op == TRM_OP_Conv || op == TRM_OP_ConvTranspose || op == TRM_OP_MatMul ||
           op == TRM_OP_Gemm;
}

static bool is_unary_post(trm_op op)
{
    switch (op) {
    case TRM_OP_Relu:
    case TRM_OP_Clip:
    case TRM_OP_Sigmoid:
    case TRM_OP_Tanh:
    case TRM_OP_Gelu:
    case TRM_OP_LeakyRelu:
    case TRM_OP_Elu:
    case TRM_OP_HardSigmoid:
    case TRM_OP_HardSwish:
    case TRM_OP_TrmSilu:
        return true;
    default:
        return false;
    }
}

/* Same shape, or a constant with one element a channel (or one in all). */
static bool operand_fits(const trm_sharding *s, trm_op host, int made, int other)
{
    const trm_tensor *out = &s->descs[made], *t = &s->descs[other];
    int axis = host == TRM_OP_Conv || host == TRM_OP_ConvTranspose ? 1 : out->rank - 1;

    if (t->dtype != out->dtype)
        return false;
    if (trm_tensor_same_shape(t, out))
        return true;
    if (!trm_graph_is_constant(s->graph, other) || t->rank > out->rank)
        return false;
    for (int i = 0; i < t->rank; i++) {
        int d = out->rank - t->rank + i;

        if (t->dims[i] != 1 && !(d == axis && t->dims[i] == out->dims[d]))
            return false;
    }
    return true;
}

/* May node `n` become a post-op of `host`, whose running result is `made`? As model/passes does. */
static bool may_fuse(const trm_sharding *s, trm_op host, int made, const trm_node *n)
{
    if (n->post_count > 0 || n->output_count != 1 ||
        s->descs[n->outputs[0]].dtype != s->descs[made].dtype)
        return false;
    if (n->op == TRM_OP_Add || n->op == TRM_OP_Mul) {
        int other = n->inputs[0] == made ? n->inputs[1] : n->inputs[0];

        return n->inputs[0] != n->inputs[1] && operand_fits(s, host, made, other);
    }
    return is_unary_post(n->op) && n->inputs[0] == made;
}

static trm_status find_fused(const trm_sharding *s, costs_ctx *c)
{
    const trm_graph *g = s->graph;
    int *uses = trm_calloc((size_t)g->value_count + 1, sizeof(int));
    int *reader = trm_calloc((size_t)g->value_count + 1, sizeof(int));

    if (uses == NULL || reader == NULL) {
        trm_free(uses);
        trm_free(reader);
        return trm_fail(TRM_ERR_NO_MEMORY, "placement costs: %d values", g->value_count);
    }
    for (int i = 0; i < g->output_count; i++)
        uses[g->outputs[i]] += 2; /* must exist as it is: never fused over */
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] != TRM_NO_VALUE) {
                uses[g->nodes[n].inputs[i]]++;
                reader[g->nodes[n].inputs[i]] = n;
            }
    for (int v = 0; v < g->value_count; v++)
        c->fused_next[v] = -1;
    /* backwards: where a sum joins two products the later one takes it */
    for (int h = g->node_count - 1; h >= 0; h--) {
        const trm_node *host = &g->nodes[h];
        int v = is_host(host->op) ? host->outputs[0] : TRM_NO_VALUE;

        for (int posts = host->post_count; v != TRM_NO_VALUE && posts < TRM_POST_MAX; posts++) {
            int n = reader[v];

            if (uses[v] != 1 || c->fused[n] || !may_fuse(s, host->op, v, &g->nodes[n]))
                break;
            c->fused[n] = true;
            c->fused_next[v] = n;
            v = g->nodes[n].outputs[0];
        }
    }
    trm_free(uses);
    trm_free(reader);
    return TRM_OK;
}

/* The last rank has the largest share: units [u*(R-1)/R, u) of a stretch of u. */
static int largest_rank(const trm_sharding *s)
{
    return s->ranks - 1;
}

/* A norm over a split dim: several passes over the part, all-reduces of an element a row. */
static double reduced_us(const costs_ctx *c, const trm_sharding *s, int n, const trm_axis *axis,
                         double us)
{
    const trm_tensor *y = &s->descs[s->graph->nodes[n].outputs[0]];
    int64_t first = trm_attr_int(&s->graph->nodes[n].attrs, "axis", -1);
    size_t rows = trm_tensor_count(y, 0, (int)(first < 0 ? first + y->rank : first));

    return NORM_PASSES * us +
           axis->reductions * trm_cost_collective_us(c->cost, TRM_COLLECTIVE_ALLREDUCE, s->ranks,
                                                     rows * trm_dtype_bytes(y->dtype));
}

/* The sum of what ranks hold of the tree, each at most `most` vectors as large as the output. */
static double tree_us(const costs_ctx *c, const trm_sharding *s, int n, const trm_axis *axis,
                      double us)
{
    const trm_tensor *y = &s->descs[s->graph->nodes[n].outputs[0]];
    size_t bytes = 0;

    if (trm_tensor_bytes(y, &bytes) != TRM_OK)
        bytes = 0; /* descs are concrete */
    return us + trm_cost_collective_us(c->cost, TRM_COLLECTIVE_ALLREDUCE, s->ranks,
                                       bytes * (size_t)trmi_axis_leaves(s, n, axis, 0).most);
}

static double node_cost(const costs_ctx *c, const trm_sharding *s, int n, int strategy)
{
    const trm_node *node = &s->graph->nodes[n];
    const trm_axes *axes = &s->axes[n];
    const trm_axis *axis =
        strategy >= 1 && strategy <= axes->axis_count ? &axes->axes[strategy - 1] : NULL;
    int rank = largest_rank(s);
    double us;

    for (int i = 0; i < node->input_count; i++)
        c->in[i] = node->inputs[i] == TRM_NO_VALUE
                       ? (trm_tensor){0}
                       : trm_sharding_local(s, node->inputs[i],
                                            trm_sharding_wants(s, n, strategy, i), rank);
    for (int i = 0; i < node->output_count; i++)
        c->out[i] = node->outputs[i] == TRM_NO_VALUE
                        ? (trm_tensor){0}
                        : trm_sharding_local(s, node->outputs[i],
                                             trm_sharding_yields(s, n, strategy, i), rank);
    us = trm_cost_node_us(c->cost, node, c->in, c->out, c->fused[n]);
    if (axis != NULL && axis->tree)
        return tree_us(c, s, n, axis, us);
    return axis == NULL || axis->reductions == 0 ? us : reduced_us(c, s, n, axis, us);
}

static double node_us(void *ctx, const trm_sharding *s, int node, int strategy)
{
    costs_ctx *c = ctx;
    double *us = &c->node_us[node][strategy];

    if (*us < 0)
        *us = node_cost(c, s, node, strategy);
    return *us;
}

static trm_tensor local_if(const trm_sharding *s, int value, trm_form form)
{
    if (form >= TRM_FORM_SPLIT && !trm_sharding_can_split(s, value, (int)form - TRM_FORM_SPLIT))
        form = TRM_FORM_WHOLE;
    return trm_sharding_local(s, value, form, largest_rank(s));
}

/* What the nodes that would have been fused onto `value` cost more when they are not; elementwise,
 * so they run in the form they find. */
static double unfused_us(const costs_ctx *c, const trm_sharding *s, int value, trm_form form)
{
    double sum = 0;

    for (int n = c->fused_next[value]; n >= 0; n = c->fused_next[value]) {
        const trm_node *node = &s->graph->nodes[n];

        for (int i = 0; i < node->input_count; i++) {
            int v = node->inputs[i];
            bool same = v != TRM_NO_VALUE && trm_tensor_same_shape(&s->descs[v], &s->descs[value]);

            c->in[i] = v == TRM_NO_VALUE ? (trm_tensor){0}
                       : same            ? local_if(s, v, form)
                                         : s->descs[v];
        }
        value = node->outputs[0];
        c->out[0] = local_if(s, value, form);
        sum += trm_cost_node_us(c->cost, node, c->in, c->out, false) -
               trm_cost_node_us(c->cost, node, c->in, c->out, true);
    }
    return sum > 0 ? sum : 0;
}

static trm_collective collective_of(trm_op op)
{
    switch (op) {
    case TRM_OP_TrmAllReduce:
        return TRM_COLLECTIVE_ALLREDUCE;
    case TRM_OP_TrmAllGather:
        return TRM_COLLECTIVE_ALLGATHER;
    case TRM_OP_TrmReduceScatter:
        return TRM_COLLECTIVE_REDUCE_SCATTER;
    case TRM_OP_TrmAllToAll:
        return TRM_COLLECTIVE_ALLTOALL;
    default: /* TrmShard */
        return TRM_COLLECTIVE_SHARD;
    }
}

static double change_us(void *ctx, const trm_sharding *s, int value, trm_change change,
                        trm_form want)
{
    costs_ctx *c = ctx;
    size_t bytes = 0;
    double us, copy_us;

    if (change.op == TRM_OP_NONE)
        return 0;
    if (trm_tensor_bytes(&s->descs[value], &bytes) != TRM_OK)
        bytes = 0; /* descs are concrete */
    /* a partial sum of a whole value is a copy on one rank and zeros on the others: no rank deals
     * with a part of it */
    copy_us = trm_cost_collective_us(c->cost, TRM_COLLECTIVE_SHARD, 1, bytes);
    if (change.op == TRM_OP_Where)
        return copy_us + unfused_us(c, s, value, want);
    us = trm_cost_collective_us(c->cost, collective_of(change.op), s->ranks, bytes);
    if (change.op == TRM_OP_TrmAllGather && want == TRM_FORM_PARTIAL)
        us += copy_us;
    return us + unfused_us(c, s, value, want);
}

trm_status trm_placement_costs_create(const trm_sharding *s, const trm_cost_context *cost,
                                      trm_placement_costs *costs_out)
{
    const trm_graph *g = s->graph;
    trm_arena *arena = NULL;
    costs_ctx *c;
    int most = 1;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &arena));
    c = trm_arena_alloc(arena, 1, sizeof(*c));
    if (c == NULL)
        goto no_memory;
    c->arena = arena;
    c->cost = cost;
    c->node_us = trm_arena_alloc(arena, (size_t)g->node_count + 1, sizeof(*c->node_us));
    c->fused = trm_arena_alloc(arena, (size_t)g->node_count + 1, sizeof(*c->fused));
    c->fused_next = trm_arena_alloc(arena, (size_t)g->value_count + 1, sizeof(*c->fused_next));
    if (c->node_us == NULL || c->fused == NULL || c->fused_next == NULL)
        goto no_memory;
    for (int n = 0; n < g->node_count; n++) {
        int strategies = trm_sharding_strategy_count(s, n);

        c->node_us[n] = trm_arena_alloc(arena, (size_t)strategies, sizeof(double));
        if (c->node_us[n] == NULL)
            goto no_memory;
        for (int i = 0; i < strategies; i++)
            c->node_us[n][i] = -1;
        most = g->nodes[n].input_count > most ? g->nodes[n].input_count : most;
        most = g->nodes[n].output_count > most ? g->nodes[n].output_count : most;
    }
    c->in = trm_arena_alloc(arena, (size_t)most, sizeof(*c->in));
    c->out = trm_arena_alloc(arena, (size_t)most, sizeof(*c->out));
    if (c->in == NULL || c->out == NULL)
        goto no_memory;
    TRM_TRY(st, find_fused(s, c), fail);
    *costs_out = (trm_placement_costs){.ctx = c, .node_us = node_us, .change_us = change_us};
    return TRM_OK;

no_memory:
    st = trm_fail(TRM_ERR_NO_MEMORY, "placement costs: %d nodes", g->node_count);
fail:
    trm_arena_destroy(arena);
    return st;
}

void trm_placement_costs_destroy(trm_placement_costs *costs)
{
    costs_ctx *c = costs != NULL ? costs->ctx : NULL;

    if (c == NULL)
        return;
    trm_arena_destroy(c->arena);
    *costs = (trm_placement_costs){0};
}
