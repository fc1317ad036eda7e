/* Products of language models with float weights: what lm_float.c tells the kernels.
 *
 * Tensor cores (activations rounded to the weights' BF16 or F16) or CUDA cores (activations F32,
 * weights F32, BF16 or F16; products are exact or rounded once by FMA).
 *
 * out^T = W x^T: weights are the first operand of mma.m16n8k16, 16 features a *panel*, and 8 rows
 * of x the second. K is taken in *chunks* of 32, two instructions each, and since any order of K
 * will do inside a chunk, lane (g, t) = (lane / 4, lane % 4) takes elements 8 t to 8 t + 7 of rows
 * g and g + 8 of W and of row g of x: 16 bytes that lie together in a row-major matrix. So
 * activations are row-major everywhere, and weights either row-major too (`order_free`, for
 * cuBLASLt's sake) or in the order in which lanes read them: a chunk of a panel is 1 KB, [2 (row
 * half)][32 lanes][16 bytes], and chunks of a panel follow each other. Both are the same
 * instructions with other strides.
 *
 * Three kernels give the same bits, since each sums a leaf of K chunk by chunk and folds leaves by
 * the same tree: `few` (up to TRMI_LMF_FEW rows: bound by memory, warps of a block divide K),
 * `tile` (blocks divide outputs, and also K where blocks would be few: their sums then lie in the
 * workspace, and `fold` adds them), and for CUDA cores `simt`. */
#ifndef TRM_KERNELS_CUDA_LM_FLOAT_H
#define TRM_KERNELS_CUDA_LM_FLOAT_H

#include "kernels/cuda/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LMF_PANEL 16
#define TRMI_LMF_CHUNK 32
#define TRMI_LMF_FEW 4 /* rows that go to `few`; more let blocks read x too often */
#define TRMI_LMF_WORKERS 8

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

/* out = gated(y) * up over n numbers, as BF16 or F16 where `rounds` is one of them; else F32, and
 * out may be y. */
TRM_MUST_USE trm_status trmi_lmf_gate(trmi_lmc_act act, trm_dtype rounds, void *out, const float *y,
                                      const float *up, size_t n, int multiprocessors,
                                      cudaStream_t stream);

/* With order_free: products of many rows by cuBLASLt (lm_float_blas.c), whose sums have whatever
 * order is fastest. *blas_out is NULL where the kernels above are to run. Of the product's pointers
 * only the weights' are looked at before run; bit i of biased: segment i will have a bias. */
typedef struct trmi_lmf_blas trmi_lmf_blas;
TRM_MUST_USE trm_status trmi_lmf_blas_create(trm_cuda *cuda, const trmi_lmc_product *p,
                                             unsigned biased, trmi_lmf_blas **blas_out);
size_t trmi_lmf_blas_workspace_bytes(const trmi_lmf_blas *blas);
TRM_MUST_USE trm_status trmi_lmf_blas_run(const trmi_lmf_blas *blas, const trmi_lmc_product *p,
                                          void *workspace, cudaStream_t stream);
void trmi_lmf_blas_destroy(trmi_lmf_blas *blas); /* takes NULL */

/* The form of a weight on this device. */
trmi_lmf_form trmi_lmf_form_of(const trm_cuda *cuda, const trmi_lmc_weight *w);

#ifdef __cplusplus
}
#endif
#endif
