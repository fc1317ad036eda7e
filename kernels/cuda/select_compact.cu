/* Compaction: counts a tile, running sums of the counts, and a second look at each tile that
 * writes where its elements belong. Order is kept: within a tile by the thread's place in it. */
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/select.h"

#define COMPACT_BLOCK 256
#define COMPACT_ITEMS (TRMI_COMPACT_TILE / COMPACT_BLOCK)
#define SUM_BLOCK 1024

/* Sum over the threads before this one; *total_out: over all. `warps`: shared, 32 entries. */
__device__ __forceinline__ uint32_t block_before(uint32_t own, uint32_t *warps, uint32_t *total_out)
{
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    uint32_t upto = own, before = 0, total = 0;

    for (int step = 1; step < 32; step *= 2) {
        const uint32_t left = __shfl_up_sync(0xffffffffu, upto, step);

        if (lane >= static_cast<uint32_t>(step))
            upto += left;
    }
    __syncthreads(); /* `warps` may still be read from the last call */
    if (lane == 31)
        warps[warp] = upto;
    __syncthreads();
    for (uint32_t w = 0; w < blockDim.x / 32; w++) {
        before += w < warp ? warps[w] : 0;
        total += warps[w];
    }
    *total_out = total;
    return before + upto - own;
}

template <class U>
__global__ void __launch_bounds__(COMPACT_BLOCK)
compact_count(const U *__restrict__ x, U mask, size_t count, uint32_t *__restrict__ counts)
{
    __shared__ uint32_t warps[32];
    const size_t first = static_cast<size_t>(blockIdx.x) * TRMI_COMPACT_TILE;
    uint32_t own = 0, total;

    TRM_KERNEL_BEGIN();
    for (int k = 0; k < COMPACT_ITEMS; k++) {
        const size_t i = first + static_cast<size_t>(k) * COMPACT_BLOCK + threadIdx.x;

        own += i < count && (x[i] & mask) != 0;
    }
    (void)block_before(own, warps, &total);
    if (threadIdx.x == 0)
        counts[blockIdx.x] = total;
}

__global__ void __launch_bounds__(SUM_BLOCK)
running_sums(const uint32_t *__restrict__ counts, size_t n, int64_t *__restrict__ offsets)
{
    __shared__ uint32_t warps[32];
    int64_t sum = 0;

    TRM_KERNEL_BEGIN();
    for (size_t base = 0; base < n; base += SUM_BLOCK) {
        const size_t i = base + threadIdx.x;
        uint32_t total;
        const uint32_t before = block_before(i < n ? counts[i] : 0, warps, &total);

        if (i < n)
            offsets[i] = sum + before;
        sum += total;
    }
    if (threadIdx.x == 0)
        offsets[n] = sum;
}

struct compact_shape {
    int rank;
    int64_t dims[TRM_RANK_MAX];
};

/* Rows of COMPACT_BLOCK neighbours, so that reads are coalesced and order is the thread's. */
template <class U>
__global__ void __launch_bounds__(COMPACT_BLOCK)
compact_write(const U *__restrict__ x, U mask, size_t count, compact_shape shape,
              const int64_t *__restrict__ offsets, size_t total, int64_t *__restrict__ y)
{
    __shared__ uint32_t warps[32];
    const size_t first = static_cast<size_t>(blockIdx.x) * TRMI_COMPACT_TILE;
    size_t to;

    TRM_KERNEL_BEGIN();
    to = static_cast<size_t>(offsets[blockIdx.x]);
    for (int k = 0; k < COMPACT_ITEMS; k++) {
        const size_t i = first + static_cast<size_t>(k) * COMPACT_BLOCK + threadIdx.x;
        const bool keep = i < count && (x[i] & mask) != 0;
        uint32_t row;
        const size_t at = to + block_before(keep, warps, &row);

        to += row;
        if (!keep)
            continue;
        size_t rest = i;
        for (int d = shape.rank - 1; d > 0; d--) {
            const size_t dim = static_cast<size_t>(shape.dims[d]);

            y[static_cast<size_t>(d) * total + at] = static_cast<int64_t>(rest % dim);
            rest /= dim;
        }
        y[at] = static_cast<int64_t>(rest);
    }
}

