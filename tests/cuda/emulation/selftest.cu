/* Kernels and calls by which the emulation is tested (tests/cuda/test_emulation.c): right ones, and
 * one for each fault that it must report. Only in the emulated library. */
#include "kernels/cuda/gpu.cuh"

#include <stdio.h>
#include <string.h>

#include <thread>
#include <vector>

#include "tests/cuda/emulation/selftest.hpp"

namespace
{

/* ---- kernels ---- */

__global__ void emu_add(float *to, const float *a, const float *b, int n)
{
    TRM_KERNEL_BEGIN();
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < n)
        to[i] = a[i] + b[i];
}
__global__ void emu_store(int *to, int at, int value)
{
    TRM_KERNEL_BEGIN();
    to[at] = value;
}
__global__ void emu_no_begin(int *to)
{
    if (threadIdx.x == 3)
        return;
    TRM_KERNEL_BEGIN();
    to[threadIdx.x] = 1;
}
__global__ void emu_early_exit(int *to)
{
    TRM_KERNEL_BEGIN();
    if (threadIdx.x == 7)
        return;
    __syncthreads();
    to[threadIdx.x] = 1;
}
__global__ void emu_two_barriers(int *to)
{
    TRM_KERNEL_BEGIN();
    if (threadIdx.x % 2 == 0)
        __syncthreads();
    else
        __syncthreads();
    to[threadIdx.x] = 1;
}
__global__ void emu_part_of_warp(int *to)
{
    TRM_KERNEL_BEGIN();
    if (threadIdx.x < 16)
        to[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
}
__global__ void emu_outside_mask(int *to)
{
    TRM_KERNEL_BEGIN();
    if (threadIdx.x < 16)
        to[threadIdx.x] = __shfl_down_sync(0x0000ffffu, int(threadIdx.x), 8);
}
/* a sum over the block; kBarrier false lacks a barrier */
template <bool kBarrier> __global__ void emu_block_sum(int *to, const int *x)
{
    TRM_KERNEL_BEGIN();
    TRM_DYN_SMEM(int, part);
    const int t = int(threadIdx.x);

    part[t] = x[t];
    if (kBarrier)
        __syncthreads();
    for (int half = int(blockDim.x) / 2; half > 0; half /= 2) {
        if (t < half)
            part[t] += part[t + half];
        if (kBarrier)
            __syncthreads();
    }
    if (t == 0)
        to[blockIdx.x] = part[0];
}
__global__ void emu_empty(int *to)
{
    TRM_KERNEL_BEGIN();
    if (to != nullptr)
        to[0] = 1;
}
__global__ void emu_where(int *to)
{
    TRM_KERNEL_BEGIN();
    const int block = int((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
    const int thread = int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);

    to[block * int(blockDim.x * blockDim.y * blockDim.z) + thread] += block * 1000 + thread;
}
__global__ void emu_warp(int *to)
{
    TRM_KERNEL_BEGIN();
    __shared__ int sums[32];
    const int t = int(threadIdx.x), lane = t & 31;
    int v = t;

    for (int by = 16; by > 0; by /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, by);
    if (lane == 0)
        sums[t / 32] = v;
    __syncthreads();
    if (t < 32) {
        v = t < int(blockDim.x) / 32 ? sums[t] : 0;
        v = __reduce_add_sync(0xffffffffu, v);
    }
    if (t == 0)
        to[0] = v;
    if (t == 33)
        to[1] = int(__popc(__ballot_sync(0xffffffffu, lane < 5)));
    else if (t / 32 == 1)
        (void)__ballot_sync(0xffffffffu, lane < 5);
    if (t / 32 == 2) {
        const unsigned m = __match_any_sync(0xffffffffu, lane / 8);

        if (lane == 9)
            to[2] = int(m);
    }
    v = __shfl_up_sync(0xffffffffu, t, 3, 8);
    if (t == 12)
        to[3] = v;
    if (t == 9)
        to[4] = v;
    atomicAdd(&to[5], 2);
    atomicMax(&to[6], t);
}
/* C = A B for one 16x16 by 16x8 tile; A by ldmatrix, B by ldmatrix.trans, both through cp.async */
template <class T> __global__ void emu_mma(float *c, const T *a, const T *b)
{
    TRM_KERNEL_BEGIN();
    __shared__ __align__(16) T sa[16][16];
    __shared__ __align__(16) T sb[32][8]; /* the upper half is not used */
    const int lane = int(threadIdx.x);
    uint32_t ra[4], rb[4], two[2];
    float zero[4] = {0, 0, 0, 0}, d[4];

    trm_cp_async16(&sa[lane / 2][lane % 2 * 8], a + lane / 2 * 16 + lane % 2 * 8);
    trm_cp_async_commit();
    trm_cp_async16(&sb[lane][0], b + lane % 16 * 8);
    trm_cp_async_commit();
    trm_cp_async_wait<1>();
    __syncwarp();
    trm_ldmatrix_x4(ra, &sa[lane % 16][lane / 16 * 8]);
    trm_cp_async_wait<0>();
    __syncwarp();
    trm_ldmatrix_x4_trans(rb, &sb[lane][0]);
    two[0] = rb[0];
    two[1] = rb[1];
    if (sizeof(T) == sizeof(__half) && trm_down<T>(1.0f) == trm_down<T>(1.0f) && c[127] == 1.0f)
        trm_mma_m16n8k16_f16(d, ra, two, zero);
    else
        trm_mma_m16n8k16_bf16(d, ra, two, zero);
    for (int i = 0; i < 4; i++)
        c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}
/* C = A B^T of int8, A 16 x 32, B 8 x 32, through both depths */
__global__ void emu_mma_s8(int32_t *c, const int8_t *a, const int8_t *b)
{
    TRM_KERNEL_BEGIN();
    const int lane = int(threadIdx.x), g = lane / 4, t = lane % 4;
    const int32_t zero[4] = {0, 0, 0, 0};
    int32_t d[4], e[4];
    uint32_t ra[4], rb[2];

    for (int i = 0; i < 4; i++)
        memcpy(&ra[i], a + (g + i % 2 * 8) * 32 + i / 2 * 16 + t * 4, 4);
    for (int i = 0; i < 2; i++)
        memcpy(&rb[i], b + g * 32 + i * 16 + t * 4, 4);
    trm_mma_m16n8k32_s8(d, ra, rb, zero);
    trm_mma_m16n8k16_s8(e, {ra[0], ra[1]}, rb[0], zero);
    trm_mma_m16n8k16_s8(e, {ra[2], ra[3]}, rb[1], e);
    for (int i = 0; i < 4; i++)
        c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i] == e[i] ? d[i] : INT32_MIN;
}
__global__ void emu_wait_flag(volatile int *flag, int *to)
{
    TRM_KERNEL_BEGIN();
    while (flag[0] == 0)
        trm_spin_pause();
    to[0] = 7;
}

/* ---- help ---- */

#define WANT(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "selftest line %d: %s\n", __LINE__, #cond);                            \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)
#define OK(call) WANT((call) == cudaSuccess)

template <class T> struct Dev { /* device memory */
    T *p = nullptr;
    explicit Dev(size_t n)
    {
        if (cudaMalloc(reinterpret_cast<void **>(&p), n * sizeof(T)) != cudaSuccess)
            p = nullptr;
    }
    ~Dev()
    {
        (void)cudaFree(p);
    }
    std::vector<T> read(size_t n) const
    {
        std::vector<T> v(n);

        (void)cudaDeviceSynchronize();
        if (cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost) != cudaSuccess)
            v.clear();
        return v;
    }
    bool write(const std::vector<T> &v)
    {
        return cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess;
    }
};
struct Stream {
    cudaStream_t s = nullptr;
    Stream()
    {
        (void)cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    }
    ~Stream()
    {
        (void)cudaStreamDestroy(s);
    }
};
struct Event {
    cudaEvent_t e = nullptr;
    Event()
    {
        (void)cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    }
    ~Event()
    {
        (void)cudaEventDestroy(e);
    }
};

