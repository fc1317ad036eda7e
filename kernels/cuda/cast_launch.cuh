/* One conversion as a kernel: a thread converts 16 bytes of the wider side (trm_unary_kernel). */
#ifndef TRM_KERNELS_CUDA_CAST_LAUNCH_CUH
#define TRM_KERNELS_CUDA_CAST_LAUNCH_CUH

#include "kernels/cuda/cast.cuh"
#include "kernels/cuda/cast.h"
#include "kernels/cuda/elementwise_map.cuh"

template <class To, class From> struct trm_cast_f {
    __device__ __forceinline__ void begin()
    {
    }
    __device__ __forceinline__ To operator()(From x) const
    {
        return trm_convert<To, From>(x);
    }
};

template <class To, class From>
static trm_status trm_cast_launch(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                  const void *x, size_t n)
{
    constexpr int kLanes = sizeof(To) > sizeof(From) ? trm_lanes<To>() : trm_lanes<From>();
    constexpr bool kSame = std::is_same<To, From>::value && !std::is_same<To, uint8_t>::value;

    if constexpr (kSame) /* a copy, which is not made here; u8 may come from bool */
        return trm_fail(TRM_ERR_UNSUPPORTED, "Cast to the same dtype");
    else
        return trm_unary_launch<trm_cast_f<To, From>, From, To, kLanes>(
            cuda, stream, trm_cast_f<To, From>(), x, out, n);
}

/* From any dtype. bool holds 0 or 1: as a source it is u8. */
template <class To>
static trm_status trm_cast_from(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                trm_dtype from, const void *x, size_t n)
{
    TRM_FLOATS(from, T, { return trm_cast_launch<To, T>(cuda, stream, out, x, n); });
    TRM_INTS(from, T, { return trm_cast_launch<To, T>(cuda, stream, out, x, n); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "Cast of %s", trm_dtype_name(from));
}

#endif
