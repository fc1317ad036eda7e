/* The table of rules: which axes each operator has. */
#include "parallel/rules_impl.h"

#include <string.h>

#define SHAPE_ARITHMETIC_MAX 64 /* elements of integer results that are taken for shapes */

static const trmi_rule_fn table[TRM_OP_COUNT] = {
    /* rules_simple.c; others that are elementwise have trmi_rules_elementwise */
    [TRM_OP_Add] = trmi_rules_add,
    [TRM_OP_Sub] = trmi_rules_add,
    [TRM_OP_Sum] = trmi_rules_add,
    [TRM_OP_Mean] = trmi_rules_add,
    [TRM_OP_Mul] = trmi_rules_mul,
    [TRM_OP_Div] = trmi_rules_div,
    [TRM_OP_Neg] = trmi_rules_linear_unary,
    [TRM_OP_Identity] = trmi_rules_linear_unary,
    [TRM_OP_Cast] = trmi_rules_linear_unary,
    [TRM_OP_CastLike] = trmi_rules_elementwise,
    [TRM_OP_BitCast] = NULL,
    [TRM_OP_SwiGLU] = trmi_rules_elementwise,
    [TRM_OP_Dropout] = trmi_rules_dropout,
    [TRM_OP_QuantizeLinear] = trmi_rules_quantize,
    [TRM_OP_DequantizeLinear] = trmi_rules_quantize,
    /* rules_dense.c */
    [TRM_OP_Conv] = trmi_rules_conv,
    [TRM_OP_ConvTranspose] = trmi_rules_conv_transpose,
    [TRM_OP_QLinearConv] = trmi_rules_qlinear_conv,
    [TRM_OP_ConvInteger] = trmi_rules_conv_integer,
    [TRM_OP_MatMul] = trmi_rules_matmul,
    [TRM_OP_MatMulInteger] = trmi_rules_matmul_integer,
    [TRM_OP_QLinearMatMul] = trmi_rules_qlinear_matmul,
    [TRM_OP_Gemm] = trmi_rules_gemm,
    [TRM_OP_Einsum] = trmi_rules_einsum,
    [TRM_OP_TrmAttention] = trmi_rules_trm_attention,
    [TRM_OP_Attention] = trmi_rules_attention,
    [TRM_OP_RotaryEmbedding] = trmi_rules_rotary,
    /* rules_language.c */
    [TRM_OP_TrmEmbed] = trmi_rules_lm_embed,
    [TRM_OP_TrmNorm] = trmi_rules_lm_norm,
    [TRM_OP_TrmLinear] = trmi_rules_lm_linear,
    [TRM_OP_TrmRope] = trmi_rules_lm_rope,
    [TRM_OP_TrmPagedAttention] = trmi_rules_lm_attention,
    [TRM_OP_TrmGated] = trmi_rules_lm_gated,
    [TRM_OP_TrmExperts] = trmi_rules_lm_experts,
    [TRM_OP_TrmRows] = trmi_rules_lm_rows,
    [TRM_OP_TrmPool] = trmi_rules_lm_pool,
    /* rules_rows.c */
    [TRM_OP_MaxPool] = trmi_rules_pool,
    [TRM_OP_LpPool] = trmi_rules_pool,
    [TRM_OP_AveragePool] = trmi_rules_average_pool,
    [TRM_OP_GlobalMaxPool] = trmi_rules_pool,
    [TRM_OP_GlobalLpPool] = trmi_rules_pool,
    [TRM_OP_GlobalAveragePool] = trmi_rules_average_pool,
    [TRM_OP_BatchNormalization] = trmi_rules_batch_norm,
    [TRM_OP_InstanceNormalization] = trmi_rules_instance_norm,
    [TRM_OP_GroupNormalization] = trmi_rules_group_norm,
    [TRM_OP_LayerNormalization] = trmi_rules_layer_norm,
    [TRM_OP_RMSNormalization] = trmi_rules_layer_norm,
    [TRM_OP_Softmax] = trmi_rules_rows,
    [TRM_OP_LogSoftmax] = trmi_rules_rows,
    [TRM_OP_Hardmax] = trmi_rules_rows,
    [TRM_OP_LpNormalization] = trmi_rules_rows,
    [TRM_OP_LRN] = trmi_rules_lrn,
    [TRM_OP_MeanVarianceNormalization] = trmi_rules_mvn,
    [TRM_OP_ReduceL1] = trmi_rules_reduce_sum,
    [TRM_OP_ReduceL2] = trmi_rules_reduce,
    [TRM_OP_ReduceLogSum] = trmi_rules_reduce,
    [TRM_OP_ReduceLogSumExp] = trmi_rules_reduce,
    [TRM_OP_ReduceMax] = trmi_rules_reduce,
    [TRM_OP_ReduceMean] = trmi_rules_reduce_sum,
    [TRM_OP_ReduceMin] = trmi_rules_reduce,
    [TRM_OP_ReduceProd] = trmi_rules_reduce,
    [TRM_OP_ReduceSum] = trmi_rules_reduce_sum,
    [TRM_OP_ReduceSumSquare] = trmi_rules_reduce_sum,
    [TRM_OP_CumSum] = trmi_rules_cumsum,
    [TRM_OP_CumProd] = trmi_rules_cumsum,
    [TRM_OP_ArgMax] = trmi_rules_arg,
    [TRM_OP_ArgMin] = trmi_rules_arg,
    [TRM_OP_LSTM] = trmi_rules_recurrent,
    [TRM_OP_GRU] = trmi_rules_recurrent,
    [TRM_OP_RNN] = trmi_rules_recurrent,
    /* rules_move.c */
    [TRM_OP_Concat] = trmi_rules_concat,
    [TRM_OP_Split] = trmi_rules_split,
    [TRM_OP_Slice] = trmi_rules_slice,
    [TRM_OP_Pad] = trmi_rules_pad,
    [TRM_OP_Transpose] = trmi_rules_transpose,
    [TRM_OP_Expand] = trmi_rules_expand,
    [TRM_OP_Tile] = trmi_rules_tile,
    [TRM_OP_Gather] = trmi_rules_gather,
    [TRM_OP_GatherElements] = trmi_rules_gather_elements,
    [TRM_OP_Resize] = trmi_rules_resize,
    [TRM_OP_Shape] = trmi_rules_shape,
    [TRM_OP_Size] = trmi_rules_shape,
    [TRM_OP_GridSample] = trmi_rules_sample,
    [TRM_OP_RoiAlign] = trmi_rules_sample,
    [TRM_OP_MaxRoiPool] = trmi_rules_sample,
    /* rules_merge.c */
    [TRM_OP_Reshape] = trmi_rules_reshape,
    [TRM_OP_Flatten] = trmi_rules_reshape,
    [TRM_OP_Squeeze] = trmi_rules_reshape,
    [TRM_OP_Unsqueeze] = trmi_rules_reshape,
    [TRM_OP_DepthToSpace] = trmi_rules_depth_to_space,
    [TRM_OP_SpaceToDepth] = trmi_rules_space_to_depth,
};

