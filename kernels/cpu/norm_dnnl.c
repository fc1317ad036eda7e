/* BatchNormalization (what fusion left) and LRN. Batch norm in f32 is a row loop of ours in any
 * layout; LRN of odd sizes runs on oneDNN; the rest on the scalar references. */
#include "kernels/cpu/dnnl_util.h"
#include "kernels/cpu/scalar.h"
#include "kernels/reference/normalize.h"

#include <math.h>
#include <string.h>

typedef struct norm_kernel {
    trm_kernel base;
    trm_tensor x;
    size_t channels, space, block; /* block: channels that lie side by side */
    float epsilon;
    bool relu;
    const float *in;
    float *out, *scale, *shift; /* of the run; scale and shift in workspace, padded to blocks */
} norm_kernel;

/* One row: `space` positions of `block` channels side by side. */
static void norm_rows(void *ctx, size_t begin, size_t end)
{
    const norm_kernel *k = ctx;
    size_t blocks = (k->channels + k->block - 1) / k->block;
    float floor_value = k->relu ? 0.0f : -INFINITY;

    for (size_t row = begin; row < end; row++) {
        const float *scale = k->scale + row % blocks * k->block;
        const float *shift = k->shift + row % blocks * k->block;
        const float *x = k->in + row * k->space * k->block;
        float *y = k->out + row * k->space * k->block;

        if (k->block == 1) {
            float a = scale[0], b = shift[0];

            for (size_t s = 0; s < k->space; s++) {
                float v = x[s] * a + b;

                y[s] = v < floor_value ? floor_value : v;
            }
            continue;
        }
        for (size_t s = 0; s < k->space; s++)
            for (size_t c = 0; c < k->block; c++) {
                float v = x[s * k->block + c] * scale[c] + shift[c];

                y[s * k->block + c] = v < floor_value ? floor_value : v;
            }
    }
}

static trm_status norm_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    norm_kernel *k = (norm_kernel *)base;
    const float *scale = in[1], *bias = in[2], *mean = in[3], *variance = in[4];
    size_t padded = trm_align_up(k->channels, k->block);
    size_t blocks = padded / k->block;

    (void)s;
    k->in = in[0];
    k->out = out[0];
    k->scale = workspace;
    k->shift = k->scale + padded;
    for (size_t c = 0; c < padded; c++) { /* padding channels become zero */
        k->scale[c] = k->shift[c] = 0.0f;
        if (c >= k->channels)
            continue;
        k->scale[c] = scale[c] / sqrtf(variance[c] + k->epsilon);
        k->shift[c] = bias[c] - mean[c] * k->scale[c];
    }
    trm_team_for((size_t)k->x.dims[0] * blocks, 1 + 16384 / (1 + k->space * k->block), norm_rows,
                 k);
    return TRM_OK;
}

static const trm_kernel_ops norm_ops = {
    .name = "batch norm", .run = norm_run, .destroy = trmi_kernel_free};

static bool norm_fast(const trm_op_desc *desc, bool training)
{
    if (training || desc->inputs[0].rank < 2 || desc->post_count > 1 ||
        (desc->post_count == 1 && desc->posts[0].op != TRM_OP_Relu))
        return false;
    for (int i = 0; i < 5; i++)
        if (desc->inputs[i].dtype != TRM_DTYPE_F32)
            return false;
    return desc->outputs[0].dtype == TRM_DTYPE_F32;
}

