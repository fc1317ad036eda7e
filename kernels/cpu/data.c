/* Checks, parameters and indices shared by the data-moving kernels. */
#include "kernels/cpu/data.h"

#include <inttypes.h>
#include <stdio.h>

trm_status trmi_data_no_posts(const trm_op_desc *desc)
{
    if (desc->post_count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s' takes no fused operations",
                        trm_op_get(desc->op)->name, desc->name);
    return TRM_OK;
}

trm_status trmi_data_plain(trm_op_desc *desc)
{
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    for (int i = 0; i < desc->output_count; i++)
        desc->outputs[i].layout = TRM_LAYOUT_PLAIN;
    return trmi_data_no_posts(desc);
}

trm_status trmi_data_ints(const trm_op_desc *desc, int input, int64_t *values, int max,
                          int *count_out)
{
    const trm_tensor *t;
    size_t n;

    *count_out = 0;
    if (!trmi_has_input(desc, input))
        return TRM_OK;
    t = &desc->inputs[input];
    TRM_CHECK(trm_tensor_elems(t, &n));
    if (n == 0)
        return TRM_OK;
    if (t->data == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': the value of input %d must be known here",
                        trm_op_get(desc->op)->name, desc->name, input);
    if (trm_dtype_is_float(t->dtype) || t->dtype == TRM_DTYPE_BOOL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d is %s, want integers",
                        trm_op_get(desc->op)->name, desc->name, input, trm_dtype_name(t->dtype));
    if (n > (size_t)max)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d has %zu elements, want at most %d",
                        trm_op_get(desc->op)->name, desc->name, input, n, max);
    for (size_t i = 0; i < n; i++)
        values[i] = trm_tensor_get_i64(t, i);
    *count_out = (int)n;
    return TRM_OK;
}

trm_status trmi_data_axis(const trm_op_desc *desc, int64_t axis, int rank, int *axis_out)
{
    if (axis < -rank || axis >= rank)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': axis %" PRId64 " for a tensor of rank %d, want %d to %d",
                        trm_op_get(desc->op)->name, desc->name, axis, rank, -rank, rank - 1);
    *axis_out = (int)(axis < 0 ? axis + rank : axis);
    return TRM_OK;
}

trm_status trmi_data_expect(const trm_op_desc *desc, int output, int rank, const int64_t *dims)
{
    trm_tensor want = {.rank = rank};
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];

    if (rank > TRM_RANK_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': result of rank %d, want at most %d",
                        trm_op_get(desc->op)->name, desc->name, rank, TRM_RANK_MAX);
    for (int i = 0; i < rank; i++)
        want.dims[i] = dims[i];
    if (!trm_tensor_same_shape(&want, &desc->outputs[output]))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': output %d is declared as %s, but is %s",
                        trm_op_get(desc->op)->name, desc->name, output,
                        trm_tensor_shape_text(&desc->outputs[output], a, sizeof(a)),
                        trm_tensor_shape_text(&want, b, sizeof(b)));
    return TRM_OK;
}

int trmi_storage_dims(const trm_tensor *t, int64_t dims[TRM_RANK_MAX + 1])
{
    int64_t block = (int64_t)trmi_layout_block(t->layout);

    for (int i = 0; i < t->rank; i++)
        dims[i] = t->dims[i];
    if (t->layout == TRM_LAYOUT_PLAIN || t->rank < 2)
        return t->rank;
    if (t->layout == TRM_LAYOUT_CHANNELS_LAST) {
        for (int i = 2; i < t->rank; i++)
            dims[i - 1] = t->dims[i];
        dims[t->rank - 1] = t->dims[1];
        return t->rank;
    }
    dims[1] = (t->dims[1] + block - 1) / block;
    dims[t->rank] = block;
    return t->rank + 1;
}

int trmi_storage_axis(const trm_tensor *t, int axis)
{
    if (t->layout != TRM_LAYOUT_CHANNELS_LAST || axis == 0 || t->rank < 2)
        return axis;
    return axis == 1 ? t->rank - 1 : axis - 1;
}

void trmi_where_set(trmi_where *w, const trm_op_desc *desc)
{
    w->op = desc->op;
    snprintf(w->name, sizeof(w->name), "%s", desc->name == NULL ? "" : desc->name);
}

trm_status trmi_index_dtype(const trm_op_desc *desc, int input)
{
    trm_dtype d = desc->inputs[input].dtype;

    if (d != TRM_DTYPE_I32 && d != TRM_DTYPE_I64)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': indices are %s, want i32 or i64",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(d));
    return TRM_OK;
}

trm_status trmi_index_load(const trmi_where *w, const void *indices, trm_dtype dtype, size_t count,
                           int64_t limit, int64_t *out)
{
    for (size_t i = 0; i < count; i++) {
        int64_t v = trmi_index_at(indices, dtype, i);

        if (v < -limit || v >= limit)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': index %" PRId64
                            " (element %zu) is out of range, want %" PRId64 " to %" PRId64,
                            trm_op_get(w->op)->name, w->name, v, i, -limit, limit - 1);
        out[i] = v < 0 ? v + limit : v;
    }
    return TRM_OK;
}
