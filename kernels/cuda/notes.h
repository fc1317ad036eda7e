/* What kernels note for the host about the data that they met: an index out of range. Nothing is
 * read or written out of bounds for it; the step's result does not count, and the error is told
 * when the step is collected. Notes of all kernels lie together in device memory, so that a step
 * fetches them with one copy. */
#ifndef TRM_KERNELS_CUDA_NOTES_H
#define TRM_KERNELS_CUDA_NOTES_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A note: int64_t[8]: set (1), the index, its element, the lowest and the highest index in range.
 */
#define TRMI_NOTE_BYTES 64
#define TRMI_NOTES_MAX 1024 /* kernels at once that may note something */

/* A zeroed note of its own for a kernel of node `name`. UNSUPPORTED: too many kernels have one. */
TRM_MUST_USE trm_status trmi_cuda_note_take(trm_cuda *cuda, trm_op op, const char *name,
                                            int *note_out);
void trmi_cuda_note_release(trm_cuda *cuda, int note);       /* takes -1 */
void *trmi_cuda_note_memory(const trm_cuda *cuda, int note); /* device; NULL for -1 */
/* Bytes from the first note to the last one taken; 0: none is. */
size_t trmi_cuda_notes_bytes(const trm_cuda *cuda);
/* Enqueues: all notes to `host`, then they are clear. */
TRM_MUST_USE trm_status trmi_cuda_notes_fetch(trm_cuda *cuda, cudaStream_t stream, void *host,
                                              size_t bytes);
/* OK, or INVALID_ARG: the first note that is set, with operator, node, index and range. */
TRM_MUST_USE trm_status trmi_cuda_notes_check(const trm_cuda *cuda, const void *host, size_t bytes);
void trmi_cuda_notes_fini(trm_cuda *cuda);

#ifdef __cplusplus
}
#endif
#endif
