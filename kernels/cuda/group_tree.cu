/* Sums by the summation tree: a thread has four neighbouring elements of all parts. */
#include "kernels/cuda/group_tree.cuh"

constexpr int kThreads = 256;

/* ---- in peers' memory ---- */

/* Block: elements [block * per, block * per + per); part p of a rank lies at p * per of its slot.
 */
template <int kDepth>
static __global__ void __launch_bounds__(kThreads)
    group_tree_sum(float *out, const float *in, size_t stride, uint32_t elems, uint32_t per,
                   int mine, bool wide, const __grid_constant__ trmi_group_tree tree,
                   const __grid_constant__ trmi_group_sum g)
{
    TRM_KERNEL_BEGIN();
    const uint32_t block = blockIdx.x, tid = threadIdx.x, begin = block * per;
    const uint32_t n = elems - begin < per ? elems - begin : per;
    const uint32_t vectors = wide ? n / 4 : 0, all = (n + 3) / 4;
    trmi_group_memory *own = g.memory[g.rank];
    const uint32_t sum = own->count[block] + 1, turn = sum & 1;
    float *slot = reinterpret_cast<float *>(own->slot[turn][block]);

    if (__syncthreads_or(own->late != 0))
        return;
    out += begin;
    for (int p = 0; p < mine; p++) {
        const float *from = in + static_cast<size_t>(p) * stride + begin;
        float *to = slot + static_cast<uint32_t>(p) * per;

        for (uint32_t i = tid; i < vectors; i += kThreads)
            reinterpret_cast<tree_vector *>(to)[i] = reinterpret_cast<const tree_vector *>(from)[i];
        for (uint32_t i = vectors * 4 + tid; i < n; i += kThreads)
            to[i] = from[i];
    }
    if (!meet_peers(g, block, sum))
        return;
    for (uint32_t i = tid; i < all; i += kThreads) {
        const tree_vector x = add_tree<kDepth>(tree, [&](int k) {
            const unsigned char *there = g.memory[tree.rank[k]]->slot[turn][block];

            return reinterpret_cast<const tree_vector *>(there)[tree.part[k] * (per / 4) + i];
        });

        if (i < vectors) {
            reinterpret_cast<tree_vector *>(out)[i] = x;
            continue;
        }
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i * 4 + k < n)
                out[i * 4 + k] = x.v[k];
    }
    leave_peers(g, block, sum);
}

extern "C" size_t trmi_cuda_group_tree_max(const trmi_group_tree *tree)
{
    return TRMI_GROUP_BLOCKS *
           (TRMI_GROUP_AREA / sizeof(float) / static_cast<size_t>(tree->most) / 4 * 4);
}

static bool aligned16(const void *a, const void *b)
{
    return (reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) % 16 == 0;
}

extern "C" trm_status trmi_cuda_group_tree_sum(const trm_cuda *cuda, cudaStream_t stream,
                                               float *out, const float *in, size_t stride,
                                               size_t elems, const trmi_group_tree *tree,
                                               const trmi_group_sum *sum)
{
    /* an area's half for each block as long as there are blocks */
    const size_t half = TRMI_GROUP_AREA / 2 / sizeof(float);
    const size_t need = (elems * static_cast<size_t>(tree->most) + half - 1) / half;
    const size_t blocks = need < TRMI_GROUP_BLOCKS ? need : TRMI_GROUP_BLOCKS;
    const bool wide = aligned16(out, in) && stride % 4 == 0;
    uint32_t per, used;
    int mine = 0;

    (void)cuda;
    if (elems == 0)
        return TRM_OK;
    if (elems > trmi_cuda_group_tree_max(tree))
        return trm_fail(TRM_ERR_INVALID_ARG, "a sum of %zu elements in one step: want at most %zu",
                        elems, trmi_cuda_group_tree_max(tree));
    for (int i = 0; i < tree->count; i++)
        mine += tree->rank[i] == sum->rank;
    per = static_cast<uint32_t>(((elems + blocks - 1) / blocks + 3) / 4 * 4);
    used = static_cast<uint32_t>((elems + per - 1) / per);
    if (tree->depth <= 4)
        return trmi_launched(TRM_LAUNCH(group_tree_sum<4>, used, kThreads, 0, stream, out, in,
                                        stride, static_cast<uint32_t>(elems), per, mine, wide,
                                        *tree, *sum),
                             "group_tree_sum");
    return trmi_launched(TRM_LAUNCH(group_tree_sum<TRM_TREE_DEPTH_MAX>, used, kThreads, 0, stream,
                                    out, in, stride, static_cast<uint32_t>(elems), per, mine, wide,
                                    *tree, *sum),
                         "group_tree_sum");
}

/* ---- in this device's memory ---- */

template <int kDepth>
static __global__ void __launch_bounds__(kThreads)
    group_tree_local(float *out, size_t elems, bool wide,
                     const __grid_constant__ trmi_group_tree tree,
                     const __grid_constant__ trmi_group_tree_parts parts)
{
    TRM_KERNEL_BEGIN();
    const size_t vectors = (elems + 3) / 4, whole = wide ? elems / 4 : 0;
    const size_t step = static_cast<size_t>(gridDim.x) * kThreads;

    for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < vectors;
         i += step) {
        const tree_vector x = add_tree<kDepth>(tree, [&](int k) {
            tree_vector y = {};

            if (i < whole)
                return reinterpret_cast<const tree_vector *>(parts.at[k])[i];
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (i * 4 + e < elems)
                    y.v[e] = parts.at[k][i * 4 + e];
            return y;
        });

        if (i < whole) {
            reinterpret_cast<tree_vector *>(out)[i] = x;
            continue;
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (i * 4 + e < elems)
                out[i * 4 + e] = x.v[e];
    }
}

extern "C" trm_status trmi_cuda_group_tree_local(const trm_cuda *cuda, cudaStream_t stream,
                                                 float *out, const trmi_group_tree_parts *parts,
                                                 size_t elems, const trmi_group_tree *tree)
{
    const size_t need = ((elems + 3) / 4 + kThreads - 1) / kThreads;
    const size_t most = static_cast<size_t>(cuda->multiprocessors) * 8;
    const uint32_t blocks = static_cast<uint32_t>(need < most ? need : most);
    bool wide = aligned16(out, nullptr);

    if (elems == 0)
        return TRM_OK;
    for (int i = 0; i < tree->count; i++)
        wide = wide && aligned16(parts->at[i], nullptr);
    if (tree->depth <= 4)
        return trmi_launched(TRM_LAUNCH(group_tree_local<4>, blocks, kThreads, 0, stream, out,
                                        elems, wide, *tree, *parts),
                             "group_tree_local");
    return trmi_launched(TRM_LAUNCH(group_tree_local<TRM_TREE_DEPTH_MAX>, blocks, kThreads, 0,
                                    stream, out, elems, wide, *tree, *parts),
                         "group_tree_local");
}
