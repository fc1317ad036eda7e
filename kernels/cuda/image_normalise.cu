/* Pictures of 8-bit pixels to normalised floats. A thread takes four pixels: three words in, and
 * four values of each channel out, which lie together in either layout. */
#include "kernels/cuda/image_common.cuh"

#include "kernels/cuda/image.h"

struct normalise_params {
    size_t groups, pixels; /* groups of four pixels a picture: the last may have fewer */
    float mean[3], inv_std[3];
    bool swap_channels, last, words; /* words: whole groups are 4-byte aligned */
};

template <class T> struct alignas(4 * sizeof(T)) normalise_four {
    T v[4];
};

template <class T>
__global__ void __launch_bounds__(256)
image_normalise(const uint8_t *__restrict__ x, T *__restrict__ out, normalise_params p,
                size_t total)
{
    const size_t t = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t image = t / p.groups, first = t % p.groups * 4;
    union {
        uint32_t words[3];
        uint8_t bytes[12];
    } raw;
    T value[3][4];

    TRM_KERNEL_BEGIN();
    if (t >= total)
        return;
    const uint8_t *from = x + (image * p.pixels + first) * 3;
    const int count = static_cast<int>(min(p.pixels - first, (size_t)4));
    if (p.words && count == 4) {
        const uint32_t *words = reinterpret_cast<const uint32_t *>(from);

        for (int i = 0; i < 3; i++)
            raw.words[i] = words[i];
    } else {
        for (int i = 0; i < 12; i++)
            raw.bytes[i] = i < 3 * count ? from[i] : 0;
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
        for (int c = 0; c < 3; c++) {
            const uint8_t a = raw.bytes[3 * k + c], b = raw.bytes[3 * k + 2 - c];
            const float v = static_cast<float>(p.swap_channels ? b : a) / 255.0f;

            value[c][k] = trm_down<T>(__fmul_rn(v - p.mean[c], p.inv_std[c]));
        }
    }
    if (p.last) {
        T *to = out + (image * p.pixels + first) * 3;
        T line[12];

#pragma unroll
        for (int i = 0; i < 12; i++)
            line[i] = value[i % 3][i / 3];
        if (p.words && count == 4) {
#pragma unroll
            for (int i = 0; i < 3; i++) {
                normalise_four<T> four = {
                    {line[4 * i], line[4 * i + 1], line[4 * i + 2], line[4 * i + 3]}};

                reinterpret_cast<normalise_four<T> *>(to)[i] = four;
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < 12; i++)
            if (i < 3 * count)
                to[i] = line[i];
        return;
    }
#pragma unroll
    for (int c = 0; c < 3; c++) {
        T *to = out + (image * 3 + c) * p.pixels + first;

        if (p.words && count == 4) {
            normalise_four<T> four = {{value[c][0], value[c][1], value[c][2], value[c][3]}};

            *reinterpret_cast<normalise_four<T> *>(to) = four;
            continue;
        }
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (k < count)
                to[k] = value[c][k];
    }
}

trm_status trmi_cuda_image_normalise(const trmi_normalise *n, const uint8_t *x, void *out,
                                     cudaStream_t stream)
{
    normalise_params p = {};
    size_t total;

    p.pixels = n->pixels;
    p.groups = (n->pixels + 3) / 4;
    p.swap_channels = n->swap_channels;
    p.last = n->layout == TRM_LAYOUT_CHANNELS_LAST;
    p.words = n->pixels % 4 == 0;
    for (int c = 0; c < 3; c++) {
        p.mean[c] = n->mean[c];
        p.inv_std[c] = n->inv_std[c];
    }
    total = n->images * p.groups;
    if (total == 0)
        return TRM_OK;
    if (total / 256 >= 0x7fffffff)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%zu pictures of %zu pixels", n->images, n->pixels);
    TRM_HALVES(n->dtype, T, {
        return trmi_launched(TRM_LAUNCH(image_normalise<T>, trm_blocks(total, 256), 256, 0, stream,
                                        x, static_cast<T *>(out), p, total),
                             "image_normalise");
    })
    return trm_fail(TRM_ERR_UNSUPPORTED, "pictures as %s: want f32, f16 or bf16",
                    trm_dtype_name(n->dtype));
}
