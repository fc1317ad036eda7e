/* ConvInteger and QLinearConv, to the bit what their definition says. By cuDNN (int8 to int32, on a
 * copy of x that is signed and padded with its zero point, so that the zero point leaves as one
 * number a filter) where the weights are constant and have zero point 0; else by a kernel of our
 * own.
 */
#include "kernels/cuda/conv_impl.h"
#include "kernels/cuda/conv_integer.h"

#include <string.h>

/* Inputs by operator; -1: it has none such. */
typedef struct places {
    int x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias;
} places;
static const places integer_places = {0, -1, 2, 1, -1, 3, -1, -1, -1};
static const places linear_places = {0, 1, 2, 3, 4, 5, 6, 7, 8};

typedef struct integer_kernel {
    trmi_cuda_kernel base;
    places at;
    trmi_conv_integer conv; /* pointers are filled in by run */
    trmi_pack *weights, *w_sums;
    trmi_conv_arrange arrange; /* of weights that come at run time */
    trmi_dnn_plan *plan;
    bool padded; /* for cuDNN: x is copied first */
    trmi_conv_padding padding;
    size_t x_at, dnn_at; /* in the workspace; weights or cuDNN's sums come first */
} integer_kernel;

static void integer_destroy(trm_kernel *kernel)
{
    integer_kernel *k = (integer_kernel *)kernel;

    trmi_cuda_pack_release(k->base.cuda, k->weights);
    trmi_cuda_pack_release(k->base.cuda, k->w_sums);
    trm_free(k);
}

static const void *input(const void *const *in, int at)
{
    return at < 0 ? NULL : in[at];
}

static trmi_conv_integer bound(const integer_kernel *k, const void *const *in)
{
    trmi_conv_integer c = k->conv;

    c.w_zero = input(in, k->at.w_zero);
    c.finish.x_zero = input(in, k->at.x_zero);
    c.finish.x_scale = input(in, k->at.x_scale);
    c.finish.w_scale = input(in, k->at.w_scale);
    c.finish.y_scale = input(in, k->at.y_scale);
    c.finish.y_zero = input(in, k->at.y_zero);
    c.finish.bias = input(in, k->at.bias);
    return c;
}

static trm_status run_own(trm_kernel *kernel, trm_stream *s, const void *const *in,
                          void *const *out, void *workspace)
{
    integer_kernel *k = (integer_kernel *)kernel;
    cudaStream_t stream = trmi_cuda_stream(kernel, s);
    trmi_conv_integer c = bound(k, in);
    const void *w = workspace;

    if (k->weights != NULL)
        w = k->weights->memory;
    else
        TRM_CHECK(trmi_cuda_conv_arrange(stream, &k->arrange, in[k->at.w], workspace));
    return trmi_cuda_conv_integer(stream, &c, in[k->at.x], w, out[0]);
}

static trm_status run_dnn(trm_kernel *kernel, trm_stream *s, const void *const *in,
                          void *const *out, void *workspace)
{
    integer_kernel *k = (integer_kernel *)kernel;
    cudaStream_t stream = trmi_cuda_stream(kernel, s);
    const trmi_conv_shape *shape = &k->conv.shape;
    const trmi_conv_integer c = bound(k, in);
    const void *x = in[k->at.x];
    char *work = workspace;
    void *sums = c.finish.linear ? workspace : out[0];

    if (k->padded) {
        TRM_CHECK(trmi_cuda_conv_pad(stream, &k->padding, x, c.finish.x_zero, work + k->x_at));
        x = work + k->x_at;
    }
    TRM_CHECK(trmi_cuda_dnn_run(k->base.cuda, k->plan, stream, x, k->weights->memory, NULL, sums,
                                work + k->dnn_at));
    if (!c.finish.linear && k->w_sums == NULL)
        return TRM_OK;
    return trmi_cuda_conv_finish(stream, &c.finish, sums,
                                 k->w_sums == NULL ? NULL : k->w_sums->memory,
                                 (size_t)shape->batch * (size_t)shape->out[0] *
                                     (size_t)shape->out[1] * (size_t)shape->out[2],
                                 shape->filters, out[0]);
}

static const trm_kernel_ops own_ops = {
    .name = "integer conv", .run = run_own, .destroy = integer_destroy};
static const trm_kernel_ops dnn_ops = {
    .name = "cudnn integer conv", .run = run_dnn, .destroy = integer_destroy};

/* ---- prepare ---- */

