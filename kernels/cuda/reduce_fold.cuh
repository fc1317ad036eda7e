/* What a reduction folds (reduce.h): states, how they take in an element, merge, and end as a value
 * of the output's dtype. Included by reduce.cuh. */
#ifndef TRM_KERNELS_CUDA_REDUCE_FOLD_CUH
#define TRM_KERNELS_CUDA_REDUCE_FOLD_CUH

#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/reduce.h"

namespace trmi_rows
{

constexpr int kAnyKind = -1;      /* a Fold whose kind is known at run time */
constexpr int kArg = 100;         /* ARGMAX and ARGMIN */
constexpr uint32_t kNone = ~0u;

struct FoldArgs {
    int kind, finish, out;
    bool last;
    uint32_t count;
    int64_t start; /* integers: value of an empty fold */
};

/* ---- storing a result in the output's dtype ---- */
__device__ __forceinline__ int64_t to_signed(double x, double lo, double hi, int64_t min,
                                             int64_t max)
{
    return x >= hi ? max : x <= lo ? min : x != x ? 0 : static_cast<int64_t>(x);
}
__device__ __forceinline__ uint64_t to_unsigned(double x, double hi, uint64_t max)
{
    return x >= hi ? max : x > 0 ? static_cast<uint64_t>(x) : 0;
}

__device__ __forceinline__ void put(void *out, int dtype, size_t i, float x)
{
    put_float(out, dtype, i, x);
}
template <class W> __device__ __forceinline__ void put_int(void *out, int dtype, size_t i, W x)
{
    switch (dtype) {
    case TRM_DTYPE_BOOL:
        static_cast<uint8_t *>(out)[i] = x != 0;
        break;
    case TRM_DTYPE_I8:
    case TRM_DTYPE_U8:
        static_cast<uint8_t *>(out)[i] = static_cast<uint8_t>(x);
        break;
    case TRM_DTYPE_I16:
    case TRM_DTYPE_U16:
        static_cast<uint16_t *>(out)[i] = static_cast<uint16_t>(x);
        break;
    case TRM_DTYPE_I32:
    case TRM_DTYPE_U32:
        static_cast<uint32_t *>(out)[i] = static_cast<uint32_t>(x);
        break;
    default:
        static_cast<uint64_t *>(out)[i] = static_cast<uint64_t>(x);
        break;
    }
}
__device__ __forceinline__ void put(void *out, int dtype, size_t i, int64_t x)
{
    put_int(out, dtype, i, x);
}
__device__ __forceinline__ void put(void *out, int dtype, size_t i, uint64_t x)
{
    put_int(out, dtype, i, x);
}
/* to integers: truncated and saturated, NaN is 0 */
__device__ __forceinline__ void put(void *out, int dtype, size_t i, double x)
{
    switch (dtype) {
    case TRM_DTYPE_F64:
    case TRM_DTYPE_F32:
    case TRM_DTYPE_F16:
    case TRM_DTYPE_BF16:
        put_float(out, dtype, i, x);
        break;
    case TRM_DTYPE_BOOL:
        put_int(out, dtype, i, static_cast<uint64_t>(x != 0));
        break;
    case TRM_DTYPE_I8:
        put_int(out, dtype, i, to_signed(x, -128.0, 127.0, -128, 127));
        break;
    case TRM_DTYPE_U8:
        put_int(out, dtype, i, to_unsigned(x, 255.0, 255));
        break;
    case TRM_DTYPE_I16:
        put_int(out, dtype, i, to_signed(x, -32768.0, 32767.0, -32768, 32767));
        break;
    case TRM_DTYPE_U16:
        put_int(out, dtype, i, to_unsigned(x, 65535.0, 65535));
        break;
    case TRM_DTYPE_I32:
        put_int(out, dtype, i, to_signed(x, -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX));
        break;
    case TRM_DTYPE_U32:
        put_int(out, dtype, i, to_unsigned(x, 4294967295.0, UINT32_MAX));
        break;
    case TRM_DTYPE_I64:
        put_int(out, dtype, i, to_signed(x, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX));
        break;
    default:
        put_int(out, dtype, i, to_unsigned(x, 0x1p64, UINT64_MAX));
        break;
    }
}

/* ---- finishing: mean, root, logarithm ---- */
template <class W> __device__ __forceinline__ W finished(const FoldArgs &a, W x)
{
    switch (a.finish) {
    case TRMI_REDUCE_MEAN:
        return x / static_cast<W>(a.count);
    case TRMI_REDUCE_SQRT:
        return sqrt_of(x);
    case TRMI_REDUCE_LOG:
        return log_of(x);
    default:
        return x;
    }
}
template <> __device__ __forceinline__ int64_t finished(const FoldArgs &a, int64_t x)
{
    return a.finish == TRMI_REDUCE_MEAN && a.count > 0 ? x / static_cast<int64_t>(a.count) : x;
}
template <> __device__ __forceinline__ uint64_t finished(const FoldArgs &a, uint64_t x)
{
    return a.finish == TRMI_REDUCE_MEAN && a.count > 0 ? x / a.count : x;
}

/* ---- folds ---- */
__device__ __forceinline__ float magnitude(float x)
{
    return fabsf(x);
}
__device__ __forceinline__ double magnitude(double x)
{
    return fabs(x);
}
__device__ __forceinline__ int64_t magnitude(int64_t x)
{
    return static_cast<int64_t>(x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x));
}
__device__ __forceinline__ uint64_t magnitude(uint64_t x)
{
    return x;
}
template <class W> struct Wrapping { /* the type in which sums and products of W wrap */
    using type = W;
};
template <> struct Wrapping<int64_t> {
    using type = uint64_t;
};

