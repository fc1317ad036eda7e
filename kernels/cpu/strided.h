/* A kernel that is one strided copy of input 0. */
#ifndef TRM_KERNELS_CPU_STRIDED_H
#define TRM_KERNELS_CPU_STRIDED_H

#include "kernels/cpu/data.h"

/* Output 0 (row-major over dims[0..rank), at most TRMI_COPY_RANK) is the view of input 0 that
 * starts at element `offset_elems` and has these steps, in elements. */
TRM_MUST_USE trm_status trmi_strided_new(const trm_op_desc *desc, int rank, const size_t *dims,
                                         const ptrdiff_t *in_steps, ptrdiff_t offset_elems,
                                         trm_kernel **kernel_out);

#endif
