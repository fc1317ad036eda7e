/* Determinants (reduce_det.h). */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/reduce_det.h"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256;
constexpr size_t kShared = 64;        /* matrices up to this size lie in shared memory */
constexpr size_t kBlocksMax = 4096;   /* matrices in the workspace at once */

__global__ void __launch_bounds__(kThreads)
    determinants(int dtype, size_t count, uint32_t n, const void *__restrict__ in,
                 void *__restrict__ out, double *workspace)
{
    TRM_DYN_SMEM(double, shared);
    __shared__ uint32_t pivot;
    const uint32_t elems = n * n;
    double *a = workspace != nullptr ? workspace + static_cast<size_t>(blockIdx.x) * elems : shared;

    TRM_KERNEL_BEGIN();
    for (size_t m = blockIdx.x; m < count; m += gridDim.x) {
        double det = 1;

        __syncthreads(); /* the matrix before is done with */
        for (uint32_t i = threadIdx.x; i < elems; i += kThreads)
            a[i] = get_float(in, dtype, m * elems + i);
        __syncthreads();
        for (uint32_t c = 0; c < n; c++) {
            if (threadIdx.x < 32) { /* the first of the largest, as in a loop over the rows */
                uint32_t best = c + threadIdx.x < n ? c + threadIdx.x : n;
                double value = best < n ? fabs(a[best * n + c]) : -1;

                for (uint32_t r = best + 32; best < n && r < n; r += 32) {
                    const double v = fabs(a[r * n + c]);

                    if (v > value) {
                        value = v;
                        best = r;
                    }
                }
#pragma unroll
                for (int d = 16; d > 0; d /= 2) {
                    const double v = __shfl_xor_sync(kAll, value, d);
                    const uint32_t at = __shfl_xor_sync(kAll, best, d);

                    if (at < n && (v > value || best >= n || (v == value && at < best))) {
                        value = v;
                        best = at;
                    }
                }
                if (threadIdx.x == 0)
                    pivot = best;
            }
            __syncthreads();
            const uint32_t p = pivot;
            const double diagonal = a[p * n + c];

            if (diagonal == 0) { /* all threads see the same */
                det = 0;
                break;
            }
            det *= p != c ? -diagonal : diagonal;
            __syncthreads(); /* the diagonal is read before rows move */
            for (uint32_t j = c + threadIdx.x; p != c && j < n; j += kThreads) {
                const double t = a[c * n + j];

                a[c * n + j] = a[p * n + j];
                a[p * n + j] = t;
            }
            __syncthreads();
            /* rows below, the columns right of c: column c is not read again but as a factor */
            const uint32_t width = n - c - 1;

            for (uint32_t i = threadIdx.x; i < width * width; i += kThreads) {
                const uint32_t r = c + 1 + i / width, j = c + 1 + i % width;

                a[r * n + j] -= a[r * n + c] / diagonal * a[c * n + j];
            }
            __syncthreads();
        }
        if (threadIdx.x == 0)
            put_float(out, dtype, m, det);
    }
}

} // namespace

extern "C" size_t trmi_cuda_det_workspace_bytes(size_t count, size_t n)
{
    return n <= kShared ? 0 : (count < kBlocksMax ? count : kBlocksMax) * n * n * sizeof(double);
}

extern "C" trm_status trmi_cuda_det_run(trm_dtype dtype, size_t count, size_t n, const void *in,
                                        void *out, void *workspace, cudaStream_t stream)
{
    const size_t smem = n <= kShared ? n * n * sizeof(double) : 0;

    if (count == 0)
        return TRM_OK;
    if (!trm_dtype_is_float(dtype) || n > 46340)
        return trm_fail(TRM_ERR_UNSUPPORTED, "determinants of %zu x %zu matrices of %s", n, n,
                        trm_dtype_name(dtype));
    const unsigned blocks = static_cast<unsigned>(count < kBlocksMax ? count : kBlocksMax);
    double *outside = n <= kShared ? nullptr : static_cast<double *>(workspace);

    return trmi_launched(TRM_LAUNCH(determinants, blocks, kThreads, smem, stream, dtype, count,
                                    static_cast<uint32_t>(n), in, out, outside),
                         "determinants");
}
