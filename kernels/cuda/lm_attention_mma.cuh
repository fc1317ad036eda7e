/* Paged attention on tensor cores: mma.sync m16n8k16, fp32 sums.
 *
 * A warp has 16 queries of one kv head (rows times the query heads that share it, so that a decoded
 * token's group of heads is one tile and its keys are read once), q as A fragments in registers,
 * the scores of a block of keys (which become the A fragments of the second product without leaving
 * the registers) and the output of the split so far. A block of threads is one warp for narrow
 * tiles: decode is bound by the cache's bytes, and several blocks a multiprocessor, each with
 * kAhead blocks of keys on their way (cp.async, 16 bytes a lane), keep about 100 KB in flight where
 * 40 KB are wanted. For wide tiles it is 8 warps (4 for heads beyond 128), which share the keys.
 *
 * Rows in shared memory are padded by 16 bytes: 8 consecutive rows start in 8 different 16-byte
 * groups of banks, and ldmatrix has no conflicts. Splits that have been merged are summed in shared
 * memory, where a thread has its own words: once in TRMI_LM_SPLIT keys, and not at all for a tile
 * of one split.
 *
 * Caches of bytes: numbers up to 127 are exact in BF16, so bytes become BF16 as they are; a key's
 * scale multiplies its score, a value's scale its weight. */
#include "kernels/cuda/lm_attention.cuh"

#include <string.h>

