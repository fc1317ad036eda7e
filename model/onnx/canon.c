/* Older forms of operators rewritten to the newest: the table. A row holds where the operator's
 * opset is below `before`, and says how to rewrite it; several rows of one operator apply in order.
 * What needs no row: additions whose default keeps the old meaning, and widened dtypes. */
#include "model/onnx/canon_impl.h"

#include <string.h>

static const struct {
    trm_op op;
    int64_t before;
    trmi_rewrite rewrite;
} rows[] = {
    /* canon_forms.c: attributes that became inputs */
    {TRM_OP_Squeeze, 13, trmi_canon_axes},
    {TRM_OP_Unsqueeze, 13, trmi_canon_axes},
    {TRM_OP_ReduceSum, 13, trmi_canon_axes},
    {TRM_OP_ReduceL1, 18, trmi_canon_axes},
    {TRM_OP_ReduceL2, 18, trmi_canon_axes},
    {TRM_OP_ReduceLogSum, 18, trmi_canon_axes},
    {TRM_OP_ReduceLogSumExp, 18, trmi_canon_axes},
    {TRM_OP_ReduceMax, 18, trmi_canon_axes},
    {TRM_OP_ReduceMean, 18, trmi_canon_axes},
    {TRM_OP_ReduceMin, 18, trmi_canon_axes},
    {TRM_OP_ReduceProd, 18, trmi_canon_axes},
    {TRM_OP_ReduceSumSquare, 18, trmi_canon_axes},
    {TRM_OP_Split, TRMI_EVERY, trmi_canon_split},
    {TRM_OP_Slice, 10, trmi_canon_slice},
    {TRM_OP_Pad, 11, trmi_canon_pad},
    {TRM_OP_Clip, 11, trmi_canon_clip},
    {TRM_OP_TopK, 10, trmi_canon_topk},
    {TRM_OP_Reshape, 5, trmi_canon_reshape},
    {TRM_OP_Tile, 6, trmi_canon_tile},
    {TRM_OP_DFT, 20, trmi_canon_dft},
    {TRM_OP_Dropout, TRMI_EVERY, trmi_canon_dropout},
    /* canon_meaning.c: defaults, modes and semantics that changed */
    {TRM_OP_Resize, TRMI_EVERY, trmi_canon_resize},
    {TRM_OP_Softmax, 13, trmi_canon_softmax},
    {TRM_OP_LogSoftmax, 13, trmi_canon_softmax},
    {TRM_OP_Hardmax, 13, trmi_canon_softmax},
    {TRM_OP_BatchNormalization, 14, trmi_canon_batchnorm},
    {TRM_OP_GroupNormalization, 21, trmi_canon_groupnorm},
    {TRM_OP_RoiAlign, 16, trmi_canon_roialign},
    {TRM_OP_GridSample, TRMI_EVERY, trmi_canon_gridsample},
    {TRM_OP_LpPool, 2, trmi_canon_lp},
    {TRM_OP_GlobalLpPool, 2, trmi_canon_lp},
    {TRM_OP_Selu, 6, trmi_canon_selu},
    {TRM_OP_Concat, 4, trmi_canon_concat},
    {TRM_OP_Cast, TRMI_EVERY, trmi_canon_cast},
    {TRM_OP_Scan, 9, trmi_canon_scan},
    {TRM_OP_ConstantOfShape, TRMI_EVERY, trmi_canon_constant_of_shape},
    /* canon_broadcast.c */
    {TRM_OP_Add, 7, trmi_canon_broadcast},
    {TRM_OP_Sub, 7, trmi_canon_broadcast},
    {TRM_OP_Mul, 7, trmi_canon_broadcast},
    {TRM_OP_Div, 7, trmi_canon_broadcast},
    {TRM_OP_Pow, 7, trmi_canon_broadcast},
    {TRM_OP_And, 7, trmi_canon_broadcast},
    {TRM_OP_Or, 7, trmi_canon_broadcast},
    {TRM_OP_Xor, 7, trmi_canon_broadcast},
    {TRM_OP_Equal, 7, trmi_canon_broadcast},
    {TRM_OP_Greater, 7, trmi_canon_broadcast},
    {TRM_OP_Less, 7, trmi_canon_broadcast},
    {TRM_OP_PRelu, 7, trmi_canon_prelu},
};

/* Operators under another name or domain. */
static const struct {
    const char *domain, *name;
    trm_op op;
    trmi_rewrite rewrite; /* NULL: the same operator */
} aliases[] = {
    {"", "Upsample", TRM_OP_Resize, trmi_canon_upsample},
    {"", "Scatter", TRM_OP_ScatterElements, NULL},
    {"", "SimplifiedLayerNormalization", TRM_OP_RMSNormalization, NULL}, /* onnxruntime's own */
    {"com.microsoft", "Gelu", TRM_OP_Gelu, NULL},
    {"com.microsoft", "BiasGelu", TRM_OP_Gelu, trmi_canon_bias_gelu},
    {"com.microsoft", "FastGelu", TRM_OP_Gelu, trmi_canon_bias_gelu},
    {"com.microsoft", "QuickGelu", TRM_OP_Swish, trmi_canon_quick_gelu},
    {"com.microsoft", "QuantizeLinear", TRM_OP_QuantizeLinear, NULL},
    {"com.microsoft", "DequantizeLinear", TRM_OP_DequantizeLinear, NULL},
    {"com.microsoft", "Trilu", TRM_OP_Trilu, NULL},
};

trm_op trmi_canon_op(const char *domain, const char *name)
{
    trm_op op;

    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (strcmp(domain, aliases[i].domain) == 0 && strcmp(name, aliases[i].name) == 0)
            return aliases[i].op;
    if (domain[0] != '\0')
        return TRM_OP_NONE;
    op = trm_op_from_name(name);
    return trm_op_get(op)->flags & TRM_OPF_INTERNAL ? TRM_OP_NONE : op;
}

/* Attributes that hold a dtype: a dtype we lack is refused here, by name. */
static trm_status check_dtypes(const trmi_build *b)
{
    static const char *const names[] = {"to", "dtype", "output_datatype", "output_dtype"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int64_t number = trm_attr_int(&b->attrs, names[i], 0);
        trm_dtype dtype;

        if (number != 0)
            TRM_CHECK(trmi_dtype_parse(number, names[i], b->text, &dtype));
    }
    return TRM_OK;
}

trm_status trmi_canon_apply(trmi_build *b)
{
    bool microsoft = b->node->domain[0] != '\0';

    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (aliases[i].rewrite != NULL && strcmp(b->node->domain, aliases[i].domain) == 0 &&
            strcmp(b->node->op, aliases[i].name) == 0)
            TRM_CHECK(aliases[i].rewrite(b));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && !b->done && !microsoft; i++)
        if (rows[i].op == b->op && b->opset < rows[i].before)
            TRM_CHECK(rows[i].rewrite(b));
    trm_attr_remove(&b->attrs, "consumed_inputs"); /* a hint of opsets before 6 */
    TRM_CHECK(check_dtypes(b));
    if (!b->done && (trm_op_get(b->op)->flags & TRM_OPF_CONTROL))
        return trmi_bodies_import(b);
    return TRM_OK;
}
