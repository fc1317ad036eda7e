/* Attention on tensor cores for 16-bit floats: mma.sync m16n8k16, fp32 sums, the online softmax of
 * FlashAttention-2 (Dao, arXiv:2307.08691, algorithm 1).
 *
 * A block of 4 warps takes kTiles * 64 query rows of one head, a warp kTiles * 16 of them: q stays
 * in registers as A fragments, as do the scores of 64 keys (which become the A fragments of the
 * second product without leaving the registers) and the output. Keys and values come in blocks of
 * 64 through two stages of shared memory, filled by cp.async two blocks ahead: a sequence of up to
 * 128 keys is wholly in flight after the first instructions. Rows in shared memory are padded by 16
 * bytes: with row lengths of a multiple of 32 bytes, 8 consecutive rows then start in 8 different
 * 16-byte groups of banks, and ldmatrix has no conflicts.
 *
 * Scores are kept times log2(e). A mask that is the same for all rows (kFull false) is staged with
 * the keys as a number for each key, -inf beyond the end; with kFull the mask is read for each
 * score, and limits and softcap are applied. Memory that is not 16-byte aligned, or whose rows are
 * not, is loaded element by element. */
#include "kernels/cuda/attention.cuh"

#include <float.h>
#include <string.h>

namespace
{

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kKeys = ATTENTION_KEYS;
constexpr int kPad = 8; /* elements */
constexpr int kStages = 2;
constexpr float kLog2e = 1.4426950408889634f;

/* What is stored at once: elements of T, so that it may alias them. */
template <class T> struct alignas(16) chunk {
    T x[8];
};
template <class T> struct alignas(4) couple {
    T x[2];
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

/* Two values rounded; as one register, lo in the low half. */
__device__ __forceinline__ couple<__half> rounded(float lo, float hi, __half)
{
    const __half2 p = __floats2half2_rn(lo, hi);

    return couple<__half>{{p.x, p.y}};
}
__device__ __forceinline__ couple<__nv_bfloat16> rounded(float lo, float hi, __nv_bfloat16)
{
    const __nv_bfloat162 p = __floats2bfloat162_rn(lo, hi);

    return couple<__nv_bfloat16>{{p.x, p.y}};
}
template <class T> __device__ __forceinline__ uint32_t pair(float lo, float hi)
{
    const couple<T> p = rounded(lo, hi, T());
    uint32_t bits;

    memcpy(&bits, &p, sizeof(bits));
    return bits;
}

/* A kRows x kWidth tile from rows `step` elements apart; zeros from row `rows` and column `columns`
 * on. wide: 16-byte accesses are allowed, and columns is a multiple of 8. */
template <class T, int kRows, int kWidth>
__device__ __forceinline__ void load_tile(T *to, const T *from, int64_t step, int rows, int columns,
                                          bool wide)
{
    constexpr int kChunks = kWidth / 8;

    if (wide) {
        chunk<T> none;

#pragma unroll
        for (int i = 0; i < 8; i++)
            none.x[i] = trm_down<T>(0.0f);
        for (int c = static_cast<int>(threadIdx.x); c < kRows * kChunks; c += kThreads) {
            const int r = c / kChunks, x = c % kChunks * 8;
            T *at = to + r * (kWidth + kPad) + x;

            if (r < rows && x < columns)
                trm_cp_async16(at, from + r * step + x);
            else
                *reinterpret_cast<chunk<T> *>(at) = none;
        }
        return;
    }
#pragma unroll 8
    for (int e = static_cast<int>(threadIdx.x); e < kRows * kWidth; e += kThreads) {
        const int r = e / kWidth, x = e % kWidth;
        T value = trm_down<T>(0.0f);

        if (r < rows && x < columns)
            value = from[r * step + x];
        to[r * (kWidth + kPad) + x] = value;
    }
}

/* Elements of a tile of keys. */
template <int kDim, bool kTurned>
constexpr int kKeyElems = kTurned ? (kKeys + kPad) * kDim : (kDim + kPad) * kKeys;
template <int kDim, int kTiles, bool kTurned> constexpr size_t smem_bytes()
{
    return (static_cast<size_t>(kTiles) * 64 * (kDim + kPad) +
            kStages * (kKeyElems<kDim, kTurned> + kKeys * (kDim + kPad))) *
               2 +
           kStages * kKeys * sizeof(float);
}

/* Which operands may be loaded 16 bytes at a time. */
struct wide_loads {
    bool q, k, v, y;
};

/* Blocks on a multiprocessor: what registers allow without spills. */
template <int kDim, int kTiles, bool kFull>
constexpr int kResident = kTiles == 1 && kDim <= 64 && !kFull ? 3 : 2;

template <class T, int kDim, int kTiles, bool kFull, bool kTurned>
__global__ void __launch_bounds__(kThreads, (kResident<kDim, kTiles, kFull>))
    attention_mma(const trmi_attention a, const wide_loads wide)
{
    constexpr int kRows = kTiles * 64;
    constexpr int kPitch = kDim + kPad;
    constexpr int kKeyPitch = kTurned ? kKeys + kPad : kPitch;
    TRM_DYN_SMEM(T, smem);
    T *const q_tile = smem, *const k_tiles = q_tile + kRows * kPitch;
    T *const v_tiles = k_tiles + kStages * kKeyElems<kDim, kTurned>;
    float *const biases = reinterpret_cast<float *>(v_tiles + kStages * kKeys * kPitch);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int row_blocks = (a.q_len + kRows - 1) / kRows;
    const int head_index = static_cast<int>(blockIdx.x) / row_blocks;
    const int first_row = static_cast<int>(blockIdx.x) % row_blocks * kRows;
    const int h = head_index % a.heads, b = head_index / a.heads;
    const int g = h / (a.heads / a.kv_heads);
    const T *const q = static_cast<const T *>(a.q.data) + b * a.q.batch + h * a.q.head;
    const T *const k = static_cast<const T *>(a.k.data) + b * a.k.batch + g * a.k.head;
    const T *const v = static_cast<const T *>(a.v.data) + b * a.v.batch + g * a.v.head;
    const float scale = static_cast<float>(a.scale) * kLog2e;

    TRM_KERNEL_BEGIN();
    const attention_range range = attention_block_seen(a, b, first_row, kRows);
    const int blocks = (range.last - range.first + kKeys - 1) / kKeys;

    auto load_keys = [&](int block) {
        const int stage = block % kStages, key = range.first + block * kKeys;
        const int left = range.last - key < kKeys ? range.last - key : kKeys;
        T *const k_tile = k_tiles + stage * kKeyElems<kDim, kTurned>;

        if constexpr (kTurned)
            load_tile<T, kDim, kKeys>(k_tile, k + key, a.k.column, a.dim, left, wide.k);
        else
            load_tile<T, kKeys, kDim>(k_tile, k + key * a.k.row, a.k.row, left, a.dim, wide.k);
        load_tile<T, kKeys, kDim>(v_tiles + stage * kKeys * kPitch, v + key * a.v.row, a.v.row,
                                  left, a.v_dim, wide.v);
        if (!kFull && threadIdx.x < kKeys) {
            const int j = key + static_cast<int>(threadIdx.x);
            float bias = -INFINITY;

            if (j < range.last) {
                bias = attention_mask<float>(a, b, h, 0, j);
                /* a finite mask stays finite */
                bias = bias < -FLT_MAX ? bias : fmaxf(bias * kLog2e, -FLT_MAX);
            }
            biases[stage * kKeys + threadIdx.x] = bias;
        }
    };

    load_tile<T, kRows, kDim>(q_tile, q + first_row * a.q.row, a.q.row, a.q_len - first_row, a.dim,
                              wide.q);
    if (blocks > 0)
        load_keys(0);
    trm_cp_async_commit();
    if (blocks > 1)
        load_keys(1);
    trm_cp_async_commit();

    /* fragments: of a 16 x 8 accumulator a thread has rows lane / 4 and lane / 4 + 8, columns
     * lane % 4 * 2 and the next */
    uint32_t qa[kTiles][kDim / 16][4];
    float out[kTiles][kDim / 8][4], top[kTiles][2], sum[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
        for (int n = 0; n < kDim / 8; n++)
            for (int e = 0; e < 4; e++)
                out[t][n][e] = 0.0f;
        for (int e = 0; e < 2; e++) {
            top[t][e] = -INFINITY;
            sum[t][e] = 0.0f;
        }
    }
    const int warp_row = warp * kTiles * 16;
    const int low = lane % 8 + lane / 8 % 2 * 8, high = lane / 16 * 8; /* ldmatrix rows, columns */

    for (int block = 0; block < blocks; block++) {
        const int stage = block % kStages, key = range.first + block * kKeys;
        const T *const k_tile = k_tiles + stage * kKeyElems<kDim, kTurned>;
        const T *const v_tile = v_tiles + stage * kKeys * kPitch;
        float s[kTiles][kKeys / 8][4];

        trm_cp_async_wait<1>();
        __syncthreads();
        if (block == 0) {
#pragma unroll
            for (int t = 0; t < kTiles; t++)
#pragma unroll
                for (int c = 0; c < kDim / 16; c++)
                    trm_ldmatrix_x4(qa[t][c],
                                    q_tile + (warp_row + t * 16 + low) * kPitch + c * 16 + high);
        }
#pragma unroll
        for (int t = 0; t < kTiles; t++)
#pragma unroll
            for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[t][n][e] = 0.0f;
#pragma unroll
        for (int c = 0; c < kDim / 16; c++) {
#pragma unroll
            for (int n = 0; n < kKeys / 8; n += 2) {
                uint32_t kb[4];

                if (kTurned)
                    trm_ldmatrix_x4_trans(kb, k_tile + (c * 16 + low) * kKeyPitch + n * 8 + high);
                else
                    trm_ldmatrix_x4(kb, k_tile + (n * 8 + lane % 8 + high) * kKeyPitch + c * 16 +
                                            lane / 8 % 2 * 8);
                const uint32_t b0[2] = {kb[0], kb[1]}, b1[2] = {kb[2], kb[3]};
#pragma unroll
                for (int t = 0; t < kTiles; t++) {
                    mma(s[t][n], qa[t][c], b0, T());
                    mma(s[t][n + 1], qa[t][c], b1, T());
                }
            }
        }

#pragma unroll
        for (int t = 0; t < kTiles; t++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = -INFINITY, total = 0.0f;

                if (kFull) {
                    int i = first_row + warp_row + t * 16 + half * 8 + lane / 4;
                    i = i < a.q_len ? i : a.q_len - 1;
                    const attention_range seen = attention_seen(a, b, i);
#pragma unroll
                    for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int j = key + n * 8 + lane % 4 * 2 + e;
                            float x = s[t][n][half * 2 + e] * scale;

                            if (a.softcap > 0.0f)
                                x = a.softcap * kLog2e * tanhf(x / (a.softcap * kLog2e));
                            if (j < seen.first || j >= seen.last) {
                                x = -INFINITY;
                            } else if (a.mask.dtype != TRM_DTYPE_NONE) {
                                const float add = attention_mask<float>(a, b, h, i, j);

                                x += add < -FLT_MAX ? add : fmaxf(add * kLog2e, -FLT_MAX);
                            }
                            s[t][n][half * 2 + e] = x;
                        }
                    }
                } else {
                    const float *const bias = biases + stage * kKeys + lane % 4 * 2;
#pragma unroll
                    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++)
                            s[t][n][half * 2 + e] = s[t][n][half * 2 + e] * scale + bias[n * 8 + e];
                }
#pragma unroll
                for (int n = 0; n < kKeys / 8; n++)
                    most = fmaxf(most, fmaxf(s[t][n][half * 2], s[t][n][half * 2 + 1]));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                most = fmaxf(most, top[t][half]);
                /* no key seen so far: the shift is any number */
                const float shift = most < -FLT_MAX ? 0.0f : most;
                const float keep = trm_exp2(top[t][half] - shift);
                top[t][half] = most;
#pragma unroll
                for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const float p = trm_exp2(s[t][n][half * 2 + e] - shift);

                        s[t][n][half * 2 + e] = p;
                        total += p;
                    }
                }
                sum[t][half] = sum[t][half] * keep + total;
