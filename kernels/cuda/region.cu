/* DeformConv's columns, MaxRoiPool, MaxUnpool, CausalConvWithState: a thread an output element. */
#include "kernels/cuda/image_common.cuh"

#include "kernels/cuda/region.h"

/* What a dtype is computed in. */
template <class T> struct region_wide {
    using type = float;
};
template <> struct region_wide<double> {
    using type = double;
};

/* ---- DeformConv ---- */

/* Pixel and fraction of base + offset: the two are not added, so that nothing is rounded. */
template <class C> struct deform_place {
    int at;
    C fraction;
    bool inside;
};

template <class C>
__device__ __forceinline__ deform_place<C> deform_place_of(int base, C offset, int n)
{
    deform_place<C> p = {0, 0, false};

    if (!(offset > -1e9 && offset < 1e9)) /* NaN, too */
        return p;
    const C low = floor(offset);
    p.at = base + static_cast<int>(low);
    p.fraction = offset - low;
    p.inside = p.at < n && (p.at >= 0 || (p.at == -1 && p.fraction > 0));
    return p;
}

template <class T>
__global__ void __launch_bounds__(256)
deform_columns(const T *__restrict__ x, const T *__restrict__ offset, const T *__restrict__ mask,
               T *__restrict__ columns, trmi_deform p, trm_split space, trm_split out_w,
               trm_split taps, trm_split kernel_w, size_t total)
{
    using C = typename region_wide<T>::type;
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const uint32_t plane_elems = space.divisor * taps.divisor; /* of one channel */
    const size_t plane = t / plane_elems;
    uint32_t rest = static_cast<uint32_t>(t % plane_elems);

    TRM_KERNEL_BEGIN();
    if (t >= total)
        return;
    const uint32_t s = trm_split_off(rest, space), tap = rest;
    const size_t n = plane / p.channels, c = plane % p.channels;
    uint32_t row = s, tap_row = tap;
    const uint32_t column = trm_split_off(row, out_w);
    const uint32_t tap_column = trm_split_off(tap_row, kernel_w);
    const size_t group = c / (p.channels / p.offset_groups);
    const size_t at = (n * p.offset_groups + group) * taps.divisor + tap;
    const deform_place<C> y = deform_place_of<C>(
        static_cast<int>(row) * p.stride[0] - p.pad[0] + static_cast<int>(tap_row) * p.dilation[0],
        trm_up(offset[at * 2 * space.divisor + s]), p.in[0]);
    const deform_place<C> z = deform_place_of<C>(
        static_cast<int>(column) * p.stride[1] - p.pad[1] +
            static_cast<int>(tap_column) * p.dilation[1],
        trm_up(offset[(at * 2 + 1) * space.divisor + s]), p.in[1]);
    C sum = 0;

    if (y.inside && z.inside) {
        const T *from = x + plane * p.in[0] * p.in[1];

        for (int a = 0; a < 2; a++) {
            for (int b = 0; b < 2; b++) {
                const int i = y.at + a, j = z.at + b;
                const C weight = (a == 0 ? 1 - y.fraction : y.fraction) *
                                 (b == 0 ? 1 - z.fraction : z.fraction);

                if (i >= 0 && i < p.in[0] && j >= 0 && j < p.in[1])
                    sum += weight * trm_up(from[static_cast<size_t>(i) * p.in[1] + j]);
            }
        }
        if (mask != nullptr)
            sum *= trm_up(mask[at * space.divisor + s]);
    }
    columns[t] = trm_down<T>(sum);
}

template <class T, class C>
__global__ void __launch_bounds__(256)
deform_bias(const C *sum, const T *__restrict__ bias, T *y, size_t elems, size_t channels,
            size_t space)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;

    TRM_KERNEL_BEGIN();
    if (t < elems)
        y[t] = trm_down<T>(sum[t] + trm_up(bias[t / space % channels]));
}

static trm_status region_too_large(const char *what, size_t count)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s of %zu elements", what, count);
}

