/* Normalisation of rows that are long, or spread over an image whose channels lie innermost
 * (norm.h): moments of pieces, their merge, and a pass that applies them.
 *
 * Workspace: moments of pieces (W: f32, or f64 for f64)
 *   rows of one piece: [rows, splits]; channels last: [images, splits, channels]
 * then mean and inverse, [rows, 2]. */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/norm.h"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256, kPerThread = 32;

/* Count, mean, sum of squared deviations. */
template <class W> struct Moments {
    W n, mean, squares;
};
template <class W>
__device__ __forceinline__ void merge(Moments<W> &a, const Moments<W> &b)
{
    if (b.n == 0)
        return;
    const W n = a.n + b.n, d = b.mean - a.mean, part = b.n / n;

    a.mean += d * part;
    a.squares += b.squares + d * d * a.n * part;
    a.n = n;
}

struct Params {
    uint32_t rows, n;                /* rows of one piece; channels last: images, their elements */
    uint32_t channels, row_channels; /* of an image, of a row */
    Div channel_div, row_div, groups, spatial; /* by channels, row_channels, groups, spatial */
    uint32_t positions;                        /* spatial */
    bool centre, channel_gain, per_group, gain_f32, packs;
    uint32_t splits, part; /* pieces of a row, and their length: elements, or positions */
    uint32_t chunks;       /* blocks of the last pass over a row */
    uint32_t x;            /* channels last: threads side by side on channels */
    double epsilon;
    int mean_type, inverse_type;
};

/* Moments of piece blockIdx.y of row blockIdx.x. Without a mean (RMS) deviations are from 0. */
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    moments_of_rows(Params p, const T *__restrict__ x,
                    Moments<typename Work<T>::type> *__restrict__ out)
{
    using W = typename Work<T>::type;
    __shared__ W scratch[32];
    const T *row = x + static_cast<size_t>(blockIdx.x) * p.n;
    const uint32_t begin = blockIdx.y * p.part;
    const uint32_t end = begin + p.part < p.n ? begin + p.part : p.n;
    Moments<W> all = {0, 0, 0};

    TRM_KERNEL_BEGIN();
    for (uint32_t at = begin; at < end; at += kThreads * kPerThread) {
        const uint32_t n = end - at < kThreads * kPerThread ? end - at : kThreads * kPerThread;
        W v[kPerThread];
        Moments<W> m = {static_cast<W>(n), 0, 0};

        load_row<T, V>(row + at, n, threadIdx.x, kThreads, static_cast<W>(0), v);
        if (p.centre) {
#pragma unroll
            for (int i = 0; i < kPerThread; i++)
                m.mean += v[i];
            m.mean = block_fold(Sum(), m.mean, scratch) / m.n;
        }
#pragma unroll
        for (int c = 0; c < kPerThread / V; c++) {
            if ((static_cast<uint32_t>(c) * kThreads + threadIdx.x) * V < n) {
#pragma unroll
                for (int j = 0; j < V; j++)
                    m.squares += (v[c * V + j] - m.mean) * (v[c * V + j] - m.mean);
            }
        }
        m.squares = block_fold(Sum(), m.squares, scratch);
        merge(all, m);
    }
    if (threadIdx.x == 0)
        out[static_cast<size_t>(blockIdx.x) * p.splits + blockIdx.y] = all;
}

/* Channels last: moments of each channel over the positions of piece blockIdx.z of image
 * blockIdx.y; x threads of V channels each, the others share the positions. */
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    moments_of_channels(Params p, const T *__restrict__ in,
                        Moments<typename Work<T>::type> *__restrict__ out)
{
    using W = typename Work<T>::type;
    constexpr int kRows = 32 / V > 8 ? 8 : 32 / V; /* positions in registers */
    __shared__ Moments<W> shared[V * kThreads];
    const uint32_t tx = threadIdx.x % p.x, ty = threadIdx.x / p.x, y = kThreads / p.x;
    const uint32_t channel = (blockIdx.x * p.x + tx) * V, begin = blockIdx.z * p.part;
    const uint32_t end = channel >= p.channels               ? 0
                         : begin + p.part < p.positions ? begin + p.part
                                                        : p.positions;
    const T *image = in + static_cast<size_t>(blockIdx.y) * p.n + channel;
    Moments<W> all[V];

    TRM_KERNEL_BEGIN();
#pragma unroll
    for (int j = 0; j < V; j++)
        all[j] = Moments<W>{0, 0, 0};
    for (uint32_t s = begin + ty; s < end; s += kRows * y) {
        W v[kRows][V];
        uint32_t n = 0;

#pragma unroll
        for (int r = 0; r < kRows; r++) {
            const uint32_t at = s + static_cast<uint32_t>(r) * y;

#pragma unroll
            for (int j = 0; j < V; j++)
                v[r][j] = 0;
            if (at < end) {
                load_values<V>(image + static_cast<size_t>(at) * p.channels, v[r]);
                n++;
            }
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            Moments<W> m = {static_cast<W>(n), 0, 0};

#pragma unroll
            for (int r = 0; r < kRows; r++)
                m.mean += v[r][j];
            m.mean /= m.n;
#pragma unroll
            for (int r = 0; r < kRows; r++)
                if (static_cast<uint32_t>(r) < n)
                    m.squares += (v[r][j] - m.mean) * (v[r][j] - m.mean);
            merge(all[j], m);
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++)
        shared[j * kThreads + threadIdx.x] = all[j];
    for (uint32_t h = y / 2; h > 0; h /= 2) {
        __syncthreads();
        if (ty < h) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                merge(all[j], shared[j * kThreads + threadIdx.x + h * p.x]);
                shared[j * kThreads + threadIdx.x] = all[j];
            }
        }
    }
    if (ty != 0 || channel >= p.channels)
        return;
