/* Casts to floats. */
#include "kernels/cuda/cast_launch.cuh"

extern "C" trm_status trmi_cuda_cast_float(const trm_cuda *cuda, cudaStream_t stream, trm_dtype to,
                                           void *out, trm_dtype from, const void *x, size_t n)
{
    TRM_FLOATS(to, T, { return trm_cast_from<T>(cuda, stream, out, from, x, n); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "Cast to %s", trm_dtype_name(to));
}