trm_status trmi_cuda_deform_columns_launch(const trmi_deform *d, const void *x, const void *offset,
                                           const void *mask, void *columns, cudaStream_t stream)
{
    const size_t space = static_cast<size_t>(d->out[0]) * d->out[1];
    const size_t taps = static_cast<size_t>(d->kernel[0]) * d->kernel[1];
    const size_t total = d->images * d->channels * taps * space;

    if (total == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff || taps * space >= 0x7fffffff)
        return region_too_large("deformed columns", total);
    TRM_FLOATS(d->dtype, T, {
        return trmi_launched(
            TRM_LAUNCH(deform_columns<T>, trm_blocks(total, 256), 256, 0, stream,
                       static_cast<const T *>(x), static_cast<const T *>(offset),
                       static_cast<const T *>(mask), static_cast<T *>(columns), *d,
                       trm_split_of(static_cast<uint32_t>(space)),
                       trm_split_of(static_cast<uint32_t>(d->out[1])),
                       trm_split_of(static_cast<uint32_t>(taps)),
                       trm_split_of(static_cast<uint32_t>(d->kernel[1])), total),
            "deform_columns");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "deformed columns of %s", trm_dtype_name(d->dtype));
}

trm_status trmi_cuda_deform_bias_launch(trm_dtype dtype, const void *sum, const void *bias,
                                        void *y, size_t elems, size_t channels, size_t space,
                                        cudaStream_t stream)
{
    if (elems == 0)
        return TRM_OK;
    if (elems / 256 >= 0x7fffffff)
        return region_too_large("convolution", elems);
    TRM_FLOATS(dtype, T, {
        using C = typename region_wide<T>::type;
        return trmi_launched(TRM_LAUNCH((deform_bias<T, C>), trm_blocks(elems, 256), 256, 0, stream,
                                        static_cast<const C *>(sum), static_cast<const T *>(bias),
                                        static_cast<T *>(y), elems, channels, space),
                             "deform_bias");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "bias of %s", trm_dtype_name(dtype));
}

/* ---- MaxRoiPool ---- */

/* Bin `at` of `bins` over [start, start + extent), cut to [0, limit). In fp64, as on the CPU: bins
 * end at whole pixels. */
__device__ __forceinline__ void roi_pool_bin(int64_t at, int64_t bins, int64_t start,
                                             int64_t extent, int64_t limit, int *from, int *to)
{
    const double size = static_cast<double>(extent) / static_cast<double>(bins);
    const double low = floor(__dmul_rn(static_cast<double>(at), size)) + static_cast<double>(start);
    const double high =
        ceil(__dmul_rn(static_cast<double>(at + 1), size)) + static_cast<double>(start);

    *from = static_cast<int>(fmin(fmax(low, 0.0), static_cast<double>(limit)));
    *to = static_cast<int>(fmin(fmax(high, 0.0), static_cast<double>(limit)));
}

__device__ __forceinline__ double roi_pool_load(const void *p, trm_dtype dtype, size_t i)
{
    if (dtype == TRM_DTYPE_F64)
        return static_cast<const double *>(p)[i];
    return static_cast<double>(trm_load_f32(p, dtype, i));
}

__device__ __forceinline__ int64_t roi_pool_corner(const void *rois, trm_dtype dtype, size_t i,
                                                   double scale)
{
    const double v = round(roi_pool_load(rois, dtype, i) * scale);

    return v > 1e9 ? 1000000000 : v > -1e9 ? static_cast<int64_t>(v) : -1000000000; /* NaN too */
}

template <class T>
__global__ void __launch_bounds__(256)
roi_pool(const T *__restrict__ x, const void *__restrict__ rois, T *__restrict__ y,
         trmi_roi_pool p, size_t total)
{
    using C = typename region_wide<T>::type;
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int pw = static_cast<int>(t % p.out_w), ph = static_cast<int>(t / p.out_w % p.out_h);
    const size_t i = t / p.out_w / p.out_h, c = i % p.channels, roi = i / p.channels;
    int from_row, to_row, from_column, to_column;
    C best = -INFINITY;

    TRM_KERNEL_BEGIN();
    if (t >= total)
        return;
    const double image = roi_pool_load(rois, p.roi_dtype, roi * 5);
    const int64_t x1 = roi_pool_corner(rois, p.roi_dtype, roi * 5 + 1, p.scale);
    const int64_t y1 = roi_pool_corner(rois, p.roi_dtype, roi * 5 + 2, p.scale);
    const int64_t x2 = roi_pool_corner(rois, p.roi_dtype, roi * 5 + 3, p.scale);
    const int64_t y2 = roi_pool_corner(rois, p.roi_dtype, roi * 5 + 4, p.scale);
    roi_pool_bin(ph, p.out_h, y1, y2 - y1 + 1 > 1 ? y2 - y1 + 1 : 1, p.height, &from_row, &to_row);
    roi_pool_bin(pw, p.out_w, x1, x2 - x1 + 1 > 1 ? x2 - x1 + 1 : 1, p.width, &from_column,
                 &to_column);
    if (image >= 0.0 && image < static_cast<double>(p.images)) {
        const T *plane =
            x + (static_cast<size_t>(image) * p.channels + c) * p.height * p.width;

        for (int row = from_row; row < to_row; row++) {
            for (int column = from_column; column < to_column; column++) {
                const C v = trm_up(plane[static_cast<size_t>(row) * p.width + column]);

                best = v > best ? v : best; /* a NaN is passed over */
            }
        }
    }
    y[t] = trm_down<T>(best > -INFINITY ? best : C(0));
}

trm_status trmi_cuda_roi_pool_launch(const trmi_roi_pool *p, const void *x, const void *rois,
                                     void *y, cudaStream_t stream)
{
    const size_t total =
        p->regions * p->channels * static_cast<size_t>(p->out_h) * static_cast<size_t>(p->out_w);

    if (total == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff)
        return region_too_large("regions", total);
    TRM_FLOATS(p->dtype, T, {
        return trmi_launched(TRM_LAUNCH(roi_pool<T>, trm_blocks(total, 256), 256, 0, stream,
                                        static_cast<const T *>(x), rois, static_cast<T *>(y), *p,
                                        total),
                             "roi_pool");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "regions of %s", trm_dtype_name(p->dtype));
}

/* ---- MaxUnpool ---- */

__global__ void __launch_bounds__(256) unpool_clear(uint32_t *__restrict__ winners, size_t count)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;

    TRM_KERNEL_BEGIN();
    if (t < count)
        winners[t] = 0;
}

/* winners[place] = 1 + the last element that goes there. */
__global__ void __launch_bounds__(256)
unpool_claim(const int64_t *__restrict__ indices, uint32_t *__restrict__ winners, trmi_unpool p)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    size_t to = 0, step = 1;

    TRM_KERNEL_BEGIN();
    if (t >= p.count)
        return;
    int64_t at = indices[t];
    if (at < 0)
        return;
    for (int d = p.rank - 1; d >= 0; d--) {
        const int64_t index = at % p.unpooled[d];

        at /= p.unpooled[d];
        if (index >= p.dims[d])
            return;
        to += static_cast<size_t>(index) * step;
        step *= static_cast<size_t>(p.dims[d]);
    }
    if (at == 0)
        atomicMax(&winners[to], static_cast<uint32_t>(t + 1));
}

template <class U>
__global__ void __launch_bounds__(256)
unpool_take(const U *__restrict__ x, const uint32_t *__restrict__ winners, U *__restrict__ y,
            size_t count)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;

    TRM_KERNEL_BEGIN();
    if (t < count)
        y[t] = winners[t] == 0 ? U(0) : x[winners[t] - 1];
}

