/* Rows over integers and booleans. All arithmetic that may overflow is done in unsigned types. */
#include "kernels/cpu/elementwise.h"

#define LOOP(type, xs, ys, expr)                                                                   \
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                            \
    {                                                                                              \
        const in_type x = (xs), y = (ys);                                                          \
        o[i] = (type)(expr);                                                                       \
    }
#define BINARY(name, T, O, expr)                                                                   \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        typedef T in_type;                                                                         \
        const T *l = in[0], *r = in[1], l0 = l[0], r0 = r[0];                                      \
        O *o = out;                                                                                \
        (void)p;                                                                                   \
        if (step[0] != 0 && step[1] != 0)                                                          \
            LOOP(O, l[i], r[i], expr)                                                              \
        else if (step[0] != 0)                                                                     \
            LOOP(O, l[i], r0, expr)                                                                \
        else if (step[1] != 0)                                                                     \
            LOOP(O, l0, r[i], expr)                                                                \
        else                                                                                       \
            LOOP(O, l0, r0, expr)                                                                  \
    }
#define UNARY(name, T, expr)                                                                       \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        const T *v = in[0];                                                                        \
        T *o = out;                                                                                \
        (void)p, (void)step;                                                                       \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            const T x = v[i];                                                                      \
            o[i] = (T)(expr);                                                                      \
        }                                                                                          \
    }

/* Division that never traps: by zero gives 0, the smallest value by -1 wraps. The `0 *` keeps the
 * comparison with -1 out of unsigned types. */
#define IS_MINUS_ONE_i(y) ((y) == -1)
#define IS_MINUS_ONE_u(y) false
#define NEGATIVE_i(x) ((x) < 0)
#define NEGATIVE_u(x) false

/* x^y by squaring, wrapping. Negative exponents: only 1 and -1 have an integer answer. */
static uint64_t power(uint64_t x, uint64_t y)
{
    uint64_t r = 1;

    for (; y != 0; y >>= 1, x *= x)
        if ((y & 1) != 0)
            r *= x;
    return r;
}

static int64_t signed_power(int64_t x, int64_t y)
{
    if (y < 0)
        return x == 1 ? 1 : x == -1 ? ((y & 1) != 0 ? -1 : 1) : 0;
    return (int64_t)power((uint64_t)x, (uint64_t)y);
}
#define POWER_i(x, y) signed_power((int64_t)(x), (int64_t)(y))
#define POWER_u(x, y) power((uint64_t)(x), (uint64_t)(y))