static trm_status want_count(const trm_op_desc *desc, int i, size_t count)
{
    if (i < 0 || !trmi_cuda_has_input(desc, i) || trm_tensor_numel(&desc->inputs[i]) == 1 ||
        trm_tensor_numel(&desc->inputs[i]) == count)
        return TRM_OK;
    return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d has %zu elements: want 1 or %zu",
                    trm_op_get(desc->op)->name, desc->name, i, trm_tensor_numel(&desc->inputs[i]),
                    count);
}

static trm_status want_dtype(const trm_op_desc *desc, int i, trm_dtype a, trm_dtype b,
                             const char *want)
{
    if (i < 0 || !trmi_cuda_has_input(desc, i) || desc->inputs[i].dtype == a ||
        desc->inputs[i].dtype == b)
        return TRM_OK;
    return trmi_cuda_bad_dtype(desc, i, want);
}

static trm_status check(const trm_op_desc *desc, const places *at, int64_t group)
{
    const trm_tensor *x = &desc->inputs[at->x], *w = &desc->inputs[at->w];
    const size_t filters = (size_t)w->dims[0];
    const trm_dtype bytes[2] = {TRM_DTYPE_U8, TRM_DTYPE_I8};

    TRM_CHECK(want_dtype(desc, at->x, bytes[0], bytes[1], "u8 or i8"));
    TRM_CHECK(want_dtype(desc, at->w, bytes[0], bytes[1], "u8 or i8"));
    TRM_CHECK(want_dtype(desc, at->x_zero, x->dtype, x->dtype, "what x is"));
    TRM_CHECK(want_dtype(desc, at->w_zero, w->dtype, w->dtype, "what w is"));
    TRM_CHECK(want_dtype(desc, at->x_scale, TRM_DTYPE_F32, TRM_DTYPE_F32, "f32"));
    TRM_CHECK(want_dtype(desc, at->w_scale, TRM_DTYPE_F32, TRM_DTYPE_F32, "f32"));
    TRM_CHECK(want_dtype(desc, at->y_scale, TRM_DTYPE_F32, TRM_DTYPE_F32, "f32"));
    TRM_CHECK(want_dtype(desc, at->bias, TRM_DTYPE_I32, TRM_DTYPE_I32, "i32"));
    if (at->y_zero >= 0)
        TRM_CHECK(want_dtype(desc, at->y_zero, desc->outputs[0].dtype, desc->outputs[0].dtype,
                             "what the output is"));
    if (w->rank != x->rank || group < 1 || w->dims[1] * group != x->dims[1] ||
        w->dims[0] % group != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': group %lld does not fit the weights",
                        trm_op_get(desc->op)->name, desc->name, (long long)group);
    TRM_CHECK(want_count(desc, at->x_zero, 1));
    TRM_CHECK(want_count(desc, at->x_scale, 1));
    TRM_CHECK(want_count(desc, at->y_scale, 1));
    TRM_CHECK(want_count(desc, at->y_zero, 1));
    TRM_CHECK(want_count(desc, at->w_zero, filters));
    TRM_CHECK(want_count(desc, at->w_scale, filters));
    if (at->bias >= 0 && trmi_cuda_has_input(desc, at->bias) &&
        trm_tensor_numel(&desc->inputs[at->bias]) != filters)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': the bias does not have %zu elements",
                        trm_op_get(desc->op)->name, desc->name, filters);
    return TRM_OK;
}

/* The zero point is known to be 0, of signed bytes. */
static bool no_zero(const trm_op_desc *desc, int i, trm_dtype dtype)
{
    const trm_tensor *t;

    if (dtype != TRM_DTYPE_I8)
        return false;
    if (i < 0 || !trmi_cuda_has_input(desc, i))
        return true;
    t = &desc->inputs[i];
    for (size_t j = 0; t->data != NULL && j < trm_tensor_numel(t); j++)
        if (trm_tensor_get_i64(t, j) != 0)
            return false;
    return t->data != NULL;
}

/* Sums of each filter's weights, as a pack. */
static trm_status pack_sums(integer_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *w = &desc->inputs[k->at.w];
    const size_t filters = (size_t)w->dims[0], each = trm_tensor_count(w, 1, w->rank);
    const int8_t *from = w->data;
    int32_t *sums = trm_calloc(filters, sizeof(*sums));
    bool found;
    trm_status st;

    if (sums == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "sums of weights");
    for (size_t m = 0; m < filters; m++)
        for (size_t i = 0; i < each; i++)
            sums[m] += from[m * each + i];
    st = trmi_cuda_pack(k->base.cuda, desc->weight_keys == NULL ? 0 : desc->weight_keys[k->at.w],
                        "sums", filters * sizeof(*sums), &k->w_sums, &found);
    if (st == TRM_OK && !found)
        st = trmi_cuda_upload(k->base.cuda, k->w_sums->memory, sums, filters * sizeof(*sums));
    trm_free(sums);
    return st;
}

