/* Rows over the scalar reference functions (doubles, and fp32 without a vector form), Pow, IsNaN,
 * IsInf. */
#include "kernels/cpu/elementwise.h"

#include "kernels/reference/elementwise.h"

#include <math.h>

/* A row is a function pointer without a closure, so there is one a function: generated here. */
#define UNARY_ROWS(op)                                                                             \
    static void op##_f64(const trmi_row_params *p, size_t n, void *out, const void *const *in,     \
                         const size_t *step)                                                       \
    {                                                                                              \
        const trm_reference_unary f = trm_reference_unary_get(TRM_OP_##op, p->mode != 0);          \
        const double *v = in[0];                                                                   \
        double *o = out;                                                                           \
        (void)step;                                                                                \
        for (size_t i = 0; i < n; i++)                                                             \
            o[i] = f(v[i], (double)p->alpha, (double)p->beta, (double)p->gamma);                   \
    }                                                                                              \
    static void op##_f32(const trmi_row_params *p, size_t n, void *out, const void *const *in,     \
                         const size_t *step)                                                       \
    {                                                                                              \
        const trm_reference_unary f = trm_reference_unary_get(TRM_OP_##op, p->mode != 0);          \
        const float *v = in[0];                                                                    \
        float *o = out;                                                                            \
        (void)step;                                                                                \
        for (size_t i = 0; i < n; i++)                                                             \
            o[i] = (float)f((double)v[i], (double)p->alpha, (double)p->beta, (double)p->gamma);    \
    }
/* it never comes to rest on this list */
/* clang-format off */
#define EACH_UNARY(X) \
    X(Abs) X(Acos) X(Acosh) X(Asin) X(Asinh) X(Atan) X(Atanh) X(Ceil) X(Celu) X(Cos) \
    X(Cosh) X(Elu) X(Erf) X(Exp) X(Floor) X(Gelu) X(HardSigmoid) X(HardSwish) X(LeakyRelu) \
    X(Log) X(Mish) X(Neg) X(Reciprocal) X(Relu) X(Round) X(Selu) X(Shrink) X(Sigmoid) \
    X(Sign) X(Sin) X(Sinh) X(Softplus) X(Softsign) X(Sqrt) X(Swish) X(Tan) X(Tanh) \
    X(ThresholdedRelu) X(TrmSilu)
/* clang-format on */
EACH_UNARY(UNARY_ROWS)

#define ENTRY(op) [TRM_OP_##op] = {op##_f32, op##_f64},
static const trmi_row unary_rows[TRM_OP_COUNT][2] = {EACH_UNARY(ENTRY)};

trmi_row trmi_row_reference_unary(trm_op op, trm_dtype dtype, bool gelu_tanh)
{
    (void)gelu_tanh; /* travels in the parameters' mode */
    return dtype == TRM_DTYPE_F32   ? unary_rows[op][0]
           : dtype == TRM_DTYPE_F64 ? unary_rows[op][1]
                                    : NULL;
}

#define BINARY_ROW(name, op, T, O)                                                                 \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        const trm_reference_binary f = trm_reference_binary_get(TRM_OP_##op, p->mode != 0);        \
        const T *l = in[0], *r = in[1];                                                            \
        O *o = out;                                                                                \
        for (size_t i = 0; i < n; i++)                                                             \
            o[i] = (O)f((double)l[i * step[0]], (double)r[i * step[1]]);                           \
    }
#define BINARY_ROWS(op)                                                                            \
    BINARY_ROW(op##_f32, op, float, float)                                                         \
    BINARY_ROW(op##_f64, op, double, double)
#define COMPARE_ROWS(op)                                                                           \
    BINARY_ROW(op##_f32, op, float, uint8_t)                                                       \
    BINARY_ROW(op##_f64, op, double, uint8_t)
#define EACH_BINARY(X) X(Add) X(Sum) X(Mean) X(Sub) X(Mul) X(Div) X(Max) X(Min) X(PRelu) X(Mod)
#define EACH_COMPARE(X) X(Equal) X(Greater) X(GreaterOrEqual) X(Less) X(LessOrEqual)
EACH_BINARY(BINARY_ROWS)
EACH_COMPARE(COMPARE_ROWS)
BINARY_ROW(Pow_f64, Pow, double, double)

/* Powers by a single exponent are mostly squares and roots. */
static void Pow_f32(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                    const size_t *step)
{
    const float *l = in[0], *r = in[1], e = r[0];
    float *o = out;

    (void)p;
    if (step[1] == 0 && e == 2.0f) {
        for (size_t i = 0; i < n; i++)
            o[i] = l[i * step[0]] * l[i * step[0]];
    } else if (step[1] == 0 && e == 3.0f) {
        for (size_t i = 0; i < n; i++)
            o[i] = l[i * step[0]] * l[i * step[0]] * l[i * step[0]];
    } else {
        for (size_t i = 0; i < n; i++)
            o[i] = powf(l[i * step[0]], r[i * step[1]]);
    }
}

static const trmi_row binary_rows[TRM_OP_COUNT][2] = {EACH_BINARY(ENTRY) EACH_COMPARE(ENTRY)
                                                          ENTRY(Pow)};

trmi_row trmi_row_reference_binary(trm_op op, trm_dtype dtype, int mode)
{
    (void)mode; /* travels in the parameters */
    return dtype == TRM_DTYPE_F32   ? binary_rows[op][0]
           : dtype == TRM_DTYPE_F64 ? binary_rows[op][1]
                                    : NULL;
}

#define CLASSIFY(name, T)                                                                          \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        const T *v = in[0];                                                                        \
        uint8_t *o = out;                                                                          \
        (void)step;                                                                                \
        if (p->mode == 0) {                                                                        \
            for (size_t i = 0; i < n; i++)                                                         \
                o[i] = v[i] != v[i];                                                               \
        } else {                                                                                   \
            const T low = (p->mode & 2) != 0 ? (T)-INFINITY : (T)NAN;                              \
            const T high = (p->mode & 4) != 0 ? (T)INFINITY : (T)NAN;                              \
            for (size_t i = 0; i < n; i++)                                                         \
                o[i] = v[i] == low || v[i] == high;                                                \
        }                                                                                          \
    }
CLASSIFY(classify_f32, float)
CLASSIFY(classify_f64, double)

trmi_row trmi_row_classify(trm_dtype dtype)
{
    return dtype == TRM_DTYPE_F32 ? classify_f32 : dtype == TRM_DTYPE_F64 ? classify_f64 : NULL;
}
