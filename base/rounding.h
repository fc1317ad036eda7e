/* Rows that products read rounded, made so by the operator before them (kernels/language.h,
 * "Rounded rows"): what a device wants. Model, whose pass asks, and kernels both stand on this
 * file. */
#ifndef TRM_BASE_ROUNDING_H
#define TRM_BASE_ROUNDING_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_rounding {
    trm_dtype dtype;   /* BF16, F16; U8: int8 as the device lays it out; NONE: rows stay F32 */
    int64_t row_bytes; /* U8: for T rows there are T times as many */
    int sums;          /* U8: which sums stand beside the scales. Readers of the same rows want the
                          same, and 0, none, goes with any */
} trm_rounding;

/* For products (TrmLinear) with `weight`, attributes transposed and unit, and `act` as a dtype
 * (NONE: absent). Dtype and dims are looked at, dims known. Not NONE: the device has a kernel for
 * the product, whatever its rows. */
typedef trm_rounding trm_rounding_fn(const trm_tensor *weight, bool transposed, int64_t unit,
                                     trm_dtype act);

#ifdef __cplusplus
}
#endif
#endif
