/* TrmRope. A block has a row, or some heads of one where rows are few: it computes the row's angles
 * once, in shared memory, and turns the pairs of its heads. A thread turns V neighbouring pairs of
 * a head, or copies V elements of what is not rotated; it reads what it overwrites, so out may be
 * x. Which block has a head does not change what the head gets. */
#include "kernels/cuda/lm_rope.cuh"
#include "kernels/cuda/lm_rows.h"
#include "kernels/cuda/rows.cuh"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256;

struct Params {
    uint32_t heads, heads_each, head_dim, half;
    bool interleaved;
    float scale;
    Div per_head; /* items of a head */
};

/* pairs i to i + V of a head */
template <int V>
__device__ __forceinline__ void turn(const Params &p, const trm_lm_angle *angles, const float *x,
                                     float *out, uint32_t i)
{
    using Vector = Pack<float, V>;
    Vector a, b;

    if (p.interleaved) {
        a = *reinterpret_cast<const Vector *>(x + 2 * i);
        b = *reinterpret_cast<const Vector *>(x + 2 * i + V);
        if constexpr (V == 1) {
            trm_lm_turn(angles[i], a.v[0], b.v[0]);
        } else {
#pragma unroll
            for (int j = 0; j < V; j += 2) {
                trm_lm_turn(angles[i + j / 2], a.v[j], a.v[j + 1]);
                trm_lm_turn(angles[i + V / 2 + j / 2], b.v[j], b.v[j + 1]);
            }
        }
        *reinterpret_cast<Vector *>(out + 2 * i) = a;
        *reinterpret_cast<Vector *>(out + 2 * i + V) = b;
    } else {
        a = *reinterpret_cast<const Vector *>(x + i);
        b = *reinterpret_cast<const Vector *>(x + p.half + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            trm_lm_turn(angles[i + j], a.v[j], b.v[j]);
        *reinterpret_cast<Vector *>(out + i) = a;
        *reinterpret_cast<Vector *>(out + p.half + i) = b;
    }
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    lm_rope(Params p, const float *x, const int32_t *positions, const float *frequencies,
            float *out)
{
    TRM_KERNEL_BEGIN();
    using Vector = Pack<float, V>;
    __shared__ trm_lm_angle angles[TRMI_LMC_PAIRS_MAX];
    const uint32_t first = blockIdx.y * p.heads_each;
    const uint32_t count = p.heads - first < p.heads_each ? p.heads - first : p.heads_each;
    const size_t at = (static_cast<size_t>(blockIdx.x) * p.heads + first) * p.head_dim;
    const int32_t position = positions[blockIdx.x];

    for (uint32_t i = threadIdx.x; i < p.half; i += kThreads)
        angles[i] = trm_lm_angle_of(position, frequencies[i], p.scale);
    __syncthreads();
    for (uint32_t e = threadIdx.x; e < count * p.per_head.d; e += kThreads) {
        const uint32_t h = quotient(p.per_head, e), i = (e - h * p.per_head.d) * V;
        const float *from = x + at + static_cast<size_t>(h) * p.head_dim;
        float *to = out + at + static_cast<size_t>(h) * p.head_dim;

        if (i < p.half)
            turn<V>(p, angles, from, to, i);
        else /* behind both halves */
            *reinterpret_cast<Vector *>(to + p.half + i) =
                *reinterpret_cast<const Vector *>(from + p.half + i);
    }
}

template <int V>
trm_status launch(cudaStream_t stream, const trmi_lmc_rope *r, const float *x,
                  const int32_t *positions, const float *frequencies, float *out)
{
    const size_t per_head = (r->head_dim - r->half) / V, items = r->heads * per_head;
    const bool few = r->rows < 2 * static_cast<size_t>(r->multiprocessors);
    const size_t wanted = (items + (few ? 255 : 1023)) / (few ? 256 : 1024);
    const size_t splits = wanted < 1 ? 1 : wanted > r->heads ? r->heads : wanted;
    Params p = {};

    p.heads = static_cast<uint32_t>(r->heads);
    p.heads_each = static_cast<uint32_t>((r->heads + splits - 1) / splits);
    p.head_dim = static_cast<uint32_t>(r->head_dim);
    p.half = static_cast<uint32_t>(r->half);
    p.interleaved = r->interleaved;
    p.scale = r->scale;
    p.per_head = div_of(per_head);
    return trmi_launched(TRM_LAUNCH((lm_rope<V>),
                                    dim3(static_cast<unsigned>(r->rows),
                                         (p.heads + p.heads_each - 1) / p.heads_each),
                                    kThreads, 0, stream, p, x, positions, frequencies, out),
                         "lm rope");
}

} // namespace

extern "C" trm_status trmi_cuda_lm_rope(cudaStream_t stream, const trmi_lmc_rope *r, const float *x,
                                        const int32_t *positions, const float *frequencies,
                                        float *out)
{
    const bool wide = r->head_dim % 4 == 0 && r->half % 4 == 0 && aligned16(x) && aligned16(out);

    if (r->half > TRMI_LMC_PAIRS_MAX || 2 * r->half > r->head_dim || r->rows > INT32_MAX ||
        r->heads > 65535 || r->heads * r->head_dim > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "rope of %zu rows, %zu heads of %zu, %zu pairs",
                        r->rows, r->heads, r->head_dim, r->half);
    if (r->rows == 0 || r->heads == 0)
        return TRM_OK;
    return wide ? launch<4>(stream, r, x, positions, frequencies, out)
                : launch<1>(stream, r, x, positions, frequencies, out);
}
