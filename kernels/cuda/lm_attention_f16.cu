/* Paged attention over a cache of F16. */
#include "kernels/cuda/lm_attention_mma.cuh"

extern "C" trm_status trmi_lmc_attention_f16(const trmi_lmc_attention *a, int wide,
                                             cudaStream_t stream)
{
    return attention<__half, false>(a, wide, stream);
}
