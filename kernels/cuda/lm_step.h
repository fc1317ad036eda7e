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

/* Positions that attention takes as one piece: a sequence's keys are cut at absolute multiples of
 * it, each piece is summed by itself, pieces are merged in ascending order. */
#define TRMI_LM_SPLIT 512
/* Rows of one sequence that a block of attention takes, from the sequence's first row of the step
 * on. */
#define TRMI_LM_QUERIES 16

typedef struct trmi_lm_sequence {
    int32_t row, tokens, position;
    int32_t page_first; /* in the block's list of pages */
} trmi_lm_sequence;

/* A piece of attention's work. A tile of queries (rows [row, row + rows) of the step, of
 * `sequence`) over splits [split_begin, split_end) of its keys. slot: -1: the tile has all its
 * splits here, and the result is final; else results of split s are partial, number slot + s -
 * split_begin. */
typedef struct trmi_lm_item {
    int32_t sequence, row, rows, split_begin, split_end, slot;
} trmi_lm_item;
/* Tiles whose partial results wait to be merged: numbers [slot, slot + splits). */
typedef struct trmi_lm_merge {
    int32_t row, rows, slot, splits;
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
    int32_t item_count, merge_count, partial_count;
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
