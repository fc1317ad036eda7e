/* Tokens of a step that were drawn by the step before and are known on the device only. */
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/lm_step.h"

#define THREADS 256

__global__ void lm_tokens(trmi_lm_block *block, uint32_t at)
{
    TRM_KERNEL_BEGIN();
    int32_t *tokens = reinterpret_cast<int32_t *>(reinterpret_cast<unsigned char *>(block) + at);
    const int r = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);

    if (r >= block->token_rows || tokens[r] > -2)
        return;
    const int32_t slot = -2 - tokens[r];
    tokens[r] = slot < block->slots ? block->slot_tokens[slot] : -1;
}

extern "C" trm_status trmi_cuda_lm_tokens(void *block, const trm_step *step, cudaStream_t stream)
{
    const size_t at = trmi_cuda_step_input_at(NULL, step, TRM_STEP_TOKENS);
    const unsigned grid = static_cast<unsigned>((step->token_rows + THREADS - 1) / THREADS);

    if (step->token_rows == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(lm_tokens, grid, THREADS, 0, stream,
                                    static_cast<trmi_lm_block *>(block), static_cast<uint32_t>(at)),
                         "lm_tokens");
}
