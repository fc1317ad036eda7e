/* DeformConv: columns of samples, then a matrix product with the weights for each image and group,
 * then the bias, which is added in fp32 (so that 16-bit results are rounded once). */
#include "kernels/cuda/dense.h"
#include "kernels/cuda/region.h"

#include <inttypes.h>

struct deform {
    trmi_cuda_kernel base;
    trmi_deform d;
    trmi_dense product;
    bool has_bias, has_mask, sums_apart;
    size_t filters, space, elems;
    size_t sums_at, space_at; /* in the workspace, behind the columns */
};

static trm_status deform_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    const struct deform *f = (const struct deform *)k;
    cudaStream_t stream = trmi_cuda_stream(k, s);
    unsigned char *memory = workspace;
    void *sums = f->sums_apart ? memory + f->sums_at : out[0];

    if (f->elems == 0)
        return TRM_OK;
    TRM_CHECK(trmi_cuda_deform_columns_launch(&f->d, in[0], in[2], f->has_mask ? in[4] : NULL,
                                              memory, stream));
    TRM_CHECK(trmi_dense_run(f->base.cuda, &f->product, stream, in[1], memory, NULL, sums, NULL,
                             memory + f->space_at, f->elems, f->filters, NULL));
    if (!f->has_bias)
        return TRM_OK;
    return trmi_cuda_deform_bias_launch(f->d.dtype, sums, in[3], out[0], f->elems, f->filters,
                                        f->space, stream);
}

static void deform_destroy(trm_kernel *k)
{
    trmi_dense_fini(&((struct deform *)k)->product);
    trmi_cuda_kernel_free(k);
}

static const trm_kernel_ops deform_ops = {
    .name = "cuda deform conv", .run = deform_run, .destroy = deform_destroy};

static trm_status misfit(const trm_op_desc *desc, const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "DeformConv '%s': %s", desc->name, what);
}

static trm_status numbers(const trm_op_desc *desc, const char *name, size_t want, int64_t otherwise,
                          int64_t least, int64_t *out)
{
    size_t n;
    const int64_t *v = trm_attr_ints(desc->attrs, name, &n);

    if (v != NULL && n != want)
        return misfit(desc, "strides, dilations or pads of a wrong length");
    for (size_t i = 0; i < want; i++) {
        out[i] = v == NULL ? otherwise : v[i];
        if (out[i] < least || out[i] > INT32_MAX / 4)
            return trm_fail(TRM_ERR_INVALID_ARG, "DeformConv '%s': %s[%zu] is %" PRId64, desc->name,
                            name, i, out[i]);
    }
    return TRM_OK;
}

