/* The product's kernel for block types (lm_quant.h); instantiated a type a file.
 *
 * A warp has a panel of 16 features and some of its leaves. Weights are mma's A: m16n8k32 takes a
 * group of 32 of K at once, and its eight columns are what the warp has of tokens: 8 tokens and one
 * leaf, or 4 tokens and 2 leaves, or 2 tokens and 4 leaves. With several leaves each leaf's values
 * are multiplied with zeros in the columns of the others, so that their dots come to lie in lanes
 * that would otherwise have nothing: scaling, which takes most of the instructions, is shared by
 * the leaves. Dots are exact, so it makes no difference to the bits.
 *
 * Weights travel by cp.async into a ring of each warp: a step (128 of K) of a panel is one
 * contiguous piece of 0.6 to 2.2 KB. One or more steps are always on their way, whatever the
 * compiler does with registers, and also while the block quantises its activations or folds its
 * leaves; the ring goes on into the block's next panel. A warp waits for its own copies only
 * (__syncwarp).
 *
 * Activations of more than two tokens are read where lm_quant_x.cu put them, 16 bytes a lane in the
 * order of B's registers: warps of a block read the same ones at nearly the same time, from L1; the
 * next columns are on their way while one is multiplied.
 *
 * Computed, not measured, for one token on an H200 (4.8 TB/s, 132 SMs at 1.9 GHz: 19 bytes a clock
 * and SM, which issues 4 instructions a clock); instructions counted in sm_90a's machine code. Of a
 * panel's group, with 4 leaves a warp:
 *
 *           bytes  clocks at 4.8 TB/s  instructions, of the slots   in flight on an SM
 *   Q4_K     296    15.5                31            50%           78 KB (16 warps)
 *   Q6_K     420    21.9                54            62%           81 KB (12 warps)
 *   Q8_0     544    28.4                21            18%           70 KB (8 warps)
 *
 * Latency times bandwidth is about 40 KB an SM, so memory should decide. All reads are coalesced,
 * and nothing is read twice but d of a superblock: 64 bytes in 2.4 KB (Q4_K), 32 in 3.4 (Q6_K),
 * from L2. With 2 leaves a warp Q4_K takes 46 instructions a group; with one (5 to 8 tokens) 73,
 * which is 1.2 times the slots. From 16 tokens on scaling decides: 37 instructions (Q4_K), 40
 * (Q6_K), 27 (Q8_0) for 16 x 8 x 32 products with 64 tokens, so 220, 205, 300 Top/s at most. */
#ifndef TRM_KERNELS_CUDA_LM_QUANT_CUH
#define TRM_KERNELS_CUDA_LM_QUANT_CUH

#include "kernels/cuda/lm_act.cuh"
#include "kernels/cuda/lm_quant_dot.cuh"

