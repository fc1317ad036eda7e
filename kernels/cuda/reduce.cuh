/* The fold engine of reduce.h as templates: what is folded (Fold), where it is read (FloatIn,
 * IntIn), and the three kernels. Included by the reduce_<dtype>.cu files. */
#ifndef TRM_KERNELS_CUDA_REDUCE_CUH
#define TRM_KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/reduce.h"

namespace trmi_rows
{

constexpr int kThreads = 256;
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
__device__ __forceinline__ int64_t to_signed(double x, double lo, double hi, int64_t min, int64_t max)
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

/* ---- inputs ---- */
template <class T, class W, int V> struct FloatIn {
    using Value = W;
    static constexpr int kVector = V;
    const T *__restrict__ p;

    __device__ __forceinline__ W at(size_t i) const
    {
        return static_cast<W>(trm_up(p[i]));
    }
    __device__ __forceinline__ void pack(size_t i, W (&x)[V]) const
    {
        const Pack<T, V> from = *reinterpret_cast<const Pack<T, V> *>(p + i);

#pragma unroll
        for (int j = 0; j < V; j++)
            x[j] = static_cast<W>(trm_up(from.v[j]));
    }
};

/* Integers of any dtype: reductions of them are rare and short. */
template <class W> struct IntIn {
    using Value = W;
    static constexpr int kVector = 1;
    const void *__restrict__ p;
    int dtype;

    __device__ __forceinline__ W at(size_t i) const
    {
        switch (dtype) {
        case TRM_DTYPE_I8:
            return static_cast<W>(static_cast<const int8_t *>(p)[i]);
        case TRM_DTYPE_U8:
        case TRM_DTYPE_BOOL:
            return static_cast<W>(static_cast<const uint8_t *>(p)[i]);
        case TRM_DTYPE_I16:
            return static_cast<W>(static_cast<const int16_t *>(p)[i]);
        case TRM_DTYPE_U16:
            return static_cast<W>(static_cast<const uint16_t *>(p)[i]);
        case TRM_DTYPE_I32:
            return static_cast<W>(static_cast<const int32_t *>(p)[i]);
        case TRM_DTYPE_U32:
            return static_cast<W>(static_cast<const uint32_t *>(p)[i]);
        case TRM_DTYPE_I64:
            return static_cast<W>(static_cast<const int64_t *>(p)[i]);
        default:
            return static_cast<W>(static_cast<const uint64_t *>(p)[i]);
        }
    }
    __device__ __forceinline__ void pack(size_t i, W (&x)[1]) const
    {
        x[0] = at(i);
    }
};

/* ---- kernels ---- */
struct Shape {
    int kept, reduced;
    Div kept_dims[TRM_RANK_MAX], reduced_dims[TRM_RANK_MAX], inner;
    size_t kept_strides[TRM_RANK_MAX], reduced_strides[TRM_RANK_MAX];
    uint32_t outer, rows, count;
    uint32_t column_blocks, x, y; /* columns */
    uint32_t lanes;               /* rows */
    uint32_t part;                /* units of work of a split */
    size_t outputs;
    bool packs;
};

__device__ __forceinline__ size_t offset_of(uint32_t index, int groups, const Div *dims,
                                            const size_t *strides)
{
    size_t at = 0;

    for (int g = groups - 1; g > 0; g--) {
        const uint32_t q = quotient(dims[g], index);

        at += (index - q * dims[g].d) * strides[g];
        index = q;
    }
    return groups > 0 ? at + index * strides[0] : at;
}

/* Where element `e` of an output's row group lies, from the output's first. */
__device__ __forceinline__ size_t row_offset(const Shape &s, uint32_t e)
{
    if (s.rows == 1)
        return e;
    const uint32_t r = quotient(s.inner, e);

    return offset_of(r, s.reduced, s.reduced_dims, s.reduced_strides) + (e - r * s.inner.d);
}

template <class In, class F>
__global__ void __launch_bounds__(kThreads)
    fold_rows(In in, F f, Shape s, void *__restrict__ out, typename F::State *__restrict__ partial)
{
    using State = typename F::State;
    using W = typename In::Value;
    constexpr int V = In::kVector, kSlots = V < 4 ? 4 : V; /* partial results of a thread */
    __shared__ State shared[kThreads / 32];
    const bool block = s.lanes > 32;
    const uint32_t row =
        block ? blockIdx.x : blockIdx.x * (kThreads / s.lanes) + threadIdx.x / s.lanes;
    const uint32_t lane = block ? threadIdx.x : threadIdx.x % s.lanes, step = s.lanes;
    const uint32_t units = s.packs ? s.count / V : s.count, begin = blockIdx.y * s.part;
    const uint32_t end = row >= s.outer ? 0 : begin + s.part < units ? begin + s.part : units;
    State acc[kSlots];

    TRM_KERNEL_BEGIN();
#pragma unroll
    for (int j = 0; j < kSlots; j++)
        acc[j] = f.start();
    if (begin < end) {
        const size_t base = offset_of(row, s.kept, s.kept_dims, s.kept_strides);

        if (s.packs) {
#pragma unroll 4
            for (uint32_t u = begin + lane; u < end; u += step) {
                W x[V];

                in.pack(base + row_offset(s, u * V), x);
#pragma unroll
                for (int j = 0; j < V; j++)
                    f.take(acc[j], x[j], u * V + j);
            }
        } else {
            for (uint32_t u = begin + lane; u < end; u += kSlots * step) {
#pragma unroll
                for (int j = 0; j < kSlots; j++) {
                    const uint32_t e = u + j * step;

                    if (e < end)
                        f.take(acc[j], in.at(base + row_offset(s, e)), e);
                }
            }
        }
    }
#pragma unroll
    for (int h = kSlots / 2; h > 0; h /= 2)
#pragma unroll
        for (int j = 0; j < h; j++)
            f.merge(acc[j], acc[j + h]);
    for (uint32_t d = block ? 16 : s.lanes / 2; d > 0; d /= 2)
        f.merge(acc[0], f.from(acc[0], static_cast<int>(d)));
    if (block) {
        if (threadIdx.x % 32 == 0)
            shared[threadIdx.x / 32] = acc[0];
        __syncthreads();
        for (int i = 1; i < kThreads / 32 && threadIdx.x == 0; i++)
            f.merge(acc[0], shared[i]);
    }
    if (lane != 0 || row >= s.outer)
        return;
    if (partial != nullptr)
        partial[blockIdx.y * s.outputs + row] = acc[0];
    else
        f.store(out, row, acc[0]);
}

template <int V, class In, class F>
__device__ __forceinline__ void fold_columns_of(const In &in, const F &f, const Shape &s, void *out,
                                                typename F::State *partial,
                                                typename F::State *shared)
{
    using State = typename F::State;
    using W = typename In::Value;
    const uint32_t o = blockIdx.x / s.column_blocks, tx = threadIdx.x % s.x, ty = threadIdx.x / s.x;
    const uint32_t column = (blockIdx.x - o * s.column_blocks) * s.x * V + tx * V;
    const uint32_t begin = blockIdx.y * s.part;
    const uint32_t end = column >= s.inner.d          ? 0
                         : begin + s.part < s.rows ? begin + s.part
                                                   : s.rows;
    State acc[V];

#pragma unroll
    for (int j = 0; j < V; j++)
        acc[j] = f.start();
    if (begin < end) {
        const size_t base = offset_of(o, s.kept, s.kept_dims, s.kept_strides) + column;

#pragma unroll 4
        for (uint32_t r = begin + ty; r < end; r += s.y) {
            const size_t at = base + offset_of(r, s.reduced, s.reduced_dims, s.reduced_strides);
            W x[V];

            if (V == 1)
                x[0] = in.at(at);
            else if constexpr (V == In::kVector)
                in.pack(at, x);
#pragma unroll
            for (int j = 0; j < V; j++)
                f.take(acc[j], x[j], r);
        }
    }
    if (s.y > 1) {
#pragma unroll
        for (int j = 0; j < V; j++)
            shared[j * kThreads + threadIdx.x] = acc[j];
        for (uint32_t h = s.y / 2; h > 0; h /= 2) {
            __syncthreads();
            if (ty < h) {
#pragma unroll
                for (int j = 0; j < V; j++) {
                    f.merge(acc[j], shared[j * kThreads + threadIdx.x + h * s.x]);
                    shared[j * kThreads + threadIdx.x] = acc[j];
                }
            }
        }
    }
    if (ty != 0 || column >= s.inner.d)
        return;
#pragma unroll
    for (int j = 0; j < V; j++) {
        const size_t i = static_cast<size_t>(o) * s.inner.d + column + j;

        if (partial != nullptr)
            partial[blockIdx.y * s.outputs + i] = acc[j];
        else
            f.store(out, i, acc[j]);
    }
}

template <class In, class F>
__global__ void __launch_bounds__(kThreads)
    fold_columns(In in, F f, Shape s, void *__restrict__ out,
                 typename F::State *__restrict__ partial)
{
    __shared__ typename F::State shared[In::kVector * kThreads];

    TRM_KERNEL_BEGIN();
    if (s.packs)
        fold_columns_of<In::kVector>(in, f, s, out, partial, shared);
    else
        fold_columns_of<1>(in, f, s, out, partial, shared);
}

/* Merges the parts of each output: a warp an output. */
template <class F>
__global__ void __launch_bounds__(kThreads)
    fold_parts(F f, const typename F::State *__restrict__ partial, uint32_t splits, size_t outputs,
               void *__restrict__ out)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
    const uint32_t lane = threadIdx.x % 32;
    typename F::State acc = f.start();

