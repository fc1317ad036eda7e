/* Conv and ConvTranspose on oneDNN.
 *
 * oneDNN first chooses formats freely; its choice stands where it is one of our layouts. Where the
 * activations arrive in another layout that has a fast implementation too, that one is taken, which
 * saves a reorder. What oneDNN does not take (f16, f64, more than 3 spatial dims) runs the scalar
 * reference. */
#include "kernels/cpu/dnnl_util.h"
#include "kernels/cpu/scalar.h"
#include "kernels/reference/conv.h"

#include <stdio.h>
#include <string.h>

#define LAYOUT_ANY (-1)

typedef struct conv_shape {
    bool transposed;
    int64_t group;
    trm_window window;
    dnnl_memory_desc_t weights_user; /* grouped dims, as the file has them */
    dnnl_memory_desc_t weights_any, bias;
    bool has_bias;
} conv_shape;

/* Weights as oneDNN sees them: [group,] out, in, kernel... over the bytes of ONNX's [M, C/g, k...]
 * or, transposed, [C, M/g, k...]. `dtype`: of the description; the activations' for `any`. */
static trm_status weights_md(const trm_op_desc *desc, const conv_shape *c, trm_dtype dtype,
                             bool any, dnnl_memory_desc_t *md_out)
{
    const trm_tensor *w = &desc->inputs[1];
    dnnl_dims_t dims, strides;
    int at = 0, spatial = c->window.spatial;
    int64_t taps = 1;
    int64_t outs = c->transposed ? w->dims[1] : w->dims[0] / c->group;
    int64_t ins = c->transposed ? w->dims[0] / c->group : w->dims[1];

    for (int i = 0; i < spatial; i++)
        taps *= w->dims[i + 2];
    if (c->group > 1) {
        strides[at] = outs * ins * taps;
        dims[at++] = c->group;
    }
    strides[at] = c->transposed ? taps : ins * taps;
    dims[at++] = outs;
    strides[at] = c->transposed ? outs * taps : taps;
    dims[at++] = ins;
    for (int i = 0; i < spatial; i++) {
        taps /= w->dims[i + 2];
        strides[at] = taps;
        dims[at++] = w->dims[i + 2];
    }
    if (any)
        return trmi_dnnl_status(dnnl_memory_desc_init_by_tag(
                                    md_out, at, dims, trmi_dnnl_dtype(dtype), dnnl_format_tag_any),
                                "weights");
    return trmi_dnnl_status(
        dnnl_memory_desc_init_by_strides(md_out, at, dims, trmi_dnnl_dtype(dtype), strides),
        "weights");
}

static trm_status activation_md(const trm_tensor *t, int layout, dnnl_memory_desc_t *md_out)
{
    return layout == LAYOUT_ANY ? trmi_dnnl_md_any(t, md_out)
                                : trmi_dnnl_md(t, (trm_layout)layout, md_out);
}

static trm_status conv_pd(trm_cpu *cpu, const trm_op_desc *desc, const conv_shape *c,
                          int src_layout, int dst_layout, dnnl_primitive_attr_t attr,
                          dnnl_primitive_desc_t *pd_out)
{
    dnnl_memory_desc_t src, dst;
    dnnl_convolution_desc_t d; /* also the type of deconvolutions */
    dnnl_dims_t stride, dilation, begin, end;
    const dnnl_memory_desc_t *bias = c->has_bias ? &c->bias : NULL;

    TRM_CHECK(activation_md(&desc->inputs[0], src_layout, &src));
    TRM_CHECK(activation_md(&desc->outputs[0], dst_layout, &dst));
    for (int i = 0; i < c->window.spatial; i++) {
        const trm_window *w = &c->window;

        stride[i] = w->stride[i];
        dilation[i] = w->dilation[i] - 1;
        begin[i] = w->pad_begin[i];
        end[i] = w->pad_end[i];
        if (c->transposed) /* output padding: less is cut from the end */
            end[i] = (w->in[i] - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1 -
                     w->out[i] - w->pad_begin[i];
    }
    if (c->transposed)
        TRM_CHECK(trmi_dnnl_status(dnnl_dilated_deconvolution_forward_desc_init(
                                       &d, dnnl_forward_inference, dnnl_deconvolution_direct, &src,
                                       &c->weights_any, bias, &dst, stride, dilation, begin, end),
                                   "deconvolution"));
    else
        TRM_CHECK(trmi_dnnl_status(dnnl_dilated_convolution_forward_desc_init(
                                       &d, dnnl_forward_inference, dnnl_convolution_direct, &src,
                                       &c->weights_any, bias, &dst, stride, dilation, begin, end),
                                   "convolution"));
    return trmi_dnnl_status(
        dnnl_primitive_desc_create(pd_out, &d, attr, trmi_cpu_engine(cpu), NULL), "convolution");
}

/* True if this pair of layouts has an implementation at all; *slow_out: only a reference one. */
static bool pair_works(trm_cpu *cpu, const trm_op_desc *desc, const conv_shape *c,
                       dnnl_primitive_attr_t attr, trm_layout src, trm_layout dst, bool *slow_out)
{
    dnnl_primitive_desc_t pd;

    if (conv_pd(cpu, desc, c, (int)src, (int)dst, attr, &pd) != TRM_OK)
        return false;
    *slow_out = trmi_dnnl_impl_slow(pd);
    dnnl_primitive_desc_destroy(pd);
    return true;
}

/* Asks for one fixed pair after another: the first fast one, else the first that works. For 1 input
 * channel oneDNN's own choice is its reference code, though plain to blocked is fast. */
static bool choose_pair(trm_cpu *cpu, const trm_op_desc *desc, const conv_shape *c,
                        dnnl_primitive_attr_t attr, trm_layout *src_out, trm_layout *dst_out)
{
    static const trm_layout pairs[][2] = {
        {TRM_LAYOUT_PLAIN, TRM_LAYOUT_BLOCK16},
        {TRM_LAYOUT_BLOCK16, TRM_LAYOUT_BLOCK16},
        {TRM_LAYOUT_PLAIN, TRM_LAYOUT_BLOCK8},
        {TRM_LAYOUT_BLOCK8, TRM_LAYOUT_BLOCK8},
        {TRM_LAYOUT_CHANNELS_LAST, TRM_LAYOUT_CHANNELS_LAST},
        {TRM_LAYOUT_PLAIN, TRM_LAYOUT_PLAIN},
    };
    bool found = false, slow;

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (!pair_works(cpu, desc, c, attr, pairs[i][0], pairs[i][1], &slow) || (found && slow))
            continue;
        *src_out = pairs[i][0];
        *dst_out = pairs[i][1];
        found = true;
        if (!slow)
            break;
    }
    return found;
}

