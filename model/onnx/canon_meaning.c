/* Defaults, modes and semantics that changed. */
#include "model/onnx/canon_impl.h"

#include <math.h>
#include <string.h>

static trm_arena *arena_of(const trmi_build *b)
{
    return b->scope->body->g->arena;
}

static trm_status default_string(trmi_build *b, const char *name, const char *value)
{
    return trm_attr_find(&b->attrs, name) != NULL
               ? TRM_OK
               : trm_attr_set_string(&b->attrs, arena_of(b), name, value);
}

static trm_status default_float(trmi_build *b, const char *name, float value)
{
    return trm_attr_find(&b->attrs, name) != NULL
               ? TRM_OK
               : trm_attr_set_float(&b->attrs, arena_of(b), name, value);
}

static trm_status rename_mode(trmi_build *b, const char *from, const char *to)
{
    if (strcmp(trm_attr_string(&b->attrs, "mode", ""), from) != 0)
        return TRM_OK;
    return trm_attr_set_string(&b->attrs, arena_of(b), "mode", to);
}

/* Opset 10: inputs X and scales. From 11 on unused inputs may be tensors of no elements: those
 * become absent, so that one test is enough everywhere else. */
trm_status trmi_canon_resize(trmi_build *b)
{
    TRM_CHECK(rename_mode(b, "bilinear", "linear"));
    if (b->opset < 11 && strcmp(b->node->op, "Upsample") != 0) {
        if (b->input_count != 2)
            return trm_fail(TRM_ERR_BAD_FILE, "%s has %d inputs, want 2", b->text, b->input_count);
        TRM_CHECK(trmi_build_set_input(b, 2, b->inputs[1]));
        TRM_CHECK(trmi_build_set_input(b, 1, TRM_NO_VALUE));
        TRM_CHECK(default_string(b, "coordinate_transformation_mode", "asymmetric"));
        TRM_CHECK(default_string(b, "nearest_mode", "floor"));
    }
    for (int i = 1; i < b->input_count; i++) {
        const trm_value *v = trmi_build_input(b, i);

        if (v != NULL && v->desc.data != NULL && v->bytes == 0)
            b->inputs[i] = TRM_NO_VALUE;
    }
    return TRM_OK;
}

/* Before opset 13 the input was seen as a matrix, [dims before axis, dims from axis on], and each
 * row normalised; the default axis was 1. "flatten" says so, unless the row is just the last dim.
 */
trm_status trmi_canon_softmax(trmi_build *b)
{
    int64_t axis = trm_attr_int(&b->attrs, "axis", 1);
    const trm_value *x = trmi_build_input(b, 0);

    TRM_CHECK(trm_attr_set_int(&b->attrs, arena_of(b), "axis", axis));
    if (axis == -1 || (x != NULL && x->desc.rank > 0 && axis == x->desc.rank - 1))
        return TRM_OK;
    return trm_attr_set_int(&b->attrs, arena_of(b), "flatten", 1);
}

/* Before opset 14 further outputs were for training. Opset 6 and older chose by is_test; what we do
 * is inference. */
trm_status trmi_canon_batchnorm(trmi_build *b)
{
    if (trm_attr_int(&b->attrs, "spatial", 1) == 0)
        return trmi_build_unsupported(b, "batch normalization with spatial=0");
    trm_attr_remove(&b->attrs, "spatial");
    trm_attr_remove(&b->attrs, "is_test");
    if (b->output_count > 1)
        b->output_count = 1;
    return TRM_OK;
}

/* Opset 18: scale and bias have one element a group, later one a channel. */
trm_status trmi_canon_groupnorm(trmi_build *b)
{
    return trm_attr_set_int(&b->attrs, arena_of(b), "per_group", 1);
}

trm_status trmi_canon_roialign(trmi_build *b)
{
    return default_string(b, "coordinate_transformation_mode", "output_half_pixel");
}

trm_status trmi_canon_gridsample(trmi_build *b)
{
    TRM_CHECK(rename_mode(b, "bilinear", "linear"));
    return rename_mode(b, "bicubic", "cubic");
}

/* p was a float in opset 1. */
trm_status trmi_canon_lp(trmi_build *b)
{
    const trm_attr *p = trm_attr_find(&b->attrs, "p");

    if (p == NULL || p->kind != TRM_ATTR_FLOAT)
        return TRM_OK;
    if (!(p->v.f >= 1 && p->v.f <= 1024) || floorf(p->v.f) < p->v.f)
        return trmi_build_unsupported(b, "p that is not a positive whole number");
    return trm_attr_set_int(&b->attrs, arena_of(b), "p", (int64_t)p->v.f);
}

trm_status trmi_canon_selu(trmi_build *b)
{
    TRM_CHECK(default_float(b, "alpha", 1.6732F));
    return default_float(b, "gamma", 1.0507F);
}

trm_status trmi_canon_concat(trmi_build *b)
{
    return trm_attr_find(&b->attrs, "axis") != NULL
               ? TRM_OK
               : trm_attr_set_int(&b->attrs, arena_of(b), "axis", 1);
}

