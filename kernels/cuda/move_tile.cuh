/* What the moving kernels share on the device: index splitting, units of elements, run-time indices
 * and the tiled transposition. */
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

/* The unsigned type in which integers of a type wrap: at least 32 bits. */
template <class T> struct move_unsigned {
    using type = uint32_t;
};
template <> struct move_unsigned<int64_t> {
    using type = uint64_t;
};
template <> struct move_unsigned<uint64_t> {
    using type = uint64_t;
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
template <class TI, class TO>
static __global__ void __launch_bounds__(kMoveThreads)
    move_tiles(const TI *__restrict__ in, TO *__restrict__ out, const trmi_move_tile t)
{
    constexpr int kElems = 1 << TRMI_MOVE_TILE_LOG(sizeof(TO));
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

/* i becomes i / d, the result is i % d. 32 bits: i < 2^31. */
__device__ __forceinline__ uint32_t move_split(uint32_t &i, const trmi_div &d)
{
    const uint32_t high = static_cast<uint32_t>((static_cast<uint64_t>(i) * d.multiply) >> 32);
    const uint32_t q = (high + i) >> d.shift;
    const uint32_t r = i - q * static_cast<uint32_t>(d.by);

    i = q;
    return r;
}
__device__ __forceinline__ uint64_t move_split(uint64_t &i, const trmi_div &d)
{
    const uint64_t q = i / d.by, r = i - q * d.by;

    i = q;
    return r;
}

/* Counts below this are indexed in 32 bits: a step of the grid does not overflow. Under emulation
 * it is low, so that tests reach the 64-bit forms. */
#if defined(TRM_EMULATE)
constexpr uint64_t kMoveIndex32 = 6000;
#else
constexpr uint64_t kMoveIndex32 = (1u << 31) - (1u << 26);
#endif
/* The block with I the index type that `count` items need: MOVE_INDEX(count, I, ...). */
#define MOVE_INDEX(count, I, ...)                                                                  \
    if ((count) < kMoveIndex32) {                                                                  \
        using I = uint32_t;                                                                        \
        __VA_ARGS__                                                                                \
    } else {                                                                                       \
        using I = uint64_t;                                                                        \
        __VA_ARGS__                                                                                \
    }

/* The item of this thread and the grid's step, for loops over `count` items. */
#define MOVE_LOOP(I, i, count)                                                                     \
    for (I i = static_cast<I>(blockIdx.x) * kMoveThreads + threadIdx.x; i < (count);               \
         i += static_cast<I>(gridDim.x) * kMoveThreads)

/* MOVE_UNITS(bytes, V, ...): the block with V the type of units of so many bytes. */
#define MOVE_UNITS(bytes, V, ...)                                                                  \
    switch (bytes) {                                                                               \
        TRM_TYPE_CASE(1, uint8_t, V, __VA_ARGS__)                                                  \
        TRM_TYPE_CASE(2, uint16_t, V, __VA_ARGS__)                                                 \
        TRM_TYPE_CASE(4, uint32_t, V, __VA_ARGS__)                                                 \
        TRM_TYPE_CASE(8, uint64_t, V, __VA_ARGS__)                                                 \
    default: {                                                                                     \
        using V = move_wide;                                                                       \
        __VA_ARGS__                                                                                \
    }                                                                                              \
    }
/* The same for elements: 1, 2, 4, 8 bytes. */
#define MOVE_ELEMENTS(bytes, T, ...)                                                               \
    switch (bytes) {                                                                               \
        TRM_TYPE_CASE(1, uint8_t, T, __VA_ARGS__)                                                  \
        TRM_TYPE_CASE(2, uint16_t, T, __VA_ARGS__)                                                 \
        TRM_TYPE_CASE(4, uint32_t, T, __VA_ARGS__)                                                 \
    default: {                                                                                     \
        using T = uint64_t;                                                                        \
        __VA_ARGS__                                                                                \
    }                                                                                              \
    }
/* The widest unit that divides all bits set in `bits` (lengths and addresses). */
static inline uint32_t move_unit(uint64_t bits)
{
    for (uint32_t unit = 16; unit > 1; unit /= 2)
        if (bits % unit == 0)
            return unit;
    return 1;
}
static inline uint64_t move_address(const void *p)
{
    return reinterpret_cast<uintptr_t>(p);
}

/* An index of i32 or i64. */
__device__ __forceinline__ int64_t move_index(const void *index, bool wide, uint64_t i)
{
    return wide ? static_cast<const int64_t *>(index)[i] : static_cast<const int32_t *>(index)[i];
}
/* Notes a bad index, unless one is noted. */
__device__ inline void move_note(int64_t *bad, int64_t index, uint64_t element, int64_t low,
                                 int64_t high)
{
    if (atomicCAS(reinterpret_cast<unsigned long long *>(bad), 0ull, 1ull) != 0)
        return;
    bad[1] = index;
    bad[2] = static_cast<int64_t>(element);
    bad[3] = low;
    bad[4] = high;
}

/* Blocks of a kernel whose threads walk `units` in steps of the grid. */
static inline uint32_t move_blocks(const trm_cuda *cuda, uint64_t units)
{
    const uint64_t need = (units + kMoveThreads - 1) / kMoveThreads;
    const uint64_t most = (uint64_t)cuda->multiprocessors * 32;

    return (uint32_t)(need < most ? need : most);
}

#endif
