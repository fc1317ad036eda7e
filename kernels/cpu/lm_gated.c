/* TrmGated: an activation, times `up` where there is one. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

typedef struct gated_kernel {
    trm_kernel base;
    trmi_lm_act act;
    float cap;
    bool gated;
    size_t elems;
} gated_kernel;

typedef struct gated_job {
    const gated_kernel *k;
    const float *x, *up;
    float *out;
} gated_job;

static void gated_range(void *ctx, size_t begin, size_t end)
{
    const gated_job *job = ctx;

    trmi_lm_rows_get()->act[job->k->act](job->k->cap, end - begin, job->out + begin, job->x + begin,
                                         job->up == NULL ? NULL : job->up + begin);
}

static trm_status gated_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const gated_kernel *k = (const gated_kernel *)base;
    gated_job job = {.k = k, .x = in[0], .up = k->gated ? in[1] : NULL, .out = out[0]};

    (void)s;
    (void)workspace;
    trm_team_for(k->elems, TRMI_GRAIN, gated_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops gated_ops = {
    .name = "lm gated", .run = gated_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_lm_gated(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const char *act = trm_attr_string(desc->attrs, "act", "none");
    trmi_lm_act kind = trmi_lm_act_from_name(act);
    float cap = trm_attr_float(desc->attrs, "cap", 0.0f);
    gated_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_lm_begin(desc, 2));
    TRM_CHECK(trmi_lm_want(desc, 0, TRM_DTYPE_F32, 2));
    if (trmi_has_input(desc, 1))
        TRM_CHECK(trmi_lm_want(desc, 1, TRM_DTYPE_F32, 2));
    if (kind == TRMI_LM_ACT_COUNT)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmGated '%s': act '%.40s': want silu, gelu, gelu_tanh, relu, tanh, "
                        "softcap or none",
                        desc->name, act);
    if (kind == TRMI_LM_SOFTCAP && !(cap > 0.0f))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGated '%s': cap %g: want more than 0", desc->name,
                        (double)cap);
    if (!trm_tensor_same_shape(&desc->inputs[0], &desc->outputs[0]) ||
        (trmi_has_input(desc, 1) && !trm_tensor_same_shape(&desc->inputs[0], &desc->inputs[1])))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGated '%s': x, up and output must have one shape",
                        desc->name);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &gated_ops, &k));
    k->act = kind;
    k->cap = kind == TRMI_LM_SOFTCAP ? cap : 1.0f;
    k->gated = trmi_has_input(desc, 1);
    k->elems = trm_tensor_numel(&desc->inputs[0]);
    k->base.in_place = k->gated ? 3 : 1;
    *kernel_out = &k->base;
    return TRM_OK;
}
