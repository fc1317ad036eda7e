/* Lowering: walks the nodes, keeps track of which local value holds which form, and puts a change
 * where a form is wanted and not there. What a rank decides here depends on the plan alone, never
 * on the rank, so that all ranks get the same nodes. */
#include "parallel/lower_impl.h"

#include "model/shape/shape.h"

#include <stdio.h>
#include <string.h>

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "lowering");
}

/* ---- names and values ---- */

static trm_status name_of(const trmi_lower *lw, const char *base, const char *suffix, char *out)
{
    int n = snprintf(out, TRMI_NAME_MAX, "%.*s:%s", TRMI_NAME_MAX - 64, base, suffix);

    /* a file may have such names too, and long ones were cut */
    while (trm_graph_find_value(lw->g, out) >= 0 || trm_graph_find_value(lw->local, out) >= 0) {
        if (n + 2 > TRMI_NAME_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "no free name for '%.100s...:%s'", base, suffix);
        out[n++] = '\'';
        out[n] = '\0';
    }
    return TRM_OK;
}

trm_status trmi_lower_value(trmi_lower *lw, const char *base, const char *suffix,
                            const trm_tensor *desc, int *local_out)
{
    char name[TRMI_NAME_MAX];

    TRM_CHECK(name_of(lw, base, suffix, name));
    return trm_graph_add_value(lw->local, name, desc, local_out);
}

trm_status trmi_lower_constant(trmi_lower *lw, const char *base, const char *suffix,
                               const trm_tensor *tensor, int *local_out)
{
    char name[TRMI_NAME_MAX];

    TRM_CHECK(name_of(lw, base, suffix, name));
    return trm_graph_add_constant(lw->local, name, tensor, local_out);
}

trm_status trmi_lower_ints(trmi_lower *lw, const char *base, const char *suffix,
                           const int64_t *values, int count, int *local_out)
{
    trm_tensor t = {.dtype = TRM_DTYPE_I64,
                    .rank = 1,
                    .dims = {count},
                    .data = (void *)(uintptr_t)values}; /* read only: it is copied */

    return trmi_lower_constant(lw, base, suffix, &t, local_out);
}

trm_status trmi_lower_add(trmi_lower *lw, trm_op op, const char *name, const int *inputs, int count,
                          int output, int *node_out)
{
    return trm_graph_add_node(lw->local, op, name, inputs, count, &output, 1, node_out);
}

trm_tensor trmi_lower_desc(const trmi_lower *lw, int value, trm_form form)
{
    trm_tensor t = lw->g->values[value].desc;
    int d = (int)form - (int)TRM_FORM_SPLIT;

    t.data = NULL;
    if (d >= 0)
        t.dims[d] = trm_split_part(&lw->s->splits[value][d], lw->s->ranks, lw->rank);
    return t;
}

static const char *const suffixes[TRM_FORM_COUNT] = {"whole",  "partial", "split0", "split1",
                                                     "split2", "split3",  "split4", "split5",
                                                     "split6", "split7"};

/* `made`: by a change. The whole form of a graph output has the output's name. */
static trm_status new_form(trmi_lower *lw, int value, trm_form form, bool made, int *local_out)
{
    const char *name = lw->g->values[value].name;
    trm_tensor desc = trmi_lower_desc(lw, value, form);
    bool plain = lw->output[value] ? form == TRM_FORM_WHOLE : !made;

    if (plain)
        TRM_CHECK(trm_graph_add_value(lw->local, name, &desc, local_out));
    else
        TRM_CHECK(trmi_lower_value(lw, name, suffixes[form], &desc, local_out));
    lw->forms[value][form] = *local_out;
    return TRM_OK;
}

trm_status trmi_lower_result(trmi_lower *lw, int value, trm_form form, int *local_out)
{
    return new_form(lw, value, form, false, local_out);
}

/* ---- constants ---- */

/* Rank 0 has it, the others zeros: their sum is the constant. */
static trm_status partial_constant(trmi_lower *lw, int value, const char *name, int *local_out)
{
    trm_tensor zeros = trmi_lower_desc(lw, value, TRM_FORM_WHOLE);
    trm_status st;
    size_t bytes;

    if (lw->rank == 0)
        return trm_graph_add_part(lw->local, name, lw->g, value, -1, NULL, 0, local_out);
    TRM_CHECK(trm_tensor_bytes(&zeros, &bytes));
    zeros.data = trm_calloc(1, bytes == 0 ? 1 : bytes);
    if (zeros.data == NULL)
        return no_memory();
    st = trm_graph_add_constant(lw->local, name, &zeros, local_out);
    trm_free(zeros.data);
    return st;
}

