/* Sums between ranks. */
#include "kernels/cuda/group_sum.h"
#include "kernels/cuda/group_peer.cuh"

constexpr int kThreads = 256;

template <class T> struct alignas(16) group_vector {
    static constexpr int kCount = 16 / static_cast<int>(sizeof(T));
    T v[kCount];
};

static inline bool aligned16(const void *a, const void *b)
{
    return (reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) % 16 == 0;
}

/* What all ranks have at vector i of a slot, added. */
template <class T>
static __device__ group_vector<T> add_slots(const trmi_group_sum &g, uint32_t turn, uint32_t block,
                                            uint32_t i)
{
    using V = group_vector<T>;
    V x[TRMI_GROUP_PEERS], y;

#pragma unroll
    for (int r = 0; r < TRMI_GROUP_PEERS; r++)
        if (r < g.size)
            x[r] = reinterpret_cast<const V *>(g.memory[r]->slot[turn][block])[i];
#pragma unroll
    for (int k = 0; k < V::kCount; k++) {
        float sum = trm_up(x[0].v[k]);

#pragma unroll
        for (int r = 1; r < TRMI_GROUP_PEERS; r++)
            if (r < g.size)
                sum += trm_up(x[r].v[k]);
        y.v[k] = trm_down<T>(sum);
    }
    return y;
}

/* Block: elements [block * per, block * per + per). */
template <class T>
static __global__ void __launch_bounds__(kThreads)
    group_sum(T *out, const T *in, uint32_t elems, uint32_t per, bool wide,
              const __grid_constant__ trmi_group_sum g)
{
    TRM_KERNEL_BEGIN();
    using V = group_vector<T>;
    const uint32_t block = blockIdx.x, tid = threadIdx.x, begin = block * per;
    const uint32_t n = elems - begin < per ? elems - begin : per;
    const uint32_t vectors = wide ? n / V::kCount : 0, all = (n + V::kCount - 1) / V::kCount;
    trmi_group_memory *own = g.memory[g.rank];
    const uint32_t sum = own->count[block] + 1, turn = sum & 1;
    T *slot = reinterpret_cast<T *>(own->slot[turn][block]);

    if (__syncthreads_or(own->late != 0))
        return;
    in += begin;
    out += begin;
    for (uint32_t i = tid; i < vectors; i += kThreads)
        reinterpret_cast<V *>(slot)[i] = reinterpret_cast<const V *>(in)[i];
    for (uint32_t i = vectors * V::kCount + tid; i < n; i += kThreads)
        slot[i] = in[i];
    if (!meet_peers(g, block, sum))
        return;
    for (uint32_t i = tid; i < all; i += kThreads) {
        const V x = add_slots<T>(g, turn, block, i);

        if (i < vectors) {
            reinterpret_cast<V *>(out)[i] = x;
            continue;
        }
#pragma unroll
        for (int k = 0; k < V::kCount; k++)
            if (i * V::kCount + k < n)
                out[i * V::kCount + k] = x.v[k];
    }
    leave_peers(g, block, sum);
}

/* Thread: vectors, then single elements of the rest. */
template <class T>
static __global__ void __launch_bounds__(kThreads)
    group_parts(T *out, const T *own, const T *parts, size_t stride, size_t elems, size_t vectors,
                int rank, int size)
{
    TRM_KERNEL_BEGIN();
    using V = group_vector<T>;
    const size_t first = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    const size_t step = static_cast<size_t>(gridDim.x) * kThreads;

    for (size_t i = first; i < vectors; i += step) {
        float sum[V::kCount];
        V x;

        for (int r = 0; r < size; r++) {
            x = reinterpret_cast<const V *>(r == rank ? own
                                                      : parts + static_cast<size_t>(r) * stride)[i];
#pragma unroll
            for (int k = 0; k < V::kCount; k++)
                sum[k] = r == 0 ? trm_up(x.v[k]) : sum[k] + trm_up(x.v[k]);
        }
#pragma unroll
        for (int k = 0; k < V::kCount; k++)
            x.v[k] = trm_down<T>(sum[k]);
        reinterpret_cast<V *>(out)[i] = x;
    }
    for (size_t i = vectors * V::kCount + first; i < elems; i += step) {
        float sum = 0;

        for (int r = 0; r < size; r++) {
            const T x = r == rank ? own[i] : parts[static_cast<size_t>(r) * stride + i];

            sum = r == 0 ? trm_up(x) : sum + trm_up(x);
        }
        out[i] = trm_down<T>(sum);
    }
}

