/* dtypes, shapes, scalar conversions. */
#include "base/tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *alias, *alias2;
    size_t bytes;              /* of an element */
    size_t elems, block_bytes; /* of a block */
} dtypes[TRM_DTYPE_COUNT] = {
    [TRM_DTYPE_NONE] = {"none", "", "", 0, 0, 0},
    [TRM_DTYPE_F32] = {"f32", "fp32", "float32", 4, 1, 4},
    [TRM_DTYPE_F16] = {"f16", "fp16", "float16", 2, 1, 2},
    [TRM_DTYPE_BF16] = {"bf16", "bfloat16", "", 2, 1, 2},
    [TRM_DTYPE_F64] = {"f64", "fp64", "float64", 8, 1, 8},
    [TRM_DTYPE_I8] = {"i8", "int8", "", 1, 1, 1},
    [TRM_DTYPE_U8] = {"u8", "uint8", "", 1, 1, 1},
    [TRM_DTYPE_I16] = {"i16", "int16", "", 2, 1, 2},
    [TRM_DTYPE_U16] = {"u16", "uint16", "", 2, 1, 2},
    [TRM_DTYPE_I32] = {"i32", "int32", "", 4, 1, 4},
    [TRM_DTYPE_U32] = {"u32", "uint32", "", 4, 1, 4},
    [TRM_DTYPE_I64] = {"i64", "int64", "", 8, 1, 8},
    [TRM_DTYPE_U64] = {"u64", "uint64", "", 8, 1, 8},
    [TRM_DTYPE_BOOL] = {"bool", "boolean", "", 1, 1, 1},
    [TRM_DTYPE_Q4_0] = {"q4_0", "Q4_0", "", 0, 32, 18},
    [TRM_DTYPE_Q4_1] = {"q4_1", "Q4_1", "", 0, 32, 20},
    [TRM_DTYPE_Q5_0] = {"q5_0", "Q5_0", "", 0, 32, 22},
    [TRM_DTYPE_Q5_1] = {"q5_1", "Q5_1", "", 0, 32, 24},
    [TRM_DTYPE_Q8_0] = {"q8_0", "Q8_0", "", 0, 32, 34},
    [TRM_DTYPE_Q2_K] = {"q2_k", "Q2_K", "", 0, 256, 84},
    [TRM_DTYPE_Q3_K] = {"q3_k", "Q3_K", "", 0, 256, 110},
    [TRM_DTYPE_Q4_K] = {"q4_k", "Q4_K", "", 0, 256, 144},
    [TRM_DTYPE_Q5_K] = {"q5_k", "Q5_K", "", 0, 256, 176},
    [TRM_DTYPE_Q6_K] = {"q6_k", "Q6_K", "", 0, 256, 210},
    [TRM_DTYPE_F8_ROW] = {"f8_row", "", "", 0, 32, 36},
    [TRM_DTYPE_F8_128] = {"f8_128", "", "", 0, 128, 132},
};

