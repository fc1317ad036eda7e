/* Row operators of language models (kernels/language.h): launchers of lm_embed.cu, lm_norm.cu,
 * lm_rope.cu, lm_gated.cu and lm_pool.cu, prepared by lm_rows.c, lm_embed.c, lm_norm.c and
 * lm_pool.c. One launch each, but for a normalised pool. What a row gives depends on that row, on
 * its width and on nothing else: sums are divided among threads by the length of what is summed,
 * and every product and sum names its rounding.
 *
 * Pointers are device memory; where widths are multiples of 4 and pointers of 16 bytes, four
 * elements are loaded at once, with the same result. Errors: INVALID_ARG (sizes), UNSUPPORTED
 * (dtype), or what the launch says. */
#ifndef TRM_KERNELS_CUDA_LM_ROWS_H
#define TRM_KERNELS_CUDA_LM_ROWS_H

#include "kernels/cuda/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Input i must be there, of `dtype` (NONE: any) and `rank`: UNSUPPORTED, INVALID_ARG otherwise. */
TRM_MUST_USE trm_status trmi_lmc_want(const trm_op_desc *desc, int i, trm_dtype dtype, int rank);
/* Begins a prepare: no post-ops, plain layouts, `outputs` F32 outputs of `rank` dims. */
TRM_MUST_USE trm_status trmi_lmc_begin(trm_op_desc *desc, int outputs, int rank);

/* out[r] = row ids[r] of the table times scale, zeros where there is no such row. out: [rows,
 * width]; table: F32, F16, BF16 or a block type as in a file, or F32, F16 and BF16 as products lay
 * them out (lm_float.h: trmi_lmf_form). Row r begins at r / 16 * panel + r % 16 / 8 * half + r % 8
 * * row bytes; its pieces of 32 elements are `chunk` apart (of blocks, a row is one piece). */
typedef struct trmi_lmc_pick {
    trm_dtype dtype;
    size_t rows, table_rows, width;
    size_t panel, half, row, chunk;
    float scale;
} trmi_lmc_pick;
TRM_MUST_USE trm_status trmi_cuda_lm_pick(cudaStream_t stream, const trmi_lmc_pick *p,
                                          const int32_t *ids, const void *table, float *out);

typedef enum trmi_lmc_norm_kind {
    TRMI_LMC_RMS,
    TRMI_LMC_LAYER,
    TRMI_LMC_UNIT /* divided by its length: no gain, no epsilon; zeros stay */
} trmi_lmc_norm_kind;
/* `groups` rows of n: sum = x + y where there is a y (sum may be NULL, x or y), out = the norm of
 * that (of x) times gain + offset, plus bias. out may be x or y, if it is F32. gain, bias: [n] or
 * NULL. */
typedef struct trmi_lmc_norm {
    trmi_lmc_norm_kind kind;
    size_t groups, n;
    float epsilon, offset;
    trm_dtype rounds; /* of out: NONE: F32; BF16, F16; I8: rows as lm_quant.h has them, with `sums`,
                         n a multiple of 32, pointers of 16 bytes */
    int sums;
} trmi_lmc_norm;
typedef struct trmi_lmc_norm_args {
    const float *x, *y, *gain, *bias;
    float *sum;
    void *out;
} trmi_lmc_norm_args;
TRM_MUST_USE trm_status trmi_cuda_lm_norm(cudaStream_t stream, const trmi_lmc_norm *p,
                                          const trmi_lmc_norm_args *a);

#define TRMI_LMC_PAIRS_MAX 512
/* x, out: [rows, heads, head_dim]; frequencies [half]; out may be x. */
typedef struct trmi_lmc_rope {
    size_t rows, heads, head_dim, half; /* half: pairs, at most TRMI_LMC_PAIRS_MAX */
    bool interleaved;
    float scale;
    int multiprocessors;
} trmi_lmc_rope;
TRM_MUST_USE trm_status trmi_cuda_lm_rope(cudaStream_t stream, const trmi_lmc_rope *p,
                                          const float *x, const int32_t *positions,
                                          const float *frequencies, float *out);

/* out = act(x) * up, rounded to `rounds` (BF16, F16; else F32); up may be NULL; out may be x or up,
 * if it is F32. */
TRM_MUST_USE trm_status trmi_cuda_lm_gated(cudaStream_t stream, trmi_lmc_act act, float cap,
                                           size_t elems, const float *x, const float *up, void *out,
                                           trm_dtype rounds);

typedef enum trmi_lmc_pool_kind {
    TRMI_LMC_POOL_MEAN,
    TRMI_LMC_POOL_CLS,
    TRMI_LMC_POOL_LAST
} trmi_lmc_pool_kind;
/* x: [rows, width] -> out: [sequences, width], by the sequences of the step's block */
typedef struct trmi_lmc_pool {
    trmi_lmc_pool_kind kind;
    size_t rows, width, sequences;
} trmi_lmc_pool;
TRM_MUST_USE trm_status trmi_cuda_lm_pool(cudaStream_t stream, const trmi_lmc_pool *p,
                                          const float *x, const trmi_lm_block *step, float *out);

#ifdef __cplusplus
}
#endif
#endif
