/* Shape inference with its by-product: which small values are known element by element. */
#ifndef TRM_MODEL_SHAPE_INFER_VALUES_H
#define TRM_MODEL_SHAPE_INFER_VALUES_H

#include "model/shape/shape.h"

/* trm_graph_infer; then `found` is called for every value of the top graph made by a node whose
 * shape is concrete and whose elements (at most TRM_SHAPE_VALUES_MAX, all >= 0) are known: shape
 * arithmetic on constant dims. It may turn the value into a constant; the node that makes it is
 * left in place. */
typedef trm_status (*trmi_value_found)(void *ctx, trm_graph *g, int value, const int64_t *elems,
                                       int count);
TRM_MUST_USE trm_status trmi_graph_infer_values(trm_graph *g, trmi_value_found found, void *ctx);

#endif
