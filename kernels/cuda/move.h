/* Launchers of the kernels that move, select or generate elements. Everything works by element
 * width, so all dtypes run. Pointers are device memory, aligned to their elements; wider accesses
 * are used where pointers and strides allow. */
#ifndef TRM_KERNELS_CUDA_MOVE_H
#define TRM_KERNELS_CUDA_MOVE_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/notes.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_MOVE_RANK 16

/* ---- index splitting ---- */
/* Division of n < 2^31 by a constant: (mulhi(n, multiply) + n) >> shift (Granlund and Montgomery,
 * "Division by invariant integers using multiplication", PLDI 1994). Kernels whose counts need 64
 * bits divide by `by`. */
typedef struct trmi_div {
    uint64_t by;
    uint32_t multiply, shift;
} trmi_div;
trmi_div trmi_cuda_div(uint64_t by); /* of 0: as of 1 */

/* ---- strided copies (move_plan.c, move_copy.cu) ---- */
/* An N-dimensional copy between two strided views; no two elements share their place in the output.
 * Steps and offsets in elements; those of the input may be 0 or negative. */
typedef struct trmi_move_copy {
    size_t elem; /* bytes: 1, 2, 4, 8 */
    int rank;
    size_t dims[TRMI_MOVE_RANK];
    int64_t in[TRMI_MOVE_RANK], out[TRMI_MOVE_RANK];
    int64_t in_offset, out_offset;
} trmi_move_copy;

/* A walk over all elements of the output in its order in memory. Steps in units. */
typedef struct trmi_move_walk {
    int rank;
    uint64_t count; /* of threads' work items */
    trmi_div dims[TRMI_MOVE_RANK];
    int64_t in[TRMI_MOVE_RANK], out[TRMI_MOVE_RANK];
    int64_t in_step; /* between the units of a pack */
} trmi_move_walk;

/* A transposition in tiles, see move_tile.cuh. Steps in units. */
typedef struct trmi_move_tile {
    int outer_rank;
    uint64_t outer[TRMI_MOVE_RANK];
    int64_t outer_in[TRMI_MOVE_RANK], outer_out[TRMI_MOVE_RANK];
    int64_t a_count, b_count; /* a: step 1 in the input; b: step 1 in the output */
    int64_t a_out, b_in;      /* the other steps */
    int a_log, b_log;         /* from here on: trmi_cuda_tile_shape */
    uint64_t a_tiles, b_tiles;
    uint32_t blocks;
} trmi_move_tile;
/* log2 of the elements of a tile: 8 KB, and 4096 bytes */
#define TRMI_MOVE_TILE_LOG(bytes) ((bytes) <= 2 ? 12 : (bytes) == 4 ? 11 : (bytes) == 8 ? 10 : 9)
/* Chooses the tile; false: the matrices are too small for one each block, or the grid too large. */
bool trmi_cuda_tile_shape(trmi_move_tile *t, size_t elem);

typedef enum trmi_move_kind {
    TRMI_MOVE_NOTHING,
    TRMI_MOVE_FLAT,
    TRMI_MOVE_WALK,
    TRMI_MOVE_TILES
} trmi_move_kind;

typedef struct trmi_move_plan {
    trmi_move_kind kind;
    size_t unit;                   /* bytes moved at once: 1, 2, 4, 8, 16 */
    int pack;                      /* WALK: units a thread stores together: 1 or 4 */
    size_t align;                  /* of both pointers, for which the plan holds */
    int64_t in_offset, out_offset; /* bytes */
    size_t bytes;                  /* FLAT */
    trmi_move_walk walk;
    trmi_move_tile tile;
} trmi_move_plan;

/* Sorts dims by their steps in the output, drops dims of 1, merges, widens elements to units of at
 * most `widest` bytes, and picks how it is done: flat; a walk over the output; tiles where the
 * innermost output dim is far apart in the input and another one is contiguous there. */
void trmi_cuda_move_plan(const trmi_move_copy *c, size_t widest, trmi_move_plan *plan_out);
/* `plan` is of `c` for 16 bytes; pointers that are less aligned are planned again. */
TRM_MUST_USE trm_status trmi_cuda_move_run(const trm_cuda *cuda, cudaStream_t stream,
                                           const trmi_move_copy *c, const trmi_move_plan *plan,
                                           const void *in, void *out);
/* `bytes` from `in` to `out`, which are equal or do not overlap. */
TRM_MUST_USE trm_status trmi_cuda_copy_flat(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                            const void *in, size_t bytes);

/* ---- what the prepare functions of this family share (move_common.c) ---- */
/* Row-major steps in elements of dims[0..rank). */
void trmi_cuda_steps(int rank, const int64_t *dims, int64_t *steps_out);
/* INVALID_ARG if an output's inferred dims differ from what the kernel will write. */
TRM_MUST_USE trm_status trmi_cuda_expect(const trm_op_desc *desc, int output, int rank,
                                         const int64_t *dims);
