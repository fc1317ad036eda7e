/* What the moving kernels share on the device: index splitting, vectors of elements, and the tiled
 * transposition. */
#ifndef TRM_KERNELS_CUDA_MOVE_TILE_CUH
#define TRM_KERNELS_CUDA_MOVE_TILE_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/move.h"

constexpr int kMoveThreads = 256;

/* n elements that are loaded and stored as one. */
template <class T, int n> struct alignas(sizeof(T) * n > 16 ? 16 : sizeof(T) * n) move_pack {
    T v[n];
};
/* 16 bytes as one element. */
struct alignas(16) move_wide {
    uint64_t a, b;
};

/* From one element type to another; the same type moves bits. f64 to f16 rounds once. */
template <class TO, class TI> struct move_convert {
    __device__ static TO from(TI x)
    {
        return trm_down<TO>(static_cast<float>(trm_up(x)));
    }
};
template <class T> struct move_convert<T, T> {
    __device__ static T from(T x)
    {
        return x;
    }
};
template <class TI> struct move_convert<double, TI> {
    __device__ static double from(TI x)
    {
        return static_cast<double>(trm_up(x));
    }
};
template <> struct move_convert<double, double> {
    __device__ static double from(double x)
    {
        return x;
    }
};
template <> struct move_convert<__half, double> {
    __device__ static __half from(double x)
    {
        return __double2half(x);
    }
};

/* Tiled transposition. The input is contiguous along dim a, the output along dim b; other dims are
 * walked by the blocks. A tile of 2^a_log x 2^b_log elements goes through shared memory, so that
 * both sides are read and written along their contiguous dim; with one of the two dims narrow the
 * tile is long along the other, and what lies together on the narrow side (channels of an image) is
 * still covered by whole warps. Shared memory is skewed by one element in 32: neither phase has
 * bank conflicts beyond two ways for square tiles. */
template <class TO> struct move_tile_of {
    static constexpr int kLog = sizeof(TO) <= 2 ? 12 : sizeof(TO) == 4 ? 11 : sizeof(TO) == 8 ? 10 : 9;
};

template <class TI, class TO>
__global__ void __launch_bounds__(kMoveThreads)
    move_tiles(const TI *__restrict__ in, TO *__restrict__ out, const trmi_move_tile t)
{
    constexpr int kElems = 1 << move_tile_of<TO>::kLog;
    __shared__ move_pack<TO, 1> tile[kElems + kElems / 32];
    const uint32_t a_size = 1u << t.a_log, b_size = 1u << t.b_log;
    const uint32_t elems = a_size << t.b_log;
    const uint32_t tid = threadIdx.x;
    uint64_t rest = blockIdx.x;
    int64_t in_at = 0, out_at = 0;

    TRM_KERNEL_BEGIN();
    const int64_t a0 = static_cast<int64_t>(rest % t.a_tiles) << t.a_log;
    rest /= t.a_tiles;
    const int64_t b0 = static_cast<int64_t>(rest % t.b_tiles) << t.b_log;
    rest /= t.b_tiles;
    for (int i = t.outer_rank - 1; i >= 0; i--) {
        const int64_t x = static_cast<int64_t>(rest % t.outer[i]);
        rest /= t.outer[i];
        in_at += x * t.outer_in[i];
        out_at += x * t.outer_out[i];
    }
    in += in_at + a0 + b0 * t.b_in;
    out += out_at + a0 * t.a_out + b0;
    const uint32_t a_left = static_cast<uint32_t>(
        t.a_count - a0 < static_cast<int64_t>(a_size) ? t.a_count - a0 : a_size);
    const uint32_t b_left = static_cast<uint32_t>(
        t.b_count - b0 < static_cast<int64_t>(b_size) ? t.b_count - b0 : b_size);
#pragma unroll 4
    for (uint32_t i = tid; i < elems; i += kMoveThreads) {
        const uint32_t a = i & (a_size - 1), b = i >> t.a_log;

        if (a < a_left && b < b_left)
            tile[i + (i >> 5)].v[0] = move_convert<TO, TI>::from(in[a + b * t.b_in]);
    }
    __syncthreads();
#pragma unroll 4
    for (uint32_t i = tid; i < elems; i += kMoveThreads) {
        const uint32_t b = i & (b_size - 1), a = i >> t.b_log;
        const uint32_t at = (b << t.a_log) + a;

        if (a < a_left && b < b_left)
            out[a * t.a_out + b] = tile[at + (at >> 5)].v[0];
    }
}

/* Tile sizes for elements of `bytes`; false: too few elements a tile to be worth a block. */
static inline bool move_tile_shape(trmi_move_tile *t, int log)
{
    auto up = [](int64_t n, int most) {
        int l = 0;

        while (l < most && (int64_t)1 << l < n)
            l++;
        return l;
    };

    t->a_log = log / 2;
    t->b_log = log - t->a_log;
    if (t->b_count <= t->a_count && t->b_count < (int64_t)1 << t->b_log) {
        t->b_log = up(t->b_count, log);
        t->a_log = up(t->a_count, log - t->b_log);
    } else if (t->a_count < (int64_t)1 << t->a_log) {
        t->a_log = up(t->a_count, log);
        t->b_log = up(t->b_count, log - t->a_log);
    }
    t->a_tiles = (uint64_t)(t->a_count + ((int64_t)1 << t->a_log) - 1) >> t->a_log;
    t->b_tiles = (uint64_t)(t->b_count + ((int64_t)1 << t->b_log) - 1) >> t->b_log;
    return t->a_count * t->b_count >= 128;
}

/* Blocks of a tile kernel; 0: more than a grid has. */
static inline uint32_t move_tile_blocks(const trmi_move_tile *t)
{
    uint64_t n = t->a_tiles * t->b_tiles;

    for (int i = 0; i < t->outer_rank; i++)
        n *= t->outer[i];
    return n <= 0x7fffffffu ? (uint32_t)n : 0;
}

/* Blocks of a kernel whose threads walk `units` in steps of the grid. */
static inline uint32_t move_blocks(const trm_cuda *cuda, uint64_t units)
{
    const uint64_t need = (units + kMoveThreads - 1) / kMoveThreads;
    const uint64_t most = (uint64_t)cuda->multiprocessors * 32;

    return (uint32_t)(need < most ? need : most);
}

#endif
