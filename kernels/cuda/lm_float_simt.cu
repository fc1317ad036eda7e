/* `simt` of lm_float.h: products whose activations stay fp32, on CUDA cores. Every number is a
 * chain of FMAs over K in order, from zero for each leaf. fp8 weights are scaled first: rounded
 * once.
 *
 * A block of 256 threads takes 64 features and kRows rows, 32 terms at a time: weights and rows of
 * x go through shared memory, laid out so that a thread reads its four features (16 apart: one of
 * each panel) and its kRows / 16 rows by one load each, while the next piece of weights is already
 * on its way to registers. */
#include "kernels/cuda/lm_float.cuh"

using namespace trmi_lmf;

namespace
{

constexpr int kThreads = 256, kFeatures = TRMI_LMF_SIMT_PANELS * TRMI_LMF_PANEL;

template <class W, int kRows>
__global__ void __launch_bounds__(kThreads, kRows == 16 ? 3 : 2)
    lm_simt(const __grid_constant__ trmi_lmf_args a, int panel_tiles, int64_t row_tiles)
{
    using T = typename W::element;
    constexpr int kPanels = TRMI_LMF_SIMT_PANELS, kEach = kRows / 16, kStep = TRMI_LMF_CHUNK;
    constexpr int kLevel = kFeatures * kRows, kLoads = kRows * kStep / kThreads;
    __shared__ __align__(16) float ws[kStep][16][kPanels], xs[kStep][16][kEach];
    const int id = static_cast<int>(threadIdx.x), column = id % 16, row = id / 16;
    const trmi_lmf_plan &plan = a.plan;
    const int64_t works = panel_tiles * row_tiles * plan.workers;
    float *const stack = a.stack + static_cast<size_t>(blockIdx.x) * a.depth * kLevel + id;

    TRM_KERNEL_BEGIN();
    for (int64_t work = blockIdx.x; work < works; work += gridDim.x) {
        const piece at = piece_of(work, panel_tiles, row_tiles);
        const rows r = rows_of(a, at.row_tile, kRows);
        const int panel = at.panel_tile * kPanels;

        if (r.count <= 0)
            continue;
        /* this thread's eight elements of a chunk of weights */
        const int feature = id / 4;
        const T *const w = reinterpret_cast<const T *>(
            panel_data(a, panel + feature / 16, r.expert) + feature % 16 / 8 * a.form.half +
            feature % 8 * a.form.row + id % 4 * (8 * sizeof(T)));
        const float *const scale =
            W::kScaling == UNSCALED
                ? nullptr
                : panel_scales(a, panel + feature / 16, r.expert) + feature % 16;
        /* and its elements of rows of x: neighbours along K */
        const float *x[kLoads];
#pragma unroll
        for (int i = 0; i < kLoads; i++) {
            const int wanted = id / kStep + i * (kThreads / kStep);
            const int inside = r.first + (wanted < r.count ? wanted : r.count - 1);

            x[i] = a.x + static_cast<size_t>(a.row_of != nullptr ? a.row_of[inside] : inside) * a.k;
        }
        const int end =
            (plan.begin[plan.first[at.worker + 1]] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK;
        int chunk = plan.begin[plan.first[at.worker]] / TRMI_LMF_CHUNK;
        alignas(8 * sizeof(T) < 16 ? 8 : 16) T next[8];
        float next_x[kLoads], next_scale = 1.0f;
        auto bring = [&](int c) {
            if (c >= end)
                return;
            const unsigned char *const from =
                reinterpret_cast<const unsigned char *>(w + static_cast<size_t>(c) * kStep);
            if constexpr (sizeof(next) < sizeof(quad)) {
                const uint2 q = __ldcs(reinterpret_cast<const uint2 *>(from));

                memcpy(next, &q, sizeof(q));
            } else {
#pragma unroll
                for (int i = 0; i < static_cast<int>(8 * sizeof(T) / sizeof(quad)); i++) {
                    const quad q = load_stream(from + i * sizeof(quad));

                    memcpy(reinterpret_cast<unsigned char *>(next) + i * sizeof(q), &q, sizeof(q));
                }
            }
            if (W::kScaling != UNSCALED)
                next_scale = scale[W::kScaling == OF_BLOCK ? c / kBlockChunks * TRMI_LMF_PANEL : 0];
            const int k = c * kStep + id % kStep;
#pragma unroll
            for (int i = 0; i < kLoads; i++)
                next_x[i] = k < a.k ? x[i][k] : 0.0f;
        };
        sums<kPanels, kEach> s;
        int slot = plan.slot[at.worker];

        s.depth = 0;
        bring(chunk);
        for (int leaf = plan.first[at.worker]; leaf < plan.first[at.worker + 1]; leaf++) {
            const int leaf_end = (plan.begin[leaf + 1] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK;

            s.clear();
            for (; chunk < leaf_end; chunk++) {
                __syncthreads();
#pragma unroll
                for (int i = 0; i < 8; i++)
                    ws[id % 4 * 8 + i][feature % 16][feature / 16] =
                        W::kScaling == UNSCALED ? W::up(next[i])
                                                : __fmul_rn(next_scale, W::up(next[i]));
#pragma unroll
                for (int i = 0; i < kLoads; i++) {
                    const int at = id / kStep + i * (kThreads / kStep); /* row */

                    xs[id % kStep][at % 16][at / 16] = next_x[i];
                }
                __syncthreads();
                bring(chunk + 1);
#pragma unroll 8
                for (int k = 0; k < kStep; k++) {
                    float f[kPanels], y[kEach];

                    memcpy(f, ws[k][column], sizeof(f)); /* 16 bytes at once */
                    memcpy(y, xs[k][row], sizeof(y));
#pragma unroll
                    for (int p = 0; p < kPanels; p++)
#pragma unroll
                        for (int e = 0; e < kEach; e++)
                            s.top[p][e] = __fmaf_rn(f[p], y[e], s.top[p][e]);
                }
            }
            leaf_done(
                a, s, leaf, &slot, r, panel, stack, kThreads, kLevel, [&](int) { return column; },
                [&](int e) { return row + e * 16; });
        }
    }
}

template <class W, int kRows>
trm_status launch(const trmi_lmf_args *a, int blocks, cudaStream_t stream)
{
    const int panel_tiles = (a->panels + TRMI_LMF_SIMT_PANELS - 1) / TRMI_LMF_SIMT_PANELS;

    return trmi_launched(TRM_LAUNCH((lm_simt<W, kRows>), static_cast<unsigned>(blocks), kThreads, 0,
                                    stream, *a, panel_tiles, tiles_most(a, kRows)),
                         "lm_simt");
}

template <class W>
trm_status choose(const trmi_lmf_args *a, int rows, int blocks, cudaStream_t stream)
{
    return rows == 16 ? launch<W, 16>(a, blocks, stream) : launch<W, 64>(a, blocks, stream);
}

} // namespace

extern "C" trm_status trmi_lmf_simt(const trmi_lmf_args *a, int rows, int blocks,
                                    cudaStream_t stream)
{
    TRM_HALVES(a->form.dtype, T, { return choose<dense<T>>(a, rows, blocks, stream); })
    switch (a->form.dtype) {
    case TRM_DTYPE_F8_ROW:
        return choose<f8_row>(a, rows, blocks, stream);
    case TRM_DTYPE_F8_128:
        return choose<f8_128>(a, rows, blocks, stream);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "weights of %s", trm_dtype_name(a->form.dtype));
    }
}
