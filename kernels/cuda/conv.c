/* Conv and ConvTranspose: cuDNN where it has an engine, in channels-last; kernels of our own for
 * depthwise convolutions and for everything else. */
#include "kernels/cuda/conv_impl.h"

#include <limits.h>
#include <string.h>

bool trmi_cuda_conv_same_bytes(const trm_tensor *t)
{
    return t->dims[1] == 1 || trm_tensor_count(t, 2, t->rank) == 1;
}

trm_status trmi_cuda_conv_shape_of(const trm_op_desc *desc, const trm_window *w, int64_t group,
                                   bool transposed, trmi_conv_shape *s)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    int lead = 3 - w->spatial;

    memset(s, 0, sizeof(*s));
    if (lead < 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %d spatial dims: want at most 3",
                        trm_op_get(desc->op)->name, desc->name, w->spatial);
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] > INT_MAX / 4 || y->dims[i] > INT_MAX / 4)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': a dim of more than 29 bits",
                            trm_op_get(desc->op)->name, desc->name);
    s->batch = (int)x->dims[0];
    s->channels = (int)x->dims[1];
    s->filters = (int)y->dims[1];
    s->group = (int)group;
    s->transposed = transposed;
    for (int i = 0; i < 3; i++) {
        int d = i - lead;

        s->in[i] = s->out[i] = s->kernel[i] = s->stride[i] = s->dilation[i] = 1;
        if (d < 0)
            continue;
        if (w->kernel[d] > INT_MAX / 4 || w->stride[d] > INT_MAX / 4 ||
            w->dilation[d] > INT_MAX / 4 || w->pad_begin[d] > INT_MAX / 4 ||
            w->pad_begin[d] < -INT_MAX / 4 || w->out[d] * w->stride[d] > INT_MAX / 4 ||
            w->kernel[d] * w->dilation[d] > INT_MAX / 4)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': a window of more than 29 bits",
                            trm_op_get(desc->op)->name, desc->name);
        s->in[i] = (int)w->in[d];
        s->out[i] = (int)w->out[d];
        s->kernel[i] = (int)w->kernel[d];
        s->stride[i] = (int)w->stride[d];
        s->dilation[i] = (int)w->dilation[d];
        s->pad[i] = (int)w->pad_begin[d];
    }
    return TRM_OK;
}

static trm_status check(const trm_op_desc *desc, int64_t group, bool transposed)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *y = &desc->outputs[0];

    for (int i = 0; i < desc->input_count; i++)
        if (trmi_cuda_has_input(desc, i) && !trm_dtype_is_float(desc->inputs[i].dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
    if ((x->dtype == TRM_DTYPE_F64) != (w->dtype == TRM_DTYPE_F64))
        return trmi_cuda_bad_dtype(desc, 1, "f64 beside f64 only");
    if (y->dtype != x->dtype)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': output of another dtype than input 0",
                        trm_op_get(desc->op)->name, desc->name);
    if (w->rank != x->rank || group < 1 || x->dims[1] % group != 0 || y->dims[1] % group != 0 ||
        (transposed ? w->dims[0] != x->dims[1] : w->dims[1] * group != x->dims[1]))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': group %lld does not fit %lld input and %lld output channels",
                        trm_op_get(desc->op)->name, desc->name, (long long)group,
                        (long long)x->dims[1], (long long)y->dims[1]);
    return TRM_OK;
}

/* ---- steps ---- */

static bool is_channel(const trm_tensor *t, const trm_tensor *out)
{
    int lead = out->rank - t->rank;

    if (lead < 0 || (lead > 1 && trm_tensor_numel(t) != 1))
        return false;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] != (i + lead == 1 ? out->dims[1] : 1))
            return false;
    return true;
}

