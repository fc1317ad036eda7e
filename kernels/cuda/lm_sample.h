/* From logits to tokens: TrmSample (kernels/language.h), by the rules of worker/language/sampler.h.
 *
 * Files: lm_sample.c (prepare), lm_sample.cuh (what a row is, keys, sums), lm_sample.cu (passes
 * over whole rows), lm_sample_draw.cu (what is left of a row, and the token).
 *
 * A row [V] is cut in parts of whole chunks of TRMI_LMS_CHUNK tokens, a block each: as many as fill
 * the device. Nothing depends on the number of parts: sums that decide are either made by the
 * CPU's chunks and lanes (log-sum-exp; the draw from a whole row), equal to the bit, or of
 * integers: weights times 2^shift (top_p, typical_p, the draw from candidates), which any order
 * adds to the same. So are rows that have no sample, parameters of other rows, and R.
 *
 * Pointers are device memory. Nothing waits, nothing is allocated. */
#ifndef TRM_KERNELS_CUDA_LM_SAMPLE_H
#define TRM_KERNELS_CUDA_LM_SAMPLE_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/lm_step.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LMS_CHUNK 1024 /* of worker/language/sampler_impl.h */
#define TRMI_LMS_PARTS 32
#define TRMI_LMS_BUCKETS 2048 /* of z = (logit - largest) / temperature, 1/32 wide */
#define TRMI_LMS_LIST 4096    /* candidates that are kept in a list; more: the row is read again */
#define TRMI_LMS_TOP_LIST 1024
#define TRMI_LMS_SMALL 8192 /* up to it blocks have 128 threads, else 512 */
#define TRMI_LMS_VOCABULARY_MAX (1 << 22)

typedef struct trmi_lms_candidate {
    int32_t id;
    float value;
} trmi_lms_candidate;

/* What one part has seen: `best`: the largest value and the lowest id that has it, as one number
 * that is larger the better; of the row as it came and of the row with its changes. */
typedef struct trmi_lms_part {
    uint64_t raw_best, best;
    uint64_t bad; /* elements that are not finite */
} trmi_lms_part;

/* Of one row, in the workspace; behind it lie a bit for each token that a bias or an end changes,
 * and the sums of chunks of the row as it came and of the weights. */
typedef struct trmi_lms_work {
    trmi_lms_part parts[TRMI_LMS_PARTS];
    uint64_t total; /* top_p: of all weights */
    int32_t cut;    /* candidates are in buckets up to it */
    uint32_t listed, top_listed;
    uint32_t unused;
    uint64_t masses[TRMI_LMS_BUCKETS];
    uint32_t counts[TRMI_LMS_BUCKETS], top_counts[TRMI_LMS_BUCKETS];
    trmi_lms_candidate list[TRMI_LMS_LIST], top_list[TRMI_LMS_TOP_LIST];
} trmi_lms_work;

typedef struct trmi_lms_shape {
    int32_t rows, vocabulary, chunks;
    int32_t parts, part_chunks;
    int32_t shift; /* weights are integers of 2^-shift: a row's sum is below 2^63 */
    uint32_t touched_at, raw_sums_at, sums_at, row_bytes; /* in a row's part of the workspace */
} trmi_lms_shape;

/* UNSUPPORTED: the vocabulary is larger than TRMI_LMS_VOCABULARY_MAX. */
TRM_MUST_USE trm_status trmi_cuda_lm_sample_shape(const trm_cuda *cuda, int64_t rows,
                                                  int64_t vocabulary, trmi_lms_shape *shape_out);
/* logits: [rows, vocabulary], as they were afterwards; out: [rows]; workspace: rows * row_bytes. */
TRM_MUST_USE trm_status trmi_cuda_lm_sample(const trmi_lms_shape *shape, const trmi_lm_block *block,
                                            const float *logits, trm_step_sampled *out,
                                            void *workspace, cudaStream_t stream);
/* The counts of slots that begin anew with this step: cleared, and the prompt's tokens marked.
 * Behind the copy of the block, before the step. */
TRM_MUST_USE trm_status trmi_cuda_lm_begin(const trmi_lm_block *block, const trm_step *step,
                                           cudaStream_t stream);

/* lm_sample_draw.cu: the last of the launches of trmi_cuda_lm_sample. */
TRM_MUST_USE trm_status trmi_cuda_lm_sample_draw(const trmi_lms_shape *shape,
                                                 const trmi_lm_block *block, const float *logits,
                                                 trm_step_sampled *out, void *workspace,
                                                 cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
