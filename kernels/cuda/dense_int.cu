/* 8-bit products (dense_int.h).
 *
 * product: a block of 256 threads computes 64 x 64 results, 64 terms at a time, which lie in shared
 * memory as 16 words of four terms each: dp4a multiplies four and adds them. Each thread has 4 x 4
 * results and adds up its rows of A and columns of B beside them.
 * rows: a warp a row. finish: a thread an element, a grid apart. */
#include "kernels/cuda/gpu.cuh"

#include "kernels/cuda/dense_int.h"

namespace
{

constexpr int kTile = 64, kWords = 16, kThreads = 256, kSide = 16, kEach = kTile / kSide;
constexpr int kOnes = 0x01010101;

__device__ __forceinline__ int zero_of(const trmi_int_param &p, int is_signed, int64_t at)
{
    if (p.data == nullptr)
        return is_signed ? 0 : -128;
    at = p.each ? at : 0;
    return is_signed ? static_cast<const int8_t *>(p.data)[at]
                     : static_cast<const uint8_t *>(p.data)[at] - 128;
}

__device__ __forceinline__ float scale_of(const trmi_int_param &p, int64_t at)
{
    return static_cast<const float *>(p.data)[p.each ? at : 0];
}

/* Stores the result of the exact sum at `at`; row, column: indices of the parameters. */
__device__ __forceinline__ void store(const trmi_int_finish &f, int32_t sum, int64_t row,
                                      int64_t column, void *y, int64_t at)
{
    if (f.a_scale.data == nullptr) {
        static_cast<int32_t *>(y)[at] = sum;
        return;
    }
    const float scale =
        scale_of(f.a_scale, row) * scale_of(f.b_scale, column) / scale_of(f.y_scale, row);
    const bool is_signed = f.y == TRM_DTYPE_I8;
    const int zero = zero_of(f.y_zero, is_signed, row) + (is_signed ? 0 : 128);
    const float lo = is_signed ? -128.0f : 0.0f, hi = is_signed ? 127.0f : 255.0f;
    /* saturated before the zero point is added: exact */
    float v = rintf(static_cast<float>(sum) * scale);

    v = fminf(fmaxf(v, lo - static_cast<float>(zero)), hi - static_cast<float>(zero));
    if (is_signed)
        static_cast<int8_t *>(y)[at] = static_cast<int8_t>(static_cast<int>(v) + zero);
    else
        static_cast<uint8_t *>(y)[at] = static_cast<uint8_t>(static_cast<int>(v) + zero);
}

/* Four terms from l on of row (or column) i, shifted; 0 beyond the end. */
__device__ __forceinline__ int word_of(const uint8_t *__restrict__ from, int64_t row, int64_t step,
                                       int64_t i, int64_t rows, int64_t l, int64_t terms,
                                       unsigned flip)
{
    unsigned word = 0;

#pragma unroll
    for (int e = 0; e < 4; e++)
        if (i < rows && l + e < terms)
            word |= (from[i * row + (l + e) * step] ^ flip) << (8 * e);
    return static_cast<int>(word);
}

__global__ void __launch_bounds__(kThreads)
    int_product_kernel(trmi_product p, int64_t batches, trmi_int_finish f,
                       const uint8_t *__restrict__ a, const uint8_t *__restrict__ b, void *y)
{
    __shared__ int as[kWords][kTile + 1], bs[kWords][kTile + 1];
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const int64_t j0 = static_cast<int64_t>(blockIdx.x) * kTile;
    const unsigned flip_a = f.a_signed ? 0 : 0x80, flip_b = f.b_signed ? 0 : 0x80;

    TRM_KERNEL_BEGIN();
    for (int64_t z = blockIdx.z; z < batches; z += gridDim.z) {
        int64_t at_a = 0, at_b = 0, at_y = 0, rest = z;

        for (int x = p.batches - 1; x >= 0; x--) {
            const int64_t at = rest % p.dims[x];

            at_a += at * p.a_step[x];
            at_b += at * p.b_step[x];
            at_y += at * p.d_step[x];
            rest /= p.dims[x];
        }
        for (int64_t i0 = static_cast<int64_t>(blockIdx.y) * kTile; i0 < p.m;
             i0 += static_cast<int64_t>(gridDim.y) * kTile) {
            int sum[kEach][kEach] = {}, sum_a[kEach] = {}, sum_b[kEach] = {};

            for (int64_t l0 = 0; l0 < p.k; l0 += 4 * kWords) {
                for (int at = threadIdx.x; at < kTile * kWords; at += kThreads) {
                    /* A's terms lie together, B's columns do */
                    const int la = at % kWords, ia = at / kWords;
                    const int jb = at % kTile, lb = at / kTile;

                    as[la][ia] = word_of(a + at_a, p.a_row, p.a_col, i0 + ia, p.m, l0 + 4 * la,
                                         p.k, flip_a);
                    bs[lb][jb] = word_of(b + at_b, p.b_col, p.b_row, j0 + jb, p.n, l0 + 4 * lb,
                                         p.k, flip_b);
                }
                __syncthreads();
#pragma unroll
                for (int l = 0; l < kWords; l++) {
                    int u[kEach], v[kEach];

#pragma unroll
                    for (int e = 0; e < kEach; e++) {
                        u[e] = as[l][ty + e * kSide];
                        v[e] = bs[l][tx + e * kSide];
                        sum_a[e] = __dp4a(u[e], kOnes, sum_a[e]);
                        sum_b[e] = __dp4a(v[e], kOnes, sum_b[e]);
                    }
#pragma unroll
                    for (int i = 0; i < kEach; i++)
#pragma unroll
                        for (int j = 0; j < kEach; j++)
                            sum[i][j] = __dp4a(u[i], v[j], sum[i][j]);
                }
                __syncthreads();
            }
#pragma unroll
            for (int e = 0; e < kEach * kEach; e++) {
                const int64_t i = i0 + ty + e / kEach * kSide, j = j0 + tx + e % kEach * kSide;

                if (i < p.m && j < p.n) {
                    const int64_t row = f.a_all && p.k > 0 ? at_a / p.k + i : i;
                    const int64_t column = f.b_all && p.k > 0 ? at_b / p.k + j : j;
                    const int az = zero_of(f.a_zero, f.a_signed, row);
                    const int bz = zero_of(f.b_zero, f.b_signed, column);
                    const int total = sum[e / kEach][e % kEach] - az * sum_b[e % kEach] -
                                      bz * sum_a[e / kEach] + static_cast<int>(p.k) * az * bz;

                    store(f, total, row, column, y, at_y + i * p.d_row + j * p.d_col);
                }
            }
        }
    }
}

__global__ void __launch_bounds__(kThreads)
    int_rows_kernel(const uint8_t *__restrict__ a, unsigned flip, int64_t rows, int64_t k,
                    int8_t *shifted, int32_t *sums)
{
    const int lane = threadIdx.x % 32;

    TRM_KERNEL_BEGIN();
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
         i < rows; i += static_cast<int64_t>(gridDim.x) * (kThreads / 32)) {
        int sum = 0;

        /* rows are whole words (k is a multiple of 4) */
        for (int64_t l = lane; l < k / 4; l += 32) {
            const unsigned word =
                reinterpret_cast<const unsigned *>(a)[i * (k / 4) + l] ^ (flip * 0x01010101u);

            if (shifted != nullptr)
                reinterpret_cast<unsigned *>(shifted)[i * (k / 4) + l] = word;
            sum = __dp4a(static_cast<int>(word), kOnes, sum);
        }
        for (int step = 16; step > 0; step /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0 && sums != nullptr)
            sums[i] = sum;
    }
}

