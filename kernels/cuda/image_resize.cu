/* Resize by tables. Nearest: a thread writes one unit: a vector of what lies behind the last
 * resized axis (CHANNELS_LAST), or a vector of neighbours along it. Weighted with few taps: one
 * kernel for both axes, the last axis first, as the CPU's passes, so that results agree to the bit;
 * a thread keeps its taps for several planes (PLAIN) or takes a vector of channels. Anything else:
 * one pass an axis in fp32. */
#include "kernels/cuda/image_common.cuh"

#include "kernels/cuda/image.h"

#define RESIZE_PLANES 4 /* planes of a thread */

/* ---- nearest ---- */

struct nearest_dim {
    trm_split out; /* splits output indices; the last dim counts units */
    uint32_t in;
    const int32_t *index; /* NULL: not resized */
    const unsigned char *outside;
};

struct nearest_params {
    int rank;
    uint32_t units; /* of the output */
    nearest_dim dim[TRM_RANK_MAX];
};

/* V: unit of the innermost dim, which is not resized. */
template <class V>
__global__ void __launch_bounds__(256)
resize_nearest_units(const V *__restrict__ x, V *__restrict__ out, V fill, nearest_params p)
{
    const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t rest = t;
    size_t at = 0, step = 1;
    bool outside = false;

    TRM_KERNEL_BEGIN();
    if (t >= p.units)
        return;
    for (int d = p.rank - 1; d >= 0; d--) {
        const nearest_dim &dim = p.dim[d];
        uint32_t i = trm_split_off(rest, dim.out);

        if (dim.index != nullptr) {
            outside = outside || (dim.outside != nullptr && dim.outside[i] != 0);
            i = static_cast<uint32_t>(dim.index[i]);
        }
        at += i * step;
        step *= dim.in;
    }
    out[t] = outside ? fill : x[at];
}

template <class E, int kVec> struct alignas(kVec * sizeof(E)) resize_vector {
    E v[kVec];
};

/* kVec neighbours along the last dim, which is resized and a multiple of kVec. */
template <class E, int kVec>
__global__ void __launch_bounds__(256)
resize_nearest_rows(const E *__restrict__ x, E *__restrict__ out, E fill, nearest_params p)
{
    const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
    const nearest_dim &last = p.dim[p.rank - 1];
    uint32_t rest = t;
    size_t at = 0, step;
    bool outside = false;
    resize_vector<E, kVec> y;

    TRM_KERNEL_BEGIN();
    if (t >= p.units)
        return;
    const uint32_t j = trm_split_off(rest, last.out) * kVec;
    step = last.in;
    for (int d = p.rank - 2; d >= 0; d--) {
        const nearest_dim &dim = p.dim[d];
        uint32_t i = trm_split_off(rest, dim.out);

        if (dim.index != nullptr) {
            outside = outside || (dim.outside != nullptr && dim.outside[i] != 0);
            i = static_cast<uint32_t>(dim.index[i]);
        }
        at += i * step;
        step *= dim.in;
    }
#pragma unroll
    for (int k = 0; k < kVec; k++) {
        const bool out_here = outside || (last.outside != nullptr && last.outside[j + k] != 0);

        y.v[k] = out_here ? fill : x[at + static_cast<uint32_t>(last.index[j + k])];
    }
    reinterpret_cast<resize_vector<E, kVec> *>(out)[t] = y;
}

/* ---- weighted, one or two neighbouring axes ---- */

struct fused_axis {
    int32_t in, out, taps;
    const int32_t *index;
    const float *weight;
    const unsigned char *outside;
};

struct fused_params {
    fused_axis h, w; /* one axis: h has in = out = taps = 1 and no tables */
    uint32_t planes, inner;
    float extrapolation;
    trm_split split_x, split_y, split_c;
};

__device__ __forceinline__ bool resize_is_outside(const fused_params &p, uint32_t y, uint32_t x)
{
    return (p.h.outside != nullptr && p.h.outside[y] != 0) ||
           (p.w.outside != nullptr && p.w.outside[x] != 0);
}

/* As the CPU's pass does: products and sums rounded one by one. */
__device__ __forceinline__ float resize_add(float sum, float x, float w)
{
    return __fadd_rn(sum, __fmul_rn(x, w));
}

