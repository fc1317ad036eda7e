/* projected[m, n] = x[m, k] w[n, k]^T in fp32: the projection of all steps where cuBLASLt takes no
 * part. Blocks of 64 x 64 results, 4 x 4 a thread, 16 columns of x and w in shared memory at a time
 * (turned, rows padded by 4: stores of one quad then go to different banks). */
#include "kernels/cuda/gpu.cuh" /* first: it may emulate CUDA's headers */

#include "kernels/cuda/recurrent.h"

namespace
{

constexpr int kThreads = 256;
constexpr int kSide = 64;
constexpr int kDepth = 16;
constexpr int kPitch = kSide + 4;

/* 4 columns of a row from `column` on to a turned tile; zeros outside. */
template <class T>
__device__ __forceinline__ void load(float (*to)[kPitch], const T *__restrict__ from, int rows,
                                     int first, int columns, int column)
{
    const int r = static_cast<int>(threadIdx.x) / 4, c = static_cast<int>(threadIdx.x) % 4 * 4;

#pragma unroll
    for (int e = 0; e < 4; e++) {
        const int at = column + c + e;

        to[c + e][r] = first + r < rows && at < columns
                           ? trm_up(from[static_cast<size_t>(first + r) * columns + at])
                           : 0.0f;
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    recurrent_project(const T *__restrict__ x, const T *__restrict__ w,
                      float *__restrict__ projected, const int m, const int n, const int k)
{
    __shared__ __align__(16) float left[kDepth][kPitch], right[kDepth][kPitch];
    const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
    const int row = static_cast<int>(blockIdx.x) * kSide;
    const int column = static_cast<int>(blockIdx.y) * kSide;
    float sums[4][4] = {};

    TRM_KERNEL_BEGIN();
    for (int from = 0; from < k; from += kDepth) {
        load(left, x, m, row, k, from);
        load(right, w, n, column, k, from);
        __syncthreads();
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            float l[4], r[4];

#pragma unroll
            for (int e = 0; e < 4; e++) {
                l[e] = left[d][ty * 4 + e];
                r[e] = right[d][tx * 4 + e];
            }
#pragma unroll
            for (int a = 0; a < 4; a++)
#pragma unroll
                for (int b = 0; b < 4; b++)
                    sums[a][b] += l[a] * r[b];
        }
        __syncthreads();
    }
#pragma unroll
    for (int a = 0; a < 4; a++)
#pragma unroll
        for (int b = 0; b < 4; b++)
            if (row + ty * 4 + a < m && column + tx * 4 + b < n)
                projected[static_cast<size_t>(row + ty * 4 + a) * n + column + tx * 4 + b] =
                    sums[a][b];
}

} // namespace

extern "C" trm_status trmi_cuda_recurrent_project(const trmi_recurrent *r, cudaStream_t stream)
{
    const int m = r->steps * r->batch, n = r->directions * r->gates * r->hidden;
    const dim3 grid(static_cast<unsigned>((m + kSide - 1) / kSide),
                    static_cast<unsigned>((n + kSide - 1) / kSide));

    if (m == 0 || n == 0)
        return TRM_OK;
    if (grid.y > UINT16_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "recurrent projection of %d columns", n);
    TRM_HALVES(r->dtype, T, {
        return trmi_launched(TRM_LAUNCH((recurrent_project<T>), grid, kThreads, 0, stream,
                                        static_cast<const T *>(r->x), static_cast<const T *>(r->w),
                                        r->projected, m, n, r->input),
                             "recurrent_project");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "recurrent projection of %s", trm_dtype_name(r->dtype));
}
