/* CumSum and CumProd along one axis of [outer, axis, inner].
 *
 * Floats run in f64 and are rounded once an element; integers wrap in their own width, whose sign
 * does not matter. inner of 32 and more: a thread a column; else a warp a row, or a block where
 * rows are long and few: each thread folds 8 neighbours, and the prefixes of the threads come from
 * shuffles (Hillis and Steele, CACM 1986). */
#ifndef TRM_KERNELS_CUDA_SCAN_H
#define TRM_KERNELS_CUDA_SCAN_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_scan {
    trm_dtype dtype; /* not BOOL */
    bool product, exclusive, reverse;
    size_t outer, axis, inner; /* axis, and outer * inner, below 2^31 */
} trmi_scan;

/* out may be in. */
TRM_MUST_USE trm_status trmi_cuda_scan_run(const trmi_scan *scan, cudaStream_t stream,
                                           const void *in, void *out);

#ifdef __cplusplus
}
#endif
#endif