/* Chooses layouts with a descriptor that has no posts (which do not change the choice). */
static trm_status choose_layouts(trm_cpu *cpu, const trm_op_desc *desc, const conv_shape *c,
                                 dnnl_primitive_attr_t attr, trm_layout *src_out,
                                 trm_layout *dst_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    trm_layout incoming = x->layout, dst;
    dnnl_primitive_desc_t pd;
    bool found, slow, usable;

    TRM_CHECK(conv_pd(cpu, desc, c, LAYOUT_ANY, LAYOUT_ANY, attr, &pd));
    found = trmi_dnnl_layout(dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0), x, src_out) &&
            trmi_dnnl_layout(dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), y, dst_out);
    slow = trmi_dnnl_impl_slow(pd);
    dnnl_primitive_desc_destroy(pd);
    /* with one channel plain and channels-last are the same bytes, but not the same to oneDNN */
    if (found && !slow && x->dims[1] == 1 && *src_out == TRM_LAYOUT_PLAIN &&
        pair_works(cpu, desc, c, attr, *src_out, *dst_out, &slow) && slow &&
        pair_works(cpu, desc, c, attr, TRM_LAYOUT_CHANNELS_LAST, *dst_out, &slow) && !slow)
        *src_out = TRM_LAYOUT_CHANNELS_LAST;
    if (found && !slow && (*src_out == incoming || incoming == TRM_LAYOUT_PLAIN))
        return TRM_OK;
    if (conv_pd(cpu, desc, c, (int)incoming, LAYOUT_ANY, attr, &pd) == TRM_OK) {
        usable =
            trmi_dnnl_layout(dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), y, &dst) &&
            !trmi_dnnl_impl_slow(pd);
        dnnl_primitive_desc_destroy(pd);
        if (usable) {
            *src_out = incoming;
            *dst_out = dst;
            return TRM_OK;
        }
    }
    if ((!found || slow) && !choose_pair(cpu, desc, c, attr, src_out, dst_out))
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN convolution: no known layout");
    return TRM_OK;
}