template <class W> __device__ __forceinline__ W start_of(const FoldArgs &, int kind)
{
    return kind == TRMI_REDUCE_MAX    ? minus_infinity<W>()
           : kind == TRMI_REDUCE_MIN  ? -minus_infinity<W>()
           : kind == TRMI_REDUCE_PROD ? static_cast<W>(1)
                                      : static_cast<W>(0);
}
template <> __device__ __forceinline__ int64_t start_of(const FoldArgs &a, int)
{
    return a.start;
}
template <> __device__ __forceinline__ uint64_t start_of(const FoldArgs &a, int)
{
    return static_cast<uint64_t>(a.start);
}

template <class W, int K> struct Fold {
    using State = W;
    using U = typename Wrapping<W>::type;
    FoldArgs a;

    __device__ __forceinline__ int kind() const
    {
        return K == kAnyKind ? a.kind : K;
    }
    __device__ __forceinline__ State start() const
    {
        return start_of<W>(a, kind());
    }
    __device__ __forceinline__ void merge(State &s, State x) const
    {
        switch (kind()) {
        case TRMI_REDUCE_MAX:
            s = x > s || x != x ? x : s;
            break;
        case TRMI_REDUCE_MIN:
            s = x < s || x != x ? x : s;
            break;
        case TRMI_REDUCE_PROD:
            s = static_cast<W>(static_cast<U>(s) * static_cast<U>(x));
            break;
        default:
            s = static_cast<W>(static_cast<U>(s) + static_cast<U>(x));
            break;
        }
    }
    __device__ __forceinline__ void take(State &s, W x, uint32_t) const
    {
        if (kind() == TRMI_REDUCE_ABS)
            x = magnitude(x);
        else if (kind() == TRMI_REDUCE_SQUARE)
            x = static_cast<W>(static_cast<U>(x) * static_cast<U>(x));
        merge(s, x);
    }
    __device__ __forceinline__ State from(State s, int d) const
    {
        return __shfl_xor_sync(kAll, s, d);
    }
    __device__ __forceinline__ void store(void *out, size_t i, State s) const
    {
        put(out, a.out, i, finished<W>(a, s));
    }
};

/* Sum of exp(x - m) beside the maximum m (Milakov and Gimelshein, arXiv:1805.02867). An infinite m
 * decides alone: 0 times infinity does not come up. */
