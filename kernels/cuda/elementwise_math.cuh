/* The functions of elementwise operators: F is float or double, T an integer type. `fn` is a
 * constant where a kernel is instantiated for one function: the switch then disappears. */
#ifndef TRM_KERNELS_CUDA_ELEMENTWISE_MATH_CUH
#define TRM_KERNELS_CUDA_ELEMENTWISE_MATH_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/elementwise.h"

#include <math.h>
#include <type_traits>

/* NaN stays NaN wherever there is a comparison. */
template <class F> __device__ __forceinline__ F trm_clamp01(F x)
{
    return x < F(0) ? F(0) : x > F(1) ? F(1) : x;
}

template <class F> __device__ __forceinline__ F trm_mish(F x)
{
    /* x tanh(softplus(x)): with e = exp(x), tanh(log(1 + e)) = e(e + 2) / (e(e + 2) + 2) */
    const F e = exp(x > F(20) ? F(20) : x), n = e * (e + F(2));

    return x > F(20) ? x : x * (n / (n + F(2)));
}

template <class F> __device__ __forceinline__ F trm_unary_fn(int fn, F x, F a, F b)
{
    switch (fn) {
    case TRM_OP_Abs:
        return fabs(x);
    case TRM_OP_Acos:
        return acos(x);
    case TRM_OP_Acosh:
        return acosh(x);
    case TRM_OP_Asin:
        return asin(x);
    case TRM_OP_Asinh:
        return asinh(x);
    case TRM_OP_Atan:
        return atan(x);
    case TRM_OP_Atanh:
        return atanh(x);
    case TRM_OP_Ceil:
        return ceil(x);
    case TRM_OP_Celu:
        return x < F(0) ? a * expm1(x / a) : x;
    case TRM_OP_Cos:
        return cos(x);
    case TRM_OP_Cosh:
        return cosh(x);
    case TRM_OP_Elu:
        return x < F(0) ? a * expm1(x) : x;
    case TRM_OP_Erf:
        return erf(x);
    case TRM_OP_Exp:
        return exp(x);
    case TRM_OP_Floor:
        return floor(x);
    case TRM_OP_Gelu:
        return F(0.5) * x * (F(1) + erf(x * F(0.70710678118654752440)));
    case TRMI_FN_GELU_TANH:
        return F(0.5) * x *
               (F(1) + tanh(F(0.79788456080286535588) * (x + F(0.044715) * x * x * x)));
    case TRM_OP_HardSigmoid:
        return trm_clamp01(a * x + b);
    case TRM_OP_HardSwish:
        return x * trm_clamp01(a * x + b);
    case TRM_OP_LeakyRelu:
        return x < F(0) ? a * x : x;
    case TRM_OP_Log:
        return log(x);
    case TRM_OP_Mish:
        return trm_mish(x);
    case TRM_OP_Neg:
        return -x;
    case TRM_OP_Reciprocal:
        return F(1) / x;
    case TRM_OP_Relu:
        return x < F(0) ? F(0) : x;
    case TRM_OP_Round: /* half to even */
        return rint(x);
    case TRM_OP_Selu:
        return x <= F(0) ? b * (a * expm1(x)) : b * x;
    case TRM_OP_Shrink:
        return x < -a ? x + b : x > a ? x - b : F(0);
    case TRM_OP_Sigmoid:
        return F(1) / (F(1) + exp(-x));
    case TRM_OP_Sign:
        return x > F(0) ? F(1) : x < F(0) ? F(-1) : x;
    case TRM_OP_Sin:
        return sin(x);
    case TRM_OP_Sinh:
        return sinh(x);
    case TRM_OP_Softplus:
        return (x < F(0) ? F(0) : x) + log1p(exp(-fabs(x)));
    case TRM_OP_Softsign:
        return x / (F(1) + fabs(x));
    case TRM_OP_Sqrt:
        return sqrt(x);
    case TRM_OP_Swish:
        return x / (F(1) + exp(-a * x));
    case TRM_OP_Tan:
        return tan(x);
    case TRM_OP_Tanh:
        return tanh(x);
    case TRM_OP_ThresholdedRelu:
        return x > a ? x : F(0);
    case TRM_OP_TrmSilu:
        return x / (F(1) + exp(-x));
    default:
        return x;
    }
}

/* Remainder with the sign of the divisor, as Python's %: a zero has it too. */
template <class F> __device__ __forceinline__ F trm_floor_mod(F x, F y)
{
    const F r = fmod(x, y);

    if (r == F(0))
        return copysign(F(0), y);
    return (r < F(0)) != (y < F(0)) ? r + y : r;
}

template <class F> __device__ __forceinline__ F trm_binary_fn(int fn, F x, F y, F alpha)
{
    switch (fn) {
    case TRM_OP_Add:
    case TRM_OP_Sum:
        return x + y;
    case TRM_OP_Sub:
        return x - y;
    case TRM_OP_Mul:
        return x * y;
    case TRM_OP_Div:
        return x / y;
    case TRM_OP_Max: /* NaN wins */
        return x > y || x != x ? x : y;
    case TRM_OP_Min:
        return x < y || x != x ? x : y;
    case TRM_OP_PRelu:
        return x < F(0) ? x * y : x;
    case TRM_OP_Pow: /* mostly squares */
        return y == F(2) ? x * x : pow(x, y);
    case TRM_OP_Mod:
        return trm_floor_mod(x, y);
    case TRMI_FN_FMOD:
        return fmod(x, y);
    case TRM_OP_SwiGLU:
        return x / (F(1) + exp(-alpha * x)) * y;
    default:
        return x;
    }
}

