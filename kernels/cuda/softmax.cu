/* Softmax and its like (softmax.h). */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/softmax.h"

using namespace trmi_rows;

namespace
{

constexpr int kPerThread = 32; /* elements of a row that a thread keeps in registers */
constexpr int kWarps = 4;      /* rows of a block, a warp each */

/* The greatest element so far, the first of equals, as in a loop that replaces the best by
 * x > best; so a first element that is NaN stays. */
template <class W> struct Best {
    W v;
    uint32_t at;
};
template <class W> __device__ __forceinline__ Best<W> better(const Best<W> &a, const Best<W> &b)
{
    if (a.at == 0 && a.v != a.v)
        return a;
    if (b.at == 0 && b.v != b.v)
        return b;
    return b.v > a.v || a.v != a.v || (b.v == a.v && b.at < a.at) ? b : a;
}
template <class W> __device__ __forceinline__ Best<W> warp_best(Best<W> b)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        b = better(b, Best<W>{__shfl_xor_sync(kAll, b.v, d), __shfl_xor_sync(kAll, b.at, d)});
    return b;
}
/* scratch: 32 entries */
template <class W> __device__ __forceinline__ Best<W> block_best(Best<W> b, Best<W> *scratch)
{
    b = warp_best(b);
    if (blockDim.x == 32)
        return b;
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = b;
    __syncthreads();
    b = scratch[0];
    for (unsigned i = 1; i < blockDim.x / 32; i++)
        b = better(b, scratch[i]);
    return b;
}

/* Maximum and sum of exp(x - maximum), online. */
template <class W> struct Online {
    W m, s;
};
template <class W> __device__ __forceinline__ void online_take(Online<W> &o, W x)
{
    if (x > o.m) { /* x - x: an infinity makes the row NaN, as exp(inf - inf) does */
        o.s = o.s * exp_of(o.m - x) + 1 + (x - x);
        o.m = x;
    } else if (x != minus_infinity<W>()) {
        o.s += exp_of(x - o.m);
    }
}
template <class W>
__device__ __forceinline__ Online<W> online_merge(const Online<W> &a, const Online<W> &b)
{
    const W m = max_of(a.m, b.m);

    return Online<W>{m, (a.m == minus_infinity<W>() ? a.s : a.s * exp_of(a.m - m)) +
                            (b.m == minus_infinity<W>() ? b.s : b.s * exp_of(b.m - m))};
}

template <class W> __device__ __forceinline__ W result(int kind, W x, W m, W log_sum, W scale)
{
    return kind == TRMI_LOG_SOFTMAX ? x - m - log_sum : exp_of(x - m) * scale;
}

/* Rows of at most N * lanes elements; kBlock: a block a row, else a warp. */
template <class T, int V, int N, bool kBlock>
__global__ void __launch_bounds__(N == 8 ? 1024 : 256, N == 8 ? 1 : 2)
    softmax_registers(int kind, const T *in, T *out, uint32_t rows, uint32_t n)
{
    using W = typename Work<T>::type;
    __shared__ W scratch[32];
    __shared__ Best<W> best_scratch[kBlock ? 32 : 1];
    const uint32_t row = kBlock ? blockIdx.x : blockIdx.x * kWarps + threadIdx.x / 32;
    const uint32_t lane = kBlock ? threadIdx.x : threadIdx.x % 32, step = kBlock ? blockDim.x : 32;
    const size_t base = static_cast<size_t>(row) * n;
    W x[N], m = minus_infinity<W>(), sum = 0;

    TRM_KERNEL_BEGIN();
    if (row >= rows) /* whole warps */
        return;
    load_row<T, V>(in + base, n, lane, step, m, x);
    if (kind == TRMI_HARDMAX) {
        Best<W> b = {minus_infinity<W>(), kAll};

#pragma unroll
        for (int i = 0; i < N; i++) {
            const uint32_t e = (static_cast<uint32_t>(i / V) * step + lane) * V + i % V;

            if (e < n)
                b = better(b, Best<W>{x[i], e});
        }
        b = kBlock ? block_best(b, best_scratch) : warp_best(b);
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = (static_cast<uint32_t>(i / V) * step + lane) * V + i % V == b.at ? 1 : 0;
        store_row<T, V>(out + base, n, lane, step, x);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        m = max_of(m, x[i]);
    m = kBlock ? block_fold(Max(), m, scratch) : warp_fold(Max(), m);
    if (kind == TRMI_LOG_SOFTMAX) {
#pragma unroll
        for (int i = 0; i < N; i++)
            sum += exp_of(x[i] - m);
        sum = kBlock ? block_fold(Sum(), sum, scratch) : warp_fold(Sum(), sum);
        sum = log_of(sum);
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = x[i] - m - sum;
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) {
            x[i] = exp_of(x[i] - m);
            sum += x[i];
        }
        sum = kBlock ? block_fold(Sum(), sum, scratch) : warp_fold(Sum(), sum);
        sum = 1 / sum;
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] *= sum;
    }
    store_row<T, V>(out + base, n, lane, step, x);
}