/* V: the widest unit that divides what lies behind the axis. */
template <class V>
__global__ void __launch_bounds__(256)
compact_gather(const V *__restrict__ x, const int64_t *__restrict__ at, size_t axis, size_t inner,
               size_t kept, size_t units, V *__restrict__ y)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;

    TRM_KERNEL_BEGIN();
    for (size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < units;
         t += stride) {
        const size_t i = t % inner, row = t / inner;

        y[t] = x[(row / kept * axis + static_cast<size_t>(at[row % kept])) * inner + i];
    }
}

trm_status trmi_cuda_running_sums_launch(const uint32_t *counts, size_t n, int64_t *offsets,
                                         cudaStream_t stream)
{
    return trmi_launched(TRM_LAUNCH(running_sums, 1, SUM_BLOCK, 0, stream, counts, n, offsets),
                         "running_sums");
}

/* All bits of an integer; a float's without its sign. */
template <class U> static U compact_mask(trm_dtype dtype)
{
    const U ones = static_cast<U>(~U(0));

    return trm_dtype_is_float(dtype) ? static_cast<U>(ones >> 1) : ones;
}

static trm_status compact_grid(size_t count, unsigned *grid_out)
{
    const size_t tiles = (count + TRMI_COMPACT_TILE - 1) / TRMI_COMPACT_TILE;

    if (tiles > 0x7fffffff)
        return trm_fail(TRM_ERR_UNSUPPORTED, "selection from %zu elements", count);
    *grid_out = static_cast<unsigned>(tiles);
    return TRM_OK;
}

trm_status trmi_cuda_compact_count_launch(const void *x, trm_dtype dtype, size_t count,
                                          uint32_t *counts, int64_t *offsets, cudaStream_t stream)
{
    unsigned grid = 0;

    TRM_CHECK(compact_grid(count, &grid));
    if (grid > 0)
        TRM_WIDTHS(dtype, U, {
            TRM_CHECK(trmi_launched(TRM_LAUNCH(compact_count<U>, grid, COMPACT_BLOCK, 0, stream,
                                               static_cast<const U *>(x), compact_mask<U>(dtype),
                                               count, counts),
                                    "compact_count"));
        })
    return trmi_cuda_running_sums_launch(counts, grid, offsets, stream);
}

trm_status trmi_cuda_compact_write_launch(const void *x, trm_dtype dtype, size_t count, int rank,
                                          const int64_t *dims, const int64_t *offsets, size_t total,
                                          int64_t *y, cudaStream_t stream)
{
    compact_shape shape = {};
    unsigned grid = 0;

    TRM_CHECK(compact_grid(count, &grid));
    if (grid == 0 || total == 0)
        return TRM_OK;
    shape.rank = rank;
    for (int d = 0; d < rank; d++)
        shape.dims[d] = dims[d];
    TRM_WIDTHS(dtype, U, {
        return trmi_launched(TRM_LAUNCH(compact_write<U>, grid, COMPACT_BLOCK, 0, stream,
                                        static_cast<const U *>(x), compact_mask<U>(dtype), count,
                                        shape, offsets, total, y),
                             "compact_write");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "selection from %s", trm_dtype_name(dtype));
}

template <class V>
static trm_status compact_gather_run(const void *x, const int64_t *at, size_t outer, size_t axis,
                                     size_t inner_bytes, size_t kept, void *y, cudaStream_t stream)
{
    const size_t inner = inner_bytes / sizeof(V), units = outer * kept * inner;
    const size_t blocks = (units + 255) / 256;

    return trmi_launched(TRM_LAUNCH(compact_gather<V>,
                                    static_cast<unsigned>(blocks < 65536 ? blocks : 65536), 256, 0,
                                    stream, static_cast<const V *>(x), at, axis, inner, kept, units,
                                    static_cast<V *>(y)),
                         "compact_gather");
}

trm_status trmi_cuda_compact_gather_launch(const void *x, const int64_t *at, size_t outer,
                                           size_t axis, size_t inner, size_t elem_bytes,
                                           size_t kept, void *y, cudaStream_t stream)
{
    const size_t bytes = inner * elem_bytes;

    if (outer == 0 || bytes == 0 || kept == 0)
        return TRM_OK;
    if (bytes % 16 == 0)
        return compact_gather_run<uint4>(x, at, outer, axis, bytes, kept, y, stream);
    if (bytes % 4 == 0)
        return compact_gather_run<uint32_t>(x, at, outer, axis, bytes, kept, y, stream);
    if (bytes % 2 == 0)
        return compact_gather_run<uint16_t>(x, at, outer, axis, bytes, kept, y, stream);
    return compact_gather_run<uint8_t>(x, at, outer, axis, bytes, kept, y, stream);
}
