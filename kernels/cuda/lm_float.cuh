/* What kernels of lm_float.h share: where panels and rows are, how leaves are folded, where results
 * go. */
#ifndef TRM_KERNELS_CUDA_LM_FLOAT_CUH
#define TRM_KERNELS_CUDA_LM_FLOAT_CUH

#include "kernels/cuda/lm_act.cuh"
#include "kernels/cuda/lm_float.h"

#include <string.h>

namespace trmi_lmf
{

/* 16 bytes, of any type. */
struct alignas(16) quad {
    uint32_t x[4];
};

__device__ __forceinline__ quad load_stream(const unsigned char *from)
{
    const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(from));

    return quad{{v.x, v.y, v.z, v.w}};
}

/* Two numbers rounded, as one register, lo in the low half. */
template <class T> __device__ __forceinline__ uint32_t pair(float lo, float hi)
{
    const T two[2] = {trm_down<T>(lo), trm_down<T>(hi)};
    uint32_t bits;

    memcpy(&bits, two, sizeof(bits));
    return bits;
}

__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __half)
{
    trm_mma_m16n8k16_f16(d, a, b, d);
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __nv_bfloat16)
{
    trm_mma_m16n8k16_bf16(d, a, b, d);
}
/* A chunk of 32: what a lane has of the panel's rows g and g + 8, and of x. */
template <class T>
__device__ __forceinline__ void mma_chunk(float (&d)[4], const quad &low, const quad &high,
                                          const quad &x)
{
#pragma unroll
    for (int s = 0; s < 2; s++) {
        const uint32_t a[4] = {low.x[2 * s], high.x[2 * s], low.x[2 * s + 1], high.x[2 * s + 1]};
        const uint32_t b[2] = {x.x[2 * s], x.x[2 * s + 1]};

        mma(d, a, b, T());
    }
}

/* Rows of a tile: [first, first + count) of the product, of one expert. */
struct rows {
    int first, count, expert;
};

/* Tile `tile` of `most` rows each. With experts a tile has rows of one only, and which it is shows
 * in `starts`: whole warps call this. */
__device__ __forceinline__ rows rows_of(const trmi_lmf_args &a, int tile, int most)
{
    rows r = {tile * most, 0, 0};

    if (a.experts == 0) {
        r.count = a.m - r.first < most ? a.m - r.first : most;
        return r;
    }
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int before = 0; /* tiles of the experts passed by */

    /* four experts a lane: their numbers are all asked for at once */
    for (int e0 = 0; e0 < a.experts; e0 += 4 * 32) {
        int at[5], own = 0;

#pragma unroll
        for (int i = 0; i < 5; i++) {
            const int e = e0 + lane * 4 + i;

            at[i] = a.starts[e < a.experts ? e : a.experts];
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            own += (at[i + 1] - at[i] + most - 1) / most;
        int sum = own;
#pragma unroll
        for (int by = 1; by < 32; by *= 2) {
            const int other = __shfl_up_sync(0xffffffffu, sum, by);

            sum += lane >= by ? other : 0;
        }
        const unsigned past = __ballot_sync(0xffffffffu, before + sum > tile);
        if (past != 0) {
            const int owner = __ffs(static_cast<int>(past)) - 1;
            int in = tile - before - __shfl_sync(0xffffffffu, sum - own, owner);

#pragma unroll
            for (int i = 0; i < 5; i++)
                at[i] = __shfl_sync(0xffffffffu, at[i], owner);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int tiles = (at[i + 1] - at[i] + most - 1) / most;

                if (in >= 0 && in < tiles) {
                    r.expert = e0 + owner * 4 + i;
                    r.first = at[i] + in * most;
                    r.count = at[i + 1] - r.first < most ? at[i + 1] - r.first : most;
                }
                in -= tiles;
            }
            return r;
        }
        before += __shfl_sync(0xffffffffu, sum, 31);
    }
    return r;
}
/* Tiles that there can be, whatever `starts` says. */
inline int64_t tiles_most(const trmi_lmf_args *a, int most)
{
    const int64_t even = (a->m + most - 1) / most, more = a->m / most + a->experts;

    return a->experts == 0 ? even : more < a->m ? more : a->m;
}

