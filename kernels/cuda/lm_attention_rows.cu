/* Before attention: q and k are turned (as TrmRope), q is rounded to what is computed with, k and v
 * are written where attention reads them, rows of padding become zeros.
 *
 * A block of 8 warps has a row, or with few rows a share of its heads; a warp takes a head at a
 * time, a lane the pairs lane, lane + 32, ...: neighbouring lanes read and write neighbouring
 * elements. A row's angles are computed once a block. */
#include "kernels/cuda/lm_attention.cuh"
#include "kernels/cuda/lm_rope.cuh"

namespace
{

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kPairs = TRMI_LMC_HEAD_MAX / 64; /* of a lane */

/* Elements of pair i of a head; second may be head_dim: there is none. */
struct couple {
    int first, second;
};
__device__ __forceinline__ couple couple_of(const trmi_lmc_attention &a, int i)
{
    if (i >= a.half)
        return couple{2 * i, 2 * i + 1};
    return a.interleaved != 0 ? couple{2 * i, 2 * i + 1} : couple{i, i + a.half};
}

template <class T>
__device__ __forceinline__ void store(const trmi_lmc_attention &a, T *to, const float (&x)[kPairs],
                                      const float (&y)[kPairs])
{
    const int lane = static_cast<int>(threadIdx.x) % 32;

#pragma unroll
    for (int j = 0; j < kPairs; j++) {
        const couple p = couple_of(a, lane + 32 * j);

        if (p.first < a.head_dim)
            to[p.first] = trm_down<T>(x[j]);
        if (p.second < a.head_dim)
            to[p.second] = trm_down<T>(y[j]);
    }
}

__device__ __forceinline__ void store_as(const trmi_lmc_attention &a, trm_dtype dtype, void *to,
                                         size_t at, const float (&x)[kPairs],
                                         const float (&y)[kPairs])
{
    if (dtype == TRM_DTYPE_F32)
        store(a, static_cast<float *>(to) + at, x, y);
    else if (dtype == TRM_DTYPE_F16)
        store(a, static_cast<__half *>(to) + at, x, y);
    else
        store(a, static_cast<__nv_bfloat16 *>(to) + at, x, y);
}

/* The larger magnitude; NaN where there is one. */
__device__ __forceinline__ float larger(float most, float x)
{
    const float m = fabsf(x);

    return m > most || m != m ? m : most;
}

__device__ __forceinline__ int8_t whole(float x, float inverse)
{
    const float q = rintf(__fmul_rn(x, inverse));

    return q >= -127.0f && q <= 127.0f ? static_cast<int8_t>(q) : static_cast<int8_t>(0);
}

/* scale = amax / 127; a head with NaN or infinity gets that as its scale. */
__device__ __forceinline__ void store_bytes(const trmi_lmc_attention &a, int8_t *to, float *scale,
                                            const float (&x)[kPairs], const float (&y)[kPairs])
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float most = 0.0f;

#pragma unroll
    for (int j = 0; j < kPairs; j++)
        most = larger(larger(most, x[j]), y[j]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        most = larger(most, __shfl_xor_sync(0xffffffffu, most, step));
    const float s = __fdiv_rn(most, 127.0f), inverse = s > 0.0f ? __fdiv_rn(1.0f, s) : 0.0f;

    if (lane == 0)
        *scale = s;
#pragma unroll
    for (int j = 0; j < kPairs; j++) {
        const couple p = couple_of(a, lane + 32 * j);

        if (p.first < a.head_dim)
            to[p.first] = whole(x[j], inverse);
        if (p.second < a.head_dim)
            to[p.second] = whole(y[j], inverse);
    }
}

/* Key (value: half 1) of local kv head c of a row. */
__device__ __forceinline__ void store_key(const trmi_lmc_attention &a, int row, int sequence,
                                          int half, int c, const float (&x)[kPairs],
                                          const float (&y)[kPairs])
{
    if (a.encoder != 0) {
        store_as(a, a.compute, half != 0 ? a.v_rows : a.k_rows,
                 (static_cast<size_t>(row) * a.kv_heads + c) * a.head_dim, x, y);
        return;
    }
    const trmi_lm_sequence q =
        TRMI_LM_AT(trmi_lm_sequence, a.block, a.block->sequences_at)[sequence];
    const lm_keys keys = lm_keys_of(a, q, c);
    const int position = q.position + row - q.row, in_page = position % TRM_KV_PAGE;
    unsigned char *to = const_cast<unsigned char *>(keys.base) +
                        keys.pages[position / TRM_KV_PAGE] * keys.page_bytes + half * keys.values;

    if (a.cache == TRM_DTYPE_I8)
        store_bytes(a, reinterpret_cast<int8_t *>(to) + in_page * a.head_dim,
                    reinterpret_cast<float *>(to + TRM_KV_PAGE * a.head_dim) + in_page, x, y);
    else
        store_as(a, a.cache, to, static_cast<size_t>(in_page) * a.head_dim, x, y);
}

__global__ void __launch_bounds__(kThreads) lm_attention_rows(const trmi_lmc_attention a)
{
    __shared__ trm_lm_angle angles[TRMI_LMC_HEAD_MAX / 2];
    const int row = static_cast<int>(blockIdx.x);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;

    TRM_KERNEL_BEGIN();
    const int sequence = TRMI_LM_AT(int32_t, a.block, a.block->row_sequences_at)[row];
    const size_t width = static_cast<size_t>(a.heads) * a.head_dim;

    if (sequence < 0) {
        for (size_t i = blockIdx.y * kThreads + threadIdx.x; i < width; i += gridDim.y * kThreads)
            a.out[row * width + i] = 0.0f;
        return;
    }
    for (int i = static_cast<int>(threadIdx.x); i < a.half; i += kThreads)
        angles[i] = trm_lm_angle_of(a.positions[row], a.frequencies[i], a.rope_scale);
    __syncthreads();
    for (int u = static_cast<int>(blockIdx.y) * kWarps + warp; u < a.heads + 2 * a.kv_heads;
         u += static_cast<int>(gridDim.y) * kWarps) {
        const int kind = u < a.heads ? 0 : u < a.heads + a.kv_heads ? 1 : 2;
        const int head = kind == 0 ? u : u - a.heads - (kind - 1) * a.kv_heads;
        const size_t heads = static_cast<size_t>(kind == 0 ? a.heads : a.kv_heads);
        const float *from = (kind == 0   ? a.q
                             : kind == 1 ? a.k
                                         : a.v) +
                            (row * heads + head) * a.head_dim;
        float x[kPairs], y[kPairs];

#pragma unroll
        for (int j = 0; j < kPairs; j++) {
            const int i = lane + 32 * j;
            const couple p = couple_of(a, i);

            x[j] = p.first < a.head_dim ? from[p.first] : 0.0f;
            y[j] = p.second < a.head_dim ? from[p.second] : 0.0f;
            if (kind < 2 && i < a.half)
                trm_lm_turn(angles[i], x[j], y[j]);
        }
        if (kind == 0)
            store_as(a, a.compute, a.q_rounded, (row * heads + head) * a.head_dim, x, y);
        else
            store_key(a, row, sequence, kind - 1, head, x, y);
    }
}

} // namespace

extern "C" trm_status trmi_lmc_attention_rows(const trmi_lmc_attention *a, cudaStream_t stream)
{
    const int units = (a->heads + 2 * a->kv_heads + kWarps - 1) / kWarps;
    int shares = a->rows > 0 ? 4 * a->multiprocessors / a->rows : 0;

    if (a->rows == 0)
        return TRM_OK;
    shares = shares < 1 ? 1 : shares < units ? shares : units;
    return trmi_launched(TRM_LAUNCH(lm_attention_rows,
                                    dim3(static_cast<unsigned>(a->rows),
                                         static_cast<unsigned>(shares < 65535 ? shares : 65535)),
                                    kThreads, 0, stream, *a),
                         "lm_attention_rows");
}
