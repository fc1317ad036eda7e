/* TrmPool: one row a sequence: the mean of its rows, its first or its last (the mean of one). A
 * block has 32 * V columns of a sequence, in eight rows at a time: row r of the sequence belongs to
 * lane r % 8, lanes sum in order and are then summed in order, in double: as good as exact, and the
 * same wherever the sequence lies. */
#include "kernels/cuda/lm_rows.h"
#include "kernels/cuda/rows.cuh"

using namespace trmi_rows;

namespace
{

constexpr int kColumns = 32, kLanes = 8, kAhead = 4; /* kAhead: rows of a lane on their way */

template <int V>
__global__ void __launch_bounds__(kColumns *kLanes)
    lm_pool(int kind, uint32_t rows, uint32_t width, const float *x, const trmi_lm_block *step,
            float *out)
{
    TRM_KERNEL_BEGIN();
    using Vector = Pack<float, V>;
    __shared__ double sums[kLanes][kColumns * V];
    const uint32_t column = threadIdx.x % kColumns, lane = threadIdx.x / kColumns;
    const uint32_t c = (blockIdx.y * kColumns + column) * V;
    const int s = static_cast<int>(blockIdx.x);
    uint32_t begin = 0, count = 0;
    double sum[V];

    if (s < step->sequence_count) {
        const trmi_lm_sequence q = TRMI_LM_AT(trmi_lm_sequence, step, step->sequences_at)[s];

        if (q.row >= 0 && q.tokens > 0 && static_cast<uint32_t>(q.row) < rows) {
            begin = static_cast<uint32_t>(q.row);
            count = static_cast<uint32_t>(q.tokens);
            count = count > rows - begin ? rows - begin : count;
            if (kind == TRMI_LMC_POOL_LAST)
                begin += count - 1;
            if (kind != TRMI_LMC_POOL_MEAN)
                count = 1;
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++)
        sum[j] = 0.0;
    for (uint32_t r = lane; c < width && r < count; r += kLanes * kAhead) {
        Vector v[kAhead];

#pragma unroll
        for (int i = 0; i < kAhead; i++)
            if (r + i * kLanes < count)
                v[i] = *reinterpret_cast<const Vector *>(
                    x + static_cast<size_t>(begin + r + i * kLanes) * width + c);
#pragma unroll
        for (int i = 0; i < kAhead; i++)
            if (r + i * kLanes < count)
#pragma unroll
                for (int j = 0; j < V; j++)
                    sum[j] = __dadd_rn(sum[j], static_cast<double>(v[i].v[j]));
    }
#pragma unroll
    for (int j = 0; j < V; j++)
        sums[lane][j * kColumns + column] = sum[j];
    __syncthreads();
    if (lane != 0 || c >= width)
        return;
    Vector y;

#pragma unroll
    for (int j = 0; j < V; j++) {
        double all = sum[j];

        for (int l = 1; l < kLanes; l++)
            all = __dadd_rn(all, sums[l][j * kColumns + column]);
        y.v[j] = count == 0 ? 0.0f : __double2float_rn(__ddiv_rn(all, static_cast<double>(count)));
    }
    *reinterpret_cast<Vector *>(out + static_cast<size_t>(s) * width + c) = y;
}

template <int V>
trm_status launch(cudaStream_t stream, const trmi_lmc_pool *p, const float *x,
                  const trmi_lm_block *step, float *out)
{
    const size_t blocks = (p->width + kColumns * V - 1) / (kColumns * V);

    if (p->sequences > INT32_MAX || p->rows > INT32_MAX || blocks > 65535)
        return trm_fail(TRM_ERR_INVALID_ARG, "pool of %zu rows of %zu, %zu sequences", p->rows,
                        p->width, p->sequences);
    return trmi_launched(
        TRM_LAUNCH((lm_pool<V>),
                   dim3(static_cast<unsigned>(p->sequences), static_cast<unsigned>(blocks)),
                   kColumns * kLanes, 0, stream, static_cast<int>(p->kind),
                   static_cast<uint32_t>(p->rows), static_cast<uint32_t>(p->width), x, step, out),
        "lm pool");
}

} // namespace

extern "C" trm_status trmi_cuda_lm_pool(cudaStream_t stream, const trmi_lmc_pool *p, const float *x,
                                        const trmi_lm_block *step, float *out)
{
    if (p->sequences == 0 || p->width == 0)
        return TRM_OK;
    return p->width % 4 == 0 && aligned16(x) && aligned16(out) ? launch<4>(stream, p, x, step, out)
                                                               : launch<1>(stream, p, x, step, out);
}