/* A panel among those of all segments; past the last one: the last one again. */
struct place {
    int segment, panel;
};
__device__ __forceinline__ place place_of(const trmi_lmf_args &a, int panel)
{
    place at = {0, panel < a.panels ? panel : a.panels - 1};

    if (a.gated != TRMI_LMC_ACT_COUNT)
        return place{at.panel % 2, at.panel / 2};
    while (at.segment + 1 < a.segments && at.panel >= a.segment[at.segment].panels)
        at.panel -= a.segment[at.segment++].panels;
    return at;
}
__device__ __forceinline__ const unsigned char *panel_data(const trmi_lmf_args &a, int panel,
                                                           int expert)
{
    const place at = place_of(a, panel);
    const trmi_lmf_segment &s = a.segment[at.segment];

    return s.weight + expert * s.stride + at.panel * a.form.panel;
}

/* Not inlined: a thread of a tile has dozens of results, and activations are long. */
__device__ inline __attribute__((noinline)) float gated_of(int act, float y, float up)
{
    return trm_lm_gated(act, y, up);
}

/* Number `at` of a result, rounded as the products that read it would round it. */
__device__ __forceinline__ void put(void *out, int rounds, size_t at, float y)
{
    if (rounds == TRM_DTYPE_BF16)
        static_cast<__nv_bfloat16 *>(out)[at] = trm_down<__nv_bfloat16>(y);
    else if (rounds == TRM_DTYPE_F16)
        static_cast<__half *>(out)[at] = trm_down<__half>(y);
    else
        static_cast<float *>(out)[at] = y;
}

/* One number of a result: feature `column` of the panel at `at`, row `row`, of part `part`; with
 * gated `up` is the next panel's. */
__device__ __forceinline__ void store(const trmi_lmf_args &a, place at, int column, int part,
                                      int row, float y, float up)
{
    const trmi_lmf_segment &s = a.segment[at.segment];
    const int n = at.panel * TRMI_LMF_PANEL + column;

    if (n >= s.n)
        return;
    if (s.bias != nullptr)
        y = __fadd_rn(y, s.bias[n]);
    if (a.gated != TRMI_LMC_ACT_COUNT) {
        if (a.segment[1].bias != nullptr)
            up = __fadd_rn(up, a.segment[1].bias[n]);
        y = gated_of(a.gated, y, up);
    }
    put(s.out, a.rounds, (static_cast<size_t>(part) * a.m + row) * s.n + n, y);
}

/* A worker's sums of kPanels panels, kEach numbers a panel, over its leaves. The top of the stack
 * but one is in registers, since half of all leaves are added to it at once; what is below lies in
 * memory that only this thread uses, numbers `step` apart, levels `level` apart. */
template <int kPanels, int kEach> struct sums {
    float top[kPanels][kEach], held[kPanels][kEach];
    int depth; /* with held */

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int p = 0; p < kPanels; p++)
#pragma unroll
            for (int e = 0; e < kEach; e++)
                top[p][e] = 0.0f;
    }
    __device__ __forceinline__ void push(float *memory, int step, int level)
    {
        if (depth > 0) {
            float *to = memory + static_cast<size_t>(depth - 1) * level;

#pragma unroll
            for (int p = 0; p < kPanels; p++)
#pragma unroll
                for (int e = 0; e < kEach; e++)
                    to[(p * kEach + e) * step] = held[p][e];
        }
        depth++;
#pragma unroll
        for (int p = 0; p < kPanels; p++)
#pragma unroll
            for (int e = 0; e < kEach; e++)
                held[p][e] = top[p][e];
    }
    /* top = held + top */
    __device__ __forceinline__ void merge(const float *memory, int step, int level)
    {
#pragma unroll
        for (int p = 0; p < kPanels; p++)
#pragma unroll
            for (int e = 0; e < kEach; e++)
                top[p][e] = __fadd_rn(held[p][e], top[p][e]);
        depth--;
        if (depth > 0) {
            const float *from = memory + static_cast<size_t>(depth - 1) * level;

#pragma unroll
            for (int p = 0; p < kPanels; p++)
#pragma unroll
                for (int e = 0; e < kEach; e++)
                    held[p][e] = from[(p * kEach + e) * step];
        }
    }
};

