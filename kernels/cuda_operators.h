/* Which operators the CUDA backend has kernels for, without the backend: for planning where there
 * is no device. */
#ifndef TRM_KERNELS_CUDA_OPERATORS_H
#define TRM_KERNELS_CUDA_OPERATORS_H

#include "base/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* True if kernels/cuda/table.def has a row for it. A kernel may still refuse a dtype or an
 * attribute of a node (UNSUPPORTED from prepare): that is only known when the node is bound on a
 * device. */
bool trm_cuda_has_operator(trm_op op);

#ifdef __cplusplus
}
#endif
#endif
