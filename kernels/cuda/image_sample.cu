/* GridSample, AffineGrid, RoiAlign, Col2Im: a thread an output point. Coordinates decide which
 * pixels are read, so they are computed as on the CPU, product by product. */
#include "kernels/cuda/image_common.cuh"

#include "kernels/cuda/image.h"

#define SAMPLE_CHANNELS 8 /* channels for which a thread keeps its taps */

/* ---- GridSample ---- */

struct sample_params {
    trmi_grid_sample g;
    size_t in_plane;
};

__device__ float sample_reflect(float x, float low, float high)
{
    const float range = high - low;

    if (x >= low && x <= high)
        return x;
    if (range <= 0)
        return low;
    const float distance = x < low ? low - x : x - high, turns = floorf(distance / range);
    const bool even = fmodf(turns, 2) == 0;
    const float rest = distance - __fmul_rn(turns, range);
    return (x < low) == even ? low + rest : high - rest;
}

/* Index of a tap inside the dim; -1: a zero. */
__device__ __forceinline__ int sample_index(const trmi_grid_sample &g, int64_t i, int n)
{
    const float low = g.align_corners ? 0.0f : -0.5f;

    if (i >= 0 && i < n)
        return static_cast<int>(i);
    if (g.padding == 0)
        return -1;
    if (g.padding == 1)
        return i < 0 ? 0 : n - 1;
    const int64_t r = static_cast<int64_t>(
        sample_reflect(static_cast<float>(i), low, static_cast<float>(n - 1) - low));
    return static_cast<int>(r < 0 ? 0 : r >= n ? n - 1 : r);
}

/* Keys' weights (Keys 1981) with a = -0.75. */
__device__ __forceinline__ void sample_cubic(float t, float *w)
{
    const float a = -0.75f;

    w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1;
    w[3] = ((a * (2 - t) - 5 * a) * (2 - t) + 8 * a) * (2 - t) - 4 * a;
}

template <int kTaps>
__device__ __forceinline__ void sample_dim(const trmi_grid_sample &g, float c, int n, int *index,
                                           float *w)
{
    const float low = g.align_corners ? 0.0f : -0.5f, high = static_cast<float>(n - 1) - low;
    float x = g.align_corners
                  ? __fmul_rn((c + 1) / 2, static_cast<float>(n - 1))
                  : __fadd_rn(__fmul_rn(c + 1, static_cast<float>(n)), -1.0f) / 2;

    if (!(x > -1e9f && x < 1e9f)) /* NaN and infinities: far outside */
        x = x > 0 ? 1e9f : -1e9f;
    if (kTaps == 1)
        x = rintf(x);
    if (x < low || x > high) {
        if (g.padding == 1)
            x = x < 0 ? 0 : static_cast<float>(n - 1);
        else if (g.padding == 2)
            x = sample_reflect(x, low, high);
    }
    const float floor_x = floorf(x);
    const int64_t first = static_cast<int64_t>(floor_x) - (kTaps == 4 ? 1 : 0);
    w[0] = 1;
    if (kTaps == 2) {
        w[0] = 1 - (x - floor_x);
        w[kTaps - 1] = x - floor_x;
    } else if (kTaps == 4) {
        sample_cubic(x - floor_x, w);
    }
#pragma unroll
    for (int i = 0; i < kTaps; i++)
        index[i] = sample_index(g, first + i, n);
}

