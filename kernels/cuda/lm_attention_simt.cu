/* Paged attention in plain fp32 arithmetic: caches of F32, and of anything where tensor cores do
 * not fit the heads.
 *
 * A block of 4 warps has kRows queries of one kv head. Keys and values come in blocks of 32, as
 * fp32 in shared memory; rows are padded so that 8 lanes that read 16 bytes of 8 neighbouring keys
 * hit 32 different banks. Scores: a lane has a key, a warp the rows warp, warp + 4, ...; so a row's
 * maximum and sum are a warp's reductions. Output: a thread has kColumns columns of all rows. Both
 * sums run in ascending order in one chain of multiply-adds. */
#include "kernels/cuda/lm_attention.cuh"

namespace
{

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kKeys = 32;

struct alignas(16) quad {
    float x[4];
};

__device__ __forceinline__ float element(const unsigned char *row, trm_dtype dtype, int d)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        return reinterpret_cast<const float *>(row)[d];
    case TRM_DTYPE_F16:
        return trm_up(reinterpret_cast<const __half *>(row)[d]);
    case TRM_DTYPE_BF16:
        return trm_up(reinterpret_cast<const __nv_bfloat16 *>(row)[d]);
    default:
        return static_cast<float>(reinterpret_cast<const int8_t *>(row)[d]);
    }
}

/* Floats of a row of shared memory. */
inline __host__ __device__ int pitch_of(int head_dim)
{
    return (head_dim + 3) / 4 * 4 + 4;
}

/* Keys or values at [key, key + kKeys) as fp32; zeros outside [first, last). fp32 comes by
 * cp.async where rows are whole chunks of 16 bytes, the rest element by element; one group. */
__device__ __forceinline__ void load_keys(const trmi_lmc_attention &a, const lm_keys &k,
                                          bool values, int key, lm_range valid, float *to)
{
    const int pitch = pitch_of(a.head_dim), wide = pitch - 4;
    const trm_dtype dtype = a.encoder != 0 ? a.compute : a.cache;

    if (dtype == TRM_DTYPE_F32 && a.head_dim % 4 == 0) {
        for (int e = static_cast<int>(threadIdx.x); e < kKeys * (wide / 4); e += kThreads) {
            const int r = e / (wide / 4), d = e % (wide / 4) * 4, j = key + r;

            if (j >= valid.first && j < valid.last)
                trm_cp_async16(to + r * pitch + d,
                               lm_key_at(k, j) + (values ? k.values : 0) + d * sizeof(float));
            else
                *reinterpret_cast<quad *>(to + r * pitch + d) = quad{};
        }
        trm_cp_async_commit();
        return;
    }
    for (int e = static_cast<int>(threadIdx.x); e < kKeys * wide; e += kThreads) {
        const int r = e / wide, d = e % wide, j = key + r;
        float x = 0.0f;

        if (j >= valid.first && j < valid.last && d < a.head_dim) {
            const unsigned char *row = lm_key_at(k, j) + (values ? k.values : 0);

            x = element(row, dtype, d);
            if (dtype == TRM_DTYPE_I8) {
                const int in_page = j % TRM_KV_PAGE;
                const unsigned char *scales =
                    row - in_page * k.row_bytes + TRM_KV_PAGE * k.row_bytes;

                x = __fmul_rn(x, reinterpret_cast<const float *>(scales)[in_page]);
            }
        }
        to[r * pitch + d] = x;
    }
    trm_cp_async_commit();
}