template <class W> struct ExpState {
    W m, s;
};
template <class W> struct Fold<W, TRMI_REDUCE_EXP> {
    using State = ExpState<W>;
    FoldArgs a;

    __device__ __forceinline__ State start() const
    {
        return State{minus_infinity<W>(), 0};
    }
    __device__ __forceinline__ void take(State &s, W x, uint32_t) const
    {
        merge(s, State{x, 1});
    }
    __device__ __forceinline__ void merge(State &s, const State &o) const
    {
        const W inf = -minus_infinity<W>();

        if (o.m == -inf)
            return;
        if (s.m == -inf || o.m != o.m || o.m == inf) {
            if (s.m == s.m)
                s = o;
            return;
        }
        if (s.m == inf || s.m != s.m)
            return;
        if (o.m > s.m) {
            s.s = s.s * exp_of(s.m - o.m) + o.s;
            s.m = o.m;
        } else {
            s.s += o.s * exp_of(o.m - s.m);
        }
    }
    __device__ __forceinline__ State from(const State &s, int d) const
    {
        return State{__shfl_xor_sync(kAll, s.m, d), __shfl_xor_sync(kAll, s.s, d)};
    }
    __device__ __forceinline__ void store(void *out, size_t i, const State &s) const
    {
        put(out, a.out, i, s.m + log_of(s.s));
    }
};

template <class W> struct ArgState {
    W v;
    uint32_t at; /* kNone: nothing yet */
};
template <class W> struct Fold<W, kArg> {
    using State = ArgState<W>;
    FoldArgs a;

    __device__ __forceinline__ State start() const
    {
        return State{0, kNone};
    }
    __device__ __forceinline__ void take(State &s, W x, uint32_t at) const
    {
        merge(s, State{x, at});
    }
    __device__ __forceinline__ void merge(State &s, const State &o) const
    {
        const bool s_nan = s.v != s.v, o_nan = o.v != o.v;
        const bool equal = (s_nan && o_nan) || s.v == o.v;
        const bool beats =
            s_nan ? false : o_nan || (a.kind == TRMI_REDUCE_ARGMAX ? o.v > s.v : o.v < s.v);
        const bool at_beats = a.last ? o.at > s.at : o.at < s.at;

        if (o.at != kNone && (s.at == kNone || beats || (equal && at_beats)))
            s = o;
    }
    __device__ __forceinline__ State from(const State &s, int d) const
    {
        return State{__shfl_xor_sync(kAll, s.v, d), __shfl_xor_sync(kAll, s.at, d)};
    }
    __device__ __forceinline__ void store(void *out, size_t i, const State &s) const
    {
        static_cast<int64_t *>(out)[i] = s.at == kNone ? 0 : static_cast<int64_t>(s.at);
    }
};

/* Count, mean and sum of squared deviations (Welford; merged as Chan, Golub and LeVeque, 1983). */
struct MomentState {
    double n, mean, squares;
};
template <> struct Fold<double, TRMI_REDUCE_MOMENTS> {
    using State = MomentState;
    FoldArgs a;

    __device__ __forceinline__ State start() const
    {
        return State{0, 0, 0};
    }
    __device__ __forceinline__ void take(State &s, double x, uint32_t) const
    {
        const double d = x - s.mean;

        s.n += 1;
        s.mean += d / s.n;
        s.squares += d * (x - s.mean);
    }
    __device__ __forceinline__ void merge(State &s, const State &o) const
    {
        const double n = s.n + o.n, d = o.mean - s.mean;

        if (o.n == 0)
            return;
        s.mean += d * (o.n / n);
        s.squares += o.squares + d * d * (s.n * o.n / n);
        s.n = n;
    }
    __device__ __forceinline__ State from(const State &s, int d) const
    {
        return State{__shfl_xor_sync(kAll, s.n, d), __shfl_xor_sync(kAll, s.mean, d),
                     __shfl_xor_sync(kAll, s.squares, d)};
    }
    __device__ __forceinline__ void store(void *out, size_t i, const State &s) const
    {
        static_cast<double *>(out)[2 * i] = s.mean;
        static_cast<double *>(out)[2 * i + 1] = s.squares / s.n;
    }
};

} // namespace trmi_rows

#endif
