/* Functions of integers and bool, an element a thread: they are rarely large. */
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/elementwise_math.cuh"

template <class T> struct int_unary_f {
    int fn;

    __device__ __forceinline__ void begin()
    {
    }
    __device__ __forceinline__ T operator()(T x) const
    {
        return trm_int_unary_fn(fn, x);
    }
};

template <class T> struct int_binary_f {
    int fn;

    __device__ __forceinline__ T operator()(T x, T y) const
    {
        return trm_int_binary_fn(fn, x, y);
    }
};

template <class T> struct int_compare_f {
    int fn;

    __device__ __forceinline__ uint8_t operator()(T x, T y) const
    {
        return trm_compare_fn(fn, x, y);
    }
};

extern "C" trm_status trmi_cuda_unary_int(const trm_cuda *cuda, cudaStream_t stream, int fn,
                                          trm_dtype dtype, const void *x, void *out, size_t n)
{
    TRM_INTS(dtype, T, {
        return trm_unary_launch<int_unary_f<T>, T, T, 1>(cuda, stream, int_unary_f<T>{fn}, x, out,
                                                         n);
    });
    return trm_fail(TRM_ERR_UNSUPPORTED, "unary integer function of %s", trm_dtype_name(dtype));
}

extern "C" trm_status trmi_cuda_binary_int(const trm_cuda *cuda, cudaStream_t stream, int fn,
                                           trm_dtype dtype, const trmi_cuda_map *m, const void *a,
                                           const void *b, void *out)
{
    if (trmi_cuda_is_compare(fn))
        TRM_INTS(dtype, T, {
            return trm_binary_launch<int_compare_f<T>, T, uint8_t, 1>(
                cuda, stream, int_compare_f<T>{fn}, m, a, b, out);
        });
    TRM_INTS(dtype, T, {
        return trm_binary_launch<int_binary_f<T>, T, T, 1>(cuda, stream, int_binary_f<T>{fn}, m, a,
                                                           b, out);
    });
    return trm_fail(TRM_ERR_UNSUPPORTED, "binary integer function of %s", trm_dtype_name(dtype));
}