template <class T, int kTaps>
__global__ void __launch_bounds__(256)
grid_sample(const T *__restrict__ x, const void *__restrict__ grid, T *__restrict__ y,
            sample_params p)
{
    const trmi_grid_sample &g = p.g;
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t image = t / g.points, point = t % g.points;
    const size_t c0 = static_cast<size_t>(blockIdx.y) * SAMPLE_CHANNELS;
    const int channels = static_cast<int>(min(g.channels - c0, (size_t)SAMPLE_CHANNELS));
    int index[3][kTaps];
    float w[3][kTaps];

    TRM_KERNEL_BEGIN();
    if (image >= g.images)
        return;
#pragma unroll
    for (int d = 0; d < 3; d++) {
        const int from_end = 2 - d; /* the grid's coordinates begin with the last dim's */

        if (from_end < g.spatial) {
            sample_dim<kTaps>(g, trm_load_f32(grid, g.grid_dtype, t * g.spatial + from_end),
                              g.dims[d], index[d], w[d]);
            continue;
        }
#pragma unroll
        for (int i = 0; i < kTaps; i++) {
            index[d][i] = i == 0 ? 0 : -1;
            w[d][i] = 1;
        }
    }
    for (int c = 0; c < channels; c++) {
        const T *plane = x + (image * g.channels + c0 + c) * p.in_plane;
        float sum = 0;

#pragma unroll
        for (int i = 0; i < kTaps; i++) {
#pragma unroll
            for (int j = 0; j < kTaps; j++) {
                if (index[0][i] < 0 || index[1][j] < 0)
                    continue;
                const T *line = plane + (static_cast<size_t>(index[0][i]) * g.dims[1] +
                                         index[1][j]) *
                                            g.dims[2];
#pragma unroll
                for (int k = 0; k < kTaps; k++)
                    if (index[2][k] >= 0)
                        sum += trm_f32(line[index[2][k]]) * (w[0][i] * w[1][j] * w[2][k]);
            }
        }
        y[(image * g.channels + c0 + c) * g.points + point] = trm_from_f32<T>(sum);
    }
}

template <class T>
static trm_status grid_sample_run(const sample_params &p, const void *x, const void *grid, void *y,
                                  cudaStream_t stream)
{
    const dim3 blocks(trm_blocks(p.g.images * p.g.points, 256),
                      trm_blocks(p.g.channels, SAMPLE_CHANNELS));
    const T *from = static_cast<const T *>(x);
    T *to = static_cast<T *>(y);

    if (p.g.taps == 1)
        return trmi_launched(
            TRM_LAUNCH((grid_sample<T, 1>), blocks, 256, 0, stream, from, grid, to, p),
            "grid_sample");
    if (p.g.taps == 2)
        return trmi_launched(
            TRM_LAUNCH((grid_sample<T, 2>), blocks, 256, 0, stream, from, grid, to, p),
            "grid_sample");
    return trmi_launched(
        TRM_LAUNCH((grid_sample<T, 4>), blocks, 256, 0, stream, from, grid, to, p), "grid_sample");
}

trm_status trmi_cuda_grid_sample_launch(const trmi_grid_sample *g, const void *x, const void *grid,
                                        void *y, cudaStream_t stream)
{
    sample_params p = {*g, 1};

    for (int d = 0; d < 3; d++)
        p.in_plane *= static_cast<size_t>(g->dims[d]);
    if (g->images * g->channels * g->points == 0)
        return TRM_OK;
    if (g->images * g->points / 256 >= 0x7fffffff || g->channels > 65535 * SAMPLE_CHANNELS)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%zu points of %zu channels", g->points, g->channels);
    TRM_FLOATS(g->dtype, T, { return grid_sample_run<T>(p, x, grid, y, stream); })
    return trm_fail(TRM_ERR_UNSUPPORTED, "grid sample of %s", trm_dtype_name(g->dtype));
}

/* ---- AffineGrid: out[n, point] = theta[n] * (x, y(, z), 1) ---- */

template <class T>
__global__ void __launch_bounds__(256)
affine_grid(const void *__restrict__ theta, T *__restrict__ y, trmi_affine_grid a)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t image = t / a.points;
    size_t rest = t % a.points;
    double base[4];

    TRM_KERNEL_BEGIN();
    if (image >= a.images)
        return;
    for (int i = 0; i < a.spatial; i++) { /* x first: the last dim */
        const int64_t n = a.dims[a.spatial - 1 - i];
        const int64_t at = static_cast<int64_t>(rest % static_cast<size_t>(n));

        rest /= static_cast<size_t>(n);
        if (a.align_corners)
            base[i] = n > 1 ? -1 + 2 * static_cast<double>(at) / static_cast<double>(n - 1) : 0;
        else
            base[i] = -1 + (2 * static_cast<double>(at) + 1) / static_cast<double>(n);
    }
    base[a.spatial] = 1;
    for (int r = 0; r < a.spatial; r++) {
        const size_t row = (image * a.spatial + r) * (a.spatial + 1);
        double sum = 0;

        for (int c = 0; c <= a.spatial; c++)
            sum += static_cast<double>(trm_load_f32(theta, a.dtype, row + c)) * base[c];
        y[t * a.spatial + r] = trm_from_f32<T>(static_cast<float>(sum));
    }
}