template <class Index>
__global__ void __launch_bounds__(kThreads)
    int_finish_kernel(trmi_int_finish f, Index elems, Index n, int k, const int32_t *sums,
                      const int32_t *__restrict__ row_sums,
                      const int32_t *__restrict__ column_sums, void *y)
{
    TRM_KERNEL_BEGIN();
    for (Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; at < elems;
         at += static_cast<Index>(gridDim.x) * kThreads) {
        const Index i = at / n, j = at % n;
        const int az = zero_of(f.a_zero, f.a_signed, i);
        int total = sums[at] - az * column_sums[j];

        if (row_sums != nullptr)
            total += zero_of(f.b_zero, f.b_signed, j) * (k * az - row_sums[i]);
        store(f, total, i, j, y, at);
    }
}

unsigned clipped(int64_t n, int64_t most)
{
    return static_cast<unsigned>(n < most ? n : most);
}

} // namespace

extern "C" trm_status trmi_cuda_int_product_run(cudaStream_t stream, const trmi_product *p,
                                                const trmi_int_finish *finish, const void *a,
                                                const void *b, void *y)
{
    const int64_t tiles_n = (p->n + kTile - 1) / kTile, tiles_m = (p->m + kTile - 1) / kTile;
    int64_t batches = 1;

    for (int i = 0; i < p->batches; i++)
        batches *= p->dims[i];
    if (p->m == 0 || p->n == 0 || batches == 0)
        return TRM_OK;
    if (tiles_n > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "matrix product with too many columns");
    const dim3 grid(clipped(tiles_n, INT32_MAX), clipped(tiles_m, 65535), clipped(batches, 65535));
    return trmi_launched(TRM_LAUNCH(int_product_kernel, grid, kThreads, 0, stream, *p, batches,
                                    *finish, static_cast<const uint8_t *>(a),
                                    static_cast<const uint8_t *>(b), y),
                         "int product");
}

