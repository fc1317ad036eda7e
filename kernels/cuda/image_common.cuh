/* What the image, region and signal kernels share: index splitting without divisions, operands of a
 * float dtype that is known at run time only. */
#ifndef TRM_KERNELS_CUDA_IMAGE_COMMON_CUH
#define TRM_KERNELS_CUDA_IMAGE_COMMON_CUH

#include "kernels/cuda/gpu.cuh"

/* n / d and n % d for n < 2^31 by a multiplication (Granlund and Montgomery 1994). */
struct trm_split {
    uint32_t divisor, factor, shift;
};

static inline trm_split trm_split_of(uint32_t divisor)
{
    trm_split s = {divisor, 0, 0};

    if (divisor == 0) /* of nothing */
        s.divisor = divisor = 1;
    while (s.shift < 31 && (UINT32_C(1) << s.shift) < divisor)
        s.shift++;
    s.factor = static_cast<uint32_t>(
        ((UINT64_C(1) << 32) * ((UINT64_C(1) << s.shift) - divisor)) / divisor + 1);
    return s;
}

__device__ __forceinline__ uint32_t trm_divide(uint32_t n, const trm_split &s)
{
    return (__umulhi(n, s.factor) + n) >> s.shift;
}
/* Takes n's last digit off: returns n % divisor, leaves n / divisor. */
__device__ __forceinline__ uint32_t trm_split_off(uint32_t &n, const trm_split &s)
{
    const uint32_t q = trm_divide(n, s), r = n - q * s.divisor;

    n = q;
    return r;
}

/* Any float as fp32, as the CPU's kernels take them. */
template <class T> __device__ __forceinline__ float trm_f32(T x)
{
    return static_cast<float>(trm_up(x));
}
template <class T> __device__ __forceinline__ T trm_from_f32(float x)
{
    return trm_down<T>(x);
}
template <> __device__ __forceinline__ double trm_from_f32<double>(float x)
{
    return static_cast<double>(x);
}

/* Element i of a float tensor: for the small operands beside the data. */
__device__ __forceinline__ float trm_load_f32(const void *p, trm_dtype dtype, size_t i)
{
    if (dtype == TRM_DTYPE_F32)
        return static_cast<const float *>(p)[i];
    if (dtype == TRM_DTYPE_F16)
        return trm_f32(static_cast<const __half *>(p)[i]);
    if (dtype == TRM_DTYPE_BF16)
        return trm_f32(static_cast<const __nv_bfloat16 *>(p)[i]);
    return static_cast<float>(static_cast<const double *>(p)[i]);
}

static inline unsigned trm_blocks(size_t threads, unsigned block)
{
    return static_cast<unsigned>((threads + block - 1) / block);
}

#endif