/* ---- looking ---- */

static const trm_tensor *known(const trm_graph *g, int value)
{
    return value == TRM_NO_VALUE || g->values[value].desc.rank < 0 ? NULL : &g->values[value].desc;
}

const trm_tensor *trmi_rules_in(const trmi_rules *r, int i)
{
    return i < r->n->input_count ? known(r->g, r->n->inputs[i]) : NULL;
}

const trm_tensor *trmi_rules_out(const trmi_rules *r, int k)
{
    return k < r->n->output_count ? known(r->g, r->n->outputs[k]) : NULL;
}

int trmi_rules_ints(const trmi_rules *r, int i, int64_t *out, int max)
{
    const trm_tensor *t = trmi_rules_in(r, i);
    size_t size, elems;

    if (t == NULL || t->data == NULL || (t->dtype != TRM_DTYPE_I64 && t->dtype != TRM_DTYPE_I32))
        return -1;
    elems = trm_tensor_numel(t);
    size = trm_dtype_bytes(t->dtype);
    if (elems > (size_t)max)
        return -1;
    for (size_t k = 0; k < elems; k++) { /* constants may lie anywhere in a file */
        int64_t wide = 0;
        int32_t narrow = 0;

        if (size == 8)
            memcpy(&wide, (const unsigned char *)t->data + 8 * k, 8);
        else
            memcpy(&narrow, (const unsigned char *)t->data + 4 * k, 4);
        out[k] = size == 8 ? wide : narrow;
    }
    return (int)elems;
}

int trmi_rules_at(int64_t axis, int rank)
{
    axis = axis < 0 ? axis + rank : axis;
    return axis < 0 || axis >= rank ? -1 : (int)axis;
}

/* ---- making ---- */

trm_axis *trmi_rules_axis(trmi_rules *r, const char *name, int64_t extent, int weight)
{
    size_t in = (size_t)r->n->input_count, out = (size_t)r->n->output_count;
    trm_axis_dim *dims;
    trm_axis *a;

    if (extent < 2 || r->axes->axis_count == TRMI_AXES_MAX || r->no_memory)
        return NULL;
    dims = (trm_axis_dim *)trm_arena_alloc(r->arena, in + out + 1, sizeof(trm_axis_dim));
    if (dims == NULL) {
        r->no_memory = true;
        return NULL;
    }
    for (size_t i = 0; i < in + out; i++)
        dims[i] = (trm_axis_dim){.dim = TRM_AXIS_NONE, .scale = 1, .repeat = 1};
    a = &r->axes->axes[r->axes->axis_count++];
    *a = (trm_axis){
        .name = name, .extent = extent, .unit = 1, .weight = weight, .in = dims, .out = dims + in};
    return a;
}

void trmi_carry(trm_axis *a, trm_axis_dim *dims, int count, int i, int dim, int64_t scale,
                int64_t repeat)
{
    if (i < count)
        dims[i] = (trm_axis_dim){dim, 0, a->extent, scale, repeat};
}

void trmi_added(const trmi_rules *r, trm_axis *a, int i)
{
    if (a != NULL && trmi_rules_has(r, i))
        a->in[i].dim = TRM_AXIS_ADDED;
}