static trm_status deform_check(const trm_op_desc *desc, int64_t group, int64_t offsets)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *offset = &desc->inputs[2];
    const trm_tensor *y = &desc->outputs[0];
    int64_t taps;

    for (int i = 0; i < 5; i++)
        if (trmi_cuda_has_input(desc, i) &&
            (!trm_dtype_is_float(x->dtype) || desc->inputs[i].dtype != x->dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float, the same for all inputs");
    if (x->rank != 4 || w->rank != 4 || offset->rank != 4 || y->rank != 4)
        return trm_fail(TRM_ERR_UNSUPPORTED, "DeformConv '%s' of rank %d: supported is 4",
                        desc->name, x->rank);
    taps = w->dims[2] * w->dims[3];
    if (group < 1 || offsets < 1 || x->dims[1] % group != 0 || w->dims[0] % group != 0 ||
        w->dims[1] * group != x->dims[1] || x->dims[1] % offsets != 0)
        return misfit(desc, "groups do not divide the channels");
    if (offset->dims[0] != x->dims[0] || offset->dims[1] != offsets * taps * 2 ||
        offset->dims[2] != y->dims[2] || offset->dims[3] != y->dims[3])
        return misfit(desc, "offset must be [N, offset_group * kH * kW * 2, outH, outW]");
    if (trmi_cuda_has_input(desc, 4) &&
        trm_tensor_numel(&desc->inputs[4]) * 2 != trm_tensor_numel(offset))
        return misfit(desc, "mask must be [N, offset_group * kH * kW, outH, outW]");
    if (trmi_cuda_has_input(desc, 3) && (int64_t)trm_tensor_numel(&desc->inputs[3]) != w->dims[0])
        return misfit(desc, "bias must have one element a filter");
    for (int i = 2; i < 4; i++)
        if (x->dims[i] > INT32_MAX / 4 || y->dims[i] > INT32_MAX / 4 || w->dims[i] > INT32_MAX / 4)
            return trm_fail(TRM_ERR_UNSUPPORTED, "DeformConv '%s': dim %d", desc->name, i);
    return TRM_OK;
}

/* D[n, g] = W[g] columns[n, g] */
static trmi_product deform_product(const struct deform *f, int64_t group, trm_dtype d)
{
    int64_t m = (int64_t)f->filters / group, n = (int64_t)f->space;
    int64_t k = (int64_t)f->d.channels / group * f->d.kernel[0] * f->d.kernel[1];

    return (trmi_product){.m = m,
                          .n = n,
                          .k = k,
                          .a_row = k,
                          .a_col = 1,
                          .b_row = n,
                          .b_col = 1,
                          .d_row = n,
                          .d_col = 1,
                          .batches = 2,
                          .dims = {(int64_t)f->d.images, group},
                          .a_step = {0, m * k},
                          .b_step = {group * k * n, k * n},
                          .d_step = {group * m * n, m * n},
                          .ab = f->d.dtype,
                          .d = d,
                          .alpha = 1};
}

static trm_status deform_space(struct deform *f, const trm_op_desc *desc)
{
    size_t taps = (size_t)f->d.kernel[0] * (size_t)f->d.kernel[1], columns, sums = 0;

    if (!trm_mul_ok(f->d.images * f->d.channels * taps, f->space, &columns) ||
        !trm_mul_ok(columns, trm_dtype_bytes(f->d.dtype), &columns) || columns > SIZE_MAX / 4)
        return trm_fail(TRM_ERR_UNSUPPORTED, "DeformConv '%s': columns overflow", desc->name);
    if (f->sums_apart)
        sums = f->elems * sizeof(float);
    f->sums_at = trm_align_up(columns, TRM_ALIGN);
    f->space_at = trm_align_up(f->sums_at + sums, TRM_ALIGN);
    f->base.base.workspace_bytes = f->space_at + trmi_dense_workspace_bytes(&f->product);
    return TRM_OK;
}

trm_status trmi_cuda_deform_conv(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *y = &desc->outputs[0];
    int64_t group = trm_attr_int(desc->attrs, "group", 1);
    int64_t offsets = trm_attr_int(desc->attrs, "offset_group", 1);
    int64_t strides[2], dilations[2], pads[4];
    bool half = x->dtype == TRM_DTYPE_F16 || x->dtype == TRM_DTYPE_BF16;
    trmi_product product;
    struct deform *f;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(deform_check(desc, group, offsets));
    TRM_CHECK(numbers(desc, "strides", 2, 1, 1, strides));
    TRM_CHECK(numbers(desc, "dilations", 2, 1, 1, dilations));
    TRM_CHECK(numbers(desc, "pads", 4, 0, -INT32_MAX / 4, pads));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*f), &deform_ops, &f));
    f->d.dtype = x->dtype;
    f->d.images = (size_t)x->dims[0];
    f->d.channels = (size_t)x->dims[1];
    f->d.offset_groups = (size_t)offsets;
    for (int i = 0; i < 2; i++) {
        f->d.in[i] = (int32_t)x->dims[2 + i];
        f->d.out[i] = (int32_t)y->dims[2 + i];
        f->d.kernel[i] = (int32_t)w->dims[2 + i];
        f->d.stride[i] = (int32_t)strides[i];
        f->d.dilation[i] = (int32_t)dilations[i];
        f->d.pad[i] = (int32_t)pads[i];
    }
    f->has_bias = trmi_cuda_has_input(desc, 3);
    f->has_mask = trmi_cuda_has_input(desc, 4);
    f->sums_apart = f->has_bias && half;
    f->filters = (size_t)w->dims[0];
    f->space = (size_t)(y->dims[2] * y->dims[3]);
    f->elems = trm_tensor_numel(y);
    product = deform_product(f, group, f->sums_apart ? TRM_DTYPE_F32 : x->dtype);
    TRM_TRY(st, trmi_dense_create(cuda, &product, NULL, &f->product), fail);
    TRM_TRY(st, deform_space(f, desc), fail);
    *kernel_out = &f->base.base;
    return TRM_OK;
fail:
    deform_destroy(&f->base.base);
    return st;
}