    TRM_KERNEL_BEGIN();
    for (uint32_t p = lane; p < splits && i < outputs; p += 32)
        f.merge(acc, partial[p * outputs + i]);
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        f.merge(acc, f.from(acc, d));
    if (lane == 0 && i < outputs)
        f.store(out, i, acc);
}

/* ---- launching ---- */
template <class F, class In>
trm_status fold(const trmi_reduce *r, cudaStream_t stream, const In &in, bool aligned, void *out,
                void *workspace)
{
    using State = typename F::State;
    const bool split = r->splits > 1;
    State *partial = split ? static_cast<State *>(workspace) : nullptr;
    Shape s = {};
    F f = {};
    unsigned blocks;
    trm_status st;

    if (r->outputs == 0)
        return TRM_OK;
    static_assert(sizeof(State) <= 24, "trmi_cuda_reduce_plan counts 24 bytes a part");
    f.a.kind = r->kind;
    f.a.finish = r->finish;
    f.a.out = r->out;
    f.a.last = r->last;
    f.a.count = r->count;
    f.a.start = trmi_cuda_reduce_start(r);
    s.kept = r->kept;
    s.reduced = r->reduced;
    for (int g = 0; g < TRM_RANK_MAX; g++) {
        s.kept_dims[g] = div_of(g < r->kept ? r->kept_dims[g] : 1);
        s.reduced_dims[g] = div_of(g < r->reduced ? r->reduced_dims[g] : 1);
        s.kept_strides[g] = g < r->kept ? r->kept_strides[g] : 0;
        s.reduced_strides[g] = g < r->reduced ? r->reduced_strides[g] : 0;
    }
    s.inner = div_of(r->inner);
    s.outer = r->outer;
    s.rows = r->rows;
    s.count = r->count;
    s.outputs = r->outputs;
    s.packs = In::kVector > 1 && r->vector == In::kVector && aligned;
    s.x = static_cast<uint32_t>(r->x);
    s.y = static_cast<uint32_t>(r->y);
    s.lanes = static_cast<uint32_t>(r->lanes);
    const uint32_t vector = s.packs ? In::kVector : 1, splits = static_cast<uint32_t>(r->splits);
    const uint32_t units = r->by_rows ? r->count / vector : r->rows;
    s.part = (units + splits - 1) / splits;
    if (r->by_rows) {
        blocks = r->lanes > 32 ? r->outer
                               : (r->outer + kThreads / s.lanes - 1) / (kThreads / s.lanes);
        st = trmi_launched(TRM_LAUNCH((fold_rows<In, F>), dim3(blocks, splits), kThreads, 0, stream,
                                      in, f, s, out, partial),
                           "reduction of rows");
    } else {
        s.column_blocks = (r->inner / vector + s.x - 1) / s.x;
        const uint64_t all = static_cast<uint64_t>(s.column_blocks) * r->outer;

        if (all > INT32_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "a reduction to %zu outputs", r->outputs);
        st = trmi_launched(TRM_LAUNCH((fold_columns<In, F>), dim3(static_cast<unsigned>(all), splits),
                                      s.x * s.y, 0, stream, in, f, s, out, partial),
                           "reduction of columns");
    }
    if (st != TRM_OK || !split)
        return st;
    blocks = static_cast<unsigned>((r->outputs + kThreads / 32 - 1) / (kThreads / 32));
    return trmi_launched(TRM_LAUNCH((fold_parts<F>), blocks, kThreads, 0, stream, f,
                                    static_cast<const State *>(partial), splits, r->outputs, out),
                         "parts of a reduction");
}

