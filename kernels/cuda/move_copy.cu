/* The strided copy engine on the device. */
#include "kernels/cuda/move.h"

#include "kernels/cuda/move_tile.cuh"

/* Thread: vectors V, then single bytes of the rest. */
template <class V>
__global__ void __launch_bounds__(kMoveThreads)
    copy_flat(const V *__restrict__ in, V *__restrict__ out, uint64_t vectors, uint64_t bytes)
{
    TRM_KERNEL_BEGIN();
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;

    for (uint64_t i = first; i < vectors; i += step)
        out[i] = in[i];
    for (uint64_t i = vectors * sizeof(V) + first; i < bytes; i += step)
        reinterpret_cast<uint8_t *>(out)[i] = reinterpret_cast<const uint8_t *>(in)[i];
}

template <class V>
static trm_status flat(const trm_cuda *cuda, cudaStream_t stream, void *out, const void *in,
                       size_t bytes)
{
    const uint64_t vectors = bytes / sizeof(V);

    return trmi_launched(TRM_LAUNCH(copy_flat<V>, move_blocks(cuda, vectors > 0 ? vectors : bytes),
                                    kMoveThreads, 0, stream, static_cast<const V *>(in),
                                    static_cast<V *>(out), vectors, static_cast<uint64_t>(bytes)),
                         "copy_flat");
}

extern "C" trm_status trmi_cuda_copy_flat(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                          const void *in, size_t bytes)
{
    const uintptr_t bits = reinterpret_cast<uintptr_t>(in) | reinterpret_cast<uintptr_t>(out);

    if (bytes == 0 || in == out)
        return TRM_OK;
    if (bits % 16 == 0)
        return flat<move_wide>(cuda, stream, out, in, bytes);
    if (bits % 4 == 0)
        return flat<uint32_t>(cuda, stream, out, in, bytes);
    return flat<uint8_t>(cuda, stream, out, in, bytes);
}
