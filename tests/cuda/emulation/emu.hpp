/* Runs CUDA C++ kernels as ordinary C++ on the CPU, to test them without a GPU; included by
 * kernels/cuda/gpu.cuh where TRM_EMULATE is defined.
 *
 * TRM_EMU_ORDER=fwd|rev|rand[:seed]  order in which runnable threads get the CPU (a missing barrier
 *                                    shows as a changed result)
 * TRM_EMU_THREADS=n                  OS threads for the blocks of a launch (1)
 * TRM_EMU_STACK_KB=n                 stack of one CUDA thread (64)
 * TRM_EMU_COVERAGE=file              at exit, names of the kernels that were launched
 * More in runtime.cpp and driver.cpp.
 *
 * Not emulated: wgmma, TMA and mbarrier, clusters, cooperative groups, grid-wide barriers (blocks
 * run one after another), textures, dynamic parallelism, inline PTX, __CUDA_ARCH__ (undefined).
 * There is no memory model: atomics and fences are stronger than a GPU's. __expf and its like are
 * exact. An array in static shared memory keeps its values from the block before. A block whose
 * threads exit before a barrier that others wait at is reported, though a GPU lets it pass.
 * Aligned shared memory is written `__shared__ __align__(16) T x[n]` (alignas does not follow
 * __shared__). */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_HPP

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <limits>
#include <memory>
#include <tuple>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#undef __shared__
#define __shared__ static thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __device__
#define __device__
#undef __global__
#define __global__
#undef __host__
#define __host__
#undef __constant__
#define __constant__
#undef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))

#include "tests/cuda/emulation/emu_block.hpp"
#include "tests/cuda/emulation/emu_runtime.hpp"

#define threadIdx (::trm_emu::here()->lane->tid)
#define blockIdx (::trm_emu::here()->block->bid)
#define blockDim (::trm_emu::here()->block->block)
#define gridDim (::trm_emu::here()->block->grid)
#define warpSize 32

#include "tests/cuda/emulation/emu_atomic.hpp"
#include "tests/cuda/emulation/emu_half.hpp"
#include "tests/cuda/emulation/emu_math.hpp"

/* ---- barriers and warp collectives ---- */

#define __syncthreads() ((void)::trm_emu::barrier(__LINE__, 0))
#define __syncthreads_count(p) (::trm_emu::barrier(__LINE__, (p) != 0))
#define __syncthreads_or(p) (int(::trm_emu::barrier(__LINE__, (p) != 0) != 0))
#define __syncthreads_and(p) (int(::trm_emu::barrier(__LINE__, !(p)) == 0))

inline void __syncwarp(unsigned mask = ~0u)
{
    trm_emu::collective(mask, trm_emu::nop_fn, nullptr, nullptr, 0, 0);
}
template <class T> inline T __shfl_sync(unsigned m, T v, int from, int width = 32)
{
    return trm_emu::shuffle<T, 0>(m, v, from, width);
}
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned by, int width = 32)
{
    return trm_emu::shuffle<T, 1>(m, v, int(by), width);
}
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned by, int width = 32)
{
    return trm_emu::shuffle<T, 2>(m, v, int(by), width);
}
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int with, int width = 32)
{
    return trm_emu::shuffle<T, 3>(m, v, with, width);
}
inline unsigned __ballot_sync(unsigned m, int p)
{
    return trm_emu::ballot(m, p);
}
inline int __any_sync(unsigned m, int p)
{
    return trm_emu::ballot(m, p) != 0;
}
inline int __all_sync(unsigned m, int p)
{
    return trm_emu::ballot(m, !p) == 0;
}
inline unsigned __activemask() /* threads run one at a time */
{
    return 1u << (trm_emu::here()->lane->id & 31);
}
template <class T> inline unsigned __match_any_sync(unsigned m, T v)
{
    return trm_emu::match<T>(m, v);
}
template <class T> inline unsigned __match_all_sync(unsigned m, T v, int *same)
{
    *same = trm_emu::match<T>(m, v) == m;
    return *same ? m : 0;
}
template <class T> inline T __reduce_add_sync(unsigned m, T v)
{
    return trm_emu::reduce<T, trm_emu::Add>(m, v);
}
template <class T> inline T __reduce_max_sync(unsigned m, T v)
{
    return trm_emu::reduce<T, trm_emu::Max>(m, v);
}
template <class T> inline T __reduce_min_sync(unsigned m, T v)
{
    return trm_emu::reduce<T, trm_emu::Min>(m, v);
}
inline unsigned __reduce_and_sync(unsigned m, unsigned v)
{
    return trm_emu::reduce<unsigned, trm_emu::And>(m, v);
}
inline unsigned __reduce_or_sync(unsigned m, unsigned v)
{
    return trm_emu::reduce<unsigned, trm_emu::Or>(m, v);
}
inline unsigned __reduce_xor_sync(unsigned m, unsigned v)
{
    return trm_emu::reduce<unsigned, trm_emu::Xor>(m, v);
}

