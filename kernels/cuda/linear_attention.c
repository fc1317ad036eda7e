/* LinearAttention: checks, and one launch. */
#include "kernels/cuda/linear_attention.h"

#include <math.h>
#include <string.h>

typedef struct linear_kernel {
    trmi_cuda_kernel base;
    trmi_linear_attention a;
    int input_count;
} linear_kernel;

static trm_status linear_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const linear_kernel *k = (const linear_kernel *)base;
    trmi_linear_attention a = k->a;

    (void)workspace;
    for (int i = 0; i < k->input_count; i++)
        a.from[i] = in[i];
    a.to = out[0];
    if (a.state != TRM_DTYPE_NONE)
        a.state_to = out[1];
    return trmi_cuda_linear_attention(&a, trmi_cuda_stream(base, s));
}

static const trm_kernel_ops linear_ops = {
    .name = "linear attention", .run = linear_run, .destroy = trmi_cuda_kernel_free};

static trm_status settle_sizes(trmi_linear_attention *a, const trm_op_desc *desc)
{
    const trm_tensor *q = &desc->inputs[TRMI_LINEAR_QUERY], *v = &desc->inputs[TRMI_LINEAR_VALUE];
    int64_t q_heads = trm_attr_int(desc->attrs, "q_num_heads", 0);
    int64_t heads = trm_attr_int(desc->attrs, "kv_num_heads", 0);

    if (q->rank != 3 || v->rank != 3 || heads < 1 || q_heads < 1 || q_heads % heads != 0 ||
        q->dims[2] % q_heads != 0 || v->dims[2] % heads != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "LinearAttention '%s': heads do not fit the inputs",
                        desc->name);
    for (int d = 0; d < 3; d++)
        if (q->dims[d] > INT32_MAX / 64 || v->dims[d] > INT32_MAX / 64)
            return trm_fail(TRM_ERR_UNSUPPORTED, "LinearAttention '%s': dims are too large",
                            desc->name);
    a->batch = (int)q->dims[0];
    a->length = (int)q->dims[1];
    a->q_heads = (int)q_heads;
    a->heads = (int)heads;
    a->dk = (int)(q->dims[2] / q_heads);
    a->dv = (int)(v->dims[2] / heads);
    a->scale = trm_attr_float(desc->attrs, "scale", 0.0f);
    if (a->scale == 0.0f)
        a->scale = 1.0f / sqrtf((float)a->dk);
    return TRM_OK;
}

static trm_status settle_inputs(trmi_linear_attention *a, const trm_op_desc *desc)
{
    const char *rule = trm_attr_string(desc->attrs, "update_rule", "gated_delta");
    size_t elems[TRMI_LINEAR_INPUTS] = {0}, want[TRMI_LINEAR_INPUTS];
    size_t rows = (size_t)a->batch * (size_t)a->length, heads = (size_t)a->heads;

    a->gated = strncmp(rule, "gated", 5) == 0;
    a->delta = strstr(rule, "delta") != NULL;
    for (int i = 0; i < TRMI_LINEAR_INPUTS && i < desc->input_count; i++) {
        const trm_tensor *t = &desc->inputs[i];

        if (t->dtype == TRM_DTYPE_NONE)
            continue;
        if (!trm_dtype_is_float(t->dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
        a->in[i] = t->dtype;
        elems[i] = trm_tensor_numel(t);
        if (t->rank > 0 && t->dims[t->rank - 1] <= INT32_MAX) {
            if (i == TRMI_LINEAR_DECAY)
                a->decay_wide = (int)t->dims[t->rank - 1];
            if (i == TRMI_LINEAR_BETA)
                a->beta_wide = (int)t->dims[t->rank - 1];
        }
    }
    want[TRMI_LINEAR_QUERY] = elems[TRMI_LINEAR_QUERY];
    want[TRMI_LINEAR_KEY] = rows * heads * (size_t)a->dk;
    want[TRMI_LINEAR_VALUE] = rows * heads * (size_t)a->dv;
    want[TRMI_LINEAR_STATE] = (size_t)a->batch * heads * (size_t)a->dk * (size_t)a->dv;
    want[TRMI_LINEAR_DECAY] = rows * (size_t)a->decay_wide;
    want[TRMI_LINEAR_BETA] = rows * (size_t)a->beta_wide;
    for (int i = 0; i < TRMI_LINEAR_INPUTS; i++)
        if (a->in[i] != TRM_DTYPE_NONE && elems[i] != want[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "LinearAttention '%s': input %d has %zu elements: want %zu", desc->name,
                            i, elems[i], want[i]);
    if (a->gated != (a->in[TRMI_LINEAR_DECAY] != TRM_DTYPE_NONE) ||
        a->delta != (a->in[TRMI_LINEAR_BETA] != TRM_DTYPE_NONE) ||
        (a->gated && a->decay_wide != a->heads && a->decay_wide != a->heads * a->dk) ||
        (a->delta && a->beta_wide != 1 && a->beta_wide != a->heads))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "LinearAttention '%s': decay or beta does not fit rule '%s'", desc->name,
                        rule);
    return TRM_OK;
}

trm_status trmi_cuda_prepare_linear_attention(trm_cuda *cuda, trm_op_desc *desc,
                                              trm_kernel **kernel_out)
{
    linear_kernel *k = NULL;
    trmi_linear_attention *a;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = 0; i < desc->output_count; i++)
        if (trmi_cuda_has_output(desc, i) && !trm_dtype_is_float(desc->outputs[i].dtype))
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "LinearAttention '%s': output %d is %s: want a "
                            "float",
                            desc->name, i, trm_dtype_name(desc->outputs[i].dtype));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &linear_ops, &k));
    a = &k->a;
    a->out = desc->outputs[0].dtype;
    a->state = trmi_cuda_has_output(desc, 1) ? desc->outputs[1].dtype : TRM_DTYPE_NONE;
    k->input_count =
        desc->input_count < TRMI_LINEAR_INPUTS ? desc->input_count : TRMI_LINEAR_INPUTS;
    TRM_TRY(st, settle_sizes(a, desc), fail);
    TRM_TRY(st, settle_inputs(a, desc), fail);
    if (trmi_cuda_linear_attention_smem(a) > (size_t)cuda->shared_bytes_max) {
        st = trm_fail(TRM_ERR_UNSUPPORTED,
                      "LinearAttention '%s': keys of %d: a block's shared memory holds no state of "
                      "such columns",
                      desc->name, a->dk);
        goto fail;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