#pragma unroll
                for (int n = 0; n < kDim / 8; n++) {
                    out[t][n][half * 2] *= keep;
                    out[t][n][half * 2 + 1] *= keep;
                }
            }
        }

#pragma unroll
        for (int c = 0; c < kKeys / 16; c++) {
            uint32_t pa[kTiles][4];

#pragma unroll
            for (int t = 0; t < kTiles; t++) {
                pa[t][0] = pair<T>(s[t][2 * c][0], s[t][2 * c][1]);
                pa[t][1] = pair<T>(s[t][2 * c][2], s[t][2 * c][3]);
                pa[t][2] = pair<T>(s[t][2 * c + 1][0], s[t][2 * c + 1][1]);
                pa[t][3] = pair<T>(s[t][2 * c + 1][2], s[t][2 * c + 1][3]);
            }
#pragma unroll
            for (int n = 0; n < kDim / 8; n += 2) {
                uint32_t vb[4];

                trm_ldmatrix_x4_trans(vb, v_tile + (c * 16 + low) * kPitch + n * 8 + high);
                const uint32_t b0[2] = {vb[0], vb[1]}, b1[2] = {vb[2], vb[3]};
#pragma unroll
                for (int t = 0; t < kTiles; t++) {
                    mma(out[t][n], pa[t], b0, T());
                    mma(out[t][n + 1], pa[t], b1, T());
                }
            }
        }
        __syncthreads();
        if (block + kStages < blocks)
            load_keys(block + kStages);
        trm_cp_async_commit();
    }

    /* the output goes through this warp's own rows of the q tile, for whole 16-byte stores */
    if (blocks == 0) {
        trm_cp_async_wait<0>();
        __syncthreads();
    }
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = sum[t][half];

            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
            T *const row = q_tile + (warp_row + t * 16 + half * 8 + lane / 4) * kPitch;
