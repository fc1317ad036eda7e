/* Unary float functions, flat. A thread computes 16 bytes of input (trm_unary_kernel); the
 * functions that networks spend time in have a kernel each, the others share one a dtype, an
 * element a thread, with the function chosen inside. */
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/elementwise_math.cuh"

/* kFn < 0: chosen at run time */
template <int kFn, class T> struct unary_f {
    int fn;
    float a, b;

    __device__ __forceinline__ void begin()
    {
    }
    __device__ __forceinline__ T operator()(T x) const
    {
        using F = decltype(trm_up(T()));

        return trm_down<T>(trm_unary_fn<F>(kFn >= 0 ? kFn : fn, trm_up(x), static_cast<F>(a),
                                           static_cast<F>(b)));
    }
};

#define HOT(X)                                                                                     \
    X(TRM_OP_Abs)                                                                                  \
    X(TRM_OP_Elu)                                                                                  \
    X(TRM_OP_Erf)                                                                                  \
    X(TRM_OP_Exp)                                                                                  \
    X(TRM_OP_Gelu)                                                                                 \
    X(TRMI_FN_GELU_TANH)                                                                           \
    X(TRM_OP_HardSigmoid)                                                                          \
    X(TRM_OP_HardSwish)                                                                            \
    X(TRM_OP_LeakyRelu)                                                                            \
    X(TRM_OP_Log)                                                                                  \
    X(TRM_OP_Mish)                                                                                 \
    X(TRM_OP_Neg)                                                                                  \
    X(TRM_OP_Reciprocal)                                                                           \
    X(TRM_OP_Relu)                                                                                 \
    X(TRM_OP_Sigmoid)                                                                              \
    X(TRM_OP_Softplus)                                                                             \
    X(TRM_OP_Sqrt)                                                                                 \
    X(TRM_OP_Tanh)                                                                                 \
    X(TRM_OP_TrmSilu)

template <class T>
static trm_status run(const trm_cuda *cuda, cudaStream_t stream, int fn, const void *x, void *out,
                      size_t n, float a, float b)
{
    if constexpr (sizeof(T) < 8) {
        switch (fn) {
#define ROW(op)                                                                                    \
    case op:                                                                                       \
        return trm_unary_launch<unary_f<op, T>, T, T, trm_lanes<T>()>(                             \
            cuda, stream, unary_f<op, T>{fn, a, b}, x, out, n);
            HOT(ROW)
#undef ROW
        default:
            break;
        }
    }
    return trm_unary_launch<unary_f<-1, T>, T, T, 1>(cuda, stream, unary_f<-1, T>{fn, a, b}, x, out,
                                                     n);
}

extern "C" trm_status trmi_cuda_unary(const trm_cuda *cuda, cudaStream_t stream, int fn,
                                      trm_dtype dtype, const void *x, void *out, size_t n, float a,
                                      float b)
{
    TRM_FLOATS(dtype, T, { return run<T>(cuda, stream, fn, x, out, n, a, b); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "unary function of %s", trm_dtype_name(dtype));
}
