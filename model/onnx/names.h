/* Names to numbers: open addressing in an arena, for the value names of one graph. One owner. */
#ifndef TRM_MODEL_ONNX_NAMES_H
#define TRM_MODEL_ONNX_NAMES_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_names {
    struct trm_names_slot {
        const char *name; /* NULL: free */
        int number;
    } * slots;
    size_t count, max; /* max: a power of two, or 0 */
} trm_names;

int trm_names_find(const trm_names *names, const char *name); /* -1: none */
/* Adds or replaces; borrows `name`. */
TRM_MUST_USE trm_status trm_names_put(trm_names *names, trm_arena *arena, const char *name,
                                      int number);

#ifdef __cplusplus
}
#endif
#endif
