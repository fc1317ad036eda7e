/* Elementwise operators, one line of mathematics each. */
#include "kernels/reference/elementwise.h"

#include <math.h>

/* NaN in x stays NaN, as in NumPy */
static double fmax_keep(double x, double limit)
{
    return x < limit ? limit : x;
}

static double fmin_keep(double x, double limit)
{
    return x > limit ? limit : x;
}

/* remainder with the sign of the divisor, as Python's %: a zero has it too */
static double floor_mod(double x, double y)
{
    double r = fmod(x, y);

    if (r == 0)
        return copysign(0, y);
    return (r < 0) != (y < 0) ? r + y : r;
}

#define UNARY(name, expr)                                                                          \
    static double name(double x, double a, double b, double c)                                     \
    {                                                                                              \
        (void)a, (void)b, (void)c;                                                                 \
        return (expr);                                                                             \
    }

UNARY(f_abs, fabs(x))
UNARY(f_acos, acos(x))
UNARY(f_acosh, acosh(x))
UNARY(f_asin, asin(x))
UNARY(f_asinh, asinh(x))
UNARY(f_atan, atan(x))
UNARY(f_atanh, atanh(x))
UNARY(f_ceil, ceil(x))
UNARY(f_celu, x < 0 ? a * expm1(x / a) : x)
UNARY(f_clip, fmin_keep(fmax_keep(x, a), b))
UNARY(f_cos, cos(x))
UNARY(f_cosh, cosh(x))
UNARY(f_elu, x < 0 ? a * expm1(x) : x)
UNARY(f_erf, erf(x))
UNARY(f_exp, exp(x))
UNARY(f_floor, floor(x))
UNARY(f_gelu, 0.5 * x * (1 + erf(x * 0.70710678118654752440)))
UNARY(f_gelu_tanh, 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))))
UNARY(f_hard_sigmoid, fmax_keep(fmin_keep(a *x + b, 1), 0))
UNARY(f_hard_swish, x *fmax_keep(fmin_keep(a *x + b, 1), 0))
UNARY(f_leaky_relu, x < 0 ? a * x : x)
UNARY(f_log, log(x))
UNARY(f_mish, x > 50 ? x : x * tanh(log1p(exp(x))))
UNARY(f_neg, -x)
UNARY(f_reciprocal, 1 / x)
UNARY(f_relu, x < 0 ? 0 : x)
UNARY(f_round, rint(x)) /* half to even */
UNARY(f_selu, x <= 0 ? b * (a * expm1(x)) : b * x)
UNARY(f_shrink, x < -a ? x + b : (x > a ? x - b : 0))
UNARY(f_sigmoid, 1 / (1 + exp(-x)))
UNARY(f_sign, x > 0 ? 1 : (x < 0 ? -1 : x))
UNARY(f_sin, sin(x))
UNARY(f_sinh, sinh(x))
UNARY(f_softplus, (x < 0 ? 0 : x) + log1p(exp(-fabs(x))))
UNARY(f_softsign, x / (1 + fabs(x)))
UNARY(f_sqrt, sqrt(x))
UNARY(f_swish, x / (1 + exp(-a * x)))
UNARY(f_silu, x / (1 + exp(-x)))
UNARY(f_tan, tan(x))
UNARY(f_tanh, tanh(x))
UNARY(f_thresholded_relu, x > a ? x : 0)

