/* Shape inference. One rule an operator, in files by family; the table is model/shape/table.c.
 *
 * The same rules serve two callers. The pass trm_graph_infer runs once over an imported graph with
 * symbolic dims, for inspect, fusion and the planner. The executor calls trm_shape_infer with
 * concrete dims when it binds a program; values of shape inputs are then host data. */
#ifndef TRM_MODEL_SHAPE_SHAPE_H
#define TRM_MODEL_SHAPE_SHAPE_H

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_shape_io {
    trm_graph *graph; /* for symbols and names in messages; NULL: dims that are no constants become
                         unknown */
    const trm_node *node;
    const trm_tensor *in; /* [node->input_count]: dtype NONE: absent. rank -1 or dims < 0: unknown.
                             data: host value (plain, aligned) where known, else NULL */
    const int64_t *const
        *in_values; /* [input_count] or NULL. in_values[i]: the elements of a small integer input as
            dims (symbols allowed) where known though `data` is not */
    trm_tensor
        *out; /* [node->output_count]: rules fill dtype, rank, dims; they arrive as NONE, rank -1 */
    int64_t **out_values; /* [output_count] or NULL. A rule may fill
                             out_values[i][0..TRM_SHAPE_VALUES_MAX) and set out_values_known[i]
                             where it can say the elements of a small integer output as dims */
    bool *out_values_known;
} trm_shape_io;
#define TRM_SHAPE_VALUES_MAX 64

typedef trm_status (*trm_shape_rule)(const trm_shape_io *io);
/* The rule of an operator; NULL: none (every output unknown). */
trm_shape_rule trm_shape_rule_get(trm_op op);

/* Infers one node. Errors are the model's: INVALID_ARG with op, node name, the shapes seen and what
 * would be right. */
TRM_MUST_USE trm_status trm_shape_infer(const trm_shape_io *io);

/* Infers the whole graph (and bodies) in place: fills desc of every value, unifying with what the
 * file declared (a contradiction between constant dims is an error naming the value). Graph must be
 * sorted. */
TRM_MUST_USE trm_status trm_graph_infer(trm_graph *g);

#ifdef __cplusplus
}
#endif
#endif