/* inner == 1. kTaps: both axes have so many, or 0: as the tables say. */
template <class T, int kTaps>
__global__ void __launch_bounds__(256)
resize_planes(const T *__restrict__ x, T *__restrict__ out, fused_params p)
{
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t pixels = static_cast<uint32_t>(p.h.out) * p.w.out;
    const int taps_h = kTaps > 0 ? kTaps : p.h.taps, taps_w = kTaps > 0 ? kTaps : p.w.taps;
    const size_t in_plane = static_cast<size_t>(p.h.in) * p.w.in;

    TRM_KERNEL_BEGIN();
    if (at >= pixels)
        return;
    uint32_t row = at;
    const uint32_t column = trm_split_off(row, p.split_x);
    const bool outside = resize_is_outside(p, row, column);
    const uint32_t end = min(p.planes, (blockIdx.y + 1) * RESIZE_PLANES);
    for (uint32_t plane = blockIdx.y * RESIZE_PLANES; plane < end; plane++) {
        const T *from = x + plane * in_plane;
        float sum = 0;

#pragma unroll
        for (int a = 0; a < taps_h; a++) {
            const size_t i = p.h.index == nullptr ? 0 : p.h.index[row * taps_h + a];
            const T *line = from + i * p.w.in;
            float part = 0;

#pragma unroll
            for (int b = 0; b < taps_w; b++)
                part = resize_add(part, trm_f32(line[p.w.index[column * taps_w + b]]),
                                  p.w.weight[column * taps_w + b]);
            sum = p.h.weight == nullptr ? part
                                        : resize_add(sum, part, p.h.weight[row * taps_h + a]);
        }
        out[static_cast<size_t>(plane) * pixels + at] =
            trm_from_f32<T>(outside ? p.extrapolation : sum);
    }
}

/* kVec elements of what lies behind the axes; t counts (plane, y, x, vector). */
template <class T, int kVec>
__global__ void __launch_bounds__(256)
resize_channels(const T *__restrict__ x, T *__restrict__ out, fused_params p, uint32_t units)
{
    using vector = resize_vector<T, kVec>;
    const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t plane = t;
    float sum[kVec];
    vector y;

    TRM_KERNEL_BEGIN();
    if (t >= units)
        return;
    const uint32_t c = trm_split_off(plane, p.split_c);
    const uint32_t column = trm_split_off(plane, p.split_x);
    const uint32_t row = trm_split_off(plane, p.split_y);
    const vector *from = reinterpret_cast<const vector *>(x) +
                         static_cast<size_t>(plane) * p.h.in * p.w.in * p.split_c.divisor + c;
#pragma unroll
    for (int k = 0; k < kVec; k++)
        sum[k] = 0;
    for (int a = 0; a < p.h.taps; a++) {
        const size_t i = p.h.index == nullptr ? 0 : p.h.index[row * p.h.taps + a];
        float part[kVec];

#pragma unroll
        for (int k = 0; k < kVec; k++)
            part[k] = 0;
        for (int b = 0; b < p.w.taps; b++) {
            const size_t j = p.w.index[column * p.w.taps + b];
            const float w = p.w.weight[column * p.w.taps + b];
            const vector v = from[(i * p.w.in + j) * p.split_c.divisor];

#pragma unroll
            for (int k = 0; k < kVec; k++)
                part[k] = resize_add(part[k], trm_f32(v.v[k]), w);
        }
#pragma unroll
        for (int k = 0; k < kVec; k++)
            sum[k] = p.h.weight == nullptr
                         ? part[k]
                         : resize_add(sum[k], part[k], p.h.weight[row * p.h.taps + a]);
    }
    const bool outside = resize_is_outside(p, row, column);
#pragma unroll
    for (int k = 0; k < kVec; k++)
        y.v[k] = trm_from_f32<T>(outside ? p.extrapolation : sum[k]);
    reinterpret_cast<vector *>(out)[t] = y;
}

/* ---- one axis at a time ---- */

__global__ void __launch_bounds__(256)
resize_pass(const float *__restrict__ x, float *__restrict__ out, trmi_resize_axis a, size_t inner,
            size_t total, float extrapolation)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;

    TRM_KERNEL_BEGIN();
    for (size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < total;
         t += stride) {
        const size_t i = t % inner, row = t / inner, j = row % a.out;
        const float *from = x + row / a.out * a.in * inner + i;
        const int32_t *index = a.index + j * a.taps;
        const float *weight = a.weight + j * a.taps;
        float sum = 0;

        for (int k = 0; k < a.taps; k++)
            sum = resize_add(sum, from[index[k] * inner], weight[k]);
        out[t] = a.outside != nullptr && a.outside[j] != 0 ? extrapolation : sum;
    }
}

