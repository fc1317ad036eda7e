/* Casts to integers and bool. */
#include "kernels/cuda/cast_launch.cuh"

extern "C" trm_status trmi_cuda_cast(const trm_cuda *cuda, cudaStream_t stream, trm_dtype to,
                                     void *out, trm_dtype from, const void *x, size_t n)
{
    if (trm_dtype_is_float(to))
        return trmi_cuda_cast_float(cuda, stream, to, out, from, x, n);
    if (to == TRM_DTYPE_BOOL)
        return trm_cast_from<trm_bool>(cuda, stream, out, from, x, n);
    TRM_INTS(to, T, { return trm_cast_from<T>(cuda, stream, out, from, x, n); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "Cast to %s", trm_dtype_name(to));
}

__global__ void __launch_bounds__(TRM_MAP_BLOCK) fill_true_kernel(uint8_t *out, size_t n)
{
    TRM_KERNEL_BEGIN();
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;

    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        out[i] = 1;
}

extern "C" trm_status trmi_cuda_fill_true(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                          size_t n)
{
    if (n == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(fill_true_kernel, trm_map_grid(cuda, n), TRM_MAP_BLOCK, 0,
                                    stream, static_cast<uint8_t *>(out), n),
                         "fill with true");
}