template <class K, class... A> int run_int(K kernel, int threads, A... rest)
{
    Dev<int> to(64);

    OK(TRM_LAUNCH(kernel, 1, threads, 0, nullptr, to.p, rest...));
    return 0;
}

/* ---- what kernels can do ---- */

int launches()
{
    Dev<float> a(1000), b(1000), c(1000);
    std::vector<float> x(1000), y(1000);

    for (int i = 0; i < 1000; i++)
        x[size_t(i)] = float(i), y[size_t(i)] = 0.5f;
    WANT(a.write(x) && b.write(y));
    OK(TRM_LAUNCH(emu_add, 4, 256, 0, nullptr, c.p, a.p, b.p, 1000));
    x = c.read(1000);
    for (int i = 0; i < 1000; i++)
        WANT(x[size_t(i)] == float(i) + 0.5f);
    return 0;
}
int indices()
{
    const int n = 3 * 2 * 4 * 5 * 7 * 2;
    Dev<int> to(n);
    std::vector<int> got;

    OK(cudaMemset(to.p, 0, n * sizeof(int)));
    OK(TRM_LAUNCH(emu_where, dim3(3, 2, 4), dim3(5, 7, 2), 0, nullptr, to.p));
    got = to.read(n);
    for (int i = 0; i < n; i++)
        WANT(got[size_t(i)] == i / 70 * 1000 + i % 70);
    OK(cudaMemset(to.p, 0, n * sizeof(int))); /* another shape of block */
    OK(TRM_LAUNCH(emu_where, dim3(4, 3, 2), dim3(7, 2, 5), 0, nullptr, to.p));
    got = to.read(n);
    for (int i = 0; i < n; i++)
        WANT(got[size_t(i)] == i / 70 * 1000 + i % 70);
    return 0;
}
int warps()
{
    Dev<int> to(8);
    std::vector<int> got;

    OK(cudaMemset(to.p, 0, 8 * sizeof(int)));
    OK(TRM_LAUNCH(emu_warp, 1, 256, 0, nullptr, to.p));
    got = to.read(8);
    WANT(got[0] == 255 * 128 && got[1] == 5 && got[2] == 0xff00 && got[3] == 9 && got[4] == 9 &&
         got[5] == 512 && got[6] == 255);
    return 0;
}
template <class T> int product()
{
    Dev<T> a(256), b(128);
    Dev<float> c(128);
    std::vector<T> x(256), y(128);
    std::vector<float> got(128, sizeof(T) == 2 && T(trm_down<T>(1.0f / 3)) == T(0) ? 0.0f : 0.0f);

    for (int i = 0; i < 256; i++)
        x[size_t(i)] = trm_down<T>(float(i % 13 - 6));
    for (int i = 0; i < 128; i++)
        y[size_t(i)] = trm_down<T>(float(i % 7 - 3));
    got[127] = std::is_same<T, __half>::value ? 1.0f : 0.0f;
    WANT(a.write(x) && b.write(y) && c.write(got));
    OK(TRM_LAUNCH(emu_mma<T>, 1, 32, 0, nullptr, c.p, a.p, b.p));
    got = c.read(128);
    for (size_t i = 0; i < 128; i++) {
        float want = 0;

        for (size_t k = 0; k < 16; k++)
            want += trm_up(x[i / 8 * 16 + k]) * trm_up(y[k * 8 + i % 8]);
        WANT(got[i] == want);
    }
    return 0;
}
int product_s8()
{
    Dev<int8_t> a(16 * 32), b(8 * 32);
    Dev<int32_t> c(128);
    std::vector<int8_t> x(16 * 32), y(8 * 32);
    std::vector<int32_t> got;

    for (size_t i = 0; i < x.size(); i++)
        x[i] = int8_t(int(i * 37 % 255) - 127);
    for (size_t i = 0; i < y.size(); i++)
        y[i] = int8_t(int(i * 91 % 255) - 127);
    WANT(a.write(x) && b.write(y));
    OK(TRM_LAUNCH(emu_mma_s8, 1, 32, 0, nullptr, c.p, a.p, b.p));
    got = c.read(128);
    for (size_t i = 0; i < 128; i++) {
        int32_t want = 0;

        for (size_t k = 0; k < 32; k++)
            want += x[i / 8 * 32 + k] * y[i % 8 * 32 + k];
        WANT(got[i] == want);
    }
    return 0;
}
int products()
{
    return product<__half>() + product<__nv_bfloat16>() + product_s8();
}
/* prints the sum so that the caller can see whether orders of threads change it */
template <bool kBarrier> int block_sum()
{
    Dev<int> x(256), to(4);
    std::vector<int> v(256);

    for (int i = 0; i < 256; i++)
        v[size_t(i)] = i;
    WANT(x.write(v));
    OK(TRM_LAUNCH(emu_block_sum<kBarrier>, 4, 256, 256 * sizeof(int), nullptr, to.p, x.p));
    v = to.read(4);
    WANT(v[0] == 255 * 128 && v[3] == 255 * 128);
    return 0;
}
int spin()
{
    Dev<int> flag(1), to(1);
    std::vector<int> zero{0};
    Stream a, b;
    cudaError_t e = cudaSuccess;

    WANT(flag.write(zero));
    std::thread other([&] { e = TRM_LAUNCH(emu_wait_flag, 1, 1, 0, a.s, flag.p, to.p); });
    OK(TRM_LAUNCH(emu_store, 1, 1, 0, b.s, flag.p, 0, 1));
    other.join();
    OK(e);
    WANT(to.read(1)[0] == 7);
    return 0;
}

