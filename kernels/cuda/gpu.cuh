/* What every kernel source includes. Under nvcc it is CUDA; with TRM_EMULATE defined the same
 * source is compiled as C++ into fibers on the CPU (tests/cuda/emulation/emu.hpp), which is how
 * kernels are tested without a GPU. What a source does differently from plain CUDA for that:
 *
 *  - it launches with TRM_LAUNCH((kernel<T, 256>), grid, block, smem_bytes, stream, args...), which
 *    gives a cudaError_t; a kernel name with commas goes in parentheses;
 *  - every kernel begins with TRM_KERNEL_BEGIN(): it waits for the kernels before it in the stream
 *    (programmatic dependent launch: the launch itself overlaps with their end) before the first
 *    access to global memory, and lets the next one be launched;
 *  - __restrict__ means nothing here, for the same reason;
 *  - dynamic shared memory is declared with TRM_DYN_SMEM(float, name);
 *  - no inline PTX outside this file, no cooperative groups, no grid-wide barriers, no
 *    __CUDA_ARCH__. */
#ifndef TRM_KERNELS_CUDA_GPU_CUH
#define TRM_KERNELS_CUDA_GPU_CUH

#include <stddef.h>
#include <stdint.h>

#if defined(TRM_EMULATE)
#include "tests/cuda/emulation/emu.hpp"
#include <math.h>
inline float trm_exp2(float x)
{
    return exp2f(x);
}
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* Set once when the device is created: the chip has programmatic dependent launch (sm_90 on), and
 * the code that runs on it was compiled with the wait in it. */
extern "C" bool trmi_gpu_overlaps;

template <class... P, class... A>
inline cudaError_t trmi_gpu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem_bytes,
                                   cudaStream_t stream, A &&...args)
{
    static_assert(sizeof...(P) == sizeof...(A), "kernel arguments");
    cudaLaunchAttribute overlap = {};
    cudaLaunchConfig_t config = {};

    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem_bytes;
    config.stream = stream;
    config.attrs = &overlap;
    config.numAttrs = trmi_gpu_overlaps ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

#define TRM_LAUNCH(kernel, grid, block, smem, stream, ...)                                         \
    trmi_gpu_launch(kernel, dim3(grid), dim3(block), (smem), (stream), __VA_ARGS__)
#define TRM_DYN_SMEM(T, name)                                                                      \
    extern __shared__ __align__(128) unsigned char trm_dyn_smem_bytes[];                           \
    T *name = reinterpret_cast<T *>(trm_dyn_smem_bytes)

__device__ __forceinline__ void trm_kernel_begin()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
#define TRM_KERNEL_BEGIN() trm_kernel_begin()

__device__ __forceinline__ void trm_spin_pause()
{
    __nanosleep(20);
}
/* Between devices: what was written before the store is seen after the load that finds it. */
__device__ __forceinline__ void trm_store_release_sys(uint32_t *p, uint32_t x)
{
    asm volatile("st.release.sys.u32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}
__device__ __forceinline__ uint32_t trm_load_acquire_sys(const uint32_t *p)
{
    uint32_t x;

    asm volatile("ld.acquire.sys.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}
__device__ __forceinline__ uint64_t trm_clock_ns()
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}
/* 2^x within 2 ulp; results below the normal numbers are zero. */
__device__ __forceinline__ float trm_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ void trm_mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                      const uint32_t (&b)[2], const float (&c)[4])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void trm_mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4],
                                                     const uint32_t (&b)[2], const float (&c)[4])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
/* int8: a: rows g, g + 8 of columns 4t.., then (k32) the same of columns 16 + 4t.. */
__device__ __forceinline__ void trm_mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4],
                                                    const uint32_t (&b)[2], const int32_t (&c)[4])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]),
                   "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
__device__ __forceinline__ void trm_mma_m16n8k16_s8(int32_t (&d)[4], const uint32_t (&a)[2],
                                                    uint32_t b, const int32_t (&c)[4])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3},{%4,%5},{%6},{%7,%8,%9,%10};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
__device__ __forceinline__ void trm_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    const uint32_t s = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s)
                 : "memory");
}
__device__ __forceinline__ void trm_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    const uint32_t s = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s)
                 : "memory");
}
__device__ __forceinline__ void trm_cp_async16(void *dst, const void *src)
{
    const uint32_t s = static_cast<uint32_t>(__cvta_generic_to_shared(dst));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(s), "l"(src) : "memory");
}
__device__ __forceinline__ void trm_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending> __device__ __forceinline__ void trm_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
#endif

#include "kernels/cuda/types.cuh"

#if !defined(TRM_EMULATE)
/* A kernel is alive while the one before it still writes what it will read (TRM_KERNEL_BEGIN):
 * loads through const __restrict__ pointers could become ld.global.nc, which wants memory that is
 * read-only for the kernel's whole life, and could move above the wait. */
#define __restrict__
#endif

#endif
