/* Rules of QuantizeLinear and its kin: the data's shape under another dtype. */
#include "model/shape/rule.h"

/* Scale and zero point: a scalar, a vector along `axis`, or blocks along it. */
static trm_status check_scale(trmi_io io)
{
    int64_t block = trm_attr_int(&io->node->attrs, "block_size", 0), same;
    int rank = trmi_shape_rank(io, 0), axis;

    if (rank < 0 || trmi_shape_rank(io, 1) < 0 || trmi_shape_length(io, 1) == 1)
        return TRM_OK;
    /* a vector for data with one dim less: the axis default of 1 is out of range and unused */
    TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 1), rank, &axis));
    if (trmi_shape_rank(io, 1) == 1) {
        TRM_CHECK(trmi_shape_same(io, "scales and the axis", io->in[0].dims[axis],
                                  io->in[1].dims[0], &same));
    } else {
        TRM_CHECK(trmi_shape_want_rank(io, 1, rank));
        if (block < 1)
            return trmi_shape_bad(io, "scales of %d dims need attribute block_size", rank);
        for (int i = 0; i < rank; i++)
            if (i != axis)
                TRM_CHECK(trmi_shape_same(io, "dims of data and scales", io->in[0].dims[i],
                                          io->in[1].dims[i], &same));
            else if (io->in[0].dims[i] >= 0 && io->in[1].dims[i] >= 0 &&
                     io->in[0].dims[i] / block + (io->in[0].dims[i] % block != 0) !=
                         io->in[1].dims[i])
                return trmi_shape_bad(io, "blocks of %lld do not match the scales",
                                      (long long)block);
    }
    return TRM_OK;
}

static trm_status output_dtype(trmi_io io, trm_dtype otherwise, trm_dtype *dtype_out)
{
    int64_t number = trm_attr_int(&io->node->attrs, "output_dtype", 0);

    *dtype_out = number == 0 ? otherwise : trm_dtype_from_onnx(number);
    if (number != 0 && *dtype_out == TRM_DTYPE_NONE)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': output_dtype asks for ONNX dtype %lld",
                        trm_op_get(io->node->op)->name, io->node->name, (long long)number);
    return TRM_OK;
}

trm_status trmi_rule_quantize(trmi_io io)
{
    trm_dtype dtype;

    TRM_CHECK(check_scale(io));
    TRM_CHECK(
        output_dtype(io, trmi_shape_has(io, 2) ? trmi_shape_dtype(io, 2) : TRM_DTYPE_U8, &dtype));
    trmi_shape_out(io, 0, dtype, &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_dequantize(trmi_io io)
{
    trm_dtype dtype;

    TRM_CHECK(check_scale(io));
    TRM_CHECK(output_dtype(io, trmi_shape_dtype(io, 1), &dtype));
    trmi_shape_out(io, 0, dtype, &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_dynamic_quantize(trmi_io io)
{
    trmi_shape_out(io, 0, TRM_DTYPE_U8, &io->in[0]);
    trmi_shape_out_dims(io, 1, TRM_DTYPE_F32, 0, NULL);
    trmi_shape_out_dims(io, 2, TRM_DTYPE_U8, 0, NULL);
    return TRM_OK;
}