namespace
{

constexpr int kPad = 8; /* elements */

/* What is stored at once: elements of T, so that it may alias them. */
template <class T> struct alignas(16) chunk {
    T x[16 / sizeof(T)];
};
template <class T> struct alignas(4) couple {
    T x[2];
};
struct alignas(8) couple_f32 {
    float x[2];
};

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

/* Two values rounded, as one register: lo in the low half. */
template <class T> __device__ __forceinline__ uint32_t pair(float lo, float hi)
{
    const couple<T> p = {{trm_down<T>(lo), trm_down<T>(hi)}};
    uint32_t bits;

    memcpy(&bits, &p, sizeof(bits));
    return bits;
}

/* What a kernel's sizes are: heads of up to kDim, caches of bytes or of T. */
template <class T, bool kBytes, int kDim, bool kWide> struct plan {
    static constexpr int kWarps = !kWide ? 1 : kDim > 128 ? 4 : 8;
    static constexpr int kThreads = kWarps * 32;
    static constexpr int kRows = kWarps * 16;
    static constexpr int kKeys = 32; /* the same for all */
    static constexpr int kPitch = kDim + kPad;
    static constexpr bool kHeld = kDim <= 128; /* q stays in registers */
    static constexpr int kAhead = kWide || kDim > 128 ? 1 : kDim > 64 ? 2 : 3;
    static constexpr int kStages = kAhead + 1;
    /* blocks of threads on a multiprocessor: what registers must leave room for */
    static constexpr int kResident = kWide && kDim <= 64 ? 2 : 1;
    static constexpr int kTiles = kBytes ? 1 : kStages; /* of keys, and of values, as T */
    static constexpr size_t kTileBytes = static_cast<size_t>(kKeys) * kPitch * sizeof(T);
    static constexpr size_t kRawBytes = kBytes ? static_cast<size_t>(kKeys) * (kDim + 4) : 0;
    static constexpr size_t kSumBytes = static_cast<size_t>(kRows) * kDim * sizeof(float);
    static constexpr size_t kQueryBytes = static_cast<size_t>(kRows) * kPitch * sizeof(T);
    static constexpr size_t kQueriesAt = 2 * kTiles * kTileBytes + 2 * kStages * kRawBytes;
    /* sums lie where q was, unless that is needed */
    static constexpr size_t kSumsAt = kQueriesAt + (kHeld ? 0 : kQueryBytes);
    static constexpr size_t kBytesAll =
        kSumsAt + (kSumBytes > kQueryBytes || !kHeld ? kSumBytes : kQueryBytes);
};

template <class T, bool kBytes, int kDim, bool kWide>
__global__ void __launch_bounds__((plan<T, kBytes, kDim, kWide>::kThreads),
                                  (plan<T, kBytes, kDim, kWide>::kResident))
    lm_attention_mma(const trmi_lmc_attention a, int parts)
{
    using P = plan<T, kBytes, kDim, kWide>;
    constexpr int kKeys = P::kKeys, kPitch = P::kPitch, kThreads = P::kThreads;
    TRM_DYN_SMEM(unsigned char, smem);
    T *const k_tiles = reinterpret_cast<T *>(smem);
    T *const v_tiles = k_tiles + P::kTiles * kKeys * kPitch;
    /* bytes: [stage][keys, values][kKeys][kDim], then as many scales */
    unsigned char *const raw = smem + 2 * P::kTiles * P::kTileBytes;
    T *const q_tile = reinterpret_cast<T *>(smem + P::kQueriesAt);
    float *const sums = reinterpret_cast<float *>(smem + P::kSumsAt) + threadIdx.x;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int low = lane % 8 + lane / 8 % 2 * 8, high = lane / 16 * 8; /* ldmatrix rows, columns */
    const float scale = lm_scale(a);

    TRM_KERNEL_BEGIN();
    const int64_t units = static_cast<int64_t>(kWide ? a.block->wide_count : a.block->item_count) *
                          a.kv_heads * parts;

    for (int64_t index = blockIdx.x; index < units; index += gridDim.x) {
        lm_unit u;

        if (!lm_unit_of(a, kWide, parts, P::kRows, index, &u))
            continue;
        const int left = u.count - u.first, rows = left < P::kRows ? left : P::kRows;
        const int split_first = u.split_begin * TRMI_LM_SPLIT;
        const int split_last = u.split_end * TRMI_LM_SPLIT;
        lm_range valid = {lm_query_sees(a, u, u.first).first,
                          lm_query_sees(a, u, u.first + rows - 1).last};

        valid.first = valid.first > split_first ? valid.first : split_first;
        valid.last = valid.last < split_last ? valid.last : split_last;
        if (valid.first >= valid.last)
            continue;
        const int key_begin = valid.first / kKeys * kKeys;
        const int blocks = (valid.last - key_begin + kKeys - 1) / kKeys;

        /* keys and values of a block to its stage; what no query of the tile sees is zero */
        auto load_keys = [&](int block) {
            const int stage = block % P::kStages, key = key_begin + block * kKeys;

            constexpr int kChunks = kDim * (kBytes ? 1 : static_cast<int>(sizeof(T))) / 16;
            constexpr int kStep = kThreads / kChunks; /* rows: a thread stays in its column */
            constexpr int kPitchBytes = kBytes ? kDim : kPitch * static_cast<int>(sizeof(T));
            const int r_first = static_cast<int>(threadIdx.x) / kChunks;
            const int x = static_cast<int>(threadIdx.x) % kChunks * 16; /* bytes */
            unsigned char *const k_to =
                (kBytes ? raw + 2 * stage * P::kRawBytes : smem + stage * P::kTileBytes) + x;
            unsigned char *const v_to = k_to + (kBytes ? P::kRawBytes : P::kTiles * P::kTileBytes);
            const bool used = x < a.head_dim * (kBytes ? 1 : static_cast<int>(sizeof(T)));

#pragma unroll
            for (int page = 0; page < kKeys / TRM_KV_PAGE; page++) {
                const int at = key + page * TRM_KV_PAGE;
                const bool any = at < valid.last && at + TRM_KV_PAGE > valid.first;
                const unsigned char *const from = any ? lm_key_at(u.keys, at) + x : nullptr;

#pragma unroll
                for (int r = r_first; r < TRM_KV_PAGE && used; r += kStep) {
                    const int to = (page * TRM_KV_PAGE + r) * kPitchBytes;

                    if (at + r >= valid.first && at + r < valid.last) {
                        const unsigned char *const row = from + r * u.keys.row_bytes;

                        trm_cp_async16(k_to + to, row);
                        trm_cp_async16(v_to + to, row + u.keys.values);
                    } else {
                        *reinterpret_cast<chunk<T> *>(k_to + to) = chunk<T>{};
                        *reinterpret_cast<chunk<T> *>(v_to + to) = chunk<T>{};
                    }
                }
                /* scales of four positions at once */
                if (kBytes && any && threadIdx.x < TRM_KV_PAGE / 4) {
                    unsigned char *const to = raw + 2 * stage * P::kRawBytes + kKeys * kDim +
                                              page * TRM_KV_PAGE * sizeof(float) + threadIdx.x * 16;
                    const unsigned char *const scales =
                        from - x + TRM_KV_PAGE * a.head_dim + threadIdx.x * 16;

                    trm_cp_async16(to, scales);
                    trm_cp_async16(to + P::kRawBytes, scales + u.keys.values);
                }
            }
        };
        /* bytes of a stage as T; scales of unseen values may be anything: their weights are zero,
         * so they must be numbers */
        auto widen = [&](int block) {
            const int chunks = a.head_dim / 8, key = key_begin + block * kKeys;
            unsigned char *const from = raw + 2 * (block % P::kStages) * P::kRawBytes;

            for (int e = static_cast<int>(threadIdx.x); e < 2 * kKeys * chunks; e += kThreads) {
                const int half = e / (kKeys * chunks), r = e / chunks % kKeys, x = e % chunks * 8;
                struct alignas(8) {
                    int8_t x[8];
                } bytes;
                chunk<T> wide;

                memcpy(&bytes, from + half * P::kRawBytes + r * kDim + x, sizeof(bytes));
#pragma unroll
                for (int i = 0; i < 8; i++)
                    wide.x[i] = trm_down<T>(static_cast<float>(bytes.x[i]));
                *reinterpret_cast<chunk<T> *>((half != 0 ? v_tiles : k_tiles) + r * kPitch + x) =
                    wide;
            }
            for (int e = static_cast<int>(threadIdx.x); e < 2 * kKeys; e += kThreads) {
                const int j = key + e % kKeys;

                if (j < valid.first || j >= valid.last)
                    reinterpret_cast<float *>(from + e / kKeys * P::kRawBytes +
                                              kKeys * kDim)[e % kKeys] = 0.0f;
            }
        };

        __syncthreads(); /* the unit before is read to its end */
        for (int e = static_cast<int>(threadIdx.x); e < rows * (a.head_dim / 8); e += kThreads) {
            const int r = e / (a.head_dim / 8), x = e % (a.head_dim / 8) * 8, i = u.first + r;
            const size_t at =
                static_cast<size_t>(u.row + i / u.heads) * a.heads + u.head_first + i % u.heads;

            trm_cp_async16(q_tile + r * kPitch + x,
                           static_cast<const T *>(a.q_rounded) + at * a.head_dim + x);
        }
        trm_cp_async_commit();
#pragma unroll
        for (int b = 0; b < P::kAhead; b++) {
            if (b < blocks)
                load_keys(b);
            trm_cp_async_commit();
        }

        /* of a 16 x 8 accumulator a thread has rows lane / 4 and lane / 4 + 8, columns lane % 4 * 2
         * and the next */
        const int query = u.first + warp * 16;
        const lm_range warp_all = {lm_query_sees(a, u, query + 15 < u.count ? query + 15 : u.count)
                                       .first, /* what all 16 see; less than 16: nothing */
                                   query + 15 < u.count ? lm_query_sees(a, u, query).last : 0};
        const lm_range warp_any = {
            lm_query_sees(a, u, query).first,
            lm_query_sees(a, u, query + 15 < u.count ? query + 15 : u.count - 1).last};
        const bool idle = query >= u.count;
        lm_range seen[2];
        lm_total total[2];
        uint32_t qa[P::kHeld ? kDim / 16 : 1][4];
        float out[kDim / 8][4], top[2], sum[2];
        bool first_split = true;

#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = query + half * 8 + lane / 4;

            seen[half] = lm_query_sees(a, u, i);
            total[half] = lm_total_begin(a.sinks, u.head_first + i % u.heads);
            top[half] = -INFINITY;
            sum[half] = 0.0f;
        }
#pragma unroll
        for (int n = 0; n < kDim / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[n][e] = 0.0f;
        trm_cp_async_wait<P::kAhead>();
        __syncthreads();
        if constexpr (P::kHeld) {
#pragma unroll
            for (int c = 0; c < kDim / 16; c++)
                if (c * 16 < a.head_dim)
                    trm_ldmatrix_x4(qa[c], q_tile + (warp * 16 + low) * kPitch + c * 16 + high);
            __syncthreads(); /* sums lie there, too */
        }

        for (int block = 0; block < blocks; block++) {
            const int stage = block % P::kTiles, key = key_begin + block * kKeys;
            const T *const k_tile = k_tiles + stage * kKeys * kPitch;
            const T *const v_tile = v_tiles + stage * kKeys * kPitch;
            const float *const k_scales = reinterpret_cast<const float *>(
                raw + 2 * (block % P::kStages) * P::kRawBytes + kKeys * kDim);
            const float *const v_scales = reinterpret_cast<const float *>(
                reinterpret_cast<const unsigned char *>(k_scales) + P::kRawBytes);

            trm_cp_async_wait<P::kAhead - 1>();
            __syncthreads(); /* it is there, and the stage to be filled has been read */
            if (block + P::kAhead < blocks)
                load_keys(block + P::kAhead);
            trm_cp_async_commit();
            if constexpr (kBytes) {
                widen(block);
                __syncthreads();
            }
            if (!idle && key < warp_any.last && key + kKeys > warp_any.first) {
                float s[kKeys / 8][4], keep[2];
                const bool all = key >= warp_all.first && key + kKeys <= warp_all.last;

#pragma unroll
                for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        s[n][e] = 0.0f;
#pragma unroll(P::kHeld ? kDim / 16 : 2)
                for (int c = 0; c < kDim / 16; c++) {
                    if (c * 16 >= a.head_dim)
                        break;
                    if constexpr (!P::kHeld)
                        trm_ldmatrix_x4(qa[0], q_tile + (warp * 16 + low) * kPitch + c * 16 + high);
#pragma unroll
                    for (int n = 0; n < kKeys / 8; n += 2) {
                        uint32_t kb[4];

                        trm_ldmatrix_x4(kb, k_tile + (n * 8 + lane % 8 + high) * kPitch + c * 16 +
                                                lane / 8 % 2 * 8);
                        const uint32_t b0[2] = {kb[0], kb[1]}, b1[2] = {kb[2], kb[3]};

                        mma(s[n], qa[P::kHeld ? c : 0], b0, T());
                        mma(s[n + 1], qa[P::kHeld ? c : 0], b1, T());
                    }
                }
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float most = -INFINITY, added = 0.0f;

#pragma unroll
                    for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int column = n * 8 + lane % 4 * 2 + e, j = key + column;
                            float x = s[n][half * 2 + e];

                            if constexpr (kBytes)
                                x = __fmul_rn(x, k_scales[column]);
                            x = lm_score(x, scale, a.cap);
                            if (!all && (j < seen[half].first || j >= seen[half].last))
                                x = -INFINITY;
                            s[n][half * 2 + e] = x;
                            most = fmaxf(most, x);
                        }
                    }
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                    most = fmaxf(most, top[half]);
                    const float shift = most == -INFINITY ? 0.0f : most;

                    keep[half] = trm_exp2(__fadd_rn(top[half], -shift));
                    top[half] = most;
#pragma unroll
                    for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const float w = trm_exp2(__fadd_rn(s[n][half * 2 + e], -shift));

                            added = __fadd_rn(added, w);
                            if constexpr (kBytes)
                                s[n][half * 2 + e] =
                                    __fmul_rn(w, v_scales[n * 8 + lane % 4 * 2 + e]);
                            else
                                s[n][half * 2 + e] = w;
                        }
                    }
                    sum[half] = __fmaf_rn(sum[half], keep[half], added);
                }
                /* times one changes nothing, and maxima soon stay */
                if (__any_sync(0xffffffffu, keep[0] != 1.0f || keep[1] != 1.0f)) {
#pragma unroll
                    for (int n = 0; n < kDim / 8; n++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            out[n][e] = __fmul_rn(out[n][e], keep[e / 2]);
                }
#pragma unroll
                for (int c = 0; c < kKeys / 16; c++) {
                    const uint32_t w[4] = {pair<T>(s[2 * c][0], s[2 * c][1]),
                                           pair<T>(s[2 * c][2], s[2 * c][3]),
                                           pair<T>(s[2 * c + 1][0], s[2 * c + 1][1]),
                                           pair<T>(s[2 * c + 1][2], s[2 * c + 1][3])};
#pragma unroll
                    for (int n = 0; n < kDim / 8; n += 2) {
                        uint32_t vb[4];

                        if (n * 8 >= a.head_dim)
                            break;
                        trm_ldmatrix_x4_trans(vb, v_tile + (c * 16 + low) * kPitch + n * 8 + high);
                        const uint32_t b0[2] = {vb[0], vb[1]}, b1[2] = {vb[2], vb[3]};

                        mma(out[n], w, b0, T());
                        mma(out[n + 1], w, b1, T());
                    }
                }
            }

            const bool last = block + 1 == blocks;

            if (idle || (!last && (key + kKeys) % TRMI_LM_SPLIT != 0))
                continue;
            /* the split ends */
            const int split = key / TRMI_LM_SPLIT;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int i = query + half * 8 + lane / 4;
                const bool sees = lm_split_seen(seen[half], split);
                const size_t head = static_cast<size_t>(u.head_first + i % u.heads);
                lm_join join = {1.0f, 0.0f};
                float l = sum[half];

                l = __fadd_rn(l, __shfl_xor_sync(0xffffffffu, l, 1));
                l = __fadd_rn(l, __shfl_xor_sync(0xffffffffu, l, 2));
                if (u.slot >= 0) {
                    const size_t at = static_cast<size_t>(u.slot + i / u.heads * u.slot_step +
                                                          split - u.split_begin) *
                                          a.heads +
                                      head;

                    if (sees && lane % 4 == 0)
                        *reinterpret_cast<couple_f32 *>(a.tops + 2 * at) = {{top[half], l}};
#pragma unroll
                    for (int n = 0; n < kDim / 8; n++)
                        if (sees && n * 8 < a.head_dim)
                            *reinterpret_cast<couple_f32 *>(a.partials + at * a.head_dim + n * 8 +
                                                            lane % 4 * 2) = {
                                {out[n][half * 2], out[n][half * 2 + 1]}};
                } else {
                    if (sees)
                        join = lm_merge(total[half], top[half], l);
                    const float inverse = lm_inverse(total[half]);
                    float *const to =
                        a.out +
                        (static_cast<size_t>(u.row + i / u.heads) * a.heads + head) * a.head_dim +
                        lane % 4 * 2;
#pragma unroll
                    for (int n = 0; n < kDim / 8; n++) {
                        float joined[2];

                        if (n * 8 >= a.head_dim)
                            break;
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            float *const kept = sums + (n * 4 + half * 2 + e) * kThreads;
                            const float so_far = first_split ? 0.0f : *kept;

                            joined[e] =
                                sees ? lm_joined(join, out[n][half * 2 + e], so_far) : so_far;
                            if (!last)
                                *kept = joined[e];
                        }
                        if (last && i < u.count)
                            *reinterpret_cast<couple_f32 *>(to + n * 8) = {
                                {__fmul_rn(joined[0], inverse), __fmul_rn(joined[1], inverse)}};
                    }
                }
                top[half] = -INFINITY;
                sum[half] = 0.0f;
            }
            first_split = false;
