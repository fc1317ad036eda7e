/* What the prepare functions of the moving kernels share, and the check of run-time indices. */
#include "kernels/cuda/move.h"

#include <inttypes.h>
#include <stdio.h>

void trmi_cuda_steps(int rank, const int64_t *dims, int64_t *steps)
{
    int64_t step = 1;

    for (int i = rank - 1; i >= 0; i--) {
        steps[i] = step;
        step *= dims[i];
    }
}

trm_status trmi_cuda_expect(const trm_op_desc *desc, int output, int rank, const int64_t *dims)
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

trm_status trmi_cuda_index_dtype(const trm_op_desc *desc, int input)
{
    trm_dtype d = desc->inputs[input].dtype;

    if (d != TRM_DTYPE_I32 && d != TRM_DTYPE_I64)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': indices are %s, want i32 or i64",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(d));
    return TRM_OK;
}

trm_layout trmi_cuda_move_layout(trm_layout layout, int rank)
{
    return layout == TRM_LAYOUT_CHANNELS_LAST && rank >= 3 ? layout : TRM_LAYOUT_PLAIN;
}

bool trmi_cuda_move_known_good(const trm_op_desc *desc, int input, int depth, const int64_t *limits)
{
    const trm_tensor *t = &desc->inputs[input];

    if (t->data == NULL)
        return false;
    for (size_t i = 0; i < trm_tensor_numel(t); i++) {
        int64_t v = trm_tensor_get_i64(t, i), limit = limits[i % (size_t)depth];

        if (v < -limit || v >= limit)
            return false;
    }
    return true;
}

trm_status trmi_cuda_move_checked_new(trm_cuda *cuda, const trm_op_desc *desc, bool known_good,
                                      size_t bytes, const trm_kernel_ops *ops, void *kernel_out)
{
    trmi_move_checked *k;
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_cuda_kernel_new(cuda, bytes, ops, &k));
    k->note = -1;
    if (!known_good)
        st = trmi_cuda_note_take(cuda, desc->op, desc->name, &k->note);
    if (st != TRM_OK) {
        trm_free(k);
        return st;
    }
    *(trmi_move_checked **)kernel_out = k;
    return TRM_OK;
}

void trmi_cuda_move_checked_free(trm_kernel *base)
{
    trmi_move_checked *k = (trmi_move_checked *)base;

    trmi_cuda_note_release(k->base.cuda, k->note);
    trm_free(k);
}
