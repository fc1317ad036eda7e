/* Products of language models: out[t, n] = sum over k of x[t, k] * w[n, k], for every weight dtype.
 *
 * Weights are packed once, in *panels* of TRMI_LM_PANEL output features along N, K innermost in the
 * order that the type's tile function reads; activations are converted a row at a time into the
 * form it wants (fp32, bf16 pairs, int8 with a scale a 32 elements). A tile sums K in order for
 * each output, with the same instructions for every number of rows and panels, so a row's bits do
 * not depend on how many rows there are. The framework (lm_linear.c) walks leaves and panels, folds
 * leaves by the tree, adds the bias, and divides panels and blocks of rows among threads, never K.
 *
 * One trmi_lm_type a (weight dtype, activations, instruction set), listed in lm_types.def:
 * lm_linear_float*.c, lm_linear_f8*.c, lm_linear_quant*.c. Each has a scalar row beside it (level
 * 0), which tests compare with; vector rows may round differently from the scalar one, but not from
 * themselves. */
#ifndef TRM_KERNELS_CPU_LM_LINEAR_H
#define TRM_KERNELS_CPU_LM_LINEAR_H

#include "base/tree.h"
#include "kernels/cpu/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LM_PANEL 16
#define TRMI_LM_TILE_MAX 32 /* most m * panels of a tile */

typedef struct trmi_lm_type {
    const char *name; /* "q4_0 avx512-vnni" */
    const char *form; /* of the packed weight: types of equal form share packed weights */
    trm_dtype dtype;  /* of the weight */
    trm_dtype act;    /* F32, BF16, F16 or I8: how activations are converted */
    trm_isa isa;      /* least level */
    int rows_max;     /* m that a tile call takes */
    int panels_one;   /* panels that a tile call takes with m == 1: enough accumulators in flight */
    int panels_many;  /* with m > 1; rows_max * panels_many, panels_one <= TRMI_LM_TILE_MAX */
    size_t k_multiple; /* tile's k_begin and k_end are multiples of it (32 for block types; the
                          last k_end may be K itself where K is not a multiple, for float types) */
    size_t (*panel_bytes)(size_t k); /* a multiple of 64 */
    /* rows[TRMI_LM_PANEL]: the panel's weight rows as in the file (K elements of dtype from a whole
     * block on); NULL: past N, packed as zeros. K-quants: k_offset elements of the first block's
     * front are not part of the row (0 unless a rank's range begins inside a superblock). Writes
     * every byte of the panel. */
    void (*pack)(const void *const *rows, size_t k, size_t k_offset, void *panel);
    size_t (*row_bytes)(size_t k); /* of a converted row, whose start is 64-byte aligned */
    /* NULL: the tile reads rows of fp32 as they are, at any alignment */
    void (*convert)(const float *x, size_t k, void *row);
    /* acc[(p * m + r) * TRMI_LM_PANEL + j] = sum over k in [k_begin, k_end) for panel p < panels,
     * row r < m: 1 <= m <= rows_max, 1 <= panels <= (m == 1 ? panels_one : panels_many).
     * `panel_stride`: bytes between panels. panel and acc are 64-byte aligned. */
    void (*tile)(const void *panel, size_t panel_stride, int panels, const void *const *rows, int m,
                 size_t k, size_t k_begin, size_t k_end, float *acc);
} trmi_lm_type;

/* The best row for a weight dtype and a wish for activations (NONE: F32 for float types and fp8,
 * I8 for other block types) at trmi_cpu_isa(); NULL: none. */
const trmi_lm_type *trmi_lm_type_get(trm_dtype dtype, trm_dtype act);
/* What attr `name` of a node (TrmLinear's act, TrmExperts' act_dtype) rounds activations to: BF16,
 * F16, or NONE where it is absent. */
TRM_MUST_USE trm_status trmi_lm_rounding(const trm_op_desc *desc, const char *name,
                                         trm_dtype *act_out);
/* All rows, for tests; NULL past the end. A row above trmi_cpu_isa() must not be called. */
const trmi_lm_type *trmi_lm_type_at(int index);