namespace
{

/* The rows that a block has: [first, first + count), at most `most`; their tile in xq. */
struct lmq_rows {
    int first, count, tile, expert;
};

/* blockIdx.y counts tiles of the experts that have rows. */
__device__ __forceinline__ lmq_rows find_rows(const trmi_lmq_args &a, int most)
{
    const int y = static_cast<int>(blockIdx.y), lane = threadIdx.x % 32;
    lmq_rows o = {y * most, a.m - y * most, y, 0};
    int before = 0;

    if (a.experts == 0) {
        o.count = o.count < most ? o.count : most;
        return o;
    }
    o.count = 0;
    for (int base = 0; base < a.experts; base += 32) {
        const int e = base + lane;
        const int start = e < a.experts ? a.starts[e] : 0;
        const int rows = e < a.experts ? a.starts[e + 1] - start : 0;
        const int tiles = (rows + most - 1) / most;
        int sum = tiles;

#pragma unroll
        for (int far = 1; far < 32; far *= 2) {
            const int other = __shfl_up_sync(~0u, sum, far);

            sum += lane >= far ? other : 0;
        }
        const int all = __shfl_sync(~0u, sum, 31);

        if (y < before + all) {
            const int who = __ffs(static_cast<int>(__ballot_sync(~0u, y < before + sum))) - 1;
            const int at = y - before - __shfl_sync(~0u, sum - tiles, who);
            const int first = __shfl_sync(~0u, start, who), count = __shfl_sync(~0u, rows, who);

            o.expert = base + who;
            o.first = first + at * most;
            o.count = count - at * most < most ? count - at * most : most;
            o.tile = first / most + o.expert + at;
            return o;
        }
        before += all;
    }
    return o;
}

/* Where the rows' first column is in xq. Tiles that came quantised may be larger than the block's.
 */
__device__ __forceinline__ size_t x_of(const trmi_lmq_args &a, const lmq_rows &rows, int column)
{
    const int tile = a.experts > 0 ? rows.tile : rows.first / a.x_tokens;
    const int in = a.experts > 0 ? 0 : rows.first % a.x_tokens;

    return (static_cast<size_t>(tile) * a.steps * (2 * a.x_tokens) + in / column * column) *
           TRMI_LMQ_X_TOKEN;
}

/* One or two rows that came quantised, in a column of two, to a column of kTokens in shared memory.
 * Pairs behind K are not copied: they are no leaf's. */
template <int kTokens>
__device__ __forceinline__ void copy_x(const trmi_lmq_args &a, int count, unsigned char *xs)
{
    constexpr int kFrom = 2 * TRMI_LMQ_X_TOKEN, kPair = kTokens * TRMI_LMQ_X_TOKEN;
    const int each = 4 * count + 2, items = (a.k + 63) / 64 * each; /* of 16 bytes */

    for (int item = threadIdx.x; item < items; item += blockDim.x) {
        const int pair = item / each, i = item % each, meta = i - 4 * count;

        trm_cp_async16(xs + pair * kPair + (meta < 0 ? i * 16 : kTokens * 64 + meta * 16),
                       a.xq + static_cast<size_t>(pair) * kFrom +
                           (meta < 0 ? i * 16 : 128 + meta * 16));
    }
    trm_cp_async_commit();
}

/* Steps of leaf `leaf`: [first, end). */
__device__ __forceinline__ int leaf_first(const trmi_lmq_args &a, int leaf)
{
    return a.begin[leaf] / 4;
}
__device__ __forceinline__ int leaf_end(const trmi_lmq_args &a, int leaf)
{
    return (a.begin[leaf + 1] + 3) / 4;
}

/* Where a warp is in what it copies: step `step` (from the beginning of its leaves) of set `set` of
 * leaves, in tile `tile`. Of each leaf: where its next step lies in the panel, how many it has. */
template <trm_dtype T, int kLeaves> struct lmq_cursor {
    static constexpr int kBytes = trmi_lmq_step_bytes(T), kTop = trmi_lmq_top_bytes(T);
    int tile, set, step, steps;
    uint32_t at[kLeaves];
    int count[kLeaves];
    bool odd[kLeaves];
    const unsigned char *panel; /* of the lane; NULL: the work is done */

    __device__ __forceinline__ void at_set(const trmi_lmq_args &a)
    {
        step = steps = 0;
#pragma unroll
        for (int j = 0; j < kLeaves; j++) {
            const int leaf = set * a.per_set + j;

            at[j] = 0;
            count[j] = 0;
            odd[j] = false;
            if (j < a.per_set && leaf < a.leaves) {
                const int from = leaf_first(a, leaf);

                at[j] = static_cast<uint32_t>(trmi_lmq_step_at(T, static_cast<size_t>(from)));
                count[j] = leaf_end(a, leaf) - from;
                odd[j] = from % 2 != 0;
                steps = count[j] > steps ? count[j] : steps;
            }
        }
    }
    __device__ __forceinline__ void at_tile(const trmi_lmq_args &a, int p, int first, int expert)
    {
        const int v = tile * a.panels_block + p;
        int s = 0, of_segment = v;

        set = first;
        panel = nullptr;
        if (v >= a.panels)
            return;
        if (a.gated != TRMI_LMC_ACT_COUNT) {
            s = v % 2;
            of_segment = v / 2;
        } else {
            while (s + 1 < a.segments && v >= a.segment[s + 1].panel_first)
                s++;
            of_segment = v - a.segment[s].panel_first;
        }
        panel = a.segment[s].data + static_cast<size_t>(expert) * a.segment[s].stride +
                static_cast<size_t>(of_segment) * a.panel_bytes + threadIdx.x % 32 * 16;
        at_set(a);
    }
    /* Copies a step to `stage` (the lane's place in it) and goes on to the next. */
    __device__ __forceinline__ void fetch(const trmi_lmq_args &a, int p, int first, int end,
                                          int expert, unsigned char *stage)
    {
        if (panel == nullptr)
            return;
#pragma unroll
        for (int j = 0; j < kLeaves; j++) {
            if (step < count[j]) {
#pragma unroll
                for (int i = 0; i < kBytes; i += 512)
                    if (i + 512 <= kBytes || static_cast<int>(threadIdx.x % 32) * 16 < kBytes - i)
                        trm_cp_async16(stage + j * kBytes + i, panel + at[j] + i);
            }
            at[j] += kBytes - kTop + (kTop > 0 && odd[j] ? kTop : 0);
            odd[j] = !odd[j];
        }
        if (++step < steps)
            return;
        if (++set < end) {
            at_set(a);
            return;
        }
        tile += static_cast<int>(gridDim.x);
        at_tile(a, p, first, expert);
    }
};

/* B's registers of a pair for eight columns, and what scales them: of each group {scale, aux} of
 * the lane's two columns. */
struct lmq_x {
    uint4 b, meta[2];
};

__device__ __forceinline__ lmq_x load_x(const unsigned char *b, const unsigned char *meta)
{
    lmq_x o;

    o.b = *reinterpret_cast<const uint4 *>(b);
    o.meta[0] = *reinterpret_cast<const uint4 *>(meta);
    o.meta[1] = *reinterpret_cast<const uint4 *>(meta + 16);
    return o;
}

/* A pair times a column of tokens. inside: which of the groups are the leaf's, unless all are. */
template <trm_dtype T, int kLeaves, bool kWhole>
__device__ __forceinline__ void multiply(const uint32_t (&values)[kLeaves][2][4],
                                         const row_scale (&scales)[2][2], const lmq_x &x,
                                         const bool (&inside)[2], int column, float (&acc)[4])
{
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const float scale[2] = {__uint_as_float(x.meta[k].x), __uint_as_float(x.meta[k].z)};
        const uint32_t aux[2] = {x.meta[k].y, x.meta[k].w};
        const uint32_t b0 = k == 0 ? x.b.x : x.b.z, b1 = k == 0 ? x.b.y : x.b.w;
        dots<T> dot;

        dot.begin(aux);
#pragma unroll
        for (int j = 0; j < kLeaves; j++) {
            const bool mine = kLeaves == 1 || column / (8 / kLeaves) == j;

            dot.add(values[j][k], mine ? b0 : 0u, mine ? b1 : 0u);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float sum =
                add_group<T>(acc[e], dot, e / 2, e % 2, scales[e / 2][k], scale[e % 2], aux[e % 2]);

            acc[e] = kWhole || inside[k] ? sum : acc[e];
        }
    }
}