trm_status trmi_cuda_affine_grid_launch(const trmi_affine_grid *a, const void *theta, void *y,
                                        cudaStream_t stream)
{
    const size_t total = a->images * a->points;

    if (total == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff)
        return trm_fail(TRM_ERR_UNSUPPORTED, "affine grid of %zu points", total);
    TRM_FLOATS(a->out_dtype, T, {
        return trmi_launched(TRM_LAUNCH(affine_grid<T>, trm_blocks(total, 256), 256, 0, stream,
                                        theta, static_cast<T *>(y), *a),
                             "affine_grid");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "affine grid of %s", trm_dtype_name(a->out_dtype));
}

/* ---- RoiAlign ---- */

#define ROI_GRID_MAX 65536 /* samples a side of a bin: more is a broken region, not a picture */

/* One axis of a bilinear sample: false outside the picture. */
__device__ __forceinline__ bool roi_axis(float at, int n, int *low, int *high, float *fraction)
{
    if (!(at >= -1.0f && at <= static_cast<float>(n)))
        return false;
    at = at > 0 ? at : 0;
    *low = static_cast<int>(at);
    if (*low >= n - 1) {
        *low = *high = n - 1;
        *fraction = 0;
    } else {
        *high = *low + 1;
        *fraction = at - static_cast<float>(*low);
    }
    return true;
}

/* start + bin * size + (sample + 0.5) * size / samples, as the CPU rounds it. */
__device__ __forceinline__ float roi_at(float start, int bin, float size, int sample, int samples)
{
    return __fadd_rn(__fadd_rn(start, __fmul_rn(static_cast<float>(bin), size)),
                     __fmul_rn(static_cast<float>(sample) + 0.5f, size) /
                         static_cast<float>(samples));
}

template <class T>
__global__ void __launch_bounds__(256)
roi_align(const T *__restrict__ x, const void *__restrict__ rois, const void *__restrict__ batch,
          T *__restrict__ y, trmi_roi_align a, size_t total)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int pw = static_cast<int>(t % a.out_w), ph = static_cast<int>(t / a.out_w % a.out_h);
    const size_t i = t / a.out_w / a.out_h, n = i / a.channels, c = i % a.channels;
    const float offset = a.half_pixel ? 0.5f : 0.0f;
    float roi[4], sum = 0, best = 0;
    bool first = true, broken = false;

    TRM_KERNEL_BEGIN();
    if (t >= total)
        return;
    const int64_t image = a.batch_dtype == TRM_DTYPE_I32 ? static_cast<const int32_t *>(batch)[n]
                                                         : static_cast<const int64_t *>(batch)[n];
    for (int k = 0; k < 4; k++) {
        roi[k] = trm_load_f32(rois, a.roi_dtype, n * 4 + k);
        broken = broken || !(fabsf(__fmul_rn(roi[k], a.scale)) <= (float)ROI_GRID_MAX);
        roi[k] = __fadd_rn(__fmul_rn(roi[k], a.scale), -offset);
    }
    if (broken || image < 0 || image >= static_cast<int64_t>(a.images)) {
        y[t] = trm_from_f32<T>(NAN);
        return;
    }
    float w = roi[2] - roi[0], h = roi[3] - roi[1];
    if (!a.half_pixel) { /* the older rule: at least one pixel */
        w = w > 1 ? w : 1;
        h = h > 1 ? h : 1;
    }
    const float bin_h = h / static_cast<float>(a.out_h), bin_w = w / static_cast<float>(a.out_w);
    const int grid_h = a.ratio > 0 ? a.ratio : static_cast<int>(ceilf(bin_h));
    const int grid_w = a.ratio > 0 ? a.ratio : static_cast<int>(ceilf(bin_w));
    const T *plane = x + (static_cast<size_t>(image) * a.channels + c) * a.height * a.width;
    const float count =
        grid_h > 0 && grid_w > 0
            ? static_cast<float>(static_cast<int64_t>(grid_h) * static_cast<int64_t>(grid_w))
            : 1;
    for (int iy = 0; iy < grid_h; iy++) {
        int y0 = 0, y1 = 0;
        float fy = 0;
        const bool y_in = roi_axis(roi_at(roi[1], ph, bin_h, iy, grid_h), a.height, &y0, &y1, &fy);
        const T *upper = plane + static_cast<size_t>(y0) * a.width;
        const T *lower = plane + static_cast<size_t>(y1) * a.width;

        for (int ix = 0; ix < grid_w; ix++) {
            int x0 = 0, x1 = 0;
            float fx = 0, v[4] = {0, 0, 0, 0};

            if (roi_axis(roi_at(roi[0], pw, bin_w, ix, grid_w), a.width, &x0, &x1, &fx) && y_in) {
                v[0] = (1 - fy) * (1 - fx) * trm_f32(upper[x0]);
                v[1] = (1 - fy) * fx * trm_f32(upper[x1]);
                v[2] = fy * (1 - fx) * trm_f32(lower[x0]);
                v[3] = fy * fx * trm_f32(lower[x1]);
            }
            sum += v[0] + v[1] + v[2] + v[3];
            /* "max" is of the weighted corners, as ONNX defines it */
            for (int k = 0; k < 4; k++) {
                best = first || v[k] > best ? v[k] : best;
                first = false;
            }
        }
    }
    y[t] = trm_from_f32<T>(a.average ? sum / count : best);
}