extern "C" trm_status trmi_cuda_int_rows_run(cudaStream_t stream, const void *a, bool a_signed,
                                             int64_t rows, int64_t k, int8_t *shifted,
                                             int32_t *sums)
{
    const int64_t blocks = (rows + kThreads / 32 - 1) / (kThreads / 32);

    if (k % 4 != 0 || reinterpret_cast<uintptr_t>(a) % 4 != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "rows of %lld bytes", static_cast<long long>(k));
    if (rows == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(int_rows_kernel, clipped(blocks, INT32_MAX), kThreads, 0,
                                    stream, static_cast<const uint8_t *>(a), a_signed ? 0u : 0x80u,
                                    rows, k, shifted, sums),
                         "int rows");
}

extern "C" trm_status trmi_cuda_int_finish_run(const trm_cuda *cuda, cudaStream_t stream,
                                               const trmi_int_finish *finish, int64_t rows,
                                               int64_t n, int64_t k, const int32_t *sums,
                                               const int32_t *row_sums, const int32_t *column_sums,
                                               void *y)
{
    const int64_t elems = rows * n, blocks = (elems + kThreads - 1) / kThreads;
    const unsigned grid = clipped(blocks, static_cast<int64_t>(cuda->multiprocessors) * 8);

    if (elems == 0)
        return TRM_OK;
    if (elems <= INT32_MAX) /* at + a grid stays below 2^32 */
        return trmi_launched(TRM_LAUNCH((int_finish_kernel<uint32_t>), grid, kThreads, 0, stream,
                                        *finish, static_cast<uint32_t>(elems),
                                        static_cast<uint32_t>(n), static_cast<int>(k), sums,
                                        row_sums, column_sums, y),
                             "int finish");
    return trmi_launched(TRM_LAUNCH((int_finish_kernel<int64_t>), grid, kThreads, 0, stream,
                                    *finish, elems, n, static_cast<int>(k), sums, row_sums,
                                    column_sums, y),
                         "int finish");
}