trm_status trmi_cuda_unpool_launch(const trmi_unpool *p, const void *x, const int64_t *indices,
                                   void *y, uint32_t *winners, cudaStream_t stream)
{
    if (p->out_count == 0)
        return TRM_OK;
    if (p->count >= 0x7fffffff || p->out_count / 256 >= 0x7fffffff)
        return region_too_large("unpooling", p->out_count);
    TRM_CHECK(trmi_launched(TRM_LAUNCH(unpool_clear, trm_blocks(p->out_count, 256), 256, 0, stream,
                                       winners, p->out_count),
                            "unpool_clear"));
    if (p->count > 0)
        TRM_CHECK(trmi_launched(TRM_LAUNCH(unpool_claim, trm_blocks(p->count, 256), 256, 0, stream,
                                           indices, winners, *p),
                                "unpool_claim"));
    TRM_WIDTHS(p->dtype, U, {
        return trmi_launched(TRM_LAUNCH(unpool_take<U>, trm_blocks(p->out_count, 256), 256, 0,
                                        stream, static_cast<const U *>(x), winners,
                                        static_cast<U *>(y), p->out_count),
                             "unpool_take");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "unpooling of %s", trm_dtype_name(p->dtype));
}

/* ---- CausalConvWithState ---- */

/* t counts (row, place): places below length are outputs, the others the state. */
template <class T>
__global__ void __launch_bounds__(256)
causal_conv(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ bias,
            const T *__restrict__ past, T *__restrict__ y, T *__restrict__ state,
            trmi_causal_conv p, size_t total)
{
    using C = typename region_wide<T>::type;
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t before = p.taps - 1, places = p.length + before;
    const size_t row = t / places, place = t % places, c = row % p.channels;
    const bool is_state = place >= p.length;
    C sum = 0;

    TRM_KERNEL_BEGIN();
    if (t >= total || (is_state && state == nullptr))
        return;
    const size_t last = is_state ? place : place + before; /* in the padded input */
    for (size_t at = place; at <= last; at++) {
        C v = 0;

        if (at >= before)
            v = trm_up(x[row * p.length + at - before]);
        else if (past != nullptr)
            v = trm_up(past[row * before + at]);
        sum += is_state ? v : v * trm_up(w[c * p.taps + at - place]);
    }
    if (is_state) {
        state[row * before + place - p.length] = trm_down<T>(sum);
        return;
    }
    if (bias != nullptr)
        sum += trm_up(bias[c]);
    if (p.silu)
        sum = sum / (1 + exp(-sum));
    y[row * p.length + place] = trm_down<T>(sum);
}

trm_status trmi_cuda_causal_conv_launch(const trmi_causal_conv *p, const void *x, const void *w,
                                        const void *bias, const void *past, void *y, void *state,
                                        cudaStream_t stream)
{
    const size_t total = p->rows * (p->length + p->taps - 1);

    if (total == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff)
        return region_too_large("causal convolution", total);
    TRM_FLOATS(p->dtype, T, {
        return trmi_launched(TRM_LAUNCH(causal_conv<T>, trm_blocks(total, 256), 256, 0, stream,
                                        static_cast<const T *>(x), static_cast<const T *>(w),
                                        static_cast<const T *>(bias), static_cast<const T *>(past),
                                        static_cast<T *>(y), static_cast<T *>(state), *p, total),
                             "causal_conv");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "causal convolution of %s", trm_dtype_name(p->dtype));
}
