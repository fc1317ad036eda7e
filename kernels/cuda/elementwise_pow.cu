/* Pow whose operands have two dtypes: both are converted to the dtype it works in, the result to
 * the base's. dtypes are chosen inside: an element a thread. */
#include "kernels/cuda/cast.cuh"
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/elementwise_math.cuh"

template <class W>
__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    pow_kernel(trm_map<2> m, trm_dtype a_dtype, trm_dtype b_dtype, const void *a, const void *b,
               void *out)
{
    TRM_KERNEL_BEGIN();
    const uint32_t stride = gridDim.x * blockDim.x;
    uint32_t at[2];

    for (uint32_t e = blockIdx.x * blockDim.x + threadIdx.x; e < m.total; e += stride) {
        m.locate(e, at);
        const W x = trm_load_as<W>(a_dtype, a, at[0]), y = trm_load_as<W>(b_dtype, b, at[1]);
        if constexpr (std::is_integral<W>::value)
            trm_store_as<W>(a_dtype, out, e, trm_int_pow(x, y));
        else
            trm_store_as<W>(a_dtype, out, e, trm_binary_fn<W>(TRM_OP_Pow, x, y, W(0)));
    }
}

template <class W>
static trm_status run(const trm_cuda *cuda, cudaStream_t stream, const trmi_cuda_map *m,
                      const void *a, trm_dtype a_dtype, const void *b, trm_dtype b_dtype, void *out)
{
    const void *in[2] = {a, b};
    const size_t bytes[2] = {1, 1};
    trm_map<2> k = trm_map_make<2>(m, 1, in, bytes, out, 1);

    return trmi_launched(TRM_LAUNCH((pow_kernel<W>), trm_map_grid(cuda, k.total), TRM_MAP_BLOCK, 0,
                                    stream, k, a_dtype, b_dtype, a, b, out),
                         "Pow of two dtypes");
}

extern "C" trm_status trmi_cuda_pow_mixed(const trm_cuda *cuda, cudaStream_t stream, trm_dtype work,
                                          const trmi_cuda_map *m, const void *a, trm_dtype a_dtype,
                                          const void *b, trm_dtype b_dtype, void *out)
{
    if (m->total > TRMI_MAP_LIMIT)
        return trm_fail(TRM_ERR_INTERNAL, "a map of more than 2^30 elements");
    if (m->total == 0)
        return TRM_OK;
    switch (work) {
    case TRM_DTYPE_F32:
        return run<float>(cuda, stream, m, a, a_dtype, b, b_dtype, out);
    case TRM_DTYPE_F64:
        return run<double>(cuda, stream, m, a, a_dtype, b, b_dtype, out);
    case TRM_DTYPE_I64:
        return run<int64_t>(cuda, stream, m, a, a_dtype, b, b_dtype, out);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "Pow in %s", trm_dtype_name(work));
    }
}
