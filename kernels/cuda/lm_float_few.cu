/* `few` of lm_float.h: products with up to 8 rows a tile (4 where rows are not sorted by expert),
 * bound by how fast weights come from memory.
 *
 * A block of 8 warps takes kPanels panels, all of K: its warps divide the leaves. A lane reads its
 * 2 x 16 bytes of a chunk straight into registers, a warp's load instruction 512 bytes that lie
 * together (64 a row in plain form). While kAhead chunks are multiplied, the next are on their
 * way: 4 KB a warp, 64 KB a multiprocessor with two blocks, where 40 KB keep HBM3 busy. Weights
 * are read once and leave x to L1 and L2; it is converted on its way into the fragments, which at
 * so few rows is no work. Leaves meet in shared memory, where each result is folded by one thread:
 * [slot][panel][row][16]. */
#include "kernels/cuda/lm_float.cuh"

using namespace trmi_lmf;

namespace
{

constexpr int kWarps = TRMI_LMF_WORKERS, kThreads = kWarps * 32, kRows = 8;
constexpr int kFragment = kRows * TRMI_LMF_PANEL;

/* Elements [k, k + 8) of a row of `all`, zeros past the end. */
struct eight {
    float v[8];
};
__device__ __forceinline__ eight x_wide(const float *row, int k)
{
    const float4 a = *reinterpret_cast<const float4 *>(row + k);
    const float4 b = *reinterpret_cast<const float4 *>(row + k + 4);

    return eight{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ __forceinline__ eight x_any(const float *row, int k, int all)
{
    eight e;

#pragma unroll
    for (int i = 0; i < 8; i++)
        e.v[i] = k + i < all ? row[k + i] : 0.0f;
    return e;
}
template <class T> __device__ __forceinline__ quad x_round(const eight &e)
{
    return quad{{pair<T>(e.v[0], e.v[1]), pair<T>(e.v[2], e.v[3]), pair<T>(e.v[4], e.v[5]),
                 pair<T>(e.v[6], e.v[7])}};
}

/* What a lane has of kAhead chunks of a row: as they are in memory, until they are multiplied. */
template <class T, int kAhead, bool kRounded> struct columns {
    eight e[kAhead];

    __device__ __forceinline__ void load(const trmi_lmf_args &a, int row, int c, int t)
    {
        const float *const x = a.x + static_cast<size_t>(row) * a.k;
        const bool wide = a.k % 4 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;

        if (wide && (c + kAhead) * TRMI_LMF_CHUNK <= a.k) {
#pragma unroll
            for (int i = 0; i < kAhead; i++)
                e[i] = x_wide(x, (c + i) * TRMI_LMF_CHUNK + t * 8);
        } else {
#pragma unroll
            for (int i = 0; i < kAhead; i++)
                e[i] = x_any(x, (c + i) * TRMI_LMF_CHUNK + t * 8, a.k);
        }
    }
    __device__ __forceinline__ quad at(int i) const
    {
        return x_round<T>(e[i]);
    }
};
/* Rounded before: whole chunks; past the last one it again, which nobody multiplies. */
template <class T, int kAhead> struct columns<T, kAhead, true> {
    quad q[kAhead];

    __device__ __forceinline__ void load(const trmi_lmf_args &a, int row, int c, int t)
    {
        const T *const x = static_cast<const T *>(a.rounded) + static_cast<size_t>(row) * a.k;
        const int last = a.k / TRMI_LMF_CHUNK - 1;

#pragma unroll
        for (int i = 0; i < kAhead; i++)
            q[i] = *reinterpret_cast<const quad *>(
                x + (c + i < last ? c + i : last) * TRMI_LMF_CHUNK + t * 8);
    }
    __device__ __forceinline__ quad at(int i) const
    {
        return q[i];
    }
};

/* kAhead chunks of kPanels panels. */
template <int kPanels, int kAhead> struct ahead {
    quad low[kAhead][kPanels], high[kAhead][kPanels];

    /* from chunk c on, none past the last one */
    __device__ __forceinline__ void load(const unsigned char *const (&w)[kPanels],
                                         const trmi_lmf_form &form, int c, int last)
    {
#pragma unroll
        for (int i = 0; i < kAhead; i++) {
            const size_t at = static_cast<size_t>(c + i < last ? c + i : last) * form.chunk;

#pragma unroll
            for (int p = 0; p < kPanels; p++) {
                low[i][p] = load_stream(w[p] + at);
                high[i][p] = load_stream(w[p] + at + form.half);
            }
        }
    }
};

template <class T, int kPanels, bool kRounded>
__global__ void __launch_bounds__(kThreads, 2) lm_few(const __grid_constant__ trmi_lmf_args a)
{
    constexpr int kAhead = kPanels == 1 ? 4 : 2;
    TRM_DYN_SMEM(float, slots);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int g = lane / 4, t = lane % 4, panel = static_cast<int>(blockIdx.x) * kPanels;
    const trmi_lmf_plan &plan = a.plan;
    const bool works = warp < plan.workers;
    const int leaf_first = works ? plan.first[warp] : 0,
              leaf_end = works ? plan.first[warp + 1] : 0;
    const int first = plan.begin[leaf_first] / TRMI_LMF_CHUNK;
    const int end = (plan.begin[leaf_end] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK;
    const unsigned char *w[kPanels] = {};
    ahead<kPanels, kAhead> now, next;

    /* Weights that do not depend on what kernels before this one write are asked for while those
     * still run: they were written when the model was loaded. */
    if (a.experts == 0 && first < end) {
#pragma unroll
        for (int p = 0; p < kPanels; p++)
            w[p] = panel_data(a, panel + p, 0) + g * a.form.row + t * 16;
        now.load(w, a.form, first, end - 1);
    }
    TRM_KERNEL_BEGIN();
    const rows r = rows_of(a, static_cast<int>(blockIdx.y), kRows);
    if (r.count <= 0)
        return;
    if (a.experts > 0 && first < end) {
#pragma unroll
        for (int p = 0; p < kPanels; p++)
            w[p] = panel_data(a, panel + p, r.expert) + g * a.form.row + t * 16;
        now.load(w, a.form, first, end - 1);
    }

    /* rows past the last one are computed from the first, and not stored */
    const int mine = r.first + (g < r.count ? g : 0);
    const int row_of_x = a.row_of != nullptr ? a.row_of[mine] : mine;
    float sum[kPanels][4] = {};
    int leaf = leaf_first, leaf_stop = 0;
    auto flush = [&]() {
#pragma unroll
        for (int p = 0; p < kPanels; p++) {
            float *const to = slots + (leaf * kPanels + p) * kFragment;

#pragma unroll
            for (int e = 0; e < 4; e++) {
                to[(t * 2 + e % 2) * TRMI_LMF_PANEL + g + e / 2 * 8] = sum[p][e];
                sum[p][e] = 0.0f;
            }
        }
        leaf++;
    };
    auto stop_of = [&]() { return (plan.begin[leaf + 1] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK; };

    if (works && first == end) /* K is 0 */
        flush();
    else if (works)
        leaf_stop = stop_of();
    for (int c = first; c < end; c += kAhead) {
        columns<T, kAhead, kRounded> x;

        x.load(a, row_of_x, c, t);
        if (c + kAhead < end)
            next.load(w, a.form, c + kAhead, end - 1);
#pragma unroll
        for (int i = 0; i < kAhead; i++) {
            if (c + i < end) {
                const quad b = x.at(i);

#pragma unroll
                for (int p = 0; p < kPanels; p++)
                    mma_chunk<T>(sum[p], now.low[i][p], now.high[i][p], b);
                if (c + i + 1 == leaf_stop) {
                    flush();
                    leaf_stop = leaf < leaf_end ? stop_of() : 0;
                }
            }
        }
        now = next;
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

template <class T, int kPanels, bool kRounded>
trm_status launch(const trmi_lmf_args *a, cudaStream_t stream)
{
    const size_t bytes = static_cast<size_t>(a->plan.slots) * kPanels * kFragment * sizeof(float);
    const int64_t tiles = tiles_most(a, kRows);
    const dim3 grid(static_cast<unsigned>((a->panels + kPanels - 1) / kPanels),
                    static_cast<unsigned>(tiles));
    static size_t allowed = kUnasked; /* one thread */

    if (tiles > 65535)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a product of few rows with %lld tiles",
                        static_cast<long long>(tiles));
    TRM_CHECK(allow(lm_few<T, kPanels, kRounded>, bytes, &allowed));
    return trmi_launched(
        TRM_LAUNCH((lm_few<T, kPanels, kRounded>), grid, kThreads, bytes, stream, *a), "lm_few");
}

template <class T> trm_status choose(const trmi_lmf_args *a, cudaStream_t stream)
{
    if (a->rounded != nullptr)
        return a->gated != TRMI_LMC_ACT_COUNT ? launch<T, 2, true>(a, stream)
                                              : launch<T, 1, true>(a, stream);
    return a->gated != TRMI_LMC_ACT_COUNT ? launch<T, 2, false>(a, stream)
                                          : launch<T, 1, false>(a, stream);
}

} // namespace

extern "C" trm_status trmi_lmf_few(const trmi_lmf_args *a, cudaStream_t stream)
{
    return a->form.dtype == TRM_DTYPE_F16 ? choose<__half>(a, stream)
                                          : choose<__nv_bfloat16>(a, stream);
}
