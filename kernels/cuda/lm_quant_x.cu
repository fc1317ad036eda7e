/* Activations of more tokens than a product quantises for itself: a block a row. */
#include "kernels/cuda/lm_quant_x.cuh"

namespace
{

constexpr int kThreads = 256, kColumn = 8 * TRMI_LMQ_X_TOKEN;

/* With experts a row's tile is of its expert: expert e has tiles of n tokens from starts[e] / n + e
 * on, which do not meet those of expert e + 1 whatever the counts are. */
__global__ void __launch_bounds__(kThreads)
    lm_quantize_kernel(const __grid_constant__ trmi_lmq_args a, trmi_lmq_aux aux, int offset,
                       bool aligned)
{
    TRM_KERNEL_BEGIN();
    const int groups = a.k / 32, word = threadIdx.x % 8, tokens = 8 * a.x_columns;
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
    unsigned char *to = a.xq + static_cast<size_t>(tile) * a.steps * (2 * kColumn * a.x_columns) +
                        token / 8 * kColumn;

    for (int base = 0; base < groups; base += kThreads / 8) {
        const int group = base + static_cast<int>(threadIdx.x) / 8;
        const bool keep = group < groups;

        lmq_quantize_group<8>(x + 32 * group, aligned, word, aux, offset, token % 8, group % 2,
                              keep, to + static_cast<size_t>(group / 2) * (kColumn * a.x_columns));
    }
}

} // namespace

extern "C" trm_status trmi_lmq_quantize(trm_dtype dtype, const trmi_lmq_args *args,
                                        cudaStream_t stream)
{
    return trmi_launched(TRM_LAUNCH(lm_quantize_kernel, static_cast<unsigned>(args->m), kThreads, 0,
                                    stream, *args, trmi_lmq_aux_of(dtype),
                                    trmi_lmq_seed_offset(dtype),
                                    reinterpret_cast<uintptr_t>(args->x) % 16 == 0),
                         "quantised activations");
}
