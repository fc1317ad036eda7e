/* TrmPool: shapes; a normalised pool is two launches. */
#include "kernels/cuda/lm_rows.h"

#include <string.h>

typedef struct pool_kernel {
    trmi_cuda_kernel base;
    trmi_lmc_pool pool;
    bool normalize;
} pool_kernel;

static trm_status pool_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const pool_kernel *k = (const pool_kernel *)base;
    const trmi_lmc_norm unit = {
        .kind = TRMI_LMC_UNIT, .groups = k->pool.sequences, .n = k->pool.width};
    const trmi_lmc_norm_args args = {.x = out[0], .out = out[0]};

    (void)workspace;
    TRM_CHECK(trmi_cuda_lm_pool(trmi_cuda_stream(base, s), &k->pool, in[0], trmi_lmc_block(in[1]),
                                out[0]));
    return k->normalize ? trmi_cuda_lm_norm(trmi_cuda_stream(base, s), &unit, &args) : TRM_OK;
}

static const trm_kernel_ops pool_ops = {
    .name = "cuda lm pool", .run = pool_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_prepare_lm_pool(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const char *const kinds[] = {"mean", "cls", "last"};
    const char *kind = trm_attr_string(desc->attrs, "kind", "mean");
    const trm_tensor *x = &desc->inputs[0], *out = &desc->outputs[0];
    pool_kernel *k = NULL;
    int which = 0;

    TRM_CHECK(trmi_lmc_begin(desc, 1, 2));
    TRM_CHECK(trmi_lmc_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lmc_want(desc, 1, TRM_DTYPE_I64, 1));
    while (which < 3 && strcmp(kind, kinds[which]) != 0)
        which++;
    if (which == 3)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmPool '%s': kind '%.40s': want mean, cls or last",
                        desc->name, kind);
    if (desc->inputs[1].dims[0] < 1 || out->dims[0] != desc->inputs[1].dims[0] ||
        out->dims[1] != x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmPool '%s': a step of length %lld, rows of %lld: output %lld x %lld",
                        desc->name, (long long)desc->inputs[1].dims[0], (long long)x->dims[1],
                        (long long)out->dims[0], (long long)out->dims[1]);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &pool_ops, &k));
    k->pool = (trmi_lmc_pool){.kind = (trmi_lmc_pool_kind)which,
                              .rows = (size_t)x->dims[0],
                              .width = (size_t)x->dims[1],
                              .sequences = (size_t)out->dims[0]};
    k->normalize = trm_attr_int(desc->attrs, "normalize", 0) != 0;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
