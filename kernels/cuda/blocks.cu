/* Copies of strided blocks: the grid's second dim is the block. */
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/move_tile.cuh"

static_assert(sizeof(trmi_blocks) <= 4096 - 2 * sizeof(void *), "arguments of a kernel");

/* Thread: one unit after another of a block, run fastest, so that a warp covers neighbours of a run
 * and, where runs are short, of the fastest dim. */
template <class V, class I>
static __global__ void __launch_bounds__(kMoveThreads)
    blocks_copy(const V *__restrict__ from, V *__restrict__ to,
                const __grid_constant__ trmi_blocks all)
{
    TRM_KERNEL_BEGIN();
    const trmi_block &b = all.block[blockIdx.y];

    MOVE_LOOP(I, i, b.count)
    {
        I rest = i;
        const I in_run = move_split(rest, b.run);
        const I d0 = move_split(rest, b.dims[0]);
        const I d1 = move_split(rest, b.dims[1]);

        to[b.to_at + in_run + d0 * b.to_step[0] + d1 * b.to_step[1] + rest * b.to_step[2]] =
            from[b.from_at + in_run + d0 * b.from_step[0] + d1 * b.from_step[1] +
                 rest * b.from_step[2]];
    }
}

template <class V, class I>
static trm_status copy(const trm_cuda *cuda, cudaStream_t stream, void *to, const void *from,
                       uint64_t most, const trmi_blocks *blocks)
{
    const dim3 grid(move_blocks(cuda, most), blocks->count);

    return trmi_launched(TRM_LAUNCH((blocks_copy<V, I>), grid, kMoveThreads, 0, stream,
                                    static_cast<const V *>(from), static_cast<V *>(to), *blocks),
                         "blocks_copy");
}

extern "C" trm_status trmi_cuda_blocks(const trm_cuda *cuda, cudaStream_t stream, void *to,
                                       const void *from, int unit, const trmi_blocks *blocks)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < blocks->count; i++)
        most = blocks->block[i].count > most ? blocks->block[i].count : most;
    if (most == 0)
        return TRM_OK;
    MOVE_UNITS(unit, V, {
        MOVE_INDEX(most, I, { return copy<V, I>(cuda, stream, to, from, most, blocks); })
    })
}
