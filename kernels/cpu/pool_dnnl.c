/* Pooling on oneDNN, in whatever layout the activations arrive; indices, dtypes and paddings that
 * it does not know run the scalar reference. */
#include "kernels/cpu/dnnl_util.h"
#include "kernels/cpu/scalar.h"
#include "kernels/reference/pool.h"

#include <string.h>

typedef struct pool_shape {
    trm_window window;
    bool average, include_pad;
} pool_shape;

/* oneDNN divides by the whole kernel or by what lies inside the input; ONNX with count_include_pad
 * leaves out what ceil_mode adds beyond the given pads. */
static bool needs_reference(const trm_op_desc *desc, const pool_shape *p)
{
    bool wants_indices = desc->output_count > 1 && desc->outputs[1].dtype != TRM_DTYPE_NONE;

    if (wants_indices || p->window.spatial > 3 || trm_tensor_numel(&desc->outputs[0]) == 0 ||
        trm_tensor_numel(&desc->inputs[0]) == 0)
        return true;
    for (int i = 0; i < p->window.spatial; i++) {
        int64_t extent = (p->window.kernel[i] - 1) * p->window.dilation[i] + 1;
        int64_t needed = trm_window_pad_needed(&p->window, i);

        if (p->window.pad_begin[i] < 0 || p->window.pad_begin[i] >= extent || needed >= extent)
            return true;
        if (p->average && p->include_pad && needed > p->window.pad_end[i])
            return true;
    }
    return false;
}

static trm_status pool_build(trm_cpu *cpu, trm_op_desc *desc, const pool_shape *p,
                             trmi_dnnl_kernel *k)
{
    trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    dnnl_alg_kind_t alg = !p->average      ? dnnl_pooling_max
                          : p->include_pad ? dnnl_pooling_avg_include_padding
                                           : dnnl_pooling_avg_exclude_padding;
    dnnl_memory_desc_t src, dst;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_pooling_v2_desc_t d;
    dnnl_dims_t stride, kernel, dilation, begin, end;
    trmi_dnnl_posts posts;
    trmi_dnnl_step *step;
    bool fuse;
    trm_status st;

    for (int i = 0; i < p->window.spatial; i++) {
        stride[i] = p->window.stride[i];
        kernel[i] = p->window.kernel[i];
        dilation[i] = p->window.dilation[i] - 1;
        begin[i] = p->window.pad_begin[i];
        end[i] = trm_window_pad_needed(&p->window, i);
    }
    TRM_CHECK(trmi_dnnl_md(x, x->layout, &src));
    TRM_CHECK(trmi_dnnl_md(y, x->layout, &dst));
    TRM_CHECK(trmi_dnnl_posts_describe(desc, x->layout, y->rank, y->dims, &posts));
    TRM_CHECK(trmi_dnnl_status(dnnl_pooling_v2_forward_desc_init(&d, dnnl_forward_inference, alg,
                                                                 &src, &dst, stride, kernel,
                                                                 dilation, begin, end),
                               "pooling"));
    TRM_TRY(st, trmi_dnnl_attr(&attr), done);
    fuse = trmi_dnnl_posts_attr(desc, &posts, attr) == TRM_OK &&
           dnnl_primitive_desc_create(&pd, &d, attr, trmi_cpu_engine(cpu), NULL) == dnnl_success;
    if (!fuse) {
        dnnl_primitive_attr_destroy(attr);
        attr = NULL;
        TRM_TRY(st, trmi_dnnl_attr(&attr), done);
        TRM_TRY(
            st,
            trmi_dnnl_status(dnnl_primitive_desc_create(&pd, &d, attr, trmi_cpu_engine(cpu), NULL),
                             "pooling"),
            done);
    }
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC, &src, trmi_bind_input(0)), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_DST, &dst, trmi_bind_output(0)), done);
    if (fuse)
        TRM_TRY(st, trmi_dnnl_posts_bind(k, step, desc, &posts), done);
    else
        TRM_TRY(st, trmi_dnnl_posts_steps(k, desc, &posts, &dst), done);
    y->layout =
        trmi_layout_same_bytes(y, x->layout, TRM_LAYOUT_PLAIN) ? TRM_LAYOUT_PLAIN : x->layout;
done:
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

static trm_status pool_dnnl(trm_cpu *cpu, trm_op_desc *desc, const pool_shape *p,
                            trm_kernel **kernel_out)
{
    trmi_dnnl_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_dnnl_kernel_new(cpu, &k));
    st = pool_build(cpu, desc, p, k);
    if (st == TRM_OK)
        *kernel_out = &k->base;
    else
        trmi_dnnl_kernel_destroy(&k->base);
    return st;
}

/* Global pools are windows as large as the input. */
static trm_status pool_window(const trm_op_desc *desc, trm_window *w)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];

    if (desc->op == TRM_OP_GlobalAveragePool || desc->op == TRM_OP_GlobalMaxPool ||
        desc->op == TRM_OP_GlobalLpPool)
        return trm_window_parse(NULL, x->dims + 2, x, y, false, w);
    return trm_window_parse(desc->attrs, NULL, x, y, false, w);
}

trm_status trmi_cpu_pool(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const trm_dtype max_dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16,
                                           TRM_DTYPE_F64, TRM_DTYPE_I8,  TRM_DTYPE_U8,
                                           TRM_DTYPE_NONE};
    bool is_max = desc->op == TRM_OP_MaxPool || desc->op == TRM_OP_GlobalMaxPool;
    bool is_lp = desc->op == TRM_OP_LpPool || desc->op == TRM_OP_GlobalLpPool;
    trmi_scalar_kernel *k = NULL;
    pool_shape p;
    size_t taps = 1;
    trm_status st = TRM_ERR_UNSUPPORTED;

    memset(&p, 0, sizeof(p));
    TRM_CHECK(trmi_want_dtype(desc, 0, is_max ? max_dtypes : trmi_floats));
    TRM_CHECK(pool_window(desc, &p.window));
    p.average = !is_max && !is_lp;
    p.include_pad = trm_attr_int(desc->attrs, "count_include_pad", 0) != 0;
    if (!is_lp && !needs_reference(desc, &p))
        st = pool_dnnl(cpu, desc, &p, kernel_out);
    if (st != TRM_ERR_UNSUPPORTED)
        return st;
    for (int i = 0; i < p.window.spatial; i++)
        taps *= (size_t)p.window.kernel[i];
    TRM_CHECK(trmi_scalar_new(desc,
                              is_max  ? trm_max_pool_reference
                              : is_lp ? trm_lp_pool_reference
                                      : trm_average_pool_reference,
                              trm_tensor_numel(&desc->outputs[0]), taps, &k));
    k->ref.window = p.window;
    k->ref.b[0] = is_max ? trm_attr_int(desc->attrs, "storage_order", 0) != 0 : p.include_pad;
    k->ref.i[0] = trm_attr_int(desc->attrs, "p", 2);
    if (is_lp && k->ref.i[0] < 1) {
        trmi_kernel_free(&k->base);
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: p is not positive", trm_op_get(desc->op)->name);
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
