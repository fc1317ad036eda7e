/* CumSum and CumProd (scan.h). */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/scan.h"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256;
constexpr int kEach = 8; /* neighbours of a thread */

struct Params {
    uint32_t axis, inner, rows; /* rows: outer * inner */
    bool product, exclusive, reverse;
};

/* Elements as they are computed: floats as doubles, integers as unsigned of their width. */
template <class T> struct Value {
    using W = T;
    __device__ __forceinline__ static W up(T x)
    {
        return x;
    }
    __device__ __forceinline__ static T down(W x)
    {
        return x;
    }
};
template <class T> struct FloatValue {
    using W = double;
    __device__ __forceinline__ static W up(T x)
    {
        return static_cast<double>(trm_up(x));
    }
    __device__ __forceinline__ static T down(W x)
    {
        return trm_down<T>(static_cast<typename Work<T>::type>(x));
    }
};
template <> struct Value<float> : FloatValue<float> {
};
template <> struct Value<double> : FloatValue<double> {
};
template <> struct Value<__half> : FloatValue<__half> {
};
template <> struct Value<__nv_bfloat16> : FloatValue<__nv_bfloat16> {
};

template <class W> __device__ __forceinline__ W combine(const Params &p, W a, W b)
{
    return static_cast<W>(p.product ? a * b : a + b);
}
template <class W> __device__ __forceinline__ W identity(const Params &p)
{
    return static_cast<W>(p.product ? 1 : 0);
}
__device__ __forceinline__ double shuffle_up(double x, int d)
{
    return __shfl_up_sync(kAll, x, static_cast<unsigned>(d));
}
template <class W> __device__ __forceinline__ W shuffle_up(W x, int d)
{
    return static_cast<W>(
        __shfl_up_sync(kAll, static_cast<unsigned long long>(x), static_cast<unsigned>(d)));
}

__device__ __forceinline__ double shuffle_last(double x)
{
    return __shfl_sync(kAll, x, 31);
}
template <class W> __device__ __forceinline__ W shuffle_last(W x)
{
    return static_cast<W>(__shfl_sync(kAll, static_cast<unsigned long long>(x), 31));
}

template <class T>
__global__ void __launch_bounds__(kThreads) scan_columns(Params p, const T *in, T *out)
{
    using V = Value<T>;
    using W = typename V::W;
    const uint32_t row = blockIdx.x * kThreads + threadIdx.x;
    const uint32_t outer = row / p.inner;
    const size_t base = static_cast<size_t>(outer) * p.axis * p.inner + (row - outer * p.inner);
    W sum = identity<W>(p);

    TRM_KERNEL_BEGIN();
#pragma unroll 4
    for (uint32_t a = 0; row < p.rows && a < p.axis; a++) {
        const size_t i = base + static_cast<size_t>(p.reverse ? p.axis - 1 - a : a) * p.inner;
        const W next = combine(p, sum, V::up(in[i]));

        out[i] = V::down(p.exclusive ? sum : next);
        sum = next;
    }
}

