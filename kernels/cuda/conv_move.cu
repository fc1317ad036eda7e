/* What moves around a convolution: weights into another order, activations into a padded copy. One
 * thread writes 16 bytes where the sizes allow it, else one element; neighbours write neighbouring
 * memory. */
#include "kernels/cuda/conv_vec.cuh"

#define THREADS 256

static unsigned blocks_of(size_t threads)
{
    return (unsigned)((threads + THREADS - 1) / THREADS);
}

/* ---- weights ---- */

/* Where element i comes from; false: nowhere. */
__device__ __forceinline__ bool arrange_from(const trmi_conv_arrange &a, size_t i, size_t *at_out)
{
    size_t rest = i, at = 0, last = 0, second = 0;

#pragma unroll
    for (int d = 3; d >= 0; d--) {
        const size_t index = rest % a.dims[d];

        rest /= a.dims[d];
        at += index * a.strides[d];
        last = d == 3 ? index : last;
        second = d == 1 ? index : second;
    }
    *at_out = at;
    return (a.split ? second * a.dims[3] + last : last) < a.valid;
}

template <class F, class T>
__global__ void __launch_bounds__(THREADS)
    arrange_kernel(const F *__restrict__ from, T *__restrict__ to, trmi_conv_arrange a,
                   size_t count)
{
    TRM_KERNEL_BEGIN();
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t at;

    if (i >= count)
        return;
    to[i] = arrange_from(a, i, &at) ? trm_down<T>(trm_up(from[at])) : trm_down<T>(0.0f);
}

__global__ void __launch_bounds__(THREADS)
    arrange_bytes_kernel(const uint8_t *__restrict__ from, uint8_t *__restrict__ to,
                         trmi_conv_arrange a, size_t count)
{
    TRM_KERNEL_BEGIN();
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t at;

    if (i >= count)
        return;
    to[i] = arrange_from(a, i, &at) ? (uint8_t)(from[at] ^ a.flip) : (uint8_t)0;
}

extern "C" trm_status trmi_cuda_conv_arrange(cudaStream_t stream, const trmi_conv_arrange *a,
                                             const void *from, void *to)
{
    const size_t count = a->dims[0] * a->dims[1] * a->dims[2] * a->dims[3];

    if (count == 0)
        return TRM_OK;
    if (count >= (size_t)THREADS << 31)
        return trm_fail(TRM_ERR_UNSUPPORTED, "weights of %zu elements", count);
    if (trm_dtype_bytes(a->from) == 1 && trm_dtype_bytes(a->to) == 1)
        return trmi_launched(TRM_LAUNCH(arrange_bytes_kernel, blocks_of(count), THREADS, 0, stream,
                                        static_cast<const uint8_t *>(from),
                                        static_cast<uint8_t *>(to), *a, count),
                             "order of weights");
    if (a->from == TRM_DTYPE_F64 && a->to == TRM_DTYPE_F64)
        return trmi_launched(TRM_LAUNCH((arrange_kernel<double, double>), blocks_of(count), THREADS,
                                        0, stream, static_cast<const double *>(from),
                                        static_cast<double *>(to), *a, count),
                             "order of weights");
    TRM_HALVES(a->from, F, {TRM_HALVES(a->to, T, {
                   return trmi_launched(TRM_LAUNCH((arrange_kernel<F, T>), blocks_of(count),
                                                   THREADS, 0, stream, static_cast<const F *>(from),
                                                   static_cast<T *>(to), *a, count),
                                        "order of weights");
               })})
    return trm_fail(TRM_ERR_UNSUPPORTED, "weights of %s as %s", trm_dtype_name(a->from),
                    trm_dtype_name(a->to));
}

/* ---- padding ---- */

template <class T, int kVec>
__global__ void __launch_bounds__(THREADS)
    pad_kernel(const T *__restrict__ from, const T *__restrict__ fill, T *__restrict__ to,
               trmi_conv_padding p, unsigned count)
{
    TRM_KERNEL_BEGIN();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const unsigned vectors = (unsigned)p.to_channels / kVec;
    unsigned rest = i / vectors;
    const int c = (int)(i % vectors) * kVec;
    const T none = (T)((fill == nullptr ? T(0) : *fill) ^ (T)p.flip);
    int at[3];
    bool inside = true;

#pragma unroll
    for (int d = 2; d >= 0; d--) {
        at[d] = (int)(rest % (unsigned)p.out[d]) - p.pad[d];
        rest /= (unsigned)p.out[d];
        inside = inside && at[d] >= 0 && at[d] < p.in[d];
    }
    const size_t row = (((size_t)rest * p.in[0] + at[0]) * p.in[1] + at[1]) * p.in[2] + at[2];
    const T *source = from + row * p.from_channels + c;

    if (kVec == 1) {
        to[i] = inside && c < p.from_channels ? (T)(*source ^ (T)p.flip) : none;
        return;
    }
    conv_vec<T> v;

    if (inside && p.from_channels % kVec == 0 && c < p.from_channels) {
        v = *reinterpret_cast<const conv_vec<T> *>(source);
#pragma unroll
        for (int e = 0; e < kVec; e++)
            v.v[e] = (T)(v.v[e] ^ (T)p.flip);
    } else {
#pragma unroll
        for (int e = 0; e < kVec; e++)
            v.v[e] = inside && c + e < p.from_channels ? (T)(source[e] ^ (T)p.flip) : none;
    }
    reinterpret_cast<conv_vec<T> *>(to)[i] = v;
}

template <class T>
static trm_status pad_launch(cudaStream_t stream, const trmi_conv_padding *p, const T *from,
                             const T *fill, T *to, size_t total)
{
    const int vec = 16 / sizeof(T);

    /* whole vectors are read only where every row starts on 16 bytes */
    if (p->to_channels % vec == 0 &&
        (p->from_channels % vec != 0 || reinterpret_cast<uintptr_t>(from) % 16 == 0))
        return trmi_launched(TRM_LAUNCH((pad_kernel<T, vec>), blocks_of(total / vec), THREADS, 0,
                                        stream, from, fill, to, *p, (unsigned)(total / vec)),
                             "padding");
    return trmi_launched(TRM_LAUNCH((pad_kernel<T, 1>), blocks_of(total), THREADS, 0, stream, from,
                                    fill, to, *p, (unsigned)total),
                         "padding");
}

extern "C" trm_status trmi_cuda_conv_pad(cudaStream_t stream, const trmi_conv_padding *p,
                                         const void *from, const void *fill, void *to)
{
    const size_t total = (size_t)p->batch * (size_t)p->out[0] * (size_t)p->out[1] *
                         (size_t)p->out[2] * (size_t)p->to_channels;

    if (total == 0)
        return TRM_OK;
    if (total >= (size_t)1 << 32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "padding to %zu elements", total);
    switch (p->element_bytes) {
    case 1:
        return pad_launch(stream, p, static_cast<const uint8_t *>(from),
                          static_cast<const uint8_t *>(fill), static_cast<uint8_t *>(to), total);
    case 2:
        return pad_launch(stream, p, static_cast<const uint16_t *>(from),
                          static_cast<const uint16_t *>(fill), static_cast<uint16_t *>(to), total);
    case 4:
        return pad_launch(stream, p, static_cast<const uint32_t *>(from),
                          static_cast<const uint32_t *>(fill), static_cast<uint32_t *>(to), total);
    default:
        return pad_launch(stream, p, static_cast<const uint64_t *>(from),
                          static_cast<const uint64_t *>(fill), static_cast<uint64_t *>(to), total);
    }
}