#pragma unroll
            for (int n = 0; n < kDim / 8; n++)
                *reinterpret_cast<couple<T> *>(row + n * 8 + lane % 4 * 2) =
                    rounded(out[t][n][half * 2] * inverse, out[t][n][half * 2 + 1] * inverse, T());
        }
    }
    __syncwarp();
    T *const y = static_cast<T *>(a.out) + b * a.y.batch + h * a.y.head;
    constexpr int kChunks = kDim / 8;
    for (int c = lane; c < kTiles * 16 * kChunks; c += 32) {
        const int r = warp_row + c / kChunks, x = c % kChunks * 8, i = first_row + r;
        const T *const from = q_tile + r * kPitch + x;
        T *const to = y + i * a.y.row + x;

        if (i >= a.q_len)
            break;
        if (wide.y && x + 8 <= a.v_dim) {
            *reinterpret_cast<chunk<T> *>(to) = *reinterpret_cast<const chunk<T> *>(from);
        } else {
            for (int e = 0; e < 8 && x + e < a.v_dim; e++)
                to[e] = from[e];
        }
    }
}

template <class T, int kDim, int kTiles, bool kFull, bool kTurned>
trm_status launch(const trmi_attention *a, cudaStream_t stream)
{
    constexpr size_t kBytes = smem_bytes<kDim, kTiles, kTurned>();
    const int64_t row_blocks = (a->q_len + kTiles * 64 - 1) / (kTiles * 64);
    const int64_t blocks = row_blocks * a->heads * a->batch;
    const auto aligned = [](const void *p, const trmi_attention_view *v, int64_t row) {
        return (reinterpret_cast<uintptr_t>(p) % 16 == 0) &&
               (v->batch % 8 == 0 && v->head % 8 == 0 && row % 8 == 0);
    };
    wide_loads wide;

    if (blocks > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "attention of %lld blocks",
                        static_cast<long long>(blocks));
    wide.q = aligned(a->q.data, &a->q, a->q.row) && a->dim % 8 == 0;
    wide.k = kTurned ? aligned(a->k.data, &a->k, a->k.column) && a->kv_len % 8 == 0
                     : aligned(a->k.data, &a->k, a->k.row) && a->dim % 8 == 0;
    wide.v = aligned(a->v.data, &a->v, a->v.row) && a->v_dim % 8 == 0;
    wide.y = aligned(a->out, &a->y, a->y.row);
    if (kBytes > 48 * 1024) {
        const auto kernel = attention_mma<T, kDim, kTiles, kFull, kTurned>;

        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(kBytes))));
    }
    return trmi_launched(TRM_LAUNCH((attention_mma<T, kDim, kTiles, kFull, kTurned>),
                                    static_cast<unsigned>(blocks), kThreads, kBytes, stream, *a,
                                    wide),
                         "attention_mma");
}