static trm_status add_step(trmi_conv_kernel *k, const trm_op_desc *desc, const trm_post *post)
{
    const trm_tensor *y = &desc->outputs[0];
    trmi_conv_step *s = &k->steps[k->step_count];
    trm_tensor *t;

    if (k->step_count == TRMI_POSTS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': more than %d posts",
                        trm_op_get(desc->op)->name, desc->name, TRMI_POSTS_MAX);
    *s = (trmi_conv_step){
        .op = post->op, .input = post->input, .alpha = post->alpha, .beta = post->beta};
    k->step_count++;
    if (post->input < 0)
        return TRM_OK;
    t = &desc->inputs[post->input];
    if (trm_tensor_same_shape(t, y)) {
        s->operand = TRMI_CONV_FULL;
        if (!trmi_cuda_conv_same_bytes(t))
            t->layout = TRM_LAYOUT_CHANNELS_LAST;
    } else if (trm_tensor_numel(t) == 1) {
        s->operand = t->data != NULL ? TRMI_CONV_CHANNEL : TRMI_CONV_ONE;
        t->layout = TRM_LAYOUT_PLAIN;
    } else if (is_channel(t, y)) {
        s->operand = TRMI_CONV_CHANNEL;
        t->layout = TRM_LAYOUT_PLAIN;
    } else {
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': operand of a post has a shape of its own",
                        trm_op_get(desc->op)->name, desc->name);
    }
    if (t->dtype != y->dtype && (t->data == NULL || s->operand == TRMI_CONV_FULL))
        return trmi_cuda_bad_dtype(desc, post->input, "what the output is");
    return TRM_OK;
}

static trm_status read_steps(trmi_conv_kernel *k, trm_op_desc *desc)
{
    const trm_post bias = {.op = TRM_OP_Add, .input = 2};
    trm_tensor *b;
    int64_t channels;

    if (trmi_cuda_has_input(desc, 2)) {
        b = &desc->inputs[2];
        channels = desc->outputs[0].dims[1];
        if (b->rank != 1 || b->dims[0] != channels)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': the bias does not have %lld elements",
                            trm_op_get(desc->op)->name, desc->name, (long long)channels);
        b->layout = TRM_LAYOUT_PLAIN;
        k->steps[k->step_count++] =
            (trmi_conv_step){.op = bias.op, .operand = TRMI_CONV_CHANNEL, .input = bias.input};
        if (b->data == NULL && b->dtype != desc->outputs[0].dtype)
            return trmi_cuda_bad_dtype(desc, 2, "what the output is");
    }
    for (int i = 0; i < desc->post_count; i++)
        TRM_CHECK(add_step(k, desc, &desc->posts[i]));
    /* cuDNN has engines for a residual and then a bias, not the other way round */
    if (k->step_count > 1 && k->steps[0].op == TRM_OP_Add && k->steps[1].op == TRM_OP_Add &&
        k->steps[0].operand == TRMI_CONV_CHANNEL && k->steps[1].operand == TRMI_CONV_FULL) {
        const trmi_conv_step first = k->steps[0];

        k->steps[0] = k->steps[1];
        k->steps[1] = first;
    }
    return TRM_OK;
}

/* Constants of steps: cuDNN's in the dtype of the activations, the others' as they are computed. */
static trm_status pack_steps(trmi_conv_kernel *k, const trm_op_desc *desc)
{
    for (int i = 0; i < k->step_count; i++) {
        trmi_conv_step *s = &k->steps[i];
        bool own = k->path != TRMI_CONV_BY_DNN || i >= k->fused;
        trm_dtype dtype = !own || k->dtype == TRM_DTYPE_F64 ? k->dtype : TRM_DTYPE_F32;

        if (s->operand != TRMI_CONV_CHANNEL || desc->inputs[s->input].data == NULL)
            continue;
        TRM_CHECK(trmi_cuda_conv_pack_channels(k->base.cuda, desc, s->input, k->shape.filters,
                                               dtype, &s->pack));
        s->wide = dtype != k->dtype;
        k->base.base.packed_inputs |= 1u << s->input;
        k->base.base.copied_inputs |= 1u << s->input;
    }
    return TRM_OK;
}

/* ---- prepare ---- */

