/* Choices that were measured on this kind of GPU (which algorithm of a library is fastest for a
 * shape), kept on disk between processes: a text key gives some bytes.
 *
 * One file for a library, its version and a GPU's name, in $TRM_CACHE, else
 * $XDG_CACHE_HOME/trireme, else ~/.cache/trireme. A file that is torn, of another version or too
 * large counts as empty, and one that cannot be written is only a pity: nothing here makes a
 * caller fail. What is found may have been written by anyone who can write the folder: callers let
 * their library check it before it is used.
 *
 * One owner, the device's thread. */
#ifndef TRM_KERNELS_CUDA_PLAN_CACHE_H
#define TRM_KERNELS_CUDA_PLAN_CACHE_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_PLAN_KEY_MAX 500    /* characters: printable ASCII without tabs */
#define TRMI_PLAN_BYTES_MAX 2048 /* of a value */

typedef struct trmi_plan_cache trmi_plan_cache;

/* Reads the file, if there is a good one. library: part of the file's name ("cublaslt"); version
 * and gpu: what else must be the same. Fails only for lack of memory. */
TRM_MUST_USE trm_status trmi_cuda_plan_cache_open(const char *library, const char *version,
                                                  const char *gpu, trmi_plan_cache **cache_out);
/* The bytes kept under `key`, valid until the next put; NULL: none. */
const void *trmi_cuda_plan_cache_find(const trmi_plan_cache *cache, const char *key,
                                      size_t *bytes_out);
/* Keeps a copy of `bytes` bytes under `key`, in the place of what was there. Written to the file
 * now and then, and when the cache is closed. A key or value out of bounds is not kept. */
void trmi_cuda_plan_cache_put(trmi_plan_cache *cache, const char *key, const void *value,
                              size_t bytes);
void trmi_cuda_plan_cache_close(trmi_plan_cache *cache); /* takes NULL; writes what is new */

#ifdef __cplusplus
}
#endif
#endif