/* ---- the names that gpu.cuh promises ---- */

namespace trm_emu
{

template <class... P> struct Call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> args;

    static void run(const void *p)
    {
        const Call *c = static_cast<const Call *>(p);

        std::apply(c->kernel, c->args);
    }
};

template <class... P, class... A>
inline cudaError_t launch_kernel(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                                 size_t smem, cudaStream_t stream, A &&...args)
{
    static_assert(sizeof...(P) == sizeof...(A), "kernel arguments");
    auto call = std::make_shared<Call<P...>>(
        Call<P...>{kernel, std::tuple<std::decay_t<P>...>(static_cast<P>(args)...)});

    return launch(stream, Launch{reinterpret_cast<const void *>(kernel), name, grid, block, smem,
                                 Call<P...>::run, std::move(call)});
}

} // namespace trm_emu

/* cuda_runtime.h has these for kernels, but only under nvcc */
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute,
                                        int value)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value);
}
template <class... P>
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, void (*kernel)(P...))
{
    return cudaFuncGetAttributes(out, reinterpret_cast<const void *>(kernel));
}
template <class... P>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void (*kernel)(P...),
                                                                 int threads, size_t smem)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks, reinterpret_cast<const void *>(kernel), threads, smem);
}

#define TRM_LAUNCH(kernel, grid, block, smem, stream, ...)                                         \
    ::trm_emu::launch_kernel(#kernel, kernel, dim3(grid), dim3(block), (smem), (stream),           \
                             __VA_ARGS__)
#define TRM_DYN_SMEM(T, name) T *name = static_cast<T *>(::trm_emu::here()->block->dyn)
#define TRM_KERNEL_BEGIN() ((void)(::trm_emu::here()->lane->began = true))

inline void trm_spin_pause() /* inside a wait for another block or another device */
{
    trm_emu::yield_lane();
}
inline void __nanosleep(unsigned)
{
    trm_emu::yield_lane();
}
inline void trm_store_release_sys(uint32_t *p, uint32_t x)
{
    __atomic_store_n(p, x, __ATOMIC_RELEASE);
}
inline uint32_t trm_load_acquire_sys(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
inline uint64_t trm_clock_ns()
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return uint64_t(t.tv_sec) * 1000000000u + uint64_t(t.tv_nsec);
}
inline void trm_mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  const float (&c)[4])
{
    const trm_emu::MmaIn in{a, b, c};
    float out[4];

    trm_emu::collective(~0u, trm_emu::mma_bf16_fn, &in, out, 0, 0);
    memcpy(d, out, sizeof out);
}
inline void trm_mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 const float (&c)[4])
{
    const trm_emu::MmaIn in{a, b, c};
    float out[4];

    trm_emu::collective(~0u, trm_emu::mma_f16_fn, &in, out, 0, 0);
    memcpy(d, out, sizeof out);
}
inline void trm_mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                const int32_t (&c)[4])
{
    const trm_emu::MmaS8In in{a, b, c};
    int32_t out[4];

    trm_emu::collective(~0u, trm_emu::mma_s8_k32_fn, &in, out, 0, 0);
    memcpy(d, out, sizeof out);
}
inline void trm_mma_m16n8k16_s8(int32_t (&d)[4], const uint32_t (&a)[2], uint32_t b,
                                const int32_t (&c)[4])
{
    const trm_emu::MmaS8In in{a, &b, c};
    int32_t out[4];

    trm_emu::collective(~0u, trm_emu::mma_s8_k16_fn, &in, out, 0, 0);
    memcpy(d, out, sizeof out);
}
inline void trm_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    trm_emu::collective(~0u, trm_emu::ldmatrix_fn, row, r, 0, 0);
}
inline void trm_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    trm_emu::collective(~0u, trm_emu::ldmatrix_trans_fn, row, r, 0, 0);
}
inline void trm_cp_async16(void *to, const void *from)
{
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0)
        trm_emu::fail("cp.async from %p to %p: not aligned to 16", from, to);
    trm_emu::copy_start(to, from, 16);
}
inline void trm_cp_async_commit()
{
    trm_emu::copy_commit();
}
template <int kPending> inline void trm_cp_async_wait()
{
    trm_emu::copy_wait(kPending);
}

#endif