/* Where a step's pieces are for a lane. w: the stage; w_a, top: pairs and d of its leaf there. x_b,
 * x_meta: its columns' activations. odd: bit j: leaf j's step is the second of a superblock. from,
 * groups: its leaf has groups [from, from + groups), counted from the step's first. x_pair: bytes
 * from a pair of x's tile to the next. */
struct lmq_step {
    const unsigned char *w, *w_a, *top, *x_b, *x_meta;
    int odd, from, x_pair;
    unsigned groups;
    int used; /* columns */
};

/* A step. Without branches between the products, whose results would be waited for one by one: so
 * there are two of it, kWhole where all groups are the leaf's and all columns are used. */
template <trm_dtype T, int kLeaves, int kTiles, bool kWhole>
__device__ __forceinline__ void multiply_step(const lmq_step &s, int lane, lmq_x (&x)[2],
                                              float (&acc)[kTiles][4])
{
    constexpr int kStep = trmi_lmq_step_bytes(T), kWeights = trmi_lmq_pair_bytes(T);
    constexpr int kTop = trmi_lmq_top_bytes(T), kPair = 8 / kLeaves * TRMI_LMQ_X_TOKEN;
    const int x_pair = s.x_pair, g = lane / 4;

#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
        uint32_t values[kLeaves][2][4];
        row_scale scales[2][2]; /* rows g and g + 8; groups */
        bool inside[2];

#pragma unroll
        for (int j = 0; j < kLeaves; j++)
            load_values<T>(s.w + j * kStep + pair * kWeights +
                               (kTop > 0 && (s.odd >> j & 1) != 0 ? kTop : 0),
                           lane, values[j]);
#pragma unroll
        for (int r = 0; r < 2; r++)
            load_scales<T>(s.w_a + pair * kWeights, s.top, g + 8 * r, scales[r]);
#pragma unroll
        for (int k = 0; k < 2; k++)
            inside[k] = static_cast<unsigned>(2 * pair + k - s.from) < s.groups;
        if constexpr (kLeaves > 1) {
            multiply<T, kLeaves, kWhole>(values, scales,
                                         load_x(s.x_b + pair * x_pair, s.x_meta + pair * x_pair),
                                         inside, g, acc[0]);
        } else {
            /* the next column's activations are on their way while one is multiplied */
#pragma unroll
            for (int n = 0; n < kTiles; n++) {
                const int at = pair * kTiles + n;

                if (n + 1 < kTiles) {
                    if (kWhole || n + 1 < s.used)
                        x[(at + 1) % 2] = load_x(s.x_b + (n + 1) * kPair + pair * x_pair,
                                                 s.x_meta + (n + 1) * kPair + pair * x_pair);
                } else if (pair == 0) {
                    x[(at + 1) % 2] = load_x(s.x_b + x_pair, s.x_meta + x_pair);
                }
                if (kWhole || kTiles == 1 || n < s.used)
                    multiply<T, kLeaves, kWhole>(values, scales, x[at % 2], inside, g, acc[n]);
            }
        }
    }
}