trm_reference_unary trm_reference_unary_get(trm_op op, bool gelu_tanh)
{
    switch (op) {
    case TRM_OP_Abs:
        return f_abs;
    case TRM_OP_Acos:
        return f_acos;
    case TRM_OP_Acosh:
        return f_acosh;
    case TRM_OP_Asin:
        return f_asin;
    case TRM_OP_Asinh:
        return f_asinh;
    case TRM_OP_Atan:
        return f_atan;
    case TRM_OP_Atanh:
        return f_atanh;
    case TRM_OP_Ceil:
        return f_ceil;
    case TRM_OP_Celu:
        return f_celu;
    case TRM_OP_Clip:
        return f_clip;
    case TRM_OP_Cos:
        return f_cos;
    case TRM_OP_Cosh:
        return f_cosh;
    case TRM_OP_Elu:
        return f_elu;
    case TRM_OP_Erf:
        return f_erf;
    case TRM_OP_Exp:
        return f_exp;
    case TRM_OP_Floor:
        return f_floor;
    case TRM_OP_Gelu:
        return gelu_tanh ? f_gelu_tanh : f_gelu;
    case TRM_OP_HardSigmoid:
        return f_hard_sigmoid;
    case TRM_OP_HardSwish:
        return f_hard_swish;
    case TRM_OP_LeakyRelu:
        return f_leaky_relu;
    case TRM_OP_Log:
        return f_log;
    case TRM_OP_Mish:
        return f_mish;
    case TRM_OP_Neg:
        return f_neg;
    case TRM_OP_Reciprocal:
        return f_reciprocal;
    case TRM_OP_Relu:
        return f_relu;
    case TRM_OP_Round:
        return f_round;
    case TRM_OP_Selu:
        return f_selu;
    case TRM_OP_Shrink:
        return f_shrink;
    case TRM_OP_Sigmoid:
        return f_sigmoid;
    case TRM_OP_Sign:
        return f_sign;
    case TRM_OP_Sin:
        return f_sin;
    case TRM_OP_Sinh:
        return f_sinh;
    case TRM_OP_Softplus:
        return f_softplus;
    case TRM_OP_Softsign:
        return f_softsign;
    case TRM_OP_Sqrt:
        return f_sqrt;
    case TRM_OP_Swish:
        return f_swish;
    case TRM_OP_Tan:
        return f_tan;
    case TRM_OP_Tanh:
        return f_tanh;
    case TRM_OP_ThresholdedRelu:
        return f_thresholded_relu;
    case TRM_OP_TrmSilu:
        return f_silu;
    default:
        return NULL;
    }
}

#define BINARY(name, expr)                                                                         \
    static double name(double x, double y)                                                         \
    {                                                                                              \
        return (expr);                                                                             \
    }

BINARY(g_add, x + y)
BINARY(g_sub, x - y)
BINARY(g_mul, x *y)
BINARY(g_div, x / y)
BINARY(g_max, x > y || x != x ? x : y)
BINARY(g_min, x < y || x != x ? x : y)
BINARY(g_prelu, x < 0 ? x * y : x)
BINARY(g_pow, pow(x, y))
BINARY(g_fmod, fmod(x, y))
BINARY(g_mod, floor_mod(x, y))
BINARY(g_equal, x == y)
BINARY(g_greater, x > y)
BINARY(g_greater_equal, x >= y)
BINARY(g_less, x < y)
BINARY(g_less_equal, x <= y)

trm_reference_binary trm_reference_binary_get(trm_op op, bool c_mod)
{
    switch (op) {
    case TRM_OP_Add:
    case TRM_OP_Sum:
    case TRM_OP_Mean: /* the division comes after all additions */
        return g_add;
    case TRM_OP_Sub:
        return g_sub;
    case TRM_OP_Mul:
        return g_mul;
    case TRM_OP_Div:
        return g_div;
    case TRM_OP_Max:
        return g_max;
    case TRM_OP_Min:
        return g_min;
    case TRM_OP_PRelu:
        return g_prelu;
    case TRM_OP_Pow:
        return g_pow;
    case TRM_OP_Mod:
        return c_mod ? g_fmod : g_mod;
    case TRM_OP_Equal:
        return g_equal;
    case TRM_OP_Greater:
        return g_greater;
    case TRM_OP_GreaterOrEqual:
        return g_greater_equal;
    case TRM_OP_Less:
        return g_less;
    case TRM_OP_LessOrEqual:
        return g_less_equal;
    default:
        return NULL;
    }
}