/* A warp (kBlock: a block) a row. The row is taken in tiles of kEach elements a thread. */
template <class T, bool kBlock>
__global__ void __launch_bounds__(kThreads) scan_rows(Params p, const T *in, T *out)
{
    using V = Value<T>;
    using W = typename V::W;
    __shared__ W totals[kThreads / 32];
    const uint32_t row = kBlock ? blockIdx.x : blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
    const uint32_t lane = kBlock ? threadIdx.x : threadIdx.x % 32, lanes = kBlock ? kThreads : 32;
    const uint32_t outer = row / p.inner;
    const size_t base = static_cast<size_t>(outer) * p.axis * p.inner + (row - outer * p.inner);
    W carry = identity<W>(p);

    TRM_KERNEL_BEGIN();
    if (row >= p.rows) /* whole warps */
        return;
    for (uint32_t tile = 0; tile < p.axis; tile += lanes * kEach) {
        const uint32_t first = tile + lane * kEach;
        W x[kEach], total = identity<W>(p), prefix;

#pragma unroll
        for (int j = 0; j < kEach; j++) {
            const uint32_t a = first + j;

            x[j] = identity<W>(p);
            if (a < p.axis)
                x[j] = V::up(
                    in[base + static_cast<size_t>(p.reverse ? p.axis - 1 - a : a) * p.inner]);
            total = combine(p, total, x[j]);
        }
        W inclusive = total;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const W below = shuffle_up(inclusive, d);

            if (threadIdx.x % 32 >= static_cast<unsigned>(d))
                inclusive = combine(p, below, inclusive);
        }
        prefix = shuffle_up(inclusive, 1);
        if (threadIdx.x % 32 == 0)
            prefix = identity<W>(p);
        if (kBlock) {
            W all = carry;

            if (threadIdx.x % 32 == 31)
                totals[threadIdx.x / 32] = inclusive;
            __syncthreads();
            for (uint32_t w = 0; w < kThreads / 32; w++) {
                if (w == threadIdx.x / 32)
                    prefix = combine(p, all, prefix);
                all = combine(p, all, totals[w]);
            }
            carry = all;
            __syncthreads(); /* totals are written again */
        } else {
            prefix = combine(p, carry, prefix);
            carry = combine(p, carry, shuffle_last(inclusive));
        }
#pragma unroll
        for (int j = 0; j < kEach; j++) {
            const uint32_t a = first + j;
            const W next = combine(p, prefix, x[j]);

            if (a < p.axis)
                out[base + static_cast<size_t>(p.reverse ? p.axis - 1 - a : a) * p.inner] =
                    V::down(p.exclusive ? prefix : next);
            prefix = next;
        }
    }
}

template <class T>
trm_status run(const Params &p, cudaStream_t stream, const void *in, void *out)
{
    const T *x = static_cast<const T *>(in);
    T *y = static_cast<T *>(out);

    if (p.inner >= 32)
        return trmi_launched(TRM_LAUNCH((scan_columns<T>), (p.rows + kThreads - 1) / kThreads,
                                        kThreads, 0, stream, p, x, y),
                             "scan of columns");
    if (p.axis > 2048 && p.rows < 2048)
        return trmi_launched(
            TRM_LAUNCH((scan_rows<T, true>), p.rows, kThreads, 0, stream, p, x, y),
            "scan of long rows");
    return trmi_launched(TRM_LAUNCH((scan_rows<T, false>),
                                    (p.rows + kThreads / 32 - 1) / (kThreads / 32), kThreads, 0,
                                    stream, p, x, y),
                         "scan of rows");
}

} // namespace

extern "C" trm_status trmi_cuda_scan_run(const trmi_scan *scan, cudaStream_t stream,
                                         const void *in, void *out)
{
    Params p = {};

    if (scan->outer == 0 || scan->axis == 0 || scan->inner == 0)
        return TRM_OK;
    if (scan->axis > INT32_MAX || scan->outer > INT32_MAX || scan->inner > INT32_MAX ||
        scan->outer * scan->inner > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a scan of [%zu, %zu, %zu]", scan->outer, scan->axis,
                        scan->inner);
    p.axis = static_cast<uint32_t>(scan->axis);
    p.inner = static_cast<uint32_t>(scan->inner);
    p.rows = static_cast<uint32_t>(scan->outer * scan->inner);
    p.product = scan->product;
    p.exclusive = scan->exclusive;
    p.reverse = scan->reverse;
    TRM_FLOATS(scan->dtype, T, { return run<T>(p, stream, in, out); })
    TRM_WIDTHS(scan->dtype, T, { return run<T>(p, stream, in, out); })
    return trm_fail(TRM_ERR_UNSUPPORTED, "a scan of %s", trm_dtype_name(scan->dtype));
}
