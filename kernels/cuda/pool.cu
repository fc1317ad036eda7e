/* Poolings over windows. A thread has one output position: of 16 bytes of channels where they lie
 * together, else of one channel, with neighbours along the innermost dim. What windows share comes
 * from the caches. */
#include "kernels/cuda/pool.cuh"

#define THREADS 128

template <class T, class A, int kVec, int kMode>
__global__ void __launch_bounds__(THREADS)
    pool_kernel(const T *__restrict__ x, T *__restrict__ y, trmi_pool p, unsigned count)
{
    TRM_KERNEL_BEGIN();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const unsigned vectors = (unsigned)p.channels / kVec;
    unsigned rest = p.channels_last ? i / vectors : i;
    const unsigned c = p.channels_last ? i % vectors * kVec : 0;
    const size_t step = p.channels_last ? (size_t)p.channels : 1; /* between positions */
    int from[3];
    A sum[kVec];
    int inside = 0, counted = 0;

#pragma unroll
    for (int d = 2; d >= 0; d--) {
        from[d] = (int)(rest % (unsigned)p.out[d]) * p.stride[d] - p.pad[d];
        rest /= (unsigned)p.out[d];
    }
    /* rest: the image, or (plain) the plane */
    const T *plane =
        x + (size_t)rest * (size_t)p.in[0] * (size_t)p.in[1] * (size_t)p.in[2] * step + c;

#pragma unroll
    for (int e = 0; e < kVec; e++)
        sum[e] = kMode == TRMI_POOL_MAX ? pool_compute<T>::lowest() : A(0);
    for (int kd = 0; kd < p.kernel[0]; kd++) {
        const int a = from[0] + kd * p.dilation[0];

        for (int kh = 0; kh < p.kernel[1]; kh++) {
            const int b = from[1] + kh * p.dilation[1];
            const bool row = a >= 0 && a < p.in[0] && b >= 0 && b < p.in[1];
            const bool padded = a < p.in[0] + p.pad_end[0] && b < p.in[1] + p.pad_end[1];

            for (int kw = 0; kw < p.kernel[2]; kw++) {
                const int at = from[2] + kw * p.dilation[2];

                counted += padded && at < p.in[2] + p.pad_end[2];
                if (!row || at < 0 || at >= p.in[2])
                    continue;
                inside++;
                const pool_vec<T, kVec> v = *reinterpret_cast<const pool_vec<T, kVec> *>(
                    plane +
                    (((size_t)a * (size_t)p.in[1] + (size_t)b) * (size_t)p.in[2] + (size_t)at) *
                        step);

#pragma unroll
                for (int e = 0; e < kVec; e++)
                    sum[e] = pool_join<A, kMode>(sum[e],
                                                 pool_term<A, kMode>(A(pool_up(v.v[e])), p.power));
            }
        }
    }
    pool_vec<T, kVec> out;

#pragma unroll
    for (int e = 0; e < kVec; e++)
        out.v[e] = pool_down<T>::from(
            pool_result<A, kMode>(sum[e], p.include_pad ? counted : inside, p.power));
    reinterpret_cast<pool_vec<T, kVec> *>(y)[i] = out;
}

/* Maxima and where they lie. One thread an output. */
template <class T, class A>
__global__ void __launch_bounds__(THREADS)
    pool_indices_kernel(const T *__restrict__ x, T *__restrict__ y, int64_t *__restrict__ indices,
                        trmi_pool p, unsigned count)
{
    TRM_KERNEL_BEGIN();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const size_t space = (size_t)p.in[0] * (size_t)p.in[1] * (size_t)p.in[2];
    const size_t step = p.channels_last ? (size_t)p.channels : 1;
    unsigned rest = p.channels_last ? i / (unsigned)p.channels : i;
    int o[3], from[3];
    A best = pool_compute<T>::lowest();
    size_t where = 0;
    bool first = true;

#pragma unroll
    for (int d = 2; d >= 0; d--) {
        o[d] = (int)(rest % (unsigned)p.out[d]);
        rest /= (unsigned)p.out[d];
        from[d] = o[d] * p.stride[d] - p.pad[d];
    }
    const unsigned c = p.channels_last ? i % (unsigned)p.channels : rest % (unsigned)p.channels;
    const size_t n = p.channels_last ? rest : rest / (unsigned)p.channels;
    const size_t plane = (n * (size_t)p.channels + c) * space; /* in a plain x */
    const T *source = p.channels_last ? x + n * space * step + c : x + plane;

    for (int kd = 0; kd < p.kernel[0]; kd++)
        for (int kh = 0; kh < p.kernel[1]; kh++)
            for (int kw = 0; kw < p.kernel[2]; kw++) {
                const int a = from[0] + kd * p.dilation[0], b = from[1] + kh * p.dilation[1];
                const int at = from[2] + kw * p.dilation[2];

                if (a < 0 || a >= p.in[0] || b < 0 || b >= p.in[1] || at < 0 || at >= p.in[2])
                    continue;
                const size_t flat =
                    ((size_t)a * (size_t)p.in[1] + (size_t)b) * (size_t)p.in[2] + (size_t)at;
                const A v = A(pool_up(source[flat * step]));

                if (!first && !pool_above(best, v))
                    continue;
                first = false;
                best = v;
                where =
                    p.column_major
                        ? ((size_t)at * (size_t)p.in[1] + (size_t)b) * (size_t)p.in[0] + (size_t)a
                        : flat;
                where += plane;
            }
    y[i] = pool_down<T>::from(best);
    indices[((((n * (size_t)p.channels + c) * (size_t)p.out[0] + (size_t)o[0]) * (size_t)p.out[1] +
              (size_t)o[1]) *
                 (size_t)p.out[2] +
             (size_t)o[2])] = (int64_t)where;
}