void trmi_broadcast_in(const trmi_rules *r, trm_axis *a, int i, int rank, int d, int64_t scale)
{
    const trm_tensor *t = trmi_rules_in(r, i);
    int at;

    if (a == NULL || !trmi_rules_has(r, i))
        return;
    at = t == NULL ? d : trmi_aligned(t, rank, d);
    if (t != NULL && (at < 0 || t->dims[at] == 1))
        return;
    trmi_scale_in(r, a, i, at, scale, 1);
}

void trmi_linear(trmi_rules *r, uint32_t inputs)
{
    if (r->axes->linear_count < 4)
        r->axes->linear_inputs[r->axes->linear_count++] = inputs;
}

/* ---- what is kept ---- */

static bool fits(const trm_graph *g, const int *values, const trm_axis_dim *dims, int count,
                 int64_t extent, bool *any, bool *whole)
{
    for (int i = 0; i < count; i++) {
        const trm_axis_dim *d = &dims[i];
        const trm_tensor *t;
        int64_t rows, elems;

        if (values[i] == TRM_NO_VALUE || d->dim < 0)
            continue;
        t = &g->values[values[i]].desc;
        if (d->dim >= t->rank || t->dims[d->dim] < 2 || d->offset < 0 || d->length < 1 ||
            d->scale < 1 || d->repeat < 1 || d->length > extent - d->offset ||
            !trm_mul_ok(d->length, d->scale, &rows) || !trm_mul_ok(rows, d->repeat, &elems) ||
            elems != t->dims[d->dim])
            return false;
        *any = true;
        *whole |= d->length == extent;
    }
    return true;
}

/* Sums of what cannot be added over ranks without loss of meaning. */
static bool can_be_partial(const trm_graph *g, const trm_node *n)
{
    for (int k = 0; k < n->output_count; k++) {
        trm_dtype t =
            n->outputs[k] == TRM_NO_VALUE ? TRM_DTYPE_F32 : g->values[n->outputs[k]].desc.dtype;

        if (!trm_dtype_is_float(t) && t != TRM_DTYPE_I32)
            return false;
    }
    return true;
}

static void keep_sound(const trm_graph *g, const trm_node *n, trm_axes *axes)
{
    bool partial = can_be_partial(g, n);
    int kept = 0;

    for (int k = 0; k < axes->axis_count; k++) {
        trm_axis *a = &axes->axes[k];
        bool any = false, whole = false;

        if (fits(g, n->inputs, a->in, n->input_count, a->extent, &any, &whole) &&
            fits(g, n->outputs, a->out, n->output_count, a->extent, &any, &whole) && any && whole &&
            (partial || !a->sum))
            axes->axes[kept++] = *a;
    }
    axes->axis_count = kept;
    if (!partial)
        axes->linear_count = 0;
}

/* Small integer results decide shapes: they are never split. */
static bool is_shape_arithmetic(const trm_graph *g, const trm_node *n)
{
    for (int k = 0; k < n->output_count; k++) {
        const trm_tensor *t;
        int64_t elems = 1;

        if (n->outputs[k] == TRM_NO_VALUE)
            continue;
        t = &g->values[n->outputs[k]].desc;
        if (t->rank < 0 || t->rank > 1 ||
            (t->dtype != TRM_DTYPE_I64 && t->dtype != TRM_DTYPE_I32 && t->dtype != TRM_DTYPE_BOOL))
            return false;
        elems = t->rank == 1 ? t->dims[0] : 1;
        if (elems > SHAPE_ARITHMETIC_MAX)
            return false;
    }
    return true;
}

trm_status trm_rules_axes(const trm_graph *g, int node, const trm_tensor *descs, trm_arena *arena,
                          trm_axes *axes_out)
{
    const trm_node *n = &g->nodes[node];
    const trm_op_info *info = trm_op_get(n->op);
    trmi_rule_fn rule = table[n->op];
    trm_axis room[TRMI_AXES_MAX];
    trm_axes axes = {.axes = room};
    trmi_rules r = {.g = g, .n = n, .arena = arena, .axes = &axes};

    (void)descs;
    *axes_out = (trm_axes){0};
    if (rule == NULL && (info->flags & TRM_OPF_ELEMENTWISE) != 0 && n->output_count == 1)
        rule = trmi_rules_elementwise;
    if (rule == NULL || n->post_count > 0 ||
        (is_shape_arithmetic(g, n) && n->op != TRM_OP_Shape && n->op != TRM_OP_Size))
        return TRM_OK;
    rule(&r);
    keep_sound(g, n, &axes);
    if (r.no_memory)
        return trm_fail(TRM_ERR_NO_MEMORY, "axes of '%s'", n->name);
    *axes_out = axes;
    axes_out->axes =
        (trm_axis *)trm_arena_alloc(arena, (size_t)axes.axis_count + 1, sizeof(trm_axis));
    if (axes_out->axes == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "axes of '%s'", n->name);
    if (axes.axis_count > 0)
        memcpy(axes_out->axes, room, (size_t)axes.axis_count * sizeof(trm_axis));
    return TRM_OK;
}
