/* Where, and the operators of many operands (Sum, Max, Min, Mean), over a map. As in
 * trm_binary_kernel a thread does a vector of the output, then what is left goes one by one. */
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/elementwise_math.cuh"

template <class T, int N>
__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    where_kernel(trm_map<3> m, const uint8_t *c, const T *x, const T *y, T *out)
{
    TRM_KERNEL_BEGIN();
    const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
    uint32_t at[3];

    for (uint32_t v = first; v < m.vectors; v += stride) {
        trm_vector<T, N> r;

        m.locate(v * N, at);
        const trm_vector<uint8_t, N> which = trm_load<uint8_t, N>(c, at[0], m.step(0));
        const trm_vector<T, N> p = trm_load<T, N>(x, at[1], m.step(1));
        const trm_vector<T, N> q = trm_load<T, N>(y, at[2], m.step(2));
#pragma unroll
        for (int j = 0; j < N; j++)
            r.v[j] = which.v[j] != 0 ? p.v[j] : q.v[j];
        *reinterpret_cast<trm_vector<T, N> *>(out + v * N) = r;
    }
    for (uint32_t e = m.vectors * N + first; e < m.total; e += stride) {
        m.locate(e, at);
        out[e] = c[at[0]] != 0 ? x[at[1]] : y[at[2]];
    }
}

template <class T>
static trm_status where(const trm_cuda *cuda, cudaStream_t stream, const trmi_cuda_map *m,
                        const void *c, const void *x, const void *y, void *out)
{
    constexpr int kLanes = trm_lanes<T>();
    const void *in[3] = {c, x, y};
    const size_t bytes[3] = {1, sizeof(T), sizeof(T)};
    const trm_map<3> k = trm_map_make<3>(m, kLanes, in, bytes, out, sizeof(T));

    return trmi_launched(
        TRM_LAUNCH((where_kernel<T, kLanes>), trm_map_grid(cuda, trm_map_items(k)), TRM_MAP_BLOCK,
                   0, stream, k, static_cast<const uint8_t *>(c), static_cast<const T *>(x),
                   static_cast<const T *>(y), static_cast<T *>(out)),
        "Where");
}

extern "C" trm_status trmi_cuda_where(const trm_cuda *cuda, cudaStream_t stream, size_t bytes,
                                      const trmi_cuda_map *m, const void *c, const void *x,
                                      const void *y, void *out)
{
    if (m->total > TRMI_MAP_LIMIT)
        return trm_fail(TRM_ERR_INTERNAL, "a map of more than 2^30 elements");
    if (m->total == 0)
        return TRM_OK;
    switch (bytes) {
    case 1:
        return where<uint8_t>(cuda, stream, m, c, x, y, out);
    case 2:
        return where<uint16_t>(cuda, stream, m, c, x, y, out);
    case 4:
        return where<uint32_t>(cuda, stream, m, c, x, y, out);
    case 8:
        return where<uint64_t>(cuda, stream, m, c, x, y, out);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "Where of elements of %zu bytes", bytes);
    }
}

/* ---- many operands ---- */
struct many_in {
    const void *p[TRMI_MAP_INPUTS];
};

/* What a dtype is folded in: floats in fp32 or double, integers in themselves. */
template <class T> struct many_math {
    using W = T;
    __device__ __forceinline__ static W up(T x)
    {
        return x;
    }
    __device__ __forceinline__ static W fold(int fn, W x, W y)
    {
        return trm_int_binary_fn(fn == TRM_OP_Max || fn == TRM_OP_Min ? fn : TRM_OP_Sum, x, y);
    }
    __device__ __forceinline__ static T down(W x, double)
    {
        return x;
    }
};
template <class T, class F> struct many_float {
    using W = F;
    __device__ __forceinline__ static W up(T x)
    {
        return trm_up(x);
    }
    __device__ __forceinline__ static W fold(int fn, W x, W y)
    {
        return fn == TRM_OP_Max   ? trm_binary_fn<F>(TRM_OP_Max, x, y, F(0))
               : fn == TRM_OP_Min ? trm_binary_fn<F>(TRM_OP_Min, x, y, F(0))
                                  : x + y;
    }
    __device__ __forceinline__ static T down(W x, double divisor)
    {
        return trm_down<T>(divisor != 0 ? x / static_cast<F>(divisor) : x);
    }
};
template <> struct many_math<float> : many_float<float, float> {
};
template <> struct many_math<__half> : many_float<__half, float> {
};
template <> struct many_math<__nv_bfloat16> : many_float<__nv_bfloat16, float> {
};
template <> struct many_math<double> : many_float<double, double> {
};

