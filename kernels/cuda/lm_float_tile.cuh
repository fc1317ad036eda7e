/* `tile` of lm_float.h: blocks of 128 features and kWarpsM * kTiles * 8 rows.
 *
 * Chunks of K come through a ring of kStages stages of shared memory, by cp.async: 8 KB of weights
 * in the order in which lanes read them (whatever their form in memory), and rows of x of 64 bytes
 * each. Both are read as whole fragments, 16 bytes a lane: eight lanes of a load take 128 bytes
 * that lie together, so there are no bank conflicts, and no ldmatrix. A warp has kPanels panels and
 * kTiles tiles of 8 rows: with 4 and 4 it reads 6 KB for 32 instructions, which is about as long
 * as those take. One barrier a chunk: what is written next is the stage that all have just left.
 *
 * fp8 weights become BF16 on their way into registers, by every warp that has them: so few warps
 * have the same panel, and each has many rows. With scales of blocks a thread also has the sums of
 * a block. Where registers are short, only the top of a stack is in them.
 *
 * Blocks are as many as fit the device, each takes one piece of work after the other, so that
 * memory for stacks (lm_float.cuh: sums) is bounded by the device, not by the product. */
#ifndef TRM_KERNELS_CUDA_LM_FLOAT_TILE_CUH
#define TRM_KERNELS_CUDA_LM_FLOAT_TILE_CUH

#include "kernels/cuda/lm_float.cuh"