/* All kinds of one float dtype. */
template <class T>
trm_status fold_floats(const trmi_reduce *r, cudaStream_t stream, const void *in, void *out,
                       void *workspace)
{
    using W = typename Work<T>::type;
    const bool aligned = aligned16(in);
    FloatIn<T, W, vector_of<T>()> from = {static_cast<const T *>(in)};
    FloatIn<T, double, 1> wide = {static_cast<const T *>(in)};

#define TRMI_REDUCE_CASE(kind)                                                                     \
    case kind:                                                                                     \
        return fold<Fold<W, kind>>(r, stream, from, aligned, out, workspace)
    switch (r->kind) {
        TRMI_REDUCE_CASE(TRMI_REDUCE_SUM);
        TRMI_REDUCE_CASE(TRMI_REDUCE_ABS);
        TRMI_REDUCE_CASE(TRMI_REDUCE_SQUARE);
        TRMI_REDUCE_CASE(TRMI_REDUCE_MAX);
        TRMI_REDUCE_CASE(TRMI_REDUCE_MIN);
        TRMI_REDUCE_CASE(TRMI_REDUCE_PROD);
        TRMI_REDUCE_CASE(TRMI_REDUCE_EXP);
    case TRMI_REDUCE_ARGMAX:
    case TRMI_REDUCE_ARGMIN:
        return fold<Fold<W, kArg>>(r, stream, from, aligned, out, workspace);
    case TRMI_REDUCE_MOMENTS:
        return fold<Fold<double, TRMI_REDUCE_MOMENTS>>(r, stream, wide, aligned, out, workspace);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "a reduction of kind %d", static_cast<int>(r->kind));
    }
#undef TRMI_REDUCE_CASE
}

} // namespace trmi_rows

#endif
