/* Attributes that became inputs. */
#include "model/onnx/canon_impl.h"

#include <inttypes.h>
#include <string.h>

/* An absent or empty list of axes meant all axes, as an absent input does now. */
trm_status trmi_canon_axes(trmi_build *b)
{
    size_t count;
    const int64_t *axes = trm_attr_ints(&b->attrs, "axes", &count);

    if (b->op == TRM_OP_Unsqueeze && axes == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: wants an attribute 'axes'", b->text);
    if (axes != NULL && count == 0 && b->op != TRM_OP_Unsqueeze) {
        trm_attr_remove(&b->attrs, "axes");
        return TRM_OK;
    }
    return trmi_build_move_ints(b, "axes", 1);
}

/* Without sizes the outputs are equal parts: how many becomes an attribute, as opset 18 has it. */
trm_status trmi_canon_split(trmi_build *b)
{
    int64_t parts = trm_attr_int(&b->attrs, "num_outputs", b->output_count);

    if (b->opset < 13)
        TRM_CHECK(trmi_build_move_ints(b, "split", 1));
    if (trmi_build_input(b, 1) != NULL)
        return TRM_OK;
    if (parts != b->output_count)
        return trm_fail(TRM_ERR_BAD_FILE, "%s has %d outputs, num_outputs says %" PRId64, b->text,
                        b->output_count, parts);
    return trm_attr_set_int(&b->attrs, b->scope->body->g->arena, "num_outputs", parts);
}

trm_status trmi_canon_slice(trmi_build *b)
{
    if (trm_attr_find(&b->attrs, "starts") == NULL || trm_attr_find(&b->attrs, "ends") == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: wants attributes 'starts' and 'ends'", b->text);
    TRM_CHECK(trmi_build_move_ints(b, "starts", 1));
    TRM_CHECK(trmi_build_move_ints(b, "ends", 2));
    return trmi_build_move_ints(b, "axes", 3);
}

trm_status trmi_canon_pad(trmi_build *b)
{
    const char *name = trm_attr_find(&b->attrs, "pads") == NULL ? "paddings" : "pads";
    float value = trm_attr_float(&b->attrs, "value", 0);

    if (trm_attr_find(&b->attrs, name) == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: wants an attribute 'pads'", b->text);
    TRM_CHECK(trmi_build_move_ints(b, name, 1));
    trm_attr_remove(&b->attrs, "value");
    return value == 0 ? TRM_OK : trmi_build_float_input(b, 2, "value", value);
}

trm_status trmi_canon_clip(trmi_build *b)
{
    static const char *const names[] = {"min", "max"};

    for (int i = 0; i < 2; i++) {
        const trm_attr *a = trm_attr_find(&b->attrs, names[i]);

        if (a == NULL)
            continue;
        TRM_CHECK(trmi_build_float_input(b, 1 + i, names[i], a->v.f));
        trm_attr_remove(&b->attrs, names[i]);
    }
    return TRM_OK;
}

trm_status trmi_canon_topk(trmi_build *b)
{
    int64_t k = trm_attr_int(&b->attrs, "k", -1);

    if (k < 0)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: wants an attribute 'k' of 0 or more", b->text);
    trm_attr_remove(&b->attrs, "k");
    return trmi_build_ints_input(b, 1, "k", &k, 1);
}

trm_status trmi_canon_reshape(trmi_build *b)
{
    return trmi_build_move_ints(b, "shape", 1);
}

/* Opset 1 tiles one axis: inputs tiles and axis, each of one element. */
trm_status trmi_canon_tile(trmi_build *b)
{
    const trm_value *x = trmi_build_input(b, 0), *tiles = trmi_build_input(b, 1);
    const trm_value *axis = trmi_build_input(b, 2);
    trm_graph *g = b->scope->body->g;
    int64_t repeats[TRM_RANK_MAX];
    trm_tensor t, a;
    int64_t at;

    if (axis == NULL)
        return TRM_OK; /* already the later form */
    if (x == NULL || tiles == NULL || x->desc.rank < 0 || tiles->desc.data == NULL ||
        axis->desc.data == NULL)
        return trmi_build_unsupported(b, "Tile of opset 1 unless its tiles, axis and rank are "
                                         "constant");
    TRM_CHECK(trm_graph_constant(g, b->inputs[1], &t));
    TRM_CHECK(trm_graph_constant(g, b->inputs[2], &a));
    if (trm_tensor_numel(&t) != 1 || trm_tensor_numel(&a) != 1)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: tiles and axis must have one element", b->text);
    at = trm_tensor_get_i64(&a, 0);
    if (at < 0 || at >= x->desc.rank)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: axis %" PRId64 " of %d dims", b->text, at,
                        x->desc.rank);
    for (int i = 0; i < x->desc.rank; i++)
        repeats[i] = i == at ? trm_tensor_get_i64(&t, 0) : 1;
    TRM_CHECK(trmi_build_ints_input(b, 1, "repeats", repeats, (size_t)x->desc.rank));
    b->input_count = 2;
    return TRM_OK;
}

trm_status trmi_canon_dft(trmi_build *b)
{
    int64_t axis = trm_attr_int(&b->attrs, "axis", 1); /* the default was 1, now it is -2 */

    trm_attr_remove(&b->attrs, "axis");
    return trmi_build_int_input(b, 2, "axis", axis);
}

/* At inference Dropout is the identity. Only a training_mode input that may be true is kept. */
trm_status trmi_canon_dropout(trmi_build *b)
{
    const trm_value *training = trmi_build_input(b, 2);
    trm_tensor t;

    trm_attr_remove(&b->attrs, "is_test");
    if (training != NULL && b->opset >= 12) {
        if (training->desc.data == NULL)
            return TRM_OK;
        TRM_CHECK(trm_graph_constant(b->scope->body->g, b->inputs[2], &t));
        if (trm_tensor_numel(&t) != 1 || trm_tensor_get_i64(&t, 0) != 0)
            return TRM_OK;
    }
    if (b->input_count > 1)
        b->input_count = 1;
    trm_attr_remove(&b->attrs, "ratio");
    trm_attr_remove(&b->attrs, "seed");
    return TRM_OK;
}

/* Upsample scales about the corner of the first pixel and takes the pixel below. */
trm_status trmi_canon_upsample(trmi_build *b)
{
    trm_arena *arena = b->scope->body->g->arena;
    size_t count;
    const float *scales = trm_attr_floats(&b->attrs, "scales", &count);
    float four[4] = {1, 1, trm_attr_float(&b->attrs, "height_scale", 0),
                     trm_attr_float(&b->attrs, "width_scale", 0)};

    if (b->input_count > 1)
        TRM_CHECK(trmi_build_set_input(b, 2, b->inputs[1]));
    else if (scales != NULL)
        TRM_CHECK(trmi_build_floats_input(b, 2, "scales", scales, count));
    else if (four[2] > 0 && four[3] > 0)
        TRM_CHECK(trmi_build_floats_input(b, 2, "scales", four, 4));
    else
        return trm_fail(TRM_ERR_BAD_FILE, "%s: wants scales", b->text);
    TRM_CHECK(trmi_build_set_input(b, 1, TRM_NO_VALUE));
    trm_attr_remove(&b->attrs, "scales");
    trm_attr_remove(&b->attrs, "height_scale");
    trm_attr_remove(&b->attrs, "width_scale");
    TRM_CHECK(
        trm_attr_set_string(&b->attrs, arena, "coordinate_transformation_mode", "asymmetric"));
    return trm_attr_set_string(&b->attrs, arena, "nearest_mode", "floor");
}
