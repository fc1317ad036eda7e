/* Shared between the planner's files. */
#ifndef TRM_PARALLEL_PLANNER_IMPL_H
#define TRM_PARALLEL_PLANNER_IMPL_H

#include "parallel/planner.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_RANKS_MAX 4096 /* of one dimension of a layout */
#define TRMI_REPLICA_MAX 64 /* tensor x pipeline: the size of a communicator */

/* "1.20 GB", "34.5 MB", "0.3 kB" into buf [TRMI_BYTES_TEXT]; returns buf. */
#define TRMI_BYTES_TEXT 32
char *trmi_bytes_text(size_t bytes, char *buf);
/* The constants that weigh most, "'a' (50.0 MB), 'b' (20.0 MB)". bytes: [value_count] */
char *trmi_biggest_weights(const trm_graph *g, const size_t *bytes, char *buf, size_t room);

#ifdef __cplusplus
}
#endif
#endif
