/* Attention in plain fp32 or fp64 arithmetic, for any mix of float dtypes and any dims: the online
 * softmax of FlashAttention-2 (Dao, arXiv:2307.08691, algorithm 1) over register tiles.
 *
 * A block of 16 x 16 threads takes kRows * 16 query rows of one head and kWidth columns of the
 * output (blockIdx.y; scores are computed again for each such slice). Thread (ty, tx) has the
 * scores of rows group * 64 + ty * 4 + 0..3 and keys tx * 4 + 0..3 of a block of 64 keys, and the
 * outputs of the same rows: 16 lanes of one warp share a row. Shared memory: q (all of it where dim
 * is at most `resident`, else 64 columns at a time), 64 x 64 of the keys or 64 x kWidth of the
 * values, probabilities. Operands of both products lie "turned", [sum index][row], so that a thread
 * reads its 4 rows as one vector; groups of 4 rows are swizzled by the sum index against bank
 * conflicts. */
#include "kernels/cuda/attention.cuh"

namespace
{

constexpr int kThreads = 256;
constexpr int kKeys = ATTENTION_KEYS;
constexpr int kDepth = 64; /* columns of q and k in one step */

template <class F> struct alignas(16) quad {
    F x[4];
};

/* Where the group of 4 rows `group` of column c lies in a turned tile of kHigh rows. */
template <int kHigh> __device__ __forceinline__ int turned_at(int c, int group)
{
    return c * kHigh + ((group ^ (c >> 2 & 7)) << 2);
}

/* Elements [0, count) of 4 from `at` on; zeros beyond. wide: F's own dtype, 16-byte aligned. */
template <class F>
__device__ __forceinline__ quad<F> load_quad(const trmi_attention_view &v, int64_t at, int count,
                                             bool wide)
{
    quad<F> q;

    if (wide && count >= 4)
        return *reinterpret_cast<const quad<F> *>(static_cast<const F *>(v.data) + at);
#pragma unroll
    for (int e = 0; e < 4; e++)
        q.x[e] =
            e < count ? attention_element<F>(v.data, v.dtype, static_cast<size_t>(at + e)) : F(0);
    return q;
}

/* Rows [0, rows) and columns [0, columns) from `at` on, times factor, to a turned tile of kHigh
 * rows; zeros from there to kHigh rows and `columns` rounded up to 4. */
template <class F, int kHigh>
__device__ __forceinline__ void load_turned(F *to, const trmi_attention_view &v, int64_t at,
                                            int rows, int columns, F factor, bool wide)
{
    const int quads = (columns + 3) / 4;

    if (v.column == 1) {
        for (int e = static_cast<int>(threadIdx.x); e < kHigh * quads; e += kThreads) {
            const int r = e / quads, c = e % quads * 4;
            const quad<F> q = load_quad<F>(v, at + r * v.row + c, r < rows ? columns - c : 0, wide);
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[turned_at<kHigh>(c + i, r >> 2) + (r & 3)] = q.x[i] * factor;
        }
        return;
    }
    for (int e = static_cast<int>(threadIdx.x); e < quads * 4 * (kHigh / 4); e += kThreads) {
        const int c = e / (kHigh / 4), r = e % (kHigh / 4) * 4;
        quad<F> q = load_quad<F>(v, at + c * v.column + r, c < columns ? rows - r : 0, wide);
#pragma unroll
        for (int i = 0; i < 4; i++)
            q.x[i] *= factor;
        *reinterpret_cast<quad<F> *>(to + turned_at<kHigh>(c, r >> 2)) = q;
    }
}

struct simt_options {
    bool wide_q, wide_k, wide_v;
    bool resident; /* the whole of q in shared memory */
};

template <class F, int kRows, int kWidth>
__global__ void __launch_bounds__(kThreads, sizeof(F) == 8 ? 1 : 2)
    attention_simt(const trmi_attention a, const simt_options o)
{
    constexpr int kHigh = kRows * 16;
    constexpr int kColumns = kWidth / 16; /* output columns of a thread */
    constexpr int kRun = kColumns < 4 ? kColumns : 4;
    TRM_DYN_SMEM(F, smem);
    F *const others = smem, *const weights = others + kKeys * (kWidth > kDepth ? kWidth : kDepth);
    F *const q_tile = weights + kKeys * kHigh;
    const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
    const int row_blocks = (a.q_len + kHigh - 1) / kHigh;
    const int head_index = static_cast<int>(blockIdx.x) / row_blocks;
    const int first_row = static_cast<int>(blockIdx.x) % row_blocks * kHigh;
    const int first_column = static_cast<int>(blockIdx.y) * kWidth;
    const int h = head_index % a.heads, b = head_index / a.heads;
    const int g = h / (a.heads / a.kv_heads);
    const int rows = a.q_len - first_row;
    const int64_t q_at = b * a.q.batch + h * a.q.head + first_row * a.q.row;
    const int64_t k_at = b * a.k.batch + g * a.k.head, v_at = b * a.v.batch + g * a.v.head;
    const F scale = static_cast<F>(a.scale), cap = static_cast<F>(a.softcap);
    F out[kRows][kColumns], top[kRows], sum[kRows];
    const bool by_row = a.causal != 0 || a.left >= 0 || a.right >= 0;

    TRM_KERNEL_BEGIN();
#pragma unroll
    for (int r = 0; r < kRows; r++) {
        top[r] = -static_cast<F>(INFINITY);
        sum[r] = F(0);
        for (int c = 0; c < kColumns; c++)
            out[r][c] = F(0);
    }
    if (o.resident)
        load_turned<F, kHigh>(q_tile, a.q, q_at, rows, a.dim, scale, o.wide_q);
    const attention_range range = attention_block_seen(a, b, first_row, kHigh);
    const attention_range common = attention_seen(a, b, first_row);

    for (int key = range.first; key < range.last; key += kKeys) {
        const int keys = range.last - key < kKeys ? range.last - key : kKeys;
        F s[kRows][4];

#pragma unroll
        for (int r = 0; r < kRows; r++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[r][e] = F(0);
        for (int from = 0; from < a.dim; from += kDepth) {
            const int depth = a.dim - from < kDepth ? a.dim - from : kDepth;
            const int q_from = o.resident ? from : 0;

            __syncthreads();
            if (!o.resident)
                load_turned<F, kHigh>(q_tile, a.q, q_at + from, rows, depth, scale, o.wide_q);
            load_turned<F, kKeys>(others, a.k, k_at + key * a.k.row + from * a.k.column, keys,
                                  depth, F(1), o.wide_k);
            __syncthreads();
#pragma unroll 4
            for (int d = 0; d < (depth + 3) / 4 * 4; d++) {
                const quad<F> kq =
                    *reinterpret_cast<const quad<F> *>(others + turned_at<kKeys>(d, tx));
#pragma unroll
                for (int part = 0; part < kRows / 4; part++) {
                    const quad<F> qq = *reinterpret_cast<const quad<F> *>(
                        q_tile + turned_at<kHigh>(q_from + d, part * 16 + ty));
#pragma unroll
                    for (int r = 0; r < 4; r++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            s[part * 4 + r][e] += qq.x[r] * kq.x[e];
                }
            }
        }

#pragma unroll
        for (int r = 0; r < kRows; r++) {
            const int i = first_row + r / 4 * 64 + ty * 4 + r % 4;
            const int row = i < a.q_len ? i : a.q_len - 1;
            const attention_range seen = by_row ? attention_seen(a, b, row) : common;
            F most = -static_cast<F>(INFINITY), total = F(0);

#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int j = key + tx * 4 + e;
                F x = s[r][e];

                if (cap > F(0))
                    x = cap * tanh(x / cap);
                if (j < seen.first || j >= seen.last)
                    x = -static_cast<F>(INFINITY);
                else
                    x += attention_mask<F>(a, b, h, row, j);
                s[r][e] = x;
                most = fmax(most, x);
            }
#pragma unroll
            for (int step = 8; step > 0; step /= 2)
                most = fmax(most, __shfl_xor_sync(0xffffffffu, most, step));
            most = fmax(most, top[r]);
            /* no key seen so far: the shift is any number */
            const F shift = most == -static_cast<F>(INFINITY) ? F(0) : most;
            const F keep = exp(top[r] - shift);
            top[r] = most;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[r][e] = exp(s[r][e] - shift);
                total += s[r][e];
            }
            sum[r] = sum[r] * keep + total;
#pragma unroll
            for (int c = 0; c < kColumns; c++)
                out[r][c] *= keep;
        }

        __syncthreads();
#pragma unroll
        for (int part = 0; part < kRows / 4; part++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                quad<F> w;

#pragma unroll
                for (int r = 0; r < 4; r++)
                    w.x[r] = s[part * 4 + r][e];
                *reinterpret_cast<quad<F> *>(weights +
                                             turned_at<kHigh>(tx * 4 + e, part * 16 + ty)) = w;
            }
        }
        for (int e = static_cast<int>(threadIdx.x); e < kKeys * (kWidth / 4); e += kThreads) {
            const int r = e / (kWidth / 4), c = e % (kWidth / 4) * 4;
            const int count = r < keys ? a.v_dim - first_column - c : 0;

            *reinterpret_cast<quad<F> *>(others + r * kWidth + c) =
                load_quad<F>(a.v, v_at + (key + r) * a.v.row + first_column + c, count, o.wide_v);
        }
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < (keys + 3) / 4 * 4; j++) {
            F right[kColumns];

#pragma unroll
            for (int c = 0; c < kColumns; c++)
                right[c] = others[j * kWidth + c / 4 * 64 + tx * kRun + c % 4];
#pragma unroll
            for (int part = 0; part < kRows / 4; part++) {
                const quad<F> w = *reinterpret_cast<const quad<F> *>(
                    weights + turned_at<kHigh>(j, part * 16 + ty));
#pragma unroll
                for (int r = 0; r < 4; r++)
#pragma unroll
                    for (int c = 0; c < kColumns; c++)
                        out[part * 4 + r][c] += w.x[r] * right[c];
            }
        }
    }

