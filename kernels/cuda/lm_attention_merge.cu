/* Partial results of splits become rows of the output: a warp has a head of a row, walks its splits
 * in ascending order and keeps the sum in registers, four columns a lane and more where heads are
 * wider than 128. The next split's elements do not depend on this one's sum, so that several loads
 * are on their way. */
#include "kernels/cuda/lm_attention.cuh"

namespace
{

constexpr int kWarps = 8;
constexpr int kColumns = TRMI_LMC_HEAD_MAX / 32;

__global__ void __launch_bounds__(kWarps * 32) lm_attention_merge(const trmi_lmc_attention a)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;

    TRM_KERNEL_BEGIN();
    const int units = a.block->merge_count * a.heads;

    for (int u = static_cast<int>(blockIdx.x) * kWarps + warp; u < units;
         u += static_cast<int>(gridDim.x) * kWarps) {
        const trmi_lm_merge m = TRMI_LM_AT(trmi_lm_merge, a.block, a.block->merges_at)[u / a.heads];
        const trmi_lm_sequence q =
            TRMI_LM_AT(trmi_lm_sequence, a.block, a.block->sequences_at)[m.sequence];
        const int head = u % a.heads;
        const lm_range seen = lm_sees(a, q.tokens, q.position + m.row - q.row);
        lm_total total = lm_total_begin(a.sinks, head);
        float out[kColumns];

#pragma unroll
        for (int c = 0; c < kColumns; c++)
            out[c] = 0.0f;
#pragma unroll 2
        for (int s = seen.first / TRMI_LM_SPLIT; s < m.splits && lm_split_seen(seen, s); s++) {
            const size_t at = static_cast<size_t>(m.slot + s) * a.heads + head;
            const lm_join j = lm_merge(total, a.tops[2 * at], a.tops[2 * at + 1]);

#pragma unroll
            for (int c = 0; c < kColumns; c++)
                if (c * 32 + lane < a.head_dim)
                    out[c] = lm_joined(j, a.partials[at * a.head_dim + c * 32 + lane], out[c]);
        }
        const float inverse = lm_inverse(total);

#pragma unroll
        for (int c = 0; c < kColumns; c++)
            if (c * 32 + lane < a.head_dim)
                a.out[(static_cast<size_t>(m.row) * a.heads + head) * a.head_dim + c * 32 + lane] =
                    __fmul_rn(out[c], inverse);
    }
}

} // namespace

extern "C" trm_status trmi_lmc_attention_merge(const trmi_lmc_attention *a, cudaStream_t stream)
{
    const int64_t rows = a->rows < trmi_lm_partials_max(a->rows) / 2
                             ? a->rows
                             : trmi_lm_partials_max(a->rows) / 2; /* each has two at least */
    const int64_t blocks = (rows * a->heads + kWarps - 1) / kWarps;
    const int64_t most = static_cast<int64_t>(a->multiprocessors) * 8;

    if (a->rows == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(lm_attention_merge,
                                    static_cast<unsigned>(blocks < most ? blocks : most),
                                    kWarps * 32, 0, stream, *a),
                         "lm_attention_merge");
}
