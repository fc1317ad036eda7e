/* Depthwise convolutions: one input and one output channel a group. A thread has 16 bytes of
 * channels and 4 neighbouring output columns: a row of its input window is read once into registers
 * for all 4. Memory bound on its first read of x; the rows that neighbours share come from the
 * caches. */
#include "kernels/cuda/conv_vec.cuh"

#define THREADS 128
#define COLUMNS 4

/* kKernel x kKernel with stride kStride and no dilation, 2-D. */
template <class T, int kVec, int kKernel, int kStride>
__global__ void __launch_bounds__(THREADS)
    depthwise_kernel(const T *__restrict__ x, const T *__restrict__ w, T *__restrict__ y,
                     trmi_conv_shape s, trmi_posts posts, unsigned count)
{
    constexpr int kSpan = (COLUMNS - 1) * kStride + kKernel; /* input columns of a thread */
    TRM_KERNEL_BEGIN();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const unsigned vectors = (unsigned)s.channels / kVec;
    const unsigned tiles = ((unsigned)s.out[2] + COLUMNS - 1) / COLUMNS;
    const int c = (int)(i % vectors) * kVec;
    unsigned rest = i / vectors;
    const int column = (int)(rest % tiles) * COLUMNS;

    rest /= tiles;
    const int row = (int)(rest % (unsigned)s.out[1]);
    const size_t n = rest / (unsigned)s.out[1];
    const int left = column * kStride - s.pad[2];
    float sum[COLUMNS][kVec] = {};

#pragma unroll
    for (int kh = 0; kh < kKernel; kh++) {
        const int at = row * kStride - s.pad[1] + kh;
        float weight[kKernel][kVec];

        if (at < 0 || at >= s.in[1])
            continue;
        const T *line =
            x + (n * (size_t)s.in[1] + (size_t)at) * (size_t)s.in[2] * (size_t)s.channels + c;

#pragma unroll
        for (int kw = 0; kw < kKernel; kw++)
            conv_load(w + (size_t)(kh * kKernel + kw) * (size_t)s.channels + c, weight[kw]);
#pragma unroll
        for (int j = 0; j < kSpan; j++) {
            float v[kVec];

            if (left + j < 0 || left + j >= s.in[2])
                continue;
            conv_load(line + (size_t)(left + j) * (size_t)s.channels, v);
#pragma unroll
            for (int q = 0; q < COLUMNS; q++) {
                const int kw = j - q * kStride;

                if (kw < 0 || kw >= kKernel)
                    continue;
#pragma unroll
                for (int e = 0; e < kVec; e++)
                    sum[q][e] += v[e] * weight[kw][e];
            }
        }
    }
#pragma unroll
    for (int q = 0; q < COLUMNS; q++)
        if (column + q < s.out[2])
            conv_store<T, float, kVec>(
                y, sum[q], posts,
                ((n * (size_t)s.out[1] + (size_t)row) * (size_t)s.out[2] + (size_t)(column + q)) *
                        (size_t)s.channels +
                    c,
                c);
}

/* Any kernel, stride and dilation, up to 3-D: a thread has one output position. */
template <class T, int kVec>
__global__ void __launch_bounds__(THREADS)
    depthwise_any_kernel(const T *__restrict__ x, const T *__restrict__ w, T *__restrict__ y,
                         trmi_conv_shape s, trmi_posts posts, unsigned count)
{
    TRM_KERNEL_BEGIN();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const unsigned vectors = (unsigned)s.channels / kVec;
    const int c = (int)(i % vectors) * kVec;
    const size_t position = i / vectors;
    unsigned rest = i / vectors;
    int o[3];
    float sum[kVec] = {};
    const T *weight = w + c;

#pragma unroll
    for (int d = 2; d >= 0; d--) {
        o[d] = (int)(rest % (unsigned)s.out[d]);
        rest /= (unsigned)s.out[d];
    }
    for (int kd = 0; kd < s.kernel[0]; kd++)
        for (int kh = 0; kh < s.kernel[1]; kh++)
            for (int kw = 0; kw < s.kernel[2]; kw++, weight += s.channels) {
                const int a = conv_tap<false>(s, 0, o[0], kd);
                const int b = conv_tap<false>(s, 1, o[1], kh);
                const int d = conv_tap<false>(s, 2, o[2], kw);
                float v[kVec], k[kVec];

                if (a < 0 || b < 0 || d < 0)
                    continue;
                conv_load(weight, k);
                const size_t at =
                    (((size_t)rest * (size_t)s.in[0] + (size_t)a) * (size_t)s.in[1] + (size_t)b) *
                        (size_t)s.in[2] +
                    (size_t)d;

                conv_load(x + at * (size_t)s.channels + c, v);
#pragma unroll
                for (int e = 0; e < kVec; e++)
                    sum[e] += v[e] * k[e];
            }
    conv_store<T, float, kVec>(y, sum, posts, position * (size_t)s.channels + c, c);
}