template <class T>
__global__ void __launch_bounds__(256)
resize_widen(const T *__restrict__ x, float *__restrict__ out, size_t total)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;

    TRM_KERNEL_BEGIN();
    for (size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < total;
         t += stride)
        out[t] = static_cast<float>(x[t]);
}

/* Integers truncate and saturate. high: the dtype's largest value as a double that it does not
 * exceed. */
template <class T>
__global__ void __launch_bounds__(256)
resize_narrow(const float *__restrict__ x, T *__restrict__ out, size_t total, double low,
              double high)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;

    TRM_KERNEL_BEGIN();
    for (size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < total;
         t += stride) {
        const double v = static_cast<double>(x[t]);

        out[t] = static_cast<T>(v < low ? low : v > high ? high : v);
    }
}

/* ---- launchers ---- */

static trm_status resize_too_large(size_t units)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "resize to %zu elements", units);
}

/* Raw bits of an element, repeated over V. */
template <class V> static V resize_fill(uint64_t bits, size_t elem_bytes)
{
    unsigned char bytes[sizeof(V)];
    V v;

    for (size_t i = 0; i < sizeof(V); i++)
        bytes[i] = static_cast<unsigned char>(bits >> (8 * (i % elem_bytes)));
    __builtin_memcpy(&v, bytes, sizeof(V));
    return v;
}

template <class V>
static trm_status nearest_units(const nearest_params &p, const trmi_resize_plan *plan,
                                const void *x, void *out, cudaStream_t stream)
{
    return trmi_launched(
        TRM_LAUNCH(resize_nearest_units<V>, trm_blocks(p.units, 256), 256, 0, stream,
                   static_cast<const V *>(x), static_cast<V *>(out),
                   resize_fill<V>(plan->extrapolation_bits, trm_dtype_bytes(plan->dtype)), p),
        "resize_nearest_units");
}

template <class E, int kVec>
static trm_status nearest_rows(const nearest_params &p, const trmi_resize_plan *plan, const void *x,
                               void *out, cudaStream_t stream)
{
    return trmi_launched(
        TRM_LAUNCH((resize_nearest_rows<E, kVec>), trm_blocks(p.units, 256), 256, 0, stream,
                   static_cast<const E *>(x), static_cast<E *>(out),
                   resize_fill<E>(plan->extrapolation_bits, sizeof(E)), p),
        "resize_nearest_rows");
}

trm_status trmi_cuda_resize_nearest_launch(const trmi_resize_plan *plan, const void *x, void *out,
                                           cudaStream_t stream)
{
    const size_t elem = trm_dtype_bytes(plan->dtype);
    const trmi_resize_axis *last = &plan->axis[plan->rank - 1];
    const size_t last_bytes = static_cast<size_t>(last->out) * elem;
    const bool rows = last->resized && last_bytes % 16 == 0;
    size_t unit = elem, units;
    nearest_params p = {};

    if (plan->out_elems == 0)
        return TRM_OK;
    if (rows)
        unit = 16;
    for (size_t wide = 16; !last->resized && wide > unit; wide /= 2)
        if (last_bytes % wide == 0)
            unit = wide;
    units = plan->out_elems * elem / unit;
    if (units >= static_cast<size_t>(1) << 31)
        return resize_too_large(plan->out_elems);
    p.rank = plan->rank;
    p.units = static_cast<uint32_t>(units);
    for (int d = 0; d < plan->rank; d++) {
        const trmi_resize_axis *a = &plan->axis[d];
        const size_t shrink = d == plan->rank - 1 ? unit / elem : 1;

        p.dim[d].out = trm_split_of(static_cast<uint32_t>(a->out / shrink));
        p.dim[d].in = static_cast<uint32_t>(a->resized ? a->in : a->in / shrink);
        p.dim[d].index = a->index;
        p.dim[d].outside = a->outside;
    }
    if (rows) {
        switch (elem) {
        case 1:
            return nearest_rows<uint8_t, 16>(p, plan, x, out, stream);
        case 2:
            return nearest_rows<uint16_t, 8>(p, plan, x, out, stream);
        case 4:
            return nearest_rows<uint32_t, 4>(p, plan, x, out, stream);
        default:
            return nearest_rows<uint64_t, 2>(p, plan, x, out, stream);
        }
    }
    switch (unit) {
    case 1:
        return nearest_units<uint8_t>(p, plan, x, out, stream);
    case 2:
        return nearest_units<uint16_t>(p, plan, x, out, stream);
    case 4:
        return nearest_units<uint32_t>(p, plan, x, out, stream);
    case 8:
        return nearest_units<uint2>(p, plan, x, out, stream);
    default:
        return nearest_units<uint4>(p, plan, x, out, stream);
    }
}

