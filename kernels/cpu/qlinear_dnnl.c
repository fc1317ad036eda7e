/* QLinearConv on oneDNN's int8 convolutions: constant signed weights with zero point 0, constant
 * scales and zero points, and a CPU with VNNI (older ones saturate pairs of products in 16 bits,
 * which would be inexact). Everything else stays with the exact reference (qlinear.c). */
#include "kernels/cpu/dnnl_util.h"
#include "kernels/cpu/qlinear.h"

#include <math.h>

/* inputs of QLinearConv */
enum { X, X_SCALE, X_ZERO, W, W_SCALE, W_ZERO, Y_SCALE, Y_ZERO, BIAS };

static bool absent(const trm_op_desc *desc, int i)
{
    return i >= desc->input_count || desc->inputs[i].dtype == TRM_DTYPE_NONE;
}

static bool suits(const trm_op_desc *desc, const trm_window *w)
{
    const trm_tensor *zeros = &desc->inputs[W_ZERO];

    if (trmi_cpu_isa() < TRM_ISA_AVX512_VNNI || w->spatial > 3 || desc->post_count > 0 ||
        desc->inputs[W].dtype != TRM_DTYPE_I8 || trm_tensor_numel(&desc->outputs[0]) == 0 ||
        trm_tensor_numel(&desc->inputs[X]) == 0 ||
        (!absent(desc, BIAS) && desc->inputs[BIAS].dtype != TRM_DTYPE_I32))
        return false;
    for (int i = X_SCALE; i <= Y_ZERO; i++)
        if (desc->inputs[i].data == NULL)
            return false;
    for (size_t i = 0; i < trm_tensor_numel(zeros); i++)
        if (trm_tensor_get_i64(zeros, i) != 0)
            return false;
    return true;
}

/* Scale and zero points as attributes. */
static trm_status quant_attr(const trm_op_desc *desc, dnnl_primitive_attr_t attr)
{
    const trm_tensor *ws = &desc->inputs[W_SCALE];
    size_t count = trm_tensor_numel(ws);
    int32_t src = (int32_t)trm_tensor_get_i64(&desc->inputs[X_ZERO], 0);
    int32_t dst = (int32_t)trm_tensor_get_i64(&desc->inputs[Y_ZERO], 0);
    float x_scale = (float)trm_tensor_get_f64(&desc->inputs[X_SCALE], 0);
    float y_scale = (float)trm_tensor_get_f64(&desc->inputs[Y_SCALE], 0);
    float *scales = trm_malloc(count, sizeof(*scales));
    trm_status st;

    if (scales == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "scales");
    for (size_t i = 0; i < count; i++)
        scales[i] = x_scale * (float)trm_tensor_get_f64(ws, i) / y_scale;
    st = trmi_dnnl_status(dnnl_primitive_attr_set_output_scales(attr, (dnnl_dim_t)count,
                                                                count == 1 ? 0 : 1 << 1, scales),
                          "output scales");
    trm_free(scales);
    if (st == TRM_OK && src != 0)
        st = trmi_dnnl_status(dnnl_primitive_attr_set_zero_points(attr, DNNL_ARG_SRC, 1, 0, &src),
                              "zero point");
    if (st == TRM_OK && dst != 0)
        st = trmi_dnnl_status(dnnl_primitive_attr_set_zero_points(attr, DNNL_ARG_DST, 1, 0, &dst),
                              "zero point");
    return st;
}

/* [group,] out, in, kernel... */
static trm_status weights_mds(const trm_op_desc *desc, int64_t group, dnnl_memory_desc_t *user,
                              dnnl_memory_desc_t *any)
{
    const trm_tensor *w = &desc->inputs[W];
    dnnl_dims_t dims;
    int at = 0;

    if (group > 1)
        dims[at++] = group;
    dims[at++] = w->dims[0] / group;
    for (int i = 1; i < w->rank; i++)
        dims[at++] = w->dims[i];
    TRM_CHECK(trmi_dnnl_md_plain(at, dims, TRM_DTYPE_I8, user));
    return trmi_dnnl_status(
        dnnl_memory_desc_init_by_tag(any, at, dims, dnnl_s8, dnnl_format_tag_any), "weights");
}