#pragma unroll
    for (int j = 0; j < V; j++)
        out[(static_cast<size_t>(blockIdx.y) * p.splits + blockIdx.z) * p.channels + channel + j] =
            all[j];
}

/* Mean and inverse deviation of each row from its pieces: a warp a row. */
template <class W>
__global__ void __launch_bounds__(kThreads)
    merge_moments(Params p, uint32_t rows, bool channels_last,
                  const Moments<W> *__restrict__ pieces, W *__restrict__ stats, void *mean_out,
                  void *inverse_out)
{
    const uint32_t row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t image = quotient(p.groups, row), group = row - image * p.groups.d;
    const uint32_t count = channels_last ? p.splits * p.row_channels : p.splits;
    Moments<W> m = {0, 0, 0};

    TRM_KERNEL_BEGIN();
    if (row >= rows) /* whole warps */
        return;
    for (uint32_t i = lane; i < count; i += 32) {
        size_t at = static_cast<size_t>(row) * p.splits + i;

        if (channels_last) {
            const uint32_t split = quotient(p.row_div, i), c = i - split * p.row_channels;

            at = (static_cast<size_t>(image) * p.splits + split) * p.channels +
                 group * p.row_channels + c;
        }
        merge(m, pieces[at]);
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        merge(m, Moments<W>{__shfl_xor_sync(kAll, m.n, d), __shfl_xor_sync(kAll, m.mean, d),
                            __shfl_xor_sync(kAll, m.squares, d)});
    if (lane == 0) {
        const W inverse = 1 / sqrt_of(m.squares / m.n + static_cast<W>(p.epsilon));

        stats[2 * static_cast<size_t>(row)] = m.mean;
        stats[2 * static_cast<size_t>(row) + 1] = inverse;
        if (mean_out != nullptr)
            put_float(mean_out, p.mean_type, row, m.mean);
        if (inverse_out != nullptr)
            put_float(inverse_out, p.inverse_type, row, inverse);
    }
}

template <class T, class W>
__device__ __forceinline__ W value_at(const Params &p, const void *values, uint32_t i)
{
    return p.gain_f32 ? static_cast<W>(static_cast<const float *>(values)[i])
                      : static_cast<W>(trm_up(static_cast<const T *>(values)[i]));
}

/* Piece blockIdx.x % chunks of row (channels last: image) blockIdx.x / chunks. */
template <class T, int V, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads)
    apply_moments(Params p, const T *x, const typename Work<T>::type *__restrict__ stats,
                  const void *__restrict__ gain, const void *__restrict__ bias, T *y)
{
    using W = typename Work<T>::type;
    const uint32_t row = blockIdx.x / p.chunks, chunk = blockIdx.x - row * p.chunks;
    const uint32_t group = row - quotient(p.groups, row) * p.groups.d; /* not channels last */
    const uint32_t units = p.n / V;
    const size_t base = static_cast<size_t>(row) * p.n;

    TRM_KERNEL_BEGIN();
#pragma unroll 2
    for (uint32_t u = chunk * kThreads + threadIdx.x; u < units; u += p.chunks * kThreads) {
        const uint32_t e = u * V;
        Pack<T, V> v = *reinterpret_cast<const Pack<T, V> *>(x + base + e);

#pragma unroll
        for (int j = 0; j < V; j++) {
            uint32_t stat = row, at = e + j; /* of the row's moments, of the gain */

            if (kChannelsLast) {
                const uint32_t c = at - quotient(p.channel_div, at) * p.channels;
                const uint32_t g = quotient(p.row_div, c);

                stat = row * p.groups.d + g;
                at = p.per_group ? g : c;
            } else if (p.channel_gain) {
                at = p.per_group ? group : group * p.row_channels + quotient(p.spatial, at);
            }
            const W mean = stats[2 * static_cast<size_t>(stat)];
            const W inverse = stats[2 * static_cast<size_t>(stat) + 1];
            const W g = gain != nullptr ? value_at<T, W>(p, gain, at) : 1;
            const W b = bias != nullptr ? value_at<T, W>(p, bias, at) : 0;

            v.v[j] = trm_down<T>((static_cast<W>(trm_up(v.v[j])) - mean) * inverse * g + b);
        }
        *reinterpret_cast<Pack<T, V> *>(y + base + e) = v;
    }
}

