/* The product of dense_gemm.h in tiles.
 *
 * A block of 256 threads computes a tile of kTile x kTile results, kStep terms at a time: both
 * operands' slices go through shared memory (widened, so that inner loops read numbers they can
 * multiply), each thread sums 4 x 4 results in registers, rows and columns a quarter tile apart
 * (no bank conflicts: neighbours read neighbours). Loads run along whichever stride is 1. It is
 * the road for odd cases: no tensor cores, no double buffering.
 *
 * grid.x: tiles along n, grid.y: along m, grid.z: batches (both of the latter in strides of the
 * grid). */
#include "kernels/cuda/posts.cuh"

#include "kernels/cuda/dense_gemm.h"

namespace
{

constexpr int kTile = 64, kStep = 16, kThreads = 256, kSide = 16, kEach = kTile / kSide;

/* What T's products are summed in, and how T becomes that. */
template <class T> struct sum_of {
    using type = typename trm_compute<T>::type;
    __device__ static type up(T x)
    {
        return trm_up(x);
    }
};
#define SUM_OF(T, Acc)                                                                             \
    template <> struct sum_of<T> {                                                                 \
        using type = Acc;                                                                          \
        __device__ static type up(T x)                                                             \
        {                                                                                          \
            return static_cast<Acc>(x);                                                            \
        }                                                                                          \
    };
SUM_OF(int8_t, uint32_t)
SUM_OF(uint8_t, uint32_t)
SUM_OF(int16_t, uint32_t)
SUM_OF(uint16_t, uint32_t)
SUM_OF(int32_t, uint32_t)
SUM_OF(uint32_t, uint32_t)
SUM_OF(int64_t, uint64_t)
SUM_OF(uint64_t, uint64_t)

template <class T, class D> struct finish {
    template <class Acc>
    __device__ static D of(Acc sum, size_t flat, size_t channels, const trmi_posts &posts,
                           float alpha)
    {
        Acc x[1] = {sum * static_cast<Acc>(alpha)};

        trm_posts_apply<D, 1, Acc>(posts, flat, posts.count > 0 ? flat % channels : 0, x);
        return trm_down<D>(x[0]);
    }
};
template <class T> struct finish_int {
    template <class Acc>
    __device__ static T of(Acc sum, size_t, size_t, const trmi_posts &, float)
    {
        return static_cast<T>(sum);
    }
};

/* A slice of kTile x kStep into to[kStep][kTile + 1]: to[l][i] = from[i * row + l * step]. */
template <class T, class Acc>
__device__ __forceinline__ void load_slice(const T *__restrict__ from, int64_t i0, int64_t rows,
                                           int64_t row, int64_t l0, int64_t terms, int64_t step,
                                           Acc (*to)[kTile + 1])
{
    for (int at = threadIdx.x; at < kTile * kStep; at += kThreads) {
        /* neighbouring threads along the stride of 1 */
        const int l = step == 1 ? at % kStep : at / kTile;
        const int i = step == 1 ? at / kStep : at % kTile;
        const bool inside = i0 + i < rows && l0 + l < terms;

        to[l][i] = inside ? sum_of<T>::up(from[(i0 + i) * row + (l0 + l) * step]) : Acc(0);
    }
}

template <class T, class D, class Finish>
__global__ void __launch_bounds__(kThreads, 2)
    product_kernel(trmi_product p, int64_t batches, const T *__restrict__ a,
                   const T *__restrict__ b, D *d, size_t channels, trmi_posts posts)
{
    using Acc = typename sum_of<T>::type;
    __shared__ Acc as[kStep][kTile + 1], bs[kStep][kTile + 1];
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const int64_t j0 = static_cast<int64_t>(blockIdx.x) * kTile;

    TRM_KERNEL_BEGIN();
    for (int64_t z = blockIdx.z; z < batches; z += gridDim.z) {
        const T *az = a, *bz = b;
        D *dz = d;
        int64_t rest = z;

        for (int x = p.batches - 1; x >= 0; x--) {
            const int64_t at = rest % p.dims[x];

            az += at * p.a_step[x];
            bz += at * p.b_step[x];
            dz += at * p.d_step[x];
            rest /= p.dims[x];
        }
        for (int64_t i0 = static_cast<int64_t>(blockIdx.y) * kTile; i0 < p.m;
             i0 += static_cast<int64_t>(gridDim.y) * kTile) {
            Acc sum[kEach][kEach] = {};

            for (int64_t l0 = 0; l0 < p.k; l0 += kStep) {
                load_slice<T, Acc>(az, i0, p.m, p.a_row, l0, p.k, p.a_col, as);
                load_slice<T, Acc>(bz, j0, p.n, p.b_col, l0, p.k, p.b_row, bs);
                __syncthreads();
#pragma unroll
                for (int l = 0; l < kStep; l++) {
                    Acc x[kEach], y[kEach];

#pragma unroll
                    for (int e = 0; e < kEach; e++) {
                        x[e] = as[l][ty + e * kSide];
                        y[e] = bs[l][tx + e * kSide];
                    }
#pragma unroll
                    for (int i = 0; i < kEach; i++)
#pragma unroll
                        for (int j = 0; j < kEach; j++)
                            sum[i][j] += x[i] * y[j];
                }
                __syncthreads();
            }
#pragma unroll
            for (int e = 0; e < kEach * kEach; e++) {
                const int64_t i = i0 + ty + e / kEach * kSide, j = j0 + tx + e % kEach * kSide;

                if (i < p.m && j < p.n) {
                    D *at = dz + i * p.d_row + j * p.d_col;

                    *at = Finish::of(sum[e / kEach][e % kEach], static_cast<size_t>(at - d),
                                     channels, posts, p.alpha);
                }
            }
        }
    }
}

unsigned clipped(int64_t n, int64_t most)
{
    return static_cast<unsigned>(n < most ? n : most);
}

template <class T, class D, class Finish>
trm_status launch(cudaStream_t stream, const trmi_product &p, int64_t batches, const void *a,
                  const void *b, void *d, size_t channels, const trmi_posts &posts)
{
    const int64_t tiles_n = (p.n + kTile - 1) / kTile, tiles_m = (p.m + kTile - 1) / kTile;
    const dim3 grid(clipped(tiles_n, INT32_MAX), clipped(tiles_m, 65535), clipped(batches, 65535));

    if (tiles_n > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "matrix product with too many columns");
    return trmi_launched(TRM_LAUNCH((product_kernel<T, D, Finish>), grid, kThreads, 0, stream, p,
                                    batches, static_cast<const T *>(a), static_cast<const T *>(b),
                                    static_cast<D *>(d), channels, posts),
                         "product");
}

} // namespace

