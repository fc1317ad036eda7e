/* Convolutions of any shape, without cuDNN. A thread sums 4 output positions of one filter;
 * neighbours have neighbouring filters, so that weights [taps, channels of a group, filters] are
 * read in whole lines and each is used 4 times, while x is the same address for a whole warp (or
 * neighbouring ones, with many groups). */
#include "kernels/cuda/conv_vec.cuh"

#define THREADS 128
#define POSITIONS 4

template <class T, class A, bool kTransposed>
__global__ void __launch_bounds__(THREADS)
    direct_kernel(const T *__restrict__ x, const T *__restrict__ w, T *__restrict__ y,
                  trmi_conv_shape s, trmi_posts posts, size_t positions, size_t count)
{
    TRM_KERNEL_BEGIN();
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const int m = (int)(i % (size_t)s.filters);
    const size_t first = i / (size_t)s.filters * POSITIONS;
    const int c_group = s.channels / s.group, from = m / (s.filters / s.group) * c_group;
    int o[POSITIONS][3];
    size_t image[POSITIONS];
    A sum[POSITIONS];

#pragma unroll
    for (int p = 0; p < POSITIONS; p++) {
        size_t rest = first + p < positions ? first + p : positions - 1;

#pragma unroll
        for (int d = 2; d >= 0; d--) {
            o[p][d] = (int)(rest % (size_t)s.out[d]);
            rest /= (size_t)s.out[d];
        }
        image[p] = rest * (size_t)s.in[0];
        sum[p] = A(0);
    }
    const T *weight = w + m;

    for (int kd = 0; kd < s.kernel[0]; kd++)
        for (int kh = 0; kh < s.kernel[1]; kh++)
            for (int kw = 0; kw < s.kernel[2]; kw++) {
                const T *source[POSITIONS];
                bool any = false;

#pragma unroll
                for (int p = 0; p < POSITIONS; p++) {
                    const int a = conv_tap<kTransposed>(s, 0, o[p][0], kd);
                    const int b = conv_tap<kTransposed>(s, 1, o[p][1], kh);
                    const int c = conv_tap<kTransposed>(s, 2, o[p][2], kw);
                    const bool inside = a >= 0 && b >= 0 && c >= 0;
                    const size_t row =
                        ((image[p] + (size_t)a) * (size_t)s.in[1] + (size_t)b) * (size_t)s.in[2] +
                        (size_t)c;

                    source[p] = inside ? x + row * (size_t)s.channels + from : nullptr;
                    any = any || inside;
                }
                if (any)
                    for (int c = 0; c < c_group; c++) {
                        const A v = trm_up(weight[(size_t)c * (size_t)s.filters]);

#pragma unroll
                        for (int p = 0; p < POSITIONS; p++)
                            if (source[p] != nullptr)
                                sum[p] += A(trm_up(source[p][c])) * v;
                    }
                weight += (size_t)c_group * (size_t)s.filters;
            }
#pragma unroll
    for (int p = 0; p < POSITIONS; p++) {
        A v[1] = {sum[p]};

        if (first + p < positions)
            conv_store<T, A, 1>(y, v, posts, (first + p) * (size_t)s.filters + m, m);
    }
}

template <class T, class A>
static trm_status direct_launch(cudaStream_t stream, const trmi_conv_shape *s, const T *x,
                                const T *w, T *y, const trmi_posts *posts)
{
    const size_t positions =
        (size_t)s->batch * (size_t)s->out[0] * (size_t)s->out[1] * (size_t)s->out[2];
    const size_t count = (positions + POSITIONS - 1) / POSITIONS * (size_t)s->filters;
    const size_t blocks = (count + THREADS - 1) / THREADS;

    if (count == 0)
        return TRM_OK;
    if (blocks >= (size_t)1 << 31)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a convolution of %zu outputs", count);
    if (s->transposed)
        return trmi_launched(TRM_LAUNCH((direct_kernel<T, A, true>), (unsigned)blocks, THREADS, 0,
                                        stream, x, w, y, *s, *posts, positions, count),
                             "convolution");
    return trmi_launched(TRM_LAUNCH((direct_kernel<T, A, false>), (unsigned)blocks, THREADS, 0,
                                    stream, x, w, y, *s, *posts, positions, count),
                         "convolution");
}

extern "C" trm_status trmi_cuda_conv_direct(cudaStream_t stream, const trmi_conv_shape *s,
                                            trm_dtype dtype, const void *x, const void *w, void *y,
                                            const trmi_posts *posts)
{
    TRM_HALVES(dtype, T, {
        return direct_launch<T, float>(stream, s, static_cast<const T *>(x),
                                       static_cast<const T *>(w), static_cast<T *>(y), posts);
    })
    if (dtype == TRM_DTYPE_F64)
        return direct_launch<double, double>(stream, s, static_cast<const double *>(x),
                                             static_cast<const double *>(w),
                                             static_cast<double *>(y), posts);
    return trm_fail(TRM_ERR_UNSUPPORTED, "convolution of %s", trm_dtype_name(dtype));
}
