/* BatchNormalization and LRN; both keep the layout in which the input arrives. Batch norm of
 * constants: scale and shift of each channel are made at prepare and kept as a pack; else a kernel
 * makes them in the workspace. In training mode the moments of the batch come from a reduction
 * (workspace: coefficients, moments, the reduction's). */
#include "kernels/cuda/norm_channels.h"
#include "kernels/cuda/reduce.h"

#include <math.h>

typedef struct batch_kernel {
    trmi_cuda_kernel base;
    trmi_channels shape;
    trmi_batch_norm norm; /* pointers are filled in by run */
    trmi_pack *pack;
    bool training;
    trmi_reduce moments;
    size_t coefficient_bytes, moment_bytes;
} batch_kernel;

static trm_status batch_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const batch_kernel *k = (const batch_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);
    const void *coefficients = workspace;
    trmi_batch_norm b = k->norm;

    if (k->pack != NULL) {
        coefficients = k->pack->memory;
    } else {
        b.gain = in[1];
        b.bias = in[2];
        b.mean = in[3];
        b.variance = in[4];
        b.coefficients = workspace;
        if (k->training) {
            char *moments = (char *)workspace + k->coefficient_bytes;

            TRM_CHECK(trmi_cuda_reduce_run(&k->moments, stream, in[0], moments,
                                           moments + k->moment_bytes));
            b.moments = (const double *)(const void *)moments;
            if (b.running_mean_type != TRM_DTYPE_NONE)
                b.running_mean = out[1];
            if (b.running_variance_type != TRM_DTYPE_NONE)
                b.running_variance = out[2];
        }
        TRM_CHECK(trmi_cuda_batch_norm_coefficients(&b, stream));
    }
    return trmi_cuda_batch_norm_apply(&k->shape, stream, in[0], coefficients, out[0]);
}

static void batch_destroy(trm_kernel *base)
{
    batch_kernel *k = (batch_kernel *)base;

    trmi_cuda_pack_release(k->base.cuda, k->pack);
    trm_free(k);
}

static const trm_kernel_ops batch_ops = {
    .name = "cuda batch norm", .run = batch_run, .destroy = batch_destroy};

static trm_status pack_constants(batch_kernel *k, const trm_op_desc *desc)
{
    size_t n = k->shape.channels;
    trm_tensor to = {.dtype = k->norm.wide ? TRM_DTYPE_F64 : TRM_DTYPE_F32, .rank = 1};
    bool found;
    trm_status st;

    to.data = trm_malloc(2 * n + 1, trm_dtype_bytes(to.dtype));
    if (to.data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "BatchNormalization '%s': %zu channels", desc->name, n);
    for (size_t c = 0; c < n; c++) {
        double scale = trm_tensor_get_f64(&desc->inputs[1], c) /
                       sqrt(trm_tensor_get_f64(&desc->inputs[4], c) + k->norm.epsilon);

        trm_tensor_set_f64(&to, c, scale);
        trm_tensor_set_f64(&to, n + c,
                           trm_tensor_get_f64(&desc->inputs[2], c) -
                               trm_tensor_get_f64(&desc->inputs[3], c) * scale);
    }
    /* key 0: made of four inputs, no key says which */
    st = trmi_cuda_pack(k->base.cuda, 0, "batch norm", k->coefficient_bytes, &k->pack, &found);
    if (st == TRM_OK)
        st = trmi_cuda_upload(k->base.cuda, k->pack->memory, to.data,
                              2 * n * trm_dtype_bytes(to.dtype));
    trm_free(to.data);
    k->base.base.packed_inputs = k->base.base.copied_inputs = 0x1e;
    return st;
}

static void shape_of(trmi_channels *c, trm_op_desc *desc, trm_layout arrives)
{
    trm_tensor *x = &desc->inputs[0];

    if (arrives == TRM_LAYOUT_CHANNELS_LAST && x->rank > 2)
        x->layout = desc->outputs[0].layout = arrives;
    c->dtype = x->dtype;
    c->channels_last = x->layout == TRM_LAYOUT_CHANNELS_LAST;
    c->images = (size_t)x->dims[0];
    c->channels = x->rank > 1 ? (size_t)x->dims[1] : 1;
    c->spatial = x->rank > 2 ? trm_tensor_count(x, 2, x->rank) : 1;
}

