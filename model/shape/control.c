/* Rules of If, Loop and Scan. They read what the pass has inferred of the bodies' outputs; with
 * concrete dims the executor runs the bodies and takes shapes from there, so what is not constant
 * may stay open. */
#include "model/shape/rule.h"

static const trm_graph *body(trmi_io io, const char *name)
{
    const trm_attr *a = trm_attr_find(&io->node->attrs, name);

    return a != NULL && a->kind == TRM_ATTR_GRAPH ? a->v.graph : NULL;
}

static const trm_tensor *body_output(const trm_graph *g, int k)
{
    return &g->values[g->outputs[k]].desc;
}

/* What two shapes have in common. */
static void merge(trm_tensor *into, const trm_tensor *other)
{
    if (into->dtype == TRM_DTYPE_NONE)
        into->dtype = other->dtype;
    if (into->rank != other->rank) {
        into->rank = -1;
        return;
    }
    for (int i = 0; i < into->rank; i++)
        if (into->dims[i] != other->dims[i])
            into->dims[i] = TRM_DIM_UNKNOWN;
}

trm_status trmi_rule_if(trmi_io io)
{
    const trm_graph *yes = body(io, "then_branch"), *no = body(io, "else_branch");

    if (yes == NULL || no == NULL)
        return trmi_shape_bad(io, "then_branch or else_branch is missing");
    if (yes->output_count < io->node->output_count || no->output_count < io->node->output_count)
        return trmi_shape_bad(io, "the branches have %d and %d outputs, the node %d",
                              yes->output_count, no->output_count, io->node->output_count);
    for (int k = 0; k < io->node->output_count; k++) {
        trm_tensor t = *body_output(yes, k);
        const trm_tensor *other = body_output(no, k);

        if (t.dtype != other->dtype && t.dtype != TRM_DTYPE_NONE && other->dtype != TRM_DTYPE_NONE)
            return trmi_shape_bad(io, "output %d is %s in one branch and %s in the other", k,
                                  trm_dtype_name(t.dtype), trm_dtype_name(other->dtype));
        merge(&t, other);
        trmi_shape_out(io, k, t.dtype, &t);
    }
    return TRM_OK;
}

/* `element` with dim `count` put in at `axis`. */
static trm_status stacked(trmi_io io, int k, const trm_tensor *element, int64_t axis, int64_t count)
{
    trm_tensor out = {.rank = -1};
    int at, from = 0;

    if (element->rank >= TRM_RANK_MAX)
        return trmi_shape_bad(io, "output %d would have more than %d dims", k, TRM_RANK_MAX);
    if (element->rank >= 0) {
        out.rank = element->rank + 1;
        TRM_CHECK(trmi_shape_axis(io, axis, out.rank, &at));
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = i == at ? count : element->dims[from++];
    }
    trmi_shape_out(io, k, element->dtype, &out);
    return TRM_OK;
}

/* trip count, condition, variables ..., captures ...; body: iteration, condition, variables ...,
 * captures ... -> condition, variables ..., scan elements ... */
trm_status trmi_rule_loop(trmi_io io)
{
    const trm_graph *g = body(io, "body");
    int64_t captures = trm_attr_int(&io->node->attrs, "captures", 0);
    int64_t vars = io->node->input_count - 2 - captures;

    if (g == NULL || captures < 0 || vars < 0)
        return trmi_shape_bad(io, "the body is missing or has other inputs than the node");
    if (g->output_count != io->node->output_count + 1 || vars > io->node->output_count)
        return trmi_shape_bad(io, "the body has %d outputs, the node %d; want one more in the body",
                              g->output_count, io->node->output_count);
    for (int k = 0; k < io->node->output_count; k++) {
        trm_tensor t = *body_output(g, k + 1);

        if (k < vars) { /* no iteration at all leaves the initial value */
            merge(&t, &io->in[2 + k]);
            trmi_shape_out(io, k, t.dtype, &t);
        } else {
            TRM_CHECK(stacked(io, k, &t, 0, TRM_DIM_UNKNOWN));
        }
    }
    return TRM_OK;
}

/* states ..., scan inputs ..., captures ...; body: states ..., elements ..., captures ... -> states
 * ..., elements ... */
trm_status trmi_rule_scan(trmi_io io)
{
    const trm_graph *g = body(io, "body");
    int64_t captures = trm_attr_int(&io->node->attrs, "captures", 0);
    int64_t scans = trm_attr_int(&io->node->attrs, "num_scan_inputs", 0);
    int64_t states = io->node->input_count - captures - scans, count = TRM_DIM_UNKNOWN;
    size_t in_axes_n, out_axes_n;
    const int64_t *in_axes = trm_attr_ints(&io->node->attrs, "scan_input_axes", &in_axes_n);
    const int64_t *out_axes = trm_attr_ints(&io->node->attrs, "scan_output_axes", &out_axes_n);

    if (g == NULL || captures < 0 || scans < 1 || states < 0 ||
        g->output_count != io->node->output_count || states > g->output_count)
        return trmi_shape_bad(io,
                              "the body does not fit: %lld states, %lld scan inputs, %d "
                              "outputs",
                              (long long)states, (long long)scans, io->node->output_count);
    for (int64_t i = 0; i < scans; i++) {
        const trm_tensor *in = &io->in[states + i];
        int axis;

        if (in->rank < 0)
            continue;
        TRM_CHECK(trmi_shape_axis(io, in_axes != NULL && (size_t)i < in_axes_n ? in_axes[i] : 0,
                                  in->rank, &axis));
        TRM_CHECK(trmi_shape_same(io, "lengths of the scan inputs", count, in->dims[axis], &count));
    }
    for (int k = 0; k < io->node->output_count; k++) {
        const trm_tensor *t = body_output(g, k);
        size_t at = (size_t)(k - states);

        if (k < states)
            trmi_shape_out(io, k, t->dtype, t);
        else
            TRM_CHECK(
                stacked(io, k, t, out_axes != NULL && at < out_axes_n ? out_axes[at] : 0, count));
    }
    return TRM_OK;
}
