/* TensorProto: dtype, dims and where the elements are. raw_data and packed float fields are the
 * elements as they lie in memory (the format is little-endian, as every machine we run on); other
 * typed fields are decoded. */
#include "model/onnx/onnx_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "weights are used as they lie in the file");

enum { FLOAT_DATA = 4, INT32_DATA = 5, STRING_DATA = 6, INT64_DATA = 7, RAW_DATA = 9 };
enum { DOUBLE_DATA = 10, UINT64_DATA = 11, EXTERNAL_DATA = 13, DATA_LOCATION = 14 };

static const char *type_name(int64_t number)
{
    static const char *const names[] = {
        "undefined",      "float",    "uint8",        "int8",           "uint16",
        "int16",          "int32",    "int64",        "string",         "bool",
        "float16",        "double",   "uint32",       "uint64",         "complex64",
        "complex128",     "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2",
        "float8e5m2fnuz", "uint4",    "int4",         "float4e2m1",     "float8e8m0",
        "uint2",          "int2"};

    return number < 0 || number >= (int64_t)(sizeof(names) / sizeof(names[0])) ? "unknown"
                                                                               : names[number];
}

trm_status trmi_dtype_parse(int64_t number, const char *what, const char *name,
                            trm_dtype *dtype_out)
{
    *dtype_out = trm_dtype_from_onnx(number);
    if (*dtype_out != TRM_DTYPE_NONE)
        return TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "%s '%s' has dtype %s (%" PRId64 "); supported are float, float16, bfloat16, "
                    "double, bool and (u)int8 to (u)int64",
                    what, name, type_name(number), number);
}

/* The typed field that holds a dtype's elements, and how one element travels. */
static uint32_t typed_field(trm_dtype dtype, int *wire_out)
{
    *wire_out = TRMI_PB_VARINT;
    switch (dtype) {
    case TRM_DTYPE_F32:
        *wire_out = TRMI_PB_FIXED32;
        return FLOAT_DATA;
    case TRM_DTYPE_F64:
        *wire_out = TRMI_PB_FIXED64;
        return DOUBLE_DATA;
    case TRM_DTYPE_I64:
        return INT64_DATA;
    case TRM_DTYPE_U32:
    case TRM_DTYPE_U64:
        return UINT64_DATA;
    default:
        return INT32_DATA;
    }
}

static trm_status parse_dims(const trmi_pb *r, trmi_onnx_tensor *t, const char *name)
{
    uint64_t dims[TRM_RANK_MAX];
    size_t count;

    TRM_CHECK(trmi_pb_count(r, TRMI_PB_VARINT, &count));
    if (count > (size_t)(TRM_RANK_MAX - t->desc.rank))
        return trm_fail(TRM_ERR_UNSUPPORTED, "tensor '%s' has more than %d dims", name,
                        TRM_RANK_MAX);
    TRM_CHECK(trmi_pb_take(r, TRMI_PB_VARINT, dims, count));
    for (size_t i = 0; i < count; i++)
        t->desc.dims[t->desc.rank++] = (int64_t)dims[i];
    return TRM_OK;
}

static trm_status parse_uint(const char *text, const char *key, const char *name, int64_t *out)
{
    int64_t v = 0;

    for (const char *p = text; *p != '\0' || p == text; p++)
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, *p - '0', &v))
            return trm_fail(TRM_ERR_BAD_FILE,
                            "tensor '%s': external data has %s '%s', want a byte count", name, key,
                            text);
    *out = v;
    return TRM_OK;
}

