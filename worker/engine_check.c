/* Are these the inputs that the graph wants? */
#include "worker/engine_impl.h"

#include <inttypes.h>
#include <stdio.h>

static trm_status dim_mismatch(const trm_graph *g, const trm_value *v, const trm_tensor *got)
{
    char want_text[TRM_SHAPE_TEXT_BYTES] = "[", got_text[TRM_SHAPE_TEXT_BYTES];
    size_t n = 1;

    for (int d = 0; d < v->desc.rank && n + 40 < sizeof(want_text); d++) {
        const char *name = trm_graph_dim_name(g, v->desc.dims[d]);

        if (name != NULL)
            n += (size_t)snprintf(want_text + n, sizeof(want_text) - n, "%s%.30s",
                                  d > 0 ? ", " : "", name);
        else
            n += (size_t)snprintf(want_text + n, sizeof(want_text) - n, "%s%" PRId64,
                                  d > 0 ? ", " : "", v->desc.dims[d]);
    }
    snprintf(want_text + n, sizeof(want_text) - n, "]");
    return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is %s, the model wants %s", v->name,
                    trm_tensor_shape_text(got, got_text, sizeof(got_text)), want_text);
}

trm_status trmi_inputs_check(const trm_graph *g, const int *last_use, const trm_tensor *inputs)
{
    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];
        const trm_tensor *t = &inputs[i];
        size_t bytes;

        if (v->desc.dtype != TRM_DTYPE_NONE && t->dtype != v->desc.dtype)
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is %s, the model wants %s", v->name,
                            trm_dtype_name(t->dtype), trm_dtype_name(v->desc.dtype));
        TRM_CHECK(trm_tensor_bytes(t, &bytes));
        if (last_use[g->inputs[i]] < 0)
            continue; /* nothing reads it */
        if (bytes > 0 && t->data == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' has no data", v->name);
        if (v->desc.rank < 0)
            continue; /* nothing declared */
        if (t->rank != v->desc.rank)
            return dim_mismatch(g, v, t);
        for (int d = 0; d < t->rank; d++) {
            int64_t want = v->desc.dims[d];

            if (want >= 0 && t->dims[d] != want)
                return dim_mismatch(g, v, t);
            if (!trm_dim_is_symbol(want))
                continue;
            for (int j = 0; j <= i; j++) { /* the same symbol elsewhere must have the same value */
                const trm_tensor *other = &g->values[g->inputs[j]].desc;

                if (last_use[g->inputs[j]] < 0)
                    continue; /* may have any shape */
                for (int k = 0; k < other->rank; k++)
                    if (other->dims[k] == want && (j < i || k < d) &&
                        inputs[j].dims[k] != t->dims[d])
                        return trm_fail(TRM_ERR_INVALID_ARG,
                                        "input '%s': dim %d ('%s') is %" PRId64
                                        ", but '%s' has %" PRId64 " for it",
                                        v->name, d, trm_graph_dim_name(g, want), t->dims[d],
                                        g->values[g->inputs[j]].name, inputs[j].dims[k]);
            }
        }
    }
    return TRM_OK;
}

trm_status trm_engine_check(const trm_engine *e, const trm_tensor *inputs)
{
    return trmi_inputs_check(e->graph, e->last_use, inputs);
}