trm_status trmi_cuda_roi_align_launch(const trmi_roi_align *a, const void *x, const void *rois,
                                      const void *batch, void *y, cudaStream_t stream)
{
    const size_t total = a->regions * a->channels * static_cast<size_t>(a->out_h) *
                         static_cast<size_t>(a->out_w);

    if (total == 0 || a->height == 0 || a->width == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%zu regions", a->regions);
    TRM_FLOATS(a->dtype, T, {
        return trmi_launched(TRM_LAUNCH(roi_align<T>, trm_blocks(total, 256), 256, 0, stream,
                                        static_cast<const T *>(x), rois, batch, static_cast<T *>(y),
                                        *a, total),
                             "roi_align");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "regions of %s", trm_dtype_name(a->dtype));
}

/* ---- Col2Im ---- */

template <class T>
__global__ void __launch_bounds__(256)
col2im(const T *__restrict__ x, T *__restrict__ y, trmi_col2im p, size_t total)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t plane = t / p.pixels;
    int at[TRM_RANK_MAX];
    float sum = 0;

    TRM_KERNEL_BEGIN();
    if (t >= total)
        return;
    uint32_t rest = static_cast<uint32_t>(t % p.pixels);
    for (int d = p.spatial - 1; d >= 0; d--) {
        at[d] = static_cast<int>(rest % p.image[d]) + p.pad[d];
        rest /= p.image[d];
    }
    const T *columns = x + plane * p.block * p.positions;
    for (uint32_t b = 0; b < p.block; b++) {
        uint32_t rest_b = b;
        size_t position = 0, step = 1;
        bool inside = true;

        for (int d = p.spatial - 1; d >= 0 && inside; d--) {
            const int64_t from =
                at[d] - static_cast<int64_t>(rest_b % p.kernel[d]) * p.dilation[d];

            rest_b /= p.kernel[d];
            inside = from >= 0 && from % p.stride[d] == 0 && from / p.stride[d] < p.steps[d];
            position += inside ? static_cast<size_t>(from / p.stride[d]) * step : 0;
            step *= p.steps[d];
        }
        if (inside)
            sum += trm_f32(columns[b * p.positions + position]);
    }
    y[t] = trm_from_f32<T>(sum);
}

trm_status trmi_cuda_col2im_launch(const trmi_col2im *c, const void *x, void *y,
                                   cudaStream_t stream)
{
    const size_t total = c->planes * c->pixels;

    if (total == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff || c->pixels >= 0x7fffffff || c->block >= 0x7fffffff)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%zu pixels from columns", total);
    TRM_FLOATS(c->dtype, T, {
        return trmi_launched(TRM_LAUNCH(col2im<T>, trm_blocks(total, 256), 256, 0, stream,
                                        static_cast<const T *>(x), static_cast<T *>(y), *c, total),
                             "col2im");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "pixels of %s", trm_dtype_name(c->dtype));
}