template <class T, int V>
trm_status run(const trmi_norm *norm, Params p, cudaStream_t stream, const trmi_norm_args *a,
               void *workspace)
{
    using W = typename Work<T>::type;
    const T *x = static_cast<const T *>(a->x);
    const size_t pieces = norm->splits * (norm->channels_last ? p.rows * norm->channels : p.rows);
    Moments<W> *moments = static_cast<Moments<W> *>(workspace);
    W *stats = reinterpret_cast<W *>(moments + pieces);
    const uint32_t rows = static_cast<uint32_t>(norm->rows);
    uint64_t blocks;

    if (norm->channels_last) {
        const unsigned column_blocks = (p.channels / V + p.x - 1) / p.x;

        if (p.rows > 65535)
            return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %u images", p.rows);
        TRM_CHECK(trmi_launched(TRM_LAUNCH((moments_of_channels<T, V>),
                                           dim3(column_blocks, p.rows, p.splits), kThreads, 0,
                                           stream, p, x, moments),
                                "moments of channels"));
    } else {
        TRM_CHECK(trmi_launched(TRM_LAUNCH((moments_of_rows<T, V>), dim3(p.rows, p.splits),
                                           kThreads, 0, stream, p, x, moments),
                                "moments of rows"));
    }
    TRM_CHECK(trmi_launched(
        TRM_LAUNCH((merge_moments<W>), (rows + kThreads / 32 - 1) / (kThreads / 32), kThreads, 0,
                   stream, p, rows, norm->channels_last, static_cast<const Moments<W> *>(moments),
                   stats, a->mean, a->inverse),
        "merge of moments"));
    p.chunks = (p.n / V + 4 * kThreads - 1) / (4 * kThreads);
    blocks = static_cast<uint64_t>(p.rows) * p.chunks;
    if (blocks > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %u rows of %u", p.rows, p.n);
    if (norm->channels_last)
        return trmi_launched(TRM_LAUNCH((apply_moments<T, V, true>), static_cast<unsigned>(blocks),
                                        kThreads, 0, stream, p, x, static_cast<const W *>(stats),
                                        a->gain, a->bias, static_cast<T *>(a->y)),
                             "normalisation, channels last");
    return trmi_launched(TRM_LAUNCH((apply_moments<T, V, false>), static_cast<unsigned>(blocks),
                                    kThreads, 0, stream, p, x, static_cast<const W *>(stats),
                                    a->gain, a->bias, static_cast<T *>(a->y)),
                         "normalisation of long rows");
}

} // namespace

extern "C" trm_status trmi_cuda_norm_pieces(const trmi_norm *norm, cudaStream_t stream,
                                            const trmi_norm_args *a, void *workspace)
{
    Params p = {};

    if (norm->rows == 0 || norm->n == 0)
        return TRM_OK;
    p.rows = static_cast<uint32_t>(norm->channels_last ? norm->rows / norm->groups : norm->rows);
    p.n = static_cast<uint32_t>(norm->channels_last ? norm->channels * norm->spatial : norm->n);
    p.channels = static_cast<uint32_t>(norm->channels);
    p.row_channels = static_cast<uint32_t>(norm->groups > 0 ? norm->channels / norm->groups : 0);
    p.channel_div = div_of(norm->channels);
    p.row_div = div_of(p.row_channels);
    p.groups = div_of(norm->groups);
    p.spatial = div_of(norm->spatial);
    p.positions = static_cast<uint32_t>(norm->spatial);
    p.centre = norm->centre;
    p.channel_gain = norm->channels > 0;
    p.per_group = norm->per_group;
    p.gain_f32 = norm->gain_type == TRM_DTYPE_F32;
    p.epsilon = norm->epsilon;
    p.mean_type = norm->mean_type;
    p.inverse_type = norm->inverse_type;
    p.splits = static_cast<uint32_t>(norm->splits);
    const bool aligned = aligned16(a->x) && aligned16(a->y);

    TRM_FLOATS(norm->dtype, T, {
        constexpr unsigned kV = vector_of<T>();
        const bool packs =
            aligned && (norm->channels_last ? norm->channels : norm->n) % kV == 0;
        const uint32_t columns = packs ? p.channels / kV : p.channels;
        const uint32_t whole = norm->channels_last ? p.positions : p.n;

        for (p.x = 1; p.x < 32 && p.x < columns;)
            p.x *= 2;
        p.part = (whole + p.splits - 1) / p.splits;
        p.part = (p.part + kV - 1) / kV * kV; /* pieces start where loads may */
        return packs ? run<T, vector_of<T>()>(norm, p, stream, a, workspace)
                     : run<T, 1>(norm, p, stream, a, workspace);
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %s", trm_dtype_name(norm->dtype));
}
