/* MatMul and Gemm on oneDNN's matmul.
 *
 * Where the right operand is one matrix the batch dims of the left one are rows: [B, M, K] x [K, N]
 * is [B*M, K] x [K, N]. Equal batch dims become one. A constant right operand is packed once in the
 * format oneDNN likes best. Integers, f16 and f64 run the scalar reference. */
#include "kernels/cpu/dnnl_util.h"
#include "kernels/cpu/scalar.h"
#include "kernels/reference/matmul.h"

#include <math.h>
#include <string.h>

/* A product as the primitive sees it. */
typedef struct product {
    int rank;
    int64_t a[TRM_RANK_MAX + 2], b[TRM_RANK_MAX + 2], y[TRM_RANK_MAX + 2];
    bool transpose_a, transpose_b;
    float alpha, beta;
    int bias; /* input index of Gemm's C, -1: none */
} product;

static int64_t dim_from_end(const trm_tensor *t, int d)
{
    return d < t->rank ? t->dims[t->rank - 1 - d] : 1;
}

/* Shapes with at least two dims each and equal rank, then collapsed. */
static void matmul_shape(const trm_tensor *a, const trm_tensor *b, product *p)
{
    int batch = (a->rank > b->rank ? a->rank : b->rank) - 2;
    int64_t m = a->rank == 1 ? 1 : dim_from_end(a, 1), k = a->dims[a->rank - 1];
    int64_t n = b->rank == 1 ? 1 : dim_from_end(b, 0), all = 1;
    bool same = true, b_single = true;

    batch = batch < 0 ? 0 : batch;
    for (int i = 0; i < batch; i++) {
        int64_t da = dim_from_end(a, batch + 1 - i), db = dim_from_end(b, batch + 1 - i);

        p->a[i] = da;
        p->b[i] = db;
        p->y[i] = da == 1 ? db : da;
        same = same && da == db;
        b_single = b_single && db == 1;
        all *= p->y[i];
    }
    if (b_single) {
        m *= all;
        batch = 0;
    } else if (same) {
        p->a[0] = p->b[0] = p->y[0] = all;
        batch = 1;
    }
    p->rank = batch + 2;
    p->a[batch] = p->y[batch] = m;
    p->a[batch + 1] = p->b[batch] = k;
    p->b[batch + 1] = p->y[batch + 1] = n;
}

/* Row-major, or with the last two dims swapped in memory. */
static trm_status operand_md(const product *p, const int64_t *dims, trm_dtype dtype,
                             bool transposed, dnnl_memory_desc_t *md_out)
{
    dnnl_dims_t strides, copy;
    int64_t stride = 1;
    int n = p->rank;

    if (trmi_dnnl_dtype(dtype) == dnnl_data_type_undef)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN matmul of %s", trm_dtype_name(dtype));
    for (int i = n - 1; i >= 0; i--) {
        strides[i] = stride;
        copy[i] = dims[i];
        stride *= dims[i];
    }
    if (transposed) {
        strides[n - 2] = 1;
        strides[n - 1] = dims[n - 2];
    }
    return trmi_dnnl_status(
        dnnl_memory_desc_init_by_strides(md_out, n, copy, trmi_dnnl_dtype(dtype), strides),
        "matmul operand");
}

typedef struct matmul_mds {
    dnnl_memory_desc_t a, b, b_any, y, bias;
    bool has_bias;   /* as the primitive's bias */
    bool has_addend; /* C as a post-op */
    dnnl_memory_desc_t addend;
} matmul_mds;

/* Where C goes: the bias where it is one row and nothing scales it, else a post-op. */
static trm_status describe_c(const trm_op_desc *desc, const product *p, matmul_mds *m)
{
    const trm_tensor *c;
    int64_t dims[2];

    if (p->bias < 0)
        return TRM_OK;
    c = &desc->inputs[p->bias];
    dims[0] = dim_from_end(c, 1);
    dims[1] = dim_from_end(c, 0);
    if (p->alpha == 1.0f && p->beta == 1.0f && dims[0] == 1 && dims[1] == p->y[1]) {
        m->has_bias = true;
        return trmi_dnnl_md_plain(2, dims, c->dtype, &m->bias);
    }
    m->has_addend = true;
    return trmi_dnnl_md_plain(2, dims, c->dtype, &m->addend);
}

