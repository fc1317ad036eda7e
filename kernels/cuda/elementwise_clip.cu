/* Clip, IsNaN and IsInf, flat. */
#include "kernels/cuda/elementwise_map.cuh"

#include <string.h>

/* Limits are in the tensor's dtype: comparisons are exact in what it is computed in. */
template <class T> struct clip_f {
    const T *lo_at, *hi_at;
    bool has_lo, has_hi;
    T lo, hi;

    __device__ __forceinline__ static auto wide(T x)
    {
        if constexpr (std::is_integral<T>::value)
            return x;
        else
            return trm_up(x);
    }
    __device__ __forceinline__ void begin()
    {
        if (lo_at != nullptr)
            lo = *lo_at;
        if (hi_at != nullptr)
            hi = *hi_at;
    }
    __device__ __forceinline__ T operator()(T x) const
    {
        T y = x;

        if (has_lo && wide(y) < wide(lo))
            y = lo;
        if (has_hi && wide(y) > wide(hi))
            y = hi;
        return y;
    }
};

template <class T> static T value_of(uint64_t bits)
{
    T v;

    memcpy(static_cast<void *>(&v), &bits, sizeof(v));
    return v;
}

template <class T>
static trm_status clip(const trm_cuda *cuda, cudaStream_t stream, const void *x, void *out,
                       size_t n, const trmi_clip_limit &lo, const trmi_clip_limit &hi)
{
    const clip_f<T> f = {static_cast<const T *>(lo.at), static_cast<const T *>(hi.at), lo.set,
                         hi.set, value_of<T>(lo.bits), value_of<T>(hi.bits)};

    return trm_unary_launch<clip_f<T>, T, T, trm_lanes<T>()>(cuda, stream, f, x, out, n);
}

extern "C" trm_status trmi_cuda_clip(const trm_cuda *cuda, cudaStream_t stream, trm_dtype dtype,
                                     const void *x, void *out, size_t n, trmi_clip_limit lo,
                                     trmi_clip_limit hi)
{
    TRM_FLOATS(dtype, T, { return clip<T>(cuda, stream, x, out, n, lo, hi); });
    if (dtype != TRM_DTYPE_BOOL)
        TRM_INTS(dtype, T, { return clip<T>(cuda, stream, x, out, n, lo, hi); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "Clip of %s", trm_dtype_name(dtype));
}

template <class T> struct classify_f {
    int mode;

    __device__ __forceinline__ void begin()
    {
    }
    __device__ __forceinline__ uint8_t operator()(T value) const
    {
        using F = decltype(trm_up(T()));
        const F x = trm_up(value), inf = static_cast<F>(INFINITY);

        if (mode == 0)
            return x != x;
        return ((mode & 2) != 0 && x == -inf) || ((mode & 4) != 0 && x == inf);
    }
};

extern "C" trm_status trmi_cuda_classify(const trm_cuda *cuda, cudaStream_t stream, trm_dtype dtype,
                                         int mode, const void *x, void *out, size_t n)
{
    TRM_FLOATS(dtype, T, {
        return trm_unary_launch<classify_f<T>, T, uint8_t, trm_lanes<T>()>(
            cuda, stream, classify_f<T>{mode}, x, out, n);
    });
    return trm_fail(TRM_ERR_UNSUPPORTED, "IsNaN or IsInf of %s", trm_dtype_name(dtype));
}
