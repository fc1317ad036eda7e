/* Rows of one piece, up to TRMI_NORM_ROW_MAX long, normalised in one kernel (norm.h): a warp a row
 * up to 1024, a block beyond, or sooner where rows are few. */
#include "kernels/cuda/rows.cuh"

#include "kernels/cuda/norm.h"

using namespace trmi_rows;

namespace
{

constexpr int kWarps = 4; /* rows of a block, a warp each */

struct Params {
    uint32_t rows, n;
    bool centre, channel_gain, per_group, gain_f32;
    Div groups, spatial;    /* with a gain per channel */
    uint32_t row_channels;  /* channels of a row */
    double epsilon;
    int mean_type, inverse_type;
};

/* gain or bias for V elements of a row from `e` on */
template <class T, int V, class W>
__device__ __forceinline__ void affine_values(const Params &p, const void *values, uint32_t row,
                                              uint32_t e, W (&g)[V])
{
    if (p.channel_gain) {
        const uint32_t group = row - quotient(p.groups, row) * p.groups.d;
#pragma unroll
        for (int j = 0; j < V; j++) {
            const uint32_t c = p.per_group
                                   ? group
                                   : group * p.row_channels + quotient(p.spatial, e + j);

            g[j] = p.gain_f32 ? static_cast<W>(static_cast<const float *>(values)[c])
                              : static_cast<W>(trm_up(static_cast<const T *>(values)[c]));
        }
    } else if (p.gain_f32) {
        load_values<V>(static_cast<const float *>(values) + e, g);
    } else {
        load_values<V>(static_cast<const T *>(values) + e, g);
    }
}

template <class T, int V, int N, bool kBlock>
__global__ void __launch_bounds__(N == 8 ? 1024 : 256, N == 8 ? 1 : 2)
    norm_registers(Params p, const T *x, const T *residual, T *sum_out, const void *gain,
                   const void *bias, T *y, void *mean_out, void *inverse_out)
{
    using W = typename Work<T>::type;
    __shared__ W scratch[32];
    const uint32_t row = kBlock ? blockIdx.x : blockIdx.x * kWarps + threadIdx.x / 32;
    const uint32_t lane = kBlock ? threadIdx.x : threadIdx.x % 32, step = kBlock ? blockDim.x : 32;
    const size_t base = static_cast<size_t>(row) * p.n;
    W v[N], mean = 0, squares = 0;

    TRM_KERNEL_BEGIN();
    if (row >= p.rows) /* whole warps */
        return;
    load_row<T, V>(x + base, p.n, lane, step, static_cast<W>(0), v);
    if (residual != nullptr) {
        W r[N];

        load_row<T, V>(residual + base, p.n, lane, step, static_cast<W>(0), r);
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = trm_up(trm_down<T>(v[i] + r[i]));
        if (sum_out != nullptr)
            store_row<T, V>(sum_out + base, p.n, lane, step, v);
    }
    if (p.centre) {
#pragma unroll
        for (int i = 0; i < N; i++)
            mean += v[i];
        mean = (kBlock ? block_fold(Sum(), mean, scratch) : warp_fold(Sum(), mean)) /
               static_cast<W>(p.n);
    }
#pragma unroll
    for (int c = 0; c < N / V; c++) {
        if ((static_cast<uint32_t>(c) * step + lane) * V < p.n) {
#pragma unroll
            for (int j = 0; j < V; j++)
                squares += (v[c * V + j] - mean) * (v[c * V + j] - mean);
        }
    }
    squares = kBlock ? block_fold(Sum(), squares, scratch) : warp_fold(Sum(), squares);
    const W inverse =
        1 / sqrt_of(squares / static_cast<W>(p.n) + static_cast<W>(p.epsilon));

#pragma unroll
    for (int c = 0; c < N / V; c++) {
        const uint32_t e = (static_cast<uint32_t>(c) * step + lane) * V;

        if (e < p.n) {
            Pack<T, V> out;
            W g[V], b[V];

#pragma unroll
            for (int j = 0; j < V; j++) {
                g[j] = 1;
                b[j] = 0;
            }
            if (gain != nullptr)
                affine_values<T, V>(p, gain, row, e, g);
            if (bias != nullptr)
                affine_values<T, V>(p, bias, row, e, b);
#pragma unroll
            for (int j = 0; j < V; j++)
                out.v[j] = trm_down<T>((v[c * V + j] - mean) * inverse * g[j] + b[j]);
            *reinterpret_cast<Pack<T, V> *>(y + base + e) = out;
        }
    }
    if (lane == 0) {
        if (mean_out != nullptr)
            put_float(mean_out, p.mean_type, row, mean);
        if (inverse_out != nullptr)
            put_float(inverse_out, p.inverse_type, row, inverse);
    }
}

template <class T, int V, int N, bool kBlock>
trm_status launch(const Params &p, cudaStream_t stream, const trmi_norm_args *a)
{
    const unsigned blocks = kBlock ? p.rows : (p.rows + kWarps - 1) / kWarps;
    const unsigned threads = kBlock ? (p.n + 32 * N - 1) / (32 * N) * 32 : kWarps * 32;

    return trmi_launched(TRM_LAUNCH((norm_registers<T, V, N, kBlock>), blocks, threads, 0, stream,
                                    p, static_cast<const T *>(a->x),
                                    static_cast<const T *>(a->residual), static_cast<T *>(a->sum),
                                    a->gain, a->bias, static_cast<T *>(a->y), a->mean, a->inverse),
                         "normalisation of rows");
}

template <class T, int V>
trm_status run_rows(const trmi_norm *norm, const Params &p, cudaStream_t stream,
                    const trmi_norm_args *a)
{
    if (p.n >= 128 && p.rows < 8u * static_cast<unsigned>(norm->multiprocessors))
        return launch<T, V, 8, true>(p, stream, a);
    if (p.n <= 256)
        return launch<T, V, 8, false>(p, stream, a);
    if (p.n <= 1024)
        return launch<T, V, 32, false>(p, stream, a);
    return launch<T, V, 32, true>(p, stream, a);
}

} // namespace

extern "C" trm_status trmi_cuda_norm_rows(const trmi_norm *norm, cudaStream_t stream,
                                          const trmi_norm_args *a)
{
    Params p = {};

    if (norm->rows == 0 || norm->n == 0)
        return TRM_OK;
    p.rows = static_cast<uint32_t>(norm->rows);
    p.n = static_cast<uint32_t>(norm->n);
    p.centre = norm->centre;
    p.channel_gain = norm->channels > 0;
    p.per_group = norm->per_group;
    p.gain_f32 = norm->gain_type == TRM_DTYPE_F32;
    p.groups = div_of(norm->groups);
    p.spatial = div_of(norm->spatial);
    p.row_channels = static_cast<uint32_t>(norm->groups > 0 ? norm->channels / norm->groups : 0);
    p.epsilon = norm->epsilon;
    p.mean_type = norm->mean_type;
    p.inverse_type = norm->inverse_type;
    const bool aligned = aligned16(a->x) && aligned16(a->y) && aligned16(a->residual) &&
                         aligned16(a->sum) && aligned16(a->gain) && aligned16(a->bias);

    TRM_FLOATS(norm->dtype, T, {
        if (aligned && norm->n % vector_of<T>() == 0)
            return run_rows<T, vector_of<T>()>(norm, p, stream, a);
        return run_rows<T, 1>(norm, p, stream, a);
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "normalisation of %s", trm_dtype_name(norm->dtype));
}
