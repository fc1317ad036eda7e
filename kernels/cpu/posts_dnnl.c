/* Post-ops of fused nodes: as attributes of the main primitive, or as primitives of their own. */
#include "kernels/cpu/dnnl_util.h"

static bool is_binary(const trm_post *p)
{
    return p->op == TRM_OP_Add || p->op == TRM_OP_Mul;
}

/* HardSigmoid is linear then clip: two entries, hence a list. Returns how many, 0: unknown. */
static int eltwise_of(const trm_post *p, dnnl_alg_kind_t alg[2], float alpha[2], float beta[2])
{
    alpha[0] = beta[0] = 0.0f;
    switch (p->op) {
    case TRM_OP_Relu:
        alg[0] = dnnl_eltwise_relu;
        return 1;
    case TRM_OP_LeakyRelu:
        alg[0] = dnnl_eltwise_relu;
        alpha[0] = p->alpha;
        return 1;
    case TRM_OP_Elu:
        alg[0] = dnnl_eltwise_elu;
        alpha[0] = p->alpha;
        return 1;
    case TRM_OP_Clip:
        alg[0] = dnnl_eltwise_clip;
        alpha[0] = p->alpha;
        beta[0] = p->beta;
        return 1;
    case TRM_OP_Sigmoid:
        alg[0] = dnnl_eltwise_logistic;
        return 1;
    case TRM_OP_Tanh:
        alg[0] = dnnl_eltwise_tanh;
        return 1;
    case TRM_OP_Gelu:
        alg[0] = p->alpha == 0.0f ? dnnl_eltwise_gelu_erf : dnnl_eltwise_gelu_tanh;
        return 1;
    case TRM_OP_HardSwish:
        alg[0] = dnnl_eltwise_hardswish;
        return 1;
    case TRM_OP_TrmSilu:
        alg[0] = dnnl_eltwise_swish;
        alpha[0] = 1.0f;
        return 1;
    case TRM_OP_HardSigmoid:
        alg[0] = dnnl_eltwise_linear;
        alpha[0] = p->alpha;
        beta[0] = p->beta;
        alg[1] = dnnl_eltwise_clip;
        alpha[1] = 0.0f;
        beta[1] = 1.0f;
        return 2;
    default:
        return 0;
    }
}

/* Dims of the input right-aligned to the output's real rank; then, where the primitive sees fewer
 * dims, the leading ones multiplied together, which needs them all equal to the output's or all 1.
 */
static trm_status collapsed_dims(const trm_tensor *in, const trm_tensor *out, int rank,
                                 const int64_t *dims, int64_t *dims_out)
{
    int64_t full[TRM_RANK_MAX];
    int lead = out->rank - in->rank, fold = out->rank - rank;
    bool all_one = true, all_same = true;

    if (lead < 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "post-op input of rank %d on an output of rank %d",
                        in->rank, out->rank);
    for (int i = 0; i < out->rank; i++)
        full[i] = i < lead ? 1 : in->dims[i - lead];
    if (fold <= 0) { /* 1-D operands of a MatMul were given extra dims of 1 */
        int at = out->rank - 1;

        for (int i = rank - 1; i >= 0; i--)
            dims_out[i] = at >= 0 && (dims[i] == out->dims[at]) ? full[at--] : 1;
        return at < 0 ? TRM_OK : trm_fail(TRM_ERR_UNSUPPORTED, "post-op input shape");
    }
    for (int i = 0; i <= fold; i++) {
        all_one = all_one && full[i] == 1;
        all_same = all_same && full[i] == out->dims[i];
    }
    if (!all_one && !all_same)
        return trm_fail(TRM_ERR_UNSUPPORTED, "post-op input broadcasts inside collapsed dims");
    dims_out[0] = all_same ? dims[0] : 1;
    for (int i = 1; i < rank; i++)
        dims_out[i] = full[i + fold];
    return TRM_OK;
}

trm_status trmi_dnnl_posts_describe(trm_op_desc *desc, trm_layout layout, int rank,
                                    const int64_t *dims, trmi_dnnl_posts *posts)
{
    const trm_tensor *out = &desc->outputs[0];

    posts->count = desc->post_count;
    for (int i = 0; i < desc->post_count; i++) {
        const trm_post *p = &desc->posts[i];
        int64_t post_dims[TRM_RANK_MAX + 2];
        trm_tensor *in;

        if (!is_binary(p))
            continue;
        in = &desc->inputs[p->input];
        if (trm_tensor_same_shape(in, out) && rank == out->rank) {
            in->layout = layout;
            TRM_CHECK(trmi_dnnl_md(in, layout, &posts->mds[i]));
            continue;
        }
        in->layout = TRM_LAYOUT_PLAIN;
        TRM_CHECK(collapsed_dims(in, out, rank, dims, post_dims));
        TRM_CHECK(trmi_dnnl_md_plain(rank, post_dims, in->dtype, &posts->mds[i]));
    }
    return TRM_OK;
}

