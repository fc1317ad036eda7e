/* Broadcasting before opset 7: with broadcast=1 the second operand's dims line up with the first's
 * from `axis` on, so it wants as many trailing dims of 1 as the first has beyond it. */
#include "model/onnx/canon_impl.h"

#include <inttypes.h>

/* Where ranks are not known yet: Reshape(B, Concat(Shape(B), ones of rank(A) - axis - rank(B))).
 * Shape inference and folding turn this into a constant reshape. */
static trm_status align_unknown(trmi_build *b, int64_t axis)
{
    trm_arena *arena = b->scope->body->g->arena;
    trm_attrs with_value = {NULL, 0, 0}, with_axis = {NULL, 0, 0};
    int64_t one = 1;
    trm_tensor one_desc = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {1}, .data = &one};
    trm_attr value = {.name = "value", .kind = TRM_ATTR_TENSOR, .count = 1};
    trm_tensor axis_desc = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {1}, .data = &axis};
    int shape_a, shape_b, rank_a, rank_b, rest, ones, shape, aligned, at;
    int pair[2];
    int64_t *kept;

    if (axis < 0)
        return trmi_build_unsupported(b, "a negative broadcast axis on an input of unknown rank");
    kept = (int64_t *)trm_arena_alloc(arena, 1, sizeof(*kept));
    if (kept == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s", b->text);
    *kept = one;
    one_desc.data = kept; /* the attribute borrows it for the graph's life */
    value.v.tensor = &one_desc;
    TRM_CHECK(trm_attr_set(&with_value, arena, &value));
    TRM_CHECK(trm_attr_set_int(&with_axis, arena, "axis", 0));
    TRM_CHECK(trmi_build_before(b, TRM_OP_Shape, &b->inputs[0], 1, NULL, &shape_a));
    TRM_CHECK(trmi_build_before(b, TRM_OP_Shape, &shape_a, 1, NULL, &rank_a));
    TRM_CHECK(trmi_build_before(b, TRM_OP_Shape, &b->inputs[1], 1, NULL, &shape_b));
    TRM_CHECK(trmi_build_before(b, TRM_OP_Shape, &shape_b, 1, NULL, &rank_b));
    TRM_CHECK(trmi_scope_constant(b->scope, "broadcast_axis", &axis_desc, false, &at));
    pair[0] = rank_a;
    pair[1] = rank_b;
    TRM_CHECK(trmi_build_before(b, TRM_OP_Sub, pair, 2, NULL, &rest));
    pair[0] = rest;
    pair[1] = at;
    TRM_CHECK(trmi_build_before(b, TRM_OP_Sub, pair, 2, NULL, &rest));
    TRM_CHECK(trmi_build_before(b, TRM_OP_ConstantOfShape, &rest, 1, &with_value, &ones));
    pair[0] = shape_b;
    pair[1] = ones;
    TRM_CHECK(trmi_build_before(b, TRM_OP_Concat, pair, 2, &with_axis, &shape));
    pair[0] = b->inputs[1];
    pair[1] = shape;
    TRM_CHECK(trmi_build_before(b, TRM_OP_Reshape, pair, 2, NULL, &aligned));
    b->inputs[1] = aligned;
    return TRM_OK;
}

static trm_status align(trmi_build *b, int64_t axis)
{
    const trm_value *x = trmi_build_input(b, 0), *y = trmi_build_input(b, 1);
    int64_t axes[TRM_RANK_MAX], ones;
    trm_tensor desc = {.dtype = TRM_DTYPE_I64, .rank = 1, .data = axes};
    int pair[2];

    if (x == NULL || y == NULL)
        return TRM_OK; /* the count check says it */
    if (x->desc.rank < 0 || y->desc.rank < 0)
        return align_unknown(b, axis);
    if (axis < 0)
        axis += x->desc.rank;
    ones = x->desc.rank - axis - y->desc.rank;
    if (axis < 0 || axis > x->desc.rank || ones < 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "%s: %d dims do not fit into %d dims from axis %" PRId64 " on", b->text,
                        y->desc.rank, x->desc.rank, axis);
    if (ones == 0)
        return TRM_OK;
    for (int64_t i = 0; i < ones; i++)
        axes[i] = y->desc.rank + i;
    desc.dims[0] = ones;
    pair[0] = b->inputs[1];
    TRM_CHECK(trmi_scope_constant(b->scope, "broadcast_axes", &desc, false, &pair[1]));
    return trmi_build_before(b, TRM_OP_Unsqueeze, pair, 2, NULL, &b->inputs[1]);
}

trm_status trmi_canon_broadcast(trmi_build *b)
{
    int64_t on = trm_attr_int(&b->attrs, "broadcast", 0);
    const trm_attr *axis = trm_attr_find(&b->attrs, "axis");
    int64_t at = axis == NULL ? 0 : axis->v.i;

    trm_attr_remove(&b->attrs, "broadcast");
    trm_attr_remove(&b->attrs, "axis");
    if (on == 0 || axis == NULL)
        return TRM_OK; /* without an axis the last dims line up, as they do today */
    return align(b, at);
}

/* A slope of one dim is one a channel. */
trm_status trmi_canon_prelu(trmi_build *b)
{
    const trm_value *slope = trmi_build_input(b, 1);

    if (slope == NULL || (slope->desc.rank >= 0 && slope->desc.rank != 1) ||
        (slope->desc.rank == 1 && slope->desc.dims[0] == 1))
        return TRM_OK;
    return align(b, 1);
}
