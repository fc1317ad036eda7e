/* Paged attention over a cache of bytes with a scale a position, in BF16. */
#include "kernels/cuda/lm_attention_mma.cuh"

extern "C" trm_status trmi_lmc_attention_i8(const trmi_lmc_attention *a, int wide,
                                            cudaStream_t stream)
{
    return attention<__nv_bfloat16, true>(a, wide, stream);
}

/* What any of the kernels asks for. */
extern "C" size_t trmi_lmc_attention_mma_shared(int32_t head_dim)
{
    using bf16 = __nv_bfloat16;
    const auto most = [](size_t x, size_t y) { return x > y ? x : y; };

    if (head_dim <= 64)
        return most(plan<bf16, false, 64, true>::kBytesAll, plan<bf16, true, 64, true>::kBytesAll);
    if (head_dim <= 128)
        return most(plan<bf16, false, 128, true>::kBytesAll,
                    plan<bf16, true, 128, true>::kBytesAll);
    return most(plan<bf16, false, 256, true>::kBytesAll, plan<bf16, true, 256, true>::kBytesAll);
}