static trm_status constant_form(trmi_lower *lw, int value, trm_form want, int *local_out)
{
    const trm_split *split;
    char name[TRMI_NAME_MAX];
    int64_t ranges[TRM_SPLIT_STRETCHES_MAX][2];

    if (want == TRM_FORM_WHOLE) {
        TRM_CHECK(trm_graph_add_part(lw->local, lw->g->values[value].name, lw->g, value, -1, NULL,
                                     0, local_out));
    } else {
        TRM_CHECK(name_of(lw, lw->g->values[value].name, suffixes[want], name));
        if (want == TRM_FORM_PARTIAL) {
            TRM_CHECK(partial_constant(lw, value, name, local_out));
        } else {
            split = &lw->s->splits[value][want - TRM_FORM_SPLIT];
            trm_split_ranges(split, lw->s->ranks, lw->rank, ranges);
            TRM_CHECK(trm_graph_add_part(lw->local, name, lw->g, value,
                                         (int)want - (int)TRM_FORM_SPLIT,
                                         (const int64_t(*)[2])ranges, split->count, local_out));
        }
    }
    lw->forms[value][want] = *local_out;
    return TRM_OK;
}

/* ---- changes ---- */

static trm_status set_split(trmi_lower *lw, trm_node *n, const char *axis, const char *sizes,
                            int value, trm_form form)
{
    int d = (int)form - (int)TRM_FORM_SPLIT;
    const trm_split *split = &lw->s->splits[value][d];
    trm_arena *arena = lw->local->arena;
    int64_t list[TRM_SPLIT_STRETCHES_MAX * 64];

    TRM_CHECK(trm_attr_set_int(&n->attrs, arena, axis, d));
    trm_split_sizes(split, lw->s->ranks, list);
    return trm_attr_set_ints(&n->attrs, arena, sizes, list,
                             (size_t)split->count * (size_t)lw->s->ranks);
}

static trm_status add_collective(trmi_lower *lw, int value, trm_change change, trm_form want,
                                 int *local_out)
{
    int from = lw->forms[value][change.from], node;
    trm_form split = change.from >= TRM_FORM_SPLIT ? change.from : want;
    trm_node *n;

    TRM_CHECK(new_form(lw, value, want, true, local_out));
    TRM_CHECK(trmi_lower_add(lw, change.op, lw->local->values[*local_out].name, &from, 1,
                             *local_out, &node));
    n = &lw->local->nodes[node];
    TRM_CHECK(trm_attr_set_int(&n->attrs, lw->local->arena, "ranks", lw->s->ranks));
    TRM_CHECK(trm_attr_set_int(&n->attrs, lw->local->arena, "rank", lw->rank));
    if (change.op == TRM_OP_TrmAllReduce)
        return TRM_OK;
    TRM_CHECK(set_split(lw, n, "axis", "sizes", value, split));
    if (change.op == TRM_OP_TrmAllToAll)
        TRM_CHECK(set_split(lw, n, "axis_to", "sizes_to", value, want));
    return TRM_OK;
}

/* Whole on rank 0, zeros elsewhere (chosen, not multiplied: masks hold infinities). */
static trm_status add_first_only(trmi_lower *lw, int value, int *local_out)
{
    int from = lw->forms[value][TRM_FORM_WHOLE], in[3];
    trm_dtype dtype = lw->g->values[value].desc.dtype;
    unsigned char is_first = lw->rank == 0;
    int64_t nothing = 0;
    trm_tensor t = {.dtype = TRM_DTYPE_BOOL, .rank = 0, .data = &is_first};

    if (lw->first == TRM_NO_VALUE)
        TRM_CHECK(trmi_lower_constant(lw, "trm", "first", &t, &lw->first));
    t = (trm_tensor){.dtype = dtype, .rank = 0, .data = &nothing};
    if (lw->zero[dtype] == TRM_NO_VALUE)
        TRM_CHECK(trmi_lower_constant(lw, "trm", trm_dtype_name(dtype), &t, &lw->zero[dtype]));
    in[0] = lw->first;
    in[1] = from;
    in[2] = lw->zero[dtype];
    TRM_CHECK(new_form(lw, value, TRM_FORM_PARTIAL, true, local_out));
    return trmi_lower_add(lw, TRM_OP_Where, lw->local->values[*local_out].name, in, 3, *local_out,
                          NULL);
}

trm_status trmi_lower_form(trmi_lower *lw, int value, trm_form want, int *local_out)
{
    uint32_t have = 0;
    trm_change change;

    if (lw->forms[value][want] != TRM_NO_VALUE) {
        *local_out = lw->forms[value][want];
        return TRM_OK;
    }
    if (want >= TRM_FORM_SPLIT &&
        !trm_sharding_can_split(lw->s, value, (int)want - (int)TRM_FORM_SPLIT))
        return trm_fail(TRM_ERR_INVALID_ARG, "plan: '%s' cannot be split along dim %d",
                        lw->g->values[value].name, (int)want - (int)TRM_FORM_SPLIT);
    if (trm_graph_is_constant(lw->g, value))
        return constant_form(lw, value, want, local_out);
    for (int f = 0; f < TRM_FORM_COUNT; f++)
        have |= (uint32_t)(lw->forms[value][f] != TRM_NO_VALUE) << f;
    if (have == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "plan: '%s' is read before it is made",
                        lw->g->values[value].name);
    change = trm_form_change(have, want);
    if (change.op == TRM_OP_Where)
        return add_first_only(lw, value, local_out);
    if (want == TRM_FORM_PARTIAL) { /* gathered first */
        TRM_CHECK(add_collective(lw, value, change, TRM_FORM_WHOLE, local_out));
        return add_first_only(lw, value, local_out);
    }
    return add_collective(lw, value, change, want, local_out);
}