template <class T, int kDim, bool kTurned>
trm_status choose(const trmi_attention *a, bool full, cudaStream_t stream)
{
    if (full)
        return launch<T, kDim, 1, true, kTurned>(a, stream);
    if constexpr (kDim <= 64) {
        /* larger tiles read keys and values less often, where blocks are many */
        const int64_t blocks = (a->q_len + 127) / 128 * static_cast<int64_t>(a->heads) * a->batch;

        if (a->q_len > 64 && blocks >= 2 * a->multiprocessors)
            return launch<T, kDim, 2, false, kTurned>(a, stream);
    }
    return launch<T, kDim, 1, false, kTurned>(a, stream);
}

template <class T> trm_status attention_mma_any(const trmi_attention *a, cudaStream_t stream)
{
    const int dim = a->dim > a->v_dim ? a->dim : a->v_dim;
    const bool turned = a->k.row == 1 && a->k.column != 1;
    const bool full = (a->mask.dtype != TRM_DTYPE_NONE && a->mask.row != 0) || a->causal != 0 ||
                      a->left >= 0 || a->right >= 0 || a->softcap > 0.0f;

    if (a->batch == 0 || a->heads == 0 || a->q_len == 0 || a->v_dim == 0)
        return TRM_OK;
#define DIM_CASE(d)                                                                                \
    if (dim <= d)                                                                                  \
        return turned ? choose<T, d, true>(a, full, stream) : choose<T, d, false>(a, full, stream);
    DIM_CASE(32)
    DIM_CASE(64)
    DIM_CASE(80)
    DIM_CASE(96)
    DIM_CASE(128)
#undef DIM_CASE
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "attention of %d columns on tensor cores: want %d or fewer", dim,
                    TRMI_ATTENTION_MMA_DIM);
}

} // namespace
