/* What of a graph runs on the host of an accelerator, because the accelerator has no kernel for it,
 * and what is copied for that: the executor's rules (worker/bind_node.c) as arithmetic. A dtype or
 * an attribute that a kernel refuses shows only when the node is bound: it is not seen here. */
#ifndef TRM_PARALLEL_HOST_PART_H
#define TRM_PARALLEL_HOST_PART_H

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_host_part {
    int nodes;                /* without a kernel */
    int counts[TRM_OP_COUNT]; /* of those, by operator */
    int followers;            /* with a kernel, but small and between such nodes */
    int copies;               /* in a step */
    size_t copied_bytes;
    /* [node_count], or NULL where not wanted: */
    bool *on_host;
    size_t *copied; /* bytes that are copied for the node */
    int *copies_of; /* in so many copies */
} trm_host_part;

/* `g`: finished; descs: concrete (trm_shapes_bind). Memory from `arena`. */
TRM_MUST_USE trm_status trm_host_part_find(const trm_graph *g, const trm_tensor *descs,
                                           trm_arena *arena, trm_host_part *part_out);
/* "Unique 1, NonZero 2", most frequent first; returns buf. */
char *trm_host_part_text(const trm_host_part *part, char *buf, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