size_t trm_dtype_bytes(trm_dtype dtype)
{
    return (unsigned)dtype < TRM_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

size_t trm_dtype_block_elems(trm_dtype dtype)
{
    return (unsigned)dtype < TRM_DTYPE_COUNT ? dtypes[dtype].elems : 0;
}

size_t trm_dtype_block_bytes(trm_dtype dtype)
{
    return (unsigned)dtype < TRM_DTYPE_COUNT ? dtypes[dtype].block_bytes : 0;
}

bool trm_dtype_is_block(trm_dtype dtype)
{
    return trm_dtype_block_elems(dtype) > 1;
}

const char *trm_dtype_name(trm_dtype dtype)
{
    return (unsigned)dtype < TRM_DTYPE_COUNT ? dtypes[dtype].name : "invalid";
}

trm_dtype trm_dtype_from_name(const char *name)
{
    for (int i = 1; i < TRM_DTYPE_COUNT; i++)
        if (strcmp(name, dtypes[i].name) == 0 || strcmp(name, dtypes[i].alias) == 0 ||
            strcmp(name, dtypes[i].alias2) == 0)
            return name[0] == '\0' ? TRM_DTYPE_NONE : (trm_dtype)i;
    return TRM_DTYPE_NONE;
}

bool trm_dtype_is_float(trm_dtype d)
{
    return d == TRM_DTYPE_F32 || d == TRM_DTYPE_F16 || d == TRM_DTYPE_BF16 || d == TRM_DTYPE_F64;
}

bool trm_dtype_is_signed_int(trm_dtype d)
{
    return d == TRM_DTYPE_I8 || d == TRM_DTYPE_I16 || d == TRM_DTYPE_I32 || d == TRM_DTYPE_I64;
}

bool trm_dtype_is_unsigned_int(trm_dtype d)
{
    return d == TRM_DTYPE_U8 || d == TRM_DTYPE_U16 || d == TRM_DTYPE_U32 || d == TRM_DTYPE_U64;
}

static trm_status count_elems(const trm_tensor *t, size_t block, size_t *elems_out)
{
    size_t total = 1;

    if (t->rank < 0 || t->rank > TRM_RANK_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "rank %d: want 0 to %d", t->rank, TRM_RANK_MAX);
    for (int i = 0; i < t->rank; i++) {
        size_t d = (size_t)t->dims[i];

        if (t->dims[i] < 0 || t->dims[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "dim %d is %" PRId64 ": want 0 to 2^40", i,
                            t->dims[i]);
        if (block > 1 && i == 1)
            d = trm_align_up(d, block);
        if (!trm_mul_ok(total, d, &total))
            return trm_fail(TRM_ERR_INVALID_ARG, "shape overflows at dim %d", i);
    }
    *elems_out = total;
    return TRM_OK;
}

trm_status trm_tensor_elems(const trm_tensor *t, size_t *elems_out)
{
    return count_elems(t, 1, elems_out);
}

trm_status trm_tensor_bytes(const trm_tensor *t, size_t *bytes_out)
{
    size_t block = t->layout == TRM_LAYOUT_BLOCK8 ? 8 : t->layout == TRM_LAYOUT_BLOCK16 ? 16 : 1;
    size_t elems = 0;

    TRM_CHECK(count_elems(t, block, &elems));
    if (trm_dtype_is_block(t->dtype)) {
        size_t in_block = trm_dtype_block_elems(t->dtype);

        if (t->rank == 0 || (size_t)t->dims[t->rank - 1] % in_block != 0)
            return trm_fail(
                TRM_ERR_INVALID_ARG, "%s: the last dim is %" PRId64 ": want blocks of %zu",
                trm_dtype_name(t->dtype), t->rank == 0 ? 1 : t->dims[t->rank - 1], in_block);
        elems /= in_block;
    }
    if (!trm_mul_ok(elems, trm_dtype_block_bytes(t->dtype), bytes_out))
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu elements of %s overflow", elems,
                        trm_dtype_name(t->dtype));
    return TRM_OK;
}

size_t trm_tensor_count(const trm_tensor *t, int from, int to)
{
    size_t n = 1;

    for (int i = from; i < to; i++)
        n *= (size_t)t->dims[i];
    return n;
}

bool trm_tensor_same_shape(const trm_tensor *a, const trm_tensor *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

bool trm_tensor_is_concrete(const trm_tensor *t)
{
    if (t->rank < 0)
        return false;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] < 0)
            return false;
    return true;
}

char *trm_tensor_shape_text(const trm_tensor *t, char *buf, size_t buf_bytes)
{
    size_t n = 0;

    if (t->rank < 0) {
        snprintf(buf, buf_bytes, "[unknown rank]");
        return buf;
    }
    n += (size_t)snprintf(buf, buf_bytes, "[");
    for (int i = 0; i < t->rank && n + 24 < buf_bytes; i++) {
        const char *comma = i > 0 ? ", " : "";

        if (t->dims[i] < 0)
            n += (size_t)snprintf(buf + n, buf_bytes - n, "%s?", comma);
        else
            n += (size_t)snprintf(buf + n, buf_bytes - n, "%s%" PRId64, comma, t->dims[i]);
    }
    snprintf(buf + n, buf_bytes - n, "]");
    return buf;
}

double trm_tensor_get_f64(const trm_tensor *t, size_t i)
{
    switch (t->dtype) {
    case TRM_DTYPE_F32:
        return (double)((const float *)t->data)[i];
    case TRM_DTYPE_F64:
        return ((const double *)t->data)[i];
    case TRM_DTYPE_F16:
        return (double)trm_f16_to_f32(((const uint16_t *)t->data)[i]);
    case TRM_DTYPE_BF16:
        return (double)trm_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case TRM_DTYPE_U64:
        return (double)((const uint64_t *)t->data)[i];
    default:
        return (double)trm_tensor_get_i64(t, i);
    }
}

