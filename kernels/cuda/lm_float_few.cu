/* `few` of lm_float.h: products with up to 8 rows a tile (4 where rows are not sorted by expert),
 * bound by how fast weights come from memory.
 *
 * A block of 8 warps takes kPanels panels, all of K: its warps divide the leaves. A lane reads its
 * 2 x 16 bytes of a chunk straight into registers, a warp's load instruction 512 bytes that lie
 * together (64 a row in plain form), kAhead chunks before the first of them is used: with three
 * blocks on a multiprocessor some 96 KB are on their way, where 40 KB keep HBM3 busy. Weights are
 * read once: they do not displace x, which L1 and L2 keep, and which is converted on its way into
 * the fragments: at so few rows that is no work. Leaves meet in shared memory, where each result is
 * folded by one thread: [slot][panel][row][16]. */
#include "kernels/cuda/lm_float.cuh"

using namespace trmi_lmf;

namespace
{

constexpr int kWarps = TRMI_LMF_WORKERS, kThreads = kWarps * 32, kRows = 8;
constexpr int kFragment = kRows * TRMI_LMF_PANEL;

/* Elements [k, k + 8) of a row of `all`, rounded; zeros past the end. */
template <class T>
__device__ __forceinline__ quad x_load(const float *row, int k, int all, bool wide)
{
    float v[8];

    if (wide && k + 8 <= all) {
        const float4 a = *reinterpret_cast<const float4 *>(row + k);
        const float4 b = *reinterpret_cast<const float4 *>(row + k + 4);

        v[0] = a.x;
        v[1] = a.y;
        v[2] = a.z;
        v[3] = a.w;
        v[4] = b.x;
        v[5] = b.y;
        v[6] = b.z;
        v[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = k + i < all ? row[k + i] : 0.0f;
    }
    return quad{
        {pair<T>(v[0], v[1]), pair<T>(v[2], v[3]), pair<T>(v[4], v[5]), pair<T>(v[6], v[7])}};
}

template <class T, int kPanels>
__global__ void __launch_bounds__(kThreads, kPanels == 1 ? 3 : 2)
    lm_few(const __grid_constant__ trmi_lmf_args a)
{
    constexpr int kAhead = kPanels == 1 ? 4 : 2;
    TRM_DYN_SMEM(float, slots);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int g = lane / 4, t = lane % 4, panel = static_cast<int>(blockIdx.x) * kPanels;
    const trmi_lmf_plan &plan = a.plan;

    TRM_KERNEL_BEGIN();
    const rows r = rows_of(a, static_cast<int>(blockIdx.y), kRows);
    if (r.count <= 0)
        return;

    const unsigned char *w[kPanels];
#pragma unroll
    for (int p = 0; p < kPanels; p++)
        w[p] = panel_data(a, panel + p, r.expert) + g * a.form.row + t * 16;
    const int source = g >= r.count          ? -1
                       : a.row_of != nullptr ? a.row_of[r.first + g]
                                             : r.first + g;
    const float *const x = source < 0 ? nullptr : a.x + static_cast<size_t>(source) * a.k;
    const bool wide = a.k % 4 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
    const size_t half = a.form.half, chunk = a.form.chunk;

    if (warp < plan.workers) {
        for (int leaf = plan.first[warp]; leaf < plan.first[warp + 1]; leaf++) {
            const int end = (plan.begin[leaf + 1] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK;
            float sum[kPanels][4] = {};
            int c = plan.begin[leaf] / TRMI_LMF_CHUNK;

            for (; c + kAhead <= end; c += kAhead) {
                quad low[kAhead][kPanels], high[kAhead][kPanels], b[kAhead];

#pragma unroll
                for (int i = 0; i < kAhead; i++) {
#pragma unroll
                    for (int p = 0; p < kPanels; p++) {
                        low[i][p] = load_stream(w[p] + (c + i) * chunk);
                        high[i][p] = load_stream(w[p] + (c + i) * chunk + half);
                    }
                }
#pragma unroll
                for (int i = 0; i < kAhead; i++)
                    b[i] = x == nullptr ? quad{{0, 0, 0, 0}}
                                        : x_load<T>(x, (c + i) * TRMI_LMF_CHUNK + t * 8, a.k, wide);
#pragma unroll
                for (int i = 0; i < kAhead; i++)
#pragma unroll
                    for (int p = 0; p < kPanels; p++)
                        mma_chunk<T>(sum[p], low[i][p], high[i][p], b[i]);
            }
            for (; c < end; c++) {
                const quad b = x == nullptr ? quad{{0, 0, 0, 0}}
                                            : x_load<T>(x, c * TRMI_LMF_CHUNK + t * 8, a.k, wide);

#pragma unroll
                for (int p = 0; p < kPanels; p++)
                    mma_chunk<T>(sum[p], load_stream(w[p] + c * chunk),
                                 load_stream(w[p] + c * chunk + half), b);
            }
#pragma unroll
            for (int p = 0; p < kPanels; p++) {
                float *const to = slots + (leaf * kPanels + p) * kFragment;

#pragma unroll
                for (int e = 0; e < 4; e++)
                    to[(t * 2 + e % 2) * TRMI_LMF_PANEL + g + e / 2 * 8] = sum[p][e];
            }
        }
    }
    __syncthreads();

    /* one result a thread; what is below the top of its stack lies in the slots it has read */
    constexpr int kBy = kPanels; /* with two panels, gated: a thread has both */
    const bool gated = a.gated != TRMI_LMC_ACT_COUNT;
    const int i = static_cast<int>(threadIdx.x), row = i / TRMI_LMF_PANEL;
    if (i >= kFragment || row >= r.count)
        return;
    float top[kBy];
    int depth = 0, part = 0;
    for (int s = 0; s < plan.slots; s++) {
        if (depth > 0) {
#pragma unroll
            for (int p = 0; p < kBy; p++)
                slots[((depth - 1) * kBy + p) * kFragment + i] = top[p];
        }
        depth++;
#pragma unroll
        for (int p = 0; p < kBy; p++)
            top[p] = slots[(s * kBy + p) * kFragment + i];
        for (int j = plan.folds[s]; j > 0; j--) {
            depth--;
#pragma unroll
            for (int p = 0; p < kBy; p++)
                top[p] = __fadd_rn(slots[((depth - 1) * kBy + p) * kFragment + i], top[p]);
        }
        if (s + 1 != plan.last[part])
            continue;
#pragma unroll
        for (int p = 0; p < kBy; p++) {
            if (panel + p < a.panels && (!gated || p == 0))
                store(a, place_of(a, panel + p), i % TRMI_LMF_PANEL, part, r.first + row, top[p],
                      top[kBy - 1]);
        }
        depth = 0;
        part++;
    }
}

template <class T, int kPanels> trm_status launch(const trmi_lmf_args *a, cudaStream_t stream)
{
    const size_t bytes = static_cast<size_t>(a->plan.slots) * kPanels * kFragment * sizeof(float);
    const int64_t tiles = tiles_most(a, kRows);
    const dim3 grid(static_cast<unsigned>((a->panels + kPanels - 1) / kPanels),
                    static_cast<unsigned>(tiles));

    if (tiles > 65535)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a product of few rows with %lld tiles",
                        static_cast<long long>(tiles));
    TRM_CHECK(allow(lm_few<T, kPanels>, bytes));
    return trmi_launched(TRM_LAUNCH((lm_few<T, kPanels>), grid, kThreads, bytes, stream, *a),
                         "lm_few");
}

template <class T> trm_status choose(const trmi_lmf_args *a, cudaStream_t stream)
{
    return a->gated != TRMI_LMC_ACT_COUNT ? launch<T, 2>(a, stream) : launch<T, 1>(a, stream);
}

} // namespace

extern "C" trm_status trmi_lmf_few(const trmi_lmf_args *a, cudaStream_t stream)
{
    return a->form.dtype == TRM_DTYPE_F16 ? choose<__half>(a, stream)
                                          : choose<__nv_bfloat16>(a, stream);
}
