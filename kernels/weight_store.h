/* Where the packed weights of several processes lie once: implemented above
 * (parallel/weight_share), asked by a backend when it packs. Keys must mean the same bytes in all
 * of them. */
#ifndef TRM_KERNELS_WEIGHT_STORE_H
#define TRM_KERNELS_WEIGHT_STORE_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In keys that mean the same constant in every process of a store; a store is asked for no others:
 * what counts within one process would find another's bytes there. */
#define TRM_WEIGHT_SHARED_KEY ((uint64_t)1 << 63)

typedef struct trm_weight_store trm_weight_store;
struct trm_weight_store {
    /* Memory for the `bytes` packed from constant `key` in `form` (any text that determines them),
     * TRM_ALIGN aligned, while the store lives. *ready_out: they are there; else the caller fills
     * the memory and must call `settle`. Waits while another process fills it. NULL: no room, or it
     * could not be had: the caller packs for itself. Never fails. */
    void *(*get)(trm_weight_store *s, uint64_t key, const char *form, size_t bytes,
                 bool *ready_out);
    /* Memory that get gave to be filled is full (ok), or will not be. */
    void (*settle)(trm_weight_store *s, const void *memory, bool ok);
};

#ifdef __cplusplus
}
#endif
#endif
