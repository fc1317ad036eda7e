/* Kernels that run a scalar reference, spread over the team. */
#ifndef TRM_KERNELS_CPU_SCALAR_H
#define TRM_KERNELS_CPU_SCALAR_H

#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

typedef struct trmi_scalar_kernel {
    trm_kernel base;
    trm_ref ref; /* filled in by prepare but for data pointers */
    int input_count, output_count;
    trm_ref_range range;
    size_t items, grain;
} trmi_scalar_kernel;

/* A kernel over `items` items of about `item_cost` multiplications each; all layouts of desc become
 * PLAIN; tensors and posts are copied into ref. */
TRM_MUST_USE trm_status trmi_scalar_new(trm_op_desc *desc, trm_ref_range range, size_t items,
                                        size_t item_cost, trmi_scalar_kernel **kernel_out);

/* OK if input `i` is absent or of one of the dtypes (a list that ends with NONE); else UNSUPPORTED
 * with the operator's name and the list. */
TRM_MUST_USE trm_status trmi_want_dtype(const trm_op_desc *desc, int i, const trm_dtype *dtypes);
extern const trm_dtype trmi_floats[]; /* f32, f16, bf16, f64 */

#endif