static trm_status parse_external(const trmi_pb *r, trm_arena *arena, trmi_onnx_tensor *t)
{
    trmi_pb e = trmi_pb_make(r->bytes, r->base, "StringStringEntryProto");
    const char *key = "", *value = "";
    int64_t number = 0;
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&e, &more));
        if (!more)
            break;
        if (e.field == 1)
            TRM_CHECK(trmi_pb_string(&e, arena, &key));
        else if (e.field == 2)
            TRM_CHECK(trmi_pb_string(&e, arena, &value));
    }
    if (strcmp(key, "location") == 0) {
        t->location = value;
    } else if (strcmp(key, "offset") == 0) {
        TRM_CHECK(parse_uint(value, key, t->name, &number));
        t->offset = (uint64_t)number;
    } else if (strcmp(key, "length") == 0) {
        TRM_CHECK(parse_uint(value, key, t->name, &t->length));
    }
    return TRM_OK;
}

/* Name, dtype and dims come first, since every later message names the tensor. */
static trm_status parse_head(trmi_onnx_tensor *t, trm_arena *arena, const char *context)
{
    trmi_pb r = trmi_pb_make(t->message, t->base, "TensorProto");
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 8)
            TRM_CHECK(trmi_pb_string(&r, arena, &t->name));
        else if (r.field == 2)
            TRM_CHECK(trmi_pb_int(&r, &t->data_type));
        else if (r.field == 1)
            TRM_CHECK(parse_dims(&r, t, t->name[0] != '\0' ? t->name : context));
    }
    if (t->name[0] == '\0')
        t->name = context;
    return TRM_OK;
}

static trm_status parse_body(trmi_onnx_tensor *t, trm_arena *arena, size_t *typed_elems_out)
{
    trmi_pb r = trmi_pb_make(t->message, t->base, "TensorProto");
    size_t typed_elems = 0, count;
    uint32_t field;
    int64_t location;
    int wire;
    bool more;

    field = typed_field(t->desc.dtype, &wire);
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        switch (r.field) {
        case RAW_DATA:
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            t->plain = r.bytes;
            break;
        case EXTERNAL_DATA:
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            TRM_CHECK(parse_external(&r, arena, t));
            break;
        case DATA_LOCATION:
            TRM_CHECK(trmi_pb_int(&r, &location));
            t->external = location == 1;
            break;
        case 3:
            return trm_fail(TRM_ERR_UNSUPPORTED, "tensor '%s' is stored in segments", t->name);
        case FLOAT_DATA:
        case INT32_DATA:
        case INT64_DATA:
        case DOUBLE_DATA:
        case UINT64_DATA:
            if (r.field != field)
                break; /* empty lists of other types may be there */
            TRM_CHECK(trmi_pb_count(&r, wire, &count));
            if (!trm_add_ok(typed_elems, count, &typed_elems))
                return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s': too many elements", t->name);
            if (wire != TRMI_PB_VARINT && r.wire == TRMI_PB_BYTES && count == t->elems &&
                typed_elems == count)
                t->plain = r.bytes; /* one packed block of fixed-width elements is plain memory */
            break;
        default:
            break;
        }
    }
    *typed_elems_out = typed_elems;
    return TRM_OK;
}

trm_status trmi_tensor_parse(trmi_bytes message, const unsigned char *base, trm_arena *arena,
                             const char *context, trmi_onnx_tensor *t)
{
    size_t typed_elems = 0;
    char shape[TRM_SHAPE_TEXT_BYTES];

    memset(t, 0, sizeof(*t));
    t->name = "";
    t->length = -1;
    t->message = message;
    t->base = base;
    TRM_CHECK(parse_head(t, arena, context));
    TRM_CHECK(trmi_dtype_parse(t->data_type, "tensor", t->name, &t->desc.dtype));
    if (trm_tensor_elems(&t->desc, &t->elems) != TRM_OK ||
        trm_tensor_bytes(&t->desc, &t->bytes) != TRM_OK)
        return trm_fail_context(TRM_ERR_BAD_FILE, "tensor '%s'", t->name);
    TRM_CHECK(parse_body(t, arena, &typed_elems));
    if (t->external) {
        if (t->location == NULL || t->location[0] == '\0')
            return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s': external data without a location",
                            t->name);
        return TRM_OK;
    }
    trm_tensor_shape_text(&t->desc, shape, sizeof(shape));
    if (t->plain.data != NULL && typed_elems == 0 && t->plain.bytes != t->bytes)
        return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s' %s %s wants %zu bytes, raw_data has %zu",
                        t->name, trm_dtype_name(t->desc.dtype), shape, t->bytes, t->plain.bytes);
    if (t->plain.data != NULL && typed_elems != 0 && t->plain.bytes != t->bytes)
        t->plain.data = NULL;
    if (t->plain.data == NULL && typed_elems != t->elems)
        return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s' %s %s wants %zu elements, the file has %zu",
                        t->name, trm_dtype_name(t->desc.dtype), shape, t->elems, typed_elems);
    return TRM_OK;
}