/* ---- graphs ---- */

trm_status trmi_copy_attrs(trm_graph *to, trm_node *node, const trm_attrs *attrs)
{
    for (int i = 0; i < attrs->count; i++)
        TRM_CHECK(trm_attr_set(&node->attrs, to->arena, &attrs->items[i]));
    return TRM_OK;
}

trm_status trmi_graph_like(const trm_graph *g, trm_graph **graph_out)
{
    const trm_graph *root = g->root;
    trm_graph *made;
    trm_status st;

    TRM_CHECK(trm_graph_create(NULL, g->name, &made));
    made->opset = g->opset;
    made->format = trm_arena_strdup(made->arena, g->format);
    made->producer = trm_arena_strdup(made->arena, g->producer);
    if (made->format == NULL || made->producer == NULL) {
        st = no_memory();
        goto fail;
    }
    for (int i = 0; i < root->symbol_count; i++) {
        int64_t dim;

        TRM_TRY(st, trm_graph_symbol(made, root->symbols[i], &dim), fail);
        if (dim != -2 - (int64_t)i) {
            st = trm_fail(TRM_ERR_INVALID_ARG, "graph '%s': symbol '%s' is there twice", g->name,
                          root->symbols[i]);
            goto fail;
        }
    }
    *graph_out = made;
    return TRM_OK;
fail:
    trm_graph_destroy(made);
    return st;
}

static trm_status start(trmi_lower *lw)
{
    const trm_graph *g = lw->g;
    int *inputs;

    lw->forms = (int(*)[TRM_FORM_COUNT])trm_malloc((size_t)g->value_count + 1, sizeof(*lw->forms));
    lw->output = trm_calloc((size_t)g->value_count + 1, sizeof(bool));
    if (lw->forms == NULL || lw->output == NULL)
        return no_memory();
    for (int v = 0; v < g->value_count; v++)
        for (int f = 0; f < TRM_FORM_COUNT; f++)
            lw->forms[v][f] = TRM_NO_VALUE;
    for (int i = 0; i < g->output_count; i++)
        lw->output[g->outputs[i]] = true;
    lw->first = TRM_NO_VALUE;
    for (int i = 0; i < TRM_DTYPE_PLAIN_COUNT; i++)
        lw->zero[i] = TRM_NO_VALUE;
    inputs = (int *)trm_arena_alloc(lw->local->arena, (size_t)g->input_count + 1, sizeof(int));
    if (inputs == NULL)
        return no_memory();
    for (int i = 0; i < g->input_count; i++)
        TRM_CHECK(trmi_lower_result(lw, g->inputs[i], TRM_FORM_WHOLE, &inputs[i]));
    return trm_graph_set_inputs(lw->local, inputs, g->input_count);
}

static trm_status end(trmi_lower *lw)
{
    const trm_graph *g = lw->g;
    int *outputs =
        (int *)trm_arena_alloc(lw->local->arena, (size_t)g->output_count + 1, sizeof(int));

    if (outputs == NULL)
        return no_memory();
    for (int i = 0; i < g->output_count; i++)
        TRM_CHECK(trmi_lower_form(lw, g->outputs[i], TRM_FORM_WHOLE, &outputs[i]));
    TRM_CHECK(trm_graph_set_outputs(lw->local, outputs, g->output_count));
    TRM_CHECK(trm_graph_sort(lw->local));
    return trm_graph_infer(lw->local);
}

trm_status trm_lower(const trm_sharding *s, const int *strategy, int rank, trm_graph **local_out)
{
    trmi_lower lw = {.s = s, .g = s->graph, .rank = rank};
    trm_status st;

    if (rank < 0 || rank >= s->ranks)
        return trm_fail(TRM_ERR_INVALID_ARG, "plan: rank %d of %d", rank, s->ranks);
    TRM_TRY(st, trmi_graph_like(s->graph, &lw.local), fail);
    TRM_TRY(st, start(&lw), fail);
    for (int n = 0; n < s->graph->node_count; n++) {
        if (s->graph->nodes[n].op == TRM_OP_NONE)
            continue;
        if (!trm_sharding_possible(s, n, strategy[n])) {
            st = trm_fail(TRM_ERR_INVALID_ARG, "plan: node '%s' has no strategy %d",
                          s->graph->nodes[n].name, strategy[n]);
            goto fail;
        }
        TRM_TRY(st, trmi_lower_node(&lw, n, strategy[n]), fail);
    }
    TRM_TRY(st, end(&lw), fail);
    trm_free(lw.forms);
    trm_free(lw.output);
    *local_out = lw.local;
    return TRM_OK;
fail:
    trm_free(lw.forms);
    trm_free(lw.output);
    trm_graph_destroy(lw.local);
    return st;
}