/* `to` was a name before opset 6. */
trm_status trmi_canon_cast(trmi_build *b)
{
    static const struct {
        const char *name;
        int number;
    } names[] = {{"FLOAT", 1},    {"UINT8", 2},   {"INT8", 3},    {"UINT16", 4},
                 {"INT16", 5},    {"INT32", 6},   {"INT64", 7},   {"BOOL", 9},
                 {"FLOAT16", 10}, {"DOUBLE", 11}, {"UINT32", 12}, {"UINT64", 13}};
    const trm_attr *to = trm_attr_find(&b->attrs, "to");

    if (to == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: wants an attribute 'to'", b->text);
    if (to->kind != TRM_ATTR_STRING)
        return TRM_OK;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].name, to->v.s) == 0)
            return trm_attr_set_int(&b->attrs, arena_of(b), "to", names[i].number);
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s: a cast to '%.40s' is not supported", b->text,
                    to->v.s);
}

trm_status trmi_canon_constant_of_shape(trmi_build *b)
{
    const trm_attr *value = trm_attr_find(&b->attrs, "value");

    if (value != NULL && (value->kind != TRM_ATTR_TENSOR || trm_tensor_numel(value->v.tensor) != 1))
        return trm_fail(TRM_ERR_BAD_FILE, "%s: attribute 'value' wants a tensor of one element",
                        b->text);
    return TRM_OK;
}

/* ---- Scan of opset 8: every tensor has a batch dim in front and sequences may differ in length.
 * With a batch of one it is today's Scan between a Squeeze and an Unsqueeze. ---- */
static trm_status squeeze(trmi_build *b, trm_op op, int from, int *value_out)
{
    static const int64_t zero = 0;
    trmi_build axes = *b;
    int pair[2] = {from, TRM_NO_VALUE};

    axes.inputs = NULL;
    axes.input_count = axes.input_max = 0;
    TRM_CHECK(trmi_build_ints_input(&axes, 0, "batch", &zero, 1));
    pair[1] = axes.inputs[0];
    if (*value_out == TRM_NO_VALUE)
        return trmi_build_before(b, op, pair, 2, NULL, value_out);
    return trm_graph_add_node(b->scope->body->g, op, b->node->name, pair, 2, value_out, 1, NULL);
}

trm_status trmi_canon_scan(trmi_build *b)
{
    size_t count;
    const int64_t *directions = trm_attr_ints(&b->attrs, "directions", &count);
    int *outputs;
    bool one = false;
    int final_count = b->output_count;

    for (int i = 1; i < b->input_count; i++) {
        const trm_value *v = trmi_build_input(b, i);

        one |= v != NULL && v->desc.rank > 0 && v->desc.dims[0] == 1;
    }
    if (!one || b->inputs[0] != TRM_NO_VALUE)
        return trmi_build_unsupported(b, "Scan of opset 8 with a batch other than 1 or with "
                                         "sequence_lens");
    if (directions != NULL) {
        TRM_CHECK(
            trm_attr_set_ints(&b->attrs, arena_of(b), "scan_input_directions", directions, count));
        trm_attr_remove(&b->attrs, "directions");
    }
    for (int i = 1; i < b->input_count; i++) {
        int value = TRM_NO_VALUE;

        if (b->inputs[i] == TRM_NO_VALUE)
            return trm_fail(TRM_ERR_BAD_FILE, "%s: input %d is absent but required", b->text, i);
        TRM_CHECK(squeeze(b, TRM_OP_Squeeze, b->inputs[i], &value));
        b->inputs[i - 1] = value;
    }
    b->input_count--;
    outputs = b->outputs;
    b->outputs =
        (int *)trm_arena_alloc(b->scope->im->scratch, (size_t)final_count + 1, sizeof(int));
    if (b->outputs == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s", b->text);
    for (int i = 0; i < final_count; i++) {
        b->outputs[i] = TRM_NO_VALUE;
        if (outputs[i] != TRM_NO_VALUE)
            TRM_CHECK(trmi_scope_temp(b->scope, b->node->outputs[i], NULL, &b->outputs[i]));
    }
    TRM_CHECK(trmi_bodies_import(b));
    TRM_CHECK(trmi_build_emit(b));
    for (int i = 0; i < final_count; i++)
        if (outputs[i] != TRM_NO_VALUE)
            TRM_CHECK(squeeze(b, TRM_OP_Unsqueeze, b->outputs[i], &outputs[i]));
    b->done = true;
    return TRM_OK;
}

/* ---- com.microsoft ---- */
trm_status trmi_canon_bias_gelu(trmi_build *b)
{
    int sum;

    if (b->input_count > 2)
        return trm_fail(TRM_ERR_BAD_FILE, "%s has %d inputs, want 1 to 2", b->text, b->input_count);
    if (trmi_build_input(b, 1) != NULL && trmi_build_input(b, 0) != NULL) {
        TRM_CHECK(trmi_build_before(b, TRM_OP_Add, b->inputs, 2, NULL, &sum));
        b->inputs[0] = sum;
        b->input_count = 1;
    }
    return strcmp(b->node->op, "FastGelu") == 0 ? default_string(b, "approximate", "tanh") : TRM_OK;
}

trm_status trmi_canon_quick_gelu(trmi_build *b)
{
    return default_float(b, "alpha", 1.702F);
}
