/* What experts gave, summed: kernels/cuda/lm_experts.h. A block has a token and a piece of its
 * columns; the experts' rows are loaded eight at a time before the first is added.
 *
 * Groups without a chosen expert are zeros in the tree, and adding zero changes nothing: only
 * groups that have one are visited. Between two neighbours of those the *level* is the depth of
 * their lowest common node, and they are added when all that lies deeper has been: values wait on a
 * stack in shared memory while the level between them and what follows is not the deepest. Parts
 * are never added to each other. */
#include "kernels/cuda/lm_experts.h"
#include "kernels/cuda/rows.cuh"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 128, kAhead = 8;
constexpr int kSame = 255, kEnd = 0; /* levels: the same group; the last of its part */

/* depth + 1 of the lowest node of the tree over [0, leaves) that has both a < b */
__device__ __forceinline__ int level_between(int a, int b, int leaves)
{
    int lo = 0, hi = leaves, level = 1;

    for (;; level++) {
        const int mid = lo + (hi - lo) / 2;

        if (b < mid)
            hi = mid;
        else if (a >= mid)
            lo = mid;
        else
            return level;
    }
}

__device__ __forceinline__ int part_of(const trmi_experts &e, int local_group)
{
    int part = 0;

    while (part < e.parts - 1 && local_group >= e.ends[part])
        part++;
    return part;
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    lm_experts_combine(trmi_experts e, trmi_experts_routes r, const float *y, float *out,
                       size_t part_stride)
{
    TRM_KERNEL_BEGIN();
    using Vector = Pack<float, V>;
    __shared__ int32_t rows[TRMI_EXPERTS_TOP_MAX], levels[TRMI_EXPERTS_TOP_MAX],
        part[TRMI_EXPERTS_TOP_MAX];
    __shared__ float shares[TRMI_EXPERTS_TOP_MAX];
    __shared__ __align__(16) Vector stack[TRM_TREE_DEPTH_MAX][kThreads];
    const size_t t = blockIdx.x, at = t * static_cast<size_t>(e.top_k);
    const uint32_t c = (blockIdx.y * kThreads + threadIdx.x) * V;
    const bool here = c < static_cast<uint32_t>(e.width);

    if (threadIdx.x < static_cast<unsigned>(e.top_k)) {
        const size_t i = at + threadIdx.x;
        const bool last = threadIdx.x + 1 == static_cast<unsigned>(e.top_k);
        const int row = r.rows[i], next = last ? -1 : r.rows[i + 1];

        rows[threadIdx.x] = row;
        shares[threadIdx.x] = r.shares[i];
        if (row >= 0) {
            const int g = r.chosen[i] / e.group, first = e.first / e.group;
            const int after = next < 0 ? g : r.chosen[i + 1] / e.group;
            const int own = part_of(e, g - first);

            part[threadIdx.x] = own;
            levels[threadIdx.x] = next < 0 || part_of(e, after - first) != own ? kEnd
                                  : after == g                                 ? kSame
                                               : level_between(g, after, e.groups);
        }
    }
    __syncthreads();

    uint64_t waiting = 0; /* levels above what the stack holds, four bits each, the last lowest */
    int depth = 0, written = 0;
    float sum[V];

#pragma unroll
    for (int j = 0; j < V; j++)
        sum[j] = 0.0f;
    out += t * static_cast<size_t>(e.width) + c;
    for (int i0 = 0; i0 < e.top_k; i0 += kAhead) {
        Vector v[kAhead];

#pragma unroll
        for (int i = 0; i < kAhead; i++)
            if (i0 + i < e.top_k && rows[i0 + i] >= 0 && here)
                v[i] = *reinterpret_cast<const Vector *>(
                    y + static_cast<size_t>(rows[i0 + i]) * static_cast<size_t>(e.width) + c);
#pragma unroll
        for (int i = 0; i < kAhead; i++) {
            if (i0 + i >= e.top_k || rows[i0 + i] < 0 || !here)
                continue;
            const int level = levels[i0 + i];
            const float share = shares[i0 + i];

#pragma unroll
            for (int j = 0; j < V; j++)
                sum[j] = __fadd_rn(sum[j], __fmul_rn(share, v[i].v[j]));
            if (level == kSame)
                continue;
            for (; static_cast<int>(waiting & 15u) > level; waiting >>= 4) {
                const Vector below = stack[--depth][threadIdx.x];

#pragma unroll
                for (int j = 0; j < V; j++)
                    sum[j] = __fadd_rn(below.v[j], sum[j]);
            }
            Vector o;

            if (level == kEnd) {
#pragma unroll
                for (int j = 0; j < V; j++)
                    o.v[j] = 0.0f;
                for (; written < part[i0 + i]; written++)
                    *reinterpret_cast<Vector *>(out + written * part_stride) = o;
            }
#pragma unroll
            for (int j = 0; j < V; j++)
                o.v[j] = sum[j];
            if (level == kEnd) {
                *reinterpret_cast<Vector *>(out + written++ * part_stride) = o;
            } else {
                stack[depth++][threadIdx.x] = o;
                waiting = waiting << 4 | static_cast<unsigned>(level);
            }
#pragma unroll
            for (int j = 0; j < V; j++)
                sum[j] = 0.0f;
        }
    }
    for (; here && written < e.parts; written++) {
        Vector o;

#pragma unroll
        for (int j = 0; j < V; j++)
            o.v[j] = 0.0f;
        *reinterpret_cast<Vector *>(out + written * part_stride) = o;
    }
}

template <int V>
trm_status launch(cudaStream_t stream, const trmi_experts *e, const trmi_experts_routes *r,
                  const float *y, float *out, size_t part_stride)
{
    const int each = kThreads * V, blocks = (e->width + each - 1) / each;

    if (blocks > 65535)
        return trm_fail(TRM_ERR_INVALID_ARG, "experts' outputs of %d", e->width);
    return trmi_launched(
        TRM_LAUNCH((lm_experts_combine<V>),
                   dim3(static_cast<unsigned>(e->tokens), static_cast<unsigned>(blocks)), kThreads,
                   0, stream, *e, *r, y, out, part_stride),
        "lm experts combine");
}

} // namespace

extern "C" trm_status trmi_cuda_experts_combine(cudaStream_t stream, const trmi_experts *e,
                                                const trmi_experts_routes *r, const float *y,
                                                float *out, size_t part_stride)
{
    if (e->tokens == 0 || e->width == 0)
        return TRM_OK;
    return e->width % 4 == 0 && aligned16(y) && aligned16(out) && part_stride % 4 == 0
               ? launch<4>(stream, e, r, y, out, part_stride)
               : launch<1>(stream, e, r, y, out, part_stride);
}