/* i32 or i64, else INVALID_ARG. */
TRM_MUST_USE trm_status trmi_cuda_index_dtype(const trm_op_desc *desc, int input);
/* CHANNELS_LAST if `layout` is that and rank >= 3, else PLAIN. */
trm_layout trmi_cuda_move_layout(trm_layout layout, int rank);

/* Kernels that read indices at run time. Nothing is read or written out of bounds: what a bad index
 * asks for is zero, or is not written; the kernel notes it (notes.h), and the step fails. */
typedef struct trmi_move_checked {
    trmi_cuda_kernel base;
    int note; /* -1: nothing to note */
} trmi_move_checked;
/* Whether the value of input i, tuples [.., depth] of indices in [-limits[d], limits[d]), is
 * constant and has none out of range: then there is nothing to note at run time. */
bool trmi_cuda_move_known_good(const trm_op_desc *desc, int input, int depth,
                               const int64_t *limits);
/* Zeroed object of `bytes` whose first member is trmi_move_checked; its ops must destroy it with
 * trmi_cuda_move_checked_free. known_good: it notes nothing. */
TRM_MUST_USE trm_status trmi_cuda_move_checked_new(trm_cuda *cuda, const trm_op_desc *desc,
                                                   bool known_good, size_t bytes,
                                                   const trm_kernel_ops *ops, void *kernel_out);
/* Where a run notes a bad index: device memory, or NULL. */
static inline void *trmi_cuda_move_notes(const trmi_move_checked *k)
{
    return trmi_cuda_note_memory(k->base.cuda, k->note);
}
void trmi_cuda_move_checked_free(trm_kernel *k);

/* ---- pieces of rows: Concat, Split (move_pieces.cu) ---- */
#define TRMI_MOVE_PIECES 64
typedef struct trmi_move_pieces {
    int count;
    const unsigned char *whole;             /* written by Concat */
    size_t rows, row_bytes;                 /* of the whole */
    unsigned char *piece[TRMI_MOVE_PIECES]; /* [rows, bytes]; only read by Concat. Split: NULL: not
                                               wanted */
    size_t start[TRMI_MOVE_PIECES + 1];     /* bytes of a row where the pieces begin; ascending */
} trmi_move_pieces;
TRM_MUST_USE trm_status trmi_cuda_move_pieces(const trm_cuda *cuda, cudaStream_t stream,
                                              const trmi_move_pieces *p, bool join);

/* ---- gathering (move_gather.cu) ---- */
#define TRMI_GATHER_RANGES 64
/* out[outer, indices, inner] = in[outer, held, inner] at the indices; with ranges: in holds the
 * rows of the ranges, in order, and rows elsewhere are zero. */
typedef struct trmi_gather {
    size_t outer, indices, inner_bytes;
    int64_t limit; /* indices are in [-limit, limit) */
    int64_t held;  /* rows that the input has */
    trm_dtype index_dtype;
    int range_count; /* 0: limit rows are held */
    int64_t ranges[TRMI_GATHER_RANGES][2];
} trmi_gather;
TRM_MUST_USE trm_status trmi_cuda_gather_rows(const trm_cuda *cuda, cudaStream_t stream,
                                              const trmi_gather *g, const void *in,
                                              const void *index, void *out, void *bad);

/* out[i] = in[i with the index in place of coordinate `axis`], over dims[0..rank) of the index. */
typedef struct trmi_gather_elements {
    size_t elem, count;
    trm_dtype index_dtype;
    int rank, axis;
    trmi_div dims[TRM_RANK_MAX];
    int64_t steps[TRM_RANK_MAX]; /* of the input, in elements */
    int64_t limit;
} trmi_gather_elements;
TRM_MUST_USE trm_status trmi_cuda_gather_elements(const trm_cuda *cuda, cudaStream_t stream,
                                                  const trmi_gather_elements *g, const void *in,
                                                  const void *index, void *out, void *bad);

/* Slices of `inner_bytes` at tuples [tuples, depth] of indices; `per_batch` tuples a batch, whose
 * data lie batch_slices apart. */
typedef struct trmi_gather_nd {
    size_t tuples, per_batch, inner_bytes;
    trm_dtype index_dtype;
    int depth;
    int64_t dims[TRM_RANK_MAX], steps[TRM_RANK_MAX]; /* steps in slices */
    int64_t batch_slices;
} trmi_gather_nd;
TRM_MUST_USE trm_status trmi_cuda_gather_nd(const trm_cuda *cuda, cudaStream_t stream,
                                            const trmi_gather_nd *g, const void *in,
                                            const void *index, void *out, void *bad);

/* ---- scattering (move_scatter.cu) ---- */
typedef enum trmi_scatter_reduction {
    TRMI_SCATTER_NONE,
    TRMI_SCATTER_ADD,
    TRMI_SCATTER_MUL,
    TRMI_SCATTER_MAX,
    TRMI_SCATTER_MIN
} trmi_scatter_reduction;