static size_t padded(size_t bytes)
{
    return (bytes + TRMI_CONV_ALIGN - 1) / TRMI_CONV_ALIGN * TRMI_CONV_ALIGN;
}

static trm_status prepare_dnn(integer_kernel *k, const trm_op_desc *desc, const trm_window *w,
                              bool x_zero)
{
    const trmi_conv_shape *s = &k->conv.shape;
    const size_t taps = (size_t)s->kernel[0] * (size_t)s->kernel[1] * (size_t)s->kernel[2];
    const size_t cg = (size_t)(s->channels / s->group);
    const int spatial = w->spatial < 2 ? 2 : w->spatial, lead = spatial - w->spatial;
    bool copied = k->conv.finish.x_unsigned;
    size_t sums = 0, copy = 0;
    trmi_dnn_desc d;

    memset(&d, 0, sizeof(d));
    d.kind = TRMI_DNN_CONV;
    d.spatial = spatial;
    d.x = d.w = TRM_DTYPE_I8;
    d.y = TRM_DTYPE_I32;
    d.batch = s->batch;
    d.channels = s->channels;
    d.filters = s->filters;
    d.group = s->group;
    for (int i = 0; i < spatial; i++) {
        int j = i - lead;

        d.in[i] = d.out[i] = d.kernel[i] = d.stride[i] = d.dilation[i] = 1;
        if (j < 0)
            continue;
        d.kernel[i] = w->kernel[j];
        d.stride[i] = w->stride[j];
        d.dilation[i] = w->dilation[j];
        d.out[i] = w->out[j];
        d.in[i] = (w->out[j] - 1) * w->stride[j] + (w->kernel[j] - 1) * w->dilation[j] + 1;
        copied = copied || w->pad_begin[j] != 0 || d.in[i] > w->in[j];
    }
    for (int i = lead; i < spatial && !copied; i++)
        d.in[i] = w->in[i - lead];
    TRM_CHECK(trmi_cuda_dnn_plan(k->base.cuda, &d, &k->plan));
    k->arrange = (trmi_conv_arrange){.dims = {1, (size_t)s->filters, taps, cg},
                                     .strides = {0, cg * taps, 1, taps},
                                     .valid = cg,
                                     .from = TRM_DTYPE_I8,
                                     .to = TRM_DTYPE_I8};
    TRM_CHECK(trmi_cuda_conv_pack(k->base.cuda, desc, k->at.w, &k->arrange, &k->weights));
    if (x_zero)
        TRM_CHECK(pack_sums(k, desc));
    if (k->conv.finish.linear)
        sums = (size_t)s->batch * (size_t)s->filters * (size_t)s->out[0] * (size_t)s->out[1] *
               (size_t)s->out[2] * sizeof(int32_t);
    k->padded = copied;
    if (copied) {
        k->padding = (trmi_conv_padding){.batch = s->batch,
                                         .from_channels = s->channels,
                                         .to_channels = s->channels,
                                         .element_bytes = 1,
                                         .flip = k->conv.finish.x_unsigned ? 0x80 : 0};
        copy = (size_t)s->batch * (size_t)s->channels;
        for (int i = 0; i < 3; i++) {
            k->padding.in[i] = s->in[i];
            k->padding.out[i] = i < 3 - spatial ? 1 : (int)d.in[i - (3 - spatial)];
            k->padding.pad[i] = s->pad[i];
            copy *= (size_t)k->padding.out[i];
        }
    }
    k->x_at = padded(sums);
    k->dnn_at = k->x_at + padded(copy);
    k->base.base.workspace_bytes = k->dnn_at + trmi_cuda_dnn_workspace_bytes(k->plan);
    k->base.base.ops = &dnn_ops;
    return TRM_OK;
}