/* Rows of any length, a block each, read twice. */
template <class T, int V>
__global__ void __launch_bounds__(512)
    softmax_long(int kind, const T *in, T *out, uint32_t n)
{
    using W = typename Work<T>::type;
    __shared__ W scratch[32];
    __shared__ Best<W> best_scratch[32];
    const T *x = in + static_cast<size_t>(blockIdx.x) * n;
    T *y = out + static_cast<size_t>(blockIdx.x) * n;
    const uint32_t units = n / V;
    Best<W> b = {minus_infinity<W>(), kAll};
    Online<W> o = {minus_infinity<W>(), 0};
    W m, sum;

    TRM_KERNEL_BEGIN();
    for (uint32_t u = threadIdx.x; u < units; u += blockDim.x) {
        const Pack<T, V> p = *reinterpret_cast<const Pack<T, V> *>(x + u * V);

#pragma unroll
        for (int j = 0; j < V; j++) {
            if (kind == TRMI_HARDMAX)
                b = better(b, Best<W>{trm_up(p.v[j]), u * V + j});
            else
                online_take(o, static_cast<W>(trm_up(p.v[j])));
        }
    }
    if (kind == TRMI_HARDMAX)
        b = block_best(b, best_scratch);
    m = block_fold(Max(), o.m, scratch);
    sum = o.m == minus_infinity<W>() ? o.s : o.s * exp_of(o.m - m);
    sum = block_fold(Sum(), sum, scratch);
    const W log_sum = log_of(sum), scale = 1 / sum;
    for (uint32_t u = threadIdx.x; u < units; u += blockDim.x) {
        Pack<T, V> p = *reinterpret_cast<const Pack<T, V> *>(x + u * V);

#pragma unroll
        for (int j = 0; j < V; j++) {
            const W v = trm_up(p.v[j]);

            p.v[j] = trm_down<T>(kind == TRMI_HARDMAX ? static_cast<W>(u * V + j == b.at ? 1 : 0)
                                                      : result(kind, v, m, log_sum, scale));
        }
        *reinterpret_cast<Pack<T, V> *>(y + u * V) = p;
    }
}

/* Columns: block x * y; y threads share the axis of a column, then all write it. */
template <class T>
__global__ void __launch_bounds__(256)
    softmax_columns(int kind, const T *in, T *out, uint32_t axis, uint32_t inner,
                    uint32_t column_blocks, uint32_t x_threads)
{
    using W = typename Work<T>::type;
    __shared__ Online<W> shared[256];
    __shared__ Best<W> best_shared[256];
    const uint32_t y_threads = blockDim.x / x_threads;
    const uint32_t tx = threadIdx.x % x_threads, ty = threadIdx.x / x_threads;
    const uint32_t outer = blockIdx.x / column_blocks;
    const uint32_t column = (blockIdx.x - outer * column_blocks) * x_threads + tx;
    const size_t base = static_cast<size_t>(outer) * axis * inner + column;
    const bool inside = column < inner;
    Best<W> b = {minus_infinity<W>(), kAll};
    Online<W> o = {minus_infinity<W>(), 0};

    TRM_KERNEL_BEGIN();
#pragma unroll 4
    for (uint32_t a = ty; inside && a < axis; a += y_threads) {
        const W x = trm_up(in[base + static_cast<size_t>(a) * inner]);

        if (kind == TRMI_HARDMAX)
            b = better(b, Best<W>{x, a});
        else
            online_take(o, x);
    }
    if (y_threads > 1) {
        shared[threadIdx.x] = o;
        best_shared[threadIdx.x] = b;
        __syncthreads();
        o = shared[tx];
        b = best_shared[tx];
        for (uint32_t y = 1; y < y_threads; y++) {
            o = online_merge(o, shared[y * x_threads + tx]);
            b = better(b, best_shared[y * x_threads + tx]);
        }
    }
    const W log_sum = log_of(o.s), scale = 1 / o.s;
#pragma unroll 4
    for (uint32_t a = ty; inside && a < axis; a += y_threads) {
        const size_t i = base + static_cast<size_t>(a) * inner;
        const W v = trm_up(in[i]);

        out[i] = trm_down<T>(kind == TRMI_HARDMAX ? static_cast<W>(a == b.at ? 1 : 0)
                                                  : result(kind, v, o.m, log_sum, scale));
    }
}