/* The tree over N = 2^i values. */
template <int N> __device__ __forceinline__ float tree(const float *at, int stride)
{
    if constexpr (N == 1)
        return at[0];
    else
        return __fadd_rn(tree<N / 2>(at, stride), tree<N / 2>(at + N / 2 * stride, stride));
}

/* Folds the values of an element, `stride` apart in shared memory by slot: what is left are the
 * parts, at the first values' places. The usual trees are added from registers, all loads at once;
 * others a value at a time, on a stack that takes the place of the values. */
__device__ __forceinline__ void fold(const trmi_lmq_args &a, float *at, int stride)
{
    const int apart = a.apart * stride;
    int height = 0;

    switch (a.even) {
    case 1:
        return;
    case 2:
        at[0] = tree<2>(at, apart);
        return;
    case 4:
        at[0] = tree<4>(at, apart);
        return;
    case 8:
        at[0] = tree<8>(at, apart);
        return;
    case 16:
        at[0] = tree<16>(at, apart);
        return;
    case 32:
        at[0] = tree<32>(at, apart);
        return;
    default:
        break;
    }
    for (int v = 0; v < a.values; v++) {
        float x = at[a.slot_of[v] * stride];

        for (int i = 0; i < a.outer[v]; i++)
            x = __fadd_rn(at[a.slot_of[--height] * stride], x);
        at[a.slot_of[height++] * stride] = x;
    }
}

