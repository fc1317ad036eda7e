/* What kernels of language models share on the device (kernels/language.h has the operators). A
 * family is lm_<family>.h, .c and .cu:
 *
 *   lm_step       the step in device memory          lm_linear     prepare of TrmLinear, TrmLinears
 *   lm_rows       embed, norm, rope, gated, ...      lm_float*     products with float weights
 *   lm_attention  paged attention, KV writes         lm_quant*     products with block types
 *   lm_experts    mixtures of experts                lm_sample     from logits to tokens
 *
 * Activations are F32 in memory. One rule as on the CPU, unless the device is order_free: a row's
 * bits depend on that row's inputs alone, not on T, on its place, or on how features, heads and
 * leaves are dealt out to ranks. So every output element is summed in an order that depends on K
 * (and its leaves) only: the same instructions for one row and for many. */
#ifndef TRM_KERNELS_CUDA_LM_H
#define TRM_KERNELS_CUDA_LM_H

#include "base/tree.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/lm_step.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_lmc_act {
    TRMI_LMC_NONE,
    TRMI_LMC_SILU,
    TRMI_LMC_GELU,
    TRMI_LMC_GELU_TANH,
    TRMI_LMC_RELU,
    TRMI_LMC_TANH,
    TRMI_LMC_SOFTCAP,
    TRMI_LMC_ACT_COUNT
} trmi_lmc_act;
/* "silu", ...; COUNT: unknown (lm_rows.c). */
trmi_lmc_act trmi_lmc_act_from_name(const char *name);

/* How K is summed: leaf i is [begin[i], begin[i + 1]), summed by itself; after leaf i the top two
 * of a stack are added merges[i] times (base/tree.h); what stays on the stack are `parts` values,
 * part p ending with leaf ends[p] - 1. Of a node without leaves the device makes its own by K
 * alone, and merges them to one. Every leaf but the last ends at a multiple of 32. */
typedef struct trmi_lmc_leaves {
    int32_t count, parts;
    int32_t begin[TRM_TREE_LEAVES_MAX + 1];
    unsigned char merges[TRM_TREE_LEAVES_MAX];
    unsigned char ends[TRM_TREE_PARTS_MAX];
} trmi_lmc_leaves;
/* unit 0: the device's own. UNSUPPORTED: a unit that is no multiple of 32. INVALID_ARG: they do not
 * fit K (lm_linear.c). */
TRM_MUST_USE trm_status trmi_lmc_leaves_init(trmi_lmc_leaves *l, size_t k, size_t unit,
                                             int64_t first, int64_t leaves);

struct trmi_lmc_family;
/* [stack] weights of [n, k], packed in device memory. */
typedef struct trmi_lmc_weight {
    const struct trmi_lmc_family *family;
    trm_dtype dtype; /* of the file */
    trm_dtype act;   /* what activations are rounded to: F32, BF16, F16; I8 for block types */
    size_t n, k;
    size_t stack, stride; /* bytes between weights of the stack; trmi_lmc_family.weight_bytes */
    const void *data;     /* device */
    trmi_pack *pack;
} trmi_lmc_weight;

#define TRMI_LMC_SEGMENTS 4
/* Products of rows x with up to four weights [n_i, k] of one family, dtype and k.
 *
 * Plain: out_i[part][row][n] = sum_k x[row, k] * w_i[n, k] (+ bias_i[n], with one part only).
 * gated != COUNT: two segments of equal n, one part: out_0 = gated(y_0) * y_1, out_1 unused.
 * experts > 0: rows are sorted by expert: rows [starts[e], starts[e + 1]) use weight e of each
 * stack (device memory, known only there); m is the most rows; row r reads x[row_of[r]] (row_of
 * NULL: x[r]). Rows from starts[experts] on are not computed. */
typedef struct trmi_lmc_product {
    const trmi_lmc_leaves *leaves; /* host; copied into the launch */
    const void *x;                 /* [m, k] F32 */
    bool rounded; /* x is as the weights' `act` rounds it: [m, k] BF16 or F16, k a multiple of 32;
                     I8: lm_quant.h. Not with experts */
    size_t m, k;
    int segments;
    struct {
        const trmi_lmc_weight *weight;
        const float *bias; /* [n] or NULL */
        float *out;        /* [parts][m][n] */
    } segment[TRMI_LMC_SEGMENTS];
    trmi_lmc_act gated;
    trm_dtype
        rounds; /* gated, float weights: BF16, F16: out_0 is [m][n] of that, whatever its type */
    int experts;
    const int32_t *starts, *row_of;
} trmi_lmc_product;

/* Products with weights of one kind: lm_float.c, lm_quant.c. */
typedef struct trmi_lmc_family {
    const char *name; /* "mma bf16", for traces and pack forms */
    /* Whether it has kernels for weights of `dtype` with activations `act` (NONE: the best: BF16
     * for BF16, F16 for F16, F32 for F32; I8 for block types); *act_out: what it will be. */
    bool (*takes)(trm_dtype dtype, trm_dtype act, trm_dtype *act_out);
    size_t (*weight_bytes)(const trmi_lmc_weight *w); /* of one of the stack, a multiple of 256 */
    /* Rows as in the file, `row_bytes` apart ([k, n] where transposed), to `to` in device memory.
     * Bytes go up as they are and are laid out by a kernel. */
    trm_status (*pack)(trm_cuda *cuda, const trmi_lmc_weight *w, const void *rows, size_t row_bytes,
                       bool transposed, void *to);
    size_t (*workspace_bytes)(const trm_cuda *cuda, const trmi_lmc_product *p);
    trm_status (*run)(trm_cuda *cuda, const trmi_lmc_product *p, void *workspace,
                      cudaStream_t stream);
} trmi_lmc_family;
extern const trmi_lmc_family trmi_lmc_float, trmi_lmc_quant;

/* Constant input `input` of a node ([n, k], [k, n] where transposed; [E, n, k] as a stack), packed
 * through the device's cache (lm_linear.c). act NONE: see takes. UNSUPPORTED names the dtypes. The
 * caller releases weight_out->pack. */
TRM_MUST_USE trm_status trmi_lmc_weight_pack(trm_cuda *cuda, const trm_op_desc *desc, int input,
                                             trm_dtype act, bool transposed,
                                             trmi_lmc_weight *weight_out);

/* The `step` input of a node, as kernels take it. */
static inline const trmi_lm_block *trmi_lmc_block(const void *step)
{
    return (const trmi_lm_block *)step;
}

#ifdef __cplusplus
}
#endif
#endif