template <int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads)
    lm_attention_simt(const trmi_lmc_attention a, int wide, int parts)
{
    constexpr int kOwn = kRows / kWarps; /* rows whose softmax a warp has */
    TRM_DYN_SMEM(float, smem);
    const int pitch = pitch_of(a.head_dim), dims = pitch - 4;
    float *const q_tile = smem, *const k_tile = q_tile + kRows * dims;
    float *const v_tile = k_tile + kKeys * pitch, *const sums = v_tile + kKeys * pitch;
    float *const weights = sums + kRows * dims; /* [kRows][kKeys] */
    float *const keeps = weights + kRows * kKeys, *const joins = keeps + kRows;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const float scale = lm_scale(a);

    TRM_KERNEL_BEGIN();
    const int64_t units =
        static_cast<int64_t>(wide != 0 ? a.block->wide_count : a.block->item_count) * a.kv_heads *
        parts;

    for (int64_t index = blockIdx.x; index < units; index += gridDim.x) {
        lm_unit u;
        lm_range seen[kOwn];
        lm_total total[kOwn];
        float top[kOwn], sum[kOwn], out[kRows][kColumns];

        if (!lm_unit_of(a, wide, parts, kRows, index, &u))
            continue;
        const int rows = u.count - u.first < kRows ? u.count - u.first : kRows;
        const lm_range valid = lm_unit_sees(a, u, kRows);

        if (valid.first >= valid.last)
            continue;
        __syncthreads(); /* the unit before is read to its end */
        for (int e = static_cast<int>(threadIdx.x); e < kRows * dims; e += kThreads) {
            const int r = e / dims, d = e % dims, i = u.first + r;
            float x = 0.0f;

            if (r < rows && d < a.head_dim)
                x = static_cast<const float *>(a.q_rounded)[lm_query_at(a, u, i) + d];
            q_tile[e] = x;
            sums[e] = 0.0f;
        }
#pragma unroll
        for (int o = 0; o < kOwn; o++) {
            const int i = u.first + warp + o * kWarps;

            seen[o] = lm_query_sees(a, u, i);
            total[o] = lm_total_begin(a.sinks, u.head_first + i % u.heads);
            top[o] = -INFINITY;
            sum[o] = 0.0f;
        }
#pragma unroll
        for (int r = 0; r < kRows; r++)
#pragma unroll
            for (int c = 0; c < kColumns; c++)
                out[r][c] = 0.0f;

        load_keys(a, u.keys, false, valid.first / kKeys * kKeys, valid, k_tile);
        for (int key = valid.first / kKeys * kKeys; key < valid.last; key += kKeys) {
            const int split = key / TRMI_LM_SPLIT;
            const bool ends = key + kKeys >= valid.last || (key + kKeys) % TRMI_LM_SPLIT == 0;
            float s[kOwn];

            __syncthreads(); /* the values before have been read */
            load_keys(a, u.keys, true, key, valid, v_tile);
            trm_cp_async_wait<1>();
            __syncthreads(); /* the keys are there */
#pragma unroll
            for (int o = 0; o < kOwn; o++)
                s[o] = 0.0f;
#pragma unroll 4
            for (int d = 0; d < dims; d += 4) {
                const quad k = *reinterpret_cast<const quad *>(k_tile + lane * pitch + d);
#pragma unroll
                for (int o = 0; o < kOwn; o++) {
                    const quad q =
                        *reinterpret_cast<const quad *>(q_tile + (warp + o * kWarps) * dims + d);
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        s[o] = __fmaf_rn(q.x[e], k.x[e], s[o]);
                }
            }
#pragma unroll
            for (int o = 0; o < kOwn; o++) {
                const int j = key + lane, r = warp + o * kWarps;
                const bool sees = j >= seen[o].first && j < seen[o].last;
                float x = sees ? lm_score(s[o], scale, a.cap) : -INFINITY, most = x;

#pragma unroll
                for (int step = 16; step > 0; step /= 2)
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
                most = fmaxf(most, top[o]);
                const float shift = most == -INFINITY ? 0.0f : most;
                const float keep = trm_exp2(__fadd_rn(top[o], -shift));
                float added;

                x = trm_exp2(__fadd_rn(x, -shift));
                weights[r * kKeys + lane] = x;
                added = x;
#pragma unroll
                for (int step = 16; step > 0; step /= 2)
                    added = __fadd_rn(added, __shfl_xor_sync(0xffffffffu, added, step));
                sum[o] = __fmaf_rn(sum[o], keep, added);
                top[o] = most;
                if (lane == 0)
                    keeps[r] = keep;
                if (ends && lane == 0 && u.slot < 0) { /* the split joins */
                    lm_join join = {1.0f, 0.0f};

                    if (lm_split_seen(seen[o], split))
                        join = lm_merge(total[o], top[o], sum[o]);
                    joins[3 * r] = join.keep;
                    joins[3 * r + 1] = join.weight;
                    joins[3 * r + 2] = lm_inverse(total[o]);
                }
                if (ends && lane == 0 && u.slot >= 0 && lm_split_seen(seen[o], split)) {
                    const int i = u.first + r;
                    const size_t at = lm_partial_at(a, u, i, split);

                    a.tops[2 * at] = top[o];
                    a.tops[2 * at + 1] = sum[o];
                }
                if (ends) {
                    top[o] = -INFINITY;
                    sum[o] = 0.0f;
                }
            }
            trm_cp_async_wait<0>();
            __syncthreads(); /* weights and values are there, the keys have been read */
            if (key + kKeys < valid.last)
                load_keys(a, u.keys, false, key + kKeys, valid, k_tile);
#pragma unroll
            for (int c = 0; c < kColumns; c++) {
                const int d = static_cast<int>(threadIdx.x) + c * kThreads;

                if (d >= a.head_dim)
                    break;
#pragma unroll
                for (int r = 0; r < kRows; r++)
                    out[r][c] = __fmul_rn(out[r][c], keeps[r]);
#pragma unroll 4
                for (int j = 0; j < kKeys; j++) {
                    const float v = v_tile[j * pitch + d];
#pragma unroll
                    for (int r = 0; r < kRows; r++)
                        out[r][c] = __fmaf_rn(weights[r * kKeys + j], v, out[r][c]);
                }
                if (!ends)
                    continue;
#pragma unroll
                for (int r = 0; r < kRows; r++) {
                    const int i = u.first + r;

                    if (r < rows && lm_split_seen(lm_query_sees(a, u, i), split)) {
                        if (u.slot < 0) {
                            const lm_join join = {joins[3 * r], joins[3 * r + 1]};

                            sums[r * dims + d] = lm_joined(join, out[r][c], sums[r * dims + d]);
                        } else {
                            const size_t at =
                                static_cast<size_t>(u.slot + i / u.heads * u.slot_step + split -
                                                    u.split_begin) *
                                    a.heads +
                                u.head_first + i % u.heads;

                            a.partials[at * a.head_dim + d] = out[r][c];
                        }
                    }
                    if (r < rows && u.slot < 0 && key + kKeys >= valid.last)
                        a.out[lm_query_at(a, u, i) + d] =
                            __fmul_rn(sums[r * dims + d], joins[3 * r + 2]);
                    out[r][c] = 0.0f;
                }
            }
        }
    }
}

