/* Integer convolutions. A thread sums 4 output positions of one filter, 4 channels an instruction
 * (dp4a): neighbours have neighbouring filters, so that a warp reads a line of weights and one word
 * of x. With zero points, sum (x - a)(w - b) = sum xw - b sum x - a sum w + n a b over the taps
 * that lie inside x. */
#include "kernels/cuda/conv_vec.cuh"

#include "kernels/cuda/conv_integer.h"

#define THREADS 128
#define POSITIONS 4

/* A zero point as a signed byte. */
__device__ __forceinline__ int zero_point(const uint8_t *at, int i, bool is_unsigned)
{
    const unsigned raw = at == nullptr ? 0u : at[i];

    return (int)(int8_t)(is_unsigned ? raw ^ 0x80u : raw);
}

__device__ __forceinline__ void finish(const trmi_conv_finish &f, int sum, int m, size_t at,
                                       void *y)
{
    if (f.bias != nullptr)
        sum += f.bias[m];
    if (!f.linear) {
        static_cast<int32_t *>(y)[at] = sum;
        return;
    }
    const float scale = *f.x_scale * f.w_scale[f.w_scales == 1 ? 0 : m] / *f.y_scale;
    const unsigned raw = f.y_zero == nullptr ? 0u : *f.y_zero;
    const float zero = f.y_unsigned ? (float)raw : (float)(int8_t)raw;
    const float v = rintf((float)sum * scale) + zero;
    const float low = f.y_unsigned ? 0.0f : -128.0f, high = f.y_unsigned ? 255.0f : 127.0f;

    static_cast<uint8_t *>(y)[at] = (uint8_t)(int)(v < low ? low : v > high ? high : v);
}

/* Channels c... of a row of x, as signed bytes; those from `end` on are 0. */
template <bool kWords>
__device__ __forceinline__ int read_word(const uint8_t *row, int c, int end, bool is_unsigned)
{
    if (kWords)
        return (int)(*reinterpret_cast<const uint32_t *>(row + c) ^
                     (is_unsigned ? 0x80808080u : 0u));
    uint32_t word = 0;

    for (int j = 0; j < 4 && c + j < end; j++)
        word |= (uint32_t)(uint8_t)(row[c + j] ^ (is_unsigned ? 0x80u : 0u)) << (8 * j);
    return (int)word;
}

template <bool kWords, bool kZeros>
__global__ void __launch_bounds__(THREADS)
    integer_kernel(const uint8_t *__restrict__ x, const int *__restrict__ w, void *__restrict__ y,
                   trmi_conv_integer conv, size_t positions, size_t count)
{
    TRM_KERNEL_BEGIN();
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const trmi_conv_shape &s = conv.shape;

    if (i >= count)
        return;
    const int m = (int)(i % (size_t)s.filters);
    const size_t first = i / (size_t)s.filters * POSITIONS;
    const int c_group = s.channels / s.group, from = m / (s.filters / s.group) * c_group;
    const bool x_unsigned = conv.finish.x_unsigned;
    int o[POSITIONS][3], sum[POSITIONS], x_sum[POSITIONS], w_sum[POSITIONS], taps[POSITIONS];
    size_t image[POSITIONS];
    const int *weight = w + m;

#pragma unroll
    for (int p = 0; p < POSITIONS; p++) {
        size_t rest = first + p < positions ? first + p : positions - 1;

#pragma unroll
        for (int d = 2; d >= 0; d--) {
            o[p][d] = (int)(rest % (size_t)s.out[d]);
            rest /= (size_t)s.out[d];
        }
        image[p] = rest * (size_t)s.in[0];
        sum[p] = x_sum[p] = w_sum[p] = taps[p] = 0;
    }
    for (int kd = 0; kd < s.kernel[0]; kd++)
        for (int kh = 0; kh < s.kernel[1]; kh++)
            for (int kw = 0; kw < s.kernel[2]; kw++) {
                const uint8_t *source[POSITIONS];

#pragma unroll
                for (int p = 0; p < POSITIONS; p++) {
                    const int a = conv_tap<false>(s, 0, o[p][0], kd);
                    const int b = conv_tap<false>(s, 1, o[p][1], kh);
                    const int c = conv_tap<false>(s, 2, o[p][2], kw);
                    const bool inside = a >= 0 && b >= 0 && c >= 0;
                    const size_t row =
                        ((image[p] + (size_t)a) * (size_t)s.in[1] + (size_t)b) * (size_t)s.in[2] +
                        (size_t)c;

                    source[p] = inside ? x + row * (size_t)s.channels + from : nullptr;
                    taps[p] += inside;
                }
                for (int word = 0; word < conv.words; word++) {
                    const int v = *weight;
                    const int all = kZeros ? __dp4a(v, 0x01010101, 0) : 0;

                    weight += s.filters;
#pragma unroll
                    for (int p = 0; p < POSITIONS; p++) {
                        if (source[p] == nullptr)
                            continue;
                        const int in = read_word<kWords>(source[p], word * 4, c_group, x_unsigned);

                        sum[p] = __dp4a(in, v, sum[p]);
                        if (kZeros) {
                            x_sum[p] = __dp4a(in, 0x01010101, x_sum[p]);
                            w_sum[p] += all;
                        }
                    }
                }
            }
    const int a = kZeros ? zero_point(conv.finish.x_zero, 0, x_unsigned) : 0;
    const int b = kZeros ? zero_point(conv.w_zero, conv.w_zeros == 1 ? 0 : m, conv.w_unsigned) : 0;

#pragma unroll
    for (int p = 0; p < POSITIONS; p++)
        if (first + p < positions)
            finish(conv.finish, sum[p] - b * x_sum[p] - a * w_sum[p] + taps[p] * c_group * a * b, m,
                   (first + p) * (size_t)s.filters + m, y);
}

