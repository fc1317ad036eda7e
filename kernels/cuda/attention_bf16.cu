/* Attention on tensor cores, bf16 (attention_mma.cuh). */
#include "kernels/cuda/attention_mma.cuh"

extern "C" trm_status trmi_cuda_attention_bf16(const trmi_attention *a, cudaStream_t stream)
{
    return attention_mma_any<__nv_bfloat16>(a, stream);
}
