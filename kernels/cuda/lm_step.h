/* A step of a language model as kernels on the device read it (kernels/language.h: trm_step): one
 * block of memory without pointers into itself, made in host memory and sent in one copy. What
 * captured kernels are given stays the same from step to step: the block's address, and those of
 * the graph's inputs in it; everything else they find through the block, so that a graph that was
 * captured once serves every step of its size.
 *
 * Kernels take the block as `const trmi_lm_block *`; grids are sized by the program's T and R and
 * by the device, never by the step: what a step does not need ends early. */
#ifndef TRM_KERNELS_CUDA_LM_STEP_H
#define TRM_KERNELS_CUDA_LM_STEP_H

#include "kernels/cuda/cuda.h"
#include "kernels/language.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_lm_sequence {
    int32_t row, tokens, position;
    int32_t page_first; /* in the block's list of pages */
} trmi_lm_sequence;

/* ---- attention's work ---- */

/* Positions that attention sums as one piece: a sequence's keys are cut at absolute multiples of
 * it, each piece (a split) is summed by itself, pieces are merged in ascending order. */
#define TRMI_LM_SPLIT 256
/* Rows of one sequence that a tile takes, from the sequence's first row of the step on: tiles of
 * sequences with few rows are narrow (a warp's work: their cost is reading the cache), others wide
 * (many rows share the keys that a block of threads has fetched). */
#define TRMI_LM_NARROW 16
#define TRMI_LM_WIDE 128
/* Programs of at most so many rows have narrow tiles only, which spares them a launch; in larger
 * ones sequences of at most NARROW_TOKENS rows have. */
#define TRMI_LM_NARROW_ROWS 64
#define TRMI_LM_NARROW_TOKENS 8

/* Partial results that a program of `rows` rows has room for: one is a row's (all heads) of a
 * split. As many sequences as fit have their splits dealt out; the rest keep theirs together. */
static inline int32_t trmi_lm_partials_max(int32_t rows)
{
    return rows < 256 ? 1024 + 4 * rows : 2048;
}

/* A tile of queries (rows [row, row + rows) of the step, of `sequence`) over splits [split_begin,
 * split_end) of its keys. slot: -1: the tile has all its splits here, and the result is final; else
 * row r's result of split s is partial number slot + (r - row) * slot_step + s - split_begin. */
typedef struct trmi_lm_item {
    int32_t sequence, row, rows, split_begin, split_end, slot, slot_step;
} trmi_lm_item;
/* A row whose partial results wait to be merged: numbers [slot, slot + splits), of splits from 0.
 */
typedef struct trmi_lm_merge {
    int32_t sequence, row, slot, splits;
} trmi_lm_merge;

/* trm_step_sample with offsets in place of pointers (from the block's beginning, 0: none). */
typedef struct trmi_lm_sample {
    trm_step_sample sample; /* its pointers mean nothing here */
    uint32_t bias_at, ends_at, allowed_at;
} trmi_lm_sample;
typedef struct trmi_lm_begin {
    int32_t slot, prompt_count;
    uint32_t prompt_at;
} trmi_lm_begin;

typedef struct trmi_lm_layer {
    unsigned char *pages;
    uint64_t page_bytes;
} trmi_lm_layer;

/* Offsets are bytes from the block's beginning, multiples of 16. */
typedef struct trmi_lm_block {
    uint64_t bytes;
    int32_t tokens, token_rows, pick_rows;
    int32_t sequence_count, sequences_padded;
    int32_t item_count, wide_count; /* narrow tiles' items, behind them wide ones' */
    int32_t merge_count;
    int32_t sample_count, begin_count;
    uint32_t tokens_at, positions_at, rows_at, types_at; /* the graph's inputs */
    uint32_t
        row_sequences_at; /* [token_rows] int32: which sequence a row belongs to, -1: padding */
    uint32_t sequences_at, pages_at, items_at, merges_at, layers_at, samples_at, begins_at;
    int64_t vocabulary;
    int32_t slots;
    int32_t *slot_tokens;
    uint16_t *slot_counts;
} trmi_lm_block;

#define TRMI_LM_AT(type, block, at)                                                                \
    ((const type *)(const void *)((const unsigned char *)(block) + (at)))

/* See trm_device_ops. */
TRM_MUST_USE trm_status trmi_cuda_step_encode(trm_device *d, const trm_step *step, void *host,
                                              size_t host_max, size_t *bytes_out);
TRM_MUST_USE trm_status trmi_cuda_step_send(trm_device *d, trm_stream *s, const trm_step *step,
                                            void *block, const void *host, size_t bytes);
size_t trmi_cuda_step_input_at(trm_device *d, const trm_step *step, trm_step_input input);

/* lm_step.cu: tokens that only the device knows (TRM_STEP_TOKEN_OF_SLOT) get their values in the
 * block's tokens. */
TRM_MUST_USE trm_status trmi_cuda_lm_tokens(void *block, const trm_step *step, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