/* dtypes, sizes; *known_out: all parameters are constants */
static trm_status check_parameters(const trm_op_desc *desc, bool *known_out)
{
    const trm_tensor *x = &desc->inputs[0];
    size_t channels = x->rank > 1 ? (size_t)x->dims[1] : 1;

    *known_out = true;
    for (int i = 0; i < 5; i++) {
        if (!trm_dtype_is_float(desc->inputs[i].dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
        if (i > 0 && trm_tensor_numel(&desc->inputs[i]) != channels)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "BatchNormalization '%s': input %d has %zu elements: want %zu channels",
                            desc->name, i, trm_tensor_numel(&desc->inputs[i]), channels);
        *known_out = *known_out && (i == 0 || desc->inputs[i].data != NULL);
    }
    if (x->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "BatchNormalization of a scalar: want [N, C, ...]");
    if (desc->outputs[0].dtype != x->dtype)
        return trmi_cuda_bad_dtype(desc, 0, "the output's");
    return TRM_OK;
}

static trm_status plan_moments(trm_cuda *cuda, batch_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0];
    uint32_t mask = (1u << x->rank) - 1;

    if (x->rank > 1)
        mask &= ~2u;
    k->moments.kind = TRMI_REDUCE_MOMENTS;
    k->moments.finish = TRMI_REDUCE_AS_IS;
    k->moments.out = TRM_DTYPE_F64;
    TRM_CHECK(trmi_cuda_reduce_plan(cuda, &k->moments, x, mask));
    k->moment_bytes = trm_align_up(2 * sizeof(double) * k->shape.channels, TRM_ALIGN);
    k->base.base.workspace_bytes =
        k->coefficient_bytes + k->moment_bytes + k->moments.workspace_bytes;
    for (int i = 1; i <= 2; i++) {
        if (!trmi_cuda_has_output(desc, i))
            continue;
        if (!trm_dtype_is_float(desc->outputs[i].dtype))
            return trm_fail(TRM_ERR_UNSUPPORTED, "BatchNormalization '%s': output %d is %s",
                            desc->name, i, trm_dtype_name(desc->outputs[i].dtype));
        *(i == 1 ? &k->norm.running_mean_type : &k->norm.running_variance_type) =
            desc->outputs[i].dtype;
    }
    return TRM_OK;
}

trm_status trmi_cuda_batch_norm(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout arrives = desc->inputs[0].layout;
    bool relu = desc->post_count == 1 && desc->posts[0].op == TRM_OP_Relu, known;
    int posts = desc->post_count;
    batch_kernel *k = NULL;
    trm_status st;

    if (relu) /* the one post-op that is applied here */
        desc->post_count = 0;
    st = trmi_cuda_begin(desc);
    desc->post_count = posts;
    if (st != TRM_OK)
        return st;
    TRM_CHECK(check_parameters(desc, &known));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &batch_ops, &k));
    shape_of(&k->shape, desc, arrives);
    k->shape.relu = relu;
    k->training = trm_attr_int(desc->attrs, "training_mode", 0) != 0;
    k->norm.channels = k->shape.channels;
    k->norm.gain_type = desc->inputs[1].dtype;
    k->norm.bias_type = desc->inputs[2].dtype;
    k->norm.mean_type = desc->inputs[3].dtype;
    k->norm.variance_type = desc->inputs[4].dtype;
    k->norm.epsilon = (double)trm_attr_float(desc->attrs, "epsilon", 1e-5f);
    k->norm.momentum = (double)trm_attr_float(desc->attrs, "momentum", 0.9f);
    k->norm.wide = k->shape.dtype == TRM_DTYPE_F64;
    k->coefficient_bytes = trm_align_up(
        2 * k->shape.channels * (k->norm.wide ? sizeof(double) : sizeof(float)), TRM_ALIGN);
    k->base.base.workspace_bytes = k->coefficient_bytes;
    if (k->training)
        st = plan_moments(cuda, k, desc);
    else if (known && k->shape.channels > 0)
        st = pack_constants(k, desc);
    if (st == TRM_OK && k->shape.channels * k->shape.spatial > INT32_MAX)
        st = trm_fail(TRM_ERR_UNSUPPORTED, "BatchNormalization '%s': an image of %zu elements",
                      desc->name, k->shape.channels * k->shape.spatial);
    if (st != TRM_OK) {
        batch_destroy(&k->base.base);
        return st;
    }
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- LRN ---- */

typedef struct lrn_kernel {
    trmi_cuda_kernel base;
    trmi_channels shape;
    size_t size;
    double alpha, beta, bias;
} lrn_kernel;

static trm_status lrn_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    const lrn_kernel *k = (const lrn_kernel *)base;

    (void)workspace;
    return trmi_cuda_lrn_run(&k->shape, trmi_cuda_stream(base, s), k->size, k->alpha, k->beta,
                             k->bias, in[0], out[0]);
}

static const trm_kernel_ops lrn_ops = {
    .name = "cuda lrn", .run = lrn_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_lrn(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t size = trm_attr_int(desc->attrs, "size", 0);
    trm_layout arrives = x->layout;
    lrn_kernel *k = NULL;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(x->dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (size < 1 || x->rank < 2)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "LRN '%s': size %lld on rank %d: want 1 or more on [N, C, ...]", desc->name,
                        (long long)size, x->rank);
    if (trm_tensor_numel(x) > INT32_MAX || size > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "LRN '%s': %zu elements", desc->name,
                        trm_tensor_numel(x));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &lrn_ops, &k));
    shape_of(&k->shape, desc, arrives);
    k->size = (size_t)size;
    k->alpha = (double)trm_attr_float(desc->attrs, "alpha", 1e-4f);
    k->beta = (double)trm_attr_float(desc->attrs, "beta", 0.75f);
    k->bias = (double)trm_attr_float(desc->attrs, "bias", 1.0f);
    *kernel_out = &k->base.base;
    return TRM_OK;
}
