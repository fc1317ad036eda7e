/* Einsum's general kernel: a thread a result, or a warp a result where there are few results and
 * long sums. Lanes take every 32nd term and are added up in a fixed order. */
#include "kernels/cuda/gpu.cuh"

#include "kernels/cuda/dense_einsum.h"

namespace
{

constexpr int kThreads = 128;
constexpr int kLongSum = 64; /* terms that are worth a warp */

template <class T> struct einsum_sum {
    using type = uint64_t;
    __device__ static uint64_t up(T x)
    {
        return static_cast<uint64_t>(x);
    }
    __device__ static T down(uint64_t x)
    {
        return static_cast<T>(x);
    }
};
#define EINSUM_FLOAT(T, Acc)                                                                       \
    template <> struct einsum_sum<T> {                                                             \
        using type = Acc;                                                                          \
        __device__ static Acc up(T x)                                                              \
        {                                                                                          \
            return trm_up(x);                                                                      \
        }                                                                                          \
        __device__ static T down(Acc x)                                                            \
        {                                                                                          \
            return trm_down<T>(x);                                                                 \
        }                                                                                          \
    };
EINSUM_FLOAT(float, float)
EINSUM_FLOAT(__half, float)
EINSUM_FLOAT(__nv_bfloat16, float)
EINSUM_FLOAT(double, double)

/* Adds the offsets of index `i` over letters [from, to) to at[]. */
template <class Index>
__device__ __forceinline__ void locate(const trmi_einsum &e, int from, int to, Index i,
                                       int64_t (&at)[TRMI_EINSUM_OPERANDS])
{
    for (int l = to - 1; l >= from; l--) {
        const Index n = static_cast<Index>(e.dims[l]);
        const int64_t c = static_cast<int64_t>(i % n);

        i /= n;
#pragma unroll
        for (int o = 0; o < TRMI_EINSUM_OPERANDS; o++)
            if (o < e.operands)
                at[o] += c * e.strides[o][l];
    }
}

template <class T, class Index, int kLanes>
__global__ void __launch_bounds__(kThreads)
    einsum_kernel(trmi_einsum e, Index results, Index terms, T *__restrict__ out)
{
    using S = einsum_sum<T>;
    using Acc = typename S::type;
    const int lane = threadIdx.x % kLanes;

    TRM_KERNEL_BEGIN();
    for (Index r = static_cast<Index>(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
         r < results; r += static_cast<Index>(gridDim.x) * (kThreads / kLanes)) {
        int64_t base[TRMI_EINSUM_OPERANDS] = {};
        Acc sum = 0;

        locate<Index>(e, 0, e.kept, r, base);
        for (Index s = lane; s < terms; s += kLanes) {
            int64_t at[TRMI_EINSUM_OPERANDS];
            Acc product = 1;

#pragma unroll
            for (int o = 0; o < TRMI_EINSUM_OPERANDS; o++)
                at[o] = base[o];
            locate<Index>(e, e.kept, e.letters, s, at);
#pragma unroll
            for (int o = 0; o < TRMI_EINSUM_OPERANDS; o++)
                if (o < e.operands)
                    product *= S::up(static_cast<const T *>(e.data[o])[at[o]]);
            sum += product;
        }
        for (int step = kLanes / 2; step > 0; step /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0)
            out[r] = S::down(sum);
    }
}

template <class T, class Index, int kLanes>
trm_status launch(const trm_cuda *cuda, cudaStream_t stream, const trmi_einsum &e, size_t results,
                  size_t terms, void *out)
{
    const size_t blocks = (results * kLanes + kThreads - 1) / kThreads;
    const size_t most = static_cast<size_t>(cuda->multiprocessors) * 16;

    return trmi_launched(TRM_LAUNCH((einsum_kernel<T, Index, kLanes>),
                                    static_cast<unsigned>(blocks < most ? blocks : most), kThreads,
                                    0, stream, e, static_cast<Index>(results),
                                    static_cast<Index>(terms), static_cast<T *>(out)),
                         "einsum");
}

template <class T>
trm_status choose(const trm_cuda *cuda, cudaStream_t stream, const trmi_einsum &e, size_t results,
                  size_t terms, void *out)
{
    const bool small = results <= INT32_MAX && terms <= INT32_MAX;
    const bool few = results < static_cast<size_t>(cuda->multiprocessors) * 2048;

    if (!small)
        return launch<T, uint64_t, 1>(cuda, stream, e, results, terms, out);
    if (few && terms >= kLongSum)
        return launch<T, uint32_t, 32>(cuda, stream, e, results, terms, out);
    return launch<T, uint32_t, 1>(cuda, stream, e, results, terms, out);
}

} // namespace

extern "C" trm_status trmi_cuda_einsum_run(const trm_cuda *cuda, cudaStream_t stream,
                                           trm_dtype dtype, const trmi_einsum *einsum, void *out)
{
    size_t results = 1, terms = 1;

    for (int l = 0; l < einsum->letters; l++)
        *(l < einsum->kept ? &results : &terms) *= static_cast<size_t>(einsum->dims[l]);
    if (results == 0)
        return TRM_OK;
    TRM_FLOATS(dtype, T, { return choose<T>(cuda, stream, *einsum, results, terms, out); });
    if (dtype != TRM_DTYPE_BOOL) {
        TRM_INTS(dtype, T, { return choose<T>(cuda, stream, *einsum, results, terms, out); });
    }
    return trm_fail(TRM_ERR_UNSUPPORTED, "einsum of %s", trm_dtype_name(dtype));
}
