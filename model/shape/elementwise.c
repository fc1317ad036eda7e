/* Rules of operators whose output has the shape of an input, or of all inputs broadcast. */
#include "model/shape/rule.h"

#include <string.h>

trm_status trmi_rule_same(trmi_io io)
{
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

trm_status trmi_rule_unary_bool(trmi_io io)
{
    trmi_shape_out(io, 0, TRM_DTYPE_BOOL, &io->in[0]);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

/* All operands broadcast; they must share a dtype unless `mixed`. */
static trm_status broadcast_all(trmi_io io, int first, bool mixed, trm_tensor *shape)
{
    int count = trmi_shape_operands(io);
    trm_dtype dtype = TRM_DTYPE_NONE;

    *shape = (trm_tensor){.rank = 0};
    for (int i = 0; i < count; i++) {
        if (!trmi_shape_has(io, i))
            return trmi_shape_bad(io, "input %d is missing", i);
        TRM_CHECK(trmi_shape_broadcast(io, shape, &io->in[i]));
        if (i < first || mixed || trmi_shape_dtype(io, i) == TRM_DTYPE_NONE)
            continue;
        if (dtype == TRM_DTYPE_NONE)
            dtype = trmi_shape_dtype(io, i);
        else if (dtype != trmi_shape_dtype(io, i))
            return trmi_shape_bad(io, "inputs of dtype %s and %s; want the same (add a Cast)",
                                  trm_dtype_name(dtype), trm_dtype_name(trmi_shape_dtype(io, i)));
    }
    shape->dtype = dtype;
    return TRM_OK;
}

trm_status trmi_rule_broadcast(trmi_io io)
{
    trm_tensor shape;
    bool mixed = io->node->op == TRM_OP_Pow; /* the exponent may have another dtype */

    TRM_CHECK(broadcast_all(io, 0, mixed, &shape));
    trmi_shape_out(io, 0, mixed ? trmi_shape_dtype(io, 0) : shape.dtype, &shape);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

trm_status trmi_rule_compare(trmi_io io)
{
    trm_tensor shape;

    TRM_CHECK(broadcast_all(io, 0, false, &shape));
    trmi_shape_out(io, 0, TRM_DTYPE_BOOL, &shape);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

trm_status trmi_rule_where(trmi_io io)
{
    trm_tensor shape;

    TRM_CHECK(broadcast_all(io, 1, false, &shape));
    trmi_shape_out(io, 0, shape.dtype, &shape);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

/* The slope broadcasts to the data, never the other way round. */
trm_status trmi_rule_prelu(trmi_io io)
{
    trm_tensor shape = io->in[0];

    TRM_CHECK(trmi_shape_broadcast(io, &shape, &io->in[1]));
    if (shape.rank > io->in[0].rank && io->in[0].rank >= 0)
        return trmi_shape_bad(io, "the slope has more dims than the data");
    for (int i = 0; i < io->in[0].rank && i < shape.rank; i++)
        if (trmi_shape_differ(shape.dims[i], io->in[0].dims[i]))
            return trmi_shape_bad(io, "the slope does not broadcast to the data's shape");
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_clip(trmi_io io)
{
    for (int i = 1; i < trmi_shape_operands(io) && i < 3; i++) {
        int64_t n = trmi_shape_length(io, i);

        if (trmi_shape_has(io, i) && (trmi_shape_rank(io, i) > 1 || n > 1))
            return trmi_shape_bad(io, "%s must be a scalar", i == 1 ? "min" : "max");
    }
    return trmi_rule_same(io);
}

static trm_status to_dtype(trmi_io io, const char *attr, trm_dtype *dtype_out)
{
    int64_t number = trm_attr_int(&io->node->attrs, attr, 0);

    *dtype_out = trm_dtype_from_onnx(number);
    if (*dtype_out == TRM_DTYPE_NONE)
        return trm_fail(
            TRM_ERR_UNSUPPORTED,
            "%s '%s': attribute '%s' asks for ONNX dtype %lld; supported are 1 to 7 and "
            "9 to 13 (numbers and bool) and 16 (bf16)",
            trm_op_get(io->node->op)->name, io->node->name, attr, (long long)number);
    return TRM_OK;
}

trm_status trmi_rule_cast(trmi_io io)
{
    trm_dtype dtype;

    TRM_CHECK(to_dtype(io, "to", &dtype));
    trmi_shape_out(io, 0, dtype, &io->in[0]);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

trm_status trmi_rule_cast_like(trmi_io io)
{
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 1), &io->in[0]);
    trmi_shape_values_elementwise(io);
    return TRM_OK;
}

trm_status trmi_rule_bit_cast(trmi_io io)
{
    trm_dtype dtype;

    TRM_CHECK(to_dtype(io, "to", &dtype));
    if (trmi_shape_dtype(io, 0) != TRM_DTYPE_NONE &&
        trm_dtype_bytes(dtype) != trm_dtype_bytes(trmi_shape_dtype(io, 0)))
        return trmi_shape_bad(io, "%s has another width than %s", trm_dtype_name(dtype),
                              trm_dtype_name(trmi_shape_dtype(io, 0)));
    trmi_shape_out(io, 0, dtype, &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_dropout(trmi_io io)
{
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    trmi_shape_out(io, 1, TRM_DTYPE_BOOL, &io->in[0]);
    return TRM_OK;
}

/* SwiGLU: both inputs have one shape, no broadcasting. */
trm_status trmi_rule_identical(trmi_io io)
{
    trm_tensor shape = io->in[0];

    if (io->in[0].rank >= 0)
        TRM_CHECK(trmi_shape_want_rank(io, 1, io->in[0].rank));
    for (int i = 0; i < shape.rank && i < io->in[1].rank; i++)
        TRM_CHECK(trmi_shape_same(io, "dims of the two inputs", shape.dims[i], io->in[1].dims[i],
                                  &shape.dims[i]));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), shape.rank >= 0 ? &shape : &io->in[1]);
    return TRM_OK;
}
