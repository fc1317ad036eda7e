/* Rotary position embedding. A thread turns N neighbouring pairs of a row, or copies N elements of
 * what is not rotated; N is 8 bytes of elements, so that the interleaved form loads 16, where sizes
 * and alignment allow it, else 1. A thread reads what it overwrites, so out may be x. */
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/rotary.h"

struct rotary_args {
    bool heads_first;
    uint32_t items, head, half, heads, seq, positions;
    trm_divider per_row, by_heads, by_seq;
};

template <class T, int N> __device__ __forceinline__ trm_vector<T, N> get(const T *p)
{
    return *reinterpret_cast<const trm_vector<T, N> *>(p);
}

template <class T, int N>
__device__ __forceinline__ void put(T *p, const trm_vector<T, N> &v)
{
    *reinterpret_cast<trm_vector<T, N> *>(p) = v;
}

/* pairs i to i + N of a row */
template <class T, int N, bool kInterleaved>
__device__ __forceinline__ void turn(const T *x, const T *cosine, const T *sine, T *y,
                                     uint32_t half, uint32_t i)
{
    const trm_vector<T, N> c = get<T, N>(cosine + i), s = get<T, N>(sine + i);

    if constexpr (kInterleaved) {
        trm_vector<T, 2 * N> v = get<T, 2 * N>(x + 2 * i);

#pragma unroll
        for (int j = 0; j < N; j++) {
            const float a = trm_up(v.v[2 * j]), b = trm_up(v.v[2 * j + 1]);
            const float cj = trm_up(c.v[j]), sj = trm_up(s.v[j]);

            v.v[2 * j] = trm_down<T>(cj * a - sj * b);
            v.v[2 * j + 1] = trm_down<T>(sj * a + cj * b);
        }
        put<T, 2 * N>(y + 2 * i, v);
    } else {
        trm_vector<T, N> p = get<T, N>(x + i), q = get<T, N>(x + half + i);

#pragma unroll
        for (int j = 0; j < N; j++) {
            const float a = trm_up(p.v[j]), b = trm_up(q.v[j]);
            const float cj = trm_up(c.v[j]), sj = trm_up(s.v[j]);

            p.v[j] = trm_down<T>(cj * a - sj * b);
            q.v[j] = trm_down<T>(sj * a + cj * b);
        }
        put<T, N>(y + i, p);
        put<T, N>(y + half + i, q);
    }
}

template <class T, int N, bool kInterleaved>
__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    rotary_kernel(rotary_args r, const T *x, const T *cosine, const T *sine, const int64_t *ids,
                  T *out)
{
    TRM_KERNEL_BEGIN();
    const uint32_t stride = gridDim.x * blockDim.x;

    for (uint32_t e = blockIdx.x * blockDim.x + threadIdx.x; e < r.items; e += stride) {
        const uint32_t row = r.per_row.div(e), i = (e - row * r.per_row.d) * N;
        const T *from = x + static_cast<size_t>(row) * r.head;
        T *to = out + static_cast<size_t>(row) * r.head;

        if (i < r.half) {
            const uint32_t outer = r.by_heads.div(row); /* heads last: batch * seq + position */
            const uint32_t line = r.by_seq.div(row);    /* heads first: batch * heads + head */
            const uint32_t s = row - line * r.seq;
            int64_t at = r.heads_first ? static_cast<int64_t>(r.by_heads.div(line)) * r.seq + s
                                       : static_cast<int64_t>(outer);

            if (ids != nullptr) {
                at = ids[at];
                at = at < 0 ? 0 : at >= r.positions ? r.positions - 1 : at;
            }
            turn<T, N, kInterleaved>(from, cosine + at * r.half, sine + at * r.half, to, r.half, i);
        } else {
            const uint32_t j = i + r.half; /* behind both halves */

            put<T, N>(to + j, get<T, N>(from + j));
        }
    }
}

template <class T, int N, bool kInterleaved>
static trm_status launch(const trm_cuda *cuda, cudaStream_t stream, const trmi_rotary *r,
                         const void *x, const void *cosine, const void *sine, const int64_t *ids,
                         void *out)
{
    const int64_t rows = r->batch * r->seq * r->heads, per_row = (r->head - r->half) / N;
    rotary_args a = {};

    a.heads_first = r->heads_first;
    a.items = static_cast<uint32_t>(rows * per_row);
    a.head = static_cast<uint32_t>(r->head);
    a.half = static_cast<uint32_t>(r->half);
    a.heads = static_cast<uint32_t>(r->heads);
    a.seq = static_cast<uint32_t>(r->seq);
    a.positions = static_cast<uint32_t>(r->positions);
    a.per_row.set(static_cast<uint32_t>(per_row));
    a.by_heads.set(a.heads);
    a.by_seq.set(a.seq);
    return trmi_launched(TRM_LAUNCH((rotary_kernel<T, N, kInterleaved>),
                                    trm_map_grid(cuda, a.items), TRM_MAP_BLOCK, 0, stream, a,
                                    static_cast<const T *>(x), static_cast<const T *>(cosine),
                                    static_cast<const T *>(sine), ids, static_cast<T *>(out)),
                         "rotary embedding");
}

template <class T>
static trm_status run(const trm_cuda *cuda, cudaStream_t stream, const trmi_rotary *r,
                      const void *x, const void *cosine, const void *sine, const int64_t *ids,
                      void *out)
{
    constexpr int kLanes = trm_lanes<T>() / 2;
    using wide = trm_vector<T, 2 * kLanes>;
    const bool vectors = r->half % kLanes == 0 && r->head % (2 * kLanes) == 0 &&
                         trm_aligned<wide>(x) && trm_aligned<wide>(out) &&
                         trm_aligned<wide>(cosine) && trm_aligned<wide>(sine);

    if (r->interleaved)
        return vectors ? launch<T, kLanes, true>(cuda, stream, r, x, cosine, sine, ids, out)
                       : launch<T, 1, true>(cuda, stream, r, x, cosine, sine, ids, out);
    return vectors ? launch<T, kLanes, false>(cuda, stream, r, x, cosine, sine, ids, out)
                   : launch<T, 1, false>(cuda, stream, r, x, cosine, sine, ids, out);
}

extern "C" trm_status trmi_cuda_rotary(const trm_cuda *cuda, cudaStream_t stream,
                                       const trmi_rotary *r, const void *x, const void *cos,
                                       const void *sin, const int64_t *ids, void *out)
{
    const int64_t total = r->batch * r->seq * r->heads * r->head;

    if (total > TRMI_ROTARY_LIMIT || r->half < 0 || 2 * r->half > r->head)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "rotary embedding of %lld elements, %lld pairs of %lld",
                        static_cast<long long>(total), static_cast<long long>(r->half),
                        static_cast<long long>(r->head));
    if (total == 0)
        return TRM_OK;
    TRM_HALVES(r->dtype, T, { return run<T>(cuda, stream, r, x, cos, sin, ids, out); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "rotary embedding of %s", trm_dtype_name(r->dtype));
}