/* Gemm's alpha, beta and C: y = beta * ((alpha / beta) * AB + C). */
static trm_status scales(const product *p, const matmul_mds *m, dnnl_primitive_attr_t attr)
{
    float scale = m->has_addend ? p->alpha / p->beta : p->alpha;
    dnnl_post_ops_t ops;
    trm_status st = TRM_OK;

    if (scale != 1.0f)
        TRM_CHECK(trmi_dnnl_status(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &scale),
                                   "output scale"));
    if (!m->has_addend)
        return TRM_OK;
    TRM_CHECK(trmi_dnnl_status(dnnl_post_ops_create(&ops), "post-ops"));
    TRM_TRY(st,
            trmi_dnnl_status(dnnl_post_ops_append_binary(ops, dnnl_binary_add, &m->addend), "add"),
            done);
    if (p->beta != 1.0f)
        TRM_TRY(st,
                trmi_dnnl_status(
                    dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_linear, p->beta, 0.0f),
                    "scale"),
                done);
    st = trmi_dnnl_status(dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops");
done:
    dnnl_post_ops_destroy(ops);
    return st;
}

static trm_status matmul_pd(trm_cpu *cpu, const matmul_mds *m, bool any, dnnl_primitive_attr_t attr,
                            dnnl_primitive_desc_t *pd_out)
{
    dnnl_matmul_desc_t d;

    TRM_CHECK(trmi_dnnl_status(dnnl_matmul_desc_init(&d, &m->a, any ? &m->b_any : &m->b,
                                                     m->has_bias ? &m->bias : NULL, &m->y),
                               "matmul"));
    return trmi_dnnl_status(
        dnnl_primitive_desc_create(pd_out, &d, attr, trmi_cpu_engine(cpu), NULL), "matmul");
}

static trm_status matmul_build(trm_cpu *cpu, trm_op_desc *desc, const product *p, matmul_mds *m,
                               trmi_dnnl_kernel *k)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const dnnl_memory_desc_t *b;
    trmi_dnnl_posts posts;
    trmi_dnnl_step *step;
    trmi_bind weights;
    bool any = desc->inputs[1].data != NULL, fuse;
    trm_status st;

    TRM_TRY(st, trmi_dnnl_posts_describe(desc, TRM_LAYOUT_PLAIN, p->rank, p->y, &posts), done);
    TRM_TRY(st, trmi_dnnl_attr(&attr), done);
    fuse = !m->has_addend && trmi_dnnl_posts_attr(desc, &posts, attr) == TRM_OK;
    if (fuse && p->alpha != 1.0f)
        TRM_TRY(st, scales(p, m, attr), done);
    fuse = fuse && matmul_pd(cpu, m, any, attr, &pd) == TRM_OK;
    if (!fuse) { /* C takes the post-ops, or they cannot be fused: posts follow as steps */
        dnnl_primitive_attr_destroy(attr);
        attr = NULL;
        TRM_TRY(st, trmi_dnnl_attr(&attr), done);
        TRM_TRY(st, scales(p, m, attr), done);
        TRM_TRY(st, matmul_pd(cpu, m, any, attr, &pd), done);
    }
    b = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    TRM_TRY(st, trmi_dnnl_weights(k, desc, 1, &m->b, b, &weights), done);
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC, &m->a, trmi_bind_input(0)), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_WEIGHTS, b, weights), done);
    if (m->has_bias)
        TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_BIAS, &m->bias, trmi_bind_input(p->bias)),
                done);
    if (m->has_addend)
        TRM_TRY(st,
                trmi_dnnl_step_arg(k, step, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                                   &m->addend, trmi_bind_input(p->bias)),
                done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_DST, &m->y, trmi_bind_output(0)), done);
    if (fuse)
        TRM_TRY(st, trmi_dnnl_posts_bind(k, step, desc, &posts), done);
    else
        TRM_TRY(st, trmi_dnnl_posts_steps(k, desc, &posts, &m->y), done);
done:
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