trm_status trmi_dnnl_posts_attr(const trm_op_desc *desc, const trmi_dnnl_posts *posts,
                                dnnl_primitive_attr_t attr)
{
    dnnl_post_ops_t ops;
    trm_status st = TRM_OK;

    if (posts->count == 0)
        return TRM_OK;
    TRM_CHECK(trmi_dnnl_status(dnnl_post_ops_create(&ops), "post-ops"));
    for (int i = 0; i < posts->count; i++) {
        const trm_post *p = &desc->posts[i];
        dnnl_alg_kind_t alg[2];
        float alpha[2], beta[2];
        int n;

        if (is_binary(p)) {
            TRM_TRY(
                st,
                trmi_dnnl_status(dnnl_post_ops_append_binary(
                                     ops, p->op == TRM_OP_Add ? dnnl_binary_add : dnnl_binary_mul,
                                     &posts->mds[i]),
                                 "post-op"),
                done);
            continue;
        }
        n = eltwise_of(p, alg, alpha, beta);
        if (n == 0) {
            st = trm_fail(TRM_ERR_UNSUPPORTED, "post-op %s", trm_op_get(p->op)->name);
            goto done;
        }
        for (int j = 0; j < n; j++)
            TRM_TRY(
                st,
                trmi_dnnl_status(dnnl_post_ops_append_eltwise(ops, 1.0f, alg[j], alpha[j], beta[j]),
                                 "post-op"),
                done);
    }
    st = trmi_dnnl_status(dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops");
done:
    dnnl_post_ops_destroy(ops);
    return st;
}

trm_status trmi_dnnl_posts_bind(trmi_dnnl_kernel *k, trmi_dnnl_step *step, const trm_op_desc *desc,
                                const trmi_dnnl_posts *posts)
{
    int at = 0; /* entry in oneDNN's list: HardSigmoid takes two */

    for (int i = 0; i < posts->count; i++) {
        const trm_post *p = &desc->posts[i];

        if (is_binary(p))
            TRM_CHECK(trmi_dnnl_step_arg(k, step,
                                         DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_SRC_1,
                                         &posts->mds[i], trmi_bind_input(p->input)));
        at += p->op == TRM_OP_HardSigmoid ? 2 : 1;
    }
    return TRM_OK;
}

static trm_status eltwise_step(trmi_dnnl_kernel *k, const dnnl_memory_desc_t *dst,
                               dnnl_alg_kind_t alg, float alpha, float beta,
                               dnnl_primitive_attr_t attr)
{
    dnnl_eltwise_desc_t d;
    dnnl_primitive_desc_t pd;
    trmi_dnnl_step *step;
    trm_status st;

    TRM_CHECK(trmi_dnnl_status(
        dnnl_eltwise_forward_desc_init(&d, dnnl_forward_inference, alg, dst, alpha, beta),
        "eltwise"));
    TRM_CHECK(trmi_dnnl_status(
        dnnl_primitive_desc_create(&pd, &d, attr, trmi_cpu_engine(k->cpu), NULL), "eltwise"));
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC, dst, trmi_bind_output(0)), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_DST, dst, trmi_bind_output(0)), done);
done:
    dnnl_primitive_desc_destroy(pd);
    return st;
}

static trm_status binary_step(trmi_dnnl_kernel *k, const dnnl_memory_desc_t *dst,
                              const dnnl_memory_desc_t *other, const trm_post *p,
                              dnnl_primitive_attr_t attr)
{
    dnnl_alg_kind_t alg = p->op == TRM_OP_Add ? dnnl_binary_add : dnnl_binary_mul;
    dnnl_binary_desc_t d;
    dnnl_primitive_desc_t pd;
    trmi_dnnl_step *step;
    trm_status st;

    TRM_CHECK(trmi_dnnl_status(dnnl_binary_desc_init(&d, alg, dst, other, dst), "binary"));
    TRM_CHECK(trmi_dnnl_status(
        dnnl_primitive_desc_create(&pd, &d, attr, trmi_cpu_engine(k->cpu), NULL), "binary"));
    TRM_TRY(st, trmi_dnnl_step_add(k, pd, &step), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC_0, dst, trmi_bind_output(0)), done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_SRC_1, other, trmi_bind_input(p->input)),
            done);
    TRM_TRY(st, trmi_dnnl_step_arg(k, step, DNNL_ARG_DST, dst, trmi_bind_output(0)), done);
done:
    dnnl_primitive_desc_destroy(pd);
    return st;
}

trm_status trmi_dnnl_posts_steps(trmi_dnnl_kernel *k, const trm_op_desc *desc,
                                 const trmi_dnnl_posts *posts, const dnnl_memory_desc_t *dst)
{
    dnnl_primitive_attr_t attr;
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_dnnl_attr(&attr));
    for (int i = 0; i < posts->count; i++) {
        const trm_post *p = &desc->posts[i];
        dnnl_alg_kind_t alg[2];
        float alpha[2], beta[2];
        int n;

        if (is_binary(p)) {
            TRM_TRY(st, binary_step(k, dst, &posts->mds[i], p, attr), done);
            continue;
        }
        n = eltwise_of(p, alg, alpha, beta);
        if (n == 0) {
            st = trm_fail(TRM_ERR_UNSUPPORTED, "post-op %s", trm_op_get(p->op)->name);
            goto done;
        }
        for (int j = 0; j < n; j++)
            TRM_TRY(st, eltwise_step(k, dst, alg[j], alpha[j], beta[j], attr), done);
    }
done:
    dnnl_primitive_attr_destroy(attr);
    return st;
}