static trm_status make_pd(trm_cpu *cpu, const trm_op_desc *desc, const trm_window *w,
                          const dnnl_memory_desc_t *weights, dnnl_primitive_attr_t attr,
                          dnnl_memory_desc_t *bias, dnnl_primitive_desc_t *pd_out)
{
    dnnl_memory_desc_t src, dst;
    dnnl_convolution_desc_t d;
    dnnl_dims_t stride, dilation, begin, end;

    for (int i = 0; i < w->spatial; i++) {
        stride[i] = w->stride[i];
        dilation[i] = w->dilation[i] - 1;
        begin[i] = w->pad_begin[i];
        end[i] = w->pad_end[i];
    }
    TRM_CHECK(trmi_dnnl_md(&desc->inputs[X], TRM_LAYOUT_CHANNELS_LAST, &src));
    TRM_CHECK(trmi_dnnl_md(&desc->outputs[0], TRM_LAYOUT_CHANNELS_LAST, &dst));
    if (!absent(desc, BIAS))
        TRM_CHECK(trmi_dnnl_md(&desc->inputs[BIAS], TRM_LAYOUT_PLAIN, bias));
    TRM_CHECK(
        trmi_dnnl_status(dnnl_dilated_convolution_forward_desc_init(
                             &d, dnnl_forward_inference, dnnl_convolution_direct, &src, weights,
                             absent(desc, BIAS) ? NULL : bias, &dst, stride, dilation, begin, end),
                         "int8 convolution"));
    TRM_CHECK(
        trmi_dnnl_status(dnnl_primitive_desc_create(pd_out, &d, attr, trmi_cpu_engine(cpu), NULL),
                         "int8 convolution"));
    if (!trmi_dnnl_impl_slow(*pd_out))
        return TRM_OK;
    dnnl_primitive_desc_destroy(*pd_out);
    *pd_out = NULL;
    return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN has no fast int8 convolution of this form");
}

trm_status trmi_qlinear_conv_dnnl(trm_cpu *cpu, trm_op_desc *desc, const trm_window *w,
                                  int64_t group, trm_kernel **kernel_out)
{
    dnnl_memory_desc_t user, any, bias;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const dnnl_memory_desc_t *wanted;
    trmi_dnnl_kernel *k = NULL;
    trmi_dnnl_step *step;
    trmi_bind weights;
    trm_status st;

    if (!suits(desc, w))
        return trm_fail(TRM_ERR_UNSUPPORTED, "no int8 convolution of this form");
    TRM_CHECK(weights_mds(desc, group, &user, &any));
    TRM_TRY(st, trmi_dnnl_attr(&attr), done);
    TRM_TRY(st, quant_attr(desc, attr), done);
    TRM_TRY(st, make_pd(cpu, desc, w, &any, attr, &bias, &pd), done);
    TRM_TRY(st, trmi_dnnl_kernel_new(cpu, &k), done);
    wanted = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    TRM_TRY(st, trmi_dnnl_weights(k, desc, W, &user, wanted, &weights), done);
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st,
            trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC,
                               dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0),
                               trmi_bind_input(X)),
            done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_WEIGHTS, wanted, weights), done);
    if (!absent(desc, BIAS))
        TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_BIAS, &bias, trmi_bind_input(BIAS)), done);
    TRM_TRY(st,
            trmi_dnnl_step_arg(k, step, DNNL_ARG_DST,
                               dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0),
                               trmi_bind_output(0)),
            done);
    for (int i = X_SCALE; i <= Y_ZERO; i++)
        k->base.packed_inputs |= i == W ? 0 : 1u << i;
    if (!trmi_layout_same_bytes(&desc->inputs[X], desc->inputs[X].layout, TRM_LAYOUT_CHANNELS_LAST))
        desc->inputs[X].layout = TRM_LAYOUT_CHANNELS_LAST;
    desc->outputs[0].layout =
        trmi_layout_same_bytes(&desc->outputs[0], TRM_LAYOUT_PLAIN, TRM_LAYOUT_CHANNELS_LAST)
            ? TRM_LAYOUT_PLAIN
            : TRM_LAYOUT_CHANNELS_LAST;
    *kernel_out = &k->base;
done:
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    if (st != TRM_OK)
        trmi_dnnl_kernel_destroy((trm_kernel *)k);
    return st;
}
