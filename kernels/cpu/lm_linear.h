/* Products of language models: out[t, n] = sum over k of x[t, k] * w[n, k], for every weight dtype.
 *
 * Weights are packed once, in *panels* of TRMI_LM_PANEL output features along N, K innermost in the
 * order that the type's tile function reads; activations are converted a row at a time into the
 * form it wants (fp32, bf16 pairs, int8 with a scale a 32 elements). A tile sums K in order for
 * each output, with the same instructions for every number of rows, so a row's bits do not depend
 * on how many rows there are. The framework (lm_linear.c) walks leaves and panels, folds leaves by
 * the tree, adds the bias, and divides panels (and rows) among threads, never K.
 *
 * One row of trmi_lm_types a (weight dtype, instruction set): lm_linear_float*.c,
 * lm_linear_quant*.c. Each has a scalar row beside it (level 0), which tests compare with; vector
 * rows may round differently from the scalar one, but not from themselves. */
#ifndef TRM_KERNELS_CPU_LM_LINEAR_H
#define TRM_KERNELS_CPU_LM_LINEAR_H

#include "kernels/cpu/cpu.h"

#define TRMI_LM_PANEL 16

typedef struct trmi_lm_type {
    const char *name; /* "q4_0 avx512-vnni" */
    trm_dtype dtype;  /* of the weight */
    trm_dtype act;    /* F32, BF16 or I8: how activations are converted */
    int isa;          /* least level, as trmi_lm_isa */
    int rows_max;     /* rows that a tile call takes */
    int panels_max; /* panels that a tile call takes with one row: enough accumulators in flight (>=
                       1) */
    size_t k_multiple; /* tile's k_begin and k_end are multiples of it (32 for block types; the
                          last k_end may be K itself where K is not a multiple, for float types) */
    size_t (*panel_bytes)(size_t k);
    /* rows[TRMI_LM_PANEL]: the panel's weight rows as in the file (K elements of dtype from a whole
     * block on); NULL: past N, packed as zeros. K-quants: k_offset elements of the first block's
     * front are not part of the row (0 unless a rank's range begins inside a superblock). */
    void (*pack)(const void *const *rows, size_t k, size_t k_offset, void *panel);
    size_t (*row_bytes)(size_t k);                        /* of a converted row */
    void (*convert)(const float *x, size_t k, void *row); /* not NULL */
    /* acc[(p * m + r) * TRMI_LM_PANEL + j] = sum over k in [k_begin, k_end) for panel p < panels,
     * row r < m (m <= rows_max; panels > 1 only with m == 1). `panel_stride`: bytes between panels.
     */
    void (*tile)(const void *panel, size_t panel_stride, int panels, const void *const *rows, int m,
                 size_t k, size_t k_begin, size_t k_end, float *acc);
} trmi_lm_type;

/* Levels: 0 plain C, 1 AVX2+FMA+F16C, 2 AVX-512 (F, BW, DQ, VL), 3 with VNNI, 4 with VNNI and BF16.
 * The job agrees on one (trm_device_isa); TRM_ISA in the environment lowers it. */
int trmi_lm_isa(void);
/* The best row for a weight dtype and a wish for activations (NONE: F32 for float types, I8 for
 * block types); NULL: none. */
const trmi_lm_type *trmi_lm_type_get(trm_dtype dtype, trm_dtype act);

/* A packed weight, shared by the kernels of all shape buckets. */
typedef struct trmi_lm_weight {
    const trmi_lm_type *type;
    size_t n, k, panels, panel_bytes;
    const unsigned char *data; /* [panels][panel_bytes] */
} trmi_lm_weight;
size_t trmi_lm_weight_bytes(const trmi_lm_type *type, size_t n, size_t k);
/* Packs [n, k] rows `row_bytes` apart into data (trmi_lm_weight_bytes, zeroed or not). In parallel.
 */
void trmi_lm_weight_pack(const trmi_lm_type *type, const void *rows, size_t row_bytes, size_t n,
                         size_t k, size_t k_offset, void *data);

/* One product, for kernels that are more than one (experts, several weights on one input). rows:
 * [m] converted rows. out row r at out + r * out_stride gets [n]. Leaves: `leaf` elements each (0:
 * one), of the tree of `leaves` from `first`; parts: what remains, [P] of them out_part_stride
 * apart. Over panels [panel_begin, panel_end): the caller divides them among threads. */
typedef struct trmi_lm_product {
    const trmi_lm_weight *weight;
    const void *const *rows;
    size_t m;
    size_t leaf; /* elements; 0: K in one go */
    int first, leaves;
    const float *bias; /* [n] or NULL; only with one part */
    float *out;
    size_t out_stride, out_part_stride;
} trmi_lm_product;
void trmi_lm_product_run(const trmi_lm_product *p, size_t panel_begin, size_t panel_end);

/* Elements of `row` (a file's weight row of `k` elements, dtype any weight dtype) to fp32: the
 * scalar truth, used by embeddings and tests. */
void trmi_lm_dequantize(trm_dtype dtype, const void *row, size_t k, float *out);

#endif