template <trm_dtype T, int kLeaves, int kTiles>
__global__ void __launch_bounds__(32 * TRMI_LMQ_WARPS, kTiles == 8 ? 1 : 2)
    lm_quant_kernel(const __grid_constant__ trmi_lmq_args a)
{
    constexpr int kTokens = 8 / kLeaves, kRows = kTokens * kTiles;
    constexpr int kStep = trmi_lmq_step_bytes(T), kStages = trmi_lmq_stages(kLeaves);
    constexpr int kStage = kLeaves * kStep, kTop = trmi_lmq_top_bytes(T);
    constexpr int kWeights = trmi_lmq_pair_bytes(T); /* of a pair */
    constexpr int kSlot = TRMI_LMQ_PANEL * kRows, kPair = kTokens * TRMI_LMQ_X_TOKEN;
    TRM_DYN_SMEM(unsigned char, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int p = warp / a.splits, q = warp % a.splits; /* panel of the tile, share of leaves */
    const int first = a.sets * q / a.splits, end = a.sets * (q + 1) / a.splits;
    unsigned char *ring = shared + static_cast<size_t>(warp) * (kStages * kStage);
    float *slots = reinterpret_cast<float *>(shared + static_cast<size_t>(blockDim.x / 32) *
                                                          (kStages * kStage));
    unsigned char *xs = reinterpret_cast<unsigned char *>(slots + a.panels_block * a.slots * kSlot);

    TRM_KERNEL_BEGIN();
    const lmq_rows rows = find_rows(a, kRows);
    if (rows.count <= 0)
        return;
    /* tiles of tokens; the reduction tells the compiler that it is the same for all lanes */
    const int used = kLeaves > 1 ? 1 : __reduce_max_sync(~0u, (rows.count + 7) / 8);
    /* what one or two tokens need is made here, which saves a launch; or copied, if it was made */
    const bool own_x = kLeaves == 4 || (kLeaves == 2 && a.own);
    /* tokens of a column of x: with several columns they are whole ones */
    const int column = kTiles > 1 || own_x || a.x_tokens >= kTokens ? kTokens : a.x_tokens;
    const int x_pair = own_x ? kPair : a.x_tokens * TRMI_LMQ_X_TOKEN;
    const unsigned char *x = own_x ? xs : a.xq + x_of(a, rows, column);
    lmq_cursor<T, kLeaves> ahead;
    int stage = 0; /* the one to be read next, in bytes of the ring */

    if (own_x && a.x == nullptr)
        copy_x<kTokens>(a, rows.count, xs);
    ahead.tile = static_cast<int>(blockIdx.x);
    ahead.at_tile(a, p, first, rows.expert);
    for (int s = 0; s < kStages - 1; s++) {
        ahead.fetch(a, p, first, end, rows.expert, ring + s * kStage + lane * 16);
        trm_cp_async_commit();
    }
    if (own_x && a.x == nullptr) {
        trm_cp_async_wait<kStages - 1>(); /* all but the ring's */
        __syncthreads();
    } else if (own_x) {
        const int groups = a.k / 32;

        lmq_quantize<kTokens>(groups * rows.count, reinterpret_cast<uintptr_t>(a.x) % 16 == 0,
                              trmi_lmq_aux_of(T), trmi_lmq_seed_offset(T), [&](int item) {
                                  const int token = item >= groups ? 1 : 0;
                                  const int group = item - token * groups;

                                  return lmq_group{a.x + static_cast<size_t>(item) * 32, token,
                                                   group, xs + group / 2 * kPair};
                              });
        __syncthreads();
    }
    for (int tile = static_cast<int>(blockIdx.x); tile < a.tiles;
         tile += static_cast<int>(gridDim.x)) {
        const bool mine = tile * a.panels_block + p < a.panels;
        float *own = slots + p * a.slots * kSlot;
        int height = a.slot_first[q]; /* where the next value goes */

        for (int set = first; mine && set < end; set++) {
            /* the leaf of the lane's accumulators and the one of its column of B */
            const int leaf0 = set * a.per_set;
            int leaf_a = leaf0 + t * kLeaves / 4, leaf_b = leaf0 + g / kTokens;
            const bool real = t * kLeaves / 4 < a.per_set && leaf_a < a.leaves;
            float acc[kTiles][4] = {};
            int steps = 0, parity = 0; /* parity: of each leaf's first step */

            leaf_a = real ? leaf_a : leaf0;
            leaf_b = g / kTokens < a.per_set && leaf_b < a.leaves ? leaf_b : leaf0;
#pragma unroll
            for (int j = 0; j < kLeaves; j++) {
                if (j < a.per_set && leaf0 + j < a.leaves) {
                    const int n = leaf_end(a, leaf0 + j) - leaf_first(a, leaf0 + j);

                    steps = n > steps ? n : steps;
                    parity |= leaf_first(a, leaf0 + j) % 2 << j;
                }
            }
            const int first_a = leaf_first(a, leaf_a), first_b = leaf_first(a, leaf_b);
            /* groups of the lane's leaf, from its first step on */
            int skip = a.begin[leaf_a] - 4 * first_a;
            unsigned groups = real ? a.begin[leaf_a + 1] - a.begin[leaf_a] : 0;
            const int stage_a = kLeaves > 1 && real ? t * kLeaves / 4 * kStep : 0;
            if (kLeaves == 1) {
                skip = __reduce_max_sync(~0u, skip);
                groups = __reduce_max_sync(~0u, groups);
                steps = __reduce_max_sync(~0u, steps);
            }
            const unsigned char *x_b = x + (g % column * 4 + t) * 16;
            const unsigned char *x_meta = x + column * 64 + 2 * t % column / 2 * 32;

            for (int i = 0; i < steps; i++) {
                lmq_step s;
                const bool odd = (first_a + i) % 2 != 0;
                /* leaves of a set may be shorter than its longest, and end with K */
                int at_b = first_b + i, at_a = first_a + i;

                if (kLeaves > 1) {
                    at_b = at_b < a.steps ? at_b : a.steps - 1;
                    at_a = at_a < a.steps ? at_a : a.steps - 1;
                }
                s.w = ring + stage;
                s.w_a = s.w + stage_a + (kTop > 0 && odd ? kTop : 0);
                s.top = s.w + stage_a + (kTop > 0 && odd ? 0 : 2 * kWeights);
                s.x_b = x_b + static_cast<size_t>(at_b) * (2 * x_pair);
                s.x_meta = x_meta + static_cast<size_t>(at_a) * (2 * x_pair);
                s.x_pair = x_pair;
                s.odd = i % 2 != 0 ? ~parity : parity;
                s.from = skip - 4 * i;
                s.groups = groups;
                s.used = used;

                lmq_x first_x[2] = {};

                if constexpr (kLeaves == 1)
                    first_x[0] = load_x(s.x_b, s.x_meta);
                trm_cp_async_wait<kStages - 2>();
                __syncwarp(); /* all copies are here; and all have read the stage to be filled */
                ahead.fetch(a, p, first, end, rows.expert,
                            ring + (stage == 0 ? (kStages - 1) * kStage : stage - kStage) +
                                lane * 16);
                trm_cp_async_commit();
                stage = stage == (kStages - 1) * kStage ? 0 : stage + kStage;
                if (kLeaves == 1 && used == kTiles && s.from <= 0 &&
                    s.from + static_cast<int>(groups) >= 4)
                    multiply_step<T, kLeaves, kTiles, true>(s, lane, first_x, acc);
                else
                    multiply_step<T, kLeaves, kTiles, false>(s, lane, first_x, acc);
            }
            if constexpr (kLeaves > 1) {
                if (real)
                    *reinterpret_cast<float4 *>(own + leaf_a * kSlot +
                                                (g * (kTokens / 2) + t % (kTokens / 2)) * 4) =
                        make_float4(acc[0][0], acc[0][1], acc[0][2], acc[0][3]);
            } else {
                int merges = a.local[leaf0];

                for (; merges > 0; merges--) {
                    height--;
#pragma unroll
                    for (int n = 0; n < kTiles; n++) {
                        const float4 left = *reinterpret_cast<const float4 *>(own + height * kSlot +
                                                                              n * 128 + lane * 4);

                        acc[n][0] = __fadd_rn(left.x, acc[n][0]);
                        acc[n][1] = __fadd_rn(left.y, acc[n][1]);
                        acc[n][2] = __fadd_rn(left.z, acc[n][2]);
                        acc[n][3] = __fadd_rn(left.w, acc[n][3]);
                    }
                }
#pragma unroll
                for (int n = 0; n < kTiles; n++)
                    *reinterpret_cast<float4 *>(own + height * kSlot + n * 128 + lane * 4) =
                        make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
                height++;
            }
        }
        __syncthreads();
        /* an element a thread, neighbours along N */
        const bool gated = a.gated != TRMI_LMC_ACT_COUNT;
        const int outputs = gated ? a.panels_block / 2 : a.panels_block;

        for (int at = threadIdx.x; at < outputs * kRows * TRMI_LMQ_PANEL; at += blockDim.x) {
            const int feature = at % TRMI_LMQ_PANEL, token = at / TRMI_LMQ_PANEL % kRows;
            const int which = at / (TRMI_LMQ_PANEL * kRows), row = feature % 8, high = feature / 8;
            const int inside = token / kTokens * 128 +
                               (row * (kTokens / 2) + token % kTokens / 2) * 4 + high * 2 +
                               token % 2;
            const int v = tile * a.panels_block + (gated ? 2 * which : which);
            int s = 0;

            if (token >= rows.count || v >= a.panels)
                continue;
            while (!gated && s + 1 < a.segments && v >= a.segment[s + 1].panel_first)
                s++;
            const int column =
                (gated ? v / 2 : v - a.segment[s].panel_first) * TRMI_LMQ_PANEL + feature;
            const trmi_lmq_segment &seg = a.segment[s];
            float *value = slots + (gated ? 2 * which : which) * a.slots * kSlot + inside;
            const size_t to = static_cast<size_t>(rows.first + token) * seg.n + column;

            if (column >= seg.n)
                continue;
            fold(a, value, kSlot);
            if (gated)
                fold(a, value + a.slots * kSlot, kSlot);
            for (int part = 0; part < a.parts; part++) {
                float y = value[a.slot_of[part] * kSlot];

                if (seg.bias != nullptr)
                    y = __fadd_rn(y, seg.bias[column]);
                if (gated) {
                    float z = value[(a.slots + a.slot_of[part]) * kSlot];

                    if (a.segment[1].bias != nullptr)
                        z = __fadd_rn(z, a.segment[1].bias[column]);
                    y = trm_lm_gated(a.gated, y, z);
                }
                seg.out[static_cast<size_t>(part) * a.m * seg.n + to] = y;
            }
        }
        __syncthreads();
    }
}

template <trm_dtype T, int kLeaves, int kTiles>
trm_status lmq_launch(const trmi_lmq_args *a, unsigned grid_x, unsigned grid_y, size_t bytes,
                      cudaStream_t stream)
{
    static size_t allowed = 48 * 1024; /* never lowered: captured launches rely on it; one thread */

    if (bytes > allowed) {
        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(lm_quant_kernel<T, kLeaves, kTiles>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(bytes))));
        allowed = bytes;
    }
    return trmi_launched(TRM_LAUNCH((lm_quant_kernel<T, kLeaves, kTiles>), dim3(grid_x, grid_y),
                                    static_cast<unsigned>(32 * a->panels_block * a->splits), bytes,
                                    stream, *a),
                         "product with block types");
}