int64_t trm_tensor_get_i64(const trm_tensor *t, size_t i)
{
    switch (t->dtype) {
    case TRM_DTYPE_I8:
        return ((const int8_t *)t->data)[i];
    case TRM_DTYPE_U8:
    case TRM_DTYPE_BOOL:
        return ((const uint8_t *)t->data)[i];
    case TRM_DTYPE_I16:
        return ((const int16_t *)t->data)[i];
    case TRM_DTYPE_U16:
        return ((const uint16_t *)t->data)[i];
    case TRM_DTYPE_I32:
        return ((const int32_t *)t->data)[i];
    case TRM_DTYPE_U32:
        return ((const uint32_t *)t->data)[i];
    case TRM_DTYPE_I64:
        return ((const int64_t *)t->data)[i];
    case TRM_DTYPE_U64:
        return (int64_t)((const uint64_t *)t->data)[i];
    case TRM_DTYPE_F32:
    case TRM_DTYPE_F16:
    case TRM_DTYPE_BF16:
    case TRM_DTYPE_F64: {
        double v = trm_tensor_get_f64(t, i);

        if (isnan(v))
            return 0;
        return v >= 9.2e18 ? INT64_MAX : v <= -9.2e18 ? INT64_MIN : (int64_t)v;
    }
    default:
        return 0;
    }
}

void trm_tensor_set_f64(trm_tensor *t, size_t i, double value)
{
    switch (t->dtype) {
    case TRM_DTYPE_F32:
        ((float *)t->data)[i] = (float)value;
        break;
    case TRM_DTYPE_F64:
        ((double *)t->data)[i] = value;
        break;
    case TRM_DTYPE_F16:
        ((uint16_t *)t->data)[i] = trm_f64_to_f16(value);
        break;
    case TRM_DTYPE_BF16:
        ((uint16_t *)t->data)[i] = trm_f32_to_bf16((float)value);
        break;
    default:
        trm_tensor_set_i64(t, i,
                           isnan(value)       ? 0
                           : value >= 9.2e18  ? INT64_MAX
                           : value <= -9.2e18 ? INT64_MIN
                                              : (int64_t)value);
    }
}

void trm_tensor_set_i64(trm_tensor *t, size_t i, int64_t value)
{
    switch (t->dtype) {
    case TRM_DTYPE_I8:
    case TRM_DTYPE_U8:
        ((uint8_t *)t->data)[i] = (uint8_t)value;
        break;
    case TRM_DTYPE_BOOL:
        ((uint8_t *)t->data)[i] = value != 0;
        break;
    case TRM_DTYPE_I16:
    case TRM_DTYPE_U16:
        ((uint16_t *)t->data)[i] = (uint16_t)value;
        break;
    case TRM_DTYPE_I32:
    case TRM_DTYPE_U32:
        ((uint32_t *)t->data)[i] = (uint32_t)value;
        break;
    case TRM_DTYPE_I64:
    case TRM_DTYPE_U64:
        ((int64_t *)t->data)[i] = value;
        break;
    default:
        trm_tensor_set_f64(t, i, (double)value);
    }
}

static uint32_t float_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static float bits_float(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

float trm_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t mantissa = h & 0x3ffu;

    if (exponent == 0x1f)
        return bits_float(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0)
        return bits_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
    return bits_float(sign |
                      float_bits((float)mantissa * 0x1p-24f)); /* zero and subnormals, exact */
}

uint16_t trm_f64_to_f16(double f)
{
    uint64_t u;
    uint16_t sign;
    double a, scaled, r;
    int e;

    memcpy(&u, &f, sizeof(u));
    sign = (uint16_t)((u >> 48) & 0x8000u);
    if (isnan(f))
        return (uint16_t)(sign | 0x7e00u);
    a = fabs(f);
    if (a >= 65520.0) /* halfway between the largest half and 2^16 rounds to even, that is, to
                         infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (a <
        0x1p-14) { /* subnormal: units of 2^-24; a carry into the exponent is the right answer */
        r = nearbyint(a * 0x1p24);
        return (uint16_t)(sign | (uint16_t)r);
    }
    scaled = frexp(a, &e);          /* a = scaled * 2^e, scaled in [0.5, 1) */
    r = nearbyint(scaled * 2048.0); /* 11 significant bits: 1024..2048 */
    return (uint16_t)(sign | (uint16_t)(((e + 13) << 10) + (int)r));
}

uint16_t trm_f32_to_f16(float f)
{
    return trm_f64_to_f16((double)f);
}

uint16_t trm_f32_to_bf16(float f)
{
    uint32_t u = float_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u); /* quiet NaN */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
