/* The fold engine of reduce.h as templates: where elements are read (FloatIn, IntIn), the three
 * kernels and their launch. Included by the reduce_<dtype>.cu files. */
#ifndef TRM_KERNELS_CUDA_REDUCE_CUH
#define TRM_KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/reduce_fold.cuh"

namespace trmi_rows
{

constexpr int kThreads = 256;

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
        blocks = static_cast<unsigned>(all);
        st = trmi_launched(TRM_LAUNCH((fold_columns<In, F>), dim3(blocks, splits), s.x * s.y, 0,
                                      stream, in, f, s, out, partial),
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
