/* Paged attention over a cache of BF16. */
#include "kernels/cuda/lm_attention_mma.cuh"

extern "C" trm_status trmi_lmc_attention_bf16(const trmi_lmc_attention *a, int wide,
                                              cudaStream_t stream)
{
    return attention<__nv_bfloat16, false>(a, wide, stream);
}
