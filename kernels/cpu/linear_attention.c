/* LinearAttention: a recurrence over the sequence with one state [dk, dv] a key-value head,
 *     S = exp(g) S;  v' = beta (v - S^T k) in the delta rules, else v;  S += k v'^T;  o = scale q^T
 * S. query [B, T, Hq dk], key [B, T, Hkv dk], value [B, T, Hkv dv], state [B, Hkv, dk, dv], decay
 * [B, T, Hkv or Hkv dk], beta [B, T, Hkv or 1]. Work is fp32, staged whole for other dtypes. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

enum { IN_Q, IN_K, IN_V, IN_STATE, IN_DECAY, IN_BETA, IN_COUNT };

typedef struct linear_kernel {
    trm_kernel base;
    trm_dtype in[IN_COUNT], out, state; /* NONE: absent; not wanted */
    bool gated, delta;
    size_t batch, length, q_heads, heads, dk, dv, decay_wide, beta_wide;
    size_t elems[IN_COUNT];
    float scale;
} linear_kernel;

typedef struct linear_job {
    const linear_kernel *k;
    const float *in[IN_COUNT];
    float *out, *state, *row; /* row: dv floats a head, v' */
} linear_job;

static void linear_range(void *ctx, size_t begin, size_t end)
{
    const linear_job *job = ctx;
    const linear_kernel *k = job->k;
    size_t share = k->q_heads / k->heads, dk = k->dk, dv = k->dv;

    for (size_t bh = begin; bh < end; bh++) {
        size_t b = bh / k->heads, h = bh % k->heads;
        float *state = job->state + bh * dk * dv, *row = job->row + bh * dv;

        for (size_t t = 0; t < k->length; t++) {
            size_t at = b * k->length + t;
            const float *key = job->in[IN_K] + (at * k->heads + h) * dk;
            const float *value = job->in[IN_V] + (at * k->heads + h) * dv;

            for (size_t d = 0; k->gated && d < dk; d++) {
                size_t i = k->decay_wide == k->heads ? h : h * dk + d;
                float keep = expf(job->in[IN_DECAY][at * k->decay_wide + i]);

                for (size_t m = 0; m < dv; m++)
                    state[d * dv + m] *= keep;
            }
            memcpy(row, value, dv * sizeof(float));
            if (k->delta) {
                float beta = job->in[IN_BETA][at * k->beta_wide + (k->beta_wide == 1 ? 0 : h)];

                for (size_t d = 0; d < dk; d++)
                    for (size_t m = 0; m < dv; m++)
                        row[m] -= state[d * dv + m] * key[d];
                for (size_t m = 0; m < dv; m++)
                    row[m] *= beta;
            }
            for (size_t d = 0; d < dk; d++)
                for (size_t m = 0; m < dv; m++)
                    state[d * dv + m] += key[d] * row[m];
            for (size_t g = h * share; g < (h + 1) * share; g++) {
                const float *q = job->in[IN_Q] + (at * k->q_heads + g) * dk;
                float *out = job->out + (at * k->q_heads + g) * dv;

                memset(out, 0, dv * sizeof(float));
                for (size_t d = 0; d < dk; d++)
                    for (size_t m = 0; m < dv; m++)
                        out[m] += k->scale * q[d] * state[d * dv + m];
            }
        }
    }
}

static trm_status linear_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    linear_kernel *k = (linear_kernel *)base;
    linear_job job = {.k = k};
    size_t states = k->batch * k->heads * k->dk * k->dv;
    size_t results = k->batch * k->length * k->q_heads * k->dv;
    float *at = workspace;

    (void)s;
    for (int i = 0; i < IN_COUNT; i++) {
        if (k->in[i] == TRM_DTYPE_NONE)
            continue;
        trmi_convert(TRM_DTYPE_F32, at, k->in[i], in[i], k->elems[i]);
        job.in[i] = at;
        at += k->elems[i];
    }
    job.state = at;
    job.out = at + states;
    job.row = job.out + results;
    if (job.in[IN_STATE] != NULL)
        memcpy(job.state, job.in[IN_STATE], states * sizeof(float));
    else
        memset(job.state, 0, states * sizeof(float));
    trm_team_for(k->batch * k->heads, 1, linear_range, &job);
    trmi_convert(k->out, out[0], TRM_DTYPE_F32, job.out, results);
    if (k->state != TRM_DTYPE_NONE && out[1] != NULL)
        trmi_convert(k->state, out[1], TRM_DTYPE_F32, job.state, states);
    return TRM_OK;
}

