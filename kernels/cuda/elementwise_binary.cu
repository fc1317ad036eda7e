/* Binary float functions over a map (trm_binary_kernel): what networks spend time in has a kernel
 * each, the rest one a dtype; comparisons one a dtype. */
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/elementwise_math.cuh"

/* kFn < 0: chosen at run time */
template <int kFn, class T> struct binary_f {
    int fn;
    float alpha;

    __device__ __forceinline__ T operator()(T x, T y) const
    {
        using F = decltype(trm_up(T()));

        return trm_down<T>(trm_binary_fn<F>(kFn >= 0 ? kFn : fn, trm_up(x), trm_up(y),
                                            static_cast<F>(alpha)));
    }
};

template <class T> struct compare_f {
    int fn;

    __device__ __forceinline__ uint8_t operator()(T x, T y) const
    {
        return trm_compare_fn(fn, trm_up(x), trm_up(y));
    }
};

#define HOT(X)                                                                                     \
    X(TRM_OP_Add)                                                                                  \
    X(TRM_OP_Sub)                                                                                  \
    X(TRM_OP_Mul)                                                                                  \
    X(TRM_OP_Div)                                                                                  \
    X(TRM_OP_Max)                                                                                  \
    X(TRM_OP_Min)                                                                                  \
    X(TRM_OP_PRelu)                                                                                \
    X(TRM_OP_Pow)                                                                                  \
    X(TRM_OP_SwiGLU)

bool trmi_cuda_is_compare(int fn)
{
    return fn == TRM_OP_Equal || fn == TRM_OP_Greater || fn == TRM_OP_GreaterOrEqual ||
           fn == TRM_OP_Less || fn == TRM_OP_LessOrEqual;
}

template <class T>
static trm_status run(const trm_cuda *cuda, cudaStream_t stream, int fn, const trmi_cuda_map *m,
                      const void *a, const void *b, void *out, float alpha)
{
    constexpr int kLanes = trm_lanes<T>();

    if (trmi_cuda_is_compare(fn))
        return trm_binary_launch<compare_f<T>, T, uint8_t, kLanes>(cuda, stream, compare_f<T>{fn},
                                                                   m, a, b, out);
    if constexpr (sizeof(T) < 8) {
        switch (fn) {
#define ROW(op)                                                                                    \
    case op:                                                                                       \
        return trm_binary_launch<binary_f<op, T>, T, T, kLanes>(                                   \
            cuda, stream, binary_f<op, T>{fn, alpha}, m, a, b, out);
            HOT(ROW)
#undef ROW
        default:
            break;
        }
    }
    return trm_binary_launch<binary_f<-1, T>, T, T, 1>(cuda, stream, binary_f<-1, T>{fn, alpha}, m,
                                                       a, b, out);
}

extern "C" trm_status trmi_cuda_binary(const trm_cuda *cuda, cudaStream_t stream, int fn,
                                       trm_dtype dtype, const trmi_cuda_map *m, const void *a,
                                       const void *b, void *out, float alpha)
{
    TRM_FLOATS(dtype, T, { return run<T>(cuda, stream, fn, m, a, b, out, alpha); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "binary function of %s", trm_dtype_name(dtype));
}