template <bool kWords, bool kZeros>
static trm_status integer_launch(cudaStream_t stream, const trmi_conv_integer *c, const void *x,
                                 const void *w, void *y)
{
    const trmi_conv_shape *s = &c->shape;
    const size_t positions =
        (size_t)s->batch * (size_t)s->out[0] * (size_t)s->out[1] * (size_t)s->out[2];
    const size_t count = (positions + POSITIONS - 1) / POSITIONS * (size_t)s->filters;
    const size_t blocks = (count + THREADS - 1) / THREADS;

    if (count == 0)
        return TRM_OK;
    if (blocks >= (size_t)1 << 31)
        return trm_fail(TRM_ERR_UNSUPPORTED, "integer convolution of %zu outputs", count);
    return trmi_launched(TRM_LAUNCH((integer_kernel<kWords, kZeros>), (unsigned)blocks, THREADS, 0,
                                    stream, static_cast<const uint8_t *>(x),
                                    static_cast<const int *>(w), y, *c, positions, count),
                         "integer convolution");
}

extern "C" trm_status trmi_cuda_conv_integer(cudaStream_t stream, const trmi_conv_integer *c,
                                             const void *x, const void *w, void *y)
{
    const bool words = c->shape.channels / c->shape.group % 4 == 0;

    if (c->symmetric)
        return words ? integer_launch<true, false>(stream, c, x, w, y)
                     : integer_launch<false, false>(stream, c, x, w, y);
    return words ? integer_launch<true, true>(stream, c, x, w, y)
                 : integer_launch<false, true>(stream, c, x, w, y);
}

__global__ void __launch_bounds__(THREADS)
    finish_kernel(const int32_t *sums, const int32_t *__restrict__ w_sums, void *y,
                  trmi_conv_finish f, unsigned filters, unsigned count)
{
    TRM_KERNEL_BEGIN();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    const int m = (int)(i % filters);
    int sum = sums[i];

    if (w_sums != nullptr)
        sum -= zero_point(f.x_zero, 0, f.x_unsigned) * w_sums[m];
    finish(f, sum, m, i, y);
}

extern "C" trm_status trmi_cuda_conv_finish(cudaStream_t stream, const trmi_conv_finish *f,
                                            const int32_t *sums, const int32_t *w_sums, size_t rows,
                                            int filters, void *y)
{
    const size_t count = rows * (size_t)filters;

    if (count == 0)
        return TRM_OK;
    if (count >= (size_t)1 << 31)
        return trm_fail(TRM_ERR_UNSUPPORTED, "integer convolution of %zu outputs", count);
    return trmi_launched(TRM_LAUNCH(finish_kernel, (unsigned)((count + THREADS - 1) / THREADS),
                                    THREADS, 0, stream, sums, w_sums, y, *f, (unsigned)filters,
                                    (unsigned)count),
                         "end of an integer convolution");
}