/* K: i or u. U: the unsigned type that arithmetic runs in, at least as wide as T. */
#define TYPE(t, K, T, U)                                                                           \
    BINARY(add_##t, T, T, (U)x + (U)y)                                                             \
    BINARY(sub_##t, T, T, (U)x - (U)y)                                                             \
    BINARY(mul_##t, T, T, (U)x *(U)y)                                                              \
    BINARY(div_##t, T, T, y == 0 ? 0 : IS_MINUS_ONE_##K(y) ? (T)(0 - (U)x) : x / y)                \
    BINARY(max_##t, T, T, x > y ? x : y)                                                           \
    BINARY(min_##t, T, T, x < y ? x : y)                                                           \
    BINARY(fmod_##t, T, T, y == 0 || IS_MINUS_ONE_##K(y) ? 0 : x % y)                              \
    BINARY(mod_##t, T, T,                                                                          \
           y == 0 || IS_MINUS_ONE_##K(y)                      ? 0                                  \
           : x % y != 0 && NEGATIVE_##K(x) != NEGATIVE_##K(y) ? x % y + y                          \
                                                              : x % y)                             \
    BINARY(pow_##t, T, T, POWER_##K(x, y))                                                         \
    BINARY(prelu_##t, T, T, NEGATIVE_##K(x) ? (U)x *(U)y : (U)x)                                   \
    BINARY(and_##t, T, T, x &y)                                                                    \
    BINARY(or_##t, T, T, x | y)                                                                    \
    BINARY(xor_##t, T, T, x ^ y)                                                                   \
    BINARY(equal_##t, T, uint8_t, x == y)                                                          \
    BINARY(greater_##t, T, uint8_t, x > y)                                                         \
    BINARY(greater_equal_##t, T, uint8_t, x >= y)                                                  \
    BINARY(less_##t, T, uint8_t, x < y)                                                            \
    BINARY(less_equal_##t, T, uint8_t, x <= y)                                                     \
    UNARY(abs_##t, T, NEGATIVE_##K(x) ? 0 - (U)x : (U)x)                                           \
    UNARY(neg_##t, T, 0 - (U)x)                                                                    \
    UNARY(sign_##t, T, x == 0 ? 0 : NEGATIVE_##K(x) ? -1 : 1)                                      \
    UNARY(relu_##t, T, NEGATIVE_##K(x) ? 0 : x)                                                    \
    UNARY(not_##t, T, ~x)                                                                          \
    static const trmi_row binary_##t[TRM_OP_COUNT] = {                                             \
        [TRM_OP_Add] = add_##t,      [TRM_OP_Sum] = add_##t,                                       \
        [TRM_OP_Sub] = sub_##t,      [TRM_OP_Mul] = mul_##t,                                       \
        [TRM_OP_Div] = div_##t,      [TRM_OP_Max] = max_##t,                                       \
        [TRM_OP_Min] = min_##t,      [TRM_OP_Pow] = pow_##t,                                       \
        [TRM_OP_PRelu] = prelu_##t,  [TRM_OP_BitwiseAnd] = and_##t,                                \
        [TRM_OP_BitwiseOr] = or_##t, [TRM_OP_BitwiseXor] = xor_##t,                                \
        [TRM_OP_Equal] = equal_##t,  [TRM_OP_Greater] = greater_##t,                               \
        [TRM_OP_Less] = less_##t,    [TRM_OP_GreaterOrEqual] = greater_equal_##t,                  \
        [TRM_OP_Mod] = mod_##t,      [TRM_OP_LessOrEqual] = less_equal_##t,                        \
    };                                                                                             \
    static const trmi_row unary_##t[TRM_OP_COUNT] = {                                              \
        [TRM_OP_Abs] = abs_##t,   [TRM_OP_Neg] = neg_##t,        [TRM_OP_Sign] = sign_##t,         \
        [TRM_OP_Relu] = relu_##t, [TRM_OP_BitwiseNot] = not_##t,                                   \
    };
/* Shifts by less than 0 or by the width or more leave what sign extension alone gives. */
#define SHIFTS(t, K, T, width)                                                                     \
    BINARY(shift_left_##t, T, T, NEGATIVE_##K(y) || y >= (width) ? 0 : (uint64_t)x << y)           \
    BINARY(shift_right_##t, T, T,                                                                  \
           NEGATIVE_##K(y) || y >= (width) ? (NEGATIVE_##K(x) ? -1 : 0) : x >> y)

TYPE(i8, i, int8_t, uint32_t)
TYPE(u8, u, uint8_t, uint32_t)
TYPE(i16, i, int16_t, uint32_t)
TYPE(u16, u, uint16_t, uint32_t)
TYPE(i32, i, int32_t, uint32_t)
TYPE(u32, u, uint32_t, uint32_t)
TYPE(i64, i, int64_t, uint64_t)
TYPE(u64, u, uint64_t, uint64_t)
SHIFTS(i8, i, int8_t, 8)
SHIFTS(u8, u, uint8_t, 8)
SHIFTS(i16, i, int16_t, 16)
SHIFTS(u16, u, uint16_t, 16)
SHIFTS(i32, i, int32_t, 32)
SHIFTS(u32, u, uint32_t, 32)
SHIFTS(i64, i, int64_t, 64)
SHIFTS(u64, u, uint64_t, 64)
BINARY(logical_and, uint8_t, uint8_t, x != 0 && y != 0)
BINARY(logical_or, uint8_t, uint8_t, x != 0 || y != 0)
BINARY(logical_xor, uint8_t, uint8_t, (x != 0) != (y != 0))
UNARY(logical_not, uint8_t, x == 0)

#define PICK(t)                                                                                    \
    if (op == TRM_OP_Mod && mode != 0)                                                             \
        return fmod_##t;                                                                           \
    if (op == TRM_OP_BitShift)                                                                     \
        return mode != 0 ? shift_right_##t : shift_left_##t;                                       \
    return binary_##t[op]

trmi_row trmi_row_int_binary(trm_op op, trm_dtype dtype, int mode)
{
    switch (dtype) {
    case TRM_DTYPE_I8:
        PICK(i8);
    case TRM_DTYPE_U8:
        PICK(u8);
    case TRM_DTYPE_I16:
        PICK(i16);
    case TRM_DTYPE_U16:
        PICK(u16);
    case TRM_DTYPE_I32:
        PICK(i32);
    case TRM_DTYPE_U32:
        PICK(u32);
    case TRM_DTYPE_I64:
        PICK(i64);
    case TRM_DTYPE_U64:
        PICK(u64);
    case TRM_DTYPE_BOOL:
        return op == TRM_OP_And     ? logical_and
               : op == TRM_OP_Or    ? logical_or
               : op == TRM_OP_Xor   ? logical_xor
               : op == TRM_OP_Equal ? equal_u8
                                    : NULL;
    default:
        return NULL;
    }
}

trmi_row trmi_row_int_unary(trm_op op, trm_dtype dtype)
{
    switch (dtype) {
    case TRM_DTYPE_I8:
        return unary_i8[op];
    case TRM_DTYPE_U8:
        return unary_u8[op];
    case TRM_DTYPE_I16:
        return unary_i16[op];
    case TRM_DTYPE_U16:
        return unary_u16[op];
    case TRM_DTYPE_I32:
        return unary_i32[op];
    case TRM_DTYPE_U32:
        return unary_u32[op];
    case TRM_DTYPE_I64:
        return unary_i64[op];
    case TRM_DTYPE_U64:
        return unary_u64[op];
    case TRM_DTYPE_BOOL:
        return op == TRM_OP_Not ? logical_not : NULL;
    default:
        return NULL;
    }
}

#define WHERE(name, T)                                                                             \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        const uint8_t *c = in[0];                                                                  \
        const T *x = in[1], *y = in[2];                                                            \
        T *o = out;                                                                                \
        (void)p;                                                                                   \
        if (step[0] == 0) {                                                                        \
            const T *v = c[0] != 0 ? x : y;                                                        \
            const size_t s = c[0] != 0 ? step[1] : step[2];                                        \
            for (size_t i = 0; i < n; i++)                                                         \
                o[i] = v[i * s];                                                                   \
        } else if (step[1] != 0 && step[2] != 0) {                                                 \
            _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                    \
            {                                                                                      \
                const T t = x[i], f = y[i];                                                        \
                o[i] = c[i] != 0 ? t : f;                                                          \
            }                                                                                      \
        } else {                                                                                   \
            for (size_t i = 0; i < n; i++)                                                         \
                o[i] = c[i] != 0 ? x[i * step[1]] : y[i * step[2]];                                \
        }                                                                                          \
    }
WHERE(where_8, uint8_t)
WHERE(where_16, uint16_t)
WHERE(where_32, uint32_t)
WHERE(where_64, uint64_t)

trmi_row trmi_row_where(size_t bytes)
{
    return bytes == 1 ? where_8 : bytes == 2 ? where_16 : bytes == 4 ? where_32 : where_64;
}

#define CLIP(t, T, lo, hi)                                                                         \
    static void clip_##t(const trmi_row_params *p, size_t n, void *out, const void *const *in,     \
                         const size_t *step)                                                       \
    {                                                                                              \
        const T *v = in[0], low = (T)p->lo, high = (T)p->hi;                                       \
        T *o = out;                                                                                \
        (void)step;                                                                                \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            const T x = v[i] < low ? low : v[i];                                                   \
            o[i] = x > high ? high : x;                                                            \
        }                                                                                          \
    }
CLIP(i8, int8_t, ilo, ihi)
CLIP(u8, uint8_t, ulo, uhi)
CLIP(i16, int16_t, ilo, ihi)
CLIP(u16, uint16_t, ulo, uhi)
CLIP(i32, int32_t, ilo, ihi)
CLIP(u32, uint32_t, ulo, uhi)
CLIP(i64, int64_t, ilo, ihi)
CLIP(u64, uint64_t, ulo, uhi)
CLIP(f64, double, lo, hi)

trmi_row trmi_row_clip(trm_dtype dtype)
{
    static const trmi_row rows[TRM_DTYPE_COUNT] = {
        [TRM_DTYPE_I8] = clip_i8,   [TRM_DTYPE_U8] = clip_u8,   [TRM_DTYPE_I16] = clip_i16,
        [TRM_DTYPE_U16] = clip_u16, [TRM_DTYPE_I32] = clip_i32, [TRM_DTYPE_U32] = clip_u32,
        [TRM_DTYPE_I64] = clip_i64, [TRM_DTYPE_U64] = clip_u64, [TRM_DTYPE_F64] = clip_f64,
    };

    return rows[dtype];
}