static void store(void *out, trm_dtype dtype, size_t i, uint64_t v)
{
    switch (trm_dtype_bytes(dtype)) {
    case 1:
        ((uint8_t *)out)[i] = dtype == TRM_DTYPE_BOOL ? v != 0 : (uint8_t)v;
        break;
    case 2:
        ((uint16_t *)out)[i] = (uint16_t)v;
        break;
    case 4:
        ((uint32_t *)out)[i] = (uint32_t)v;
        break;
    default:
        ((uint64_t *)out)[i] = v;
        break;
    }
}

static trm_status decode_field(const trmi_onnx_tensor *t, const trmi_pb *r, int wire, void *out,
                               size_t *at)
{
    uint64_t *numbers;
    size_t count;
    trm_status st;

    TRM_CHECK(trmi_pb_count(r, wire, &count));
    if (count > t->elems - *at)
        return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s': more than %zu elements", t->name, t->elems);
    numbers = (uint64_t *)trm_malloc(count, sizeof(uint64_t));
    if (numbers == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tensor '%s': %zu elements", t->name, count);
    TRM_TRY(st, trmi_pb_take(r, wire, numbers, count), done);
    for (size_t i = 0; i < count; i++)
        store(out, t->desc.dtype, *at + i, numbers[i]);
    *at += count;
done:
    trm_free(numbers);
    return st;
}

trm_status trmi_tensor_decode(const trmi_onnx_tensor *t, void *out)
{
    trmi_pb r = trmi_pb_make(t->message, t->base, "TensorProto");
    size_t at = 0;
    uint32_t field;
    int wire;
    bool more;

    if (t->plain.data != NULL) {
        if (t->bytes > 0)
            memcpy(out, t->plain.data, t->bytes);
        if (t->desc.dtype == TRM_DTYPE_BOOL)
            for (size_t i = 0; i < t->elems; i++)
                ((uint8_t *)out)[i] = ((uint8_t *)out)[i] != 0;
        return TRM_OK;
    }
    field = typed_field(t->desc.dtype, &wire);
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == field)
            TRM_CHECK(decode_field(t, &r, wire, out, &at));
    }
    return TRM_OK;
}

trm_status trm_onnx_read_tensor(const void *data, size_t bytes, trm_arena *arena,
                                trm_tensor *tensor_out, const char **name_out)
{
    trmi_bytes message = {.data = (const unsigned char *)data, .bytes = bytes};
    trmi_onnx_tensor t;
    void *out;

    TRM_CHECK(trmi_tensor_parse(message, message.data, arena, "", &t));
    if (t.external)
        return trm_fail(TRM_ERR_UNSUPPORTED, "tensor '%s' lies in external data", t.name);
    out = trm_arena_alloc_aligned(arena, t.bytes == 0 ? 1 : t.bytes);
    if (out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tensor '%s', %zu bytes", t.name, t.bytes);
    TRM_CHECK(trmi_tensor_decode(&t, out));
    *tensor_out = t.desc;
    tensor_out->data = out;
    if (name_out != NULL)
        *name_out = t.name;
    return TRM_OK;
}
