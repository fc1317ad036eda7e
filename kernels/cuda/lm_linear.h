/* TrmLinear and TrmLinears on the device: their prepare functions choose a family of products
 * (lm.h) by the weights' dtype. What other families of operators take from here is in lm.h:
 * trmi_lmc_leaves_init, trmi_lmc_weight_pack. */
#ifndef TRM_KERNELS_CUDA_LM_LINEAR_H
#define TRM_KERNELS_CUDA_LM_LINEAR_H

#include "kernels/cuda/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Most leaves of a K that the graph does not cut, and their least length. Eight: one for each warp
 * of a block that multiplies few rows, or for each block where blocks share a sum. */
#define TRMI_LMC_OWN_LEAVES 8
#define TRMI_LMC_OWN_LEAF 256

/* The kernel of both operators. */
typedef struct trmi_lmc_linear {
    trmi_cuda_kernel base;
    trmi_lmc_weight weights[TRMI_LMC_SEGMENTS];
    trmi_lmc_leaves leaves;
    trmi_lmc_product product;          /* without pointers of a run */
    int bias_input[TRMI_LMC_SEGMENTS]; /* 0: none */
    struct trmi_lmf_blas *blas;        /* lm_float.h; NULL: the family's kernels */
} trmi_lmc_linear;

/* What attribute `act` of a node asks for: NONE: the family's choice (block types), F32, BF16, F16.
 * UNSUPPORTED: another word. */
TRM_MUST_USE trm_status trmi_lmc_act_wanted(const trm_op_desc *desc, trm_dtype weight,
                                            trm_dtype *act_out);

/* What rows for products with such a weight are rounded to (trm_device.rounding). act NONE: the
 * family's choice. */
trm_rounding trmi_lmc_rounding(const trm_tensor *weight, bool transposed, int64_t unit,
                               trm_dtype act);

/* What attribute `rounds` of a node says of output `output`, whose rows are shaped as `rows`, and
 * that the output is so: F32 (absent), BF16, F16, I8. INVALID_ARG: it is not; UNSUPPORTED: another
 * word, rows that are no whole groups. */
TRM_MUST_USE trm_status trmi_lmc_rounds(const trm_op_desc *desc, int output, const trm_tensor *rows,
                                        trm_dtype *rounds_out, int *sums_out);

/* Device memory into which a weight's bytes go up before a kernel lays them out: of the one weight
 * `w`, at most TRMI_LMC_SCRATCH_MAX. Held while weights of a stack are packed, so that a family
 * that asks again gets the same. Released as packs are. */
#define TRMI_LMC_SCRATCH_MAX ((size_t)16 << 20)
TRM_MUST_USE trm_status trmi_lmc_scratch(trm_cuda *cuda, const trmi_lmc_weight *w,
                                         trmi_pack **pack_out);

#ifdef __cplusplus
}
#endif
#endif
