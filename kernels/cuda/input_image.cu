/* Samples to floats by a table a channel: out[i] = table[channel of i][image[i]].
 *
 * One thread makes four samples that lie together; the table (at most 4 KB) is read from shared
 * memory. Memory traffic is all there is: 1 byte in, 4 out. */
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/input_image.h"

namespace {

constexpr int kThreads = 256;
constexpr int kEach = 4;

template <bool kLast>
__global__ void __launch_bounds__(kThreads)
    image_table(const unsigned char *__restrict__ image, const float *__restrict__ table,
                float *__restrict__ out, size_t samples, size_t pixels, int channels)
{
    __shared__ float values[TRMI_INPUT_CHANNELS_MAX * 256];
    TRM_KERNEL_BEGIN();

    for (int i = (int)threadIdx.x; i < channels * 256; i += kThreads)
        values[i] = table[i];
    __syncthreads();
    for (size_t at = ((size_t)blockIdx.x * kThreads + threadIdx.x) * kEach; at < samples;
         at += (size_t)gridDim.x * kThreads * kEach) {
        for (size_t i = at; i < at + kEach && i < samples; i++) {
            const size_t pixel = i / (size_t)channels;
            const int c = (int)(i - pixel * (size_t)channels);
            const float v = values[c * 256 + image[i]];

            if (kLast)
                out[i] = v;
            else
                out[(pixel / pixels * (size_t)channels + (size_t)c) * pixels + pixel % pixels] = v;
        }
    }
}

} // namespace

extern "C" trm_status trmi_cuda_image_table_run(const unsigned char *image, const float *table,
                                                float *out, size_t images, size_t pixels,
                                                int channels, bool last, cudaStream_t stream)
{
    const size_t samples = images * pixels * (size_t)channels;
    const size_t blocks = (samples + kThreads * kEach - 1) / (kThreads * kEach);
    const unsigned grid = (unsigned)(blocks < 4096 ? blocks : 4096);

    if (samples == 0)
        return TRM_OK;
    return trmi_launched(last ? TRM_LAUNCH((image_table<true>), grid, kThreads, 0, stream, image,
                                           table, out, samples, pixels, channels)
                              : TRM_LAUNCH((image_table<false>), grid, kThreads, 0, stream, image,
                                           table, out, samples, pixels, channels),
                         "image table");
}