/* A packed weight, shared by the kernels of all shape buckets. */
typedef struct trmi_lm_weight {
    const trmi_lm_type *type;
    size_t n, k, panels, panel_bytes;
    const unsigned char *data; /* [panels][panel_bytes], 64-byte aligned */
} trmi_lm_weight;
/* [n, k] at `data`, which trmi_lm_weight_pack has filled or will fill. */
trmi_lm_weight trmi_lm_weight_of(const trmi_lm_type *type, size_t n, size_t k, const void *data);
static inline size_t trmi_lm_weight_bytes(const trmi_lm_weight *w)
{
    return w->panels * w->panel_bytes;
}
/* Packs [n, k] rows `row_bytes` apart into `to` (trmi_lm_weight_bytes, 64-byte aligned). On the
 * team. */
void trmi_lm_weight_pack(const trmi_lm_weight *w, const void *rows, size_t row_bytes,
                         size_t k_offset, void *to);
/* The same from [k, n], of element dtypes. */
TRM_MUST_USE trm_status trmi_lm_weight_pack_transposed(const trmi_lm_weight *w, const void *from,
                                                       void *to);

/* Constant input `input` of a node, `stack` weights of [n, k] (transposed: [k, n]) one behind
 * another, each packed as its own; through the device's cache of packed weights. The caller holds
 * the pack (trmi_cpu_pack_release); weight s starts at s * trmi_lm_weight_bytes. */
TRM_MUST_USE trm_status trmi_lm_weight_pack_input(trm_cpu *cpu, const trm_op_desc *desc, int input,
                                                  const trmi_lm_weight *w, size_t stack,
                                                  bool transposed, trmi_pack **pack_out);

/* How K is cut: `count` leaves of `leaf` elements, leaf `first` on of a tree of `leaves`, folded to
 * `parts` values. */
typedef struct trmi_lm_leaves {
    size_t leaf;
    int count, parts;
    unsigned char merges[TRM_TREE_LEAVES_MAX]; /* trm_tree_merges */
    unsigned char ends[TRM_TREE_PARTS_MAX];    /* leaves up to the end of each part */
} trmi_lm_leaves;
/* leaf 0: K in one go. INVALID_ARG unless they fit. */
TRM_MUST_USE trm_status trmi_lm_leaves_init(trmi_lm_leaves *l, size_t k, size_t leaf, int64_t first,
                                            int64_t leaves);

/* One product. A kernel may run several at once (experts, several weights on one input). */
typedef struct trmi_lm_product {
    const trmi_lm_weight *weight;
    const trmi_lm_leaves *leaves;
    const void *const *rows; /* [m], converted */
    size_t m;
    const float *bias; /* [n] or NULL; only with one part */
    float *out;        /* element (part, row, n) at part * out_part_stride + row * out_stride + n */
    size_t out_stride, out_part_stride;
} trmi_lm_product;
/* Rows [row_begin, row_end) of panels [panel_begin, panel_end), on the calling thread. */
void trmi_lm_product_run(const trmi_lm_product *p, size_t row_begin, size_t row_end,
                         size_t panel_begin, size_t panel_end);
/* All of `count` products, divided among the team so that threads get equal work. */
void trmi_lm_products_run(const trmi_lm_product *products, size_t count);

/* Rows of `k` elements, x_stride apart, to rows_out[m]: converted into `converted` ([m] of
 * trmi_lm_row_stride bytes), or x itself where the type reads fp32 rows. On the team. */
size_t trmi_lm_row_stride(const trmi_lm_type *type, size_t k); /* 0: rows are not converted */
void trmi_lm_rows_convert(const trmi_lm_type *type, const float *x, size_t x_stride, size_t m,
                          size_t k, void *converted, const void **rows_out);

/* Elements of `row` (a file's weight row of `k` elements, dtype any weight dtype) to fp32: the
 * scalar truth, used by embeddings and tests. */
void trmi_lm_dequantize(trm_dtype dtype, const void *row, size_t k, float *out);

#ifdef __cplusplus
}
#endif
#endif
