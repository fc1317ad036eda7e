/* What rewrites share: changing a node before it goes into the graph, and putting it there. */
#include "model/onnx/onnx_impl.h"

#include <stdio.h>
#include <string.h>

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx node");
}

trm_status trmi_build_unsupported(const trmi_build *b, const char *why)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s: %s is not supported", b->text, why);
}

const trm_value *trmi_build_input(const trmi_build *b, int index)
{
    return index >= b->input_count || b->inputs[index] == TRM_NO_VALUE
               ? NULL
               : &b->scope->body->g->values[b->inputs[index]];
}

trm_status trmi_build_set_input(trmi_build *b, int index, int value)
{
    if (index >= b->input_max) {
        int max = index < 8 ? 8 : index * 2;
        int *grown = (int *)trm_arena_alloc(b->scope->im->scratch, (size_t)max, sizeof(int));

        if (grown == NULL)
            return no_memory();
        if (b->input_count > 0)
            memcpy(grown, b->inputs, (size_t)b->input_count * sizeof(int));
        b->inputs = grown;
        b->input_max = max;
    }
    while (b->input_count <= index)
        b->inputs[b->input_count++] = TRM_NO_VALUE;
    b->inputs[index] = value;
    return TRM_OK;
}

/* Constants made here are named after the node, so that messages can be traced to the file. */
static const char *constant_name(const trmi_build *b, const char *name)
{
    const char *base = b->node->name[0] != '\0'    ? b->node->name
                       : b->node->output_count > 0 ? b->node->outputs[0]
                                                   : b->node->op;
    size_t bytes = strlen(base) + strlen(name) + 2;
    char *text = (char *)trm_arena_alloc(b->scope->im->scratch, bytes, 1);

    if (text != NULL)
        snprintf(text, bytes, "%s/%s", base, name);
    return text;
}

static trm_status constant_input(trmi_build *b, int index, const char *name, const trm_tensor *desc)
{
    const char *full = constant_name(b, name);
    int value;

    if (full == NULL)
        return no_memory();
    TRM_CHECK(trmi_scope_constant(b->scope, full, desc, false, &value));
    return trmi_build_set_input(b, index, value);
}

trm_status trmi_build_ints_input(trmi_build *b, int index, const char *name, const int64_t *values,
                                 size_t count)
{
    trm_tensor desc = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {(int64_t)count}};

    desc.data = (void *)(uintptr_t)values; /* only read */
    return constant_input(b, index, name, &desc);
}

trm_status trmi_build_int_input(trmi_build *b, int index, const char *name, int64_t value)
{
    trm_tensor desc = {.dtype = TRM_DTYPE_I64, .rank = 0, .data = &value};

    return constant_input(b, index, name, &desc);
}

trm_status trmi_build_floats_input(trmi_build *b, int index, const char *name, const float *values,
                                   size_t count)
{
    trm_tensor desc = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {(int64_t)count}};

    desc.data = (void *)(uintptr_t)values; /* only read */
    return constant_input(b, index, name, &desc);
}

trm_status trmi_build_move_ints(trmi_build *b, const char *attr, int index)
{
    size_t count;
    const int64_t *values = trm_attr_ints(&b->attrs, attr, &count);

    if (values == NULL)
        return TRM_OK;
    TRM_CHECK(trmi_build_ints_input(b, index, attr, values, count));
    trm_attr_remove(&b->attrs, attr);
    return TRM_OK;
}

trm_status trmi_build_float_input(trmi_build *b, int index, const char *name, float value)
{
    const trm_value *like = trmi_build_input(b, 0);
    uint64_t room = 0;
    trm_tensor desc = {.dtype = TRM_DTYPE_F32, .rank = 0, .data = &room};
    int pair[2], cast = TRM_NO_VALUE;

    if (like != NULL && like->desc.dtype != TRM_DTYPE_NONE) {
        desc.dtype = like->desc.dtype;
        trm_tensor_set_f64(&desc, 0, (double)value);
        return constant_input(b, index, name, &desc);
    }
    trm_tensor_set_f64(&desc, 0, (double)value);
    TRM_CHECK(constant_input(b, index, name, &desc));
    pair[0] = b->inputs[index];
    pair[1] = b->inputs[0];
    TRM_CHECK(trmi_build_before(b, TRM_OP_CastLike, pair, 2, NULL, &cast));
    return trmi_build_set_input(b, index, cast);
}