template <trm_dtype T>
trm_status lmq_run(trmi_lmq_variant variant, const trmi_lmq_args *a, unsigned grid_x,
                   unsigned grid_y, size_t bytes, cudaStream_t stream)
{
    switch (variant) {
    case TRMI_LMQ_2:
        return lmq_launch<T, 4, 1>(a, grid_x, grid_y, bytes, stream);
    case TRMI_LMQ_4:
        return lmq_launch<T, 2, 1>(a, grid_x, grid_y, bytes, stream);
    case TRMI_LMQ_8:
        return lmq_launch<T, 1, 1>(a, grid_x, grid_y, bytes, stream);
    case TRMI_LMQ_16:
        return lmq_launch<T, 1, 2>(a, grid_x, grid_y, bytes, stream);
    case TRMI_LMQ_32:
        return lmq_launch<T, 1, 4>(a, grid_x, grid_y, bytes, stream);
    case TRMI_LMQ_64:
        return lmq_launch<T, 1, 8>(a, grid_x, grid_y, bytes, stream);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "product kernel %d", static_cast<int>(variant));
    }
}

} // namespace

#define TRMI_LMQ_DEFINE(name, type)                                                                \
    extern "C" trm_status trmi_lmq_run_##name(trmi_lmq_variant variant, const trmi_lmq_args *args, \
                                              unsigned grid_x, unsigned grid_y,                    \
                                              size_t shared_bytes, cudaStream_t stream)            \
    {                                                                                              \
        return lmq_run<TRM_DTYPE_##type>(variant, args, grid_x, grid_y, shared_bytes, stream);     \
    }

#endif