/* `count` updates of `inner` elements each go to slices of the output, in the order of the updates:
 * the result is that of one thread, whatever the indices. Where update i goes: ScatterND (depth >
 * 0): the tuple index[i, 0..depth); ScatterElements (depth 0): coordinates of i in dims, with the
 * index in place of `axis`. */
typedef struct trmi_scatter {
    trm_dtype dtype, index_dtype;
    trmi_scatter_reduction reduction;
    size_t count, inner, slots; /* slots: slices that the output has */
    int depth;
    int rank, axis;
    trmi_div dims[TRM_RANK_MAX];
    int64_t limits[TRM_RANK_MAX], steps[TRM_RANK_MAX]; /* of the output, in slices */
} trmi_scatter;
size_t trmi_cuda_scatter_workspace(const trmi_scatter *s);
TRM_MUST_USE trm_status trmi_cuda_scatter(const trm_cuda *cuda, cudaStream_t stream,
                                          const trmi_scatter *s, const void *index,
                                          const void *updates, void *out, void *workspace,
                                          void *bad);

/* out[batches, middle, limit, row]: rows [first, first + rows) of each batch, modulo limit where
 * circular, are update[batches, middle, rows, row]. first[batches], NULL: 0. */
typedef struct trmi_tensor_scatter {
    size_t batches, middle, rows, row_bytes;
    int64_t limit;
    trm_dtype index_dtype;
    bool circular;
} trmi_tensor_scatter;
TRM_MUST_USE trm_status trmi_cuda_tensor_scatter(const trm_cuda *cuda, cudaStream_t stream,
                                                 const trmi_tensor_scatter *t, const void *update,
                                                 const void *first, void *out, void *bad);

/* ---- padding, reversing (move_pad.cu) ---- */
typedef enum trmi_pad_mode {
    TRMI_PAD_CONSTANT,
    TRMI_PAD_REFLECT,
    TRMI_PAD_EDGE,
    TRMI_PAD_WRAP
} trmi_pad_mode;
/* Axes from the outermost in memory; the input and the output are dense. Coordinate o of the output
 * is o - begin of the `kept` elements that begin at `low` of the input. */
typedef struct trmi_pad {
    size_t elem;
    trmi_pad_mode mode;
    int rank;
    size_t in_dims[TRM_RANK_MAX], out_dims[TRM_RANK_MAX];
    int64_t begin[TRM_RANK_MAX], low[TRM_RANK_MAX], kept[TRM_RANK_MAX];
} trmi_pad;
/* value: one element; NULL: zero. */
TRM_MUST_USE trm_status trmi_cuda_pad(const trm_cuda *cuda, cudaStream_t stream, const trmi_pad *p,
                                      const void *in, const void *value, void *out);

/* in, out [d0, d1, inner]; time is d0 or d1 (time_first), the other one is the batch. */
typedef struct trmi_reverse {
    size_t d0, d1, inner_bytes;
    bool time_first;
    trm_dtype index_dtype;
} trmi_reverse;
TRM_MUST_USE trm_status trmi_cuda_reverse(const trm_cuda *cuda, cudaStream_t stream,
                                          const trmi_reverse *r, const void *in,
                                          const void *lengths, void *out, void *bad);

/* ---- generated data (move_fill.cu) ---- */
/* `count` elements of `elem` bytes, the low bytes of `value`. */
TRM_MUST_USE trm_status trmi_cuda_fill(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                       uint64_t value, size_t elem, size_t count);
/* out[i] = values[i], count at most TRM_RANK_MAX. */
TRM_MUST_USE trm_status trmi_cuda_store_ints(cudaStream_t stream, int64_t *out,
                                             const int64_t *values, int count);
/* out[i] = start + i * delta: integers wrap; floats in f64, rounded once. */
TRM_MUST_USE trm_status trmi_cuda_range(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                        trm_dtype dtype, size_t count, double start, double delta,
                                        int64_t start_int, int64_t delta_int);
/* out[r, c] = one where c = r + k, else 0. */
TRM_MUST_USE trm_status trmi_cuda_eye(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                      size_t elem, uint64_t one, size_t rows, size_t columns,
                                      int64_t k);
/* in, out [matrices, rows, columns], which may be one: zeros below (upper) or above diagonal k. */
TRM_MUST_USE trm_status trmi_cuda_trilu(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                        const void *in, size_t elem, size_t matrices, size_t rows,
                                        size_t columns, int64_t k, bool upper);
/* out[outer, depth, inner] = values[1] where index[outer, inner] is that depth (negative: from the
 * end), else values[0]. The index may be of any dtype. */
TRM_MUST_USE trm_status trmi_cuda_one_hot(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                          const void *values, size_t elem, const void *index,
                                          trm_dtype index_dtype, size_t outer, size_t depth,
                                          size_t inner);

#ifdef __cplusplus
}
#endif
#endif
