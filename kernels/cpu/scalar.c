/* Kernels that run a scalar reference. */
#include "kernels/cpu/scalar.h"

#include <stdio.h>
#include <string.h>

const trm_dtype trmi_floats[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                 TRM_DTYPE_NONE};

static void scalar_range(void *ctx, size_t begin, size_t end)
{
    const trmi_scalar_kernel *k = ctx;

    k->range(&k->ref, begin, end);
}

static trm_status scalar_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    trmi_scalar_kernel *k = (trmi_scalar_kernel *)base;

    (void)s;
    for (int i = 0; i < k->input_count; i++)
        k->ref.in[i].data = (void *)(uintptr_t)in[i]; /* only read */
    for (int i = 0; i < k->output_count; i++)
        k->ref.out[i].data = out[i];
    k->ref.scratch = workspace;
    trm_team_for(k->items, k->grain, scalar_range, k);
    return TRM_OK;
}

static const trm_kernel_ops scalar_ops = {
    .name = "scalar", .run = scalar_run, .destroy = trmi_kernel_free};

trm_status trmi_scalar_new(trm_op_desc *desc, trm_ref_range range, size_t items, size_t item_cost,
                           trmi_scalar_kernel **kernel_out)
{
    trmi_scalar_kernel *k = NULL;

    if (desc->input_count > TRM_REF_IN || desc->output_count > TRM_REF_OUT)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s with %d inputs and %d outputs",
                        trm_op_get(desc->op)->name, desc->input_count, desc->output_count);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &scalar_ops, &k));
    for (int i = 0; i < desc->input_count; i++) {
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
        k->ref.in[i] = desc->inputs[i];
    }
    for (int i = 0; i < desc->output_count; i++) {
        desc->outputs[i].layout = TRM_LAYOUT_PLAIN;
        k->ref.out[i] = desc->outputs[i];
    }
    k->input_count = desc->input_count;
    k->output_count = desc->output_count;
    k->ref.post_count = desc->post_count;
    memcpy(k->ref.posts, desc->posts, sizeof(k->ref.posts));
    k->ref.group = 1;
    k->range = range;
    k->items = items;
    k->grain = 1 + 20000 / (1 + item_cost);
    *kernel_out = k;
    return TRM_OK;
}

trm_status trmi_want_dtype(const trm_op_desc *desc, int i, const trm_dtype *dtypes)
{
    trm_dtype have = i < desc->input_count ? desc->inputs[i].dtype : TRM_DTYPE_NONE;
    char list[120] = "";

    if (have == TRM_DTYPE_NONE)
        return TRM_OK;
    for (int d = 0; dtypes[d] != TRM_DTYPE_NONE; d++) {
        size_t at = strlen(list);

        if (dtypes[d] == have)
            return TRM_OK;
        snprintf(list + at, sizeof(list) - at, "%s%s", d == 0 ? "" : ", ",
                 trm_dtype_name(dtypes[d]));
    }
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d is %s: supported are %s",
                    trm_op_get(desc->op)->name, desc->name == NULL ? "" : desc->name, i,
                    trm_dtype_name(have), list);
}
