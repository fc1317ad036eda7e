/* Narrow tiles of programs with few rows: too few units to fill the device with warps that walk a
 * split by themselves, as lm_attention_mma.cuh's narrow tiles do, so that four warps share a split
 * and its time becomes that of its bytes.
 *
 * The scores of a split's blocks do not depend on each other: a warp has two of the eight. Then the
 * blocks' maxima are exchanged, every warp follows the running maximum through them, and weights go
 * to shared memory. Of the output a warp has a quarter of the columns, over all blocks in order. So
 * each number is made by the operations of the other kernels, in their order: the same bits.
 *
 * A warp fetches the keys of its blocks and its columns of all values itself, both a split ahead:
 * as soon as it has read the one it asks for the next, and 70 to 140 KB a multiprocessor are on
 * their way throughout. */
#ifndef TRM_KERNELS_CUDA_LM_ATTENTION_FEW_CUH
#define TRM_KERNELS_CUDA_LM_ATTENTION_FEW_CUH

#include "kernels/cuda/lm_attention_mma.cuh"

namespace
{

template <class T, int kDim> struct few_plan {
    static constexpr int kWarps = 4;
    static constexpr int kThreads = kWarps * 32;
    static constexpr int kKeys = plan<T, false, kDim, false>::kKeys;
    static constexpr int kBlocks = TRMI_LM_SPLIT / kKeys;
    static constexpr int kOwn = kBlocks / kWarps; /* blocks whose scores a warp makes */
    static constexpr int kColumns = kDim / kWarps;
    static constexpr int kPitch = kDim + kPad;
    static constexpr int kWeightPitch = TRMI_LM_SPLIT + kPad;
    static constexpr size_t kTileBytes = static_cast<size_t>(TRMI_LM_SPLIT) * kPitch * sizeof(T);
    static constexpr size_t kValuesAt = kTileBytes;
    static constexpr size_t kQueriesAt = 2 * kTileBytes; /* two: this split's and the next one's */
    static constexpr size_t kQueryBytes = 16 * kPitch * sizeof(T);
    static constexpr size_t kWeightsAt = kQueriesAt + 2 * kQueryBytes;
    static constexpr size_t kTopsAt = kWeightsAt + 16 * kWeightPitch * sizeof(T);
    static constexpr size_t kSumsAt = kTopsAt + kBlocks * 16 * sizeof(float);
    static constexpr size_t kBytesAll = kSumsAt + kBlocks * 16 * 4 * sizeof(float);
};

/* A split of a unit. */
struct few_split {
    int64_t index;
    lm_unit u;
    lm_range valid; /* of the unit: what any of its queries sees */
    int split;
    bool there, first, last; /* of the unit's splits */
};

/* The split after this one. */
__device__ __forceinline__ void few_advance(const trmi_lmc_attention &a, int parts, int64_t units,
                                            few_split &s)
{
    s.first = false;
    if (s.there && !s.last) {
        s.split++;
        s.last = (s.split + 1) * TRMI_LM_SPLIT >= s.valid.last;
        return;
    }
    s.there = false;
    for (s.index += gridDim.x; s.index < units; s.index += gridDim.x) {
        if (!lm_unit_of(a, 0, parts, 16, s.index, &s.u))
            continue;
        s.valid = lm_unit_sees(a, s.u, 16);
        if (s.valid.first >= s.valid.last)
            continue;
        s.split = s.valid.first / TRMI_LM_SPLIT;
        s.last = (s.split + 1) * TRMI_LM_SPLIT >= s.valid.last;
        s.there = s.first = true;
        return;
    }
}

template <class T, int kDim>
__global__ void __launch_bounds__((few_plan<T, kDim>::kThreads))
    lm_attention_few(const trmi_lmc_attention a, int parts)
{
    using P = few_plan<T, kDim>;
    constexpr int kKeys = P::kKeys, kPitch = P::kPitch, kTiles = P::kColumns / 8;
    TRM_DYN_SMEM(unsigned char, smem);
    T *const k_tile = reinterpret_cast<T *>(smem);
    T *const v_tile = reinterpret_cast<T *>(smem + P::kValuesAt);
    T *const weights = reinterpret_cast<T *>(smem + P::kWeightsAt);
    float *const tops = reinterpret_cast<float *>(smem + P::kTopsAt); /* [block][row] */
    float *const sums = reinterpret_cast<float *>(smem + P::kSumsAt); /* [block][row][lane % 4] */
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int low = lane % 8 + lane / 8 % 2 * 8, high = lane / 16 * 8; /* ldmatrix rows, columns */
    const float scale = lm_scale(a);

    TRM_KERNEL_BEGIN();
    const int64_t units = static_cast<int64_t>(a.block->item_count) * a.kv_heads * parts;
    few_split now, next;
    lm_total total[2];
    float joined[kTiles][4];
    int parity = 0;

    /* rows [row, row + count) of a split's keys or values, columns [x, x + width), 16 bytes each */
    auto load = [&](const few_split &s, T *tile, size_t half, int row, int count, int x,
                    int width) {
        const int chunks = width / 8, step = 32 / chunks;
        const int column = x + lane % chunks * 8;

        if (column >= a.head_dim)
            return;
#pragma unroll 4
        for (int r = row + lane / chunks; r < row + count; r += step) {
            const int j = s.split * TRMI_LM_SPLIT + r;
            T *const to = tile + r * kPitch + column;

            if (j >= s.valid.first && j < s.valid.last)
                trm_cp_async16(to, lm_key_at(s.u.keys, j) + half + column * sizeof(T));
            else
                *reinterpret_cast<chunk<T> *>(to) = chunk<T>{};
        }
    };
    auto load_keys = [&](const few_split &s, int to_parity) {
        constexpr int kRows = P::kOwn * kKeys;
        T *const q_tile = reinterpret_cast<T *>(smem + P::kQueriesAt + to_parity * P::kQueryBytes);

        if (s.there) {
            for (int e = static_cast<int>(threadIdx.x); e < 16 * (a.head_dim / 8);
                 e += P::kThreads) {
                const int r = e / (a.head_dim / 8), x = e % (a.head_dim / 8) * 8;

                if (s.u.first + r < s.u.count)
                    trm_cp_async16(q_tile + r * kPitch + x, static_cast<const T *>(a.q_rounded) +
                                                                lm_query_at(a, s.u, s.u.first + r) +
                                                                x);
            }
            load(s, k_tile, 0, warp * kRows, kRows, 0, kDim);
        }
        trm_cp_async_commit();
    };
    auto load_values = [&](const few_split &s) {
        if (s.there)
            load(s, v_tile, s.u.keys.values, 0, TRMI_LM_SPLIT, warp * P::kColumns, P::kColumns);
        trm_cp_async_commit();
    };

    now.index = static_cast<int64_t>(blockIdx.x) - gridDim.x;
    now.there = false;
    few_advance(a, parts, units, now);
    load_keys(now, parity);
    load_values(now);
    while (now.there) {
        const T *const q_tile =
            reinterpret_cast<const T *>(smem + P::kQueriesAt + parity * P::kQueryBytes);
        const lm_tile_sees tile = lm_tile_of(a, now.u, now.u.first);
        const int key_first = now.split * TRMI_LM_SPLIT;
        lm_range seen[2];
        uint32_t qa[kDim / 16][4];
        float s[P::kOwn][kKeys / 8][4], keep[P::kBlocks][2], top[2], sum[2], out[kTiles][4];

        /* blocks that the tile's queries see; the others change nothing */
        auto visible = [&](int block) {
            const int key = key_first + block * kKeys;

            return key < tile.any.last && key + kKeys > tile.any.first;
        };

        trm_cp_async_wait<1>();
        __syncthreads(); /* q is there, and what the split before exchanged has been read */
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = now.u.first + half * 8 + lane / 4;

            seen[half] = lm_query_sees(a, now.u, i);
            if (now.first)
                total[half] = lm_total_begin(a.sinks, now.u.head_first + i % now.u.heads);
        }
#pragma unroll
        for (int c = 0; c < kDim / 16; c++)
            if (c * 16 < a.head_dim)
                trm_ldmatrix_x4(qa[c], q_tile + low * kPitch + c * 16 + high);
#pragma unroll
        for (int o = 0; o < P::kOwn; o++) {
            const int block = warp * P::kOwn + o, key = key_first + block * kKeys;
            const bool all = key >= tile.all.first && key + kKeys <= tile.all.last;

            lm_scores<T, kDim, kKeys, true>(s[o], qa, k_tile + block * kKeys * kPitch, nullptr,
                                            a.head_dim);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float most =
                    lm_mask<kKeys>(s[o], half, key, seen[half], all, scale, a.cap, nullptr);

                if (lane % 4 == 0)
                    tops[block * 16 + half * 8 + lane / 4] = most;
            }
        }
        next = now;
        few_advance(a, parts, units, next);
        __syncwarp(); /* the warp's keys have been read */
        load_keys(next, 1 - parity);
        __syncthreads(); /* all blocks' maxima are there */

#pragma unroll
        for (int half = 0; half < 2; half++) {
            top[half] = -INFINITY;
#pragma unroll
            for (int block = 0; block < P::kBlocks; block++) {
                const int row = half * 8 + lane / 4;
                const float most = fmaxf(tops[block * 16 + row], top[half]);
                const float shift = most == -INFINITY ? 0.0f : most;

                keep[block][half] = trm_exp2(__fadd_rn(top[half], -shift));
                if (!visible(block))
                    continue;
                top[half] = most;
                if (block / P::kOwn != warp)
                    continue;
#pragma unroll
                for (int o = 0; o < P::kOwn; o++)
                    if (block % P::kOwn == o) {
                        sums[(block * 16 + row) * 4 + lane % 4] =
                            lm_weigh<kKeys>(s[o], half, shift, nullptr);
#pragma unroll
                        for (int n = 0; n < kKeys / 8; n++)
                            *reinterpret_cast<uint32_t *>(weights + row * P::kWeightPitch +
                                                          block * kKeys + n * 8 + lane % 4 * 2) =
                                pair<T>(s[o][n][half * 2], s[o][n][half * 2 + 1]);
                    }
            }
        }
        trm_cp_async_wait<1>();
        __syncthreads(); /* weights are there; the warp's own values, too */
#pragma unroll
        for (int n = 0; n < kTiles; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[n][e] = 0.0f;
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (int block = 0; block < P::kBlocks; block++) {
            if (!visible(block))
                continue;
#pragma unroll
            for (int half = 0; half < 2; half++)
                sum[half] = __fmaf_rn(sum[half], keep[block][half],
                                      sums[(block * 16 + half * 8 + lane / 4) * 4 + lane % 4]);
#pragma unroll
            for (int n = 0; n < kTiles; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    out[n][e] = __fmul_rn(out[n][e], keep[block][e / 2]);
#pragma unroll
            for (int c = 0; c < kKeys / 16; c++) {
                uint32_t w[4];

                trm_ldmatrix_x4(w, weights + low * P::kWeightPitch + block * kKeys + c * 16 + high);
                lm_add_values<T, kTiles>(
                    out, w, v_tile + (block * kKeys + c * 16) * kPitch + warp * P::kColumns, kPitch,
                    a.head_dim - warp * P::kColumns);
            }
        }
        __syncwarp(); /* the warp's values have been read */
        load_values(next);

#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = now.u.first + half * 8 + lane / 4;
            const bool sees = lm_split_seen(seen[half], now.split);
            const int columns = a.head_dim - warp * P::kColumns;
            const size_t column = static_cast<size_t>(warp * P::kColumns + lane % 4 * 2);
            float l = sum[half];

            l = __fadd_rn(l, __shfl_xor_sync(0xffffffffu, l, 1));
            l = __fadd_rn(l, __shfl_xor_sync(0xffffffffu, l, 2));
            if (now.u.slot >= 0) {
                const size_t at = lm_partial_at(a, now.u, i, now.split);

                if (sees && lane % 4 == 0 && warp == 0)
                    *reinterpret_cast<couple_f32 *>(a.tops + 2 * at) = {{top[half], l}};
#pragma unroll
                for (int n = 0; n < kTiles; n++)
                    if (sees && n * 8 < columns)
                        *reinterpret_cast<couple_f32 *>(a.partials + at * a.head_dim + column +
                                                        n * 8) = {
                            {out[n][half * 2], out[n][half * 2 + 1]}};
                continue;
            }
            lm_join join = {1.0f, 0.0f};

            if (sees)
                join = lm_merge(total[half], top[half], l);
            const float inverse = lm_inverse(total[half]);
#pragma unroll
            for (int n = 0; n < kTiles; n++) {
#pragma unroll
                for (int e = half * 2; e < half * 2 + 2; e++) {
                    const float so_far = now.first ? 0.0f : joined[n][e];

                    joined[n][e] = sees ? lm_joined(join, out[n][e], so_far) : so_far;
                }
                if (now.last && i < now.u.count && n * 8 < columns)
                    *reinterpret_cast<couple_f32 *>(a.out + lm_query_at(a, now.u, i) + column +
                                                    n * 8) = {
                        {__fmul_rn(joined[n][half * 2], inverse),
                         __fmul_rn(joined[n][half * 2 + 1], inverse)}};
            }
        }
        now = next;
        parity = 1 - parity;
    }
}