/* ---- faults in kernels ---- */

int overrun()
{
    Dev<int> to(10);

    OK(TRM_LAUNCH(emu_store, 1, 1, 0, nullptr, to.p, 11, 5));
    return 0;
}
int far_overrun()
{
    Dev<int> to(10);

    OK(TRM_LAUNCH(emu_store, 1, 1, 0, nullptr, to.p, 100, 5));
    return 0;
}
int use_after_free()
{
    Dev<int> to(10);

    OK(cudaFree(to.p));
    OK(TRM_LAUNCH(emu_store, 1, 1, 0, nullptr, to.p, 0, 5));
    return 0;
}
int smem_overrun()
{
    Dev<int> x(1024), to(4);

    OK(TRM_LAUNCH(emu_block_sum<true>, 1, 1024, 128 * sizeof(int), nullptr, to.p, x.p));
    return 0;
}

/* ---- what the runtime refuses ---- */

int configurations()
{
    Dev<int> to(64);

    WANT(TRM_LAUNCH(emu_empty, 0, 32, 0, nullptr, to.p) == cudaErrorInvalidConfiguration);
    WANT(cudaGetLastError() == cudaErrorInvalidConfiguration && cudaGetLastError() == cudaSuccess);
    WANT(TRM_LAUNCH(emu_empty, 1, 1025, 0, nullptr, to.p) == cudaErrorInvalidConfiguration);
    WANT(TRM_LAUNCH(emu_empty, 1, dim3(1, 1, 65), 0, nullptr, to.p) ==
         cudaErrorInvalidConfiguration);
    WANT(TRM_LAUNCH(emu_empty, dim3(1, 65536), 1, 0, nullptr, to.p) ==
         cudaErrorInvalidConfiguration);
    OK(TRM_LAUNCH(emu_empty, 1, 32, 48 * 1024, nullptr, to.p));
    WANT(TRM_LAUNCH(emu_empty, 1, 32, 48 * 1024 + 4, nullptr, to.p) == cudaErrorInvalidValue);
    OK(cudaFuncSetAttribute(emu_empty, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024));
    OK(TRM_LAUNCH(emu_empty, 1, 32, 227 * 1024, nullptr, to.p));
    WANT(cudaFuncSetAttribute(emu_empty, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              227 * 1024 + 1) == cudaErrorInvalidValue);
    WANT(TRM_LAUNCH(emu_empty, 1, 32, 0, cudaStream_t(&to), to.p) ==
         cudaErrorInvalidResourceHandle);
    return 0;
}
int copies()
{
    Dev<char> d(1000);
    std::vector<char> h(1000);
    char *pinned = nullptr;
    Stream s;

    OK(cudaMallocHost(reinterpret_cast<void **>(&pinned), 1000));
    WANT(cudaMemcpy(d.p, h.data(), 1000, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    WANT(cudaMemcpy(h.data(), d.p, 1000, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    WANT(cudaMemcpy(pinned, h.data(), 1000, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    WANT(cudaMemcpy(d.p, h.data(), 1001, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    WANT(cudaMemcpy(d.p + 990, h.data(), 11, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    WANT(cudaMemcpy(pinned + 990, d.p, 11, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    WANT(cudaMemset(h.data(), 0, 10) == cudaErrorInvalidValue);
    WANT(cudaMemset(d.p, 0, 1001) == cudaErrorInvalidValue);
    WANT(cudaFree(d.p + 1) == cudaErrorInvalidValue);
    WANT(cudaFree(pinned) == cudaErrorInvalidValue);
    WANT(cudaFreeHost(d.p) == cudaErrorInvalidValue);
    OK(cudaMemcpy(d.p, h.data(), 1000, cudaMemcpyDefault));
    OK(cudaMemcpyAsync(pinned, d.p, 1000, cudaMemcpyDeviceToHost, s.s));
    OK(cudaStreamSynchronize(s.s));
    WANT(memcmp(pinned, h.data(), 1000) == 0);
    OK(cudaMemcpy2DAsync(d.p, 100, h.data(), 50, 50, 10, cudaMemcpyHostToDevice, s.s));
    WANT(cudaMemcpy2DAsync(d.p, 100, h.data(), 50, 51, 10, cudaMemcpyHostToDevice, s.s) ==
         cudaErrorInvalidPitchValue);
    WANT(cudaMemcpy2DAsync(d.p, 120, h.data(), 50, 50, 10, cudaMemcpyHostToDevice, s.s) ==
         cudaErrorInvalidValue);
    OK(cudaFreeHost(pinned));
    return 0;
}
int fresh()
{
    Dev<float> d(100);
    std::vector<float> v = d.read(100);

    WANT(v.size() == 100 && v[0] != v[0] && v[99] != v[99]);
    WANT(reinterpret_cast<uintptr_t>(d.p) % 256 == 0);
    return 0;
}
int memory_limit() /* with TRM_EMU_MEMORY=1000000 */
{
    size_t free_bytes = 0, all = 0;
    Dev<char> a(600000);
    void *b = nullptr;

    WANT(a.p != nullptr);
    OK(cudaMemGetInfo(&free_bytes, &all));
    WANT(all == 1000000 && free_bytes == 400000);
    WANT(cudaMalloc(&b, 400001) == cudaErrorMemoryAllocation);
    WANT(cudaGetLastError() == cudaErrorMemoryAllocation);
    OK(cudaMalloc(&b, 400000));
    OK(cudaFree(b));
    WANT(cudaMalloc(&b, size_t(1) << 60) == cudaErrorMemoryAllocation);
    return 0;
}
int sticky() /* with TRM_EMU_FAULT=2:700 */
{
    Dev<int> to(1);
    size_t n;
    void *p;

    OK(TRM_LAUNCH(emu_store, 1, 1, 0, nullptr, to.p, 0, 1));
    (void)TRM_LAUNCH(emu_store, 1, 1, 0, nullptr, to.p, 0, 2);
    WANT(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
    WANT(cudaGetLastError() == cudaErrorIllegalAddress);
    WANT(cudaGetLastError() == cudaErrorIllegalAddress);
    WANT(cudaMalloc(&p, 10) == cudaErrorIllegalAddress);
    WANT(cudaMemGetInfo(&n, &n) == cudaErrorIllegalAddress);
    WANT(strcmp(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress") == 0);
    return 0;
}
int host_touches() /* with TRM_EMU_GUARD=1 */
{
    Dev<int> to(4);

    OK(TRM_LAUNCH(emu_store, 1, 1, 0, nullptr, to.p, 0, 1));
    WANT(to.read(1)[0] == 1);
    fprintf(stderr, "so far\n");
    return static_cast<volatile int *>(to.p)[0];
}
int leaks() /* with TRM_EMU_LEAKS=1 */
{
    void *p;
    cudaStream_t s;
    cudaEvent_t e;

    OK(cudaMalloc(&p, 12345));
    OK(cudaMallocHost(&p, 54321));
    OK(cudaStreamCreate(&s));
    OK(cudaEventCreate(&e));
    return 0;
}

} // namespace

const Selftest trm_emu_kernel_tests[] = {
    {"launches", launches},
    {"indices", indices},
    {"warps", warps},
    {"products", products},
    {"block_sum", block_sum<true>},
    {"missing_barrier", block_sum<false>},
    {"spin", spin},
    {"no_begin", [] { return run_int(emu_no_begin, 32); }},
    {"early_exit", [] { return run_int(emu_early_exit, 32); }},
    {"two_barriers", [] { return run_int(emu_two_barriers, 32); }},
    {"part_of_warp", [] { return run_int(emu_part_of_warp, 32); }},
    {"outside_mask", [] { return run_int(emu_outside_mask, 32); }},
    {"overrun", overrun},
    {"far_overrun", far_overrun},
    {"use_after_free", use_after_free},
    {"smem_overrun", smem_overrun},
    {"configurations", configurations},
    {"copies", copies},
    {"fresh", fresh},
    {"memory_limit", memory_limit},
    {"sticky", sticky},
    {"host_touches", host_touches},
    {"leaks", leaks},
    {nullptr, nullptr},
};