extern "C" trm_status trmi_cuda_group_sum(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                          const void *in, size_t elems, trm_dtype dtype,
                                          const trmi_group_sum *sum)
{
    const size_t bytes = elems * trm_dtype_bytes(dtype);
    /* an area's half for each block as long as there are blocks */
    const size_t half = TRMI_GROUP_AREA / 2;
    uint32_t blocks = static_cast<uint32_t>((bytes + half - 1) / half);

    (void)cuda;
    if (elems == 0)
        return TRM_OK;
    if (bytes > TRMI_GROUP_SUM_BYTES)
        return trm_fail(TRM_ERR_INVALID_ARG, "a sum of %zu bytes in one step: want at most %zu",
                        bytes, TRMI_GROUP_SUM_BYTES);
    blocks = blocks < TRMI_GROUP_BLOCKS ? blocks : TRMI_GROUP_BLOCKS;
    TRM_HALVES(dtype, T, {
        const size_t count = group_vector<T>::kCount;
        const uint32_t per =
            static_cast<uint32_t>(((elems + blocks - 1) / blocks + count - 1) / count * count);
        const uint32_t used = static_cast<uint32_t>((elems + per - 1) / per);

        return trmi_launched(TRM_LAUNCH(group_sum<T>, used, kThreads, 0, stream,
                                        static_cast<T *>(out), static_cast<const T *>(in),
                                        static_cast<uint32_t>(elems), per, aligned16(in, out),
                                        *sum),
                             "group_sum");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "a sum of %s in one step", trm_dtype_name(dtype));
}

template <class T>
static trm_status add_parts(const trm_cuda *cuda, cudaStream_t stream, T *out, const T *own,
                            const T *parts, size_t stride, size_t elems, int rank, int size)
{
    constexpr size_t kCount = group_vector<T>::kCount;
    const bool wide = aligned16(out, own) && aligned16(parts, nullptr) && stride % kCount == 0;
    const size_t vectors = wide ? elems / kCount : 0;
    const size_t need = ((wide ? elems / kCount + 1 : elems) + kThreads - 1) / kThreads;
    const size_t most = static_cast<size_t>(cuda->multiprocessors) * 8;
    const uint32_t blocks = static_cast<uint32_t>(need < most ? need : most);

    return trmi_launched(TRM_LAUNCH(group_parts<T>, blocks, kThreads, 0, stream, out, own, parts,
                                    stride, elems, vectors, rank, size),
                         "group_parts");
}

extern "C" trm_status trmi_cuda_group_parts(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                            const void *own, const void *parts, size_t stride,
                                            size_t elems, trm_dtype dtype, int rank, int size)
{
    if (elems == 0)
        return TRM_OK;
    if (dtype == TRM_DTYPE_F16)
        return add_parts(cuda, stream, static_cast<__half *>(out), static_cast<const __half *>(own),
                         static_cast<const __half *>(parts), stride, elems, rank, size);
    if (dtype == TRM_DTYPE_BF16)
        return add_parts(cuda, stream, static_cast<__nv_bfloat16 *>(out),
                         static_cast<const __nv_bfloat16 *>(own),
                         static_cast<const __nv_bfloat16 *>(parts), stride, elems, rank, size);
    return trm_fail(TRM_ERR_UNSUPPORTED, "a sum of parts of %s", trm_dtype_name(dtype));
}