static trm_status matmul_dnnl(trm_cpu *cpu, trm_op_desc *desc, const product *p,
                              trm_kernel **kernel_out)
{
    trmi_dnnl_kernel *k = NULL;
    matmul_mds m;
    trm_status st;

    memset(&m, 0, sizeof(m));
    if (trm_tensor_numel(&desc->outputs[0]) == 0 || trm_tensor_numel(&desc->inputs[0]) == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN matmul of nothing");
    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN matmul of integers");
    TRM_CHECK(operand_md(p, p->a, desc->inputs[0].dtype, p->transpose_a, &m.a));
    TRM_CHECK(operand_md(p, p->b, desc->inputs[1].dtype, p->transpose_b, &m.b));
    TRM_CHECK(operand_md(p, p->y, desc->outputs[0].dtype, false, &m.y));
    m.b_any = m.b;
    if (desc->inputs[1].data != NULL) {
        dnnl_dims_t dims;

        for (int i = 0; i < p->rank; i++)
            dims[i] = p->b[i];
        TRM_CHECK(trmi_dnnl_status(dnnl_memory_desc_init_by_tag(
                                       &m.b_any, p->rank, dims,
                                       trmi_dnnl_dtype(desc->inputs[0].dtype), dnnl_format_tag_any),
                                   "matmul weights"));
    }
    TRM_CHECK(describe_c(desc, p, &m));
    TRM_CHECK(trmi_dnnl_kernel_new(cpu, &k));
    st = matmul_build(cpu, desc, p, &m, k);
    if (st != TRM_OK) {
        trmi_dnnl_kernel_destroy(&k->base);
        return st;
    }
    *kernel_out = &k->base;
    return TRM_OK;
}

static void all_plain(trm_op_desc *desc)
{
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    desc->outputs[0].layout = TRM_LAYOUT_PLAIN;
}

static trm_status want_numbers(const trm_op_desc *desc, int inputs)
{
    static const trm_dtype numbers[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                        TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64,
                                        TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                        TRM_DTYPE_NONE};

    for (int i = 0; i < inputs; i++)
        TRM_CHECK(trmi_want_dtype(desc, i, numbers));
    return TRM_OK;
}

trm_status trmi_cpu_matmul(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[1];
    product p = {.alpha = 1.0f, .beta = 1.0f, .bias = -1};
    trmi_scalar_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(want_numbers(desc, 2));
    if (a->rank < 1 || b->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "MatMul of ranks %d and %d: want 1 or more", a->rank,
                        b->rank);
    all_plain(desc);
    matmul_shape(a, b, &p);
    st = matmul_dnnl(cpu, desc, &p, kernel_out);
    if (st != TRM_ERR_UNSUPPORTED)
        return st;
    TRM_CHECK(trmi_scalar_new(desc, trm_matmul_reference, trm_tensor_numel(&desc->outputs[0]),
                              (size_t)a->dims[a->rank - 1], &k));
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_gemm(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[1], *y = &desc->outputs[0];
    product p = {.rank = 2, .bias = -1};
    trmi_scalar_kernel *k = NULL;
    trm_status st = TRM_ERR_UNSUPPORTED;

    TRM_CHECK(want_numbers(desc, 3));
    if (a->rank != 2 || b->rank != 2 || y->rank != 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "Gemm of ranks %d and %d: want 2", a->rank, b->rank);
    all_plain(desc);
    p.transpose_a = trm_attr_int(desc->attrs, "transA", 0) != 0;
    p.transpose_b = trm_attr_int(desc->attrs, "transB", 0) != 0;
    p.alpha = trm_attr_float(desc->attrs, "alpha", 1.0f);
    p.beta = trm_attr_float(desc->attrs, "beta", 1.0f);
    p.y[0] = p.a[0] = y->dims[0];
    p.y[1] = p.b[1] = y->dims[1];
    p.a[1] = p.b[0] = a->dims[p.transpose_a ? 0 : 1];
    if (desc->input_count > 2 && desc->inputs[2].dtype != TRM_DTYPE_NONE && p.beta != 0.0f)
        p.bias = 2;
    if (p.bias < 0 || fabsf(p.alpha / p.beta) < 1e6f) /* a tiny beta would lose C's digits */
        st = matmul_dnnl(cpu, desc, &p, kernel_out);
    if (st != TRM_ERR_UNSUPPORTED)
        return st;
    TRM_CHECK(trmi_scalar_new(desc, trm_gemm_reference, trm_tensor_numel(y), (size_t)p.a[1], &k));
    k->ref.f[0] = (double)p.alpha;
    k->ref.f[1] = p.bias < 0 ? 0.0 : (double)p.beta;
    k->ref.b[0] = p.transpose_a;
    k->ref.b[1] = p.transpose_b;
    *kernel_out = &k->base;
    return TRM_OK;
}