#pragma unroll
    for (int r = 0; r < kRows; r++) {
        const int i = first_row + r / 4 * 64 + ty * 4 + r % 4;
        F total = sum[r];

#pragma unroll
        for (int step = 8; step > 0; step /= 2)
            total += __shfl_xor_sync(0xffffffffu, total, step);
        const F inverse = total == F(0) ? F(0) : F(1) / total;
        if (i >= a.q_len)
            continue;
#pragma unroll
        for (int c = 0; c < kColumns; c++) {
            const int column = first_column + c / 4 * 64 + tx * kRun + c % 4;

            if (column < a.v_dim)
                attention_put<F>(
                    a.out, a.y.dtype,
                    static_cast<size_t>(b * a.y.batch + h * a.y.head + i * a.y.row + column),
                    out[r][c] * inverse);
        }
    }
}

template <class F, int kRows, int kWidth>
trm_status launch(const trmi_attention *a, cudaStream_t stream)
{
    constexpr int kHigh = kRows * 16;
    /* what 160 KB of shared memory hold beside the other tiles */
    constexpr int kResident = sizeof(F) == 8 ? 128 : kRows == 8 ? 128 : 256;
    const int64_t blocks =
        (a->q_len + kHigh - 1) / kHigh * static_cast<int64_t>(a->heads) * a->batch;
    const int slices = (a->v_dim + kWidth - 1) / kWidth;
    const trm_dtype own = sizeof(F) == 8 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
    const auto wide = [own](const trmi_attention_view *v, int64_t step) {
        return v->dtype == own && reinterpret_cast<uintptr_t>(v->data) % 16 == 0 &&
               v->batch % 4 == 0 && v->head % 4 == 0 && step % 4 == 0;
    };
    simt_options o;
    size_t bytes;

    if (blocks > INT32_MAX || slices > UINT16_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "attention of %lld blocks",
                        static_cast<long long>(blocks));
    o.wide_q = wide(&a->q, a->q.row);
    o.wide_k = wide(&a->k, a->k.column == 1 ? a->k.row : a->k.column);
    o.wide_v = wide(&a->v, a->v.row);
    o.resident = a->dim <= kResident;
    bytes = static_cast<size_t>(kKeys * (kWidth > kDepth ? kWidth : kDepth) + kKeys * kHigh +
                                (o.resident ? (a->dim + 3) / 4 * 4 : kDepth) * kHigh) *
            sizeof(F);
    static size_t allowed = 48 * 1024; /* never lowered: captured launches rely on it; one thread */

    if (bytes > allowed) {
        const auto kernel = attention_simt<F, kRows, kWidth>;

        TRM_CHECK(TRMI_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(bytes))));
        allowed = bytes;
    }
    return trmi_launched(
        TRM_LAUNCH((attention_simt<F, kRows, kWidth>),
                   dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(slices)), kThreads,
                   bytes, stream, *a, o),
        "attention_simt");
}

} // namespace

extern "C" trm_status trmi_cuda_attention_simt(const trmi_attention *a, cudaStream_t stream)
{
    const int64_t blocks = (a->q_len + 127) / 128 * static_cast<int64_t>(a->heads) * a->batch;

    if (a->batch == 0 || a->heads == 0 || a->q_len == 0 || a->v_dim == 0)
        return TRM_OK;
    if (a->q.dtype == TRM_DTYPE_F64)
        return a->v_dim <= 32 ? launch<double, 4, 32>(a, stream) : launch<double, 4, 64>(a, stream);
    if (a->v_dim > 64)
        return launch<float, 4, 128>(a, stream);
    if (a->v_dim > 32)
        return a->q_len > 64 && blocks >= a->multiprocessors ? launch<float, 8, 64>(a, stream)
                                                             : launch<float, 4, 64>(a, stream);
    return launch<float, 4, 32>(a, stream);
}
