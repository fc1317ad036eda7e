/* ValueInfoProto: a value's name, dtype and shape. Dim names become symbols of the top graph. */
#include "model/onnx/onnx_impl.h"

#include <inttypes.h>
#include <string.h>

static trm_status parse_dim(trmi_import *im, trmi_pb *shape, const char *name, int64_t *dim_out)
{
    trmi_pb r = trmi_pb_make(shape->bytes, shape->base, "TensorShapeProto.Dimension");
    const char *symbol = "";
    int64_t dim = TRM_DIM_UNKNOWN;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 1)
            TRM_CHECK(trmi_pb_int(&r, &dim));
        else if (r.field == 2)
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &symbol));
    }
    /* -1 is how some exporters write "unknown" */
    if (dim < -1 || dim > TRM_DIM_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "value '%s' has a dim %" PRId64 ": want 0 to 2^40", name,
                        dim);
    /* "?" is what some exporters call every dim they do not know: no name that two dims could share
     */
    if (dim == TRM_DIM_UNKNOWN && symbol[0] != '\0' && strcmp(symbol, "?") != 0) {
        if (im->top->symbol_count >= TRMI_SYMBOLS_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "value '%s': more than %d dim names", name,
                            TRMI_SYMBOLS_MAX);
        TRM_CHECK(trm_graph_symbol(im->top, symbol, &dim));
    }
    *dim_out = dim;
    return TRM_OK;
}

static trm_status parse_shape(trmi_import *im, trmi_pb *type, const char *name, trm_tensor *desc)
{
    trmi_pb r = trmi_pb_make(type->bytes, type->base, "TensorShapeProto");
    int64_t dim = TRM_DIM_UNKNOWN;
    bool more;

    desc->rank = 0;
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field != 1)
            continue;
        TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
        TRM_CHECK(parse_dim(im, &r, name, &dim));
        if (desc->rank == TRM_RANK_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "value '%s' has more than %d dims", name,
                            TRM_RANK_MAX);
        desc->dims[desc->rank++] = dim;
    }
}

static trm_status parse_tensor_type(trmi_import *im, trmi_pb *type, const char *name,
                                    trm_tensor *desc)
{
    trmi_pb r = trmi_pb_make(type->bytes, type->base, "TypeProto.Tensor");
    int64_t number = 0;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 1) {
            TRM_CHECK(trmi_pb_int(&r, &number));
        } else if (r.field == 2) {
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            TRM_CHECK(parse_shape(im, &r, name, desc));
        }
    }
    if (number != 0)
        TRM_CHECK(trmi_dtype_parse(number, "value", name, &desc->dtype));
    return TRM_OK;
}

static trm_status parse_type(trmi_import *im, trmi_pb *info, const char *name, trm_tensor *desc)
{
    trmi_pb r = trmi_pb_make(info->bytes, info->base, "TypeProto");
    const char *kind;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        switch (r.field) {
        case 1:
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            TRM_CHECK(parse_tensor_type(im, &r, name, desc));
            continue;
        case 4:
            kind = "a sequence";
            break;
        case 5:
            kind = "a map";
            break;
        case 7:
            kind = "of an opaque type";
            break;
        case 8:
            kind = "a sparse tensor";
            break;
        case 9:
            kind = "optional";
            break;
        default:
            continue;
        }
        return trm_fail(TRM_ERR_UNSUPPORTED, "value '%s' is %s; supported are dense tensors", name,
                        kind);
    }
}

trm_status trmi_value_info_parse(trmi_import *im, trmi_bytes message, const char **name_out,
                                 trm_tensor *desc_out, bool *have_type_out)
{
    trmi_pb r = trmi_pb_make(message, im->base, "ValueInfoProto");
    trm_tensor desc = {.rank = -1};
    const char *name = "";
    bool more;

    *have_type_out = false;
    for (;;) { /* the name first: messages about the type want it */
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 1)
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &name));
    }
    r = trmi_pb_make(message, im->base, "ValueInfoProto");
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field != 2)
            continue;
        TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
        TRM_CHECK(parse_type(im, &r, name, &desc));
        *have_type_out = desc.dtype != TRM_DTYPE_NONE;
    }
    *name_out = name;
    *desc_out = desc;
    return TRM_OK;
}