template <class T, class A, int kMode>
static trm_status window_launch(cudaStream_t stream, const trmi_pool *p, const T *x, T *y,
                                size_t total)
{
    constexpr int vec = 16 / sizeof(T);

    if (p->channels_last && p->channels % vec == 0)
        return trmi_launched(TRM_LAUNCH((pool_kernel<T, A, vec, kMode>),
                                        (unsigned)((total / vec + THREADS - 1) / THREADS), THREADS,
                                        0, stream, x, y, *p, (unsigned)(total / vec)),
                             "pool");
    return trmi_launched(TRM_LAUNCH((pool_kernel<T, A, 1, kMode>),
                                    (unsigned)((total + THREADS - 1) / THREADS), THREADS, 0, stream,
                                    x, y, *p, (unsigned)total),
                         "pool");
}

template <class T, class A>
static trm_status max_launch(cudaStream_t stream, const trmi_pool *p, const T *x, T *y,
                             int64_t *indices, size_t total)
{
    if (indices == nullptr)
        return window_launch<T, A, TRMI_POOL_MAX>(stream, p, x, y, total);
    return trmi_launched(TRM_LAUNCH((pool_indices_kernel<T, A>),
                                    (unsigned)((total + THREADS - 1) / THREADS), THREADS, 0, stream,
                                    x, y, indices, *p, (unsigned)total),
                         "pool");
}

template <class T, class A>
static trm_status mode_launch(cudaStream_t stream, const trmi_pool *p, const void *x, void *y,
                              int64_t *indices, size_t total)
{
    const T *from = static_cast<const T *>(x);
    T *to = static_cast<T *>(y);

    switch (p->mode) {
    case TRMI_POOL_MAX:
        return max_launch<T, A>(stream, p, from, to, indices, total);
    case TRMI_POOL_AVERAGE:
        return window_launch<T, A, TRMI_POOL_AVERAGE>(stream, p, from, to, total);
    default:
        return window_launch<T, A, TRMI_POOL_LP>(stream, p, from, to, total);
    }
}

extern "C" trm_status trmi_cuda_pool(cudaStream_t stream, const trmi_pool *p, trm_dtype dtype,
                                     const void *x, void *y, int64_t *indices)
{
    const size_t total = (size_t)p->batch * (size_t)p->channels * (size_t)p->out[0] *
                         (size_t)p->out[1] * (size_t)p->out[2];

    if (total == 0)
        return TRM_OK;
    if (total >= (size_t)1 << 31)
        return trm_fail(TRM_ERR_UNSUPPORTED, "pool of %zu outputs", total);
    TRM_FLOATS(dtype, T, {
        return mode_launch<T, typename pool_compute<T>::type>(stream, p, x, y, indices, total);
    })
    if (dtype == TRM_DTYPE_I8 && p->mode == TRMI_POOL_MAX)
        return max_launch<int8_t, int>(stream, p, static_cast<const int8_t *>(x),
                                       static_cast<int8_t *>(y), indices, total);
    if (dtype == TRM_DTYPE_U8 && p->mode == TRMI_POOL_MAX)
        return max_launch<uint8_t, int>(stream, p, static_cast<const uint8_t *>(x),
                                        static_cast<uint8_t *>(y), indices, total);
    return trm_fail(TRM_ERR_UNSUPPORTED, "pool of %s", trm_dtype_name(dtype));
}