/* First and last resized dim; false where there are none. */
static bool resized_range(const trmi_resize_plan *p, int *first, int *last)
{
    *first = -1;
    for (int d = 0; d < p->rank; d++) {
        if (!p->axis[d].resized)
            continue;
        if (*first < 0)
            *first = d;
        *last = d;
    }
    return *first >= 0;
}

bool trmi_cuda_resize_is_fused(const trmi_resize_plan *p)
{
    int first, last = 0;
    size_t units = p->out_elems;
    int64_t taps;

    if (p->dtype != TRM_DTYPE_F32 && p->dtype != TRM_DTYPE_F16 && p->dtype != TRM_DTYPE_BF16)
        return false;
    if (!resized_range(p, &first, &last) || last - first > 1 || units >= (size_t)1 << 31)
        return false;
    taps = p->axis[first].taps;
    if (last > first)
        taps *= p->axis[last].taps;
    return taps <= 16;
}

static fused_axis fused_axis_of(const trmi_resize_axis *a)
{
    fused_axis f = {a->in, a->out, a->taps, a->index, a->weight, a->outside};

    return f;
}

template <class T>
static trm_status resize_fused(fused_params p, const T *x, T *out, cudaStream_t stream)
{
    constexpr int kVec = 16 / sizeof(T);
    const size_t pixels = static_cast<size_t>(p.h.out) * p.w.out;
    const size_t elems = pixels * p.planes * p.inner;

    if (p.inner == 1) {
        /* planes in y: at most 65535 groups a launch */
        for (uint32_t first = 0; first < p.planes; first += 65535 * RESIZE_PLANES) {
            fused_params part = p;
            const T *from = x + static_cast<size_t>(first) * p.h.in * p.w.in;
            T *to = out + first * pixels;
            const uint32_t left = p.planes - first;

            part.planes = left < 65535 * RESIZE_PLANES ? left : 65535 * RESIZE_PLANES;
            const dim3 grid(trm_blocks(pixels, 256), trm_blocks(part.planes, RESIZE_PLANES));
            TRM_CHECK(trmi_launched(
                p.h.taps == 2 && p.w.taps == 2
                    ? TRM_LAUNCH((resize_planes<T, 2>), grid, 256, 0, stream, from, to, part)
                    : TRM_LAUNCH((resize_planes<T, 0>), grid, 256, 0, stream, from, to, part),
                "resize_planes"));
        }
        return TRM_OK;
    }
    if (p.inner % kVec == 0) {
        const uint32_t units = static_cast<uint32_t>(elems / kVec);

        p.split_c = trm_split_of(p.inner / kVec);
        return trmi_launched(TRM_LAUNCH((resize_channels<T, kVec>), trm_blocks(units, 256), 256, 0,
                                        stream, x, out, p, units),
                             "resize_channels");
    }
    p.split_c = trm_split_of(p.inner);
    return trmi_launched(TRM_LAUNCH((resize_channels<T, 1>), trm_blocks(elems, 256), 256, 0, stream,
                                    x, out, p, static_cast<uint32_t>(elems)),
                         "resize_channels");
}