template <class T, int kVec, int kKernel, int kStride>
static trm_status depthwise_tiled(cudaStream_t stream, const trmi_conv_shape *s, const T *x,
                                  const T *w, T *y, const trmi_posts *posts)
{
    const size_t tiles = ((size_t)s->out[2] + COLUMNS - 1) / COLUMNS;
    const size_t count =
        (size_t)s->batch * (size_t)s->out[1] * tiles * ((size_t)s->channels / kVec);

    return trmi_launched(TRM_LAUNCH((depthwise_kernel<T, kVec, kKernel, kStride>),
                                    (unsigned)((count + THREADS - 1) / THREADS), THREADS, 0, stream,
                                    x, w, y, *s, *posts, (unsigned)count),
                         "depthwise convolution");
}

template <class T, int kVec>
static trm_status depthwise_any(cudaStream_t stream, const trmi_conv_shape *s, const T *x,
                                const T *w, T *y, const trmi_posts *posts)
{
    const size_t count = (size_t)s->batch * (size_t)s->out[0] * (size_t)s->out[1] *
                         (size_t)s->out[2] * ((size_t)s->channels / kVec);

    return trmi_launched(TRM_LAUNCH((depthwise_any_kernel<T, kVec>),
                                    (unsigned)((count + THREADS - 1) / THREADS), THREADS, 0, stream,
                                    x, w, y, *s, *posts, (unsigned)count),
                         "depthwise convolution");
}

template <class T>
static trm_status depthwise_launch(cudaStream_t stream, const trmi_conv_shape *s, const T *x,
                                   const T *w, T *y, const trmi_posts *posts)
{
    constexpr int vec = 16 / sizeof(T);
    const bool square = s->kernel[0] == 1 && s->in[0] == 1 && s->pad[0] == 0 && s->out[0] == 1 &&
                        s->kernel[1] == s->kernel[2] && s->stride[1] == s->stride[2] &&
                        s->dilation[1] == 1 && s->dilation[2] == 1;

    if (s->channels % vec != 0)
        return depthwise_any<T, 1>(stream, s, x, w, y, posts);
    if (square && s->kernel[1] == 3 && s->stride[1] == 1)
        return depthwise_tiled<T, vec, 3, 1>(stream, s, x, w, y, posts);
    if (square && s->kernel[1] == 3 && s->stride[1] == 2)
        return depthwise_tiled<T, vec, 3, 2>(stream, s, x, w, y, posts);
    if (square && s->kernel[1] == 5 && s->stride[1] == 1)
        return depthwise_tiled<T, vec, 5, 1>(stream, s, x, w, y, posts);
    if (square && s->kernel[1] == 5 && s->stride[1] == 2)
        return depthwise_tiled<T, vec, 5, 2>(stream, s, x, w, y, posts);
    return depthwise_any<T, vec>(stream, s, x, w, y, posts);
}

extern "C" trm_status trmi_cuda_conv_depthwise(cudaStream_t stream, const trmi_conv_shape *s,
                                               trm_dtype dtype, const void *x, const void *w,
                                               void *y, const trmi_posts *posts)
{
    const size_t total = (size_t)s->batch * (size_t)s->out[0] * (size_t)s->out[1] *
                         (size_t)s->out[2] * (size_t)s->channels;

    if (total == 0)
        return TRM_OK;
    if (total >= (size_t)1 << 32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "depthwise convolution of %zu elements", total);
    TRM_HALVES(dtype, T, {
        return depthwise_launch<T>(stream, s, static_cast<const T *>(x), static_cast<const T *>(w),
                                   static_cast<T *>(y), posts);
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "depthwise convolution of %s", trm_dtype_name(dtype));
}