/* What is left of a worker's loop after the last chunk of leaf `leaf`: merges, and where a slot is
 * whole, out it goes: to the results, where one worker has it all, else to the workspace.
 * column_of(e), row_of(e): feature in its panel, and row of the tile, of number e. */
template <int kPanels, int kEach, class Column, class Row>
__device__ __forceinline__ void leaf_done(const trmi_lmf_args &a, sums<kPanels, kEach> &s, int leaf,
                                          int *slot, const rows &r, int panel, float *memory,
                                          int step, int level, Column column_of, Row row_of)
{
    const trmi_lmf_plan &plan = a.plan;

    for (int i = plan.merges[leaf]; i > 0; i--)
        s.merge(memory, step, level);
    if (leaf + 1 != plan.ends[*slot]) {
        s.push(memory, step, level);
        return;
    }
    const bool gated = a.gated != TRMI_LMC_ACT_COUNT, whole = plan.workers == 1;
    const int by = gated && whole ? 2 : 1;

#pragma unroll
    for (int p = 0; p < kPanels; p++) {
        if (panel + p >= a.panels || p % by != 0)
            continue;
        const place at = place_of(a, panel + p);
#pragma unroll
        for (int e = 0; e < kEach; e++) {
            const int row = row_of(e), column = column_of(e);

            if (row >= r.count)
                continue;
            if (whole)
                store(a, at, column, *slot, r.first + row, s.top[p][e],
                      p + 1 < kPanels ? s.top[p + 1 < kPanels ? p + 1 : p][e] : 0.0f);
            else
                a.slots[(static_cast<size_t>(*slot) * a.m + r.first + row) * a.panels *
                            TRMI_LMF_PANEL +
                        (panel + p) * TRMI_LMF_PANEL + column] = s.top[p][e];
        }
    }
    (*slot)++;
}

/* Which part of the work number `work` is, of `panel_tiles` times `row_tiles` tiles times workers:
 * eight tiles of panels, all tiles of rows, the next eight: what runs at a time shares weights and
 * rows in L2. */
struct piece {
    int panel_tile, row_tile, worker;
};
constexpr int kGroup = 8;
__device__ __forceinline__ piece piece_of(int64_t work, int panel_tiles, int64_t row_tiles)
{
    const int64_t tiles = panel_tiles * row_tiles, tile = work % tiles;
    const int group = static_cast<int>(tile / (kGroup * row_tiles));
    const int left = panel_tiles - group * kGroup, wide = left < kGroup ? left : kGroup;
    const int64_t in = tile - group * kGroup * row_tiles;

    return piece{group * kGroup + static_cast<int>(in % wide), static_cast<int>(in / wide),
                 static_cast<int>(work / tiles)};
}

/* Shared memory above 48 KB is asked for. *allowed: what the kernel has, at first kUnasked; never
 * lowered, since captured launches rely on it. */
constexpr size_t kUnasked = 48 * 1024;
template <class Kernel> inline trm_status allow(Kernel kernel, size_t bytes, size_t *allowed)
{
    if (bytes <= *allowed)
        return TRM_OK;
    TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(bytes))));
    *allowed = bytes;
    return TRM_OK;
}

} // namespace trmi_lmf

#endif
