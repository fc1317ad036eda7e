/* The outputs of ONNX Attention beside y: scores or probabilities as a tensor, and keys and values
 * behind what was kept of earlier ones. */
#include "kernels/cuda/attention.cuh"

namespace
{

constexpr int kThreads = 128;

/* The score of key j in row i: one of the modes 0 to 2 (attention.h). */
template <class F>
__device__ F score(const trmi_attention &a, const attention_range &seen, int b, int h, int i, int j,
                   int mode)
{
    const int g = h / (a.heads / a.kv_heads);
    const int64_t q = b * a.q.batch + h * a.q.head + i * a.q.row;
    const int64_t k = b * a.k.batch + g * a.k.head + j * a.k.row;
    F x = F(0);

    for (int c = 0; c < a.dim; c++)
        x += attention_element<F>(a.q.data, a.q.dtype, static_cast<size_t>(q + c * a.q.column)) *
             attention_element<F>(a.k.data, a.k.dtype, static_cast<size_t>(k + c * a.k.column));
    x *= static_cast<F>(a.scale);
    if (mode >= 1 && a.softcap > 0.0f)
        x = static_cast<F>(a.softcap) * tanh(x / static_cast<F>(a.softcap));
    if (mode < 2)
        return x;
    if (j < seen.first || j >= seen.last)
        return -static_cast<F>(INFINITY);
    return x + attention_mask<F>(a, b, h, i, j);
}

template <class F> struct largest {
    __device__ static F of(F x, F y)
    {
        return fmax(x, y);
    }
};
template <class F> struct total {
    __device__ static F of(F x, F y)
    {
        return x + y;
    }
};

/* Over the block, in a fixed order; for all threads. */
template <class F, template <class> class Join> __device__ F block_reduce(F x, F *shared)
{
    for (int step = 16; step > 0; step /= 2)
        x = Join<F>::of(x, __shfl_xor_sync(0xffffffffu, x, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[0];
    for (int w = 1; w < kThreads / 32; w++)
        x = Join<F>::of(x, shared[w]);
    return x;
}

/* A block a row of scores. */
template <class F>
__global__ void __launch_bounds__(kThreads)
    attention_scores(const trmi_attention a, const int mode, const trm_dtype dtype, void *qk)
{
    __shared__ F shared[kThreads / 32];
    const int i = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.q_len));
    const int head_index = static_cast<int>(blockIdx.x / static_cast<unsigned>(a.q_len));
    const int h = head_index % a.heads, b = head_index / a.heads;
    const size_t row = static_cast<size_t>(blockIdx.x) * static_cast<size_t>(a.kv_len);
    F top = -static_cast<F>(INFINITY), sum = F(0);

    TRM_KERNEL_BEGIN();
    const attention_range seen = attention_seen(a, b, i);
    if (mode < 3) {
        for (int j = static_cast<int>(threadIdx.x); j < a.kv_len; j += kThreads)
            attention_put<F>(qk, dtype, row + static_cast<size_t>(j),
                             score<F>(a, seen, b, h, i, j, mode));
        return;
    }
    for (int j = static_cast<int>(threadIdx.x); j < a.kv_len; j += kThreads)
        top = fmax(top, score<F>(a, seen, b, h, i, j, 2));
    top = block_reduce<F, largest>(top, shared);
    if (top == -static_cast<F>(INFINITY))
        top = F(0);
    for (int j = static_cast<int>(threadIdx.x); j < a.kv_len; j += kThreads)
        sum += exp(score<F>(a, seen, b, h, i, j, 2) - top);
    sum = block_reduce<F, total>(sum, shared);
    for (int j = static_cast<int>(threadIdx.x); j < a.kv_len; j += kThreads) {
        const F p = exp(score<F>(a, seen, b, h, i, j, 2) - top);

        attention_put<F>(qk, dtype, row + static_cast<size_t>(j), sum == F(0) ? F(0) : p / sum);
    }
}

/* A block a row of the cache (blockIdx.x: all of them), in units of T. */
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_concat(const size_t heads, const size_t past_rows, const size_t rows,
                     const size_t columns, const bool flat, const T *__restrict__ past,
                     const T *__restrict__ added, T *__restrict__ present)
{
    const size_t all = past_rows + rows, r = blockIdx.x % all, pair = blockIdx.x / all;
    const size_t b = pair / heads, h = pair % heads, n = r - past_rows;
    const T *const from = r < past_rows ? past + (pair * past_rows + r) * columns
                          : flat        ? added + ((b * rows + n) * heads + h) * columns
                                        : added + (pair * rows + n) * columns;
    T *const to = present + blockIdx.x * columns;

    TRM_KERNEL_BEGIN();
    for (size_t c = threadIdx.x; c < columns; c += kThreads)
        to[c] = from[c];
}

struct alignas(16) bytes16 {
    uint32_t word[4];
};

template <class T>
trm_status concat(const trmi_attention_cache *c, size_t columns, const void *past,
                  const void *added, void *present, cudaStream_t stream)
{
    const size_t blocks = c->batch * c->heads * (c->past_rows + c->rows);

    if (blocks == 0 || columns == 0)
        return TRM_OK;
    if (blocks > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "attention cache of %zu rows", blocks);
    return trmi_launched(TRM_LAUNCH((attention_concat<T>), static_cast<unsigned>(blocks), kThreads,
                                    0, stream, c->heads, c->past_rows, c->rows, columns, c->flat,
                                    static_cast<const T *>(past), static_cast<const T *>(added),
                                    static_cast<T *>(present)),
                         "attention_concat");
}

} // namespace

extern "C" trm_status trmi_cuda_attention_scores(const trmi_attention *a, int mode, trm_dtype dtype,
                                                 void *qk, cudaStream_t stream)
{
    const int64_t rows = static_cast<int64_t>(a->batch) * a->heads * a->q_len;

    if (rows == 0 || a->kv_len == 0)
        return TRM_OK;
    if (rows > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "attention scores of %lld rows",
                        static_cast<long long>(rows));
    if (a->q.dtype == TRM_DTYPE_F64)
        return trmi_launched(TRM_LAUNCH(attention_scores<double>, static_cast<unsigned>(rows),
                                        kThreads, 0, stream, *a, mode, dtype, qk),
                             "attention_scores");
    return trmi_launched(TRM_LAUNCH(attention_scores<float>, static_cast<unsigned>(rows), kThreads,
                                    0, stream, *a, mode, dtype, qk),
                         "attention_scores");
}

extern "C" trm_status trmi_cuda_attention_concat(const trmi_attention_cache *c, const void *past,
                                                 const void *added, void *present,
                                                 cudaStream_t stream)
{
    const uintptr_t bits = reinterpret_cast<uintptr_t>(past) | reinterpret_cast<uintptr_t>(added) |
                           reinterpret_cast<uintptr_t>(present);
    const size_t size = trm_dtype_bytes(c->dtype);

    if (bits % 16 == 0 && c->columns * size % 16 == 0)
        return concat<bytes16>(c, c->columns * size / 16, past, added, present, stream);
    TRM_WIDTHS(c->dtype, T, { return concat<T>(c, c->columns, past, added, present, stream); })
    return trm_fail(TRM_ERR_UNSUPPORTED, "attention cache of %s", trm_dtype_name(c->dtype));
}
