/* Post-ops: what kind of operand each has. */
#include "kernels/cuda/posts.h"

#include <string.h>

static bool known(trm_op op)
{
    switch (op) {
    case TRM_OP_Add:
    case TRM_OP_Mul:
    case TRM_OP_Relu:
    case TRM_OP_Clip:
    case TRM_OP_Sigmoid:
    case TRM_OP_Tanh:
    case TRM_OP_Gelu:
    case TRM_OP_LeakyRelu:
    case TRM_OP_Elu:
    case TRM_OP_HardSigmoid:
    case TRM_OP_HardSwish:
    case TRM_OP_TrmSilu:
        return true;
    default:
        return false;
    }
}

/* Dim d of `t` as seen from `out` (right-aligned). */
static int64_t dim_of(const trm_tensor *t, const trm_tensor *out, int d)
{
    int at = d - (out->rank - t->rank);

    return at < 0 ? 1 : t->dims[at];
}

static trm_status mode_of(const trm_op_desc *desc, const trm_tensor *t, int axis,
                          trmi_post_mode *mode_out)
{
    const trm_tensor *out = &desc->outputs[0];
    bool same = true, channel = true, one = true;

    if (t->rank > out->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': post-op input of rank %d: want at most %d",
                        trm_op_get(desc->op)->name, desc->name, t->rank, out->rank);
    for (int d = 0; d < out->rank; d++) {
        int64_t n = dim_of(t, out, d);

        if (n != 1 && n != out->dims[d])
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': post-op input does not broadcast",
                            trm_op_get(desc->op)->name, desc->name);
        same = same && n == out->dims[d];
        channel = channel && (d == axis ? n == out->dims[d] : n == 1);
        one = one && n == 1;
    }
    if (one)
        *mode_out = TRMI_POST_SCALAR;
    else if (channel && (!same || t->data != NULL))
        *mode_out = TRMI_POST_CHANNEL;
    else
        *mode_out = same ? TRMI_POST_SAME : TRMI_POST_STRIDED;
    return TRM_OK;
}

static trm_status describe_operand(trm_op_desc *desc, int axis, trm_layout layout,
                                   trmi_post_step *step, trm_tensor *t)
{
    const trm_tensor *out = &desc->outputs[0];
    trmi_post_mode mode = TRMI_POST_SCALAR;
    int64_t stride = 1;

    TRM_CHECK(mode_of(desc, t, axis, &mode));
    if (t->dtype != out->dtype && t->dtype != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': post-op input of %s on %s",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(t->dtype),
                        trm_dtype_name(out->dtype));
    if (mode == TRMI_POST_STRIDED && layout != TRM_LAYOUT_PLAIN)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s '%s': post-op input that broadcasts along several dims",
                        trm_op_get(desc->op)->name, desc->name);
    /* a constant is plain host data: of SAME ones, only plain outputs can use it as it is */
    if (mode == TRMI_POST_SAME && layout != TRM_LAYOUT_PLAIN && t->data != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': constant post-op input of the whole shape",
                        trm_op_get(desc->op)->name, desc->name);
    step->mode = (int)mode;
    step->wide = t->dtype != out->dtype;
    t->layout = mode == TRMI_POST_SAME ? layout : TRM_LAYOUT_PLAIN;
    for (int d = out->rank - 1; d >= 0; d--) {
        int64_t n = dim_of(t, out, d);

        step->strides[d] = n == 1 ? 0 : stride;
        stride *= n;
    }
    return TRM_OK;
}

trm_status trmi_cuda_posts_add(trm_op_desc *desc, const trm_post *post, int axis, trm_layout layout,
                               trmi_post_plan *plan)
{
    const trm_tensor *out = &desc->outputs[0];
    trmi_posts *p = &plan->posts;
    trmi_post_step *step = &p->steps[p->count];
    bool binary = post->op == TRM_OP_Add || post->op == TRM_OP_Mul;

    if (p->count == TRMI_POSTS_MAX || !known(post->op) || !trm_dtype_is_float(out->dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': post-op %s on %s",
                        trm_op_get(desc->op)->name, desc->name, trm_op_get(post->op)->name,
                        trm_dtype_name(out->dtype));
    *step = (trmi_post_step){.op = (int)post->op,
                             .mode = (int)TRMI_POST_UNARY,
                             .alpha = post->alpha,
                             .beta = post->beta};
    if (binary) {
        step->alpha = 1.0f;
        TRM_CHECK(describe_operand(desc, axis, layout, step, &desc->inputs[post->input]));
    }
    p->rank = out->rank;
    memcpy(p->dims, out->dims, sizeof(p->dims));
    plan->input[p->count] = binary ? post->input : -1;
    plan->packs[p->count] = NULL;
    p->count++;
    return TRM_OK;
}

trm_status trmi_cuda_posts_all(trm_op_desc *desc, int axis, trm_layout layout, trmi_post_plan *plan)
{
    for (int i = 0; i < desc->post_count; i++)
        TRM_CHECK(trmi_cuda_posts_add(desc, &desc->posts[i], axis, layout, plan));
    return TRM_OK;
}

void trmi_cuda_posts_remove(trmi_post_plan *plan, int step)
{
    plan->posts.count--;
    for (int i = step; i < plan->posts.count; i++) {
        plan->posts.steps[i] = plan->posts.steps[i + 1];
        plan->input[i] = plan->input[i + 1];
        plan->packs[i] = plan->packs[i + 1];
    }
}

trm_status trmi_cuda_posts_keep(trm_cuda *cuda, const trm_op_desc *desc, trmi_post_plan *plan,
                                uint32_t *packed)
{
    for (int i = 0; i < plan->posts.count; i++) {
        int input = plan->input[i];

        if (input < 0 || input >= 32 || desc->inputs[input].data == NULL)
            continue;
        TRM_CHECK(trmi_cuda_pack_plain(cuda, desc, input, &plan->packs[i]));
        *packed |= 1u << input;
    }
    return TRM_OK;
}

void trmi_cuda_posts_fini(trm_cuda *cuda, trmi_post_plan *plan)
{
    for (int i = 0; i < plan->posts.count; i++) {
        trmi_cuda_pack_release(cuda, plan->packs[i]);
        plan->packs[i] = NULL;
    }
}

trmi_posts trmi_cuda_posts_bind(const trmi_post_plan *plan, const void *const *in)
{
    trmi_posts p = plan->posts;

    for (int i = 0; i < p.count; i++) {
        if (plan->packs[i] != NULL)
            p.steps[i].operand = plan->packs[i]->memory;
        else if (plan->input[i] >= 0)
            p.steps[i].operand = in[plan->input[i]];
    }
    return p;
}
