/* Products of language models with float weights: what lm_float.c tells the kernels.
 *
 * Tensor cores (activations rounded to the weights' BF16 or F16) or CUDA cores (activations F32,
 * weights F32, BF16 or F16; products are exact or rounded once by FMA). fp8 weights (F8_ROW,
 * F8_128) are multiplied as BF16, which they are exactly, and stay a byte each in memory.
 *
 * out^T = W x^T: weights are the first operand of mma.m16n8k16, 16 features a *panel*, and 8 rows
 * of x the second. K is taken in *chunks* of 32, two instructions each, and since any order of K
 * will do inside a chunk, lane (g, t) = (lane / 4, lane % 4) takes elements 8 t to 8 t + 7 of rows
 * g and g + 8 of W and of row g of x: 16 bytes that lie together in a row-major matrix. So
 * activations are row-major everywhere, and weights either row-major too (`order_free`, for
 * cuBLASLt's sake) or in the order in which lanes read them: a chunk of a panel is 1 KB, [2 (row
 * half)][32 lanes][16 bytes], and chunks of a panel follow each other. Both are the same
 * instructions with other strides. (fp8: 512 bytes, [32 lanes][2 (row half)][8 bytes], and scales
 * behind the weight: lm_float_weight.cuh.)
 *
 * Three kernels give the same bits, since each sums a leaf of K chunk by chunk and folds leaves by
 * the same tree: `few` (up to TRMI_LMF_FEW rows: bound by memory, warps of a block divide K),
 * `tile` (blocks divide outputs, and also K where blocks would be few: their sums then lie in the
 * workspace, and `fold` adds them), and for CUDA cores `simt`. */
#ifndef TRM_KERNELS_CUDA_LM_FLOAT_H
#define TRM_KERNELS_CUDA_LM_FLOAT_H

#include "base/f8.h"
#include "kernels/cuda/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LMF_PANEL 16
#define TRMI_LMF_CHUNK 32
#define TRMI_LMF_FEW 4 /* rows that go to `few`; more let blocks read x too often */
#define TRMI_LMF_WORKERS 8
#define TRMI_LMF_F8_BLOCK 128 /* elements of a scale of F8_128 */

/* How workers (warps of a block, or blocks) divide the leaves of a sum. Worker w sums leaves
 * [first[w], first[w + 1]) in order; after leaf i the top two of its stack are added merges[i]
 * times; what is then whole to it is a *slot*: slot s ends with leaf ends[s] - 1, slot[w] is
 * worker w's first. Slots are then pushed in order, after slot s the top two are added folds[s]
 * times, and part p of the result ends with slot last[p] - 1. */
typedef struct trmi_lmf_plan {
    int32_t begin[TRM_TREE_LEAVES_MAX + 1]; /* trmi_lmc_leaves */
    int32_t workers, slots, parts;
    unsigned char first[TRMI_LMF_WORKERS + 1], slot[TRMI_LMF_WORKERS + 1];
    unsigned char merges[TRM_TREE_LEAVES_MAX], ends[TRM_TREE_LEAVES_MAX];
    unsigned char folds[TRM_TREE_LEAVES_MAX], last[TRM_TREE_PARTS_MAX];
} trmi_lmf_plan;
/* inside false: every leaf is a slot. */
void trmi_lmf_plan_init(trmi_lmf_plan *plan, const trmi_lmc_leaves *leaves, int workers,
                        bool inside);
/* Levels of a worker's stack that lie in memory (lm_float.cuh: sums). */
int trmi_lmf_plan_depth(const trmi_lmf_plan *plan);

/* How a weight lies in memory; steps in bytes. */
typedef struct trmi_lmf_form {
    bool plain; /* rows of k_padded elements, else panels as lanes read them */
    trm_dtype dtype;
    size_t rows, k_padded;   /* both rounded up: panels, chunks; what is past N and K is zero */
    size_t panel, half, row; /* row: from lane g to g + 1 */
    size_t chunk;
    size_t scales;  /* fp8: where [panels][blocks][16] fp32 begin: behind the panels */
    int32_t blocks; /* fp8: scales of a row */
} trmi_lmf_form;

typedef struct trmi_lmf_segment {
    const unsigned char *weight;
    size_t stride; /* between weights of the stack */
    const float *bias;
    float *out;
    int32_t n, panels;
} trmi_lmf_segment;

/* A product as kernels take it: by value, 2 KB. Panels of all segments are counted as one row of
 * panels ("columns", 16 of them a panel); gated: panels of the two segments take turns. */
typedef struct trmi_lmf_args {
    trmi_lmf_plan plan;
    trmi_lmf_segment segment[TRMI_LMC_SEGMENTS];
    trmi_lmf_form form;
    int32_t segments, panels, gated; /* gated: trmi_lmc_act, COUNT: not */
    int32_t rounds;                  /* trm_dtype of out: BF16, F16; else F32 */
    int32_t m, k, experts;
    const float *x;      /* NULL: x is there rounded only */
    const void *rounded; /* [m][k_padded] in the weights' dtype, in the order of rows */
    float *slots;        /* [slots][m][panels * 16] */
    float *stack;        /* `tile`, `simt`: [blocks][depth][a block's outputs] */
    int32_t depth;
    const int32_t *starts, *row_of;
} trmi_lmf_args;