size_t shared_bytes(int rows, int head_dim)
{
    const size_t pitch = static_cast<size_t>(pitch_of(head_dim)), dims = pitch - 4;
    const size_t r = static_cast<size_t>(rows);

    return (2 * r * dims + 2 * kKeys * pitch + r * kKeys + 4 * r) * sizeof(float);
}

template <int kRows, int kColumns>
trm_status launch(const trmi_lmc_attention *a, int wide, cudaStream_t stream)
{
    const size_t shared = shared_bytes(kRows, a->head_dim);
    const int parts = lm_parts(*a, wide != 0 ? TRMI_LM_WIDE : TRMI_LM_NARROW, kRows);
    const unsigned grid = lm_grid(*a, wide, parts, lm_resident(shared, 8));
    static size_t allowed = 48 * 1024; /* never lowered: captured launches rely on it; one thread */

    if (shared > allowed) {
        const auto kernel = lm_attention_simt<kRows, kColumns>;

        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(shared))));
        allowed = shared;
    }
    return trmi_launched(TRM_LAUNCH((lm_attention_simt<kRows, kColumns>), grid, kThreads, shared,
                                    stream, *a, wide, parts),
                         "lm_attention_simt");
}

} // namespace

extern "C" size_t trmi_lmc_attention_simt_shared(int32_t head_dim)
{
    const size_t narrow = shared_bytes(8, head_dim);

    return head_dim <= 128 ? shared_bytes(32, head_dim) : narrow;
}

/* Wide tiles have more rows for a block's keys where registers allow it. */
extern "C" trm_status trmi_lmc_attention_simt(const trmi_lmc_attention *a, int wide,
                                              cudaStream_t stream)
{
    if (a->rows == 0)
        return TRM_OK;
    if (a->head_dim <= 128)
        return wide != 0 ? launch<32, 1>(a, wide, stream) : launch<8, 1>(a, wide, stream);
    if (a->head_dim <= 256)
        return launch<8, 2>(a, wide, stream);
    return launch<8, 4>(a, wide, stream);
}
