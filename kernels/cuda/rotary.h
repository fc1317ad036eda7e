/* Rotary position embedding. A row of x is one head at one position: [head]; its first 2 * half
 * elements are pairs, turned by the angle of the position, the rest is copied:
 *
 *   y[p] = cos[i] x[p] - sin[i] x[q],  y[q] = sin[i] x[p] + cos[i] x[q]
 *
 * (p, q) is (i, i + half), or (2i, 2i + 1) interleaved. Rows lie [batch, heads, seq] (heads_first)
 * or [batch, seq, heads]. cos, sin: [positions, half]; row (b, s) takes ids[b * seq + s], kept
 * inside the caches (a kernel cannot fail), or b * seq + s where there are no ids. F32, F16, BF16;
 * computed in fp32. out may be x. Pointers need the alignment of their elements; 8 or 16-byte
 * aligned ones with suitable sizes are read in vectors. At most 2^30 elements. Errors: UNSUPPORTED
 * (dtype), INVALID_ARG (sizes), or what the launch says. */
#ifndef TRM_KERNELS_CUDA_ROTARY_H
#define TRM_KERNELS_CUDA_ROTARY_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_rotary {
    trm_dtype dtype;
    bool heads_first, interleaved;
    int64_t batch, seq, heads, head, half, positions;
} trmi_rotary;

#define TRMI_ROTARY_LIMIT ((int64_t)1 << 30)

trm_status trmi_cuda_rotary(const trm_cuda *cuda, cudaStream_t stream, const trmi_rotary *r,
                            const void *x, const void *cos, const void *sin, const int64_t *ids,
                            void *out);

#ifdef __cplusplus
}
#endif
#endif