extern "C" trm_status trmi_cuda_product_run(const trm_cuda *cuda, cudaStream_t stream,
                                            const trmi_product *p, const void *a, const void *b,
                                            void *d, size_t channels, const trmi_posts *posts)
{
    const trmi_posts none = {};
    const trmi_posts &last = posts == nullptr ? none : *posts;
    int64_t batches = 1;

    (void)cuda;
    for (int i = 0; i < p->batches; i++)
        batches *= p->dims[i];
    if (p->m == 0 || p->n == 0 || batches == 0)
        return TRM_OK;
    if (channels == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "product of no channels");
    TRM_FLOATS(p->ab, T, {
        if (p->d == p->ab)
            return launch<T, T, finish<T, T>>(stream, *p, batches, a, b, d, channels, last);
    });
    if (p->d == TRM_DTYPE_F32) {
        TRM_HALVES(p->ab, T, {
            return launch<T, float, finish<T, float>>(stream, *p, batches, a, b, d, channels,
                                                      last);
        });
    }
    if (p->d == p->ab && p->ab != TRM_DTYPE_BOOL) {
        TRM_INTS(p->ab, T, {
            return launch<T, T, finish_int<T>>(stream, *p, batches, a, b, d, channels, last);
        });
    }
    return trm_fail(TRM_ERR_UNSUPPORTED, "product of %s to %s", trm_dtype_name(p->ab),
                    trm_dtype_name(p->d));
}