/* Launchers. */
/* m rows of x (by row_of, up to starts[experts]) into args->rounded. */
TRM_MUST_USE trm_status trmi_lmf_round(const trmi_lmf_args *a, cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmf_few(const trmi_lmf_args *a, cudaStream_t stream);
/* rows: of a tile: 16, 32, 64, 128; blocks: of the grid. */
#define TRMI_LMF_TILE_PANELS 8
TRM_MUST_USE trm_status trmi_lmf_tile_bf16(const trmi_lmf_args *a, int rows, int blocks,
                                           cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmf_tile_f16(const trmi_lmf_args *a, int rows, int blocks,
                                          cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmf_tile_f8_row(const trmi_lmf_args *a, int rows, int blocks,
                                             cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmf_tile_f8_128(const trmi_lmf_args *a, int rows, int blocks,
                                             cudaStream_t stream);
/* rows: 16, 64 */
#define TRMI_LMF_SIMT_PANELS 4
TRM_MUST_USE trm_status trmi_lmf_simt(const trmi_lmf_args *a, int rows, int blocks,
                                      cudaStream_t stream);
/* From slots to outputs. */
TRM_MUST_USE trm_status trmi_lmf_fold(const trmi_lmf_args *a, int multiprocessors,
                                      cudaStream_t stream);

/* Rows [row, row + rows) of columns [column, column + columns) of a weight of [n, k] elements of
 * form->dtype, from elements that lie row_step and column_step apart, into the form. row and column
 * are multiples of 16 and 32; up to whole panels and chunks the rest is written as zeros. */
typedef struct trmi_lmf_lay {
    trmi_lmf_form form;
    const void *from; /* device: element (row, column) */
    size_t n, k, row, rows, column, columns, row_step, column_step;
    void *to; /* of the whole weight */
} trmi_lmf_lay;
TRM_MUST_USE trm_status trmi_lmf_lay_out(const trmi_lmf_lay *l, cudaStream_t stream);
/* The same of fp8 weights: rows of blocks, row_step bytes apart; columns 0 to k, column_step is not
 * used (lm_float_f8.cu). */
TRM_MUST_USE trm_status trmi_lmf_lay_out_f8(const trmi_lmf_lay *l, cudaStream_t stream);

/* fp8 through cuBLASLt (lm_float_f8.cu). Rows of x as e4m3 [m][k_padded], each with a scale of its
 * own, [m]: the greatest of a row becomes 448. A row that is not finite gets a scale of NaN. */
TRM_MUST_USE trm_status trmi_lmf_quantize(const float *x, size_t m, size_t k, size_t k_padded,
                                          void *quantized, float *scale, cudaStream_t stream);
/* out = sum * row_scale * feature_scale + bias, [m][n], then gated if gate is not COUNT: up is the
 * second weight's sum, with scales and bias of its own. NULL scales are 1, NULL biases 0. */
typedef struct trmi_lmf_finish_side {
    float *sum;
    const float *scale, *bias; /* of features */
} trmi_lmf_finish_side;
TRM_MUST_USE trm_status trmi_lmf_finish(const trmi_lmf_finish_side side[2], const float *row_scale,
                                        size_t m, size_t n, trmi_lmc_act gate, int multiprocessors,
                                        cudaStream_t stream);

/* out = gated(y) * up over n numbers, as BF16 or F16 where `rounds` is one of them; else F32, and
 * out may be y. */
TRM_MUST_USE trm_status trmi_lmf_gate(trmi_lmc_act act, trm_dtype rounds, void *out, const float *y,
                                      const float *up, size_t n, int multiprocessors,
                                      cudaStream_t stream);

/* With order_free: products of many rows by cuBLASLt (lm_float_blas.c), whose sums have whatever
 * order is fastest; with F8_ROW weights rows are rounded to e4m3, too. *blas_out is NULL where the
 * kernels above are to run. Of the product's pointers only the weights' are looked at before run;
 * bit i of biased: segment i will have a bias. */
typedef struct trmi_lmf_blas trmi_lmf_blas;
TRM_MUST_USE trm_status trmi_lmf_blas_create(trm_cuda *cuda, const trmi_lmc_product *p,
                                             unsigned biased, trmi_lmf_blas **blas_out);
size_t trmi_lmf_blas_workspace_bytes(const trmi_lmf_blas *blas);
TRM_MUST_USE trm_status trmi_lmf_blas_run(const trmi_lmf_blas *blas, const trmi_lmc_product *p,
                                          void *workspace, cudaStream_t stream);
void trmi_lmf_blas_destroy(trmi_lmf_blas *blas); /* takes NULL */

/* Bytes of an element of a weight, and of what rows are rounded to. */
static inline size_t trmi_lmf_each(trm_dtype dtype)
{
    return trm_dtype_is_f8(dtype) ? 1 : trm_dtype_bytes(dtype);
}
static inline size_t trmi_lmf_rounded_each(trm_dtype dtype)
{
    return trm_dtype_is_f8(dtype) ? 2 : trm_dtype_bytes(dtype);
}

/* The form of a weight on this device. */
trmi_lmf_form trmi_lmf_form_of(const trm_cuda *cuda, const trmi_lmc_weight *w);

#ifdef __cplusplus
}
#endif
#endif
