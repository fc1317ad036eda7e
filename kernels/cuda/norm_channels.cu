/* BatchNormalization and LRN (norm_channels.h). */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/norm_channels.h"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256;

struct Params {
    uint32_t n, chunks; /* elements of what blockIdx.x / chunks counts */
    Div channels, spatial;
    bool channels_last, relu, one_channel; /* of a pack: all its elements are of one channel */
};

template <class W>
__global__ void __launch_bounds__(kThreads) coefficients(trmi_batch_norm b, W *__restrict__ out)
{
    const size_t c = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;

    TRM_KERNEL_BEGIN();
    if (c >= b.channels)
        return;
    double mean = get_float(b.mean, b.mean_type, c);
    double variance = get_float(b.variance, b.variance_type, c);

    if (b.moments != nullptr) {
        const double new_mean = b.moments[2 * c], new_variance = b.moments[2 * c + 1];

        if (b.running_mean != nullptr)
            put_float(b.running_mean, b.running_mean_type, c,
                      mean * b.momentum + new_mean * (1.0 - b.momentum));
        if (b.running_variance != nullptr)
            put_float(b.running_variance, b.running_variance_type, c,
                      variance * b.momentum + new_variance * (1.0 - b.momentum));
        mean = new_mean;
        variance = new_variance;
    }
    const double scale = get_float(b.gain, b.gain_type, c) / sqrt(variance + b.epsilon);

    out[c] = static_cast<W>(scale);
    out[b.channels + c] = static_cast<W>(get_float(b.bias, b.bias_type, c) - mean * scale);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    scale_channels(Params p, const T *x, const typename Work<T>::type *__restrict__ scale, T *y)
{
    using W = typename Work<T>::type;
    const W *shift = scale + p.channels.d;
    const uint32_t part = blockIdx.x / p.chunks, chunk = blockIdx.x - part * p.chunks;
    const uint32_t units = p.n / V;
    const size_t base = static_cast<size_t>(part) * p.n;

    TRM_KERNEL_BEGIN();
#pragma unroll 4
    for (uint32_t u = chunk * kThreads + threadIdx.x; u < units; u += p.chunks * kThreads) {
        const uint32_t e = u * V;
        Pack<T, V> v = *reinterpret_cast<const Pack<T, V> *>(x + base + e);
        W a[V], b[V];

        if (p.channels_last) { /* V divides the channels, or is 1 */
            const uint32_t c = e - quotient(p.channels, e) * p.channels.d;

#pragma unroll
            for (int j = 0; j < V; j++) {
                a[j] = scale[c + j];
                b[j] = shift[c + j];
            }
        } else {
#pragma unroll
            for (int j = 0; j < V; j++) {
                if (j > 0 && p.one_channel) {
                    a[j] = a[0];
                    b[j] = b[0];
                    continue;
                }
                const uint32_t row = quotient(p.spatial, e + j);
                const uint32_t c = row - quotient(p.channels, row) * p.channels.d;

                a[j] = scale[c];
                b[j] = shift[c];
            }
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            const W r = static_cast<W>(trm_up(v.v[j])) * a[j] + b[j];

            v.v[j] = trm_down<T>(p.relu && r < 0 ? static_cast<W>(0) : r);
        }
        *reinterpret_cast<Pack<T, V> *>(y + base + e) = v;
    }
}

__device__ __forceinline__ float power(float x, float y)
{
    return powf(x, y);
}
__device__ __forceinline__ double power(double x, double y)
{
    return pow(x, y);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    lrn(Params p, uint32_t size, typename Work<T>::type scale, typename Work<T>::type beta,
        typename Work<T>::type bias, const T *__restrict__ x, T *__restrict__ y)
{
    using W = typename Work<T>::type;
    const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
    const uint32_t before = (size - 1) / 2, after = size - 1 - before;

    TRM_KERNEL_BEGIN();
    if (i >= p.n)
        return;
    const uint32_t row = p.channels_last ? i : quotient(p.spatial, i);
    const uint32_t c = row - quotient(p.channels, row) * p.channels.d;
    const uint32_t step = p.channels_last ? 1 : p.spatial.d;
    const uint32_t first = c < before ? 0 : c - before;
    const uint32_t last = c + after < p.channels.d ? c + after : p.channels.d - 1;
    const T *at = x + i - static_cast<size_t>(c - first) * step;
    W sum = 0;

    for (uint32_t k = first; k <= last; k++, at += step) {
        const W v = trm_up(*at);

        sum += v * v;
    }
    y[i] = trm_down<T>(static_cast<W>(trm_up(x[i])) / power(bias + scale * sum, beta));
}

template <class T, int V>
trm_status apply(Params p, size_t parts, cudaStream_t stream, const void *x, const void *scale,
                 void *y)
{
    using W = typename Work<T>::type;

    p.chunks = (p.n / V + 4 * kThreads - 1) / (4 * kThreads);
    if (static_cast<uint64_t>(parts) * p.chunks > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "batch normalisation of %zu images", parts);
    return trmi_launched(TRM_LAUNCH((scale_channels<T, V>),
                                    static_cast<unsigned>(parts * p.chunks), kThreads, 0, stream, p,
                                    static_cast<const T *>(x), static_cast<const W *>(scale),
                                    static_cast<T *>(y)),
                         "batch normalisation");
}

Params params_of(const trmi_channels *c)
{
    Params p = {};

    p.channels = div_of(c->channels);
    p.spatial = div_of(c->spatial);
    p.channels_last = c->channels_last || c->spatial == 1;
    p.relu = c->relu;
    return p;
}

} // namespace

extern "C" trm_status trmi_cuda_batch_norm_coefficients(const trmi_batch_norm *b,
                                                        cudaStream_t stream)
{
    const unsigned blocks = static_cast<unsigned>((b->channels + kThreads - 1) / kThreads);

    if (b->channels == 0)
        return TRM_OK;
    if (b->wide)
        return trmi_launched(TRM_LAUNCH((coefficients<double>), blocks, kThreads, 0, stream, *b,
                                        static_cast<double *>(b->coefficients)),
                             "coefficients of batch normalisation");
    return trmi_launched(TRM_LAUNCH((coefficients<float>), blocks, kThreads, 0, stream, *b,
                                    static_cast<float *>(b->coefficients)),
                         "coefficients of batch normalisation");
}

extern "C" trm_status trmi_cuda_batch_norm_apply(const trmi_channels *c, cudaStream_t stream,
                                                 const void *x, const void *coefficients, void *y)
{
    Params p = params_of(c);
    const size_t image = c->channels * c->spatial, all = image * c->images;
    const size_t parts = all <= INT32_MAX ? 1 : c->images;

    if (all == 0)
        return TRM_OK;
    if (image > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "batch normalisation of images of %zu elements",
                        image);
    p.n = static_cast<uint32_t>(parts == 1 ? all : image);
    TRM_FLOATS(c->dtype, T, {
        constexpr int kV = vector_of<T>();
        const bool aligned = aligned16(x) && aligned16(y) && p.n % kV == 0;

        p.one_channel = c->spatial % kV == 0;
        if (aligned && (!p.channels_last || c->channels % kV == 0))
            return apply<T, vector_of<T>()>(p, parts, stream, x, coefficients, y);
        return apply<T, 1>(p, parts, stream, x, coefficients, y);
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "batch normalisation of %s", trm_dtype_name(c->dtype));
}

extern "C" trm_status trmi_cuda_lrn_run(const trmi_channels *c, cudaStream_t stream, size_t size,
                                        double alpha, double beta, double bias, const void *x,
                                        void *y)
{
    Params p = params_of(c);
    const size_t all = c->images * c->channels * c->spatial;

    if (all == 0)
        return TRM_OK;
    if (all > INT32_MAX || size > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "LRN of %zu elements", all);
    p.n = static_cast<uint32_t>(all);
    TRM_FLOATS(c->dtype, T, {
        using W = typename Work<T>::type;

        return trmi_launched(
            TRM_LAUNCH((lrn<T>), (p.n + kThreads - 1) / kThreads, kThreads, 0, stream, p,
                       static_cast<uint32_t>(size),
                       static_cast<W>(alpha / static_cast<double>(size)), static_cast<W>(beta),
                       static_cast<W>(bias), static_cast<const T *>(x), static_cast<T *>(y)),
            "LRN");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "LRN of %s", trm_dtype_name(c->dtype));
}
