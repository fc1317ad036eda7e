/* Whether the kernels that this device runs were compiled for sm_90 or newer: code from older PTX has
 * no wait in it (TRM_KERNEL_BEGIN), so launches must not overlap. */
#include "kernels/cuda/gpu.cuh"

namespace {

/* Never launched: asked for what it was compiled for. */
__global__ void overlap_probe(int *out)
{
    TRM_KERNEL_BEGIN();
    *out = 1;
}

} // namespace

extern "C" bool trmi_cuda_overlap_compiled(void)
{
    cudaFuncAttributes a = {};

    return cudaFuncGetAttributes(&a, reinterpret_cast<const void *>(overlap_probe)) ==
               cudaSuccess &&
           a.ptxVersion >= 90;
}
