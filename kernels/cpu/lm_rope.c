/* TrmRope: pairs of each head are turned by the angle of the row's position. A row's cosines and
 * sines are computed once for all its heads. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

typedef struct rope_kernel {
    trm_kernel base;
    trmi_lm_rope rope; /* frequencies: set by run */
    size_t rows;
} rope_kernel;

typedef struct rope_job {
    trmi_lm_rope rope;
    const float *x;
    const int32_t *positions;
    float *out;
} rope_job;

static void rope_range(void *ctx, size_t begin, size_t end)
{
    const rope_job *job = ctx;
    const trmi_lm_rows *rows = trmi_lm_rows_get();
    size_t n = job->rope.heads * job->rope.head_dim;

    for (size_t r = begin; r < end; r++)
        rows->rope(&job->rope, job->out + r * n, job->x + r * n, job->positions[r]);
}

static trm_status rope_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const rope_kernel *k = (const rope_kernel *)base;
    rope_job job = {.rope = k->rope, .x = in[0], .positions = in[1], .out = out[0]};
    /* an angle costs about as much as 16 turned elements */
    size_t cost = k->rope.heads * k->rope.head_dim + 16 * k->rope.half;

    (void)s;
    (void)workspace;
    job.rope.frequencies = in[2];
    trm_team_for(k->rows, 1 + TRMI_GRAIN / (cost + 1), rope_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops rope_ops = {
    .name = "lm rope", .run = rope_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_lm_rope(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t head_dim = trm_attr_int(desc->attrs, "head_dim", 0), half;
    rope_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_lm_begin(desc, 2));
    TRM_CHECK(trmi_lm_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lm_want(desc, 1, TRM_DTYPE_I32, 1));
    TRM_CHECK(trmi_lm_want(desc, 2, TRM_DTYPE_F32, 1));
    half = desc->inputs[2].dims[0];
    if (head_dim < 1 || x->dims[1] % head_dim != 0 || half > head_dim / 2 ||
        desc->inputs[1].dims[0] != x->dims[0] || !trm_tensor_same_shape(x, &desc->outputs[0]))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmRope '%s': heads of %lld and %lld frequencies for rows of %lld; %lld "
                        "positions for %lld rows",
                        desc->name, (long long)head_dim, (long long)half, (long long)x->dims[1],
                        (long long)desc->inputs[1].dims[0], (long long)x->dims[0]);
    if (half > TRMI_LM_ROTARY_MAX / 2)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmRope '%s': %lld frequencies: at most %d",
                        desc->name, (long long)half, TRMI_LM_ROTARY_MAX / 2);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &rope_ops, &k));
    k->rope.head_dim = (size_t)head_dim;
    k->rope.heads = (size_t)(x->dims[1] / head_dim);
    k->rope.half = (size_t)half;
    k->rope.interleaved = trm_attr_int(desc->attrs, "interleaved", 0) != 0;
    k->rope.scale = trm_attr_float(desc->attrs, "scale", 1.0f);
    k->rows = (size_t)x->dims[0];
    k->base.in_place = 1;
    *kernel_out = &k->base;
    return TRM_OK;
}