template <class T, int kDim> trm_status launch_few(const trmi_lmc_attention *a, cudaStream_t stream)
{
    using P = few_plan<T, kDim>;
    const int parts = lm_parts(*a, TRMI_LM_NARROW, 16);
    const unsigned grid = lm_grid(*a, 0, parts, lm_resident(P::kBytesAll, 2));
    static bool allowed; /* captured launches rely on it; one thread */

    if (!allowed) {
        const auto kernel = lm_attention_few<T, kDim>;

        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(P::kBytesAll))));
        allowed = true;
    }
    return trmi_launched(
        TRM_LAUNCH((lm_attention_few<T, kDim>), grid, P::kThreads, P::kBytesAll, stream, *a, parts),
        "lm_attention_few");
}

/* Programs of at most so many rows. */
constexpr int kFewRows = 8;

/* Narrow tiles where `few` is the kernel for them; false: it is not. */
template <class T> bool is_few(const trmi_lmc_attention *a, int wide)
{
    const size_t shared =
        a->head_dim <= 64 ? few_plan<T, 64>::kBytesAll : few_plan<T, 128>::kBytesAll;

    return wide == 0 && a->rows <= kFewRows && a->head_dim <= 128 &&
           shared <= static_cast<size_t>(a->shared_max);
}

/* Tiles by whatever kernel is for them. */
template <class T, bool kBytes>
trm_status attention(const trmi_lmc_attention *a, int wide, cudaStream_t stream)
{
    if (a->rows == 0)
        return TRM_OK;
    if constexpr (!kBytes)
        if (is_few<T>(a, wide))
            return a->head_dim <= 64 ? launch_few<T, 64>(a, stream) : launch_few<T, 128>(a, stream);
    if (a->head_dim <= 64)
        return launch_width<T, kBytes, 64>(a, wide, stream);
    if (a->head_dim <= 128)
        return launch_width<T, kBytes, 128>(a, wide, stream);
    return launch_width<T, kBytes, 256>(a, wide, stream);
}

} // namespace

#endif