#pragma unroll
            for (int n = 0; n < kDim / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    out[n][e] = 0.0f;
        }
    }
}

template <class T, bool kBytes, int kDim, bool kWide>
trm_status launch(const trmi_lmc_attention *a, cudaStream_t stream)
{
    using P = plan<T, kBytes, kDim, kWide>;
    const int parts = lm_parts(*a, kWide ? TRMI_LM_WIDE : TRMI_LM_NARROW, P::kRows);
    const unsigned grid =
        lm_grid(*a, kWide, parts, lm_resident(P::kBytesAll, kWide ? P::kResident : 8));
    static bool allowed; /* captured launches rely on it; one thread */

    if (P::kBytesAll > 48 * 1024 && !allowed) {
        const auto kernel = lm_attention_mma<T, kBytes, kDim, kWide>;

        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(P::kBytesAll))));
        allowed = true;
    }
    return trmi_launched(TRM_LAUNCH((lm_attention_mma<T, kBytes, kDim, kWide>), grid, P::kThreads,
                                    P::kBytesAll, stream, *a, parts),
                         "lm_attention_mma");
}

template <class T, bool kBytes, int kDim>
trm_status launch_width(const trmi_lmc_attention *a, int wide, cudaStream_t stream)
{
    return wide != 0 ? launch<T, kBytes, kDim, true>(a, stream)
                     : launch<T, kBytes, kDim, false>(a, stream);
}

template <class T, bool kBytes>
trm_status attention(const trmi_lmc_attention *a, int wide, cudaStream_t stream)
{
    if (a->rows == 0)
        return TRM_OK;
    if (a->head_dim <= 64)
        return launch_width<T, kBytes, 64>(a, wide, stream);
    if (a->head_dim <= 128)
        return launch_width<T, kBytes, 128>(a, wide, stream);
    return launch_width<T, kBytes, 256>(a, wide, stream);
}

} // namespace
