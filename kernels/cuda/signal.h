/* Launcher of DFT and STFT. */
#ifndef TRM_KERNELS_CUDA_SIGNAL_H
#define TRM_KERNELS_CUDA_SIGNAL_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_FOURIER_FACTORS 64
#define TRMI_FOURIER_SHARED 49152 /* bytes: longer transforms work in global memory */

/* x: [outer, in_len, inner, in_parts] -> y: [outer, frames, out_len, inner, 1 or 2]. Frame f
 * transforms the n samples from f * frame_step on, zeros behind the end. inverse && onesided: the
 * upper half is the conjugate of the lower. n < 2^26. */
typedef struct trmi_fourier {
    trm_dtype dtype, window_dtype; /* floats; window_dtype NONE: no window */
    bool inverse, onesided, real_out;
    uint32_t n, out_len;
    size_t outer, inner, in_len, in_parts, frames, frame_step;
    int factor_count;
    uint32_t factors[TRMI_FOURIER_FACTORS]; /* of n; 4 before 2 */
    int blocks;
} trmi_fourier;
/* Bytes of one complex number in the transform: 8, or 16 where dtype is F64. */
static inline size_t trmi_fourier_complex_bytes(const trmi_fourier *f)
{
    return f->dtype == TRM_DTYPE_F64 ? 16 : 8;
}
/* Of all blocks; 0 where a transform fits shared memory. */
static inline size_t trmi_fourier_workspace(const trmi_fourier *f)
{
    size_t bytes = 2 * trmi_fourier_complex_bytes(f) * f->n;

    return bytes <= TRMI_FOURIER_SHARED ? 0 : bytes * (size_t)f->blocks;
}
/* twiddles: [n] complex numbers, exp(-2 pi i k / n) (inverse: +), fp32 (fp64 where dtype is F64).
 */
trm_status trmi_cuda_fourier_launch(const trmi_fourier *f, const void *x, const void *window,
                                    const void *twiddles, void *y, void *workspace,
                                    cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