trm_status trmi_cpu_batch_norm(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    bool training = trm_attr_int(desc->attrs, "training_mode", 0) != 0;
    float epsilon = trm_attr_float(desc->attrs, "epsilon", 1e-5f);
    int64_t channels = x->rank > 1 ? x->dims[1] : 1;
    trmi_scalar_kernel *scalar = NULL;
    norm_kernel *k = NULL;

    (void)cpu;
    for (int i = 0; i < 5; i++)
        TRM_CHECK(trmi_want_dtype(desc, i, trmi_floats));
    for (int i = 1; i < 5; i++)
        if ((int64_t)trm_tensor_numel(&desc->inputs[i]) != channels)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "BatchNormalization: input %d has %zu elements: want %lld channels", i,
                            trm_tensor_numel(&desc->inputs[i]), (long long)channels);
    if (x->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "BatchNormalization of a scalar: want [N, C, ...]");
    if (norm_fast(desc, training)) {
        TRM_CHECK(trmi_kernel_new(sizeof(*k), &norm_ops, &k));
        k->x = *x;
        k->channels = (size_t)channels;
        k->space = x->rank > 2 ? trm_tensor_count(x, 2, x->rank) : 1;
        k->block = x->layout == TRM_LAYOUT_BLOCK8 ? 8 : x->layout == TRM_LAYOUT_BLOCK16 ? 16 : 1;
        if (x->layout == TRM_LAYOUT_CHANNELS_LAST && channels > 0)
            k->block = (size_t)channels;
        k->epsilon = epsilon;
        k->relu = desc->post_count == 1;
        k->base.workspace_bytes = 2 * sizeof(float) * trm_align_up(k->channels, k->block);
        k->base.in_place = 1;
        desc->outputs[0].layout = x->layout;
        *kernel_out = &k->base;
        return TRM_OK;
    }
    TRM_CHECK(trmi_scalar_new(desc, trm_batch_norm_reference, (size_t)channels,
                              channels > 0 ? trm_tensor_numel(x) / (size_t)channels : 1, &scalar));
    scalar->ref.f[0] = (double)epsilon;
    scalar->ref.f[1] = (double)trm_attr_float(desc->attrs, "momentum", 0.9f);
    scalar->ref.b[0] = training;
    *kernel_out = &scalar->base;
    return TRM_OK;
}

static trm_status lrn_dnnl(trm_cpu *cpu, trm_op_desc *desc, int64_t size, const float f[3],
                           trm_kernel **kernel_out)
{
    trmi_dnnl_kernel *k = NULL;
    dnnl_memory_desc_t md;
    dnnl_lrn_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    trmi_dnnl_step *step;
    trm_status st;

    if (desc->post_count > 0 || size % 2 == 0 || trm_tensor_numel(&desc->inputs[0]) == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN LRN of this form");
    TRM_CHECK(trmi_dnnl_md(&desc->inputs[0], desc->inputs[0].layout, &md));
    TRM_CHECK(trmi_dnnl_status(dnnl_lrn_forward_desc_init(&d, dnnl_forward_inference,
                                                          dnnl_lrn_across_channels, &md, size, f[0],
                                                          f[1], f[2]),
                               "LRN"));
    TRM_TRY(st, trmi_dnnl_kernel_new(cpu, &k), done);
    TRM_TRY(st, trmi_dnnl_attr(&attr), done);
    TRM_TRY(st,
            trmi_dnnl_status(dnnl_primitive_desc_create(&pd, &d, attr, trmi_cpu_engine(cpu), NULL),
                             "LRN"),
            done);
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC, &md, trmi_bind_input(0)), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_DST, &md, trmi_bind_output(0)), done);
    desc->outputs[0].layout = desc->inputs[0].layout;
    *kernel_out = &k->base;
done:
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    if (st != TRM_OK)
        trmi_dnnl_kernel_destroy((trm_kernel *)k); /* may be NULL */
    return st;
}

trm_status trmi_cpu_lrn(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t size = trm_attr_int(desc->attrs, "size", 0);
    float f[3] = {trm_attr_float(desc->attrs, "alpha", 1e-4f),
                  trm_attr_float(desc->attrs, "beta", 0.75f),
                  trm_attr_float(desc->attrs, "bias", 1.0f)};
    trmi_scalar_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_want_dtype(desc, 0, trmi_floats));
    if (size < 1 || x->rank < 2)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "LRN: size %lld on rank %d: want 1 or more on [N, C, "
                        "...]",
                        (long long)size, x->rank);
    st = lrn_dnnl(cpu, desc, size, f, kernel_out);
    if (st != TRM_ERR_UNSUPPORTED)
        return st;
    TRM_CHECK(trmi_scalar_new(desc, trm_lrn_reference, trm_tensor_numel(x), (size_t)size + 20, &k));
    k->ref.i[0] = size;
    for (int i = 0; i < 3; i++)
        k->ref.f[i] = (double)f[i];
    *kernel_out = &k->base;
    return TRM_OK;
}