static trm_status conv_build(trm_cpu *cpu, trm_op_desc *desc, const conv_shape *c,
                             trmi_dnnl_kernel *k)
{
    trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    dnnl_primitive_attr_t plain = NULL, fused = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const dnnl_memory_desc_t *src, *dst;
    trm_layout src_layout, dst_layout;
    trmi_dnnl_posts posts;
    trmi_dnnl_step *step;
    trmi_bind weights;
    bool fuse;
    trm_status st;

    TRM_TRY(st, trmi_dnnl_attr(&plain), done);
    TRM_TRY(st, choose_layouts(cpu, desc, c, plain, &src_layout, &dst_layout), done);
    TRM_TRY(st, trmi_dnnl_posts_describe(desc, dst_layout, y->rank, y->dims, &posts), done);
    TRM_TRY(st, trmi_dnnl_attr(&fused), done);
    fuse = trmi_dnnl_posts_attr(desc, &posts, fused) == TRM_OK &&
           conv_pd(cpu, desc, c, (int)src_layout, (int)dst_layout, fused, &pd) == TRM_OK;
    if (fuse && posts.count > 0 && trmi_dnnl_impl_slow(pd)) {
        dnnl_primitive_desc_t bare;

        /* better a fast convolution and its posts apart */
        if (conv_pd(cpu, desc, c, (int)src_layout, (int)dst_layout, plain, &bare) == TRM_OK) {
            fuse = trmi_dnnl_impl_slow(bare);
            dnnl_primitive_desc_destroy(fuse ? bare : pd);
            pd = fuse ? pd : bare;
        }
    } else if (!fuse) {
        TRM_TRY(st, conv_pd(cpu, desc, c, (int)src_layout, (int)dst_layout, plain, &pd), done);
    }
    src = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    dst = dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    TRM_TRY(st,
            trmi_dnnl_weights(k, desc, 1, &c->weights_user,
                              dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), &weights),
            done);
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC, src, trmi_bind_input(0)), done);
    TRM_TRY(st,
            trmi_dnnl_step_arg(k, step, DNNL_ARG_WEIGHTS,
                               dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), weights),
            done);
    if (c->has_bias)
        TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_BIAS, &c->bias, trmi_bind_input(2)), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_DST, dst, trmi_bind_output(0)), done);
    if (fuse)
        TRM_TRY(st, trmi_dnnl_posts_bind(k, step, desc, &posts), done);
    else
        TRM_TRY(st, trmi_dnnl_posts_steps(k, desc, &posts, dst), done);
    if (!trmi_layout_same_bytes(x, x->layout, src_layout))
        x->layout = src_layout;
    y->layout =
        trmi_layout_same_bytes(y, dst_layout, TRM_LAYOUT_PLAIN) ? TRM_LAYOUT_PLAIN : dst_layout;
done:
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(plain);
    dnnl_primitive_attr_destroy(fused);
    return st;
}

static trm_status conv_dnnl(trm_cpu *cpu, trm_op_desc *desc, conv_shape *c, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1];
    trm_layout arrived[TRM_REF_IN];
    trmi_dnnl_kernel *k = NULL;
    trm_status st;

    if (c->window.spatial > 3 || trm_tensor_numel(&desc->outputs[0]) == 0 ||
        trm_tensor_numel(x) == 0 || desc->input_count > TRM_REF_IN)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN convolution of this shape");
    if (trmi_dnnl_dtype(w->dtype) == dnnl_data_type_undef)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN convolution of %s", trm_dtype_name(w->dtype));
    TRM_CHECK(weights_md(desc, c, w->dtype, false, &c->weights_user));
    TRM_CHECK(weights_md(desc, c, x->dtype, true, &c->weights_any));
    if (c->has_bias)
        TRM_CHECK(trmi_dnnl_md(&desc->inputs[2], TRM_LAYOUT_PLAIN, &c->bias));
    for (int i = 0; i < desc->input_count; i++)
        arrived[i] = desc->inputs[i].layout;
    TRM_CHECK(trmi_dnnl_kernel_new(cpu, &k));
    st = conv_build(cpu, desc, c, k);
    if (st == TRM_OK) {
        *kernel_out = &k->base;
        return TRM_OK;
    }
    trmi_dnnl_kernel_destroy(&k->base);
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = arrived[i];
    return st;
}

trm_status trmi_cpu_conv(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *y = &desc->outputs[0];
    trmi_scalar_kernel *k = NULL;
    conv_shape c;
    trm_status st;

    memset(&c, 0, sizeof(c));
    for (int i = 0; i < 3; i++)
        TRM_CHECK(trmi_want_dtype(desc, i, trmi_floats));
    c.transposed = desc->op == TRM_OP_ConvTranspose;
    c.group = trm_attr_int(desc->attrs, "group", 1);
    c.has_bias = desc->input_count > 2 && desc->inputs[2].dtype != TRM_DTYPE_NONE;
    if (w->rank != x->rank || c.group < 1 || x->dims[1] % c.group != 0 ||
        y->dims[1] % c.group != 0 ||
        (c.transposed ? w->dims[0] != x->dims[1] : w->dims[1] * c.group != x->dims[1]))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s: group %lld does not fit %lld input and %lld "
                        "output channels",
                        trm_op_get(desc->op)->name, (long long)c.group, (long long)x->dims[1],
                        (long long)y->dims[1]);
    TRM_CHECK(trm_window_parse(desc->attrs, w->dims + 2, x, y, c.transposed, &c.window));
    st = conv_dnnl(cpu, desc, &c, kernel_out);
    if (st != TRM_ERR_UNSUPPORTED)
        return st;
    TRM_CHECK(trmi_scalar_new(desc,
                              c.transposed ? trm_conv_transpose_reference : trm_conv_reference,
                              trm_tensor_numel(y), trm_tensor_count(w, 1, w->rank), &k));
    k->ref.window = c.window;
    k->ref.group = c.group;
    *kernel_out = &k->base;
    return TRM_OK;
}