template <class T, int N>
__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    many_kernel(trm_map<TRMI_MAP_INPUTS> m, int inputs, int fn, many_in in, double divisor, T *out)
{
    using M = many_math<T>;
    TRM_KERNEL_BEGIN();
    const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
    uint32_t at[TRMI_MAP_INPUTS];

    for (uint32_t v = first; v < m.vectors; v += stride) {
        typename M::W acc[N];
        trm_vector<T, N> r;

        m.locate(v * N, at);
        r = trm_load<T, N>(static_cast<const T *>(in.p[0]), at[0], m.step(0));
#pragma unroll
        for (int j = 0; j < N; j++)
            acc[j] = M::up(r.v[j]);
#pragma unroll
        for (int i = 1; i < TRMI_MAP_INPUTS; i++) {
            if (i >= inputs)
                break;
            r = trm_load<T, N>(static_cast<const T *>(in.p[i]), at[i], m.step(i));
#pragma unroll
            for (int j = 0; j < N; j++)
                acc[j] = M::fold(fn, acc[j], M::up(r.v[j]));
        }
#pragma unroll
        for (int j = 0; j < N; j++)
            r.v[j] = M::down(acc[j], divisor);
        *reinterpret_cast<trm_vector<T, N> *>(out + v * N) = r;
    }
    for (uint32_t e = m.vectors * N + first; e < m.total; e += stride) {
        m.locate(e, at);
        typename M::W acc = M::up(static_cast<const T *>(in.p[0])[at[0]]);
#pragma unroll
        for (int i = 1; i < TRMI_MAP_INPUTS; i++) {
            if (i >= inputs)
                break;
            acc = M::fold(fn, acc, M::up(static_cast<const T *>(in.p[i])[at[i]]));
        }
        out[e] = M::down(acc, divisor);
    }
}

template <class T, int N>
static trm_status many(const trm_cuda *cuda, cudaStream_t stream, int fn, const trmi_cuda_map *m,
                       const void *const *in, void *out, double divisor)
{
    size_t bytes[TRMI_MAP_INPUTS];
    many_in pointers = {};

    for (int i = 0; i < TRMI_MAP_INPUTS; i++) {
        bytes[i] = sizeof(T);
        pointers.p[i] = i < m->inputs ? in[i] : nullptr;
    }
    const trm_map<TRMI_MAP_INPUTS> k =
        trm_map_make<TRMI_MAP_INPUTS>(m, N, pointers.p, bytes, out, sizeof(T));
    return trmi_launched(TRM_LAUNCH((many_kernel<T, N>), trm_map_grid(cuda, trm_map_items(k)),
                                    TRM_MAP_BLOCK, 0, stream, k, m->inputs, fn, pointers, divisor,
                                    static_cast<T *>(out)),
                         "elementwise variadic");
}

extern "C" trm_status trmi_cuda_many(const trm_cuda *cuda, cudaStream_t stream, int fn,
                                     trm_dtype dtype, const trmi_cuda_map *m, const void *const *in,
                                     void *out, double divisor)
{
    if (m->total > TRMI_MAP_LIMIT || m->inputs < 1)
        return trm_fail(TRM_ERR_INTERNAL, "a map of %d inputs, %lld elements", m->inputs,
                        static_cast<long long>(m->total));
    if (m->total == 0)
        return TRM_OK;
    TRM_FLOATS(dtype, T, {
        return many<T, trm_lanes<T>()>(cuda, stream, fn, m, in, out, divisor);
    });
    TRM_INTS(dtype, T, { return many<T, 1>(cuda, stream, fn, m, in, out, 0); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "variadic function of %s", trm_dtype_name(dtype));
}