template <class T> __device__ __forceinline__ bool trm_compare_fn(int fn, T x, T y)
{
    switch (fn) {
    case TRM_OP_Equal:
        return x == y;
    case TRM_OP_Greater:
        return x > y;
    case TRM_OP_GreaterOrEqual:
        return x >= y;
    case TRM_OP_Less:
        return x < y;
    default:
        return x <= y;
    }
}

/* ---- integers: arithmetic that may overflow is done in unsigned types ---- */
template <class T> __device__ __forceinline__ bool trm_negative(T x)
{
    if constexpr (std::is_signed<T>::value)
        return x < 0;
    else
        return false;
}

template <class T> __device__ __forceinline__ bool trm_minus_one(T x)
{
    if constexpr (std::is_signed<T>::value)
        return x == -1;
    else
        return false;
}

/* x^y by squaring, wrapping */
__device__ __forceinline__ uint64_t trm_power(uint64_t x, uint64_t y)
{
    uint64_t r = 1;

    for (; y != 0; y >>= 1, x *= x)
        if ((y & 1) != 0)
            r *= x;
    return r;
}

/* Negative exponents: only 1 and -1 have an integer answer. */
template <class T> __device__ __forceinline__ T trm_int_pow(T x, T y)
{
    if (trm_negative(y)) {
        const T one = x == T(1) ? T(1) : T(0);

        return trm_minus_one(x) ? static_cast<T>((y & 1) != 0 ? -1 : 1) : one;
    }
    return static_cast<T>(trm_power(static_cast<uint64_t>(x), static_cast<uint64_t>(y)));
}

template <class T> __device__ __forceinline__ T trm_int_mod(T x, T y, bool c_sign)
{
    if (y == 0 || trm_minus_one(y))
        return 0;
    const T r = static_cast<T>(x % y);
    const bool shift = !c_sign && r != 0 && trm_negative(x) != trm_negative(y);

    return shift ? static_cast<T>(r + y) : r;
}

template <class T> __device__ __forceinline__ T trm_int_shift(T x, T y, bool right)
{
    const bool out = trm_negative(y) || static_cast<uint64_t>(y) >= 8 * sizeof(T);

    if (right)
        return out ? static_cast<T>(trm_negative(x) ? -1 : 0) : static_cast<T>(x >> y);
    return out ? T(0) : static_cast<T>(static_cast<uint64_t>(x) << y);
}

template <class T> __device__ __forceinline__ T trm_int_binary_fn(int fn, T x, T y)
{
    using U = typename std::conditional<sizeof(T) == 8, uint64_t, uint32_t>::type;
    const U u = static_cast<U>(x), v = static_cast<U>(y);

    switch (fn) {
    case TRM_OP_Add:
    case TRM_OP_Sum:
        return static_cast<T>(u + v);
    case TRM_OP_Sub:
        return static_cast<T>(u - v);
    case TRM_OP_Mul:
        return static_cast<T>(u * v);
    case TRM_OP_Div: /* by zero: 0; the smallest value by -1 wraps */
        return y == 0 ? T(0) : trm_minus_one(y) ? static_cast<T>(0 - u) : static_cast<T>(x / y);
    case TRM_OP_Max:
        return x > y ? x : y;
    case TRM_OP_Min:
        return x < y ? x : y;
    case TRM_OP_Mod:
        return trm_int_mod(x, y, false);
    case TRMI_FN_FMOD:
        return trm_int_mod(x, y, true);
    case TRM_OP_Pow:
        return trm_int_pow(x, y);
    case TRM_OP_PRelu:
        return trm_negative(x) ? static_cast<T>(u * v) : x;
    case TRM_OP_BitwiseAnd:
        return static_cast<T>(x & y);
    case TRM_OP_BitwiseOr:
        return static_cast<T>(x | y);
    case TRM_OP_BitwiseXor:
        return static_cast<T>(x ^ y);
    case TRM_OP_BitShift:
        return trm_int_shift(x, y, false);
    case TRMI_FN_SHIFT_RIGHT:
        return trm_int_shift(x, y, true);
    case TRM_OP_And:
        return static_cast<T>(x != 0 && y != 0);
    case TRM_OP_Or:
        return static_cast<T>(x != 0 || y != 0);
    case TRM_OP_Xor:
        return static_cast<T>((x != 0) != (y != 0));
    default:
        return x;
    }
}

template <class T> __device__ __forceinline__ T trm_int_unary_fn(int fn, T x)
{
    using U = typename std::conditional<sizeof(T) == 8, uint64_t, uint32_t>::type;
    const U u = static_cast<U>(x);

    switch (fn) {
    case TRM_OP_Abs:
        return trm_negative(x) ? static_cast<T>(0 - u) : x;
    case TRM_OP_Neg:
        return static_cast<T>(0 - u);
    case TRM_OP_Sign:
        return static_cast<T>(x == 0 ? 0 : trm_negative(x) ? -1 : 1);
    case TRM_OP_Relu:
        return trm_negative(x) ? T(0) : x;
    case TRM_OP_BitwiseNot:
        return static_cast<T>(~x);
    case TRM_OP_Not:
        return static_cast<T>(x == 0);
    default:
        return x;
    }
}

#endif