static trm_status prepare_own(integer_kernel *k, const trm_op_desc *desc)
{
    const trmi_conv_shape *s = &k->conv.shape;
    const size_t taps = (size_t)s->kernel[0] * (size_t)s->kernel[1] * (size_t)s->kernel[2];
    const size_t cg = (size_t)(s->channels / s->group), words = (cg + 3) / 4;

    k->conv.words = (int)words;
    k->arrange = (trmi_conv_arrange){.dims = {taps, words, (size_t)s->filters, 4},
                                     .strides = {1, 4 * taps, cg * taps, taps},
                                     .valid = cg,
                                     .split = true,
                                     .from = desc->inputs[k->at.w].dtype,
                                     .to = TRM_DTYPE_I8,
                                     .flip = k->conv.w_unsigned ? 0x80 : 0};
    if (desc->inputs[k->at.w].data != NULL)
        return trmi_cuda_conv_pack(k->base.cuda, desc, k->at.w, &k->arrange, &k->weights);
    k->base.base.workspace_bytes = taps * words * (size_t)s->filters * 4;
    return TRM_OK;
}

static trm_status build(integer_kernel *k, trm_op_desc *desc, const trm_window *window)
{
    const places *at = &k->at;
    const trm_tensor *x = &desc->inputs[at->x], *w = &desc->inputs[at->w];
    const bool x_plain = no_zero(desc, at->x_zero, x->dtype);
    const bool w_plain = no_zero(desc, at->w_zero, w->dtype);
    trmi_conv_integer *c = &k->conv;
    trm_status st = TRM_ERR_UNSUPPORTED;

    c->finish.linear = at->y_scale >= 0;
    c->finish.x_unsigned = x->dtype == TRM_DTYPE_U8;
    c->finish.y_unsigned = desc->outputs[0].dtype == TRM_DTYPE_U8;
    c->w_unsigned = w->dtype == TRM_DTYPE_U8;
    c->symmetric = x_plain && w_plain;
    if (at->w_scale >= 0)
        c->finish.w_scales = (int)trm_tensor_numel(&desc->inputs[at->w_scale]);
    c->w_zeros = at->w_zero >= 0 && trmi_cuda_has_input(desc, at->w_zero)
                     ? (int)trm_tensor_numel(&desc->inputs[at->w_zero])
                     : 1;
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = i == at->x ? desc->inputs[i].layout : TRM_LAYOUT_PLAIN;
    if (trm_tensor_numel(&desc->outputs[0]) == 0 || trm_tensor_numel(x) == 0)
        return prepare_own(k, desc);
    /* few channels a group leave cuDNN's tensor cores idle */
    if (w_plain && w->data != NULL && (c->shape.group == 1 || w->dims[1] >= 16))
        st = prepare_dnn(k, desc, window, !x_plain);
    if (st == TRM_ERR_UNSUPPORTED)
        st = prepare_own(k, desc);
    if (st == TRM_OK && k->weights != NULL) {
        k->base.base.packed_inputs |= 1u << at->w;
        k->base.base.copied_inputs |= 1u << at->w;
    }
    return st;
}

trm_status trmi_cuda_prepare_conv_integer(trm_cuda *cuda, trm_op_desc *desc,
                                          trm_kernel **kernel_out)
{
    places at = desc->op == TRM_OP_QLinearConv ? linear_places : integer_places;
    const int64_t group = trm_attr_int(desc->attrs, "group", 1);
    trm_tensor *x = &desc->inputs[at.x], *w = &desc->inputs[at.w], *y = &desc->outputs[0];
    integer_kernel *k = NULL;
    trmi_conv_shape shape;
    trm_window window;
    trm_layout arrived = x->layout;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(check(desc, &at, group));
    TRM_CHECK(trm_window_parse(desc->attrs, w->dims + 2, x, y, false, &window));
    TRM_CHECK(trmi_cuda_conv_shape_of(desc, &window, group, false, &shape));
    x->layout = trmi_cuda_conv_same_bytes(x) ? arrived : TRM_LAYOUT_CHANNELS_LAST;
    y->layout = trmi_cuda_conv_same_bytes(y) ? TRM_LAYOUT_PLAIN : TRM_LAYOUT_CHANNELS_LAST;
    if (at.x_zero >= 0 && !trmi_cuda_has_input(desc, at.x_zero))
        at.x_zero = -1;
    if (at.w_zero >= 0 && !trmi_cuda_has_input(desc, at.w_zero))
        at.w_zero = -1;
    if (at.y_zero >= 0 && !trmi_cuda_has_input(desc, at.y_zero))
        at.y_zero = -1;
    if (at.bias >= 0 && !trmi_cuda_has_input(desc, at.bias))
        at.bias = -1;
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &own_ops, &k));
    k->at = at;
    k->conv.shape = shape;
    st = build(k, desc, &window);
    if (st != TRM_OK) {
        trm_kernel_destroy(&k->base.base);
        return st;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
}