static const trm_kernel_ops linear_ops = {
    .name = "linear attention", .run = linear_run, .destroy = trmi_kernel_free};

static trm_status settle(linear_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *q = &desc->inputs[IN_Q], *v = &desc->inputs[IN_V];
    const char *rule = trm_attr_string(desc->attrs, "update_rule", "gated_delta");
    int64_t q_heads = trm_attr_int(desc->attrs, "q_num_heads", 0);
    int64_t heads = trm_attr_int(desc->attrs, "kv_num_heads", 0);
    size_t want[IN_COUNT];

    k->gated = strncmp(rule, "gated", 5) == 0;
    k->delta = strstr(rule, "delta") != NULL;
    if (q->rank != 3 || v->rank != 3 || heads < 1 || q_heads < 1 || q_heads % heads != 0 ||
        q->dims[2] % q_heads != 0 || v->dims[2] % heads != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "LinearAttention '%s': heads do not fit the inputs",
                        desc->name);
    k->batch = (size_t)q->dims[0];
    k->length = (size_t)q->dims[1];
    k->q_heads = (size_t)q_heads;
    k->heads = (size_t)heads;
    k->dk = (size_t)(q->dims[2] / q_heads);
    k->dv = (size_t)(v->dims[2] / heads);
    k->scale = trm_attr_float(desc->attrs, "scale", 0.0f);
    if (k->scale == 0.0f)
        k->scale = 1.0f / sqrtf((float)k->dk);
    for (int i = 0; i < IN_COUNT && i < desc->input_count; i++) {
        const trm_tensor *t = &desc->inputs[i];

        if (t->dtype == TRM_DTYPE_NONE)
            continue;
        if (!trm_dtype_is_float(t->dtype))
            return trmi_bad_dtype(desc, i, "a float");
        k->in[i] = t->dtype;
        k->elems[i] = trm_tensor_numel(t);
        if (i == IN_DECAY || i == IN_BETA)
            *(i == IN_DECAY ? &k->decay_wide : &k->beta_wide) = (size_t)t->dims[t->rank - 1];
    }
    want[IN_Q] = k->elems[IN_Q];
    want[IN_K] = k->batch * k->length * k->heads * k->dk;
    want[IN_V] = k->batch * k->length * k->heads * k->dv;
    want[IN_STATE] = k->batch * k->heads * k->dk * k->dv;
    want[IN_DECAY] = k->batch * k->length * k->decay_wide;
    want[IN_BETA] = k->batch * k->length * k->beta_wide;
    for (int i = 0; i < IN_COUNT; i++)
        if (k->in[i] != TRM_DTYPE_NONE && k->elems[i] != want[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "LinearAttention '%s': input %d has %zu elements: want "
                            "%zu",
                            desc->name, i, k->elems[i], want[i]);
    if (k->gated != (k->in[IN_DECAY] != TRM_DTYPE_NONE) ||
        k->delta != (k->in[IN_BETA] != TRM_DTYPE_NONE) ||
        (k->gated && k->decay_wide != k->heads && k->decay_wide != k->heads * k->dk) ||
        (k->delta && k->beta_wide != 1 && k->beta_wide != k->heads))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "LinearAttention '%s': decay or beta does not fit rule '%s'", desc->name,
                        rule);
    return TRM_OK;
}

trm_status trmi_prepare_linear_attention(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    linear_kernel *k;
    size_t floats;
    trm_status st;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &linear_ops, &k));
    k->out = desc->outputs[0].dtype;
    k->state = trmi_has_output(desc, 1) ? desc->outputs[1].dtype : TRM_DTYPE_NONE;
    TRM_TRY(st, settle(k, desc), fail);
    floats = k->batch * k->heads * (k->dk + 1) * k->dv + k->batch * k->length * k->q_heads * k->dv;
    for (int i = 0; i < IN_COUNT; i++)
        floats += k->elems[i];
    k->base.workspace_bytes = floats * sizeof(float);
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