trm_status trmi_cuda_resize_fused_launch(const trmi_resize_plan *plan, const void *x, void *out,
                                         cudaStream_t stream)
{
    fused_params p = {};
    int first, last = 0;

    if (plan->out_elems == 0)
        return TRM_OK;
    if (!trmi_cuda_resize_is_fused(plan) || !resized_range(plan, &first, &last))
        return resize_too_large(plan->out_elems);
    p.w = fused_axis_of(&plan->axis[last]);
    p.h.in = p.h.out = p.h.taps = 1;
    if (last > first)
        p.h = fused_axis_of(&plan->axis[first]);
    p.planes = p.inner = 1;
    for (int d = 0; d < first; d++)
        p.planes *= static_cast<uint32_t>(plan->axis[d].in);
    for (int d = last + 1; d < plan->rank; d++)
        p.inner *= static_cast<uint32_t>(plan->axis[d].in);
    p.extrapolation = plan->extrapolation;
    p.split_x = trm_split_of(static_cast<uint32_t>(p.w.out));
    p.split_y = trm_split_of(static_cast<uint32_t>(p.h.out));
    TRM_HALVES(plan->dtype, T, {
        return resize_fused<T>(p, static_cast<const T *>(x), static_cast<T *>(out), stream);
    })
    return trm_fail(TRM_ERR_INTERNAL, "resize of %s", trm_dtype_name(plan->dtype));
}

static unsigned resize_grid(size_t elems)
{
    const size_t blocks = (elems + 255) / 256;

    return static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
}

static trm_status resize_widen_launch(trm_dtype dtype, const void *x, float *out, size_t elems,
                                      cudaStream_t stream)
{
#define WIDEN(T)                                                                                   \
    return trmi_launched(TRM_LAUNCH(resize_widen<T>, resize_grid(elems), 256, 0, stream,           \
                                    static_cast<const T *>(x), out, elems),                        \
                         "resize_widen");
    TRM_FLOATS(dtype, T, { WIDEN(T) })
    TRM_INTS(dtype, T, { WIDEN(T) })
#undef WIDEN
    return trm_fail(TRM_ERR_UNSUPPORTED, "resize of %s", trm_dtype_name(dtype));
}

static trm_status resize_narrow_launch(trm_dtype dtype, const float *x, void *out, size_t elems,
                                       cudaStream_t stream)
{
    const int bits = static_cast<int>(8 * trm_dtype_bytes(dtype));
    const bool is_signed = trm_dtype_is_signed_int(dtype);
    double low = -INFINITY, high = INFINITY;

    if (!trm_dtype_is_float(dtype)) {
        /* of 64 bits: the largest double below, since 2^63 and 2^64 - 1 do not convert */
        high = bits == 64 ? (is_signed ? 0x1.fffffffffffffp62 : 0x1.fffffffffffffp63)
                          : static_cast<double>((UINT64_C(1) << (bits - is_signed)) - 1);
        low = is_signed ? -static_cast<double>(UINT64_C(1) << (bits - 1)) : 0;
    }
#define NARROW(T)                                                                                  \
    return trmi_launched(TRM_LAUNCH(resize_narrow<T>, resize_grid(elems), 256, 0, stream, x,       \
                                    static_cast<T *>(out), elems, low, high),                      \
                         "resize_narrow");
    TRM_FLOATS(dtype, T, { NARROW(T) })
    TRM_INTS(dtype, T, { NARROW(T) })
#undef NARROW
    return trm_fail(TRM_ERR_UNSUPPORTED, "resize of %s", trm_dtype_name(dtype));
}

trm_status trmi_cuda_resize_passes_launch(const trmi_resize_plan *p, const void *x, void *out,
                                          float *workspace, cudaStream_t stream)
{
    const bool convert = p->dtype != TRM_DTYPE_F32;
    float *spare[2] = {workspace, workspace + p->scratch_elems};
    const float *from = static_cast<const float *>(x);
    size_t inner = 1, elems = p->in_elems;
    int passes = 0, done = 0;

    if (p->out_elems == 0)
        return TRM_OK;
    for (int d = 0; d < p->rank; d++)
        passes += p->axis[d].resized;
    if (convert) {
        float *copy = workspace + 2 * p->scratch_elems;

        TRM_CHECK(resize_widen_launch(p->dtype, x, copy, elems, stream));
        from = copy;
    }
    for (int d = p->rank - 1; d >= 0; d--) {
        const trmi_resize_axis *a = &p->axis[d];
        float *to;

        if (a->resized) {
            to = ++done == passes && !convert ? static_cast<float *>(out) : spare[done & 1];
            elems = elems / a->in * a->out;
            TRM_CHECK(trmi_launched(TRM_LAUNCH(resize_pass, resize_grid(elems), 256, 0, stream,
                                               from, to, *a, inner, elems, p->extrapolation),
                                    "resize_pass"));
            from = to;
        }
        inner *= a->out;
    }
    return convert ? resize_narrow_launch(p->dtype, from, out, p->out_elems, stream) : TRM_OK;
}
