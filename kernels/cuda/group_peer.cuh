/* How a block of a kernel meets the same block of the other ranks' kernels (group_sum.h). */
#ifndef TRM_KERNELS_CUDA_GROUP_PEER_CUH
#define TRM_KERNELS_CUDA_GROUP_PEER_CUH

#include "kernels/cuda/group_sum.h"
#include "kernels/cuda/gpu.cuh"

constexpr uint32_t kStopEvery = 1024; /* waits between two looks at host memory */

/* Waits until peer r has come to sum n. False: it did not, or the host says stop. */
static __device__ bool await_peer(const trmi_group_sum &g, const uint32_t *ready, uint32_t n)
{
    const uint64_t start = trm_clock_ns();

    for (uint32_t turn = 1;; turn++) {
        if (static_cast<int32_t>(trm_load_acquire_sys(ready) - n) >= 0)
            return true;
        if (turn % kStopEvery == 0 && trm_load_acquire_sys(&g.words->stop) != 0)
            return false;
        if (trm_clock_ns() - start > g.limit_ns)
            return false;
        trm_spin_pause();
    }
}

/* All threads of a block, whose slot has been filled for sum number `sum`: tells the peers, and
 * waits for theirs. False, for all threads: one has not come. Thereafter slots are read by plain
 * loads: they come after the acquiring load of the thread that waited, through the barrier. */
static __device__ bool meet_peers(const trmi_group_sum &g, uint32_t block, uint32_t sum)
{
    trmi_group_memory *own = g.memory[g.rank];
    const uint32_t tid = threadIdx.x;
    bool came = true;

    __syncthreads();
    if (tid < static_cast<uint32_t>(g.size) && tid != static_cast<uint32_t>(g.rank)) {
        trm_store_release_sys(&g.memory[tid]->ready[g.rank][block], sum);
        came = await_peer(g, &own->ready[tid][block], sum);
        if (!came) {
            own->late = 1;
            trm_store_release_sys(&g.words->late, 1 + tid);
        }
    }
    return __syncthreads_or(!came) == 0;
}

/* All threads of a block, which has read what it needs. */
[[maybe_unused]] static __device__ void leave_peers(const trmi_group_sum &g, uint32_t block, uint32_t sum)
{
    const uint32_t tid = threadIdx.x;

    __syncthreads();
    if (tid < static_cast<uint32_t>(g.size) && tid != static_cast<uint32_t>(g.rank))
        trm_store_release_sys(&g.memory[tid]->done[g.rank][block], sum);
    if (tid == 0)
        g.memory[g.rank]->count[block] = sum;
}

#endif