trm_status trmi_build_before(trmi_build *b, trm_op op, const int *inputs, int count,
                             const trm_attrs *attrs, int *value_out)
{
    trm_graph *g = b->scope->body->g;
    const char *name = constant_name(b, trm_op_get(op)->name);
    int node;

    if (name == NULL)
        return no_memory();
    TRM_CHECK(trmi_scope_temp(b->scope, name, NULL, value_out));
    TRM_CHECK(trm_graph_add_node(g, op, name, inputs, count, value_out, 1, &node));
    for (int i = 0; attrs != NULL && i < attrs->count; i++)
        TRM_CHECK(trm_attr_set(&g->nodes[node].attrs, g->arena, &attrs->items[i]));
    return TRM_OK;
}

/* Operators whose output has the dtype of input 0. Files rarely declare the dtypes of inner values,
 * and a rewrite that makes a constant wants to know. */
static bool keeps_dtype(trm_op op)
{
    switch (op) {
    case TRM_OP_Add:
    case TRM_OP_Sub:
    case TRM_OP_Mul:
    case TRM_OP_Div:
    case TRM_OP_Conv:
    case TRM_OP_ConvTranspose:
    case TRM_OP_Gemm:
    case TRM_OP_MatMul:
    case TRM_OP_BatchNormalization:
    case TRM_OP_InstanceNormalization:
    case TRM_OP_Relu:
    case TRM_OP_LeakyRelu:
    case TRM_OP_PRelu:
    case TRM_OP_Sigmoid:
    case TRM_OP_Tanh:
    case TRM_OP_Clip:
    case TRM_OP_MaxPool:
    case TRM_OP_AveragePool:
    case TRM_OP_GlobalAveragePool:
    case TRM_OP_Concat:
    case TRM_OP_Reshape:
    case TRM_OP_Transpose:
    case TRM_OP_Flatten:
    case TRM_OP_Squeeze:
    case TRM_OP_Unsqueeze:
    case TRM_OP_Slice:
    case TRM_OP_Pad:
    case TRM_OP_Split:
    case TRM_OP_Dropout:
    case TRM_OP_Identity:
    case TRM_OP_Resize:
    case TRM_OP_Softmax:
    case TRM_OP_LRN:
    case TRM_OP_ReduceMean:
    case TRM_OP_ReduceSum:
        return true;
    default:
        return false;
    }
}

static trm_status check_counts(trmi_build *b, const trm_op_info *info)
{
    while (!(info->flags & TRM_OPF_CONTROL) && b->input_count > 0 &&
           b->inputs[b->input_count - 1] == TRM_NO_VALUE)
        b->input_count--;
    while (b->output_count > 0 && b->outputs[b->output_count - 1] == TRM_NO_VALUE)
        b->output_count--;
    /* captures come on top of a control node's own inputs */
    if (b->input_count < info->in_min ||
        (b->input_count > info->in_max && !(info->flags & TRM_OPF_CONTROL)))
        return trm_fail(TRM_ERR_BAD_FILE, "%s has %d inputs, want %d to %d", b->text,
                        b->input_count, info->in_min, info->in_max);
    if (b->output_count < info->out_min || b->output_count > info->out_max)
        return trm_fail(TRM_ERR_BAD_FILE, "%s has %d outputs, want %d to %d", b->text,
                        b->output_count, info->out_min, info->out_max);
    for (int i = 0; i < b->input_count && b->op != TRM_OP_Loop; i++)
        if (b->inputs[i] == TRM_NO_VALUE && (i < info->in_min || info->in_max == TRM_ARGS_ANY))
            return trm_fail(TRM_ERR_BAD_FILE, "%s: input %d is absent but required", b->text, i);
    return TRM_OK;
}

trm_status trmi_build_emit(trmi_build *b)
{
    trm_graph *g = b->scope->body->g;
    const trm_value *first = trmi_build_input(b, 0);
    int node;

    TRM_CHECK(check_counts(b, trm_op_get(b->op)));
    if (b->output_count == 0)
        return TRM_OK; /* nobody can read it */
    if (first != NULL && first->desc.dtype != TRM_DTYPE_NONE && b->outputs[0] != TRM_NO_VALUE &&
        g->values[b->outputs[0]].desc.dtype == TRM_DTYPE_NONE && keeps_dtype(b->op))
        g->values[b->outputs[0]].desc.dtype = first->desc.dtype;
    TRM_CHECK(trm_graph_add_node(g, b->op, b->node->name, b->inputs, b->input_count, b->outputs,
                                 b->output_count, &node));
    g->nodes[node].attrs = b->attrs;
    return TRM_OK;
}
