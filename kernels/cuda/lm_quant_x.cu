/* Activations of more tokens than a product quantises for itself: a block a row. */
#include "kernels/cuda/lm_quant_x.cuh"

namespace
{

constexpr int kThreads = 256;

/* With experts a row's tile is of its expert: expert e has tiles of n tokens from starts[e] / n + e
 * on, which do not meet those of expert e + 1 whatever the counts are. */
template <int kTokens>
__global__ void __launch_bounds__(kThreads)
    lm_quantize_kernel(const __grid_constant__ trmi_lmq_args a, trmi_lmq_aux aux, int offset,
                       bool aligned)
{
    TRM_KERNEL_BEGIN();
    constexpr int kColumn = kTokens * TRMI_LMQ_X_TOKEN;
    const int groups = a.k / 32, tokens = a.x_tokens,
              all = tokens * TRMI_LMQ_X_TOKEN; /* of a pair */
    const int row = static_cast<int>(blockIdx.x);
    int tile = row / tokens, token = row % tokens, from = row;

    if (a.experts > 0) {
        int low = 0, high = a.experts; /* starts[low] <= row < starts[high] */

        if (row >= a.starts[a.experts])
            return;
        while (high - low > 1) {
            const int mid = (low + high) / 2;

            if (a.starts[mid] <= row)
                low = mid;
            else
                high = mid;
        }
        const int start = a.starts[low];

        tile = start / tokens + low + (row - start) / tokens;
        token = (row - start) % tokens;
        from = a.row_of != nullptr ? a.row_of[row] : row;
    }
    const float *x = a.x + static_cast<size_t>(from) * a.k;
    unsigned char *to =
        a.xq + static_cast<size_t>(tile) * a.steps * (2 * all) + token / kTokens * kColumn;

    lmq_quantize<kTokens>(groups, aligned, aux, offset, [&](int group) {
        return lmq_group{x + 32 * group, token % kTokens, group,
                         to + static_cast<size_t>(group / 2) * all};
    });
}

template <int kTokens>
trm_status quantize(trm_dtype dtype, const trmi_lmq_args *args, cudaStream_t stream)
{
    return trmi_launched(TRM_LAUNCH((lm_quantize_kernel<kTokens>), static_cast<unsigned>(args->m),
                                    kThreads, 0, stream, *args, trmi_lmq_aux_of(dtype),
                                    trmi_lmq_seed_offset(dtype),
                                    reinterpret_cast<uintptr_t>(args->x) % 16 == 0),
                         "quantised activations");
}

} // namespace

extern "C" trm_status trmi_lmq_quantize(trm_dtype dtype, const trmi_lmq_args *args,
                                        cudaStream_t stream)
{
    return args->x_tokens == 4 ? quantize<4>(dtype, args, stream)
                               : quantize<8>(dtype, args, stream);
}