static size_t padded(size_t bytes)
{
    return (bytes + TRMI_CONV_ALIGN - 1) / TRMI_CONV_ALIGN * TRMI_CONV_ALIGN;
}

static trm_status build(trmi_conv_kernel *k, trm_op_desc *desc, const trm_window *w)
{
    const trmi_conv_shape *s = &k->shape;
    const trmi_conv_arrange *a = &k->arrange;
    trm_status st = TRM_ERR_UNSUPPORTED;

    TRM_CHECK(read_steps(k, desc));
    if (trm_tensor_numel(&desc->outputs[0]) == 0) {
        k->path = TRMI_CONV_NOTHING;
        return TRM_OK;
    }
    if (s->group == s->channels && s->group == s->filters && !s->transposed &&
        k->dtype != TRM_DTYPE_F64)
        k->path = TRMI_CONV_DEPTHWISE;
    else if (k->dtype != TRM_DTYPE_F64 && trm_tensor_numel(&desc->inputs[0]) > 0)
        st = trmi_cuda_conv_dnn(k, desc, w);
    if (st == TRM_OK)
        k->path = TRMI_CONV_BY_DNN;
    else if (st != TRM_ERR_UNSUPPORTED)
        return st;
    else
        trmi_cuda_conv_direct_order(k, desc);
    k->base.base.ops = k->path == TRMI_CONV_BY_DNN      ? &trmi_cuda_conv_dnn_ops
                       : k->path == TRMI_CONV_DEPTHWISE ? &trmi_cuda_conv_depthwise_ops
                                                        : &trmi_cuda_conv_direct_ops;
    if (desc->inputs[1].data != NULL) {
        TRM_CHECK(trmi_cuda_conv_pack(k->base.cuda, desc, 1, a, &k->weights));
        k->base.base.packed_inputs |= 1u << 1;
        k->base.base.copied_inputs |= 1u << 1;
    } else {
        k->weights_bytes =
            a->dims[0] * a->dims[1] * a->dims[2] * a->dims[3] * trm_dtype_bytes(a->to);
    }
    if (k->padded)
        k->padded_bytes = (size_t)k->padding.batch * (size_t)k->padding.out[0] *
                          (size_t)k->padding.out[1] * (size_t)k->padding.out[2] *
                          (size_t)k->padding.to_channels * k->padding.element_bytes;
    k->x_at = padded(k->weights_bytes);
    k->dnn_at = k->x_at + padded(k->padded_bytes);
    k->base.base.workspace_bytes =
        k->dnn_at + (k->plan != NULL ? trmi_cuda_dnn_workspace_bytes(k->plan) : 0);
    return pack_steps(k, desc);
}

trm_status trmi_cuda_prepare_conv(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *y = &desc->outputs[0];
    bool transposed = desc->op == TRM_OP_ConvTranspose;
    int64_t group = trm_attr_int(desc->attrs, "group", 1);
    trmi_conv_kernel *k = NULL;
    trmi_conv_shape shape;
    trm_window window;
    trm_status st;

    TRM_CHECK(check(desc, group, transposed));
    TRM_CHECK(trm_window_parse(desc->attrs, w->dims + 2, x, y, transposed, &window));
    TRM_CHECK(trmi_cuda_conv_shape_of(desc, &window, group, transposed, &shape));
    if (!trmi_cuda_conv_same_bytes(x))
        x->layout = TRM_LAYOUT_CHANNELS_LAST;
    w->layout = TRM_LAYOUT_PLAIN;
    y->layout = trmi_cuda_conv_same_bytes(y) ? TRM_LAYOUT_PLAIN : TRM_LAYOUT_CHANNELS_LAST;
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &trmi_cuda_conv_direct_ops, &k));
    k->shape = shape;
    k->dtype = x->dtype;
    k->path = TRMI_CONV_DIRECT;
    st = build(k, desc, &window);
    if (st != TRM_OK) {
        trm_kernel_destroy(&k->base.base);
        return st;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
}