/* ---- launching ---- */

template <class T, int V, int N>
trm_status run_warps(int kind, const T *in, T *out, uint32_t rows, uint32_t n, cudaStream_t stream)
{
    return trmi_launched(TRM_LAUNCH((softmax_registers<T, V, N, false>),
                                    (rows + kWarps - 1) / kWarps, kWarps * 32, 0, stream, kind, in,
                                    out, rows, n),
                         "softmax of short rows");
}

template <class T, int V, int N>
trm_status run_block(int kind, const T *in, T *out, uint32_t rows, uint32_t n, cudaStream_t stream)
{
    const unsigned threads = (n + 32 * N - 1) / (32 * N) * 32;

    return trmi_launched(TRM_LAUNCH((softmax_registers<T, V, N, true>), rows, threads, 0, stream,
                                    kind, in, out, rows, n),
                         "softmax of rows");
}

template <class T, int V>
trm_status run_rows(int kind, const T *in, T *out, uint32_t rows, uint32_t n, int multiprocessors,
                    cudaStream_t stream)
{
    constexpr int kFew = V > 4 ? V : 4; /* registers for rows of up to 128 or 256 */

    if (n >= 128 && n <= 1024 * 8 && rows < 8u * static_cast<unsigned>(multiprocessors))
        return run_block<T, V, 8>(kind, in, out, rows, n, stream);
    if (n <= 32 * kFew)
        return run_warps<T, V, kFew>(kind, in, out, rows, n, stream);
    if (n <= 32 * 16)
        return run_warps<T, V, 16>(kind, in, out, rows, n, stream);
    if (n <= 32 * kPerThread)
        return run_warps<T, V, kPerThread>(kind, in, out, rows, n, stream);
    if (n <= 256 * kPerThread)
        return run_block<T, V, kPerThread>(kind, in, out, rows, n, stream);
    return trmi_launched(
        TRM_LAUNCH((softmax_long<T, V>), rows, 512, 0, stream, kind, in, out, n),
        "softmax of long rows");
}

template <class T>
trm_status run(int kind, const void *in, void *out, uint32_t outer, uint32_t axis, uint32_t inner,
               int multiprocessors, cudaStream_t stream)
{
    const T *x = static_cast<const T *>(in);
    T *y = static_cast<T *>(out);

    if (inner == 1) {
        if (axis % vector_of<T>() == 0 && aligned16(in) && aligned16(out))
            return run_rows<T, vector_of<T>()>(kind, x, y, outer, axis, multiprocessors, stream);
        return run_rows<T, 1>(kind, x, y, outer, axis, multiprocessors, stream);
    }
    /* enough columns: a thread each; else y threads share one, while 32 stand side by side */
    const uint64_t columns = static_cast<uint64_t>(outer) * inner;
    const uint64_t wanted = 1024u * static_cast<unsigned>(multiprocessors);
    uint32_t y_threads = 1, x_threads = 1;

    while (y_threads < 8 && y_threads * 2 <= axis && columns * y_threads < wanted)
        y_threads *= 2;
    while (x_threads < 256 / y_threads && x_threads < inner)
        x_threads *= 2;
    while (x_threads * y_threads < 32)
        x_threads *= 2;
    const uint32_t blocks = (inner + x_threads - 1) / x_threads;

    if (static_cast<uint64_t>(blocks) * outer > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "softmax of %u x %u columns", outer, inner);
    return trmi_launched(TRM_LAUNCH((softmax_columns<T>), blocks * outer, x_threads * y_threads, 0,
                                    stream, kind, x, y, axis, inner, blocks, x_threads),
                         "softmax of columns");
}

} // namespace

extern "C" trm_status trmi_cuda_softmax_run(trmi_softmax_kind kind, trm_dtype dtype, size_t outer,
                                            size_t axis, size_t inner, const void *in, void *out,
                                            int multiprocessors, cudaStream_t stream)
{
    if (outer == 0 || axis == 0 || inner == 0)
        return TRM_OK;
    if (outer > INT32_MAX || axis > INT32_MAX || inner > INT32_MAX || outer * inner > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "softmax of [%zu, %zu, %zu]: too many rows", outer,
                        axis, inner);
    TRM_FLOATS(dtype, T, {
        return run<T>(kind, in, out, static_cast<uint32_t>(outer), static_cast<uint32_t>(axis),
                      static_cast<uint32_t>(inner), multiprocessors, stream);
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "softmax of %s", trm_dtype_name(dtype));
}