namespace trmi_lmf
{

template <class W, int kWarpsN, int kWarpsM, int kPanelsEach, int kTilesEach, int kStagesEach,
          int kBlocksEach>
struct tile_shape {
    using weight = W;
    static constexpr int kThreads = 32 * kWarpsN * kWarpsM, kPanels = kPanelsEach;
    static constexpr int kColumns = kWarpsN, kTiles = kTilesEach, kStages = kStagesEach;
    static constexpr int kRows = kWarpsM * kTilesEach * 8, kResident = kBlocksEach;
    static constexpr int kPanelBytes = W::kCopies * 16; /* of a chunk */
    static constexpr bool kHolds = kTilesEach < 8 && kThreads * kBlocksEach <= 256;
    static constexpr int kWeightBytes = TRMI_LMF_TILE_PANELS * kPanelBytes;
    static constexpr int kStageBytes = kWeightBytes + kRows * 64;
    static constexpr int kLevel = TRMI_LMF_TILE_PANELS * TRMI_LMF_PANEL * kRows; /* numbers */
    static_assert(kWarpsN * kPanelsEach == TRMI_LMF_TILE_PANELS, "128 features");
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kResident)
    lm_tile(const __grid_constant__ trmi_lmf_args a, int panel_tiles, int64_t row_tiles)
{
    using W = typename S::weight;
    using T = typename W::type;
    constexpr bool kOfBlock = W::kScaling == OF_BLOCK;
    constexpr int kPanels = S::kPanels, kTiles = S::kTiles, kStages = S::kStages;
    constexpr int kWeightLoads = S::kWeightBytes / 16 / S::kThreads;
    constexpr int kRowLoads = (S::kRows * 4 + S::kThreads - 1) / S::kThreads;
    TRM_DYN_SMEM(unsigned char, smem);
    const int id = static_cast<int>(threadIdx.x), lane = id % 32, warp = id / 32;
    const int g = lane / 4, t = lane % 4;
    const int warp_panel = warp % S::kColumns * kPanels, warp_tile = warp / S::kColumns * kTiles;
    const trmi_lmf_plan &plan = a.plan;
    const int64_t works = panel_tiles * row_tiles * plan.workers;
    const size_t row_bytes = a.form.k_padded * sizeof(T);
    float *const stack = a.stack + static_cast<size_t>(blockIdx.x) * a.depth * S::kLevel + id;

    const unsigned char *weights[kWeightLoads] = {}, *from[kRowLoads];
    int first = 0, end = 0; /* chunks */
    auto stage_of = [&](int chunk) { return smem + (chunk - first) % kStages * S::kStageBytes; };
    auto begin = [&](const piece &at, int expert) {
#pragma unroll
        for (int i = 0; i < kWeightLoads; i++) {
            const int load = id + i * S::kThreads;

            weights[i] =
                panel_data(a, at.panel_tile * TRMI_LMF_TILE_PANELS + load / W::kCopies, expert) +
                W::copy_from(a.form, load % W::kCopies);
        }
        first = plan.begin[plan.first[at.worker]] / TRMI_LMF_CHUNK;
        end = (plan.begin[plan.first[at.worker + 1]] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK;
    };
    auto bring_weights = [&](int chunk) {
        if (chunk >= end)
            return;
#pragma unroll
        for (int i = 0; i < kWeightLoads; i++)
            trm_cp_async16(stage_of(chunk) + (id + i * S::kThreads) * 16,
                           weights[i] + chunk * a.form.chunk);
    };
    auto bring_rows = [&](int chunk) {
        if (chunk < end) {
#pragma unroll
            for (int i = 0; i < kRowLoads; i++)
                if (S::kRows * 4 % S::kThreads == 0 || id + i * S::kThreads < S::kRows * 4)
                    trm_cp_async16(stage_of(chunk) + S::kWeightBytes + (id + i * S::kThreads) * 16,
                                   from[i] + chunk * (TRMI_LMF_CHUNK * sizeof(T)));
        }
        trm_cp_async_commit();
    };

    /* as in `few`: the weights of the first piece do not wait for the rows */
    const bool early = a.experts == 0 && blockIdx.x < works;
    if (early) {
        begin(piece_of(blockIdx.x, panel_tiles, row_tiles), 0);
        for (int i = 0; i < kStages - 1; i++)
            bring_weights(first + i);
    }
    TRM_KERNEL_BEGIN();
    for (int64_t work = blockIdx.x; work < works; work += gridDim.x) {
        const piece at = piece_of(work, panel_tiles, row_tiles);
        const rows r = rows_of(a, at.row_tile, S::kRows);
        const int panel = at.panel_tile * TRMI_LMF_TILE_PANELS;
        const bool brought = early && work == blockIdx.x;

        if (r.count <= 0)
            continue;
#pragma unroll
        for (int i = 0; i < kRowLoads; i++) {
            const int load = id + i * S::kThreads, row = load / 4;
            const int inside = row < r.count ? row : r.count - 1; /* any row that there is */

            from[i] = static_cast<const unsigned char *>(a.rounded) +
                      static_cast<size_t>(r.first + inside) * row_bytes + load % 4 * 16;
        }
        if (!brought) {
            begin(at, r.expert);
            __syncthreads(); /* the piece before has left its stages */
        }
        for (int i = 0; i < kStages - 1; i++) {
            if (!brought)
                bring_weights(first + i);
            bring_rows(first + i);
        }

        sums<kPanels, kTiles * 4, S::kHolds> s;
        float block[kOfBlock ? kPanels : 1][kOfBlock ? kTiles * 4 : 1] = {};
        scales<kPanels> scale;
        int chunk = first, slot = plan.slot[at.worker];
        s.depth = 0;
        if (W::kScaling != UNSCALED) {
#pragma unroll
            for (int p = 0; p < kPanels; p++)
                scale.from[p] = panel_scales(a, panel + warp_panel + p, r.expert) + g;
            scale.template begin<W::kScaling>(a.form, first);
        }
        for (int leaf = plan.first[at.worker]; leaf < plan.first[at.worker + 1]; leaf++) {
            const int leaf_end = (plan.begin[leaf + 1] + TRMI_LMF_CHUNK - 1) / TRMI_LMF_CHUNK;

            s.clear();
            for (; chunk < leaf_end; chunk++) {
                const unsigned char *const stage =
                    smem + (chunk - first) % kStages * S::kStageBytes;
                const unsigned char *const w = stage + warp_panel * S::kPanelBytes;
                const quad *const x =
                    reinterpret_cast<const quad *>(stage + S::kWeightBytes + warp_tile * 512);
                quad low[kPanels], high[kPanels];

                trm_cp_async_wait<kStages - 2>();
                __syncthreads();
                bring_weights(chunk + kStages - 1);
                bring_rows(chunk + kStages - 1);
#pragma unroll
                for (int p = 0; p < kPanels; p++) {
                    typename W::fragment f;

                    f.fetch(w + p * S::kPanelBytes, lane, a.form.plain);
                    f.operands(low[p], high[p]);
                }
#pragma unroll
                for (int j = 0; j < kTiles; j++) {
                    const quad b = x[j * 32 + lane];

#pragma unroll
                    for (int p = 0; p < kPanels; p++) {
                        float *const sum = (kOfBlock ? block[kOfBlock ? p : 0] : s.top[p]) + j * 4;
                        float d[4] = {sum[0], sum[1], sum[2], sum[3]};

                        mma_chunk<T>(d, low[p], high[p], b);
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            sum[e] = d[e];
                    }
                }
                if constexpr (kOfBlock)
                    scale.add(block, s.top, chunk, chunk + 1 == leaf_end);
            }
            if (W::kScaling == OF_ROW)
                scale.multiply(s.top);
            leaf_done(
                a, s, leaf, &slot, r, panel + warp_panel, stack, S::kThreads, S::kLevel,
                [&](int e) { return g + e % 4 / 2 * 8; },
                [&](int e) { return (warp_tile + e / 4) * 8 + t * 2 + e % 2; });
        }
        trm_cp_async_wait<0>();
    }
}

template <class S> trm_status tile_launch(const trmi_lmf_args *a, int blocks, cudaStream_t stream)
{
    constexpr size_t kBytes = static_cast<size_t>(S::kStages) * S::kStageBytes;
    const int panel_tiles = (a->panels + TRMI_LMF_TILE_PANELS - 1) / TRMI_LMF_TILE_PANELS;
    static size_t allowed = kUnasked; /* one thread */

    TRM_CHECK(allow(lm_tile<S>, kBytes, &allowed));
    return trmi_launched(TRM_LAUNCH((lm_tile<S>), static_cast<unsigned>(blocks), S::kThreads,
                                    kBytes, stream, *a, panel_tiles, tiles_most(a, S::kRows)),
                         "lm_tile");
}

/* Few rows: four warps that have all of them, two blocks on a multiprocessor, as much on its way
 * as fits. Many: eight warps of 64 features and 32 rows; fp8, that a weight is converted by two
 * warps instead of four: 32 features and 64 rows. */
template <class W>
trm_status tile_any(const trmi_lmf_args *a, int rows, int blocks, cudaStream_t stream)
{
    constexpr bool kF8 = W::kBytes == 1;

    switch (rows) {
    case 16:
        return tile_launch<tile_shape<W, 4, 1, 2, 2, kF8 ? 12 : 8, 2>>(a, blocks, stream);
    case 32:
        return tile_launch<tile_shape<W, 4, 1, 2, 4, kF8 ? 12 : 8, 2>>(a, blocks, stream);
    case 64:
        return tile_launch<tile_shape<W, 4, kF8 ? 1 : 2, 2, kF8 ? 8 : 4, kF8 ? 8 : 6, 2>>(a, blocks,
                                                                                          stream);
    case 128:
        return tile_launch<tile_shape<W, kF8 ? 4 : 2, kF8 ? 2 : 4, kF8 ? 2 : 4, kF8 ? 8 : 4, 6, 1>>(
            a, blocks, stream);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "tiles of %d rows", rows);
    }
}

} // namespace trmi_lmf

#endif
